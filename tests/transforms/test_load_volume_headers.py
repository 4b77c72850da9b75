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
"""Headers of volumes that contradict themselves, the scanner or the file's name."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import LoadImage

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.transforms.volume import LoadVolume
from monai_landmarks.transforms.volume_header import spacing_in_name

SPACING = np.array([0.8, 0.9, 2.5])
AFFINE = np.diag([*SPACING, 1.0])
SHAPE = (7, 5, 9)


def saved(path: Path, sform: np.ndarray | None = AFFINE, qform: np.ndarray | None = None, **header) -> Path:
    """Write a volume and then the header's fields as they are given, which nibabel would put right."""
    array = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    image = nib.Nifti1Image(array, AFFINE if sform is None else sform)
    image.set_sform(sform, 1 if sform is not None else 0)
    image.set_qform(qform, 1 if qform is not None else 0)
    nib.save(image, path)
    raw = path.read_bytes()
    fields = nib.Nifti1Header(raw[:348], check=False)
    for name, value in header.items():
        fields[name] = value
    path.write_bytes(fields.binaryblock + raw[348:])
    return path


def moved(*shift: float) -> np.ndarray:
    return nib.affines.from_matvec(AFFINE[:3, :3], shift)


def test_a_qform_or_a_sform_alone_is_enough(tmp_path):
    for forms in ({"sform": AFFINE}, {"sform": None, "qform": AFFINE}, {"sform": AFFINE, "qform": AFFINE}):
        path = saved(tmp_path / "ct.nii", **forms)
        np.testing.assert_allclose(LoadVolume()(path).affine, AFFINE, atol=1e-6)


def test_no_direction(tmp_path):
    path = saved(tmp_path / "ct.nii", None)
    with pytest.raises(LandmarkError, match=r"no direction matrix \(qform_code and sform_code are 0\).*where left is"):
        LoadVolume()(path)
    image = LoadVolume(require_orientation=False)(path)
    assert image.affine[0, 0] < 0, "nibabel's guess: the first axis runs to the left"


@pytest.mark.parametrize("turn", [False, True])
def test_direction_matrices_that_disagree(tmp_path, turn):
    other = np.diag([-1.0, 1, 1, 1]) @ AFFINE if turn else moved(0, 0, 1.0)
    path = saved(tmp_path / "ct.nii", AFFINE, other)
    apart = 2 * 0.8 * (SHAPE[0] - 1) if turn else 1.0
    with pytest.raises(LandmarkError, match=rf"sform scanner, qform scanner\) put a corner .* {apart:.4g} mm apart"):
        LoadVolume()(path)
    image = LoadVolume(form_tolerance=float("inf"))(path)
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    saved(path, AFFINE, moved(0.3, 0, 0))  # less than half a voxel
    LoadVolume()(path)


def test_qfac_0_is_an_old_writers_1(tmp_path):
    path = saved(tmp_path / "ct.nii", None, AFFINE, pixdim=[0, *SPACING, 1, 1, 1, 1])
    np.testing.assert_allclose(LoadVolume()(path).affine, AFFINE, atol=1e-6)


@pytest.mark.parametrize("sizes", [(0, 0.9, 2.5), (0.8, -0.9, 2.5), (0.8, 0.9, np.nan), (0.8, 0.9, np.inf)])
def test_voxel_sizes_that_are_none(tmp_path, sizes):
    path = saved(tmp_path / "ct.nii", pixdim=[1, *sizes, 1, 1, 1, 1])
    with pytest.raises(LandmarkError, match=r"voxel sizes \(pixdim\) .* must be positive"):
        LoadVolume()(path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_voxel_sizes_against_the_direction_matrix(tmp_path, ending):
    path = saved(tmp_path / "ct.nii", pixdim=[1, 0.8, 0.9, 5, 1, 1, 1, 1])
    if ending == ".nii.gz":
        packed = tmp_path / "ct.nii.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    with pytest.raises(LandmarkError, match=r"pixdim\) are 0.8 x 0.9 x 5 mm, those of its sform 0.8 x 0.9 x 2.5 mm"):
        LoadVolume()(path)
    LoadImage(image_only=True)(path)  # says nothing


