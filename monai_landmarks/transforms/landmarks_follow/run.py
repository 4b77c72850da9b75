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
"""Running the probe of ``check_landmarks_follow``: the draws, and the culprit among the transforms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from ...geometry import LandmarkError, image_affine
from .diagnosis import explain
from .findings import find_structure, repair_of, settings_of
from .measure import SEEN
from .observation import Case, Observation, first_observation
from .phantom import PICTURES, Phantom, make_phantom
from .probe import Probe, Step, steps_of
from .report import Finding, FollowStage, Severity
from .sides import exchange_partners, unmatched_flips

__all__ = ["Result", "Setup", "check_pipeline"]

_LEAST_WIDTH = 0.9  # voxels: a narrower blob of the output is not measured to the floor
_WIDEST = 8.0
_DRAWS_EXPLAINED = 3
_LEAST_MOVED = 0.5  # voxels by which no intensity transform moves the measured place of a blob
_OF_INTENSITY = tuple(f"monai_landmarks.transforms.{name}" for name in ("clahe", "histogram", "intensity"))
_OF_ROWS = ("row_count", "missing_invented", "lost_landmarks")


@dataclass
class Setup:
    """The arguments of a check, resolved.

    Attributes:
        run: the pipeline.
        labels: what the landmarks are called.
        partners: rows that a flip exchanges on purpose, both ways.
        tolerance: in voxels.
        draws: number of them.
        phantom: arguments of ``make_phantom``.
        probe: arguments of ``Probe``.
        fixed_sigma: whether the width of the blobs may not be changed.
    """

    run: Any
    labels: tuple[str, ...]
    partners: dict[int, int]
    tolerance: float
    draws: int
    phantom: dict[str, Any]
    probe: dict[str, Any]
    fixed_sigma: bool

    def make(self, folder: Path, missing: bool = True) -> Probe:
        """Draw the phantom and return the probe that sends it; a landmark without partner is missing."""
        free = [n for n in range(len(self.labels)) if n not in self.partners]
        row = free[-1] if missing and free else None
        return Probe(make_phantom(**self.phantom, missing=row), self.run, folder=folder, **self.probe)


@dataclass
class Result:
    """What came out of the pipeline."""

    phantom: Phantom
    stages: list[FollowStage] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    summary: str = ""
    culprit: str | None = None
    seen: list[Observation] = field(default_factory=list)


def check_pipeline(setup: Setup, folder: Path) -> Result:
    """Send the phantom through the pipeline in several draws and explain what is off.

    Args:
        setup: the arguments.
        folder: for files.
    """
    if setup.probe["image_file"] in PICTURES and setup.phantom["affine"] is None:
        setup.phantom["affine"] = _affine_by_reader(setup, folder)
    probe, first, findings = _first_draw(setup, folder)
    if first is None:
        return Result(probe.phantom, findings=findings)
    if not setup.fixed_sigma and _widen(setup, first):
        probe, first, findings = _first_draw(setup, folder)
        if first is None:
            return Result(probe.phantom, findings=findings)
    seen = list(first)
    for draw in range(1, setup.draws):
        try:
            seen += probe.observe(setup.run, draw)
        except Exception as error:  # what a user's pipeline raises cannot be known
            findings.append(_stopped(error, probe, draw))
            break
    handedness = [exchange_partners(one, setup.partners, probe.phantom) for one in seen]
    findings += unmatched_flips(handedness, setup.partners, setup.labels)
    structure = find_structure(seen, probe.phantom, setup.labels)
    off, culprit = _explain(probe, seen, setup)
    findings += _join(structure, off, culprit)
    origin = first_observation(probe.phantom)
    unknown = torch.full((probe.phantom.spatial_dims,), torch.nan, dtype=torch.float64)
    sizes = [Case(origin, one).voxel_size for one in seen]
    stage = FollowStage(
        "points minus blobs",
        torch.stack([one.residuals for one in seen]),
        torch.stack([unknown if size is None else size for size in sizes]),
    )
    return Result(probe.phantom, [stage], findings, _summary(seen, probe, setup), culprit, seen)


def _summary(seen: Sequence[Observation], probe: Probe, setup: Setup) -> str:
    phantom = probe.phantom
    unit = "px" if phantom.spatial_dims == 2 else "voxel"
    sent = int(torch.isfinite(phantom.places).all(dim=-1).sum()) * len(seen)
    whole = sum(one.states.count(SEEN) for one in seen)
    known = [float(u) for one in seen for u, s in zip(one.unsure, one.states, strict=True) if s == SEEN]
    located = f"about {median(known):.2f} {unit}" if known else "nothing"
    if known and max(known) > 2 * median(known):
        located += f" (the worst to {max(known):.2f})"
    shapes = list(dict.fromkeys("x".join(map(str, one.shape)) for one in seen))
    listed = ", ".join(shapes[:3]) + (", ..." if len(shapes) > 3 else "")
    return (
        f"{whole} of {sent} blobs were whole in {len(seen)} outputs of {setup.draws} draws and are located to "
        f"{located}. Image {'x'.join(map(str, phantom.spatial_shape))} -> {listed}. "
        f"Points from {seen[0].source}."
    )


# --------------------------------------------------------------------------------------------------------- the first run


def _first_draw(setup: Setup, folder: Path) -> tuple[Probe, list[Observation] | None, list[Finding]]:
    """Send the first draw: with all channels at once or one by one, with a missing landmark or without."""
    failure: Exception | None = None
    for missing in (True, False):
        probe = setup.make(folder, missing)
        ways = [True] if probe.one_by_one else [False, True]
        for one_by_one in ways:
            probe.one_by_one = one_by_one
            try:
                seen = probe.observe(setup.run, 0)
            except Exception as error:  # what a user's pipeline raises cannot be known
                failure = failure or error
                continue
            if missing or failure is None:
                return probe, seen, []
            text = (
                f"the pipeline stops at a missing landmark (a row of NaN): {_reason(failure)} The rest was checked without "
                "one. Let it through: a missing landmark is NaN from file to file."
            )
            return probe, seen, [Finding(Severity.FAULT, "missing_refused", text)]
    assert failure is not None  # or there would have been a result
    return probe, None, [_stopped(failure, probe)]


def _stopped(failure: Exception, probe: Probe, draw: int = 0) -> Finding:
    """Return what a transform of the package refuses, which is a diagnosis; raise for other errors."""
    refusal = _refusal(failure)
    if refusal is not None:
        when = f" in draw {draw}, after which no more were made" if draw else ""
        return Finding(Severity.FAULT, "refused", f"the pipeline refuses the landmarks{when}: {refusal}")
    dims = probe.phantom.spatial_dims
    raise LandmarkError(
        f"the pipeline does not run on the synthetic item (draw {draw}), a {dims}D MetaTensor (C, *S) or file under "
        f"{probe.image_key!r} and points (N, {dims}) under {probe.landmarks_key!r}: {_reason(failure)} Say what it needs: "
        "spatial_dims=2 for films, image_file='.nii.gz' if it loads files, item={...} for its other entries, "
        "num_landmarks for a fixed number, spatial_shape for a large crop, image_key and landmarks_key for its keys."
    ) from failure


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _reason(error: BaseException) -> str:
    """Return the words of the innermost error, which is what went wrong."""
    *_, root = _chain(error)
    text = " ".join(str(root).split())
    return f"{type(root).__name__}: {text[:400]}{'' if text.endswith(('.', '!', '?')) else '.'}"


def _refusal(error: BaseException) -> str | None:
    """Return what one of the package's own transforms refuses, which is a diagnosis in itself."""
    for one in _chain(error):
        frames = one.__traceback__
        names = set()
        while frames is not None:
            names.add(frames.tb_frame.f_globals.get("__name__", ""))
            frames = frames.tb_next
        ours = any(n.startswith("monai_landmarks.") and ".landmarks_follow" not in n for n in names)
        if isinstance(one, LandmarkError) and (ours or type(error) is not type(one)):
            return " ".join(str(one).split())
    return None


