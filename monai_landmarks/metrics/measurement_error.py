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
"""Mean error of what is measured on landmarks, such as angles in degrees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch

from monai_landmarks.geometry import LandmarkError

from .base import LandmarkMetric
from .functional import finite_mean, plain

__all__ = ["MeasurementErrorMetric", "absolute_errors"]


def absolute_errors(pred: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Give ``|pred - true|``."""
    return (pred - true).abs()


class MeasurementErrorMetric(LandmarkMetric):
    """Accumulate the numbers measured on images and give the mean of their errors, in their own unit.

    ``metric(y_pred, y)`` takes numbers, not points: ``(B, ...)`` or a list of ``B``, of any number of axes, such as the
    seven angles of two legs ``(B, 2, 7)``; NaN for what could not be measured. The returned value and the buffer are the
    errors ``(B, E)``: NaN where the truth lacks the number, ``inf`` where only the prediction does: ``num_missed`` counts
    these, and the mean leaves them out.

    Args:
        error: called with predicted and true numbers, gives the errors ``(B, ...)``; by default the absolute difference. For
            angles take :func:`~monai_landmarks.measurements.angle_errors`.

    Example:
        >>> from monai_landmarks.measurements import angle_errors
        >>> metric = MeasurementErrorMetric(angle_errors)
        >>> _ = metric(y_pred=[torch.tensor([179.0, torch.nan])], y=[torch.tensor([-178.0, 90.0])])
        >>> metric.aggregate().item(), metric.num_missed
        (3.0, 1)
    """

    higher_is_better = False
    unit: ClassVar[str] = ""

    def __init__(self, error: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = absolute_errors) -> None:
        super().__init__()
        self.error = error

    def aggregate(self) -> torch.Tensor:
        """Give the mean over all images and numbers since ``reset``, from all processes.

        Returns:
            float64 scalar; NaN without a number to score.

        Raises:
            ValueError: if nothing was added yet.
        """
        return finite_mean(self.table().reshape(-1), 0)

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> list[torch.Tensor]:
        if kwargs:
            raise TypeError(f"measurements are compared without {', '.join(kwargs)}.")
        if y is None or y_pred.shape != y.shape:
            found = "none" if y is None else tuple(y.shape)
            raise LandmarkError(
                f"there must be a true number for each predicted one, got shapes {tuple(y_pred.shape)} and {found}."
            )
        pred, true = plain(y_pred), plain(y).to(y_pred.device)
        table = self.error(pred, true).where(torch.isfinite(pred), torch.inf).where(torch.isfinite(true), torch.nan)
        table = table.reshape(len(table), -1)
        return [table, torch.full_like(table, torch.nan)]
