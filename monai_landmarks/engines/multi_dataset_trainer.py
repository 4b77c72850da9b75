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
"""A trainer for one network and several data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys, ensure_tuple
from torch import nn
from torch.utils.data import DataLoader

from ..geometry import LandmarkError
from ..handlers.checkpoint_files import unwrapped
from .dataset_mixing import check_datasets, derived_seed
from .multi_dataset_loader import MultiDatasetLoader
from .prepare_batch import PrepareDatasetBatch, dataset_of

__all__ = ["MultiDatasetTrainer", "check_landmark_names"]


class MultiDatasetTrainer(SupervisedTrainer):
    """Train one network on several data sets: each step on a batch of one of them, with that data set's own loss.

    MONAI's ``SupervisedTrainer`` with :class:`MultiDatasetLoader` (why a batch is of one data set, and how they are
    mixed, is said there) and the following.

    * The network is called ``network(image, dataset)``.
    * After each epoch ``engine.state.metrics["<name>_loss"]`` is the mean loss of the data set in it (on this rank), so
      that ``StatsHandler`` and ``TensorBoardStatsHandler`` show a curve for each.
    * Parameters that only another data set uses do not move in a step: ``optim_set_to_none`` is True here. With MONAI's
      False their gradient is zero rather than none, and Adam's momentum and weight decay go on moving them. In
      ``DistributedDataParallel`` such a network needs ``find_unused_parameters=True``.
    * Everything random is drawn from ``(seed, epoch)``: the loader, augmentation in ``prepare_batch``, and PyTorch's
      global generator (dropout), which is seeded at the start of each epoch. A training resumed by
      :class:`monai_landmarks.handlers.TrainingCheckpoint` therefore ends with the same weights as one never
      interrupted.

    Args:
        device: to train on.
        max_epochs: number of epochs.
        train_data_loader: a :class:`MultiDatasetLoader`, or a loader for each data set by name.
        network: one that takes image and name. If it has ``dataset_names`` and ``num_landmarks`` (by name), they are
            checked; it may know more data sets than are trained.
        optimizer: of the network's parameters.
        loss_function: for all data sets, or one for each by name, as a mapping or ``torch.nn.ModuleDict``.
        landmark_names: by data set, to check that no name stands for two landmarks.
        weights: with loaders by name, see :class:`MultiDatasetLoader`, as the next two.
        temperature: of weights by size.
        seed: of everything that is drawn.
        prepare_batch: by default ``PrepareDatasetBatch(keep_meta=False)``.
        train_handlers: of MONAI and Ignite.
        optim_set_to_none: see above.
        kwargs: of ``SupervisedTrainer``: ``amp``, ``inferer``, ``compile``, ...

    Raises:
        LandmarkError: if loaders, losses, landmark names and network do not speak of the same data sets, if landmark names
            clash, or their number is not the network's.
        ValueError: for an ``epoch_length`` other than the loader's (its ``num_batches``), or mixing options beside a
            ready :class:`MultiDatasetLoader`.

    Example:
        >>> class Heads(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.heads = nn.ModuleDict({"head": nn.Conv2d(1, 19, 1), "hand": nn.Conv2d(1, 37, 1)})
        ...     def forward(self, image, dataset):
        ...         return self.heads[dataset](image)
        >>> def film(landmarks):
        ...     return {"image": torch.rand(1, 8, 8), "points": torch.full((landmarks, 2), 4.0)}
        >>> from monai_landmarks.losses import HeatmapL2Loss
        >>> network = Heads()
        >>> trainer = MultiDatasetTrainer(
        ...     device="cpu",
        ...     max_epochs=1,
        ...     train_data_loader={"head": DataLoader([film(19)] * 2), "hand": DataLoader([film(37)] * 3)},
        ...     network=network,
        ...     optimizer=torch.optim.Adam(network.parameters()),
        ...     loss_function={"head": HeatmapL2Loss(19, 2), "hand": HeatmapL2Loss(37, 2)},
        ... )
        >>> trainer.run()
        >>> sorted(trainer.state.metrics), trainer.state.iteration
        (['hand_loss', 'head_loss'], 5)
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: MultiDatasetLoader | Mapping[str, DataLoader],
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_function: Callable | Mapping[str, Callable] | nn.ModuleDict,
        landmark_names: Mapping[str, Sequence[str]] | None = None,
        weights: str | Mapping[str, float] | None = None,
        temperature: float = 1.0,
        seed: int = 0,
        prepare_batch: Callable | None = None,
        train_handlers: Sequence | None = None,
        optim_set_to_none: bool = True,
        **kwargs: Any,
    ) -> None:
        loader = _as_loader(train_data_loader, weights, temperature, seed)
        _check_epoch_length(kwargs.get("epoch_length"), loader)
        self.losses = _by_dataset(loss_function, loader)
        _check_network(network, loader, self.losses, landmark_names)
        own = [_EpochOfDatasets(), *(() if train_handlers is None else ensure_tuple(train_handlers))]
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=loader,
            network=network,
            optimizer=optimizer,
            loss_function=next(iter(self.losses.values())),  # each step sets its own
            prepare_batch=PrepareDatasetBatch(keep_meta=False) if prepare_batch is None else prepare_batch,
            train_handlers=own,
            optim_set_to_none=optim_set_to_none,
            **kwargs,
        )

    def _iteration(self, engine: SupervisedTrainer, batchdata: dict[str, Any]) -> dict:
        engine.loss_function = self.losses[dataset_of(batchdata)]
        return super()._iteration(engine, batchdata)


