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
"""Encoders by name: classification networks as pyramids of feature maps, in 2D and 3D."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import chain

import torch
from monai.networks.layers.factories import Conv, Norm, Pool
from monai.networks.nets import DenseNet, ResNet
from monai.utils import optional_import
from torch import nn

from monai_landmarks.data.landmarks import did_you_mean, quoted

from .high_resolution import HRNetBackbone
from .normalization import replace_batch_norm

__all__ = ["ENCODERS", "STRIDES", "DenseNetEncoder", "ResNetEncoder", "VGGEncoder", "build_encoder", "feature_maps"]

STRIDES = (2, 4, 8, 16, 32)
"""Of the five feature maps that every encoder gives, the finest first."""

DENSE_BLOCKS = {"densenet121": (6, 12, 24, 16), "densenet169": (6, 12, 32, 32), "densenet201": (6, 12, 48, 32)}
RESNET_BLOCKS = {
    "resnet18": ("basic", [2, 2, 2, 2]),
    "resnet34": ("basic", [3, 4, 6, 3]),
    "resnet50": ("bottleneck", [3, 4, 6, 3]),
    "resnet101": ("bottleneck", [3, 4, 23, 3]),
    "resnet152": ("bottleneck", [3, 8, 36, 3]),
}
VGG_BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
HRNETS = {f"hrnet_w{channels}": channels for channels in (18, 30, 32, 40, 44, 48, 64)}
ENCODERS = (*DENSE_BLOCKS, *RESNET_BLOCKS, *VGG_BLOCKS, *(f"{name}_bn" for name in VGG_BLOCKS), *HRNETS)
"""Names known without timm."""


class _Tapped(nn.Sequential):
    """Run the layers in order and return the outputs of those named in ``taps``."""

    def __init__(self, layers: Iterable[tuple[str, nn.Module]], taps: Sequence[str]) -> None:
        super().__init__(OrderedDict(layers))
        self.taps = tuple(taps)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps = []
        for name, layer in self.named_children():
            x = layer(x)
            if name in self.taps:
                maps.append(x)
        return maps


def scaled(channels: int, width: float) -> int:
    """Scale a number of channels, to no less than one."""
    return max(1, round(channels * width))


class DenseNetEncoder(nn.Module):
    """Give the five feature maps of MONAI's DenseNet, the encoder of Ao et al. 2022.

    At 1/2 the output of the first convolution, before normalisation (the paper's section on MSFA); at 1/4 to 1/16 those
    of the first three dense blocks; at 1/32 the normalised output of the last. The classifier is left out.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the image.
        blocks: layers of each dense block.
        width: factor of the published 64 first channels and growth of 32.

    Shapes: ``(B, C, *S)`` with ``S`` divisible by 32 -> maps of 64, 256, 512, 1024 and 1024 channels for DenseNet-121.

    Example:
        >>> maps = DenseNetEncoder(2, 1, width=0.125)(torch.zeros(2, 1, 64, 64))
        >>> [x.shape[1] for x in maps]
        [8, 32, 64, 128, 128]
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        blocks: Sequence[int] = DENSE_BLOCKS["densenet121"],
        width: float = 1.0,
    ) -> None:
        super().__init__()
        net = DenseNet(
            spatial_dims,
            in_channels,
            out_channels=1,
            init_features=scaled(64, width),
            growth_rate=scaled(32, width),
            block_config=blocks,
        )
        taps = ("conv0", "denseblock1", "denseblock2", "denseblock3", "norm5")
        self.features = _Tapped(net.features.named_children(), taps)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return self.features(image)


