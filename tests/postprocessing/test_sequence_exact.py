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
"""The best chain against the enumeration of all chains, scored by the formula of the docstring."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from monai_landmarks.postprocessing import Anatomy, SequenceModel
from monai_landmarks.postprocessing.anatomies import label_places


def usual(model: SequenceModel, anatomy: Anatomy, low: int, high: int):
    """Sums over the transitions between two labels of an anatomy: mean, covariance, distance, its sd."""
    places, s = label_places(model.anatomies), model.statistics
    total = [0.0, 0.0, 0.0, 0.0]
    for a, b in itertools.pairwise(anatomy.labels[low : high + 1]):
        between = range(int(np.floor(places[a])), int(np.ceil(places[b])))
        for i, field in enumerate((s.mean, s.covariance, s.distance, s.variance)):
            total[i] = total[i] + sum(field[t] for t in between) / len(between)
    noise = 2 * s.noise**2
    return total[0], total[1] + noise * np.eye(s.mean.shape[1]), total[2], np.sqrt(total[3] + noise)


def off_by(model: SequenceModel, label: str, channel: int) -> float:
    places = label_places(model.anatomies)
    lags = [places[name] - places[label] for name in model.names]
    return np.sign(lags[channel]) * (abs(lags[channel]) - min(map(abs, lags)))


def score_of(model: SequenceModel, anatomy: Anatomy, chain, points, relative) -> float:
    """The score of (label, channel, candidate) in order, or -inf where the chain is not allowed."""
    w, dims = model.weights, points.shape[-1]
    total, before = -anatomy.cost, None
    for label, channel, candidate in chain:
        h = off_by(model, anatomy.labels[label], channel)
        total += w.confidence_weight * (relative[channel, candidate] - w.confidence_threshold)
        total -= 0.05 * w.shift_cost * abs(h)
        total -= 0.5 * w.shift_cost * abs(h) * ((before is None) + (label == chain[-1][0]))
        if before is not None:
            last, last_h, place = before
            mean, covariance, distance, sd = usual(model, anatomy, last, label)
            offset = points[channel, candidate] - place
            if np.linalg.norm(offset) > (1 + w.margin) * (distance + 3 * sd) or label - last - 1 > w.max_missing:
                return -np.inf
            if w.rotation_invariant:
                squared, dims = ((np.linalg.norm(offset) - distance) / sd) ** 2, 1
            else:
                squared = mahalanobis(offset, mean, np.linalg.inv(covariance)) ** 2
            total -= w.max_misfit * (1 - np.exp(-squared / (2 * w.max_misfit))) - dims / 2
            total -= w.missing_cost * (label - last - 1) + w.shift_cost * abs(h - last_h)
        before = label, h, points[channel, candidate]
    places = np.array([points[c, k] for _, c, k in chain])
    for a, b in itertools.combinations(range(len(chain)), 2):
        if np.linalg.norm(places[a] - places[b]) < model._nearest:
            return -np.inf
    return total


def best_by_enumeration(model: SequenceModel, points: np.ndarray, confidence: np.ndarray) -> tuple[float, str, list]:
    best = confidence[:, 0][~np.isnan(confidence[:, 0])]
    relative = np.minimum(confidence / np.median(best[best >= best.max() / 2]), 1)
    places = label_places(model.anatomies)
    found = (0.0, model.anatomies[0].name, [])
    for anatomy in model.anatomies:
        options = []
        for label, name in enumerate(anatomy.labels):
            near = [c for c, n in enumerate(model.names) if abs(places[n] - places[name]) <= model.weights.max_shift]
            there = [(label, c, k) for c in near for k in range(points.shape[1]) if not np.isnan(confidence[c, k])]
            options.append([None, *there])
        for pick in itertools.product(*options):
            chain = [member for member in pick if member]
            if chain:
                score = score_of(model, anatomy, chain, points, relative)
                if score > found[0]:
                    found = (score, anatomy.name, chain)
    return found


def small_problem(seed: int, dims: int, count: int = 4):
    """Four members in a row; candidates near true places of any member, so that ghosts and repeated places abound."""
    rng = np.random.default_rng(seed)
    step = np.array([0.0, 3.0, -20.0])[-dims:]
    true = np.arange(count)[:, None] * step
    train = true + rng.normal(0, 3.0, (8, count, dims))
    which = rng.integers(0, count, (count, 2))
    which[:, 0] = np.clip(np.arange(count) + rng.choice([-1, 0, 0, 1], count), 0, count - 1)
    points = true[which] + rng.choice([0.5, 4.0]) * rng.normal(0, 1, (count, 2, dims))
    confidence = -np.sort(-rng.uniform(0, 1, (count, 2)), axis=1)
    gone = rng.random(count) < 0.3
    points[gone, 1], confidence[gone, 1] = np.nan, np.nan
    return train, points, confidence


@pytest.mark.parametrize("rotation_invariant", [False, True])
@pytest.mark.parametrize(("dims", "seed"), [(2, 0), (3, 1), (2, 2), (3, 3), (2, 4), (3, 5), (2, 6), (3, 7), (2, 8)])
def test_no_sequence_scores_higher(dims: int, seed: int, rotation_invariant: bool) -> None:
    train, points, confidence = small_problem(seed, dims)
    orders = [
        Anatomy("regular", ("a", "b", "c", "d")),
        Anatomy("one more", ("a", "b", "x", "c", "d"), 2.0),
        Anatomy("no c", ("a", "b", "d"), 1.0),
    ]
    if seed > 1:  # five labels with all their candidates are many chains: for two seeds only
        orders.pop(1)
    model = SequenceModel(
        list("abcd"), orders, shift_cost=2.0, missing_cost=1.0, rotation_invariant=rotation_invariant
    ).fit(train)
    result = model(points, confidence)
    score, anatomy, chain = best_by_enumeration(model, points, confidence)
    assert result.score == pytest.approx(score, abs=1e-9)
    assert result.anatomy == anatomy
    expected = np.full((4, 2), -1)
    for label, channel, candidate in chain:
        name = dict(zip((a.name for a in orders), orders, strict=True))[anatomy].labels[label]
        if name != "x":
            expected["abcd".index(name)] = channel, candidate
    np.testing.assert_array_equal(result.chosen.numpy(), expected)


@pytest.mark.parametrize("seed", range(6))
def test_a_chain_read_from_its_other_end_gives_the_same_members(seed: int) -> None:
    train, points, confidence = small_problem(seed, 3)
    model = SequenceModel(list("abcd")).fit(train)
    mirrored = SequenceModel(list("dcba")).fit([case[::-1] for case in train])
    one, other = model(points, confidence), mirrored(points[::-1], confidence[::-1])
    assert one.score == pytest.approx(other.score)
    np.testing.assert_array_equal(one.points.numpy(), other.points.numpy()[::-1])


def test_a_place_that_comes_back_later_in_the_chain_is_used_once() -> None:
    # With distances alone and a far reach, a - b - a again is a perfect chain for the dynamic programme.
    rng = np.random.default_rng(0)
    train = np.arange(3)[:, None] * np.array([0.0, 20.0]) + rng.normal(0, 1, (6, 3, 2))
    model = SequenceModel(["a", "b", "c"], rotation_invariant=True, max_shift=2, shift_cost=0.0).fit(train)
    points = np.array([[[0.0, 0.0]], [[0.0, 20.0]], [[0.0, 0.5]]])
    result = model(points, np.array([[0.9], [0.9], [0.8]]))
    score, _, chain = best_by_enumeration(model, points, np.array([[0.9], [0.9], [0.8]]))
    assert result.score == pytest.approx(score, abs=1e-9)
    assert int((result.chosen[:, 0] >= 0).sum()) == len(chain) == 2
