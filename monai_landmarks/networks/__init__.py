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
"""Networks for landmark detection; every class works in 2D and 3D."""

from __future__ import annotations

from .nets import (
    CarriedLandmarks,
    CoarseToFine,
    EdgeTransNet,
    EmbeddingPyramid,
    FARNet,
    GU2Net,
    GU2NetExplanation,
    HRNet,
    LocalizationUNet,
    PatchMatchingNet,
    RegisteredExemplarNet,
    SCNExplanation,
    SpatialConfigurationNet,
    TemplateMatchingNet,
    TwinNet,
    UniversalGlobalNet,
    UniversalNetwork,
    UniversalUNet,
    VotingUNet,
    datasets_of_state,
)
from .pretrained import PRETRAINED, PretrainedReport, load_pretrained

__all__ = [
    "PRETRAINED",
    "CarriedLandmarks",
    "CoarseToFine",
    "EdgeTransNet",
    "EmbeddingPyramid",
    "FARNet",
    "GU2Net",
    "GU2NetExplanation",
    "HRNet",
    "LocalizationUNet",
    "PatchMatchingNet",
    "PretrainedReport",
    "RegisteredExemplarNet",
    "SCNExplanation",
    "SpatialConfigurationNet",
    "TemplateMatchingNet",
    "TwinNet",
    "UniversalGlobalNet",
    "UniversalNetwork",
    "UniversalUNet",
    "VotingUNet",
    "datasets_of_state",
    "load_pretrained",
]
