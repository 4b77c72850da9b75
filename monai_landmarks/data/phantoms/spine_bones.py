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
"""The bones of a spine drawn on a canvas in patient mm: vertebrae, discs, ribs, sacrum, pelvis and skull base."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .spine import Spine
from .volume_drawing import Canvas, Patch, local_frame, rotation_matrix

__all__ = ["Tissue", "canal_line", "draw_bones", "draw_vertebra"]

SIDES = (-1, 1)


@dataclass(frozen=True)
class Tissue:
    """Grey values of what is drawn, Hounsfield units or any others."""

    cortical: float
    trabecular: float
    arch: float
    disc: float
    canal: float
    cord: float
    rind_mm: float = 1.6


# Length of the ribs as the angle they run around the chest, in degrees: T11 and lower ones float, short.
_RIB_DEG = (150, 152, 155, 155, 155, 155, 150, 145, 138, 125, 72, 46, 30)
_CHEST_WIDTH = (58, 86, 106, 118, 126, 131, 134, 135, 134, 131, 126, 118, 110)
_CHEST_DEPTH = (40, 58, 72, 82, 88, 92, 94, 95, 94, 92, 90, 86, 84)
_WINGS = (30, 27, 20, 14, 8)
_THORACIC_DROP = (6, 10, 16, 22, 28, 30, 30, 27, 22, 16, 11, 8, 8)


def draw_bones(canvas: Canvas, spine: Spine, tissue: Tissue, ribs: float = 1.0) -> None:
    """Draw the whole skeleton of the trunk.

    Args:
        canvas: in patient mm.
        spine: what to draw.
        tissue: grey values.
        ribs: factor of the lengths of the floating ribs.
    """
    canal = canal_line(spine)
    lumbar = next(index for index, name in enumerate(spine.names) if name.startswith("L"))
    canvas.tube(canal, 8.5 * spine.scale, tissue.canal)
    canvas.tube(canal[: lumbar + 1], 4.5 * spine.scale, tissue.cord)
    _draw_discs(canvas, spine, tissue)
    for index, name in enumerate(spine.names):
        if name[0] == "T":
            _draw_ribs(canvas, spine, index, tissue, ribs)
    _draw_pelvis(canvas, spine, tissue)
    _draw_sacrum(canvas, spine, tissue)
    for index in reversed(range(len(spine.names))):
        draw_vertebra(canvas, spine, index, tissue)


def canal_line(spine: Spine) -> np.ndarray:
    """The middle of the spinal canal behind each vertebra, from the brain down to S3."""
    behind = np.c_[np.zeros(len(spine.names)), -spine.sizes[:, 1] / 2 - 9.5 * spine.scale, np.zeros(len(spine.names))]
    behind[0, 1] = -14.0 * spine.scale
    points = np.einsum("nij,nj->ni", spine.frames[:, :3, :3], behind) + spine.centres
    above = points[0] + np.array([0, 8.0, 45.0]) * spine.scale
    return np.concatenate([above[None], points[:-2]])


def draw_vertebra(canvas: Canvas, spine: Spine, index: int, tissue: Tissue, arch: bool = True) -> None:
    """Draw one vertebra, its body centred at the origin of its frame.

    Args:
        canvas: in patient mm.
        spine: the spine.
        index: which vertebra, counted from C1.
        tissue: grey values.
        arch: draw what belongs to it beside the body, too.
    """
    name, size, frame = spine.names[index], spine.sizes[index], spine.frames[index]
    if arch:
        rods = {"C": _cervical_rods, "T": _thoracic_rods, "L": _lumbar_rods, "S": _sacral_rods}[name[0]]
        for path, radius in (_atlas_rods if name == "C1" else rods)(name, size, spine.scale):
            canvas.tube(path, radius, tissue.arch, frame)
    if name == "C1":
        for side in SIDES:
            lateral = np.array([side * 17, -4, 0]) * spine.scale, np.array([8.5, 10, 9]) * spine.scale
            canvas.ellipsoid(*lateral, tissue.arch, frame)
        return
    if arch and name == "C2":
        top = (np.linalg.inv(frame) @ np.r_[spine.centres[0], 1])[:3] + np.array((0, 0, 5)) * spine.scale
        canvas.tube([(0, 0, 0), top], 5.5 * spine.scale, tissue.cortical, frame)
        canvas.tube([(0, 0, 0), top], 5.5 * spine.scale - tissue.rind_mm, tissue.trabecular, frame)
    patch = canvas.patch(-size * (0.6, 0.7, 0.6), size * (0.6, 0.7, 0.6), frame)
    if patch is not None:
        _draw_body(patch, size, float(spine.loss[index]), tissue)
    if arch and name[0] == "S":
        for side in SIDES:
            across = np.array([side * 0.8, -0.1, 0]) * size
            canvas.tube([across / 4, across], 0.28 * size[2], tissue.trabecular, frame)


def _bone(patch: Patch, distance: np.ndarray, tissue: Tissue, rind: float | None = None) -> None:
    """Dense bone outside, loose bone within."""
    patch.paint(distance, tissue.cortical)
    patch.paint(distance + np.float32(rind or tissue.rind_mm), tissue.trabecular)


def _draw_body(patch: Patch, size: np.ndarray, loss: float, tissue: Tissue) -> None:
    width, depth, height = size
    half_height: float | np.ndarray = height / 2
    if loss:
        # A wedge's centroid lies behind the middle of its depth by this much; the drawing moves forward by as much,
        # so that the landmark stays the centroid.
        patch = replace(patch, y=patch.y - np.float32(loss / 8 / (1 - loss / 2) * depth / 2))
        half_height = half_height * (1 - loss * (0.5 + 0.5 * np.clip(patch.y / (depth / 2), -1, 1)))
    distance = patch.cylinder((width / 2, depth / 2), half_height, rounding=min(2.0, height / 6), waist=0.1)
    _bone(patch, distance, tissue)


# A vertebra's rods: polylines in its own frame, and their radii.
Rods = Iterator[tuple[np.ndarray, float]]


def _mirrored(*points: Any) -> Iterator[np.ndarray]:
    for side in SIDES:
        yield np.array(points) * [side, 1, 1]


def _atlas_rods(name: str, size: np.ndarray, scale: float) -> Rods:
    """C1, a ring without a body; its landmark is the dens within the ring's front part."""
    angle = np.linspace(0, 2 * np.pi, 13)
    yield np.c_[21 * np.sin(angle), -12 + 22 * np.cos(angle), np.zeros(13)] * scale, 3.8 * scale
    for path in _mirrored((20, -6, 0), (37, -8, -2)):
        yield path * scale, 4 * scale


