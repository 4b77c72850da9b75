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
"""The MONAI metric classes: accumulation, input forms, and gathering over processes."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from monai.data import MetaTensor, decollate_batch
from monai.metrics import CumulativeIterationMetric

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.metrics import (
    LandmarkMetric,
    OutlierRateMetric,
    RadialErrorMetric,
    SuccessfulDetectionRateMetric,
    outlier_rate,
    radial_errors,
    reduce_radial_errors,
    successful_detection_rate,
)

NAN = float("nan")
CLASSES = [RadialErrorMetric, SuccessfulDetectionRateMetric, OutlierRateMetric]


def points(seed: int, batch: int = 6, landmarks: int = 4, dims: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    true = torch.rand(batch, landmarks, dims, generator=generator) * 10
    pred = true + torch.randn(batch, landmarks, dims, generator=generator)
    true[0, 1] = NAN
    pred[1, 2] = NAN
    return pred, true


@pytest.mark.parametrize("metric_class", CLASSES)
@pytest.mark.parametrize("dims", [2, 3])
def test_batches_accumulate_to_the_whole(metric_class: type[LandmarkMetric], dims: int) -> None:
    pred, true = points(0, dims=dims)
    whole, parts = metric_class(), metric_class()
    whole(pred, true)
    for rows in (slice(0, 1), slice(1, 4), slice(4, 6)):
        parts(pred[rows], true[rows])
    torch.testing.assert_close(whole.aggregate(), parts.aggregate())
    assert isinstance(whole, CumulativeIterationMetric)
    assert len(parts) == 6
    assert parts.num_missed == 1


def test_classes_are_shells_of_the_functions() -> None:
    pred, true = points(1)
    table = radial_errors(pred, true)
    expected: list[tuple[LandmarkMetric, torch.Tensor]] = [
        (RadialErrorMetric("median"), reduce_radial_errors(table, "median")),
        (RadialErrorMetric("micro", missed_error=30.0), reduce_radial_errors(table, "micro", 30.0)),
        (SuccessfulDetectionRateMetric((1.0, 2.0), "<"), successful_detection_rate(table, (1.0, 2.0), "<")),
        (SuccessfulDetectionRateMetric(1.0, per_landmark=True), successful_detection_rate(table, 1.0, "<=", True)),
        (OutlierRateMetric((1.0, 2.0), ">="), outlier_rate(table, (1.0, 2.0), ">=")),
    ]
    for metric, value in expected:
        torch.testing.assert_close(metric(pred, true), table, equal_nan=True)
        torch.testing.assert_close(metric.aggregate(), value)


def test_input_forms_of_engines() -> None:
    """A decollated list, a collated tensor, MetaTensors, NumPy arrays, and the channel axis of MONAI's transforms."""
    pred, true = points(2)
    expected = RadialErrorMetric()(pred, true)
    forms: list[tuple[Any, Any]] = [
        (list(pred), list(true)),
        (MetaTensor(pred), true),
        (decollate_batch(MetaTensor(pred)), decollate_batch(MetaTensor(true))),
        (list(pred.numpy()), list(true.numpy())),
        (list(pred), true),
        (pred[:, None], true[:, None]),
        ([p[None] for p in pred], [t[None] for t in true]),
    ]
    for p, t in forms:
        result = RadialErrorMetric()(p, t)
        assert type(result) is torch.Tensor
        torch.testing.assert_close(result, expected, equal_nan=True)


def test_spacing_turns_voxels_into_millimetres() -> None:
    pred, true = points(3)
    metric = RadialErrorMetric()
    metric(list(pred), list(true), spacing=[0.5, 2.0])
    expected = radial_errors(pred, true, [0.5, 2.0])
    assert metric.aggregate().item() == pytest.approx(reduce_radial_errors(expected).item())


