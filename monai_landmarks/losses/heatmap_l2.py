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
"""Squared distance of predicted heatmaps to Gaussians at the landmarks, with learnable widths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.utils import look_up_option
from torch import nn

from ..geometry import FieldOfView, field_of_view
from ..heatmaps import GaussianHeatmaps
from ..heatmaps.gaussian import expand_sigma, gaussian_axis_factors, outer_product
from .targets import (
    LandmarkTarget,
    MissingLandmarks,
    OutsideLandmarks,
    check_maps,
    points_to_draw,
    split_target,
    weighted,
)

__all__ = ["HeatmapL2Loss", "MissingLandmarks", "OutsideLandmarks", "heatmap_squared_error"]


def heatmap_squared_error(
    heatmaps: torch.Tensor,
    points: torch.Tensor,
    sigma: float | Sequence[float] | torch.Tensor,
    gamma: float | None = None,
    missing: str = MissingLandmarks.MASK,
    outside: str = OutsideLandmarks.TAIL,
) -> torch.Tensor:
    r"""Sum, over the voxels of each map, the squared distance to the Gaussian at its landmark.

    .. math:: e_i = \sum_x \left(h_i(x) - g_i(x; \sigma_i)\right)^2

    The target is built here, on the device, and at most one tensor of the heatmaps' size is held beside them: the
    difference, which becomes the gradient. Gradients with respect to ``points`` and ``sigma`` are contractions of the
    difference with 1D factors. Because the difference is reused, a graph can be run backward once.

    Args:
        heatmaps: ``(B, N, *S)``; half precision is compared in float32.
        points: ``(B, N, D)`` voxel indices, NaN for missing.
        sigma: in voxels, anything broadcastable to ``(B, N, D)``, as in
            :func:`monai_landmarks.heatmaps.gaussian_heatmaps`.
        gamma: integral of the Gaussian (SCN eq. 1); None for peak 1.
        missing: "mask" leaves a missing landmark out (error 0, no gradient); "zero" wants an empty map for it.
        outside: for a landmark whose place is known and not in the image, "tail" wants the part of its Gaussian that
            reaches into the image, so that the target is continuous while a landmark crosses the border; "zero" wants an
            empty map; "mask" leaves it out. The gradient with respect to ``sigma`` and ``points`` is the exact one: 0
            where nothing is drawn.

    Returns:
        ``(B, N)``.

    Raises:
        LandmarkError: if shapes do not fit.
        ValueError: for an unknown ``missing`` or ``outside``.

    Example:
        >>> import torch
        >>> heatmap_squared_error(torch.zeros(1, 2, 5, 5), torch.tensor([[[2.0, 2.0], [float("nan")] * 2]]), sigma=0.1)
        tensor([[1., 0.]])
    """
    heatmaps, points = check_maps(heatmaps, points)
    return _squared_error(heatmaps, points, field_of_view(points, heatmaps.shape[2:]), sigma, gamma, missing, outside)


def _squared_error(
    heatmaps: torch.Tensor,
    points: torch.Tensor,
    state: torch.Tensor,
    sigma: float | Sequence[float] | torch.Tensor,
    gamma: float | None,
    missing: str,
    outside: str,
) -> torch.Tensor:
    points, left_out = points_to_draw(points, state, missing, outside)
    sigma = expand_sigma(sigma, points)
    return _SquaredError.apply(heatmaps, points, sigma, gamma, left_out)


class _SquaredError(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        heatmaps: torch.Tensor,
        points: torch.Tensor,
        sigma: torch.Tensor,
        gamma: float | None,
        left_out: torch.Tensor,
    ) -> torch.Tensor:
        factors = gaussian_axis_factors(points, heatmaps.shape[2:], sigma, gamma)
        difference = outer_product(factors).neg_().add_(heatmaps)
        difference[left_out] = 0
        ctx.save_for_backward(difference, torch.nan_to_num(points), sigma, *factors)
        ctx.normalised, ctx.dtype = gamma is not None, heatmaps.dtype
        return torch.linalg.vector_norm(difference.flatten(2), dim=-1).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        difference, points, sigma, *factors = ctx.saved_tensors
        grad_points = grad_sigma = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            zeroth, first, second = _moments(difference, factors, points)
            scale = -2 * grad.unsqueeze(-1)
            grad_points = scale * first / sigma.square()
            grad_sigma = scale * (second / sigma**3 - zeroth.unsqueeze(-1) / sigma * ctx.normalised)
        grad = grad.reshape(*grad.shape, *(1,) * (difference.ndim - 2))
        return difference.mul_(2 * grad).to(ctx.dtype), grad_points, grad_sigma, None, None


def _moments(
    difference: torch.Tensor, factors: list[torch.Tensor], points: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums over voxels of difference * Gaussian * r_d ** (0, 1, 2), with r the offset from the point along axis d.

    All axes but ``d`` are contracted one after the other, the last ones from the end and the first ones from the start,
    so that no copy of ``difference`` is made.
    """
    lead, shape = difference.shape[:2], difference.shape[2:]
    maps = math.prod(lead)
    first, second, zeroth = [], [], difference.new_zeros(lead)
    for axis, size in enumerate(shape):
        rest = difference.reshape(maps, *shape)
        for other in range(len(shape) - 1, axis, -1):
            weights = factors[other].reshape(maps, -1, 1)
            rest = torch.bmm(rest.reshape(maps, -1, shape[other]), weights).reshape(maps, *shape[:other])
        for other in range(axis):
            weights = factors[other].reshape(maps, 1, -1)
            rest = torch.bmm(weights, rest.reshape(maps, shape[other], -1))
        profile = rest.reshape(*lead, size) * factors[axis]
        index = torch.arange(size, dtype=points.dtype, device=points.device)
        distance = index - points[..., axis, None]
        zeroth = profile.sum(dim=-1)
        first.append((profile * distance).sum(dim=-1))
        second.append((profile * distance.square()).sum(dim=-1))
    return zeroth, torch.stack(first, dim=-1), torch.stack(second, dim=-1)


