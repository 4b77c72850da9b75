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
"""The part of a result that says which landmarks were identified: whether it fits the protocol, and its files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.metrics.identification import Identification

from .files import cell, write_csv, write_json
from .protocol import Protocol

if TYPE_CHECKING:
    from .result import EvaluationResult

__all__ = ["check_identification", "write_identification"]


def check_identification(found: Identification | None, errors: np.ndarray, protocol: Protocol) -> None:
    """Refuse an identification under another rule than the protocol's, or of other points than those of the errors."""
    wanted = None if protocol.identification is None else (protocol.identification, protocol.identification_distance)
    given = None if found is None else (found.rule, found.max_distance)
    if given != wanted:
        raise LandmarkError(
            f"protocol {protocol.name!r} asks for the identification {wanted or 'none'}, got {given or 'none'} (rule and "
            "largest distance): give the tables of identify() with the protocol's rule, in an engine by attaching "
            "IdentificationRate with it, or name a protocol that fits, such as 'native/mm' for none."
        )
    if found is None:
        return
    distance = found.distance.cpu().numpy()
    if distance.shape != errors.shape or not np.allclose(distance, errors, equal_nan=True):
        raise LandmarkError(
            "the identification and the error table are of different points: feed RadialError and IdentificationRate "
            "with the same predictions and truth, in millimetres."
        )


def write_identification(folder: Path, result: EvaluationResult) -> list[Path]:
    """Write ``identification.json`` and ``identification.csv``, a row per case; nothing where there is no rule."""
    if result.identification is None:
        return []
    paths = [folder / "identification.json", folder / "identification.csv"]
    protocol, content = result.protocol, result.identification.to_dict()
    content["cases"] = dict(zip(result.cases, content.pop("images"), strict=True))
    facts = {"protocol": protocol.name, "phantom": protocol.is_phantom, "method": result.method}
    write_json(paths[0], {**facts, "coverage": result.coverage, **content})
    counts = ["evaluated", "identified", "misidentified", "missed", "false_positives"]
    rows: list[list[Any]] = [["protocol", "case", "percent", "all_correct", *counts, "label_shift"]]
    for case, image in zip(result.cases, result.identification.images, strict=True):
        wrong = [len(names) for names in (image.misidentified, image.missed, image.false_positive)]
        numbers = [cell(image.rate), int(image.all_correct), image.evaluated, image.identified, *wrong]
        rows.append([protocol.name, case, *numbers, image.shift or ""])
    write_csv(paths[1], rows)
    return paths
