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
"""Metric handlers and the metrics saver inside MONAI's engines."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ignite.engine import Engine
from ignite.handlers import EarlyStopping
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import MetricsSaver, from_engine
from monai.transforms import CopyItemsd

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.handlers import (
    LandmarkMetricsSaver,
    OutlierRate,
    RadialError,
    SuccessfulDetectionRate,
    lower_is_better,
    negative_metric,
)

NAN, INF = float("nan"), float("inf")
POINTS = from_engine(["pred", "truth"])

# 3 cases of 2 landmarks: errors [5, 1], [NaN, 2], [inf, 0]
TRUTH = [[[0.0, 0.0], [0.0, 0.0]], [[NAN, NAN], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]
FOUND = [[[3.0, 4.0], [0.0, 1.0]], [[7.0, 7.0], [0.0, 2.0]], [[NAN, NAN], [0.0, 0.0]]]


class Offsets(torch.nn.Module):
    """A network whose output is its input: the predictions come in as the image."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.as_tensor() if isinstance(image, MetaTensor) else image


def data_list() -> list[dict[str, Any]]:
    return [
        {"image": torch.tensor(f), "landmarks": torch.tensor(t), "case": f"c{i}"}
        for i, (f, t) in enumerate(zip(FOUND, TRUTH, strict=True))
    ]


def evaluator(
    handlers: Sequence[Any], key: dict, more: dict | None = None, data: list | None = None
) -> SupervisedEvaluator:
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(data_list() if data is None else data), batch_size=2),
        network=Offsets(),
        prepare_batch=lambda batch, device, non_blocking, **_: (batch["image"].to(device), None),
        postprocessing=CopyItemsd(keys="landmarks", names="truth"),
        key_val_metric=key,
        additional_metrics=more,
        metric_cmp_fn=lower_is_better,
        val_handlers=handlers,
    )


def test_handlers_record_one_number_each() -> None:
    engine = evaluator(
        [],
        {"radial_error": RadialError(output_transform=POINTS)},
        {
            "median": RadialError("median", output_transform=POINTS),
            "with_missed": RadialError(missed_error=12.0, output_transform=POINTS),
            "sdr_2mm": SuccessfulDetectionRate(2.0, output_transform=POINTS),
            "sdr_below_2mm": SuccessfulDetectionRate(2.0, "<", output_transform=POINTS),
            "outliers_2mm": OutlierRate(2.0, output_transform=POINTS),
        },
    )
    engine.run()
    metrics = engine.state.metrics
    assert metrics["radial_error"] == 2.0  # (5 + 1 + 2 + 0) / 4
    assert metrics["radial_error_missed"] == 1
    assert metrics["median"] == 1.5
    assert metrics["with_missed"] == 4.0
    assert metrics["sdr_2mm"] == pytest.approx(60.0)
    assert metrics["sdr_below_2mm"] == pytest.approx(40.0)
    assert metrics["outliers_2mm"] == pytest.approx(40.0)
    expected = torch.tensor([[5, 1], [NAN, 2], [INF, 0]], dtype=torch.float64)
    torch.testing.assert_close(engine.state.metric_details["radial_error"], expected, equal_nan=True)
    assert engine.state.best_metric == 2.0


def test_missed_landmarks_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    engine = evaluator([], {"radial_error": RadialError(output_transform=POINTS)})
    engine.logger.setLevel(logging.WARNING)
    with caplog.at_level(logging.WARNING):
        engine.run()
    assert "1 landmarks that the truth has were not predicted" in caplog.text


