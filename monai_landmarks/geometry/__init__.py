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
"""Pure functions on points, affines and grids; every other room builds on them.

The coordinate law, for the whole package:

* Points are ``(..., N, D)``: ``N`` landmarks in ``D`` = 2 or 3 dimensions. The index order is the order of the image
  tensor's axes ``(i, j[, k])``, the centre of a voxel is an integer, and ``world = affine @ index``.
* A 3D world is RAS+ millimetres, as in MONAI and nibabel. A 2D world is the film plane in millimetres, x to the right
  and y down: the plane of ITK's physical points. The letters L and P carry no anatomical meaning on a projected film,
  so 2D points are the same numbers in memory and in a file that says LPS.
* A missing landmark is NaN in all ``D`` coordinates. It is never dropped and never ``(0, 0)``.
"""

from __future__ import annotations

from .affine import affine_nd, apply_affine, image_affine, invert_affine, voxel_sizes, world_from_space
from .bspline import bspline_at_points, bspline_on_grid, control_points, largest_safe_displacement
from .deformation import check_not_deformed, deformed_with, mark_deformed
from .field_of_view import FieldOfView, check_state, field_of_view, report_outside
from .points import LandmarkError, check_points, explain_points, inside, plain_tensor, present
from .resample import resample, smooth
from .sampled_map import invert_sampled_map, shown_in_folds
from .spatial_map import SpatialMap
from .windows import LandmarkCrops, crops_around_points

__all__ = [
    "FieldOfView",
    "LandmarkCrops",
    "LandmarkError",
    "SpatialMap",
    "affine_nd",
    "apply_affine",
    "bspline_at_points",
    "bspline_on_grid",
    "check_not_deformed",
    "check_points",
    "check_state",
    "control_points",
    "crops_around_points",
    "deformed_with",
    "explain_points",
    "field_of_view",
    "image_affine",
    "inside",
    "invert_affine",
    "invert_sampled_map",
    "largest_safe_displacement",
    "mark_deformed",
    "plain_tensor",
    "present",
    "report_outside",
    "resample",
    "shown_in_folds",
    "smooth",
    "voxel_sizes",
    "world_from_space",
]
