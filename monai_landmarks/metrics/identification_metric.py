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
"""Identification rate as a MONAI metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from monai.utils import look_up_option

from monai_landmarks.geometry import LandmarkError

from .base import LandmarkMetric, without_channel
from .functional import check_thresholds, plain, spacing_of
from .identification import (
    IDENTIFICATION_REDUCTIONS,
    IDENTIFICATION_RULES,
    Identification,
    identification_rate,
    identify,
)
from .identification_summary import IdentificationSummary, summarize_identification

__all__ = ["IdentificationRateMetric"]


class IdentificationRateMetric(LandmarkMetric):
    """Accumulate which landmarks were identified and give their percentage.

    See :class:`LandmarkMetric` for the inputs, :func:`identify` for the rules and :func:`identification_rate` for the
    percentages: a miss is not identified, a landmark that the truth lacks counts nowhere but among the false positives,
    and without any landmark the result is NaN. The value of a call and the buffer are the error table, as in the other
    metrics; :meth:`identification` gives the rest.

    Args:
        rule: ``"glocker"``, ``"verse"`` or ``"verse_program"``.
        max_distance: largest distance of an identified landmark, millimetres.
        reduction: ``"micro"``, ``"macro"``, ``"all_correct"``, ``"flawless"`` or ``"per_landmark"``.
        names: landmark names in anatomical order, for :meth:`summary`.
        regions: region to names, for :meth:`summary`; by default cervical, thoracic, lumbar and sacral, by the names.

    Raises:
        ValueError: for an unknown rule or reduction, or a distance that is not positive.

    Example:
        >>> metric = IdentificationRateMetric(names=["L1", "L2"])
        >>> true = torch.tensor([[0.0, 0.0], [0.0, 30.0]])
        >>> _ = metric(y_pred=[true, true.flip(0)], y=[true, true])
        >>> metric.aggregate().item(), metric.aggregate("all_correct").item()
        (50.0, 50.0)
        >>> metric.summary().confusions[0]
        Confusion(name='L1', lies_on='L2', times=1)
    """

    higher_is_better = True
    unit = "%"
    _num_tables: ClassVar[int] = 4

    def __init__(
        self,
        rule: str = "glocker",
        max_distance: float = 20.0,
        reduction: str = "micro",
        names: Sequence[str] | None = None,
        regions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        self.rule = look_up_option(rule, tuple(IDENTIFICATION_RULES))
        (self.max_distance,) = check_thresholds(max_distance)
        self.reduction = look_up_option(reduction, IDENTIFICATION_REDUCTIONS)
        self.names, self.regions = names, regions

    @property
    def num_false_positive(self) -> int:
        """Predictions so far of landmarks that the truth lacks, over all processes."""
        return 0 if self.get_buffer() is None else int(self.identification().false_positive.sum())

    def aggregate(self, reduction: str | None = None) -> torch.Tensor:
        """Give the percentage over everything seen since ``reset``, from all processes.

        Args:
            reduction: instead of the constructor's.

        Returns:
            float64 tensor as :func:`identification_rate` gives it.

        Raises:
            ValueError: if nothing was added yet.
        """
        return identification_rate(self.identification(), reduction or self.reduction)

    def identification(self) -> Identification:
        """Give the tables of all images so far, over all processes.

        Raises:
            ValueError: if nothing was added yet.
        """
        distance, outside = self.table(), self.outside()
        _, _, nearest, nearest_distance = super(LandmarkMetric, self).get_buffer()
        outside = torch.zeros_like(distance, dtype=torch.bool) if outside is None else outside
        return Identification(self.rule, self.max_distance, distance, outside, nearest.long(), nearest_distance)

    def summary(self) -> IdentificationSummary:
        """Give all numbers: per region, landmark and image, confusions and label shifts.

        Raises:
            ValueError: if nothing was added yet, or the names do not fit.
        """
        return summarize_identification(self.identification(), self.names, self.regions)

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> list[torch.Tensor]:
        tables = super()._compute_tensor(y_pred, y, **kwargs)
        if self.names is not None and len(self.names) != tables[0].shape[1]:
            raise LandmarkError(f"the points have {tables[0].shape[1]} landmarks, `names` has {len(self.names)}.")
        pred, true = without_channel(plain(y_pred)), without_channel(plain(y))
        if kwargs.get("spacing") is not None:
            scale = spacing_of(kwargs["spacing"], pred)
            pred, true = pred * scale, true.to(pred.device) * scale
        found = identify(pred, true, self.rule, self.max_distance)
        return [*tables, found.nearest.to(tables[0]), found.nearest_distance]
