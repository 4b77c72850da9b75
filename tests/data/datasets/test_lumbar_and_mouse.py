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
"""Readers of the lumbar MR and the mouse heads: world millimetres, folds, relatives kept together, teaching errors."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_landmarks.data.datasets import (
    LUMBAR_MR_LANDMARKS,
    MOUSE_SKULL_LANDMARKS,
    lumbar_mr_datalist,
    mouse_skull_ct_datalist,
    mouse_strain,
)
from monai_landmarks.geometry import LandmarkError

AFFINE = np.array([[-0.15, 0, 0, 18], [0, -0.15, 0, 28], [0, 0, 0.15, -0.2], [0, 0, 0, 1]])
STRAINS = ["129S1", "129X1", "B6AF1", "B6D2F1", "C57BL6_J_", "C57L_J_", "FVB", "SWR.J_", "X129P3.J_", "DBA_1J_"]


def write_table(path: Path, names: tuple[str, ...], cases: list[str]) -> None:
    columns = [f"{name}_{axis}" for name in names for axis in "ijk"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", *columns])
        for number, case in enumerate(cases):
            writer.writerow([case, *(number + index for index in range(len(columns)))])


def write_images(folder: Path, cases: list[str], affine: np.ndarray) -> None:
    folder.mkdir()
    for case in cases:
        nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), affine), folder / f"{case}.nii.gz")


@pytest.fixture
def lumbar(tmp_path: Path) -> Path:
    cases = [f"{n:02d}" for n in range(1, 11)]
    write_table(tmp_path / "centroids_mm.csv", LUMBAR_MR_LANDMARKS, cases)
    write_images(tmp_path / "images", cases, np.diag([1.5, 1.5, 1.5, 1]))
    return tmp_path


@pytest.fixture
def mouse(tmp_path: Path) -> Path:
    write_table(tmp_path / "lm51_aligned_voxel.csv", MOUSE_SKULL_LANDMARKS, STRAINS)
    write_images(tmp_path / "images_aligned", STRAINS, AFFINE)
    return tmp_path


def test_lumbar_table_is_millimetres_already(lumbar: Path) -> None:
    entry = lumbar_mr_datalist(lumbar)[3]
    assert entry["case"] == "04"
    assert Path(entry["image"]).name == "04.nii.gz"
    np.testing.assert_array_equal(entry["landmarks"], 3 + np.arange(15.0).reshape(5, 3))


def test_lumbar_folds_test_each_subject_once(lumbar: Path) -> None:
    def cases(part: str | None, fold: int) -> list[str]:
        return [e["case"] for e in lumbar_mr_datalist(lumbar, part, fold, num_validation=2)]

    tested = [case for fold in range(5) for case in cases("test", fold)]
    assert sorted(tested) == cases(None, 0)
    for fold in range(5):
        parts = [set(cases(part, fold)) for part in ("train", "validation", "test")]
        assert [len(part) for part in parts] == [6, 2, 2]
        assert len(set.union(*parts)) == 10
        assert set(cases("training", fold)) == parts[0] | parts[1]


def test_mouse_table_is_voxels_of_the_image(mouse: Path) -> None:
    entry = mouse_skull_ct_datalist(mouse, num_folds=3, num_validation=1)[0]
    assert entry["case"] == "129S1"
    np.testing.assert_allclose(entry["landmarks"][1], [18 - 0.15 * 3, 28 - 0.15 * 4, -0.2 + 0.15 * 5])


def test_related_strains_never_lie_in_different_parts(mouse: Path) -> None:
    for fold in range(4):
        where = {}
        for part in ("train", "validation", "test"):
            for entry in mouse_skull_ct_datalist(mouse, part, fold, num_folds=4, num_validation=1):
                where.setdefault(mouse_strain(entry["case"]), set()).add(part)
        assert all(len(parts) == 1 for parts in where.values())
        assert sum(map(len, where.values())) == len(where)


def test_as_scanned_heads_come_with_their_own_landmark_files(mouse: Path) -> None:
    write_images(mouse / "scans", ["FVB"], np.eye(4))
    with pytest.raises(FileNotFoundError, match=r"scans without landmarks.*FVB\.mrk\.json"):
        mouse_skull_ct_datalist(mouse, section="scans", num_folds=3)


def test_absent_folder_table_image_and_column(lumbar: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lumbar MR folder .* does not exist; expected images/"):
        lumbar_mr_datalist(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"mouse skull folder .* does not exist"):
        mouse_skull_ct_datalist(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"lm51_aligned_voxel\.csv does not exist"):
        mouse_skull_ct_datalist(lumbar)
    (lumbar / "images" / "05.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 cases of .* have no image in images/: 05"):
        lumbar_mr_datalist(lumbar)
    table = lumbar / "centroids_mm.csv"
    table.write_text(table.read_text().replace("L4_j", "L4_y"))
    with pytest.raises(LandmarkError, match="lacks the columns L4_j"):
        lumbar_mr_datalist(lumbar)


@pytest.mark.real_data
def test_lumbar_mean_shape_guess_is_as_printed(real_data) -> None:
    root = real_data("lumbar_mr")
    points = np.array([entry["landmarks"] for entry in lumbar_mr_datalist(root)])
    assert points.shape == (40, 5, 3)
    others = (points.sum(0) - points) / 39
    # The data's description prints 14.4 mm for a split that it does not name.
    assert np.linalg.norm(points - others, axis=-1).mean() == pytest.approx(14.4, abs=1.0)


@pytest.mark.real_data
def test_mouse_mean_shape_guess_is_as_printed_and_scans_fit_their_images(real_data) -> None:
    root = real_data("mouse_skull_ct")
    points = np.array([entry["landmarks"] for entry in mouse_skull_ct_datalist(root)])
    assert points.shape == (51, 51, 3)
    others = (points.sum(0) - points) / 50
    # Printed: 0.392 mm.
    assert np.linalg.norm(points - others, axis=-1).mean() == pytest.approx(0.392, abs=0.01)
    scans = mouse_skull_ct_datalist(root, section="scans")
    assert len(scans) == 6
    for entry in scans:
        image = nib.load(entry["image"])
        voxel = nib.affines.apply_affine(np.linalg.inv(image.affine), entry["landmarks"])
        assert (voxel > 0).all()
        assert (voxel < np.array(image.shape)).all()
