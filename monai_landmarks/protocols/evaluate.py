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
"""Scoring predictions against the truth under a protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from monai_landmarks.data import Landmarks
from monai_landmarks.data.landmarks import quoted
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.metrics import radial_errors
from monai_landmarks.metrics.functional import plain
from monai_landmarks.metrics.identification import identify

from .protocol import Protocol, get_protocol
from .result import EvaluationResult

__all__ = ["evaluate"]


def evaluate(
    predictions: Mapping[str, Any],
    ground_truth: Mapping[str, Any],
    protocol: str | Protocol,
    method: str = "",
    info: Mapping[str, Any] | None = None,
) -> EvaluationResult:
    """Score predictions against the truth under a named protocol.

    Both sides must hold exactly the same cases. Landmarks are matched by name where both sides have names, never by
    place. Arrays are taken to be in the protocol's landmark order, or in the order of the truth's names.

    Under a protocol that leaves landmarks outside the image out (``Protocol.outside``), those are the ones whose status
    in the truth is ``"outside"``: as read from a file, or from :meth:`Landmarks.seen_in`. They are counted in the result.

    Under a protocol with a rule of identification (``Protocol.identification``) the result also says which landmarks were
    identified.

    Args:
        predictions: case name to :class:`~monai_landmarks.data.Landmarks` or to an array ``(N, D)`` of world
            millimetres. A landmark that was not found is a row of NaN.
        ground_truth: the same for the truth; no arrays where the protocol leaves landmarks outside the image out.
        protocol: a protocol or its name.
        method: what was evaluated, a row title in :func:`compare`.
        info: further facts to keep beside the numbers (seed, weights, data folder); must be JSON-like.

    Returns:
        the result, with every number beside the protocol's name. Cases of the protocol's section that are not there are
        allowed, the result then says how many of how many were evaluated.

    Raises:
        LandmarkError: for cases that are on one side only or foreign to the protocol's section, for landmark names that
            do not fit, for points of different shapes, or for a truth that cannot say what the protocol leaves out.
        ValueError: for an unknown protocol.

    Example:
        >>> truth = {"01": np.zeros((2, 3)), "02": np.zeros((2, 3))}
        >>> found = {"01": np.ones((2, 3)), "02": np.zeros((2, 3))}
        >>> result = evaluate(found, truth, "native/mm")
        >>> round(result.summary.mean, 3), result.detection[1.0]
        (0.866, 50.0)
    """
    rules = get_protocol(protocol)
    cases = _matching_cases(predictions, ground_truth)
    names = _names(ground_truth, predictions, cases, rules)
    pred = [_points(predictions[case], names, case, "prediction") for case in cases]
    true = [_points(ground_truth[case], names, case, "truth") for case in cases]
    outside = _outside(ground_truth, names, cases) if rules.outside == "leave_out" else None
    for case, p, t in zip(cases, pred, true, strict=True):
        if p.shape != t.shape:
            raise LandmarkError(
                f"case {case!r}: the prediction has shape {p.shape}, the truth {t.shape}. Both must be (N, D) with the "
                "same landmarks; one that was not found is a row of NaN."
            )
    shapes = sorted({t.shape for t in true})
    if len(shapes) > 1:
        raise LandmarkError(f"the cases differ in their points: shapes {shapes}. A missing landmark is a row of NaN.")
    titles = names or tuple(str(index) for index in range(true[0].shape[0]))
    found, known = np.stack(pred), np.stack(true)
    errors = radial_errors(found, known).numpy()
    if outside is not None:
        errors = np.where(outside, np.nan, errors)
    rule, radius = rules.identification, rules.identification_distance
    identification = None if rule is None else identify(found, known, rule, radius, outside)
    return EvaluationResult.from_errors(
        errors, cases, rules, titles, method=method, info=info, outside=outside, identification=identification
    )


def _matching_cases(predictions: Mapping[str, Any], ground_truth: Mapping[str, Any]) -> list[str]:
    if not ground_truth:
        raise LandmarkError("`ground_truth` holds no case: is the data folder the right one?")
    lacking = sorted(set(ground_truth) - set(predictions))
    surplus = sorted(set(predictions) - set(ground_truth))
    if lacking or surplus:
        text = f"predictions and truth must hold the same cases, {_differences(lacking, surplus)}"
        one = [str(case).strip().lstrip("0") for case in (*lacking[:1], *surplus[:1])]
        alike = len(one) == 2 and one[0] == one[1]
        raise LandmarkError(text + (" The names differ only in leading zeros." if alike else ""))
    return sorted(ground_truth)


def _differences(lacking: Iterable[str], surplus: Iterable[str]) -> str:
    lacking, surplus = list(lacking), list(surplus)
    parts = [f"{len(lacking)} without prediction: {quoted(lacking)}"] if lacking else []
    parts += [f"{len(surplus)} without truth: {quoted(surplus)}"] if surplus else []
    return "; ".join(parts) + "."


def _names(
    truth: Mapping[str, Any], predictions: Mapping[str, Any], cases: Iterable[str], rules: Protocol
) -> tuple[str, ...] | None:
    """The landmark order: the protocol's, else the first one that the truth or the predictions name."""
    if rules.landmark_names is not None:
        return rules.landmark_names
    named = (side[case].names for side in (truth, predictions) for case in cases if isinstance(side[case], Landmarks))
    return next(named, None)


def _outside(truth: Mapping[str, Any], names: tuple[str, ...] | None, cases: Iterable[str]) -> np.ndarray:
    """Tell of each case and landmark whether the truth says that it lies outside the image, ``(B, N)``."""
    arrays = [case for case in cases if not isinstance(truth[case], Landmarks)]
    if arrays:
        raise LandmarkError(
            f"the protocol leaves landmarks outside the image out, and the truth of {len(arrays)} cases is an array, "
            f"which cannot say which these are: {quoted(arrays)}. Give Landmarks(points, names).seen_in(affine, shape)."
        )
    marks = (truth[case] if names is None else truth[case].reorder(names) for case in cases)
    return np.stack([each.outside for each in marks])


def _points(value: Any, names: tuple[str, ...] | None, case: str, side: str) -> np.ndarray:
    if isinstance(value, Landmarks):
        try:
            return value.points if names is None else value.reorder(names).points
        except LandmarkError as error:
            raise LandmarkError(f"case {case!r}, {side}: {error}") from error
    points = plain(value).cpu().numpy()
    if points.ndim != 2 or (names is not None and len(points) != len(names)):
        wanted = "(N, D)" if names is None else f"({len(names)}, D)"
        raise LandmarkError(f"case {case!r}, {side}: points must have shape {wanted}, got {points.shape}.")
    return points
