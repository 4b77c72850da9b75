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
"""Texts beside the predictions: one file per case, replaced by the next run, no name that leaves the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.transforms import SaveTextd


def test_each_case_has_its_file_and_the_item_stays(tmp_path: Path) -> None:
    save = SaveTextd("report", tmp_path / "new", "_why.txt")
    item = {"case": "07", "report": "T5: moved"}
    assert save(item) == item
    save({"case": "07", "report": "T5: dropped"})
    assert {path.name: path.read_text() for path in (tmp_path / "new").iterdir()} == {"07_why.txt": "T5: dropped\n"}


def test_names_that_cannot_be_files_and_items_without_a_name(tmp_path: Path) -> None:
    save = SaveTextd("report", tmp_path)
    with pytest.raises(LandmarkError, match="cannot name a file"):
        save({"case": "../07", "report": "x"})
    with pytest.raises(LandmarkError, match="case"):
        save({"report": "x"})
    with pytest.raises(ValueError, match="into one file"):
        SaveTextd(["report", "table"], tmp_path)
    assert not list(tmp_path.iterdir())
