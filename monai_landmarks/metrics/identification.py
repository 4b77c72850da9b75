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
"""Whether a predicted landmark is the one that its name says: identification, the question of spine CT papers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from monai.utils import look_up_option

from monai_landmarks.geometry import LandmarkError, present

from .functional import RELATIVE_TOLERANCE, check_thresholds, finite_mean, plain, radial_errors, within

__all__ = ["IDENTIFICATION_RULES", "Identification", "IdentificationRule", "identification_rate", "identify"]


class IdentificationRule(NamedTuple):
    """What makes a landmark identified.

    Attributes:
        comparator: ``"<="`` or ``"<"``, how its distance is compared with the largest one.
        among_predicted: whether a truth without prediction is no candidate for the nearest one.
    """

    comparator: str
    among_predicted: bool


#: Name to rule, see :func:`identify`.
IDENTIFICATION_RULES = {
    "glocker": IdentificationRule("<=", among_predicted=False),
    "verse": IdentificationRule("<", among_predicted=False),
    "verse_program": IdentificationRule("<=", among_predicted=True),
}
IDENTIFICATION_REDUCTIONS = ("micro", "macro", "all_correct", "flawless", "per_landmark")


@dataclass(frozen=True, eq=False)
class Identification:
    """Tables ``(B, N)`` that say of each landmark whether it was identified, and where its prediction lies.

    Every true landmark that counts (``evaluated``) is either ``identified``, ``misidentified`` or ``missed``.

    Attributes:
        rule: name of the rule.
        max_distance: largest distance of an identified landmark.
        distance: of the prediction to its own truth, as :func:`radial_errors` gives it: NaN where the truth does not
            count, inf where it was not predicted.
        outside: bool, landmarks that do not count because they lie outside the image.
        nearest: index of the true landmark nearest to the prediction; -1 where there is no prediction or no truth.
        nearest_distance: to that landmark; NaN where there is no prediction, inf where there is no truth.
    """

    rule: str
    max_distance: float
    distance: torch.Tensor
    outside: torch.Tensor
    nearest: torch.Tensor
    nearest_distance: torch.Tensor

    @property
    def evaluated(self) -> torch.Tensor:
        """True landmarks that count: the denominator of every rate."""
        return ~torch.isnan(self.distance)

    @property
    def predicted(self) -> torch.Tensor:
        """Landmarks that have a prediction."""
        return ~torch.isnan(self.nearest_distance)

    @property
    def identified(self) -> torch.Tensor:
        """The nearest true landmark is the right one, and near enough."""
        own = torch.arange(self.nearest.shape[-1], device=self.nearest.device)
        return (self.nearest == own) & self._near(self.distance)

    @property
    def misidentified(self) -> torch.Tensor:
        """Evaluated and predicted, but not identified: on another landmark or too far off."""
        return self.evaluated & self.predicted & ~self.identified

    @property
    def missed(self) -> torch.Tensor:
        """Evaluated and not predicted: a false negative."""
        return self.evaluated & ~self.predicted

    @property
    def false_positive(self) -> torch.Tensor:
        """Predicted although the truth lacks this landmark. One whose truth lies outside the image is none."""
        return self.predicted & ~self.evaluated & ~self.outside

    @property
    def lies_on(self) -> torch.Tensor:
        """Index of the true landmark on which the prediction lies, within the largest distance; -1 for none."""
        return torch.where(self._near(self.nearest_distance), self.nearest, -1)

    def _near(self, distances: torch.Tensor) -> torch.Tensor:
        return within(distances, self.max_distance, IDENTIFICATION_RULES[self.rule].comparator)


def identify(
    pred: Any, true: Any, rule: str = "glocker", max_distance: float = 20.0, outside: Any = None
) -> Identification:
    """Tell which landmarks of an image were identified: found, and not taken for one of their neighbours.

    A true landmark is identified when the true landmark nearest to its prediction is that same one and the distance is
    at most ``max_distance``. One that was not predicted is not identified; a prediction without truth changes no rate
    and is counted (:attr:`Identification.false_positive`).

    * ``"glocker"``: Glocker et al. 2012 and 2013 (MICCAI), in the form of Payer et al. 2019 (Medical Image Analysis),
      eq. 8, and of their program: exactly 20 mm counts, although their text says "less than 20 mm".
    * ``"verse"``: the rule of the VerSe challenge as the task page of 2019 states it: less than 20 mm.
    * ``"verse_program"``: the rule of the evaluation program that the VerSe organisers published, which counts exactly
      20 mm and seeks the nearest truth among the vertebrae that were predicted: a prediction that lies on a missed
      neighbour, but within 20 mm, is identified.

    Of two true landmarks at the same distance, the right one is the nearest.

    Args:
        pred: predicted points ``(B, N, D)`` in world millimetres. A landmark with a coordinate that is not finite is
            not predicted.
        true: true points of the same shape. A missing landmark is NaN in all coordinates.
        rule: one of ``IDENTIFICATION_RULES``.
        max_distance: largest distance of an identified landmark, in the unit of the points.
        outside: bool ``(B, N)``, true landmarks outside the image. They do not count, nor do their predictions, but a
            prediction of another landmark may still lie on them.

    Returns:
        the tables.

    Raises:
        LandmarkError: for points that do not fit together, see :func:`radial_errors`, or are no batch.
        ValueError: for an unknown rule or a distance that is not positive.

    Example:
        >>> nan = float("nan")
        >>> true = [[[0.0, 0.0], [0.0, 30.0], [0.0, 60.0], [nan, nan]]]
        >>> pred = [[[0.0, 5.0], [0.0, 48.0], [nan, nan], [0.0, 90.0]]]
        >>> found = identify(pred, true)
        >>> found.identified.tolist()  # the second lies nearer to the third, which was missed
        [[True, False, False, False]]
        >>> found.lies_on.tolist(), found.false_positive.tolist()
        ([[0, 2, -1, -1]], [[False, False, False, True]])
    """
    rule = look_up_option(rule, tuple(IDENTIFICATION_RULES))
    (radius,) = check_thresholds(max_distance)
    pred, true = plain(pred), plain(true)
    true = true.to(pred.device)
    distance = radial_errors(pred, true)
    if pred.ndim != 3:
        raise LandmarkError(
            f"points must have shape (B, N, D), got {tuple(pred.shape)}: pass one image as `points[None]`."
        )
    left_out = (
        torch.zeros_like(distance, dtype=torch.bool) if outside is None else plain(outside).bool().to(pred.device)
    )
    if left_out.shape != distance.shape:
        raise LandmarkError(f"`outside` must have the shape {tuple(distance.shape)}, got {tuple(left_out.shape)}.")
    nearest, nearest_distance = _nearest(pred, true, IDENTIFICATION_RULES[rule].among_predicted)
    distance = torch.where(left_out, torch.nan, distance)
    return Identification(rule, radius, distance, left_out, nearest, nearest_distance)


def identification_rate(found: Identification, reduction: str = "micro") -> torch.Tensor:
    """Give the percentage of landmarks, or of images, that were identified.

    Args:
        found: tables of :func:`identify`.
        reduction: ``"micro"``: of all true landmarks of all images, the identification rate of Glocker et al. and of
            the VerSe task page; ``"macro"``: the mean over images of each image's rate; ``"all_correct"``: images whose
            true landmarks were all identified; ``"flawless"``: those of them without a false positive;
            ``"per_landmark"``: each landmark over the images, ``(N,)``.

    Returns:
        percentages, float64; NaN where no true landmark counts. Images without any are left out.

    Raises:
        ValueError: for an unknown reduction.

    Example:
        >>> found = identify([[[0.0, 0.0], [0.0, 30.0]], [[0.0, 0.0], [0.0, 0.0]]], [[[0.0, 0.0], [0.0, 30.0]]] * 2)
        >>> identification_rate(found).item(), identification_rate(found, "all_correct").item()
        (75.0, 50.0)
    """
    reduction = look_up_option(reduction, IDENTIFICATION_REDUCTIONS)
    hits, truths = found.identified.to(torch.float64), found.evaluated.to(torch.float64)
    if reduction == "micro":
        return 100 * hits.sum() / truths.sum()
    if reduction == "per_landmark":
        return 100 * hits.sum(0) / truths.sum(0)
    images = hits.sum(1) / truths.sum(1)
    if reduction == "macro":
        return 100 * finite_mean(images, 0)
    correct = images == 1
    if reduction == "flawless":
        correct = correct & ~found.false_positive.any(1)
    return 100 * correct.sum(dtype=torch.float64) / (~images.isnan()).sum()


def _nearest(pred: torch.Tensor, true: torch.Tensor, among_predicted: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the true landmark nearest to each prediction: index and distance, ``(B, N)``."""
    predicted = torch.isfinite(pred).all(-1)
    candidates = present(true) & predicted if among_predicted else present(true)
    # Distances by the usual matrix product lose the digits that ties need.
    distances = torch.cdist(pred, true, compute_mode="donot_use_mm_for_euclid_dist")
    distances = torch.where(candidates[:, None], distances, torch.inf)
    smallest, index = distances.min(-1)
    tied = distances.diagonal(dim1=-2, dim2=-1) <= smallest * (1 + RELATIVE_TOLERANCE)
    index = torch.where(tied, torch.arange(index.shape[-1], device=index.device), index)
    index = torch.where(predicted & torch.isfinite(smallest), index, -1)
    return index, torch.where(predicted, smallest, torch.nan)
