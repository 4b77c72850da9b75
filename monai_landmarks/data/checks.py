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
"""Landmarks against the image that they are said to belong to: what does not fit, why, and what would repair it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from monai_landmarks.geometry import LandmarkError, affine_nd, apply_affine, inside, invert_affine, present, voxel_sizes

from .landmarks import Landmarks, quoted

__all__ = ["check_landmarks"]

_FACTORS = (0.5, 2.0, 0.1, 10.0, 0.001, 1000.0)
# Any points fit into an image once they are shrunk into its corner: another scale must spread them at least so far.
_LEAST_EXTENT = 0.3


def check_landmarks(landmarks: Landmarks, affine: Any, spatial_shape: Sequence[int]) -> list[str]:
    """Find out whether landmarks can belong to an image, and if not, which usual mistake explains them.

    Tried in turn: voxels counted from 1; left/right and front/back signs exchanged (LPS taken for RAS); coordinates in
    reversed or another order; voxel indices taken for millimetres, or the reverse; millimetres from the image's corner
    taken for world millimetres; another image size or another unit. An explanation is given when it leaves at most a
    tenth of the misfits. Landmarks that stand on the same spot are reported too: files often write a missing one as 0.

    A mistake that leaves all points inside cannot be seen; look at the points on the image once.

    Args:
        landmarks: in world millimetres, as read.
        affine: index-to-world matrix of the image, 3x3 or 4x4.
        spatial_shape: size of the image, D numbers.

    Returns:
        sentences for a person, the most likely explanation first; empty where nothing is wrong.

    Example:
        >>> import torch
        >>> film = Landmarks([[5.0, 180.0], [40.0, 60.0]], ["menton", "sella"])
        >>> for line in check_landmarks(film, torch.eye(3), (200, 100)):
        ...     print(line)
        1 of 2 landmarks lie outside the image of shape (200, 100), none after exchanging the coordinates: your points
        look like (row, column), (x, y) is expected; read the file with order='ij', or without it if you gave it.
    """
    shape = tuple(int(size) for size in spatial_shape)
    if len(shape) != landmarks.spatial_dims:
        raise LandmarkError(
            f"{landmarks.spatial_dims}D landmarks and an image of shape {shape}: give the spatial shape alone, without "
            "batch and channel, and the points of this image."
        )
    matrix = affine_nd(affine, landmarks.spatial_dims)
    world = landmarks.to_tensor()
    findings = _outside(world[present(world)], matrix, shape)
    return findings + _same_spot(landmarks)


def _outside(world: torch.Tensor, matrix: torch.Tensor, shape: tuple[int, ...]) -> list[str]:
    if world.shape[0] == 0:
        return []
    index = apply_affine(world, invert_affine(matrix))
    outside = int((~inside(index, shape)).sum())
    if outside == 0:
        return []
    verdict = f"{outside} of {len(index)} landmarks lie outside the image of shape {shape}"
    for repairs in (_repairs(world, index, matrix, shape), _scales(index, shape)):
        found: list[tuple[int, str]] = []
        for text, candidate in repairs:
            left = int((~inside(candidate, shape)).sum())
            if left <= 0.1 * outside:
                found.append((left, f"{verdict}, {left or 'none'} after {text}"))
        if found:
            return [text for _, text in sorted(found, key=lambda item: item[0])]
    low, high = ([round(v, 2) for v in bound(dim=0).tolist()] for bound in (index.amin, index.amax))
    return [
        f"{verdict}, and no usual mistake explains it: as voxel indices they range from {low} to {high}. Is it the "
        "right image, and is its affine (spacing, origin, direction) right?"
    ]


def _repairs(
    world: torch.Tensor, index: torch.Tensor, matrix: torch.Tensor, shape: tuple[int, ...]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield what to say about each usual mistake, and the voxel indices without it; the likelier first."""
    inverse = invert_affine(matrix)
    size = torch.tensor(shape, dtype=index.dtype)
    whole = bool(((index - index.round()).abs() < 1e-4).all())
    if whole and bool((index > 0.5).all()) and bool((index < size + 0.5).all()):
        yield "subtracting 1: the file counts voxels from 1, here they count from 0; read it with origin=1.", index - 1
    dims = len(shape)
    signs = torch.ones(dims, dtype=index.dtype)
    signs[:2] = -1
    turned = apply_affine(world * signs, inverse)
    if dims == 3:
        yield (
            "negating the first two world coordinates: LPS points were taken for RAS or the reverse; read the file "
            "with space='LPS' (or 'RAS' if you gave 'LPS').",
            turned,
        )
    yield from _other_orders(index, dims)
    for text, candidate in (
        (
            "taking the numbers as voxel indices: they were taken for millimetres; read the file with space='voxel' "
            "and the image's affine.",
            world,
        ),
        (
            "taking the numbers as millimetres: they were taken for voxel indices; read the file with space='RAS' (or "
            "'LPS').",
            apply_affine(index, inverse),
        ),
        (
            "counting millimetres from the image's first voxel: they were taken for world millimetres; read the file "
            "with space='voxel_mm' and the image's affine.",
            world / voxel_sizes(matrix),
        ),
    ):
        if _extent(candidate, shape) >= _LEAST_EXTENT:
            yield text, candidate
    if dims == 2:
        yield "negating both coordinates: the film's plane was taken for RAS; read the file with space='RAS'.", turned


def _scales(index: torch.Tensor, shape: tuple[int, ...]) -> Iterator[tuple[str, torch.Tensor]]:
    for factor in _FACTORS:
        if _extent(index * factor, shape) >= _LEAST_EXTENT:
            yield (
                f"multiplying the voxel indices by {factor:g}: the points belong to an image of another size, or to "
                "other units; read them with that image's affine, or with units=.",
                index * factor,
            )


def _extent(index: torch.Tensor, shape: tuple[int, ...]) -> float:
    """Largest part of the image's size, over the axes, that the points span."""
    return float(((index.amax(dim=0) - index.amin(dim=0)) / torch.tensor(shape, dtype=index.dtype)).max())


def _other_orders(index: torch.Tensor, dims: int) -> Iterator[tuple[str, torch.Tensor]]:
    if dims == 2:
        yield (
            "exchanging the coordinates: your points look like (row, column), (x, y) is expected; read the file with "
            "order='ij', or without it if you gave it.",
            index.flip(-1),
        )
        return
    yield (
        "reversing the coordinates: your points look like (z, y, x), the order of the tensor's axes is expected; read "
        "the file with order='ij', or without it if you gave it.",
        index.flip(-1),
    )
    for order in itertools.permutations(range(dims)):
        if order not in ((0, 1, 2), (2, 1, 0)):
            yield (
                f"putting the axes in the order {order}: the points follow another array's axes than the image's.",
                index[:, list(order)],
            )


def _same_spot(landmarks: Landmarks) -> list[str]:
    spots: dict[tuple[float, ...], list[str]] = {}
    for name, point, there in zip(landmarks.names, landmarks.points.tolist(), landmarks.present.tolist(), strict=True):
        if there:
            spots.setdefault(tuple(point), []).append(name)
    return [
        f"{len(names)} landmarks stand on the same spot {spot}: {quoted(names, 6)}. If it stands for missing, read "
        "the file with missing_value=<the number in the file>."
        for spot, names in spots.items()
        if len(names) > 1
    ]
