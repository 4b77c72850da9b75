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

"""ISBI 2015 cephalometric challenge: 400 lateral head films, 19 landmarks, two readers (Wang et al., MedIA 2016)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import look_up_option, optional_import

from monai_landmarks.geometry import LandmarkError

from .phantom_marker import whole_phantom_parameters
from .splits import select_part

PILImage, _ = optional_import("PIL.Image")

__all__ = ["ISBI2015_LANDMARKS", "isbi2015_datalist", "isbi2015_points"]

ISBI2015_LANDMARKS: tuple[str, ...] = (
    "sella",
    "nasion",
    "orbitale",
    "porion",
    "subspinale_A",
    "supramentale_B",
    "pogonion",
    "menton",
    "gnathion",
    "gonion",
    "lower_incisal_incision",
    "upper_incisal_incision",
    "upper_lip",
    "lower_lip",
    "subnasale",
    "soft_tissue_pogonion",
    "posterior_nasal_spine",
    "anterior_nasal_spine",
    "articulare",
)
"""The 19 landmarks in the order of the challenge's point files."""

ORIGINAL_SIZE = (1935, 2400)
"""Width and height of an original film in pixels."""

ORIGINAL_PIXELS_PER_MM = 10
"""Original pixels are 0.1 mm. Dividing by 10 (instead of multiplying by 0.1) is undone exactly by multiplying by 10."""

MARGIN = 50
"""Original pixels by which a point may lie off the film: a reader may place a structure that is just cut off."""

