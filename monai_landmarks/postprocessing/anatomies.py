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
"""Anatomies: in which orders the members of a sequence may follow each other, variants such as T13 or no L5 among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_landmarks.data.landmarks import quoted
from monai_landmarks.geometry import LandmarkError

__all__ = ["Anatomy", "spine_anatomies"]


@dataclass(frozen=True)
class Anatomy:
    """One order in which the members of a sequence may follow each other.

    Args:
        name: what a result calls it.
        labels: the members in their order. A label that no channel has (T13, where the network knows twelve) is found
            among the candidates of its neighbours.
        cost: how much evidence this anatomy needs against one that costs 0, in units of the score.

    Raises:
        LandmarkError: for a repeated label, fewer than two, or a negative cost.
    """

    name: str
    labels: tuple[str, ...]
    cost: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.labels, str):
            raise LandmarkError(f"anatomy {self.name!r} needs a sequence of labels, got the text {self.labels!r}.")
        object.__setattr__(self, "labels", tuple(self.labels))
        check_names(self.labels, f"anatomy {self.name!r}")
        if not 0 <= self.cost < float("inf"):
            raise LandmarkError(f"anatomy {self.name!r} has cost {self.cost!r}: a number from 0 on is expected.")


def spine_anatomies(names: Sequence[str], cost: float = 4.0) -> tuple[Anatomy, ...]:
    """Give the regular order of ``names`` and the usual variants of the human spine that they allow.

    The variants are one more or one less vertebra at the ends of the thoracic and lumbar spine: T13, no T12, L6, no L5.
    Each is there if ``names`` hold the vertebrae on both sides. T13 and L6 belong to no regular spine, whether ``names``
    hold them (as VerSe's do) or not. Names without T12 and L5 get the regular order alone.

    Args:
        names: of the channels, cranial to caudal but for T13 and L6, which may stand anywhere.
        cost: of each variant.

    Example:
        >>> [anatomy.name for anatomy in spine_anatomies(["T11", "T12", "L1", "L2"])]
        ['regular', 'T13 present', 'T12 absent']
        >>> spine_anatomies(["T11", "T12", "L1", "L2"])[1].labels
        ('T11', 'T12', 'T13', 'L1', 'L2')
    """
    regular = [name for name in names if name not in ("T13", "L6")]
    found = [Anatomy("regular", tuple(regular))]
    for last, surplus in (("T12", "T13"), ("L5", "L6")):
        at = regular.index(last) if last in regular else len(regular)
        if at + 1 < len(regular):
            found.append(Anatomy(f"{surplus} present", (*regular[: at + 1], surplus, *regular[at + 1 :]), cost))
            if at > 0 and len(regular) > 2:
                found.append(Anatomy(f"{last} absent", (*regular[:at], *regular[at + 1 :]), cost))
    return tuple(found)


def check_names(names: Iterable[Any], what: str, least: int = 2) -> None:
    """Refuse names that repeat, that are no texts, or too few.

    Args:
        names: to be different texts.
        what: what the message calls their owner.
        least: how many there must be.
    """
    given = tuple(names)
    if not all(isinstance(name, str) and name for name in given):
        raise LandmarkError(f"the labels of {what} must be texts, got {given!r}.")
    repeated = [name for place, name in enumerate(given) if name in given[:place]]
    if repeated:
        raise LandmarkError(f"{what} names {quoted(repeated)} more than once: every member has one place in the order.")
    if len(given) < least:
        raise LandmarkError(f"{what} needs at least {least} labels, got {list(given)}.")


def check_anatomies(anatomies: Sequence[Anatomy | Mapping[str, Any]], names: Sequence[str]) -> tuple[Anatomy, ...]:
    """Return the anatomies, the first of which is the regular order, after checking them against the channels' names.

    Args:
        anatomies: objects, or their arguments as a JSON file has them.
        names: of the channels.

    Raises:
        LandmarkError: if a channel is in no anatomy, the regular order has a label without channel, or a variant has
            another order or a surplus label at its end, where no neighbour says where it would be.
    """
    checked = tuple(a if isinstance(a, Anatomy) else Anatomy(**a) for a in anatomies)
    if not checked:
        raise LandmarkError("anatomies is empty: give at least the regular order of the labels.")
    check_names([a.name for a in checked], "the list of anatomies", least=1)
    regular = checked[0].labels
    unknown = [label for label in regular if label not in names]
    if unknown:
        raise LandmarkError(
            f"the first anatomy, the regular order, has {quoted(unknown)}, for which there is no channel: its statistics "
            "could not be learnt."
        )
    unused = [name for name in names if not any(name in a.labels for a in checked)]
    if unused:
        raise LandmarkError(f"the channels {quoted(unused)} are in no anatomy: their candidates could never be used.")
    for anatomy in checked[1:]:
        _check_variant(anatomy, regular)
    return checked


def _check_variant(anatomy: Anatomy, regular: tuple[str, ...]) -> None:
    shared = [label for label in anatomy.labels if label in regular]
    if shared != sorted(shared, key=regular.index):
        raise LandmarkError(f"anatomy {anatomy.name!r} has the labels in another order than the regular one: {shared}.")
    if len(shared) < 2 or anatomy.labels[0] not in regular or anatomy.labels[-1] not in regular:
        raise LandmarkError(
            f"anatomy {anatomy.name!r} must begin and end with labels of the regular order; a surplus one stands between "
            f"two of them, or belongs into the regular order itself. Got {list(anatomy.labels)}."
        )


def label_places(anatomies: Sequence[Anatomy]) -> dict[str, float]:
    """Give every label its place along the regular order: 0, 1, 2, ...; surplus ones lie between their neighbours."""
    regular = anatomies[0].labels
    places = {label: float(place) for place, label in enumerate(regular)}
    for anatomy in anatomies[1:]:
        at = [i for i, label in enumerate(anatomy.labels) if label in regular]
        known = [places[anatomy.labels[i]] for i in at]
        interpolated = np.interp(np.arange(len(anatomy.labels)), at, known)
        places.update(
            (label, float(place))
            for label, place in zip(anatomy.labels, interpolated, strict=True)
            if label not in places
        )
    return places
