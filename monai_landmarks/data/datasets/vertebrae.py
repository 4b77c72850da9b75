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
"""What the spine data sets share: names of vertebrae, gaps among them, reading beside the image, parts by patient."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import optional_import

from monai_landmarks.geometry import LandmarkError, apply_affine, inside, invert_affine, present

from ..landmarks import Landmarks, shortened

nib, _ = optional_import("nibabel")

__all__ = ["vertebra_gaps", "vertebra_name"]

_NAME = re.compile(
    r"(?P<region>c|cervical|t|th|thoracic|d|dorsal|l|lumbar|s|sacral)[ _-]?0*(?P<number>[1-9]\d?)"
    r"([ _-]?(center|centre|centroid|body|vb))?"
)
_LETTERS = {"c": "C", "t": "T", "d": "T", "l": "L", "s": "S"}
_COUNT = {"C": 7, "T": 13, "L": 6, "S": 5}
_TOLERATED_OUTSIDE = 0.25

_logger = logging.getLogger(__name__)


def vertebra_name(text: str) -> str:
    """Return the name of a vertebra as this package writes it; a text that names none comes back as it is.

    Args:
        text: such as ``"L3_center"``, ``"th12"`` or ``"Lumbar 3"``.

    Example:
        >>> [vertebra_name(text) for text in ("L3_center", "th12", "Lumbar 3", "d01", "C9", "sacrum")]
        ['L3', 'T12', 'L3', 'T1', 'C9', 'sacrum']
    """
    plain = text.strip()
    match = _NAME.fullmatch(plain.casefold())
    letter = _LETTERS[match["region"][0]] if match else ""
    if match is None or int(match["number"]) > _COUNT[letter]:
        return plain
    return f"{letter}{int(match['number'])}"


def vertebra_gaps(points: np.ndarray, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names that are absent between the first and the last vertebra that are there.

    A thirteenth thoracic vertebra is no gap: few people have one.

    Args:
        points: ``(N, 3)``, NaN for missing.
        names: in anatomical order but for T13, which may stand anywhere.

    Example:
        >>> vertebra_gaps(np.array([[np.nan] * 3, [0.0] * 3, [np.nan] * 3, [1.0] * 3]), ["C1", "C2", "C3", "C4"])
        ('C3',)
    """
    regular = [(name, not np.isnan(point).any()) for name, point in zip(names, points, strict=True) if name != "T13"]
    there = [place for place, (_, has) in enumerate(regular) if has]
    return tuple(name for name, has in regular[there[0] : there[-1]] if not has) if there else ()


def read_grid(path: Path) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return affine and size of a volume from its header, without its voxels.

    Args:
        path: of a file that nibabel reads.

    Raises:
        LandmarkError: if the header cannot be read or the file is no volume.
    """
    try:
        image = nib.load(path)
        affine, shape = np.asarray(image.affine, dtype=np.float64), tuple(int(size) for size in image.shape)
    except Exception as error:  # nibabel, gzip and the operating system each have their own
        raise LandmarkError(
            f"{path} is no readable volume ({error}): was its download cut off? Get it anew."
        ) from error
    if len(shape) < 3:
        raise LandmarkError(f"{path} has the shape {shape}: a volume is needed.")
    return affine, shape[:3]


def check_in_volume(points: np.ndarray, affine: np.ndarray, shape: Sequence[int], annotation: Path) -> None:
    """Refuse landmarks of which more than a quarter lie outside their volume: they are in another frame.

    Args:
        points: ``(N, 3)`` world millimetres, NaN for missing.
        affine: of the image.
        shape: of the image.
        annotation: the file the points came from.

    Raises:
        LandmarkError: saying how many.
    """
    world = torch.as_tensor(points)
    there = present(world)
    outside = there & ~inside(apply_affine(world, invert_affine(torch.as_tensor(affine))), tuple(shape))
    if int(outside.sum()) > _TOLERATED_OUTSIDE * int(there.sum()):
        raise LandmarkError(
            f"{annotation}: {int(outside.sum())} of {int(there.sum())} vertebrae lie outside the volume of {tuple(shape)} "
            "voxels. The file belongs to another image, or its numbers are in another frame than this data set's."
        )


def list_scans(
    images: Mapping[str, Path],
    read: Callable[[str, np.ndarray, tuple[int, ...]], tuple[Landmarks, Path]],
    names: Sequence[str],
    ignore_names: Sequence[str],
    data_set: str,
) -> list[dict[str, Any]]:
    """Make the entries of a datalist: path, vertebrae in the order of ``names``, case.

    Labels that are not contiguous are logged: real, where vertebrae are fused or absent, or a slip of the annotator.

    Args:
        images: path by case.
        read: of case, affine and size of the image: its landmarks, and the file they are from.
        names: ``N`` vertebrae wanted, from head to foot but for T13.
        ignore_names: further vertebrae that are left out.
        data_set: its name, for messages.

    Raises:
        LandmarkError: for damaged files, vertebrae that are neither wanted nor ignored, or annotations of another image.
    """
    entries, strange, gaps = [], [], []
    allowed = {*names, *(vertebra_name(name) for name in ignore_names)}
    for case, image in images.items():
        affine, shape = read_grid(image)
        marks, source = read(case, affine, shape)
        strange += [f"{name} in {source}" for name in marks.names if name not in allowed]
        points = np.array(marks.reorder(names, missing="nan", extra="drop").points)
        check_in_volume(points, affine, shape, source)
        missing = vertebra_gaps(points, names)
        gaps += [f"{case} lacks {', '.join(missing)}"] if missing else []
        entries.append({"image": str(image), "landmarks": points, "case": case})
    if strange:
        raise LandmarkError(
            f"{data_set} has vertebrae that are none of the {len(names)} wanted: {shortened(strange)}. Correct the files, "
            "or leave these vertebrae out with ignore_names."
        )
    if gaps:
        _logger.warning(
            "%s: labels with a gap in %d of %d scans: %s.", data_set, len(gaps), len(entries), "; ".join(gaps)
        )
    return entries
