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
"""Gaussian targets against the formula written out, SCN eq. 1, its integral and numerical derivatives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.heatmaps import GaussianHeatmaps, gaussian_heatmaps

SHAPES = {2: (17, 23), 3: (9, 14, 11)}


def points_in(dims: int, count: int = 5, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    size = torch.tensor(SHAPES[dims], dtype=dtype) - 1
    return torch.rand(count, dims, dtype=dtype, generator=torch.Generator().manual_seed(4)) * size


def slow(points: torch.Tensor, shape: tuple[int, ...], sigma: np.ndarray, gamma: float | None = None) -> np.ndarray:
    """One voxel after the other, as eq. 1 stands in the paper; ``sigma`` is ``(N, D)``."""
    maps = np.zeros((len(points), *shape))
    for landmark, (point, widths) in enumerate(zip(points.double().numpy(), sigma, strict=True)):
        height = 1.0 if gamma is None else gamma / ((2 * math.pi) ** (len(shape) / 2) * float(np.prod(widths)))
        for voxel in np.ndindex(*shape):
            maps[(landmark, *voxel)] = height * math.exp(
                -0.5 * float((((np.array(voxel) - point) / widths) ** 2).sum())
            )
    return maps


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("gamma", [None, 100.0])
@pytest.mark.parametrize("kind", ["number", "per axis", "per landmark", "per landmark and axis"])
def test_heatmaps_equal_the_formula(dims, gamma, kind):
    points = points_in(dims)
    sigma = {
        "number": 2.5,
        "per axis": torch.tensor([1.5, 2.5, 4.0])[:dims],
        "per landmark": torch.linspace(1.0, 4.0, 5)[:, None],
        "per landmark and axis": torch.linspace(1.0, 4.0, 5 * dims).reshape(5, dims),
    }[kind]
    full = torch.as_tensor(sigma, dtype=torch.float64).expand(5, dims).numpy()
    wanted = slow(points, SHAPES[dims], full, gamma)
    maps = gaussian_heatmaps(points, SHAPES[dims], sigma, gamma)
    assert maps.dtype == torch.float32
    assert np.abs(maps.double().numpy() - wanted).max() <= 1e-6 * max(1.0, float(wanted.max()))
    exact = gaussian_heatmaps(points.double(), SHAPES[dims], torch.as_tensor(sigma).double(), gamma)
    assert np.abs(exact.numpy() - wanted).max() <= 1e-12 * max(1.0, float(wanted.max()))


@pytest.mark.parametrize(("shape", "sigma"), [((61, 71), 3.0), ((61, 71), (2.0, 5.0)), ((41, 41, 41), 3.0)])
def test_the_integral_is_gamma(shape, sigma):
    centre = torch.tensor([[(size - 1) / 2 + 0.3 for size in shape]])
    assert gaussian_heatmaps(centre, shape, sigma, gamma=100.0).sum() == pytest.approx(100.0, rel=1e-4)


def test_at_an_integer_point_the_peak_is_one_or_gammas_share():
    maps = gaussian_heatmaps(torch.tensor([[4.0, 7.0]]), (9, 11), 2.0)
    assert maps[0, 4, 7] == 1
    maps = gaussian_heatmaps(torch.tensor([[4.0, 7.0]]), (9, 11), 2.0, gamma=10.0)
    assert maps[0, 4, 7] == pytest.approx(10 / (2 * math.pi * 4))


@pytest.mark.parametrize("truncated", [None, 3.0])
def test_a_missing_landmark_is_an_all_zero_map_and_has_no_gradient(truncated):
    points = torch.tensor([[3.2, 4.1], [float("nan")] * 2], requires_grad=True)
    sigma = torch.tensor([[2.0], [2.0]], requires_grad=True)
    maps = gaussian_heatmaps(points, (9, 11), sigma, gamma=10.0, truncated=truncated)
    assert (maps[1] == 0).all()
    maps.square().sum().backward()
    assert points.grad is not None
    assert sigma.grad is not None
    assert (points.grad[1] == 0).all()
    assert sigma.grad[1] == 0
    assert torch.isfinite(points.grad).all()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("truncated", [None, 2.0])
def test_gradients_of_points_and_sigma(dims, truncated):
    points = points_in(dims, 2, torch.float64).requires_grad_()
    sigma = torch.linspace(1.1, 2.2, 2 * dims, dtype=torch.float64).reshape(2, dims).requires_grad_()
    shape = tuple(size // 2 for size in SHAPES[dims])
    assert torch.autograd.gradcheck(
        lambda p, s: gaussian_heatmaps(p / 2, shape, s, gamma=10.0, truncated=truncated), (points, sigma)
    )


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("truncated", [1.0, 2.5, 4.0])
def test_the_windowed_form_equals_the_dense_one_inside_and_is_zero_outside(dims, truncated):
    sigma = 1.5
    points = points_in(dims, 8) * 1.2 - 1.0
    dense = gaussian_heatmaps(points, SHAPES[dims], sigma)
    window = gaussian_heatmaps(points, SHAPES[dims], sigma, truncated=truncated)
    grid = torch.stack(torch.meshgrid(*[torch.arange(float(s)) for s in SHAPES[dims]], indexing="ij"), dim=-1)
    distance = (grid - points.reshape(8, *(1,) * dims, dims)).abs().amax(dim=-1)
    within = distance <= truncated * sigma
    torch.testing.assert_close(window[within], dense[within], atol=0, rtol=0)
    written = window != 0
    assert (window[written] == dense[written]).all()
    assert (window - dense).abs().max() <= math.exp(-0.5 * truncated**2)


def test_points_outside_the_image_leave_the_tail_that_is_inside():
    maps = gaussian_heatmaps(torch.tensor([[-2.0, 5.0], [100.0, 100.0]]), (9, 11), 2.0)
    assert maps[0].argmax() == 5
    assert maps[0, 0, 5] == pytest.approx(math.exp(-0.5))
    assert (maps[1] < 1e-6).all()
    assert torch.isfinite(gaussian_heatmaps(torch.tensor([[1e6, -1e6]]), (9, 11), 2.0, truncated=3.0)).all()


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_any_leading_axes(lead):
    points = points_in(2).expand(*lead, 5, 2)
    for truncated in (None, 3.0):
        maps = gaussian_heatmaps(points, SHAPES[2], 2.0, truncated=truncated)
        assert maps.shape == (*lead, 5, *SHAPES[2])
        assert torch.equal(maps.reshape(-1, 5, *SHAPES[2])[0], maps.reshape(-1, 5, *SHAPES[2])[-1])


@pytest.mark.parametrize(
    ("points", "shape", "sigma", "message"),
    [
        (torch.zeros(2, 2), (5, 5), 0.0, "positive"),
        (torch.zeros(2, 2), (5, 5), -1.0, "positive"),
        (torch.zeros(5, 2), (5, 5), torch.ones(5), r"sigma\[:, None\]"),
        (torch.zeros(2, 2), (5, 5), torch.ones(3, 1), "does not fit"),
        (torch.zeros(2, 2), (5, 5, 5), 1.0, "3"),
        (torch.zeros(2), (5, 5), 1.0, "landmark axis"),
        (torch.tensor([[1.0, float("nan")]]), (5, 5), 1.0, "some but not all"),
    ],
)
def test_wrong_input_is_explained(points, shape, sigma, message):
    with pytest.raises(LandmarkError, match=message):
        gaussian_heatmaps(points, shape, sigma)
    with pytest.raises(LandmarkError, match="truncated"):
        gaussian_heatmaps(torch.zeros(2, 2), (5, 5), 1.0, truncated=0.0)


def test_the_module_learns_the_width_it_is_shown():
    points = torch.tensor([[[8.3, 9.1], [5.2, 12.4]]])
    wanted = gaussian_heatmaps(points, (17, 21), torch.tensor([[2.0], [3.0]]))
    encode = GaussianHeatmaps(2, 2, sigma=4.0, learnable=True)
    optimiser = torch.optim.Adam(encode.parameters(), lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        (encode(points, (17, 21)) - wanted).square().sum().backward()
        optimiser.step()
    torch.testing.assert_close(encode.sigma[:, 0], torch.tensor([2.0, 3.0]), atol=0.01, rtol=0)


def test_the_modules_parameters_and_limits():
    assert not any(p.requires_grad for p in GaussianHeatmaps(3, 2).parameters())
    assert GaussianHeatmaps(3, 3, sigma=(1.0, 2.0, 3.0), per_axis=True).sigma.shape == (3, 3)
    assert GaussianHeatmaps(3, 3).sigma.shape == (3, 1)
    encode = GaussianHeatmaps(1, 2, sigma=1.0, learnable=True, min_sigma=0.5)
    with torch.no_grad():
        encode.raw_sigma.fill_(-3.0)
    assert encode.sigma.item() == 0.5
    assert torch.isfinite(encode(torch.zeros(1, 1, 2), (5, 5))).all()
    with pytest.raises(LandmarkError, match="per_axis"):
        GaussianHeatmaps(3, 2, sigma=(1.0, 2.0))
    with pytest.raises(LandmarkError, match="min_sigma"):
        GaussianHeatmaps(3, 2, sigma=0.1)


def test_the_module_is_the_function():
    points = points_in(2)[None]
    encode = GaussianHeatmaps(5, 2, sigma=2.0, gamma=50.0)
    assert torch.equal(encode(points, SHAPES[2]), gaussian_heatmaps(points, SHAPES[2], 2.0, gamma=50.0))
    restored = GaussianHeatmaps(5, 2, sigma=3.0, gamma=50.0)
    restored.load_state_dict(encode.state_dict())
    assert torch.equal(restored.sigma, encode.sigma)
