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
"""Residuals told axis by axis: shifts, scale errors, and what no axis by itself explains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from .measure import affine_fit
from .observation import Case, Cause, describe_map
from .report import axis_names, format_length

__all__ = ["coarse_mode", "explain_axes"]

_COARSE_MODES = ("nearest", "nearest-exact", "area")
_REST = 0.12  # of the largest residual that an explanation may leave
_MANY = 4  # points in a case for a slope to mean something


@dataclass
class _Axis:
    """What the residual along one axis looks like: ``shift + slope * (q - centre)`` per case."""

    axis: int
    form: str  # "none", "shift", "slope" or "other"
    shifts: list[float]
    slopes: list[float]

    @property
    def mean(self) -> float:
        return sum(self.shifts) / len(self.shifts)


def explain_axes(cases: Sequence[Case], tolerance: float, settings: Mapping[str, set[str]], unit: str) -> list[Cause]:
    """Explain residuals by shifts and scales along the axes, or else by what is left to say.

    Args:
        cases: items with points that are off, at least one row each.
        tolerance: in voxels.
        settings: of the transform that did it.
        unit: "px" or "voxel".

    Returns:
        at least one cause.
    """
    if _whole_numbers(cases):
        return [
            Cause(
                "rounded",
                "the points are whole numbers: they were rounded to voxels, which costs up to half a voxel.",
                "Keep points as floating point numbers to the end.",
            )
        ]
    axes = [_form_of(axis, cases, tolerance) for axis in range(cases[0].points.shape[-1])]
    if any(axis.form == "other" for axis in axes):
        return [_irregular(cases, tolerance, settings, unit)]
    told = [axis for axis in axes if axis.form != "none"]
    if not told:  # each draw by itself is fine on the whole, and single points are off
        return [_irregular(cases, tolerance, settings, unit)]
    causes = []
    shifted = [axis for axis in told if axis.form == "shift"]
    sloped = [axis for axis in told if axis.form == "slope"]
    coarse = coarse_mode(settings)
    if coarse and max(_largest(case) for case in cases) < 2.0:
        said = _say_shifts(shifted, cases, unit) + _say_slopes(sloped, cases, unit)
        return [_coarse_cause(coarse, " and ".join(said))]
    if "true" in settings.get("align_corners", ()) and max(_largest(case) for case in cases) < 2.0:
        return [_corner_cause(" and ".join(_say_shifts(shifted, cases, unit) + _say_slopes(sloped, cases, unit)))]
    if shifted:
        causes += _shift_causes(shifted, cases, unit)
    most = max(abs(slope) for axis in sloped for slope in axis.slopes) if sloped else 0.0
    sloped = [axis for axis in sloped if max(map(abs, axis.slopes)) > 0.1 * most]  # others only breathe with the noise
    if sloped:
        causes.append(_slope_cause(sloped, cases, settings, unit))
    return causes


def _whole_numbers(cases: Sequence[Case]) -> bool:
    points = torch.cat([case.points for case in cases])
    blobs = torch.cat([case.blobs for case in cases])
    small = float((points - blobs).abs().max()) < 1.1
    fractions = (blobs - blobs.round()).abs()
    return small and bool((points == points.round()).all()) and float(fractions.max()) > 0.2


def _largest(case: Case) -> float:
    return float((case.points - case.blobs).abs().max())


def _form_of(axis: int, cases: Sequence[Case], tolerance: float) -> _Axis:
    shifts, slopes, forms = [], [], []
    for case in cases:
        place = case.blobs[:, axis]
        error = case.points[:, axis] - place
        largest = float(error.abs().max())
        allowed = max(0.6 * tolerance, _REST * largest)
        shift, slope, form = float(error.mean()), 0.0, "shift"
        if largest <= tolerance:
            form = "none"
        elif float((error - shift).abs().max()) > 2 * allowed or abs(shift) < 0.6 * tolerance:
            form = "other"
            centre = (case.after.shape[axis] - 1) / 2
            spread = place - place.mean()
            if len(place) >= _MANY and float(spread.abs().max()) > 1:
                slope = float((spread * error).sum() / (spread**2).sum())
                left = error - error.mean() - slope * spread
                shift = float(error.mean() + slope * (centre - place.mean()))
                form = "slope" if float(left.abs().max()) <= 2 * allowed else "other"
        shifts.append(shift)
        slopes.append(slope)
        forms.append(form)
    form = next(kind for kind in ("other", "slope", "shift", "none") if kind in forms)
    return _Axis(axis, form, shifts, slopes)


# ------------------------------------------------------------------------------------------------------------- shifts


def _say_shifts(axes: Sequence[_Axis], cases: Sequence[Case], unit: str) -> list[str]:
    """Say "x is shifted by +0.375 px (+0.075 mm)" and "y by ...", of which only the first has its verb."""
    names = axis_names(cases[0].points.shape[-1])
    said: list[str] = []
    for axis in axes:
        low, high = min(axis.shifts), max(axis.shifts)
        verb = "" if said else "is shifted "
        if high - low > max(0.1, 0.1 * abs(axis.mean)):
            amount = f"{format_length(low, True)} to {format_length(high, True)} {unit}"
        else:
            amount = f"{format_length(axis.mean, True)} {unit}"
            sizes = [case.voxel_size for case in cases]
            if all(size is not None for size in sizes):
                millimetres = sum(float(s[axis.axis]) for s in sizes if s is not None) / len(sizes) * axis.mean
                amount += f" ({format_length(millimetres, True)} mm)"
        said.append(f"{names[axis.axis]} {verb}by {amount}")
    return said


def _shift_causes(axes: Sequence[_Axis], cases: Sequence[Case], unit: str) -> list[Cause]:
    """One cause for all axes whose shift has the same reason."""
    groups: dict[str, list[tuple[_Axis, str, str]]] = {}
    for axis in axes:
        kind, why, repair = _why_shifted(axis, cases, unit)
        groups.setdefault(kind, []).append((axis, why, repair))
    causes = []
    for kind, members in groups.items():
        said = " and ".join(_say_shifts([member[0] for member in members], cases, unit))
        reasons = list(dict.fromkeys(member[1] for member in members))
        causes.append(Cause(kind, f"{said}: {'; '.join(reasons)}.", members[0][2]))
    return causes


def _why_shifted(axis: _Axis, cases: Sequence[Case], unit: str) -> tuple[str, str, str]:
    """Return kind, reason and repair of a constant shift."""
    name = axis_names(cases[0].points.shape[-1])[axis.axis]
    zooms, offsets = [], []
    for case in cases:
        if case.zooms is not None and case.fit is not None and float(case.zooms[axis.axis]) > 0:
            zoom = float(case.zooms[axis.axis])
            zooms.append(zoom)
            offsets.append(float(case.fit[1][axis.axis]) - (zoom - 1) / 2)
    if len(zooms) == len(cases):
        halves = [(1 - zoom) / 2 for zoom in zooms]
        if max(abs(z - 1) for z in zooms) > 0.03:
            found = _half_pixel(axis.shifts, zooms, halves, unit)
            if found:
                return found
        if all(abs(o) >= 0.3 for o in offsets) and _alike(axis.shifts, [-o for o in offsets]):
            return _offset(name, offsets, unit)
        if max(abs(o) for o in offsets) >= 0.3 and _alike(
            axis.shifts, [h - o for h, o in zip(halves, offsets, strict=True)]
        ):
            kind, why, repair = _offset(name, offsets, unit)
            return kind, why + f"; nor did the half pixel of its zoom by {zooms[0]:.3g}", repair
    if _alike(axis.shifts, [math.copysign(1.0, axis.mean)] * len(cases)):
        return (
            "one_voxel",
            "exactly one voxel, as when a flip takes size - p instead of size - 1 - p, or voxels are counted from 1",
            "Voxel centres are whole numbers counted from 0.",
        )
    if _alike(axis.shifts, [math.copysign(0.5, axis.mean)] * len(cases)):
        return (
            "half_voxel",
            "half a voxel, as when voxels are counted by their edges on one side and by their centres on the other",
            "Voxel centres are whole numbers: take 0.5 off coordinates that count edges.",
        )
    if max(axis.shifts) - min(axis.shifts) > max(0.1, 0.1 * abs(axis.mean)):
        return (
            "random_shift",
            "the image is moved by a random amount of which the points know nothing",
            "Let the random crop, pad or translation reach the points.",
        )
    return (
        "shift",
        "a constant shift between points and image",
        "Look for an origin, a crop or a padding that only one of the two takes part in.",
    )


def _alike(values: Sequence[float], expected: Sequence[float]) -> bool:
    return all(abs(v - e) <= max(0.03, 0.02 * abs(e)) for v, e in zip(values, expected, strict=True))


def _half_pixel(
    shifts: Sequence[float], zooms: Sequence[float], halves: Sequence[float], unit: str
) -> tuple[str, str, str] | None:
    zoom = f"{zooms[0]:.3g}"
    size = f"half-pixel in the resize by {zoom}, |1 - {zoom}| / 2 = {abs(1 - zooms[0]) / 2:.3f} {unit}; "
    if _alike(shifts, halves):
        return (
            "half_pixel",
            size + "the points were scaled from the middle of the first pixel, the image from its edge",
            "Scale points by new = zoom * (old + 0.5) - 0.5.",
        )
    if _alike(shifts, [-half for half in halves]):
        return (
            "half_pixel",
            size + "the image was scaled from the middle of its first pixel (as by image[::2] or mode='nearest'), the "
            "points from its edge",
            "Resize the image with mode='bilinear' and align_corners=False, or scale points by new = zoom * old.",
        )
    return None


def _offset(name: str, offsets: Sequence[float], unit: str) -> tuple[str, str, str]:
    """Return kind, reason and repair where the image was moved and the points were not."""
    whole = all(abs(o - round(o)) < 0.06 and abs(o) >= 0.9 for o in offsets)
    mean = sum(offsets) / len(offsets)
    amount = "as far the other way in each draw"
    if max(offsets) - min(offsets) < 0.1:
        amount = (
            f"by {round(mean):+d} {unit} along {name}"
            if whole
            else f"by {format_length(mean, True)} {unit} along {name}"
        )
    if not whole:
        return "moved_image", f"the image was moved {amount} and the points were not", "Move the points with the image."
    what = "padding" if mean > 0 else "crop"
    return (
        f"{what}_forgotten",
        f"that is the {what}, which moves the image {amount} and did not reach the points",
        f"Add what the {what} moves the image by to the points of that axis ({'+' if mean > 0 else '-'} what is in "
        "front).",
    )


# -------------------------------------------------------------------------------------------------------------- scales


def _say_slopes(axes: Sequence[_Axis], cases: Sequence[Case], unit: str) -> list[str]:
    names = axis_names(cases[0].points.shape[-1])
    said = []
    for axis in axes:
        worst = max(range(len(cases)), key=lambda n: abs(axis.slopes[n]))
        half = (cases[worst].after.shape[axis.axis] - 1) / 2
        ends = [axis.shifts[worst] + side * half * axis.slopes[worst] for side in (-1, 1)]
        said.append(
            f"the shift of {names[axis.axis]} grows with position, from {format_length(ends[0], True)} {unit} at its low "
            f"border to {format_length(ends[1], True)} {unit} at its high border ({100 * axis.slopes[worst]:+.2g} %)"
        )
    return said


def _slope_cause(axes: Sequence[_Axis], cases: Sequence[Case], settings: Mapping[str, set[str]], unit: str) -> Cause:
    said = " and ".join(_say_slopes(axes, cases, unit))
    if _aligned_corners(axes, cases) or "true" in settings.get("align_corners", ()):
        return _corner_cause(said)
    if all(_alike_zoom(axis, cases) for axis in axes):
        return Cause(
            "scaled_wrongly",
            f"{said}: the points were scaled twice, or by the inverse of the image's zoom, or not at all.",
            "Scale the points once, by new size / old size of each axis.",
        )
    return Cause(
        "scale",
        f"{said}: a scale error; points and image were zoomed by different factors.",
        "Take the zoom from the sizes before and after (new / old) and not from spacing or a rounded factor.",
    )


def _corner_cause(said: str) -> Cause:
    return Cause(
        "align_corners",
        f"{said}: the image was resampled with align_corners=True, its corner voxels being laid on each other, and the "
        "affine (or the points) reckons with align_corners=False.",
        "Set align_corners=False.",
    )


def _aligned_corners(axes: Sequence[_Axis], cases: Sequence[Case]) -> bool:
    """Tell whether slopes are those of (new - 1) / (old - 1) against new / old."""
    for axis in axes:
        for case, slope in zip(cases, axis.slopes, strict=True):
            old, new = case.before.shape[axis.axis], case.after.shape[axis.axis]
            if old == new or old < 2 or new < 2:
                return False
            expected = (new / old) * (old - 1) / (new - 1) - 1
            inverse = 1 / (1 + expected) - 1
            if not any(abs(slope - e) <= 0.15 * abs(e) + 2e-4 for e in (expected, inverse)):
                return False
    return True


def _alike_zoom(axis: _Axis, cases: Sequence[Case]) -> bool:
    for case, slope in zip(cases, axis.slopes, strict=True):
        if case.zooms is None:
            return False
        zoom = abs(float(case.zooms[axis.axis]))
        ratios = (zoom, 1 / zoom, 1 / zoom**2)
        if abs(zoom - 1) < 0.03 or not any(abs(1 + slope - r) <= 0.02 * r for r in ratios):
            return False
    return True


# ---------------------------------------------------------------------------------------------------------- the others


def coarse_mode(settings: Mapping[str, set[str]]) -> str | None:
    """Return how the transform was told to pick or average whole voxels: ``mode='area'``."""
    for name, values in settings.items():
        for mode in _COARSE_MODES:
            if name.endswith("mode") and mode in values:
                return f"{name}='{mode}'"
    return None


def _coarse_cause(coarse: str, said: str) -> Cause:
    name, _, mode = coarse.partition("=")
    does = "averages blocks of whole voxels" if "area" in mode else "takes the nearest whole voxel"
    repair = f"Give {name}='bilinear' (or 'trilinear' in 3D); MONAI's default is not always that."
    return Cause(
        "interpolation",
        f"{said}: its {coarse} {does}, and a structure lands up to half a voxel beside its place.",
        repair,
    )


def _irregular(cases: Sequence[Case], tolerance: float, settings: Mapping[str, set[str]], unit: str) -> Cause:
    worst = max(cases, key=_largest)
    far = _largest(worst)
    axes = axis_names(worst.points.shape[-1])
    error = worst.points - worst.blobs
    most = (
        " and ".join(
            f"{n} by up to {format_length(float(v), False)} {unit}"
            for n, v in zip(axes, error.abs().amax(dim=0), strict=True)
            if float(v) > tolerance
        )
        or f"up to {format_length(far)} {unit}"
    )
    fit = affine_fit(worst.blobs, worst.points)
    regular = fit is not None and math.isfinite(fit[2]) and fit[2] <= max(tolerance, 0.6 * _REST * far)
    coarse = coarse_mode(settings)
    if coarse and far < 2.0:
        return _coarse_cause(coarse, f"points and blobs differ irregularly, {most}")
    if regular and fit is not None and describe_map(fit[0], axes) != "shift":
        said = f"points and image differ, {most}, by a map of their own: {describe_map(fit[0], axes)}"
        if "true" in settings.get("align_corners", ()):
            return _corner_cause(said)
        return Cause(
            "not_followed",
            f"{said}, of which the points know nothing.",
            "Let this rotation, shear or zoom reach the points.",
        )
    if worst.bend > 0.35 and far > 3 * tolerance:
        return Cause(
            "elastic_not_followed",
            f"the image was deformed and the points did not follow the deformation: they differ irregularly, {most}.",
        )
    if far < 1.0:
        return Cause(
            "irregular",
            f"points and blobs differ irregularly by less than a voxel ({most}), as when the image is interpolated by "
            "whole voxels (nearest, area) or the points are rounded on the way.",
            "Interpolate the image linearly (mode='bilinear') and keep points as floating point numbers.",
        )
    return Cause(
        "irregular",
        f"points and blobs differ irregularly, {most}: no shift, scale, flip or exchange of axes explains it.",
        "Check the transforms one by one: put them into a monai.transforms.Compose, and the first that fails is named.",
    )
