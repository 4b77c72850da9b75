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
"""One frozen record of everything that is said about an error table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from monai_landmarks.geometry import LandmarkError

from .functional import check_errors, finite_mean, finite_median, finite_std, image_level_errors, plain

__all__ = ["RadialErrorSummary", "summarize_radial_errors"]


@dataclass(frozen=True)
class RadialErrorSummary:
    """What an error table says, in the unit of the table (millimetres in this package's protocols).

    All means, medians and standard deviations (divisor n) are over the landmarks found; NaN where there is none.

    Attributes:
        mean: mean over all landmarks of all images (micro), the usual mean radial error.
        std: standard deviation belonging to ``mean``.
        median: median over all landmarks of all images.
        image_mean: mean over images of each image's mean (macro).
        image_std: standard deviation of the images' means.
        names: landmark names, ``"0"``, ``"1"``, ... where none were given.
        landmark_mean: mean of each landmark over the images.
        landmark_std: standard deviation of each landmark over the images.
        landmark_median: median of each landmark over the images.
        landmark_evaluated: how many images have this landmark in the truth.
        landmark_missed: how many of those have no prediction.
        landmark_outside: in how many images this landmark lies outside and was left out.
        image_errors: mean of each image over its landmarks.
        num_images: number of images.
        num_landmarks: number of landmarks per image.
        num_evaluated: landmarks that the truth has: found and missed ones together.
        num_missed: landmarks that the truth has and the prediction has not.
        num_outside: landmarks that the truth has outside the image and that were left out; not among the evaluated.
        num_missing: landmarks that the truth has not, which count nowhere. Evaluated, outside and missing ones are all
            that there are.
    """

    mean: float
    std: float
    median: float
    image_mean: float
    image_std: float
    names: tuple[str, ...]
    landmark_mean: tuple[float, ...]
    landmark_std: tuple[float, ...]
    landmark_median: tuple[float, ...]
    landmark_evaluated: tuple[int, ...]
    landmark_missed: tuple[int, ...]
    landmark_outside: tuple[int, ...]
    image_errors: tuple[float, ...]
    num_images: int
    num_landmarks: int
    num_evaluated: int
    num_missed: int
    num_outside: int
    num_missing: int

    def to_dict(self) -> dict[str, Any]:
        """Give plain numbers and lists that every JSON reader takes: NaN becomes None.

        Example:
            >>> summarize_radial_errors([[1.0, float("nan")]]).to_dict()["landmark_mean"]
            [1.0, None]
        """
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    def __str__(self) -> str:
        text = f"{self.mean:.3f} ± {self.std:.3f}, median {self.median:.3f} (n = {self.num_evaluated}"
        text += f", {self.num_missed} of them missed and not in the mean" if self.num_missed else ""
        text += f", {self.num_outside} outside the field of view and not scored" if self.num_outside else ""
        return text + (f", {self.num_missing} without truth)" if self.num_missing else ")")


def summarize_radial_errors(errors: Any, names: Sequence[str] | None = None, outside: Any = None) -> RadialErrorSummary:
    """Summarise an error table over all points, per image and per landmark, with the counts that belong to it.

    Args:
        errors: error table ``(B, N)`` of :func:`radial_errors`.
        names: ``N`` landmark names.
        outside: bool ``(B, N)``, the landmarks that were left out because they lie outside the image, as
            :func:`outside_truths` gives it. None: there is none.

    Returns:
        the summary. Misses are left out of means, medians and standard deviations and counted in ``num_missed``.

    Raises:
        LandmarkError: if ``errors`` is not a table ``(B, N)``, the names do not fit, or a landmark has an error
            although ``outside`` says that it was left out.

    Example:
        >>> summary = summarize_radial_errors([[1.0, 3.0], [2.0, float("inf")]], names=["sella", "nasion"])
        >>> print(summary)
        2.000 ± 0.816, median 2.000 (n = 4, 1 of them missed and not in the mean)
        >>> summary.landmark_mean
        (1.5, 3.0)
    """
    table = check_errors(errors).cpu()
    if table.ndim != 2:
        raise LandmarkError(f"`errors` must be a table (B, N), got shape {tuple(table.shape)}.")
    titles = tuple(str(n) for n in names) if names is not None else tuple(str(i) for i in range(table.shape[1]))
    if len(titles) != table.shape[1]:
        raise LandmarkError(f"the table has {table.shape[1]} landmarks, `names` has {len(titles)}.")
    evaluated, missed, left_out = ~torch.isnan(table), torch.isinf(table), check_outside(outside, table)
    per_image, flat = image_level_errors(table), table.reshape(-1)
    return RadialErrorSummary(
        mean=float(finite_mean(flat, 0)),
        std=float(finite_std(flat, 0)),
        median=float(finite_median(flat, 0)),
        image_mean=float(finite_mean(per_image, 0)),
        image_std=float(finite_std(per_image, 0)),
        names=titles,
        landmark_mean=tuple(finite_mean(table, 0).tolist()),
        landmark_std=tuple(finite_std(table, 0).tolist()),
        landmark_median=tuple(finite_median(table, 0).tolist()),
        landmark_evaluated=tuple(evaluated.sum(0).tolist()),
        landmark_missed=tuple(missed.sum(0).tolist()),
        landmark_outside=tuple(left_out.sum(0).tolist()),
        image_errors=tuple(per_image.tolist()),
        num_images=table.shape[0],
        num_landmarks=table.shape[1],
        num_evaluated=int(evaluated.sum()),
        num_missed=int(missed.sum()),
        num_outside=int(left_out.sum()),
        num_missing=int((~evaluated & ~left_out).sum()),
    )


def check_outside(outside: Any, table: torch.Tensor) -> torch.Tensor:
    """Give the mask of landmarks left out as bool, all False for None, refusing one that is not of this table."""
    if outside is None:
        return torch.zeros(table.shape, dtype=torch.bool)
    mask = plain(outside).cpu().bool()
    if mask.shape != table.shape:
        raise LandmarkError(f"`outside` must have the table's shape {tuple(table.shape)}, got {tuple(mask.shape)}.")
    if not bool(torch.isnan(table[mask]).all()):
        raise LandmarkError(
            "a landmark that `outside` says is left out has an error in the table: make the table with "
            "radial_errors(..., state=state)."
        )
    return mask


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
