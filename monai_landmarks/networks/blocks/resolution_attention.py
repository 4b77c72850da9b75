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
"""Fusion of feature maps of several resolutions, the coarsest first: by attention (Yin et al. 2022) or by addition."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv
from monai.networks.nets.swin_unetr import window_partition, window_reverse
from torch import nn
from torch.nn import functional as F

from .initialization import init_he
from .resize import pad_to_multiple

__all__ = ["ResolutionAttention", "ResolutionSum"]

GLOBAL_LEVELS = 2
"""Resolutions whose cells all see each other and that have a global token; finer ones are cut into windows."""

FEED_FORWARD = 4
"""Width of a block's hidden layer, in channels of the block."""


class PositionalCode(nn.Module):
    """Add to every cell of a map what was learned for its place along each axis, concatenated over the axes.

    The codes of an axis are learned for a given number of cells; for another number they are interpolated linearly, so
    that they cover the map from border to border whatever its size.

    Args:
        channels: of the map, shared out to the axes as evenly as possible.
        cells: along each axis for which codes are learned.

    Shapes: ``(B, channels, *S)`` -> the same, for any ``S``.
    """

    def __init__(self, channels: int, cells: Sequence[int]) -> None:
        super().__init__()
        dims = len(cells)
        widths = [channels // dims + (axis < channels % dims) for axis in range(dims)]
        self.codes = nn.ParameterList(
            nn.Parameter(0.02 * torch.randn(width, count)) for width, count in zip(widths, cells, strict=True)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = x.shape[2:]
        codes = []
        for axis, (code, size) in enumerate(zip(self.codes, shape, strict=True)):
            if code.shape[1] != size:
                code = F.interpolate(code[None], size=size, mode="linear", align_corners=False)[0]
            place = [size if other == axis else 1 for other in range(len(shape))]
            codes.append(code.reshape(-1, *place).expand(-1, *shape))
        return x + torch.cat(codes)


class ResolutionAttention(nn.Module):
    """Let the cells of every resolution attend to each other and to those of the next lower one (Yin et al. 2022, 3.2).

    A 1-wide convolution brings every map to the same channels, and learned codes say where a cell lies. Then, layer by
    layer, each resolution passes through a block of the transformer, from the coarsest to the finest: self-attention,
    attention to the lower resolution as that layer has just left it, and two linear layers, each with its normalisation
    after the residual sum. The coarsest has nothing below it. The blocks are torch's ``TransformerEncoderLayer`` and
    ``TransformerDecoderLayer``.

    At the two coarsest resolutions every cell sees all others and a learned global token. Finer maps are cut into
    ``windows`` equal parts along each axis, and a cell sees its own part and the same part of the lower resolution. Maps
    that this number does not divide are extended by their border first.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the maps, the coarsest first; every map has twice the cells of the one before along each axis.
        cells: of the finest map along each axis, for which positional codes are learned; codes of other sizes are
            interpolated.
        channels: of all maps after their 1-wide convolution, divisible by ``heads``.
        heads: of the attention.
        layers: of blocks.
        dropout: inside the blocks.
        windows: parts along each axis into which finer maps are cut.

    Shapes: the maps ``(B, C_i, *S_i)``, or only the first two or three -> the global token of the second one
    ``(B, channels)``, and the last map ``(B, channels, *S)``.

    Raises:
        ValueError: for counts below 1, or channels that the heads do not divide.

    Example:
        >>> fuse = ResolutionAttention(2, [16, 8, 4], cells=(16, 24), channels=8, layers=1)
        >>> maps = [torch.zeros(1, 16 >> i, 5 << i, 3 << i) for i in range(3)]
        >>> token, finest = fuse(maps)
        >>> token.shape, finest.shape
        (torch.Size([1, 8]), torch.Size([1, 8, 20, 12]))
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: Sequence[int],
        cells: Sequence[int],
        channels: int = 64,
        heads: int = 2,
        layers: int = 2,
        dropout: float = 0.1,
        windows: int = 4,
    ) -> None:
        super().__init__()
        for name, value in {"heads": heads, "layers": layers, "windows": windows}.items():
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        if channels % heads or channels < spatial_dims:
            raise ValueError(
                f"`channels` must be divisible by the {heads} `heads`, such as {32 * heads}, got {channels}."
            )
        self.windows, self.channels = windows, channels
        count = len(in_channels)
        self.enter = nn.ModuleList(Conv[Conv.CONV, spatial_dims](inputs, channels, 1) for inputs in in_channels)
        self.codes = nn.ModuleList(
            PositionalCode(channels, [max(1, -(-size >> (count - 1 - level))) for size in cells])
            for level in range(count)
        )
        self.tokens = nn.ParameterList(nn.Parameter(0.02 * torch.randn(1, 1, channels)) for _ in range(GLOBAL_LEVELS))
        hidden = FEED_FORWARD * channels
        self.layers = nn.ModuleList(
            nn.ModuleList(
                (nn.TransformerDecoderLayer if level else nn.TransformerEncoderLayer)(
                    channels, heads, hidden, dropout, batch_first=True
                )
                for level in range(count)
            )
            for _ in range(layers)
        )
        init_he(self.enter)
        for layer in self.layers.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        entered = [code(enter(x)) for enter, code, x in zip(self.enter, self.codes, maps, strict=False)]
        shapes = [x.shape[2:] for x in entered]
        # Cells (B, *S, channels) of every resolution, and the tokens beside those of the coarsest.
        cells = [x.movedim(1, -1) for x in entered]
        tokens = [token.to(cells[0].dtype).expand(len(cells[0]), -1, -1) for token in self.tokens]
        for layer in self.layers:
            memory: torch.Tensor | None = None
            for level, (block, shape) in enumerate(zip(layer.children(), shapes, strict=False)):
                if level < GLOBAL_LEVELS:
                    sequence = torch.cat([tokens[level], cells[level].flatten(1, -2)], dim=1)
                    sequence = block(sequence) if memory is None else block(sequence, memory)
                    tokens[level], cells[level] = sequence[:, :1], sequence[:, 1:].unflatten(1, shape)
                    memory = sequence
                else:
                    cells[level] = self._in_windows(block, cells[level], cells[level - 1])
        return tokens[len(shapes[:GLOBAL_LEVELS]) - 1][:, 0], cells[-1].movedim(-1, 1)

    def _in_windows(self, block: nn.Module, x: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
        (parts, size, padded), (memory, _, _) = self._cut(x, 2 * self.windows), self._cut(lower, self.windows)
        whole = window_reverse(block(parts, memory), size, padded)
        for axis, length in enumerate(x.shape[1:-1], start=1):
            whole = whole.narrow(axis, 0, length)
        return whole

    def _cut(self, x: torch.Tensor, multiple: int) -> tuple[torch.Tensor, list[int], list[int]]:
        """Windows (B * windows^D, L, channels) of a map, their size, and the sizes of batch and map when extended."""
        x = pad_to_multiple(x.movedim(-1, 1), multiple).movedim(1, -1).contiguous()
        size = [length // self.windows for length in x.shape[1:-1]]
        return window_partition(x, size), size, list(x.shape[:-1])


class ResolutionSum(nn.Module):
    """Fuse feature maps without attention: each is the sum of itself and the lower one, enlarged.

    A 1-wide convolution brings every map to the same channels; the sum of the coarser ones is enlarged linearly and added.
    What stands for the whole image is the mean over the cells of the second map.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the maps, the coarsest first.
        channels: of all maps after their 1-wide convolution.

    Shapes: as :class:`ResolutionAttention`.

    Example:
        >>> summary, finest = ResolutionSum(3, [8, 4], channels=6)([torch.zeros(1, 8, 2, 2, 3), torch.zeros(1, 4, 4, 4, 6)])
        >>> summary.shape, finest.shape
        (torch.Size([1, 6]), torch.Size([1, 6, 4, 4, 6]))
    """

    def __init__(self, spatial_dims: int, in_channels: Sequence[int], channels: int = 64) -> None:
        super().__init__()
        self.mode = "bilinear" if spatial_dims == 2 else "trilinear"
        self.enter = nn.ModuleList(Conv[Conv.CONV, spatial_dims](inputs, channels, 1) for inputs in in_channels)
        init_he(self.enter)

    def forward(self, maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        x, *finer = (enter(x) for enter, x in zip(self.enter, maps, strict=False))
        summary = x
        for level, lateral in enumerate(finer, start=1):
            x = lateral + F.interpolate(x, lateral.shape[2:], mode=self.mode, align_corners=False)
            summary = x if level < GLOBAL_LEVELS else summary
        return summary.flatten(2).mean(dim=-1), x
