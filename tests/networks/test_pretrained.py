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
from pathlib import Path

import pytest
import torch
from monai.networks.nets import DenseNet, DenseNet121
from torch import nn
from torch.nn import functional as F

from monai_landmarks.networks.blocks.encoders import ENCODERS, build_encoder
from monai_landmarks.networks.blocks.high_resolution import HRNetBackbone
from monai_landmarks.networks.nets.farnet import FARNet
from monai_landmarks.networks.nets.hrnet import HRNet
from monai_landmarks.networks.pretrained import PRETRAINED, fit_kernel, load_pretrained

WIDTH = 0.125
BLOCKS = (6, 12, 24, 16)
NORM = ("weight", "bias", "running_mean", "running_var")


def torchvision_densenet(old: bool, classes: int = 10) -> dict[str, torch.Tensor]:
    """A checkpoint with torchvision's names for DenseNet-121, an eighth as wide, each tensor filled with its number."""
    growth, channels = 4, 8
    shapes: dict[str, tuple[int, ...]] = {"features.conv0.weight": (8, 3, 7, 7)}

    def norm(name: str, width: int) -> None:
        shapes.update({f"features.{name}.{part}": (width,) for part in NORM})

    dot = "." if old else ""
    norm("norm0", channels)
    for b, count in enumerate(BLOCKS, start=1):
        for i in range(1, count + 1):
            layer = f"denseblock{b}.denselayer{i}"
            norm(f"{layer}.norm{dot}1", channels)
            shapes[f"features.{layer}.conv{dot}1.weight"] = (4 * growth, channels, 1, 1)
            norm(f"{layer}.norm{dot}2", 4 * growth)
            shapes[f"features.{layer}.conv{dot}2.weight"] = (growth, 4 * growth, 3, 3)
            channels += growth
        if b < 4:
            norm(f"transition{b}.norm", channels)
            shapes[f"features.transition{b}.conv.weight"] = (channels // 2, channels, 1, 1)
            channels //= 2
    norm("norm5", channels)
    shapes |= {"classifier.weight": (classes, channels), "classifier.bias": (classes,)}
    return {name: torch.full(shape, float(number)) for number, (name, shape) in enumerate(shapes.items(), start=1)}


def public_hrnet() -> dict[str, torch.Tensor]:
    """A small HRNet's entries and two of the public classifier's, each filled with its number."""
    state = HRNetBackbone(2, 3, channels=2, stem_channels=4).state_dict()
    state["incre_modules.0.0.conv1.weight"] = state["classifier.bias"] = torch.zeros(7)
    return {name: torch.full_like(value, number) for number, (name, value) in enumerate(state.items()) if value.ndim}


def save(state: object, folder: Path, name: str = "checkpoint.pth") -> Path:
    torch.save(state, folder / name)
    return folder / name


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_every_number_of_a_densenet_checkpoint_ends_where_it_must(tmp_path: Path, old: bool, wrapped: bool) -> None:
    checkpoint = torchvision_densenet(old)
    state = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in checkpoint.items()}} if wrapped else checkpoint
    encoder = build_encoder("densenet121", 2, in_channels=3, width=WIDTH)
    report = load_pretrained(encoder, save(state, tmp_path))
    seen = set()
    for name, value in encoder.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert name in report.missing
            continue
        key = name.replace(".layers", "")
        if old:
            for part in ("norm1", "norm2", "conv1", "conv2"):
                key = key.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        assert torch.equal(value, checkpoint[key]), name
        seen.add(key)
    assert set(checkpoint) - seen == set(report.unused) == {"classifier.weight", "classifier.bias"}
    assert len(report.loaded) == len(seen)
    assert not report.mismatched
    assert "2 in the file, not used, of a classifier or head" in str(report)


def test_every_number_of_an_hrnet_checkpoint_ends_where_it_must(tmp_path: Path) -> None:
    checkpoint = public_hrnet()
    net = HRNet(2, 3, 5, channels=2, stem_channels=4, pretrained=str(save(checkpoint, tmp_path)))
    report, state = net.pretrained_report, net.state_dict()
    assert set(report.loaded) == {name for name in checkpoint if not name.startswith(("incre", "classifier"))}
    assert all(torch.equal(state[name], checkpoint[name]) for name in report.loaded)
    assert set(report.unused) == {"incre_modules.0.0.conv1.weight", "classifier.bias"} <= set(report.classifier)
    assert {name for name in report.missing if not name.endswith("num_batches_tracked")} == {
        name for name in state if name.startswith("head.") and not name.endswith("num_batches_tracked")
    }


