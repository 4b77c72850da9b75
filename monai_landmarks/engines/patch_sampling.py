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
"""The task with which CC2D learns without labels: find the place in an image from which a changed patch was taken."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from monai.engines import PrepareBatch
from monai.transforms import Randomizable
from monai.utils import get_seed, look_up_option

from ..geometry import LandmarkError, SpatialMap, plain_tensor, resample
from ..geometry.resample import MODES
from ..geometry.windows import window_size
from ..transforms.spatial_augmentation.batched import batch_voxel_sizes
from ..transforms.spatial_augmentation.ranges import Range, SpatialRanges
from .prepare_batch import image_of_batch

__all__ = ["PreparePatchMatchingBatch", "draw_points", "jitter_colors", "place_patches"]

TWENTY_DEGREES = math.radians(20)


class PreparePatchMatchingBatch(PrepareBatch, Randomizable):
    """Cut a patch with a point from every image of a batch, turn and recolour it, and carry the point exactly.

    The self-supervised task of CC2D (Yao et al. 2021; CC2Dv2 2022, figure 1): the network gets the image and the patch
    with a point in it, and has to find the image's place that the point shows. Only the image is read from the batch: no
    label can leak into the training, because none is looked at.

    Place, turn and scale of a patch are one affine map, through which the image is read once; the map gives the point's
    place in the image in closed form. Places are uniform over the whole voxels at which the unturned patch lies in its
    image. Turns are about the patch's middle, and in millimetres where the images carry an affine. Points are uniform over
    the patch without its margins; one that a turn has carried out of the image is drawn towards the patch's middle until it
    lies on the image's outermost voxels.

    What is said here is drawn afresh for each image, all of it from one random state: the batch is worked on as a whole,
    on the device.

    The defaults are those of the public code (rotation, brightness, contrast, margin, cubic interpolation, a patch of half
    the image's sides, 192 of 384). Different from it: it turns the patch after cutting it out, so that the corners are
    black; it carries the point by the argmax of a turned one-hot image, up to half a pixel off; its points can leave the
    patch. Here the corners show the image, and only what lies beyond the image is black.

    Args:
        patch_size: in voxels, one number or one for each axis; None: half of each side of the image.
        points_per_patch: ``K``. One as published; more make more of the same features.
        rotate_range: radians, as in :class:`RandSpatialLandmarks`; in 3D one number is for all three axes.
        scale_range: added to 1, the factor by which the patch shows the anatomy larger.
        brightness: ``b``: distances from black are multiplied by a number of U(1 - b, 1 + b).
        contrast: ``c``: distances from the patch's mean are multiplied by a number of U(1 - c, 1 + c).
        margin: part of the patch's side, at each end, in which no point lies.
        mode: interpolation, "nearest", "linear" or "cubic". On a CPU "linear" is some 30 times faster, a point of note for
            small networks: 0.02 against 0.6 s for eight patches of 192 x 192.
        intensity_range: black and white of the images: brightness counts from black, patches are clipped to the range.
            None: each image's own lowest and highest value.
        image_key: of the batch, ``(B, C, *S)``.

    Returns:
        for MONAI's trainers: the images ``(B, C, *S)`` without meta data, the points ``(B, K, D)`` in their voxels, the
        network's further inputs ``(patches (B, C, *patch_size), points (B, K, D) in the patches' voxels)``, and ``{}``.

    Raises:
        LandmarkError: for ranges that cannot be meant; at the call for a batch without an image, a patch larger than the
            images, or images beyond ``intensity_range``.

    Example:
        >>> prepare = PreparePatchMatchingBatch(points_per_patch=3).set_random_state(0)
        >>> image, points, (patch, patch_points), _ = prepare({"image": torch.rand(2, 1, 64, 48)})
        >>> patch.shape, patch_points.shape, points.shape
        (torch.Size([2, 1, 32, 24]), torch.Size([2, 3, 2]), torch.Size([2, 3, 2]))
    """

    def __init__(
        self,
        patch_size: int | Sequence[int] | None = None,
        points_per_patch: int = 1,
        rotate_range: Range = TWENTY_DEGREES,
        scale_range: Range = 0.0,
        brightness: float = 0.15,
        contrast: float = 0.25,
        margin: float = 0.1,
        mode: str = "cubic",
        intensity_range: tuple[float, float] | None = None,
        image_key: str = "image",
    ) -> None:
        if points_per_patch < 1:
            raise LandmarkError(f"`points_per_patch` must be 1 or more, got {points_per_patch}.")
        for name, value, end in (("brightness", brightness, 1.0), ("contrast", contrast, 1.0), ("margin", margin, 0.5)):
            if not 0 <= value < end:
                raise LandmarkError(f"`{name}` must be in [0, {end:g}), got {value}.")
        if intensity_range is not None and not intensity_range[0] < intensity_range[1]:
            raise LandmarkError(
                f"`intensity_range` must be (black, white) with black below white, got {intensity_range}."
            )
        look_up_option(mode, MODES)
        self.ranges = SpatialRanges(rotate_range=rotate_range, scale_range=scale_range)
        self.patch_size, self.points_per_patch, self.margin = patch_size, points_per_patch, margin
        self.brightness, self.contrast, self.intensity_range = brightness, contrast, intensity_range
        self.mode, self.image_key = mode, image_key
        self.set_random_state(seed=get_seed())

    def randomize(self, data: Any = None) -> None:
        """Nothing is kept between calls: each draws its own patches."""

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor], dict[str, Any]]:
        given = image_of_batch(batchdata, self.image_key)
        shape = tuple(int(n) for n in given.shape[2:])
        size = _patch_size(self.patch_size, shape)
        turned = replace(self.ranges, spatial_size=size).draw(self.R, len(given), shape, batch_voxel_sizes(given)).maps
        maps = place_patches(self.R, turned, shape)
        patch_points = draw_points(self.R, maps, shape, self.points_per_patch, self.margin)
        factors = 1 + torch.as_tensor(self.R.uniform(-1, 1, (len(given), 2)) * (self.brightness, self.contrast))

        image = plain_tensor(given).to(device=device, non_blocking=non_blocking, **kwargs)
        image = image if image.is_floating_point() else image.float()
        black, white = self._intensities(image)
        # Sampling positions of half precision would be off by tenths of a voxel.
        exact = image.to(torch.promote_types(image.dtype, torch.float32))
        patch = resample(exact - black, maps, self.mode) + black
        patch = jitter_colors(patch, factors[:, 0], factors[:, 1], black, white).to(image.dtype)
        points, own = (p.to(image.device, torch.float32) for p in (maps.to_input(patch_points), patch_points))
        return image, points, (patch, own), {}

    def _intensities(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Black and white, ``(B or 1, 1, ...)``."""
        axes = tuple(range(1, image.ndim))
        low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
        if self.intensity_range is None:
            return low, high
        black, white = (torch.full_like(low[:1], value) for value in self.intensity_range)
        rounding = 1e-5 * (white - black)  # of an interpolation
        if bool((low < black - rounding).any() | (high > white + rounding).any()):
            raise LandmarkError(
                f"the images have values from {low.min().item():g} to {high.max().item():g}, beyond `intensity_range` "
                f"{self.intensity_range}: patches would be clipped and look like no part of their image. Give the range "
                "to which the loader scales the images, or None."
            )
        return black, white


