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
"""Cells of feature maps that a stride divides, and their cosine similarity to the features of points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from monai_landmarks.geometry import LandmarkError, check_points, plain_tensor

__all__ = ["cell_of", "cosine_similarity", "flat_index", "sample_cells"]


def cosine_similarity(features: torch.Tensor, anchors: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    r"""Compare every cell of a feature map with every anchor feature, in one matrix product (CC2Dv2 eq. 1).

    .. math:: s = \frac{\langle a, f \rangle}{\max(\|a\|, \varepsilon) \max(\|f\|, \varepsilon)}

    An anchor that is NaN in all its channels, a missing landmark, has a map of zeros. Half precision is compared in
    float32, under autocast too: near 1 bfloat16 cannot tell 0.996 from 1.

    Args:
        features: ``(B, C, *S)``.
        anchors: ``(B, N, C)``.
        eps: the shortest length that a feature is divided by. The released code adds 0.001 to the denominator.

    Returns:
        ``(B, N, *S)`` from -1 to 1, in float32 or float64.

    Raises:
        LandmarkError: if the shapes do not fit.

    Example:
        >>> features = torch.tensor([[[[3.0, 0.0]], [[0.0, 5.0]]]])
        >>> cosine_similarity(features, torch.tensor([[[2.0, 0.0], [float("nan")] * 2]]))
        tensor([[[[1., 0.]],
        <BLANKLINE>
                 [[0., 0.]]]])
    """
    features, anchors = plain_tensor(features), plain_tensor(anchors)
    if anchors.ndim != 3 or (features.shape[0], features.shape[1]) != (anchors.shape[0], anchors.shape[2]):
        raise LandmarkError(
            f"features {tuple(features.shape)} are (B, C, *S) and anchors {tuple(anchors.shape)} must be (B, N, C): "
            "they must agree in batch and channels."
        )
    dtype = torch.promote_types(torch.promote_types(features.dtype, anchors.dtype), torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        cells, anchors = features.flatten(2).to(dtype), anchors.to(dtype)
        # NaN is replaced before the division, not after: what NaN touched stays NaN in the gradient.
        anchors = F.normalize(anchors.masked_fill(anchors.isnan().all(dim=-1, keepdim=True), 0), dim=-1, eps=eps)
        lengths = torch.linalg.vector_norm(cells, dim=1, keepdim=True).clamp(min=eps)
        return ((anchors @ cells) / lengths).unflatten(-1, features.shape[2:])


def sample_cells(features: torch.Tensor, points: torch.Tensor, stride: int) -> torch.Tensor:
    """Read the feature of the cell in which each point lies.

    Args:
        features: ``(B, C, *S)``, a map of an image, whose centre of cell ``c`` lies at ``(c + 0.5) * stride - 0.5``.
        points: ``(B, N, D)`` voxels of the image, NaN for missing.
        stride: voxels of the image in one cell.

    Returns:
        ``(B, N, C)``; NaN for a missing point and for one that lies outside the map.

    Raises:
        LandmarkError: for points that are not ``(B, N, D)``, partly missing or infinite.

    Example:
        >>> features = torch.tensor([[[[5.0, 6.0, 7.0]]]])
        >>> sample_cells(features, torch.tensor([[[0.0, 1.4], [1.0, 1.6], [0.0, 6.0]]]), stride=2).flatten()
        tensor([5., 6., nan])
    """
    features, points = plain_tensor(features), plain_tensor(points)
    check_points(points, features.ndim - 2)
    cells, there = cell_of(points.to(features.device), stride, features.shape[2:])
    index = flat_index(cells.unbind(-1), features.shape[2:]).unsqueeze(-1)
    rows = features.flatten(2).transpose(1, 2).gather(1, index.expand(-1, -1, features.shape[1]))
    return rows.masked_fill(~there.unsqueeze(-1), torch.nan)


def cell_of(points: torch.Tensor, stride: int, shape: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the cell in which each point lies: ``floor((p + 0.5) / stride)``.

    The released code takes ``floor(p / stride)`` of points that count from 0 at a voxel's centre, which puts the last
    half voxel of each cell into the next one.

    Args:
        points: ``(..., D)`` voxels of the image, NaN for missing.
        stride: voxels of the image in one cell.
        shape: ``D`` sizes of the map.

    Returns:
        cells ``(..., D)`` int64, always inside the map; and ``(...)`` bool, true where the point is there and lies in the
        map, its outer border included.

    Example:
        >>> cell_of(torch.tensor([[31.4, 31.5], [200.0, 0.0]]), 32, (2, 2))
        (tensor([[0, 1], [1, 0]]), tensor([ True, False]))
    """
    points = points if points.dtype in (torch.float32, torch.float64) else points.float()
    place = (points + 0.5) / stride
    sizes = torch.tensor(tuple(shape), device=points.device)
    there = ((place >= 0) & (place <= sizes)).all(dim=-1)
    return torch.minimum(place.nan_to_num().floor().long().clamp(min=0), sizes - 1), there


def flat_index(cells: Sequence[torch.Tensor], shape: Sequence[int]) -> torch.Tensor:
    """Number the cells of a map of ``shape`` in C order, from ``D`` index tensors that broadcast to each other."""
    index, *rest = cells
    for size, along in zip(shape[1:], rest, strict=True):
        index = index * size + along
    return index
