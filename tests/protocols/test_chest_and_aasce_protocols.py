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
"""Protocols of chest and spine films, whose unit is no millimetre: every number carries the unit of its protocol."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from monai_landmarks.data.datasets import ISBI2015_LANDMARKS
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.protocols import EvaluationResult, compare, evaluate, get_protocol
from monai_landmarks.protocols.aasce import AASCE_PROTOCOLS, PHANTOM_SPINE_XRAY
from monai_landmarks.protocols.chest_xray import CHEST_XRAY_PROTOCOLS, PHANTOM_CHEST_XRAY


def off_by(name: str, distance: float) -> EvaluationResult:
    protocol = get_protocol(name)
    truth = np.zeros((len(protocol.landmark_names or ()), 2))
    return evaluate({"a": truth + np.array([distance, 0])}, {"a": truth}, protocol, method="off")


def test_chest_protocols():
    assert [p.name for p in CHEST_XRAY_PROTOCOLS] == ["chest_xray", "chest_xray/validation", "chest_xray/train"]
    protocol = get_protocol("chest_xray", "test")
    assert protocol is CHEST_XRAY_PROTOCOLS[0]
    assert (protocol.unit, protocol.thresholds, len(protocol.landmark_names)) == ("px", (3.0, 6.0, 9.0), 6)
    assert not PHANTOM_CHEST_XRAY.differences(
        protocol.replace(
            "x",
            **{key: getattr(PHANTOM_CHEST_XRAY, key) for key in ("dataset", "section", "annotator", "grid")},
            exclusions=(),
            is_phantom=True,
        )
    )


def test_spine_protocols():
    assert [p.name for p in AASCE_PROTOCOLS] == [f"aasce/thousandths{s}" for s in ("", "/validation", "/train")]
    protocol = get_protocol("aasce/thousandths/test")
    assert protocol is AASCE_PROTOCOLS[0]
    assert (protocol.unit, protocol.thresholds) == ("thousandths", (5.0, 10.0, 20.0, 50.0))
    assert len(protocol.landmark_names) == 68
    assert any("no millimetres" in note for note in protocol.notes)
    own = {key: getattr(PHANTOM_SPINE_XRAY, key) for key in ("dataset", "section", "annotator", "grid")}
    assert not PHANTOM_SPINE_XRAY.differences(protocol.replace("x", **own, is_phantom=True))


def test_landmark_names_of_the_films_are_all_different():
    names = [*ISBI2015_LANDMARKS, *AASCE_PROTOCOLS[0].landmark_names, *CHEST_XRAY_PROTOCOLS[0].landmark_names]
    assert len(set(names)) == len(names) == 19 + 68 + 6


def test_a_phantom_folder_takes_the_protocol_over_or_is_refused(tmp_path: Path):
    (tmp_path / "PHANTOM.txt").touch()
    assert get_protocol("chest_xray", dataset_dir=tmp_path) is PHANTOM_CHEST_XRAY
    assert get_protocol("aasce/thousandths", dataset_dir=tmp_path) is PHANTOM_SPINE_XRAY
    with pytest.raises(ValueError, match="'verse' has no phantom counterpart"):
        get_protocol("verse", dataset_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "unit", "rates"),
    [
        ("chest_xray", "px", {3: 0, 6: 100, 9: 100}),
        ("aasce/thousandths", "thousandths", {5: 100, 10: 100, 20: 100, 50: 100}),
        ("native/mm", "mm", {1: 0, 2: 0, 3: 0, 4: 100}),
    ],
)
def test_every_file_names_the_protocols_unit(tmp_path: Path, name: str, unit: str, rates: dict[int, float]):
    distance = 3.5 if name == "native/mm" else 4.5
    result = evaluate({"a": np.full((1, 2), (distance, 0))}, {"a": np.zeros((1, 2))}, name) if unit == "mm" else None
    result = result or off_by(name, distance)
    result.save(tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert [key for key in metrics if key.startswith("radial_error")] == [f"radial_error_{unit}"]
    assert metrics[f"radial_error_{unit}"]["mean"] == pytest.approx(distance)
    assert metrics["detection"]["percent"] == {f"{t:g}": float(rate) for t, rate in rates.items()}
    table = (tmp_path / "table.txt").read_text()
    assert f"n = {result.errors.size}) {unit}, 95 %" in table
    if unit != "mm":
        assert " mm" not in table
        assert "_mm" not in (tmp_path / "per_landmark.csv").read_text()
    with (tmp_path / "per_landmark.csv").open() as file:
        header = next(csv.reader(file))
    assert [h for h in header if h.startswith("within")] == [f"within_{t:g}_{unit}_percent" for t in rates]


def test_numbers_of_different_units_stand_in_no_table():
    with pytest.raises(LandmarkError, match="unit: 'px' and 'thousandths'"):
        compare([off_by("chest_xray", 1.0), off_by("aasce/thousandths", 1.0)])
    assert "<= 3 px" in compare([off_by("chest_xray", 1.0)])
