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
"""Checkpoints of networks for several data sets: other data sets are named, not other layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.handlers import LandmarkCheckpointLoader, checkpoint_compat
from monai_landmarks.handlers.checkpoint_files import explain_state
from monai_landmarks.networks import UniversalUNet


def network(**datasets: int) -> UniversalUNet:
    return UniversalUNet(2, datasets, channels=(2, 3))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    torch.save(network(head=3, hand=5).state_dict(), path)
    return path


def test_the_loader_names_both_lists(file: Path) -> None:
    net = network(head=3, chest=2)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    for given in (net, net.for_dataset("head"), nn.DataParallel(net)):
        with pytest.raises(
            LandmarkError, match=r"model\.pt does not fit: the checkpoint holds head, hand; this network"
        ):
            LandmarkCheckpointLoader(file, {"model": given})()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_the_loader_names_the_numbers_of_landmarks(file: Path) -> None:
    with pytest.raises(LandmarkError, match="hand: 5 there, 6 here"):
        checkpoint_compat(file, network(head=3, hand=6))


def test_the_loader_loads_what_fits_into_network_and_view(file: Path) -> None:
    saved = torch.load(file, weights_only=True)
    net, other = network(head=3, hand=5), network(head=3, hand=5)
    LandmarkCheckpointLoader(file, {"model": net})()
    LandmarkCheckpointLoader(file, {"model": other.for_dataset("hand")})()
    for loaded in (net, other):
        assert all(torch.equal(v, saved[k]) for k, v in loaded.state_dict().items())


def test_the_loader_loads_a_part_when_asked_to(file: Path) -> None:
    net = network(head=3, chest=2)
    LandmarkCheckpointLoader(file, {"model": net}, strict=False)()
    saved = torch.load(file, weights_only=True)
    assert torch.equal(net.heads["head"].weight, saved["heads.head.weight"])


def test_other_widths_are_still_explained() -> None:
    wider = UniversalUNet(2, {"head": 3}, channels=(4, 6))
    assert "the same layers in other sizes" in (explain_state(wider.state_dict(), network(head=3)) or "")
