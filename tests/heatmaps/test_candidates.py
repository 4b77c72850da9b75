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
"""Several peaks of a map: against a loop over all voxels, and against the decoders."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.heatmaps import DecodeMethod, decode_heatmaps, gaussian_heatmaps
from monai_landmarks.heatmaps.candidates import CandidateSearch, find_candidates


def slow_peaks(volume: np.ndarray, reach: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All voxels that no voxel of their box exceeds and no earlier one equals, the highest first."""
    found = []
    for voxel in np.ndindex(*volume.shape):
        box = product(
            *(range(max(0, v - r), min(s, v + r + 1)) for v, r, s in zip(voxel, reach, volume.shape, strict=True))
        )
        beaten = any(volume[o] > volume[voxel] or (volume[o] == volume[voxel] and o < voxel) for o in box)
        if volume[voxel] > 0 and not beaten:
            found.append(voxel)
    return sorted(found, key=lambda v: (-volume[v], v))


@st.composite
def volumes(draw):
    dims = draw(st.integers(2, 3))
    shape = tuple(draw(st.integers(1, 8)) for _ in range(dims))
    levels = draw(st.integers(1, 9))
    maps = np.random.default_rng(draw(st.integers(0, 999))).integers(-2, levels, (2, *shape)).astype(np.float32)
    return maps, tuple(draw(st.integers(1, 6)) for _ in range(dims))


class TestPeaks:
    @settings(max_examples=60, deadline=None)
    @given(volumes(), st.integers(1, 6))
    def test_voxels_are_those_of_a_loop_over_all_voxels(self, case, most):
        maps, reach = case
        found = find_candidates(torch.from_numpy(maps)[None], most, reach, method="argmax")
        for volume, points, confidence in zip(maps, found.points[0], found.confidence[0], strict=True):
            constant = volume.size > 1 and volume.min() == volume.max()
            expected = [] if constant else slow_peaks(volume, reach)[:most]
            assert [tuple(p) for p in points[: len(expected)].long().tolist()] == expected
            assert points[len(expected) :].isnan().all()
            assert confidence[: len(expected)].tolist() == [volume[v] for v in expected]
            assert confidence[max(1, len(expected)) :].isnan().all()

    @settings(max_examples=30, deadline=None)
    @given(volumes(), st.integers(1, 4), st.integers(0, 2))
    def test_slabs_give_what_the_whole_gives(self, case, step, axis):
        maps, reach = torch.from_numpy(case[0])[None], case[1]
        axis = min(axis, len(reach) - 1)
        length = maps.shape[2 + axis]
        search = CandidateSearch(maps.shape[2:], 3, reach, method="dark")
        for start in range(0, length, step):
            low, high = max(0, start - search.halo[axis]), min(length, start + step + search.halo[axis])
            search.add(maps.narrow(2 + axis, low, high - low), axis, low, start, min(start + step, length))
        for got, want in zip(search.result(), find_candidates(maps, 3, reach, method="dark"), strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-6, equal_nan=True)

    def test_points_are_where_the_gaussians_are(self):
        points = torch.tensor([[4.3, 20.1, 9.6], [15.2, 5.7, 12.4], [16.0, 26.0, 3.3]])
        maps = gaussian_heatmaps(points, (24, 32, 18), sigma=2.0)
        mixed = (maps * torch.tensor([0.5, 1.0, 0.25])[:, None, None, None]).sum(dim=0)[None]
        found = find_candidates(mixed, 5, spatial_dims=3, method="gaussian_fit")
        torch.testing.assert_close(found.points[0, :3], points[[1, 0, 2]], atol=1e-3, rtol=0)
        torch.testing.assert_close(found.confidence[0, :3], torch.tensor([1.0, 0.5, 0.25]), atol=1e-3, rtol=0)
        assert found.points[0, 3:].isnan().all()

    def test_shoulder_is_no_peak_and_a_plateau_has_one(self):
        maps = torch.zeros(1, 40, 9)
        maps[0, 4:9, 2:6] = 1.0
        maps[0, 20, 4], maps[0, 23, 4] = 0.9, 0.8
        found = find_candidates(maps, 4, min_distance=3, method="argmax").points[0]
        assert found[:2].tolist() == [[4, 2], [20, 4]]
        assert found[2:].isnan().all()
        assert find_candidates(maps, 4, min_distance=2, method="argmax").points[0, 2].tolist() == [23, 4]

    def test_background_that_is_not_zero_hides_no_peak(self):
        maps = gaussian_heatmaps(torch.tensor([[30.2, 11.0], [9.0, 30.0]]), (64, 64), sigma=2.0).amax(0).clamp(min=0.1)
        found = find_candidates(maps[None], 40, method="argmax")
        assert found.points[0, :2].tolist() == [[9, 30], [30, 11]]
        assert found.confidence[0, 2] == pytest.approx(0.1)


