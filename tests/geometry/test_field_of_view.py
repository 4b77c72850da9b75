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
"""The three states of a landmark: in the image, outside, missing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.geometry.field_of_view import FieldOfView, check_state, field_of_view, report_outside

NAN = float("nan")
MISSING, OUTSIDE, INSIDE = FieldOfView
SHAPES = [(7, 9), (5, 6, 4)]


def test_numbers_are_those_of_coco_visibility() -> None:
    """0 not labelled, 1 labelled and not visible, 2 labelled and visible."""
    assert [(state.name, state.value) for state in FieldOfView] == [("MISSING", 0), ("OUTSIDE", 1), ("INSIDE", 2)]


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_border_belongs_to_the_image(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    for axis, size in enumerate(shape):
        for border, away in ((-0.5, -math.inf), (size - 0.5, math.inf)):
            point = torch.ones(2, len(shape), dtype=dtype)
            point[:, axis] = border
            point[1, axis] = torch.nextafter(point[1, axis], torch.tensor(away, dtype=dtype))
            assert field_of_view(point, shape).tolist() == [INSIDE, OUTSIDE]


@settings(max_examples=100, deadline=None)
@given(data=st.data(), shape=st.lists(st.integers(1, 6), min_size=2, max_size=3))
def test_slow_oracle(data: st.DataObject, shape: list[int]) -> None:
    coordinate = st.one_of(st.floats(-3, 9), st.sampled_from([-0.5, 0.0, *(size - 0.5 for size in shape)]))
    point = st.one_of(st.just((NAN,) * len(shape)), st.tuples(*[coordinate] * len(shape)))
    points = data.draw(st.lists(point, min_size=1, max_size=5))
    expected = []
    for each in points:
        if any(math.isnan(v) for v in each):
            expected.append(0)
        elif all(-0.5 <= v <= size - 0.5 for v, size in zip(each, shape, strict=True)):
            expected.append(2)
        else:
            expected.append(1)
    found = field_of_view(torch.tensor(points, dtype=torch.float64), shape)
    assert found.dtype == torch.uint8
    assert found.tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_float32(dtype: torch.dtype) -> None:
    """In bfloat16 itself 511.5 is 512, and a landmark half a voxel outside would be inside."""
    points = torch.tensor([[512.0, 3.0], [510.0, 3.0], [NAN, NAN]], dtype=dtype)
    assert field_of_view(points, (512, 512)).tolist() == [OUTSIDE, INSIDE, MISSING]


def test_leading_axes_integers_and_meta_data() -> None:
    points = torch.tensor([[[0, 0], [7, 0]], [[6, 8], [-1, 0]]])
    expected = [[INSIDE, OUTSIDE], [INSIDE, OUTSIDE]]
    assert field_of_view(points, (7, 9)).tolist() == expected
    found = field_of_view(MetaTensor(points.float()), (7, 9))
    assert type(found) is torch.Tensor
    assert found.tolist() == expected


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
def test_all_missing_and_all_outside(shape: tuple[int, ...]) -> None:
    dims = len(shape)
    assert field_of_view(torch.full((2, 3, dims), NAN), shape).tolist() == [[MISSING] * 3] * 2
    assert field_of_view(torch.full((2, 3, dims), -9.0), shape).tolist() == [[OUTSIDE] * 3] * 2
    assert report_outside(torch.full((3, dims), NAN), shape) is None
    assert report_outside(torch.full((3, dims), -9.0), shape) == (
        f"3 of 3 landmarks under 'landmarks' lie outside the image of shape {shape}; kept, as outside the field of view."
    )


def test_report_counts_the_landmarks_there_are() -> None:
    points = torch.tensor([[1.0, 2.0], [7.0, 2.0], [NAN, NAN], [1.0, 9.0]])
    report = report_outside(points, [7, 9], "points")
    assert report is not None
    assert report.startswith("2 of 3 landmarks under 'points' lie outside the image of shape (7, 9)")
    assert report_outside(points[:1], (7, 9)) is None


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (torch.tensor([[1.0, NAN]]), "some but not all coordinates"),
        (torch.tensor([[1.0, math.inf]]), "infinite"),
        (torch.zeros(4, 3), "is it the right point file"),
        (torch.zeros(2), r"\(\.\.\., N, D\)"),
    ],
)
def test_points_that_are_none(points: torch.Tensor, words: str) -> None:
    with pytest.raises(LandmarkError, match=words):
        field_of_view(points, (7, 9))


POINTS = torch.tensor([[1.0, 2.0], [9.0, 2.0], [NAN, NAN]])


@pytest.mark.parametrize(
    "state",
    [
        [2, 1, 0],
        (INSIDE, OUTSIDE, MISSING),
        np.array([2.0, 1.0, 0.0]),
        torch.tensor([2, 1, 0], dtype=torch.uint8),
        MetaTensor(torch.tensor([2.0, 1.0, 0.0])),
    ],
)
def test_state_in_any_form(state: Any) -> None:
    found = check_state(state, POINTS)
    assert type(found) is torch.Tensor
    assert (found.dtype, found.tolist()) == (torch.uint8, [2, 1, 0])
    assert check_state([state, state], torch.stack([POINTS, POINTS])).tolist() == [[2, 1, 0]] * 2


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ([2, 1], r"shape \(3,\), got shape \(2,\)"),
        ([[2, 1, 0]], r"shape \(3,\), got shape \(1, 3\)"),
        ([True, True, False], "a bool mask; 0"),
        (torch.tensor([True, False, False]), "a bool mask; 0"),
        ([2, 3, 0], r"\[0, 2, 3\]; 0 \(missing\)"),
        ([2, 1, 1], "disagree on which landmarks are missing, first at index \\(2,\\)"),
        ([0, 1, 0], "disagree on which landmarks are missing, first at index \\(0,\\)"),
        ("outside", "one number per landmark, got str"),
        ([[2], [1, 0]], "one number per landmark, got list"),
    ],
)
def test_state_of_other_points_is_refused(state: Any, words: str) -> None:
    with pytest.raises(LandmarkError, match=words):
        check_state(state, POINTS)
