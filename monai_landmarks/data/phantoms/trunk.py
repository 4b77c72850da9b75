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
"""What lies around a spine in a CT: skin, fat, muscles, lungs, vessels, organs, gas and the head."""

from __future__ import annotations

import numpy as np

from .spine import Spine
from .spine_bones import SIDES, Tissue
from .volume_drawing import Canvas, Patch

__all__ = ["back_line", "draw_head", "draw_trunk", "skin_distance"]

AIR, LUNG, FAT, WATER, MUSCLE = -1000.0, -850.0, -100.0, 10.0, 55.0

# Level, half width, thickness from back to front, skin behind the centre of the vertebra, in mm. The first row lies
# above C1 and the last below S2, by the mm in the second table.
_SECTIONS = (
    ("C1", 78, 190, 88),
    ("C1", 70, 150, 66),
    ("C4", 62, 122, 58),
    ("C7", 92, 128, 62),
    ("T2", 172, 165, 62),
    ("T6", 168, 212, 60),
    ("T10", 158, 222, 62),
    ("L1", 152, 215, 70),
    ("L4", 156, 212, 80),
    ("S2", 176, 210, 62),
    ("S2", 172, 190, 58),
)


def _table(spine: Spine, thickness: float) -> np.ndarray:
    """Rows of z, half width, middle y, half thickness, back y, falling z; in patient mm."""
    rows = []
    for number, (name, width, deep, behind) in enumerate(_SECTIONS):
        _, y, z = spine.frame(name)[:3, 3] if name in spine.names else spine.centres[:2].mean(axis=0)
        z += spine.scale * {0: 85.0, len(_SECTIONS) - 1: -110.0}.get(number, 0.0)
        back = y - behind * spine.scale - 0.4 * thickness
        half = deep * spine.scale / 2 + 0.6 * thickness
        rows.append((z, width * spine.scale + 0.7 * thickness, back + half, half, back))
    return np.array(rows)


def back_line(spine: Spine, thickness: float) -> np.ndarray:
    """The skin of the back in the middle, ``(K, 3)`` patient mm."""
    table = _table(spine, thickness)
    return np.c_[np.zeros(len(table)), table[:, 4], table[:, 0]]


def draw_trunk(canvas: Canvas, spine: Spine, rng: np.random.Generator) -> None:
    """Draw the soft parts; bones come on top of them.

    Args:
        canvas: in patient mm.
        spine: the spine within.
        rng: for fat, contrast medium, bowels.
    """
    thickness, contrast = rng.uniform(6, 24), rng.uniform(150, 350) if rng.random() < 0.4 else 42.0
    table = _table(spine, thickness)
    patch = canvas.everywhere()
    distance = skin_distance(patch, spine, thickness)
    for depth, value in ((0.0, 20.0), (2.0, FAT), (2.0 + thickness, MUSCLE)):
        patch.paint(distance + np.float32(depth), value)
    _draw_chest(canvas, spine, table, contrast)
    _draw_abdomen(canvas, spine, table, contrast, rng)


def skin_distance(patch: Patch, spine: Spine, thickness: float) -> np.ndarray:
    """Approximate distance to the skin around a spine, with fat of this thickness below it; an oval in each height."""
    table = _table(spine, thickness)
    heights = np.arange(table[-1, 0] - 50, table[0, 0] + 50, 0.5)
    index = np.clip((patch.z - np.float32(heights[0])) * 2, 0, len(heights) - 1).astype(np.int32)
    width, middle, half = _smooth(heights, table).astype(np.float32)[:, index]
    u, v = (patch.x / width) ** 2, ((patch.y - middle) / half) ** 2
    return (0.5 * (np.sqrt(u + v) + np.sqrt(np.sqrt(u * u + v * v))) - 1) * np.sqrt(width * half)


