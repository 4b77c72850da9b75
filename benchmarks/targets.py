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
"""Target heatmaps: exact Gaussians of this package, MONAI's ``GenerateHeatmap`` and the formula written densely."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod

import torch
from monai.transforms import GenerateHeatmap

from monai_landmarks.heatmaps import gaussian_heatmaps
from monai_landmarks.transforms import GenerateLandmarkHeatmap

from .timing import Case, Run

__all__ = ["TITLE", "cases"]

TITLE = "Target heatmaps (size: the maps; error: largest difference to the formula in float64)"
SIGMA = 3.0
FLOAT_BYTES = 4
Maker = Callable[[torch.Tensor, tuple[int, ...]], torch.Tensor]


def random_points(batch: int, landmarks: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Draw points ``(B, N, D)`` that lie anywhere in the image between voxel centres; the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, landmarks, len(shape), generator=generator) * (torch.tensor(shape) - 1)


def squared_distance(points: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Give the squared distance ``(B, N, *S)`` of every voxel to every point."""
    distance = torch.zeros((), dtype=points.dtype)
    for axis, size in enumerate(shape):
        view = [1] * len(shape)
        view[axis] = size
        index = torch.arange(size, dtype=points.dtype).reshape(view)
        centre = points[..., axis].reshape(*points.shape[:-1], *[1] * len(shape))
        distance = distance + (index - centre).square()
    return distance


def dense_gaussians(points: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Write ``exp(-|x - p|^2 / (2 sigma^2))`` as it stands: squared distance of every voxel, then its exponential."""
    return torch.exp(-squared_distance(points, shape) / (2 * SIGMA**2))


def ours(points: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return gaussian_heatmaps(points, shape, SIGMA)


def ours_truncated(points: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return gaussian_heatmaps(points, shape, SIGMA, truncated=4.0)


def our_transform(points: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    # The transform takes one image's points; its grid needs no memory when it is one value expanded.
    return GenerateLandmarkHeatmap(sigma=SIGMA)(points[0], torch.zeros(()).expand(1, *shape))[None]


def monai(points: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    transform = GenerateHeatmap(sigma=SIGMA, spatial_shape=shape)
    maps = [torch.as_tensor(transform(p)) for p in points]  # it takes one image at a time
    return torch.stack(maps) if len(maps) > 1 else maps[0]


def make(maker: Maker, batch: int, landmarks: int, shape: tuple[int, ...]) -> Run:
    return partial(maker, random_points(batch, landmarks, shape), shape)


def error(maker: Maker, shape: tuple[int, ...]) -> Mapping[str, float]:
    points = random_points(1, 4, shape)
    exact = dense_gaussians(points.double(), shape)
    return {"error": (maker(points, shape).reshape(exact.shape) - exact).abs().max().item()}


def _group(batch: int, landmarks: int, shape: tuple[int, ...], limits: Mapping[str, float], part: float) -> list[Case]:
    """Rows for one size; ``part`` is the fraction of the work that MONAI's transform is measured on."""
    label = f"{f'batch {batch} of ' if batch > 1 else ''}{landmarks} at {'x'.join(map(str, shape))}"
    size = FLOAT_BYTES * batch * landmarks * prod(shape)
    small = tuple(min(s, 64) for s in shape)

    def case(name: str, maker: Maker, role: str = "ours", **options: object) -> Case:
        known = {"make": partial(make, maker, batch, landmarks, shape), "checks": partial(error, maker, small)}
        return Case(f"{label}, {name}", group=label, role=role, size_bytes=size, **{**known, **options})  # type: ignore[arg-type]

    rows = [case("gaussian_heatmaps", ours, limits=limits), case("truncated at 4 sigma", ours_truncated)]
    if batch == 1:
        rows.append(case("GenerateLandmarkHeatmap", our_transform))
    few = (max(1, round(batch * part)), landmarks) if batch > 1 else (1, max(1, round(landmarks * part)))
    scale = few[0] * few[1] / (batch * landmarks)
    note = "" if scale == 1 else f" ({f'{few[0]} image' if batch > 1 else f'{few[1]} landmarks'} x {1 / scale:g})"
    less = partial(make, monai, *few, shape)
    # Time grows with the work. So does memory with the landmarks, but not with the images, which are done one by one.
    memory = batch == 1 or scale == 1
    rows.append(case(f"MONAI GenerateHeatmap{note}", monai, "monai", make=less, scale=scale, memory=memory))
    rows.append(case("dense formula", dense_gaussians, "plain"))
    return rows


def cases(quick: bool = False, full: bool = False) -> list[Case]:
    """List the rows. ``full`` measures MONAI on all landmarks of the volume instead of 2 of 26."""
    if quick:
        return [*_group(1, 19, (64, 64), {}, 1.0), *_group(1, 4, (24, 24, 32), {}, 1.0)]
    return [
        *_group(1, 19, (512, 512), {"seconds": 0.006, "memory_ratio": 1.1}, 1.0),
        *_group(8, 19, (512, 512), {"memory_ratio": 1.1}, 1.0 if full else 1 / 8),
        *_group(1, 26, (96, 96, 192), {"seconds": 0.06, "memory_ratio": 1.1}, 1.0 if full else 1 / 13),
    ]
