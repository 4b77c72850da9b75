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
"""A parametric frontal chest film with true landmarks, and a folder of such films in the layout of GU2Net's chest set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from monai_landmarks.data.datasets.chest_xray import SECTIONS
from monai_landmarks.data.files import write_text

from .apparatus import expose
from .chest_scene import SIDES, Place, draw_chest, draw_place, lung_outline
from .drawing import Film, text_bitmap
from .film_files import check_reduction, number_films, write_film
from .volume_files import finish_phantom, start_phantom

__all__ = ["chest_xray_phantom", "write_chest_xray_phantom"]

VERSION = 1
"""Counted up whenever the same seed gives other films, so that a folder of older films is not taken for these."""

PIXEL_MM = 0.125
MARGIN_MM = 8.0
FINE = 160
"""Points per control point of the outlines on which landmarks are located: some 0.2 mm apart."""

LETTER_L = np.array([(0, 0), (2.2, 0), (2.2, 10), (7.5, 10), (7.5, 12), (0, 12)])

NOTICE = """This is a phantom. The films in this folder are computer drawings of a made-up chest, not radiographs of
patients; their landmarks are true by construction. They are laid out like the chest films of GU2Net (Shenzhen set,
pngs/ and labels/) so that the same reader serves both. No number obtained on these films says anything about
performance on patients."""


def chest_xray_phantom(
    seed: int | np.random.Generator = 0,
    reduction: int = 4,
    shape: float = 1.0,
    rotation_deg: float = 5.0,
    scale: float = 0.08,
    noise: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one frontal chest film with its six true landmarks.

    The landmarks are the extreme points of the outline of each lung field along the film's axes: ``top`` is its highest
    point, at the apex; ``bottom`` its lowest, in the costophrenic angle; ``lateral`` the outermost point of the chest
    wall's side, to the left in the picture for the right lung. They are located on the outline after bending and turning,
    to 0.2 mm along the outline.

    The film also shows what misleads on a real one: ribs, clavicles and shoulder blades that cross the border of the
    lungs, breasts, air in the stomach, vessels, a letter of lead, a number, borders of the beam; exposure, breath, build,
    scoliosis, rotation and the size of the film vary.

    Args:
        seed: seed or generator. The same seed gives the same chest at every ``reduction``.
        reduction: integer ``k``; films are 312 to 368 mm wide and high and have pixels of ``0.125 * k`` mm.
        shape: strength of the variation of shape, 0 for the template.
        rotation_deg: largest rotation in the plane of the film.
        scale: largest relative change of size.
        noise: strength of the noise, 0 for none.

    Returns:
        The film, uint8 ``(height, width)``, bright where the body attenuates, and the points, float64 ``(6, 2)``, as
        fractions of the film's width and height, in the order of ``CHEST_XRAY_LANDMARKS``.

    Raises:
        ValueError: when ``reduction`` is not a positive integer.

    Example:
        >>> image, points = chest_xray_phantom(seed=1, reduction=16)
        >>> image.dtype, points.shape, bool(((points > 0) & (points < 1)).all())
        (dtype('uint8'), (6, 2), True)
    """
    check_reduction(reduction, f"pixels of {PIXEL_MM} mm")
    body, scene, exposure, frame = np.random.default_rng(seed).spawn(4)
    size_mm, place = _build(body, shape, rotation_deg, scale)
    pixel_mm = PIXEL_MM * reduction
    width, height = (round(side / pixel_mm) for side in size_mm)
    film = Film(size_mm, (width, height), pixel_mm, origin_pixel_mm=0.0)
    attenuation = draw_chest(film, place, scene)
    if frame.uniform() < 0.7:
        # The letter lies at the patient's left, which is the right of the picture.
        film = Film(size_mm, (width, height), pixel_mm, origin_pixel_mm=0.0)
        film.fill(LETTER_L + np.array([size_mm[0] - frame.uniform(15, 35), frame.uniform(8, 30)]), 2.0)
        attenuation += film.attenuation()
    grey = expose(attenuation, pixel_mm, noise, exposure)
    _stamp(grey, pixel_mm, frame)
    return np.clip(grey + 0.5, 0, 255).astype(np.uint8), _landmarks(place) / (width * pixel_mm, height * pixel_mm)


