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
"""The highest voxel."""

from __future__ import annotations

import torch

from .peaks import FlaggedDecoded, find_peaks, finish

__all__ = ["decode_argmax"]


def decode_argmax(heatmaps: torch.Tensor, *, spatial_dims: int | None = None) -> FlaggedDecoded:
    """Return the index of each map's highest voxel; of several equal ones the first in C order, as ``numpy.argmax``.

    The error is up to half a voxel per axis by construction, 0.38 voxel (2D) and 0.48 voxel (3D) on average.

    Args:
        heatmaps: ``(B, N, *S)`` or ``(N, *S)``.
        spatial_dims: give 3 for ``(N, X, Y, Z)``; four axes are read as ``(B, N, H, W)`` otherwise.

    Returns:
        points ``(..., N, D)``, confidence ``(..., N)`` = the peak's value, and the flag: on the border (the truth may
        be outside), a flat top or empty.

    Raises:
        LandmarkError: for a shape that is neither.

    Example:
        >>> import torch
        >>> maps = torch.zeros(2, 5, 6)
        >>> maps[0, 3, 4] = 0.9
        >>> decode_argmax(maps).points
        tensor([[3., 4.],
                [nan, nan]])
    """
    peaks = find_peaks(heatmaps, spatial_dims)
    return finish(peaks, None, peaks.flat)
