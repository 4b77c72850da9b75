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
"""Digital Hand Atlas: 910 films of left hands with the 37 landmarks of Payer et al. (MedIA 2019), and its two splits."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import look_up_option, optional_import

from monai_landmarks.geometry import LandmarkError

from .phantom_marker import whole_phantom_parameters
from .splits import select_part

PILImage, _ = optional_import("PIL.Image")

__all__ = ["HAND_XRAY_LANDMARKS", "hand_xray_datalist", "hand_xray_points"]

HAND_XRAY_LANDMARKS: tuple[str, ...] = (
    *("ulna_ulnar_corner", "ulnar_styloid", "ulna_radial_corner"),
    *("radius_ulnar_corner", "radius_radial_corner", "radial_styloid"),
    *("triquetrum_proximal", "lunate_proximal", "scaphoid_proximal", "hamate_proximal", "capitate_proximal"),
    *("trapezoid_proximal", "trapezium_proximal"),
    *(f"metacarpal_{number}_base" for number in (5, 4, 3, 2, 1)),
    *("thumb_proximal_phalanx_base", "thumb_distal_phalanx_base", "thumb_distal_phalanx_tip"),
    *(
        f"{finger}_{point}"
        for finger in ("index", "middle", "ring", "little")
        for point in ("proximal_phalanx_base", "middle_phalanx_base", "distal_phalanx_base", "distal_phalanx_tip")
    ),
)
"""The 37 landmarks in the order of the table. The table has no names: these are ours, given after looking at the points on
films. The corners of ulna and radius are those of the shaft's broad end at its growth plate, or where that was."""

MARGIN = 10
"""Pixels by which a point may lie off the film: the readers' points lie on it."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
IMAGE_FOLDERS = ("jpg", "images", ".")
TABLES = ("all.csv", "setup/all.csv", "all_910_landmarks_px.csv")
FOLD_FOLDERS = ("setup/cv", "setup_cv", "cv")

GU2NET_SECTIONS: dict[str, tuple[int, int, int]] = {
    "train": (3143, 5394, 550),
    "validation": (5395, 5567, 59),
    "test": (5577, 7293, 300),
}
"""First and last film number of each section of GU2Net's split and how many rows of the table lie between them."""

FOLDS = ("cv1", "cv2", "cv3")
SECTIONS = ("train", "validation", "training", "test")

WRIST_MM = 50.0
PAYER_WRIST, GU2NET_WRIST = (1, 5), (0, 4)

LAYOUT = (
    "expected a table all.csv (or setup/all.csv, all_910_landmarks_px.csv) of rows 'image_id, x0, y0, ..., x36, y36'"
    " without a header, films jpg/<image_id>.jpg (or images/<image_id>.png), and for three-fold cross-validation the"
    " lists setup/cv/set1/train.txt, test.txt, ... set3 (or setup_cv/set1/...)"
)


