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

from monai_landmarks.networks import LocalizationUNet, SpatialConfigurationNet
from monai_landmarks.networks.blocks import CubicUpsample, crop_to, pad_to_multiple


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small_scn(dims: int, **options) -> SpatialConfigurationNet:
    defaults = {"channels": 4, "levels": 3, "spatial_kernel_size": 3, "spatial_downsample": 4}
    return SpatialConfigurationNet(dims, 1, 5, **{**defaults, **options})


def small_unet(dims: int, **options) -> LocalizationUNet:
    return LocalizationUNet(dims, 1, 5, **{"channels": 4, "levels": 3, **options})


NETWORKS = [small_scn, small_unet]
SIZES = [
    (2, (33, 29)),  # odd
    (2, (5, 40)),  # smaller than one level's multiple
    (2, (16, 32)),
    (3, (9, 14, 11)),
    (3, (8, 8, 8)),
]


@pytest.mark.parametrize(
    ("dims", "landmarks", "local", "spatial"),
    [(2, 19, 1_794_195, 4_553_875), (3, 26, 1_374_618, 3_951_578)],
)
def test_scn_has_the_published_number_of_parameters(dims: int, landmarks: int, local: int, spatial: int) -> None:
    net = SpatialConfigurationNet(dims, in_channels=1, num_landmarks=landmarks)
    assert count(net.local_appearance) == local
    assert count(net.spatial_configuration) == spatial


def test_localization_unet_has_the_parameters_of_its_description() -> None:
    conv = 128 * 128 * 9 + 128
    first, joined, head = 128 * 9 + 128, 256 * 128 * 9 + 128, 128 * 19 + 19
    assert count(LocalizationUNet(2, 1, 19)) == first + 9 * conv + 4 * (joined + conv) + head


@pytest.mark.parametrize("build", NETWORKS)
@pytest.mark.parametrize(("dims", "size"), SIZES)
def test_any_size_keeps_its_shape_and_trains(build, dims: int, size: tuple[int, ...]) -> None:
    net = build(dims)
    image = torch.randn(2, 1, *size)
    heatmaps = net(image)
    assert heatmaps.shape == (2, 5, *size)
    heatmaps.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("build", NETWORKS)
@pytest.mark.parametrize("dims", [2, 3])
def test_script_export_and_state_dict_give_the_same_heatmaps(build, dims: int) -> None:
    net = build(dims).eval()
    image = torch.randn(1, 1, *(13, 10, 9)[:dims])
    with torch.no_grad():
        expected = net(image)
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(net), buffer)
        buffer.seek(0)
        torch.testing.assert_close(torch.jit.load(buffer)(image), expected)
        torch.testing.assert_close(torch.export.export(net, (image,)).module()(image), expected)
        again = build(dims).eval()
        again.load_state_dict(net.state_dict())
        torch.testing.assert_close(again(image), expected)


