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
"""Reading left and right out of landmark names."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

__all__ = ["NamedSides", "only_numbers", "read_sides"]

# Left word, right words. A word of the first table says a side wherever it stands alone; one of the second table may be
# something else (sin. for sinus, rt. for root) and says a side only where a partner exists.
_CERTAIN = (
    ("left", ("right",)),
    ("sinister", ("dexter",)),
    ("sinistra", ("dextra",)),
    ("sinistrum", ("dextrum",)),
    ("sinistri", ("dextri",)),
    ("sinistrae", ("dextrae",)),
    ("links", ("rechts",)),
    ("linke", ("rechte",)),
    ("linker", ("rechter",)),
    ("linkes", ("rechtes",)),
    ("linken", ("rechten",)),
    ("gauche", ("droite", "droit")),
    ("izquierdo", ("derecho",)),
    ("izquierda", ("derecha",)),
    ("sinistro", ("destro",)),
)
_LIKELY = (
    ("sin", ("dext", "dex", "dx")),
    ("sx", ("dx",)),
    ("lt", ("rt",)),
    ("lft", ("rgt",)),
    ("lh", ("rh",)),
    ("lhs", ("rhs",)),
    ("izq", ("der",)),
)


def _both_ways(table: Sequence[tuple[str, tuple[str, ...]]]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Word -> its side and the words of the other side."""
    lookup: dict[str, tuple[str, tuple[str, ...]]] = {}
    for left, rights in table:
        lookup[left] = ("left", rights)
        for right in rights:
            others = lookup.get(right, ("right", ()))[1]
            lookup[right] = ("right", (*others, left))
    return lookup


_CERTAIN_WORDS = _both_ways(_CERTAIN)
_WORDS = {**_both_ways(_LIKELY), **_CERTAIN_WORDS}
_LETTERS = {"l": ("left", ("r",)), "r": ("right", ("l",))}
_GLUED_WORDS = ("left", "right")


class _Token(NamedTuple):
    """A run of letters or of digits, ``text[start:end]``, and whether separators or ends stand on both sides of it."""

    text: str
    start: int
    end: int
    apart: bool


class _Marker(NamedTuple):
    """A part ``text[start:end]`` of a name that may say a side.

    ``kind``: "word", "letter", "glued word" or "glued letter". ``certain``: it says a side even without a partner.
    ``style``: markers of a style that is not certain become so once one of them has a partner, glued ones never.
    """

    start: int
    end: int
    side: str
    others: tuple[str, ...]
    kind: str
    certain: bool
    style: str


@dataclass(frozen=True)
class NamedSides:
    """What the names alone say.

    Attributes:
        pairs: indices (left, right), in the order of the names.
        lonely: index of a name that speaks of a side and has no partner -> the name its partner should have.
        ambiguous: index of a name with several possible partners -> their indices.
        unsure: indices of names that start or end like those of glued pairs (``RIGO``, ``LIGO``) and have no partner.
    """

    pairs: tuple[tuple[int, int], ...]
    lonely: dict[int, str] = field(default_factory=dict)
    ambiguous: dict[int, tuple[int, ...]] = field(default_factory=dict)
    unsure: tuple[int, ...] = ()


def read_sides(names: Sequence[str]) -> NamedSides:
    """Find partners among names that are equal but for their word or letter of a side.

    A name pairs only with an existing name: the lumbar vertebra "L1" is left only where there is an "R1". Where a name
    holds several words of side all are exchanged, because the mirror image of the left eye's left corner is the right
    eye's right corner.

    Args:
        names: N different texts.
    """
    texts = [unicodedata.normalize("NFKC", name) for name in names]
    tokens = [_tokens(text) for text in texts]
    markers = [_markers(text, parts) for text, parts in zip(texts, tokens, strict=True)]
    by_key: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, parts in enumerate(tokens):
        by_key[_key(parts)].append(index)
    partner: dict[int, tuple[int, _Marker]] = {}
    ambiguous: dict[int, set[int]] = defaultdict(set)
    for exchanges in _LEVELS:
        edges: dict[int, dict[int, _Marker]] = defaultdict(dict)
        for index in (i for i in range(len(names)) if i not in partner):
            for marker, text in exchanges(texts[index], markers[index]):
                for other in by_key.get(_key(_tokens(text)), ()):
                    if other != index and other not in partner:
                        edges[index][other] = marker
        for index, others in edges.items():
            if len(others) == 1 and len(edges[next(iter(others))]) == 1:
                partner[index] = next(iter(others.items()))
            else:
                ambiguous[index] |= set(others)
    return _collect(texts, markers, partner, ambiguous)


def _collect(
    texts: Sequence[str],
    markers: Sequence[Sequence[_Marker]],
    partner: dict[int, tuple[int, _Marker]],
    ambiguous: dict[int, set[int]],
) -> NamedSides:
    styles = {marker.style for _, marker in partner.values()}
    alone = [i for i in range(len(texts)) if i not in partner]
    lonely: dict[int, str] = {}
    unsure = []
    for index in (i for i in alone if i not in ambiguous):
        glued = [m for m in markers[index] if m.kind == "glued letter"]
        saying = [m for m in markers[index] if m.certain or (m.style in styles and m.kind in ("word", "letter"))]
        if saying:
            lonely[index] = _replace(texts[index], [(m, m.others[0]) for m in saying])
        elif any(m.style in styles and texts[index][m.start].isupper() for m in glued):
            unsure.append(index)
    return NamedSides(
        pairs=tuple(sorted(((i, j) for i, (j, marker) in partner.items() if marker.side == "left"), key=min)),
        lonely=lonely,
        ambiguous={i: tuple(sorted(ambiguous[i])) for i in alone if i in ambiguous},
        unsure=tuple(unsure),
    )


