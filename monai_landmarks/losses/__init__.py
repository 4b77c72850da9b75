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
"""Losses on heatmaps; targets are built inside, from voxel points."""

from __future__ import annotations

from .adaptive_wing import AdaptiveWingLoss
from .coarse_to_fine import CoarseToFineLoss, points_on_map
from .edge_ssim import EdgeSSIMLoss, sobel_gradients, structural_similarity
from .exponential_weighted_center import ExponentialWeightedCenterLoss
from .heatmap_bce import HeatmapBCELoss, heatmap_binary_cross_entropy
from .heatmap_l2 import HeatmapL2Loss, heatmap_squared_error
from .heatmap_regression import HeatmapL1Loss, HeatmapMSELoss, HeatmapRegressionLoss, HeatmapSmoothL1Loss
from .offset_voting import OffsetVotingLoss
from .patch_matching import PatchMatchingLoss
from .registration import (
    EdgeAwareSmoothnessLoss,
    GlobalL1Loss,
    InverseConsistency,
    InverseConsistencyLoss,
    SyntheticPairLoss,
    shown_by,
)
from .targets import WeightedPoints

__all__ = [
    "AdaptiveWingLoss",
    "CoarseToFineLoss",
    "EdgeAwareSmoothnessLoss",
    "EdgeSSIMLoss",
    "ExponentialWeightedCenterLoss",
    "GlobalL1Loss",
    "HeatmapBCELoss",
    "HeatmapL1Loss",
    "HeatmapL2Loss",
    "HeatmapMSELoss",
    "HeatmapRegressionLoss",
    "HeatmapSmoothL1Loss",
    "InverseConsistency",
    "InverseConsistencyLoss",
    "OffsetVotingLoss",
    "PatchMatchingLoss",
    "SyntheticPairLoss",
    "WeightedPoints",
    "heatmap_binary_cross_entropy",
    "heatmap_squared_error",
    "points_on_map",
    "shown_by",
    "sobel_gradients",
    "structural_similarity",
]
