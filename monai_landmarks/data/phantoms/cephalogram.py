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
"""A parametric lateral cephalogram with true landmarks, and a folder of such films in the ISBI 2015 layout."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from monai_landmarks.data.datasets.isbi2015 import ISBI2015_LANDMARKS, OFFICIAL_FOLDERS, ORIGINAL_SIZE, SECTIONS
from monai_landmarks.data.files import write_text

from .apparatus import draw_apparatus, expose, stamp_frame
from .drawing import Film, enlarge_twice
from .film_files import check_reduction, number_films, write_film
from .head import FILM_MM, SAMPLES, Head, Pose, build_head, draw_pose
from .scene import draw_head
from .volume_files import finish_phantom, start_phantom

__all__ = ["cephalogram_phantom", "write_cephalogram_phantom"]

VERSION = 1
"""Counted up whenever the same seed gives other films, so that a folder of older films is not taken for these."""

PIXEL_MM = 0.1
MARGIN_MM = 6.0

SOFT_NASION = 10 * SAMPLES
"""Index of the bridge of the nose on the sampled skin."""

NOTICE = """This is a phantom. The films in this folder are computer drawings of a made-up head, not radiographs of
patients; their landmarks are true by construction. They are laid out like the ISBI 2015 cephalometric challenge so
that the same reader serves both. 400_junior and 400_senior hold the true points plus independent random reader
errors, rounded to whole original pixels; true_points_mm.csv holds the true points. No number obtained on these
films says anything about performance on patients."""


def cephalogram_phantom(
    seed: int | np.random.Generator = 0,
    reduction: int = 4,
    shape: float = 1.0,
    rotation_deg: float = 10.0,
    scale: float = 0.08,
    translation_mm: float = 10.0,
    occlusion: bool = True,
    noise: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one lateral cephalogram with its 19 true landmarks.

    A hand-made template of a head is bent by about twenty correlated shape modes and posed on the film; the
    landmarks are then located on the bent outlines by their anatomical definition, to better than 0.1 mm. The film
    also shows what misleads on a real one: second contours of jaw and orbit, ear-rod rings at the porion, a spine full
    of corners, a nose rest with a ruler, film number, fillings and brackets, uneven exposure, noise.

    Args:
        seed: seed or generator. The same seed gives the same head at every ``reduction``.
        reduction: integer ``k``; the film has ``ceil(1935 / k) x ceil(2400 / k)`` pixels of ``0.1 * k`` mm.
        shape: strength of the shape variation, 0 for the template.
        rotation_deg: largest rotation.
        scale: largest relative change of size.
        translation_mm: largest shift along each axis. A shift that would put a landmark within 6 mm of the film's
            border is shortened.
        occlusion: draw fillings and brackets on some films.
        noise: strength of the noise, 0 for none.

    Returns:
        The film, uint8 ``(height, width)``, bright where the head attenuates, and the points, float64 ``(19, 2)``, in
        film-plane mm (x right, y down; ``mm = 0.1 * original pixel``), in the order of ``ISBI2015_LANDMARKS``.

    Raises:
        ValueError: when ``reduction`` is not a positive integer.

    Example:
        >>> image, points = cephalogram_phantom(seed=1, reduction=8)
        >>> image.shape, points.shape
        ((300, 242), (19, 2))
    """
    check_reduction(reduction, "the original 1935 x 2400")
    # Streams of their own keep head and pose the same when a switch changes how much the drawing draws.
    body_rng, scene_rng, apparatus_rng, exposure_rng, frame_rng = np.random.default_rng(seed).spawn(5)
    head, pose = _build(body_rng, shape, rotation_deg, scale, translation_mm)
    attenuation = _draw(head, pose, reduction, occlusion, scene_rng, apparatus_rng)
    pixel_mm = PIXEL_MM * reduction
    grey = expose(attenuation, pixel_mm, noise, exposure_rng)
    stamp_frame(grey, pixel_mm, frame_rng)
    return np.clip(grey + 0.5, 0, 255).astype(np.uint8), pose(head.landmarks)


