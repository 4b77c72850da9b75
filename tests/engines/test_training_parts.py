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
from ignite.engine import Events
from monai.data import MetaTensor
from monai.engines import SupervisedTrainer
from monai.inferers import SlidingWindowInferer
from torch import nn

from monai_landmarks.engines import PrepareLandmarkBatch
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.inferers import MixedPrecisionInferer
from monai_landmarks.losses import HeatmapL2Loss


def test_autocast_of_the_images_own_device_and_gradients_in_float32() -> None:
    network = nn.Conv2d(1, 2, 3)
    result = MixedPrecisionInferer()(torch.randn(1, 1, 8, 8), network)
    assert result.dtype == torch.bfloat16
    result.float().sum().backward()
    assert network.weight.grad is not None
    assert network.weight.grad.dtype == torch.float32


def test_disabled_is_the_networks_own_precision() -> None:
    image = torch.randn(1, 1, 8, 8)
    network = nn.Conv2d(1, 2, 3)
    assert torch.equal(MixedPrecisionInferer(enabled=False)(image, network), network(image))


def test_meta_data_is_taken_off_and_memory_format_is_set() -> None:
    seen = []

    def network(x: torch.Tensor) -> torch.Tensor:
        memory_format = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        seen.append((type(x), x.is_contiguous(memory_format=memory_format)))
        return x

    MixedPrecisionInferer(channels_last=True)(MetaTensor(torch.zeros(1, 3, 8, 8)), network)
    MixedPrecisionInferer(channels_last=True)(torch.zeros(1, 3, 8, 8, 8), network)
    MixedPrecisionInferer()(torch.zeros(1, 3, 8, 8), network)
    assert seen == [(torch.Tensor, True), (torch.Tensor, True), (torch.Tensor, False)]


def test_wraps_any_inferer() -> None:
    infer = MixedPrecisionInferer(SlidingWindowInferer((4, 4), overlap=0.5), enabled=False)
    image = torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(infer(image, lambda x: x * 2), image * 2)


def test_unknown_dtype_fails_in_the_constructor() -> None:
    with pytest.raises(ValueError, match="bfloat16 or float16"):
        MixedPrecisionInferer(dtype="float31")


def test_batch_without_image_names_its_keys() -> None:
    with pytest.raises(LandmarkError, match=r"no image under 'image'; it holds \['film', 'points'\]"):
        PrepareLandmarkBatch()({"film": 1, "points": 2})


def test_batch_without_points_has_no_target() -> None:
    image, points = PrepareLandmarkBatch()({"image": torch.zeros(1, 1, 4, 4)})
    assert image.shape == (1, 1, 4, 4)
    assert points is None


def test_points_are_plain_float32_on_the_device() -> None:
    batch = {"image": torch.zeros(1, 1, 4, 4), "points": MetaTensor(torch.ones(1, 2, 2, dtype=torch.float64))}
    _, points = PrepareLandmarkBatch()(batch, device="cpu")
    assert type(points) is torch.Tensor
    assert points.dtype == torch.float32


@pytest.mark.parametrize("keep_meta", [True, False])
def test_meta_data_of_the_image_are_kept_on_request(keep_meta: bool) -> None:
    image, _ = PrepareLandmarkBatch(keep_meta=keep_meta)({"image": MetaTensor(torch.zeros(1, 1, 4, 4))})
    assert type(image) is (MetaTensor if keep_meta else torch.Tensor)


def test_monai_trainer_learns_with_them() -> None:
    torch.manual_seed(0)
    items = [{"image": torch.randn(2, 1, 8, 8), "points": torch.full((2, 1, 2), 4.0)}] * 20
    network, losses = nn.Conv2d(1, 1, 3, padding=1), []
    loss = HeatmapL2Loss(1, 2, sigma=1.0)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=items,
        network=network,
        optimizer=torch.optim.Adam([*network.parameters(), *loss.parameters()], lr=0.1),
        loss_function=loss,
        inferer=MixedPrecisionInferer(),
        prepare_batch=PrepareLandmarkBatch(),
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output[0]["loss"]))
    trainer.run()
    assert losses[-1] < 0.9 * losses[0]
