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
"""LoadVolume: good files as LoadImage gives them, bad voxels and damaged files refused."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, LoadImaged

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.transforms.volume import LoadVolume, LoadVolumed

LAS = np.array([[-2.0, 0, 0, 90], [0, 2.0, 0, -40], [0, 0, 3.0, -500], [0, 0, 0, 1]])
RPI = np.array([[0.7, 0, 0, -9], [0, -0.7, 0, 30], [0, 0, -1.5, 77], [0, 0, 0, 1]])
ANGLE = np.deg2rad(20)
OBLIQUE = np.array([[1.5 * np.cos(ANGLE), 0, -2 * np.sin(ANGLE), 5], [0, 1.5, 0, -6],
                    [1.5 * np.sin(ANGLE), 0, 2 * np.cos(ANGLE), 7], [0, 0, 0, 1]])  # fmt: skip
AFFINES = {"LAS": LAS, "RPI": RPI, "oblique": OBLIQUE}


def voxels(*shape: int) -> np.ndarray:
    return np.random.RandomState(0).randint(-1000, 1000, shape).astype(np.int16)


def saved(path: Path, array: np.ndarray | None = None, affine: np.ndarray = LAS) -> Path:
    nib.save(nib.Nifti1Image(voxels(7, 5, 9) if array is None else array, affine), path)
    return path


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize("name", AFFINES)
def test_a_good_file_is_what_load_image_gives(tmp_path, name, ending):
    path = saved(tmp_path / f"ct{ending}", affine=AFFINES[name])
    ours, theirs = LoadVolume()(path), LoadImage(image_only=True, ensure_channel_first=True)(path)
    assert isinstance(ours, MetaTensor)
    assert ours.dtype == theirs.dtype == torch.float32
    torch.testing.assert_close(ours.as_tensor(), theirs.as_tensor(), rtol=0, atol=0)
    torch.testing.assert_close(ours.affine, theirs.affine, rtol=0, atol=0)
    assert ours.meta.keys() == theirs.meta.keys()
    assert ours.meta["filename_or_obj"] == str(path)


def test_the_dictionary_version_and_options_of_load_image(tmp_path):
    path = saved(tmp_path / "ct.nii")
    item = LoadVolumed(["image", "absent"], dtype=np.int16, reader="NibabelReader", allow_missing_keys=True)(
        {"image": str(path), "case": "7"}
    )
    theirs = LoadImaged("image", ensure_channel_first=True, dtype=np.int16)({"image": path})
    assert item["case"] == "7"
    assert item["image"].dtype == torch.int16
    torch.testing.assert_close(item["image"].as_tensor(), theirs["image"].as_tensor())


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_other_formats_have_no_nifti_header_and_the_other_checks(tmp_path, ending):
    itk = pytest.importorskip("itk")
    image = itk.image_from_array(voxels(9, 5, 7).astype(np.float32))
    image.SetSpacing([2.0, 2.0, 3.0])
    path = tmp_path / f"ct_2x2x3{ending}"
    itk.imwrite(image, str(path))
    ours = LoadVolume(reader="ITKReader")(path)
    theirs = LoadImage(reader="ITKReader", image_only=True, ensure_channel_first=True)(path)
    torch.testing.assert_close(ours.as_tensor(), theirs.as_tensor())
    torch.testing.assert_close(ours.affine, theirs.affine)
    renamed = path.rename(tmp_path / f"ct_1mm{ending}")
    with pytest.raises(LandmarkError, match=r"says '1mm' and its header voxels of 2 x 2 x 3 mm"):
        LoadVolume(reader="ITKReader")(renamed)
    # Cut off in the middle, as a broken download is.
    path.write_bytes(renamed.read_bytes()[: renamed.stat().st_size // 2])
    with pytest.raises(LandmarkError, match=r"cannot read the volume .*truncated"):
        LoadVolume(reader="ITKReader")(path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((7, 5, 9, 4), r"is 4D: 4 channels or time points of \(7, 5, 9\) voxels"),
        ((7, 5), r"2 axes with sizes \(7, 5\); a volume has 3"),
        ((7, 5, 1), r"has \(7, 5, 1\) voxels, fewer than 2 along an axis: a single slice.*min_size=1"),
        ((1, 5, 9), r"fewer than 2 along an axis"),
        ((7, 5, 9, 1, 3), "cannot read|is 4D|axes"),
    ],
)
def test_wrong_shapes(tmp_path, shape, message):
    with pytest.raises(LandmarkError, match=message):
        LoadVolume()(saved(tmp_path / "ct.nii.gz", voxels(*shape)))


def test_a_single_slice_and_a_lone_channel_axis_may_pass(tmp_path):
    assert LoadVolume(min_size=1)(saved(tmp_path / "a.nii", voxels(7, 5, 1))).shape == (1, 7, 5, 1)
    assert LoadVolume()(saved(tmp_path / "b.nii", voxels(7, 5, 9, 1))).shape == (1, 7, 5, 9)
    with pytest.raises(LandmarkError, match="fewer than 6"):
        LoadVolume(min_size=6)(tmp_path / "b.nii")


def test_voxels_that_are_no_numbers_are_counted_and_placed(tmp_path):
    array = voxels(7, 5, 9).astype(np.float32)
    array[2:4, 1, 3] = np.nan
    array[5, 4, 8] = -np.inf
    path = saved(tmp_path / "ct.nii.gz", array)
    with pytest.raises(LandmarkError) as caught:
        LoadVolume()(path)
    for part in ("ct.nii.gz", "3 voxels that are no numbers (2 NaN, 1 infinite; 0.952 % of all)", "first at (2, 1, 3)",
                 "indices 2 to 5, 1 to 4, 3 to 8", "fill_nonfinite=-1024"):  # fmt: skip
        assert part in str(caught.value)
    image = LoadVolume(fill_nonfinite=-1024)(path)
    assert isinstance(image, MetaTensor)
    np.testing.assert_array_equal(image.numpy()[0], np.where(np.isfinite(array), array, -1024))
    np.testing.assert_array_equal(image.affine, LAS)


def test_an_empty_volume(tmp_path):
    with pytest.raises(LandmarkError, match=r"every voxel of .*ct\.nii' is -1024: the volume is empty"):
        LoadVolume()(saved(tmp_path / "ct.nii", np.full((4, 4, 4), -1024, np.int16)))
    with pytest.raises(LandmarkError, match="is 0: the volume is empty"):
        LoadVolume(fill_nonfinite=0)(saved(tmp_path / "ct.nii", np.full((4, 4, 4), np.nan, np.float32)))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_a_file_cut_off(tmp_path, ending, share):
    path = saved(tmp_path / f"ct{ending}", voxels(20, 20, 20))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(LandmarkError, match=rf"cannot read the volume .*ct{ending}.*truncated"):
        LoadVolume()(path)


def test_files_that_are_something_else(tmp_path):
    path = saved(tmp_path / "ct.nii.gz", voxels(20, 20, 20))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(LandmarkError, match=r"damaged|truncated"):
        LoadVolume()(path)
    path.write_bytes(b"<!DOCTYPE html><html>404</html>")
    with pytest.raises(LandmarkError, match=r"it is not gzip, it begins with b'<!DOCTYPE ht'.*error page"):
        LoadVolume()(path)
    path.write_bytes(b"")
    with pytest.raises(LandmarkError, match="the file is empty: a truncated download"):
        LoadVolume()(path)
    (tmp_path / "a.mha").write_bytes(b"no image")
    with pytest.raises(LandmarkError, match=r"cannot read the volume .*a\.mha"):
        LoadVolume()(tmp_path / "a.mha")


def test_missing_files_and_wrong_kinds(tmp_path):
    saved(tmp_path / "ct_01.nii.gz")
    with pytest.raises(FileNotFoundError, match=r"no such volume: .*The nearest name .* 'ct_01\.nii\.gz'"):
        LoadVolume()(tmp_path / "ct_1.nii.gz")
    with pytest.raises(LandmarkError, match="got Tensor: is it loaded already"):
        LoadVolume()(torch.zeros(1, 2, 2, 2))
    (tmp_path / "series").mkdir()
    with pytest.raises(LandmarkError, match="cannot read the volume"):
        LoadVolume()(tmp_path / "series")


@pytest.mark.parametrize(
    "options",
    [
        {"min_size": 0},
        {"form_tolerance": -1.0},
        {"form_tolerance": float("nan")},
        {"spacing_range": (2, 1)},
        {"spacing_range": (0, 1)},
        {"fill_nonfinite": float("nan")},
    ],
)
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        LoadVolume(**options)


@pytest.mark.real_data
@pytest.mark.parametrize("folder", ["lumbar_mr/images", "mouse_skull_ct/scans", "hippocampus_mr/images"])
def test_real_scans_pass(real_data, folder):
    name, below = folder.split("/")
    load, theirs = LoadVolume(), LoadImage(image_only=True, ensure_channel_first=True)
    for path in sorted((real_data(name) / below).glob("*.nii.gz"))[::10]:
        torch.testing.assert_close(load(path).as_tensor(), theirs(path).as_tensor(), rtol=0, atol=0)
