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
"""What a network demands of the annotated images from which it carries landmarks to others."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from monai_landmarks.geometry import FieldOfView, LandmarkError, field_of_view

__all__ = ["check_annotated_points"]


def check_annotated_points(
    what: str, points: torch.Tensor, shape: Sequence[int], num_landmarks: int, labels: Sequence[str] | None = None
) -> None:
    """Refuse points of an annotated image that are of another number, or lie outside of it.

    Args:
        what: the image's name in messages.
        points: ``(N, D)`` voxels, NaN for missing.
        shape: ``D`` sizes of the image.
        num_landmarks: ``N``.
        labels: names of the landmarks in messages; None for their numbers.

    Raises:
        LandmarkError: for such points.
    """
    if tuple(points.shape) != (num_landmarks, len(tuple(shape))):
        raise LandmarkError(
            f"{what} has points of shape {tuple(points.shape)}, this network finds {num_landmarks} landmarks: give (N, D) "
            "with NaN for those that are missing."
        )
    outside = (field_of_view(points, shape) == FieldOfView.OUTSIDE).nonzero().flatten().tolist()
    if outside:
        names = range(num_landmarks) if labels is None else [repr(label) for label in labels]
        which = ", ".join(f"{names[i]} at {[round(x, 2) for x in points[i].tolist()]}" for i in outside)
        raise LandmarkError(
            f"{what} of shape {tuple(shape)} has landmarks outside: {which}. Points must be voxels of the image given here, "
            "after its resizing; mark as missing (NaN) what the image does not show."
        )
