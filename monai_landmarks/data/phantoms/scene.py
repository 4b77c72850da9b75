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
"""Draws a phantom head's attenuation: soft tissue, skull, face, teeth, spine, and the structures that mislead."""

from __future__ import annotations

import numpy as np

from monai_landmarks.data.datasets.isbi2015 import ISBI2015_LANDMARKS

from .drawing import Film, ellipse, spline, stroke_outline
from .head import Head, Pose
from .head_template import CLOSED, LAYERS, TEETH, VERTEBRAE, WISPS, tooth_outline, vertebra_outline

__all__ = ["draw_head"]

INCISORS = (
    ("lower_incisal_incision", (132.0, 192.0), 5.4),
    ("upper_incisal_incision", (131.6, 149.5), 6.8),
)
"""Landmark at the tip, apex in template mm, depth of the crown in mm."""

SKIN_BLUR_MM = 8.0


def draw_head(film: Film, head: Head, pose: Pose, rng: np.random.Generator, occlusion: bool) -> np.ndarray:
    """Draw the head and return the attenuation along the rays through every pixel.

    Args:
        film: an empty film.
        head: the bent head.
        pose: from head to film.
        rng: source of everything that is not shape: densities, fillings, air cells, doubled contours.
        occlusion: draw metal, now and then: fillings, crowns, orthodontic brackets.

    Returns:
        Attenuation, float32 ``(height, width)``.
    """
    skin = _draw_skin(film, pose(head.curves["skin"]), rng)
    _draw_braincase(film, head, pose, rng)
    _draw_air_cells(film, head, pose, rng)
    _draw_wisps(film, head, pose, rng)
    far_side = rng.uniform((0.5, -5.0), (4.0, -1.5))
    for how, name, value, width in LAYERS:
        curve = head.curves[name]
        if name.endswith("_far"):
            # The side away from the film is magnified and thrown up and forward: a second, fainter contour.
            curve = curve + (far_side if name == "mandible_far" else rng.normal(0, 1.0, 2))
        density = value * rng.lognormal(0, 0.12)
        _draw(film, how, pose(curve), density, width * pose.scale, name in CLOSED)
    _draw_teeth(film, head, pose, rng, occlusion)
    _draw_spine(film, head, pose, rng)
    return np.maximum(skin + film.attenuation() * _texture(film, rng), 0)


def _draw(film: Film, how: str, curve: np.ndarray, value: float, width: float, closed: bool) -> None:
    if how == "shade":
        film.shade(curve, value)
    elif how == "haze":
        film.cloud(curve, value)
    elif how == "fill":
        film.fill(curve, value)
    elif how == "rim":
        film.fill(stroke_outline(curve, width, closed=True, inside=True), value)
    else:
        film.fill(stroke_outline(curve, width, closed=closed, taper=not closed, inside=how == "edge"), value)


