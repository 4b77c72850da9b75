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

import pytest
import torch
from monai.engines import SupervisedTrainer
from torch import nn

from monai_landmarks.handlers import GradientClipping


def train(loss_scale: float, max_norm: float) -> nn.Linear:
    torch.manual_seed(0)
    network = nn.Linear(4, 1)
    batch = {"image": torch.ones(2, 4), "label": torch.ones(2, 1)}
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[batch],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        loss_function=lambda prediction, target: loss_scale * (prediction - target).square().sum(),
        train_handlers=[GradientClipping(network, max_norm)],
    ).run()
    return network


def test_step_is_no_longer_than_the_norm() -> None:
    torch.manual_seed(0)
    start = nn.Linear(4, 1)
    moved = train(loss_scale=1e6, max_norm=0.5)
    step = torch.cat([(a - b).flatten() for a, b in zip(start.parameters(), moved.parameters(), strict=True)])
    assert step.norm().item() == pytest.approx(0.5, rel=1e-4)


def test_short_gradients_are_left_alone() -> None:
    free, clipped = train(1e-3, 1e9), train(1e-3, 10.0)
    assert torch.equal(free.weight, clipped.weight)


def test_diverged_training_stops_with_a_reason() -> None:
    with pytest.raises(RuntimeError, match="diverged"):
        train(float("nan"), 1.0)


def test_norm_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        GradientClipping(nn.Linear(1, 1), 0)
