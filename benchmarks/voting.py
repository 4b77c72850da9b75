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
"""Votes of all landmarks at once, against the loop over landmarks and votes that they replace."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod

import torch

from monai_landmarks.heatmaps.voting import ball_volume, decode_offset_votes, split_voting_maps

from .targets import FLOAT_BYTES, random_points
from .timing import Case, Run

__all__ = ["TITLE", "cases"]

TITLE = (
    "Voting for landmarks, one image (images per second: 1 / time; size: the given maps; error: largest distance to the "
    "true point in voxels, for points with whole discs)"
)


def voting_maps(points: torch.Tensor, shape: tuple[int, ...], radius: float) -> torch.Tensor:
    """Draw what a network that is always right puts out for points (1, N, D), and offsets of 0 where none are asked."""
    grid = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij"))
    way = (points[0].reshape(*points.shape[1:], *[1] * len(shape)) - grid) / radius
    disc = way.square().sum(dim=1) < 1
    offsets = torch.where(disc.unsqueeze(1), way, 0).transpose(0, 1)
    return torch.cat([torch.where(disc, 9.0, -9.0), offsets.flatten(0, 1)])[None]


def plain_votes(maps: torch.Tensor, radius: float) -> torch.Tensor:
    """Count whole votes one after the other, landmark by landmark, and take the first highest count."""
    logits, offsets = split_voting_maps(maps)
    shape = tuple(logits.shape[2:])
    points = torch.zeros(1, logits.shape[1], len(shape))
    for landmark, logit in enumerate(logits[0]):
        chosen = logit.flatten().topk(round(ball_volume(radius, len(shape)))).indices
        voxels = torch.stack(torch.unravel_index(chosen, shape), dim=-1)
        steps = offsets[0, :, landmark].flatten(1)[:, chosen].T * radius
        count = torch.zeros(shape)
        for voxel, step in zip(voxels.tolist(), steps.tolist(), strict=True):
            place = tuple(int(x + s) for x, s in zip(voxel, step, strict=True))
            if all(0 <= x < size for x, size in zip(place, shape, strict=True)):
                count[place] += 1
        points[0, landmark] = torch.stack(torch.unravel_index(count.argmax(), shape)).float()
    return points


def ours(maps: torch.Tensor, radius: float) -> torch.Tensor:
    return decode_offset_votes(maps, radius).points


def make(plain: bool, landmarks: int, shape: tuple[int, ...], radius: float) -> Run:
    maps = voting_maps(random_points(1, landmarks, shape), shape, radius)
    return partial(plain_votes if plain else ours, maps, radius)


def errors(plain: bool, landmarks: int, shape: tuple[int, ...], radius: float) -> Mapping[str, float]:
    reach = round(radius) + 1
    points = random_points(1, landmarks, tuple(s - 2 * reach for s in shape)) + reach
    found = (plain_votes if plain else ours)(voting_maps(points, shape, radius), radius)
    distance = torch.linalg.vector_norm(found - points, dim=-1)
    return {"error": torch.nan_to_num(distance, nan=float("inf")).max().item()}


def _group(landmarks: int, shape: tuple[int, ...], radius: float, seconds: float | None) -> list[Case]:
    group = f"{landmarks} at {'x'.join(map(str, shape))}, radius {radius:g}"
    size = FLOAT_BYTES * (1 + len(shape)) * landmarks * prod(shape)
    limits = {} if seconds is None else {"seconds": seconds, "error": 0.03}
    given = (landmarks, shape, radius)
    return [
        Case(f"{group}, all at once", partial(make, False, *given), group, size_bytes=size, limits=limits,
             checks=partial(errors, False, *given)),
        Case(f"{group}, loop", partial(make, True, *given), group, role="plain", size_bytes=size,
             checks=partial(errors, True, *given)),
    ]  # fmt: skip


def cases(quick: bool = False, full: bool = False) -> list[Case]:
    """List the rows; ``full`` adds nothing here."""
    if quick:
        return [*_group(3, (48, 40), 5.0, None), *_group(2, (20, 24, 18), 3.0, None)]
    return [*_group(19, (384, 384), 19.2, 0.4), *_group(10, (64, 64, 64), 4.0, 0.4)]
