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
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.handlers import FinalCheckpoint, LandmarkCheckpointLoader
from monai_landmarks.handlers.checkpoint_files import read_checkpoint


def training(network: nn.Linear, steps: int = 2) -> tuple[Engine, list[int]]:
    """An engine that adds 1 to a network's bias in each of the steps of an epoch."""

    def step(engine: Engine, batch: int) -> None:
        with torch.no_grad():
            network.bias += 1

    return Engine(step), list(range(steps))


def bias(path: Path) -> float:
    return float(torch.load(path, weights_only=True)["bias"])


def network() -> nn.Linear:
    net = nn.Linear(1, 1)
    nn.init.zeros_(net.bias)
    return net


def test_only_the_last_epoch_is_saved_and_the_names_with_it(tmp_path: Path) -> None:
    net = network()
    engine, data = training(net)
    FinalCheckpoint(tmp_path / "models", {"model": net}, landmark_names=["sella"]).attach(engine)
    seen: list[bool] = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: seen.append((tmp_path / "models/model.pt").exists()))
    engine.run(data, max_epochs=3)
    assert seen == [False] * 3
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["model.pt"]
    assert bias(tmp_path / "models" / "model.pt") == 6
    content = read_checkpoint(tmp_path / "models" / "model.pt")
    assert content.landmark_names == ("sella",)
    assert content.network_name == "Linear"
    with pytest.raises(LandmarkError):
        LandmarkCheckpointLoader(tmp_path / "models" / "model.pt", {"model": net}, landmark_names=["nasion"])()


def test_a_network_that_predicts_no_landmarks_may_have_any_file_name(tmp_path: Path) -> None:
    net = network()
    engine, data = training(net)
    FinalCheckpoint(tmp_path, {"model": net}, filename="matcher.pt").attach(engine)
    engine.run(data, max_epochs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["matcher.pt"]
    assert read_checkpoint(tmp_path / "matcher.pt").landmark_names is None


@pytest.mark.parametrize("kind", ["terminated", "failed"])
def test_a_training_that_stops_early_leaves_the_old_file(kind: str, tmp_path: Path) -> None:
    net = network()
    engine, data = training(net)
    FinalCheckpoint(tmp_path, {"model": net}).attach(engine)
    engine.run(data, max_epochs=1)

    def stop(engine: Engine) -> None:
        if kind == "failed":
            raise KeyboardInterrupt
        engine.terminate()

    engine.add_event_handler(Events.EPOCH_COMPLETED(once=2), stop)
    try:
        engine.run(data, max_epochs=4)
    except KeyboardInterrupt:
        assert kind == "failed"
    assert float(net.bias.detach()) > 2
    assert bias(tmp_path / "model.pt") == 2


def test_each_training_of_an_engine_is_saved(tmp_path: Path) -> None:
    net = network()
    engine, data = training(net)
    FinalCheckpoint(tmp_path, {"model": net}).attach(engine)
    for expected in (4, 8):
        engine.run(data, max_epochs=2)
        assert bias(tmp_path / "model.pt") == expected


def test_a_wrapped_network_is_saved_for_a_plain_one(tmp_path: Path) -> None:
    net = network()
    engine, data = training(net)
    FinalCheckpoint(tmp_path, {"model": nn.DataParallel(net)}).attach(engine)
    engine.run(data, max_epochs=1)
    other = nn.Linear(1, 1)
    LandmarkCheckpointLoader(tmp_path / "model.pt", {"model": other})()
    assert float(other.bias.detach()) == 2
