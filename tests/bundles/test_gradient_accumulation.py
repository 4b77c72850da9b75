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
"""Gradients of several batches before one step: MONAI's trainer with this package's handler and losses, by the formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from film_bundle_runs import files
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from torch import nn

from monai_landmarks.engines import PrepareLandmarkBatch
from monai_landmarks.handlers.gradient_clipping import GradientClipping
from monai_landmarks.losses import ExponentialWeightedCenterLoss

LOSS = ExponentialWeightedCenterLoss(alpha=40.0, sigma=2.0)
RATE, EPOCHS = 0.01, 2


def network() -> nn.Sequential:
    """Without batch statistics, in float64."""
    torch.manual_seed(1)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)]
    return nn.Sequential(*layers).double()


def films(count: int) -> list[dict[str, torch.Tensor]]:
    random = torch.Generator().manual_seed(0)
    image = torch.rand(count, 1, 9, 7, dtype=torch.float64, generator=random)
    points = torch.rand(count, 3, 2, generator=random) * 6
    return [{"image": image[i : i + 1], "points": points[i : i + 1]} for i in range(count)]


def train(count: int, steps: int, *handlers: Any, **options: Any) -> tuple[nn.Sequential, SupervisedTrainer]:
    net = options.pop("network", None) or network()
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=EPOCHS,
        train_data_loader=films(count),
        network=net,
        optimizer=options.pop("optimizer", None) or torch.optim.SGD(net.parameters(), lr=RATE),
        loss_function=LOSS,
        prepare_batch=PrepareLandmarkBatch(keep_meta=False),
        accumulation_steps=steps,
        train_handlers=[handler(net) for handler in handlers],
    )
    if options.pop("scaled", False):
        trainer.amp, trainer.scaler = True, torch.amp.GradScaler("cpu", init_scale=8.0)
    trainer.run()
    return net, trainer


def by_formula(count: int, steps: int, max_norm: float = float("inf")) -> list[torch.Tensor]:
    """Whole batches of ``steps`` films, p - rate * gradient; a smaller last batch weighs by its share."""
    net, batch = network(), films(count)
    parameters = list(net.parameters())
    for _ in range(EPOCHS):
        for start in range(0, count, steps):
            image, points = (torch.cat([film[key] for film in batch[start : start + steps]]) for key in batch[0])
            gradient = torch.autograd.grad(LOSS(net(image), points) * (len(image) / steps), parameters)
            norm = torch.sqrt(sum(g.square().sum() for g in gradient))
            for parameter, g in zip(parameters, gradient, strict=True):
                parameter.data -= RATE * g * min(1.0, max_norm / norm.item())
    return [parameter.detach() for parameter in parameters]


def check(trained: nn.Module, expected: list[torch.Tensor], start: nn.Module) -> None:
    for found, wanted, first in zip(trained.parameters(), expected, start.parameters(), strict=True):
        torch.testing.assert_close(found.detach(), wanted, rtol=1e-5, atol=1e-7)
        assert not torch.equal(wanted, first)


@pytest.mark.parametrize(("count", "steps"), [(8, 4), (8, 1), (6, 4)])
def test_four_films_one_by_one_are_a_batch_of_four(count: int, steps: int) -> None:
    check(train(count, steps)[0], by_formula(count, steps), network())


@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")
@pytest.mark.parametrize("scaled", [False, True])
def test_sum_is_clipped_once_before_the_step(scaled: bool) -> None:
    """Also where a scaler, which refuses to be asked twice for one step, stretches the gradient."""
    norm = 0.01
    trained, _ = train(8, 4, lambda net: GradientClipping(net, norm), scaled=scaled)
    check(trained, by_formula(8, 4, norm), network())
    with pytest.raises(AssertionError):
        check(trained, by_formula(8, 4), network())


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step:UserWarning")
def test_schedule_counts_batches_and_ends_with_the_training() -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    total = EPOCHS * 8
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=total + 1, cycle_momentum=False)
    schedule = LrScheduleHandler(scheduler, print_lr=False, epoch_level=False)
    train(8, 4, lambda _: schedule, network=net, optimizer=optimizer)
    assert scheduler.last_epoch == total
    assert optimizer.param_groups[0]["lr"] == pytest.approx(RATE / 25 / 1e4)  # torch's last value of the cycle


@pytest.mark.parametrize("bundle", ["cephalometric_xray", "hand_xray", "spine_xray"])
def test_bundles_hand_the_number_on(bundle: str) -> None:
    parser = ConfigParser()
    parser.read_config(files(bundle, "train"))
    assert parser["accumulation_steps"] == 1
    assert parser["train#trainer#accumulation_steps"] == "@accumulation_steps"
