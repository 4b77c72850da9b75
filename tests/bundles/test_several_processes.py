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
"""What every bundle's configuration for several processes has to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundle_runs import BUNDLES

CONFIGS = sorted(BUNDLES.glob("*/configs/multi_gpu_train.json"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.parents[1].name)
def test_processes_leave_together(path: Path) -> None:
    """DistributedDataParallel keeps the group's threads alive beyond its end: none may still hold a tensor of Python's then.

    A process that went straight from its last gather to its exit aborted now and then.
    """
    last = json.loads(path.read_text(encoding="utf-8"))["finalize"]
    assert last == ["$torch.distributed.barrier()", "$torch.distributed.destroy_process_group()"]
