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
"""Building blocks shared by the networks."""

from __future__ import annotations

from .displacement import (
    Registration,
    affine_displacement,
    carry_points,
    compose_displacements,
    folding,
    folds_at,
    sample_displacement,
    warp,
)
from .encoders import ENCODERS, DenseNetEncoder, ResNetEncoder, VGGEncoder, build_encoder, feature_maps
from .high_resolution import HRNetBackbone
from .initialization import init_he, init_small_normal
from .normalization import replace_batch_norm
from .resize import CubicUpsample, crop_to, pad_to_multiple
from .resolution_attention import ResolutionAttention, ResolutionSum
from .separable_convolution import SeparableConvolution
from .similarity import cell_of, cosine_similarity, sample_cells

__all__ = [
    "ENCODERS",
    "CubicUpsample",
    "DenseNetEncoder",
    "HRNetBackbone",
    "Registration",
    "ResNetEncoder",
    "ResolutionAttention",
    "ResolutionSum",
    "SeparableConvolution",
    "VGGEncoder",
    "affine_displacement",
    "build_encoder",
    "carry_points",
    "cell_of",
    "compose_displacements",
    "cosine_similarity",
    "crop_to",
    "feature_maps",
    "folding",
    "folds_at",
    "init_he",
    "init_small_normal",
    "pad_to_multiple",
    "replace_batch_norm",
    "sample_cells",
    "sample_displacement",
    "warp",
]
