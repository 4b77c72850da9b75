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
"""The mark on an image whose anatomy was deformed: its affine no longer leads to the patient's millimetres.

After an elastic deformation no affine says where a voxel lies in the patient. The image keeps the affine part of what
was done to it, and the world points that went through the deformation with it are moved so that this affine leads to
their voxels: they and the image fit, every later flip and crop included, but their millimetres are those of a deformed
patient. The mark names the points that went along, so that points which did not are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .points import LandmarkError

__all__ = ["check_not_deformed", "deformed_with", "mark_deformed"]

#: A string, for collation: empty on an image that could have been deformed and was not, else ``"key;key"``.
MARK = "deformed_with"


def mark_deformed(image: Any, point_keys: Sequence[str], deformed: bool = True) -> None:
    """Write on an image that it was deformed, and which points of its item went along.

    Where it was deformed before, only points that went along every time remain named. An image that could have been
    deformed and was not this time is marked as well (``deformed=False``): images with and without a mark do not collate.

    Args:
        image: a MetaTensor; its meta data are changed in place.
        point_keys: of the item, whose points went through the same deformation.
        deformed: whether it was deformed.

    Example:
        >>> import torch
        >>> from monai.data import MetaTensor
        >>> image = MetaTensor(torch.zeros(1, 8, 8))
        >>> mark_deformed(image, ["landmarks"])
        >>> deformed_with(image)
        ('landmarks',)
    """
    before = deformed_with(image)
    if not deformed:
        image.meta.setdefault(MARK, "")
        return
    keys = [str(k) for k in point_keys if before is None or str(k) in before]
    image.meta[MARK] = ";".join(keys) or ";"


def deformed_with(image: Any) -> tuple[str, ...] | None:
    """Name the points that went through an image's deformation with it, or None where it was not deformed.

    Args:
        image: a MetaTensor, a collated batch of them, or anything without a mark.

    Returns:
        keys of the item; for a batch, those that went along in every deformed image of it.
    """
    mark = getattr(image, "meta", {}).get(MARK, "")
    marks = [m for m in ([mark] if isinstance(mark, str) else list(mark)) if m]
    if not marks:
        return None
    first, *others = [tuple(k for k in m.split(";") if k) for m in marks]
    return tuple(k for k in first if all(k in other for other in others))


def check_not_deformed(image: Any, doing: str) -> None:
    """Refuse to read the patient's millimetres from an image that was deformed.

    Args:
        image: a MetaTensor or a collated batch of them.
        doing: what was about to be done, for the message.

    Raises:
        LandmarkError: if the image was deformed.
    """
    if deformed_with(image) is not None:
        raise LandmarkError(
            f"the image was deformed elastically, so its affine does not lead to the patient's millimetres: {doing} "
            "would give numbers that mean nothing. Elastic augmentation is for training: leave it out of the pipeline "
            "whose results are measured or written, or compare in voxels."
        )
