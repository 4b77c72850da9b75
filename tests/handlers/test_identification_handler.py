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
"""The identification rate in MONAI's engines, and what the metrics saver writes of it."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import from_engine

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.handlers import LandmarkMetricsSaver, RadialError
from monai_landmarks.handlers.identification import IdentificationRate
from monai_landmarks.protocols.spine import NATIVE_MM_IDENTIFICATION

NAN = float("nan")
NAMES = ["L1", "L2", "L3", "L4"]
POINTS = from_engine(["pred", "truth"])
ROW = [[0.0, 30.0 * i] for i in range(4)]

# The second case is labelled one too low, the third misses L1 and has an L4 too much.
TRUTH = [ROW, ROW, [*ROW[:3], [NAN, NAN]]]
FOUND = [ROW, [*ROW[1:], [NAN, NAN]], [[NAN, NAN], *ROW[1:3], [0.0, 200.0]]]


def run(handlers: Sequence[Any], metrics: dict[str, Any]) -> Engine:
    """Two batches, decollated as MONAI's evaluators leave them."""
    data = [
        {"pred": torch.tensor(f), "truth": torch.tensor(t), "case": f"c{i}"}
        for i, (f, t) in enumerate(zip(FOUND, TRUTH, strict=True))
    ]
    engine = Engine(lambda engine, batch: batch)
    engine.logger = logging.getLogger("identification")
    for name, metric in metrics.items():
        metric.attach(engine, name)
    for handler in handlers:
        handler.attach(engine)
    engine.run([data[:2], data[2:]])
    return engine


def test_one_number_and_the_counts_beside_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        engine = run(
            [],
            {
                "identification_rate": IdentificationRate(output_transform=POINTS),
                "all_correct": IdentificationRate(reduction="all_correct", output_transform=POINTS, save_details=False),
            },
        )
    metrics = engine.state.metrics
    assert metrics["identification_rate"] == pytest.approx(100 * 6 / 11)
    assert metrics["identification_rate_missed"] == 2
    assert metrics["identification_rate_false_positives"] == 1
    assert metrics["all_correct"] == pytest.approx(100 / 3)
    details = engine.state.metric_details  # type: ignore[attr-defined]
    assert list(details) == ["identification_rate"]
    assert details["identification_rate"].identified.sum() == 6
    assert "the labels of 1 of 3 images are shifted" in caplog.text


def test_saver_writes_every_case(tmp_path: Path) -> None:
    saver = LandmarkMetricsSaver(tmp_path, protocol=NATIVE_MM_IDENTIFICATION, landmark_names=NAMES, method="rows")
    run(
        [saver],
        {
            "radial_error": RadialError(output_transform=POINTS),
            "identification_rate": IdentificationRate(output_transform=POINTS),
        },
    )
    content = json.loads((tmp_path / "identification.json").read_text())
    assert (content["protocol"], content["phantom"], content["method"]) == ("native/mm/identification", False, "rows")
    assert content["cases"]["c1"]["misidentified"] == {"L1": "L2", "L2": "L3", "L3": "L4"}
    assert content["cases"]["c2"]["false_positive"] == ["L4"]
    assert content["regions"]["lumbar"]["identified"] == 6
    rows = list(csv.DictReader((tmp_path / "identification.csv").open()))
    assert [row["case"] for row in rows] == ["c0", "c1", "c2"]
    assert [row["percent"] for row in rows] == ["100", "0", "66.6667"]
    assert [row["all_correct"] for row in rows] == ["1", "0", "0"]
    assert [(row["missed"], row["false_positives"]) for row in rows] == [("0", "0"), ("1", "0"), ("1", "1")]
    assert rows[1]["label_shift"].startswith("all labels are 1 too low, L1 lies on L2")
    assert {row["protocol"] for row in rows} == {"native/mm/identification"}
    summary = json.loads((tmp_path / "metrics.json").read_text())["identification"]
    assert summary["num_shifted"] == 1
    assert summary["rate"] == pytest.approx(100 * 6 / 11)
    assert "images" not in summary
    assert "identification  glocker, at most 20 mm" in (tmp_path / "table.txt").read_text()


def test_a_phantom_folder_gives_the_phantom_protocol(tmp_path: Path) -> None:
    (tmp_path / "PHANTOM.txt").write_text("phantom")
    for name, expected in (
        ("csi2014/set2", "phantom/spine_ct"),
        ("native/mm/identification", "phantom/identification"),
    ):
        assert LandmarkMetricsSaver(tmp_path, protocol=name, dataset_dir=tmp_path).protocol.name == expected


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({}, r"'glocker', 20.0.*got none.*attaching IdentificationRate"),
        ({"identification_rate": IdentificationRate("verse", output_transform=POINTS)}, r"got \('verse', 20.0\)"),
        (
            {"identification_rate": IdentificationRate(output_transform=lambda o: from_engine(["truth", "truth"])(o))},
            "different points",
        ),
    ],
)
def test_tables_that_do_not_fit_the_protocol_are_refused(tmp_path: Path, metrics: dict, words: str) -> None:
    saver = LandmarkMetricsSaver(tmp_path, protocol=NATIVE_MM_IDENTIFICATION)
    with pytest.raises(LandmarkError, match=words):
        run([saver], {"radial_error": RadialError(output_transform=POINTS), **metrics})
    assert list(tmp_path.iterdir()) == []


def test_without_a_rule_nothing_is_written_of_it(tmp_path: Path) -> None:
    metrics = {"radial_error": RadialError(output_transform=POINTS), "id": IdentificationRate(output_transform=POINTS)}
    run([LandmarkMetricsSaver(tmp_path)], metrics)
    assert not list(tmp_path.glob("identification*"))
    assert "identification" not in json.loads((tmp_path / "metrics.json").read_text())


@pytest.mark.parametrize("options", [{"reduction": "per_landmark"}, {"rule": "x"}, {"max_distance": 0.0}])
def test_wrong_settings_fail_in_the_constructor(options: dict) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        IdentificationRate(**options)
