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
"""Telling Ignite and MONAI, where larger is better by default, that an error is better when it is smaller."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from monai_landmarks.data.landmarks import did_you_mean, quoted

__all__ = ["lower_is_better", "metric_value", "negative_metric"]


def lower_is_better(current: float, best: float) -> bool:
    """Tell whether an error is a new best: MONAI's ``metric_cmp_fn`` for error-like key metrics.

    MONAI takes the first value as best, whatever it is. A NaN (nothing evaluated) is therefore replaced by the first
    real value and never replaces one.

    Args:
        current: the new value.
        best: the best one so far.

    Returns:
        True for a smaller error.

    Example:
        >>> lower_is_better(1.0, 2.0), lower_is_better(float("nan"), 2.0), lower_is_better(3.0, float("nan"))
        (True, False, True)
    """
    if math.isnan(current):
        return False
    return math.isnan(best) or current < best


def negative_metric(name: str) -> Callable[[Any], float]:
    """Give a score function for Ignite's ``EarlyStopping`` that grows as the error ``name`` shrinks.

    NaN scores minus infinity: Ignite's comparison would take it for an improvement. For the learning rate no sign is
    needed: ``ReduceLROnPlateau(mode="min")`` reads the error itself, through
    ``LrScheduleHandler(step_transform=lambda engine: evaluator.state.metrics[name])``.

    Args:
        name: of the metric in ``engine.state.metrics``.

    Returns:
        function of an engine.

    Example:
        >>> from types import SimpleNamespace as Engine
        >>> negative_metric("radial_error")(Engine(state=Engine(metrics={"radial_error": 1.5})))
        -1.5
    """

    def score(engine: Any) -> float:
        value = metric_value(engine, name)
        return -math.inf if math.isnan(value) else -value

    return score


def metric_value(engine: Any, name: str | None = None) -> float:
    """Read one number from ``engine.state.metrics``.

    Args:
        engine: after an epoch.
        name: of the metric; None takes the engine's key metric.

    Raises:
        ValueError: if there is no such metric or it is not one number.
    """
    metrics = engine.state.metrics
    key = name or getattr(engine.state, "key_metric_name", None)
    if key not in metrics:
        hint = did_you_mean(str(key), metrics)
        raise ValueError(f"there is no metric {key!r}{hint} in this engine, it has {quoted(metrics) or 'none'}.")
    try:
        return float(metrics[key])
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"metric {key!r} is not one number but {metrics[key]!r}; choose a scalar reduction."
        ) from error
