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
"""The sequence model on real lumbar spines (centroids derived from masks): trained on 30 subjects, errors made on 10."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from monai_landmarks.data.datasets.lumbar_mr import LUMBAR_MR_LANDMARKS as NAMES
from monai_landmarks.postprocessing import SequenceModel

Fault = Callable[[np.ndarray, np.ndarray, np.ndarray, np.random.Generator], None]


def ghost(points: np.ndarray, confidence: np.ndarray, true: np.ndarray, rng: np.random.Generator) -> None:
    """A place 25 mm off on every axis answers more than the right one."""
    at = rng.integers(5)
    points[at, 1], confidence[at, 1] = true[at] + rng.choice([-25.0, 25.0], 3), 1.1


def neighbour(points: np.ndarray, confidence: np.ndarray, true: np.ndarray, rng: np.random.Generator) -> None:
    """The vertebra beside it answers more."""
    at = rng.integers(5)
    points[at, 1], confidence[at, 1] = true[at + 1 if at < 4 else 3] + rng.normal(0, 1.5, 3), 1.1


def counted_wrong(points: np.ndarray, confidence: np.ndarray, true: np.ndarray, rng: np.random.Generator) -> None:
    """From L4 or L5 on every channel answers one vertebra too high: too little to tell who is wrong, so these go missing."""
    first = rng.integers(3, 5)
    points[first:, 0] = points[first - 1 : -1, 0].copy()


def not_shown(points: np.ndarray, confidence: np.ndarray, true: np.ndarray, rng: np.random.Generator) -> None:
    """One of L2 to L4 is shown nowhere; its channel answers weakly beside the spine."""
    at = rng.integers(1, 4)
    points[at, 0], confidence[at, 0] = true[at] + rng.choice([-25.0, 25.0], 3), 0.3


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("fault", "right_before", "right_after"),
    [(ghost, 40, 50), (neighbour, 40, 50), (counted_wrong, 35, 35), (not_shown, 40, 39)],
)
def test_faults_on_real_spines_are_repaired(
    real_data: Callable[[str], Path], fault: Fault, right_before: int, right_after: int
) -> None:
    table = np.genfromtxt(real_data("lumbar_mr") / "centroids_mm.csv", delimiter=",", skip_header=1)
    subjects = table[:, 1:].reshape(40, 5, 3)
    model = SequenceModel(NAMES).fit(subjects[:30])
    rng = np.random.default_rng(0)
    before = after = wrong = 0
    for true in subjects[30:]:
        points, confidence = np.full((5, 2, 3), np.nan), np.full((5, 2), np.nan)
        points[:, 0], confidence[:, 0] = true + rng.normal(0, 1.5, (5, 3)), rng.uniform(0.6, 1, 5)
        fault(points, confidence, true, rng)
        order = np.argsort(-np.nan_to_num(confidence, nan=-1.0), axis=1)
        points, confidence = np.take_along_axis(points, order[..., None], 1), np.take_along_axis(confidence, order, 1)
        errors = np.linalg.norm(model(points, confidence).points.numpy() - true, axis=1)
        before += int((np.linalg.norm(points[:, 0] - true, axis=1) < 8).sum())
        after += int((errors < 8).sum())
        wrong += int((errors >= 8).sum())
    assert (before, wrong) == (right_before, 0)
    assert after >= right_after
