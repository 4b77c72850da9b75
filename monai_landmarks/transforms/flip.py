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
"""Flips that exchange left and right: the image is mirrored, and each landmark's row goes to its partner."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import get_track_meta
from monai.transforms import Flip, InvertibleTransform, LazyTransform, MapTransform, RandomizableTransform
from monai.utils import TraceKeys, TransformBackends, convert_to_tensor, ensure_tuple

from ..data.row_exchange import Pairs, exchange_order
from ..geometry import LandmarkError
from .flip_rule import FlipRule, check_rows, checked_probability, image_size
from .spatial import look_up_reference

__all__ = [
    "FlipLandmarks",
    "FlipLandmarksD",
    "FlipLandmarksDict",
    "FlipLandmarksd",
    "RandFlipLandmarks",
    "RandFlipLandmarksD",
    "RandFlipLandmarksDict",
    "RandFlipLandmarksd",
    "exchange_order",
]


class FlipLandmarks(LazyTransform):
    """Mirror an image along one axis and exchange the landmarks' rows with their partners'.

    In the mirror image the right eye looks like a left one: row "left eye" must hold its place. The image is mirrored by
    MONAI's ``Flip``, so that its affine knows. World points therefore stay, voxel points go to ``size - 1 - p``; then
    the rows of partners are exchanged, a missing landmark's NaN with them. The mark
    of an elastic deformation stays on the image. Applied twice it gives everything back.

    The exchange is right for a flip along any one axis, because every mirror image makes a left part look right
    (turned, as a whole); sides that name parts of the picture itself ("top-left") fit flips along their own axis only.

    Args:
        names: the N names, in the order of the rows; None where they have none.
        pairs: partners as pairs of names or of rows; ``"names"`` takes what the names say (printed with the transform,
            and logged); a proposal of :func:`monai_landmarks.data.sides.propose_flip_pairs`; ``()`` says that the set
            has no sides. None is enough only where no name speaks of a side.
        spatial_axis: axis of the array, or ``"left-right"``: that of each volume which is nearest to the patient's.
        point_space: ``"world"`` (mm) or ``"voxel"`` (indices of the image).
        lazy: whether the image's flip waits for the next resampling.

    Attributes:
        exchange: the :class:`~monai_landmarks.data.row_exchange.RowExchange` decided on.

    Raises:
        LandmarkError: if names speak of sides and no pairs are given, with the proposal to paste; if a name's partner is
            absent; without names and pairs.

    Example:
        >>> flip = FlipLandmarks(["eye_l", "eye_r"], pairs="names", point_space="voxel")
        >>> flip(torch.zeros(1, 8, 6), torch.tensor([[1.0, 3.0], [5.0, 3.0]]))[1]
        tensor([[2., 3.],
                [6., 3.]])
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        names: Sequence[str] | None = None,
        pairs: Pairs = None,
        spatial_axis: int | str = 0,
        point_space: str = "world",
        lazy: bool = False,
    ) -> None:
        LazyTransform.__init__(self, lazy=lazy)
        self.rule = FlipRule(names, pairs, spatial_axis, point_space)
        self.exchange = self.rule.exchange

    def __call__(self, img: torch.Tensor, points: Any, *rows: Any, lazy: bool | None = None) -> tuple[Any, ...]:  # type: ignore[override]
        """Flip one image and its landmarks.

        Args:
            img: channel-first ``(C, *S)``.
            points: ``(N, D)``.
            rows: anything else with one row per landmark, such as confidences ``(N,)``.
            lazy: overrides the constructor's for this call.

        Returns:
            the image, the points as a plain tensor, and the rows.
        """
        return self._flip(img, points, rows, True, lazy)

    def _flip(self, img: Any, points: Any, rows: Sequence[Any], flipping: bool, lazy: bool | None) -> tuple[Any, ...]:
        plain = self.rule.checked_points(points, img, "points")
        for value in rows:
            check_rows(value, len(plain), "rows")
        axis, size = self.rule.axis_of(img), image_size(img)
        if not flipping:
            return convert_to_tensor(img, track_meta=get_track_meta()), plain, *rows
        image = Flip(axis)(img, lazy=self.lazy if lazy is None else lazy)
        return image, self.rule.points(plain, axis, size[axis]), *(self.rule.rows(value) for value in rows)

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.rule}\n)"


