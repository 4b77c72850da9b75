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
"""Heatmaps: encode and decode belong together.

Every decoder takes ``(B, N, *S)`` or ``(N, *S)`` and returns points in voxel index order, a confidence and, on
request, a flag for positions that the map cannot fix; see :func:`decode_heatmaps`.
"""

from __future__ import annotations

from .argmax import decode_argmax
from .candidates import Candidates, find_candidates
from .center_of_mass import decode_center_of_mass
from .dark import decode_dark
from .decode import DecodeMethod, decode_heatmaps
from .gaussian import GaussianHeatmaps, gaussian_axis_factors, gaussian_heatmaps
from .gaussian_fit import GaussianFit, decode_gaussian_fit, fit_gaussians
from .peaks import Decoded, FlaggedDecoded
from .quadratic import decode_quadratic
from .soft_argmax import decode_local_soft_argmax
from .voting import VoteWeighting, decode_offset_votes, split_voting_maps, vote_heatmaps

__all__ = [
    "Candidates",
    "DecodeMethod",
    "Decoded",
    "FlaggedDecoded",
    "GaussianFit",
    "GaussianHeatmaps",
    "VoteWeighting",
    "decode_argmax",
    "decode_center_of_mass",
    "decode_dark",
    "decode_gaussian_fit",
    "decode_heatmaps",
    "decode_local_soft_argmax",
    "decode_offset_votes",
    "decode_quadratic",
    "find_candidates",
    "fit_gaussians",
    "gaussian_axis_factors",
    "gaussian_heatmaps",
    "split_voting_maps",
    "vote_heatmaps",
]
