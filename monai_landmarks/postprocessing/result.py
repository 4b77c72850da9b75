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
"""What a sequence model answers: points, where they came from, what it changed and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from .chain import Chain

__all__ = ["SequenceChange", "SequenceResult", "explain_changes"]


@dataclass(frozen=True)
class SequenceChange:
    """One landmark that differs from the first candidate of its own channel.

    Args:
        landmark: its name.
        what: ``"moved to candidate 2"``, ``"taken from channel T4, candidate 1"`` or ``"dropped"``; candidates count from 1.
        reason: with the numbers that decided.
    """

    landmark: str
    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.landmark}: {self.what}. {self.reason}"


@dataclass(frozen=True)
class SequenceResult:
    """The best anatomical sequence among candidates.

    Args:
        points: ``(N, D)`` world millimetres, NaN where the sequence has no member for a channel.
        confidence: ``(N,)`` of the candidates taken, NaN where none is.
        chosen: ``(N, 2)`` channel and candidate they are from, both from 0; -1 where none is.
        names: of the channels.
        anatomy: name of the anatomy that fits best.
        extra: members without a channel of their own, such as T13: name to (point ``(D,)``, confidence).
        changes: what differs from taking the first candidate of every channel.
        score: of the chain, less the cost of the anatomy. Scores of one model on one scan compare; others do not.
    """

    points: torch.Tensor
    confidence: torch.Tensor
    chosen: torch.Tensor
    names: tuple[str, ...]
    anatomy: str
    extra: Mapping[str, tuple[torch.Tensor, float]] = field(default_factory=dict)
    changes: tuple[SequenceChange, ...] = ()
    score: float = 0.0

    def table(self) -> str:
        """Give the result as text for people: the anatomy, the number of members, and one line per change."""
        found = int((self.chosen[:, 0] >= 0).sum())
        head = f"anatomy: {self.anatomy}; {found} of {len(self.names)} landmarks, {len(self.changes)} changed"
        also = [f"{name}: at {[round(v, 1) for v in point.tolist()]} mm" for name, (point, _) in self.extra.items()]
        return "\n".join([head, *also, *map(str, self.changes)])


def explain_changes(
    chain: Chain,
    path: Sequence[tuple[int, int, int]],
    points: np.ndarray,
    confidence: np.ndarray,
    scale: np.ndarray,
    names: Sequence[str],
    nearest: float,
) -> tuple[SequenceChange, ...]:
    """Compare a chain with the first candidates of all channels, and say why they differ.

    Args:
        chain: the anatomy taken.
        path: (label, channel, candidate) of its members, in order.
        points: candidates ``(N, K, D)``.
        confidence: theirs ``(N, K)``.
        scale: usual confidence of each channel ``(N,)``.
        names: of the channels.
        nearest: two points closer than this are the same place.
    """
    labels = chain.anatomy.labels
    taken = {labels[label]: (channel, candidate) for label, channel, candidate in path}
    changes = []
    for label in sorted(set(labels) | set(names), key=[*names, *labels].index):
        own = names.index(label) if label in names else -1
        has_own = own >= 0 and not np.isnan(confidence[own, 0])
        if (not has_own and label not in taken) or (own >= 0 and taken.get(label) == (own, 0)):
            continue
        channel, candidate = taken.get(label, (-1, -1))
        if not has_own:
            reason = "its own channel has no candidate." if own >= 0 else "it has no channel of its own."
        elif label not in labels:
            reason = f"the anatomy {chain.anatomy.name!r} has no {label}."
        else:
            # Who is dropped though it lies within three standard deviations is dropped for its confidence.
            reason = _reason(chain, path, points, label, own, nearest, least=9.0 if channel < 0 else 0.0)
            if not reason:
                reason = f"candidate 1 has confidence {confidence[own, 0]:.3g} where {scale[own]:.3g} is usual."
        changes.append(SequenceChange(label, _what(names, own, channel, candidate), reason))
    return tuple(changes)


def _what(names: Sequence[str], own: int, channel: int, candidate: int) -> str:
    if channel < 0:
        return "dropped"
    return (
        f"moved to candidate {candidate + 1}"
        if channel == own
        else f"taken from channel {names[channel]}, candidate {candidate + 1}"
    )


def _reason(
    chain: Chain,
    path: Sequence[tuple[int, int, int]],
    points: np.ndarray,
    label: str,
    own: int,
    nearest: float,
    least: float,
) -> str:
    """Say how the first candidate of a channel contradicts the members of the chain; nothing where it does not."""
    first, at, labels = points[own, 0], chain.anatomy.labels.index(label), chain.anatomy.labels
    others = [member for member in path if member[0] != at]
    for number, channel, candidate in others:
        apart = float(np.linalg.norm(first - points[channel, candidate]))
        if apart < nearest:
            return f"candidate 1 lies {apart:.1f} mm from {labels[number]}: the same place."
    beside = [m for m in others if m[0] < at][-1:] + [m for m in others if m[0] > at][:1]
    found = []
    for number, channel, candidate in beside:
        low, high = min(number, at), max(number, at)
        usual, sign = chain.usual[high - low - 1], 1 if at > number else -1
        offsets = sign * (
            np.stack([first] + [points[c, k] for n, c, k in path if n == at]) - points[channel, candidate]
        )
        misfit = float(usual.misfit(offsets[None], chain.weights.rotation_invariant)[low, 0])
        found.append((misfit, labels[number], offsets, usual.mean[low], usual.distance[low], usual.sd[low]))
    if not beside:
        return ""
    misfit, other, offsets, mean, distance, sd = max(found, key=lambda f: f[0])
    if misfit <= least:
        return ""
    lengths = np.linalg.norm(offsets, axis=1)
    text = f"candidate 1 lies {lengths[0]:.1f} mm from {other} where {distance:.1f} +- {sd:.1f} mm are usual"
    if misfit > 9 and abs(lengths[0] - distance) <= 3 * sd:
        text += f", but {np.linalg.norm(offsets[0] - mean):.1f} mm from the place expected there"
    return text + (f"; the one taken lies {lengths[1]:.1f} mm." if len(lengths) > 1 else ".")
