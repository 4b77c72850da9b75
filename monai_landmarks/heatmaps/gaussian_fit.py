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
"""Least-squares fit of one Gaussian per map: centre, amplitude and covariance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch

from ..geometry import LandmarkError
from .peaks import FlaggedDecoded, Window, cut_window, find_peaks, finish
from .refinement import LOG_FLOOR, MIN_CURVATURE, small_inverse

__all__ = ["GaussianFit", "decode_gaussian_fit", "fit_gaussians"]

DEFAULT_WINDOW = 9

#: Share of the peak below which voxels count less and less in the first fit, which takes logarithms.
SOLID = 0.3

#: A model value is never let above exp(1) peaks: a first fit gone wrong must not overflow in the next step.
MAX_LOG = 1.0

#: Added to the unit diagonal of the normal equations, so that an empty window solves to zero; Gauss-Newton steps take
#: its effect out again.
RIDGE = 1e-9


class GaussianFit(NamedTuple):
    """What :func:`fit_gaussians` returns.

    Attributes:
        points: ``(..., N, D)`` centres in voxel index order.
        amplitude: ``(..., N)`` value of the fitted Gaussian at its centre.
        covariance: ``(..., N, D, D)`` in voxels squared: the fitted Gaussian's shape, whose diagonal is sigma squared.
        extrapolated: ``(..., N)`` bool, see :class:`~monai_landmarks.heatmaps.FlaggedDecoded`.
    """

    points: torch.Tensor
    amplitude: torch.Tensor
    covariance: torch.Tensor
    extrapolated: torch.Tensor


class LocalGaussian(NamedTuple):
    """A Gaussian within a window, relative to the peak's value; batch axes ``(B, N)``, dtype of :func:`prepare_fit`.

    Attributes:
        centre: ``(B, N, D)`` from the middle voxel of the window, zero where not definite.
        precision: ``(B, N, D, D)``, the inverse of the covariance; arbitrary where not definite.
        covariance: ``(B, N, D, D)``, the identity where not definite.
        log_amplitude: ``(B, N)``.
        definite: bool ``(B, N)``: the covariance is one.
    """

    centre: torch.Tensor
    precision: torch.Tensor
    covariance: torch.Tensor
    log_amplitude: torch.Tensor
    definite: torch.Tensor


def fit_gaussians(
    heatmaps: torch.Tensor,
    window: int | Sequence[int] = DEFAULT_WINDOW,
    *,
    iterations: int = 2,
    spatial_dims: int | None = None,
) -> GaussianFit:
    r"""Fit a Gaussian with full covariance to the voxels around each map's peak, all maps at once.

    The logarithm of a Gaussian is a quadratic with 1 + D + D(D+1)/2 coefficients :math:`\theta`. They start from linear
    least squares on the logarithm, weighted by the squared values (Guo 2011), which is exact without noise. Each
    iteration is then a Gauss-Newton step of the plain least-squares problem

    .. math:: \min_\theta \sum_x \left( h(x) - \exp(\theta^T \phi(x)) \right)^2

    which noise, negative values and the logarithm of small values do not bias. The window is moved, not cut, at the
    image border, so the fit stays exact there; only its variance grows. Cost: two passes of small batched sums, where
    a general optimiser needs about a second for each map.

    Where no positive definite covariance comes out (a flat top, a ridge), the point is the highest voxel, the
    amplitude its value and the covariance NaN. A centre more than one voxel outside the window is moved to that
    limit. Both are flagged, and so is a saturated plateau that reaches the rim of the window. An axis with fewer than
    three voxels has no width: its point is the voxel and its covariance NaN.

    Args:
        heatmaps: ``(B, N, *S)`` or ``(N, *S)``.
        window: odd width in voxels of the box that is fitted, for all axes or each; 2 to 4 sigma is a good width.
        iterations: Gauss-Newton steps; 0 keeps the fit to the logarithm.
        spatial_dims: give 3 for ``(N, X, Y, Z)``; four axes are read as ``(B, N, H, W)`` otherwise.

    Returns:
        a :class:`GaussianFit`; NaN points and covariance and the map's maximum as amplitude where a map is empty.

    Raises:
        LandmarkError: for a shape that is neither, an even or too small ``window``, negative ``iterations``.

    Example:
        >>> import torch
        >>> from monai_landmarks.heatmaps import gaussian_heatmaps
        >>> fit = fit_gaussians(gaussian_heatmaps(torch.tensor([[7.25, 4.5]]), (16, 16), sigma=(2.0, 3.0)))
        >>> fit.points
        tensor([[7.2500, 4.5000]])
        >>> (fit.covariance[0].diagonal() - torch.tensor([4.0, 9.0])).abs().max() < 1e-3
        tensor(True)
    """
    if not isinstance(iterations, int) or iterations < 0:
        raise LandmarkError(f"`iterations` must be 0 or more, got {iterations!r}.")
    peaks = find_peaks(heatmaps, spatial_dims)
    patch = cut_window(peaks, window_sizes(window, len(peaks.spatial_shape)))
    values, design = prepare_fit(patch)
    middle = middle_offset(patch).to(values)
    fit = fit_window(values, -middle, design, iterations)
    centre, near = limit_to_window(fit.centre, design.sizes)
    moved = centre - fit.centre
    lost = 0.5 * (moved.unsqueeze(-1) * fit.precision * moved.unsqueeze(-2)).sum(dim=(-1, -2))
    height = peaks.value * (fit.log_amplitude - lost).clamp(max=10).exp().to(peaks.value)
    offset = (centre + middle).to(peaks.value).masked_fill(~fit.definite.unsqueeze(-1), 0)
    refused = ~(fit.definite & near) | is_plateau(values, design.sizes)
    decoded = finish(peaks, offset, refused, torch.where(fit.definite, height, peaks.value))
    unknown = (peaks.empty | ~fit.definite)[..., None, None]
    if design.short is not None:
        unknown = unknown | design.short | design.short.unsqueeze(-1)
    covariance = fit.covariance.to(peaks.value).masked_fill(unknown, float("nan"))
    covariance = covariance if peaks.batched else covariance[0]
    return GaussianFit(decoded.points, decoded.confidence, covariance, decoded.extrapolated)


def decode_gaussian_fit(
    heatmaps: torch.Tensor,
    *,
    window: int | Sequence[int] = DEFAULT_WINDOW,
    iterations: int = 2,
    spatial_dims: int | None = None,
) -> FlaggedDecoded:
    """Return the centre of the Gaussian fitted by :func:`fit_gaussians`, and its amplitude as the confidence.

    Args:
        heatmaps: ``(B, N, *S)`` or ``(N, *S)``.
        window: see :func:`fit_gaussians`.
        iterations: see :func:`fit_gaussians`.
        spatial_dims: give 3 for ``(N, X, Y, Z)``; four axes are read as ``(B, N, H, W)`` otherwise.

    Returns:
        points ``(..., N, D)``, confidence ``(..., N)`` = fitted amplitude (the map's maximum where the fit was
        refused), and the flag: on the border, refused or empty.

    Raises:
        LandmarkError: as :func:`fit_gaussians`.

    Example:
        >>> import torch
        >>> from monai_landmarks.heatmaps import gaussian_heatmaps
        >>> maps = gaussian_heatmaps(torch.tensor([[7.5, 4.5]]), (16, 16), sigma=2.0)
        >>> round(maps.max().item(), 2), round(decode_gaussian_fit(maps).confidence.item(), 4)
        (0.94, 1.0)
    """
    fit = fit_gaussians(heatmaps, window, iterations=iterations, spatial_dims=spatial_dims)
    return FlaggedDecoded(fit.points, fit.amplitude, fit.extrapolated)


def window_sizes(window: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """Check ``window`` and return one odd width per axis."""
    sizes = (window,) * dims if isinstance(window, int) else tuple(window)
    if len(sizes) != dims or not all(isinstance(size, int) and size >= 3 and size % 2 for size in sizes):
        raise LandmarkError(
            f"`window` must be an odd number of voxels of at least 3, one or one per axis ({dims}), got {window!r}: "
            "an even width has no middle voxel."
        )
    return sizes


def fit_window(values: torch.Tensor, peak: torch.Tensor, design: Design, iterations: int) -> LocalGaussian:
    """Fit a Gaussian to each window; see :func:`fit_gaussians`.

    Args:
        values: ``(B, N, P)`` relative to the peak's value.
        peak: ``(B, N, D)``, where the peak is, from the window's middle voxel.
        design: of the window.
        iterations: Gauss-Newton steps.
    """
    dims = len(design.sizes)
    positive = values.detach().clamp(min=0)
    # Squared values weigh noise in the logarithm as it deserves where the peak stands out. Where it does not, and far
    # from the peak, as in a window moved inwards, many weak voxels would outvote the few good ones: they fade out, to
    # weights that are not zero, for on a narrow peak at the border a weak voxel may be needed.
    weight = positive.square() * (positive / SOLID).clamp(max=1).square().square()
    reach = torch.tensor([size / 4 for size in design.sizes], dtype=values.dtype, device=values.device)
    weight = weight * (-0.5 * design.distance(peak, torch.diag(reach**-2))).exp()
    theta = design.solve(weight, weight * values.clamp(min=LOG_FLOOR).log())
    for _ in range(iterations):
        model = design.evaluate(theta.detach()).clamp(max=MAX_LOG).exp()
        theta = theta.detach() + design.solve(model.square(), model * (values - model))
    linear, precision = theta[..., 1 : 1 + dims], theta[..., design.square] * design.factor
    curved = precision.diagonal(dim1=-2, dim2=-1) > MIN_CURVATURE
    if design.short is not None:
        curved = curved | design.short
        precision = precision + torch.diag(design.short.to(precision))
    covariance, definite = small_inverse(precision)
    definite = definite & curved.all(dim=-1) & torch.isfinite(theta).all(dim=-1)
    linear = linear.masked_fill(~definite.unsqueeze(-1), 0)
    centre = (covariance * linear.unsqueeze(-2)).sum(dim=-1)
    centre = centre if design.short is None else torch.where(design.short, peak, centre)
    top = theta[..., 0] + 0.5 * (linear * centre).sum(dim=-1)
    return LocalGaussian(centre, precision, covariance, top.masked_fill(~definite, 0), definite)


def middle_offset(patch: Window) -> torch.Tensor:
    """The window's middle voxel minus the peak, ``(B, N, D)``: not zero where the image's border moved the window."""
    return torch.stack([offset[..., offset.shape[-1] // 2] for offset in patch.offsets], dim=-1)


def is_plateau(values: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Tell where so many voxels of a window are as high as the peak that a plateau must reach the window's rim.

    The peak, in the middle, is a plateau's first voxel; a square one that ends at the rim covers the quarter behind it.
    A peak exactly between voxels is shared by up to 2^D of them and is none.
    """
    quarter = math.prod((size + 1) // 2 for size in sizes)
    return (values.detach() >= 1).sum(dim=-1) >= max(quarter, 2 ** len(sizes) + 1)


def limit_to_window(centre: torch.Tensor, sizes: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Move ``centre (B, N, D)`` to at most one voxel outside the window, and tell where that was not needed."""
    low = torch.tensor([-(size // 2) - 1 for size in sizes], device=centre.device).to(centre)
    high = torch.tensor([size - size // 2 for size in sizes], device=centre.device).to(centre)
    limited = torch.minimum(torch.maximum(centre, low), high)
    return limited, (limited == centre).all(dim=-1)


class Design(NamedTuple):
    """The products of powers of the coordinates within a window, up to degree 4; the middle voxel is the origin.

    Attributes:
        sizes: ``D`` widths of the window.
        terms: ``(P, M)``, those of degree 0, 1 and 2 first: these ``n`` are the model's phi.
        normal: ``(n, n)`` which term is the product of two of phi's.
        square: ``(D, D)`` which of phi's is the product of two coordinates.
        factor: ``(D, D)`` turns these coefficients into entries of the precision matrix.
        pairs: ``(2, D(D+1)/2)`` axes of each quadratic term.
        ridge: ``(n, n)``, what is added to scaled normal equations.
        short: bool ``(D,)`` the axes with fewer than three voxels, which carry no width; None if there is none.
        unused: bool ``(n,)`` the coefficients of these axes, or None.
    """

    sizes: tuple[int, ...]
    terms: torch.Tensor
    normal: torch.Tensor
    square: torch.Tensor
    factor: torch.Tensor
    pairs: torch.Tensor
    ridge: torch.Tensor
    short: torch.Tensor | None
    unused: torch.Tensor | None

    def evaluate(self, theta: torch.Tensor) -> torch.Tensor:
        """The quadratic with coefficients ``theta (B, N, n)`` at every voxel, ``(B, N, P)``."""
        return theta @ self.terms[:, : theta.shape[-1]].T

    def distance(self, centre: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        """``(x - centre)^T matrix (x - centre)`` at every voxel, ``(..., P)``, for ``centre (..., D)``."""
        pull = (matrix * centre.unsqueeze(-2)).sum(dim=-1)
        lead = (*pull.shape[:-1], *matrix.shape[-2:])
        bent = (matrix / -self.factor).expand(lead)[..., self.pairs[0], self.pairs[1]]
        return self.evaluate(torch.cat(((pull * centre).sum(dim=-1, keepdim=True), -2 * pull, 2 * bent), dim=-1))

    def solve(self, weight: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Solve ``(sum weight phi phi^T) theta = sum target phi``; all ``(B, N, ...)``."""
        moments = torch.stack((weight, target)) @ self.terms
        matrix, right = moments[0][..., self.normal], moments[1][..., : self.normal.shape[0]]
        if self.unused is not None:
            matrix = matrix.masked_fill(self.unused | self.unused.unsqueeze(-1), 0)
            right = right.masked_fill(self.unused, 0)
        diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        scale = diagonal.clamp(min=torch.finfo(diagonal.dtype).tiny).rsqrt()
        matrix = matrix * scale.unsqueeze(-1) * scale.unsqueeze(-2) + self.ridge
        factor, _ = torch.linalg.cholesky_ex(matrix)
        return torch.cholesky_solve((right * scale).unsqueeze(-1), factor).squeeze(-1) * scale


def prepare_fit(patch: Window) -> tuple[torch.Tensor, Design]:
    """The window's values ``(B, N, P)`` in a wide dtype, and the design of its shape.

    In float64 neither autocast nor TF32 touches the matrix products, which would lose most digits to them. Where the
    device has no float64 the window's own dtype has to do.
    """
    sizes = tuple(patch.values.shape[2:])
    flat = patch.values.flatten(2)
    values = flat if flat.device.type == "mps" else flat.double()
    dims, dtype, device = len(sizes), values.dtype, values.device
    exponents, normal, square = _TERM_TABLES[dims]
    terms = torch.ones((), dtype=dtype, device=device)
    for axis, size in enumerate(sizes):
        x = torch.arange(-(size // 2), size - size // 2, dtype=dtype, device=device)
        power = x.unsqueeze(-1) ** torch.tensor(exponents[axis], device=device)
        terms = terms * power.reshape(*(1,) * axis, size, *(1,) * (dims - 1 - axis), -1)
    short = torch.tensor([size < 3 for size in sizes], device=device) if min(sizes) < 3 else None
    unused = None
    if short is not None:
        unused = (torch.tensor(exponents, device=device)[:, : len(normal)].bool() & short.unsqueeze(-1)).any(dim=0)
    return values, Design(
        sizes,
        terms.flatten(0, -2),
        torch.tensor(normal, device=device),
        torch.tensor(square, device=device),
        -1 - torch.eye(dims, dtype=dtype, device=device),
        torch.triu_indices(dims, dims, device=device),
        RIDGE * torch.eye(len(normal), dtype=dtype, device=device),
        short,
        unused,
    )


def _term_tables(dims: int) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """The exponents of all terms by axis, and the positions that :class:`Design` calls ``normal`` and ``square``.

    The terms are sorted by degree, and the quadratic ones in the order of the upper triangle of a matrix.
    """
    terms = sorted((e for e in product(range(5), repeat=dims) if sum(e) <= 4), key=lambda e: (sum(e), [-v for v in e]))
    phi = [e for e in terms if sum(e) <= 2]
    axes = range(dims)
    normal = [[terms.index(tuple(a + b for a, b in zip(p, q, strict=True))) for q in phi] for p in phi]
    square = [[phi.index(tuple((i == a) + (j == a) for a in axes)) for j in axes] for i in axes]
    return [[e[axis] for e in terms] for axis in axes], normal, square


_TERM_TABLES = {dims: _term_tables(dims) for dims in (2, 3)}
