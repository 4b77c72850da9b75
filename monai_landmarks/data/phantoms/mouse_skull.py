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
"""A mouse skull of shells and struts with 51 landmarks, and the smooth bending that tells one specimen from another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .rods import tapered_rod
from .volume_drawing import Canvas, Patch

__all__ = ["CELL_MM", "LANDMARKS", "Bending", "BentCanvas", "draw_skull"]

Tube = tuple[float, tuple[tuple[float, float, float], ...]]

CELL_MM = 0.15
"""All lengths below are in voxels of the aligned grid, x from the midline, y backwards, z upwards."""

MIDLINE: dict[int, tuple[float, float]] = {
    **{5: (68, 81), 14: (118, 81), 15: (145, 76), 16: (166, 62), 27: (23, 52)},
    **{41: (87, 42), 45: (98, 37), 50: (126, 33), 51: (148, 27)},
}
"""Landmarks on the midline: y, z."""

PAIRED: dict[tuple[int, int], tuple[float, float, float]] = {
    **{(1, 2): (2, 22, 69), (3, 7): (13, 62, 77), (4, 6): (4, 73, 81), (8, 9): (36, 78, 55), (10, 13): (39, 103, 48)},
    **{(11, 12): (19, 100, 79), (17, 22): (13, 46, 66), (18, 23): (21, 69, 72), (19, 24): (22, 93, 73)},
    **{(20, 25): (35, 129, 55), (21, 26): (28, 146, 63), (29, 28): (21, 60, 66), (31, 30): (3, 42, 50)},
    **{(33, 32): (8, 54, 48), (35, 34): (15, 60, 49), (37, 36): (11, 68, 46), (39, 38): (4, 76, 46)},
    **{(42, 40): (5, 82, 44), (46, 44): (11, 92, 39), (47, 43): (39, 94, 45), (49, 48): (35, 111, 50)},
}
"""Landmarks with a mirror image, at positive and negative x."""

BRAINCASE = ((0.0, 117.0, 56.0), (35.0, 50.0, 25.0))
TUBES = (
    ((0, 105, 66), (0, 72, 70), 17, 11),
    ((0, 68, 69), (0, 27, 61.5), 12, 7),
    ((0, 30, 57), (0, 76, 55), 5.5, 10),
)
"""Frontal bones, nose and upper jaw, joined to the braincase: ends and radii of their outer surfaces."""
SHELL = 2.2

ON_BRAINCASE = (14, 15, 16, 11, 12, 20, 25, 21, 26)
"""Landmarks moved to the braincase's outer surface, straight from its centre."""

SUTURES: tuple[tuple[int, ...], ...] = ((14, 15, 16), (11, 14, 12), (20, 21, 15, 26, 25), (21, 16, 26))
"""Ridges along the braincase from landmark to landmark."""

STRUTS: tuple[tuple[float, tuple[int, ...]], ...] = (
    (1.3, (5, 14)),
    (1.3, (3, 4, 5)),
    (1.2, (1, 4)),
    (1.5, (1, 17, 29)),
    (1.3, (3, 29)),
    (1.6, (18, 29, 35)),
    (2.0, (18, 8, 47, 10, 49, 20)),
    (1.2, (18, 19, 11)),
    (1.5, (27, 31, 33, 35, 37, 46)),
    (1.3, (33, 39, 42, 41)),
    (1.4, (46, 45)),
    (2.2, (41, 45, 50, 51)),
)
"""Radius and landmarks on the positive side or the midline; drawn on both sides."""

JAW: tuple[Tube, ...] = (
    (4.0, ((4, 35, 20), (12, 62, 18), (20, 90, 24))),
    (2.5, ((26, 108, 26), (20, 90, 24), (29, 101, 43))),
)
INCISORS: tuple[Tube, ...] = (
    (1.8, ((2, 20, 36), (2.2, 17, 45), (2.5, 20, 53), (5, 32, 58), (8, 46, 57))),
    (1.8, ((2, 22, 33), (3, 27, 22), (5, 45, 14), (9, 65, 13), (13, 82, 20))),
)
MOLARS = tuple(
    ((x, y, z), (3.0, 4.0, r)) for z, r in ((42, 4.0), (31, 3.6)) for x, y in ((12, 64), (11.7, 73), (11.5, 82))
)
BULLA = ((19.0, 139.0, 36.0), (9.0, 11.0, 9.0))
NECK = (((0, 158, 12), (12.0, 8.0, 12.0)), ((0, 178, 6), (9.0, 8.0, 9.0)))

