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
"""A growing left hand as a film of its back shows it: outlines of its bones and flesh in the plane, and 37 landmarks.

Drawn by hand with round numbers and the proportions of textbooks; no outline was traced from a patient's film. The frame
is that of a grown hand in millimetres: x to the thumb, y to the elbow, the origin at the base of the middle metacarpal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from monai_landmarks.data.datasets.hand_xray import HAND_XRAY_LANDMARKS

from .drawing import ellipse, spline

__all__ = ["FlatHand", "build_flat_hand"]

_Points = tuple[tuple[float, float], ...]

FINGERS: dict[str, tuple[tuple[float, float], float, float, tuple[float, ...], float]] = {
    "thumb": ((28.0, 10.0), 38.0, 28.0, (44.0, 30.0, 22.0), 1.1),
    "index": ((12.5, 1.5), 8.0, 9.0, (66.0, 39.0, 23.0, 18.0), 1.0),
    "middle": ((0.0, 0.0), 0.0, 0.0, (64.0, 43.0, 28.0, 19.0), 1.0),
    "ring": ((-10.5, 1.0), -9.0, -8.0, (57.0, 40.0, 26.0, 19.0), 0.95),
    "little": ((-18.5, 4.0), -21.0, -20.0, (52.0, 32.0, 19.0, 17.0), 0.88),
}
"""Base, directions of metacarpal and finger (degrees to the thumb), lengths from joint to joint, thickness."""

FAN = {"thumb": 5.0, "index": 3.0, "middle": 0.0, "ring": -3.0, "little": -6.0}
"""Degrees by which the fingers spread together, per standard deviation."""

BONES: dict[str, tuple[float, float, float]] = {
    "metacarpal": (6.8, 3.7, 6.6),
    "proximal_phalanx": (7.2, 4.2, 5.4),
    "middle_phalanx": (6.2, 3.6, 4.7),
    "distal_phalanx": (5.2, 2.4, 3.6),
}
"""Half widths of base, shaft and head."""

# fmt: off
CARPALS: dict[str, _Points] = {
    "triquetrum": ((-20, 13), (-15.5, 15), (-12.3, 20), (-12.5, 24.5), (-16, 27), (-20, 25.5), (-22.5, 20)),
    "lunate": ((-9.5, 24.5), (-4, 24.8), (0, 26), (1, 29.5), (-3, 32.5), (-7.5, 33), (-11, 30.5), (-11.3, 27)),
    "scaphoid": ((8, 14.5), (12, 15.5), (16, 18.5), (16, 22.5), (10.5, 26.5), (6, 30), (2.5, 28.5), (4.5, 23.5),
                 (6.5, 18.5)),
    "hamate": ((-19, 6.5), (-13, 3.5), (-6.8, 3), (-6.2, 10), (-7.2, 17), (-9.5, 20.5), (-13, 16), (-18, 11)),
    "capitate": ((-5, 2.5), (1, 1.8), (6, 3), (6.4, 8), (5.2, 15), (3.5, 21), (-0.5, 23.3), (-4.3, 20.5), (-5, 12)),
    "trapezoid": ((7.8, 4.5), (13, 3.5), (15.3, 6), (14.5, 11), (12, 13), (8.5, 11.8), (7.6, 8)),
    "trapezium": ((16.3, 6.5), (20.5, 7), (24, 11), (23.8, 15.5), (20, 18), (16.5, 15.5), (15.7, 11)),
}
"""Outlines; the landmark of each is its point nearest to the elbow."""

PISIFORM: _Points = ((-20.5, 17.5), (-17, 16.5), (-14.5, 19.5), (-16, 23), (-20, 22.5))

FOREARM: dict[str, dict[str, _Points]] = {
    "ulna": {
        "shaft": ((-27.2, 42.5), (-27.2, 42.5), (-20, 43.2), (-13.5, 43), (-13.5, 43), (-15, 52), (-15.6, 66),
                  (-15.6, 110), (-25, 110), (-25, 66), (-25.6, 52)),
        "cap": ((-26.6, 41), (-27, 37), (-25.8, 32.4), (-23.4, 35.4), (-19, 37), (-14.6, 37.4), (-13.8, 41), (-20, 41.8)),
    },
    "radius": {
        "shaft": ((-9, 42), (-9, 42), (4, 43.4), (17.4, 42.5), (17.4, 42.5), (14, 52), (11.2, 66), (10.6, 110),
                  (-3, 110), (-3.4, 66), (-6.4, 52)),
        "cap": ((-9, 40.4), (-9.6, 36.6), (-5, 35.9), (2, 34.8), (8, 32), (12.5, 28.6), (15.8, 27), (18.2, 31),
                (17.2, 40.6), (4, 41.8)),
    },
}
"""Broad end of the shaft, whose two corners are given twice, and the growing cap (epiphysis) beyond its growth plate."""
# fmt: on

TIPS = {"ulna": "ulnar_styloid", "radius": "radial_styloid"}
CORNERS = {
    "ulna": ("ulna_ulnar_corner", "ulna_radial_corner"),
    "radius": ("radius_ulnar_corner", "radius_radial_corner"),
}

FLESH_MM: dict[str, tuple[float, float]] = {
    "metacarpal": (12.0, 11.5),
    "proximal_phalanx": (11.0, 9.6),
    "middle_phalanx": (9.4, 8.8),
    "distal_phalanx": (8.8, 7.0),
}
"""Radius of the flesh around base and head."""

JOINT_MM = 1.9
SAMPLES = 8


@dataclass
class FlatHand:
    """Outlines in the plane of the film, millimetres.

    Args:
        landmarks: by name.
        tubes: pieces of long bones.
        blocks: outlines of carpal bones and caps of the forearm.
        faint: outlines that are partly bone, with their share: growth plates that are closing, and the pisiform.
        shafts: lines along the dense walls of long bones, with their width.
        flesh: outlines whose union is bounded by the skin.
        size: relative to a grown hand.
    """

    landmarks: dict[str, np.ndarray] = field(default_factory=dict)
    tubes: list[np.ndarray] = field(default_factory=list)
    blocks: list[np.ndarray] = field(default_factory=list)
    faint: list[tuple[np.ndarray, float]] = field(default_factory=list)
    shafts: list[tuple[np.ndarray, float]] = field(default_factory=list)
    flesh: list[np.ndarray] = field(default_factory=list)
    size: float = 1.0

    @property
    def points(self) -> np.ndarray:
        """Landmarks ``(37, 2)`` in the order of ``HAND_XRAY_LANDMARKS``."""
        return np.stack([self.landmarks[name] for name in HAND_XRAY_LANDMARKS])

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> FlatHand:
        """The same hand, every point of it moved."""
        return FlatHand(
            {name: move(point) for name, point in self.landmarks.items()},
            [move(outline) for outline in self.tubes],
            [move(outline) for outline in self.blocks],
            [(move(outline), share) for outline, share in self.faint],
            [(move(line), width) for line, width in self.shafts],
            [move(outline) for outline in self.flesh],
            self.size,
        )


def build_flat_hand(rng: np.random.Generator, posture: float = 1.0) -> FlatHand:
    """Grow and pose a hand.

    Maturity, drawn evenly between a child's of about five years and an adult's, sets size, growth plates, the width of
    the caps and the size of the carpal bones together.

    Args:
        rng: source of all variation.
        posture: strength of the random spreading and bending of fingers.

    Returns:
        The hand, fingers up, in millimetres.
    """
    maturity = rng.uniform()
    size = (0.66 + 0.36 * maturity) * rng.normal(1, 0.03)
    hand = FlatHand(size=size)
    girth = rng.normal(1, 0.05)
    fan, fold = rng.normal(0, posture), abs(rng.normal(0, 0.12 * posture))
    joints = {name: _add_finger(hand, name, maturity, girth, fan, fold, posture, rng) for name in FINGERS}
    _add_carpus(hand, maturity, rng)
    for name in FOREARM:
        _add_forearm(hand, name, maturity, rng)
    _add_palm(hand, joints)
    return hand.moved(lambda points: points * size)


def _add_finger(
    hand: FlatHand,
    name: str,
    maturity: float,
    girth: float,
    fan: float,
    fold: float,
    posture: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Bones and flesh of one finger; returns its joints from the base to the tip."""
    base, direction, finger_direction, lengths, thickness = FINGERS[name]
    thumb = name == "thumb"
    segments = [segment for segment in BONES if not (thumb and segment == "middle_phalanx")]
    thick = girth * thickness * rng.normal(1, 0.03)
    own = rng.normal(0, 2.0 * posture, len(segments)) * (2.0 if thumb else 1.0)
    angle = direction + 0.4 * FAN[name] * fan + 0.4 * own[0]
    joints = [np.array(base) + rng.normal(0, 0.5, 2) * (name != "middle")]
    for number, (segment, length) in enumerate(zip(segments, lengths, strict=True)):
        if number:
            angle = finger_direction + FAN[name] * fan + own[: number + 1].sum() * 0.8
        # A bent finger points towards the film's tube and is seen shortened.
        length *= rng.normal(1, 0.03) * np.cos(fold * number / 2)
        joints.append(joints[-1] + length * _direction(angle))
        last = number == len(segments) - 1
        gap = 0.0 if last else JOINT_MM * (1.5 - 0.5 * maturity)
        _add_tube(hand, name, segment, joints[-2], angle, length - gap, thick, maturity, number)
        if last:
            hand.landmarks[f"{name}_distal_phalanx_tip"] = joints[-1]
        over = 3.5 * _direction(angle) * last
        first, second = FLESH_MM[segment]
        hand.flesh.append(_capsule(joints[-2], joints[-1] + over, first * thick, second * thick))
    return np.stack(joints)


