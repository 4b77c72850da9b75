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
"""GU2Net of Zhu et al. 2021: one network for the landmarks of several data sets, in 2D and 3D."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ..blocks import crop_to, pad_to_multiple
from ..blocks.separable_convolution import DatasetModules
from .universal_global_net import DILATIONS, DilatedNetwork
from .universal_network import UniversalNetwork
from .universal_unet import UniversalUNet

__all__ = ["GU2Net", "GU2NetExplanation"]


class GU2NetExplanation(NamedTuple):
    """What each network saw: three tensors of heatmaps ``(B, N, *S)`` in 0 to 1, ``heatmaps = local * global_``."""

    heatmaps: torch.Tensor
    local: torch.Tensor
    global_: torch.Tensor


class GU2Net(UniversalNetwork):
    r"""Predict the landmarks of several data sets as local times global heatmap (Zhu et al. 2021, figure 1).

    .. math::
        \tilde F_i^L = \phi_{LN}(X_i; \theta_{d_i}^L, \theta_s^L) \quad \text{(eq. 2)}, \qquad
        \tilde F_i^G = \phi_{GN}(X_i, \tilde F_i^L; \theta_{d_i}^G) \quad \text{(eq. 3)}, \qquad
        \tilde F_i = \tilde F_i^G \odot \tilde F_i^L \quad \text{(sec. 2.3)}

    The local network is a :class:`UniversalUNet`. The global network, one per data set, sees image and local heatmap at
    a quarter of the resolution and has five dilated convolutions; gradients flow through both its inputs. With 19, 37
    and 6 landmarks the two have 2,117,630 and 2,263,422 parameters, 4,381,052 together (table 2 prints 4.44 M); a
    further data set adds about 0.8 M in 2D.

    Logits are returned. With those of the two networks, ``l`` and ``g``, the product of the sigmoids is ``sigmoid(u)``,

    .. math:: u = -\log(e^{-l} + e^{-g} + e^{-l-g})

    which loses nothing where the product is near 0 or 1. The losses need it; ``sigmoid`` gives the heatmap back.

    As in the public code, where the paper differs or is silent: ReLU in the global network (paper: LeakyReLU after each
    convolution), resizing by the nearest voxel in both directions, PyTorch's initialisation, no loss on the parts.
    Images of any size are padded by their border; the public code needs sizes that 16 divides.

    Args:
        spatial_dims: 2 or 3.
        datasets: name of each data set to its number of landmarks.
        in_channels: of the images, one number for all or one for each data set.
        channels: of the local network's resolutions, the finest first.
        global_channels: of the global network, even: half for the image, half for the local heatmap.
        dilations: of the global network.
        downsample: factor of the global network's resolution.
        resize: ``"nearest"`` as released or ``"linear"``, for both shrinking and enlarging.
        norm: any of MONAI's normalisations, in both networks.
        align_corners: of the local network's up-sampling.
        heatmap_bias: initial bias of both networks' heatmap layers, see :class:`UniversalUNet`.

    Shapes: image ``(B, C, *S)`` and the name of a data set -> logits ``(B, N, *S)``, for any ``S``.

    Raises:
        LandmarkError: for a list of data sets that cannot be, and for an unknown data set in ``forward``.
        ValueError: for options that cannot be, see :class:`UniversalUNet` and :class:`UniversalGlobalNet`.

    Example:
        >>> net = GU2Net(2, {"head": 19, "hand": 37, "chest": 6}, channels=(4, 8, 8), global_channels=8)
        >>> net(torch.zeros(2, 1, 41, 30), "hand").shape
        torch.Size([2, 37, 41, 30])
        >>> net.explain(torch.zeros(1, 1, 41, 30), "chest").local.shape
        torch.Size([1, 6, 41, 30])
        >>> net.add_dataset("spine", 68)
        >>> net.dataset_names
        ('head', 'hand', 'chest', 'spine')
    """

    def __init__(
        self,
        spatial_dims: int,
        datasets: Mapping[str, int],
        in_channels: int | Mapping[str, int] = 1,
        channels: Sequence[int] = (64, 128, 256, 512, 512),
        global_channels: int = 128,
        dilations: Sequence[int] = DILATIONS,
        downsample: int = 4,
        resize: str = "nearest",
        norm: tuple | str = "batch",
        align_corners: bool = True,
        heatmap_bias: float | None = None,
    ) -> None:
        super().__init__(datasets, in_channels)
        self.local = UniversalUNet(
            spatial_dims,
            datasets,
            in_channels,
            channels,
            norm=norm,
            align_corners=align_corners,
            heatmap_bias=heatmap_bias,
        )
        self.options: dict[str, Any] = {
            "channels": global_channels,
            "dilations": tuple(dilations),
            "downsample": downsample,
            "resize": resize,
            "norm": norm,
            "heatmap_bias": heatmap_bias,
        }
        self.global_networks = DatasetModules()
        for name in self.dataset_names:
            self._add_global(name)
        self.multiple = math.lcm(self.local.multiple, downsample)

    def forward(self, image: torch.Tensor, dataset: str) -> torch.Tensor:
        return _product(*self._logits(image, dataset))

    def explain(self, image: torch.Tensor, dataset: str) -> GU2NetExplanation:
        """Return the heatmaps with those of the two networks whose product they are.

        Args:
            image: ``(B, C, *S)``.
            dataset: name of its data set.

        Returns:
            :class:`GU2NetExplanation`, three tensors ``(B, N, *S)`` of heatmaps, not logits.
        """
        local, coarse = (logits.sigmoid() for logits in self._logits(image, dataset))
        return GU2NetExplanation(local * coarse, local, coarse)

    def _logits(self, image: torch.Tensor, dataset: str) -> tuple[torch.Tensor, torch.Tensor]:
        self.check_dataset(dataset)
        padded = pad_to_multiple(image, self.multiple)
        local = self.local(padded, dataset)
        coarse = self.global_networks[dataset](padded, local.sigmoid())
        return crop_to(local, image), crop_to(coarse, image)

    def _add_modules(self, name: str, like: str | None = None) -> None:
        self.local._note_dataset(name, self.num_landmarks[name], self.in_channels[name])
        self.local._add_modules(name, like)
        self._add_global(name, like)

    def _add_global(self, name: str, like: str | None = None) -> None:
        inputs = [self.in_channels[name], self.num_landmarks[name]]
        body = DilatedNetwork(self.local.spatial_dims, inputs, self.num_landmarks[name], **self.options)
        self.global_networks.add(name, body, like)


def _product(local: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
    """Give ``u`` with ``sigmoid(u) = sigmoid(local) * sigmoid(coarse)``, by sums that neither overflow nor cancel."""
    return -torch.logaddexp(torch.logaddexp(-local, -coarse), -(local + coarse))
