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
"""Anatomical landmark detection in 2D and 3D medical images, as a plugin on MONAI.

Rooms: ``geometry``, ``heatmaps``, ``data``, ``transforms``, ``networks``, ``losses``, ``metrics``, ``protocols``,
``inferers``, ``measurements``, ``postprocessing``, ``engines``, ``handlers``, ``report``. Each is imported when it is
first used.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"

_ROOMS = (
    "data",
    "engines",
    "geometry",
    "handlers",
    "heatmaps",
    "inferers",
    "losses",
    "measurements",
    "metrics",
    "networks",
    "postprocessing",
    "protocols",
    "report",
    "transforms",
)

__all__ = ["__version__", *_ROOMS]


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
