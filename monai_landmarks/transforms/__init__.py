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
"""MONAI transforms for landmarks, in pairs: ``X`` for arrays, ``Xd`` (``XD``, ``XDict``) for dictionaries.

Landmarks travel beside the image as world millimetres and are turned into voxel indices once, after the image's last
transform; predictions are turned back by the image's own affine. Results on points are plain tensors without meta
information, because the affine of an image would mean something else on them.
"""

from __future__ import annotations

from .clahe import CLAHE, CLAHED, CLAHEd, CLAHEDict
from .cobb import CobbAngles, CobbAnglesD, CobbAnglesd, CobbAnglesDict
from .crop import CropAroundLandmarks, CropAroundLandmarksD, CropAroundLandmarksd, CropAroundLandmarksDict
from .field_of_view import LandmarkFieldOfView, LandmarkFieldOfViewD, LandmarkFieldOfViewd, LandmarkFieldOfViewDict
from .film import LoadFilm, LoadFilmD, LoadFilmd, LoadFilmDict
from .film_polarity import (
    MatchPolarity,
    MatchPolarityD,
    MatchPolarityd,
    MatchPolarityDict,
    film_pattern,
    invert_film,
    polarity_score,
)
from .flip import (
    FlipLandmarks,
    FlipLandmarksD,
    FlipLandmarksd,
    FlipLandmarksDict,
    RandFlipLandmarks,
    RandFlipLandmarksD,
    RandFlipLandmarksd,
    RandFlipLandmarksDict,
)
from .heatmap import (
    DecodeLandmarkHeatmap,
    DecodeLandmarkHeatmapD,
    DecodeLandmarkHeatmapd,
    DecodeLandmarkHeatmapDict,
    GenerateLandmarkHeatmap,
    GenerateLandmarkHeatmapD,
    GenerateLandmarkHeatmapd,
    GenerateLandmarkHeatmapDict,
)
from .histogram import (
    MatchHistogram,
    MatchHistogramD,
    MatchHistogramd,
    MatchHistogramDict,
    match_histogram,
    otsu_outline,
)
from .intensity import (
    BatchedShiftScaleIntensity,
    RandShiftScaleIntensity,
    RandShiftScaleIntensityD,
    RandShiftScaleIntensityd,
    RandShiftScaleIntensityDict,
    SmoothInMillimeters,
    SmoothInMillimetersD,
    SmoothInMillimetersd,
    SmoothInMillimetersDict,
    shift_scale_intensity,
)
from .io import LoadLandmarks, LoadLandmarksD, LoadLandmarksd, LoadLandmarksDict
from .landmarks_follow import FollowReport, check_landmarks_follow
from .measure import MeasureLandmarks, MeasureLandmarksD, MeasureLandmarksd, MeasureLandmarksDict
from .presence import PresenceThreshold, PresenceThresholdD, PresenceThresholdd, PresenceThresholdDict
from .save import SaveLandmarks, SaveLandmarksD, SaveLandmarksd, SaveLandmarksDict
from .save_text import SaveText, SaveTextD, SaveTextd, SaveTextDict
from .seeded_by_case import SeededByCaseD, SeededByCased, SeededByCaseDict
from .sequence import SelectSequence, SelectSequenceD, SelectSequenced, SelectSequenceDict
from .spatial import (
    LandmarksImageToWorld,
    LandmarksImageToWorldD,
    LandmarksImageToWorldd,
    LandmarksImageToWorldDict,
    LandmarksWorldToImage,
    LandmarksWorldToImageD,
    LandmarksWorldToImaged,
    LandmarksWorldToImageDict,
)
from .spatial_augmentation import (
    BatchedSpatialAugmentation,
    FitToGrid,
    FitToGridD,
    FitToGridd,
    FitToGridDict,
    RandSpatialLandmarks,
    RandSpatialLandmarksD,
    RandSpatialLandmarksd,
    RandSpatialLandmarksDict,
    SpatialLandmarks,
    SpatialLandmarksD,
    SpatialLandmarksd,
    SpatialLandmarksDict,
    batched_augmentation,
)
from .volume import LoadVolume, LoadVolumeD, LoadVolumed, LoadVolumeDict
from .with_landmarks import WithLandmarks, WithLandmarksD, WithLandmarksd, WithLandmarksDict