#: C1, Th12, L5: numbers that are names.
_VERTEBRAE = frozenset({"c", "t", "th", "d", "l", "s", "co"})


def only_numbers(names: Sequence[str]) -> bool:
    """Tell whether names differ by a final number only ("lm1", "lm2"; "1", "2") and so say nothing; vertebrae do.

    Args:
        names: N different texts.

    Example:
        >>> only_numbers(["lm_1", "lm_2"]), only_numbers(["L1", "L2"])
        (True, False)
    """
    keys = [_key(_tokens(unicodedata.normalize("NFKC", name))) for name in names]
    if len(keys) < 2 or not all(key and key[-1].isdigit() for key in keys) or len({key[:-1] for key in keys}) > 1:
        return False
    return not (len(keys[0]) == 2 and keys[0][0] in _VERTEBRAE)


# ------------------------------------------------------------------------------------------------- tokens and markers


def _tokens(text: str) -> list[_Token]:
    """Cut a name at separators, between letters and digits, and at the humps of camelCase."""
    runs: list[list[int]] = []
    for place, char in enumerate(text):
        if not char.isalnum():
            continue
        if runs and runs[-1][1] == place and not _boundary(text, place):
            runs[-1][1] = place + 1
        else:
            runs.append([place, place + 1])
    return [
        _Token(
            text[a:b].casefold(),
            a,
            b,
            (a == 0 or not text[a - 1].isalnum()) and (b == len(text) or not text[b].isalnum()),
        )
        for a, b in runs
    ]


def _boundary(text: str, place: int) -> bool:
    before, here = text[place - 1], text[place]
    if before.isalpha() != here.isalpha():
        return True
    if before.islower() and here.isupper():
        return True
    return before.isupper() and here.isupper() and place + 1 < len(text) and text[place + 1].islower()


def _key(tokens: Sequence[_Token]) -> tuple[str, ...]:
    return tuple(token.text for token in tokens)


def _markers(text: str, tokens: Sequence[_Token]) -> list[_Marker]:
    found: list[_Marker] = []
    for number, token in enumerate(tokens):
        following = tokens[number + 1] if number + 1 < len(tokens) else None
        if token.text in _WORDS:
            side, others = _WORDS[token.text]
            certain = token.text in _CERTAIN_WORDS
            style = token.text if side == "left" else others[0]
            found.append(_Marker(token.start, token.end, side, others, "word", certain, style))
        elif token.text in _LETTERS:
            side, others = _LETTERS[token.text]
            # L1, L 1 and L-1 are lumbar vertebrae; "CoR" is a hump, not a side; a bare "L" may be anything.
            numbered = following is not None and following.text.isdigit()
            certain = token.apart and not numbered and len(tokens) > 1
            style = "number" if numbered else f"letter {number == 0}"
            found.append(_Marker(token.start, token.end, side, others, "letter", certain, style))
        else:
            found.extend(_glued(text, token))
    return found


def _glued(text: str, token: _Token) -> Iterator[_Marker]:
    """Sides that share a run of letters with something else: lefteye, eyeright, RSLMS, GoL, asisr."""
    for word in _GLUED_WORDS:
        side, others = _WORDS[word]
        if token.text.startswith(word):
            end = token.start + len(word)
            yield _Marker(token.start, end, side, others, "glued word", True, "word first")
        elif token.text.endswith(word):
            # cleft, upright and bright end so too
            yield _Marker(token.end - len(word), token.end, side, others, "glued word", False, "word last")
    # Two letters such as Li and Ls, Al and Ar are abbreviations of their own; only all capitals (UL, UR) may be sides.
    shortest = 2 if text[token.start : token.end].isupper() else 3
    if not token.text.isalpha() or token.end - token.start < shortest:
        return
    for letter, (side, others) in _LETTERS.items():
        if token.text.startswith(letter):
            yield _Marker(token.start, token.start + 1, side, others, "glued letter", False, "first")
        if token.text.endswith(letter):
            yield _Marker(token.end - 1, token.end, side, others, "glued letter", False, "last")


# ------------------------------------------------------------------------------------------------------- exchanging


def _replace(text: str, changes: Sequence[tuple[_Marker, str]]) -> str:
    """Put other words in the places of markers, in the case of what stood there."""
    for marker, word in sorted(changes, key=lambda change: -change[0].start):
        was = text[marker.start : marker.end]
        like = word.upper() if was.isupper() else word.capitalize() if was[0].isupper() else word
        text = text[: marker.start] + like + text[marker.end :]
    return text


_Exchanges = Callable[[str, Sequence[_Marker]], Iterator[tuple[_Marker, str]]]


def _all_certain(text: str, markers: Sequence[_Marker]) -> Iterator[tuple[_Marker, str]]:
    certain = [m for m in markers if m.certain]
    if len(certain) > 1:
        for words in product(*(m.others for m in certain)):
            yield certain[0], _replace(text, list(zip(certain, words, strict=True)))


def _one_of(kind: str) -> _Exchanges:
    def exchanges(text: str, markers: Sequence[_Marker]) -> Iterator[tuple[_Marker, str]]:
        for marker in markers:
            if marker.kind == kind:
                for word in marker.others:
                    yield marker, _replace(text, [(marker, word)])

    return exchanges


#: What is tried first binds: a pair by words is not undone by a pair by letters.
_LEVELS: tuple[_Exchanges, ...] = (
    _all_certain,
    _one_of("word"),
    _one_of("letter"),
    _one_of("glued word"),
    _one_of("glued letter"),
)
