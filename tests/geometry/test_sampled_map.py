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
"""The inverse of a sampled map, against maps whose inverse is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.geometry.sampled_map import invert_sampled_map, shown_in_folds

SHAPES = {2: (30, 26), 3: (18, 16, 20)}


def index_grid(shape: tuple[int, ...]) -> torch.Tensor:
    axes = [torch.arange(n, dtype=torch.float64) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def affine_map(shape: tuple[int, ...], matrix: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    return torch.einsum("da,a...->d...", matrix, index_grid(shape)) + shift.reshape((-1,) + (1,) * len(shape))


def waves(at: torch.Tensor, strength: float, phase: float, length: float) -> torch.Tensor:
    """A smooth map of places (..., D): the identity and a wave of every axis along the next one."""
    return at + strength * torch.sin(2 * np.pi * at.roll(1, dims=-1) / length + phase)


@pytest.mark.parametrize("dims", [2, 3])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_affine_maps_are_inverted_exactly_inside_and_outside_the_grid(dims: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.eye(dims, dtype=torch.float64) + 0.3 * (torch.rand(dims, dims, generator=generator).double() - 0.5)
    shift = 10 * (torch.rand(dims, generator=generator).double() - 0.5)
    where = 60 * torch.rand(7, dims, generator=generator).double() - 20  # many of them off the grid
    points = where @ matrix.T + shift
    found, residual = invert_sampled_map(affine_map(SHAPES[dims], matrix, shift), points)
    torch.testing.assert_close(found, where, atol=1e-7, rtol=0)
    assert float(residual.max()) < 1e-7


@pytest.mark.parametrize("dims", [2, 3])
@settings(max_examples=30, deadline=None)
@given(
    strength=st.floats(0.0, 1.2), phase=st.floats(0.0, 6.0), length=st.floats(12.0, 40.0), seed=st.integers(0, 10**6)
)
def test_smooth_maps_are_inverted_to_the_accuracy_of_their_sampling(
    dims: int, strength: float, phase: float, length: float, seed: int
) -> None:
    # The grid is linear between nodes: a wave of that strength departs from it by strength * (2 pi / length)^2 / 8.
    shape = SHAPES[dims]
    sampled = waves(index_grid(shape).movedim(0, -1), strength, phase, length).movedim(-1, 0)
    generator = torch.Generator().manual_seed(seed)
    inner = torch.tensor(shape) - 5.0
    where = 2 + torch.rand(9, dims, generator=generator).double() * inner
    found, residual = invert_sampled_map(sampled, waves(where, strength, phase, length))
    between_nodes = dims**0.5 * strength * (2 * np.pi / length) ** 2 / 8
    slowest = 1 - strength * 2 * np.pi / length
    assert float(residual.max()) < 1e-6
    if slowest > 0.2:
        assert float((found - where).norm(dim=-1).max()) <= between_nodes / slowest**dims + 1e-6


def test_at_nodes_the_inverse_is_exact() -> None:
    sampled = waves(index_grid((30, 26)).movedim(0, -1), 0.9, 1.0, 17.0).movedim(-1, 0)
    nodes = torch.tensor([[3, 4], [20, 11], [28, 24]])
    found, _ = invert_sampled_map(sampled, sampled[:, nodes[:, 0], nodes[:, 1]].T)
    torch.testing.assert_close(found, nodes.double(), atol=1e-7, rtol=0)


def test_missing_points_pass_through_and_none_is_lost() -> None:
    points = torch.tensor([[3.0, 4.0], [float("nan")] * 2, [5.5, 6.5]])
    found, residual = invert_sampled_map(index_grid((9, 9)), points)
    assert torch.isnan(found).all(dim=1).tolist() == [False, True, False]
    assert torch.isnan(residual).tolist() == [False, True, False]
    empty, _ = invert_sampled_map(index_grid((9, 9)), torch.zeros(0, 2))
    assert empty.shape == (0, 2)


def test_invalid_nodes_are_not_believed() -> None:
    """A border that repeats the last voxel: the map is continued beyond it from where it is known."""
    true = affine_map(
        (20, 20), torch.eye(2, dtype=torch.float64) * 1.5, torch.tensor([-5.0, -5.0], dtype=torch.float64)
    )
    repeated = true.clamp(0, 19)
    valid = ((true > 0) & (true < 19)).all(dim=0)
    where = torch.tensor([[4.0, 5.0], [3.5, 10.0], [1.0, 2.0], [17.0, 18.0]], dtype=torch.float64)
    found, residual = invert_sampled_map(repeated, 1.5 * where - 5, valid)
    torch.testing.assert_close(found, where, atol=1e-6, rtol=0)
    assert float(residual.max()) < 1e-6


def test_a_place_shown_twice_does_not_stop_the_search() -> None:
    """The advance is zero from node 10 to 11, where Newton's Jacobian is singular."""
    along = torch.cat([torch.arange(11.0), torch.arange(10.0, 19.0)]).double() * 1.1
    sampled = torch.stack(torch.meshgrid(along, torch.arange(20.0).double(), indexing="ij"))
    points = torch.tensor([[11.0 - 0.11, 7.0], [11.0 + 0.11, 7.0], [11.0 + 0.0, 7.0]], dtype=torch.float64)
    found, residual = invert_sampled_map(sampled, points)
    assert float(residual.max()) < 1e-6
    torch.testing.assert_close(found[:2, 0], torch.tensor([9.9, 11.1], dtype=torch.float64), atol=1e-6, rtol=0)
    assert 10 <= float(found[2, 0]) <= 11
    assert not bool(shown_in_folds(sampled, points).any())


