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
"""What is seen of an item on its way through a pipeline: the data that the parts of ``check_landmarks_follow`` share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from ...geometry import image_affine, voxel_sizes
from .measure import ABSENT, FLOOR, SEEN, affine_fit
from .phantom import Phantom

__all__ = [
    "LIKE_ONE",
    "Case",
    "Cause",
    "Observation",
    "describe_map",
    "first_observation",
    "order_kind",
    "say_order",
    "signed_order",
]

#: How far entries of a matrix may be off 0 and 1 where axes are only exchanged, mirrored or zoomed.
LIKE_ONE = 0.02


@dataclass
class Observation:
    """Blobs and points of one output item.

    Attributes:
        draw: number of the random draw.
        shape: of the image.
        affine: of the image; None if it has none.
        places: ``(N, D)`` where the blobs lie, NaN unless whole blobs were seen.
        states: of each landmark's blob: "seen", "cut" or "absent".
        unsure: ``(N,)`` how well ``places`` are known, in voxels.
        width: ``(N, D)`` standard deviations of the blobs.
        points: ``(N, D)`` voxel indices that the pipeline gives.
        rows: how many points it gives.
        source: where the points come from, for people.
        pending: names of lazy operations that wait on the image.
        deformed: whether the image carries the mark of a deformation.
        twins: landmarks that are in the image more than once.
        problem: why there are no points to compare.
        outs: the output item in which each landmark was looked at.
    """

    draw: int
    shape: tuple[int, ...]
    affine: torch.Tensor | None
    places: torch.Tensor
    states: list[str]
    unsure: torch.Tensor
    width: torch.Tensor
    points: torch.Tensor
    rows: int
    source: str = ""
    pending: list[str] = field(default_factory=list)
    deformed: bool = False
    twins: int = 0
    problem: str = ""
    outs: list[Any] = field(default_factory=list)

    @property
    def residuals(self) -> torch.Tensor:
        """``(N, D)`` points minus blobs in voxels; NaN where one of them is not there."""
        return self.points - self.places

    def bad(self, tolerance: float, allowance: float = 0.0) -> torch.Tensor:
        """Tell which landmarks ``(N,)`` are farther from their blobs along an axis than tolerance and measurement allow."""
        return self.residuals.abs().amax(dim=-1) > tolerance + allowance + (self.unsure - FLOOR).clamp_min(0)

    def worst(self) -> float:
        """Return the largest residual along an axis, in voxels."""
        return float(self.residuals.nan_to_num().abs().max())

    def invented(self, sent: torch.Tensor) -> torch.Tensor:
        """Tell which landmarks ``(N,)`` were sent as missing and have a point."""
        return torch.isnan(sent).any(dim=-1) & torch.isfinite(self.points).all(dim=-1)

    def lost(self) -> torch.Tensor:
        """Tell which landmarks ``(N,)`` are in the image and have no point."""
        seen = torch.tensor([state == SEEN for state in self.states])
        return seen & torch.isnan(self.points).any(dim=-1)


def first_observation(phantom: Phantom) -> Observation:
    """Return what is seen before any transform."""
    count, dims = phantom.places.shape
    there = torch.isfinite(phantom.places).all(dim=-1)
    return Observation(
        draw=0,
        shape=phantom.spatial_shape,
        affine=image_affine(phantom.affine, dims),
        places=phantom.places.clone(),
        states=[SEEN if seen else ABSENT for seen in there],
        unsure=torch.full((count,), FLOOR, dtype=torch.float64),
        width=torch.full((count, dims), phantom.sigma, dtype=torch.float64),
        points=phantom.places.clone(),
        rows=count,
    )


@dataclass
class Cause:
    """A cause of a residual.

    Attributes:
        kind: its name for programs.
        text: what is wrong.
        repair: what to do, where that does not depend on the transform that did it.
    """

    kind: str
    text: str
    repair: str = ""


@dataclass
class Case:
    """One output item whose points are off: what was before and what is after the transform, or the whole pipeline."""

    before: Observation
    after: Observation

    @cached_property
    def good(self) -> torch.Tensor:
        """Rows ``(N,)`` that can be compared."""
        return torch.isfinite(self.after.residuals).all(dim=-1)

    @property
    def blobs(self) -> torch.Tensor:
        """``(K, D)`` where they are."""
        return self.after.places[self.good]

    @property
    def points(self) -> torch.Tensor:
        """``(K, D)`` where the pipeline says they are."""
        return self.after.points[self.good]

    @cached_property
    def fit(self) -> tuple[torch.Tensor, torch.Tensor, float] | None:
        """The affine map of the image from before to after, and the rest."""
        return affine_fit(self.before.places, self.after.places)

    @cached_property
    def bend(self) -> float:
        """How far the image's map is from any affine, in voxels."""
        return 0.0 if self.fit is None or math.isnan(self.fit[2]) else self.fit[2]

    @cached_property
    def zooms(self) -> torch.Tensor | None:
        """``(D,)`` signed zoom of each axis, where axes keep their direction."""
        if self.fit is None:
            return None
        linear = self.fit[0]
        diagonal = linear.diagonal()
        rest = linear - diagonal.diag()
        return diagonal if float(rest.abs().max()) < LIKE_ONE * float(diagonal.abs().min()) else None

    @property
    def voxel_size(self) -> torch.Tensor | None:
        """``(D,)`` millimetres of the voxels after, from the affine or else from the zoom."""
        if self.after.affine is not None:
            return voxel_sizes(self.after.affine)
        if self.before.affine is None or self.zooms is None:
            return None
        return voxel_sizes(self.before.affine) / self.zooms.abs()

    @cached_property
    def stayed(self) -> bool:
        """Whether the points are the numbers they were."""
        both = self.good & torch.isfinite(self.before.points).all(dim=-1)
        off = (self.after.points - self.before.points)[both]
        return len(off) > 0 and float(off.abs().max()) < 1e-3