class ResNetEncoder(_Tapped):
    """Give the five feature maps of MONAI's ResNet, with the layers and key names of torchvision's.

    At 1/2 the output of the first convolution, before normalisation, as in :class:`DenseNetEncoder`; then those of the
    four stages. Shortcuts have no bias and the first convolution strides, unlike MONAI's defaults.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the image.
        block: ``"basic"`` or ``"bottleneck"``.
        blocks: number of residual blocks of each stage.
        width: factor of the published 64 to 512 channels.

    Shapes: ``(B, C, *S)`` with ``S`` divisible by 32 -> maps of 64, 64, 128, 256, 512 channels for ResNet-18.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        block: str = "basic",
        blocks: Sequence[int] = (2, 2, 2, 2),
        width: float = 1.0,
    ) -> None:
        net = ResNet(
            block,
            list(blocks),
            [scaled(channels, width) for channels in (64, 128, 256, 512)],
            spatial_dims=spatial_dims,
            n_input_channels=in_channels,
            conv1_t_stride=2,
            bias_downsample=False,
            feed_forward=False,
        )
        stages = ("layer1", "layer2", "layer3", "layer4")
        names = ("conv1", "bn1", "act", "maxpool", *stages)
        super().__init__([(name, getattr(net, name)) for name in names], ("conv1", *stages))


class VGGEncoder(nn.Module):
    """Give six feature maps of VGG: its five blocks at 1/1 to 1/16 of the size, and the last one pooled, at 1/32.

    Plain stacks of 3-wide convolutions, with torchvision's key names.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the image.
        blocks: convolutions of each block.
        norm: whether each convolution is followed by batch normalisation (``vgg16_bn``); the original has none.
        width: factor of the published 64 to 512 channels.

    Shapes: ``(B, C, *S)`` with ``S`` divisible by 32 -> maps of 64, 128, 256, 512, 512 and 512 channels.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        blocks: Sequence[int] = VGG_BLOCKS["vgg16"],
        norm: bool = False,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        taps = []
        inputs = in_channels
        for count, channels in zip(blocks, (64, 128, 256, 512, 512), strict=True):
            for _ in range(count):
                layers.append(Conv[Conv.CONV, spatial_dims](inputs, scaled(channels, width), 3, padding=1))
                if norm:
                    layers.append(Norm[Norm.BATCH, spatial_dims](scaled(channels, width)))
                layers.append(nn.ReLU(inplace=True))
                inputs = scaled(channels, width)
            taps.append(str(len(layers) - 1))
            layers.append(Pool[Pool.MAX, spatial_dims](2))
        self.features = _Tapped(((str(i), layer) for i, layer in enumerate(layers)), [*taps, str(len(layers) - 1)])

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return self.features(image)


def build_encoder(
    name: str, spatial_dims: int, in_channels: int, width: float = 1.0, norm: tuple | str = "batch"
) -> nn.Module:
    """Build an encoder by name, with random weights: image ``(B, C, *S)`` -> list of feature maps, the finest first.

    Args:
        name: one of :data:`ENCODERS`, or with timm installed any of its models that has features at every stride of
            :data:`STRIDES`, such as ``"tf_efficientnet_b0"`` (2D only, its own widths).
        spatial_dims: 2 or 3.
        in_channels: of the image.
        width: factor of all channels, for small machines; 1.0 is the published network.
        norm: ``"batch"`` as published, ``"group"``, ``"instance"``, or any of MONAI's normalisations.

    Returns:
        The encoder; :func:`feature_maps` says what it gives.

    Raises:
        ValueError: for an unknown name, ``spatial_dims`` other than 2 or 3, or a ``width`` that is not above 0.

    Example:
        >>> encoder = build_encoder("resnet18", 3, in_channels=1, width=0.125)
        >>> [tuple(x.shape[1:]) for x in encoder(torch.zeros(2, 1, 64, 32, 32))][-1]
        (64, 2, 1, 1)
    """
    if spatial_dims not in (2, 3):
        raise ValueError(f"`spatial_dims` must be 2 or 3, got {spatial_dims}.")
    if not width > 0:
        raise ValueError(f"`width` must be above 0, such as 0.25, got {width}.")
    encoder: nn.Module
    if name in DENSE_BLOCKS:
        encoder = DenseNetEncoder(spatial_dims, in_channels, DENSE_BLOCKS[name], width)
    elif name in RESNET_BLOCKS:
        encoder = ResNetEncoder(spatial_dims, in_channels, *RESNET_BLOCKS[name], width=width)
    elif name.removesuffix("_bn") in VGG_BLOCKS:
        encoder = VGGEncoder(
            spatial_dims, in_channels, VGG_BLOCKS[name.removesuffix("_bn")], name.endswith("_bn"), width
        )
    elif name in HRNETS:
        encoder = HRNetBackbone(spatial_dims, in_channels, scaled(HRNETS[name], width), scaled(64, width))
    else:
        encoder = _from_timm(name, spatial_dims, in_channels)
    replace_batch_norm(encoder, norm, spatial_dims)
    return encoder


