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
"""Understanding the layout of a table of landmarks; see `table` for the layouts."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from monai.utils import look_up_option

from monai_landmarks.geometry import LandmarkError

from ..landmarks import quoted
from .common import ReadRequest, is_number, read_text

NAME_COLUMNS = ("name", "label", "landmark", "landmark_name", "point", "keypoint")
CASE_COLUMNS = ("case", "case_id", "id", "image", "image_id", "file", "file_name", "filename", "subject", "patient")
AXES = {"x": "world", "l": "LPS", "r": "RAS", "i": "voxel"}
FAMILIES = (("x", "y", "z"), ("l", "p", "s"), ("r", "a", "s"), ("i", "j", "k"))
_WIDE = re.compile(r"(?P<name>.+)[_.\- ](?P<part>[a-z]|status|confidence)", re.IGNORECASE | re.DOTALL)

Rows = list[tuple[int, list[str]]]


@dataclass(frozen=True)
class Columns:
    """Where the parts of one landmark stand in a row (wide), or those of every row's landmark (long)."""

    axes: tuple[int, ...]
    status: int | None = None
    confidence: int | None = None
    defined: int | None = None
    description: int | None = None


@dataclass(frozen=True)
class Table:
    """A table whose layout is understood: rows by case, and how to read them."""

    cases: dict[str, Rows]
    heading: Sequence[str]
    space: str
    name_column: int | None
    landmarks: dict[str, Columns]
    named: bool = True


@dataclass(frozen=True)
class TableOptions:
    """The options of `table.read`."""

    layout: str = "auto"
    delimiter: str | None = None
    case_column: str | None = None
    name_column: str | None = None
    coordinate_columns: Sequence[str] | None = None
    ignore_columns: Sequence[str] = ()


def understand(request: ReadRequest, options: TableOptions) -> Table:
    """Read a table as text and find out where its cases, landmarks and coordinates stand."""
    look_up_option(options.layout, ("auto", "long", "wide"))
    rows = _rows(request, options.delimiter)
    first = rows[0][1]
    numbers = sum(is_number(cell) and bool(cell.strip()) for cell in first[1:])
    if 2 * numbers >= len(first) - 1:
        return _without_heading(rows, options.layout, request)
    heading = [cell.strip() for cell in first]
    key = _places(heading, options)
    names = _place(key, options.name_column, NAME_COLUMNS)
    axes = options.coordinate_columns or next(
        (family[:dims] for dims in (3, 2) for family in FAMILIES if all(a in key for a in family[:dims])), None
    )
    if options.layout != "wide" and names is not None and axes is not None:
        return _long(rows[1:], heading, key, names, [axis.casefold() for axis in axes], options.case_column)
    if options.layout == "long":
        raise LandmarkError(
            f"a long table needs a column of names ({quoted(NAME_COLUMNS)}, or name_column) and coordinate columns "
            f"such as x, y, z (or coordinate_columns); the headings are {quoted(heading, 20)}."
        )
    ignored = {text.casefold() for text in options.ignore_columns}
    return _wide(rows[1:], ["" if text.casefold() in ignored else text for text in heading], key, options.case_column)


def _places(heading: Sequence[str], options: TableOptions) -> dict[str, int]:
    """Return the place of each column by its heading in lower case, those to ignore left out."""
    key: dict[str, int] = {}
    for place, text in enumerate(heading):
        if text and text in heading[:place]:
            raise LandmarkError(f"two columns are called {text!r}.")
        key.setdefault(text.casefold(), place)
    asked = (options.case_column, options.name_column, *(options.coordinate_columns or ()), *options.ignore_columns)
    for name in asked:
        if name is not None and name.casefold() not in key:
            raise LandmarkError(f"there is no column {name!r}; the headings are {quoted(heading, 20)}.")
    for name in options.ignore_columns:
        key.pop(name.casefold(), None)
    return key


def _place(key: Mapping[str, int], asked: str | None, usual: Sequence[str]) -> int | None:
    if asked is not None:
        return key[asked.casefold()]
    return next((key[name] for name in usual if name in key), None)


