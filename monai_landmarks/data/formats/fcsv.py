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
"""3D Slicer's older fiducial list, ``.fcsv``.

Header lines start with ``#``: ``Markups fiducial file version``, ``CoordinateSystem`` (``LPS``, ``RAS``, or the numbers
0 = RAS and 1 = LPS of older versions; RAS where the line is absent, as in Slicer 3 and early 4) and ``columns``.
Slicer 5 appends two columns that its ``columns`` line does not name: position status (0 undefined, 1 preview,
2 defined, 3 missing) and a flag. It writes coordinates for undefined and missing points too; they mean nothing and are
not read.
Slicer 3 files have no header; their columns are ``label,x,y,z,sel,vis``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np

from monai_landmarks.geometry import LandmarkError

from ..landmarks import quoted
from .common import (
    FileLandmarks,
    ReadRequest,
    WriteRequest,
    confidence_in,
    description_text,
    outside_in,
    parse_number,
    read_text,
)
from .markups import COORDINATE_SYSTEMS, NAME_SOURCES

COLUMNS = ("id", "x", "y", "z", "ow", "ox", "oy", "oz", "vis", "sel", "lock", "label", "desc", "associatedNodeID")
SLICER3_COLUMNS = ("label", "x", "y", "z", "sel", "vis")
STATUS_CODES = {"0": "undefined", "1": "preview", "2": "defined", "3": "missing"}
_CODE_OF_STATUS = {word: code for code, word in STATUS_CODES.items()}


def read(request: ReadRequest, *, names_from: str = "label") -> FileLandmarks:
    """Read a fiducial list of any Slicer version.

    Args:
        request: the file.
        names_from: ``"label"``, or ``"description"`` for lists whose labels are running numbers (the AFIDs ones).
    """
    if names_from not in NAME_SOURCES:
        raise LandmarkError(f"names_from={names_from!r}; possible are {quoted(NAME_SOURCES)}.")
    lines = read_text(request.path).splitlines()
    header = _header([line for line in lines if line.startswith("#")])
    columns = _columns(header)
    points: list[list[float]] = []
    labels, descriptions = [], []
    status: list[str | None] = []
    width = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = next(csv.reader([line]))
        if len(cells) != width and points:
            raise LandmarkError(
                f"line {number} has {len(cells)} fields, the one before {width}: is the file cut off, or a comma in a "
                "label not quoted or used as decimal sign?"
            )
        width = len(cells)
        if len(cells) < 1 + max(columns.index(axis) for axis in "xyz"):
            raise LandmarkError(f"line {number} has only {len(cells)} fields, {line!r}.")
        row = dict(zip(columns, cells, strict=False))
        points.append([parse_number(row[axis], f"line {number}, column {axis!r},") for axis in "xyz"])
        labels.append(row.get("label", "").strip())
        descriptions.append(row.get("desc", "").strip())
        word = _status(cells[len(columns) :], row, number)
        status.append("outside" if word in (None, "defined") and outside_in(descriptions[-1]) else word)
    if not points:
        raise LandmarkError("the list holds no points.")
    texts, others = (labels, descriptions) if names_from == "label" else (descriptions, labels)
    return FileLandmarks(
        points=np.array(points),
        space=_space(header),
        names=texts if any(texts) else None,
        status=status,
        confidence=confidence_in(descriptions),
        descriptions=others,
    )


def write(request: WriteRequest) -> None:
    """Write a list as Slicer 5 does, with the status column; missing positions are ``nan``.

    A confidence goes into the description as ``confidence=0.93``, the status "outside" as ``field_of_view=outside``
    beside the code for defined; `read` finds both there again.
    """
    marks = request.landmarks
    text = io.StringIO()
    text.write("# Markups fiducial file version = 5.6\n")
    text.write(f"# CoordinateSystem = {request.space}\n")
    text.write(f"# columns = {','.join(COLUMNS)}\n")
    writer = csv.writer(text, lineterminator="\n")
    for index, (name, status) in enumerate(zip(marks.names, marks.status, strict=True)):
        xyz = [repr(float(value)) for value in request.points[index]]
        code = _CODE_OF_STATUS["defined" if status == "outside" else status]
        writer.writerow([index + 1, *xyz, 0, 0, 0, 1, 1, 1, 0, name, description_text(marks, index), "", code, 0])
    request.path.write_text(text.getvalue(), encoding="utf-8")


def _header(lines: Sequence[str]) -> dict[str, str]:
    header = {}
    for line in lines:
        key, equals, value = line.lstrip("#").partition("=")
        if equals:
            header[key.strip().casefold()] = value.strip()
    return header


def _space(header: dict[str, str]) -> str:
    stated = header.get("coordinatesystem", "RAS").upper()
    if stated not in COORDINATE_SYSTEMS:
        raise LandmarkError(f"CoordinateSystem is {stated!r}; known are LPS (or 1) and RAS (or 0).")
    return COORDINATE_SYSTEMS[stated]


def _columns(header: dict[str, str]) -> list[str]:
    if "columns" in header:
        columns = [name.strip() for name in header["columns"].split(",")]
    else:
        columns = list(COLUMNS if any("version" in key for key in header) else SLICER3_COLUMNS)
    for axis in "xyz":
        if axis not in columns:
            raise LandmarkError(f"the 'columns' line has no {axis!r}: {quoted(columns, 20)}.")
    return columns


def _status(beyond: Sequence[str], row: dict[str, str], number: int) -> str | None:
    code = row.get("positionStatus", beyond[0] if len(beyond) == 2 else "").strip()
    if code in ("", *STATUS_CODES):
        return STATUS_CODES.get(code)
    raise LandmarkError(
        f"line {number} has position status {code!r}; known are 0 undefined, 1 preview, 2 defined, 3 missing. "
        "Is a comma in the label not quoted?"
    )
