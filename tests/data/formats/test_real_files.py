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
"""Files of public data sets, against their images and against other readers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from monai_landmarks.data import check_landmarks, read_landmark_table, read_landmarks, write_landmarks
from monai_landmarks.geometry import LandmarkError

pytestmark = pytest.mark.real_data
nib = pytest.importorskip("nibabel")

RealData = Callable[[str], Path]


def physical_to_index(file: Path, lps: np.ndarray) -> np.ndarray:
    """Continuous voxel indices of physical points, by SimpleITK, from the image's header alone."""
    sitk = pytest.importorskip("SimpleITK")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    header = sitk.Image([1] * reader.GetDimension(), sitk.sitkUInt8)
    header.SetSpacing(reader.GetSpacing())
    header.SetOrigin(reader.GetOrigin())
    header.SetDirection(reader.GetDirection())
    return np.array([header.TransformPhysicalPointToContinuousIndex(point) for point in lps.tolist()])


def voxels(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return np.asarray(nib.affines.apply_affine(np.linalg.inv(affine), points))


def test_afids_template(real_data: RealData, tmp_path: Path) -> None:
    folder = real_data("brain_mri_afids")
    marks = read_landmarks(folder / "groundtruth_afids.fcsv", names_from="description")
    assert marks.num_landmarks == 32
    # The space's origin is near the anterior commissure; the posterior one lies behind it.
    assert np.linalg.norm(marks.points[marks.names.index("AC")]) < 6
    assert marks.points[marks.names.index("PC"), 1] == pytest.approx(-25.045, abs=0.01)
    right = [point[0] for name, point in zip(marks.names, marks.points, strict=True) if name.startswith("R ")]
    left = [point[0] for name, point in zip(marks.names, marks.points, strict=True) if name.startswith("L ")]
    assert len(right) == len(left) > 5
    assert min(right) > 0 > max(left)
    image_file = folder / "tpl-MNI152NLin2009cAsym_res-01_T1w.nii.gz"
    image = nib.load(image_file)
    assert check_landmarks(marks, image.affine, image.shape) == []
    np.testing.assert_allclose(
        voxels(marks.points, image.affine), physical_to_index(image_file, marks.points * [-1, -1, 1]), atol=1e-4
    )
    write_landmarks(marks, tmp_path / "again.mrk.json")
    assert read_landmarks(tmp_path / "again.mrk.json") == marks


def test_afids_raters_who_name_their_points_differently(real_data: RealData) -> None:
    folder = real_data("brain_mri_afids")
    truth = read_landmarks(folder / "groundtruth_afids.fcsv")
    for number in (1, 2, 4):
        rater = read_landmarks(folder / f"rater0{number}_afids.fcsv", names=truth.names)
        assert np.median(np.linalg.norm(rater.points - truth.points, axis=1)) < 1.5
    # The third has the names as labels, the second as descriptions, and one name is spelt differently.
    second = read_landmarks(folder / "rater02_afids.fcsv", names_from="description")
    with pytest.raises(LandmarkError, match=r"'GENU' \(did you mean 'Genu'\?\). Here and not asked for: 'Genu'"):
        read_landmarks(folder / "rater03_afids.fcsv", names=second.names)
    names = [{"GENU": "Genu"}.get(name, name) for name in second.names]
    third = read_landmarks(folder / "rater03_afids.fcsv", names=names)
    assert np.median(np.linalg.norm(third.points - second.points, axis=1)) < 1.5


def test_mouse_markups_against_simpleitk(real_data: RealData) -> None:
    folder = real_data("mouse_skull_ct")
    files = sorted((folder / "scans_landmarks").glob("*.mrk.json"))
    assert len(files) == 6
    for file in files:
        marks = read_landmarks(file)
        raw = json.loads(file.read_text())["markups"][0]
        assert raw["coordinateSystem"] == "LPS"
        lps = np.array([point["position"] for point in raw["controlPoints"]])
        image_file = folder / "scans" / file.name.replace(".mrk.json", ".nii.gz")
        image = nib.load(image_file)
        index = voxels(marks.points, image.affine)
        np.testing.assert_allclose(index, physical_to_index(image_file, lps), atol=1e-3)
        assert check_landmarks(marks, image.affine, image.shape) == []


def test_mouse_aligned_table(real_data: RealData) -> None:
    folder = real_data("mouse_skull_ct")
    image = nib.load(next(iter(sorted((folder / "images_aligned").glob("*.nii.gz")))))
    cases = read_landmark_table(folder / "lm51_aligned_voxel.csv", affine=image.affine)
    assert len(cases) == 51
    names = [f"lm{i}" for i in range(1, 52)]
    for marks in cases.values():
        assert list(marks.names) == names
        assert check_landmarks(marks, image.affine, image.shape) == []


def test_lumbar_millimetres_under_voxel_letters(real_data: RealData) -> None:
    folder = real_data("lumbar_mr")
    cases = read_landmark_table(folder / "centroids_mm.csv", space="RAS")
    assert len(cases) == 40
    for case, marks in list(cases.items())[:3]:
        image = nib.load(folder / "images" / f"{case}.nii.gz")
        assert marks.names == ("L1", "L2", "L3", "L4", "L5")
        assert check_landmarks(marks, image.affine, image.shape) == []
        # Axis 0 runs from cranial to caudal.
        assert (np.diff(marks.points[:, 0]) > 20).all()


def test_hippocampus_voxels(real_data: RealData) -> None:
    folder = real_data("hippocampus_mr")
    for case in ("hippocampus_001", "hippocampus_003"):
        image_file = folder / "images" / f"{case}.nii.gz"
        image = nib.load(image_file)
        marks = read_landmarks(folder / "landmarks_voxel.csv", case=case, affine=image.affine)
        assert check_landmarks(marks, image.affine, image.shape) == []
        index = physical_to_index(image_file, marks.points * [-1, -1, 1])
        np.testing.assert_allclose(index, voxels(marks.points, image.affine), atol=1e-3)
        # From the anterior tip to the posterior one, in world.
        assert marks.points[0, 1] > marks.points[-1, 1]


def test_hand_tables_agree(real_data: RealData) -> None:
    folder = real_data("hand_xrays")
    every = read_landmark_table(folder / "all_910_landmarks_px.csv", pixel_size=1)
    assert len(every) == 910
    few = read_landmark_table(folder / "landmarks37_px.csv", pixel_size=1)
    for case, marks in few.items():
        assert marks.num_landmarks == 37
        np.testing.assert_array_equal(marks.points, every[case].points)
    # The first row of the file, by eye.
    assert every["3142"].points[:2].tolist() == [[297, 1913], [324, 1812]]


def test_cephalograms(real_data: RealData) -> None:
    folder = real_data("isbi2015_cephalograms")
    names = (folder / "landmarks.txt").read_text().split()
    case = read_landmarks(folder / "400_junior" / "001.txt", names=names)
    np.testing.assert_allclose(case.points[0], [82.9, 99.1])
    readers = [
        np.stack([read_landmarks(folder / f"400_{who}" / f"{i:03}.txt", names=names).points for i in range(1, 151)])
        for who in ("junior", "senior")
    ]
    # Table in the data set's description: distance of the readers on the training films.
    distance = np.linalg.norm(readers[0] - readers[1], axis=-1)
    assert distance.mean() == pytest.approx(2.353, abs=5e-4)
    assert distance.std(ddof=1) == pytest.approx(2.596, abs=2e-3)
