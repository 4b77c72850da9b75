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
"""Protocols of the ISBI 2015 cephalometric challenge and of its phantom.

The published head tables follow at least four different rules. What differs between them is written here as data.
"""

from __future__ import annotations

from monai_landmarks.data.datasets import ISBI2015_LANDMARKS

from .protocol import Protocol, register_protocol

__all__ = ["ISBI2015_PROTOCOLS", "PHANTOM_CEPHALOGRAM"]

WANG = "Wang et al., A benchmark for comparison of dental radiography analysis algorithms, Medical Image Analysis 2016"
PAYER = (
    "Payer et al., Integrating spatial configuration into heatmap regression based CNNs, Medical Image Analysis 2019"
)

ANNOTATORS = {
    "mean": "mean of the junior and the senior reader",
    "senior": "senior reader",
    "junior": "junior reader",
}
FILMS = {"training": (1, 150), "test1": (151, 300), "test2": (301, 400)}
NOTES = (
    "landmark 16 (soft_tissue_pogonion): the readers disagree by 9.2 mm in the training films, 6.5 mm in Test1 and "
    "2.8 mm in Test2; look at it separately",
    "films are 1935 x 2400 pixels of 0.1 mm; errors are those of the original film, also for reduced copies",
)


def _cases(first: int, last: int) -> tuple[str, ...]:
    return tuple(f"{number:03d}" for number in range(first, last + 1))


def _isbi2015(annotator: str, section: str) -> Protocol:
    protocol = Protocol(
        name=f"isbi2015/{annotator}" + ("" if section == "test1" else f"/{section}"),
        dataset="ISBI 2015 cephalograms",
        section=section,
        annotator=ANNOTATORS[annotator],
        grid="native: original film, truth is not rounded",
        distance="Euclidean, in original pixels of 0.1 mm; ties with a threshold survive rounding",
        pixel_size=0.1,
        landmark_names=ISBI2015_LANDMARKS,
        cases=_cases(*FILMS[section]),
        citation=WANG,
        notes=NOTES,
        phantom="phantom/cephalogram",
    )
    return register_protocol(protocol, (f"isbi2015/{annotator}/test1",) if section == "test1" else ())


ISBI2015_PROTOCOLS = tuple(_isbi2015(annotator, section) for annotator in ANNOTATORS for section in FILMS)

SCN = register_protocol(
    ISBI2015_PROTOCOLS[0].replace(
        "isbi2015/senior/scn",
        section="test1+test2",
        annotator=ANNOTATORS["senior"],
        comparator="<",
        outlier_comparator=">=",
        cases=_cases(151, 400),
        citation=PAYER,
        notes=(
            "the paper counts distances beyond the radius (eq. 6), its program those equal to it too",
            "Table 4 prints the mean of the rates of Test1 and Test2; here the 250 films are pooled, as in the program",
            "the program's truth is the senior reader but for landmark 16 in Test2, which lies 9.8 mm away",
        ),
    )
)

PHANTOM_CEPHALOGRAM = register_protocol(
    Protocol(
        name="phantom/cephalogram",
        dataset="phantom in the layout of the ISBI 2015 cephalograms",
        annotator="the phantom's points as the run was given them: true positions or simulated readers",
        landmark_names=ISBI2015_LANDMARKS,
        is_phantom=True,
        notes=("numbers on a phantom say that the program works, nothing about patients",),
    )
)
