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
"""Fusion of resolutions: who sees whom, windows against a loop, positional codes against interpolation by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from monai_landmarks.networks.blocks.resolution_attention import PositionalCode, ResolutionAttention, ResolutionSum

CELLS = {2: (16, 16), 3: (8, 8, 8)}


def pyramid(dims: int, coarsest: tuple[int, ...], levels: int, seed: int = 0) -> list[torch.Tensor]:
    """Maps (2, 4 + level, *S), the coarsest first."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [tuple(n << level for n in coarsest[:dims]) for level in range(levels)]
    return [torch.rand(2, 4 + level, *shape, generator=generator) for level, shape in enumerate(shapes)]


def fusion(dims: int, levels: int = 3, layers: int = 1, windows: int = 4) -> ResolutionAttention:
    torch.manual_seed(0)
    channels = [4 + level for level in range(levels)]
    return ResolutionAttention(dims, channels, CELLS[dims], 8, layers=layers, windows=windows).eval()


def changed(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Cells (*S) that differ in the first image."""
    return ((before - after).abs().amax(dim=1) > 1e-7)[0]


@pytest.mark.parametrize("dims", [2, 3])
def test_a_cell_of_a_fine_map_is_seen_in_its_window_only(dims: int) -> None:
    fuse, maps = fusion(dims), pyramid(dims, (2, 2, 2), 3)
    token, finest = fuse(maps)
    touched = [x.clone() for x in maps]
    touched[2][(0, slice(None), *[3] * dims)] += 5
    token_after, finest_after = fuse(touched)
    expected = torch.zeros(finest.shape[2:], dtype=torch.bool)
    expected[(slice(2, 4),) * dims] = True  # the second of four windows of 8 cells
    assert torch.equal(changed(finest, finest_after), expected)
    assert torch.equal(token, token_after)


def test_the_coarse_maps_are_seen_by_all_that_is_finer() -> None:
    fuse, maps = fusion(2), pyramid(2, (2, 2), 3)
    token, finest = fuse(maps)
    touched = [maps[0].clone(), *maps[1:]]
    touched[0][0, :, 1, 0] += 5
    token_after, finest_after = fuse(touched)
    assert bool(changed(finest, finest_after).all())
    assert float((token - token_after)[0].detach().abs().max()) > 1e-6
    assert torch.equal(token[1], token_after[1])


@pytest.mark.parametrize("dims", [2, 3])
def test_windows_are_those_of_a_loop(dims: int) -> None:
    fuse, block = fusion(dims), fusion(dims).layers[0][2]
    x, lower = torch.rand(2, *(16, 8, 8)[:dims], 8), torch.rand(2, *(8, 4, 4)[:dims], 8)
    result = fuse._in_windows(block, x, lower)
    for window in np.ndindex(*[4] * dims):
        at, below = ((slice(None), *(slice(w * s, (w + 1) * s) for w, s in zip(window, sizes, strict=True)))
                     for sizes in ([n // 4 for n in x.shape[1:-1]], [n // 4 for n in lower.shape[1:-1]]))  # fmt: skip
        expected = block(x[at].flatten(1, -2), lower[below].flatten(1, -2))
        torch.testing.assert_close(result[at].flatten(1, -2), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("levels", [2, 3, 4])
def test_maps_that_windows_do_not_divide(dims: int, levels: int) -> None:
    maps = pyramid(dims, (3, 1, 1), levels)
    token, finest = fusion(dims, levels, layers=2)(maps)
    assert token.shape == (2, 8)
    assert finest.shape == (2, 8, *maps[-1].shape[2:])
    assert bool(finest.isfinite().all())


def test_only_the_coarse_maps_give_the_token_of_the_second() -> None:
    fuse, maps = fusion(2, 4, layers=2), pyramid(2, (2, 3), 4)
    torch.testing.assert_close(fuse(maps[:2])[0], fuse(maps)[0])


def test_normalisation_comes_after_the_residual_sum() -> None:
    finest = fusion(2)(pyramid(2, (2, 2), 3))[1]
    torch.testing.assert_close(finest.mean(dim=1), torch.zeros(2, 8, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(finest.var(dim=1, unbiased=False), torch.ones(2, 8, 8), atol=1e-2, rtol=0)


def test_parameters_are_counted_as_published() -> None:
    fuse = ResolutionAttention(2, [144, 72, 36, 18], cells=(80, 64))
    counts = {name: sum(p.numel() for p in child.parameters()) for name, child in fuse.named_children()}
    assert counts == {"enter": 17_536, "codes": 8_640, "tokens": 128, "layers": 500_480}


@pytest.mark.parametrize("size", [10, 25])
def test_codes_of_another_size_are_interpolated_and_of_its_own_are_not(size: int) -> None:
    code = PositionalCode(5, (10, 7))
    zeros = torch.zeros(1, 5, size, 7)
    added = code(zeros)[0].detach()
    places = (np.arange(size) + 0.5) * 10 / size - 0.5
    along = np.stack([np.interp(places, np.arange(10), row) for row in code.codes[0].detach().double().numpy()])
    torch.testing.assert_close(added[:3, :, 4].double(), torch.from_numpy(along), atol=1e-6, rtol=0)
    torch.testing.assert_close(added[3:, 6], code.codes[1].detach())


def test_a_transposed_map_is_told_from_the_map_by_its_codes() -> None:
    fuse, maps = fusion(2, 2), pyramid(2, (3, 3), 2)
    token, transposed = fuse(maps)[0], fuse([x.transpose(2, 3) for x in maps])[0]
    assert float((token - transposed).detach().abs().max()) > 1e-5


def test_the_sum_is_that_of_enlarged_maps() -> None:
    maps = pyramid(2, (2, 3), 3)
    fuse = ResolutionSum(2, [4, 5, 6], channels=8)
    entered = [enter(x) for enter, x in zip(fuse.enter, maps, strict=True)]
    second = entered[1] + F.interpolate(entered[0], scale_factor=2, mode="bilinear")
    summary, finest = fuse(maps)
    torch.testing.assert_close(summary, second.mean(dim=(2, 3)))
    torch.testing.assert_close(finest, entered[2] + F.interpolate(second, scale_factor=2, mode="bilinear"))


def test_autocast_and_gradients() -> None:
    fuse, maps = fusion(2).train(), pyramid(2, (2, 2), 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        token, finest = fuse(maps)
    (token.float().square().sum() + finest.float().square().sum()).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in fuse.parameters())


def test_counts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="divisible by the 3 `heads`"):
        ResolutionAttention(2, [4, 4], (8, 8), channels=64, heads=3)
    with pytest.raises(ValueError, match="`layers` must be at least 1"):
        ResolutionAttention(2, [4, 4], (8, 8), layers=0)
