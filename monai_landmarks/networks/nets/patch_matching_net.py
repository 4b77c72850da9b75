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
"""The self-supervised network of CC2Dv2 (Yao et al. 2022): where in the image is this point of the patch?"""

from __future__ import annotations

import copy
from typing import Final

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Conv
from torch import nn
from torch.nn import functional as F

from ..blocks import pad_to_multiple
from ..blocks.convolution import conv_norm_relu
from ..blocks.encoders import STRIDES, as_encoder, feature_maps, scaled
from ..blocks.normalization import norm_of
from ..blocks.similarity import cosine_similarity, sample_cells
from ..pretrained import encoder_weights, load_pretrained
from .spatial_configuration_net import LINEAR_MODES

__all__ = ["EmbeddingPyramid", "PatchMatchingNet", "ReceptiveBlock"]


class ReceptiveBlock(nn.Module):
    """Look at surroundings of four sizes at once: the block that the released code puts before its coarse embeddings.

    A 1-wide convolution, and three branches for ``k`` = 3, 5, 7: 1 wide, ``k`` wide along each axis, 3 wide dilated by
    ``k``; together through a 3-wide convolution, plus a 1-wide shortcut, rectified. Every convolution is normalised and
    none but the sum is rectified.

    Args:
        spatial_dims: 2 or 3.
        channels: in and out.
        norm: any of MONAI's normalisations.
    """

    def __init__(self, spatial_dims: int, channels: int, norm: tuple | str = "batch") -> None:
        super().__init__()

        def layer(kernel: int | list[int] = 1, dilation: int = 1, inputs: int = channels) -> Convolution:
            return Convolution(
                spatial_dims,
                inputs,
                channels,
                kernel_size=kernel,
                dilation=dilation,
                act=None,
                norm=norm_of(norm, channels),
                adn_ordering="N",
                bias=False,
            )

        axes = range(spatial_dims)
        self.branches = nn.ModuleList([layer()])
        for k in (3, 5, 7):
            along = [layer([k if axis == other else 1 for other in axes]) for axis in reversed(axes)]
            self.branches.append(nn.Sequential(layer(), *along, layer(3, dilation=k)))
        self.fuse = layer(3, inputs=len(self.branches) * channels)
        self.shortcut = layer()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.fuse(torch.cat([branch(x) for branch in self.branches], dim=1)) + self.shortcut(x))


