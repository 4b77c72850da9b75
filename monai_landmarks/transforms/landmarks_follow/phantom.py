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
"""The synthetic patient of ``check_landmarks_follow``: blobs at known places, in memory or in files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import optional_import

from ...geometry import LandmarkError, affine_nd, apply_affine, voxel_sizes

__all__ = ["PICTURES", "WRITABLE", "ImageWriter", "Phantom", "make_phantom", "spread_places", "write_image"]

#: Writes ``(image (*S) float32, affine (D + 1, D + 1), path without suffix)`` and returns the path written.
ImageWriter = Callable[[np.ndarray, np.ndarray, Path], "str | os.PathLike[str]"]

#: Kinds of files without affine.
PICTURES = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff")
_NIFTI = (".nii.gz", ".nii")
#: Kinds of files that a phantom can be written as; SimpleITK may know more.
WRITABLE = (*_NIFTI, *PICTURES, ".mha", ".mhd", ".nrrd")

_RIM = (0.07, 0.04)  # of the size, at the low and at the high end: outside the body, for what crops the foreground
_MARGIN = 3.0  # standard deviations between a blob and the rim
_SHAPES = {2: (104, 88), 3: (56, 48, 40)}
_SPACINGS = {2: (0.2, 0.25), 3: (0.8, 1.1, 1.7)}


@dataclass(frozen=True)
class Phantom:
    """A body of one grey level with one blob per landmark.

    Attributes:
        places: ``(N, D)`` float64 voxel indices, NaN for the missing landmark.
        spatial_shape: ``D`` sizes.
        affine: float64, voxel index to world.
        sigma: standard deviation of the blobs in voxels.
        intensity: of the body and of the top of a blob; outside the body it is zero.
    """

    places: torch.Tensor
    spatial_shape: tuple[int, ...]
    affine: torch.Tensor
    sigma: float
    intensity: tuple[float, float]

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return len(self.spatial_shape)

    @property
    def world(self) -> torch.Tensor:
        """The landmarks in world millimetres ``(N, D)``."""
        return apply_affine(self.places, affine_nd(self.affine, self.spatial_dims))

    @property
    def voxel_size(self) -> torch.Tensor:
        """Millimetres per voxel along each axis ``(D,)``."""
        return voxel_sizes(affine_nd(self.affine, self.spatial_dims))

    def channels(self) -> torch.Tensor:
        """Draw ``(N + 1 + D, *S)`` float32: one blob each, none, and the coordinates as grey levels (ramps)."""
        shape, dims = self.spatial_shape, self.spatial_dims
        axes = [torch.arange(size, dtype=torch.float64) for size in shape]
        body = torch.zeros(shape, dtype=torch.float64)
        body[tuple(slice(*_body(size)) for size in shape)] = 1.0
        low, top = self.intensity
        blobs = []
        for place in self.places.nan_to_num(nan=-1e6):
            factors = [torch.exp(-0.5 * ((axes[a] - place[a]) / self.sigma) ** 2) for a in range(dims)]
            blob = factors[0]
            for factor in factors[1:]:
                blob = blob.unsqueeze(-1) * factor
            # Cut to the body, so that what counts as foreground is the same with every blob and without.
            blobs.append(low * body + (top - low) * blob * body)
        ramps = [
            body * (low + (top - low) * axes[a].reshape([-1 if b == a else 1 for b in range(dims)]) / (shape[a] - 1))
            for a in range(dims)
        ]
        return torch.stack([*blobs, low * body, *ramps]).float()

    def ramp_to_coordinate(self, ramps: torch.Tensor) -> torch.Tensor:
        """Turn grey levels of the ramps ``(D, *S)`` into the coordinates that they were drawn for."""
        low, top = self.intensity
        size = torch.tensor(self.spatial_shape, dtype=torch.float64).reshape(-1, *(1,) * (ramps.ndim - 1))
        return (ramps.double() - low) / (top - low) * (size - 1)

    def image(self, channels: torch.Tensor) -> MetaTensor:
        """Return channels ``(C, *S)`` as the image that a loader would give."""
        return MetaTensor(channels.clone(), affine=self.affine.clone())


def _body(size: int) -> tuple[int, int]:
    return max(1, round(_RIM[0] * size)), size - max(1, round(_RIM[1] * size))


def make_phantom(
    spatial_dims: int,
    spatial_shape: Sequence[int] | None,
    affine: Any,
    num_landmarks: int,
    sigma: float,
    intensity: tuple[float, float],
    seed: int,
    missing: int | None,
) -> Phantom:
    """Place the landmarks.

    Args:
        spatial_dims: 2 or 3.
        spatial_shape: None for the default.
        affine: voxel to world; None for an oblique anisotropic one in 3D, a film with unequal pixels in 2D.
        num_landmarks: with the missing one.
        sigma: of the blobs in voxels.
        intensity: of body and blob.
        seed: where the places begin.
        missing: the row that is missing; None for none.

    Raises:
        LandmarkError: for a shape or affine of another dimension, or an image too small for the blobs.
    """
    shape = tuple(int(s) for s in (_SHAPES[spatial_dims] if spatial_shape is None else spatial_shape))
    if len(shape) != spatial_dims:
        raise LandmarkError(f"spatial_shape {shape} is not the shape of a {spatial_dims}D image.")
    small = [s for s in shape if _body(s)[1] - _body(s)[0] - 1 < 2 * _MARGIN * sigma + 4]
    if small:
        raise LandmarkError(
            f"spatial_shape {shape} is too small for blobs of sigma {sigma:g} voxels that keep away from the border: "
            f"give at least {int(1.2 * (2 * _MARGIN * sigma + 8))} voxels along every axis."
        )
    matrix = _default_affine(spatial_dims) if affine is None else torch.as_tensor(np.asarray(affine)).double()
    affine_nd(matrix, spatial_dims)
    places = spread_places(shape, num_landmarks, _MARGIN * sigma, seed)
    if missing is not None:
        places[missing] = torch.nan
    return Phantom(places, shape, matrix, sigma, intensity)


def _default_affine(dims: int) -> torch.Tensor:
    matrix = torch.eye(dims + 1, dtype=torch.float64)
    matrix[:dims, :dims] = torch.diag(torch.tensor(_SPACINGS[dims], dtype=torch.float64))
    if dims == 2:
        matrix[:2, 2] = torch.tensor([1.05, -2.0])
        return matrix
    for axis, angle in enumerate((0.2, -0.15, 0.3)):  # oblique, and left is right: the first axis runs towards the left
        turn = torch.eye(4, dtype=torch.float64)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[i, i] = turn[j, j] = float(np.cos(angle))
        turn[i, j], turn[j, i] = -float(np.sin(angle)), float(np.sin(angle))
        matrix = turn @ matrix
    matrix = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64)) @ matrix
    matrix[:3, 3] = torch.tensor([31.0, -12.5, 70.0])
    return matrix


def spread_places(shape: Sequence[int], count: int, margin: float, seed: int) -> torch.Tensor:
    """Spread points evenly over the body with all fractions of a voxel, two of them in opposite corners.

    They are the additive recurrence of the generalised golden ratio: even for any count, and no two symmetric.

    Args:
        shape: ``D`` sizes.
        count: number of points.
        margin: voxels between a point and the end of the body.
        seed: shifts the sequence.

    Returns:
        float64 ``(count, D)``.
    """
    dims = len(shape)
    ratio = 2.0
    for _ in range(30):
        ratio = (1 + ratio) ** (1 / (dims + 1))
    powers = torch.tensor([ratio ** -(a + 1) for a in range(dims)], dtype=torch.float64)
    steps = torch.arange(1, count + 1, dtype=torch.float64).unsqueeze(-1)
    unit = (0.5 + 0.1234 * (seed % 100) + steps * powers) % 1.0
    if count > dims + 2:
        unit[0], unit[1] = 0.0, 1.0
        unit[2] = torch.tensor([0.0, 1.0, 0.0][:dims])
    ends = [_body(s) for s in shape]
    low = torch.tensor([e[0] for e in ends], dtype=torch.float64) + margin + 0.137
    high = torch.tensor([e[1] - 1 for e in ends], dtype=torch.float64) - margin - 0.211
    return low + unit * (high - low)


def write_image(values: torch.Tensor, affine: torch.Tensor, path: Path, suffix: str) -> Path:
    """Write one channel ``(*S)`` as a file of the given kind.

    ``.nii`` and ``.nii.gz`` are written by nibabel (RAS), ``.png``, ``.bmp``, ``.jpg``, ``.tif`` by Pillow in 8 bits
    without pixel size, all others by SimpleITK (LPS).

    Args:
        values: ``(*S)``.
        affine: voxel to world, RAS millimetres in 3D, film plane in 2D.
        path: without suffix.
        suffix: with its dot.

    Returns:
        the path with suffix.
    """
    target = path.with_name(path.name + suffix)
    array = values.numpy()
    if suffix in _NIFTI:
        nib, _ = optional_import("nibabel")
        matrix = np.eye(4)
        dims = array.ndim
        small = affine_nd(affine, dims).numpy()
        matrix[:dims, :dims], matrix[:dims, 3] = small[:-1, :-1], small[:-1, -1]
        nib.save(nib.Nifti1Image(array.astype(np.float32), matrix), target)
    elif suffix in PICTURES:
        pil, _ = optional_import("PIL.Image")
        pil.fromarray(np.ascontiguousarray(array.T.round().clip(0, 255).astype(np.uint8))).save(target)
    else:
        _write_itk(array, affine_nd(affine, array.ndim), target)
    return target


def _write_itk(array: np.ndarray, affine: torch.Tensor, target: Path) -> None:
    sitk, _ = optional_import("SimpleITK")
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    dims = array.ndim
    lps = (torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64)) @ affine) if dims == 3 else affine
    spacing = voxel_sizes(lps)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:-1, -1].tolist())
    image.SetDirection((lps[:-1, :-1] / spacing).reshape(-1).tolist())
    sitk.WriteImage(image, str(target))
