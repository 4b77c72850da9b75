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
"""Loading landmarks from files, arrays or value objects, and saving them."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import is_no_channel
from monai.transforms import MapTransform, Transform
from monai.utils import MetaKeys, TransformBackends, look_up_option

from ..data import Landmarks, read_landmarks
from ..geometry import (
    LandmarkError,
    affine_nd,
    apply_affine,
    check_points,
    explain_points,
    inside,
    invert_affine,
    present,
    world_from_space,
)
from .spatial import as_points, look_up_reference, reference_affine

__all__ = [
    "LoadLandmarks",
    "LoadLandmarksD",
    "LoadLandmarksDict",
    "LoadLandmarksd",
]

_SPACES = ("RAS", "LPS", "voxel")
_TOLERATED_OUTSIDE = 0.25


class LoadLandmarks(Transform):
    """Load landmarks as a plain tensor ``(N, D)`` in world millimetres (RAS in 3D, film plane in 2D), NaN for missing.

    Takes a path (any format of :func:`monai_landmarks.data.read_landmarks`), a ``Landmarks`` object, or an array.

    Args:
        names: the landmarks wanted, in this order; files are matched by name. Without names the order of every file is
            trusted as it is.
        space: what the numbers are: ``"RAS"``, ``"LPS"`` or ``"voxel"`` (counted from 0). None takes the file's word,
            and arrays as world millimetres.
        format: of the files; None finds it by suffix and content.
        dtype: of the result.
        read_options: further options of ``read_landmarks``.

    Example:
        >>> LoadLandmarks(names=["sella", "nasion"])([[1.0, 2.0], [float("nan"), float("nan")]])
        tensor([[1., 2.],
                [nan, nan]], dtype=torch.float64)
        >>> LoadLandmarks(space="LPS")([[1.0, 2.0, 3.0]])
        tensor([[-1., -2.,  3.]], dtype=torch.float64)
    """

    backend = [TransformBackends.NUMPY, TransformBackends.TORCH]

    def __init__(
        self,
        names: Sequence[str] | None = None,
        space: str | None = None,
        format: str | None = None,  # noqa: A002 - the name read_landmarks has
        dtype: torch.dtype = torch.float64,
        **read_options: Any,
    ) -> None:
        if isinstance(names, str):
            raise ValueError(f"names must be a sequence of landmark names, got the text {names!r}.")
        self.names = None if names is None else tuple(names)
        self.space = space
        self.format = format
        self.dtype = dtype
        self.read_options = read_options

    def __call__(self, value: Any, image: Any = None, case: str | None = None) -> torch.Tensor:
        """Load one set of landmarks.

        Args:
            value: path, ``Landmarks``, or numbers ``(N, D)``.
            image: the image the landmarks belong to, a channel-first MetaTensor, or None. It gives the dimension, and
                the affine for numbers that are voxels of the image's file.
            case: which case to take from a file that holds several.

        Returns:
            a plain tensor ``(N, D)``.

        Raises:
            FileNotFoundError: there is no such file.
            LandmarkError: for the wrong number, names or dimension of landmarks, or numbers that cannot be right.
        """
        if isinstance(value, (str, os.PathLike)):
            points = self._read(Path(value).expanduser(), image, case).to_tensor()
        elif isinstance(value, Landmarks):
            points = (value if self.names is None else value.reorder(self.names)).to_tensor()
        else:
            points = _array_to_world(value, self.space, None if image is None else file_affine(image))
        self._check(points, None if image is None else _spatial_dims(image))
        return points.to(self.dtype)

    def _read(self, path: Path, image: Any, case: str | None) -> Landmarks:
        options: dict[str, Any] = {"format": self.format, "names": self.names, "space": self.space, "case": case}
        if image is not None:
            options["spatial_dims"] = _spatial_dims(image)
            # A pixel size given by the user stands for the affine.
            options["affine"] = None if "pixel_size" in self.read_options else file_affine(image)
            options["spatial_shape"] = file_shape(image)
        return read_landmarks(path, **{**options, **self.read_options})

    def _check(self, points: torch.Tensor, dims: int | None) -> None:
        if points.ndim != 2:
            raise LandmarkError(f"landmarks of one image must have shape (N, D), got {tuple(points.shape)}.")
        check_points(points, dims, name="landmarks")
        if self.names is not None and len(points) != len(self.names):
            raise LandmarkError(
                f"{len(points)} points for {len(self.names)} names: every name needs one row, a missing landmark "
                "being a row of NaN."
            )


def _spatial_dims(image: Any) -> int:
    """Return the dimension of a channel-first image, and say so if the channel seems to be absent."""
    dims = image.ndim - 1
    meta = getattr(image, "meta", {})
    stored = meta.get(MetaKeys.SPATIAL_SHAPE)
    unmarked = is_no_channel(meta.get(MetaKeys.ORIGINAL_CHANNEL_DIM, 0))
    no_channel = unmarked and stored is not None and len(stored) == image.ndim
    if dims not in (2, 3) or no_channel:
        raise LandmarkError(
            f"the image must be channel-first (C, *S), got shape {tuple(image.shape)}: load it with "
            "ensure_channel_first=True."
        )
    return int(dims)


def file_shape(image: Any) -> tuple[int, ...] | None:
    """Return the size of the grid in the image's file, where its loader noted it."""
    shape = getattr(image, "meta", {}).get(MetaKeys.SPATIAL_SHAPE)
    if shape is None or len(shape) != _spatial_dims(image):
        return None
    return tuple(int(size) for size in shape)


