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
"""Points as fractions of their images: the mean squared error and the correlation of the spine film papers."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from monai.utils import look_up_option

from monai_landmarks.geometry import LandmarkError

from .base import LandmarkMetric, without_channel
from .functional import plain
from .smape import fraction_mse, fraction_pearson

__all__ = ["ImageFractionMetric"]

STATISTICS = {"mse": fraction_mse, "pearson": fraction_pearson}


class ImageFractionMetric(LandmarkMetric):
    """Accumulate 2D landmarks as fractions of their images, and give their mean squared error or correlation.

    All coordinates of all images count alike, so a film of another size or cut has the same weight: see
    :func:`fraction_mse` and :func:`fraction_pearson`. ``metric(y_pred, y, size=...)`` takes the points as
    :class:`LandmarkMetric` does, and the images' extents in the unit of the points, ``(B, 2)``. The returned value and the
    buffer are radial errors, in fractions. Landmarks that only the truth has are left out of the number;
    ``num_missed`` counts them.

    Args:
        statistic: ``"mse"`` or ``"pearson"``.

    Raises:
        ValueError: for another statistic.

    Example:
        >>> metric = ImageFractionMetric("mse")
        >>> true = torch.tensor([[10.0, 20.0], [40.0, 150.0]])
        >>> _ = metric(y_pred=[true + 10], y=[true], size=torch.tensor([[100.0, 200.0]]))
        >>> round(metric.aggregate().item(), 6)  # the mean of 0.1 ** 2 and 0.05 ** 2
        0.00625
    """

    unit: ClassVar[str] = ""
    _num_tables: ClassVar[int] = 6

    def __init__(self, statistic: str = "mse") -> None:
        super().__init__()
        self.statistic = look_up_option(statistic, tuple(STATISTICS))
        self.higher_is_better = statistic == "pearson"  # type: ignore[misc]

    def aggregate(self) -> torch.Tensor:
        """Give the statistic over all images since ``reset``, from all processes.

        Returns:
            float64 scalar; NaN without landmarks that prediction and truth both have.

        Raises:
            ValueError: if nothing was added yet.
        """
        self.table()  # raises
        _, _, *coordinates = super(LandmarkMetric, self).get_buffer()
        pred, true = torch.stack(coordinates, dim=-1).chunk(2, dim=-1)
        return STATISTICS[self.statistic](pred, true, 1)

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> list[torch.Tensor]:
        if y is None or kwargs.get("size") is None:
            raise LandmarkError(
                "the true points `y` and the images' extents `size` are needed beside the predicted ones."
            )
        pred, true, size = without_channel(plain(y_pred)), without_channel(plain(y)), plain(kwargs["size"])
        if size.shape != (len(pred), 2) or pred.shape[-1] != 2 or not bool((size > 0).all()):
            raise LandmarkError(
                f"`size` must be the positive extents of {len(pred)} images along both axes, one row for each of 2D points, "
                f"got shape {tuple(size.shape)} for points {tuple(pred.shape)}."
            )
        size = size.unsqueeze(1).to(pred.device)
        pred, true = pred / size, true.to(pred.device) / size
        return [*super()._compute_tensor(pred, true), *pred.unbind(-1), *true.unbind(-1)]
