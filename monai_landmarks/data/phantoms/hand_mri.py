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
"""T1-weighted MR of a parametric left hand with true landmarks, and a folder of such volumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from monai_landmarks.data.datasets.hand_mri import HAND_MRI_LANDMARKS
from monai_landmarks.data.formats import write_landmarks
from monai_landmarks.data.landmarks import Landmarks

from .hand_skeleton import Bone, Carpal, Hand, build_hand
from .rods import tapered_rod
from .volume_drawing import Canvas, local_frame, rotation_matrix, scan_grid
from .volume_files import finish_phantom, start_phantom, write_volume

__all__ = ["hand_mri_phantom", "write_hand_mri_phantom"]

VERSION = 1
"""Counted up whenever the same seed gives other volumes, so that a folder of older ones is not taken for these."""

NOTICE = """This is a phantom. The volumes in this folder are computer drawings of made-up left hands, not MR of people;
their landmarks are true by construction. No number obtained on these volumes says anything about performance on
patients."""

ORIENTATIONS = (("LAS", 0.0), ("RPI", 0.0), ("RSP", 20.0))
"""Orientations of the files by turns, as nibabel names them, and the angle by which they are oblique."""

FAT, MUSCLE, SKIN, TENDON = 190.0, 95.0, 110.0, 30.0
MARROW, CORTEX, CARTILAGE = 215.0, 18.0, 70.0
SKIN_MM, FAT_MM, CORTEX_MM, WEB_MM = 1.3, 3.0, 0.9, 6.0

HAND_TO_WORLD = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""Lying prone, the arm beyond the head, palm down: radial is right, distal is superior, dorsal is posterior."""


