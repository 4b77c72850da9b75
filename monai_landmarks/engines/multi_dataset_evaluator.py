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
"""One validation over several data sets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.metrics import Average
from monai.engines import Evaluator

from ..data.landmarks import did_you_mean, quoted
from ..geometry import LandmarkError
from ..handlers.scores import lower_is_better, metric_value
from .dataset_mixing import check_datasets

__all__ = ["MultiDatasetEvaluator"]

MEAN_ERROR = "mean_normalised_error"


class MultiDatasetEvaluator(Evaluator):
    r"""Run the evaluator of each data set and make one number of their errors, to choose the best network by.

    The number, ``engine.state.metrics["mean_normalised_error"]``, is

    .. math:: \frac{1}{K} \sum_k e_k / s_k

    over the :math:`K` data sets, with the error :math:`e_k` of one and its scale :math:`s_k`, both in that data set's own
    unit. Errors in millimetres, pixels and thousandths of a film's height become comparable in this way, and every data
    set counts the same, however many films it has. If one error is NaN (nothing was evaluated), the mean is NaN and
    :class:`monai_landmarks.handlers.LowestErrorCheckpoint` saves nothing for it. The published universal detector chose
    its network by the sum of the validation losses, in which the data set with the largest films and most landmarks
    counts most.

    All metrics of the evaluators are copied to ``"<name>_<metric>"``. The key metric is the mean, smaller is better.
    MONAI's ``ValidationHandler``, ``StatsHandler``, ``TensorBoardStatsHandler`` and ``EarlyStopHandler`` with
    :func:`monai_landmarks.handlers.negative_metric` work on it. One iteration of this engine is one data set.

    Args:
        evaluators: one for each data set by name, on its own loader, postprocessing and metrics, with a network that
            takes an image alone (such as ``network.for_dataset(name)``), or on a :class:`MultiDatasetLoader` of one
            loader with :class:`PrepareDatasetBatch`.
        error: metric that each of them has.
        scales: positive length by data set, such as the diagonal of its images, in the unit of its error. None takes 1
            for all and needs errors that are all in the same unit; nobody can check that.
        device: MONAI keeps it in the engine's state; the evaluators have their own.
        val_handlers: for the joint metrics.

    Raises:
        LandmarkError: without evaluators, for scales of other data sets or not positive.
        ValueError: in running, if an evaluator has no such metric or it is not one number.

    Example:
        >>> from ignite.metrics import Average
        >>> from monai.engines import SupervisedEvaluator
        >>> evaluators = {
        ...     name: SupervisedEvaluator(
        ...         device="cpu",
        ...         val_data_loader=[{"image": torch.tensor([[error]])}],
        ...         network=torch.nn.Identity(),
        ...         key_val_metric={"radial_error": Average(lambda output: output[0]["pred"].item())},
        ...     )
        ...     for name, error in {"head": 3.0, "chest": 8.0}.items()
        ... }
        >>> evaluator = MultiDatasetEvaluator(evaluators, scales={"head": 300.0, "chest": 400.0})
        >>> evaluator.run()
        >>> {name: round(float(value), 6) for name, value in evaluator.state.metrics.items()}
        {'head_radial_error': 3.0, 'chest_radial_error': 8.0, 'mean_normalised_error': 0.015}
    """

    def __init__(
        self,
        evaluators: Mapping[str, Evaluator],
        error: str = "radial_error",
        scales: Mapping[str, float] | None = None,
        device: str | torch.device = "cpu",
        val_handlers: Sequence | None = None,
    ) -> None:
        if not evaluators:
            raise LandmarkError("`evaluators` is empty: give an evaluator for each data set, by name.")
        self.evaluators = dict(evaluators)
        for name, evaluator in self.evaluators.items():
            if not isinstance(evaluator, Evaluator):
                raise LandmarkError(
                    f"`evaluators` has a {type(evaluator).__name__} for data set {name!r}, not an Evaluator of MONAI."
                )
        self.error = error
        self.scales = dict.fromkeys(self.evaluators, 1.0) if scales is None else dict(scales)
        check_datasets(self.evaluators, self.scales, "`scales`")
        for name, scale in self.scales.items():
            if not 0 < scale < math.inf:
                raise LandmarkError(
                    f"the scale of data set {name!r} is {scale!r}; it must be a positive length in the unit of its error, "
                    "such as the diagonal of its images."
                )
        super().__init__(
            device=device,
            val_data_loader=list(self.evaluators),
            iteration_update=self._evaluate,
            key_val_metric={MEAN_ERROR: Average(self._normalised_error)},
            metric_cmp_fn=lower_is_better,
            val_handlers=val_handlers,
        )

    def _evaluate(self, engine: Any, name: str) -> list[dict[str, Any]]:
        """Evaluate one data set; give its metrics as engines give the outputs of a batch of one."""
        evaluator = self.evaluators[name]
        evaluator.run(engine.state.epoch)
        metrics = evaluator.state.metrics
        if self.error not in metrics:
            hint = did_you_mean(self.error, metrics)
            raise ValueError(
                f"the evaluator of data set {name!r} has no metric {self.error!r}{hint}, it has "
                f"{quoted(metrics) or 'none'}: give the metric to it, or its name as `error`."
            )
        found = {f"{name}_{metric}": value for metric, value in metrics.items()}
        engine.state.metrics.update(found)
        return [found]

    def _normalised_error(self, output: Any) -> float:
        name = self.state.batch
        return metric_value(self.evaluators[name], self.error) / self.scales[name]
