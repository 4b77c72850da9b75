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
"""A folder of images without landmarks, to predict on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...geometry import LandmarkError

__all__ = ["FILM_SUFFIXES", "VOLUME_SUFFIXES", "image_folder_datalist"]

FILM_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")


def image_folder_datalist(
    folder: str | Path,
    suffixes: Sequence[str] = FILM_SUFFIXES,
    recursive: bool = False,
    **extra: Any,
) -> list[dict[str, Any]]:
    """List every image of a folder as a case named after its file.

    Args:
        folder: to look in.
        suffixes: file endings that count as images, in lower case with their dot.
        recursive: look into subfolders too; a case is then named after its path, joined by ``_``.
        extra: further entries of each dictionary, such as ``pixel_size=0.1`` for films; entries that are None are left
            out.

    Returns:
        one dictionary per image, sorted by path: ``image``, ``case`` and the extra entries.

    Raises:
        FileNotFoundError: if the folder does not exist or has no image of these endings.
        LandmarkError: if two images would get the same case name.

    Example:
        >>> image_folder_datalist("/no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: image folder /no/such/folder does not exist...
    """
    root = Path(folder)
    if not root.is_dir():
        near = " It is a file: give the folder it lies in." if root.is_file() else ""
        raise FileNotFoundError(f"image folder {root} does not exist; give the folder that holds the images.{near}")
    endings = tuple(suffix.lower() for suffix in suffixes)
    candidates = sorted(root.rglob("*") if recursive else root.iterdir())
    paths = [path for path in candidates if path.is_file() and path.name.lower().endswith(endings)]
    if not paths:
        raise FileNotFoundError(
            f"{root} holds no image ending in {', '.join(endings)}, {len(candidates)} other entries."
        )
    common = {key: value for key, value in extra.items() if value is not None}
    cases = [_case(path.relative_to(root), endings) for path in paths]
    for case in set(cases):
        twins = [path.name for path, name in zip(paths, cases, strict=True) if name == case]
        if len(twins) > 1:
            raise LandmarkError(f"{', '.join(twins)} in {root} would both be case {case!r}: rename one of them.")
    return [{"image": str(path), "case": case, **common} for path, case in zip(paths, cases, strict=True)]


def _case(path: Path, endings: tuple[str, ...]) -> str:
    longest = max((ending for ending in endings if path.name.lower().endswith(ending)), key=len)
    return "_".join([*path.parts[:-1], path.name[: -len(longest)]])