def _affine_by_reader(setup: Setup, folder: Path) -> torch.Tensor:
    """Ask the pipeline's reader which affine it gives to a picture, which has none of its own."""
    dims = setup.phantom["spatial_dims"]
    default = torch.eye(dims + 1, dtype=torch.float64)
    setup.phantom["affine"] = default
    probe = setup.make(folder)
    for step in steps_of(setup.run):
        try:
            image = probe.send(step.run, 0, 0)[0][probe.image_key]
        except Exception:  # the run itself will tell
            continue
        if isinstance(image, MetaTensor):
            return image.affine.double().clone()
    return default


def _widen(setup: Setup, seen: Sequence[Observation]) -> bool:
    """Make the blobs wider where the pipeline shrinks them so much that their places could not be measured."""
    widths = torch.cat([one.width for one in seen])
    widths = widths[torch.isfinite(widths).all(dim=-1)].amin(dim=-1)
    if not len(widths) or float(widths.median()) >= _LEAST_WIDTH:
        return False
    before = setup.phantom["sigma"]
    wanted = min(before * 1.3 / max(float(widths.median()), 0.3), _WIDEST)
    for sigma in (wanted, 0.75 * wanted, 0.5 * wanted):
        setup.phantom["sigma"] = sigma
        try:
            make_phantom(**setup.phantom, missing=None)
        except LandmarkError:
            continue
        return sigma > 1.1 * before
    setup.phantom["sigma"] = before
    return False


# --------------------------------------------------------------------------------------------------------- the culprit


def _join(structure: Sequence[Finding], off: list[Finding], culprit: str | None) -> list[Finding]:
    """Leave out what is only a consequence, and say where faults of rows come in."""
    kinds = {finding.kind for finding in off}
    left = []
    for finding in structure:
        if finding.kind in _OF_ROWS and "exchanged_landmarks" in kinds:
            continue  # the missing one has moved with the others
        if finding.kind in _OF_ROWS and culprit is not None and not off:
            finding = finding._replace(text=f"{finding.text} It comes in at {culprit}.")
        left.append(finding)
    if any(finding.kind == "pending" for finding in structure):
        off = []  # the points are off because of it
    return left + off


