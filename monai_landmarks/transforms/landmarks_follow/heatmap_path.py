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
"""From points to heatmaps and back with the identity for a network: what encoder and decoder do to points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from ...geometry import LandmarkError, plain_tensor
from ...heatmaps import decode_heatmaps, gaussian_heatmaps
from .decoded import compare_decoded
from .report import Finding, FollowStage, Severity, format_length

__all__ = ["check_heatmap_path", "default_decode", "default_encode"]

#: ``(points (B, N, D), spatial_shape) -> heatmaps (B, N, *S)``.
Encode = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]
#: ``heatmaps (B, N, *S) -> points (B, N, D)``, or a tuple that begins with them.
Decode = Callable[[torch.Tensor], Any]

_FROM_BORDER = (0.0, 0.3, 0.5, 0.75, 1.2, 1.5, 2.0, 2.6, 3.4, 4.3)
_INTERIOR = 6.0
_LIMITS = {2: 128, 3: 40}  # sizes beyond which a larger map tells nothing more
_LOUD = 100.0


def default_encode(sigma: float = 2.0) -> Encode:
    """Return the package's encoder: Gaussians of peak 1."""
    return partial(gaussian_heatmaps, sigma=sigma)


def default_decode(method: str, dims: int) -> Decode:
    """Return one of the package's decoders."""
    return partial(decode_heatmaps, method=method, spatial_dims=dims)


def check_heatmap_path(
    encode: Encode, decode: Decode, shape: Sequence[int], num_landmarks: int, tolerance: float, seed: int
) -> tuple[FollowStage, list[Finding]]:
    """Encode points, decode the maps, and compare.

    The points have all fractions of a voxel; some lie within a few voxels of each border and corner, one is missing.

    Args:
        encode: see :data:`Encode`.
        decode: see :data:`Decode`.
        shape: of the maps; larger ones than needed are cut down.
        num_landmarks: how many go into one map stack, since an encoder may have parameters for so many.
        tolerance: in voxels.
        seed: of the places.

    Returns:
        the residuals and what was found.
    """
    dims = len(shape)
    size = tuple(min(int(s), _LIMITS[dims]) for s in shape)
    places = _places(size, num_landmarks, seed)
    decoded = torch.cat([_through(encode, decode, group[None], size)[1] for group in places])
    stage = FollowStage(
        "decoded minus encoded", decoded - places, torch.full((len(places), dims), torch.nan, dtype=torch.float64)
    )
    findings = _missing_maps(encode, decode, places[0], size)
    findings += _loud_maps(encode, decode, places[0], size)
    findings += compare_decoded(places.reshape(-1, dims), decoded.reshape(-1, dims), size, tolerance)
    return stage, findings


def _places(size: Sequence[int], count: int, seed: int) -> torch.Tensor:
    """Return float64 ``(G, count, D)``: near every border and corner, and inside."""
    generator = torch.Generator().manual_seed(seed)
    dims = len(size)
    extent = torch.tensor(size, dtype=torch.float64) - 1
    margin = torch.clamp(extent / 4, max=_INTERIOR)

    def inside(number: int) -> torch.Tensor:
        unit = torch.rand(number, dims, generator=generator, dtype=torch.float64)
        return margin + unit * (extent - 2 * margin)

    rows = [inside(2 * count)]
    for axis in range(dims):
        for high in (False, True):
            near = inside(len(_FROM_BORDER))
            steps = torch.tensor(_FROM_BORDER, dtype=torch.float64)
            near[:, axis] = extent[axis] - steps if high else steps
            rows.append(near)
    corner = torch.full((1, dims), 0.4, dtype=torch.float64)
    rows += [corner, extent - corner]
    flat = torch.cat(rows)
    spare = -len(flat) % count
    return torch.cat([flat, inside(spare)]).reshape(-1, count, dims)


def _through(
    encode: Encode, decode: Decode, points: torch.Tensor, size: Sequence[int], loudness: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the maps and the decoded points, float64."""
    maps = plain_tensor(torch.as_tensor(encode(points.float(), size)))
    if maps.ndim != points.shape[-1] + 2 or maps.shape[:2] != points.shape[:2]:
        raise LandmarkError(
            f"encode made maps of shape {tuple(maps.shape)} from points {tuple(points.shape)}; expected (B, N, *S) with "
            f"B, N = {tuple(points.shape[:2])}."
        )
    found = decode(maps * loudness)
    found = found[0] if isinstance(found, tuple | list) else found
    found = plain_tensor(torch.as_tensor(found)).detach().double()
    if found.shape != points.shape:
        raise LandmarkError(
            f"decode made points of shape {tuple(found.shape)} from maps {tuple(maps.shape)}; expected "
            f"{tuple(points.shape)}: decode takes (B, N, *S) and gives (B, N, D), or a tuple that begins with it."
        )
    return maps, found


def _missing_maps(encode: Encode, decode: Decode, points: torch.Tensor, size: Sequence[int]) -> list[Finding]:
    """Send one missing landmark: its map must be finite, its point must come out missing."""
    whole, points = points[None], points.clone()
    points[0] = torch.nan
    findings = []
    try:
        maps, found = _through(encode, decode, points[None], size)
    except LandmarkError:
        raise
    except Exception as error:  # what a user's function raises cannot be known
        text = f"encode or decode stops at a missing landmark (NaN): {type(error).__name__}: {error}"
        return [Finding(Severity.FAULT, "missing_refused", text)]
    if not bool(torch.isfinite(maps[0, 0]).all()):
        findings.append(
            Finding(
                Severity.FAULT,
                "missing_map_is_nan",
                "the heatmap of a missing landmark is NaN, and so will the loss of the whole batch be. Draw zeros for "
                "it (gaussian_heatmaps does) and leave it out of the loss.",
            )
        )
    if not bool(torch.isfinite(maps[0, 1:]).all()):
        text = "one missing landmark makes the heatmaps of other landmarks NaN."
        findings.append(Finding(Severity.FAULT, "missing_spreads", text))
    elif bool(torch.isnan(found[0, 1:]).any()) and not bool(
        torch.isnan(_through(encode, decode, whole, size)[1]).any()
    ):
        text = "one missing landmark makes the decoder lose the other landmarks (NaN)."
        findings.append(Finding(Severity.FAULT, "missing_spreads", text))
    if bool(torch.isfinite(found[0, 0]).all()) and bool(torch.isfinite(maps[0, 0]).all()):
        where = ", ".join(format_length(float(v)) for v in found[0, 0])
        findings.append(
            Finding(
                Severity.FAULT,
                "missing_invented",
                f"the empty map of a missing landmark is decoded as ({where}): a point appears from nothing. A decoder "
                "must give NaN for a map without peak (decode_heatmaps does).",
            )
        )
    return findings


def _loud_maps(encode: Encode, decode: Decode, points: torch.Tensor, size: Sequence[int]) -> list[Finding]:
    """Networks put out maps of any height: a hundredfold one may not overflow."""
    _, quiet = _through(encode, decode, points[None], size)
    _, loud = _through(encode, decode, points[None], size, _LOUD)
    if bool((torch.isfinite(quiet).all(dim=-1) & ~torch.isfinite(loud).all(dim=-1)).any()):
        return [
            Finding(
                Severity.FAULT,
                "overflow",
                f"maps {_LOUD:g} times as high are decoded as NaN: the decoder's exponential overflows. Take the maximum "
                "of the map away before the softmax.",
            )
        ]
    return []
