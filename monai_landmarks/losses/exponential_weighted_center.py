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
"""Squared error that counts more the nearer a voxel is to its landmark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ..geometry import LandmarkError
from .heatmap_regression import HeatmapRegressionLoss

__all__ = ["ExponentialWeightedCenterLoss", "exponential_weighted_center"]


def exponential_weighted_center(
    difference: torch.Tensor, target: torch.Tensor, alpha: float = 40.0
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Give :math:`d^2 \alpha^t` and its derivative by the prediction, :math:`2 d \alpha^t` (FARNet eq. 3).

    Args:
        difference: prediction minus target, any shape; overwritten.
        target: between 0 and 1; overwritten.
        alpha: weight where the target is 1; it is 1 where the target is 0.

    Returns:
        value and derivative of every voxel, in the memory of the arguments.
    """
    slope = target.mul_(math.log(alpha)).exp_().mul_(difference)
    return difference.mul_(slope), slope.mul_(2)


class ExponentialWeightedCenterLoss(HeatmapRegressionLoss):
    r"""Train heatmaps with a squared error that is weighted up near the landmark (FARNet eq. 3).

    .. math:: L = \frac{1}{K W H} \sum_i \sum_x \left(f_i(x) - t_i(x)\right)^2 \alpha^{t_i(x)}

    with the target :math:`t_i` of :class:`HeatmapRegressionLoss`: the weight is ``alpha`` at a landmark's own place and
    falls to 1 far from it. With ``alpha=1`` this is :class:`HeatmapMSELoss`; below 1 it counts the centre less.

    Differences from the paper and its public code: the target lies where the landmark is (theirs is one pixel off), and
    missing landmarks are left out of sum and mean (theirs cannot be missing). Figure 7 also gives a value for ``alpha =
    0``, whose formula has weight 0 wherever the target is not 0; that is refused.

    Args:
        alpha: weight of the centre.
        sigma, reduction, missing, outside: see :class:`HeatmapRegressionLoss`, also for masks and memory.

    Shapes: heatmaps ``(B, N, *S)``, points ``(B, N, D)`` in voxels of that map with NaN for missing -> scalar.

    Raises:
        LandmarkError: if ``alpha`` or ``sigma`` is not positive, or shapes do not fit.
        ValueError: for an unknown option.

    Example:
        >>> import torch
        >>> loss = ExponentialWeightedCenterLoss(alpha=40.0, sigma=0.1, reduction="sum")
        >>> value = loss(torch.zeros(1, 2, 5, 5), torch.tensor([[[2.0, 2.0], [float("nan")] * 2]]))
        >>> round(value.item(), 3)  # 1 ** 2 * 40 ** 1
        40.0
    """

    def __init__(self, alpha: float = 40.0, sigma: float | Sequence[Any] | torch.Tensor = 10.0, **options: Any) -> None:
        super().__init__(sigma, **options)
        if not 0 < alpha < math.inf:
            raise LandmarkError(
                f"`alpha` must be positive and finite, got {alpha}: it is the weight of the voxel at the landmark, "
                "against 1 far from it. Give alpha=1 to weight all voxels alike (mean squared error)."
            )
        self.alpha = alpha

    def formula(self, difference: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return exponential_weighted_center(difference, target, self.alpha)
