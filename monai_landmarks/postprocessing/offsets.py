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
"""What is usual between the members of a sequence: offsets and distances, learnt from true points."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monai_landmarks.data.landmarks import quoted
from monai_landmarks.geometry import LandmarkError

__all__ = ["OffsetStatistics", "learn_offsets"]

#: Transitions with fewer samples than this borrow from their neighbours.
LEAST_SAMPLES = 2


@dataclass(frozen=True)
class OffsetStatistics:
    """Offsets ``p[t+1] - p[t]`` of ``T`` transitions in a sequence of ``T + 1`` members, world millimetres.

    Args:
        mean: ``(T, D)``.
        covariance: ``(T, D, D)``.
        distance: mean length ``(T,)``.
        variance: of the length ``(T,)``.
        counts: how many samples each transition had ``(T,)``.
        noise: expected error of a candidate's position, mm, one standard deviation per axis.
    """

    mean: np.ndarray
    covariance: np.ndarray
    distance: np.ndarray
    variance: np.ndarray
    counts: np.ndarray
    noise: float

    def along(self, places: np.ndarray) -> OffsetStatistics:
        """Give the statistics between labels at ``places`` of the learnt order.

        Neighbours in the learnt order have what was learnt. Where labels are missing from the order or stand between two
        of it, the transitions that lie between the two places are averaged, not added: a spine without T12 has one disc
        between T11 and L1, a spine with T13 has a whole step on each side of it.

        Args:
            places: increasing, a whole number for a learnt label; surplus ones lie between.
        """
        first = np.floor(places[:-1]).astype(int)
        last = np.ceil(places[1:]).astype(int)
        touched = [slice(a, b) for a, b in zip(first, last, strict=True)]
        averaged = {
            field: np.stack([getattr(self, field)[part].mean(axis=0) for part in touched])
            for field in ("mean", "covariance", "distance", "variance")
        }
        counts = np.array([self.counts[part].min() for part in touched])
        return OffsetStatistics(**averaged, counts=counts, noise=self.noise)

    def apart(self, gap: int) -> Usual:
        """Give what is usual between members ``gap`` places apart: means, covariances and variances add up.

        They add up as if transitions were independent. The candidate's own error comes in once at each end.
        """

        def total(values: np.ndarray) -> np.ndarray:
            summed = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])
            return summed[gap:] - summed[:-gap]

        noise = 2 * self.noise**2
        covariance = total(self.covariance) + noise * np.eye(self.mean.shape[1])
        whiten = np.linalg.inv(np.linalg.cholesky(covariance))
        return Usual(total(self.mean), whiten, total(self.distance), np.sqrt(total(self.variance) + noise))


@dataclass(frozen=True)
class Usual:
    """What is usual between members at a fixed number of places from each other.

    Args:
        mean: offset ``(P, D)``, P pairs of members.
        whiten: inverse Cholesky factor of its covariance ``(P, D, D)``.
        distance: usual distance ``(P,)``.
        sd: its standard deviation ``(P,)``.
    """

    mean: np.ndarray
    whiten: np.ndarray
    distance: np.ndarray
    sd: np.ndarray

    def misfit(self, offset: np.ndarray, rotation_invariant: bool) -> np.ndarray:
        """Measure the squared Mahalanobis distance of offsets ``(P, ..., D)``, or of their lengths alone: ``(P, ...)``."""
        extra = (1,) * (offset.ndim - 2)
        if rotation_invariant:
            length = np.sqrt(np.einsum("...d,...d->...", offset, offset))
            return ((length - self.distance.reshape(-1, *extra)) / self.sd.reshape(-1, *extra)) ** 2
        residual = offset - self.mean.reshape(-1, *extra, self.mean.shape[1])
        white = np.matmul(residual.reshape(len(residual), -1, residual.shape[-1]), self.whiten.transpose(0, 2, 1))
        return np.einsum("pcd,pcd->pc", white, white).reshape(residual.shape[:-1])


def learn_offsets(
    points: np.ndarray, steps: np.ndarray, labels: Sequence[str], noise: float | None
) -> OffsetStatistics:
    """Learn the offsets between neighbours from true points.

    With few cases a covariance of its own would be singular, so each transition's scatter is joined with the pooled
    covariance ``P`` of all transitions, which counts as much as ``nu`` = 10 samples, and the mean's own uncertainty is
    added: ``(scatter_t + nu P) / (n_t - 1 + nu) * (1 + 1 / n_t)``. A transition with fewer than two samples has its mean
    interpolated between the nearest others and twice the pooled covariance, with a warning that names it.

    Args:
        points: ``(M, N, D)`` in the regular order, NaN for missing.
        steps: bool ``(M, N - 1)``: which pairs are neighbours; others are not learnt from.
        labels: the N labels, for messages.
        noise: see :class:`OffsetStatistics`; None takes 5 % of the mean distance.

    Raises:
        LandmarkError: if no transition has two samples.
    """
    offsets = np.where(steps[..., None], np.diff(points, axis=1), np.nan)
    counts = (~np.isnan(offsets[..., 0])).sum(axis=0)
    known = counts >= LEAST_SAMPLES
    if not known.any():
        raise LandmarkError(
            f"no two neighbours of the sequence are both there in {LEAST_SAMPLES} of {len(points)} cases, nothing can be "
            "learnt: give more cases, and the labels in their anatomical order."
        )
    if not known.all():
        pairs = [f"{labels[t]}-{labels[t + 1]}" for t in np.flatnonzero(~known).tolist()]
        warnings.warn(
            f"fewer than {LEAST_SAMPLES} training cases show {quoted(pairs)}: their usual offsets are interpolated from "
            "the neighbouring transitions.",
            stacklevel=3,
        )
    lengths = np.linalg.norm(offsets, axis=-1, keepdims=True)
    mean, covariance = _shrunk(offsets, counts, known)
    distance, variance = _shrunk(lengths, counts, known)
    noise = 0.05 * float(distance.mean()) if noise is None else noise
    if not noise > 0:
        raise LandmarkError(
            f"the expected error of a position is {noise!r} mm: it must be positive, or every deviation from training "
            "cases that agree perfectly would be impossible. Are all training points the same?"
        )
    return OffsetStatistics(mean, covariance, distance[:, 0], variance[:, 0, 0], counts, noise)


def _shrunk(
    samples: np.ndarray, counts: np.ndarray, known: np.ndarray, nu: float = 10.0
) -> tuple[np.ndarray, np.ndarray]:
    """Give means (T, D) and shrunk covariances (T, D, D) of samples (M, T, D), NaN where there is none."""
    n = np.maximum(counts, 1)[:, None]
    own = np.nansum(samples, axis=0) / n
    places = np.arange(len(counts))
    mean = np.stack([np.interp(places, places[known], own[known, d]) for d in range(own.shape[1])], axis=1)
    residual = np.nan_to_num(samples - mean) * known[:, None]
    scatter = np.einsum("mtd,mte->tde", residual, residual)
    pooled = scatter.sum(axis=0) / (counts[known] - 1).sum()
    weight = (counts - 1 + nu)[:, None, None]
    shrunk = (scatter + nu * pooled) / weight * (1 + 1 / n[..., None])
    return mean, np.where(known[:, None, None], shrunk, 2 * pooled)
