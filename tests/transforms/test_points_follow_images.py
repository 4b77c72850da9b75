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
"""World points stay on the anatomy through every transform, eager and lazy, in batches, caches and crops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from blobs import RAS_LABELS, check_follows, pipeline_2d, with_missing
from monai.data import (
    CacheDataset,
    DataLoader,
    Dataset,
    MetaTensor,
    PersistentDataset,
    decollate_batch,
    list_data_collate,
)
from monai.transforms import (
    Affined,
    Compose,
    CropForegroundd,
    Lambdad,
    Orientationd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandRotate90d,
    RandRotated,
    RandZoomd,
    Resized,
    ResizeWithPadOrCropd,
    Spacingd,
    SpatialPadd,
)

from monai_landmarks.transforms import (
    DecodeLandmarkHeatmapd,
    GenerateLandmarkHeatmapd,
    LandmarksImageToWorldd,
    LandmarksWorldToImaged,
    LoadLandmarksd,
)

# ---------------------------------------------------------------------------------------- single transforms, both sizes

SINGLE_3D = [
    Orientationd("image", axcodes="LPS", labels=RAS_LABELS),
    Orientationd("image", axcodes="SRA", labels=RAS_LABELS),
    Spacingd("image", pixdim=1.3, mode="bilinear", align_corners=True),
    RandRotate90d("image", prob=1.0, spatial_axes=(0, 2)),
    RandRotated("image", prob=1.0, range_x=0.4, range_y=0.2, keep_size=False, padding_mode="zeros"),
    RandZoomd("image", prob=1.0, min_zoom=0.8, max_zoom=0.9, mode="trilinear", padding_mode="constant"),
    Resized("image", spatial_size=(33, 47, 30), mode="trilinear"),
    Affined("image", rotate_params=(0.1, 0.2, 0.3), translate_params=(1, 2, 1), padding_mode="zeros"),
]
SINGLE_2D = [
    Orientationd("image", axcodes="LP", labels=RAS_LABELS),
    Orientationd("image", axcodes="AR", labels=RAS_LABELS),
    Spacingd("image", pixdim=0.33, mode="bilinear"),
    RandFlipd("image", prob=1.0, spatial_axis=0),
    RandRotate90d("image", prob=1.0),
    RandRotated("image", prob=1.0, range_x=0.4, keep_size=False, padding_mode="zeros"),
    RandZoomd("image", prob=1.0, min_zoom=0.8, max_zoom=0.9, mode="bilinear", padding_mode="constant"),
    Resized("image", spatial_size=(50, 61), mode="bilinear"),
    CropForegroundd("image", source_key="image", select_fn=lambda x: x > 0.1),
    SpatialPadd("image", spatial_size=(81, 80)),
]


def _tensor(image: sitk.Image, affine_size: int) -> MetaTensor:
    """The image in memory, world as in the package: RAS in 3D, the film plane in 2D."""
    dims = image.GetDimension()
    affine = np.eye(affine_size)
    affine[:dims, :dims] = np.array(image.GetDirection()).reshape(dims, dims) * np.array(image.GetSpacing())
    affine[:dims, -1] = image.GetOrigin()
    if dims == 3:
        affine = np.diag([-1, -1, 1, 1]) @ affine
    return MetaTensor(torch.as_tensor(sitk.GetArrayFromImage(image).T.copy())[None], affine=torch.as_tensor(affine))


def _check_single(transform: Any, image: MetaTensor, world: np.ndarray, centroid: Any, lazy: bool) -> None:
    to_voxels = LandmarksWorldToImaged("points", "image")
    compose = Compose([transform, to_voxels], lazy=lazy).set_random_state(5)
    check_follows(compose({"image": image, "points": with_missing(world)}), centroid)


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("transform", SINGLE_3D, ids=lambda t: type(t).__name__)
def test_single_transforms_3d(volume, centroid, transform, lazy):
    image, point = volume
    _check_single(transform, _tensor(image, 4), point * [-1, -1, 1], centroid, lazy)


@pytest.mark.parametrize("affine_size", [3, 4])
@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("transform", SINGLE_2D, ids=lambda t: type(t).__name__)
def test_single_transforms_2d_with_either_size_of_affine(film, centroid, transform, lazy, affine_size):
    image, point = film
    _check_single(transform, _tensor(image, affine_size), point, centroid, lazy)


# ------------------------------------------------------------------- regressions: what peers and MONAI itself do wrong


@pytest.mark.parametrize("factor", [0.25, 0.5, 2.0])
def test_peer_defects_8_and_15_resizing_keeps_half_pixel_centres(film, factor):
    """Resizing by f moves index i to f (i + 0.5) - 0.5; a peer forgets the halves and is 0.25 to 1.5 pixels off."""
    image = _tensor(film[0], 3)
    size = tuple(round(s * factor) for s in image.shape[1:])
    index = torch.tensor([[10.0, 7.0], [35.3, 22.6]], dtype=torch.float64)
    item = LandmarksImageToWorldd("points", "image")({"image": image, "points": index})
    compose = Compose(
        [Resized("image", size, mode="bilinear"), LandmarksWorldToImaged("points", "image", dtype=torch.float64)]
    )
    expected = factor * (index + 0.5) - 0.5
    torch.testing.assert_close(compose(item)["points"], expected, atol=1e-9, rtol=0)


def test_peer_defect_14_resize_with_pad_in_3d(volume, centroid):
    """A peer's landmark is 3 voxels from the anatomy after resizing to fit and padding."""
    image, point = volume
    compose = Compose(
        [
            Resized("image", spatial_size=36, size_mode="longest", mode="trilinear"),
            ResizeWithPadOrCropd("image", spatial_size=(36, 36, 36)),
            LandmarksWorldToImaged("points", "image"),
        ]
    )
    check_follows(compose({"image": _tensor(image, 4), "points": with_missing(point * [-1, -1, 1])}), centroid)


