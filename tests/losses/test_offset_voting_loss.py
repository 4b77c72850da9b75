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

import itertools
import math

import pytest
import torch
from monai.engines import SupervisedTrainer

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.heatmaps.voting import decode_offset_votes
from monai_landmarks.losses.adaptive_wing import AdaptiveWingLoss
from monai_landmarks.losses.coarse_to_fine import CoarseToFineLoss
from monai_landmarks.losses.heatmap_bce import HeatmapBCELoss
from monai_landmarks.losses.heatmap_l2 import HeatmapL2Loss
from monai_landmarks.losses.heatmap_regression import HeatmapMSELoss
from monai_landmarks.losses.offset_voting import OffsetVotingLoss, offset_voting_errors
from monai_landmarks.losses.targets import WeightedPoints, split_target

NAN = float("nan")
SHAPES = [(7, 9), (5, 6, 4)]


def example(shape: tuple[int, ...], dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps for five landmarks: inside, cut by the first and by the last border, outside but reaching in, missing."""
    generator = torch.Generator().manual_seed(len(shape))
    dims = len(shape)
    points = 2 + torch.rand(2, 5, dims, generator=generator, dtype=torch.float64)
    points[:, 1], points[:, 2], points[:, 3, -1], points[:, 4] = -0.4, torch.tensor(shape) - 0.7, -1.25, NAN
    return 3 * torch.randn(2, 5 * (1 + dims), *shape, generator=generator, dtype=torch.float64).to(dtype), points


def plain(maps, points, radius, missing="mask", outside="tail") -> tuple[torch.Tensor, torch.Tensor]:
    """The formulas, voxel by voxel."""
    batch, landmarks, dims = points.shape
    shape = maps.shape[2:]
    heatmap, offset = maps.new_zeros(batch, landmarks), maps.new_zeros(batch, landmarks)
    for b, n in itertools.product(range(batch), range(landmarks)):
        point = points[b, n].tolist()
        is_missing = math.isnan(point[0])
        is_outside = not is_missing and any(not -0.5 <= p <= s - 0.5 for p, s in zip(point, shape, strict=True))
        rule = missing if is_missing else outside if is_outside else "tail"
        if rule == "mask":
            continue
        in_disc = []
        for voxel in itertools.product(*map(range, shape)):
            way = [(p - x) / radius for p, x in zip(point, voxel, strict=True)]
            f = torch.sigmoid(maps[b, n][voxel])
            if rule == "tail" and sum(w * w for w in way) < 1:
                heatmap[b, n] -= (1 - f) * f.log()
                found = [maps[b, landmarks * (1 + d) + n][voxel] for d in range(dims)]
                in_disc.append(sum((o - w).abs() for o, w in zip(found, way, strict=True)))
            else:
                heatmap[b, n] -= f * (1 - f).log()
        if in_disc:
            offset[b, n] = torch.stack(in_disc).mean()
    return heatmap / math.prod(shape), offset


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("missing", "outside"), [("mask", "tail"), ("zero", "tail"), ("mask", "zero"), ("mask", "mask")]
)
def test_values_and_gradients_against_the_formulas(shape, missing, outside) -> None:
    maps, points = example(shape)
    maps.requires_grad_()
    ours = offset_voting_errors(maps, points, 2.3, missing, outside)
    theirs = plain(maps, points, 2.3, missing, outside)
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn(2, 2, 5, dtype=torch.float64)
    (ours_back,) = torch.autograd.grad((weight * torch.stack(ours)).sum(), maps)
    (theirs_back,) = torch.autograd.grad((weight * torch.stack(theirs)).sum(), maps)
    torch.testing.assert_close(ours_back, theirs_back)
    count = 10 - 2 * (missing == "mask") - 2 * (outside == "mask")
    total = OffsetVotingLoss(2.3, 1.5, missing, outside)(maps, points)
    torch.testing.assert_close(total, (1.5 * theirs[0] + theirs[1]).sum() / count)


def test_gradient_against_finite_differences() -> None:
    maps, points = example((3, 4))
    assert torch.autograd.gradcheck(lambda m: OffsetVotingLoss(1.6)(m, points), maps.requires_grad_())


@pytest.mark.parametrize("point", [(1.3, 20.2), (20.2, -0.4), (-0.3, -0.2), (27.8, 0.6), (13.4, 12.7), (30.2, 32.4)])
def test_maps_that_obey_the_loss_vote_for_the_landmark_also_at_borders(point) -> None:
    """The public code pastes the wrong part of the disc at the left and upper border."""
    maps = torch.zeros(1, 3, 31, 33, requires_grad=True)
    points, loss = torch.tensor([[point]]), OffsetVotingLoss(radius=6.0)
    optimiser = torch.optim.Adam([maps], lr=0.05)
    for _ in range(120):
        optimiser.zero_grad()
        loss(maps, points).backward()
        optimiser.step()
    decoded = decode_offset_votes(maps.detach(), radius=6.0)
    torch.testing.assert_close(decoded.points, points, atol=0.1, rtol=0)


def test_published_weights_of_a_cut_disc_by_hand() -> None:
    """R = 1.1 at the corner voxel: itself, its two neighbours. All logits 0, all offsets 0."""
    heatmap, offset = offset_voting_errors(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 2), radius=1.1)
    assert heatmap.item() == pytest.approx(0.5 * math.log(2))
    assert offset.item() == pytest.approx((0 + 1 / 1.1 + 1 / 1.1) / 3)


@pytest.mark.parametrize("shape", SHAPES)
def test_missing_landmark_has_no_part_whatever_the_network_says(shape) -> None:
    maps, points = example(shape)
    channels = [4 + 5 * k for k in range(1 + len(shape))]
    loud = maps.clone()
    loud[:, channels] = maps.new_tensor([NAN, float("inf")]).reshape(2, 1, *[1] * len(shape))
    loud.requires_grad_()
    value = OffsetVotingLoss(2.0)(loud, points)
    torch.testing.assert_close(value, OffsetVotingLoss(2.0)(maps, points))
    value.backward()
    assert loud.grad is not None
    assert loud.grad[:, channels].count_nonzero() == 0
    assert OffsetVotingLoss(2.0)(maps, torch.full_like(points, NAN)) == 0


def test_confident_mistakes_cost_and_pull_without_limit() -> None:
    maps = torch.zeros(1, 3, 3, 3)
    maps[0, 0] = -200.0  # the public code clamps at log(1e-7) = -16, where the gradient ends
    maps.requires_grad_()
    heatmap, _ = offset_voting_errors(maps, torch.full((1, 1, 2), 1.0), 10.0)
    heatmap.sum().backward()
    assert heatmap.item() == pytest.approx(200)
    assert maps.grad is not None
    torch.testing.assert_close(maps.grad[0, 0], torch.full((3, 3), -1 / 9))


def test_half_precision_is_compared_in_float32() -> None:
    maps, points = example((7, 9), torch.bfloat16)
    maps.requires_grad_()
    value = OffsetVotingLoss(2.3)(maps, points.float())
    torch.testing.assert_close(value, OffsetVotingLoss(2.3)(maps.detach().float(), points.float()))
    value.backward()
    assert maps.grad is not None
    assert maps.grad.dtype == torch.bfloat16


def losses_with_maps() -> list[tuple[torch.nn.Module, list[torch.Tensor]]]:
    coarse, fine, voting = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 8, 10), torch.rand(2, 9, 8, 10)
    pair = (CoarseToFineLoss(HeatmapMSELoss(2.0)), [coarse, fine])
    single = [HeatmapMSELoss(2.0), HeatmapBCELoss(2.0), HeatmapL2Loss(3, 2, sigma=2.0), AdaptiveWingLoss(sigma=2.0)]
    return [(OffsetVotingLoss(2.0), [voting]), pair, *((loss, [fine]) for loss in single)]


@pytest.mark.parametrize("case", range(6))
def test_weights_multiply_each_landmarks_own_loss(case) -> None:
    loss, maps = losses_with_maps()[case]
    given = maps if len(maps) > 1 else maps[0]
    points = torch.rand(2, 3, 2) * 7
    weights = torch.tensor([[0.2, 0.0, 1.0], [0.7, 1.0, 0.5]])
    alone = torch.zeros(2, 3)
    for b, n in itertools.product(range(2), range(3)):  # only one landmark counts
        alone[b, n] = loss(given, WeightedPoints(points, torch.eye(6)[3 * b + n].reshape(2, 3))).detach()
    torch.testing.assert_close(loss(given, points), alone.sum())
    torch.testing.assert_close(loss(given, WeightedPoints(points, torch.ones(2, 3))), loss(given, points))
    torch.testing.assert_close(loss(given, WeightedPoints(points, weights)), (weights * alone).sum())
    torch.testing.assert_close(loss(given, [points, weights]), loss(given, WeightedPoints(points, weights)))


def test_monais_trainer_hands_the_weights_over() -> None:
    torch.manual_seed(0)
    network, loss = torch.nn.Conv2d(1, 6, 3, padding=1), OffsetVotingLoss(2.0)
    target = WeightedPoints(torch.rand(2, 2, 2) * 7, torch.tensor([[0.3, 1.0], [0.0, 0.8]]))
    image = torch.rand(2, 1, 8, 8)
    expected = loss(network(image), target).item()
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[{"image": image}],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), 0.1),
        loss_function=loss,
        prepare_batch=lambda batch, *_, **__: (batch["image"], target),
    )
    trainer.run()
    assert trainer.state.output[0]["loss"] == pytest.approx(expected)
    assert loss(network(image), target) < expected


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ((torch.zeros(1, 2, 2), torch.ones(1, 3)), "one weight for each landmark"),
        ((torch.zeros(1, 2, 2), torch.tensor([[0.5, NAN]])), "finite and not negative"),
        ((torch.zeros(1, 2, 2), torch.tensor([[0.5, -0.1]])), "finite and not negative"),
        ({"points": torch.zeros(1, 2, 2)}, "got dict"),
        ((torch.zeros(1, 2, 2),), "WeightedPoints"),
    ],
)
def test_targets_that_cannot_be(target, message) -> None:
    with pytest.raises(LandmarkError, match=message):
        split_target(target)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"radius": 0.05}, LandmarkError, "in voxels"),
        ({"radius": NAN}, LandmarkError, "at least 1"),
        ({"heatmap_weight": -1.0}, LandmarkError, "not negative"),
        ({"missing": "tail"}, ValueError, "tail"),
        ({"outside": "drop"}, ValueError, "drop"),
    ],
)
def test_options_that_cannot_be(options, error, message) -> None:
    with pytest.raises(error, match=message):
        OffsetVotingLoss(**options)


def test_vote_maps_of_evaluation_mode_are_refused() -> None:
    with pytest.raises(LandmarkError, match="method `maps`"):
        OffsetVotingLoss()(torch.zeros(1, 19, 8, 8), torch.zeros(1, 19, 2))
    with pytest.raises(LandmarkError, match="predicts 6 landmarks, the data has 19"):
        OffsetVotingLoss()(torch.zeros(1, 18, 8, 8), torch.zeros(1, 19, 2))
