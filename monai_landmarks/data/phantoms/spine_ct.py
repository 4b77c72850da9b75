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
"""Parametric CTs of a spine with true landmarks, and a folder of them in the CSI 2014 layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from monai_landmarks.data.formats import write_landmarks
from monai_landmarks.data.landmarks import Landmarks
from monai_landmarks.geometry import apply_affine, inside, invert_affine

from .spine import ANATOMIES, SPINE_LANDMARKS, Spine, build_spine
from .spine_bones import SIDES, Tissue, draw_bones
from .trunk import AIR, back_line, draw_head, draw_trunk
from .volume_drawing import Canvas, local_frame, rotation_matrix, scan_grid
from .volume_files import finish_phantom, start_phantom, write_volume

__all__ = ["spine_ct_phantom", "write_spine_ct_phantom"]

VERSION = 1
"""Counted up whenever the same seed gives other scans, so that a folder of older scans is not taken for these."""

NOTICE = """This is a phantom. The scans in this folder are computer drawings of made-up spines, not CTs of patients;
their landmarks are true by construction. They are laid out like the spine data of the MICCAI CSI 2014 challenge so
that the same reader serves both. No number obtained on these scans says anything about performance on patients."""

ORIENTATIONS = (
    ("RAS", (0.0, 0.0, 0.0)),
    ("LAS", (0.0, 0.0, 0.0)),
    ("RPI", (0.0, 0.0, 0.0)),
    ("LPS", (0.0, 0.0, 0.0)),
    ("LPS", (12.0, -5.0, 7.0)),
)
"""Orientations of the files by turns, as nibabel names them; the last is oblique."""

FIRST_TEST = 501

# Share of scans, and the ranges from which their first and last landmark are drawn (0 is C1, 25 S2): neck, chest,
# chest and loins, loins, long from the chest, long from the neck.
_VIEWS = (
    (0.22, (-1.0, 1.0), (6.0, 11.0)),
    (0.06, (4.0, 9.0), (10.0, 17.0)),
    (0.19, (10.0, 15.0), (17.0, 22.0)),
    (0.19, (14.0, 21.0), (23.5, 26.5)),
    (0.20, (5.0, 9.0), (20.0, 27.0)),
    (0.14, (-1.0, 1.0), (16.0, 27.0)),
)


def spine_ct_phantom(
    seed: int | np.random.Generator = 0,
    spacing: Sequence[float] = (2.0, 2.0, 2.0),
    full: bool = False,
    orientation: str = "RAS",
    oblique_deg: Sequence[float] = (0.0, 0.0, 0.0),
    anatomy: str = "normal",
    variation: float = 1.0,
    tilt_deg: float = 7.0,
    metal: float = 0.15,
    noise: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one CT of a spine with the true centres of its vertebrae.

    A spine of random size, curvature and scoliosis lies on a table, with ribs, pelvis, skull base and organs around
    it. Vertebrae resemble their neighbours; what tells their level is what tells it in a patient: the length of the
    ribs, the sacrum, the dens, size. The drawing is made on the voxel grid itself, so that every spacing and
    orientation shows the same person without resampling.

    Args:
        seed: seed or generator. The same seed gives the same person at every spacing, orientation and view, and, to a
            voxel's rounding and the turn of an oblique scan, the same field of view.
        spacing: voxel sizes along the image's axes, in mm.
        full: show all of the spine; otherwise the field of view is random, as in CSI 2014: about a third of the scans
            is long, most show a part of the spine, and some are cropped so narrowly that a bent spine leaves them.
        orientation: where the image's axes point to, as nibabel says it, such as ``"LPS"``.
        oblique_deg: turn of the field of view about x, y and z.
        anatomy: ``"normal"``, ``"T13"``, ``"L6"``, ``"no_T12"`` or ``"no_L5"``. The vertebra too many has no name among
            the 26 and no point.
        variation: strength of the differences between people, 0 for the mean spine.
        tilt_deg: standard deviation of the body's rotation about each axis; half of it about the z axis.
        metal: share of the scans with screws and rods.
        noise: strength of the noise, 0 for none.

    Returns:
        The volume, int16 Hounsfield units ``(X, Y, Z)``; the affine, (4, 4) from voxel index to RAS mm; and the points
        ``(26, 3)`` in RAS mm, C1 to S2, NaN for a centre outside the field of view. The point is the centre of the
        vertebral body; of C1, which has none, the dens within its ring.

    Raises:
        ValueError: for an unknown anatomy or orientation.

    Example:
        >>> volume, affine, points = spine_ct_phantom(seed=1, spacing=(4, 4, 4), full=True)
        >>> volume.dtype.name, points.shape, bool(np.isfinite(points).all())
        ('int16', (26, 3), True)
    """
    # Streams of their own keep person and view the same when a switch changes how much another part draws.
    body, pose_rng, view, soft, metal_rng, noise_rng = np.random.default_rng(seed).spawn(6)
    spine = build_spine(body, anatomy, variation)
    pose = _draw_pose(pose_rng, tilt_deg)
    points = spine.landmarks @ pose[:3, :3].T + pose[:3, 3]
    gantry = rotation_matrix(oblique_deg)
    centre, extent = _draw_view((spine.centres[:-3] @ pose[:3, :3].T + pose[:3, 3]) @ gantry, full, view)
    shape, affine = scan_grid(gantry @ centre, extent, spacing, orientation, oblique_deg)
    canvas = Canvas(shape, np.linalg.inv(pose) @ affine, AIR)
    tissue = _draw_tissue(soft)
    _draw_table(canvas, spine, pose, soft)
    draw_trunk(canvas, spine, soft)
    draw_head(canvas, spine, tissue)
    draw_bones(canvas, spine, tissue, ribs=float(np.clip(soft.normal(1, 0.12), 0.7, 1.3)))
    if metal_rng.random() < metal:
        _draw_screws(canvas, spine, pose, metal_rng)
    if noise:
        strength = noise * noise_rng.uniform(15, 45) * min(2.0 / canvas.edge, 1.5)
        canvas.values += np.float32(strength) * noise_rng.standard_normal(shape, dtype=np.float32)
    index = apply_affine(torch.from_numpy(points), invert_affine(torch.from_numpy(affine)))
    points[~inside(index, shape).numpy()] = np.nan
    return np.rint(np.clip(canvas.values, -1024, 3071)).astype(np.int16), affine, points


