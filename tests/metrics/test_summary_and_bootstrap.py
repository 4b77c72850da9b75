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
"""Summaries and bootstrap intervals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.metrics import (
    bootstrap_interval,
    reduce_radial_errors,
    successful_detection_rate,
    summarize_radial_errors,
)

NAN, INF = float("nan"), float("inf")

# 3 images, 3 landmarks: one missing truth, one miss, one landmark nobody has
TABLE = [[1.0, INF, NAN], [3.0, 5.0, NAN], [NAN, 7.0, NAN]]


def test_summary_of_a_table_that_fits_in_the_head() -> None:
    s = summarize_radial_errors(TABLE, names=["a", "b", "c"])
    assert (s.mean, s.median) == (4.0, 4.0)
    assert s.std == pytest.approx(math.sqrt(5.0))  # deviations -3, -1, 1, 3 with divisor 4
    assert (s.num_images, s.num_landmarks) == (3, 3)
    assert (s.num_evaluated, s.num_missed, s.num_missing) == (5, 1, 4)
    assert s.image_errors == (1.0, 4.0, 7.0)
    assert s.image_mean == 4.0
    assert s.image_std == pytest.approx(math.sqrt(6.0))
    assert s.landmark_mean[:2] == (2.0, 6.0)
    assert s.landmark_median[:2] == (2.0, 6.0)
    assert s.landmark_std[:2] == (1.0, 1.0)
    assert all(map(math.isnan, (s.landmark_mean[2], s.landmark_std[2], s.landmark_median[2])))
    assert s.landmark_evaluated == (2, 3, 0)
    assert s.landmark_missed == (0, 1, 0)
    assert s.names == ("a", "b", "c")


def test_summary_says_what_is_not_in_the_mean() -> None:
    text = str(summarize_radial_errors(TABLE))
    assert "1 of them missed and not in the mean" in text
    assert "4 without truth" in text


def test_summary_is_plain_json() -> None:
    content = json.loads(json.dumps(summarize_radial_errors(TABLE).to_dict(), allow_nan=False))
    assert content["landmark_mean"] == [2.0, 6.0, None]
    assert content["names"] == ["0", "1", "2"]


def test_summary_agrees_with_numpy_on_random_errors() -> None:
    table = np.random.default_rng(5).exponential(2, (9, 6))
    s = summarize_radial_errors(table)
    np.testing.assert_allclose(s.landmark_median, np.median(table, axis=0))
    np.testing.assert_allclose(s.landmark_std, np.std(table, axis=0))
    np.testing.assert_allclose([s.mean, s.std, s.median], [table.mean(), table.std(), np.median(table)])


def test_summary_refuses_other_shapes_and_names() -> None:
    with pytest.raises(LandmarkError, match=r"\(B, N\)"):
        summarize_radial_errors([1.0, 2.0])
    with pytest.raises(LandmarkError, match="3 landmarks, `names` has 2"):
        summarize_radial_errors(TABLE, names=["a", "b"])


def slow_bootstrap(table: np.ndarray, statistic: str, draws: np.ndarray) -> list[float]:
    """Build every resampled table and reduce it."""
    values = []
    for draw in draws:
        sample = table[draw]
        if statistic == "sdr":
            values.append(successful_detection_rate(sample, 2.0).item())
        else:
            name = {"mean": "micro", "image_mean": "macro", "median": "median"}[statistic]
            values.append(reduce_radial_errors(sample, name).item())
    return values


@pytest.mark.parametrize("statistic", ["mean", "image_mean", "median", "sdr"])
def test_bootstrap_equals_resampling_one_by_one(statistic: str) -> None:
    rng = np.random.default_rng(2)
    table = rng.exponential(2, (12, 5))
    table[rng.random(table.shape) < 0.2] = NAN
    table[rng.random(table.shape) < 0.1] = INF
    interval = bootstrap_interval(table, statistic, num_resamples=80, seed=4, level=0.9, threshold=2.0)
    draws = torch.randint(12, (80, 12), generator=torch.Generator().manual_seed(4)).numpy()
    expected = np.quantile(slow_bootstrap(table, statistic, draws), [0.05, 0.95])
    np.testing.assert_allclose([interval.low, interval.high], expected)
    assert interval.estimate == pytest.approx(slow_bootstrap(table, statistic, np.arange(12)[None])[0])


def test_bootstrap_draws_images_not_landmarks() -> None:
    """Landmarks of an image that all share its error carry one piece of information, so many of them narrow nothing."""
    means = np.random.default_rng(0).normal(5, 1, (40, 1)).clip(0)
    one = bootstrap_interval(means, seed=1)
    many = bootstrap_interval(np.repeat(means, 50, axis=1), seed=1)
    assert many == pytest.approx(one)


def test_bootstrap_interval_covers_as_often_as_it_says() -> None:
    """200 samples of 60 normal images, level 0.9: 180 expected; 3 standard deviations of the count are 13.

    A little more is allowed below, because percentile intervals are slightly short.
    """
    rng = np.random.default_rng(11)
    hits = 0
    for seed in range(200):
        interval = bootstrap_interval(rng.normal(10, 1, (60, 1)), num_resamples=300, seed=seed, level=0.9)
        hits += interval.low <= 10 <= interval.high
    assert 163 <= hits <= 194


def test_bootstrap_is_reproducible_and_depends_on_the_seed() -> None:
    table = np.random.default_rng(1).exponential(1, (30, 3))
    assert bootstrap_interval(table, seed=3) == bootstrap_interval(table, seed=3)
    assert bootstrap_interval(table, seed=3) != bootstrap_interval(table, seed=4)


def test_bootstrap_of_the_median_works_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    import monai_landmarks.metrics.bootstrap as module

    table = np.random.default_rng(1).exponential(1, (10, 3))
    whole = bootstrap_interval(table, "median", num_resamples=50)
    monkeypatch.setattr(module, "_CHUNK", 100)
    assert bootstrap_interval(table, "median", num_resamples=50) == whole


def test_bootstrap_of_nothing_is_nan() -> None:
    assert all(map(math.isnan, bootstrap_interval([[NAN, NAN]])))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"statistic": "mode"}, "mode"),
        ({"num_resamples": 0}, "num_resamples"),
        ({"level": 1.0}, "level"),
        ({"statistic": "sdr"}, "threshold"),
    ],
)
def test_bootstrap_refuses(arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        bootstrap_interval([[1.0]], **arguments)


def test_bootstrap_needs_images() -> None:
    with pytest.raises(LandmarkError, match="at least one image"):
        bootstrap_interval(np.zeros((0, 3)))


# --- landmarks outside the image ------------------------------------------------------------------------------------

LEFT_OUT = [[False, False, True], [False, False, False], [True, False, False]]


def test_evaluated_outside_and_missing_are_all_there_are() -> None:
    s = summarize_radial_errors(TABLE, ["a", "b", "c"], LEFT_OUT)
    assert (s.num_evaluated, s.num_missed, s.num_outside, s.num_missing) == (5, 1, 2, 2)
    assert s.num_evaluated + s.num_outside + s.num_missing == 9
    assert s.landmark_outside == (1, 0, 1)
    assert "2 outside the field of view and not scored, 2 without truth" in str(s)
    plain = summarize_radial_errors(TABLE)
    assert (plain.num_outside, plain.landmark_outside) == (0, (0, 0, 0))
    assert "outside" not in str(plain)
    assert (plain.mean, plain.std, plain.image_errors) == (s.mean, s.std, s.image_errors)


def test_a_landmark_is_scored_or_left_out() -> None:
    with pytest.raises(LandmarkError, match="has an error in the table"):
        summarize_radial_errors(TABLE, outside=[[True, False, False]] * 3)
    with pytest.raises(LandmarkError, match=r"shape \(3, 3\), got \(1, 3\)"):
        summarize_radial_errors(TABLE, outside=[[False] * 3])
