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
"""Long scans through windows: memory that stays, time beside MONAI's sliding window, and what is added to the network."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from math import prod

import torch
from monai.inferers import SlidingWindowInferer

from monai_landmarks.heatmaps import decode_heatmaps
from monai_landmarks.inferers import LandmarkSlidingWindowInferer
from monai_landmarks.networks import SpatialConfigurationNet

from .decoding import plain_argmax
from .targets import FLOAT_BYTES
from .timing import Case, Run

__all__ = ["TITLE", "cases"]

TITLE = (
    "Windows over long scans (size: the scan's heatmaps; the network of the first rows is one convolution; over network: "
    "time outside the network as a share of the time in it)"
)
LANDMARKS, OVERLAP = 26, 0.5
SECTION, THICKNESS = (192, 192), 96
Network = Callable[[torch.Tensor], torch.Tensor]


def streaming(image: torch.Tensor, network: Network, roi: tuple[int, ...]) -> torch.Tensor:
    """Points and five candidates of each landmark."""
    points: torch.Tensor = LandmarkSlidingWindowInferer(roi, OVERLAP)(image, network)["points"]
    return points


def dense(image: torch.Tensor, network: Network, roi: tuple[int, ...]) -> torch.Tensor:
    """The merged heatmaps, decoded."""
    return decode_heatmaps(LandmarkSlidingWindowInferer(roi, OVERLAP, mode="dense")(image, network), "quadratic").points


@torch.no_grad()
def monai_argmax(image: torch.Tensor, network: Network, roi: tuple[int, ...]) -> torch.Tensor:
    """The mean of the windows, and the highest voxel of it."""
    merged = SlidingWindowInferer(roi, 1, OVERLAP)(image, network)
    assert isinstance(merged, torch.Tensor)
    return plain_argmax(merged)


WAYS = {"streaming": streaming, "dense": dense, "MONAI SlidingWindowInferer + argmax": monai_argmax}


def scan(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))


def make(way: str, shape: tuple[int, ...], roi: tuple[int, ...]) -> Run:
    torch.manual_seed(0)
    return partial(WAYS[way], scan(shape), torch.nn.Conv3d(1, LANDMARKS, 1), roi)


class Stopwatch:
    """A network that adds up the seconds spent in it."""

    def __init__(self, network: Network) -> None:
        self.network, self.seconds = network, 0.0

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        start = time.perf_counter()
        heatmaps = self.network(windows)
        self.seconds += time.perf_counter() - start
        return heatmaps


def make_real(channels: int, shape: tuple[int, ...], roi: tuple[int, ...]) -> Run:
    torch.manual_seed(0)
    return partial(streaming, scan(shape), SpatialConfigurationNet(3, 1, LANDMARKS, channels).eval(), roi)


def overhead(channels: int, shape: tuple[int, ...], roi: tuple[int, ...]) -> Mapping[str, float]:
    """Time outside the network as a share of that in it, in one call after one that is not counted."""
    run = make_real(channels, shape, roi)
    assert isinstance(run, partial)
    image, network, _ = run.args
    run.func(image[..., : roi[-1]], network, roi)
    watch = Stopwatch(network)
    start = time.perf_counter()
    run.func(image, watch, roi)
    return {"over network": (time.perf_counter() - start - watch.seconds) / watch.seconds}


def _lengths(lengths: tuple[int, ...], section: tuple[int, ...], thickness: int, limit: float | None) -> list[Case]:
    rows = []
    for length in lengths:
        shape = (*section, length)
        label = f"{LANDMARKS} at {'x'.join(map(str, shape))}"
        for way in WAYS:
            rows.append(
                Case(
                    f"{label}, {way}",
                    partial(make, way, shape, (*section, thickness)),
                    group=label,
                    role="monai" if way.startswith("MONAI") else "ours",
                    size_bytes=FLOAT_BYTES * LANDMARKS * prod(shape),
                    heavy=limit is not None,
                    limits={"memory_bytes": limit} if limit and way == "streaming" else {},
                )
            )
    return rows


def _real(channels: int, shape: tuple[int, ...], roi: tuple[int, ...], limits: Mapping[str, float]) -> Case:
    name = f"SCN, {channels} channels, {'x'.join(map(str, shape))}, streaming"
    size = (channels, shape, roi)
    return Case(
        name, partial(make_real, *size), name, memory=False, heavy=True, checks=partial(overhead, *size), limits=limits
    )


def cases(quick: bool = False, full: bool = False) -> list[Case]:
    """List the rows; ``full`` adds the published network."""
    if quick:
        return [*_lengths((40,), (16, 16), 16, None), _real(2, (16, 16, 32), (16, 16, 16), {})]
    shape, roi, limits = (*SECTION, THICKNESS * 3 // 2), (*SECTION, THICKNESS), {"over network": 0.05}
    rows = [*_lengths((200, 400, 800, 1600), SECTION, THICKNESS, 1.3e9), _real(32, shape, roi, limits)]
    return [*rows, _real(64, shape, roi, limits)] if full else rows