def _rows(request: ReadRequest, delimiter: str | None) -> Rows:
    lines = read_text(request.path).splitlines(keepends=True)
    skip = 0
    while skip < len(lines) and (not lines[skip].strip() or lines[skip].startswith("#")):
        skip += 1
    if skip == len(lines):
        raise LandmarkError("the table is empty.")
    if delimiter is None:
        tab = request.path.suffix.casefold() == ".tsv"
        delimiter = "\t" if tab else next((c for c in ",\t;" if c in lines[skip]), ",")
    reader = csv.reader(io.StringIO("".join(lines[skip:]), newline=""), delimiter=delimiter)
    try:
        rows = [(skip + reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise LandmarkError(f"line {skip + reader.line_num}: {error}.") from error
    width = len(rows[0][1])
    for number, cells in rows:
        if len(cells) != width:
            raise LandmarkError(
                f"row {number} has {len(cells)} cells, the first has {width}: is the file cut off, a comma not quoted, "
                f"or the delimiter not {delimiter!r}?"
            )
    return rows


def _long(
    rows: Rows,
    heading: list[str],
    key: dict[str, int],
    names: int,
    axes: Sequence[str],
    case_column: str | None,
) -> Table:
    case = _place(key, case_column, CASE_COLUMNS)
    if case is not None and case_column is None and len(rows) > 1:
        # A column "id" that differs in every row, as the names do, numbers the landmarks and not the cases.
        kinds = len({cells[case] for _, cells in rows}), len({cells[names] for _, cells in rows})
        case = None if kinds == (len(rows), len(rows)) else case
    cases: dict[str, Rows] = {}
    for number, cells in rows:
        cases.setdefault("" if case is None else cells[case].strip(), []).append((number, cells))
    for name, members in cases.items():
        seen: dict[str, int] = {}
        for number, cells in members:
            text = cells[names].strip()
            if text in seen:
                of = (
                    f" of case {name!r}" if name else ": if the table has several cases, name their column, case_column"
                )
                raise LandmarkError(f"landmark {text!r} stands in rows {seen[text]} and {number}{of}.")
            seen[text] = number
    columns = Columns(
        axes=tuple(key[axis] for axis in axes),
        status=key.get("status"),
        confidence=key.get("confidence"),
        defined=key.get("defined"),
        description=key.get("description"),
    )
    if not cases:
        raise LandmarkError("the table has a heading and no rows.")
    return Table(cases, heading, AXES.get(axes[0], "world"), names, {"": columns})


def _wide(rows: Rows, heading: list[str], key: dict[str, int], case_column: str | None) -> Table:
    parts: dict[str, dict[str, int]] = {}
    case = _place(key, case_column, CASE_COLUMNS)
    for place, text in enumerate(heading):
        match = _WIDE.fullmatch(text)
        if match and place != case:
            parts.setdefault(match["name"].strip(), {})[match["part"].casefold()] = place
    votes = {family: sum(set(family[:2]) <= set(part) for part in parts.values()) for family in FAMILIES}
    family = max(FAMILIES, key=lambda candidate: votes[candidate])
    if not votes[family]:
        raise LandmarkError(
            "no landmarks found: neither a column of names with columns x, y, z, nor columns <name>_x, <name>_y; the "
            f"headings are {quoted(heading, 20)}."
        )
    # A column such as "age_y" in a table of i, j, k is none of ours; the landmarks' own letters must be complete.
    marks = {name: part for name, part in parts.items() if set(family) & set(part)}
    dims = 3 if any(family[2] in part for part in marks.values()) else 2
    for name, part in marks.items():
        lacking = [axis for axis in family[:dims] if axis not in part]
        if lacking:
            raise LandmarkError(
                f"landmark {name!r} has columns for {quoted(a for a in family if a in part)} and none for "
                f"{quoted(lacking)}; if it is no landmark, give ignore_columns."
            )
    columns = {
        name: Columns(tuple(part[axis] for axis in family[:dims]), part.get("status"), part.get("confidence"))
        for name, part in marks.items()
    }
    used = {place for part in marks.values() for place in part.values()}
    if case is None and 0 not in used:
        case = 0
    return Table(_by_case(rows, case), heading, AXES[family[0]], None, columns)


def _by_case(rows: Rows, case: int | None) -> dict[str, Rows]:
    if not rows:
        raise LandmarkError("the table has a heading and no rows.")
    if case is None and len(rows) > 1:
        raise LandmarkError(f"the table has {len(rows)} rows and no column that names their cases: give case_column.")
    cases: dict[str, Rows] = {}
    for number, cells in rows:
        name = "" if case is None else cells[case].strip()
        if name in cases:
            raise LandmarkError(f"case {name!r} stands in rows {cases[name][0][0]} and {number}.")
        cases[name] = [(number, cells)]
    return cases


def _without_heading(rows: Rows, layout: str, request: ReadRequest) -> Table:
    width = len(rows[0][1])
    if width < 3:
        raise LandmarkError(
            f"the first row has {width} cells, {rows[0][1]!r}; a name or case and coordinates are expected. Is the "
            "delimiter another, or the format (format='isbi' for lines of x,y)?"
        )
    heading = [f"{place}" for place in range(1, width + 1)]
    if layout == "long" or (layout == "auto" and width in (3, 4)):
        key = dict(zip(["name", "x", "y", "z"], range(width), strict=False))
        return _long(rows, heading, key, 0, list(key)[1:], None)
    count = width - 1
    dims = [d for d in (2, 3) if count % d == 0]
    if request.names:
        dims = [d for d in dims if d * len(request.names) == count]
    if request.spatial_dims:
        dims = [d for d in dims if d == request.spatial_dims]
    if not dims:
        wanted = f"{request.spatial_dims}D" if request.spatial_dims else "2D or 3D"
        named = f" {len(request.names)}" if request.names else ""
        raise LandmarkError(f"a row has a case and {count} numbers: these are not{named} {wanted} points.")
    if len(dims) > 1:
        raise LandmarkError(f"a row has {count} numbers, which may be 2D or 3D points: give spatial_dims or names.")
    starts = range(1, width, dims[0])
    columns = {f"{start}": Columns(tuple(range(start, start + dims[0]))) for start in starts}
    return Table(_by_case(rows, 0), heading, "world", None, columns, named=False)
