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
"""Protocols with a rule of identification: as data, evaluated, compared, written and shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from monai_landmarks.data import Landmarks
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.metrics.identification import identify
from monai_landmarks.metrics.identification_summary import summarize_identification
from monai_landmarks.protocols import EvaluationResult, Protocol, compare, evaluate, get_protocol
from monai_landmarks.protocols.spine import CSI2014_PROTOCOLS, NATIVE_MM_IDENTIFICATION, VERSE
from monai_landmarks.report import write_report

NAMES = ("L1", "L2", "L3", "L4")


def lumbar(shift: int = 0, error: float = 1.0) -> np.ndarray:
    points = np.stack([np.zeros(4), np.full(4, error), -32.0 * (np.arange(4) + shift)], axis=-1)
    points[4 - shift :] = np.nan
    return points


def example(method: str = "mine", protocol: str | Protocol = NATIVE_MM_IDENTIFICATION) -> EvaluationResult:
    truth = {case: Landmarks(lumbar(error=0.0), NAMES) for case in ("a", "b")}
    found = {"a": Landmarks(lumbar(), NAMES), "b": Landmarks(lumbar(1), NAMES)}
    return evaluate(found, truth, protocol, method=method)


@pytest.mark.parametrize("section", ["set1", "set2"])
def test_csi2014_as_data(section: str) -> None:
    protocol = get_protocol("csi2014", section)
    assert protocol is get_protocol(f"csi2014/{section}")
    assert protocol in CSI2014_PROTOCOLS
    assert (protocol.identification, protocol.identification_distance) == ("glocker", 20.0)
    assert protocol.thresholds == (2.0, 2.5, 3.0, 4.0, 10.0, 20.0)
    assert (protocol.comparator, protocol.unit, protocol.distance) == ("<=", "mm", "Euclidean, world millimetres")
    assert protocol.landmark_names is not None
    assert (protocol.landmark_names[0], protocol.landmark_names[-1], len(protocol.landmark_names)) == ("C1", "S2", 26)
    assert json.loads(json.dumps(protocol.to_dict()))["identification"] == "glocker"


def test_rules_are_part_of_what_may_be_compared() -> None:
    assert VERSE.identification == "verse"
    other = NATIVE_MM_IDENTIFICATION.replace("mine", identification="verse")
    assert NATIVE_MM_IDENTIFICATION.differences(other) == ["identification: 'glocker' and 'verse'"]
    farther = NATIVE_MM_IDENTIFICATION.replace("mine", identification_distance=30.0)
    assert NATIVE_MM_IDENTIFICATION.differences(farther) == ["identification_distance: 20.0 and 30.0"]
    with pytest.raises(LandmarkError, match="identification: 'glocker' and 'verse'"):
        compare([example(), example(protocol=other)])


@pytest.mark.parametrize("changes", [{"identification": "gloker"}, {"identification_distance": 0.0}])
def test_wrong_rules_fail_in_the_constructor(changes: dict) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Protocol(name="x", dataset="x", **changes)


def test_evaluate_identifies_beside_the_errors() -> None:
    result = example()
    pred, true = np.stack([lumbar(), lumbar(1)]), np.stack([lumbar(error=0.0)] * 2)
    assert result.identification == summarize_identification(identify(pred, true), NAMES)
    assert result.identification is not None
    assert result.identification.rate == 50.0
    assert result.summary.mean == pytest.approx((4 * 1 + 3 * np.hypot(32, 1)) / 7)
    assert result.summary.num_missed == 1
    assert example(protocol="native/mm").identification is None


def test_a_result_without_its_identification_is_refused() -> None:
    with pytest.raises(LandmarkError, match=r"'glocker', 20\.0"):
        EvaluationResult.from_errors([[1.0]], ["a"], NATIVE_MM_IDENTIFICATION, ["L1"])
    found = identify([[[0.0, 1.0]]], [[[0.0, 0.0]]])
    with pytest.raises(LandmarkError, match="identification none, got"):
        EvaluationResult.from_errors([[1.0]], ["a"], get_protocol("native/mm"), ["L1"], identification=found)


def test_landmarks_outside_do_not_count() -> None:
    protocol = NATIVE_MM_IDENTIFICATION.replace("mine/inside", outside="leave_out")
    truth = {"a": Landmarks(lumbar(error=0.0), NAMES, ["outside", "defined", "defined", "defined"])}
    found = lumbar()
    found[:2] = [[np.nan] * 3, [0.0, 0.0, 300.0]]
    result = evaluate({"a": Landmarks(found, NAMES)}, truth, protocol)
    assert result.identification is not None
    assert (result.identification.num_evaluated, result.identification.num_identified) == (3, 2)
    assert (result.identification.num_missed, result.summary.num_outside) == (0, 1)


def test_tables_show_it() -> None:
    text = compare([example("first"), example("second")])
    assert text.splitlines()[1].split("  ")[-3:] == ["identified %", "all correct %", "missed"]
    assert text.splitlines()[2].split()[-3:] == ["50.00", "50.00", "1"]
    assert "50.00 % of 8 landmarks identified" in example().table()


def test_everything_is_written_and_shown(tmp_path: Path) -> None:
    result = example()
    assert {p.name for p in result.save(tmp_path)} == {p.name for p in tmp_path.iterdir()}
    content = json.loads((tmp_path / "identification.json").read_text())
    assert content["cases"]["b"]["shift"].startswith("all labels are 1 too low, L1 lies on L2")
    assert content["coverage"] == "2 cases"
    summary = json.loads((tmp_path / "metrics.json").read_text())
    page = write_report(tmp_path / "report.html", summary).read_text()
    assert "labels shifted in 1 images" in page
    assert "<th scope='row'>lumbar</th><td>50.0</td><td>8</td><td>1</td><td>0</td>" in page
    assert "<th scope='row'>L1</th><td>L2</td><td>1</td>" in page
    assert "<dt>rule of identification</dt><dd>glocker</dd>" in page
    without = write_report(tmp_path / "other.html", example(protocol="native/mm").to_dict()).read_text()
    assert "dentification" not in without


def test_the_phantom_says_so(tmp_path: Path) -> None:
    result = example(protocol="phantom/identification")
    result.save(tmp_path)
    assert json.loads((tmp_path / "identification.json").read_text())["phantom"] is True
    assert "PHANTOM" in result.table().splitlines()[0]
    assert get_protocol("phantom/spine_ct").is_phantom
