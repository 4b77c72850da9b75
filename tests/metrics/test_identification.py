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
"""Identification of landmarks against a slow loop, and cases made by hand."""

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
from monai_landmarks.metrics import radial_errors
from monai_landmarks.metrics.identification import IDENTIFICATION_RULES, identification_rate, identify

NAN = float("nan")
MISSING = [NAN, NAN]


def spine(places: list[float], dims: int = 2) -> list[list[float]]:
    """Points along one axis, NaN for missing."""
    return [[NAN] * dims if math.isnan(p) else [0.0] * (dims - 1) + [p] for p in places]


def loop(pred: np.ndarray, true: np.ndarray, rule: str, radius: float) -> list[list[str]]:
    """What happened to each landmark, one after the other, by the words of the rules."""
    table = []
    for p, t in zip(pred, true, strict=True):
        row = []
        for i in range(len(p)):
            if np.isnan(t[i]).any():
                row.append("absent" if np.isnan(p[i]).any() else "false positive")
                continue
            if np.isnan(p[i]).any():
                row.append("missed")
                continue
            candidates = [j for j in range(len(t)) if not np.isnan(t[j]).any()]
            if rule == "verse_program":
                candidates = [j for j in candidates if not np.isnan(p[j]).any()]
            nearest = min(candidates, key=lambda j: float(np.linalg.norm(p[i] - t[j])))
            distance = float(np.linalg.norm(p[i] - t[i]))
            near = distance < radius if rule == "verse" else distance <= radius
            row.append("identified" if nearest == i and near else "misidentified")
        table.append(row)
    return table


def tables_of(found: Any) -> list[list[str]]:
    """The same words from the tables, each landmark in at most one of them."""
    names = ("identified", "misidentified", "missed", "false_positive")
    stacked = torch.stack([getattr(found, name) for name in names])
    assert int(stacked.sum(0).max()) <= 1
    words = np.array(["absent", *(name.replace("_", " ") for name in names)])
    return words[(stacked * torch.arange(1, 5)[:, None, None]).sum(0).numpy()].tolist()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 4),
    landmarks=st.integers(1, 9),
    dims=st.sampled_from([2, 3]),
    rule=st.sampled_from(sorted(IDENTIFICATION_RULES)),
)
def test_every_landmark_is_what_the_loop_says(seed: int, batch: int, landmarks: int, dims: int, rule: str) -> None:
    rng = np.random.default_rng(seed)
    true = np.cumsum(rng.uniform(-5, 25, (batch, landmarks, dims)), axis=1)
    pred = true + rng.normal(0, 12, true.shape)
    true[rng.random((batch, landmarks)) < 0.3] = np.nan
    pred[rng.random((batch, landmarks)) < 0.2] = np.nan
    found = identify(pred, true, rule, 20.0)
    assert tables_of(found) == loop(pred, true, rule, 20.0)
    torch.testing.assert_close(found.distance, radial_errors(pred, true), equal_nan=True)


def test_a_neighbour_that_is_nearer_spoils_it_within_the_distance() -> None:
    """18 mm off, but 12 mm from the next vertebra."""
    found = identify([spine([18.0, 30.0])], [spine([0.0, 30.0])])
    assert found.identified.tolist() == [[False, True]]
    assert found.lies_on.tolist() == [[1, 1]]
    assert found.misidentified.tolist() == [[True, False]]


@pytest.mark.parametrize(
    ("rule", "distance", "identified"),
    [
        ("glocker", 20.0, True),
        ("verse", 20.0, False),
        ("verse_program", 20.0, True),
        ("glocker", 20.001, False),
        ("verse", 19.999, True),
    ],
)
@pytest.mark.parametrize("dims", [2, 3])
def test_exactly_20_mm(rule: str, distance: float, identified: bool, dims: int) -> None:
    found = identify([spine([distance, 60.0], dims)], [spine([0.0, 60.0], dims)], rule)
    assert bool(found.identified[0, 0]) is identified


def test_exactly_20_mm_survives_float32() -> None:
    """World coordinates of a long scan carry 1e-5 mm of rounding."""
    true = torch.tensor([[[113.7, -204.3, 871.9]]])
    pred = true + torch.tensor([0.0, 12.0, 16.0])
    assert bool(identify(pred, true, "glocker").identified)
    assert not bool(identify(pred, true, "verse").identified)