def hand_xray_datalist(
    dataset_dir: str | Path,
    section: str | None = "train",
    split: str = "gu2net",
    wrist: Sequence[int | str] | None = None,
    num_validation: int = 60,
    seed: int = 0,
    annotations: str | Path | None = None,
    allow_incomplete: bool = False,
) -> list[dict[str, Any]]:
    r"""List the hand films of one section of a published split with their landmarks in the film plane.

    The films carry no pixel size. As published, millimetres come from the annotated points themselves, by taking the
    width of every wrist as 50 mm:

    .. math:: \text{pixel size} = 50 \,\text{mm} / \lVert p_a - p_b \rVert

    with points (0-based) ``(1, 5)``, the two styloids, in Payer et al. and FARNet, and ``(0, 4)``, the outer corners of
    ulna and radius, in GU2Net and CC2D. Over the table the second distance is 1.08 times the first (median 1.07), so the
    same error in pixels is 7 to 8 % smaller in GU2Net's millimetres. World is the film plane, ``world = pixel size *
    (x, y)``: its unit is known for films whose truth is known. For a new film without points, pixels are the world.

    GU2Net's split is 550 films for training, 59 for validation, 300 for test; film 3142 is left out, as there. Its
    program cuts the sorted list of the films it finds, so that one missing film moves all borders. Here the borders are
    film numbers and cannot move. Payer's folds have two lists each, of 597 (596) and 298 (299) films; the validation
    films are drawn from the first. 15 rows of the table are in no fold.

    Args:
        dataset_dir: folder with table, films and lists, in GU2Net's layout (``all.csv``, ``jpg``) or Payer's
            (``setup/all.csv``, ``setup/cv``, ``images``). A phantom written in this layout is complete when it holds the
            films it says it holds.
        section: ``"train"``, ``"validation"``, ``"training"`` (both together), ``"test"``, or None for all of the split.
        split: ``"gu2net"``, ``"cv1"``, ``"cv2"``, ``"cv3"``, or ``"all"`` with ``section=None``: every film of the folder
            that has a row, for work with few films.
        wrist: the two points that are 50 mm apart, 0-based or by name. None takes those of the split's publication:
            ``(0, 4)`` for ``"gu2net"``, ``(1, 5)`` else.
        num_validation: number of validation films of a fold; GU2Net's are fixed.
        seed: of the draw of a fold's validation films.
        annotations: path of the table, where it lies elsewhere.
        allow_incomplete: leave out films that are missing, and rows of GU2Net's split that are, instead of refusing the
            section. The other films stay in their sections.

    Returns:
        One dictionary per film, sorted by number: ``image`` (path), ``landmarks`` (float64 ``(37, 2)``, world mm, order
        of ``HAND_XRAY_LANDMARKS``), ``case`` (``"3143"``), ``pixel_size`` (mm, x and y, equal) and ``origin`` (zeros).
        Films must have the size they were annotated at: a reduced copy is refused where points fall off it.

    Raises:
        FileNotFoundError: when folder, table, lists or films are missing; every missing film is named.
        LandmarkError: when the table or a list is not as published, a point lies off its film, or the wrist has no width.
        ValueError: when an option is unknown.

    Example:
        >>> hand_xray_datalist("/no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: hand X-ray folder /no/such/folder does not exist; expected a table all.csv ...
    """
    split = look_up_option(split, ("gu2net", *FOLDS, "all"))
    if section is not None:
        section = look_up_option(section, SECTIONS)
        if split == "all":
            raise ValueError(f"split='all' has no sections, got section={section!r}; leave section=None.")
    pair = _wrist_points(wrist, GU2NET_WRIST if split == "gu2net" else PAYER_WRIST)
    root = _check_folder(dataset_dir)
    table = _read_table(_find_table(root, annotations))
    films = _find_films(root)
    if split == "all":
        cases = [case for case in table if case in films]
    elif split == "gu2net":
        cases = _gu2net_cases(root, table, section, allow_incomplete)
    else:
        cases = _fold_cases(root, table, split, section, num_validation, seed)
    _check_films(root, cases, films, section, split, allow_incomplete)
    present = sorted((case for case in cases if case in films), key=int)
    return [_entry(case, films[case], table[case], pair) for case in present]


def hand_xray_points(dataset_dir: str | Path, annotations: str | Path | None = None) -> tuple[list[str], np.ndarray]:
    """Read the whole table of points, without looking at the films.

    Args:
        dataset_dir: folder with the table.
        annotations: path of the table, where it lies elsewhere.

    Returns:
        The film numbers, sorted, and the points, float64 ``(n, 37, 2)``, pixels (x, y) of the original film.

    Raises:
        FileNotFoundError: when folder or table are missing.
        LandmarkError: when the table is not as published.

    Example:
        >>> hand_xray_points("/no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: hand X-ray folder /no/such/folder does not exist; expected a table all.csv ...
    """
    table = _read_table(_find_table(_check_folder(dataset_dir), annotations))
    cases = sorted(table, key=int)
    return cases, np.stack([table[case] for case in cases])


