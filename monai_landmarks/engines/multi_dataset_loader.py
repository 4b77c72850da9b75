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
"""Batches of several data sets, one data set at a time, in an order drawn anew in every epoch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from monai.data.utils import set_rnd, worker_init_fn
from torch.utils.data import DataLoader

from ..data.landmarks import quoted
from ..geometry import LandmarkError
from .dataset_mixing import derived_seed, draw_schedule, mixing_proportions
from .prepare_batch import DATASET

__all__ = ["MultiDatasetLoader"]

# More epochs than a training has: a second round through a data set shuffles as no epoch does.
ROUND = 1_000_000


class MultiDatasetLoader:
    """Yield batches of several data sets mixed at random, each batch of one data set and with its name.

    A batch never mixes data sets. They differ in image size, channels and number of landmarks, so that their films do not
    stack; and a universal network has its own normalisation statistics, depth-wise filters and heads for each of them,
    which only a batch of that data set can train.

    **Every epoch is drawn from ``(seed, epoch)`` alone**: the schedule, the shuffling inside each data set and MONAI's
    random transforms, in the main process or in workers. A training that is resumed after epoch 7 sees in epoch 8 exactly
    what it would have seen without the interruption. Say the epoch with :meth:`set_epoch`, as for PyTorch's
    ``DistributedSampler``; :class:`MultiDatasetTrainer` does. Without it every epoch is the same.

    The paper of the universal landmark detector (Zhu et al. 2021) mixes "randomly by batch". Its published code drew one
    schedule before the first epoch and used it in all of them; here every epoch has its own.

    With ``weights="size"`` and no ``num_batches`` an epoch is every data set once through. A data set that is drawn more
    often than it has batches goes round again, newly shuffled.

    In a run of several processes all ranks draw the same schedule, so that every step is of the same data set everywhere;
    augmentation differs between ranks, and films do with a ``DistributedSampler`` in each loader.

    The loaders' and samplers' generators are set where there are none, and a PyTorch loader with workers gets MONAI's
    ``worker_init_fn``. While an epoch runs, each loader keeps its own workers.

    Args:
        loaders: PyTorch or MONAI loader by name of the data set. Each keeps its own transforms and batch size.
        weights: "size" (also None), "equal", or a positive number for each data set: see :func:`mixing_proportions`.
        temperature: of "size"; larger is closer to equal.
        num_batches: in an epoch, by default the sum of all loaders' lengths.
        seed: of everything that is drawn.

    Yields:
        the loader's batch, with ``"dataset"`` set to the name.

    Raises:
        LandmarkError: without loaders; for a loader without batches, of unknown length, or of different length on the
            ranks; in iterating for a batch that is no dictionary, or that says itself that it is of another data set.
        ValueError: for fewer batches than data sets, a negative seed, or workers that persist, whose random state would
            depend on where the training began.

    Example:
        >>> films = {name: [{"image": torch.zeros(1, 4, 4)}] * count for name, count in (("head", 4), ("hand", 6))}
        >>> loader = MultiDatasetLoader({name: DataLoader(items, batch_size=2) for name, items in films.items()})
        >>> loader.set_epoch(1)
        >>> [batch["dataset"] for batch in loader]
        ['hand', 'hand', 'hand', 'head', 'head']
        >>> loader.set_epoch(2)
        >>> [batch["dataset"] for batch in loader]
        ['head', 'hand', 'head', 'hand', 'hand']
    """

    def __init__(
        self,
        loaders: Mapping[str, DataLoader],
        weights: str | Mapping[str, float] | None = "size",
        temperature: float = 1.0,
        num_batches: int | None = None,
        seed: int = 0,
    ) -> None:
        if not loaders:
            raise LandmarkError("`loaders` is empty: give a DataLoader for each data set, by name.")
        if seed < 0:
            raise ValueError(f"`seed` must not be negative, got {seed}.")
        self.loaders = dict(loaders)
        sizes = {name: count_batches(name, loader) for name, loader in self.loaders.items()}
        self.proportions = mixing_proportions(sizes, weights, temperature)
        self.num_batches = sum(sizes.values()) if num_batches is None else num_batches
        if self.num_batches < len(sizes):
            raise ValueError(
                f"{self.num_batches} batches in an epoch are too few for {len(sizes)} data sets: some would never be drawn."
            )
        self.seed, self.epoch = seed, 0
        for loader in self.loaders.values():
            _make_seedable(loader)

    def __len__(self) -> int:
        return self.num_batches

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is.

        Args:
            epoch: its number, 0 or larger.
        """
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # A generator: the epoch is read when the first batch is asked for, which engines do after they said it.
        epoch = self.epoch
        rng = np.random.default_rng(derived_seed(self.seed, epoch))
        batches = {name: self._rounds(name, epoch) for name in self.loaders}
        for name in draw_schedule(self.proportions, self.num_batches, rng):
            yield _named(next(batches[name]), name)

    def _rounds(self, name: str, epoch: int) -> Iterator[Any]:
        """Give the batches of one data set, round after round."""
        loader = self.loaders[name]
        for turn in itertools.count():
            for sampler in _samplers(loader):
                if hasattr(sampler, "set_epoch"):
                    sampler.set_epoch(epoch + turn * ROUND)
            seed = derived_seed(self.seed, epoch, name, turn, _rank())
            for drawing in (loader, *_samplers(loader)):
                if isinstance(getattr(drawing, "generator", None), torch.Generator):
                    drawing.generator.manual_seed(seed)
            set_rnd(loader.dataset, seed)
            yield from loader


