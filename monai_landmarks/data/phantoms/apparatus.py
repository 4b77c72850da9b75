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
"""What a cephalogram shows besides the head: ear rods, nose rest with ruler, shoulder, frame, film number, grain."""

from __future__ import annotations

import numpy as np

from .drawing import Film, ellipse, stroke_outline, text_bitmap
from .head import FILM_MM

__all__ = ["draw_apparatus", "expose", "stamp_frame"]


def draw_apparatus(film: Film, ear: np.ndarray, soft_nasion: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the cephalostat's ear rods and nose rest, the shoulder's shadow and the uneven beam.

    Args:
        film: an empty film.
        ear: centre of the ear canal on the film, mm.
        soft_nasion: where the nose rest touches, mm.
        rng: source of offsets and strengths.

    Returns:
        Attenuation, float32 ``(height, width)``.
    """
    _draw_ear_rods(film, ear + rng.uniform((-2.5, 1.0), (2.5, 6.0)), rng)
    if rng.uniform() < 0.85:
        _draw_nose_rest(film, soft_nasion + rng.uniform((1.0, 4.0), (7.0, 16.0)), rng)
    if rng.uniform() < 0.6:
        level = rng.uniform(0, 10)
        shoulder = np.array([(-5, 216), (12, 217.5), (26, 223), (40, 231), (52, 250), (-5, 250)])
        film.fill(shoulder + np.array([0, level]), 2.5)
    return film.attenuation(soft_mm=0.8) + film.enlarge(_beam(film, rng))


def _beam(film: Film, rng: np.random.Generator) -> np.ndarray:
    """Uneven beam on the coarse layer: a wedge filter at the right, faint vertical bands, slow waves."""
    height, width = film.coarse_shape
    x = np.arange(width) / (width - 1)
    beam = rng.uniform(0.1, 0.8) * np.clip((x - 0.8) / 0.2, 0, 1) ** 1.5 + 0.03
    for _ in range(2):
        beam += rng.uniform(-0.05, 0.05) * np.clip((x - rng.uniform(0.2, 0.5)) * width, 0, 1)
    waves = film.blur_coarse(rng.standard_normal((height, width)).astype(np.float32), 35.0)
    return beam.astype(np.float32) + waves * np.float32(0.025 / max(float(waves.std()), 1e-6))


def _draw_ear_rods(film: Film, center: np.ndarray, rng: np.random.Generator) -> None:
    """Two rings near the porion: the metal ends of the left and right ear rod."""
    for radius in (rng.uniform(7.5, 9.0), rng.uniform(5.5, 6.8)):
        ring = ellipse(center + rng.normal(0, 1.0, 2), (radius, radius * rng.uniform(0.94, 1.06)), 60)
        film.fill(stroke_outline(ring, 0.8, closed=True), rng.uniform(0.2, 0.4))
        film.fill(ring, 0.04)


def _draw_nose_rest(film: Film, tip: np.ndarray, rng: np.random.Generator) -> None:
    """A vertical rod with a scale, hanging from the film's top, and the pad in front of the nasion."""
    x, y = tip + np.array([18.0, 0.0])
    lean = rng.uniform(-0.01, 0.03)

    def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        return corners + np.stack([x + lean * (corners[:, 1] - y), 0 * corners[:, 1]], axis=-1)

    sleeve = box(-6.5, 2, 6, y - 62)
    film.fill(sleeve, 0.05)
    film.fill(stroke_outline(sleeve, 1.4, closed=True, inside=True), 0.16)
    film.fill(box(-1.8, 3, 1.8, y - 22), 0.45)
    film.fill(box(-1.5, y - 22, 1.5, y), 1.6)
    for tick in range(10):
        film.fill(box(0.2, y - 21 + 2 * tick, 1.6, y - 20 + 2 * tick), -1.3)
    film.fill(box(-5, y - 15, 5, y + 10), 0.09)
    film.fill(box(-18, y, -5, y + 9), 0.09)
    film.fill(ellipse(tip + np.array([0.5, 5.5]), (3.5, 6.0)), 0.05)


def expose(attenuation: np.ndarray, pixel_mm: float, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Turn attenuation into grey values: exposure, scatter fog and quantum noise.

    Args:
        attenuation: float32 ``(height, width)``.
        pixel_mm: pixel size; larger pixels collect more quanta and are less noisy.
        noise: strength, 1 is usual and 0 leaves a clean film.
        rng: source of exposure and noise.

    Returns:
        Grey values, float32 ``(height, width)``, about 0 to 255.
    """
    exposure, contrast, fog = rng.uniform(1.2, 1.9), rng.uniform(0.85, 1.05), rng.uniform(6, 30)
    light = -np.expm1(np.float32(-exposure) * attenuation)
    if abs(contrast - 1) > 1e-3:
        light = np.maximum(light, 0) ** np.float32(contrast)
    grey = np.float32(fog) + np.float32(246 - fog) * light
    if noise > 0:
        grain = rng.standard_normal(grey.shape, dtype=np.float32)
        grey += grain * (np.float32(noise * min(1.0, 0.2 / pixel_mm)) * (2 + grey * np.float32(0.014)))
    return grey


def stamp_frame(grey: np.ndarray, pixel_mm: float, rng: np.random.Generator) -> None:
    """Stamp the holder's white border with its notches, and the film number, over the grey values in place."""

    def part(left: float, top: float, right: float, bottom: float) -> tuple[slice, slice]:
        edges = [max(0, round(edge / pixel_mm)) for edge in (top, bottom, left, right)]
        return slice(edges[0], edges[1]), slice(edges[2], edges[3])

    width, height = FILM_MM
    white = rng.uniform(240, 252)
    grey[part(0, 0, width, rng.uniform(2, 4))] = white
    grey[part(0, 0, rng.uniform(0.2, 1.6), height)] = white
    start = rng.uniform(44, 50)
    for notch in range(3):
        left = start + 46 * notch + rng.uniform(-1, 1)
        grey[part(left, 0, left + 12.5, rng.uniform(8.5, 10.5))] = white
        grey[part(left + 1, height - rng.uniform(4, 5), left + 13.5, height)] = white
    bitmap = text_bitmap("SN" + "".join(str(digit) for digit in rng.integers(0, 10, 6)))
    scale = max(1, round(0.5 / pixel_mm))
    text = np.kron(bitmap, np.ones((scale, scale), dtype=np.float32))
    rows, columns = (int(3.0 / pixel_mm * share) for share in (0.2, 1.0))
    patch = grey[rows : rows + text.shape[0], columns : columns + text.shape[1]]
    patch[...] = np.where(text[: patch.shape[0], : patch.shape[1]] > 0, 4.0, 250.0)
