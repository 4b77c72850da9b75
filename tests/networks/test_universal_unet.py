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
"""Universal U-Net and its baselines: published sizes, shapes, whose weights learn, and the view of one data set."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.networks import GU2Net, UniversalGlobalNet, UniversalUNet

PAPER = {"head": 19, "hand": 37, "chest": 6}
SMALL = {"head": 3, "hand": 5}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def unet(dims: int, convolution: str = "separable", **options) -> UniversalUNet:
    return UniversalUNet(dims, SMALL, **{"channels": (4, 6, 8), "convolution": convolution, **options})


def global_net(dims: int, **options) -> UniversalGlobalNet:
    return UniversalGlobalNet(dims, SMALL, **{"channels": 4, "dilations": (1, 2), **options})


def gu2net(dims: int, **options) -> GU2Net:
    return GU2Net(dims, SMALL, **{"channels": (4, 6, 8), "global_channels": 4, "dilations": (1, 2), **options})


def shared(dims: int, **options) -> UniversalUNet:
    return unet(dims, "shared", **options)


def own(dims: int, **options) -> UniversalUNet:
    return unet(dims, "own", **options)


NETWORKS = [unet, shared, own, global_net, gu2net]
SIZES = [(2, (33, 29)), (2, (5, 40)), (2, (16, 32)), (3, (9, 14, 11))]


@pytest.mark.parametrize(
    ("convolution", "number"), [("separable", 2_117_630), ("shared", 17_306_878), ("own", 51_911_806)]
)
def test_the_published_number_of_parameters(convolution: str, number: int) -> None:
    with torch.device("meta"):
        assert count(UniversalUNet(2, PAPER, convolution=convolution)) == number


def test_the_parts_of_the_published_number() -> None:
    with torch.device("meta"):
        net = UniversalUNet(2, PAPER)
    sums = dict.fromkeys(("depthwise", "pointwise", "normalization", "ends"), 0)
    for name, parameter in net.named_parameters():
        sums[next((part for part in sums if f".{part}." in name), "ends")] += parameter.numel()
    assert sums == {"depthwise": 161_280, "pointwise": 1_925_440, "normalization": 26_496, "ends": 4_414}
    assert sum(p.numel() for p in net.shared_parameters()) == 1_925_440


def test_layers_run_in_the_order_of_the_published_network() -> None:
    """Widths seen by each 3-wide convolution, level by level down and up again."""
    with torch.device("meta"):
        net = UniversalUNet(2, {"head": 19})
    widths = [(m.in_channels, m.out_channels) for name, m in net.named_modules() if name.endswith("pointwise")]
    down = [
        (64, 64),
        (64, 64),
        (64, 128),
        (128, 128),
        (128, 256),
        (256, 256),
        (256, 512),
        (512, 512),
        *[(512, 512)] * 2,
    ]
    up = [(1024, 512), (512, 256), (512, 256), (256, 128), (256, 128), (128, 64), (128, 64), (64, 64)]
    assert widths == down + up


@pytest.mark.parametrize("build", NETWORKS)
@pytest.mark.parametrize(("dims", "size"), SIZES)
def test_any_size_keeps_its_shape_and_only_its_data_set_learns(build, dims: int, size: tuple[int, ...]) -> None:
    net = build(dims)
    logits = net(torch.randn(2, 1, *size), "hand")
    assert logits.shape == (2, 5, *size)
    logits.square().sum().backward()
    assert all(p.grad is None for p in net.dataset_parameters("head"))
    for p in [*net.dataset_parameters("hand"), *net.shared_parameters()]:
        assert p.grad is not None
        assert torch.isfinite(p.grad).all()


@pytest.mark.parametrize("build", NETWORKS)
def test_parameters_are_shared_or_of_one_data_set(build) -> None:
    net = build(2)
    groups = [*map(net.dataset_parameters, net.dataset_names), net.shared_parameters()]
    ids = [id(p) for group in groups for p in group]
    assert sorted(ids) == sorted(id(p) for p in net.parameters())


@pytest.mark.parametrize("build", NETWORKS)
def test_data_sets_may_have_other_channels(build) -> None:
    net = build(2, in_channels={"head": 1, "hand": 3})
    assert net(torch.zeros(2, 3, 9, 8), "hand").shape == (2, 5, 9, 8)
    assert net(torch.zeros(2, 1, 9, 8), "head").shape == (2, 3, 9, 8)


@pytest.mark.parametrize("build", NETWORKS)
def test_batch_of_one_and_bfloat16_autocast(build) -> None:
    torch.manual_seed(0)
    net = build(2)
    image = torch.randn(1, 1, 24, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(net(image, "head")).all()
    net.eval()
    expected = net(image, "head")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = net(image, "head").float()
    assert (mixed - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("build", NETWORKS)
@pytest.mark.parametrize("dims", [2, 3])
def test_float64_gradient_is_the_slope_of_the_output(build, dims: int) -> None:
    torch.manual_seed(1)
    # A step small enough to meet no kink of the rectifiers and the pooling.
    net = build(dims).double().eval()
    image = torch.randn(1, 1, *(9, 8, 8)[:dims], dtype=torch.float64, requires_grad=True)
    direction, step = torch.randn_like(image), 1e-6
    total = net(image, "head").sum()
    (slope,) = torch.autograd.grad(total, image)
    with torch.no_grad():
        numeric = (net(image + step * direction, "head") - net(image - step * direction, "head")).sum() / (2 * step)
    torch.testing.assert_close((slope * direction).sum(), numeric, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("build", NETWORKS)
def test_the_view_is_the_network_of_one_data_set(build) -> None:
    net = build(2).eval()
    view = net.for_dataset("hand")
    image = torch.randn(1, 1, 13, 10)
    assert torch.equal(view(image), net(image, "hand"))
    assert view.num_landmarks == 5
    assert list(view.state_dict()) == list(net.state_dict())
    assert [id(p) for p in view.parameters()] == [id(p) for p in net.parameters()]
    view.train()
    assert all(m.training for m in net.modules())
    other = build(2).eval()
    other.for_dataset("head").load_state_dict(net.state_dict())
    assert torch.equal(other(image, "hand"), net.eval()(image, "hand"))
    again = copy.deepcopy(view)
    next(again.network.parameters()).data.add_(1.0)
    assert torch.equal(next(again.parameters()), next(again.network.parameters()))
    assert not torch.equal(next(view.parameters()), next(again.parameters()))


@pytest.mark.parametrize("dims", [2, 3])
def test_the_view_can_be_exported(dims: int) -> None:
    view = gu2net(dims).eval().for_dataset("hand")
    image = torch.randn(1, 1, *(13, 10, 9)[:dims])
    exported = torch.export.export(view, (image,)).module()
    torch.testing.assert_close(exported(image), view(image))


def test_the_view_can_be_traced() -> None:
    view = gu2net(2).eval().for_dataset("hand")
    image = torch.randn(1, 1, 13, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a trace fixes the image's size, and says so
        traced = torch.jit.trace(view, image)
    torch.testing.assert_close(traced(image), view(image))


def test_forward_hooks_of_the_view_and_the_network_run() -> None:
    net, seen = unet(2), []
    view = net.for_dataset("head")
    net.register_forward_hook(lambda *_: seen.append("network"))
    view.register_forward_hook(lambda *_: seen.append("view"))
    view(torch.zeros(2, 1, 8, 8))
    assert seen == ["network", "view"]


@pytest.mark.parametrize(
    ("datasets", "options", "message"),
    [
        ({}, {}, "must name each data set"),
        (["head"], {}, "must name each data set"),
        ({"head": 0}, {}, "at least 1 landmark"),
        ({"head": 2}, {"in_channels": 0}, "1 image channel"),
        ({"my head": 2}, {}, "cannot be called 'my head'"),
        ({"head.ap": 2}, {}, "cannot be called"),
        ({"keys": 2}, {}, "cannot be called 'keys'"),
        ({"head": 2, "hand": 2}, {"in_channels": {"head": 1}}, "`in_channels` is for 'head'"),
        ({"head": 2}, {"convolution": "depthwise"}, "separable"),
        ({"head": 2}, {"channels": ()}, "width of each resolution"),
        ({"head": 2}, {"kernel_size": 2}, "odd"),
    ],
)
def test_wrong_arguments_fail_in_the_constructor(datasets, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UniversalUNet(2, datasets, **options)


@pytest.mark.parametrize("build", NETWORKS)
def test_wrong_dimensions_fail_in_the_constructor(build) -> None:
    with pytest.raises(ValueError, match="2 or 3"):
        build(4)


@pytest.mark.parametrize("build", NETWORKS)
@pytest.mark.parametrize("name", ["hnad", None, ["head", "head"]])
def test_an_unknown_data_set_is_answered_with_the_known_ones(build, name) -> None:
    net = build(2)
    for use in (lambda: net(torch.zeros(1, 1, 8, 8), name), lambda: net.for_dataset(name)):
        with pytest.raises(LandmarkError, match=r"knows no data set .* it knows 'head', 'hand'"):
            use()
    with pytest.raises(LandmarkError, match="did you mean 'hand'"):
        net.dataset_parameters("hnd")
