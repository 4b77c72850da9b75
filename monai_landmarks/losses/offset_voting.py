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
"""Loss of a network that votes: a focal disc around each landmark, and inside it the way to the landmark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.utils import look_up_option
from torch import nn
from torch.nn import functional as F

from ..geometry import LandmarkError, field_of_view
from ..heatmaps.voting import check_radius, split_voting_maps
from .targets import (
    LandmarkTarget,
    MissingLandmarks,
    OutsideLandmarks,
    check_maps,
    points_to_draw,
    split_target,
    weighted,
)

__all__ = ["OffsetVotingLoss", "offset_voting_errors"]


def offset_voting_errors(
    maps: torch.Tensor,
    points: torch.Tensor,
    radius: float = 19.2,
    missing: str = MissingLandmarks.MASK,
    outside: str = OutsideLandmarks.TAIL,
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Give the two errors of each landmark: of its disc, and of the offsets inside it.

    With the disc (ball) of the voxels :math:`\|x - p\| < R`, in the image as far as it is, :math:`g = 1` inside and 0
    outside, :math:`f = 1 / (1 + e^{-u})` of the heatmap's logits :math:`u`, and the offsets :math:`o`,

    .. math:: L_h = \frac{1}{|S|} \sum_x -(1 - f)\, g \log f - f\, (1 - g) \log(1 - f),\quad
        L_o = \frac{1}{|g|} \sum_x g(x) \sum_d \left|o_d(x) - \frac{p_d - x_d}{R}\right|

    Args:
        maps: ``(B, (1 + D) * N, *S)``, see :func:`~monai_landmarks.heatmaps.split_voting_maps`; half precision is compared
            in float32.
        points: ``(B, N, D)`` voxel indices, NaN for missing.
        radius: R in voxels, at least 1.
        missing: "mask" leaves a missing landmark out (errors 0, no gradient); "zero" wants a heatmap without a disc.
        outside: for a landmark whose place is known and not in the image, "tail" wants the part of its disc that reaches
            into the image, with its offsets; "zero" wants a heatmap without a disc; "mask" leaves it out.

    Returns:
        :math:`L_h` and :math:`L_o`, both ``(B, N)``; the second is 0 for a landmark without a disc.

    Raises:
        LandmarkError: if shapes do not fit, or ``radius`` is below 1.
        ValueError: for an unknown ``missing`` or ``outside``.

    Example:
        >>> heatmap, offsets = offset_voting_errors(torch.zeros(1, 3, 9, 9), torch.full((1, 1, 2), 4.0), radius=1.5)
        >>> heatmap, offsets  # log(2) / 2; 9 voxels, 12 steps of 1 / 1.5
        (tensor([[0.3466]]), tensor([[0.8889]]))
    """
    return _errors(maps, points, radius, missing, outside)[:2]


