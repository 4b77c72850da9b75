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
"""Left and right: which landmarks exchange their names when the image is mirrored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from monai_landmarks.geometry import LandmarkError

from .landmarks import did_you_mean, quoted
from .mirror_symmetry import MirrorFit, fit_mirror, mean_shape
from .side_names import NamedSides, read_sides

__all__ = [
    "FlipPairs",
    "PairEvidence",
    "flip_permutation",
    "has_sides",
    "propose_flip_pairs",
]

# Measured: brain and skull landmarks 0.02 to 0.04 and 1.0; cephalograms, hands, scoliotic spines and random sets of six
# and more landmarks at least 0.09 and at most 0.53.
_SYMMETRIC = 0.08
_EXPLAINED = 0.85


@dataclass(frozen=True)
class PairEvidence:
    """Why two landmarks are taken for partners.

    Attributes:
        by_names: whether their names are equal but for the side.
        by_positions: True or False where positions agree or contradict, None where they say nothing.
        residual: distance of one from the mirror image of the other in the mean shape, in the unit of the points.
        separation: distance between the two.
        runner_up: distance of the nearest mirror image of a third landmark (or its own) to one of the two.
    """

    by_names: bool
    by_positions: bool | None = None
    residual: float | None = None
    separation: float | None = None
    runner_up: float | None = None

    def __str__(self) -> str:
        sources = {True: "names and positions agree", False: "names, CONTRADICTED BY POSITIONS", None: "names"}
        text = sources[self.by_positions] if self.by_names else "positions only"
        if self.residual is None:
            return text
        return (
            f"{text}: {self.residual:.3g} from the mirror image, next {self.runner_up:.3g}, {self.separation:.3g} apart"
        )


@dataclass(frozen=True)
class FlipPairs:
    """Partners of a set of landmarks, as proposed; printed, it is Python to read and to paste as ``pairs=``.

    Attributes:
        names: the N names.
        pairs: partners as (left, right); where only positions speak, in the order of ``names``.
        midline: names without side: on the midline, or of a set that has one side only.
        incomplete: names that speak of a side and have no partner among the names, or several.
        evidence: one per pair.
        notes: what else the user should read.

    Example:
        >>> print(propose_flip_pairs(["nasion", "R orbitale", "L orbitale"]))
        pairs=[
            ("L orbitale", "R orbitale"),  # names
        ]
        # without side, keep their row (1): 'nasion'
    """

    names: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    midline: tuple[str, ...]
    incomplete: tuple[str, ...] = ()
    evidence: tuple[PairEvidence, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def permutation(self) -> torch.Tensor:
        """LongTensor ``(N,)``: row ``i`` after a flip is row ``permutation[i]`` before it."""
        return flip_permutation(self.names, self.pairs)

    @property
    def contradictions(self) -> tuple[tuple[str, str], ...]:
        """Pairs of which names and positions say different things."""
        return tuple(p for p, e in zip(self.pairs, self.evidence, strict=False) if e.by_positions is False)

    def __str__(self) -> str:
        rows = [f"    {quoted_pairs([pair])}," for pair in self.pairs]
        width = max(map(len, rows), default=0)
        reasons = [f"  # {e}" for e in self.evidence] or [""] * len(rows)
        table = [f"{row:<{width}}{why}".rstrip() for row, why in zip(rows, reasons, strict=True)]
        lines = ["pairs=[", *table, "]"] if rows else ["pairs=()"]
        if self.midline:
            lines.append(f"# without side, keep their row ({len(self.midline)}): {quoted(self.midline, 200)}")
        if self.incomplete:
            lines.append(f"# WITHOUT PARTNER ({len(self.incomplete)}): {quoted(self.incomplete, 200)}")
        return "\n".join([*lines, *(f"# {note}" for note in self.notes)])


def quoted_pairs(pairs: Iterable[Sequence[str]]) -> str:
    """Write pairs of names as Python, with commas between."""
    literals = [[json.dumps(name, ensure_ascii=False) for name in pair] for pair in pairs]
    return ", ".join(f"({a}, {b})" for a, b in literals)


def has_sides(names: Sequence[str]) -> bool:
    """Tell whether any name speaks of a side.

    Letters count where they mean a side for certain ("R MB", "eye_l") or where the partner is there too ("L1" beside
    "R1"): the lumbar vertebrae L1 to L5 have none.

    Args:
        names: N different names.

    Example:
        >>> has_sides(["L1", "L2", "lower lip", "ramus"]), has_sides(["left eye"])
        (False, True)
    """
    named = read_sides(_checked_names(names))
    return bool(named.pairs or named.lonely or named.ambiguous)


def propose_flip_pairs(names: Sequence[str], points: Any | None = None, spatial_axis: int | None = None) -> FlipPairs:
    """Propose left-right partners from names, and from training landmarks where given.

    Names: left/right, L/R, _l/_r, sinister/dexter (sin., dext.), links/rechts and a few more, before, behind or inside
    the name, in any case and in camelCase; a partner must exist and be equal otherwise. Positions: partners are nearest
    to each other in the mean shape and its mirror image, see :func:`~.mirror_symmetry.fit_mirror`; they are asked only
    where the mean shape is symmetric (residual below 8 % of its radius), add pairs the names do not speak of, and never
    overrule names: where both differ, the proposal says so.

    Args:
        names: N different names.
        points: ``(cases, N, D)`` or ``(N, D)`` landmarks in one unit, NaN where missing; poses may differ by case.
        spatial_axis: axis of the coordinates along which the sides lie, where all cases lie alike.

    Returns:
        the proposal; print it.

    Raises:
        LandmarkError: for repeated names, or points of another number.

    Example:
        >>> points = [[0.0, 0, 9], [5, 1, 0], [-5, 1, 0], [3, 8, 2], [-3, 8, 2]]
        >>> print(propose_flip_pairs(["nasion", "eye_r", "eye_l", "p4", "p5"], points))
        pairs=[
            ("eye_l", "eye_r"),  # names and positions agree: 0 from the mirror image, next 7.55, 10 apart
            ("p4", "p5"),        # positions only: 0 from the mirror image, next 6, 6 apart
        ]
        # without side, keep their row (1): 'nasion'
        # positions: mean shape of 1 case, asymmetry 0.0 % of its radius.
    """
    checked = _checked_names(names)
    named = read_sides(checked)
    notes = [f"{checked[i]!r} has no partner: {e!r} is not among the names." for i, e in named.lonely.items()]
    notes += [
        f"{checked[i]!r} has several possible partners: {quoted(checked[j] for j in others)}."
        for i, others in named.ambiguous.items()
    ]
    if named.unsure:
        notes.append(
            f"taken to have no side, though they begin or end like pairs: {quoted(checked[i] for i in named.unsure)}."
        )
    fit = None
    if points is not None:
        array = _checked_points(points, checked)
        fit, said = _usable_fit(array, spatial_axis)
        notes += [*said, *_crossed(array, checked, named)]
    return _assembled(checked, named, fit, notes)


def _assembled(names: tuple[str, ...], named: NamedSides, fit: MirrorFit | None, notes: list[str]) -> FlipPairs:
    pairs = [(i, j, _weighed(i, j, fit)) for i, j in named.pairs]
    for i, j, evidence in pairs:
        if fit is not None and evidence.by_positions is False:
            opposite = quoted(names[fit.partner[k]] for k in (i, j))
            notes.append(f"{names[i]!r} and {names[j]!r} are partners by name; by position theirs are {opposite}.")
    taken = {k for i, j, _ in pairs for k in (i, j)}
    if fit is not None:
        for i, j in ((i, int(j)) for i, j in enumerate(fit.partner) if i < j and not taken & {i, int(j)}):
            if i in named.lonely and j in named.lonely:
                notes.append(f"{names[i]!r} and {names[j]!r} lie opposite to each other, and their names do not fit.")
                continue
            pairs.append((i, j, _measured(i, j, fit, by_names=False, by_positions=True)))
            taken |= {i, j}
    incomplete = [i for i in range(len(names)) if i not in taken and (i in named.lonely or i in named.ambiguous)]
    return FlipPairs(
        names=names,
        pairs=tuple((names[i], names[j]) for i, j, _ in pairs),
        midline=tuple(n for i, n in enumerate(names) if i not in taken and i not in incomplete),
        incomplete=tuple(names[i] for i in incomplete),
        evidence=tuple(evidence for *_, evidence in pairs),
        notes=tuple(notes),
    )


def _usable_fit(points: np.ndarray, spatial_axis: int | None) -> tuple[MirrorFit | None, list[str]]:
    fit = fit_mirror(points, spatial_axis)
    if fit is None:
        return None, ["positions: fewer than 4 landmarks are present, they say nothing."]
    measured = f"mean shape of {fit.cases} case{'s' * (fit.cases != 1)}, asymmetry {fit.asymmetry:.1%} of its radius"
    if fit.asymmetry > _SYMMETRIC or fit.explained < _EXPLAINED:
        return None, [f"positions say nothing: {measured}, which is not symmetric."]
    return fit, [f"positions: {measured}.".replace("%", " %")]


def _weighed(i: int, j: int, fit: MirrorFit | None) -> PairEvidence:
    if fit is None or np.isnan(fit.residual[[i, j]]).any():
        return PairEvidence(by_names=True)
    if fit.partner[i] == j:
        return _measured(i, j, fit, by_names=True, by_positions=True)
    # Both their own partner: near the plane, or beyond what the fit explains. That speaks for nobody else.
    apart = fit.partner[i] != i or fit.partner[j] != j
    return PairEvidence(by_names=True, by_positions=False if apart else None)


def _measured(i: int, j: int, fit: MirrorFit, by_names: bool, by_positions: bool) -> PairEvidence:
    next_best = float(np.minimum(fit.runner_up[i], fit.runner_up[j]))
    return PairEvidence(by_names, by_positions, float(fit.residual[i]), float(fit.separation[i]), next_best)


def _crossed(points: np.ndarray, names: tuple[str, ...], named: NamedSides) -> list[str]:
    """Note pairs whose left one lies where the right ones of the others do: their names are likely exchanged."""
    if len(named.pairs) < 3:
        return []
    shape, _ = mean_shape(points)
    left, right = (shape[[p[k] for p in named.pairs]] for k in (0, 1))
    across = left - right
    across = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-12)
    common = np.nanmedian(across, axis=0) if not np.isnan(across).all() else np.zeros(points.shape[-1])
    against = np.flatnonzero(across @ common < -0.25)
    if not 0 < len(against) < len(named.pairs) / 2:
        return []
    listed = ", ".join(f"{names[i]!r} and {names[j]!r}" for i, j in (named.pairs[k] for k in against))
    return [f"left and right look exchanged, compared with the other pairs: {listed}."]


def _checked_names(names: Any) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise LandmarkError(f"`names` must be a sequence of texts, one per landmark, got {names!r}.")
    checked = tuple(names)
    for name in checked:
        if not isinstance(name, str):
            raise LandmarkError(f"`names` must be texts, got {name!r} of type {type(name).__name__}.")
    twice = sorted({name for name in checked if checked.count(name) > 1})
    if twice:
        raise LandmarkError(f"`names` must differ from each other, repeated: {quoted(twice)}.")
    return checked


def _checked_points(points: Any, names: tuple[str, ...]) -> np.ndarray:
    array = np.asarray(points.detach().cpu() if isinstance(points, torch.Tensor) else points, dtype=np.float64)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[1] != len(names) or array.shape[2] not in (2, 3) or not len(array):
        raise LandmarkError(
            f"`points` must be (cases, {len(names)}, D) for {len(names)} names, D = 2 or 3, got {array.shape}; a missing "
            "landmark is a row of NaN."
        )
    return array


# ------------------------------------------------------------------------------------------------ pairs -> permutation


def flip_permutation(names: Sequence[str] | int, pairs: Iterable[Sequence[str | int]]) -> torch.Tensor:
    """Give the order of rows after a flip: row ``i`` of the result is row ``permutation[i]`` of the input.

    Args:
        names: the N names, or N where landmarks have none.
        pairs: partners by name, or by row counted from 0.

    Returns:
        LongTensor ``(N,)``, its own inverse.

    Raises:
        LandmarkError: for an unknown name, a name in two pairs, or one paired with itself.

    Example:
        >>> flip_permutation(["eye_l", "nose", "eye_r"], [("eye_l", "eye_r")])
        tensor([2, 1, 0])
    """
    known = None if isinstance(names, int) else _checked_names(names)
    number = names if isinstance(names, int) else len(known or ())
    permutation = list(range(number))
    used: dict[int, Sequence[str | int]] = {}
    for pair in checked_pairs(pairs):
        i, j = (_row(member, known, number) for member in pair)
        if i == j:
            raise LandmarkError(
                f"the pair {tuple(pair)} is a landmark with itself: one on the midline keeps its row, leave it out."
            )
        for row in (i, j):
            if row in used:
                raise LandmarkError(
                    f"{pair[0 if row == i else 1]!r} is in two pairs, {tuple(used[row])} and {tuple(pair)}: a landmark "
                    "has one partner."
                )
            used[row] = pair
        permutation[i], permutation[j] = j, i
    return torch.tensor(permutation, dtype=torch.long)


def checked_pairs(pairs: Any) -> list[Sequence[str | int]]:
    """Return ``pairs`` as a list of tuples of two.

    Raises:
        LandmarkError: for anything else.
    """
    if isinstance(pairs, str) or not isinstance(pairs, Iterable):
        raise LandmarkError(f'`pairs` must be a sequence of pairs such as [("left eye", "right eye")], got {pairs!r}.')
    checked = [pair if isinstance(pair, (str, int)) else tuple(pair) for pair in pairs]
    for pair in checked:
        if isinstance(pair, (str, int)) or len(pair) != 2:
            raise LandmarkError(f'every pair must have two members such as ("left eye", "right eye"), got {pair!r}.')
    return checked  # type: ignore[return-value]


def _row(member: Any, names: tuple[str, ...] | None, number: int) -> int:
    if isinstance(member, str):
        if names is None:
            raise LandmarkError(f"the pairs are names such as {member!r}: give `names`, so that their rows are known.")
        if member not in names:
            raise LandmarkError(
                f"{member!r} is in a pair and not among the {number} names{did_you_mean(member, names)}."
            )
        return names.index(member)
    if isinstance(member, bool) or not hasattr(member, "__index__") or not 0 <= member.__index__() < number:
        raise LandmarkError(f"a pair must hold names, or rows from 0 to {number - 1}, got {member!r}.")
    return int(member)
