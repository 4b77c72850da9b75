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
"""A network for two data sets of a few weights, and films to train it on in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, RandGaussianNoised, RandShiftIntensityd
from torch import nn

LANDMARKS = {"head": 3, "hand": 2}
NAMES = {"head": ["sella", "nasion", "menton"], "hand": ["wrist", "tip"]}


class Universal(nn.Module):
    """A convolution that all data sets share, and a head for each."""

    def __init__(self, num_landmarks: Mapping[str, int] = LANDMARKS, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_landmarks = dict(num_landmarks)
        self.dataset_names = tuple(num_landmarks)
        self.shared = nn.Conv2d(1, 2, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict({name: nn.Conv2d(2, n, 1) for name, n in num_landmarks.items()})

    def forward(self, image: torch.Tensor, dataset: str) -> torch.Tensor:
        return self.heads[dataset](self.dropout(torch.relu(self.shared(image))))


def squared(maps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """A loss that looks at every map and every point."""
    return ((maps.mean((-2, -1)) - points.mean(-1)) ** 2).mean()


def films(name: str, count: int, landmarks: int, size: int) -> list[dict[str, Any]]:
    """Each film's number stands in its first pixel and under ``"film"``."""
    generator = torch.Generator().manual_seed(len(name))
    items = []
    for i in range(count):
        image = torch.rand(1, size, size + 1, generator=generator)
        points = torch.rand(landmarks, 2, generator=generator)
        items.append({"image": image, "points": points, "film": i})
    return items


def augmentation() -> Compose:
    return Compose(
        [RandGaussianNoised("image", prob=0.7, std=0.5), RandShiftIntensityd("image", offsets=1.0, prob=0.7)]
    )


def loaders(workers: int = 0, augment: bool = True, **options: Any) -> dict[str, DataLoader]:
    """Two data sets of different image size, landmarks, number of films (5 and 8) and batch size."""
    transform = augmentation() if augment else None
    return {
        name: DataLoader(
            Dataset(films(name, count, LANDMARKS[name], size), transform),
            batch_size=batch_size,
            shuffle="sampler" not in options,
            num_workers=workers,
            **options,
        )
        for name, count, size, batch_size in (("head", 5, 6, 1), ("hand", 8, 5, 2))
    }
