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
"""Files cut off, scribbled over or with a value of the wrong kind: read, or refused with our error, nothing else."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_landmarks.data import Landmarks, read_landmarks, write_landmarks
from monai_landmarks.data.formats import FORMATS
from monai_landmarks.geometry import LandmarkError

JUNK = [None, True, 3, -1.5, "", "x", "nan", [], {}, [1, 2], [[1, 2]], {"a": 1}, float("inf"), 10**400, "defined"]


def options(name: str) -> dict[str, Any]:
    return {"affine": np.eye(4), "spatial_shape": (9,) * dimension(name)}


def dimension(name: str) -> int:
    return 2 if name in ("coco", "labelme", "isbi") else 3


def example(name: str, file: Path) -> None:
    dims = dimension(name)
    points = np.arange(3.0 * dims).reshape(3, dims)
    points[1] = np.nan
    marks = Landmarks(points, ["C1", "C2", "C3"], confidence=[0.5, np.nan, 0.25])
    write_landmarks(marks, file, format=name, **options(name))


def with_one_value_changed(content: Any, chance: random.Random) -> Any:
    content = copy.deepcopy(content)
    places: list[tuple[Any, Any]] = []
    todo = [content]
    for node in todo:
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
        places += [(node, key) for key in keys]
        todo += [node[key] for key in keys]
    node, key = chance.choice(places)
    if chance.random() < 0.3:
        del node[key]
    else:
        node[key] = chance.choice(JUNK)
    return content


def read_or_refuse(file: Path, name: str) -> bool:
    try:
        marks = read_landmarks(file, format=name, **options(name))
    except LandmarkError:
        return True
    assert isinstance(marks, Landmarks)
    return False


@pytest.mark.parametrize("name", list(FORMATS))
def test_cut_off_and_scribbled_files(tmp_path: Path, name: str) -> None:
    file = tmp_path / "case"
    example(name, file)
    whole = file.read_bytes()
    assert not read_or_refuse(file, name)
    chance = random.Random(5)
    for _ in range(40):
        file.write_bytes(whole[: chance.randrange(len(whole))])
        read_or_refuse(file, name)
        scribbled = bytearray(whole)
        for _ in range(3):
            scribbled[chance.randrange(len(whole))] = chance.choice(b'",:[]{}0123456789.-ane\n\t\xff')
        file.write_bytes(bytes(scribbled))
        read_or_refuse(file, name)


@pytest.mark.parametrize("name", ["markups", "verse", "coco", "labelme"])
def test_json_with_a_value_of_the_wrong_kind(tmp_path: Path, name: str) -> None:
    file = tmp_path / "case.json"
    example(name, file)
    whole = json.loads(file.read_text(encoding="utf-8"))
    chance = random.Random(5)
    refused = 0
    for _ in range(150):
        file.write_text(json.dumps(with_one_value_changed(whole, chance)))
        refused += read_or_refuse(file, name)
    assert refused > 10
