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
"""Centre of mass around the peak, without its bias."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .gaussian_fit import DEFAULT_WINDOW
from .moments import decode_moment
from .peaks import FlaggedDecoded

__all__ = ["decode_center_of_mass"]


def decode_center_of_mass(
    heatmaps: torch.Tensor, *, window: int | Sequence[int] = DEFAULT_WINDOW, spatial_dims: int | None = None
) -> FlaggedDecoded:
    r"""Return the mean position of the voxels around the highest one, weighted by their values, freed of its bias.

    .. math:: s(h) = \frac{\sum_x x\, W(x) \max(h(x), 0)}{\sum_x W(x) \max(h(x), 0)}

    Common code takes :math:`s` over a fixed box, or over the whole map, for the position: it is drawn towards the
    middle of the box, towards the inside of the image at its border, and towards everything else in the map. Here the
    window is an ellipse of 3 sigma that follows the peak, and the position is the centre :math:`\mu` of the Gaussian
    that has the same :math:`s` in the same window (see :func:`~monai_landmarks.heatmaps.moments.decode_moment`),
    which is free of bias up to the border.

    A peak without a width (no Gaussian fits) is decoded by its plain windowed mean and flagged; so is a saturated
    plateau that reaches the rim of the window.

    Args:
        heatmaps: ``(B, N, *S)`` or ``(N, *S)``. Negative values do not count.
        window: odd width in voxels of the box that is looked at, for all axes or each: 3 to 6 sigma is a good width.
        spatial_dims: give 3 for ``(N, X, Y, Z)``; four axes are read as ``(B, N, H, W)`` otherwise.

    Returns:
        points ``(..., N, D)``, confidence ``(..., N)`` = the peak's value, and the flag: on the border, refused or
        empty.

    Raises:
        LandmarkError: for a shape that is neither, or an even ``window``.

    Example:
        >>> import torch
        >>> from monai_landmarks.heatmaps import gaussian_heatmaps
        >>> maps = gaussian_heatmaps(torch.tensor([[7.3, 0.2]]), (16, 16), sigma=2.0)
        >>> decode_center_of_mass(maps).points
        tensor([[7.3000, 0.2000]])
    """
    return decode_moment(heatmaps, lambda value: value.clamp(min=0), torch.ones_like, window, spatial_dims)
