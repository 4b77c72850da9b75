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
"""In which order batches of several data sets are drawn: pure functions, the same on every machine."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping

import numpy as np
from monai.utils import StrEnum, look_up_option

from ..data.landmarks import did_you_mean, quoted
from ..geometry import LandmarkError

__all__ = ["MixingWeights", "check_datasets", "derived_seed", "draw_schedule", "mixing_proportions"]


class MixingWeights(StrEnum):
    """How much of an epoch each data set gets."""

    SIZE = "size"
    EQUAL = "equal"


def mixing_proportions(
    sizes: Mapping[str, int], weights: str | Mapping[str, float] | None = "size", temperature: float = 1.0
) -> dict[str, float]:
    r"""Give the share of each data set in the batches of an epoch.

    By size with temperature :math:`T`, data set :math:`k` of :math:`n_k` batches gets

    .. math:: p_k = n_k^{1/T} / \sum_j n_j^{1/T}

    so that :math:`T = 1` shows every film equally often and :math:`T \to \infty` every data set equally often.

    Args:
        sizes: number of batches in each data set.
        weights: "size" (also None), "equal", or a positive number for each data set.
        temperature: for "size".

    Returns:
        share by data set, in the order of ``sizes``; their sum is 1.

    Raises:
        LandmarkError: without data sets, for an empty one, for weights of other data sets or not positive.
        ValueError: for unknown ``weights``, a temperature that is not positive or goes with other weights.

    Example:
        >>> mixing_proportions({"head": 32, "hand": 64, "chest": 32})
        {'head': 0.25, 'hand': 0.5, 'chest': 0.25}
        >>> {name: round(share, 3) for name, share in mixing_proportions({"head": 36, "chest": 4}, temperature=2).items()}
        {'head': 0.75, 'chest': 0.25}
        >>> mixing_proportions({"head": 30, "chest": 10}, {"head": 1, "chest": 3})
        {'head': 0.25, 'chest': 0.75}
    """
    if not sizes or min(sizes.values()) < 1:
        raise LandmarkError(f"every data set needs at least one batch, got {dict(sizes)}.")
    if not temperature > 0:
        raise ValueError(f"`temperature` must be positive, got {temperature!r}; 1 is by size, inf is equal.")
    if isinstance(weights, Mapping):
        check_datasets(sizes, weights, "`weights`")
        wrong = [name for name, weight in weights.items() if not 0 < weight < math.inf]
        if wrong:
            raise LandmarkError(
                f"`weights` must be positive, got {weights[wrong[0]]!r} for {wrong[0]!r}. To train without a data set, "
                "leave its loader out."
            )
        amounts = [float(weights[name]) for name in sizes]
    elif look_up_option(weights or MixingWeights.SIZE, MixingWeights) == MixingWeights.SIZE:
        amounts = [float(size) for size in sizes.values()]
    else:
        amounts = [1.0] * len(sizes)
    if temperature != 1 and weights not in (None, MixingWeights.SIZE):
        raise ValueError(f"`temperature` softens weights by size, it does not go with weights {weights!r}.")
    # Over the largest, for n ** (1 / T) of a small T is beyond any float.
    shares = (np.array(amounts) / max(amounts)) ** (1 / temperature)
    return dict(zip(sizes, (shares / shares.sum()).tolist(), strict=True))


def draw_schedule(proportions: Mapping[str, float], num_batches: int, rng: np.random.Generator) -> list[str]:
    """Draw from which data set each batch of an epoch comes.

    The shares become whole numbers by largest remainder, which differ from share times number by less than one. A data
    set that would get none takes one from the largest, as long as there are as many batches as data sets. The order is
    random.

    Args:
        proportions: share by data set, not necessarily of sum 1; a data set of share 0 is not drawn.
        num_batches: in the epoch.
        rng: source of the order.

    Returns:
        names, one for each batch.

    Raises:
        ValueError: for shares that are negative or all zero, or a negative number of batches.

    Example:
        >>> schedule = draw_schedule({"head": 0.6, "hand": 0.39, "chest": 0.01}, 10, np.random.default_rng(0))
        >>> {name: schedule.count(name) for name in ("head", "hand", "chest")}
        {'head': 5, 'hand': 4, 'chest': 1}
    """
    names, shares = list(proportions), np.array(list(proportions.values()), dtype=float)
    if num_batches < 0 or not (shares >= 0).all() or not 0 < shares.sum() < math.inf:
        raise ValueError(f"cannot draw {num_batches} batches in the proportions {dict(proportions)}.")
    exact = num_batches * shares / shares.sum()
    counts = np.floor(exact + 1e-9).astype(int)  # 2.9999999999999996 of 30 batches by size are 3
    order = np.argsort(counts - exact, kind="stable")
    counts[order[: num_batches - counts.sum()]] += 1
    if num_batches >= np.count_nonzero(shares):
        for empty in np.flatnonzero((shares > 0) & (counts == 0)):
            counts[counts.argmax()] -= 1
            counts[empty] = 1
    return [names[i] for i in rng.permutation(np.repeat(np.arange(len(names)), counts))]


def derived_seed(*parts: int | str) -> int:
    """Mix numbers and names into one seed of 32 bits, the same in every process.

    Example:
        >>> derived_seed(0, 1, "head"), derived_seed(0, 2, "head")
        (912481160, 898098297)
    """
    numbers = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in parts]
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def check_datasets(
    datasets: Iterable[str], given: Iterable[str], what: str, known: Iterable[str] | None = None
) -> None:
    """Check that something is given for every data set, and for none that does not exist.

    Args:
        datasets: names for which something must be given.
        given: names for which it is.
        what: what is given, for the message.
        known: further names for which it may be given, by default none.

    Raises:
        LandmarkError: naming the first data set that is too many or is missing, and the known ones.

    Example:
        >>> check_datasets(["head", "hand"], ["head", "hands"], "`scales`")
        Traceback (most recent call last):
            ...
        monai_landmarks.geometry.points.LandmarkError: `scales` names an unknown data set 'hands' (did you mean 'hand'?);
        known are 'head', 'hand'.
    """
    datasets, given = list(datasets), list(given)
    known = list(dict.fromkeys([*datasets, *(known or ())]))
    unknown, missing = [name for name in given if name not in known], [name for name in datasets if name not in given]
    if unknown:
        hint = did_you_mean(str(unknown[0]), known)
        raise LandmarkError(f"{what} names an unknown data set {unknown[0]!r}{hint}; known are {quoted(known)}.")
    if missing:
        raise LandmarkError(f"{what} has nothing for data set {missing[0]!r}, only for {quoted(given) or 'none'}.")
