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

import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_landmarks.networks.blocks.encoders import VGGEncoder
from monai_landmarks.networks.nets.farnet import FARNet


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(dims: int = 2, encoder: str | nn.Module = "resnet18", **options) -> FARNet:
    return FARNet(dims, 1, 5, encoder, **{"width": 0.0625, **options})


def test_published_network_has_the_public_codes_active_parameters() -> None:
    with torch.device("meta"):
        net = FARNet(2, 3, 19, image_kernel_size=1)
        paper = FARNet(2, 3, 19)
    assert count(net) == 79_077_431 - 17_858_468
    assert count(net.encoder) == 6_953_856
    parts = {name: count(part) for name, part in paper.named_children()}
    assert count(paper) == sum(parts.values()) == 61_219_731
    for part in (*parts.values(), count(paper)):
        assert f"{part:,}" in FARNet.__doc__


def test_layers_are_those_described() -> None:
    with torch.device("meta"):
        aggregation = FARNet(2, 3, 19).aggregation
    layers = [
        (conv.in_channels, conv.out_channels, *conv.kernel_size[:1], *conv.stride[:1])
        for conv in aggregation.modules()
        if isinstance(conv, nn.Conv2d)
    ]
    assert layers == [
        (1024, 512, 3, 1),
        (512, 256, 1, 1),
        *((256 + 1024, 256, 1, 1), (256 + 512, 256, 1, 1), (256 + 256, 256, 1, 1)),
        *((256, 512, 3, 2), (512, 1024, 3, 2), (1024, 2048, 3, 2)),
        *((512 + 256, 512, 1, 1), (1024 + 256, 1024, 1, 1), (2048 + 256, 1024, 3, 1)),
        (1024, 256, 1, 1),
        *((256 + 1024, 256, 1, 1), (256 + 512, 256, 1, 1), (256 + 256, 128, 1, 1), (128 + 64, 64, 1, 1)),
    ]


def test_densenet_features_are_tapped_where_published() -> None:
    net = small(encoder="densenet121", width=0.125).eval()
    features = net.encoder.features
    x = torch.randn(1, 1, 64, 96)
    c1 = features.conv0(x)
    c2 = features.denseblock1(features.pool0(F.relu(features.norm0(c1))))
    c3 = features.denseblock2(features.transition1(c2))
    c4 = features.denseblock3(features.transition2(c3))
    c5 = features.norm5(features.denseblock4(features.transition3(c4)))
    for got, expected in zip(net.encoder(x), (c1, c2, c3, c4, c5), strict=True):
        assert torch.equal(got, expected)
    assert c1.min() < 0  # neither normalised nor rectified
    assert c5.min() < 0


@pytest.mark.parametrize(
    ("dims", "size", "half"),
    [(2, (75, 50), (38, 25)), (2, (31, 65), (16, 33)), (2, (64, 32), (32, 16)), (3, (33, 18, 41), (17, 9, 21))],
)
@pytest.mark.parametrize("refine", [True, False])
def test_any_size_trains_coarse_and_fine_and_predicts_fine(
    dims: int, size: tuple[int, ...], half: tuple[int, ...], refine: bool
) -> None:
    net = small(dims, refine=refine)
    image = torch.randn(2, 1, *size)
    coarse, fine = net(image)
    assert coarse.shape == (2, 5, *half)
    assert fine.shape == (2, 5, *size)
    assert torch.is_tensor(net.eval()(image))
    assert net(image).shape == fine.shape


@pytest.mark.parametrize(
    ("encoder", "dims"), [("densenet121", 2), ("densenet121", 3), ("vgg16", 2), ("hrnet_w18", 2), ("resnet50", 2)]
)
def test_every_parameter_learns(encoder: str, dims: int) -> None:
    torch.manual_seed(0)
    net = small(dims, encoder, width=0.125, norm="group")
    net(torch.randn(2, 1, *(64, 32, 32)[:dims])).fine.square().mean().backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    silent = [name for name, p in net.named_parameters() if name.endswith("conv.weight") and not p.grad.any()]
    assert not dead
    assert not silent


