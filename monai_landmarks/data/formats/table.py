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
"""Tables, ``.csv`` and ``.tsv``: long (one row per landmark), wide (one row per case), with or without a heading.

Long: a column of names, coordinate columns, optionally a case column, ``status`` and ``confidence``; the headings known
are in `table_layout`. Slicer's control point tables (``label,l,p,s,defined,...``) are of this kind.
Wide: one column per landmark and axis, ``<name>_x``, ``<name>_y``, ..., and a case column, the first by default.
Without a heading: ``case, x1, y1, x2, y2, ...`` (wide), or ``name, x, y[, z]`` where a row has 3 or 4 cells.

The axes' letters say what the numbers are: ``r, a, s`` and ``l, p, s`` are millimetres in that system; ``i, j, k`` are
voxel indices along the image tensor's axes; ``x, y, z`` says nothing and is taken for the package's world (RAS
millimetres in 3D, the film plane in 2D) unless ``space`` says else. A row whose ``status`` is missing or undefined, or
whose ``defined`` is 0, has no position, whatever numbers stand there. A ``description`` is searched for what the Slicer
formats keep there.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np
from monai.utils import look_up_option

from monai_landmarks.geometry import LandmarkError

from ..landmarks import quoted
from .common import NUMBER, FileLandmarks, ReadRequest, WriteRequest, confidence_in, outside_in, parse_number
from .select import select_case
from .table_layout import Rows, Table, TableOptions, understand

_LETTERS = {"world": "xyz", "LPS": "lps", "RAS": "ras", "voxel": "ijk"}


def read(
    request: ReadRequest,
    *,
    layout: str = "auto",
    delimiter: str | None = None,
    case_column: str | None = None,
    name_column: str | None = None,
    coordinate_columns: Sequence[str] | None = None,
    ignore_columns: Sequence[str] = (),
) -> FileLandmarks:
    """Read one case.

    Args:
        request: the file and the case, a value of the case column.
        layout: ``"long"``, ``"wide"``, or ``"auto"`` to tell by the heading.
        delimiter: by default a tab for ``.tsv``, else the comma, or the tab or semicolon if the first line has no
            comma.
        case_column: heading of the cases' column.
        name_column: heading of the landmarks' names (long).
        coordinate_columns: headings of the 2 or 3 coordinates (long), taken like ``x, y, z``.
        ignore_columns: headings of columns to pass over, e.g. ``"age_y"``, which looks like a coordinate.
    """
    options = TableOptions(layout, delimiter, case_column, name_column, coordinate_columns, ignore_columns)
    table = understand(request, options)
    if request.case is not None and list(table.cases) == [""]:
        raise LandmarkError(
            f"case {request.case!r} is asked for and the table has no case column; name it with case_column, the "
            f"headings are {quoted(table.heading)}."
        )
    return _landmarks(table, select_case(table.cases, request.case))


def read_all(
    request: ReadRequest,
    *,
    layout: str = "auto",
    delimiter: str | None = None,
    case_column: str | None = None,
    name_column: str | None = None,
    coordinate_columns: Sequence[str] | None = None,
    ignore_columns: Sequence[str] = (),
) -> dict[str, FileLandmarks]:
    """Read every case; arguments as for `read`."""
    options = TableOptions(layout, delimiter, case_column, name_column, coordinate_columns, ignore_columns)
    table = understand(request, options)
    return {case: _landmarks(table, rows) for case, rows in table.cases.items()}


def write(
    request: WriteRequest, *, layout: str = "long", delimiter: str | None = None, case: str | int | None = None
) -> None:
    """Write one case, with the axes' letters that say what the numbers are.

    Args:
        request: the landmarks.
        layout: ``"long"`` or ``"wide"``.
        delimiter: by default a tab for ``.tsv``, else a comma.
        case: value of the case column; a long table has none by default, a wide one takes the file's name.
    """
    write_all({"" if case is None else str(case): request}, layout=layout, delimiter=delimiter)


def write_all(requests: Mapping[str, WriteRequest], *, layout: str = "long", delimiter: str | None = None) -> None:
    """Write several cases into one table; all requests have the same path, and for a wide table the same names."""
    first = next(iter(requests.values()))
    if first.space not in _LETTERS:
        raise LandmarkError(f"a table cannot say that its space is {first.space!r}; possible are {quoted(_LETTERS)}.")
    text = io.StringIO()
    tab = first.target.suffix.casefold() == ".tsv"
    writer = csv.writer(text, delimiter=delimiter or ("\t" if tab else ","), lineterminator="\n")
    rows = _long_rows if look_up_option(layout, ("long", "wide")) == "long" else _wide_rows
    writer.writerows(rows(requests))
    first.path.write_text(text.getvalue(), encoding="utf-8")


def _long_rows(requests: Mapping[str, WriteRequest]) -> list[list[str]]:
    first = next(iter(requests.values()))
    slicer = first.space in ("LPS", "RAS")
    cases = list(requests) != [""]
    scores = any(request.landmarks.confidence is not None for request in requests.values())
    heading = ["case"] * cases + ["label" if slicer else "name", *_LETTERS[first.space][: first.points.shape[1]]]
    rows = [[*heading, *["defined"] * slicer, "status", *["confidence"] * scores]]
    for case, request in requests.items():
        marks = request.landmarks
        for index, name in enumerate(marks.names):
            row = [case] * cases + [name, *_cells(request.points[index])]
            row += [str(int(marks.present[index]))] * slicer + [marks.status[index]]
            rows.append(row + _cells([_confidence(request, index)]) * scores)
    return rows


def _wide_rows(requests: Mapping[str, WriteRequest]) -> list[list[str]]:
    first = next(iter(requests.values()))
    names = first.landmarks.names
    letters = _LETTERS[first.space][: first.points.shape[1]]
    scores = any(request.landmarks.confidence is not None for request in requests.values())
    plain = all(s == ("defined" if p else "missing") for r in requests.values() for s, p in _status_pairs(r))
    parts = [*letters, *["status"] * (not plain), *["confidence"] * scores]
    rows = [["case", *(f"{name}_{part}" for name in names for part in parts)]]
    for case, request in requests.items():
        if request.landmarks.names != names:
            raise LandmarkError(
                f"a wide table needs the same names in every case; case {case!r} has others: reorder() it."
            )
        row = [case or request.target.name.split(".")[0]]
        for index in range(len(names)):
            row += _cells(request.points[index]) + [request.landmarks.status[index]] * (not plain)
            row += _cells([_confidence(request, index)]) * scores
        rows.append(row)
    return rows


def _status_pairs(request: WriteRequest) -> list[tuple[str, bool]]:
    return list(zip(request.landmarks.status, request.landmarks.present.tolist(), strict=True))


def _confidence(request: WriteRequest, index: int) -> float:
    confidence = request.landmarks.confidence
    return float("nan") if confidence is None else float(confidence[index])


def _cells(values: Sequence[float] | np.ndarray) -> list[str]:
    return ["" if np.isnan(value) else repr(float(value)) for value in values]


def _landmarks(table: Table, rows: Rows) -> FileLandmarks:
    if table.name_column is None:
        number, cells = rows[0]
        found = [(name, number, cells, columns) for name, columns in table.landmarks.items()]
    else:
        found = [(cells[table.name_column].strip(), number, cells, table.landmarks[""]) for number, cells in rows]
    points, status, scores = [], [], []
    for _, number, cells, columns in found:
        points.append([_number(table, number, cells, place) for place in columns.axes])
        word = cells[columns.status].strip().casefold() if columns.status is not None else ""
        hidden = columns.defined is not None and cells[columns.defined].strip().casefold() in ("0", "false")
        noted = columns.description is not None and outside_in(cells[columns.description])
        status.append(word or ("undefined" if hidden else "outside" if noted else None))
        if columns.confidence is not None:
            scores.append(_number(table, number, cells, columns.confidence))
    confidence: list[float] | None = scores or None
    place = found[0][3].description
    if not scores and place is not None:
        confidence = confidence_in([cells[place] for _, _, cells, _ in found])
    return FileLandmarks(
        points=np.array(points, dtype=np.float64),
        space=table.space,
        names=[name for name, *_ in found] if table.named else None,
        status=status,
        confidence=confidence,
    )


def _number(table: Table, number: int, cells: list[str], place: int) -> float:
    text = cells[place]
    # The place is put into words only where something is wrong: tables have up to 10^5 cells.
    return (
        float(text) if NUMBER.fullmatch(text) else parse_number(text, f"row {number}, column {table.heading[place]!r},")
    )
