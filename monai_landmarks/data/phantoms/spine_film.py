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
"""One phantom spine with scoliosis: tilts, corners and true Cobb angles, and its attenuation on a frontal film."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .drawing import Film, draw_long_bone, ellipse, spline, stroke_outline

__all__ = ["Spine", "draw_spine_film", "draw_spine_shape"]

# Widths, heights and distance to the next, T1 to L5, as parts of the length from T1's centre to L5's.
WIDTHS = np.array([67, 62, 59, 56, 57, 59, 61, 63, 66, 68, 73, 77, 81, 84, 86, 91, 97]) / 919
HEIGHTS = np.array([27, 29, 31, 33, 35, 37, 38, 40, 41, 43, 43, 44, 45, 46, 47, 49, 48]) / 919
STEPS = np.array([39, 42, 45, 47, 49, 49, 50, 51, 54, 58, 61, 65, 67, 70, 72, 70]) / 919
NECK = 5
GRID_MM = 3.2
"""Sides of films are multiples of it, so that every reduction to 16 divides them."""

ORGANS = 0.4
"""How far the organs follow the spine when it bends."""

CORNER_SIGNS = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)])


@dataclass(frozen=True)
class Spine:
    """A bent spine on its film, in mm from the film's upper left corner.

    Args:
        size_mm: width and height of the film.
        tilts: ``(V,)`` radians from the level, positive where the right end in the picture is the lower one.
        centers: ``(V, 2)``.
        widths: ``(V,)``.
        corners: ``(V, 4, 2)``, top left, top right, bottom left, bottom right.
        first: place of T1; cervical vertebrae stand before it, the sacrum stands after L5.
    """

    size_mm: tuple[float, float]
    tilts: np.ndarray
    centers: np.ndarray
    widths: np.ndarray
    corners: np.ndarray
    first: int = NECK

    @property
    def named(self) -> slice:
        """T1 to L5."""
        return slice(self.first, self.first + len(WIDTHS))

    def beside(self, lateral: np.ndarray, level: np.ndarray, follow: float | np.ndarray = ORGANS) -> np.ndarray:
        """Points at a distance to the right of the spine's line, in mm, at levels counted from T1 (0) to L5 (16).

        With ``follow`` 1 they go where the spine goes, with 0 they stay on an upright body.
        """
        place = np.arange(len(self.tilts)) - self.first
        x, y, tilt = (np.interp(level, place, values) for values in (*self.centers.T, self.tilts))
        x, tilt = follow * x + (1 - follow) * self.centers[self.named, 0].mean(), follow * tilt
        return np.stack([x + lateral * np.cos(tilt), y + lateral * np.sin(tilt)], axis=-1)

    def angles(self) -> np.ndarray:
        """The three Cobb angles ``(3,)`` in degrees, from the tilts and by the challenge's rule."""
        tilts, corners = np.rad2deg(self.tilts[self.named]), self.corners[self.named]
        between = np.abs(tilts[:, None] - tilts)
        upper, lower = np.unravel_index(between.argmax(), between.shape)
        plates = corners.reshape(-1, 2, 2).mean(axis=1)
        axis, offset = plates[-1] - plates[0], plates[1:-2] - plates[0]
        side = axis[0] * offset[:, 1] - axis[1] * offset[:, 0]
        if side.min() >= 0 or side.max() <= 0:
            return np.array([between[upper, lower], between[0, upper], between[lower, -1]])
        above = between[upper, : upper + 1].argmax()
        if plates[[2 * upper + 1, 2 * lower + 1], 1].sum() < self.size_mm[1]:
            return np.array([between[upper, lower], between[above, upper], between[lower, lower:].max()])
        return np.array([between[upper, lower], between[above, upper], between[above, : above + 1].max()])


