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
"""One configuration, read once for each data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monai_landmarks.engines import DatasetConfigs

SHARED = {
    "size": "$2 * @width",
    "data_dir": "$open(@name + ' is not there')",
    "loader": {"_target_": "builtins.list", "_desc_": "built once", "_disabled_": False},
    "train": {"data": "@data_dir", "steps": [{"prob": 0.1}, {"prob": "@prob"}]},
    "prob": 0.5,
    "scored": {"_target_": "builtins.dict", "_mode_": "callable", "loader": "@loader"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "dataset.json").write_text(json.dumps(SHARED))
    (tmp_path / "test.json").write_text(json.dumps({"size": "$3 * @width", "extra": "$@prob + 1"}))
    for name, width in {"head": 104, "hand": 92, "chest": 128}.items():
        (tmp_path / "datasets" / f"{name}.json").write_text(json.dumps({"width": width}))
    return tmp_path


def test_each_data_set_has_its_own_file_on_top(folder: Path) -> None:
    configs = DatasetConfigs(folder, ["hand", "head"])
    assert configs.names == ("hand", "head")
    assert configs.get("size") == {"hand": 184, "head": 208}
    assert list(configs.get("size")) == ["hand", "head"]


def test_the_data_sets_file_wins_over_the_shared_ones(folder: Path) -> None:
    (folder / "datasets" / "hand.json").write_text(json.dumps({"width": 1, "size": 7}))
    assert DatasetConfigs(folder, ["head", "hand"]).get("size") == {"head": 208, "hand": 7}


def test_later_files_win(folder: Path) -> None:
    configs = DatasetConfigs(folder, ["head"], ["dataset.json", "test.json"])
    assert configs.get("size") == {"head": 312}
    assert configs.get("extra") == {"head": 1.5}
    assert configs.get("train#steps#0#prob") == {"head": 0.1}


def test_settings_are_for_one_data_set(folder: Path) -> None:
    settings = {"head": {"width": 10, "train#steps#0#prob": 1.0}, "chest": {"width": 1}}
    configs = DatasetConfigs(folder, ["head", "hand"], settings=settings)
    assert configs.get("size") == {"head": 20, "hand": 184}
    assert configs.get("train#steps#0#prob") == {"head": 1.0, "hand": 0.1}
    assert configs.get("train#steps#1#prob") == {"head": 0.5, "hand": 0.5}


def test_shared_values_are_for_all_and_settings_win_over_them(folder: Path) -> None:
    device = object()
    configs = DatasetConfigs(folder, ["head", "hand"], settings={"hand": {"prob": 0.9}}, prob=0.2, device=device)
    assert configs.get("prob") == {"head": 0.2, "hand": 0.9}
    assert all(found is device for found in configs.get("device").values())


def test_the_name_is_that_of_the_data_set(folder: Path) -> None:
    assert DatasetConfigs(folder, ["head", "hand"]).get("name") == {"head": "head", "hand": "hand"}


def test_only_what_is_asked_for_is_built(folder: Path) -> None:
    (folder / "datasets" / "chest.json").write_text("not even JSON")
    configs = DatasetConfigs(folder, ["head"])
    assert configs.get("size") == {"head": 208}
    assert configs.get("prob") == {"head": 0.5}
    with pytest.raises(RuntimeError) as caught:
        configs.get("data_dir")
    assert "head is not there" in str(caught.value.__cause__)


def test_what_was_built_is_kept(folder: Path) -> None:
    configs = DatasetConfigs(folder, ["head", "hand"])
    built = configs.get("loader")
    assert built["head"] is not built["hand"]
    configs.get("scored")
    assert all(configs.get("loader")[name] is built[name] for name in built)


def test_what_needs_an_object_of_later_is_built_as_a_function_of_it(folder: Path) -> None:
    configs, network = DatasetConfigs(folder, ["head", "hand"]), object()
    for name, scored in configs.get("scored").items():
        assert scored(network=network) == {"network": network, "loader": configs.get("loader")[name]}


def test_unknown_entry_is_an_error(folder: Path) -> None:
    with pytest.raises(KeyError, match="sise"):
        DatasetConfigs(folder, ["head"]).get("sise")


@pytest.mark.parametrize("settings", [None, {"haed": {}}])
def test_unknown_data_set_lists_the_known_ones(folder: Path, settings: dict[str, Any] | None) -> None:
    names = ["head"] if settings else ["hand", "haed"]
    text = r"no data set 'haed' \(did you mean 'head'\?\): .*haed\.json does not exist\. Known: chest, hand, head\."
    with pytest.raises(FileNotFoundError, match=text):
        DatasetConfigs(folder, names, settings=settings)


@pytest.mark.parametrize("names", [[], ["head", "hand", "head"]])
def test_each_data_set_is_named_once(folder: Path, names: list[str]) -> None:
    with pytest.raises(ValueError, match="must name each data set once"):
        DatasetConfigs(folder, names)
