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
"""Binary cross-entropy from logits, against torch's own with targets that were built."""

from __future__ import annotations

import json
import math

import pytest
import torch
from monai.bundle import ConfigParser
from torch.nn import functional as F

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.heatmaps import gaussian_heatmaps
from monai_landmarks.losses.heatmap_bce import HeatmapBCELoss, heatmap_binary_cross_entropy

NAN = float("nan")
CASES = [(2, (7, 9)), (3, (5, 6, 4))]  # dims, shape
KINDS = ["tail", "zero", "mask"]


def example(dims: int, shape: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, 4, *S) and four landmarks: between voxels inside, just outside, far outside, missing."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(2, 4, dims, generator=generator, dtype=torch.float64) * 3
    points[:, 1, 0], points[:, 2, -1], points[:, 3] = -1.25, shape[-1] + 60.0, NAN
    return 3 * torch.randn(2, 4, *shape, generator=generator, dtype=torch.float64), points


def plain(logits, points, sigma, missing="mask", outside="tail"):
    """Torch's loss with the built targets, one map after the other, and None where there is none."""
    shape, rules = logits.shape[2:], ("tail", outside, outside, missing)
    losses = []
    for maps, places in zip(logits, points, strict=True):
        targets = gaussian_heatmaps(places, shape, sigma)
        for one, target, rule in zip(maps, targets, rules, strict=True):
            wanted = torch.zeros_like(target) if rule == "zero" else target
            value = F.binary_cross_entropy_with_logits(one, wanted, reduction="sum")
            losses.append(0.0 * one.sum() if rule == "mask" else value)
    return torch.stack(losses).reshape(logits.shape[:2])


@pytest.mark.parametrize(("dims", "shape"), CASES)
@pytest.mark.parametrize("outside", KINDS)
@pytest.mark.parametrize("missing", ["mask", "zero"])
def test_values_and_gradients_against_torchs_loss(dims, shape, outside, missing) -> None:
    logits, points = example(dims, shape)
    logits.requires_grad_()
    weight = torch.randn(2, 4, dtype=torch.float64)
    ours = heatmap_binary_cross_entropy(logits, points, 1.5, missing, outside)
    theirs = plain(logits, points, 1.5, missing, outside)
    torch.testing.assert_close(ours, theirs)
    (ours_back,) = torch.autograd.grad((weight * ours).sum(), logits)
    (theirs_back,) = torch.autograd.grad((weight * theirs).sum(), logits)
    torch.testing.assert_close(ours_back, theirs_back)


@pytest.mark.parametrize(("dims", "shape"), CASES)
@pytest.mark.parametrize("kind", ["per landmark", "per axis", "both"])
def test_widths(dims, shape, kind) -> None:
    logits, points = example(dims, shape)
    sigma = torch.linspace(0.8, 2.5, 4 * dims, dtype=torch.float64).reshape(4, dims)
    sigma = {"per landmark": sigma[:, :1], "per axis": sigma[0], "both": sigma}[kind]
    expected = plain(logits, points, sigma)
    torch.testing.assert_close(heatmap_binary_cross_entropy(logits, points, sigma), expected)
    loss = HeatmapBCELoss(sigma.tolist())  # as a JSON file writes it
    torch.testing.assert_close(loss(logits, points), expected.sum())


@pytest.mark.parametrize(("dims", "shape"), [(2, (3, 5)), (3, (3, 2, 3))])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_gradient_against_finite_differences(dims, shape, reduction) -> None:
    logits, points = example(dims, shape)
    loss = HeatmapBCELoss(1.5, reduction)
    assert torch.autograd.gradcheck(lambda u: loss(u, points), logits.requires_grad_())


def test_one_voxel_by_hand() -> None:
    """A map of one voxel, 1.5 voxels from a landmark of width 2: y = exp(-0.28125), f = 1 / (1 + e)."""
    y, f = math.exp(-(1.5**2) / 8), 1 / (1 + math.e)
    logits = torch.full((1, 1, 1, 1), -1.0, dtype=torch.float64, requires_grad=True)
    value = heatmap_binary_cross_entropy(logits, torch.tensor([[[0.0, 1.5]]]), 2.0)
    value.sum().backward()
    assert value.item() == pytest.approx(-y * math.log(f) - (1 - y) * math.log(1 - f))
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(f - y)


