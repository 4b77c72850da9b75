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
"""CLAHE: contrast-limited adaptive histogram equalisation, by scikit-image."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import ImageMetaKey, OptionalImportError, TransformBackends, optional_import

from ..geometry import LandmarkError, image_affine, plain_tensor, voxel_sizes
from .intensity import like_image

__all__ = ["CLAHE", "CLAHED", "CLAHEDict", "CLAHEd"]

_COLOURS = (3, 4)


class CLAHE(Transform):
    """Even out local contrast by CLAHE, contrast-limited adaptive histogram equalisation (Zuiderveld 1994), in 2D and 3D.

    In tiles the histogram is equalised, with every bin cut at a limit and what was cut spread over all bins; between
    tile centres the mappings are interpolated. The slope of a mapping, that is how much weak texture or noise is
    amplified, stays near or below ``clip_limit * num_bins``, 2.56 by default (texture finer than a bin aside).

    Computed by scikit-image, ``pip install scikit-image``. SimpleITK's ``AdaptiveHistogramEqualization`` is another
    method (Stark 2000) without such a limit: the fainter the texture of an area, the more it amplifies (8 times with
    alpha = beta = 0.3 where the default here gives 2.5, 58 times where the texture is 20 times fainter), and it takes
    minutes for tiles of an eighth of a film. OpenCV's ``clipLimit`` is ``clip_limit * num_bins`` here; OpenCV has 2D only.

    Args:
        clip_limit: where a bin is cut, as a share of the tile's voxels, above 0 to 1; 1 does not cut.
        tile_size: of the tiles in voxels, one number or one per axis; None takes an eighth of every axis.
        tile_size_mm: the same in millimetres, so that films of different pixel size are treated alike; needs an affine.
        num_bins: of the histograms.

    Shapes: ``(C, *S)`` -> the same, every channel for itself, in its own range of intensities and its type; affine and
    meta data are kept. A channel of one value comes back as it is.

    Raises:
        OptionalImportError: scikit-image is not installed.
        LandmarkError: for options out of range, and for NaN.

    Example:
        >>> film = torch.rand(1, 64, 48, generator=torch.Generator().manual_seed(0))
        >>> even = CLAHE(clip_limit=0.02, tile_size=16)(film)
        >>> even.shape, bool(torch.isclose(even.max(), film.max()))
        (torch.Size([1, 64, 48]), True)
    """

    backend = [TransformBackends.NUMPY]

    def __init__(
        self,
        clip_limit: float = 0.01,
        tile_size: int | Sequence[int] | None = None,
        tile_size_mm: float | Sequence[float] | None = None,
        num_bins: int = 256,
    ) -> None:
        if not 0 < clip_limit <= 1:
            raise LandmarkError(
                f"`clip_limit` must be above 0 and at most 1, got {clip_limit}: it is a share of the tile's "
                "voxels. A clipLimit of OpenCV, such as 2.0, is `clip_limit=2.0 / num_bins`."
            )
        if tile_size is not None and tile_size_mm is not None:
            raise LandmarkError("give `tile_size` (voxels) or `tile_size_mm`, not both.")
        for name, size in (("tile_size", tile_size), ("tile_size_mm", tile_size_mm)):
            if size is not None and not (np.asarray(size) > 0).all():
                raise LandmarkError(f"`{name}` must be positive, got {size}.")
        if num_bins < 2:
            raise LandmarkError(f"`num_bins` must be at least 2, got {num_bins}.")
        if not optional_import("skimage.exposure")[1]:
            raise OptionalImportError(
                "CLAHE is computed by scikit-image, which is not installed: pip install scikit-image"
            )
        self.clip_limit, self.num_bins = float(clip_limit), int(num_bins)
        self.tile_size, self.tile_size_mm = tile_size, tile_size_mm

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Equalise one image.

        Args:
            img: ``(C, *S)``, a MetaTensor, tensor or array.

        Raises:
            LandmarkError: as the class, with the image's file named.
        """
        img = torch.as_tensor(img)
        channels = plain_tensor(img).detach().cpu().to(torch.float64).numpy()
        bad = int(channels.size - np.isfinite(channels).sum())
        if bad:
            name = getattr(img, "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ, "the image")
            raise LandmarkError(
                f"CLAHE needs finite intensities, {bad} of {channels.size} in {name} are NaN or infinite: replace them "
                "before, for example by torch.nan_to_num in a Lambdad."
            )
        tile = self._tile(img)
        return like_image(torch.from_numpy(np.stack([self._equalise(c, tile) for c in channels])), img)

    def _tile(self, img: torch.Tensor) -> tuple[int, ...]:
        """The size of the tiles in voxels, one per axis, at most the image."""
        shape = np.array(img.shape[1:])
        if self.tile_size_mm is not None:
            tile = np.asarray(self.tile_size_mm) / voxel_sizes(image_affine(img)).numpy()
        else:
            tile = shape // 8 if self.tile_size is None else np.asarray(self.tile_size)
        if tile.ndim and tile.shape != shape.shape:
            raise LandmarkError(f"the tile size has {tile.size} numbers, the image {shape.size} axes.")
        return tuple(int(n) for n in np.clip(np.round(tile * np.ones(len(shape))), 1, shape))

    def _equalise(self, channel: np.ndarray, tile: tuple[int, ...]) -> np.ndarray:
        low, high = channel.min(), channel.max()
        if low == high:
            return channel
        unit = (channel - low) / (high - low)
        # scikit-image takes a last axis of 3 or 4 for colours; the result does not depend on the order of the axes.
        order = sorted(range(unit.ndim), key=lambda axis: unit.shape[axis] in _COLOURS, reverse=True)
        if unit.ndim == 3 and unit.shape[order[-1]] in _COLOURS:
            raise LandmarkError(f"CLAHE has no use for a volume as small as {channel.shape}.")
        equalize, _ = optional_import("skimage.exposure", name="equalize_adapthist")
        equal = equalize(unit.transpose(order), tuple(tile[axis] for axis in order), self.clip_limit, self.num_bins)
        return low + (high - low) * equal.transpose(np.argsort(order))


class CLAHEd(MapTransform):
    """Even out the local contrast of the images under ``keys`` by CLAHE.

    Dictionary version of :class:`CLAHE`.

    Args:
        keys: images.
        clip_limit: where a bin is cut, as a share of the tile's voxels.
        tile_size: of the tiles in voxels; None takes an eighth of every axis.
        tile_size_mm: the same in millimetres.
        num_bins: of the histograms.
        allow_missing_keys: whether an item may lack one of ``keys``.
    """

    backend = CLAHE.backend

    def __init__(
        self,
        keys: KeysCollection,
        clip_limit: float = 0.01,
        tile_size: int | Sequence[int] | None = None,
        tile_size_mm: float | Sequence[float] | None = None,
        num_bins: int = 256,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.clahe = CLAHE(clip_limit, tile_size, tile_size_mm, num_bins)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.clahe(d[key])
        return d


CLAHED = CLAHEDict = CLAHEd
