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
"""Uniform B-splines over an image's grid: fields from few control points, their slopes, and when they cannot fold.

The domain of a spline is the image with its outer half voxels, ``[-0.5, size - 0.5]`` on every axis, cut into
``nodes - order`` equal cells; control points lie one cell apart, for order 3 one of them beyond each border. These are
the control points of ITK's ``BSplineTransform`` with a mesh of ``nodes - order`` cells. Outside its domain a field keeps
the value of the nearest border point.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .points import LandmarkError

__all__ = ["bspline_at_points", "bspline_on_grid", "control_points", "largest_safe_displacement"]

#: Choi and Lee 2000: a cubic spline of displacements below ``cell / FOLD[D]`` on each axis is one to one.
FOLD = {2: 2.046392675, 3: 2.479472335}


def _cell(size: int, nodes: int, order: int) -> float:
    if order not in (1, 3):
        raise LandmarkError(f"B-splines of order 1 or 3 are here, got {order}.")
    if nodes <= order:
        raise LandmarkError(f"a B-spline of order {order} needs at least {order + 1} control points, got {nodes}.")
    return size / (nodes - order)


def control_points(
    shape: Sequence[int], nodes: Sequence[int], order: int = 3, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """Return the voxel indices of a spline's control points.

    A spline whose coefficients are these indices is the identity (linear precision of B-splines).

    Args:
        shape: ``D`` sizes of the grid.
        nodes: control points along each axis.
        order: 1 or 3.
        dtype: of the result.

    Returns:
        ``(*nodes, D)``.

    Raises:
        LandmarkError: for too few nodes or another order.

    Example:
        >>> control_points((8, 8), (5, 4))[:, 0, 0]
        tensor([-4.5000, -0.5000,  3.5000,  7.5000, 11.5000], dtype=torch.float64)
    """
    axes = [
        (torch.arange(n, dtype=dtype) - (order - 1) / 2) * _cell(s, n, order) - 0.5
        for s, n in zip(shape, nodes, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def _basis(index: torch.Tensor, size: int, nodes: int, order: int, slope: bool = False) -> torch.Tensor:
    """Weights ``(*index.shape, nodes)`` of all control points of one axis at ``index``, or their slopes per voxel."""
    cell = _cell(size, nodes, order)
    inner = index.clamp(-0.5, size - 0.5)
    node = torch.arange(nodes, dtype=index.dtype, device=index.device) - (order - 1) / 2
    t = (inner.unsqueeze(-1) + 0.5) / cell - node
    r = t.abs()
    if order == 1:
        weight = (1 - r).clamp(min=0)
        weight = weight if not slope else torch.where(r < 1, -t.sign() / cell, 0 * t)
    elif slope:
        near, far = r * (1.5 * r - 2), -0.5 * (2 - r) ** 2
        weight = torch.where(r < 1, near, torch.where(r < 2, far, 0 * r)) * t.sign() / cell
    else:
        near, far = (4 - r * r * (6 - 3 * r)) / 6, (2 - r) ** 3 / 6
        weight = torch.where(r < 1, near, torch.where(r < 2, far, 0 * r))
    return weight * (inner == index).unsqueeze(-1) if slope else weight


def bspline_on_grid(
    coefficients: torch.Tensor,
    shape: Sequence[int],
    order: int = 3,
    samples: Sequence[torch.Tensor] | None = None,
    slope_axis: int | None = None,
) -> torch.Tensor:
    """Evaluate splines at every voxel of a grid, one axis after the other.

    Args:
        coefficients: ``(B, *nodes, V)``: ``V`` values per control point.
        shape: ``D`` sizes of the grid over which the splines are defined.
        order: 1 or 3.
        samples: ``D`` vectors of voxel indices that replace every voxel's, for a coarser or finer lattice.
        slope_axis: give the derivative along this axis, per voxel.

    Returns:
        ``(B, *S, V)`` in the type and on the device of ``coefficients``.

    Example:
        >>> bspline_on_grid(control_points((6, 7), (5, 4))[None], (6, 7))[0, 2, 3]
        tensor([2.0000, 3.0000], dtype=torch.float64)
    """
    nodes = tuple(coefficients.shape[1:-1])
    field = coefficients
    for axis in reversed(range(len(nodes))):
        if samples is None:
            index = torch.arange(shape[axis], dtype=field.dtype, device=field.device)
        else:
            index = samples[axis].to(field)
        weights = _basis(index, shape[axis], nodes[axis], order, slope=axis == slope_axis)
        lead, tail = field.shape[: axis + 1], field.shape[axis + 2 :]
        rows = field.reshape(lead.numel(), nodes[axis], tail.numel())
        field = torch.matmul(weights, rows).reshape(*lead, len(index), *tail)
    return field


def bspline_at_points(
    coefficients: torch.Tensor, points: torch.Tensor, shape: Sequence[int], order: int = 3
) -> tuple[torch.Tensor, torch.Tensor]:
    """Evaluate splines and their derivatives exactly at any points.

    Args:
        coefficients: ``(B, *nodes, V)``.
        points: ``(B, N, D)`` voxel indices, finite.
        shape: ``D`` sizes of the grid over which the splines are defined.
        order: 1 or 3.

    Returns:
        values ``(B, N, V)`` and derivatives ``(B, N, V, D)`` per voxel.

    Example:
        >>> identity = control_points((6, 7), (5, 4))[None]
        >>> value, slope = bspline_at_points(identity, torch.tensor([[[2.5, 3.25]]], dtype=torch.float64), (6, 7))
        >>> value[0, 0], slope[0, 0].round().abs()
        (tensor([2.5000, 3.2500], dtype=torch.float64), tensor([[1., 0.],
                [0., 1.]], dtype=torch.float64))
    """
    nodes = tuple(coefficients.shape[1:-1])
    axes = "xyz"[: len(nodes)]
    weights, slopes = (
        [_basis(points[..., d], shape[d], nodes[d], order, slope) for d in range(len(nodes))] for slope in (False, True)
    )
    formula = f"b{axes}v," + ",".join(f"bn{axis}" for axis in axes) + "->bnv"
    value = torch.einsum(formula, coefficients, *weights)
    gradient = [
        torch.einsum(formula, coefficients, *[slopes[d] if d == e else weights[d] for d in range(len(nodes))])
        for e in range(len(nodes))
    ]
    return value, torch.stack(gradient, dim=-1)


def largest_safe_displacement(shape: Sequence[int], nodes: Sequence[int]) -> tuple[float, ...]:
    """Return how far the control points of a cubic spline may move along each axis so that it surely cannot fold.

    Choi and Lee (Injectivity conditions of 2D and 3D uniform cubic B-spline functions, 2000): displacements below 0.4887
    of a cell in 2D, 0.4033 of a cell in 3D, keep the map one to one, whatever their directions.

    Args:
        shape: ``D`` sizes of the grid.
        nodes: control points along each axis.

    Returns:
        ``D`` values in voxels.

    Example:
        >>> [round(v, 1) for v in largest_safe_displacement((512, 512), (5, 12))]
        [125.1, 27.8]
    """
    fold = FOLD[len(tuple(shape))]
    return tuple(_cell(s, n, 3) / fold for s, n in zip(shape, nodes, strict=True))
