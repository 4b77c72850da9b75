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
from __future__ import annotations

import json
import math

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Resize
from torch.nn import functional as F

from monai_landmarks.geometry import LandmarkError, apply_affine, image_affine
from monai_landmarks.heatmaps import gaussian_heatmaps
from monai_landmarks.losses.coarse_to_fine import CoarseToFineLoss, points_on_map
from monai_landmarks.losses.exponential_weighted_center import ExponentialWeightedCenterLoss
from monai_landmarks.losses.heatmap_bce import HeatmapBCELoss
from monai_landmarks.losses.heatmap_regression import HeatmapMSELoss

NAN = float("nan")
MODES = {2: "bilinear", 3: "trilinear"}
GRIDS = [((48, 60), (24, 30)), ((51, 60), (34, 25)), ((48, 60), (12, 30)), ((32, 34, 36), (16, 17, 18))]  # fine, coarse


def centroid(maps: torch.Tensor) -> torch.Tensor:
    """Centre of mass ``(B, N, D)`` in voxels."""
    index = torch.stack(torch.meshgrid(*[torch.arange(s).to(maps) for s in maps.shape[2:]], indexing="ij"))
    mass = maps.flatten(2)
    return mass @ index.flatten(1).T / mass.sum(dim=-1, keepdim=True)


def wanted(loss, points, fine_shape, coarse_shape):
    """The two targets that a loss pulls empty maps towards, up to a factor: minus the gradient of a squared error."""
    maps = [torch.zeros(1, 1, *shape, dtype=torch.float64, requires_grad=True) for shape in (coarse_shape, fine_shape)]
    loss(maps, points).backward()
    return [-one.grad for one in maps]


@pytest.mark.parametrize(("fine", "coarse"), GRIDS)
def test_coarse_target_has_its_centre_at_the_same_place_of_the_world(fine, coarse) -> None:
    """The affine of the coarse grid is what MONAI's Resize writes for it."""
    dims = len(fine)
    generator = torch.Generator().manual_seed(0)
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = torch.randn(3, 3, generator=generator, dtype=torch.float64) + 3 * torch.eye(3)
    affine[:3, 3] = torch.tensor([7.0, -3.0, 11.0])
    image = MetaTensor(torch.zeros(1, *fine), affine=affine)
    smaller = Resize(coarse, mode=MODES[dims], align_corners=False)(image)
    points = torch.tensor([[[size / 2 + 0.37 * k - 0.6 for k, size in enumerate(fine)]]], dtype=torch.float64)
    targets = wanted(CoarseToFineLoss(HeatmapMSELoss(sigma=1.0)), points, fine, coarse)
    place = apply_affine(points[0], image_affine(image))
    for target, grid in zip(targets, (smaller, image), strict=True):
        found = apply_affine(centroid(target)[0], image_affine(grid))
        torch.testing.assert_close(found, place, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("fine", "coarse"), GRIDS)
def test_coarse_target_up_sampled_has_the_centre_of_the_fine_one(fine, coarse) -> None:
    points = torch.tensor([[[size / 2 + 0.37 * k - 0.6 for k, size in enumerate(fine)]]], dtype=torch.float64)
    targets = wanted(CoarseToFineLoss(HeatmapMSELoss(sigma=1.0)), points, fine, coarse)
    larger = F.interpolate(targets[0], fine, mode=MODES[len(fine)], align_corners=False)
    torch.testing.assert_close(centroid(larger), centroid(targets[1]), rtol=0, atol=0.02)


@pytest.mark.parametrize(("size", "padded"), [(8, 8), (9, 9), (9, 10), (801, 802)])
@pytest.mark.parametrize("stride", [1, 2])
def test_voxel_centres_of_a_pooled_map(size: int, padded: int, stride: int) -> None:
    """Pooling the coordinates themselves tells where the voxels of the smaller map lie, also of an odd size."""
    if stride == 1:
        padded = size
    pooled = F.avg_pool1d(torch.arange(float(padded))[None], stride)[0]
    points = torch.stack([pooled, pooled], dim=-1)
    found = points_on_map(points, (size, size), (len(pooled), len(pooled)))
    torch.testing.assert_close(found[:, 1], torch.arange(float(len(pooled))))


def test_outer_edges_of_both_grids_agree() -> None:
    """So that a landmark is inside one map when it is inside the other, for strides that leave no rest."""
    edges = torch.tensor([[-0.5, -0.5], [50.5, 59.5]])
    torch.testing.assert_close(points_on_map(edges, (51, 60), (34, 30)), torch.tensor([[-0.5, -0.5], [33.5, 29.5]]))


def test_value_against_dense_targets_and_down_sampled_ones_differ() -> None:
    torch.manual_seed(0)
    coarse, fine = torch.randn(2, 3, 20, 16), torch.randn(2, 3, 40, 32)
    points = torch.rand(2, 3, 2) * 30
    target, sigma = gaussian_heatmaps(points, (40, 32), 10.0), 10.0
    coarse_target = gaussian_heatmaps((points + 0.5) / 2 - 0.5, (20, 16), sigma)
    assert (F.avg_pool2d(target, 2) - coarse_target).abs().max() > 0.1  # a down-sampled target is half as wide
    expected = [
        ((fine - target).square() * 40**target).mean(),
        ((coarse - coarse_target).square() * 40**coarse_target).mean(),
    ]
    loss = ExponentialWeightedCenterLoss()
    torch.testing.assert_close(CoarseToFineLoss(loss)((coarse, fine), points), expected[0] + expected[1])
    torch.testing.assert_close(CoarseToFineLoss(loss, 0.3)([coarse, fine], points), expected[0] + 0.3 * expected[1])