class EmbeddingPyramid(nn.Module):
    """Give every cell of an image an embedding at strides 32 to 2: an encoder, a decoder with skips, 1-wide convolutions.

    Each step of the decoder enlarges linearly, concatenates the encoder's map of that stride and convolves twice, 3 wide
    with normalisation and ReLU. The decoder's widths are those of the released code, 256, 128, 64 and 128 at strides 16
    to 2. The released code goes on to stride 1 with a level that it uses nowhere; it is left out.

    With VGG the released code takes the five pooled maps, 64 channels at 1/2 to 512 at 1/32; here the maps at 1/2 to 1/16
    are what the next block makes of them (128, 256, 512, 512 channels), and at 1/32 both are the same.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the image.
        encoder: a name that :func:`~monai_landmarks.networks.blocks.build_encoder` knows, or any module that returns
            feature maps at 1/2, 1/4, 1/8, 1/16 and 1/32.
        width: factor of all channels but those of the embeddings; an ``encoder`` from timm or given as a module keeps its
            own.
        embedding: channels of the embedding at every stride.
        norm: ``"batch"`` as published, ``"group"``, ``"instance"``, or any of MONAI's normalisations.
        receptive_blocks: whether the maps at strides 32, 16 and 8 pass through a :class:`ReceptiveBlock` before their
            embedding, as in the released code.

    Shapes: image ``(B, C, *S)``, for any ``S`` -> five maps ``(B, embedding, *ceil(S / stride))``, strides 32, 16, 8, 4,
    2; the image is padded by its border.

    Raises:
        ValueError: for ``spatial_dims`` other than 2 or 3, an unknown encoder, or one without these five feature maps.

    Example:
        >>> maps = EmbeddingPyramid(2, 1, "resnet18", width=0.125, embedding=8)(torch.zeros(2, 1, 75, 50))
        >>> [tuple(x.shape[2:]) for x in maps]
        [(3, 2), (5, 4), (10, 7), (19, 13), (38, 25)]
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int = 1,
        encoder: str | nn.Module = "vgg19",
        width: float = 1.0,
        embedding: int = 64,
        norm: tuple | str = "batch",
        receptive_blocks: bool = False,
    ) -> None:
        super().__init__()
        if spatial_dims not in LINEAR_MODES:
            raise ValueError(f"`spatial_dims` must be 2 or 3, got {spatial_dims}.")
        for name, value in {"in_channels": in_channels, "embedding": embedding}.items():
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        self.encoder = as_encoder(encoder, spatial_dims, in_channels, width, norm)
        maps = feature_maps(self.encoder, spatial_dims, in_channels)
        self.positions, (deepest, *skips) = zip(*(maps[stride] for stride in reversed(STRIDES)), strict=True)
        widths = [deepest, *(scaled(channels, width) for channels in (256, 128, 64, 128))]
        self.mode = LINEAR_MODES[spatial_dims]
        self.decoder = nn.ModuleList(
            nn.Sequential(
                conv_norm_relu(spatial_dims, below + skip, here, 3, norm=norm),
                conv_norm_relu(spatial_dims, here, here, 3, norm=norm),
            )
            for below, skip, here in zip(widths, skips, widths[1:], strict=False)
        )
        self.receptive = nn.ModuleList(
            ReceptiveBlock(spatial_dims, channels, norm) if receptive_blocks and level < 3 else nn.Identity()
            for level, channels in enumerate(widths)
        )
        self.heads = nn.ModuleList(Conv[Conv.CONV, spatial_dims](channels, embedding, 1) for channels in widths)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        maps = self.encoder(pad_to_multiple(image, STRIDES[-1]))
        x, *skips = (maps[position] for position in self.positions)
        levels = [x]
        for block, skip in zip(self.decoder, skips, strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode=self.mode, align_corners=False)
            x = block(torch.cat([skip, x], dim=1))
            levels.append(x)
        cells = [[slice(-(-size // stride)) for size in image.shape[2:]] for stride in reversed(STRIDES)]
        levels = [block(x) for block, x in zip(self.receptive, levels, strict=True)]
        return [head(x[(..., *cut)]) for head, x, cut in zip(self.heads, levels, cells, strict=True)]


class PatchMatchingNet(nn.Module):
    r"""Tell of every cell of an image how similar it is to a point of a patch, at five strides (CC2Dv2, eq. 1).

    .. math:: S^i = \frac{\langle f_a^i, F_r^i \rangle}{\|f_a^i\| \, \|F_r^i\|}, \quad F_r = E_r(X_r), \; F_p = E_p(X_p)

    The patch is an augmented piece of the image, the anchor feature f_a the one of the patch's cell in which the point
    lies, and :class:`~monai_landmarks.losses.PatchMatchingLoss` wants the highest similarity where the point lies in the
    image. No landmark is needed to train it. Parameters of one extractor with VGG-19 and 3 input channels, in 2D:

    =====================  ==========
    encoder                20,024,384
    decoder                 4,611,456
    1-wide convolutions        69,952
    all                    24,705,792
    =====================  ==========

    The paper has two extractors; the released code builds two and uses one for both (``shared=True``). Here E_p begins as
    a copy of E_r, so that a patch without augmentation is found before training; the paper does not say how they begin.
    Cells are half-pixel aligned, see :func:`~monai_landmarks.networks.blocks.similarity.cell_of`. The released code passes
    the three coarsest maps through :class:`ReceptiveBlock`, 33,745,152 parameters more, which the paper does not mention
    (``receptive_blocks=True``).

    Args:
        spatial_dims: 2 or 3; the paper has 2.
        in_channels: of the image and of the patch; the paper has 3, grey films repeated.
        encoder, width, embedding, norm, receptive_blocks: see :class:`EmbeddingPyramid`.
        shared: whether one extractor serves image and patch.
        pretrained: a checkpoint of the encoder, file or address, or True for the public one of its name; see
            :func:`~monai_landmarks.networks.load_pretrained`. The attribute ``pretrained_report`` says what was loaded.

    Shapes: image ``(B, C, *S)``, patch ``(B, C, *P)``, points ``(B, K, D)`` in voxels of the patch, NaN for missing ->
    five maps ``(B, K, *ceil(S / stride))`` from -1 to 1 in float32, for the strides of :attr:`strides`. The map of a point
    that is missing or outside the patch is 0.

    Raises:
        ValueError: see :class:`EmbeddingPyramid`; or ``pretrained=True`` for a module.
        FileNotFoundError: for a checkpoint that is not there.

    Example:
        >>> net = PatchMatchingNet(2, encoder="resnet18", width=0.125).eval()
        >>> image = torch.rand(1, 1, 64, 96)
        >>> maps = net(image, image[..., :64], torch.tensor([[[40.0, 21.5]]]))
        >>> [tuple(x.shape) for x in maps][:2], net.strides
        ([(1, 1, 2, 3), (1, 1, 4, 6)], (32, 16, 8, 4, 2))
    """

    strides: Final = STRIDES[::-1]
    """Voxels of the image in one cell of each map, the coarsest first."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int = 1,
        encoder: str | nn.Module = "vgg19",
        width: float = 1.0,
        embedding: int = 64,
        shared: bool = False,
        norm: tuple | str = "batch",
        pretrained: bool | str = False,
        receptive_blocks: bool = False,
    ) -> None:
        super().__init__()
        weights = encoder_weights(encoder, pretrained)
        self.spatial_dims, self.embedding, self.shared = spatial_dims, embedding, shared
        self.image_pyramid = EmbeddingPyramid(
            spatial_dims, in_channels, encoder, width, embedding, norm, receptive_blocks
        )
        self.pretrained_report = load_pretrained(self.image_pyramid, weights) if weights else None
        self.patch_pyramid = None if shared else copy.deepcopy(self.image_pyramid)

    def embed(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Embed the cells of an image by E_r: ``(B, embedding, *ceil(S / stride))`` for each stride."""
        return self.image_pyramid(image)

    def embed_patch(self, patch: torch.Tensor) -> list[torch.Tensor]:
        """Embed the cells of a patch by E_p, which is E_r if they are shared."""
        return (self.patch_pyramid or self.image_pyramid)(patch)

    def forward(self, image: torch.Tensor, patch: torch.Tensor, patch_points: torch.Tensor) -> list[torch.Tensor]:
        return [
            cosine_similarity(cells, sample_cells(patch_cells, patch_points, stride))
            for cells, patch_cells, stride in zip(self.embed(image), self.embed_patch(patch), self.strides, strict=True)
        ]
