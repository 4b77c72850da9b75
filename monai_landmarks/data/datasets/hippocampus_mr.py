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

from pathlib import Path
from typing import Any

from monai.utils import look_up_option

from .point_table import read_point_table, tabled_images, world_points
from .splits import seeded_order, select_part

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
    voxels = read_point_table(root / TABLE, HIPPOCAMPUS_LANDMARKS, LAYOUT)
    images = tabled_images(root / "images", voxels, root / TABLE)
    if not 1 <= num_test < len(voxels):
        raise ValueError(f"num_test must be 1 to {len(voxels) - 1} for {len(voxels)} cases, got {num_test}.")
    order = seeded_order(voxels, seed)
    chosen = (
        sorted(order[:num_test]) if section == "test" else select_part(order[num_test:], part, num_validation, seed)
    )
    return [
        {"image": str(images[case]), "landmarks": world_points(images[case], voxels[case]), "case": case}
        for case in chosen
    ]
