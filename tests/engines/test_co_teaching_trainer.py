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
from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import Dataset
from torch import nn
from torch.utils.data import DataLoader

from monai_landmarks.engines.co_teaching_trainer import CoTeachingLoss, CoTeachingTrainer
from monai_landmarks.engines.co_teaching_views import PrepareTwoViewsBatch, TwoViews
from monai_landmarks.geometry import LandmarkError, SpatialMap
from monai_landmarks.handlers import TrainingCheckpoint
from monai_landmarks.heatmaps import decode_heatmaps, gaussian_heatmaps
from monai_landmarks.losses import HeatmapMSELoss, WeightedPoints
from monai_landmarks.networks.nets.twin_net import TwinNet
from monai_landmarks.transforms import RandShiftScaleIntensityd, RandSpatialLandmarksd

NAN = float("nan")
SHAPE = (24, 20)


def films(count: int, landmarks: int = 3) -> list[dict[str, Any]]:
    """A spot in each channel, whose centre is the channel's landmark."""
    generator = torch.Generator().manual_seed(1)
    points = 5 + torch.rand(count, landmarks, 2, generator=generator) * (torch.tensor(SHAPE) - 11.0)
    images = gaussian_heatmaps(points, SHAPE, 2.0) + 0.05 * torch.randn(count, landmarks, *SHAPE, generator=generator)
    return [
        {"image": images[n], "points": points[n], "scores": torch.zeros(landmarks), "case": f"c{n}"}
        for n in range(count)
    ]


def twins(dropout: float = 0.0) -> TwinNet:
    torch.manual_seed(0)
    return TwinNet(*(nn.Sequential(nn.Dropout(dropout), nn.Conv2d(3, 3, 7, padding=3)) for _ in range(2)))


def mild() -> PrepareTwoViewsBatch:
    strong = RandSpatialLandmarksd("image", rotate_range=0.2, scale_range=0.1, padding_mode="border").batched()
    return PrepareTwoViewsBatch(strong=strong)


def trainer_of(items: Any = None, network: Any = None, epochs: int = 1, **options: Any) -> CoTeachingTrainer:
    network = twins() if network is None else network
    given = {
        "train_data_loader": DataLoader(Dataset(films(6) if items is None else items), batch_size=3, shuffle=True),
        "optimizer": torch.optim.Adam(network.parameters(), lr=0.01),
        "loss_function": HeatmapMSELoss(3.0),
        "prepare_batch": mild(),
        **options,
    }
    trainer = CoTeachingTrainer("cpu", epochs, network=network, **given)
    trainer.logger.setLevel(logging.CRITICAL)
    return trainer


def same_views(points: torch.Tensor, scores: torch.Tensor, shape: tuple[int, ...] = (8, 8)) -> TwoViews:
    eye = torch.eye(len(shape) + 1, dtype=torch.float64).expand(len(points), -1, -1)
    return TwoViews(torch.stack([points, points]), scores, SpatialMap(eye, shape))


