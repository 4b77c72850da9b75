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
"""VerSe 2019 and 2020: spine CT with vertebra centroids, subject by subject (Sekuboyina et al., MedIA 2021)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import look_up_option

from monai_landmarks.geometry import LandmarkError

from ..formats import read_landmarks
from ..formats.verse import VERTEBRA_NAMES
from ..landmarks import Landmarks, quoted
from .splits import select_fold, select_part
from .vertebrae import list_scans

__all__ = ["VERSE_LANDMARKS", "verse_datalist"]

VERSE_LANDMARKS: tuple[str, ...] = tuple(VERTEBRA_NAMES[label] for label in (*range(1, 26), 28))
"""The 26 vertebrae of the data set in the order of their numbers: C1 to C7, T1 to T12, L1 to L6, T13."""

SECTIONS = ("training", "validation", "test")
LAYOUT = (
    "expected dataset-verse19training/rawdata/sub-verse004/sub-verse004_ct.nii.gz and "
    "dataset-verse19training/derivatives/sub-verse004/sub-verse004_seg-subreg_ctd.json, or the challenges' "
    "verse004.nii.gz beside verse004_ctd.json"
)

_SECTION = re.compile(r"(?<![a-z])(train|valid|test)")
_YEAR = re.compile(r"(?:verse[-_ ]?(?:20)?|^20)(19|20)(?!\d)")
_ANNOTATION = re.compile(r"(?:_seg-[a-z]+)?_ctd\.json|_iso-ctd\.json", re.IGNORECASE)
_NO_IMAGE = re.compile(r"(_seg|msk|mask)", re.IGNORECASE)
_SUBJECT = re.compile(r"sub-[a-z0-9]+|[^_]+", re.IGNORECASE)


def verse_datalist(
    dataset_dir: str | Path,
    year: int | None = None,
    section: str | None = "training",
    part: str | None = None,
    fold: int | None = None,
    num_folds: int = 3,
    num_validation: int = 10,
    seed: int = 0,
    convention: str | int | None = None,
    names: Sequence[str] = VERSE_LANDMARKS,
    ignore_names: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """List the scans of one section of VerSe with their vertebrae in world millimetres.

    Sections and years are read from the names of the folders (``dataset-verse20test``, ``02_validation``). Subjects with
    several scans (``sub-verse401_split-verse253``) are never divided. The folds are this package's own, by ``seed``: the
    lists of published code may not be passed on.

    Args:
        dataset_dir: folder that holds one or more of the archives, or one of them.
        year: 2019 or 2020, needed where both are there: they share scans, some of one's test section train in the other.
        section: ``"training"``, ``"validation"`` or ``"test"``; None takes all that is there.
        part: ``"train"`` or ``"validation"`` of the training section: of the fold, or without one a fixed split.
        fold: 0 to ``num_folds - 1``; its own scans are the validation part.
        num_folds: of the cross-validation within the training section.
        num_validation: least number of validation scans without a fold.
        seed: of folds and split.
        convention: ``"2019"`` or ``"2020"`` for the challenges' first releases, whose files state no direction; see
            :mod:`monai_landmarks.data.formats.verse`.
        names: the vertebrae wanted, in this order.
        ignore_names: further vertebrae that the files may name, and are left out: ``"sacrum"``.

    Returns:
        One dictionary per scan, sorted by name: ``image`` (path), ``landmarks`` (float64 ``(N, 3)``, world RAS mm, NaN for
        vertebrae that are not in the scan), ``case`` and ``subject``. Scans whose labels have a gap are logged as a warning.

    Raises:
        FileNotFoundError: when the folder, the section, images or annotations are missing.
        LandmarkError: when an annotation is damaged, has a vertebra twice or a number outside 1 to 28, or does not belong to
            its image.
        ValueError: for an unknown option, numbers that leave a part empty, or two years without a choice.

    Example:
        >>> verse_datalist("/no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: VerSe folder /no/such/folder does not exist; expected dataset-verse19training/rawdata/...
    """
    _check_options(year, section, part, fold)
    root = Path(dataset_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"VerSe folder {root} does not exist; {LAYOUT}.")
    images, annotations = _pairs(root, year, section)
    if fold is not None:
        of_fold = "test" if part == "validation" else "training"
        chosen = select_fold(images, fold, of_fold, num_folds, 1, seed, _subject)
    else:
        chosen = select_part(list(images), part, num_validation, seed, _subject)

    def read(case: str, affine: np.ndarray, shape: tuple[int, ...]) -> tuple[Landmarks, Path]:
        path = annotations[case]
        marks = read_landmarks(path, format="verse", affine=affine, spatial_shape=shape, convention=convention)
        return marks, path

    entries = list_scans({case: images[case] for case in chosen}, read, names, ignore_names, "VerSe")
    return [{**entry, "subject": _subject(entry["case"])} for entry in entries]


def _check_options(year: int | None, section: str | None, part: str | None, fold: int | None) -> None:
    if year is not None:
        look_up_option(year, (2019, 2020))
    if section is not None:
        look_up_option(section, SECTIONS)
    if part is not None:
        look_up_option(part, ("train", "validation"))
        if section != "training":
            raise ValueError(f"part={part!r} was asked of section {section!r}, but only the training section is split.")
    if fold is not None and part is None:
        raise ValueError(f"fold={fold} has two parts: give part='train' or part='validation'.")


def _pairs(root: Path, year: int | None, section: str | None) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and annotations by case, both sorted by case."""
    images = _choose(root, _images(root), year, section)
    annotations = _choose(root, _annotations(root), year, section)
    bare = [case for case in images if case not in annotations]
    if bare:
        raise FileNotFoundError(f"{len(bare)} scans in {root} have no centroid file: {quoted(bare)}; {LAYOUT}.")
    lost = [str(path) for case, path in annotations.items() if case not in images]
    if lost:
        raise FileNotFoundError(f"{len(lost)} centroid files in {root} have no image: {quoted(lost)}; {LAYOUT}.")
    return dict(sorted(images.items())), annotations


def _images(root: Path) -> list[tuple[str, Path]]:
    paths = [path for path in sorted(root.rglob("*.nii.gz")) if not _NO_IMAGE.search(path.name)]
    return [(re.sub(r"(_ct)?\.nii\.gz$", "", path.name), path) for path in paths]


def _annotations(root: Path) -> list[tuple[str, Path]]:
    found = [(_ANNOTATION.search(path.name), path) for path in sorted(root.rglob("*ctd.json"))]
    return [(path.name[: match.start()], path) for match, path in found if match]


def _choose(root: Path, found: Sequence[tuple[str, Path]], year: int | None, section: str | None) -> dict[str, Path]:
    """The files of the year and section, by case."""
    places = [(case, path, *_place(root, path)) for case, path in found]
    here = [place for place in places if section is None or place[3] in (section, None)]
    years = {place[2] for place in here}
    if year is None and {2019, 2020} <= years:
        raise ValueError(
            f"{root} holds scans of 2019 and 2020, which are in part the same: give year=2019 or year=2020."
        )
    chosen: dict[str, Path] = {}
    for case, path, its_year, _ in here:
        if year is not None and its_year not in (year, None):
            continue
        if case in chosen:
            raise LandmarkError(
                f"{case} lies twice in {root}: {chosen[case]} and {path}. Remove one, or choose a section."
            )
        chosen[case] = path
    if not chosen:
        has = sorted(
            {f"{its_year or 'some year'} {its_section or ''}".strip() for _, _, its_year, its_section in places}
        )
        raise FileNotFoundError(
            f"{root} holds nothing of VerSe {year or ''} {section or ''}; it has {quoted(has) or 'nothing'}. {LAYOUT}."
        )
    return chosen


def _place(root: Path, path: Path) -> tuple[int | None, str | None]:
    """Year and section by the folders' names, the nearest first; None where none says it."""
    folders = [root.name, *path.relative_to(root).parts[:-1]]
    folders = [folder.casefold() for folder in reversed(folders) if not folder.casefold().startswith("sub-")]
    years = [match[1] for match in map(_YEAR.search, folders) if match]
    words = [match[1] for match in map(_SECTION.search, folders) if match]
    section = next((name for word in words[:1] for name in SECTIONS if name.startswith(word)), None)
    return (2000 + int(years[0]) if years else None), section


def _subject(case: str) -> str:
    match = _SUBJECT.match(case)
    return match[0] if match else case
