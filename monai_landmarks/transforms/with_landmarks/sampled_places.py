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
"""Which map the sampled places of a resampling follow: an affine, an affine in steps, or none."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["SampledPlaces"]

#: A sampling nearer to an affine than this (voxels) is that affine; float32 ramps are good to 1e-4.
EXACT = 0.01
_LATTICE = 30_000  # voxels on which a robust fit is begun
_BORDER = 3.0  # voxels at the border that splines and smoothing bend
_STRUCTURE = 2.0  # voxels (sd) of the structures over which the steps of a nearest-neighbour sampling average out
_ROUNDING = 0.75  # voxels from its affine that a sampling in steps usually stays within
_FARTHEST = 1.25  # and always: where the steps are few, the fit may follow those of one half of the image
_STEP = 0.2  # lone change of the advance, in voxels, that no smooth map has so near to an affine


class SampledPlaces:
    """The sampled places of a resampling, and how affine maps fit them.

    Args:
        ramps: ``(D, *S)`` input voxel of every output voxel, counted from the middle of the input grid.
        seen: bool ``(*S)``, where the output shows the input.
        half: ``(D,)`` voxels from the middle of the input grid to its last voxel.
    """

    def __init__(self, ramps: torch.Tensor, seen: torch.Tensor, half: torch.Tensor) -> None:
        self.ramps, self.seen, self.half = ramps, seen, half.tolist()
        self.dims, self.shape = ramps.shape[0], ramps.shape[1:]

    def classify(
        self, told: torch.Tensor, deforms: bool | None = None
    ) -> tuple[str, torch.Tensor, torch.Tensor | None, float]:
        """Tell what map the places follow.

        Args:
            told: float64 ``(D + 1, D + 1)`` affine that the transform claims, to places as in ``ramps``.
            deforms: whether the transform is known to deform images, or not to; None where nothing is known.

        Returns:
            the kind, its affine, where the places are to be believed (None: where seen), and for steps how far
            structures of two voxels lie off the affine. See :class:`Sampling`.
        """
        if self._is_exact(told):
            return "told", told, None, 0.0
        affine = self._fit_robustly(told)
        if self._is_exact(affine):
            return "affine", affine, None, 0.0
        strays, (rounded, change, repeats) = self._strays(affine), self._advance(affine)
        if rounded or (not deforms and strays <= _FARTHEST):
            nominal, _, deviation = self._affine_of_steps(told, affine)
            lone = change > (_STEP if strays <= _ROUNDING else 2 * _STEP)
            ripples = strays <= _ROUNDING and deviation <= 0.6 * strays and not repeats  # as no deformation does
            if rounded or deforms is False or lone or ripples:
                return "steps", nominal, None, deviation if deviation <= _ROUNDING else math.inf
        valid = self._believable(affine)
        return "deformed", self._fit(valid.to(torch.float32), affine), valid, 0.0

    def _affine_of_steps(
        self, told: torch.Tensor, fitted: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, float]:
        """The affine told, where it fits as well as the fit, which the steps make uncertain by some hundredths.

        Returns it, None, and how far the places lie off it once the steps are averaged over a small structure.
        """
        inside = self._inside(fitted, _BORDER)
        if not bool(inside.any()):
            return fitted, None, math.inf
        scale = torch.linalg.vector_norm(fitted[:-1, :-1], dim=0).clamp(1 / 16, 1)
        widths = [_STRUCTURE / float(s) for s in scale]
        total = _blurred(inside.to(torch.float32), widths)
        enough = inside & (total > 0.9 * total.max())
        off_fitted, off_told = 0.0, 0.0
        for d in range(self.dims):
            rest = torch.where(inside, self.ramps[d] - self.predicted(fitted, d), 0.0)
            mean = (_blurred(rest, widths) / total.clamp_min(1e-3))[enough]
            off_fitted = max(off_fitted, float(mean.abs().max()))
            off_told = max(off_told, float((mean + self.predicted(fitted - told, d)[enough]).abs().max()))
        near = self._largest_difference(told, fitted) <= 5 * EXACT
        return (told, None, off_told) if near and off_told <= off_fitted + EXACT / 2 else (fitted, None, off_fitted)

    def predicted(self, affine: torch.Tensor, component: int) -> torch.Tensor:
        """(*S) the component of the affine's places."""
        total = torch.full((1,) * self.dims, float(affine[component, -1]), dtype=torch.float64)
        for axis, n in enumerate(self.shape):
            shape = [-1 if a == axis else 1 for a in range(self.dims)]
            total = total + (float(affine[component, axis]) * torch.arange(n, dtype=torch.float64)).reshape(shape)
        return total.to(self.ramps)

    def _inside(self, affine: torch.Tensor, margin: float) -> torch.Tensor:
        """(*S) where the affine samples the input, ``margin`` voxels (less on thin axes) from its border."""
        inside = self.seen
        for d, half in enumerate(self.half):
            room = half - min(margin, half / 4)
            inside = inside & (self.predicted(affine, d).abs() <= room + 1e-3)
        return inside

    def _distance(self, affine: torch.Tensor) -> torch.Tensor:
        """(*S) largest difference of a coordinate from the affine's."""
        distance = torch.zeros(self.shape, dtype=self.ramps.dtype, device=self.ramps.device)
        for d in range(self.dims):
            distance = torch.maximum(distance, (self.ramps[d] - self.predicted(affine, d)).abs())
        return distance

    def _is_exact(self, affine: torch.Tensor) -> bool:
        """Whether the affine says where the voxels come from; at the border splines may bend a little."""
        distance, everywhere = self._distance(affine), self._inside(affine, 0.0)
        within = self._inside(affine, _BORDER)
        if not bool(within.any()):
            within = everywhere
        if not bool(within.any()):
            return False
        return float(distance[within].max()) <= EXACT and float(distance[everywhere].max()) <= 1.0

    def _largest_difference(self, one: torch.Tensor, other: torch.Tensor) -> float:
        corners = torch.cartesian_prod(*[torch.tensor([0.0, n - 1.0], dtype=torch.float64) for n in self.shape])
        change = (one - other)[:-1]
        return float((corners @ change[:, :-1].T + change[:, -1]).abs().max())

    def _fit(self, weight: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """Least squares affine, in float64 slab by slab; what the grid leaves open stays as in ``start``."""
        size = self.dims + 1
        normal = torch.zeros(size, size, dtype=torch.float64)
        right = torch.zeros(size, self.dims, dtype=torch.float64)
        middle = torch.tensor([(n - 1) / 2 for n in self.shape], dtype=torch.float64)
        slab = max(1, (1 << 19) // max(1, math.prod(self.shape[1:])))
        rest = [torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in self.shape[1:]]
        for first in range(0, self.shape[0], slab):
            rows = torch.arange(first, min(first + slab, self.shape[0]), dtype=torch.float64) - middle[0]
            grid = torch.stack(torch.meshgrid(rows, *rest, indexing="ij")).flatten(1).to(self.ramps.device)
            w = weight[first : first + slab].flatten().to(torch.float64)
            known = torch.cat([torch.ones_like(w)[None], grid])
            values = self.ramps[:, first : first + slab].flatten(1).to(torch.float64)
            values = torch.where(w > 0, values, 0.0)
            normal += ((known * w) @ known.T).cpu()
            right += ((known * w) @ values.T).cpu()
        shifted = torch.cat([start[:-1, -1:] + start[:-1, :-1] @ middle[:, None], start[:-1, :-1]], dim=1).T
        scale = normal.diagonal().clamp_min(1e-30).rsqrt()
        solved = shifted + scale[:, None] * (
            torch.linalg.pinv(scale[:, None] * normal * scale, rtol=1e-10, hermitian=True)
            @ (scale[:, None] * (right - normal @ shifted))
        )
        affine = torch.eye(size, dtype=torch.float64)
        affine[:-1, :-1] = solved[1:].T
        affine[:-1, -1] = solved[0] - affine[:-1, :-1] @ middle
        return affine

    def _fit_robustly(self, told: torch.Tensor) -> torch.Tensor:
        """Least trimmed squares: leaves out what padding smeared or mirrored.

        Begun in the middle of the image, where there is none, then on the better half of the voxels until that settles
        (on a coarse lattice of them), at last on all that lie about as near as that half.
        """
        usable = self.seen & ~self._at_limit() & ~self._repeated()
        if int(usable.sum()) < 4**self.dims:
            usable = self.seen
        step = max(1, math.floor((usable.numel() / _LATTICE) ** (1 / self.dims)))
        some = (slice(None, None, step),) * self.dims
        lattice = SampledPlaces(self.ramps[(slice(None), *some)], usable[some], torch.tensor(self.half))
        stretch = torch.diag(torch.tensor([float(step)] * self.dims + [1.0], dtype=torch.float64))
        affine = lattice._better_half(told @ stretch) @ torch.linalg.inv(stretch)
        for _ in range(2):
            distance = self._distance(affine)
            near = 6 * self._typical(distance, usable, 0.25) + EXACT
            affine = self._fit((usable & (distance <= near)).float(), told)
        return affine

    def _better_half(self, told: torch.Tensor) -> torch.Tensor:
        weight = self.seen.to(torch.float32)
        for axis, n in enumerate(self.shape):
            bell = torch.exp(-8 * ((torch.arange(n, device=weight.device) - (n - 1) / 2) / n) ** 2)
            weight = weight * bell.reshape([-1 if a == axis else 1 for a in range(self.dims)])
        affine = self._fit(weight, told)
        for _ in range(12):
            distance = self._distance(affine)
            half = self.seen & (distance <= self._typical(distance, self.seen, 0.5))
            before, affine = affine, self._fit(half.float(), told)
            if self._largest_difference(before, affine) < EXACT / 10:
                break
        return affine

    @staticmethod
    def _typical(distance: torch.Tensor, usable: torch.Tensor, share: float) -> float:
        some = distance[usable]
        some = some[:: max(1, len(some) // 100_000)]
        return float(some.kthvalue(max(1, int(share * len(some)))).values)

    def _repeated(self) -> torch.Tensor:
        """(*S) nodes with a coordinate that all their neighbours share: a smeared border, or a flat step."""
        repeated = torch.zeros(self.shape, dtype=torch.bool, device=self.ramps.device)
        for d, half in enumerate(self.half):
            if half == 0:
                continue
            same = torch.ones_like(repeated)
            for axis, n in enumerate(self.shape):
                if n > 1:
                    same = same & (torch.gradient(self.ramps[d], dim=axis)[0].abs() < 1e-4)
            repeated = repeated | same
        return repeated

    def _at_limit(self) -> torch.Tensor:
        """(*S) nodes with a coordinate of the first or last voxel: what padding by the border gives."""
        limit = torch.zeros(self.shape, dtype=torch.bool, device=self.ramps.device)
        for d, half in enumerate(self.half):
            if half >= 1.5:
                limit = limit | (self.ramps[d].abs() >= half - 1e-3)
        return limit

    def _advance(self, affine: torch.Tensor) -> tuple[bool, float, bool]:
        """How the sampled place advances from one voxel to the next.

        Returns:
            whether the places are whole or half voxels only; the largest change of the advance that less than three voxels
            share, which smooth maps and those with kinks do not have; and whether places are shown twice in a row, as
            ``GridDistortion`` does where its cells meet, which is not counted as such a change.
        """
        inside = self._clear_of_padding(affine)
        rounded, change, repeats = False, 0.0, False
        for d, half in enumerate(self.half):
            rest = self.ramps[d] - self.predicted(affine, d)
            if bool(inside.any()) and float(rest[inside].abs().max()) > EXACT:
                twice = 2 * (self.ramps[d][inside] + half)
                rounded = rounded or float(((twice - twice.round()).abs() < 4e-3).float().mean()) > 0.99
            for axis in range(self.dims):
                changes, standing = self._lone_changes(rest, d, axis, inside)
                change = max(change, float(changes[~standing].max(initial=0.0)))
                repeats = repeats or bool((changes[standing] > _STEP).any())
        return rounded, change, repeats

    def _lone_changes(
        self, rest: torch.Tensor, component: int, axis: int, inside: torch.Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        """Changes of the advance along an axis that its neighbours do not share, and where the place stands still."""
        thin = [slice(None, None, self._thinning()) if a != axis else slice(None) for a in range(self.dims)]
        lines = [t[tuple(thin)].movedim(axis, -1) for t in (rest, self.ramps[component], inside)]
        length = lines[0].shape[-1]
        near = 2 if length >= 6 else 1
        if length < 2 * near + 2:
            return np.zeros(0), np.zeros(0, dtype=bool)
        windows = lines[0].diff(dim=-1).unfold(-1, 2 * near + 1, 1)
        whole = lines[2].unfold(-1, 2 * near + 2, 1).all(dim=-1)
        changes = (windows[..., near] - windows.median(dim=-1).values).abs()[whole]
        standing = lines[1].diff(dim=-1)[..., near:-near].abs()[whole] < 0.02
        return changes.cpu().numpy(), standing.cpu().numpy()

    def _strays(self, affine: torch.Tensor) -> float:
        """Largest difference from the affine in voxels of the input."""
        inside = self._clear_of_padding(affine)
        return float(self._distance(affine)[inside].max()) if bool(inside.any()) else math.inf

    def _clear_of_padding(self, affine: torch.Tensor) -> torch.Tensor:
        """(*S) the inside without what padding may have mirrored: that reaches as deep as the map strays."""
        inside = self._inside(affine, _BORDER)
        if not bool(inside.any()):
            return inside
        strays = float(self._distance(affine)[inside].max()) + _BORDER
        for d, half in enumerate(self.half):
            inside = inside & (self.ramps[d].abs() <= max(half - strays, half / 2))
        return inside

    def _thinning(self) -> int:
        """Stride over all axes but one that leaves about 1e5 voxels."""
        return max(1, math.floor((math.prod(self.shape) / 1e5) ** (1 / (self.dims - 1))))

    def _believable(self, affine: torch.Tensor) -> torch.Tensor:
        """(*S) nodes that show their own place: not padding that repeats, mirrors or wraps the image.

        Along every row of the affine the coordinate must grow as the affine does: it stands still in a repeated border
        and turns back in a mirrored one. What lies half an image off was wrapped or mirrored twice.
        """
        valid = self.seen & ~self._at_limit()
        for d, half in enumerate(self.half):
            row = affine[d, :-1]
            growth = torch.zeros(self.shape, dtype=self.ramps.dtype, device=self.ramps.device)
            for axis, n in enumerate(self.shape):
                if n > 1:
                    growth += torch.gradient(self.ramps[d], dim=axis)[0] * float(row[axis])
            valid = valid & (growth > 0.05 * float(row.square().sum()))
            valid = valid & ((self.ramps[d] - self.predicted(affine, d)).abs() <= half + 0.5)
        return valid


def _blurred(values: torch.Tensor, widths: Sequence[float]) -> torch.Tensor:
    """Gaussian smoothing (sd in voxels) of (*S), zero beyond the border."""
    for axis, width in enumerate(widths):
        along = torch.arange(values.shape[axis], dtype=values.dtype, device=values.device)
        kernel = torch.exp(-0.5 * ((along[:, None] - along) / width) ** 2) / (width * math.sqrt(2 * math.pi))
        values = (values.movedim(axis, -1) @ kernel).movedim(-1, axis)
    return values
