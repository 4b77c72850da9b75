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

"""Public data sets: one file per data set, with its folder layout, landmark names and fixed splits."""

from __future__ import annotations

from .aasce import AASCE_LANDMARKS, aasce_datalist, aasce_disordered_films, aasce_disorders, aasce_patient
from .bmple import BMPLE_LANDMARKS, bmple_datalist
from .chest_xray import CHEST_XRAY_EXCLUDED, CHEST_XRAY_LANDMARKS, chest_xray_datalist
from .csi2014 import CSI2014_LANDMARKS, CSI2014_VERSE_LABELS, csi2014_datalist
from .hand_mri import HAND_MRI_LANDMARKS, hand_mri_datalist
from .hand_xray import HAND_XRAY_LANDMARKS, hand_xray_datalist
from .hippocampus_mr import HIPPOCAMPUS_LANDMARKS, hippocampus_datalist
from .image_folder import FILM_SUFFIXES, VOLUME_SUFFIXES, image_folder_datalist
from .isbi2015 import ISBI2015_LANDMARKS, isbi2015_datalist, isbi2015_points
from .lumbar_mr import LUMBAR_MR_LANDMARKS, lumbar_mr_datalist
from .mouse_skull_ct import MOUSE_SKULL_LANDMARKS, mouse_skull_ct_datalist, mouse_strain
from .phantom_marker import is_phantom
from .splits import cross_validation_folds, seeded_order, select_fold, select_part
from .verse import VERSE_LANDMARKS, verse_datalist
from .vertebrae import vertebra_name

__all__ = [
    "AASCE_LANDMARKS",
    "BMPLE_LANDMARKS",
    "CHEST_XRAY_EXCLUDED",
    "CHEST_XRAY_LANDMARKS",
    "CSI2014_LANDMARKS",
    "CSI2014_VERSE_LABELS",
    "FILM_SUFFIXES",
    "HAND_MRI_LANDMARKS",
    "HAND_XRAY_LANDMARKS",
    "HIPPOCAMPUS_LANDMARKS",
    "ISBI2015_LANDMARKS",
    "LUMBAR_MR_LANDMARKS",
    "MOUSE_SKULL_LANDMARKS",
    "VERSE_LANDMARKS",
    "VOLUME_SUFFIXES",
    "aasce_datalist",
    "aasce_disordered_films",
    "aasce_disorders",
    "aasce_patient",
    "bmple_datalist",
    "chest_xray_datalist",
    "cross_validation_folds",
    "csi2014_datalist",
    "hand_mri_datalist",
    "hand_xray_datalist",
    "hippocampus_datalist",
    "image_folder_datalist",
    "is_phantom",
    "isbi2015_datalist",
    "isbi2015_points",
    "lumbar_mr_datalist",
    "mouse_skull_ct_datalist",
    "mouse_strain",
    "seeded_order",
    "select_fold",
    "select_part",
    "verse_datalist",
    "vertebra_name",
]