def draw_spine_shape(patient: np.random.Generator, visit: np.random.Generator, scoliosis: float = 1.0) -> Spine:
    """Draw the spine of a patient as it is on one visit.

    The tilts run from extreme to extreme: above the main curve, at its upper and its lower end, at the sacrum.

    Args:
        patient: source of what stays: side and levels of the curves, build.
        visit: source of what changes: how large the curves are, lean, and where the film was cut.
        scoliosis: strength of the curves; 1 is like the data set (median 36 degrees), 0 a straight spine.

    Returns:
        The spine on its film.
    """
    main = np.deg2rad(np.clip(35 * patient.lognormal(0, 0.55), 6, 75)) * visit.uniform(0.85, 1.15) * scoliosis
    top = patient.uniform(2, 8.5)
    end = min(top + patient.uniform(4.5, 7.5), 14.0)
    side, share = patient.choice([-1.0, 1.0], p=[0.3, 0.7]), patient.uniform(0.35, 0.65)
    before, after = patient.beta(2.4, 1.9, 2)
    levels = np.arange(-NECK, len(WIDTHS) + 1)
    values = side * main * np.array([share * 0.2, share - before, share, share - 1, share - 1 + after])
    tilts = _between_extremes(levels, np.array([-NECK, 0, top, end, 17]), -values)
    tilts += np.deg2rad(visit.normal(0, 0.8, len(levels))) * scoliosis
    length, build = patient.uniform(360, 430), patient.uniform(0.92, 1.08)
    steps = length * np.concatenate([np.full(NECK, STEPS[0]), STEPS, STEPS[-1:]])
    tilts -= np.average(tilts[NECK:-1], weights=steps[NECK - 1 : -1]) + np.deg2rad(visit.normal(0, 1.5)) * scoliosis
    middle = (tilts[1:] + tilts[:-1]) / 2
    strides = steps[:, None] * np.stack([-np.sin(middle), np.cos(middle)], axis=-1)
    centers = np.concatenate([np.zeros((1, 2)), np.cumsum(strides, axis=0)])
    widths = length * build * np.concatenate([np.full(NECK, 0.9 * WIDTHS[0]), WIDTHS, 1.05 * WIDTHS[-1:]])
    heights = length * np.concatenate([np.full(NECK, 0.85 * HEIGHTS[0]), HEIGHTS, HEIGHTS[-1:]])
    corners = _corners(tilts, centers, widths, heights)
    size_mm, move = _cut_film(corners[NECK:-1].reshape(-1, 2), visit)
    return Spine(size_mm, tilts, centers + move, widths, corners + move)