def count_batches(name: str, loader: DataLoader) -> int:
    if not isinstance(loader, DataLoader):
        raise LandmarkError(
            f"data set {name!r} must come as a DataLoader of PyTorch or MONAI, got {type(loader).__name__}."
        )
    if loader.persistent_workers:
        raise ValueError(
            f"the loader of data set {name!r} has persistent_workers=True: such workers keep their random state from epoch "
            "to epoch, and a resumed training would augment differently. Leave the option out."
        )
    try:
        count, films = len(loader), len(loader.dataset)  # type: ignore[arg-type]
    except TypeError as error:
        raise LandmarkError(
            f"data set {name!r} has no length: mixing needs to know its number of batches, so give a map-style data set."
        ) from error
    if films == 0:
        raise LandmarkError(
            f"data set {name!r} is empty: its data list names no film. Look at the folder it reads, or leave its loader out."
        )
    if count == 0:
        raise LandmarkError(
            f"data set {name!r} has {films} films for this process, fewer than one batch of {loader.batch_size}, and "
            "drop_last leaves incomplete batches out: take a smaller batch size or drop_last=False."
        )
    for sampler in _samplers(loader):
        if getattr(sampler, "total_size", 0) % getattr(sampler, "num_replicas", 1):
            raise LandmarkError(
                f"data set {name!r} is divided unevenly ({sampler.total_size} films among {sampler.num_replicas} "
                "processes): the ranks would draw different schedules and wait for each other. Give its DistributedSampler "
                "even_divisible=True."
            )
    return count


def _make_seedable(loader: DataLoader) -> None:
    for drawing in (loader, *_samplers(loader)):
        if getattr(drawing, "generator", loader) is None:
            drawing.generator = torch.Generator()
    if loader.num_workers > 0 and loader.worker_init_fn is None:
        loader.worker_init_fn = worker_init_fn


def _samplers(loader: DataLoader) -> list[Any]:
    """Give the samplers of films and of batches; a loader has either or both."""
    batch_sampler = loader.batch_sampler
    candidates = (loader.sampler, batch_sampler, getattr(batch_sampler, "sampler", None))
    return list({id(s): s for s in candidates if s is not None}.values())


def _named(batch: Any, name: str) -> dict[str, Any]:
    if not isinstance(batch, Mapping):
        raise LandmarkError(
            f"the loader of data set {name!r} yields {type(batch).__name__}; a batch must be a dictionary with an image "
            "and points."
        )
    own = batch.get(DATASET, name)
    others = [n for n in dict.fromkeys([own] if isinstance(own, str) else own) if n != name]
    if others:
        raise LandmarkError(
            f"a batch mixes data sets: the loader of {name!r} yields films of {quoted(map(str, others))}. Every step is of "
            "one data set, for each has its own normalisation and heads: give each data set a loader of its own films."
        )
    return {**batch, DATASET: name}


def _rank() -> int:
    parallel = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_rank() if parallel else 0
