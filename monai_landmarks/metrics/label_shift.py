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
"""Which names were exchanged: neighbours taken for each other, and whole rows of labels that are shifted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from .identification import Identification

__all__ = ["Confusion", "LabelShift", "confusions", "detect_label_shifts"]


class Confusion(NamedTuple):
    """How often the wrong predictions of a landmark lie on which other one.

    Attributes:
        name: of the predicted landmark.
        lies_on: the true landmark there, None where the prediction lies on none.
        times: in how many images.
    """

    name: str
    lies_on: str | None
    times: int


def confusions(found: Identification, names: Sequence[str]) -> tuple[Confusion, ...]:
    """List for which landmark each one was taken, the most frequent confusion first.

    Every prediction counts that is misidentified or has no truth. It lies on the true landmark that is nearest to it
    and within the largest distance; where that is the right one or there is none, it lies on none.

    Args:
        found: tables of :func:`~monai_landmarks.metrics.identify`.
        names: ``N`` landmark names.

    Returns:
        the confusions.

    Example:
        >>> from monai_landmarks.metrics.identification import identify
        >>> true = [[[0.0, 0.0], [0.0, 30.0]]]
        >>> confusions(identify([[[0.0, 29.0], [0.0, 80.0]]], true), ["L1", "L2"])
        (Confusion(name='L1', lies_on='L2', times=1), Confusion(name='L2', lies_on=None, times=1))
    """
    count = len(names)
    rows, columns = torch.where(found.misidentified | found.false_positive)
    # Nowhere is one column more.
    places = found.lies_on[rows, columns] % (count + 1)
    places = torch.where(places == columns, count, places)
    table = torch.bincount(columns * (count + 1) + places, minlength=count * (count + 1)).reshape(count, count + 1)
    named = [*names, None]
    every = [Confusion(names[i], named[j], int(table[i, j])) for i, j in table.nonzero().tolist()]
    return tuple(sorted(every, key=lambda confusion: -confusion.times))


@dataclass(frozen=True)
class LabelShift:
    """A row of labels that lies a fixed number of places from where it belongs.

    Attributes:
        shift: how many places; label ``i`` lies on true landmark ``i + shift``.
        first: index of the first shifted label.
        last: index of the last one.
        explained: labels in this row that lie ``shift`` places off.
        located: all labels of the image that lie on a true landmark.
        unshifted: those of them that lie on their own one.
        whole: whether no label outside this row lies on its own landmark: then all labels are shifted, as far as can be
            told.
    """

    shift: int
    first: int
    last: int
    explained: int
    located: int
    unshifted: int
    whole: bool

    def describe(self, names: Sequence[str]) -> str:
        """Say it in a sentence. A label is too low where it stands for a later one of the list, as T5 on T6.

        Example:
            >>> LabelShift(1, 0, 2, 3, 3, 0, True).describe(["L1", "L2", "L3", "L4"])
            'all labels are 1 too low, L1 lies on L2 (3 of 3 located labels, 0 fit unshifted)'
        """
        row = "all labels are" if self.whole else f"labels {names[self.first]} to {names[self.last]} are"
        side = "low" if self.shift > 0 else "high"
        counts = f"{self.explained} of {self.located} located labels, {self.unshifted} fit unshifted"
        example = f"{names[self.first]} lies on {names[self.first + self.shift]}"
        return f"{row} {abs(self.shift)} too {side}, {example} ({counts})"


def detect_label_shifts(
    found: Identification, max_shift: int = 5, min_landmarks: int = 2
) -> tuple[LabelShift | None, ...]:
    """Tell of each image whether its labels are shifted: all of them, or those from one landmark on or up to one.

    Landmarks must be listed in anatomical order; one that few people have, such as T13, stands best at the end. Of all
    ways to leave one end of the list unshifted and to shift the rest by the same number of places, the one is taken that
    brings most predictions onto true landmarks. It must explain at least ``min_landmarks`` more than no shift does, and
    at least twice as many within its row: one confused landmark, or two that are exchanged, are no shift.

    Args:
        found: tables of :func:`~monai_landmarks.metrics.identify`.
        max_shift: largest number of places. Three test scans of CSI 2014 were first published with labels up to five
            vertebrae off (Payer et al. 2019, section 4.4).
        min_landmarks: see above.

    Returns:
        one entry per image, None where nothing is shifted.

    Raises:
        ValueError: for numbers below 1.

    Example:
        >>> from monai_landmarks.metrics.identification import identify
        >>> true = torch.tensor([[[0.0, 30.0 * i] for i in range(5)]])
        >>> pred = true.roll(-1, dims=1)
        >>> pred[:, -1] = torch.nan
        >>> print(detect_label_shifts(identify(pred, true))[0].describe(["L1", "L2", "L3", "L4", "L5"]))
        all labels are 1 too low, L1 lies on L2 (4 of 4 located labels, 0 fit unshifted)
    """
    if min(max_shift, min_landmarks) < 1:
        raise ValueError(f"`max_shift` and `min_landmarks` must be at least 1, got {max_shift} and {min_landmarks}.")
    place = found.lies_on
    own = torch.arange(place.shape[1], device=place.device)
    steps = [sign * size for size in range(1, max_shift + 1) for sign in (1, -1)]
    located, stays = place >= 0, place == own
    # (B, N, S): whether a label lies where each of the shifts puts it.
    moves = located[..., None] & ((place - own)[..., None] == torch.tensor(steps, device=place.device))
    stay_before, move_before = _before(stays[..., None]), _before(moves)
    stay_after, move_after = stay_before[:, -1:] - stay_before, move_before[:, -1:] - move_before
    # (B, 2, N + 1, S): the rows from a landmark on first, the longest before all others, then those up to one.
    moved = torch.stack([move_after, move_before], dim=1)
    stayed = torch.stack([stay_after, stay_before], dim=1).expand_as(moved)
    gain = moved - stayed
    clear = (gain >= min_landmarks) & (moved >= 2 * stayed)
    best = torch.where(clear, gain, 0).flatten(1).argmax(1)

    def shift_of(image: int) -> LabelShift | None:
        row = tuple(int(i) for i in torch.unravel_index(best[image], gain.shape[1:]))
        if not clear[image][row]:
            return None
        side, cut, step = row
        labels = moves[image, :, step] & ((own >= cut) if side == 0 else (own < cut))
        first, last = (int(i) for i in labels.nonzero()[[0, -1], 0])
        explained, unshifted = int(moved[image][row]), int(stays[image].sum())
        whole = unshifted == int(stayed[image][row])
        return LabelShift(steps[step], first, last, explained, int(located[image].sum()), unshifted, whole)

    return tuple(shift_of(image) for image in range(place.shape[0]))


def _before(flags: torch.Tensor) -> torch.Tensor:
    """Count along the landmarks how many flags lie before each place, ``(B, N + 1, ...)``."""
    return torch.cat([torch.zeros_like(flags[:, :1], dtype=torch.long), flags.cumsum(1)], dim=1)