def place_patches(random: Any, maps: SpatialMap, image_shape: Sequence[int]) -> SpatialMap:
    """Move patches from the image's middle to places drawn uniformly, at which the unturned patch begins on a voxel.

    Args:
        random: NumPy's ``RandomState``.
        maps: affine, from patches to images, the patch's middle on the image's middle.
        image_shape: ``D`` sizes of the images, none smaller than the patch's.

    Returns:
        the maps of the moved patches.

    Example:
        >>> import numpy as np
        >>> middle = torch.tensor([[[1.0, 0.0, 3.0], [0.0, 1.0, 1.5], [0.0, 0.0, 1.0]]], dtype=torch.float64)
        >>> place_patches(np.random.RandomState(0), SpatialMap(middle, (4, 4)), (10, 7)).matrix[0]
        tensor([[1., 0., 4.],
                [0., 1., 3.],
                [0., 0., 1.]], dtype=torch.float64)
    """
    room = torch.as_tensor(tuple(image_shape)) - torch.as_tensor(maps.shape)
    origins = torch.as_tensor(random.randint(0, room.numpy() + 1, (len(maps), len(room))))
    move = torch.eye(len(room) + 1, dtype=torch.float64).repeat(len(maps), 1, 1)
    move[:, :-1, -1] = origins - room / 2
    return maps.then(move)


