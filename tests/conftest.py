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
"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

DATA_VARIABLE = "MONAI_LANDMARKS_DATA"


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Give ``real_data("isbi2015_cephalograms")``: the folder of a public data set, or skip the test with the reason.

    The folders lie under the environment variable ``MONAI_LANDMARKS_DATA``, by default in ``shared/data`` beside the
    repository. Tests that use it are marked ``@pytest.mark.real_data``.
    """
    root = Path(os.environ.get(DATA_VARIABLE) or Path(__file__).resolve().parents[2] / "shared" / "data")

    def folder_of(name: str) -> Path:
        folder = root / name
        if not folder.is_dir():
            pytest.skip(
                f"real data {name!r} is not under {str(root)!r}; set {DATA_VARIABLE} to the folder that holds it"
            )
        return folder

    return folder_of
