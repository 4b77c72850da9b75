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
"""The benchmark with moved labels: what it moves, and that it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.planted_noise import LANDMARKS, VARIANTS, main, move_labels


def test_a_share_of_the_labels_is_moved_by_10_to_40_published_pixels_and_none_of_the_first_film() -> None:
    points = torch.rand(41, LANDMARKS, 2) * 70
    labels, moved = move_labels(points, pixel_mm=2.5, share=0.3, seed=1)
    assert not moved[0].any()
    assert moved.sum() == 0.3 * 40 * LANDMARKS
    distance = torch.linalg.vector_norm(labels - points, dim=-1) * 2.5 / 0.75
    assert distance[~moved].max() == 0
    assert 10 - 1e-3 < distance[moved].min() < 11
    assert 39 < distance[moved].max() < 40 + 1e-3


@pytest.mark.slow
def test_every_variant_is_trained_and_written(tmp_path: Path) -> None:
    tiny = "--reduction 100 --films 6 --held_out 2 --epochs 2 --ramp 1 --batch 3 --channels 4"
    assert main([*tiny.split(), "--output", str(tmp_path / "rows.json")]) == 0
    rows = {row["variant"]: row for row in json.loads((tmp_path / "rows.json").read_text())["rows"]}
    assert list(rows) == list(VARIANTS)
    for name in ("plain", "no selection"):
        assert rows[name]["rejected_moved"] == rows[name]["rejected_clean"] == 0
    assert rows["co-teaching"]["rejected_moved"] + rows["co-teaching"]["rejected_clean"] > 0
