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
"""The identification rate as an Ignite handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from monai.utils import look_up_option

from monai_landmarks.metrics.identification_metric import IdentificationRateMetric
from monai_landmarks.metrics.label_shift import detect_label_shifts

from .metrics import LandmarkMetricHandler, as_it_is

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["IdentificationRate"]

SCALARS = ("micro", "macro", "all_correct", "flawless")


class IdentificationRate(LandmarkMetricHandler):
    """Compute the percentage of identified landmarks in an epoch: see :func:`monai_landmarks.metrics.identify`.

    Attached under the name ``identification_rate`` it sets ``engine.state.metrics["identification_rate"]``,
    ``["identification_rate_missed"]`` and ``["identification_rate_false_positives"]``, and, with ``save_details``, the
    tables in ``engine.state.metric_details["identification_rate"]``, from which :class:`LandmarkMetricsSaver` writes
    under a protocol with a rule of identification. Larger is better. Images whose labels are shifted are logged.

    Args:
        rule: ``"glocker"``, ``"verse"`` or ``"verse_program"``.
        max_distance: largest distance of an identified landmark, millimetres.
        reduction: ``"micro"``, ``"macro"``, ``"all_correct"`` or ``"flawless"``; a handler records one number.
        output_transform: gives ``(predicted points, true points)`` in millimetres, or also their state, as in
            :class:`RadialError`.
        save_details: whether to keep the tables.

    Raises:
        ValueError: for an unknown rule or another reduction, or a distance that is not positive.

    Example:
        >>> from ignite.engine import Engine
        >>> import torch
        >>> engine = Engine(lambda engine, batch: batch)
        >>> IdentificationRate().attach(engine, "identification_rate")
        >>> _ = engine.run([(torch.tensor([[[0.0, 5.0], [0.0, 5.0]]]), torch.tensor([[[0.0, 0.0], [0.0, 30.0]]]))])
        >>> engine.state.metrics["identification_rate"]
        50.0
    """

    def __init__(
        self,
        rule: str = "glocker",
        max_distance: float = 20.0,
        reduction: str = "micro",
        output_transform: Callable = as_it_is,
        save_details: bool = True,
    ) -> None:
        metric = IdentificationRateMetric(rule, max_distance, look_up_option(reduction, SCALARS))
        super().__init__(metric, output_transform, save_details)
        self.metric: IdentificationRateMetric = metric

    def completed(self, engine: Engine, name: str) -> None:
        """Record the rate, the counts beside it and the tables; log how many images have shifted labels."""
        super().completed(engine, name)
        found = self.metric.identification()
        engine.state.metrics[f"{name}_missed"] = int(found.missed.sum())
        engine.state.metrics[f"{name}_false_positives"] = int(found.false_positive.sum())
        if self.save_details:
            engine.state.metric_details[name] = found  # type: ignore[attr-defined]
        shifted = sum(shift is not None for shift in detect_label_shifts(found))
        if shifted:
            text = "%s: the labels of %d of %d images are shifted by whole places: LandmarkMetricsSaver names them."
            engine.logger.warning(text, name, shifted, len(found.distance))
