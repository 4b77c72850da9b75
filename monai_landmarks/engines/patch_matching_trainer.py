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
"""A trainer that needs images only: it teaches a network to find where in an image a patch was taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import ensure_tuple
from torch import nn
from torch.utils.data import DataLoader

from ..geometry import LandmarkError
from ..handlers.checkpoint_files import unwrapped
from ..losses.patch_matching import PatchMatchingLoss
from .multi_dataset_loader import MultiDatasetLoader
from .multi_dataset_trainer import MultiDatasetTrainer
from .patch_sampling import PreparePatchMatchingBatch

__all__ = ["PatchMatchingTrainer"]

UNLABELLED = "unlabelled"


class PatchMatchingTrainer(MultiDatasetTrainer):
    """Train a :class:`PatchMatchingNet` on unlabelled images: the first stage of CC2Dv2 (Yao et al. 2022).

    MONAI's ``SupervisedTrainer`` with :class:`PreparePatchMatchingBatch`, which makes the task of each step from a batch's
    images, and :class:`PatchMatchingLoss`. Nothing but the image is read from a batch: what else a loader gives, such as
    landmarks, has no influence on the training.

    * After each epoch ``engine.state.metrics`` has the mean loss of it, ``"unlabelled_loss"``, and that of each of the
      network's strides, ``"stride_32_loss"`` and so on; they are summed to the loss.
    * As in :class:`MultiDatasetTrainer`, whose loader it uses, everything random is drawn from ``(seed, epoch)``:
      shuffling, the loader's transforms, patches, dropout. A resumed training ends with the same weights as one never
      interrupted.
    * Several folders of images may be mixed, such as of head and hand: one network learns to match patches of both.

    Args:
        device: to train on.
        max_epochs: number of epochs.
        train_data_loader: of dictionaries with an image, of one size in a batch; or such loaders by name, whose losses
            are then called ``"<name>_loss"``. As published ``drop_last=True``: a last batch of one image is too small for
            batch normalisation where the coarsest map has one cell.
        network: one with ``strides``, called ``network(image, patch, patch_points)``, that returns a similarity map for
            each stride.
        optimizer: of the network's parameters.
        loss_function: by default ``PatchMatchingLoss()``.
        prepare_batch: by default ``PreparePatchMatchingBatch()``.
        seed: of everything that is drawn.
        train_handlers: of MONAI and Ignite.
        decollate: whether MONAI takes batch and output apart after each step. Nobody needs this here, and it would look
            at all that is in the batch.
        weights: with loaders by name, how they are mixed: see :class:`MultiDatasetLoader`, as the next.
        temperature: of weights by size.
        kwargs: of ``SupervisedTrainer``: ``amp``, ``compile``, ``inferer``, ...

    Raises:
        LandmarkError: for a network without ``strides`` or a loss without ``levels``; at the first batch, if its images
            differ in size; else as :class:`MultiDatasetTrainer`.

    Example:
        >>> from monai_landmarks.networks.nets.patch_matching_net import PatchMatchingNet
        >>> network = PatchMatchingNet(2, encoder="resnet18", width=0.125)
        >>> trainer = PatchMatchingTrainer(
        ...     device="cpu",
        ...     max_epochs=1,
        ...     train_data_loader=DataLoader([{"image": torch.rand(1, 64, 96)} for _ in range(4)], batch_size=2),
        ...     network=network,
        ...     optimizer=torch.optim.Adam(network.parameters()),
        ... )
        >>> trainer.run()
        >>> sorted(trainer.state.metrics)
        ['stride_16_loss', 'stride_2_loss', 'stride_32_loss', 'stride_4_loss', 'stride_8_loss', 'unlabelled_loss']
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: DataLoader | Mapping[str, DataLoader],
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_function: PatchMatchingLoss | None = None,
        prepare_batch: Callable | None = None,
        seed: int = 0,
        train_handlers: Sequence | None = None,
        decollate: bool = False,
        weights: str | Mapping[str, float] | None = None,
        temperature: float = 1.0,
        **kwargs: Any,
    ) -> None:
        loaders = train_data_loader if isinstance(train_data_loader, Mapping) else {UNLABELLED: train_data_loader}
        loss = _LossOfLevels(PatchMatchingLoss() if loss_function is None else loss_function, network)
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=EqualSizesLoader(loaders, weights, temperature, seed=seed),
            network=network,
            optimizer=optimizer,
            loss_function=loss,
            prepare_batch=PreparePatchMatchingBatch() if prepare_batch is None else prepare_batch,
            train_handlers=[loss, *(() if train_handlers is None else ensure_tuple(train_handlers))],
            decollate=decollate,
            **kwargs,
        )


class _LossOfLevels:
    """The loss, summed over strides, that keeps its parts for the epoch's means."""

    def __init__(self, loss: Any, network: nn.Module) -> None:
        strides = getattr(unwrapped(network), "strides", None)
        if strides is None:
            raise LandmarkError(
                f"{type(unwrapped(network)).__name__} does not say the `strides` of its similarity maps: give a "
                "PatchMatchingNet, or a network with such an attribute, like (32, 16, 8, 4, 2)."
            )
        if not hasattr(loss, "levels"):
            raise LandmarkError(
                f"{type(loss).__name__} has no `levels` that gives the loss of each similarity map: take PatchMatchingLoss."
            )
        self.loss, self.strides = loss, tuple(strides)
        self.seen: list[torch.Tensor] = []

    def __call__(self, similarities: Sequence[torch.Tensor], points: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.loss.levels(similarities, points, self.strides)
        self.seen.append(values.detach())  # left on the device: the host need not wait for it
        return values.sum()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, lambda _: self.seen.clear())
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._completed)

    def _completed(self, engine: Engine) -> None:
        means = torch.stack(self.seen).mean(dim=0).tolist()
        engine.state.metrics.update(
            {f"stride_{stride}_loss": mean for stride, mean in zip(self.strides, means, strict=True)}
        )


class EqualSizesLoader(MultiDatasetLoader):
    """Says in words what is wrong if images of different sizes do not stack."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            yield from super().__iter__()
        except RuntimeError as error:
            # In worker processes torch fails before it has compared the sizes.
            symptoms = ("each tensor to be equal size", "resize storage that is not resizable")
            said = [line for line in str(error).splitlines() if any(symptom in line for symptom in symptoms)]
            if not said:
                raise
            raise LandmarkError(
                "the images of a batch differ in size: bring all to one grid in the loader, for example with FitToGridd, "
                f"which keeps their aspect ratio, or take batch_size=1. {said[-1]}"
            ) from error
