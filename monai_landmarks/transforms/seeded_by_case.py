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
"""Random transforms that do the same to a case whenever it comes."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import Randomizable, Transform

from ..geometry import LandmarkError

__all__ = ["SeededByCaseD", "SeededByCaseDict", "SeededByCased"]


class SeededByCased(Transform):
    """Run a random dictionary transform with a seed made of the case's name, so that each case is always treated alike.

    For testing under random poses: a network must not profit from the pose in which images were stored, and two methods
    must be tested on the same poses, whatever the order of cases, workers or epochs.

    The seed is SHA-256 of ``"seed:case"``, the same on every machine. It is deterministic for MONAI too, so that
    ``CacheDataset`` may cache what it makes.

    Args:
        transform: with ``set_random_state``, such as :class:`RandSpatialLandmarksd` or ``Compose`` of several.
        seed: another seed gives other draws.
        case_key: where an item has the name of its case.

    Raises:
        LandmarkError: if the transform has no random state, or an item no name.

    Example:
        >>> from monai.transforms import RandScaleIntensityd
        >>> import torch
        >>> transform = SeededByCased(RandScaleIntensityd("image", factors=0.5, prob=1.0), seed=3)
        >>> first, other, again = (transform({"case": c, "image": torch.ones(1, 1)})["image"] for c in ("a", "b", "a"))
        >>> bool(first == again), bool(first == other)
        (True, False)
    """

    def __init__(self, transform: Any, seed: int = 0, case_key: str = "case") -> None:
        if not isinstance(transform, Randomizable):
            raise LandmarkError(
                f"{type(transform).__name__} has no random state to seed: give a Rand... transform or a Compose of some."
            )
        self.transform: Any = transform
        self.seed, self.case_key = seed, case_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Transform one item."""
        if self.case_key not in data:
            raise LandmarkError(f"the item has no {self.case_key!r} to seed by, it has {sorted(map(str, data))}.")
        digest = hashlib.sha256(f"{self.seed}:{data[self.case_key]}".encode()).digest()
        self.transform.set_random_state(seed=int.from_bytes(digest[:4], "big"))
        return dict(self.transform(data))


SeededByCaseD = SeededByCaseDict = SeededByCased
