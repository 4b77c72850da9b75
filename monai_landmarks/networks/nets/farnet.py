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
"""FARNet of Ao and Wu 2022: multi-scale feature aggregation and refinement on a pre-trained encoder, in 2D and 3D."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.networks.layers.factories import Conv
from torch import nn
from torch.nn import functional as F

from ..blocks import crop_to, pad_to_multiple
from ..blocks.convolution import conv_norm_relu
from ..blocks.encoders import STRIDES, as_encoder, feature_maps, scaled
from ..pretrained import encoder_weights, load_pretrained
from .spatial_configuration_net import LINEAR_MODES

__all__ = ["CoarseToFine", "FARNet"]


class CoarseToFine(NamedTuple):
    """Heatmaps in training: ``coarse`` ``(B, N, *ceil(S / 2))`` and ``fine`` ``(B, N, *S)``, both linear."""

    coarse: torch.Tensor
    fine: torch.Tensor


class Aggregation(nn.Module):
    """Fuse five feature maps, 1/2 to 1/32, into one at 1/2: up, down and up again (figures 2 and 3 of the paper).

    Every fusion concatenates the resized and the lateral map, then a 1-wide convolution leaves the resized one's width;
    the finer a map, the more of its channels stay. Only the fusion at 1/32 is 3 wide, as in the public code.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the five maps, the finest first.
        width: factor of the published widths.
        norm: any of MONAI's normalisations.

    Shapes: five maps -> ``(B, out_channels, *S)`` at the size of the first.
    """

    def __init__(
        self, spatial_dims: int, in_channels: Sequence[int], width: float = 1.0, norm: tuple | str = "batch"
    ) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = in_channels
        w64, w128, w256, w512, w1024, w2048 = (scaled(64 * 2**i, width) for i in range(6))

        def layer(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Module:
            return conv_norm_relu(spatial_dims, inputs, outputs, kernel, stride, norm)

        self.mode = LINEAR_MODES[spatial_dims]
        self.out_channels = w64
        self.enter = nn.Sequential(layer(c5, w512, 3), layer(w512, w256))
        self.up1 = nn.ModuleList(layer(w256 + lateral, w256) for lateral in (c4, c3, c2))
        self.down = nn.ModuleList([layer(w256, w512, 3, 2), layer(w512, w1024, 3, 2), layer(w1024, w2048, 3, 2)])
        self.merge = nn.ModuleList(
            [layer(w512 + w256, w512), layer(w1024 + w256, w1024), layer(w2048 + w256, w1024, 3)]
        )
        self.turn = layer(w1024, w256)
        self.up2 = nn.ModuleList(
            [layer(w256 + w1024, w256), layer(w256 + w512, w256), layer(w256 + w256, w128), layer(w128 + c1, w64)]
        )

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        c1, c2, c3, c4, c5 = maps
        rising = [self.enter(c5)]
        for layer, lateral in zip(self.up1, (c4, c3, c2), strict=True):
            rising.append(layer(torch.cat([self.enlarge(rising[-1]), lateral], dim=1)))
        falling = [rising.pop()]
        for shrink, layer, lateral in zip(self.down, self.merge, reversed(rising), strict=True):
            falling.append(layer(torch.cat([shrink(falling[-1]), lateral], dim=1)))
        x = self.turn(falling.pop())
        for layer, lateral in zip(self.up2, (*reversed(falling), c1), strict=True):
            x = layer(torch.cat([self.enlarge(x), lateral], dim=1))
        return x

    def enlarge(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=2.0, mode=self.mode, align_corners=False)


class FARNet(nn.Module):
    r"""Predict one heatmap per landmark at the image's full resolution (Ao and Wu 2022, figure 2).

    An encoder gives feature maps at 1/2 to 1/32, an aggregation fuses them on the ways up, down and up again, and its
    coarse heatmaps at 1/2 are one input of the refinement; the others are the aggregated features and the image itself.
    Parameters for 19 landmarks, 3 input channels and 2D:

    ============================  ==========
    encoder (DenseNet-121)         6,953,856
    aggregation                   54,105,408
    coarse head                       38,163
    image layer of the refinement        960
    fine head                        121,344
    all                           61,219,731
    ============================  ==========

    The public code has the same layers but for a 1-wide image layer (``image_kernel_size=1``, 61,218,963 parameters; the
    paper says 3), and holds 17,858,468 more parameters that nothing uses.

    The centre of coarse pixel ``c`` lies at ``2 c + 0.5`` of the image, so a landmark at ``p`` has its coarse target at
    ``(p - 0.5) / 2``: half-pixel aligned, as the linear enlargement that brings the coarse heatmaps to the fine head.

    As in the public code, where the paper differs: the aggregation's fusion at 1/32 is 3 wide (paper: 1). Images of any
    size are padded by their border; the public code needs sizes that 32 divides. With VGG the features of its first
    block replace the image layer, as the paper says.

    Args:
        spatial_dims: 2 or 3; the paper has 2.
        in_channels: of the image; the paper has 3, grey films repeated.
        num_landmarks: ``N``.
        encoder: a name that :func:`~monai_landmarks.networks.blocks.build_encoder` knows, or any module that returns
            feature maps at 1/2, 1/4, 1/8, 1/16 and 1/32.
        width: factor of all channels, aggregation and encoder; 1.0 is the published network, 0.25 suits a laptop.
            An ``encoder`` from timm or given as a module keeps its own.
        refine: False leaves the refinement out (table 5, MSFA); ``fine`` is then ``coarse`` enlarged linearly.
        norm: ``"batch"`` as published, ``"group"``, ``"instance"``, or any of MONAI's normalisations.
        pretrained: a checkpoint of the encoder, file or address, or True for the public one of its name; see
            :func:`~monai_landmarks.networks.load_pretrained`. The attribute ``pretrained_report`` says what was loaded.
        image_kernel_size: of the refinement's image layer: the paper's 3, or the public code's 1.

    Shapes: image ``(B, C, *S)``, for any ``S`` -> fine heatmaps ``(B, N, *S)`` in evaluation mode, in training mode
    :class:`CoarseToFine` with the coarse ones too. Training with batch or instance normalisation needs more than one
    value per channel at 1/32: more than one image, or an image with a side above 32.

    Raises:
        ValueError: for ``spatial_dims`` other than 2 or 3, counts below 1, an unknown encoder or one without these five
            feature maps, or a checkpoint of another network.
        FileNotFoundError: for a checkpoint that is not there.

    Example:
        >>> net = FARNet(2, in_channels=1, num_landmarks=5, width=0.125)
        >>> image = torch.zeros(1, 1, 75, 50)
        >>> net(image).coarse.shape, net.eval()(image).shape
        (torch.Size([1, 5, 38, 25]), torch.Size([1, 5, 75, 50]))
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        encoder: str | nn.Module = "densenet121",
        width: float = 1.0,
        refine: bool = True,
        norm: tuple | str = "batch",
        pretrained: bool | str = False,
        image_kernel_size: int = 3,
    ) -> None:
        super().__init__()
        if spatial_dims not in LINEAR_MODES:
            raise ValueError(f"`spatial_dims` must be 2 or 3, got {spatial_dims}.")
        for name, value in {"in_channels": in_channels, "num_landmarks": num_landmarks}.items():
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        weights = encoder_weights(encoder, pretrained)
        self.encoder = as_encoder(encoder, spatial_dims, in_channels, width, norm)
        maps = feature_maps(self.encoder, spatial_dims, in_channels)
        self.positions = [maps[stride][0] for stride in STRIDES]
        self.aggregation = Aggregation(spatial_dims, [maps[stride][1] for stride in STRIDES], width, norm)
        features = self.aggregation.out_channels
        self.coarse_head = heatmap_head(spatial_dims, features, num_landmarks)
        self.refine = refine
        self.full_position = maps[1][0] if 1 in maps else None
        full = maps[1][1] if 1 in maps else scaled(32, width)
        if refine and 1 not in maps:
            self.image_layer = conv_norm_relu(spatial_dims, in_channels, full, image_kernel_size, norm=norm)
        if refine:
            self.fine_head = heatmap_head(spatial_dims, features + full + num_landmarks, num_landmarks)
        self.pretrained_report = load_pretrained(self, weights) if weights else None

    def forward(self, image: torch.Tensor) -> torch.Tensor | CoarseToFine:
        padded = pad_to_multiple(image, STRIDES[-1])
        maps = self.encoder(padded)
        features = self.aggregation([maps[position] for position in self.positions])
        coarse = self.coarse_head(features)
        fine = self.aggregation.enlarge(coarse)
        if self.refine:
            full = self.image_layer(padded) if self.full_position is None else maps[self.full_position]
            fine = self.fine_head(torch.cat([self.aggregation.enlarge(features), full, fine], dim=1))
        fine = crop_to(fine, image)
        if not self.training:
            return fine
        half = image[(slice(None), slice(None), *[slice(None, None, 2)] * (image.dim() - 2))]
        return CoarseToFine(crop_to(coarse, half), fine)


def heatmap_head(dims: int, inputs: int, num_landmarks: int) -> nn.Sequential:
    """A 3-wide and a 1-wide convolution with nothing in between (section on MSFA)."""
    conv = Conv[Conv.CONV, dims]
    return nn.Sequential(conv(inputs, inputs, 3, padding=1), conv(inputs, num_landmarks, 1))
