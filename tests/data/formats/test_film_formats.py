# Copyright (c) The monai_landmarks developers
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""COCO keypoints, LabelMe and the challenge's text files against files as their programs write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_landmarks.data import Landmarks, read_landmark_table, read_landmarks, write_landmarks
from monai_landmarks.geometry import LandmarkError

NAN = float("nan")

COCO: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "films/001.bmp", "width": 1935, "height": 2400},
        {"id": 9, "file_name": "films/002.bmp", "width": 1935, "height": 2400},
    ],
    "categories": [{"id": 1, "name": "head", "keypoints": ["sella", "nasion", "porion"], "skeleton": []}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 1, "keypoints": [829, 991, 2, 1465, 1035, 1, 0, 0, 0]},
        {"id": 2, "image_id": 9, "category_id": 1, "keypoints": [1, 2, 2, 3, 4, 2, 5, 6, 2]},
    ],
}
LABELME: dict[str, Any] = {
    "version": "5.2.1",
    "flags": {},
    "shapes": [
        {"label": "sella", "points": [[829.5, 991.5]], "group_id": None, "shape_type": "point", "flags": {}},
        {"label": "nasion", "points": [[1465.5, 1035.5]], "group_id": None, "shape_type": "point", "flags": {}},
    ],
    "imagePath": "001.bmp",
    "imageData": None,
    "imageHeight": 2400,
    "imageWidth": 1935,
}


def saved(tmp_path: Path, content: Any, name: str = "film.json") -> Path:
    file = tmp_path / name
    file.write_text(json.dumps(content))
    return file


def changed(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**content, **changes}


@pytest.mark.parametrize("case", ["films/001.bmp", "001", "001.png", 7, "7"])
def test_coco_image_by_name_stem_or_id(tmp_path: Path, case: str | int) -> None:
    marks = read_landmarks(saved(tmp_path, COCO), case=case, pixel_size=0.1)
    assert marks.names == ("sella", "nasion", "porion")
    np.testing.assert_allclose(marks.points, [[82.9, 99.1], [146.5, 103.5], [NAN, NAN]])
    assert marks.status == ("defined", "defined", "missing")


