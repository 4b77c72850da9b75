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
"""Exchange of a network's batch normalisation, for batches of one image."""

from __future__ import annotations

import math

from monai.networks.layers.utils import get_norm_layer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["norm_of", "replace_batch_norm"]


def norm_of(norm: tuple | str, channels: int) -> tuple | str:
    """Complete a normalisation's name with what MONAI needs to know.

    ``"instance"`` learns scale and shift, as batch normalisation does. ``"group"`` has at most 32 groups of at least 4
    channels each, whatever ``channels`` is. Everything else is passed on.

    Args:
        norm: any of MONAI's normalisations, with or without arguments.
        channels: that it will see.

    Returns:
        The argument ``name`` of MONAI's ``get_norm_layer``.

    Example:
        >>> norm_of("group", 64), norm_of("group", 18)
        (('group', {'num_groups': 16}), ('group', {'num_groups': 2}))
    """
    if norm == "group":
        return ("group", {"num_groups": math.gcd(channels, max(1, min(32, channels // 4)))})
    if norm == "instance":
        return ("instance", {"affine": True})
    return norm


def replace_batch_norm(module: nn.Module, norm: tuple | str, spatial_dims: int) -> None:
    """Exchange every batch normalisation inside ``module`` for another, in place; names of parameters stay.

    Args:
        module: its layers are found recursively.
        norm: any of MONAI's normalisations, see :func:`norm_of`; ``"batch"`` changes nothing.
        spatial_dims: 2 or 3.

    Raises:
        ValueError: for a layer that is batch normalisation and more, such as timm's with the activation inside.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8))
        >>> replace_batch_norm(net, "group", 2)
        >>> net[1]
        GroupNorm(2, 8, ...)
    """
    if norm == "batch":
        return
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                if type(child) not in (nn.BatchNorm2d, nn.BatchNorm3d):
                    raise ValueError(f"{type(child).__name__} cannot be exchanged for `norm={norm!r}`: use 'batch'.")
                channels = child.num_features
                setattr(parent, name, get_norm_layer(norm_of(norm, channels), spatial_dims, channels))
