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
"""Mean radial error as a MONAI metric."""

from __future__ import annotations

import torch
from monai.utils import look_up_option

from .base import LandmarkMetric
from .functional import REDUCTIONS, reduce_radial_errors

__all__ = ["RadialErrorMetric"]


class RadialErrorMetric(LandmarkMetric):
    """Accumulate distances between predicted and true landmarks and reduce them, by default to their mean (MRE).

    See :class:`LandmarkMetric` for the inputs and :func:`reduce_radial_errors` for the reductions. Missing landmarks
    count nowhere, nor do those outside the image where a ``state`` comes along; misses are left out of the mean and
    counted in ``num_missed``, unless ``missed_error`` gives them a distance. Without any landmark the result is NaN.

    Args:
        reduction: ``"micro"``, ``"macro"``, ``"median"``, ``"std"``, ``"per_landmark"`` or ``"none"``.
        missed_error: distance to count for a miss. Where a model is chosen by its error and may predict nothing, choose
            one: without it the model that gives up on the difficult landmarks wins.

    Raises:
        ValueError: for an unknown reduction, or a ``missed_error`` that is not a positive distance.

    Example:
        >>> metric = RadialErrorMetric()
        >>> _ = metric(y_pred=[torch.tensor([[3.0, 4.0], [1.0, 1.0]])], y=[torch.tensor([[0.0, 0.0], [1.0, 2.0]])])
        >>> metric.aggregate().item(), metric.num_missed
        (3.0, 0)
    """

    higher_is_better = False
    unit = "mm"

    def __init__(self, reduction: str = "micro", missed_error: float | None = None) -> None:
        super().__init__()
        self.reduction = look_up_option(reduction, REDUCTIONS)
        if missed_error is not None and not 0 < missed_error < float("inf"):
            raise ValueError(f"`missed_error` must be a positive distance or None, got {missed_error}.")
        self.missed_error = missed_error

    def aggregate(self, reduction: str | None = None) -> torch.Tensor:
        """Reduce all tables seen since ``reset``, from all processes.

        Args:
            reduction: instead of the constructor's.

        Returns:
            float64 tensor as :func:`reduce_radial_errors` gives it.

        Raises:
            ValueError: if nothing was added yet.
        """
        return reduce_radial_errors(self.table(), reduction or self.reduction, self.missed_error)
