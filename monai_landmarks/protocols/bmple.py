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
"""Protocols of the BMPLE lower limb films, in millimetres of the original film, and of their phantom."""

from __future__ import annotations

from monai_landmarks.data.datasets.bmple import BMPLE_LANDMARKS

from .protocol import Protocol, register_protocol

__all__ = ["BMPLE_PROTOCOLS", "PHANTOM_LOWER_LIMB"]

YAO = "Yao et al., Relative distance matters for one-shot landmark detection, 2022"

ANNOTATORS = {
    "test1": "mean of three experts",
    "test2": "one senior orthopaedic surgeon",
    "training": "one senior orthopaedic surgeon",
}
THRESHOLDS = (2.0, 4.0, 6.0, 8.0, 12.0)
"""Those of the paper's table, 4, 8 and 12 mm, and of the published program, 2, 4, 6 and 8."""


def _bmple(section: str) -> Protocol:
    protocol = Protocol(
        name="bmple" + ("" if section == "test1" else f"/{section}"),
        dataset="BMPLE lower limb films",
        section=section,
        annotator=ANNOTATORS[section],
        grid="native: original film, truth is not rounded",
        thresholds=THRESHOLDS,
        comparator="<",
        outlier_comparator=">=",
        landmark_names=BMPLE_LANDMARKS,
        citation=YAO,
        notes=(
            "the published program compares whole pixels of films squeezed to 384 x 768, some 1.1 x 1.3 mm, and rounds the "
            "truth down to them: its numbers are on another grid than these",
            "the names of the landmarks are not the authors', who show them in a figure only",
        ),
        phantom="phantom/lower_limb",
    )
    return register_protocol(protocol, ("bmple/test1",) if section == "test1" else ())


BMPLE_PROTOCOLS = tuple(_bmple(section) for section in ANNOTATORS)

PHANTOM_LOWER_LIMB = register_protocol(
    Protocol(
        name="phantom/lower_limb",
        dataset="phantom in the layout of the BMPLE lower limb films",
        annotator="the phantom's true positions",
        thresholds=THRESHOLDS,
        comparator="<",
        outlier_comparator=">=",
        landmark_names=BMPLE_LANDMARKS,
        is_phantom=True,
        notes=("numbers on a phantom say that the program works, nothing about patients",),
    )
)
