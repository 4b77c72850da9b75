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
"""Tables with one row per case and three columns per landmark, and the images beside them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from monai.utils import optional_import

from monai_landmarks.geometry import LandmarkError

nib, _ = optional_import("nibabel")

__all__ = ["read_point_table", "tabled_images", "world_points"]


def read_point_table(path: Path, names: Sequence[str], layout: str) -> dict[str, np.ndarray]:
    """Read the points of every case from a table with the columns ``case, <name>_i, <name>_j, <name>_k, ...``.

    Args:
        path: of the CSV file.
        names: ``N`` landmark names.
        layout: what the data set should look like, for the messages.

    Returns:
        float64 ``(N, 3)`` by case, in the numbers of the table; a landmark with an empty or NaN cell is NaN as a whole.

    Raises:
        FileNotFoundError: if there is no such file.
        LandmarkError: if columns are missing, a case has two rows or a cell is not a number.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; {layout}.")
    columns = [f"{name}_{axis}" for name in names for axis in "ijk"]
    table: dict[str, np.ndarray] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        lacking = [name for name in ("case", *columns) if name not in (reader.fieldnames or ())]
        if lacking:
            raise LandmarkError(f"{path} lacks the columns {', '.join(lacking)}; {layout}.")
        for row in reader:
            case = row["case"]
            if case in table:
                raise LandmarkError(f"{path} has two rows for case {case!r}, expected one.")
            table[case] = _read_row(path, case, {name: row[name] for name in columns})
    return table


def tabled_images(folder: Path, table: Mapping[str, np.ndarray], table_path: Path) -> dict[str, Path]:
    """Return the image ``<case>.nii.gz`` of every case of a table.

    Args:
        folder: of the images.
        table: by case.
        table_path: where the table was read, for the message.

    Raises:
        FileNotFoundError: if images are missing; each is named.
    """
    images = {case: folder / f"{case}.nii.gz" for case in table}
    missing = [case for case, path in images.items() if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} cases of {table_path} have no image in {folder.name}/: {', '.join(missing)}."
        )
    return images


def world_points(path: Path, voxels: np.ndarray) -> np.ndarray:
    """Return voxel indices ``(N, 3)`` of an image as RAS millimetres, by the affine in the image's header.

    Args:
        path: of the image.
        voxels: NaN stays NaN.
    """
    affine = np.asarray(nib.load(path).affine, dtype=np.float64)
    return voxels @ affine[:3, :3].T + affine[:3, 3]


def _read_row(path: Path, case: str, cells: Mapping[str, str | None]) -> np.ndarray:
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
