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
"""The identification rate as a MONAI metric, and its summary."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from monai.data import MetaTensor, decollate_batch
from monai.metrics import CumulativeIterationMetric

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.metrics import radial_errors
from monai_landmarks.metrics.identification import identification_rate, identify
from monai_landmarks.metrics.identification_metric import IdentificationRateMetric
from monai_landmarks.metrics.identification_summary import summarize_identification, vertebra_regions

NAN = float("nan")
NAMES = ("C7", "T1", "L5", "S1", "coccyx")


def points(seed: int, batch: int = 6, landmarks: int = 5, dims: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    true = 12.0 * torch.randn(batch, landmarks, dims, generator=generator).cumsum(1)
    pred = true + 6.0 * torch.randn(batch, landmarks, dims, generator=generator)
    true[torch.rand(batch, landmarks, generator=generator) < 0.2] = NAN
    pred[torch.rand(batch, landmarks, generator=generator) < 0.2] = NAN
    return pred, true


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("rule", ["glocker", "verse", "verse_program"])
def test_batches_accumulate_to_the_whole(dims: int, rule: str) -> None:
    pred, true = points(0, dims=dims)
    whole, parts = IdentificationRateMetric(rule, names=NAMES), IdentificationRateMetric(rule, names=NAMES)
    whole(pred, true)
    for rows in (slice(0, 1), slice(1, 4), slice(4, 6)):
        parts(pred[rows], true[rows])
    found = identify(pred, true, rule)
    for reduction in ("micro", "macro", "all_correct", "flawless", "per_landmark"):
        expected = identification_rate(found, reduction)
        torch.testing.assert_close(whole.aggregate(reduction), expected, equal_nan=True)
        torch.testing.assert_close(parts.aggregate(reduction), expected, equal_nan=True)
    assert parts.summary() == whole.summary() == summarize_identification(found, NAMES)
    assert isinstance(whole, CumulativeIterationMetric)
    assert parts.num_missed == int(found.missed.sum())
    assert parts.num_false_positive == int(found.false_positive.sum()) > 0


def test_input_forms_of_engines() -> None:
    """Decollated lists, MetaTensors, arrays and the channel axis of MONAI's transforms."""
    pred, true = points(1)
    expected = identification_rate(identify(pred, true)).item()
    forms = [
        (list(pred), list(true)),
        (decollate_batch(MetaTensor(pred)), decollate_batch(MetaTensor(true))),
        (list(pred.numpy()), list(true.numpy())),
        (pred[:, None], true[:, None]),
        ([p[None] for p in pred], [t[None] for t in true]),
    ]
    for p, t in forms:
        metric = IdentificationRateMetric()
        torch.testing.assert_close(metric(p, t), radial_errors(pred, true), equal_nan=True)
        assert metric.aggregate().item() == expected


def test_spacing_and_state_are_those_of_the_other_metrics() -> None:
    pred, true = points(2)
    size = torch.tensor([0.5, 2.0, 1.0])
    metric = IdentificationRateMetric()
    metric(pred, true, spacing=size.tolist())
    assert metric.aggregate().item() == identification_rate(identify(pred * size, true * size)).item()
    state = 2 * (~true.isnan().any(-1)).to(torch.uint8)
    state[::2, 1] = (state[::2, 1] > 0).to(torch.uint8)  # 1 is outside
    metric = IdentificationRateMetric()
    metric(pred, true, state=state)
    expected = identify(pred, true, outside=state == 1)
    for name in ("identified", "misidentified", "missed", "false_positive", "evaluated", "lies_on"):
        assert torch.equal(getattr(metric.identification(), name), getattr(expected, name)), name
    assert metric.num_outside == int((state == 1).sum()) > 0
    counted = (~pred.isnan().any(-1) & (state != 1)).sum()
    assert metric.summary().precision == pytest.approx(100 * float(expected.identified.sum() / counted))


def test_reset_and_nothing_yet() -> None:
    metric = IdentificationRateMetric()
    assert metric.num_false_positive == 0
    with pytest.raises(ValueError, match="no data to aggregate"):
        metric.aggregate()
    metric(*points(3))
    metric.reset()
    with pytest.raises(ValueError, match="no data to aggregate"):
        metric.summary()


@pytest.mark.parametrize("options", [{"rule": "x"}, {"max_distance": -1.0}, {"reduction": "median"}])
def test_wrong_settings_fail_in_the_constructor(options: dict) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        IdentificationRateMetric(**options)


def test_names_must_fit() -> None:
    with pytest.raises(LandmarkError, match="5 landmarks, `names` has 2"):
        IdentificationRateMetric(names=["L1", "L2"])(*points(4))
    found = identify(*points(4))
    with pytest.raises(LandmarkError, match="different names"):
        summarize_identification(found, ["L1"] * 5)
    with pytest.raises(LandmarkError, match="L9"):
        summarize_identification(found, NAMES, {"lumbar": ["L9"]})


# --- summary --------------------------------------------------------------------------------------------------------


