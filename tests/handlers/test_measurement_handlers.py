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
"""Numbers measured on landmarks: in a chain of transforms, their mean error in an engine, and their table."""

from __future__ import annotations

import csv
import logging
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.handlers import from_engine

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.handlers.measurement_errors import MeasurementErrors
from monai_landmarks.handlers.measurements_saver import MeasurementsSaver
from monai_landmarks.measurements import angle_errors
from monai_landmarks.metrics.measurement_error import MeasurementErrorMetric
from monai_landmarks.transforms.measure import MeasureLandmarks, MeasureLandmarksd

NAN = float("nan")

# Two legs with two angles. By hand the errors are 2, 4 across the circle's end, 0.5; one was not predicted, and three more
# belong to a film without truth.
PRED = [[[178.0, 359.0], [NAN, 10.5]], [[1.0, 2.0], [3.0, NAN]]]
TRUE = [[[180.0, 3.0], [20.0, 10.0]], [[NAN, NAN], [NAN, NAN]]]
LEGS = {"groups": ["right", "left"], "group_column": "leg"}


def films() -> list[dict[str, Any]]:
    return [
        {"case": case, "pred": torch.tensor(pred), "true": torch.tensor(true)}
        for case, pred, true in zip(("b", "a"), PRED, TRUE, strict=True)
    ]


def run(batches: list[list[dict[str, Any]]], handler: Any = None, **metrics: Any) -> Engine:
    engine = Engine(lambda engine, batch: batch)
    engine.logger = logging.getLogger("measure")
    for name, metric in metrics.items():
        metric.attach(engine, name)
    if handler is not None:
        handler.attach(engine)
    engine.run(batches, max_epochs=2)
    return engine


def test_a_bundle_names_any_function_of_points() -> None:
    config = {
        "imports": ["$import torch"],
        "factor": 2.0,
        "measure": {
            "_target_": "monai_landmarks.transforms.measure.MeasureLandmarksd",
            "keys": ["pred", "true"],
            "output_keys": ["a", "b"],
            "measure": "$lambda points: torch.stack([@factor * points[..., i].sum() for i in (0, 1)])",
        },
    }
    item = ConfigParser(config).get_parsed_content("measure")({"pred": [[1, 2], [3, 4]], "true": torch.ones(3, 2)})
    assert item["a"].tolist() == [8.0, 12.0]
    assert item["b"].tolist() == [6.0, 6.0]
    assert MeasureLandmarks(partial(torch.mean, dim=0))([[NAN, NAN], [3.0, 1.0]]).isnan().all()


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="must be a function of points, got 'HKA'"):
        MeasureLandmarks("HKA")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one for each"):
        MeasureLandmarksd(["a", "b"], "c", torch.sum)
    for names, groups in ((["x", "x"], None), ("xy", None), (["x"], ["right", "right"])):
        with pytest.raises(ValueError, match="different names"):
            MeasurementsSaver(tmp_path, names, "pred", groups=groups)


def test_mean_error_is_that_of_what_both_have(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        handler = MeasurementErrors(angle_errors, from_engine(["pred", "true"]))
        engine = run([films()[:1], films()[1:]], angle=handler)
    assert engine.state.metrics["angle"] == pytest.approx((2 + 4 + 0.5) / 3)
    assert engine.state.metrics["angle_missed"] == 1
    assert "1 measurements have a landmark that was not predicted" in caplog.text
    table = engine.state.metric_details["angle"]  # type: ignore[attr-defined]
    torch.testing.assert_close(
        table, torch.tensor([[2.0, 4.0, math.inf, 0.5], [NAN] * 4], dtype=torch.float64), equal_nan=True
    )


def test_metric_refuses_what_does_not_compare() -> None:
    metric = MeasurementErrorMetric()
    with pytest.raises(LandmarkError, match=r"shapes \(1, 2\) and \(1, 3\)"):
        metric(torch.zeros(1, 2), torch.zeros(1, 3))
    with pytest.raises(LandmarkError, match="and none"):
        metric(torch.zeros(1, 2))
    metric(torch.tensor([[350.0]]), torch.tensor([[1.0]]))
    assert metric.aggregate() == 349  # plain numbers are on no circle


def test_table_has_a_row_for_each_film_and_leg(tmp_path: Path) -> None:
    saver = MeasurementsSaver(tmp_path, ["HKA", "FTA"], "pred", "true", error=angle_errors, **LEGS)  # type: ignore[arg-type]
    run([films()], saver)
    with (tmp_path / "measurements.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["case", "leg", "HKA", "FTA", "true_HKA", "true_FTA", "error_HKA", "error_FTA"]
    assert [row[:2] for row in rows[1:]] == [["a", "right"], ["a", "left"], ["b", "right"], ["b", "left"]]
    assert rows[2][2:] == ["3.0000", "", "", "", "", ""]
    assert rows[3][2:] == ["178.0000", "359.0000", "180.0000", "3.0000", "2.0000", "4.0000"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pred": torch.zeros(2)}, r"2 x 2 measurements, got shape \(2,\)"),
        ({"case": "b"}, "two films are called 'b'"),
        ({"true": None}, "'true' is not in"),
    ],
)
def test_table_of_other_things_is_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    wrong = {key: value for key, value in {**films()[1], **change}.items() if value is not None}
    with pytest.raises(LandmarkError, match=words):
        run([[films()[0], wrong]], MeasurementsSaver(tmp_path, ["HKA", "FTA"], "pred", "true", **LEGS))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
