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
"""A left hand in its own frame: joints, bones and flesh, from a few random measures of growth and posture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .volume_drawing import local_frame

__all__ = ["Bone", "Carpal", "Hand", "Rod", "build_hand"]

FINGERS: dict[str, tuple[tuple[float, float, float], float, tuple[float, ...]]] = {
    "thumb": ((22.0, -3.0, -9.0), 42.0, (45.0, 31.0, 22.0)),
    "index": ((10.0, 1.0, 0.0), 7.0, (66.0, 39.0, 23.0, 17.0)),
    "middle": ((1.5, 2.0, 0.5), 1.0, (64.0, 43.0, 28.0, 18.0)),
    "ring": ((-6.5, 0.0, 0.0), -5.0, (57.0, 40.0, 26.0, 18.0)),
    "little": ((-13.5, -3.0, -1.5), -12.0, (52.0, 32.0, 18.0, 16.0)),
}
"""Centre of the carpometacarpal joint (mm: radial, distal, dorsal), direction of the metacarpal (degrees to radial) and
lengths from joint to joint (mm) of a grown hand."""

RODS: dict[str, tuple[float, tuple[float, float], tuple[float, float]]] = {
    "metacarpal": (4.2, (7.0, 6.0), (6.8, 7.0)),
    "proximal": (4.0, (7.2, 5.6), (5.6, 4.2)),
    "middle": (3.5, (6.2, 4.7), (5.0, 3.6)),
    "distal": (2.6, (5.4, 3.9), (3.8, 2.3)),
}
"""Radius of the shaft; half width and half thickness of the base and of the head (mm)."""

CARPALS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "trapezium": ((17.5, -8.5, -6.5), (5.8, 5.6, 5.4)),
    "trapezoid": ((10.0, -6.5, 0.5), (4.4, 5.6, 5.6)),
    "capitate": ((1.0, -8.5, 0.5), (5.0, 8.6, 6.4)),
    "hamate": ((-9.8, -8.5, -0.5), (5.6, 6.0, 6.0)),
    "scaphoid": ((12.0, -19.0, -2.5), (6.0, 6.6, 5.2)),
    "lunate": ((0.5, -23.0, -0.5), (5.6, 5.2, 6.2)),
    "triquetrum": ((-11.5, -18.5, 0.0), (5.0, 4.4, 5.6)),
    "pisiform": ((-14.5, -16.5, -8.5), (3.8, 4.2, 3.4)),
}
"""Centre and half axes (mm: radial, distal, dorsal)."""

FOREARM: dict[str, tuple[tuple[float, float, float], float, tuple[float, float]]] = {
    "radius": ((8.0, -30.5, 0.0), 6.0, (13.0, 9.5)),
    "ulna": ((-13.5, -28.5, 1.0), 5.0, (7.5, 7.5)),
}
"""Centre of the distal end, radius of the shaft, half width and half thickness of the distal end (mm)."""

FLESH: tuple[tuple[tuple[float, float, float], tuple[float, float, float], float], ...] = (
    ((10.0, 0.0, -3.0), (9.0, -34.0, -1.0), 14.0),
    ((-8.0, 0.0, -3.0), (-10.0, -34.0, 0.0), 14.0),
    ((8.0, 0.0, -8.0), (42.0, 24.0, -16.0), 9.5),
)
"""Two rods that cover the wrist and one for the ball of the thumb: ends and radius (mm)."""

JOINT_GAP_MM = 2.2
FOREARM_MM = 110.0


@dataclass(frozen=True)
class Rod:
    """A rounded rod of flesh or tendon."""

    start: np.ndarray
    end: np.ndarray
    radius: float
    end_radius: float


@dataclass(frozen=True)
class Carpal:
    """An ellipsoidal bone: its frame (4x4, own to hand mm) and half axes."""

    frame: np.ndarray
    radii: np.ndarray


@dataclass(frozen=True)
class Bone:
    """A shaft with an ellipsoidal knob at each end, along y of its own frame, from 0 to ``length``.

    Args:
        frame: 4x4, own (side, along, dorsal) to hand mm.
        length: between the outermost points of the knobs.
        shaft: radius.
        knobs: half axes (side, along, dorsal) at the start and at the end.
        plate: where along the bone its growth plate lies.
        plate_mm: the plate's thickness, 0 where it is closed.
    """

    frame: np.ndarray
    length: float
    shaft: float
    knobs: tuple[np.ndarray, np.ndarray]
    plate: float
    plate_mm: float


@dataclass(frozen=True)
class Hand:
    """A hand in its own frame, mm: x radial, y distal, z dorsal; the origin is between carpus and metacarpus.

    Args:
        landmarks: by name.
        bones: long bones.
        carpals: the eight small bones of the wrist.
        flesh: rods whose smooth union is bounded by the skin.
        tendons: dark rods beside the bones.
        size: of bones relative to a grown hand's.
    """

    landmarks: dict[str, np.ndarray]
    bones: list[Bone]
    carpals: list[Carpal]
    flesh: list[Rod]
    tendons: list[Rod]
    size: float


def build_hand(rng: np.random.Generator, flexion: float = 1.0, spread: float = 1.0) -> Hand:
    """Grow and pose a hand.

    Maturity, drawn evenly between a child's of about 12 years and an adult's, sets size and growth plates together.

    Args:
        rng: source of all variation.
        flexion: strength of the random bending of fingers.
        spread: strength of their random abduction.

    Returns:
        The hand in its own frame.
    """
    maturity = rng.uniform()
    size = (0.8 + 0.2 * maturity) * rng.normal(1, 0.03)
    # Slender and plump hands of the same length.
    girth = size * rng.normal(1, 0.05)
    bent, fanned, turned = rng.uniform(0, flexion), rng.uniform(-0.5, 1) * spread, rng.normal(0, 3)
    hand = Hand({}, [], [], [], [], size)
    for place, name in enumerate(FINGERS):
        angle = {"thumb": 6, "index": 5, "middle": 0, "ring": -5, "little": -10}[name] * fanned + rng.normal(0, 1.5)
        _add_finger(hand, name, place, girth, maturity, bent, angle, turned, rng)
    _add_carpus(hand, rng)
    for name in FOREARM:
        _add_forearm(hand, name, girth, maturity, rng)
    for start, end, radius in FLESH:
        hand.flesh.append(Rod(size * np.array(start), size * np.array(end), radius * girth, radius * girth))
    return hand


def _add_finger(
    hand: Hand,
    name: str,
    place: int,
    girth: float,
    maturity: float,
    bent: float,
    fan: float,
    turned: float,
    rng: np.random.Generator,
) -> None:
    base, angle, lengths = FINGERS[name]
    thumb = name == "thumb"
    lengths = tuple(hand.size * length * rng.normal(1, 0.03) for length in lengths)
    thick = girth * {"thumb": 1.12, "little": 0.86}.get(name, 1.0) * rng.normal(1, 0.03)
    joint = hand.size * (np.array(base) + rng.normal(0, 0.5, 3))
    frame = _turn(np.eye(3), 2, -angle - 2 * turned * thumb - 0.3 * fan - rng.normal(0, 0.8))
    if thumb:
        # The thumb stands before the palm and shows it its side.
        frame = _turn(_turn(frame, 0, -18 + turned), 1, 55)
    segments = ("metacarpal", "proximal", "distal") if thumb else tuple(RODS)
    joints = ("CMC", "MCP", "IP") if thumb else ("CMC", "MCP", "PIP", "DIP")
    flexions = (0, 18 * bent, 15 * bent) if thumb else (0, 16 * bent, 22 * bent, 12 * bent)
    for number, (segment, joint_name, length) in enumerate(zip(segments, joints, lengths, strict=True)):
        if number:
            frame = _turn(frame, 0, -flexions[number] - rng.normal(0, 3) * (bent > 0))
        if number == 1:
            frame = _turn(frame, 2, -fan)
        hand.landmarks[f"{name}_{joint_name}"] = joint
        after = joint + length * frame[1]
        _add_segment(hand, name, segment, (joint, after), frame, thick, _plate_mm(maturity, place, number))
        joint = after
    hand.landmarks[f"{name}_tip"] = joint


def _add_segment(
    hand: Hand,
    name: str,
    segment: str,
    joints: tuple[np.ndarray, np.ndarray],
    frame: np.ndarray,
    thick: float,
    plate_mm: float,
) -> None:
    """One bone between two joint centres, with the flesh around it and the tendons along it."""
    joint, after = joints
    palm, last = segment == "metacarpal", segment == "distal"
    gap = JOINT_GAP_MM / 2 * hand.size * frame[1]
    start, end = joint + gap, after if last else after - gap
    shaft, base, head = RODS[segment]
    knobs = (_knob(base, thick, 0.6), _knob(head, thick))
    length = float(np.linalg.norm(end - start))
    # Metacarpals grow at their heads, all other bones of the fingers and the thumb's metacarpal at their bases.
    plate = length - 1.7 * knobs[1][1] if palm and name != "thumb" else 1.5 * knobs[0][1]
    hand.bones.append(Bone(_frame(start, frame), length, shaft * thick, knobs, plate, plate_mm))
    fingertip = hand.size * 3.5 * frame[1] if last else 0
    radii = {"metacarpal": (12.5, 11.5), "proximal": (9.6, 8.4), "middle": (8.2, 7.5), "distal": (7.3, 5.5)}[segment]
    sink = -3.0 * thick * frame[2] if palm else 0.0
    hand.flesh.append(Rod(joint + sink, after + fingertip + sink / 2, radii[0] * thick, radii[1] * thick))
    below, above = (-8.5, 7.5) if palm else (-6.3, 5.2)
    if not last:
        for height, radius in ((below, 1.9), (above, 1.1)):
            offset = height * thick * frame[2]
            hand.tendons.append(Rod(joint + offset, after + 0.85 * offset, radius * thick, radius * thick))


def _add_carpus(hand: Hand, rng: np.random.Generator) -> None:
    for name, (centre, radii) in CARPALS.items():
        where = hand.size * (np.array(centre) + rng.normal(0, 0.4, 3))
        frame = _turn(_turn(np.eye(3), 2, rng.normal(0, 8)), 0, rng.normal(0, 8))
        hand.carpals.append(Carpal(_frame(where, frame), hand.size * np.array(radii) * rng.normal(1, 0.03, 3)))
        if name in ("capitate", "lunate"):
            hand.landmarks[f"{name}_centre"] = where


def _add_forearm(hand: Hand, name: str, girth: float, maturity: float, rng: np.random.Generator) -> None:
    end, shaft, head = FOREARM[name]
    tip = hand.size * (np.array(end) + rng.normal(0, 0.6, 3))
    frame = _turn(np.eye(3), 2, rng.normal(0, 2))
    length = FOREARM_MM * hand.size
    far = tip - length * frame[1]
    knobs = (np.full(3, shaft * girth), _knob(head, girth))
    plate = length - 1.35 * knobs[1][1]
    hand.bones.append(Bone(_frame(far, frame), length, shaft * girth, knobs, plate, _plate_mm(maturity, 5, 0)))
    middle = tip * np.array([1.0, 1.0, 0.0]) - 8.0 * hand.size * frame[1]
    hand.flesh.append(Rod(middle, far, 16.0 * girth, 19.0 * girth))
    hand.landmarks[f"{name}_distal_end"] = tip


def _plate_mm(maturity: float, place: int, number: int) -> float:
    """Growth plates close from the finger tips to the forearm; an open one thins before it closes."""
    closing = 0.55 + 0.05 * (3 - number) + (0.2 if place == 5 else 0.0)
    return 0.0 if maturity > closing else 1.0 + 1.2 * (closing - maturity)


def _knob(half: tuple[float, float], thick: float, length: float = 0.85) -> np.ndarray:
    """Half axes of a knob from its half width and half thickness."""
    return thick * np.array([half[0], length * min(half), half[1]])


def _frame(origin: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return local_frame(origin, rows.T)


def _turn(frame: np.ndarray, axis: int, degrees: float) -> np.ndarray:
    """Turn a frame, rows (side, along, dorsal), about its own ``axis``, counter-clockwise seen from that axis' tip."""
    a, b = (axis + 1) % 3, (axis + 2) % 3
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turned = frame.copy()
    turned[a], turned[b] = cos * frame[a] + sin * frame[b], cos * frame[b] - sin * frame[a]
    return turned
