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
"""Hand MRI: 28 landmarks in T1-weighted volumes of the left hand, in five folds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.transforms import LoadImage

from monai_landmarks.geometry import LandmarkError, image_affine

from ..formats import read_landmarks
from ..formats.registry import FORMATS, find_format
from ..landmarks import Landmarks
from .image_folder import VOLUME_SUFFIXES, image_folder_datalist
from .phantom_marker import whole_phantom_parameters
from .splits import select_fold

__all__ = ["HAND_MRI_LANDMARKS", "hand_mri_datalist"]

HAND_MRI_LANDMARKS: tuple[str, ...] = (
    *("thumb_CMC", "thumb_MCP", "thumb_IP", "thumb_tip"),
    *(
        f"{finger}_{point}"
        for finger in ("index", "middle", "ring", "little")
        for point in ("CMC", "MCP", "PIP", "DIP", "tip")
    ),
    *("capitate_centre", "lunate_centre", "radius_distal_end", "ulna_distal_end"),
)
"""Centres of the joints of the fingers, tips of their distal phalanges, centres of two carpal bones and the distal ends of
radius and ulna. The 28 landmarks of the SCN paper's in-house data are not published: this definition is ours."""

LAYOUT = "expected images/<case>.nii.gz and landmarks/<case>.mrk.json (or another format that read_landmarks knows)"

LANDMARK_SUFFIXES = tuple(
    sorted({suffix for item in FORMATS.values() for suffix in item.suffixes}, key=len, reverse=True)
)


def hand_mri_datalist(
    dataset_dir: str | Path,
    fold: int = 0,
    num_folds: int = 5,
    part: str | None = None,
    num_validation: int = 6,
    seed: int = 0,
    names: Sequence[str] = HAND_MRI_LANDMARKS,
) -> list[dict[str, Any]]:
    """List hand volumes of one part of a cross-validation with their landmarks in world millimetres.

    The five rounds of the SCN paper (section 4.2: 60 volumes, each round 43 for training and 17 for testing) are not
    published. The folds here are random and fixed by ``seed``, and every case is tested once: of 60 cases, 48 and 12.

    Args:
        dataset_dir: folder with ``images`` and ``landmarks``; files belong together by name: ``images/001.nii.gz`` and
            ``landmarks/001.mrk.json``, ``.fcsv``, ``.csv``, ...
        fold: 0 to ``num_folds - 1``.
        num_folds: of the cross-validation.
        part: ``"train"``, ``"validation"``, ``"test"`` (the fold's own cases), ``"training"`` (train and validation), or
            None for all.
        num_validation: number of cases that choose checkpoints.
        seed: of folds and validation cases.
        names: the landmarks wanted, in this order; for data with another definition give its names.

    Returns:
        One dictionary per case, sorted by name: ``image`` (path), ``landmarks`` (float64 ``(28, 3)``, world RAS mm, NaN
        where a file marks a landmark as missing) and ``case``.

    Raises:
        FileNotFoundError: when a folder is missing, or an image or a landmark file has no partner; each is named.
        LandmarkError: when two files would be the same case, or a landmark file is not as expected.
        ValueError: for an unknown part, or numbers that leave a part empty.

    Example:
        >>> hand_mri_datalist("/no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: hand MRI folder /no/such/folder does not exist; expected images/...
    """
    root = Path(dataset_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"hand MRI folder {root} does not exist; {LAYOUT}.")
    whole_phantom_parameters(root)
    listed = image_folder_datalist(root / "images", VOLUME_SUFFIXES)
    images = {entry["case"]: entry["image"] for entry in listed}
    files = _landmark_files(root / "landmarks")
    _check_partners(root, set(images), set(files))
    return [
        {"image": images[case], "landmarks": _read(files[case], images[case], names).points, "case": case}
        for case in select_fold(images, fold, part, num_folds, num_validation, seed)
    ]


def _landmark_files(folder: Path) -> dict[str, Path]:
    """Landmark files by the case they are named after."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist; {LAYOUT}.")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        suffix = next((ending for ending in LANDMARK_SUFFIXES if path.name.casefold().endswith(ending)), None)
        if suffix is None or path.name.startswith("."):
            continue
        case = path.name[: -len(suffix)]
        if case in files:
            raise LandmarkError(f"{files[case].name} and {path.name} in {folder} are both of case {case!r}: keep one.")
        files[case] = path
    return files


def _check_partners(root: Path, images: set[str], files: set[str]) -> None:
    alone = [
        f"{len(cases)} {what} without {partner}: {', '.join(sorted(cases))}"
        for cases, what, partner in (
            (images - files, "images", "landmark file"),
            (files - images, "landmark files", "image"),
        )
        if cases
    ]
    if alone:
        raise FileNotFoundError(f"{root} has {'; '.join(alone)}. Files belong together by name: {LAYOUT}.")


def _read(path: Path, image: str, names: Sequence[str]) -> Landmarks:
    """Read one case; the image is opened only for formats whose numbers are voxels."""
    if not find_format(path, None).space.startswith("voxel"):
        return read_landmarks(path, names=names, spatial_dims=3)
    volume = LoadImage(image_only=True, ensure_channel_first=True)(image)
    return read_landmarks(
        path, names=names, spatial_dims=3, affine=image_affine(volume), spatial_shape=volume.shape[1:]
    )
