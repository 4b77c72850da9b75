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
"""How weights and rates change over the epochs of a training: pure functions of the epoch's number."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from monai.utils import StrEnum, look_up_option

__all__ = ["RampKind", "RegistrationSchedule", "hold_then_cosine", "ramp"]


class RampKind(StrEnum):
    """Shapes of a ramp."""

    SIGMOID = "sigmoid"
    COSINE = "cosine"
    LINEAR = "linear"


def ramp(epoch: float, length: float, kind: str = "sigmoid") -> float:
    r"""Rise from about 0 to 1 over some epochs, and stay there.

    With :math:`t = \mathrm{clip}(e / L, 0, 1)`: "sigmoid" is :math:`\exp(-5 (1 - t)^2)`, which begins at 0.0067 (Laine and
    Aila 2017); "cosine" is :math:`(1 - \cos \pi t) / 2`; "linear" is :math:`t`. A ramp down is one minus it.

    Args:
        epoch: ``e``, epochs that are over: 0 in the first.
        length: ``L`` in epochs; 0 is 1 from the start.
        kind: "sigmoid", "cosine" or "linear".

    Raises:
        ValueError: for a negative length or an unknown kind.

    Example:
        >>> [round(ramp(epoch, 10), 4) for epoch in (0, 5, 10, 20)]
        [0.0067, 0.2865, 1.0, 1.0]
    """
    if not 0 <= length < math.inf:
        raise ValueError(f"a ramp's `length` must be a number of epochs, 0 or more, got {length}.")
    option = look_up_option(kind, RampKind)
    done = 1.0 if epoch >= length else max(0.0, epoch / length)
    if option == RampKind.LINEAR:
        return done
    return math.exp(-5 * (1 - done) ** 2) if option == RampKind.SIGMOID else (1 - math.cos(math.pi * done)) / 2


def hold_then_cosine(epoch: float, hold: float, length: float, final: float) -> float:
    """Give the factor of a learning rate that stays for some epochs and then falls along a cosine.

    For ``torch.optim.lr_scheduler.LambdaLR``. EdgeTrans: 250 epochs of 1e-4, then down to 5e-5 after 750, which is
    ``hold_then_cosine(epoch, 250, 750, 0.5)``.

    Args:
        epoch: epochs that are over.
        hold: epochs at 1.
        length: epochs after which it is ``final``.
        final: factor at the end.

    Example:
        >>> [hold_then_cosine(epoch, 250, 750, 0.5) for epoch in (0, 250, 500, 750)]
        [1.0, 1.0, 0.75, 0.5]
    """
    return 1 - (1 - final) * ramp(epoch - hold, max(0.0, length - hold), "cosine")


@dataclass(frozen=True)
class RegistrationSchedule:
    """The curriculum of EdgeTrans (Yin et al. 2022, section 4.2): first the global step, then more and more the local ones.

    The paper says that the weight of synthetic pairs falls "cosinely" and not for how long; the public code lets it fall
    along a sigmoid for 350 epochs. Here it is the paper's shape over the code's length.

    Attributes:
        local_epochs: over which the weight of the local steps (lambda 1) rises to 1, along a sigmoid.
        synthetic_epochs: over which the weight of synthetic pairs (lambda 3) falls to 0, along a cosine.
        synthetic_weight: from which it falls.
        pseudo_epochs: after which pseudo-landmarks are inferred (M of eq. 4) and guide the edge term.
        length: of the training for which these numbers are meant.

    Raises:
        ValueError: for a negative number of epochs.

    Example:
        >>> short = RegistrationSchedule().scaled(75)
        >>> short.local_epochs, short.synthetic_epochs, short.pseudo_epochs
        (25.0, 35.0, 20.0)
    """

    local_epochs: float = 250
    synthetic_epochs: float = 350
    synthetic_weight: float = 5.0
    pseudo_epochs: float = 200
    length: float = 750

    def __post_init__(self) -> None:
        lowest = min(self.local_epochs, self.synthetic_epochs, self.pseudo_epochs)
        if lowest < 0 or self.length <= 0:
            raise ValueError(f"epochs must not be negative, nor `length` 0, got {self}.")

    def scaled(self, max_epochs: float) -> RegistrationSchedule:
        """Stretch or shrink all epochs to a training of another length."""
        factor = max_epochs / self.length
        return replace(
            self,
            local_epochs=self.local_epochs * factor,
            synthetic_epochs=self.synthetic_epochs * factor,
            pseudo_epochs=self.pseudo_epochs * factor,
            length=max_epochs,
        )

    def local(self, epoch: float) -> float:
        """Weight of the local steps after so many epochs."""
        return ramp(epoch, self.local_epochs, "sigmoid")

    def synthetic(self, epoch: float) -> float:
        """Weight of the synthetic pairs after so many epochs, within the local steps."""
        return self.synthetic_weight * (1 - ramp(epoch, self.synthetic_epochs, "cosine"))