class TestFirstCandidate:
    @pytest.mark.parametrize("method", list(DecodeMethod))
    @pytest.mark.parametrize("shape", [(13, 1), (17, 12), (9, 11, 8), (1, 12, 10)])
    def test_is_what_the_decoder_gives(self, method, shape):
        generator = torch.Generator().manual_seed(3)
        points = torch.rand(2, 6, len(shape), generator=generator) * (torch.tensor(shape) - 1)
        maps = gaussian_heatmaps(points, shape, 1.5) + 0.05 * torch.rand(2, 6, *shape, generator=generator)
        maps[0, 0], maps[0, 1], maps[0, 2], maps[1, 0] = 0.0, -1.0, 0.7, torch.nan
        maps[1, 1, 0] = torch.inf
        found, want = find_candidates(maps, 3, method=method), decode_heatmaps(maps, method)
        torch.testing.assert_close(found.points[:, :, 0], want.points, atol=1e-4, rtol=0, equal_nan=True)
        torch.testing.assert_close(found.confidence[:, :, 0], want.confidence, atol=1e-5, rtol=0, equal_nan=True)

    @pytest.mark.parametrize("smoothing", [0.4, 2.0])
    def test_options_of_the_method_are_heard(self, smoothing):
        maps = torch.rand(1, 4, 12, 7, 9, generator=torch.Generator().manual_seed(0))
        found = find_candidates(maps, 2, method="dark", smoothing=smoothing)
        want = decode_heatmaps(maps, "dark", smoothing=smoothing)
        torch.testing.assert_close(found.points[:, :, 0], want.points, atol=1e-4, rtol=0)

    def test_without_batch_axis(self):
        maps = torch.rand(3, 8, 9, 7, generator=torch.Generator().manual_seed(0))
        found = find_candidates(maps, 2, spatial_dims=3)
        assert found.points.shape == (3, 2, 3)
        assert found.confidence.shape == (3, 2)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_dtypes(self, dtype):
        maps = gaussian_heatmaps(torch.tensor([[[9.3, 4.0]]]), (20, 16), sigma=3.0).to(dtype)
        found = find_candidates(maps, 2)
        assert found.points.dtype == torch.promote_types(dtype, torch.float32)
        torch.testing.assert_close(found.points[:, :, 0], decode_heatmaps(maps, "quadratic").points)


class TestLimits:
    maps = gaussian_heatmaps(torch.tensor([[4.0, 4.0], [20.0, 4.0], [36.0, 4.0]]), (40, 9), sigma=1.5)
    maps = (maps * torch.tensor([0.3, 0.6, 0.1])[:, None, None]).sum(dim=0)[None]

    def test_min_confidence_is_exclusive(self):
        level = float(self.maps[0, 4, 4])
        assert find_candidates(self.maps, min_confidence=level).points[0, :, 0].isnan().tolist() == [False] + [True] * 4
        assert not find_candidates(self.maps, min_confidence=level - 1e-4).points[0, 1].isnan().any()

    def test_min_relative_is_a_share_of_the_best(self):
        assert find_candidates(self.maps, min_relative=0.4).points[0, :, 0].isnan().tolist() == [False] * 2 + [True] * 3

    def test_best_below_the_limit_is_missing_but_scored(self):
        found = find_candidates(self.maps, min_confidence=0.9)
        assert found.points.isnan().all()
        assert found.confidence[0, 0] == self.maps.max()
        assert found.confidence[0, 1:].isnan().all()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"max_candidates": 0}, "max_candidates"),
            ({"min_distance": 0}, "min_distance"),
            ({"min_distance": (3, 3, 3)}, "2 axes"),
            ({"min_confidence": -1.0}, "must be positive"),
            ({"min_relative": 2.0}, "share"),
            ({"method": "dark", "smoothing": -1.0}, "smoothing"),
            ({"method": "gaussian_fit", "iterations": -1}, "iterations"),
            ({"method": "argmax", "window": 3}, "has no option"),
        ],
    )
    def test_bad_options_are_refused(self, options, message):
        with pytest.raises(LandmarkError, match=message):
            find_candidates(self.maps, **options)

    def test_unknown_method(self):
        with pytest.raises(ValueError, match="median"):
            find_candidates(self.maps, method="median")