IMAGE_SUFFIXES = (".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".png")

SECTIONS: dict[str, tuple[int, int]] = {"training": (1, 150), "test1": (151, 300), "test2": (301, 400)}
"""First and last film number of each section of the challenge."""

OFFICIAL_FOLDERS = {"training": "TrainingData", "test1": "Test1Data", "test2": "Test2Data"}

READERS = ("junior", "senior")

LAYOUT = (
    "expected RawImage/TrainingData/001.bmp ... 150, RawImage/Test1Data/151 ... 300, RawImage/Test2Data/301 ... 400"
    " and the readers' points in 400_junior/NNN.txt and 400_senior/NNN.txt"
)


def isbi2015_datalist(
    dataset_dir: str | Path,
    section: str = "training",
    annotator: str = "mean",
    part: str | None = None,
    num_validation: int = 30,
    seed: int = 0,
    allow_incomplete: bool = False,
) -> list[dict[str, Any]]:
    """List the films of one section of the ISBI 2015 challenge with their landmarks in the film plane.

    Cases are chosen by film number, not by folder, because repacks move films: all 400 in one ``raw`` folder, or
    151-400 in ``Test1Data``. Films may be the original 1935 x 2400 or an exact box reduction of them by an integer
    ``k``, 968 x 1200 for ``k = 2`` (sizes round up); which one is read from the image's header.

    World is the film plane: ``world_mm = 0.1 * original_pixel (x, y)``. For a film reduced by ``k`` the original
    pixel of ``x_here`` is ``k * (x_here + 0.5) - 0.5``, so its affine has ``0.1 * k`` on the diagonal and the origin
    ``0.05 * (k - 1)`` in both axes.

    Args:
        dataset_dir: folder with ``RawImage``, ``400_junior`` and ``400_senior`` (``AnnotationsByMD/400_junior`` and
            ``AnnotationsByMD/400_senior`` are found too). A phantom written in this layout is complete when it holds
            the films it says it holds.
        section: ``"training"`` (001-150), ``"test1"`` (151-300) or ``"test2"`` (301-400).
        annotator: whose points ``"landmarks"`` holds: ``"mean"`` of the two readers, ``"junior"`` or ``"senior"``.
            The names are those of the folders; SCN's "challenge" points are the senior reader's.
        part: None for the whole section; ``"train"`` or ``"validation"`` for a fixed split of the training section.
            Nothing is ever validated on a test section.
        num_validation: number of validation films.
        seed: seed of the split.
        allow_incomplete: take a section of which films are missing instead of refusing it.

    Returns:
        One dictionary per film, sorted by number: ``image`` (path), ``landmarks``, and ``landmarks_junior`` and
        ``landmarks_senior`` (float64 ``(19, 2)``, world mm, order of ``ISBI2015_LANDMARKS``; a reader that was not
        asked for and has no folder is left out), ``case`` (``"001"``), ``pixel_size`` and ``origin`` (mm, x and y),
        ``original_size`` (width, height) and ``reduction`` (``k``).

    Raises:
        FileNotFoundError: when the folder, films or point files are missing; every missing film is named.
        LandmarkError: when a point file or the size of a film is not the challenge's.
        ValueError: when an option is unknown, or a part of a test section is asked for.

    Example:
        >>> isbi2015_datalist("/no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: ISBI 2015 folder /no/such/folder does not exist; expected RawImage/...
    """
    section = look_up_option(section, tuple(SECTIONS))
    annotator = look_up_option(annotator, ("mean", *READERS))
    if part is not None and section != "training":
        raise ValueError(
            f"part={part!r} was asked of section {section!r}, but only the training section is split: a test section"
            " is scored whole and never chosen on. Leave part=None."
        )
    root = _check_folder(dataset_dir)
    images = _find_images(root, section, allow_incomplete)
    cases = select_part(list(images), part, num_validation, seed)
    folders = _reader_folders(root, annotator)
    points = {reader: _read_all(folder, cases) for reader, folder in folders.items()}
    entries = []
    for index, case in enumerate(cases):
        reduction = _reduction(images[case])
        readers = {reader: array[index] for reader, array in points.items()}
        entries.append(
            {
                "image": str(images[case]),
                "landmarks": _annotation(readers, annotator) / ORIGINAL_PIXELS_PER_MM,
                **{f"landmarks_{reader}": array / ORIGINAL_PIXELS_PER_MM for reader, array in readers.items()},
                "case": case,
                "pixel_size": (reduction / ORIGINAL_PIXELS_PER_MM,) * 2,
                "origin": ((reduction - 1) / (2 * ORIGINAL_PIXELS_PER_MM),) * 2,
                "original_size": ORIGINAL_SIZE,
                "reduction": reduction,
            }
        )
    return entries


def isbi2015_points(
    dataset_dir: str | Path, section: str = "training", annotator: str = "mean", allow_incomplete: bool = False
) -> tuple[list[str], np.ndarray]:
    """Read one section's table of points, without looking at the films.

    Args:
        dataset_dir: folder with ``400_junior`` and ``400_senior``.
        section: ``"training"``, ``"test1"`` or ``"test2"``.
        annotator: ``"mean"``, ``"junior"`` or ``"senior"``.
        allow_incomplete: take the point files there are instead of refusing an incomplete section.

    Returns:
        The ``n`` case names, sorted, and the points, float64 ``(n, 19, 2)``, in world mm of the film plane. Ten times
        a point is exactly the original pixel (or half pixel, for the mean).

    Raises:
        FileNotFoundError: when the folder or point files are missing.
        LandmarkError: when a point file is not the challenge's.
        ValueError: when an option is unknown.

    Example:
        >>> isbi2015_points("/no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: ISBI 2015 folder /no/such/folder does not exist; expected RawImage/...
    """
    section = look_up_option(section, tuple(SECTIONS))
    annotator = look_up_option(annotator, ("mean", *READERS))
    root = _check_folder(dataset_dir)
    folders = _reader_folders(root, annotator)
    wanted = _expected_cases(root, section)
    found = {path.stem for folder in folders.values() for path in folder.glob("*.txt")}
    cases = [case for case in wanted if case in found]
    missing = [case for case in wanted if case not in found]
    if not cases or (missing and not allow_incomplete):
        raise FileNotFoundError(_missing_text(root, section, "point files", wanted, missing))
    points = {reader: _read_all(folder, cases) for reader, folder in folders.items()}
    return cases, _annotation(points, annotator) / ORIGINAL_PIXELS_PER_MM


def _annotation(readers: Mapping[str, np.ndarray], annotator: str) -> np.ndarray:
    """The asked reader's points, or the mean of both, in original pixels."""
    if annotator != "mean":
        return readers[annotator]
    return (readers["junior"] + readers["senior"]) / 2


def _check_folder(dataset_dir: str | Path) -> Path:
    root = Path(dataset_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"ISBI 2015 folder {root} does not exist; {LAYOUT}.")
    return root


def _expected_cases(root: Path, section: str) -> list[str]:
    """Film numbers the section must hold: the challenge's, or those a phantom declares."""
    parameters = whole_phantom_parameters(root)
    if parameters is not None:
        return [str(case) for case in parameters["cases"][section]]
    first, last = SECTIONS[section]
    return [f"{number:03d}" for number in range(first, last + 1)]


def _image_folders(root: Path, section: str) -> list[Path]:
    """Folders that may hold films of the section, its own first, then those of known repacks."""
    names = [OFFICIAL_FOLDERS[section], *(n for s, n in OFFICIAL_FOLDERS.items() if s != section), "TestData", "."]
    candidates = [root / "RawImage" / name for name in names]
    candidates += [root / name for name in (*names[:-1], "raw", ".")]
    return [folder for folder in candidates if folder.is_dir()]


def _find_images(root: Path, section: str, allow_incomplete: bool) -> dict[str, Path]:
    wanted = _expected_cases(root, section)
    folders = _image_folders(root, section)
    found: dict[str, Path] = {}
    for folder in folders:
        here: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() not in IMAGE_SUFFIXES or not re.fullmatch(r"\d{1,3}", path.stem):
                continue
            case = f"{int(path.stem):03d}"
            if case in here:
                raise LandmarkError(
                    f"Film {case} lies twice in {folder}: {here[case].name} and {path.name}. Remove one of them."
                )
            here[case] = path
        # The first folder wins: a repack that keeps 301-400 in two folders holds the same films twice.
        found = {**here, **found}
    missing = [case for case in wanted if case not in found]
    if len(missing) == len(wanted) or (missing and not allow_incomplete):
        raise FileNotFoundError(_missing_text(root, section, "films", wanted, missing))
    return {case: found[case] for case in wanted if case in found}


def _missing_text(root: Path, section: str, what: str, wanted: Sequence[str], missing: Sequence[str]) -> str:
    if not wanted:
        return f"Section {section!r} of {root} has no {what}: the phantom was written without this section."
    text = f"Section {section!r} of {root} lacks {len(missing)} of {len(wanted)} {what}"
    if len(missing) == len(wanted):
        return f"{text}; {LAYOUT}. Is dataset_dir one level too high or too low?"
    return f"{text}: {_ranges(missing)}. Complete the folder, or say allow_incomplete=True to go on without them."


def _ranges(cases: Iterable[str]) -> str:
    """Write sorted numbers shortly, naming every one: 003, 007-011."""
    runs: list[list[int]] = []
    for number in sorted(int(case) for case in cases):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(f"{number:03d}" for number in run) for run in runs)


