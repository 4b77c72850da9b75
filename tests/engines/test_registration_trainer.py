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
"""Training of a registration with one annotated image: it learns, resumes exactly, and no other label can reach it."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.transforms import RandGaussianNoised
from torch import nn
from training_curve import curve_of

from monai_landmarks.engines.registration_objective import RegistrationObjective
from monai_landmarks.engines.registration_pairs import PrepareRegistrationBatch
from monai_landmarks.engines.registration_trainer import RegistrationTrainer
from monai_landmarks.engines.schedules import RegistrationSchedule
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.handlers import LowestErrorCheckpoint, TrainingCheckpoint
from monai_landmarks.losses.registration import InverseConsistencyLoss
from monai_landmarks.networks.blocks.displacement import Registration, affine_displacement, warp
from monai_landmarks.networks.nets.edge_trans_net import EdgeTransNet

NAN = float("nan")
SHAPE = (32, 24)
POINTS = torch.tensor([[8.0, 9.5], [20.0, 7.0], [NAN, NAN], [24.25, 16.0]])


class TinyRegistration(nn.Module):
    """A shift of the whole image, and one local step: a few hundred weights."""

    spatial_dims = 2

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(2, 8, 5, 2, 2), nn.ReLU(), nn.Dropout(dropout), nn.Conv2d(8, 16, 5, 2, 2), nn.ReLU()
        )
        self.shift = nn.Linear(16 * 6 * 8, 2)
        self.local = nn.Conv2d(16, 2, 3, padding=1)
        nn.init.normal_(self.shift.weight, std=1e-3)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> Registration:
        features = self.trunk(torch.cat([source, target], dim=1))
        shift = 10 * torch.tanh(self.shift(features.flatten(1)))
        affine = torch.cat([torch.eye(2).expand(len(source), -1, -1), shift[..., None]], dim=-1)
        start = affine_displacement(affine, source.shape[2:])
        features = self.trunk(torch.cat([warp(source, start), target], dim=1))
        phi = nn.functional.interpolate(torch.tanh(self.local(features)), source.shape[2:], mode="bilinear")
        return Registration(affine, [phi], [start, affine_displacement(affine, source.shape[2:], first=phi)])


def films(count: int, spread: float = 2.0, **more: Any) -> list[dict[str, Any]]:
    """One anatomy of three spots, at POINTS, moved as a whole on each film but the first."""
    generator = torch.Generator().manual_seed(1)
    voxels = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in SHAPE), indexing="ij"), dim=-1)
    items = []
    for number in range(count):
        moved = POINTS[[0, 1, 3]] + (number > 0) * spread * torch.randn(1, 2, generator=generator)
        widths = torch.tensor([2.0, 3.0, 2.5])
        distance = (voxels[:, :, None] - moved).square().sum(-1)
        image = torch.exp(-distance / (2 * widths**2)).sum(-1).clamp(max=1)
        items.append({"image": image[None], "case": f"{number:03d}", **more})
    return items


def exemplar(**more: Any) -> dict[str, Any]:
    return {"image": films(1)[0]["image"], "points": POINTS, "case": "000", **more}


def trainer_of(
    items: Any = None, network: nn.Module | None = None, epochs: int = 2, **options: Any
) -> RegistrationTrainer:
    if network is None:
        torch.manual_seed(0)
        network = TinyRegistration()
    settings: dict[str, Any] = {
        "train_data_loader": DataLoader(Dataset(films(4) if items is None else items), batch_size=2, shuffle=True),
        "optimizer": torch.optim.Adam(network.parameters(), lr=0.003),
        "exemplar": exemplar(),
        "schedule": RegistrationSchedule(2, 4, pseudo_epochs=1),
        **options,
    }
    trainer = RegistrationTrainer("cpu", epochs, network=network, **settings)
    trainer.logger.setLevel(logging.CRITICAL)
    return trainer


# Learning


def test_it_learns_to_carry_the_landmarks() -> None:
    """Against where the spots are drawn; of this the training knows nothing."""
    items = films(16, 3.0)
    generator = torch.Generator().manual_seed(1)
    moved = torch.stack([torch.randn(1, 2, generator=generator) for _ in range(16)])
    truth = POINTS + 3.0 * moved * (torch.arange(16) > 0)[:, None, None]
    still = {"rotate_prob": 0.0, "scale_range": 0.0, "warp_scale_range": 0.0, "warp_rotate_range": 0.0}
    prepare = PrepareRegistrationBatch(**still, warp_shear_range=0.0, warp_perspective_range=0.0)
    trainer = trainer_of(
        items,
        epochs=20,
        train_data_loader=DataLoader(Dataset(items), batch_size=8, shuffle=True),
        prepare_batch=prepare,
        objective=RegistrationObjective(2, inverse_weight=0.001),
        schedule=RegistrationSchedule(10, 20, pseudo_epochs=18),
        exemplar_interval=10,
    )
    curve = curve_of(trainer)
    images = torch.stack([item["image"] for item in items])
    before = (trainer.exemplar_net.carry(images).points - truth).norm(dim=-1).nanmean()
    trainer.run()
    after = (trainer.exemplar_net.eval().carry(images).points - truth).norm(dim=-1).nanmean()
    assert after < 0.6 * before
    assert curve[-1]["selection_error"] < curve[9]["selection_error"]
    assert curve[-1]["global_loss"] < 0.7 * curve[0]["global_loss"]


@pytest.mark.parametrize("shape", [SHAPE, (17, 24, 19)])
def test_the_published_network_is_trained(shape: tuple[int, ...]) -> None:
    dims = len(shape)
    network = EdgeTransNet(dims, encoder="resnet18", width=0.0625, channels=4, layers=1, norm="group")
    before = {key: value.clone() for key, value in network.named_parameters()}
    generator = torch.Generator().manual_seed(2)
    items = [{"image": torch.rand(1, *shape, generator=generator), "case": str(number)} for number in range(4)]
    points = torch.tensor([[8.0, 9.5, 7.0], [12.0, 7.0, 9.0]])[:, :dims]
    trainer = trainer_of(items, network, epochs=3, exemplar={**items[0], "points": points})
    trainer.run()
    moved = [key for key, value in network.named_parameters() if not torch.equal(before[key], value)]
    assert any(key.startswith("affine_head") for key in moved)
    assert any(key.startswith("local_head") for key in moved)
    assert math.isfinite(trainer.state.metrics["selection_error"])
    assert torch.equal(trainer.state.pseudo_landmarks["0"], points)
    assert all(found.shape == (2, dims) for found in trainer.state.pseudo_landmarks.values())


# The objective


def pairs_of(count: int = 4, seed: int = 0, **options: Any) -> Any:
    images = torch.stack([item["image"] for item in films(count)])
    return PrepareRegistrationBatch(**options).set_random_state(seed)({"image": images})[1]


def fields_of(field: torch.Tensor, phi: torch.Tensor | None = None) -> Registration:
    phi = torch.zeros_like(field) if phi is None else phi
    return Registration(torch.eye(2, 3).expand(len(field), -1, -1), [phi], [field, field])


def test_the_true_fields_have_no_synthetic_loss_and_unmoved_images_no_inverse() -> None:
    pairs = pairs_of()
    found = fields_of(torch.cat([pairs.true_field, torch.zeros_like(pairs.true_field)]))
    parts = RegistrationObjective(2).parts(found, pairs)
    assert parts["synthetic"].item() == 0
    assert parts["inverse"].item() == 0
    assert parts["smoothness"].item() == 0
    assert parts["empty_pairs"].item() == 0
    unmoved = RegistrationObjective(2).parts(fields_of(torch.zeros(8, 2, *SHAPE)), pairs)
    assert unmoved["synthetic"].item() > 1e-3
    assert unmoved["local"] > parts["local"]


def test_inverse_consistency_is_between_the_pairs_of_two_images() -> None:
    """Opposite shifts of a pair and its partner undo each other; equal ones do not: 2 voxels each are 4 in all.

    In halves of the grid's first side, mean over two axes.
    """
    pairs = pairs_of(rotate_prob=0.0)
    shift = torch.zeros(8, 2, *SHAPE)
    for pair, back in enumerate(pairs.backward.tolist()):
        shift[pair, 0] = 0 if back < 0 else 2 * (1 if pair < back else -1)
    objective = RegistrationObjective(2)
    assert objective.parts(fields_of(shift), pairs)["inverse"].item() == pytest.approx(0, abs=1e-6)
    assert objective.parts(fields_of(shift.abs()), pairs)["inverse"].item() == pytest.approx(
        (4 / ((SHAPE[0] - 1) / 2)) ** 2 / 2, rel=1e-4
    )
    assert RegistrationObjective(2, inverse_weight=0).parts(fields_of(shift.abs()), pairs)["inverse"].item() == 0
    released = RegistrationObjective(2, inverse_loss=InverseConsistencyLoss("negated"))
    assert 0 < released.parts(fields_of(shift), pairs)["inverse"].item() < 2
    assert objective.parts(fields_of(torch.ones(6, 2, *SHAPE)), pairs_of(3))["inverse"].item() == 0, (
        "nobody has a partner"
    )


def test_weights_are_those_of_equations_11_and_12() -> None:
    names = ("global", "local", "smoothness", "inverse", "synthetic")
    parts = {name: torch.tensor(float(10**power)) for power, name in enumerate(names)}
    total = RegistrationObjective(2).total(parts, 0.5, 5.0)
    assert total.item() == 1 + 0.5 * (10 + 1 * 100 + 0.25 * 1000 + 5 * 10000)


def test_pairs_without_overlap_are_counted_and_the_loss_stays_finite() -> None:
    pairs = pairs_of()
    away = torch.zeros(8, 2, *SHAPE, requires_grad=True)
    far = away + torch.tensor([500.0, 0.0]).reshape(1, 2, 1, 1) * (torch.arange(8) < 3).reshape(-1, 1, 1, 1)
    parts = RegistrationObjective(2).parts(fields_of(far), pairs, POINTS.expand(8, -1, -1))
    loss = RegistrationObjective(2).total(parts, 1.0, 5.0)
    loss.backward()
    assert parts["empty_pairs"].item() == 3
    assert math.isfinite(loss.item())
    assert away.grad is not None
    assert away.grad.isfinite().all()


# Pseudo-landmarks and metrics


def test_pseudo_landmarks_are_a_moving_average_of_what_was_carried() -> None:
    trainer = trainer_of(films(4), epochs=4, schedule=RegistrationSchedule(2, 4, pseudo_epochs=1), momentum=0.8)
    images = torch.stack([item["image"] for item in films(4)])
    seen: list[torch.Tensor] = []

    def carried(_: Engine) -> None:
        trainer.exemplar_net.eval()
        seen.append(trainer.exemplar_net.carry(images).points)

    trainer.add_event_handler(Events.EPOCH_COMPLETED, carried)
    trainer.run()
    expected = seen[1]
    for each in seen[2:]:
        expected = 0.8 * expected + 0.2 * each
    table = trainer.state.pseudo_landmarks
    assert sorted(table) == ["000", "001", "002", "003"]
    torch.testing.assert_close(table["000"], POINTS, equal_nan=True)
    for number in (1, 2, 3):
        torch.testing.assert_close(table[f"{number:03d}"], expected[number], equal_nan=True)
        assert table[f"{number:03d}"][2].isnan().all(), "missing in the exemplar, missing everywhere"


def test_pseudo_landmarks_reach_the_local_loss_where_the_turned_source_has_them() -> None:
    given: list[torch.Tensor | None] = []
    objective = RegistrationObjective(2)
    local = objective.local_loss

    def noted(warped: Any, target: Any, points: Any = None, mask: Any = None) -> torch.Tensor:
        given.append(points)
        return local(warped, target, points, mask)

    objective.local_loss = noted
    trainer = trainer_of(films(4), epochs=2, objective=objective, exemplar_interval=5)
    trainer.state.pseudo_landmarks = {"001": POINTS + 1}
    trainer.run()
    in_steps = [points for points in given if points is not None and len(points) > 1]
    assert in_steps
    found = torch.cat(in_steps).isfinite().all(-1)
    # One of four films has landmarks, as a source twice in each epoch; three of the exemplar's four are there.
    assert found.sum() == 2 * 2 * 3


def test_metrics_are_there_for_a_checkpoint_to_choose_by(tmp_path: Path) -> None:
    network = TinyRegistration()
    trainer = trainer_of(network=network, epochs=2)
    best = LowestErrorCheckpoint(tmp_path, {"model": trainer.exemplar_net}, metric_name="selection_error")
    best.attach(trainer)
    curve = curve_of(trainer)
    trainer.run()
    terms = {f"{name}_loss" for name in ("global", "local", "smoothness", "inverse", "synthetic", "unlabelled")}
    figures = {"exemplar_dissimilarity", "cycle_error", "lost_landmarks", "folded", "selection_error", "empty_pairs"}
    assert set(curve[-1]) == terms | figures
    assert all(math.isfinite(value) for value in curve[-1].values())
    assert curve[-1]["empty_pairs"] == 0
    assert (tmp_path / "model.pt").is_file()


# Resuming


def train(folder: Path, epochs: int, resume: bool = False) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Everything random takes part: shuffling, the loader's noise, pairs, dropout; and the averaged landmarks."""
    torch.manual_seed(0)
    network = TinyRegistration(dropout=0.2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003)
    loader = DataLoader(Dataset(films(4), RandGaussianNoised("image", prob=0.7, std=0.05)), batch_size=2, shuffle=True)
    checkpoint = TrainingCheckpoint(folder, {"model": network, "optimizer": optimizer}, resume=resume)
    trainer = trainer_of(
        network=network, epochs=epochs, train_data_loader=loader, optimizer=optimizer, train_handlers=[checkpoint]
    )
    # A process that is started again has drawn other numbers before.
    torch.manual_seed(epochs)
    trainer.run()
    return network.state_dict(), trainer.state.pseudo_landmarks


