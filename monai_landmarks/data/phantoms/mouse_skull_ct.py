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
"""Micro-CT of a parametric mouse skull with 51 true landmarks, and a folder of such volumes."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np

from monai_landmarks.data.datasets.mouse_skull_ct import MOUSE_SKULL_LANDMARKS, TABLE
from monai_landmarks.data.files import write_text

from .mouse_skull import CELL_MM, LANDMARKS, Bending, BentCanvas, draw_skull
from .volume_files import finish_phantom, start_phantom, write_volume

__all__ = ["mouse_skull_phantom", "write_mouse_skull_phantom"]

VERSION = 1
"""Counted up whenever the same seed gives other volumes, so that a folder of older ones is not taken for these."""

NOTICE = """This is a phantom. The volumes in this folder are computer drawings of made-up mouse skulls, not CTs of mice;
their landmarks are true by construction. They are laid out like the real data set mouse_skull_ct so that the same
reader serves both. No number obtained on these volumes says anything about performance on real ones."""

SHAPE = (118, 194, 106)
MIDDLE = 57.5
AFFINE = np.array([[-0.15, 0, 0, 18.0], [0, -0.15, 0, 28.2], [0, 0, 0.15, -0.2], [0, 0, 0, 1.0]])
"""Grid, midline and frame of the aligned volumes of the real data set."""

TO_HEAD = np.diag([CELL_MM, CELL_MM, CELL_MM, 1.0])
TO_HEAD[0, 3] = -MIDDLE * CELL_MM
"""From voxel index of that grid to the mm in which the skull is drawn."""


def mouse_skull_phantom(
    seed: int | np.random.Generator = 0,
    reduction: int = 2,
    strain: int | np.random.Generator | None = None,
    shape: float = 1.0,
    noise: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one micro-CT volume of a mouse's head with its 51 true landmarks, on the aligned grid of the real data.

    A skull of shells and struts (braincase with sutures, snout, cheek arches, palate, teeth, jaw) is bent by nine smooth
    shape modes. Two thirds of their variance lie between strains, one third between mice of a strain; as on the real
    data, a guess by the mean shape misses by about 0.4 mm. Landmarks have the numbers, the places and the mirror pairs
    of the real ones, but are ends and crossings of this skull's own ridges and struts.

    Args:
        seed: seed or generator. The same seed gives the same skull at every ``reduction``.
        reduction: integer ``k``; ``(118, 194, 106)`` voxels of 0.15 mm are reduced ``k`` times, rounded up.
        strain: seed or generator of the strain; None draws one from ``seed``.
        shape: strength of the shape variation, 0 for the template.
        noise: strength of the noise, 0 for none.

    Returns:
        The volume, uint8 ``(X, Y, Z)``, its affine ``(4, 4)`` to RAS mm, and the points, float64 ``(51, 3)``, world mm.

    Raises:
        ValueError: when ``reduction`` is not a positive integer.

    Example:
        >>> volume, affine, points = mouse_skull_phantom(seed=1, reduction=4)
        >>> volume.shape, points.shape
        ((30, 49, 27), (51, 3))
    """
    _check_reduction(reduction)
    bending, scene_rng, noise_rng = _breed(seed, strain, shape)
    size = tuple(-(-full // reduction) for full in SHAPE)
    canvas = BentCanvas(size, TO_HEAD @ _to_full(reduction), 0.0, bending)
    draw_skull(canvas, scene_rng)
    grain = noise_rng.standard_normal(size, np.float32) * np.float32(noise)
    volume = canvas.values + grain * (2 + canvas.values / 25)
    points = _full_index(bending) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    return np.clip(volume + 0.5, 0, 255).astype(np.uint8), AFFINE @ _to_full(reduction), points


def write_mouse_skull_phantom(
    folder: str | Path, num_cases: int = 51, reduction: int = 2, per_strain: int = 3, seed: int = 0
) -> Path:
    """Write a phantom data set in the layout of ``mouse_skull_ct``, for ``mouse_skull_ct_datalist`` to read.

    ``images_aligned/<case>.nii.gz``, ``lm51_aligned_voxel.csv`` (voxel index of these images) and ``cases.csv``. Cases
    are named by strain: ``PHA_01``, ``PHA_02``, ``PHA_03``, ``PHB_01``, ... Volume and points of a name depend on
    ``seed``, ``reduction`` and the name alone. ``PHANTOM.txt`` is written first and says that this is a phantom;
    ``PHANTOM.json``, written last, marks the folder complete. A complete folder with the same parameters is used again,
    an interrupted one is completed.

    Args:
        folder: a new or empty folder, or one this function wrote.
        num_cases: number of volumes, at most 26 strains of ``per_strain``.
        reduction: integer ``k``, see ``mouse_skull_phantom``; 1 is the real size.
        per_strain: mice of each strain.
        seed: of the volumes.

    Returns:
        The folder.

    Raises:
        ValueError: when a number is out of range, or the folder holds anything else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     root = write_mouse_skull_phantom(folder, num_cases=1, reduction=6)
        ...     sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))
        ['PHANTOM.json', 'PHANTOM.txt', 'cases.csv', 'images_aligned/PHA_01.nii.gz', 'lm51_aligned_voxel.csv']
    """
    _check_reduction(reduction)
    if not (per_strain >= 1 and 1 <= num_cases <= 26 * per_strain):
        raise ValueError(
            f"num_cases must be 1 to 26 strains of per_strain={per_strain} (at least 1) mice, got {num_cases}."
        )
    places = [divmod(number, per_strain) for number in range(num_cases)]
    cases = {f"PH{string.ascii_uppercase[strain]}_{mouse + 1:02d}": (strain, mouse) for strain, mouse in places}
    options = {"seed": int(seed), "reduction": int(reduction), "cases": list(cases)}
    parameters = {"phantom": "mouse_skull_ct", "version": VERSION, **options}
    root = Path(folder)
    if start_phantom(root, parameters, NOTICE):
        return root
    header = ",".join(["case", *(f"{name}_{axis}" for name in MOUSE_SKULL_LANDMARKS for axis in "ijk")])
    rows = [header]
    for case, (strain, mouse) in cases.items():
        index = _write_case(root / "images_aligned" / f"{case}.nii.gz", seed, strain, mouse, reduction)
        rows.append(",".join([case, *(f"{value:.4f}" for value in index.ravel())]))
    write_text(root / TABLE, "\n".join(rows) + "\n")
    write_text(root / "cases.csv", "case,strain_mesh\n" + "".join(f"{case},{case[:-3]}\n" for case in cases))
    finish_phantom(root, parameters)
    return root


def _write_case(path: Path, seed: int, strain: int, mouse: int, reduction: int) -> np.ndarray:
    """Write a volume that is not there yet; return its landmarks' voxel indices."""

    def sources() -> tuple[np.random.Generator, np.random.Generator]:
        return np.random.default_rng([seed, strain, mouse, 1]), np.random.default_rng([seed, strain, 2])

    if not path.is_file():
        body, kind = sources()
        volume, affine, _ = mouse_skull_phantom(body, reduction, kind)
        write_volume(path, volume, affine)
    bending, *_ = _breed(*sources(), 1.0)
    return (_full_index(bending) - (reduction - 1) / 2) / reduction


def _breed(
    seed: int | np.random.Generator, strain: int | np.random.Generator | None, shape: float
) -> tuple[Bending, np.random.Generator, np.random.Generator]:
    """The shape of a mouse, and the sources of what lies around it and of the noise."""
    kind_rng, own_rng, scene_rng, noise_rng = np.random.default_rng(seed).spawn(4)
    if strain is not None:
        kind_rng = np.random.default_rng(strain)
    kind, own = (rng.standard_normal(len(Bending.SD)) for rng in (kind_rng, own_rng))
    return Bending(shape * (np.sqrt(2 / 3) * kind + np.sqrt(1 / 3) * own)), scene_rng, noise_rng


def _full_index(bending: Bending) -> np.ndarray:
    """Landmarks as voxel indices of the full-size grid."""
    return (bending.there(LANDMARKS) - TO_HEAD[:3, 3]) / CELL_MM


def _to_full(reduction: int) -> np.ndarray:
    """From voxel index to that of the full grid: a coarse voxel's centre is the middle of the fine ones it stands for."""
    matrix = np.diag([reduction, reduction, reduction, 1.0])
    matrix[:3, 3] = (reduction - 1) / 2
    return matrix


def _check_reduction(reduction: int) -> None:
    if reduction < 1 or int(reduction) != reduction:
        raise ValueError(f"reduction must be a positive integer, 1 for voxels of 0.15 mm, got {reduction}.")
