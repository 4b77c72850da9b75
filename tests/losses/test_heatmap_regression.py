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
"""Losses on every voxel of heatmaps, against torch's own with targets that were built, and what all have in common."""

from __future__ import annotations

import json
import math

import pytest
import torch
from monai.bundle import ConfigParser
from torch.nn import functional as F

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.heatmaps import gaussian_heatmaps
from monai_landmarks.losses.adaptive_wing import AdaptiveWingLoss
from monai_landmarks.losses.exponential_weighted_center import ExponentialWeightedCenterLoss
from monai_landmarks.losses.heatmap_regression import (
    HeatmapL1Loss,
    HeatmapMSELoss,
    HeatmapRegressionLoss,
    HeatmapSmoothL1Loss,
)

NAN = float("nan")
CASES = [(2, (7, 9)), (3, (5, 6, 3))]  # dims, shape
KINDS = ["tail", "zero", "mask"]
ALL = [
    ExponentialWeightedCenterLoss,
    AdaptiveWingLoss,
    HeatmapSmoothL1Loss,
    HeatmapL1Loss,
    HeatmapMSELoss,
]
TORCHS = [
    (HeatmapMSELoss, {}, F.mse_loss),
    (HeatmapL1Loss, {}, F.l1_loss),
    (HeatmapSmoothL1Loss, {}, F.smooth_l1_loss),
    (HeatmapSmoothL1Loss, {"beta": 0.3}, lambda *maps, **k: F.smooth_l1_loss(*maps, beta=0.3, **k)),
    (ExponentialWeightedCenterLoss, {"alpha": 1.0}, F.mse_loss),
]


def example(dims: int, shape: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Heatmaps (2, 4, *S) and four landmarks: between voxels inside, just outside, far outside, missing."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(2, 4, dims, generator=generator, dtype=torch.float64) * 2
    points[:, 1, 0], points[:, 2, -1], points[:, 3] = -1.25, shape[-1] + 60.0, NAN
    return torch.randn(2, 4, *shape, generator=generator, dtype=torch.float64), points


def plain(function, heatmaps, points, sigma, missing="mask", outside="tail"):
    """Torch's loss with the built targets, one map after the other, and None where there is none."""
    shape, rules = heatmaps.shape[2:], ("tail", outside, outside, missing)
    losses = []
    for maps, places in zip(heatmaps, points, strict=True):
        for one, target, rule in zip(maps, gaussian_heatmaps(places, shape, sigma), rules, strict=True):
            wanted = torch.zeros_like(target) if rule == "zero" else target
            losses.append(0.0 * one.sum() if rule == "mask" else function(one, wanted, reduction="sum"))
    return torch.stack(losses).sum()


@pytest.mark.parametrize(("dims", "shape"), CASES)
@pytest.mark.parametrize(("loss", "options", "function"), TORCHS)
@pytest.mark.parametrize("outside", KINDS)
@pytest.mark.parametrize("missing", ["mask", "zero"])
def test_values_and_gradients_against_torchs_losses(dims, shape, loss, options, function, outside, missing) -> None:
    heatmaps, points = example(dims, shape)
    heatmaps.requires_grad_()
    ours = loss(**options, sigma=1.5, reduction="sum", missing=missing, outside=outside)(heatmaps, points)
    theirs = plain(function, heatmaps, points, 1.5, missing, outside)
    torch.testing.assert_close(ours, theirs)
    (ours_back,) = torch.autograd.grad(3 * ours, heatmaps)
    (theirs_back,) = torch.autograd.grad(3 * theirs, heatmaps)
    torch.testing.assert_close(ours_back, theirs_back)


@pytest.mark.parametrize(("loss", "options", "function"), TORCHS)
def test_mean_is_torchs_mean_when_all_landmarks_are_there(loss, options, function) -> None:
    heatmaps, points = torch.randn(2, 3, 11, 6), torch.rand(2, 3, 2) * 5
    expected = function(heatmaps, gaussian_heatmaps(points, (11, 6), 10.0))
    torch.testing.assert_close(loss(**options)(heatmaps, points), expected)


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("missing", ["mask", "zero"])
def test_mean_divides_by_the_voxels_of_the_maps_that_count(loss, missing) -> None:
    """Two images of 63 voxels and 4 landmarks, one of which is missing in both, and one in the second only."""
    heatmaps, points = example(2, (7, 9))
    points[1, 0] = NAN
    maps = 5 if missing == "mask" else 8
    total = loss(sigma=1.5, reduction="sum", missing=missing)(heatmaps, points)
    torch.testing.assert_close(loss(sigma=1.5, missing=missing)(heatmaps, points), total / (63 * maps))


@pytest.mark.parametrize("loss", ALL)
def test_mean_of_a_landmark_does_not_change_with_those_that_are_missing(loss) -> None:
    heatmaps, points = example(2, (7, 9))
    alone = loss()(heatmaps[:, :1], points[:, :1])
    torch.testing.assert_close(loss()(heatmaps[:, [0, 3]], points[:, [0, 3]]), alone)


@pytest.mark.parametrize(("dims", "shape"), CASES)
@pytest.mark.parametrize("loss", ALL)
def test_gradient_against_finite_differences(dims, shape, loss) -> None:
    """In float64, whose steps are so small that none crosses the kink of an absolute value."""
    heatmaps, points = example(dims, tuple(min(s, 3) for s in shape))
    computed = loss(sigma=1.5)
    maps = heatmaps[:1].requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: computed(maps, points[:1]), maps)