def test_reduction_may_be_chosen_at_the_end() -> None:
    metric = RadialErrorMetric()
    metric([[[3.0, 4.0], [0.0, 1.0]]], [[[0.0, 0.0], [0.0, 0.0]]])
    assert metric.aggregate("per_landmark").tolist() == [5.0, 1.0]
    assert metric.aggregate("none").shape == (1, 2)
    assert metric.aggregate().item() == 3.0


def test_all_missing_is_nan() -> None:
    metric = RadialErrorMetric()
    metric(torch.zeros(2, 3, 2), torch.full((2, 3, 2), NAN))
    assert math.isnan(metric.aggregate().item())


def test_reset_forgets() -> None:
    metric = RadialErrorMetric()
    metric(torch.zeros(1, 1, 2), torch.ones(1, 1, 2))
    metric.reset()
    with pytest.raises(ValueError, match="no data to aggregate"):
        metric.aggregate()
    metric(torch.zeros(1, 1, 2), torch.tensor([[[0.0, 2.0]]]))
    assert metric.aggregate().item() == 2.0


@pytest.mark.parametrize(
    ("metric_class", "higher", "unit"),
    [(RadialErrorMetric, False, "mm"), (SuccessfulDetectionRateMetric, True, "%"), (OutlierRateMetric, False, "%")],
)
def test_direction_and_unit_are_stated(metric_class: type[LandmarkMetric], higher: bool, unit: str) -> None:
    assert metric_class.higher_is_better is higher
    assert metric_class.unit == unit


@pytest.mark.parametrize("metric_class", CLASSES)
def test_metrics_can_be_pickled(metric_class: type[LandmarkMetric]) -> None:
    metric = metric_class()
    metric(*points(4))
    copy = pickle.loads(pickle.dumps(metric))
    torch.testing.assert_close(copy.aggregate(), metric.aggregate())


@pytest.mark.parametrize(
    ("pred", "true", "words"),
    [
        ([torch.zeros(3, 2)] * 2, [torch.zeros(3, 2)], "got 2 and 1"),
        ([torch.zeros(3, 2), torch.zeros(4, 2)], [torch.zeros(3, 2)] * 2, "same landmarks"),
        ([], [], "empty"),
        (torch.zeros(3, 2), torch.zeros(3, 2), r"\(B, N, D\)"),
        (torch.zeros(1, 3, 2), None, "true points"),
        ([torch.zeros(3, 2)], None, "got 1 and none"),
    ],
)
def test_wrong_input_is_explained(pred: Any, true: Any, words: str) -> None:
    with pytest.raises(LandmarkError, match=words):
        RadialErrorMetric()(pred, true)


