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
"""Similarity of EdgeTrans (Yin et al. 2022): SSIM of two images, and of their Sobel maps around the landmarks."""

from __future__ import annotations

import torch
from monai.networks.layers import separable_filtering
from torch import nn
from torch.nn import functional as F

from ..geometry import LandmarkError, check_points, plain_tensor, present
from ..heatmaps import gaussian_heatmaps

__all__ = ["EdgeSSIMLoss", "sobel_gradients", "structural_similarity"]

_COUNTS = 1 - 1e-3  # a mask that was interpolated is 1 only to rounding
_LEAST_RANGE = 1e-3  # of a Sobel map, in shares of the intensity range: less is noise, and not stretched to 1


def sobel_gradients(image: torch.Tensor) -> torch.Tensor:
    """Take the Sobel gradient along every axis, scaled so that a ramp of 1 per voxel has gradient 1.

    The image is continued by its border voxel, as ``scipy.ndimage.sobel(mode="nearest")``, which is larger by the factor
    ``2 * 4 ** (D - 1)``. MONAI's ``SobelGradients`` takes one image ``(C, *S)``: it takes the channels of a batch
    for an axis and blurs across them, and its kernel is float32. Its kernels and its ``separable_filtering`` are used here.

    Args:
        image: ``(B, C, *S)``; half precision is filtered in float32, also under autocast.

    Returns:
        ``(B, C, D, *S)``; differentiable.

    Example:
        >>> sobel_gradients(torch.arange(5.0).expand(1, 1, 3, 5))[0, 0, :, 1]
        tensor([[0.0000, 0.0000, 0.0000, 0.0000, 0.0000],
                [0.5000, 1.0000, 1.0000, 1.0000, 0.5000]])
    """
    image = comparable(image)
    derivative, smooth = image.new_tensor([-0.5, 0.0, 0.5]), image.new_tensor([0.25, 0.5, 0.25])
    dims = image.ndim - 2
    axes = [[derivative if axis == other else smooth for other in range(dims)] for axis in range(dims)]
    with torch.autocast(image.device.type, enabled=False):
        return torch.stack([separable_filtering(image, kernels, mode="replicate") for kernels in axes], dim=2)


def structural_similarity(
    first: torch.Tensor,
    second: torch.Tensor,
    mask: torch.Tensor | None = None,
    window: int = 11,
    window_sigma: float = 1.5,
    data_range: float = 1.0,
) -> torch.Tensor:
    r"""Compare two images around each voxel (Wang et al. 2004), from the voxels of the mask alone.

    .. math:: \mathrm{SSIM} = \frac{(2 \mu_x \mu_y + C_1)(2 \sigma_{xy} + C_2)}
        {(\mu_x^2 + \mu_y^2 + C_1)(\sigma_x^2 + \sigma_y^2 + C_2)}, \quad C_1 = (0.01 L)^2, C_2 = (0.03 L)^2

    Means and variances are those of a Gaussian window whose weights are 0 outside of the mask and of the image and add up
    to 1 over the rest, so that no padding is compared. Where the whole window is inside this is
    ``skimage.metrics.structural_similarity(gaussian_weights=True, use_sample_covariance=False)``.

    MONAI's ``compute_ssim_and_cs``, behind ``SSIMMetric`` and ``SSIMLoss``, is the same there, but has no mask, gives a map
    that lacks half a window at each border, computes float64 in float32 (and in bfloat16 under autocast, where
    :math:`E[x^2] - E[x]^2` has no digits left), and convolves 3D images with all of a window of 1331 voxels.

    Args:
        first: ``(B, C, *S)``, not negative; half precision is compared in float32.
        second: the same shape.
        mask: ``(B, 1, *S)`` bool, the voxels that count; None for all.
        window: voxels on each axis, odd.
        window_sigma: width of the Gaussian in voxels.
        data_range: :math:`L`, from the least to the largest possible value.

    Returns:
        ``(B, C, *S)``, 1 for equal images; differentiable. Outside of the mask it has no meaning.

    Example:
        >>> image = torch.rand(1, 1, 9, 9)
        >>> structural_similarity(image, image).allclose(torch.ones(1))
        True
    """
    x, y = comparable(first), comparable(second)
    there = torch.ones_like(x[:, :1]) if mask is None else mask.to(x)
    x, y = (torch.where(there > 0, image, 0) for image in (x, y))
    distance = torch.arange(window, dtype=x.dtype, device=x.device) - (window - 1) / 2
    gauss = torch.exp(-0.5 * (distance / window_sigma).square())
    with torch.autocast(x.device.type, enabled=False):
        sums = separable_filtering(
            torch.cat([x, y, x * x, y * y, x * y, there], dim=1), [gauss / gauss.sum()] * (x.ndim - 2)
        )
    weight = sums[:, -1:].clamp(min=torch.finfo(x.dtype).tiny)
    mean_x, mean_y, xx, yy, xy = (sums[:, :-1] / weight).chunk(5, dim=1)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    variances = xx - mean_x.square() + yy - mean_y.square()
    return luminance * (2 * (xy - mean_x * mean_y) + c2) / (variances + c2)


