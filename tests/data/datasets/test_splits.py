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
"""Splits that depend on the case names and the seed alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_landmarks.data.datasets import cross_validation_folds, seeded_order, select_fold, select_part

NAMES = st.sets(st.text(min_size=1, max_size=4), min_size=2, max_size=12)


@given(names=NAMES, seed=st.integers(0, 5))
def test_order_keeps_every_case_and_forgets_the_given_order(names, seed):
    order = seeded_order(sorted(names), seed)
    assert sorted(order) == sorted(names)
    assert seeded_order(sorted(names, reverse=True), seed) == order


@given(names=NAMES, seed=st.integers(0, 5))
def test_order_of_the_others_does_not_change_when_one_goes(names, seed):
    order = seeded_order(names, seed)
    assert seeded_order(order[1:], seed) == order[1:]


@given(names=NAMES, data=st.data())
def test_parts_divide_the_cases(names, data):
    number = data.draw(st.integers(1, len(names) - 1))
    parts = [select_part(list(names), part, number) for part in ("train", "validation")]
    assert [len(part) for part in parts] == [len(names) - number, number]
    assert sorted(parts[0] + parts[1]) == select_part(list(names), None, number) == sorted(names)


def test_order_is_pinned():
    # printf "0:001" | sha256sum and so on begin with d8cc7f, f67c7c, f34700, 6d7a3f.
    assert seeded_order(["001", "002", "003", "004"], 0) == ["004", "001", "003", "002"]


def test_unknown_part():
    with pytest.raises(ValueError, match="holdout"):
        select_part(["a", "b"], "holdout", 1)


def test_folds_share_no_case_keep_groups_and_are_even() -> None:
    cases = [f"p{n // 3}_{n % 3}" for n in range(30)] + ["q", "r", "s"]
    folds = cross_validation_folds(cases, 4, group=lambda case: case.split("_")[0])
    assert sorted(case for fold in folds for case in fold) == sorted(cases)
    homes = {case.split("_")[0]: n for n, fold in enumerate(folds) for case in fold}
    assert all(homes[case.split("_")[0]] == n for n, fold in enumerate(folds) for case in fold)
    # A group is never split, so folds differ by no more than a group.
    assert max(map(len, folds)) - min(map(len, folds)) <= 3
    assert folds == cross_validation_folds(cases[::-1], 4, group=lambda case: case.split("_")[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": 5, "part": "test"}, "fold must be 0 to 4, got 5"),
        ({"fold": 0, "part": "tset"}, "tset"),
        ({"fold": 0, "part": "train", "num_validation": 8}, "num_validation must leave"),
        ({"fold": 0, "part": "validation", "num_validation": 0}, "num_validation must leave"),
        ({"fold": 0, "part": "test", "num_folds": 11}, "num_folds must be 2 to 10 for 10 groups"),
    ],
)
def test_fold_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_fold([str(n) for n in range(10)], **options)