class Weights:
    """A loss that notes with what weights each network learns."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def __call__(self, output: torch.Tensor, target: WeightedPoints) -> torch.Tensor:
        self.seen.append(target.weights)
        return output.sum() * 0


# --- views --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("elastic", [0.0, 1.0])
@pytest.mark.parametrize("shape", [(40, 33), (20, 24, 22)])
def test_image_points_and_predictions_of_the_strong_view_fit_each_other(shape: tuple[int, ...], elastic: float) -> None:
    dims = len(shape)
    points = torch.tensor(shape) * (0.4 + 0.2 * torch.rand(2, 1, dims, generator=torch.Generator().manual_seed(3)))
    image = gaussian_heatmaps(points, shape, 2.0)
    strong = RandSpatialLandmarksd("image", rotate_range=0.4, scale_range=0.2, translate_range=3, elastic_range=elastic)
    prepare = PrepareTwoViewsBatch(strong=strong.batched())
    images, views = prepare({"image": image, "points": points, "scores": torch.zeros(2, 1)})
    weak, turned = images.chunk(2)
    assert torch.equal(weak, image)
    assert (views.points[0] - views.points[1]).abs().max() > 1
    for found in (turned, views.carry(weak)):
        assert (decode_heatmaps(found, "center_of_mass")[0] - views.points[1]).abs().max() < 0.3


def test_what_comes_from_outside_the_weak_view_is_not_seen() -> None:
    shifted = torch.tensor([[[1.0, 0.0, -2.5], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]], dtype=torch.float64)
    views = TwoViews(torch.zeros(2, 1, 1, 2), torch.zeros(1, 1), SpatialMap(shifted, (6, 5)))
    seen = views.seen((6, 5), torch.device("cpu"))
    assert seen[0, 0].all(dim=1).tolist() == [False, False, False, True, True, True]


def test_weak_view_and_appearance_are_made_too() -> None:
    weak = RandSpatialLandmarksd("image", rotate_range=0.3).batched()
    grey = RandShiftScaleIntensityd("image", clip=None).batched()
    still = RandSpatialLandmarksd("image", prob=0.0).batched()
    prepare = PrepareTwoViewsBatch(weak, still, grey)
    batch = {key: torch.stack([film[key] for film in films(2)]) for key in ("image", "points", "scores")}
    prepare.set_random_state(1)
    images, views = prepare(batch)
    prepare.set_random_state(1)
    again, _ = prepare(batch)
    assert torch.equal(images, again)
    assert torch.equal(views.points[0], views.points[1])
    assert not torch.allclose(images[:2], batch["image"])
    ratio = (images[2:] - images[2:].amin((2, 3), keepdim=True)) / (images[:2] - images[:2].amin((2, 3), keepdim=True))
    assert torch.nanmedian(ratio[0]).item() == pytest.approx(torch.nanquantile(ratio[0], 0.3).item(), rel=1e-3)


# --- the loss -----------------------------------------------------------------------------------------------------------


def test_each_network_learns_what_the_other_believes() -> None:
    points = torch.tensor([[[2.0, 2.0], [5.0, 5.0]]])
    target = gaussian_heatmaps(points, (8, 8), 3.0)
    trusts_first, trusts_second = target.clone(), target.clone()
    trusts_first[:, 1], trusts_second[:, 0] = 0, 0
    weights = Weights()
    loss = CoTeachingLoss(weights, forget_rate=0.5, ramp_epochs=0)
    loss((trusts_first.repeat(2, 1, 1, 1), trusts_second.repeat(2, 1, 1, 1)), same_views(points, torch.zeros(1, 2)))
    assert [w.tolist() for w in weights.seen] == [[[0, 2], [0, 2]], [[2, 0], [2, 0]]]
    assert loss.choice is not None
    assert loss.choice.judged.tolist() == [[2, 2]]
    assert loss.choice.rejected.tolist() == [[1, 1]]


def test_true_labels_are_always_learnt_and_missing_ones_never() -> None:
    points = torch.full((1, 5, 2), 4.0)
    points[0, 4] = NAN
    scores = torch.tensor([[1.0, 0.99, 0.0, 0.5, 0.0]])
    maps = torch.zeros(2, 5, 8, 8)
    maps[:, 0] = 9.0  # the true label has by far the largest error
    maps[:, 1:4] = torch.tensor([0.1, 0.3, 0.2])[:, None, None]
    weights = Weights()
    loss = CoTeachingLoss(weights, forget_rate=0.67, ramp_epochs=0, landmark_errors=lambda maps, _: maps.mean((2, 3)))
    loss((maps, maps), same_views(points, scores))
    assert [w[0].tolist() for w in weights.seen] == [[2, 2, 0, 0, 0]] * 2
    assert loss.choice is not None
    assert loss.choice.judged.tolist() == [[0, 2, 2, 2, 0]]


def test_the_ranking_has_the_self_consistency_of_each_label() -> None:
    points = torch.full((1, 2, 2), 4.0)
    maps = torch.zeros(2, 2, 8, 8)
    maps[1, 0] = 1.0  # both views together agree better with the first label, but not with each other
    weights = Weights()
    errors = lambda maps, _: torch.tensor([[0.1, 0.2], [0.1, 0.2]])  # noqa: E731
    for self_weight in (0.0, 0.3):
        loss = CoTeachingLoss(weights, 0.5, ramp_epochs=0, self_weight=self_weight, landmark_errors=errors)
        loss((maps, maps), same_views(points, torch.zeros(1, 2)))
    assert [w[0].tolist() for w in weights.seen] == [[2, 0], [2, 0], [0, 2], [0, 2]]


def test_without_selection_and_consistency_it_is_the_plain_loss_of_both() -> None:
    torch.manual_seed(0)
    points, maps = torch.rand(2, 3, 2) * 7, torch.rand(2, 4, 3, 8, 8)
    plain = HeatmapMSELoss(3.0)
    loss = CoTeachingLoss(plain, forget_rate=0.0, self_weight=0.0, cross_weight=0.0)
    both = torch.cat([points, points])
    found = loss(tuple(maps), same_views(points, torch.zeros(2, 3)))
    assert found.item() == pytest.approx((plain(maps[0], both) + plain(maps[1], both)).item(), rel=1e-6)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize(
    ("ramped", "epoch", "part"), [(False, 0, 1.0), (True, 0, 0.0), (True, 5, 0.5), (True, 20, 1.0)]
)
def test_cross_consistency_is_that_of_equation_20(detach: bool, ramped: bool, epoch: int, part: float) -> None:
    torch.manual_seed(0)
    maps = [torch.rand(4, 3, 8, 8, requires_grad=True) for _ in range(2)]
    views = same_views(torch.rand(2, 3, 2) * 7, torch.zeros(2, 3))
    form = CoTeachingLoss(
        Weights(), forget_rate=0, ramp_epochs=10, cross_weight=2.0, ramp_cross=ramped, detach_target=detach
    )
    form.epoch = epoch
    loss = form(maps, views)
    (f_weak, f_strong), (g_weak, g_strong) = (m.chunk(2) for m in maps)
    wanted = 2 * part * ((f_strong - g_weak).square().mean() + (g_strong - f_weak).square().mean())
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    if not part:
        return
    loss.backward()
    assert all(bool(m.grad[:2].any()) is not detach for m in maps if m.grad is not None)
    assert all(bool(m.grad[2:].any()) for m in maps if m.grad is not None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    maps = [torch.rand(4, 3, 8, 8).to(dtype).requires_grad_() for _ in range(2)]
    views = same_views(torch.rand(2, 3, 2) * 7, torch.zeros(2, 3))
    loss = CoTeachingLoss(HeatmapMSELoss(3.0), 0.5, 0)
    half = loss(maps, views)
    half.backward()
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(loss([m.detach().float() for m in maps], views).item(), rel=1e-5)
    assert all(m.grad is not None and m.grad.isfinite().all() for m in maps)


# --- the trainer --------------------------------------------------------------------------------------------------------


def test_moved_labels_are_found() -> None:
    """A fifth of the labels of each landmark lie 6 pixels beside their spot."""
    items = films(20)
    moved = torch.zeros(20, 3, dtype=torch.bool)
    for landmark in range(3):
        moved[3 * landmark : 3 * landmark + 4, landmark] = True
    for case, landmark in moved.nonzero().tolist():
        items[case]["points"][landmark] += torch.tensor([4.0, -5.0])
    network = twins()
    trainer = trainer_of(
        items,
        network,
        epochs=50,
        train_data_loader=DataLoader(Dataset(items), batch_size=20, shuffle=True),
        optimizer=torch.optim.Adam(network.parameters(), lr=0.02),
        forget_rate=0.2,
        ramp_epochs=20,
    )
    # The record of the last epochs, after the ramp.
    trainer.add_event_handler(Events.EPOCH_COMPLETED(once=45), lambda engine: engine.state.rejections.clear())
    trainer.run()
    tables = torch.stack([trainer.state.rejections[f"c{case}"] for case in range(20)])
    share = tables[:, 1] / tables[:, 0]
    assert share[moved].mean() > 0.8
    assert share[~moved].mean() < 0.05


def test_an_epoch_says_how_many_labels_were_kept() -> None:
    items = films(6)
    items[0]["scores"][:] = 1
    items[1]["points"][0] = NAN
    trainer = trainer_of(items, epochs=3, forget_rate=0.5, ramp_epochs=2)
    curve: list[dict[str, float]] = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: curve.append(dict(engine.state.metrics)))
    trainer.run()
    assert [metrics["forget_rate"] for metrics in curve] == [0, 0.25, 0.5]
    assert [metrics["kept_labels"] + metrics["rejected_labels"] for metrics in curve] == [14] * 3
    assert curve[0]["rejected_labels"] == 0
    assert 6 <= curve[2]["rejected_labels"] <= 7
    assert "pseudo_labelled_loss" in curve[0]
    judged = {case: table[0].tolist() for case, table in trainer.state.rejections.items()}
    assert judged == {"c0": [0, 0, 0], "c1": [0, 6, 6], **{f"c{n}": [6, 6, 6] for n in range(2, 6)}}


def test_volumes_are_taught_as_films_are() -> None:
    generator = torch.Generator().manual_seed(0)
    volume = {"points": torch.tensor([[4.0, 5.0, 6.0], [8.0, 3.0, 9.0]]), "scores": torch.zeros(2)}
    items = [{**volume, "image": torch.rand(1, 11, 12, 13, generator=generator), "case": str(n)} for n in range(4)]
    network = TwinNet(nn.Conv3d(1, 2, 3, padding=1), nn.Conv3d(1, 2, 3, padding=1))
    before = [value.clone() for value in network.parameters()]
    trainer_of(items, network, epochs=1, forget_rate=0.5, ramp_epochs=0).run()
    assert not any(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))


def train(folder: Path, epochs: int, resume: bool = False) -> tuple[dict[str, torch.Tensor], Engine]:
    """Everything random takes part: shuffling, views, dropout; and the ramp."""
    network = twins(dropout=0.2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    checkpoint = TrainingCheckpoint(folder, {"model": network, "optimizer": optimizer}, resume=resume)
    trainer = trainer_of(
        network=network, epochs=epochs, optimizer=optimizer, train_handlers=[checkpoint], ramp_epochs=3
    )
    torch.manual_seed(epochs)  # a process that is started again has drawn other numbers before
    trainer.run()
    return network.state_dict(), trainer


def test_a_resumed_training_ends_with_the_same_weights_and_counts(tmp_path: Path) -> None:
    whole, through = train(tmp_path / "whole", 4)
    train(tmp_path / "cut", 2)
    rest, resumed = train(tmp_path / "cut", 4, resume=True)
    assert all(torch.equal(whole[key], rest[key]) for key in whole)
    counts, again = through.state.rejections, resumed.state.rejections
    assert counts.keys() == again.keys()
    assert all(torch.equal(counts[case], again[case]) for case in counts)
    assert sum(int(table[1].sum()) for table in counts.values()) > 0


def test_both_networks_are_one_module_for_distributed_training(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        trainer = trainer_of(network=nn.parallel.DistributedDataParallel(twins()), forget_rate=0.5, ramp_epochs=0)
        trainer.run()
    finally:
        torch.distributed.destroy_process_group()
    assert sum(int(table[0].sum()) for table in trainer.state.rejections.values()) == 2 * 18


def test_outputs_that_are_no_heatmaps_are_turned_into_them() -> None:
    class Fine(nn.Conv2d):
        def forward(self, image: torch.Tensor) -> Any:  # type: ignore[override]
            return {"fine": super().forward(image)}

    network = TwinNet(Fine(3, 3, 3, padding=1), Fine(3, 3, 3, padding=1))
    plain = HeatmapMSELoss(3.0)
    loss = lambda output, target: plain(output["fine"], target)  # noqa: E731
    trainer_of(network=network, loss_function=loss, heatmaps=lambda output: output["fine"]).run()
    with pytest.raises(LandmarkError, match=r"gives dict, not heatmaps: say with `heatmaps`"):
        trainer_of(network=network, loss_function=loss).run()


# --- refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forget_rate": 1.0}, r"must lie in \[0, 1\)"),
        ({"forget_rate": -0.1}, r"must lie in \[0, 1\)"),
        ({"self_weight": -1.0}, "`self_weight` must be 0 or more"),
        ({"cross_weight": NAN}, "`cross_weight` must be 0 or more"),
        ({"among": "film"}, "film"),
        ({"network": nn.Conv2d(3, 3, 3)}, r"got a Conv2d: put two of one build into a TwinNet"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainer_of(**options)


def test_batches_that_cannot_be_ranked_are_refused() -> None:
    for key, message in (("scores", "no weights under 'scores'"), ("points", "no points under 'points'")):
        items = [{k: v for k, v in film.items() if k != key} for film in films(3)]
        with pytest.raises(LandmarkError, match=message):
            trainer_of(items).run()
    items = films(3)
    items[0]["scores"][0] = NAN
    with pytest.raises(LandmarkError, match="finite and not negative"):
        trainer_of(items).run()
    small = TwinNet(*(nn.Conv2d(3, 3, 3, stride=2) for _ in range(2)))
    with pytest.raises(LandmarkError, match=r"heatmaps of \(11, 9\) voxels for images of \(24, 20\)"):
        trainer_of(network=small).run()
    with pytest.raises(LandmarkError, match="two networks, got Tensor"):
        CoTeachingLoss(Weights())(torch.zeros(2, 1, 8, 8), same_views(torch.zeros(1, 1, 2), torch.zeros(1, 1)))


def test_views_that_cannot_be_compared_are_refused() -> None:
    names, pairs = ["left", "right", "tip"], [("left", "right")]
    mirror = RandSpatialLandmarksd("image", flip_prob=0.5, landmark_names=names, flip_pairs=pairs).batched()
    for views in ({"weak": mirror}, {"strong": mirror}):
        with pytest.raises(LandmarkError, match="leave their scores behind"):
            PrepareTwoViewsBatch(**views)
    with pytest.raises(LandmarkError, match="`strong_appearance`"):
        PrepareTwoViewsBatch(strong=RandShiftScaleIntensityd("image").batched())  # type: ignore[arg-type]
    other = PrepareTwoViewsBatch(strong=RandSpatialLandmarksd("image", spatial_size=(8, 8)).batched())
    with pytest.raises(LandmarkError, match=r"the strong view has \(8, 8\) voxels"):
        trainer_of(prepare_batch=other).run()
