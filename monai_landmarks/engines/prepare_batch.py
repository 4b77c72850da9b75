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
from monai.data.utils import set_rnd
from monai.engines import PrepareBatch

from ..data.landmarks import did_you_mean, quoted
from ..geometry import LandmarkError, plain_tensor
from ..losses import WeightedPoints

__all__ = ["PrepareDatasetBatch", "PrepareLandmarkBatch", "dataset_of"]

DATASET = "dataset"

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
        weights_key: of the batch, ``(B, N)``: how much each landmark counts, such as the score of a pseudo-label. The
            target is then :class:`~monai_landmarks.losses.WeightedPoints`; None gives plain points.

    Raises:
        LandmarkError: if the batch is no dictionary, has no image, or lacks the weights asked for.

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
        weights_key: str | None = None,
    ) -> None:
        self.image_key, self.points_key, self.keep_meta = image_key, points_key, keep_meta
        self.augment = _as_tuple(augment)
        self.weights_key = weights_key

    def set_random_state(self, seed: int) -> None:
        """Seed the augmentation.

        Args:
            seed: of the first callable that draws random numbers; the next ones get the following numbers.
        """
        for augment in self.augment:
            seed = set_rnd(augment, seed)

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | WeightedPoints | None]:
        image = image_of_batch(batchdata, self.image_key).to(device=device, non_blocking=non_blocking, **kwargs)
        points = batchdata.get(self.points_key)
        points = None if points is None else plain_tensor(points).to(dtype=torch.float32)
        for augment in self._augmentation(batchdata):
            image, points = augment(image, points)
        image = image if self.keep_meta else plain_tensor(image)
        if points is None:
            return image, None
        points = points.to(device=device, non_blocking=non_blocking)
        if self.weights_key is None:
            return image, points
        return image, WeightedPoints(
            points, _weights(batchdata, self.weights_key).to(device=device, non_blocking=non_blocking)
        )

    def _augmentation(self, batchdata: Mapping[str, Any]) -> tuple[Augmentation, ...]:
        return self.augment


class PrepareDatasetBatch(PrepareLandmarkBatch):
    """Give an engine the image, the points, and the name of the data set as a second input of the network.

    A network for several data sets is called ``network(image, dataset)``. The name stands in the batch under
    ``"dataset"``, where :class:`MultiDatasetLoader` puts it; the list of equal names into which a loader collates the
    films' own entries will do as well.

    Args:
        image_key: of the batch, ``(B, C, *S)``.
        points_key: of the batch, ``(B, N, D)``.
        keep_meta: as in :class:`PrepareLandmarkBatch`.
        augment: as in :class:`PrepareLandmarkBatch`, or such for each data set by name.

    Raises:
        LandmarkError: if the batch has no image, no data set, or several.

    Example:
        >>> batch = {"image": torch.zeros(1, 1, 8, 8), "points": torch.zeros(1, 3, 2), "dataset": "hand"}
        >>> image, points, args, kwargs = PrepareDatasetBatch()(batch)
        >>> image.shape, points.shape, args, kwargs
        (torch.Size([1, 1, 8, 8]), torch.Size([1, 3, 2]), ('hand',), {})
    """

    def __init__(
        self,
        image_key: str = "image",
        points_key: str = "points",
        keep_meta: bool = True,
        augment: Augmentation | Sequence[Augmentation] | Mapping[str, Augmentation | Sequence[Augmentation]] = (),
    ) -> None:
        self.augment_by_dataset: dict[str, tuple[Augmentation, ...]] | None = None
        if isinstance(augment, Mapping):
            self.augment_by_dataset = {name: _as_tuple(own) for name, own in augment.items()}
            augment = [each for own in self.augment_by_dataset.values() for each in own]
        super().__init__(image_key, points_key, keep_meta, augment)

    def __call__(  # type: ignore[override]
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | WeightedPoints | None, tuple[str], dict[str, Any]]:
        image, points = super().__call__(batchdata, device, non_blocking, **kwargs)
        return image, points, (dataset_of(batchdata),), {}

    def _augmentation(self, batchdata: Mapping[str, Any]) -> tuple[Augmentation, ...]:
        if self.augment_by_dataset is None:
            return self.augment
        name = dataset_of(batchdata)
        if name not in self.augment_by_dataset:
            hint = did_you_mean(name, self.augment_by_dataset)
            raise LandmarkError(
                f"`augment` has nothing for data set {name!r}{hint}, only for {quoted(self.augment_by_dataset)}; give [] "
                "for a data set without augmentation."
            )
        return self.augment_by_dataset[name]


def image_of_batch(batchdata: Mapping[str, Any], image_key: str) -> torch.Tensor:
    """Give the image of a batch ``(B, C, *S)``.

    Raises:
        LandmarkError: if the batch is no dictionary, has no image, or its image is no batch in 2D or 3D.
    """
    if not isinstance(batchdata, Mapping) or image_key not in batchdata:
        keys = sorted(map(str, batchdata)) if isinstance(batchdata, Mapping) else type(batchdata).__name__
        raise LandmarkError(f"the batch has no image under {image_key!r}; it holds {keys}.")
    image: torch.Tensor = batchdata[image_key]
    if image.ndim not in (4, 5):
        raise LandmarkError(
            f"the image must be a batch (B, C, *S) in 2D or 3D, got {tuple(image.shape)}: the loader adds the batch "
            "axis, EnsureChannelFirstd the channel."
        )
    return image


def dataset_of(batchdata: Mapping[str, Any]) -> str:
    """Give the name of the one data set that a batch is of.

    Raises:
        LandmarkError: if the batch does not say, or is of several.

    Example:
        >>> dataset_of({"dataset": "hand"}), dataset_of({"dataset": ["hand", "hand"]})
        ('hand', 'hand')
    """
    value = batchdata.get(DATASET)
    names = [value] if isinstance(value, str) else list(value or ())
    if not names:
        raise LandmarkError(
            f"the batch does not say of which data set it is; it holds {quoted(map(str, batchdata))}. Take batches from "
            f'MultiDatasetLoader, or put the name under "{DATASET}".'
        )
    if len(set(names)) > 1:
        raise LandmarkError(
            f"a batch mixes data sets {quoted(dict.fromkeys(names))}: every step is of one data set, for each has its own "
            "normalisation and heads. Give each data set a loader of its own, in one MultiDatasetLoader."
        )
    return names[0]


def _weights(batchdata: Mapping[str, Any], key: str) -> torch.Tensor:
    if key not in batchdata:
        raise LandmarkError(
            f"the batch has no weights under {key!r}; it holds {sorted(map(str, batchdata))}. Does the last transform "
            "(SelectItemsd) drop them?"
        )
    return plain_tensor(batchdata[key]).to(dtype=torch.float32)


def _as_tuple(augment: Augmentation | Sequence[Augmentation]) -> tuple[Augmentation, ...]:
    return (augment,) if callable(augment) else tuple(augment)
