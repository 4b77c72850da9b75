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
"""The benchmark of registration in 3D, on drawn volumes of which each takes a moment."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.registration_volumes import Settings, run
from monai_landmarks.data.datasets import mouse_skull_ct_datalist
from monai_landmarks.data.phantoms import write_mouse_skull_phantom

TINY = Settings(grid=(16, 24, 16), pixel_mm=1.5, width=0.0625, channels=4, epochs=2, batch_size=4, window=3)


def with_other_labels(data: Path, folder: Path, kept: str) -> Path:
    """The same volumes with the points of all cases but one moved."""
    shutil.copytree(data, folder)
    table = folder / "lm51_aligned_voxel.csv"
    with table.open(newline="") as file:
        head, *rows = csv.reader(file)
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(row if row[0] == kept else [row[0], *(str(float(x) + 4) for x in row[1:])] for row in rows)
    return folder


@pytest.mark.slow
def test_the_network_is_the_same_whatever_the_labels_of_other_volumes(tmp_path: Path) -> None:
    data = write_mouse_skull_phantom(tmp_path / "true", num_cases=24, reduction=8)
    exemplar = mouse_skull_ct_datalist(data, "training")[0]["case"]
    records, weights = [], []
    for number, folder in enumerate((data, with_other_labels(data, tmp_path / "false", exemplar))):
        work = tmp_path / f"work{number}"
        records.append(run(folder, work, "test", TINY))
        weights.append(torch.load(work / "registration.pt", weights_only=True))
        assert len(list(work.glob("*.png"))) == 1
    one, two = records
    assert one["exemplar"] == two["exemplar"] == exemplar
    assert one["curve"] == two["curve"]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert one["runs"]["registration"]["mean_mm"] != two["runs"]["registration"]["mean_mm"]
    aligned, turned = (
        one["runs"][f"mean shape{which}"]["mean_mm"] for which in (", no volume turned", " in the turned volumes")
    )
    assert aligned < turned
