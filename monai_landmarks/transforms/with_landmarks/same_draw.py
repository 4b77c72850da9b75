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
"""Running a transform of any kind on an item, and once more with the same random draw."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, MapTransform, Randomizable, Transform
from monai.transforms.traits import LazyTrait

from ...geometry import LandmarkError

__all__ = [
    "RandomState",
    "changed_keys",
    "is_crop_or_pad",
    "is_known_to_deform",
    "leaves",
    "run_on_item",
    "takes_dictionary",
]

_DEFORMING = ("Elastic", "GridDistortion", "SmoothDeform")


class RandomState:
    """The state of every random source that transforms draw from: Python, NumPy, torch and MONAI's shared one.

    MONAI's transforms draw from ``self.R``, which all those never seeded share as one attribute of their class: a copy
    of a transform does not hold it.

    Example:
        >>> state = RandomState()
        >>> first = np.random.rand()
        >>> state.restore()
        >>> first == np.random.rand()
        True
    """

    def __init__(self) -> None:
        self.python = random.getstate()
        self.numpy = np.random.get_state()  # noqa: NPY002 - the global state is what is to be kept
        self.torch = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        self.monai = Randomizable.R.get_state()

    def restore(self) -> None:
        """Set every source back to where it was."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        torch.set_rng_state(self.torch)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        Randomizable.R.set_state(self.monai)


def leaves(transform: Any) -> Iterator[Any]:
    """Give the single transforms that a ``Compose`` (or ``OneOf``, ``SomeOf``, ``RandomOrder``) holds."""
    if isinstance(transform, Compose):
        for inner in transform.transforms:
            yield from leaves(inner)
    else:
        yield transform


def takes_dictionary(transform: Any) -> bool:
    """Tell whether a transform works on an item or on one image.

    Args:
        transform: array or dictionary transform, or a ``Compose`` of one kind.

    Raises:
        ValueError: for a mixture, or if nothing tells which it is.
    """
    kinds = {isinstance(leaf, MapTransform) for leaf in leaves(transform) if isinstance(leaf, Transform)}
    if len(kinds) == 1:
        return kinds.pop()
    names = [type(leaf).__name__ for leaf in leaves(transform)]
    if kinds:
        raise ValueError(
            f"the transform mixes array and dictionary transforms: {names}. Give all of them the suffix d and keys."
        )
    raise ValueError(
        f"{names or type(transform).__name__} is no MONAI transform, so it cannot be told whether it takes an image or "
        "an item: derive it from monai.transforms.Transform, or from MapTransform if it takes items."
    )


def changed_keys(transform: Any) -> tuple[Hashable, ...]:
    """Name the keys that the dictionary transforms in ``transform`` work on."""
    keys: dict[Hashable, None] = {}
    for leaf in leaves(transform):
        keys.update(dict.fromkeys(getattr(leaf, "keys", ()) if isinstance(leaf, MapTransform) else ()))
    return tuple(keys)


def is_crop_or_pad(transform: Any) -> bool:
    """Tell whether a transform only crops or pads by whole voxels, which MONAI's affines follow exactly.

    Only MONAI's own classes are trusted; a class derived from them may do more.
    """
    return all(type(leaf).__module__.startswith("monai.transforms.croppad.") for leaf in leaves(transform))


def is_known_to_deform(transform: Any) -> bool | None:
    """Tell whether a transform deforms images: yes, no, or None where its class does not say.

    A low resolution and a weak deformation can look alike; what the class is known for decides.
    """
    kinds = set()
    for leaf in leaves(transform):
        known = type(leaf).__module__.startswith("monai.transforms.")
        kinds.add(any(word in type(leaf).__name__ for word in _DEFORMING) if known else None)
    return kinds.pop() if len(kinds) == 1 else None


def run_on_item(transform: Any, item: Mapping[Hashable, Any], keys: Sequence[Hashable]) -> Any:
    """Run a transform on an item, eagerly.

    Args:
        transform: a dictionary transform, or an array transform which is then run on each of ``keys`` with one draw.
        item: the item.
        keys: of the images, all of them in the item.

    Returns:
        an item, or a list of items from a transform that makes several samples.
    """
    if takes_dictionary(transform):
        return _eager(transform, dict(item))
    before = RandomState()
    untouched = copy.deepcopy(transform) if len(keys) > 1 else transform
    results = {keys[0]: _eager(transform, item[keys[0]])}
    after = RandomState()
    for key in keys[1:]:
        before.restore()
        results[key] = _eager(copy.deepcopy(untouched), item[key])
    after.restore()
    if not isinstance(results[keys[0]], (list, tuple)):
        return {**item, **results}
    if len({len(r) for r in results.values()}) > 1:
        raise LandmarkError(f"{type(transform).__name__} gave different numbers of samples for {list(keys)}.")
    return [{**item, **dict(zip(results, samples, strict=True))} for samples in zip(*results.values(), strict=True)]


def _eager(transform: Callable[..., Any], data: Any) -> Any:
    return transform(data, lazy=False) if isinstance(transform, LazyTrait) else transform(data)
