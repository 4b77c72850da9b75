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
"""A trainer for several data sets: losses, curves, resuming exactly, refusals."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader
from monai.handlers import LrScheduleHandler, StatsHandler, TensorBoardStatsHandler, from_engine
from torch import nn
from two_datasets import LANDMARKS, NAMES, Universal, augmentation, films, loaders, squared

from monai_landmarks.engines.multi_dataset_loader import MultiDatasetLoader
from monai_landmarks.engines.multi_dataset_trainer import MultiDatasetTrainer, check_landmark_names
from monai_landmarks.engines.prepare_batch import PrepareDatasetBatch
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.handlers import TrainingCheckpoint
from monai_landmarks.losses import HeatmapL2Loss


def trainer_of(network: nn.Module | None = None, epochs: int = 1, **options: Any) -> MultiDatasetTrainer:
    network = Universal() if network is None else network
    settings: dict[str, Any] = {
        "train_data_loader": loaders(),
        "loss_function": squared,
        "optimizer": torch.optim.Adam(network.parameters(), lr=0.01, weight_decay=0.01),
        **options,
    }
    trainer = MultiDatasetTrainer(device="cpu", max_epochs=epochs, network=network, **settings)
    trainer.logger.setLevel(logging.CRITICAL)
    return trainer


def record(trainer: Engine, event: Any, what: Callable[[Any], Any]) -> list[Any]:
    seen: list[Any] = []
    trainer.add_event_handler(event, lambda engine: seen.append(what(engine)))
    return seen


# --- one step ---------------------------------------------------------------------------------------------------------


def test_each_step_has_the_data_sets_own_loss_and_moves_only_its_own_parameters() -> None:
    """Adam with weight decay: with MONAI's zero gradients the other head would move too."""
    network = Universal()
    losses = {
        "head": lambda maps, points: squared(maps, points),
        "hand": lambda maps, points: 2 * squared(maps, points),
    }
    trainer = trainer_of(network, epochs=2, loss_function=losses)
    state = {k: v.clone() for k, v in network.state_dict().items()}

    @trainer.on(Events.ITERATION_COMPLETED)
    def compare(engine: Engine) -> None:
        now = {k: v.clone() for k, v in network.state_dict().items()}
        moved = {key.rsplit(".", 1)[0] for key in now if not torch.equal(now[key], state[key])}
        dataset = engine.state.batch[0]["dataset"]
        assert moved == {"shared", f"heads.{dataset}"}
        assert engine.loss_function is losses[dataset]  # type: ignore[attr-defined]
        state.update(now)

    steps = record(trainer, Events.ITERATION_COMPLETED, lambda engine: engine.state.batch[0]["dataset"])
    trainer.run()
    assert steps.count("head") == 10
    assert steps.count("hand") == 8


def test_losses_with_parameters_come_as_a_module() -> None:
    losses = nn.ModuleDict({name: HeatmapL2Loss(n, 2, sigma=1.0) for name, n in LANDMARKS.items()})
    network = Universal()
    before = [p.clone() for p in losses.parameters()]
    optimizer = torch.optim.SGD([*network.parameters(), *losses.parameters()], lr=1e-4)
    trainer_of(network, loss_function=losses, optimizer=optimizer).run()
    assert before
    assert all(not torch.equal(a, b) for a, b in zip(before, losses.parameters(), strict=True))


