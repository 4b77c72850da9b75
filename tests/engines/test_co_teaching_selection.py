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

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_landmarks.engines.co_teaching_selection import (
    RankedAmong,
    consistency,
    forget_rate,
    gaussian_error,
    label_weights,
    mean_over_views,
    select_small,
)
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.losses import HeatmapMSELoss, WeightedPoints

ALL = torch.ones(3, 4, dtype=torch.bool)
TABLE = torch.tensor([[0.1, 0.9, 0.5, 0.2], [0.3, 0.8, 0.6, 0.05], [0.2, 0.7, 0.4, 0.9]])


# --- selection ----------------------------------------------------------------------------------------------------------


def test_the_batch_is_ranked_as_one_table() -> None:
    wanted = [[1, 0, 0, 1], [1, 0, 0, 1], [1, 0, 1, 0]]
    assert select_small(TABLE, ALL, 0.5, among="batch").int().tolist() == wanted


def test_a_landmark_that_is_difficult_on_every_image_is_not_left_out_for_that() -> None:
    """One label of each landmark stands out; the network does not know the last landmark yet."""
    values = torch.tensor([[0.9, 0.1, 0.2, 1.0], [0.1, 0.1, 0.8, 1.1], [0.1, 0.7, 0.2, 1.9]])
    wanted = [[0, 1, 1, 1], [1, 1, 0, 1], [1, 0, 1, 0]]
    assert select_small(values, ALL, 1 / 3).int().tolist() == wanted
    assert not select_small(values, ALL, 1 / 3, among="batch")[:, 3].any()


def test_one_image_alone_is_ranked_as_it_is() -> None:
    assert select_small(TABLE[:1], ALL[:1], 0.5).tolist() == [[True, False, False, True]]


def test_each_landmark_is_ranked_by_itself() -> None:
    found = select_small(TABLE, ALL, 1 / 3, among="landmark")
    assert found.int().tolist() == [[1, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]]
    assert select_small(TABLE, ALL, 0.6, among="landmark").sum(0).tolist() == [2, 2, 2, 2]
    assert select_small(TABLE, ALL, 0.99, among="landmark").int().tolist() == [[1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 1, 0]]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rate=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.99]),
    among=st.sampled_from(RankedAmong),
)
def test_selection_is_that_of_a_sorted_list(seed: int, rate: float, among: RankedAmong) -> None:
    rng = np.random.default_rng(seed)
    values, ranked = rng.integers(0, 6, (5, 4)) / 8, rng.uniform(size=(5, 4)) < 0.7
    kept = np.zeros((5, 4), bool)
    shown = values.copy()
    if among == RankedAmong.RELATIVE:
        for j in range(4):
            mean = values[ranked[:, j], j].mean() if ranked[:, j].any() else 1
            shown[:, j] /= mean or 1
    each = among == RankedAmong.LANDMARK
    groups = [[(i, j) for i in range(5)] for j in range(4)] if each else [[(i, j) for i in range(5) for j in range(4)]]
    for group in groups:
        entries = sorted((e for e in group if ranked[e]), key=lambda e: shown[e])
        for entry in entries[: math.ceil(round((1 - rate) * len(entries), 6))]:
            kept[entry] = True
    found = select_small(torch.from_numpy(values), torch.from_numpy(ranked), rate, among)
    assert np.array_equal(found.numpy(), kept)


def test_a_rate_that_is_no_exact_binary_number_keeps_what_it_says() -> None:
    values, ranked = torch.rand(1, 10), torch.ones(1, 10, dtype=torch.bool)
    for tenths in range(10):
        assert select_small(values, ranked, tenths / 10).sum() == 10 - tenths


