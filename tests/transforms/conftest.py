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
"""Images with a Gaussian blob at a known physical point, and where the blob is after any transform.

The physical point is computed by ITK's documented formula, ``origin + direction @ (spacing * index)``, in LPS, from
numbers that SimpleITK holds; nothing here uses the package.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from blobs import rotation

OBLIQUE_SIZE = (40, 36, 26)
OBLIQUE_SPACING = (0.9, 1.1, 2.0)
OBLIQUE_ORIGIN = (-31.0, 12.5, 70.0)


def physical(image: sitk.Image, index: np.ndarray) -> np.ndarray:
    """ITK's physical points (LPS) of continuous indices (..., D)."""
    dims = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(dims, dims)
    return np.array(image.GetOrigin()) + (index * np.array(image.GetSpacing())) @ direction.T


def blob_image(size, spacing, origin, direction, centre, sigma_mm: float, top: float) -> tuple[sitk.Image, np.ndarray]:
    """A float image with one Gaussian blob centred at the continuous index ``centre``; its physical point (LPS)."""
    grid = sitk.Image(list(size), sitk.sitkFloat32)
    grid.SetSpacing(spacing)
    grid.SetOrigin(origin)
    grid.SetDirection(np.asarray(direction).ravel().tolist())
    index = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float64) for n in size], indexing="ij"), axis=-1)
    point = physical(grid, np.asarray(centre, dtype=np.float64))
    squared = ((physical(grid, index) - point) ** 2).sum(axis=-1)
    values = top * np.exp(-squared / (2 * sigma_mm**2))
    image = sitk.GetImageFromArray(values.transpose().astype(np.float32))
    image.CopyInformation(grid)
    np.testing.assert_allclose(
        image.TransformContinuousIndexToPhysicalPoint(list(map(float, centre))), point, atol=1e-9
    )
    return image, point


@pytest.fixture
def volume() -> tuple[sitk.Image, np.ndarray]:
    """An oblique anisotropic volume and the physical point (LPS) of its blob."""
    direction = rotation(0.2, -0.15, 0.3)
    return blob_image(OBLIQUE_SIZE, OBLIQUE_SPACING, OBLIQUE_ORIGIN, direction, (21.3, 17.8, 12.4), 3.0, 1000.0)


@pytest.fixture
def film() -> tuple[sitk.Image, np.ndarray]:
    """A film of 64 x 48 pixels of 0.2 x 0.3 mm with origin, and the physical point of its blob."""
    return blob_image((64, 48), (0.2, 0.3), (0.05, -2.0), np.eye(2), (35.3, 22.6), 0.9, 250.0)


@pytest.fixture
def centroid() -> Callable[[torch.Tensor], torch.Tensor]:
    """Give ``centroid(image)``: the intensity centroid (C, D) of each channel, in voxel indices."""

    def of(image: torch.Tensor) -> torch.Tensor:
        values = torch.as_tensor(image).as_subclass(torch.Tensor).double().clamp_min(0)
        total = values.flatten(1).sum(dim=1)
        assert bool((total > 0).all()), "the blob has left the image"
        axes = range(1, values.ndim)
        return torch.stack(
            [
                (values.movedim(axis, -1) * torch.arange(values.shape[axis])).flatten(1).sum(dim=1) / total
                for axis in axes
            ],
            dim=-1,
        )

    return of