def file_affine(image: Any) -> torch.Tensor | None:
    """Return the affine of the grid in the image's file, whatever transforms it has seen since."""
    if not isinstance(image, MetaTensor):
        return None
    dims = _spatial_dims(image)
    original = image.meta.get(MetaKeys.ORIGINAL_AFFINE)
    if original is None:
        return reference_affine(image, dims)
    return world_from_space(affine_nd(np.asarray(original), dims), image.meta.get(MetaKeys.SPACE))


def _array_to_world(value: Any, space: str | None, affine: torch.Tensor | None) -> torch.Tensor:
    points = as_points(value, "landmarks").detach().cpu().to(torch.float64).clone()
    if space is None:
        return points
    space = look_up_option(space, _SPACES)
    if space == "voxel":
        if affine is None:
            raise LandmarkError(
                "space='voxel' needs the image: give image_key (or image=) so that its affine is known."
            )
        check_points(points, affine.shape[-1] - 1, name="landmarks")
        return apply_affine(points, affine)
    if space == ("LPS" if points.shape[-1] == 3 else "RAS"):
        points[..., :2] *= -1
    return points


def check_points_inside(points: torch.Tensor, image: Any, key: Hashable = "landmarks") -> None:
    """Raise if so many landmarks lie outside the image that axes, signs or units must be wrong.

    A few outside are right for a cropped scan; more than a quarter are not.

    Args:
        points: ``(N, D)`` world millimetres.
        image: channel-first MetaTensor.
        key: what the message calls the points.

    Raises:
        LandmarkError: with the share outside and the repair that would bring them in.
    """
    shape = tuple(image.shape[1:])
    to_voxel = invert_affine(reference_affine(image, len(shape)))
    voxels = apply_affine(points, to_voxel)
    there = present(points)
    if not bool(there.any()) or float((there & ~inside(voxels, shape)).sum() / there.sum()) <= _TOLERATED_OUTSIDE:
        return
    # The letters L and P are about millimetres; negated voxel indices would only fit an image centred on the origin.
    signs = torch.tensor([-1.0, -1.0, 1.0][: len(shape)], dtype=points.dtype)
    mirrored = apply_affine(points * signs, to_voxel)
    outside = int((there & ~inside(voxels, shape)).sum())
    if int((there & ~inside(mirrored, shape)).sum()) < 0.1 * outside:
        cause = (
            f"{outside} of {int(there.sum())} landmarks lie outside the image of shape {shape} and inside it after "
            "negating x and y: LPS millimetres were likely taken for RAS or the reverse; say space='LPS' (or 'RAS'), "
            "or for a 2D image read by ITKReader give that reader affine_lps_to_ras=False."
        )
    else:
        cause = str(explain_points(voxels, shape))
    raise LandmarkError(
        f"`{key}` does not fit the image. In its voxels: {cause} If the image is cropped on purpose, load the "
        "landmarks before the crop or give check_inside=False."
    )


class LoadLandmarksd(MapTransform):
    """Load the landmarks under ``keys`` as plain float64 tensors ``(N, D)`` in world millimetres, NaN for missing.

    Dictionary version of :class:`LoadLandmarks`. Put it right after the image loader: world millimetres need no care
    during the image's transforms, and :class:`LandmarksWorldToImaged` after the last of them makes voxels of them.

    Args:
        keys: paths, ``Landmarks`` objects or arrays.
        names: the landmarks wanted, in this order.
        space: what the numbers are, see :class:`LoadLandmarks`.
        format: of the files; None finds it by suffix and content.
        image_key: the image the landmarks belong to, already loaded and channel-first. It lets 2D and 3D be told apart,
            voxel coordinates be read, and landmarks that cannot belong to it be refused.
        case_key: where an item has the name of its case, for files that hold several cases.
        check_inside: with ``image_key``, refuse landmarks of which more than a quarter lie outside the image.
        dtype: of the result.
        allow_missing_keys: whether an item may lack one of ``keys``.
        read_options: further options of ``read_landmarks``.

    Example:
        >>> load = LoadLandmarksd("landmarks", names=["sella", "nasion"])
        >>> load({"landmarks": [[1.0, 2.0]]})
        Traceback (most recent call last):
        ...
        monai_landmarks.geometry.points.LandmarkError: 1 points for 2 names: every name needs one row, ...
    """

    backend = LoadLandmarks.backend

    def __init__(
        self,
        keys: KeysCollection,
        names: Sequence[str] | None = None,
        space: str | None = None,
        format: str | None = None,  # noqa: A002 - the name read_landmarks has
        image_key: str | None = None,
        case_key: str | None = None,
        check_inside: bool = True,
        dtype: torch.dtype = torch.float64,
        allow_missing_keys: bool = False,
        **read_options: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.loader = LoadLandmarks(names, space, format, dtype, **read_options)
        self.image_key = image_key
        self.case_key = case_key
        self.check_inside = check_inside

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        image = None if self.image_key is None else look_up_reference(d, self.image_key, "image_key")
        case = None if self.case_key is None else str(look_up_reference(d, self.case_key, "case_key"))
        for key in self.key_iterator(d):
            points = self.loader(d[key], image, case)
            if self.check_inside and isinstance(image, MetaTensor):
                check_points_inside(points.to(torch.float64), image, key)
            d[key] = points
        return d


LoadLandmarksD = LoadLandmarksDict = LoadLandmarksd
