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
"""Landmarks between world millimetres and the voxel indices of an image, as it is after all its transforms."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import MetaKeys, TransformBackends, ensure_tuple_rep

from ..geometry import (
    LandmarkError,
    affine_nd,
    apply_affine,
    check_not_deformed,
    check_points,
    deformed_with,
    image_affine,
    invert_affine,
    world_from_space,
)

__all__ = [
    "LandmarksImageToWorld",
    "LandmarksImageToWorldD",
    "LandmarksImageToWorldDict",
    "LandmarksImageToWorldd",
    "LandmarksWorldToImage",
    "LandmarksWorldToImageD",
    "LandmarksWorldToImageDict",
    "LandmarksWorldToImaged",
    "as_points",
    "reference_affine",
]

#: Where landmarks may be: world millimetres, or indices of the image.
POINT_SPACES = ("world", "voxel")
#: Meta data of an image: which points were converted by it, and into what.
CONVERTED = "converted_points"


def as_points(points: Any, name: str = "points") -> torch.Tensor:
    """Return landmarks as a plain floating point tensor ``(..., N, D)``, without the meta information it came with.

    A network's output inherits the meta information of the image, affine included; on points it means nothing.

    Args:
        points: tensor, MetaTensor, array or nested list. Integers become float64.
        name: what an error message calls it.

    Raises:
        LandmarkError: if it is a path or not numbers, or breaks the rules for points.
    """
    if isinstance(points, (str, bytes)) or hasattr(points, "__fspath__"):
        raise LandmarkError(
            f"`{name}` is the path {str(points)!r}, not yet points: put LoadLandmarksd before this transform."
        )
    if hasattr(points, "to_tensor"):
        points = points.to_tensor()
    if not isinstance(points, torch.Tensor):
        try:
            points = torch.as_tensor(np.require(points, requirements="W"))
        except (TypeError, ValueError) as error:
            raise LandmarkError(
                f"`{name}` must be numbers of shape (..., N, D), got {type(points).__name__}."
            ) from error
    plain = points.as_tensor() if isinstance(points, MetaTensor) else points
    plain = plain if plain.is_floating_point() else plain.to(torch.float64)
    check_points(plain, name=name)
    return plain


def reference_affine(reference: Any, spatial_dims: int) -> torch.Tensor:
    """Return the map from a reference's voxel indices to this package's world.

    The world is RAS millimetres in 3D: an image that says LPS (``ITKReader(affine_lps_to_ras=False)``) has the signs of
    its first two world axes changed. In 2D it is the film plane (x right, y down: ITK's plane) and the affine is taken
    as it is, because MONAI writes "RAS" on every image that says nothing; a 2D image that really is RAS (``ITKReader``
    without ``affine_lps_to_ras=False``) has its film plane upside down.

    Args:
        reference: a channel-first MetaTensor ``(C, *S)``, a collated batch of them ``(B, C, *S)``, or bare affines
            ``(3 or 4, 3 or 4)`` or ``(B, ., .)``.
        spatial_dims: dimension of the points, 2 or 3.

    Returns:
        float64 tensor ``(D + 1, D + 1)``, or ``(B, D + 1, D + 1)`` for a batch.

    Raises:
        LandmarkError: if the reference has another dimension than the points, no affine, a singular one, or lazy
            operations that wait to be applied.
    """
    if not isinstance(reference, MetaTensor):
        return _bare_affine(reference, spatial_dims)
    batched = reference.affine.ndim == 3
    dims = reference.ndim - 1 - int(batched)
    if dims not in (2, 3):
        raise LandmarkError(
            "the reference image must be channel-first (C, *S) with one affine, or a collated batch of such, got "
            f"shape {tuple(reference.shape)} and affine {tuple(reference.affine.shape)}: add the channel with "
            "EnsureChannelFirstd; index a batch to get one image."
        )
    if dims != spatial_dims:
        raise LandmarkError(
            f"{spatial_dims}D points for a {dims}D image of shape {tuple(reference.shape)}: is it the right point file?"
        )
    if not batched:
        return image_affine(reference)
    if reference.pending_operations:
        image_affine(reference)  # raises
    spaces = reference.meta.get(MetaKeys.SPACE)
    spaces = ensure_tuple_rep(spaces, len(reference)) if spaces is None or isinstance(spaces, str) else spaces
    each = [world_from_space(affine_nd(a, dims), s) for a, s in zip(reference.affine, spaces, strict=True)]
    return torch.stack(each)


def _bare_affine(reference: Any, spatial_dims: int) -> torch.Tensor:
    shape = tuple(getattr(reference, "shape", ())) or np.shape(reference)
    if len(shape) not in (2, 3) or shape[-1] != shape[-2] or shape[-1] not in (3, 4):
        image_affine(reference)  # raises with what an image without affine means
    if shape[-1] <= spatial_dims:
        raise LandmarkError(f"{spatial_dims}D points need a {spatial_dims + 1}x{spatial_dims + 1} affine, got {shape}.")
    if len(shape) == 2:
        return affine_nd(reference, spatial_dims)
    return torch.stack([affine_nd(matrix, spatial_dims) for matrix in reference])


def _check_pairing(points: torch.Tensor, affine: torch.Tensor) -> None:
    """A batch of affines on one set of points would broadcast to points of every image in every other's frame."""
    if affine.ndim == 3 and (points.ndim != 3 or points.shape[0] != affine.shape[0]):
        raise LandmarkError(
            f"the reference is a batch of {affine.shape[0]} images and needs points ({affine.shape[0]}, N, D), got "
            f"{tuple(points.shape)}: give the batch's points, or one image after decollation."
        )


def check_went_along(reference: Any, key: Hashable) -> None:
    """Refuse world points that did not go through the elastic deformation of the image whose voxels are asked for."""
    followed = deformed_with(reference)
    if followed is not None and str(key) not in followed:
        raise LandmarkError(
            f"the image was deformed elastically with the points under {list(followed)}, those under {key!r} did not go "
            f"along and would land beside the anatomy: name {key!r} among the `point_keys` of the transform that deforms, "
            "or copy the points after it."
        )


def _note_conversion(reference: Any, key: Hashable, output_key: Hashable, space: str) -> Any:
    """Return ``reference`` with a note that ``output_key`` now holds points in ``space``; refuse a second conversion."""
    if not isinstance(reference, MetaTensor) or not isinstance(reference.meta.get(CONVERTED, ""), str):
        return reference
    known = dict(entry.split("=") for entry in reference.meta.get(CONVERTED, "").split(";") if entry)
    if known.get(str(key)) == space:
        raise LandmarkError(
            f"the points under {key!r} are converted to {space} twice: an earlier transform did it already. Take one of the "
            "two out, or let the first write elsewhere with `output_keys`."
        )
    known[str(output_key)] = space
    meta = {**reference.meta, CONVERTED: ";".join(f"{k}={v}" for k, v in known.items())}
    return MetaTensor(reference.as_tensor(), meta=meta, applied_operations=reference.applied_operations)


class LandmarksWorldToImage(Transform):
    """Turn landmarks in world millimetres into voxel indices of an image: ``index = affine^-1 @ world``.

    Put it after the last transform of the image: the image's affine then knows every crop, resampling, flip and
    rotation, and the points follow all of them at once, exactly. Whatever meta information the points carry is ignored.
    Different from ``monai.transforms.ApplyTransformToPoints``, which takes points that inherited an image's affine as
    voxels already and stops at a 3x3 affine. For an image that was deformed elastically, the points must have gone along;
    the dictionary version checks it.

    Args:
        dtype: of the result.

    Shapes: points ``(N, D)`` with an image ``(C, *S)``; ``(B, N, D)`` with a collated batch ``(B, C, *S)``.

    Example:
        >>> image = MetaTensor(torch.zeros(1, 8, 8), affine=torch.diag(torch.tensor([0.5, 0.5, 1.0])))
        >>> LandmarksWorldToImage()([[1.0, 2.0], [float("nan"), float("nan")]], image)
        tensor([[2., 4.], [nan, nan]])
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype

    def __call__(self, points: Any, reference: Any) -> torch.Tensor:  # type: ignore[override]
        """Turn ``points`` into voxel indices.

        Args:
            points: world millimetres, NaN for a missing landmark.
            reference: the image, or its affine.

        Returns:
            a plain tensor of the shape of ``points``.

        Raises:
            LandmarkError: see :func:`as_points` and :func:`reference_affine`.
        """
        plain = as_points(points)
        affine = reference_affine(reference, plain.shape[-1])
        _check_pairing(plain, affine)
        return apply_affine(plain, invert_affine(affine)).to(self.dtype)


class LandmarksImageToWorld(Transform):
    """Turn voxel indices of an image into world millimetres: ``world = affine @ index``.

    The image is the one whose voxels the indices count, with all its transforms: predictions on a resampled and
    cropped image return to the patient's or film's own millimetres, and no transform has to be inverted.

    Args:
        dtype: of the result.

    Shapes: points ``(N, D)`` with an image ``(C, *S)``; ``(B, N, D)`` with a collated batch ``(B, C, *S)``.

    Example:
        >>> image = MetaTensor(torch.zeros(1, 8, 8), affine=torch.diag(torch.tensor([0.5, 0.5, 1.0])))
        >>> LandmarksImageToWorld()([[2, 4]], image)
        tensor([[1., 2.]], dtype=torch.float64)
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        self.dtype = dtype

    def __call__(self, points: Any, reference: Any) -> torch.Tensor:  # type: ignore[override]
        """Turn ``points`` into world millimetres.

        Args:
            points: voxel indices, NaN for a missing landmark.
            reference: the image, or its affine.

        Returns:
            a plain tensor of the shape of ``points``.

        Raises:
            LandmarkError: see :func:`as_points` and :func:`reference_affine`; and for an image that was deformed, whose
                affine does not lead to the patient's millimetres.
        """
        plain = as_points(points)
        check_not_deformed(reference, "turning its voxels into millimetres")
        affine = reference_affine(reference, plain.shape[-1])
        _check_pairing(plain, affine)
        return apply_affine(plain, affine).to(self.dtype)


class _LandmarksByReferenced(MapTransform):
    """What the two dictionary transforms share: a reference and an output key for every key."""

    converter: LandmarksWorldToImage | LandmarksImageToWorld
    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        keys: KeysCollection,
        refer_keys: KeysCollection,
        output_keys: KeysCollection | None,
        allow_missing_keys: bool,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.refer_keys = repeat_keys(refer_keys, self.keys, "refer_keys")
        self.output_keys = self.keys if output_keys is None else repeat_keys(output_keys, self.keys, "output_keys")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key, refer_key, output_key in self.key_iterator(d, self.refer_keys, self.output_keys):
            reference = look_up_reference(d, refer_key, "refer_keys")
            to_voxels = isinstance(self.converter, LandmarksWorldToImage)
            if to_voxels:
                check_went_along(reference, key)
            noted = _note_conversion(reference, key, output_key, "voxels" if to_voxels else "millimetres")
            d[output_key] = self.converter(d[key], reference)
            d[refer_key] = noted
        return d


def repeat_keys(values: Any, keys: Sequence[Hashable], name: str) -> tuple[Any, ...]:
    """Return one of ``values`` per key: a single one serves all.

    Args:
        values: one key or as many as ``keys``.
        keys: the keys of the transform.
        name: of the argument, for the message.

    Raises:
        ValueError: for another number.
    """
    several = (values,) if isinstance(values, (str, int)) or values is None else tuple(values)
    if len(several) not in (1, len(keys)):
        raise ValueError(f"{name} must be one key or one for each of {list(keys)}, got {list(several)}.")
    return several if len(several) == len(keys) else several * len(keys)


def look_up_reference(data: Mapping[Hashable, Any], key: Hashable, name: str) -> Any:
    """Return ``data[key]``.

    Args:
        data: the item.
        key: the key asked for.
        name: the argument that named it.

    Raises:
        LandmarkError: naming what the item has instead.
    """
    if key not in data:
        raise LandmarkError(f"{name} names {key!r}, which is not in the item; it has {sorted(map(str, data))}.")
    return data[key]


class LandmarksWorldToImaged(_LandmarksByReferenced):
    """Turn landmarks under ``keys`` into voxel indices of the image under ``refer_keys``.

    Dictionary version of :class:`LandmarksWorldToImage`. Inside a lazy ``Compose`` MONAI applies what waits on the
    image first; elsewhere an image with operations that wait is an error. ``PersistentDataset`` and its kin need
    ``track_meta=True``: by default they cache images without affine, and MONAI's next transform gives those the
    identity.

    Args:
        keys: points in world millimetres.
        refer_keys: the image whose voxels are wanted: one key, or one per key.
        output_keys: where the result goes; None replaces the input. Keep the world points for the metric by naming one.
        dtype: of the result.
        allow_missing_keys: whether an item may lack one of ``keys``.

    Example:
        >>> image = MetaTensor(torch.zeros(1, 8, 8), affine=torch.diag(torch.tensor([0.5, 0.5, 1.0])))
        >>> to_voxels = LandmarksWorldToImaged("landmarks", "image", output_keys="points")
        >>> to_voxels({"image": image, "landmarks": np.array([[1.0, 2.0]])})["points"]
        tensor([[2., 4.]])
    """

    def __init__(
        self,
        keys: KeysCollection,
        refer_keys: KeysCollection,
        output_keys: KeysCollection | None = None,
        dtype: torch.dtype = torch.float32,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, refer_keys, output_keys, allow_missing_keys)
        self.converter = LandmarksWorldToImage(dtype)


class LandmarksImageToWorldd(_LandmarksByReferenced):
    """Turn voxel indices under ``keys`` into world millimetres by the image under ``refer_keys``.

    Dictionary version of :class:`LandmarksImageToWorld`; works on items after decollation and on collated batches.

    Args:
        keys: points in voxel indices.
        refer_keys: the image whose voxels they count: one key, or one per key.
        output_keys: where the result goes; None replaces the input.
        dtype: of the result.
        allow_missing_keys: whether an item may lack one of ``keys``.

    Example:
        >>> image = MetaTensor(torch.zeros(1, 8, 8), affine=torch.diag(torch.tensor([0.5, 0.5, 1.0])))
        >>> LandmarksImageToWorldd("pred", "image")({"image": image, "pred": torch.tensor([[2.0, 4.0]])})["pred"]
        tensor([[1., 2.]], dtype=torch.float64)
    """

    def __init__(
        self,
        keys: KeysCollection,
        refer_keys: KeysCollection,
        output_keys: KeysCollection | None = None,
        dtype: torch.dtype = torch.float64,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, refer_keys, output_keys, allow_missing_keys)
        self.converter = LandmarksImageToWorld(dtype)


LandmarksWorldToImageD = LandmarksWorldToImageDict = LandmarksWorldToImaged
LandmarksImageToWorldD = LandmarksImageToWorldDict = LandmarksImageToWorldd
