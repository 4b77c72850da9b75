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
"""Detection and outlier rates as MONAI metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.utils import look_up_option

from .base import LandmarkMetric
from .functional import (
    DETECTED,
    OUTLYING,
    RELATIVE_TOLERANCE,
    check_thresholds,
    outlier_rate,
    successful_detection_rate,
)

__all__ = ["OutlierRateMetric", "SuccessfulDetectionRateMetric"]


class _RateMetric(LandmarkMetric):
    """A percentage of landmarks by radius; a subclass names the formula and its comparators."""

    unit = "%"
    _rate: Callable[..., torch.Tensor]
    _comparators: Any

    def __init__(
        self,
        thresholds: float | Sequence[float],
        comparator: str,
        per_landmark: bool,
        tolerance: float,
    ) -> None:
        super().__init__()
        check_thresholds(thresholds)
        self.thresholds = thresholds
        self.comparator = look_up_option(comparator, self._comparators)
        self.per_landmark = per_landmark
        self.tolerance = tolerance

    def aggregate(self) -> torch.Tensor:
        """Give the rates over everything seen since ``reset``, from all processes.

        Returns:
            percentages, float64: scalar for one threshold, ``(T,)`` for several, a last axis ``N`` if ``per_landmark``.

        Raises:
            ValueError: if nothing was added yet.
        """
        rate = type(self)._rate
        return rate(self.table(), self.thresholds, self.comparator, self.per_landmark, self.tolerance)


class SuccessfulDetectionRateMetric(_RateMetric):
    """Accumulate distances and give the percentage of landmarks within a radius (SDR).

    See :class:`LandmarkMetric` for the inputs and :func:`successful_detection_rate` for the number: a miss is a
    failure, a landmark that the truth lacks counts nowhere, and without any landmark the result is NaN.

    Args:
        thresholds: one radius or several, in the unit of the points, millimetres as a rule.
        comparator: ``"<="`` or ``"<"``, part of a published number.
        per_landmark: rates of each landmark instead of one over all.
        tolerance: relative half-width of a tie.

    Raises:
        ValueError: for an unknown comparator or a threshold that is not positive.

    Example:
        >>> metric = SuccessfulDetectionRateMetric(thresholds=2.0)
        >>> _ = metric(y_pred=[torch.tensor([[0.0, 2.0], [0.0, 2.5]])], y=[torch.tensor([[0.0, 0.0], [0.0, 0.0]])])
        >>> metric.aggregate().item()
        50.0
    """

    higher_is_better = True
    _rate = staticmethod(successful_detection_rate)
    _comparators = DETECTED

    def __init__(
        self,
        thresholds: float | Sequence[float] = (2.0, 2.5, 3.0, 4.0),
        comparator: str = "<=",
        per_landmark: bool = False,
        tolerance: float = RELATIVE_TOLERANCE,
    ) -> None:
        super().__init__(thresholds, comparator, per_landmark, tolerance)


class OutlierRateMetric(_RateMetric):
    """Accumulate distances and give the percentage of landmarks outside a radius.

    See :class:`LandmarkMetric` for the inputs and :func:`outlier_rate` for the number: a miss is an outlier, a landmark
    that the truth lacks counts nowhere, and without any landmark the result is NaN.

    Args:
        thresholds: one radius or several, in the unit of the points, millimetres as a rule.
        comparator: ``">"`` or ``">="``, part of a published number.
        per_landmark: rates of each landmark instead of one over all.
        tolerance: relative half-width of a tie.

    Raises:
        ValueError: for an unknown comparator or a threshold that is not positive.

    Example:
        >>> metric = OutlierRateMetric(thresholds=2.0)
        >>> _ = metric(y_pred=[torch.tensor([[0.0, 2.0], [0.0, 2.5]])], y=[torch.tensor([[0.0, 0.0], [0.0, 0.0]])])
        >>> metric.aggregate().item()
        50.0
    """

    higher_is_better = False
    _rate = staticmethod(outlier_rate)
    _comparators = OUTLYING

    def __init__(
        self,
        thresholds: float | Sequence[float] = (2.0, 2.5, 3.0, 4.0),
        comparator: str = ">",
        per_landmark: bool = False,
        tolerance: float = RELATIVE_TOLERANCE,
    ) -> None:
        super().__init__(thresholds, comparator, per_landmark, tolerance)
