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
"""One phantom chest: outlines of its lungs, how a body of another shape bends them, and its attenuation on a film."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .drawing import Film, draw_long_bone, ellipse, spline, stroke_outline

__all__ = ["LUNGS", "Place", "draw_chest", "draw_place", "lung_outline"]

Place = Callable[[np.ndarray], np.ndarray]
"""Carries points ``(..., 2)`` of the template to the film, both in mm."""

# Template: mm, x to the right of the picture from the midline, y downwards from the apices of the lungs. The patient looks
# at the reader, so the right lung has negative x. A point given twice makes a corner.
LUNGS: dict[str, list[tuple[float, float]]] = {
    "right": [
        (-45, 0),
        (-68, 7),
        (-90, 30),
        (-108, 68),
        (-121, 112),
        (-129, 158),
        (-132, 196),
        (-129, 224),
        (-125, 240),
        (-125, 240),
        (-113, 219),
        (-90, 203),
        (-62, 197),
        (-38, 203),
        (-22, 216),
        (-22, 216),
        (-32, 196),
        (-37, 172),
        (-33, 146),
        (-24, 124),
        (-22, 96),
        (-24, 66),
        (-21, 40),
        (-26, 14),
    ],
    "left": [
        (45, 0),
        (68, 7),
        (90, 30),
        (108, 68),
        (121, 112),
        (129, 158),
        (132, 200),
        (130, 232),
        (126, 250),
        (126, 250),
        (117, 231),
        (104, 217),
        (88, 212),
        (80, 217),
        (80, 217),
        (79, 196),
        (68, 166),
        (48, 136),
        (34, 118),
        (32, 102),
        (26, 88),
        (33, 74),
        (31, 60),
        (22, 44),
        (26, 14),
    ],
}
"""Outline of each lung field, from the apex down the chest wall to the costophrenic angle, the diaphragm and up again."""

SIDES = {"right": -1.0, "left": 1.0}

WALL = np.array(LUNGS["left"][:9])

MIDDLE = np.array([0.0, 120.0])

TRUNK = [
    (62, -260),
    (60, -95),
    (47, -75),
    (50, -45),
    (78, -30),
    (120, -20),
    (150, 0),
    (160, 40),
    (152, 80),
    (150, 130),
    (153, 200),
    (156, 400),
]
ARM = [(128, -20), (168, -14), (196, 20), (215, 90), (300, 400), (240, 400), (178, 110), (160, 66)]
SCAPULA = [(112, 26), (146, 20), (158, 36), (150, 62), (140, 110), (126, 146), (119, 138), (116, 90)]
CLAVICLE = [(9, 42), (28, 35), (55, 26), (85, 12), (115, 3), (146, 4)]
HEART = [
    (-30, 118),
    (-40, 150),
    (-40, 185),
    (-26, 214),
    (20, 226),
    (66, 226),
    (84, 212),
    (78, 186),
    (60, 152),
    (36, 112),
]


def draw_place(
    rng: np.random.Generator,
    size_mm: tuple[float, float],
    shape: float,
    rotation_deg: float,
    scale: float,
    margin: float,
) -> Place:
    """Draw a body shape and how it stands before the film.

    Args:
        rng: source.
        size_mm: width and height of the film.
        shape: strength of the variation of shape, 0 for the template.
        rotation_deg: largest rotation in the plane of the film.
        scale: largest relative change of size.
        margin: the lungs keep this distance from the film's border, mm.

    Returns:
        The map from template to film.
    """
    bend = _draw_bend(rng, shape)
    angle, size, *shift = rng.uniform(-1, 1, 4)
    factor = 1 + scale * size
    cos, sin = factor * np.cos(np.deg2rad(rotation_deg) * angle), factor * np.sin(np.deg2rad(rotation_deg) * angle)
    turn = np.array([[cos, sin], [-sin, cos]])
    lungs = np.concatenate([bend(np.array(control, dtype=np.float64)) for control in LUNGS.values()]) @ turn
    low, high = lungs.min(axis=0) - margin, lungs.max(axis=0) + margin
    # Between the two borders, rather in the middle; a spline runs outside its points by less than the margin.
    move = -low + (np.asarray(size_mm) - high + low) * (0.5 + 0.35 * np.asarray(shift))
    return lambda points: bend(np.asarray(points, dtype=np.float64)) @ turn + move


def _draw_bend(rng: np.random.Generator, shape: float) -> Place:
    """A smooth change of shape: build, breath, scoliosis, heart, domes and apices of each side, plus a random part."""
    c = np.clip(rng.standard_normal(16), -2, 2) * shape
    centers = np.stack(np.meshgrid(np.linspace(-150, 150, 7), np.linspace(-20, 270, 7)), axis=-1).reshape(-1, 2)
    weights = rng.standard_normal((len(centers), 2)) * (1.2 * shape)

    def bend(points: np.ndarray) -> np.ndarray:
        x, y = points[..., 0], points[..., 1]
        side, low = np.tanh(x / 25), np.clip(y / 240, -0.2, 1.3)
        outer = np.clip(np.abs(x) / 130, 0, 1.2)
        middle = np.exp(-0.5 * (x / 45) ** 2)
        dx = x * (0.04 * c[0] + 0.03 * c[1] * (low - 0.5))  # broad or narrow, barrel or bell
        dx += 5.0 * c[2] * middle  # turned about the long axis: the middle moves, the walls stay
        dx += (0.5 + middle) * (3.5 * c[3] * np.sin(np.pi * low) + 3.0 * c[4] * np.sin(2 * np.pi * low))  # scoliosis
        dx += 3.0 * c[5] * np.exp(-0.5 * (((x - 70) / 25) ** 2 + ((y - 180) / 40) ** 2))  # size of the heart
        dy = y * 0.05 * c[6]  # depth of breath
        for number, sign in ((7, -1.0), (8, 1.0)):
            own = (1 + sign * side) / 2
            dy += own * 3.0 * c[number] * np.exp(-0.5 * (y / 40) ** 2)  # apex
            dome = np.exp(-0.5 * (((np.abs(x) - 70) / 35) ** 2 + ((y - 205) / 25) ** 2))
            dy += own * 5.0 * c[number + 2] * dome  # height of the dome
            dy += own * 3.5 * c[number + 4] * outer * np.exp(-0.5 * ((y - 245) / 25) ** 2)  # costophrenic angle
        dx += side * 2.5 * c[13] * np.exp(-0.5 * ((y - 200) / 45) ** 2) * outer  # bulge of the lower ribs
        distance = np.sum((points[..., None, :] - centers) ** 2, axis=-1)
        return points + np.stack([dx, dy], axis=-1) + np.exp(-0.5 * distance / 40.0**2) @ weights

    return bend


def lung_outline(side: str, place: Place, samples: int = 10) -> np.ndarray:
    """Return the outline of the ``"right"`` or ``"left"`` lung field on the film, closed, ``(Q, 2)`` in mm."""
    return spline(place(np.array(LUNGS[side])), closed=True, samples=samples)


def draw_chest(film: Film, place: Place, rng: np.random.Generator) -> np.ndarray:
    """Draw the chest and return the attenuation along the rays through every pixel, float32 ``(height, width)``.

    Args:
        film: an empty film.
        place: from template to film.
        rng: source of everything that is not shape: densities, vessels, ribs, breasts, air in the stomach.
    """
    soft = _draw_trunk(film, place, rng)
    for side, sign in SIDES.items():
        mirror = np.array([sign, 1.0])
        _draw_lung(film, place, side, rng)
        _draw_ribs(film, place, mirror, rng)
        _draw_vessels(film, place, mirror, rng)
        _draw_shoulder(film, place, mirror, rng)
    _draw_middle(film, place, rng)
    _draw_abdomen_and_breasts(film, place, rng)
    grain = film.enlarge(rng.standard_normal(film.coarse_shape, dtype=np.float32))
    return np.maximum(soft + film.attenuation() * (1 + 0.03 * grain), 0)


def _draw_trunk(film: Film, place: Place, rng: np.random.Generator) -> np.ndarray:
    """Soft tissue of trunk and arms: thin at the skin, thicker inwards."""
    half = spline(np.array(TRUNK, dtype=np.float64), samples=6)
    trunk = place(np.concatenate([half, (half * (-1, 1))[::-1]]))
    arms = [place(spline(np.array(ARM) * (sign, 1), closed=True, samples=5)) for sign in SIDES.values()]
    for arm in arms:
        film.shade(arm, 0.25)
        film.cloud(arm, 0.2)
    thickness = film.blur_coarse(film.coverage(trunk, coarse=True), 14.0)
    body = film.coverage(trunk, coarse=True) * np.sqrt(np.clip(2 * thickness - 1, 0, 1))
    density = rng.uniform(0.62, 0.85)
    return film.enlarge(film.blur_coarse((density * body).astype(np.float32), 3.0))


def _draw_lung(film: Film, place: Place, side: str, rng: np.random.Generator) -> None:
    """Air: little is lost in it, and the field gets darker away from its border."""
    outline = lung_outline(side, place)
    air = rng.uniform(0.40, 0.47)
    film.fill(outline, -0.6 * air)
    film.shade(outline, -0.3 * air)
    film.cloud(outline, -0.25 * air)
    mottle = rng.uniform((30, 20), (120, 210), (5, 2)) * (SIDES[side], 1)
    for center in mottle:
        film.cloud(place(ellipse(center, tuple(rng.uniform(10, 25, 2)), 16)), rng.uniform(-0.04, 0.05))


def _draw_ribs(film: Film, place: Place, mirror: np.ndarray, rng: np.random.Generator) -> None:
    """Ten ribs: the back part nearly level and dense, the front part steep and faint."""
    step = rng.uniform(20.5, 22.5)
    strength = rng.uniform(0.8, 1.25)
    for number in range(10):
        start = -2.0 + step * number
        drop = 16 + 4.2 * number
        turn = start + drop + 8
        reach = 1.0 + np.interp(turn, WALL[:, 1], WALL[:, 0])
        inner = 19.0
        across = np.array([0.0, 0.3, 0.62, 0.86, 1.0])
        fall = np.array([0.0, -0.2, 0.1, 0.5, 1.0])
        back = np.stack([inner + across * (reach - inner), start + fall * drop], axis=-1)
        end = max(32.0, 20 + 4.5 * number)
        front = np.array(
            [
                (reach, turn - 8),
                (reach - 2, turn + 8),
                (reach - 0.3 * (reach - end), turn + 34),
                (end, turn + 52 + 2.0 * number),
            ]
        )
        parts = ((back, 8.5, 0.12), (front, 10.0, 0.06)) if number < 7 else ((back, 8.5, 0.10),)
        for points, width, value in parts:
            draw_long_bone(
                film, place(spline(points * mirror, samples=6)), width, value * strength * rng.lognormal(0, 0.1)
            )


def _draw_vessels(film: Film, place: Place, mirror: np.ndarray, rng: np.random.Generator) -> None:
    """Vessels that leave the hilum and get thinner."""
    hilum = np.array([30.0, 112.0 + 6 * mirror[0]])
    film.cloud(place(ellipse(hilum * mirror, (9.0, 20.0), 20)), 0.14)
    count = 16
    angle = np.linspace(-1.35, 1.45, count)[:, None] + np.cumsum(rng.normal(0, 0.13, (count, 6)), axis=1)
    length = rng.uniform(8, 15, (count, 1, 1))
    step = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * length
    lines = hilum + rng.normal(0, 4, (count, 1, 2)) + np.cumsum(step, axis=1)
    lines[..., 0] = np.clip(lines[..., 0], 20, None)
    for line, width in zip(lines, rng.uniform(2.0, 4.5, count), strict=True):
        curve = place(spline(line * mirror, samples=3))
        film.shade(stroke_outline(curve, width, taper=True), 0.07)
        film.shade(stroke_outline(curve[: len(curve) // 2], width, taper=True), 0.06)


def _draw_shoulder(film: Film, place: Place, mirror: np.ndarray, rng: np.random.Generator) -> None:
    lift = rng.normal(0, 4) * np.array([0.0, 1.0])
    clavicle = np.array(CLAVICLE) + np.linspace(0, 1, len(CLAVICLE))[:, None] * lift
    draw_long_bone(film, place(spline(clavicle * mirror, samples=5)), 11.0, 0.20)
    out = np.array([rng.uniform(-4, 14), 0.0])
    scapula = place(spline((np.array(SCAPULA) + out + lift) * mirror, closed=True, samples=4))
    film.shade(scapula, 0.09)
    film.fill(stroke_outline(scapula, 1.8, closed=True), 0.06)
    humerus = np.array([(164, 22), (172, 40), (190, 100), (260, 400)]) + out + lift
    film.shade(place(ellipse((humerus[0] * mirror), (21, 23), 24)), 0.22)
    film.shade(place(stroke_outline(spline(humerus * mirror, samples=4), 24.0)), 0.2)


def _draw_middle(film: Film, place: Place, rng: np.random.Generator) -> None:
    """Spine, heart, great vessels, breastbone, and the dark windpipe before them."""
    film.shade(place(spline(np.array(HEART, dtype=np.float64), closed=True, samples=5)), rng.uniform(0.10, 0.22))
    column = np.array([(-26, -90), (26, -90), (28, 60), (32, 400), (-32, 400), (-26, 60)])
    film.cloud(place(spline(column, closed=True, samples=4)), rng.uniform(0.10, 0.2))
    for level in range(-4, 18):
        half, top = 15 + 0.45 * level, 3 + 19.5 * level
        corners = np.array([(-half, top), (-half + 2, top + 8), (-half, top + 16.5), (half, top + 16.5)])
        body = place(np.concatenate([corners, [(half - 2, top + 8), (half, top)]]))
        film.shade(body, 0.07)
        film.fill(stroke_outline(body, 1.4, closed=True), 0.05)
        film.shade(place(ellipse(np.array([0.0, top + 14]), (2.5, 6.0), 12)), 0.06)
        for sign in (-1.0, 1.0):
            film.shade(place(ellipse(np.array([sign * (half - 4), top + 5]), (3.0, 4.0), 12)), 0.06)
    windpipe = spline(np.array([(0, -90), (0, -20), (2, 40), (3, 84)], dtype=np.float64), samples=5)
    film.shade(place(stroke_outline(windpipe, 17.0)), -0.17)
    for end in ((-30, 112), (36, 108)):
        film.shade(place(stroke_outline(np.array([(3.0, 80.0), end]), 10.0)), -0.08)


def _draw_abdomen_and_breasts(film: Film, place: Place, rng: np.random.Generator) -> None:
    below = [
        (-128, 246),
        (-110, 222),
        (-62, 200),
        (-20, 216),
        (60, 226),
        (90, 216),
        (128, 250),
        (135, 400),
        (-135, 400),
    ]
    film.cloud(place(np.array(below, dtype=np.float64)), rng.uniform(0.15, 0.35))
    if rng.uniform() < 0.7:
        bubble = ellipse(np.array([rng.uniform(62, 85), rng.uniform(236, 246)]), tuple(rng.uniform((16, 7), (26, 13))))
        film.shade(place(bubble), rng.uniform(-0.3, -0.15))
    if rng.uniform() < 0.45:
        radii = tuple(rng.uniform((42, 40), (55, 52)))
        for sign in (-1.0, 1.0):
            film.shade(place(ellipse(np.array([sign * 82.0, rng.uniform(176, 186)]), radii)), 0.10)
