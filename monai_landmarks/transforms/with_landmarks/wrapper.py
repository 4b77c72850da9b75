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
"""Any spatial transform of MONAI, with landmarks that follow it wherever it really puts the image."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable, Transform
from monai.utils import TransformBackends, ensure_tuple, look_up_option

from ...geometry import LandmarkError
from ..spatial import POINT_SPACES
from .following import ItemBefore, check_images, follow, told_affine
from .same_draw import (
    RandomState,
    changed_keys,
    is_crop_or_pad,
    is_known_to_deform,
    leaves,
    run_on_item,
    takes_dictionary,
)
from .sampling_probe import Sampling, coordinate_ramps, measure_sampling, read_ramps

__all__ = ["WithLandmarks", "WithLandmarksD", "WithLandmarksDict", "WithLandmarksd"]

_NO_IMAGES = (
    "GridPatch",
    "RandGridPatch",
    "ConvertBoxToPoints",
    "ConvertPointsToBoxes",
    "AffineGrid",
    "RandAffineGrid",
    "RandDeformGrid",
    "Resample",
    "SmoothField",
    "PadListDataCollate",
)


class WithLandmarksd(Randomizable, MapTransform):
    """Run any spatial transform of MONAI and make the landmarks of the item follow it.

    MONAI moves points by the image's affine alone, and several of its transforms move the image otherwise without a
    word: the elastic ones, grid distortions, ``Transpose``, the default modes of ``Resize``, ``Zoom`` and
    ``RandSimulateLowResolution``. This wrapper measures what the transform does. It runs it a second time with the same
    draw on coordinate ramps, which then say which input voxel every output voxel shows:

    * where the affine is true it stays, and world points, which no affine transform moves, stay as they are;
    * where the map is affine and MONAI wrote another affine, the right one is written;
    * where the map is not affine it is inverted at the points (:func:`monai_landmarks.geometry.invert_sampled_map`), the
      image gets the nearest affine and is marked (:func:`monai_landmarks.geometry.mark_deformed`), and world points are
      moved so that this affine leads to their voxels. ``LandmarksWorldToImaged`` and every affine transform after it
      then put them exactly where the picture shows them.

    The image that comes out is, bit for bit, the one that the transform alone would have given with the same seed.
    The transform is executed eagerly, also in a lazy ``Compose``, which applies first what waits on the image.

    Cost: a second run on ``D + 2`` channels of float32 for each image key, and on a deformed image a few passes over
    it. Crops and pads of MONAI are exact by their affine and are not run twice; nor is an image that came back
    untouched. ``CacheDataset`` takes the wrapper as random, whatever it wraps: nothing after it is cached.

    What cannot be followed is refused, never guessed: a transform that looks at the image's content (unless it crops or
    pads), changes intensities, folds the image at a landmark, or places voxels in steps that no affine describes
    (nearest-neighbour or "area" mode at most ratios: single structures lie up to half a voxel off any affine).

    Args:
        transform: array or dictionary transform, random or not, or a ``Compose`` of such.
        keys: the images, all those that the transform changes included. An array transform is run on each of them with
            one draw.
        point_keys: the landmarks ``(N, D)``, NaN for missing; tensors, arrays or ``Landmarks``.
        point_space: ``"world"``: millimetres, as ``LoadLandmarksd`` gives them. ``"voxel"``: indices of the first of
            ``keys``, before and after. An image without affine counts as one whose world is its voxels.
        tolerance: how far, in voxels of the input, points may lie from where the picture shows them. It decides which
            steps are refused; 0.5 accepts all nearest-neighbour sampling, on average right.
        allow_missing_keys: whether an item may lack some of ``keys`` and ``point_keys``.

    Raises:
        ValueError: for a transform that is no spatial transform of images, that moves points itself, or that changes
            images not in ``keys``.

    Example:
        >>> from monai.transforms import Transposed
        >>> from monai_landmarks.geometry import apply_affine, image_affine, invert_affine
        >>> image = MetaTensor(torch.zeros(1, 8, 6), affine=torch.diag(torch.tensor([0.5, 0.5, 1.0])))
        >>> item = {"image": image, "landmarks": torch.tensor([[1.0, 2.0]])}
        >>> out = WithLandmarksd(Transposed("image", indices=(0, 2, 1)), "image", "landmarks")(item)
        >>> apply_affine(out["landmarks"], invert_affine(image_affine(out["image"]))).round(decimals=3)
        tensor([[4., 2.]], dtype=torch.float64)
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        transform: Any,
        keys: KeysCollection,
        point_keys: KeysCollection,
        point_space: str = "world",
        tolerance: float = 0.05,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.transform = transform
        self.point_keys: tuple[Hashable, ...] = ensure_tuple(point_keys)
        self.point_space = look_up_option(point_space, POINT_SPACES)
        if not tolerance > 0:
            raise ValueError(f"tolerance must be a positive number of voxels, got {tolerance}.")
        self.tolerance = float(tolerance)
        self.name = _name(transform)
        self._check_transform()
        self.exact, self.deforms = is_crop_or_pad(transform), is_known_to_deform(transform)

    def _check_transform(self) -> None:
        for leaf in leaves(self.transform):
            kind, module = type(leaf).__name__, type(leaf).__module__
            if hasattr(leaf, "point_keys") or isinstance(leaf, WithLandmarks):
                raise ValueError(f"{kind} moves landmarks itself: use it beside WithLandmarksd, not inside it.")
            if module.startswith("monai.") and (kind.removesuffix("d") in _NO_IMAGES or kind == "BoundingRect"):
                raise ValueError(
                    f"{kind} does not turn one image into another (it makes grids, boxes or stacks of patches), so "
                    "landmarks cannot follow it. For patches use RandSpatialCropSamplesd or GridSplitd."
                )
            if module.startswith("monai.transforms.intensity.") or "SmoothFieldAdjust" in kind:
                raise ValueError(
                    f"{kind} changes intensities, which spoils the coordinate ramps by which the sampling is measured: "
                    "wrap only the spatial transforms, and put this one before or after WithLandmarksd."
                )
        if not self.point_keys or set(self.point_keys) & set(self.keys):
            raise ValueError(
                f"point_keys must name landmarks, and keys images: {self.point_keys} and {self.keys} have a key in common "
                "or none at all."
            )
        if takes_dictionary(self.transform):
            changed = set(changed_keys(self.transform))
            if changed & set(self.point_keys):
                raise ValueError(
                    f"{self.name} works on {sorted(map(str, changed & set(self.point_keys)))}, which are landmarks: give it "
                    "images only, the wrapper moves the landmarks."
                )
            if not changed <= set(self.keys):
                raise ValueError(
                    f"{self.name} also changes {sorted(map(str, changed - set(self.keys)))}, which keys={self.keys} does "
                    "not name: name every image it changes, so that all their affines become true."
                )

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> WithLandmarksd:
        """Seed the wrapped transform as it would be seeded alone."""
        super().set_random_state(seed, state)
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(seed, state)
        return self

    def randomize(self, data: Any = None) -> None:
        """Let the wrapped transform draw; calling the wrapper does so by itself."""
        if isinstance(self.transform, Randomizable):
            self.transform.randomize(data)

    def __call__(self, data: Mapping[Hashable, Any]) -> Any:
        """Transform an item.

        Args:
            data: the item, with channel-first images ``(C, *S)``.

        Returns:
            the item, or a list of items where the transform makes several samples.

        Raises:
            LandmarkError: for what cannot be followed; the message says why and what to do.
            KeyError: for a missing key.
        """
        before = self._before(data)
        keys = list(before.images)
        versions = {k: _version(v) for k, v in before.images.items()}
        state, unused = RandomState(), None if self.exact else copy.deepcopy(self.transform)
        result = run_on_item(self.transform, data, keys)
        several = isinstance(result, (list, tuple))
        samples = [_with_own_meta(sample, before.images) for sample in (result if several else [result])]
        for sample in samples:
            check_images(sample, before)
        if self.exact or all(_is_untouched(s[k], before.images[k], versions[k]) for s in samples for k in keys):
            samplings: list[dict[Hashable, Sampling]] = [{} for _ in samples]
        else:
            samplings = self._measure(unused, data, before, samples, state)
        followed = [follow(s, before, m) for s, m in zip(samples, samplings, strict=True)]
        return followed if several else followed[0]

    def _before(self, data: Mapping[Hashable, Any]) -> ItemBefore:
        points = {}
        for key in self.point_keys:
            if key in data:
                points[key] = data[key]
            elif not self.allow_missing_keys:
                raise KeyError(f"point_keys names {key!r}, which is not in the item; it has {sorted(map(str, data))}.")
        images = {key: data[key] for key in self.key_iterator(dict(data))}
        if not images:
            raise LandmarkError(
                f"none of the images {self.keys} is in the item, so nothing tells where its landmarks go; the item has "
                f"{sorted(map(str, data))}."
            )
        return ItemBefore(images, points, self.point_space == "voxel", self.name, self.tolerance)

    def _measure(
        self,
        unused: Any,
        data: Mapping[Hashable, Any],
        before: ItemBefore,
        samples: Sequence[Mapping[Hashable, Any]],
        state: RandomState,
    ) -> list[dict[Hashable, Sampling]]:
        """Run the unused copy of the transform on ramps, from the random state the images saw."""
        ramps = {key: coordinate_ramps(torch.as_tensor(image)) for key, image in before.images.items()}
        after = RandomState()
        state.restore()
        try:
            result = run_on_item(unused, {**data, **ramps}, list(ramps))
        except Exception as error:
            raise LandmarkError(
                f"{self.name} worked on the image and failed on coordinate ramps of its size, which have "
                f"{before.dims + 2} channels of float32: {error}. Its sampling cannot be measured; wrap only the spatial "
                "transform."
            ) from error
        finally:
            after.restore()
        probes = result if isinstance(result, (list, tuple)) else [result]
        if len(probes) != len(samples):
            raise LandmarkError(
                f"{self.name} made {len(samples)} samples of the image and {len(probes)} of coordinate ramps: it looks at "
                "the image's content, so its sampling cannot be measured. Wrap only the part that does not."
            )
        return [
            {
                key: measure_sampling(
                    read_ramps(probe.get(key), sample[key], torch.as_tensor(image), self.name),
                    tuple(image.shape[1:]),
                    told_affine(image, sample[key]),
                    self.name,
                    self.deforms,
                )
                for key, image in before.images.items()
            }
            for probe, sample in zip(probes, samples, strict=True)
        ]


