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
"""Lumbar spine MR of MyoSegmenTUM: centroids of the vertebral bodies L1 to L5, derived from masks (Burian et al. 2019)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .point_table import read_point_table, tabled_images
from .splits import select_fold

__all__ = ["LUMBAR_MR_LANDMARKS", "lumbar_mr_datalist"]

LUMBAR_MR_LANDMARKS: tuple[str, ...] = ("L1", "L2", "L3", "L4", "L5")
"""The vertebral bodies, from cranial to caudal."""

TABLE = "centroids_mm.csv"

LAYOUT = f"expected images/NN.nii.gz and {TABLE} with the columns case, L1_i, L1_j, L1_k, ..."


def lumbar_mr_datalist(
    dataset_dir: str | Path,
    part: str | None = None,
    fold: int = 0,
    num_folds: int = 5,
    num_validation: int = 4,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """List the lumbar MR volumes of one part of a cross-validation with their landmarks in world millimetres.

    The points were **derived from manual masks** of the vertebral bodies, not clicked: say "derived" wherever a number
    is shown. The volumes lie at 1.5 mm in a frame of their own (axis 0 from cranial to caudal, 1 from anterior to
    posterior, 2 across), with the affine ``diag(1.5)``: "world" is that frame, not the patient's. The table's numbers
    are millimetres in it. There is one volume per subject, and no official split.

    Args:
        dataset_dir: folder with ``images`` and ``centroids_mm.csv``.
        part: ``"train"``, ``"validation"``, ``"test"`` (the fold's own cases), ``"training"`` (train and validation), or
            None for all.
        fold: 0 to ``num_folds - 1``.
        num_folds: of the cross-validation.
        num_validation: cases that choose checkpoints and thresholds.
        seed: of the folds.

    Returns:
        One dictionary per case, sorted by name: ``image`` (path), ``landmarks`` (float64 ``(5, 3)``, mm, order of
        ``LUMBAR_MR_LANDMARKS``, NaN where the table has no number) and ``case``.

    Raises:
        FileNotFoundError: when the folder, the table or images of the table are missing; each is named.
        LandmarkError: when the table's columns, cells or case names are not as expected.
        ValueError: for an unknown part or numbers that leave one empty.

    Example:
        >>> lumbar_mr_datalist("/no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: lumbar MR folder /no/such/folder does not exist; expected images/...
    """
    root = Path(dataset_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"lumbar MR folder {root} does not exist; {LAYOUT}.")
    points = read_point_table(root / TABLE, LUMBAR_MR_LANDMARKS, LAYOUT)
    images = tabled_images(root / "images", points, root / TABLE)
    chosen = select_fold(points, fold, part, num_folds, num_validation, seed)
    return [{"image": str(images[case]), "landmarks": points[case], "case": case} for case in chosen]
