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
"""Text files of the ISBI 2015 cephalometric challenge: one ``x,y`` in pixels of the original film per line.

The challenge's files have 19 such lines and then lines with the anatomical classes. The film is 1935 x 2400 pixels of
0.1 mm, so ``world_mm = 0.1 * (x, y)``, also for reduced copies of the film.
"""

from __future__ import annotations

import numpy as np

from monai_landmarks.geometry import LandmarkError

from .common import FileLandmarks, ReadRequest, WriteRequest, is_number, parse_number, read_text

PIXEL_SIZE = 0.1


def read(request: ReadRequest) -> FileLandmarks:
    """Read all leading lines of two numbers, and at least as many lines as there are ``names``."""
    lines = read_text(request.path).splitlines()
    wanted = len(request.names or ())
    points: list[list[float]] = []
    for number, line in enumerate(lines, start=1):
        cells = line.split(",") if "," in line else line.split()
        if len(points) >= wanted and (len(cells) != 2 or not all(is_number(cell) for cell in cells)):
            break
        if len(cells) != 2:
            raise LandmarkError(f"line {number} is {line!r}; 'x,y' in pixels is expected.")
        points.append([parse_number(cell, f"line {number}, {axis},") for cell, axis in zip(cells, "xy", strict=True)])
    if not points:
        raise LandmarkError("the file does not begin with lines 'x,y'.")
    return FileLandmarks(points=np.array(points), space="voxel", pixel_size=PIXEL_SIZE)


def write(request: WriteRequest) -> None:
    """Write ``x,y`` lines, whole numbers without a point, ``nan,nan`` where missing."""
    lines = [",".join(_text(float(value)) for value in point) for point in request.points]
    request.path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _text(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
