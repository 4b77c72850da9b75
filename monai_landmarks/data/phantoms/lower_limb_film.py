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
"""Two phantom legs: landmarks with true angles, and their attenuation on a frontal film from the pelvis to the feet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from monai_landmarks.data.datasets.bmple import LIMB_LANDMARKS

from .drawing import Film, ellipse, spline, stroke_outline

__all__ = ["Leg", "draw_leg_shapes", "draw_lower_limb_film"]

SIDES = {"right": -1.0, "left": 1.0}
"""Where the patient's right and left lie in the picture."""

HEAD_MM = 24.0


@dataclass(frozen=True)
class Leg:
    """A leg in its own frame: mm to the outer side of the body's middle, and down from the level of the hips.

    Args:
        side: -1 for the right leg, which lies at the left of the picture, 1 for the left one.
        middle: of the hips on the film, mm from its upper left corner.
        lean: of the body on the film, radians.
        points: landmarks by name, in the frame of the leg.
        scale: size of the bones, 1 for usual.
        tilts: directions in degrees from down (0) to outwards (90): ``shaft`` (anatomical axis of the femur), ``femur``,
            ``tibia``, and the joint lines ``condyles``, ``plateau`` and ``plafond``.
        angles: ``(7,)`` degrees: HKA, FTA, AMA, LDFA, MPTA, JLCA, LDTA.
    """

    side: float
    middle: np.ndarray
    lean: float
    scale: float
    points: Mapping[str, np.ndarray]
    tilts: Mapping[str, float]
    angles: np.ndarray

    def place(self, points: np.ndarray) -> np.ndarray:
        """Bring points ``(..., 2)`` from the frame of the leg to the film."""
        x, y = self.side * points[..., 0], points[..., 1]
        cos, sin = np.cos(self.lean), np.sin(self.lean)
        return np.stack([self.middle[0] + cos * x - sin * y, self.middle[1] + sin * x + cos * y], axis=-1)

    def landmarks(self) -> np.ndarray:
        """The ten landmarks on the film, ``(10, 2)``."""
        return self.place(np.stack([self.points[name] for name in LIMB_LANDMARKS]))

    def at(self, name: str, tilt: float, offsets: ArrayLike) -> np.ndarray:
        """Points outwards of and below a landmark, mm at usual size, in the frame whose downward axis has the tilt."""
        return self.points[name] + self.scale * np.array(offsets) @ np.stack([direction(tilt + 90), direction(tilt)])


def direction(degrees: float) -> np.ndarray:
    """Unit vector, outwards and down: 0 points down, 90 outwards."""
    return np.array([np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))])


def draw_leg_shapes(rng: np.random.Generator, deformity: float = 1.0) -> tuple[tuple[float, float], tuple[Leg, Leg]]:
    """Draw both legs of a patient and the size of the film that holds them.

    Angles are drawn first, about those of the literature, and the bones follow from them.

    Args:
        rng: source.
        deformity: strength of the deviation from a straight leg; 1 gives knees between some 12 degrees of varus and 8 of
            valgus, 0 straight ones.

    Returns:
        width and height of the film in mm, and the right and the left leg on it.
    """
    scale, hip, foot = rng.uniform(0.9, 1.08), rng.uniform(82, 98), rng.uniform(55, 95)
    both = rng.normal(-2.0, 4.0)
    lengths = scale * rng.uniform((410, 335), (445, 370))
    lean = np.deg2rad(rng.normal(0, 0.7))
    built = [_build_leg(rng, scale, hip * scale, foot, both, lengths, deformity) for _ in SIDES]
    legs = [
        Leg(side, np.zeros(2), lean, scale, points, tilts, angles)
        for side, (points, tilts, angles) in zip(SIDES.values(), built, strict=True)
    ]
    landmarks = np.concatenate([leg.landmarks() for leg in legs])
    before, after = rng.uniform((35, 65), (75, 165)), rng.uniform((35, 45), (75, 90))
    low, high = landmarks.min(axis=0) - before, landmarks.max(axis=0) + after
    right, left = (replace(leg, middle=-low) for leg in legs)
    return (float(high[0] - low[0]), float(high[1] - low[1])), (right, left)


