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

__all__ = ["invert_sampled_map", "shown_in_folds"]

_COARSE_CELLS = 1 << 15  # among which the first search for a start is made
_FINE_CELLS = 1 << 21  # and the second, for points that did not converge
_DISTANCES_AT_ONCE = 1 << 21  # numbers held during a search
_ITERATIONS = 40
_CONVERGED = 1e-9  # voxels
_FLAT = 1e-3  # of the usual determinant: a cell so flat is flat by rounding, not folded


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
        :func:`shown_in_folds`.

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
    found, residual = sampled.solve(wanted, sampled.nearest_cell(wanted, _COARSE_CELLS))
    for most in (None, _FINE_CELLS):
        failed = residual > 100 * _CONVERGED
        if not bool(failed.any()):
            break
        places = found[failed] if most is None else sampled.nearest_cell(wanted[failed], most)
        again, again_residual = sampled.solve_around(wanted[failed], places)
        better = again_residual < residual[failed]
        found[failed] = torch.where(better[:, None], again, found[failed])
        residual[failed] = torch.where(better, again_residual, residual[failed])
    output, every_residual = torch.full_like(plain, math.nan), torch.full_like(plain[:, 0], math.nan)
    output[there], every_residual[there] = found, residual
    return output, every_residual


def shown_in_folds(input_index: torch.Tensor, points: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Tell which points of the input image a resampling shows in a fold, and so at least three times.

    Where the determinant of the Jacobian of the map has the sign opposite to the rest of it, the image is laid over
    itself. A point that a folded cell shows is shown in the two layers beside it as well and has no single position.

    Args:
        input_index: ``(D, *S)`` input voxel of every output voxel.
        points: ``(N, D)`` input voxels, as for :func:`invert_sampled_map`.
        valid: ``(*S)`` bool, where ``input_index`` is to be believed; None: everywhere.

    Returns:
        bool ``(N,)``; False for a missing point. A point less than a voxel beside a fold may count as in it.

    Example:
        >>> x = torch.arange(16.0)
        >>> folded = torch.stack(torch.meshgrid(x + 6 * torch.exp(-((x - 8) ** 2) / 4), x, indexing="ij"))
        >>> shown_in_folds(folded, torch.tensor([[2.0, 5.0], [12.0, 5.0]])).tolist()
        [False, True]
    """
    sampled = _SampledMap(input_index, valid)
    plain = plain_tensor(torch.as_tensor(points)).to(device=sampled.device, dtype=torch.float64)
    shown = torch.zeros(plain.shape[:1], dtype=torch.bool, device=sampled.device)
    cells = sampled.folded_cells()
    at_once = max(1, _DISTANCES_AT_ONCE // max(1, len(plain) * sampled.dims))
    for some in cells.split(at_once):
        values = sampled.corner_values(some)  # (D, M, 2^D)
        low, high = values.amin(dim=-1).T, values.amax(dim=-1).T
        shown = shown | ((plain[:, None] >= low) & (plain[:, None] <= high)).all(dim=-1).any(dim=1)
    return shown


class _SampledMap:
    """A map known at the nodes of a grid, multilinear between them and linear beyond."""

    def __init__(self, input_index: torch.Tensor, valid: torch.Tensor | None) -> None:
        grid = plain_tensor(torch.as_tensor(input_index))
        dims = grid.ndim - 1
        if dims not in (2, 3) or grid.shape[0] != dims or min(grid.shape[1:]) < 2:
            raise LandmarkError(
                "a sampled map must be (D, *S), D = 2 or 3: one input coordinate per axis for every output voxel, and at "
                f"least two voxels along every axis, got {tuple(grid.shape)}."
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
        values = self.corner_values(cell)
        along = torch.where(self.corners == 1, offset, 1 - offset)  # (N, 2^D, D)
        value = (values * along.prod(dim=-1)).sum(dim=-1).T
        slopes = []
        for axis in range(self.dims):
            sign = self.corners[:, axis] * 2 - 1
            others = [a for a in range(self.dims) if a != axis]
            slopes.append((values * (sign * along[..., others].prod(dim=-1))).sum(dim=-1).T)
        return value, torch.stack(slopes, dim=-1)

    def corner_values(self, cell: torch.Tensor) -> torch.Tensor:
        """Values (D, N, 2^D) at the corners of the cells (N, D)."""
        corner = ((cell[:, None] + self.corners) * self.strides).sum(dim=-1)
        return self.flat[:, corner].to(torch.float64)

    def folded_cells(self) -> torch.Tensor:
        """Indices (M, D) of the valid cells whose determinant has the sign opposite to most others."""
        slab = max(1, _FINE_CELLS // (4 * math.prod(self.shape[1:])))
        grid = self.flat.reshape(self.dims, *self.shape)
        dets = [_determinants(grid[:, first : first + slab + 1]) for first in range(0, self.shape[0] - 1, slab)]
        determinant = torch.cat(dets)
        known = determinant.flatten() if self.cells is None else determinant[self.cells]
        usual = known[:: max(1, len(known) // _COARSE_CELLS)].median()
        folded = determinant / usual < -_FLAT
        return (folded if self.cells is None else folded & self.cells).nonzero()

    def solve(self, wanted: torch.Tensor, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Newton's method from ``start`` (N, D), a place in a valid cell: the solution and its residual (N,)."""
        at, anchor = start.clone(), start.clone()
        value, slope = self.interpolate(anchor)
        residual = value - wanted
        size = torch.linalg.vector_norm(residual, dim=-1)
        longest = 0.5 * float(self.last.max()) + 1
        for _ in range(_ITERATIONS):
            step = (torch.linalg.pinv(slope, rtol=1e-6) @ residual[..., None])[..., 0]
            step = step * (longest / torch.linalg.vector_norm(step, dim=-1, keepdim=True).clamp_min(longest))
            moved = size <= _CONVERGED
            for halvings in range(6):
                if bool(moved.all()):
                    break
                trial = at - step / 2**halvings
                trial_anchor, trial_value, trial_slope = self._continued(trial, anchor)
                trial_residual = trial_value - wanted
                take = ~moved & (torch.linalg.vector_norm(trial_residual, dim=-1) < size)
                at, anchor = torch.where(take[:, None], trial, at), torch.where(take[:, None], trial_anchor, anchor)
                slope = torch.where(take[:, None, None], trial_slope, slope)
                residual = torch.where(take[:, None], trial_residual, residual)
                moved = moved | take
            before, size = size, torch.linalg.vector_norm(residual, dim=-1)
            if not bool((size < before).any()):
                break
        return at, size

    def solve_around(self, wanted: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The best solution started in any of the 3^D valid cells around ``places`` (N, D).

        Newton's method stops where a cell is flat, as where a grid distortion shows one place twice.
        """
        steps = torch.tensor(list(product((-1, 0, 1), repeat=self.dims)), device=self.device)
        cells = (self.cell_of(places)[:, None] + steps).clamp_min(0).minimum(self.last_cell)
        known = self.cell_valid(cells)
        cells = torch.where(known[..., None], cells, self.cell_of(self.nearest_cell(wanted, _COARSE_CELLS))[:, None])
        repeated = wanted[:, None].expand(-1, len(steps), -1).flatten(0, 1)
        at, size = self.solve(repeated, cells.flatten(0, 1).to(torch.float64) + 0.5)
        best = size.reshape(len(wanted), -1).min(dim=1)
        return at.reshape(len(wanted), -1, self.dims)[torch.arange(len(wanted)), best.indices], best.values

    def _continued(self, at: torch.Tensor, anchor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Anchor, value and Jacobian at ``at``: linear from the anchor where the grid or the valid cells end."""
        inside = at.clamp_min(0).minimum(self.last)
        known = self.cell_valid(self.cell_of(inside))
        anchor = torch.where(known[:, None], inside, anchor)
        value, slope = self.interpolate(anchor)
        return anchor, value + (slope @ (at - anchor)[..., None])[..., 0], slope

    def nearest_cell(self, wanted: torch.Tensor, most: int) -> torch.Tensor:
        """Middle (N, D) of the valid cell, among ``most``, whose first corner samples nearest to each of ``wanted``."""
        cells = self._some_cells(most)
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


def _determinants(grid: torch.Tensor) -> torch.Tensor:
    """(*S - 1) determinant of the Jacobian in the middle of every cell of a map (D, *S)."""
    dims, columns = grid.ndim - 1, []
    for axis in range(dims):
        slope = grid.diff(dim=axis + 1)
        for other in range(dims):
            if other != axis:
                n = slope.shape[other + 1] - 1
                slope = (slope.narrow(other + 1, 0, n) + slope.narrow(other + 1, 1, n)) / 2
        columns.append(slope)
    if dims == 2:
        (a, c), (b, d) = columns
        return a * d - b * c
    return (columns[0] * torch.linalg.cross(columns[1], columns[2], dim=0)).sum(dim=0)
