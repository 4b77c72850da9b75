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
"""What ``check_landmarks_follow`` has to say, as an object and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from textwrap import fill
from typing import NamedTuple

import torch
from monai.utils import StrEnum

from ...geometry import LandmarkError

__all__ = ["Finding", "FollowReport", "FollowStage", "Severity", "axis_names", "format_length"]


class Severity(StrEnum):
    """How bad a finding is; only a fault makes a check fail."""

    FAULT = "fault"
    WARNING = "warning"
    NOTE = "note"


class Finding(NamedTuple):
    """One thing that was found.

    Attributes:
        severity: one of :class:`Severity`.
        kind: its name for programs, such as ``"half_pixel"``.
        text: what is wrong, where, and what to do.
    """

    severity: Severity
    kind: str
    text: str


@dataclass
class FollowStage:
    """Residuals of one part of the way.

    Attributes:
        name: what is compared with what.
        residuals: ``(draws, N, D)`` in voxels, NaN where there is nothing to compare.
        voxel_size: ``(draws, D)`` millimetres; NaN where the image has no affine.
    """

    name: str
    residuals: torch.Tensor
    voxel_size: torch.Tensor

    @property
    def residuals_mm(self) -> torch.Tensor:
        """``(draws, N, D)`` along the voxel axes, in millimetres."""
        return self.residuals * self.voxel_size.unsqueeze(1)

    @property
    def mean(self) -> torch.Tensor:
        """``(D,)`` mean residual of each axis in voxels: the bias."""
        return self.residuals.flatten(0, 1).nanmean(dim=0)

    @property
    def max(self) -> torch.Tensor:
        """``(D,)`` largest absolute residual of each axis in voxels."""
        return _largest(self.residuals)

    @property
    def mean_mm(self) -> torch.Tensor:
        """``(D,)`` mean residual of each axis in millimetres."""
        return self.residuals_mm.flatten(0, 1).nanmean(dim=0)

    @property
    def max_mm(self) -> torch.Tensor:
        """``(D,)`` largest absolute residual of each axis in millimetres."""
        return _largest(self.residuals_mm)

    @property
    def worst(self) -> float:
        """Largest residual along an axis in voxels; NaN if nothing was compared."""
        known = self.residuals[torch.isfinite(self.residuals)]
        return float(known.abs().max()) if len(known) else float("nan")


def _largest(residuals: torch.Tensor) -> torch.Tensor:
    flat = residuals.flatten(0, 1).abs()
    known = torch.isfinite(flat).any(dim=0)
    return flat.nan_to_num(nan=-1.0).amax(dim=0).masked_fill(~known, torch.nan) if len(flat) else flat.new_tensor([])


@dataclass
class FollowReport:
    """The result of :func:`~monai_landmarks.transforms.check_landmarks_follow`.

    ``print`` it; ``report.passed`` and ``report.raise_if_failed()`` are for tests.

    Attributes:
        stages: the parts of the way that were measured, the pipeline first.
        findings: faults first.
        tolerance: in voxels.
        summary: what was sent and measured.
        culprit: the first transform after which the points are off; None if unknown or there is none.
    """

    stages: list[FollowStage]
    findings: list[Finding]
    tolerance: float
    summary: str = ""
    culprit: str | None = None
    spatial_dims: int = field(default=3)

    def __post_init__(self) -> None:
        order = list(Severity)
        self.findings = sorted(self.findings, key=lambda finding: order.index(finding.severity))

    @property
    def passed(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    @property
    def faults(self) -> list[Finding]:
        """The findings for which the check fails."""
        return [finding for finding in self.findings if finding.severity == Severity.FAULT]

    @property
    def kinds(self) -> list[str]:
        """The names of what was found, in the order of ``findings``."""
        return [finding.kind for finding in self.findings]

    @property
    def residuals(self) -> torch.Tensor:
        """``(draws, N, D)`` of the first stage in voxels: points minus blobs."""
        return self.stages[0].residuals

    @property
    def residuals_mm(self) -> torch.Tensor:
        """``(draws, N, D)`` of the first stage in millimetres along the voxel axes."""
        return self.stages[0].residuals_mm

    def raise_if_failed(self) -> None:
        """Raise a ``LandmarkError`` with the whole report unless the check passed."""
        if not self.passed:
            raise LandmarkError("\n" + str(self))

    def __str__(self) -> str:
        unit = "px" if self.spatial_dims == 2 else "voxel"
        worst = max((s.worst for s in self.stages if s.worst == s.worst), default=float("nan"))
        verdict = "PASSED" if self.passed else "FAILED"
        if worst == worst:
            how = "at most" if self.passed or worst <= self.tolerance else "up to"
            verdict += f": points are {how} {format_length(worst)} {unit} off (tolerance {self.tolerance:g} {unit}"
            verdict += " and what the measurement is unsure of)" if self.passed and worst > self.tolerance else ")"
            verdict += ", but:" if not self.passed and worst <= self.tolerance else ""
        lines = [f"check_landmarks_follow {verdict}"]
        if self.summary:
            lines.append(_wrapped(self.summary, "  ", "  "))
        for stage in self.stages:
            lines += ["", *_table(stage, unit)]
        if self.findings:
            lines.append("")
        for severity, _, text in self.findings:
            head = f"  {severity.value.upper() if severity == Severity.FAULT else severity.value}: "
            lines.append(_wrapped(text, head, " " * 4))
        return "\n".join(lines)


def _wrapped(text: str, head: str, indent: str) -> str:
    # Names such as mode='nearest-exact' stay in one piece.
    return fill(
        text, 110, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def _table(stage: FollowStage, unit: str) -> list[str]:
    names = axis_names(stage.residuals.shape[-1])
    lines = [f"  {stage.name:<34}{'mean ' + unit:>12}{'max ' + unit:>12}{'mean mm':>12}{'max mm':>12}"]
    columns = zip(names, stage.mean, stage.max, stage.mean_mm, stage.max_mm, strict=True)
    for axis, (name, *values) in enumerate(columns):
        mean, most, mean_mm, most_mm = (float(v) for v in values)
        lines.append(
            f"    {name} (axis {axis}){'':<22}{_cell(mean, '+'):>12}{_cell(most):>12}{_cell(mean_mm, '+'):>12}"
            f"{_cell(most_mm):>12}"
        )
    return lines


def _cell(value: float, sign: str = "") -> str:
    return "-" if value != value else format(value, f"{sign}.3f")


def axis_names(dims: int) -> Sequence[str]:
    """Return the names of the tensor axes in texts: x is the first."""
    return "xyz"[:dims]


def format_length(value: float, sign: bool = False) -> str:
    """Write a length with as many digits as a person can use: three after the point below ten."""
    digits = 3 if abs(value) < 10 else 1
    return format(value, f"{'+' if sign else ''}.{digits}f")
