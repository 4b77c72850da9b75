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
"""Why points are off their blobs: every cause predicts where they would be, and the one that is right is named."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch

from ...geometry import apply_affine, invert_affine, voxel_sizes
from .axes import coarse_mode, explain_axes
from .measure import affine_fit
from .observation import LIKE_ONE, Case, Cause, describe_map, order_kind, say_order, signed_order
from .report import axis_names, format_length

__all__ = ["explain"]


def explain(
    cases: Sequence[Case],
    world: torch.Tensor,
    origin: torch.Tensor,
    tolerance: float,
    names: Sequence[str],
    settings: Mapping[str, set[str]],
) -> list[Cause]:
    """Name the causes of the residuals.

    Args:
        cases: the items with points that are off.
        world: ``(N, D)`` landmarks as sent, in world millimetres.
        origin: affine ``(D + 1, D + 1)`` of the image as sent.
        tolerance: in voxels.
        names: of the landmarks.
        settings: what the transform is set to, such as ``{"mode": {"area"}}``.

    Returns:
        one cause, or one for each axis that has its own; at least one.
    """
    cases = [case for case in cases if bool(case.good.any())]
    if not cases:
        return []
    unit = "px" if world.shape[-1] == 2 else "voxel"
    coarse = coarse_mode(settings) is not None
    for cause in (
        _exchanged_landmarks(cases, tolerance, names),
        _confused_spaces(cases, world, origin, tolerance),
        _stayed(cases, unit, max(2 * tolerance, 0.35 if coarse else 0.1), least=2.0 if coarse else 0.0),
        _turned_axes(cases, tolerance, unit),
    ):
        if cause is not None:
            return [cause]
    return explain_axes(cases, tolerance, settings, unit)


# ------------------------------------------------------------------------------------- whole explanations, one by one


def _fits(case: Case, predicted: torch.Tensor, tolerance: float) -> bool:
    """Tell whether a prediction ``(K, D)`` of the points leaves next to nothing of the residual."""
    left = (case.points - predicted).norm(dim=-1)
    raw = (case.points - case.blobs).norm(dim=-1)
    return bool((left <= torch.clamp(0.03 * raw, min=2 * tolerance)).all()) and float(left.max()) < 0.3 * float(
        raw.max()
    )


def _exchanged_landmarks(cases: Sequence[Case], tolerance: float, names: Sequence[str]) -> Cause | None:
    moved: dict[int, int] = {}
    for case in cases:
        rows = case.good.nonzero()[:, 0]
        distance = torch.cdist(case.points, case.blobs)
        own = distance.diagonal()
        nearest = distance.argmin(dim=1)
        near = distance.amin(dim=1) <= max(4 * tolerance, 0.2)
        off = own > max(4 * tolerance, 0.2)
        # Points whose true place is not in the image have no blob to lie on; most of the others must.
        if float(near.double().mean()) < 0.6 or not bool((off & near).any()):
            return None
        moved.update({int(rows[i]): int(rows[nearest[i]]) for i in (off & near).nonzero()[:, 0]})
    pairs = sorted({tuple(sorted((a, b))) for a, b in moved.items() if moved.get(b, a) == a})
    repair = "Keep the order of rows from the file to the report: LoadLandmarksd(names=...) sorts every file by name."
    if len(moved) == len({i for pair in pairs for i in pair} & set(moved)):
        repair += (
            " If these are left and right partners that a flip exchanges on purpose, say so: "
            f"check_landmarks_follow(..., pairs={list(pairs)})."
        )
        listed = ", ".join(f"{names[a]} and {names[b]}" for a, b in pairs[:6])
        text = f"landmarks are exchanged: {listed} lie on each other's blobs."
    else:
        listed = ", ".join(f"{names[a]} lies on the blob of {names[b]}" for a, b in sorted(moved.items())[:6])
        text = f"landmarks are exchanged, their order has changed: {listed}."
    return Cause("exchanged_landmarks", text, repair)


def _confused_spaces(
    cases: Sequence[Case], world: torch.Tensor, origin: torch.Tensor, tolerance: float
) -> Cause | None:
    for kind, text, repair in _CONFUSIONS:
        if all(
            any(name == kind and _fits(case, p, tolerance) for name, p in _confusions(case, world, origin))
            for case in cases
        ):
            return Cause(kind, text, repair)
    return None


_TO_IMAGE = 'LandmarksWorldToImaged("landmarks", "image", output_keys="points")'
_CONFUSIONS = (
    (
        "world_as_voxels",
        "the points are still world millimetres where voxel indices are expected.",
        f"Put {_TO_IMAGE} after the last transform of the image.",
    ),
    (
        "inherited_affine",
        "the world points were taken for voxels of the input image, because they carry the image's affine: a "
        "MetaTensor of points describes its own space to MONAI's ApplyTransformToPointsd.",
        "Make them a plain tensor (points.as_tensor()), or use LandmarksWorldToImaged, which ignores such an affine.",
    ),
    (
        "signs",
        "the signs of the first two world axes are wrong: LPS millimetres were taken for RAS or the reverse.",
        'Say what the file has, LoadLandmarksd(..., space="LPS"), and let no second transform flip them.',
    ),
    (
        "converted_twice",
        "the points were converted from world to voxels twice.",
        "Remove one of the two conversions; only the one after the last transform of the image is needed.",
    ),
    (
        "unconverted_origin",
        "the points are millimetres counted from the image's first voxel, not voxels: they were multiplied by the "
        "spacing.",
        "Divide by the spacing, or better convert world points with LandmarksWorldToImaged.",
    ),
    (
        "normalised",
        "the points are fractions of the image size (0 to 1, or -1 to 1), not voxels.",
        "Turn them back into voxels of the output image before they leave the pipeline.",
    ),
)


def _confusions(case: Case, world: torch.Tensor, origin: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield where the points would be for each confusion of spaces."""
    sent = world[case.good]
    size = torch.tensor(case.after.shape, dtype=torch.float64)
    yield "world_as_voxels", sent
    for normalised in (case.blobs / (size - 1), case.blobs / size, 2 * case.blobs / (size - 1) - 1):
        if _fits(case, normalised, 0.005):
            yield "normalised", normalised
            break
    affine = case.after.affine
    if affine is None:
        return
    inverse = invert_affine(affine)
    yield "inherited_affine", apply_affine(apply_affine(sent, origin), inverse)
    if world.shape[-1] == 3:
        yield "signs", apply_affine(sent * torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64), inverse)
    else:
        yield "signs", apply_affine(-sent, inverse)
    yield "converted_twice", apply_affine(case.blobs, inverse)
    yield "unconverted_origin", case.blobs * voxel_sizes(affine)