def _arch_rods(corner: np.ndarray, root: np.ndarray, size: np.ndarray, radius: float, joint: float) -> Rods:
    """Pedicles and laminae from the body round the canal, and the joints up and down."""
    start = (min(0.36 * size[0], corner[0]), -0.36 * size[1], 0.15 * size[2])
    for path in _mirrored(start, corner):
        yield path, 1.05 * radius
    for path in _mirrored(corner, root):
        yield path, 0.8 * radius
    behind, up = corner - (0, 0.9 * radius, 0), np.array((0, 0, joint * size[2]))
    for path in _mirrored(behind + up, behind - up):
        yield path, radius


def _corner(size: np.ndarray, scale: float, radius: float, canal: float) -> tuple[np.ndarray, np.ndarray]:
    """Where pedicle and lamina meet, and where the laminae meet: the root of the spinous process."""
    corner = np.array([canal + radius, -size[1] / 2 - 10 * scale, 0.12 * size[2]])
    return corner, np.array([0, -size[1] / 2 - 20 * scale - radius, -0.15 * size[2]])


def _cervical_rods(name: str, size: np.ndarray, scale: float) -> Rods:
    corner, root = _corner(size, scale, 3.6 * scale, 9 * scale)
    yield from _arch_rods(corner, root, size, 3.6 * scale, 0.55)
    length = {"C2": 20.0, "C6": 20.0, "C7": 31.0}.get(name, 14.0) * scale
    yield np.array([root, root - (0, length, 0.3 * length)]), (5.0 if name == "C2" else 3.2) * scale
    tip = ((32 if name == "C7" else 25) * scale, -0.35 * size[1], -1)
    for path in _mirrored(corner - (0, -4 * scale, 0), tip):
        yield path, 3.5 * scale
    for path in _mirrored((0.4 * size[0], 0, 0), tip):
        yield path, 2.5 * scale


def _thoracic_rods(name: str, size: np.ndarray, scale: float) -> Rods:
    number = int(name[1:])
    corner, root = _corner(size, scale, 4.2 * scale, 8.5 * scale)
    yield from _arch_rods(corner, root, size, 4.2 * scale, 0.5)
    yield np.array([root, root + np.array([0, -24, -_THORACIC_DROP[number - 1]]) * scale]), 3.5 * scale
    reach = float(np.interp(number, [1, 8, 11, 13], [37, 31, 22, 22])) * scale
    for path in _mirrored(corner, (reach, corner[1] - 14 * scale, 0.2 * size[2])):
        yield path, 4 * scale


def _lumbar_rods(name: str, size: np.ndarray, scale: float) -> Rods:
    number = int(name[1:])
    corner, root = _corner(size, scale, 5.5 * scale, 10.5 * scale)
    yield from _arch_rods(corner, root, size, 5.5 * scale, 0.6)
    length = float(np.interp(number, [1, 3, 4, 5], [30, 31, 28, 20])) * scale
    for lift in np.array([4.0, -1.5, -7.0]) * scale:
        yield np.array([root - (0, 0, -lift), root - (0, length, 4 * scale - lift)]), 4.8 * scale
    reach = float(np.interp(number, [1, 3, 5], [38, 47, 43])) * scale
    for path in _mirrored(corner, (reach, corner[1] + (4 if number > 4 else -3) * scale, 0.2 * size[2])):
        yield path, (5.0 if number > 4 else 3.2) * scale


