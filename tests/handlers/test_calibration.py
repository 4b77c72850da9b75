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
from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.handlers import PostprocessingCalibration
from monai_landmarks.heatmaps.candidates import find_candidates
from monai_landmarks.postprocessing import SequenceModel, load_presence_thresholds, presence_thresholds

NAN = float("nan")
NAMES = ("L1", "L2", "L3")


def column(*heights: float) -> torch.Tensor:
    return torch.tensor([[0.0, 0.0, height] for height in heights])


TRAINING = [column(0, -30, -62), column(5, -26, -57), column(1, -31, -60)]


def case(offset: float, seen: Sequence[bool], scores: Sequence[float]) -> dict[str, Any]:
    """A case whose candidates are the true places and, at lower confidence, one place 9 mm beside each."""
    truth = column(0, -30, -61) + offset
    candidates = torch.stack([truth, truth + torch.tensor([9.0, 0.0, 0.0])], dim=1)
    best = torch.tensor(scores)
    return {
        "pred_confidence": best,
        "true_points": torch.where(torch.tensor(seen)[:, None], truth, NAN),
        "pred_candidates": candidates,
        "pred_candidate_confidence": torch.stack([best, 0.5 * best], dim=1),
    }


CASES = [
    case(0.0, (True, True, True), (0.9, 0.8, 0.7)),
    case(3.0, (False, True, True), (0.3, 0.9, 0.8)),
    case(-2.0, (True, True, False), (0.8, 0.9, 0.2)),
]


def run(handler: PostprocessingCalibration, batches: Sequence[Any] = (CASES[:2], CASES[2:]), epochs: int = 1) -> None:
    engine = Engine(lambda engine, batch: batch)
    engine.logger = logging.getLogger("calibration")
    handler.attach(engine)
    engine.run(batches, max_epochs=epochs)


def test_thresholds_are_those_of_all_cases_together(tmp_path: Path) -> None:
    run(PostprocessingCalibration(tmp_path, NAMES), epochs=2)
    scores = torch.stack([item["pred_confidence"] for item in CASES])
    there = torch.tensor([[True, True, True], [False, True, True], [True, True, False]])
    expected = presence_thresholds(scores, there)
    torch.testing.assert_close(load_presence_thresholds(tmp_path / "presence.json", NAMES), expected)
    # By hand: L1 was absent at 0.3 and there from 0.8 on, L3 absent at 0.2 and there from 0.7 on.
    assert expected[0].item() == pytest.approx((0.3 + 0.8) / 2)
    assert expected[2].item() == pytest.approx((0.2 + 0.7) / 2)
    assert not (tmp_path / "sequence.json").exists()


@pytest.mark.parametrize("tune", [True, False])
@pytest.mark.parametrize("options", [{"missing_cost": 3.0}, {"reference": "volume"}])
def test_sequence_model_is_the_one_fitted_and_tuned_by_hand(tune: bool, options: dict, tmp_path: Path) -> None:
    """Without a reference of its own the model takes each channel's median where the vertebra is there."""
    run(PostprocessingCalibration(tmp_path, NAMES, TRAINING, tune=tune, sequence_options=options))
    medians = torch.tensor([0.8, 0.9, 0.7]).double().tolist()
    expected = SequenceModel(NAMES, **{"reference": medians, **options}).fit(TRAINING)
    if tune:
        lists = [
            [item[key].double() for item in CASES]
            for key in ("pred_candidates", "pred_candidate_confidence", "true_points")
        ]
        expected.tune(*lists)
    expected.save(tmp_path / "expected.json")
    assert json.loads((tmp_path / "sequence.json").read_text()) == json.loads((tmp_path / "expected.json").read_text())


def test_options_reach_the_thresholds(tmp_path: Path) -> None:
    run(PostprocessingCalibration(tmp_path, NAMES, threshold_options={"per_landmark": False}))
    limits = load_presence_thresholds(tmp_path / "presence.json", NAMES)
    assert limits.ndim == 0 or len(set(limits.tolist())) == 1


def test_a_silent_channel_is_no_candidate_and_no_error(tmp_path: Path) -> None:
    """A heatmap without a positive value has no place, and its maximum as confidence."""
    maps = torch.zeros(3, 8, 8, 40)
    maps[0, 4, 4, 35] = maps[1, 4, 4, 5] = 1.0
    maps[2] = -0.1
    found = find_candidates(maps, max_candidates=2, spatial_dims=3)
    assert found.points[2].isnan().all()
    assert found.confidence[2, 0] == pytest.approx(-0.1)
    item = {
        "pred_confidence": found.confidence[:, 0],
        "true_points": torch.tensor([[4.0, 4.0, 35.0], [4.0, 4.0, 5.0], [NAN] * 3]),
        "pred_candidates": found.points,
        "pred_candidate_confidence": found.confidence,
    }
    run(PostprocessingCalibration(tmp_path, NAMES, TRAINING), [[item]])
    chosen = SequenceModel.load(tmp_path / "sequence.json", NAMES)(found.points, found.confidence)
    torch.testing.assert_close(chosen.points[:2], item["true_points"][:2].double())
    assert chosen.points[2].isnan().all()


def test_an_output_that_lacks_something_is_named(tmp_path: Path) -> None:
    bare = [{key: item[key] for key in ("pred_confidence", "true_points")} for item in CASES]
    run(PostprocessingCalibration(tmp_path / "thresholds", NAMES), [bare])
    with pytest.raises(LandmarkError, match=r"'pred_candidates' is not in the engine's output.*'pred_confidence'"):
        run(PostprocessingCalibration(tmp_path / "both", NAMES, TRAINING), [bare])
    assert not (tmp_path / "both").exists()


def test_no_cases_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(LandmarkError, match="no validation cases"):
        run(PostprocessingCalibration(tmp_path / "none", NAMES), [[]])
    assert not (tmp_path / "none").exists()
