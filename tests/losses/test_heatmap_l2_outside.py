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
"""What the loss does with a landmark whose place is known and not in the image."""

from __future__ import annotations

import math

import pytest
import torch

from monai_landmarks.heatmaps import gaussian_heatmaps
from monai_landmarks.losses import HeatmapL2Loss, heatmap_squared_error

NAN = float("nan")
CASES = [(2, (7, 9)), (3, (5, 6, 4))]  # dims, shape
KINDS = ["tail", "zero", "mask"]


def example(dims: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps (1, 4, *S) and four landmarks: inside, just outside, far outside, missing."""
    torch.manual_seed(0)
    points = torch.full((1, 4, dims), 2.0, dtype=torch.float64)
    points[0, 1, 0], points[0, 2, -1], points[0, 3] = -1.25, shape[-1] + 60.0, NAN
    return torch.randn(1, 4, *shape, dtype=torch.float64), points


@pytest.mark.parametrize(("dims", "shape"), CASES)
@pytest.mark.parametrize("gamma", [None, 50.0])
@pytest.mark.parametrize("outside", KINDS)
@pytest.mark.parametrize("missing", ["mask", "zero"])
def test_against_one_map_after_the_other(dims, shape, gamma, outside, missing) -> None:
    """A loop that says for each landmark which target it has, or none."""
    heatmaps, points = example(dims, shape)
    expected = []
    for maps, point, place in zip(heatmaps[0], points[0], ("in", "out", "out", "missing"), strict=True):
        target = gaussian_heatmaps(point[None], shape, 1.5, gamma)[0] if place != "missing" else torch.zeros(shape)
        rule = {"in": "tail", "out": outside, "missing": missing}[place]
        target = torch.zeros(shape) if rule == "zero" else target
        expected.append(0.0 if rule == "mask" else (maps - target).square().sum().item())
    found = heatmap_squared_error(heatmaps, points, 1.5, gamma, missing, outside)
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float64))


@pytest.mark.parametrize(("dims", "shape"), CASES)
@pytest.mark.parametrize("gamma", [None, 50.0])
@pytest.mark.parametrize("outside", KINDS)
def test_gradients_against_central_differences(dims, shape, gamma, outside) -> None:
    """Along random directions in all inputs at once; torch's gradcheck runs backward more than the one time allowed."""
    heatmaps, points = example(dims, shape)
    inputs = (heatmaps, points[:, :3], torch.linspace(1.0, 2.0, 4, dtype=torch.float64)[:, None])
    weight = torch.tensor([[1.0, -2.0, 3.0, 0.5]], dtype=torch.float64)

    def error(maps: torch.Tensor, there: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        every = torch.cat([there, points[:, 3:]], dim=1)
        return (weight * heatmap_squared_error(maps, every, sigma, gamma, "zero", outside)).sum()

    variables = [value.clone().requires_grad_() for value in inputs]
    gradients = torch.autograd.grad(error(*variables), variables)
    step = 1e-6
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        along = [torch.randn(value.shape, generator=generator, dtype=torch.float64) for value in inputs]
        ahead, behind = (
            error(*[v + sign * step * d for v, d in zip(inputs, along, strict=True)]).item() for sign in (1, -1)
        )
        expected = sum((g * d).sum().item() for g, d in zip(gradients, along, strict=True))
        assert (ahead - behind) / (2 * step) == pytest.approx(expected, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize(("dims", "shape"), CASES)
@pytest.mark.parametrize(("outside", "continuous"), [("tail", True), ("zero", False), ("mask", False)])
def test_only_the_tail_is_continuous_at_the_border(dims, shape, outside, continuous) -> None:
    """The gradient that the network gets, a hair's breadth on either side of the last voxel's edge."""
    heatmaps = torch.zeros(1, 1, *shape, dtype=torch.float64)
    gradients = []
    for step in (-1e-9, 1e-9):
        point = torch.full((1, 1, dims), 2.0, dtype=torch.float64)
        point[..., 0] = shape[0] - 0.5 + step
        maps = heatmaps.clone().requires_grad_()
        HeatmapL2Loss(1, dims, sigma=1.5, outside=outside)(maps, point).backward()
        gradients.append(maps.grad)
    assert torch.allclose(*gradients, atol=1e-5) is continuous


def test_a_landmark_far_outside_wants_an_empty_map() -> None:
    heatmaps, point = torch.randn(1, 1, 8, 8), torch.tensor([[[1e6, 3.0]]])
    tail, zero = (heatmap_squared_error(heatmaps, point, 2.0, 100.0, outside=kind) for kind in ("tail", "zero"))
    torch.testing.assert_close(tail, zero)
    torch.testing.assert_close(tail, heatmaps.square().sum().reshape(1, 1))


@pytest.mark.parametrize("outside", KINDS)
@pytest.mark.parametrize("per_axis", [False, True])
@pytest.mark.parametrize(("dims", "shape"), CASES)
def test_the_width_of_a_landmark_that_is_not_inside_is_left_alone(dims, shape, per_axis, outside) -> None:
    """Neither regularised nor pulled, whatever the target is; that of the landmark inside is both."""
    heatmaps, points = example(dims, shape)
    loss = HeatmapL2Loss(4, dims, alpha=3.0, missing="zero", outside=outside, per_axis=per_axis).double()
    loss(heatmaps, points).backward()
    gradient = loss.targets.raw_sigma.grad
    assert gradient is not None
    assert gradient[0].abs().min() > 0
    assert gradient[1:].abs().max() == 0
    alone = HeatmapL2Loss(1, dims, alpha=3.0, per_axis=per_axis).double()
    alone(heatmaps[:, :1], points[:, :1]).backward()
    assert alone.targets.raw_sigma.grad is not None
    torch.testing.assert_close(gradient[0], alone.targets.raw_sigma.grad[0])


def test_widths_count_by_image() -> None:
    """The same landmark inside in one image and outside in the other: alpha * sigma ** 2 once, over two images."""
    loss = HeatmapL2Loss(1, 2, sigma=2.0, gamma=None, alpha=20.0)
    points = torch.tensor([[[3.0, 3.0]], [[-3.0, 3.0]]])
    perfect = gaussian_heatmaps(points, (12, 12), 2.0)
    assert loss(perfect, points).item() == pytest.approx(20.0 * 4.0 / 2)


@pytest.mark.parametrize("gamma", [None, 100.0])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_tail_that_is_not_drawn_would_narrow_the_width(dims: int, gamma: float | None) -> None:
    """Why the width learns nothing outside: farther than sqrt(D) sigma away the plain formula pulls it down."""
    shape, sigma = (8,) * dims, torch.tensor([[2.0]], dtype=torch.float64, requires_grad=True)
    point = torch.full((1, 1, dims), 4.0, dtype=torch.float64)
    point[..., 0] = -(math.sqrt(dims) * 2.0) - 0.01
    plain = heatmap_squared_error(torch.zeros(1, 1, *shape, dtype=torch.float64), point, sigma, gamma)
    (gradient,) = torch.autograd.grad(plain.sum(), sigma)
    assert gradient.item() > 0


@pytest.mark.parametrize("outside", KINDS)
@pytest.mark.parametrize("place", [NAN, -40.0])
def test_batches_without_a_landmark_inside(outside: str, place: float) -> None:
    loss = HeatmapL2Loss(2, 2, outside=outside)
    heatmaps = torch.randn(2, 2, 6, 6, requires_grad=True)
    value = loss(heatmaps, torch.full((2, 2, 2), place))
    value.backward()
    assert heatmaps.grad is not None
    wanted = 0.0 if outside == "mask" or math.isnan(place) else heatmaps.detach().square().sum().item() / 2
    assert value.item() == pytest.approx(wanted)
    assert torch.isfinite(heatmaps.grad).all()
    assert loss.targets.raw_sigma.grad is not None
    assert loss.targets.raw_sigma.grad.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("outside", KINDS)
def test_half_precision_maps(dtype: torch.dtype, outside: str) -> None:
    heatmaps, points = example(2, (7, 9))
    half = heatmaps.to(dtype).requires_grad_()
    expected = heatmap_squared_error(half.detach().double(), points, 1.5, 50.0, outside=outside)
    found = heatmap_squared_error(half, points, 1.5, 50.0, outside=outside)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    found.sum().backward()
    assert half.grad is not None
    assert half.grad.dtype == dtype


def test_half_precision_points_are_looked_up_in_float32() -> None:
    """Voxel 512 of 512 is outside; in bfloat16 the edge at 511.5 would be 512 too."""
    point = torch.tensor([[[512.0, 3.0]]], dtype=torch.bfloat16)
    assert heatmap_squared_error(torch.ones(1, 1, 512, 4), point, 1.0, outside="mask").item() == 0


def test_the_public_code_wants_empty_maps() -> None:
    """Half the sum of squares of all maps, missing and outside ones too, and no width of these."""
    heatmaps, points = example(2, (7, 9))
    loss = HeatmapL2Loss(4, 2, sigma=2.0, missing="zero", outside="zero", half=True).double()
    target = gaussian_heatmaps(points, (7, 9), 2.0, 100.0)
    target[0, 1:] = 0
    expected = 0.5 * (heatmaps - target).square().sum() + 0.5 * 20.0 * 4.0
    torch.testing.assert_close(loss(heatmaps, points), expected)


def test_unknown_option_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="tail"):
        HeatmapL2Loss(1, 2, outside="tial")
    with pytest.raises(ValueError, match="tail"):
        heatmap_squared_error(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 2), 1.0, outside="tial")
