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
"""Encode with the formula, decode with every method, look at the bias; and what noise does to it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from monai_landmarks.heatmaps import decode_heatmaps, fit_gaussians, gaussian_heatmaps

SHAPES = {2: (24, 31), 3: (17, 21, 14)}
EXACT = {
    "quadratic": {},
    "dark": {},
    "dark, smoothing 1": {"smoothing": 1.0},
    "dark, smoothing 2": {"smoothing": 2.0},
    "local_soft_argmax": {},
    "local_soft_argmax, temperature 0.05": {"temperature": 0.05},
    "local_soft_argmax, temperature 1": {"temperature": 1.0},
    "center_of_mass": {},
    "center_of_mass, window 5": {"window": 5},
    "gaussian_fit": {},
    "gaussian_fit, logarithm only": {"iterations": 0},
    "gaussian_fit, window 21": {"window": 21},
}


def formula(points: np.ndarray, shape: Sequence[int], sigma: float | Sequence[float]) -> torch.Tensor:
    """The Gaussian written out on the full grid, landmark by landmark, in float64."""
    grid = np.stack(np.meshgrid(*[np.arange(size) for size in shape], indexing="ij"), axis=-1)
    maps = [np.exp(-0.5 * (((grid - point) / np.asarray(sigma)) ** 2).sum(axis=-1)) for point in points]
    return torch.from_numpy(np.stack(maps)).float()


def rotated(points: np.ndarray, shape: Sequence[int], covariance: np.ndarray) -> torch.Tensor:
    grid = np.stack(np.meshgrid(*[np.arange(size) for size in shape], indexing="ij"), axis=-1)
    precision = np.linalg.inv(covariance)
    maps = [np.exp(-0.5 * np.einsum("...i,ij,...j", grid - p, precision, grid - p)) for p in points]
    return torch.from_numpy(np.stack(maps)).float()


def positions(shape: Sequence[int], kind: str, count: int = 24) -> np.ndarray:
    """Sub-voxel positions in the middle of the image, on its border, beyond the centre of its border voxels."""
    random = np.random.default_rng(5)
    size = np.asarray(shape) - 1.0
    if kind == "anywhere":
        return random.uniform(0, size, (count, len(shape)))
    if kind == "halves":
        return random.integers(0, 2 * size.astype(int) + 1, (count, len(shape))) / 2
    if kind == "border":
        inner = random.uniform(0, size, (count, len(shape)))
        edge = np.where(
            random.random(inner.shape) < 0.5, random.uniform(0, 1, inner.shape), size - random.random(inner.shape)
        )
        return np.where(random.random(inner.shape) < 0.6, edge, inner)
    corners = np.where(random.random((count, len(shape))) < 0.5, 0, size)
    return corners + random.uniform(-0.45, 0.45, corners.shape)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", ["anywhere", "halves", "border", "outer half of the border voxels"])
@pytest.mark.parametrize("name", EXACT)
def test_round_trip_has_no_bias(name, kind, dims):
    shape = SHAPES[dims]
    truth = positions(shape, kind)
    for sigma in (1.5, 3.0, 5.0):
        maps = formula(truth, shape, sigma)
        found = decode_heatmaps(maps, name.split(",")[0], spatial_dims=dims, **EXACT[name]).points
        bias = np.abs(found.double().numpy() - truth).max()
        print(f"{name:40s} {dims}D sigma {sigma} {kind:32s} largest error {bias:.2e} voxel")
        assert bias <= 0.01


@pytest.mark.parametrize(
    "sigma", [2.0, (2.0, 3.0), torch.tensor([[1.5], [4.0]])], ids=["all", "per axis", "per landmark"]
)
@pytest.mark.parametrize("gamma", [None, 100.0])
@pytest.mark.parametrize("truncated", [None, 4.0])
@pytest.mark.parametrize("name", EXACT)
def test_round_trip_of_the_packages_own_encoder(name, truncated, gamma, sigma):
    points = torch.tensor([[10.3, 12.7], [8.5, 20.25]])
    maps = gaussian_heatmaps(points, (24, 31), sigma, gamma=gamma, truncated=truncated)
    found = decode_heatmaps(maps, name.split(",")[0], **EXACT[name]).points
    bias = float((found - points).abs().max())
    print(f"{name:40s} own encoder, gamma {gamma}, truncated {truncated}: largest error {bias:.2e} voxel")
    assert bias <= 0.01


def test_argmax_is_at_most_half_a_voxel_off():
    truth = positions((24, 31), "anywhere", 500)
    found = decode_heatmaps(formula(truth, (24, 31), 2.0), "argmax").points.numpy()
    assert np.abs(found - truth).max() <= 0.5
    assert np.linalg.norm(found - truth, axis=1).mean() == pytest.approx(0.3826, abs=0.03)


@pytest.mark.parametrize(("sigma", "limit"), [(1.5, 0.022), (3.0, 0.0054), (5.0, 0.0020)])
def test_parabola_through_plain_values_has_the_bias_its_docstring_states(sigma, limit):
    truth = np.stack((10 + np.linspace(-0.49, 0.49, 99), np.full(99, 12.0)), axis=-1)
    maps = formula(truth, (21, 25), sigma)
    plain = np.abs(decode_heatmaps(maps, "quadratic", log=False).points.numpy() - truth).max()
    assert 0.9 * limit < plain <= limit
    on_border = formula(np.array([[0.4, 12.0]]), (21, 25), sigma)
    found = decode_heatmaps(on_border, "quadratic", log=False, return_flags=True)
    assert found.points[0, 0] == 0
    assert found.extrapolated.item()


@pytest.mark.parametrize("name", ["dark", "gaussian_fit", "center_of_mass", "local_soft_argmax"])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_gaussian_that_is_rotated_against_the_axes_is_decoded_exactly(name, dims):
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(dims, dims)))[0]
    covariance = turn @ np.diag(np.array([2.0, 4.0, 3.0])[:dims] ** 2) @ turn.T
    truth = positions(SHAPES[dims], "anywhere")
    maps = rotated(truth, SHAPES[dims], covariance)
    assert np.abs(decode_heatmaps(maps, name, spatial_dims=dims).points.numpy() - truth).max() <= 0.01
    if name == "gaussian_fit":
        fit = fit_gaussians(maps, spatial_dims=dims)
        assert np.abs(fit.covariance.numpy() - covariance).max() < 0.01
        assert np.abs(fit.amplitude.numpy() - 1).max() < 1e-3


@pytest.mark.parametrize("name", ["center_of_mass", "local_soft_argmax", "gaussian_fit"])
def test_a_symmetric_peak_that_is_no_gaussian_is_decoded_nearly_without_bias(name):
    """A cone of radius 8: its curvature is all at the tip, where methods that look at the top only are 0.05 off."""
    truth = 12 + positions((8, 8), "anywhere", 100)
    grid = np.stack(np.meshgrid(np.arange(32), np.arange(32), indexing="ij"), axis=-1)
    maps = np.stack([np.maximum(0, 1 - np.linalg.norm(grid - point, axis=-1) / 8) for point in truth])
    found = decode_heatmaps(torch.from_numpy(maps).float(), name).points.numpy()
    assert np.sqrt(((found - truth) ** 2).mean()) <= 0.01


@pytest.mark.parametrize("name", ["gaussian_fit", "center_of_mass"])
def test_noise_costs_little_more_than_it_must(name):
    """The Cramer-Rao bound of a Gaussian's centre in white noise is noise * sqrt(2 / pi) per axis in 2D."""
    noise, sigma = 0.03, 2.5
    generator = torch.Generator().manual_seed(0)
    truth = 12 + positions((16, 16), "anywhere", 400)
    maps = formula(truth, (40, 40), sigma) + noise * torch.randn(400, 40, 40, generator=generator)
    error = decode_heatmaps(maps, name).points.numpy() - truth
    assert np.sqrt((error**2).mean()) <= 1.5 * noise * math.sqrt(2 / math.pi)
    assert np.abs(error.mean(axis=0)).max() < 0.01