class RandFlipLandmarks(RandomizableTransform, FlipLandmarks):
    """With probability ``prob``, mirror an image and exchange left and right. See :class:`FlipLandmarks`.

    Args:
        names: see :class:`FlipLandmarks`.
        pairs: see :class:`FlipLandmarks`.
        spatial_axis: see :class:`FlipLandmarks`.
        prob: of a flip.
        point_space: see :class:`FlipLandmarks`.
        lazy: whether the image's flip waits for the next resampling.

    Example:
        >>> flip = RandFlipLandmarks(["eye_l", "eye_r"], pairs="names", prob=1.0)
        >>> flip(torch.zeros(1, 8, 6), torch.tensor([[1.0, 3.0], [5.0, 3.0]]))[1]
        tensor([[5., 3.],
                [1., 3.]])
    """

    def __init__(
        self,
        names: Sequence[str] | None = None,
        pairs: Pairs = None,
        spatial_axis: int | str = 0,
        prob: float = 0.5,
        point_space: str = "world",
        lazy: bool = False,
    ) -> None:
        FlipLandmarks.__init__(self, names, pairs, spatial_axis, point_space, lazy)
        RandomizableTransform.__init__(self, checked_probability(prob))

    def __call__(  # type: ignore[override]
        self, img: torch.Tensor, points: Any, *rows: Any, lazy: bool | None = None, randomize: bool = True
    ) -> tuple[Any, ...]:
        """Flip, or do not. ``randomize=False`` repeats the last decision; the rest as in :class:`FlipLandmarks`."""
        if randomize:
            self.randomize(None)
        return self._flip(img, points, rows, self._do_transform, lazy)


