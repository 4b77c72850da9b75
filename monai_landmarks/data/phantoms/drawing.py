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
"""Anti-aliased drawing of filled outlines, lines and soft shadows on a film, in NumPy alone.

Coverage is exact: a pixel's value is the area of the pixel that the polygon covers. A film drawn with pixels ``k``
times as large is therefore the exact box reduction of the fine one, and an outline lies where its points say, to a
small fraction of a pixel.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

__all__ = ["Film", "draw_long_bone", "ellipse", "enlarge_twice", "spline", "stroke_outline", "text_bitmap"]

SOFT_PIXEL_MM = 1.6
"""Pixel of the coarse layer on which blurred shadows are drawn; a film's blurred parts need no finer one."""


def spline(points: np.ndarray, closed: bool = False, samples: int = 8) -> np.ndarray:
    """Interpolate control points with a uniform Catmull-Rom spline.

    The curve passes through every control point; a point given twice makes a corner.

    Args:
        points: control points ``(P, 2)``.
        closed: join the last point to the first.
        samples: curve points per control interval.

    Returns:
        Curve points ``(Q, 2)``; the control points are every ``samples``-th of them.

    Example:
        >>> spline(np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]]), samples=4)[4].tolist()
        [1.0, 1.0]
    """
    p = np.asarray(points, dtype=np.float64)
    padded = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    t = np.arange(samples) / samples
    basis = 0.5 * np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3])
    windows = np.stack([padded[offset : len(padded) - 3 + offset] for offset in range(4)])
    curve = np.einsum("ks,kpd->psd", basis, windows)
    # Between the two copies of a corner the polynomial would run round a small loop.
    corner = (windows[1] == windows[2]).all(axis=-1)
    curve[corner] = windows[1][corner, None]
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])


def ellipse(center: np.ndarray, radii: tuple[float, float], samples: int = 40) -> np.ndarray:
    """Return the outline ``(samples, 2)`` of an ellipse with axes along x and y.

    Example:
        >>> ellipse(np.array([5.0, 5.0]), (2.0, 1.0), samples=4).round(6).tolist()
        [[7.0, 5.0], [5.0, 6.0], [3.0, 5.0], [5.0, 4.0]]
    """
    angle = np.arange(samples) * (2 * np.pi / samples)
    return np.asarray(center) + np.stack([np.cos(angle), np.sin(angle)], axis=-1) * radii


def stroke_outline(
    curve: np.ndarray, width: float, closed: bool = False, taper: bool = False, inside: bool = False
) -> np.ndarray:
    """Outline a line of constant width along a curve.

    Args:
        curve: curve points ``(Q, 2)``.
        width: full width, in the unit of the points.
        closed: the curve is a ring.
        taper: let the width run out to zero at both ends.
        inside: put the whole width on the inner side of a closed or bent curve, so that the curve stays the border.
            Where the curve has a tip sharper than the line is wide, the line sticks out.

    Returns:
        Polygon ``(R, 2)``.

    Example:
        >>> stroke_outline(np.array([[0.0, 0.0], [4.0, 0.0]]), 2.0).tolist()
        [[0.0, 1.0], [4.0, 1.0], [4.0, -1.0], [0.0, -1.0]]
    """
    curve = curve[np.append(True, (np.diff(curve, axis=0) != 0).any(axis=-1))]
    curve = np.concatenate([curve, curve[:1]]) if closed else curve
    if closed:
        tangent = np.roll(curve[:-1], -1, axis=0) - np.roll(curve[:-1], 1, axis=0)
        tangent = np.concatenate([tangent, tangent[:1]])
    else:
        tangent = np.gradient(curve, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=-1)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    half = np.full((len(curve), 1), width / 2)
    if taper:
        half *= np.sqrt(np.clip(4 * np.linspace(0, 1, len(curve)) * np.linspace(1, 0, len(curve)), 0, 1))[:, None]
    if inside:
        x, y = curve.T
        sign = np.sign(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))
        return np.concatenate([curve, (curve + 2 * half * normal * sign)[::-1]])
    return np.concatenate([curve + half * normal, (curve - half * normal)[::-1]])