def _sacral_rods(name: str, size: np.ndarray, scale: float) -> Rods:
    if name == "S5":
        return
    root = np.array([0, -size[1] / 2 - 20 * scale, 0])
    yield root + np.array([(0, 2, 0.5 * size[2]), (0, -2, -0.6 * size[2])]), 4.5 * scale
    for path in _mirrored((0.45 * size[0], -size[1] / 2 - 4 * scale, 0), root):
        yield path, 3.8 * scale


def _draw_discs(canvas: Canvas, spine: Spine, tissue: Tissue) -> None:
    for index in range(1, spine.names.index("S1")):
        upper, lower = spine.frames[index], spine.frames[index + 1]
        gap = float(np.linalg.norm(upper[:3, 3] - lower[:3, 3]))
        across = upper[:3, :3] + lower[:3, :3]
        left, _, right = np.linalg.svd(across)
        frame = local_frame((upper[:3, 3] + lower[:3, 3]) / 2, left @ right)
        radii = 0.49 * np.minimum(spine.sizes[index, :2], spine.sizes[index + 1, :2])
        patch = canvas.patch((*-radii, -gap / 3), (*radii, gap / 3), frame)
        if patch is not None:
            patch.paint(patch.cylinder(radii, gap / 3, 2.0), tissue.disc)


def _draw_ribs(canvas: Canvas, spine: Spine, index: int, tissue: Tissue, length: float) -> None:
    """Both ribs of one vertebra: back from the body, around the chest and down."""
    name, scale = spine.names[index], spine.scale
    width, depth, _ = spine.sizes[index]
    number = int(name[1:])
    across, front = _CHEST_WIDTH[number - 1] * scale, _CHEST_DEPTH[number - 1] * scale
    middle = -depth / 2 - 26 * scale + front
    last = _RIB_DEG[number - 1] * (length if number > 10 else 1.0)
    angle = np.deg2rad(np.linspace(24, max(last, 30), max(3, round(last / 14))))
    drop = np.interp(number, [1, 3, 13], [22, 40, 55]) * scale
    arc = np.c_[across * np.sin(angle), middle - front * np.cos(angle), -drop * (1 - np.cos(angle)) - 0.03 * drop]
    arc = np.concatenate([[[0.45 * width, -0.42 * depth, 0.25 * depth]], arc])
    turn = spine.frames[index][:3, :3] @ rotation_matrix((_tilt(spine.frames[index]), 0, 0)).T
    for side in SIDES:
        path = (arc * [side, 1, 1]) @ turn.T + spine.centres[index]
        canvas.tube(path, 5.2 * scale, tissue.arch)
        canvas.tube(path, 2.2 * scale, tissue.trabecular)


def _tilt(frame: np.ndarray) -> float:
    """The part of a vertebra's rotation that is its tilt forwards or backwards, which its ribs do not follow."""
    return float(np.rad2deg(np.arctan2(frame[2, 1], frame[2, 2])))


def _draw_sacrum(canvas: Canvas, spine: Spine, tissue: Tissue) -> None:
    """The wings beside the sacral bodies, grown together."""
    first = spine.names.index("S1")
    for rind, value in ((0.0, tissue.cortical), (tissue.rind_mm, tissue.trabecular)):
        for size, frame, reach in zip(spine.sizes[first:], spine.frames[first:], _WINGS, strict=True):
            radii = np.array([reach * spine.scale, 0.42 * size[1] + 4 * spine.scale, 0.75 * size[2]]) - rind
            for side in SIDES:
                centre = size * (side * 0.4, -0.12, -0.1) + (side * 0.45 * reach * spine.scale, 0, 0)
                canvas.ellipsoid(centre, radii, value, frame)


def _draw_pelvis(canvas: Canvas, spine: Spine, tissue: Tissue) -> None:
    """Iliac wings, bowls open to the front and the middle, and the hips."""
    scale, origin = spine.scale, spine.centres[spine.names.index("S1")]
    radii = np.array([64, 7, 62]) * scale
    for side in SIDES:
        frame = local_frame(origin + np.array([side * 86, -2, 8]) * scale, rotation_matrix((20, 0, side * 52)))
        patch = canvas.patch(-radii - (0, 6 * scale, 0), radii - (0, -20 * scale, 0), frame)
        if patch is not None:
            bend = (patch.x / np.float32(radii[0])) ** 2 * np.float32(20 * scale) - np.float32(6 * scale)
            bowl = replace(patch, y=patch.y - bend)
            _bone(bowl, bowl.ellipsoid((0, 0, 0), radii), tissue, 2.2)
        hip = origin + np.array([side * 88, 22, -95]) * scale
        for size, value in ((34, tissue.arch), (27, tissue.canal), (24, tissue.arch)):
            canvas.ellipsoid(hip, np.full(3, size * scale), value)
