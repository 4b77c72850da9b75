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
"""The task with which EdgeTrans learns without labels: register images on each other, and on warps of themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from monai.engines import PrepareBatch
from monai.transforms import Randomizable
from monai.utils import get_seed

from ..geometry import LandmarkError, SpatialMap, plain_tensor
from ..networks.blocks.displacement import warp
from ..transforms.spatial_augmentation.batched import batch_voxel_sizes
from ..transforms.spatial_augmentation.parameters import compose_map, number_of_rotations
from .prepare_batch import image_of_batch

__all__ = ["PrepareRegistrationBatch", "RegistrationPairs", "pair_up", "projective_positions"]


class RegistrationPairs(NamedTuple):
    """The ``2B`` pairs made of ``B`` images: first each image with a warp of itself, then each with another one.

    All of them share one grid; pair ``k`` has image ``k % B`` as its source.

    Attributes:
        source: ``(2B, C, *S)``.
        target: ``(2B, C, *S)``.
        true_field: ``(B, D, *S)`` voxels, of the first half: target(x) = source(x + field).
        source_mask: ``(2B, 1, *S)``, 1 where the source shows something of the image.
        target_mask: ``(2B, 1, *S)``.
        backward: ``(2B,)`` number of the pair with the same two images in exchanged places, -1 where there is none.
        cases: ``2B`` names of the sources, None for a batch without names.
        drawn: of ``B`` affine maps, from the voxels of the sources to those of the batch's images.
    """

    source: torch.Tensor
    target: torch.Tensor
    true_field: torch.Tensor
    source_mask: torch.Tensor
    target_mask: torch.Tensor
    backward: torch.Tensor
    cases: tuple[str, ...] | None
    drawn: SpatialMap


class PrepareRegistrationBatch(PrepareBatch, Randomizable):
    r"""Make pairs of images to be registered from a batch of images: half of them with a known answer.

    EdgeTrans (Yin et al. 2022, section 4.2): of ``B`` images the first ``B`` pairs are each image and a random perspective
    warp of it, whose field is known exactly; the other ``B`` are each image and another one of the batch. Only image and
    case name are read from the batch: no label can leak into the training.

    Before, each image is turned and scaled at random, the augmentation of the paper. It is done here, not in the loader,
    because then what is known of an image (its pseudo-landmarks) can follow, and because a warp of the turned image is
    one map and one interpolation from the original: no corner of a turned image is cut off twice. Turns are in millimetres
    where images carry an affine. What is said here is drawn afresh for each image, all of it from one random state, from
    normal distributions with half the range as standard deviation, clipped to the range.

    The defaults are those of the public code, with these differences. It pairs by a random permutation, so that an image
    may be registered on itself; here images are paired two and two (three in a circle are left of an odd number), which
    also gives for each registration the one backwards without another run of the network. Its scale of the augmentation
    has twice the standard deviation. Translations are parts of half the longest side here, of each side's half there. How
    large its perspective terms are is not known; 0.05 is ours.

    Args:
        rotate_range: of the augmentation, radians, about each axis.
        rotate_prob: share of images that are turned.
        scale_range: of the augmentation, added to 1.
        warp_translate_range: of the synthetic warp, in halves of the longest side.
        warp_scale_range: added to 1, for each axis.
        warp_rotate_range: radians.
        warp_shear_range: added in the upper triangle of the matrix.
        warp_perspective_range: change of the magnification from the image's middle to half its longest side; below 1/3.
        fill: value beyond the images. The network's own warps show 0 there, so scale images to [0, 1] with black 0.
        image_key: of the batch, ``(B, C, *S)``.
        case_key: of the batch, ``B`` names.

    Returns:
        for MONAI's trainers: the sources ``(2B, C, *S)``, the :class:`RegistrationPairs`, the network's further input
        ``(targets,)``, and ``{}``.

    Raises:
        LandmarkError: for ranges that cannot be meant; at the call for a batch without an image or of a single one.

    Example:
        >>> prepare = PrepareRegistrationBatch().set_random_state(0)
        >>> source, pairs, (target,), _ = prepare({"image": torch.rand(4, 1, 32, 24), "case": ["a", "b", "c", "d"]})
        >>> source.shape, pairs.true_field.shape, pairs.backward.tolist()
        (torch.Size([8, 1, 32, 24]), torch.Size([4, 2, 32, 24]), [-1, -1, -1, -1, 6, 7, 4, 5])
    """

    def __init__(
        self,
        rotate_range: float = math.pi / 6,
        rotate_prob: float = 0.6,
        scale_range: float = 0.25,
        warp_translate_range: float = 0.2,
        warp_scale_range: float = 0.125,
        warp_rotate_range: float = math.pi / 12,
        warp_shear_range: float = math.pi / 120,
        warp_perspective_range: float = 0.05,
        fill: float = 0.0,
        image_key: str = "image",
        case_key: str = "case",
    ) -> None:
        if not 0 <= rotate_prob <= 1:
            raise LandmarkError(f"`rotate_prob` must lie in [0, 1], got {rotate_prob}.")
        limits = {
            "rotate_range": (rotate_range, math.inf),
            "scale_range": (scale_range, 1.0),
            "warp_translate_range": (warp_translate_range, math.inf),
            "warp_scale_range": (warp_scale_range, 1.0),
            "warp_rotate_range": (warp_rotate_range, math.inf),
            "warp_shear_range": (warp_shear_range, math.inf),
            "warp_perspective_range": (warp_perspective_range, 1 / 3),
        }
        for name, (value, end) in limits.items():
            if not 0 <= value < end:
                raise LandmarkError(f"`{name}` must be in [0, {end:.3g}), got {value}.")
        self.rotate_range, self.rotate_prob, self.scale_range = rotate_range, rotate_prob, scale_range
        self.warp_translate_range, self.warp_scale_range = warp_translate_range, warp_scale_range
        self.warp_rotate_range, self.warp_shear_range = warp_rotate_range, warp_shear_range
        self.warp_perspective_range, self.fill = warp_perspective_range, fill
        self.image_key, self.case_key = image_key, case_key
        self.set_random_state(seed=get_seed())

    def randomize(self, data: Any = None) -> None:
        """Nothing is kept between calls: each draws its own pairs."""

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, RegistrationPairs, tuple[torch.Tensor], dict[str, Any]]:
        given = self._images_of(batchdata)
        count, shape, sizes = len(given), tuple(int(n) for n in given.shape[2:]), batch_voxel_sizes(given)
        drawn = self._draw_augmentation(count, shape, sizes)
        homography = self._draw_warp(count, shape, sizes)
        other = pair_up(torch.as_tensor(self.R.permutation(count)))

        image = plain_tensor(given).to(device=device, non_blocking=non_blocking, **kwargs)
        image = image if image.is_floating_point() else image.float()
        known = projective_positions(homography, shape)
        source, source_mask = self._read(image, projective_positions(drawn.matrix, shape))
        warped, warped_mask = self._read(image, projective_positions(drawn.matrix @ homography, shape))
        true_field = (known - projective_positions(torch.eye(len(shape) + 1)[None].to(known), shape)).movedim(-1, 1)
        turn = other.to(image.device)
        names = batchdata.get(self.case_key)
        number = torch.arange(count)
        pairs = RegistrationPairs(
            source=source.repeat(2, *(1,) * (image.ndim - 1)),
            target=torch.cat([warped, source[turn]]),
            true_field=true_field.to(image.device, torch.float32),
            source_mask=source_mask.repeat(2, *(1,) * (image.ndim - 1)),
            target_mask=torch.cat([warped_mask, source_mask[turn]]),
            backward=torch.cat([-torch.ones_like(other), torch.where(other[other] == number, count + other, -1)]),
            cases=None if names is None else tuple(map(str, names)) * 2,
            drawn=drawn,
        )
        return pairs.source, pairs, (pairs.target,), {}

    def _images_of(self, batchdata: Mapping[str, Any]) -> torch.Tensor:
        image = image_of_batch(batchdata, self.image_key)
        if len(image) < 2:
            raise LandmarkError(
                "the batch holds a single image, and no image is registered on itself: take a batch size of 2 or more, and "
                "drop_last=True where one image is left at the end of an epoch."
            )
        return image

    def _clipped_normal(self, bound: float, *size: int) -> torch.Tensor:
        return torch.as_tensor((self.R.standard_normal(size) * bound / 2).clip(-bound, bound))

    def _draw_augmentation(self, count: int, shape: tuple[int, ...], sizes: torch.Tensor) -> SpatialMap:
        dims = len(shape)
        turned = torch.as_tensor(self.R.uniform(size=(count, 1)) < self.rotate_prob)
        rotate = self._clipped_normal(self.rotate_range, count, number_of_rotations(dims)) * turned
        scale = 1 + self._clipped_normal(self.scale_range, count, 1).expand(-1, dims)
        none = torch.zeros(count, dims)
        return compose_map(shape, sizes, shape, sizes, rotate, scale, torch.zeros_like(rotate), none, none.bool())

    def _draw_warp(self, count: int, shape: tuple[int, ...], sizes: torch.Tensor) -> torch.Tensor:
        """Homographies ``(B, D + 1, D + 1)`` from the voxels of the target to those of the source."""
        dims, turns = len(shape), number_of_rotations(len(shape))
        half = (torch.as_tensor(shape) * sizes).amax(dim=1, keepdim=True) / 2
        affine = compose_map(
            shape,
            sizes,
            shape,
            sizes,
            rotate=self._clipped_normal(self.warp_rotate_range, count, turns),
            scale=1 + self._clipped_normal(self.warp_scale_range, count, dims),
            shear=self._clipped_normal(self.warp_shear_range, count, turns),
            translate_mm=self._clipped_normal(self.warp_translate_range, count, dims) * half,
            flip=torch.zeros(count, dims, dtype=torch.bool),
        )
        middle = (torch.as_tensor(shape, dtype=torch.float64) - 1) / 2
        center = torch.eye(dims + 1, dtype=torch.float64).repeat(count, 1, 1)
        center[:, :dims, dims] = -middle
        perspective = torch.eye(dims + 1, dtype=torch.float64).repeat(count, 1, 1)
        perspective[:, dims, :dims] = self._clipped_normal(self.warp_perspective_range, count, dims) * sizes / half
        return affine.matrix @ torch.linalg.inv(center) @ perspective @ center

    def _read(self, image: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images at positions ``(B, *S, D)``, and a mask of those that lie in them."""
        shape = image.shape[2:]
        voxels = projective_positions(torch.eye(len(shape) + 1, dtype=torch.float64)[None], shape)
        field = (positions - voxels).movedim(-1, 1).to(image.device, torch.promote_types(image.dtype, torch.float32))
        last = torch.as_tensor(tuple(shape), dtype=torch.float64) - 1
        mask = ((positions >= 0) & (positions <= last)).all(dim=-1).unsqueeze(1).to(image)
        return (warp(image.to(field) - self.fill, field) + self.fill).to(image.dtype), mask


