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
"""fit_gaussians against scipy's optimiser and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from monai_landmarks.heatmaps import decode_heatmaps, fit_gaussians, gaussian_heatmaps


def slow_fit(values: np.ndarray, grid: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Centre, amplitude, covariance by scipy, over a Cholesky factor of the precision matrix."""
    dims = grid.shape[-1]
    lower = np.tril_indices(dims)

    def unpack(theta):
        factor = np.zeros((dims, dims))
        factor[lower] = theta[1 + dims :]
        return theta[0], theta[1 : 1 + dims], factor

    def residual(theta):
        amplitude, centre, factor = unpack(theta)
        return amplitude * np.exp(-0.5 * (((grid - centre) @ factor) ** 2).sum(axis=-1)) - values

    theta = least_squares(residual, np.concatenate(([1.0], start, 0.5 * np.eye(dims)[lower])), xtol=1e-12, ftol=1e-12).x
    amplitude, centre, factor = unpack(theta)
    return centre, amplitude, np.linalg.inv(factor @ factor.T)


@pytest.mark.parametrize("dims", [2, 3])
def test_noisy_maps_are_fitted_as_by_a_general_optimiser(dims):
    shape, window = ((30, 30), 9) if dims == 2 else ((18, 18, 18), 7)
    generator = torch.Generator().manual_seed(2)
    points = 6 + 4 * torch.rand(4, dims, generator=generator)
    maps = 3 * gaussian_heatmaps(points, shape, sigma=(1.8, 2.5, 2.1)[:dims])
    maps = (maps + 0.1 * torch.randn(maps.shape, generator=generator)).double()
    fit = fit_gaussians(maps, window, iterations=8, spatial_dims=dims)
    for channel in range(4):
        peak = np.array(np.unravel_index(int(maps[channel].argmax()), shape))
        box = tuple(slice(p - window // 2, p + window // 2 + 1) for p in peak)
        axes = [np.arange(s.start, s.stop) for s in box]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dims)
        centre, amplitude, covariance = slow_fit(maps[channel].numpy()[box].ravel(), grid, peak)
        np.testing.assert_allclose(fit.points[channel], centre, atol=1e-4)
        np.testing.assert_allclose(fit.amplitude[channel], amplitude, atol=1e-4)
        np.testing.assert_allclose(fit.covariance[channel], covariance, atol=2e-3)


def test_two_iterations_are_enough_at_five_percent_noise():
    generator = torch.Generator().manual_seed(3)
    maps = gaussian_heatmaps(12 + 8 * torch.rand(50, 2, generator=generator), (32, 32), sigma=2.5)
    maps = maps + 0.05 * torch.randn(maps.shape, generator=generator)
    assert (fit_gaussians(maps).points - fit_gaussians(maps, iterations=20).points).abs().max() < 0.01


def test_at_the_border_the_window_is_moved_and_the_width_stays_exact():
    fit = fit_gaussians(gaussian_heatmaps(torch.tensor([[0.2, 11.7], [-0.4, 5.0]]), (12, 12), sigma=(2.0, 3.0)))
    torch.testing.assert_close(fit.points, torch.tensor([[0.2, 11.7], [-0.4, 5.0]]), atol=1e-3, rtol=0)
    torch.testing.assert_close(fit.amplitude, torch.ones(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        fit.covariance, torch.tensor([[4.0, 0.0], [0.0, 9.0]]).expand(2, 2, 2), atol=0.01, rtol=0
    )
    assert fit.extrapolated.all()


def test_where_no_gaussian_fits_the_voxel_is_returned_and_flagged():
    plateau = torch.zeros(1, 16, 16)
    plateau[0, :12, :12] = 0.8
    fit = fit_gaussians(plateau, window=5)
    assert fit.extrapolated.all()
    assert torch.isnan(fit.covariance).all()
    assert (fit.points == 0).all()
    assert (fit.amplitude == 0.8).all()


@pytest.mark.parametrize(("radius", "flag"), [(2.0, False), (3.0, False), (8.0, True)])
@pytest.mark.parametrize("method", ["gaussian_fit", "center_of_mass", "local_soft_argmax"])
def test_a_saturated_plateau_is_decoded_inside_the_window_and_flagged_if_it_reaches_out(method, radius, flag):
    grid = torch.stack(torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij"), dim=-1)
    truth = torch.tensor([19.3, 20.6])
    maps = (1 + (radius - (grid - truth).norm(dim=-1)) / 4).clamp(0, 1)[None]
    found = decode_heatmaps(maps, method, window=13, return_flags=True)
    assert found.extrapolated.item() is flag
    if not flag:
        assert (found.points - truth).abs().max() < 0.15


def test_a_window_per_axis_and_an_axis_without_width():
    maps = gaussian_heatmaps(torch.tensor([[1.0, 8.3]]), (2, 16), sigma=2.0)
    fit = fit_gaussians(maps, window=(3, 7))
    assert fit.points[0, 1] == pytest.approx(8.3, abs=1e-3)
    assert fit.points[0, 0] == 1
    assert torch.isnan(fit.covariance[0, 0]).all()
    assert fit.covariance[0, 1, 1] == pytest.approx(4.0, abs=0.01)


def test_shapes_with_batch():
    maps = gaussian_heatmaps(torch.rand(2, 3, 3) * 8, (9, 9, 9), sigma=2.0)
    fit = fit_gaussians(maps)
    assert fit.points.shape == (2, 3, 3)
    assert fit.covariance.shape == (2, 3, 3, 3)
    assert fit.amplitude.shape == fit.extrapolated.shape == (2, 3)