def _between_extremes(levels: np.ndarray, knots: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Half cosine waves from each value to the next."""
    place = np.clip(np.searchsorted(knots, levels, side="right") - 1, 0, len(knots) - 2)
    share = np.clip((levels - knots[place]) / (knots[place + 1] - knots[place]), 0, 1)
    weight = (1 - np.cos(np.pi * share)) / 2
    return values[place] * (1 - weight) + values[place + 1] * weight


def _corners(tilts: np.ndarray, centers: np.ndarray, widths: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Bodies whose middle line has exactly the tilt; they are a little higher on the convex side."""
    along = np.stack([np.cos(tilts), np.sin(tilts)], axis=-1)
    down = np.stack([-along[:, 1], along[:, 0]], axis=-1)
    wedge = 0.4 * np.gradient(tilts) * widths
    half = (heights[:, None] + CORNER_SIGNS[:, 0] * wedge[:, None] / 2) / 2
    across = CORNER_SIGNS[:, 0] * widths[:, None] / 2
    return (
        centers[:, None] + across[..., None] * along[:, None] + (half * CORNER_SIGNS[:, 1])[..., None] * down[:, None]
    )


def _cut_film(corners: np.ndarray, rng: np.random.Generator) -> tuple[tuple[float, float], np.ndarray]:
    """Size of the film, and the shift that brings the corners on it."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    top, bottom = rng.uniform(0.03, 0.08), rng.uniform(0.06, 0.17)
    height = GRID_MM * np.ceil((high[1] - low[1]) / (1 - top - bottom) / GRID_MM)
    width = max(height * np.clip(rng.normal(0.372, 0.05), 0.24, 0.55), high[0] - low[0] + 24)
    width = GRID_MM * np.ceil(width / GRID_MM)
    free = width - (high[0] - low[0])
    move = np.array([free * rng.uniform(0.35, 0.65) - low[0], top * height - low[1]])
    return (float(width), float(height)), move


def draw_spine_film(film: Film, spine: Spine, rng: np.random.Generator) -> np.ndarray:
    """Draw the trunk and return the attenuation along the rays through every pixel, float32 ``(height, width)``.

    Args:
        film: an empty film.
        spine: on it.
        rng: source of everything that is not shape: densities, diaphragm, heart, ribs, gas.
    """
    _draw_trunk(film, spine, rng)
    _draw_heart_and_windpipe(film, spine, rng)
    _draw_gas(film, spine, rng)
    strength = rng.uniform(0.75, 1.3)
    for side in (-1.0, 1.0):
        _draw_ribs(film, spine, side, strength, rng)
        _draw_pelvis(film, spine, side, rng)
    for number in range(len(spine.tilts) - 1):
        _draw_vertebra(film, spine, number, strength, rng)
    _draw_sacrum(film, spine, strength)
    grain = film.enlarge(rng.standard_normal(film.coarse_shape, dtype=np.float32))
    return np.maximum(film.attenuation() * (1 + 0.035 * grain), 0)


def _draw_trunk(film: Film, spine: Spine, rng: np.random.Generator) -> None:
    """Soft tissue from edge to edge, the dark lungs in it, and the dense belly below their domes."""
    width, height = spine.size_mm
    frame = np.array([(-50, -50), (width + 50, -50), (width + 50, height + 50), (-50, height + 50)])
    film.fill(frame, rng.uniform(0.18, 0.42))
    film.cloud(spine.beside(np.array([-45, 45, 60, -60]), np.array([-5, -5, 17, 17])), rng.uniform(0.08, 0.18))
    dome, belly = rng.uniform(8.0, 10.5), rng.uniform(0.2, 0.6)
    domes = []
    for side in (-1.0, 1.0):
        level = dome + (0.5 if side > 0 else 0.0) + rng.normal(0, 0.2)
        low = spine.beside(side * np.array([16, 40, 70, 105, 150, 190]), level + np.array([0.9, 0.25, 0, 0.6, 3, 4]))
        high = spine.beside(side * np.array([185, 120, 70, 34, 22]), np.array([3, -0.5, -1.6, -0.5, 4]))
        film.shade(spline(np.concatenate([low, high]), closed=True, samples=5), -rng.uniform(0.18, 0.28))
        domes.append(low[:: int(side)])
    below = spline(np.concatenate([*domes, [(width + 60, height + 60), (-60, height + 60)]]), closed=True, samples=5)
    film.shade(below, 0.5 * belly)
    film.cloud(below, 0.5 * belly)


def _draw_heart_and_windpipe(film: Film, spine: Spine, rng: np.random.Generator) -> None:
    heart = [(-24, 5.0), (-34, 7.5), (-25, 9.3), (40, 10.2), (86, 10.0), (78, 8.3), (45, 6.0), (24, 3.2)]
    lateral, level = np.array(heart).T
    shape = spine.beside(lateral * rng.uniform(0.85, 1.15), level + rng.normal(0, 0.3))
    film.shade(spline(shape, closed=True, samples=5), rng.uniform(0.10, 0.2))
    pipe = spine.beside(np.array([0.0, 1.0, 3.0, 2.0]), np.array([-5.0, -1.0, 2.5, 4.2]))
    film.shade(stroke_outline(spline(pipe, samples=5), 15.0), -0.14)


def _draw_gas(film: Film, spine: Spine, rng: np.random.Generator) -> None:
    """Air in stomach and bowel crosses the lumbar bodies."""
    for _ in range(rng.integers(3, 12)):
        center = spine.beside(np.array(rng.uniform(-80, 80)), np.array(rng.uniform(10.5, 17)))
        blob = ellipse(center, tuple(rng.uniform((6, 4), (22, 11))), 24)
        film.shade(blob + rng.normal(0, 1.0, blob.shape), -rng.uniform(0.05, 0.2))


def _draw_ribs(film: Film, spine: Spine, side: float, strength: float, rng: np.random.Generator) -> None:
    """Twelve ribs that start at their vertebra: the back part nearly level, the front part steep and faint."""
    for number in range(12):
        reach = float(np.interp(number, (0, 3, 8, 10, 11), (62, 118, 138, 118, 70)))
        fall = 0.25 + 0.1 * number
        start = spine.widths[spine.first + number] / 2 - 3
        across = start + np.array([0.0, 0.25, 0.6, 0.88, 1.0]) * (reach - start)
        follow = np.linspace(1.0, ORGANS, 5)
        back = spine.beside(side * across, number - 0.4 + np.array([0, -0.25, 0.1, 0.6, 1.1]) * fall, follow)
        draw_long_bone(film, spline(back, samples=6), 7.5, 0.11 * strength * rng.lognormal(0, 0.1))
        if number < 9:
            front = side * np.array([reach, reach - 2, 0.72 * reach, 0.4 * reach])
            curve = spine.beside(front, number - 0.4 + fall * 1.1 + np.array([-0.2, 0.7, 1.7, 2.3]))
            draw_long_bone(film, spline(curve, samples=6), 9.0, 0.05 * strength)


def _draw_pelvis(film: Film, spine: Spine, side: float, rng: np.random.Generator) -> None:
    """The wing of the hip bone with its bright rim; most films end in it."""
    lateral = side * np.array([30, 48, 80, 115, 150, 165, 150, 60])
    wing = spine.beside(lateral, np.array([16.4, 15.4, 14.6, 14.4, 15.0, 16.0, 18.0, 18.0]) + rng.normal(0, 0.15))
    wing[-2:, 1] += 60
    film.shade(spline(wing, closed=True, samples=5), 0.16)
    film.fill(stroke_outline(spline(wing[:6], samples=5), 3.0, taper=True), 0.14)


def _draw_vertebra(film: Film, spine: Spine, number: int, strength: float, rng: np.random.Generator) -> None:
    """A body with waist and end plates through its four corners, pedicles, processes."""
    corners, width = spine.corners[number], spine.widths[number]
    top_left, top_right, bottom_left, bottom_right = corners
    center = corners.mean(axis=0)
    along, down = (
        (top_right + bottom_right - top_left - bottom_left) / 2,
        (bottom_left + bottom_right - top_left - top_right) / 2,
    )
    middles = [
        (a + b) / 2 + 0.07 * (center - (a + b) / 2) for a, b in ((top_right, bottom_right), (bottom_left, top_left))
    ]
    body = np.stack([top_left, top_left, top_right, top_right, middles[0], bottom_right, bottom_right])
    body = spline(np.concatenate([body, [bottom_left, bottom_left, middles[1]]]), closed=True, samples=5)
    value = strength * rng.uniform(0.16, 0.24)
    film.shade(body, 0.6 * value)
    film.fill(body, 0.4 * value)
    film.fill(stroke_outline(body, 1.5, closed=True, inside=True), 0.6 * value)
    for side in (-1.0, 1.0):
        pedicle = ellipse(
            center + side * 0.33 * along - 0.1 * down, (0.085 * width, 0.2 * float(np.linalg.norm(down))), 20
        )
        film.fill(stroke_outline(pedicle, 1.3, closed=True, inside=True), 0.8 * value)
        film.shade(pedicle, 0.3 * value)
        process = center + side * np.stack([0.4 * along, 0.75 * along]) + np.array([-0.1, -0.25])[:, None] * down
        film.shade(stroke_outline(process, 0.11 * width), 0.4 * value)
    spinous = np.stack([center + 0.15 * down, center + 0.75 * down]) + rng.normal(0, 0.6, 2)
    film.shade(stroke_outline(spinous, 0.1 * width), 0.7 * value)


def _draw_sacrum(film: Film, spine: Spine, strength: float) -> None:
    """Broad at its upper plate, narrow below, without a lower one: it is not a sixth lumbar body."""
    top_left, top_right, _, _ = spine.corners[-1]
    along = top_right - top_left
    down = np.array([-along[1], along[0]])
    shape = [top_left, top_right, top_right + 0.35 * along + 0.15 * down, top_right - 0.25 * along + 1.3 * down]
    shape += [top_left + 0.25 * along + 1.3 * down, top_left - 0.35 * along + 0.15 * down]
    film.shade(np.array(shape), 0.16 * strength)
    film.fill(stroke_outline(np.stack([top_left, top_right]), 1.5), 0.1 * strength)
