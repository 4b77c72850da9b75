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
"""Statistics, files and refusals of the sequence model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.postprocessing import Anatomy, SequenceModel, spine_anatomies

NAMES = ["a", "b", "c"]


def cases(count: int = 6, seed: int = 0, dims: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.arange(3)[:, None] * np.array([1.0, 2.0, -20.0])[-dims:] + rng.normal(0, 2, (count, 3, dims))


@pytest.fixture
def model() -> SequenceModel:
    return SequenceModel(NAMES).fit(cases())


def test_many_cases_give_the_sample_statistics() -> None:
    points = cases(4000)
    statistics = SequenceModel(NAMES).fit(points).statistics
    for t in range(2):
        offsets = points[:, t + 1] - points[:, t]
        np.testing.assert_allclose(statistics.mean[t], offsets.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(statistics.covariance[t], np.cov(offsets.T), atol=0.05)
        lengths = np.linalg.norm(offsets, axis=1)
        assert statistics.distance[t] == pytest.approx(lengths.mean())
        assert statistics.variance[t] == pytest.approx(lengths.var(), rel=0.01)


def test_few_cases_are_shrunk_to_the_pooled_covariance() -> None:
    points = cases(2)
    offsets = np.diff(points, axis=1)
    scatter = [np.cov(offsets[:, t].T) for t in range(2)]  # two samples: one degree of freedom, singular
    pooled = (scatter[0] + scatter[1]) / 2
    statistics = SequenceModel(NAMES).fit(points).statistics
    np.testing.assert_allclose(statistics.covariance[0], (scatter[0] + 10 * pooled) / 11 * 1.5)


def test_expected_error_of_positions_widens_what_is_usual() -> None:
    close = SequenceModel(NAMES).fit(cases(), localization_error=0.1)
    wide = SequenceModel(NAMES).fit(cases(), localization_error=10.0)
    off = cases().mean(axis=0)[:, None] + np.array([[[0.0, 0, 0]], [[15.0, 0, 0]], [[0.0, 0, 0]]])
    scores = np.full((3, 1), 0.9)
    assert wide(off, scores).score > close(off, scores).score


def test_an_unseen_transition_borrows_from_its_neighbours_with_a_warning() -> None:
    rng = np.random.default_rng(0)
    points = np.arange(4)[:, None] * np.array([0.0, 20.0]) + rng.normal(0, 1, (5, 4, 2))
    points[:3, 1], points[3:, 2] = np.nan, np.nan  # b and c never together
    with pytest.warns(UserWarning, match="fewer than 2 training cases show 'b-c'"):
        statistics = SequenceModel(["a", "b", "c", "d"]).fit(points).statistics
    assert statistics.counts.tolist() == [2, 0, 3]
    np.testing.assert_allclose(statistics.mean[1], statistics.mean[[0, 2]].mean(axis=0))
    assert np.isfinite(statistics.covariance).all()


def test_a_saved_model_gives_the_same_answer(tmp_path, model: SequenceModel) -> None:
    orders = [Anatomy("regular", ("a", "b", "c")), {"name": "more", "labels": ["a", "x", "b", "c"], "cost": 2}]
    other = SequenceModel(NAMES, orders, reference=0.7, shift_cost=2.5, rotation_invariant=True).fit(cases(), 1.5)
    rng = np.random.default_rng(1)
    points, confidence = cases(1)[0][:, None] + rng.normal(0, 5, (3, 4, 3)), -np.sort(-rng.random((3, 4)), axis=1)
    for number, one in enumerate((model, other)):
        path = tmp_path / f"{number}.json"
        one.save(path)
        again = SequenceModel.load(path, NAMES)
        assert (again.weights, again.anatomies, again.reference) == (one.weights, one.anatomies, one.reference)
        first, second = one(points, confidence), again(points, confidence)
        assert first.score == second.score
        np.testing.assert_array_equal(first.chosen, second.chosen)


def test_files_that_do_not_fit_are_refused(tmp_path, model: SequenceModel) -> None:
    path = tmp_path / "model.json"
    model.save(path)
    with pytest.raises(LandmarkError, match=r"is for the names \['a', 'b', 'c'\], wanted are \['a', 'c', 'b'\]"):
        SequenceModel.load(path, ["a", "c", "b"])
    with pytest.raises(FileNotFoundError, match="no such sequence model"):
        SequenceModel.load(tmp_path / "other.json")
    content = json.loads(path.read_text())
    for change in ({"version": 2}, {"kind": "shape model"}):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(LandmarkError, match="not a sequence model of version 1"):
            SequenceModel.load(path)
    for statistics in (
        {},
        {**content["statistics"], "mean": [[1, 2, 3]]},
        {**content["statistics"], "distance": [None, 1]},
    ):
        path.write_text(json.dumps({**content, "statistics": statistics}))
        with pytest.raises(LandmarkError, match="is damaged"):
            SequenceModel.load(path)
    path.write_text(json.dumps(content)[:200])
    with pytest.raises(LandmarkError, match="not valid JSON"):
        SequenceModel.load(path)
    with pytest.raises(LandmarkError, match="nothing to save"):
        SequenceModel(NAMES).save(tmp_path / "new.json")
    assert not (tmp_path / "new.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["a", "b", "a"]}, "'a' more than once"),
        ({"names": "abc"}, "sequence of texts"),
        ({"names": ["a"]}, "at least 2"),
        ({"names": ["a", 2]}, "must be texts"),
        ({"max_misfit": 0.0}, "max_misfit must be a positive"),
        ({"confidence_weight": float("nan")}, "confidence_weight must be a positive"),
        ({"shift_cost": -1.0}, "shift_cost must be a number from 0 on"),
        ({"confidence_threshold": 1.0}, "confidence_threshold"),
        ({"reference": -1.0}, "reference must be a positive"),
        ({"anatomies": []}, "empty"),
        ({"anatomies": [Anatomy("regular", ("a", "b", "x"))]}, "'x', for which there is no channel"),
        ({"anatomies": [Anatomy("regular", ("a", "b"))]}, "channels 'c' are in no anatomy"),
        ({"anatomies": [Anatomy("r", ("a", "b", "c")), Anatomy("turned", ("c", "b", "a"))]}, "in another order"),
        ({"anatomies": [Anatomy("r", ("a", "b", "c")), Anatomy("end", ("a", "b", "c", "x"))]}, "begin and end"),
        ({"anatomies": [Anatomy("r", ("a", "b", "c")), Anatomy("r", ("a", "c"))]}, "'r' more than once"),
    ],
)
def test_constructors_refuse(arguments: dict, message: str) -> None:
    with pytest.raises(LandmarkError, match=message):
        SequenceModel(**{"names": NAMES, **arguments})


def test_an_unknown_reference_is_named() -> None:
    with pytest.raises(ValueError, match="volum"):
        SequenceModel(NAMES, reference="volum")


def test_anatomies_refuse() -> None:
    with pytest.raises(LandmarkError, match="cost -1"):
        Anatomy("a", ("a", "b"), -1)
    with pytest.raises(LandmarkError, match="sequence of labels"):
        Anatomy("a", "ab")  # type: ignore[arg-type]


def test_only_spines_have_variants() -> None:
    assert [a.name for a in spine_anatomies(["sella", "nasion"])] == ["regular"]
    assert [a.name for a in spine_anatomies(["L4", "L5", "S1"])] == ["regular", "L6 present", "L5 absent"]
    assert [a.name for a in spine_anatomies(["L1", "L2", "L3", "L4", "L5"])] == ["regular"]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (cases()[:, :2], r"list of \(3, D\)"),
        ([], "got shapes \\[\\]"),
        ([np.zeros((3, 2)), np.zeros((3, 3))], "got shapes"),
        (cases(1), "nothing can be learnt"),
        (np.zeros((4, 3, 3)), "must be positive"),
        (np.full((4, 3, 3), np.inf), "infinite"),
    ],
)
def test_training_refuses(points, message: str) -> None:
    with pytest.raises(LandmarkError, match=message):
        SequenceModel(NAMES).fit(points)


def test_candidates_that_cannot_be_are_refused(model: SequenceModel) -> None:
    points, scores = np.zeros((3, 2, 3)), np.array([[0.9, 0.5]] * 3)
    nan = np.nan
    wrong = [
        (points[:2], scores[:2], r"N = 3 names and D = 3, got \(2, 2, 3\)"),
        (points[..., :2], scores, "D = 3"),
        (points[None], scores[None], "one scan at a time"),
        (points[:, :0], scores[:, :0], "must have shape"),
        (points, scores[:, :1], r"\(N, K\) = \(3, 2\)"),
        (points, scores[:, ::-1], "not sorted: candidate 2"),
        (points, np.where(scores == 0.5, nan, scores), "candidate 2 of 'a' is at"),
        (np.full((3, 2, 3), nan), scores, "what pads the list is NaN in both"),
        (points + np.array([nan, 0, 0]), scores, "some but not all"),
        (points, scores * np.inf, "finite confidence"),
    ]
    padded = points.copy()
    padded[1, 0] = nan
    wrong.append((padded, np.where(np.isnan(padded[..., 0]), nan, scores), "'b' are not sorted"))
    for candidates, confidence, message in wrong:
        with pytest.raises(LandmarkError, match=message):
            model(candidates, confidence)
    with pytest.raises(LandmarkError, match="call fit"):
        SequenceModel(NAMES)(points, scores)
    with pytest.raises(LandmarkError, match="got 1, 1 and 0"):
        model.tune([points], [scores], [])
    with pytest.raises(LandmarkError, match="before tune"):
        SequenceModel(NAMES).tune([points], [scores], [points[:, 0]])


def test_inputs_are_not_changed(model: SequenceModel) -> None:
    points, scores = torch.from_numpy(cases(1)[0][:, None].copy()), torch.full((3, 1), 0.9)
    before = points.clone()
    result = model(points, scores)
    result.points[:] = 0
    assert torch.equal(points, before)
