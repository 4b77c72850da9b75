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
"""A trainer that needs one annotated image: it teaches a network to register images, by images alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.networks.utils import eval_mode
from monai.utils import ensure_tuple
from torch import nn
from torch.utils.data import DataLoader

from ..geometry import LandmarkError, plain_tensor
from ..handlers.checkpoint_files import unwrapped
from ..networks.blocks.displacement import Registration, folding, warp
from ..networks.nets.registered_exemplar_net import RegisteredExemplarNet
from .multi_dataset_trainer import MultiDatasetTrainer
from .patch_matching_trainer import UNLABELLED, EqualSizesLoader
from .registration_objective import RegistrationObjective
from .registration_pairs import PrepareRegistrationBatch, RegistrationPairs
from .schedules import RegistrationSchedule

__all__ = ["RegistrationTrainer"]

PSEUDO_LANDMARKS = "pseudo_landmarks"


class RegistrationTrainer(MultiDatasetTrainer):
    """Train an :class:`EdgeTransNet` to register images on each other: the first stage of EdgeTrans (Yin et al. 2022).

    MONAI's ``SupervisedTrainer`` with :class:`PrepareRegistrationBatch`, which makes pairs of a batch's images, and
    :class:`RegistrationObjective` with the weights of :class:`RegistrationSchedule`. Of a batch nothing is read but the
    image and the name of the case: what else a loader gives, such as landmarks, has no influence. The landmarks of the one
    annotated image are those of ``exemplar``.

    After each epoch the exemplar is registered on every training image as it is, and back.

    * From the schedule's ``pseudo_epochs`` on its landmarks there are averaged over the epochs (eq. 4): an image's
      pseudo-landmarks, around which the edges of the next epochs' pairs count. A landmark that is missing in the exemplar,
      or was carried out of an image, stays unknown there. They are part of the trainer's state, so that
      :class:`~monai_landmarks.handlers.TrainingCheckpoint` saves them with it.
    * ``engine.state.metrics`` gets ``"exemplar_dissimilarity"``, the mean local loss of the warped exemplar around its
      carried landmarks; ``"cycle_error"``, the mean distance in voxels by which the registration back disagrees;
      ``"lost_landmarks"``, the share that left their image, ``"folded"``, the share of voxels at which fields fold; and
      ``"selection_error"``, the dissimilarity plus the cycle error in halves of the longest side plus the share of lost
      landmarks: what a checkpoint may be chosen by. None of them looks at a label; the public code chose its checkpoint,
      and the step of the cascade, with those of the test set. The cycle alone would choose an untrained network, which
      moves nothing, forth and back.

    The metrics also have the mean of each term, ``"global_loss"`` and so on, the sum ``"unlabelled_loss"`` and the number
    of ``"empty_pairs"`` without overlap. Everything random is drawn from ``(seed, epoch)``: a resumed training ends with
    the same weights as one never interrupted.

    Args:
        device: to train on.
        max_epochs: number of epochs.
        train_data_loader: of dictionaries with "image", on one grid, and "case". It must not turn or move images:
            ``prepare_batch`` does, with the pseudo-landmarks.
        network: called ``network(source, target)``, returns a ``Registration`` and has ``spatial_dims``.
        optimizer: of the network's parameters.
        exemplar: the annotated item: "image" ``(C, *S)``, prepared as the others, "points" ``(N, D)`` voxels, NaN for
            missing, and "case" if it is one of the training images.
        objective: by default ``RegistrationObjective(network.spatial_dims)``.
        schedule: of the weights; by default as published, for 750 epochs.
        scale_schedule: whether to stretch or shrink it to ``max_epochs``.
        momentum: ``tau`` of eq. 4.
        exemplar_loader: of the training images as they are, each once; by default the data set of ``train_data_loader``.
        exemplar_interval: epochs between registrations of the exemplar.
        cycle_tolerance: voxels, of :class:`RegisteredExemplarNet`.
        prepare_batch: by default ``PrepareRegistrationBatch()``.
        seed: of everything that is drawn.
        train_handlers: of MONAI and Ignite.
        decollate: whether MONAI takes batch and output apart after each step; nobody needs this here.
        kwargs: of ``SupervisedTrainer``: ``amp``, ``compile``, ``inferer``, ...

    Attributes:
        exemplar_net: the :class:`RegisteredExemplarNet` of the network in training, which a checkpoint may save.

    Raises:
        LandmarkError: for a single image, batches of one image, an exemplar without image or points or of another grid, a
            network without ``spatial_dims``, images without or with the same case name.
        ValueError: for a momentum outside [0, 1) or an interval below 1.
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: DataLoader,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        exemplar: Mapping[str, Any],
        objective: RegistrationObjective | None = None,
        schedule: RegistrationSchedule | None = None,
        scale_schedule: bool = False,
        momentum: float = 0.9,
        exemplar_loader: Iterable | None = None,
        exemplar_interval: int = 1,
        cycle_tolerance: float = 3.0,
        prepare_batch: Callable | None = None,
        seed: int = 0,
        train_handlers: Sequence | None = None,
        decollate: bool = False,
        **kwargs: Any,
    ) -> None:
        dims = getattr(unwrapped(network), "spatial_dims", None)
        if dims is None:
            raise LandmarkError(
                f"{type(unwrapped(network)).__name__} does not say its `spatial_dims`: give an EdgeTransNet, or a network "
                "with such an attribute that returns a Registration."
            )
        loader = EqualSizesLoader({UNLABELLED: train_data_loader}, seed=seed)
        _check_batches(train_data_loader)
        plan = RegistrationSchedule() if schedule is None else schedule
        self.exemplar_net = _exemplar_net(unwrapped(network), exemplar, cycle_tolerance).to(device)
        loss = _LossOfEpoch(
            RegistrationObjective(dims) if objective is None else objective,
            plan.scaled(max_epochs) if scale_schedule else plan,
        )
        images = _images_as_they_are(train_data_loader) if exemplar_loader is None else exemplar_loader
        watch = _ExemplarOfEpoch(self.exemplar_net, exemplar.get("case"), images, loss, momentum, exemplar_interval)
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=loader,
            network=network,
            optimizer=optimizer,
            loss_function=loss,
            prepare_batch=PrepareRegistrationBatch() if prepare_batch is None else prepare_batch,
            train_handlers=[loss, watch, *(() if train_handlers is None else ensure_tuple(train_handlers))],
            decollate=decollate,
            **kwargs,
        )
        self.state.pseudo_landmarks = {}
        self.state_dict_user_keys.append(PSEUDO_LANDMARKS)


