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
"""What all landmark formats share: the numbers of a file before conversion, coordinate spaces, careful parsing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_landmarks.geometry import LandmarkError, affine_nd, apply_affine, invert_affine, voxel_sizes

from ..landmarks import Landmarks, did_you_mean, quoted

SPACES = ("RAS", "LPS", "voxel", "voxel_mm", "world")
MILLIMETRES = {"mm": 1.0, "um": 1e-3, "cm": 10.0, "m": 1000.0}
MISSING_TOKENS = frozenset({"", "nan", "na", "n/a", "none", "null"})

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_OUTSIDE = re.compile(r"\bfield_of_view=outside\b", re.ASCII)
_CONFIDENCE = re.compile(r"\bconfidence=(nan|[+-]?[0-9.]+(?:[eE][+-]?\d+)?)", re.ASCII)


@dataclass
class FileLandmarks:
    """Landmarks with the numbers that stand in the file.

    Args:
        points: ``(N, D)`` float64, NaN where the file has no number.
        space: what the numbers are by the file's own word or the format's rule, one of `SPACES`.
        names: None where the format or this file has none.
        status: per landmark a word, or None to derive it from the point.
        confidence: per landmark, or None.
        descriptions: a second text per landmark, for files that keep the anatomical name there.
        pixel_size: the format's own pixel size in mm, used where the caller says nothing.
        origin: the number that the file gives to the centre of the first voxel.
        spatial_shape: size of the image that the file says its points belong to.
    """

    points: np.ndarray
    space: str
    names: list[str] | None = None
    status: list[str | None] | None = None
    confidence: list[float] | None = None
    descriptions: list[str] | None = None
    pixel_size: float | None = None
    origin: float = 0.0
    spatial_shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class ReadRequest:
    """What the caller of `read_landmarks` said that a format may need while reading."""

    path: Path
    names: tuple[str, ...] | None = None
    case: str | None = None
    spatial_dims: int | None = None
    affine: Any = None
    spatial_shape: tuple[int, ...] | None = None
    space: str | None = None


@dataclass(frozen=True)
class WriteRequest:
    """What a format writes: landmarks, their points already in the file's space, and where to.

    ``path`` is temporary and becomes ``target`` when all is written.
    """

    path: Path
    target: Path
    landmarks: Landmarks
    points: np.ndarray
    space: str
    affine: Any = None
    spatial_shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Frame:
    """How numbers in a file and world millimetres belong together.

    Args:
        space: one of `SPACES`. ``"world"`` is the package's own: RAS in 3D, the film plane in 2D. ``"voxel_mm"`` is
            voxel index times voxel size, millimetres along the image's axes with the origin at the first voxel.
        affine: index to world, needed by ``"voxel"`` and ``"voxel_mm"``.
        pixel_size: in place of ``affine`` for ``"voxel"``: mm per pixel, one number or one per axis.
        origin: the number that the file gives to the centre of the first voxel (``"voxel"`` only).
        reverse: the file's coordinates stand in reversed order: (row, column) for (x, y).
        units: unit of the spaces that are lengths.
    """

    space: str
    affine: Any = None
    pixel_size: float | Sequence[float] | None = None
    origin: float = 0.0
    reverse: bool = False
    units: str = "mm"

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """Convert ``(N, D)`` numbers of a file into world millimetres."""
        dims = points.shape[1]
        points = points[:, ::-1] if self.reverse else points
        if self.space == "voxel":
            return _apply(points - self.origin, self.matrix(dims))
        points = points * MILLIMETRES[self.units]
        if self.space == "voxel_mm":
            matrix = self.matrix(dims)
            return _apply(points / voxel_sizes(matrix).numpy(), matrix)
        return points * self._signs(dims) + 0.0  # the sum turns -0.0 into 0.0

    def from_world(self, points: np.ndarray) -> np.ndarray:
        """Convert ``(N, D)`` world millimetres into the numbers of a file, the inverse of `to_world`."""
        dims = points.shape[1]
        if self.space == "voxel":
            values = _apply(points, invert_affine(self.matrix(dims))) + self.origin
        elif self.space == "voxel_mm":
            matrix = self.matrix(dims)
            values = _apply(points, invert_affine(matrix)) * voxel_sizes(matrix).numpy() / MILLIMETRES[self.units]
        else:
            values = points * self._signs(dims) / MILLIMETRES[self.units] + 0.0
        return values[:, ::-1] if self.reverse else values

    def matrix(self, dims: int) -> torch.Tensor:
        """Return the affine ``(D + 1, D + 1)``, from ``affine`` or ``pixel_size``."""
        if self.affine is not None:
            return affine_nd(self.affine, dims)
        if self.pixel_size is None:
            raise LandmarkError(
                f"the coordinates are voxels (space={self.space!r}) and there is no affine to turn them into "
                "millimetres. Give affine=image.affine of the image they were placed on, or for a plain film "
                "pixel_size=<mm per pixel>; if they are millimetres already, say so with space='RAS' or space='LPS'."
            )
        sizes = np.broadcast_to(np.asarray(self.pixel_size, dtype=np.float64), (dims,))
        if not (np.isfinite(sizes) & (sizes > 0)).all():
            raise LandmarkError(f"pixel_size must be positive, in mm, got {self.pixel_size!r}.")
        return torch.diag(torch.tensor([*sizes.tolist(), 1.0], dtype=torch.float64))

    def _signs(self, dims: int) -> np.ndarray:
        # A film has no left or posterior: its plane is ITK's physical plane, so LPS numbers stay and RAS ones turn.
        turned = self.space == ("LPS" if dims == 3 else "RAS")
        return np.array([-1.0, -1.0, 1.0][:dims]) if turned else np.ones(dims)


def _apply(points: np.ndarray, matrix: torch.Tensor) -> np.ndarray:
    return apply_affine(torch.tensor(np.ascontiguousarray(points)), matrix).numpy()


def choose_space(given: str | None, stated: str, pixel_size: Any) -> str:
    """Return the space to read in: the caller's word, else the file's, where a pixel size alone means pixels."""
    if given is not None:
        for space in SPACES:
            if space.casefold() == str(given).casefold():
                return space
        raise LandmarkError(f"space={given!r}{did_you_mean(str(given), SPACES)}; possible are {quoted(SPACES)}.")
    if pixel_size is not None and stated == "world":
        return "voxel"
    return stated


def parse_number(text: str, where: str) -> float:
    """Read one number with care; an empty cell, ``nan``, ``NA``, ``None`` and ``null`` are NaN.

    Args:
        text: the cell.
        where: what the message says about the place, e.g. ``"row 3, column 'y'"``.

    Raises:
        LandmarkError: naming the place and the text.

    Example:
        >>> parse_number(" 1.5e1 ", "row 3"), parse_number("NA", "row 3")
        (15.0, nan)
        >>> parse_number("12,5", "row 3, column 'x'")
        Traceback (most recent call last):
        ...
        monai_landmarks.geometry.points.LandmarkError: row 3, column 'x' holds '12,5', which is not a number; decimals
        are written with a point, not a comma.
    """
    cell = text.strip()
    if cell.casefold().lstrip("+-") in MISSING_TOKENS:
        return float("nan")
    if not NUMBER.fullmatch(cell):
        hint = "; decimals are written with a point, not a comma" if NUMBER.fullmatch(cell.replace(",", ".")) else ""
        if cell.casefold().lstrip("+-") in ("inf", "infinity"):
            hint = "; a missing landmark is an empty cell or nan"
        raise LandmarkError(f"{where} holds {text!r}, which is not a number{hint}.")
    return float(cell)


def is_number(text: str) -> bool:
    """Tell whether a cell is a number or one of the words for a missing one."""
    cell = text.strip()
    return bool(NUMBER.fullmatch(cell)) or cell.casefold().lstrip("+-") in MISSING_TOKENS


def number_of(value: Any, where: str) -> float:
    """Read a number out of JSON: a number, null, or a text as in `parse_number`."""
    if value is None:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise LandmarkError(f"{where} holds {value!r}, which is not a number.")
    try:
        return parse_number(value, where) if isinstance(value, str) else float(value)
    except OverflowError as error:
        raise LandmarkError(f"{where} holds a number too large for a coordinate.") from error


def integer_of(value: Any, where: str) -> int:
    """Read a whole number out of JSON."""
    number = number_of(value, where)
    if not number.is_integer():
        raise LandmarkError(f"{where} holds {value!r}; a whole number is expected.")
    return int(number)


def load_json(path: Path) -> Any:
    """Read a JSON file, with an error that says what broke and where."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LandmarkError(f"the file is not UTF-8 text ({error.reason} at byte {error.start}): not JSON.") from error
    if not text.strip():
        raise LandmarkError("the file is empty: was it cut off while it was written or copied?")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) - 1
        cause = (
            "the file ends in the middle: it was likely cut off while it was written or copied" if cut else error.msg
        )
        raise LandmarkError(f"not valid JSON at line {error.lineno}, column {error.colno}: {cause}.") from error