def test_each_level_may_have_its_own_loss() -> None:
    coarse, fine, points = torch.randn(1, 2, 10, 8), torch.randn(1, 2, 20, 16), torch.rand(1, 2, 2) * 15
    losses = HeatmapMSELoss(sigma=10.0), HeatmapBCELoss(sigma=5.0, reduction="mean")
    expected = losses[0](fine, points) + losses[1](coarse, points_on_map(points, (20, 16), (10, 8)))
    torch.testing.assert_close(CoarseToFineLoss(losses[0], coarse_loss=losses[1])((coarse, fine), points), expected)


def test_evaluation_mode_gives_the_fine_map_alone() -> None:
    fine, points, loss = torch.randn(1, 2, 20, 16), torch.rand(1, 2, 2) * 15, HeatmapMSELoss()
    torch.testing.assert_close(CoarseToFineLoss(loss)(fine, points), loss(fine, points))
    torch.testing.assert_close(CoarseToFineLoss(loss)(MetaTensor(fine), points), loss(fine, points))


def test_missing_landmark_gets_a_gradient_of_exactly_0_at_both_levels() -> None:
    maps = [torch.randn(1, 2, 10, 8, requires_grad=True), torch.randn(1, 2, 20, 16, requires_grad=True)]
    CoarseToFineLoss(ExponentialWeightedCenterLoss())(maps, torch.tensor([[[3.0, 5.0], [NAN, NAN]]])).backward()
    for one in maps:
        assert one.grad is not None
        assert one.grad[0, 1].eq(0).all()
        assert one.grad[0, 0].ne(0).all()


def test_weight_0_trains_the_fine_map_only() -> None:
    maps = [torch.randn(1, 1, 10, 8, requires_grad=True), torch.randn(1, 1, 20, 16, requires_grad=True)]
    loss, points = HeatmapMSELoss(), torch.tensor([[[3, 5]]])  # whole numbers
    value = CoarseToFineLoss(loss, coarse_weight=0.0)(maps, points)
    value.backward()
    torch.testing.assert_close(value, loss(maps[1], points))
    assert maps[0].grad is not None
    assert maps[0].grad.eq(0).all()


def test_gradient_against_finite_differences() -> None:
    points = torch.tensor([[[3.2, 4.1], [NAN, NAN]]], dtype=torch.float64)
    maps = [torch.randn(1, 2, 3, 4, dtype=torch.float64), torch.randn(1, 2, 6, 8, dtype=torch.float64)]
    loss = CoarseToFineLoss(ExponentialWeightedCenterLoss(sigma=2.0))
    assert torch.autograd.gradcheck(lambda *both: loss(both, points), [one.requires_grad_() for one in maps])


def test_half_precision_maps() -> None:
    maps = [torch.randn(1, 1, 10, 8).bfloat16(), torch.randn(1, 1, 20, 16).bfloat16()]
    points, loss = torch.tensor([[[3.0, 5.0]]]), CoarseToFineLoss(ExponentialWeightedCenterLoss())
    torch.testing.assert_close(loss(maps, points), loss([one.float() for one in maps], points))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(1, 2, 20, 16), (1, 2, 10, 8)], "is the pair in the other order"),
        ([(1, 3, 10, 8), (1, 2, 20, 16)], "same batch, landmarks and number of axes"),
        ([(1, 2, 10, 8), (1, 2, 20, 16, 16)], "same batch, landmarks and number of axes"),
        ([(1, 2, 20, 16)], "there must be two"),
        ([(1, 2, 5, 4), (1, 2, 10, 8), (1, 2, 20, 16)], "there must be two"),
    ],
)
def test_maps_that_are_no_pair_are_refused(shapes, message: str) -> None:
    with pytest.raises(LandmarkError, match=message):
        CoarseToFineLoss(HeatmapMSELoss())([torch.zeros(shape) for shape in shapes], torch.zeros(1, 2, 2))


def test_points_of_another_dimension_are_refused() -> None:
    with pytest.raises(LandmarkError, match="must have 2 coordinates in its last axis"):
        CoarseToFineLoss(HeatmapMSELoss())((torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 8, 8)), torch.zeros(1, 2, 3))


@pytest.mark.parametrize("weight", [-1.0, NAN, math.inf])
def test_weight_that_is_negative_is_refused(weight: float) -> None:
    with pytest.raises(LandmarkError, match="`coarse_weight` must be finite and not negative"):
        CoarseToFineLoss(HeatmapMSELoss(), weight)


def test_built_from_json() -> None:
    package = "monai_landmarks.losses"
    text = {
        "_target_": f"{package}.coarse_to_fine.CoarseToFineLoss",
        "loss": {"_target_": f"{package}.exponential_weighted_center.ExponentialWeightedCenterLoss", "alpha": 20.0},
        "coarse_loss": {"_target_": f"{package}.heatmap_regression.HeatmapMSELoss", "sigma": 5.0},
        "coarse_weight": 0.5,
    }
    loss = ConfigParser(json.loads(json.dumps({"loss": text}))).get_parsed_content("loss")
    assert isinstance(loss, CoarseToFineLoss)
    assert (loss.loss.alpha, loss.coarse_loss.sigma) == (20.0, 5.0)
    assert loss((torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 8, 8)), torch.ones(1, 1, 2)).item() > 0
