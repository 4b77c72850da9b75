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
"""Gaussian target heatmaps, exact at sub-voxel centres."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from ..geometry import LandmarkError, check_points, plain_tensor, present

__all__ = ["GaussianHeatmaps", "expand_sigma", "gaussian_axis_factors", "gaussian_heatmaps"]


def expand_sigma(sigma: float | Sequence[float] | torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Bring ``sigma`` to one positive value per landmark and axis.

    Args:
        sigma: a number; ``(D,)`` per axis; ``(N, 1)`` per landmark; ``(N, D)``; or anything broadcastable to
            ``(..., N, D)``.
        points: ``(..., N, D)``.

    Returns:
        tensor broadcast to ``(..., N, D)``, in the dtype of ``points``.

    Raises:
        LandmarkError: if it cannot be broadcast, or is not positive.
    """
    value = torch.as_tensor(sigma, dtype=points.dtype, device=points.device)
    landmarks, dims = points.shape[-2:]
    if value.ndim == 1 and value.shape[0] not in (1, dims):
        hint = f": one sigma per landmark is written sigma[:, None], shape ({landmarks}, 1)" * (len(value) == landmarks)
        raise LandmarkError(f"a 1D `sigma` means one per axis and must have {dims} values, got {len(value)}{hint}.")
    try:
        value = value.expand(torch.broadcast_shapes(value.shape, points.shape))
    except RuntimeError as error:
        raise LandmarkError(
            f"`sigma` of shape {tuple(value.shape)} does not fit points {tuple(points.shape)}."
        ) from error
    if value.numel() and not bool((value.detach() > 0).all()):
        raise LandmarkError(f"`sigma` must be positive, the smallest is {value.min().item():g}.")
    return value


def gaussian_axis_factors(
    points: torch.Tensor, spatial_shape: Sequence[int], sigma: torch.Tensor, gamma: float | None = None
) -> list[torch.Tensor]:
    """Split each landmark's Gaussian into its 1D factors, whose outer product is the heatmap.

    Args:
        points: ``(..., N, D)`` voxel indices.
        spatial_shape: ``D`` sizes.
        sigma: ``(..., N, D)`` voxels, as from :func:`expand_sigma`.
        gamma: see :func:`gaussian_heatmaps`; it is put into the first factor.

    Returns:
        ``D`` tensors ``(..., N, S_d)``. A missing landmark has all-zero factors.
    """
    there = present(points)
    centre = torch.where(there.unsqueeze(-1), points, torch.zeros((), dtype=points.dtype, device=points.device))
    factors = []
    for axis, size in enumerate(spatial_shape):
        index = torch.arange(size, dtype=points.dtype, device=points.device)
        distance = (index - centre[..., axis, None]) / sigma[..., axis, None]
        factors.append(torch.exp(-0.5 * distance.square()))
    peak = there.to(points.dtype)
    if gamma is not None:
        peak = peak * gamma / ((2 * math.pi) ** (points.shape[-1] / 2) * sigma.prod(dim=-1))
    factors[0] = factors[0] * peak.unsqueeze(-1)
    return factors