@pytest.mark.parametrize(("dims", "shape"), CASES)
def test_best_map_is_the_gaussian_and_costs_its_entropy(dims, shape) -> None:
    points = torch.full((1, 1, dims), 2.3, dtype=torch.float64)
    y = gaussian_heatmaps(points, shape, 1.5)
    logits = torch.logit(y).requires_grad_()
    value = heatmap_binary_cross_entropy(logits, points, 1.5)
    value.sum().backward()
    assert value.item() == pytest.approx(torch.special.entr(y).sum().item() + torch.special.entr(1 - y).sum().item())
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-12


def test_best_constant_map_is_the_mean_of_the_target() -> None:
    """Among equal logits the lowest loss is at logit(mean of y), from both sides."""
    points = torch.tensor([[[3.2, 4.6]]], dtype=torch.float64)
    best = torch.logit(gaussian_heatmaps(points, (7, 9), 1.5).mean()).item()
    values = [
        heatmap_binary_cross_entropy(torch.full((1, 1, 7, 9), best + step, dtype=torch.float64), points, 1.5).item()
        for step in (-0.2, -0.1, 0.0, 0.1, 0.2)
    ]
    assert values[0] > values[1] > values[2] < values[3] < values[4]


def test_gradient_is_symmetric_about_a_centre_between_voxels() -> None:
    """Half way between voxels 3 and 4; a centre rounded to either would pull to one side."""
    logits = torch.zeros(1, 1, 8, 7, dtype=torch.float64, requires_grad=True)
    heatmap_binary_cross_entropy(logits, torch.tensor([[[3.5, 3.0]]])).sum().backward()
    gradient = logits.grad
    assert gradient is not None
    torch.testing.assert_close(gradient, gradient.flip(2))
    torch.testing.assert_close(gradient, gradient.flip(3))
    moved = torch.zeros(1, 1, 8, 7, dtype=torch.float64, requires_grad=True)
    heatmap_binary_cross_entropy(moved, torch.tensor([[[3.6, 3.0]]])).sum().backward()
    assert moved.grad is not None
    assert (moved.grad[0, 0, 4:].sum() < moved.grad[0, 0, :4].sum()).item()  # wants more on the nearer side


@pytest.mark.parametrize(("reduction", "counted"), [("sum", 1), ("mean", 63 * 2 * 3)])
@pytest.mark.parametrize("missing", ["mask", "zero"])
def test_reductions(reduction, counted, missing) -> None:
    """Two images of 63 voxels; 3 of 4 landmarks are there, and with "zero" the fourth counts too."""
    logits, points = example(2, (7, 9))
    found = HeatmapBCELoss(1.5, reduction, missing)(logits, points)
    if reduction == "mean" and missing == "zero":
        counted = counted // 3 * 4
    torch.testing.assert_close(found, plain(logits, points, 1.5, missing).sum() / counted)


def test_sum_grows_with_the_batch_and_mean_does_not() -> None:
    logits, points = example(2, (7, 9))
    twice = logits.repeat(2, 1, 1, 1), points.repeat(2, 1, 1)
    torch.testing.assert_close(HeatmapBCELoss()(*twice), 2 * HeatmapBCELoss()(logits, points))
    mean = HeatmapBCELoss(reduction="mean")
    torch.testing.assert_close(mean(*twice), mean(logits, points))


@pytest.mark.parametrize("value", [1.0, NAN, float("inf")])
def test_missing_landmark_gets_a_gradient_of_exactly_0(value: float) -> None:
    """Whatever the network says there."""
    logits = torch.randn(1, 2, 6, 6)
    logits[0, 1] = value
    logits.requires_grad_()
    loss = HeatmapBCELoss()(logits, torch.tensor([[[2.0, 3.0], [NAN, NAN]]]))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert logits.grad[0, 1].eq(0).all()
    assert logits.grad[0, 0].ne(0).all()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize(("place", "outside"), [(NAN, "tail"), (-40.0, "mask")])
def test_batch_without_a_landmark_is_0_with_a_gradient_of_0(reduction, place, outside) -> None:
    logits = torch.randn(2, 3, 5, 7, requires_grad=True)
    value = HeatmapBCELoss(3.0, reduction, outside=outside)(logits, torch.full((2, 3, 2), place))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert logits.grad.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_extreme_logits_are_finite(dtype: torch.dtype, sign: float) -> None:
    logits = torch.full((1, 1, 9, 9), sign * 1e4, dtype=dtype, requires_grad=True)
    points = torch.tensor([[[4.3, 4.0]]], dtype=dtype)
    value = heatmap_binary_cross_entropy(logits, points)
    value.sum().backward()
    y = gaussian_heatmaps(points, (9, 9), 3.0)
    wanted = 1e4 * ((1 - y).sum() if sign > 0 else y.sum())
    torch.testing.assert_close(value.squeeze(), wanted)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, (0.5 + 0.5 * sign) - y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("outside", KINDS)
