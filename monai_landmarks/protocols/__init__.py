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
"""Named evaluation protocols: a number is printed beside the rules it was obtained by, or not at all."""

from __future__ import annotations

from .aasce import AASCE_PROTOCOLS, PHANTOM_SPINE_XRAY
from .bmple import BMPLE_PROTOCOLS, PHANTOM_LOWER_LIMB
from .chest_xray import CHEST_XRAY_PROTOCOLS, PHANTOM_CHEST_XRAY
from .evaluate import evaluate
from .hand_xray import HAND_XRAY_PROTOCOLS, PHANTOM_HAND_XRAY
from .isbi2015 import ISBI2015_PROTOCOLS, PHANTOM_CEPHALOGRAM
from .native import NATIVE_MM, NATIVE_MM_INSIDE, PHANTOM_MM
from .protocol import Protocol, get_protocol, list_protocols, register_protocol
from .result import EvaluationResult, compare, write_radial_errors
from .spine import CSI2014_PROTOCOLS, NATIVE_MM_IDENTIFICATION, PHANTOM_IDENTIFICATION, PHANTOM_SPINE_CT, VERSE

__all__ = [
    "AASCE_PROTOCOLS",
    "BMPLE_PROTOCOLS",
    "CHEST_XRAY_PROTOCOLS",
    "CSI2014_PROTOCOLS",
    "HAND_XRAY_PROTOCOLS",
    "ISBI2015_PROTOCOLS",
    "NATIVE_MM",
    "NATIVE_MM_IDENTIFICATION",
    "NATIVE_MM_INSIDE",
    "PHANTOM_CEPHALOGRAM",
    "PHANTOM_CHEST_XRAY",
    "PHANTOM_HAND_XRAY",
    "PHANTOM_IDENTIFICATION",
    "PHANTOM_LOWER_LIMB",
    "PHANTOM_MM",
    "PHANTOM_SPINE_CT",
    "PHANTOM_SPINE_XRAY",
    "VERSE",
    "EvaluationResult",
    "Protocol",
    "compare",
    "evaluate",
    "get_protocol",
    "list_protocols",
    "register_protocol",
    "write_radial_errors",
]
