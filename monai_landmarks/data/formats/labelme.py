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
"""LabelMe JSON: ``shapes`` of type ``point``, each with a ``label``.

LabelMe measures from the corner of the image: the centre of the first pixel is (0.5, 0.5). So its coordinates minus 0.5
are pixel indices, and that is the default here; give ``origin=0`` for files that a program made out of pixel indices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monai_landmarks.geometry import LandmarkError

from ..landmarks import WITH_POSITION, quoted
from .common import (
    FileLandmarks,
    ReadRequest,
    WriteRequest,
    dump_json,
    load_json,
    mapping_of,
    number_of,
    objects_of,
    sequence_of,
    size_of,
)

CORNER = 0.5
# LabelMe keeps keys that it does not know, so what it cannot express survives editing there.
_EXTRA = "monai_landmarks"


def read(request: ReadRequest, *, ignore_shapes: bool = False) -> FileLandmarks:
    """Read the point shapes.

    Args:
        request: the file.
        ignore_shapes: whether shapes of another type (polygons, boxes) are passed over instead of being an error.
    """
    content = mapping_of(load_json(request.path), "a LabelMe file")
    names: list[str] = []
    points: list[list[float]] = []
    others = []
    for shape in objects_of(content.get("shapes"), "'shapes'"):
        label = str(shape.get("label", "")).strip()
        vertices = sequence_of(shape.get("points") or [], f"'points' of shape {label!r}")
        if shape.get("shape_type", "point" if len(vertices) == 1 else "polygon") != "point":
            others.append(f"{label} ({shape.get('shape_type', 'polygon')})")
            continue
        if len(vertices) != 1 or len(sequence_of(vertices[0], f"the point of shape {label!r}")) != 2:
            raise LandmarkError(f"point shape {label!r} has points {vertices!r}; one pair [x, y] is expected.")
        names.append(label)
        points.append([number_of(value, f"shape {label!r}") for value in vertices[0]])
    if others and not ignore_shapes:
        raise LandmarkError(
            f"not all shapes are points: {quoted(others)}. Give ignore_shapes=True if they are no landmarks."
        )
    return _with_extra(content, names, points)


def write(request: WriteRequest, *, image_file: str = "") -> None:
    """Write one point shape per landmark that has a position; the others are listed in an extra key of the file.

    Args:
        request: 2D landmarks; ``spatial_shape`` (width, height), if given, goes into imageWidth and imageHeight.
        image_file: the image's path relative to the file, for LabelMe to open.
    """
    marks = request.landmarks
    if marks.spatial_dims != 2:
        raise LandmarkError("LabelMe files are 2D; write 3D landmarks as .mrk.json.")
    shapes: list[dict[str, Any]] = [
        {
            "label": name,
            "points": [[float(point[0]), float(point[1])]],
            "group_id": None,
            "description": "",
            "shape_type": "point",
            "flags": {},
        }
        for name, point in zip(marks.names, request.points, strict=True)
        if not np.isnan(point).any()
    ]
    extra: dict[str, Any] = {"names": list(marks.names), "status": list(marks.status)}
    if marks.confidence is not None:
        extra["confidence"] = [None if np.isnan(v) else float(v) for v in marks.confidence]
    width, height = request.spatial_shape if request.spatial_shape is not None else (None, None)
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": image_file,
        "imageData": None,
        "imageHeight": None if height is None else int(height),
        "imageWidth": None if width is None else int(width),
        _EXTRA: extra,
    }
    dump_json(content, request.path)


def _with_extra(content: Any, names: list[str], points: list[list[float]]) -> FileLandmarks:
    """Add the landmarks without a shape that our own files list; the shapes rule where both speak."""
    extra = mapping_of(content.get(_EXTRA) or {}, repr(_EXTRA))
    known = [str(name) for name in _listed(extra, "names")]
    order = [*known, *(name for name in names if name not in known)] if len(set(names)) == len(names) else names
    if not order:
        raise LandmarkError("the file has no point shapes.")
    position = dict(zip(names, points, strict=True))
    words = dict(zip(known, _listed(extra, "status"), strict=False))
    status = [w if (n in position) == (w in WITH_POSITION) else None for n, w in ((n, words.get(n)) for n in order)]
    scores = dict(zip(known, _listed(extra, "confidence"), strict=False))
    return FileLandmarks(
        points=np.array([position.get(name, [np.nan, np.nan]) for name in order], dtype=np.float64),
        space="voxel",
        names=order,
        status=status,
        confidence=[number_of(scores.get(name), f"confidence of {name!r}") for name in order] if scores else None,
        origin=CORNER,
        spatial_shape=size_of(content.get("imageWidth"), content.get("imageHeight")),
    )


def _listed(extra: Mapping[str, Any], key: str) -> Sequence[Any]:
    return sequence_of(extra.get(key) or [], f"{key!r} of {_EXTRA!r}")
