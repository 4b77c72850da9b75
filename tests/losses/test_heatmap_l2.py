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

import pytest
import torch

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.heatmaps import gaussian_heatmaps
from monai_landmarks.losses import HeatmapL2Loss, heatmap_squared_error

NAN = float("nan")
SHAPES = [(2, (7, 9)), (3, (5, 6, 4))]


def plain(heatmaps, points, sigma, gamma):
    """Eq. 2's data term as written: build the target, subtract, square, sum."""
    return (heatmaps - gaussian_heatmaps(points, heatmaps.shape[2:], sigma, gamma)).square().flatten(2).sum(-1)


@pytest.mark.parametrize(("dims", "shape"), SHAPES)
@pytest.mark.parametrize("gamma", [None, 10.0])
@pytest.mark.parametrize("per_axis", [False, True])
def test_values_and_gradients_agree_with_autograd_of_the_plain_formula(dims, shape, gamma, per_axis) -> None:
    torch.manual_seed(0)
    heatmaps = torch.randn(2, 3, *shape, dtype=torch.float64, requires_grad=True)
    points = (torch.rand(2, 3, dims, dtype=torch.float64) * 6 - 1).requires_grad_()
    sigma = (torch.rand(3, dims if per_axis else 1, dtype=torch.float64) + 0.8).requires_grad_()
    weight = torch.randn(2, 3, dtype=torch.float64)
    ours, theirs = heatmap_squared_error(heatmaps, points, sigma, gamma), plain(heatmaps, points, sigma, gamma)
    torch.testing.assert_close(ours, theirs)
    inputs = (heatmaps, points, sigma)
    for a, b in zip(
        torch.autograd.grad((weight * ours).sum(), inputs),
        torch.autograd.grad((weight * theirs).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_missing_landmark_is_masked_and_changes_nothing() -> None:
    heatmaps = torch.randn(1, 2, 6, 6, requires_grad=True)
    points = torch.tensor([[[2.0, 3.0], [NAN, NAN]]])
    error = heatmap_squared_error(heatmaps, points, 1.0)
    assert error[0, 1] == 0
    error.sum().backward()
    assert heatmaps.grad is not None
    assert heatmaps.grad[0, 1].abs().max() == 0
    assert heatmaps.grad[0, 0].abs().max() > 0


def test_missing_landmark_may_want_an_empty_map() -> None:
    heatmaps = torch.randn(1, 2, 6, 6)
    points = torch.tensor([[[2.0, 3.0], [NAN, NAN]]])
    error = heatmap_squared_error(heatmaps, points, 1.0, missing="zero")
    torch.testing.assert_close(error[0, 1], heatmaps[0, 1].square().sum())


def test_a_batch_of_missing_landmarks_costs_nothing_and_has_finite_gradients() -> None:
    loss = HeatmapL2Loss(2, 2)
    heatmaps = torch.randn(1, 2, 6, 6, requires_grad=True)
    value = loss(heatmaps, torch.full((1, 2, 2), NAN))
    value.backward()
    assert value.item() == 0
    assert heatmaps.grad is not None
    assert heatmaps.grad.abs().max() == 0
    assert loss.targets.raw_sigma.grad is not None
    assert loss.targets.raw_sigma.grad.abs().max() == 0


@pytest.mark.parametrize(("dims", "gamma", "alpha"), [(2, 100.0, 20.0), (3, 1000.0, 1000.0)])
def test_constants_are_the_papers(dims: int, gamma: float, alpha: float) -> None:
    loss = HeatmapL2Loss(1, dims, sigma=2.0)
    assert (loss.gamma, loss.alpha) == (gamma, alpha)
    points = torch.full((1, 1, dims), 30.0)
    perfect = gaussian_heatmaps(points, (60,) * dims, 2.0, gamma)
    assert loss(perfect, points).item() == pytest.approx(alpha * 4.0)  # only alpha * sigma ** 2 is left
    half = HeatmapL2Loss(1, dims, sigma=2.0, half=True)
    assert half(perfect, points).item() == pytest.approx(alpha * 2.0)


def test_loss_is_a_sum_over_landmarks_and_a_mean_over_the_batch() -> None:
    loss = HeatmapL2Loss(2, 2, gamma=None, alpha=0.0, learnable=False)
    heatmaps, points = torch.randn(1, 2, 8, 8), torch.rand(1, 2, 2) * 7
    one = loss(heatmaps, points)
    torch.testing.assert_close(loss(heatmaps.repeat(3, 1, 1, 1), points.repeat(3, 1, 1)), one)
    torch.testing.assert_close(one, plain(heatmaps, points, 2.5, None).sum())


def test_sigma_finds_the_width_of_what_the_network_can_do() -> None:
    """With alpha 0 the best target for fixed maps of width 4 has width 4; with alpha it is narrower."""
    points = torch.tensor([[[15.0, 16.0]]])
    heatmaps = gaussian_heatmaps(points, (32, 32), 4.0, 100.0)
    found = []
    for alpha in (0.0, 0.2):
        loss = HeatmapL2Loss(1, 2, sigma=2.5, alpha=alpha)
        optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
        for _ in range(200):
            optimizer.zero_grad()
            loss(heatmaps, points).backward()
            optimizer.step()
        found.append(loss.sigma.item())
    assert found[0] == pytest.approx(4.0, abs=0.02)
    assert 2.0 < found[1] < 3.95


def test_sigma_pushed_below_its_limit_comes_back() -> None:
    loss = HeatmapL2Loss(1, 2, sigma=2.5, alpha=0.0)
    with torch.no_grad():
        loss.targets.raw_sigma.fill_(-1.0)
    assert loss.sigma.item() == pytest.approx(loss.targets.min_sigma)
    points = torch.tensor([[[15.0, 16.0]]])
    heatmaps = gaussian_heatmaps(points, (32, 32), 4.0, 100.0)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        loss(heatmaps, points).backward()
        optimizer.step()
    assert loss.sigma.item() > 3 * loss.targets.min_sigma


def test_fixed_sigma_is_not_a_parameter_to_train() -> None:
    loss = HeatmapL2Loss(2, 2, learnable=False)
    assert not any(p.requires_grad for p in loss.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_compared_in_float32(dtype: torch.dtype) -> None:
    heatmaps = torch.full((1, 1, 64, 64), 200.0, dtype=dtype, requires_grad=True)
    error = heatmap_squared_error(heatmaps, torch.tensor([[[NAN, NAN]]]), 1.0, missing="zero")
    assert error.item() == pytest.approx(64 * 64 * 200.0**2)  # beyond float16's range
    error.sum().backward()
    assert heatmaps.grad is not None
    assert heatmaps.grad.dtype == dtype


def test_training_inside_the_graph_holds_one_extra_tensor() -> None:
    """The difference saved for backward is the only tensor of the heatmaps' size in the graph."""
    saved = []
    heatmaps = torch.randn(1, 3, 64, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        HeatmapL2Loss(3, 2)(heatmaps, torch.rand(1, 3, 2) * 60)
    assert sum(size >= heatmaps.numel() for size in saved) == 1


def test_gradient_reuses_the_saved_difference_so_a_second_backward_is_refused() -> None:
    heatmaps = torch.randn(1, 1, 8, 8, requires_grad=True)
    error = heatmap_squared_error(heatmaps, torch.ones(1, 1, 2), 1.0).sum()
    error.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        error.backward()


def test_shapes_that_do_not_fit_name_both_counts() -> None:
    with pytest.raises(LandmarkError, match="predicts 19 landmarks, the data has 18"):
        heatmap_squared_error(torch.zeros(1, 19, 8, 8), torch.zeros(1, 18, 2), 1.0)
    with pytest.raises(LandmarkError, match="2D points for a 3D image"):
        heatmap_squared_error(torch.zeros(1, 1, 8, 8, 8), torch.zeros(1, 1, 2), 1.0)


def test_unknown_options_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="mask"):
        HeatmapL2Loss(1, 2, missing="mansk")
    with pytest.raises(ValueError, match="paper"):
        HeatmapL2Loss(1, 2, gamma="papr")
