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
"""Parametric MR volumes of the loins with the true centres of L1 to L5, and a folder of them laid out like lumbar_mr."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from monai_landmarks.data.files import write_text

from .spine import Spine, build_spine
from .spine_bones import SIDES, Tissue, draw_bones
from .trunk import back_line, skin_distance
from .volume_drawing import Canvas, rotation_matrix
from .volume_files import finish_phantom, start_phantom, write_volume

__all__ = ["lumbar_mr_phantom", "write_lumbar_mr_phantom"]

VERSION = 1
"""Counted up whenever the same seed gives other volumes, so that a folder of older ones is not taken for these."""

NAMES = ("L1", "L2", "L3", "L4", "L5")
VOXEL_MM = 1.5
SHAPE = (150, 150, 52)
MARGIN_MM = 12.0
# The mean of L3 in the real volumes and its standard deviation, mm; the bodies there are larger than in CSI 2014.
_PLACE, _PLACE_SD, _SIZE = (108.0, 103.0, 38.0), (8.0, 10.0, 3.5), 1.045

NOTICE = """This is a phantom. The volumes in this folder are computer drawings of made-up spines, not MR scans of
people; their landmarks are true by construction. They are laid out like the lumbar_mr data set so that the same
reader serves both. No number obtained on these volumes says anything about performance on people."""


def lumbar_mr_phantom(
    seed: int | np.random.Generator = 0, reduction: int = 1, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one MR volume of the loins with the true centres of L1 to L5.

    The contrast is that of the real volumes, in which fat is suppressed: bright fluid, discs and muscle, grey marrow,
    dark fat, cortex and vessels, brighter towards the coil under the back. Some discs are dark, as worn ones are. T12
    with its ribs and the sacrum are in view: they alone tell the level.

    Args:
        seed: seed or generator. The same seed gives the same person at every ``reduction``.
        reduction: integer ``k``; voxels of ``1.5 * k`` mm, ``ceil(150 / k) x ceil(150 / k) x ceil(52 / k)`` of them.
        noise: strength of the noise, 0 for none.

    Returns:
        The volume, uint8; its axes run to the feet, to the back and to the left. The affine, (4, 4), which has only
        the voxel size, as in the real data: no patient frame. The points ``(5, 3)``, mm in that frame.

    Raises:
        ValueError: when ``reduction`` is not a positive integer.

    Example:
        >>> volume, affine, points = lumbar_mr_phantom(seed=1, reduction=3)
        >>> volume.shape, affine[0, 0].item(), points.shape
        ((50, 50, 18), 4.5, (5, 3))
    """
    _check_reduction(reduction)
    body, pose, soft, noise_rng = np.random.default_rng(seed).spawn(4)
    spine = build_spine(body, size=_SIZE)
    to_patient = _draw_pose(spine, pose)
    affine = np.diag([VOXEL_MM * reduction] * 3 + [1.0])
    shape = tuple(-(-size // reduction) for size in SHAPE)
    canvas = Canvas(shape, to_patient @ affine, background=0.0)
    _draw_soft(canvas, spine, soft)
    worn = soft.random() < 0.15
    tissue = Tissue(
        cortical=45.0,
        trabecular=soft.uniform(100, 150),
        arch=75.0,
        disc=soft.uniform(85, 120) if worn else soft.uniform(170, 220),
        canal=soft.uniform(220, 270),
        cord=185.0,
        rind_mm=1.3,
    )
    draw_bones(canvas, spine, tissue)
    _apply_coil(canvas, spine, soft)
    if noise:
        canvas.values += np.float32(2.0 * noise) * noise_rng.standard_normal(shape, dtype=np.float32)
    centres = np.stack([spine.frame(name)[:3, 3] for name in NAMES])
    from_patient = np.linalg.inv(to_patient)
    points = centres @ from_patient[:3, :3].T + from_patient[:3, 3]
    return np.rint(np.clip(np.abs(canvas.values), 0, 255)).astype(np.uint8), affine, points


def write_lumbar_mr_phantom(folder: str | Path, num_cases: int = 40, seed: int = 0, reduction: int = 1) -> Path:
    """Write a phantom data set laid out like ``lumbar_mr``: ``images/NN.nii.gz`` and ``centroids_mm.csv``.

    Volume and points of a number depend on ``seed`` and the number alone, not on how many there are. ``PHANTOM.txt``
    is written first and says that this is a phantom; ``PHANTOM.json``, written last, marks the folder complete. A
    complete folder with the same parameters is used again, an interrupted one is completed.

    Args:
        folder: a new or empty folder, or one this function wrote.
        num_cases: volumes 01, 02, ..., at most 99.
        seed: of the volumes.
        reduction: integer ``k``, see ``lumbar_mr_phantom``.

    Returns:
        The folder.

    Raises:
        ValueError: when a number is out of range, or the folder holds anything else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     root = write_lumbar_mr_phantom(folder, num_cases=1, reduction=6)
        ...     sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))
        ['PHANTOM.json', 'PHANTOM.txt', 'centroids_mm.csv', 'images/01.nii.gz']
    """
    _check_reduction(reduction)
    if not 1 <= num_cases <= 99:
        raise ValueError(f"num_cases must be 1 to 99, got {num_cases}.")
    cases = [f"{number:02d}" for number in range(1, num_cases + 1)]
    parameters = {
        "phantom": "lumbar_mr",
        "version": VERSION,
        "seed": int(seed),
        "reduction": int(reduction),
        "cases": {"all": cases},
    }
    root = Path(folder)
    if start_phantom(root, parameters, NOTICE):
        return root
    rows = [",".join(["case", *(f"{name}_{axis}" for name in NAMES for axis in "ijk")])]
    for case in cases:
        volume, affine, points = lumbar_mr_phantom(np.random.default_rng([seed, int(case)]), reduction)
        write_volume(root / "images" / f"{case}.nii.gz", volume, affine)
        rows.append(",".join([case, *(f"{value:.3f}" for value in points.ravel())]))
    write_text(root / "centroids_mm.csv", "\n".join(rows) + "\n")
    finish_phantom(root, parameters)
    return root


def _check_reduction(reduction: int) -> None:
    if reduction < 1 or int(reduction) != reduction:
        raise ValueError(f"reduction must be a positive integer, 1 for voxels of 1.5 mm, got {reduction}.")


def _draw_pose(spine: Spine, rng: np.random.Generator) -> np.ndarray:
    """From the file's mm to the patient's."""
    axes = np.array([[0.0, 0.0, -1.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
    turn = axes @ rotation_matrix(rng.normal((4, 0, 0), (3, 2, 2)))
    points = np.stack([spine.frame(name)[:3, 3] for name in NAMES]) @ turn.T
    points += rng.normal(_PLACE, _PLACE_SD) - points[2]
    ends = (np.array(SHAPE) - 1) * VOXEL_MM - MARGIN_MM
    points += np.maximum(MARGIN_MM - points.min(axis=0), 0) + np.minimum(ends - points.max(axis=0), 0)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, points[2] - turn @ spine.frame("L3")[:3, 3]
    return np.linalg.inv(pose)


def _draw_soft(canvas: Canvas, spine: Spine, rng: np.random.Generator) -> None:
    s, fat = spine.scale, rng.uniform(8, 30)
    patch = canvas.everywhere()
    distance = skin_distance(patch, spine, fat)
    for depth, value in ((0.0, 190.0), (2.5, 15.0), (2.5 + fat, 135.0)):
        patch.paint(distance + np.float32(depth), value)
    lumbar = np.stack([spine.frame(name)[:3, 3] for name in NAMES])
    middle = lumbar.mean(axis=0) + np.array([0, 95, 0]) * s
    canvas.ellipsoid(middle, np.array([140, 80, 190]) * s, rng.uniform(20, 50))
    for _ in range(45):
        centre = middle + rng.uniform(-1, 1, 3) * np.array([45, 65, 150]) * s
        canvas.ellipsoid(centre, rng.uniform(6, 22, 3) * s, rng.uniform(0, 160))
    for side in SIDES:
        canvas.ellipsoid(lumbar[0] + np.array([side * 62, 2, -10]) * s, np.array([25, 22, 50]) * s, 150.0)
        psoas = lumbar[:, None] + np.array([[side * 34, 4, 16], [side * 38, 4, -16]]) * s
        for number, path in enumerate(psoas):
            canvas.tube(path, (8 + 4 * number) * s, 125.0)
    for across, value in ((-7, 20.0), (17, 60.0)):
        canvas.tube(lumbar[:4] + np.array([across, 31, 0]) * s, 10 * s, value)


def _apply_coil(canvas: Canvas, spine: Spine, rng: np.random.Generator) -> None:
    """The signal falls with the distance from the coil under the back."""
    patch, reach = canvas.everywhere(), rng.uniform(110, 170)
    back = back_line(spine, 15.0)[:, 1].min()
    falling = 1.45 * np.exp(-np.maximum(patch.y - np.float32(back), 0) / np.float32(reach))
    uneven = 1 + 0.12 * np.sin(patch.z / np.float32(rng.uniform(40, 80)) + np.float32(rng.uniform(0, 6)))
    patch.values *= falling * uneven
