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
"""A parametric film of a left hand with 37 true landmarks, and a folder of such films in the Digital Hand Atlas' layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from monai_landmarks.data.datasets.hand_xray import FOLDS, GU2NET_SECTIONS
from monai_landmarks.data.files import write_text

from .apparatus import expose
from .drawing import SOFT_PIXEL_MM, Film, enlarge_twice, stroke_outline, text_bitmap
from .film_files import check_reduction, number_films, write_film
from .hand_film import FlatHand, build_flat_hand
from .volume_files import finish_phantom, start_phantom

__all__ = ["hand_xray_phantom", "write_hand_xray_phantom"]

VERSION = 1
"""Counted up whenever the same seed gives other films, so that a folder of older films is not taken for these."""

PIXEL_MM = 0.1
ROTATION_DEG = 4.0

WEB_MM, FINGER_MM, PALM_MM = 2.6, 6.0, 14.0
"""Blurs of the outline: the first rounds the webs between fingers, the others make thickness of width."""

NOTICE = """This is a phantom. The films in this folder are computer drawings of made-up left hands, not radiographs of
patients; their landmarks are true by construction. They are laid out like the Digital Hand Atlas with its table of 37
points so that the same reader serves both; the points are not rounded to whole pixels. No number obtained on these films
says anything about performance on patients."""


def hand_xray_phantom(
    seed: int | np.random.Generator = 0,
    reduction: int = 4,
    posture: float = 1.0,
    rotation_deg: float = ROTATION_DEG,
    noise: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one film of a left hand, seen from its back, with its 37 true landmarks.

    A hand of a random age is grown, from five years to grown up: size, open or closed growth plates, caps of the bones and
    carpal bones go together. Films have different sizes, as they are cut around the hand, and show what misleads on real
    ones: uneven exposure, edges of the collimated field, labels and step wedges burned in beside the hand, noise.

    Args:
        seed: seed or generator. The same seed gives the same hand at every ``reduction``.
        reduction: integer ``k``; pixels are ``k`` times as large as those of a film of about 1500 x 2100.
        posture: strength of the random spreading and bending of fingers, 0 for a hand of standard posture.
        rotation_deg: standard deviation of the rotation, which is never more than three times this.
        noise: strength of the noise, 0 for none.

    Returns:
        The film, uint8 ``(height, width)``, bright where the hand attenuates, and the points, float64 ``(37, 2)``, in
        pixels (x right, y down; integer = centre of a pixel) of this film, in the order of ``HAND_XRAY_LANDMARKS``.

    Raises:
        ValueError: when ``reduction`` is not a positive integer.

    Example:
        >>> image, points = hand_xray_phantom(seed=1, reduction=8)
        >>> image.ndim, image.dtype, points.shape
        (2, dtype('uint8'), (37, 2))
    """
    check_reduction(reduction, f"pixels of {PIXEL_MM} mm")
    hand, size, (scene_rng, field_rng, exposure_rng, stamp_rng) = _make(seed, posture, rotation_deg)
    attenuation, skin = _draw(hand, size, reduction, scene_rng)
    pixel_mm = PIXEL_MM * reduction
    attenuation += _uneven_field(attenuation.shape, field_rng)
    grey = expose(attenuation, pixel_mm, noise, exposure_rng)
    _stamp(grey, skin, hand, pixel_mm, stamp_rng)
    return np.clip(grey + 0.5, 0, 255).astype(np.uint8), _pixels(hand, reduction)


