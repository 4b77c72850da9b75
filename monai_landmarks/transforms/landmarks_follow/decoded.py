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
"""Naming what an encoder and a decoder of heatmaps do to points: at the border, by a map of all points, or by a shift."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .measure import affine_fit
from .observation import describe_map, order_kind, say_order, signed_order
from .report import Finding, Severity, axis_names, format_length

__all__ = ["compare_decoded"]

_INNER = 5.0  # voxels from the border beyond which it plays no part
_ASTRAY = 2.5  # voxels from its peak beyond which a point is of something else


def compare_decoded(places: torch.Tensor, found: torch.Tensor, size: Sequence[int], tolerance: float) -> list[Finding]:
    """Name what is wrong with decoded points.

    Args:
        places: ``(K, D)`` where the peaks are, all present and inside.
        found: ``(K, D)`` as decoded.
        size: of the maps.
        tolerance: in voxels.
    """
    unit = "px" if len(size) == 2 else "voxel"
    error = found - places
    lost, distance = torch.isnan(found).any(dim=-1), error.abs().amax(dim=-1)
    if not bool(lost.any()) and bool((distance <= tolerance).all()):
        return []
    inner = (_border_distance(places, size) > _INNER) & ~lost
    if not bool(inner.any()):
        return _lost_peaks(places, found, lost, size, unit)
    whole = _by_map(places[~lost], found[~lost], inner[~lost], size, unit)
    if whole is not None:
        return [*_lost_peaks(places, found, lost, size, unit), whole]
    astray = lost | (distance > _ASTRAY)
    right_inside = float(distance[inner].max()) <= tolerance
    if right_inside:  # peaks that are not looked at come out at the next voxel that is
        astray |= ~inner & ((found - found.round()).abs() < 1e-6).any(dim=-1) & (distance > 0.7)
    findings = _lost_peaks(places, found, astray, size, unit)
    off = ~astray & (distance > tolerance)
    if bool(off[inner].any()):
        findings.append(_decoder_bias(error[inner & ~astray], unit, tolerance))
    border = off & ~inner
    worst = max([*distance[inner & ~astray].tolist(), tolerance / 3])
    if bool(border.any()) and (not findings or float(distance[border].max()) > 3 * worst):
        findings.append(_border_bias(places[border], error[border], size, right_inside, unit))
    return findings


def _border_distance(places: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return ``(K,)`` the distance of places ``(K, D)`` from the nearest border voxel's centre."""
    extent = torch.tensor(size, dtype=torch.float64) - 1
    return torch.minimum(places, extent - places).amin(dim=-1)


def _lost_peaks(
    places: torch.Tensor, found: torch.Tensor, astray: torch.Tensor, size: Sequence[int], unit: str
) -> list[Finding]:
    """Name peaks ``(K,)`` that gave no point, or a point beside them."""
    number, total = int(astray.sum()), len(places)
    if number == 0:
        return []
    nothing = int(torch.isnan(found).any(dim=-1).sum())
    nearest = _border_distance(places, size)
    if bool(astray[nearest > _INNER].any()):
        how = f"{nothing} of {total} landmarks are decoded as NaN although their maps have a peak"
        if nothing < number:
            how = f"{number} of {total} landmarks are decoded as NaN or more than {_ASTRAY} {unit} from their peaks"
        return [Finding(Severity.FAULT, "lost_landmarks", how + ".")]
    edges = []
    extent = torch.tensor(size, dtype=torch.float64) - 1
    for axis, name in enumerate(axis_names(len(size))):
        for side, distance in (("low", places[:, axis]), ("high", extent[axis] - places[:, axis])):
            here = astray & (distance <= nearest + 1e-6)
            if bool(here.any()):
                edges.append(
                    f"within {format_length(float(distance[here].max()))} {unit} of the {side} border of {name}"
                )
    text = (
        f"{number} of {total} landmarks are lost or put beside their peaks, all of them near the border: "
        f"{', '.join(edges)}. The decoder does not look at the outermost voxels: pad the maps by half its window before "
        "it searches for peaks, or use decode_heatmaps."
    )
    return [Finding(Severity.FAULT, "border_lost", text)]


