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
"""Solid shapes drawn into a 3D image: signed distances in local millimetres, rasterised on any voxel grid.

A shape is a signed distance in mm, negative inside. It is evaluated only in the voxels of its bounding box, through
the image's affine, so oblique and anisotropic grids show the true shape and nothing is resampled. An edge is a ramp
one voxel wide (the geometric mean of the voxel sizes): the share of a voxel that the shape covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

__all__ = ["Canvas", "Patch", "local_frame", "rotation_matrix", "scan_grid"]


Vector = Sequence[float] | np.ndarray


def rotation_matrix(degrees: Vector) -> np.ndarray:
    """Turn about x, then y, then z, by these angles: a 3x3 matrix."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def local_frame(origin: Any, rotation: Any = None) -> np.ndarray:
    """A 4x4 matrix from local to outer mm with this origin and rotation."""
    frame = np.eye(4)
    frame[:3, 3] = origin
    if rotation is not None:
        frame[:3, :3] = rotation
    return frame


def scan_grid(
    centre: Any,
    extent: Vector,
    spacing: Vector,
    orientation: str = "RAS",
    oblique_deg: Vector = (0.0, 0.0, 0.0),
) -> tuple[tuple[int, int, int], np.ndarray]:
    """Lay a voxel grid on a box of the world.

    Args:
        centre: of the box, world mm.
        extent: sizes of the box along the world's axes R, A, S, in mm.
        spacing: voxel sizes along the image's axes, in mm.
        orientation: where the image's axes point to, as nibabel says it: ``"LPS"``: the first index grows to the left.
        oblique_deg: turn the box and its grid about its centre, by these angles about x, y and z.

    Returns:
        The image's shape and its affine (4, 4) to RAS mm.

    Raises:
        ValueError: for letters that are no orientation, or voxel sizes that are not positive.

    Example:
        >>> shape, affine = scan_grid((0, 0, 0), (4, 6, 8), (1, 2, 2), "LPS")
        >>> shape
        (4, 3, 4)
        >>> affine.tolist()
        [[-1.0, 0.0, 0.0, 1.5], [0.0, -2.0, 0.0, 2.0], [0.0, 0.0, 2.0, -3.0], [0.0, 0.0, 0.0, 1.0]]
    """
    pairs = ("LR", "PA", "IS")
    try:
        rows = [next(axis for axis in range(3) if letter in pairs[axis]) for letter in orientation]
    except StopIteration:
        rows = []
    if sorted(rows) != [0, 1, 2]:
        raise ValueError(
            f"orientation must have one letter each of L/R, P/A and I/S, such as 'LPS', got {orientation!r}."
        )
    directions = np.zeros((3, 3))
    for column, (row, letter) in enumerate(zip(rows, orientation, strict=True)):
        directions[row, column] = 1.0 if letter == pairs[row][1] else -1.0
    if len(spacing) != 3 or not all(size > 0 for size in spacing):
        raise ValueError(f"spacing must be three positive voxel sizes in mm, got {spacing!r}.")
    counts = [max(1, round(extent[row] / size)) for row, size in zip(rows, spacing, strict=True)]
    matrix = rotation_matrix(oblique_deg) @ directions * np.asarray(spacing, dtype=float)
    affine = local_frame(np.asarray(centre) - matrix @ ((np.array(counts) - 1) / 2), matrix)
    return (counts[0], counts[1], counts[2]), affine + 0.0


