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
"""What every decoder starts from: the highest voxel of each channel, and a small window cut out around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.data import MetaTensor

from ..geometry import LandmarkError

__all__ = ["Decoded", "FlaggedDecoded"]


class Decoded(NamedTuple):
    """Points ``(..., N, D)`` in voxel index order, NaN where the map is empty, and their confidence ``(..., N)``."""

    points: torch.Tensor
    confidence: torch.Tensor


class FlaggedDecoded(NamedTuple):
    """As :class:`Decoded`, with ``extrapolated (..., N)``: True where the map does not fix the position.

    That is where the highest voxel lies on the image border (the far side of the peak is not in the image, and the
    truth may be outside); where the sub-voxel refinement was refused (no curvature, a step out of range); where a
    method that only looks at the top finds it flat (a saturated plateau, or several equal peaks); and where the map
    is empty.
    """

    points: torch.Tensor
    confidence: torch.Tensor
    extrapolated: torch.Tensor


class Peaks(NamedTuple):
    """The highest voxel of each channel, always with a batch axis; made by :func:`find_peaks`.

    Attributes:
        heatmaps: ``(B, N, *S)``, a plain tensor.
        voxel: ``(B, N, D)`` int64, the first highest voxel in C order, as ``numpy.argmax``.
        value: ``(B, N)`` in float32 or better, the map's value there.
        empty: ``(B, N)`` bool: nothing is positive, the map is constant, or its maximum is NaN or infinite.
        flat: ``(B, N)`` bool: the maximum is reached by more voxels than share a peak that lies between voxels: a
            saturated plateau, or several equal peaks.
        batched: whether the caller gave a batch axis.
        origin: ``(B, N, D)`` int64: ``heatmaps`` are boxes cut out of an image, whose first voxel lies there in it;
            None where they are whole. ``voxel`` is in voxels of the image either way.
        image_shape: of the image that the boxes were cut from, or None.
    """

    heatmaps: torch.Tensor
    voxel: torch.Tensor
    value: torch.Tensor
    empty: torch.Tensor
    flat: torch.Tensor
    batched: bool
    origin: torch.Tensor | None = None
    image_shape: tuple[int, ...] | None = None

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        return self.image_shape or tuple(self.heatmaps.shape[2:])


def with_batch(heatmaps: torch.Tensor, spatial_dims: int | None) -> tuple[torch.Tensor, bool]:
    heatmaps = heatmaps.as_tensor() if isinstance(heatmaps, MetaTensor) else torch.as_tensor(heatmaps)
    shape = tuple(heatmaps.shape)
    if spatial_dims not in (None, 2, 3):
        raise LandmarkError(f"`spatial_dims` must be 2, 3 or None, got {spatial_dims!r}.")
    dims = spatial_dims or {3: 2, 4: 2, 5: 3}.get(len(shape), 0)
    if len(shape) - dims not in (1, 2) or not dims:
        kind = f"{spatial_dims}D " if spatial_dims else ""
        hint = " One map alone needs a landmark axis: heatmaps[None]." if len(shape) == (spatial_dims or 2) else ""
        raise LandmarkError(
            f"{kind}heatmaps must have shape (B, N, *S) or (N, *S), for example (B, N, H, W) or (N, X, Y, Z) with "
            f"spatial_dims=3, got {shape}.{hint}"
        )
    if 0 in shape[-dims:]:
        raise LandmarkError(f"heatmaps of shape {shape} have no voxels: an empty crop?")
    batched = len(shape) == dims + 2
    return (heatmaps if batched else heatmaps.unsqueeze(0)), batched


def channel_index(peaks_like: torch.Tensor, ndim: int) -> tuple[torch.Tensor, torch.Tensor]:
    batch, channels = peaks_like.shape[:2]
    device = peaks_like.device
    tail = (1,) * (ndim - 2)
    return (
        torch.arange(batch, device=device).reshape(batch, 1, *tail),
        torch.arange(channels, device=device).reshape(1, channels, *tail),
    )


def find_peaks(heatmaps: torch.Tensor | Peaks, spatial_dims: int | None = None) -> Peaks:
    """Find the first highest voxel of every channel, in two passes.

    Only a maximum without index runs over all voxels, which is vectorised and as fast as memory; the index is then
    looked for among the maxima of the rows, and in one row.

    Args:
        heatmaps: ``(B, N, *S)`` or ``(N, *S)`` of any dtype and memory layout; peaks that are known already come back
            as they are, which lets every decoder refine them.
        spatial_dims: needed for ``(N, X, Y, Z)`` only: four axes are read as ``(B, N, H, W)`` otherwise.

    Returns:
        a :class:`Peaks`. The gradient flows from ``value`` to the highest voxel.

    Raises:
        LandmarkError: for a shape that is neither, or without voxels.
    """
    if isinstance(heatmaps, Peaks):
        return heatmaps
    maps, batched = with_batch(heatmaps, spatial_dims)
    shape = tuple(maps.shape[2:])
    rows = maps.detach().amax(dim=-1).flatten(2)
    row = rows.argmax(dim=-1)
    index = [row]
    for size in shape[-2:0:-1]:
        index[:1] = [index[0] // size, index[0] % size]
    batch, channel = channel_index(maps, 2)
    line = maps[(batch, channel, *index)]
    last = line.argmax(dim=-1, keepdim=True)
    value = line.gather(-1, last).squeeze(-1)
    value = value.to(torch.promote_types(value.dtype, torch.float32))
    index.append(last.squeeze(-1))
    line, top = line.detach(), value.detach()
    # Ties are counted among the maxima of the rows and in one row, which spares a second pass over all voxels. A peak
    # between voxels is shared by two rows or columns at most; a constant map ties everywhere.
    level = top.unsqueeze(-1)
    tied_rows, tied_here = (rows == level).sum(dim=-1), (line == level).sum(dim=-1)
    flat = (tied_rows > 2 ** (len(shape) - 1)) | (tied_here > 2)
    fine = (top > 0) & (top < math.inf)
    if math.prod(shape) > 1:
        fine = fine & (tied_rows * tied_here < math.prod(shape))
    return Peaks(maps, torch.stack(index, dim=-1), value, ~fine, flat, batched)


class Window(NamedTuple):
    """A box of voxels around each peak, made by :func:`cut_window`.

    Attributes:
        values: ``(B, N, *K)`` divided by the peak's value, so the peak is 1; zeros for an empty map.
        offsets: for each axis ``(B, N, K_d)``, the voxels' indices minus the peak's, in the dtype of ``values``.
    """

    values: torch.Tensor
    offsets: list[torch.Tensor]


def look_up(peaks: Peaks, index: Sequence[torch.Tensor]) -> torch.Tensor:
    """Read voxels and divide them by the peak's value, so that the peak is 1; an empty map reads as zeros.

    Args:
        peaks: from :func:`find_peaks`.
        index: ``D`` int64 tensors of valid indices that broadcast to ``(B, N, ...)``, all with the same number of axes.

    Returns:
        ``(B, N, ...)`` in float32 or better.
    """
    batch, channel = channel_index(peaks.heatmaps, index[0].ndim)
    if peaks.origin is not None:
        tail = (1,) * (index[0].ndim - 2)
        index = [
            i - first.reshape(*first.shape, *tail) for i, first in zip(index, peaks.origin.unbind(-1), strict=True)
        ]
    values = peaks.heatmaps[(batch, channel, *index)].to(peaks.value.dtype)
    outer = (..., *(None,) * (values.ndim - 2))
    # Empty maps are replaced before any logarithm or division, not after: what NaN touched stays NaN in the gradient.
    scale = peaks.value.detach().masked_fill(peaks.empty, 1)
    return values.masked_fill(peaks.empty[outer], 0) / scale[outer]


def cut_window(peaks: Peaks, size: Sequence[int], centre: torch.Tensor | None = None) -> Window:
    """Cut a box of ``size`` voxels around each peak and divide it by the peak's value.

    Args:
        peaks: from :func:`find_peaks`.
        size: ``D`` odd numbers of voxels.
        centre: None centres the box on the peak, moves it into the image where it would stick out, and shortens it to
            the image's size. A ``(B, N, D)`` tensor of indices centres it there; voxels outside repeat the border's.

    Returns:
        a :class:`Window`, in float32 or better.
    """
    where, offsets = [], []
    for axis, (width, length) in enumerate(zip(size, peaks.spatial_shape, strict=True)):
        peak = peaks.voxel[..., axis]
        if centre is None:
            width = min(width, length)
            start = (peak - width // 2).clamp(0, length - width)
        else:
            start = centre[..., axis] - width // 2
        index = start.unsqueeze(-1) + torch.arange(width, device=peak.device)
        offsets.append((index - peak.unsqueeze(-1)).to(peaks.value.dtype))
        place = [1] * len(size)
        place[axis] = width
        index = index if centre is None else index.clamp(0, length - 1)
        where.append(index.reshape(*peak.shape, *place))
    return Window(look_up(peaks, where), offsets)


def finish(
    peaks: Peaks, offset: torch.Tensor | None, refused: torch.Tensor, confidence: torch.Tensor | None = None
) -> FlaggedDecoded:
    """Add the sub-voxel ``offset (B, N, D)`` to the peaks, put NaN where a map is empty and take the batch axis off.

    Points further than one voxel outside the image are moved to that limit and flagged.
    """
    last = torch.tensor(peaks.spatial_shape, device=peaks.voxel.device) - 1
    points = peaks.voxel.to(peaks.value.dtype)
    flag = (peaks.voxel * (last - peaks.voxel) == 0).any(dim=-1) | peaks.empty | refused
    if offset is not None:
        far = points + offset
        points = torch.minimum(far.clamp(min=-1), last + 1)
        flag = flag | (points != far).any(dim=-1)
    points = points.masked_fill(peaks.empty.unsqueeze(-1), float("nan"))
    confidence = peaks.value if confidence is None else torch.where(peaks.empty, peaks.value, confidence)
    if peaks.batched:
        return FlaggedDecoded(points, confidence, flag)
    return FlaggedDecoded(points[0], confidence[0], flag[0])
