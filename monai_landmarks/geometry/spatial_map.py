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
"""Smooth maps from an output grid's voxels to an input image's: an affine map after an elastic displacement.

.. math:: x(q) = A \\, (q + d(q))

``q`` is an output voxel, ``x`` the input voxel whose value it shows, ``A`` affine and ``d`` a cubic B-spline of few
control points over the output grid. The image is read at ``x(q)``; points go the other way, through the exact inverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .affine import apply_affine
from .bspline import bspline_at_points, bspline_on_grid, control_points, largest_safe_displacement
from .points import LandmarkError, check_points

__all__ = ["RESIDUAL", "SpatialMap"]

#: Voxels of the input; what the inverse of a point is guaranteed to.
RESIDUAL = 1e-3
#: The least local volume, relative to the affine part, of a deformation that counts as not folded.
LEAST_VOLUME = 0.05
ITERATIONS = 60


@dataclass(frozen=True)
class SpatialMap:
    """A batch of maps from output voxels to input voxels, with their exact inverses for points.

    Attributes:
        matrix: ``(B, D + 1, D + 1)`` float64: input index = ``matrix`` @ (output index + displacement).
        shape: ``D`` sizes of the output grid.
        displacement: ``(B, *nodes, D)`` coefficients of the cubic B-spline, in output voxels; None for affine maps.

    Example:
        >>> shifted = torch.tensor([[[1.0, 0.0, 3.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]], dtype=torch.float64)
        >>> SpatialMap(shifted, (8, 8)).to_output(torch.tensor([[[4.0, 5.0]]]))
        tensor([[[1., 5.]]])
    """

    matrix: torch.Tensor
    shape: tuple[int, ...]
    displacement: torch.Tensor | None = None

    def __post_init__(self) -> None:
        dims = len(self.shape)
        if self.matrix.ndim != 3 or tuple(self.matrix.shape[1:]) != (dims + 1, dims + 1):
            raise LandmarkError(
                f"a {dims}D map needs a matrix (B, {dims + 1}, {dims + 1}), got {tuple(self.matrix.shape)}."
            )
        if not bool(torch.isfinite(self.matrix).all()) or bool((torch.linalg.det(self.matrix).abs() < 1e-12).any()):
            raise LandmarkError("the map's matrix is singular or not finite: no point could be carried through it.")
        d = self.displacement
        if d is not None and (d.ndim != dims + 2 or d.shape[0] != self.matrix.shape[0] or d.shape[-1] != dims):
            raise LandmarkError(f"the displacement must be (B, *nodes, {dims}), got {tuple(d.shape)}.")

    def __len__(self) -> int:
        return self.matrix.shape[0]

    def then(self, matrix: torch.Tensor) -> SpatialMap:
        """Return this map followed by an affine one of the input's indices, ``(B or 1, D + 1, D + 1)``."""
        return SpatialMap(matrix @ self.matrix, self.shape, self.displacement)

    def to_input(self, points: torch.Tensor) -> torch.Tensor:
        """Return the input indices ``(B, N, D)`` that output indices ``(B, N, D)`` show; NaN stays NaN."""
        exact = points.to(self.matrix)
        if self.displacement is not None:
            there = torch.nan_to_num(exact)
            exact = exact + bspline_at_points(self.displacement, there, self.shape)[0]
        return apply_affine(exact, self.matrix).to(points.dtype)

    def to_output(self, points: torch.Tensor) -> torch.Tensor:
        """Return the output indices at which input points are seen: the exact inverse, by Newton's method.

        Args:
            points: input indices ``(B, N, D)``, NaN for missing, anywhere inside or outside the image.

        Returns:
            ``(B, N, D)``, NaN where missing.

        Raises:
            LandmarkError: if a point's residual stays above 1e-3 voxel: the map folds there.
        """
        return self.invert(points)[0]

    def invert(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the output indices of input points, and how far in input voxels the map then misses each.

        Args:
            points: as for :meth:`to_output`.

        Returns:
            output indices ``(B, N, D)`` and residuals ``(B, N)``, both NaN where missing.

        Raises:
            LandmarkError: as :meth:`to_output`.
        """
        check_points(points, len(self.shape))
        wanted = points.to(self.matrix)
        undone = apply_affine(wanted, torch.linalg.inv(self.matrix))
        if self.displacement is None:
            return undone.to(points.dtype), wanted.sum(-1) * 0
        found = _undo_displacement(self.displacement, undone, self.shape)
        residual = torch.linalg.vector_norm(self.to_input(found) - wanted, dim=-1)
        worst = residual.nan_to_num().amax().item() if residual.numel() else 0.0
        if worst > RESIDUAL:
            raise LandmarkError(
                f"a point could not be carried through the deformation: the best inverse misses it by {worst:.2g} "
                f"voxels (at most {RESIDUAL} is accepted). The deformation folds there: use smaller displacements."
            )
        return found.to(points.dtype), residual

    def sampling_grid(
        self,
        input_shape: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> torch.Tensor:
        """Return the input position of every output voxel.

        Args:
            input_shape: sizes of the input; if given, positions are those of ``torch.nn.functional.grid_sample`` with
                ``align_corners=False``: last axis first, -1 to 1 from border to border.
            dtype: of the result.
            device: of the result, None for the map's: only the spline's few coefficients are moved there.

        Returns:
            ``(B, *shape, D)``.
        """
        linear = self.displacement is None
        nodes = (2,) * len(self.shape) if self.displacement is None else tuple(self.displacement.shape[1:-1])
        order = 1 if linear else 3
        node = control_points(self.shape, nodes, order).to(self.matrix)
        seen = node if self.displacement is None else node + self.displacement
        flat = seen.expand(len(self), *node.shape).reshape(len(self), -1, len(self.shape))
        coefficients = apply_affine(flat, self.matrix)
        if input_shape is not None:
            size = torch.as_tensor(tuple(input_shape), dtype=self.matrix.dtype, device=self.matrix.device)
            coefficients = ((2 * coefficients + 1) / size - 1).flip(-1)
        coefficients = coefficients.reshape(len(self), *nodes, len(self.shape))
        coefficients = coefficients.to(dtype=dtype, device=device or coefficients.device)
        return bspline_on_grid(coefficients, self.shape, order)

    def folds(self) -> torch.Tensor:
        """Tell which maps of the batch fold, or come close to it: bool ``(B,)``.

        Displacements below the bound of Choi and Lee are known not to fold. Others are judged by the local volume on a
        lattice of eight points per cell of the spline's mesh: below 5 percent counts as folded.
        """
        if self.displacement is None:
            return torch.zeros(len(self), dtype=torch.bool, device=self.matrix.device)
        nodes = tuple(self.displacement.shape[1:-1])
        safe = torch.as_tensor(largest_safe_displacement(self.shape, nodes)).to(self.displacement)
        if bool((self.displacement.abs() < safe).all()):
            return torch.zeros(len(self), dtype=torch.bool, device=self.matrix.device)
        lattice = [
            torch.linspace(-0.5, size - 0.5, 8 * (n - 3) + 1, dtype=torch.float64)
            for size, n in zip(self.shape, nodes, strict=True)
        ]
        slopes = [bspline_on_grid(self.displacement, self.shape, 3, lattice, axis) for axis in range(len(self.shape))]
        jacobian = torch.stack(slopes, dim=-1) + torch.eye(len(self.shape)).to(self.displacement)
        return torch.linalg.det(jacobian).flatten(1).amin(dim=1) < LEAST_VOLUME


def _undo_displacement(displacement: torch.Tensor, wanted: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Solve ``q + d(q) = wanted`` for ``q`` by Newton's method; a step that makes a point worse is halved."""
    missing = wanted.isnan().any(dim=-1, keepdim=True)
    goal = torch.nan_to_num(wanted)
    identity = torch.eye(len(shape)).to(goal)

    def miss(q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        value, slope = bspline_at_points(displacement, q, shape)
        error = q + value - goal
        return error, slope + identity, torch.linalg.vector_norm(error, dim=-1, keepdim=True)

    q = goal - bspline_at_points(displacement, goal, shape)[0]
    error, jacobian, size = miss(q)
    damping = torch.ones_like(size)
    for _ in range(ITERATIONS):
        if float(size.amax()) < 1e-9 if size.numel() else True:
            break
        step = torch.linalg.solve(jacobian, error.unsqueeze(-1)).squeeze(-1)
        tried = q - damping * step
        new_error, new_jacobian, new_size = miss(tried)
        better = (new_size <= size) | (damping < 1e-3)
        q = torch.where(better, tried, q)
        error = torch.where(better, new_error, error)
        jacobian = torch.where(better.unsqueeze(-1), new_jacobian, jacobian)
        size = torch.where(better, new_size, size)
        damping = torch.where(better, torch.ones_like(damping), damping / 2)
    return torch.where(missing, torch.full_like(q, float("nan")), q)