def test_smoothing_steadies_dark_on_noisy_maps():
    generator = torch.Generator().manual_seed(0)
    truth = 12 + positions((16, 16), "anywhere", 200)
    maps = formula(truth, (40, 40), 2.5) + 0.03 * torch.randn(200, 40, 40, generator=generator)
    plain, smooth = (decode_heatmaps(maps, "dark", smoothing=s).points.numpy() - truth for s in (0.0, 2.5))
    assert np.sqrt((smooth**2).mean()) < 0.3 * np.sqrt((plain**2).mean())


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("kind", ["anywhere", "border"])
def test_noise_never_gives_points_far_from_the_highest_voxel_nor_nan(name, kind):
    generator = torch.Generator().manual_seed(0)
    truth = positions((24, 31), kind, 100)
    maps = formula(truth, (24, 31), 2.0) + 0.2 * torch.randn(100, 24, 31, generator=generator)
    found = decode_heatmaps(maps, name.split(",")[0], **EXACT[name])
    highest = decode_heatmaps(maps, "argmax").points
    reach = EXACT[name].get("window", 9) // 2 if "dark" not in name and "quad" not in name else 3
    assert torch.isfinite(found.points).all()
    assert torch.isfinite(found.confidence).all()
    assert (found.points >= -1).all()
    assert (found.points <= torch.tensor([24.0, 31.0])).all()
    assert (found.points - highest).abs().max() <= 2 * reach + 1


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 0.01), (torch.bfloat16, 0.08), (torch.float64, 1e-6)])
@pytest.mark.parametrize("name", ["quadratic", "dark", "local_soft_argmax", "center_of_mass", "gaussian_fit"])
def test_maps_of_other_precision_are_refined_in_float32_or_better(name, dtype, limit):
    """The limit is what the rounding of the map itself costs, not the arithmetic."""
    truth = positions((24, 31), "anywhere")
    points = torch.from_numpy(truth)
    maps = gaussian_heatmaps(points, (24, 31), 2.0).to(dtype)
    found = decode_heatmaps(maps, name)
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert found.points.dtype == found.confidence.dtype == wanted
    inside = ((points > 2) & (points < torch.tensor([21, 28]))).all(dim=-1)
    assert (found.points.double() - points)[inside].abs().max() <= limit


@pytest.mark.parametrize("name", ["quadratic", "dark", "local_soft_argmax", "center_of_mass", "gaussian_fit"])
def test_autocast_and_reduced_matmul_precision_do_not_reach_the_refinement(name):
    maps = formula(positions((24, 31), "border"), (24, 31), 5.0)
    wanted = decode_heatmaps(maps, name).points
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(decode_heatmaps(maps, name).points, wanted)
    finally:
        torch.set_float32_matmul_precision(before)