class FlipLandmarksd(MapTransform, InvertibleTransform, LazyTransform):
    """Mirror the images under ``keys`` and exchange the rows of partners under ``point_keys`` and ``row_keys``.

    Dictionary version of :class:`FlipLandmarks`, for items before collation. ``inverse`` mirrors the images back and
    exchanges the rows back, also of predictions put under a point key: the images' trace says whether there was a flip.
    To invert predicted heatmaps with MONAI's ``Invertd``, let ``orig_keys`` name a key that is in ``row_keys`` too;
    under an image's key their channels would keep the exchanged names.

    Args:
        keys: images.
        point_keys: landmarks ``(N, D)``.
        names: see :class:`FlipLandmarks`.
        pairs: see :class:`FlipLandmarks`.
        spatial_axis: see :class:`FlipLandmarks`; the same axis of every image, or each one's own left-right.
        point_space: ``"world"`` (mm) or ``"voxel"``: indices of the first image of ``keys``.
        row_keys: anything else with one row per landmark: confidences, states, masks. Heatmaps ``(N, *S)`` are images,
            too: name them here and in ``keys``.
        allow_missing_keys: whether an item may lack some of the keys.
        lazy: whether the flip waits for the next resampling.

    Example:
        >>> flip = FlipLandmarksd("image", "points", names=["eye_l", "eye_r"], pairs=[("eye_l", "eye_r")])
        >>> item = flip({"image": torch.zeros(1, 8, 6), "points": torch.tensor([[1.0, 3.0], [5.0, 3.0]])})
        >>> item["points"].tolist(), item["image"].affine.diagonal().tolist()
        ([[5.0, 3.0], [1.0, 3.0]], [-1.0, 1.0, 1.0, 1.0])
    """

    backend = FlipLandmarks.backend

    def __init__(
        self,
        keys: KeysCollection,
        point_keys: KeysCollection,
        names: Sequence[str] | None = None,
        pairs: Pairs = None,
        spatial_axis: int | str = 0,
        point_space: str = "world",
        row_keys: KeysCollection | None = None,
        allow_missing_keys: bool = False,
        lazy: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        LazyTransform.__init__(self, lazy=lazy)
        self.point_keys = ensure_tuple(point_keys)
        self.row_keys = () if row_keys is None else ensure_tuple(row_keys)
        for several, which in ((self.point_keys, self.keys), (self.row_keys, self.point_keys)):
            twice = [key for key in several if key in which or several.count(key) > 1]
            if twice:
                raise LandmarkError(
                    f"{twice} would be flipped twice: keys are images, point_keys points, row_keys what else has rows."
                )
        self.rule = FlipRule(names, pairs, spatial_axis, point_space)
        self.exchange = self.rule.exchange

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        return self._flip(dict(data), True, self.lazy if lazy is None else lazy)

    def _flip(self, d: dict[Hashable, Any], flipping: bool, lazy: bool) -> dict[Hashable, Any]:
        images = list(self.key_iterator(d))
        self._check(d, images)
        axes = {key: self.rule.axis_of(d[key]) for key in images}
        sizes = {key: image_size(d[key])[axes[key]] for key in images}
        for key in images:
            if flipping:
                d[key] = Flip(axes[key])(d[key], lazy=lazy)
            else:
                d[key] = convert_to_tensor(d[key], track_meta=get_track_meta())
            self.push_transform(d[key], replace=True, lazy=lazy)
        if flipping:
            self._exchange(d, axes[images[0]], sizes[images[0]])
        return d

    def _exchange(self, d: dict[Hashable, Any], axis: int, size: int) -> None:
        for key in self._there(d, self.point_keys):
            d[key] = self.rule.points(d[key], axis, size)
        for key in self._there(d, self.row_keys):
            d[key] = self.rule.rows(d[key])

    def _there(self, d: Mapping[Hashable, Any], keys: Sequence[Hashable]) -> list[Hashable]:
        for key in keys:
            if not self.allow_missing_keys:
                look_up_reference(d, key, "point_keys" if key in self.point_keys else "row_keys")
        return [key for key in keys if key in d]

    def _check(self, d: dict[Hashable, Any], images: Sequence[Hashable]) -> None:
        """Refuse what does not fit, also when this time nothing is flipped; points become plain tensors."""
        points, rows = self._there(d, self.point_keys), self._there(d, self.row_keys)
        if not images and (points or rows):
            raise LandmarkError(
                f"the item has none of the images {list(self.keys)}: whether its points are flipped hangs on them. It "
                f"has {sorted(map(str, d))}."
            )
        number = None
        for key in points:
            d[key] = self.rule.checked_points(d[key], d[images[0]], str(key))
            number = len(d[key])
        for key in rows:
            check_rows(d[key], len(d[key]) if number is None and hasattr(d[key], "__len__") else number or 0, key)
            shape = tuple(getattr(d[key], "shape", ()))[1:]
            if key not in self.keys and len(shape) > 1 and shape in {image_size(d[image]) for image in images}:
                raise LandmarkError(
                    f"`{key}` in row_keys has the size of the image, {shape}: heatmaps are mirrored as well as exchanged; "
                    f"name {key!r} in `keys` too."
                )

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Mirror the images back and exchange the rows back.

        Raises:
            LandmarkError: for points without their images, which carry the trace of the flip.
        """
        d = dict(data)
        images = list(self.key_iterator(d))
        self._check(d, images)
        flipped: tuple[int, int] | None = None
        for number, key in enumerate(images):
            trace = self.pop_transform(d[key])
            if not trace[TraceKeys.DO_TRANSFORM]:
                continue
            axis = int(trace[TraceKeys.EXTRA_INFO][TraceKeys.EXTRA_INFO]["axes"])
            back = Flip(axis)
            with back.trace_transform(False):
                d[key] = back(d[key])
            if number == 0:
                flipped = axis, image_size(d[key])[axis]
        if flipped is not None:
            self._exchange(d, *flipped)
        return d

    def __str__(self) -> str:
        keys = f"keys={self.keys}, point_keys={self.point_keys}"
        return f"{type(self).__name__}({keys}, {self.rule}\n)"


class RandFlipLandmarksd(RandomizableTransform, FlipLandmarksd):
    """With probability ``prob``, mirror the images and exchange left and right. See :class:`FlipLandmarksd`.

    Args:
        keys: images.
        point_keys: landmarks ``(N, D)``.
        names: see :class:`FlipLandmarks`.
        pairs: see :class:`FlipLandmarks`.
        spatial_axis: see :class:`FlipLandmarksd`.
        prob: of a flip; all images and points of an item share the decision.
        point_space: see :class:`FlipLandmarksd`.
        row_keys: see :class:`FlipLandmarksd`.
        allow_missing_keys: whether an item may lack some of the keys.
        lazy: whether the flip waits for the next resampling.

    Example:
        >>> RandFlipLandmarksd("image", "landmarks", names=["nasion", "orbitale_l", "orbitale_r"])
        Traceback (most recent call last):
        ...
        monai_landmarks.geometry.points.LandmarkError: the names speak of left and right, ...
    """

    def __init__(
        self,
        keys: KeysCollection,
        point_keys: KeysCollection,
        names: Sequence[str] | None = None,
        pairs: Pairs = None,
        spatial_axis: int | str = 0,
        prob: float = 0.5,
        point_space: str = "world",
        row_keys: KeysCollection | None = None,
        allow_missing_keys: bool = False,
        lazy: bool = False,
    ) -> None:
        FlipLandmarksd.__init__(
            self, keys, point_keys, names, pairs, spatial_axis, point_space, row_keys, allow_missing_keys, lazy
        )
        RandomizableTransform.__init__(self, checked_probability(prob))

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        self.randomize(None)
        return self._flip(dict(data), self._do_transform, self.lazy if lazy is None else lazy)


FlipLandmarksD = FlipLandmarksDict = FlipLandmarksd
RandFlipLandmarksD = RandFlipLandmarksDict = RandFlipLandmarksd