def write_chest_xray_phantom(
    folder: str | Path,
    num_train: int = 40,
    num_validation: int = 8,
    num_test: int = 10,
    seed: int = 0,
    reduction: int = 4,
) -> Path:
    """Write a phantom data set in the layout of GU2Net's chest films, for ``chest_xray_datalist`` to read.

    Films of the training section are numbered from 0001, of the validation from 0196, of the test from 0230. Film and
    points of a number depend on ``seed`` and the number alone, not on how many there are. ``PHANTOM.txt`` is written first
    and says that this is a phantom; ``PHANTOM.json``, written last, marks the folder complete and lists its films by
    section. A complete folder with the same parameters is used again, an interrupted one is completed. Several processes
    may write the same folder at once.

    Args:
        folder: a new or empty folder, or one this function wrote.
        num_train: films for training, at most 195.
        num_validation: films for validation, at most 34.
        num_test: films for the test, at most 50.
        seed: seed of the films.
        reduction: integer ``k``, see :func:`chest_xray_phantom`.

    Returns:
        The folder.

    Raises:
        ValueError: when a number is out of range, or the folder holds anything else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     root = write_chest_xray_phantom(folder, num_train=1, num_validation=0, num_test=0, reduction=32)
        ...     sorted(path.name for path in root.iterdir())
        ['PHANTOM.json', 'PHANTOM.txt', 'labels', 'pngs']
    """
    check_reduction(reduction, f"pixels of {PIXEL_MM} mm")
    counts = {"train": num_train, "validation": num_validation, "test": num_test}
    sections = {name: (first + 1, end - first) for name, (first, end) in SECTIONS.items()}
    cases = number_films(counts, sections, "CHNCXR_{:04d}_0".format)
    parameters = {
        "phantom": "chest_xray",
        "version": VERSION,
        "reduction": int(reduction),
        "seed": int(seed),
        "cases": cases,
    }
    root = Path(folder)
    if start_phantom(root, parameters, NOTICE):
        return root
    for case in (case for section in cases.values() for case in section):
        _write_film(root, case, seed, reduction)
    finish_phantom(root, parameters)
    return root


def _write_film(root: Path, case: str, seed: int, reduction: int) -> None:
    """Write what is missing of one film; the points come last."""
    label = root / "labels" / f"{case}.txt"
    if label.is_file():
        return
    image, points = chest_xray_phantom(np.random.default_rng([seed, int(case.split("_")[1])]), reduction)
    write_film(root / "pngs" / f"{case}.png", image)
    write_text(label, f"{len(points)}\n" + "".join(f"{x:.6f} {y:.6f}\n" for x, y in points))


def _build(
    rng: np.random.Generator, shape: float = 1.0, rotation_deg: float = 5.0, scale: float = 0.08
) -> tuple[tuple[float, float], Place]:
    """Width and height of the film, multiples of 8 mm so that every reduction to 64 divides them, and the body on it."""
    width, height = 8.0 * rng.integers(39, 47, 2)
    size_mm = (float(width), float(height))
    return size_mm, draw_place(rng, size_mm, shape, rotation_deg, scale, MARGIN_MM)


def _landmarks(place: Place) -> np.ndarray:
    """Highest, lowest and outermost point of each lung field, ``(6, 2)`` in mm of the film."""
    points = []
    for side, outward in SIDES.items():
        outline = lung_outline(side, place, FINE)
        extremes = (outline[:, 1].argmin(), outline[:, 1].argmax(), (outward * outline[:, 0]).argmax())
        points += [outline[index] for index in extremes]
    return np.stack(points)


def _stamp(grey: np.ndarray, pixel_mm: float, rng: np.random.Generator) -> None:
    """Stamp borders of the beam, dark or bright, and a number over the grey values in place."""
    border = rng.choice([3.0, 240.0])
    sides = np.rint(rng.uniform(0, 6, 4) * (rng.uniform(size=4) < 0.4) / pixel_mm).astype(int)
    height, width = grey.shape
    grey[: sides[0]], grey[height - sides[1] :] = border, border
    grey[:, : sides[2]], grey[:, width - sides[3] :] = border, border
    if rng.uniform() < 0.6:
        bitmap = text_bitmap("".join(str(digit) for digit in rng.integers(0, 10, 6)))
        step = max(1, round(0.6 / pixel_mm))
        text = np.kron(bitmap, np.ones((step, step)))[:, : width // 2]
        left, top = (round(float(v) / pixel_mm) for v in rng.uniform((8, 4), (30, 10)))
        patch = grey[top : top + text.shape[0], left : left + text.shape[1]]
        patch[text[: patch.shape[0], : patch.shape[1]] > 0] = 250.0
