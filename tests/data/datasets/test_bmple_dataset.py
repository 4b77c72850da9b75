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
"""Reader of the BMPLE lower limb films: sections, points, millimetres of squeezed films, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_landmarks.data import propose_flip_pairs
from monai_landmarks.data.datasets.bmple import BMPLE_LANDMARKS, bmple_datalist
from monai_landmarks.geometry import LandmarkError

SHAPE, SPACING = (5001, 2407), (0.15, 0.14)
"""Of the original film, y before x."""


def gt_of(case: int) -> np.ndarray:
    """26 different points (x, y) of a film."""
    return np.random.default_rng(case).uniform(0.05, 0.95, (26, 2)).round(3) * SHAPE[::-1]


def write_case(folder: Path, case: int, size: tuple[int, int] = (24, 48), **changes: Any) -> None:
    folder.mkdir(exist_ok=True)
    Image.new("L", size).save(folder / f"{case}_384.png")
    meta = {"gt": gt_of(case).tolist(), "original_shape": SHAPE, "spacing": SPACING, **changes}
    (folder / f"{case}_meta.json").write_text(json.dumps(meta))


@pytest.fixture
def make_set(tmp_path) -> Callable[..., Path]:
    def make(size: tuple[int, int] = (24, 48), **changes: Any) -> Path:
        for section, cases in {"train": range(1, 121), "test1": (130, 7), "test2": (12,)}.items():
            for case in cases:
                write_case(tmp_path / section, case, size, **changes)
            if section != "train":
                (tmp_path / f"{section}.json").write_text(json.dumps(list(cases)))
        return tmp_path

    return make


def test_sections_and_split(make_set):
    root = make_set()

    def of(*arguments, **options):
        return [int(entry["case"]) for entry in bmple_datalist(root, *arguments, **options)]

    assert of() == list(range(1, 121))
    assert of("test1") == [7, 130]
    assert of("test2") == [12]
    validation = of("training", "validation", num_validation=15)
    assert len(validation) == 15
    assert sorted(validation + of("training", "train", num_validation=15)) == of()
    assert of("training", "validation", num_validation=15, seed=1) != validation


def test_points_are_the_programs_twenty_in_millimetres(make_set):
    for entry in bmple_datalist(make_set(), "test1"):
        gt = gt_of(int(entry["case"]))
        expected = np.concatenate([gt[:10], gt[13:23]]) * (0.14, 0.15)
        np.testing.assert_allclose(entry["landmarks"], expected, rtol=1e-12)
        assert entry["landmarks"].dtype == np.float64
        assert entry["original_size"] == (2407, 5001)


@pytest.mark.parametrize("size", [(24, 48), (17, 31), (2407, 5001)])
def test_stored_pixels_cover_the_whole_original_film(make_set, tmp_path, size):
    """Oracle: the borders of the stored film are those of the original one, and a pixel's centre is half a pixel inside."""
    write_case(tmp_path / "test1", 5, size)
    (tmp_path / "test1.json").write_text("[5]")
    (entry,) = bmple_datalist(tmp_path, "test1")
    pixel, origin = np.array(entry["pixel_size"]), np.array(entry["origin"])
    spacing, shape = np.array(SPACING[::-1]), np.array(SHAPE[::-1])
    np.testing.assert_allclose(origin - pixel / 2, -0.5 * spacing, atol=1e-12)
    np.testing.assert_allclose(origin + (np.array(size) - 0.5) * pixel, (shape - 0.5) * spacing, rtol=1e-12)
    if size == (2407, 5001):
        np.testing.assert_allclose(entry["landmarks"] / pixel, gt_of(5)[[*range(10), *range(13, 23)]], rtol=1e-12)


