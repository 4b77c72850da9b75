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
"""Spine CT of the MICCAI CSI 2014 challenge (SpineWeb data set 3): 302 scans, 26 vertebrae (Glocker et al. 2012, 2013)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import look_up_option

from monai_landmarks.geometry import LandmarkError

from ..formats import read_landmark_table, read_landmarks
from ..formats.common import Frame
from ..landmarks import Landmarks, quoted
from .phantom_marker import is_phantom, whole_phantom_parameters
from .splits import select_fold, select_part
from .vertebrae import list_scans, vertebra_name

__all__ = ["CSI2014_LANDMARKS", "CSI2014_VERSE_LABELS", "csi2014_datalist"]

CSI2014_LANDMARKS: tuple[str, ...] = (
    *(f"C{number}" for number in range(1, 8)),
    *(f"T{number}" for number in range(1, 13)),
    *(f"L{number}" for number in range(1, 6)),
    "S1",
    "S2",
)
"""The 26 vertebrae, from head to foot."""

CSI2014_VERSE_LABELS: dict[int, str] = {
    **dict(enumerate(CSI2014_LANDMARKS[:24], start=1)),
    26: "S1",
    29: "S2",
}
"""Numbers of the 26 vertebrae in VerSe files: 25 is L6, 26 the sacrum; VerSe has none for S2, later software uses 29."""

SECTIONS = ("set1", "set2_train", "set2_test")
NUM_SCANS = {"training": 242, "test": 60}
TABLE = "points_world_coordinates.csv"
_ENDINGS = (".nii.gz", ".nii")

LAYOUT = (
    "expected spine-1/<patient>/<scan>/<scan>.nii.gz to spine-5 and spine-test-data/<scan>.nii.gz, each with <scan>.lml "
    f"beside it; or images/<scan>.nii.gz with {TABLE} and lists of cases"
)


def csi2014_datalist(
    dataset_dir: str | Path,
    section: str = "set1",
    part: str | None = None,
    fold: int | None = None,
    num_validation: int = 10,
    seed: int = 0,
    setup_dir: str | Path | None = None,
    ignore_names: Sequence[str] = (),
    allow_incomplete: bool = False,
) -> list[dict[str, Any]]:
    """List the scans of one section of CSI 2014 with their vertebrae in world millimetres.

    ``"set1"`` is the two-fold cross-validation of the training scans (SCN paper, section 4.2), ``"set2_train"`` and
    ``"set2_test"`` are the challenge's own division. Which scan was in which fold of the papers is in lists that may not be
    passed on. Who has them gives ``setup_dir`` and gets the papers' folds (224 of the 242 training scans are in them).
    Without them the folds are a fixed draw by ``seed`` over all training scans, one patient's scans in one fold: sound, but
    not the papers' folds, so the numbers are not comparable to the digit.

    The numbers in the files are voxel index times voxel size along the axes of the image as stored; the image's own affine
    makes RAS millimetres of them.

    Args:
        dataset_dir: folder with ``spine-1`` to ``spine-5`` and ``spine-test-data``, or with ``images``. A phantom written in
            this layout may have any number of scans.
        section: ``"set1"``, ``"set2_train"`` or ``"set2_test"``.
        part: None for the whole section, of ``"set1"`` with a fold: all that is not its test part. ``"train"`` or
            ``"validation"``: a fixed split of that. ``"test"``: of ``"set1"`` the fold's own scans. The test section is not
            split.
        fold: 0 or 1, of ``"set1"``; None takes all of it for training.
        num_validation: least number of validation scans; patients stay together.
        seed: of folds and split.
        setup_dir: folder with ``cv/0/train.txt``, ``cv/0/val.txt``, ``cv/1/...`` and for set 2 ``train_all.txt`` and
            ``test_all.txt``, one scan per line, and perhaps the table ``points_world_coordinates.csv`` (no heading; scan and
            26 times x, y, z in the numbers described above, NaN for absent), which serves where a scan has no ``.lml``.
        ignore_names: vertebrae to leave out that are none of the 26, such as ``"S3"``.
        allow_incomplete: go on where the folder has fewer scans than the data set, or a list names scans that are not there.

    Returns:
        One dictionary per scan, sorted by name: ``image`` (path), ``landmarks`` (float64 ``(26, 3)``, world RAS mm, order of
        ``CSI2014_LANDMARKS``, NaN for vertebrae that are not in the scan) and ``case``. Scans whose labels have a gap are
        logged as a warning; the real data has three.

    Raises:
        FileNotFoundError: when the folder, scans, lists or annotations are missing.
        LandmarkError: when an annotation is damaged, has a vertebra twice, names one that is none of the 26, or does not
            belong to its scan.
        ValueError: for an unknown option, or numbers that leave a part empty.

    Example:
        >>> csi2014_datalist("/no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: CSI 2014 folder /no/such/folder does not exist; expected spine-1/...
    """
    section = look_up_option(section, SECTIONS)
    _check_part(section, part, fold)
    root = Path(dataset_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"CSI 2014 folder {root} does not exist; {LAYOUT}.")
    setup = None if setup_dir is None else Path(setup_dir)
    training, test = _listed(root, section, fold, setup, allow_incomplete)
    groups = {case: _patient(root, path) for case, path in {**training, **test}.items()}
    if section == "set2_test" or (setup is not None and part == "test"):
        chosen = sorted(test)
    elif section == "set1" and fold is not None and setup is None:
        rest = select_fold(training, fold, "test" if part == "test" else "training", 2, 1, seed, groups.__getitem__)
        chosen = rest if part == "test" else select_part(rest, part, num_validation, seed, groups.__getitem__)
    else:
        chosen = select_part(list(training), part, num_validation, seed, groups.__getitem__)
    return _entries(root, setup, {case: {**training, **test}[case] for case in chosen}, ignore_names)


def _check_part(section: str, part: str | None, fold: int | None) -> None:
    if part is not None:
        look_up_option(part, ("train", "validation", "test"))
    if fold not in (None, 0, 1):
        raise ValueError(f"fold must be 0 or 1, or None for no cross-validation, got {fold!r}.")
    if section != "set1" and fold is not None:
        raise ValueError(f"fold={fold} was asked of section {section!r}, but only 'set1' has folds.")
    if part == "test" and (section != "set1" or fold is None):
        raise ValueError("part='test' is that of a fold of 'set1': give fold=0 or 1, or section='set2_test'.")
    if section == "set2_test" and part is not None:
        raise ValueError(f"part={part!r} was asked of the test section, which is scored whole. Leave part=None.")


def _listed(
    root: Path, section: str, fold: int | None, setup: Path | None, allow_incomplete: bool
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images of the section by case: those to train on and those to test on."""
    by_folder = _find_images(root)
    if setup is None:
        if not by_folder["training"] and not by_folder["test"]:
            more = " Scans in images/ need setup_dir, the lists that say which is which." if by_folder["images"] else ""
            raise FileNotFoundError(f"{root} holds no scans of CSI 2014; {LAYOUT}.{more}")
        kind = "test" if section == "set2_test" else "training"
        _check_complete(root, kind, by_folder[kind], allow_incomplete)
        return ({}, by_folder["test"]) if kind == "test" else (by_folder["training"], {})
    if not setup.is_dir():
        raise FileNotFoundError(f"setup_dir {setup} does not exist: it is the folder with cv/0/train.txt.")
    found = {case: path for images in by_folder.values() for case, path in images.items()}
    to_train, to_test = _lists(setup, section, fold)
    return _pick(found, to_train, allow_incomplete), _pick(found, to_test, allow_incomplete)


def _lists(setup: Path, section: str, fold: int | None) -> tuple[list[Path], list[Path]]:
    """Files that list the training scans, and those that list the test scans."""
    if section == "set2_train":
        return [_either(setup, "train_all.txt")], []
    if section == "set2_test":
        return [], [_either(setup, "test_all.txt")]
    folder = setup / "cv" / str(fold or 0)
    return (
        ([folder / "train.txt", folder / "val.txt"], [])
        if fold is None
        else ([folder / "train.txt"], [folder / "val.txt"])
    )


def _either(setup: Path, name: str) -> Path:
    return setup / "cv" / name if (setup / "cv" / name).is_file() else setup / name


def _pick(found: Mapping[str, Path], lists: Sequence[Path], allow_incomplete: bool) -> dict[str, Path]:
    absent = [str(path) for path in lists if not path.is_file()]
    if absent:
        raise FileNotFoundError(f"there is no list {', '.join(absent)}; setup_dir is the folder with cv/0/train.txt.")
    cases = [
        line.strip() for path in lists for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()
    ]
    missing = [case for case in cases if case not in found]
    if missing and (not allow_incomplete or len(missing) == len(cases)):
        raise FileNotFoundError(
            f"{len(missing)} of {len(cases)} scans listed in {lists[0].parent} have no image: {quoted(missing)}. Complete "
            "the folder, or say allow_incomplete=True to go on without them."
        )
    return {case: found[case] for case in cases if case in found}


def _find_images(root: Path) -> dict[str, dict[str, Path]]:
    """All scans of the folder by case, for each place where scans may lie."""
    places = {
        "training": sorted(root.glob("spine-[1-5]")),
        "test": [root / "spine-test-data"],
        "images": [root / "images"],
    }
    paths = {
        kind: [path for folder in folders for path in sorted(folder.rglob("*.nii*")) if path.name.endswith(_ENDINGS)]
        for kind, folders in places.items()
    }
    found: dict[str, dict[str, Path]] = {kind: {} for kind in places}
    seen: dict[str, Path] = {}
    for kind, listed in paths.items():
        for path in listed:
            case = _case(path)
            if case in seen:
                raise LandmarkError(f"scan {case} lies twice in {root}: {seen[case]} and {path}. Remove one of them.")
            seen[case] = found[kind][case] = path
    return found


def _case(path: Path) -> str:
    return path.name[: -len(next(ending for ending in _ENDINGS if path.name.endswith(ending)))]


def _check_complete(root: Path, kind: str, cases: Iterable[str], allow_incomplete: bool) -> None:
    """A phantom has the scans it was written with; the data set has its own number."""
    found = set(cases)
    parameters = whole_phantom_parameters(root)
    if parameters is not None:
        missing = sorted({str(case) for case in parameters.get("cases", {}).get(kind, ())} - found)
        if missing and not allow_incomplete:
            raise FileNotFoundError(f"the phantom in {root} lacks its {kind} scans {quoted(missing)}. Write it again.")
        if not found:
            raise FileNotFoundError(f"the phantom in {root} has no {kind} scans: it was written without.")
    elif not found or (len(found) < NUM_SCANS[kind] and not allow_incomplete):
        raise FileNotFoundError(
            f"{root} holds {len(found)} of the {NUM_SCANS[kind]} {kind} scans; {LAYOUT}. Complete the folder, or say "
            "allow_incomplete=True to go on with these."
        )


def _patient(root: Path, path: Path) -> str:
    """The patient's folder, spine-1/<patient>/<scan>/<scan>.nii.gz; scans of a phantom are of different patients."""
    parts = path.relative_to(root).parts
    return _case(path) if is_phantom(root) or len(parts) < 4 else parts[1]


def _entries(
    root: Path, setup: Path | None, images: Mapping[str, Path], ignore_names: Sequence[str]
) -> list[dict[str, Any]]:
    annotations = {case: path.with_name(f"{case}.lml") for case, path in images.items()}
    missing = [case for case, path in annotations.items() if not path.is_file()]
    tables = [folder / TABLE for folder in (setup, root) if folder is not None and (folder / TABLE).is_file()]
    table = read_landmark_table(tables[0], names=CSI2014_LANDMARKS, spatial_dims=3) if missing and tables else {}
    absent = [case for case in missing if case not in table]
    if absent:
        raise FileNotFoundError(
            f"{len(absent)} scans have neither an .lml file nor a row in {TABLE}: {quoted(absent)}."
        )

    def read(case: str, affine: np.ndarray, shape: tuple[int, ...]) -> tuple[Landmarks, Path]:
        if case not in missing:
            return read_landmarks(annotations[case], affine=affine, rename=vertebra_name), annotations[case]
        return Landmarks(Frame("voxel_mm", affine).to_world(table[case].points), CSI2014_LANDMARKS), tables[0]

    return list_scans(images, read, CSI2014_LANDMARKS, ignore_names, "CSI 2014")
