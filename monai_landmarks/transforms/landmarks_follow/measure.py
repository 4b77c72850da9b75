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
"""Where a blob lies in an image, found without any code that decodes heatmaps: the ruler of ``check_landmarks_follow``.

The places are measured by adaptive moments: the mean of the intensity under a Gaussian window that is moved and shaped
until it has the place and shape of the blob itself. A constant background, a rescaled intensity and inverted contrast do
not move that mean, and a distant second structure has no weight in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

__all__ = [
    "ABSENT",
    "CUT",
    "FLOOR",
    "SEEN",
    "Blob",
    "adaptive_moments",
    "affine_fit",
    "contrast_image",
    "find_blob",
    "level_ground",
]

#: What a blob without interpolation noise is located to, in voxels, after one or two linear resamplings.
FLOOR = 0.02
#: A landmark's blob is whole, is cut by the border of the image, is not in the image.
SEEN, CUT, ABSENT = "seen", "cut", "absent"

_WHOLE = 2.4  # standard deviations of a blob that must lie inside the image for its mean to be true
_REACH = 4.0  # of the window
_ROUNDS = 40
_SETTLED = 1e-4  # voxels
_UNDONE = 0.3  # of what a bias field did may be left after it was undone
_FITTED = 40_000  # voxels that a fit of grey levels looks at
_LEAST_CONTRAST = 0.05  # of what the other blobs have, for a structure to be a blob


@dataclass
class Blob:
    """One blob as measured.

    Attributes:
        state: :data:`SEEN`, :data:`CUT` or :data:`ABSENT`.
        place: ``(D,)`` voxel index of its centre, NaN unless it is seen.
        width: ``(D,)`` its standard deviation along each axis.
        lopsided: how far the means under a wide and a narrow window are apart, in voxels.
        jitter: how far noise may have moved the place, in voxels.
        twins: how many other structures of the same height there are (mirrored anatomy).
        covariance: ``(D, D)`` of the blob.
        height: of the Gaussian of that place and covariance.
        ground: grey level on which it lies.
        slope: ``(D,)`` of that level.
    """

    state: str
    place: torch.Tensor
    width: torch.Tensor
    lopsided: float = 0.0
    jitter: float = 0.0
    twins: int = 0
    covariance: torch.Tensor | None = None
    height: float = 0.0
    ground: float = 0.0
    slope: torch.Tensor | None = None


def contrast_image(channel: torch.Tensor, blank: torch.Tensor) -> torch.Tensor:
    """Take away what an image shows without its blob: ``channel - (a * blank + b)``, upright.

    ``a`` and ``b`` are fitted, so that a channel which was rescaled by itself is compared all the same; the fit leaves
    out the voxels that it does not explain, which are the blob's.

    Args:
        channel: ``(*S)``.
        blank: ``(*S)``, the same image without blob after the same transforms.

    Returns:
        float64 ``(*S)``, positive on the blob.
    """
    values, flat = channel.double(), blank.double()
    step = max(1, values.numel() // _FITTED)
    some, level = values.reshape(-1)[::step], flat.reshape(-1)[::step]
    keep = torch.ones_like(some, dtype=torch.bool)
    factor = offset = torch.zeros((), dtype=torch.float64)
    for _ in range(3):
        x, y = level[keep], some[keep]
        spread = x - x.mean()
        power = (spread**2).sum()
        varies = bool(power > 1e-12 * (1 + x.abs().max() ** 2) * len(x))
        factor = (spread * y).sum() / power if varies else torch.zeros((), dtype=torch.float64)
        offset = y.mean() - factor * x.mean()
        rest = (some - factor * level - offset).abs()
        keep = rest <= max(3 * float(rest.median()), 1e-3 * float(rest.max()))
    rest = values - factor * flat - offset
    return rest if rest.max() >= -rest.min() else -rest


def find_blob(
    contrast: torch.Tensor,
    usual: float,
    blank: torch.Tensor | None = None,
    hint: torch.Tensor | None = None,
) -> Blob:
    """Measure the one blob of a contrast image.

    Args:
        contrast: ``(*S)`` float64, see :func:`contrast_image`.
        usual: height of the other landmarks' blobs: much less is no blob.
        blank: ``(*S)`` the image without blob: an edge in it near the blob is where an earlier step cut the image.
        hint: ``(D,)`` where one of several structures of like height is the one meant; used for that alone.

    Returns:
        the blob.
    """
    dims = contrast.ndim
    nothing = torch.full((dims,), torch.nan, dtype=torch.float64)
    top = float(contrast.max())
    if not top > max(_LEAST_CONTRAST * usual, 0.0):
        return Blob(ABSENT, nothing, nothing)
    noise = 1.5 * float(contrast.reshape(-1)[:: max(1, contrast.numel() // _FITTED)].abs().median())
    if top < 8 * noise:
        return Blob(ABSENT, nothing, nothing)
    peaks = _equal_peaks(contrast, 0.6 * top)
    chosen = 0
    if len(peaks) > 1 and hint is not None and bool(torch.isfinite(hint).all()):
        chosen = min(range(len(peaks)), key=lambda n: float((peaks[n].double() - hint).norm()))
    place, covariance = adaptive_moments(
        contrast, peaks[chosen].double(), _first_width(contrast, peaks[chosen]).diag() ** 2
    )
    if place is None:
        return Blob(CUT, nothing, nothing)
    width = covariance.diagonal().sqrt()
    size = torch.tensor(contrast.shape, dtype=torch.float64)
    reach = _WHOLE * width.clamp_min(0.6)
    if bool(((place - reach < -0.5) | (place + reach > size - 0.5)).any()):
        return Blob(CUT, nothing, width)
    if blank is not None and _edge_near(blank, place, covariance):
        return Blob(CUT, nothing, width)
    narrow, _ = adaptive_moments(contrast, place, covariance, shrink=0.25)
    lopsided = 0.0 if narrow is None else float((narrow - place).norm())
    jitter = 6 * noise / top / float(width.clamp_min(0.6).prod()) ** 0.5
    blob = Blob(SEEN, place, width, lopsided, jitter, len(peaks) - 1, covariance, _height(contrast, place, covariance))
    if blank is not None:
        blob.ground, blob.slope = _ground(blank, place, width)
    return blob


def _edge_near(blank: torch.Tensor, place: torch.Tensor, covariance: torch.Tensor) -> bool:
    """Tell whether the body on which the blob lies ends within the blob: the pipeline cut it there and padded it."""
    cut = _cut(blank.double(), place, covariance, reach=_WHOLE, every=True)
    if cut is None:
        return False
    values, offsets = cut
    within = ((offsets @ torch.linalg.inv(covariance)) * offsets).sum(dim=-1) <= _WHOLE**2
    span = float(blank.max()) - float(blank.min())
    if span <= 0 or not bool(within.any()):
        return False
    values = values[within]
    return float((values - values.median()).abs().max()) > 0.5 * span


def _height(contrast: torch.Tensor, place: torch.Tensor, covariance: torch.Tensor) -> float:
    """Return the height of the Gaussian with that place and covariance that fits best."""
    cut = _cut(contrast, place, covariance)
    if cut is None:
        return float(contrast.max())
    values, offsets = cut
    shape = torch.exp(-0.5 * ((offsets @ torch.linalg.inv(covariance)) * offsets).sum(dim=-1))
    return float((values * shape).sum() / (shape**2).sum())


def _ground(blank: torch.Tensor, place: torch.Tensor, width: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Fit grey level and slope ``(D,)`` of the body around a place; the slope is zero unless there is a bias field."""
    cut = _cut(blank.double(), place, (0.3 * width.clamp_min(1.0)).diag() ** 2)  # the body ends 2.5 widths away
    if cut is None or len(cut[0]) < 2 ** (len(place) + 1):
        return 0.0, torch.zeros_like(place)
    values, offsets = cut
    table = torch.cat([offsets, torch.ones_like(offsets[:, :1])], dim=1)
    fit = torch.linalg.lstsq(table, values[:, None]).solution[:, 0]
    return float(fit[-1]), fit[:-1]