def write_cephalogram_phantom(
    folder: str | Path,
    num_training: int = 40,
    num_test1: int = 10,
    num_test2: int = 0,
    reduction: int = 4,
    seed: int = 0,
    reader_sd_mm: float = 0.5,
) -> Path:
    """Write a phantom data set in the layout of the ISBI 2015 challenge, for ``isbi2015_datalist`` to read.

    Films are numbered as in the challenge: training from 001, Test1 from 151, Test2 from 301. Film and points of a
    number depend on ``seed`` and the number alone, not on how many there are. ``PHANTOM.txt`` is written first and
    says that this is a phantom; ``PHANTOM.json``, written last, marks the folder complete and lists its films.
    A complete folder with the same parameters is used again, an interrupted one is completed. Several processes may
    write the same folder at once.

    Args:
        folder: a new or empty folder, or one this function wrote.
        num_training: films 001, 002, ..., at most 150.
        num_test1: films 151, 152, ..., at most 150.
        num_test2: films 301, 302, ..., at most 100.
        reduction: integer ``k``, see ``cephalogram_phantom``; 2 is the size of the usual reduced films.
        seed: seed of the films and of the readers' errors.
        reader_sd_mm: standard deviation per axis of each of the two readers, around the true point.

    Returns:
        The folder.

    Raises:
        ValueError: when a number is out of range, or the folder holds anything else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     root = write_cephalogram_phantom(folder, num_training=1, num_test1=0, reduction=16)
        ...     sorted(path.name for path in root.iterdir())
        ['400_junior', '400_senior', 'PHANTOM.json', 'PHANTOM.txt', 'RawImage', 'true_points_mm.csv']
    """
    check_reduction(reduction, "the original 1935 x 2400")
    if reader_sd_mm < 0:
        raise ValueError(f"reader_sd_mm must not be negative, got {reader_sd_mm}.")
    counts = {"training": num_training, "test1": num_test1, "test2": num_test2}
    sections = {name: (first, last - first + 1) for name, (first, last) in SECTIONS.items()}
    cases = number_films(counts, sections, "{:03d}".format)
    parameters = {
        "phantom": "cephalogram",
        "version": VERSION,
        "reduction": int(reduction),
        "seed": int(seed),
        "reader_sd_mm": float(reader_sd_mm),
        "cases": cases,
    }
    root = Path(folder)
    if start_phantom(root, parameters, NOTICE):
        return root
    truth = {
        case: _write_film(root, section, case, reduction, seed, reader_sd_mm)
        for section, numbers in cases.items()
        for case in numbers
    }
    _write_truth(root / "true_points_mm.csv", truth)
    finish_phantom(root, parameters)
    return root


def _draw(
    head: Head, pose: Pose, reduction: int, occlusion: bool, scene: np.random.Generator, apparatus: np.random.Generator
) -> np.ndarray:
    """Attenuation at the reduction's size.

    Focal spot, screen and movement blur a film by some tenths of a millimetre. Films with pixels of 0.1 and 0.2 mm
    are therefore drawn at 0.4 mm, where coverage is exact, and interpolated: that is the blur.
    """
    doublings = {1: 2, 2: 1}.get(reduction, 0)
    k = reduction << doublings
    size = (-(-ORIGINAL_SIZE[0] // k), -(-ORIGINAL_SIZE[1] // k))
    attenuation = draw_head(Film(FILM_MM, size, PIXEL_MM * k), head, pose, scene, occlusion)
    ear, soft_nasion = pose(np.stack([head.curves["ear_canal"].mean(axis=0), head.curves["skin"][SOFT_NASION]]))
    attenuation += draw_apparatus(Film(FILM_MM, size, PIXEL_MM * k), ear, soft_nasion, apparatus)
    for _ in range(doublings):
        k //= 2
        attenuation = enlarge_twice(attenuation, -(-ORIGINAL_SIZE[1] // k), -(-ORIGINAL_SIZE[0] // k))
    return attenuation


def _build(
    rng: np.random.Generator, shape: float = 1.0, rotation: float = 10.0, scale: float = 0.08, translation: float = 10.0
) -> tuple[Head, Pose]:
    """The head and a pose that keeps its landmarks on the film."""
    head = build_head(rng, shape)
    return head, _keep_inside(draw_pose(rng, rotation, scale, translation), head.landmarks)


def _keep_inside(pose: Pose, landmarks: np.ndarray) -> Pose:
    points = pose(landmarks)
    lowest = np.minimum(points.min(axis=0) - MARGIN_MM, 0)
    highest = np.maximum(points.max(axis=0) + MARGIN_MM - FILM_MM, 0)
    shift = np.asarray(pose.shift) - lowest - highest
    return replace(pose, shift=(float(shift[0]), float(shift[1])))


def _write_film(root: Path, section: str, case: str, reduction: int, seed: int, reader_sd_mm: float) -> np.ndarray:
    """Write what is missing of one film and its two readers' points; return the true points in mm."""
    rng = np.random.default_rng([seed, int(case)])
    path = root / "RawImage" / OFFICIAL_FOLDERS[section] / f"{case}.png"
    if path.is_file():
        head, pose = _build(rng.spawn(1)[0])
        points = pose(head.landmarks)
    else:
        image, points = cephalogram_phantom(rng, reduction)
        write_film(path, image)
    for number, reader in enumerate(("junior", "senior"), start=1):
        error = np.random.default_rng([seed, int(case), number]).normal(0, reader_sd_mm, points.shape)
        pixels = np.rint((points + error) / PIXEL_MM).astype(int).clip(0, np.array(ORIGINAL_SIZE) - 1)
        write_text(root / f"400_{reader}" / f"{case}.txt", "".join(f"{x},{y}\n" for x, y in pixels))
    return points


def _write_truth(path: Path, truth: dict[str, np.ndarray]) -> None:
    def line(cells: Iterable[str]) -> str:
        return ",".join(cells) + "\n"

    header = line(["case", *(f"{name}_{axis}" for name in ISBI2015_LANDMARKS for axis in "xy")])
    rows = (line([case, *(f"{value:.4f}" for value in points.ravel())]) for case, points in truth.items())
    write_text(path, header + "".join(rows))
