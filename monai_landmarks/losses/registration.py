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
"""Losses of a registration other than its similarity: global L1, smoothness, inverse consistency, synthetic pairs.

Displacement fields are those of :mod:`monai_landmarks.networks.blocks.displacement`: ``(B, D, *S)`` in voxels, from the
target to the source. Losses are differentiable in the fields and compare half precision in float32.
"""

from __future__ import annotations

import torch
from monai.utils import StrEnum, look_up_option
from torch import nn

from ..geometry import LandmarkError
from ..networks.blocks.displacement import compose_displacements, warp
from .edge_ssim import (
    EdgeSSIMLoss,
    check_pair,
    check_range,
    comparable,
    eroded,
    masked_mean,
    sobel_gradients,
    voxels_that_count,
)

__all__ = [
    "EdgeAwareSmoothnessLoss",
    "GlobalL1Loss",
    "InverseConsistency",
    "InverseConsistencyLoss",
    "SyntheticPairLoss",
    "shown_by",
]


def shown_by(field: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Tell which voxels of the target a field fills from inside the source: the mask of every loss on a warped image.

    Args:
        field: ``(B, D, *S)`` in voxels.
        mask: ``(B, 1, *S)`` of the source, 0 where it was itself filled up (a film on a larger grid, a synthetic warp).

    Returns:
        bool ``(B, 1, *S)``, without gradient: False also for voxels that are interpolated between inside and outside.

    Example:
        >>> shift = torch.tensor([2.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 5, 3)
        >>> shown_by(shift)[0, 0, :, 1]
        tensor([ True,  True,  True, False, False])
    """
    with torch.no_grad():
        field = comparable(field)
        source = torch.ones_like(field[:, :1]) if mask is None else (comparable(mask) > 0.999).to(field)
        return warp(source, field) > 0.999


class GlobalL1Loss(nn.Module):
    r"""Average :math:`|I - J|` of a warped image and its target over the voxels that count (EdgeTrans, L_global).

    A pair of which nothing counts is compared whole, with its padding: leaving the image is no way to a low loss.

    Args:
        spatial_dims: 2 or 3.
        intensity_range: least and largest intensity: the loss is in shares of it.

    Shapes: two images ``(B, C, *S)``, and ``mask (B, 1, *S)``, which counts where it is 1, or None -> scalar.

    Raises:
        ValueError: for an empty range.
        LandmarkError: for shapes that do not fit.

    Example:
        >>> left = torch.tensor([1.0, 0.0]).expand(1, 1, 3, 2)
        >>> GlobalL1Loss(2)(torch.ones(1, 1, 3, 2), torch.zeros(1, 1, 3, 2) + 0.25, mask=left)
        tensor(0.7500)
    """

    def __init__(self, spatial_dims: int, intensity_range: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__()
        self.spatial_dims = spatial_dims
        _, self.width = check_range(intensity_range)

    def forward(self, warped: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        warped, target = check_pair(warped, target, self.spatial_dims, "the warped image", "the target")
        counts = voxels_that_count(mask, warped)
        return masked_mean(torch.where(counts, warped - target, 0).abs() / self.width, counts)


class EdgeAwareSmoothnessLoss(nn.Module):
    r"""Keep a deformation smooth, but less so across the edges of the image (EdgeTrans, eq. 15 and 16).

    .. math:: L = \sum_a \frac{\sum_u w_a(u)\, |\Phi(u + e_a) - \Phi(u)|^2}{\sum_u w_a(u)}, \quad
        w = e^{-|\nabla I|^2 / T}

    with :math:`e_a` one voxel along axis a, :math:`w_a(u)` the mean of w at both voxels, and :math:`\nabla I` the gradient
    of :func:`~monai_landmarks.losses.edge_ssim.sobel_gradients`, for several channels its mean square. A displacement
    that is linear in place has constant differences, and its sum of squares is the loss.

    The paper prints no sum: as in the released code, it is divided by the sum of weights, so that a film rich in edges is
    no less smooth on the whole. That code takes the difference to one random neighbour of each voxel, and
    :math:`|\nabla I|` without the square; here all neighbours along the axes count, and nothing is random. MONAI's
    ``DiffusionLoss`` has central differences, which do not see a field that alternates from voxel to voxel, leaves out the
    border, and has no weights. The image is a constant: else edges could be made to get rid of smoothness.

    Args:
        spatial_dims: 2 or 3.
        temperature: :math:`T`, in squares of intensity per voxel; None weighs all voxels alike (eq. 15).
        squared: True for the paper's weights, False for :math:`e^{-|\nabla I| / T}`, the released ones.
        intensity_range: least and largest intensity, which are taken as 0 and 1.

    Shapes: ``phi (B, D, *S)`` in voxels, ``image (B, C, *S)``, the warped image, and ``mask (B, 1, *S)``, 1 where it shows
    the source, or None -> scalar in squared voxels per voxel. Beyond the mask the field is to be smooth, too: there, and
    at the mask's rim, no edge is seen.

    Raises:
        ValueError: for an option that has no meaning.
        LandmarkError: for shapes that do not fit.

    Example:
        >>> phi = 0.5 * torch.arange(6.0).reshape(1, 1, 6, 1).expand(1, 2, 6, 7)
        >>> EdgeAwareSmoothnessLoss(2)(phi, torch.rand(1, 1, 6, 7))
        tensor(0.5000)
    """

    def __init__(
        self,
        spatial_dims: int,
        temperature: float | None = 0.1,
        squared: bool = True,
        intensity_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        if temperature is not None and not temperature > 0:
            raise ValueError(f"`temperature` must be above 0, such as 0.1, or None for no weights, got {temperature}.")
        self.spatial_dims, self.temperature, self.squared = spatial_dims, temperature, squared
        _, self.width = check_range(intensity_range)

    def forward(self, phi: torch.Tensor, image: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        phi = check_field(phi, "phi", self.spatial_dims)
        weights = self._weights(comparable(image).detach().to(phi), mask, phi)
        terms = []
        for axis in range(2, phi.ndim):
            size = phi.shape[axis] - 1
            both = (weights.narrow(axis, 0, size) + weights.narrow(axis, 1, size)) / 2
            terms.append(masked_mean(phi.diff(dim=axis).square(), both) * self.spatial_dims)
        return torch.stack(terms).sum()

    def _weights(self, image: torch.Tensor, mask: torch.Tensor | None, phi: torch.Tensor) -> torch.Tensor:
        if image.shape[:1] != phi.shape[:1] or image.shape[2:] != phi.shape[2:]:
            raise LandmarkError(
                f"the image {tuple(image.shape)} must be (B, C, *S) on the grid of the field {tuple(phi.shape)}."
            )
        if self.temperature is None:
            return torch.ones_like(phi[:, :1])
        square = (sobel_gradients(image) / self.width).square().sum(dim=2).mean(dim=1, keepdim=True)
        steepness = square if self.squared else square.sqrt()
        return torch.where(eroded(voxels_that_count(mask, phi)), torch.exp(-steepness / self.temperature), 1)


class InverseConsistency(StrEnum):
    """What is asked to be the inverse of a deformation."""

    COMPOSITION = "composition"
    NEGATED = "negated"


class InverseConsistencyLoss(nn.Module):
    r"""Want a deformation to be undone by its inverse (EdgeTrans, L_inv).

    "composition", as the paper means it: the field predicted for the pair the other way round, followed by this one, is
    the identity,

    .. math:: L = \overline{|T_f(T_b(x)) - x|^2}, \quad T(x) = x + \Phi(x)

    over the voxels that :math:`T_b` leaves in the grid, since nothing is known of :math:`T_f` beyond it.

    "negated", the released form: no second field; the target is warped by :math:`-\Phi`, a first-order guess at the inverse,
    and compared with the image that :math:`\Phi` warped. A linear displacement :math:`\Phi(x) = Gx` is asked by this
    to have :math:`G^2 = 0`: not a true consistency, but of use where it is too dear to run the network twice.

    Args:
        form: see above.
        normalised: for "composition": False is in squared voxels, True as in :class:`SyntheticPairLoss`, so that the loss
            and its weight mean the same on every grid.
        similarity: of images ``(warped, target, points, mask)`` for "negated"; None takes :class:`EdgeSSIMLoss`.

    Shapes: for "composition" two fields ``(B, D, *S)`` -> scalar. For "negated" the field, and images
    ``source (B, C, *S)`` before this deformation and ``target``; optionally ``points (B, N, D)``, the source's landmarks.
    ``mask (B, 1, *S)`` is 1 where voxels on which the comparison stands count, or None.

    Raises:
        ValueError: for an unknown form.
        LandmarkError: for shapes that do not fit, or if what the form needs is not given.

    Example:
        >>> there = torch.full((1, 2, 8, 8), 1.5)
        >>> InverseConsistencyLoss()(there, -there) < 1e-9
        tensor(True)
    """

    def __init__(
        self,
        form: str = InverseConsistency.COMPOSITION,
        similarity: nn.Module | None = None,
        normalised: bool = False,
    ) -> None:
        super().__init__()
        self.form, self.similarity = look_up_option(form, InverseConsistency), similarity
        self.normalised = normalised

    def forward(
        self,
        forward_field: torch.Tensor,
        backward_field: torch.Tensor | None = None,
        source: torch.Tensor | None = None,
        target: torch.Tensor | None = None,
        points: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        phi = check_field(forward_field, "the forward field")
        if self.form == InverseConsistency.NEGATED:
            return self._negated(phi, source, target, points, mask)
        if backward_field is None:
            raise LandmarkError(
                'form="composition" compares with the field of the pair the other way round, which was not given: run the '
                'network on (target, source) for it, or use form="negated".'
            )
        phi, back = check_pair(phi, backward_field, phi.ndim - 2, "the forward field", "the backward field")
        counts = shown_by(back)
        if mask is not None:
            counts = counts & voxels_that_count(mask, back)
        return _mean_square(compose_displacements(phi, back), counts, self.normalised)

    def _negated(
        self,
        phi: torch.Tensor,
        source: torch.Tensor | None,
        target: torch.Tensor | None,
        points: torch.Tensor | None,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        if source is None or target is None:
            raise LandmarkError('form="negated" compares images: give `source`, before this deformation, and `target`.')
        similarity = self.similarity or EdgeSSIMLoss(phi.ndim - 2)
        counts = shown_by(-phi)
        if mask is not None:
            counts = counts & voxels_that_count(mask, phi)
        value: torch.Tensor = similarity(warp(comparable(target), -phi), source, points, counts)
        return value


class SyntheticPairLoss(nn.Module):
    r"""Compare a predicted field with the true one of a pair that was made by a known warp (EdgeTrans, L_syn).

    .. math:: L = \overline{|\Phi(x) - \Phi^*(x)|^2}

    Args:
        normalised: False is in squared voxels. True divides by half the grid's extent along each axis and averages over
            the axes, as the released code: only so is the paper's weight of 5 what it was there.

    Shapes: two fields ``(B, D, *S)``, and ``mask (B, 1, *S)``, 1 where the true field comes from inside the source, or None
    -> scalar. What a pair without any such voxel has predicted does not count.

    Raises:
        LandmarkError: for shapes that do not fit.

    Example:
        >>> SyntheticPairLoss()(torch.zeros(1, 2, 4, 4), torch.full((1, 2, 4, 4), 3.0))
        tensor(18.)
    """

    def __init__(self, normalised: bool = False) -> None:
        super().__init__()
        self.normalised = normalised

    def forward(self, field: torch.Tensor, true: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        field = check_field(field, "the field")
        field, true = check_pair(field, true, field.ndim - 2, "the field", "the true field")
        counts = field.new_ones(()) > 0 if mask is None else comparable(mask).to(field) > 0.999
        counts = counts.expand_as(field[:, :1])
        error = torch.where(counts, field - true, 0)
        return _mean_square(error, counts, self.normalised)


def _mean_square(error: torch.Tensor, counts: torch.Tensor, normalised: bool) -> torch.Tensor:
    """Average the square of a field: in squared voxels, or with the grid from -1 to 1, and then over the axes too."""
    if normalised:
        extent = error.new_tensor([max(size - 1, 1) / 2 for size in error.shape[2:]])
        error = error / (extent * error.shape[1] ** 0.5).reshape(1, -1, *(1,) * (error.ndim - 2))
    return masked_mean(error.square().sum(dim=1, keepdim=True), counts)


def check_field(field: torch.Tensor, name: str, spatial_dims: int | None = None) -> torch.Tensor:
    """Give a displacement field in the precision of comparison; it must be ``(B, D, *S)``."""
    field = comparable(field)
    if field.ndim < 4 or field.shape[1] != field.ndim - 2 or spatial_dims not in (None, field.ndim - 2):
        wanted = "" if spatial_dims is None else f" with D = {spatial_dims}"
        raise LandmarkError(f"{name} must be a displacement field (B, D, *S){wanted}, got {tuple(field.shape)}.")
    return field