def _explain(probe: Probe, seen: Sequence[Observation], setup: Setup) -> tuple[list[Finding], str | None]:
    """Find the transform after which the points are off, and explain what it does."""
    bad = [one for one in seen if bool(one.bad(setup.tolerance).any())]
    bad.sort(key=lambda one: -one.worst())
    wrong = bad or [one for one in seen if _is_wrong(one, probe, setup)]
    if not wrong:
        return [], None
    step, cases, uneven = _find_culprit(probe, wrong[0], [one.draw for one in bad], setup)
    if uneven is not None and step is None and bad and wrong[0].worst() <= uneven[1] + setup.tolerance:
        return [_uneven(*uneven, probe)], None
    whole = setup.run if isinstance(setup.run, Transform) and not steps_of(setup.run) else None
    transform = whole if step is None else step.transform
    culprit = step.label if step is not None else None if whole is None else type(whole).__name__
    if not bad:
        return [], culprit
    cases = cases or [Case(first_observation(probe.phantom), one) for one in bad]
    causes = explain(
        cases,
        probe.phantom.world,
        image_affine(probe.phantom.affine, probe.phantom.spatial_dims),
        setup.tolerance,
        setup.labels,
        settings_of(transform),
    )
    draws = len({one.draw for one in bad})
    share = f" in {draws} of {setup.draws} draws" if draws < setup.draws else ""
    where = f" It comes in at {culprit}{share}." if culprit is not None else f" That is so{share}." if share else ""
    findings = []
    for cause in causes:
        repair = repair_of(cause, cases, transform)
        findings.append(
            Finding(Severity.FAULT, cause.kind, cause.text + where + (f" Repair: {repair}" if repair else ""))
        )
    return findings, culprit


def _uneven(label: str, moved: float, probe: Probe) -> Finding:
    unit = "px" if probe.phantom.spatial_dims == 2 else "voxel"
    text = (
        f"{label} changes intensities so unevenly within a blob that its measured centre moves by up to {moved:.3f} {unit}. "
        "That moves no point and no anatomy, it blurs this check: repeat it without that transform for a sharper look."
    )
    return Finding(Severity.WARNING, "uneven_intensity", text)


def _find_culprit(
    probe: Probe, worst: Observation, draws: Sequence[int], setup: Setup
) -> tuple[Step | None, list[Case], tuple[str, float] | None]:
    """Run growing beginnings of the pipeline until the points are off.

    Returns:
        the culprit; before and after it, in some draws; and the intensity transform that moves measured places, with
        how far it does.
    """
    before = [first_observation(probe.phantom)]
    previous: Step | None = None
    uneven: tuple[str, float] | None = None
    steps = steps_of(setup.run)
    for step in steps:
        after = _try(probe, step, worst.draw, setup, within=step is not steps[-1])
        if after is None:
            continue
        allowance = 0.0 if uneven is None else uneven[1]
        if any(_is_wrong(one, probe, setup, allowance) for one in after):
            moved = max(one.worst() for one in after)
            if _is_of_intensity(step.transform) and moved < _LEAST_MOVED:
                uneven = (step.label, moved)
            else:
                cases = _pair(before, after)
                more = 0 if probe.one_by_one else _DRAWS_EXPLAINED - 1  # which takes a pass for every channel
                for draw in [d for d in dict.fromkeys(draws) if d != worst.draw][:more]:
                    start = [first_observation(probe.phantom)]
                    start = start if previous is None else _try(probe, previous, draw, setup) or []
                    cases += _pair(start, _try(probe, step, draw, setup, within=step is not steps[-1]) or [])
                return step, [case for case in cases if bool(case.after.bad(setup.tolerance).any())], uneven
        before, previous = after, step
    return None, [], uneven


def _is_of_intensity(transform: Any) -> bool:
    module = type(transform).__module__
    return module.startswith("monai.transforms.intensity") or module in _OF_INTENSITY


def _is_wrong(seen: Observation, probe: Probe, setup: Setup, allowance: float = 0.0) -> bool:
    rows = seen.lost() | seen.invented(probe.phantom.places) | seen.bad(setup.tolerance, allowance)
    return bool(rows.any()) or seen.rows != len(setup.labels)


def _try(probe: Probe, step: Step, draw: int, setup: Setup, within: bool = True) -> list[Observation] | None:
    """Observe a beginning of the pipeline; None where there is no image with channels yet."""
    try:
        seen = probe.observe(step.run, draw, within)
    except Exception:  # before the loaders are through, anything may be missing
        return None
    for one in seen:
        exchange_partners(one, setup.partners, probe.phantom)
    return seen


def _pair(before: Sequence[Observation], after: Sequence[Observation]) -> list[Case]:
    if not before:
        return []
    return [Case(before[n] if len(before) == len(after) else before[0], one) for n, one in enumerate(after)]
