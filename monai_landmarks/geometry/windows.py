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
"""Windows of whole voxels around points: what a coarse-to-fine detector looks at.

``voxel of the image = voxel of the window + origin``, with a whole-numbered origin: nothing is interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.utils import look_up_option

from .points import LandmarkError, check_points, plain_tensor, present

__all__ = ["WINDOW_MODES", "LandmarkCrops", "crop_origins", "crops_around_points", "window_size", "windows"]

#: What lies outside the image.
WINDOW_MODES = ("constant", "edge")


class LandmarkCrops(NamedTuple):
    """Crops of a batch of images, one for each landmark.

    Attributes:
        crops: ``(B, N, C, *size)``.
        origins: ``(B, N, D)`` int64, the image's voxel at which voxel 0 of the crop lies; never NaN. A point in the crop
            plus its origin is the point in the image.
        present: ``(B, N)`` bool; False where the landmark was missing and the crop shows the middle of the image.
    """

    crops: torch.Tensor
    origins: torch.Tensor
    present: torch.Tensor


def crop_origins(centers: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return the origin of the window of ``size`` voxels whose middle is nearest to each centre: ``ceil(c - size / 2)``.

    The middle of the window, ``origin + (size - 1) / 2``, is at most half a voxel from the centre on every axis. Whole
    centres give the windows of MONAI's ``SpatialCrop(roi_center, roi_size)``.

    Args:
        centers: voxel indices ``(..., D)``, finite.
        size: of the window, ``D`` whole numbers.

    Returns:
        int64 tensor ``(..., D)``.

    Example:
        >>> crop_origins(torch.tensor([[5.0, 5.4]]), (4, 3))
        tensor([[3, 4]])
    """
    half = torch.tensor([n / 2 for n in size], dtype=torch.float64, device=centers.device)
    # A whole number that came through an affine is a rounding error off, which must not move the window by a voxel.
    return (centers.to(torch.float64) - half - 1e-6).ceil().to(torch.int64)


def crops_around_points(
    images: torch.Tensor,
    points: torch.Tensor,
    size: int | Sequence[int],
    mode: str = "constant",
    value: float = 0.0,
) -> LandmarkCrops:
    """Cut one crop around each landmark of each image, all in one step, on any device.

    The second stage of coarse-to-fine detection sees ``crops.flatten(0, 1)``, ``(B * N, C, *size)``, and what it finds
    in the crops is found in the images by adding the origins. A landmark far outside its image gets a crop of nothing
    but padding, with its true origin.

    Args:
        images: ``(B, C, *S)``.
        points: ``(B, N, D)`` voxel indices, NaN for missing: their crops show the middle of the image.
        size: of the crops in voxels, one number or one per axis; larger than the image is allowed.
        mode: what lies outside the image: ``"constant"``, or ``"edge"`` for the nearest voxel's intensity. Reflection
            is left out, because it shows the anatomy twice.
        value: the constant.

    Returns:
        crops, origins, and which landmarks were there.

    Raises:
        LandmarkError: if the shapes do not fit, or a point is infinite or missing in part.

    Example:
        >>> images = torch.arange(24.0).reshape(1, 1, 4, 6)
        >>> crops, origins, present = crops_around_points(images, torch.tensor([[[1.2, 4.9]]]), 3)
        >>> crops[0, 0, 0], origins[0, 0]
        (tensor([[ 4.,  5.,  0.],
                [10., 11.,  0.],
                [16., 17.,  0.]]), tensor([0, 4]))
    """
    images, points = plain_tensor(images), plain_tensor(points)
    dims = images.ndim - 2
    if dims not in (2, 3) or points.ndim != 3 or points.shape[0] != images.shape[0]:
        raise LandmarkError(
            "images must be (B, C, *S) and points (B, N, D) of the same batch, got shapes "
            f"{tuple(images.shape)} and {tuple(points.shape)}: a single image needs a batch axis, `image[None]`."
        )
    check_points(points, dims)
    size = window_size(size, dims, "size")
    there = present(points)
    middle = torch.tensor([(n - 1) / 2 for n in images.shape[2:]], dtype=torch.float64, device=points.device)
    origins = crop_origins(torch.where(there[..., None], points.to(torch.float64), middle), size)
    return LandmarkCrops(windows(images, origins, size, look_up_option(mode, WINDOW_MODES), value), origins, there)


def windows(
    images: torch.Tensor,
    origins: torch.Tensor,
    size: Sequence[int],
    mode: str = "constant",
    value: float = 0.0,
) -> torch.Tensor:
    """Gather windows that begin at given voxels, inside the image, across its border or outside.

    Args:
        images: ``(B, C, *S)``.
        origins: ``(B, N, D)`` int64.
        size: of the windows, ``D`` whole numbers.
        mode: what lies outside the image: ``"constant"`` or ``"edge"``.
        value: the constant.

    Returns:
        ``(B, N, C, *size)``.

    Example:
        >>> windows(torch.arange(4.0).reshape(1, 1, 2, 2), torch.tensor([[[1, -1]]]), (1, 3))
        tensor([[[[[0., 2., 3.]]]]])
    """
    batch, dims = images.shape[0], len(size)
    origins = origins.to(images.device)
    index: list[torch.Tensor] = [torch.arange(batch, device=images.device).reshape(-1, *[1] * (dims + 1))]
    inside = torch.ones((), dtype=torch.bool, device=images.device)
    for axis, (n, extent) in enumerate(zip(size, images.shape[2:], strict=True)):
        along = origins[..., axis, None] + torch.arange(n, device=images.device)
        along = along.reshape(*along.shape[:2], *[n if a == axis else 1 for a in range(dims)])
        inside = inside & (along >= 0) & (along < extent)
        index.append(along.clamp(0, extent - 1))
    gathered = images.movedim(1, -1)[tuple(index)].movedim(-1, 2)
    return gathered if mode == "edge" else gathered.masked_fill(~inside.unsqueeze(2), value)


def window_size(size: int | Sequence[int], dims: int, name: str = "size") -> tuple[int, ...]:
    """Return a size with one whole number per axis.

    Args:
        size: one number, or one per axis.
        dims: number of axes.
        name: of the argument, for the message.

    Raises:
        LandmarkError: for another count, or a number that is not whole and positive.
    """
    sizes = tuple(size) if isinstance(size, Sequence) else (size,) * dims
    if len(sizes) != dims or any(int(n) != n or n < 1 for n in sizes):
        raise LandmarkError(f"`{name}` must be one whole number >= 1, or one for each of the {dims} axes, got {size}.")
    return tuple(int(n) for n in sizes)