class EdgeSSIMLoss(nn.Module):
    r"""Compare a warped image with its target by SSIM, and their edges around the landmarks again (EdgeTrans, eq. 13, 14).

    .. math:: L = \overline{1 - \mathrm{SSIM}(I, J)} + w \frac{\sum_u M(u) \left(1 - \mathrm{SSIM}(\nabla I, \nabla J)(u)
        \right)}{\sum_u M(u)}, \quad M(u) = \frac{1}{N} \sum_i e^{-|u - p_i|^2 / 2\sigma^2}

    SSIM is that of :func:`structural_similarity`, on maps of :func:`sobel_gradients`, one for each axis, each
    stretched to 0 to 1 over the voxels that count of its image, as in the released code: so edges are compared by their
    form, whatever the contrast of the film. Every mean is over all images of the batch and the voxels that count.

    The paper does not say how its second map becomes a number: a mean over the image would be about 1000 times smaller
    than the first term, so it is divided by the sum of the weights. The released code halves the sum of both terms and
    has weights of about 10 voxels width where the paper says 3; points are constants in both.

    A voxel of the mask counts if it is 1: one that is interpolated between the source and what lies around it does not.
    Edges count where all neighbours do, for the rim of the mask is an edge of its own. A pair of which nothing counts is
    compared whole, with its padding: leaving the image is no way to a low loss.

    Args:
        spatial_dims: 2 or 3.
        edge_weight: :math:`w`; 0 leaves the edges out.
        sigma: width of the landmarks' weights in voxels.
        window: of SSIM, voxels on each axis, odd.
        window_sigma: width of SSIM's Gaussian.
        intensity_range: least and largest intensity; SSIM is meant for values from 0.

    Shapes: two images ``(B, C, *S)``; ``points (B, N, D)`` in voxels of the target, NaN for missing, or None for the first
    term alone (before there are pseudo-labels); ``mask (B, 1, *S)``, 1 where the warped image shows the source, or None
    -> scalar. Half precision is compared in float32.

    Raises:
        ValueError: for an option that has no meaning.
        LandmarkError: for shapes that do not fit.

    Example:
        >>> loss, image = EdgeSSIMLoss(2), torch.rand(1, 1, 16, 16)
        >>> loss(image, image, points=torch.tensor([[[4.0, 5.0]]])).abs() < 1e-5
        tensor(True)
        >>> loss(image, torch.rand(1, 1, 16, 16)) > 0.5
        tensor(True)
    """

    def __init__(
        self,
        spatial_dims: int,
        edge_weight: float = 1.0,
        sigma: float = 3.0,
        window: int = 11,
        window_sigma: float = 1.5,
        intensity_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        if not edge_weight >= 0:
            raise ValueError(f"`edge_weight` must not be negative, got {edge_weight}; 0 leaves the edges out.")
        for name, value in {"sigma": sigma, "window_sigma": window_sigma}.items():
            if not value > 0:
                raise ValueError(f"`{name}` must be above 0 voxels, got {value}.")
        if window < 3 or window % 2 == 0:
            raise ValueError(f"`window` must be odd and at least 3 voxels, so that it has a centre, got {window}.")
        self.spatial_dims, self.edge_weight, self.sigma = spatial_dims, edge_weight, sigma
        self.window, self.window_sigma = window, window_sigma
        self.low, self.width = check_range(intensity_range)

    def forward(
        self,
        warped: torch.Tensor,
        target: torch.Tensor,
        points: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        warped, target = check_pair(warped, target, self.spatial_dims, "the warped image", "the target")
        counts = voxels_that_count(mask, warped)
        warped, target = (torch.where(counts, (image - self.low) / self.width, 0) for image in (warped, target))
        loss = masked_mean(1 - self._similarity(warped, target, counts), counts)
        if points is None or not self.edge_weight:
            return loss
        return loss + self.edge_weight * self._edges(warped, target, plain_tensor(points), counts)

    def _edges(
        self, warped: torch.Tensor, target: torch.Tensor, points: torch.Tensor, counts: torch.Tensor
    ) -> torch.Tensor:
        check_points(points, self.spatial_dims)
        if points.ndim != 3 or points.shape[0] != warped.shape[0]:
            raise LandmarkError(
                f"points {tuple(points.shape)} must be (B, N, D) with the batch of the images {tuple(warped.shape)}."
            )
        points = points.detach().to(warped)
        number = present(points).sum(dim=1).clamp(min=1).reshape(-1, 1, *(1,) * self.spatial_dims)
        near = gaussian_heatmaps(points, warped.shape[2:], self.sigma).sum(dim=1, keepdim=True) / number
        counts = eroded(counts)
        first, second = (stretched(sobel_gradients(image).flatten(1, 2), counts) for image in (warped, target))
        return masked_mean(1 - self._similarity(first, second, counts), near * counts)

    def _similarity(self, first: torch.Tensor, second: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        return structural_similarity(first, second, counts, self.window, self.window_sigma)


def comparable(tensor: torch.Tensor) -> torch.Tensor:
    """Take meta data off, and half precision and integers to float32."""
    tensor = plain_tensor(tensor)
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def check_range(intensity_range: tuple[float, float]) -> tuple[float, float]:
    """Give the least intensity and the width of the range, which must be above 0."""
    low, high = intensity_range
    if not high > low:
        raise ValueError(f"`intensity_range` must go from the least to the largest intensity, got {intensity_range}.")
    return low, high - low


def check_pair(
    first: torch.Tensor, second: torch.Tensor, spatial_dims: int, one: str, other: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give both in the precision of comparison, on one device; they must be ``(B, C, *S)`` of one shape."""
    first = comparable(first)
    second = comparable(second).to(first.device)
    if first.shape != second.shape or first.ndim != spatial_dims + 2:
        raise LandmarkError(
            f"{one} and {other} must have one shape (B, C, *S) with {spatial_dims} spatial axes, got "
            f"{tuple(first.shape)} and {tuple(second.shape)}. Source and target of a pair share one grid."
        )
    dtype = torch.promote_types(first.dtype, second.dtype)
    return first.to(dtype), second.to(dtype)


def voxels_that_count(mask: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    """Give the mask ``(B, 1, *S)`` as bool, all True for a pair without a single voxel that counts.

    Raises:
        LandmarkError: for a mask of another shape.
    """
    shape = (like.shape[0], 1, *like.shape[2:])
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=like.device)
    mask = plain_tensor(mask).to(like.device)
    if tuple(mask.shape) != shape:
        raise LandmarkError(f"the mask must be {shape}, one number for each voxel, got {tuple(mask.shape)}.")
    counts = mask.detach() >= _COUNTS
    return counts | ~counts.flatten(1).any(dim=1).reshape(-1, 1, *(1,) * (like.ndim - 2))


def masked_mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Average ``(B, C, *S)`` over everything, with weights ``(B, 1, *S)``; 0 without any weight."""
    weights = weights.to(values)
    return (values * weights).sum() / (weights.sum() * values.shape[1]).clamp(min=torch.finfo(values.dtype).tiny)


def eroded(counts: torch.Tensor) -> torch.Tensor:
    """Leave of a bool mask the voxels all of whose neighbours in the image count, too."""
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[counts.ndim - 3]
    return pool((~counts).float(), 3, stride=1, padding=1) == 0


def stretched(maps: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Bring each map to 0 to 1 over the voxels that count."""
    axes = tuple(range(2, maps.ndim))
    low = torch.where(counts, maps, torch.inf).amin(dim=axes, keepdim=True)
    high = torch.where(counts, maps, -torch.inf).amax(dim=axes, keepdim=True)
    low, high = (torch.where(edge.isfinite(), edge, 0) for edge in (low, high))
    return (maps - low) / (high - low).clamp(min=_LEAST_RANGE)
