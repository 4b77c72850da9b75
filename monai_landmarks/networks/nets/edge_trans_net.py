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
"""EdgeTransNet: registration of two images by one affine map and a cascade of local deformations (Yin et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from monai.networks.layers.factories import Conv
from monai.networks.utils import pixelshuffle
from torch import nn
from torch.nn import functional as F

from monai_landmarks.geometry import LandmarkError, plain_tensor

from ..blocks import crop_to, pad_to_multiple
from ..blocks.displacement import Registration, affine_displacement, compose_displacements, warp
from ..blocks.encoders import STRIDES, as_encoder, feature_maps
from ..blocks.resolution_attention import GLOBAL_LEVELS, ResolutionAttention, ResolutionSum
from ..pretrained import encoder_weights, load_pretrained
from .spatial_configuration_net import LINEAR_MODES

__all__ = ["EdgeTransNet", "affine_matrix", "voxel_affine"]

LEVELS = (32, 16, 8, 4)
"""Strides of the feature maps that are fused."""

INITIAL = 1e-5
"""Standard deviation of the last layers' weights: registration starts at the identity, within a tenth of a voxel."""

OPEN = 1 - 1e-3
"""Factor of the hyperbolic tangent, which reaches 1 in float32: there a scale is 0 and a shear infinite."""


