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
"""What an augmentation does to an image, as numbers: the output grid, and the map that its parameters make.

Parameters act on positions in millimetres along the image's own axes, measured from the image's centre, so that a turn is
a turn whatever the voxels' shape. The content at ``u`` goes to

.. math:: u' = R\\, S\\, K\\, F\\, u + t

with the reflections ``F``, the shear ``K``, the scales ``S``, the rotation ``R`` and the translation ``t``; the output
grid lies with its centre in the image's centre. An elastic displacement acts on the output grid, before all of it on the
way from the output to the input (Payer et al. 2019, section 3; see :class:`monai_landmarks.geometry.SpatialMap`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...geometry import LandmarkError, SpatialMap

__all__ = ["compose_map", "number_of_rotations", "number_of_shears", "output_grid"]

FIT = "fit"


def number_of_rotations(spatial_dims: int) -> int:
    """1 in 2D, 3 in 3D."""
    return spatial_dims * (spatial_dims - 1) // 2


number_of_shears = number_of_rotations


def output_grid(
    input_shape: Sequence[int],
    voxel_sizes: torch.Tensor,
    spatial_size: Sequence[int] | int | None = None,
    pixdim: Sequence[float] | float | str | None = None,
) -> tuple[tuple[int, ...], torch.Tensor]:
    """Return the shape and the voxel sizes of the grid onto which images are brought.

    Args:
        input_shape: ``D`` sizes of the image.
        voxel_sizes: ``(B, D)`` of the images, in mm.
        spatial_size: sizes of the output; None, or -1 for one axis, takes what the image's extent needs.
        pixdim: voxel sizes of the output in mm; None keeps those of the image; "fit" takes the smallest isotropic voxel
            at which the whole image fits into ``spatial_size``, so that its aspect ratio is kept.

    Returns:
        ``D`` sizes, and ``(B, D)`` voxel sizes in mm.

    Raises:
        LandmarkError: for sizes that are not positive, another number of them than the image has axes, "fit" without
            ``spatial_size``, or images of a batch that need different grids.

    Example:
        >>> output_grid((100, 60), torch.tensor([[0.5, 0.5]]), (50, 50), "fit")
        ((50, 50), tensor([[1., 1.]]))
    """
    dims = len(tuple(input_shape))
    extent = torch.as_tensor(tuple(input_shape), dtype=voxel_sizes.dtype) * voxel_sizes
    if isinstance(pixdim, str):
        if pixdim != FIT or spatial_size is None:
            raise LandmarkError(f"`pixdim` is a size in mm or {FIT!r} together with `spatial_size`, got {pixdim!r}.")
        wanted = torch.as_tensor(_per_axis(spatial_size, dims, "spatial_size", free=True))
        # A free axis takes any extent, so it does not ask for coarser voxels.
        spacing = (extent / wanted).amax(dim=1, keepdim=True).expand_as(extent)
        if bool((wanted < 0).all()):
            raise LandmarkError(f"`pixdim` {FIT!r} needs a size for at least one axis, got {spatial_size}.")
    elif pixdim is None:
        spacing = voxel_sizes
    else:
        sizes = torch.as_tensor(_per_axis(pixdim, dims, "pixdim"), dtype=voxel_sizes.dtype)
        spacing = sizes.expand_as(extent)
    fixed = torch.as_tensor(_per_axis(-1 if spatial_size is None else spatial_size, dims, "spatial_size", free=True))
    needed = torch.where(fixed > 0, fixed.to(extent.dtype), (extent / spacing).round().clamp(min=1))
    if bool((needed != needed[:1]).any()):
        raise LandmarkError(
            f"the images of the batch have different voxel sizes and would need grids of {needed.int().tolist()}: give "
            "`spatial_size` for every axis."
        )
    return tuple(int(n) for n in needed[0]), spacing


def _per_axis(value: Any, dims: int, name: str, free: bool = False) -> tuple[float, ...]:
    values = tuple(value) if isinstance(value, (Sequence, np.ndarray, torch.Tensor)) else (value,) * dims
    if len(values) != dims:
        raise LandmarkError(f"`{name}` must be one number or one for each of the image's {dims} axes, got {value}.")
    if not all(np.isfinite(v) and (v > 0 or (free and v == -1)) for v in values):
        raise LandmarkError(f"`{name}` must be positive{', or -1 for a free axis' if free else ''}, got {value}.")
    return values


def _rotation(angles: torch.Tensor, dims: int) -> torch.Tensor:
    """``(B, 1 or 3)`` angles -> ``(B, D, D)``: 2D turns axis 0 towards axis 1, 3D is ``R0 R1 R2``, each about its axis."""
    planes = [(0, 1)] if dims == 2 else [(1, 2), (2, 0), (0, 1)]
    result = torch.eye(dims, dtype=angles.dtype).expand(len(angles), dims, dims)
    for n, (i, j) in enumerate(planes):
        turn = torch.eye(dims, dtype=angles.dtype).repeat(len(angles), 1, 1)
        cos, sin = angles[:, n].cos(), angles[:, n].sin()
        turn[:, i, i], turn[:, j, j], turn[:, j, i], turn[:, i, j] = cos, cos, sin, -sin
        result = result @ turn
    return result


def compose_map(
    input_shape: Sequence[int],
    voxel_sizes: torch.Tensor,
    shape: tuple[int, ...],
    pixdim: torch.Tensor,
    rotate: torch.Tensor,
    scale: torch.Tensor,
    shear: torch.Tensor,
    translate_mm: torch.Tensor,
    flip: torch.Tensor,
    displacement: torch.Tensor | None = None,
) -> SpatialMap:
    """Return the map from output to input voxels that parameters make; see the module's equation.

    Args:
        input_shape: ``D`` sizes of the images.
        voxel_sizes: ``(B, D)`` of the images, in mm.
        shape: of the output grid.
        pixdim: ``(B, D)`` voxel sizes of the output grid, in mm.
        rotate: ``(B, 1)`` angles in 2D, axis 0 towards axis 1; ``(B, 3)`` in 3D, about each axis, ``R0 R1 R2``; radians.
        scale: ``(B, D)``; 2 shows the anatomy twice as large.
        shear: ``(B, 1)`` in 2D, ``(B, 3)`` in 3D: ``u_i += k u_j`` for ``i < j``; volumes stay.
        translate_mm: ``(B, D)``.
        flip: ``(B, D)`` bool.
        displacement: ``(B, *nodes, D)`` in output voxels, or None.

    Raises:
        LandmarkError: if a scale is not positive.

    Example:
        >>> one, none = torch.ones(1, 2), torch.zeros(1, 2)
        >>> made = compose_map((8, 8), one, (8, 8), one, none[:, :1], 2 * one, none[:, :1], none, none.bool())
        >>> made.to_output(torch.tensor([[[4.0, 4.0]]]))
        tensor([[[4.5000, 4.5000]]])
    """
    dims, double = len(shape), torch.float64
    if not bool((scale > 0).all()):
        raise LandmarkError(f"a scale must be positive, got {scale.tolist()}: use a flip to mirror.")
    upper = torch.eye(dims, dtype=double).repeat(len(scale), 1, 1)
    rows, columns = torch.triu_indices(dims, dims, offset=1)
    upper[:, rows, columns] = shear.to(double)
    sign = 1.0 - 2.0 * flip.to(double)
    content = (_rotation(rotate.to(double), dims) * scale.to(double)[:, None, :]) @ upper * sign[:, None, :]
    undo = torch.linalg.inv(content)
    into = undo / voxel_sizes.to(double)[:, :, None]
    linear = into * pixdim.to(double)[:, None, :]
    center_in = (torch.as_tensor(tuple(input_shape), dtype=double) - 1) / 2
    center_out = (torch.as_tensor(shape, dtype=double) - 1) / 2
    offset = center_in - linear @ center_out - (into @ translate_mm.to(double)[:, :, None])[..., 0]
    matrix = torch.eye(dims + 1, dtype=double).repeat(len(scale), 1, 1)
    matrix[:, :dims, :dims], matrix[:, :dims, dims] = linear, offset
    return SpatialMap(matrix, shape, displacement)