def dump_json(content: Any, path: Path) -> None:
    """Write strict JSON (no NaN literals), readable by people."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_text(path: Path) -> str:
    """Read a text file as UTF-8, where that fails as Latin-1: old table programs write it."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def entry_of(mapping: Mapping[str, Any], key: str, what: str) -> Any:
    """Return the number or text ``mapping[key]``, or say which part of the file lacks it."""
    if key not in mapping:
        raise LandmarkError(f"{what} has no {key!r}; it has {quoted(map(str, mapping))}.")
    if not isinstance(mapping[key], (int, float, str)):
        raise LandmarkError(f"{key!r} of {what} is {str(mapping[key])[:40]}; a number or text is expected.")
    return mapping[key]


def objects_of(value: Any, what: str) -> list[Mapping[str, Any]]:
    """Return the items of a JSON array of objects, else say what was expected."""
    return [mapping_of(item, f"{what}[{place}]") for place, item in enumerate(sequence_of(value, what))]


def size_of(width: Any, height: Any) -> tuple[int, int] | None:
    """Return the image size that a file states, None where it states none."""
    if width is None or height is None:
        return None
    return integer_of(width, "the image's width"), integer_of(height, "the image's height")


def mapping_of(value: Any, what: str) -> Mapping[str, Any]:
    """Return ``value`` if it is a JSON object, else say what was expected."""
    if not isinstance(value, Mapping):
        raise LandmarkError(f"{what} must be a JSON object, got {type(value).__name__} {str(value)[:40]!r}.")
    return value


