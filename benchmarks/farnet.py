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
"""FARNet beside MONAI's FlexibleUNet on one and the same encoder, and its loss beside the plain formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any, NamedTuple

import torch
from monai.networks.blocks import BaseEncoder
from monai.networks.nets import FlexibleUNet
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from torch import nn

from monai_landmarks.losses import CoarseToFineLoss, ExponentialWeightedCenterLoss, points_on_map
from monai_landmarks.networks import FARNet
from monai_landmarks.networks.blocks import build_encoder, feature_maps

from .losses import weighted_center
from .targets import FLOAT_BYTES, SIGMA, dense_gaussians, random_points
from .timing import Case, Run, processor_seconds

__all__ = ["TITLE", "cases"]

TITLE = (
    "FARNet and MONAI's FlexibleUNet on the same encoder, one image, channels_last; a training step is forward, loss, "
    "backward and Adam's step (size: the fine heatmaps; peak MB: beyond state MB, the weights and Adam's moments); error: "
    "largest difference of gradients to the formula, relative"
)
LANDMARKS = 19
#: Of the encoder that FlexibleUNet is lent: as published, and as small as a quick run wants it.
WIDTHS = (1.0, 0.125)
Loss = Callable[[Any, torch.Tensor], torch.Tensor]


class Setup(NamedTuple):
    """One encoder on one image."""

    encoder: str
    shape: tuple[int, ...]
    channels: int = 3
    width: float = 1.0
    heavy: bool = False

    @property
    def label(self) -> str:
        what = self.encoder if self.width == 1 else f"{self.encoder} of width {self.width:g}"
        return f"{what}, {self.channels} channels, {'x'.join(map(str, self.shape))}"


class LentEncoder(BaseEncoder, nn.Module):
    """FARNet's DenseNet-121 for FlexibleUNet, which ships ResNet and EfficientNet alone."""

    def __init__(self, spatial_dims: int, in_channels: int, pretrained: bool, width: float) -> None:
        super().__init__()
        self.encoder = build_encoder("densenet121", spatial_dims, in_channels, width)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        maps: list[torch.Tensor] = self.encoder(image)
        return maps

    @classmethod
    def get_encoder_parameters(cls) -> list[dict[str, Any]]:
        return [{"spatial_dims": 2, "in_channels": 3, "pretrained": False, "width": width} for width in WIDTHS]

    @classmethod
    def num_channels_per_output(cls) -> list[tuple[int, ...]]:
        found = [feature_maps(build_encoder("densenet121", 2, 3, width), 2, 3) for width in WIDTHS]
        return [tuple(channels for _, (_, channels) in sorted(maps.items())) for maps in found]

    @classmethod
    def num_outputs(cls) -> list[int]:
        return [5] * len(WIDTHS)

    @classmethod
    def get_encoder_names(cls) -> list[str]:
        return [_lent_name(width) for width in WIDTHS]


def _lent_name(width: float) -> str:
    return f"densenet121 of width {width:g}"


FLEXUNET_BACKBONE.register_class(LentEncoder)


def farnet(setup: Setup) -> nn.Module:
    return FARNet(len(setup.shape), setup.channels, LANDMARKS, setup.encoder, setup.width)


def flexible_unet(setup: Setup) -> nn.Module:
    backbone = _lent_name(setup.width) if setup.encoder == "densenet121" else setup.encoder
    unet: nn.Module = FlexibleUNet(setup.channels, LANDMARKS, backbone, spatial_dims=len(setup.shape))
    return unet


NETWORKS = {"FARNet": ("ours", farnet), "FlexibleUNet": ("monai", flexible_unet)}


def build(name: str, setup: Setup) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name][1](setup)


def make(name: str, setup: Setup, training: bool, device: str) -> Run:
    network = build(name, setup).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train(training)
    image = torch.rand(1, setup.channels, *setup.shape, device=device).to(memory_format=torch.channels_last)
    points = random_points(1, LANDMARKS, setup.shape).to(device)
    loss = CoarseToFineLoss(ExponentialWeightedCenterLoss())
    optimizer = _ready_optimizer(network) if training else None

    def run() -> None:
        with torch.set_grad_enabled(training):
            heatmaps = network(image)
        if optimizer is not None:
            loss(heatmaps, points).backward()
            optimizer.step()
            optimizer.zero_grad()
        if device != "cpu":
            torch.cuda.synchronize()

    return run