class EdgeTransNet(nn.Module):
    r"""Register a source onto a target: an affine map, then local deformations, each seen by the network (Yin et al. 2022).

    .. math:: T_0(x) = A x, \quad T_k = T_{k-1} \circ (\mathrm{id} + \Phi_k), \quad I_k(x) = I_\mathrm{source}(T_k(x))

    ``A = g(source, target)`` from the features at 1/32 and 1/16, ``Phi_k = g(I_(k-1), target)`` from those at 1/32 to 1/4,
    all with the same weights. All maps run from target voxels to source voxels; landmarks of the source are carried by the
    inverse, :func:`~monai_landmarks.networks.blocks.displacement.carry_points`. Parameters for 2D and one channel, as
    published:

    ============================================  ==========
    encoder, HRNet-W18 with 3 input channels       9,562,260
    1-wide convolutions, 270 -> 4 x 64                17,536
    positional codes, 270 cells of 32                  8,640
    global tokens                                        128
    attention, 2 layers of 4 blocks                  500,480
    affine head, 64 -> 64 -> 6                         4,678
    local head, 64 -> 8                                  520
    fusion and heads                                 531,982
    all                                           10,094,242
    ============================================  ==========

    Differences from the paper and its released code, with their reasons:

    * Every ``I_k`` reads the source once, through one composed field; both resample the image that was resampled before,
      which blurs it at every step and loses what an early step has pushed out of the view.
    * The affine map is built in coordinates centred in the image, whose unit is half its longest side for all axes. In
      the released ones, -1 to 1 along every axis, a rotation of an image that is not square is no rotation. The first axis
      of the tensor plays the paper's x, the second its y.
    * Voxels are half-pixel aligned when displacements are enlarged; the released code aligns corners there.
    * The paper feeds source and target; the released code, and this network, their mean as well, which makes three
      channels of two grey images, as the public weights expect.
    * The last layers begin near zero, so that the first registration is the identity; the released code begins them with
      deviations of 0.01, which moves voxels by several.

    Args:
        spatial_dims: 2 or 3; the paper has 2. In 3D the affine map has 3 translations, 3 scales, 3 rotations and 3 shears.
        in_channels: of each of the two images.
        encoder: a name that :func:`~monai_landmarks.networks.blocks.build_encoder` knows, or any module for
            ``3 * in_channels`` channels that returns feature maps at 1/2, 1/4, 1/8, 1/16 and 1/32.
        width: factor of the encoder's channels; one from timm or given as a module keeps its own.
        channels: of the fused features, the paper's d_model.
        heads: of the attention.
        layers: of attention blocks.
        dropout: inside the blocks.
        attention: False leaves all attention out (table 3, first row): the network is convolutional, and each resolution
            adds the lower one, enlarged; see :class:`~monai_landmarks.networks.blocks.resolution_attention.ResolutionSum`.
        local_steps: ``N``, how often the local deformation is applied. The attribute may be set at any time.
        max_scale: that scales differ from 1 by at most.
        max_rotation: radians.
        max_shear: radians, whose tangent is the shear.
        max_displacement: of one local step along each axis, in halves of the longest side. The released code has 0.5, in
            halves of each side.
        norm: of the encoder, ``"batch"`` as published, ``"group"``, ``"instance"``, or any of MONAI's; unless it is
            "batch", the affine head has layer normalisation, for training with one pair.
        image_size: for which positional codes are learned, one for each cell, None for the paper's 320 x 256 (and 256).
            Codes of other sizes are interpolated.
        pretrained: a checkpoint of the encoder, file or address, or True for the public one of its name; see
            :func:`~monai_landmarks.networks.load_pretrained`. The attribute ``pretrained_report`` says what was loaded.

    Shapes: source and target ``(B, C, *S)`` of one size, any ``S`` -> :class:`Registration` in voxels, float32 also under
    autocast. Images are extended at the end to multiples of 32 inside. Training with batch normalisation needs more than
    one pair.

    Raises:
        ValueError: for ``spatial_dims`` other than 2 or 3, limits out of range, an unknown encoder or one without these
            feature maps, or a checkpoint of another network.
        FileNotFoundError: for a checkpoint that is not there.
        LandmarkError: for a call with images of two sizes.

    Example:
        >>> net = EdgeTransNet(2, width=0.125, channels=8, layers=1).eval()
        >>> registration = net(torch.rand(1, 1, 75, 50), torch.rand(1, 1, 75, 50))
        >>> registration.affine.shape, len(registration.fields), registration.fields[-1].shape
        (torch.Size([1, 2, 3]), 3, torch.Size([1, 2, 75, 50]))
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int = 1,
        encoder: str | nn.Module = "hrnet_w18",
        width: float = 1.0,
        channels: int = 64,
        heads: int = 2,
        layers: int = 2,
        dropout: float = 0.1,
        attention: bool = True,
        local_steps: int = 2,
        max_scale: float = 1.0,
        max_rotation: float = math.pi / 2,
        max_shear: float = math.pi / 2,
        max_displacement: float = 0.5,
        norm: tuple | str = "batch",
        image_size: Sequence[int] | None = None,
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        if spatial_dims not in LINEAR_MODES:
            raise ValueError(f"`spatial_dims` must be 2 or 3, got {spatial_dims}.")
        _check_limits(max_scale, max_rotation, max_shear, max_displacement)
        if in_channels < 1 or channels < 1 or local_steps < 0:
            raise ValueError(
                f"`in_channels` and `channels` must be at least 1 and `local_steps` at least 0, got {in_channels}, "
                f"{channels} and {local_steps}."
            )
        size = tuple(image_size or (320, 256, 256)[:spatial_dims])
        if len(size) != spatial_dims or min(size) < 1:
            raise ValueError(f"`image_size` must be {spatial_dims} sizes above 0, got {image_size}.")
        self.spatial_dims, self.local_steps = spatial_dims, local_steps
        self.limits = (max_scale, max_rotation, max_shear)
        self.max_displacement = max_displacement
        self.mode = LINEAR_MODES[spatial_dims]
        weights = encoder_weights(encoder, pretrained)
        self.encoder = as_encoder(encoder, spatial_dims, 3 * in_channels, width, norm)
        maps = feature_maps(self.encoder, spatial_dims, 3 * in_channels)
        self.positions, inputs = zip(*(maps[stride] for stride in LEVELS), strict=True)
        self.fuse: nn.Module = ResolutionSum(spatial_dims, inputs, channels)
        if attention:
            cells = [-(-length // LEVELS[-1]) for length in size]
            self.fuse = ResolutionAttention(spatial_dims, inputs, cells, channels, heads, layers, dropout)
        last = nn.Linear(channels, spatial_dims * (spatial_dims + 1))
        between = nn.BatchNorm1d(channels) if norm == "batch" else nn.LayerNorm(channels)
        self.affine_head = nn.Sequential(nn.Linear(channels, channels), between, nn.ReLU(inplace=True), last)
        self.local_head = Conv[Conv.CONV, spatial_dims](channels, spatial_dims * 2**spatial_dims, 1)
        for head in (last, self.local_head):
            nn.init.normal_(head.weight, std=INITIAL)
            nn.init.zeros_(head.bias)
        self.pretrained_report = load_pretrained(self, weights) if weights else None

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> Registration:
        source, target = plain_tensor(source), plain_tensor(target)
        if source.shape != target.shape or source.ndim != self.spatial_dims + 2:
            raise LandmarkError(
                f"source and target must both be (B, C, *S) with {self.spatial_dims} spatial axes and of one size, got "
                f"{tuple(source.shape)} and {tuple(target.shape)}: bring both to one grid first, as `FitToGridd` does."
            )
        shape = source.shape[2:]
        affine = self._affine(source, target)
        start = affine_displacement(affine, shape)
        steps: list[torch.Tensor] = []
        fields = [start]
        for _ in range(self.local_steps):
            steps.append(self._step(warp(source, fields[-1]), target))
            # From the newest step to the first: so every voxel goes its exact way, whatever the number of steps. The affine
            # map is applied, not sampled: it is exact beyond the border too.
            local = reduce(lambda inner, outer: compose_displacements(outer, inner), reversed(steps))
            fields.append(affine_displacement(affine, shape, first=local))
        return Registration(affine, steps, fields)

    def _features(self, source: torch.Tensor, target: torch.Tensor) -> list[torch.Tensor]:
        pair = torch.cat([source, target, (source + target) / 2], dim=1)
        maps = self.encoder(pad_to_multiple(pair, STRIDES[-1]))
        return [maps[position] for position in self.positions]

    def _affine(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        token, _ = self.fuse(self._features(source, target)[:GLOBAL_LEVELS])
        with torch.autocast(token.device.type, enabled=False):
            outputs = OPEN * torch.tanh(self.affine_head(token.float()))
            return voxel_affine(affine_matrix(outputs, *self.limits), source.shape[2:])

    def _step(self, warped: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        _, features = self.fuse(self._features(warped, target))
        with torch.autocast(features.device.type, enabled=False):
            coarse = pixelshuffle(self.local_head(features.float()), self.spatial_dims, 2)
            limit = self.max_displacement * max(target.shape[2:]) / 2
            flow = F.interpolate(limit * torch.tanh(coarse), scale_factor=2.0, mode=self.mode, align_corners=False)
            return crop_to(flow, target)


def affine_matrix(
    outputs: torch.Tensor,
    max_scale: float = 1.0,
    max_rotation: float = math.pi / 2,
    max_shear: float = math.pi / 2,
) -> torch.Tensor:
    r"""Build affine matrices from relative changes (eq. 9 and 10 of the paper), in centred coordinates.

    Scales times rotations times shears, and a translation; in 2D, with :math:`\alpha` the rotation, :math:`\beta` the
    shear,

    .. math::
        \begin{pmatrix} s_x \cos\alpha & s_x (\cos\alpha \tan\beta + \sin\alpha) & t_x \\
        -s_y \sin\alpha & s_y (-\sin\alpha \tan\beta + \cos\alpha) & t_y \end{pmatrix}

    In 3D there is one rotation in each of the planes of axes (0, 1), (0, 2) and (1, 2), multiplied in this order, and one
    shear for each of the same pairs above the diagonal.

    Args:
        outputs: ``(B, D * (D + 1))`` between -1 and 1: ``D`` translations, ``D`` scales, the rotations, the shears.
        max_scale: that scales differ from 1 by.
        max_rotation: radians.
        max_shear: radians.

    Returns:
        ``(B, D, D + 1)``, the identity for zeros.

    Raises:
        ValueError: for outputs of another length than 6 or 12.

    Example:
        >>> affine_matrix(torch.tensor([[0.1, 0.0, 0.0, 0.5, 0.0, 0.0]]))
        tensor([[[1.0000, 0.0000, 0.1000],
                 [0.0000, 1.5000, 0.0000]]])
    """
    dims = {6: 2, 12: 3}.get(outputs.shape[-1])
    if dims is None:
        raise ValueError(f"an affine map has 6 numbers in 2D and 12 in 3D, got {tuple(outputs.shape)}.")
    planes = [(i, j) for i in range(dims) for j in range(i + 1, dims)]
    shift, scale, angle, shear = outputs.split([dims, dims, len(planes), len(planes)], dim=-1)
    identity = torch.eye(dims, dtype=outputs.dtype, device=outputs.device).expand(len(outputs), dims, dims)
    linear = torch.diag_embed(1 + max_scale * scale)
    upper = identity.clone()
    for number, (i, j) in enumerate(planes):
        cos, sin = torch.cos(max_rotation * angle[:, number]), torch.sin(max_rotation * angle[:, number])
        turn = identity.clone()
        turn[:, i, i], turn[:, i, j], turn[:, j, i], turn[:, j, j] = cos, sin, -sin, cos
        linear = linear @ turn
        upper[:, i, j] = torch.tan(max_shear * shear[:, number])
    return torch.cat([linear @ upper, shift[..., None]], dim=-1)


def voxel_affine(affine: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Bring affine maps of centred coordinates, in halves of the longest side, to voxels.

    Args:
        affine: ``(B, D, D + 1)``; the origin is the middle of the image, and the unit is one for all axes.
        shape: ``D`` sizes of the image.

    Returns:
        ``(B, D, D + 1)`` in voxels.

    Example:
        >>> voxel_affine(torch.tensor([[[0.0, 1.0, 0.0], [-1.0, 0.0, 0.5]]]), (5, 9))
        tensor([[[ 0.0000,  1.0000, -2.0000],
                 [-1.0000,  0.0000,  8.2500]]])
    """
    linear, shift = affine[..., :-1], affine[..., -1]
    middle = (torch.tensor(tuple(shape), dtype=affine.dtype, device=affine.device) - 1) / 2
    moved = middle - (linear * middle).sum(dim=-1) + shift * (max(shape) / 2)
    return torch.cat([linear, moved[..., None]], dim=-1)


def _check_limits(scale: float, rotation: float, shear: float, displacement: float) -> None:
    if not (0 <= scale <= 1 and 0 <= rotation <= math.pi and 0 <= shear <= math.pi / 2 and displacement > 0):
        raise ValueError(
            "limits must be 0 <= `max_scale` <= 1, 0 <= `max_rotation` <= pi, 0 <= `max_shear` <= pi / 2 and "
            f"`max_displacement` > 0, got {scale}, {rotation}, {shear} and {displacement}."
        )
