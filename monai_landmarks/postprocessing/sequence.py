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
"""The sequence model: several candidates per landmark in, the best anatomical sequence out."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from monai.utils import look_up_option

from monai_landmarks.geometry import LandmarkError, check_points, plain_tensor

from .anatomies import Anatomy, check_anatomies, check_names, label_places, spine_anatomies
from .chain import Chain, Weights, best_chain
from .model_file import read_model, statistics_of, write_model
from .offsets import OffsetStatistics, learn_offsets
from .result import SequenceResult, explain_changes

__all__ = ["SequenceModel"]

REFERENCES = ("volume", "channel")
#: What :meth:`SequenceModel.tune` tries.
TUNING_GRID = {"confidence_weight": (5.0, 10.0, 20.0), "missing_cost": (1.0, 2.0, 4.0), "shift_cost": (3.0, 6.0, 9.0)}


class SequenceModel:
    r"""Choose among the candidates of a chain of landmarks, such as vertebrae, those that form the best sequence.

    The model learns the usual offsets between neighbours from true points (:meth:`fit`). On a scan it takes any list of
    candidates, from whatever network, and maximises over all sequences, exactly, by dynamic programming

    .. math::
        \sum_{l} \left[ w (q_l - \tau) - 0.05\, s |h_l| \right]
        - \sum_{(l, m)} \left[ c \left(1 - e^{-d_{lm}^2 / 2c}\right) - \tfrac{D}{2}
          + \mu (m - l - 1) + s |h_m - h_l| \right] - \tfrac{s}{2} (|h_{first}| + |h_{last}|) - \text{cost of the anatomy}

    over the labels :math:`l` taken and the pairs :math:`(l, m)` that follow each other:

    * :math:`q` is the confidence as a part of what is usual (``reference``), at most 1: a candidate of usual confidence
      gains :math:`w (1 - \tau)`, one below :math:`\tau` has to be carried by its place.
    * :math:`d^2` is the squared Mahalanobis distance of the offset to what is usual :math:`m - l` labels apart. It is
      cut off softly at :math:`c`, so that one unusual disc does not break a spine; a usual pair costs nothing on average.
    * Labels beyond both ends are free: a field of view shows a part. A member missing inside costs :math:`\mu`.
    * A label may take a candidate of a channel next to it, :math:`h` places off, because the network counted wrongly. A
      change of :math:`h` costs :math:`s` per place, from and to 0 beyond the ends half of that, so a block of labels that
      is one off is repaired as a whole, wherever it lies. For a label without channel, such as T13, :math:`h` counts
      from the nearest channels.
    * No place is used twice, and no two neighbours are further apart than is possible (``margin``).
    * Each anatomy (a regular spine, T13, no T12, L6, no L5) is an order of its own; a variant has to outweigh its cost.

    Points are chosen, never made: a member without a fitting candidate is missing. What candidates and offsets do not show
    is not repaired: all labels one off; and a count that goes wrong just at T12 or L5 looks like the variant that lacks or
    adds a vertebra there.

    The idea follows the post-processing of Payer et al. (VISAPP 2020), who bound distances by 12.5 and 50 mm and maximise
    the total response; here directions and variances are learnt, labels may be off, members may be missing.

    Offsets are vectors in the patient's world, so a spine upside down does not fit. ``rotation_invariant`` uses distances
    alone, for specimens in any pose; it cannot tell apart the two directions along the chain.

    Args:
        names: of the channels, in the order of the chain (T13 and L6 may stand anywhere).
        anatomies: orders of labels, the regular one first, as :class:`Anatomy` or their arguments; None takes
            :func:`spine_anatomies`, which for other names than vertebrae is the one order of ``names``.
        reference: usual confidence: ``"volume"`` takes the median over those channels whose best candidate reaches half
            of the scan's best; ``"channel"`` each channel's best, for channels that answer differently high (absent ones
            then count as much as others); a number, or one per channel as :func:`usual_confidence` learns them.
        confidence_weight: ``w``.
        confidence_threshold: ``tau``, between 0 and 1.
        missing_cost: ``mu``.
        shift_cost: ``s``.
        max_misfit: ``c``.
        max_shift: how far a channel may be from the label that takes its candidate.
        max_missing: most members missing in a row; a larger hole ends the sequence.
        margin: neighbours may be apart as far as mean + 3 sd of training, and this part more; the smallest mean - 3 sd,
            this part less, and at least a tenth of the mean distance, is needed between any two members.
        rotation_invariant: use distances instead of offset vectors.

    Raises:
        LandmarkError: for repeated names, anatomies that do not fit them, or numbers out of range.

    Example:
        >>> spines = torch.tensor([[[0.0, 0.0], [0.0, 20.0], [0.0, 42.0]], [[5.0, 1.0], [6.0, 22.0], [7.0, 43.0]]])
        >>> model = SequenceModel(["L1", "L2", "L3"]).fit(spines)
        >>> candidates = torch.tensor([[[0.0, 0.0], [0.0, 21.0]], [[0.0, 43.0], [0.0, 20.0]], [[0.0, 42.0], [0.0, 80.0]]])
        >>> result = model(candidates, torch.tensor([[0.9, 0.3], [0.8, 0.7], [0.9, 0.1]]))
        >>> result.points.tolist()
        [[0.0, 0.0], [0.0, 20.0], [0.0, 42.0]]
        >>> print(result.table())
        anatomy: regular; 3 of 3 landmarks, 1 changed
        L2: moved to candidate 2. candidate 1 lies 1.0 mm from L3: the same place.
    """

    def __init__(
        self,
        names: Sequence[str],
        anatomies: Sequence[Anatomy | Mapping[str, Any]] | None = None,
        reference: str | float | Sequence[float] = "volume",
        confidence_weight: float = 10.0,
        confidence_threshold: float = 0.2,
        missing_cost: float = 2.0,
        shift_cost: float = 6.0,
        max_misfit: float = 14.0,
        max_shift: int = 1,
        max_missing: int = 6,
        margin: float = 0.25,
        rotation_invariant: bool = False,
    ) -> None:
        if isinstance(names, str):
            raise LandmarkError(f"names must be a sequence of texts, one per channel, got the text {names!r}.")
        check_names(names, "the sequence model")
        self.names = tuple(names)
        self.anatomies = check_anatomies(spine_anatomies(names) if anatomies is None else anatomies, self.names)
        self.reference = reference if not isinstance(reference, str) else look_up_option(reference, REFERENCES)
        self.weights = Weights(
            confidence_weight,
            confidence_threshold,
            missing_cost,
            shift_cost,
            max_misfit,
            max_shift,
            max_missing,
            margin,
            rotation_invariant,
        )
        _check_numbers(self.weights, self.reference, len(self.names))
        self.statistics: OffsetStatistics | None = None
        self._chains: list[Chain] = []
        self._nearest = 0.0

    def fit(self, points: Any, localization_error: float | None = None) -> SequenceModel:
        """Learn the usual offsets from true points.

        Few cases are enough: a covariance is shrunk to that of all transitions, and a transition that fewer than two
        cases show borrows its offset from its neighbours, with a warning. A pair between which a case has a surplus
        member (T13) is not learnt from.

        Args:
            points: true world points of M cases, ``(M, N, D)`` or a list of ``(N, D)``; NaN for missing.
            localization_error: standard deviation of a candidate's error per axis, mm; the offsets between candidates vary
                by so much more than those between true points. None takes 5 % of the mean distance of neighbours.

        Returns:
            the model itself.

        Raises:
            LandmarkError: if the shapes do not fit, or too few neighbours are seen together.
        """
        cases = [_array(case) for case in points]
        shapes = {case.shape for case in cases}
        if len(shapes) != 1 or next(iter(shapes))[:-1] != (len(self.names),):
            raise LandmarkError(
                f"true points must be a list of ({len(self.names)}, D), one row per name, got shapes {sorted(shapes)}: "
                "keep missing landmarks as NaN."
            )
        table = np.stack(cases)
        check_points(torch.from_numpy(table), name="points")
        regular = self.anatomies[0].labels
        there = ~np.isnan(table[..., 0])
        steps = np.ones((len(table), len(regular) - 1), dtype=bool)
        places = label_places(self.anatomies)
        for column, name in enumerate(self.names):
            if name not in regular:
                steps[there[:, column], int(places[name])] = False
        ordered = table[:, [self.names.index(label) for label in regular]]
        self._use(learn_offsets(ordered, steps, regular, localization_error))
        return self

    def _use(self, statistics: OffsetStatistics) -> None:
        places = label_places(self.anatomies)
        self.statistics = statistics
        self._chains = [Chain(a, places, self.names, statistics, self.weights) for a in self.anatomies]
        shortest = statistics.distance - 3 * np.sqrt(statistics.variance)
        least = 0.1 * float(statistics.distance.mean())
        self._nearest = max((1 - self.weights.margin) * float(shortest.min()), least)

    def __call__(self, candidates: Any, confidence: Any) -> SequenceResult:
        """Choose the best sequence.

        Args:
            candidates: ``(N, K, D)`` world millimetres, NaN where a channel has fewer than K.
            confidence: ``(N, K)``, falling along K, NaN where there is no candidate.

        Raises:
            LandmarkError: for a model that was not fitted, other shapes or names, candidates that are not sorted, or a
                confidence without a candidate and the reverse.
        """
        if self.statistics is None:
            raise LandmarkError("the sequence model has learnt nothing yet: call fit(points), or load one from a file.")
        points, scores = self._checked(candidates, confidence)
        scale = self._usual_confidence(scores)
        relative = np.minimum(scores / scale[:, None], 1.0)
        problems = [chain.problem(points, relative, self._nearest) for chain in self._chains]
        score, number, members = best_chain(problems, self._nearest)
        chain, k = self._chains[number], points.shape[1]
        path = [(label, *divmod(int(problems[number].index[label, slot]), k)) for label, slot in members]
        changes = explain_changes(chain, path, points, scores, scale, self.names, self._nearest)
        return self._result(chain.anatomy, path, points, scores, changes, score)

    def _result(self, anatomy: Anatomy, path: Sequence[tuple[int, int, int]], points, scores, changes, score):
        chosen = np.full((len(self.names), 2), -1)
        extra = {}
        for label, channel, candidate in path:
            name = anatomy.labels[label]
            if name in self.names:
                chosen[self.names.index(name)] = channel, candidate
            else:
                extra[name] = (torch.from_numpy(points[channel, candidate].copy()), float(scores[channel, candidate]))
        there = chosen[:, 0] >= 0
        taken = np.where(there[:, None], points[chosen[:, 0], chosen[:, 1]], np.nan)
        trust = np.where(there, scores[chosen[:, 0], chosen[:, 1]], np.nan)
        return SequenceResult(
            points=torch.from_numpy(taken),
            confidence=torch.from_numpy(trust),
            chosen=torch.from_numpy(chosen),
            names=self.names,
            anatomy=anatomy.name,
            extra=extra,
            changes=changes,
            score=score,
        )

    def _checked(self, candidates: Any, confidence: Any) -> tuple[np.ndarray, np.ndarray]:
        assert self.statistics is not None
        points, scores = _array(candidates), _array(confidence)
        count, dims = len(self.names), self.statistics.mean.shape[1]
        if points.ndim != 3 or points.shape[0] != count or points.shape[1] == 0 or points.shape[2] != dims:
            batch = " Give one scan at a time." if points.ndim == 4 else ""
            raise LandmarkError(
                f"candidates must have shape (N, K, D) with N = {count} names and D = {dims}, got {points.shape}.{batch}"
            )
        if scores.shape != points.shape[:2]:
            raise LandmarkError(f"confidence must have shape (N, K) = {points.shape[:2]}, got {scores.shape}.")
        check_points(torch.from_numpy(points), dims, "candidates")
        missing = np.isnan(points[..., 0])
        wrong = missing != np.isnan(scores)
        # find_candidates gives an empty map no candidate, but its maximum as the first confidence.
        wrong[:, 0] &= ~missing[:, 0]
        if wrong.any() or np.isinf(scores).any():
            n, k = np.argwhere(wrong | np.isinf(scores))[0]
            raise LandmarkError(
                f"candidate {k + 1} of {self.names[n]!r} is at {points[n, k].tolist()} with confidence {scores[n, k]}: a "
                "candidate has a place and a finite confidence, what pads the list is NaN in both."
            )
        filled = np.where(missing, -np.inf, scores)
        rising = filled[:, 1:] > filled[:, :-1]
        if rising.any():
            n, k = np.argwhere(rising)[0]
            raise LandmarkError(
                f"the candidates of {self.names[n]!r} are not sorted: candidate {k + 2} has a higher confidence than the "
                "one before it, or stands after padding. Sort them by falling confidence, padding last."
            )
        return points, scores

    def _usual_confidence(self, scores: np.ndarray) -> np.ndarray:
        """Give the usual confidence per channel ``(N,)``, positive."""
        best = np.maximum(np.nan_to_num(scores[:, 0], nan=0.0), 0.0)
        if self.reference == "volume":
            best = np.full_like(best, np.median(best[best >= 0.5 * best.max()]))
        elif not isinstance(self.reference, str):
            best = np.broadcast_to(np.asarray(self.reference, dtype=np.float64), best.shape)
        return np.where(best > 0, best, 1.0)

    def tune(
        self,
        candidates: Sequence[Any],
        confidence: Sequence[Any],
        truths: Sequence[Any],
        tolerance: float = 20.0,
        grid: Mapping[str, Sequence[float]] | None = None,
    ) -> float:
        """Choose the weights on validation scans: the combination with most landmarks right is kept.

        A landmark is right if it lies within ``tolerance`` of the truth, or is missing in both. The present weights are
        tried first and stay unless others are better.

        Args:
            candidates: per scan ``(N, K, D)``.
            confidence: per scan ``(N, K)``.
            truths: per scan ``(N, D)`` true points.
            tolerance: mm.
            grid: values to try per argument of the constructor; None takes a grid of 27 on the weights that matter.

        Returns:
            the share of landmarks right with the weights kept.
        """
        if not len(candidates) == len(confidence) == len(truths) > 0:
            raise LandmarkError(
                f"tuning needs as many candidates as confidences and truths, and one scan at least, got "
                f"{len(candidates)}, {len(confidence)} and {len(truths)}."
            )
        if self.statistics is None:
            raise LandmarkError("the sequence model has learnt nothing yet: call fit(points) before tune.")
        grid = TUNING_GRID if grid is None else grid
        options = [
            self.weights,
            *(
                Weights(**{**asdict(self.weights), **dict(zip(grid, values, strict=True))})
                for values in itertools.product(*grid.values())
            ),
        ]
        true = torch.from_numpy(np.stack([_array(truth) for truth in truths]))

        def share(weights: Weights) -> float:
            self.weights = weights
            self._use(self.statistics)  # type: ignore[arg-type]
            found = torch.stack([self(*case).points for case in zip(candidates, confidence, strict=True)])
            near = torch.linalg.vector_norm(found - true, dim=-1) <= tolerance
            return float((near | (found.isnan() & true.isnan()).all(dim=-1)).double().mean())

        for weights in options:
            _check_numbers(weights, self.reference, len(self.names))
        shares = [share(weights) for weights in options]
        self.weights = options[int(np.argmax(shares))]
        self._use(self.statistics)
        return max(shares)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write names, anatomies, weights and statistics as JSON.

        Args:
            path: of the file; a reader sees all of it or nothing.
        """
        if self.statistics is None:
            raise LandmarkError("the sequence model has learnt nothing yet: there is nothing to save.")
        write_model(path, self.names, self.anatomies, self.reference, self.weights, self.statistics)

    @classmethod
    def load(cls, path: str | os.PathLike[str], names: Sequence[str] | None = None) -> SequenceModel:
        """Read a model.

        Args:
            path: of the JSON file.
            names: of the channels that it shall serve; None takes the file's.

        Raises:
            FileNotFoundError: if there is no such file.
            LandmarkError: if it is something else, of another version, damaged, or has other names.
        """
        content = read_model(path, names)
        try:
            model = cls(content["names"], content["anatomies"], content["reference"], **content["weights"])
            model._use(statistics_of(content["statistics"], len(model.anatomies[0].labels) - 1))
        except (KeyError, TypeError, ValueError, np.linalg.LinAlgError) as error:
            raise LandmarkError(f"{str(path)!r} is damaged, fit the model again: {error!r}.") from error
        return model


