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
"""PresenceThresholdd: one test per promise."""

from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.postprocessing import save_presence_thresholds
from monai_landmarks.transforms.presence import PresenceThreshold, PresenceThresholdd, PresenceThresholdDict

ITEM = {"pred_points": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "pred_confidence": torch.tensor([0.9, 0.1])}


@pytest.mark.parametrize(("thresholds", "missing"), [(0.5, [1]), ([0.95, 0.05], [0]), (0.0, [])])
def test_those_below_are_missing_and_confidence_stays(thresholds, missing: list[int]) -> None:
    result = PresenceThresholdd("pred_points", "pred_confidence", thresholds)(ITEM)
    assert result["pred_points"].isnan().any(dim=-1).nonzero().flatten().tolist() == missing
    assert result["pred_confidence"] is ITEM["pred_confidence"]
    assert not ITEM["pred_points"].isnan().any()


def test_thresholds_from_a_file(tmp_path) -> None:
    path = tmp_path / "thresholds.json"
    save_presence_thresholds(path, [0.95, 0.05], ["L1", "L2"])
    result = PresenceThresholdd("pred_points", "pred_confidence", str(path), names=["L1", "L2"])(ITEM)
    assert result["pred_points"][0].isnan().all()
    with pytest.raises(LandmarkError, match="wanted are"):
        PresenceThresholdd("pred_points", "pred_confidence", path, names=["L2", "L1"])
    with pytest.raises(ValueError, match="give the landmarks' `names` too"):
        PresenceThreshold(path)
    with pytest.raises(FileNotFoundError):
        PresenceThreshold(tmp_path / "none.json", ["L1"])


def test_refusals() -> None:
    with pytest.raises(ValueError, match="2 thresholds for 3 names"):
        PresenceThreshold([0.1, 0.2], ["a", "b", "c"])
    with pytest.raises(LandmarkError, match="confidence_keys names 'sure'"):
        PresenceThresholdd("pred_points", "sure", 0.5)(ITEM)
    with pytest.raises(LandmarkError, match="1 thresholds for 2 landmarks"):
        PresenceThresholdd("pred_points", "pred_confidence", [0.5])(ITEM)


def test_batches_and_meta_information() -> None:
    points = MetaTensor(torch.zeros(3, 2, 3))
    result = PresenceThreshold(0.5)(points, torch.tensor([[0.9, 0.1]] * 3))
    assert type(result) is torch.Tensor
    assert result.isnan().all(dim=-1).tolist() == [[False, True]] * 3


def test_several_keys_missing_keys_and_json() -> None:
    config = {
        "_target_": "monai_landmarks.transforms.presence.PresenceThresholdDict",
        "keys": ["pred_points", "other"],
        "confidence_keys": "pred_confidence",
        "thresholds": [0.5, 0.5],
        "allow_missing_keys": True,
    }
    transform = ConfigParser({"t": config}).get_parsed_content("t")
    assert isinstance(transform, PresenceThresholdDict)
    assert transform({**ITEM, "other": ITEM["pred_points"]})["other"][1].isnan().all()
    assert transform(ITEM)["pred_points"][1].isnan().all()