def random_checkpoint(folder: Path, name: str = "densenet121") -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    encoder = build_encoder(name, 2, in_channels=3, width=WIDTH)
    for key, value in encoder.state_dict().items():
        if "running" in key:
            value.copy_(torch.rand_like(value) + 0.5)
    return encoder.eval(), save(encoder.state_dict(), folder)


@pytest.mark.parametrize("name", ["densenet121", "hrnet_w18", "resnet18", "vgg16"])
def test_grey_network_answers_as_the_rgb_one_does_to_equal_channels(tmp_path: Path, name: str) -> None:
    rgb, path = random_checkpoint(tmp_path, name)
    image = torch.randn(1, 1, 64, 32)
    for channels in (1, 2):
        grey = build_encoder(name, 2, channels, width=WIDTH).eval()
        report = load_pretrained(grey, path)
        assert [how[:23] for how in report.reshaped.values()] == ["3 input channels summed"]
        answers = zip(grey(image.expand(-1, channels, -1, -1)), rgb(image.expand(-1, 3, -1, -1)), strict=True)
        for got, expected in answers:
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_grey_stem_is_the_sum(tmp_path: Path) -> None:
    checkpoint = torchvision_densenet(old=True)
    checkpoint["features.conv0.weight"] = torch.randn(8, 3, 7, 7)
    net = FARNet(2, 1, 5, width=WIDTH, pretrained=str(save(checkpoint, tmp_path)))
    stem = net.encoder.features.conv0.weight
    torch.testing.assert_close(stem, checkpoint["features.conv0.weight"].sum(1, keepdim=True))
    assert dict(net.pretrained_report.reshaped) == {"features.conv0.weight": "3 input channels summed to 1"}


@pytest.mark.parametrize("name", ["densenet121", "hrnet_w18"])
def test_inflated_network_answers_a_constant_axis_as_the_2d_one_does(tmp_path: Path, name: str) -> None:
    flat, path = random_checkpoint(tmp_path, name)
    deep = build_encoder(name, 3, in_channels=1, width=WIDTH).eval()
    load_pretrained(deep, path)
    for net in (flat, deep):  # zeros beyond the border are no constant
        for layer in net.modules():
            if isinstance(layer, nn.modules.conv._ConvNd):
                layer.padding_mode = "circular"
    image = torch.randn(1, 1, 32, 64)
    with torch.no_grad():
        slices, expected = deep(image[..., None].expand(-1, -1, -1, -1, 32)), flat(image.expand(-1, 3, -1, -1))
    for got, want in zip(slices, expected, strict=True):
        torch.testing.assert_close(got, want[..., None].expand_as(got), rtol=1e-3, atol=1e-3 * want.abs().max().item())