def _build_leg(
    rng: np.random.Generator,
    scale: float,
    hip: float,
    foot: float,
    both: float,
    lengths: np.ndarray,
    deformity: float,
) -> tuple[dict[str, np.ndarray], dict[str, float], np.ndarray]:
    bend = deformity * np.clip(both + rng.normal(0, 2.0), -15, 12)
    gape = np.clip(1.0 + deformity * (rng.normal(0, 0.8) - 0.15 * bend), -2.5, 6)
    ldfa, ama, ldta = np.array([88.0, 6.0, 89.0]) + deformity * rng.normal(0, (1.5, 0.8, 2.0))
    ldfa -= 0.35 * bend
    mpta = ldfa + gape + bend
    femur, shin = lengths * rng.normal(1, 0.006, 2)
    tilt = np.rad2deg(np.arcsin((foot - hip - shin * np.sin(np.deg2rad(bend))) / (femur + shin)))
    tilts = {"shaft": tilt - ama, "femur": tilt, "tibia": tilt + bend}
    tilts |= {"condyles": tilt + 180 - ldfa, "plateau": tilt + bend + 180 - mpta, "plafond": tilt + bend + 180 - ldta}
    head = np.array([hip, rng.normal(0, 4)])
    knee = head + femur * direction(tilt)
    ankle = knee + shin * direction(tilts["tibia"])
    rise = (knee[1] - head[1] + rng.normal(0, 6)) / np.cos(np.deg2rad(tilts["shaft"]))
    condyles = knee + 9 * scale * direction(tilts["condyles"] - 90)
    plateau = knee + 15 * scale * direction(tilts["plateau"] - 90)
    points = {
        "femoral_head_center": head,
        "greater_trochanter_tip": knee - rise * direction(tilts["shaft"]),
        "knee_center": knee,
        "ankle_center": ankle,
    }
    joints = {
        "femoral_condyle": (condyles, 23, "condyles"),
        "tibial_plateau": (plateau, 36, "plateau"),
        "tibial_plafond": (ankle, 15, "plafond"),
    }
    for part, (middle, half, line) in joints.items():
        along = half * scale * direction(tilts[line])
        points |= {f"medial_{part}": middle - along, f"lateral_{part}": middle + along}
    return points, tilts, np.array([180 + bend, 180 - bend - ama, ama, ldfa, mpta, gape, ldta])


def draw_lower_limb_film(
    film: Film, size_mm: tuple[float, float], legs: tuple[Leg, Leg], rng: np.random.Generator
) -> np.ndarray:
    """Draw pelvis and legs and return the attenuation along the rays through every pixel, float32 ``(height, width)``.

    Args:
        film: an empty film.
        size_mm: width and height.
        legs: on it.
        rng: source of everything that is not shape: flesh, densities, ruler.
    """
    build, strength = rng.uniform(0.85, 1.2), rng.uniform(0.8, 1.25)
    _draw_trunk(film, legs, build)
    for leg in legs:
        _draw_flesh(film, leg, build, rng)
        _draw_pelvis(film, leg, strength)
        _draw_foot(film, leg, strength)
        for outline, shell in ((femur_outline(leg), 2.0), (tibia_outline(leg), 1.8)):
            _draw_bone(film, leg.place(outline), shell, 0.3 * strength)
        _draw_shafts(film, leg, 0.3 * strength)
        _draw_small_bones(film, leg, strength)
    _draw_sacrum(film, legs[0], strength)
    if rng.uniform() < 0.6:
        _draw_ruler(film, size_mm, legs[0].middle[0] + rng.normal(0, 8))
    grain = film.enlarge(rng.standard_normal(film.coarse_shape, dtype=np.float32))
    return np.maximum(film.attenuation() * (1 + 0.03 * grain), 0)


