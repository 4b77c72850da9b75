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
"""SpatialConfiguration-Net: what memory format and bfloat16 bring, forward and with backward."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import NamedTuple

import torch

from monai_landmarks.networks import SpatialConfigurationNet

from .targets import FLOAT_BYTES
from .timing import Case, Run

__all__ = ["TITLE", "cases"]

TITLE = "SpatialConfigurationNet (size: the heatmaps; x plain: against float32 in torch's contiguous format)"
MODES = {"float32": "plain", "float32 channels_last": "ours", "bfloat16 channels_last": "ours"}


class Setup(NamedTuple):
    """One network on one image; ``backward`` adds the gradient of all weights, with dropout on."""

    shape: tuple[int, ...]
    landmarks: int
    channels: int
    backward: bool
    heavy: bool = False

    @property
    def label(self) -> str:
        what = "forward + backward" if self.backward else "forward"
        return f"{self.channels} channels, {self.landmarks} at {'x'.join(map(str, self.shape))}, {what}"


def step(net: torch.nn.Module, image: torch.Tensor, backward: bool, half: bool) -> torch.Tensor:
    net.zero_grad(set_to_none=True)
    with torch.set_grad_enabled(backward), torch.autocast("cpu", torch.bfloat16, enabled=half):
        heatmaps = net(image)
    if backward:
        heatmaps.float().square().sum().backward()
    return heatmaps


def make(setup: Setup, mode: str) -> Run:
    torch.manual_seed(0)
    net: torch.nn.Module = SpatialConfigurationNet(len(setup.shape), 1, setup.landmarks, setup.channels)
    image = torch.rand(1, 1, *setup.shape)
    if mode.endswith("channels_last"):
        form = torch.channels_last if len(setup.shape) == 2 else torch.channels_last_3d
        # Module.to is typed for tensors of four axes only
        net, image = net.to(memory_format=form), image.to(memory_format=form)  # type: ignore[call-overload]
    return partial(step, net.train(setup.backward), image, setup.backward, mode.startswith("bfloat16"))


def _group(setup: Setup, limits: Mapping[str, Mapping[str, float]]) -> list[Case]:
    return [
        Case(
            f"{setup.label}, {mode}",
            partial(make, setup, mode),
            group=setup.label,
            role=role,
            size_bytes=FLOAT_BYTES * setup.landmarks * prod(setup.shape),
            heavy=setup.heavy,
            limits=limits.get(mode, {}),
        )
        for mode, role in MODES.items()
    ]


def cases(quick: bool = False, full: bool = False) -> list[Case]:
    """List the rows: small networks and the published 2D one forward; ``full`` adds its backward and 3D."""
    if quick:
        return _group(Setup((64, 64), 19, 8, backward=True), {})
    rows = [
        *_group(Setup((256, 256), 19, 32, backward=True), {}),
        *_group(Setup((32, 32, 64), 26, 16, backward=True), {}),
        *_group(
            Setup((512, 512), 19, 128, backward=False),
            {"float32 channels_last": {"seconds": 2.1}, "bfloat16 channels_last": {"seconds": 1.2}},
        ),
    ]
    if full:
        in_3d = {"seconds": 30.0, "memory_bytes": 4.5e9}
        rows += _group(
            Setup((512, 512), 19, 128, backward=True, heavy=True), {"float32 channels_last": {"seconds": 6.0}}
        )
        rows += _group(
            Setup((96, 96, 192), 26, 64, backward=True, heavy=True), {"float32": in_3d, "float32 channels_last": in_3d}
        )
    return rows
