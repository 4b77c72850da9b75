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
"""Reader of hand MR: files put together by name, in any landmark format, and five fixed folds."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_landmarks.data import Landmarks, write_landmarks
from monai_landmarks.data.datasets.hand_mri import HAND_MRI_LANDMARKS, hand_mri_datalist
from monai_landmarks.geometry import LandmarkError

AFFINE = np.array([[-0.8, 0.0, 0.0, 20.0], [0.0, 0.0, 1.5, -7.0], [0.0, 0.9, 0.0, 3.0], [0.0, 0.0, 0.0, 1.0]])


def points_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).uniform(-5, 20, (28, 3))


def write_set(root: Path, num_cases: int = 10, suffix: str = ".mrk.json", **options) -> Path:
    (root / "images").mkdir(parents=True)
    for number in range(1, num_cases + 1):
        image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), AFFINE)
        nib.save(image, root / "images" / f"{number:03d}.nii.gz")
        marks = Landmarks(points_of(number), HAND_MRI_LANDMARKS)
        write_landmarks(marks, root / "landmarks" / f"{number:03d}{suffix}", **options)
    return root


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".mrk.json", {}),
        (".mrk.json", {"space": "RAS"}),
        (".fcsv", {}),
        (".csv", {"space": "RAS"}),
        (".npy", {}),
        (".lml", {"affine": AFFINE}),
    ],
)
def test_points_are_world_mm_whatever_the_format(tmp_path, suffix, options):
    entries = hand_mri_datalist(write_set(tmp_path, 5, suffix, **options))
    assert [entry["case"] for entry in entries] == ["001", "002", "003", "004", "005"]
    for number, entry in enumerate(entries, start=1):
        np.testing.assert_allclose(entry["landmarks"], points_of(number), atol=1e-3)
        assert entry["landmarks"].dtype == np.float64
        assert Path(entry["image"]).name == f"{entry['case']}.nii.gz"


def test_every_case_is_tested_once(tmp_path):
    write_set(tmp_path, 11)

    def cases(fold, part, **options):
        entries = hand_mri_datalist(tmp_path, fold, part=part, num_validation=2, **options)
        return {entry["case"] for entry in entries}

    tested = [cases(fold, "test") for fold in range(5)]
    assert sorted(case for fold in tested for case in fold) == [f"{number:03d}" for number in range(1, 12)]
    for fold in range(5):
        train, validation = cases(fold, "train"), cases(fold, "validation")
        assert len(validation) == 2
        assert not train & validation
        assert not (train | validation) & tested[fold]
        assert train | validation == cases(fold, "training")
        assert cases(fold, "training") | tested[fold] == cases(fold, None)
    assert cases(0, "test", seed=1) != tested[0]
    assert len(cases(0, "test", num_folds=2)) in (5, 6)


def test_folds_of_the_papers_60_cases_have_48_and_12(tmp_path):
    write_set(tmp_path, 60, ".npy")
    sizes = [len(hand_mri_datalist(tmp_path, 1, part=part)) for part in ("train", "validation", "test")]
    assert sizes == [42, 6, 12]


def test_missing_landmark_is_nan_and_other_names_can_be_asked_for(tmp_path):
    write_set(tmp_path, 5)
    points = points_of(3)
    points[7] = np.nan
    write_landmarks(Landmarks(points, HAND_MRI_LANDMARKS), tmp_path / "landmarks" / "003.mrk.json")
    entry = hand_mri_datalist(tmp_path)[2]
    assert np.isnan(entry["landmarks"]).all(axis=1).tolist() == [index == 7 for index in range(28)]
    for number in range(1, 6):
        marks = Landmarks(points_of(number)[:2], ("a", "b"))
        write_landmarks(marks, tmp_path / "landmarks" / f"{number:03d}.mrk.json")
    np.testing.assert_allclose(
        hand_mri_datalist(tmp_path, names=("b", "a"))[0]["landmarks"], points_of(1)[[1, 0]], atol=1e-3
    )
    with pytest.raises(LandmarkError, match=r"001\.mrk\.json"):
        hand_mri_datalist(tmp_path)


def test_files_without_partner_are_named(tmp_path):
    write_set(tmp_path, 6)
    (tmp_path / "images" / "002.nii.gz").unlink()
    for name in ("004", "005"):
        (tmp_path / "landmarks" / f"{name}.mrk.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"2 images without landmark file: 004, 005; 1 landmark files without image: 002\."
    ):
        hand_mri_datalist(tmp_path)


@pytest.mark.parametrize(("folder", "twin"), [("images", "003.nii"), ("landmarks", "003.fcsv")])
def test_two_files_of_one_case_are_refused(tmp_path, folder, twin):
    write_set(tmp_path, 5)
    (tmp_path / folder / twin).write_bytes(b"")
    with pytest.raises(LandmarkError, match="case '003'"):
        hand_mri_datalist(tmp_path)


def test_absent_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; expected images/<case>"):
        hand_mri_datalist(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="images does not exist"):
        hand_mri_datalist(tmp_path)
    write_set(tmp_path / "set", 5)
    (tmp_path / "set" / "landmarks").rename(tmp_path / "set" / "points")
    with pytest.raises(FileNotFoundError, match="landmarks does not exist; expected images/<case>"):
        hand_mri_datalist(tmp_path / "set")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": 5}, "fold must be 0 to 4, got 5"),
        ({"num_folds": 7}, "num_folds must be 2 to 6"),
        ({"part": "fit"}, "fit"),
        ({"part": "train", "num_validation": 5}, "num_validation must leave"),
    ],
)
def test_options_out_of_range(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        hand_mri_datalist(write_set(tmp_path, 6, ".npy"), **options)
