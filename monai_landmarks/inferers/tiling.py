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
"""Where windows lie in an image of any size."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["overlap_voxels", "window_starts"]


def window_starts(length: int, size: int, overlap: int = 0) -> list[int]:
    """Return the first voxels of the windows that cover one axis.

    They are ``size - overlap`` apart, the last one is flush with the end of the axis, and on an axis shorter than the
    window there is one, centred: it begins before voxel 0 (Payer et al. 2019, 4.2, as their code does it).

    Args:
        length: of the axis in voxels.
        size: of the window.
        overlap: of neighbouring windows in voxels.

    Returns:
        strictly increasing whole numbers.

    Example:
        >>> window_starts(500, 192, 96), window_starts(150, 192)
        ([0, 96, 192, 288, 308], [-21])
    """
    if length <= size:
        return [-((size - length) // 2)]
    return [*range(0, length - size, size - overlap), length - size]


def overlap_voxels(overlap: float | Sequence[float], roi_size: Sequence[int]) -> tuple[int, ...]:
    """Return by how many voxels neighbouring windows overlap along each axis.

    Args:
        overlap: one number or one per axis: below 1 a share of the window (rounded down), a whole number of 1 or
            more voxels.
        roi_size: of the window.

    Raises:
        ValueError: for another count, a negative number, a share that is no share, or an overlap of the whole window.

    Example:
        >>> overlap_voxels((0.5, 40), (192, 64))
        (96, 40)
    """
    wanted = tuple(overlap) if isinstance(overlap, Sequence) else (overlap,) * len(roi_size)
    if len(wanted) != len(roi_size):
        raise ValueError(f"`overlap` must be one number or one per axis ({len(roi_size)}), got {overlap!r}.")
    for given, size in zip(wanted, roi_size, strict=True):
        if not 0 <= given < max(1, size) or (given >= 1 and given % 1):
            raise ValueError(
                f"`overlap` must be a share in [0, 1) or a whole number of voxels below the window's {size}, got {given!r}."
            )
    return tuple(int(given * size if given < 1 else given) for given, size in zip(wanted, roi_size, strict=True))