def as_encoder(
    encoder: str | nn.Module, spatial_dims: int, in_channels: int, width: float = 1.0, norm: tuple | str = "batch"
) -> nn.Module:
    """Build an encoder that is given by name, and take a module as it is; arguments as :func:`build_encoder`."""
    return build_encoder(encoder, spatial_dims, in_channels, width, norm) if isinstance(encoder, str) else encoder


def feature_maps(encoder: nn.Module, spatial_dims: int, in_channels: int) -> dict[int, tuple[int, int]]:
    """Find what an encoder gives, by its shapes alone: nothing is computed and the encoder stays as it is.

    Args:
        encoder: image ``(B, C, *S)`` -> list of feature maps, for example MONAI's ``EfficientNetBNFeatures``.
        spatial_dims: 2 or 3.
        in_channels: of the image.

    Returns:
        Stride to position in that list and number of channels; of several maps with one stride, the last.

    Raises:
        ValueError: for an encoder that gives no feature maps at every stride of :data:`STRIDES`.

    Example:
        >>> feature_maps(VGGEncoder(2, 1, width=0.125), 2, 1)
        {1: (0, 8), 2: (1, 16), 4: (2, 32), 8: (3, 64), 16: (4, 64), 32: (5, 64)}
    """
    size = 2 * max(STRIDES)
    state = {name: x.to("meta") for name, x in chain(encoder.named_parameters(), encoder.named_buffers())}
    with torch.no_grad():
        image = torch.empty(2, in_channels, *[size] * spatial_dims, device="meta")
        maps = torch.func.functional_call(encoder, state, (image,))
    found: dict[int, tuple[int, int]] = {}
    shapes = [tuple(x.shape) for x in maps] if isinstance(maps, (list, tuple)) else [tuple(maps.shape)]
    for position, shape in enumerate(shapes):
        if len(shape) == spatial_dims + 2 and len(set(shape[2:])) == 1 and size % shape[2] == 0:
            found[size // shape[2]] = (position, shape[1])
    if absent := [stride for stride in STRIDES if stride not in found]:
        raise ValueError(
            f"an encoder must give feature maps at strides {STRIDES}; {type(encoder).__name__} has none at {absent}: "
            f"an image {tuple(image.shape)} became {shapes}. Choose another one, or wrap it to return all five."
        )
    return found


def _from_timm(name: str, spatial_dims: int, in_channels: int) -> nn.Module:
    timm, installed = optional_import("timm")
    hint = f"unknown encoder {name!r}{did_you_mean(name, ENCODERS)}; known are {quoted(ENCODERS, len(ENCODERS))}"
    if not installed:
        raise ValueError(
            f"{hint}, and with timm installed (`pip install timm`, the extra `monai_landmarks[timm]`) its models."
        )
    if not timm.is_model(name):
        raise ValueError(f"{hint}. timm {timm.__version__} does not know it either.")
    if spatial_dims != 2:
        raise ValueError(
            f"timm's {name!r} is 2D only; for {spatial_dims}D choose one of {quoted(ENCODERS, len(ENCODERS))}."
        )
    return timm.create_model(name, pretrained=False, features_only=True, in_chans=in_channels)