def test_a_second_epoch_starts_afresh() -> None:
    engine = evaluator([], {"radial_error": RadialError(output_transform=POINTS)})
    engine.run()
    engine.run()
    assert engine.state.metrics["radial_error"] == 2.0
    assert len(engine.state.metric_details["radial_error"]) == 3


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: RadialError("per_landmark"), "per_landmark"),
        (lambda: SuccessfulDetectionRate((2.0, 4.0)), "one handler for each radius"),  # type: ignore[arg-type]
        (lambda: OutlierRate([2.0]), "one handler for each radius"),  # type: ignore[arg-type]
        (lambda: SuccessfulDetectionRate(2.0, ">"), ">"),
    ],
)
def test_wrong_settings_fail_in_the_constructor(build: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


@pytest.mark.parametrize(
    ("current", "best", "better"),
    [(1.0, 2.0, True), (2.0, 2.0, False), (3.0, 2.0, False), (NAN, 2.0, False), (2.0, NAN, True), (NAN, NAN, False)],
)
def test_lower_is_better(current: float, best: float, better: bool) -> None:
    assert lower_is_better(current, best) is better


def test_early_stopping_stops_on_a_growing_error_and_on_nan() -> None:
    for values in ([3.0, 2.0, 2.5, 2.5, 1.0], [3.0, 2.0, NAN, NAN, 1.0]):
        trainer = Engine(lambda engine, batch: None)
        trainer.run([0], max_epochs=1)
        stopper = EarlyStopping(patience=2, score_function=negative_metric("radial_error"), trainer=trainer)
        validator = Engine(lambda engine, batch: None)
        stops = []
        for value in values:
            validator.state.metrics["radial_error"] = value
            stopper(validator)
            stops.append(bool(trainer.should_terminate))
        assert stops == [False, False, False, True, True]


def test_negative_metric_names_the_metrics_there_are() -> None:
    engine = Engine(lambda engine, batch: None)
    engine.state.metrics = {"radial_error": 1.0, "table": [1, 2]}
    with pytest.raises(ValueError, match=r"did you mean 'radial_error'"):
        negative_metric("radial_eror")(engine)
    with pytest.raises(ValueError, match="not one number"):
        negative_metric("table")(engine)


# --- LandmarkMetricsSaver -------------------------------------------------------------------------------------------


def test_saver_writes_what_a_table_needs(tmp_path: Path) -> None:
    saver = LandmarkMetricsSaver(tmp_path, landmark_names=["tip", "base"], method="offsets", info={"seed": 3})
    assert isinstance(saver, MetricsSaver)
    engine = evaluator([saver], {"radial_error": RadialError(output_transform=POINTS)})
    for _ in range(2):  # a second validation replaces the files
        engine.run()
        content = json.loads((tmp_path / "metrics.json").read_text())
        assert content["protocol"]["name"] == "native/mm"
        assert content["radial_error_mm"]["mean"] == 2.0
        assert (content["num_evaluated"], content["num_missed"], content["num_missing"]) == (5, 1, 1)
        assert (content["method"], content["info"], content["phantom"]) == ("offsets", {"seed": 3}, False)
        rows = list(csv.reader((tmp_path / "radial_errors.csv").open()))
        assert rows[0] == ["case", "tip", "base", "mean"]
        assert rows[1:] == [["c0", "5", "1", "3"], ["c1", "", "2", "2"], ["c2", "inf", "0", "0"]]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "metrics.json",
        "per_landmark.csv",
        "radial_errors.csv",
        "table.txt",
    ]


@pytest.mark.parametrize("given", [None, from_engine(["image"])], ids=["by default", "by batch_transform"])
def test_saver_takes_the_case_from_the_image_file(tmp_path: Path, given: Any) -> None:
    data = data_list()
    for index, item in enumerate(data):
        item["image"] = MetaTensor(item["image"], meta={"filename_or_obj": f"/folder/{index}.nii.gz"})
        del item["case"]
    saver = LandmarkMetricsSaver(tmp_path, batch_transform=given)
    evaluator([saver], {"radial_error": RadialError(output_transform=POINTS)}, data=data).run()
    rows = list(csv.reader((tmp_path / "radial_errors.csv").open()))
    assert [row[0] for row in rows] == ["case", "0", "1", "2"]


def test_saver_without_any_case_says_where_to_put_it(tmp_path: Path) -> None:
    data = [{"image": item["image"], "landmarks": item["landmarks"]} for item in data_list()]
    engine = evaluator([LandmarkMetricsSaver(tmp_path)], {"mre": RadialError(output_transform=POINTS)}, data=data)
    engine.logger.setLevel(logging.CRITICAL)
    with pytest.raises(LandmarkError, match="under 'case'"):
        engine.run()


def test_saver_without_the_error_table_says_what_to_attach(tmp_path: Path) -> None:
    saver = LandmarkMetricsSaver(tmp_path, metric_name="radial_error")
    engine = evaluator([saver], {"mre": RadialError(output_transform=POINTS)})
    engine.logger.setLevel(logging.CRITICAL)
    with pytest.raises(LandmarkError, match=r"no error table 'radial_error' in this engine, it has 'mre'"):
        engine.run()


