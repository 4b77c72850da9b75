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

import os
import stat
from pathlib import Path

import pytest

from monai_landmarks.data import atomic_write
from monai_landmarks.data.files import require_file


@pytest.mark.parametrize("name", ["points.mrk.json", "scan.nii.gz", "table.csv", "plain"])
def test_temporary_path_is_beside_the_target_and_has_its_suffixes(tmp_path: Path, name: str) -> None:
    target = tmp_path / "new" / "folder" / name
    with atomic_write(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffixes == target.suffixes
        assert not target.exists()
        temporary.write_text("content")
    assert target.read_text() == "content"
    assert [entry.name for entry in target.parent.iterdir()] == [name]


def test_failure_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    target = tmp_path / "points.csv"
    target.write_text("old")

    def write_half() -> None:
        with atomic_write(target) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_failure_of_a_new_file_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "points.csv"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_temporary_file_that_disappears_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="leave it there"), atomic_write(tmp_path / "a.csv") as temporary:
        temporary.unlink()


def test_a_folder_in_the_way_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="a folder of that name"), atomic_write(tmp_path):
        pass


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_permissions_are_those_of_the_replaced_file_or_the_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    (tmp_path / "old").write_text("")
    (tmp_path / "old").chmod(0o640)
    for name, mode in (("new", stat.S_IMODE((tmp_path / "usual").stat().st_mode)), ("old", 0o640)):
        with atomic_write(tmp_path / name) as temporary:
            temporary.write_text("x")
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


@pytest.mark.skipif(os.name == "nt", reason="symbolic links")
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_write(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("case_1.fcsv", "nearest name in that folder is 'Case_01.fcsv'"),
        ("quite different", "holds 1 other entries"),
        ("no/such/case.fcsv", "folder does not exist either"),
    ],
)
def test_missing_file_names_what_is_there(tmp_path: Path, wanted: str, expected: str) -> None:
    (tmp_path / "Case_01.fcsv").write_text("")
    with pytest.raises(FileNotFoundError, match=expected):
        require_file(tmp_path / wanted)


def test_missing_file_in_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="folder is empty"):
        require_file(tmp_path / "a")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        require_file(tmp_path)
