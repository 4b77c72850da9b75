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
"""Shifted labels and confusions: made on purpose, and found again."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_landmarks.metrics.identification import identification_rate, identify
from monai_landmarks.metrics.label_shift import Confusion, LabelShift, confusions, detect_label_shifts

NAN = float("nan")
NAMES = [f"T{i}" for i in range(1, 13)]


def spine(count: int = 12, step: float = 25.0) -> torch.Tensor:
    """A curved row of vertebrae ``(N, 3)``."""
    place = torch.arange(count, dtype=torch.float64)
    return torch.stack([2 * torch.sin(place), 0.3 * place**2, -step * place], dim=-1)


def labelled(true: torch.Tensor, shift: int, first: int = 0, last: int | None = None) -> torch.Tensor:
    """Labels ``first`` to ``last`` lie ``shift`` places further on, with a little error; those beyond the end are lost."""
    pred = true.clone()
    for i in range(first, len(true) if last is None else last + 1):
        pred[i] = true[i + shift] if 0 <= i + shift < len(true) else NAN
    return pred + 2.0 * torch.randn(pred.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def only(pred: torch.Tensor, true: torch.Tensor, **options: int) -> LabelShift | None:
    (shift,) = detect_label_shifts(identify(pred[None], true[None]), **options)
    return shift


@pytest.mark.parametrize("shift", [-5, -2, -1, 1, 2, 5])
def test_all_labels_shifted(shift: int) -> None:
    found = only(labelled(spine(), shift), spine())
    assert found is not None
    assert (found.shift, found.whole) == (shift, True)
    assert found.explained == found.located == 12 - abs(shift)
    assert found.unshifted == 0


def test_the_sentence_says_too_low_and_too_high() -> None:
    low, high = (only(labelled(spine(), shift), spine()) for shift in (1, -1))
    assert low is not None
    assert high is not None
    assert low.describe(NAMES).startswith("all labels are 1 too low, T1 lies on T2")
    assert high.describe(NAMES).startswith("all labels are 1 too high, T2 lies on T1")


@pytest.mark.parametrize(
    ("first", "last", "shift"), [(5, None, 1), (5, None, -1), (10, None, -1), (0, 3, 1), (0, 6, -2)]
)
def test_a_part_of_the_labels_shifted(first: int, last: int | None, shift: int) -> None:
    found = only(labelled(spine(), shift, first, last), spine())
    assert found is not None
    assert (found.shift, found.whole) == (shift, False)
    inside = [i for i in range(first, 12 if last is None else last + 1) if 0 <= i + shift < 12]
    assert (found.first, found.last, found.explained) == (inside[0], inside[-1], len(inside))
    assert found.unshifted == (first if last is None else 12 - last - 1)
    assert found.describe(NAMES).startswith(f"labels {NAMES[inside[0]]} to {NAMES[inside[-1]]} are")


def test_what_is_no_shift() -> None:
    true = spine()
    assert only(labelled(true, 0), true) is None
    one = true.clone()
    one[4] = true[5]
    assert only(one, true) is None
    exchanged = true.clone()
    exchanged[[4, 5]] = true[[5, 4]]
    assert only(exchanged, true) is None
    assert only(true + 300.0, true) is None
    assert only(torch.stack([true[1], true[1], true[3], true[3] + NAN]), true[:4]) is None  # two around one that fits
    assert only(torch.full_like(true, NAN), true) is None
    assert only(true, torch.full_like(true, NAN)) is None
    assert only(true[:1], true[:1]) is None


def test_a_short_field_of_view_whose_labels_start_too_early() -> None:
    """Only T5 to T8 are in the scan, and they are called T4 to T7: T4 has no truth and is evidence all the same."""
    true = torch.full((12, 3), NAN, dtype=torch.float64)
    true[4:8] = spine()[4:8]
    pred = torch.full_like(true, NAN)
    pred[3:7] = true[4:8]
    found = only(pred, true)
    assert found is not None
    assert (found.shift, found.first, found.last, found.explained, found.whole) == (1, 3, 6, 4, True)


def test_limits_are_arguments() -> None:
    true, pred = spine(), labelled(spine(), 3)
    assert only(pred, true, max_shift=2) is None
    assert only(pred, true, max_shift=3) is not None
    assert only(pred, true, min_landmarks=10) is None
    with pytest.raises(ValueError, match="at least 1"):
        only(pred, true, max_shift=0)


def test_one_label_in_its_place_among_shifted_ones() -> None:
    """It takes twice as many in a row that lie elsewhere; of the rows for which that is so, the longest is named."""
    true = spine()
    pred = labelled(true, 1)
    pred[[1, 3, 5]] = true[[1, 3, 5]]
    pred[8:] = NAN
    found = only(pred, true)
    assert found is not None
    assert (found.shift, found.first, found.last, found.explained) == (1, 2, 7, 4)
    assert (found.unshifted, found.located, found.whole) == (3, 8, False)


def test_images_do_not_disturb_each_other() -> None:
    true = spine().expand(4, -1, -1)
    pred = torch.stack([labelled(spine(), s, f) for s, f in ((0, 0), (1, 0), (-1, 6), (2, 0))])
    together = detect_label_shifts(identify(pred, true))
    assert together == tuple(only(p, t) for p, t in zip(pred, true, strict=True))
    assert [None if s is None else s.shift for s in together] == [None, 1, -1, 2]


def test_no_image_at_all() -> None:
    assert detect_label_shifts(identify(torch.zeros(0, 3, 2), torch.zeros(0, 3, 2))) == ()


def test_confusions_are_counted_by_hand() -> None:
    true = torch.stack([spine(3)] * 3)
    pred = true.clone()
    pred[0, 0], pred[1, 0] = true[0, 1], true[1, 1]  # T1 taken for T2 twice
    pred[2, 2] += 500.0  # T3 nowhere
    true[2, 1] = NAN  # T2 predicted without truth, 25 mm from any other
    pred[2, 1] = true[2, 0]  # on T1
    assert confusions(identify(pred, true), NAMES[:3]) == (
        Confusion("T1", "T2", 2),
        Confusion("T2", "T1", 1),
        Confusion("T3", None, 1),
    )
    assert confusions(identify(true, true), NAMES[:3]) == ()


@pytest.mark.real_data
def test_real_lumbar_spines_with_every_label_one_too_low(real_data: Callable[[str], Path]) -> None:
    """Neighbouring vertebrae are more than 20 mm apart: no label survives, and all 40 shifts are found."""
    rows = list(csv.reader((real_data("lumbar_mr") / "centroids_mm.csv").open()))[1:]
    true = np.array([[float(v) for v in row[-15:]] for row in rows]).reshape(len(rows), 5, 3)
    pred = np.roll(true, -1, axis=1)
    pred[:, -1] = np.nan
    found = identify(pred, true)
    assert identification_rate(found).item() == 0.0
    shifts = detect_label_shifts(found)
    assert len(shifts) == 40
    assert {(s.shift, s.whole, s.explained) for s in shifts if s is not None} == {(1, True, 4)}
    assert identification_rate(identify(true, true)).item() == 100.0