def _ready_optimizer(network: nn.Module) -> torch.optim.Optimizer:
    """Adam with its moments in place, so that they count as state and not as what the first step needs."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # moves nothing
    optimizer.zero_grad()
    return optimizer


def costs(name: str, setup: Setup, training: bool, device: str) -> Mapping[str, float]:
    """Parameters; what is resident between calls; what a call takes of the processor, or allocates on the GPU."""
    network = build(name, setup)
    count = sum(parameter.numel() for parameter in network.parameters())
    state = (3 if training else 1) * count * FLOAT_BYTES + sum(buffer.nbytes for buffer in network.buffers())
    found = {"parameters": count, "state MB": state / 1e6}
    run = make(name, setup, training, device)
    run()
    if device == "cpu":
        found["processor s"] = min(processor_seconds(run) for _ in range(1 if setup.heavy else 3))
    else:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        found["peak GPU MB"] = (torch.cuda.max_memory_allocated() - before) / 1e6
    return found


def _network_rows(setup: Setup) -> list[Case]:
    rows = []
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        for training, what in ((False, "forward"), (True, "training step")):
            label = f"{setup.label} on {device}, {what}"
            rows += [
                Case(
                    f"{label}, {name}",
                    partial(make, name, setup, training, device),
                    group=label,
                    role=role,
                    size_bytes=FLOAT_BYTES * LANDMARKS * prod(setup.shape),
                    memory=device == "cpu",
                    heavy=setup.heavy,
                    checks=partial(costs, name, setup, training, device),
                )
                for name, (role, _) in NETWORKS.items()
            ]
    return rows


def dense_coarse_to_fine(heatmaps: tuple[torch.Tensor, torch.Tensor], points: torch.Tensor) -> torch.Tensor:
    """FARNet eq. 3 as written, with a dense target, on both maps."""
    total = torch.zeros((), dtype=points.dtype)
    fine = heatmaps[1].shape[2:]
    for maps in heatmaps:
        target = dense_gaussians(points_on_map(points, fine, maps.shape[2:]), tuple(maps.shape[2:]))
        total = total + weighted_center(maps, target).mean()
    return total


LOSSES: dict[str, tuple[str, Loss]] = {
    "CoarseToFineLoss of EWC": ("ours", CoarseToFineLoss(ExponentialWeightedCenterLoss(40.0, SIGMA))),
    "dense targets + EWC as printed": ("plain", dense_coarse_to_fine),
}


def make_loss(name: str, shape: tuple[int, ...]) -> Run:
    generator = torch.Generator().manual_seed(0)
    sizes = (tuple(size // 2 for size in shape), shape)
    maps = [torch.rand(1, LANDMARKS, *size, generator=generator).requires_grad_() for size in sizes]
    return partial(loss_step, name, maps, random_points(1, LANDMARKS, shape))


def loss_step(name: str, maps: list[torch.Tensor], points: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(LOSSES[name][1](tuple(maps), points), maps)


def loss_error(name: str, shape: tuple[int, ...]) -> Mapping[str, float]:
    """Compare the gradients with those of the plain formula in float64."""
    _, maps, points = make_loss(name, shape).args  # type: ignore[attr-defined]
    exact = [one.detach().double().requires_grad_() for one in maps]
    expected = loss_step("dense targets + EWC as printed", exact, points.double())
    found = loss_step(name, maps, points)
    pairs = zip(found, expected, strict=True)
    return {"error": max(float((f - e).abs().max() / e.abs().max()) for f, e in pairs)}


def _loss_rows(shape: tuple[int, ...]) -> list[Case]:
    label = f"loss and gradients of {LANDMARKS} at {'x'.join(map(str, shape))} and half of it"
    return [
        Case(
            f"{label}, {name}",
            partial(make_loss, name, shape),
            group=label,
            role=role,
            size_bytes=FLOAT_BYTES * LANDMARKS * prod(shape),
            checks=partial(loss_error, name, tuple(min(size, 64) for size in shape)),
        )
        for name, (role, _) in LOSSES.items()
    ]


def cases(quick: bool = False, full: bool = False) -> list[Case]:
    """List the rows: a twelfth of the published pixels; ``full`` has the published 800 x 640, and ResNet-18 as well."""
    if quick:
        return [*_network_rows(Setup("densenet121", (64, 64), width=WIDTHS[1])), *_loss_rows((64, 64))]
    rows = [*_network_rows(Setup("densenet121", (224, 192))), *_loss_rows((800, 640))]
    if full:
        for encoder in ("densenet121", "resnet18"):
            rows += _network_rows(Setup(encoder, (800, 640), heavy=True))
    return rows
