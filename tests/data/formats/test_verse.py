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
"""VerSe centroid files; turned indices against nibabel turning an array with one bright voxel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_landmarks.data import Landmarks, read_landmarks, write_landmarks
from monai_landmarks.geometry import LandmarkError

nib = pytest.importorskip("nibabel")

# The first lines of a file of the data set.
REAL = '[{"direction": ["P", "I", "R"]}, {"label": 16, "X": 79.1, "Y": 40.9, "Z": 32.3}, \
{"label": 19, "X": 70.6, "Y": 117.3, "Z": 31.6}, {"label": 20, "X": 63.2, "Y": 141.9, "Z": 31.8}]'
PIR = np.array([[0.0, 0, 1.5, -60], [-0.7, 0, 0, 30], [0, -0.8, 0, 200], [0, 0, 0, 1.0]])
OBLIQUE = np.array([[0.1, -1.5, 0.0, 140.0], [0.9, 0.1, 0.1, -20.0], [0.0, 0.1, 2.0, 300.0], [0.0, 0.0, 0.0, 1.0]])
SHAPE = (11, 7, 5)


def saved(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "sub-verse004_seg-subreg_ctd.json"
    file.write_text(text)
    return file


def test_file_of_the_data_set_in_the_images_own_orientation(tmp_path: Path) -> None:
    marks = read_landmarks(saved(tmp_path, REAL), affine=PIR)
    assert marks.names == ("T9", "T12", "L1")
    np.testing.assert_allclose(marks.points[2], [-60 + 1.5 * 31.8, 30 - 0.7 * 63.2, 200 - 0.8 * 141.9])


@pytest.mark.parametrize("codes", ["PIR", "LPS", "RAS", "ASL", "SRP", "IPL", "LIP"])
@pytest.mark.parametrize("affine", [OBLIQUE, PIR], ids=["oblique", "PIR"])
def test_other_orientations_agree_with_nibabel(tmp_path: Path, codes: str, affine: np.ndarray) -> None:
    index = (9, 1, 3)
    array = np.zeros(SHAPE, np.uint8)
    array[index] = 1
    image = nib.Nifti1Image(array, affine)
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    x, y, z = np.argwhere(np.asarray(image.as_reoriented(turn).dataobj))[0].tolist()
    text = json.dumps([{"direction": list(codes)}, {"label": 25, "X": x, "Y": y, "Z": z}])
    marks = read_landmarks(saved(tmp_path, text), affine=affine, spatial_shape=SHAPE)
    assert marks.names == ("L6",)
    np.testing.assert_allclose(marks.points[0], nib.affines.apply_affine(affine, index), atol=1e-9)


@pytest.mark.parametrize("absent", ['"nan"', "NaN", "null"])
def test_absent_vertebrae(tmp_path: Path, absent: str) -> None:
    file = saved(tmp_path, REAL.replace("70.6", absent).replace("117.3", absent).replace("31.6", absent))
    names = ["T9", "T10", "T12", "L1"]
    marks = read_landmarks(file, affine=PIR, names=names, allow_missing=True)
    assert marks.present.tolist() == [True, False, False, True]
    with pytest.raises(LandmarkError, match="Asked for and not here: 'T10'"):
        read_landmarks(file, affine=PIR, names=names)


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        (REAL, {}, "no affine to turn them into millimetres"),
        (REAL, {"affine": OBLIQUE}, "orientation PIR, the image in ALS: .*spatial_shape"),
        (REAL.replace("16", "41"), {"affine": PIR}, "label 41; known are 1 to 28.*label_names"),
        (REAL.replace('"P"', '"Q"'), {"affine": PIR}, "one letter of each"),
        (REAL.replace('"P"', '"S"'), {"affine": PIR}, "one letter of each"),
        (REAL.replace("direction", "orient"), {"affine": PIR}, "states no 'direction'"),
        ('[{"direction": ["P", "I", "R"]}]', {"affine": PIR}, "no centroids"),
        (REAL.replace("79.1", '"wide"'), {"affine": PIR}, "X of T9 holds 'wide'"),
    ],
)
def test_faults(tmp_path: Path, text: str, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(LandmarkError, match=expected):
        read_landmarks(saved(tmp_path, text), **options)


def test_direction_and_names_may_be_given(tmp_path: Path) -> None:
    file = saved(tmp_path, json.dumps([{"label": 50, "X": 1, "Y": 2, "Z": 3}]))
    marks = read_landmarks(file, affine=PIR, direction="PIR", label_names={50: "L1 body"})
    assert marks.names == ("L1 body",)


def test_written_file(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    write_landmarks(Landmarks([[0.0, 0, 0], [np.nan] * 3], ["C7", "T1"]), file, format="verse", affine=np.eye(4))
    assert json.loads(file.read_text()) == [
        {"direction": ["R", "A", "S"]},
        {"label": 7, "X": 0.0, "Y": 0.0, "Z": 0.0},
        {"label": 8, "X": "nan", "Y": "nan", "Z": "nan"},
    ]
    with pytest.raises(LandmarkError, match="'sella' is none"):
        write_landmarks(Landmarks([[0.0, 0, 0]], ["sella"]), file, format="verse", affine=np.eye(4))
    with pytest.raises(LandmarkError, match="is 3D"):
        write_landmarks(Landmarks([[0.0, 0]], ["C7"]), file, format="verse", affine=np.eye(4))
    assert json.loads(file.read_text())[1]["label"] == 7
    assert list(tmp_path.iterdir()) == [file]
