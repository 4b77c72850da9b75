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
"""Several processes may begin the same phantom at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_landmarks.data.phantoms.volume_files import start_phantom


def test_a_mark_that_another_process_is_writing_is_not_real_data(tmp_path: Path) -> None:
    (tmp_path / ".PHANTOM-0123456789ab.txt").touch()
    assert start_phantom(tmp_path, {"phantom": "any"}, "notice") is False
    assert (tmp_path / "PHANTOM.txt").is_file()


def test_other_hidden_files_are_taken_for_real_data(tmp_path: Path) -> None:
    (tmp_path / ".film.png").touch()
    with pytest.raises(ValueError, match="is not empty and holds no phantom"):
        start_phantom(tmp_path, {"phantom": "any"}, "notice")
