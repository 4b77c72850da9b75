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
"""The shape of a human spine: where each vertebra lies, how it is turned and how large it is.

Patient space is millimetres, x to the right, y to the front, z up. Each vertebra has a frame of its own with the
same directions and its origin at the centre of its body.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from monai.utils import look_up_option

from .volume_drawing import local_frame, rotation_matrix

__all__ = ["ANATOMIES", "SPINE_LANDMARKS", "Spine", "build_spine"]

# Width (left-right), depth (front-back) and height share of the body, distance to the next body, forward tilt of its
# axis. Distances are the mean ones of the CSI 2014 training scans; sizes and tilts are those of anatomy books.
_LEVELS: dict[str, tuple[float, float, float, float, float]] = {
    "C1": (16.0, 13.0, 0.55, 19.3, 0.0),
    "C2": (17.0, 15.0, 0.72, 18.0, 2.0),
    "C3": (18.0, 15.5, 0.72, 17.8, 4.0),
    "C4": (18.5, 15.5, 0.71, 17.0, 7.0),
    "C5": (19.5, 16.0, 0.70, 16.9, 11.0),
    "C6": (21.0, 16.5, 0.70, 17.3, 16.0),
    "C7": (24.0, 17.0, 0.73, 19.5, 21.0),
    "T1": (27.0, 17.5, 0.78, 20.8, 25.0),
    "T2": (27.0, 18.5, 0.81, 21.1, 25.0),
    "T3": (26.5, 20.0, 0.82, 21.2, 22.0),
    "T4": (26.5, 22.0, 0.82, 21.6, 18.0),
    "T5": (27.5, 24.0, 0.82, 21.6, 13.0),
    "T6": (28.5, 26.0, 0.82, 22.4, 8.0),
    "T7": (29.5, 27.5, 0.82, 23.2, 4.0),
    "T8": (31.0, 28.5, 0.82, 24.5, 0.0),
    "T9": (32.5, 29.5, 0.82, 26.1, -3.0),
    "T10": (34.5, 30.0, 0.82, 27.5, -7.0),
    "T11": (37.5, 30.5, 0.81, 29.6, -10.0),
    "T12": (40.0, 31.0, 0.80, 32.1, -13.0),
    "T13": (40.5, 31.5, 0.79, 33.0, -14.0),
    "L1": (42.0, 32.0, 0.78, 33.9, -14.0),
    "L2": (43.5, 33.0, 0.77, 35.2, -12.0),
    "L3": (45.5, 33.5, 0.76, 35.4, -7.0),
    "L4": (47.5, 34.0, 0.75, 35.5, 2.0),
    "L5": (50.0, 34.5, 0.74, 36.1, 16.0),
    "L6": (50.5, 34.5, 0.74, 36.1, 26.0),
    "S1": (50.0, 31.0, 0.80, 29.7, 38.0),
    "S2": (36.0, 22.0, 0.84, 24.0, 46.0),
    "S3": (28.0, 17.0, 0.86, 21.0, 40.0),
    "S4": (23.0, 13.0, 0.86, 18.0, 22.0),
    "S5": (18.0, 10.0, 0.86, 18.0, 0.0),
}
_EXTRA = ("T13", "L6")
_BELOW = ("S3", "S4", "S5")

SPINE_LANDMARKS = tuple(name for name in _LEVELS if name not in (*_EXTRA, *_BELOW))
"""C1 to S2, the 26 landmarks of CSI 2014."""

ANATOMIES = ("normal", "T13", "L6", "no_T12", "no_L5")
"""Numbers of vertebrae that people have: the usual one, one more, one less."""

_SPREAD = (0.35, 0.25, 0.2, 0.15)


@dataclass(frozen=True)
class Spine:
    """A spine in patient space.

    Args:
        names: of its vertebrae from the top, S3 to S5 included.
        frames: ``(M, 4, 4)`` from each vertebra's own mm to patient mm; the origin is the centre of the body.
        sizes: ``(M, 3)`` width, depth and height of the bodies.
        loss: ``(M,)`` part of the front height lost by compression, 0 for whole bodies.
        scale: size of the person, 1 for the mean.
    """

    names: tuple[str, ...]
    frames: np.ndarray
    sizes: np.ndarray
    loss: np.ndarray
    scale: float

    @property
    def centres(self) -> np.ndarray:
        """Body centres ``(M, 3)``."""
        return self.frames[:, :3, 3]

    @property
    def landmarks(self) -> np.ndarray:
        """Body centres of C1 to S2 ``(26, 3)``, NaN for one that this person does not have."""
        absent = np.full(3, np.nan)
        return np.stack([self.centres[self.names.index(n)] if n in self.names else absent for n in SPINE_LANDMARKS])

    def frame(self, name: str) -> np.ndarray:
        """The frame of one vertebra."""
        return self.frames[self.names.index(name)]


def build_spine(
    rng: np.random.Generator,
    anatomy: str = "normal",
    variation: float = 1.0,
    fracture: bool = True,
    size: float = 1.0,
) -> Spine:
    """Draw a random spine.

    Args:
        rng: random generator; it is used equally often whatever the other arguments are.
        anatomy: one of ``ANATOMIES``. ``"T13"`` and ``"L6"`` have a vertebra more, ``"no_T12"`` and ``"no_L5"`` one less.
        variation: strength of all differences between people, 0 for the mean spine.
        fracture: let some spines have one compressed body.
        size: mean size of the people, 1 for those of CSI 2014.

    Returns:
        The spine, the mean of C1 to S2 at the origin.
    """
    look_up_option(anatomy, ANATOMIES)
    left_out = {*_EXTRA, anatomy.removeprefix("no_")} - ({anatomy} if anatomy in _EXTRA else set())
    names = tuple(name for name in _LEVELS if name not in left_out)
    keep = np.array([name in names for name in _LEVELS])
    table = np.array(list(_LEVELS.values()))
    scale = size * float(np.clip(1 + variation * rng.normal(0, 0.07), 0.82, 1.18))
    distances = (
        table[:, 3]
        * scale
        * (1 + variation * _by_region(rng.normal(0, 0.03, 4)) + variation * rng.normal(0, 0.02, len(table)))
    )
    sizes = table[:, :2] * scale * (1 + variation * (rng.normal(0, 0.05) + rng.normal(0, 0.015, (len(table), 2))))
    loss = np.zeros(len(table))
    broken, depth = int(rng.choice(range(10, 24))), rng.uniform(0.2, 0.5)
    if rng.random() < 0.15 and fracture and variation and keep[broken]:
        loss[broken] = depth
    distances *= 1 - 0.35 * loss
    distances[:-1] *= 1 - 0.35 * loss[1:]
    tilt = _sagittal(table[:, 4], variation * rng.normal(0, 1, 4))[keep]
    distances, sizes, loss = distances[keep], sizes[keep], loss[keep]
    lateral, axial = _scoliosis(np.cumsum(distances), names, variation * rng.normal(0, 1), rng)
    rotations = np.stack([rotation_matrix(angles) for angles in zip(-tilt, lateral, axial, strict=True)])
    up = rotations[:, :, 2]
    middle = up[:-1] + up[1:]
    steps = -middle / np.linalg.norm(middle, axis=1, keepdims=True) * distances[:-1, None]
    centres = np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)])
    centres -= centres[: -len(_BELOW)].mean(axis=0)
    around = np.convolve(np.r_[distances[0], distances], [0.5, 0.5], "valid")
    heights = around * table[keep, 2]
    frames = np.stack([local_frame(origin, turn) for origin, turn in zip(centres, rotations, strict=True)])
    return Spine(names, frames, np.c_[sizes, heights], loss, scale)


def _by_region(values: np.ndarray) -> np.ndarray:
    """One value per level from one per region: neck, chest, loins, sacrum."""
    region = dict(zip("CTLS", values, strict=True))
    return np.array([region[name[0]] for name in _LEVELS])


def _sagittal(tilt: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """More or less curvature per region, and the whole upright again."""
    bend = 1 + _by_region(np.array(_SPREAD) * strength)
    turned = tilt[0] + np.r_[0, np.cumsum(np.diff(tilt) * bend[1:])]
    upright = slice(0, list(_LEVELS).index("S1"))
    return turned - turned[upright].mean() + tilt[upright].mean()


def _scoliosis(
    along: np.ndarray, names: tuple[str, ...], strength: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Sideways tilt and turn of each vertebra, in degrees: a wave that ends at the sacrum."""
    wave, start, severe = rng.uniform(260, 480), rng.uniform(0, 2 * np.pi), rng.random() < 0.2
    phase = 2 * np.pi * along / wave + start
    weight = np.array([{"C": 0.5, "T": 1.0, "L": 1.0, "S": 0.15}[name[0]] for name in names])
    degrees = strength * (8.0 if severe else 2.0) * weight
    return degrees * np.sin(phase), -0.5 * degrees * np.cos(phase)
