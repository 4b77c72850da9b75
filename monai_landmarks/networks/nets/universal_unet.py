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
"""Universal U-Net of Zhu et al. 2021, the local network of GU2Net, in 2D and 3D, with the baselines it is compared to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from monai.networks.layers.factories import Pool
from monai.utils import look_up_option
from torch import nn
from torch.nn import functional as F

from ..blocks import crop_to, pad_to_multiple
from ..blocks.separable_convolution import (
    LEAKY_RELU,
    DatasetModules,
    OwnConvolution,
    SeparableConvolution,
    SharedConvolution,
    convolution,
    heatmap_layer,
)
from .spatial_configuration_net import LINEAR_MODES
from .universal_network import UniversalNetwork

__all__ = ["UniversalUNet"]

RELU = ("relu", {"inplace": True})
KINDS = {"separable": SeparableConvolution, "shared": SharedConvolution, "own": OwnConvolution}


class DoubleConvolution(nn.Module):
    """Two convolutions of one kind, ``inputs -> middle -> outputs``."""

    def __init__(self, kind: str, spatial_dims: int, widths: Sequence[int], datasets: Iterable[str], **options: Any):
        super().__init__()
        names = tuple(datasets)
        self.layers = nn.ModuleList(KINDS[kind](spatial_dims, a, b, names, **options) for a, b in pairwise(widths))

    def forward(self, x: torch.Tensor, dataset: str) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x, dataset)
        return x


class UniversalUNet(UniversalNetwork):
    r"""Predict the landmarks of several data sets with one U-Net of separable convolutions (Zhu et al. 2021, sec. 2.1).

    .. math:: \tilde F_i^L = \phi_{LN}(X_i; \theta_{d_i}^L, \theta_s^L) \qquad \text{(eq. 2)}

    A 1-wide convolution brings each data set's channels to the first width; two convolutions per level and side, maximum
    pooling, linear up-sampling, concatenation of the skipped and the up-sampled features; a 1-wide heatmap layer for
    each data set. Weights are initialised as PyTorch does. Input and heatmap layers belong to a data set in all kinds:

    * ``"separable"``, the paper's: :class:`~monai_landmarks.networks.blocks.SeparableConvolution`, LeakyReLU 0.01.
    * ``"shared"``, its baseline "U-Net": standard convolutions, normalisation included, that all data sets share, ReLU.
    * ``"own"``, its baseline "Tri-UNet": standard convolutions, each data set has its own, LeakyReLU 0.01.

    For the paper's 19, 37 and 6 landmarks these have 2,117,630, 17,306,878 and 51,911,806 parameters, as printed in
    table 2 (2.12 M, 17.3 M, 51.92 M). The counts fit exactly if all convolutions have a bias, normalisation is by batch
    and scales, and also the plain U-Net has one input and one heatmap layer per data set (4,414 parameters together).

    Differences of the public code: sizes that the levels do not divide are padded there by zeros after each
    up-sampling, here once by the border (the paper's sizes need neither); it returns heatmaps, this class logits.

    Args:
        spatial_dims: 2 or 3.
        datasets: name of each data set to its number of landmarks.
        in_channels: of the images, one number for all or one for each data set.
        channels: of each resolution, the finest first; any number of them.
        convolution: ``"separable"``, ``"shared"`` or ``"own"``.
        kernel_size: of the convolutions, odd.
        norm: any of MONAI's normalisations, or None.
        act: any of MONAI's activations; None takes the kind's.
        align_corners: of the linear up-sampling; the public code aligns corners.
        heatmap_bias: initial bias of the heatmap layers; None leaves PyTorch's, as published. -3 starts heatmaps at 0.05,
            near what the target is almost everywhere, where training else spends its first hundred steps to get.

    Shapes: image ``(B, C, *S)`` and the name of a data set -> logits ``(B, N, *S)``, whose sigmoid is the heatmap, for
    any ``S``: sizes are padded inside and cropped again.

    Raises:
        LandmarkError: for a list of data sets that cannot be, and for an unknown data set in ``forward``.
        ValueError: for ``spatial_dims`` other than 2 or 3, an even kernel, no or empty channels, an unknown convolution.

    Example:
        >>> net = UniversalUNet(2, {"head": 19, "chest": 6}, in_channels={"head": 1, "chest": 3}, channels=(4, 8, 8))
        >>> net(torch.zeros(1, 3, 33, 20), "chest").shape
        torch.Size([1, 6, 33, 20])
        >>> net.for_dataset("head")(torch.zeros(1, 1, 33, 20)).shape
        torch.Size([1, 19, 33, 20])
        >>> net.add_dataset("hand", 37, like="head")
        >>> optimizer = torch.optim.Adam(net.dataset_parameters("hand"), 1e-3)
    """

    def __init__(
        self,
        spatial_dims: int,
        datasets: Mapping[str, int],
        in_channels: int | Mapping[str, int] = 1,
        channels: Sequence[int] = (64, 128, 256, 512, 512),
        convolution: str = "separable",
        kernel_size: int = 3,
        norm: tuple | str | None = "batch",
        act: tuple | str | None = None,
        align_corners: bool = True,
        heatmap_bias: float | None = None,
    ) -> None:
        super().__init__(datasets, in_channels)
        if spatial_dims not in LINEAR_MODES:
            raise ValueError(f"`spatial_dims` must be 2 or 3, got {spatial_dims}.")
        if not channels or min(channels) < 1:
            raise ValueError(f"`channels` must be the width of each resolution, at least 1 each, got {channels}.")
        look_up_option(convolution, KINDS)
        if act is None:
            act = RELU if convolution == "shared" else LEAKY_RELU

        def double(*widths: int) -> DoubleConvolution:
            return DoubleConvolution(
                convolution, spatial_dims, widths, self.num_landmarks, kernel_size=kernel_size, norm=norm, act=act
            )

        self.spatial_dims = spatial_dims
        self.width = channels[0]
        self.multiple = 2 ** (len(channels) - 1)
        self.align_corners = align_corners
        self.heatmap_bias = heatmap_bias
        self.pool = Pool[Pool.MAX, spatial_dims](kernel_size=2)
        self.inputs = DatasetModules()
        self.encoder = nn.ModuleList(double(a, b, b) for a, b in pairwise([channels[0], *channels]))
        self.decoder = nn.ModuleList()
        below = channels[-1]
        for level in reversed(range(len(channels) - 1)):
            joined, width = below + channels[level], channels[max(level - 1, 0)]
            self.decoder.append(double(joined, max(joined // 2, 1), width))
            below = width
        self.heads = DatasetModules()
        for name in self.dataset_names:
            self._add_ends(name)

    def forward(self, image: torch.Tensor, dataset: str) -> torch.Tensor:
        self.check_dataset(dataset)
        x = self.inputs(pad_to_multiple(image, self.multiple), dataset)
        skips: list[torch.Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else self.pool(x), dataset)
            skips.append(x)
        mode = LINEAR_MODES[self.spatial_dims]
        for skip, block in zip(skips[-2::-1], self.decoder, strict=True):
            up = F.interpolate(x, scale_factor=2.0, mode=mode, align_corners=self.align_corners)
            x = block(torch.cat([skip, up], dim=1), dataset)
        return crop_to(self.heads(x, dataset), image)

    def _add_modules(self, name: str, like: str | None = None) -> None:
        self._add_ends(name, like)
        for block in self.modules():
            if isinstance(block, SeparableConvolution | OwnConvolution | SharedConvolution):
                block.add_dataset(name, like)

    def _add_ends(self, name: str, like: str | None = None) -> None:
        first = convolution(self.spatial_dims, self.in_channels[name], self.width, 1)
        self.inputs.add(name, first, like)
        self.heads.add(
            name, heatmap_layer(self.spatial_dims, self.width, self.num_landmarks[name], self.heatmap_bias), like
        )