def test_missing_labels_are_never_chosen_and_do_not_count() -> None:
    ranked = torch.tensor([[1, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]).bool()
    nothing = TABLE.masked_fill(~ranked, -1.0)
    assert select_small(nothing, ranked, 0.5, among="batch").int().tolist() == [
        [1, 0, 0, 1],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    assert not select_small(TABLE, ~ALL, 0.5).any()


def test_self_consistency_of_each_entry_changes_the_order_and_that_of_the_batch_cannot() -> None:
    """The public code adds one mean over the whole batch to all entries."""
    noise = torch.tensor([[0.10, 0.20], [0.15, 0.30]])
    strong = torch.zeros(2, 2, 4, 4)
    strong[0, 0] = 1.0  # the first label agrees best with the network, which is not sure of it
    seen = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    own = consistency(strong, torch.zeros_like(strong), seen)
    ranked = torch.ones(2, 2, dtype=torch.bool)
    plain = select_small(noise, ranked, 0.5, among="batch")
    assert torch.equal(select_small(noise + 0.3 * own.mean(), ranked, 0.5, among="batch"), plain)
    assert select_small(noise + 0.3 * own, ranked, 0.5, among="batch").tolist() == [[False, True], [True, False]]


# --- errors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9, 7), (5, 6, 7)])
def test_the_error_is_the_mean_square_to_a_drawn_gaussian(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    maps, points = torch.rand(2, 3, *shape), torch.rand(2, 3, len(shape)) * 5
    points[1, 2] = torch.nan
    grid = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij"), dim=-1)
    found = gaussian_error(maps, points)
    for b, n in np.ndindex(2, 3):
        target = torch.exp(-(grid - points[b, n]).square().sum(-1) / 18)
        wanted = 0.0 if (b, n) == (1, 2) else (maps[b, n] - target).square().mean().item()
        assert found[b, n].item() == pytest.approx(wanted, rel=1e-4)


def test_consistency_is_a_mean_over_what_both_views_show() -> None:
    ours, theirs = torch.full((2, 1, 2, 2), 3.0), torch.ones(2, 1, 2, 2)
    ours[0, 0, 1] = torch.nan
    seen = torch.tensor([[[[1, 1], [0, 0]]], [[[0, 0], [0, 0]]]]).bool()
    assert consistency(ours, theirs, seen).tolist() == [[4.0], [0.0]]
    assert consistency(ours.bfloat16(), theirs.bfloat16(), seen).dtype == torch.float32


def test_errors_are_those_of_the_views_that_show_a_label() -> None:
    errors = torch.tensor([[0.4, 0.4, 0.4], [0.2, 0.2, 0.2]])
    shown = torch.tensor([[[1, 1, 0]], [[1, 0, 0]]]).bool()
    assert mean_over_views(errors, shown)[0].tolist() == pytest.approx([0.3, 0.4, 0.0])


# --- weights ------------------------------------------------------------------------------------------------------------


def test_a_loss_with_the_weights_is_the_mean_over_the_entries_that_are_learnt() -> None:
    torch.manual_seed(0)
    maps, points = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 2) * 7
    points[0, 0] = torch.nan
    kept = torch.tensor([[0, 1, 0], [0, 0, 1]]).bool()
    true = torch.tensor([[1, 0, 0], [1, 0, 0]]).bool()
    weights = label_weights(kept, true, ~points[..., 0].isnan())
    # A true label that is missing has none.
    assert weights.flatten().tolist() == pytest.approx([0, 5 / 3, 0, 5 / 3, 0, 5 / 3])
    learnt = points.masked_fill((weights == 0)[..., None], torch.nan)
    loss = HeatmapMSELoss(3.0)
    assert loss(maps, WeightedPoints(points, weights)).item() == pytest.approx(loss(maps, learnt).item(), rel=1e-6)
    assert not label_weights(kept, true, ~ALL[:2, :3]).any()


# --- forget rate --------------------------------------------------------------------------------------------------------


def test_the_published_ramp_is_straight_from_0_to_0_8_in_30_epochs() -> None:
    assert [forget_rate(epoch) for epoch in range(40)] == pytest.approx([0.8 * min(e / 30, 1) for e in range(40)])
    assert forget_rate(0, 0.3, ramp_epochs=0) == 0.3


@pytest.mark.parametrize("rate", [1.0, -0.1, 2, math.nan])
def test_a_share_that_leaves_nothing_or_is_none_is_refused(rate: float) -> None:
    with pytest.raises(LandmarkError, match=r"must lie in \[0, 1\).*share of noisy labels that are left out"):
        forget_rate(3, rate)
    with pytest.raises(LandmarkError, match=r"\[0, 1\)"):
        select_small(TABLE, ALL, rate)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValueError, match="batches"):
        select_small(TABLE, ALL, 0.1, among="batches")
    with pytest.raises(ValueError, match="length"):
        forget_rate(1, 0.5, -3)