def test_kernel_keeps_its_answer_inside_the_border() -> None:
    kernel = torch.randn(4, 3, 3, 3)
    deep, how = fit_kernel(kernel, (4, 1, 3, 3, 3))
    image = torch.randn(1, 1, 8, 8)
    volume = F.conv3d(image[..., None].expand(-1, -1, -1, -1, 5), deep, padding=1)
    expected = F.conv2d(image.expand(-1, 3, -1, -1), kernel, padding=1)
    torch.testing.assert_close(volume[..., 1:-1], expected[..., None].expand(-1, -1, -1, -1, 3))
    assert how == "3 input channels summed to 1, repeated 3 times along a new axis"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [((4, 5, 3, 3), (4, 1, 3, 3)), ((4, 3, 3, 3), (8, 3, 3, 3)), ((4, 3, 3, 3), (4, 3, 5, 5)), ((4, 3), (4, 3, 1))],
)
def test_kernels_of_other_layers_are_not_bent(given: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    kernel = torch.randn(given)
    same, how = fit_kernel(kernel, wanted)
    assert same is kernel
    assert how == ""


def test_classifier_of_another_size_is_named_and_skipped(tmp_path: Path) -> None:
    net = DenseNet(2, 3, out_channels=4, init_features=8, growth_rate=4)
    before = net.class_layers.out.weight.clone()
    report = load_pretrained(net, save(torchvision_densenet(old=True), tmp_path))
    assert list(report.mismatched) == ["class_layers.out.weight", "class_layers.out.bias"]
    assert "skipped class_layers.out.weight: (10, 128) in the file, (4, 128) in the network" in str(report)
    assert torch.equal(net.class_layers.out.weight, before)
    same = DenseNet(2, 3, out_channels=10, init_features=8, growth_rate=4)
    assert "class_layers.out.weight" in load_pretrained(same, save(torchvision_densenet(old=True), tmp_path)).loaded


def test_full_size_monai_densenet_loads_what_it_saved(tmp_path: Path) -> None:
    with torch.device("meta"):
        ours, monais = build_encoder("densenet121", 2, 3), DenseNet121(2, 3, 1)
    names = [name for name in monais.state_dict() if not name.startswith("class_layers")]
    assert list(ours.state_dict()) == names


def test_checkpoint_of_another_width_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    _, path = random_checkpoint(tmp_path)
    net = build_encoder("densenet121", 2, 3, width=0.25)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match="another network"):
        load_pretrained(net, path, strict=False)
    with pytest.raises(ValueError, match="encoder, width and norm"):
        load_pretrained(net, path)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_strict_false_loads_what_fits(tmp_path: Path) -> None:
    checkpoint = torchvision_densenet(old=True)
    del checkpoint["features.norm5.bias"]
    path = save(checkpoint, tmp_path)
    net = build_encoder("densenet121", 2, 3, width=WIDTH)
    with pytest.raises(ValueError, match="1 of 362 parameters"):
        load_pretrained(net, path)
    report = load_pretrained(net, path, strict=False)
    assert [name for name in report.missing if "num_batches" not in name] == ["features.norm5.bias"]


def test_other_norms_take_scale_and_shift_and_leave_the_statistics(tmp_path: Path) -> None:
    checkpoint = torchvision_densenet(old=False)
    net = FARNet(2, 3, 5, width=WIDTH, norm="group", pretrained=str(save(checkpoint, tmp_path)))
    assert torch.equal(net.encoder.features.norm0.weight, checkpoint["features.norm0.weight"])
    assert "features.norm0.running_mean" in net.pretrained_report.unused
    assert not net.pretrained_report.missing


def test_every_encoder_has_a_public_address() -> None:
    assert set(PRETRAINED) == set(ENCODERS)
    assert PRETRAINED["densenet121"].endswith("/densenet121-a639ec97.pth")
    assert PRETRAINED["hrnet_w18"].endswith("/hrnetv2_w18-8cb57bb9.pth")
    assert all(address.startswith("https://") for address in PRETRAINED.values())


def test_address_is_read_through_the_hub_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    address = save(torchvision_densenet(old=True), tmp_path).as_uri()
    net = build_encoder("densenet121", 2, 1, width=WIDTH)
    assert load_pretrained(net, address).source == address
    assert (tmp_path / "home/hub/checkpoints/checkpoint.pth").is_file()


def test_name_finds_the_file_that_lies_in_the_hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    save(torchvision_densenet(old=True), folder, "densenet121-a639ec97.pth")
    assert FARNet(2, 1, 5, width=WIDTH, pretrained=True).pretrained_report.source == "densenet121"


def test_missing_checkpoints_say_where_to_get_them_and_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    net = build_encoder("densenet121", 2, 1, width=WIDTH)
    for source, message in {
        tmp_path / "nothing.pth": f"{PRETRAINED['densenet121']}.*pretrained=False",
        "densnet121": "densenet121",
        (tmp_path / "nothing.pth").as_uri(): "checkpoints, or give the file's path.*pretrained=False",
    }.items():
        with pytest.raises(FileNotFoundError, match=message):
            load_pretrained(net, source)


class _Foreign:
    """Something that only code, not data, can bring back."""


@pytest.mark.parametrize("content", [b"no checkpoint", b"", "network", "tensor", "numbers"])
def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path, content: bytes | str) -> None:
    if isinstance(content, str):
        buffer = io.BytesIO()
        torch.save({"network": _Foreign(), "tensor": torch.zeros(3), "numbers": {"a": 1}}[content], buffer)
        content = buffer.getvalue()
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"no checkpoint of tensors|no state dictionary"):
        load_pretrained(build_encoder("resnet18", 2, 1, width=WIDTH), path)
