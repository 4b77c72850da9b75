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
"""SpatialConfiguration-Net of Payer et al. 2019, in 2D and 3D."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from monai.networks.layers.factories import Conv, Pool
from monai.networks.layers.utils import get_act_layer, get_norm_layer
from torch import nn
from torch.nn import functional as F

from ..blocks import CubicUpsample, crop_to, init_he, init_small_normal, pad_to_multiple

__all__ = ["LocalAppearance", "SCNExplanation", "SpatialConfiguration", "SpatialConfigurationNet"]

LEAKY_RELU = ("leakyrelu", {"negative_slope": 0.1})
LINEAR_MODES = {2: "bilinear", 3: "trilinear"}


class SCNExplanation(NamedTuple):
    """What each component saw: three tensors ``(B, N, *S)``, ``heatmaps = local_appearance * spatial_configuration``."""

    heatmaps: torch.Tensor
    local_appearance: torch.Tensor
    spatial_configuration: torch.Tensor


class ConvBlock(nn.Sequential):
    """Convolution that keeps the size, then normalisation and activation where given."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        act: tuple | str | None,
        norm: tuple | str | None = None,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"`kernel_size` must be odd so that the output keeps its place, got {kernel_size}.")
        conv = Conv[Conv.CONV, spatial_dims]
        self.add_module(
            "conv", conv(in_channels, out_channels, kernel_size, padding=kernel_size // 2, padding_mode=padding_mode)
        )
        if norm is not None:
            self.add_module("norm", get_norm_layer(norm, spatial_dims=spatial_dims, channels=out_channels))
        if act is not None:
            self.add_module("act", get_act_layer(act))


class LocalAppearance(nn.Module):
    """Multi-level component that answers where the image looks like each landmark (paper section 2.2.2).

    Each level has three convolutions; dropout follows the first, average pooling to the next level the second, and the
    third gives the level's contribution. From the lowest level on, contributions are up-sampled linearly and added.

    Args: see :class:`SpatialConfigurationNet`.

    Shapes: ``(B, C, *S)`` with ``S`` divisible by ``2 ** (levels - 1)`` -> ``(B, N, *S)``.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        channels: int = 128,
        levels: int = 4,
        kernel_size: int = 3,
        dropout: float = 0.5,
        act: tuple | str = LEAKY_RELU,
        norm: tuple | str | None = None,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()

        def block(inputs: int, mode: str = padding_mode) -> ConvBlock:
            return ConvBlock(spatial_dims, inputs, channels, kernel_size, act, norm, mode)

        self.mode = LINEAR_MODES[spatial_dims]
        self.stem = block(in_channels, "zeros")
        self.first = nn.ModuleList(nn.Sequential(block(channels), nn.Dropout(dropout)) for _ in range(levels))
        self.second = nn.ModuleList(block(channels) for _ in range(levels))
        self.third = nn.ModuleList(block(channels) for _ in range(levels))
        self.pool = Pool[Pool.AVG, spatial_dims](kernel_size=2)
        self.head = ConvBlock(spatial_dims, channels, num_landmarks, kernel_size, act=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        contributions: list[torch.Tensor] = []
        for level, (first, second, third) in enumerate(zip(self.first, self.second, self.third)):  # noqa: B905
            x = second(first(x if level == 0 else self.pool(x)))
            contributions.append(third(x))
        total = contributions[-1]
        for finer in contributions[:-1][::-1]:
            total = finer + F.interpolate(total, scale_factor=2.0, mode=self.mode, align_corners=False)
        return self.head(total)


class SpatialConfiguration(nn.Module):
    """Component that answers where each landmark can be, given the responses for all of them (paper section 2.2.3).

    Args: see :class:`SpatialConfigurationNet`.

    Shapes: ``(B, N, *S)`` with ``S`` divisible by ``downsample`` -> ``(B, N, *S)``. The tanh's range is (-1, 1);
    cubic up-sampling overshoots it at steps, by at most ``1.25 ** D``.
    """

    def __init__(
        self,
        spatial_dims: int,
        num_landmarks: int,
        channels: int = 128,
        num_layers: int = 3,
        kernel_size: int = 11,
        downsample: int = 16,
        act: tuple | str = LEAKY_RELU,
        norm: tuple | str | None = None,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        self.pool = Pool[Pool.AVG, spatial_dims](kernel_size=downsample)
        widths = [num_landmarks, *[channels] * num_layers]
        self.layers = nn.Sequential(
            *(
                ConvBlock(spatial_dims, inputs, outputs, kernel_size, act, norm, padding_mode)
                for inputs, outputs in pairwise(widths)
            )
        )
        self.head = ConvBlock(spatial_dims, channels, num_landmarks, kernel_size, "tanh", padding_mode=padding_mode)
        self.upsample = CubicUpsample(downsample)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.upsample(self.head(self.layers(self.pool(x))))


class SpatialConfigurationNet(nn.Module):
    r"""Predict one heatmap per landmark as local appearance times spatial configuration (Payer et al. 2019, fig. 3).

    .. math:: h_i(x) = h_i^{LA}(x) \cdot h_i^{SC}(x) \qquad \text{(eq. 4)}

    The defaults are the paper's: four levels of 3-wide convolutions with 128 channels and dropout 0.5 (64 in 3D), three
    11-wide (3D: 7-wide) convolutions at 1/16 (3D: 1/4) of the resolution, LeakyReLU 0.1, He initialisation and heatmap
    layers drawn with standard deviation 0.001.

    Differences of the public code, all reachable: a stem convolution before the first level, which the paper does not
    draw but its parameter counts hold (kept here); heatmap layers at 1e-4 (``heatmap_std``); 3D spatial configuration at
    1/8 (``spatial_downsample=8``) with reflecting borders (``padding_mode="reflect"``). Up-sampling there falls off to
    zero at the image border, here it is edge-extended.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the image.
        num_landmarks: ``N``.
        channels: of every intermediate convolution; None takes 128 in 2D and 64 in 3D.
        levels: of the local appearance component.
        kernel_size: of the local appearance component.
        dropout: after the first convolution of each level, element-wise.
        spatial_channels: of the spatial configuration component; None takes ``channels``.
        spatial_layers: intermediate convolutions of the spatial configuration component.
        spatial_kernel_size: None takes 11 in 2D and 7 in 3D.
        spatial_downsample: None takes 16 in 2D and 4 in 3D.
        act: intermediate activation, any of MONAI's.
        norm: intermediate normalisation, any of MONAI's; the paper has none.
        padding_mode: of the convolutions, as in torch; heatmap and stem convolutions of local appearance use zeros.
        heatmap_std: initial standard deviation of the two heatmap layers' weights.

    Shapes: image ``(B, C, *S)`` -> heatmaps ``(B, N, *S)``, for any ``S``: sizes are padded inside and cropped again.

    Raises:
        ValueError: for ``spatial_dims`` other than 2 or 3, even kernels, or counts below 1.

    Example:
        >>> import torch
        >>> net = SpatialConfigurationNet(2, in_channels=1, num_landmarks=19, channels=8, spatial_downsample=4)
        >>> net(torch.zeros(1, 1, 50, 37)).shape
        torch.Size([1, 19, 50, 37])
        >>> net.explain(torch.zeros(1, 1, 50, 37)).spatial_configuration.shape
        torch.Size([1, 19, 50, 37])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        channels: int | None = None,
        levels: int = 4,
        kernel_size: int = 3,
        dropout: float = 0.5,
        spatial_channels: int | None = None,
        spatial_layers: int = 3,
        spatial_kernel_size: int | None = None,
        spatial_downsample: int | None = None,
        act: tuple | str = LEAKY_RELU,
        norm: tuple | str | None = None,
        padding_mode: str = "zeros",
        heatmap_std: float = 0.001,
    ) -> None:
        super().__init__()
        if spatial_dims not in LINEAR_MODES:
            raise ValueError(f"`spatial_dims` must be 2 or 3, got {spatial_dims}.")
        flat = spatial_dims == 2
        channels = channels or (128 if flat else 64)
        downsample = spatial_downsample or (16 if flat else 4)
        for name, value in {"in_channels": in_channels, "num_landmarks": num_landmarks, "levels": levels}.items():
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        self.num_landmarks = num_landmarks
        self.multiple = math.lcm(2 ** (levels - 1), downsample)
        self.local_appearance = LocalAppearance(
            spatial_dims, in_channels, num_landmarks, channels, levels, kernel_size, dropout, act, norm, padding_mode
        )
        self.spatial_configuration = SpatialConfiguration(
            spatial_dims,
            num_landmarks,
            spatial_channels or channels,
            spatial_layers,
            spatial_kernel_size or (11 if flat else 7),
            downsample,
            act,
            norm,
            padding_mode,
        )
        init_he(self, negative_slope=0.1)
        for head in (self.local_appearance.head, self.spatial_configuration.head):
            init_small_normal(head, heatmap_std)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        local = self.local_appearance(pad_to_multiple(image, self.multiple))
        return crop_to(local * self.spatial_configuration(local), image)

    def explain(self, image: torch.Tensor) -> SCNExplanation:
        """Return the heatmaps with the two components' maps whose product they are.

        Args:
            image: ``(B, C, *S)``.

        Returns:
            :class:`SCNExplanation`, three tensors ``(B, N, *S)``.
        """
        local = self.local_appearance(pad_to_multiple(image, self.multiple))
        spatial = self.spatial_configuration(local)
        return SCNExplanation(crop_to(local * spatial, image), crop_to(local, image), crop_to(spatial, image))