def test_half_precision_logits_are_compared_in_float32(dtype: torch.dtype, outside: str) -> None:
    logits, points = example(2, (65, 63))
    half = logits.to(dtype).requires_grad_()
    double = half.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = heatmap_binary_cross_entropy(half, points, 1.5, outside=outside)
    expected = plain(double, points, 1.5, outside=outside)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    found.sum().backward()
    expected.sum().backward()
    assert half.grad is not None
    assert double.grad is not None
    assert half.grad.dtype == dtype
    torch.testing.assert_close(half.grad, double.grad.to(dtype))


def test_autocast_does_not_round_the_products() -> None:
    logits, points = example(2, (65, 63))
    logits = logits.float()
    expected = heatmap_binary_cross_entropy(logits, points)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(heatmap_binary_cross_entropy(logits, points), expected)


def test_the_graph_keeps_nothing_of_the_maps_size_but_the_logits() -> None:
    saved: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    logits = torch.randn(1, 3, 64, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        HeatmapBCELoss()(logits, torch.rand(1, 3, 2) * 60)
    large = [tensor for tensor in saved if tensor.numel() >= logits.numel()]
    assert [tensor.data_ptr() for tensor in large] == [logits.data_ptr()]


@pytest.mark.parametrize(("dims", "shape"), CASES)
def test_logits_of_another_memory_format(dims, shape) -> None:
    logits, points = example(dims, shape)
    expected = heatmap_binary_cross_entropy(logits, points)
    form = torch.channels_last if dims == 2 else torch.channels_last_3d
    other = logits.to(memory_format=form).requires_grad_()
    found = heatmap_binary_cross_entropy(other, points)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert other.grad is not None
    assert other.grad.is_contiguous(memory_format=form)


def test_a_map_is_learnt_at_its_place_between_voxels() -> None:
    """Gradient descent on the logits ends at the Gaussian, whose centre of mass is the landmark."""
    logits, point = torch.zeros(1, 1, 25, 27, requires_grad=True), torch.tensor([[[12.3, 12.8]]])
    loss = HeatmapBCELoss(sigma=2.0)
    for _ in range(300):
        (gradient,) = torch.autograd.grad(loss(logits, point), logits)
        logits.data -= 4.0 * gradient
    learnt = torch.sigmoid(logits[0, 0]).detach()
    near = learnt[6:20, 6:20]
    grid = torch.stack(torch.meshgrid(torch.arange(6, 20.0), torch.arange(6, 20.0), indexing="ij"))
    centre = (grid * near).flatten(1).sum(1) / near.sum()
    torch.testing.assert_close(centre, point[0, 0], atol=0.05, rtol=0)


def test_shapes_that_do_not_fit_name_both_counts() -> None:
    loss = HeatmapBCELoss()
    with pytest.raises(LandmarkError, match="predicts 19 landmarks, the data has 18"):
        loss(torch.zeros(1, 19, 8, 8), torch.zeros(1, 18, 2))
    with pytest.raises(LandmarkError, match="2D points for a 3D image"):
        loss(torch.zeros(1, 1, 8, 8, 8), torch.zeros(1, 1, 2))
    with pytest.raises(LandmarkError, match="must have 2 values, got 3"):
        HeatmapBCELoss([1.0, 2.0, 3.0])(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 2))


@pytest.mark.parametrize("sigma", [0.0, -1.0, NAN, [[3.0], [0.0]]])
def test_width_that_is_not_positive_is_refused_at_once(sigma: float | list[list[float]]) -> None:
    with pytest.raises(LandmarkError, match="must be positive"):
        HeatmapBCELoss(sigma)


@pytest.mark.parametrize(
    ("options", "known"),
    [({"reduction": "none"}, "mean"), ({"missing": "skip"}, "mask"), ({"outside": "tial"}, "tail")],
)
def test_unknown_option_is_answered_with_the_known_ones(options: dict[str, str], known: str) -> None:
    with pytest.raises(ValueError, match=known):
        HeatmapBCELoss(**options)


def test_built_from_json() -> None:
    text = {"_target_": "monai_landmarks.losses.heatmap_bce.HeatmapBCELoss", "sigma": [[3.0], [2.0]], "outside": "zero"}
    loss = ConfigParser(json.loads(json.dumps({"loss": text}))).get_parsed_content("loss")
    assert isinstance(loss, HeatmapBCELoss)
    assert loss(torch.zeros(1, 2, 5, 5), torch.zeros(1, 2, 2)).item() == pytest.approx(50 * math.log(2))
