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
"""`read_landmarks` and `write_landmarks`: from any format into `Landmarks` and back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_landmarks.geometry import LandmarkError

from ..files import atomic_write, require_file
from ..landmarks import Landmarks, quoted
from . import table
from .assemble import Meaning, assemble
from .common import ReadRequest, WriteRequest, naming
from .registry import Format, check_options, find_format


def read_landmarks(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002
    names: Sequence[str] | None = None,
    space: str | None = None,
    affine: Any = None,
    case: str | int | None = None,
    spatial_dims: int | None = None,
    spatial_shape: Sequence[int] | None = None,
    pixel_size: float | Sequence[float] | None = None,
    origin: float | None = None,
    order: str = "xy",
    units: str = "mm",
    missing_value: float | None = None,
    allow_missing: bool = False,
    allow_extra: bool = False,
    **format_options: Any,
) -> Landmarks:
    """Read one case's landmarks from any known file into world millimetres, in a given order of names.

    Args:
        path: the file.
        format: a key of `formats.FORMATS`; None to recognise it by suffix and content.
        names: the order wanted. Files with names are matched by name; for those without (``.npy``, ISBI text, tables
            without heading) these are the names, and the count must agree. None keeps the file's order and names
            (``point_1``, ``point_2``, ... for files without).
        space: what the numbers are; None takes the file's word or the format's rule. ``"RAS"``, ``"LPS"`` in ``units``;
            ``"voxel"``: index of the image that ``affine`` belongs to, axes in the tensor's order; ``"voxel_mm"``:
            index times voxel size; ``"world"``: the package's own. Overrules the file.
        affine: index-to-world matrix of the image, 3x3 or 4x4; used where the numbers are voxels, else ignored.
        case: for files with many cases: the row, image id or file name.
        spatial_dims: 2 or 3, checked; 2 takes a 3D file whose third coordinates are all 0 (a film in Slicer).
        spatial_shape: size of the image; needed by VerSe files in another orientation, and checked against the size
            that COCO and LabelMe files state.
        pixel_size: mm per pixel, in place of ``affine``, for plain films. The numbers then are pixels.
        origin: the number that the file gives to the centre of the first voxel; None is the format's rule, usually 0.
            1 for files that count from 1, 0.5 for those that measure from the image's corner.
        order: ``"xy"``: coordinates in the order of the tensor's axes, (x, y) = (column, row) for films; ``"ij"``: the
            reverse, (row, column).
        units: ``"mm"``, ``"um"``, ``"cm"`` or ``"m"``, for spaces that are lengths.
        missing_value: a number that stands for missing where all coordinates have it, e.g. -1.
        allow_missing: whether a name that the file lacks becomes a missing landmark (NaN) instead of an error.
        allow_extra: whether landmarks that ``names`` lacks are left out instead of being an error.
        format_options: further options of the format, see its module's ``read``.

    Returns:
        the landmarks; missing ones NaN.

    Raises:
        FileNotFoundError: naming the nearest file.
        LandmarkError: naming the file, the place in it, what was expected and the likely cause.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "points.csv"
        ...     _ = file.write_text("label,l,p,s\\ntip,10,-20,5\\nbase,,,\\n")
        ...     marks = read_landmarks(file, names=["base", "tip"])
        >>> marks.points.tolist(), marks.status
        ([[nan, nan, nan], [-10.0, 20.0, 5.0]], ('missing', 'defined'))
    """
    file = require_file(path, "landmark file")
    with naming(file, "read landmarks from"):
        meaning = Meaning(space, affine, pixel_size, origin, order, units)
        request = _request(file, names, case, spatial_dims, spatial_shape, meaning)
        item = find_format(file, format)
        check_options(item.read, format_options, item.name, read_landmarks)
        if case is not None and item.read_all is None:
            raise LandmarkError(
                f"case={case!r} is for files with many cases; a file of format {item.name!r} holds one."
            )
        found = item.read(request, **format_options)
        return assemble(found, request, meaning, missing_value, allow_missing, allow_extra)


def read_landmark_table(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002
    names: Sequence[str] | None = None,
    space: str | None = None,
    affine: Any = None,
    spatial_dims: int | None = None,
    pixel_size: float | Sequence[float] | None = None,
    origin: float | None = None,
    order: str = "xy",
    units: str = "mm",
    missing_value: float | None = None,
    allow_missing: bool = False,
    allow_extra: bool = False,
    **format_options: Any,
) -> dict[str, Landmarks]:
    """Read all cases of a table or COCO file at once, as ``{case: Landmarks}`` in the file's order.

    Args, Raises: as `read_landmarks`.
    """
    file = require_file(path, "landmark file")
    with naming(file, "read landmarks from"):
        meaning = Meaning(space, affine, pixel_size, origin, order, units)
        request = _request(file, names, None, spatial_dims, None, meaning)
        item = find_format(file, format)
        if item.read_all is None:
            raise LandmarkError(f"a file of format {item.name!r} holds one case: use read_landmarks.")
        check_options(item.read_all, format_options, item.name, read_landmark_table)
        cases = {}
        for case, found in item.read_all(request, **format_options).items():
            try:
                cases[case] = assemble(found, request, meaning, missing_value, allow_missing, allow_extra)
            except LandmarkError as error:
                raise LandmarkError(f"case {case!r}: {error}") from error
        return cases


def write_landmarks(
    landmarks: Landmarks,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002
    space: str | None = None,
    affine: Any = None,
    spatial_shape: Sequence[int] | None = None,
    pixel_size: float | Sequence[float] | None = None,
    origin: float | None = None,
    order: str = "xy",
    units: str = "mm",
    **format_options: Any,
) -> None:
    """Write landmarks so that `read_landmarks` with the same arguments gives them back.

    Status and confidence go along where the format has room for them, see the table in `formats`. The file is written
    under a temporary name and renamed, so nobody reads a part of it.

    Args:
        landmarks: in world millimetres.
        path: the file; parent folders are made.
        format: a key of `formats.FORMATS`; None to take it from the suffix.
        space: space of the numbers in the file; None is the format's own, LPS for the Slicer formats.
        affine: index-to-world matrix of the image, for voxel formats.
        spatial_shape: size of the image, for formats that note it.
        pixel_size, origin, order, units: as for `read_landmarks`.
        format_options: further options of the format, see its module's ``write``.

    Raises:
        LandmarkError: the format cannot hold these landmarks, or an argument is lacking.

    Example:
        >>> import tempfile
        >>> marks = Landmarks([[82.9, 99.1]], ["sella"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_landmarks(marks, Path(folder) / "film.mrk.json")
        ...     read_landmarks(Path(folder) / "film.mrk.json", spatial_dims=2) == marks
        True
    """
    target = Path(path)
    with naming(target, "write landmarks to"):
        item = find_format(target, format, writing=True)
        meaning = Meaning(space, affine, pixel_size, origin, order, units)
        check_options(item.write, format_options, item.name, write_landmarks)
        with atomic_write(target) as temporary:
            item.write(_write_request(landmarks, item, meaning, spatial_shape, temporary, target), **format_options)


def write_landmark_table(
    cases: Mapping[str, Landmarks],
    path: str | os.PathLike[str],
    *,
    space: str | None = None,
    affine: Any = None,
    layout: str = "wide",
    delimiter: str | None = None,
) -> None:
    """Write several cases into one ``.csv`` or ``.tsv`` table, as `read_landmark_table` reads it.

    Args:
        cases: landmarks by case; in a wide table all have the same names.
        path: the file.
        space, affine: as for `write_landmarks`; one affine for all cases.
        layout: ``"wide"`` (a row per case) or ``"long"`` (a row per landmark).
        delimiter: by default a tab for ``.tsv``, else a comma.

    Raises:
        LandmarkError: no cases, names that differ, or a suffix that is no table's.
    """
    target = Path(path)
    with naming(target, "write landmarks to"):
        item = find_format(target, None, writing=True)
        if item.write is not table.write:
            raise LandmarkError("a table of several cases is written as .csv or .tsv.")
        if not cases:
            raise LandmarkError("there are no cases to write.")
        meaning = Meaning(space, affine)
        with atomic_write(target) as temporary:
            requests = {
                str(case): _write_request(marks, item, meaning, None, temporary, target)
                for case, marks in cases.items()
            }
            table.write_all(requests, layout=layout, delimiter=delimiter)


def _request(
    file: Path,
    names: Sequence[str] | None,
    case: str | int | None,
    spatial_dims: int | None,
    spatial_shape: Sequence[int] | None,
    meaning: Meaning,
) -> ReadRequest:
    if spatial_dims not in (None, 2, 3):
        raise LandmarkError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}.")
    if isinstance(names, str):
        raise LandmarkError(f"names must be a sequence of names, got the text {names!r}.")
    return ReadRequest(
        path=file,
        names=None if names is None else tuple(names),
        case=None if case is None else str(case),
        spatial_dims=spatial_dims,
        affine=meaning.affine,
        spatial_shape=None if spatial_shape is None else tuple(int(size) for size in spatial_shape),
        space=meaning.space,
    )


def _write_request(
    landmarks: Landmarks,
    item: Format,
    meaning: Meaning,
    spatial_shape: Sequence[int] | None,
    temporary: Path,
    target: Path,
) -> WriteRequest:
    frame = meaning.frame(item.space, item.pixel_size, item.origin)
    if frame.space not in item.spaces:
        raise LandmarkError(
            f"a file of format {item.name!r} cannot say that its numbers are {frame.space!r}; possible are "
            f"{quoted(item.spaces)}."
        )
    if spatial_shape is not None and len(spatial_shape) != landmarks.spatial_dims:
        raise LandmarkError(
            f"spatial_shape {tuple(spatial_shape)} is not of {landmarks.spatial_dims} dimensions: give the image's "
            "size without batch and channel."
        )
    points = frame.from_world(np.array(landmarks.points))
    if item.name in ("markups", "fcsv") and landmarks.spatial_dims == 2:
        # A film lies in the plane z = 0 of the Slicer formats, which know 3D only.
        flat = np.where(landmarks.present, 0.0, np.nan)
        points = np.concatenate([points, flat[:, None]], axis=1)
    if item.name in ("lml", "verse") and landmarks.spatial_dims == 2:
        raise LandmarkError(f"the format {item.name!r} is 3D; write 2D landmarks as .csv or .mrk.json.")
    return WriteRequest(
        path=temporary,
        target=target,
        landmarks=landmarks,
        points=points,
        space=frame.space,
        affine=meaning.affine,
        spatial_shape=None if spatial_shape is None else tuple(int(size) for size in spatial_shape),
    )
