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
"""Distances between predicted and true landmarks, and the rates that published tables are made of.

The value that travels between all functions here is the *error table*, a float64 tensor ``(B, N)``:

* a finite number: the distance between prediction and truth;
* ``NaN``: nothing is evaluated, because the truth does not have this landmark, or because it lies outside the image
  and such landmarks were to be left out;
* ``inf``: the truth has the landmark and the prediction does not: a miss.

Misses are never dropped in silence. Rates count them as failures. Means, standard deviations and medians of a distance
cannot include an infinite one: they are taken over the landmarks found, and the number of misses is reported beside
them. Nor are landmarks outside the image: who leaves them out (``state``) gets their table from
:func:`outside_truths` and their number in every summary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.utils import convert_to_tensor, look_up_option

from monai_landmarks.geometry import LandmarkError, check_points, present
from monai_landmarks.geometry.field_of_view import FieldOfView, check_state

__all__ = [
    "RELATIVE_TOLERANCE",
    "image_level_errors",
    "outlier_rate",
    "outside_truths",
    "radial_errors",
    "reduce_radial_errors",
    "successful_detection_rate",
]

#: Distances whose relative difference to a threshold is below this are ties. Points that passed through float32 (world
#: coordinates up to 250 mm) carry a rounding of up to 1e-5 of a 2 mm threshold; the nearest distance to 20 pixels that
#: two points on a half-pixel lattice can have differs by 3e-4. The value lies between and repairs rounding only.
RELATIVE_TOLERANCE = 1e-5

REDUCTIONS = ("micro", "macro", "median", "std", "per_landmark", "none")
DETECTED = ("<=", "<")
OUTLYING = (">", ">=")


def plain(values: Any) -> torch.Tensor:
    """Give a detached float64 tensor without meta data. Backends without float64 hand over to the CPU."""
    if isinstance(values, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in values):
        return torch.stack([plain(v) for v in values])
    # Bare sequences through NumPy: torch would read Python floats as float32.
    values = values if isinstance(values, torch.Tensor) else np.array(values, dtype=np.float64)
    tensor: torch.Tensor = convert_to_tensor(values, track_meta=False).detach()
    tensor = tensor.cpu() if tensor.device.type == "mps" else tensor
    return tensor.to(torch.float64)


def check_errors(errors: Any) -> torch.Tensor:
    """Give an error table as float64, refusing what cannot be one."""
    table = plain(errors)
    if table.ndim == 0:
        raise LandmarkError("`errors` must be a table (B, N) of distances, got a single number.")
    if bool((table < 0).any()):
        raise LandmarkError(
            f"`errors` holds the negative distance {table[table < 0][0].item():g}: pass the result of radial_errors, "
            "not differences of coordinates."
        )
    return table


def radial_errors(pred: Any, true: Any, spacing: Any = None, state: Any = None) -> torch.Tensor:
    """Measure the Euclidean distance of each predicted landmark to the true one.

    ``e = || spacing * (pred - true) ||_2``, computed in float64 whatever the inputs are.

    Args:
        pred: predicted points ``(B, N, D)`` (any leading axes), array or tensor. A landmark with a coordinate that is
            not finite counts as not found.
        true: true points of the same shape. A missing landmark is NaN in all coordinates.
        spacing: millimetres per step of an index, where the points are voxel indices: a number, ``(D,)`` or one row per
            image ``(B, D)``. None: the points are in the unit that the errors shall have.
        state: where the true landmarks are as seen from the image, ``(B, N)`` of
            :class:`~monai_landmarks.geometry.field_of_view.FieldOfView`; those outside are left out of the table and
            counted by :func:`outside_truths`. None evaluates them like the others.

    Returns:
        error table ``(B, N)``, float64: NaN where the truth has no landmark or one that is left out, ``inf`` where only
        the prediction has none.

    Raises:
        LandmarkError: for shapes that differ, a truth that breaks the rule for missing landmarks, a state that
            contradicts it, or a spacing that does not fit or is not positive.

    Example:
        >>> nan = float("nan")
        >>> radial_errors([[[3.0, 4.0], [1.0, 1.0], [nan, nan]]], [[[0.0, 0.0], [nan, nan], [5.0, 5.0]]])
        tensor([[5., nan, inf]], dtype=torch.float64)
    """
    pred, true = plain(pred), plain(true)
    if pred.shape != true.shape:
        raise LandmarkError(_explain_shapes(tuple(pred.shape), tuple(true.shape)))
    check_points(true, name="true")
    difference = pred - true.to(pred.device)
    if spacing is not None:
        difference = difference * spacing_of(spacing, difference)
    errors = torch.linalg.vector_norm(difference, dim=-1)
    infinite = torch.full_like(errors, float("inf"))
    errors = torch.where(torch.isfinite(pred).all(dim=-1), errors, infinite)
    scored = present(true) if state is None else present(true) & ~outside_truths(true, state)
    return torch.where(scored.to(pred.device), errors, torch.full_like(errors, float("nan")))


def outside_truths(true: Any, state: Any) -> torch.Tensor:
    """Tell which true landmarks lie outside the image: known, and not to be seen there.

    Args:
        true: true points ``(..., N, D)``, NaN for missing.
        state: ``(..., N)`` of :class:`~monai_landmarks.geometry.field_of_view.FieldOfView`.

    Returns:
        bool tensor ``(..., N)``.

    Raises:
        LandmarkError: for a state that is not that of these points, see
            :func:`~monai_landmarks.geometry.field_of_view.check_state`.

    Example:
        >>> outside_truths([[[5.0, 2.0], [1.0, 2.0]]], [[FieldOfView.OUTSIDE, FieldOfView.INSIDE]])
        tensor([[ True, False]])
    """
    return check_state(state, plain(true)) == FieldOfView.OUTSIDE


def reduce_radial_errors(errors: Any, reduction: str = "micro", missed_error: float | None = None) -> torch.Tensor:
    """Reduce an error table to the number (or numbers) of a table in a paper.

    Args:
        errors: error table ``(B, N)``.
        reduction: ``"micro"``: mean over all landmarks found, the mean radial error (MRE) of most papers; ``"macro"``:
            mean per image, then over images, so that an image with few landmarks weighs as much as a full one;
            ``"median"`` and ``"std"``: over all landmarks found, the standard deviation with divisor n, which is what
            reproduces the published ISBI 2015 reader figures; ``"per_landmark"``: mean of each landmark, ``(N,)``;
            ``"none"``: the table.
        missed_error: distance to count for a miss, for example the image's diagonal. None leaves misses out, in which
            case their number belongs beside the result.

    Returns:
        float64 tensor. NaN where nothing was evaluated: MONAI's ``do_metric_reduction`` gives 0 there, which reads as a
        perfect result.

    Raises:
        ValueError: for an unknown reduction.

    Example:
        >>> reduce_radial_errors([[1.0, 2.0, 3.0], [4.0, float("nan"), float("nan")]], "micro").item()
        2.5
        >>> reduce_radial_errors([[1.0, 2.0, 3.0], [4.0, float("nan"), float("nan")]], "macro").item()
        3.0
    """
    reduction = look_up_option(reduction, REDUCTIONS)
    table = check_errors(errors)
    if missed_error is not None:
        table = torch.where(torch.isinf(table), torch.full_like(table, float(missed_error)), table)
    if reduction == "none":
        return table
    if reduction == "macro":
        return finite_mean(image_level_errors(table), 0)
    if reduction == "per_landmark":
        return finite_mean(table.reshape(-1, table.shape[-1]), 0)
    statistic = {"micro": finite_mean, "median": finite_median, "std": finite_std}[reduction]
    return statistic(table.reshape(-1), 0)


def image_level_errors(errors: Any) -> torch.Tensor:
    """Average the errors of each image over the landmarks found in it: the image-level point error (IPE) of SCN.

    Payer et al. 2019 (Medical Image Analysis), eq. 7. Their program divides by the number of all landmarks, also
    where the truth has only some of them, which understates the error of such images; here the divisor is the number of
    landmarks found.

    Args:
        errors: error table ``(B, N)``.

    Returns:
        float64 tensor ``(B,)``, NaN for an image in which nothing was found.

    Example:
        >>> image_level_errors([[2.0, 4.0], [6.0, float("nan")]])
        tensor([3., 6.], dtype=torch.float64)
    """
    return finite_mean(check_errors(errors), -1)


def successful_detection_rate(
    errors: Any,
    thresholds: float | Sequence[float],
    comparator: str = "<=",
    per_landmark: bool = False,
    tolerance: float = RELATIVE_TOLERANCE,
) -> torch.Tensor:
    """Give the percentage of evaluated landmarks that lie within each threshold, the SDR of cephalometric papers.

    ``SDR(t) = 100 * #{e <= t} / #{e evaluated}``, Wang et al. 2016 (Medical Image Analysis). A miss is a failure; a
    landmark that the truth lacks counts nowhere. Whether a distance of exactly ``t`` counts differs between published
    programs (``<=`` in most, ``<`` in some), so the comparator belongs to the number. Ties survive rounding: a distance
    within ``tolerance * t`` of ``t`` is taken to be ``t``, hence counted by ``"<="`` and not by ``"<"``.

    Args:
        errors: error table ``(B, N)``.
        thresholds: one or several radii, in the unit of the errors.
        comparator: ``"<="`` or ``"<"``.
        per_landmark: rates of each landmark over the images instead of one over all.
        tolerance: relative half-width of a tie, 0 for bare floating-point comparison.

    Returns:
        percentages, float64: scalar for one threshold, ``(T,)`` for several, a last axis ``N`` with ``per_landmark``.
        NaN where nothing was evaluated.

    Raises:
        ValueError: for an unknown comparator, a threshold that is not positive or a negative tolerance.

    Example:
        >>> errors = [[1.0, 2.0, float("inf"), float("nan")]]
        >>> [round(v, 2) for v in successful_detection_rate(errors, (1.5, 2.0)).tolist()]
        [33.33, 66.67]
        >>> round(successful_detection_rate(errors, 2.0, comparator="<").item(), 2)
        33.33
    """
    return _rate(errors, thresholds, look_up_option(comparator, DETECTED), False, per_landmark, tolerance)


def outlier_rate(
    errors: Any,
    thresholds: float | Sequence[float],
    comparator: str = ">",
    per_landmark: bool = False,
    tolerance: float = RELATIVE_TOLERANCE,
) -> torch.Tensor:
    """Give the percentage of evaluated landmarks that lie outside each threshold, the outlier rate of SCN.

    ``#O_r = 100 * #{e > r} / #{e evaluated}``, Payer et al. 2019 (Medical Image Analysis), eq. 6, who write ``>``
    while their program counts ``>=``. A miss is an outlier; a landmark that the truth lacks counts nowhere.
    ``outlier_rate(..., ">")`` and ``successful_detection_rate(..., "<=")`` add up to 100, as do ``">="`` and ``"<"``.

    Args:
        errors: error table ``(B, N)``.
        thresholds: one or several radii, in the unit of the errors.
        comparator: ``">"`` or ``">="``.
        per_landmark: rates of each landmark over the images instead of one over all.
        tolerance: relative half-width of a tie, see :func:`successful_detection_rate`.

    Returns:
        percentages as :func:`successful_detection_rate` gives them.

    Raises:
        ValueError: for an unknown comparator, a threshold that is not positive or a negative tolerance.

    Example:
        >>> errors = [[1.0, 2.0, float("inf"), float("nan"), 3.0]]
        >>> outlier_rate(errors, (2.0, 4.0)).tolist()
        [50.0, 25.0]
    """
    detected = {">": "<=", ">=": "<"}[look_up_option(comparator, OUTLYING)]
    return _rate(errors, thresholds, detected, True, per_landmark, tolerance)


def check_thresholds(thresholds: Any) -> tuple[float, ...]:
    """Give thresholds as positive finite numbers, or say which is not."""
    values = tuple(
        float(t) for t in (thresholds if isinstance(thresholds, (Sequence, torch.Tensor)) else (thresholds,))
    )
    wrong = [t for t in values if not 0 < t < float("inf")]
    if wrong or not values:
        raise ValueError(f"thresholds must be positive distances, such as (2, 2.5, 3, 4) mm, got {wrong or 'none'}.")
    return values


def within(table: torch.Tensor, radii: Any, comparator: str, tolerance: float = RELATIVE_TOLERANCE) -> torch.Tensor:
    """Compare with ties that survive rounding, the same width on both sides; NaN and inf are never within."""
    return table <= radii * (1 + tolerance) if comparator == "<=" else table < radii * (1 - tolerance)


def finite_mean(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Mean of the finite entries; NaN without any."""
    finite = torch.isfinite(values)
    return torch.where(finite, values, torch.zeros_like(values)).sum(dim) / finite.sum(dim)


