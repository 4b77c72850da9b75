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
"""Transforms that tell whether landmarks are in the image, outside, or missing, and the same as words for files."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import MetaKeys, TransformBackends, look_up_option

from ..geometry import (
    FieldOfView,
    LandmarkError,
    apply_affine,
    check_not_deformed,
    check_state,
    field_of_view,
    invert_affine,
    present,
)
from .heatmap import output_keys_for
from .io import file_affine, file_shape
from .spatial import POINT_SPACES, as_points, check_went_along, look_up_reference, reference_affine, repeat_keys

__all__ = [
    "LandmarkFieldOfView",
    "LandmarkFieldOfViewD",
    "LandmarkFieldOfViewDict",
    "LandmarkFieldOfViewd",
]


class LandmarkFieldOfView(Transform):
    """Tell of each landmark whether it is in the image (2), outside (1) or missing (0).

    Inside ends at the outer edge of the border voxels, ``-0.5 <= index <= size - 0.5``. The numbers are those of
    :class:`~monai_landmarks.geometry.field_of_view.FieldOfView`.

    Args:
        point_space: ``"world"`` (millimetres) or ``"voxel"`` (indices of the image).

    Raises:
        ValueError: for another space.

    Shapes: points ``(N, D)`` and an image ``(C, *S)`` give ``(N,)``; a batch ``(B, N, D)`` and ``(B, C, *S)`` give
    ``(B, N)``.

    Example:
        >>> image = MetaTensor(torch.zeros(1, 8, 8), affine=torch.diag(torch.tensor([0.5, 0.5, 1.0])))
        >>> LandmarkFieldOfView()([[1.0, 2.0], [1.0, 5.0], [float("nan"), float("nan")]], image)
        tensor([2, 1, 0], dtype=torch.uint8)
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, point_space: str = "world") -> None:
        self.point_space = look_up_option(point_space, POINT_SPACES)

    def __call__(self, points: Any, reference: Any) -> torch.Tensor:  # type: ignore[override]
        """Look the points up in an image.

        Args:
            points: ``(N, D)`` or ``(B, N, D)``, NaN for missing.
            reference: the image as it is now, with all its crops and flips. Voxel indices need its shape alone, world
                points its affine too.

        Returns:
            a plain uint8 tensor.

        Raises:
            LandmarkError: if points and image do not fit, or the image has no true affine.
        """
        plain = as_points(points)
        dims = plain.shape[-1]
        if plain.ndim not in (2, 3) or getattr(reference, "ndim", 0) != dims + plain.ndim - 1:
            raise LandmarkError(
                "points (N, D) and a channel-first image (C, *S), or a batch of both, are needed, got points "
                f"{tuple(plain.shape)} and image {tuple(getattr(reference, 'shape', ()))}: {dims}D points have an image "
                f"with {dims} spatial axes."
            )
        if self.point_space == "world":
            plain = apply_affine(plain, invert_affine(reference_affine(reference, dims)))
        return field_of_view(plain, tuple(reference.shape[-dims:]))


class LandmarkFieldOfViewd(MapTransform):
    """Write beside the landmarks under ``keys`` whether each is in the image, outside, or missing.

    Dictionary version of :class:`LandmarkFieldOfView`. Put it after the last transform that crops or moves the image. The
    result has one number per landmark in every item, so it collates; give it to metrics and writers as ``state``. The
    losses of this package need none, they see the voxel points and the maps' size.

    Args:
        keys: points ``(N, D)``.
        refer_keys: the image: one key, or one per key.
        output_keys: where the uint8 tensor ``(N,)`` goes: one key per key. None appends ``_state``:
            ``"landmarks_state"``.
        point_space: ``"world"`` (millimetres) or ``"voxel"`` (indices of the image).
        allow_missing_keys: whether an item may lack one of ``keys``.

    Example:
        >>> image = MetaTensor(torch.zeros(1, 8, 8), affine=torch.eye(3))
        >>> item = LandmarkFieldOfViewd("landmarks", "image")({"image": image, "landmarks": [[9.0, 2.0], [7.5, 0.0]]})
        >>> item["landmarks_state"]
        tensor([1, 2], dtype=torch.uint8)
    """

    backend = LandmarkFieldOfView.backend

    def __init__(
        self,
        keys: KeysCollection,
        refer_keys: KeysCollection,
        output_keys: KeysCollection | None = None,
        point_space: str = "world",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.refer_keys = repeat_keys(refer_keys, self.keys, "refer_keys")
        names = [f"{key}_state" for key in self.keys] if output_keys is None else output_keys
        self.output_keys = output_keys_for(names, self.keys, "output_keys")
        self.finder = LandmarkFieldOfView(point_space)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key, refer_key, output_key in self.key_iterator(d, self.refer_keys, self.output_keys):
            image = look_up_reference(d, refer_key, "refer_keys")
            if self.finder.point_space == "world":
                check_went_along(image, key)
            d[output_key] = self.finder(d[key], image)
        return d


def state_in_file(points: Any, image: Any) -> torch.Tensor | None:
    """Tell of world points whether they are in the image file that an image came from.

    A file of landmarks is about the image's file and not about what preprocessing left of it: a true landmark beside the
    network's crop is in the film, and one predicted in the padding is not. An image that does not know its file's grid is
    taken as it is.

    Args:
        points: ``(N, D)`` world millimetres, NaN for missing.
        image: channel-first MetaTensor, or anything else.

    Returns:
        uint8 tensor ``(N,)``; None where the image cannot tell, having no affine or another dimension.

    Raises:
        LandmarkError: for an image that was deformed elastically, whose points have no place in the file.
    """
    plain = as_points(points).detach().cpu()
    if not isinstance(image, MetaTensor) or plain.ndim != 2 or image.ndim != plain.shape[-1] + 1:
        return None
    check_not_deformed(image, "writing millimetres")
    shape = file_shape(image)
    if shape is None or image.meta.get(MetaKeys.ORIGINAL_AFFINE) is None:
        return LandmarkFieldOfView()(plain, image)
    affine = file_affine(image)
    return None if affine is None else field_of_view(apply_affine(plain, invert_affine(affine)), shape)


def status_words(points: torch.Tensor, state: Any, word: str = "defined") -> tuple[str, ...]:
    """Put the states of one image's landmarks into the words of :class:`~monai_landmarks.data.Landmarks`.

    Args:
        points: ``(N, D)``, NaN for missing.
        state: ``(N,)`` of :class:`~monai_landmarks.geometry.field_of_view.FieldOfView`, or None where it is not known.
        word: for landmarks inside, ``"defined"`` or ``"preview"``.

    Returns:
        N words.

    Raises:
        LandmarkError: for states that are not those of these points.
    """
    words = ("missing", "outside", word)
    numbers = present(points) * FieldOfView.INSIDE if state is None else check_state(state, points)
    return tuple(words[number] for number in numbers.tolist())


LandmarkFieldOfViewD = LandmarkFieldOfViewDict = LandmarkFieldOfViewd
