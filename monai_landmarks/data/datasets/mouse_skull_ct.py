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
"""Micro-CT of mouse heads with 51 expert landmarks (Maga et al. 2017; Zhang et al. 2022). Mice, not people."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from monai.utils import look_up_option

from ..formats import read_landmarks
from .point_table import read_point_table, tabled_images, world_points
from .splits import select_fold

__all__ = ["MOUSE_SKULL_LANDMARKS", "mouse_skull_ct_datalist", "mouse_strain"]

MOUSE_SKULL_LANDMARKS: tuple[str, ...] = tuple(f"lm{number}" for number in range(1, 52))
"""The 51 points, numbered as in the data set."""

TABLE = "lm51_aligned_voxel.csv"

LAYOUT = (
    f"expected images_aligned/<case>.nii.gz and {TABLE} with the columns case, lm1_i, lm1_j, lm1_k, ..., and for the "
    "section 'scans' scans/<case>.nii.gz and scans_landmarks/<case>.mrk.json"
)

FAMILIES = ("129", "B6", "BALB", "C3H", "C57", "CBA", "DBA", "NO", "NZ")
"""Beginnings of names that related strains share; hybrids of C57BL/6 all begin with B6, NOR descends from NOD."""


def mouse_strain(case: str) -> str:
    """Return the family of strains a specimen belongs to: relatives must not lie in training and test at once.

    Strains whose names share a stem are one family. The hybrids of C57BL/6 with other strains (``B6...``) are a family of
    their own: put together with both parents, they would join most of the data set into one.

    Args:
        case: name of the specimen, which is its strain.

    Example:
        >>> [mouse_strain(case) for case in ("129S1_SVLMJ_", "X129P3.J_", "C57BL_10J_", "SWR.J_")]
        ['129', '129', 'C57', 'SWR']
    """
    name = case.removeprefix("X")
    family = next((stem for stem in FAMILIES if name.startswith(stem)), None)
    return family or re.split(r"[_.]", case)[0]


def mouse_skull_ct_datalist(
    dataset_dir: str | Path,
    part: str | None = None,
    fold: int = 0,
    section: str = "aligned",
    num_folds: int = 5,
    num_validation: int = 5,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """List mouse heads of one part of a strain-wise cross-validation with their landmarks in world millimetres.

    The volumes of the section ``"aligned"`` lie in a common pose that was found with the specimen's own surface, so turn
    and shift them at random in training **and** in testing: the pose would tell the answer. The six of ``"scans"`` lie as
    they were scanned, in any pose. Landmarks were set by experts and carried into the volumes by rigid registration of
    the specimen's mesh (residual 0.07 mm).

    Args:
        dataset_dir: folder with ``images_aligned`` and ``lm51_aligned_voxel.csv``.
        part: ``"train"``, ``"validation"``, ``"test"`` (the fold's own cases), ``"training"`` (train and validation), or
            None for all.
        fold: 0 to ``num_folds - 1``.
        section: ``"aligned"`` or ``"scans"``; the folds of both are those of the aligned specimens.
        num_folds: of the cross-validation.
        num_validation: least number of cases that choose checkpoints; families of strains (:func:`mouse_strain`) stay
            together.
        seed: of the folds.

    Returns:
        One dictionary per case, sorted by name: ``image`` (path), ``landmarks`` (float64 ``(51, 3)``, world RAS mm, order
        of ``MOUSE_SKULL_LANDMARKS``) and ``case``.

    Raises:
        FileNotFoundError: when the folder, the table, images or landmark files are missing; each is named.
        LandmarkError: when the table's columns, cells or case names are not as expected.
        ValueError: for an unknown part or section, or numbers that leave a part empty.

    Example:
        >>> mouse_skull_ct_datalist("/no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: mouse skull folder /no/such/folder does not exist; expected images_aligned/...
    """
    section = look_up_option(section, ("aligned", "scans"))
    root = Path(dataset_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"mouse skull folder {root} does not exist; {LAYOUT}.")
    voxels = read_point_table(root / TABLE, MOUSE_SKULL_LANDMARKS, LAYOUT)
    chosen = select_fold(voxels, fold, part, num_folds, num_validation, seed, mouse_strain)
    if section == "scans":
        return _scans(root, chosen)
    images = tabled_images(root / "images_aligned", voxels, root / TABLE)
    return [
        {"image": str(images[case]), "landmarks": world_points(images[case], voxels[case]), "case": case}
        for case in chosen
    ]


def _scans(root: Path, cases: list[str]) -> list[dict[str, Any]]:
    """The entries of those cases that are there as they were scanned."""
    images = {case: root / "scans" / f"{case}.nii.gz" for case in cases}
    files = {case: root / "scans_landmarks" / f"{case}.mrk.json" for case, path in images.items() if path.is_file()}
    missing = [str(path) for path in files.values() if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"scans without landmarks, there is no {', '.join(missing)}.")
    read = {case: read_landmarks(path, names=MOUSE_SKULL_LANDMARKS) for case, path in files.items()}
    return [{"image": str(images[case]), "landmarks": marks.points, "case": case} for case, marks in read.items()]
