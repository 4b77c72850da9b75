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
"""Augmentation for whole batches, on the device where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Randomizable
from monai.utils import get_seed

from ...geometry import LandmarkError, affine_nd, check_points, plain_tensor, resample, smooth, voxel_sizes
from .apply import antialiasing_width, shrinkage
from .ranges import SpatialRanges

__all__ = ["BatchedSpatialAugmentation", "batched_augmentation"]

BatchTransform = Callable[..., tuple[torch.Tensor, torch.Tensor | None]]


def batched_augmentation(transforms: Iterable[Any]) -> list[BatchTransform]:
    """Return the forms for whole batches of a loader's augmentation, in the same order.

    Args:
        transforms: random transforms that have one (a method ``batched``): :class:`RandSpatialLandmarksd`,
            :class:`RandShiftScaleIntensityd`.

    Raises:
        LandmarkError: for a transform without one.

    Example:
        >>> from monai_landmarks.transforms import RandShiftScaleIntensityd, RandSpatialLandmarksd
        >>> augment = [RandSpatialLandmarksd("image", rotate_range=0.1), RandShiftScaleIntensityd("image")]
        >>> [type(form).__name__ for form in batched_augmentation(augment)]
        ['BatchedSpatialAugmentation', 'BatchedShiftScaleIntensity']
    """
    forms = []
    for transform in transforms:
        if not hasattr(transform, "batched"):
            raise LandmarkError(
                f"{type(transform).__name__} has no form for batches on the device: leave it out of the augmentation, or "
                "augment in the loader (augment_on_device false)."
            )
        forms.append(transform.batched())
    return forms


class BatchedSpatialAugmentation(Randomizable):
    """Augment a batch of images and their voxel points on the device: :class:`RandSpatialLandmarks`, many at a time.

    The same function draws the maps: from the same random state, the first image of a batch of one gets the map that
    :class:`RandSpatialLandmarks` would give it. Every image of a batch gets its own. Sampling positions and images are
    computed on the device. The maps' numbers are drawn on the host (a few hundred bytes per image) and the points, as few,
    are carried there too: Newton's steps on a handful of points are launches without work for a GPU.

    Make it from the loader's transform, :meth:`RandSpatialLandmarks.batched`, and give it to
    :class:`monai_landmarks.engines.PrepareLandmarkBatch` as ``augment``.

    Args:
        ranges: what is drawn.
        mode: interpolation, "nearest", "linear" or "cubic".
        padding_mode: "zeros", "border" or "reflection".
        fill: value beyond the image for "zeros".
        antialias: smooth images that are read on a coarser grid; they need one voxel size in the batch.
        exchange: ``(N,)`` order of the landmarks of a mirrored image.

    Example:
        >>> augment = BatchedSpatialAugmentation(SpatialRanges(spatial_size=(6, 6), rotate_range=0.2))
        >>> images, points = augment(torch.zeros(4, 1, 8, 8), torch.ones(4, 3, 2))
        >>> images.shape, points.shape
        (torch.Size([4, 1, 6, 6]), torch.Size([4, 3, 2]))
    """

    def __init__(
        self,
        ranges: SpatialRanges,
        mode: str = "linear",
        padding_mode: str = "zeros",
        fill: float = 0.0,
        antialias: bool = True,
        exchange: torch.Tensor | None = None,
    ) -> None:
        self.ranges, self.mode, self.padding_mode, self.fill = ranges, mode, padding_mode, fill
        self.antialias, self.exchange = antialias, exchange
        self.set_random_state(seed=get_seed())

    def __call__(
        self, images: torch.Tensor, points: torch.Tensor | None = None, sizes: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the augmented batch.

        Args:
            images: ``(B, C, *S)``; a collated MetaTensor gives its voxel sizes itself.
            points: ``(B, N, D)`` voxel indices, NaN for missing; None if there are none.
            sizes: ``(B, D)`` voxel sizes in mm; 1 where neither they nor an affine are there.

        Returns:
            plain tensors ``(B, C, *spatial_size)`` and ``(B, N, D)``, on the devices of the given ones.

        Raises:
            LandmarkError: if shapes do not fit, or voxel sizes differ where smoothing needs one.
        """
        dims = images.ndim - 2
        if dims not in (2, 3):
            raise LandmarkError(f"a batch (B, C, *S) of 2D or 3D images is needed, got shape {tuple(images.shape)}.")
        sizes = batch_voxel_sizes(images) if sizes is None else sizes.double().cpu()
        drawn = self.ranges.draw(self.R, len(images), images.shape[2:], sizes)
        voxels = plain_tensor(images)
        if self.antialias and self.mode != "nearest":
            voxels = self._smoothed(voxels, drawn.pixdim, sizes)
        result = resample(voxels, drawn.maps, self.mode, self.padding_mode, self.fill)
        if points is None:
            return result, None
        plain = plain_tensor(points)
        check_points(plain, dims)
        if plain.ndim != 3 or len(plain) != len(images):
            raise LandmarkError(f"points must be ({len(images)}, N, {dims}) for the batch, got {tuple(plain.shape)}.")
        moved = drawn.maps.to_output(plain.cpu())
        if self.exchange is not None:
            moved = torch.where(drawn.mirrored.reshape(-1, 1, 1), moved[:, self.exchange], moved)
        return result, moved.to(plain.device)

    def randomize(self, data: Any = None) -> None:
        """Nothing is kept between calls: each draws its own maps."""

    @staticmethod
    def _smoothed(voxels: torch.Tensor, pixdim: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
        ratio = pixdim / sizes
        if not torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=1e-3):
            raise LandmarkError(
                f"the images of the batch have different voxel sizes ({sizes.tolist()} mm), so that one smoothing does "
                "not fit all: bring them to one voxel size in the loader, or use antialias=False."
            )
        identity = torch.eye(pixdim.shape[1] + 1, dtype=torch.float64)
        return smooth(voxels, antialiasing_width(shrinkage(identity, pixdim[0], sizes[0])))


def batch_voxel_sizes(images: torch.Tensor) -> torch.Tensor:
    """Give the voxel sizes ``(B, D)`` of images ``(B, C, *S)`` by their affines, 1 where they carry none."""
    dims = images.ndim - 2
    if not isinstance(images, MetaTensor):
        return torch.ones(len(images), dims, dtype=torch.float64)
    affine = images.affine if images.affine.ndim == 3 else images.affine.expand(len(images), -1, -1)
    return torch.stack([voxel_sizes(affine_nd(a, dims)) for a in affine])
