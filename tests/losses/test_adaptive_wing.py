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

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.heatmaps import gaussian_heatmaps
from monai_landmarks.losses.adaptive_wing import AdaptiveWingLoss, adaptive_wing, weighted_loss_map

NAN = float("nan")
CONSTANTS = [(14.0, 0.5, 1.0, 2.1), (5.0, 0.3, 0.7, 2.6), (14.0, 2.0, 0.5, 2.1)]


def by_hand(d: float, t: float, omega: float, theta: float, epsilon: float, alpha: float) -> float:
    """The two cases as Wang et al. write them."""
    power = alpha - t
    if abs(d) < theta:
        return omega * math.log(1 + abs(d / epsilon) ** power)
    ratio = theta / epsilon
    a = omega * (1 / (1 + ratio**power)) * power * ratio ** (power - 1) * (1 / epsilon)
    c = theta * a - omega * math.log(1 + ratio**power)
    return a * abs(d) - c


@pytest.mark.parametrize("constants", CONSTANTS)
def test_value_against_the_two_cases_one_voxel_after_the_other(constants) -> None:
    for t in (0.0, 0.2, 0.77, 1.0):
        for d in (-3.0, -0.6, -0.49, -1e-3, 0.0, 0.1, 0.3, 0.51, 2.0):
            value, _ = adaptive_wing(*torch.tensor([[d], [t]], dtype=torch.float64), *constants)
            assert value.item() == pytest.approx(by_hand(d, t, *constants), abs=1e-12)


@pytest.mark.parametrize("constants", CONSTANTS)
def test_slope_is_the_derivative_of_the_value(constants) -> None:
    difference = torch.linspace(-2.5, 2.5, 501, dtype=torch.float64)[:, None] + 0.0037
    target, step = torch.linspace(0, 1, 11, dtype=torch.float64).expand(501, -1), 1e-6
    difference = difference.expand_as(target)
    upper, _ = adaptive_wing(difference + step, target, *constants)
    lower, _ = adaptive_wing(difference - step, target, *constants)
    _, slope = adaptive_wing(difference, target, *constants)
    torch.testing.assert_close(slope, (upper - lower) / (2 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("constants", CONSTANTS)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_value_and_slope_are_continuous_where_the_curve_becomes_a_line(constants, sign) -> None:
    target, theta = torch.linspace(0, 1, 11, dtype=torch.float64), constants[1]
    below = adaptive_wing(torch.full_like(target, sign * theta * (1 - 1e-9)), target, *constants)
    above = adaptive_wing(torch.full_like(target, sign * theta * (1 + 1e-9)), target, *constants)
    for a, b in zip(below, above, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)
    beyond = adaptive_wing(torch.full_like(target, sign * theta * 3), target, *constants)
    torch.testing.assert_close(beyond[1], above[1])


def test_slope_at_the_landmark_vanishes_with_the_error_but_slower_than_in_the_background() -> None:
    target = torch.tensor([0.0, 1.0], dtype=torch.float64)
    value, slope = adaptive_wing(torch.zeros(2, dtype=torch.float64), target)
    assert value.eq(0).all()
    assert slope.eq(0).all()
    _, small = adaptive_wing(torch.full((2,), 1e-4, dtype=torch.float64), target)
    assert small[1] > 1000 * small[0] > 0


@pytest.mark.parametrize(("dims", "shape"), [(2, (7, 9)), (3, (5, 6, 3))])
@pytest.mark.parametrize("map_weight", [0.0, 10.0])
def test_loss_against_loops_over_every_voxel(dims: int, shape: tuple[int, ...], map_weight: float) -> None:
    torch.manual_seed(0)
    heatmaps, points = torch.randn(1, 2, *shape, dtype=torch.float64), torch.rand(1, 2, dims, dtype=torch.float64) * 3
    targets = gaussian_heatmaps(points, shape, 1.2)
    total = 0.0
    for maps, target in zip(heatmaps[0].numpy(), targets[0].numpy(), strict=True):
        weights = 1 + map_weight * (ndimage.grey_dilation(target, size=(3,) * dims) >= 0.2)
        for p, t, w in zip(maps.flat, target.flat, weights.flat, strict=True):
            total += w * by_hand(p - t, t, *CONSTANTS[0])
    loss = AdaptiveWingLoss(map_weight=map_weight, sigma=1.2)
    assert loss(heatmaps, points).item() == pytest.approx(total / (2 * math.prod(shape)))
    assert torch.autograd.gradcheck(lambda maps: loss(maps, points), heatmaps.requires_grad_())


@pytest.mark.parametrize("shape", [(12, 13), (7, 8, 9)])
def test_weighted_loss_map_against_scipys_dilation(shape: tuple[int, ...]) -> None:
    points = torch.tensor([[[3.4, 0.2, 5.0][: len(shape)], [NAN] * len(shape)]])
    found = weighted_loss_map(gaussian_heatmaps(points, shape, 1.5), 10.0)
    dilated = ndimage.grey_dilation(gaussian_heatmaps(points, shape, 1.5)[0, 0].numpy(), size=(3,) * len(shape))
    np.testing.assert_array_equal(found[0, 0].numpy(), np.where(dilated >= 0.2, 11, 1))
    assert found[0, 1].eq(1).all()


@pytest.mark.parametrize("name", ["omega", "theta", "epsilon", "alpha"])
@pytest.mark.parametrize("value", [0.0, -1.0, NAN, math.inf])
def test_constants_that_are_not_positive_are_refused(name: str, value: float) -> None:
    with pytest.raises(LandmarkError, match=f"`{name}` must be positive and finite"):
        AdaptiveWingLoss(**{name: value})


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_alpha_that_leaves_a_slope_at_the_landmark_is_refused(alpha: float) -> None:
    with pytest.raises(LandmarkError, match="`alpha` must be above 2"):
        AdaptiveWingLoss(alpha=alpha)


@pytest.mark.parametrize("weight", [-1.0, NAN, math.inf])
def test_weight_of_the_map_that_is_negative_is_refused(weight: float) -> None:
    with pytest.raises(LandmarkError, match="`map_weight` must"):
        AdaptiveWingLoss(map_weight=weight)
