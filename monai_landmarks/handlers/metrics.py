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
"""Landmark metrics as Ignite handlers, each giving one number per epoch in ``engine.state.metrics``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from monai.handlers import IgniteMetricHandler
from monai.utils import look_up_option

from monai_landmarks.metrics import OutlierRateMetric, RadialErrorMetric, SuccessfulDetectionRateMetric
from monai_landmarks.metrics.functional import RELATIVE_TOLERANCE

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["OutlierRate", "RadialError", "SuccessfulDetectionRate"]

SCALARS = ("micro", "macro", "median", "std")


def _as_it_is(output: Any) -> Any:
    return output


class RadialError(IgniteMetricHandler):
    """Compute the mean radial error of an epoch: see :class:`monai_landmarks.metrics.RadialErrorMetric`.

    Attached under the name ``radial_error`` it sets ``engine.state.metrics["radial_error"]`` (NaN without any landmark)
    and ``["radial_error_missed"]``, and, with ``save_details``, the error table in
    ``engine.state.metric_details["radial_error"]``, from which :class:`LandmarkMetricsSaver` writes. Smaller is better:
    wire ``metric_cmp_fn`` with :func:`lower_is_better` and save with :class:`LowestErrorCheckpoint`.

    Args:
        reduction: ``"micro"``, ``"macro"``, ``"median"`` or ``"std"``; a handler records one number.
        missed_error: distance to count for a landmark that was not predicted.
        output_transform: gives ``(predicted points, true points)`` from ``engine.state.output``, in millimetres, as
            ``monai.handlers.from_engine(["pred", "landmarks"])`` does. Both must be in the output: copy the truth
            there in the postprocessing.
        save_details: whether to keep the error table.

    Raises:
        ValueError: for another reduction.

    Example:
        >>> from ignite.engine import Engine
        >>> import torch
        >>> engine = Engine(lambda engine, batch: batch)
        >>> RadialError().attach(engine, "radial_error")
        >>> _ = engine.run([(torch.zeros(1, 1, 2), torch.tensor([[[3.0, 4.0]]]))])
        >>> engine.state.metrics
        {'radial_error': 5.0, 'radial_error_missed': 0}
    """

    def __init__(
        self,
        reduction: str = "micro",
        missed_error: float | None = None,
        output_transform: Callable = _as_it_is,
        save_details: bool = True,
    ) -> None:
        self.metric = RadialErrorMetric(look_up_option(reduction, SCALARS), missed_error)
        super().__init__(metric_fn=self.metric, output_transform=output_transform, save_details=save_details)

    def completed(self, engine: Engine, name: str) -> None:
        """Record the error, and how many landmarks were not predicted under the same name with ``_missed``."""
        super().completed(engine, name)
        missed = self.metric.num_missed
        engine.state.metrics[f"{name}_missed"] = missed
        if missed and self.metric.missed_error is None:
            text = "%s: %d landmarks that the truth has were not predicted; the distances do not include them."
            engine.logger.warning(text, name, missed)


class SuccessfulDetectionRate(IgniteMetricHandler):
    """Compute the percentage of landmarks within one radius (SDR) in an epoch. Larger is better.

    Args:
        threshold: one radius in millimetres. Use one handler for each radius.
        comparator: ``"<="`` or ``"<"``.
        tolerance: relative half-width of a tie.
        output_transform: as in :class:`RadialError`.
        save_details: whether to keep the error table.

    Raises:
        ValueError: for several thresholds or an unknown comparator.
    """

    def __init__(
        self,
        threshold: float = 2.0,
        comparator: str = "<=",
        tolerance: float = RELATIVE_TOLERANCE,
        output_transform: Callable = _as_it_is,
        save_details: bool = False,
    ) -> None:
        metric = SuccessfulDetectionRateMetric(_one(threshold), comparator, tolerance=tolerance)
        super().__init__(metric_fn=metric, output_transform=output_transform, save_details=save_details)


class OutlierRate(IgniteMetricHandler):
    """Compute the percentage of landmarks outside one radius in an epoch. Smaller is better.

    Args:
        threshold: one radius in millimetres. Use one handler for each radius.
        comparator: ``">"`` or ``">="``.
        tolerance: relative half-width of a tie.
        output_transform: as in :class:`RadialError`.
        save_details: whether to keep the error table.

    Raises:
        ValueError: for several thresholds or an unknown comparator.
    """

    def __init__(
        self,
        threshold: float = 4.0,
        comparator: str = ">",
        tolerance: float = RELATIVE_TOLERANCE,
        output_transform: Callable = _as_it_is,
        save_details: bool = False,
    ) -> None:
        metric = OutlierRateMetric(_one(threshold), comparator, tolerance=tolerance)
        super().__init__(metric_fn=metric, output_transform=output_transform, save_details=save_details)


def _one(threshold: Any) -> float:
    if not isinstance(threshold, (int, float)):
        raise ValueError(
            f"a handler records one number, so `threshold` must be one radius, got {threshold!r}: attach one handler "
            "for each radius, such as sdr_2mm and sdr_4mm."
        )
    return float(threshold)