class _EpochOfDatasets:
    """Seed what an epoch draws, and average the loss of each data set over it.

    The first of the trainer's handlers, so that all others find the averages.
    """

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self._started)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._loss_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._completed)

    def _started(self, engine: Any) -> None:
        self.losses: dict[str, list[torch.Tensor]] = {name: [] for name in engine.data_loader.loaders}
        engine.data_loader.set_epoch(engine.state.epoch)
        seed = derived_seed(engine.data_loader.seed, engine.state.epoch, "trainer", engine.state.rank)
        torch.manual_seed(seed)
        set_rnd(engine.prepare_batch, seed)

    def _loss_completed(self, engine: Any) -> None:
        # Left on the device: reading a number in each step would make the host wait for it.
        self.losses[dataset_of(engine.state.batch)].append(engine.state.output[CommonKeys.LOSS].detach())

    def _completed(self, engine: Any) -> None:
        means = {f"{name}_loss": torch.stack(values).mean().item() for name, values in self.losses.items() if values}
        engine.state.metrics.update(means)


def check_landmark_names(landmark_names: Mapping[str, Sequence[str]]) -> None:
    """Check that a landmark name stands for one landmark of one data set.

    One table of results, one file of predictions and one list of names go with a network for several data sets.

    Args:
        landmark_names: by data set.

    Raises:
        LandmarkError: naming the landmark and where it occurs.

    Example:
        >>> check_landmark_names({"hand": ["wrist", "tip"], "foot": ["ankle", "tip"]})
        Traceback (most recent call last):
            ...
        monai_landmarks.geometry.points.LandmarkError: data sets 'hand' and 'foot' both have a landmark 'tip': rename one,
        such as to 'foot tip', if they are different anatomy.
    """
    owner: dict[str, str] = {}
    for dataset, names in landmark_names.items():
        for name in names:
            if owner.get(name) == dataset:
                raise LandmarkError(f"data set {dataset!r} names two landmarks {name!r}: give each its own name.")
            if name in owner:
                raise LandmarkError(
                    f"data sets {owner[name]!r} and {dataset!r} both have a landmark {name!r}: rename one, such as to "
                    f"'{dataset} {name}', if they are different anatomy."
                )
            owner[name] = dataset


def _as_loader(
    loader: MultiDatasetLoader | Mapping[str, DataLoader],
    weights: str | Mapping[str, float] | None,
    temperature: float,
    seed: int,
) -> MultiDatasetLoader:
    if not isinstance(loader, (MultiDatasetLoader, Mapping)):
        raise LandmarkError(
            f"`train_data_loader` must be a MultiDatasetLoader or a loader for each data set by name, got "
            f"{type(loader).__name__}; for one data set take MONAI's SupervisedTrainer."
        )
    if isinstance(loader, Mapping):
        return MultiDatasetLoader(loader, weights, temperature, seed=seed)
    if (weights, temperature, seed) != (None, 1.0, 0):
        raise ValueError("`weights`, `temperature` and `seed` go to the MultiDatasetLoader, which is ready here.")
    return loader


def _check_epoch_length(epoch_length: int | None, loader: MultiDatasetLoader) -> None:
    if epoch_length not in (None, len(loader)):
        raise ValueError(
            f"epoch_length={epoch_length}, but the loader's epoch has {len(loader)} batches, and a schedule is drawn for "
            "whole epochs: give `num_batches` to the MultiDatasetLoader instead."
        )


def _by_dataset(loss_function: Any, loader: MultiDatasetLoader) -> dict[str, Callable]:
    if isinstance(loss_function, (Mapping, nn.ModuleDict)):
        return dict(loss_function.items())
    return dict.fromkeys(loader.loaders, loss_function)


def _check_network(
    network: nn.Module,
    loader: MultiDatasetLoader,
    losses: Mapping[str, Callable],
    landmark_names: Mapping[str, Sequence[str]] | None,
) -> None:
    known = getattr(unwrapped(network), "dataset_names", None)
    if known is not None:
        check_datasets((), loader.loaders, "`train_data_loader`", known)
    check_datasets(loader.loaders, losses, "`loss_function`", known)
    if landmark_names is None:
        return
    check_datasets(loader.loaders, landmark_names, "`landmark_names`", known)
    check_landmark_names(landmark_names)
    counts = getattr(unwrapped(network), "num_landmarks", None)
    for dataset, names in landmark_names.items():
        if isinstance(counts, Mapping) and len(names) != counts[dataset]:
            raise LandmarkError(
                f"`landmark_names` has {len(names)} names for data set {dataset!r}, the network predicts {counts[dataset]} "
                "landmarks there: build the network with the number of the list, or give the list it was built for."
            )
