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
"""Batches of several data sets: the same in every run, other ones in every epoch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, DistributedSampler, IterableDataset
from monai.transforms import Compose, RandShiftIntensityd
from torch.utils.data import BatchSampler, RandomSampler, WeightedRandomSampler
from two_datasets import augmentation, films, loaders

from monai_landmarks.engines.multi_dataset_loader import MultiDatasetLoader
from monai_landmarks.geometry import LandmarkError


def epoch_of(loader: MultiDatasetLoader, epoch: int) -> list[dict[str, Any]]:
    loader.set_epoch(epoch)
    return list(loader)


def assert_equal(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    assert [b["dataset"] for b in first] == [b["dataset"] for b in second]
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a["film"], b["film"])
        assert torch.equal(a["image"], b["image"])


def schedule(batches: list[dict[str, Any]]) -> list[str]:
    return [batch["dataset"] for batch in batches]


def test_an_epoch_by_size_is_every_film_once() -> None:
    loader = MultiDatasetLoader(loaders())
    for epoch in (1, 2):
        batches = epoch_of(loader, epoch)
        assert len(batches) == len(loader) == 9
        for name, count in (("head", 5), ("hand", 8)):
            seen = torch.cat([b["film"] for b in batches if b["dataset"] == name])
            assert sorted(seen.tolist()) == list(range(count))
        assert {b["image"].shape[1:] for b in batches if b["dataset"] == "head"} == {(1, 6, 7)}


def test_an_epoch_depends_on_seed_and_number_alone() -> None:
    """Neither on the epochs before, nor on who drew random numbers in between."""
    whole = MultiDatasetLoader(loaders(), seed=3)
    epochs = [epoch_of(whole, epoch) for epoch in range(1, 4)]
    torch.rand(5)
    np.random.rand(5)  # noqa: NPY002
    fresh = MultiDatasetLoader(loaders(), seed=3)
    assert_equal(epoch_of(fresh, 3), epochs[2])
    assert_equal(epoch_of(fresh, 1), epochs[0])
    other = epoch_of(MultiDatasetLoader(loaders(), seed=4), 1)
    assert not all(
        torch.equal(a["image"], b["image"])
        for a, b in zip(other, epochs[0], strict=True)
        if a["dataset"] == b["dataset"]
    )


def test_schedule_shuffling_and_augmentation_are_new_in_each_epoch() -> None:
    loader = MultiDatasetLoader(loaders())
    epochs = [epoch_of(loader, epoch) for epoch in range(6)]
    assert len({tuple(schedule(batches)) for batches in epochs}) > 3
    orders = {tuple(torch.cat([b["film"] for b in e if b["dataset"] == "hand"]).tolist()) for e in epochs}
    assert len(orders) == 6
    first_film = {
        tuple(b["image"].flatten().tolist()) for e in epochs for b in e if b["dataset"] == "head" and b["film"] == 0
    }
    assert len(first_film) > 3


def process_with_workers(rank: int) -> None:
    torch.set_num_threads(1)

    def make() -> MultiDatasetLoader:
        items = [{"image": torch.zeros(1, 2, 2), "film": i} for i in range(4)]
        dataset = Dataset(items, Compose([RandShiftIntensityd("image", offsets=1.0, prob=1.0)]))
        return MultiDatasetLoader({"head": torch.utils.data.DataLoader(dataset, shuffle=True, num_workers=2)})

    whole = make()
    epochs = [epoch_of(whole, epoch) for epoch in (1, 2)]
    assert_equal(epoch_of(make(), 2), epochs[1])
    assert len({batch["image"].flatten()[0].item() for epoch in epochs for batch in epoch}) == 8


@pytest.mark.slow
def test_workers_draw_from_seed_and_epoch_and_not_all_the_same() -> None:
    """PyTorch's own loader starts every worker with a copy of the same random state.

    In a fresh process of one thread, for workers forked from one with OpenMP threads can hang.
    """
    torch.multiprocessing.start_processes(process_with_workers, nprocs=1, start_method="spawn")


def test_more_batches_than_there_are_go_round_again_newly_shuffled() -> None:
    data = {"head": films("head", 40, 3, 4), "hand": films("hand", 4, 2, 4)}
    loader = MultiDatasetLoader(
        {name: DataLoader(Dataset(items, augmentation()), batch_size=1, shuffle=True) for name, items in data.items()},
        weights={"head": 1, "hand": 2},
        num_batches=48,
    )
    batches = epoch_of(loader, 1)
    assert Counter(schedule(batches)) == {"head": 16, "hand": 32}
    hand = [b["film"].item() for b in batches if b["dataset"] == "hand"]
    rounds = [tuple(hand[i : i + 4]) for i in range(0, 32, 4)]
    assert all(sorted(r) == [0, 1, 2, 3] for r in rounds)
    assert len(set(rounds)) > 3
    images = {b["image"].sum().item() for b in batches if b["dataset"] == "hand"}
    assert len(images) > 16


@pytest.mark.parametrize("kind", ["weighted", "batch_sampler", "users_generator", "cache"])
def test_every_kind_of_loader_is_reproducible(kind: str) -> None:
    def make() -> DataLoader:
        items = films("head", 6, 3, 4)
        dataset = Dataset(items, augmentation())
        if kind == "weighted":
            return DataLoader(dataset, sampler=WeightedRandomSampler([1.0] * 6, 6))
        if kind == "batch_sampler":
            return DataLoader(dataset, batch_sampler=BatchSampler(RandomSampler(dataset), 2, False))
        if kind == "users_generator":
            return DataLoader(dataset, shuffle=True, generator=torch.Generator())
        return DataLoader(CacheDataset(items, augmentation(), progress=False), shuffle=True)

    loader = MultiDatasetLoader({"head": make()})
    epochs = [epoch_of(loader, epoch) for epoch in (1, 2)]
    assert_equal(epoch_of(MultiDatasetLoader({"head": make()}), 2), epochs[1])
    assert any(not torch.equal(a["film"], b["film"]) for a, b in zip(*epochs, strict=True))


def test_ranks_share_the_schedule_and_divide_the_films() -> None:
    batches = []
    for rank in range(2):
        by_name = {}
        for name, count in (("head", 6), ("hand", 7)):
            dataset = Dataset(films(name, count, 2, 4), augmentation())
            by_name[name] = DataLoader(dataset, sampler=DistributedSampler(dataset, num_replicas=2, rank=rank))
        batches.append([epoch_of(MultiDatasetLoader(by_name), epoch) for epoch in (1, 2)])
    for first, second in zip(*batches, strict=True):
        assert schedule(first) == schedule(second)
        seen = [[b["film"].item() for b in half if b["dataset"] == "head"] for half in (first, second)]
        assert sorted(seen[0] + seen[1]) == list(range(6))
    orders = [[b["film"].item() for b in epoch if b["dataset"] == "hand"] for epoch in batches[0]]
    assert orders[0] != orders[1]


def test_uneven_division_is_refused() -> None:
    dataset = Dataset(films("head", 5, 2, 4))
    uneven = DataLoader(dataset, sampler=DistributedSampler(dataset, even_divisible=False, num_replicas=2, rank=0))
    with pytest.raises(LandmarkError, match=r"'head' is divided unevenly \(5 films among 2 processes\)"):
        MultiDatasetLoader({"head": uneven})


def test_leaving_an_epoch_half_way_changes_no_other() -> None:
    loader = MultiDatasetLoader(loaders())
    wanted = epoch_of(loader, 2)
    loader.set_epoch(1)
    half = iter(loader)
    next(half)
    loader.set_epoch(2)
    assert_equal(list(loader), wanted)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: {}, "`loaders` is empty"),
        (lambda: {"head": [1, 2]}, "data set 'head' must come as a DataLoader of PyTorch or MONAI, got list"),
        (
            lambda: {**loaders(), "chest": DataLoader(Dataset([]))},
            "data set 'chest' is empty: its data list names no film",
        ),
        (
            lambda: {"chest": DataLoader(Dataset(films("chest", 3, 2, 4)), batch_size=4, drop_last=True)},
            "'chest' has 3 films for this process, fewer than one batch of 4, and drop_last",
        ),
        (lambda: {"chest": DataLoader(IterableDataset(films("chest", 3, 2, 4)))}, "'chest' has no length"),
        (lambda: loaders(2, persistent_workers=True), "'head' has persistent_workers=True"),
    ],
    ids=["nothing", "no loader", "empty", "less than a batch", "iterable", "persistent"],
)
def test_bad_loaders_are_refused_at_once(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MultiDatasetLoader(make())


def test_bad_numbers_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="1 batches in an epoch are too few for 2 data sets"):
        MultiDatasetLoader(loaders(), num_batches=1)
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        MultiDatasetLoader(loaders(), seed=-1)
    with pytest.raises(LandmarkError, match="unknown data set 'hnd'"):
        MultiDatasetLoader(loaders(), {"head": 1, "hand": 1, "hnd": 1})


def test_a_batch_is_of_the_data_set_it_says() -> None:
    def first(entries: list[str], batch_size: int = 2) -> dict[str, Any]:
        items = [{"image": torch.zeros(1, 2, 2), "dataset": name} for name in entries]
        return next(iter(MultiDatasetLoader({"head": DataLoader(items, batch_size=batch_size)})))

    assert first(["head", "head"])["dataset"] == "head"
    with pytest.raises(LandmarkError, match="a batch mixes data sets: the loader of 'head' yields films of 'hand'"):
        first(["head", "hand"])
    with pytest.raises(
        LandmarkError, match=r"a batch mixes data sets.*yields films of 'hand', 'chest'.*loader of its own"
    ):
        first(["hand", "chest"])
    tensors = DataLoader([torch.zeros(1, 2, 2)])
    with pytest.raises(LandmarkError, match=r"loader of data set 'head' yields .*Tensor; a batch must be a dictionary"):
        next(iter(MultiDatasetLoader({"head": tensors})))
