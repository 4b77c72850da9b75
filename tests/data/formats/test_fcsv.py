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
"""Slicer's fiducial lists against files of its several versions."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from monai_landmarks.data import Landmarks, read_landmarks, write_landmarks
from monai_landmarks.geometry import LandmarkError

NAN = float("nan")
COLUMNS = "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"

SLICER_4_6 = f"""# Markups fiducial file version = 4.6
# CoordinateSystem = 0
{COLUMNS}vtkMRMLMarkupsFiducialNode_1,-0.20,2.72,-4.88,0,0,0,1,1,1,0,1,AC,vtkMRMLScalarVolumeNode1
vtkMRMLMarkupsFiducialNode_2,-0.01,-25.05,-2.21,0,0,0,1,1,1,0,2,PC,vtkMRMLScalarVolumeNode1
"""
SLICER_4_11 = f"""# Markups fiducial file version = 4.11
# CoordinateSystem = LPS
{COLUMNS}1,0.20,-2.72,-4.88,0,0,0,1,1,1,0,AC,,
2,0.01,25.05,-2.21,0,0,0,1,1,1,0,PC,,
"""
SLICER_4_11_NUMBER = SLICER_4_11.replace("= LPS", "= 1")
SLICER_3 = "AC,-0.20,2.72,-4.88,1,1\nPC,-0.01,-25.05,-2.21,1,1\n"
# Slicer 5.4: status and flag follow, unnamed; skipped and unplaced points carry meaningless numbers.
SLICER_5_4 = f"""# Markups fiducial file version = 5.4
# CoordinateSystem = LPS
{COLUMNS}1,-322.58,-5.6e-14,-35.99,0,0,0,1,1,1,0,crossed,,,3,0
2,-517.48,-5.6e-14,122.92,0,0,0,1,1,1,1,locked,,,2,0
3,-361.62,5.6e-14,44.82,0,0,0,1,1,1,0,editing,,,0,0
"""
EXPECTED = [[-0.20, 2.72, -4.88], [-0.01, -25.05, -2.21]]


def saved(tmp_path: Path, text: str, newline: str = "\n") -> Path:
    file = tmp_path / "points.fcsv"
    file.write_text(text, newline=newline)
    return file


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("text", "names_from"),
    [
        (SLICER_4_6, "description"),
        (SLICER_4_11, "label"),
        (SLICER_4_11_NUMBER, "label"),
        (SLICER_4_11.replace("= LPS", "=  lps "), "label"),
        (SLICER_4_6.replace("= 0", "= RAS"), "description"),
        (SLICER_4_6.replace("# CoordinateSystem = 0\n", ""), "description"),
        (SLICER_3, "label"),
    ],
)
def test_every_spelling_gives_the_same_points(tmp_path: Path, text: str, names_from: str, newline: str) -> None:
    marks = read_landmarks(saved(tmp_path, text, newline), names_from=names_from)
    assert marks.names == ("AC", "PC")
    np.testing.assert_array_equal(marks.points, EXPECTED)


def test_labels_that_are_numbers_point_to_the_descriptions(tmp_path: Path) -> None:
    file = saved(tmp_path, SLICER_4_6)
    assert read_landmarks(file).names == ("1", "2")
    with pytest.raises(LandmarkError, match="names_from='description'"):
        read_landmarks(file, names=["PC", "AC"])
    assert read_landmarks(file, names=["PC", "AC"], names_from="description").names == ("PC", "AC")


def test_status_of_slicer_5_rules_over_the_numbers(tmp_path: Path) -> None:
    marks = read_landmarks(saved(tmp_path, SLICER_5_4))
    assert marks.status == ("missing", "defined", "undefined")
    assert np.isnan(marks.points[[0, 2]]).all()
    np.testing.assert_allclose(marks.points[1], [517.48, 0.0, 122.92], atol=1e-12)


def test_columns_line_is_honoured(tmp_path: Path) -> None:
    text = (
        "# Markups fiducial file version = 4.0\n# columns = label,z,y,x\nAC,-4.88,2.72,-0.20\nPC,-2.21,-25.05,-0.01\n"
    )
    np.testing.assert_array_equal(read_landmarks(saved(tmp_path, text)).points, EXPECTED)


def test_missing_and_quoted(tmp_path: Path) -> None:
    text = SLICER_4_11 + '3,nan,nan,nan,0,0,0,1,1,1,0,"tip, left ""L""",,\n4,,,,0,0,0,1,1,1,0,gap,,\n'
    marks = read_landmarks(saved(tmp_path, text))
    assert marks.names[2:] == ('tip, left "L"', "gap")
    assert marks.status == ("defined", "defined", "missing", "missing")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SLICER_4_11.replace("25.05", "25,05"), "line 5 has 15 fields, the one before 14"),
        (SLICER_4_11.replace("-2.72", "-2.7.2"), "line 4, column 'y', holds '-2.7.2', which is not a number"),
        (SLICER_4_11.replace("= LPS", "= LAS"), "CoordinateSystem is 'LAS'"),
        (SLICER_4_11.replace("id,x,y,z", "id,x,y,w"), "has no 'z'"),
        (SLICER_4_11[:-30], "line 5 has . fields.*cut off"),
        (SLICER_5_4.replace(",2,0", ",7,0"), "position status '7'"),
        ("a,1,2\n", "line 1 has only 3 fields"),
        ("# Markups fiducial file version = 4.11\n", "holds no points"),
        (SLICER_4_11.replace("PC", "AC"), "'AC' at places 1, 2"),
        (SLICER_4_11.replace("0.01,25.05", "0.01,"), "'PC' has some but not all coordinates missing"),
    ],
)
def test_faults(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(LandmarkError, match=expected) as caught:
        read_landmarks(saved(tmp_path, text))
    assert "points.fcsv" in str(caught.value)


def test_written_list_has_slicers_columns(tmp_path: Path) -> None:
    file = tmp_path / "out.fcsv"
    write_landmarks(Landmarks([[1.0, 2.0, 3.0], [NAN] * 3], ["a,b", "gap"]), file)
    lines = file.read_text().splitlines()
    assert lines[:3] == ["# Markups fiducial file version = 5.6", "# CoordinateSystem = LPS", COLUMNS.strip()]
    first, second = csv.reader(lines[3:])
    assert first == ["1", "-1.0", "-2.0", "3.0", "0", "0", "0", "1", "1", "1", "0", "a,b", "", "", "2", "0"]
    assert second[1:4] == ["nan"] * 3
    assert second[-2:] == ["3", "0"]


def test_film_in_a_list(tmp_path: Path) -> None:
    marks = Landmarks([[82.9, 99.1]], ["sella"])
    write_landmarks(marks, tmp_path / "film.fcsv")
    assert "1,82.9,99.1,0.0," in (tmp_path / "film.fcsv").read_text()
    assert read_landmarks(tmp_path / "film.fcsv", spatial_dims=2) == marks
