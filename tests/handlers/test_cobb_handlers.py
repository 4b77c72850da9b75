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
"""Cobb angles in a chain of transforms, their SMAPE in an engine, and their table."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.handlers import from_engine

from monai_landmarks.data.datasets import AASCE_LANDMARKS, CHEST_XRAY_LANDMARKS
from monai_landmarks.data.phantoms import spine_xray_phantom
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.handlers.cobb_angles_saver import CobbAnglesSaver
from monai_landmarks.handlers.landmark_metrics_saver import LandmarkMetricsSaver
from monai_landmarks.handlers.metrics import RadialError
from monai_landmarks.handlers.smape import SMAPE
from monai_landmarks.transforms.cobb import CobbAngles, CobbAnglesd

NAN = float("nan")
ANGLES = from_engine(["pred_angles", "true_angles"])

# By hand 50 and 0 per cent; the third film has no angle, the fourth no truth.
TRUE = [[20.0, 0.0, 0.0], [10.0, 10.0, 10.0], [30.0, 20.0, 10.0], [NAN, NAN, NAN]]
PRED = [[10.0, 5.0, 5.0], [10.0, 10.0, 10.0], [NAN, NAN, NAN], [5.0, 5.0, 5.0]]


def films() -> list[dict[str, Any]]:
    return [
        {
            "case": f"film {i}",
            "pred_angles": torch.tensor(p),
            "true_angles": torch.tensor(t),
            "points": torch.zeros(1, 2),
        }
        for i, (p, t) in enumerate(zip(PRED, TRUE, strict=True))
    ]


def run(*handlers: Any, **metrics: Any) -> Engine:
    """Two batches, decollated as MONAI's evaluators leave them."""
    engine = Engine(lambda engine, batch: batch)
    engine.logger = logging.getLogger("cobb")
    for name, metric in metrics.items():
        metric.attach(engine, name)
    for handler in handlers:
        handler.attach(engine)
    engine.run([films()[2:], films()[:2]], max_epochs=2)
    return engine


def test_predicted_and_true_corners_are_measured_alike() -> None:
    """The phantom knows its angles from the tilts of its bodies."""
    film, points, angles = spine_xray_phantom(seed=3, reduction=16)
    world = torch.as_tensor(points * film.shape[::-1] * (1000 / film.shape[0]))
    config = {
        "_target_": "monai_landmarks.transforms.CobbAnglesd",
        "keys": ["pred_points", "true_points"],
        "output_keys": ["pred_angles", "true_angles"],
        "names": list(AASCE_LANDMARKS),
        "film_height": 1000,
    }
    parser = ConfigParser({"measure": config})
    missing = world.clone()
    missing[5] = NAN
    item = parser.get_parsed_content("measure")({"pred_points": missing, "true_points": world})
    torch.testing.assert_close(item["true_angles"], torch.as_tensor(angles), atol=1e-6, rtol=0)
    assert item["pred_angles"].isnan().all()
    assert item["pred_points"] is missing
    torch.testing.assert_close(CobbAngles(film_height=1000)(world[None])[0], item["true_angles"])


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: CobbAngles(CHEST_XRAY_LANDMARKS), LandmarkError, "at least two vertebrae"),
        (lambda: CobbAngles(AASCE_LANDMARKS[:-1]), LandmarkError, "no L5_bottom_right"),
        (lambda: CobbAngles(film_height=0), ValueError, "must be positive"),
        (lambda: CobbAnglesd(["a", "b"], "angles"), ValueError, "one for each"),
        (lambda: CobbAngles()("points.csv"), LandmarkError, "not yet points"),
    ],
)
def test_wrong_settings_are_refused(build: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        build()


def test_smape_is_the_mean_over_films_that_have_angles(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        engine = run(cobb_smape=SMAPE(output_transform=ANGLES))
    assert engine.state.metrics["cobb_smape"] == pytest.approx((100 * 20 / 40 + 0) / 2)
    assert engine.state.metrics["cobb_smape_missed"] == 1
    assert "1 films have a landmark that was not predicted" in caplog.text
    details = engine.state.metric_details["cobb_smape"]  # type: ignore[attr-defined]
    expected = torch.tensor([[torch.inf], [NAN], [50.0], [0.0]], dtype=torch.float64)
    torch.testing.assert_close(details, expected, equal_nan=True)


def test_table_has_every_film_once(tmp_path: Path) -> None:
    run(CobbAnglesSaver(tmp_path, true_key="true_angles"), CobbAnglesSaver(tmp_path, filename="found.csv"))
    with (tmp_path / "cobb_angles.csv").open() as file:
        rows = list(csv.reader(file))
    names = ["main_thoracic", "proximal", "distal"]
    assert rows[0] == ["case", *names, *(f"true_{name}" for name in names), "smape"]
    assert rows[1] == ["film 0", "10.0000", "5.0000", "5.0000", "20.0000", "0.0000", "0.0000", "50.0000"]
    assert rows[3] == ["film 2", "", "", "", "30.0000", "20.0000", "10.0000", ""]
    assert [row[0] for row in rows[1:]] == [f"film {i}" for i in range(4)]
    with (tmp_path / "found.csv").open() as file:
        assert [row[:4] for row in rows] == list(csv.reader(file))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pred_angles": torch.zeros(68, 2)}, "3 Cobb angles"),
        ({"pred_angles": torch.zeros(3), "case": "film 0"}, "two films are called 'film 0'"),
        ({"case": None}, "'pred_angles' is not in"),
    ],
)
def test_table_of_what_is_no_films_angles_is_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    engine = Engine(lambda engine, batch: batch)
    CobbAnglesSaver(tmp_path).attach(engine)
    with pytest.raises(LandmarkError, match=words):
        engine.run([[films()[0], {"case": "another", **change}]])
    assert not list(tmp_path.iterdir())


def test_metrics_file_has_what_is_asked_for(tmp_path: Path) -> None:
    metrics = {
        "radial_error": RadialError(output_transform=from_engine(["points", "points"])),
        "cobb_smape": SMAPE(output_transform=ANGLES),
    }
    more = ["cobb_smape", "cobb_smape_missed"]
    run(LandmarkMetricsSaver(tmp_path, info={"seed": 3}, landmark_names=["a"], more_metrics=more), **metrics)
    info = json.loads((tmp_path / "metrics.json").read_text())["info"]
    assert info == {"seed": 3, "cobb_smape": 25.0, "cobb_smape_missed": 1}
    lost = SMAPE(output_transform=from_engine(["true_angles", "pred_angles"]))
    lost.metric.aggregate = lambda: torch.tensor(NAN)  # type: ignore[method-assign]
    run(LandmarkMetricsSaver(tmp_path, landmark_names=["a"], more_metrics=more), **metrics | {"cobb_smape": lost})
    assert json.loads((tmp_path / "metrics.json").read_text())["info"]["cobb_smape"] is None
    with pytest.raises(LandmarkError, match=r"asks for 'rho', and this engine has .*'cobb_smape'"):
        run(LandmarkMetricsSaver(tmp_path, landmark_names=["a"], more_metrics=["rho"]), **metrics)
