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
"""The U-Net whose voxels vote for landmarks: one heatmap and D offset maps for each, and the votes they cast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.networks.layers.factories import Conv
from torch import nn
from torch.nn import functional as F

from ...heatmaps.voting import check_radius, vote_heatmaps
from ..blocks import crop_to, pad_to_multiple
from ..blocks.convolution import conv_norm_relu
from ..blocks.encoders import STRIDES, as_encoder, feature_maps, scaled
from ..pretrained import encoder_weights, load_pretrained
from .spatial_configuration_net import LINEAR_MODES

__all__ = ["VotingUNet"]

#: Channels of the public code's decoder at 1/16, 1/8, 1/4, 1/2 and 1/1.
WIDTHS = (256, 128, 64, 128, 64)


class VotingUNet(nn.Module):
    r"""Predict for each landmark the disc around it, and from each voxel of it the way to its middle (CC2Dv2's student).

    An encoder gives feature maps at 1/2 to 1/32; the decoder enlarges the coarsest twofold, concatenates the encoder's
    map of that size, convolves twice, and goes on to full resolution; a 1-wide convolution makes the heatmaps' logits
    and the offsets. In training these come out, for :class:`~monai_landmarks.losses.OffsetVotingLoss`; in evaluation mode
    the votes are counted (:func:`~monai_landmarks.heatmaps.vote_heatmaps`), so that every decoder, inferer and evaluator
    for heatmaps serves this network too. Parameters for 19 landmarks, 3 input channels and 2D:

    =================  ==========
    encoder (VGG-19)   20,024,384
    decoder             4,759,296
    head                    3,705
    all                24,787,385
    =================  ==========

    Differences from the public code: that takes VGG's maps after its pooling layers, so that one of 64 channels is the
    finest at 1/2 and nothing of the encoder is seen at full resolution; here each stride has the encoder's last map of
    that size, and VGG's first block is concatenated at full resolution. Enlargement is half-pixel aligned (there corners
    are). Instance normalisation learns scale and shift. Images of any size are padded by their border.

    Args:
        spatial_dims: 2 or 3; published for 2.
        in_channels: of the image; the public code has 3, grey films repeated.
        num_landmarks: ``N``.
        encoder: a name that :func:`~monai_landmarks.networks.blocks.build_encoder` knows, or any module that returns
            feature maps at 1/2, 1/4, 1/8, 1/16 and 1/32; one at full size is used if it is there.
        width: factor of all channels, decoder and encoder; an ``encoder`` from timm or given as a module keeps its own.
        norm: ``"instance"`` as published, ``"batch"``, ``"group"``, or any of MONAI's normalisations.
        pretrained: a checkpoint of the encoder, file or address, or True for the public one of its name; see
            :func:`~monai_landmarks.networks.load_pretrained`. The attribute ``pretrained_report`` says what was loaded.
        radius: of the disc in voxels, in which the offsets are measured; give the loss the same.
        voting: further arguments of :func:`~monai_landmarks.heatmaps.vote_heatmaps` by name: ``num_votes``, ``weighting``,
            ``smoothing``.
        heatmap_bias: initial bias of the heatmaps' logits; None leaves PyTorch's, as published. A disc covers one voxel in a
            hundred: with -4 the heatmaps begin there, and small networks find far more discs in short trainings.

    Shapes: image ``(B, C, *S)``, for any ``S`` -> in training mode logits and offsets ``(B, (1 + D) * N, *S)``, see
    :func:`~monai_landmarks.heatmaps.split_voting_maps`, which :meth:`maps` gives in either mode; in evaluation mode vote
    maps ``(B, N, *S)``. Training with an encoder that has normalisation needs more than one value per channel at 1/32.

    Raises:
        ValueError: for ``spatial_dims`` other than 2 or 3, counts below 1, an unknown encoder or one without these five
            feature maps, a checkpoint of another network, or a ``radius`` below 1.
        TypeError: for a name in ``voting`` that is no argument.
        FileNotFoundError: for a checkpoint that is not there.

    Example:
        >>> net = VotingUNet(2, in_channels=1, num_landmarks=5, width=0.125, radius=4.0)
        >>> image = torch.zeros(1, 1, 75, 50)
        >>> net(image).shape, net.eval()(image).shape
        (torch.Size([1, 15, 75, 50]), torch.Size([1, 5, 75, 50]))
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        encoder: str | nn.Module = "vgg19",
        width: float = 1.0,
        norm: tuple | str = "instance",
        pretrained: bool | str = False,
        radius: float = 19.2,
        voting: Mapping[str, Any] | None = None,
        heatmap_bias: float | None = None,
    ) -> None:
        super().__init__()
        if spatial_dims not in LINEAR_MODES:
            raise ValueError(f"`spatial_dims` must be 2 or 3, got {spatial_dims}.")
        for name, value in {"in_channels": in_channels, "num_landmarks": num_landmarks}.items():
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        weights = encoder_weights(encoder, pretrained)
        check_radius(radius)
        self.radius, self.voting = float(radius), dict(voting or {})
        vote_heatmaps(torch.zeros(1, 1 + spatial_dims, *[1] * spatial_dims), self.radius, **self.voting)  # refuse now
        self.encoder = as_encoder(encoder, spatial_dims, in_channels, width, norm)
        self.mode = LINEAR_MODES[spatial_dims]
        found = feature_maps(self.encoder, spatial_dims, in_channels)
        self.positions = [found[stride][0] if stride in found else None for stride in (*reversed(STRIDES), 1)]
        skips = [found[stride][1] if stride in found else 0 for stride in (*reversed(STRIDES), 1)]
        inputs, blocks = skips[0], []
        for skip, channels in zip(skips[1:], (scaled(channels, width) for channels in WIDTHS), strict=True):
            first = conv_norm_relu(spatial_dims, skip + inputs, channels, 3, norm=norm)
            blocks.append(nn.Sequential(first, conv_norm_relu(spatial_dims, channels, channels, 3, norm=norm)))
            inputs = channels
        self.decoder = nn.ModuleList(blocks)
        self.head = Conv[Conv.CONV, spatial_dims](inputs, (1 + spatial_dims) * num_landmarks, 1)
        if heatmap_bias is not None and self.head.bias is not None:
            nn.init.constant_(self.head.bias[:num_landmarks], heatmap_bias)
        self.pretrained_report = load_pretrained(self, weights) if weights else None

    def maps(self, image: torch.Tensor) -> torch.Tensor:
        """Give logits and offsets ``(B, (1 + D) * N, *S)`` in either mode, for a loss in validation or a figure."""
        found = self.encoder(pad_to_multiple(image, STRIDES[-1]))
        features = found[self.positions[0]]
        for position, block in zip(self.positions[1:], self.decoder, strict=True):
            features = F.interpolate(features, scale_factor=2.0, mode=self.mode, align_corners=False)
            features = block(features if position is None else torch.cat([found[position], features], dim=1))
        return crop_to(self.head(features), image)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps = self.maps(image)
        return maps if self.training else vote_heatmaps(maps, self.radius, **self.voting)
