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
"""What of an evaluation goes into a file of numbers, and the writing of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_landmarks.data import atomic_write
from monai_landmarks.protocols import EvaluationResult

__all__ = ["summary", "write_record"]


def summary(result: EvaluationResult) -> dict[str, Any]:
    """Take of a result its protocol, counts, errors and detection rates."""
    content = result.to_dict()
    errors = content["radial_error_mm"]
    return {
        "protocol": content["protocol"]["name"],
        "phantom": content["phantom"],
        "num_cases": content["num_cases"],
        "num_evaluated": content["num_evaluated"],
        "num_missed": content["num_missed"],
        **{f"{key}_mm": errors[key] for key in ("mean", "std", "median")},
        "mean_interval_95": content["mean_interval_95"],
        "detection": content["detection"],
        "landmark_mean_mm": dict(zip(result.names, errors["landmark_mean"], strict=True)),
        "info": content["info"],
    }


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a file of numbers, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
