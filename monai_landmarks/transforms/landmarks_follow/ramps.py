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
"""The second ruler of ``check_landmarks_follow``: coordinates that travel through a pipeline as images.

The mean of a blob that was bent is not where its middle went. Coordinate images (ramps) show the map itself: they say
where the middle went, and what the mean of a blob would be after that map, so that the mean can be corrected.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .measure import SEEN, Blob, adaptive_moments

__all__ = ["refine_by_ramps", "roughness"]

_TRUSTED = 4.0  # voxels from the mean of a bent blob within which its middle is looked for
_AGREES = 0.06  # voxels between what ramps and what blobs say, for most landmarks, if ramps still read coordinates
_FITS = 0.25  # the same, root mean square, after their intensities were fitted
_ROUNDS = 4
_REACH = 5.0  # widths of a blob around it that are simulated


def refine_by_ramps(
    ramps: torch.Tensor, sent: torch.Tensor, blobs: Sequence[Blob], sigma: float
) -> tuple[torch.Tensor, float] | None:
    """Find where points of a curved map lie, more sharply than by the mean of a bent blob.

    The ramps hold, in every voxel of the output, the input coordinate that came to lie there; the place of a landmark
    is where they read its own coordinates. Intensities that were rescaled, one factor and offset per channel, are
    fitted: to what is read at the blobs' means, corrected by how far the map that is read moves the mean of a blob from
    its middle. That correction hardly changes with the fit, so that a few rounds settle it.

    Args:
        ramps: ``(D, *S)``, input coordinates that went through the transforms as images.
        sent: ``(N, D)`` input coordinates of the landmarks.
        blobs: as measured, one per landmark.
        sigma: of the blobs as they were drawn, in input voxels.

    Returns:
        places ``(N, D)``, NaN where the map is torn or folded, and how far all may be off because intensities were
        fitted; None where the ramps do not read coordinates any more.
    """
    rows = [n for n, blob in enumerate(blobs) if blob.state == SEEN and bool(torch.isfinite(sent[n]).all())]
    dims = ramps.shape[0]
    if len(rows) < dims + 2:
        return None
    seen, wanted = [blobs[n] for n in rows], sent[rows]
    means = torch.stack([blob.place for blob in seen])
    ramps = ramps.double()
    places, corrected = _solve(ramps, wanted, means, seen, sigma)
    left = (corrected - places).norm(dim=-1)
    unsure = 0.0
    if not (float(left.nanmedian()) < _AGREES and int(torch.isfinite(left).sum()) >= dims + 2):
        at = means
        for _ in range(_ROUNDS):
            scaled = _rescaled(ramps, wanted, at)
            places, corrected = _solve(scaled, wanted, means, seen, sigma)
            at = torch.where(torch.isfinite(corrected), corrected, means)
        left = (corrected - places).norm(dim=-1)
        left = left[torch.isfinite(left)]
        rest = float((left**2).mean()) ** 0.5 if len(left) >= dims + 2 else float("inf")
        if not rest < _FITS:
            return None
        unsure = 3 * rest / len(left) ** 0.5
    refined = torch.full_like(sent, torch.nan)
    refined[rows] = places
    return refined, unsure


def _rescaled(ramps: torch.Tensor, sent: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Fit one factor and offset per ramp so that it reads the coordinates ``sent`` at the places ``at``."""
    readings = _interpolate(ramps, at)
    tables = torch.stack([readings, torch.ones_like(readings)], dim=-1).movedim(1, 0)
    factors = torch.linalg.lstsq(tables, sent.T.unsqueeze(-1)).solution[..., 0]
    shape = (len(ramps),) + (1,) * len(ramps)
    return ramps * factors[:, 0].reshape(shape) + factors[:, 1].reshape(shape)