def sequence_of(value: Any, what: str) -> Sequence[Any]:
    """Return ``value`` if it is a JSON array, else say what was expected."""
    if not isinstance(value, list):
        raise LandmarkError(f"{what} must be a JSON array, got {type(value).__name__} {str(value)[:40]!r}.")
    return value


def description_text(marks: Landmarks, index: int) -> str:
    """Return the text that carries in a free description field what Slicer has no field for.

    ``confidence=0.93``, ``field_of_view=outside``, or both.
    """
    parts = [] if marks.confidence is None else [f"confidence={float(marks.confidence[index])!r}"]
    parts += ["field_of_view=outside"] if marks.status[index] == "outside" else []
    return " ".join(parts)


def outside_in(description: str) -> bool:
    """Tell whether a description says that its landmark lies outside the image, as `description_text` writes it."""
    return _OUTSIDE.search(description) is not None


def confidence_in(descriptions: Sequence[str]) -> list[float] | None:
    """Find confidences in descriptions, as `description_text` writes them; None where there is none."""
    found = [_CONFIDENCE.search(text) for text in descriptions]
    return [float(match[1]) if match else float("nan") for match in found] if any(found) else None


@contextmanager
def naming(path: Path, action: str) -> Iterator[None]:
    """Put the file's name before the message of every `LandmarkError` raised inside."""
    try:
        yield
    except LandmarkError as error:
        raise LandmarkError(f"cannot {action} {str(path)!r}: {error}") from error
