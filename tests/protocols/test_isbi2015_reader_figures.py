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
"""Printed reader figures of ISBI 2015, reproduced through the protocols on the challenge's own point files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from monai_landmarks.data.datasets import isbi2015_points
from monai_landmarks.protocols import EvaluationResult, evaluate, get_protocol

pytestmark = pytest.mark.real_data


def score(folder: Path, reader: str, truth: str, section: str, comparator: str | None = None) -> EvaluationResult:
    protocol = get_protocol(f"isbi2015/{truth}", section)
    if comparator is not None:
        protocol = protocol.replace("isbi2015/other comparator", comparator=comparator)
    cases, predicted = isbi2015_points(folder, section, reader)
    _, true = isbi2015_points(folder, section, truth)
    return evaluate(dict(zip(cases, predicted, strict=True)), dict(zip(cases, true, strict=True)), protocol)


@pytest.mark.parametrize(("section", "mean", "std"), [("training", 2.353, 2.596), ("test1", 2.363, 2.163)])
def test_the_readers_differ_by_the_printed_distance(
    real_data: Callable[[str], Path], section: str, mean: float, std: float
) -> None:
    """The printed standard deviation has divisor n: n - 1 would give 2.164 on Test1."""
    result = score(real_data("isbi2015_cephalograms"), "junior", "senior", section)
    assert round(result.summary.mean, 3) == mean
    assert round(result.summary.std, 3) == std
    assert result.complete


@pytest.mark.parametrize(
    ("comparator", "percent"), [("<=", [81.51, 88.28, 93.09, 97.58]), ("<", [81.44, 88.28, 93.09, 97.58])]
)
def test_senior_reader_against_the_mean(
    real_data: Callable[[str], Path], comparator: str, percent: list[float]
) -> None:
    """Two of 2850 distances are exactly 20 px; arithmetic in mm without regard to ties gives 81.47 for both."""
    result = score(real_data("isbi2015_cephalograms"), "senior", "mean", "test1", comparator)
    assert round(result.summary.mean, 3) == 1.182
    assert [round(value, 2) for value in result.detection.values()] == percent


def test_ties_survive_single_precision(real_data: Callable[[str], Path]) -> None:
    cases, senior = isbi2015_points(real_data("isbi2015_cephalograms"), "test1", "senior")
    _, mean = isbi2015_points(real_data("isbi2015_cephalograms"), "test1", "mean")
    shifted = [dict(zip(cases, (points + 20.3).astype(np.float32), strict=True)) for points in (senior, mean)]
    assert round(evaluate(*shifted, "isbi2015/mean").detection[2.0], 2) == 81.51


def test_landmark_16_stands_out_between_the_readers(real_data: Callable[[str], Path]) -> None:
    result = score(real_data("isbi2015_cephalograms"), "junior", "senior", "test1")
    worst = int(np.argmax(result.summary.landmark_mean))
    assert result.names[worst] == "soft_tissue_pogonion"
    assert result.summary.landmark_mean[worst] == pytest.approx(6.51, abs=0.005)
