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
"""One random spatial map for image and landmarks: ranges are drawn to parameters, composed to a map and applied.

``array`` and ``dictionary`` hold the transforms, ``batched`` the form for whole batches on a device.
"""

from __future__ import annotations

from .array import FitToGrid, RandSpatialLandmarks, SpatialLandmarks
from .batched import BatchedSpatialAugmentation, batched_augmentation
from .dictionary import (
    FitToGridD,
    FitToGridd,
    FitToGridDict,
    RandSpatialLandmarksD,
    RandSpatialLandmarksd,
    RandSpatialLandmarksDict,
    SpatialLandmarksD,
    SpatialLandmarksd,
    SpatialLandmarksDict,
)

__all__ = [
    "BatchedSpatialAugmentation",
    "FitToGrid",
    "FitToGridD",
    "FitToGridDict",
    "FitToGridd",
    "RandSpatialLandmarks",
    "RandSpatialLandmarksD",
    "RandSpatialLandmarksDict",
    "RandSpatialLandmarksd",
    "SpatialLandmarks",
    "SpatialLandmarksD",
    "SpatialLandmarksDict",
    "SpatialLandmarksd",
    "batched_augmentation",
]
