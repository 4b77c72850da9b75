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
"""Presence: which landmarks are in the image at all, decided by thresholds on their confidence."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from monai.utils import look_up_option

from monai_landmarks.data import atomic_write
from monai_landmarks.data.files import require_file
from monai_landmarks.data.formats.common import dump_json, load_json
from monai_landmarks.geometry import LandmarkError, check_points, plain_tensor

from .anatomies import check_names

__all__ = [
    "apply_presence",
    "load_presence_thresholds",
    "presence_thresholds",
    "save_presence_thresholds",
    "usual_confidence",
]

KIND = "monai_landmarks presence thresholds"
CRITERIA = ("errors", "balanced")


def apply_presence(points: torch.Tensor, confidence: Any, thresholds: Any) -> torch.Tensor:
    """Set landmarks below their threshold missing: NaN in all coordinates. The others stay as they are.

    SCN always predicts all landmarks, and Payer et al. (2019, section 4.4) count errors over those of the truth alone; who
    reads a scan of a part of the spine needs to be told what is absent.

    Args:
        points: ``(..., N, D)``.
        confidence: ``(..., N)``. One that is NaN is below every threshold.
        thresholds: one number, or one per landmark ``(N,)``. A confidence equal to its threshold is enough.

    Returns:
        a new tensor of the shape of ``points``.

    Raises:
        LandmarkError: for shapes that do not fit, or a threshold that is no number.

    Example:
        >>> points = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> apply_presence(points, torch.tensor([0.9, 0.1]), 0.5)
        tensor([[1., 2.],
                [nan, nan]])
    """
    points = plain_tensor(torch.as_tensor(points))
    check_points(points)
    scores = plain_tensor(torch.as_tensor(confidence, device=points.device))
    limits = check_thresholds(thresholds).to(points.device)
    if scores.shape != points.shape[:-1]:
        raise LandmarkError(
            f"confidence must have one number per landmark, shape {tuple(points.shape[:-1])}, got {tuple(scores.shape)}."
        )
    if limits.ndim and len(limits) != points.shape[-2]:
        raise LandmarkError(
            f"{len(limits)} thresholds for {points.shape[-2]} landmarks: they belong to another set of landmarks."
        )
    # Written as "not at least", so that a confidence of NaN is not enough.
    return points.masked_fill(~(scores.double() >= limits).unsqueeze(-1), torch.nan)


def check_thresholds(thresholds: Any) -> torch.Tensor:
    """Return thresholds as float64, a number or ``(N,)``; refuse NaN and other shapes."""
    limits = plain_tensor(torch.as_tensor(thresholds, dtype=torch.float64))
    if limits.ndim > 1 or bool(limits.isnan().any()):
        raise LandmarkError(f"thresholds must be one number or one per landmark, none of them NaN; got {thresholds!r}.")
    return limits


def presence_thresholds(
    confidence: Any,
    present: Any,
    per_landmark: bool = True,
    criterion: str = "errors",
    false_positive_weight: float = 1.0,
) -> torch.Tensor:
    """Find the thresholds with the fewest wrong decisions on validation data.

    Every cut between two neighbouring scores is tried; the threshold is the middle between them. Among equally good cuts
    the one with the widest gap is taken. Where it is best to keep all, the threshold is 0, or the lowest score if that is
    negative: nothing was seen that would tell how low the score of one that is there may be. Where it is best to keep
    none, it is the next number after the highest score.

    A landmark that was present in all validation cases, or in none, tells nothing about its threshold and gets the
    pooled one: that of all landmarks taken together. If no landmark was ever absent, nothing is ever called absent.

    Args:
        confidence: ``(M, N)`` of M validation cases. NaN where nothing was found, which counts as below any threshold.
        present: bool ``(M, N)``: whether the landmark is there in truth.
        per_landmark: False gives the pooled threshold alone.
        criterion: ``"errors"`` counts false positives and false negatives; ``"balanced"`` adds up their rates, so that a
            landmark that is rarely absent is not simply always kept.
        false_positive_weight: how much worse a false positive is than a false negative.

    Returns:
        float64 thresholds ``(N,)``, or a single number.

    Raises:
        LandmarkError: for shapes that do not fit, infinite scores, or validation data without a landmark present that was
            found.
        ValueError: for an unknown criterion or a weight that is not positive.

    Example:
        >>> scores = torch.tensor([[0.9, 0.8], [0.7, 0.9], [0.2, 0.7]])
        >>> presence_thresholds(scores, torch.tensor([[True, True], [True, True], [False, True]]))
        tensor([0.4500, 0.4500], dtype=torch.float64)
    """
    look_up_option(criterion, CRITERIA)
    if not 0 < false_positive_weight < float("inf"):
        raise ValueError(f"false_positive_weight must be a positive number, got {false_positive_weight!r}.")
    scores, there = _checked(confidence, present)
    pooled = _best_cut(scores.reshape(-1, 1), there.reshape(-1, 1), criterion, false_positive_weight)[0]
    if not per_landmark:
        return pooled
    own = _best_cut(scores, there, criterion, false_positive_weight)
    return torch.where(there.all(dim=0) | ~there.any(dim=0), pooled, own)


def usual_confidence(confidence: Any, present: Any) -> torch.Tensor:
    """Return how high each landmark's channel answers where the landmark is there: the median of validation data.

    The peak of a Gaussian of fixed integral falls with its width (SCN eq. 1), and widths are learnt per landmark, so the
    channels of one network answer differently high. Divided by this, confidences of different landmarks can be compared.

    Args:
        confidence: ``(M, N)`` of M validation cases; NaN where nothing was found, and so is 0 or less, the maximum of a
            heatmap without a peak.
        present: bool ``(M, N)``.

    Returns:
        float64 ``(N,)``; a landmark that was never there and found gets the median of all.

    Raises:
        LandmarkError: as :func:`presence_thresholds`.

    Example:
        >>> present = torch.tensor([[True, True], [True, False], [True, False]])
        >>> usual_confidence(torch.tensor([[0.75, 0.5], [0.5, 0.125], [1.0, 0.25]]), present).tolist()
        [0.75, 0.5]
    """
    scores, there = _checked(confidence, present)
    seen = scores.masked_fill(~there | (scores <= 0), torch.nan)
    return seen.nanmedian(dim=0).values.nan_to_num(nan=float(seen.nanmedian()))


def _checked(confidence: Any, present: Any) -> tuple[torch.Tensor, torch.Tensor]:
    scores = plain_tensor(torch.as_tensor(confidence)).detach().cpu().double()
    there = plain_tensor(torch.as_tensor(present)).detach().cpu()
    if there.dtype != torch.bool:
        raise LandmarkError(
            f"`present` must be bool, got {there.dtype}: for true points use monai_landmarks.geometry.present(points)."
        )
    if scores.ndim != 2 or scores.shape != there.shape:
        raise LandmarkError(
            f"confidence and present must both be (M, N), cases by landmarks; got {tuple(scores.shape)} and "
            f"{tuple(there.shape)}."
        )
    if bool(scores.isinf().any()):
        raise LandmarkError(
            "a confidence is infinite: divide by the right number, or write NaN where nothing was found."
        )
    if not bool((there & ~scores.isnan()).any()):
        raise LandmarkError(
            f"the validation data, {scores.shape[0]} cases of {scores.shape[1]} landmarks, hold no landmark that is "
            "present and was found: no threshold can be chosen. Are truth and predictions of the same cases?"
        )
    return scores, there


def _best_cut(scores: torch.Tensor, there: torch.Tensor, criterion: str, false_positive_weight: float) -> torch.Tensor:
    """Find the best threshold of each column of ``(M, N)``."""
    order = scores.nan_to_num(nan=-torch.inf).sort(dim=0)
    score, truth = order.values, there.gather(0, order.indices).double()
    nothing = truth.new_zeros(1, truth.shape[1])
    # Row k: the k lowest are called absent.
    missed = torch.cat([nothing, truth.cumsum(dim=0)])
    kept = torch.cat([nothing, (1 - truth).cumsum(dim=0)])
    invented = kept[-1] - kept
    if criterion == "balanced":
        missed, invented = missed / missed[-1].clamp_min(1), invented / kept[-1].clamp_min(1)
    wrong = missed + false_positive_weight * invented
    infinite = torch.full_like(nothing, torch.inf)
    below, above = torch.cat([-infinite, score]), torch.cat([score, infinite])
    gap = above - below
    possible = (gap > 0) & ~(above == -torch.inf)  # also False for the NaN between two that were not found
    wrong = torch.where(possible, wrong, torch.inf)
    least = wrong.amin(dim=0)
    # Sums of rates differ in their last bits where they are equal.
    best = wrong <= least + 1e-9
    width = torch.where(best, gap.nan_to_num(nan=-1.0).where(gap.isfinite(), torch.zeros(())), -1.0)
    row = width.argmax(dim=0, keepdim=True)
    low, high = below.gather(0, row)[0], above.gather(0, row)[0]
    after = torch.nextafter(low, torch.full_like(low, torch.inf))
    return torch.where(high.isinf(), after, torch.where(low.isinf(), high.clamp(max=0.0), (low + high) / 2))


def save_presence_thresholds(path: str | os.PathLike[str], thresholds: Any, names: Sequence[str]) -> None:
    """Write thresholds with the names of their landmarks as JSON.

    Args:
        path: of the file.
        thresholds: one number, which is written for all, or one per name.
        names: of the landmarks.

    Raises:
        LandmarkError: for repeated names or another number of thresholds.
    """
    check_names(names, "the list of thresholds", least=1)
    limits = check_thresholds(thresholds)
    if limits.ndim and len(limits) != len(names):
        raise LandmarkError(f"{len(limits)} thresholds for {len(names)} names: one for each is expected.")
    content = {"kind": KIND, "version": 1, "names": list(names), "thresholds": limits.expand(len(names)).tolist()}
    with atomic_write(path) as temporary:
        dump_json(content, temporary)


def load_presence_thresholds(path: str | os.PathLike[str], names: Sequence[str]) -> torch.Tensor:
    """Read thresholds ``(N,)`` for landmarks with these names.

    Args:
        path: of the JSON file.
        names: which the file must have, in this order.

    Raises:
        FileNotFoundError: if there is no such file.
        LandmarkError: if it is no such file, damaged, or for other names.
    """
    content = load_json(require_file(path, "file of presence thresholds"))
    if not isinstance(content, dict) or content.get("kind") != KIND or content.get("version") != 1:
        raise LandmarkError(
            f"{str(path)!r} holds no presence thresholds of version 1; write them with save_presence_thresholds."
        )
    if list(names) != content.get("names"):
        raise LandmarkError(
            f"{str(path)!r} has thresholds for {content.get('names')}, wanted are {list(names)}: thresholds belong to the "
            "network they were chosen with."
        )
    values = content.get("thresholds")
    if not isinstance(values, list) or len(values) != len(names) or not all(_is_number(v) for v in values):
        raise LandmarkError(
            f"{str(path)!r} is damaged: its 'thresholds' are {values!r}, one number per name is expected."
        )
    return check_thresholds(values)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