def _stayed(cases: Sequence[Case], unit: str, straight: float, least: float) -> Cause | None:
    """Points that did not move while the image did, unless it was only shifted, which is told axis by axis."""
    if not all(case.stayed and case.fit is not None for case in cases):
        return None
    worst = max(cases, key=lambda case: float((case.points - case.blobs).norm(dim=-1).max()))
    linear = worst.fit[0] if worst.fit is not None else torch.eye(worst.points.shape[-1])
    far = float((worst.points - worst.blobs).norm(dim=-1).max())
    if float((worst.points - worst.blobs).abs().max()) < least:
        return None  # whole voxels explain that much
    axes = axis_names(worst.points.shape[-1])
    if worst.bend > straight:
        return Cause(
            "elastic_not_followed",
            f"the image was deformed (blobs lie up to {format_length(_bent(worst))} {unit} off any affine map) and the "
            f"points stayed where they were, up to {format_length(far)} {unit} away.",
            "",
        )
    order = signed_order(linear)
    if order is not None and order != tuple((a, 1) for a in range(len(axes))):
        said = say_order(order, axes)
        done = "flipped" if order_kind(order) == "mirrored_axis" else "transposed"
        return Cause(order_kind(order), f"{said}: the image was {done} and the points stayed where they were.")
    if float((linear - torch.eye(len(linear))).abs().max()) < LIKE_ONE:
        return None
    return Cause(
        "not_followed",
        f"the image was moved ({describe_map(linear, axes)}) and the points stayed where they were, up to "
        f"{format_length(far)} {unit} away.",
    )


def _bent(case: Case) -> float:
    """Return the largest distance of a blob from the affine map that fits best."""
    if case.fit is None:
        return 0.0
    linear, shift, _ = case.fit
    off = (case.after.places - case.before.places @ linear.T - shift).norm(dim=-1)
    return float(off[torch.isfinite(off)].max())


def _turned_axes(cases: Sequence[Case], tolerance: float, unit: str) -> Cause | None:
    """Axes exchanged or mirrored between points and blobs, at the output."""
    fit = affine_fit(torch.cat([c.blobs for c in cases]), torch.cat([c.points for c in cases]))
    order = None if fit is None else signed_order(fit[0])
    if fit is None or order is None or all(sign == 1 and a == source for a, (source, sign) in enumerate(order)):
        return None
    if math.isfinite(fit[2]) and fit[2] > 1.0:
        return None
    axes = axis_names(len(order))
    shape = cases[0].after.shape
    text = f"{say_order(order, axes)} between points and image."
    for axis, (source, sign) in enumerate(order):
        extra = float(fit[1][axis]) - (shape[source] - 1 if sign < 0 else 0)
        if abs(extra) > 2 * tolerance and len({c.after.shape for c in cases}) == 1:
            text += f" {axes[axis]} is moved by {format_length(extra, True)} {unit} as well"
            text += " (size - p instead of size - 1 - p)." if sign < 0 and abs(extra - 1) < 0.1 else "."
    kind = order_kind(order)
    repair = (
        "Points follow the order of the image tensor's axes, (x, y) for films; turn the columns of the points round, "
        "or use WithLandmarksd where a transform exchanges the image's axes."
        if kind == "exchanged_axes"
        else "The flip must reach the points: size - 1 - p on that axis, or world points and LandmarksWorldToImaged at "
        "the end."
    )
    return Cause(kind, text, repair)
