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
"""3D Slicer markups, ``.mrk.json``: schema 1.0.x of Slicer's Markups module.

Positions are millimetres in the ``coordinateSystem`` that the file names, LPS where it names none. ``positionStatus``
rules over ``position``: a point that is ``undefined`` or ``missing`` has no position, whatever numbers stand there
(older programs put zeros), and one without numbers is undefined, as in Slicer.

Slicer has no status for a landmark outside the image. It is written as defined, with ``field_of_view=outside`` in the
description, which Slicer shows and keeps, also when the point is moved: `Landmarks.seen_in` looks anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monai_landmarks.geometry import LandmarkError

from ..landmarks import did_you_mean, quoted
from .common import (
    MILLIMETRES,
    FileLandmarks,
    ReadRequest,
    WriteRequest,
    confidence_in,
    description_text,
    dump_json,
    load_json,
    mapping_of,
    number_of,
    objects_of,
    outside_in,
)

SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
COORDINATE_SYSTEMS = {"RAS": "RAS", "LPS": "LPS", "0": "RAS", "1": "LPS"}
NAME_SOURCES = ("label", "description")
POSITION_STATUSES = ("defined", "missing", "preview", "undefined")


def read(request: ReadRequest, *, node: int | str | None = None, names_from: str = "label") -> FileLandmarks:
    """Read control points of any markups type (point list, line, angle, curve, closed curve, ...).

    Args:
        request: the file.
        node: which markups node of a file with several: its place (0-based), its ``name``, or ``"all"`` to join them.
        names_from: ``"label"``, or ``"description"`` for files whose labels are running numbers.
    """
    if names_from not in NAME_SOURCES:
        raise LandmarkError(f"names_from={names_from!r}; possible are {quoted(NAME_SOURCES)}.")
    content = mapping_of(load_json(request.path), "a markups file")
    chosen = _chosen_nodes(objects_of(content.get("markups"), "'markups'"), node)
    spaces = {_coordinate_system(item) for item in chosen}
    if len(spaces) > 1:
        raise LandmarkError(
            "the markups nodes have different coordinate systems: read them one by one with node=0, 1, ..."
        )
    points: list[np.ndarray] = []
    status: list[str | None] = []
    labels, descriptions = [], []
    for item in chosen:
        scale = _unit(item)
        for place, point in enumerate(objects_of(item.get("controlPoints", []), "'controlPoints'"), start=1):
            labels.append(str(point.get("label") or "").strip())
            descriptions.append(str(point.get("description") or "").strip())
            position, word = _position(point, f"control point {place} ({labels[-1]!r})")
            points.append(position * scale)
            status.append("outside" if word == "defined" and outside_in(descriptions[-1]) else word)
    if not points:
        raise LandmarkError("the markups hold no control points.")
    texts = labels if names_from == "label" else descriptions
    return FileLandmarks(
        points=np.stack(points),
        space=spaces.pop(),
        names=texts if any(texts) else None,
        status=status,
        confidence=confidence_in(descriptions),
        descriptions=descriptions if names_from == "label" else labels,
    )


def write(request: WriteRequest, *, node_name: str | None = None, locked: bool = False) -> None:
    """Write one point list; missing landmarks are control points without ``position``.

    A confidence goes into the description as ``confidence=0.93``, the status "outside" as ``field_of_view=outside``;
    `read` finds both there again.

    Args:
        request: the landmarks.
        node_name: name of the point list in Slicer, by default the name of the file.
        locked: whether Slicer refuses to move the points.
    """
    marks = request.landmarks
    # The orientation is the identity of Slicer's own RAS axes, in the signs of the file's system.
    sign = -1.0 if request.space == "LPS" else 1.0
    orientation = [sign, 0.0, 0.0, 0.0, sign, 0.0, 0.0, 0.0, 1.0]
    controls = []
    for index, (name, status) in enumerate(zip(marks.names, marks.status, strict=True)):
        control: dict[str, Any] = {
            "id": str(index + 1),
            "label": name,
            "description": description_text(marks, index),
            "associatedNodeID": "",
            "orientation": orientation,
            "selected": True,
            "locked": locked,
            "visibility": True,
            "positionStatus": "defined" if status == "outside" else status,
        }
        if not np.isnan(request.points[index]).any():
            control["position"] = [float(v) for v in request.points[index]]
        controls.append(control)
    markup = {
        "type": "Fiducial",
        "coordinateSystem": request.space,
        "coordinateUnits": "mm",
        "locked": locked,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(controls),
        "controlPoints": controls,
    }
    if node_name:
        markup["name"] = node_name
    dump_json({"@schema": SCHEMA, "markups": [markup]}, request.path)


def _chosen_nodes(nodes: Sequence[Mapping[str, Any]], node: int | str | None) -> Sequence[Mapping[str, Any]]:
    if not nodes:
        raise LandmarkError("the file has no markups node.")
    if node == "all":
        return nodes
    known = [f"{i}: {item.get('type', '?')} {item.get('name', '')!r}" for i, item in enumerate(nodes)]
    if node is None:
        if len(nodes) > 1:
            raise LandmarkError(
                f"the file has {len(nodes)} markups nodes ({'; '.join(known)}): choose one with node=<place or name>, "
                "or join them with node='all'."
            )
        return nodes
    if isinstance(node, int) and 0 <= node < len(nodes):
        return [nodes[node]]
    named = [item for item in nodes if item.get("name") == node]
    if len(named) != 1:
        raise LandmarkError(f"{len(named)} markups nodes are called {node!r}; the file has {'; '.join(known)}.")
    return named


def _coordinate_system(item: Mapping[str, Any]) -> str:
    stated = str(item.get("coordinateSystem", "LPS")).strip().upper()
    if stated not in COORDINATE_SYSTEMS:
        raise LandmarkError(f"coordinateSystem is {stated!r}; known are LPS (or 1) and RAS (or 0).")
    return COORDINATE_SYSTEMS[stated]


def _unit(item: Mapping[str, Any]) -> float:
    stated = item.get("coordinateUnits", "mm")
    unit = stated[0] if isinstance(stated, list) and stated else stated
    if not isinstance(unit, str) or unit not in MILLIMETRES:
        raise LandmarkError(f"coordinateUnits is {stated!r}; known are {quoted(MILLIMETRES)}.")
    return MILLIMETRES[unit]


def _position(point: Mapping[str, Any], where: str) -> tuple[np.ndarray, str]:
    """Return the position, NaN where there is none, and the status that agrees with it."""
    status = str(point.get("positionStatus", "defined")).strip().lower()
    if status not in POSITION_STATUSES:
        raise LandmarkError(
            f"{where} has positionStatus {status!r}{did_you_mean(status, POSITION_STATUSES)}; possible are "
            f"{quoted(POSITION_STATUSES)}."
        )
    raw = point.get("position")
    if raw in (None, "", []):
        values = np.full(3, np.nan)
    else:
        if not isinstance(raw, list) or len(raw) != 3:
            raise LandmarkError(f"{where} has position {raw!r}; three numbers are needed.")
        values = np.array([number_of(value, f"the position of {where}") for value in raw])
    if status in ("missing", "undefined"):
        return np.full(3, np.nan), status
    return values, "undefined" if np.isnan(values).all() else status