def _wrist_points(wrist: Sequence[int | str] | None, default: tuple[int, int]) -> tuple[int, int]:
    if wrist is None:
        return default
    known = {name: index for index, name in enumerate(HAND_XRAY_LANDMARKS)}
    pair = [known.get(point, -1) if isinstance(point, str) else int(point) for point in wrist]
    if len(pair) != 2 or pair[0] == pair[1] or not all(0 <= index < len(known) for index in pair):
        raise ValueError(
            f"wrist must be two different landmarks, by 0-based number (0 to {len(known) - 1}) or by name, such as"
            f" {PAYER_WRIST} or ('{HAND_XRAY_LANDMARKS[1]}', '{HAND_XRAY_LANDMARKS[5]}'), got {wrist!r}."
        )
    return pair[0], pair[1]


def _check_folder(dataset_dir: str | Path) -> Path:
    root = Path(dataset_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"hand X-ray folder {root} does not exist; {LAYOUT}.")
    whole_phantom_parameters(root)
    return root


def _find_table(root: Path, annotations: str | Path | None) -> Path:
    candidates = [root / name for name in TABLES] if annotations is None else [Path(annotations)]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        where = f"{root} holds no table of points" if annotations is None else f"table {annotations} does not exist"
        raise FileNotFoundError(f"{where}; {LAYOUT}. Is dataset_dir one level too high or too low?")
    return path


def _read_table(path: Path) -> dict[str, np.ndarray]:
    """Points of every film in pixels, float64 ``(37, 2)``, by film number; an empty or NaN cell is a missing landmark."""
    table: dict[str, np.ndarray] = {}
    columns = 1 + 2 * len(HAND_XRAY_LANDMARKS)
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [(number, row) for number, row in enumerate(csv.reader(file), start=1) if any(row)]
    for number, row in rows:
        if len(row) != columns or not row[0].strip().isdigit():
            raise LandmarkError(
                f"{path}, line {number} has {len(row)} columns and begins with {row[0]!r}, expected {columns}: a film"
                " number and x, y of 37 points, without a header. Is it another table?"
            )
        case = str(int(row[0]))
        if case in table:
            raise LandmarkError(f"{path}, line {number}: film {case} has a second row, expected one per film.")
        table[case] = _parse_points(f"{path}, line {number} (film {case})", row[1:])
    if not table:
        raise LandmarkError(f"{path} is empty; {LAYOUT}.")
    return table


def _parse_points(where: str, cells: Sequence[str]) -> np.ndarray:
    try:
        points = np.array([float(cell) if cell.strip() else np.nan for cell in cells]).reshape(-1, 2)
    except ValueError as error:
        raise LandmarkError(f"{where}: {error}; expected pixels of the original film.") from None
    points[~np.isfinite(points).all(axis=-1)] = np.nan
    return points


def _find_films(root: Path) -> dict[str, Path]:
    """Films by number; the first folder that holds one wins."""
    found: dict[str, Path] = {}
    for folder in (root / name for name in IMAGE_FOLDERS):
        here: dict[str, Path] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix.lower() not in IMAGE_SUFFIXES or not path.stem.isdigit():
                continue
            case = str(int(path.stem))
            if case in here:
                raise LandmarkError(
                    f"Film {case} lies twice in {folder}: {here[case].name} and {path.name}. Remove one of them."
                )
            here[case] = path
        found = {**here, **found}
    return found


def _gu2net_cases(root: Path, table: Mapping[str, Any], section: str | None, allow_incomplete: bool) -> list[str]:
    wanted = {None: tuple(GU2NET_SECTIONS), "training": ("train", "validation")}.get(section, (section,))
    parameters = whole_phantom_parameters(root)
    cases: list[str] = []
    for name in wanted:
        first, last, count = GU2NET_SECTIONS[str(name)]
        if parameters is not None:
            here = [str(case) for case in parameters["cases"][name]]
            _check_rows(root, here, table)
        else:
            here = [case for case in table if first <= int(case) <= last]
            if len(here) != count and not allow_incomplete:
                raise LandmarkError(
                    f"the table of {root} has {len(here)} rows from {first} to {last}, GU2Net's {name} section has"
                    f" {count}. Take the whole table of 910 rows, or say allow_incomplete=True to go on with these."
                )
        cases += here
    return cases