class Film:
    """A film plane on which attenuation is added up, as along X-rays.

    Outlines are collected and drawn together, in one pass over the film for all of them. An outline that overlaps
    itself counts twice there, as matter would.

    Args:
        size_mm: width and height of the film.
        size: width and height in pixels.
        pixel_mm: pixel size. World 0 is the centre of pixel 0 of a film with pixels of ``origin_pixel_mm``.
        origin_pixel_mm: pixel of the unreduced film, whose first pixel has its centre at world 0.

    Example:
        >>> film = Film((1.0, 1.0), (10, 10), 0.1)
        >>> film.fill(np.array([[0.0, 0.0], [0.5, 0.0], [0.5, 0.5], [0.0, 0.5]]), 1.0)
        >>> round(float(film.attenuation().sum()), 6)
        25.0
    """

    def __init__(
        self, size_mm: tuple[float, float], size: tuple[int, int], pixel_mm: float, origin_pixel_mm: float = 0.1
    ) -> None:
        self.pixel_mm = pixel_mm
        self.edge_mm = -origin_pixel_mm / 2
        self.shape = (size[1], size[0])
        self.coarse_shape = tuple(int(np.ceil(side / SOFT_PIXEL_MM)) + 1 for side in size_mm[::-1])
        self._sharp: list[tuple[np.ndarray, float]] = []
        self._soft: list[tuple[np.ndarray, float]] = []
        self._haze: list[tuple[np.ndarray, float]] = []

    def fill(self, outline: np.ndarray, value: float) -> None:
        """Add ``value`` inside an outline ``(P, 2)`` in mm."""
        self._sharp.append((outline, value))

    def shade(self, outline: np.ndarray, value: float) -> None:
        """Add ``value`` inside an outline whose border is a little blurred."""
        self._soft.append((outline, value))

    def cloud(self, outline: np.ndarray, value: float) -> None:
        """Add ``value`` inside an outline whose border is widely blurred."""
        self._haze.append((outline, value))

    def attenuation(self, soft_mm: float = 1.4, haze_mm: float = 4.5) -> np.ndarray:
        """Return the sum of the sharp and the two blurred layers, float32, on the film's pixels."""
        total = self._draw(self._sharp, self.shape, self.pixel_mm)
        coarse = [self._draw(layer, self.coarse_shape, SOFT_PIXEL_MM) for layer in (self._soft, self._haze)]
        if self._soft or self._haze:
            total += self.enlarge(self.blur_coarse(coarse[0], soft_mm) + self.blur_coarse(coarse[1], haze_mm))
        return total

    def coverage(self, outline: np.ndarray, coarse: bool = False) -> np.ndarray:
        """Return the covered area per pixel, on the whole film or its coarse layer."""
        shape, pixel_mm = (self.coarse_shape, SOFT_PIXEL_MM) if coarse else (self.shape, self.pixel_mm)
        return np.clip(self._draw([(outline, 1.0)], shape, pixel_mm), 0, 1)

    def enlarge(self, coarse: np.ndarray) -> np.ndarray:
        """Interpolate a coarse layer to the film's pixels."""
        step = self.pixel_mm / SOFT_PIXEL_MM
        rows, columns = (_resampling(c, f, step, 0.0) for c, f in zip(coarse.shape, self.shape, strict=True))
        return (rows @ coarse) @ columns.T

    def blur_coarse(self, coarse: np.ndarray, blur_mm: float) -> np.ndarray:
        """Blur a coarse layer with a Gaussian, keeping its size."""
        sides = [_resampling(side, side, 1.0, blur_mm / SOFT_PIXEL_MM) for side in coarse.shape]
        return (sides[0] @ coarse) @ sides[1].T

    def _draw(self, layer: list[tuple[np.ndarray, float]], shape: tuple[int, ...], pixel_mm: float) -> np.ndarray:
        if not layer:
            return np.zeros(shape, dtype=np.float32)
        polygons = [(np.asarray(outline, dtype=np.float64) - self.edge_mm) / pixel_mm for outline, _ in layer]
        ends = [np.roll(polygon, -1, axis=0) for polygon in polygons]
        values = [
            np.full(len(a), value * np.sign(np.sum(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])))
            for a, b, (_, value) in zip(polygons, ends, layer, strict=True)
        ]
        return _coverage(np.concatenate(polygons), np.concatenate(ends), np.concatenate(values), shape)