def test_other_points_and_missing_ones(make_set, tmp_path):
    gt = gt_of(3).tolist()
    gt[4], gt[11] = None, [None, 3.0]
    write_case(tmp_path / "test1", 3, gt=gt, original_shape=[*SHAPE, 3])
    (tmp_path / "test1.json").write_text('["3"]')
    (entry,) = bmple_datalist(tmp_path, "test1", points=[12, 11, 4])
    assert np.isnan(entry["landmarks"]).tolist() == [[False] * 2, [True] * 2, [True] * 2]
    np.testing.assert_allclose(entry["landmarks"][0], gt_of(3)[12] * (0.14, 0.15))


def test_film_that_nobody_annotated(make_set, tmp_path):
    make_set()
    write_case(tmp_path / "test2", 12, gt=[None] * 26)
    assert np.isnan(bmple_datalist(tmp_path, "test2")[0]["landmarks"]).all()


def test_names():
    assert len(set(BMPLE_LANDMARKS)) == len(BMPLE_LANDMARKS) == 20
    assert BMPLE_LANDMARKS[0] == "right_femoral_head_center"
    assert propose_flip_pairs(BMPLE_LANDMARKS).pairs == tuple(
        (f"left_{name[6:]}", name) for name in BMPLE_LANDMARKS[:10]
    )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"gt": gt_of(5)[:22].tolist()}, "at least 23 points .* got 22"),
        ({"gt": {"a": 1}}, "at least 23 points .* got 0"),
        ({"gt": [[1, 2, 3]] * 26}, "two numbers"),
        ({"gt": [["x", 2]] * 26}, "two numbers"),
        ({"gt": gt_of(5)[:, ::-1].tolist()}, "are the axes exchanged"),
        ({"gt": (gt_of(5) / SHAPE[::-1] * (24, 48)).tolist()}, "pixels of the stored film"),
        ({"spacing": [0.0, 0.14]}, "spacing must be two positive numbers"),
        ({"spacing": [0.14]}, "spacing must be two positive numbers"),
        ({"spacing": 0.14}, "spacing must be two positive numbers"),
        ({"original_shape": [5001, -3]}, "original_shape must be two positive"),
        ({"original_shape": SHAPE[::-1]}, "lies on its side"),
        ({"size": (48, 24)}, "lies on its side"),
    ],
)
def test_refuses_a_meta_file_that_is_not_as_published(tmp_path, changes, match):
    write_case(tmp_path / "test1", 5, **changes)
    (tmp_path / "test1.json").write_text("[5]")
    with pytest.raises(LandmarkError, match=match):
        bmple_datalist(tmp_path, "test1")


def test_refuses_broken_files_and_lists(tmp_path):
    write_case(tmp_path / "test1", 5)
    listed = tmp_path / "test1.json"
    for text, match in (("[5, 5]", "names films 5 twice"), ("[5.5]", "JSON list"), ("[5", "not readable JSON")):
        listed.write_text(text)
        with pytest.raises(LandmarkError, match=match):
            bmple_datalist(tmp_path, "test1")
    listed.write_text("[5]")
    (tmp_path / "test1" / "5_meta.json").write_text(json.dumps({"gt": gt_of(5).tolist(), "spacing": SPACING}))
    with pytest.raises(LandmarkError, match="has no original_shape"):
        bmple_datalist(tmp_path, "test1")


def test_names_what_is_missing(make_set, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        bmple_datalist(tmp_path / "no")
    with pytest.raises(FileNotFoundError, match=r"holds none of the 120 films"):
        bmple_datalist(tmp_path)
    root = make_set()
    (root / "train" / "17_meta.json").unlink()
    (root / "train" / "23_384.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 17_meta.json, 23_384.png"):
        bmple_datalist(root)
    assert len(bmple_datalist(root, allow_incomplete=True)) == 118
    (root / "test2.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"test2.json does not exist"):
        bmple_datalist(root, "test2")


def test_refuses_options(tmp_path):
    with pytest.raises(ValueError, match="only the training section is split"):
        bmple_datalist(tmp_path, "test1", "train")
    with pytest.raises(ValueError, match="different places"):
        bmple_datalist(tmp_path, points=[1, 1])
    with pytest.raises(ValueError, match="training"):
        bmple_datalist(tmp_path, "trainig")