def write_spine_ct_phantom(
    folder: str | Path,
    num_training: int = 40,
    num_test: int = 10,
    seed: int = 0,
    spacing: Sequence[float] = (2.0, 2.0, 2.5),
    full: bool = False,
    metal: float = 0.15,
    anomalies: float = 0.0,
) -> Path:
    """Write a phantom data set in the layout of MICCAI CSI 2014.

    ``spine-1/phantom/NNN/NNN.nii.gz`` with ``NNN.lml`` are for training, numbered from 001;
    ``spine-test-data/NNN.nii.gz`` with ``NNN.lml`` for testing, from 501. A ``.lml`` file lists the vertebrae in the
    scan only. Files have the orientations of ``ORIENTATIONS`` by turns and voxel sizes up to 15 % off ``spacing``.
    Scan and points of a number depend on the arguments and the number alone, not on how many there are.
    ``PHANTOM.txt`` is written first and says that this is a phantom; ``PHANTOM.json``, written last, marks the folder
    complete. A complete folder with the same parameters is used again, an interrupted one is completed.

    Args:
        folder: a new or empty folder, or one this function wrote.
        num_training: scans 001, 002, ..., at most 500.
        num_test: scans 501, 502, ..., at most 499.
        seed: of the scans.
        spacing: mean voxel sizes in mm.
        full: every scan shows all of the spine.
        metal: share of the scans with screws and rods.
        anomalies: share of the scans with a vertebra more or less than usual.

    Returns:
        The folder.

    Raises:
        ValueError: when a number is out of range, or the folder holds anything else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     root = write_spine_ct_phantom(folder, num_training=1, num_test=1, spacing=(6, 6, 6))
        ...     sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))
        ['PHANTOM.json', 'PHANTOM.txt', 'spine-1/phantom/001/001.lml', 'spine-1/phantom/001/001.nii.gz',
         'spine-test-data/501.lml', 'spine-test-data/501.nii.gz']
    """
    cases = _number_scans(num_training, num_test)
    options = {"spacing": [float(s) for s in spacing], "full": full, "metal": metal, "anomalies": anomalies}
    parameters = {"phantom": "spine_ct", "version": VERSION, "seed": int(seed), **options, "cases": cases}
    root = Path(folder)
    if start_phantom(root, parameters, NOTICE):
        return root
    for part, numbers in cases.items():
        for case in numbers:
            parent = root / "spine-1" / "phantom" / case if part == "training" else root / "spine-test-data"
            if not (parent / f"{case}.lml").is_file():
                _write_scan(parent, case, seed, spacing, full, metal, anomalies)
    finish_phantom(root, parameters)
    return root


