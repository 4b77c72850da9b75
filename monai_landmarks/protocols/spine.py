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
"""Protocols in which landmarks must be told from their neighbours: vertebrae in CT and other rows of alike structures."""

from __future__ import annotations

from monai_landmarks.data.datasets.csi2014 import CSI2014_LANDMARKS

from .native import NATIVE_MM
from .protocol import Protocol, register_protocol

__all__ = ["CSI2014_PROTOCOLS", "NATIVE_MM_IDENTIFICATION", "PHANTOM_IDENTIFICATION", "PHANTOM_SPINE_CT", "VERSE"]

THRESHOLDS = (2.0, 2.5, 3.0, 4.0, 10.0, 20.0)
GLOCKER = "Glocker et al., Vertebrae localization in pathological spine CT via dense classification, MICCAI 2013"
SEKUBOYINA = "Sekuboyina et al., VerSe: a vertebrae labelling and segmentation benchmark, Medical Image Analysis 2021"
PHANTOM_NOTE = "numbers on a phantom say that the program works, nothing about patients"
FALSE_POSITIVES = "predictions for landmarks that the truth lacks cost nothing in the rate; they are counted beside it"

SECTIONS = {
    "set1": "the 224 training scans in two-fold cross validation",
    "set2": "the 60 test scans. Three of them were first published with labels up to five vertebrae off, and numbers "
    "before and after their correction differ by 5 points (Payer et al. 2019, section 4.4): say which labels were used",
}


def _csi2014(section: str) -> Protocol:
    protocol = Protocol(
        name=f"csi2014/{section}",
        dataset="CSI 2014 spine CT",
        section=section,
        annotator="centroids of the challenge",
        thresholds=THRESHOLDS,
        identification="glocker",
        landmark_names=CSI2014_LANDMARKS,
        citation=GLOCKER,
        notes=(SECTIONS[section], FALSE_POSITIVES),
        phantom="phantom/spine_ct",
    )
    return register_protocol(protocol)


CSI2014_PROTOCOLS = tuple(_csi2014(section) for section in SECTIONS)

VERSE = register_protocol(
    Protocol(
        name="verse",
        dataset="VerSe spine CT",
        annotator="centroids of the challenge",
        thresholds=THRESHOLDS,
        identification="verse",
        citation=SEKUBOYINA,
        notes=(
            FALSE_POSITIVES,
            "the task page of 2019 pools rates and distances over the data set; means over scans stand beside them",
            "misses are not identified and in no distance: read d_mean beside their number",
            "the organisers' program also counts exactly 20 mm and ignores missed neighbours: rule 'verse_program'",
        ),
    )
)

NATIVE_MM_IDENTIFICATION = register_protocol(
    NATIVE_MM.replace(
        "native/mm/identification",
        thresholds=THRESHOLDS,
        identification="glocker",
        notes=(*NATIVE_MM.notes, FALSE_POSITIVES),
        phantom="phantom/identification",
    )
)

PHANTOM_IDENTIFICATION = register_protocol(
    NATIVE_MM_IDENTIFICATION.replace(
        "phantom/identification",
        dataset="phantom",
        annotator="the phantom's true positions",
        notes=(PHANTOM_NOTE,),
        phantom=None,
        is_phantom=True,
    )
)

PHANTOM_SPINE_CT = register_protocol(
    PHANTOM_IDENTIFICATION.replace(
        "phantom/spine_ct",
        dataset="phantom in the layout of the CSI 2014 spine CT",
        landmark_names=CSI2014_LANDMARKS,
    )
)
