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
"""A parametric film of both legs with true landmarks and angles, and a folder of such films in the layout of BMPLE."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from monai.utils import optional_import

from monai_landmarks.data.datasets.bmple import FOLDERS
from monai_landmarks.data.files import write_text

from .apparatus import expose
from .chest_xray import LETTER_L
from .drawing import Film
from .film_files import check_reduction, number_films, write_film
from .lower_limb_film import Leg, draw_leg_shapes, draw_lower_limb_film
from .volume_files import finish_phantom, start_phantom

PILImage, _ = optional_import("PIL.Image")

__all__ = ["lower_limb_phantom", "write_lower_limb_phantom"]

VERSION = 1
"""Counted up whenever the same seed gives other films, so that a folder of older films is not taken for these."""

STORED_SIZE = (384, 768)
"""Width and height of the published films."""

SECTIONS = {"training": (1, 120), "test1": (121, 20), "test2": (141, 50)}

NOTICE = """This is a phantom. The films in this folder are computer drawings of made-up legs, not radiographs of
patients; their landmarks are true by construction. They are laid out like the BMPLE lower limb films (train, test1,
test2) so that the same reader serves both. No number obtained on these films says anything about performance on
patients."""


def lower_limb_phantom(
    seed: int | np.random.Generator = 0, reduction: int = 1, deformity: float = 1.0, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray, tuple[float, float], np.ndarray]:
    """Draw one standing film of both legs with its 20 true landmarks and the seven true angles of each leg.

    Angles are drawn first and the bones follow from them: outlines pass through the landmarks. As in the data set the film
    is squeezed to one size whatever its shape, so that its pixels are no squares. It also shows what misleads on a real one:
    the pelvis, kneecap and fibula, a ruler between the legs, a letter of lead, borders where three exposures are joined;
    knees in varus and valgus, build, exposure and the cut of the film vary.

    Args:
        seed: seed or generator. The same seed gives the same legs at every ``reduction``.
        reduction: integer ``k``; the film has 384 / k x 768 / k pixels (width x height) and covers some 340 to 450 mm
            x 900 to 1100 mm.
        deformity: strength of varus and valgus, 0 for straight legs.
        noise: strength of the noise, 0 for none.

    Returns:
        The film, uint8 ``(height, width)``, bright where the body attenuates; the landmarks, float64 ``(20, 2)``, mm from
        the film's upper left corner, in the order of ``BMPLE_LANDMARKS``; the size of a pixel in mm, x and y; the angles,
        float64 ``(2, 7)``, degrees, right leg first, in the order of ``LOWER_LIMB_ANGLES``.

    Raises:
        ValueError: when ``reduction`` is not a positive integer.

    Example:
        >>> film, points, pixel_size, angles = lower_limb_phantom(seed=1, reduction=8)
        >>> film.shape, points.shape, angles.shape, bool((points / pixel_size < film.shape[::-1]).all())
        ((96, 48), (20, 2), (2, 7), True)
    """
    check_reduction(reduction, f"{STORED_SIZE[0]} x {STORED_SIZE[1]} pixels")
    shape, scene = np.random.default_rng(seed).spawn(2)
    size_mm, legs = draw_leg_shapes(shape, deformity)
    width, height = (max(1, round(side / reduction)) for side in STORED_SIZE)
    film = _expose_film(size_mm, legs, (width, height), noise, scene)
    points, angles = (np.concatenate([leg.landmarks() for leg in legs]), np.stack([leg.angles for leg in legs]))
    return film, points, (size_mm[0] / width, size_mm[1] / height), angles


def write_lower_limb_phantom(
    folder: str | Path,
    num_training: int = 40,
    num_test1: int = 10,
    num_test2: int = 0,
    seed: int = 0,
    reduction: int = 1,
    deformity: float = 1.0,
) -> Path:
    """Write a phantom data set in the layout of the BMPLE films, for ``bmple_datalist`` to read.

    Training films are numbered from 1, those of Test1 from 121, of Test2 from 141. The ``_meta.json`` of a film has shape
    and spacing of an unreduced film of 0.13 to 0.16 mm, points in its pixels, 26 as in the published ones, and the true
    ``angles``, which those do not have. Film and points of a number depend on ``seed`` and the number alone. ``PHANTOM.txt``
    is written first and says that this is a phantom; ``PHANTOM.json``, written last, marks the folder complete and lists its
    films by section. A complete folder with the same parameters is used again, an interrupted one is completed. Several
    processes may write the same folder at once.

    Args:
        folder: a new or empty folder, or one this function wrote.
        num_training: films for training, at most 120.
        num_test1: films of the first test, at most 20.
        num_test2: films of the second test, at most 50.
        seed: of the films.
        reduction: integer ``k``, see :func:`lower_limb_phantom`.
        deformity: strength of varus and valgus.

    Returns:
        The folder.

    Raises:
        ValueError: when a number is out of range, or the folder holds anything else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     root = write_lower_limb_phantom(folder, num_training=1, num_test1=1, reduction=16)
        ...     sorted(path.name for path in root.iterdir())
        ['PHANTOM.json', 'PHANTOM.txt', 'test1', 'test1.json', 'train']
    """
    check_reduction(reduction, f"{STORED_SIZE[0]} x {STORED_SIZE[1]} pixels")
    cases = number_films({"training": num_training, "test1": num_test1, "test2": num_test2}, SECTIONS)
    parameters = {
        "phantom": "lower_limb",
        "version": VERSION,
        "reduction": int(reduction),
        "deformity": float(deformity),
        "seed": int(seed),
        "cases": cases,
    }
    root = Path(folder)
    if start_phantom(root, parameters, NOTICE):
        return root
    for section, names in cases.items():
        for case in names:
            _write_film(root / FOLDERS[section], case, seed, reduction, deformity)
        if names and section != "training":
            write_text(root / f"{section}.json", json.dumps([int(case) for case in names]) + "\n")
    finish_phantom(root, parameters)
    return root


def _write_film(folder: Path, case: str, seed: int, reduction: int, deformity: float) -> None:
    """Write what is missing of one film; the points come last."""
    meta = folder / f"{case}_meta.json"
    if meta.is_file():
        return
    rng = np.random.default_rng([seed, int(case)])
    film, points, pixel_size, angles = lower_limb_phantom(rng, reduction, deformity)
    size_mm = np.multiply(film.shape[::-1], pixel_size)
    original = np.rint(size_mm / rng.uniform(0.13, 0.16)).astype(int)
    spacing = size_mm / original
    right, left = np.split(points / spacing - 0.5, 2)
    # The real files hold three more points after the ten of each leg; here these are some on the shin.
    legs = [
        np.concatenate([leg, leg[4] + np.array([[0.2], [0.5], [0.8]]) * (leg[9] - leg[4])]) for leg in (right, left)
    ]
    values = {
        "gt": np.concatenate(legs).round(3).tolist(),
        "original_shape": original[::-1].tolist(),
        "spacing": spacing[::-1].tolist(),
        "angles": angles.tolist(),
    }
    write_film(folder / f"{case}_384.png", film)
    write_text(meta, json.dumps(values) + "\n")


def _expose_film(
    size_mm: tuple[float, float], legs: tuple[Leg, Leg], size: tuple[int, int], noise: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw with square pixels, somewhat finer than the film's, and squeeze the whole extent to the film's size."""
    scene, exposure, frame = rng.spawn(3)
    pixel_mm = 0.75 * min(side / count for side, count in zip(size_mm, size, strict=True))
    fine = tuple(int(np.ceil(side / pixel_mm)) for side in size_mm)
    film = Film(size_mm, (fine[0], fine[1]), pixel_mm, origin_pixel_mm=0.0)
    letter = LETTER_L * 1.6 + (size_mm[0] - frame.uniform(25, 40), frame.uniform(12, 50))
    if frame.uniform() < 0.7:
        # The letter lies at the patient's left, which is the right of the picture.
        film.fill(letter, 1.5)
    grey = expose(draw_lower_limb_film(film, size_mm, legs, scene), pixel_mm, noise, exposure)
    _join_exposures(grey, frame)
    image = PILImage.fromarray(grey.astype(np.float32))
    box = (0.0, 0.0, *(side / pixel_mm for side in size_mm))
    squeezed = np.asarray(image.resize(size, PILImage.Resampling.BILINEAR, box=box))
    return np.clip(squeezed + 0.5, 0, 255).astype(np.uint8)


def _join_exposures(grey: np.ndarray, rng: np.random.Generator) -> None:
    """Change the brightness of the lower parts in place, where the film was joined from three exposures."""
    if rng.uniform() < 0.6:
        for share in rng.uniform((0.3, 0.63), (0.37, 0.7)):
            grey[round(share * len(grey)) :] *= rng.uniform(0.93, 1.07)
