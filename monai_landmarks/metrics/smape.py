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
"""Numbers of the spine film papers: SMAPE of Cobb angles, and mean squared error and correlation of image fractions."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from monai_landmarks.geometry import LandmarkError, check_points, present

from .functional import finite_mean, plain
from .measurement_error import MeasurementErrorMetric

__all__ = ["SMAPEMetric", "film_smape", "fraction_mse", "fraction_pearson", "smape"]


def film_smape(pred: Any, true: Any) -> torch.Tensor:
    r"""Measure the relative error of each film's angles, in per cent.

    .. math:: 100 \, \frac{\sum_k |\hat a_k - a_k|}{\sum_k (|\hat a_k| + |a_k|)}

    with both sums over the angles of the film, as the AASCE 2019 challenge takes it: a film's small angles weigh little,
    and it is not the mean of three percentages. The value lies between 0 and 100; the usual factor 2 is absent.

    Args:
        pred: predicted angles ``(..., K)``, array or tensor.
        true: true angles of the same shape.

    Returns:
        float64 ``(...)``: NaN where a true angle is NaN, ``inf`` where only a predicted one is: a miss. 0 where all angles
        are 0.

    Raises:
        LandmarkError: for shapes that differ.

    Example:
        >>> film_smape([[30.0, 10.0, 0.0]], [[20.0, 20.0, 20.0]])
        tensor([40.], dtype=torch.float64)
    """
    pred, true = plain(pred), plain(true)
    if pred.shape != true.shape or pred.ndim == 0:
        raise LandmarkError(
            f"predicted and true angles must have the same shape (..., K), K angles of a film, got {tuple(pred.shape)} and "
            f"{tuple(true.shape)}."
        )
    true = true.to(pred.device)
    difference, whole = (pred - true).abs().sum(-1), (pred.abs() + true.abs()).sum(-1)
    error = torch.where(whole > 0, 100 * difference / whole, difference)
    error = torch.where(torch.isfinite(pred).all(-1), error, torch.inf)
    return torch.where(torch.isfinite(true).all(-1), error, torch.nan)


def smape(pred: Any, true: Any) -> torch.Tensor:
    """Give the symmetric mean absolute percentage error of the AASCE 2019 challenge: the mean of :func:`film_smape`.

    Args:
        pred: predicted angles ``(B, K)``, three per film in the challenge.
        true: true angles of the same shape.

    Returns:
        float64 scalar, per cent, over the films whose angles are all there in both; NaN without any. How many predictions
        lack an angle belongs beside it: :class:`SMAPEMetric` counts them.

    Raises:
        LandmarkError: for shapes that differ.

    Example:
        >>> smape([[30.0, 10.0, 0.0], [5.0, 5.0, 5.0]], [[20.0, 20.0, 20.0], [5.0, 5.0, 5.0]]).item()
        20.0
    """
    return finite_mean(film_smape(pred, true).reshape(-1), 0)


class SMAPEMetric(MeasurementErrorMetric):
    """Accumulate the Cobb angles of films and give their SMAPE, see :func:`smape`.

    ``metric(y_pred, y)`` takes angles, not points: ``(B, K)`` or a list of ``(K,)``. The returned value and the buffer are
    the films' errors ``(B, 1)`` of :func:`film_smape`. Films whose truth lacks an angle count nowhere; ``num_missed`` counts
    those whose prediction does, which the mean leaves out.

    Example:
        >>> metric = SMAPEMetric()
        >>> _ = metric(y_pred=[torch.tensor([30.0, 10.0, 0.0])], y=[torch.tensor([20.0, 20.0, 20.0])])
        >>> metric.aggregate().item(), metric.num_missed
        (40.0, 0)
    """

    unit: ClassVar[str] = "%"

    def __init__(self) -> None:
        super().__init__(film_smape)

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> list[torch.Tensor]:
        if kwargs:
            raise TypeError(f"angles are compared without {', '.join(kwargs)}.")
        if y is None:
            raise LandmarkError("the true angles `y` are needed beside the predicted ones.")
        if y_pred.ndim != 2:
            raise LandmarkError(
                f"a batch of angles must have shape (B, K), got {tuple(y_pred.shape)}. Are these points? Measure them with "
                "`measurements.cobb_angles` first; for one film pass `[angles]`."
            )
        table = self.error(y_pred, y).unsqueeze(-1)
        return [table, torch.full_like(table, torch.nan)]


def fraction_mse(pred: Any, true: Any, size: Any) -> torch.Tensor:
    r"""Give the mean squared error of landmarks as fractions of the image, the MSE of BoostNet's and FARNet's tables.

    .. math:: \frac{1}{2 n} \sum_{i=1}^{n} \left( \frac{(\hat x_i - x_i)^2}{W^2} + \frac{(\hat y_i - y_i)^2}{H^2} \right)

    over all landmarks of all films. FARNet's paper (Ao and Wu 2022, table 3) prints no formula; it says that 0.010 is an
    average of 10 pixels in an image of 100 x 100, which fits the square of 10/100, per coordinate or per point alike. Read
    the number with its floor in mind: on the AASCE films the mean shape of the others, predicted for a held-out fifth,
    reaches 0.0071 here; the paper's weakest row has 0.006.

    Args:
        pred: predicted points ``(..., N, D)``.
        true: true points, the same shape. NaN for missing.
        size: extent of the image along the axes, in the unit of the points: ``(D,)`` or one row per image ``(..., D)``;
            1 where the points are fractions.

    Returns:
        float64 scalar over the landmarks that both have; NaN without any.

    Raises:
        LandmarkError: for shapes that differ, or a size that is not positive.

    Example:
        >>> fraction_mse([[[10.0, 10.0]]], [[[0.0, 0.0]]], size=(100, 100)).item()
        0.010000...
    """
    difference = torch.sub(*_fractions(pred, true, size))
    return difference.square().mean() if difference.numel() else difference.sum() * torch.nan


def fraction_pearson(pred: Any, true: Any, size: Any) -> torch.Tensor:
    """Give Pearson's correlation between predicted and true landmarks as fractions of the image, the rho of the papers.

    All coordinates of all landmarks and films, x and y together, are two long vectors; the papers do not say how they are
    arranged. Read the number with its floor in mind: on the AASCE films the mean shape of the others, predicted for a
    held-out fifth, reaches 0.92.

    Args:
        pred: predicted points ``(..., N, D)``.
        true: true points, the same shape. NaN for missing.
        size: see :func:`fraction_mse`.

    Returns:
        float64 scalar, -1 to 1, over the landmarks that both have; NaN for less than two different values.

    Raises:
        LandmarkError: as :func:`fraction_mse`.

    Example:
        >>> true = torch.rand(2, 5, 2)
        >>> round(fraction_pearson(2 * true, true, size=1).item(), 6)
        1.0
    """
    pred, true = (values - values.mean() for values in _fractions(pred, true, size))
    return (pred * true).sum() / (pred.square().sum() * true.square().sum()).sqrt()


def _fractions(pred: Any, true: Any, size: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Both as fractions ``(n, D)``, the landmarks that both have."""
    pred, true = plain(pred), plain(true)
    if pred.shape != true.shape:
        raise LandmarkError(
            f"predicted and true points must have the same shape, got {tuple(pred.shape)} and {tuple(true.shape)}."
        )
    check_points(true, name="true")
    true, extent = true.to(pred.device), plain(size).to(pred.device)
    if not bool((extent > 0).all()):
        raise LandmarkError("`size` must be the positive extent of the image along each axis.")
    extent = extent.unsqueeze(-2) if extent.ndim else extent
    both = present(true) & torch.isfinite(pred).all(-1)
    return (pred / extent)[both], (true / extent)[both]
