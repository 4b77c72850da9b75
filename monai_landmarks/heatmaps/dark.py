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
"""Taylor expansion of the log heatmap (DARK)."""

from __future__ import annotations

import math

import torch

from ..geometry import LandmarkError
from .peaks import FlaggedDecoded, Peaks, cut_window, find_peaks, finish
from .refinement import LOG_FLOOR, MAX_STEP, MIN_CURVATURE, inward_shift, limit_step, small_inverse

__all__ = ["decode_dark"]


def decode_dark(heatmaps: torch.Tensor, *, smoothing: float = 0.0, spatial_dims: int | None = None) -> FlaggedDecoded:
    r"""Refine the highest voxel by one Newton step on the logarithm of the map, as DARK does (Zhang et al. 2020, 3.1).

    .. math:: \mu = c - (\nabla\nabla^T \log h(c))^{-1} \, \nabla \log h(c)

    The logarithm of a Gaussian is a quadratic, so the step is exact for a Gaussian of any shape and orientation (the
    mixed derivatives are taken into account), from any voxel :math:`c`. What differs from the paper and its public
    code, which leaves a peak near the border unrefined: for a peak on the border, :math:`c` is the next voxel
    inwards, and the step stays exact there. What holds in 2D holds in 3D.

    Where the Hessian is not negative definite, each axis is refined by itself ("quadratic"); an axis without curvature
    keeps the voxel's index. The highest voxel of a saturated plateau is the first one of its rim, and the step leads
    from there. No step is longer than one voxel, so a truth further outside the image cannot be found. All of these are
    flagged.

    Args:
        heatmaps: ``(B, N, *S)`` or ``(N, *S)``.
        smoothing: sigma in voxels of a Gaussian that smooths the map before the logarithm (the paper's modulation:
            set the sigma of training); 0 does not. It steadies the step on noisy maps. It is narrowed towards the
            border, to keep its kernel symmetric and inside the image, which keeps the step free of bias; at the
            border voxel nothing is left of it along that axis. The longest step grows by ``smoothing``.
        spatial_dims: give 3 for ``(N, X, Y, Z)``; four axes are read as ``(B, N, H, W)`` otherwise.

    Returns:
        points ``(..., N, D)``, confidence ``(..., N)`` = the peak's value, and the flag: on the border, refused or
        empty.

    Raises:
        LandmarkError: for a shape that is neither, or a negative ``smoothing``.

    Example:
        >>> import torch
        >>> from monai_landmarks.heatmaps import gaussian_heatmaps
        >>> maps = gaussian_heatmaps(torch.tensor([[7.3, 0.2, 4.5]]), (16, 16, 12), sigma=2.0)
        >>> decode_dark(maps, spatial_dims=3).points
        tensor([[7.3000, 0.2000, 4.5000]])
    """
    smoothing_radius(smoothing)
    peaks = find_peaks(heatmaps, spatial_dims)
    shift, usable = inward_shift(peaks)
    patch = _smooth_patch(peaks, shift, smoothing) if smoothing else _patch(peaks, shift)
    step, fine, whole = newton_step(patch.clamp(min=LOG_FLOOR).log(), peaks.voxel.shape[-1], usable)
    step, fine = limit_step(step + shift, fine, MAX_STEP + smoothing)
    return finish(peaks, step, peaks.flat | ~(fine.all(dim=-1) & whole))


def smoothing_radius(sigma: float) -> int:
    """Where the smoothing's kernel is cut off, in voxels; 0 without smoothing."""
    if not 0 <= sigma < math.inf:
        raise LandmarkError(f"`smoothing` must be a sigma in voxels, 0 for none, got {sigma}.")
    return max(1, math.ceil(3 * sigma)) if sigma else 0


def _patch(peaks: Peaks, shift: torch.Tensor) -> torch.Tensor:
    dims = shift.shape[-1]
    return cut_window(peaks, (3,) * dims, peaks.voxel + shift).values


