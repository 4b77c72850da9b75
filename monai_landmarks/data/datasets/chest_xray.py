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
"""Shenzhen chest films (CHNCXR) with the six lung landmarks of GU2Net's authors (Zhu et al., MICCAI 2021)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import look_up_option, optional_import

from monai_landmarks.geometry import LandmarkError

from .phantom_marker import whole_phantom_parameters

PILImage, _ = optional_import("PIL.Image")

__all__ = ["CHEST_XRAY_EXCLUDED", "CHEST_XRAY_LANDMARKS", "chest_xray_datalist"]

CHEST_XRAY_LANDMARKS: tuple[str, ...] = (
    "right_lung_top",
    "right_lung_bottom",
    "right_lung_lateral",
    "left_lung_top",
    "left_lung_bottom",
    "left_lung_lateral",
)
"""Top, bottom and outer boundary of the patient's right lung, which lies at the left of the picture, then of the left."""

CHEST_XRAY_EXCLUDED: tuple[str, ...] = tuple(
    f"CHNCXR_{number:04d}_0" for number in (59, 178, 228, 267, 276, 285, 295, 303, 310)
)
"""Films of normal lungs that GU2Net's authors leave out."""

SECTIONS = {"train": (0, 195), "validation": (195, 229), "test": (229, 279)}
"""First film and first film no more of each published section, in the order of names."""

NUM_CASES = 279

GRID = 512
"""Width and height of the published grid, in whose pixels errors are measured."""

LAYOUT = (
    "expected pngs/CHNCXR_XXXX_0.png and labels/CHNCXR_XXXX_0.txt, each with the count 6 and then six lines 'x y', "
    "fractions of width and height"
)


def chest_xray_datalist(
    dataset_dir: str | Path,
    section: str | None = None,
    exclude: Collection[str] = CHEST_XRAY_EXCLUDED,
    allow_incomplete: bool = False,
) -> list[dict[str, Any]]:
    """List the chest films of one section of GU2Net's split with their six landmarks.

    Films of normal lungs (names ending in ``0``) are used, without the excluded ones; the first 195 in the order of
    their names are for training, the next 34 for validation, the last 50 for the test. The split is counted on the label
    files: a film that is missing in ``pngs`` is an error, or absent where ``allow_incomplete``, and moves no other film
    to another section.

    World is **pixels of the film resized to 512 x 512**, as published, since no pixel size is known. A resize maps the
    film's whole extent, so that ``world = (index + 0.5) * 512 / (W, H) - 0.5``: pixels have the size
    ``(512 / W, 512 / H)`` and the origin ``0.5 * pixel_size - 0.5``. A fraction is taken to be one of the whole extent,
    ``world = 512 * fraction - 0.5``; the published program reads it half a pixel further, and rounds.

    Args:
        dataset_dir: folder with ``pngs`` and ``labels``. A phantom written in this layout is complete when it holds the
            films it says it holds, in the sections it says.
        section: ``"train"``, ``"validation"``, ``"test"``, or None for all films.
        exclude: cases that are left out; not looked at in a phantom.
        allow_incomplete: take the films there are. Where label files are missing, too, sections are counted on those there
            are and are not the published ones.

    Returns:
        One dictionary per film, sorted by name: ``image`` (path), ``landmarks`` (float64 ``(6, 2)``, world, order of
        ``CHEST_XRAY_LANDMARKS``), ``case`` (``"CHNCXR_0001_0"``), ``pixel_size`` and ``origin`` (x and y, world).

    Raises:
        FileNotFoundError: when the folder, films or label files are missing; every missing film is named.
        LandmarkError: when the number of usable label files is not 279, or a label file is not of this form.
        ValueError: for an unknown section.

    Example:
        >>> chest_xray_datalist("/no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: chest film folder /no/such/folder does not exist; expected pngs/CHNCXR_XXXX_0.png and...
    """
    section = None if section is None else look_up_option(section, tuple(SECTIONS))
    root = Path(dataset_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"chest film folder {root} does not exist; {LAYOUT}.")
    sections = _sections(root, exclude, allow_incomplete)
    wanted = sorted(case for name, cases in sections.items() if section in (None, name) for case in cases)
    images = {case: root / "pngs" / f"{case}.png" for case in wanted}
    lacking = [case for case, path in images.items() if not path.is_file()]
    if len(lacking) == len(wanted) or (lacking and not allow_incomplete):
        raise FileNotFoundError(_missing_text(root, section, wanted, lacking))
    return [_entry(case, path, root / "labels" / f"{case}.txt") for case, path in images.items() if path.is_file()]


