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

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedTrainer
from monai.transforms import Compose, SelectItemsd
from torch import nn

from monai_landmarks.engines import PrepareLandmarkBatch
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.losses import HeatmapL2Loss, WeightedPoints


def films(count: int = 2) -> list[dict[str, Any]]:
    """As :func:`pseudo_labelled_datalist` lists them, with images."""
    return [
        {
            "image": MetaTensor(torch.full((1, 8, 8), float(i))),
            "points": torch.tensor([[2.0, 3.0], [float("nan")] * 2, [6.0, 1.0]], dtype=torch.float64),
            "scores": np.array([1.0, 0.0, 0.25], dtype=np.float32) + np.float32(i),
        }
        for i in range(count)
    ]


def batch(**changes: Any) -> dict[str, Any]:
    collated: dict[str, Any] = next(iter(DataLoader(Dataset(films()), batch_size=2)))
    return {**collated, **changes}


def test_a_loader_of_scored_films_gives_weighted_points() -> None:
    image, target = PrepareLandmarkBatch(weights_key="scores")(batch())
    assert isinstance(image, MetaTensor)
    assert isinstance(target, WeightedPoints)
    points, weights = target
    assert points.shape == (2, 3, 2)
    assert points.dtype == weights.dtype == torch.float32
    torch.testing.assert_close(weights, torch.tensor([[1.0, 0.0, 0.25], [2.0, 1.0, 1.25]]))
    assert not any(isinstance(part, MetaTensor) for part in target)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_images_precision_touches_neither_points_nor_weights(dtype: torch.dtype) -> None:
    points = torch.full((2, 3, 2), 1234.567)
    weights = torch.full((2, 3), 0.1234567)
    made = PrepareLandmarkBatch(weights_key="scores")(batch(points=points, scores=weights), dtype=dtype)
    assert made[0].dtype == dtype
    torch.testing.assert_close(made[1].points, points, rtol=0, atol=0)
    torch.testing.assert_close(made[1].weights, weights, rtol=0, atol=0)


def test_half_precision_weights_become_single() -> None:
    weights = torch.tensor([[0.5, 0.0, 1.0]] * 2, dtype=torch.float16)
    _, target = PrepareLandmarkBatch(weights_key="scores")(batch(scores=weights))
    torch.testing.assert_close(target.weights, weights.float())


def test_augmentation_moves_points_and_keeps_weights() -> None:
    def shift(images: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images, points + 1

    plain = PrepareLandmarkBatch(weights_key="scores")(batch())[1]
    moved = PrepareLandmarkBatch(weights_key="scores", augment=shift)(batch())[1]
    torch.testing.assert_close(moved.points, plain.points + 1, equal_nan=True)
    torch.testing.assert_close(moved.weights, plain.weights)


def test_weights_that_were_dropped_are_missed() -> None:
    last = Compose([SelectItemsd(["image", "points"])])
    loader = DataLoader(Dataset(films(), last), batch_size=2)
    with pytest.raises(LandmarkError, match=r"no weights under 'scores'; it holds \['image', 'points'\].*SelectItemsd"):
        PrepareLandmarkBatch(weights_key="scores")(next(iter(loader)))


def test_without_points_there_is_nothing_to_weigh_and_without_a_key_nothing_changes() -> None:
    assert PrepareLandmarkBatch(weights_key="scores")({"image": torch.zeros(1, 1, 4, 4)})[1] is None
    assert isinstance(PrepareLandmarkBatch()(batch())[1], torch.Tensor)


class Maps(nn.Module):
    """Heatmaps that are parameters; the image has no influence."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Parameter(torch.zeros(3, 8, 8))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.maps.expand(len(image), -1, -1, -1) + 0 * image.mean()


def trained(scores: list[float] | None) -> torch.Tensor:
    """What a step of gradient descent of length 1 makes of the maps."""
    entries = films(1)
    if scores is not None:
        entries[0]["scores"] = np.array(scores, dtype=np.float32)
    network = Maps()
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=DataLoader(Dataset(entries), batch_size=1),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        loss_function=HeatmapL2Loss(num_landmarks=3, spatial_dims=2, sigma=1.0, learnable=False),
        prepare_batch=PrepareLandmarkBatch(weights_key=None if scores is None else "scores"),
    ).run()
    return network.maps.detach()


def test_a_trainer_learns_as_much_from_a_landmark_as_it_counts() -> None:
    plain, ones, some = trained(None), trained([1, 1, 1]), trained([1, 1, 0.25])
    torch.testing.assert_close(ones, plain)
    assert plain[2].abs().max() > 0
    torch.testing.assert_close(some[:2], plain[:2])
    torch.testing.assert_close(some[2], 0.25 * plain[2])
    assert not trained([0, 0, 0]).any()