def describe_map(linear: torch.Tensor, axes: Sequence[str]) -> str:
    """Describe a matrix as rotation and zoom."""
    u, values, vh = torch.linalg.svd(linear)
    rotation = u @ vh
    trace = float(rotation.trace())
    cosine = trace / 2 if len(linear) == 2 else (trace - 1) / 2
    angle = math.degrees(math.acos(max(-1.0, min(1.0, cosine))))
    said = []
    if angle > 0.2:
        said.append(f"rotation by {angle:.1f} degrees")
    if float((values - 1).abs().max()) > 0.005:
        zooms = linear.norm(dim=1)
        said.append("zoom " + ", ".join(f"{a} {float(z):.3f}" for a, z in zip(axes, zooms, strict=True)))
    return " and ".join(said) or "shift"


def signed_order(linear: torch.Tensor) -> tuple[tuple[int, int], ...] | None:
    """Return, for each row, which axis it takes and with which sign; None unless the matrix does only that."""
    dims = len(linear)
    for order in itertools.permutations(range(dims)):
        for signs in itertools.product((1, -1), repeat=dims):
            candidate = torch.zeros_like(linear)
            for row, (source, sign) in enumerate(zip(order, signs, strict=True)):
                candidate[row, source] = sign
            if float((linear - candidate).abs().max()) < 3 * LIKE_ONE:
                return tuple(zip(order, signs, strict=True))
    return None


def order_kind(order: Sequence[tuple[int, int]]) -> str:
    """Name what a signed order does."""
    return "mirrored_axis" if all(a == source for a, (source, _) in enumerate(order)) else "exchanged_axes"


def say_order(order: Sequence[tuple[int, int]], axes: Sequence[str]) -> str:
    """Say which axes are exchanged and mirrored."""
    changed = [axes[a] for a, (source, _) in enumerate(order) if a != source]
    mirrored = [axes[a] for a, (_, sign) in enumerate(order) if sign < 0]
    said = []
    if changed:
        said.append(f"{' and '.join(changed)} are exchanged")
    if mirrored:
        said.append(f"{' and '.join(mirrored)} {'is' if len(mirrored) == 1 else 'are'} mirrored")
    return ", ".join(said)