def write_hand_xray_phantom(
    folder: str | Path,
    num_train: int = 40,
    num_validation: int = 8,
    num_test: int = 10,
    reduction: int = 4,
    seed: int = 0,
) -> Path:
    """Write a phantom data set for ``hand_xray_datalist``: ``all.csv``, ``jpg/<number>.png`` and ``setup/cv``.

    Films have numbers of the sections of GU2Net's split: training from 3143, validation from 5395, test from 5577. The
    lists of Payer's three folds deal out all films by turns. Film and points of a number depend on ``seed``, ``reduction``
    and the number alone, not on how many there are. ``PHANTOM.txt`` is written first and says that this is a phantom;
    ``PHANTOM.json``, written last, marks the folder complete and lists its films. A complete folder with the same
    parameters is used again, an interrupted one is completed.

    Args:
        folder: a new or empty folder, or one this function wrote.
        num_train: films 3143, 3144, ..., at most 550.
        num_validation: films 5395, 5396, ..., at most 59.
        num_test: films 5577, 5578, ..., at most 300.
        reduction: see ``hand_xray_phantom``.
        seed: seed of the films.

    Returns:
        The folder.

    Raises:
        ValueError: when a number is out of range, or the folder holds anything else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     root = write_hand_xray_phantom(folder, 1, 1, 1, reduction=16)
        ...     sorted(path.name for path in root.iterdir())
        ['PHANTOM.json', 'PHANTOM.txt', 'all.csv', 'jpg', 'setup']
    """
    check_reduction(reduction, f"pixels of {PIXEL_MM} mm")
    counts = {"train": num_train, "validation": num_validation, "test": num_test}
    cases = number_films(counts, {name: (first, most) for name, (first, _, most) in GU2NET_SECTIONS.items()})
    parameters = {
        "phantom": "hand_xray",
        "version": VERSION,
        "reduction": int(reduction),
        "seed": int(seed),
        "cases": cases,
    }
    root = Path(folder)
    if start_phantom(root, parameters, NOTICE):
        return root
    numbers = [case for section in cases.values() for case in section]
    rows = (_write_film(root / "jpg" / f"{case}.png", case, reduction, seed) for case in numbers)
    write_text(root / "all.csv", "".join(rows))
    for place, fold in enumerate(FOLDS):
        test = numbers[place :: len(FOLDS)]
        lists = {"test": test, "train": [case for case in numbers if case not in test]}
        for part, names in lists.items():
            write_text(root / "setup" / "cv" / f"set{fold[-1]}" / f"{part}.txt", "".join(f"{name}\n" for name in names))
    finish_phantom(root, parameters)
    return root


def _write_film(path: Path, case: str, reduction: int, seed: int) -> str:
    """Write one film where it is missing; return its row of the table."""
    rng = np.random.default_rng([seed, int(case)])
    if path.is_file():
        points = _pixels(_make(rng)[0], reduction)
    else:
        image, points = hand_xray_phantom(rng, reduction)
        write_film(path, image)
    return ",".join([case, *(f"{value:.4f}" for value in points.ravel())]) + "\n"


def _make(
    seed: int | np.random.Generator, posture: float = 1.0, rotation_deg: float = ROTATION_DEG
) -> tuple[FlatHand, tuple[int, int], list[np.random.Generator]]:
    """The hand, the size of its film, and generators for everything else.

    Streams of their own keep the hand the same when a switch changes how much another part draws.
    """
    body_rng, place_rng, *others = np.random.default_rng(seed).spawn(6)
    return *_lay_hand(build_flat_hand(body_rng, posture), rotation_deg, place_rng), others


def _pixels(hand: FlatHand, reduction: int) -> np.ndarray:
    """The hand's points in pixels of the reduced film, ``(37, 2)``."""
    return (hand.points / PIXEL_MM + 0.5) / reduction - 0.5


def _lay_hand(hand: FlatHand, rotation_deg: float, rng: np.random.Generator) -> tuple[FlatHand, tuple[int, int]]:
    """The hand on a film that is cut around it, and the film's width and height in pixels of 0.1 mm."""
    angle = np.deg2rad(rotation_deg * np.clip(rng.normal(), -3, 3))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = hand.points @ turn
    air = hand.size * rng.uniform((8.0, 7.0), (26.0, 24.0)), hand.size * rng.uniform((8.0, 2.5), (26.0, 22.0))
    low = points.min(axis=0) - air[0]
    width, height = np.rint((points.max(axis=0) + air[1] - low) / PIXEL_MM).astype(int).tolist()
    return hand.moved(lambda outline: outline @ turn - low), (width, height)


