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
"""An easy and a hard view of every image of a batch, and the map between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from monai.data.utils import set_rnd

from ..geometry import LandmarkError, SpatialMap, plain_tensor, resample
from ..losses.targets import split_target
from ..transforms.spatial_augmentation.batched import BatchedSpatialAugmentation, batch_voxel_sizes
from ..transforms.spatial_augmentation.ranges import SpatialRanges
from .prepare_batch import Augmentation, PrepareLandmarkBatch

__all__ = ["PrepareTwoViewsBatch", "TwoViews"]

#: Voxels read between a voxel of the weak view and nothing do not count as seen.
WHOLE = 1 - 1e-3


class TwoViews(NamedTuple):
    """The target of a batch of two views.

    Attributes:
        points: ``(2, B, N, D)`` labels in voxels of the weak and of the strong view, NaN for missing.
        scores: ``(B, N)``, 1 for a true label.
        strong: map of each image from voxels of the strong view to those of the weak one.
    """

    points: torch.Tensor
    scores: torch.Tensor
    strong: SpatialMap

    def carry(self, maps: torch.Tensor) -> torch.Tensor:
        """Bring heatmaps of the weak view ``(B, N, *S)`` to the strong one, in float32 at least; 0 comes from outside."""
        return resample(maps.to(torch.promote_types(maps.dtype, torch.float32)), self.strong)

    def seen(self, shape: Sequence[int], device: torch.device) -> torch.Tensor:
        """Tell which voxels of the strong view ``(B, 1, *S)`` the weak one shows, which has sizes ``shape``."""
        return self.carry(torch.ones(len(self.scores), 1, *shape, device=device)) > WHOLE


class PrepareTwoViewsBatch(PrepareLandmarkBatch):
    """Give an engine a weak and a strong view of every image: the strong one is the weak one turned, scaled and recoloured.

    Both are made on the device from whole batches, and the map between them is known, so that predictions of one can be
    compared with those of the other voxel by voxel (Yin et al. 2022, T_e and T_h of algorithm 1). The views stand one after
    the other in one batch of twice the size: one pass of the network, and one normalisation, for both.

    The paper turns and scales, and does not say how far; the defaults are the limits of the public code, which draws from
    clipped normal distributions where this is uniform. The weak view has the loader's augmentation, such as the paper's
    flips, and what is given here.

    Args:
        weak: callables for whole batches that make the weak view from the loader's images; see ``augment`` of
            :class:`PrepareLandmarkBatch`. They keep the voxel sizes.
        strong: what makes the strong view's geometry of the weak one, such as ``RandSpatialLandmarksd(...).batched()``;
            by default turns up to 30 degrees and scales of 0.75 to 1.25, the border continued. Elastic maps are fine.
        strong_appearance: callables for whole batches that change the strong view's grey values only, such as
            ``RandShiftScaleIntensityd(...).batched()``.
        image_key: of the batch, ``(B, C, *S)``.
        points_key: of the batch, ``(B, N, D)`` voxels, NaN for missing.
        scores_key: of the batch, ``(B, N)``, finite and not negative: 1 or more is a true label; None means all are noisy.

    Returns:
        of a call: images ``(2 B, C, *S)``, the weak views first, and :class:`TwoViews`.

    Raises:
        LandmarkError: for a view that exchanges landmarks by their names when it mirrors, for the scores would not
            follow; for a batch without image, points or scores, or if the strong view has
            another grid than the weak one.

    Example:
        >>> batch = {"image": torch.rand(3, 1, 8, 8), "points": torch.full((3, 2, 2), 4.0), "scores": torch.zeros(3, 2)}
        >>> images, views = PrepareTwoViewsBatch()(batch)
        >>> images.shape, views.points.shape, views.scores.shape
        (torch.Size([6, 1, 8, 8]), torch.Size([2, 3, 2, 2]), torch.Size([3, 2]))
    """

    def __init__(
        self,
        weak: Augmentation | Sequence[Augmentation] = (),
        strong: BatchedSpatialAugmentation | None = None,
        strong_appearance: Augmentation | Sequence[Augmentation] = (),
        image_key: str = "image",
        points_key: str = "points",
        scores_key: str | None = "scores",
    ) -> None:
        super().__init__(image_key, points_key, keep_meta=False, augment=weak, weights_key=scores_key)
        if strong is None:
            ranges = SpatialRanges(rotate_range=math.radians(30), scale_range=0.25)
            strong = BatchedSpatialAugmentation(ranges, padding_mode="border")
        if not isinstance(strong, BatchedSpatialAugmentation):
            raise LandmarkError(
                f"`strong` must be a spatial augmentation of batches, got {type(strong).__name__}: give "
                "RandSpatialLandmarksd(...).batched(); what changes grey values goes to `strong_appearance`."
            )
        if any(getattr(view, "exchange", None) is not None for view in (*self.augment, strong)):
            raise LandmarkError(
                "a view that exchanges landmarks when it mirrors would leave their scores behind: mirror in the "
                "loader, where scores can be exchanged too."
            )
        self.strong = strong
        self.appearance = (strong_appearance,) if callable(strong_appearance) else tuple(strong_appearance)

    def set_random_state(self, seed: int) -> None:
        """Seed all views.

        Args:
            seed: of the first callable that draws random numbers; the next ones get the following numbers.
        """
        for view in (*self.augment, self.strong, *self.appearance):
            seed = set_rnd(view, seed)

    def __call__(  # type: ignore[override]
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, TwoViews]:
        weak, target = super().__call__(batchdata, device, non_blocking, **kwargs)
        if target is None:
            raise LandmarkError(
                f"the batch has no points under {self.points_key!r}; it holds {sorted(map(str, batchdata))}. Images whose "
                "labels are all unknown take part with points of NaN."
            )
        points, scores = split_target(target)
        scores = points.new_zeros(points.shape[:2]) if scores is None else scores
        weak = plain_tensor(weak) if weak.is_floating_point() else plain_tensor(weak).float()
        form = self.strong
        sizes = batch_voxel_sizes(batchdata[self.image_key])
        maps = form.ranges.draw(form.R, len(weak), weak.shape[2:], sizes).maps
        if tuple(maps.shape) != tuple(weak.shape[2:]):
            raise LandmarkError(
                f"the strong view has {maps.shape} voxels, the weak one {tuple(weak.shape[2:])}: leave `spatial_size` and "
                "`pixdim` out of `strong`, and bring the images to their grid before."
            )
        strong = resample(weak, maps, form.mode, form.padding_mode, form.fill)
        turned = maps.to_output(points.cpu()).to(points.device)
        for change in self.appearance:
            strong, _ = change(strong, turned)
        return torch.cat([weak, strong]), TwoViews(torch.stack([points, turned]), scores, maps)
