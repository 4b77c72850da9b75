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
"""Several peaks of each heatmap: the candidates from which a sequence or a shape model chooses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ..geometry import LandmarkError
from ..geometry.windows import window_size
from .decode import DecodeMethod, decode_heatmaps, decoder_window, refine_peaks
from .peaks import Peaks, channel_index, with_batch

__all__ = ["Candidates", "find_candidates"]

#: Peaks that are looked at together in a first round, for each one that is asked for; and what a round may hold.
ROUND, ROUND_VALUES = 3, 2**25


class Candidates(NamedTuple):
    """Up to K peaks of each map: points ``(..., N, K, D)`` and confidence ``(..., N, K)``, NaN where there are fewer.

    They are sorted by falling value of the peak. The first confidence is the map's maximum even where its point is NaN.
    """

    points: torch.Tensor
    confidence: torch.Tensor


def find_candidates(
    heatmaps: torch.Tensor,
    max_candidates: int = 5,
    min_distance: int | Sequence[int] = 4,
    *,
    min_confidence: float = 0.0,
    min_relative: float = 0.0,
    method: DecodeMethod | str = "quadratic",
    spatial_dims: int | None = None,
    **options: Any,
) -> Candidates:
    """Find the highest peaks of each heatmap at sub-voxel precision, all maps at once, in 2D and 3D.

    A peak is a voxel that is the highest within ``min_distance`` voxels of itself along every axis (a box), and of
    several equal ones the first in C order. Whether a voxel is a peak depends on that box alone, so a map may be
    searched piece by piece. What differs from the public code of Payer et al. (VerSe), which takes local maxima of the
    next neighbours and then drops those too close to a higher one: a shoulder is no peak here, and equal peaks are told
    apart.

    Each peak is refined as :func:`decode_heatmaps` refines the highest voxel; candidate 0 is what it gives. As there, a
    map with no positive value, a constant one, and one whose maximum is NaN or infinite have no candidate: their first
    confidence is their maximum.

    Args:
        heatmaps: ``(B, N, *S)`` or ``(N, *S)``; a MetaTensor is taken as its plain tensor.
        max_candidates: K, the most that are kept of each map.
        min_distance: in voxels, for all axes or each: two candidates are further apart along one axis at least.
        min_confidence: peaks must be higher than this.
        min_relative: peaks must be at least this share of the map's highest one.
        method: of the refinement, one of :class:`DecodeMethod`.
        spatial_dims: give 3 for ``(N, X, Y, Z)``; four axes are read as ``(B, N, H, W)`` otherwise.
        options: of the method, see :func:`decode_heatmaps`.

    Returns:
        :class:`Candidates`: points in voxel index order and confidence, as of :func:`decode_heatmaps`, without gradient.

    Raises:
        LandmarkError: for a shape that is neither, or an option that is out of range or unknown to the method.
        ValueError: for a method that does not exist.

    Example:
        >>> import torch
        >>> from monai_landmarks.heatmaps import gaussian_heatmaps
        >>> maps = gaussian_heatmaps(torch.tensor([[7.3, 4.2], [20.0, 11.5]]), (32, 16), sigma=2.0)
        >>> find_candidates(maps[:1] + 0.5 * maps[1:], max_candidates=3).points
        tensor([[[ 7.3000,  4.2000],
                 [20.0000, 11.5000],
                 [    nan,     nan]]])
    """
    maps, batched = with_batch(heatmaps, spatial_dims)
    search = CandidateSearch(
        maps.shape[2:], max_candidates, min_distance, min_confidence, min_relative, method, options
    )
    search.add(maps)
    found = search.result()
    return found if batched else Candidates(found.points[0], found.confidence[0])


class CandidateSearch:
    """Find candidates in maps that come slab by slab: the engine of :func:`find_candidates`.

    Args:
        image_shape: of the whole maps, ``*S``.
        max_candidates: see :func:`find_candidates`.
        min_distance: see there.
        min_confidence: see there.
        min_relative: see there.
        method: see there.
        options: of the method.

    Attributes:
        halo: ``D`` numbers of voxels around a voxel that must be known to tell whether it is a peak, and to refine it.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        max_candidates: int = 5,
        min_distance: int | Sequence[int] = 4,
        min_confidence: float = 0.0,
        min_relative: float = 0.0,
        method: DecodeMethod | str = "quadratic",
        options: dict[str, Any] | None = None,
    ) -> None:
        self.image_shape = tuple(int(size) for size in image_shape)
        dims = len(self.image_shape)
        self.reach = window_size(min_distance, dims, "min_distance")
        if not isinstance(max_candidates, int) or max_candidates < 1:
            raise LandmarkError(f"`max_candidates` must be a whole number >= 1, got {max_candidates!r}.")
        if not 0 <= min_confidence < math.inf or not 0 <= min_relative <= 1:
            raise LandmarkError(
                "`min_confidence` must be 0 or more (a peak must be positive) and `min_relative` a share of the highest "
                f"peak in [0, 1], got {min_confidence} and {min_relative}."
            )
        self.count, self.floor, self.share = max_candidates, float(min_confidence), float(min_relative)
        self.method, self.options = method, dict(options or {})
        window = decoder_window(method, self.options, dims)
        decode_heatmaps(torch.zeros(1, *(1,) * dims), method, spatial_dims=dims, **self.options)  # are they in range?
        self.halo = tuple(max(reach, width - 1) for reach, width in zip(self.reach, window, strict=True))
        self.box = tuple(min(width, size) for width, size in zip(window, self.image_shape, strict=True))
        self.top: torch.Tensor | None = None

    @torch.no_grad()
    def add(self, maps: torch.Tensor, axis: int = 0, offset: int = 0, start: int = 0, stop: int | None = None) -> None:
        """Search the voxels ``start <= index < stop`` along one spatial axis; every voxel is to be searched once.

        Args:
            maps: ``(B, N, *S)``, but along ``axis`` only the image's voxels from ``offset`` on; those within ``halo`` of
                the searched ones must be there.
            axis: spatial axis of the slabs, the same in all calls.
            offset: index in the image of the first voxel of ``maps`` along ``axis``.
            start: in voxels of the image.
            stop: in voxels of the image; None is the image's end.
        """
        stop = self.image_shape[axis] if stop is None else stop
        maps = maps.detach()
        shift = torch.zeros(maps.ndim - 2, dtype=torch.long, device=maps.device)
        first = shift.clone()
        shift[axis], first[axis] = offset, start - offset
        core = maps.narrow(2 + axis, start - offset, stop - start)
        blocks = tuple((reach + 1) // 2 for reach in self.reach)
        coarse = _block_maxima(core, blocks)
        top = self._see(core, coarse)
        wanted = (coarse > self.floor) & (coarse >= self.share * _outer(self.top, coarse))
        wanted = (wanted | (coarse == top)) & (coarse > 0) & (coarse < math.inf) & _no_higher_neighbour(coarse)
        scores = coarse.masked_fill(~wanted, -math.inf).flatten(2)
        # A plateau has many blocks of which none is a peak: they are gone through in ever larger rounds.
        many, room = ROUND * self.count, ROUND_VALUES // (scores[..., 0].numel() * math.prod(self.box))
        while bool((self._pending(scores)).any()):
            many = min(many, scores.shape[-1])
            value, place = scores.topk(many, dim=-1)
            scores.scatter_(-1, place, -math.inf)
            block = torch.stack(torch.unravel_index(place, coarse.shape[2:]), dim=-1)
            voxel = self._first_highest(core, block, blocks)
            peak = self._are_peaks(maps, voxel + first, value > -math.inf)
            self._keep(maps, voxel + first, value.masked_fill(~peak, -math.inf), shift)
            many = min(4 * many, max(many, room))

    def _see(self, core: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """Follow the maps' maximum and minimum; return the slab's maximum, to be compared with ``coarse``."""
        space = tuple(range(2, coarse.ndim))
        top, bottom = coarse.amax(space), coarse.amin(space)
        # The least of the blocks' maxima is above the minimum, which is looked for only where a map may be constant.
        if bool((top == bottom).any()):
            bottom = core.amin(space)
        if self.top is None:
            self.top, self.bottom = top, bottom
            lead = (*top.shape, self.count)
            self.value = top.new_full(lead, -math.inf)
            self.voxel = torch.zeros(*lead, len(self.image_shape), dtype=torch.long, device=top.device)
            self.origin = torch.zeros_like(self.voxel)
            self.patch = core.new_zeros(*lead, *self.box)
        else:
            self.top, self.bottom = torch.maximum(self.top, top), torch.minimum(self.bottom, bottom)
        return _outer(top, coarse)

    def _pending(self, scores: torch.Tensor) -> torch.Tensor:
        """Tell for which maps a block that was not looked at may hold one of the best peaks."""
        best = scores.amax(dim=-1)
        return (best > -math.inf) & (best >= self.value[..., -1])

    def _first_highest(self, core: torch.Tensor, block: torch.Tensor, blocks: Sequence[int]) -> torch.Tensor:
        """The first highest voxel ``(B, N, T, D)`` of blocks of the core, given by their index."""
        start = block * torch.tensor(blocks, device=block.device)
        inner = _gather(core, *channel_index(core, 3), start, blocks)[0].flatten(3).argmax(dim=-1)
        voxel = start + torch.stack(torch.unravel_index(inner, tuple(blocks)), dim=-1)
        last = torch.tensor(core.shape[2:], device=voxel.device) - 1
        return torch.minimum(voxel, last)

    def _are_peaks(self, maps: torch.Tensor, voxel: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Tell which of the ``wanted (B, N, T)`` voxels ``(B, N, T, D)`` of ``maps`` are peaks."""
        # Most shoulders, and most voxels of a plateau, are no peaks among their next neighbours already.
        for reach in dict.fromkeys(((1,) * len(self.reach), self.reach)):
            wanted = wanted.clone()
            size = math.prod(2 * r + 1 for r in reach)
            for part in wanted.nonzero().split(max(1, ROUND_VALUES // size)):
                batch, channel, number = part.unbind(dim=-1)
                wanted[batch, channel, number] = _is_first_highest(
                    maps, batch, channel, voxel[batch, channel, number], reach
                )
        return wanted

    def _keep(self, maps: torch.Tensor, voxel: torch.Tensor, value: torch.Tensor, shift: torch.Tensor) -> None:
        """Put peaks, with the voxels around them, among the best so far; equal ones in C order of the image."""
        box = torch.tensor(self.box, device=voxel.device)
        voxel = voxel + shift
        room = torch.tensor(self.image_shape, device=voxel.device) - box
        origin = torch.minimum((voxel - box // 2).clamp(min=0), room)
        batch, channel = channel_index(value, 3)
        patch, _ = _gather(maps, batch, channel, origin - shift, self.box)
        value, voxel, origin, patch = (
            torch.cat(pair, dim=2)
            for pair in (
                (self.value, value),
                (self.voxel, voxel),
                (self.origin, origin),
                (self.patch, patch),
            )
        )
        place = voxel[..., 0]
        for axis, size in enumerate(self.image_shape[1:], 1):
            place = place * size + voxel[..., axis]
        order = place.argsort(dim=-1)
        order = order.gather(-1, value.gather(-1, order).argsort(dim=-1, descending=True, stable=True))
        order = order[..., : self.count]
        self.value, self.voxel, self.origin, self.patch = (
            kept[batch, channel, order] for kept in (value, voxel, origin, patch)
        )

    def highest(self) -> Candidates:
        """What :func:`decode_heatmaps` gives for the whole maps: ``(B, N, D)``, ``(B, N)``."""
        points, confidence = self._refine()
        return Candidates(points[:, :, 0], confidence[:, :, 0])

    def result(self) -> Candidates:
        """The candidates of all slabs together: ``(B, N, K, D)``, ``(B, N, K)``."""
        points, confidence = self._refine()
        top = self.value[..., :1]
        kept = (self.value > self.floor) & (self.value >= self.share * top)
        points = points.masked_fill(~kept.unsqueeze(-1), math.nan)
        kept[..., 0] = True
        return Candidates(points, confidence.masked_fill(~kept, math.nan))

    @torch.no_grad()
    def _refine(self) -> Candidates:
        assert self.top is not None, "no slab was added"
        wide = torch.promote_types(self.value.dtype, torch.float32)
        empty = ~((self.top > 0) & (self.top < math.inf))
        if math.prod(self.image_shape) > 1:
            empty = empty | (self.top == self.bottom)
        absent = empty.unsqueeze(-1) | (self.value == -math.inf)
        value = self.value.masked_fill(absent, math.nan)
        value[..., 0] = self.top
        flat = [part.flatten(1, 2) for part in (self.patch, self.voxel, value.to(wide), absent)]
        patch, voxel, height, missing = flat
        peaks = Peaks(
            patch, voxel, height, missing, missing, True, origin=self.origin.flatten(1, 2), image_shape=self.image_shape
        )
        decoded = refine_peaks(peaks, self.method, self.options)
        shape = absent.shape
        return Candidates(decoded.points.unflatten(1, shape[1:]), decoded.confidence.unflatten(1, shape[1:]))


def _outer(value: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    assert value is not None
    return value.reshape(*value.shape, *(1,) * (like.ndim - value.ndim))


def _along(axis: int, *where: int | None) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, slice(*where))


def _block_maxima(maps: torch.Tensor, blocks: Sequence[int]) -> torch.Tensor:
    """The maximum of each block of voxels; those at the far border may be cut. Reads a view without a copy of it."""
    for axis, size in enumerate(blocks, 2):
        if size == 1:
            continue
        first, second, *others = (maps[_along(axis, start, None, size)] for start in range(size))
        maps = torch.empty_like(first)
        _raise(maps, first, second, axis)
        maps[_along(axis, second.shape[axis], None)] = first[_along(axis, second.shape[axis], None)]
        for part in others:
            _raise(maps, maps, part, axis)
    return maps


def _raise(out: torch.Tensor, one: torch.Tensor, other: torch.Tensor, axis: int) -> None:
    """Write the maximum of both to the head of ``out`` that is as long as ``other``."""
    count = other.shape[axis]
    torch.maximum(one.narrow(axis, 0, count), other, out=out.narrow(axis, 0, count))


def _no_higher_neighbour(coarse: torch.Tensor) -> torch.Tensor:
    """Tell which blocks no neighbour exceeds, nor equals one of the layer before on the first axis.

    The box around each voxel of a block covers the neighbours wholly, and all voxels of the layer before come first in C
    order: no other block can hold a peak.
    """
    around = coarse
    for axis in range(coarse.ndim - 1, 2, -1):
        around = _with_neighbours(around, axis)
    fine = coarse >= _with_neighbours(around, 2)
    fine[_along(2, 1, None)] &= coarse[_along(2, 1, None)] > around[_along(2, 0, -1)]
    return fine


def _with_neighbours(maps: torch.Tensor, axis: int) -> torch.Tensor:
    wide = maps.clone()
    for here, there in ((_along(axis, 1, None), _along(axis, 0, -1)), (_along(axis, 0, -1), _along(axis, 1, None))):
        torch.maximum(wide[here], maps[there], out=wide[here])
    return wide


def _is_first_highest(
    maps: torch.Tensor, batch: torch.Tensor, channel: torch.Tensor, voxel: torch.Tensor, reach: Sequence[int]
) -> torch.Tensor:
    """Tell which voxels ``(M, D)`` are higher than all that precede them in their box, and lower than none in it."""
    size = tuple(2 * r + 1 for r in reach)
    around, inside = _gather(maps, batch, channel, voxel - torch.tensor(reach, device=voxel.device), size)
    middle = math.prod(size) // 2
    around = around.flatten(1)
    level = around[:, middle, None]
    before = inside[:, :middle] & (around[:, :middle] == level)
    return ~((around > level).any(dim=-1) | before.any(dim=-1))


def _gather(
    maps: torch.Tensor, batch: torch.Tensor, channel: torch.Tensor, start: torch.Tensor, size: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut boxes that begin at ``start (..., D)`` out of the maps named by ``batch`` and ``channel (...)``.

    Returns:
        ``(..., *size)``, the border's voxels repeated outside; and for each box which voxels are not outside, flattened.
    """
    dims = len(size)
    outer = (..., *(None,) * dims)
    index, inside = [], torch.ones((), dtype=torch.bool, device=start.device)
    for axis, (width, length) in enumerate(zip(size, maps.shape[2:], strict=True)):
        along = start[..., axis, None] + torch.arange(width, device=start.device)
        along = along.reshape(*start.shape[:-1], *(width if a == axis else 1 for a in range(dims)))
        inside = inside & (along >= 0) & (along < length)
        index.append(along.clamp(0, length - 1))
    return maps[(batch[outer], channel[outer], *index)], inside.flatten(-dims)