def test_saver_refuses_names_other_than_the_protocols(tmp_path: Path) -> None:
    with pytest.raises(LandmarkError, match="sella"):
        LandmarkMetricsSaver(tmp_path, protocol="isbi2015/mean", landmark_names=["tip"])


def test_saver_names_the_phantom(tmp_path: Path) -> None:
    (tmp_path / "PHANTOM.txt").write_text("phantom")
    saver = LandmarkMetricsSaver(tmp_path, protocol="isbi2015/mean", section="training", dataset_dir=tmp_path)
    assert saver.protocol.is_phantom
    assert saver.landmark_names is not None
    assert len(saver.landmark_names) == 19


def test_saver_refuses_cases_of_another_section(tmp_path: Path) -> None:
    saver = LandmarkMetricsSaver(tmp_path, protocol="isbi2015/mean")
    engine = Engine(lambda engine, batch: None)
    engine.state.metric_details = {"radial_error": torch.zeros(1, 19)}  # type: ignore[attr-defined]
    saver._filenames = ["001"]
    with pytest.raises(LandmarkError, match="'training'"):
        saver(engine)
    assert list(tmp_path.iterdir()) == []


def test_json_configuration_builds_the_handlers(tmp_path: Path) -> None:
    """The snippet of the documentation, as a bundle's config has it."""
    parser = ConfigParser(
        {
            "output": "$monai.handlers.from_engine(['pred', 'truth'])",
            "imports": ["$import monai", "$import monai_landmarks"],
            "key": {
                "radial_error": {
                    "_target_": "monai_landmarks.handlers.RadialError",
                    "output_transform": "@output",
                }
            },
            "additional": {
                "sdr_2mm": {
                    "_target_": "monai_landmarks.handlers.SuccessfulDetectionRate",
                    "threshold": 2.0,
                    "output_transform": "@output",
                }
            },
            "saver": {
                "_target_": "monai_landmarks.handlers.LandmarkMetricsSaver",
                "save_dir": str(tmp_path),
                "protocol": "native/mm",
            },
            "compare": "$monai_landmarks.handlers.lower_is_better",
        }
    )
    engine = evaluator(
        [parser.get_parsed_content("saver")],
        parser.get_parsed_content("key"),
        parser.get_parsed_content("additional"),
    )
    engine.run()
    assert engine.state.metrics["sdr_2mm"] == pytest.approx(60.0)
    assert (tmp_path / "metrics.json").exists()
    assert parser.get_parsed_content("compare") is lower_is_better


def saving_process(rank: int, folder: str, shares: list[list[int]]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        engine = Engine(lambda engine, batch: batch)
        RadialError(output_transform=lambda output: output["points"]).attach(engine, "radial_error")
        LandmarkMetricsSaver(f"{folder}/out").attach(engine)
        batches = [
            {"case": [f"c{i}"], "points": (torch.tensor([FOUND[i]]), torch.tensor([TRUTH[i]]))} for i in shares[rank]
        ]
        engine.run(batches)
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_write_one_file(tmp_path: Path) -> None:
    mp.start_processes(saving_process, args=(str(tmp_path), [[0, 2], [1]]), nprocs=2, start_method="spawn")
    rows = list(csv.reader((tmp_path / "out" / "radial_errors.csv").open()))
    assert sorted(rows[1:]) == [["c0", "5", "1", "3"], ["c1", "", "2", "2"], ["c2", "inf", "0", "0"]]
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert content["radial_error_mm"]["mean"] == 2.0


def test_nothing_evaluated_is_nan_in_the_engine_and_null_in_the_file(tmp_path: Path) -> None:
    data = [{**item, "landmarks": torch.full_like(item["landmarks"], NAN)} for item in data_list()]
    engine = evaluator(
        [LandmarkMetricsSaver(tmp_path)], {"radial_error": RadialError(output_transform=POINTS)}, data=data
    )
    engine.run()
    assert math.isnan(engine.state.metrics["radial_error"])
    assert json.loads((tmp_path / "metrics.json").read_text())["radial_error_mm"]["mean"] is None


# --- landmarks outside the image ------------------------------------------------------------------------------------

# Of the truth above: landmark 0 of the first case is outside, the others are inside or missing.
STATE = [[1, 2], [0, 2], [2, 2]]
WITH_STATE = from_engine(["pred", "truth", "state"])


def data_with_state() -> list[dict[str, Any]]:
    return [
        {**item, "landmarks_state": torch.tensor(s, dtype=torch.uint8)}
        for item, s in zip(data_list(), STATE, strict=True)
    ]


def with_state(handlers: Sequence[Any], key: dict, more: dict | None = None) -> SupervisedEvaluator:
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(data_with_state()), batch_size=2),
        network=Offsets(),
        prepare_batch=lambda batch, device, non_blocking, **_: (batch["image"].to(device), None),
        postprocessing=CopyItemsd(keys=["landmarks", "landmarks_state"], times=1, names=["truth", "state"]),
        key_val_metric=key,
        additional_metrics=more,
        metric_cmp_fn=lower_is_better,
        val_handlers=handlers,
    )


