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

import math

import pytest
import torch

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.heatmaps import gaussian_heatmaps
from monai_landmarks.losses.exponential_weighted_center import (
    ExponentialWeightedCenterLoss,
    exponential_weighted_center,
)
from monai_landmarks.losses.heatmap_l2 import heatmap_squared_error
from monai_landmarks.losses.heatmap_regression import HeatmapMSELoss

NAN = float("nan")


def test_one_voxel_by_hand() -> None:
    """A map of one voxel, 1.5 voxels from a landmark of width 2: t = exp(-0.28125)."""
    t, p = math.exp(-(1.5**2) / 8), -0.7
    maps = torch.full((1, 1, 1, 1), p, dtype=torch.float64, requires_grad=True)
    value = ExponentialWeightedCenterLoss(40.0, sigma=2.0)(maps, torch.tensor([[[0.0, 1.5]]]))
    value.backward()
    assert value.item() == pytest.approx((p - t) ** 2 * 40**t)
    assert maps.grad is not None
    assert maps.grad.item() == pytest.approx(2 * (p - t) * 40**t)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 20.0, 40.0])
def test_value_against_loops_over_image_landmark_and_voxel(alpha: float) -> None:
    torch.manual_seed(0)
    heatmaps, points = torch.randn(2, 2, 3, 5, dtype=torch.float64), torch.rand(2, 2, 2, dtype=torch.float64) * 3
    total = 0.0
    for b in range(2):
        for n in range(2):
            y, x = points[b, n].tolist()
            for i in range(3):
                for j in range(5):
                    t = math.exp(-((i - y) ** 2 + (j - x) ** 2) / (2 * 1.5**2))
                    total += (heatmaps[b, n, i, j].item() - t) ** 2 * alpha**t
    loss = ExponentialWeightedCenterLoss(alpha, sigma=1.5)
    assert loss(heatmaps, points).item() == pytest.approx(total / (2 * 2 * 3 * 5))


@pytest.mark.parametrize(("dims", "shape"), [(2, (7, 9)), (3, (5, 6, 3))])
def test_alpha_1_is_the_mean_squared_error(dims: int, shape: tuple[int, ...]) -> None:
    heatmaps, points = torch.randn(2, 3, *shape), torch.rand(2, 3, dims) * 3
    points[0, 1], points[1, 2, 0] = NAN, -1.5
    points[1, 2, 1:] = 1.0
    found = ExponentialWeightedCenterLoss(alpha=1.0)(heatmaps, points)
    torch.testing.assert_close(found, HeatmapMSELoss()(heatmaps, points))
    total = ExponentialWeightedCenterLoss(alpha=1.0, reduction="sum")(heatmaps, points)
    torch.testing.assert_close(total, heatmap_squared_error(heatmaps, points, 10.0).sum())


@pytest.mark.parametrize("alpha", [0.2, 40.0, 80.0])
def test_weight_is_alpha_at_the_landmark_and_1_far_from_it(alpha: float) -> None:
    """Where prediction and target differ by 1 everywhere, the loss of a voxel is its weight."""
    point = torch.tensor([[[4.0, 5.0]]], dtype=torch.float64)
    target = gaussian_heatmaps(point, (9, 80), 3.0)
    weight, slope = exponential_weighted_center(torch.ones_like(target), target.clone(), alpha)
    assert weight[0, 0, 4, 5].item() == pytest.approx(alpha)
    assert weight[0, 0, 0, -1].item() == pytest.approx(1)
    torch.testing.assert_close(weight, alpha**target)
    torch.testing.assert_close(slope, 2 * alpha**target)


def test_gradient_of_the_default_at_the_landmark_is_40_times_that_of_the_squared_error() -> None:
    gradients = []
    for loss in (ExponentialWeightedCenterLoss(), HeatmapMSELoss()):
        maps = torch.zeros(1, 1, 65, 65, requires_grad=True)
        loss(maps, torch.full((1, 1, 2), 32.0)).backward()
        assert maps.grad is not None
        gradients.append(maps.grad[0, 0, 32, 32].item())
    assert gradients[0] / gradients[1] == pytest.approx(40, rel=1e-5)


@pytest.mark.parametrize("alpha", [0.0, -1.0, NAN, math.inf])
def test_alpha_that_is_not_positive_is_refused_with_what_to_give(alpha: float) -> None:
    with pytest.raises(LandmarkError, match=r"`alpha` must be positive and finite, got .* Give alpha=1"):
        ExponentialWeightedCenterLoss(alpha)
