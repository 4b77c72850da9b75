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
from __future__ import annotations

from collections.abc import Callable

import pytest
from volume_bundle_runs import Run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """Give ``finished("spine_ct")``: the bundle after all its runs, each bundle once per session."""
    runs: dict[str, Run] = {}

    def run(bundle: str) -> Run:
        if bundle not in runs:
            runs[bundle] = Run(bundle, tmp_path_factory.mktemp(bundle))
        return runs[bundle]

    return run
