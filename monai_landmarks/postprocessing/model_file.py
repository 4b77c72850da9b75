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
"""The JSON file of a sequence model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from monai_landmarks.data import atomic_write
from monai_landmarks.data.files import require_file
from monai_landmarks.data.formats.common import dump_json, load_json
from monai_landmarks.geometry import LandmarkError

from .anatomies import Anatomy
from .chain import Weights
from .offsets import OffsetStatistics

__all__ = ["read_model", "statistics_of", "write_model"]

KIND = "monai_landmarks sequence model"
VERSION = 1


def write_model(
    path: str | os.PathLike[str],
    names: Sequence[str],
    anatomies: Sequence[Anatomy],
    reference: str | float | Sequence[float],
    weights: Weights,
    statistics: OffsetStatistics,
) -> None:
    """Write what a model consists of."""
    learnt = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(statistics).items()}
    content = {
        "kind": KIND,
        "version": VERSION,
        "names": list(names),
        "anatomies": [asdict(anatomy) for anatomy in anatomies],
        "reference": reference if isinstance(reference, (str, int, float)) else list(reference),
        "weights": asdict(weights),
        "statistics": learnt,
    }
    with atomic_write(path) as temporary:
        dump_json(content, temporary)


def read_model(path: str | os.PathLike[str], names: Sequence[str] | None) -> dict[str, Any]:
    """Read the file and make sure that it is a model for these names.

    Args:
        path: of the JSON file.
        names: wanted ones, None for any.
    """
    content = load_json(require_file(path, "sequence model"))
    if not isinstance(content, dict) or content.get("kind") != KIND or content.get("version") != VERSION:
        raise LandmarkError(f"{str(path)!r} is not a sequence model of version {VERSION}; write it with save().")
    if names is not None and list(names) != content.get("names"):
        raise LandmarkError(
            f"{str(path)!r} is for the names {content.get('names')}, wanted are {list(names)}: a model serves the "
            "channels it was fitted for, in their order."
        )
    return content


def statistics_of(content: Mapping[str, Any], transitions: int) -> OffsetStatistics:
    """Return the statistics of a file after checking that they are numbers of the right shapes.

    Args:
        content: the part of the file.
        transitions: how many there must be.
    """
    arrays = {key: np.array(value, dtype=np.float64) for key, value in content.items() if key != "noise"}
    statistics = OffsetStatistics(**arrays, noise=float(content["noise"]))
    dims = statistics.mean.shape[-1]
    shapes = {"mean": (dims,), "covariance": (dims, dims), "distance": (), "variance": (), "counts": ()}
    for field, shape in shapes.items():
        values = getattr(statistics, field)
        if values.shape != (transitions, *shape) or not np.isfinite(values).all():
            raise LandmarkError(
                f"{field!r} must be finite numbers of shape {(transitions, *shape)}, got shape {values.shape}."
            )
    return statistics
