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
"""Where a landmark is as seen from an image: in it, beside it, or nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import torch

from .points import LandmarkError, check_points, inside, plain_tensor, present

__all__ = ["FieldOfView", "check_state", "field_of_view", "report_outside"]


class FieldOfView(IntEnum):
    """The three states of a landmark in an image, with the numbers that COCO keypoints have for visibility.

    Attributes:
        MISSING: nobody knows where it is; its coordinates are NaN.
        OUTSIDE: its place is known and not in the image; its coordinates are ordinary numbers.
        INSIDE: its place is known and in the image.
    """

    MISSING = 0
    OUTSIDE = 1
    INSIDE = 2


def field_of_view(points: torch.Tensor, spatial_shape: Sequence[int]) -> torch.Tensor:
    """Tell of each landmark whether it is inside the image, outside, or missing.

    The border belongs to the image: inside is ``-0.5 <= p <= size - 0.5`` on every axis. Half precision points are
    compared in float32, where ``size - 0.5`` exists for every size.

    Args:
        points: voxel indices ``(..., N, D)``, NaN for missing.
        spatial_shape: ``D`` sizes.

    Returns:
        uint8 tensor ``(..., N)`` of :class:`FieldOfView` numbers.

    Raises:
        LandmarkError: for points that are not ``(..., N, D)``, partly missing or infinite.

    Example:
        >>> points = torch.tensor([[float("nan"), float("nan")], [9.0, 2.0], [1.0, 2.0]])
        >>> [FieldOfView(number).name for number in field_of_view(points, (4, 5)).tolist()]
        ['MISSING', 'OUTSIDE', 'INSIDE']
    """
    points = plain_tensor(points)
    check_points(points, len(tuple(spatial_shape)))
    points = points if points.dtype in (torch.float32, torch.float64) else points.float()
    return present(points).to(torch.uint8) + inside(points, spatial_shape).to(torch.uint8)


def check_state(state: Any, points: torch.Tensor) -> torch.Tensor:
    """Give the states of landmarks as a tensor, refusing those that cannot belong to ``points``.

    Args:
        state: ``(..., N)`` of :class:`FieldOfView` numbers: a tensor, an array, or a list of such.
        points: ``(..., N, D)``, NaN for missing.

    Returns:
        uint8 tensor ``(..., N)`` on the device of ``points``.

    Raises:
        LandmarkError: for another shape, a mask or other numbers in place of the three states, or a landmark that is
            missing in one of the two only.

    Example:
        >>> check_state([FieldOfView.OUTSIDE, FieldOfView.INSIDE], torch.tensor([[9.0, 2.0], [1.0, 2.0]]))
        tensor([1, 2], dtype=torch.uint8)
    """
    try:
        several = isinstance(state, (list, tuple))
        numbers = torch.stack([torch.as_tensor(s) for s in state]) if several else torch.as_tensor(state)
    except (RuntimeError, TypeError, ValueError) as error:
        raise LandmarkError(f"`state` must be one number per landmark, got {type(state).__name__}: {error}") from error
    numbers = plain_tensor(numbers).to(points.device)
    there = present(points)
    if numbers.shape != there.shape:
        raise LandmarkError(
            f"`state` must be one number per landmark, shape {tuple(there.shape)}, got shape {tuple(numbers.shape)}."
        )
    known = torch.tensor([int(each) for each in FieldOfView], device=numbers.device)
    if numbers.dtype == torch.bool or not bool(torch.isin(numbers, known.to(numbers.dtype)).all()):
        found = "a bool mask" if numbers.dtype == torch.bool else f"{sorted(set(numbers.flatten().tolist()))}"
        raise LandmarkError(
            f"`state` is {found}; 0 (missing), 1 (outside) and 2 (inside) are possible, as field_of_view() and "
            "LandmarkFieldOfViewd give them."
        )
    apart = there != (numbers != FieldOfView.MISSING)
    if bool(apart.any()):
        where = tuple(int(v) for v in apart.nonzero()[0])
        raise LandmarkError(
            f"`state` and points disagree on which landmarks are missing, first at index {where}: were they taken from "
            "different keys, or one of them reordered?"
        )
    return numbers.to(torch.uint8)


def report_outside(points: torch.Tensor, spatial_shape: Sequence[int], name: str = "landmarks") -> str | None:
    """Count the landmarks that lie outside the image, in words for a warning; None where there is none.

    Args:
        points: voxel indices ``(..., N, D)``; missing landmarks are not counted.
        spatial_shape: ``D`` sizes.
        name: what the sentence calls the points, their key.

    Example:
        >>> print(report_outside(torch.tensor([[9.0, 2.0], [1.0, 2.0]]), (4, 5), "points"))
        1 of 2 landmarks under 'points' lie outside the image of shape (4, 5); kept, as outside the field of view.
    """
    state = field_of_view(points, spatial_shape)
    outside = int((state == FieldOfView.OUTSIDE).sum())
    if not outside:
        return None
    shape = tuple(int(size) for size in spatial_shape)
    return (
        f"{outside} of {int((state != FieldOfView.MISSING).sum())} landmarks under {name!r} lie outside the image of "
        f"shape {shape}; kept, as outside the field of view."
    )