def _number_scans(num_training: int, num_test: int) -> dict[str, list[str]]:
    cases = {}
    for part, count, first, most in (("training", num_training, 1, 500), ("test", num_test, FIRST_TEST, 499)):
        if not 0 <= count <= most:
            raise ValueError(f"num_{part} must be 0 to {most}, got {count}.")
        cases[part] = [f"{number:03d}" for number in range(first, first + count)]
    if not any(cases.values()):
        raise ValueError("num_training and num_test are both 0: there is nothing to write.")
    return cases


def _write_scan(
    parent: Path, case: str, seed: int, spacing: Sequence[float], full: bool, metal: float, anomalies: float
) -> None:
    """Write scan, then points: where the points are, the scan is whole."""
    rng = np.random.default_rng([seed, int(case)])
    sizes = np.asarray(spacing) * np.repeat(rng.uniform(0.87, 1.15, 2), (2, 1))
    anatomy = str(rng.choice(ANATOMIES[1:])) if rng.random() < anomalies else "normal"
    orientation, oblique = ORIENTATIONS[int(case) % len(ORIENTATIONS)]
    volume, affine, points = spine_ct_phantom(
        rng, sizes.tolist(), full, orientation, oblique, anatomy=anatomy, metal=metal
    )
    seen = np.isfinite(points).all(axis=1)
    names = [name for name, here in zip(SPINE_LANDMARKS, seen, strict=True) if here]
    write_volume(parent / f"{case}.nii.gz", volume, affine)
    write_landmarks(Landmarks(points[seen], names), parent / f"{case}.lml", affine=affine)


def _draw_pose(rng: np.random.Generator, tilt_deg: float) -> np.ndarray:
    """From patient mm to the scanner's."""
    tilt = np.clip(rng.normal(0, 1, 3), -2, 2) * tilt_deg * np.array([0.5, 0.5, 1.0])
    return local_frame(rng.uniform(-1, 1, 3) * np.array([20, 20, 300]), rotation_matrix(tilt))


