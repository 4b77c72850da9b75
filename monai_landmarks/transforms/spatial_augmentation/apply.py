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
"""Apply a map to one image, or carry one set of points through it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd

from ...geometry import (
    LandmarkError,
    SpatialMap,
    apply_affine,
    image_affine,
    invert_affine,
    plain_tensor,
    report_outside,
    resample,
    smooth,
    voxel_sizes,
)
from ..spatial import as_points

__all__ = ["Frame", "carry_points", "frame_of", "read_image", "shrinkage"]


@dataclass(frozen=True)
class Frame:
    """The grid of the image on which a map was drawn.

    Attributes:
        affine: ``(D + 1, D + 1)`` float64, voxel index to world.
        shape: ``D`` sizes.
    """

    affine: torch.Tensor
    shape: tuple[int, ...]

    @property
    def voxel_sizes(self) -> torch.Tensor:
        """``(1, D)`` in mm."""
        return voxel_sizes(self.affine)[None]


def frame_of(image: Any, world: bool) -> Frame:
    """Read the grid of a channel-first image; without an affine it counts voxels as millimetres.

    Args:
        image: ``(C, *S)``.
        world: whether points in millimetres are to be carried, for which an affine is needed.

    Raises:
        LandmarkError: for an image that is not 2D or 3D with a channel, without an affine though ``world``, or with
            lazy operations that wait.
    """
    shape = tuple(int(s) for s in getattr(image, "shape", ())[1:])
    if len(shape) not in (2, 3) or 0 in shape:
        raise LandmarkError(
            f"a 2D or 3D image (C, *S) is needed, got {type(image).__name__} of shape "
            f"{tuple(getattr(image, 'shape', ()))}: add the channel with EnsureChannelFirstd; a 3D file with one slice is "
            "brought to 2D with SqueezeDimd."
        )
    if world or isinstance(image, MetaTensor):
        if getattr(image, "affine", torch.empty(0)).ndim == 3:
            raise LandmarkError("the image is a batch, with one affine each: use the batched form, or decollate first.")
        return Frame(image_affine(image, len(shape)), shape)
    return Frame(torch.eye(len(shape) + 1, dtype=torch.float64), shape)


def shrinkage(matrix: torch.Tensor, pixdim: torch.Tensor, sizes: torch.Tensor) -> list[float]:
    """Return how many voxels of an image one voxel of the output grid covers along each axis of the image.

    Args:
        matrix: ``(D + 1, D + 1)`` from the reference's voxels to the image's.
        pixdim: ``(D,)`` voxel sizes of the output grid, in mm.
        sizes: ``(D,)`` voxel sizes of the reference, in mm.
    """
    step = matrix[:-1, :-1] * (pixdim / sizes)
    return [float(v) for v in torch.linalg.vector_norm(step, dim=1)]


def antialiasing_width(covered: Sequence[float]) -> list[float]:
    """Return the Gaussian's standard deviation, in voxels, that a reduction by ``covered`` needs: half of its excess."""
    return [max(0.0, (c - 1) / 2) for c in covered]


def read_image(
    image: Any,
    frame: Frame,
    maps: SpatialMap,
    pixdim: torch.Tensor,
    mode: str,
    padding_mode: str,
    fill: float,
    antialias: bool,
) -> torch.Tensor:
    """Return an image read once through a map, with the affine of its new grid.

    Args:
        image: ``(C, *S)``, the reference or another image of the same world on any grid.
        frame: of the reference.
        maps: one map, from the output grid to the reference's voxels.
        pixdim: ``(1, D)`` voxel sizes of the output grid.
        mode: see :func:`monai_landmarks.geometry.resample`.
        padding_mode: likewise.
        fill: likewise.
        antialias: whether an image that is read on a coarser grid is smoothed before; never with "nearest".
    """
    own = frame_of(image, world=False)
    if len(own.shape) != len(frame.shape):
        raise LandmarkError(
            f"the item's images differ in dimension: {frame.shape} and {own.shape}; augment 2D and 3D images apart."
        )
    between = invert_affine(own.affine) @ frame.affine
    voxels = plain_tensor(torch.as_tensor(image))[None]
    if antialias and mode != "nearest":
        covered = shrinkage(between, pixdim[0], frame.voxel_sizes[0])
        voxels = smooth(voxels if voxels.is_floating_point() else voxels.float(), antialiasing_width(covered))
    read = resample(voxels, maps.then(between[None]), mode, padding_mode, fill)[0]
    if not isinstance(image, MetaTensor):
        return read
    result = MetaTensor(read, meta=dict(image.meta), applied_operations=image.applied_operations)
    rank = len(image.affine) - 1
    step = torch.as_tensor(to_affine_nd(rank, between @ maps.matrix[0]), dtype=torch.float64)
    result.affine = image.affine.to(step) @ step
    return result


def carry_points(
    points: Any, frame: Frame, maps: SpatialMap, world: bool, exchange: torch.Tensor | None, name: str
) -> torch.Tensor:
    """Return points where they are seen after a map; what lies outside the image is warned about and kept.

    Args:
        points: ``(N, D)``, in mm or in voxels of the reference; NaN for missing.
        frame: of the reference.
        maps: one map.
        world: whether points are in mm. They stay as they are under an affine map, for the image's new affine knows it;
            under an elastic one they move to the place to which the new affine leads from their voxel.
        exchange: order of the landmarks after it, for a mirrored image; None keeps it.
        name: for messages.

    Raises:
        LandmarkError: if the points' dimension is not the image's, or their number not that of ``exchange``.
    """
    given = as_points(points, name)
    if given.shape[-1] != len(frame.shape) or given.ndim != 2:
        raise LandmarkError(
            f"{given.shape[-1]}D points {tuple(given.shape)} under {name!r} for a {len(frame.shape)}D image of shape "
            f"{frame.shape}: (N, {len(frame.shape)}) are needed. Is it the right point file?"
        )
    exact = given.double()
    index = apply_affine(exact, invert_affine(frame.affine)) if world else exact
    outside = report_outside(index, frame.shape, name)
    if outside:
        warnings.warn(outside, stacklevel=4)
    result = exact
    if not world or maps.displacement is not None:
        result = maps.to_output(index[None])[0]
        result = apply_affine(result, frame.affine @ maps.matrix[0]) if world else result
    if exchange is not None:
        if len(exchange) != len(result):
            raise LandmarkError(f"{name!r} holds {len(result)} landmarks, the names and pairs are of {len(exchange)}.")
        result = result[exchange.to(result.device)]
    return result.to(given.dtype)
