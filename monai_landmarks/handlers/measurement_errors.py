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
"""Mean error of measurements, such as angles, as an Ignite handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from monai.handlers import IgniteMetricHandler

from monai_landmarks.metrics.measurement_error import MeasurementErrorMetric, absolute_errors

from .metrics import as_it_is

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["MeasurementErrors"]


class MeasurementErrors(IgniteMetricHandler):
    """Compute the mean error of an epoch's measurements in their own unit. Smaller is better.

    Attached under the name ``angle_error`` it sets ``engine.state.metrics["angle_error"]`` and ``["angle_error_missed"]``,
    how many numbers could not be predicted, which the mean leaves out. With ``save_details`` all errors ``(B, E)`` are in
    ``engine.state.metric_details["angle_error"]``.

    Args:
        error: see :class:`~monai_landmarks.metrics.MeasurementErrorMetric`, or such a metric; by default the absolute
            difference. For angles take :func:`~monai_landmarks.measurements.angle_errors`.
        output_transform: gives ``(predicted, true)`` from ``engine.state.output``, as
            ``monai.handlers.from_engine(["pred_angles", "true_angles"])`` does after
            :class:`~monai_landmarks.transforms.MeasureLandmarksd`.
        save_details: whether to keep the errors.

    Example:
        >>> from ignite.engine import Engine
        >>> import torch
        >>> from monai_landmarks.measurements import angle_errors
        >>> engine = Engine(lambda engine, batch: batch)
        >>> MeasurementErrors(angle_errors).attach(engine, "angle_error")
        >>> _ = engine.run([(torch.tensor([[178.0, 90.0]]), torch.tensor([[-179.0, 91.0]]))])
        >>> engine.state.metrics
        {'angle_error': 2.0, 'angle_error_missed': 0}
    """

    counted = "measurements"
    """What the warning of missed ones calls them."""

    def __init__(
        self,
        error: Callable | MeasurementErrorMetric = absolute_errors,
        output_transform: Callable = as_it_is,
        save_details: bool = True,
    ) -> None:
        self.metric = error if isinstance(error, MeasurementErrorMetric) else MeasurementErrorMetric(error)
        super().__init__(metric_fn=self.metric, output_transform=output_transform, save_details=save_details)

    def completed(self, engine: Engine, name: str) -> None:
        """Record the error, and how many numbers were not predicted under the same name with ``_missed``."""
        super().completed(engine, name)
        missed = self.metric.num_missed
        engine.state.metrics[f"{name}_missed"] = missed
        if missed:
            text = "%s: %d %s have a landmark that was not predicted; the mean does not include them."
            engine.logger.warning(text, name, missed, self.counted)