@dataclass
class Patch:
    """The voxels of a box: a view into the image and their local coordinates in mm."""

    values: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    edge: float

    def paint(self, distance: np.ndarray, value: Any) -> None:
        """Cover what lies inside with a value, one number or one per voxel."""
        self.values += self.cover(distance) * (value - self.values)

    def cover(self, distance: np.ndarray) -> np.ndarray:
        """The share of each voxel that lies inside."""
        return np.clip(0.5 - distance * np.float32(1 / self.edge), 0, 1)

    def ellipsoid(self, centre: Vector, radii: Vector) -> np.ndarray:
        """Approximate distance to an ellipsoid along the local axes, exact on its surface."""
        axes = zip((self.x, self.y, self.z), centre, radii, strict=True)
        p = [(axis - np.float32(c)) / np.float32(r) for axis, c, r in axes]
        first = np.sqrt(p[0] ** 2 + p[1] ** 2 + p[2] ** 2)
        q = [axis / np.float32(r) for axis, r in zip(p, radii, strict=True)]
        return first * (first - 1) / (np.sqrt(q[0] ** 2 + q[1] ** 2 + q[2] ** 2) + np.float32(1e-6))

    def capsule(self, start: Vector, end: Vector, radius: float) -> np.ndarray:
        """Distance to a rod with round ends."""
        a, d = np.asarray(start, float), np.subtract(end, start).astype(float)
        px, py, pz = (axis - np.float32(c) for axis, c in zip((self.x, self.y, self.z), a, strict=True))
        u = d / max(float(d @ d), 1e-12)
        t = np.clip(px * np.float32(u[0]) + py * np.float32(u[1]) + pz * np.float32(u[2]), 0, 1)
        px -= t * np.float32(d[0])
        py -= t * np.float32(d[1])
        pz -= t * np.float32(d[2])
        far = np.sqrt(px * px + py * py + pz * pz)
        return far - np.float32(radius)

    def cylinder(self, radii: Vector, half_height: Any, rounding: float = 2.0, waist: float = 0.0) -> np.ndarray:
        """Distance to an elliptic cylinder along z with rounded rims and a waist, centred at the local origin.

        Args:
            radii: along x and y.
            half_height: one number, or one per voxel for end plates that are not flat.
            rounding: radius of the rims.
            waist: by how much of its radius it is narrower halfway up.
        """
        rx, ry = radii
        r = np.sqrt((self.x / np.float32(rx)) ** 2 + (self.y / np.float32(ry)) ** 2)
        if waist:
            r = r / (1 - np.float32(waist) * np.clip(1 - (self.z / half_height) ** 2, 0, 1))
        side = (r - 1) * np.float32((rx * ry) ** 0.5) + np.float32(rounding)
        top = np.abs(self.z) - half_height + np.float32(rounding)
        outer = np.sqrt(np.maximum(side, 0) ** 2 + np.maximum(top, 0) ** 2)
        return outer + np.minimum(np.maximum(side, top), 0) - np.float32(rounding)


class Canvas:
    """A 3D image to draw on.

    Args:
        shape: its size.
        affine: from voxel index to the outer mm in which frames are given.
        background: its value before anything is drawn.

    Example:
        >>> canvas = Canvas((9, 9, 9), np.eye(4), background=0.0)
        >>> canvas.tube([(2, 4, 4), (6, 4, 4)], 1.0, 100.0)
        >>> canvas.values[:, 4, 4].tolist()
        [0.0, 50.0, 100.0, 100.0, 100.0, 100.0, 100.0, 50.0, 0.0]
    """

    def __init__(self, shape: Sequence[int], affine: Any, background: float) -> None:
        self.values = np.full(tuple(shape), background, dtype=np.float32)
        self.affine = np.asarray(affine, dtype=float)
        self.edge = float(abs(np.linalg.det(self.affine[:3, :3])) ** (1 / 3))

    def patch(self, lower: Vector, upper: Vector, frame: Any = None) -> Patch | None:
        """The voxels around a box given in a local frame (4x4, local to outer mm), or None where it lies outside."""
        to_local = self.affine if frame is None else np.linalg.inv(frame) @ self.affine
        to_index = np.linalg.inv(to_local)
        low, high = np.asarray(lower, float), np.asarray(upper, float)
        middle = to_index[:3, :3] @ ((low + high) / 2) + to_index[:3, 3]
        half = np.abs(to_index[:3, :3]) @ ((high - low) / 2 + self.edge)
        first = np.maximum(np.ceil(middle - half), 0).astype(int)
        stop = np.minimum(np.floor(middle + half) + 1, self.values.shape).astype(int)
        if (first >= stop).any():
            return None
        box = tuple(slice(a, b) for a, b in zip(first, stop, strict=True))
        i, j, k = (axis.astype(np.float32) for axis in np.ogrid[box])
        m = to_local.astype(np.float32)
        x, y, z = (m[row, 0] * i + (m[row, 1] * j + (m[row, 2] * k + m[row, 3])) for row in range(3))
        return Patch(self.values[box], x, y, z, self.edge)

    def everywhere(self, frame: Any = None) -> Patch:
        """All voxels."""
        patch = self.patch((-1e5,) * 3, (1e5,) * 3, frame)
        assert patch is not None
        return patch

    def ellipsoid(self, centre: Vector, radii: Vector, value: Any, frame: Any = None) -> None:
        """Draw an ellipsoid along the axes of a frame."""
        centre = np.asarray(centre, float)
        patch = self.patch(centre - radii, centre + radii, frame)
        if patch is not None:
            patch.paint(patch.ellipsoid(centre, radii), value)

    def tube(self, points: Any, radius: float, value: Any, frame: Any = None) -> None:
        """Draw a rod along a polyline."""
        points = np.asarray(points, float)
        for start, end in pairwise(points):
            patch = self.patch(np.minimum(start, end) - radius, np.maximum(start, end) + radius, frame)
            if patch is not None:
                patch.paint(patch.capsule(start, end, radius), value)
