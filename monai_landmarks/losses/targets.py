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
"""What losses on heatmaps share: their options, which landmarks have a target and where, and how much each counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from monai.utils import StrEnum, look_up_option
from torch import nn

from ..geometry import FieldOfView, LandmarkError, check_points, plain_tensor

__all__ = [
    "FixedWidthLoss",
    "LandmarkTarget",
    "MissingLandmarks",
    "OutsideLandmarks",
    "WeightedPoints",
    "check_maps",
    "points_to_draw",
    "split_target",
    "weighted",
]


class WeightedPoints(NamedTuple):
    """A target in which every landmark says how much it counts, for instance a pseudo-label its score.

    Every loss on landmarks takes it in place of plain points, so that an engine hands it over as any target. The
    landmark's own loss is multiplied by its weight; a mean still divides by the number of landmarks (voxels) that are
    not left out. So weights of 1 change nothing, and half the weight is half the gradient.

    Attributes:
        points: ``(B, N, D)`` voxel indices, NaN for missing.
        weights: ``(B, N)``, finite and not negative; that of a missing landmark counts where it has a target ("zero").
    """

    points: torch.Tensor
    weights: torch.Tensor


#: What losses compare with: points ``(B, N, D)``, or these with weights (also as a plain pair, as from JSON or a loader).
LandmarkTarget = torch.Tensor | WeightedPoints | Sequence[torch.Tensor]


class MissingLandmarks(StrEnum):
    """What a loss does with the heatmap of a landmark that is missing."""

    MASK = "mask"
    ZERO = "zero"


class OutsideLandmarks(StrEnum):
    """What a loss wants of the heatmap of a landmark that lies outside the image."""

    TAIL = "tail"
    ZERO = "zero"
    MASK = "mask"


def split_target(target: LandmarkTarget) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Tell the points of a target from the weights of the landmarks, None where it has none.

    Args:
        target: ``(B, N, D)`` points, or the pair of them and weights ``(B, N)``.

    Returns:
        points and weights.

    Raises:
        LandmarkError: if the target is neither, or a weight is negative, NaN or infinite.

    Example:
        >>> points = torch.zeros(1, 2, 3)
        >>> split_target(points)[1] is None, split_target(WeightedPoints(points, torch.tensor([[0.9, 0.2]])))[1]
        (True, tensor([[0.9000, 0.2000]]))
    """
    if isinstance(target, torch.Tensor):
        return target, None
    if not isinstance(target, Sequence) or len(target) != 2:
        raise LandmarkError(
            f"a target is points (B, N, D), or WeightedPoints(points, weights (B, N)), got {type(target).__name__}."
        )
    points, weights = map(plain_tensor, target)
    if weights.shape != points.shape[:-1]:
        raise LandmarkError(
            f"points {tuple(points.shape)} need one weight for each landmark, {tuple(points.shape[:-1])}, got "
            f"{tuple(weights.shape)}."
        )
    if not bool(((weights >= 0) & (weights < torch.inf)).all()):
        raise LandmarkError(
            "weights must be finite and not negative, such as the scores of pseudo-labels between 0 and 1; give a "
            "landmark without a score the weight 0, or 1 if a person has set it."
        )
    return points, weights


def weighted(values: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Multiply values of each landmark ``(B, N)`` with their weights; None changes nothing."""
    return values if weights is None else values * weights.to(values)


def check_maps(heatmaps: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Give both as plain tensors, the points on the maps' device and in the precision of the comparison.

    Args:
        heatmaps: ``(B, N, *S)``, or their logits.
        points: ``(B, N, D)`` voxel indices, NaN for missing.

    Returns:
        heatmaps in their own dtype, points in float64 if the maps are, else in float32.

    Raises:
        LandmarkError: if shapes do not fit.
    """
    heatmaps, points = plain_tensor(heatmaps), plain_tensor(points)
    check_points(points, heatmaps.ndim - 2)
    if heatmaps.shape[:2] != points.shape[:2]:
        raise LandmarkError(
            f"heatmaps {tuple(heatmaps.shape)} and points {tuple(points.shape)} must agree in batch and landmarks: the "
            f"network predicts {heatmaps.shape[1]} landmarks, the data has {points.shape[1]}."
        )
    dtype = torch.float64 if heatmaps.dtype == torch.float64 else torch.float32
    return heatmaps, points.to(device=heatmaps.device, dtype=dtype)


def points_to_draw(
    points: torch.Tensor, state: torch.Tensor, missing: str, outside: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply the two options: which targets are empty, and which maps the loss leaves out.

    Args:
        points: ``(B, N, D)`` voxel indices.
        state: ``(B, N)`` values of :class:`FieldOfView`.
        missing: see :class:`MissingLandmarks`.
        outside: see :class:`OutsideLandmarks`.

    Returns:
        points, NaN where the target is empty; and ``(B, N)``, true where a map is left out.

    Raises:
        ValueError: for an unknown option.
    """
    absent, beyond = state == FieldOfView.MISSING, state == FieldOfView.OUTSIDE
    beyond_is = look_up_option(outside, OutsideLandmarks)
    left_out = absent & (look_up_option(missing, MissingLandmarks) == MissingLandmarks.MASK)
    left_out = left_out | (beyond & (beyond_is == OutsideLandmarks.MASK))
    if beyond_is != OutsideLandmarks.TAIL:
        points = points.masked_fill(beyond.unsqueeze(-1), torch.nan)  # a missing landmark draws nothing
    return points, left_out


class FixedWidthLoss(nn.Module):
    """Base of losses on maps whose Gaussian targets have fixed widths: checks the options, and reduces.

    Args:
        sigma: width of the targets in voxels: a number, one for each axis, or a row for each landmark.
        reduction: "sum", or "mean" over the voxels of all maps that are not left out, 0 if all are.
        missing: see :class:`MissingLandmarks`.
        outside: see :class:`OutsideLandmarks`.

    Raises:
        LandmarkError: if ``sigma`` is not positive.
        ValueError: for an unknown option.
    """

    def __init__(self, sigma: float | Sequence[Any] | torch.Tensor, reduction: str, missing: str, outside: str) -> None:
        super().__init__()
        widths = torch.as_tensor(sigma)
        if not bool((widths > 0).all()):
            raise LandmarkError(f"`sigma` must be positive, the smallest is {widths.min().item():g}.")
        self.sigma = sigma
        self.reduction = look_up_option(reduction, {"sum", "mean"})
        self.missing = look_up_option(missing, MissingLandmarks)
        self.outside = look_up_option(outside, OutsideLandmarks)

    def reduce(self, values: torch.Tensor, left_out: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Make one number of the sums of all maps ``(B, N)``, of which those left out are 0; ``shape`` is a map's."""
        total = values.sum()
        return total if self.reduction == "sum" else total / (shape.numel() * (~left_out).sum()).clamp(min=1)
