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
"""From heatmaps to points: every method of ``decode_heatmaps`` beside a plain argmax, with its own error."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod

import torch

from monai_landmarks.heatmaps import DecodeMethod, decode_heatmaps, gaussian_heatmaps

from .targets import FLOAT_BYTES, SIGMA, random_points
from .timing import Case, Run

__all__ = ["TITLE", "cases"]

TITLE = (
    f"Decoding of Gaussian maps, sigma {SIGMA:g} (size: the given maps; error: largest distance to the true point in "
    "voxels, 'at border' for points within a voxel of the image border)"
)
ERROR_LIMITS = {"error": 0.01, "at border": 0.01}


def plain_argmax(heatmaps: torch.Tensor) -> torch.Tensor:
    """Flatten, argmax, unravel."""
    shape = heatmaps.shape[2:]
    flat = heatmaps.flatten(2).argmax(dim=-1)
    index: list[torch.Tensor] = []
    for size in reversed(shape):
        index.insert(0, flat % size)
        flat = flat // size
    return torch.stack(index, dim=-1).float()


def ours(method: str, heatmaps: torch.Tensor) -> torch.Tensor:
    return decode_heatmaps(heatmaps, method).points


def make(method: str | None, landmarks: int, shape: tuple[int, ...]) -> Run:
    maps = gaussian_heatmaps(random_points(1, landmarks, shape), shape, SIGMA)
    return partial(plain_argmax, maps) if method is None else partial(ours, method, maps)


def border_points(number: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Draw points of which each is within one voxel of the border along a random axis, and anywhere along others."""
    generator = torch.Generator().manual_seed(1)
    points = random_points(1, number, shape)[0]
    axis = torch.randint(len(shape), (number,), generator=generator)
    depth = torch.rand(number, generator=generator)
    far = torch.rand(number, generator=generator) < 0.5
    place = torch.where(far, torch.tensor(shape)[axis] - 1 - depth, depth)
    return points.scatter(1, axis[:, None], place[:, None])[None]


def errors(method: str | None, dims: int) -> Mapping[str, float]:
    """Largest error of a method on maps that are exact, apart from float32, for points inside and at the border."""
    shape = (48, 56, 52)[:dims]
    reach = round(4 * SIGMA)
    inside = random_points(1, 50, tuple(s - 2 * reach for s in shape)) + reach
    found = {}
    for name, points in {"error": inside, "at border": border_points(50, shape)}.items():
        maps = gaussian_heatmaps(points, shape, SIGMA)
        decoded = plain_argmax(maps) if method is None else ours(method, maps)
        distance = torch.linalg.vector_norm(decoded - points, dim=-1)
        # A point that was not found must not read as a small error.
        found[name] = torch.nan_to_num(distance, nan=float("inf")).max().item()
    return found


def _group(landmarks: int, shape: tuple[int, ...], argmax: float | None, subpixel: float | None) -> list[Case]:
    label = f"{landmarks} at {'x'.join(map(str, shape))}"
    size = FLOAT_BYTES * landmarks * prod(shape)
    rows = []
    for name in [method.value for method in DecodeMethod]:
        limits: dict[str, float] = {}
        if argmax is not None and subpixel is not None:
            limits = {"seconds": argmax} if name == "argmax" else {"seconds": subpixel, **ERROR_LIMITS}
        rows.append(
            Case(
                f"{label}, {name}",
                partial(make, name, landmarks, shape),
                group=label,
                size_bytes=size,
                checks=partial(errors, name, len(shape)),
                limits=limits,
            )
        )
    plain = partial(make, None, landmarks, shape)
    checks = partial(errors, None, len(shape))
    rows.append(Case(f"{label}, plain argmax", plain, label, role="plain", size_bytes=size, checks=checks))
    return rows


def cases(quick: bool = False, full: bool = False) -> list[Case]:
    """List the rows; ``full`` adds nothing here."""
    if quick:
        return [*_group(19, (64, 64), None, None), *_group(4, (24, 24, 32), None, None)]
    return [*_group(19, (512, 512), 0.0004, 0.001), *_group(26, (96, 96, 192), 0.004, 0.005)]
