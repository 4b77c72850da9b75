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
"""How a batch of landmark data reaches MONAI's engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.engines import PrepareBatch

from ..geometry import LandmarkError, plain_tensor

__all__ = ["PrepareLandmarkBatch"]

Augmentation = Callable[[torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor | None]]


class PrepareLandmarkBatch(PrepareBatch):
    """Give an engine the image as input and the landmarks' voxel points as target.

    Without points in the batch (prediction of new images) the target is None. Points stay in float32 and full
    precision whatever the image is in.

    Args:
        image_key: of the batch, ``(B, C, *S)``.
        points_key: of the batch, ``(B, N, D)``.
        keep_meta: False gives the image as a plain tensor. Say so in training: nobody needs the meta data there, and
            MONAI's trainer cannot put those of a batch of films back after ``torch.compile``. Evaluation needs them to
            turn predictions into millimetres.
        augment: for training: one or several callables ``(images, points) -> (images, points)`` for whole batches, images
            on the device and points where the loader left them, one after the other;
            ``RandSpatialLandmarksd(...).batched()`` is one. The image is then a plain tensor.

    Raises:
        LandmarkError: if the batch is no dictionary or has no image.

    Example:
        >>> import torch
        >>> batch = {"image": torch.zeros(1, 1, 8, 8), "points": torch.zeros(1, 3, 2)}
        >>> [tuple(t.shape) for t in PrepareLandmarkBatch()(batch)]
        [(1, 1, 8, 8), (1, 3, 2)]
    """

    def __init__(
        self,
        image_key: str = "image",
        points_key: str = "points",
        keep_meta: bool = True,
        augment: Augmentation | Sequence[Augmentation] = (),
    ) -> None:
        self.image_key, self.points_key, self.keep_meta = image_key, points_key, keep_meta
        self.augment = (augment,) if callable(augment) else tuple(augment)

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if not isinstance(batchdata, Mapping) or self.image_key not in batchdata:
            keys = sorted(map(str, batchdata)) if isinstance(batchdata, Mapping) else type(batchdata).__name__
            raise LandmarkError(f"the batch has no image under {self.image_key!r}; it holds {keys}.")
        image = batchdata[self.image_key].to(device=device, non_blocking=non_blocking, **kwargs)
        points = batchdata.get(self.points_key)
        points = None if points is None else plain_tensor(points).to(dtype=torch.float32)
        for augment in self.augment:
            image, points = augment(image, points)
        if points is not None:
            points = points.to(device=device, non_blocking=non_blocking)
        return image if self.keep_meta else plain_tensor(image), points
