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
"""Adding a data set to a trained network: what learns, what must not change, and loading across lists of data sets."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.networks import GU2Net, UniversalGlobalNet, UniversalUNet
from monai_landmarks.networks.blocks.separable_convolution import DatasetModules

SMALL = {"head": 3, "chest": 2}


def build(kind: str, datasets: dict[str, int] | None = None) -> nn.Module:
    names = datasets or SMALL
    if kind == "gu2net":
        return GU2Net(2, names, channels=(4, 6), global_channels=4, dilations=(1, 2))
    if kind == "global":
        return UniversalGlobalNet(2, names, channels=4, dilations=(1, 2))
    return UniversalUNet(2, names, channels=(4, 6), convolution=kind)


KINDS = ["separable", "shared", "own", "global", "gu2net"]


def learn(net: nn.Module, dataset: str, parameters, steps: int = 3) -> None:
    optimizer = torch.optim.AdamW(parameters, 0.05, weight_decay=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        net(3 + torch.randn(2, net.in_channels[dataset], 12, 12), dataset).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("like", [None, "head"])
@pytest.mark.parametrize("kind", KINDS)
def test_old_predictions_stay_to_the_bit_while_the_new_data_set_learns(kind: str, like: str | None) -> None:
    torch.manual_seed(0)
    net = build(kind)
    image = torch.randn(2, 1, 13, 12)
    learn(net, "head", net.parameters())
    net.eval()
    before = {name: net(image, name) for name in SMALL}
    net.train()
    net.add_dataset("hand", 5, in_channels=2, like=like)
    assert net.dataset_names == ("head", "chest", "hand")
    new = [p.detach().clone() for p in net.dataset_parameters("hand")]
    learn(net.train(), "hand", net.parameters())  # every parameter given: the frozen ones must not move even so
    net(torch.randn(2, 1, 12, 12), "head")  # in training mode: running statistics must not move either
    assert all(not torch.equal(a, b) for a, b in zip(new, net.dataset_parameters("hand"), strict=True) if b.dim() > 1)
    net.eval()
    assert net(torch.randn(2, 2, 13, 12), "hand").shape == (2, 5, 13, 12)
    for name in SMALL:
        assert torch.equal(net(image, name), before[name])


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_new_weights_learn(kind: str) -> None:
    net = build(kind)
    net.add_dataset("hand", 5)
    new = {id(p) for p in net.dataset_parameters("hand")}
    assert new == {id(p) for p in net.parameters() if p.requires_grad}
    net(torch.randn(2, 1, 12, 12), "hand").sum().backward()
    assert new == {id(p) for p in net.parameters() if p.grad is not None}


def test_new_normalisations_do_learn_their_statistics() -> None:
    net = build("gu2net").train()
    net.add_dataset("hand", 5)
    learn(net, "hand", net.dataset_parameters("hand"), steps=2)
    seen = {k.split(".")[-2]: int(v) for k, v in net.state_dict().items() if "normalization" in k and "tracked" in k}
    assert seen == {"head": 0, "chest": 0, "hand": 2}


def test_shared_convolutions_get_an_input_and_a_heatmap_layer_only() -> None:
    net = build("shared")
    before = set(net.state_dict())
    net.add_dataset("hand", 5)
    ends = {f"{part}.hand.{name}" for part in ("inputs", "heads") for name in ("weight", "bias")}
    assert set(net.state_dict()) - before == ends


def test_a_data_set_costs_about_four_fifths_of_a_million_weights() -> None:
    with torch.device("meta"):
        net = GU2Net(2, {"head": 19, "chest": 6})
        net.add_dataset("hand", 37)
    local = 10 * 5376 + 2 * 4416 + 128 + 65 * 37  # depth-wise, normalisation, input layer, heatmap layer
    whole = 640 + (9 * 64 * 37 + 64) + 5 * (9 * 128**2 + 3 * 128) + 129 * 37
    assert sum(p.numel() for p in net.dataset_parameters("hand")) == local + whole == 831_114


@pytest.mark.parametrize("kind", KINDS)
def test_like_copies_what_fits(kind: str) -> None:
    torch.manual_seed(0)
    net = build(kind)
    learn(net, "head", net.parameters())
    net.add_dataset("twin", 3, like="head")
    net.add_dataset("hand", 5, like="head")
    net.eval()
    image = torch.randn(1, 1, 12, 12)
    assert torch.equal(net(image, "twin"), net(image, "head"))
    for part in (module for module in net.modules() if isinstance(module, DatasetModules)):
        old, new = part["head"].state_dict(), part["hand"].state_dict()
        for key in old:
            assert torch.equal(old[key], new[key]) == (old[key].shape == new[key].shape)


def test_the_new_weights_are_of_the_dtype_and_device_of_the_rest() -> None:
    net = build("gu2net").double()
    net.add_dataset("hand", 5)
    assert {p.dtype for p in net.parameters()} == {torch.float64}
    assert net(torch.randn(1, 1, 12, 12, dtype=torch.float64), "hand").dtype == torch.float64
    with torch.device("meta"):
        meta = build("gu2net")
    meta.add_dataset("hand", 5)
    assert {p.device.type for p in meta.parameters()} == {"meta"}


def test_thawing_trains_everything_again() -> None:
    net = build("gu2net")
    net.add_dataset("hand", 5)
    assert not net.local.inputs["head"].training
    net.requires_grad_(True).train()
    assert all(m.training for m in net.modules())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("head", 5), "there is a data set 'head' already"),
        (("hand", 0), "at least 1 landmark"),
        (("left hand", 5), "cannot be called"),
        (("hand", 5, 1, "spine"), "knows no data set 'spine'"),
    ],
)
def test_a_refused_data_set_changes_nothing(arguments: tuple, message: str) -> None:
    net = build("gu2net")
    keys = list(net.state_dict())
    with pytest.raises(LandmarkError, match=message):
        net.add_dataset(*arguments)
    assert net.dataset_names == net.local.dataset_names == ("head", "chest")
    assert list(net.state_dict()) == keys
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_weights_go_with_the_added_data_set(kind: str) -> None:
    net = build(kind)
    net.add_dataset("hand", 5)
    again = build(kind, {**SMALL, "hand": 5})
    again.load_state_dict(net.state_dict())
    image = torch.randn(2, 1, 12, 12)
    assert torch.equal(again.eval()(image, "hand"), net.eval()(image, "hand"))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_other_data_sets_are_refused_with_both_lists(kind: str) -> None:
    saved = build(kind, {"head": 3, "hand": 5}).state_dict()
    lists = r"the checkpoint holds head, hand; this network has head, chest: build the network with datasets="
    with pytest.raises(LandmarkError, match=lists):
        build(kind).load_state_dict(saved)
    with pytest.raises(LandmarkError, match=r"or call add_dataset\('hand', ...\) before loading"):
        build(kind, {"head": 3}).for_dataset("head").load_state_dict(saved)
    with pytest.raises(LandmarkError, match=r"and add_dataset\('spine', ...\) after it"):
        build(kind, {"head": 3, "hand": 5, "spine": 4}).load_state_dict(saved)
    with pytest.raises(LandmarkError, match="head: 3 there, 4 here"):
        build(kind, {"head": 4, "hand": 5}).load_state_dict(saved)
    build(kind, {"head": 3, "hand": 5, "spine": 4}).load_state_dict(saved, strict=False)


def test_weights_of_another_kind_are_left_to_torch() -> None:
    with pytest.raises(RuntimeError, match="Missing key"):
        build("gu2net").load_state_dict(nn.Conv2d(1, 1, 1).state_dict())
