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
"""A configuration asks for samplers and wrapped networks, and gets them where there are several processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from monai_landmarks.engines.processes import check_batches, data_parallel, first_process_first, process_sampler
from monai_landmarks.geometry import LandmarkError


def ask(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    path = Path(folder) / "written"

    def write_once() -> str:
        if not path.exists():
            path.write_text(f"by {rank}")
        return path.read_text()

    try:
        found = {
            "who": first_process_first(write_once),
            "wrapped": isinstance(data_parallel(nn.Linear(1, 1)), DistributedDataParallel),
            "plain": list(process_sampler(range(5))),
            "training": list(process_sampler(range(5), shuffle=True)),
            "few": process_sampler(range(1)),
            "few_training": list(process_sampler(range(1), shuffle=True)),
        }
        torch.save(found, f"{folder}/found_{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_divide_the_items_and_one_goes_first(tmp_path: Path) -> None:
    mp.spawn(ask, (str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / f"found_{rank}.pt", weights_only=True) for rank in range(2)]
    assert [one["who"] for one in found] == ["by 0", "by 0"]
    assert [one["wrapped"] for one in found] == [True, True]
    assert sorted(found[0]["plain"] + found[1]["plain"]) == [0, 1, 2, 3, 4]
    assert len(found[0]["training"]) == len(found[1]["training"]) == 3
    assert set(found[0]["training"] + found[1]["training"]) == {0, 1, 2, 3, 4}
    assert [one["few"] for one in found] == [None, None]
    assert [one["few_training"] for one in found] == [[0], [0]]


def test_one_process_needs_nothing() -> None:
    network = nn.Linear(1, 1)
    assert data_parallel(network) is network
    assert process_sampler(range(5)) is None
    assert process_sampler(range(5), shuffle=True) is None
    assert first_process_first(lambda: 7) == 7


@pytest.mark.parametrize(
    ("films", "words"), [(0, "is empty"), (3, "3 films for this process, fewer than one batch of 4")]
)
def test_a_training_without_a_step_is_refused(films: int, words: str) -> None:
    with pytest.raises(LandmarkError, match=words):
        check_batches(DataLoader(list(range(films)), batch_size=4, drop_last=True))
    check_batches(DataLoader(list(range(4)), batch_size=4, drop_last=True))
