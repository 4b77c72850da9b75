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
"""Encoders of timm itself, where it is installed: ``pip install monai_landmarks[timm]``."""

from __future__ import annotations

import pytest
import torch
from monai.utils import optional_import

from monai_landmarks.networks.blocks.encoders import STRIDES, build_encoder, feature_maps
from monai_landmarks.networks.nets.farnet import FARNet

# timm needs torchvision; one that was built for another PyTorch fails while it is imported, and not with an ImportError.
INSTALLED = optional_import("timm")[1]
pytestmark = pytest.mark.skipif(
    not INSTALLED, reason="timm is not installed, or its torchvision does not fit to PyTorch"
)

SMALL = ("test_resnet", "test_efficientnet")
"""Networks that timm has for tests: half a million weights, features at every stride."""


@pytest.mark.parametrize("name", SMALL)
def test_maps_are_those_that_timm_announces(name: str) -> None:
    encoder = build_encoder(name, 2, in_channels=1)
    found = feature_maps(encoder, 2, in_channels=1)
    info = encoder.feature_info
    assert tuple(info.reduction()) == STRIDES
    assert [found[stride][1] for stride in STRIDES] == info.channels()


def test_network_with_an_encoder_of_timm_learns() -> None:
    network = FARNet(2, in_channels=1, num_landmarks=3, encoder=SMALL[0], width=0.125)
    image = torch.rand(2, 1, 33, 50)
    coarse, fine = network(image)
    assert fine.shape == (2, 3, 33, 50)
    (coarse.square().mean() + fine.square().mean()).backward()
    assert all(p.grad is not None for p in network.encoder.parameters())


def test_unknown_name_and_a_model_without_features_at_every_stride_are_refused() -> None:
    with pytest.raises(ValueError, match=r"timm .* does not know"):
        build_encoder("no_such_network", 2, 1)
    with pytest.raises(ValueError, match="strides"):
        FARNet(2, in_channels=1, num_landmarks=3, encoder="test_vit", width=0.125)