class WithLandmarks(Randomizable, Transform):
    """Run any spatial array transform of MONAI on an image and make landmarks follow it.

    Array version of :class:`WithLandmarksd`, which says what is done and what it costs.

    Args:
        transform: array transform, random or not, or a ``Compose`` of such.
        point_space: ``"world"`` millimetres, or ``"voxel"`` indices of the image before and after.
        tolerance: how far, in voxels, points may lie from where the picture shows them.

    Example:
        >>> from monai.transforms import Flip
        >>> follow_flip = WithLandmarks(Flip(0), point_space="voxel")
        >>> image, points = follow_flip(torch.zeros(1, 8, 6), torch.tensor([[1.0, 2.0], [float("nan")] * 2]))
        >>> points
        tensor([[6., 2.],
                [nan, nan]])
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, transform: Any, point_space: str = "world", tolerance: float = 0.05) -> None:
        if takes_dictionary(transform):
            raise ValueError(f"{_name(transform)} takes items: use WithLandmarksd, which names its keys.")
        self.on_items = WithLandmarksd(transform, "image", "points", point_space, tolerance)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> WithLandmarks:
        """Seed the wrapped transform as it would be seeded alone."""
        super().set_random_state(seed, state)
        self.on_items.set_random_state(seed, state)
        return self

    def randomize(self, data: Any = None) -> None:
        """Let the wrapped transform draw; calling the wrapper does so by itself."""
        self.on_items.randomize(data)

    def __call__(self, image: Any, points: Any) -> tuple[Any, Any]:  # type: ignore[override]
        """Transform an image and its landmarks.

        Args:
            image: channel-first ``(C, *S)``.
            points: ``(N, D)``, NaN for missing.

        Returns:
            the image and the points; or a list of images and a list of points where the transform makes several samples.

        Raises:
            LandmarkError: for what cannot be followed; the message says why and what to do.
        """
        result = self.on_items({"image": image, "points": points})
        if isinstance(result, list):
            return [r["image"] for r in result], [r["points"] for r in result]
        return result["image"], result["points"]


def _name(transform: Any) -> str:
    names = [type(leaf).__name__ for leaf in leaves(transform)]
    return names[0] if len(names) == 1 else f"{type(transform).__name__} of {', '.join(names) or 'nothing'}"


def _version(image: Any) -> int:
    """How often a tensor was written to."""
    return int(getattr(image, "_version", 0))


def _is_untouched(after: MetaTensor, before: Any, version: int) -> bool:
    """Whether a transform handed the image on: the same memory, not written to, under the same affine."""
    return (
        isinstance(before, torch.Tensor)
        and after.data_ptr() == before.data_ptr()
        and after.shape == before.shape
        and after.stride() == before.stride()
        and _version(before) == version
        and torch.allclose(told_affine(before, after), torch.eye(before.ndim, dtype=torch.float64))
    )


def _with_own_meta(sample: Mapping[Hashable, Any], images: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    """The sample with images whose meta information can be written without changing the item that came in."""
    own = dict(sample)
    for key, before in images.items():
        after = own.get(key)
        if isinstance(after, MetaTensor) and getattr(before, "meta", None) is after.meta:
            own[key] = MetaTensor(
                after.as_tensor(), meta=dict(after.meta), applied_operations=list(after.applied_operations)
            )
    return own


WithLandmarksD = WithLandmarksDict = WithLandmarksd
