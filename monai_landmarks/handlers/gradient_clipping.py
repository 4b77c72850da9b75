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
"""Keep a step from throwing a network off its course."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from monai.engines.utils import IterationEvents
from torch import nn

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["GradientClipping"]


class GradientClipping:
    """Shorten the gradient to a largest norm before each step of the optimiser.

    The norm is over all parameters of the network together. A heatmap that is a product, as SCN's, has a flat place where
    both factors are zero; one step that is too long can throw the network there, and it stays. The public SCN code clips
    at 10000; the paper does not mention it.

    Where the trainer accumulates gradients (``accumulation_steps``), the sum is clipped once, before the step, as that of
    a larger batch would be: clipping on the way would shorten parts of the sum and not the step.

    Args:
        network: whose gradient is clipped.
        max_norm: largest Euclidean norm. A gradient that holds NaN or infinity stops the training with an error.

    Raises:
        ValueError: for a ``max_norm`` that is not positive.

    Example:
        >>> import torch
        >>> clipping = GradientClipping(torch.nn.Linear(1, 1), max_norm=1e4)
    """

    def __init__(self, network: nn.Module, max_norm: float) -> None:
        if not max_norm > 0:
            raise ValueError(f"`max_norm` must be positive, got {max_norm}.")
        self.network, self.max_norm = network, float(max_norm)

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        if not takes_step(engine):
            return
        scaler = getattr(engine, "scaler", None)
        if scaler is not None and engine.amp:
            scaler.unscale_(engine.optimizer)
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(parameters, self.max_norm)
        if scaler is None and not torch.isfinite(norm):
            raise RuntimeError(
                f"the gradient of iteration {engine.state.iteration} is {norm.item()}: the training has diverged. Lower "
                "the learning rate; the last whole epoch is saved and can be resumed from."
            )


def takes_step(engine: Any) -> bool:
    """Tell whether a trainer's present iteration ends with a step of the optimiser, by the rule of MONAI's trainer.

    It steps after every ``accumulation_steps`` batches of an epoch and after the last one.
    """
    every, length = getattr(engine, "accumulation_steps", 1), engine.state.epoch_length
    done = engine.state.iteration if length is None else (engine.state.iteration - 1) % length + 1
    return done % every == 0 or done == length