def outer_product(factors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Multiply ``D`` tensors ``(..., S_d)`` to one of shape ``(..., *S)``, writing the full size only once."""
    product = factors[0]
    for factor in factors[1:-1]:
        product = product.unsqueeze(-1) * factor.reshape(
            *factor.shape[:-1], *(1,) * (product.ndim - factor.ndim + 1), -1
        )
    last = factors[-1]
    return product.unsqueeze(-1) * last.reshape(*last.shape[:-1], *(1,) * (product.ndim - last.ndim + 1), -1)


def gaussian_heatmaps(
    points: torch.Tensor,
    spatial_shape: Sequence[int],
    sigma: float | Sequence[float] | torch.Tensor,
    gamma: float | None = None,
    truncated: float | None = None,
) -> torch.Tensor:
    r"""Draw one Gaussian per landmark, centred at its exact sub-voxel position.

    With ``gamma`` this is eq. 1 of Payer et al. 2019 (SCN),

    .. math:: g_i(x) = \frac{\gamma}{(2\pi)^{D/2} \sigma_i^D} \exp\left(-\frac{\|x - x_i\|^2}{2\sigma_i^2}\right)

    with :math:`\sigma_i^D` read as the product over the axes where sigma differs by axis; without, the peak is 1.
    The maps are outer products of 1D factors, so the cost is one multiplication per voxel.

    Args:
        points: ``(..., N, D)`` voxel indices, NaN for missing. Gradients flow to ``points`` and ``sigma``.
        spatial_shape: ``D`` sizes of the map.
        sigma: standard deviation in voxels: a number, ``(D,)`` per axis, ``(N, 1)`` per landmark or ``(N, D)``.
        gamma: the Gaussian's integral over space; None for peak 1.
        truncated: write only a window of this many sigma around each point and leave exact zeros elsewhere, for targets of
            bounded support; on a CPU it takes as long as the exact form. None is exact everywhere.

    Returns:
        ``(..., N, *S)`` in the dtype of ``points`` (float32 for integer points); zeros for a missing landmark.

    Raises:
        LandmarkError: for a wrong shape, a partly missing point or a ``sigma`` that is not positive.

    Example:
        >>> import torch
        >>> gaussian_heatmaps(torch.tensor([[1.0, 2.0]]), (3, 5), sigma=1.0)[0, 1]
        tensor([0.1353, 0.6065, 1.0000, 0.6065, 0.1353])
    """
    points = plain_tensor(points)
    points = points if points.is_floating_point() else points.float()
    check_points(points, len(tuple(spatial_shape)))
    widths = expand_sigma(sigma, points)
    factors = gaussian_axis_factors(points, spatial_shape, widths, gamma)
    if truncated is None:
        return outer_product(factors)
    return _windowed_product(points, factors, widths, truncated)


def _windowed_product(
    points: torch.Tensor, factors: list[torch.Tensor], sigma: torch.Tensor, truncated: float
) -> torch.Tensor:
    if not truncated > 0:
        raise LandmarkError(f"`truncated` must be a positive number of sigma, got {truncated}.")
    shape = tuple(factor.shape[-1] for factor in factors)
    lead = points.shape[:-1]
    reach = (
        (truncated * sigma.detach()).flatten(0, -2).amax(dim=0).ceil().long() if points.numel() else [0] * len(shape)
    )
    window = [min(2 * int(reach[axis]) + 1, size) for axis, size in enumerate(shape)]
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    cut, offset = [], torch.zeros(*lead, *(1,) * len(shape), dtype=torch.long, device=points.device)
    for axis, (factor, size) in enumerate(zip(factors, window, strict=True)):
        centre = torch.nan_to_num(points[..., axis].detach()).round().clamp(-1e9, 1e9).long()
        start = (centre - size // 2).clamp(0, shape[axis] - size)
        index = start.unsqueeze(-1) + torch.arange(size, device=points.device)
        cut.append(factor.gather(-1, index))
        position = [1] * len(shape)
        position[axis] = size
        offset = offset + (index * strides[axis]).reshape(*lead, *position)
    flat = torch.zeros(*lead, math.prod(shape), dtype=factors[0].dtype, device=points.device)
    flat.scatter_(-1, offset.flatten(len(lead)), outer_product(cut).flatten(len(lead)))
    return flat.reshape(*lead, *shape)


class GaussianHeatmaps(nn.Module):
    """Draw Gaussian target heatmaps whose width may be learnt, as in Payer et al. 2019, section 2.1.

    Args:
        num_landmarks: ``N``.
        spatial_dims: 2 or 3.
        sigma: initial standard deviation in voxels: a number, ``(D,)``, ``(N, 1)`` or ``(N, D)``.
        gamma: integral of each Gaussian (SCN eq. 1); None for peak 1.
        learnable: make sigma a parameter.
        per_axis: one sigma per landmark and axis instead of one per landmark.
        min_sigma: sigma is kept at or above this many voxels, so that a step of the optimiser cannot make it negative.

    Shapes: points ``(B, N, D)`` -> heatmaps ``(B, N, *S)``.

    Example:
        >>> import torch
        >>> encode = GaussianHeatmaps(num_landmarks=2, spatial_dims=2, sigma=3.0, gamma=100.0, learnable=True)
        >>> encode(torch.rand(1, 2, 2) * 10, (16, 20)).shape
        torch.Size([1, 2, 16, 20])
        >>> encode.sigma.shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        num_landmarks: int,
        spatial_dims: int,
        sigma: float | Sequence[float] | torch.Tensor = 3.0,
        gamma: float | None = None,
        learnable: bool = False,
        per_axis: bool = False,
        min_sigma: float = 0.3,
    ) -> None:
        super().__init__()
        value = expand_sigma(sigma, torch.zeros(num_landmarks, spatial_dims))
        if not per_axis:
            if not bool((value == value[:, :1]).all()):
                raise LandmarkError("`sigma` differs by axis: give per_axis=True to keep one value per axis.")
            value = value[:, :1]
        if bool((value < min_sigma).any()):
            raise LandmarkError(f"`sigma` starts below min_sigma={min_sigma}.")
        self.gamma = gamma
        self.min_sigma = min_sigma
        self.raw_sigma = nn.Parameter(value.clone(), requires_grad=learnable)

    @property
    def sigma(self) -> torch.Tensor:
        """The present widths in voxels, ``(N, 1)`` or ``(N, D)``, never below ``min_sigma``.

        Gradients pass below the limit too, so that a width which the optimiser pushed there can come back.
        """
        return self.raw_sigma + (self.raw_sigma.clamp(min=self.min_sigma) - self.raw_sigma).detach()

    def forward(self, points: torch.Tensor, spatial_shape: Sequence[int]) -> torch.Tensor:
        return gaussian_heatmaps(points, spatial_shape, self.sigma.to(points), self.gamma)