def _reader_folders(root: Path, annotator: str) -> dict[str, Path]:
    """Folder of each reader there is; the readers the annotation needs must be there."""
    folders: dict[str, Path] = {}
    for reader in READERS:
        candidates = [root / f"400_{reader}", root / "AnnotationsByMD" / f"400_{reader}"]
        existing = [folder for folder in candidates if folder.is_dir()]
        if existing:
            folders[reader] = existing[0]
        elif annotator in ("mean", reader):
            raise FileNotFoundError(
                f"Folder 400_{reader} with the {reader} reader's points is missing in {root} (and in"
                f" AnnotationsByMD); annotator={annotator!r} needs it. {LAYOUT[0].upper()}{LAYOUT[1:]}."
            )
    return folders


def _read_all(folder: Path, cases: Sequence[str]) -> np.ndarray:
    """Points of all cases by one reader, float64 ``(n, 19, 2)``, original pixels."""
    missing = [case for case in cases if not (folder / f"{case}.txt").is_file()]
    if missing:
        raise FileNotFoundError(f"{len(missing)} films have no point file in {folder}: {_ranges(missing)}.")
    return np.stack([_read_points(folder / f"{case}.txt") for case in cases])


def _read_points(path: Path) -> np.ndarray:
    """First 19 lines ``x,y`` in original pixels; the lines after them are the challenge's clinical classes."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    count = len(ISBI2015_LANDMARKS)
    rows = [line for line in lines[:count] if "," in line]
    if len(rows) < count:
        raise LandmarkError(
            f"{path} holds {len(rows)} points, expected {count} lines 'x,y' in original pixels, one per landmark from"
            f" {ISBI2015_LANDMARKS[0]} to {ISBI2015_LANDMARKS[-1]}. Was the file cut, or does it belong to another set?"
        )
    points = np.empty((count, 2))
    for index, row in enumerate(rows):
        try:
            points[index] = [float(cell) for cell in row.split(",")]
        except ValueError:
            raise LandmarkError(
                f"{path}, line {index + 1} ({ISBI2015_LANDMARKS[index]}) is {row!r}, expected two numbers 'x,y'."
            ) from None
    points[np.isnan(points).any(axis=-1)] = np.nan
    _check_range(path, points)
    return points


def _check_range(path: Path, points: np.ndarray) -> None:
    """A point far off the film betrays swapped axes or another pixel size; NaN is a missing landmark."""
    outside = (points < -MARGIN) | (points > np.asarray(ORIGINAL_SIZE) + MARGIN)
    if outside.any():
        index = int(np.argmax(outside.any(axis=-1)))
        x, y = points[index]
        raise LandmarkError(
            f"{path}, line {index + 1} ({ISBI2015_LANDMARKS[index]}): ({x:g}, {y:g}) is not on the original film of"
            f" {ORIGINAL_SIZE[0]} x {ORIGINAL_SIZE[1]} pixels. Points are x (right), then y (down), in pixels of the"
            " original film, also where the films are reduced."
        )


def _reduction(path: Path) -> int:
    """Integer ``k`` by which the film was reduced, from the size in its header."""
    with PILImage.open(path) as image:
        width, height = image.size
    k = max(1, round(ORIGINAL_SIZE[0] / max(width, 1)))
    if (width, height) == tuple(-(-size // k) for size in ORIGINAL_SIZE):
        return k
    hint = " The film lies on its side: width and height are swapped." if (height, width) == ORIGINAL_SIZE else ""
    raise LandmarkError(
        f"{path} is {width} x {height} pixels (width x height), expected the original"
        f" {ORIGINAL_SIZE[0]} x {ORIGINAL_SIZE[1]} or an exact box reduction of it by an integer (968 x 1200,"
        f" 645 x 800, 484 x 600, ...): with another size the points would not lie on the film.{hint}"
    )
