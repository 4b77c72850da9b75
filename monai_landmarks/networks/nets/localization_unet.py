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
"""Localization U-Net, the comparator of Payer et al. 2019, in 2D and 3D."""

from __future__ import annotations

import torch
from monai.networks.layers.factories import Pool
from torch import nn
from torch.nn import functional as F

from ..blocks import crop_to, init_he, init_small_normal, pad_to_multiple
from .spatial_configuration_net import LINEAR_MODES, ConvBlock

__all__ = ["LocalizationUNet"]


class LocalizationUNet(nn.Module):
    """Predict one heatmap per landmark with a U-Net as in Payer et al. 2019, section 3.1.

    As the paper says: five levels with 128 channels each, two convolutions per level and side, dropout in the two deepest
    levels, average pooling and fixed linear up-sampling, skip connections by concatenation. The public code wires another
    variant (maximum pooling, nearest up-sampling, no dropout, a 1-wide heatmap layer); its head is ``head_kernel_size=1``.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the image.
        num_landmarks: ``N``.
        channels: of every intermediate convolution; None takes 128 in 2D and 64 in 3D.
        levels: resolutions; the paper has 5, for its hand MR volumes 4.
        kernel_size: of the intermediate convolutions.
        dropout: between the two convolutions of the two deepest levels of the contracting side.
        act: any of MONAI's activations.
        norm: any of MONAI's normalisations; the paper has none.
        padding_mode: of the convolutions, as in torch.
        head_kernel_size: of the heatmap layer.
        heatmap_std: initial standard deviation of the heatmap layer's weights.

    Shapes: image ``(B, C, *S)`` -> heatmaps ``(B, N, *S)``, for any ``S``: sizes are padded inside and cropped again.

    Raises:
        ValueError: for ``spatial_dims`` other than 2 or 3, even kernels, or counts below 1.

    Example:
        >>> import torch
        >>> LocalizationUNet(3, in_channels=1, num_landmarks=5, channels=4, levels=3)(torch.zeros(1, 1, 9, 14, 11)).shape
        torch.Size([1, 5, 9, 14, 11])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        channels: int | None = None,
        levels: int = 5,
        kernel_size: int = 3,
        dropout: float = 0.5,
        act: tuple | str = "relu",
        norm: tuple | str | None = None,
        padding_mode: str = "zeros",
        head_kernel_size: int = 1,
        heatmap_std: float = 0.001,
    ) -> None:
        super().__init__()
        if spatial_dims not in LINEAR_MODES:
            raise ValueError(f"`spatial_dims` must be 2 or 3, got {spatial_dims}.")
        for name, value in {"in_channels": in_channels, "num_landmarks": num_landmarks, "levels": levels}.items():
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        width = channels or (128 if spatial_dims == 2 else 64)

        def pair(inputs: int, drop: float = 0.0) -> nn.Sequential:
            return nn.Sequential(
                ConvBlock(spatial_dims, inputs, width, kernel_size, act, norm, padding_mode),
                nn.Dropout(drop),
                ConvBlock(spatial_dims, width, width, kernel_size, act, norm, padding_mode),
            )

        self.num_landmarks = num_landmarks
        self.multiple = 2 ** (levels - 1)
        self.mode = LINEAR_MODES[spatial_dims]
        self.pool = Pool[Pool.AVG, spatial_dims](kernel_size=2)
        self.contracting = nn.ModuleList(
            pair(in_channels if level == 0 else width, dropout if level >= levels - 2 else 0.0)
            for level in range(levels)
        )
        self.expanding = nn.ModuleList(pair(2 * width) for _ in range(levels - 1))
        self.head = ConvBlock(spatial_dims, width, num_landmarks, head_kernel_size, act=None)
        init_he(self)
        init_small_normal(self.head, heatmap_std)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = pad_to_multiple(image, self.multiple)
        skips: list[torch.Tensor] = []
        for level, block in enumerate(self.contracting):
            x = block(x if level == 0 else self.pool(x))
            skips.append(x)
        for level, block in enumerate(self.expanding):
            up = F.interpolate(x, scale_factor=2.0, mode=self.mode, align_corners=False)
            x = block(torch.cat([skips[-2 - level], up], dim=1))
        return crop_to(self.head(x), image)