def _fold_cases(
    root: Path, table: Mapping[str, Any], split: str, section: str | None, num_validation: int, seed: int
) -> list[str]:
    name = f"set{split[-1]}"
    folder = next((root / top / name for top in FOLD_FOLDERS if (root / top / name).is_dir()), None)
    if folder is None:
        raise FileNotFoundError(f"{root} has no lists of {split} (setup/cv/{name}/train.txt and test.txt); {LAYOUT}.")
    train, test = (_read_list(folder / f"{part}.txt") for part in ("train", "test"))
    both = sorted(set(train) & set(test), key=int)
    if both:
        raise LandmarkError(f"films {_joined(both)} are in train.txt and in test.txt of {folder}: test films leak.")
    _check_rows(root, [*train, *test], table)
    if section is None:
        return [*train, *test]
    if section == "test":
        return test
    return select_part(train, None if section == "training" else section, num_validation, seed)


def _read_list(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; {LAYOUT}.")
    words = path.read_text(encoding="utf-8-sig").split()
    if not all(word.isdigit() for word in words):
        wrong = next(word for word in words if not word.isdigit())
        raise LandmarkError(f"{path} holds {wrong!r}, expected one film number a line.")
    cases = [str(int(word)) for word in words]
    twice = sorted({case for case in cases if cases.count(case) > 1}, key=int)
    if twice:
        raise LandmarkError(f"{path} names films {_joined(twice)} twice.")
    return cases


def _check_rows(root: Path, cases: Iterable[str], table: Mapping[str, Any]) -> None:
    lacking = [case for case in cases if case not in table]
    if lacking:
        raise LandmarkError(f"the table of {root} has no row for films {_joined(lacking)}. Is it the whole table?")


def _check_films(
    root: Path, cases: Sequence[str], films: Mapping[str, Path], section: str | None, split: str, allow: bool
) -> None:
    """Every film must be there; none at all is an error even where some may be missing."""
    what = f"section {section!r} of split {split!r}" if section else f"split {split!r}"
    if not cases and split != "all":
        raise FileNotFoundError(f"{what} of {root} is empty: the phantom or table was written without this section.")
    missing = [case for case in cases if case not in films]
    if len(missing) == len(cases):
        raise FileNotFoundError(
            f"{root} holds none of the {len(cases) or 'annotated'} films of {what}, {len(films)} films in all;"
            f" {LAYOUT}. Films in .mha must be saved as PNG first."
        )
    if missing and not allow:
        raise FileNotFoundError(
            f"{what} of {root} lacks {len(missing)} of {len(cases)} films: {_joined(sorted(missing, key=int))}."
            " Complete the folder, or say allow_incomplete=True to go on without them."
        )


def _joined(cases: Iterable[str]) -> str:
    return ", ".join(cases)


def _entry(case: str, path: Path, pixels: np.ndarray, wrist: tuple[int, int]) -> dict[str, Any]:
    with PILImage.open(path) as image:
        size = image.size
    outside = (pixels < -MARGIN) | (pixels > np.asarray(size) - 1 + MARGIN)
    if outside.any():
        index = int(np.argmax(outside.any(axis=-1)))
        x, y = pixels[index]
        raise LandmarkError(
            f"film {case}: point {index} ({HAND_XRAY_LANDMARKS[index]}) at ({x:g}, {y:g}) is not on {path} of"
            f" {size[0]} x {size[1]} pixels (width x height). Points are x (right), then y (down), in pixels of the"
            " original film: is this a reduced or rotated copy, or a table with swapped axes?"
        )
    width = float(np.linalg.norm(pixels[wrist[0]] - pixels[wrist[1]]))
    if not width > 0:
        raise LandmarkError(
            f"film {case}: points {wrist[0]} and {wrist[1]} of the wrist are missing or equal, and their distance is"
            " what gives millimetres. Correct the row, leave the film out, or choose other points with wrist=."
        )
    pixel_size = WRIST_MM / width
    return {
        "image": str(path),
        "landmarks": pixels * pixel_size,
        "case": case,
        "pixel_size": (pixel_size, pixel_size),
        "origin": (0.0, 0.0),
    }