def _errors(
    maps: torch.Tensor, points: torch.Tensor, radius: float, missing: str, outside: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Give both errors and whether a landmark is left out, ``(B, N)`` each."""
    logits, offsets = split_voting_maps(maps)
    logits, points = check_maps(logits, points)
    shape = logits.shape[2:]
    points, left_out = points_to_draw(points, field_of_view(points, shape), missing, outside)
    index, inside, aims = _disc(points, shape, radius)
    heatmap = _FocalError.apply(logits, left_out, index, inside, points.dtype)
    found = offsets.flatten(3).gather(-1, index.unsqueeze(1).expand(-1, len(shape), -1, -1))
    error = torch.where(inside.unsqueeze(1), found - aims, 0).abs().sum(dim=(1, 3))
    return heatmap, error / inside.sum(dim=-1).clamp(min=1), left_out


def _disc(points: torch.Tensor, shape: Sequence[int], radius: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cut a box around each disc: its voxels' flat indices, which are in the disc, both (B, N, K); (p - x) / R (B, D, N, K).

    The box is moved into the image, never cut: all have the same size, and what is not in the disc is told by distance.
    """
    lead = points.shape[:-1]
    index = torch.zeros(*lead, *[1] * len(shape), dtype=torch.long, device=points.device)
    squares = points.new_zeros(index.shape)
    steps = []
    for axis, size in enumerate(shape):
        width = min(math.floor(2 * radius) + 1, size)
        first = (points[..., axis] - radius).ceil().nan_to_num(0).clamp(0, size - width).long()
        place = [1] * len(shape)
        place[axis] = width
        voxel = (first.unsqueeze(-1) + torch.arange(width, device=points.device)).reshape(*lead, *place)
        step = (points[..., axis].reshape(*lead, *[1] * len(shape)) - voxel) / radius
        index, squares = index * size + voxel, squares + step.square()
        steps.append(step)
    inside = squares < 1  # False for a missing landmark: NaN is not below 1
    aims = torch.stack([step.expand(squares.shape).flatten(2) for step in steps], dim=1)
    return index.flatten(2), inside.flatten(2), aims


class _FocalError(torch.autograd.Function):
    """Mean over voxels of s(u) softplus(u), with u the logit or, in the disc, its negative; the graph keeps the slope."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        left_out: torch.Tensor,
        index: torch.Tensor,
        inside: torch.Tensor,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        sign = torch.where(inside, -1, 1).to(dtype)
        wrong = logits.flatten(2).to(dtype, copy=True)
        wrong.scatter_(-1, index, wrong.gather(-1, index) * sign)
        cost = F.softplus(wrong, threshold=40.0)  # beyond 40 it is u in float64 too
        wrong.sigmoid_()
        value = (wrong * cost).mean(dim=-1)  # not vecdot, which autocast takes in half precision
        slope = cost.addcmul_(cost, wrong, value=-1).add_(wrong).mul_(wrong)  # s' softplus + s softplus'
        slope.scatter_(-1, index, slope.gather(-1, index) * sign).masked_fill_(left_out.unsqueeze(-1), 0)
        ctx.save_for_backward(slope)
        ctx.shape, ctx.dtype = logits.shape, logits.dtype
        return value.masked_fill(left_out, 0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        back = slope * (grad / slope.shape[-1]).unsqueeze(-1)
        return back.reshape(ctx.shape).to(ctx.dtype), None, None, None, None


class OffsetVotingLoss(nn.Module):
    r"""Train a :class:`~monai_landmarks.networks.VotingUNet`: focal cross-entropy of a disc, L1 of the offsets in it.

    .. math:: L = \lambda L_h + L_o

    with both of :func:`offset_voting_errors`, the mean over the landmarks of the batch that are not left out; 0 if all are.
    A landmark whose disc the border cuts has as much weight as any other, and its part of the disc points to it.

    Differences from the public code: there the disc is a mask of whole pixels around a rounded centre, and near the left
    and upper border the *first* rows and columns of that mask are pasted where the last ones belong, so that disc and
    offsets point away from the landmark; here they are right up to the border and beyond it, around the place between the
    pixels. There the logarithm's argument is clamped at 1e-7; here it is taken from the logits and has no limit.

    Args:
        radius: R in voxels of the map, the same as the network's; the paper has 0.05 of the longest side, 19.2 of 384.
        heatmap_weight: :math:`\lambda`; public code: 2 for head and hand, 15 for chest, 5 for legs.
        missing: "mask" leaves missing landmarks out; "zero" wants a heatmap without a disc for them.
        outside: for a landmark whose place is known and not in the image, "tail" wants the part of its disc that reaches
            into the image; "zero" wants a heatmap without a disc; "mask" leaves it out.

    Shapes: maps ``(B, (1 + D) * N, *S)``, target ``(B, N, D)`` in voxels with NaN for missing, or
    :class:`~monai_landmarks.losses.WeightedPoints` -> scalar.

    Raises:
        LandmarkError: if shapes do not fit, ``radius`` is below 1, or ``heatmap_weight`` is negative.
        ValueError: for an unknown option.

    Example:
        >>> from monai_landmarks.losses.targets import WeightedPoints
        >>> loss, maps, points = OffsetVotingLoss(radius=5.0), torch.zeros(2, 6, 32, 32), torch.full((2, 2, 2), 15.5)
        >>> whole = loss(maps, points)
        >>> half = loss(maps, WeightedPoints(points, torch.full((2, 2), 0.5)))
        >>> torch.allclose(half, whole / 2)
        True
    """

    def __init__(
        self,
        radius: float = 19.2,
        heatmap_weight: float = 2.0,
        missing: str = MissingLandmarks.MASK,
        outside: str = OutsideLandmarks.TAIL,
    ) -> None:
        super().__init__()
        check_radius(radius)
        if not 0 <= heatmap_weight < math.inf:
            raise LandmarkError(f"`heatmap_weight` must be finite and not negative, got {heatmap_weight}.")
        self.radius, self.heatmap_weight = float(radius), float(heatmap_weight)
        self.missing = look_up_option(missing, MissingLandmarks)
        self.outside = look_up_option(outside, OutsideLandmarks)

    def forward(self, maps: torch.Tensor, target: LandmarkTarget) -> torch.Tensor:
        points, weights = split_target(target)
        heatmap, offsets, left_out = _errors(maps, points, self.radius, self.missing, self.outside)
        values = weighted(self.heatmap_weight * heatmap + offsets, weights)
        return values.sum() / (~left_out).sum().clamp(min=1)
