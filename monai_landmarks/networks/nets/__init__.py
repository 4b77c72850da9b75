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
"""One file per network."""

from __future__ import annotations

from .edge_trans_net import EdgeTransNet
from .farnet import CoarseToFine, FARNet
from .gu2net import GU2Net, GU2NetExplanation
from .hrnet import HRNet
from .localization_unet import LocalizationUNet
from .patch_matching_net import EmbeddingPyramid, PatchMatchingNet
from .registered_exemplar_net import CarriedLandmarks, RegisteredExemplarNet
from .spatial_configuration_net import SCNExplanation, SpatialConfigurationNet
from .template_matching_net import TemplateMatchingNet
from .twin_net import TwinNet
from .universal_global_net import UniversalGlobalNet
from .universal_network import UniversalNetwork, datasets_of_state
from .universal_unet import UniversalUNet
from .voting_unet import VotingUNet

__all__ = [
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
]
