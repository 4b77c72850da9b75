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
"""Public checkpoints: weights by their names, fitted to grey images and to volumes, with a report."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import nn

from monai_landmarks.data.landmarks import did_you_mean, quoted

__all__ = ["PRETRAINED", "PretrainedReport", "fit_kernel", "load_pretrained"]

_TORCH = "https://download.pytorch.org/models/"
_HRNET = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-hrnet/hrnetv2_"

PRETRAINED: dict[str, str] = {
    "densenet121": f"{_TORCH}densenet121-a639ec97.pth",
    "densenet169": f"{_TORCH}densenet169-b2777c0a.pth",
    "densenet201": f"{_TORCH}densenet201-c1103571.pth",
    "resnet18": f"{_TORCH}resnet18-f37072fd.pth",
    "resnet34": f"{_TORCH}resnet34-b627a593.pth",
    "resnet50": f"{_TORCH}resnet50-0676ba61.pth",
    "resnet101": f"{_TORCH}resnet101-63fe2227.pth",
    "resnet152": f"{_TORCH}resnet152-394f9c45.pth",
    "vgg16": f"{_TORCH}vgg16-397923af.pth",
    "vgg19": f"{_TORCH}vgg19-dcbb9e9d.pth",
    "vgg16_bn": f"{_TORCH}vgg16_bn-6c64b313.pth",
    "vgg19_bn": f"{_TORCH}vgg19_bn-c79401a0.pth",
    "hrnet_w18": f"{_HRNET}w18-8cb57bb9.pth",
    "hrnet_w30": f"{_HRNET}w30-8d7f8dab.pth",
    "hrnet_w32": f"{_HRNET}w32-90d8c5fb.pth",
    "hrnet_w40": f"{_HRNET}w40-7cd397a4.pth",
    "hrnet_w44": f"{_HRNET}w44-c9ac8c18.pth",
    "hrnet_w48": f"{_HRNET}w48-abd2e6ab.pth",
    "hrnet_w64": f"{_HRNET}w64-b47cc881.pth",
}
"""Addresses of the ImageNet checkpoints, trained on RGB images in 0 to 1 less their mean, divided by their deviation."""

_HEADS = ("classifier.", "class_layers.", "fc.", "head.", "incre_modules.", "downsamp_modules.", "final_layer.")
_DENSE_LAYER = re.compile(r"(denselayer\d+)\.(norm|conv)\.?([12])\.")


@dataclass(frozen=True)
class PretrainedReport:
    """What :func:`load_pretrained` did, name by name; ``str`` of it is a summary to read.

    Attributes:
        source: file or address.
        loaded: of the network, taken from the file.
        reshaped: of these, name to how the file's tensor was fitted.
        missing: of the network and not in the file; they keep their values.
        unused: in the file and not in the network.
        mismatched: name to the shapes in file and network, which differ; they keep their values.
        classifier: of the three before, what belongs to a classifier or another head.
    """

    source: str
    loaded: tuple[str, ...]
    reshaped: Mapping[str, str]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    mismatched: Mapping[str, str]
    classifier: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.source}: {len(self.loaded)} loaded"]
        lines += [f"reshaped {name}: {how}" for name, how in self.reshaped.items()]
        lines += [f"skipped {name}: {shapes}" for name, shapes in self.mismatched.items()]
        for what, names in (("not in the file", self.missing), ("in the file, not used", self.unused)):
            heads = [name for name in names if name in self.classifier]
            others = [name for name in names if name not in self.classifier]
            if heads:
                lines.append(f"{len(heads)} {what}, of a classifier or head: {quoted(heads, 4)}")
            if others:
                lines.append(f"{len(others)} {what}: {quoted(others, 4)}")
        return "\n".join(lines)


def encoder_weights(encoder: str | nn.Module, pretrained: bool | str) -> str | None:
    """Say where the weights of an encoder come from, by the arguments that networks take.

    Args:
        encoder: a name, or a module.
        pretrained: a file or address, True for the public one of the encoder's name, False for none.

    Returns:
        what :func:`load_pretrained` takes, None for none.

    Raises:
        ValueError: if the name is asked for and the encoder is a module.
    """
    if pretrained is not True:
        return pretrained or None
    if not isinstance(encoder, str):
        raise ValueError("`pretrained=True` needs an encoder's name; load weights into the module you give instead.")
    return encoder


def load_pretrained(network: nn.Module, source: str | Path, strict: bool = True) -> PretrainedReport:
    """Load a public checkpoint into a network, name by name, and say what became of every entry.

    Understood are the key names of torchvision's DenseNet (both styles), ResNet and VGG, of the public HRNets and of
    this package; MONAI's DenseNet and ResNet have the same after renaming. Convolution kernels are fitted by
    :func:`fit_kernel`: a network for grey images gives what the RGB network gives for three equal channels, one for
    volumes what the 2D network gives for each slice of a volume that is constant along its last axis.

    Args:
        network: an encoder, :class:`HRNet`, a network with an ``encoder`` such as :class:`FARNet` (whose encoder is
            loaded), or MONAI's own. Nothing is changed when an error is raised.
        source: a file, an address, or a name of :data:`PRETRAINED`, whose address is kept in
            ``torch.hub.get_dir()/checkpoints`` and taken from there the next time.
        strict: refuse a checkpoint that lacks a parameter of the network, or has it in another shape, classifier and
            heads excepted. False loads what fits.

    Returns:
        The report.

    Raises:
        FileNotFoundError: for a file or name that is not there, or an address that cannot be read.
        ValueError: for a file that is no checkpoint, or one of another network.

    Example:
        >>> import tempfile
        >>> from monai.networks.nets import DenseNet
        >>> rgb, grey = (DenseNet(2, c, c + 1, init_features=8, growth_rate=4, block_config=(2, 2)) for c in (3, 1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(rgb.state_dict(), f"{folder}/densenet.pth")
        ...     report = load_pretrained(grey, f"{folder}/densenet.pth")
        >>> dict(report.reshaped)
        {'features.conv0.weight': '3 input channels summed to 1'}
        >>> list(report.mismatched)
        ['class_layers.out.weight', 'class_layers.out.bias']
    """
    target = getattr(network, "encoder", network)
    own = target.state_dict()
    given = {_renamed(key, own): value for key, value in _read(source).items()}
    fitted: dict[str, torch.Tensor] = {}
    reshaped: dict[str, str] = {}
    mismatched: dict[str, str] = {}
    for name in own.keys() & given.keys():
        value, how = fit_kernel(given[name], own[name].shape)
        if value.shape != own[name].shape:
            mismatched[name] = f"{tuple(value.shape)} in the file, {tuple(own[name].shape)} in the network"
            continue
        fitted[name] = value
        if how:
            reshaped[name] = how
    report = PretrainedReport(
        source=str(source),
        loaded=tuple(name for name in own if name in fitted),
        reshaped=_in_order(reshaped, own),
        missing=tuple(name for name in own if name not in given),
        unused=tuple(name for name in given if name not in own),
        mismatched=_in_order(mismatched, own),
        classifier=tuple(name for name in dict.fromkeys([*own, *given]) if name.startswith(_HEADS)),
    )
    _check(report, dict(target.named_parameters()), strict)
    target.load_state_dict(fitted, strict=False)
    return report


def fit_kernel(kernel: torch.Tensor, shape: Iterable[int]) -> tuple[torch.Tensor, str]:
    """Fit a convolution kernel to other input channels and to one spatial dimension more.

    Input channels are summed, and shared out evenly if the network has several: the answer to equal channels stays. A
    2D kernel is repeated along a new last axis and divided by its length: the answer to a volume that is constant along
    that axis stays, but at the border that the convolution pads.

    Args:
        kernel: ``(O, I, *K)``, or any other tensor, which is returned as it is.
        shape: wanted.

    Returns:
        The kernel, of that shape if it can be fitted, and how it was, empty if it was not.

    Example:
        >>> kernel, how = fit_kernel(torch.ones(8, 3, 7, 7), (8, 1, 7, 7, 7))
        >>> kernel.shape, round(kernel.sum().item()), how
        (torch.Size([8, 1, 7, 7, 7]), 1176, '3 input channels summed to 1, repeated 7 times along a new axis')
    """
    wanted = tuple(shape)
    steps = []
    if kernel.dim() < 4 or len(wanted) - kernel.dim() not in (0, 1) or wanted[0] != kernel.shape[0]:
        return kernel, ""
    inputs, outputs = kernel.shape[1], wanted[1]
    fits_space = tuple(kernel.shape[2:]) == wanted[2 : kernel.dim()]
    if not fits_space or (inputs != outputs and inputs not in (1, 3)):
        return kernel, ""
    if inputs != outputs:
        kernel = kernel.sum(1, keepdim=True).expand(-1, outputs, *kernel.shape[2:]) / outputs
        steps.append(f"{inputs} input channels summed to 1" + (f" and shared by {outputs}" if outputs > 1 else ""))
    if len(wanted) > kernel.dim():
        kernel = kernel.unsqueeze(-1).expand(wanted) / wanted[-1]
        steps.append(f"repeated {wanted[-1]} times along a new axis")
    return kernel, ", ".join(steps)


def _read(source: str | Path) -> dict[str, torch.Tensor]:
    """Read a checkpoint's tensors by name, out of a training state if it is one, without a wrapper's prefix."""
    text = str(source)
    address = PRETRAINED.get(text, text)
    content = _download(address) if "://" in address else _read_file(Path(text))
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ValueError(
            f"{text} holds no state dictionary (names with tensors) but a {type(content).__name__}: save "
            "`network.state_dict()`, not the network."
        )
    return {key.removeprefix("module."): value for key, value in content.items()}


def _read_file(path: Path) -> Any:
    if not path.is_file():
        names = "" if path.suffix or path.parent != Path() else did_you_mean(str(path), PRETRAINED)
        raise FileNotFoundError(
            f"no checkpoint {path}{names}. Names with a public address: {quoted(PRETRAINED, len(PRETRAINED))}; that of "
            f"DenseNet-121 is {PRETRAINED['densenet121']}. To go on with random weights: `pretrained=False`."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(
            f"{path} is no checkpoint of tensors alone, as torch writes it: a broken download, or a whole network, "
            "which could run foreign code and is not opened. Get it again, or save `network.state_dict()`."
        ) from error


def _download(address: str) -> Any:
    try:
        return torch.hub.load_state_dict_from_url(
            address, map_location="cpu", check_hash=address in PRETRAINED.values(), weights_only=True, progress=False
        )
    except (URLError, OSError) as error:
        raise FileNotFoundError(
            f"cannot get {address} ({error}). Fetch it elsewhere and put it into {torch.hub.get_dir()}/checkpoints, or "
            "give the file's path. To go on with random weights: `pretrained=False`."
        ) from error


def _renamed(key: str, own: Mapping[str, Any]) -> str:
    """Give a checkpoint's key the name that it has in the network, if the network has it under another."""
    dense = _DENSE_LAYER.sub(r"\1.layers.\2\3.", key)
    candidates = (key, dense, key.replace("classifier.", "class_layers.out."))
    return next((name for name in candidates if name in own), key)


def _in_order(values: dict[str, str], own: Mapping[str, Any]) -> dict[str, str]:
    return {name: values[name] for name in own if name in values}


def _check(report: PretrainedReport, parameters: Mapping[str, nn.Parameter], strict: bool) -> None:
    absent = [name for name in (*report.missing, *report.mismatched) if name in parameters]
    absent = [name for name in absent if name not in report.classifier]
    if parameters.keys().isdisjoint(report.loaded) or (strict and absent):
        raise ValueError(
            f"the checkpoint is of another network: {len(absent)} of {len(parameters)} parameters are not in it or have "
            f"another shape. Compare encoder, width and norm with those it was trained with; `strict=False` loads what "
            f"fits.\n{report}"
        )
