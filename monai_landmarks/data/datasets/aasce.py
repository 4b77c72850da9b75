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
"""AASCE spine films: 481 AP radiographs with the corners of 17 vertebrae and three Cobb angles (Wu et al., MICCAI 2017)."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import look_up_option, optional_import

from monai_landmarks.geometry import LandmarkError

from .phantom_marker import whole_phantom_parameters
from .splits import select_part

PILImage, _ = optional_import("PIL.Image")

__all__ = ["AASCE_LANDMARKS", "aasce_datalist", "aasce_disordered_films", "aasce_disorders", "aasce_patient"]

VERTEBRAE = (*(f"T{number}" for number in range(1, 13)), *(f"L{number}" for number in range(1, 6)))

CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")

AASCE_LANDMARKS: tuple[str, ...] = tuple(f"{vertebra}_{corner}" for vertebra in VERTEBRAE for corner in CORNERS)
"""The 68 corners in the order of the table; left and right are those of the picture, not of the patient."""

MARGIN = 0.05
"""Fraction of the extent by which a corner may lie off the film: some vertebrae are just cut off."""

LAYOUT = (
    "expected data/training/*.jpg and labels/training/filenames.csv, landmarks.csv (68 x, then 68 y, as fractions of width"
    " and height) and angles.csv, row i of the tables for line i of filenames.csv"
)


def aasce_patient(case: str) -> str:
    """Return the patient of a film: what its name says before the letter that numbers a patient's films.

    Args:
        case: file name without its suffix.

    Example:
        >>> aasce_patient("sunhl-1th-02-Jan-2017-162 A AP") == aasce_patient("sunhl-1th-02-Jan-2017-162 B AP")
        True
        >>> aasce_patient("sunhl-1th-20-Jul-2016-coronal1")  # without a letter a film is taken for its own patient
        'sunhl-1th-20-Jul-2016-coronal1'
    """
    return re.sub(r" [A-Z] AP.*$", "", case)


def aasce_datalist(
    dataset_dir: str | Path,
    part: str | None = None,
    num_validation: int = 40,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """List the spine films of one part of a patient-wise split with their 68 corners.

    World is **thousandths of the film's height**, since no pixel size is known: ``world = 1000 * (x, y) / H`` with ``x``
    and ``y`` counted in pixels from the film's upper left corner. A fraction is taken to be one of the whole extent, so the
    centre of the first pixel lies at ``0.5 / W`` and the pixel index of a corner is ``fraction * (W, H) - 0.5``; pixels
    have the size ``1000 / H`` in both axes and the origin is half of it. The files do not say whether the fractions were
    made from indices that begin with 0 or with 1; the convention here lies between, half an original pixel (about 0.3
    thousandths) from both.

    The test part is drawn by patient (:func:`aasce_patient`, 248 of them), then the validation part from the rest. Names
    with another date but the same number (``03-Jan-2017-165 A``, ``04-Jan-2017-165 B``) continue each other's letters
    and stay in the same part, too. Corners are handed on as they were annotated: some are visibly off, and in some films
    the order of the vertebrae is not kept, see :func:`aasce_disordered_films`. A phantom written in this layout is read as
    the real set is.

    Args:
        dataset_dir: folder with ``data/training`` and ``labels/training``.
        part: ``"train"``, ``"validation"``, ``"test"``, ``"training"`` (train and validation), or None for all films.
        num_validation: least number of validation films; whole patients are drawn until it is reached.
        test_fraction: least part of all films to hold out.
        seed: of both draws.

    Returns:
        One dictionary per film, sorted by name: ``image`` (path), ``landmarks`` (float64 ``(68, 2)``, world, order of
        ``AASCE_LANDMARKS``), ``case`` (file name without suffix), ``patient``, ``pixel_size`` and ``origin`` (x and y,
        world) and ``angles`` (float64 ``(3,)``, the Cobb angles of the table in degrees).

    Raises:
        FileNotFoundError: when the folder, tables or films are missing; each is named.
        LandmarkError: when a table is not the challenge's, or the tables disagree in their rows.
        ValueError: for an unknown part, or numbers that leave a part empty.

    Example:
        >>> aasce_datalist("/no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: AASCE folder /no/such/folder does not exist; expected data/training/*.jpg and...
    """
    root = Path(dataset_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"AASCE folder {root} does not exist; {LAYOUT}.")
    whole_phantom_parameters(root)
    images, fractions, angles = _read_tables(root)
    chosen = set(_select(list(images), part, num_validation, test_fraction, seed))
    rows = zip(images.items(), fractions, angles, strict=True)
    entries = [_entry(case, path, points, angle) for (case, path), points, angle in rows if case in chosen]
    return sorted(entries, key=lambda entry: entry["case"])


def aasce_disorders(landmarks: Any) -> tuple[str, ...]:
    """Say which vertebrae and corners of a film are not in the order of their names; a usual film has none.

    Films stand upright. The centre of each vertebra must lie below that of the one before it, and its corners must run round
    a convex body, from the top left one to the top right, the bottom right and the bottom left, however much it is tilted.

    Args:
        landmarks: corners ``(68, 2)``, x to the right and y downwards, in the same unit, such as ``landmarks`` of an entry
            of :func:`aasce_datalist`. NaN for missing: what depends on such a corner is not checked.

    Returns:
        One sentence for each finding, which begins with the name of the vertebra.

    Raises:
        LandmarkError: for another shape.

    Example:
        >>> body = np.array([(0, 0), (3, 0), (0, 2), (3, 2)])
        >>> film = np.concatenate([body + (0, 3 * number) for number in range(17)])
        >>> aasce_disorders(film)
        ()
        >>> film[[0, 1]] = film[[1, 0]]
        >>> aasce_disorders(film)
        ('T1: its corners do not run round a body; see T1_top_left, T1_top_right.',)
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (len(AASCE_LANDMARKS), 2):
        raise LandmarkError(f"landmarks of one film must have shape ({len(AASCE_LANDMARKS)}, 2), got {points.shape}.")
    corners = points.reshape(len(VERTEBRAE), len(CORNERS), 2)
    depth = corners[..., 1].mean(axis=1)
    ring = corners[:, (0, 1, 3, 2)]
    after, before = np.roll(ring, -1, axis=1) - ring, ring - np.roll(ring, 1, axis=1)
    turns = before[..., 0] * after[..., 1] - before[..., 1] * after[..., 0]
    findings = []
    for number, name in enumerate(VERTEBRAE):
        if number and depth[number] <= depth[number - 1]:
            above = int((depth[:number] >= depth[number]).sum())
            findings.append(f"{name}: its centre lies above those of {above} of the {number} vertebrae before it.")
        if (turns[number] <= 0).any():
            wrong = [f"{name}_{CORNERS[(0, 1, 3, 2)[place]]}" for place in np.flatnonzero(turns[number] <= 0)]
            wrong.sort(key=AASCE_LANDMARKS.index)
            findings.append(f"{name}: its corners do not run round a body; see {', '.join(wrong)}.")
    return tuple(findings)


def aasce_disordered_films(dataset_dir: str | Path) -> dict[str, tuple[str, ...]]:
    """List the films whose vertebrae or corners are not in the order of their names, by :func:`aasce_disorders`.

    Of the 481 training films these are 27. In 18 of them what is called L5 lies above T1, as if all names were moved by one.
    The table's Cobb angles agree with these corners as they do in other films: they were computed from them.

    Args:
        dataset_dir: as for :func:`aasce_datalist`.

    Returns:
        What was found, by case, sorted; films in order are not listed.

    Raises:
        FileNotFoundError: as :func:`aasce_datalist`.
        LandmarkError: as :func:`aasce_datalist`.

    Example:
        >>> aasce_disordered_films("/no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: AASCE folder /no/such/folder does not exist; expected data/training/*.jpg and...
    """
    found = {entry["case"]: aasce_disorders(entry["landmarks"]) for entry in aasce_datalist(dataset_dir)}
    return {case: disorders for case, disorders in found.items() if disorders}


def _select(cases: Sequence[str], part: str | None, num_validation: int, test_fraction: float, seed: int) -> list[str]:
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must lie between 0 and 1, got {test_fraction}.")
    if part is None:
        return sorted(cases)
    part = look_up_option(part, ("train", "validation", "test", "training"))
    num_test = int(np.ceil(test_fraction * len(cases)))
    held_out = "validation" if part == "test" else "train"
    first = select_part(cases, held_out, num_test, seed, _number)
    return first if part in ("test", "training") else select_part(first, part, num_validation, seed, _number)


def _number(case: str) -> str:
    """The number that ends a patient's name, or the name."""
    patient = aasce_patient(case)
    found = re.search(r"-(\d+)$", patient)
    return found.group(1) if found else patient


def _entry(case: str, path: Path, fractions: np.ndarray, angles: np.ndarray) -> dict[str, Any]:
    with PILImage.open(path) as image:
        width, height = image.size
    return {
        "image": str(path),
        "landmarks": fractions * (1000 * width / height, 1000),
        "case": case,
        "patient": aasce_patient(case),
        "pixel_size": (1000 / height,) * 2,
        "origin": (500 / height,) * 2,
        "angles": angles,
    }


def _read_tables(root: Path) -> tuple[dict[str, Path], np.ndarray, np.ndarray]:
    """Films by case, their fractions ``(n, 68, 2)`` and their angles ``(n, 3)``, in the order of the tables."""
    names, landmarks, angles = (root / "labels" / "training" / f"{n}.csv" for n in ("filenames", "landmarks", "angles"))
    absent = [str(path) for path in (names, landmarks, angles) if not path.is_file()]
    if absent:
        raise FileNotFoundError(f"{', '.join(absent)} missing; {LAYOUT}.")
    files = [line.strip() for line in names.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    images = {Path(file).stem: root / "data" / "training" / file for file in files}
    if len(images) < len(files):
        twice = sorted({file for file in files if files.count(file) > 1}) or "names that differ in their suffix only"
        raise LandmarkError(f"{names} names films twice, expected each once: {twice}.")
    lacking = [path.name for path in images.values() if not path.is_file()]
    if lacking:
        raise FileNotFoundError(
            f"{len(lacking)} of {len(files)} films of {names.name} are not in {root / 'data' / 'training'}: "
            f"{', '.join(lacking)}."
        )
    points = _read_numbers(landmarks, files, 2 * len(AASCE_LANDMARKS)).reshape(len(files), 2, -1).swapaxes(1, 2)
    points[np.isnan(points).any(axis=-1)] = np.nan
    _check_range(landmarks, files, points)
    return images, points, _read_numbers(angles, files, 3)


def _read_numbers(path: Path, files: Sequence[str], columns: int) -> np.ndarray:
    """The numbers of a table without header, float64 ``(n, columns)``; each row belongs to a film."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if len(rows) != len(files):
        raise LandmarkError(
            f"{path} has {len(rows)} rows for {len(files)} names in filenames.csv, expected one for each. Were lines added "
            "or lost? Row i belongs to line i, so every row after it would be of another film."
        )
    values = np.empty((len(rows), columns))
    for index, row in enumerate(rows):
        if len(row) != columns:
            raise LandmarkError(f"{path}, row {index + 1} ({files[index]}) has {len(row)} columns, expected {columns}.")
        try:
            values[index] = [float(cell) for cell in row]
        except ValueError as error:
            raise LandmarkError(f"{path}, row {index + 1} ({files[index]}): {error}.") from None
    return values


def _check_range(path: Path, files: Sequence[str], points: np.ndarray) -> None:
    """Refuse what is no fraction; NaN is a missing corner."""
    wrong = ((points < -MARGIN) | (points > 1 + MARGIN)).any(axis=-1)
    if wrong.any():
        row, corner = np.argwhere(wrong)[0]
        x, y = points[row, corner]
        raise LandmarkError(
            f"{path}, row {row + 1} ({files[row]}), {AASCE_LANDMARKS[corner]}: ({x:g}, {y:g}) is not on the film, expected "
            "fractions of width and height between 0 and 1. Are these pixels?"
        )
