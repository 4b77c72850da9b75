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

from pathlib import Path

import pytest

from monai_landmarks.data.datasets import image_folder_datalist
from monai_landmarks.data.phantoms import dataset_or_phantom
from monai_landmarks.geometry import LandmarkError


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_every_image_is_a_case_in_order(tmp_path: Path) -> None:
    items = image_folder_datalist(fill(tmp_path, "b.PNG", "a.jpg", "notes.txt"), pixel_size=0.1, origin=None)
    assert [item["case"] for item in items] == ["a", "b"]
    assert all(item["pixel_size"] == 0.1 and "origin" not in item for item in items)


def test_double_endings_and_subfolders(tmp_path: Path) -> None:
    fill(tmp_path, "p1/ct.nii.gz", "p2/ct.nii.gz")
    items = image_folder_datalist(tmp_path, suffixes=[".nii", ".nii.gz"], recursive=True)
    assert [item["case"] for item in items] == ["p1_ct", "p2_ct"]


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LandmarkError, match=r"a\.jpg, a\.png .* case 'a'"):
        image_folder_datalist(fill(tmp_path, "a.png", "a.jpg"))


def test_missing_empty_and_wrong_folders_are_explained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        image_folder_datalist(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"no image ending in \.png.*1 other"):
        image_folder_datalist(fill(tmp_path, "scan.nii.gz"))
    with pytest.raises(FileNotFoundError, match="It is a file"):
        image_folder_datalist(tmp_path / "scan.nii.gz")


def test_phantom_only_where_no_folder_was_given(tmp_path: Path) -> None:
    written: list[tuple] = []

    def write(folder: str, **parameters: int) -> None:
        written.append((folder, parameters))

    assert dataset_or_phantom(str(tmp_path), "phantom", write, count=3) == str(tmp_path)
    assert written == []
    assert dataset_or_phantom("", "phantom", write, count=3) == "phantom"
    assert written == [("phantom", {"count": 3})]
    with pytest.raises(FileNotFoundError, match="dataset_dir"):
        dataset_or_phantom(tmp_path / "nowhere", "phantom", write)
