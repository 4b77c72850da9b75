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
"""Overlapping windows are merged by their maximum."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.inferers import Merger

from ..geometry import plain_tensor

__all__ = ["MaxMerger"]


class MaxMerger(Merger):
    """Merge patches by the maximum of their responses, for MONAI's ``PatchInferer``.

    A mean, as of MONAI's ``AvgMerger`` and ``SlidingWindowInferer``, lowers a peak that one window saw cut off; the
    maximum keeps it (Payer et al. 2019, 4.2). Responses may be negative.

    ``PatchInferer(SlidingWindowSplitter(...))`` pads the image at its far end only, with zeros unless told (give its
    ``pad_value`` the intensity of air), and loses the image's affine;
    :class:`~monai_landmarks.inferers.LandmarkSlidingWindowInferer` does neither.

    Args:
        merged_shape: ``(B, N, *S)`` of the padded image, given by ``PatchInferer``.
        cropped_shape: ``(B, N, *S)`` of what is returned, given by ``PatchInferer``; None is ``merged_shape``.
        value_dtype: of the merged tensor, or its name.
        device: of the merged tensor.
        fill: below every response.
        uncovered: what becomes of voxels that no patch covered (sparse patches): those that are ``fill`` in all channels.

    Example:
        >>> merger = MaxMerger((1, 1, 5))
        >>> merger.aggregate(torch.tensor([[[-3.0, -1.0, -2.0]]]), [0])
        >>> merger.aggregate(torch.tensor([[[-5.0, -1.5]]]), [2])
        >>> merger.finalize()
        tensor([[[-3.0000, -1.0000, -2.0000, -1.5000,  0.0000]]])
    """

    def __init__(
        self,
        merged_shape: Sequence[int],
        cropped_shape: Sequence[int] | None = None,
        value_dtype: torch.dtype | str = torch.float32,
        device: torch.device | str = "cpu",
        fill: float = -math.inf,
        uncovered: float = 0.0,
    ) -> None:
        super().__init__(merged_shape, cropped_shape, device)
        self.fill, self.uncovered = float(fill), float(uncovered)
        self.values = torch.full(self.merged_shape, self.fill, dtype=as_dtype(value_dtype), device=device)

    def aggregate(self, values: torch.Tensor, location: Sequence[int]) -> None:
        """Merge the responses ``(B, N, *K)`` of the patch that begins at the voxel ``location``.

        Raises:
            ValueError: after :meth:`finalize`.
        """
        if self.is_finalized:
            raise ValueError("`MaxMerger` is already finalized: make a new one for the next image.")
        merge_maximum(self.values, plain_tensor(values).detach(), location)

    def finalize(self) -> torch.Tensor:
        """Return the merged responses, cropped to ``cropped_shape``; later calls return the same tensor."""
        if not self.is_finalized:
            self.values = self.values[tuple(slice(size) for size in self.cropped_shape)]
            fill_uncovered(self.values, self.fill, self.uncovered)
            self.is_finalized = True
        return self.values


def as_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """Return a floating torch dtype given by itself or by its name, as in a JSON file."""
    chosen = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
        raise ValueError(f"the dtype must be a floating one, such as float32 or bfloat16, got {dtype!r}.")
    return chosen


def merge_maximum(merged: torch.Tensor, values: torch.Tensor, start: Sequence[int]) -> None:
    """Raise ``merged (B, N, *S)`` in place to ``values (B, N, *K)`` from voxel ``start`` on; what sticks out is dropped."""
    for axis, first in enumerate(start, 2):
        low = max(0, -int(first))
        size = min(values.shape[axis] - low, merged.shape[axis] - int(first) - low)
        merged = merged.narrow(axis, int(first) + low, size)
        values = values.narrow(axis, low, size)
    torch.maximum(merged, values.to(merged), out=merged)


def fill_uncovered(merged: torch.Tensor, fill: float, uncovered: float) -> None:
    """Put ``uncovered`` in place of ``fill`` where all channels of ``merged (B, N, *S)`` still have that."""
    mask = merged.amax(dim=1, keepdim=True) == fill
    if bool(mask.any()):
        merged.masked_fill_(mask, uncovered)
