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
"""Findings of a probe: faults of rows, of single points and of the items, and the repair that fits the transform."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.transforms import Transform

from ...geometry import apply_affine, inside, invert_affine
from .measure import SEEN, affine_fit
from .observation import Case, Cause, Observation
from .phantom import Phantom
from .report import Finding, Severity, format_length

__all__ = ["find_structure", "repair_of", "settings_of"]


def settings_of(transform: Any, depth: int = 3) -> dict[str, set[str]]:
    """Collect what a transform and those inside it are set to: every ``*mode`` and ``align_corners``, in lower case."""
    found: dict[str, set[str]] = {}
    inside_it: dict[str, set[str]] = {}
    if transform is None or depth == 0:
        return found
    for name, value in getattr(transform, "__dict__", {}).items():
        plain = name.lstrip("_")
        if isinstance(value, Transform):
            for inner, values in settings_of(value, depth - 1).items():
                inside_it.setdefault(inner, set()).update(values)
        elif plain.endswith("mode") or plain.endswith("align_corners"):
            several = value if isinstance(value, tuple | list) else (value,)
            key = "align_corners" if plain.endswith("align_corners") else plain
            found.setdefault(key, set()).update(str(getattr(v, "value", v)).lower() for v in several)
    found = {**inside_it, **found}  # a dictionary transform gives its own settings to the one inside, at every call
    for name in ("padding_mode", "field_mode", "size_mode", "grid_padding_mode"):  # say nothing about sampling
        found.pop(name, None)
    return found


def repair_of(cause: Cause, cases: Sequence[Case], transform: Any) -> str:
    """Return the advice for a cause that came in with a transform.

    Args:
        cause: why the points are off.
        cases: before and after it.
        transform: the culprit, None where it is not known.
    """
    follows = {"elastic_not_followed", "not_followed", "mirrored_axis", "exchanged_axes", "moved_image", "random_shift"}
    if cause.kind not in follows | {"padding_forgotten", "crop_forgotten"} or not cases:
        return cause.repair
    name = "" if transform is None else getattr(transform, "__name__", type(transform).__name__)
    if cause.kind != "elastic_not_followed" and all(_affine_is_true(case) for case in cases):
        return (
            "The image's affine knows what was done, the points were turned into voxels too early: put "
            'LandmarksWorldToImaged("landmarks", "image", output_keys="points") after the last transform of the image.'
        )
    if "Landmarks" in name:
        return f"{name} is there to make the points follow and did not: look at its keys and point_keys, or report it."
    wrap = f"WithLandmarksd({name}(...), keys, point_keys)" if name else "WithLandmarksd(transform, keys, point_keys)"
    if cause.kind == "elastic_not_followed":
        return (
            f"Wrap it, {wrap}, or use RandSpatialLandmarksd, which moves image and points by one map; convert to voxels "
            "afterwards."
        )
    if transform is None:
        return cause.repair or (
            "Move the points by the same map; or keep them in world millimetres, let the image's affine tell what is done "
            "to the image, and convert at the end with LandmarksWorldToImaged."
        )
    instead = ", or use RandSpatialLandmarksd instead" if name.startswith("Rand") else ""
    return f"The image's affine does not say what was done. Wrap it, {wrap}{instead}."


def _affine_is_true(case: Case) -> bool:
    """Tell whether the image's own affine explains how its blobs moved, and that they did."""
    before, after = case.before.affine, case.after.affine
    if before is None or after is None or not case.stayed:
        return False
    expected = apply_affine(apply_affine(case.before.places, before), invert_affine(after))
    off = (expected - case.after.places).norm(dim=-1)
    off = off[torch.isfinite(off)]
    return len(off) > 0 and float(off.max()) < 0.1


def find_structure(observations: Sequence[Observation], phantom: Phantom, names: Sequence[str]) -> list[Finding]:
    """Find what can be said without residuals: missing and additional rows, points from nothing, waiting operations.

    Args:
        observations: of whole passes.
        phantom: what was sent.
        names: of the landmarks.

    Returns:
        each kind once.
    """
    found: dict[str, Finding] = {}
    for seen in observations:
        for finding in (
            *_rows(seen, phantom),
            *_invented(seen, phantom, names),
            *_lost(seen, names),
            *_outside(seen, phantom, names),
            *_item(seen),
        ):
            found.setdefault(finding.kind, finding)
    found.update({f.kind: f for f in _nothing_measured(observations, phantom)})
    return list(found.values())


def _rows(seen: Observation, phantom: Phantom) -> list[Finding]:
    if seen.problem:
        return [Finding(Severity.FAULT, "no_points", f"there are no points to compare: {seen.problem}.")]
    sent = len(phantom.places)
    if seen.rows == sent:
        return []
    what = f"{sent} landmarks went in and {seen.rows} came out"
    text = (
        f"{what}: rows are dropped, so that every later row has the name of another landmark. A missing landmark is a row "
        "of NaN from file to file."
        if seen.rows < sent
        else f"{what}: rows are added, as by padding in collation; each of them is a landmark that does not exist."
    )
    return [Finding(Severity.FAULT, "row_count", text)]


