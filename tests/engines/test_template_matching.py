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

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import Dataset, MetaTensor

from monai_landmarks.engines.template_matching import load_matcher, prepare_template_matching
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.handlers import LandmarkCheckpointLoader
from monai_landmarks.handlers.checkpoint_files import read_checkpoint
from monai_landmarks.networks import PatchMatchingNet, TemplateMatchingNet

NAMES = ["sella", "nasion"]
POINTS = {2: [[20.0, 30.5], [50.25, 12.0]], 3: [[12.0, 20.5, 9.0], [30.0, 3.25, 20.0]]}
SIZE = {2: (64, 75), 3: (33, 32, 40)}


def matcher(dims: int = 2, seed: int = 0) -> PatchMatchingNet:
    torch.manual_seed(seed)
    return PatchMatchingNet(dims, encoder="resnet18", width=0.125, shared=True)


def film(dims: int = 2, **changes: Any) -> dict[str, Any]:
    image = torch.rand(1, *SIZE[dims], generator=torch.Generator().manual_seed(1))
    return {"image": MetaTensor(image), "points": torch.tensor(POINTS[dims], dtype=torch.float64), **changes}


def saved(path: Path, network: torch.nn.Module) -> Path:
    torch.save(network.state_dict(), path)
    return path


# --- load_matcher -------------------------------------------------------------------------------------------------------


def test_the_matchers_weights_are_loaded(tmp_path: Path) -> None:
    trained, other = matcher(seed=1), matcher(seed=2)
    assert load_matcher(other, saved(tmp_path / "matcher.pt", trained)) is other
    for key, value in trained.state_dict().items():
        torch.testing.assert_close(other.state_dict()[key], value, rtol=0, atol=0)


def test_a_matcher_that_was_not_trained_is_missed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"matcher\.pt: run the self-supervision first"):
        load_matcher(matcher(), tmp_path / "matcher.pt")


def test_weights_of_another_matcher_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "matcher.pt", PatchMatchingNet(2, encoder="resnet18", width=0.25, shared=True))
    with pytest.raises(LandmarkError, match=r"matcher\.pt does not fit"):
        load_matcher(matcher(), path)


# --- prepare_template_matching ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [2, 3])
def test_templates_are_read_from_a_dataset_with_the_trained_matcher(dims: int) -> None:
    network = prepare_template_matching(TemplateMatchingNet(matcher(dims), 2), Dataset([film(dims)] * 2), NAMES)
    assert not network.training
    by_hand = TemplateMatchingNet(matcher(dims), 2).eval()
    by_hand.set_templates(film(dims)["image"][None], film(dims)["points"][None])
    image = torch.rand(1, 1, *SIZE[dims])
    with torch.no_grad():
        torch.testing.assert_close(network(image), by_hand(image))


def test_the_file_holds_matcher_and_templates_and_knows_the_landmarks(tmp_path: Path) -> None:
    films = [film(), film(points=torch.tensor([[3.0, 4.0], [float("nan")] * 2]))]
    network = prepare_template_matching(TemplateMatchingNet(matcher(), 2), films, NAMES, tmp_path / "a" / "model.pt")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["model.pt"]
    content = read_checkpoint(tmp_path / "a" / "model.pt")
    assert content.landmark_names == tuple(NAMES)
    assert content.network_name == "TemplateMatchingNet"
    other = TemplateMatchingNet(matcher(seed=5), 2).eval()
    LandmarkCheckpointLoader(tmp_path / "a" / "model.pt", {"model": other}, landmark_names=NAMES)()
    image = torch.rand(1, 1, 40, 64)
    with torch.no_grad():
        torch.testing.assert_close(other(image), network(image), rtol=0, atol=0)
    with pytest.raises(LandmarkError, match="another order"):
        LandmarkCheckpointLoader(tmp_path / "a" / "model.pt", {"model": other}, landmark_names=NAMES[::-1])()
    with pytest.raises(LandmarkError, match="predicts 2 landmarks, this network 3"):
        LandmarkCheckpointLoader(tmp_path / "a" / "model.pt", {"model": TemplateMatchingNet(matcher(), 3)})()


@pytest.mark.parametrize(
    ("films", "names", "words"),
    [
        ([], NAMES, "0 images"),
        ([{"image": torch.rand(1, 64, 64)}], NAMES, r"template 0 has no \['points'\]; it holds \['image'\]"),
        ([film(), film(points=torch.tensor([[20.0, 30.0], [64.0, 12.0]]))], NAMES, "outside: 'nasion' at"),
        ([film()], [*NAMES, "menton"], "must hold 2 names"),
        ([film(points=torch.zeros(3, 2))], NAMES, r"points of shape \(3, 2\)"),
    ],
)
def test_templates_that_do_not_fit_leave_network_and_file_as_they_were(
    films: list[dict[str, Any]], names: list[str], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    network = prepare_template_matching(TemplateMatchingNet(matcher(), 2), [film()], NAMES, path)
    before, anchors = path.read_bytes(), network.anchors.clone()
    with pytest.raises(LandmarkError, match=words):
        prepare_template_matching(network, films, names, path)
    assert path.read_bytes() == before
    assert torch.equal(network.anchors, anchors)