def _draw_view(centres: np.ndarray, full: bool, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Centre and extent of the field of view, in the axes in which the body centres are given."""
    kind = _VIEWS[int(rng.choice(len(_VIEWS), p=[share for share, *_ in _VIEWS]))]
    first, last = (rng.uniform(*limits) / 25 * (len(centres) - 1) for limits in kind[1:])
    width, depth, behind, aside = rng.uniform((110, 120, 58, -12), (200, 190, 85, 12))
    if full:
        low, high = centres.min(axis=0) - (60, 90, 45), centres.max(axis=0) - (-60, -70, -45)
        return (low + high) / 2, high - low
    # Beyond the first and the last centre it goes on at 40 mm a landmark.
    rows = np.arange(len(centres))
    top = np.interp(first, rows, centres[:, 2]) + max(0.0, -first) * 40
    bottom = np.interp(last, rows, centres[:, 2]) - max(0.0, last - rows[-1]) * 40
    shown = centres[(centres[:, 2] < top) & (centres[:, 2] > bottom)]
    back = min(shown[:, 1].mean(), shown[:, 1].min() + 15) - behind
    middle = [shown[:, 0].mean() + aside, back + depth / 2, (top + bottom) / 2]
    return np.array(middle), np.array([width, depth, top - bottom])


def _draw_tissue(rng: np.random.Generator) -> Tissue:
    density = rng.uniform(0.65, 1.25)
    return Tissue(
        cortical=720 * density,
        trabecular=190 * density,
        arch=430 * density,
        disc=rng.uniform(75, 110),
        canal=5.0,
        cord=42.0,
    )


def _draw_table(canvas: Canvas, spine: Spine, pose: np.ndarray, rng: np.random.Generator) -> None:
    """A curved board under the back, along the scanner's z axis."""
    back = back_line(spine, 12.0) @ pose[:3, :3].T + pose[:3, 3]
    height, middle = back[:, 1].min() - rng.uniform(2, 14), pose[0, 3] + rng.uniform(-20, 20)
    patch = canvas.patch((middle - 230, height - 60, -1e4), (middle + 230, height + 90, 1e4), np.linalg.inv(pose))
    if patch is None:
        return
    radius = 330.0
    distance = np.sqrt((patch.x - np.float32(middle)) ** 2 + (patch.y - np.float32(height + radius)) ** 2) - radius
    patch.paint(np.abs(distance - 12) - 12, -920.0)
    for depth in (1.5, 22.5):
        patch.paint(np.abs(distance - np.float32(depth)) - np.float32(1.5), -150.0)


def _draw_screws(canvas: Canvas, spine: Spine, pose: np.ndarray, rng: np.random.Generator) -> None:
    """Screws through the pedicles of some neighbouring vertebrae, rods between them and their streaks."""
    first, count = int(rng.integers(11, 20)), int(rng.integers(2, 6))
    heads: dict[int, list[np.ndarray]] = {-1: [], 1: []}
    for index in range(first, first + count):
        width, depth, height = spine.sizes[index]
        for side in SIDES:
            tip = np.array([side * 0.16 * width, 0.2 * depth, 0.1 * height])
            head = np.array([side * 0.5 * width, -depth / 2 - 26 * spine.scale, 0.25 * height])
            canvas.tube([tip, head], 2.6, 3000.0, spine.frames[index])
            heads[side].append((spine.frames[index] @ np.r_[head, 1])[:3])
    for side in SIDES:
        canvas.tube(heads[side], 3.0, 3000.0)
    _draw_streaks(canvas, np.concatenate([heads[-1], heads[1]]), pose, rng)


def _draw_streaks(canvas: Canvas, metal: np.ndarray, pose: np.ndarray, rng: np.random.Generator) -> None:
    """Bright and dark rays in the scanner's transverse planes that hold metal."""
    places = metal @ pose[:3, :3].T + pose[:3, 3]
    reach = np.array((70.0, 70.0, 5.0))
    for place in places:
        patch = canvas.patch(place - reach, place + reach, np.linalg.inv(pose))
        if patch is None:
            continue
        x, y, z = patch.x - np.float32(place[0]), patch.y - np.float32(place[1]), patch.z - np.float32(place[2])
        far, angle = np.sqrt(x * x + y * y), np.arctan2(y, x)
        rays = np.sin(9 * angle + rng.uniform(0, 6)) + np.sin(4 * angle + rng.uniform(0, 6)) - 0.3
        fade = (
            np.exp(-far / 28) * np.clip(1 - np.abs(z) / 5, 0, 1) * np.clip(far / 4, 0, 1) * np.clip(3 - far / 25, 0, 1)
        )
        patch.values += np.float32(260.0) * (rays * fade).astype(np.float32)
