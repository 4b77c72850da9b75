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
from torch.nn import functional as F

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.losses.patch_matching import PatchMatchingLoss, matching_cross_entropy

NAN = float("nan")
STRIDES = (32, 16, 8, 4, 2)
SHAPES = [(70, 45), (34, 41, 37)]


def random_maps(shape, batch=2, points=3, strides=STRIDES, dtype=torch.float64):
    torch.manual_seed(0)
    sizes = [[-(-n // stride) for n in shape] for stride in strides]
    return [(torch.rand(batch, points, *size, dtype=dtype) * 2 - 1).requires_grad_() for size in sizes]


def random_points(shape, batch=2, points=3):
    torch.manual_seed(1)
    return torch.rand(batch, points, len(shape), dtype=torch.float64) * torch.tensor(shape) - 0.5


def cells_in_window(shape, true, window):
    """All cells whose distance to the true one along each axis is in the window: a plain loop."""
    for cell in itertools.product(*(range(n) for n in shape)):
        if window is None or all(
            -(window // 2) <= c - t < window - window // 2 for c, t in zip(cell, true, strict=True)
        ):
            yield cell


def slow_loss(similarity, point, stride, tau=10.0, slope=0.1, limit=0.7, window=19):
    """Eq. 2 to 4 for one map."""
    true = tuple(math.floor((p + 0.5) / stride) for p in point)
    total = 0.0
    for cell in cells_in_window(similarity.shape, true, window):
        bias = min(max(slope * math.dist(cell, true), 0.0), limit)
        total += math.exp(tau * (float(similarity[cell]) + bias))
    return -math.log(math.exp(tau * float(similarity[true])) / total)


@pytest.mark.parametrize(("shape", "window"), [((70, 45), 5), ((70, 45), 6), ((70, 45), 22), ((13, 18, 21), 3)])
def test_loss_of_every_level_is_that_of_a_slow_loop_also_at_borders(shape, window) -> None:
    maps, points = random_maps(shape, 1, 4), random_points(shape, 1, 4)
    points[0, 0], points[0, 1] = -0.5, torch.tensor(shape) - 0.6
    levels = PatchMatchingLoss(window=window).levels(maps, points)
    for level, (x, stride) in enumerate(zip(maps, STRIDES, strict=True)):
        pairs = zip(x[0].detach(), points[0].tolist(), strict=True)
        values = [slow_loss(one, point, stride, window=window if level else None) for one, point in pairs]
        assert levels[level].item() == pytest.approx(sum(values) / 4, rel=1e-10)


def test_gradients_of_wrong_cells_have_the_ratio_of_equation_6() -> None:
    x = random_maps((90, 90), 1, 1, (2,))[0]
    true, tau = (20, 3), 10.0
    matching_cross_entropy(x, torch.tensor([[true]]), tau).sum().backward()
    gradient, similarity = x.grad[0, 0], x.detach()[0, 0]
    window = [cell for cell in cells_in_window(x.shape[2:], true, 19) if cell != true]
    factors = [math.exp(tau * (float(similarity[c]) + min(0.1 * math.dist(c, true), 0.7))) for c in window]
    found = torch.stack([gradient[c] for c in window])
    expected = torch.tensor(factors, dtype=torch.float64)
    torch.testing.assert_close(found / found[0], expected / expected[0], rtol=1e-11, atol=0)
    # and not only in proportion: the whole of eq. 6, of which the true cell has the negative sum
    torch.testing.assert_close(found, tau * expected / (expected.sum() + math.exp(tau * float(similarity[true]))))
    assert gradient[true].item() == pytest.approx(-found.sum().item())
    assert int((gradient != 0).sum()) == len(window) + 1 < x.numel()


@pytest.mark.parametrize("limit", [0.0, 0.7])
def test_bias_is_zero_at_the_true_cell_and_the_limit_far_from_it(limit) -> None:
    value = matching_cross_entropy(
        torch.zeros(1, 1, 30, 30, dtype=torch.float64), torch.tensor([[[15, 15]]]), 10.0, 1e6, limit, 7
    )
    assert value.item() == pytest.approx(math.log(1 + 48 * math.exp(10 * limit)))


def test_coarsest_level_has_no_window_and_the_others_have() -> None:
    maps = random_maps((90, 90), 1, 1, (4, 2))
    PatchMatchingLoss(window=5)(maps, torch.tensor([[[44.0, 44.0]]]), (4, 2)).backward()
    assert bool((maps[0].grad != 0).all())
    assert int((maps[1].grad != 0).sum()) == 25


@pytest.mark.parametrize("shape", SHAPES)
def test_without_slope_it_is_cross_entropy(shape) -> None:
    maps, points = random_maps(shape), random_points(shape)
    loss = PatchMatchingLoss(temperature=7.0, distance_slope=0.0, window=100)(maps, points)
    expected = 0
    for x, stride in zip(maps, STRIDES, strict=True):
        numbers = torch.arange(x[0, 0].numel()).reshape(x.shape[2:])
        cells = ((points + 0.5) / stride).long()
        true = torch.stack([numbers[tuple(cell)] for cell in cells.flatten(0, 1)])
        expected = expected + F.cross_entropy(7.0 * x.flatten(0, 1).flatten(1), true)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_missing_points_count_nothing(shape) -> None:
    maps, points = random_maps(shape), random_points(shape)
    loss = PatchMatchingLoss()
    alone = loss([x[:1, :1] for x in maps], points[:1, :1])
    points[1], points[0, 1:] = NAN, NAN
    torch.testing.assert_close(loss(maps, points), alone)
    loss(maps, points).backward()
    for x in maps:
        assert x.grad.isfinite().all()
        assert not x.grad[1].any()
        assert not x.grad[0, 1:].any()
        assert x.grad[0, 0].any()
    nothing = loss(maps, torch.full_like(points, NAN))
    nothing.backward()
    assert nothing.item() == 0


def test_sum_is_the_mean_times_the_number_of_points() -> None:
    maps, points = random_maps((70, 45)), random_points((70, 45))
    points[0, 1] = NAN
    torch.testing.assert_close(PatchMatchingLoss(reduction="sum")(maps, points), 5 * PatchMatchingLoss()(maps, points))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_compared_in_float32(dtype) -> None:
    maps, points = [x.detach().to(dtype) for x in random_maps((70, 45))], random_points((70, 45))
    expected = PatchMatchingLoss()([x.float() for x in maps], points)
    assert torch.equal(PatchMatchingLoss()(maps, points), expected)


def test_right_maps_have_less_loss_than_maps_one_cell_off() -> None:
    points = torch.tensor([[[44.0, 31.5]]])
    right = [torch.full((1, 1, 96 // s, 64 // s), -1.0) for s in STRIDES]
    for x, stride in zip(right, STRIDES, strict=True):
        x[0, 0, int(44.5 / stride), int(32 / stride)] = 1.0
    off = [x.roll(1, -1) for x in right]
    assert PatchMatchingLoss()(right, points) < 0.1 < 10 < PatchMatchingLoss()(off, points)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda maps, points: (maps[::-1], points), "finest first"),
        (lambda maps, points: (maps[1:], points), "must have strides"),
        (lambda maps, points: (maps, points + 80), "outside their images, first in image 0 of the batch"),
        (lambda maps, points: (maps, points[:, :2]), "agree in batch and points"),
        (lambda maps, points: (maps, points[..., :1]), "2 coordinates"),
    ],
)
def test_what_does_not_fit_is_refused(change, message) -> None:
    with pytest.raises(LandmarkError, match=message):
        PatchMatchingLoss()(*change(random_maps((70, 45)), random_points((70, 45))))


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0}, {"distance_slope": -0.1}, {"distance_limit": NAN}, {"window": 1}, {"reduction": "median"}],
)
def test_options_without_meaning_are_refused(options) -> None:
    with pytest.raises(ValueError, match=next(iter(options)) if "reduction" not in options else "median"):
        PatchMatchingLoss(**options)
