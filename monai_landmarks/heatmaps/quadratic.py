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
"""Parabolas through three voxels on each axis."""

from __future__ import annotations

import torch

from .peaks import FlaggedDecoded, Peaks, find_peaks, finish, look_up
from .refinement import LOG_FLOOR, MIN_CURVATURE, inward_shift, limit_step

__all__ = ["decode_quadratic"]


def decode_quadratic(heatmaps: torch.Tensor, *, log: bool = True, spatial_dims: int | None = None) -> FlaggedDecoded:
    r"""Refine the highest voxel by a parabola along each axis, through three voxels.

    .. math:: \delta = \frac{f_{-1} - f_{+1}}{2 (f_{-1} - 2 f_0 + f_{+1})}

    With ``log=True``, :math:`f` is the logarithm of the map: exact for a Gaussian whose axes are the image's. At the
    border the three voxels are shifted inwards, so that it stays exact there. A Gaussian that is rotated against the
    image has its largest value along each line elsewhere than at its centre: use "dark" for those.

    With ``log=False``, :math:`f` is the map itself and a peak on the border is not refined along that axis: what the
    public code of Payer et al. 2019 (SCN) does, but for its inf and NaN on a flat top. A Gaussian is no parabola: the
    result is drawn towards the voxel centre, by up to 0.022 voxel at sigma 1.5, 0.0054 at sigma 3 and 0.0020 at sigma
    5, and by up to half a voxel at the border.

    No step is longer than one voxel. An axis without curvature keeps the voxel's index. The highest voxel of a
    saturated plateau is the first one of its rim, and the step leads from there: this is flagged.

    Args:
        heatmaps: ``(B, N, *S)`` or ``(N, *S)``.
        log: refine the logarithm, or the values themselves.
        spatial_dims: give 3 for ``(N, X, Y, Z)``; four axes are read as ``(B, N, H, W)`` otherwise.

    Returns:
        points ``(..., N, D)``, confidence ``(..., N)`` = the peak's value, and the flag: on the border, refused or
        empty.

    Raises:
        LandmarkError: for a shape that is neither.

    Example:
        >>> import torch
        >>> from monai_landmarks.heatmaps import gaussian_heatmaps
        >>> maps = gaussian_heatmaps(torch.tensor([[7.3, 0.2]]), (16, 16), sigma=2.0)
        >>> decode_quadratic(maps).points
        tensor([[7.3000, 0.2000]])
    """
    peaks = find_peaks(heatmaps, spatial_dims)
    shift, usable = inward_shift(peaks)
    line = _axis_lines(peaks, shift)
    before, middle, after = (line.clamp(min=LOG_FLOOR).log() if log else line).unbind(dim=-1)
    curvature = 2 * middle - before - after
    fine = curvature > MIN_CURVATURE
    fine = fine if usable is None else fine & usable
    fine = fine if log else fine & (shift == 0)
    step = 0.5 * (after - before) / curvature.masked_fill(~fine, 1)
    step, fine = limit_step(step + shift if log else step, fine)
    return finish(peaks, step, peaks.flat | ~fine.all(dim=-1))


def _axis_lines(peaks: Peaks, shift: torch.Tensor) -> torch.Tensor:
    """Three values along each axis through the peak, ``(B, N, D, 3)``, where the axis' own shift moves the middle."""
    dims = shift.shape[-1]
    device = shift.device
    along = torch.arange(-1, 2, device=device) + shift.unsqueeze(-1)
    axes = torch.eye(dims, dtype=torch.long, device=device)
    index = peaks.voxel[..., None, None, :] + along.unsqueeze(-1) * axes[:, None, :]
    if min(peaks.spatial_shape) < 3:
        last = torch.tensor(peaks.spatial_shape, device=device) - 1
        index = torch.minimum(index.clamp(min=0), last)
    return look_up(peaks, index.unbind(dim=-1))