def _smooth(heights: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Half width, middle and half thickness in each of the heights, which go up by half millimetres: no kinks."""
    columns = np.stack([np.interp(heights, table[::-1, 0], table[::-1, column]) for column in (1, 2, 3)])
    padded = np.pad(columns, ((0, 0), (40, 40)), mode="edge")
    return np.stack([np.convolve(column, np.full(81, 1 / 81), "valid") for column in padded])


def _draw_chest(canvas: Canvas, spine: Spine, table: np.ndarray, contrast: float) -> None:
    s = spine.scale
    top, bottom = spine.frame("T1")[:3, 3], spine.frame("T11")[:3, 3]
    middle, heart = (top + bottom) / 2, spine.frame("T8")[:3, 3]
    for side in SIDES:
        centre = middle[0] + side * 68 * s, np.interp(middle[2], table[::-1, 0], table[::-1, 2]) - 4 * s, middle[2]
        canvas.ellipsoid(centre, (50 * s, 78 * s, 0.54 * (top[2] - bottom[2])), LUNG)
    canvas.ellipsoid(heart + np.array([-20, 78, 0]) * s, np.array([52, 42, 48]) * s, 0.6 * contrast + 20)
    canvas.ellipsoid(bottom + np.array([66, 60, -8]) * s, np.array([72, 72, 72]) * s, 0.25 * contrast + 50)
    canvas.ellipsoid(bottom + np.array([-72, 45, -14]) * s, np.array([56, 66, 58]) * s, 0.3 * contrast + 35)
    airway = [spine.frame(name)[:3, 3] for name in ("C1", "C3", "C5", "C7", "T2", "T4")]
    ahead = np.array([22, 22, 27, 32, 38, 34])[:, None] * [0, s, 0]
    canvas.tube(airway + ahead, 8 * s, AIR)
    for side in SIDES:
        clavicle = [top + np.array(p) * [side, 1, 1] * s for p in ((16, 0, -22), (70, 0, -12), (112, -26, -4))]
        canvas.tube(_below_skin(clavicle, table, 28 * s), 6 * s, 450.0)
    sternum = [top - np.array((0, 0, down)) * s for down in (30, 80, 130, 175)]
    canvas.tube(_below_skin(sternum, table, 24 * s), 8 * s, 260.0)
    vessel = [spine.frame(name)[:3, 3] for name in ("T4", "T6", "T9", "T11", "L1", "L2", "L3", "L4")]
    beside = np.array([(-18, 18), (-22, 14), (-14, 24), (-8, 29), (-6, 31), (-8, 31), (-8, 31), (-6, 32)])
    canvas.tube(vessel + np.c_[beside, np.zeros(len(beside))] * s, 11 * s, contrast)


def _below_skin(points: list[np.ndarray], table: np.ndarray, depth: float) -> np.ndarray:
    """Move points forwards to this depth below the skin; their y is counted from there."""
    path, offset = np.array(points), np.array(points)[:, 1] - points[0][1]
    front = np.interp(path[:, 2], table[::-1, 0], table[::-1, 2] + table[::-1, 3])
    path[:, 1] = front - depth + offset
    return path


def _draw_abdomen(canvas: Canvas, spine: Spine, table: np.ndarray, contrast: float, rng: np.random.Generator) -> None:
    s = spine.scale
    lumbar = np.stack([spine.frame(f"L{n}")[:3, 3] for n in range(1, 5)])
    middle = lumbar.mean(axis=0) + np.array((0, 72, -20)) * s
    canvas.ellipsoid(middle, np.array([125, 62, 120]) * s, rng.uniform(-105, -40))
    low = lumbar[-1] + np.array([0, 20, -150]) * s
    for side in SIDES:
        kidney = lumbar[1] + np.array([side * 62, 2, -4 * side]) * s
        canvas.ellipsoid(kidney, np.array([34, 30, 62]) * s, FAT)
        canvas.ellipsoid(kidney, np.array([25, 22, 50]) * s, 0.5 * contrast + 15)
        psoas = [*(lumbar + np.array([side * 36, 2, 0]) * s), low + np.array([side * 85, 30, 40]) * s]
        for number in range(4):
            canvas.tube(psoas[number : number + 2], (9 + 4 * number) * s, MUSCLE)
    for kind in rng.random(16):
        centre = middle + rng.uniform(-1, 1, 3) * np.array([105, 42, 115]) * s
        radii = rng.uniform(9, 22, 3) * s
        canvas.ellipsoid(centre, radii, 30.0)
        if kind < 0.6:
            canvas.ellipsoid(centre, 0.75 * radii, AIR if kind < 0.45 else 250.0)
    canvas.tube(lumbar + np.array([17, 29, 0]) * s, 10 * s, 0.6 * contrast + 15)


def draw_head(canvas: Canvas, spine: Spine, tissue: Tissue) -> None:
    """Draw the skull, its base over C1, the jaws with teeth and the sinuses."""
    s, origin = spine.scale, spine.centres[0]

    def put(at: tuple[float, float, float], radii: tuple[float, float, float], value: float) -> None:
        canvas.ellipsoid(origin + np.array(at) * s, np.array(radii) * s, value)

    put((0, 4, 106), (77, 95, 92), 60.0)
    put((0, 4, 106), (73, 91, 88), 1000.0)
    put((0, 4, 106), (67, 85, 80), 35.0)
    put((0, 22, 32), (40, 34, 10), 420.0)
    put((0, 62, 30), (34, 26, 26), 420.0)
    put((0, 66, 32), (27, 20, 18), AIR)
    for side in SIDES:
        put((side * 45, -6, 24), (15, 16, 20), 500.0)
        put((side * 45, -6, 24), (10, 11, 14), -300.0)
        put((side * 18, -2, 16), (8, 11, 7), tissue.cortical)
        jaw = np.array([(side * 50, 18, 12), (side * 47, 28, -22), (side * 30, 66, -32), (0, 86, -34)])
        canvas.tube(origin + jaw * s, 6 * s, 700.0)
        teeth = np.array([(side * 26, 58, -12), (side * 20, 74, -12), (0, 84, -12)])
        canvas.tube(origin + teeth * s, 5.5 * s, 1500.0)
