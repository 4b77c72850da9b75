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
"""Where the landmark numbers stand in a picture: beside their point, away from other points and other numbers."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["place_labels"]

# Distances from a point to the middle of its number, and the height of a number, in typographic points.
RADII = (9.0, 14.0, 20.0)
CHARACTER, HEIGHT, MARKER = 4.6, 8.0, 4.0
DIRECTIONS = tuple((math.cos(a), math.sin(a)) for a in np.linspace(0, 2 * math.pi, 8, endpoint=False))


def place_labels(anchors: np.ndarray, lengths: np.ndarray, obstacles: np.ndarray) -> np.ndarray:
    """Choose for each label the nearest of a few places that covers the fewest points and labels.

    Greedy, in the order given: each label sees those before it. Ties go to the place that points away from the middle
    of all points, where a face's or a bone's outline leaves room.

    Args:
        anchors: ``(N, 2)`` label anchors in typographic points, x to the right and y up.
        lengths: ``(N,)`` characters of each label.
        obstacles: ``(M, 2)`` what should not be covered: all points drawn.

    Returns:
        ``(N, 2)`` offsets from the anchors to the middles of the labels.

    Example:
        >>> place_labels(np.zeros((1, 2)), np.array([1]), np.array([[0.0, 0.0], [9.0, 0.0]])).round(1).tolist()
        [[-9.0, 0.0]]
    """
    candidates = np.array([(r * x, r * y) for r in RADII for x, y in DIRECTIONS])
    outward = anchors - (obstacles.mean(axis=0) if len(obstacles) else 0.0)
    outward = outward / np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
    placed = np.zeros((0, 4))
    offsets = np.zeros((len(anchors), 2))
    for index, anchor in enumerate(anchors):
        half = np.array([lengths[index] * CHARACTER / 2, HEIGHT / 2])
        middles = anchor + candidates
        near = np.abs(middles[:, None] - obstacles[None]) < half + MARKER
        overlap = np.abs(middles[:, None] - placed[None, :, :2]) < half + placed[None, :, 2:]
        cost = 3.0 * near.all(axis=-1).sum(axis=1) + 5.0 * overlap.all(axis=-1).sum(axis=1)
        # Farther costs half a covered point; the direction decides only between places that are otherwise equal.
        cost = cost + np.repeat(np.arange(len(RADII)) * 1.5, len(DIRECTIONS))
        cost = cost - 0.4 * (candidates / np.linalg.norm(candidates, axis=1, keepdims=True)) @ outward[index]
        offsets[index] = candidates[int(cost.argmin())]
        placed = np.vstack([placed, [*(anchor + offsets[index]), *half]])
    return offsets