def draw_points(random: Any, maps: SpatialMap, image_shape: Sequence[int], count: int, margin: float) -> torch.Tensor:
    """Draw points in patches, uniform over a patch without its margins, such that the image shows them too.

    A point ``q`` beyond the image is replaced by the nearest to it on the line to the patch's middle ``m`` that lies on a
    voxel: ``m + t (q - m)`` with the largest ``t`` of [0, 1]. As the map is affine, ``t`` has a closed form.

    Args:
        random: NumPy's ``RandomState``.
        maps: affine, from patches to images, with every patch's middle inside its image.
        image_shape: ``D`` sizes of the images.
        count: ``K``.
        margin: part of the patch's side, at each end, in which no point lies; at least half a voxel is kept.

    Returns:
        ``(B, K, D)`` float64, voxels of the patches.

    Example:
        >>> import numpy as np
        >>> shifted = torch.tensor([[[1.0, 0.0, 2.0], [0.0, 1.0, 3.0], [0.0, 0.0, 1.0]]], dtype=torch.float64)
        >>> points = draw_points(np.random.RandomState(0), SpatialMap(shifted, (10, 20)), (64, 64), 500, margin=0.1)
        >>> points.amin((0, 1)) > torch.tensor([0.5, 1.5]), points.amax((0, 1)) < torch.tensor([8.5, 17.5])
        (tensor([True, True]), tensor([True, True]))
    """
    size = torch.as_tensor(maps.shape, dtype=torch.float64)
    last = torch.as_tensor(tuple(image_shape), dtype=torch.float64) - 1
    start = (margin * size - 0.5).clamp(min=0)
    drawn = torch.as_tensor(random.uniform(size=(len(maps), count, len(size))))
    middle = ((size - 1) / 2).expand(len(maps), 1, -1)
    step = start + drawn * (size - 1 - 2 * start) - middle
    seen = maps.to_input(middle)
    moved = maps.to_input(middle + step) - seen
    # Rounding may put a middle on the outermost voxel a little beyond it.
    room = torch.where(moved > 0, last - seen, seen).clamp(min=0)
    # 0 / 0 of a step that stays where it is leaves NaN, which fmin passes over.
    part = torch.fmin(room / moved.abs(), torch.ones_like(room)).amin(dim=-1, keepdim=True)
    return middle + part * step


def jitter_colors(
    patch: torch.Tensor, brightness: torch.Tensor, contrast: torch.Tensor, black: torch.Tensor, white: torch.Tensor
) -> torch.Tensor:
    r"""Multiply each patch's distances from black, and then those from its mean, and clip.

    .. math:: v' = \operatorname{clip}\left(\bar u + c (u - \bar u)\right), \quad u = black + b (v - black)

    The two commute, so that their order, which the public code draws, does not matter but for its clipping in between.

    Args:
        patch: ``(B, C, *S)``.
        brightness: ``b``, ``(B,)``.
        contrast: ``c``, ``(B,)``.
        black: ``(B or 1, 1, ...)``.
        white: likewise.

    Returns:
        the same shape.

    Example:
        >>> patch, zero, one = torch.tensor([[[0.2, 0.4]]]), torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
        >>> jitter_colors(patch, torch.tensor([1.5]), torch.tensor([2.0]), zero, one)
        tensor([[[0.1500, 0.7500]]])
    """
    b, c = (factor.to(patch).reshape(-1, *(1,) * (patch.ndim - 1)) for factor in (brightness, contrast))
    lit = black + b * (patch - black)
    mean = lit.mean(tuple(range(1, patch.ndim)), keepdim=True)
    return torch.clamp(mean + c * (lit - mean), black, white)


def _patch_size(wanted: int | Sequence[int] | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    size = tuple(max(1, n // 2) for n in shape) if wanted is None else window_size(wanted, len(shape), "patch_size")
    if any(p > n for p, n in zip(size, shape, strict=True)):
        raise LandmarkError(
            f"a patch of {size} voxels does not fit into images of {shape}: it must show a part of the image. Give a "
            f"smaller `patch_size` (published: half of each side, here {tuple(n // 2 for n in shape)}), or larger images; "
            "sizes are in the order of the image tensor's axes."
        )
    return size
