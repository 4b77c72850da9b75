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
"""One labelled volume: all stages run, and no other label has any influence."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from benchmarks.one_annotation_volumes import NAMES, Settings, run

COLUMNS = [f"{name}_{axis}" for name in NAMES for axis in "ijk"]
TINY = Settings(
    num_test=2,
    batch_size=2,
    embedding=4,
    grid=(24, 32, 24),
    pixel_mm=1.5,
    epochs=1,
    points_per_patch=2,
    contrast_threshold=0.001,
    keypoints=2,
    others=1,
    student_grid=(8, 12, 8),
    student_pixel_mm=4.0,
    student_epochs=1,
    channels=4,
    levels=2,
)


def write_set(root: Path, labelled: str | None = None) -> Path:
    """Six smooth volumes; those labels that are not ``labelled`` are other ones if it is given."""
    random = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    with (root / "landmarks_voxel.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["case", *COLUMNS])
        for number in range(6):
            case = f"hippocampus_{number:03d}"
            volume = gaussian_filter(random.normal(size=(33, 47, 35)), 4).astype(np.float32)
            nib.save(nib.Nifti1Image(volume, np.eye(4)), root / "images" / f"{case}.nii.gz")
            points = random.uniform(8, 25, len(COLUMNS))
            table.writerow([case, *(points if labelled in (None, case) else 33 - points)])
    return root


@pytest.mark.slow
def test_predictions_are_the_same_whatever_the_labels_of_other_volumes(tmp_path: Path) -> None:
    record = run(write_set(tmp_path / "true"), tmp_path / "first", TINY)
    again = run(write_set(tmp_path / "false", record["template"]["case"]), tmp_path / "second", TINY)
    assert (record["num_training"], record["num_labelled"]) == (4, 1)
    assert again["template"] == record["template"]
    assert again["runs"]["student"]["mean_mm"] != record["runs"]["student"]["mean_mm"]
    files = sorted(path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.mrk.json"))
    assert len(files) == 4 + 2 + 2
    for path in files:
        assert (tmp_path / "first" / path).read_bytes() == (tmp_path / "second" / path).read_bytes()