class _LossOfEpoch:
    """The objective with the weights of the epoch, that keeps its terms for the epoch's means."""

    def __init__(self, objective: RegistrationObjective, schedule: RegistrationSchedule) -> None:
        self.objective, self.schedule = objective, schedule
        self.epoch = 0
        self.landmarks: Mapping[str, torch.Tensor] = {}
        self.seen: list[dict[str, torch.Tensor]] = []

    def __call__(self, found: Registration, pairs: RegistrationPairs) -> torch.Tensor:
        parts = self.objective.parts(found, pairs, self._points_of(pairs))
        self.seen.append({name: value.detach() for name, value in parts.items()})  # left on the device
        return self.objective.total(parts, self.schedule.local(self.epoch), self.schedule.synthetic(self.epoch))

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self._started)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._completed)

    def _started(self, engine: Engine) -> None:
        self.seen.clear()
        self.epoch, self.landmarks = engine.state.epoch - 1, getattr(engine.state, PSEUDO_LANDMARKS)

    def _completed(self, engine: Engine) -> None:
        for name in self.seen[0]:
            values = torch.stack([parts[name] for parts in self.seen])
            if name == "empty_pairs":
                engine.state.metrics[name] = int(values.sum())
            else:
                engine.state.metrics[f"{name}_loss"] = values.mean().item()

    def _points_of(self, pairs: RegistrationPairs) -> torch.Tensor | None:
        """Pseudo-landmarks in the voxels of the sources, as they were turned."""
        if not self.landmarks or pairs.cases is None:
            return None
        unknown = torch.full_like(next(iter(self.landmarks.values())), torch.nan)
        half = pairs.cases[: len(pairs.drawn)]
        points = pairs.drawn.to_output(torch.stack([self.landmarks.get(case, unknown) for case in half]).double())
        return points.repeat(2, 1, 1).to(pairs.source.device, torch.float32)