def _draw(
    hand: FlatHand, size: tuple[int, int], reduction: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Attenuation and skin at the reduction's size; finer films than 0.4 mm are drawn at 0.4 mm and interpolated."""
    doublings = {1: 2, 2: 1}.get(reduction, 0)
    k = reduction << doublings
    size_mm = (size[0] * PIXEL_MM, size[1] * PIXEL_MM)
    film = Film(size_mm, (-(-size[0] // k), -(-size[1] // k)), PIXEL_MM * k, PIXEL_MM)
    attenuation, skin = _draw_hand(film, hand, rng)
    for _ in range(doublings):
        k //= 2
        fine = (-(-size[1] // k), -(-size[0] // k))
        attenuation, skin = enlarge_twice(attenuation, *fine), enlarge_twice(skin, *fine)
    return attenuation, skin


def _draw_hand(film: Film, hand: FlatHand, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Attenuation, and the share of each pixel that flesh covers, float32 ``(height, width)``."""
    skin, thickness = _flesh(film, hand)
    flesh = skin * (rng.uniform(0.08, 0.13) + rng.uniform(0.28, 0.42) * thickness)
    density = rng.lognormal(0, 0.15)
    for outline in hand.tubes:
        _draw_bone(film, outline, 0.30 * density, hand.size)
    for outline in hand.blocks:
        _draw_bone(film, outline, 0.32 * density, hand.size)
    for outline, share in hand.faint:
        film.fill(outline, 0.26 * density * share)
    for line, width in hand.shafts:
        film.fill(stroke_outline(line, width * hand.size, taper=True), 0.13 * density)
    texture = 1 + 0.06 * film.enlarge(rng.standard_normal(film.coarse_shape, dtype=np.float32))
    return flesh + np.maximum(film.attenuation(soft_mm=1.0) * texture, 0), skin


def _flesh(film: Film, hand: FlatHand) -> tuple[np.ndarray, np.ndarray]:
    """The share of each pixel inside the skin, and the flesh's thickness, about 1 in the palm."""
    height, width = film.coarse_shape
    layer = Film((0.0, 0.0), (width, height), SOFT_PIXEL_MM)
    for outline in hand.flesh:
        layer.fill(outline, 1.0)
    inside = np.clip(layer.attenuation(), 0, 1)
    web, finger, palm = (film.blur_coarse(inside, blur * hand.size) for blur in (WEB_MM, FINGER_MM, PALM_MM))
    skin = np.clip(8 * (film.enlarge(web) - 0.5) + 0.5, 0, 1)
    thickness = np.sqrt(np.clip(2 * finger - 0.9, 0, 1)) * (0.4 + 0.6 * np.clip(1.6 * palm - 0.4, 0, 1))
    return skin, film.enlarge(thickness)


def _draw_bone(film: Film, outline: np.ndarray, value: float, size: float) -> None:
    """A bone's shadow: spongy bone, thicker in the middle, within a thin dense shell seen along its border."""
    film.fill(outline, 0.55 * value)
    film.shade(outline, 0.45 * value)
    film.fill(stroke_outline(outline, 0.9 * size, closed=True, inside=True), 0.30 * value)


def _uneven_field(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Haze that grows towards one side, and faint bands of a worn screen."""
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape)
    slope = rng.normal(0, 0.03, 2)
    bands = sum(rng.normal(0, 0.008) * np.sin(rng.uniform(4, 25) * x + rng.uniform(0, 6)) for _ in range(3))
    return np.float32(rng.uniform(0.02, 0.10)) + (slope[0] * x + bands + (slope[1] * y)[:, None]).astype(np.float32)


def _stamp(grey: np.ndarray, skin: np.ndarray, hand: FlatHand, pixel_mm: float, rng: np.random.Generator) -> None:
    """Edges of the collimated field, label, step wedge and number, in place and never over the hand."""
    height, width = grey.shape
    stamped = np.full_like(grey, np.nan)

    def block(left: float, top: float, box: np.ndarray) -> None:
        rows, columns = int(top * height), int(left * width)
        target = stamped[rows : rows + box.shape[0], columns : columns + box.shape[1]]
        target[...] = box[: target.shape[0], : target.shape[1]]

    def pixels(size_mm: float) -> int:
        return max(1, round(size_mm / pixel_mm))

    dark_or_white = 4.0 if rng.uniform() < 0.6 else 235.0
    if rng.uniform() < 0.5:
        edge = pixels(rng.uniform(1, 6))
        where = [np.s_[:edge], np.s_[:, :edge], np.s_[:, -edge:], np.s_[-edge:]]
        for side in rng.permutation(4)[: rng.integers(1, 4)]:
            stamped[where[side]] = dark_or_white
    if rng.uniform() < 0.6:
        label = np.full((pixels(rng.uniform(7, 12)), pixels(rng.uniform(25, 60))), dark_or_white, dtype=grey.dtype)
        block(rng.choice([0.0, 0.6]), 0.0, label)
    if rng.uniform() < 0.5:
        wedge = np.linspace(30, 240, pixels(rng.uniform(20, 32)), dtype=grey.dtype)
        block(rng.uniform(0.82, 0.92), rng.uniform(0.7, 0.85), np.repeat(wedge[:, None], pixels(6), axis=1))
    digits = text_bitmap("".join(str(digit) for digit in rng.integers(0, 10, 4)))
    scale = pixels(0.5)
    text = np.kron(digits, np.ones((scale, scale), dtype=np.float32))
    block(rng.choice([0.02, 0.85]), rng.uniform(0.02, 0.08), np.where(text > 0, 245.0, np.nan))
    free = np.isfinite(stamped) & (skin < 1e-3)
    grey[free] = stamped[free]
