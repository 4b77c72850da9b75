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
"""What the spine film bundle has beside the others: FARNet as published, and the Cobb angles."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable

import numpy as np
import pytest
from bundle_runs import failure
from film_bundle_runs import FilmRun, files, workflow
from monai.bundle import ConfigParser
from PIL import Image

from monai_landmarks.data import read_landmark_table
from monai_landmarks.data.datasets import AASCE_LANDMARKS
from monai_landmarks.measurements import COBB_ANGLES, cobb_angles

pytest_plugins = ["film_bundle_runs"]

Finished = Callable[[str], FilmRun]


def read_angles(path: object) -> tuple[dict[str, np.ndarray], dict[str, dict[str, str]]]:
    with open(str(path)) as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    return {case: np.array([float(row[n] or "nan") for n in COBB_ANGLES]) for case, row in rows.items()}, rows


def test_farnet_is_the_papers() -> None:
    """61,219,731 weights for 19 landmarks and 3 channels; one channel has smaller stems, a landmark its own layers."""
    parser = ConfigParser()
    parser.read_config(files("spine_xray", "train"))
    count = sum(parameter.numel() for parameter in parser.get_parsed_content("network_def").parameters())
    stems = 2 * 49 * 64 + 2 * 9 * 32

    def heads(landmarks: int) -> int:
        inputs = 64 + 32 + landmarks
        return 64 * 64 * 9 + 64 + 65 * landmarks + inputs * inputs * 9 + inputs + (inputs + 1) * landmarks

    assert count == 61_219_731 - stems + heads(68) - heads(19)
    assert (parser["grid"], parser["batch_size"], parser["max_epochs"]) == ([512, 1024], 1, 300)
    assert (parser["optimizer#_target_"], parser["learning_rate"]) == ("torch.optim.Adam", 1e-4)
    loss = parser.get_parsed_content("loss_def")
    assert (loss.loss.alpha, loss.coarse_loss is loss.loss, loss.coarse_weight) == (40.0, True, 1.0)
    assert parser["sigma"] == 10.0


@pytest.mark.parametrize("bundle", ["hand_xray", "cephalometric_xray", "spine_xray"])
@pytest.mark.parametrize("method", ["farnet", "farnet_small"])
def test_every_film_bundle_has_the_method(bundle: str, method: str) -> None:
    parser = ConfigParser()
    parser.read_config(files(bundle, "train", *([] if (bundle, method) == ("spine_xray", "farnet") else [method])))
    small = method == "farnet_small"
    assert parser.get_parsed_content("method") == method
    network, loss = parser["network_def"], parser.get_parsed_content("loss_def").loss
    assert (network["width"], network["encoder"], parser["pretrained"]) == (
        (0.25 if bundle == "spine_xray" else 0.5) if small else 1.0,
        "densenet121",
        False,
    )
    # One film has no batch statistics that evaluation could use.
    assert network.get("norm", "batch") == ("batch" if small else "@norm")
    assert small or parser["norm"] == "group"
    assert (parser["batch_size"], loss.alpha, parser["sigma"]) == (4 if small else 1, 40.0, 4.0 if small else 10.0)
    assert parser["lr_scheduler#_target_"].endswith("OneCycleLR" if small else "MultiStepLR")


def test_angles_are_those_of_the_corners(finished_films: Finished) -> None:
    run = finished_films("spine_xray")
    angles, rows = read_angles(run.out / "predictions" / "cobb_angles.csv")
    assert sorted(angles) == sorted(run.cases)
    points = read_landmark_table(run.out / "predictions" / "landmarks.csv")
    errors = []
    for case, entry in run.cases.items():
        true = np.array([float(rows[case][f"true_{name}"]) for name in COBB_ANGLES])
        # The phantom's table has the angles that its spines were made with.
        np.testing.assert_allclose(true, entry["angles"], atol=0.01)
        expected = cobb_angles(points[case].points.copy(), AASCE_LANDMARKS, 1000).numpy()
        np.testing.assert_allclose(angles[case], expected, atol=0.01)
        errors.append(100 * abs(expected - true).sum() / (expected + true).sum())
    info = json.loads((run.out / "metrics.json").read_text())["info"]
    assert info["cobb_smape_missed"] == np.isnan(errors).sum()
    assert info["cobb_smape"] == pytest.approx(np.nanmean(errors), abs=0.01)
    # FARNet's table 3: each film's x by its width, y by its height.
    found, true = [], []
    for case, entry in run.cases.items():
        with Image.open(entry["image"]) as film:
            size = np.array([1000 * film.width / film.height, 1000])
        found.append(points[case].points / size)
        true.append(entry["landmarks"] / size)
    difference = np.subtract(found, true)
    assert info["fraction_mse"] == pytest.approx((difference**2).mean(), rel=1e-3)
    assert info["fraction_pearson"] == pytest.approx(np.corrcoef(np.ravel(found), np.ravel(true))[0, 1], abs=1e-4)


def test_prediction_gives_angles_without_truth(finished_films: Finished) -> None:
    run = finished_films("spine_xray")
    known, _ = read_angles(run.out / "predictions" / "cobb_angles.csv")
    angles, rows = read_angles(run.out / "inference" / "predictions" / "cobb_angles.csv")
    assert set(rows[next(iter(rows))]) == {"case", *COBB_ANGLES}
    for case, values in angles.items():
        # The height of a film is not known here, and only the smaller curves depend on it.
        assert values[0] == pytest.approx(known[case][0], abs=1e-3, nan_ok=True)


def test_weights_of_the_encoder_come_from_a_file_that_must_be_there(finished_films: Finished) -> None:
    root = finished_films("spine_xray").root
    flow = workflow("spine_xray", "train", root, pretrained="/no/such/nowhere.pth")
    assert "nowhere.pth" in failure(flow.run)
