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
"""World points lie on the anatomy whatever reader and file the image comes from, also after a whole pipeline."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from blobs import check_follows, pipeline_2d, pipeline_3d, with_missing
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
)

from monai_landmarks.data import FilmReader
from monai_landmarks.transforms import (
    LandmarksImageToWorldd,
    LandmarksWorldToImaged,
    LoadFilmd,
    LoadLandmarksd,
)

# ---------------------------------------------------------------------------------------------------------- 3D readers


def _write_nifti(image: sitk.Image, folder: Path) -> Path:
    """With nibabel, which knows nothing of ITK: RAS = diag(-1, -1, 1) LPS."""
    direction = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = direction, image.GetOrigin()
    array = sitk.GetArrayFromImage(image).transpose()
    nib.save(nib.Nifti1Image(array, np.diag([-1, -1, 1, 1]) @ affine), folder / "v.nii.gz")
    return folder / "v.nii.gz"


def _write_itk(suffix: str) -> Any:
    def write(image: sitk.Image, folder: Path) -> Path:
        sitk.WriteImage(image, str(folder / f"v.{suffix}"))
        return folder / f"v.{suffix}"

    return write


def _write_dicom(image: sitk.Image, folder: Path) -> Path:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    series = folder / "series"
    series.mkdir()
    array = sitk.GetArrayFromImage(image).round().astype(np.int16)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    study, serie = generate_uid(), generate_uid()
    for k in range(len(array)):
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds = pydicom.dataset.FileDataset(str(series / f"{k}.dcm"), {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, serie, study
        ds.Modality, ds.PatientID, ds.PatientName, ds.InstanceNumber = "CT", "p", "p", k + 1
        ds.StudyDate = datetime.date(2000, 1, 1).strftime("%Y%m%d")
        ds.ImageOrientationPatient = [f"{v:.12f}"[:16] for v in (*direction[:, 0], *direction[:, 1])]
        position = image.TransformIndexToPhysicalPoint((0, 0, k))
        ds.ImagePositionPatient = [f"{v:.12f}"[:16] for v in position]
        sx, sy, sz = image.GetSpacing()
        ds.PixelSpacing, ds.SliceThickness = [sy, sx], sz
        ds.Rows, ds.Columns = array.shape[1:]
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.RescaleIntercept, ds.RescaleSlope = 0, 1
        ds.PixelData = array[k].tobytes()
        ds.save_as(series / f"{k}.dcm", enforce_file_format=True)
    return series


READERS_3D = {
    "nifti-nibabel": (_write_nifti, {"reader": "NibabelReader"}),
    "nifti-itk": (_write_nifti, {"reader": "ITKReader"}),
    "nifti-closest-canonical": (_write_nifti, {"reader": "NibabelReader", "as_closest_canonical": True}),
    "mha": (_write_itk("mha"), {"reader": "ITKReader"}),
    "nrrd": (_write_itk("nrrd"), {"reader": "ITKReader"}),
    "nrrd-in-lps": (_write_itk("nrrd"), {"reader": "ITKReader", "affine_lps_to_ras": False}),
    "dicom-series": (_write_dicom, {"reader": "ITKReader"}),
}


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("reader", READERS_3D)
def test_every_volume_reader_through_a_whole_pipeline(tmp_path, volume, centroid, reader, lazy):
    image, point_lps = volume
    write, options = READERS_3D[reader]
    item = {"image": str(write(image, tmp_path)), "landmarks": with_missing(point_lps * [-1, -1, 1])}
    compose = Compose(
        [
            LoadImaged("image", ensure_channel_first=True, **options),
            LoadLandmarksd("landmarks", names=["tip", "absent"], image_key="image"),
            *pipeline_3d(),
            LandmarksWorldToImaged("landmarks", "image", output_keys="points"),
        ],
        lazy=lazy,
    ).set_random_state(3)
    result = compose(item)
    check_follows(result, centroid)
    back = LandmarksImageToWorldd("points", "image", output_keys="back")(result)["back"]
    np.testing.assert_allclose(back[0], point_lps * [-1, -1, 1], atol=2e-5)  # the points are float32


@pytest.mark.parametrize("reader", READERS_3D)
def test_every_volume_reader_agrees_with_simpleitk(tmp_path, volume, reader):
    image, _ = volume
    write, options = READERS_3D[reader]
    path = write(image, tmp_path)
    item = LoadImaged("image", ensure_channel_first=True, **options)({"image": str(path)})
    index = torch.tensor([[0.0, 0, 0], [39, 0, 0], [3, 35, 25], [7.5, 11.25, 20]], dtype=torch.float64)
    item["points"] = index
    world = LandmarksImageToWorldd("points", "image")(item)["points"]
    shown = item["image"].shape[1:]
    assert shown == tuple(image.GetSize())
    if "canonical" in reader:  # its axes are flipped, so compare through the pixel at each corner
        value = item["image"][0, 3, 35, 25].item()
        inside = image.TransformPhysicalPointToContinuousIndex((world[2].numpy() * [-1, -1, 1]).tolist())
        assert sitk.GetArrayFromImage(image)[tuple(round(v) for v in inside[::-1])] == pytest.approx(value)
        return
    expected = [image.TransformContinuousIndexToPhysicalPoint(p.tolist()) for p in index]
    tolerance = 1e-5 if reader.startswith(("dicom", "nifti")) else 1e-9  # NIfTI stores float32, DICOM 16 digits of text
    np.testing.assert_allclose(world, np.array(expected) * [-1, -1, 1], atol=tolerance)


# ---------------------------------------------------------------------------------------------------------- 2D readers


def _film_file(image: sitk.Image, path: Path, dtype: Any) -> Path:
    array = sitk.GetArrayFromImage(image)
    scaled = array if dtype is np.uint8 else array * 200
    sitk.WriteImage(sitk.GetImageFromArray(scaled.round().astype(dtype)), str(path))
    return path


FILMS = [("f.png", np.uint8), ("f.png", np.uint16), ("f.tif", np.uint8), ("f.tif", np.uint16), ("f.bmp", np.uint8)]
FILM_GEOMETRY = {"pixel_size": (0.2, 0.3), "origin": (0.05, -2.0)}


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize(("name", "dtype"), FILMS)
@pytest.mark.parametrize("loader", ["LoadFilmd", "FilmReader"])
def test_every_film_format_through_a_whole_pipeline(tmp_path, film, centroid, loader, name, dtype, lazy):
    image, point = film
    path = _film_file(image, tmp_path / name, dtype)
    if loader == "LoadFilmd":
        first: list[Any] = [LoadFilmd("image")]
    else:
        reader = FilmReader(**FILM_GEOMETRY)
        first = [LoadImaged("image", reader=reader), EnsureChannelFirstd("image")]
    compose = Compose(
        [
            *first,
            LoadLandmarksd("landmarks", image_key="image"),
            *pipeline_2d(),
            LandmarksWorldToImaged("landmarks", "image", output_keys="points"),
        ],
        lazy=lazy,
    ).set_random_state(1)
    result = compose({"image": str(path), "landmarks": with_missing(point), **FILM_GEOMETRY})
    assert result["image"].shape == (1, 72, 80)
    check_follows(result, centroid)
    back = LandmarksImageToWorldd("points", "image", output_keys="back")(result)["back"]
    np.testing.assert_allclose(back[0], point, atol=1e-5)


@pytest.mark.parametrize("suffix", ["mha", "nrrd", "nii.gz"])
def test_2d_files_of_itk_have_itks_plane_as_world(tmp_path, film, centroid, suffix):
    image, point = film
    sitk.WriteImage(image, str(tmp_path / f"f.{suffix}"))
    item = {"image": str(tmp_path / f"f.{suffix}"), "landmarks": with_missing(point)}
    load = LoadImaged("image", reader="ITKReader", affine_lps_to_ras=False, ensure_channel_first=True)
    result = LandmarksWorldToImaged("landmarks", "image", output_keys="points")(load(item))
    check_follows(result, centroid)
