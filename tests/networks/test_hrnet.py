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

from monai_landmarks.networks.blocks.high_resolution import HRNetBackbone
from monai_landmarks.networks.nets.hrnet import HRNet

PUBLIC_MILLIONS = {18: 21.30, 30: 37.71, 32: 41.23, 40: 57.55, 44: 67.06, 48: 77.47, 64: 128.06}


def small(dims: int = 2, **options) -> HRNet:
    return HRNet(dims, 1, 5, **{"channels": 2, "stem_channels": 4, **options})


def classifier_parameters(channels: int) -> int:
    """The public classifier: a bottleneck per branch, strided convolutions that join them, 2048 features, 1000 classes."""
    total = 0
    for branch, plane in enumerate((32, 64, 128, 256)):
        inputs, wide = channels * 2**branch, 4 * plane
        total += inputs * plane + plane * plane * 9 + plane * wide + inputs * wide + 2 * (2 * plane + 2 * wide)
    for inputs, outputs in ((128, 256), (256, 512), (512, 1024)):
        total += inputs * outputs * 9 + 3 * outputs
    return total + 1024 * 2048 + 3 * 2048 + 2048 * 1000 + 1000


@pytest.mark.parametrize(("channels", "millions"), PUBLIC_MILLIONS.items())
def test_backbone_and_public_classifier_have_the_public_number_of_parameters(channels: int, millions: float) -> None:
    with torch.device("meta"):
        backbone = HRNetBackbone(2, 3, channels)
    total = sum(p.numel() for p in backbone.parameters()) + classifier_parameters(channels)
    assert total / 1e6 == pytest.approx(millions, abs=0.0101)  # some tables truncate
    if channels == 18:
        assert total == 21_299_004
        assert f"{total - classifier_parameters(18):,}" in HRNetBackbone.__doc__


PUBLIC_NAMES = {
    "conv1.weight": (64, 3, 3, 3),
    "bn1.running_mean": (64,),
    "conv2.weight": (64, 64, 3, 3),
    "bn2.bias": (64,),
    "layer1.0.conv1.weight": (64, 64, 1, 1),
    "layer1.0.bn3.weight": (256,),
    "layer1.0.downsample.0.weight": (256, 64, 1, 1),
    "layer1.0.downsample.1.running_var": (256,),
    "layer1.3.conv2.weight": (64, 64, 3, 3),
    "transition1.0.0.weight": (18, 256, 3, 3),
    "transition1.0.1.weight": (18,),
    "transition1.1.0.0.weight": (36, 256, 3, 3),
    "stage2.0.branches.0.0.conv1.weight": (18, 18, 3, 3),
    "stage2.0.branches.1.3.bn2.weight": (36,),
    "stage2.0.fuse_layers.0.1.0.weight": (18, 36, 1, 1),
    "stage2.0.fuse_layers.0.1.1.bias": (18,),
    "stage2.0.fuse_layers.1.0.0.0.weight": (36, 18, 3, 3),
    "transition2.2.0.0.weight": (72, 36, 3, 3),
    "transition2.2.0.1.running_mean": (72,),
    "stage3.3.branches.2.3.conv2.weight": (72, 72, 3, 3),
    "stage3.0.fuse_layers.2.0.0.0.weight": (18, 18, 3, 3),
    "stage3.0.fuse_layers.2.0.1.0.weight": (72, 18, 3, 3),
    "transition3.3.0.0.weight": (144, 72, 3, 3),
    "stage4.2.branches.3.3.bn2.num_batches_tracked": (),
    "stage4.2.fuse_layers.0.3.0.weight": (18, 144, 1, 1),
    "stage4.0.fuse_layers.3.0.2.0.weight": (144, 18, 3, 3),
    "stage4.0.fuse_layers.3.0.2.1.bias": (144,),
}


def test_names_and_shapes_are_those_of_the_public_checkpoint() -> None:
    with torch.device("meta"):
        state = HRNetBackbone(2, 3).state_dict()
    assert len(state) == 1830  # the public checkpoint's entries without its classifier
    assert {name: tuple(state[name].shape) for name in PUBLIC_NAMES} == PUBLIC_NAMES


@pytest.mark.parametrize(("dims", "size"), [(2, (70, 41)), (2, (31, 64)), (3, (33, 20, 34))])
def test_any_size_keeps_its_shape_and_every_parameter_learns(dims: int, size: tuple[int, ...]) -> None:
    net = small(dims)
    heatmaps = net(torch.randn(2, 1, *size))
    assert heatmaps.shape == (2, 5, *size)
    heatmaps.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_exchange_adds_every_branch_to_every_other() -> None:
    torch.manual_seed(0)
    module = HRNetBackbone(2, 1, 2, 4).stage4[0].eval()
    maps = [torch.randn(1, 2 * 2**i, 16 // 2**i, 16 // 2**i) for i in range(4)]
    expected = module([x.clone() for x in maps])
    for source in range(4):
        changed = [x.clone() for x in maps]
        changed[source] += torch.randn_like(changed[source])
        assert all(not torch.equal(a, b) for a, b in zip(module(changed), expected, strict=True))


def test_group_norm_trains_one_image_and_export_agrees() -> None:
    net = small(norm="group")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    net(torch.randn(1, 1, 32, 32)).mean().backward()
    net.eval()
    image = torch.randn(1, 1, 40, 33)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(net, (image,)).module()(image), net(image))


@pytest.mark.parametrize(
    ("arguments", "message"), [({"spatial_dims": 4}, "2 or 3"), ({"num_landmarks": 0}, "num_landmarks")]
)
def test_hrnet_refuses_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HRNet(**{"spatial_dims": 2, "in_channels": 1, "num_landmarks": 1, **arguments})
