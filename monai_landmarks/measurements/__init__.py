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
"""Named angles computed from landmark names: what a surgeon reads off a film, and how sure it is."""

from __future__ import annotations

from .cobb import COBB_ANGLES, CobbCurves, cobb_angle_between, cobb_angles, cobb_curves
from .cobb_uncertainty import cobb_uncertainty, sample_cobb_angles
from .lower_limb import LOWER_LIMB_ANGLES, LOWER_LIMB_AXES, angle_errors, lower_limb_angles, lower_limb_axes

__all__ = [
    "COBB_ANGLES",
    "LOWER_LIMB_ANGLES",
    "LOWER_LIMB_AXES",
    "CobbCurves",
    "angle_errors",
    "cobb_angle_between",
    "cobb_angles",
    "cobb_curves",
    "cobb_uncertainty",
    "lower_limb_angles",
    "lower_limb_axes",
    "sample_cobb_angles",
]
