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
"""Training without labels: it learns, reports its strides, resumes exactly, and no label can reach it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.transforms import RandGaussianNoised
from torch import nn
from training_curve import curve_of

from monai_landmarks.engines.patch_matching_trainer import PatchMatchingTrainer
from monai_landmarks.engines.patch_sampling import PreparePatchMatchingBatch
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.handlers import TrainingCheckpoint
from monai_landmarks.losses.patch_matching import PatchMatchingLoss
from monai_landmarks.networks.blocks.similarity import cosine_similarity, sample_cells
from monai_landmarks.networks.nets.patch_matching_net import PatchMatchingNet


class Matcher(nn.Module):
    """Two strides, one extractor of a few hundred weights for image and patch."""

    strides = (8, 4)

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.MaxPool2d(4),
            nn.Conv2d(16, 16, 3, padding=1),
        )
        self.coarse = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 16, 3, padding=1))

    def embed(self, image: torch.Tensor) -> list[torch.Tensor]:
        fine = self.fine(image)
        return [self.coarse(fine), fine]

    def forward(self, image: torch.Tensor, patch: torch.Tensor, points: torch.Tensor) -> list[torch.Tensor]:
        pairs = zip(self.embed(image), self.embed(patch), self.strides, strict=True)
        return [cosine_similarity(cells, sample_cells(own, points, stride)) for cells, own, stride in pairs]


def films(count: int, shape: tuple[int, int] = (64, 48), **more: Any) -> list[dict[str, Any]]:
    """One drawn anatomy of round spots, a little different on each film."""
    generator = torch.Generator().manual_seed(1)
    rows, columns = torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij")
    places = torch.rand(12, 2, generator=generator) * torch.tensor(shape)
    widths = 2 + 5 * torch.rand(12, generator=generator)
    items = []
    for _ in range(count):
        moved = places + torch.randn(12, 2, generator=generator)
        spots = [
            torch.exp(-((rows - r) ** 2 + (columns - c) ** 2) / (2 * width**2))
            for (r, c), width in zip(moved.tolist(), widths.tolist(), strict=True)
        ]
        items.append({"image": torch.stack(spots).sum(0)[None], **more})
    return items


def trainer_of(
    items: Any = None, network: nn.Module | None = None, epochs: int = 1, **options: Any
) -> PatchMatchingTrainer:
    if network is None:
        torch.manual_seed(0)
        network = Matcher()
    settings: dict[str, Any] = {
        "train_data_loader": DataLoader(Dataset(films(6) if items is None else items), batch_size=3, shuffle=True),
        "optimizer": torch.optim.Adam(network.parameters(), lr=0.01),
        **options,
    }
    trainer = PatchMatchingTrainer("cpu", epochs, network=network, **settings)
    trainer.logger.setLevel(logging.CRITICAL)
    return trainer


# --- learning -----------------------------------------------------------------------------------------------------------


def test_it_learns_to_find_patches() -> None:
    """The share of points whose cell is found on the whole coarse map of 48, on patches of new films."""
    torch.manual_seed(0)
    network = Matcher()
    new = torch.stack([item["image"] for item in films(20)[12:]])
    prepare = PreparePatchMatchingBatch(points_per_patch=20, mode="linear")

    def found() -> float:
        prepare.set_random_state(5)
        image, points, args, _ = prepare({"image": new})
        with torch.no_grad():
            best = network(image, *args)[0].flatten(2).argmax(-1)
        cells = ((points + 0.5) / 8).long()
        return float((best == cells[..., 0] * 6 + cells[..., 1]).float().mean())

    before = found()
    trainer = trainer_of(
        films(12), network, 15, prepare_batch=PreparePatchMatchingBatch(points_per_patch=20, mode="linear")
    )
    curve = curve_of(trainer)
    trainer.run()
    losses = [metrics["unlabelled_loss"] for metrics in curve]
    assert sum(losses[-3:]) / 3 < 0.75 * losses[0]
    assert found() > max(0.3, 2 * before)


def test_the_published_network_is_trained() -> None:
    network = PatchMatchingNet(2, encoder="resnet18", width=0.0625, embedding=4)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trainer = trainer_of(films(6), network)
    trainer.run()
    assert {f"stride_{stride}_loss" for stride in (32, 16, 8, 4, 2)} < set(trainer.state.metrics)
    after = network.state_dict()
    assert not any(torch.equal(before[key], after[key]) for key in before if key.endswith("heads.0.weight"))


# --- an epoch -----------------------------------------------------------------------------------------------------------


def test_the_mean_loss_of_each_stride_is_a_metric_that_handlers_see() -> None:
    parts: list[torch.Tensor] = []

    class Noted(PatchMatchingLoss):
        def levels(self, *args: Any) -> torch.Tensor:
            parts.append(super().levels(*args))
            return parts[-1]

    trainer = trainer_of(epochs=2, loss_function=Noted(window=5))
    steps: list[float] = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: steps.append(engine.state.output["loss"].item())
    )
    curve = curve_of(trainer)
    trainer.run()
    assert len(curve) == 2
    assert len(parts) == 4
    for epoch, metrics in enumerate(curve):
        mean = torch.stack(parts[2 * epoch : 2 * epoch + 2]).mean(0)
        assert [metrics["stride_8_loss"], metrics["stride_4_loss"]] == pytest.approx(mean.tolist(), rel=1e-6)
        assert metrics["unlabelled_loss"] == pytest.approx(sum(steps[2 * epoch : 2 * epoch + 2]) / 2, rel=1e-6)
        assert metrics["unlabelled_loss"] == pytest.approx(mean.sum().item(), rel=1e-6)


def test_several_folders_of_images_of_different_size() -> None:
    loaders = {
        "head": DataLoader(Dataset(films(4)), batch_size=2),
        "hand": DataLoader(Dataset(films(3, (40, 32))), batch_size=1),
    }
    trainer = trainer_of(train_data_loader=loaders)
    trainer.run()
    assert trainer.state.iteration == 5
    assert set(trainer.state.metrics) == {"head_loss", "hand_loss", "stride_8_loss", "stride_4_loss"}


# --- resuming -----------------------------------------------------------------------------------------------------------


def train(folder: Path, epochs: int, resume: bool = False, seed: int = 0) -> dict[str, torch.Tensor]:
    """Everything random takes part: shuffling, the loader's noise, patches, dropout."""
    torch.manual_seed(0)
    network = Matcher(dropout=0.2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    loader = DataLoader(Dataset(films(4), RandGaussianNoised("image", prob=0.7)), batch_size=2, shuffle=True)
    checkpoint = TrainingCheckpoint(folder, {"model": network, "optimizer": optimizer}, resume=resume)
    trainer = trainer_of(
        network=network,
        epochs=epochs,
        train_data_loader=loader,
        optimizer=optimizer,
        seed=seed,
        train_handlers=[checkpoint],
    )
    # A process that is started again has drawn other numbers before.
    torch.manual_seed(epochs)
    trainer.run()
    return network.state_dict()


def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", 4)
    half = train(tmp_path / "cut", 2)
    rest = train(tmp_path / "cut", 4, resume=True)
    assert all(torch.equal(whole[key], rest[key]) for key in whole)
    assert not torch.equal(whole["fine.0.weight"], half["fine.0.weight"])


def test_another_seed_trains_otherwise(tmp_path: Path) -> None:
    one, other = (train(tmp_path / str(seed), 1, seed=seed) for seed in (0, 1))
    assert not torch.equal(one["fine.0.weight"], other["fine.0.weight"])


# --- labels -------------------------------------------------------------------------------------------------------------


class Untouchable:
    """What may be carried about, but not looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"a label was read: {name}")


def collate_with_label(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"image": torch.stack([item["image"] for item in items]), "points": Untouchable()}


def weights_after(items: list[dict[str, Any]], **options: Any) -> dict[str, torch.Tensor]:
    trainer = trainer_of(train_data_loader=DataLoader(Dataset(items), batch_size=2, **options), epochs=2)
    trainer.run()
    return trainer.network.state_dict()


def test_labels_have_no_influence_and_are_not_read() -> None:
    bare = weights_after(films(4))
    poisoned = weights_after(films(4, points=torch.full((3, 2), float("nan")), status=["defined"] * 3))
    untouched = weights_after(films(4), collate_fn=collate_with_label)
    for key, value in bare.items():
        assert torch.equal(value, poisoned[key])
        assert torch.equal(value, untouched[key])


# --- refusals -----------------------------------------------------------------------------------------------------------


def failing_with(words: str) -> DataLoader:
    def collate(items: Any) -> Any:
        raise RuntimeError(words)

    return DataLoader(Dataset(films(2)), batch_size=2, collate_fn=collate)


def test_images_of_different_size_in_a_batch() -> None:
    """Torch says it in other words in a worker process, where MONAI's loader stacks into shared memory."""
    own = DataLoader(Dataset([*films(1), *films(1, (64, 40))]), batch_size=2)
    for loader in (own, failing_with("Trying to resize storage that is not resizable")):
        with pytest.raises(LandmarkError, match=r"differ in size: bring all to one grid.*FitToGridd"):
            trainer_of(train_data_loader=loader).run()


def test_other_errors_of_a_loader_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^damaged$"):
        trainer_of(train_data_loader=failing_with("damaged")).run()


def test_networks_and_losses_that_do_not_fit_are_refused_at_once() -> None:
    with pytest.raises(LandmarkError, match="Conv2d does not say the `strides`"):
        trainer_of(network=nn.Conv2d(1, 1, 1))
    with pytest.raises(LandmarkError, match="MSELoss has no `levels`"):
        trainer_of(loss_function=nn.MSELoss())
    with pytest.raises(ValueError, match="epoch_length=3, but the loader's epoch has 2 batches"):
        trainer_of(epoch_length=3)
    with pytest.raises(LandmarkError, match="'unlabelled' must come as a DataLoader"):
        trainer_of(train_data_loader=[1])


def test_a_wrapped_network_is_looked_into() -> None:
    trainer_of(network=nn.DataParallel(Matcher())).run()
