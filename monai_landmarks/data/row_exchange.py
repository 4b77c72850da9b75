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
"""Deciding which rows are exchanged in a flip, or refusing to guess."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TypeAlias

import torch
from monai.utils import look_up_option

from monai_landmarks.geometry import LandmarkError

from .landmarks import quoted
from .side_names import only_numbers
from .sides import FlipPairs, checked_pairs, flip_permutation, propose_flip_pairs, quoted_pairs

__all__ = ["Pairs", "RowExchange", "exchange_order", "resolve_flip_pairs"]

#: How partners are given, see :func:`resolve_flip_pairs`; :class:`RowExchange` takes an accepted proposal, too.
Pairs: TypeAlias = Sequence[Sequence[str | int]] | FlipPairs | str | None


def resolve_flip_pairs(names: Sequence[str], pairs: Sequence[Sequence[str | int]] | str | None) -> FlipPairs:
    """Decide which landmarks exchange rows in a flip, or refuse to guess.

    Args:
        names: the N names.
        pairs: pairs of names or rows; ``"names"`` takes what the names say; ``()`` says there are no sides; None is
            enough where no name speaks of a side.

    Raises:
        LandmarkError: if names speak of sides and ``pairs`` is None, with the proposal to paste; if names are mere
            numbers ("lm1", "lm2") and the pairs are left to them; if a name that speaks of a side has no partner; or if
            ``pairs`` is wrong, see :func:`~.sides.flip_permutation`.
    """
    proposal = propose_flip_pairs(names)
    if (pairs is None or isinstance(pairs, str)) and only_numbers(proposal.names):
        raise LandmarkError(
            f"the names are mere numbers ({quoted(proposal.names, 3)}) and cannot tell whether the set has sides: give the "
            "pairs, or pairs=() if it has none. propose_flip_pairs(names, points) proposes them from training landmarks."
        )
    if pairs is None and not proposal.pairs and not proposal.incomplete:
        return proposal
    if pairs is None:
        raise LandmarkError(_refusal(proposal))
    if isinstance(pairs, str):
        look_up_option(pairs, ("names",))
        if proposal.incomplete:
            raise LandmarkError(
                f"names without partner: {quoted(proposal.incomplete)}. {_WITHOUT_PARTNER}\n\n{proposal}"
            )
        return proposal
    return _as_given(proposal, pairs)


def _as_given(proposal: FlipPairs, pairs: Sequence[Sequence[str | int]]) -> FlipPairs:
    names = proposal.names
    permutation = flip_permutation(names, pairs).tolist()
    given = [tuple(m if isinstance(m, str) else names[m] for m in pair) for pair in checked_pairs(pairs)]
    covered = {name for pair in given for name in pair}
    named = dict([*proposal.pairs, *((b, a) for a, b in proposal.pairs)])
    left_out = [name for name in names if name not in covered and (name in named or name in proposal.incomplete)]
    if left_out and given:
        forgotten = [pair for pair in proposal.pairs if set(pair) <= set(left_out)]
        text = f"`pairs` leaves out names that speak of a side: {quoted(left_out)}."
        text += f" Add {quoted_pairs(forgotten)}." if forgotten else ""
        raise LandmarkError(f"{text} {_WITHOUT_PARTNER}")
    if left_out:
        warnings.warn(
            f"pairs=() says that nothing has sides, and these names speak of one: {quoted(left_out)}. After a flip each "
            "of them lies on the other side.",
            stacklevel=4,
        )
    other = [
        n for n in names if n in covered and named.get(n, n) != n and named[n] != names[permutation[names.index(n)]]
    ]
    if other:
        warnings.warn(f"`pairs` differs from what the names say for {quoted(other)}; `pairs` is used.", stacklevel=4)
    midline = tuple(name for name in names if name not in covered)
    return FlipPairs(names, tuple((a, b) for a, b in given), midline)


_WITHOUT_PARTNER = (
    "After a flip a name without partner would lie on the other side: add the partner as a landmark (a missing one is a "
    "row of NaN), or leave flips out. If it is no side that the names speak of, leave `names` out and give the pairs as "
    "rows, such as pairs=[(0, 1)]."
)


def _refusal(proposal: FlipPairs) -> str:
    text = "the names speak of left and right, and after a flip each would lie on the other side."
    if proposal.pairs:
        text += " Say which exchange their rows. Proposed from the names, to read, correct and paste:"
    text += f"\n\n{proposal}\n\n"
    if proposal.incomplete:
        return text + _WITHOUT_PARTNER
    return text + 'pairs="names" takes this proposal unread; pairs=() says that the set has no sides.'


class RowExchange:
    """The exchange of rows that goes with a flip, known by names, by rows, or as none.

    Args:
        names: the N names, or None where they have none: then ``pairs`` must be given, by rows.
        pairs: see :func:`resolve_flip_pairs`.

    Attributes:
        flip_pairs: what was decided, or None without names.

    Raises:
        LandmarkError: if nobody can know whether the set has sides, see :func:`resolve_flip_pairs`.

    Example:
        >>> exchange = RowExchange(["eye_l", "nose", "eye_r"], "names")
        >>> exchange.permutation(3)
        tensor([2, 1, 0])
    """

    def __init__(
        self,
        names: Sequence[str] | None = None,
        pairs: Pairs = None,
    ) -> None:
        pairs = pairs.pairs if isinstance(pairs, FlipPairs) else pairs
        self.flip_pairs: FlipPairs | None = None
        if names is not None:
            self.flip_pairs = resolve_flip_pairs(names, pairs)
            self.pairs: tuple[tuple[str | int, ...], ...] = self.flip_pairs.pairs
            self._permutation = self.flip_pairs.permutation
            return
        if pairs is None or isinstance(pairs, str):
            raise LandmarkError(
                'without names nobody knows whether the set has sides: give `names` (and pairs="names" to take what '
                "they say), or pairs=() if it has none."
            )
        self.pairs = tuple(tuple(pair) for pair in checked_pairs(pairs))
        rows = [int(m) for pair in self.pairs for m in pair if hasattr(m, "__index__")]
        flip_permutation(1 + max(rows, default=0), self.pairs)  # raises

    def permutation(self, number: int) -> torch.Tensor:
        """Give the order of rows for ``number`` landmarks.

        Raises:
            LandmarkError: if that is not the number of names, or the pairs hold rows beyond it.
        """
        if self.flip_pairs is None:
            return flip_permutation(number, self.pairs)
        if number != len(self.flip_pairs.names):
            raise LandmarkError(
                f"{number} landmarks for {len(self.flip_pairs.names)} names: every name needs one row, a missing "
                "landmark being a row of NaN."
            )
        return self._permutation

    def __str__(self) -> str:
        return str(self.flip_pairs) if self.flip_pairs is not None else f"pairs={list(self.pairs)}"


def exchange_order(names: Sequence[str] | None, pairs: Pairs) -> torch.Tensor | None:
    """Give the order of rows after a flip, or None where the set has no sides and no names.

    Args:
        names: the N names, or None with ``pairs=()``.
        pairs: see :func:`resolve_flip_pairs`.

    Returns:
        LongTensor ``(N,)``.

    Raises:
        LandmarkError: where :class:`RowExchange` refuses, and for pairs without names: N would be unknown.
    """
    exchange = RowExchange(names, pairs)
    if exchange.flip_pairs is None:
        if exchange.pairs:
            raise LandmarkError("pairs of rows without `names` leave open how many landmarks there are: give `names`.")
        return None
    return exchange.permutation(len(exchange.flip_pairs.names))