def level_ground(blobs: Sequence[Blob], ratio: float) -> None:
    """Undo, in place, what a bias field does to the places: a gain ``g(x)`` draws a blob to where it is larger.

    Under a window like the blob the mean moves by half the covariance times the slope of log g. The slope is that of
    the body's grey level; how a change of that level compares with one of the blobs' heights is learnt from all blobs,
    because intensities may have been shifted and bent before and after.

    Args:
        blobs: of one image.
        ratio: height of a blob over that of the body as they were drawn, taken where there is nothing to learn from.
    """
    seen = [blob for blob in blobs if blob.state == SEEN and blob.slope is not None and blob.covariance is not None]
    if len(seen) < 3:
        return
    grounds = torch.tensor([blob.ground for blob in seen], dtype=torch.float64)
    heights = torch.tensor([blob.height for blob in seen], dtype=torch.float64)
    spread = grounds - grounds.mean()
    slopes = torch.stack([blob.slope * blob.width for blob in seen if blob.slope is not None]).norm(dim=-1)
    if float(slopes.median()) < 1e-4 * float(heights.abs().max()):
        return  # no bias field, which would be everywhere; at most the body's edge near some of them
    if float(spread.abs().max()) > 0.003 * float(heights.abs().max()):
        ratio = float((spread * (heights - heights.mean())).sum() / (spread**2).sum())
    for blob in seen:
        if blob.slope is None or blob.covariance is None:
            continue
        shift = 0.5 * blob.covariance @ (ratio / blob.height * blob.slope)
        if float(shift.norm()) > 0.5:
            continue  # no bias field does that; the ground is not smooth here
        blob.place = blob.place - shift
        blob.lopsided = max(0.0, blob.lopsided - 0.6 * float(shift.norm()))
        blob.jitter += _UNDONE * float(shift.norm())


