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
"""One validation over several data sets, and everything of MONAI that listens to it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from ignite.metrics import Average
from monai.engines import Evaluator, SupervisedEvaluator
from monai.handlers import EarlyStopHandler, StatsHandler, TensorBoardStatsHandler, ValidationHandler, from_engine
from torch import nn
from two_datasets import Universal, loaders, squared

from monai_landmarks.engines.multi_dataset_evaluator import MultiDatasetEvaluator
from monai_landmarks.engines.multi_dataset_loader import MultiDatasetLoader
from monai_landmarks.engines.multi_dataset_trainer import MultiDatasetTrainer
from monai_landmarks.engines.prepare_batch import PrepareDatasetBatch
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.handlers import LowestErrorCheckpoint, RadialError, negative_metric, read_checkpoint

NAN = float("nan")
ERRORS = {"head": 3.0, "chest": 8.0}
SCALES = {"head": 300.0, "chest": 400.0}


def reporting(
    value: Callable[[], float], metric: str = "radial_error", more: dict[str, float] | None = None
) -> Evaluator:
    """An evaluator that finds the error it is told."""
    return SupervisedEvaluator(
        device="cpu",
        val_data_loader=[{"image": torch.zeros(1, 1)}],
        network=nn.Identity(),
        key_val_metric={metric: Average(lambda output: value())},
        additional_metrics={name: Average(lambda output, v=v: v) for name, v in (more or {}).items()},
    )


def evaluator_of(errors: dict[str, float], **options: Any) -> MultiDatasetEvaluator:
    """The errors are read again in every run."""
    children = {name: reporting(lambda name=name: errors[name]) for name in errors}  # type: ignore[misc]
    evaluator = MultiDatasetEvaluator(children, **{"scales": SCALES, **options})
    for engine in (evaluator, *children.values()):
        engine.logger.setLevel(logging.CRITICAL)
    return evaluator


def test_the_mean_of_errors_over_scales() -> None:
    evaluator = evaluator_of(ERRORS)
    evaluator.run(7)
    metrics = {name: float(value) for name, value in evaluator.state.metrics.items()}
    wanted = {"head_radial_error": 3.0, "chest_radial_error": 8.0, "mean_normalised_error": (3 / 300 + 8 / 400) / 2}
    assert metrics == pytest.approx(wanted)
    assert evaluator.state.epoch == 7
    assert {child.state.epoch for child in evaluator.evaluators.values()} == {7}


def test_without_scales_it_is_the_mean_error_and_all_metrics_are_copied() -> None:
    children = {name: reporting(lambda e=e: e, "mre", {"sdr": e / 10}) for name, e in ERRORS.items()}
    evaluator = MultiDatasetEvaluator(children, error="mre")
    evaluator.run()
    wanted = {"head_mre": 3.0, "head_sdr": 0.3, "chest_mre": 8.0, "chest_sdr": 0.8, "mean_normalised_error": 5.5}
    assert {name: float(value) for name, value in evaluator.state.metrics.items()} == pytest.approx(wanted)


def test_the_best_is_the_smallest_and_nan_never_is() -> None:
    errors = dict(ERRORS)
    evaluator = evaluator_of(errors)
    best = []
    for epoch, chest in enumerate([NAN, 8.0, 4.0, NAN, 6.0], start=1):
        errors["chest"] = chest
        evaluator.run(epoch)
        assert math.isnan(evaluator.state.metrics["mean_normalised_error"]) == math.isnan(chest)
        best.append(evaluator.state.best_metric_epoch)
    assert best == [1, 2, 3, 3, 3]
    assert evaluator.state.best_metric == pytest.approx(0.01)


def test_the_lowest_joint_error_is_saved_and_nan_is_not(tmp_path: Path) -> None:
    network = nn.Linear(1, 1)
    errors = dict(ERRORS)
    checkpoint = LowestErrorCheckpoint(tmp_path, {"model": network}, metric_name="mean_normalised_error")
    evaluator = evaluator_of(errors, val_handlers=[checkpoint])
    kept = []
    for epoch, chest in enumerate([8.0, NAN, 4.0, 6.0], start=1):
        errors["chest"] = chest
        with torch.no_grad():
            network.weight.fill_(epoch)
        evaluator.run(epoch)
        kept.append(read_checkpoint(tmp_path / "model.pt").state("model")["weight"].item())
    assert kept == [1, 1, 3, 3]


class Writer:
    """What the handler calls of TensorBoard's ``SummaryWriter``."""

    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.append((tag, round(float(value), 6), step))

    def flush(self) -> None: ...

    def close(self) -> None: ...