def _array(values: Any) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        return plain_tensor(values).detach().cpu().double().numpy()
    return np.array(values, dtype=np.float64)


def _check_numbers(weights: Weights, reference: str | float | Sequence[float], channels: int) -> None:
    positive = {"confidence_weight": weights.confidence_weight, "max_misfit": weights.max_misfit}
    if isinstance(reference, Sequence) and not isinstance(reference, str):
        if len(reference) != channels:
            raise LandmarkError(
                f"reference has {len(reference)} numbers for {channels} names: one for each is expected."
            )
        positive |= {f"reference of channel {number}": value for number, value in enumerate(reference)}
    elif not isinstance(reference, str):
        positive["reference"] = reference
    for name, value in positive.items():
        if not 0 < value < float("inf"):
            raise LandmarkError(f"{name} must be a positive number, got {value!r}.")
    not_negative = ("missing_cost", "shift_cost", "max_shift", "max_missing", "margin")
    for name in not_negative:
        if not 0 <= getattr(weights, name) < float("inf"):
            raise LandmarkError(f"{name} must be a number from 0 on, got {getattr(weights, name)!r}.")
    if not 0 <= weights.confidence_threshold < 1:
        raise LandmarkError(f"confidence_threshold must lie in [0, 1), got {weights.confidence_threshold!r}.")