def test_another_number_of_landmarks_is_refused_at_once() -> None:
    metric = RadialErrorMetric()
    metric(torch.zeros(1, 3, 2), torch.zeros(1, 3, 2))
    with pytest.raises(LandmarkError, match="4 landmarks, the ones before had 3"):
        metric(torch.zeros(1, 4, 2), torch.zeros(1, 4, 2))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: RadialErrorMetric("mean"), "mean"),
        (lambda: RadialErrorMetric(missed_error=0.0), "missed_error"),
        (lambda: SuccessfulDetectionRateMetric(-2.0), "positive"),
        (lambda: SuccessfulDetectionRateMetric(2.0, ">"), ">"),
        (lambda: OutlierRateMetric(2.0, "<"), "<"),
    ],
)
def test_wrong_settings_fail_in_the_constructor(build: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


# images of each of two processes
SHARES = {"uneven": [[0, 1, 2, 3], [4, 5]], "one empty": [[0, 1, 2, 3, 4, 5], []], "both empty": [[], []]}


def gathering_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        pred, true = points(5)
        for name, shares in SHARES.items():
            metric = RadialErrorMetric("none")
            for row in shares[rank]:
                metric(pred[row : row + 1], true[row : row + 1])
            told = RadialErrorMetric("none")
            for row in shares[rank]:
                told(pred[row : row + 1], true[row : row + 1], state=states(true)[row : row + 1])
            outside = told.outside()
            np.save(f"{folder}/outside {name}{rank}.npy", np.zeros(0) if outside is None else outside.numpy())
            np.save(f"{folder}/{name}{rank}.npy", metric.aggregate().numpy() if len(metric) else np.zeros(0))
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_table_of_one(tmp_path: Path) -> None:
    """A process without any image must take part in the gathering, or the other waits for ever."""
    mp.start_processes(gathering_process, args=(str(tmp_path),), nprocs=2, start_method="spawn")
    expected = radial_errors(*points(5)).numpy()
    for rank in range(2):
        np.testing.assert_array_equal(np.load(tmp_path / f"uneven{rank}.npy"), expected)
        np.testing.assert_array_equal(np.load(tmp_path / f"one empty{rank}.npy"), expected)
        assert np.load(tmp_path / f"both empty{rank}.npy").size == 0
        beside = (states(points(5)[1]) == 1).numpy()
        np.testing.assert_array_equal(np.load(tmp_path / f"outside uneven{rank}.npy"), beside)
        np.testing.assert_array_equal(np.load(tmp_path / f"outside one empty{rank}.npy"), beside)
        assert np.load(tmp_path / f"outside both empty{rank}.npy").size == 0


# --- landmarks outside the image ------------------------------------------------------------------------------------


def states(true: torch.Tensor) -> torch.Tensor:
    """Landmark 0 is outside in the even images, all others are inside or missing."""
    state = 2 * (~true.isnan().any(-1)).to(torch.uint8)
    state[::2, 0] = 1
    return state


@pytest.mark.parametrize("metric_class", CLASSES)
@pytest.mark.parametrize("dims", [2, 3])
def test_landmarks_outside_are_left_out_and_counted(metric_class: type[LandmarkMetric], dims: int) -> None:
    """As if the truth lacked them, but for the count; for tensors, lists and one image after the other."""
    pred, true = points(6, dims=dims)
    state = states(true)
    lacking = true.clone()
    lacking[::2, 0] = NAN
    expected = metric_class()
    expected(pred, lacking)
    assert expected.outside() is None
    whole, decollated, parts = metric_class(), metric_class(), metric_class()
    whole(pred, true, state=state)
    decollated(list(pred), list(true), state=decollate_batch(MetaTensor(state)))
    for row in range(len(pred)):
        table = parts(pred[row : row + 1], true[row : row + 1], state=state[row : row + 1])
        assert table.shape == (1, 4)
    for metric in (whole, decollated, parts):
        torch.testing.assert_close(metric.aggregate(), expected.aggregate())
        torch.testing.assert_close(metric.get_buffer(), expected.get_buffer(), equal_nan=True)
        assert (metric.num_outside, metric.num_missed) == (3, 1)
        outside = metric.outside()
        assert outside is not None
        assert torch.equal(outside, state == 1)
        assert len(metric) == 6
        metric.reset()
        assert (metric.num_outside, metric.outside()) == (0, None)


def test_nobody_outside_is_another_thing_than_nobody_asked() -> None:
    pred, true = points(7)
    metric = RadialErrorMetric()
    metric(pred, true, state=2 * (~true.isnan().any(-1)).int())
    outside = metric.outside()
    assert outside is not None
    assert outside.shape == (6, 4)
    assert metric.num_outside == 0


@pytest.mark.parametrize("first", [True, False])
def test_a_state_comes_with_every_batch_or_with_none(first: bool) -> None:
    pred, true = points(8)
    metric = RadialErrorMetric()
    metric(pred, true, state=states(true) if first else None)
    with pytest.raises(LandmarkError, match="left out of some images and scored in others"):
        metric(pred, true, state=None if first else states(true))


def test_all_outside_is_nan_and_counted() -> None:
    metric = RadialErrorMetric(missed_error=5.0)
    metric(torch.full((2, 3, 2), NAN), torch.zeros(2, 3, 2), state=torch.ones(2, 3))
    assert math.isnan(metric.aggregate().item())
    assert (metric.num_outside, metric.num_missed) == (6, 0)
