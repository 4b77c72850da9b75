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
"""Shares and schedules of several data sets."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_landmarks.engines.dataset_mixing import derived_seed, draw_schedule, mixing_proportions
from monai_landmarks.geometry import LandmarkError

# Batches of four films of the published training: 32 + 137 + 48.
PUBLISHED = {"head": 32, "hand": 137, "chest": 48}


def test_by_size_and_equal() -> None:
    assert mixing_proportions(PUBLISHED) == pytest.approx({"head": 32 / 217, "hand": 137 / 217, "chest": 48 / 217})
    assert mixing_proportions(PUBLISHED, None) == mixing_proportions(PUBLISHED, "size")
    assert mixing_proportions(PUBLISHED, "equal") == pytest.approx(dict.fromkeys(PUBLISHED, 1 / 3))
    assert mixing_proportions(PUBLISHED, {"hand": 1, "head": 2, "chest": 5}) == pytest.approx(
        {"head": 0.25, "hand": 0.125, "chest": 0.625}
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 5.0])
def test_temperature_is_a_power_of_the_size(temperature: float) -> None:
    powers = {name: n ** (1 / temperature) for name, n in PUBLISHED.items()}
    wanted = {name: power / sum(powers.values()) for name, power in powers.items()}
    assert mixing_proportions(PUBLISHED, temperature=temperature) == pytest.approx(wanted)


def test_the_temperatures_ends() -> None:
    assert mixing_proportions(PUBLISHED, temperature=math.inf) == pytest.approx(mixing_proportions(PUBLISHED, "equal"))
    cold = mixing_proportions({"head": 10**6, "hand": 10**6 - 1}, temperature=1e-6)
    assert cold["head"] == pytest.approx(math.e / (math.e + 1), rel=1e-5)


@pytest.mark.parametrize(
    ("sizes", "weights", "temperature", "words"),
    [
        ({}, "size", 1.0, "at least one batch"),
        ({"head": 3, "hand": 0}, "size", 1.0, "'hand': 0"),
        (PUBLISHED, {"head": 1, "hand": 1}, 1.0, "nothing for data set 'chest'"),
        (PUBLISHED, {**PUBLISHED, "hands": 1}, 1.0, r"unknown data set 'hands' \(did you mean 'hand'\?\)"),
        (
            PUBLISHED,
            {**PUBLISHED, "hand": 0},
            1.0,
            "got 0 for 'hand'. To train without a data set, leave its loader out",
        ),
        (PUBLISHED, {**PUBLISHED, "hand": math.nan}, 1.0, "must be positive, got nan"),
        (PUBLISHED, "size", 0.0, "must be positive, got 0.0"),
        (PUBLISHED, "equal", 2.0, "does not go with weights 'equal'"),
        (PUBLISHED, "sizes", 1.0, "size"),
    ],
)
def test_bad_shares_are_refused(sizes: dict, weights: object, temperature: float, words: str) -> None:
    with pytest.raises((LandmarkError, ValueError), match=words):
        mixing_proportions(sizes, weights, temperature)  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_by_size_an_epoch_is_every_data_set_once_through(sizes: list[int]) -> None:
    """Whatever floating point makes of the shares."""
    by_name = {f"set{i}": n for i, n in enumerate(sizes)}
    schedule = draw_schedule(mixing_proportions(by_name), sum(sizes), np.random.default_rng(0))
    assert Counter(schedule) == by_name


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda w: sum(w) > 0.1), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_counts_are_the_shares_and_no_data_set_is_left_out(shares: list[float], number: int) -> None:
    names = {f"set{i}": share for i, share in enumerate(shares)}
    counts = Counter(draw_schedule(names, number, np.random.default_rng(0)))
    positive = [name for name, share in names.items() if share > 0]
    assert sum(counts.values()) == number
    assert set(counts) <= set(positive)
    exact = {name: number * share / sum(shares) for name, share in names.items()}
    if all(exact[name] >= 1 for name in positive):
        assert all(abs(counts[name] - exact[name]) < 1 + 1e-9 for name in positive)
    if number >= len(positive):
        assert set(counts) == set(positive)


def test_the_largest_remainders_get_what_is_left() -> None:
    """Worked by hand: 4.7, 3.2, 2.1 of 10 are 5, 3, 2; of 1.45, 1.45, 0.1 of 3 the first would be 2, the last none."""
    counts = Counter(draw_schedule({"a": 0.47, "b": 0.32, "c": 0.21}, 10, np.random.default_rng(0)))
    assert counts == {"a": 5, "b": 3, "c": 2}
    assert Counter(draw_schedule({"a": 14.5, "b": 14.5, "c": 1}, 3, np.random.default_rng(0))) == {
        "a": 1,
        "b": 1,
        "c": 1,
    }


def test_every_order_is_equally_likely() -> None:
    orders = Counter("".join(draw_schedule({"a": 1, "b": 1}, 4, np.random.default_rng(i))) for i in range(1200))
    assert len(orders) == math.comb(4, 2)
    assert all(140 < count < 260 for count in orders.values())  # 200 each, standard deviation 13


def test_a_schedule_cannot_be_drawn_from_nothing() -> None:
    for shares, number in (
        ({"a": 0.0}, 1),
        ({"a": -1.0, "b": 2.0}, 1),
        ({"a": 1.0}, -1),
        ({"a": math.nan}, 1),
        ({}, 1),
    ):
        with pytest.raises(ValueError, match="cannot draw"):
            draw_schedule(shares, number, np.random.default_rng(0))


def test_seeds_differ_in_every_part_and_stay() -> None:
    seeds = [
        derived_seed(*parts) for parts in ((0,), (1,), (0, 1), (0, 2), (0, 1, "head"), (0, 1, "hand"), (1, 1, "head"))
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert derived_seed(0, 1, "head") == derived_seed(0, 1, "head")
