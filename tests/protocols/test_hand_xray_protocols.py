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
"""Protocols of the hand films: what their numbers are called, and that the two rules of millimetres never mix."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from monai_landmarks.data.datasets.hand_xray import HAND_XRAY_LANDMARKS
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.protocols import compare, evaluate, get_protocol
from monai_landmarks.protocols.hand_xray import HAND_XRAY_PROTOCOLS, PHANTOM_HAND_XRAY

TRUTH = {"1": np.arange(74.0).reshape(37, 2)}
"""The distances of the prediction TRUTH + (0, 2) are 2 mm exactly."""


@pytest.mark.parametrize(
    ("name", "section", "wrist", "thresholds"),
    [
        ("hand_xray/payer", "cv1+cv2+cv3", "1 and 5", (2.0, 4.0, 10.0)),
        ("hand_xray/payer/cv1", "cv1", "1 and 5", (2.0, 4.0, 10.0)),
        ("hand_xray/payer/cv3", "cv3", "1 and 5", (2.0, 4.0, 10.0)),
        ("hand_xray/gu2net", "test", "0 and 4", (2.0, 2.5, 3.0, 4.0, 6.0, 9.0, 10.0)),
        ("hand_xray/gu2net/validation", "validation", "0 and 4", (2.0, 2.5, 3.0, 4.0, 6.0, 9.0, 10.0)),
    ],
)
def test_rules_are_the_published_ones(name: str, section: str, wrist: str, thresholds: tuple[float, ...]) -> None:
    protocol = get_protocol(name)
    assert protocol in HAND_XRAY_PROTOCOLS
    assert protocol.section == section
    assert f"points {wrist} (0-based)" in protocol.distance
    assert protocol.thresholds == thresholds
    assert protocol.landmark_names == HAND_XRAY_LANDMARKS
    assert any("7 to 8 %" in note for note in protocol.notes)
    json.dumps(protocol.to_dict(), allow_nan=False)


def test_sections_by_argument() -> None:
    assert get_protocol("hand_xray/payer", "cv2") is get_protocol("hand_xray/payer/cv2")
    assert get_protocol("hand_xray/gu2net", "test") is get_protocol("hand_xray/gu2net")
    assert len({protocol.name for protocol in HAND_XRAY_PROTOCOLS}) == 7


def test_numbers_of_the_two_rules_may_not_share_a_table() -> None:
    payer, gu2net = get_protocol("hand_xray/payer"), get_protocol("hand_xray/gu2net")
    assert any(text.startswith("distance: ") for text in payer.differences(gu2net))
    with pytest.raises(LandmarkError, match="distance: "):
        compare([evaluate(TRUTH, TRUTH, protocol, method=protocol.name) for protocol in (payer, gu2net)])


@pytest.mark.parametrize(("name", "within"), [("hand_xray/payer", 0.0), ("hand_xray/gu2net", 100.0)])
def test_a_distance_equal_to_the_threshold(name: str, within: float) -> None:
    """Payer's program counts it as an outlier, GU2Net's as detected."""
    found = {"1": TRUTH["1"] + (0.0, 2.0)}
    assert evaluate(found, TRUTH, name).detection[2.0] == within


def test_a_phantom_folder_gives_the_phantom_protocol(tmp_path: Path) -> None:
    (tmp_path / "PHANTOM.txt").write_text("phantom")
    for protocol in HAND_XRAY_PROTOCOLS:
        assert get_protocol(protocol, dataset_dir=tmp_path) is PHANTOM_HAND_XRAY
    assert PHANTOM_HAND_XRAY.is_phantom
