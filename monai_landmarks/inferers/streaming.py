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
"""Windows merged into a buffer that moves along the image: memory for one window length, whatever the scan's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..heatmaps.candidates import CandidateSearch
from .max_merger import fill_uncovered, merge_maximum

__all__ = ["RollingMaximum"]


class RollingMaximum:
    """Merge windows by maximum that come in order along one axis, and search what no later window can change.

    The buffer is one window long, plus twice the halo that the search needs around a voxel, and as wide as the image. What
    lies before the next window is final; it is searched but for the last ``halo`` voxels, which wait for the other half of
    their neighbourhood, and is then dropped.

    Args:
        buffer_shape: ``(B, N)``.
        image_shape: ``*S``.
        axis: spatial axis along which the windows come.
        starts: of all windows along that axis, increasing.
        size: of a window along that axis.
        search: gets the finished slabs.
        dtype: of the buffer.
        device: of the buffer.
        sparse: whether windows may be missing; where none was, the response is 0.

    Attributes:
        buffer: ``(B, N, *S)``, but shorter along ``axis``.
    """

    def __init__(
        self,
        buffer_shape: Sequence[int],
        image_shape: Sequence[int],
        axis: int,
        starts: Sequence[int],
        size: int,
        search: CandidateSearch,
        dtype: torch.dtype,
        device: torch.device,
        sparse: bool = False,
    ) -> None:
        self.axis, self.length, self.halo, self.search = axis, image_shape[axis], search.halo[axis], search
        self.sparse = sparse
        self.fronts = [*starts[1:], self.length]
        shape = [*buffer_shape, *image_shape]
        shape[2 + axis] = min(self.length, size + 2 * self.halo)
        self.buffer = torch.full(shape, -math.inf, dtype=dtype, device=device)
        self.base = self.searched = self.final = 0

    def merge(self, values: torch.Tensor, item: int, start: Sequence[int]) -> None:
        """Merge a window ``(1, N, *K)`` of one image of the batch that begins at the voxel ``start``."""
        while self.fronts[0] <= start[self.axis]:
            self._advance(self.fronts.pop(0))
        place = list(start)
        place[self.axis] -= self.base
        merge_maximum(self.buffer[item : item + 1], values, place)

    def close(self) -> None:
        """Search what is left after the last window."""
        while self.fronts:
            self._advance(self.fronts.pop(0))

    def _advance(self, front: int) -> None:
        """Search all that is known once no window begins before ``front``, and move the buffer up to it."""
        if self.sparse:
            fill_uncovered(self._rows(self.final, front), -math.inf, 0.0)
        self.final = front
        stop = front if front == self.length else front - self.halo
        if stop <= self.searched:
            return
        self.search.add(self._rows(self.base, front), self.axis, self.base, self.searched, stop)
        self.searched = stop
        if front < self.length:
            self._move(min(stop - self.halo, self.length - self.buffer.shape[2 + self.axis]))

    def _rows(self, start: int, stop: int) -> torch.Tensor:
        return self.buffer.narrow(2 + self.axis, start - self.base, stop - start)

    def _move(self, base: int) -> None:
        shift = base - self.base
        if shift <= 0:
            return
        axis, size = 2 + self.axis, self.buffer.shape[2 + self.axis]
        for begin in range(0, size - shift, shift):  # in pieces that do not overlap, so that no copy is needed
            count = min(shift, size - shift - begin)
            self.buffer.narrow(axis, begin, count).copy_(self.buffer.narrow(axis, begin + shift, count))
        self.buffer.narrow(axis, max(0, size - shift), min(shift, size)).fill_(-math.inf)
        self.base = base