def finite_std(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Standard deviation (divisor n) of the finite entries; NaN without any."""
    return finite_mean((values - finite_mean(values, dim).unsqueeze(dim)).square(), dim).sqrt()


def finite_median(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Median of the finite entries, the mean of the middle two for an even count; NaN without any."""
    ordered = torch.where(torch.isfinite(values), values, torch.full_like(values, float("inf"))).sort(dim).values
    count = torch.isfinite(values).sum(dim, keepdim=True)
    if ordered.shape[dim] == 0:
        return finite_mean(values, dim)
    # Index 0 stands in where nothing is finite; the value there is replaced by NaN below.
    low, high = (ordered.gather(dim, ((count - 1 + k) // 2).clamp_min(0)) for k in (0, 1))
    nothing = torch.full_like(low, float("nan"))
    return torch.where(count > 0, (low + high) / 2, nothing).squeeze(dim)


def _rate(
    errors: Any,
    thresholds: float | Sequence[float],
    comparator: str,
    outside: bool,
    per_landmark: bool,
    tolerance: float,
) -> torch.Tensor:
    if not 0 <= tolerance < 1:
        raise ValueError(f"`tolerance` is relative to the threshold and must lie in [0, 1), got {tolerance}.")
    table = check_errors(errors)
    radii = torch.tensor(check_thresholds(thresholds), dtype=torch.float64, device=table.device)
    table = table.reshape(-1, table.shape[-1] if per_landmark else 1)
    inside = within(table, radii.reshape(-1, 1, 1), comparator, tolerance)
    evaluated = ~torch.isnan(table)
    counted = (evaluated & ~inside) if outside else inside
    rates = 100.0 * counted.sum(1, dtype=torch.float64) / evaluated.sum(0)
    rates = rates if per_landmark else rates.squeeze(-1)
    return rates if isinstance(thresholds, (Sequence, torch.Tensor)) else rates.squeeze(0)


def spacing_of(spacing: Any, difference: torch.Tensor) -> torch.Tensor:
    """Give millimetres per index as a factor of points or of their differences, refusing what does not fit them."""
    size = plain(spacing).to(difference.device)
    if not bool((torch.isfinite(size) & (size > 0)).all()):
        raise LandmarkError(f"`spacing` must be positive millimetres, got {size.tolist()}.")
    if size.ndim == 2:
        size = size.unsqueeze(1)
    fits = size.ndim == 0 or (
        size.shape[-1] == difference.shape[-1] and (size.ndim == 1 or size.shape[0] == difference.shape[0])
    )
    if size.ndim > 3 or not fits:
        raise LandmarkError(
            f"`spacing` must be one number, (D,) or (B, D) for points {tuple(difference.shape)}, got the shape "
            f"{tuple(size.shape)}."
        )
    return size


def _explain_shapes(pred: tuple[int, ...], true: tuple[int, ...]) -> str:
    text = f"predicted and true points must have the same shape (B, N, D), got {pred} and {true}"
    if len(pred) != len(true):
        return f"{text}: one of them lacks the batch axis or has a channel axis too many."
    if pred[-1:] == true[-1:] and pred[-2:-1] != true[-2:-1]:
        return (
            f"{text}: {pred[-2]} landmarks are predicted and {true[-2]} are true. Keep missing landmarks as NaN, or "
            "reorder both by name."
        )
    if pred[-2:] == true[-2:]:
        return f"{text}: the numbers of images differ."
    return f"{text}: they differ in dimension, or the last two axes are exchanged."
