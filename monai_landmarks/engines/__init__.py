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
"""What MONAI's Ignite engines need to train and evaluate on landmarks."""

from __future__ import annotations

from .co_teaching_trainer import CoTeachingLoss, CoTeachingTrainer
from .co_teaching_views import PrepareTwoViewsBatch
from .dataset_configs import DatasetConfigs
from .dataset_mixing import draw_schedule, mixing_proportions
from .multi_dataset_evaluator import MultiDatasetEvaluator
from .multi_dataset_loader import MultiDatasetLoader
from .multi_dataset_trainer import MultiDatasetTrainer
from .patch_matching_trainer import PatchMatchingTrainer
from .patch_sampling import PreparePatchMatchingBatch
from .prepare_batch import PrepareDatasetBatch, PrepareLandmarkBatch
from .processes import check_batches, data_parallel, first_process_first, process_sampler
from .registration_objective import RegistrationObjective
from .registration_pairs import PrepareRegistrationBatch, RegistrationPairs
from .registration_trainer import RegistrationTrainer
from .schedules import RegistrationSchedule, hold_then_cosine, ramp
from .template_choice import TemplateCandidate, choose_template, find_keypoints, suggest_template
from .template_matching import load_matcher, prepare_template_matching

__all__ = [
    "CoTeachingLoss",
    "CoTeachingTrainer",
    "DatasetConfigs",
    "MultiDatasetEvaluator",
    "MultiDatasetLoader",
    "MultiDatasetTrainer",
    "PatchMatchingTrainer",
    "PrepareDatasetBatch",
    "PrepareLandmarkBatch",
    "PreparePatchMatchingBatch",
    "PrepareRegistrationBatch",
    "PrepareTwoViewsBatch",
    "RegistrationObjective",
    "RegistrationPairs",
    "RegistrationSchedule",
    "RegistrationTrainer",
    "TemplateCandidate",
    "check_batches",
    "choose_template",
    "data_parallel",
    "draw_schedule",
    "find_keypoints",
    "first_process_first",
    "hold_then_cosine",
    "load_matcher",
    "mixing_proportions",
    "prepare_template_matching",
    "process_sampler",
    "ramp",
    "suggest_template",
]
