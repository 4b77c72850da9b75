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
"""Initialisation of heatmap networks."""

from __future__ import annotations

from torch import nn

__all__ = ["init_he", "init_small_normal"]


def init_he(module: nn.Module, negative_slope: float = 0.0) -> None:
    """Draw every convolution's weights as He et al. 2015 (fan-in, normal) and set biases to zero, in place.

    Args:
        module: its convolutions are found recursively.
        negative_slope: of the rectifier that follows.
    """
    for layer in module.modules():
        if isinstance(layer, nn.modules.conv._ConvNd):
            nn.init.kaiming_normal_(layer.weight, a=negative_slope, mode="fan_in", nonlinearity="leaky_relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def init_small_normal(module: nn.Module, std: float) -> None:
    """Draw every convolution's weights from a normal distribution of this ``std`` and set biases to zero, in place.

    Heatmap layers need responses close to 0 at the start, else training does not converge (Payer et al. 2019, sec. 3).
    """
    for layer in module.modules():
        if isinstance(layer, nn.modules.conv._ConvNd):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
