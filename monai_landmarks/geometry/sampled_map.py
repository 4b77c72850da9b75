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
"""Where a point goes under a resampling of which only the sampled places are known."""

from __future__ import annotations

import math
from itertools import product

import torch

from .points import LandmarkError, plain_tensor, present

__all__ = ["folds_near", "invert_sampled_map"]

_COARSE_CELLS = 1 << 15  # among which the first search for a start is made
_FINE_CELLS = 1 << 21  # and the second, for points that did not converge
_DISTANCES_AT_ONCE = 1 << 21  # numbers held during a search
_ITERATIONS = 40
_CONVERGED = 1e-9  # voxels


def invert_sampled_map(
    input_index: torch.Tensor, points: torch.Tensor, valid: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find where points of the input image lie in the output image of a resampling.

    A resampling asks, for every output voxel ``q``, the input image at ``M(q)``: the map runs from output to input, so a
    landmark ``p`` of the input needs the inverse. ``M(q) = p`` is solved by Newton's method with step halving on the
    multilinear interpolation of ``M``, for all points at once, started at the nearest known node. Beyond the border of
    the grid, and where ``valid`` is False, ``M`` is continued linearly, so that a point that left the field of view
    keeps a real coordinate.

    Args:
        input_index: ``(D, *S)`` input voxel of every output voxel, at least two voxels along every axis.
        points: ``(N, D)`` input voxels; NaN passes through.
        valid: ``(*S)`` bool, where ``input_index`` is to be believed; None: everywhere.

    Returns:
        ``output_index`` float64 ``(N, D)`` and ``residual`` float64 ``(N,)``: ``|M(output_index) - points|`` in input
        voxels. The caller looks at the residual: it is large where the map has no inverse. See also
        :func:`folds_near`.

    Raises:
        LandmarkError: if the shapes do not fit or no cell of the grid is valid.

    Example:
        >>> grid = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(9.0), indexing="ij"))
        >>> where, residual = invert_sampled_map(2 * grid + 1, torch.tensor([[4.0, 6.0], [-3.0, 1.0]]))
        >>> where.round(decimals=6).tolist(), bool((residual < 1e-6).all())
        ([[1.5, 2.5], [-2.0, 0.0]], True)
    """
    sampled = _SampledMap(input_index, valid)
    plain = plain_tensor(torch.as_tensor(points)).to(device=sampled.device, dtype=torch.float64)
    if plain.ndim != 2 or plain.shape[-1] != sampled.dims:
        raise LandmarkError(f"points of a {sampled.dims}D map must be (N, {sampled.dims}), got {tuple(plain.shape)}.")
    there = present(plain)
    wanted = plain[there]
    found, residual = sampled.solve(wanted, sampled.nearest_cell(wanted, coarse=True))
    failed = residual > 100 * _CONVERGED
    if bool(failed.any()):
        again, again_residual = sampled.solve(wanted[failed], sampled.nearest_cell(wanted[failed], coarse=False))
        better = again_residual < residual[failed]
        found[failed] = torch.where(better[:, None], again, found[failed])
        residual[failed] = torch.where(better, again_residual, residual[failed])
    output, every_residual = torch.full_like(plain, math.nan), torch.full_like(plain[:, 0], math.nan)
    output[there], every_residual[there] = found, residual
    return output, every_residual


def folds_near(
    input_index: torch.Tensor, output_index: torch.Tensor, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """Tell near which output points a resampling folds the image over itself.

    Where the determinant of the Jacobian of the map has the sign opposite to the rest of the map, the same place of the
    input is shown several times, and a landmark has no single position.

    Args:
        input_index: ``(D, *S)`` input voxel of every output voxel.
        output_index: ``(N, D)`` output voxels, as :func:`invert_sampled_map` finds them.
        valid: ``(*S)`` bool, where ``input_index`` is to be believed; None: everywhere.

    Returns:
        bool ``(N,)``, True where one of the 3^D cells around the point is folded; False for a missing point.

    Example:
        >>> x = torch.arange(12.0)
        >>> folded = torch.stack(torch.meshgrid(x + 4 * torch.exp(-((x - 6) ** 2) / 4), x, indexing="ij"))
        >>> folds_near(folded, torch.tensor([[2.0, 5.0], [8.0, 5.0]])).tolist()
        [False, True]
    """
    sampled = _SampledMap(input_index, valid)
    plain = plain_tensor(torch.as_tensor(output_index)).to(device=sampled.device, dtype=torch.float64)
    there = present(plain)
    orientation = sampled.orientation()
    cells = sampled.cell_of(plain[there])
    steps = torch.tensor(list(product((-1, 0, 1), repeat=sampled.dims)), device=sampled.device)
    around = (cells[:, None] + steps).clamp_min(0).minimum(sampled.last_cell)
    turned = (sampled.determinant(around.flatten(0, 1)).reshape(around.shape[:2]) * orientation <= 0) & (
        sampled.cell_valid(around)
    )
    folded = torch.zeros_like(there)
    folded[there] = turned.any(dim=1)
    return folded


class _SampledMap:
    """A map known at the nodes of a grid, multilinear between them and linear beyond."""

    def __init__(self, input_index: torch.Tensor, valid: torch.Tensor | None) -> None:
        grid = plain_tensor(torch.as_tensor(input_index))
        dims = grid.ndim - 1
        if dims < 1 or grid.shape[0] != dims or min(grid.shape[1:]) < 2:
            raise LandmarkError(
                "a sampled map must be (D, *S): one input coordinate per axis for every output voxel, and at least two "
                f"voxels along every axis, got {tuple(grid.shape)}."
            )
        if valid is not None and tuple(valid.shape) != tuple(grid.shape[1:]):
            raise LandmarkError(f"valid must be {tuple(grid.shape[1:])} as the map, got {tuple(valid.shape)}.")
        self.dims, self.device = dims, grid.device
        self.shape = tuple(int(s) for s in grid.shape[1:])
        self.flat = grid.reshape(dims, -1)
        self.strides = torch.tensor([math.prod(self.shape[a + 1 :]) for a in range(dims)], device=self.device)
        self.last = torch.tensor(self.shape, device=self.device, dtype=torch.float64) - 1
        self.last_cell = torch.tensor(self.shape, device=self.device) - 2
        self.corners = torch.tensor(list(product((0, 1), repeat=dims)), device=self.device)
        self.cells = None if valid is None else _whole_cells(plain_tensor(valid).to(self.device, torch.bool))
        if self.cells is not None and not bool(self.cells.any()):
            raise LandmarkError("no cell of the sampled map is valid: the output shows nothing of the input image.")

    def cell_of(self, at: torch.Tensor) -> torch.Tensor:
        """Index (..., D) of the cell that holds ``at``, the nearest one beyond the border."""
        return at.floor().clamp_min(0).minimum(self.last_cell.double()).long()

    def cell_valid(self, cells: torch.Tensor) -> torch.Tensor:
        if self.cells is None:
            return torch.ones(cells.shape[:-1], dtype=torch.bool, device=self.device)
        return self.cells[tuple(cells.unbind(dim=-1))]

    def interpolate(self, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Value (N, D) and Jacobian (N, D, D) of the multilinear interpolation inside the grid."""
        cell = self.cell_of(at)
        offset = (at - cell)[:, None]
        values = self._corner_values(cell)
        along = torch.where(self.corners == 1, offset, 1 - offset)  # (N, 2^D, D)
        value = (values * along.prod(dim=-1)).sum(dim=-1).T
        slopes = []
        for axis in range(self.dims):
            sign = self.corners[:, axis] * 2 - 1
            others = [a for a in range(self.dims) if a != axis]
            slopes.append((values * (sign * along[..., others].prod(dim=-1))).sum(dim=-1).T)
        return value, torch.stack(slopes, dim=-1)

    def _corner_values(self, cell: torch.Tensor) -> torch.Tensor:
        corner = ((cell[:, None] + self.corners) * self.strides).sum(dim=-1)
        return self.flat[:, corner].to(torch.float64)

    def determinant(self, cells: torch.Tensor) -> torch.Tensor:
        """Determinant (M,) of the Jacobian in the middle of the cells (M, D)."""
        return torch.linalg.det(self.interpolate(cells.to(torch.float64) + 0.5)[1])

    def orientation(self) -> torch.Tensor:
        """Sign that the determinant has in most of the valid cells."""
        cells = self._some_cells(_COARSE_CELLS)
        return self.determinant(cells).sign().sum().sign()

    def solve(self, wanted: torch.Tensor, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Newton's method from ``start`` (N, D), a place in a valid cell: the solution and its residual (N,)."""
        at, anchor = start.clone(), start.clone()
        value, slope = self.interpolate(anchor)
        residual = value - wanted
        size = torch.linalg.vector_norm(residual, dim=-1)
        longest = 0.5 * float(self.last.max()) + 1
        for _ in range(_ITERATIONS):
            if not bool((size > _CONVERGED).any()):
                break
            step = (torch.linalg.pinv(slope, rtol=1e-9) @ residual[..., None])[..., 0]
            length = torch.linalg.vector_norm(step, dim=-1, keepdim=True)
            step = step * (longest / length.clamp_min(longest))
            moved = torch.zeros_like(size, dtype=torch.bool)
            for halvings in range(6):
                trial = at - step / 2**halvings
                trial_anchor, trial_value, trial_slope = self._continued(trial, anchor)
                trial_residual = trial_value - wanted
                trial_size = torch.linalg.vector_norm(trial_residual, dim=-1)
                take = ~moved & (trial_size < size)
                moved = moved | take
                at, anchor = torch.where(take[:, None], trial, at), torch.where(take[:, None], trial_anchor, anchor)
                slope = torch.where(take[:, None, None], trial_slope, slope)
                residual = torch.where(take[:, None], trial_residual, residual)
                size = torch.where(take, trial_size, size)
                if bool(moved.all()):
                    break
            if not bool(moved.any()):
                break
        return at, size

    def _continued(self, at: torch.Tensor, anchor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Anchor, value and Jacobian at ``at``: linear from the anchor where the grid or the valid cells end."""
        inside = at.clamp_min(0).minimum(self.last)
        known = self.cell_valid(self.cell_of(inside))
        anchor = torch.where(known[:, None], inside, anchor)
        value, slope = self.interpolate(anchor)
        return anchor, value + (slope @ (at - anchor)[..., None])[..., 0], slope

    def nearest_cell(self, wanted: torch.Tensor, coarse: bool) -> torch.Tensor:
        """Middle (N, D) of the valid cell whose first corner samples nearest to each of ``wanted``."""
        cells = self._some_cells(_COARSE_CELLS if coarse else _FINE_CELLS)
        best = torch.full_like(wanted[:, 0], math.inf)
        choice = torch.zeros_like(best, dtype=torch.long)
        at_once = max(1, _DISTANCES_AT_ONCE // max(1, len(wanted) * self.dims))
        for first in range(0, len(cells), at_once):
            nodes = self.flat[:, (cells[first : first + at_once] * self.strides).sum(dim=-1)].T.to(torch.float64)
            distance, index = (wanted[:, None] - nodes).square().sum(dim=-1).min(dim=1)
            nearer = distance < best
            best, choice = torch.where(nearer, distance, best), torch.where(nearer, index + first, choice)
        return cells[choice].to(torch.float64) + 0.5

    def _some_cells(self, most: float) -> torch.Tensor:
        """Indices (M, D) of valid cells on a lattice coarse enough to have about ``most``."""
        sizes = [s - 1 for s in self.shape]
        stride = max(1, math.ceil((math.prod(sizes) / most) ** (1 / self.dims)))
        axes = [torch.arange((s - 1) % stride // 2, s, stride, device=self.device) for s in sizes]
        lattice = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, self.dims)
        chosen = lattice[self.cell_valid(lattice)]
        return chosen if len(chosen) or stride == 1 else self._some_cells(math.inf)


def _whole_cells(valid: torch.Tensor) -> torch.Tensor:
    """Cells (*S - 1) all of whose corners are valid."""
    for axis in range(valid.ndim):
        n = valid.shape[axis]
        valid = valid.narrow(axis, 0, n - 1) & valid.narrow(axis, 1, n - 1)
    return valid