def _coverage(starts: np.ndarray, ends: np.ndarray, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Exact area of each unit cell inside the polygons made of the edges, times the edges' values.

    Each edge is cut at the cell borders. A piece inside one cell covers, per unit of its height, the part of the cell
    to its right and all cells further right; a running sum along the row adds these up.
    """
    height, width = shape
    starts, ends, values = _cut(*_cut(starts, ends, values, 1), 0)
    middle = (starts + ends) / 2
    rise = (starts[:, 1] - ends[:, 1]) * values
    row = np.floor(middle[:, 1]).astype(np.int64)
    x = np.clip(middle[:, 0], 0, width)
    keep = (row >= 0) & (row < height) & (rise != 0)
    row, x, rise = row[keep], x[keep], rise[keep]
    column = np.floor(x).astype(np.int64)
    share = x - column
    stride = width + 2
    flat = row * stride + column
    area = np.bincount(flat, rise * (1 - share), height * stride)
    area += np.bincount(flat + 1, rise * share, height * stride)
    return np.cumsum(area.reshape(height, stride), axis=1)[:, :width].astype(np.float32)


def _cut(
    starts: np.ndarray, ends: np.ndarray, values: np.ndarray, axis: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut segments wherever they cross an integer along an axis."""
    a, b = starts[:, axis], ends[:, axis]
    crossings = np.maximum(np.ceil(np.maximum(a, b)) - np.floor(np.minimum(a, b)) - 1, 0).astype(np.int64)
    pieces = crossings + 1
    index = np.repeat(np.arange(len(a)), pieces)
    number = np.arange(len(index)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    a, run = a[index], (b - a)[index]
    border = np.where(run > 0, np.floor(a) + number, np.ceil(a) - number)
    begin = np.where(number == 0, 0.0, (border - a) / np.where(run == 0, 1.0, run))
    end = np.append(begin[1:], 1.0)
    end[np.cumsum(pieces) - 1] = 1.0
    origin, direction = starts[index], (ends - starts)[index]
    return origin + begin[:, None] * direction, origin + end[:, None] * direction, values[index]


@lru_cache(maxsize=32)
def _resampling(source: int, target: int, step: float, sigma: float) -> np.ndarray:
    """Matrix ``(target, source)`` of linear interpolation at cell centres after a Gaussian blur."""
    position = np.clip((np.arange(target) + 0.5) * step - 0.5, 0, source - 1)
    matrix = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(source)))
    if sigma > 0:
        distance = np.arange(source)[:, None] - np.arange(source)
        gauss = np.exp(-0.5 * (distance / sigma) ** 2)
        matrix = matrix @ (gauss / gauss.sum(axis=1, keepdims=True))
    return np.ascontiguousarray(matrix, dtype=np.float32)


def enlarge_twice(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Interpolate linearly to pixels half as large, and cut to ``(height, width)``.

    Example:
        >>> enlarge_twice(np.array([[0.0, 4.0]]), 1, 4).tolist()
        [[0.0, 1.0, 3.0, 4.0]]
    """
    for axis, side in ((0, height), (1, width)):
        rows = np.swapaxes(image, 0, axis)
        before, after = np.concatenate([rows[:1], rows[:-1]]), np.concatenate([rows[1:], rows[-1:]])
        double = np.empty((2 * len(rows), rows.shape[1]), dtype=image.dtype)
        double[0::2] = 0.75 * rows + 0.25 * before
        double[1::2] = 0.75 * rows + 0.25 * after
        image = np.swapaxes(double[:side], 0, axis)
    return image


# Rows of 5 x 7 glyphs, one hexadecimal pair of digits per row.
_GLYPHS = {
    "0": "0e11131519110e",
    "1": "040c040404040e",
    "2": "0e11010204081f",
    "3": "1f02040201110e",
    "4": "02060a121f0202",
    "5": "1f101e0101110e",
    "6": "0608101e11110e",
    "7": "1f010204080808",
    "8": "0e11110e11110e",
    "9": "0e11110f01020c",
    "N": "11111915131111",
    "S": "0f10100e01011e",
}


def text_bitmap(text: str) -> np.ndarray:
    """Return the text as a 0/1 bitmap ``(7, 6 * len(text))``; digits, N and S only, as on film numbers.

    Example:
        >>> text_bitmap("1")[:2].tolist()
        [[0.0, 0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0, 0.0, 0.0]]
    """
    rows = np.array([[int(_GLYPHS[letter][2 * row : 2 * row + 2], 16) for letter in text] for row in range(7)])
    bits = (rows[..., None] >> np.arange(4, -2, -1).clip(0)) & 1
    bits[..., 5] = 0
    return bits.reshape(7, -1).astype(np.float32)


def draw_long_bone(film: Film, curve: np.ndarray, width: float, value: float) -> None:
    """Draw a long bone: blurred marrow and two thin shells along its borders."""
    outline = stroke_outline(curve, width)
    film.shade(outline, 0.75 * value)
    film.fill(stroke_outline(outline, 1.3, closed=True), 0.5 * value)
