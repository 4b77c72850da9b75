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
"""Landmarks whose confidence is below a threshold become missing."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends

from ..postprocessing.presence import apply_presence, check_thresholds, load_presence_thresholds
from .spatial import as_points, look_up_reference, repeat_keys

__all__ = [
    "PresenceThreshold",
    "PresenceThresholdD",
    "PresenceThresholdDict",
    "PresenceThresholdd",
]


class PresenceThreshold(Transform):
    """Set landmarks whose confidence is below their threshold missing: NaN in all coordinates.

    See :func:`monai_landmarks.postprocessing.apply_presence`; the thresholds are chosen on validation data with
    :func:`monai_landmarks.postprocessing.presence_thresholds`.

    Args:
        thresholds: one number, one per landmark, or the path of a JSON file that
            :func:`~monai_landmarks.postprocessing.save_presence_thresholds` wrote.
        names: of the landmarks, with a file needed: its names must be the same.

    Raises:
        ValueError: for a file without names.
        LandmarkError: for a file with other names, or thresholds that are no numbers.
        FileNotFoundError: for a file that is not there.

    Shapes: points ``(..., N, D)``, voxels or millimetres, with confidence ``(..., N)``.

    Example:
        >>> PresenceThreshold(0.5)(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0.9, 0.1]))
        tensor([[1., 2.],
                [nan, nan]])
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self, thresholds: float | Sequence[float] | str | os.PathLike[str], names: Sequence[str] | None = None
    ) -> None:
        if isinstance(thresholds, (str, os.PathLike)):
            if names is None:
                raise ValueError(
                    f"thresholds come from the file {str(thresholds)!r}: give the landmarks' `names` too, so that a file "
                    "for other landmarks is refused."
                )
            self.thresholds = load_presence_thresholds(thresholds, names)
        else:
            self.thresholds = check_thresholds(thresholds)
            if names is not None and self.thresholds.ndim and len(self.thresholds) != len(names):
                raise ValueError(f"{len(self.thresholds)} thresholds for {len(names)} names: one for each is expected.")

    def __call__(self, points: Any, confidence: Any) -> torch.Tensor:  # type: ignore[override]
        """Return the points that are left.

        Args:
            points: ``(..., N, D)``.
            confidence: ``(..., N)``; NaN is below every threshold.
        """
        return apply_presence(as_points(points), confidence, self.thresholds)


class PresenceThresholdd(MapTransform):
    """Set the landmarks under ``keys`` missing whose confidence under ``confidence_keys`` is below their threshold.

    Dictionary version of :class:`PresenceThreshold`. The confidences stay as they are.

    Args:
        keys: points ``(..., N, D)``.
        confidence_keys: their confidences ``(..., N)``: one key, or one per key.
        thresholds: see :class:`PresenceThreshold`.
        names: see :class:`PresenceThreshold`.
        allow_missing_keys: whether an item may lack one of ``keys``.

    Example:
        >>> item = {"pred_points": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "pred_confidence": torch.tensor([0.9, 0.1])}
        >>> PresenceThresholdd("pred_points", "pred_confidence", thresholds=[0.5, 0.05])(item)["pred_points"]
        tensor([[1., 2.],
                [3., 4.]])
    """

    backend = PresenceThreshold.backend

    def __init__(
        self,
        keys: KeysCollection,
        confidence_keys: KeysCollection,
        thresholds: float | Sequence[float] | str | os.PathLike[str],
        names: Sequence[str] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.confidence_keys = repeat_keys(confidence_keys, self.keys, "confidence_keys")
        self.threshold = PresenceThreshold(thresholds, names)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key, confidence_key in self.key_iterator(d, self.confidence_keys):
            d[key] = self.threshold(d[key], look_up_reference(d, confidence_key, "confidence_keys"))
        return d


PresenceThresholdD = PresenceThresholdDict = PresenceThresholdd
