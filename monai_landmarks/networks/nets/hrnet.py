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
"""HRNet: landmark heatmaps from a network that keeps its resolution, in 2D and 3D (Wang et al. 2020)."""

from __future__ import annotations

import torch
from monai.networks.layers.factories import Conv, Norm
from torch import nn
from torch.nn import functional as F

from ..blocks import crop_to, pad_to_multiple
from ..blocks.high_resolution import HRNetBackbone
from ..blocks.normalization import replace_batch_norm
from ..pretrained import load_pretrained
from .spatial_configuration_net import LINEAR_MODES

__all__ = ["HRNet"]


class HRNet(HRNetBackbone):
    """Predict one heatmap per landmark with HRNetV2 (Wang et al. 2020, figure 4b and the facial landmark experiments).

    The four branches, enlarged to a quarter of the image's size, are concatenated; two 1-wide convolutions give the
    heatmaps, which are enlarged linearly to the full size (the public code decodes at a quarter). All else is
    :class:`~monai_landmarks.networks.blocks.HRNetBackbone`, key names included, so that the public checkpoints load.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the image.
        num_landmarks: ``N``.
        channels: of the finest branch: 18 for W18, 32 for W32, 48 for W48.
        stem_channels: of the two strided convolutions.
        norm: ``"batch"`` as published, ``"group"``, ``"instance"``, or any of MONAI's normalisations.
        pretrained: a checkpoint's file or address, or True for the public one of this width; see
            :func:`~monai_landmarks.networks.load_pretrained`. The attribute ``pretrained_report`` says what was loaded.

    Shapes: image ``(B, C, *S)`` -> heatmaps ``(B, N, *S)``, for any ``S``: sizes are padded inside and cropped again.

    Raises:
        ValueError: for ``spatial_dims`` other than 2 or 3, or a checkpoint of another network.
        FileNotFoundError: for a checkpoint that is not there.

    Example:
        >>> HRNet(2, in_channels=1, num_landmarks=5, channels=2, stem_channels=4)(torch.zeros(1, 1, 70, 41)).shape
        torch.Size([1, 5, 70, 41])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        channels: int = 18,
        stem_channels: int = 64,
        norm: tuple | str = "batch",
        pretrained: bool | str = False,
    ) -> None:
        if spatial_dims not in LINEAR_MODES:
            raise ValueError(f"`spatial_dims` must be 2 or 3, got {spatial_dims}.")
        if num_landmarks < 1:
            raise ValueError(f"`num_landmarks` must be at least 1, got {num_landmarks}.")
        super().__init__(spatial_dims, in_channels, channels, stem_channels, norm)
        self.mode = LINEAR_MODES[spatial_dims]
        conv = Conv[Conv.CONV, spatial_dims]
        width = 15 * channels
        self.head = nn.Sequential(
            conv(width, width, 1),
            Norm[Norm.BATCH, spatial_dims](width),
            nn.ReLU(inplace=True),
            conv(width, num_landmarks, 1),
        )
        replace_batch_norm(self.head, norm, spatial_dims)
        self.pretrained_report = None
        if pretrained:
            source = f"hrnet_w{channels}" if pretrained is True else pretrained
            self.pretrained_report = load_pretrained(self, source)

    def forward(self, image: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        padded = pad_to_multiple(image, 32)
        _, finest, *coarser = super().forward(padded)
        shape = finest.shape[2:]
        enlarged = [F.interpolate(x, shape, mode=self.mode, align_corners=False) for x in coarser]
        heatmaps = self.head(torch.cat([finest, *enlarged], dim=1))
        return crop_to(F.interpolate(heatmaps, padded.shape[2:], mode=self.mode, align_corners=False), image)