@pytest.mark.parametrize(("dims", "shape"), CASES)
@pytest.mark.parametrize("loss", ALL)
def test_the_target_itself_costs_nothing_and_is_left_alone(dims, shape, loss) -> None:
    points = torch.tensor([[[2.3, 1.6, 1.2][:dims]]], dtype=torch.float64)
    maps = gaussian_heatmaps(points, shape, 2.0).requires_grad_()
    value = loss(sigma=2.0)(maps, points)
    value.backward()
    assert value.item() == 0
    assert maps.grad is not None
    assert maps.grad.eq(0).all()


@pytest.mark.parametrize("loss", ALL)
def test_target_is_centred_between_voxels_on_a_grid_that_starts_at_0(loss) -> None:
    """Descent from an empty map is symmetric about 3.5 on the first axis and about 3 on the second."""
    maps = torch.zeros(1, 1, 8, 7, dtype=torch.float64, requires_grad=True)
    loss(sigma=1.5)(maps, torch.tensor([[[3.5, 3.0]]])).backward()
    assert maps.grad is not None
    torch.testing.assert_close(maps.grad, maps.grad.flip(2))
    torch.testing.assert_close(maps.grad, maps.grad.flip(3))


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("value", [1.0, NAN, float("inf")])
def test_maps_left_out_get_a_gradient_of_exactly_0(loss, value: float) -> None:
    """Whatever the network says there."""
    maps = torch.randn(1, 3, 6, 6)
    maps[0, 1:] = value
    maps.requires_grad_()
    found = loss(outside="mask")(maps, torch.tensor([[[2.0, 3.0], [NAN, NAN], [-4.0, 2.0]]]))
    found.backward()
    assert torch.isfinite(found)
    assert maps.grad is not None
    assert maps.grad[0, 1:].eq(0).all()
    assert maps.grad[0, 0].ne(0).all()


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize(("place", "outside"), [(NAN, "tail"), (-40.0, "mask")])
def test_batch_without_a_landmark_is_0_with_a_gradient_of_0(loss, reduction, place, outside) -> None:
    maps = torch.randn(2, 3, 5, 7, requires_grad=True)
    value = loss(reduction=reduction, outside=outside)(maps, torch.full((2, 3, 2), place))
    value.backward()
    assert value.item() == 0
    assert maps.grad is not None
    assert maps.grad.eq(0).all()


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_compared_in_float32(loss, dtype: torch.dtype) -> None:
    heatmaps, points = example(2, (33, 31))
    half = heatmaps.to(dtype).requires_grad_()
    double = half.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss()(half, points)
    expected = loss()(double, points)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)
    found.backward(torch.tensor(1024.0))  # as a loss scale does
    expected.backward(torch.tensor(1024.0, dtype=torch.float64))
    assert half.grad is not None
    assert double.grad is not None
    assert half.grad.dtype == dtype
    torch.testing.assert_close(half.grad, double.grad.to(dtype), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("kind", ["per landmark", "per axis", "both"])
def test_widths(kind: str) -> None:
    heatmaps, points = example(2, (7, 9))
    sigma = torch.linspace(0.8, 2.5, 8, dtype=torch.float64).reshape(4, 2)
    sigma = {"per landmark": sigma[:, :1], "per axis": sigma[0], "both": sigma}[kind]
    loss = HeatmapMSELoss(sigma.tolist(), reduction="sum")  # as a JSON file writes it
    torch.testing.assert_close(loss(heatmaps, points), plain(F.mse_loss, heatmaps, points, sigma))


@pytest.mark.parametrize("loss", ALL)
def test_the_graph_keeps_one_tensor_of_the_maps_size(loss) -> None:
    saved: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.numel())
        return tensor

    maps = torch.randn(1, 3, 64, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        value = loss()(maps, torch.rand(1, 3, 2) * 60)
    assert sum(size >= maps.numel() for size in saved) == 1
    (first,) = torch.autograd.grad(value, maps, retain_graph=True)
    assert torch.equal(torch.autograd.grad(value, maps)[0], first)


@pytest.mark.parametrize("loss", ALL)
def test_neither_maps_nor_points_are_written_into(loss) -> None:
    heatmaps, points = example(2, (7, 9))
    before = heatmaps.clone(), points.clone()
    loss()(heatmaps, points)
    assert torch.equal(heatmaps, before[0])
    torch.testing.assert_close(points, before[1], equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("loss", ALL)
def test_maps_of_another_memory_format(loss) -> None:
    heatmaps, points = example(2, (7, 9))
    other = heatmaps.to(memory_format=torch.channels_last).requires_grad_()
    found = loss()(other, points)
    torch.testing.assert_close(found, loss()(heatmaps, points))
    found.backward()
    heatmaps.requires_grad_()
    loss()(heatmaps, points).backward()
    torch.testing.assert_close(other.grad, heatmaps.grad)


def test_another_formula_in_three_lines() -> None:
    class FourthPower(HeatmapRegressionLoss):
        def formula(self, difference, target):
            return difference**4, 4 * difference**3

    heatmaps, points = example(2, (3, 3))
    expected = plain(lambda a, b, reduction: (a - b).pow(4).sum(), heatmaps, points, 1.5)
    loss = FourthPower(sigma=1.5, reduction="sum")
    torch.testing.assert_close(loss(heatmaps, points), expected)
    assert torch.autograd.gradcheck(lambda maps: loss(maps, points), heatmaps.requires_grad_())


@pytest.mark.parametrize("loss", ALL)
def test_shapes_that_do_not_fit_name_both_counts(loss) -> None:
    with pytest.raises(LandmarkError, match="predicts 19 landmarks, the data has 18"):
        loss()(torch.zeros(1, 19, 8, 8), torch.zeros(1, 18, 2))
    with pytest.raises(LandmarkError, match="2D points for a 3D image"):
        loss()(torch.zeros(1, 1, 8, 8, 8), torch.zeros(1, 1, 2))
    with pytest.raises(LandmarkError, match="must have 2 values, got 3"):
        loss(sigma=[1.0, 2.0, 3.0])(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 2))


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("sigma", [0.0, -1.0, NAN, [[3.0], [0.0]]])
def test_width_that_is_not_positive_is_refused_at_once(loss, sigma: float | list[list[float]]) -> None:
    with pytest.raises(LandmarkError, match="must be positive"):
        loss(sigma=sigma)


@pytest.mark.parametrize("beta", [0.0, -1.0, NAN, math.inf])
def test_beta_that_is_not_positive_is_refused(beta: float) -> None:
    with pytest.raises(LandmarkError, match="`beta` must be positive and finite"):
        HeatmapSmoothL1Loss(beta)


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize(
    ("options", "known"),
    [({"reduction": "none"}, "mean"), ({"missing": "skip"}, "mask"), ({"outside": "tial"}, "tail")],
)
def test_unknown_option_is_answered_with_the_known_ones(loss, options: dict[str, str], known: str) -> None:
    with pytest.raises(ValueError, match=known):
        loss(**options)


@pytest.mark.parametrize("loss", ALL)
def test_built_from_json(loss) -> None:
    text = {"_target_": f"{loss.__module__}.{loss.__name__}", "sigma": [[3.0], [2.0]], "outside": "zero"}
    built = ConfigParser(json.loads(json.dumps({"loss": text}))).get_parsed_content("loss")
    assert isinstance(built, loss)
    assert built(torch.zeros(1, 2, 5, 5), torch.zeros(1, 2, 2)).item() > 0
