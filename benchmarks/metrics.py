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
"""Metrics of 1000 images with 19 landmarks, without and with bootstrap, beside the same formulas in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch

from monai_landmarks.metrics import (
    bootstrap_interval,
    radial_errors,
    reduce_radial_errors,
    successful_detection_rate,
    summarize_radial_errors,
)

from .timing import Case, Run

__all__ = ["TITLE", "cases"]

TITLE = "Metrics (x plain: against NumPy; error: largest difference of the numbers to NumPy's)"
THRESHOLDS = (2.0, 2.5, 3.0, 4.0)
RESAMPLES = 1000
Metric = Callable[[torch.Tensor, torch.Tensor], list[float]]


def ours(pred: torch.Tensor, true: torch.Tensor) -> list[float]:
    errors = radial_errors(pred, true)
    return [reduce_radial_errors(errors).item(), *successful_detection_rate(errors, THRESHOLDS).tolist()]


def plain(pred: torch.Tensor, true: torch.Tensor) -> list[float]:
    errors = np.linalg.norm(pred.numpy() - true.numpy(), axis=-1)
    return [float(errors.mean()), *(100 * float((errors <= t).mean()) for t in THRESHOLDS)]


def our_summary(pred: torch.Tensor, true: torch.Tensor) -> list[float]:
    summary = summarize_radial_errors(radial_errors(pred, true))
    return [summary.mean, summary.std, summary.median]


def plain_summary(pred: torch.Tensor, true: torch.Tensor) -> list[float]:
    errors = np.linalg.norm(pred.numpy() - true.numpy(), axis=-1)
    for statistic in (np.mean, np.std, np.median):
        statistic(errors, axis=0)
    errors.mean(axis=1).std()
    return [float(errors.mean()), float(errors.std()), float(np.median(errors))]


def our_interval(statistic: str, pred: torch.Tensor, true: torch.Tensor) -> list[float]:
    errors = radial_errors(pred, true)
    rates = successful_detection_rate(errors, THRESHOLDS).tolist()
    threshold = 2.0 if statistic == "sdr" else None
    interval = bootstrap_interval(errors, statistic, num_resamples=RESAMPLES, threshold=threshold)
    return [reduce_radial_errors(errors).item(), *rates, interval.estimate]


def _sdr(errors: np.ndarray) -> np.floating:
    return 100 * np.mean(errors <= 2.0)


def plain_interval(statistic: str, pred: torch.Tensor, true: torch.Tensor) -> list[float]:
    errors = np.linalg.norm(pred.numpy() - true.numpy(), axis=-1)
    reductions: dict[str, Callable[[np.ndarray], np.floating]] = {"mean": np.mean, "median": np.median, "sdr": _sdr}
    reduce = reductions[statistic]
    draw = np.random.default_rng(0)
    drawn = [reduce(errors[draw.integers(len(errors), size=len(errors))]) for _ in range(RESAMPLES)]
    np.percentile(drawn, [2.5, 97.5])
    return [*plain(pred, true), float(reduce(errors))]


def make(metric: Metric, images: int) -> Run:
    generator = torch.Generator().manual_seed(0)
    true = torch.rand(images, 19, 2, generator=generator, dtype=torch.float64) * 200
    pred = true + torch.randn(images, 19, 2, generator=generator, dtype=torch.float64)
    return partial(metric, pred, true)


def error(metric: Metric, reference: Metric) -> Mapping[str, float]:
    pairs = zip(make(metric, 50)(), make(reference, 50)(), strict=True)  # type: ignore[call-overload]
    return {"error": max(abs(a - b) for a, b in pairs)}


def cases(quick: bool = False, full: bool = False) -> list[Case]:
    """List the rows; ``full`` adds nothing here. Memory is not measured: the table of errors has 152 kB."""
    images = 100 if quick else 1000
    metrics: list[tuple[str, Metric, Metric, float | None]] = [
        (f"mean and SDR at {len(THRESHOLDS)} radii", ours, plain, 0.001),
        ("summary for points, images and landmarks", our_summary, plain_summary, None),
    ]
    for statistic, limit in {"mean": 0.2, "sdr": 0.2, "median": None}.items():
        name = f"mean and SDR, bootstrap of {statistic}"
        metrics.append((name, partial(our_interval, statistic), partial(plain_interval, statistic), limit))
    rows = []
    for name, mine, reference, limit in metrics:
        label = f"{images} x 19, {name}"
        limits = {} if quick or limit is None else {"seconds": limit}
        checks = partial(error, mine, reference)
        rows.append(Case(label, partial(make, mine, images), label, memory=False, checks=checks, limits=limits))
        rows.append(Case(f"{label}, NumPy", partial(make, reference, images), label, role="plain", memory=False))
    return rows