TISSUE, BRAIN, BONE, RIDGE, TOOTH = 10.0, 12.0, 85.0, 120.0, 225.0


def _template() -> np.ndarray:
    points = np.zeros((51, 3))
    for number, (y, z) in MIDLINE.items():
        points[number - 1] = 0, y, z
    for (right, left), (x, y, z) in PAIRED.items():
        points[right - 1], points[left - 1] = (x, y, z), (-x, y, z)
    chosen = [number - 1 for number in ON_BRAINCASE]
    points[chosen] = _to_braincase(points[chosen])
    return points


def _to_braincase(points: np.ndarray) -> np.ndarray:
    """Move points straight from the braincase's centre to its outer surface."""
    centre, radii = np.array(BRAINCASE)
    return centre + (points - centre) / np.linalg.norm((points - centre) / radii, axis=-1, keepdims=True)


LANDMARKS = _template() * CELL_MM
"""The unbent skull's landmarks, ``(51, 3)`` mm."""


class Bending:
    """A smooth bending of space by nine shape modes, from a bent specimen back to the unbent skull.

    The way back is a formula, so that drawing needs no interpolation; the way there is solved.

    Args:
        weights: nine numbers, of standard deviation 1 in a population.
    """

    SD = (0.059, 0.65, 0.055, 0.065, 0.3, 0.08, 0.12, 0.02, 0.25)
    CENTRE = (0.0, 14.0, 8.0)
    HALF = (6.0, 12.0, 5.0)

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = np.asarray(weights) * self.SD

    def shift(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How far each point (mm) lies from where it belongs on the unbent skull."""
        size, snout, width, height, bow, cheek, skew, twist, palate = (type(x.flat[0])(w) for w in self.weights)
        y, z = y - x.dtype.type(self.CENTRE[1]), z - x.dtype.type(self.CENTRE[2])
        v, w = y / self.HALF[1], z / self.HALF[2]
        broad = width * np.exp(-((v - 0.3) ** 2) / 0.3) + cheek * np.exp(-((v + 0.35) ** 2) / 0.12)
        front = np.minimum(v, 0)
        return (
            (size + broad) * x + skew * v * v - twist * v * z,
            size * y + snout * front * front,
            (size + height) * z + bow * (v * v - x.dtype.type(0.3)) + twist * v * x + palate * np.minimum(w, 0) * front,
        )

    def back(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, ...]:
        """Bent to unbent coordinates, mm."""
        return tuple(axis + move for axis, move in zip((x, y, z), self.shift(x, y, z), strict=True))

    def there(self, points: np.ndarray) -> np.ndarray:
        """Unbent to bent points ``(n, 3)``, mm: the fixed point of ``p = q - shift(p)``, to a billionth of a mm."""
        bent = points.copy()
        for _ in range(60):
            bent = points - np.stack(np.broadcast_arrays(*self.shift(*bent.T)), axis=-1)
        return bent


class BentCanvas(Canvas):
    """A canvas whose shapes are given on the unbent skull and appear bent.

    Args:
        shape: of the volume.
        affine: voxel index to bent mm.
        background: value before anything is drawn.
        bending: bent to unbent mm.
    """

    def __init__(self, shape: Sequence[int], affine: np.ndarray, background: float, bending: Bending) -> None:
        super().__init__(shape, affine, background)
        self.bending = bending
        corners = np.stack(np.meshgrid(*(np.linspace(0, size - 1, 9) for size in shape), indexing="ij"), axis=-1)
        shift = bending.shift(*(corners.reshape(-1, 3) @ self.affine[:3, :3].T + self.affine[:3, 3]).T)
        self.slack = 1.1 * float(np.sqrt(sum(axis**2 for axis in np.broadcast_arrays(*shift))).max())

    def patch(self, lower: Any, upper: Any, frame: Any = None) -> Patch | None:
        """The voxels that may show a box of the unbent skull, in its coordinates."""
        patch = super().patch(np.asarray(lower) - self.slack, np.asarray(upper) + self.slack, frame)
        if patch is not None:
            patch.x, patch.y, patch.z = self.bending.back(patch.x, patch.y, patch.z)
        return patch


def draw_skull(canvas: BentCanvas, rng: np.random.Generator) -> None:
    """Draw head, skull, jaw, teeth and, at random, paws before the head."""
    canvas.ellipsoid(np.array((0, 100, 46)) * CELL_MM, np.array((50, 92, 50)) * CELL_MM, TISSUE)
    _draw_shell(canvas)
    for side in (1, -1):
        _draw_hollow(canvas, _mirror(BULLA[0], side), BULLA[1])
    for path in SUTURES:
        _draw_tube(canvas, _to_braincase(_subdivide(_path(path))), 1.1, RIDGE)
    for side in (1, -1):
        for radius, path in STRUTS:
            if side > 0 or any(number not in MIDLINE for number in path):
                _draw_tube(canvas, _mirror(_path(path), side), radius, RIDGE)
        for value, tubes in ((RIDGE, JAW), (TOOTH, INCISORS)):
            for radius, points in tubes:
                _draw_tube(canvas, _mirror(points, side), radius, value)
        for centre, radii in MOLARS:
            canvas.ellipsoid(_mirror(centre, side) * CELL_MM, np.array(radii) * CELL_MM, TOOTH)
    for centre, radii in NECK:
        _draw_hollow(canvas, np.array(centre), radii)
    _draw_paws(canvas, rng)


def _draw_shell(canvas: BentCanvas) -> None:
    """Braincase, frontal bones, nose and upper jaw as one hollow shell."""
    patch = canvas.patch(np.array((-35, 20, 31)) * CELL_MM, np.array((35, 167, 83)) * CELL_MM)
    if patch is None:
        return
    centre, half = np.array(BRAINCASE) * CELL_MM
    distance = patch.ellipsoid(centre, half)
    for start, end, *radii in TUBES:
        (a, b), (radius, end_radius) = np.array((start, end)) * CELL_MM, np.array(radii) * CELL_MM
        distance = np.minimum(distance, tapered_rod(patch, a, b, radius, end_radius))
    patch.paint(distance, BONE)
    patch.paint(distance + np.float32(SHELL * CELL_MM), BRAIN)


def _draw_hollow(canvas: BentCanvas, centre: np.ndarray, radii: Sequence[float]) -> None:
    canvas.ellipsoid(centre * CELL_MM, np.array(radii) * CELL_MM, BONE)
    canvas.ellipsoid(centre * CELL_MM, (np.array(radii) - SHELL) * CELL_MM, TISSUE)


def _draw_tube(canvas: BentCanvas, points: np.ndarray, radius: float, value: float) -> None:
    canvas.tube(points * CELL_MM, radius * CELL_MM, value)


def _draw_paws(canvas: BentCanvas, rng: np.random.Generator) -> None:
    """Up to two paws that lie beside the head, as in many scans."""
    for side in (1, -1):
        wrist = np.array((side * rng.uniform(44, 52), rng.uniform(40, 120), rng.uniform(15, 60)))
        forward = np.array((0, -1, 0)) + rng.normal(0, 0.2, 3)
        fan = rng.normal(0, 0.3, 3)
        if rng.uniform() < 0.6:
            _draw_tube(canvas, np.stack([wrist, wrist - 25 * forward]), 2.0, BONE)
            for finger in np.linspace(-1, 1, 4):
                _draw_tube(canvas, np.stack([wrist, wrist + 16 * (forward + finger * fan)]), 1.0, BONE)


def _path(numbers: Sequence[int]) -> np.ndarray:
    return LANDMARKS[[number - 1 for number in numbers]] / CELL_MM


def _subdivide(points: np.ndarray, parts: int = 6) -> np.ndarray:
    places = np.linspace(0, len(points) - 1, parts * (len(points) - 1) + 1)
    return np.stack([np.interp(places, np.arange(len(points)), axis) for axis in points.T], axis=-1)


def _mirror(points: Sequence[float] | Sequence[Sequence[float]] | np.ndarray, side: int) -> np.ndarray:
    return np.asarray(points, dtype=float) * (side, 1, 1)