def _by_map(
    places: torch.Tensor, found: torch.Tensor, inner: torch.Tensor, size: Sequence[int], unit: str
) -> Finding | None:
    """Name what one rule for all points explains: the pull to the centre, exchanged axes, a scale, or whole voxels."""
    error = (found - places)[inner]
    centre = (torch.tensor(size, dtype=torch.float64) - 1) / 2
    spread = places[inner] - centre
    share = -float((spread * error).sum() / (spread**2).sum())
    largest = float(error.norm(dim=-1).max())
    fit = affine_fit(places[inner], found[inner]) if largest > 1 else None
    if fit is not None and fit[2] < 1e-3 and share < 0.95:
        order = signed_order(fit[0])
        if order is not None and any(sign < 0 or a != source for a, (source, sign) in enumerate(order)):
            text = f"{say_order(order, axis_names(len(size)))} between encoder and decoder: keep the tensor's order of axes."
            return Finding(Severity.FAULT, order_kind(order), text)
        if order is None:
            text = (
                f"decoded and encoded points differ by {describe_map(fit[0], axis_names(len(size)))}: coordinates of a "
                "smaller map were not multiplied back, new = (old + 0.5) * stride - 0.5."
            )
            return Finding(Severity.FAULT, "scale", text)
    if share > 0.05 and largest > 1 and float((error + share * spread).norm(dim=-1).max()) < 0.3 * largest:
        where = ", ".join(f"{float(c):.1f}" for c in centre)
        how = f"is the map's centre ({where}), whatever the map"
        if share <= 0.95:
            how = f"is drawn to the map's centre ({where}) by {share:.0%} of the way"
        text = (
            f"the decoded point {how}: this mean over the whole map (soft-argmax) is ruled by the background. Sharpen the "
            "softmax (temperature), or take the mean in a window around the peak."
        )
        return Finding(Severity.FAULT, "drawn_to_centre", text)
    if bool(((found - found.round()).abs() < 1e-6).all()) and largest < 0.5 * math.sqrt(len(size)) + 0.1:
        text = (
            f"decoded points are whole voxels, up to {format_length(float(error.abs().max()))} {unit} off: the decoder is "
            'an argmax, or the encoder rounds its centres. Use decode_heatmaps(method="dark") and gaussian_heatmaps.'
        )
        return Finding(Severity.FAULT, "rounded", text)
    return None


def _border_bias(
    places: torch.Tensor, error: torch.Tensor, size: Sequence[int], only_there: bool, unit: str
) -> Finding:
    """Name a bias ``(K, D)`` of points near the border."""
    extent = torch.tensor(size, dtype=torch.float64) - 1
    inward = torch.where(places < extent / 2, error, -error)
    way = "inwards" if float(inward.sum()) > 0 else "outwards"
    reach, most = float(_border_distance(places, size).max()), float(error.norm(dim=-1).max())
    text = (
        f"within {format_length(reach)} {unit} of the border points are drawn {way} by up to {format_length(most)} "
        f"{unit}{'; elsewhere they are right' if only_there else ''}. The border cuts the decoder's window: it must be "
        "made symmetric about the peak, or its bias taken out (decode_heatmaps does)."
    )
    return Finding(Severity.FAULT, "border_bias", text)


def _decoder_bias(error: torch.Tensor, unit: str, tolerance: float) -> Finding:
    """Name a shift ``(K, D)``, such as the half pixel of an enlargement; otherwise say how far points are off."""
    mean, spread = error.mean(dim=0), error.std(dim=0)
    shifted = [
        (axis, name)
        for axis, name in enumerate(axis_names(error.shape[-1]))
        if float(mean[axis].abs()) > max(tolerance, 0.8 * float(spread[axis]))
    ]
    if not shifted:
        text = (
            f"decoded points differ irregularly from the encoded ones, up to {format_length(float(error.abs().max()))} "
            f"{unit}: the decoder is not exact between voxels, or the encoder rounds its centres."
        )
        return Finding(Severity.FAULT, "decoder_inexact", text)
    said = " and ".join(f"{name} by {format_length(float(mean[a]), True)} {unit}" for a, name in shifted)
    said = said.replace(" by", " is shifted by", 1)
    amount = float(mean[shifted[0][0]].abs())
    # An enlargement by f whose index is divided by f misses (1 - 1 / f) / 2.
    factors = [f for f in (2, 3, 4, 5, 8, 10, 16) if abs((1 - 1 / f) / 2 - amount) < 0.03]
    if factors:
        factor = min(factors, key=lambda f: abs((1 - 1 / f) / 2 - amount))
        said += (
            f": the half pixel of enlarging the map by {factor}, (1 - 1 / {factor}) / 2 = {(1 - 1 / factor) / 2:.3f}. "
            f"Go back by (index + 0.5) / {factor} - 0.5 instead of index / {factor}"
        )
        return Finding(Severity.FAULT, "half_pixel", said + ".")
    if abs(amount - 0.5) < 0.04:
        said += ": half a voxel, voxels being counted by their edges on one side and by their centres on the other"
        return Finding(Severity.FAULT, "half_voxel", said + ". Voxel centres are whole numbers.")
    return Finding(Severity.FAULT, "shift", said + ": encoder and decoder count from different places.")
