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
"""Losses that compare each heatmap, voxel by voxel, with a Gaussian of peak 1 at its landmark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..geometry import LandmarkError, field_of_view
from ..heatmaps.gaussian import expand_sigma, gaussian_axis_factors, outer_product
from .targets import (
    FixedWidthLoss,
    LandmarkTarget,
    MissingLandmarks,
    OutsideLandmarks,
    check_maps,
    points_to_draw,
    split_target,
    weighted,
)

__all__ = [
    "HeatmapL1Loss",
    "HeatmapMSELoss",
    "HeatmapRegressionLoss",
    "HeatmapSmoothL1Loss",
    "absolute_error",
    "check_positive",
    "smooth_absolute_error",
    "squared_error",
]

#: From difference and target of every voxel, loss and its derivative by the prediction. It may write into both.
Formula = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def check_positive(**values: float) -> None:
    """Refuse constants of a formula that are not positive and finite.

    Args:
        **values: by the argument's name.

    Raises:
        LandmarkError: naming the first that is not.
    """
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise LandmarkError(f"`{name}` must be positive and finite, got {value}.")


def squared_error(difference: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Give :math:`d^2` and its derivative :math:`2 d` (FARNet eq. 2).

    Args:
        difference: prediction minus target, any shape; overwritten.
        target: its memory takes one of the results; what it says does not matter here.

    Returns:
        value and derivative of every voxel, in the memory of the arguments.
    """
    return torch.mul(difference, difference, out=target), difference.mul_(2)