@pytest.mark.parametrize(
    "rows",
    [
        {"srow_x": [0, 0, 0, 0]},
        {"srow_x": [0.8, 0, 0, 0], "srow_y": [0.8, 0, 0, 0]},
        {"srow_z": [0, 0, np.nan, 0]},
        {"srow_z": [0, 0, 2.5, np.inf]},
    ],
)
def test_direction_matrices_that_squash_space(tmp_path, rows):
    with pytest.raises(LandmarkError, match=r"the sform of .*ct\.nii' is no direction matrix, it squashes space"):
        LoadVolume()(saved(tmp_path / "ct.nii", **rows))


def test_a_rotation_that_is_none(tmp_path):
    broken = {"quatern_b": 0.9, "quatern_c": 0.9, "quatern_d": 0.9}
    with pytest.raises(LandmarkError, match=r"qform of .* is no rotation"):
        LoadVolume()(saved(tmp_path / "ct.nii", AFFINE, AFFINE, **broken))
    with pytest.raises(LandmarkError, match="cannot read the volume"):
        LoadVolume()(saved(tmp_path / "ct.nii", None, AFFINE, **broken))


def test_a_tilted_gantry(tmp_path):
    sheared = AFFINE.copy()
    sheared[:3, 2] = [0, 2.5 * np.sin(np.deg2rad(12)), 2.5 * np.cos(np.deg2rad(12))]
    path = saved(tmp_path / "ct.nii", sheared, AFFINE)
    with pytest.raises(LandmarkError, match=r"12 degrees away from right angles: a CT with tilted gantry.*allow_shear"):
        LoadVolume()(path)
    np.testing.assert_allclose(LoadVolume(allow_shear=True)(path).affine, sheared, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_units(tmp_path, scale):
    affine = np.diag([*(SPACING * scale), 1.0])
    path = saved(tmp_path / "ct.nii", affine)
    with pytest.raises(LandmarkError, match=r"is plausible. Is the unit metres or micrometres"):
        LoadVolume()(path)
    LoadVolume(spacing_range=(1e-4, 1e4))(path)


FITTING = ["ct", "ct_2.5mm", "ct-0.8mm_v2", "ct_0.8x0.9x2.5", "ct_2.5x0.8x0.9mm", "0p8mm", "p7_512x512x300", "iso", "20mm",
           "isolated_3", "comm2", "ct_0.82mm", "12mmHg", "case_7x5x9vox", "visor1.5mmx"]  # fmt: skip
WRONG = {"ct_2mm": "2mm", "iso1.5mm": "iso1.5mm", "ct_iso0.8": "iso0.8", "0.5x0.5x2": "0.5x0.5x2", "a_1x1x1mm": "1x1x1mm",
         "a_1p5mm_b": "1p5mm", "3x3x3": "3x3x3", "CT_5MM": "5mm"}  # fmt: skip


@pytest.mark.parametrize("name", FITTING)
def test_names_that_fit(tmp_path, name):
    LoadVolume()(saved(tmp_path / f"{name}.nii"))


@pytest.mark.parametrize("name", WRONG)
def test_names_that_contradict_the_header(tmp_path, name):
    path = saved(tmp_path / f"{name}.nii")
    with pytest.raises(LandmarkError, match=rf"says '{WRONG[name]}' and its header voxels of 0.8 x 0.9 x 2.5 mm"):
        LoadVolume()(path)
    LoadVolume(check_name=False)(path)


def test_numbers_in_names():
    assert spacing_in_name("p1_iso1mm_2mm.nii.gz") == [("iso1mm", [1.0], "isotropic"), ("2mm", [2.0], "some axis")]
    assert spacing_in_name("a.1.5mm.nii.gz") == []
    assert spacing_in_name("sub-verse004_ct.nii.gz") == []
