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
"""Ignite handlers for landmark training and evaluation, in the manner of MONAI's."""

from __future__ import annotations

from .calibration import PostprocessingCalibration
from .checkpoint_files import AtomicSaver, checkpoint_compat, read_checkpoint
from .checkpoints import (
    FinalCheckpoint,
    LandmarkCheckpointLoader,
    LowestErrorCheckpoint,
    TrainingCheckpoint,
    load_latest_checkpoint,
)
from .cobb_angles_saver import CobbAnglesSaver
from .figures import LandmarkFigureSaver, LandmarkTensorBoardHandler
from .gradient_clipping import GradientClipping
from .identification import IdentificationRate
from .image_fractions import ImageFractions
from .landmark_csv_saver import LandmarkCSVSaver
from .landmark_metrics_saver import LandmarkMetricsSaver
from .measurement_errors import MeasurementErrors
from .measurements_saver import MeasurementsSaver
from .metrics import OutlierRate, RadialError, SuccessfulDetectionRate
from .run_summary import RunSummary
from .scores import lower_is_better, negative_metric
from .smape import SMAPE

__all__ = [
    "SMAPE",
    "AtomicSaver",
    "CobbAnglesSaver",
    "FinalCheckpoint",
    "GradientClipping",
    "IdentificationRate",
    "ImageFractions",
    "LandmarkCSVSaver",
    "LandmarkCheckpointLoader",
    "LandmarkFigureSaver",
    "LandmarkMetricsSaver",
    "LandmarkTensorBoardHandler",
    "LowestErrorCheckpoint",
    "MeasurementErrors",
    "MeasurementsSaver",
    "OutlierRate",
    "PostprocessingCalibration",
    "RadialError",
    "RunSummary",
    "SuccessfulDetectionRate",
    "TrainingCheckpoint",
    "checkpoint_compat",
    "load_latest_checkpoint",
    "lower_is_better",
    "negative_metric",
    "read_checkpoint",
]
