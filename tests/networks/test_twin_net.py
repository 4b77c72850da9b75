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

import pytest
import torch
from torch import nn

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.networks.nets.twin_net import TwinNet


def conv(out: int = 3) -> nn.Module:
    return nn.Conv2d(1, out, 3, padding=1)


def test_training_gives_both_and_evaluation_the_first_or_the_mean() -> None:
    image = torch.rand(2, 1, 6, 5)
    twins = TwinNet(conv(), conv())
    ours, theirs = twins(image)
    assert not torch.allclose(ours, theirs)
    assert torch.equal(twins.eval()(image), ours)
    mean = TwinNet(conv(), conv(), predict="mean")
    mean.load_state_dict(twins.state_dict())  # one file fits both
    assert torch.allclose(mean.eval()(image), (ours + theirs) / 2)
    assert torch.equal(mean.train()(image)[1], theirs)


def test_the_second_network_does_not_run_where_it_is_not_asked() -> None:
    twins = TwinNet(conv(), conv()).eval()
    twins.second.register_forward_hook(lambda *_: pytest.fail("the second network ran"))
    twins(torch.rand(1, 1, 4, 4))


def test_further_arguments_reach_both() -> None:
    class Named(nn.Linear):
        num_landmarks = 7

        def forward(self, image: torch.Tensor, dataset: str) -> torch.Tensor:  # type: ignore[override]
            assert dataset == "hand"
            return super().forward(image)

    twins = TwinNet(Named(2, 2), Named(2, 2))
    assert len(twins(torch.rand(1, 2), "hand")) == 2
    assert twins.num_landmarks == 7
    assert TwinNet(conv(), conv()).num_landmarks is None


def test_what_are_no_twins_is_refused() -> None:
    one = conv()
    with pytest.raises(LandmarkError, match="'%network' repeats the definition"):
        TwinNet(one, one)
    with pytest.raises(LandmarkError, match=r"of one build, these differ in 2 weights, such as 'bias'"):
        TwinNet(conv(3), conv(4))
    copy = conv()
    copy.load_state_dict(one.state_dict())
    with pytest.raises(LandmarkError, match="equal weights and would choose alike"):
        TwinNet(one, copy)
    with pytest.raises(ValueError, match="second"):
        TwinNet(conv(), conv(), predict="second")
