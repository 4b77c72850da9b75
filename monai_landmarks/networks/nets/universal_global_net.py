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
"""Global network of Zhu et al. 2021: dilated convolutions at a quarter of the resolution, in 2D and 3D."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.layers.utils import get_act_layer, get_norm_layer
from monai.utils import look_up_option
from torch import nn
from torch.nn import functional as F

from ..blocks import crop_to, pad_to_multiple
from ..blocks.separable_convolution import DatasetModules, convolution, heatmap_layer
from .spatial_configuration_net import LINEAR_MODES
from .universal_network import UniversalNetwork

__all__ = ["DilatedNetwork", "UniversalGlobalNet"]

DILATIONS = (1, 2, 5, 2, 1)
RELU = ("relu", {"inplace": True})


class DilatedNetwork(nn.Module):
    """See all of the image at once, for one data set: the body of both global networks.

    Each input is shrunk and convolved on its own, all together give ``channels``; then one dilated convolution,
    normalisation and activation per entry of ``dilations``, a 1-wide heatmap layer, and enlargement to the full size.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of each input.
        num_landmarks: ``N``.
        options: see :class:`UniversalGlobalNet`.

    Shapes: inputs ``(B, C_k, *S)`` with ``S`` divisible by ``downsample`` -> logits ``(B, N, *S)``.

    Raises:
        ValueError: for an unknown ``resize``, no or impossible dilations, an impossible ``downsample``, or channels
            that the inputs cannot share evenly.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: Sequence[int],
        num_landmarks: int,
        channels: int = 128,
        dilations: Sequence[int] = DILATIONS,
        downsample: int = 4,
        resize: str = "nearest",
        norm: tuple | str = "batch",
        act: tuple | str = RELU,
        heatmap_bias: float | None = None,
    ) -> None:
        super().__init__()
        look_up_option(resize, ("nearest", "linear"))
        if not dilations or min(dilations) < 1 or downsample < 1:
            raise ValueError(f"dilations and `downsample` must be 1 or more, got {dilations} and {downsample}.")
        if channels < 1 or channels % len(in_channels):
            raise ValueError(f"`channels` must be a multiple of {len(in_channels)}, the number of inputs: {channels}.")
        each = channels // len(in_channels)
        self.downsample = downsample
        self.mode = "nearest" if resize == "nearest" else LINEAR_MODES[spatial_dims]
        self.stems = nn.ModuleList(convolution(spatial_dims, inputs, each, 3) for inputs in in_channels)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    convolution(spatial_dims, channels, channels, 3, dilation),
                    get_norm_layer(norm, spatial_dims=spatial_dims, channels=channels),
                    get_act_layer(act),
                )
                for dilation in dilations
            )
        )
        self.head = heatmap_layer(spatial_dims, channels, num_landmarks, heatmap_bias)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        full = inputs[0].shape[2:]
        small = [size // self.downsample for size in full]
        stems = zip(self.stems, inputs, strict=True)
        x = torch.cat([stem(F.interpolate(x, size=small, mode=self.mode)) for stem, x in stems], dim=1)
        return F.interpolate(self.head(self.layers(x)), size=full, mode=self.mode)


class UniversalGlobalNet(UniversalNetwork):
    r"""Predict the landmarks of several data sets from the coarse image alone: :math:`\phi_{GN}` of Zhu et al. 2021.

    The global network of :class:`GU2Net` on its own, as in the ablation of table 2; it has no local heatmap to look at.
    Data sets share nothing. Both resizings are by the nearest voxel as in the public code, so a heatmap is constant in
    blocks of 4: no finer than 4 voxels. The paper's figure 1 has five dilations, 2,229,438 parameters for 19, 37 and 6
    landmarks; the 1.35 M of table 2 are those of three, ``dilations=(1, 2, 5)``, 1,342,398 parameters. The paper says
    that each convolution is followed by LeakyReLU; in the public code those of the global network have ReLU, as here.

    Args:
        spatial_dims: 2 or 3.
        datasets: name of each data set to its number of landmarks.
        in_channels: of the images, one number for all or one for each data set.
        channels: of all convolutions.
        dilations: of the 3-wide convolutions.
        downsample: factor of the coarse resolution.
        resize: ``"nearest"`` as released or ``"linear"``, for both shrinking and enlarging.
        norm: any of MONAI's normalisations.
        act: any of MONAI's activations.
        heatmap_bias: initial bias of the heatmap layers, see :class:`UniversalUNet`.

    Shapes: image ``(B, C, *S)`` and the name of a data set -> logits ``(B, N, *S)``, whose sigmoid is the heatmap, for
    any ``S``: sizes are padded inside and cropped again.

    Raises:
        LandmarkError: for a list of data sets that cannot be, and for an unknown data set in ``forward``.
        ValueError: for ``spatial_dims`` other than 2 or 3, an unknown ``resize``, or dilations, channels or factors
            below 1.

    Example:
        >>> net = UniversalGlobalNet(3, {"spine": 5}, channels=8, dilations=(1, 2))
        >>> net(torch.zeros(1, 1, 13, 10, 9), "spine").shape
        torch.Size([1, 5, 13, 10, 9])
    """

    def __init__(
        self,
        spatial_dims: int,
        datasets: Mapping[str, int],
        in_channels: int | Mapping[str, int] = 1,
        channels: int = 128,
        dilations: Sequence[int] = DILATIONS,
        downsample: int = 4,
        resize: str = "nearest",
        norm: tuple | str = "batch",
        act: tuple | str = RELU,
        heatmap_bias: float | None = None,
    ) -> None:
        super().__init__(datasets, in_channels)
        if spatial_dims not in LINEAR_MODES:
            raise ValueError(f"`spatial_dims` must be 2 or 3, got {spatial_dims}.")
        self.spatial_dims = spatial_dims
        self.options: dict[str, Any] = {
            "channels": channels,
            "dilations": tuple(dilations),
            "downsample": downsample,
            "resize": resize,
            "norm": norm,
            "act": act,
            "heatmap_bias": heatmap_bias,
        }
        self.networks = DatasetModules()
        for name in self.dataset_names:
            self._add_modules(name)

    def forward(self, image: torch.Tensor, dataset: str) -> torch.Tensor:
        self.check_dataset(dataset)
        return crop_to(self.networks(pad_to_multiple(image, self.options["downsample"]), dataset), image)

    def _add_modules(self, name: str, like: str | None = None) -> None:
        body = DilatedNetwork(self.spatial_dims, [self.in_channels[name]], self.num_landmarks[name], **self.options)
        self.networks.add(name, body, like)
