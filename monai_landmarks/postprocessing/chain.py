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
"""The best chain of candidates along an order of labels, by dynamic programming."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .anatomies import Anatomy
from .offsets import OffsetStatistics, Usual

__all__ = ["Chain", "Weights", "best_chain"]

#: Searching for chains that use no place twice is exact up to so many trials, then greedy.
MAX_TRIALS = 500


@dataclass(frozen=True)
class Weights:
    """How evidence is weighed; the arguments of :class:`~monai_landmarks.postprocessing.SequenceModel`."""

    confidence_weight: float
    confidence_threshold: float
    missing_cost: float
    shift_cost: float
    max_misfit: float
    max_shift: int
    max_missing: int
    margin: float
    rotation_invariant: bool


@dataclass(frozen=True)
class Problem:
    """One chain's numbers on one scan: L labels, C slots that a label may take.

    Args:
        anatomy: cost of the anatomy.
        index: flat number of the candidate in each slot ``(L, C)``.
        points: its place ``(L, C, D)``.
        gain: of taking it ``(L, C)``, ``-inf`` where there is none.
        ends: cost of beginning, or of ending, the chain with it ``(L, C)``.
        pairs: cost of two after each other, for labels 1, 2, ... places apart: ``(L - g, C, C)``.
    """

    anatomy: float
    index: np.ndarray
    points: np.ndarray
    gain: np.ndarray
    ends: np.ndarray
    pairs: list[np.ndarray]


class Chain:
    """One anatomy, prepared: what is usual between its labels and which channels each label may take.

    Args:
        anatomy: the order.
        places: of every label along the regular order.
        names: of the channels.
        statistics: of the regular order.
        weights: of the evidence.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        places: Mapping[str, float],
        names: Sequence[str],
        statistics: OffsetStatistics,
        weights: Weights,
    ) -> None:
        self.anatomy = anatomy
        self.weights = weights
        at = np.array([places[label] for label in anatomy.labels])
        steps = statistics.along(at)
        self.usual: list[Usual] = [steps.apart(gap) for gap in range(1, len(at))]
        lags = np.array([places[name] for name in names])[None] - at[:, None]  # (L, N): channel after label
        width = int((np.abs(lags) <= weights.max_shift).sum(axis=1).max())
        order = np.argsort(np.abs(lags), axis=1, kind="stable")[:, :width]
        lag = np.take_along_axis(lags, order, axis=1)
        self.channels = np.where(np.abs(lag) <= weights.max_shift, order, -1)
        # A label without channel is shown by those beside it: they are no error of the network.
        lag = np.sign(lag) * (np.abs(lag) - np.abs(lag[:, :1]))
        self.shifts = np.where(self.channels >= 0, lag, 0.0)

    def problem(self, points: np.ndarray, relative: np.ndarray, nearest: float) -> Problem:
        """Compute all gains and costs.

        Args:
            points: candidates ``(N, K, D)``, NaN-padded.
            relative: their confidence as a part of what is usual in the scan ``(N, K)``.
            nearest: smallest distance of two different members.
        """
        w = self.weights
        k, dims = points.shape[1:]
        # Slots of labels near an end, which have fewer channels, point to one row behind the last candidate.
        numbers = np.where(
            self.channels[..., None] >= 0, self.channels[..., None] * k + np.arange(k), points[..., 0].size
        )
        index = numbers.reshape(len(numbers), -1)
        shift = np.repeat(self.shifts, k, axis=1)
        placed = np.concatenate([points.reshape(-1, dims), np.full((1, dims), np.nan)])[index]
        part = np.append(relative.ravel(), np.nan)[index]
        gain = w.confidence_weight * (part - w.confidence_threshold) - 0.05 * w.shift_cost * np.abs(shift)
        gain = np.where(np.isnan(part), -np.inf, gain)
        gaps = range(1, min(w.max_missing + 1, len(index) - 1) + 1)
        pairs = [self._pair_cost(placed, shift, gap, nearest) for gap in gaps]
        return Problem(self.anatomy.cost, index, placed, gain, 0.5 * w.shift_cost * np.abs(shift), pairs)

    def _pair_cost(self, placed: np.ndarray, shift: np.ndarray, gap: int, nearest: float) -> np.ndarray:
        w, usual = self.weights, self.usual[gap - 1]
        offset = placed[gap:, None] - placed[:-gap, :, None]  # (L - gap, C from, C to, D)
        squared = np.einsum("lcde,lcde->lcd", offset, offset)
        half = 0.5 * usual.misfit(offset, w.rotation_invariant)
        expected = 0.5 * (1 if w.rotation_invariant else placed.shape[-1])
        cost = -w.max_misfit * np.expm1(-half / w.max_misfit) - expected
        cost += w.missing_cost * (gap - 1) + w.shift_cost * np.abs(shift[gap:, None] - shift[:-gap, :, None])
        longest = (1 + w.margin) * (usual.distance + 3 * usual.sd)
        possible = (squared >= nearest**2) & (squared <= longest[:, None, None] ** 2)  # False for NaN
        return np.where(possible, cost, np.inf)