class HeatmapL2Loss(nn.Module):
    r"""Train heatmaps and the widths of their targets together (Payer et al. 2019, eq. 2).

    .. math:: L = \sum_i \sum_x \left(h_i(x) - g_i(x; \sigma_i)\right)^2 + \alpha \sum_i \sigma_i^2

    averaged over the batch; the paper's batch is 1. The third term of eq. 2, :math:`\lambda \|w\|^2`, is the optimiser's
    weight decay: torch adds ``weight_decay * w`` to the gradient, so :math:`\lambda` = 0.0005 is ``weight_decay=0.001``.

    Conventions of the halves: the paper has none; the public code halves all three terms, which halves every gradient
    (``half=True``). There and here, the width of a landmark that is not in the image is not regularised.

    A landmark outside the image has a target in the image all the same, the tail of its Gaussian (``outside="tail"``),
    drawn with its present width. That width gets no gradient from it: what is seen of a Gaussian from farther than
    :math:`\sqrt{D}\,\sigma` only grows with :math:`\sigma`, so a network that does not draw the tail would narrow it,
    however surely it finds the landmark where it can be seen. So the gradient that the network gets is continuous while a
    landmark crosses the border, and the width learns from landmarks in the image only. The public code wants an empty
    map (``outside="zero"``, ``missing="zero"``).

    Give the optimiser this module's parameters as well, else sigma stays as it is.

    Args:
        num_landmarks: ``N``.
        spatial_dims: 2 or 3.
        sigma: initial width in voxels.
        gamma: integral of each target; "paper" takes 100 in 2D and 1000 in 3D, None draws targets with peak 1.
        alpha: weight of the widths; "paper" takes 20 in 2D and 1000 in 3D.
        learnable: whether sigma is learnt; if not, alpha has no effect on training and is left out.
        per_axis: one width per landmark and axis.
        missing: "mask" leaves missing landmarks out; "zero" wants an empty map for them, as the public code does.
        half: halve the loss.
        outside: "tail" wants of a landmark outside the image the part of its Gaussian in it; "zero" wants an empty map,
            as the public code does; "mask" leaves it out.

    Shapes: heatmaps ``(B, N, *S)``, points ``(B, N, D)`` in voxels with NaN for missing, or :class:`WeightedPoints`, which
    weigh a landmark's part of both terms -> scalar.

    Raises:
        LandmarkError: if shapes do not fit.
        ValueError: for an unknown option.

    Example:
        >>> import torch
        >>> loss = HeatmapL2Loss(num_landmarks=19, spatial_dims=2)
        >>> loss.gamma, loss.alpha, loss.sigma.shape
        (100.0, 20.0, torch.Size([19, 1]))
        >>> loss(torch.zeros(1, 19, 32, 32), torch.full((1, 19, 2), float("nan"))).item()
        0.0
    """

    def __init__(
        self,
        num_landmarks: int,
        spatial_dims: int,
        sigma: float | Sequence[float] | torch.Tensor = 2.5,
        gamma: float | str | None = "paper",
        alpha: float | str = "paper",
        learnable: bool = True,
        per_axis: bool = False,
        missing: str = MissingLandmarks.MASK,
        half: bool = False,
        outside: str = OutsideLandmarks.TAIL,
    ) -> None:
        super().__init__()
        if isinstance(gamma, str):
            gamma = {2: 100.0, 3: 1000.0}[spatial_dims] if look_up_option(gamma, {"paper"}) else None
        if isinstance(alpha, str):
            alpha = {2: 20.0, 3: 1000.0}[spatial_dims] if look_up_option(alpha, {"paper"}) else 0.0
        self.gamma, self.alpha, self.scale = gamma, float(alpha), 0.5 if half else 1.0
        self.missing = look_up_option(missing, MissingLandmarks)
        self.outside = look_up_option(outside, OutsideLandmarks)
        self.targets = GaussianHeatmaps(num_landmarks, spatial_dims, sigma, gamma, learnable, per_axis)
        self.learnable = learnable

    @property
    def sigma(self) -> torch.Tensor:
        """Present widths in voxels, ``(N, 1)`` or ``(N, D)``."""
        return self.targets.sigma

    def forward(self, heatmaps: torch.Tensor, target: LandmarkTarget) -> torch.Tensor:
        points, weights = split_target(target)
        heatmaps, points = check_maps(heatmaps, points)
        state = field_of_view(points, heatmaps.shape[2:])
        seen = state == FieldOfView.INSIDE
        sigma = self.sigma.to(points)
        widths = torch.where(seen.unsqueeze(-1), sigma, sigma.detach())
        errors = _squared_error(heatmaps, points, state, widths, self.gamma, self.missing, self.outside)
        loss = weighted(errors, weights).sum(dim=1)
        if self.learnable:
            loss = loss + self.alpha * (weighted(seen.to(loss.dtype), weights) @ sigma.square().mean(dim=-1))
        return loss.mean() * self.scale
