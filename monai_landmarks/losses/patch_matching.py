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
"""Loss of CC2Dv2 (Yao et al. 2022): cross-entropy over the cells of similarity maps, with a relative distance bias."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add, and_

import torch
from monai.utils import look_up_option
from torch import nn

from ..geometry import LandmarkError, check_points, plain_tensor, present
from ..networks.blocks.encoders import STRIDES
from ..networks.blocks.similarity import cell_of, flat_index

__all__ = ["PatchMatchingLoss", "matching_cross_entropy"]


def matching_cross_entropy(
    similarity: torch.Tensor,
    cells: torch.Tensor,
    temperature: float = 10.0,
    distance_slope: float = 0.1,
    distance_limit: float = 0.7,
    window: int | None = 19,
) -> torch.Tensor:
    r"""Ask of one similarity map that the true cell be the most similar in a window around it (CC2Dv2, eq. 2 to 4).

    .. math:: L = -\log \frac{e^{\tau s_t}}{\sum_{m} e^{\tau (s_m + b_m)}}, \quad
        b_m = \mathrm{clip}_{[0, \beta]}(\alpha\, d_m)

    with d the distance to the true cell t in cells, so that b is 0 there. The gradient with respect to a wrong cell's
    similarity has the factor :math:`e^{\tau b_m}` (eq. 6): the farther, the harder it is pushed down. The bias has no
    gradient.

    Args:
        similarity: ``(B, K, *S)``; half precision is compared in float32.
        cells: ``(B, K, D)`` int64, the true cell of each map, inside it.
        temperature: :math:`\tau`.
        distance_slope: :math:`\alpha` for each cell; 0 is plain cross-entropy.
        distance_limit: :math:`\beta`.
        window: cells on each axis, from ``t - window // 2``; cut at borders. None takes the whole map.

    Returns:
        ``(B, K)``.

    Example:
        >>> matching_cross_entropy(torch.zeros(1, 1, 8, 8), torch.tensor([[[0, 5]]]), distance_slope=0, window=3).exp()
        tensor([[6.]])
    """
    shape = similarity.shape[2:]
    similarity = similarity.to(torch.promote_types(similarity.dtype, torch.float32))
    index, inside, squares = [], [], []
    for axis, size in enumerate(shape):
        centre = cells[..., axis, None]
        if window is None or window >= 2 * size:
            place = torch.arange(size, device=cells.device).expand(*cells.shape[:2], -1)
        else:
            place = centre + torch.arange(window, device=cells.device) - window // 2
        grid = (*cells.shape[:2], *(-1 if other == axis else 1 for other in range(len(shape))))
        index.append(place.clamp(0, size - 1).reshape(grid))
        inside.append(((place >= 0) & (place < size)).reshape(grid))
        squares.append((place - centre).to(similarity.dtype).square().reshape(grid))
    bias = (distance_slope * reduce(add, squares).sqrt()).clamp(0, distance_limit)
    flat = similarity.flatten(2)
    values = flat.gather(2, flat_index(index, shape).flatten(2)) + bias.flatten(2)
    values = values.masked_fill(~reduce(and_, inside).flatten(2), -torch.inf)
    true = flat.gather(2, flat_index(cells.unbind(-1), shape).unsqueeze(-1)).squeeze(-1)
    return (temperature * values).logsumexp(dim=-1) - temperature * true


class PatchMatchingLoss(nn.Module):
    r"""Train similarity maps to be highest in the cell where the point lies, at every stride (CC2Dv2, eq. 2 to 5).

    .. math:: L = \sum_i -\log \frac{e^{\tau s^i_t}}{\sum_{m} e^{\tau (s^i_m + b^i_m)}}, \quad
        b^i_m = \mathrm{clip}_{[0, \beta]}(\alpha\, d^i_m)

    averaged over batch and points, see :func:`matching_cross_entropy`. On the coarsest map m runs over all cells, on the
    others over a window around the true cell: they learn to be right where the coarser ones have already found the place.

    Eq. 3 prints :math:`b = \alpha\, \mathrm{clip}_{[0, \beta]}(d)`, by which every wrong cell, at least 1 away, would have
    the same bias. The released code clips :math:`\alpha d`, the only reading that gives :math:`\beta = 0.7` a meaning, and
    so does this. It has :math:`\alpha = 0.07`, :math:`\beta = 0.8` and a window of 22 where the paper has 0.1, 0.7 and 19;
    both apply the bias on the coarsest map too.

    Args:
        temperature: :math:`\tau`.
        distance_slope: :math:`\alpha`, for each cell of a map; 0 leaves the bias out (CC2D, the first version).
        distance_limit: :math:`\beta`, the largest bias.
        window: cells on each axis around the true cell; an even window begins ``window / 2`` cells before it.
        reduction: "mean" over the batch and the points that are not missing, or "sum".

    Shapes: five maps ``(B, K, *ceil(S / stride))``, the coarsest first, and points ``(B, K, D)`` in voxels of the image
    -> scalar. A missing point (NaN) counts nothing; without any point the loss is 0.

    Raises:
        ValueError: for an option that has no meaning.
        LandmarkError: for maps that are not of these strides, the coarsest first, shapes that do not fit, or a point
            outside the image.

    Example:
        >>> maps = [torch.zeros(1, 1, 64 // stride, 64 // stride) for stride in (32, 16, 8, 4, 2)]
        >>> loss, points = PatchMatchingLoss(distance_slope=0), torch.tensor([[[31.0, 40.2]]])
        >>> loss.levels(maps, points).exp()  # cells in the window: 2 x 2, 4 x 4, 8 x 8, 16 x 15, 19 x 19
        tensor([  4.0000,  16.0000,  64.0000, 240.0000, 361.0000])
        >>> loss(maps, points).isclose(loss.levels(maps, points).sum())
        tensor(True)
    """

    def __init__(
        self,
        temperature: float = 10.0,
        distance_slope: float = 0.1,
        distance_limit: float = 0.7,
        window: int = 19,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"`temperature` must be above 0, such as 10, got {temperature}.")
        for name, value in {"distance_slope": distance_slope, "distance_limit": distance_limit}.items():
            if not value >= 0:
                raise ValueError(f"`{name}` must not be negative, got {value}; 0 leaves the distance bias out.")
        if window < 2:
            raise ValueError(f"`window` must be at least 2 cells, else there is nothing to compare, got {window}.")
        self.temperature, self.distance_slope, self.distance_limit = temperature, distance_slope, distance_limit
        self.window = window
        self.reduction = look_up_option(reduction, {"sum", "mean"})

    def forward(
        self, similarities: Sequence[torch.Tensor], points: torch.Tensor, strides: Sequence[int] | None = None
    ) -> torch.Tensor:
        return self.levels(similarities, points, strides).sum()

    def levels(
        self, similarities: Sequence[torch.Tensor], points: torch.Tensor, strides: Sequence[int] | None = None
    ) -> torch.Tensor:
        """Give the loss of each map ``(L,)``, whose sum is the loss; arguments as in a call.

        Args:
            similarities: the maps, the coarsest first.
            points: ``(B, K, D)`` voxels of the image.
            strides: voxels in one cell of each map; None takes 32, 16, 8, 4, 2.
        """
        strides = STRIDES[::-1] if strides is None else strides
        maps, points = [plain_tensor(x) for x in similarities], plain_tensor(points)
        points = points.to(device=maps[-1].device)
        self._check(maps, points, strides)
        values = []
        for level, (x, stride) in enumerate(zip(maps, strides, strict=True)):
            cells, there = cell_of(points, stride, x.shape[2:])
            value = matching_cross_entropy(
                x, cells, self.temperature, self.distance_slope, self.distance_limit, self.window if level else None
            )
            values.append(torch.where(there, value, 0).sum())
        count = present(points).sum().clamp(min=1) if self.reduction == "mean" else 1
        return torch.stack(values) / count

    @staticmethod
    def _check(maps: Sequence[torch.Tensor], points: torch.Tensor, strides: Sequence[int]) -> None:
        shapes = [tuple(x.shape) for x in maps]
        fine, stride = shapes[-1], strides[-1]
        wanted = [(*fine[:2], *(-(-size * stride // coarser) for size in fine[2:])) for coarser in strides]
        if shapes != wanted:
            raise LandmarkError(
                f"maps must have strides {tuple(strides)}, the coarsest first, so with the last of shape {fine} the "
                f"shapes {wanted}; got {shapes}. Were they cropped apart, or given the finest first?"
            )
        check_points(points, len(fine) - 2)
        if points.shape[:2] != fine[:2]:
            raise LandmarkError(
                f"maps {fine} and points {tuple(points.shape)} must agree in batch and points: one map for each point."
            )
        outside = present(points) & ~cell_of(points, stride, fine[2:])[1]
        if outside.any():
            image, where = int(outside.nonzero()[0, 0]), points[outside][0].tolist()
            raise LandmarkError(
                f"{int(outside.sum())} points lie outside their images, first in image {image} of the batch at {where}: "
                f"the maps cover {tuple(size * stride for size in fine[2:])} voxels. Sample points inside the image, "
                "or mark as missing (NaN) those that have no cell."
            )
