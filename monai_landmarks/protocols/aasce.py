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
"""Protocols of the AASCE spine films, by patient and without millimetres, and of their phantom."""

from __future__ import annotations

from monai_landmarks.data.datasets.aasce import AASCE_LANDMARKS

from .protocol import Protocol, register_protocol

__all__ = ["AASCE_PROTOCOLS", "PHANTOM_SPINE_XRAY"]

WU = "Wu et al., Automatic landmark estimation for adolescent idiopathic scoliosis assessment using BoostNet, MICCAI 2017"


def _aasce(section: str) -> Protocol:
    protocol = Protocol(
        name="aasce/thousandths" + ("" if section == "test" else f"/{section}"),
        dataset="AASCE spine films, training part",
        section=section,
        annotator="the challenge's",
        grid="predictions are carried back to the film, truth is not rounded",
        distance="Euclidean, in thousandths of the film's height",
        unit="thousandths",
        thresholds=(5.0, 10.0, 20.0, 50.0),
        landmark_names=AASCE_LANDMARKS,
        citation=WU,
        notes=(
            "no millimetres are known; films are cut differently, so a thousandth is another length in every film",
            "the split is a patient-wise one of the challenge's training films: that of aasce_datalist with its default "
            "seed and test_fraction",
            "all 68 corners are scored as annotated, also those that are visibly off",
        ),
        phantom="phantom/spine_xray",
    )
    return register_protocol(protocol, ("aasce/thousandths/test",) if section == "test" else ())


AASCE_PROTOCOLS = tuple(_aasce(section) for section in ("test", "validation", "train"))

PHANTOM_SPINE_XRAY = register_protocol(
    Protocol(
        name="phantom/spine_xray",
        dataset="phantom in the layout of the AASCE spine films",
        annotator="the phantom's true positions",
        distance="Euclidean, in thousandths of the film's height",
        unit="thousandths",
        thresholds=(5.0, 10.0, 20.0, 50.0),
        landmark_names=AASCE_LANDMARKS,
        is_phantom=True,
        notes=("numbers on a phantom say that the program works, nothing about patients",),
    )
)
