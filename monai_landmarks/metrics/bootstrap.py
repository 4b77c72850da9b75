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
"""How much a reported number would move with other images: bootstrap intervals."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from monai.utils import look_up_option

from monai_landmarks.geometry import LandmarkError

from .functional import DETECTED, check_errors, check_thresholds, finite_mean, within

__all__ = ["Interval", "bootstrap_interval"]

STATISTICS = ("mean", "image_mean", "median", "sdr")
# Entries of the resampled table held at once; bounds the memory of the median to about 64 MB.
_CHUNK = 4_000_000


class Interval(NamedTuple):
    """A statistic of the images at hand with the bounds of its bootstrap distribution."""

    estimate: float
    low: float
    high: float


def bootstrap_interval(
    errors: Any,
    statistic: str = "mean",
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    threshold: float | None = None,
    comparator: str = "<=",
) -> Interval:
    """Give a percentile bootstrap interval of a statistic of an error table, drawing images with replacement.

    Landmarks of one image are not independent, so whole images are drawn, never single landmarks: drawing landmarks
    gives intervals that are too narrow. Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.

    Args:
        errors: error table ``(B, N)``.
        statistic: ``"mean"`` over all landmarks found, ``"image_mean"`` (per image, then over images), ``"median"``
            over all landmarks found or ``"sdr"``, the percentage within ``threshold`` (misses fail).
        num_resamples: number of draws.
        seed: of the draws; the same seed gives the same interval on every machine.
        level: coverage aimed at, in (0, 1).
        threshold: radius for ``"sdr"``.
        comparator: ``"<="`` or ``"<"`` for ``"sdr"``.

    Returns:
        the estimate on the images themselves and the two bounds; all NaN where nothing was evaluated.

    Raises:
        ValueError: for an unknown statistic, fewer than one draw, a level outside (0, 1) or ``"sdr"`` without a
            threshold.

    Example:
        >>> interval = bootstrap_interval([[1.0, 1.5], [2.0, 2.5], [3.0, 3.5]], num_resamples=200)
        >>> interval.low <= interval.estimate <= interval.high
        True
    """
    statistic = look_up_option(statistic, STATISTICS)
    if num_resamples < 1 or not 0 < level < 1:
        raise ValueError(f"`num_resamples` must be at least 1 and `level` in (0, 1), got {num_resamples} and {level}.")
    table = check_errors(errors).cpu()
    if table.ndim != 2 or table.shape[0] == 0:
        raise LandmarkError(f"`errors` must be a table (B, N) with at least one image, got shape {tuple(table.shape)}.")
    if statistic == "sdr":
        table = _hits(table, threshold, comparator)
    images = table.shape[0]
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(images, (num_resamples, images), generator=generator)
    draws = torch.cat([torch.arange(images)[None], draws])
    times = torch.zeros(num_resamples + 1, images, dtype=torch.float64)
    times.scatter_add_(1, draws, torch.ones_like(draws, dtype=torch.float64))
    values = _medians(table, times) if statistic == "median" else _means(table, times, statistic == "image_mean")
    resampled = values[1:][torch.isfinite(values[1:])]
    if resampled.numel() == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    bounds = torch.quantile(resampled, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64))
    return Interval(float(values[0]), float(bounds[0]), float(bounds[1]))


def _hits(table: torch.Tensor, threshold: float | None, comparator: str) -> torch.Tensor:
    """100 for a landmark within the threshold, 0 outside, NaN without truth: the mean of these is the SDR."""
    if threshold is None:
        raise ValueError("`threshold` is needed for the statistic 'sdr', such as threshold=2.0 for 2 mm.")
    radius = check_thresholds(threshold)[0]
    inside = within(table, radius, look_up_option(comparator, DETECTED))
    return torch.where(torch.isnan(table), table, 100.0 * inside)


def _means(table: torch.Tensor, times: torch.Tensor, per_image: bool) -> torch.Tensor:
    """Means of the drawn images from how often each was drawn, without ever building the resampled tables."""
    values = finite_mean(table, 1)[:, None] if per_image else table
    finite = torch.isfinite(values)
    sums = torch.where(finite, values, torch.zeros_like(values)).sum(1)
    return (times @ sums) / (times @ finite.sum(1).double())


def _medians(table: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """Medians of the drawn images: errors are sorted once, then counted up to the middle as often as drawn."""
    images, _ = torch.isfinite(table).nonzero(as_tuple=True)
    errors, order = table[torch.isfinite(table)].sort()
    if errors.numel() == 0:
        return times.new_full((times.shape[0],), float("nan"))
    rows = max(1, _CHUNK // errors.numel())
    return torch.cat([_weighted_medians(errors, chunk[:, images[order]]) for chunk in times.split(rows)])


def _weighted_medians(errors: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """Median of sorted ``errors``, each repeated ``times``; the mean of the middle two for an even count."""
    reached = times.cumsum(1)
    total = reached[:, -1:]
    middle = torch.cat([((total - 1) / 2).floor(), (total / 2).floor()], dim=1)
    # Index of the first error by which more than `middle` are counted; none where nothing was drawn.
    index = torch.searchsorted(reached, middle + 1).clamp_max(errors.numel() - 1)
    return torch.where(total[:, 0] > 0, errors[index].mean(1), torch.full_like(total[:, 0], float("nan")))