def example() -> tuple[list, list]:
    """First image: C7 on T1, T1 there, L5 missed, S1 without truth, coccyx 3 mm off. Second: C7 only, 1 mm off."""
    true = [[[0, 0], [0, 30], [0, 60], [NAN, NAN], [0, 120]], [[0, 0], *[[NAN, NAN]] * 4]]
    pred = [[[0, 28], [0, 30], [NAN, NAN], [0, 300], [3, 120]], [[1, 0], *[[NAN, NAN]] * 4]]
    return pred, true


def test_a_summary_counted_by_hand() -> None:
    s = summarize_identification(identify(*example()), NAMES)
    assert (s.num_images, s.num_evaluated, s.num_identified) == (2, 5, 3)
    assert (s.num_misidentified, s.num_missed, s.num_false_positive, s.num_shifted) == (1, 1, 1, 0)
    assert (s.rate, s.image_rate, s.all_correct_rate, s.flawless_rate) == (60.0, 75.0, 50.0, 50.0)
    assert s.precision == 60.0  # 3 of 5 predictions
    assert s.d_mean == (28 + 0 + 3 + 1) / 4
    assert s.image_d_mean == pytest.approx((31 / 3 + 1) / 2)
    assert s.landmarks["C7"] == (50.0, 2, 1, 0, 0)
    assert s.landmarks["S1"][1:] == (0, 0, 0, 1)
    assert math.isnan(s.landmarks["S1"].rate)
    assert {region: counts[1:] for region, counts in s.regions.items()} == {
        "cervical": (2, 1, 0, 0),
        "thoracic": (1, 1, 0, 0),
        "lumbar": (1, 0, 1, 0),
        "sacral": (0, 0, 0, 1),
    }
    first, second = s.images
    assert first.misidentified == {"C7": "T1"}
    assert (first.missed, first.false_positive, first.all_correct) == (("L5",), ("S1",), False)
    assert (second.rate, second.all_correct, second.shift) == (100.0, True, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        s.rate = 1.0  # type: ignore[misc]


def test_json_and_text() -> None:
    s = summarize_identification(identify(*example()), NAMES)
    content = json.loads(json.dumps(s.to_dict(), allow_nan=False))
    assert content["landmarks"]["S1"]["rate"] is None
    assert content["confusions"][0] == {"name": "C7", "lies_on": "T1", "times": 1}
    assert content["images"][0]["misidentified"] == {"C7": "T1"}
    assert str(s).startswith("60.00 % of 5 landmarks identified, 1 misidentified, 1 missed, 1 false positives")
    rows = [line.split() for line in s.table().splitlines()]
    assert ["C7", "50.00", "2", "1", "0", "0"] in rows
    assert ["lumbar", "0.00", "1", "0", "1", "0"] in rows
    assert ["C7", "T1", "1"] in rows
    assert ["S1", "no", "landmark", "1"] in rows


def test_shifted_labels_are_told_by_name() -> None:
    true = torch.tensor([[[0.0, 30.0 * i] for i in range(5)]])
    pred = true.roll(-1, dims=1)
    pred[:, -1] = NAN
    s = summarize_identification(identify(pred, true), ["L1", "L2", "L3", "L4", "L5"])
    assert s.num_shifted == 1
    assert s.images[0].shift is not None
    assert s.images[0].shift.startswith("all labels are 1 too low, L1 lies on L2")
    assert str(s).endswith("labels shifted in 1 of them")


def test_regions_by_name_and_by_choice() -> None:
    assert vertebra_regions(["C1", "T13", "L6", "sacrum", "S2", "cocc", "Tip", "C"]) == {
        "cervical": ("C1",),
        "thoracic": ("T13",),
        "lumbar": ("L6",),
        "sacral": ("sacrum", "S2"),
    }
    assert vertebra_regions(["0", "1"]) == {}
    metric = IdentificationRateMetric(names=NAMES, regions={"upper": ["C7", "T1"]})
    metric(*example())
    assert metric.summary().regions["upper"][1:3] == (3, 2)


def test_without_names_and_without_truth() -> None:
    s = summarize_identification(identify([[[0.0, 0.0]]], [[[NAN, NAN]]]))
    assert list(s.landmarks) == ["0"]
    assert all(math.isnan(v) for v in (s.rate, s.image_rate, s.all_correct_rate, s.d_mean, s.images[0].rate))
    assert (s.precision, s.num_false_positive, s.regions) == (0.0, 1, {})
    assert "n/a % of 0" in s.table()


# --- processes ------------------------------------------------------------------------------------------------------


def gathering_process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    pred, true = points(5)
    for name, rows in (("uneven", (slice(0, 4), slice(4, 6))), ("one empty", (slice(0, 6), slice(0, 0)))):
        metric = IdentificationRateMetric()
        if len(pred[rows[rank]]):
            metric(pred[rows[rank]], true[rows[rank]])
        np.save(f"{folder}/{name}{rank}.npy", metric.identification().lies_on.numpy())
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_tables_of_one(tmp_path: Path) -> None:
    mp.start_processes(gathering_process, args=(str(tmp_path),), nprocs=2, start_method="spawn")
    expected = identify(*points(5)).lies_on.numpy()
    for name in ("uneven", "one empty"):
        for rank in range(2):
            np.testing.assert_array_equal(np.load(tmp_path / f"{name}{rank}.npy"), expected)
