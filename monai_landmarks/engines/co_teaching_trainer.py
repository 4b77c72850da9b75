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
"""A trainer for noisy labels: two networks tell each other which to believe."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils import ensure_tuple, look_up_option
from torch.utils.data import DataLoader

from ..geometry import LandmarkError, inside, present
from ..handlers.case_table import gathered
from ..handlers.checkpoint_files import unwrapped
from ..losses import WeightedPoints
from ..losses.targets import check_maps
from ..networks.nets.twin_net import TwinNet
from .co_teaching_selection import (
    RankedAmong,
    consistency,
    forget_rate,
    gaussian_error,
    label_weights,
    mean_over_views,
    select_small,
)
from .co_teaching_views import PrepareTwoViewsBatch, TwoViews
from .multi_dataset_trainer import MultiDatasetTrainer
from .schedules import ramp

__all__ = ["CoTeachingLoss", "CoTeachingTrainer"]

PSEUDO_LABELLED = "pseudo_labelled"
REJECTIONS = "rejections"


class Choice(NamedTuple):
    """What a step decided; both ``(B, N)`` and on the device."""

    judged: torch.Tensor
    rejected: torch.Tensor


class CoTeachingLoss:
    r"""The loss of both networks of a step: labels that the other network believes, and agreement of both between views.

    Yin et al. 2022, algorithm 1, for networks f and g, a weak view e and a strong view h of each image:

    .. math:: v_f &= L_{heat}(f) + w \, L_{con}^{self}(f) \quad\text{for each sample and landmark, eq. 17-19} \\
        L &= \ell(f, S_g) + \ell(g, S_f) + c \left(L_{con}^{cross}(f, g) + L_{con}^{cross}(g, f)\right)

    * ``S_f`` are the true labels and the noisy ones with the smallest :math:`v_f`; :math:`\ell` is any loss on landmarks,
      over both views, and learns from the other network's choice. Entries that were not chosen have weight 0, those that
      were have weights which keep the loss's size (:func:`label_weights`).
    * :math:`L_{heat}` is the mean over the views that show the label, :math:`L_{con}^{self}` that of :func:`consistency`,
      both for each sample and landmark. In the public code the latter is one number for the batch, which changes no order.
    * :math:`L_{con}^{cross}`, for *all* entries, compares the strong view of one network with the carried weak view of the
      other. Here the weak prediction is a constant, the target of eq. 20; in the public code gradients flow into it too
      (``detach_target=False``).
    * The share left out, ``w`` and ``c`` rise over ``ramp_epochs``. The paper gives no ``w``; 0.3 is the code's, which
      weighs the other term with 1 - w. Paper and public code have a constant ``c`` (``ramp_cross=False``), with networks
      that know ImageNet. Of networks that know nothing the maps are empty at first, and agreement with empty maps holds
      those of slow landmarks there until selection gives them up (``benchmarks/planted_noise.py``).

    The paper's losses are means over voxels, as :class:`HeatmapMSELoss` is: for a loss that is a sum over voxels choose a
    larger ``cross_weight``.

    Args:
        loss_function: for one network's output and :class:`WeightedPoints`; any of :mod:`monai_landmarks.losses`.
        forget_rate: share of the noisy labels that is left out after the ramp, in [0, 1); 0 selects nothing.
        ramp_epochs: length of the ramps of that share and of the weights.
        self_weight: ``w`` after the ramp; 0 leaves self-consistency out.
        cross_weight: ``c`` after the ramp; 0 leaves cross-consistency out.
        ramp_cross: whether ``c`` rises over ``ramp_epochs``; False has it from the start.
        among: see :func:`select_small`.
        detach_target: whether the carried weak prediction is a constant.
        heatmaps: makes heatmaps ``(B, N, *S)`` of the image's size of a network's output, such as ``torch.sigmoid`` for
            logits; None where the output is that.
        landmark_errors: called with heatmaps and points, gives the error of each label ``(B, N)``; by default
            :func:`gaussian_error`.

    Raises:
        LandmarkError: for a forget rate outside [0, 1), or negative weights.
        ValueError: for an unknown ``among``.

    Attributes:
        epoch: epochs that are over; the trainer sets it.
    """

    def __init__(
        self,
        loss_function: Callable,
        forget_rate: float = 0.8,
        ramp_epochs: float = 30,
        self_weight: float = 0.3,
        cross_weight: float = 1.0,
        ramp_cross: bool = True,
        among: str = RankedAmong.RELATIVE,
        detach_target: bool = True,
        heatmaps: Callable | None = None,
        landmark_errors: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = gaussian_error,
    ) -> None:
        for name, value in (("self_weight", self_weight), ("cross_weight", cross_weight)):
            if not 0 <= value < math.inf:
                raise LandmarkError(f"`{name}` must be 0 or more, got {value}; 0 leaves the term out.")
        self.loss_function, self.heatmaps, self.landmark_errors = loss_function, heatmaps, landmark_errors
        self.highest_rate, self.ramp_epochs = forget_rate, ramp_epochs
        self.self_weight, self.cross_weight = self_weight, cross_weight
        self.ramp_cross, self.detach_target = ramp_cross, detach_target
        self.among = look_up_option(among, RankedAmong)
        self.epoch = 0
        self.choice: Choice | None = None
        self.rate  # noqa: B018 - refuses impossible settings now

    @property
    def rate(self) -> float:
        """Share of the noisy labels that is left out in this epoch."""
        return forget_rate(self.epoch, self.highest_rate, self.ramp_epochs)

    @property
    def _risen(self) -> float:
        """Share of the weights that this epoch has."""
        return ramp(self.epoch, self.ramp_epochs, "linear")

    def __call__(self, outputs: Any, views: TwoViews) -> torch.Tensor:
        """Give the loss of both networks, a scalar.

        Args:
            outputs: pair of the networks' outputs for ``2 B`` images, the weak views first.
            views: of :class:`PrepareTwoViewsBatch`.

        Raises:
            LandmarkError: if the network does not give two outputs, or heatmaps do not fit points or views.
        """
        if not isinstance(outputs, (tuple, list)) or len(outputs) != 2:
            raise LandmarkError(
                f"co-teaching needs the outputs of two networks, got {type(outputs).__name__}: put two into a TwinNet."
            )
        maps = [self._maps(output, views) for output in outputs]
        pairs = [found.chunk(2) for found in maps]
        cross = self.cross_weight * (self._risen if self.ramp_cross else 1)
        needed = bool(cross) or bool(self.self_weight and self.rate)
        carried = [views.carry(weak.detach() if self.detach_target else weak) for weak, _ in pairs] if needed else []
        seen = views.seen(maps[0].shape[2:], maps[0].device)
        points = views.points.flatten(0, 1)

        true = (views.scores >= 1).to(points.device)
        usable = present(views.points[0])
        shown = inside(views.points, maps[0].shape[2:])
        judged = usable & ~true & shown.any(dim=0)
        choices = self._choose(maps, carried, seen, points, shown, judged)
        total = maps[0].new_zeros((), dtype=torch.float32)
        for output, kept in zip(outputs, reversed(choices), strict=True):
            weights = label_weights(kept, true, usable)
            total = total + self.loss_function(output, WeightedPoints(points, torch.cat([weights, weights]))).mean()
        if cross:
            for (_, strong), other in zip(pairs, reversed(carried), strict=True):
                total = total + cross * consistency(strong, other, seen).mean()
        self.choice = Choice(2 * judged, torch.stack([judged & ~kept for kept in choices]).sum(dim=0))
        return total

    def _maps(self, output: Any, views: TwoViews) -> torch.Tensor:
        maps = output if self.heatmaps is None else self.heatmaps(output)
        if not isinstance(maps, torch.Tensor):
            raise LandmarkError(
                f"a network gives {type(maps).__name__}, not heatmaps: say with `heatmaps` how they come out of it, for "
                "example `lambda output: output.fine`."
            )
        maps, _ = check_maps(maps, views.points.flatten(0, 1))
        if tuple(maps.shape[2:]) != tuple(views.strong.shape):
            raise LandmarkError(
                f"heatmaps of {tuple(maps.shape[2:])} voxels for images of {tuple(views.strong.shape)}: predictions of both "
                "views are compared on the image's grid; enlarge them in `heatmaps`."
            )
        return maps

    @torch.no_grad()
    def _choose(
        self,
        maps: Sequence[torch.Tensor],
        carried: Sequence[torch.Tensor],
        seen: torch.Tensor,
        points: torch.Tensor,
        shown: torch.Tensor,
        judged: torch.Tensor,
    ) -> list[torch.Tensor]:
        """Which noisy labels each network believes, two times ``(B, N)``."""
        if not self.rate:
            return [judged] * 2
        weight = self.self_weight * self._risen
        choices = []
        for index, found in enumerate(maps):
            values = mean_over_views(self.landmark_errors(found, points), shown)
            if weight:
                values = values + weight * consistency(found.chunk(2)[1], carried[index], seen)
            choices.append(select_small(values, judged, self.rate, self.among))
        return choices


class CoTeachingTrainer(MultiDatasetTrainer):
    """Train two networks on noisy labels, each on those that the other believes: stage II of EdgeTrans (Yin et al. 2022).

    MONAI's ``SupervisedTrainer`` with :class:`PrepareTwoViewsBatch` and :class:`CoTeachingLoss`, for any heatmap network and
    noisy labels from anywhere: a batch has ``"image"``, ``"points"`` and ``"scores"``, of which 1 is a true label. True
    labels are learnt in every step and never ranked. All others are ranked in every step in which a view shows them,
    whatever their score. The paper has the annotated image in every batch: a loader or sampler that repeats it does this.

    * After each epoch ``engine.state.metrics`` has ``"pseudo_labelled_loss"``, ``"forget_rate"``, and ``"kept_labels"`` and
      ``"rejected_labels"``: how many noisy labels a network was given and not given in the epoch, mean of both networks.
    * With names in the batch (``case_key``) ``engine.state.rejections[case]`` is an int64 tensor ``(2, N)``: how often each
      label of the case was judged, by either network, and how often rejected, over the whole training. It is part of the
      trainer's state in a checkpoint. Of several processes all have the counts of all.
    * As in :class:`MultiDatasetTrainer`, whose loader it uses, everything random is drawn from ``(seed, epoch)``: a resumed
      training ends with the same weights as one never interrupted.
    * Both networks, one optimiser: what a network learns has no gradient for the other.

    Args:
        device: to train on.
        max_epochs: number of epochs.
        train_data_loader: of such batches; or such loaders by name, mixed as in :class:`MultiDatasetLoader`.
        network: a :class:`TwinNet`.
        optimizer: of its parameters.
        loss_function: for the output of one network; see :class:`CoTeachingLoss`, as for the next.
        forget_rate: share of noisy labels that is left out after the ramp; about their share of wrong labels.
        ramp_epochs: length of the ramps.
        self_weight: of self-consistency in the ranking.
        cross_weight: of cross-consistency in the loss, after the ramp.
        ramp_cross: whether that weight rises, too.
        among: "relative", "batch" (published) or "landmark": how entries are ranked, see :func:`select_small`.
        detach_target: whether the other network's weak prediction is a constant.
        heatmaps: makes heatmaps of an output; None where it is that.
        landmark_errors: error of each label, for the ranking.
        prepare_batch: by default ``PrepareTwoViewsBatch()``.
        case_key: of the batch, names of the cases; a batch without it has no record.
        seed: of everything that is drawn.
        train_handlers: of MONAI and Ignite.
        decollate: whether MONAI takes batch and output apart after each step; their sizes differ here.
        weights: with loaders by name, see :class:`MultiDatasetLoader`, as the next.
        temperature: of weights by size.
        kwargs: of ``SupervisedTrainer``: ``amp``, ``compile``, ``inferer``, ...

    Raises:
        LandmarkError: for a network that is no :class:`TwinNet`, a forget rate outside [0, 1), negative weights; else as
            :class:`MultiDatasetTrainer`.

    Example:
        >>> from torch import nn
        >>> from monai_landmarks.losses import HeatmapMSELoss
        >>> film = {"image": torch.rand(1, 16, 16), "points": torch.full((3, 2), 8.0), "scores": torch.zeros(3)}
        >>> network = TwinNet(nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(1, 3, 3, padding=1))
        >>> trainer = CoTeachingTrainer(
        ...     device="cpu",
        ...     max_epochs=1,
        ...     train_data_loader=DataLoader([film] * 4, batch_size=2),
        ...     network=network,
        ...     optimizer=torch.optim.Adam(network.parameters()),
        ...     loss_function=HeatmapMSELoss(sigma=3.0),
        ...     forget_rate=0.5,
        ...     ramp_epochs=0,
        ... )
        >>> trainer.run()
        >>> trainer.state.metrics["kept_labels"], trainer.state.metrics["rejected_labels"]
        (6.0, 6.0)
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: DataLoader | Mapping[str, DataLoader],
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_function: Callable,
        forget_rate: float = 0.8,
        ramp_epochs: float = 30,
        self_weight: float = 0.3,
        cross_weight: float = 1.0,
        ramp_cross: bool = True,
        among: str = RankedAmong.RELATIVE,
        detach_target: bool = True,
        heatmaps: Callable | None = None,
        landmark_errors: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = gaussian_error,
        prepare_batch: Callable | None = None,
        case_key: str = "case",
        seed: int = 0,
        train_handlers: Sequence | None = None,
        decollate: bool = False,
        weights: str | Mapping[str, float] | None = None,
        temperature: float = 1.0,
        **kwargs: Any,
    ) -> None:
        if not isinstance(unwrapped(network), TwinNet):
            raise LandmarkError(
                f"co-teaching trains two networks, got a {type(unwrapped(network)).__name__}: put two of one build into a "
                "TwinNet(first, second)."
            )
        loss = CoTeachingLoss(
            loss_function,
            forget_rate,
            ramp_epochs,
            self_weight,
            cross_weight,
            ramp_cross,
            among,
            detach_target,
            heatmaps,
            landmark_errors,
        )
        loaders = train_data_loader if isinstance(train_data_loader, Mapping) else {PSEUDO_LABELLED: train_data_loader}
        own = _RecordOfChoices(loss, case_key)
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=loaders,
            network=network,
            optimizer=optimizer,
            loss_function=loss,
            weights=weights,
            temperature=temperature,
            seed=seed,
            prepare_batch=PrepareTwoViewsBatch() if prepare_batch is None else prepare_batch,
            train_handlers=[own, *(() if train_handlers is None else ensure_tuple(train_handlers))],
            decollate=decollate,
            **kwargs,
        )


