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
"""The list of landmark formats and how a file's format is recognised."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_landmarks.geometry import LandmarkError

from ..landmarks import did_you_mean, quoted
from . import coco, fcsv, isbi, labelme, lml, markups, npy, table, verse
from .common import FileLandmarks, load_json


@dataclass(frozen=True)
class Format:
    """One landmark format.

    Args:
        name: what ``format=`` calls it.
        suffixes: of its files; ``.json`` is shared and decided by content.
        read: ``(request, **options) -> FileLandmarks``.
        write: ``(request, **options) -> None``.
        space: the space it is written in by default.
        spaces: the spaces it can be written in; a file that cannot say what its numbers mean has one.
        read_all: for formats of many cases, ``(request, **options) -> {case: FileLandmarks}``.
        origin: the number it gives to the centre of the first voxel when written.
        pixel_size: its own pixel size in mm, None where it has none.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[..., FileLandmarks]
    write: Callable[..., None]
    space: str
    spaces: tuple[str, ...]
    read_all: Callable[..., dict[str, FileLandmarks]] | None = None
    origin: float = 0.0
    pixel_size: float | None = None


_ANY = ("world", "RAS", "LPS", "voxel")
FORMATS: dict[str, Format] = {
    item.name: item
    for item in (
        Format("markups", (".mrk.json",), markups.read, markups.write, "LPS", ("LPS", "RAS")),
        Format("fcsv", (".fcsv",), fcsv.read, fcsv.write, "LPS", ("LPS", "RAS")),
        Format("csv", (".csv",), table.read, table.write, "world", _ANY, table.read_all),
        Format("tsv", (".tsv",), table.read, table.write, "world", _ANY, table.read_all),
        Format("npy", (".npy",), npy.read, npy.write, "world", (*_ANY, "voxel_mm")),
        Format("verse", (".json",), verse.read, verse.write, "voxel", ("voxel",)),
        Format("lml", (".lml",), lml.read, lml.write, "voxel_mm", ("voxel_mm",)),
        Format("coco", (".json",), coco.read, coco.write, "voxel", ("voxel",), coco.read_all),
        Format("labelme", (".json",), labelme.read, labelme.write, "voxel", ("voxel",), origin=labelme.CORNER),
        Format("isbi", (".txt",), isbi.read, isbi.write, "voxel", ("voxel",), pixel_size=isbi.PIXEL_SIZE),
    )
}
_ALIASES = {"mrk.json": "markups", "mrk": "markups", "slicer": "markups", "txt": "isbi"}


def find_format(path: Path, name: str | None, *, writing: bool = False) -> Format:
    """Find a file's format: by ``name``, else by its suffix, for ``.json`` files to be read by their content.

    Args:
        path: the file.
        name: a key of `FORMATS` or a suffix; None to recognise.
        writing: whether the file is about to be written, and so has no content yet.

    Raises:
        LandmarkError: an unknown name or suffix, or a JSON file of no known kind.

    Example:
        >>> find_format(Path("case.mrk.json"), None).name, find_format(Path("x.dat"), "csv").name
        ('markups', 'csv')
    """
    if name is not None:
        key = name.casefold().lstrip(".")
        key = _ALIASES.get(key, key)
        if key not in FORMATS:
            raise LandmarkError(
                f"no landmark format {name!r}{did_you_mean(name, FORMATS)}; there are {quoted(FORMATS)}."
            )
        return FORMATS[key]
    file_name = path.name.casefold()
    for item in FORMATS.values():
        if ".json" not in item.suffixes and file_name.endswith(item.suffixes):
            return item
    if file_name.endswith(".json"):
        if writing:
            raise LandmarkError(
                f"{path.name!r} may be of several JSON formats: name it *.mrk.json for 3D Slicer, or give "
                "format='markups', 'verse', 'coco' or 'labelme'."
            )
        return FORMATS[_json_kind(load_json(path))]
    known = sorted({suffix for item in FORMATS.values() for suffix in item.suffixes})
    raise LandmarkError(
        f"the suffix of {path.name!r} is of no landmark format; known are {quoted(known)}. Give format=, one of "
        f"{quoted(FORMATS)}."
    )


def check_options(
    function: Callable[..., Any], options: Mapping[str, Any], name: str, caller: Callable[..., Any]
) -> None:
    """Raise for a keyword that neither the format's function nor the public one that calls it has."""
    known, general = (
        [p.name for p in inspect.signature(item).parameters.values() if p.kind is p.KEYWORD_ONLY]
        for item in (function, caller)
    )
    for key in options:
        if key not in known:
            hint = did_you_mean(key, [*known, *general])
            has = f"it has {quoted(known)}" if known else "it has none of its own"
            raise LandmarkError(f"the format {name!r} has no option {key!r}{hint}; {has}.")


def _json_kind(content: Any) -> str:
    if isinstance(content, dict):
        for key, kind in (("markups", "markups"), ("shapes", "labelme"), ("annotations", "coco")):
            if key in content:
                return kind
        found = f"an object with {quoted(map(str, content), 6)}"
    elif isinstance(content, list):
        if any(isinstance(entry, dict) and {"direction", "label"} & set(entry) for entry in content):
            return "verse"
        found = "a list"
    else:
        found = repr(content)[:40]
    raise LandmarkError(
        f"this JSON is {found}; known are 3D Slicer markups ('markups'), LabelMe ('shapes'), COCO ('annotations') and "
        "VerSe (a list of 'direction' and 'label')."
    )