__all__ = [
    "CLAHE",
    "CLAHED",
    "BatchedShiftScaleIntensity",
    "BatchedSpatialAugmentation",
    "CLAHEDict",
    "CLAHEd",
    "CobbAngles",
    "CobbAnglesD",
    "CobbAnglesDict",
    "CobbAnglesd",
    "CropAroundLandmarks",
    "CropAroundLandmarksD",
    "CropAroundLandmarksDict",
    "CropAroundLandmarksd",
    "DecodeLandmarkHeatmap",
    "DecodeLandmarkHeatmapD",
    "DecodeLandmarkHeatmapDict",
    "DecodeLandmarkHeatmapd",
    "FitToGrid",
    "FitToGridD",
    "FitToGridDict",
    "FitToGridd",
    "FlipLandmarks",
    "FlipLandmarksD",
    "FlipLandmarksDict",
    "FlipLandmarksd",
    "FollowReport",
    "GenerateLandmarkHeatmap",
    "GenerateLandmarkHeatmapD",
    "GenerateLandmarkHeatmapDict",
    "GenerateLandmarkHeatmapd",
    "LandmarkFieldOfView",
    "LandmarkFieldOfViewD",
    "LandmarkFieldOfViewDict",
    "LandmarkFieldOfViewd",
    "LandmarksImageToWorld",
    "LandmarksImageToWorldD",
    "LandmarksImageToWorldDict",
    "LandmarksImageToWorldd",
    "LandmarksWorldToImage",
    "LandmarksWorldToImageD",
    "LandmarksWorldToImageDict",
    "LandmarksWorldToImaged",
    "LoadFilm",
    "LoadFilmD",
    "LoadFilmDict",
    "LoadFilmd",
    "LoadLandmarks",
    "LoadLandmarksD",
    "LoadLandmarksDict",
    "LoadLandmarksd",
    "LoadVolume",
    "LoadVolumeD",
    "LoadVolumeDict",
    "LoadVolumed",
    "MatchHistogram",
    "MatchHistogramD",
    "MatchHistogramDict",
    "MatchHistogramd",
    "MatchPolarity",
    "MatchPolarityD",
    "MatchPolarityDict",
    "MatchPolarityd",
    "MeasureLandmarks",
    "MeasureLandmarksD",
    "MeasureLandmarksDict",
    "MeasureLandmarksd",
    "PresenceThreshold",
    "PresenceThresholdD",
    "PresenceThresholdDict",
    "PresenceThresholdd",
    "RandFlipLandmarks",
    "RandFlipLandmarksD",
    "RandFlipLandmarksDict",
    "RandFlipLandmarksd",
    "RandShiftScaleIntensity",
    "RandShiftScaleIntensityD",
    "RandShiftScaleIntensityDict",
    "RandShiftScaleIntensityd",
    "RandSpatialLandmarks",
    "RandSpatialLandmarksD",
    "RandSpatialLandmarksDict",
    "RandSpatialLandmarksd",
    "SaveLandmarks",
    "SaveLandmarksD",
    "SaveLandmarksDict",
    "SaveLandmarksd",
    "SaveText",
    "SaveTextD",
    "SaveTextDict",
    "SaveTextd",
    "SeededByCaseD",
    "SeededByCaseDict",
    "SeededByCased",
    "SelectSequence",
    "SelectSequenceD",
    "SelectSequenceDict",
    "SelectSequenced",
    "SmoothInMillimeters",
    "SmoothInMillimetersD",
    "SmoothInMillimetersDict",
    "SmoothInMillimetersd",
    "SpatialLandmarks",
    "SpatialLandmarksD",
    "SpatialLandmarksDict",
    "SpatialLandmarksd",
    "WithLandmarks",
    "WithLandmarksD",
    "WithLandmarksDict",
    "WithLandmarksd",
    "batched_augmentation",
    "check_landmarks_follow",
    "film_pattern",
    "invert_film",
    "match_histogram",
    "otsu_outline",
    "polarity_score",
    "shift_scale_intensity",
]
