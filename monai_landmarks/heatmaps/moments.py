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
"""Windowed moments (centre of mass, soft-argmax) whose bias is taken out by a model of the peak."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from .gaussian_fit import (
    LocalGaussian,
    fit_window,
    is_plateau,
    limit_to_window,
    middle_offset,
    prepare_fit,
    window_sizes,
)
from .peaks import FlaggedDecoded, cut_window, find_peaks, finish

__all__ = ["REACH"]

#: Radius of the window in standard deviations of the fitted peak; a box smaller than that limits it further.
REACH = 3.0

#: Added to the spread of the weights, in voxels squared: a window in which a single voxel counts has none.
MIN_SPREAD = 1e-6


def decode_moment(
    heatmaps: torch.Tensor,
    weigh: Callable[[torch.Tensor], torch.Tensor],
    slope: Callable[[torch.Tensor], torch.Tensor],
    window: int | Sequence[int],
    spatial_dims: int | None,
) -> FlaggedDecoded:
    r"""Find the centre for which the windowed mean of a model Gaussian equals the windowed mean of the map.

    The mean of a peak over a window,

    .. math:: s(h) = \frac{\sum_x x\, W(x)\, w(h(x))}{\sum_x W(x)\, w(h(x))},

    is drawn towards the middle of the window, and at the image border towards the inside. So the mean itself is not
    the answer; the answer is the :math:`\mu` with :math:`s(h) = s(g_\mu)`, where :math:`g_\mu` is a Gaussian at
    :math:`\mu` of the map's own local width, seen through the same window, on the same voxels, cut by the same
    border. It is reached by one Newton step from a Gaussian fit. For a Gaussian map that is exact for every
    :math:`w`; any other symmetric peak is decoded without bias (up to the voxel grid) where the window does not touch
    the border.

    The window is an ellipse of :data:`REACH` standard deviations of that Gaussian around :math:`\mu`, so it follows
    sigma, inside a box of ``window`` voxels; it fades out to its rim, so that no voxel enters or leaves at once.

    Args:
        heatmaps: ``(B, N, *S)`` or ``(N, *S)``.
        weigh: ``w``, from values relative to the peak to weights that are not negative.
        slope: derivative of ``log w`` by the logarithm of the value.
        window: odd width in voxels of the box, for all axes or each.
        spatial_dims: see :func:`~monai_landmarks.heatmaps.decode_heatmaps`.

    Returns:
        points, the peak's value as confidence, and the flag. The gradient is that of the windowed mean of the map,
        times the factor by which the window shortens it.
    """
    peaks = find_peaks(heatmaps, spatial_dims)
    patch = cut_window(peaks, window_sizes(window, len(peaks.spatial_shape)))
    values, design = prepare_fit(patch)
    dims = len(design.sizes)
    middle = middle_offset(patch).to(values)
    half = torch.tensor(design.sizes, device=values.device).to(values) / 2
    fit = _usable(fit_window(values.detach(), -middle, design, iterations=1), -middle, half)
    centre, _ = limit_to_window(fit.centre, design.sizes)
    model = (fit.log_amplitude.unsqueeze(-1) - 0.5 * design.distance(centre, fit.precision)).exp()
    fade = (1 - design.distance(centre, fit.precision / REACH**2 + torch.diag(half**-2))).clamp(min=0)
    of_map, of_model = weigh(values) * fade, weigh(model) * fade
    sums = torch.stack((of_map, of_model, of_model * slope(model))) @ design.terms[:, : design.normal.shape[0]]
    total = sums[..., :1].clamp(min=torch.finfo(values.dtype).tiny)
    mean = sums[..., 1 : 1 + dims] / total
    # The derivative of the model's mean by its centre is (spread x precision), spread in the weights that carry the
    # slope.
    spread = sums[2][..., design.square] / total[2].unsqueeze(-1) - mean[2].unsqueeze(-1) * mean[2].unsqueeze(-2)
    spread = spread * (total[2] / total[1]).unsqueeze(-1)
    spread = spread + MIN_SPREAD * torch.eye(dims, dtype=values.dtype, device=values.device)
    pull = torch.linalg.inv_ex(spread)[0] @ (mean[0] - mean[1]).unsqueeze(-1)
    step = (fit.covariance @ pull).squeeze(-1).clamp(-1, 1)
    step = step if design.short is None else step.masked_fill(design.short, 0)
    centre, near = limit_to_window(centre + step, design.sizes)
    refused = ~(fit.definite & near) | is_plateau(values, design.sizes)
    return finish(peaks, (centre + middle).to(peaks.value), refused)


def _usable(fit: LocalGaussian, peak: torch.Tensor, half: torch.Tensor) -> LocalGaussian:
    """Where no Gaussian fits, put a round one at the peak that is as wide as the box: the mean then is a plain one."""
    good = fit.definite[..., None, None]
    sigma = half / REACH
    return LocalGaussian(
        torch.where(fit.definite.unsqueeze(-1), fit.centre, peak),
        torch.where(good, fit.precision, torch.diag(sigma**-2)),
        torch.where(good, fit.covariance, torch.diag(sigma**2)),
        fit.log_amplitude.clamp(max=1),
        fit.definite,
    )
