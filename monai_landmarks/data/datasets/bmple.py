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
"""BMPLE lower limb films: 190 frontal radiographs of both legs with 20 landmarks (Yao et al., CC2Dv2, 2022)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import look_up_option, optional_import

from monai_landmarks.geometry import LandmarkError

from .phantom_marker import whole_phantom_parameters
from .splits import select_part

PILImage, _ = optional_import("PIL.Image")

__all__ = ["BMPLE_LANDMARKS", "bmple_datalist"]

LIMB_LANDMARKS = (
    "femoral_head_center",
    "greater_trochanter_tip",
    "medial_femoral_condyle",
    "lateral_femoral_condyle",
    "knee_center",
    "medial_tibial_plateau",
    "lateral_tibial_plateau",
    "medial_tibial_plafond",
    "lateral_tibial_plafond",
    "ankle_center",
)
"""The ten of a leg from the hip down, as in Paley, Principles of Deformity Correction, 2002."""

BMPLE_LANDMARKS: tuple[str, ...] = tuple(f"{side}_{name}" for side in ("right", "left") for name in LIMB_LANDMARKS)
"""Names of the 20 points, the patient's right leg first.

**The names are ours.** The paper says that 1 to 10 are those of the right leg and 11 to 20 those of the left one; what each
of the ten is, it shows in a figure only, and neither the files nor the published program name them. These ten are what
standard deformity analysis needs. Where the films are at hand, look at the points on one of them first, and give
``bmple_datalist`` the places of the names in ``gt`` as ``points``, or your own names to everything that takes names.
"""

USED_POINTS = (*range(10), *range(13, 23))
"""Places in ``gt`` that the published program uses; 10 to 12 and those from 23 on it deletes."""

FOLDERS = {"training": "train", "test1": "test1", "test2": "test2", "test": "test"}
NUM_TRAINING = 120

MARGIN = 0.02
"""Fraction of the film's extent by which a point may lie off it."""

LAYOUT = (
    "expected train/1_384.png, train/1_meta.json ... train/120_384.png, and for each test section, such as test1, a list"
    " test1.json of film ids and test1/<id>_384.png, test1/<id>_meta.json"
)


def bmple_datalist(
    dataset_dir: str | Path,
    section: str = "training",
    part: str | None = None,
    num_validation: int = 20,
    seed: int = 0,
    points: Sequence[int] = USED_POINTS,
    allow_incomplete: bool = False,
) -> list[dict[str, Any]]:
    r"""List the lower limb films of one section with their landmarks in the plane of the original film.

    The films were published squeezed to 384 x 768 pixels (width x height), whatever their shape, while ``gt`` stands in
    pixels (x, y) of the original film: the published program multiplies it by 384 / width and 768 / height of
    ``original_shape``. World is millimetres of the original film, ``world = spacing * gt``, and a stored pixel covers
    ``f = original / stored`` original ones along each axis, half-pixel aligned:

    .. math:: \text{pixel size} = f \cdot \text{spacing}, \qquad \text{origin} = \tfrac12 (f - 1) \cdot \text{spacing}

    Pixels are therefore no squares, some 1.1 mm wide and 1.3 mm high. The stored size is read from each film's header, so
    that films of another size, or the original ones, are read as well. The published program rounds the points down to
    stored pixels, for the truth also, which moves them by half a millimetre towards the upper left corner; here they stay.

    Args:
        dataset_dir: folder with ``train``, ``test1`` and so on (``leg`` in the published archive). A phantom written in this
            layout is complete when it holds the films it says it holds.
        section: ``"training"`` (films 1 to 120), ``"test1"`` (20 films, mean of three experts), ``"test2"`` (50 films, one
            surgeon), or ``"test"``, a list of the published program that the paper does not mention.
        part: None for the whole section; ``"train"`` or ``"validation"`` for a fixed split of the training section, which
            the authors did not make. Nothing is ever validated on a test section.
        num_validation: number of validation films.
        seed: of the split.
        points: places in ``gt`` of the landmarks, 0-based, in the order of the names; the default is the program's choice.
        allow_incomplete: take a section of which films are missing instead of refusing it.

    Returns:
        One dictionary per film, sorted by id: ``image`` (path), ``landmarks`` (float64 ``(20, 2)``, world mm, order of
        ``BMPLE_LANDMARKS``, NaN for missing), ``case`` (the id; unique within a section), ``pixel_size`` and ``origin`` (mm,
        x and y) and ``original_size`` (width, height).

    Raises:
        FileNotFoundError: when folder, list, films or their ``_meta.json`` are missing; each is named.
        LandmarkError: when a list names a film twice, or a meta file is not as published: too few points, a spacing or shape
            that is not positive, points that are not on the original film or stand in other pixels than its.
        ValueError: for an unknown option, or a part of a test section.

    Example:
        >>> bmple_datalist("/no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: BMPLE folder /no/such/folder does not exist; expected train/1_384.png, ...
    """
    section = look_up_option(section, tuple(FOLDERS))
    if part is not None and section != "training":
        raise ValueError(
            f"part={part!r} was asked of section {section!r}, but only the training section is split: a test section is"
            " scored whole and never chosen on. Leave part=None."
        )
    if not points or min(points) < 0 or len(set(points)) < len(points):
        raise ValueError(f"points must be different places in `gt`, 0 or more, got {list(points)}.")
    root = Path(dataset_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"BMPLE folder {root} does not exist; {LAYOUT}.")
    folder = root / FOLDERS[section]
    cases = _find_films(folder, _ids(root, section), allow_incomplete)
    return [_entry(folder, case, points) for case in sorted(select_part(cases, part, num_validation, seed), key=_order)]


def _order(case: str) -> tuple[bool, int, str]:
    return (not case.isdigit(), int(case) if case.isdigit() else 0, case)