def test_augmentation_on_the_device_by_data_set() -> None:
    calls: list[tuple[str, tuple[int, ...]]] = []

    def note(name: str) -> Callable:
        def augment(images: torch.Tensor, points: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
            calls.append((name, tuple(images.shape[2:])))
            return images, points

        return augment

    prepare = PrepareDatasetBatch(keep_meta=False, augment={"head": note("head"), "hand": [note("hand"), note("hand")]})
    trainer_of(prepare_batch=prepare).run()
    assert set(calls) == {("head", (6, 7)), ("hand", (5, 6))}
    assert calls.count(("hand", (5, 6))) == 8
    with pytest.raises(LandmarkError, match=r"nothing for data set 'hnd' \(did you mean 'hand'\?\)"):
        prepare({"image": torch.zeros(1, 1, 2, 2), "dataset": "hnd"})


def test_a_batch_without_or_with_several_data_sets_is_refused() -> None:
    image = torch.zeros(2, 1, 2, 2)
    with pytest.raises(LandmarkError, match="does not say of which data set it is; it holds 'image'"):
        PrepareDatasetBatch()({"image": image})
    with pytest.raises(LandmarkError, match="mixes data sets 'head', 'hand'"):
        PrepareDatasetBatch()({"image": image, "dataset": ["head", "hand"]})
    assert PrepareDatasetBatch()({"image": image, "dataset": ["head"] * 2})[1:] == (None, ("head",), {})


# --- an epoch ---------------------------------------------------------------------------------------------------------


def test_the_mean_loss_of_each_data_set_is_a_metric_that_handlers_see(tmp_path: Path) -> None:
    logs: list[dict[str, float]] = []
    handlers = [
        StatsHandler(iteration_log=False, epoch_print_logger=lambda engine: logs.append(dict(engine.state.metrics))),
        TensorBoardStatsHandler(
            summary_writer=(writer := Writer()), output_transform=from_engine(["loss"], first=True)
        ),
    ]
    logging.getLogger("monai.handlers.StatsHandler").setLevel(logging.INFO)
    trainer = trainer_of(epochs=2, train_handlers=handlers)
    steps = record(
        trainer, Events.ITERATION_COMPLETED, lambda e: (e.state.batch[0]["dataset"], e.state.output[0]["loss"])
    )
    trainer.run()
    for epoch, metrics in enumerate(logs):
        for name in LANDMARKS:
            losses = [loss for dataset, loss in steps[9 * epoch : 9 * epoch + 9] if dataset == name]
            assert metrics[f"{name}_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    assert writer.scalars["head_loss"] == [(1, logs[0]["head_loss"]), (2, logs[1]["head_loss"])]


class Writer:
    """What the handler calls of TensorBoard's ``SummaryWriter``."""

    def __init__(self) -> None:
        self.scalars: dict[str, list[tuple[int, float]]] = {}

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.setdefault(tag, []).append((step, value))

    def flush(self) -> None: ...

    def close(self) -> None: ...


def test_epochs_are_drawn_from_their_number() -> None:
    seed = 5
    loader = MultiDatasetLoader(loaders(), "equal", num_batches=8, seed=seed)
    trainer = trainer_of(epochs=3, train_data_loader=loader)
    steps = record(trainer, Events.ITERATION_COMPLETED, lambda engine: engine.state.batch[0]["dataset"])
    trainer.run()
    fresh = MultiDatasetLoader(loaders(), "equal", num_batches=8, seed=seed)
    wanted = []
    for epoch in (1, 2, 3):
        fresh.set_epoch(epoch)
        wanted += [batch["dataset"] for batch in fresh]
    assert steps == wanted


def test_mixing_options_with_loaders_by_name() -> None:
    trainer = trainer_of(weights={"head": 2, "hand": 1}, seed=7)
    assert trainer.data_loader.proportions == pytest.approx({"head": 2 / 3, "hand": 1 / 3})
    assert trainer.data_loader.seed == 7
    with pytest.raises(ValueError, match="go to the MultiDatasetLoader"):
        trainer_of(train_data_loader=MultiDatasetLoader(loaders()), temperature=2.0)


# --- resuming ---------------------------------------------------------------------------------------------------------


def train(folder: Path, epochs: int, resume: bool = False) -> dict[str, Any]:
    """Everything random takes part: shuffling, augmentation in loaders and on the device, dropout."""
    torch.manual_seed(0)
    network = Universal(dropout=0.3)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.CyclicLR(optimizer, 1e-4, 1e-2, step_size_up=5, cycle_momentum=False)
    objects = {"model": network, "optimizer": optimizer, "lr_scheduler": scheduler}
    noise = augmentation()
    prepare = PrepareDatasetBatch(keep_meta=False, augment=BatchNoise(noise))
    trainer = trainer_of(
        network,
        epochs,
        optimizer=optimizer,
        prepare_batch=prepare,
        train_handlers=[
            TrainingCheckpoint(folder, objects, resume=resume, landmark_names=[*NAMES["head"], *NAMES["hand"]]),
            LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),
        ],
    )
    # A process that is started again has drawn other numbers before.
    torch.manual_seed(epochs)
    trainer.run()
    return {**network.state_dict(), "lr": torch.tensor(scheduler.get_last_lr())}


class BatchNoise:
    """A transform of MONAI as an augmentation of whole batches."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, images: torch.Tensor, points: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.transform({"image": images})["image"], points


def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", 4)
    half = train(tmp_path / "cut", 2)
    rest = train(tmp_path / "cut", 4, resume=True)
    assert all(torch.equal(whole[key], rest[key]) for key in whole)
    assert not torch.equal(whole["shared.weight"], half["shared.weight"])


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss_function": {"head": squared}}, "`loss_function` has nothing for data set 'hand', only for 'head'"),
        (
            {"loss_function": {"head": squared, "hand": squared, "chest": squared}},
            "`loss_function` names an unknown data set 'chest'; known are 'head', 'hand'",
        ),
        ({"landmark_names": {"head": NAMES["head"]}}, "`landmark_names` has nothing for data set 'hand'"),
        ({"landmark_names": {**NAMES, "hnad": ["x"]}}, "unknown data set 'hnad'"),
        (
            {"network": Universal({"head": 3, "hands": 2})},
            r"`train_data_loader` names an unknown data set 'hand' \(did you mean 'hands'\?\); known are 'head', 'hands'",
        ),
        (
            {"landmark_names": {"head": ["sella", "tip", "menton"], "hand": ["wrist", "tip"]}},
            r"data sets 'head' and 'hand' both have a landmark 'tip': rename one, such as to 'hand tip'",
        ),
        (
            {"landmark_names": {**NAMES, "hand": ["tip", "tip"]}},
            r"data set 'hand' names two landmarks 'tip'",
        ),
        (
            {"landmark_names": {**NAMES, "hand": ["wrist", "thumb", "tip"]}},
            r"3 names for data set 'hand', the network predicts 2 landmarks",
        ),
        ({"epoch_length": 3}, r"epoch_length=3, but the loader's epoch has 9 batches.*num_batches"),
        ({"train_data_loader": DataLoader([{}])}, r"must be a MultiDatasetLoader or .* got DataLoader"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        trainer_of(**options)


def test_some_of_the_networks_data_sets_can_be_trained() -> None:
    """As after a data set was added to a trained network: its names must not clash with the old ones all the same."""
    network = Universal({**LANDMARKS, "chest": 1})
    chest = {"chest": DataLoader(films("chest", 2, 1, 4))}
    names = {**NAMES, "chest": ["apex"]}
    trainer_of(network, train_data_loader=chest, landmark_names=names).run()
    with pytest.raises(LandmarkError, match="'hand' and 'chest' both have a landmark 'tip'"):
        trainer_of(network, train_data_loader=chest, landmark_names={**names, "chest": ["tip"]})


def test_a_wrapped_network_is_looked_into() -> None:
    with pytest.raises(LandmarkError, match="unknown data set 'hand'"):
        trainer_of(nn.DataParallel(Universal({"head": 3})))


def test_names_that_do_not_clash_pass() -> None:
    check_landmark_names(NAMES)