def _solve(
    ramps: torch.Tensor, sent: torch.Tensor, means: torch.Tensor, blobs: Sequence[Blob], sigma: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where the ramps read ``sent``, and the blobs' means less what this map does to the mean of a blob."""
    places = _newton(ramps, sent, means)
    corrected = torch.full_like(means, torch.nan)
    for n, blob in enumerate(blobs):
        if blob.covariance is None or bool(torch.isnan(places[n]).any()):
            continue
        low = torch.floor(means[n] - _REACH * blob.width).long().clamp_min(0)
        high = torch.ceil(means[n] + _REACH * blob.width).long() + 1
        box = ramps[(slice(None), *(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)))]
        shape = (-1,) + (1,) * len(ramps)
        expected = torch.exp(-0.5 * ((box - sent[n].reshape(shape)) ** 2).sum(dim=0) / sigma**2)
        mean, _ = adaptive_moments(expected, means[n] - low, blob.covariance)
        if mean is not None:
            corrected[n] = means[n] - (mean + low - places[n])
    return places, corrected


def roughness(ramps: torch.Tensor, places: torch.Tensor) -> float:
    """Return how much a map jumps from voxel to voxel at some places, in voxels: its median third difference.

    A bent map is smooth, or has few kinks; an image that was interpolated by whole voxels is rough everywhere.

    Args:
        ramps: ``(D, *S)``.
        places: ``(N, D)``, NaN for none.
    """
    dims = ramps.shape[0]
    found = []
    for place in places[torch.isfinite(places).all(dim=-1)]:
        low = (place.round().long() - 4).clamp_min(0)
        box = ramps[(slice(None), *(slice(int(a), int(a) + 9) for a in low))].double()
        worst = 0.0
        for axis in range(1, dims + 1):
            steps = torch.diff(box, dim=axis)
            jumps = torch.diff(steps, n=2, dim=axis).norm(dim=0)
            scale = float(steps.norm(dim=0).median())
            if jumps.numel() and scale > 0:
                worst = max(worst, float(jumps.median()) / scale)
        found.append(worst)
    return sorted(found)[len(found) // 2] if found else 0.0


def _newton(ramps: torch.Tensor, sent: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Solve ``ramps(place) = sent``; NaN where the map is torn or folded so that it does not work out."""
    place = start.clone()
    best, least = start.clone(), torch.full((len(start),), torch.inf, dtype=torch.float64)
    steps = torch.eye(start.shape[-1], dtype=torch.float64)
    for round_ in range(40):
        rest = _interpolate(ramps, place) - sent
        size = rest.norm(dim=-1)
        better = size < least
        best, least = torch.where(better.unsqueeze(-1), place, best), torch.where(better, size, least)
        if float(least.max()) < 1e-6:
            break
        # Kinks between grid cells make the full step jump to and fro; a slope across one voxel inside a cell does not.
        reach = 1.0 if round_ < 8 else 0.25
        slopes = [(_interpolate(ramps, place + h * reach) - _interpolate(ramps, place - h * reach)) / 2 for h in steps]
        jacobian = torch.stack(slopes, dim=-1) / reach
        step = (torch.linalg.pinv(jacobian) @ rest.unsqueeze(-1)).squeeze(-1)
        place = place - step.clamp(-1, 1) * (1.0 if round_ < 20 else 0.5)
    lost = (least > 2e-3) | ((best - start).norm(dim=-1) > _TRUSTED)
    return best.masked_fill(lost.unsqueeze(-1), torch.nan)


def _interpolate(ramps: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Read ``(D, *S)`` linearly at ``(N, D)``."""
    size = torch.tensor(ramps.shape[1:], dtype=torch.float64)
    grid = (
        (2 * places / (size - 1).clamp_min(1) - 1).flip(-1).reshape(1, -1, *(1,) * (ramps.ndim - 2), places.shape[-1])
    )
    read = torch.nn.functional.grid_sample(ramps[None], grid, align_corners=True, padding_mode="border")
    return read.reshape(ramps.shape[0], -1).T