def _add_tube(
    hand: FlatHand,
    name: str,
    segment: str,
    start: np.ndarray,
    angle: float,
    length: float,
    thick: float,
    maturity: float,
    number: int,
) -> None:
    """One long bone from its base at ``start``. Metacarpals but the thumb's grow at their heads, all others at bases."""
    base, shaft, head = (half * thick for half in BONES[segment])
    at_head = segment == "metacarpal" and name != "thumb"
    closing = 0.68 + 0.06 * (3 - number)
    pieces = _tube_pieces(
        length, *((head, shaft, base) if at_head else (base, shaft, head)), maturity / closing, at_head
    )
    place = _placed(start, angle)
    flip = np.array([1.0, -1.0])
    for piece in pieces:
        hand.tubes.append(place(piece * flip + (0.0, length) if at_head else piece))
    for side in (-1.0, 1.0):
        wall = np.array([(0.84 * base, 0.2), (0.86 * shaft, 0.4), (0.84 * shaft, 0.6), (0.84 * head, 0.82)])
        hand.shafts.append((place(spline(wall * (side, length), samples=4)), 0.42 * shaft))
    if segment == "metacarpal":
        number = 1 + list(FINGERS).index(name)
        # The thumb's point lies on the side of the trapezium, the others in the middle of the base.
        side = np.interp(-0.55 * base, *_sorted_edge(pieces[0])) if name == "thumb" else 0.0
        where = (-0.55 * base, side) if name == "thumb" else (0.0, 0.0)
        hand.landmarks[f"metacarpal_{number}_base"] = place(np.array(where))
    else:
        hand.landmarks[f"{name}_{segment}_base"] = place(np.zeros(2))


