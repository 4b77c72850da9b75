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
"""The doctor writes files for pipelines that load them, and takes datasets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from doctoring import SMALL, TO_VOXELS, faultless
from monai.data import CacheDataset, Dataset, MetaTensor
from monai.transforms import (
    Compose,
    EnsureTyped,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    Resized,
    Spacingd,
    SpatialPadd,
)

from monai_landmarks.data import FilmReader
from monai_landmarks.transforms import LoadFilmd, LoadLandmarksd
from monai_landmarks.transforms.landmarks_follow import check_landmarks_follow


@pytest.mark.parametrize(("image_file", "landmarks_file"), [(None, None), (".mha", ".mrk.json"), (".nii.gz", ".fcsv")])
def test_pipelines_that_load_3d_files(image_file, landmarks_file):
    compose = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            LoadLandmarksd("landmarks", image_key="image"),
            Orientationd("image", "LAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            TO_VOXELS,
        ]
    )
    report = check_landmarks_follow(
        compose, image_file=image_file, landmarks_file=landmarks_file, spatial_shape=SMALL, draws=1
    )
    faultless(report)


@pytest.mark.parametrize(
    ("loader", "item"),
    [
        (LoadImaged("image", reader=FilmReader, pixel_size=0.1, ensure_channel_first=True), None),
        (LoadFilmd("image"), {"pixel_size": 0.1}),
        (LoadImaged("image", reader="PILReader", ensure_channel_first=True), None),
    ],
    ids=["film_reader", "load_film", "pil"],
)
def test_pipelines_that_load_2d_pictures(loader, item):
    compose = Compose([loader, LoadLandmarksd("landmarks"), Resized("image", (130, 101), mode="bilinear"), TO_VOXELS])
    faultless(check_landmarks_follow(compose, spatial_dims=2, item=item, landmarks_file=".csv", draws=1))


def test_a_writer_of_ones_own(tmp_path):
    def write(array: np.ndarray, affine: np.ndarray, path: Any) -> Any:
        target = path.with_suffix(".npy")
        np.save(target, array)
        return target

    compose = Compose([LoadImaged("image", reader="NumpyReader", ensure_channel_first=True), TO_VOXELS])
    faultless(check_landmarks_follow(compose, spatial_shape=(60, 50), affine=np.eye(3), image_file=write, draws=1))


@pytest.mark.parametrize("kind", [Dataset, CacheDataset])
def test_datasets_lend_their_transform_and_the_other_entries_of_an_item(kind):
    data = [{"image": MetaTensor(torch.rand(1, 40, 40)), "landmarks": torch.rand(3, 2), "age": 7}]
    options = {"progress": False} if kind is CacheDataset else {}
    dataset = kind(data, transform=Compose([EnsureTyped("age"), TO_VOXELS]), **options)
    faultless(check_landmarks_follow(dataset, spatial_dims=2, draws=1))


@pytest.mark.real_data
def test_hippocampus_pipeline_from_real_files(real_data):
    folder = real_data("hippocampus_mr")
    path = next(iter(sorted(folder.rglob("*.nii.gz"))), None)
    if path is None:
        pytest.skip(f"no NIfTI image under {folder}")
    load = LoadImaged("image", ensure_channel_first=True)
    image = load({"image": str(path)})["image"]
    compose = Compose(
        [
            load,
            LoadLandmarksd("landmarks", image_key="image"),
            Orientationd("image", "RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            Spacingd("image", (1.0, 1.0, 1.0), mode="bilinear"),
            NormalizeIntensityd("image"),
            SpatialPadd("image", (48, 64, 48)),
            TO_VOXELS,
        ]
    )
    report = check_landmarks_follow(
        compose, spatial_shape=image.shape[1:], affine=image.affine, draws=1, num_landmarks=6, sigma=1.6
    )
    faultless(report)


def test_a_dataset_of_files_and_the_names_of_its_loader(tmp_path):
    compose = Compose(
        [
            LoadImaged("image", reader="ITKReader", ensure_channel_first=True),
            LoadLandmarksd("landmarks", names=["a", "b", "c", "d", "e"], image_key="image"),
            TO_VOXELS,
        ]
    )
    dataset = Dataset([{"image": tmp_path / "not there.nrrd", "landmarks": "not there.csv"}], transform=compose)
    report = check_landmarks_follow(dataset, spatial_shape=SMALL, landmarks_file=".csv", draws=1)
    faultless(report)
    assert report.residuals.shape[1] == 5
