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
"""Rods whose radius changes from one end to the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .volume_drawing import Patch

__all__ = ["tapered_rod"]


def tapered_rod(
    patch: Patch,
    start: Sequence[float] | np.ndarray,
    end: Sequence[float] | np.ndarray,
    radius: float,
    end_radius: float,
) -> np.ndarray:
    """Distance (mm) to a rod with round ends whose radius changes evenly from ``start`` to ``end``."""
    begin, axis = np.asarray(start, float), np.subtract(end, start).astype(float)
    axis /= axis @ axis
    x, y, z = (
        np.float32(a) * (c - np.float32(o)) for a, c, o in zip(axis, (patch.x, patch.y, patch.z), begin, strict=True)
    )
    along = np.clip(x + y + z, 0, 1)
    # The distance to the bare axis: a capsule without thickness.
    return (
        patch.capsule(begin, np.asarray(end, float), 0.0) - np.float32(radius) - along * np.float32(end_radius - radius)
    )
