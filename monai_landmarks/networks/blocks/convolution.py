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
"""A convolution with its normalisation and rectification."""

from __future__ import annotations

from monai.networks.blocks import Convolution

from .normalization import norm_of

__all__ = ["conv_norm_relu"]


def conv_norm_relu(
    dims: int, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, norm: tuple | str = "batch"
) -> Convolution:
    """Convolve (with bias, as the public code does), normalise, rectify."""
    norm = norm_of(norm, outputs)
    return Convolution(dims, inputs, outputs, stride, kernel, adn_ordering="NA", act="relu", norm=norm)
