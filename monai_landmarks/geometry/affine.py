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
"""Affine maps between voxel indices and world millimetres. See the package's coordinate law in ``geometry``."""

from __future__ import annotations

from typing import Any

import torch
from monai.data.utils import to_affine_nd
from monai.utils import MetaKeys, SpaceKeys

from .points import LandmarkError, plain_tensor

__all__ = ["affine_nd", "apply_affine", "image_affine", "invert_affine", "voxel_sizes", "world_from_space"]


def _matrix(affine: Any) -> torch.Tensor:
    return plain_tensor(torch.as_tensor(affine)).to(torch.float64)


def affine_nd(affine: Any, spatial_dims: int) -> torch.Tensor:
    """Bring a 3x3 or 4x4 affine to the size that ``spatial_dims`` asks for.

    MONAI hands 2D images on with either size, depending on the reader and on lazy evaluation.

    Args:
        affine: one square matrix, 3x3 or 4x4.
        spatial_dims: 2 or 3.

    Returns:
        float64 tensor ``(D + 1, D + 1)``.

    Raises:
        LandmarkError: if the matrix is not square, holds NaN or is singular.

    Example:
        >>> import torch
        >>> affine_nd(torch.diag(torch.tensor([0.2, 0.3, 1.0, 1.0])), 2).diagonal()
        tensor([0.2000, 0.3000, 1.0000], dtype=torch.float64)
    """
    matrix = _matrix(affine)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] not in (3, 4):
        raise LandmarkError(
            f"an affine must be one 3x3 or 4x4 matrix, got shape {tuple(matrix.shape)}"
            + (": decollate the batch first, each image has its own affine." if matrix.ndim == 3 else ".")
        )
    matrix = torch.as_tensor(to_affine_nd(spatial_dims, matrix.cpu()), dtype=torch.float64)
    invert_affine(matrix)
    return matrix


def invert_affine(affine: torch.Tensor) -> torch.Tensor:
    """Invert affines, refusing those that squash space.

    Args:
        affine: ``(..., D + 1, D + 1)``.

    Returns:
        float64 tensor of the same shape.

    Raises:
        LandmarkError: for a zero (or non-finite) determinant: no point can be carried back through it.
    """
    matrix = _matrix(affine)
    scale = torch.linalg.vector_norm(matrix[..., :-1, :-1], dim=-2).prod(dim=-1)
    determinant = torch.linalg.det(matrix[..., :-1, :-1])
    if not bool((torch.isfinite(determinant) & (determinant.abs() > 1e-12 * scale) & (scale > 0)).all()):
        raise LandmarkError(
            f"the affine has determinant {determinant.reshape(-1)[0].item():g} and cannot be inverted: the image's header "
            f"is damaged or its spacing is zero. It reads {matrix.tolist()}."
        )
    return torch.linalg.inv(matrix)


def apply_affine(points: torch.Tensor, affine: torch.Tensor) -> torch.Tensor:
    """Map points through an affine: ``y = A x + t``.

    Args:
        points: tensor or array ``(..., N, D)``; NaN stays NaN.
        affine: ``(D + 1, D + 1)`` or ``(..., D + 1, D + 1)`` with the leading axes of ``points``.

    Returns:
        points of the same shape, float64, on the device of ``points``.

    Raises:
        LandmarkError: if the dimensions do not fit.

    Example:
        >>> import torch
        >>> apply_affine(torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 0, 5], [0, 3, 7], [0, 0, 1]]))
        tensor([[ 7., 13.]], dtype=torch.float64)
    """
    plain = plain_tensor(torch.as_tensor(points))
    matrix = _matrix(affine).to(plain.device)
    if matrix.shape[-1] != plain.shape[-1] + 1:
        raise LandmarkError(
            f"points with {plain.shape[-1]} coordinates need a {plain.shape[-1] + 1}x{plain.shape[-1] + 1} affine, "
            f"got {matrix.shape[-2]}x{matrix.shape[-1]}."
        )
    linear, shift = matrix[..., :-1, :-1], matrix[..., :-1, -1]
    return plain.to(torch.float64) @ linear.transpose(-1, -2) + shift.unsqueeze(-2)


def voxel_sizes(affine: torch.Tensor) -> torch.Tensor:
    """Length of a step of one index along each axis, in millimetres.

    Args:
        affine: ``(..., D + 1, D + 1)``.

    Returns:
        float64 tensor ``(..., D)``.

    Example:
        >>> import torch
        >>> voxel_sizes(torch.tensor([[0.0, -2.0, 9.0], [3.0, 0.0, 9.0], [0.0, 0.0, 1.0]]))
        tensor([3., 2.], dtype=torch.float64)
    """
    return torch.linalg.vector_norm(_matrix(affine)[..., :-1, :-1], dim=-2)


def image_affine(image: Any, spatial_dims: int | None = None) -> torch.Tensor:
    """Give the map from an image's voxel indices to its world, as a matrix of the image's dimension.

    Args:
        image: a channel-first ``MetaTensor`` ``(C, *S)``, or one affine matrix (3x3 or 4x4).
        spatial_dims: needed where ``image`` is a bare matrix of another size; otherwise read from the image.

    Returns:
        float64 tensor ``(D + 1, D + 1)``. In 3D the world is RAS: an image that says LPS
        (``ITKReader(affine_lps_to_ras=False)``) has the signs of its first two world axes changed. In 2D the affine is
        taken as it is, because MONAI writes "RAS" on every image that says nothing; give ``ITKReader`` that option for
        2D files, so that their world is the film plane.

    Raises:
        LandmarkError: for an image without affine, with pending lazy operations or with a singular affine.

    Example:
        >>> import torch
        >>> from monai.data import MetaTensor
        >>> image_affine(MetaTensor(torch.zeros(1, 8, 9), affine=torch.diag(torch.tensor([0.1, 0.1, 1.0]))))[0, 0].item()
        0.1...
    """
    if not hasattr(image, "affine"):
        shape = tuple(getattr(image, "shape", ()))
        if len(shape) != 2 or shape[0] != shape[1]:
            raise LandmarkError(
                f"an image with an affine (a MONAI MetaTensor) is needed, got {type(image).__name__} of shape {shape}: "
                "load it with LoadImaged, and do not switch off MONAI's meta tracking."
            )
        return affine_nd(image, spatial_dims or shape[0] - 1)
    if getattr(image, "pending_operations", None):
        raise LandmarkError(
            "the image has pending lazy operations, its affine is not yet true: use the transform inside "
            "monai.transforms.Compose, which applies them first, or call apply_pending on the image."
        )
    dims = spatial_dims or image.ndim - 1
    return world_from_space(affine_nd(image.affine, dims), image.meta.get(MetaKeys.SPACE))


def world_from_space(affine: torch.Tensor, space: Any) -> torch.Tensor:
    """Give the affine ``(D + 1, D + 1)`` of an image that calls its world ``space`` in the law's world."""
    if affine.shape[-1] == 3 or str(getattr(space, "value", space)).upper() != SpaceKeys.LPS.value:
        return affine
    return torch.tensor([[-1.0], [-1.0], [1.0], [1.0]], dtype=affine.dtype) * affine