def _sorted_edge(piece: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The outline's lower edge as a function of the side, for interpolation."""
    edge = piece[piece[:, 1] <= 0.7]
    order = np.argsort(edge[:, 0])
    return edge[order, 0], edge[order, 1]


def _tube_pieces(length: float, end: float, shaft: float, far: float, age: float, convex: bool) -> list[np.ndarray]:
    """Outline of a long bone that grows at y = 0: one piece, or two with the growth plate between them.

    The outline passes through (0, 0) and (0, length): these are its ends.
    """
    corner = 0.25 * end if convex else -0.45
    plate, gap = (0.95 if convex else 0.55) * end, 0.28 * max(1.0 - age, 0.0) * end + 0.5
    beyond = [(0.72 * end, min(1.55 * end, 0.28 * length)), (1.02 * shaft, 0.38 * length), (shaft, 0.55 * length)]
    beyond += [(0.82 * far, length - 1.3 * far), (far, length - 0.6 * far), (0.66 * far, length - 0.06 * far)]
    tip = (0.0, length)
    if age >= 1:
        right = [(0.72 * end, corner), (end, corner + 0.3 * end), (0.97 * end, plate), *beyond]
        return [_mirrored([(0.0, 0.0), *right, tip])]
    cap = min(0.55 + 0.55 * age, 1.0) * end
    top = plate - gap / 2
    bottom = plate + gap / 2
    first = [(0.7 * cap, corner), (cap, 0.5 * (corner + top)), (0.85 * cap, top), (0.0, top + 0.2)]
    second = [(0.0, bottom + 0.3), (0.86 * end, bottom), (0.93 * end, bottom + 0.16 * end), *beyond, tip]
    return [_mirrored([(0.0, 0.0), *first]), _mirrored(second)]


def _mirrored(right: list[tuple[float, float]]) -> np.ndarray:
    """A smooth closed outline from its right half, which begins and ends on the axis."""
    half = np.array(right)
    return spline(np.concatenate([half, half[-2:0:-1] * (-1.0, 1.0)]), closed=True, samples=SAMPLES)


def _direction(angle: float) -> np.ndarray:
    return np.array([np.sin(np.deg2rad(angle)), -np.cos(np.deg2rad(angle))])


def _placed(start: np.ndarray, angle: float) -> Callable[[np.ndarray], np.ndarray]:
    """From a bone's own frame (side to the thumb, along from the base) to the hand's."""
    along = _direction(angle)
    axes = np.stack([np.array([-along[1], along[0]]), along])
    return lambda points: points @ axes + start


def _add_carpus(hand: FlatHand, maturity: float, rng: np.random.Generator) -> None:
    grown = 0.72 + 0.36 * min(1.0, maturity / 0.8)
    for name, outline in {**CARPALS, "pisiform": PISIFORM}.items():
        points = np.array(outline, dtype=float)
        center = points.mean(axis=0)
        spread = grown * rng.normal(1, 0.025, 2)
        curve = spline((points - center) * spread, closed=True, samples=SAMPLES)
        curve = curve @ _rotation(rng.normal(0, 0.05)) + center + rng.normal(0, 0.35, 2)
        if name != "pisiform":
            hand.landmarks[f"{name}_proximal"] = _extreme(curve, 1.0)
            hand.blocks.append(curve)
        elif maturity > 0.5:
            hand.faint.append((curve, 0.4))


def _add_forearm(hand: FlatHand, name: str, maturity: float, rng: np.random.Generator) -> None:
    outline = {part: np.array(points, dtype=float) for part, points in FOREARM[name].items()}
    age = maturity / 0.92
    shift, turn = rng.normal(0, 0.6, 2), _rotation(rng.normal(0, 0.02))
    widen = rng.normal(1, 0.03)
    middle = outline["shaft"][:4].mean(axis=0)
    # The cap of a child is narrower than its shaft.
    cap_width = min(0.82 + 0.2 * age, 1.0)

    def place(points: np.ndarray, width: float = 1.0) -> np.ndarray:
        return ((points - middle) * (widen * width, 1.0)) @ turn + middle + shift

    corners = place(outline["shaft"][[0, 3]])
    hand.landmarks.update(zip(CORNERS[name], corners, strict=True))
    cap = place(spline(outline["cap"], closed=True, samples=SAMPLES), cap_width)
    hand.landmarks[TIPS[name]] = _tip_of(cap, name)
    hand.tubes.append(place(spline(outline["shaft"], closed=True, samples=SAMPLES)))
    hand.blocks.append(cap)
    walls = outline["shaft"][5:8], outline["shaft"][:-4:-1]
    for wall, side in zip(walls, (-1.0, 1.0), strict=True):
        hand.shafts.append((place(wall + np.array([side, 0.0])), 2.0))
    ends = place(outline["cap"][[-2, 0]], cap_width)
    hand.faint.append((np.concatenate([corners, ends]), float(np.clip(4 * (age - 0.75), 0, 1))))


def _tip_of(cap: np.ndarray, name: str) -> np.ndarray:
    """The styloid: the cap's point nearest to the fingers on its outer side."""
    middle = cap[:, 0].mean()
    outer = cap[cap[:, 0] > middle] if name == "radius" else cap[cap[:, 0] < middle]
    return _extreme(outer, -1.0)


def _extreme(curve: np.ndarray, sign: float) -> np.ndarray:
    return curve[np.argmax(sign * curve[:, 1])]


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _add_palm(hand: FlatHand, joints: dict[str, np.ndarray]) -> None:
    """Flesh of palm, webs, wrist and forearm."""
    row = [joints[name] for name in ("index", "middle", "ring", "little")]
    for one, other in pairwise(row):
        webs = [chain[1] + 0.42 * (chain[2] - chain[1]) for chain in (one, other)]
        hand.flesh.append(np.stack([one[0], webs[0], webs[1], other[0]]))
    thumb, index = joints["thumb"], joints["index"]
    web = [thumb[0] + 0.8 * (thumb[1] - thumb[0]), index[0] + 0.62 * (index[1] - index[0])]
    hand.flesh.append(np.stack([thumb[0], *web, index[0]]))
    little = joints["little"]
    sides = [(34.0, 12.0), (26.0, 30.0), (24.5, 46.0), (28.0, 70.0), (30.0, 112.0)]
    left = [(-37.0, 112.0), (-35.0, 70.0), (-33.0, 46.0), (-32.0, 28.0), (-29.0, 8.0)]
    edge = little[0] + 0.6 * (little[1] - little[0]) + (-10.0, 0.0)
    palm = np.array([thumb[0], *sides, *left, edge, index[0]])
    hand.flesh.append(spline(palm, closed=True, samples=4))


def _capsule(start: np.ndarray, end: np.ndarray, radius: float, end_radius: float) -> np.ndarray:
    """A rod with round ends."""
    axis = (end - start) / np.linalg.norm(end - start)
    ring = ellipse(np.zeros(2), (1.0, 1.0), 40)
    near, far = ring[ring @ axis <= 0], ring[ring @ axis > 0]
    outline = np.concatenate([start + radius * near, end + end_radius * far])
    center = (start + end) / 2
    order = np.argsort(np.arctan2(*(outline - center).T))
    return outline[order]