def _smooth_patch(peaks: Peaks, shift: torch.Tensor, sigma: float) -> torch.Tensor:
    """The ``(B, N, 3, ...)`` voxels around the (shifted) peak of the smoothed map, made from a window of the map."""
    centre = peaks.voxel + shift
    radius = smoothing_radius(sigma)
    patch = cut_window(peaks, (2 * radius + 3,) * centre.shape[-1], centre).values
    device = patch.device
    stencil = torch.arange(-1, 2, device=device)
    distance = torch.arange(-radius - 1, radius + 2, device=device) - stencil.unsqueeze(-1)
    kernel = torch.exp(-0.5 * (distance.to(patch.dtype) / sigma).square())
    for axis, length in enumerate(peaks.spatial_shape):
        # One radius for all three outputs: were each cut by the border on its own, their widths would differ and the
        # parabola through them would have its top elsewhere.
        room = torch.minimum(centre[..., axis], length - 1 - centre[..., axis]) - 1
        weight = kernel * (distance.abs() <= room.clamp(0, radius)[..., None, None])
        weight = weight / weight.sum(dim=-1, keepdim=True)
        moved = patch.movedim(2 + axis, -1).unsqueeze(-2)
        weight = weight.reshape(*weight.shape[:2], *(1,) * (moved.ndim - 4), *weight.shape[2:])
        patch = (moved * weight).sum(dim=-1).movedim(-1, 2 + axis)
    return patch


def newton_step(
    log_patch: torch.Tensor, dims: int, usable: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One Newton step from the middle of ``(B, N, 3, ...)`` values to the top of the quadratic through them.

    Returns:
        step ``(B, N, D)``; bool ``(B, N, D)`` of the axes with curvature; bool ``(B, N)``, False where the axes had
        to be taken one by one.
    """
    flat = log_patch.flatten(2).unsqueeze(-2)
    # A sum of products, not a matrix product: autocast and TF32 would round that to a few digits, and second
    # differences near a wide peak are small differences of near-equal numbers.
    taylor = (flat * _derivative_stencils(dims, flat)).sum(dim=-1)
    gradient = taylor[..., :dims]
    order = [dims + (i * dims + j if i <= j else j * dims + i) for i in range(dims) for j in range(dims)]
    curvature = -taylor[..., order].unflatten(-1, (dims, dims))
    diagonal = curvature.diagonal(dim1=-2, dim2=-1)
    fine = diagonal > MIN_CURVATURE
    if usable is not None:
        fine = fine & usable
    single = gradient / diagonal.masked_fill(~fine, 1)
    if usable is not None:
        keep = usable & usable.unsqueeze(-1)
        curvature = torch.where(keep, curvature, torch.eye(dims, dtype=flat.dtype, device=flat.device))
        gradient = gradient * usable
    inverse, definite = small_inverse(curvature)
    joint = (inverse * gradient.unsqueeze(-2)).sum(dim=-1)
    accepted = fine if usable is None else fine | ~usable
    whole = definite & accepted.all(dim=-1)
    return torch.where(whole.unsqueeze(-1), joint, single.masked_fill(~fine, 0)), fine, whole


def _derivative_stencils(dims: int, like: torch.Tensor) -> torch.Tensor:
    """Central differences on the flat 3^D patch: D first derivatives, then D x D second ones; ``(D + D*D, 3^D)``."""
    middle, first, second = [0.0, 1.0, 0.0], [-0.5, 0.0, 0.5], [1.0, -2.0, 1.0]
    orders = [[int(i == axis) for axis in range(dims)] for i in range(dims)]
    orders += [[int(i == axis) + int(j == axis) for axis in range(dims)] for i in range(dims) for j in range(dims)]
    rows = []
    for order in orders:
        row = [1.0]
        for degree in order:
            row = [a * b for a in row for b in (middle, first, second)[degree]]
        rows.append(row)
    return torch.tensor(rows, dtype=like.dtype, device=like.device)
