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
"""Convolutions of a network that learns several data sets at once: which weights are shared, which each has alone."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from monai.networks.layers.factories import Conv
from monai.networks.layers.utils import get_act_layer, get_norm_layer
from torch import nn

__all__ = [
    "LEAKY_RELU",
    "DatasetModules",
    "OwnConvolution",
    "SeparableConvolution",
    "SharedConvolution",
    "convolution",
    "heatmap_layer",
]

LEAKY_RELU = ("leakyrelu", {"negative_slope": 0.01, "inplace": True})


class DatasetModules(nn.ModuleDict):
    """One module per data set, called with the name of the data set.

    Example:
        >>> heads = DatasetModules({"head": nn.Conv2d(8, 19, 1), "hand": nn.Conv2d(8, 37, 1)})
        >>> heads(torch.zeros(1, 8, 5, 5), "hand").shape
        torch.Size([1, 37, 5, 5])
    """

    def forward(self, x: torch.Tensor, dataset: str) -> torch.Tensor:
        return self[dataset](x)

    def add(self, dataset: str, module: nn.Module, like: str | None = None) -> None:
        """Add the module of a further data set, on the device and in the dtype and mode of the others.

        Args:
            dataset: name of the data set.
            module: freshly built.
            like: a known data set whose weights are copied where their shapes fit.
        """
        for tensor in [*self.parameters(), *self.buffers()]:
            if tensor.is_floating_point():
                module.to(tensor.device, tensor.dtype)
                break
        if like is not None:
            own = module.state_dict()
            saved = self[like].state_dict()
            module.load_state_dict({k: v for k, v in saved.items() if v.shape == own[k].shape}, strict=False)
        self[dataset] = module.train(self.training)


def convolution(
    spatial_dims: int, in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1, groups: int = 1
) -> nn.Module:
    """Build a convolution with bias that keeps the size, by zeros at the border.

    Raises:
        ValueError: for an even kernel.
    """
    if kernel_size % 2 == 0:
        raise ValueError(f"`kernel_size` must be odd so that the output keeps its place, got {kernel_size}.")
    padding = dilation * (kernel_size // 2)
    return Conv[Conv.CONV, spatial_dims](
        in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, groups=groups
    )


def heatmap_layer(spatial_dims: int, in_channels: int, num_landmarks: int, bias: float | None) -> nn.Module:
    """Build a 1-wide convolution to one logit per landmark, whose bias starts at a value if one is given."""
    layer = convolution(spatial_dims, in_channels, num_landmarks, 1)
    if bias is not None:
        nn.init.constant_(layer.get_parameter("bias"), bias)
    return layer


class _DatasetConvolution(nn.Module):
    """What the three kinds share: their arguments, and one data set after the other being added."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        datasets: Iterable[str] = (),
        kernel_size: int = 3,
        norm: tuple | str | None = "batch",
        act: tuple | str | None = LEAKY_RELU,
    ) -> None:
        super().__init__()
        self.sizes = (spatial_dims, in_channels, out_channels, kernel_size)
        self.norm = norm
        self._build()
        self.act = nn.Identity() if act is None else get_act_layer(act)
        for dataset in datasets:
            self.add_dataset(dataset)

    def _build(self) -> None:
        """Make what needs no data set."""
        raise NotImplementedError

    def add_dataset(self, dataset: str, like: str | None = None) -> None:
        """Add the weights that a data set has alone.

        Args:
            dataset: name of the data set.
            like: a known data set to copy from; None draws them anew.
        """
        raise NotImplementedError

    def _standard(self) -> nn.Module:
        dims, inputs, outputs, kernel_size = self.sizes
        return nn.Sequential(convolution(dims, inputs, outputs, kernel_size), self._normalization())

    def _normalization(self) -> nn.Module:
        dims, _, outputs, _ = self.sizes
        return nn.Identity() if self.norm is None else get_norm_layer(self.norm, spatial_dims=dims, channels=outputs)


class SeparableConvolution(_DatasetConvolution):
    r"""Convolve each channel with a kernel of the data set's own, then mix channels with weights that all share.

    .. math:: y = a(\mathrm{norm}_t(W * (k_t \star x + b_t) + c))

    with :math:`k_t` the depth-wise kernels of data set :math:`t`, :math:`\mathrm{norm}_t` its normalisation and
    :math:`W, c` the point-wise convolution of all (Zhu et al. 2021, section 2.1; Huang et al. 2019). Nothing stands
    between the two convolutions. For ``N`` input and ``M`` output channels and ``T`` data sets the kernels have
    ``9 N T + N M`` weights in 2D and ``27 N T + N M`` in 3D, as the paper counts; the biases, ``N T + M``, and the
    normalisations, ``2 M T``, come on top.

    Args:
        spatial_dims: 2 or 3.
        in_channels: ``N``.
        out_channels: ``M``.
        datasets: names of the data sets.
        kernel_size: of the depth-wise convolution, odd.
        norm: any of MONAI's normalisations, or None.
        act: any of MONAI's activations, or None.

    Shapes: ``(B, N, *S)`` and the name of a data set -> ``(B, M, *S)``.

    Raises:
        ValueError: for an even kernel.

    Example:
        >>> block = SeparableConvolution(3, 4, 8, datasets=["head", "hand"])
        >>> block(torch.zeros(1, 4, 5, 7, 6), "hand").shape
        torch.Size([1, 8, 5, 7, 6])
    """

    def _build(self) -> None:
        dims, inputs, outputs, _ = self.sizes
        self.depthwise = DatasetModules()
        self.pointwise = convolution(dims, inputs, outputs, 1)
        self.normalization = DatasetModules()

    def add_dataset(self, dataset: str, like: str | None = None) -> None:
        """Add the depth-wise convolution and the normalisation of a data set.

        Args:
            dataset: name of the data set.
            like: a known data set to copy from; None draws them anew.
        """
        dims, inputs, _, kernel_size = self.sizes
        self.depthwise.add(dataset, convolution(dims, inputs, inputs, kernel_size, groups=inputs), like)
        self.normalization.add(dataset, self._normalization(), like)

    def forward(self, x: torch.Tensor, dataset: str) -> torch.Tensor:
        return self.act(self.normalization(self.pointwise(self.depthwise(x, dataset)), dataset))


class OwnConvolution(_DatasetConvolution):
    """Standard convolution, normalisation and activation, the weights of each data set its own.

    Args: see :class:`SeparableConvolution`.

    Shapes: ``(B, N, *S)`` and the name of a data set -> ``(B, M, *S)``.
    """

    def _build(self) -> None:
        self.layers = DatasetModules()

    def add_dataset(self, dataset: str, like: str | None = None) -> None:
        """Add the weights of a data set; see :meth:`SeparableConvolution.add_dataset`."""
        self.layers.add(dataset, self._standard(), like)

    def forward(self, x: torch.Tensor, dataset: str) -> torch.Tensor:
        return self.act(self.layers(x, dataset))


class SharedConvolution(_DatasetConvolution):
    """Standard convolution, normalisation and activation, the same for all data sets.

    Args: see :class:`SeparableConvolution`.

    Shapes: ``(B, N, *S)`` and the name of a data set, which makes no difference -> ``(B, M, *S)``.
    """

    def _build(self) -> None:
        self.layers = self._standard()

    def add_dataset(self, dataset: str, like: str | None = None) -> None:
        """Add nothing: a further data set has no weights here."""

    def forward(self, x: torch.Tensor, dataset: str = "") -> torch.Tensor:
        return self.act(self.layers(x))
