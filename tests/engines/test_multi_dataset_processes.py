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
"""Two processes train one network on several data sets."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset, DistributedSampler
from torch.nn.parallel import DistributedDataParallel
from two_datasets import LANDMARKS, Universal, augmentation, films, squared

from monai_landmarks.engines.multi_dataset_trainer import MultiDatasetTrainer


def training_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        torch.manual_seed(rank)
        network = DistributedDataParallel(Universal(), find_unused_parameters=True)
        loaders = {}
        for name, count in (("head", 7), ("hand", 4)):
            dataset = Dataset(films(name, count, LANDMARKS[name], 4), augmentation())
            loaders[name] = DataLoader(dataset, sampler=DistributedSampler(dataset), batch_size=1)
        trainer = MultiDatasetTrainer(
            device="cpu",
            max_epochs=2,
            train_data_loader=loaders,
            network=network,
            optimizer=torch.optim.Adam(network.parameters(), lr=0.01, weight_decay=0.01),
            loss_function=squared,
        )
        trainer.logger.setLevel(logging.CRITICAL)
        steps: list[dict[str, Any]] = []

        @trainer.on(Events.ITERATION_COMPLETED)
        def note(engine: Engine) -> None:
            item = engine.state.batch[0]
            weights = {key: value.clone() for key, value in network.module.state_dict().items()}
            steps.append(
                {**{key: item[key] for key in ("dataset", "film")}, "image": item["image"], "weights": weights}
            )

        first = {key: value.clone() for key, value in network.module.state_dict().items()}
        trainer.run()
        torch.save([{"weights": first}, *steps], f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_step_together_on_one_data_set(tmp_path: Path) -> None:
    mp.start_processes(training_process, args=(str(tmp_path),), nprocs=2, start_method="spawn")
    (before, *steps), (_, *others) = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    assert [step["dataset"] for step in steps] == [step["dataset"] for step in others]
    assert [step["dataset"] for step in steps].count("hand") == 4  # 2 films for each rank in each of 2 epochs
    assert len(steps) == 12
    for step, other in zip(steps, others, strict=True):
        assert all(torch.equal(value, other["weights"][key]) for key, value in step["weights"].items())
        moved = {
            key.rsplit(".", 1)[0]
            for key, value in step["weights"].items()
            if not torch.equal(value, before["weights"][key])
        }
        assert moved == {"shared", f"heads.{step['dataset']}"}
        before = step
    for epoch in (slice(0, 6), slice(6, 12)):
        films_seen = [step["film"] for step in (*steps[epoch], *others[epoch]) if step["dataset"] == "hand"]
        assert sorted(films_seen) == [0, 1, 2, 3]
