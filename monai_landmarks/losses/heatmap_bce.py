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
"""Binary cross-entropy of heatmaps, from logits, to Gaussians at the landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from ..geometry import field_of_view
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

__all__ = ["HeatmapBCELoss", "heatmap_binary_cross_entropy"]


def heatmap_binary_cross_entropy(
    logits: torch.Tensor,
    points: torch.Tensor,
    sigma: float | Sequence[Any] | torch.Tensor = 3.0,
    missing: str = MissingLandmarks.MASK,
    outside: str = OutsideLandmarks.TAIL,
) -> torch.Tensor:
    r"""Sum, over the voxels of each map, the cross-entropy of its sigmoid to the Gaussian at its landmark.

    With :math:`f = 1 / (1 + e^{-u})` of the logits :math:`u`, and the Gaussian :math:`y` with peak 1, this is eq. 4 of Zhu
    et al. 2021 (GU2Net) for one landmark,

    .. math:: L_i = \sum_x -y \log f - (1 - y) \log(1 - f) = \sum_x \log(1 + e^u) - \sum_x u \, y

    The second sum is contracted with the Gaussian's 1D factors, so the target is never built; the graph keeps no tensor
    of the maps' size but the logits, and the backward pass makes one, the gradient :math:`f - y`. Gradients flow to the
    logits only.

    Args:
        logits: ``(B, N, *S)``; half precision is compared in float32.
        points: ``(B, N, D)`` voxel indices, NaN for missing.
        sigma: in voxels, anything broadcastable to ``(B, N, D)``, as in
            :func:`monai_landmarks.heatmaps.gaussian_heatmaps`.
        missing: "mask" leaves a missing landmark out (loss 0, no gradient); "zero" wants an empty map for it.
        outside: for a landmark whose place is known and not in the image, "tail" wants the part of its Gaussian that
            reaches into the image; "zero" wants an empty map; "mask" leaves it out.

    Returns:
        ``(B, N)``. The smallest possible value is the entropy of the target, above 0.

    Raises:
        LandmarkError: if shapes do not fit, or ``sigma`` is not positive.
        ValueError: for an unknown ``missing`` or ``outside``.

    Example:
        >>> import torch
        >>> heatmap_binary_cross_entropy(torch.zeros(1, 2, 5, 5), torch.tensor([[[2.0, 2.0], [float("nan")] * 2]]))
        tensor([[17.3287,  0.0000]])
    """
    return _cross_entropy(logits, points, sigma, missing, outside)[0]


def _cross_entropy(
    logits: torch.Tensor, points: torch.Tensor, sigma: Any, missing: str, outside: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the cross-entropy of each map and whether it is left out, both ``(B, N)``."""
    logits, points = check_maps(logits, points)
    shape = logits.shape[2:]
    points, left_out = points_to_draw(points, field_of_view(points, shape), missing, outside)
    factors = gaussian_axis_factors(points, shape, expand_sigma(sigma, points))
    return _CrossEntropy.apply(logits, left_out, *factors), left_out


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, left_out: torch.Tensor, *factors: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(logits, left_out, *factors)
        logits = logits.to(factors[0].dtype)
        inner = logits
        with torch.autocast(logits.device.type, enabled=False):  # else the products are taken in half precision
            for factor in reversed(factors):
                inner = torch.einsum("bn...i,bni->bn...", inner, factor)
        # beyond 40, log(1 + e^u) is u in float64 too; e^u is finite up to there
        outer = F.softplus(logits, threshold=40.0).flatten(2).sum(dim=-1)
        return (outer - inner).masked_fill(left_out, 0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits, left_out, *factors = ctx.saved_tensors
        each = (..., *[None] * (logits.ndim - 2))
        difference = logits.to(factors[0].dtype, copy=True).sigmoid_()
        rows = outer_product(factors[:-1]) if len(factors) > 2 else factors[0]
        columns = factors[-1].reshape(*factors[-1].shape[:2], *[1] * (len(factors) - 1), -1)
        difference.addcmul_(rows.unsqueeze(-1), columns, value=-1)
        difference.mul_(grad[each]).masked_fill_(left_out[each], 0)
        return difference.to(logits.dtype), None, *[None] * len(factors)


class HeatmapBCELoss(FixedWidthLoss):
    r"""Train logits so that their sigmoid is a Gaussian at each landmark (Zhu et al. 2021, GU2Net, eq. 4).

    .. math:: L = \sum_i \sum_x -y_i(x) \log f_i(x) - (1 - y_i(x)) \log(1 - f_i(x)),\quad
        y_i(x) = \exp\left(-\frac{\|x - x_i\|^2}{2\sigma^2}\right)

    The loss is taken on one heatmap for each landmark; for GU2Net that is the product of the local and the global one,
    whose logit the network returns. One module serves data sets with different numbers of landmarks.

    Differences from the paper and its public code: eq. 1 scales the Gaussian by :math:`1 / (\sqrt{2\pi}\sigma)`, which
    would end at 0.13 for a width of 3; the public code rescales it to peak 1, and so does this. The public code draws a
    patch of 18 x 18 pixels, from 9 before to 8 after a centre rounded to a whole pixel, and zeros elsewhere; here the
    Gaussian is centred at the true place between pixels and has no end (9 pixels from it, it is 0.011), so the loss is
    lowest for a map that is as exact as the annotation, and symmetric about it. The target has no background channel.

    Args:
        sigma: width of the targets in voxels: a number, ``[...]`` one for each axis, or ``[[...], ...]`` with a row for each
            landmark, of one value or of one for each axis.
        reduction: "sum" over voxels, landmarks and batch, as published: twice the batch, twice the loss; "mean" divides
            that by the number of voxels of all maps that are not left out, and is 0 if all are.
        missing: "mask" leaves missing landmarks out; "zero" wants an empty map for them.
        outside: "tail" wants of a landmark outside the image the part of its Gaussian in it; "zero" wants an empty map;
            "mask" leaves it out.

    Shapes: logits ``(B, N, *S)``, points ``(B, N, D)`` in voxels with NaN for missing, or :class:`WeightedPoints` -> scalar.

    Raises:
        LandmarkError: if shapes do not fit, or ``sigma`` is not positive.
        ValueError: for an unknown option.

    Example:
        >>> import torch
        >>> logits, points = torch.zeros(2, 19, 32, 32), torch.full((2, 19, 2), 16.0)
        >>> HeatmapBCELoss(sigma=3.0, reduction="mean")(logits, points)  # log 2, whatever the target
        tensor(0.6931)
        >>> HeatmapBCELoss(sigma=[3.0, 2.0])(logits, torch.full((2, 19, 2), float("nan")))
        tensor(0.)
    """

    def __init__(
        self,
        sigma: float | Sequence[Any] | torch.Tensor = 3.0,
        reduction: str = "sum",
        missing: str = MissingLandmarks.MASK,
        outside: str = OutsideLandmarks.TAIL,
    ) -> None:
        super().__init__(sigma, reduction, missing, outside)

    def forward(self, logits: torch.Tensor, target: LandmarkTarget) -> torch.Tensor:
        points, weights = split_target(target)
        values, left_out = _cross_entropy(logits, points, self.sigma, self.missing, self.outside)
        return self.reduce(weighted(values, weights), left_out, logits.shape[2:])
