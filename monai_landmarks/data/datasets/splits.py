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

"""Splits that stay the same for ever: on every machine, with every library version."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from monai.utils import look_up_option

__all__ = ["seeded_order", "select_part"]


def seeded_order(cases: Iterable[str], seed: int = 0) -> list[str]:
    """Put the cases into a random but reproducible order.

    Sorted by the SHA-256 of ``"seed:case"`` rather than shuffled by a random generator: NumPy does not promise the
    stream of its generators across versions, and here the relative order of two cases does not change when a third
    one is added or removed.

    Args:
        cases: distinct case names.
        seed: any integer; another seed gives another order.

    Returns:
        The same cases, reordered.

    Example:
        >>> seeded_order(["001", "002", "003"]) == seeded_order(["003", "001", "002"])
        True
    """
    return sorted(cases, key=lambda case: hashlib.sha256(f"{seed}:{case}".encode()).hexdigest())


def select_part(cases: Sequence[str], part: str | None, num_validation: int, seed: int = 0) -> list[str]:
    """Select all cases of a training section, or its fixed training or validation part.

    Args:
        cases: case names of the training section.
        part: None for all; ``"validation"`` for ``num_validation`` cases drawn by ``seed``; ``"train"`` for the rest.
        num_validation: number of validation cases, 1 to ``len(cases) - 1``. Not looked at where ``part`` is None.
        seed: seed of the draw.

    Returns:
        The selected names, sorted.

    Raises:
        ValueError: when ``part`` is unknown or ``num_validation`` leaves a part empty.

    Example:
        >>> cases = ["001", "002", "003", "004"]
        >>> len(select_part(cases, "train", 1)), len(select_part(cases, "validation", 1))
        (3, 1)
    """
    if part is None:
        return sorted(cases)
    part = look_up_option(part, ("train", "validation"))
    if not 1 <= num_validation < len(cases):
        raise ValueError(
            f"num_validation must leave both parts non-empty: expected 1 to {len(cases) - 1} for {len(cases)} training"
            f" cases, got {num_validation}."
        )
    order = seeded_order(cases, seed)
    return sorted(order[:num_validation] if part == "validation" else order[num_validation:])
