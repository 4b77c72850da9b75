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
"""Corners of vertebrae become Cobb angles."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from monai.config import KeysCollection

from ..data.datasets.aasce import AASCE_LANDMARKS
from ..measurements.cobb import cobb_angles, corner_places
from .measure import MeasureLandmarks, MeasureLandmarksd

__all__ = ["CobbAngles", "CobbAnglesD", "CobbAnglesDict", "CobbAnglesd"]


class CobbAngles(MeasureLandmarks):
    """Measure the main, the proximal and the distal Cobb angle, by :func:`monai_landmarks.measurements.cobb_angles`.

    Args:
        names: of the ``N`` landmarks, vertebrae with their corners among them.
        film_height: in the unit of the points, for the challenge's choice among the smaller curves; 1000 in the world of
            ``aasce_datalist``. None takes the middle of the spine.

    Raises:
        LandmarkError: for names without vertebrae, or without one of their corners.
        ValueError: for a height that is not positive.

    Shapes: points ``(..., N, 2)`` in one unit along both axes, NaN for missing -> degrees ``(..., 3)``.

    Example:
        >>> names = [f"{v}_{c}" for v in ("L4", "L5") for c in ("top_left", "top_right", "bottom_left", "bottom_right")]
        >>> CobbAngles(names)([(0, 0), (2, 0), (0, 1), (2, 1), (0, 2), (2, 4), (-1, 3), (1, 5)])
        tensor([45.,  0.,  0.], dtype=torch.float64)
    """

    def __init__(self, names: Sequence[str] = AASCE_LANDMARKS, film_height: float | None = None) -> None:
        self.names = tuple(names)
        corner_places(self.names)  # raises
        if film_height is not None and not film_height > 0:
            raise ValueError(f"`film_height` must be positive, or None where it is not known, got {film_height}.")
        self.film_height = film_height
        super().__init__(partial(cobb_angles, names=self.names, film_height=film_height))


class CobbAnglesd(MeasureLandmarksd):
    """Measure the Cobb angles of the points under ``keys`` and put them under ``output_keys``.

    Dictionary version of :class:`CobbAngles`. Measure predicted and true points with the same names and height, then the
    angles compare.

    Args:
        keys: points ``(..., N, 2)``.
        output_keys: where the angles go, one for each key.
        names: see :class:`CobbAngles`.
        film_height: see :class:`CobbAngles`.
        allow_missing_keys: whether an item may lack one of ``keys``.

    Raises:
        ValueError: for two keys with the same output key.

    Example:
        >>> names = [f"{v}_{c}" for v in ("L4", "L5") for c in ("top_left", "top_right", "bottom_left", "bottom_right")]
        >>> import torch
        >>> item = {"pred_points": torch.full((8, 2), torch.nan)}
        >>> CobbAnglesd("pred_points", "pred_angles", names)(item)["pred_angles"]
        tensor([nan, nan, nan])
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_keys: KeysCollection,
        names: Sequence[str] = AASCE_LANDMARKS,
        film_height: float | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, output_keys, CobbAngles(names, film_height), allow_missing_keys)


CobbAnglesD = CobbAnglesDict = CobbAnglesd