def test_coco_all_images(tmp_path: Path) -> None:
    assert list(read_landmark_table(saved(tmp_path, COCO), pixel_size=1)) == ["films/001.bmp", "films/002.bmp"]


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        (COCO, {}, "holds 2 images"),
        (COCO, {"case": "003"}, "no image '003'"),
        (COCO, {"case": 7, "category": "hand"}, r"no category 'hand'; the file has 1 \(head\)"),
        (COCO, {"case": 7, "spatial_shape": (968, 1200)}, r"belong to an image of \(1935, 2400\) pixels"),
        (changed(COCO, annotations=COCO["annotations"][:1] * 2), {"case": 7}, "several keypoint annotations"),
        (changed(COCO, annotations=[{"id": 3, "image_id": 8, "category_id": 1, "keypoints": []}]), {}, "is of image 8"),
        (
            changed(COCO, annotations=[{"id": 3, "category_id": 1, "keypoints": []}]),
            {},
            "annotation 3 has no 'image_id'",
        ),
        (changed(COCO, annotations=[]), {}, "no image has keypoints"),
        (changed(COCO, categories=None), {}, "'categories' must be a JSON array"),
        (
            changed(COCO, annotations=[{"id": 3, "image_id": 7, "category_id": 1, "keypoints": [1, 2, 2]}]),
            {"case": 7},
            r"annotation 3 has 3 numbers in 'keypoints'; 3 x 3 \(the category's names\)",
        ),
    ],
)
def test_coco_faults(tmp_path: Path, content: Any, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(LandmarkError, match=expected):
        read_landmarks(saved(tmp_path, content), pixel_size=0.1, **options)


def test_coco_written(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    marks = Landmarks([[82.9, 99.1], [NAN, NAN]], ["sella", "nasion"])
    options: dict[str, Any] = {"format": "coco", "spatial_shape": (1935, 2400), "image_file": "001.bmp"}
    write_landmarks(marks, file, pixel_size=0.1, **options)
    content = json.loads(file.read_text())
    np.testing.assert_allclose(content["annotations"][0]["keypoints"], [829, 991, 2, 0, 0, 0])
    assert content["annotations"][0]["num_keypoints"] == 1
    assert content["images"] == [{"id": 1, "file_name": "001.bmp", "width": 1935, "height": 2400}]
    with pytest.raises(LandmarkError, match=r"spatial_shape \(1, 5, 5\) is not of 2 dimensions"):
        write_landmarks(marks, file, format="coco", pixel_size=1, spatial_shape=(1, 5, 5))
    with pytest.raises(LandmarkError, match=r"are 2D.*mrk\.json"):
        write_landmarks(Landmarks([[1.0, 2, 3]], ["a"]), file, format="coco", affine=np.eye(4))


@pytest.mark.parametrize(("origin", "expected"), [(None, [82.9, 99.1]), (0, [82.95, 99.15])])
def test_labelme_measures_from_the_corner(tmp_path: Path, origin: float | None, expected: list[float]) -> None:
    marks = read_landmarks(saved(tmp_path, LABELME), pixel_size=0.1, origin=origin, spatial_shape=(1935, 2400))
    assert marks.names == ("sella", "nasion")
    np.testing.assert_allclose(marks.points[0], expected)


def test_labelme_edited_after_we_wrote_it(tmp_path: Path) -> None:
    file = tmp_path / "film.json"
    marks = Landmarks([[1.0, 2.0], [NAN, NAN], [3.0, 4.0]], ["a", "b", "c"], ["preview", "undefined", "defined"])
    write_landmarks(marks, file, format="labelme", pixel_size=1, image_file="001.bmp")
    content = json.loads(file.read_text())
    assert [shape["label"] for shape in content["shapes"]] == ["a", "c"]
    placed = {"label": "b", "points": [[7.5, 8.5]], "shape_type": "point"}
    content["shapes"] = [placed, content["shapes"][0], {**placed, "label": "d"}]
    again = read_landmarks(saved(tmp_path, content), pixel_size=1)
    assert again.names == ("a", "b", "c", "d")
    assert again.status == ("preview", "defined", "missing", "defined")
    np.testing.assert_allclose(again.points, [[1.0, 2.0], [7.0, 8.0], [NAN, NAN], [7.0, 8.0]])


@pytest.mark.parametrize(
    ("shapes", "options", "expected"),
    [
        ([{"label": "a", "points": [[1, 2], [3, 4]], "shape_type": "polygon"}], {}, "not all shapes are points"),
        ([{"label": "a", "points": [[1, 2]]}, {"label": "a", "points": [[3, 4]]}], {}, "'a' at places 1, 2"),
        ([{"label": "a", "points": [[1, 2], [3, 4]], "shape_type": "point"}], {}, "one pair"),
        ([{"label": "a", "points": [[1, "z"]], "shape_type": "point"}], {}, "shape 'a' holds 'z'"),
        ([], {}, "no point shapes"),
        (LABELME["shapes"], {"spatial_shape": (968, 1200)}, r"image of \(1935, 2400\) pixels"),
    ],
)
def test_labelme_faults(tmp_path: Path, shapes: Any, options: dict[str, Any], expected: str) -> None:
    file = saved(tmp_path, changed(LABELME, shapes=shapes))
    with pytest.raises(LandmarkError, match=expected):
        read_landmarks(file, pixel_size=0.1, **options)


def test_labelme_other_shapes_may_be_ignored(tmp_path: Path) -> None:
    box = {"label": "jaw", "points": [[1, 2], [3, 4]], "shape_type": "rectangle"}
    file = saved(tmp_path, changed(LABELME, shapes=[box, *LABELME["shapes"]]))
    assert read_landmarks(file, pixel_size=1, ignore_shapes=True).names == ("sella", "nasion")


ISBI = "829,991\n1465,1035\n1300,1275\n1\n2\n1\n"


def test_isbi_is_pixels_of_a_tenth_of_a_millimetre(tmp_path: Path) -> None:
    file = tmp_path / "001.txt"
    file.write_text(ISBI, newline="\r\n")
    marks = read_landmarks(file, names=["sella", "nasion", "orbitale"])
    np.testing.assert_allclose(marks.points, [[82.9, 99.1], [146.5, 103.5], [130.0, 127.5]])
    # The affine of a reduced copy of the film is not that of the pixels in the file.
    reduced = np.array([[0.2, 0, 0.05], [0, 0.2, 0.05], [0, 0, 1]])
    assert read_landmarks(file, names=["sella", "nasion", "orbitale"], affine=reduced) == marks
    np.testing.assert_allclose(read_landmarks(file, pixel_size=0.2).points[0], [165.8, 198.2])
    np.testing.assert_allclose(read_landmarks(file, space="voxel", affine=reduced).points[0], [165.85, 198.25])


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        (ISBI, ["a", "b"], "3 points for 2 names"),
        (ISBI, list("abcd"), "line 4 is '1'; 'x,y' in pixels is expected"),
        (ISBI.replace("1465", "l465"), list("abc"), "line 2, x, holds 'l465'"),
        ("sella\n", None, "line 1 is 'sella'|does not begin with lines"),
    ],
)
def test_isbi_faults(tmp_path: Path, text: str, names: list[str] | None, expected: str) -> None:
    file = tmp_path / "001.txt"
    file.write_text(text)
    with pytest.raises(LandmarkError, match=expected):
        read_landmarks(file, names=names)


def test_isbi_written_as_whole_pixels(tmp_path: Path) -> None:
    file = tmp_path / "001.txt"
    write_landmarks(Landmarks([[0.5, 2.0], [NAN, NAN]], ["a", "b"]), file)
    assert file.read_text() == "5,20\nnan,nan\n"


def test_coco_says_outside_by_its_visibility_and_reads_it_by_its_word(tmp_path: Path) -> None:
    """v = 1 is labelled and not visible; without our word it may be a keypoint hidden behind another, which has a place."""
    file = tmp_path / "film.json"
    marks = Landmarks([[3.0, 4.0], [-9.0, 4.0], [np.nan] * 2], ["a", "b", "c"], ["defined", "outside", "missing"])
    write_landmarks(marks, file, format="coco", pixel_size=1)
    content = json.loads(file.read_text())
    (annotation,) = content["annotations"]
    assert annotation["keypoints"][2::3] == [2, 1, 0]
    assert annotation["num_keypoints"] == 2
    assert read_landmarks(file, pixel_size=1) == marks
    del annotation["keypoint_status"]
    file.write_text(json.dumps(content))
    foreign = read_landmarks(file, pixel_size=1)
    assert foreign.status == ("defined", "defined", "missing")
    np.testing.assert_array_equal(foreign.points, marks.points)