def hand_mri_phantom(
    seed: int | np.random.Generator = 0,
    spacing: Sequence[float] = (1.2, 1.2, 1.8),
    orientation: str = "RSP",
    oblique_deg: float = 0.0,
    posture: float = 1.0,
    rotation_deg: float = 12.0,
    noise: float = 1.0,
    bias: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one T1-weighted volume of a left hand with its 28 true landmarks.

    Bones grow and bend as one hand: a single maturity sets size and growth plates (open in the young), a common bend and
    spread move all fingers. Marrow and fat are bright, cortex and tendons dark. The shapes are evaluated at the voxels
    of the scan itself, however it lies, so nothing is resampled and the points are exact in every orientation.

    Args:
        seed: seed or generator. The same seed gives the same hand at the same place of the world on every grid.
        spacing: mm right-left, superior-inferior and anterior-posterior: the scan's plane and its slices, in whichever
            order the array stores them. The data of the SCN paper have (0.45, 0.45, 0.9).
        orientation: where the array's axes point to, such as ``"LAS"``.
        oblique_deg: angle by which the grid is turned against the patient, about a random direction.
        posture: strength of the random bending and spreading of the fingers, 0 for a flat hand.
        rotation_deg: largest rotation of the hand in its plane; half of it out of the plane.
        noise: strength of the noise, 0 for none.
        bias: strength of the coil's uneven sensitivity, 0 for none.

    Returns:
        The volume, int16 ``(X, Y, Z)``, its affine ``(4, 4)`` to RAS mm, and the points, float64 ``(28, 3)``, world mm,
        in the order of ``HAND_MRI_LANDMARKS``.

    Raises:
        ValueError: when ``spacing`` is not three positive numbers or ``orientation`` not three different axes.

    Example:
        >>> volume, affine, points = hand_mri_phantom(seed=1, spacing=(3, 3, 4))
        >>> volume.ndim, affine.shape, points.shape
        (3, (4, 4), (28, 3))
    """
    # Streams of their own keep hand and pose the same when a switch changes how much another part draws.
    body_rng, pose_rng, grid_rng, coil_rng, noise_rng = np.random.default_rng(seed).spawn(5)
    hand = build_hand(body_rng, posture)
    pose = _draw_pose(pose_rng, rotation_deg)
    shape, affine = _lay_grid(hand, pose, spacing, orientation, oblique_deg, grid_rng)
    canvas = Canvas(shape, np.linalg.inv(pose) @ affine, 0.0)
    _draw_flesh(canvas, hand)
    for bone in hand.bones:
        _draw_bone(canvas, bone)
    for carpal in hand.carpals:
        _draw_carpal(canvas, carpal)
    volume = _receive(canvas, noise, bias, coil_rng, noise_rng)
    points = np.stack([hand.landmarks[name] for name in HAND_MRI_LANDMARKS])
    return volume, affine, points @ pose[:3, :3].T + pose[:3, 3]


def write_hand_mri_phantom(
    folder: str | Path,
    num_cases: int = 60,
    spacing: Sequence[float] = (1.2, 1.2, 1.8),
    seed: int = 0,
    noise: float = 1.0,
) -> Path:
    """Write a phantom data set for ``hand_mri_datalist``: ``images/NNN.nii.gz`` and ``landmarks/NNN.mrk.json``.

    Files have the orientations of ``ORIENTATIONS`` by turns. Volume and points of a number depend on the other arguments
    and the number alone, not on how many there are. ``PHANTOM.txt`` is written first and says that this is a phantom;
    ``PHANTOM.json``, written last, marks the folder complete. A complete folder with the same parameters is used again,
    an interrupted one is completed.

    Args:
        folder: a new or empty folder, or one this function wrote.
        num_cases: volumes 001, 002, ..., at most 999.
        spacing: see ``hand_mri_phantom``.
        seed: of the volumes.
        noise: strength of the noise, 0 for none.

    Returns:
        The folder.

    Raises:
        ValueError: when ``num_cases`` or ``spacing`` is out of range, or the folder holds anything else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     root = write_hand_mri_phantom(folder, num_cases=1, spacing=(4, 4, 4))
        ...     sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))
        ['PHANTOM.json', 'PHANTOM.txt', 'images/001.nii.gz', 'landmarks/001.mrk.json']
    """
    if not 1 <= num_cases <= 999:
        raise ValueError(f"num_cases must be 1 to 999, got {num_cases}.")
    sizes = _check_spacing(spacing)
    cases = [f"{number:03d}" for number in range(1, num_cases + 1)]
    options = {"seed": int(seed), "spacing": sizes, "noise": float(noise), "cases": cases}
    parameters = {"phantom": "hand_mri", "version": VERSION, **options}
    root = Path(folder)
    if start_phantom(root, parameters, NOTICE):
        return root
    for number, case in enumerate(cases, start=1):
        marks = root / "landmarks" / f"{case}.mrk.json"
        # The points are written last: where they are, the volume is whole.
        if not marks.is_file():
            rng, (orientation, oblique) = (
                np.random.default_rng([seed, number]),
                ORIENTATIONS[number % len(ORIENTATIONS)],
            )
            volume, affine, points = hand_mri_phantom(rng, sizes, orientation, oblique, noise=noise)
            write_volume(root / "images" / f"{case}.nii.gz", volume, affine)
            write_landmarks(Landmarks(points, HAND_MRI_LANDMARKS), marks)
    finish_phantom(root, parameters)
    return root


def _check_spacing(spacing: Sequence[float]) -> list[float]:
    sizes = [float(size) for size in spacing]
    if len(sizes) != 3 or not min(sizes) > 0:
        raise ValueError(f"spacing must be three positive numbers (mm), got {spacing!r}.")
    return sizes


def _draw_pose(rng: np.random.Generator, rotation_deg: float) -> np.ndarray:
    """The hand's frame in the world, 4x4."""
    angles = rng.uniform(-1, 1, 3) * rotation_deg * np.array([0.5, 0.5, 1.0])
    return local_frame(rng.normal(0, 15, 3), HAND_TO_WORLD @ rotation_matrix(angles))


def _lay_grid(
    hand: Hand,
    pose: np.ndarray,
    spacing: Sequence[float],
    orientation: str,
    oblique_deg: float,
    rng: np.random.Generator,
) -> tuple[tuple[int, int, int], np.ndarray]:
    """A field of view that holds the hand with some air around it and cuts the forearm."""
    turn = rng.normal(size=3)
    oblique = oblique_deg * turn / np.linalg.norm(turn)
    air = rng.uniform(3, 9, (2, 3))
    rods = [rod for rod in hand.flesh if rod.end[1] > -40]
    points = np.stack([point for rod in rods for point in (rod.start, rod.end)])
    radii = np.array([radius for rod in rods for radius in (rod.radius, rod.end_radius)])[:, None]
    axes = rotation_matrix(oblique)
    along = (points @ pose[:3, :3].T + pose[:3, 3]) @ axes
    low, high = (along - radii).min(axis=0) - air[0], (along + radii).max(axis=0) + air[1]
    by_letter = dict(zip("RLSIAP", np.repeat(_check_spacing(spacing), 2), strict=True))
    sizes = [float(by_letter.get(letter, 1.0)) for letter in orientation]
    return scan_grid(axes @ ((low + high) / 2), high - low, sizes, orientation, oblique)


