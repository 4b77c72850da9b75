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
"""Windows cover every voxel, end flush, and centre short images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_landmarks.inferers.tiling import overlap_voxels, window_starts


@given(st.integers(1, 60), st.integers(1, 20), st.data())
def test_every_voxel_is_covered_and_windows_overlap_as_asked(length, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    starts = window_starts(length, size, overlap)
    covered = np.zeros(length, int)
    for start in starts:
        covered[max(0, start) : start + size] += 1
    assert (covered > 0).all()
    steps = np.diff(starts)
    assert (steps[:-1] == size - overlap).all()
    assert (steps > 0).all()
    assert (steps <= size - overlap).all()
    if length > size:
        assert (starts[0], starts[-1]) == (0, length - size)


@given(st.integers(1, 60), st.integers(0, 30))
def test_short_axis_is_centred(length, extra):
    (start,) = window_starts(length, length + extra, 0)
    before, after = -start, extra + start
    assert 0 <= before <= after <= before + 1


def test_paper():
    """192 slices that overlap by 96, section 4.2."""
    assert window_starts(400, 192, *overlap_voxels(96, (192,))) == [0, 96, 192, 208]


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [(0, (0, 0)), (0.5, (8, 5)), (0.25, (4, 2)), (3, (3, 3)), ((0.5, 2), (8, 2)), (0.99, (15, 9))],
)
def test_shares_and_voxels(overlap, expected):
    assert overlap_voxels(overlap, (16, 10)) == expected


@pytest.mark.parametrize("overlap", [-1, 1.5, 10, (0, 0, 0), float("nan")])
def test_impossible_overlaps_are_refused(overlap):
    with pytest.raises(ValueError, match="overlap"):
        overlap_voxels(overlap, (16, 10))
