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
"""Crops around landmarks, for coarse-to-fine detection: always of the wanted size, points and affine exact.

A crop is a window on the voxel grid: ``voxel of the image = voxel of the crop + origin`` with a whole-numbered origin.
Nothing is interpolated, and no point is rounded.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, get_track_meta
from monai.transforms import InvertibleTransform, MapTransform, TraceableTransform
from monai.transforms.utils import create_translate
from monai.utils import ImageMetaKey, TraceKeys, TransformBackends, ensure_tuple, ensure_tuple_rep, look_up_option

from ..geometry import (
    LandmarkError,
    apply_affine,
    check_points,
    explain_points,
    invert_affine,
    plain_tensor,
    present,
    voxel_sizes,
)
from ..geometry.windows import WINDOW_MODES, crop_origins, window_size, windows
from .spatial import POINT_SPACES, as_points, check_went_along, look_up_reference, reference_affine

__all__ = [
    "CropAroundLandmarks",
    "CropAroundLandmarksD",
    "CropAroundLandmarksDict",
    "CropAroundLandmarksd",
]

_CENTERS = ("box", "mean")
_MISSING = ("error", "center")


class CropAroundLandmarks(InvertibleTransform):
    """Crop an image around landmarks, always to the wanted size: what leaves the image is padded.

    For coarse-to-fine detection: crop around the coarse prediction, predict in the crop, and the crop's affine leads back
    to world millimetres (``LandmarksImageToWorldd``). World points need no change and stay exact, because the window
    lies on the voxel grid and the affine moves with it. MONAI's ``SpatialCrop`` moves a window that leaves the image at
    its low border and cuts it at the high one, so that the landmark is nowhere in particular.

    The window's middle is at most half a voxel from the centre of the landmarks, on every axis. ``inverse`` puts the crop
    back in place in an image of the former size, the constant around it. In a lazy ``Compose`` what waits is applied first.

    Args:
        spatial_size: of the crop in voxels, one number or one per axis.
        size_mm: of the crop in millimetres, rounded to whole voxels of each image; give one of these three.
        margin_mm: instead of a size, crop to the box of the landmarks and this much on every side.
        landmarks: which landmarks the window is centred on, by name (with ``names``) or index; None takes all. Missing
            ones are left out.
        names: the names of the points' rows, in order.
        center: ``"box"``, the middle of the box of the landmarks, so that all of them are in the window if any window of
            its size holds them; or ``"mean"``, which one stray landmark moves less.
        missing: what to do if none of the landmarks is there, or the crop around them would show nothing of the image:
            ``"error"``, or ``"center"`` to crop the middle of the image.
        point_space: ``"world"`` (millimetres) or ``"voxel"`` (indices of the image; they are then moved into the crop).
        mode: what lies outside the image: ``"constant"`` or ``"edge"``.
        value: the constant.

    Shapes: image ``(C, *S)``, points ``(N, D)`` -> image ``(C, *size)``, points ``(N, D)``.

    Raises:
        LandmarkError: for options that do not go together, an image without affine (world), points that do not fit the
            image's dimension, or no landmark to crop around.

    Example:
        >>> image = MetaTensor(torch.rand(1, 40, 30), affine=torch.diag(torch.tensor([0.5, 0.5, 1.0])))
        >>> crop, points = CropAroundLandmarks(spatial_size=16)(image, torch.tensor([[1.0, 8.0]]))
        >>> crop.shape, crop.affine[:2, 2].tolist()
        (torch.Size([1, 16, 16]), [-3.0, 4.0])
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        spatial_size: int | Sequence[int] | None = None,
        size_mm: float | Sequence[float] | None = None,
        margin_mm: float | None = None,
        landmarks: str | int | Sequence[str | int] | None = None,
        names: Sequence[str] | None = None,
        center: str = "box",
        missing: str = "error",
        point_space: str = "world",
        mode: str = "constant",
        value: float = 0.0,
    ) -> None:
        given = {"spatial_size": spatial_size, "size_mm": size_mm, "margin_mm": margin_mm}
        if sum(v is not None for v in given.values()) != 1:
            raise LandmarkError(f"give exactly one of `spatial_size`, `size_mm` and `margin_mm`, got {given}.")
        if margin_mm is not None and missing == "center":
            raise LandmarkError("`missing='center'` needs a size: without landmarks `margin_mm` gives none.")
        for name, size in (("spatial_size", spatial_size), ("size_mm", size_mm)):
            if size is not None and not (np.asarray(size) > 0).all():
                raise LandmarkError(f"`{name}` must be positive, got {size}.")
        if margin_mm is not None and not margin_mm >= 0:
            raise LandmarkError(f"`margin_mm` must be 0 or positive, got {margin_mm}.")
        self.spatial_size, self.size_mm, self.margin_mm = spatial_size, size_mm, margin_mm
        self.chosen = None if landmarks is None else _indices(ensure_tuple(landmarks), names)
        self.center = look_up_option(center, _CENTERS)
        self.missing = look_up_option(missing, _MISSING)
        self.point_space = look_up_option(point_space, POINT_SPACES)
        self.mode = look_up_option(mode, WINDOW_MODES)
        self.value = value

    def window(self, img: torch.Tensor, voxels: torch.Tensor) -> tuple[list[int], list[int]]:
        """Return origin and size of the window on an image ``(C, *S)`` around landmarks ``(N, D)`` in its voxels."""
        shape = tuple(img.shape[1:])
        voxels = self._choose(voxels.detach().cpu().to(torch.float64))
        voxels = voxels[present(voxels)]
        fault = "none of the landmarks to crop around is there"
        if len(voxels) > 0:
            origin, size = self._window(img, voxels)
            if all(o < extent and o + n > 0 for o, n, extent in zip(origin, size, shape, strict=True)):
                return origin, size
            fault = f"the crop would show nothing of the image: {explain_points(voxels, shape)}"
        if self.missing == "error":
            name = getattr(img, "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ, "the image")
            raise LandmarkError(
                f"{name}: {fault}. Leave the case out, or let `missing='center'` crop the middle of the image."
            )
        return self._window(img, torch.tensor([[(n - 1) / 2 for n in shape]], dtype=torch.float64))

    def _window(self, img: torch.Tensor, voxels: torch.Tensor) -> tuple[list[int], list[int]]:
        low, high = voxels.amin(dim=0), voxels.amax(dim=0)
        if self.spatial_size is not None:
            size = list(window_size(self.spatial_size, voxels.shape[-1], "spatial_size"))
        else:
            voxel_mm = voxel_sizes(reference_affine(img, voxels.shape[-1]))
            if self.margin_mm is not None:
                # A rounding error of the affine must not add a voxel.
                start = (low - self.margin_mm / voxel_mm + 1e-6).floor()
                end = (high + self.margin_mm / voxel_mm - 1e-6).ceil()
                return start.long().tolist(), (end - start).long().add(1).tolist()
            wanted_mm = torch.as_tensor(self.size_mm, dtype=torch.float64)
            if wanted_mm.ndim and wanted_mm.shape != voxel_mm.shape:
                raise LandmarkError(f"`size_mm` has {len(wanted_mm)} numbers, the image {len(voxel_mm)} axes.")
            size = (wanted_mm / voxel_mm).round().clamp(min=1).long().tolist()
        middle = (low + high) / 2 if self.center == "box" else voxels.mean(dim=0)
        return crop_origins(middle, size).tolist(), size

    def _choose(self, voxels: torch.Tensor) -> torch.Tensor:
        if voxels.ndim != 2:
            raise LandmarkError(
                f"landmarks of one image must have shape (N, D), got {tuple(voxels.shape)}; for a batch there is "
                "crops_around_points."
            )
        if self.chosen is None:
            return voxels
        if max(self.chosen) >= len(voxels):
            raise LandmarkError(f"`landmarks` asks for index {max(self.chosen)}, there are {len(voxels)} landmarks.")
        return voxels[list(self.chosen)]

    def cut(
        self, img: torch.Tensor, origin: Sequence[int], size: Sequence[int], mode: str, value: float
    ) -> torch.Tensor:
        """Cut a window out of an image ``(C, *S)``, and move the affine and the trace with it."""
        window = windows(plain_tensor(img)[None], torch.tensor([[list(origin)]]), size, mode, value)[0, 0].contiguous()
        if not isinstance(img, MetaTensor) or not get_track_meta():
            return window
        meta = TraceableTransform.track_transform_meta(
            img,
            sp_size=size,
            affine=create_translate(len(size), list(origin)),
            extra_info={"origin": list(origin)},
            orig_size=tuple(img.shape[1:]),
            transform_info=self.get_transform_info(),
        )
        return MetaTensor(window).copy_meta_from(meta)

    def __call__(self, img: torch.Tensor, points: Any) -> tuple[torch.Tensor, Any]:  # type: ignore[override]
        """Crop one image.

        Args:
            img: ``(C, *S)``; with an affine, unless the points are voxels and the size is in voxels.
            points: ``(N, D)``, NaN for a missing landmark.

        Returns:
            the crop, and the points in the same space as before: world points as they came, voxels counted in the crop.
        """
        plain = as_points(points)
        origin, size = self.window(img, to_voxels(img, plain, self.point_space))
        crop = self.cut(img, origin, size, self.mode, self.value)
        return crop, points if self.point_space == "world" else move(plain, origin, -1)

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        """Put a crop back in its place in an image of the size before.

        Args:
            data: the crop, or anything on its grid that carries its trace, ``(C, *size)``.
        """
        traced = self.pop_transform(data)
        origin, size = traced[TraceKeys.EXTRA_INFO]["origin"], traced[TraceKeys.ORIG_SIZE]
        with self.trace_transform(False):
            return self.cut(data, [-int(o) for o in origin], [int(n) for n in size], "constant", self.value)


def _indices(landmarks: Sequence[str | int], names: Sequence[str] | None) -> tuple[int, ...]:
    """The row numbers of landmarks given by name or number."""
    if not landmarks:
        raise LandmarkError("`landmarks` is empty; None takes all of them.")
    rows = []
    for which in landmarks:
        if isinstance(which, str) and (names is None or which not in names):
            raise LandmarkError(
                f"`landmarks` asks for {which!r}, `names` has {None if names is None else list(names)}."
            )
        row = list(names or ()).index(which) if isinstance(which, str) else int(which)
        if row < 0 or (names is not None and row >= len(names)):
            raise LandmarkError(f"`landmarks` asks for index {row}; rows count from 0.")
        rows.append(row)
    return tuple(rows)


def to_voxels(img: torch.Tensor, points: torch.Tensor, point_space: str) -> torch.Tensor:
    """Return points ``(N, D)`` in the voxels of an image ``(C, *S)``."""
    dims = img.ndim - 1
    check_points(points, dims)
    if point_space == "voxel":
        return points
    return apply_affine(points, invert_affine(reference_affine(img, dims)))


def move(points: torch.Tensor, origin: Sequence[int], sign: int) -> torch.Tensor:
    """Return voxel indices counted from another origin."""
    return points + sign * torch.tensor(list(origin), dtype=points.dtype, device=points.device)


class CropAroundLandmarksd(MapTransform, InvertibleTransform):
    """Crop the images under ``keys`` around the landmarks under ``point_keys``, always to the wanted size.

    Dictionary version of :class:`CropAroundLandmarks`. World points stay as they are. Every image is cropped around the
    landmarks on its own grid, so that images of other voxels than the first show the same place.

    Args:
        keys: images.
        point_keys: landmarks. The crop is centred on those of the first key; in voxel space all of them are moved.
        spatial_size: of the crop in voxels.
        size_mm: of the crop in millimetres; give one of these three.
        margin_mm: instead of a size, crop to the box of the landmarks and this much on every side.
        landmarks: which landmarks, by name (with ``names``) or index; None takes all that are there.
        names: the names of the points' rows.
        center: ``"box"`` or ``"mean"``.
        missing: ``"error"`` or ``"center"``.
        point_space: ``"world"``, or ``"voxel"`` for indices of the first image of ``keys``.
        mode: ``"constant"`` or ``"edge"``, one for all keys or one per key.
        value: the constant, one for all keys or one per key.
        allow_missing_keys: whether an item may lack one of ``keys``.

    Example:
        >>> item = {"image": MetaTensor(torch.rand(1, 40, 30, 20)), "coarse": torch.tensor([[1.0, 8.0, 9.0]])}
        >>> CropAroundLandmarksd("image", "coarse", spatial_size=16)(item)["image"].affine[:3, 3].tolist()
        [-7.0, 0.0, 1.0]
    """

    backend = CropAroundLandmarks.backend

    def __init__(
        self,
        keys: KeysCollection,
        point_keys: KeysCollection,
        spatial_size: int | Sequence[int] | None = None,
        size_mm: float | Sequence[float] | None = None,
        margin_mm: float | None = None,
        landmarks: str | int | Sequence[str | int] | None = None,
        names: Sequence[str] | None = None,
        center: str = "box",
        missing: str = "error",
        point_space: str = "world",
        mode: str | Sequence[str] = "constant",
        value: float | Sequence[float] = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.point_keys = ensure_tuple(point_keys)
        fills = zip(ensure_tuple_rep(mode, len(self.keys)), ensure_tuple_rep(value, len(self.keys)), strict=True)
        sizes: dict[str, Any] = {"spatial_size": spatial_size, "size_mm": size_mm, "margin_mm": margin_mm}
        self.croppers = [
            CropAroundLandmarks(
                **sizes,
                landmarks=landmarks,
                names=names,
                center=center,
                missing=missing,
                point_space=point_space,
                mode=m,
                value=v,
            )
            for m, v in fills
        ]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        points = as_points(look_up_reference(d, self.point_keys[0], "point_keys"))
        first, first_origin = None, None
        for key, cropper in self.key_iterator(d, self.croppers):
            img = d[key]
            voxels = to_voxels(img, points, cropper.point_space)
            if cropper.point_space == "world":
                check_went_along(img, self.point_keys[0])
            elif first is not None:
                voxels = _same_places(points, first, img)
            origin, size = cropper.window(img, voxels)
            d[key] = cropper.cut(img, origin, size, cropper.mode, cropper.value)
            if first is None:
                first, first_origin = img, origin
        return self._move_points(d, first_origin, -1)

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Put the crops back in their places, and voxel points with them."""
        d = dict(data)
        first_origin = None
        for key, cropper in self.key_iterator(d, self.croppers):
            if first_origin is None:
                first_origin = cropper.get_most_recent_transform(d[key])[TraceKeys.EXTRA_INFO]["origin"]
            d[key] = cropper.inverse(d[key])
        return self._move_points(d, first_origin, 1)

    def _move_points(self, d: dict[Hashable, Any], origin: Sequence[int] | None, sign: int) -> dict[Hashable, Any]:
        if self.croppers[0].point_space == "voxel" and origin is not None:
            for key in self.point_keys:
                if sign < 0 or key in d:
                    d[key] = move(as_points(look_up_reference(d, key, "point_keys")), origin, sign)
        return d


def _same_places(voxels: torch.Tensor, first: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return voxel indices of the image ``first`` as voxel indices of ``other``."""
    if isinstance(first, MetaTensor) and isinstance(other, MetaTensor):
        world = apply_affine(voxels, reference_affine(first, first.ndim - 1))
        return apply_affine(world, invert_affine(reference_affine(other, other.ndim - 1)))
    if first.shape[1:] != other.shape[1:]:
        raise LandmarkError(
            f"the images under `keys` have shapes {tuple(first.shape)} and {tuple(other.shape)} and no affines: voxel "
            "indices of the first say nothing of the second. Load them with LoadImaged, or crop one at a time."
        )
    return voxels


CropAroundLandmarksD = CropAroundLandmarksDict = CropAroundLandmarksd
