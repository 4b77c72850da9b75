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
"""Supervision of a network that returns its heatmaps at two resolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..geometry import LandmarkError
from .targets import LandmarkTarget, WeightedPoints, check_maps, split_target

__all__ = ["CoarseToFineLoss", "points_on_map"]

Loss = Callable[[torch.Tensor, LandmarkTarget], torch.Tensor]


def points_on_map(points: torch.Tensor, shape: Sequence[int], map_shape: Sequence[int]) -> torch.Tensor:
    r"""Move points from the voxels of an image to those of a coarser map of it.

    .. math:: x' = \left(x + \tfrac12\right) / s - \tfrac12

    on each axis, with s voxels of the image in one of the map: both begin at the same outer edge, as in pooling and in
    interpolation with ``align_corners=False``. Voxel j of a map of half the size has its centre at 2 j + 0.5, between two
    voxels. Where the size of the map is that of the image divided by a whole number, and rounded down or up (an odd image
    pooled, or padded first), s is that number; else it is the ratio of the sizes, so that both end at the same edge too.

    Args:
        points: ``(..., N, D)`` floating, voxels of the grid ``shape``, NaN for missing.
        shape: ``D`` sizes of the image.
        map_shape: ``D`` sizes of the map, nowhere larger.

    Returns:
        ``(..., N, D)``, voxels of the grid ``map_shape``.

    Example:
        >>> import torch
        >>> points_on_map(torch.tensor([[0.5, 2.5, 7.0]]), (8, 8, 8), (4, 4, 8))
        tensor([[0., 1., 7.]])
    """
    strides = [_stride(size, map_size) for size, map_size in zip(shape, map_shape, strict=True)]
    return (points + 0.5) / points.new_tensor(strides) - 0.5


def _stride(size: int, map_size: int) -> float:
    whole = round(size / map_size)
    return whole if map_size in (size // whole, -(-size // whole)) else size / map_size


class CoarseToFineLoss(nn.Module):
    r"""Train a network that returns a coarse and a fine map with a loss on each (FARNet, "Coarse-to-fine Supervision").

    .. math:: L = L_{fine}(f, x) + w\, L_{coarse}(c, x'),\quad x' = \left(x + \tfrac12\right) / s - \tfrac12

    Each map has its own target, drawn on its own grid at the true place between its voxels, from the points of
    :func:`points_on_map`; no target is down-sampled. Widths are in voxels of each map, so one and the same ``sigma`` is
    published to mean a target twice as wide on a map of half the size. The stride s is taken from the shapes.

    Differences from the paper and its public code: that halves coordinates, x / 2, which is a quarter of a coarse voxel
    off where the coarse map is up-sampled into the fine one (and its grids count from 1); here the coarse map, up-sampled
    with ``align_corners=False``, has its peaks where the fine one has them.

    Args:
        loss: of heatmaps ``(B, N, *S)`` and points ``(B, N, D)`` in voxels of that map, for the fine map, and for the
            coarse one unless it has its own.
        coarse_weight: w; the paper sums equally. With 0 only the fine map is trained.
        coarse_loss: for the coarse map, for instance with another ``sigma``; None takes ``loss``.

    Shapes: heatmaps a pair (coarse, fine), or in evaluation mode the fine map alone; points ``(B, N, D)`` in voxels of
    the fine map with NaN for missing, or :class:`WeightedPoints` -> scalar.

    Raises:
        LandmarkError: if ``coarse_weight`` is negative, or the maps are no such pair.

    Example:
        >>> import torch
        >>> from monai_landmarks.losses import ExponentialWeightedCenterLoss
        >>> loss = CoarseToFineLoss(ExponentialWeightedCenterLoss(alpha=40.0, sigma=10.0))
        >>> coarse, fine, points = torch.zeros(1, 19, 20, 16), torch.zeros(1, 19, 40, 32), torch.full((1, 19, 2), 15.5)
        >>> bool(loss((coarse, fine), points) > loss(fine, points))
        True
    """

    def __init__(self, loss: Loss, coarse_weight: float = 1.0, coarse_loss: Loss | None = None) -> None:
        super().__init__()
        if not 0 <= coarse_weight < math.inf:
            raise LandmarkError(f"`coarse_weight` must be finite and not negative, got {coarse_weight}.")
        self.loss, self.coarse_weight = loss, coarse_weight
        self.coarse_loss = loss if coarse_loss is None else coarse_loss

    def forward(self, heatmaps: torch.Tensor | Sequence[torch.Tensor], target: LandmarkTarget) -> torch.Tensor:
        if isinstance(heatmaps, torch.Tensor):
            return self.loss(heatmaps, target)
        coarse, fine = _check_pair(heatmaps)
        points, weights = split_target(target)
        fine, points = check_maps(fine, points)
        coarse_points = points_on_map(points, fine.shape[2:], coarse.shape[2:])
        coarse_target = coarse_points if weights is None else WeightedPoints(coarse_points, weights)
        return self.loss(fine, target) + self.coarse_weight * self.coarse_loss(coarse, coarse_target)


def _check_pair(heatmaps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    shapes = [tuple(one.shape) for one in heatmaps]
    problem = ""
    if len(shapes) != 2:
        problem = "there must be two."
    elif len(shapes[0]) != len(shapes[1]) or shapes[0][:2] != shapes[1][:2]:
        problem = "both must have the same batch, landmarks and number of axes."
    elif any(coarse > fine for coarse, fine in zip(shapes[0], shapes[1], strict=True)):
        problem = "the coarse one comes first and is nowhere larger; is the pair in the other order?"
    if problem:
        raise LandmarkError(f"expected a pair of heatmaps (coarse, fine), got shapes {shapes}: {problem}")
    return heatmaps[0], heatmaps[1]
