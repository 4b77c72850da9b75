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
"""From a file's numbers to `Landmarks`: what the numbers mean, dimension, missing values, names, order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_landmarks.geometry import LandmarkError

from ..landmarks import WITH_POSITION, Landmarks, did_you_mean, quoted
from .common import MILLIMETRES, FileLandmarks, Frame, ReadRequest, choose_space

ORDERS = ("xy", "ij")


@dataclass(frozen=True)
class Meaning:
    """What the caller said about the numbers in a file."""

    space: str | None = None
    affine: Any = None
    pixel_size: float | Sequence[float] | None = None
    origin: float | None = None
    order: str = "xy"
    units: str = "mm"

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise LandmarkError(
                f"order={self.order!r}; possible are 'xy' (as the tensor's axes) and 'ij' (row, column)."
            )
        if self.units not in MILLIMETRES:
            raise LandmarkError(
                f"units={self.units!r}{did_you_mean(self.units, MILLIMETRES)}; possible are {quoted(MILLIMETRES)}."
            )
        if self.affine is not None and self.pixel_size is not None:
            raise LandmarkError("give affine or pixel_size, not both: each says how long a pixel is.")

    def frame(self, stated: str, pixel_size: float | None, origin: float) -> Frame:
        """Combine the caller's words with those of the file or its format."""
        space = choose_space(self.space, stated, self.pixel_size)
        if space not in ("voxel", "voxel_mm") and self.pixel_size is not None:
            raise LandmarkError(
                f"pixel_size={self.pixel_size!r} is for pixels, but the file's coordinates are {space} millimetres; "
                "leave it out, or say space='voxel' if the file is wrong."
            )
        if space != "voxel" and self.origin not in (None, 0):
            raise LandmarkError(
                f"origin={self.origin!r} is for voxel indices, but the coordinates are {space} millimetres."
            )
        if space == "voxel" and self.units != "mm":
            raise LandmarkError(f"units={self.units!r} is for lengths, but the coordinates are voxel indices.")
        # A format with its own pixel size counts pixels of its own film, which the image at hand may be a reduction of.
        own = pixel_size is not None and self.pixel_size is None and self.space is None
        return Frame(
            space=space,
            affine=None if own else self.affine,
            pixel_size=pixel_size if own or (self.affine is None and self.pixel_size is None) else self.pixel_size,
            origin=origin if self.origin is None else float(self.origin),
            reverse=self.order == "ij",
            units=self.units,
        )


def assemble(
    found: FileLandmarks,
    request: ReadRequest,
    meaning: Meaning,
    missing_value: float | None,
    allow_missing: bool,
    allow_extra: bool,
) -> Landmarks:
    """Turn a file's numbers into Landmarks: missing values, dimension, world, names, order."""
    raw = np.array(found.points, dtype=np.float64)
    if missing_value is not None:
        raw[(raw == missing_value).all(axis=1)] = np.nan
    stated = [str(word).casefold() if word else None for word in found.status or [None] * len(raw)]
    raw[[word in ("missing", "undefined") for word in stated]] = np.nan
    names = _names(found, request, len(raw))
    _check_image(found, request)
    raw = _fit_dimension(raw, names, request.spatial_dims)
    frame = meaning.frame(found.space, found.pixel_size, found.origin)
    status = [_agreeing_status(word, has) for word, has in zip(stated, _there(raw), strict=True)]
    partial = Landmarks(raw, names, None)  # a half-missing point is reported with the file's own numbers
    marks = Landmarks(frame.to_world(partial.points), names, status, found.confidence)
    if request.names is None or found.names is None:
        return marks
    try:
        return marks.reorder(
            request.names,
            missing="nan" if allow_missing else "raise",
            extra="drop" if allow_extra else "raise",
        )
    except LandmarkError as error:
        hint = ""
        if found.descriptions and set(request.names) & set(found.descriptions):
            hint = " The file has such names in its descriptions: try names_from='description'."
        raise LandmarkError(f"{error}{hint}") from error


def _names(found: FileLandmarks, request: ReadRequest, count: int) -> Sequence[str]:
    if found.names is not None:
        return [name or f"point_{place}" for place, name in enumerate(found.names, start=1)]
    if request.names is None:
        return [f"point_{place}" for place in range(1, count + 1)]
    if len(request.names) != count:
        raise LandmarkError(
            f"{count} points for {len(request.names)} names: the file has no names of its own, so the counts must "
            f"agree. The names are {quoted(request.names)}."
        )
    return request.names


def _check_image(found: FileLandmarks, request: ReadRequest) -> None:
    if found.spatial_shape and request.spatial_shape and tuple(found.spatial_shape) != request.spatial_shape:
        raise LandmarkError(
            f"the file's points belong to an image of {found.spatial_shape} pixels (width, height), the image given "
            f"has {request.spatial_shape}: read them with the affine of the image they were placed on."
        )


def _fit_dimension(points: np.ndarray, names: Sequence[str], spatial_dims: int | None) -> np.ndarray:
    dims = points.shape[1]
    if spatial_dims is None or spatial_dims == dims:
        return points
    if spatial_dims == 3:
        raise LandmarkError("the file holds 2D points, 3D ones are asked for (spatial_dims=3): is it the right file?")
    off = [name for name, z in zip(names, points[:, 2], strict=True) if abs(z) > 1e-6]
    if off:
        raise LandmarkError(
            f"2D points are asked for (spatial_dims=2), but the third coordinate of {quoted(off, 5)} is not 0: these "
            "are points of a volume."
        )
    return points[:, :2]


def _there(points: np.ndarray) -> list[bool]:
    """Tell which rows have a position."""
    return [bool(there) for there in ~np.isnan(points).any(axis=1)]


def _agreeing_status(word: str | None, there: bool) -> str:
    if word is None or (word in WITH_POSITION and not there):
        return "defined" if there else "missing"
    return word
