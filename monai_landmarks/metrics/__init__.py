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
"""How far predictions are from the truth. Each formula is one function; the classes are MONAI metrics around it."""

from __future__ import annotations

from .base import LandmarkMetric
from .bootstrap import Interval, bootstrap_interval
from .functional import (
    RELATIVE_TOLERANCE,
    image_level_errors,
    outlier_rate,
    outside_truths,
    radial_errors,
    reduce_radial_errors,
    successful_detection_rate,
)
from .identification import IDENTIFICATION_RULES, Identification, IdentificationRule, identification_rate, identify
from .identification_metric import IdentificationRateMetric
from .identification_summary import (
    IdentificationCounts,
    IdentificationSummary,
    ImageIdentification,
    summarize_identification,
    vertebra_regions,
)
from .image_fractions import ImageFractionMetric
from .label_shift import Confusion, LabelShift, confusions, detect_label_shifts
from .measurement_error import MeasurementErrorMetric
from .radial_error import RadialErrorMetric
from .rates import OutlierRateMetric, SuccessfulDetectionRateMetric
from .smape import SMAPEMetric, film_smape, fraction_mse, fraction_pearson, smape
from .summary import RadialErrorSummary, summarize_radial_errors

__all__ = [
    "IDENTIFICATION_RULES",
    "RELATIVE_TOLERANCE",
    "Confusion",
    "Identification",
    "IdentificationCounts",
    "IdentificationRateMetric",
    "IdentificationRule",
    "IdentificationSummary",
    "ImageFractionMetric",
    "ImageIdentification",
    "Interval",
    "LabelShift",
    "LandmarkMetric",
    "MeasurementErrorMetric",
    "OutlierRateMetric",
    "RadialErrorMetric",
    "RadialErrorSummary",
    "SMAPEMetric",
    "SuccessfulDetectionRateMetric",
    "bootstrap_interval",
    "confusions",
    "detect_label_shifts",
    "film_smape",
    "fraction_mse",
    "fraction_pearson",
    "identification_rate",
    "identify",
    "image_level_errors",
    "outlier_rate",
    "outside_truths",
    "radial_errors",
    "reduce_radial_errors",
    "smape",
    "successful_detection_rate",
    "summarize_identification",
    "summarize_radial_errors",
    "vertebra_regions",
]
