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
"""What all flips share: the axis, the exchange of rows, and what becomes of the points."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor, get_track_meta
from monai.utils import look_up_option

from ..data.row_exchange import Pairs, RowExchange
from ..geometry import LandmarkError, affine_nd
from .spatial import POINT_SPACES, as_points

__all__ = [
    "FlipRule",
    "check_rows",
    "checked_probability",
    "exchange_rows",
    "image_size",
    "left_right_axis",
    "mirror_points",
]

_logger = logging.getLogger(__name__)
_LEFT_RIGHT = "left-right"
#: The axis nearest to left-right must be this many times nearer (by cosine) than the second: up to 38 degrees oblique.
_CLEARLY = 1.25


def exchange_rows(values: Any, permutation: torch.Tensor) -> Any:
    """Give what belongs to N landmarks, one row each, in the order after a flip.

    Args:
        values: tensor (MetaTensor keeps its meta data) or array ``(N, ...)``, list or tuple of N.
        permutation: LongTensor ``(N,)`` of :func:`monai_landmarks.data.sides.flip_permutation`.

    Example:
        >>> exchange_rows(["left", "middle", "right"], torch.tensor([2, 1, 0]))
        ['right', 'middle', 'left']
    """
    if isinstance(values, torch.Tensor):
        return values[permutation.to(values.device)]
    if isinstance(values, (list, tuple)):
        return type(values)([values[i] for i in permutation.tolist()])
    return np.asarray(values)[permutation.numpy()]


def mirror_points(points: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    """Mirror voxel indices along one axis of the image: ``p -> size - 1 - p``; NaN stays NaN.

    Args:
        points: ``(..., N, D)`` voxel indices.
        axis: of the D.
        size: of the image along it.

    Example:
        >>> mirror_points(torch.tensor([[0.0, 5.0]]), 0, 8)
        tensor([[7., 5.]])
    """
    mirrored = points.clone()
    mirrored[..., axis] = size - 1 - mirrored[..., axis]
    return mirrored


def left_right_axis(image: Any) -> int:
    """Name the axis of a volume that lies nearest to the patient's left-right.

    Args:
        image: a channel-first MetaTensor ``(C, *S)`` in 3D; what waits on it lazily is taken into account.

    Returns:
        0, 1 or 2.

    Raises:
        LandmarkError: for an image without affine, a 2D one, or one so oblique (more than about 38 degrees) that two
            axes have as good a claim.

    Example:
        >>> left_right_axis(MetaTensor(torch.zeros(1, 4, 4, 4), affine=torch.eye(4)[[1, 0, 2, 3]]))
        1
    """
    if not isinstance(image, MetaTensor):
        raise LandmarkError(
            f"spatial_axis={_LEFT_RIGHT!r} needs an image with its affine (a MetaTensor), got {type(image).__name__}: "
            "give the number of the axis."
        )
    dims = len(image.peek_pending_shape())
    if dims != 3:
        raise LandmarkError(
            f"spatial_axis={_LEFT_RIGHT!r} is for volumes: the affine of a {dims}D image leads to the film plane and says "
            "nothing about the patient. Give the number of the axis; films load as (x, y), so 0 is from left to right."
        )
    columns = affine_nd(image.peek_pending_affine(), 3)[:3, :3]
    share = (columns[0].abs() / torch.linalg.vector_norm(columns, dim=0)).tolist()
    best, second = sorted(range(3), key=lambda axis: -share[axis])[:2]
    if share[best] < _CLEARLY * share[second]:
        angles = [round(float(np.degrees(np.arccos(min(value, 1.0))))) for value in share]
        raise LandmarkError(
            f"no axis of the image clearly lies left to right: they are {angles[0]}, {angles[1]} and {angles[2]} degrees "
            "away from it. Give the number of the axis, or bring the image to an upright grid first."
        )
    return best


def _checked_axis(spatial_axis: Any) -> int | str:
    if isinstance(spatial_axis, str):
        return str(look_up_option(spatial_axis, (_LEFT_RIGHT,)))
    if isinstance(spatial_axis, bool) or not hasattr(spatial_axis, "__index__"):
        raise LandmarkError(
            f"spatial_axis must be one axis, counted from 0, or {_LEFT_RIGHT!r}, got {spatial_axis!r}. Flips along two "
            "axes are a half turn and exchange nothing: use monai.transforms.Flipd for that."
        )
    return int(spatial_axis)


def image_size(image: Any) -> tuple[int, ...]:
    """Spatial size after everything that waits on the image."""
    return tuple(int(s) for s in (image.peek_pending_shape() if isinstance(image, MetaTensor) else image.shape[1:]))


class FlipRule:
    """What all flips here share: the axis, the exchange of rows, and the space of the points."""

    def __init__(self, names: Sequence[str] | None, pairs: Pairs, spatial_axis: Any, point_space: str) -> None:
        self.exchange = RowExchange(names, pairs)
        self.spatial_axis = _checked_axis(spatial_axis)
        self.point_space = str(look_up_option(point_space, POINT_SPACES))
        if isinstance(pairs, str):
            _logger.info("a flip exchanges these rows, as the names say:\n%s", self.exchange)

    def axis_of(self, image: Any) -> int:
        """Axis along which an image is flipped."""
        if isinstance(self.spatial_axis, str):
            return left_right_axis(image)
        dims = len(image_size(image))
        if not -dims <= self.spatial_axis < dims:
            raise LandmarkError(f"spatial_axis={self.spatial_axis} for a {dims}D image of size {image_size(image)}.")
        return self.spatial_axis % dims

    def checked_points(self, points: Any, image: Any, name: str) -> torch.Tensor:
        """Points of one item as a plain tensor that fits the names and the image."""
        plain = as_points(points, name)
        if plain.ndim != 2:
            raise LandmarkError(
                f"`{name}` must be the landmarks of one image, (N, D), got {tuple(plain.shape)}: flip items, not batches."
            )
        dims = None if image is None else len(image_size(image))
        if dims not in (None, plain.shape[1]):
            raise LandmarkError(
                f"`{name}` has {plain.shape[1]} coordinates and the image {dims} axes (channel-first (C, *S), here "
                f"{tuple(image.shape)}): is it the right point file, and has the image its channel?"
            )
        if self.point_space == "world" and not get_track_meta():
            raise LandmarkError(
                "point_space='world' relies on the image's affine, and set_track_meta(False) keeps no affines: use "
                "voxel points with point_space='voxel'."
            )
        self.exchange.permutation(len(plain))  # raises
        return plain

    def points(self, points: torch.Tensor, axis: int, size: int) -> torch.Tensor:
        """Points after the flip: world points stay where they are, because the image's affine follows the flip."""
        moved = mirror_points(points, axis, size) if self.point_space == "voxel" else points
        return self.rows(moved)

    def rows(self, values: Any) -> Any:
        """Rows exchanged."""
        return exchange_rows(values, self.exchange.permutation(len(values)))

    def __str__(self) -> str:
        return f"spatial_axis={self.spatial_axis!r}, point_space={self.point_space!r},\n{self.exchange}"


def check_rows(values: Any, number: int, name: Hashable) -> None:
    """Raise a LandmarkError unless ``values`` has ``number`` rows."""
    if not hasattr(values, "__len__") or isinstance(values, (str, bytes)) or len(values) != number:
        got = tuple(values.shape) if hasattr(values, "shape") else repr(values)[:60]
        raise LandmarkError(f"`{name}` must have one row for each of {number} landmarks, got {got}.")


def checked_probability(prob: float) -> float:
    """Return ``prob``, or raise a LandmarkError unless it is from 0 to 1."""
    if not 0 <= prob <= 1:
        raise LandmarkError(f"`prob` must be from 0 to 1, got {prob}.")
    return float(prob)
