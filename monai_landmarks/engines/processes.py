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
"""What a workflow asks of the run it is in, so that one configuration serves one process and several."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import ignite.distributed as idist
from monai.data import Dataset, DistributedSampler
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from .multi_dataset_loader import count_batches

__all__ = ["check_batches", "data_parallel", "first_process_first", "process_sampler"]

T = TypeVar("T")


def check_batches(loader: DataLoader) -> None:
    """Refuse a training that would end without a single step and leave a network that has learned nothing.

    Args:
        loader: of the training.

    Raises:
        LandmarkError: for a loader without a batch: no film, or with ``drop_last`` fewer than one batch of them.

    Example:
        >>> check_batches(DataLoader(["one film"], batch_size=4, drop_last=True))
        Traceback (most recent call last):
            ...
        monai_landmarks.geometry.points.LandmarkError: data set 'training' has 1 films for this process, fewer than one
        batch of 4, and drop_last leaves incomplete batches out: take a smaller batch size or drop_last=False.
    """
    count_batches("training", loader)


def data_parallel(network: nn.Module) -> nn.Module:
    """Wrap a network such that several processes train it together; in a run of one process give it back as it is.

    Args:
        network: on its device.

    Returns:
        the network, or a ``DistributedDataParallel`` around it.

    Example:
        >>> data_parallel(nn.Conv2d(1, 1, 1))
        Conv2d(1, 1, kernel_size=(1, 1), stride=(1, 1))
    """
    if idist.get_world_size() == 1:
        return network
    device = next(network.parameters()).device
    return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)


def process_sampler(dataset: Dataset, shuffle: bool = False) -> DistributedSampler | None:
    """Divide a data set among the processes of a run, for a loader's ``sampler``.

    Args:
        dataset: with a length.
        shuffle: whether it is trained on: in a random order and as many items in each process, for which some may come
            twice. Without it each item goes to one process.

    Returns:
        the sampler; None in a run of one process, and for fewer items than processes where not ``shuffle``: each process
        then takes all of them, for none may be left without.

    Example:
        >>> process_sampler([1, 2, 3]) is None
        True
    """
    processes = idist.get_world_size()
    if processes == 1 or (not shuffle and len(dataset) < processes):
        return None
    return DistributedSampler(dataset, even_divisible=shuffle, shuffle=shuffle)


def first_process_first(function: Callable[[], T]) -> T:
    """Call a function in the first process and, when it has returned, in the others: they find the file it has written.

    Args:
        function: without arguments.

    Returns:
        what it returns.

    Example:
        >>> first_process_first(lambda: "once")
        'once'
    """
    with idist.one_rank_first():
        return function()
