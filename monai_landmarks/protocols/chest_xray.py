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
"""Protocols of the Shenzhen chest films with GU2Net's six landmarks, and of their phantom."""

from __future__ import annotations

from monai_landmarks.data.datasets.chest_xray import CHEST_XRAY_LANDMARKS

from .protocol import Protocol, register_protocol

__all__ = ["CHEST_XRAY_PROTOCOLS", "PHANTOM_CHEST_XRAY"]

ZHU = "Zhu et al., You only learn once: universal anatomical landmark detection, MICCAI 2021"


def _chest_xray(section: str) -> Protocol:
    protocol = Protocol(
        name="chest_xray" + ("" if section == "test" else f"/{section}"),
        dataset="Shenzhen chest films with GU2Net's six landmarks",
        section=section,
        annotator="GU2Net's authors",
        grid="predictions are carried back to the film, truth is not rounded",
        distance="Euclidean, in pixels of the film resized to 512 x 512",
        unit="px",
        thresholds=(3.0, 6.0, 9.0),
        landmark_names=CHEST_XRAY_LANDMARKS,
        exclusions=("9 films of the published list", "films of diseased lungs"),
        citation=ZHU,
        notes=(
            "no millimetres are known; a pixel is another length in x and in y, and in every film",
            "published numbers compare the highest pixel of both heatmaps, so their truth is rounded to whole pixels",
        ),
        phantom="phantom/chest_xray",
    )
    return register_protocol(protocol, ("chest_xray/test",) if section == "test" else ())


CHEST_XRAY_PROTOCOLS = tuple(_chest_xray(section) for section in ("test", "validation", "train"))

PHANTOM_CHEST_XRAY = register_protocol(
    Protocol(
        name="phantom/chest_xray",
        dataset="phantom in the layout of the Shenzhen chest films",
        annotator="the phantom's true positions",
        distance="Euclidean, in pixels of the film resized to 512 x 512",
        unit="px",
        thresholds=(3.0, 6.0, 9.0),
        landmark_names=CHEST_XRAY_LANDMARKS,
        is_phantom=True,
        notes=("numbers on a phantom say that the program works, nothing about patients",),
    )
)
