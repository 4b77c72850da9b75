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
"""The Adaptive Wing loss, whose curve near 0 depends on the target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.layers.factories import Pool

from ..geometry import LandmarkError
from .heatmap_regression import HeatmapRegressionLoss, check_positive

__all__ = ["AdaptiveWingLoss", "adaptive_wing", "weighted_loss_map"]

#: Of the weighted loss map (Wang et al. 2019): side of the dilation, and what of the result is foreground.
DILATION, FOREGROUND = 3, 0.2


def adaptive_wing(
    difference: torch.Tensor,
    target: torch.Tensor,
    omega: float = 14.0,
    theta: float = 0.5,
    epsilon: float = 1.0,
    alpha: float = 2.1,
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Give the Adaptive Wing loss and its derivative by the prediction.

    Up to :math:`|d| = \theta` it is :math:`w(|d|) = \omega \ln(1 + |d / \epsilon|^{\alpha - t})`, and from there the
    tangent of that curve at :math:`\theta`, :math:`w(\theta) + w'(\theta) (|d| - \theta)`; the paper writes the tangent as
    :math:`A |d| - C`.

    Args:
        difference: prediction minus target, any shape.
        target: between 0 and 1.
        omega, theta, epsilon, alpha: see :class:`AdaptiveWingLoss`.

    Returns:
        value and derivative of every voxel.
    """
    size, power = difference.abs(), alpha - target
    near = size.clamp(max=theta).div_(epsilon)
    slope = near.pow(power - 1)  # near ** power, divided by near
    curve = near.mul_(slope)
    slope.mul_(power).mul_(omega / epsilon).div_(1 + curve)
    value = curve.log1p_().mul_(omega).addcmul_(slope, size.sub_(theta).clamp_(min=0))
    return value, slope.mul_(difference.sign())


def weighted_loss_map(target: torch.Tensor, weight: float = 10.0) -> torch.Tensor:
    r"""Weight foreground and the voxels around it up: :math:`1 + W M`, with M the mask of the foreground.

    M is 1 where the target, dilated by 3 voxels along each axis (the largest of the neighbours counts), is at least 0.2.

    Args:
        target: ``(B, N, *S)``.
        weight: W.

    Returns:
        ``(B, N, *S)``.

    Example:
        >>> import torch
        >>> weighted_loss_map(torch.tensor([[[[0.0, 0.0, 0.1, 0.9, 0.1]]]]))
        tensor([[[[ 1.,  1., 11., 11., 11.]]]])
    """
    dilated = Pool[Pool.MAX, target.ndim - 2](DILATION, stride=1, padding=DILATION // 2)(target)
    return (dilated >= FOREGROUND).to(target.dtype).mul_(weight).add_(1)


class AdaptiveWingLoss(HeatmapRegressionLoss):
    r"""Train heatmaps with a loss that is steep for small errors near the landmark and flat for those far from it.

    Wang et al. 2019 (Adaptive Wing Loss for Robust Face Alignment via Heatmap Regression), for the
    difference :math:`d = f - t` of prediction and target,

    .. math:: AWing = \begin{cases} \omega \ln\left(1 + |d / \epsilon|^{\alpha - t}\right) & |d| < \theta \\
        A |d| - C & \text{else} \end{cases}

    .. math:: A = \frac{\omega (\alpha - t) (\theta / \epsilon)^{\alpha - t - 1}}
        {\epsilon \left(1 + (\theta / \epsilon)^{\alpha - t}\right)},\quad
        C = \theta A - \omega \ln\left(1 + (\theta / \epsilon)^{\alpha - t}\right)

    with the target of :class:`HeatmapRegressionLoss`; A and C make value and slope continuous at :math:`\theta`. FARNet
    compares its loss with this one at the defaults, which are those of Wang et al. (table 6).

    Args:
        omega: height of the curve.
        theta: error at which the curve becomes a line.
        epsilon: error at which the curve bends.
        alpha: exponent where the target is 0; it is ``alpha - 1`` where the target is 1. Above 2, so that the slope
            vanishes with the error everywhere.
        map_weight: W of the weighted loss map, :func:`weighted_loss_map`; Wang et al. take 10. With 0 all voxels weigh
            alike. The mean divides by the number of voxels, not by the sum of weights.
        sigma, reduction, missing, outside: see :class:`HeatmapRegressionLoss`, also for masks and memory.

    Shapes: heatmaps ``(B, N, *S)``, points ``(B, N, D)`` in voxels of that map with NaN for missing -> scalar.

    Raises:
        LandmarkError: if a constant is not positive, ``alpha`` not above 2 or ``map_weight`` negative, or if shapes do
            not fit.
        ValueError: for an unknown option.

    Example:
        >>> import torch
        >>> loss = AdaptiveWingLoss(sigma=0.1, reduction="sum")
        >>> loss(torch.full((1, 1, 1, 1), 0.9), torch.zeros(1, 1, 2))  # 14 * log(1 + 0.1 ** 1.1)
        tensor(1.0701)
    """

    def __init__(
        self,
        omega: float = 14.0,
        theta: float = 0.5,
        epsilon: float = 1.0,
        alpha: float = 2.1,
        map_weight: float = 0.0,
        sigma: float | Sequence[Any] | torch.Tensor = 10.0,
        **options: Any,
    ) -> None:
        super().__init__(sigma, **options)
        check_positive(omega=omega, theta=theta, epsilon=epsilon, alpha=alpha)
        if alpha <= 2:
            raise LandmarkError(
                f"`alpha` must be above 2, got {alpha}: the exponent at a landmark is alpha - 1, and with 1 or less the "
                "slope does not vanish with the error. Wang et al. take 2.1."
            )
        if not 0 <= map_weight < math.inf:
            raise LandmarkError(
                f"`map_weight` must be finite and not negative, got {map_weight}; 0 weights all voxels alike."
            )
        self.constants = {"omega": omega, "theta": theta, "epsilon": epsilon, "alpha": alpha}
        self.map_weight = map_weight

    def formula(self, difference: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, slope = adaptive_wing(difference, target, **self.constants)
        if self.map_weight > 0:
            weight = weighted_loss_map(target, self.map_weight)
            value, slope = value.mul_(weight), slope.mul_(weight)
        return value, slope