def best_path(problem: Problem, gain: np.ndarray) -> tuple[float, list[tuple[int, int]]]:
    """Find the chain of highest score: its score and its (label, slot) in order; 0 and nothing where none is above 0."""
    labels, slots = gain.shape
    best = np.empty((labels, slots))
    back = np.full((labels, slots), -1)
    columns = np.arange(slots)
    for label in range(labels):
        reach, source = -problem.ends[label], np.full(slots, -1)
        for gap, pair in enumerate(problem.pairs[:label], start=1):
            through = best[label - gap][:, None] - pair[label - gap]
            slot = through.argmax(axis=0)
            value = through[slot, columns]
            source = np.where(value > reach, (label - gap) * slots + slot, source)
            reach = np.maximum(value, reach)
        best[label], back[label] = gain[label] + reach, source
    total = best - problem.ends
    at = int(total.argmax())
    score = float(total.flat[at])
    path: list[tuple[int, int]] = []
    while score > 0 and at >= 0:
        path.append(divmod(at, slots))
        at = int(back.flat[at])
    return max(score, 0.0), path[::-1]


def best_chain(problems: Sequence[Problem], nearest: float) -> tuple[float, int, list[tuple[int, int]]]:
    """Find the best chain over all anatomies in which no two members have the same place.

    The dynamic programme sees pairs along the chain only, so a place may come back later in it. Such a chain is split
    into two problems, each of which forbids one of the two; the problem with the highest bound is looked at next, so that
    the first chain without repetition is the best one.

    Args:
        problems: one per anatomy.
        nearest: two members closer than this have the same place.

    Returns:
        the score less the cost of the anatomy, the number of the anatomy, and (label, slot) of the members.
    """
    counter = itertools.count()
    queue: list[tuple[float, int, int, np.ndarray, list[tuple[int, int]]]] = []

    def push(number: int, gain: np.ndarray) -> None:
        score, path = best_path(problems[number], gain)
        heapq.heappush(queue, (problems[number].anatomy - score, next(counter), number, gain, path))

    for number, problem in enumerate(problems):
        push(number, problem.gain)
    while True:
        negative, trial, number, gain, path = heapq.heappop(queue)
        problem = problems[number]
        twice = _same_place(np.array([problem.points[member] for member in path]), nearest)
        if twice is None:
            return -negative, number, path
        members = sorted((path[i] for i in twice), key=lambda member: problem.gain[member])
        if trial > MAX_TRIALS:  # greedy from here: only this chain, and its weaker member goes
            queue.clear()
            members = members[:1]
        for member in members:
            without = gain.copy()
            without[member] = -np.inf
            push(number, without)


def _same_place(points: np.ndarray, nearest: float) -> tuple[int, int] | None:
    if len(points) < 2:
        return None
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    first, second = np.nonzero(np.triu(distances < nearest, k=1))
    return (int(first[0]), int(second[0])) if len(first) else None