def test_a_map_without_inverse_there_says_so_in_the_residual() -> None:
    grid = index_grid((20, 20))
    squashed = torch.stack([grid[0].clamp(max=9.0), grid[1]])  # nothing of rows 9 to 19 is shown
    _, residual = invert_sampled_map(squashed, torch.tensor([[5.0, 5.0], [15.0, 5.0]]), valid=torch.ones(20, 20).bool())
    assert float(residual[0]) < 1e-6
    assert float(residual[1]) > 1


@pytest.mark.parametrize("dims", [2, 3])
def test_folds_are_found_where_the_map_turns_back(dims: int) -> None:
    grid = index_grid((24,) * dims)
    folded = grid.clone()
    folded[0] += 6 * torch.exp(-((grid[0] - 12) ** 2) / 8)  # turns back near 13 to 16
    # One dimension says how often each place is shown.
    line = folded[0].reshape(24, -1)[:, 0].numpy()
    for place in (3.0, 8.0, 16.7, 22.0):
        times = int(((line[:-1] - place) * (line[1:] - place) < 0).sum())
        point = torch.full((1, dims), 10.0)
        point[0, 0] = place
        assert bool(shown_in_folds(folded, point)) == (times > 1), (place, times)


def test_mirrored_maps_are_no_folds() -> None:
    flipped = index_grid((12, 12)).flip(1)
    assert not bool(shown_in_folds(flipped, torch.tensor([[4.0, 5.0]])).any())
    found, _ = invert_sampled_map(flipped, torch.tensor([[4.0, 5.0]]))
    torch.testing.assert_close(found, torch.tensor([[7.0, 5.0]], dtype=torch.float64))


def test_many_points_on_a_large_grid_need_little_memory_and_no_loop() -> None:
    shape = (96, 96, 96)
    sampled = waves(index_grid(shape).movedim(0, -1), 2.0, 0.3, 60.0).movedim(-1, 0).float()
    where = 5 + 85 * torch.rand(500, 3, generator=torch.Generator().manual_seed(0)).double()
    _, residual = invert_sampled_map(sampled, waves(where, 2.0, 0.3, 60.0))
    assert float(residual.max()) < 1e-6


@pytest.mark.parametrize(
    ("grid", "points", "valid", "message"),
    [
        (torch.zeros(3, 5, 5), torch.zeros(1, 2), None, "must be \\(D, \\*S\\)"),
        (torch.zeros(2, 5, 1), torch.zeros(1, 2), None, "two voxels along every axis"),
        (torch.zeros(2, 5, 5), torch.zeros(1, 3), None, "must be \\(N, 2\\)"),
        (torch.zeros(2, 5, 5), torch.zeros(1, 2), torch.ones(4, 5).bool(), "valid must be"),
        (torch.zeros(2, 5, 5), torch.zeros(1, 2), torch.zeros(5, 5).bool(), "shows nothing"),
    ],
)
def test_wrong_input_is_refused(
    grid: torch.Tensor, points: torch.Tensor, valid: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(LandmarkError, match=message):
        invert_sampled_map(grid, points, valid)
