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
r"""Maps from the voxels of one image to those of another, as displacement fields: compose, warp, invert, look for folds.

A registration of a source image onto a target image is a map ``T`` from target voxels to source voxels, kept as the
displacement of every target voxel, MONAI's convention of a dense displacement field:

.. math:: T(x) = x + \mathrm{field}(x), \quad \mathrm{warped}(x) = \mathrm{source}(T(x))

Fields are ``(B, D, *S)`` in voxels, channels in the order of the tensor's axes. Images are pulled through ``T``; landmarks
of the source go the other way, through its inverse. Between voxels a field is linear. Beyond the border it is continued by
reflection about the border voxel, in place and in value, :math:`f(b + d) = 2 f(b) - f(b - d)`: an affine map stays the
same affine map outside of the image, and no field grows to more than three times its largest value there.

Numbers are kept in float32 at least, also under autocast: in bfloat16 a coordinate of 300 is known to 2 voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch
from monai.utils import GridSampleMode, GridSamplePadMode, look_up_option
from torch.nn import functional as F

from monai_landmarks.geometry import LandmarkError, check_points, invert_sampled_map, plain_tensor, shown_in_folds

__all__ = [
    "Registration",
    "affine_displacement",
    "carry_points",
    "compose_displacements",
    "folding",
    "folds_at",
    "sample_displacement",
    "warp",
]

_SOLVED = 1e-6  # voxels
_LEAST_DAMPING = 0.5**6


class Registration(NamedTuple):
    """A cascade of maps from target voxels to source voxels: an affine one, then local steps before it.

    Attributes:
        affine: ``(B, D, D + 1)`` ``A``, voxels of the target to voxels of the source.
        steps: of every local step its own displacement ``Phi_k`` ``(B, D, *S)``, in voxels of the target.
        fields: after the affine map and after every local step the field ``(B, D, *S)`` of the whole map
            ``A o (id + Phi_1) o ... o (id + Phi_k)``; the last is the registration.
    """

    affine: torch.Tensor
    steps: list[torch.Tensor]
    fields: list[torch.Tensor]

    @property
    def inverse_affine(self) -> torch.Tensor:
        """``(B, D, D + 1)``, source voxels to target voxels: where landmarks go when only the affine map counts."""
        linear = torch.linalg.inv(self.affine[..., :-1])
        return torch.cat([linear, -(linear * self.affine[..., None, :, -1]).sum(-1, keepdim=True)], dim=-1)


def affine_displacement(affine: torch.Tensor, shape: Sequence[int], first: torch.Tensor | None = None) -> torch.Tensor:
    """Write affine maps of voxels as displacement fields.

    Args:
        affine: ``(B, D, D + 1)``.
        shape: ``D`` sizes of the grid.
        first: a field ``(B, D, *S)`` that is applied before the affine map. The result, ``A o (id + first)``, is exact at
            every voxel: nothing is interpolated.

    Returns:
        ``(B, D, *S)``.

    Raises:
        LandmarkError: if the affine does not fit the shape.

    Example:
        >>> doubled = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 1.0, -3.0]]])
        >>> affine_displacement(doubled, (3, 2))[0, :, :, 1]
        tensor([[ 0.,  1.,  2.],
                [-3., -3., -3.]])
    """
    affine = _exact(affine)
    dims = len(tuple(shape))
    if affine.ndim != 3 or tuple(affine.shape[1:]) != (dims, dims + 1):
        raise LandmarkError(
            f"affine maps of a {dims}D grid must be (B, {dims}, {dims + 1}), the last column the shift, got "
            f"{tuple(affine.shape)}."
        )
    at = _voxels(shape, affine)
    start = at
    if first is not None:
        at = at + _exact(first)
    column = (-1, dims, *(1,) * dims)
    # A sum of products, not a matrix product: autocast takes those in half precision.
    moved = sum(
        (affine[..., a].reshape(column) * at[:, a : a + 1] for a in range(dims)), affine[..., -1].reshape(column)
    )
    return moved - start


def compose_displacements(outer: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    r"""Give the field of one map after another, :math:`T_\mathrm{outer} \circ T_\mathrm{inner}`.

    .. math:: \mathrm{field}(x) = \mathrm{inner}(x) + \mathrm{outer}(x + \mathrm{inner}(x))

    Args:
        outer: ``(B, D, *S)``, read linearly between its voxels.
        inner: ``(B, D, *S')``.

    Returns:
        ``(B, D, *S')``; differentiable in both.

    Raises:
        LandmarkError: for tensors that are no fields.

    Example:
        >>> ramp = affine_displacement(torch.tensor([[[1.5, 0.0, 1.0], [0.0, 1.0, 0.0]]]), (8, 8))
        >>> twice = affine_displacement(torch.tensor([[[2.25, 0.0, 2.5], [0.0, 1.0, 0.0]]]), (8, 8))
        >>> bool(torch.allclose(compose_displacements(ramp, ramp), twice, atol=1e-5))
        True
    """
    outer, inner = _field(outer), _field(inner)
    return inner + _continued(outer, _voxels(inner.shape[2:], inner) + inner)


def warp(image: torch.Tensor, field: torch.Tensor, mode: str = "bilinear", padding: str = "zeros") -> torch.Tensor:
    """Pull images through displacement fields: ``warped(x) = image(x + field(x))``, one interpolation.

    As MONAI's ``Warp`` with torch's own sampling, but with grids of other sizes than the image, whole numbers of voxels
    kept in half precision, and no warning at construction.

    Args:
        image: ``(B, C, *S)``.
        field: ``(B, D, *S')`` in voxels.
        mode: "bilinear", which is trilinear in 3D, or "nearest", for labels; torch's "bicubic" is 2D only.
        padding: beyond the image "zeros", "border" or "reflection".

    Returns:
        ``(B, C, *S')`` in the type of the image; integers become float32 unless ``mode`` is "nearest". Differentiable in
        both arguments but for "nearest".

    Raises:
        LandmarkError: if image and field differ in batch or dimensions.
        ValueError: for an unknown option.

    Example:
        >>> image = torch.arange(5.0).reshape(1, 1, 5, 1).expand(1, 1, 5, 3)
        >>> shift = torch.tensor([2.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 5, 3)
        >>> warp(image, shift)[0, 0, :, 1].round()
        tensor([2., 3., 4., 0., 0.])
    """
    mode = str(look_up_option(mode, GridSampleMode).value)
    padding = str(look_up_option(padding, GridSamplePadMode).value)
    image, field = plain_tensor(image), _field(field)
    if image.ndim != field.ndim or image.shape[0] != field.shape[0]:
        raise LandmarkError(
            f"images {tuple(image.shape)} must be (B, C, *S) with the batch and dimensions of the field "
            f"{tuple(field.shape)}, (B, D, *S)."
        )
    warped = _read(_exact(image), _voxels(field.shape[2:], field) + field, mode, padding)
    return warped.to(image.dtype) if image.is_floating_point() or mode == "nearest" else warped


def sample_displacement(field: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Read fields at points of the target: ``points + sample_displacement(field, points)`` are their source points.

    Args:
        field: ``(B, D, *S)``.
        points: ``(B, N, D)`` voxels of the target; NaN stays NaN.

    Returns:
        ``(B, N, D)``; differentiable in both.

    Raises:
        LandmarkError: if the shapes do not fit.

    Example:
        >>> field = affine_displacement(torch.tensor([[[2.0, 0.0, 0.0], [0.0, 1.0, -3.0]]]), (9, 9))
        >>> sample_displacement(field, torch.tensor([[[2.5, 4.0], [float("nan")] * 2]]))
        tensor([[[ 2.5000, -3.0000],
                 [    nan,     nan]]])
    """
    field = _field(field)
    points = _points(points, field)
    missing = points.isnan()
    at = points.masked_fill(missing, 0).movedim(-1, 1)
    at = at.reshape(*at.shape, *(1,) * (field.shape[1] - 1))
    values = _continued(field, at).flatten(2).movedim(1, -1)
    return values.masked_fill(missing, torch.nan)


def folding(field: torch.Tensor) -> torch.Tensor:
    """Give the share of the grid over which maps fold: where the determinant of the Jacobian is not positive.

    Counted are the cells between ``2^D`` neighbouring voxels in which the linearly interpolated map has a determinant of 0
    or less at a corner; in 2D this is so if and only if it has one anywhere in the cell. A mirrored image counts as folded.

    Args:
        field: ``(B, D, *S)``, at least two voxels along every axis.

    Returns:
        ``(B,)`` from 0 to 1.

    Raises:
        LandmarkError: for a tensor that is no field.

    Example:
        >>> folding(torch.zeros(2, 2, 5, 6))
        tensor([0., 0.])
    """
    field = _field(field)
    dims = field.shape[1]
    at = _voxels(field.shape[2:], field) + field
    folded = torch.zeros((), dtype=torch.bool, device=field.device)
    for corner in product((0, 1), repeat=dims):
        columns = []
        for axis in range(dims):
            slope = at.diff(dim=axis + 2)
            for other in (a for a in range(dims) if a != axis):
                slope = slope.narrow(other + 2, corner[other], slope.shape[other + 2] - 1)
            columns.append(slope)
        folded = folded | (_determinant(columns) <= 0)
    return folded.flatten(1).to(field.dtype).mean(dim=1)


def folds_at(field: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Tell which points of the source are shown in a fold of the target's map, and so have no single place there.

    Args:
        field: ``(B, D, *S)``.
        points: ``(B, N, D)`` voxels of the source, those that :func:`carry_points` takes.

    Returns:
        bool ``(B, N)``, False for a missing point; see :func:`~monai_landmarks.geometry.shown_in_folds`.

    Raises:
        LandmarkError: if the shapes do not fit.

    Example:
        >>> field = torch.zeros(1, 2, 16, 16)
        >>> field[0, 0] = 6 * torch.exp(-((torch.arange(16.0) - 8) ** 2) / 4)[:, None]
        >>> folds_at(field, torch.tensor([[[2.0, 5.0], [12.0, 5.0]]]))
        tensor([[False,  True]])
    """
    field = _field(field).detach()
    points = _points(points, field)
    maps = _voxels(field.shape[2:], field) + field
    return torch.stack([shown_in_folds(its_map, its) for its_map, its in zip(maps, points, strict=True)])


@torch.no_grad()
def carry_points(field: torch.Tensor, points: torch.Tensor, iterations: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Carry landmarks of the source to the target: find the ``x`` with ``x + field(x) = p``.

    Solved by Newton's method on the linearly interpolated field, in float64, all points of the batch at once; a step that
    makes a point worse is halved. Points that it does not bring home are looked for once more over the whole grid, by
    :func:`~monai_landmarks.geometry.invert_sampled_map`. The paper's code subtracts the field instead,
    ``p - field(p)``, which is right to first order: at a displacement of 10 voxels that changes by 0.2 a voxel it errs by
    about 2 voxels. No gradient.

    Args:
        field: ``(B, D, *S)``.
        points: ``(B, N, D)`` voxels of the source; NaN stays NaN.
        iterations: of Newton's method at most.

    Returns:
        target voxels ``(B, N, D)``, and residuals ``(B, N)``, ``|x + field(x) - p|`` in voxels, both NaN where missing.
        A large residual says that the target does not show the point, or that the map folds on the way to it, as fields
        with strong waves may where they are continued beyond the border. See also :func:`folds_at`.

    Raises:
        LandmarkError: if the shapes do not fit, or coordinates are infinite or half missing.

    Example:
        >>> field = affine_displacement(torch.tensor([[[2.0, 0.0, 0.0], [0.0, 1.0, -3.0]]]), (9, 9))
        >>> carried, residual = carry_points(field, torch.tensor([[[5.0, 1.0], [float("nan")] * 2]]))
        >>> carried
        tensor([[[2.5000, 4.0000],
                 [   nan,    nan]]])
    """
    exact = _field(field).double()
    points = _points(points, exact)
    missing = points.isnan().any(dim=-1)
    goal = points.double().masked_fill(missing[..., None], 0)
    at, miss = _newton(exact, goal, goal, iterations)
    lost = (miss.norm(dim=-1) > _SOLVED) & ~missing
    if bool(lost.any()):
        start = at.clone()
        for item in lost.any(dim=1).nonzero().flatten().tolist():
            whole_map = (_voxels(exact.shape[2:], exact) + exact[item])[0]
            start[item, lost[item]] = invert_sampled_map(whole_map, goal[item, lost[item]])[0]
        again, missed = _newton(exact, goal, start, iterations)
        better = missed.norm(dim=-1, keepdim=True) < miss.norm(dim=-1, keepdim=True)
        at, miss = torch.where(better, again, at), torch.where(better, missed, miss)
    carried = at.masked_fill(missing[..., None], torch.nan)
    residual = miss.norm(dim=-1).masked_fill(missing, torch.nan)
    return carried.to(points.dtype), residual.to(points.dtype)


def _determinant(columns: Sequence[torch.Tensor]) -> torch.Tensor:
    """Of the matrices whose columns are ``D`` tensors (B, D, *S): (B, *S)."""
    if len(columns) == 2:
        return columns[0][:, 0] * columns[1][:, 1] - columns[0][:, 1] * columns[1][:, 0]
    return (columns[0] * torch.linalg.cross(columns[1], columns[2], dim=1)).sum(dim=1)


def _newton(
    field: torch.Tensor, goal: torch.Tensor, at: torch.Tensor, iterations: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Solve for the places (B, N, D) that the maps send to the goal; give what each misses too."""

    def miss_of(places: torch.Tensor) -> torch.Tensor:
        return places + sample_displacement(field, places) - goal

    miss = miss_of(at)
    damping = torch.ones_like(at[..., :1])
    for _ in range(iterations):
        if not bool((miss.norm(dim=-1) > _SOLVED).any()):
            break
        step = (torch.linalg.pinv(_jacobian(field, at), rtol=1e-6) @ miss[..., None])[..., 0]
        tried = at - damping * step
        missed = miss_of(tried)
        better = missed.norm(dim=-1, keepdim=True) < miss.norm(dim=-1, keepdim=True)
        at, miss = torch.where(better, tried, at), torch.where(better, missed, miss)
        damping = torch.where(better, 1.0, (damping / 2).clamp(min=_LEAST_DAMPING))
    return at, miss


def _jacobian(field: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Of the maps at points (B, N, D), exactly: between two planes of voxels they are linear along each axis."""
    dims = points.shape[-1]
    low = points.floor()[..., None, :].expand(*points.shape, dims)
    along = torch.eye(dims, dtype=torch.bool, device=points.device)
    start = torch.where(along, low, points[..., None, :])  # (B, N, axis, D)
    ends = torch.cat([start, start + along], dim=1).flatten(1, 2)
    values = (ends + sample_displacement(field, ends)).unflatten(1, (2, *start.shape[1:3]))
    return (values[:, 1] - values[:, 0]).movedim(-1, -2)


def _continued(field: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Read fields at places (B, D, *S'), beyond the border reflected in place and value."""
    return 2 * _read(field, at, "bilinear", "border") - _read(field, at, "bilinear", "reflection")


def _read(values: torch.Tensor, at: torch.Tensor, mode: str, padding: str) -> torch.Tensor:
    """Read ``(B, C, *S)`` at places ``(B, D, *S')`` in voxels."""
    dtype = torch.promote_types(values.dtype, at.dtype)
    last = torch.tensor([max(size - 1, 1) for size in values.shape[2:]], dtype=dtype, device=at.device)
    grid = (2 * at.to(dtype).movedim(1, -1) / last - 1).flip(-1)
    # The outermost voxel centres are -1 and 1, so that a reflection mirrors about a centre.
    return F.grid_sample(values.to(dtype), grid, mode, padding, align_corners=True)


def _voxels(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Indices (1, D, *S) of all voxels of a grid."""
    axes = [torch.arange(size, dtype=like.dtype, device=like.device) for size in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def _exact(tensor: torch.Tensor) -> torch.Tensor:
    """Plain, and float32 unless it is float64."""
    tensor = plain_tensor(tensor)
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _field(field: torch.Tensor) -> torch.Tensor:
    field = _exact(field)
    if field.ndim not in (4, 5) or field.shape[1] != field.ndim - 2:
        raise LandmarkError(
            "a displacement field must be (B, 2, H, W) or (B, 3, H, W, D), one channel per axis in voxels, got "
            f"{tuple(field.shape)}."
        )
    return field


def _points(points: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
    points = _exact(points).to(field.device)
    check_points(points, field.shape[1])
    if points.ndim != 3 or len(points) != len(field):
        raise LandmarkError(
            f"points {tuple(points.shape)} must be (B, N, {field.shape[1]}) with the batch of the field, {len(field)}."
        )
    return points