def _sections(root: Path, exclude: Collection[str], allow_incomplete: bool) -> dict[str, Sequence[str]]:
    """The cases of each section: counted on the label files, or those a phantom declares."""
    parameters = whole_phantom_parameters(root)
    if parameters is not None:
        return {str(name): list(cases) for name, cases in parameters["cases"].items()}
    labels = sorted(path.stem for path in (root / "labels").glob("*_0.txt"))
    usable = [case for case in labels if case not in set(exclude)]
    if not usable:
        raise FileNotFoundError(f"{root} has no usable file labels/*_0.txt; {LAYOUT}.")
    if len(usable) != NUM_CASES and not allow_incomplete:
        raise LandmarkError(
            f"{root / 'labels'} has {len(labels)} files *_0.txt, {len(usable)} without the excluded ones, expected "
            f"{NUM_CASES}: with another number the sections, which are counted in the order of names, are not the published "
            "ones. Complete the folder, correct `exclude`, or say allow_incomplete=True to take what is there."
        )
    return {name: usable[first:last] for name, (first, last) in SECTIONS.items()}


def _missing_text(root: Path, section: str | None, wanted: Sequence[str], lacking: Sequence[str]) -> str:
    part = "all sections" if section is None else f"section {section!r}"
    if not wanted:
        return f"{part} of {root} has no films: there are too few label files, or the phantom was written without it."
    text = f"{root / 'pngs'} lacks {len(lacking)} of {len(wanted)} films of {part}"
    if len(lacking) == len(wanted):
        return f"{text}; {LAYOUT}. Is dataset_dir one level too high or too low?"
    return f"{text}: {', '.join(lacking)}. Complete the folder, or say allow_incomplete=True to go on without them."


def _entry(case: str, image_path: Path, label_path: Path) -> dict[str, Any]:
    if not label_path.is_file():
        raise FileNotFoundError(f"film {image_path.name} has no label file {label_path}; {LAYOUT}.")
    with PILImage.open(image_path) as image:
        size = GRID / np.asarray(image.size, dtype=np.float64)
    return {
        "image": str(image_path),
        "landmarks": GRID * _read_fractions(label_path) - 0.5,
        "case": case,
        "pixel_size": tuple(size.tolist()),
        "origin": tuple((0.5 * size - 0.5).tolist()),
    }


def _read_fractions(path: Path) -> np.ndarray:
    """Fractions of width and height ``(6, 2)``; NaN is a missing landmark."""
    count = len(CHEST_XRAY_LANDMARKS)
    first, *lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()] or [""]
    if first != str(count) or len(lines) != count:
        raise LandmarkError(
            f"{path} begins with {first!r} and has {len(lines)} lines after it, expected the count {count} and then {count} "
            "lines 'x y'. Was the file cut, or does it belong to another set?"
        )
    points = np.empty((count, 2))
    for index, line in enumerate(lines):
        where = f"{path}, line {index + 2} ({CHEST_XRAY_LANDMARKS[index]})"
        try:
            x, y = (float(cell) for cell in line.split())
        except ValueError:
            raise LandmarkError(f"{where} is {line!r}, expected two numbers 'x y'.") from None
        if min(x, y) < 0 or max(x, y) > 1:
            raise LandmarkError(
                f"{where} is {line!r}, expected fractions of width and height between 0 and 1. Are these pixels?"
            )
        points[index] = x, y
    points[np.isnan(points).any(axis=-1)] = np.nan
    return points