def absolute_error(difference: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Give :math:`|d|` and its derivative :math:`\operatorname{sign} d`, 0 at 0.

    Args:
        difference: prediction minus target, any shape; overwritten.
        target: its memory takes one of the results; what it says does not matter here.

    Returns:
        value and derivative of every voxel, in the memory of the arguments.
    """
    return torch.abs(difference, out=target), difference.sign_()


def smooth_absolute_error(
    difference: torch.Tensor, target: torch.Tensor, beta: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Give :math:`d^2 / (2\beta)` up to :math:`|d| = \beta` and :math:`|d| - \beta / 2` from there, and the derivative.

    With :math:`s = d / \beta` clipped to [-1, 1], which is the derivative, both are :math:`s (d - s \beta / 2)`.

    Args:
        difference: prediction minus target, any shape; overwritten.
        target: its memory takes one of the results; what it says does not matter here.
        beta: where the parabola becomes a line.

    Returns:
        value and derivative of every voxel, in the memory of the arguments.
    """
    slope = torch.div(difference, beta, out=target).clamp_(-1, 1)
    return difference.sub_(slope, alpha=beta / 2).mul_(slope), slope


class _MapErrors(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, heatmaps: torch.Tensor, left_out: torch.Tensor, formula: Formula, *factors: torch.Tensor
    ) -> torch.Tensor:
        target = outer_product(factors)
        difference = heatmaps - target  # in the precision of the target, which is not below float32
        difference.masked_fill_(left_out[(..., *[None] * len(factors))], 0)
        value, slope = formula(difference, target)
        ctx.save_for_backward(slope)
        ctx.dtype = heatmaps.dtype
        return value.flatten(2).sum(dim=-1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        factors = slope.ndim - 2
        return (slope * grad[(..., *[None] * factors)]).to(ctx.dtype), None, None, *[None] * factors


class HeatmapRegressionLoss(FixedWidthLoss):
    r"""What losses on heatmaps have in common that are a sum over voxels of a function of prediction and target.

    The target of a landmark at :math:`x_i` is :math:`t_i(x) = \exp(-\|x - x_i\|^2 / (2\sigma^2))`, centred at the true
    place between voxels, on the grid whose first voxel is 0, without an end. It is made inside, on the maps' device.
    FARNet's public code counts its grid from 1, which draws every target one pixel before its landmark.

    A loss is 0 and has a gradient of exactly 0 on a map that is left out, whatever the network says there; a subclass
    must give 0 and 0 where prediction and target agree. Half precision is compared in float32. Gradients flow to the
    heatmaps only. Forward makes two tensors of the maps' size in the precision of the comparison (adaptive wing: seven), of
    which the graph keeps one, the derivative; backward makes one, the gradient.

    A subclass gives :meth:`formula`.

    Args:
        sigma: width of the targets in voxels of the map: a number, ``[...]`` one for each axis, or ``[[...], ...]`` with
            a row for each landmark, of one value or of one for each axis. FARNet takes 10 at both resolutions.
        reduction: "mean" divides the sum by the number of voxels of all maps of the batch that are not left out, so every
            landmark that counts has the same weight wherever it is in the batch; it is 0 if all are left out. With all
            landmarks there it is torch's mean. "sum" is over voxels, landmarks and batch.
        missing: "mask" leaves missing landmarks out; "zero" wants an empty map for them.
        outside: for a landmark whose place is known and not in the image, "tail" wants the part of its Gaussian that
            reaches into the image; "zero" wants an empty map; "mask" leaves it out.

    Shapes: heatmaps ``(B, N, *S)``, points ``(B, N, D)`` in voxels of that map with NaN for missing, or
    :class:`WeightedPoints` -> scalar.

    Raises:
        LandmarkError: if shapes do not fit, or ``sigma`` is not positive.
        ValueError: for an unknown option.
    """

    def __init__(
        self,
        sigma: float | Sequence[Any] | torch.Tensor = 10.0,
        reduction: str = "mean",
        missing: str = MissingLandmarks.MASK,
        outside: str = OutsideLandmarks.TAIL,
    ) -> None:
        super().__init__(sigma, reduction, missing, outside)

    def formula(self, difference: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give loss and derivative by the prediction of every voxel ``(B, N, *S)``; both arguments may be overwritten."""
        raise NotImplementedError

    def forward(self, heatmaps: torch.Tensor, target: LandmarkTarget) -> torch.Tensor:
        points, weights = split_target(target)
        heatmaps, points = check_maps(heatmaps, points)
        shape = heatmaps.shape[2:]
        points, left_out = points_to_draw(points, field_of_view(points, shape), self.missing, self.outside)
        factors = gaussian_axis_factors(points, shape, expand_sigma(self.sigma, points))
        values = _MapErrors.apply(heatmaps, left_out, self.formula, *factors)
        return self.reduce(weighted(values, weights), left_out, shape)


class HeatmapMSELoss(HeatmapRegressionLoss):
    r"""Train heatmaps with the mean squared difference to Gaussians at the landmarks (FARNet eq. 2).

    .. math:: L = \frac{1}{K W H} \sum_i \sum_x \left(f_i(x) - t_i(x)\right)^2

    :class:`HeatmapL2Loss` is its sum, with learnable widths. Arguments, masks and memory are those of
    :class:`HeatmapRegressionLoss`.

    Example:
        >>> import torch
        >>> HeatmapMSELoss(sigma=0.1)(torch.zeros(1, 2, 5, 5), torch.tensor([[[2.0, 2.0], [float("nan")] * 2]]))
        tensor(0.0400)
    """

    def formula(self, difference: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return squared_error(difference, target)


class HeatmapL1Loss(HeatmapRegressionLoss):
    r"""Train heatmaps with the mean absolute difference to Gaussians at the landmarks (FARNet table 6).

    .. math:: L = \frac{1}{K W H} \sum_i \sum_x \left|f_i(x) - t_i(x)\right|

    The derivative of a voxel that agrees is 0. Arguments, masks and memory are those of :class:`HeatmapRegressionLoss`.

    Example:
        >>> import torch
        >>> HeatmapL1Loss(sigma=0.1, reduction="sum")(torch.full((1, 1, 5, 5), 0.5), torch.full((1, 1, 2), 2.0))
        tensor(12.5000)
    """

    def formula(self, difference: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return absolute_error(difference, target)


class HeatmapSmoothL1Loss(HeatmapRegressionLoss):
    r"""Train heatmaps with a parabola near their Gaussian and a line away from it (FARNet table 6).

    .. math:: \ell(d) = \begin{cases} d^2 / (2\beta) & |d| < \beta \\ |d| - \beta / 2 & \text{else} \end{cases},\quad
        L = \frac{1}{K W H} \sum_i \sum_x \ell\left(f_i(x) - t_i(x)\right)

    The paper does not say its ``beta``; torch's is 1. With targets between 0 and 1 it is then half of the squared error
    until a prediction is off by more than 1, so a smaller one is what makes a difference.

    Args:
        beta: where the parabola becomes a line.
        sigma, reduction, missing, outside: see :class:`HeatmapRegressionLoss`, also for masks and memory.

    Raises:
        LandmarkError: if ``beta`` is not positive.

    Example:
        >>> import torch
        >>> loss = HeatmapSmoothL1Loss(beta=0.25, sigma=0.1, reduction="sum")
        >>> loss(torch.zeros(1, 1, 5, 5), torch.full((1, 1, 2), 2.0))
        tensor(0.8750)
    """

    def __init__(self, beta: float = 1.0, sigma: float | Sequence[Any] | torch.Tensor = 10.0, **options: Any) -> None:
        super().__init__(sigma, **options)
        check_positive(beta=beta)
        self.beta = beta

    def formula(self, difference: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return smooth_absolute_error(difference, target, self.beta)
