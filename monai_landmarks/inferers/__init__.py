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
"""Inferers: how an image is sent through a network."""

from __future__ import annotations

from .max_merger import MaxMerger
from .mixed_precision import MixedPrecisionInferer
from .sliding_window import LandmarkSlidingWindowInferer

__all__ = [
    "LandmarkSlidingWindowInferer",
    "MaxMerger",
    "MixedPrecisionInferer",
]