def test_a_resumed_training_ends_with_the_same_weights_and_landmarks(tmp_path: Path) -> None:
    whole, table = train(tmp_path / "whole", 5)
    half, _ = train(tmp_path / "cut", 3)
    rest, resumed = train(tmp_path / "cut", 5, resume=True)
    assert all(torch.equal(whole[key], rest[key]) for key in whole)
    assert all(torch.equal(table[case].nan_to_num(), resumed[case].nan_to_num()) for case in table)
    assert not torch.equal(whole["shift.weight"], half["shift.weight"])


# No label, and bad input


def test_labels_of_the_training_images_have_no_influence() -> None:
    def weights(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        trainer = trainer_of(items)
        trainer.run()
        return trainer.network.state_dict()

    bare = weights(films(4))
    poisoned = weights(films(4, points=torch.full((4, 2), NAN), landmarks=torch.full((4, 2), 1e9)))
    assert all(torch.equal(value, poisoned[key]) for key, value in bare.items())


@pytest.mark.parametrize(
    ("items", "size", "words"),
    [
        (films(1), 2, r"holds 1 image.*pairs of different images"),
        (films(4), 1, r"single image, which cannot be paired"),
        (films(5), 2, r"5 images in batches of 2 leave a batch of a single image.*drop_last=True"),
    ],
)
def test_what_cannot_be_paired_is_refused_at_once(items: Any, size: int, words: str) -> None:
    with pytest.raises(LandmarkError, match=words):
        trainer_of(train_data_loader=DataLoader(Dataset(items), batch_size=size))


def test_exemplars_networks_and_cases_that_do_not_fit_are_refused() -> None:
    with pytest.raises(LandmarkError, match=r"exemplar has no \['points'\]"):
        trainer_of(exemplar={"image": torch.rand(1, *SHAPE)})
    with pytest.raises(LandmarkError, match="all landmarks of the exemplar are missing"):
        trainer_of(exemplar=exemplar(points=torch.full((3, 2), NAN)))
    with pytest.raises(LandmarkError, match="Conv2d does not say its `spatial_dims`"):
        trainer_of(network=nn.Conv2d(1, 1, 1))
    with pytest.raises(LandmarkError, match="knows one grid"):
        trainer_of(exemplar=exemplar(image=torch.rand(1, 32, 30)), epochs=1).run()
    with pytest.raises(LandmarkError, match="'same' comes twice"):
        trainer_of([{**item, "case": "same"} for item in films(4)], epochs=1).run()
    with pytest.raises(LandmarkError, match='0 names under "case"'):
        trainer_of([{"image": item["image"]} for item in films(4)], epochs=1).run()
    with pytest.raises(ValueError, match="momentum"):
        trainer_of(momentum=1.0)
