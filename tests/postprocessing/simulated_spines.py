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
"""Spines with the neighbour distances measured on the CSI 2014 training scans, and candidates as a network gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

NAMES = tuple(
    [f"C{i}" for i in range(1, 8)] + [f"T{i}" for i in range(1, 13)] + [f"L{i}" for i in range(1, 6)] + ["S1", "S2"]
)
_MEASURED = """
19.3 18.0 17.8 17.0 16.9 17.3 19.5 20.8 21.1 21.2 21.6 21.6 22.4 23.2 24.5 26.1 27.5 29.6 32.1 33.9 35.2 35.4 35.5 36.1 29.7
"""
#: Mean distance of consecutive vertebrae in the training scans of CSI 2014, mm, C1-C2 to S1-S2.
DISTANCES = dict(zip(NAMES[:-1], map(float, _MEASURED.split()), strict=True))
#: What lies below a member that no regular spine has is as far as below the one above it.
DISTANCES = {**DISTANCES, "T13": 29.6, "L6": 36.1}


def spine(rng: np.random.Generator, labels: Sequence[str] = NAMES) -> dict[str, np.ndarray]:
    """One patient: a gently bent chain downwards (RAS mm), another size and place for each."""
    count = len(labels)
    bend = np.cumsum(rng.normal(0, 0.04, (count - 1, 2)), axis=0)
    bend[:, 1] += 0.25 * np.sin(np.linspace(0, 6, count - 1))
    directions = np.concatenate([bend, -np.ones((count - 1, 1))], axis=1)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = (
        np.array([DISTANCES[label] for label in labels[:-1]]) * rng.normal(1, 0.05) * rng.normal(1, 0.03, count - 1)
    )
    points = np.cumsum(np.concatenate([rng.normal(0, 50, (1, 3)), directions * lengths[:, None]]), axis=0)
    return dict(zip(labels, points, strict=True))


def training(count: int = 30, seed: int = 1) -> np.ndarray:
    """True points of regular patients ``(M, 26, 3)``."""
    rng = np.random.default_rng(seed)
    return np.stack([np.stack(list(spine(rng).values())) for _ in range(count)])


def padded(
    lists: Mapping[str, Sequence[tuple[np.ndarray, float]]], names: Sequence[str], size: int = 5, dims: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Sort lists of (place, confidence) per channel by confidence and pad them: ``(N, K, D)`` and ``(N, K)``."""
    points, confidence = np.full((len(names), size, dims), np.nan), np.full((len(names), size), np.nan)
    for row, name in enumerate(names):
        for column, (place, score) in enumerate(sorted(lists.get(name, ()), key=lambda item: -item[1])[:size]):
            points[row, column], confidence[row, column] = place, score
    return points, confidence