def _invented(seen: Observation, phantom: Phantom, names: Sequence[str]) -> list[Finding]:
    missing = torch.isnan(phantom.places).any(dim=-1)
    if seen.rows != len(missing) or seen.problem:
        return []
    for row in missing.nonzero()[:, 0]:
        point = seen.points[row]
        if not bool(torch.isnan(point).any()):
            where = ", ".join(format_length(float(v)) for v in point)
            return [
                Finding(
                    Severity.FAULT,
                    "missing_invented",
                    f"a missing landmark ({names[int(row)]}, NaN) comes out as ({where}): a point appears from nothing and "
                    "will be learnt. Keep NaN; mark it in the loss, do not fill it with a number.",
                )
            ]
    return []


def _lost(seen: Observation, names: Sequence[str]) -> list[Finding]:
    lost = seen.lost()
    if seen.problem or seen.rows < len(lost) or not bool(lost.any()):
        return []
    listed = ", ".join(names[int(row)] for row in lost.nonzero()[:5, 0])
    return [
        Finding(
            Severity.FAULT,
            "lost_landmarks",
            f"landmarks that are in the image come out as missing (NaN): {listed} in draw {seen.draw}.",
        )
    ]


def _outside(seen: Observation, phantom: Phantom, names: Sequence[str]) -> list[Finding]:
    """Landmarks that left the image keep their place outside of it."""
    fit = affine_fit(phantom.places, seen.places)
    if fit is None or not (math.isfinite(fit[2]) and fit[2] < 0.2) or seen.problem or seen.rows != len(phantom.places):
        return []
    expected = phantom.places @ fit[0].T + fit[1]
    gone = torch.isfinite(expected).all(dim=-1) & ~inside(expected, seen.shape)
    gone &= torch.tensor([state != SEEN for state in seen.states])
    nothing = gone & torch.isnan(seen.points).any(dim=-1)
    if bool(nothing.any()):
        text = (
            f"{int(nothing.sum())} landmarks that left the image come out as missing (NaN). Outside is not missing: keep "
            "their place, and let the loss leave them out by geometry.inside."
        )
        return [Finding(Severity.WARNING, "outside_made_missing", text)]
    size = torch.tensor(seen.shape, dtype=torch.float64)
    clamped = torch.minimum(expected.clamp_min(0), size - 1)
    moved = gone & ((seen.points - expected).norm(dim=-1) > 1.0) & ((seen.points - clamped).norm(dim=-1) < 1.5)
    if bool(moved.any()):
        text = (
            f"{int(moved.sum())} landmarks that left the image are put on its border, where nothing of them is, such as "
            f"{names[int(moved.nonzero()[0, 0])]} in draw {seen.draw}. Do not clip points to the image; leave them outside."
        )
        return [Finding(Severity.FAULT, "clipped_to_border", text)]
    return []


def _item(seen: Observation) -> list[Finding]:
    findings = []
    if seen.pending:
        waiting = ", ".join(dict.fromkeys(seen.pending))
        findings.append(
            Finding(
                Severity.FAULT,
                "pending",
                f"the image leaves the pipeline with lazy operations that wait ({waiting}): its voxels and its affine are "
                "still the old ones, so points converted here stay in the old grid. Run it inside "
                "monai.transforms.Compose(..., lazy=True), which applies them first, or set lazy=False.",
            )
        )
    if seen.twins:
        findings.append(
            Finding(
                Severity.WARNING,
                "mirrored_anatomy",
                f"landmarks ({seen.twins} in draw {seen.draw}) are in the image twice: it was padded by reflection, or "
                "folded, and a network cannot know which of two equal structures is the landmark. Set "
                "padding_mode='zeros' or 'border'.",
            )
        )
    if seen.deformed:
        findings.append(
            Finding(
                Severity.NOTE,
                "deformed",
                "the image is marked as deformed: its points are right in voxels, and its affine gives no millimetres of "
                "the patient any more.",
            )
        )
    return findings


def _nothing_measured(observations: Sequence[Observation], phantom: Phantom) -> list[Finding]:
    sent = int(torch.isfinite(phantom.places).all(dim=-1).sum()) * len(observations)
    whole = sum(seen.states.count(SEEN) for seen in observations)
    if whole == 0:
        text = (
            "no blob could be measured in the output: they left the image (give spatial_shape, at least the size that the "
            f"pipeline crops to), or the intensities {phantom.intensity} of body and blob are clipped away by the "
            "pipeline's intensity transforms (give intensity=)."
        )
        return [Finding(Severity.FAULT, "nothing_measured", text)]
    if whole < 0.3 * sent:
        text = (
            f"only {whole} of {sent} blobs were whole in the output, the others were cut by its border or left it: give a "
            "larger spatial_shape or more draws for a sharper look."
        )
        return [Finding(Severity.WARNING, "few_measured", text)]
    return []