def _equal_peaks(contrast: torch.Tensor, height: float) -> list[torch.Tensor]:
    """Return the tops of the separate structures above ``height``, the highest first."""
    left = contrast.clone()
    peaks: list[torch.Tensor] = []
    while len(peaks) < 4:
        flat = int(left.argmax())
        if float(left.reshape(-1)[flat]) < height:
            break
        peak = torch.stack(torch.unravel_index(torch.tensor(flat), left.shape))
        reach = torch.ceil(3.5 * _first_width(contrast, peak)).long() + 1
        low, high = (peak - reach).clamp_min(0), peak + reach + 1
        left[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))] = -torch.inf
        peaks.append(peak)
    return peaks


def _first_width(contrast: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
    """Guess the standard deviations from where the axes through the peak fall below half of it."""
    half = float(contrast[tuple(peak)]) / 2
    widths = []
    for axis in range(contrast.ndim):
        line = contrast[tuple(slice(None) if a == axis else int(peak[a]) for a in range(contrast.ndim))]
        below = (line < half).nonzero()[:, 0]
        middle = int(peak[axis])
        sides = [middle - int(b) for b in below if b < middle][-1:] + [int(b) - middle for b in below if b > middle][:1]
        widths.append(max(min(sides, default=2) / 1.18, 0.7))
    return torch.tensor(widths, dtype=torch.float64)


def adaptive_moments(
    contrast: torch.Tensor, place: torch.Tensor, covariance: torch.Tensor, shrink: float = 1.0
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Move a window to the blob's mean; with ``shrink=1`` shape it like the blob as well.

    Args:
        contrast: ``(*S)`` float64.
        place: ``(D,)`` where to begin.
        covariance: ``(D, D)`` of the blob, to begin with.
        shrink: the window's covariance over the blob's.

    Returns:
        place, None if there is nothing to weigh; and covariance.
    """
    for _ in range(_ROUNDS):
        window = covariance * shrink
        cut = _cut(contrast, place, window)
        if cut is None:
            return None, covariance
        values, offsets = cut
        precision = torch.linalg.inv(window)
        weights = values * torch.exp(-0.5 * ((offsets @ precision) * offsets).sum(dim=-1))
        total = weights.sum()
        if not total > 0:
            return None, covariance
        mean = (weights[:, None] * offsets).sum(dim=0) / total
        if shrink == 1.0:
            second = (offsets * weights[:, None]).T @ offsets / total
            covariance = _unwindowed(second, precision, covariance)
        # The windowed mean goes only part of the way: 1 / (1 + shrink) for a Gaussian.
        place = place + mean * (1 + shrink)
        if float(mean.abs().max()) < _SETTLED:
            break
    return place, covariance


def _unwindowed(second: torch.Tensor, precision: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Return the covariance of the blob from that of blob times window, unless it is nonsense."""
    inverse = torch.linalg.pinv(second, hermitian=True) - precision
    spectrum, axes = torch.linalg.eigh((inverse + inverse.T) / 2)
    limits = torch.linalg.eigvalsh(before)
    spectrum = spectrum.clamp(0.25 / float(limits[-1]), 4.0 / float(limits[0])).clamp_max(4.0)
    return (axes / spectrum) @ axes.T


def _cut(
    contrast: torch.Tensor, place: torch.Tensor, window: torch.Tensor, reach: float = _REACH, every: bool = False
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return values ``(K,)`` of the voxels within reach of the window and their offsets ``(K, D)`` from its middle."""
    width = window.diagonal().sqrt()
    if not bool(torch.isfinite(place).all()):
        return None
    slices, axes = [], []
    for axis, size in enumerate(contrast.shape):
        # A wide blob is sampled as well by every n-th voxel.
        step = 1 if every else max(1, int(width[axis] / 1.5))
        low = max(0, int(torch.floor(place[axis] - reach * width[axis])))
        high = min(size, int(torch.ceil(place[axis] + reach * width[axis])) + 1)
        if high - low < 2:
            return None
        slices.append(slice(low, high, step))
        axes.append(torch.arange(low, high, step, dtype=torch.float64) - place[axis])
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, contrast.ndim)
    return contrast[tuple(slices)].reshape(-1), offsets


def affine_fit(source: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float] | None:
    """Fit ``target = linear @ source + shift`` by least squares.

    Args:
        source: ``(N, D)``; rows with NaN on either side are left out.
        target: ``(N, D)``.

    Returns:
        linear ``(D, D)``, shift ``(D,)`` and what is left over, as root mean square per degree of freedom (NaN if there
        is none); None with fewer than ``D + 1`` points or points in one plane.
    """
    good = torch.isfinite(source).all(dim=-1) & torch.isfinite(target).all(dim=-1)
    source, target = source[good], target[good]
    dims = source.shape[-1]
    if len(source) < dims + 1:
        return None
    centre, middle = source.mean(dim=0), target.mean(dim=0)
    spread = source - centre
    values = torch.linalg.svdvals(spread)
    if values[-1] < 0.05 * values[0]:
        return None
    linear = torch.linalg.lstsq(spread, target - middle).solution.T
    rest = target - middle - spread @ linear.T
    freedom = len(source) - dims - 1
    left = float((rest**2).sum() / (freedom * dims)) ** 0.5 if freedom else float("nan")
    return linear, middle - linear @ centre, left