class _ExemplarOfEpoch:
    """Registers the exemplar on all training images after an epoch: pseudo-landmarks and figures to choose by."""

    def __init__(
        self,
        net: RegisteredExemplarNet,
        case: str | None,
        images: Iterable,
        loss: _LossOfEpoch,
        momentum: float,
        interval: int,
    ) -> None:
        if not 0 <= momentum < 1 or interval < 1:
            raise ValueError(
                f"`momentum` must lie in [0, 1) and `exemplar_interval` be 1 or more, got {momentum} and {interval}."
            )
        self.net, self.case, self.images, self.loss = net, case, images, loss
        self.momentum, self.interval = momentum, interval

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        if engine.state.epoch % self.interval and engine.state.epoch != engine.state.max_epochs:
            return
        figures: list[dict[str, torch.Tensor]] = []
        found: dict[str, torch.Tensor] = {}
        with eval_mode(self.net):
            for batch in self.images:
                image = plain_tensor(batch["image"]).to(self.net.exemplar)
                carried = self.net.carry(image)
                lost = carried.confidence == 0
                points = carried.points.masked_fill(lost[..., None], torch.nan).cpu()
                names = [str(case) for case in batch.get("case", ())]
                _check_cases(names, len(image), found)
                found.update(zip(names, points, strict=True))
                figures.append(self._figures(image, carried, lost))
        if engine.state.epoch > self.loss.schedule.pseudo_epochs:
            self._average(getattr(engine.state, PSEUDO_LANDMARKS), found)
        means = {name: torch.cat([each[name] for each in figures]).nanmean().item() for name in figures[0]}
        half = max(self.net.exemplar_shape[1:].tolist()) / 2
        chosen = means["exemplar_dissimilarity"] + means["cycle_error"] / half + means["lost_landmarks"]
        engine.state.metrics.update(means, selection_error=chosen)

    def _figures(self, image: torch.Tensor, carried: Any, lost: torch.Tensor) -> dict[str, torch.Tensor]:
        field = carried.registration.fields[-1].float()
        warped = warp(self.net.exemplar_image().expand(len(image), *image.shape[1:]), field)
        compare = self.loss.objective.local_loss
        points = carried.points.masked_fill(lost[..., None], torch.nan)
        each = [compare(warped[i : i + 1], image[i : i + 1], points[i : i + 1]) for i in range(len(image))]
        there = carried.cycle_error.isfinite()
        return {
            "exemplar_dissimilarity": torch.stack(each),
            "cycle_error": carried.cycle_error.flatten(),
            "lost_landmarks": torch.where(there, lost.float(), torch.nan).flatten(),
            "folded": folding(field),
        }

    def _average(self, table: dict[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> None:
        for case, new in found.items():
            if case == self.case:
                table[case] = self.net.exemplar_points.cpu()
                continue
            old = table.get(case, new)
            mean = self.momentum * old + (1 - self.momentum) * new
            table[case] = torch.where(mean.isnan(), torch.where(old.isnan(), new, old), mean)


def _exemplar_net(network: nn.Module, exemplar: Mapping[str, Any], cycle_tolerance: float) -> RegisteredExemplarNet:
    absent = [key for key in ("image", "points") if key not in exemplar]
    if absent:
        raise LandmarkError(f"the exemplar has no {absent}; it holds {sorted(map(str, exemplar))}.")
    points = plain_tensor(torch.as_tensor(exemplar["points"]))
    net = RegisteredExemplarNet(network, len(points), cycle_tolerance=cycle_tolerance)
    net.set_exemplar(exemplar["image"], points)
    return net


def _check_batches(loader: DataLoader) -> None:
    size, films = loader.batch_size, len(loader.dataset)  # type: ignore[arg-type]
    if films < 2:
        raise LandmarkError(
            f"the data set holds {films} image: a registration is learnt from pairs of different images, so give at least "
            "two, and better a hundred."
        )
    if size == 1 or (size and not loader.drop_last and films % size == 1):
        raise LandmarkError(
            f"{films} images in batches of {size} leave a batch of a single image, which cannot be paired: take another "
            "`batch_size`, of 2 or more, or drop_last=True."
        )


def _images_as_they_are(loader: DataLoader) -> DataLoader:
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size or 1,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
        generator=torch.Generator(),
    )


def _check_cases(names: Sequence[str], count: int, found: Mapping[str, Any]) -> None:
    if len(names) != count:
        raise LandmarkError(
            f'{count} images came with {len(names)} names under "case": pseudo-landmarks are kept by the name of the case, '
            "so let the loader give one for each image."
        )
    twice = [name for name in names if name in found or list(names).count(name) > 1]
    if twice:
        raise LandmarkError(f"case {twice[0]!r} comes twice among the training images: give each its own name.")
