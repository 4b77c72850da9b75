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
"""Points become the numbers that are read off them: angles, lengths, anything that a function computes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends

from .spatial import as_points, repeat_keys

__all__ = ["MeasureLandmarks", "MeasureLandmarksD", "MeasureLandmarksDict", "MeasureLandmarksd"]


class MeasureLandmarks(Transform):
    """Compute numbers from points by a function, such as those of :mod:`monai_landmarks.measurements`.

    Args:
        measure: called with the points as a tensor. What else it needs, such as the names of the landmarks, is bound to it:
            by ``functools.partial``, or as a bundle's ``{"_target_": ..., "_mode_": "callable", "names": ...}``.

    Raises:
        TypeError: for what cannot be called.

    Shapes: points ``(..., N, D)``, NaN for missing -> what ``measure`` returns, usually ``(..., K)``.

    Example:
        >>> MeasureLandmarks(lambda points: points.diff(dim=-2).norm(dim=-1))([(0.0, 0.0), (3.0, 4.0)])
        tensor([5.], dtype=torch.float64)
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, measure: Callable[[torch.Tensor], Any]) -> None:
        if not callable(measure):
            raise TypeError(f"`measure` must be a function of points, got {measure!r}.")
        self.measure = measure

    def __call__(self, points: Any) -> torch.Tensor:
        """Return the numbers of ``points``.

        Args:
            points: ``(..., N, D)``.
        """
        return torch.as_tensor(self.measure(as_points(points)))


class MeasureLandmarksd(MapTransform):
    """Measure the points under ``keys`` and put the numbers under ``output_keys``.

    Dictionary version of :class:`MeasureLandmarks`. Predicted and true points measured by one function compare.

    Args:
        keys: points ``(..., N, D)``.
        output_keys: where the numbers go, one for each key.
        measure: see :class:`MeasureLandmarks`.
        allow_missing_keys: whether an item may lack one of ``keys``.

    Raises:
        ValueError: for two keys with the same output key.
        TypeError: see :class:`MeasureLandmarks`.

    Example:
        >>> width = MeasureLandmarksd("points", "width", lambda points: (points[1] - points[0]).norm())
        >>> width({"points": torch.tensor([[0.0, 0.0], [3.0, 4.0]])})["width"]
        tensor(5.)
    """

    backend = MeasureLandmarks.backend

    def __init__(
        self,
        keys: KeysCollection,
        output_keys: KeysCollection,
        measure: Callable[[torch.Tensor], Any],
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_keys = repeat_keys(output_keys, self.keys, "output_keys")
        if len(set(self.output_keys)) < len(self.keys):
            raise ValueError(f"`output_keys` must be one for each of {list(self.keys)}, got {list(self.output_keys)}.")
        self.measure = measure if isinstance(measure, MeasureLandmarks) else MeasureLandmarks(measure)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key, output_key in self.key_iterator(d, self.output_keys):
            d[output_key] = self.measure(d[key])
        return d


MeasureLandmarksD = MeasureLandmarksDict = MeasureLandmarksd
