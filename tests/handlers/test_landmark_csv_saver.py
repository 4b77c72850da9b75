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
"""LandmarkCSVSaver: one table per epoch, complete, in one process or several."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine
from monai.data import MetaTensor, list_data_collate

from monai_landmarks.data import read_landmark_table, read_landmarks
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.handlers.landmark_csv_saver import LandmarkCSVSaver

NAN = float("nan")
NAMES = ["tip", "base"]


def item(case: str, *, dims: int = 2, source: str | None = None) -> dict[str, Any]:
    """A case whose points are made of its number."""
    number = float(case)
    points = torch.full((2, dims), number, dtype=torch.float64)
    points[1] = NAN
    image = MetaTensor(torch.zeros(1, *(3,) * dims), meta={"filename_or_obj": source or f"/data/{case}.png"})
    return {"case": case, "image": image, "pred": points, "score": torch.tensor([number / 10, 0.0])}


def run(saver: LandmarkCSVSaver, batches: list[Any], epochs: int = 1) -> None:
    """An engine whose output is part of the item, decollated as MONAI's evaluators do."""

    def step(engine: Engine, batch: Any) -> Any:
        return [{k: i[k] for k in ("pred", "score")} for i in batch]

    engine = Engine(step)
    saver.attach(engine)
    engine.run(batches, max_epochs=epochs)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("layout", ["long", "wide"])
def test_the_table_is_read_back(tmp_path, dims, layout):
    saver = LandmarkCSVSaver(tmp_path, NAMES, "pred", confidence_key="score", layout=layout)
    run(saver, [[item("2", dims=dims), item("1", dims=dims)], [item("3", dims=dims)]])
    cases = read_landmark_table(tmp_path / "landmarks.csv", names=NAMES)
    assert list(cases) == ["1", "2", "3"]
    for case, marks in cases.items():
        np.testing.assert_array_equal(marks.points, [[float(case)] * dims, [NAN] * dims])
        np.testing.assert_allclose(marks.confidence, [float(case) / 10, 0])
    assert read_landmarks(tmp_path / "landmarks.csv", case="2").status == ("defined", "missing")


def test_columns(tmp_path):
    run(LandmarkCSVSaver(tmp_path / "new", NAMES, "pred", filename="all.csv"), [[item("1")]])
    rows = list(csv.reader((tmp_path / "new" / "all.csv").read_text().splitlines()))
    assert rows == [
        ["case", "name", "x", "y", "status"],
        ["1", "tip", "1.0", "1.0", "defined"],
        ["1", "base", "", "", "missing"],
    ]


def test_cases_are_named_by_the_image_where_they_have_no_name(tmp_path):
    batch = [{k: v for k, v in item(c).items() if k != "case"} for c in ("5", "6")]
    run(LandmarkCSVSaver(tmp_path, NAMES, "pred"), [batch])
    assert list(read_landmark_table(tmp_path / "landmarks.csv")) == ["5", "6"]


def test_collated_batches_are_taken_apart(tmp_path):
    batch = list_data_collate([item("1"), item("2")])
    engine = Engine(lambda engine, batch: {"pred": batch["pred"]})
    LandmarkCSVSaver(tmp_path, NAMES, "pred").attach(engine)
    engine.run([batch])
    assert list(read_landmark_table(tmp_path / "landmarks.csv")) == ["1", "2"]


def test_every_epoch_starts_anew_and_replaces_the_file(tmp_path):
    saver = LandmarkCSVSaver(tmp_path, NAMES, "pred")
    run(saver, [[item("1")]], epochs=3)
    assert len((tmp_path / "landmarks.csv").read_text().splitlines()) == 3
    run(saver, [[item("2")]])
    assert list(read_landmark_table(tmp_path / "landmarks.csv")) == ["2"]


def test_two_images_of_one_name_are_an_error_and_a_repeated_one_is_not(tmp_path):
    run(LandmarkCSVSaver(tmp_path, NAMES, "pred"), [[item("1"), item("1")]])
    assert list(read_landmark_table(tmp_path / "landmarks.csv")) == ["1"]
    with pytest.raises(LandmarkError, match=r"two images are called '1': '/data/1.png' and '/other/1.png'"):
        run(LandmarkCSVSaver(tmp_path, NAMES, "pred"), [[item("1"), item("1", source="/other/1.png")]])


def test_errors(tmp_path):
    with pytest.raises(LandmarkError, match=r"'points' is not in the engine's output, which has \['case'"):
        run(LandmarkCSVSaver(tmp_path, NAMES, "points"), [[item("1")]])
    with pytest.raises(LandmarkError, match="2 points for 3 names"):
        run(LandmarkCSVSaver(tmp_path, [*NAMES, "third"], "pred"), [[item("1")]])
    with pytest.raises(LandmarkError, match=r"neither a case name .* nor an image"):
        run(LandmarkCSVSaver(tmp_path, NAMES, "pred", case_key="id", refer_key="scan"), [[item("1")]])
    with pytest.raises(LandmarkError, match="dictionaries are needed"):
        run(LandmarkCSVSaver(tmp_path, NAMES, "pred", batch_transform=lambda b: torch.zeros(3)), [[item("1")]])
    with pytest.raises(LandmarkError, match="the batch has 1 items and the output 2"):
        run(LandmarkCSVSaver(tmp_path, NAMES, "pred", batch_transform=lambda b: b[:1]), [[item("1"), item("2")]])
    with pytest.raises(ValueError, match=r"\.csv or \.tsv"):
        LandmarkCSVSaver(tmp_path, NAMES, "pred", filename="all.json")
    with pytest.raises(ValueError, match="different landmark names"):
        LandmarkCSVSaver(tmp_path, ["a", "a"], "pred")
    assert not (tmp_path / "landmarks.csv").exists()


def _work(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3)
    # The third process has no case at all, the second repeats one, as a distributed sampler does to fill up.
    batches = [[[item("1"), item("3")]], [[item("2"), item("1")]], []][rank]
    saver = LandmarkCSVSaver(folder, NAMES, "pred", save_rank=1)
    saver.start()
    for batch in batches:
        engine = Engine(lambda engine, batch: batch)
        engine.state.batch, engine.state.output = batch, batch
        saver(engine)
    saver.write()
    dist.destroy_process_group()


@pytest.mark.slow
def test_all_processes_are_gathered(tmp_path):
    torch.multiprocessing.start_processes(_work, (str(tmp_path),), nprocs=3, start_method="spawn")
    assert list(read_landmark_table(Path(tmp_path) / "landmarks.csv")) == ["1", "2", "3"]


def test_landmarks_outside_their_image(tmp_path):
    """The images are 3 x 3; the point of case 1 is in it, that of case 7 is not."""
    run(LandmarkCSVSaver(tmp_path, NAMES, "pred"), [[item("1"), item("7")]])
    cases = read_landmark_table(tmp_path / "landmarks.csv")
    assert [cases[case].status for case in "17"] == [("defined", "missing"), ("outside", "missing")]
    np.testing.assert_array_equal(cases["7"].points[0], [7, 7])


def test_a_state_in_the_items_rules_over_the_image(tmp_path):
    batch = [{**item("1"), "state": torch.tensor([1, 0], dtype=torch.uint8)}]
    run(LandmarkCSVSaver(tmp_path, NAMES, "pred", state_key="state"), [batch])
    assert read_landmark_table(tmp_path / "landmarks.csv")["1"].status == ("outside", "missing")
    with pytest.raises(LandmarkError, match="'state' is not in the engine's output"):
        run(LandmarkCSVSaver(tmp_path, NAMES, "pred", state_key="state"), [[item("1")]])
