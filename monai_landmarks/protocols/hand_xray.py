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
"""Protocols of the hand films: Payer's three-fold cross-validation and GU2Net's split, each with its own millimetres."""

from __future__ import annotations

from monai_landmarks.data.datasets.hand_xray import FOLDS, GU2NET_SECTIONS, HAND_XRAY_LANDMARKS

from .protocol import Protocol, register_protocol

__all__ = ["HAND_XRAY_PROTOCOLS", "PHANTOM_HAND_XRAY"]

PAYER = (
    "Payer et al., Integrating spatial configuration into heatmap regression based CNNs, Medical Image Analysis 2019"
)
ZHU = "Zhu et al., You only learn once: universal anatomical landmark detection, MICCAI 2021"

WRIST = "Euclidean, millimetres in which points {} and {} (0-based) of every film's truth are 50 mm apart"

NOTES = (
    "the films have no pixel size: millimetres come from the truth of each film, wrist = 50 mm. Points 0 and 4 lie 1.08 "
    "times (median 1.07) as far apart as 1 and 5, so an error is 7 to 8 % smaller in millimetres by 0 and 4: compare rows "
    "of the same rule only",
)


def _payer(fold: str | None) -> Protocol:
    protocol = Protocol(
        name="hand_xray/payer" + ("" if fold is None else f"/{fold}"),
        dataset="Digital Hand Atlas, 37 landmarks",
        section="+".join(FOLDS) if fold is None else fold,
        annotator="Payer's table",
        grid="native: original film, truth is not rounded",
        distance=WRIST.format(1, 5),
        thresholds=(2.0, 4.0, 10.0),
        comparator="<",
        outlier_comparator=">=",
        landmark_names=HAND_XRAY_LANDMARKS,
        citation=PAYER,
        notes=(
            *NOTES,
            "the paper counts distances beyond the radius (eq. 6), its program those equal to it too",
            "the test lists of the folds hold 298, 298 and 299 films, each film once; pooled, they are 895",
            "15 of the 910 annotated films are in no fold",
        ),
        phantom="phantom/hand_xray",
    )
    return register_protocol(protocol)


def _gu2net(section: str) -> Protocol:
    protocol = Protocol(
        name="hand_xray/gu2net" + ("" if section == "test" else f"/{section}"),
        dataset="Digital Hand Atlas, 37 landmarks",
        section=section,
        annotator="Payer's table",
        grid="native: original film, truth is not rounded",
        distance=WRIST.format(0, 4),
        thresholds=(2.0, 2.5, 3.0, 4.0, 6.0, 9.0, 10.0),
        landmark_names=HAND_XRAY_LANDMARKS,
        exclusions=("film 3142",),
        citation=ZHU,
        notes=(
            *NOTES,
            f"the section has {GU2NET_SECTIONS[section][2]} films",
            "the published program compares whole pixels of films squeezed to 368 x 512, truth rounded too, and takes the "
            "wrist there: its numbers are on another grid than these",
        ),
        phantom="phantom/hand_xray",
    )
    return register_protocol(protocol, ("hand_xray/gu2net/test",) if section == "test" else ())


HAND_XRAY_PROTOCOLS = (*map(_payer, (None, *FOLDS)), *map(_gu2net, GU2NET_SECTIONS))

PHANTOM_HAND_XRAY = register_protocol(
    Protocol(
        name="phantom/hand_xray",
        dataset="phantom in the layout of the Digital Hand Atlas",
        annotator="the phantom's true positions",
        distance="Euclidean, millimetres in which two points of every film's truth are 50 mm apart, as the run chose them",
        thresholds=(2.0, 4.0, 10.0),
        landmark_names=HAND_XRAY_LANDMARKS,
        is_phantom=True,
        notes=("numbers on a phantom say that the program works, nothing about patients",),
    )
)
