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
"""Small tools of the sub-voxel decoders: stencils at the border, limits of a step, inverses of small matrices."""

from __future__ import annotations

import torch

from .peaks import Peaks

__all__ = ["LOG_FLOOR", "MAX_STEP", "MIN_CURVATURE"]

#: Values are clamped to this share of the peak before their logarithm is taken. An exact Gaussian of sigma >= 1 stays
#: above it in all 3x3x3 voxels that are looked at, one-sided in an image corner included.
LOG_FLOOR = 1e-6

#: Less curvature than this (of the logarithm, per voxel squared) is a flat top: it would be a sigma of 300 voxels.
MIN_CURVATURE = 1e-5

#: Three voxels cannot place a peak further than this from the highest of them, in voxels.
MAX_STEP = 1.0


def inward_shift(peaks: Peaks) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Say how far a stencil of three voxels centred on the peak must be moved to lie inside the image.

    Returns:
        int64 ``(B, N, D)`` of -1, 0 and 1; bool ``(D,)`` of the axes long enough for a stencil, None if all are.
    """
    shape = peaks.spatial_shape
    last = torch.tensor([max(size - 2, 0) for size in shape], device=peaks.voxel.device)
    shift = torch.minimum(peaks.voxel.clamp(min=1), last) - peaks.voxel
    if min(shape) >= 3:
        return shift, None
    usable = torch.tensor([size >= 3 for size in shape], device=shift.device)
    return shift * usable, usable


def limit_step(step: torch.Tensor, fine: torch.Tensor, limit: float = MAX_STEP) -> tuple[torch.Tensor, torch.Tensor]:
    """Shorten ``step`` to ``limit``, zero it where it is not ``fine``, and call what had to be shortened not fine."""
    inside = step.abs() <= limit
    return step.clamp(-limit, limit).masked_fill(~fine, 0), fine & inside


def small_inverse(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Invert symmetric 2x2 or 3x3 matrices by their adjugate and tell which are positive definite.

    Closed form, because batched factorisations of such small matrices are slower and do not export to ONNX.

    Args:
        matrix: ``(..., D, D)``, symmetric.

    Returns:
        inverse ``(..., D, D)``, the identity where the matrix is not positive definite; bool ``(...)``.
    """
    first = matrix[..., 0, 0]
    minor = first * matrix[..., 1, 1] - matrix[..., 0, 1].square()
    if matrix.shape[-1] == 2:
        sign = 2 * torch.eye(2, dtype=matrix.dtype, device=matrix.device) - 1
        adjugate = matrix.flip(-1, -2) * sign
        determinant = minor
    else:
        adjugate = torch.linalg.cross(matrix.roll(-1, dims=-2), matrix.roll(1, dims=-2), dim=-1)
        determinant = (matrix[..., 0, :] * adjugate[..., 0, :]).sum(dim=-1)
    definite = (first > 0) & (minor > 0) & (determinant > 0)
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    safe = determinant.masked_fill(~definite, 1)[..., None, None]
    return torch.where(definite[..., None, None], adjugate / safe, identity), definite