def _ids(root: Path, section: str) -> list[str]:
    """Ids of a section: those a phantom declares, 1 to 120, or the list of a test section."""
    parameters = whole_phantom_parameters(root)
    if parameters is not None:
        return [str(case) for case in parameters["cases"].get(section, ())]
    if section == "training":
        return [str(number) for number in range(1, NUM_TRAINING + 1)]
    path = root / f"{section}.json"
    values = _read_json(path)
    if not isinstance(values, list) or not all(isinstance(v, (int, str)) and not isinstance(v, bool) for v in values):
        raise LandmarkError(f"{path} must be a JSON list of film ids, such as [121, 122], got {str(values)[:60]}.")
    cases = [str(value) for value in values]
    twice = sorted({case for case in cases if cases.count(case) > 1}, key=_order)
    if twice:
        raise LandmarkError(f"{path} names films {', '.join(twice)} twice, expected each once.")
    return cases


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; {LAYOUT}.")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise LandmarkError(f"{path} is not readable JSON ({error}). Was the file cut?") from error


def _find_films(folder: Path, cases: Sequence[str], allow_incomplete: bool) -> list[str]:
    missing = [
        f"{case}{suffix}"
        for case in cases
        for suffix in ("_384.png", "_meta.json")
        if not (folder / f"{case}{suffix}").is_file()
    ]
    lacking = {name.rpartition("_")[0] for name in missing}
    if len(lacking) == len(cases):
        raise FileNotFoundError(
            f"{folder} holds none of the {len(cases)} films of its section; {LAYOUT}. Is dataset_dir one level too high or"
            " too low, or was a phantom written without this section?"
        )
    if missing and not allow_incomplete:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}. Complete the folder, or say allow_incomplete=True to go on without these"
            " films."
        )
    return [case for case in cases if case not in lacking]


def _entry(folder: Path, case: str, places: Sequence[int]) -> dict[str, Any]:
    path, meta = folder / f"{case}_384.png", folder / f"{case}_meta.json"
    with PILImage.open(path) as image:
        stored = np.array(image.size)
    values = _read_json(meta)
    lacking = [key for key in ("gt", "original_shape", "spacing") if not isinstance(values, dict) or key not in values]
    if lacking:
        raise LandmarkError(f"{meta} has no {', '.join(lacking)}; expected gt, original_shape and spacing.")
    # Both stand as (y, x); a third number of the shape would be the colours.
    original = _numbers(meta, "original_shape", values["original_shape"], 3)[::-1]
    spacing = _numbers(meta, "spacing", values["spacing"])[::-1]
    if np.prod(np.diff([original, stored])) < 0:
        raise LandmarkError(
            f"{path} is {stored[0]} x {stored[1]} pixels (width x height) and the original film of {meta.name} "
            f"{original[0]:g} x {original[1]:g}: one of them lies on its side. original_shape is height, then width."
        )
    pixels = _points(meta, values["gt"], places)
    _check_pixels(meta, pixels, original, stored)
    factor = original / stored
    return {
        "image": str(path),
        "landmarks": pixels * spacing,
        "case": case,
        "pixel_size": tuple((factor * spacing).tolist()),
        "origin": tuple(((factor - 1) / 2 * spacing).tolist()),
        "original_size": tuple(int(side) for side in original),
    }


def _numbers(meta: Path, key: str, values: Any, most: int = 2) -> np.ndarray:
    """The first two of two or more positive numbers."""
    try:
        numbers = np.array([float(value) for value in values])
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if not 2 <= len(numbers) <= most or not (np.isfinite(numbers) & (numbers > 0)).all():
        raise LandmarkError(f"{meta}: {key} must be two positive numbers, y before x, got {values!r}.")
    return numbers[:2]


def _points(meta: Path, values: Any, places: Sequence[int]) -> np.ndarray:
    """The points at some places of ``gt``, float64 ``(N, 2)``; null is a missing one."""
    count = len(values) if isinstance(values, list) else 0
    if count <= max(places):
        raise LandmarkError(
            f"{meta}: gt must be a list of at least {max(places) + 1} points [x, y], got {count}. The 20 landmarks are"
            " points 0 to 9 and 13 to 22 of it: were the others removed, give their places as points=."
        )
    rows = [(None, None) if values[place] is None else values[place] for place in places]
    try:
        points = np.array([[np.nan if number is None else float(number) for number in row] for row in rows])
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.shape != (len(places), 2) or np.isinf(points).any():
        raise LandmarkError(f"{meta}: every point of gt must be two numbers [x, y], or null where it is missing.")
    points[np.isnan(points).any(axis=-1)] = np.nan
    return points


def _check_pixels(meta: Path, pixels: np.ndarray, original: np.ndarray, stored: np.ndarray) -> None:
    """Points off the film, or all in its corner, betray other pixels than the original film's."""
    outside = ((pixels < -MARGIN * original) | (pixels > (1 + MARGIN) * original)).any(axis=-1)
    if outside.any():
        place = int(np.argmax(outside))
        (x, y), (width, height) = pixels[place], original
        raise LandmarkError(
            f"{meta}: landmark {place} at ({x:g}, {y:g}) is not on the original film of {width:g} x {height:g} pixels (width"
            " x height). Points are x (right), then y (down), in pixels of the original film: are the axes exchanged?"
        )
    placed = pixels[~np.isnan(pixels).any(axis=-1)]
    if len(placed) and (original > 1.5 * stored).all() and (placed <= stored).all():
        raise LandmarkError(
            f"{meta}: all points lie within {stored[0]} x {stored[1]}, the size of the stored film, while the original has "
            f"{original[0]:g} x {original[1]:g} pixels: they look like pixels of the stored film. Multiply them by original"
            " / stored size along each axis."
        )
