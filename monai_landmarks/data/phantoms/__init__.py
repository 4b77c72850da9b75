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
"""Phantoms: parametric anatomies with true landmarks, written to disk in a real data set's layout."""

from __future__ import annotations

from monai_landmarks.data.datasets.phantom_marker import is_phantom

from .cephalogram import cephalogram_phantom, write_cephalogram_phantom
from .chest_xray import chest_xray_phantom, write_chest_xray_phantom
from .fallback import dataset_or_phantom
from .hand_mri import hand_mri_phantom, write_hand_mri_phantom
from .hand_xray import hand_xray_phantom, write_hand_xray_phantom
from .lower_limb_xray import lower_limb_phantom, write_lower_limb_phantom
from .lumbar_mr import lumbar_mr_phantom, write_lumbar_mr_phantom
from .mouse_skull_ct import mouse_skull_phantom, write_mouse_skull_phantom
from .spine_ct import spine_ct_phantom, write_spine_ct_phantom
from .spine_xray import spine_xray_phantom, write_spine_xray_phantom

__all__ = [
    "cephalogram_phantom",
    "chest_xray_phantom",
    "dataset_or_phantom",
    "hand_mri_phantom",
    "hand_xray_phantom",
    "is_phantom",
    "lower_limb_phantom",
    "lumbar_mr_phantom",
    "mouse_skull_phantom",
    "spine_ct_phantom",
    "spine_xray_phantom",
    "write_cephalogram_phantom",
    "write_chest_xray_phantom",
    "write_hand_mri_phantom",
    "write_hand_xray_phantom",
    "write_lower_limb_phantom",
    "write_lumbar_mr_phantom",
    "write_mouse_skull_phantom",
    "write_spine_ct_phantom",
    "write_spine_xray_phantom",
]
