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
"""Points: presence, shape checks and an explanation of points that cannot be right. See the package's coordinate law."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["LandmarkError", "check_points", "explain_points", "inside", "plain_tensor", "present"]


class LandmarkError(ValueError):
    """A fault in landmark data: wrong count, wrong names, wrong coordinates. Caught by ``except ValueError``."""


def plain_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Take MONAI's meta data off a tensor; a plain tensor comes back as it is, and no data are copied."""
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor


def present(points: torch.Tensor) -> torch.Tensor:
    """Tell which landmarks are there: a missing landmark is NaN in all its coordinates.

    Args:
        points: ``(..., N, D)``.

    Returns:
        bool tensor ``(..., N)``.

    Example:
        >>> import torch
        >>> present(torch.tensor([[1.0, 2.0], [float("nan"), float("nan")]]))
        tensor([ True, False])
    """
    return ~torch.isnan(points).any(dim=-1)


def inside(points: torch.Tensor, spatial_shape: Sequence[int]) -> torch.Tensor:
    """Tell which landmarks lie within the image's area, the outer half of the border voxels included.

    Args:
        points: voxel indices ``(..., N, D)``.
        spatial_shape: ``D`` sizes.

    Returns:
        bool tensor ``(..., N)``; False for missing landmarks. Inside is ``-0.5 <= p <= size - 0.5`` on every axis.

    Example:
        >>> import torch
        >>> inside(torch.tensor([[-0.4, 3.0], [0.0, 3.6]]), (4, 4))
        tensor([ True, False])
    """
    size = torch.as_tensor(tuple(spatial_shape), dtype=points.dtype, device=points.device)
    return ((points >= -0.5) & (points <= size - 0.5)).all(dim=-1)


def check_points(points: torch.Tensor, spatial_dims: int | None = None, name: str = "points") -> None:
    """Raise a clear error unless ``points`` obeys the coordinate law's shape and its rule for missing landmarks.

    Args:
        points: to be ``(..., N, D)``.
        spatial_dims: the expected ``D``; None takes 2 or 3.
        name: what the message calls the tensor.

    Raises:
        LandmarkError: for a tensor without landmark axis, ``D`` other than expected, an infinite coordinate or a
            landmark that is NaN in some but not all coordinates.
    """
    shape = tuple(points.shape)
    if len(shape) < 2:
        raise LandmarkError(
            f"`{name}` must have shape (..., N, D), got {shape}: a single point needs a landmark axis, `{name}[None]`."
        )
    expected = (spatial_dims,) if spatial_dims else (2, 3)
    if shape[-1] not in expected:
        cause = ""
        if shape[-2] in expected:
            cause = f" The last two axes look exchanged: try `{name}.transpose(-1, -2)`."
        elif spatial_dims and shape[-1] in (2, 3):
            cause = f" These are {shape[-1]}D points for a {spatial_dims}D image: is it the right point file?"
        wanted = " or ".join(str(d) for d in expected)
        raise LandmarkError(f"`{name}` must have {wanted} coordinates in its last axis, got shape {shape}.{cause}")
    if torch.isinf(points).any():
        raise LandmarkError(f"`{name}` holds infinite coordinates; a missing landmark is NaN in all coordinates.")
    nan = torch.isnan(points)
    partial = nan.any(dim=-1) & ~nan.all(dim=-1)
    if partial.any():
        where = tuple(int(v) for v in partial.nonzero()[0])
        raise LandmarkError(
            f"`{name}` has a landmark with some but not all coordinates missing, first at index {where}: "
            "a missing landmark is NaN in all coordinates."
        )


def explain_points(points: torch.Tensor, spatial_shape: Sequence[int]) -> str | None:
    """Say why points do not fit into an image and what would repair them, or return None where they fit.

    Tried repairs: another axis order, an origin at 1. Signs (LPS taken for RAS) can be judged only in the world: see
    :func:`monai_landmarks.data.check_landmarks`.

    Args:
        points: voxel indices ``(..., N, D)``; missing landmarks are left out of the count.
        spatial_shape: ``D`` sizes of the image.

    Returns:
        a sentence for an error message, or None if every present landmark lies inside.

    Example:
        >>> import torch
        >>> print(explain_points(torch.tensor([[10.0, 90.0], [20.0, 70.0]]), (100, 50)))
        2 of 2 landmarks lie outside the image of shape (100, 50), none after exchanging the axes to (1, 0): ...
    """
    check_points(points, len(tuple(spatial_shape)))
    there = points[present(points)].double()
    shape = tuple(int(s) for s in spatial_shape)
    if there.shape[0] == 0:
        return None
    outside = int((~inside(there, shape)).sum())
    if outside == 0:
        return None
    verdict = f"{outside} of {there.shape[0]} landmarks lie outside the image of shape {shape}"
    for text, candidate in _repairs(there):
        left = int((~inside(candidate, shape)).sum())
        if left < 0.1 * outside:
            return f"{verdict}, {left or 'none'} after {text}"
    low = [round(v, 2) for v in there.amin(dim=0).tolist()]
    high = [round(v, 2) for v in there.amax(dim=0).tolist()]
    return f"{verdict}; they range from {low} to {high}: is the affine (spacing, origin) the image's own?"


def _repairs(points: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    dims = points.shape[-1]
    orders = [(1, 0)] if dims == 2 else [(2, 1, 0), (1, 0, 2), (0, 2, 1), (1, 2, 0), (2, 0, 1)]
    named = [
        (
            f"exchanging the axes to {order}: the file is likely in the other order of (x, y) and (row, column); "
            "points follow the order of the image tensor's axes.",
            points[:, list(order)],
        )
        for order in orders
    ]
    named.append(("subtracting 1: the file likely counts voxels from 1, here they count from 0.", points - 1))
    return named
