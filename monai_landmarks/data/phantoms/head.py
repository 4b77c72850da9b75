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
"""One phantom head: the template bent by correlated shape modes, its 19 landmarks, and its pose on the film."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .drawing import spline
from .head_template import CLOSED, CURVES

__all__ = ["Head", "Pose", "build_head", "draw_pose"]

FILM_MM = (193.5, 240.0)

PIVOT = np.array([113.0, 152.0])
"""Centre of rotation and scaling: the middle of the landmarks, so that pose moves all of them about equally."""

SHAPE_LIMIT = 2.0
"""Mode coefficients are cut here: further out, the outlines of neighbouring structures would cross."""


SAMPLES = 8
"""Curve points per control point of the outlines that are drawn."""


@dataclass(frozen=True)
class Pose:
    """Similarity from head to film: ``film = PIVOT + shift + scale * R(angle) @ (head - PIVOT)``, mm and radians."""

    angle: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        cos, sin = self.scale * np.cos(self.angle), self.scale * np.sin(self.angle)
        return (points - PIVOT) @ np.array([[cos, sin], [-sin, cos]]) + PIVOT + self.shift


@dataclass(frozen=True)
class Head:
    """A bent template in its own frame (Frankfurt plane level), millimetres.

    Args:
        curves: densely sampled outlines by name.
        landmarks: ``(19, 2)``, in the order of ``ISBI2015_LANDMARKS``.
        bend: the deformation, for structures that are not in ``curves``.
    """

    curves: dict[str, np.ndarray]
    landmarks: np.ndarray
    bend: Callable[[np.ndarray], np.ndarray]


def draw_pose(rng: np.random.Generator, rotation_deg: float, scale: float, translation_mm: float) -> Pose:
    """Draw a pose uniformly from +- the three limits.

    Example:
        >>> draw_pose(np.random.default_rng(0), 0.0, 0.0, 0.0)
        Pose(angle=0.0, scale=1.0, shift=(0.0, 0.0))
    """
    angle, size, x, y = rng.uniform(-1, 1, 4)
    return Pose(
        float(np.deg2rad(rotation_deg) * angle) + 0.0,
        float(1 + scale * size),
        (float(translation_mm * x) + 0.0, float(translation_mm * y) + 0.0),
    )


def build_head(rng: np.random.Generator, shape: float = 1.0) -> Head:
    """Bend the template and locate the landmarks on the bent outlines.

    Landmarks are located by their definition on the outlines, after bending, so they are true for every shape:
    most anterior, lowest, deepest point of a concavity, crossing of two outlines, tip, centre of the sella.

    Args:
        rng: source of the shape.
        shape: 0 gives the template itself, 1 the usual variation.

    Returns:
        The head.

    Example:
        >>> build_head(np.random.default_rng(0), 0.0).landmarks[1].tolist()
        [139.0, 97.0]
    """
    bend = _draw_bend(rng, shape)
    names = list(CURVES)
    bent = bend(np.concatenate([np.asarray(CURVES[name], dtype=np.float64) for name in names]))
    control = dict(zip(names, np.split(bent, np.cumsum([len(CURVES[name]) for name in names])[:-1]), strict=True))
    curves = {name: spline(points, name in CLOSED, SAMPLES) for name, points in control.items()}
    curves["vault"] = np.concatenate([curves["vault_outer"], curves["vault_inner"]])
    curves["skull"] = np.concatenate([curves["vault_outer"], curves["skull_base"]])
    curves["jaw_border"] = curves["mandible"][SAMPLES : 18 * SAMPLES + 1]
    overbite = np.clip(rng.standard_normal(2), -SHAPE_LIMIT, SHAPE_LIMIT) * (0.9 * shape, 0.7 * shape)
    return Head(curves, _locate_landmarks(control, bend, overbite), bend)


def _draw_bend(rng: np.random.Generator, shape: float) -> Callable[[np.ndarray], np.ndarray]:
    """A smooth displacement field: anatomical modes that move many structures together, plus a random part."""
    c = np.clip(rng.standard_normal(20), -SHAPE_LIMIT, SHAPE_LIMIT) * shape
    centers = np.stack(np.meshgrid(np.linspace(20, 170, 7), np.linspace(20, 220, 8)), axis=-1).reshape(-1, 2)
    weights = rng.standard_normal((len(centers), 2)) * (0.7 * shape)

    def bend(points: np.ndarray) -> np.ndarray:
        p = np.asarray(points, dtype=np.float64)
        x, y = p[:, 0], p[:, 1]
        face, lower, jaw = _step(x, 55, 105), _step(y, 146, 200), _step(y, 150, 178)
        moves = (
            (0, 3.2 * c[0] * face * lower),  # lower face height
            (3.6 * c[1] * face * _step(y, 150, 195), 0),  # length of the mandible
            (-0.035 * c[2] * (y - 128) * jaw * face, 0.035 * c[2] * (x - 67) * jaw),  # steepness of the mandible
            (2.0 * c[3] * _step(x, 90, 140) * _bump(p, (145, 150), 28), 0),  # protrusion of the maxilla
            (2.0 * c[4] * _step(x, 80, 135), 1.5 * c[5] * _step(x, 80, 135) * _step(-y, -130, -95)),  # cranial base
            (0, -4.0 * c[6] * _step(-y, -95, -25)),  # height of the vault
            (2.6 * c[7] * _bump(p, (162, 134), 14), 2.0 * c[8] * _bump(p, (162, 134), 14)),  # nose
            (1.5 * c[9] * _bump(p, (156, 161), 6), 1.0 * c[10] * _bump(p, (156, 161), 7)),  # upper lip
            (1.5 * c[11] * _bump(p, (154, 178), 6), 1.0 * c[12] * _bump(p, (154, 178), 7)),  # lower lip
            (1.6 * c[13] * _bump(p, (147, 200), 8), 0),  # thickness of the soft chin
            (2.5 * c[14] * _bump(p, (74, 174), 18), 2.5 * c[15] * _bump(p, (72, 168), 24)),  # angle of the jaw
            (1.6 * c[16] * _bump(p, (143, 170), 10), 0),  # inclination of the incisors
            (1.4 * c[17] * _bump(p, (81, 104), 16), 1.4 * c[18] * _bump(p, (81, 104), 16)),  # sella
            (0, 1.6 * c[19] * _bump(p, (60, 122), 14)),  # ear
        )
        distance = np.sum((p[:, None] - centers) ** 2, axis=-1)
        random = np.exp(-0.5 * distance / 24.0**2) @ weights
        return p + random + np.stack([sum(dx for dx, _ in moves), sum(dy for _, dy in moves)], axis=-1)

    return bend


def _step(value: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _bump(points: np.ndarray, center: tuple[float, float], radius: float) -> np.ndarray:
    return np.exp(-0.5 * np.sum((points - center) ** 2, axis=-1) / radius**2)


def _locate_landmarks(
    control: dict[str, np.ndarray], bend: Callable[[np.ndarray], np.ndarray], overbite: np.ndarray
) -> np.ndarray:
    """The 19 landmarks on the bent outlines, in the order of ``ISBI2015_LANDMARKS``."""

    def fine(name: str, first: int, last: int) -> np.ndarray:
        """Part of an outline, from one control point to another, about 0.05 mm apart."""
        curve = spline(control[name], name in CLOSED, samples=160)
        return curve[160 * first : 160 * last + 1]

    right, down = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    chin = fine("mandible", 10, 16)
    menton = int(np.argmax(chin @ down))
    pogonion = menton + int(np.argmax(_distance_from_chord(chin[menton:])))
    skin = control["skin"]
    points = {
        "sella": _centroid(spline(control["sella_bowl"], samples=40)),
        "nasion": control["vault_outer"][-1],
        "orbitale": _furthest(fine("orbit", 3, 6), down),
        "porion": _furthest(fine("ear_canal", 0, 8), -down),
        "subspinale_A": _deepest(fine("maxilla_front", 1, 6)),
        "supramentale_B": _deepest(fine("mandible", 14, 18)),
        "pogonion": chin[pogonion],
        "menton": chin[menton],
        "gnathion": _deepest(chin[menton : pogonion + 1]),
        "gonion": _deepest(fine("mandible", 2, 12)),
        "lower_incisal_incision": bend(np.array([[142.0, 169.6]]) + overbite)[0],
        "upper_incisal_incision": bend(np.array([[144.4, 171.2]]))[0],
        "upper_lip": _furthest(fine("skin", 19, 24), right),
        "lower_lip": _furthest(fine("skin", 25, 29), right),
        "subnasale": skin[17],
        "soft_tissue_pogonion": _deepest(fine("skin", 30, 34)),
        "posterior_nasal_spine": control["palate"][0],
        "anterior_nasal_spine": control["palate"][5],
        "articulare": _crossing(fine("mandible", 1, 3), fine("base_inferior", 2, 5)),
    }
    return np.stack(list(points.values()))


def _furthest(curve: np.ndarray, direction: np.ndarray) -> np.ndarray:
    return curve[np.argmax(curve @ direction)]


def _deepest(curve: np.ndarray) -> np.ndarray:
    """Point furthest from the chord between the curve's ends: bottom of a concavity, height of a convexity."""
    return curve[np.argmax(_distance_from_chord(curve))]


def _distance_from_chord(curve: np.ndarray) -> np.ndarray:
    """Distance of each point from the line through the curve's ends, up to a factor."""
    chord = curve[-1] - curve[0]
    offset = curve - curve[0]
    return np.abs(chord[0] * offset[:, 1] - chord[1] * offset[:, 0])


def _crossing(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    distance = np.sum((first[:, None] - second[None, ::4]) ** 2, axis=-1)
    return first[np.unravel_index(np.argmin(distance), distance.shape)[0]]


def _centroid(polygon: np.ndarray) -> np.ndarray:
    """Centre of area of a closed polygon."""
    following = np.roll(polygon, -1, axis=0)
    cross = polygon[:, 0] * following[:, 1] - polygon[:, 1] * following[:, 0]
    return ((polygon + following) * cross[:, None]).sum(axis=0) / (3 * cross.sum())
