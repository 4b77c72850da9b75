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
"""``.lml``, the vertebra centroids of the MICCAI CSI 2014 spine data (SpineWeb data set 3).

Lines of ``id``, ``name``, ``x``, ``y``, ``z`` separated by tabs; lines that start with ``#`` are comments. The
coordinates are millimetres along the image's axes from its first voxel: voxel index times voxel size, without the
image's origin and direction. So the image's affine is needed to find the place in the world.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from monai_landmarks.geometry import LandmarkError

from .common import FileLandmarks, ReadRequest, WriteRequest, is_number, parse_number, read_text

_FIELDS = 5


def read(request: ReadRequest, *, rename: Callable[[str], str] | None = None) -> FileLandmarks:
    """Read the list; a first line whose coordinates are not numbers is a heading.

    Args:
        request: the file, with the affine of its image.
        rename: gives the name that stands for one of the file's, such as ``"L3"`` for ``"L3_center"``.
    """
    lines: dict[str, int] = {}
    points: list[list[float]] = []
    for number, line in enumerate(read_text(request.path).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = _cells(line)
        if len(cells) != _FIELDS:
            raise LandmarkError(f"line {number} is {line!r}; id, name, x, y, z separated by tabs are expected.")
        if not points and not any(is_number(cell) for cell in cells[2:]):
            continue
        name = cells[1].strip() if rename is None else rename(cells[1])
        if name in lines:
            raise LandmarkError(
                f"lines {lines[name]} and {number} both give {name!r}, and a spine has one: correct one of them."
            )
        lines[name] = number
        points.append(
            [parse_number(cell, f"line {number}, {axis}") for cell, axis in zip(cells[2:], "xyz", strict=True)]
        )
    if not points:
        raise LandmarkError("the list holds no points.")
    return FileLandmarks(points=np.array(points), space="voxel_mm", names=list(lines))


def write(request: WriteRequest) -> None:
    """Write the list with ids 1, 2, ...; missing coordinates are ``nan``."""
    lines = ["# id\tname\tx\ty\tz"]
    for index, (name, point) in enumerate(zip(request.landmarks.names, request.points, strict=True), start=1):
        lines.append("\t".join([str(index), name, *(repr(float(value)) for value in point)]))
    request.path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cells(line: str) -> list[str]:
    if "\t" in line:
        return line.rstrip("\t").split("\t")
    head, *numbers = line.rsplit(maxsplit=3)
    return [*head.split(maxsplit=1), *numbers]