class _RecordOfChoices:
    """Tell the loss the epoch, and count what it chose."""

    def __init__(self, loss: CoTeachingLoss, case_key: str) -> None:
        self.loss, self.case_key = loss, case_key
        self.steps: list[tuple[list[str], Choice]] = []

    def attach(self, engine: Engine) -> None:
        setattr(engine.state, REJECTIONS, {})
        engine.state_dict_user_keys.append(REJECTIONS)
        engine.add_event_handler(Events.EPOCH_STARTED, self._started)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._chosen)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._completed)

    def _started(self, engine: Engine) -> None:
        self.loss.epoch = engine.state.epoch - 1
        self.steps = []

    def _chosen(self, engine: Engine) -> None:
        cases = [str(case) for case in engine.state.batch.get(self.case_key, ())]  # type: ignore[union-attr]
        assert self.loss.choice is not None
        self.steps.append((cases, self.loss.choice))  # left on the device: the host need not wait for it

    def _completed(self, engine: Engine) -> None:
        counted = [(cases, torch.stack([c.long() for c in choice], dim=1).cpu()) for cases, choice in self.steps]
        judged, rejected = (sum(int(table[:, i].sum()) for _, table in counted) / 2 for i in (0, 1))
        engine.state.metrics.update(
            {"forget_rate": self.loss.rate, "kept_labels": judged - rejected, "rejected_labels": rejected}
        )
        record = getattr(engine.state, REJECTIONS)
        for cases, table in gathered(counted):
            for case, row in zip(cases, table, strict=True) if cases else ():
                record[case] = record[case] + row if case in record else row
