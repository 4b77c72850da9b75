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
"""SMAPE of Cobb angles as an Ignite handler."""

from __future__ import annotations

from collections.abc import Callable

from monai_landmarks.metrics import SMAPEMetric

from .measurement_errors import MeasurementErrors
from .metrics import as_it_is

__all__ = ["SMAPE"]


class SMAPE(MeasurementErrors):
    """Compute the SMAPE of an epoch's Cobb angles: see :func:`monai_landmarks.metrics.smape`. Smaller is better.

    Attached under the name ``cobb_smape`` it sets ``engine.state.metrics["cobb_smape"]``, in per cent, and
    ``["cobb_smape_missed"]``, the number of films whose prediction lacks an angle, which the mean leaves out. With
    ``save_details`` the films' errors ``(B, 1)`` are in ``engine.state.metric_details["cobb_smape"]``.

    Args:
        output_transform: gives ``(predicted angles, true angles)`` from ``engine.state.output``, as
            ``monai.handlers.from_engine(["pred_angles", "true_angles"])`` does after
            :class:`~monai_landmarks.transforms.CobbAnglesd`.
        save_details: whether to keep the films' errors.

    Example:
        >>> from ignite.engine import Engine
        >>> import torch
        >>> engine = Engine(lambda engine, batch: batch)
        >>> SMAPE().attach(engine, "cobb_smape")
        >>> _ = engine.run([(torch.tensor([[30.0, 10.0, 0.0]]), torch.tensor([[20.0, 20.0, 20.0]]))])
        >>> engine.state.metrics
        {'cobb_smape': 40.0, 'cobb_smape_missed': 0}
    """

    counted = "films"

    def __init__(self, output_transform: Callable = as_it_is, save_details: bool = True) -> None:
        super().__init__(SMAPEMetric(), output_transform, save_details)
