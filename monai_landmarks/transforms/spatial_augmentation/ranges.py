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
"""The ranges of a spatial augmentation, checked once, and the drawing of maps from them, one or a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...geometry import LandmarkError, SpatialMap, largest_safe_displacement
from .parameters import compose_map, number_of_rotations, number_of_shears, output_grid

__all__ = ["DrawnMaps", "SpatialRanges"]

#: How often a deformation that folds is drawn again.
MOST_DRAWS = 50
SMALLEST_SCALE = 0.95
RANGES = (
    "rotate_range",
    "scale_range",
    "axis_scale_range",
    "shear_range",
    "translate_range",
    "translate_range_mm",
    "elastic_range",
    "elastic_range_mm",
)

Range = float | Sequence[Any]


@dataclass(frozen=True)
class DrawnMaps:
    """A batch of drawn maps.

    Attributes:
        maps: from output to input voxels.
        mirrored: ``(B,)`` bool: an odd number of axes was reflected, left and right have changed places.
        pixdim: ``(B, D)`` voxel sizes of the output grid in mm.
        deformed: ``(B,)`` bool: the map has a displacement that is not zero.
    """

    maps: SpatialMap
    mirrored: torch.Tensor
    pixdim: torch.Tensor
    deformed: torch.Tensor


def bounds(value: Range, count: int, name: str) -> np.ndarray:
    """Read a range as MONAI does: ``x`` is (-x, x) for every axis; a sequence has one ``x`` or ``(low, high)`` per axis.

    For a quantity that there is one of, ``(low, high)`` are its bounds.

    Returns:
        ``(count, 2)``.

    Raises:
        LandmarkError: for anything else, naming it.
    """
    if isinstance(value, (int, float)):
        items: list[Any] = [value] * count
    else:
        items = list(value)
        if count == 1 and len(items) == 2 and all(isinstance(v, (int, float)) for v in items):
            items = [tuple(items)]
    if len(items) != count:
        raise LandmarkError(
            f"`{name}` must be one number or {count} (a number or a pair (low, high) for each), got {value!r}."
        )
    pairs = np.array([(-abs(v), abs(v)) if isinstance(v, (int, float)) else tuple(v) for v in items], dtype=np.float64)
    if pairs.shape != (count, 2) or not np.isfinite(pairs).all() or (pairs[:, 0] > pairs[:, 1]).any():
        raise LandmarkError(f"`{name}` must hold finite numbers or pairs (low, high) with low <= high, got {value!r}.")
    return pairs


@dataclass
class SpatialRanges:
    """Ranges from which maps are drawn uniformly; the arguments are those of :class:`RandSpatialLandmarks`.

    Raises:
        LandmarkError: for a range that cannot be meant: one that is no range, a scale that reaches 0, both units of one
            quantity, an elastic range that folds every image (with the largest safe value).
    """

    spatial_size: Sequence[int] | int | None = None
    pixdim: Sequence[float] | float | str | None = None
    prob: float = 1.0
    rotate_range: Range = 0.0
    scale_range: Range = 0.0
    axis_scale_range: Range = 0.0
    shear_range: Range = 0.0
    translate_range: Range = 0.0
    translate_range_mm: Range = 0.0
    flip_prob: float | Sequence[float] = 0.0
    elastic_range: Range = 0.0
    elastic_range_mm: Range = 0.0
    elastic_nodes: int | Sequence[int] = 5
    random_crop: bool | Sequence[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.prob <= 1:
            raise LandmarkError(f"`prob` must lie in [0, 1], got {self.prob}.")
        for name in ("translate_range", "elastic_range"):
            if np.any(getattr(self, name)) and np.any(getattr(self, f"{name}_mm")):
                raise LandmarkError(f"give `{name}` (voxels of the output) or `{name}_mm`, not both.")
        for name in RANGES:
            value = getattr(self, name)
            count = 1 if name == "scale_range" or isinstance(value, (int, float)) else len(value)
            lowest = bounds(value, count, name)[:, 0].min()
            if name.endswith("scale_range") and lowest < -SMALLEST_SCALE:
                raise LandmarkError(
                    f"`{name}` = {value!r} is added to 1: at -1 the image shrinks to nothing, below it folds over. The "
                    f"largest value is {SMALLEST_SCALE}."
                )
        if self.elastic and isinstance(self.spatial_size, Sequence) and min(self.spatial_size) > 0:
            dims = len(self.spatial_size)
            if not np.any(self.elastic_range_mm) or not (self.pixdim is None or isinstance(self.pixdim, str)):
                ones = torch.ones(1, dims, dtype=torch.float64)
                shape, pixdim = output_grid(self.spatial_size, ones, self.spatial_size, self._known_pixdim())
                self._displacement(np.random.RandomState(0), shape, pixdim, ones.bool())

    def _known_pixdim(self) -> Any:
        return None if isinstance(self.pixdim, str) else self.pixdim

    @property
    def elastic(self) -> bool:
        """Whether a drawn map can be elastic."""
        return bool(np.any(self.elastic_range) or np.any(self.elastic_range_mm))

    def draw(
        self, random: np.random.RandomState, batch: int, input_shape: Sequence[int], voxel_sizes: torch.Tensor
    ) -> DrawnMaps:
        """Draw maps for a batch of images of one shape.

        Args:
            random: state from which is drawn.
            batch: ``B``.
            input_shape: ``D`` sizes of the images.
            voxel_sizes: ``(B, D)`` in mm.

        Raises:
            LandmarkError: if ranges do not fit the image's dimension, or every draw of the deformation folds.
        """
        dims = len(tuple(input_shape))
        voxel_sizes = voxel_sizes.detach().cpu().double()
        shape, pixdim = output_grid(input_shape, voxel_sizes, self.spatial_size, self.pixdim)
        done = torch.as_tensor(random.uniform(size=(batch, 1)) < self.prob)

        def uniform(value: Range, count: int, name: str) -> torch.Tensor:
            low, high = bounds(value, count, name).T
            return torch.as_tensor(random.uniform(low, high, size=(batch, count))) * done

        rotate = uniform(self.rotate_range, number_of_rotations(dims), "rotate_range")
        scale = 1 + uniform(self.scale_range, 1, "scale_range")
        scale = scale * (1 + uniform(self.axis_scale_range, dims, "axis_scale_range"))
        shear = uniform(self.shear_range, number_of_shears(dims), "shear_range")
        shift = uniform(self.translate_range, dims, "translate_range") * pixdim
        shift = shift + uniform(self.translate_range_mm, dims, "translate_range_mm")
        room = torch.as_tensor(tuple(input_shape)) * voxel_sizes - torch.as_tensor(shape) * pixdim
        wanted = np.broadcast_to(np.asarray(self.random_crop, dtype=float), (dims,))
        shift = shift + uniform([float(w) for w in wanted], dims, "random_crop") * room.clamp(min=0) / 2
        chance = np.broadcast_to(np.asarray(self.flip_prob, dtype=float), (dims,))
        flip = torch.as_tensor(random.uniform(size=(batch, dims)) < chance) & done
        displacement = None
        if self.elastic and bool(done.any()):
            displacement = self._displacement(random, shape, pixdim, done)
        maps = compose_map(input_shape, voxel_sizes, shape, pixdim, rotate, scale, shear, shift, flip, displacement)
        deformed = done[:, 0] & (displacement is not None)
        return DrawnMaps(maps, flip.sum(dim=1) % 2 == 1, pixdim, deformed)

    def _displacement(
        self, random: np.random.RandomState, shape: tuple[int, ...], pixdim: torch.Tensor, done: torch.Tensor
    ) -> torch.Tensor:
        """Draw ``(B, *nodes, D)`` in output voxels; what folds is drawn again."""
        dims, batch = len(shape), len(pixdim)
        nodes = tuple(int(n) for n in np.broadcast_to(np.asarray(self.elastic_nodes), (dims,)))
        in_mm = bool(np.any(self.elastic_range_mm))
        name = "elastic_range_mm" if in_mm else "elastic_range"
        low, high = bounds(getattr(self, name), dims, name).T
        unit = 1 / pixdim if in_mm else torch.ones_like(pixdim)
        unit = unit.reshape(batch, *(1,) * dims, dims)
        result = torch.zeros(batch, *nodes, dims, dtype=torch.float64)
        waiting = done[:, 0].clone()
        affine = torch.eye(dims + 1, dtype=torch.float64).expand(batch, -1, -1)
        for _ in range(MOST_DRAWS):
            if not bool(waiting.any()):
                return result
            drawn = torch.as_tensor(random.uniform(low, high, size=(batch, *nodes, dims))) * unit
            result = torch.where(waiting.reshape(batch, *(1,) * (dims + 1)), drawn, result)
            waiting = SpatialMap(affine, shape, result).folds()
        safe = np.array(largest_safe_displacement(shape, nodes)) * (pixdim.amin(dim=0).numpy() if in_mm else 1)
        raise LandmarkError(
            f"`{name}` = {getattr(self, name)} folds the image: each of {MOST_DRAWS} draws with {nodes} control points "
            f"on a grid of {shape} voxels did. The largest value that surely never folds is {safe.min():.3g}; fewer "
            "control points allow more."
        )