def test_points_that_inherited_the_images_meta_are_still_world_points(volume):
    image, point = volume
    tensor = _tensor(image, 4)
    world = torch.as_tensor(with_missing(point * [-1, -1, 1]))
    inherited = MetaTensor(world.clone(), affine=tensor.affine, meta=dict(tensor.meta))
    to_voxels = LandmarksWorldToImaged("points", "image")
    plain = to_voxels({"image": tensor, "points": world})["points"]
    torch.testing.assert_close(to_voxels({"image": tensor, "points": inherited})["points"], plain, equal_nan=True)
    torch.testing.assert_close(plain[0], torch.tensor([21.3, 17.8, 12.4]), atol=1e-4, rtol=0)


# -------------------------------------------------------------------------------------------- batches, caches, workers


def _dataset(film: Any, count: int) -> list[dict[str, Any]]:
    image, point = film
    return [{"image": _tensor(image, 3), "landmarks": with_missing(point), "case": f"{i:03d}"} for i in range(count)]


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("dataset_class", [Dataset, CacheDataset])
def test_data_loader_cache_and_workers(film, centroid, dataset_class, workers, lazy):
    compose = Compose(
        [
            LoadLandmarksd("landmarks", names=["tip", "absent"], image_key="image"),
            *pipeline_2d(),
            LandmarksWorldToImaged("landmarks", "image", output_keys="points"),
        ],
        lazy=lazy,
    ).set_random_state(1)
    extra = {"progress": False} if dataset_class is CacheDataset else {}
    dataset = dataset_class(_dataset(film, 3), compose, **extra)
    loader = DataLoader(dataset, batch_size=3, num_workers=workers, collate_fn=list_data_collate)
    batch = next(iter(loader))
    assert batch["points"].shape == (3, 2, 2)
    assert batch["landmarks"].dtype == torch.float64
    back = LandmarksImageToWorldd("points", "image", output_keys="back")(batch)["back"]
    torch.testing.assert_close(back, batch["landmarks"], atol=1e-5, rtol=0, equal_nan=True)
    for item in decollate_batch(batch):
        check_follows(item, centroid)


def test_persistent_dataset_that_tracks_meta(tmp_path, film, centroid):
    compose = Compose(
        [*pipeline_2d(), LandmarksWorldToImaged("landmarks", "image", output_keys="points")]
    ).set_random_state(1)
    dataset = PersistentDataset(_dataset(film, 1), compose, tmp_path, track_meta=True, weights_only=False)
    for _ in range(2):  # written, then read from the cache
        check_follows(dataset[0], centroid)


def test_every_crop_of_a_multi_sample_transform_gets_its_own_points(film, centroid):
    image, point = film
    tensor = _tensor(image, 3)
    item = {"image": tensor, "label": (tensor > 200).float(), "points": with_missing(point)}
    crop = RandCropByPosNegLabeld(["image", "label"], "label", (40, 36), pos=1, neg=0, num_samples=3)
    compose = Compose([crop, LandmarksWorldToImaged("points", "image")]).set_random_state(0)
    crops = compose(item)
    assert len({tuple(c["points"][0].tolist()) for c in crops}) == 3
    peaks = [np.unravel_index(int(c["image"][0].argmax()), (40, 36)) for c in crops]
    for c, peak in zip(crops, peaks, strict=True):
        assert np.abs(c["points"][0].numpy() - peak).max() <= 0.75


def test_inverting_the_image_passes_over_the_points(film):
    image, point = film
    compose = Compose([RandFlipd("image", prob=1.0), LandmarksWorldToImaged("points", "image")])
    tensor = _tensor(image, 3)
    result = compose({"image": tensor, "points": with_missing(point)})
    restored = compose.inverse({"image": result["image"]})["image"]
    torch.testing.assert_close(restored.as_tensor(), tensor.as_tensor())


# ------------------------------------------------------------------------------------------ encode, decode, back to mm


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_encode_and_decode_return_to_the_same_millimetres(film, volume, spatial_dims):
    """A network that answers its target exactly loses less than a hundredth of a voxel on the whole way."""
    image, point = film if spatial_dims == 2 else volume
    world = point if spatial_dims == 2 else point * [-1, -1, 1]
    pixdim = (0.3, 0.3) if spatial_dims == 2 else (1.5, 1.5, 1.5)
    compose = Compose(
        [
            LoadLandmarksd("landmarks", image_key="image"),
            Spacingd("image", pixdim=pixdim, mode="bilinear"),
            RandFlipd("image", prob=1.0),
            LandmarksWorldToImaged("landmarks", "image", output_keys="points"),
            GenerateLandmarkHeatmapd("points", "heatmap", "image", sigma=1.5, present_keys="present"),
            Lambdad("heatmap", lambda x: x * 1.0, track_meta=True),
            DecodeLandmarkHeatmapd("heatmap", "pred", "confidence", method="dark"),
            LandmarksImageToWorldd("pred", "image"),
        ],
        lazy=True,
    )
    result = compose({"image": _tensor(image, spatial_dims + 1), "landmarks": with_missing(world)})
    assert result["present"].tolist() == [True, False]
    error_voxels = np.linalg.norm(result["pred"][0].numpy() - world) / pixdim[0]
    assert error_voxels <= 0.01
    assert result["pred"][1].isnan().all(), "an empty map is a missing landmark"
