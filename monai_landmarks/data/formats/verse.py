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
"""VerSe centroid files, ``*_ctd.json``: vertebra centroids in voxels of a stated orientation.

A list: first ``{"direction": ["P", "I", "R"]}``, the ends toward which the three voxel axes run (nibabel's codes), then
``{"label": 20, "X": ..., "Y": ..., "Z": ...}`` with 0-based voxel indices of an image in that orientation. Labels: 1-7
are C1-C7, 8-19 T1-T12, 20-25 L1-L6, 26 the sacrum, 27 the coccyx, 28 T13.

Where the image lies in another orientation than the file says, an index ``v`` along a turned axis of size ``s`` becomes
``s - 1 - v``. The data set's own helper uses ``s - v``, which is one voxel off.

The challenges of 2019 and 2020 gave out files without ``direction``, whose numbers are voxels of the image resampled to
1 mm: ``X, Y, Z`` run toward inferior, posterior, left (2019) or posterior, inferior, right (2020). They say nothing of it
themselves, so the reader wants to be told: ``convention="2019"`` or ``"2020"``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from monai.utils import optional_import

from monai_landmarks.geometry import LandmarkError, affine_nd, voxel_sizes

from ..landmarks import did_you_mean, quoted
from .common import (
    FileLandmarks,
    ReadRequest,
    WriteRequest,
    dump_json,
    integer_of,
    load_json,
    number_of,
    objects_of,
)

_FIRST_RELEASES = {"2019": "IPL", "2020": "PIR"}
_AXIS_OF = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}

orientations, _ = optional_import("nibabel.orientations")

VERTEBRA_NAMES = {
    **{1 + i: f"C{1 + i}" for i in range(7)},
    **{8 + i: f"T{1 + i}" for i in range(12)},
    **{20 + i: f"L{1 + i}" for i in range(6)},
    26: "sacrum",
    27: "cocc",
    28: "T13",
}


def read(
    request: ReadRequest,
    *,
    direction: Sequence[str] | None = None,
    convention: str | int | None = None,
    label_names: Mapping[int | str, str] | None = None,
) -> FileLandmarks:
    """Read centroids as voxels of the image that ``affine`` belongs to.

    Args:
        request: the file; ``affine``, and ``spatial_shape`` where the file's orientation is another than the image's.
        direction: orientation letters for a file that does not state them.
        convention: ``"2019"`` or ``"2020"`` for files of those challenges' first releases, which state no direction. Files
            that do are read by their own word.
        label_names: names of the label numbers, by default `VERTEBRA_NAMES`.
    """
    if direction is not None and convention is not None:
        raise LandmarkError("give direction (voxels of the image) or convention (1 mm voxels), not both.")
    entries = objects_of(load_json(request.path), "the file")
    stated = next((entry["direction"] for entry in entries if "direction" in entry), direction)
    names_of = _names_of(label_names)
    places: dict[str, int] = {}
    points, status, confidence = [], [], []
    for place, entry in enumerate(entries):
        if "direction" in entry or "label" not in entry:
            continue
        name = _name(entry["label"], place, names_of)
        if name in places:
            raise LandmarkError(
                f"entries {places[name]} and {place} both have label {entry['label']} ({name}), and a spine has one: "
                "correct one of them."
            )
        places[name] = place
        points.append([number_of(entry.get(axis), f"{axis} of {name}") for axis in "XYZ"])
        status.append(entry.get("status"))
        confidence.append(number_of(entry.get("confidence"), f"the confidence of {name}"))
    if not points:
        raise LandmarkError("the file holds no centroids.")
    array = np.array(points)
    if stated is None and convention is not None:
        array, stated = _from_millimetres(array, convention, request)
    return FileLandmarks(
        points=_in_image(array, stated, request),
        space="voxel",
        names=list(places),
        status=status,
        confidence=confidence if any("confidence" in entry for entry in entries) else None,
    )


def write(request: WriteRequest, *, label_names: Mapping[int | str, str] | None = None) -> None:
    """Write centroids in the orientation of ``affine``; missing ones as ``"nan"``, which the public helper skips.

    Args:
        request: landmarks whose names are vertebrae.
        label_names: names of the label numbers, by default `VERTEBRA_NAMES`.
    """
    number_named = {name: label for label, name in _names_of(label_names).items()}
    marks = request.landmarks
    unknown = [name for name in marks.names if name not in number_named]
    if unknown:
        raise LandmarkError(
            f"the format holds vertebra labels only, and {quoted(unknown)} is none"
            f"{did_you_mean(unknown[0], number_named)}; give label_names={{number: name}} for other structures."
        )
    if request.affine is None:
        raise LandmarkError("the format states the image's orientation: affine=image.affine is needed to write it.")
    entries: list[dict[str, object]] = [{"direction": list(_codes(request.affine))}]
    for index, (name, status) in enumerate(zip(marks.names, marks.status, strict=True)):
        point = request.points[index]
        texts = ["nan"] * 3 if np.isnan(point).any() else [float(value) for value in point]
        entry: dict[str, object] = {"label": number_named[name], **dict(zip("XYZ", texts, strict=True))}
        if status not in ("defined", "missing"):
            entry["status"] = status
        if marks.confidence is not None:
            value = float(marks.confidence[index])
            entry["confidence"] = None if np.isnan(value) else value
        entries.append(entry)
    dump_json(entries, request.path)


def _codes(affine: object) -> tuple[str, str, str]:
    codes: tuple[str, str, str] = orientations.aff2axcodes(affine_nd(affine, 3).numpy())
    return codes


def _names_of(label_names: Mapping[int | str, str] | None) -> dict[int, str]:
    """Return names by number; JSON knows numbers as keys only as text."""
    if label_names is None:
        return dict(VERTEBRA_NAMES)
    return {integer_of(label, "a key of label_names"): name for label, name in label_names.items()}


def _name(label: object, place: int, names_of: Mapping[int, str]) -> str:
    number = integer_of(label, f"the label of entry {place}")
    if number not in names_of:
        raise LandmarkError(
            f"entry {place} has label {number}; known are {min(names_of)} to {max(names_of)}. "
            "Give label_names={number: name} for other structures."
        )
    return names_of[number]


def _from_millimetres(points: np.ndarray, convention: str | int, request: ReadRequest) -> tuple[np.ndarray, str]:
    """Turn voxels of the 1 mm grid of a first release into voxels of the image in that release's orientation.

    That grid is taken to have ``round(size * spacing)`` voxels and the volume's centre. How it was really made is not
    published: nibabel's resampling, which the data set's helper uses, keeps a whole voxel near the centre instead and lies
    up to half a voxel beside. Payer's conversion, ``size * spacing - v`` along turned axes, is ``(1 + spacing) / 2`` mm off.
    """
    letters = _FIRST_RELEASES.get(str(convention))
    if letters is None:
        raise LandmarkError(f"convention={convention!r}; possible are {quoted(_FIRST_RELEASES)}.")
    if request.affine is None or request.spatial_shape is None:
        raise LandmarkError(
            f"centroids of {convention} are in 1 mm voxels: give affine=image.affine and spatial_shape=image.shape[1:]."
        )
    target = _turns(letters, _codes(request.affine))[:, 0]
    size = np.array(request.spatial_shape)[target]
    spacing = voxel_sizes(affine_nd(request.affine, 3)).numpy()[target]
    return (points - (np.rint(size * spacing) - 1) / 2) / spacing + (size - 1) / 2, letters


def _turns(letters: Sequence[str], codes: Sequence[str]) -> np.ndarray:
    """Per axis of one orientation, which axis of the other it is and whether it keeps its direction (1) or not (-1)."""
    orientation = orientations.axcodes2ornt
    turns: np.ndarray = orientations.ornt_transform(orientation(tuple(letters)), orientation(tuple(codes))).astype(int)
    return turns


def _in_image(points: np.ndarray, stated: Sequence[str] | None, request: ReadRequest) -> np.ndarray:
    """Turn voxels of the stated orientation into voxels of the image."""
    if (request.space or "voxel").casefold() != "voxel":
        return points
    if stated is None:
        raise LandmarkError(
            "the file states no 'direction': centroids of the challenges' first releases lie in another frame. Use the "
            "restructured release of the data, or say which it is with convention='2019' or '2020'; give "
            "direction=('P', 'I', 'R') for voxels of an orientation that you know."
        )
    if request.affine is None:
        raise LandmarkError(
            "centroids are voxels of the image, and there is no affine to turn them into millimetres: give "
            "affine=image.affine and spatial_shape=image.shape[1:]."
        )
    letters = tuple(str(letter).upper() for letter in (stated if isinstance(stated, (list, tuple, str)) else [stated]))
    if len(letters) != 3 or sorted(_AXIS_OF.get(letter, -1) for letter in letters) != [0, 1, 2]:
        raise LandmarkError(f"'direction' is {stated!r}; one letter of each of L/R, A/P and S/I is expected.")
    codes = _codes(request.affine)
    if letters == codes:
        return points
    if request.spatial_shape is None:
        raise LandmarkError(
            f"the file is in orientation {''.join(letters)}, the image in {''.join(codes)}: to turn the voxel indices "
            "the image's size is needed, spatial_shape=image.shape[1:]."
        )
    turned = np.empty_like(points)
    for source, (target, flip) in enumerate(_turns(letters, codes)):
        size = request.spatial_shape[target]
        turned[:, target] = points[:, source] if flip == 1 else size - 1 - points[:, source]
    return turned
