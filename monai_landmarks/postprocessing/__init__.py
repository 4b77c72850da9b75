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
"""From decoded candidates to an answer: which landmarks are there, and which candidates form an anatomical sequence."""

from __future__ import annotations

from .anatomies import Anatomy, spine_anatomies
from .presence import (
    apply_presence,
    load_presence_thresholds,
    presence_thresholds,
    save_presence_thresholds,
    usual_confidence,
)
from .result import SequenceChange, SequenceResult
from .sequence import SequenceModel

__all__ = [
    "Anatomy",
    "SequenceChange",
    "SequenceModel",
    "SequenceResult",
    "apply_presence",
    "load_presence_thresholds",
    "presence_thresholds",
    "save_presence_thresholds",
    "spine_anatomies",
    "usual_confidence",
]
