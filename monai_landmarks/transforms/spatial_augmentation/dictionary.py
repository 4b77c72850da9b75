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
"""The spatial augmentation for items: one map for all images and points of an item."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import InvertibleTransform, MapTransform, Randomizable
from monai.utils import TransformBackends, ensure_tuple, ensure_tuple_rep

from ...geometry import LandmarkError
from .apply import frame_of
from .array import Pixdim, RandSpatialLandmarks, Size, SpatialLandmarks
from .batched import BatchedSpatialAugmentation

__all__ = [
    "FitToGridD",
    "FitToGridDict",
    "FitToGridd",
    "RandSpatialLandmarksD",
    "RandSpatialLandmarksDict",
    "RandSpatialLandmarksd",
    "SpatialLandmarksD",
    "SpatialLandmarksDict",
    "SpatialLandmarksd",
]


class _SpatialTransformd(MapTransform, InvertibleTransform):
    """What the dictionary transforms share: one map for all images and points of an item."""

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        transform: SpatialLandmarks | RandSpatialLandmarks,
        keys: KeysCollection,
        point_keys: KeysCollection | None,
        mode: Any,
        padding_mode: Any,
        fill: Any,
        allow_missing_keys: bool,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.transform = transform
        self.point_keys: tuple[Hashable, ...] = () if point_keys is None else ensure_tuple(point_keys)
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        self.padding_mode = ensure_tuple_rep(padding_mode, len(self.keys))
        self.fill = ensure_tuple_rep(fill, len(self.keys))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        there: list[Any] = list(self.key_iterator(d, self.mode, self.padding_mode, self.fill))
        if not there:
            return d
        lacking = [k for k in self.point_keys if k not in d]
        if lacking and not self.allow_missing_keys:
            raise LandmarkError(f"the item has no points under {lacking}; it has {sorted(map(str, d))}.")
        points = {key: d[key] for key in self.point_keys if key in d}
        first = d[there[0][0]]
        frame = frame_of(first, self.transform.point_space == "world" and bool(points))
        drawn = self.transform.draw(frame)
        names = [str(key) for key in points]
        for key, value in points.items():
            d[key] = self.transform.carry(value, frame, drawn, str(key))
        for key, mode, padding_mode, fill in there:
            how = {"mode": mode, "padding_mode": padding_mode, "fill": float(fill)}
            d[key] = self.transform.read(d[key], frame, drawn, names, **how)
        return d

    def inverse(self, data: Any) -> Any:
        """Refuse: predictions return to the world by the image's affine, no image is warped back.

        Raises:
            LandmarkError: always. MONAI would else undo the transforms before this one on a grid they never saw.
        """
        raise LandmarkError(
            f"{type(self).__name__} is not inverted: take predictions back with LandmarksImageToWorldd, which uses the "
            "image's own affine; a map on its grid is put on another one by resampling in the world."
        )


class SpatialLandmarksd(_SpatialTransformd):
    """Dictionary version of :class:`SpatialLandmarks`: any number of images and sets of points through one map.

    Args:
        keys: images; the first gives the grid and the axes. Others may lie on other grids of the same world.
        point_keys: landmarks ``(N, D)``.
        mode: one for all images, or one for each: "nearest" for a label map.
        padding_mode: likewise.
        fill: likewise.
        allow_missing_keys: whether an item may lack keys.
        kwargs: the other arguments of :class:`SpatialLandmarks`.

    Example:
        >>> import torch
        >>> item = {"image": torch.zeros(1, 8, 8), "points": torch.tensor([[4.5, 3.5]])}
        >>> SpatialLandmarksd("image", "points", scale=2.0, point_space="voxel")(item)["points"]
        tensor([[5.5000, 3.5000]])
    """

    def __init__(
        self,
        keys: KeysCollection,
        point_keys: KeysCollection | None = None,
        *,
        mode: Any = "linear",
        padding_mode: Any = "zeros",
        fill: Any = 0.0,
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        transform = SpatialLandmarks(**kwargs)
        super().__init__(transform, keys, point_keys, mode, padding_mode, fill, allow_missing_keys)


class FitToGridd(_SpatialTransformd):
    """Dictionary version of :class:`FitToGrid`; world points need not be named.

    Args:
        keys: images; the first gives the grid.
        spatial_size: sizes of the grid; -1 for an axis keeps the image's whole extent along it, as for scans of any length.
        pixdim: voxel sizes in mm, or "fit".
        mode: one for all images, or one for each.
        padding_mode: likewise.
        fill: likewise.
        antialias: smooth an image that is read on a coarser grid.
        point_keys: landmarks in voxels of the image, if there are any.
        allow_missing_keys: whether an item may lack keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spatial_size: Size,
        pixdim: Pixdim = "fit",
        mode: Any = "linear",
        padding_mode: Any = "zeros",
        fill: Any = 0.0,
        antialias: bool = True,
        point_keys: KeysCollection | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        transform = SpatialLandmarks(spatial_size, pixdim, antialias=antialias, point_space="voxel")
        super().__init__(transform, keys, point_keys, mode, padding_mode, fill, allow_missing_keys)


class RandSpatialLandmarksd(_SpatialTransformd, Randomizable):
    """Dictionary version of :class:`RandSpatialLandmarks`: any number of images and sets of points through one map.

    Put it after the loaders and whatever can be cached, in place of RandAffined, Rand2DElasticd or Rand3DElasticd, crops
    and resampling; flips and crops of MONAI may follow. In a lazy ``Compose`` what waits is applied before it.

    Args:
        keys: images; the first gives the grid and the axes. Others may lie on other grids of the same world.
        point_keys: landmarks ``(N, D)`` in mm, or in voxels of the first image with ``point_space="voxel"``.
        mode: one for all images, or one for each: "nearest" for a label map.
        padding_mode: likewise.
        fill: likewise.
        allow_missing_keys: whether an item may lack keys.
        kwargs: the other arguments of :class:`RandSpatialLandmarks`.

    Example:
        >>> import torch
        >>> item = {"image": torch.rand(1, 32, 32), "points": torch.tensor([[10.0, 20.0]])}
        >>> augment = RandSpatialLandmarksd("image", "points", rotate_range=0.2, point_space="voxel")
        >>> augment.set_random_state(0)(item)["points"].shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        keys: KeysCollection,
        point_keys: KeysCollection | None = None,
        *,
        mode: Any = "linear",
        padding_mode: Any = "zeros",
        fill: Any = 0.0,
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        self.transform: RandSpatialLandmarks = RandSpatialLandmarks(**kwargs)
        super().__init__(self.transform, keys, point_keys, mode, padding_mode, fill, allow_missing_keys)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandSpatialLandmarksd:
        """Set the state from which maps are drawn."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self

    def randomize(self, data: Any = None) -> None:
        """Nothing is kept between calls: each draws its own map."""

    def batched(self) -> BatchedSpatialAugmentation:
        """Return the form for batches on a device, with the ranges of this transform and the modes of its first image."""
        form = self.transform.batched()
        form.mode, form.padding_mode, form.fill = self.mode[0], self.padding_mode[0], float(self.fill[0])
        return form


SpatialLandmarksD = SpatialLandmarksDict = SpatialLandmarksd
FitToGridD = FitToGridDict = FitToGridd
RandSpatialLandmarksD = RandSpatialLandmarksDict = RandSpatialLandmarksd
