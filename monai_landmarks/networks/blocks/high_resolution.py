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
"""Backbone of the high-resolution network (Wang et al. 2020), in 2D and 3D, with the public checkpoints' key names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv, Norm
from monai.networks.nets.resnet import ResNetBlock, ResNetBottleneck
from torch import nn

from .normalization import replace_batch_norm

__all__ = ["HRNetBackbone"]

BLOCKS = 4
"""Residual blocks of each branch of a module, and of the first layer."""


def conv_norm(dims: int, inputs: int, outputs: int, kernel: int, stride: int = 1, relu: bool = True) -> nn.Sequential:
    layers = [
        Conv[Conv.CONV, dims](inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        Norm[Norm.BATCH, dims](outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


class ExchangeModule(nn.Module):
    """Four residual blocks in every branch, then each branch becomes the sum of all, resized (figure 3 of the paper)."""

    def __init__(self, dims: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(ResNetBlock(width, width, dims) for _ in range(BLOCKS))) for width in channels
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(exchange(dims, channels, source, target) for source in range(len(channels)))
            for target in range(len(channels))
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for paths in self.fuse_layers:
            terms = [path(x) for path, x in zip(paths.children(), maps, strict=True)]
            fused.append(self.relu(sum(terms[1:], terms[0])))
        return fused


def exchange(dims: int, channels: Sequence[int], source: int, target: int) -> nn.Module:
    """Resize one branch to another: 1-wide convolution and nearest up-sampling, or strided convolutions."""
    if source == target:
        return nn.Identity()
    if source > target:
        up = nn.Upsample(scale_factor=float(2 ** (source - target)), mode="nearest")
        return nn.Sequential(*conv_norm(dims, channels[source], channels[target], 1, relu=False), up)
    steps = target - source
    widths = [channels[source]] * steps + [channels[target]]
    return nn.Sequential(
        *(conv_norm(dims, widths[i], widths[i + 1], 3, stride=2, relu=i < steps - 1) for i in range(steps))
    )


class HRNetBackbone(nn.Module):
    """Give feature maps at 1/2 to 1/32 of the size; four branches run in parallel and exchange (Wang et al. 2020, V2).

    The map at 1/2 is the first convolution of the stem, before normalisation; the others are the four branches after
    the last exchange. Key names and shapes are those of the public ImageNet checkpoints, whose further entries
    (``incre_modules``, ``downsamp_modules``, ``final_layer``, ``classifier``) belong to the classifier. In 2D, with 3
    input channels, W18 has 9,562,260 parameters; with that classifier 21,299,004, the number of the public model.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the image.
        channels: of the finest branch, 18 for W18; each further branch has twice as many.
        stem_channels: of the two strided convolutions; 64 in all public checkpoints.
        norm: ``"batch"`` as published, ``"group"``, ``"instance"``, or any of MONAI's normalisations.

    Shapes: ``(B, C, *S)`` with ``S`` divisible by 32 -> five maps, ``stem_channels`` and ``channels * (1, 2, 4, 8)``.

    Example:
        >>> maps = HRNetBackbone(2, 1, channels=2, stem_channels=4)(torch.zeros(2, 1, 64, 32))
        >>> [tuple(x.shape[1:]) for x in maps]
        [(4, 32, 16), (2, 16, 8), (4, 8, 4), (8, 4, 2), (16, 2, 1)]
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        channels: int = 18,
        stem_channels: int = 64,
        norm: tuple | str = "batch",
    ) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = conv_norm(spatial_dims, in_channels, stem_channels, 3, stride=2)
        self.conv2, self.bn2, _ = conv_norm(spatial_dims, stem_channels, stem_channels, 3, stride=2)
        wide = stem_channels * ResNetBottleneck.expansion
        first = conv_norm(spatial_dims, stem_channels, wide, 1, relu=False)
        self.layer1 = nn.Sequential(
            ResNetBottleneck(stem_channels, stem_channels, spatial_dims, downsample=first),
            *(ResNetBottleneck(wide, stem_channels, spatial_dims) for _ in range(BLOCKS - 1)),
        )
        widths = [channels * 2**branch for branch in range(4)]

        def stage(branches: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(ExchangeModule(spatial_dims, widths[:branches]) for _ in range(count)))

        def transition(kept: list[nn.Module], inputs: int) -> nn.ModuleList:
            new = conv_norm(spatial_dims, inputs, widths[len(kept)], 3, stride=2)
            return nn.ModuleList([*kept, nn.Sequential(new)])

        self.transition1 = transition([conv_norm(spatial_dims, wide, widths[0], 3)], wide)
        self.stage2 = stage(2, 1)
        self.transition2 = transition([nn.Identity(), nn.Identity()], widths[1])
        self.stage3 = stage(3, 4)
        self.transition3 = transition([nn.Identity(), nn.Identity(), nn.Identity()], widths[2])
        self.stage4 = stage(4, 3)
        for layer in self.modules():
            if isinstance(layer, nn.modules.conv._ConvNd):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        replace_batch_norm(self, norm, spatial_dims)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        stem = self.conv1(image)
        x = self.relu(self.bn2(self.conv2(self.relu(self.bn1(stem)))))
        maps = [self.layer1(x)]
        for transition, stage in (
            (self.transition1, self.stage2),
            (self.transition2, self.stage3),
            (self.transition3, self.stage4),
        ):
            # each transition keeps the branches it has, one more starts from the coarsest
            maps = [layer(maps[min(i, len(maps) - 1)]) for i, layer in enumerate(transition)]
            maps = stage(maps)
        return [stem, *maps]
