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
from functools import partial
from typing import TYPE_CHECKING, Any

from ignite.metrics.metric import reinit__is_reduced
from monai.handlers import IgniteMetricHandler
from monai.utils import look_up_option

from monai_landmarks.metrics import LandmarkMetric, OutlierRateMetric, RadialErrorMetric, SuccessfulDetectionRateMetric
from monai_landmarks.metrics.base import stack_items
from monai_landmarks.metrics.functional import RELATIVE_TOLERANCE

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["OutlierRate", "RadialError", "SuccessfulDetectionRate"]

SCALARS = ("micro", "macro", "median", "std")


def as_it_is(output: Any) -> Any:
    return output


def outside_name(name: str) -> str:
    """Under which name a handler's count and table of landmarks outside the image stand."""
    return f"{name}_outside"


def _as_tensors(output_transform: Callable, output: Any) -> Any:
    """Stack the points of lists that come with a state: Ignite takes lists apart by image and refuses more than two."""
    parts = output_transform(output)
    if not (isinstance(parts, (list, tuple)) and len(parts) == 3 and isinstance(parts[0], (list, tuple))):
        return parts
    return stack_items(parts[0], "y_pred"), stack_items(parts[1], "y"), parts[2]


class LandmarkMetricHandler(IgniteMetricHandler):
    """Feed a landmark metric with predicted and true points, and with the landmarks' state where the engine has it."""

    def __init__(self, metric: LandmarkMetric, output_transform: Callable, save_details: bool) -> None:
        transform = partial(_as_tensors, output_transform)
        super().__init__(metric_fn=metric, output_transform=transform, save_details=save_details)
        self.metric = metric

    @reinit__is_reduced
    def update(self, output: Any) -> None:
        """Add a batch.

        Args:
            output: predicted points, true points and, to leave those outside the image out, their state.

        Raises:
            ValueError: for another number of parts.
        """
        if len(output) not in (2, 3):
            raise ValueError(
                f"the output must be predicted points, true points and, if wanted, their state, got {len(output)} parts."
            )
        pred, true, *state = output
        self.metric(pred, true, state=state[0] if state else None)

    def completed(self, engine: Engine, name: str) -> None:
        """Record the number and, where it leaves landmarks out, how many under the same name with ``_outside``."""
        super().completed(engine, name)
        outside = self.metric.outside()
        if outside is None:
            return
        engine.state.metrics[outside_name(name)] = int(outside.sum())
        if self.save_details:
            engine.state.metric_details[outside_name(name)] = outside  # type: ignore[attr-defined]


class RadialError(LandmarkMetricHandler):
    """Compute the mean radial error of an epoch: see :class:`monai_landmarks.metrics.RadialErrorMetric`.

    Attached under the name ``radial_error`` it sets ``engine.state.metrics["radial_error"]`` (NaN without any landmark)
    and ``["radial_error_missed"]``, and, with ``save_details``, the error table in
    ``engine.state.metric_details["radial_error"]``, from which :class:`LandmarkMetricsSaver` writes. Smaller is better:
    wire ``metric_cmp_fn`` with :func:`lower_is_better` and save with :class:`LowestErrorCheckpoint`.

    Fed with the landmarks' state as a third part, as ``LandmarkFieldOfViewd`` writes it, it does not score landmarks
    outside the image, and ``["radial_error_outside"]`` is their number.

    Args:
        reduction: ``"micro"``, ``"macro"``, ``"median"`` or ``"std"``; a handler records one number.
        missed_error: distance to count for a landmark that was not predicted.
        output_transform: gives ``(predicted points, true points)`` from ``engine.state.output``, in millimetres, as
            ``monai.handlers.from_engine(["pred", "landmarks"])`` does, or also the state,
            ``from_engine(["pred", "landmarks", "landmarks_state"])``. All must be in the output: copy the truth there in
            the postprocessing.
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
        output_transform: Callable = as_it_is,
        save_details: bool = True,
    ) -> None:
        super().__init__(
            RadialErrorMetric(look_up_option(reduction, SCALARS), missed_error), output_transform, save_details
        )
        self.missed_error = missed_error

    def completed(self, engine: Engine, name: str) -> None:
        """Record the error, and how many landmarks were not predicted under the same name with ``_missed``.

        Counts of landmarks that the error does not include are logged.
        """
        super().completed(engine, name)
        missed = self.metric.num_missed
        engine.state.metrics[f"{name}_missed"] = missed
        if missed and self.missed_error is None:
            text = "%s: %d landmarks that the truth has were not predicted; the distances do not include them."
            engine.logger.warning(text, name, missed)
        outside = self.metric.num_outside
        if outside:
            known = outside + int((~self.metric.table().isnan()).sum())
            engine.logger.warning(
                "%s: %d of %d landmarks lie outside the field of view: not scored.", name, outside, known
            )


class SuccessfulDetectionRate(LandmarkMetricHandler):
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
        output_transform: Callable = as_it_is,
        save_details: bool = False,
    ) -> None:
        metric = SuccessfulDetectionRateMetric(_one(threshold), comparator, tolerance=tolerance)
        super().__init__(metric, output_transform, save_details)


class OutlierRate(LandmarkMetricHandler):
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
        output_transform: Callable = as_it_is,
        save_details: bool = False,
    ) -> None:
        metric = OutlierRateMetric(_one(threshold), comparator, tolerance=tolerance)
        super().__init__(metric, output_transform, save_details)


def _one(threshold: Any) -> float:
    if not isinstance(threshold, (int, float)):
        raise ValueError(
            f"a handler records one number, so `threshold` must be one radius, got {threshold!r}: attach one handler "
            "for each radius, such as sdr_2mm and sdr_4mm."
        )
    return float(threshold)
