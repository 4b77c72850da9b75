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
"""The form for batches on a device is the loader's augmentation, many at a time."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_landmarks.engines import PrepareLandmarkBatch
from monai_landmarks.geometry import LandmarkError, present
from monai_landmarks.transforms import (
    BatchedShiftScaleIntensity,
    BatchedSpatialAugmentation,
    RandShiftScaleIntensityd,
    RandSpatialLandmarks,
    RandSpatialLandmarksd,
    SmoothInMillimetersd,
    batched_augmentation,
)

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
RANGES = {
    "rotate_range": 0.3,
    "scale_range": 0.2,
    "axis_scale_range": 0.1,
    "shear_range": 0.05,
    "translate_range": 2.0,
    "elastic_range": 1.5,
}


def batch_of(shape: tuple[int, ...], batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 2, *shape, generator=generator)
    points = torch.rand(batch, 5, len(shape), generator=generator) * (torch.tensor(shape) - 1)
    points[0, 1] = float("nan")
    return images, points


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(24, 31), (16, 12, 18)])
def test_a_batch_of_one_is_what_the_loader_does(shape, device):
    images, points = batch_of(shape, 1)
    single = RandSpatialLandmarks(**RANGES, point_space="voxel").set_random_state(5)
    many = RandSpatialLandmarks(**RANGES, point_space="voxel").batched().set_random_state(5)
    for _ in range(3):
        image, moved = single(images[0], points[0])
        got_image, got_points = many(images.to(device), points.to(device))
        assert got_image.device.type == got_points.device.type == device
        torch.testing.assert_close(got_image[0].cpu(), image, atol=1e-4, rtol=0)
        torch.testing.assert_close(got_points[0].cpu(), moved, atol=1e-4, rtol=0, equal_nan=True)


@pytest.mark.parametrize("device", DEVICES)
def test_each_image_gets_its_own_map_and_its_points_follow(device):
    """Each image holds one blob for each landmark; after the augmentation they lie where the points say."""
    shape, batch = (48, 56), 4
    points = torch.tensor([[15.3, 20.2], [30.8, 38.1]]).expand(batch, 2, 2)
    index = torch.stack(torch.meshgrid(*[torch.arange(float(s)) for s in shape], indexing="ij"), dim=-1)
    images = torch.exp(-(index - points[0, :, None, None]).square().sum(-1) / (2 * 2.5**2)).expand(batch, 2, *shape)
    ranges = {**RANGES, "elastic_range": 1.0, "scale_range": 0.1, "rotate_range": 0.2}
    augment = RandSpatialLandmarks(**ranges, point_space="voxel").batched().set_random_state(0)
    moved_images, moved = augment(images.to(device), points.to(device))
    index = index.to(device)
    weights = moved_images.unsqueeze(-1)
    centroid = (weights * index).sum(dim=(2, 3)) / weights.sum(dim=(2, 3))
    assert (
        centroid - moved
    ).abs().max().item() <= 0.1  # the blob bends with the field; the centroid is no exact witness
    assert torch.linalg.vector_norm(moved[0] - moved[1], dim=-1).min().item() > 0.1


def test_distribution_is_that_of_the_loader():
    """Corner positions over many draws have the same mean and spread, drawn one by one or by the batch."""
    points = torch.tensor([[0.0, 0.0], [19.0, 23.0]])
    image = torch.zeros(1, 20, 24)
    single = RandSpatialLandmarks(**RANGES, point_space="voxel").set_random_state(1)
    many = RandSpatialLandmarks(**RANGES, point_space="voxel").batched().set_random_state(2)
    one_by_one = torch.stack([single(image, points)[1] for _ in range(400)])
    together = many(image.expand(400, 1, 20, 24), points.expand(400, 2, 2))[1]
    spread = one_by_one.std(dim=0)
    assert ((one_by_one.mean(0) - together.mean(0)).abs() < 4 * spread * (2 / 400) ** 0.5).all()
    assert ((together.std(dim=0) / spread - 1).abs() < 0.15).all()


def test_missing_landmarks_stay_missing_and_none_is_allowed():
    images, points = batch_of((20, 20))
    augment = RandSpatialLandmarks(**RANGES, point_space="voxel").batched()
    assert torch.equal(present(augment(images, points)[1]), present(points))
    assert augment(images, torch.full_like(points, float("nan")))[1].isnan().all()
    assert augment(images)[1] is None


def test_voxel_sizes_come_from_a_collated_batch():
    """Films of 0.2 mm on a grid of 0.5 mm: a point in the centre stays there, one 10 mm off lies 20 voxels off."""
    affine = torch.diag(torch.tensor([0.2, 0.2, 1.0], dtype=torch.float64)).expand(2, 3, 3)
    images = MetaTensor(torch.zeros(2, 1, 101, 101), affine=affine)
    augment = RandSpatialLandmarksd("image", "points", spatial_size=(61, 61), pixdim=0.5, antialias=False).batched()
    points = torch.tensor([[[50.0, 50.0], [100.0, 50.0]]]).expand(2, 2, 2)
    got_images, got = augment(images, points)
    assert got_images.shape == (2, 1, 61, 61)
    torch.testing.assert_close(got, torch.tensor([[[30.0, 30.0], [50.0, 30.0]]]).expand(2, 2, 2))


def test_smoothing_needs_one_voxel_size():
    augment = BatchedSpatialAugmentation(RandSpatialLandmarks(spatial_size=(10, 10), pixdim=2.0).ranges)
    images = torch.zeros(2, 1, 20, 20)
    with pytest.raises(LandmarkError, match="different voxel sizes"):
        augment(images, sizes=torch.tensor([[1.0, 1.0], [0.5, 0.5]]))


def test_mirrored_images_exchange_their_sides():
    flip = RandSpatialLandmarks(
        flip_prob=(0.5, 0.0), landmark_names=["eye_l", "eye_r"], flip_pairs=[("eye_l", "eye_r")], point_space="voxel"
    )
    points = torch.tensor([[[2.0, 5.0], [7.0, 5.0]]]).expand(40, 2, 2)
    moved = flip.batched().set_random_state(0)(torch.zeros(40, 1, 10, 10), points)[1]
    expected = torch.tensor(
        [[[2.0, 5.0], [7.0, 5.0]], [[2.0, 5.0], [7.0, 5.0]]]
    )  # symmetric about 4.5: the sides stay put
    torch.testing.assert_close(moved, expected[:1].expand(40, 2, 2))


def test_wrong_shapes_are_refused():
    augment = RandSpatialLandmarks(**RANGES).batched()
    with pytest.raises(LandmarkError, match=r"batch \(B, C, \*S\)"):
        augment(torch.zeros(3, 8, 8))
    with pytest.raises(LandmarkError, match="for the batch"):
        augment(torch.zeros(3, 1, 8, 8), torch.zeros(2, 4, 2))
    with pytest.raises(LandmarkError, match="2 coordinates"):
        augment(torch.zeros(3, 1, 8, 8), torch.zeros(3, 4, 3))


def test_intensities_each_image_its_own():
    images = torch.zeros(200, 1, 4, 4)
    changed, points = BatchedShiftScaleIntensity(0.25, 0.25).set_random_state(0)(images, None)
    assert points is None
    values = changed[:, 0, 0, 0]
    assert (changed == values.reshape(-1, 1, 1, 1)).all()
    assert values.min() < -0.2
    assert values.max() > 0.2
    assert values.abs().max() <= 0.25 * 1.25
    half = BatchedShiftScaleIntensity(0.25, 0.25, prob=0.5).set_random_state(0)(images)[0]
    assert 60 < int((half[:, 0, 0, 0] == 0).sum()) < 140


def test_transforms_without_a_form_for_batches_are_named():
    with pytest.raises(LandmarkError, match="SmoothInMillimetersd has no form for batches"):
        batched_augmentation([SmoothInMillimetersd("image", 0.3)])


def test_prepare_batch_augments_what_the_engine_gets():
    images, points = batch_of((20, 20))
    forms = batched_augmentation(
        [RandSpatialLandmarksd("image", "points", spatial_size=(16, 18)), RandShiftScaleIntensityd("image")]
    )
    prepared = PrepareLandmarkBatch(augment=forms)({"image": images, "points": points}, device="cpu")
    assert prepared[0].shape == (3, 2, 16, 18)
    assert prepared[1].shape == points.shape
    assert not torch.equal(torch.nan_to_num(prepared[1]), torch.nan_to_num(points))