@pytest.mark.parametrize("build", NETWORKS)
def test_channels_last_and_bfloat16_autocast_agree_with_float32(build) -> None:
    torch.manual_seed(0)
    net = build(2, heatmap_std=0.1).eval()
    image = torch.randn(1, 1, 24, 20)
    expected = net(image)
    net = net.to(memory_format=torch.channels_last)
    torch.testing.assert_close(net(image.contiguous(memory_format=torch.channels_last)), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = net(image).float()
    assert (mixed - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("build", NETWORKS)
@pytest.mark.parametrize("options", [{"norm": "instance"}, {"norm": ("group", {"num_groups": 2})}, {"act": "prelu"}])
def test_any_monai_norm_and_activation(build, options: dict) -> None:
    assert build(2, **options)(torch.randn(2, 1, 16, 16)).shape == (2, 5, 16, 16)


@pytest.mark.parametrize("dims", [2, 3])
def test_explain_is_the_product_and_what_forward_returns(dims: int) -> None:
    net = small_scn(dims, heatmap_std=0.1).eval()
    image = torch.randn(1, 1, *(13, 18, 9)[:dims])
    parts = net.explain(image)
    torch.testing.assert_close(parts.heatmaps, net(image))
    torch.testing.assert_close(parts.heatmaps, parts.local_appearance * parts.spatial_configuration)


def test_spatial_configuration_sees_only_local_appearance_and_is_bounded() -> None:
    net = small_scn(2, heatmap_std=5.0).eval()
    spatial = net.explain(torch.randn(1, 1, 32, 32) * 10).spatial_configuration
    assert 1.0 <= spatial.abs().max() <= 1.25**2  # tanh, then cubic up-sampling with its overshoot
    assert net.spatial_configuration.layers[0].conv.in_channels == 5


@pytest.mark.parametrize("build", NETWORKS)
def test_dropout_acts_in_training_only_and_per_element(build) -> None:
    net = build(2, heatmap_std=0.1)
    image = torch.randn(1, 1, 16, 16)
    assert not torch.equal(net(image), net(image))
    net.eval()
    assert torch.equal(net(image), net(image))
    assert {type(m) for m in net.modules() if "Dropout" in type(m).__name__} == {nn.Dropout}


def test_initialisation_follows_the_paper() -> None:
    torch.manual_seed(0)
    net = SpatialConfigurationNet(2, 1, 19)
    for head in (net.local_appearance.head, net.spatial_configuration.head):
        assert head.conv.weight.std().item() == pytest.approx(0.001, rel=0.05)
    inner = net.local_appearance.second[0].conv
    assert inner.weight.std().item() == pytest.approx((2 / (1.01 * 128 * 9)) ** 0.5, rel=0.05)
    assert all(m.bias.abs().max() == 0 for m in net.modules() if isinstance(m, nn.Conv2d))
    assert net(torch.rand(1, 1, 64, 64)).abs().max() < 0.1  # responses close to 0 at the start


def test_forward_hooks_run() -> None:
    net, seen = small_scn(2), []
    net.register_forward_hook(lambda *_: seen.append(True))
    net(torch.zeros(1, 1, 8, 8))
    assert seen == [True]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SpatialConfigurationNet(4, 1, 5), "2 or 3"),
        (lambda: LocalizationUNet(1, 1, 5), "2 or 3"),
        (lambda: SpatialConfigurationNet(2, 1, 0), "num_landmarks"),
        (lambda: small_scn(2, kernel_size=4), "odd"),
        (lambda: CubicUpsample(0), "at least 1"),
    ],
)
def test_wrong_arguments_fail_in_the_constructor(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_padding_keeps_voxels_in_place() -> None:
    image = torch.randn(1, 2, 5, 7, 3)
    padded = pad_to_multiple(image, 4)
    assert padded.shape == (1, 2, 8, 8, 4)
    assert torch.equal(padded[:, :, :5, :7, :3], image)
    assert torch.equal(crop_to(padded, image), image)


def cubic_oracle(line: list[float], factor: int) -> list[float]:
    """Catmull-Rom through four neighbours, one output at a time, edges repeated."""

    def at(i: int) -> float:
        return line[min(max(i, 0), len(line) - 1)]

    result = []
    for target in range(len(line) * factor):
        source = (target + 0.5) / factor - 0.5
        i = int(source // 1)
        t = source - i
        p0, p1, p2, p3 = at(i - 1), at(i), at(i + 1), at(i + 2)
        result.append(p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0))))
    return result


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 16])
def test_cubic_upsampling_is_catmull_rom(factor: int) -> None:
    line = torch.randn(6, dtype=torch.float64)
    result = CubicUpsample(factor)(line[None, None, :, None].expand(1, 1, 6, 2))[0, 0, :, 0]
    torch.testing.assert_close(
        result, torch.tensor(cubic_oracle(line.tolist(), factor), dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_cubic_upsampling_agrees_with_torch_bicubic_at_its_own_constant() -> None:
    x = torch.randn(1, 2, 5, 6)
    expected = F.interpolate(x, scale_factor=4, mode="bicubic", align_corners=False)
    torch.testing.assert_close(CubicUpsample(4, a=-0.75)(x), expected, atol=1e-5, rtol=0)


def test_cubic_upsampling_keeps_a_ramp_and_its_place_in_3d() -> None:
    ramp = torch.arange(10.0)[None, None, :, None, None].expand(1, 1, 10, 4, 4)
    fine = CubicUpsample(4)(ramp)[0, 0, :, 8, 8]
    expected = (torch.arange(40.0) + 0.5) / 4 - 0.5
    torch.testing.assert_close(fine[8:-8], expected[8:-8], atol=1e-5, rtol=0)
