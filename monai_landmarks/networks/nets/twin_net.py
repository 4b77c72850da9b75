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
"""Two networks of one build that learn from each other, as one module."""

from __future__ import annotations

from typing import Any

import torch
from monai.utils import StrEnum, look_up_option
from torch import nn

from monai_landmarks.geometry import LandmarkError

__all__ = ["TwinNet", "TwinPrediction"]


class TwinPrediction(StrEnum):
    """Whose output a :class:`TwinNet` gives in evaluation."""

    FIRST = "first"
    MEAN = "mean"


class TwinNet(nn.Module):
    """Train two networks of one build side by side, and predict with one of them or with the mean of both.

    For :class:`~monai_landmarks.engines.CoTeachingTrainer` (Yin et al. 2022, algorithm 1): f is the first, g the second. One
    module, so that one optimiser, one checkpoint and one ``DistributedDataParallel`` hold both.

    The two must begin with different weights, else they choose alike and neither learns anything from the other; of
    pre-trained networks the new heads are enough. A weight file of the twins fits a network built with either ``predict``.

    Args:
        first: any network; in a MONAI configuration ``"%network"`` for both builds the same definition twice.
        second: another of the same build.
        predict: in evaluation mode, "first" gives the first network's output, as published, and does not run the second;
            "mean" gives the mean of both (of their logits, for networks that end in logits).

    Shapes: what one network takes -> in training mode the pair of both outputs, in evaluation mode one output.

    Raises:
        LandmarkError: if both are one object, differ in build, or have equal weights.
        ValueError: for an unknown ``predict``.

    Example:
        >>> twins = TwinNet(nn.Conv2d(1, 19, 3, padding=1), nn.Conv2d(1, 19, 3, padding=1), predict="mean")
        >>> image = torch.rand(2, 1, 8, 8)
        >>> [tuple(maps.shape) for maps in twins(image)], tuple(twins.eval()(image).shape)
        ([(2, 19, 8, 8), (2, 19, 8, 8)], (2, 19, 8, 8))
    """

    def __init__(self, first: nn.Module, second: nn.Module, predict: str = TwinPrediction.FIRST) -> None:
        super().__init__()
        _check_twins(first, second)
        self.first, self.second = first, second
        self.predict = look_up_option(predict, TwinPrediction)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        ours = self.first(*args, **kwargs)
        if self.training:
            return ours, self.second(*args, **kwargs)
        return ours if self.predict == TwinPrediction.FIRST else (ours + self.second(*args, **kwargs)) / 2

    @property
    def num_landmarks(self) -> Any:
        """Of one network, None where it does not say."""
        return getattr(self.first, "num_landmarks", None)


def _check_twins(first: nn.Module, second: nn.Module) -> None:
    if first is second:
        raise LandmarkError(
            "both twins are the same network: build two. In a MONAI configuration a reference '@network' is one object; "
            "'%network' repeats the definition and builds another."
        )
    own, other = ({key: value.shape for key, value in net.state_dict().items()} for net in (first, second))
    if own != other:
        differing = sorted(key for key in own.keys() | other.keys() if own.get(key) != other.get(key))
        raise LandmarkError(
            f"twins must be of one build, these differ in {len(differing)} weights, such as {differing[0]!r}: give both the "
            "same settings."
        )
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    if pairs and all(torch.equal(ours, theirs) for ours, theirs in pairs):
        raise LandmarkError(
            "the twins begin with equal weights and would choose alike for ever: build the second anew instead of copying "
            "the first, and do not seed the generator between the two."
        )