def test_a_missed_neighbour_is_a_neighbour_except_in_the_verse_program() -> None:
    true, pred = [spine([0.0, 18.0])], [spine([16.0, NAN])]
    assert [bool(identify(pred, true, rule).identified[0, 0]) for rule in ("glocker", "verse", "verse_program")] == [
        False,
        False,
        True,
    ]


def test_of_two_at_the_same_distance_the_right_one_is_the_nearest() -> None:
    """Whatever their order, and whatever rounding says."""
    true = spine([0.1, 30.3])
    middle = (0.1 + 30.3) / 2
    for pred in ([middle, 30.3], [0.1, middle]):
        assert identify([spine(pred)], [true]).identified.all()


def test_nothing_to_find_and_nothing_found() -> None:
    nothing = [[MISSING, MISSING]]
    some = [spine([0.0, 30.0])]
    surplus = identify(some, nothing)
    assert surplus.false_positive.all()
    assert surplus.lies_on.tolist() == [[-1, -1]]
    assert math.isnan(identification_rate(surplus).item())
    assert math.isnan(identification_rate(surplus, "all_correct").item())
    missed = identify(nothing, some)
    assert missed.missed.all()
    assert not missed.identified.any()
    assert identification_rate(missed).item() == 0.0
    neither = identify(nothing, nothing)
    assert not (neither.evaluated | neither.predicted | neither.false_positive).any()


def test_a_single_landmark() -> None:
    assert identify([[[0.0, 0.0, 19.0]]], [[[0.0, 0.0, 0.0]]]).identified.tolist() == [[True]]
    assert identify([[[0.0, 0.0, 21.0]]], [[[0.0, 0.0, 0.0]]]).identified.tolist() == [[False]]


def test_infinite_predictions_are_misses_and_the_distance_can_be_chosen() -> None:
    assert identify([[[math.inf, 0.0]]], [[[0.0, 0.0]]]).missed.all()
    assert not identify([[[0.0, 4.0]]], [[[0.0, 0.0]]], max_distance=3.0).identified.any()


def test_meta_tensors_and_half_precision() -> None:
    true = torch.tensor([spine([0.0, 30.0])])
    for pred in (MetaTensor(true), true.half(), true.bfloat16()):
        found = identify(pred, MetaTensor(true))
        assert type(found.distance) is torch.Tensor
        assert found.identified.all()


def test_landmarks_outside_do_not_count_but_stay_neighbours() -> None:
    true = [spine([0.0, 30.0, 60.0])]
    found = identify([spine([29.0, 80.0, 60.0])], true, outside=[[False, True, False]])
    assert tables_of(found) == [["misidentified", "absent", "identified"]]
    assert found.lies_on.tolist()[0][0] == 1
    assert identification_rate(found).item() == 50.0


def test_rates_are_counted_by_hand() -> None:
    """Three images: 2 of 2 with a false positive, 1 of 3, and none to find."""
    true = [spine([0.0, 30.0, NAN]), spine([0.0, 30.0, 60.0]), spine([NAN, NAN, NAN])]
    pred = [spine([1.0, 31.0, 90.0]), spine([1.0, 61.0, NAN]), spine([NAN, 5.0, NAN])]
    found = identify(pred, true)
    assert identification_rate(found).item() == pytest.approx(60.0)
    assert identification_rate(found, "macro").item() == pytest.approx((100 + 100 / 3) / 2)
    assert identification_rate(found, "all_correct").item() == 50.0
    assert identification_rate(found, "flawless").item() == 0.0
    assert identification_rate(found, "per_landmark").tolist() == [100.0, 50.0, 0.0]
    with pytest.raises(ValueError, match="median"):
        identification_rate(found, "median")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rule": "gloker"}, "glocker"),
        ({"max_distance": 0.0}, "positive"),
        ({"outside": [[True]]}, "`outside` must have the shape"),
        ({"true": [spine([0.0])]}, "same shape"),
        ({"pred": spine([0.0, 1.0]), "true": spine([0.0, 1.0])}, r"\(B, N, D\)"),
        ({"true": [[[0.0, NAN], [0.0, 0.0]]]}, "NaN"),
    ],
)
def test_wrong_input_is_refused(arguments: dict, words: str) -> None:
    with pytest.raises((LandmarkError, ValueError), match=words):
        identify(**{"pred": [spine([0.0, 1.0])], "true": [spine([0.0, 1.0])], **arguments})
