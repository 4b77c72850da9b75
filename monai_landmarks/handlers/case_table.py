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
"""What the handlers that write one table of all cases share: collect, gather from all processes, refuse twins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch.distributed as dist
from ignite.engine import Events
from monai.data import decollate_batch

from ..geometry import LandmarkError

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["CaseTableSaver"]

T = TypeVar("T")


class CaseTableSaver(ABC, Generic[T]):
    """Collect something of every case of an epoch and write it at its end; a subclass says what and how.

    The cases of all processes are gathered and one process writes; a case that a distributed sampler repeated appears once,
    and two different ones of one name are refused. Each epoch starts anew.

    Args:
        batch_transform: takes from ``engine.state.batch`` the cases' dictionaries, a list or a collated one.
        output_transform: takes from ``engine.state.output`` those of the same cases.
        save_rank: the process that writes.
    """

    def __init__(
        self,
        batch_transform: Callable[[Any], Any] = lambda x: x,
        output_transform: Callable[[Any], Any] = lambda x: x,
        save_rank: int = 0,
    ) -> None:
        self.batch_transform, self.output_transform, self.save_rank = batch_transform, output_transform, save_rank
        self._cases: list[tuple[str, T]] = []

    @abstractmethod
    def _case(self, item: Mapping[Any, Any]) -> tuple[str, T]:
        """Give the name and what is kept of a case, from what batch and output have of it."""

    @abstractmethod
    def _check_twins(self, name: str, one: T, other: T) -> None:
        """Raise if two cases of one name are not the same case twice."""

    @abstractmethod
    def _write(self, cases: dict[str, T]) -> None:
        """Write all cases, which are sorted by name."""

    def attach(self, engine: Engine) -> None:
        """Follow the engine's epochs.

        Args:
            engine: an evaluator, or any engine whose output has one dictionary per case.
        """
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def start(self, engine: Engine | None = None) -> None:
        """Forget the cases of the epoch before.

        Args:
            engine: not used.
        """
        self._cases = []

    def __call__(self, engine: Engine) -> None:
        """Collect the cases of one iteration.

        Args:
            engine: with the batch and the output of the iteration.
        """
        batch = _items_of(self.batch_transform(engine.state.batch))
        output = _items_of(self.output_transform(engine.state.output))
        if len(batch) != len(output):
            raise LandmarkError(
                f"the batch has {len(batch)} items and the output {len(output)}: they must be the same cases."
            )
        self._cases.extend(self._case({**b, **o}) for b, o in zip(batch, output, strict=True))

    def write(self, engine: Engine | None = None) -> None:
        """Gather the cases of all processes and write the file.

        Args:
            engine: not used.
        """
        unique: dict[str, T] = {}
        for name, case in gathered(self._cases):
            self._check_twins(name, unique.setdefault(name, case), case)
        if (dist.get_rank() if dist.is_available() and dist.is_initialized() else 0) == self.save_rank:
            self._write({name: unique[name] for name in sorted(unique)})


def _items_of(value: Any) -> list[Mapping[Any, Any]]:
    """One dictionary per case from a decollated list or a collated dictionary."""
    items = decollate_batch(dict(value)) if isinstance(value, Mapping) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, Mapping) for item in items):
        raise LandmarkError(
            f"dictionaries are needed, one per case or collated, got {type(value).__name__}: give batch_transform and "
            "output_transform."
        )
    return list(items)


def gathered(cases: list[T]) -> list[T]:
    """The items of all processes."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return cases
    # Objects, not tensors: a process may have no case at all, and then knows neither N nor D.
    each: list[list[T]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(each, cases)
    return [case for part in each for case in part]
