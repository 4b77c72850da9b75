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
"""Protocols of the BMPLE lower limb films: the paper's thresholds, the program's comparator, the phantom."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from monai_landmarks.protocols import evaluate, get_protocol
from monai_landmarks.protocols.bmple import BMPLE_PROTOCOLS, PHANTOM_LOWER_LIMB


def test_sections_and_rules():
    assert [p.name for p in BMPLE_PROTOCOLS] == ["bmple", "bmple/test2", "bmple/training"]
    assert get_protocol("bmple", "test1") is BMPLE_PROTOCOLS[0]
    assert BMPLE_PROTOCOLS[0].thresholds == (2.0, 4.0, 6.0, 8.0, 12.0)
    assert len(BMPLE_PROTOCOLS[0].landmark_names) == 20
    keys = ("dataset", "section", "annotator", "grid")
    own = {key: getattr(PHANTOM_LOWER_LIMB, key) for key in keys}
    assert not PHANTOM_LOWER_LIMB.differences(BMPLE_PROTOCOLS[0].replace("x", **own, is_phantom=True))


def test_a_distance_equal_to_a_threshold_is_not_detected(tmp_path: Path):
    truth = np.zeros((20, 2))
    result = evaluate({"a": truth + np.array([4.0, 0.0])}, {"a": truth}, "bmple", method="off")
    assert "bmple" in str(result.protocol)
    result.save(tmp_path)
    text = (tmp_path / "metrics.json").read_text()
    assert '"4": 0.0' in text
    assert '"6": 100.0' in text


def test_a_phantom_folder_takes_the_protocol_over(tmp_path: Path):
    (tmp_path / "PHANTOM.txt").touch()
    for protocol in BMPLE_PROTOCOLS:
        assert get_protocol(protocol, dataset_dir=tmp_path) is PHANTOM_LOWER_LIMB
