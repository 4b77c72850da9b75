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
"""Streaming gives what decoding the merged heatmaps gives, and these are the slow maximum over windows."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_landmarks.heatmaps import decode_heatmaps, gaussian_heatmaps
from monai_landmarks.heatmaps.candidates import find_candidates
from monai_landmarks.inferers.sliding_window import LandmarkSlidingWindowInferer

OUTSIDE = -7.0


class StoredMaps:
    """A network that knows the responses: its image holds each voxel's number, its output also depends on the window.

    Args:
        maps: ``(B, N, *S)``.
        fading: whether a response is weaker the nearer the window's border it is, as of a real network.
    """

    def __init__(self, maps: torch.Tensor, fading: bool = True) -> None:
        self.maps = maps.movedim(1, 0).flatten(1)
        self.image = torch.arange(float(maps[:, 0].numel())).reshape(len(maps), 1, *maps.shape[2:])
        self.fading = fading

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        number = windows[:, 0].long()
        values = self.maps[:, number.clamp(min=0)].movedim(0, 1).clone()
        if self.fading:
            for axis, size in enumerate(windows.shape[2:]):
                ramp = 1 - 0.5 * (torch.arange(size) / max(1, size - 1) - 0.5).abs()
                values *= ramp.reshape(-1, *(1,) * (windows.ndim - 3 - axis))
        return values.masked_fill((number < 0)[:, None], 99.0)


def slow_dense(network: StoredMaps, roi: tuple[int, ...], overlap: tuple[int, ...]) -> np.ndarray:
    """Pad, loop over windows in an order of its own, take the maximum of each voxel."""
    shape = network.image.shape[2:]
    pads = [((r - s) // 2, r - s - (r - s) // 2) if s < r else (0, 0) for s, r in zip(shape, roi, strict=True)]
    image = np.pad(network.image.numpy(), [(0, 0), (0, 0), *pads], constant_values=OUTSIDE)
    merged = np.full((len(image), len(network.maps), *image.shape[2:]), -np.inf, np.float32)
    axes = []
    for size, window, over in zip(image.shape[2:], roi, overlap, strict=True):
        axes.append(sorted({min(start, size - window) for start in range(0, size, window - over)}, reverse=True))
    for corner in product(*axes):
        where = (slice(None), slice(None), *(slice(c, c + r) for c, r in zip(corner, roi, strict=True)))
        merged[where] = np.maximum(merged[where], network(torch.from_numpy(image[where])).numpy())
    return merged[(..., *(slice(a, a + s) for (a, _), s in zip(pads, shape, strict=True)))]


def check(maps: torch.Tensor, roi, overlap, fading=True, batch=2, method="quadratic", distance=2, **options):
    network = StoredMaps(maps, fading)
    common = {"roi_size": roi, "overlap": overlap, "sw_batch_size": batch, "pad_value": OUTSIDE, **options}
    dense = LandmarkSlidingWindowInferer(mode="dense", **common)(network.image, network)
    np.testing.assert_array_equal(dense, slow_dense(network, roi, overlap))
    infer = LandmarkSlidingWindowInferer(method=method, min_distance=distance, max_candidates=4, **common)
    got = infer(network.image, network)
    points, confidence = decode_heatmaps(dense, method)
    several = find_candidates(dense, 4, distance, method=method)
    close = {"rtol": 0, "atol": 1e-4, "equal_nan": True}
    torch.testing.assert_close(got["points"], points, **close)
    torch.testing.assert_close(got["confidence"], confidence, **close)
    torch.testing.assert_close(got["candidates"], several.points, **close)
    torch.testing.assert_close(got["candidate_confidence"], several.confidence, **close)
    return got


@st.composite
def tilings(draw):
    dims = draw(st.integers(2, 3))
    shape = tuple(draw(st.integers(1, 24 if axis == dims - 1 else 9)) for axis in range(dims))
    roi = tuple(draw(st.integers(1, 8)) for _ in range(dims))
    overlap = tuple(draw(st.integers(0, size - 1)) for size in roi)
    return shape, roi, overlap


@settings(max_examples=60, deadline=None)
@given(tilings(), st.integers(1, 2), st.integers(0, 999), st.integers(1, 4), st.booleans())
def test_random_maps(tiling, items, seed, distance, tied):
    shape, roi, overlap = tiling
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(items, 3, *shape, generator=generator)
    # With whole numbers and no fading, many voxels and many windows have equal values.
    check(maps.round() if tied else maps, roi, overlap, fading=not tied, distance=distance)


@pytest.mark.parametrize("method", ["argmax", "quadratic", "dark", "local_soft_argmax", "gaussian_fit"])
@pytest.mark.parametrize(
    ("shape", "roi", "overlap"), [((12, 70), (12, 20), (0, 10)), ((40, 14, 13), (12, 10, 20), (3, 5, 0))]
)
def test_gaussian_maps_find_the_true_points(method, shape, roi, overlap):
    generator = torch.Generator().manual_seed(1)
    truth = torch.rand(2, 6, len(shape), generator=generator) * (torch.tensor(shape) - 1)
    got = check(gaussian_heatmaps(truth, shape, 1.5), roi, overlap, fading=False, method=method)
    assert (got["points"] - truth).abs().max() < (0.51 if method == "argmax" else 0.01)


def test_negative_responses_everywhere():
    got = check(-1 - torch.rand(1, 2, 9, 40, generator=torch.Generator().manual_seed(0)), (9, 12), (0, 4), fading=False)
    assert got["points"].isnan().all()
    assert (got["confidence"] < -1).all()


@pytest.mark.parametrize("place", range(6, 27))
def test_peak_at_any_place_of_a_window(place):
    """On its border, across it, and cut by it: windows begin at 0, 8 and 16."""
    truth = torch.tensor([[[4.2, place + 0.3]]])
    got = check(gaussian_heatmaps(truth, (9, 32), 1.5), (9, 16), (0, 8), fading=False)
    torch.testing.assert_close(got["points"], truth, atol=0.01, rtol=0)
    check(gaussian_heatmaps(truth, (9, 32), 1.5), (9, 16), (0, 8))


def test_equal_peaks_in_two_windows_first_in_order():
    maps = torch.zeros(1, 1, 9, 64)
    maps[0, 0, 7, 10] = maps[0, 0, 2, 50] = maps[0, 0, 7, 50] = 1.0
    got = check(maps, (9, 16), (0, 4), fading=False, method="argmax")
    assert got["points"].tolist() == [[[2, 50]]]
    assert got["candidates"][0, 0, :3].tolist() == [[2, 50], [7, 10], [7, 50]]


@pytest.mark.parametrize("level", [0.0, 0.7, -0.3])
def test_constant_maps(level):
    got = check(torch.full((1, 2, 9, 40), level), (9, 12), (0, 4), fading=False)
    assert got["points"].isnan().all()
    assert (got["confidence"] == level).all()


def test_infinite_responses():
    maps = torch.rand(1, 3, 9, 40, generator=torch.Generator().manual_seed(0))
    maps[0, 0, 3, 20], maps[0, 1, 4, 9] = torch.inf, -torch.inf
    got = check(maps, (9, 12), (0, 4), fading=False)
    assert got["points"].isnan().any(-1).tolist() == [[True, False, False]]


@pytest.mark.parametrize("shape", [(5, 6, 4), (20, 1, 9), (8, 8, 1)])
def test_shorter_than_the_window_and_one_slice_thick(shape):
    check(torch.randn(2, 2, *shape, generator=torch.Generator().manual_seed(2)), (8, 8, 8), (4, 4, 4))