def _draw_skin(film: Film, outline: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Soft tissue: thin at the skin, thicker inwards, sharp at the skin itself."""
    blurred = film.blur_coarse(film.coverage(outline, coarse=True), SKIN_BLUR_MM)
    thickness = np.sqrt(np.clip(2 * blurred - 1, 0, 1))
    edge, body = rng.uniform(0.09, 0.14), rng.uniform(0.10, 0.18)
    return film.coverage(outline) * (edge + body * film.enlarge(thickness))


def _draw_braincase(film: Film, head: Head, pose: Pose, rng: np.random.Generator) -> None:
    """Brain and both side walls of the skull, the cut vault around them, and a few soft marks inside."""
    film.fill(pose(head.curves["skull"]), 0.20 * rng.lognormal(0, 0.1))
    film.shade(pose(head.curves["skull"]), 0.10)
    film.cloud(pose(head.curves["skull"]), 0.32)
    film.fill(pose(head.curves["vault"]), 0.07 * rng.lognormal(0, 0.2))
    film.shade(pose(head.curves["vault"]), 0.10)
    for name, width, value in (("vault_outer", 1.6, 0.10), ("vault_outer", 3.5, 0.06), ("vault_inner", 2.4, 0.07)):
        film.fill(stroke_outline(pose(head.curves[name]), width, taper=True), value)
    for _ in range(6):
        center = rng.uniform((5, 35), (115, 85))
        spot = ellipse(center, tuple(rng.uniform(10, 28, 2)))
        film.cloud(pose(head.bend(spot)), rng.uniform(-0.09, 0.09))
    suture = spline(np.cumsum(np.vstack([rng.uniform((60, 25), (95, 45)), rng.normal((4, 9), 2.5, (6, 2))]), axis=0))
    film.fill(stroke_outline(pose(head.bend(suture)), 1.2, taper=True), -0.07)


def _draw_air_cells(film: Film, head: Head, pose: Pose, rng: np.random.Generator) -> None:
    """Mastoid and ethmoid cells: small dark bubbles with bright walls."""
    regions = (((36, 114), (54, 134), 26, 1.7), ((103, 101), (128, 117), 16, 3.0))
    for low, high, count, radius in regions:
        centers = rng.uniform(low, high, (count, 2))
        radii = radius * rng.uniform(0.5, 1.2, (count, 2))
        cells = [ellipse(center, tuple(radius), samples=14) for center, radius in zip(centers, radii, strict=True)]
        for cell in np.split(pose(head.bend(np.concatenate(cells))), count):
            film.fill(cell, -0.07)
            film.fill(stroke_outline(cell, 0.6, closed=True), 0.07)


def _draw_wisps(film: Film, head: Head, pose: Pose, rng: np.random.Generator) -> None:
    for left, top, right, bottom, count, length, width, value in WISPS:
        start = rng.uniform((left, top), (right, bottom), (count, 2))
        angle = rng.uniform(0, 2 * np.pi, (count, 1)) + np.cumsum(rng.normal(0, 0.5, (count, 5)), axis=1)
        step = length * rng.uniform(0.5, 1.2, (count, 1, 1)) / 5
        lines = np.cumsum(np.stack([np.cos(angle), np.sin(angle)], axis=-1) * step, axis=1) + start[:, None]
        strengths = rng.uniform(0.4, 1.3, count) * value
        for line, strength in zip(pose(head.bend(lines.reshape(-1, 2))).reshape(lines.shape), strengths, strict=True):
            film.fill(stroke_outline(spline(line, samples=4), width, taper=True), strength)


def _draw_teeth(film: Film, head: Head, pose: Pose, rng: np.random.Generator, occlusion: bool) -> None:
    metal = rng.uniform() < 0.5 and occlusion
    braces = rng.uniform() < 0.25 and occlusion
    brackets = []
    for side, tip, apex, width in TEETH:
        ends = pose(head.bend(np.array([tip, apex])))
        _draw_tooth(film, ends[0], ends[1], width * pose.scale, 0.45 if side == "far" else 1.0, incisor=False)
        filled = rng.uniform() < 0.35
        center = ends[0] + (ends[1] - ends[0]) * rng.uniform(0.04, 0.16)
        if metal and filled and width > 8:
            film.fill(spline(ellipse(center, (width * rng.uniform(0.25, 0.45), 2.2), 10), closed=True), 1.4)
        if side == "near":
            brackets.append(ends[0] + 0.22 * (ends[1] - ends[0]))
    for name, apex, width in INCISORS:
        root = head.bend(np.array([apex]))[0]
        tip = head.landmarks[ISBI2015_LANDMARKS.index(name)]
        ends = pose(np.stack([tip, root]))
        _draw_tooth(film, ends[0], ends[1], width * pose.scale, 1.25, incisor=True)
        front = np.array([0.30 * width, 0.0])
        brackets.append(ends[0] + 0.2 * (ends[1] - ends[0]) + front)
    if braces:
        for center in brackets:
            film.fill(ellipse(center, (1.7, 1.4), 8), 1.1)
        upper, lower = [*brackets[:4], brackets[-1]], [*brackets[4:-2], brackets[-2]]
        for arch in (upper, lower):
            film.fill(stroke_outline(np.array(sorted(arch, key=lambda point: -point[0])), 0.6), 0.9)


def _draw_tooth(film: Film, tip: np.ndarray, apex: np.ndarray, width: float, weight: float, incisor: bool) -> None:
    outline = tooth_outline(tip, apex, width, incisor)
    film.fill(outline, 0.10 * weight)
    film.shade(outline, 0.12 * weight)
    # Enamel: the outline's points down to 38 % of the length, on both sides.
    crown = np.concatenate([outline[:4], outline[-3 if incisor else -4 :]])
    film.fill(crown if incisor else spline(crown, closed=True, samples=4), 0.26 * weight)
    canal = np.stack([tip + 0.3 * (apex - tip), tip + 0.9 * (apex - tip)])
    film.fill(stroke_outline(spline(canal, samples=6), 1.3, taper=True), -0.12 * weight)


def _draw_spine(film: Film, head: Head, pose: Pose, rng: np.random.Generator) -> None:
    """Cervical spine with dens and atlas; its corners and edges look like jaw angles."""
    lean = rng.normal(0, 0.05)
    for x, y, width, height, tilt, process in VERTEBRAE:
        center = np.array([x - lean * (y - 160), y]) + rng.normal(0, 0.5, 2)
        tilt = tilt + rng.normal(0, 2.5)
        body = spline(vertebra_outline(center, width, height, tilt), closed=True, samples=5)
        back = center - (width / 2, -1)
        arch = np.array(
            [(0, -4), (-9, -2.5), (-process, 5), (-process - 2, 8.5), (-process + 3, 9.5), (-9, 5.5), (0, 4.5)]
        )
        facet = np.array([(2, -7), (-5, -4), (-8, 5), (-4, 7.5), (3, 2)])
        for outline, value in ((body, 0.24), (back + arch, 0.13), (back + facet, 0.13)):
            _draw_bone(film, pose(outline if outline is body else spline(outline, closed=True, samples=5)), value)
    dens = np.array([(53.5, 160), (57, 147), (60, 139.5), (63.5, 141), (64, 150), (63.5, 160)])
    arch = np.array([(50, 147), (40, 151), (31, 150), (28, 154.5), (33, 158.5), (43, 155.5), (50, 153)])
    front = np.array([(65, 142), (68, 146), (67.5, 152), (64.8, 151)])
    for outline, value in ((dens, 0.22), (arch, 0.22), (front, 0.26)):
        _draw_bone(film, pose(head.bend(spline(outline, closed=True, samples=5))), value)


def _draw_bone(film: Film, outline: np.ndarray, value: float) -> None:
    """A bone's shadow: a thin shell, brighter where the rays run along it, and blurred spongy bone."""
    film.fill(outline, 0.5 * value)
    film.shade(outline, 0.5 * value)
    film.fill(stroke_outline(outline, 1.2, closed=True, inside=True), 0.35 * value)


def _texture(film: Film, rng: np.random.Generator) -> np.ndarray:
    """Trabecular pattern, around 1."""
    coarse = rng.standard_normal(film.coarse_shape, dtype=np.float32)
    return 1 + 0.045 * film.enlarge(coarse)
