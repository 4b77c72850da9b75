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
"""Soft-argmax around the peak, without its bias."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..geometry import LandmarkError
from .gaussian_fit import DEFAULT_WINDOW
from .moments import decode_moment
from .peaks import FlaggedDecoded

__all__ = ["decode_local_soft_argmax"]


def decode_local_soft_argmax(
    heatmaps: torch.Tensor,
    *,
    window: int | Sequence[int] = DEFAULT_WINDOW,
    temperature: float = 0.2,
    spatial_dims: int | None = None,
) -> FlaggedDecoded:
    r"""Return the softmax-weighted mean position of the voxels around the highest one, freed of its bias.

    .. math:: s(h) = \frac{\sum_x x\, W(x)\, e^{h(x) / (T h_{max})}}{\sum_x W(x)\, e^{h(x) / (T h_{max})}}

    What differs from common code: values are taken relative to the peak, so that the result does not depend on the
    map's scale and nothing overflows; the window is an ellipse of 3 sigma that follows the peak, where a soft-argmax
    of the whole map of a Gaussian returns the middle of the image; and the position is the centre :math:`\mu` of the
    Gaussian that has the same :math:`s` in the same window (see
    :func:`~monai_landmarks.heatmaps.moments.decode_moment`), which is free of bias up to the border.

    A peak without a width (no Gaussian fits) is decoded by its plain windowed mean and flagged; so is a saturated
    plateau that reaches the rim of the window.

    Args:
        heatmaps: ``(B, N, *S)`` or ``(N, *S)``. window: odd width in voxels of the box that is looked at, for all
        axes or each: 3 to 6 sigma is a good width. temperature: T, as a share of the peak. Small ones look at the top
        only, which is robust against a background and
            against neighbours; large ones average over more voxels, which is robust against noise.
        spatial_dims: give 3 for ``(N, X, Y, Z)``; four axes are read as ``(B, N, H, W)`` otherwise.

    Returns:
        points ``(..., N, D)``, confidence ``(..., N)`` = the peak's value, and the flag: on the border, refused or
        empty.

    Raises:
        LandmarkError: for a shape that is neither, an even ``window``, or a ``temperature`` below 0.01.

    Example:
        >>> import torch
        >>> from monai_landmarks.heatmaps import gaussian_heatmaps
        >>> maps = gaussian_heatmaps(torch.tensor([[7.3, 0.2]]), (16, 16), sigma=2.0)
        >>> decode_local_soft_argmax(100 * maps).points
        tensor([[7.3000, 0.2000]])
    """
    if not 0.01 <= temperature < math.inf:
        raise LandmarkError(
            f"`temperature` is a share of the peak's value and must be at least 0.01, got {temperature}: below that "
            "only one voxel counts, which is method='argmax'."
        )
    return decode_moment(
        heatmaps,
        lambda value: ((value - 1) / temperature).exp(),
        lambda value: value / temperature,
        window,
        spatial_dims,
    )