def test_logs_and_curves_have_each_data_set_and_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the handlers' own defaults an iteration shows what its data set gave."""
    logging.getLogger("monai.handlers.StatsHandler").setLevel(logging.INFO)
    writer, stats, lines = Writer(), StatsHandler(), []
    evaluator = evaluator_of(ERRORS, val_handlers=[stats, TensorBoardStatsHandler(writer, iteration_log=False)])
    monkeypatch.setattr(stats.logger, "info", lines.append)
    evaluator.run(4)
    assert sorted(writer.scalars) == [
        ("chest_radial_error", 8.0, 4),
        ("head_radial_error", 3.0, 4),
        ("mean_normalised_error", 0.015, 4),
    ]
    assert lines[0] == "Epoch: 4/4, Iter: 1/2 -- head_radial_error: 3.0000 "
    assert lines[-1] == "Key metric: mean_normalised_error best value: 0.015 at epoch: 4"


def test_it_validates_a_training_and_can_stop_it() -> None:
    """The whole chain on one network: per-data-set evaluators with our metric, validation handler, early stop."""
    network = Universal()
    metric = from_engine(["pred_points", "true_points"])

    def decode(item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "pred_points": item["points"] + 3.0, "true_points": item["points"]}

    children: dict[str, Evaluator] = {}
    for name, loader in loaders(augment=False).items():
        children[name] = SupervisedEvaluator(
            device="cpu",
            val_data_loader=MultiDatasetLoader({name: loader}),
            network=network,
            prepare_batch=PrepareDatasetBatch(),
            postprocessing=decode,
            key_val_metric={"radial_error": RadialError(output_transform=metric)},
        )
    stop = EarlyStopHandler(patience=2, score_function=negative_metric("mean_normalised_error"))
    evaluator = MultiDatasetEvaluator(children, scales={"head": 1.0, "hand": 3.0}, val_handlers=[stop])
    trainer = MultiDatasetTrainer(
        device="cpu",
        max_epochs=9,
        train_data_loader=loaders(),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.01),
        loss_function=squared,
        train_handlers=[ValidationHandler(1, evaluator)],
    )
    for engine in (trainer, evaluator, *children.values()):
        engine.logger.setLevel(logging.CRITICAL)
    stop.set_trainer(trainer)
    trainer.run()
    far = 3 * math.sqrt(2)
    assert evaluator.state.metrics["mean_normalised_error"] == pytest.approx((far + far / 3) / 2, rel=1e-5)
    assert trainer.state.epoch == 3  # the error never shrinks
    assert network.training


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scales": {"head": 1.0}}, "`scales` has nothing for data set 'chest', only for 'head'"),
        ({"scales": {**SCALES, "chests": 1.0}}, r"unknown data set 'chests' \(did you mean 'chest'\?\)"),
        ({"scales": {**SCALES, "chest": 0.0}}, r"scale of data set 'chest' is 0.0; it must be a positive length"),
        ({"scales": {**SCALES, "chest": NAN}}, r"scale of data set 'chest' is nan"),
    ],
)
def test_bad_scales_are_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(LandmarkError, match=words):
        evaluator_of(ERRORS, **options)


def test_what_is_no_evaluator_is_refused_at_once() -> None:
    with pytest.raises(LandmarkError, match="`evaluators` is empty"):
        MultiDatasetEvaluator({})
    with pytest.raises(LandmarkError, match="has a Engine for data set 'head', not an Evaluator"):
        MultiDatasetEvaluator({"head": Engine(lambda engine, batch: None)})  # type: ignore[dict-item]


def test_an_evaluator_without_the_metric_says_what_it_has() -> None:
    evaluator = MultiDatasetEvaluator({"head": reporting(lambda: 1.0, "radial_eror")})
    evaluator.logger.setLevel(logging.CRITICAL)
    words = r"'head' has no metric 'radial_error' \(did you mean 'radial_eror'\?\), it has 'radial_eror'"
    with pytest.raises(ValueError, match=words):
        evaluator.run()