def test_evaluation_depends_on_the_coarse_head_only_through_refinement() -> None:
    net = small().eval()
    image = torch.randn(1, 1, 64, 64)
    before = net(image)
    nn.init.normal_(net.coarse_head[1].weight)
    assert not torch.equal(net(image), before)  # the refinement is guided by the coarse heatmaps


def test_without_refinement_fine_is_coarse_enlarged() -> None:
    net = small(refine=False)
    coarse, fine = net(torch.randn(2, 1, 64, 32))
    torch.testing.assert_close(fine, F.interpolate(coarse, scale_factor=2, mode="bilinear"))
    assert not hasattr(net, "fine_head")


def test_coarse_pixel_is_centred_between_the_two_fine_ones() -> None:
    ramp = torch.arange(32.0)[:, None].expand(32, 32)[None, None]
    fine = small().aggregation.enlarge(ramp)[0, 0, :, 0]
    torch.testing.assert_close(fine[1:-1], (torch.arange(1.0, 63.0) - 0.5) / 2)


def test_vgg_gives_its_first_block_to_the_refinement() -> None:
    net = small(encoder="vgg16", width=0.125)
    assert not hasattr(net, "image_layer")
    assert net.fine_head[0].in_channels == 8 + 8 + 5
    assert net(torch.randn(2, 1, 40, 33)).fine.shape == (2, 5, 40, 33)


def test_norm_reaches_every_part_and_single_images_train() -> None:
    kinds = {"batch": nn.BatchNorm2d, "group": nn.GroupNorm, "instance": nn.InstanceNorm2d}
    for norm, kind in kinds.items():
        net = small(norm=norm)
        net(torch.randn(1, 1, 64, 64)).fine.mean().backward()
        found = {type(m) for m in net.modules() if "Norm" in type(m).__name__}
        assert found == {kind}


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_single_image_norms_answer_alike_in_both_modes(norm: str) -> None:
    net, image = small(norm=norm), torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(net(image).fine, net.eval()(image))


def test_bfloat16_autocast_agrees_with_float32() -> None:
    torch.manual_seed(0)
    net = small().eval()
    image = torch.randn(1, 1, 64, 48)
    expected = net(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = net(image).float()
    assert (mixed - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("dims", [2, 3])
def test_export_and_state_dict_give_the_same_heatmaps(dims: int) -> None:
    net = small(dims).eval()
    image = torch.randn(1, 1, *(40, 33, 32)[:dims])
    with torch.no_grad():
        expected = net(image)
        torch.testing.assert_close(torch.export.export(net, (image,)).module()(image), expected)
        buffer = io.BytesIO()
        torch.save(net.state_dict(), buffer)
        buffer.seek(0)
        again = small(dims).eval()
        again.load_state_dict(torch.load(buffer, weights_only=True))
        torch.testing.assert_close(again(image), expected)


def test_encoder_can_be_a_module() -> None:
    net = FARNet(2, 1, 3, VGGEncoder(2, 1, (1, 1, 1, 1, 1), width=0.05), width=0.05)
    assert net.eval()(torch.zeros(1, 1, 33, 32)).shape == (1, 3, 33, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spatial_dims": 1}, "2 or 3"),
        ({"num_landmarks": 0}, "num_landmarks"),
        ({"in_channels": 0}, "in_channels"),
        ({"encoder": "densnet121"}, "densenet121"),
        ({"width": 0}, "width"),
        ({"encoder": nn.Identity()}, "strides"),
        ({"encoder": nn.Identity(), "pretrained": True}, "name"),
    ],
)
def test_wrong_arguments_are_refused_by_the_constructor(arguments: dict, message: str) -> None:
    defaults = {"spatial_dims": 2, "in_channels": 1, "num_landmarks": 5, "encoder": "resnet18", "width": 0.0625}
    with pytest.raises(ValueError, match=message):
        FARNet(**{**defaults, **arguments})