def test_handlers_leave_landmarks_outside_out_and_count_them(caplog: pytest.LogCaptureFixture) -> None:
    engine = with_state(
        [],
        {"radial_error": RadialError(output_transform=WITH_STATE)},
        {
            "sdr_1mm": SuccessfulDetectionRate(1.0, output_transform=WITH_STATE),
            "outliers_1mm": OutlierRate(1.0, output_transform=WITH_STATE),
            "everything": RadialError(output_transform=POINTS),
        },
    )
    engine.logger.setLevel(logging.WARNING)
    with caplog.at_level(logging.WARNING):
        engine.run()
    metrics = engine.state.metrics
    assert metrics["radial_error"] == 1.0  # (1 + 2 + 0) / 3; the miss is not in it
    assert (metrics["radial_error_missed"], metrics["radial_error_outside"]) == (1, 1)
    assert metrics["sdr_1mm"] == pytest.approx(50.0)  # 1 and 0 of 1, 2, 0 and a miss
    assert metrics["outliers_1mm"] == pytest.approx(50.0)
    assert (metrics["sdr_1mm_outside"], metrics["outliers_1mm_outside"]) == (1, 1)
    assert metrics["everything"] == 2.0
    assert "everything_outside" not in metrics
    details = engine.state.metric_details
    assert details["radial_error_outside"].tolist() == [[True, False], [False, False], [False, False]]
    assert "radial_error: 1 of 5 landmarks lie outside the field of view: not scored" in caplog.text


def test_collated_output_with_state() -> None:
    engine = Engine(lambda engine, batch: batch)
    RadialError().attach(engine, "error")
    engine.run([(torch.tensor(FOUND[:2]), torch.tensor(TRUTH[:2]), torch.tensor(STATE[:2]))])
    assert engine.state.metrics == {"error": 1.5, "error_missed": 0, "error_outside": 1}


def test_saver_writes_what_was_left_out(tmp_path: Path) -> None:
    saver = LandmarkMetricsSaver(tmp_path, protocol="native/mm/inside", landmark_names=["tip", "base"])
    with_state([saver], {"radial_error": RadialError(output_transform=WITH_STATE)}).run()
    content = json.loads((tmp_path / "metrics.json").read_text())
    counts = [content[f"num_{what}"] for what in ("evaluated", "missed", "outside", "missing")]
    assert counts == [4, 1, 1, 1]
    assert content["outside"] == {"c0": ["tip"]}
    rows = list(csv.reader((tmp_path / "radial_errors.csv").open()))
    assert rows[1:] == [["c0", "", "1", "1"], ["c1", "", "2", "2"], ["c2", "inf", "0", "0"]]


@pytest.mark.parametrize(
    ("protocol", "output", "words"),
    [("native/mm", WITH_STATE, "'native/mm' scores them"), ("native/mm/inside", POINTS, "feeding the metric")],
)
def test_saver_refuses_numbers_that_the_protocol_does_not_mean(tmp_path: Path, protocol, output, words) -> None:
    engine = with_state(
        [LandmarkMetricsSaver(tmp_path, protocol=protocol)], {"radial_error": RadialError(output_transform=output)}
    )
    engine.logger.setLevel(logging.CRITICAL)
    with pytest.raises(LandmarkError, match=words):
        engine.run()
    assert list(tmp_path.iterdir()) == []


def test_another_number_of_parts_is_refused() -> None:
    engine = Engine(lambda engine, batch: batch)
    RadialError().attach(engine, "error")
    engine.logger.setLevel(logging.CRITICAL)
    with pytest.raises(ValueError, match="got 4 parts"):
        engine.run([(torch.zeros(1, 1, 2),) * 4])
