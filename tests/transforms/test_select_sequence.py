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
"""SelectSequenced: voxels of an image become the best sequence in world millimetres."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from monai_landmarks.geometry import LandmarkError, apply_affine, invert_affine
from monai_landmarks.postprocessing import SequenceModel
from monai_landmarks.transforms import LandmarksImageToWorldd
from monai_landmarks.transforms.sequence import SelectSequence, SelectSequenced

NAMES = ["L1", "L2", "L3"]
OBLIQUE = torch.tensor(
    [[0.0, 0.6, -1.6, 20.0], [0.0, 0.8, 1.2, -30.0], [-1.5, 0.0, 0.0, 90.0], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64
)


def world() -> torch.Tensor:
    return torch.tensor([[0.0, 0.0, 0.0], [0.0, 2.0, -30.0], [1.0, 1.0, -62.0]], dtype=torch.float64)


@pytest.fixture
def model() -> SequenceModel:
    return SequenceModel(NAMES).fit(world().numpy() + np.random.default_rng(0).normal(0, 1, (6, 3, 3)))


def item(affine: torch.Tensor = OBLIQUE) -> dict:
    """L2's first candidate is a ghost."""
    candidates = torch.stack([world(), torch.full((3, 3), torch.nan, dtype=torch.float64)], dim=1)
    candidates[1] = torch.stack([world()[1] + 25, world()[1]])
    confidence = torch.tensor([[0.9, torch.nan], [0.8, 0.7], [0.9, torch.nan]])
    return {
        "image": MetaTensor(torch.zeros(1, 4, 4, 4), affine=affine),
        "pred_candidates": apply_affine(candidates, invert_affine(affine)).float(),
        "pred_candidate_confidence": confidence,
    }


@pytest.mark.parametrize("affine", [OBLIQUE, torch.diag(torch.tensor([-1.0, -2.0, 3.0, 1.0], dtype=torch.float64))])
def test_the_answer_is_in_the_world_whatever_the_image(model: SequenceModel, affine: torch.Tensor) -> None:
    before = item(affine)
    result = SelectSequenced(model=model, report_keys="report")(before)
    torch.testing.assert_close(result["pred_points"], world(), atol=1e-4, rtol=0)
    torch.testing.assert_close(result["pred_confidence"], torch.tensor([0.9, 0.7, 0.9]).double())
    assert type(result["pred_points"]) is torch.Tensor
    assert result["report"].splitlines()[0] == "anatomy: regular; 3 of 3 landmarks, 1 changed"
    assert "L2: moved to candidate 2" in result["report"]
    assert "pred_points" not in before
    assert "report" not in SelectSequenced(model=model)(before)


def test_world_candidates_need_no_image(model: SequenceModel) -> None:
    given = item(torch.eye(4, dtype=torch.float64))
    del given["image"]
    result = SelectSequenced(model=model, refer_keys=None)(given)
    torch.testing.assert_close(result["pred_points"], world(), atol=1e-4, rtol=0)
    with pytest.raises(LandmarkError, match="refer_keys names 'image'"):
        SelectSequenced(model=model)(given)


def test_the_result_cannot_be_converted_a_second_time(model: SequenceModel) -> None:
    result = SelectSequenced(model=model)(item())
    with pytest.raises(LandmarkError, match="converted to millimetres twice"):
        LandmarksImageToWorldd("pred_points", "image")(result)
    in_world = LandmarksImageToWorldd("pred_candidates", "image")(item())
    with pytest.raises(LandmarkError, match="converted to millimetres twice"):
        SelectSequenced(model=model)(in_world)


def test_a_model_from_a_file_in_a_json_config(tmp_path, model: SequenceModel) -> None:
    path = tmp_path / "model.json"
    model.save(path)
    config = {
        "_target_": "monai_landmarks.transforms.sequence.SelectSequenced",
        "keys": "pred_candidates",
        "confidence_keys": "pred_candidate_confidence",
        "model": str(path),
        "names": NAMES,
    }
    result = ConfigParser({"t": config}).get_parsed_content("t")(item())
    torch.testing.assert_close(result["pred_points"], world(), atol=1e-4, rtol=0)
    with pytest.raises(LandmarkError, match="wanted are"):
        SelectSequenced(model=path, names=["L1", "L3", "L2"])
    with pytest.raises(LandmarkError, match="wanted are"):
        SelectSequence(model, names=["L1", "L3", "L2"])
    with pytest.raises(FileNotFoundError, match="sequence model"):
        SelectSequenced(model=tmp_path / "none.json")


def test_refusals(model: SequenceModel) -> None:
    with pytest.raises(LandmarkError, match="learnt nothing"):
        SelectSequence(SequenceModel(NAMES))
    with pytest.raises(LandmarkError, match="decollate"):
        SelectSequence(model)(torch.zeros(1, 3, 2, 3), torch.zeros(1, 3, 2))
    with pytest.raises(LandmarkError, match="confidence_keys names"):
        SelectSequenced(confidence_keys="sure", model=model)(item())
    with pytest.raises(ValueError, match="output_keys must"):
        SelectSequenced(["a", "b"], model=model)
