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
from collections.abc import Callable, Iterable, Sequence

from monai.utils import look_up_option

__all__ = ["cross_validation_folds", "seeded_order", "select_fold", "select_part"]


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


def select_part(
    cases: Sequence[str],
    part: str | None,
    num_validation: int,
    seed: int = 0,
    group: Callable[[str], str] | None = None,
) -> list[str]:
    """Select all cases of a training section, or its fixed training or validation part.

    Args:
        cases: case names of the training section.
        part: None for all; ``"validation"`` for ``num_validation`` cases drawn by ``seed``; ``"train"`` for the rest.
        num_validation: number of validation cases, 1 to ``len(cases) - 1``; with groups the least number, since whole
            groups are drawn until it is reached. Not looked at where ``part`` is None.
        seed: seed of the draw.
        group: gives the group of a case, such as its patient; None puts each case into a group of its own.

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
    of = {case: case if group is None else group(case) for case in cases}
    chosen: set[str] = set()
    for name in seeded_order(set(of.values()), seed):
        if len(chosen) < num_validation:
            chosen.update(case for case in cases if of[case] == name)
    if num_validation < 1 or len(chosen) >= len(cases):
        kept = "" if group is None else " Whole groups are drawn, which may take more."
        raise ValueError(
            f"num_validation must leave both parts non-empty: expected 1 to {len(cases) - 1} for {len(cases)} training"
            f" cases, got {num_validation}.{kept}"
        )
    return sorted(chosen if part == "validation" else set(cases) - chosen)


def cross_validation_folds(
    cases: Iterable[str], num_folds: int, seed: int = 0, group: Callable[[str], str] | None = None
) -> list[list[str]]:
    """Deal cases into folds of nearly equal size, those of one group into the same fold.

    Groups are taken from the largest to the smallest, equal ones in the order of :func:`seeded_order`, and each goes to
    the fold with the fewest cases so far.

    Args:
        cases: distinct case names.
        num_folds: at least 2, and not more than there are groups.
        seed: another seed gives other folds.
        group: gives the group of a case, such as its patient; None puts each case into a group of its own.

    Returns:
        ``num_folds`` sorted lists of names.

    Raises:
        ValueError: for a number of folds that leaves one empty.

    Example:
        >>> cross_validation_folds(["a1", "a2", "b1", "c1"], 2, group=lambda case: case[0])
        [['a1', 'a2'], ['b1', 'c1']]
    """
    members: dict[str, list[str]] = {}
    for case in cases:
        members.setdefault(case if group is None else group(case), []).append(case)
    if not 2 <= num_folds <= len(members):
        raise ValueError(f"num_folds must be 2 to {len(members)} for {len(members)} groups of cases, got {num_folds}.")
    folds: list[list[str]] = [[] for _ in range(num_folds)]
    for name in sorted(seeded_order(members, seed), key=lambda name: -len(members[name])):
        min(folds, key=len).extend(members[name])
    return [sorted(fold) for fold in folds]


def select_fold(
    cases: Iterable[str],
    fold: int,
    part: str | None,
    num_folds: int = 5,
    num_validation: int = 4,
    seed: int = 0,
    group: Callable[[str], str] | None = None,
) -> list[str]:
    """Select the cases of one part of a cross-validation.

    Fold ``fold`` is the test part. Of the other cases, whole groups are drawn until ``num_validation`` are there: these
    choose checkpoints and thresholds, and the rest is trained on.

    Args:
        cases: distinct case names.
        fold: 0 to ``num_folds - 1``.
        part: ``"train"``, ``"validation"``, ``"test"``, ``"training"`` (train and validation), or None for all cases.
        num_folds: number of folds.
        num_validation: least number of validation cases.
        seed: of folds and draw.
        group: gives the group of a case, whose members never lie in different parts.

    Returns:
        The selected names, sorted.

    Raises:
        ValueError: for an unknown part, a fold that does not exist, or numbers that leave a part empty.

    Example:
        >>> cases = [f"{n:02d}" for n in range(10)]
        >>> [len(select_fold(cases, 0, part, num_validation=2)) for part in ("train", "validation", "test")]
        [6, 2, 2]
    """
    cases = list(cases)
    folds = cross_validation_folds(cases, num_folds, seed, group)
    if not 0 <= fold < num_folds:
        raise ValueError(f"fold must be 0 to {num_folds - 1}, got {fold}.")
    if part is None:
        return sorted(cases)
    part = look_up_option(part, ("train", "validation", "test", "training"))
    if part == "test":
        return folds[fold]
    rest = [case for number, members in enumerate(folds) if number != fold for case in members]
    return select_part(rest, None if part == "training" else part, num_validation, seed, group)
