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
"""GU2Net: published sizes, the product of local and global heatmap, and the global network."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_landmarks.networks import GU2Net, UniversalGlobalNet
from monai_landmarks.networks.nets.gu2net import _product
from monai_landmarks.networks.nets.universal_global_net import DilatedNetwork

PAPER = {"head": 19, "hand": 37, "chest": 6}
EXTREME = torch.tensor([-200.0, -90.0, -20.0, -1.0, 0.0, 1.0, 20.0, 90.0, 200.0])


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(dims: int, **options) -> GU2Net:
    defaults = {"channels": (4, 6, 8), "global_channels": 4, "dilations": (1, 2)}
    return GU2Net(dims, {"head": 3, "hand": 5}, **{**defaults, **options})


def test_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        net = GU2Net(2, PAPER)
        assert (count(net.local), count(net.global_networks), count(net)) == (2_117_630, 2_263_422, 4_381_052)
        assert count(UniversalGlobalNet(2, PAPER)) == 2_229_438
        assert count(UniversalGlobalNet(2, PAPER, dilations=(1, 2, 5))) == 1_342_398


@pytest.mark.parametrize("dims", [2, 3])
def test_forward_is_the_logit_of_the_product(dims: int) -> None:
    torch.manual_seed(0)
    net = small(dims).double().eval()
    image = torch.randn(2, 1, *(13, 18, 9)[:dims], dtype=torch.float64)
    parts = net.explain(image, "hand")
    assert parts.heatmaps.shape == parts.local.shape == parts.global_.shape == (2, 5, *image.shape[2:])
    torch.testing.assert_close(parts.heatmaps, parts.local * parts.global_)
    torch.testing.assert_close(net(image, "hand").sigmoid(), parts.heatmaps)
    assert parts.local.std() > 0.01
    assert parts.global_.std() > 0.001


def test_product_of_extreme_logits_is_exact_and_has_gradients() -> None:
    local, coarse = (x.flatten().requires_grad_() for x in torch.meshgrid(EXTREME, EXTREME, indexing="ij"))
    logits = _product(local, coarse)
    # The same in twice the precision, where exp(400) is a number.
    wide = [x.detach().double() for x in (local, coarse)]
    exact = -torch.log(torch.exp(-wide[0]) + torch.exp(-wide[1]) + torch.exp(-wide[0] - wide[1]))
    torch.testing.assert_close(logits.double(), exact)
    torch.testing.assert_close(logits.sigmoid(), local.sigmoid() * coarse.sigmoid())
    F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), reduction="sum").backward()
    for x in (local, coarse):
        assert torch.isfinite(x.grad).all()
        assert (x.grad >= 0).all()


def test_product_has_the_right_gradient() -> None:
    torch.manual_seed(0)
    logits = [5 * torch.randn(12, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(_product, [x.detach().requires_grad_() for x in logits])


def test_gradients_reach_the_local_network_through_the_global_one() -> None:
    net = small(2)
    image = torch.randn(1, 1, 16, 16)
    parts = net.explain(image, "head")
    (gradient,) = torch.autograd.grad(parts.global_.sum(), net.local.heads["head"].weight)
    assert gradient.abs().max() > 0


def test_the_global_network_sees_image_and_local_heatmap_at_every_fourth_voxel() -> None:
    """An oracle of strides and repeats, for one data set."""
    torch.manual_seed(0)
    net = small(2).eval()
    image = torch.randn(1, 1, 16, 24)
    body, local = net.global_networks["hand"], net.explain(image, "hand").local
    x = torch.cat([stem(t[..., ::4, ::4]) for stem, t in zip(body.stems, (image, local), strict=True)], dim=1)
    for conv, norm, _ in body.layers:
        x = norm(F.conv2d(x, conv.weight, conv.bias, padding=conv.dilation, dilation=conv.dilation)).clamp(min=0)
    x = body.head(x).repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(net.explain(image, "hand").global_, x.sigmoid())


def test_linear_resizing_is_no_blocks() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 1, 16, 16)
    nearest, linear = (
        small(2, resize=resize).eval().explain(image, "head").global_ for resize in ("nearest", "linear")
    )
    assert torch.equal(nearest, nearest[..., ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3))
    assert not torch.equal(linear[..., 5], linear[..., 6])


def test_the_dilations_reach_as_far_as_they_should() -> None:
    """Five dilated convolutions and the first see 1 + (1 + 2 + 5 + 2 + 1) = 12 coarse voxels to each side."""
    body = DilatedNetwork(2, [1], 1, channels=2, downsample=1, norm=("instance", {"affine": False}))
    for layer in body.layers:
        layer[1] = nn.Identity()
    for p in body.parameters():
        nn.init.ones_(p)
    image = torch.zeros(1, 1, 41, 41, requires_grad=True)
    body(image)[0, 0, 20, 20].backward()
    rows = image.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert (rows[0].item(), rows[-1].item()) == (8, 32)


def test_the_padding_of_an_odd_size_changes_nothing_at_divisible_sizes() -> None:
    net = small(2).eval()
    image = torch.randn(1, 1, 15, 16)
    padded = torch.cat([image, image[:, :, -1:]], dim=2)
    torch.testing.assert_close(net(image, "head"), net(padded, "head")[:, :, :15])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": "cubic"}, "nearest"),
        ({"dilations": ()}, "1 or more"),
        ({"downsample": 0}, "1 or more"),
        ({"global_channels": 5}, "multiple of 2"),
    ],
)
def test_wrong_arguments_fail_in_the_constructor(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(2, **options)
