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

import sys
from types import SimpleNamespace

import pytest
import torch
from monai.networks.nets import DenseNet, EfficientNetBNFeatures, ResNetFeatures
from torch import nn

from monai_landmarks.networks.blocks.encoders import ENCODERS, STRIDES, build_encoder, feature_maps
from monai_landmarks.networks.blocks.normalization import norm_of, replace_batch_norm

# parameters of torchvision's models without their classifiers
PUBLIC = {
    "densenet121": 7_978_856 - 1_025_000,
    "densenet169": 14_149_480 - 1_665_000,
    "densenet201": 20_013_928 - 1_921_000,
    "resnet18": 11_689_512 - 513_000,
    "resnet34": 21_797_672 - 513_000,
    "resnet50": 25_557_032 - 2_049_000,
    "resnet101": 44_549_160 - 2_049_000,
    "resnet152": 60_192_808 - 2_049_000,
    "vgg16": 138_357_544 - 123_642_856,
    "vgg19": 143_667_240 - 123_642_856,
    "vgg16_bn": 138_365_992 - 123_642_856,
    "vgg19_bn": 143_678_248 - 123_642_856,
}


class _WithoutCoarsest(nn.Module):
    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        return maps[:-1]


@pytest.mark.parametrize("name", PUBLIC)
def test_encoder_has_the_public_models_parameters(name: str) -> None:
    with torch.device("meta"):
        encoder = build_encoder(name, 2, in_channels=3)
    assert sum(p.numel() for p in encoder.parameters()) == PUBLIC[name]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", [name for name in ENCODERS if name == "hrnet_w18" or "hrnet" not in name])
def test_every_name_gives_five_strides_in_2d_and_3d(name: str, dims: int) -> None:
    with torch.device("meta"):
        encoder = build_encoder(name, dims, in_channels=1, width=0.0625)
    maps = feature_maps(encoder, dims, 1)
    assert set(STRIDES) <= set(maps)
    for stride, (position, channels) in maps.items():
        image = torch.empty(1, 1, *[96] * dims, device="meta")
        assert encoder.eval()(image)[position].shape == (1, channels, *[96 // stride] * dims)


def test_published_channels() -> None:
    with torch.device("meta"):
        channels = {
            name: [feature_maps(build_encoder(name, 2, 3), 2, 3)[stride][1] for stride in STRIDES]
            for name in ("densenet121", "resnet50", "vgg16", "hrnet_w18")
        }
    assert channels == {
        "densenet121": [64, 256, 512, 1024, 1024],
        "resnet50": [64, 256, 512, 1024, 2048],
        "vgg16": [128, 256, 512, 512, 512],
        "hrnet_w18": [64, 18, 36, 72, 144],
    }


def test_resnet_and_vgg_have_torchvisions_names() -> None:
    with torch.device("meta"):
        resnet = build_encoder("resnet18", 2, 3).state_dict()
        vgg = build_encoder("vgg16", 2, 3).state_dict()
        vgg_bn = build_encoder("vgg16_bn", 2, 3).state_dict()
    for name in ("conv1.weight", "bn1.running_var", "layer2.0.downsample.1.weight", "layer4.1.bn2.bias"):
        assert name in resnet
    assert "layer2.0.downsample.0.bias" not in resnet
    indices = [int(name.split(".")[1]) for name in vgg if name.endswith("weight")]
    assert indices == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert vgg_bn["features.40.weight"].shape == (512, 512, 3, 3)


def test_feature_maps_leaves_the_encoder_as_it_was() -> None:
    encoder = build_encoder("resnet18", 2, 1, width=0.0625)
    encoder.bn1.eval()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    feature_maps(encoder, 2, 1)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert encoder.training
    assert not encoder.bn1.training


@pytest.mark.parametrize(
    "encoder",
    [
        EfficientNetBNFeatures("efficientnet-b0", pretrained=False, in_channels=1),
        ResNetFeatures("resnet18", pretrained=False, spatial_dims=2),
    ],
)
def test_monai_feature_extractors_are_encoders(encoder: nn.Module) -> None:
    assert set(STRIDES) <= set(feature_maps(encoder, 2, 1))


@pytest.mark.parametrize(
    ("encoder", "absent"),
    [
        (DenseNet(2, 1, 3, init_features=8, growth_rate=4), r"\[2, 4, 8, 16, 32\]"),
        (nn.Conv2d(1, 4, 3, 2, 1), r"\[4, 8, 16, 32\]"),
        (nn.Sequential(build_encoder("resnet18", 2, 1, width=0.0625), _WithoutCoarsest()), r"\[32\]"),
    ],
)
def test_modules_without_the_five_maps_are_refused(encoder: nn.Module, absent: str) -> None:
    with pytest.raises(ValueError, match=absent):
        feature_maps(encoder, 2, 1)


def test_names_of_timm_are_asked_for_only_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    created = []

    class Features(nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [nn.functional.avg_pool2d(x, stride) for stride in STRIDES]

    def create_model(name: str, **options) -> nn.Module:
        created.append((name, options))
        return Features()

    timm = SimpleNamespace(is_model="tf_net".__eq__, create_model=create_model, __version__="1.0", __spec__=None)
    monkeypatch.setitem(sys.modules, "timm", timm)
    assert isinstance(build_encoder("tf_net", 2, 2), Features)
    assert created == [("tf_net", {"pretrained": False, "features_only": True, "in_chans": 2})]
    with pytest.raises(ValueError, match="2D only"):
        build_encoder("tf_net", 3, 1)
    with pytest.raises(ValueError, match=r"timm 1\.0 does not know"):
        build_encoder("nothing", 2, 1)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="pip install timm"):
        build_encoder("tf_net", 2, 1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 18, 36, 64, 115, 1024])
def test_group_norm_divides_any_channels_and_stays_apart_from_instance_norm(channels: int) -> None:
    _, arguments = norm_of("group", channels)
    groups = arguments["num_groups"]
    assert channels % groups == 0
    assert groups <= 32
    assert channels < 4 or channels // groups >= 4


def test_replaced_norms_keep_names_and_refuse_what_is_more_than_batch_norm() -> None:
    class NormAct(nn.BatchNorm2d):
        pass

    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8))
    names = [name for name, _ in net.named_parameters()]
    for norm in ("group", "instance", ("group", {"num_groups": 4}), "batch"):
        replace_batch_norm(net, norm, 2)
        assert [name for name, _ in net.named_parameters()] == names
    with pytest.raises(ValueError, match="NormAct"):
        replace_batch_norm(nn.Sequential(NormAct(4)), "group", 2)


@pytest.mark.parametrize(
    ("arguments", "message"), [((1, 1), "2 or 3"), ((2, 1, -1.0), "width"), ((2, 1, float("nan")), "width")]
)
def test_wrong_encoder_arguments_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_encoder("resnet18", *arguments)