def _draw_flesh(canvas: Canvas, hand: Hand) -> None:
    """Skin, fat and muscle by their depth below the surface of the smoothly joined rods, and the tendons."""
    depth = Canvas(canvas.values.shape, canvas.affine, WEB_MM)
    for rod in hand.flesh:
        reach = max(rod.radius, rod.end_radius) + WEB_MM
        patch = depth.patch(np.minimum(rod.start, rod.end) - reach, np.maximum(rod.start, rod.end) + reach)
        if patch is not None:
            distance = tapered_rod(patch, rod.start, rod.end, rod.radius, rod.end_radius)
            patch.values[...] = _smooth_minimum(patch.values, distance)
    everywhere = canvas.everywhere()
    for value, below in ((SKIN, 0.0), (FAT, SKIN_MM), (MUSCLE, SKIN_MM + FAT_MM)):
        everywhere.paint(depth.values + np.float32(below), value)
    for rod in hand.tendons:
        canvas.tube((rod.start, rod.end), rod.radius, TENDON)


def _smooth_minimum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The minimum of two distances, the groove between their surfaces filled over ``WEB_MM``."""
    nearness = np.maximum(WEB_MM - np.abs(a - b), 0) / WEB_MM
    return np.minimum(a, b) - nearness * nearness * np.float32(WEB_MM / 4)


def _draw_bone(canvas: Canvas, bone: Bone) -> None:
    widest = np.maximum(bone.knobs[0], bone.knobs[1])
    patch = canvas.patch((-widest[0], 0.0, -widest[2]), (widest[0], bone.length, widest[2]), bone.frame)
    if patch is None:
        return
    insets = [knob[1] for knob in bone.knobs]
    # The shaft's round ends stay within the knobs, whose outermost points are the bone's ends.
    rod = [max(inset, bone.shaft) for inset in insets]
    distance = patch.capsule((0.0, rod[0], 0.0), (0.0, bone.length - rod[1], 0.0), bone.shaft)
    for place, radii in zip((insets[0], bone.length - insets[1]), bone.knobs, strict=True):
        distance = np.minimum(distance, patch.ellipsoid((0.0, place, 0.0), radii))
    patch.paint(distance, CORTEX)
    inside = distance + np.float32(CORTEX_MM)
    patch.paint(inside, MARROW)
    if bone.plate_mm:
        plate = np.abs(patch.y - np.float32(bone.plate)) - np.float32(bone.plate_mm / 2)
        patch.paint(np.maximum(inside, plate), CARTILAGE)


def _draw_carpal(canvas: Canvas, carpal: Carpal) -> None:
    patch = canvas.patch(-carpal.radii, carpal.radii, carpal.frame)
    if patch is not None:
        distance = patch.ellipsoid((0.0, 0.0, 0.0), carpal.radii)
        patch.paint(distance, CORTEX)
        patch.paint(distance + np.float32(CORTEX_MM), MARROW)


def _receive(
    canvas: Canvas, noise: float, bias: float, coil_rng: np.random.Generator, noise_rng: np.random.Generator
) -> np.ndarray:
    """The magnitude image as the coil gives it: uneven sensitivity, gain, Rician noise."""
    gain = coil_rng.uniform(1.5, 3.0)
    slope, curve = coil_rng.normal(0, 0.25, 3) * bias, coil_rng.uniform(0, 0.25) * bias
    hand = canvas.everywhere()
    # In units of half a hand from its middle.
    x, y, z = hand.x / 60, (hand.y - 70) / 110, hand.z / 60
    level = slope[0] * x + slope[1] * y + slope[2] * z - curve * (x * x + y * y)
    signal = canvas.values * np.exp(level)
    sd = 7.0 * noise
    real, imaginary = (noise_rng.standard_normal(signal.shape, np.float32) * np.float32(sd) for _ in range(2))
    return np.rint(gain * np.hypot(signal + real, imaginary)).astype(np.int16)
