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
"""What the blob tests share: pipelines, and the check that a point lies on its blob."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.transforms import (
    CenterSpatialCropd,
    CropForegroundd,
    Orientationd,
    RandAffined,
    RandAxisFlipd,
    RandFlipd,
    Resized,
    ResizeWithPadOrCropd,
    Spacingd,
    SpatialPadd,
)

TOLERANCE = 0.05  # voxels; the centroid of a linearly resampled blob is itself good to about 0.02
RAS_LABELS = (("L", "R"), ("P", "A"), ("I", "S"))


def rotation(*angles: float) -> np.ndarray:
    """Turns about x, y and z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def with_missing(point: np.ndarray) -> np.ndarray:
    """The point and a missing landmark."""
    return np.stack([point, np.full_like(point, np.nan)])


def check_follows(item: dict[str, Any], centroid: Any, tolerance: float = TOLERANCE) -> None:
    points = item["points"]
    assert type(points) is torch.Tensor
    assert points.dtype == torch.float32
    assert points[1].isnan().all()
    error = torch.linalg.vector_norm(points[0].double() - centroid(item["image"])[0]).item()
    assert error <= tolerance


def pipeline_3d() -> list[Any]:
    return [
        Orientationd("image", axcodes="RAS", labels=RAS_LABELS),
        Spacingd("image", pixdim=(1.2, 1.0, 1.4), mode="bilinear"),
        CropForegroundd("image", source_key="image", select_fn=lambda x: x > 0.5, margin=3, allow_smaller=False),
        RandFlipd("image", prob=1.0, spatial_axis=1),
        RandAffined(
            "image",
            prob=1.0,
            rotate_range=(0.3, 0.3, 0.3),
            shear_range=(0.05,) * 6,
            scale_range=(0.1,) * 3,
            translate_range=(2,) * 3,
            mode="bilinear",
            padding_mode="zeros",
        ),
        ResizeWithPadOrCropd("image", spatial_size=(44, 48, 40)),
    ]


def pipeline_2d() -> list[Any]:
    return [
        Spacingd("image", pixdim=(0.25, 0.25), mode="bilinear"),
        RandAxisFlipd("image", prob=1.0),
        RandAffined(
            "image",
            prob=1.0,
            rotate_range=0.3,
            shear_range=(0.05, 0.05),
            scale_range=(0.1, 0.1),
            translate_range=(2, 2),
            mode="bilinear",
            padding_mode="zeros",
        ),
        SpatialPadd("image", spatial_size=(70, 70)),
        CenterSpatialCropd("image", roi_size=(60, 62)),
        Resized("image", spatial_size=(72, 80), mode="bilinear"),
    ]
