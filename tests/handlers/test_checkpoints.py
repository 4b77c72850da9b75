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
"""Checkpoints: the best one, resuming, and errors that say what does not fit."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from monai.handlers import CheckpointLoader, LrScheduleHandler
from torch import nn

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.handlers import (
    AtomicSaver,
    LandmarkCheckpointLoader,
    LowestErrorCheckpoint,
    TrainingCheckpoint,
    checkpoint_compat,
    load_latest_checkpoint,
    read_checkpoint,
)
from monai_landmarks.handlers.checkpoint_files import explain_state

NAN, INF = float("nan"), float("inf")
NAMES = [f"landmark {i}" for i in range(19)]


class Tiny(nn.Module):
    """A body and a head of one channel per landmark (or of several, as offset heads have)."""

    def __init__(self, landmarks: int = 19, channels: int = 1, width: int = 4, dims: int = 2, each: int = 1) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.body = conv(channels, width, 3)
        self.head = conv(width, landmarks * each, 1)
        self.num_landmarks = landmarks


class Other(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(2, 2)


def validate(handler: LowestErrorCheckpoint, network: nn.Module, values: list[float]) -> list[float]:
    """Run one validation per value; return which value the file on disk belongs to after each."""
    engine = Engine(lambda engine, batch: None)
    engine.logger.setLevel(logging.ERROR)
    handler.attach(engine)
    kept = []
    for value in values:
        # Before the handler sees it: the metric, and weights that tell which validation they are of.
        with torch.no_grad():
            next(network.parameters()).fill_(value if math.isfinite(value) else -1.0)
        engine.state.metrics["radial_error"] = value
        engine.run([0])
        file = Path(handler.save_dir) / "model.pt"
        kept.append(read_checkpoint(file).state("model")["body.weight"].flatten()[0].item() if file.exists() else NAN)
    return kept


# --- LowestErrorCheckpoint ------------------------------------------------------------------------------------------


def test_the_lowest_error_is_kept_and_nan_never_is(tmp_path: Path) -> None:
    network = Tiny()
    handler = LowestErrorCheckpoint(tmp_path, {"model": network})
    kept = validate(handler, network, [NAN, 3.0, 2.0, INF, NAN, 2.5, 1.0])
    assert kept == pytest.approx([NAN, 3.0, 2.0, 2.0, 2.0, 2.0, 1.0], nan_ok=True)
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_skipping_nan_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(lambda engine, batch: None)
    engine.state.metrics["radial_error"] = NAN
    LowestErrorCheckpoint(tmp_path, {"model": Tiny()}).attach(engine)
    engine.logger.setLevel(logging.WARNING)
    with caplog.at_level(logging.WARNING):
        engine.run([0])
    assert "no checkpoint is saved" in caplog.text


def test_several_best_files(tmp_path: Path) -> None:
    network = Tiny()
    handler = LowestErrorCheckpoint(tmp_path, {"model": network}, n_saved=2)
    validate(handler, network, [3.0, 2.0, 4.0, 1.0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model_key_metric=-1.0000.pt", "model_key_metric=-2.0000.pt"]
    with pytest.raises(ValueError, match=r"cannot all be called 'x\.pt'"):
        LowestErrorCheckpoint(tmp_path, {"model": network}, n_saved=2, filename="x.pt")


def test_the_file_is_a_bare_state_dictionary_for_every_other_reader(tmp_path: Path) -> None:
    """MONAI bundles, ckpt_export and plain PyTorch read the weights; the names are there for who asks."""
    network = Tiny()
    validate(LowestErrorCheckpoint(tmp_path, {"model": network}, landmark_names=NAMES), network, [1.0])
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert set(state) == set(network.state_dict())
    Tiny().load_state_dict(state)
    CheckpointLoader(str(tmp_path / "model.pt"), {"model": Tiny()})(Engine(lambda engine, batch: None))
    content = read_checkpoint(tmp_path / "model.pt")
    assert content.landmark_names == tuple(NAMES)
    assert content.network_name == "Tiny"


def test_several_objects_carry_the_names_as_an_entry(tmp_path: Path) -> None:
    network = Tiny()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    objects = {"model": network, "optimizer": optimizer}
    validate(LowestErrorCheckpoint(tmp_path, objects, landmark_names=NAMES), network, [1.0])
    raw = torch.load(tmp_path / "model.pt", weights_only=True)
    assert raw["landmark_names"] == NAMES
    assert set(raw) == {"model", "optimizer", "landmark_names", "network_name"}
    assert set(read_checkpoint(tmp_path / "model.pt").objects) == {"model", "optimizer"}


def test_an_unknown_metric_is_named(tmp_path: Path) -> None:
    engine = Engine(lambda engine, batch: None)
    engine.logger.setLevel(logging.CRITICAL)
    engine.state.metrics["radial_error"] = 1.0
    LowestErrorCheckpoint(tmp_path, {"model": Tiny()}, metric_name="radial_eror").attach(engine)
    with pytest.raises(ValueError, match="did you mean 'radial_error'"):
        engine.run([0])


def test_a_write_that_is_cut_off_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Tiny()
    handler = LowestErrorCheckpoint(tmp_path, {"model": network})
    assert validate(handler, network, [2.0]) == [2.0]

    def half_written(checkpoint: Any, path: Any, **options: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(OSError, match="no space"):
        validate(handler, network, [1.0])
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "model.pt").state("model")["body.weight"].flatten()[0].item() == 2.0
    assert len(list(tmp_path.iterdir())) == 1


def test_old_files_go_after_the_new_one_is_there(tmp_path: Path) -> None:
    saver = AtomicSaver(tmp_path)
    saver({"a": torch.zeros(1)}, "old.pt")
    saver.remove("old.pt")
    assert (tmp_path / "old.pt").exists()
    saver({"a": torch.zeros(1)}, "new.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["new.pt"]


# --- TrainingCheckpoint ---------------------------------------------------------------------------------------------


class KilledError(RuntimeError):
    pass


def training(folder: Path, epochs: int, resume: bool = False, kill_at: int | None = None, **more: Any) -> dict:
    """Train a line; everything that changes over epochs takes part: momentum, learning rate, weights."""
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.7)
    generator = torch.Generator().manual_seed(1)
    data = [{"image": x, "label": x.sum(-1, keepdim=True)} for x in torch.randn(8, 3, generator=generator)]
    objects = {"network": network, "optimizer": optimizer, "lr_scheduler": scheduler, **more}
    # First in the list on purpose: it saves after the learning rate was stepped all the same.
    saver = TrainingCheckpoint(folder, objects, resume=resume, landmark_names=NAMES, n_saved=2)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(data, batch_size=4),
        network=network,
        optimizer=optimizer,
        loss_function=nn.MSELoss(),
        train_handlers=[saver, LrScheduleHandler(scheduler, print_lr=False)],
    )
    trainer.logger.setLevel(logging.CRITICAL)
    seen: list[int] = []
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: seen.append(engine.state.epoch))

    @trainer.on(Events.ITERATION_COMPLETED)
    def kill(engine: Engine) -> None:
        if kill_at is not None and engine.state.epoch == kill_at:
            raise KilledError

    try:
        trainer.run()
    except KilledError:
        seen.append(-1)
    return {
        "weights": network.weight.detach().clone(),
        "lr": scheduler.get_last_lr()[0],
        "epochs": seen,
        "iteration": trainer.state.iteration,
    }


def test_a_killed_training_resumes_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = training(tmp_path / "whole", 6)
    assert training(tmp_path / "cut", 6, kill_at=4)["epochs"] == [1, 2, 3, 4, -1]
    rest = training(tmp_path / "cut", 6, resume=True)
    assert rest["epochs"] == [4, 5, 6]
    torch.testing.assert_close(rest["weights"], whole["weights"], rtol=0, atol=0)
    assert rest["lr"] == whole["lr"]
    assert rest["iteration"] == whole["iteration"] == 12
    names = sorted(p.name for p in (tmp_path / "cut").iterdir())
    assert names == ["training_checkpoint_epoch=5.pt", "training_checkpoint_epoch=6.pt"]


def test_resuming_without_a_file_starts_afresh(tmp_path: Path) -> None:
    assert training(tmp_path, 2, resume=True)["epochs"] == [1, 2]


def test_a_finished_training_has_nothing_left_to_do(tmp_path: Path) -> None:
    whole = training(tmp_path, 2)
    again = training(tmp_path, 2, resume=True)
    assert again["epochs"] == []
    torch.testing.assert_close(again["weights"], whole["weights"])


def test_a_training_can_be_prolonged_but_not_shortened(tmp_path: Path) -> None:
    training(tmp_path, 3)
    assert training(tmp_path, 4, resume=True)["epochs"] == [4]
    with pytest.raises(ValueError, match="after epoch 4, this trainer stops after epoch 2"):
        training(tmp_path, 2, resume=True)


def test_the_newest_file_is_the_one_written_last(tmp_path: Path) -> None:
    """A folder may hold files of an earlier, longer training."""
    training(tmp_path, 5)
    for path in tmp_path.iterdir():
        os.utime(path, (1, 1))
    training(tmp_path, 2)
    assert training(tmp_path, 3, resume=True)["epochs"] == [3]


def test_the_best_error_survives_a_resume(tmp_path: Path) -> None:
    """Otherwise the first validation afterwards, however bad, would overwrite the best network."""
    network = Tiny()
    best = LowestErrorCheckpoint(tmp_path / "best", {"model": network})
    validate(best, network, [1.0])
    training(tmp_path / "run", 1, best=best)
    fresh = LowestErrorCheckpoint(tmp_path / "best", {"model": network})
    training(tmp_path / "run", 1, resume=True, best=fresh)
    assert validate(fresh, network, [5.0, 0.5]) == [1.0, 0.5]


def test_the_interval_does_not_lose_the_last_epoch(tmp_path: Path) -> None:
    engine = Engine(lambda engine, batch: None)
    TrainingCheckpoint(tmp_path, {"network": Tiny()}, save_interval=2, n_saved=9).attach(engine)
    engine.run([0], max_epochs=5)
    assert sorted(p.name[-4:] for p in tmp_path.iterdir()) == ["2.pt", "4.pt", "5.pt"]


def test_resuming_with_other_landmarks_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    engine = Engine(lambda engine, batch: None)
    TrainingCheckpoint(tmp_path, {"network": Tiny()}, landmark_names=NAMES).attach(engine)
    engine.run([0])
    network = Tiny(37)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(LandmarkError, match="predicts 19 landmarks, this network 37"):
        load_latest_checkpoint(tmp_path, {"network": network})
    with pytest.raises(LandmarkError, match="another order"):
        load_latest_checkpoint(tmp_path, {"network": Tiny()}, landmark_names=NAMES[::-1])
    torch.testing.assert_close(before, dict(network.state_dict()))
    assert load_latest_checkpoint(tmp_path / "nowhere", {"network": network}) is None


def test_resuming_with_another_optimizer_is_explained(tmp_path: Path) -> None:
    network = Tiny()
    engine = Engine(lambda engine, batch: None)
    TrainingCheckpoint(tmp_path, {"network": network, "optimizer": torch.optim.SGD(network.parameters(), 1)}).attach(
        engine
    )
    engine.run([0])
    other = torch.optim.SGD([network.head.weight], 1)
    with pytest.raises(LandmarkError, match=r"'optimizer' does not fit this SGD"):
        load_latest_checkpoint(tmp_path, {"network": network, "optimizer": other})


# --- loading --------------------------------------------------------------------------------------------------------


def saved(folder: Path, network: nn.Module, names: list[str] | None = None) -> Path:
    AtomicSaver(folder, "model.pt", names, type(network).__name__)(network.state_dict(), "model.pt")
    return folder / "model.pt"


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Tiny(37), r"predicts 19 landmarks, this network 37 \(head.weight: \(19, 4, 1, 1\) and \(37, 4, 1, 1\)"),
        (Tiny(channels=3), "takes 1 input channels, this network 3"),
        (Tiny(width=8), "same layers in other sizes"),
        (Tiny(dims=3), "another number of spatial dimensions"),
        (
            nn.Sequential(),
            r"is of a Tiny, this network is a Sequential.*'body.weight', 'body.bias', 'head.weight', \.\.\.",
        ),
        (Other(), r"is of a Tiny, this network is a Other.*'encoder.weight'"),
    ],
    ids=["landmarks", "channels", "width", "dims", "empty", "architecture"],
)
def test_a_checkpoint_that_does_not_fit_is_explained(tmp_path: Path, network: nn.Module, words: str) -> None:
    path = saved(tmp_path, Tiny())
    with pytest.raises(LandmarkError, match=words):
        checkpoint_compat(path, network)
    with pytest.raises(LandmarkError, match=words):
        LandmarkCheckpointLoader(path, {"model": network})()


def test_a_head_with_several_outputs_for_each_landmark_counts_landmarks() -> None:
    text = explain_state(Tiny(19, each=3).state_dict(), Tiny(37, each=3))
    assert text is not None
    assert "predicts 19 landmarks, this network 37" in text


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (NAMES[::-1], "another order, the first difference is at 0: 'landmark 0' there, 'landmark 18' here"),
        ([*NAMES[:18], "landmark x"], r"does not predict 'landmark x' \(did you mean 'landmark 18'\?\)"),
        (NAMES[:18], "predicts 'landmark 18', which is not wanted"),
    ],
)
def test_another_landmark_list_is_explained(tmp_path: Path, names: list[str], words: str) -> None:
    with pytest.raises(LandmarkError, match=words):
        checkpoint_compat(saved(tmp_path, Tiny(), NAMES), Tiny(), names)


def test_what_fits_is_loaded(tmp_path: Path) -> None:
    source, target = Tiny(), Tiny()
    path = saved(tmp_path, source, NAMES)
    checkpoint_compat(path, target, NAMES)
    engine = Engine(lambda engine, batch: None)
    LandmarkCheckpointLoader(path, {"model": target}, landmark_names=NAMES).attach(engine)
    engine.run([0])
    torch.testing.assert_close(dict(target.state_dict()), dict(source.state_dict()))


@pytest.mark.parametrize("key", ["model", "network"])
def test_networks_are_found_under_their_usual_names(tmp_path: Path, key: str) -> None:
    """{"model": ...} or {"network": ...}, and the weights of a wrapped network."""
    source, target = Tiny(), Tiny()
    state = {f"module.{k}": v for k, v in source.state_dict().items()}
    torch.save({key: state, "optimizer": {}}, tmp_path / "model.pt")
    LandmarkCheckpointLoader(tmp_path / "model.pt", {"model": nn.DataParallel(target)})()
    torch.testing.assert_close(dict(target.state_dict()), dict(source.state_dict()))


def test_loading_what_fits_into_another_landmark_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, target = Tiny(), Tiny(5)
    head = target.head.weight.detach().clone()
    with caplog.at_level(logging.WARNING):
        LandmarkCheckpointLoader(saved(tmp_path, source), {"model": target}, strict=False)()
    torch.testing.assert_close(target.body.weight, source.body.weight)
    torch.testing.assert_close(target.head.weight, head)
    assert "2 of 4 weights loaded; these keep their own values: head.weight, head.bias" in caplog.text
    with pytest.raises(LandmarkError, match="does not fit at all"):
        LandmarkCheckpointLoader(tmp_path / "model.pt", {"model": Other()}, strict=False)()


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train first, or download"):
        read_checkpoint(tmp_path / "nowhere" / "model.pt")
    whole = saved(tmp_path, Tiny()).read_bytes()
    with pytest.raises(FileNotFoundError, match=r"the folder has 'model\.pt'"):
        read_checkpoint(tmp_path / "modle.pt")
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pt").write_text("not found")
    torch.save(Tiny(), tmp_path / "pickled.pt")
    for name in ("cut.pt", "text.pt", "pickled.pt"):
        with pytest.raises(LandmarkError, match="cannot be read as a checkpoint"):
            read_checkpoint(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(LandmarkError, match="holds list"):
        read_checkpoint(tmp_path / "list.pt")


def test_bare_weights_restore_nothing_but_the_network(tmp_path: Path) -> None:
    network = Tiny()
    objects = {"model": network, "optimizer": torch.optim.SGD(network.parameters(), 1)}
    with pytest.raises(LandmarkError, match="holds the weights of one network"):
        LandmarkCheckpointLoader(saved(tmp_path, network), objects)()


def test_an_object_that_is_not_there_is_named(tmp_path: Path) -> None:
    torch.save({"model": Tiny().state_dict(), "optimiser": {"a": 1}}, tmp_path / "model.pt")
    with pytest.raises(LandmarkError, match=r"holds no 'optimizer'.*did you mean 'optimiser'"):
        read_checkpoint(tmp_path / "model.pt").state("optimizer")


@pytest.mark.parametrize("build", [lambda: LandmarkCheckpointLoader("x", {}), lambda: TrainingCheckpoint("x", {})])
def test_no_objects_is_an_error(build: Any) -> None:
    with pytest.raises(ValueError, match="names no object"):
        build()


def test_json_configuration_builds_the_checkpoints(tmp_path: Path) -> None:
    parser = ConfigParser(
        {
            "network": {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 2, "kernel_size": 1},
            "best": {
                "_target_": "monai_landmarks.handlers.LowestErrorCheckpoint",
                "save_dir": str(tmp_path / "models"),
                "save_dict": {"model": "@network"},
                "landmark_names": ["a", "b"],
            },
            "training": {
                "_target_": "monai_landmarks.handlers.TrainingCheckpoint",
                "save_dir": str(tmp_path / "training"),
                "save_dict": {"network": "@network", "best": "@best"},
                "resume": False,
            },
            "load": {
                "_target_": "monai_landmarks.handlers.LandmarkCheckpointLoader",
                "load_path": str(tmp_path / "models" / "model.pt"),
                "load_dict": {"model": "@network"},
                "landmark_names": ["a", "b"],
            },
        }
    )
    engine = Engine(lambda engine, batch: None)
    engine.state.metrics["radial_error"] = 1.0
    for name in ("best", "training"):
        parser.get_parsed_content(name).attach(engine)
    engine.run([0])
    parser.get_parsed_content("load")()
    assert (tmp_path / "training" / "training_checkpoint_epoch=1.pt").exists()
