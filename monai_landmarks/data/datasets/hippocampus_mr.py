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

"""Hippocampus in small T1 MR crops: five points per case, derived from the masks of the Decathlon's Task04."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import look_up_option, optional_import

from monai_landmarks.geometry import LandmarkError

from .splits import seeded_order, select_part

nib, _ = optional_import("nibabel")

__all__ = ["HIPPOCAMPUS_LANDMARKS", "hippocampus_datalist"]

HIPPOCAMPUS_LANDMARKS: tuple[str, ...] = (
    "anterior_tip",
    "anterior_centroid",
    "junction",
    "posterior_centroid",
    "posterior_tip",
)
"""The five points, from anterior to posterior."""

TABLE = "landmarks_voxel.csv"

LAYOUT = f"expected images/hippocampus_NNN.nii.gz and {TABLE} with the columns case, anterior_tip_i, _j, _k, ..."


def hippocampus_datalist(
    dataset_dir: str | Path,
    section: str = "training",
    part: str | None = None,
    num_test: int = 40,
    num_validation: int = 20,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """List the hippocampus crops of one section with their landmarks in world millimetres.

    The points were **derived from manual masks** (tips and centroids of the anterior and posterior part and their
    junction), not clicked: say "derived" wherever a number is shown. The data set has no official test section for
    them, so the sections are a random split of all cases by ``seed``.

    Args:
        dataset_dir: folder with ``images`` and ``landmarks_voxel.csv``.
        section: ``"training"`` (160 of the 200 cases) or ``"test"`` (40).
        part: None for the whole section; ``"train"`` or ``"validation"`` for a fixed split of the training section
            (140 and 20). A test section has no parts.
        num_test: number of test cases.
        num_validation: number of validation cases.
        seed: seed of both splits.

    Returns:
        One dictionary per case, sorted by name: ``image`` (path), ``landmarks`` (float64 ``(5, 3)``, world RAS mm
        through the image's own affine, order of ``HIPPOCAMPUS_LANDMARKS``, NaN where the table has no number) and
        ``case``.

    Raises:
        FileNotFoundError: when the folder, the table or images of the table are missing; each is named.
        LandmarkError: when the table's columns, cells or case names are not as expected.
        ValueError: when an option is unknown, a number leaves a section empty, or a part of the test section is asked.

    Example:
        >>> hippocampus_datalist("/no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: Hippocampus folder /no/such/folder does not exist; expected images/...
    """
    section = look_up_option(section, ("training", "test"))
    if part is not None and section == "test":
        raise ValueError(f"part={part!r} was asked of the test section, but only the training section is split.")
    root = Path(dataset_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"Hippocampus folder {root} does not exist; {LAYOUT}.")
    voxels = _read_table(root / TABLE)
    images = {case: root / "images" / f"{case}.nii.gz" for case in voxels}
    missing = [case for case, path in images.items() if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} cases of {root / TABLE} have no image in images/: {', '.join(missing)}."
        )
    if not 1 <= num_test < len(voxels):
        raise ValueError(f"num_test must be 1 to {len(voxels) - 1} for {len(voxels)} cases, got {num_test}.")
    order = seeded_order(voxels, seed)
    chosen = (
        sorted(order[:num_test]) if section == "test" else select_part(order[num_test:], part, num_validation, seed)
    )
    return [
        {"image": str(images[case]), "landmarks": _to_world(images[case], voxels[case]), "case": case}
        for case in chosen
    ]


def _to_world(path: Path, voxels: np.ndarray) -> np.ndarray:
    """Voxel index ``(5, 3)`` to RAS mm by the affine in the image's header."""
    affine = np.asarray(nib.load(path).affine, dtype=np.float64)
    return voxels @ affine[:3, :3].T + affine[:3, 3]


def _read_table(path: Path) -> dict[str, np.ndarray]:
    """Voxel indices (0-based) ``(5, 3)`` of every case."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; {LAYOUT}.")
    columns = [f"{name}_{axis}" for name in HIPPOCAMPUS_LANDMARKS for axis in "ijk"]
    table: dict[str, np.ndarray] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        lacking = [name for name in ("case", *columns) if name not in (reader.fieldnames or ())]
        if lacking:
            raise LandmarkError(f"{path} lacks the columns {', '.join(lacking)}; {LAYOUT}.")
        for row in reader:
            case = row["case"]
            if case in table:
                raise LandmarkError(f"{path} has two rows for case {case!r}, expected one.")
            table[case] = _read_row(path, case, {name: row[name] for name in columns})
    return table


def _read_row(path: Path, case: str, cells: dict[str, str | None]) -> np.ndarray:
    """One row's points; a landmark with an empty or NaN cell is missing as a whole."""
    values = np.full(len(cells), np.nan)
    for index, (name, cell) in enumerate(cells.items()):
        text = (cell or "").strip()
        try:
            values[index] = float(text) if text else np.nan
        except ValueError:
            raise LandmarkError(f"{path}, case {case}, column {name}: {cell!r} is not a number.") from None
    points = values.reshape(-1, 3)
    points[~np.isfinite(points).all(axis=-1)] = np.nan
    return points
