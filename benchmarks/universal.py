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
"""One network for three data sets against a network for each: a training step, its memory, the parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from monai_landmarks.losses import HeatmapBCELoss
from monai_landmarks.networks import GU2Net, UniversalUNet

from .targets import FLOAT_BYTES, random_points
from .timing import Case, Run, processor_seconds

__all__ = ["TITLE", "cases"]

TITLE = (
    "Universal networks, one call: forward, loss, backward and Adam's step on one batch of each of three data sets "
    "(peak MB: beyond state MB, the weights, buffers and Adam's moments of all that is trained; x plain: against three "
    "networks)"
)
DATASETS = {"head": 19, "hand": 37, "chest": 6}
PUBLISHED = (64, 128, 256, 512, 512)


class Setup(NamedTuple):
    """Width of the networks and what they are given."""

    channels: tuple[int, ...]
    shape: tuple[int, ...]
    batch: int

    @property
    def label(self) -> str:
        size = "x".join(map(str, self.shape))
        return f"{', '.join(map(str, self.channels))} channels, batch {self.batch} of {size}"


def gu2net(spatial_dims: int, datasets: Mapping[str, int], channels: tuple[int, ...]) -> GU2Net:
    """Scale the global network with the local one: 64 and 128 as published."""
    return GU2Net(spatial_dims, datasets, channels=channels, global_channels=2 * channels[0])


class SeparateNetworks(nn.Module):
    """A GU2Net of its own for each data set."""

    def __init__(self, spatial_dims: int, datasets: Mapping[str, int], channels: tuple[int, ...]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict({key: gu2net(spatial_dims, {key: n}, channels) for key, n in datasets.items()})

    def forward(self, image: torch.Tensor, dataset: str) -> torch.Tensor:
        logits: torch.Tensor = self.networks[dataset](image, dataset)
        return logits

    def shared_parameters(self) -> list[nn.Parameter]:
        return []


NETWORKS: dict[str, tuple[str, Callable[..., nn.Module]]] = {
    "one GU2Net": ("ours", gu2net),
    "three GU2Nets": ("plain", SeparateNetworks),
    "one plain U-Net": ("ours", partial(UniversalUNet, convolution="shared")),
}


def build(name: str, setup: Setup) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name][1](len(setup.shape), DATASETS, channels=setup.channels)


def make(name: str, setup: Setup, device: str) -> Run:
    network = build(name, setup).to(device)
    optimizer, loss = torch.optim.Adam(network.parameters()), HeatmapBCELoss()
    image = torch.rand(setup.batch, 1, *setup.shape, device=device)
    points = {key: random_points(setup.batch, count, setup.shape).to(device) for key, count in DATASETS.items()}

    def step() -> None:
        for key in DATASETS:
            loss(network(image, key), points[key]).backward()
            optimizer.step()  # leaves alone what this data set does not use
            optimizer.zero_grad()
        if device != "cpu":
            torch.cuda.synchronize()

    return step


def costs(name: str, setup: Setup, device: str) -> Mapping[str, float]:
    """Parameters; what is resident between calls; what a call takes of the processor, or allocates on the GPU."""
    network = build(name, setup)
    whole = sum(parameter.numel() for parameter in network.parameters())
    shared = sum(parameter.numel() for parameter in network.shared_parameters())  # type: ignore[operator]
    state = 3 * whole * FLOAT_BYTES + sum(buffer.nbytes for buffer in network.buffers())
    run = make(name, setup, device)
    run()
    found = {"parameters": whole, "shared": shared, "per data set": (whole - shared) / len(DATASETS)}
    found["state MB"] = state / 1e6
    if device == "cpu":
        found["processor s"] = min(processor_seconds(run) for _ in range(3))
    else:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        found["peak GPU MB"] = (torch.cuda.max_memory_allocated() - before) / 1e6
    return found


def _group(setup: Setup) -> list[Case]:
    rows = []
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        label = f"{setup.label} on {device}"
        rows += [
            Case(
                f"{label}, {name}",
                partial(make, name, setup, device),
                group=label,
                role=role,
                memory=device == "cpu",
                checks=partial(costs, name, setup, device),
            )
            for name, (role, _) in NETWORKS.items()
        ]
    return rows


def cases(quick: bool = False, full: bool = False) -> list[Case]:
    """List the rows: a quarter of the published width; ``full`` adds the published width."""
    if quick:
        return _group(Setup((4, 8, 8, 8, 8), (32, 32), 1))
    rows = _group(Setup((16, 32, 64, 128, 128), (128, 128), 2))
    return [*rows, *_group(Setup(PUBLISHED, (256, 256), 1))] if full else rows