def pair_up(order: torch.Tensor) -> torch.Tensor:
    """Give each of ``B`` items another one: neighbours in an order exchange; the last three of an odd number go round.

    Args:
        order: a permutation of ``0 .. B - 1``, ``B`` at least 2.

    Returns:
        ``(B,)`` int64, the number of each item's partner, never its own.

    Example:
        >>> pair_up(torch.tensor([2, 0, 3, 1])).tolist(), pair_up(torch.tensor([4, 2, 0, 3, 1])).tolist()
        ([2, 3, 0, 1], [3, 0, 4, 1, 2])
    """
    count = len(order)
    partner = torch.arange(count) ^ 1
    if count % 2:
        partner[-3:] = torch.tensor([count - 2, count - 1, count - 3])
    result = torch.empty_like(order)
    result[order] = order[partner]
    return result


def projective_positions(homography: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Map every voxel of a grid through homographies.

    Args:
        homography: ``(B, D + 1, D + 1)``; affine where its last row is ``(0, ..., 0, 1)``.
        shape: ``D`` sizes.

    Returns:
        ``(B, *shape, D)``.

    Example:
        >>> doubled = torch.tensor([[[2.0, 0.0, 0.5], [0.0, 2.0, 0.5], [0.0, 0.0, 1.0]]])
        >>> projective_positions(doubled, (2, 3))[0, 1, 2]
        tensor([2.5000, 4.5000])
    """
    axes = [torch.arange(n, dtype=homography.dtype, device=homography.device) for n in (*shape, 1)]
    axes[-1] = axes[-1] + 1
    voxels = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).squeeze(-2).flatten(0, -2)
    moved = voxels @ homography.transpose(1, 2)
    return (moved[..., :-1] / moved[..., -1:]).unflatten(1, tuple(shape))
