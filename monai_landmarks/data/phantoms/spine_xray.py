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
"""A parametric frontal spine film with scoliosis and true corners, and a folder of such films in the layout of AASCE."""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from monai_landmarks.data.files import write_text

from .apparatus import expose
from .chest_xray import LETTER_L
from .drawing import Film
from .film_files import check_reduction, write_film
from .spine_film import Spine, draw_spine_film, draw_spine_shape
from .volume_files import finish_phantom, start_phantom

__all__ = ["spine_xray_phantom", "write_spine_xray_phantom"]

VERSION = 1
"""Counted up whenever the same seed gives other films, so that a folder of older films is not taken for these."""

PIXEL_MM = 0.2
MOST_PATIENTS = 9999
VISITS = (0.5, 0.25, 0.15, 0.06, 0.04)
"""How many patients have one film, two, ... five: about as in the data set."""

NOTICE = """This is a phantom. The films in this folder are computer drawings of a made-up spine, not radiographs of
patients; corners and Cobb angles are true by construction. They are laid out like the AASCE spine films
(data/training, labels/training) so that the same reader serves both. No number obtained on these films says anything
about performance on patients."""


def spine_xray_phantom(
    seed: int = 0, reduction: int = 4, scoliosis: float = 1.0, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one frontal spine film with the 68 true corners of 17 vertebrae and the three true Cobb angles.

    Bodies are drawn through their corners. The angles come from the tilts that the bodies were made with, by the rule of
    the challenge. The film also shows what misleads on a real one: neck vertebrae above T1 and the sacrum below L5, ribs,
    heart, windpipe, diaphragm, gas over the lumbar spine, the rim of the pelvis, a letter of lead, borders of the beam;
    bone is hardly denser than the belly, exposure, build and the cut of the film vary.

    Args:
        seed: of patient and film. The same seed gives the same spine at every ``reduction``.
        reduction: integer ``k``; films are some 400 to 500 mm high, a quarter to a half of that wide, and have pixels of
            ``0.2 * k`` mm.
        scoliosis: strength of the curves; with 1 the main angle has a median of some 36 degrees, with 0 the spine is
            straight.
        noise: strength of the noise, 0 for none.

    Returns:
        The film, uint8 ``(height, width)``, bright where the body attenuates; the corners, float64 ``(68, 2)``, as fractions
        of the film's width and height in the order of ``AASCE_LANDMARKS``; the angles, float64 ``(3,)``, degrees.

    Raises:
        ValueError: when ``reduction`` is not a positive integer.

    Example:
        >>> film, points, angles = spine_xray_phantom(seed=1, reduction=16)
        >>> film.dtype, points.shape, angles.shape, bool(((points > 0) & (points < 1)).all())
        (dtype('uint8'), (68, 2), (3,), True)
    """
    check_reduction(reduction, f"pixels of {PIXEL_MM} mm")
    spine, scene = _spine_and_scene(seed, 0, 0, scoliosis)
    return _expose_film(spine, scene, reduction, noise), _fractions(spine, reduction), spine.angles()


def write_spine_xray_phantom(
    folder: str | Path, num_patients: int = 40, seed: int = 0, reduction: int = 4, scoliosis: float = 1.0
) -> Path:
    """Write a phantom data set in the layout of the AASCE training films, for ``aasce_datalist`` to read.

    Patients have one to five films, 1.9 on average; on another visit their curves are larger or smaller, on the same side
    and at the same levels. Films are named as the real ones are, ``phantom-12 B AP.png`` for the second of patient 12. What
    a film shows depends on ``seed``, patient and letter alone, not on how many there are. ``PHANTOM.txt`` is written first
    and says that this is a phantom; ``PHANTOM.json``, written last, marks the folder complete and lists its films. A
    complete folder with the same parameters is used again, an interrupted one is completed. Several processes may write
    the same folder at once.

    Args:
        folder: a new or empty folder, or one this function wrote.
        num_patients: how many, at most 9999.
        seed: of the films.
        reduction: integer ``k``, see :func:`spine_xray_phantom`.
        scoliosis: strength of the curves.

    Returns:
        The folder.

    Raises:
        ValueError: when a number is out of range, or the folder holds anything else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     root = write_spine_xray_phantom(folder, num_patients=2, reduction=32)
        ...     sorted(path.name for path in root.iterdir())
        ['PHANTOM.json', 'PHANTOM.txt', 'data', 'labels']
    """
    check_reduction(reduction, f"pixels of {PIXEL_MM} mm")
    if not 1 <= num_patients <= MOST_PATIENTS:
        raise ValueError(f"num_patients must be 1 to {MOST_PATIENTS}, got {num_patients}.")
    films = list(_films(num_patients, seed))
    names = [f"phantom-{patient} {string.ascii_uppercase[visit]} AP.png" for patient, visit in films]
    parameters = {
        "phantom": "spine_xray",
        "version": VERSION,
        "reduction": int(reduction),
        "scoliosis": float(scoliosis),
        "seed": int(seed),
        "cases": {"training": [name.removesuffix(".png") for name in names]},
    }
    root = Path(folder)
    if start_phantom(root, parameters, NOTICE):
        return root
    rows: dict[str, list[str]] = {"filenames": names, "landmarks": [], "angles": []}
    for name, (patient, visit) in zip(names, films, strict=True):
        spine, scene = _spine_and_scene(seed, patient, visit, scoliosis)
        path = root / "data" / "training" / name
        if not path.is_file():
            write_film(path, _expose_film(spine, scene, reduction))
        rows["landmarks"].append(",".join(f"{value:.6f}" for value in _fractions(spine, reduction).T.ravel()))
        rows["angles"].append(",".join(f"{value:.4f}" for value in spine.angles()))
    for table, lines in rows.items():
        write_text(root / "labels" / "training" / f"{table}.csv", "\n".join(lines) + "\n")
    finish_phantom(root, parameters)
    return root


def _films(num_patients: int, seed: int) -> Iterator[tuple[int, int]]:
    """Patients from 1 and their visits from 0."""
    for patient in range(1, num_patients + 1):
        visits = np.random.default_rng([seed, patient, 1]).choice(len(VISITS), p=VISITS)
        yield from ((patient, visit) for visit in range(visits + 1))


def _spine_and_scene(seed: int, patient: int, visit: int, scoliosis: float) -> tuple[Spine, np.random.Generator]:
    body = np.random.default_rng([seed, patient, 2])
    shape, scene = np.random.default_rng([seed, patient, 3, visit]).spawn(2)
    return draw_spine_shape(body, shape, scoliosis), scene


def _film_size(spine: Spine, reduction: int) -> tuple[int, int]:
    width, height = (round(side / (PIXEL_MM * reduction)) for side in spine.size_mm)
    return width, height


def _fractions(spine: Spine, reduction: int) -> np.ndarray:
    extent = np.multiply(_film_size(spine, reduction), PIXEL_MM * reduction)
    return np.asarray(spine.corners[spine.named].reshape(-1, 2) / extent)


def _expose_film(spine: Spine, rng: np.random.Generator, reduction: int, noise: float = 1.0) -> np.ndarray:
    pixel_mm, size = PIXEL_MM * reduction, _film_size(spine, reduction)
    scene, exposure, frame = rng.spawn(3)
    attenuation = draw_spine_film(Film(spine.size_mm, size, pixel_mm, origin_pixel_mm=0.0), spine, scene)
    if frame.uniform() < 0.6:
        # The letter lies at the patient's left, which is the right of the picture.
        film = Film(spine.size_mm, size, pixel_mm, origin_pixel_mm=0.0)
        film.fill(LETTER_L + np.array([spine.size_mm[0] - frame.uniform(12, 20), frame.uniform(8, 60)]), 2.0)
        attenuation += film.attenuation()
    grey = expose(attenuation, pixel_mm, noise, exposure)
    _collimate(grey, pixel_mm, frame)
    return np.clip(grey + 0.5, 0, 255).astype(np.uint8)


def _collimate(grey: np.ndarray, pixel_mm: float, rng: np.random.Generator) -> None:
    """Darken the sides beyond the beam in place, with a blurred border."""
    width = grey.shape[1]
    x = (np.arange(width) + 0.5) * pixel_mm
    for distance in (x, x[::-1]):
        if rng.uniform() < 0.35:
            grey *= 1 / (1 + np.exp(-(distance - rng.uniform(1, 5)) / 0.6)).astype(np.float32)