def widened(curve: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """Outline of a rod along a curve ``(Q, 2)``, with its own half width at each point."""
    tangent = np.gradient(curve, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=-1) / np.linalg.norm(tangent, axis=-1, keepdims=True)
    return np.concatenate([curve + halves[:, None] * normal, (curve - halves[:, None] * normal)[::-1]])


def femur_outline(leg: Leg) -> np.ndarray:
    """Head, neck, trochanters, shaft and condyles as one closed outline in the frame of the leg."""
    shaft, femur = leg.tilts["shaft"], leg.tilts["femur"]
    turn = np.deg2rad(np.arange(85, 330, 40))
    arc = HEAD_MM * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    head = leg.at("femoral_head_center", shaft, [*arc, (26, -2)])
    tip = [(-15, 11), (-6, 5), (0, 0), (7, 4), (13, 20), (12, 45), (3, 78)]
    outer = leg.at("greater_trochanter_tip", shaft, tip)
    inner = leg.at("greater_trochanter_tip", shaft, [(-31, 95), (-34, 76), (-40, 62), (-38, 48)])
    across = 13.5 * leg.scale * direction(femur + 90)
    sides = [_femur_shaft(leg)[1:-1] + sign * across for sign in (1, -1)]
    knee = [(25, -72), (34, -42), (40, -24), (39, -8)]
    lateral = leg.at("knee_center", leg.tilts["condyles"] - 90, knee)
    medial = leg.at("knee_center", leg.tilts["condyles"] - 90, [(-40, -8), (-42, -26), (-35, -46), (-24, -72)])
    low = leg.at("knee_center", leg.tilts["condyles"] - 90, [(35, 4), (9, 2), (0, 0), (-9, 2), (-36, 4)])
    condyles = [leg.points["lateral_femoral_condyle"][None], low[1:4], leg.points["medial_femoral_condyle"][None]]
    points = [head, outer, sides[0], lateral, low[:1], *condyles, low[4:], medial, sides[1][::-1], inner]
    return spline(np.concatenate(points), closed=True, samples=6)


def _femur_shaft(leg: Leg) -> np.ndarray:
    """Middle line of the shaft, a little bent outwards."""
    start = leg.at("greater_trochanter_tip", leg.tilts["shaft"], [(-14, 85)])[0]
    end = leg.at("knee_center", leg.tilts["femur"], [(0, -80)])[0]
    share = np.linspace(0, 1, 6)
    return (
        start + share[:, None] * (end - start) + 4 * np.sin(np.pi * share)[:, None] * direction(leg.tilts["femur"] + 90)
    )


def tibia_outline(leg: Leg) -> np.ndarray:
    """Plateau with its spines, shaft, inner malleolus and plafond as one closed outline in the frame of the leg."""
    medial, lateral = leg.points["medial_tibial_plateau"], leg.points["lateral_tibial_plateau"]
    plateau, tibia, plafond = (leg.tilts[name] for name in ("plateau", "tibia", "plafond"))
    along, down = lateral - medial, direction(plateau - 90)
    share = np.array([(0.2, 1.4), (0.39, 0), (0.43, -6), (0.5, -2.5), (0.57, -5.5), (0.61, 0), (0.8, 1.4)])
    top = medial + share[:, :1] * along + leg.scale * share[:, 1:] * down
    outer_end, inner_end = leg.points["lateral_tibial_plafond"], leg.points["medial_tibial_plafond"]
    upper = [leg.at("knee_center", tibia, np.array([(38, 25), (34, 39), (24, 61)]) * (sign, 1)) for sign in (1, -1)]
    middle = _tibia_shaft(leg)
    halves = leg.scale * np.array([16.0, 14.0, 12.5, 12.0, 13.0])[:, None] * direction(tibia + 90)
    lower = leg.at("ankle_center", plafond - 90, [(18, -45), (24, -20), (19, -4)])
    ankle = leg.at("ankle_center", plafond - 90, [(-17, 9), (-21, 14), (-27, 8), (-29, -6), (-25, -22), (-18, -45)])
    corner = [outer_end, outer_end, inner_end, inner_end]
    points = [top, [lateral, lateral], upper[0], middle + halves, lower, corner, ankle]
    points += [(middle - halves)[::-1], upper[1][::-1], [medial, medial]]
    return spline(np.concatenate(points), closed=True, samples=6)


def _tibia_shaft(leg: Leg) -> np.ndarray:
    start = leg.at("knee_center", leg.tilts["tibia"], [(0, 85)])[0]
    end = leg.at("ankle_center", leg.tilts["tibia"], [(0, -70)])[0]
    return start + np.linspace(0, 1, 5)[:, None] * (end - start)


def _draw_bone(film: Film, outline: np.ndarray, shell: float, value: float) -> None:
    """Blurred marrow in a thin bright shell."""
    film.shade(outline, 0.8 * value)
    film.fill(stroke_outline(outline, shell, closed=True, inside=True), 0.5 * value)


def _draw_shafts(film: Film, leg: Leg, value: float) -> None:
    """Thick walls of the shafts of femur and tibia, which run out towards the ends."""
    for curve, tilt, half in ((_femur_shaft(leg), "femur", 11.0), (_tibia_shaft(leg), "tibia", 10.0)):
        for sign in (-1, 1):
            wall = spline(curve + sign * half * leg.scale * direction(leg.tilts[tilt] + 90), samples=4)
            film.fill(leg.place(stroke_outline(wall, 5.5 * leg.scale, taper=True)), 0.8 * value)


def _draw_flesh(film: Film, leg: Leg, build: float, rng: np.random.Generator) -> None:
    """Thigh, knee, calf and ankle, densest in the middle."""
    hip, knee, ankle = (leg.points[name] for name in ("femoral_head_center", "knee_center", "ankle_center"))
    share = np.array([-0.6, 0.0, 0.2, 0.5, 0.8, 1.0, 1.25, 1.6, 1.85, 2.0, 2.2])
    thigh, shin = share[:, None] * (knee - hip) + hip, (share[:, None] - 1) * (ankle - knee) + knee
    nodes = np.where(share[:, None] <= 1, thigh, shin)
    halves = np.array([45, 72, 80, 70, 58, 52, 56, 46, 36, 36, 40]) * (1 + (build - 1) * np.linspace(1.5, 0.3, 11))
    value = rng.uniform(0.8, 1.1)
    for part, weight in ((1.0, 0.16), (0.88, 0.11), (0.65, 0.07)):
        outline = leg.place(widened(nodes, part * halves))
        film.cloud(spline(outline, closed=True, samples=4), value * weight)


def _draw_trunk(film: Film, legs: tuple[Leg, Leg], build: float) -> None:
    """Belly and buttocks, which run out over the thighs."""
    half = np.array([(0, -300), (175, -300), (165, -120), (168, -30), (150, 20), (90, 50), (0, 55)])
    for leg in legs:
        for fall in np.linspace(0.5, 3.0, 8):
            outline = half * (build, 1) * np.where(half[:, 1:] > 0, (1.0, fall), 1.0)
            film.cloud(leg.place(spline(outline, samples=4)), 0.05)


def _draw_pelvis(film: Film, leg: Leg, strength: float) -> None:
    """Wing, socket, and the ring of pubis and ischium with its hole."""
    x, y = leg.points["femoral_head_center"] / leg.scale
    wing = [(x + 22, y - 30), (x + 42, y - 75), (x + 48, y - 112), (x + 30, y - 145), (x - 5, y - 155)]
    wing += [(x - 35, y - 130), (x - 52, y - 95), (x - 48, y - 62), (x - 38, y - 30), (x - 44, y + 5)]
    wing += [(x - 38, y + 38), (x - 18, y + 34), (x - 20, y + 8), (x - 24, y - 10), (x - 10, y - 26)]
    outline = leg.place(leg.scale * spline(np.array(wing), closed=True, samples=6))
    film.shade(outline, 0.13 * strength)
    film.fill(stroke_outline(outline, 2.5, closed=True, inside=True), 0.08 * strength)
    turn = np.deg2rad(np.linspace(-210, -20, 24))
    socket = leg.scale * (np.array([x, y]) + 28.5 * np.stack([np.cos(turn), np.sin(turn)], axis=-1))
    film.fill(leg.place(stroke_outline(socket, 4.0, taper=True)), 0.2 * strength)
    ring = leg.place(leg.scale * ellipse(np.array([x - 44, y + 42]), (26.0, 30.0)))
    film.shade(stroke_outline(ring, 17.0 * leg.scale, closed=True), 0.2 * strength)


def _draw_sacrum(film: Film, leg: Leg, strength: float) -> None:
    shape = [(-44, -135), (0, -142), (44, -135), (40, -95), (18, -45), (0, -30), (-18, -45), (-40, -95)]
    film.shade(leg.place(leg.scale * spline(np.array(shape), closed=True, samples=5)), 0.16 * strength)


def _draw_small_bones(film: Film, leg: Leg, strength: float) -> None:
    """Kneecap and fibula."""
    knee, tibia = leg.points["knee_center"], leg.tilts["tibia"]
    cap = ellipse(knee - 16 * direction(tibia), (20.0 * leg.scale, 21.0 * leg.scale))
    film.shade(leg.place(cap), 0.09 * strength)
    nodes = [*leg.at("knee_center", tibia, [(31, 28), (34, 36), (33, 60)])]
    nodes += [*leg.at("ankle_center", tibia, [(26, -90), (25, -25), (26, 0), (24, 17), (22, 24)])]
    halves = leg.scale * np.array([3.0, 8.0, 5.5, 5.0, 7.0, 8.5, 7.0, 2.0])
    outline = spline(widened(np.array(nodes), halves), closed=True, samples=5)
    _draw_bone(film, leg.place(outline), 1.8, 0.24 * strength)


def _draw_foot(film: Film, leg: Leg, strength: float) -> None:
    """Talus under the plafond, and the foot seen along its length."""
    tilt = leg.tilts["plafond"] - 90
    talus = [(-14, 4), (14, 4), (17, 12), (19, 26), (12, 36), (-10, 36), (-17, 26), (-16, 12)]
    _draw_bone(
        film, leg.place(spline(leg.at("ankle_center", tilt, talus), closed=True, samples=5)), 1.8, 0.25 * strength
    )
    foot = [(-26, 30), (20, 32), (38, 55), (44, 85), (0, 95), (-34, 85)]
    film.shade(leg.place(spline(leg.at("ankle_center", tilt, foot), closed=True, samples=5)), 0.12 * strength)
    film.cloud(leg.place(spline(leg.at("ankle_center", tilt, foot), closed=True, samples=5)), 0.12)


def _draw_ruler(film: Film, size_mm: tuple[float, float], x: float) -> None:
    """A thin metal scale between the legs, with a mark every 10 mm and a long one every 50."""
    height = size_mm[1]
    for y in np.arange(20, height - 20, 10):
        length = 9.0 if round(y - 20) % 50 == 0 else 5.0
        film.fill(np.array([(x, y), (x + length, y), (x + length, y + 1.2), (x, y + 1.2)]), 0.7)
