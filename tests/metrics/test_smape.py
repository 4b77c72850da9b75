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
"""SMAPE of angles as function and metric; squared error and correlation of image fractions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.metrics.smape import SMAPEMetric, film_smape, fraction_mse, fraction_pearson, smape

NAN = float("nan")


def angles(seed: int, films: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 60, (films, 3)), rng.uniform(0, 60, (films, 3))


def test_sums_are_taken_within_a_film():
    pred, true = angles(0)
    percents = []
    for p, t in zip(pred, true, strict=True):
        percents.append(100 * sum(abs(a - b) for a, b in zip(p, t, strict=True)) / (sum(p) + sum(t)))
    assert smape(pred, true).item() == pytest.approx(np.mean(percents))
    # Not the mean of the angles' own percentages, which a small angle would rule.
    assert smape(pred, true).item() != pytest.approx(np.mean(100 * abs(pred - true) / (pred + true)))


def test_limits():
    assert film_smape([[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]]).item() == 0
    assert film_smape([[5.0, 0.0, 1.0]], [[0.0, 0.0, 0.0]]).item() == 100
    assert math.isnan(smape(torch.zeros(0, 3), torch.zeros(0, 3)).item())


def test_unknown_truth_is_left_out_and_a_missing_prediction_is_counted():
    pred, true = (torch.tensor(values) for values in angles(1))
    pred[0, 1], true[1, 2], pred[2, 0], true[2, 0] = NAN, NAN, NAN, NAN
    errors = film_smape(pred, true)
    assert errors[0] == math.inf
    assert torch.isnan(errors[1:3]).all()
    metric = SMAPEMetric()
    metric(pred, true)
    assert metric.num_missed == 1
    assert metric.aggregate().item() == pytest.approx(smape(pred[3:], true[3:]).item())


def test_metric_adds_up_batches_in_both_forms():
    pred, true = (torch.tensor(values, dtype=torch.float32) for values in angles(2))
    metric = SMAPEMetric()
    assert metric(y_pred=list(pred[:3]), y=list(true[:3])).shape == (3, 1)
    metric(y_pred=pred[3:], y=true[3:])
    assert metric.aggregate().item() == pytest.approx(smape(pred, true).item(), rel=1e-6)
    metric.reset()
    with pytest.raises(ValueError, match="SMAPEMetric has no data to aggregate"):
        metric.aggregate()


@pytest.mark.parametrize(
    ("pred", "true", "message"),
    [
        (torch.zeros(2, 68, 2), torch.zeros(2, 68, 2), r"shape \(B, K\), got \(2, 68, 2\). Are these points"),
        (torch.zeros(2, 3), torch.zeros(2, 2), r"same shape .* got \(2, 3\) and \(2, 2\)"),
        (torch.zeros(2, 3), None, "the true angles `y` are needed"),
    ],
)
def test_metric_refuses(pred, true, message):
    with pytest.raises(LandmarkError, match=message):
        SMAPEMetric()(pred, true)


def test_mse_and_correlation_of_fractions():
    rng = np.random.default_rng(3)
    size = np.array([[300.0, 800.0], [250.0, 700.0]])
    true = rng.uniform(0, 1, (2, 5, 2))
    pred = true + rng.normal(0, 0.05, true.shape)
    scaled = [values * size[:, None] for values in (pred, true)]
    assert fraction_mse(*scaled, size).item() == pytest.approx(np.mean((pred - true) ** 2))
    assert fraction_pearson(*scaled, size).item() == pytest.approx(np.corrcoef(pred.ravel(), true.ravel())[0, 1])
    true[0, 1] = pred[1, 2] = NAN
    both = ~np.isnan(pred + true)
    assert fraction_mse(pred, true, 1).item() == pytest.approx(np.mean((pred - true)[both] ** 2))
    assert fraction_pearson(pred, true, 1).item() == pytest.approx(np.corrcoef(pred[both], true[both])[0, 1])


def test_ten_pixels_of_a_hundred():
    true = np.full((3, 4, 2), 50.0)
    assert fraction_mse(true + 10, true, (100, 100)).item() == pytest.approx(0.01)


def test_fractions_of_nothing_and_what_is_refused():
    nothing = torch.full((1, 2, 2), NAN)
    assert math.isnan(fraction_mse(nothing, nothing, 1).item())
    assert math.isnan(fraction_pearson(nothing, nothing, 1).item())
    with pytest.raises(LandmarkError, match="same shape"):
        fraction_mse(torch.zeros(2, 3, 2), torch.zeros(2, 4, 2), 1)
    with pytest.raises(LandmarkError, match="`size` must be the positive extent"):
        fraction_mse(torch.zeros(2, 3, 2), torch.zeros(2, 3, 2), (0, 10))
