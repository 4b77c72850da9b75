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
"""Presence thresholds against counting by hand and against trying every threshold."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.postprocessing import (
    apply_presence,
    load_presence_thresholds,
    presence_thresholds,
    save_presence_thresholds,
    usual_confidence,
)

NAN = float("nan")


def wrong_decisions(threshold: float, scores: np.ndarray, there: np.ndarray, weight: float = 1.0) -> float:
    kept = scores >= threshold
    return float((there & ~kept).sum() + weight * (~there & kept).sum())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.25, 1.0, 3.0]))
def test_no_threshold_decides_better(seed: int, weight: float) -> None:
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(0, 1, 12), rng.integers(0, 3))  # ties, negative scores
    there = rng.random(12) < 0.6
    there[0] = True
    if seed % 3 == 0:
        scores[rng.integers(1, 12)] = NAN
    threshold = float(presence_thresholds(scores[:, None], there[:, None], False, false_positive_weight=weight))
    everything = [*scores[~np.isnan(scores)], *(scores[~np.isnan(scores)] + 1e-9)]
    least = min(wrong_decisions(t, scores, there, weight) for t in everything)
    assert wrong_decisions(threshold, scores, there, weight) == pytest.approx(least)


def test_middle_between_neighbouring_scores_and_the_widest_gap() -> None:
    scores = torch.tensor([[0.1], [0.2], [0.6], [0.9]])
    there = torch.tensor([[False], [False], [True], [True]])
    assert presence_thresholds(scores, there).tolist() == pytest.approx([0.4])
    # One wrong decision either way, at 0.15 and at 0.75: the gaps are 0.1 and 0.3.
    overlap = torch.tensor([[0.1], [0.2], [0.6], [0.9]]), torch.tensor([[False], [True], [False], [True]])
    assert presence_thresholds(*overlap).tolist() == pytest.approx([0.75])
    assert presence_thresholds(*overlap, false_positive_weight=0.5).tolist() == pytest.approx([0.15])


def test_each_landmark_its_own_and_the_pooled_one_where_there_is_no_contrast() -> None:
    scores = torch.tensor([[0.9, 0.09, 0.5, 0.1], [0.7, 0.07, 0.6, 0.3], [0.1, 0.01, 0.7, 0.2]])
    there = torch.tensor([[True, True, True, False], [True, True, True, False], [False, False, True, False]])
    own = presence_thresholds(scores, there)
    pooled = presence_thresholds(scores, there, per_landmark=False)
    assert pooled.shape == ()
    assert own[:2].tolist() == pytest.approx([0.4, 0.04])
    assert own[2] == own[3] == pooled  # always present, always absent
    assert float(pooled) == pytest.approx(0.4)  # misses 0.09 and 0.07; all others are right


def test_never_absent_is_never_called_absent() -> None:
    scores = torch.tensor([[0.9, 0.3], [0.7, 0.5]])
    thresholds = presence_thresholds(scores, torch.ones(2, 2, dtype=torch.bool))
    points = torch.zeros(2, 2, 3)
    # A test case may well answer lower than the few validation cases did.
    assert torch.equal(apply_presence(points, scores.double() / 10, thresholds), points)
    negative = presence_thresholds(scores - 1, torch.ones(2, 2, dtype=torch.bool))
    assert torch.equal(apply_presence(points, scores.double() - 1, negative), points)


def test_keeping_none_can_be_best() -> None:
    scores = torch.tensor([[0.1], [0.2], [0.3], [0.4]])
    there = torch.tensor([[True], [False], [False], [False]])
    threshold = float(presence_thresholds(scores, there))
    assert 0.4 < threshold < 0.4 + 1e-6


def test_balanced_criterion_does_not_always_keep_what_is_rarely_absent() -> None:
    scores = torch.tensor([[0.3], [0.35], [0.5], [0.5], [0.5], [0.5], [0.5], [0.4]])
    there = torch.tensor([[True], [True], [True], [True], [True], [True], [True], [False]])
    assert float(presence_thresholds(scores, there)) < 0.3
    assert float(presence_thresholds(scores, there, criterion="balanced")) == pytest.approx(0.45)


def test_not_found_is_below_every_threshold() -> None:
    scores = torch.tensor([[NAN], [NAN], [0.2], [0.8]])
    there = torch.tensor([[True], [False], [False], [True]])
    assert float(presence_thresholds(scores, there)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("scores", "there", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.bool), "0 cases of 3 landmarks, hold no landmark"),
        (torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool), "present and was found"),
        (torch.full((2, 3), NAN), torch.ones(2, 3, dtype=torch.bool), "present and was found"),
        (torch.ones(2, 3), torch.ones(2, 3), "must be bool"),
        (torch.ones(2, 3), torch.ones(3, 2, dtype=torch.bool), r"\(2, 3\) and \(3, 2\)"),
        (torch.ones(3), torch.ones(3, dtype=torch.bool), r"\(M, N\)"),
        (torch.full((2, 3), torch.inf), torch.ones(2, 3, dtype=torch.bool), "infinite"),
    ],
)
def test_validation_data_that_cannot_be_used(scores, there, message: str) -> None:
    with pytest.raises(LandmarkError, match=message):
        presence_thresholds(scores, there)


def test_unknown_options() -> None:
    data = torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="balance"):
        presence_thresholds(*data, criterion="balance")
    with pytest.raises(ValueError, match="positive number"):
        presence_thresholds(*data, false_positive_weight=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_only_those_below_become_missing(dtype: torch.dtype) -> None:
    points = torch.arange(24, dtype=dtype).reshape(2, 4, 3)
    points[0, 1] = NAN
    confidence = torch.tensor([[0.5, 0.9, 0.25, NAN], [0.75, 0.5, 0.5, 0.0]], dtype=dtype)
    before = points.clone()
    result = apply_presence(points, confidence, [0.5, 0.0, 0.5, 0.0])
    gone = torch.tensor([[False, True, True, True], [False, False, False, False]])
    assert torch.equal(result[~gone], points[~gone])
    assert bool(result[gone].isnan().all())
    assert result.dtype == dtype
    assert torch.equal(points.nan_to_num(-1), before.nan_to_num(-1))
    assert torch.equal(
        apply_presence(points, confidence, 0.5).isnan().all(dim=-1), ~(confidence >= 0.5) | points[..., 0].isnan()
    )


@pytest.mark.parametrize(
    ("confidence", "thresholds", "message"),
    [
        (torch.zeros(3), 0.5, r"shape \(4,\), got \(3,\)"),
        (torch.zeros(4), [0.5] * 3, "3 thresholds for 4"),
        (torch.zeros(4), NAN, "none of them NaN"),
        (torch.zeros(4), torch.zeros(1, 4), "one number or one per landmark"),
    ],
)
def test_apply_refuses(confidence, thresholds, message: str) -> None:
    with pytest.raises(LandmarkError, match=message):
        apply_presence(torch.zeros(4, 2), confidence, thresholds)


def test_files(tmp_path) -> None:
    path = tmp_path / "thresholds.json"
    save_presence_thresholds(path, torch.tensor([0.1, 0.25], dtype=torch.float64), ["L1", "L2"])
    assert load_presence_thresholds(path, ["L1", "L2"]).tolist() == [0.1, 0.25]
    with pytest.raises(LandmarkError, match=r"thresholds for \['L1', 'L2'\], wanted are \['L2', 'L1'\]"):
        load_presence_thresholds(path, ["L2", "L1"])
    content = json.loads(path.read_text())
    for change, message in (
        ({"version": 2}, "of version 1"),
        ({"thresholds": [0.1]}, "damaged"),
        ({"thresholds": ["a", 1]}, "damaged"),
    ):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(LandmarkError, match=message):
            load_presence_thresholds(path, ["L1", "L2"])
    with pytest.raises(FileNotFoundError, match="presence thresholds"):
        load_presence_thresholds(tmp_path / "none.json", ["L1"])
    save_presence_thresholds(path, 0.5, ["L1", "L2"])
    assert load_presence_thresholds(path, ["L1", "L2"]).tolist() == [0.5, 0.5]
    with pytest.raises(LandmarkError, match="3 thresholds for 2 names"):
        save_presence_thresholds(path, [1, 2, 3], ["L1", "L2"])
    with pytest.raises(LandmarkError, match="more than once"):
        save_presence_thresholds(path, [1, 2], ["L1", "L1"])


def test_usual_confidence_looks_at_landmarks_that_are_there() -> None:
    nan = float("nan")
    scores = torch.tensor([[0.9, 0.1, 0.5, nan], [0.7, 0.9, 0.6, nan], [0.8, 0.3, 0.7, nan]])
    there = torch.tensor([[True, True, False, True], [True, False, False, False], [True, True, False, False]])
    usual = usual_confidence(scores, there).tolist()
    assert usual[:2] == pytest.approx([0.8, 0.1])  # the lower middle of two
    assert usual[2] == usual[3] == pytest.approx(0.7)  # never there; there and never found: the median of all five
