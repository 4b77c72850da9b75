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
"""Tables in the layouts that people and programs write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_landmarks.data import (
    Landmarks,
    read_landmark_table,
    read_landmarks,
    write_landmark_table,
    write_landmarks,
)
from monai_landmarks.geometry import LandmarkError

NAN = float("nan")
TURNED = np.array([[0, 0, 4.0, 9], [-2, 0, 0, 8], [0, 3, 0, 7], [0, 0, 0, 1]])

# The example of Slicer's developer guide, with one point not placed.
SLICER_TABLE = """label,l,p,s,defined,selected,visible,locked,description
F-1,-19.9067,13.9347,29.443,1,1,1,0,
F-2,-7.3939,-76.9499,17.5525,0,1,1,0,
F-3,81.7333,-42.9415,9.62559,1,1,1,0,
"""
LONG_CASES = "image,landmark,x,y\n001,sella,10,20\n001,nasion,,\n002,nasion,30,40\n002,sella,NA,nan\n"
WIDE = "case,age,sella_x,sella_y,nasion_x,nasion_y\n001,12,10,20,,\n002,14,NA,nan,30,40\n"
PAYER = "3142,297,1913,324,1812\n3143,319,1854,nan,nan\n"
NUMBERED = "id,name,x,y,z\n1,a,1,2,3\n2,b,4,5,6\n"


def saved(tmp_path: Path, text: str, name: str = "table.csv") -> Path:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return file


def test_slicer_control_point_table(tmp_path: Path) -> None:
    marks = read_landmarks(saved(tmp_path, SLICER_TABLE))
    assert marks.names == ("F-1", "F-2", "F-3")
    assert marks.status == ("defined", "undefined", "defined")
    np.testing.assert_array_equal(marks.points, [[19.9067, -13.9347, 29.443], [NAN] * 3, [-81.7333, 42.9415, 9.62559]])


def test_written_lps_table_has_slicers_columns(tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    write_landmarks(Landmarks([[1.0, 2, 3], [NAN] * 3], ["a", "b"]), file, space="LPS")
    assert file.read_text().splitlines() == [
        "label,l,p,s,defined,status",
        "a,-1.0,-2.0,3.0,1,defined",
        "b,,,,0,missing",
    ]


@pytest.mark.parametrize("text", [LONG_CASES, WIDE])
@pytest.mark.parametrize(("case", "expected"), [("001", [[NAN, NAN], [10, 20]]), ("002", [[30, 40], [NAN, NAN]])])
def test_long_and_wide_tables_of_cases(tmp_path: Path, text: str, case: str, expected: list[list[float]]) -> None:
    marks = read_landmarks(saved(tmp_path, text), case=case, names=["nasion", "sella"])
    np.testing.assert_array_equal(marks.points, expected)
    every = read_landmark_table(saved(tmp_path, text), names=["nasion", "sella"])
    assert list(every) == ["001", "002"]
    assert every[case] == marks


def test_payers_table_without_heading(tmp_path: Path) -> None:
    file = saved(tmp_path, PAYER)
    marks = read_landmarks(file, case=3143, names=["p1", "p2"])
    np.testing.assert_array_equal(marks.points, [[319, 1854], [NAN, NAN]])
    assert read_landmarks(file, case="3142", pixel_size=0.1).names == ("point_1", "point_2")
    np.testing.assert_allclose(read_landmarks(file, case="3142", pixel_size=0.1).points[0], [29.7, 191.3])


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"spatial_dims": 3}, (2, 3)),
        ({"spatial_dims": 2}, (3, 2)),
        ({"names": "abc"}, (3, 2)),
        ({"names": "ab"}, (2, 3)),
    ],
)
def test_row_that_may_be_2d_or_3d(tmp_path: Path, options: dict[str, Any], shape: tuple[int, int]) -> None:
    file = saved(tmp_path, "7,1,2,3,4,5,6\n")
    options = {key: list(value) if key == "names" else value for key, value in options.items()}
    assert read_landmarks(file, **options).points.shape == shape
    with pytest.raises(LandmarkError, match="6 numbers, which may be 2D or 3D"):
        read_landmarks(file)


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("a,1,2,3\nb,4,5,6\n", "t.csv", {}),
        (NUMBERED, "t.csv", {}),
        (NUMBERED.replace(",", "\t"), "t.tsv", {}),
        (NUMBERED.replace(",", "\t"), "t.csv", {}),
        (NUMBERED.replace(",", ";"), "t.csv", {}),
        (NUMBERED.replace(",", "|"), "t.csv", {"delimiter": "|"}),
        ("\ufeff" + NUMBERED.replace("\n", "\r\n"), "t.csv", {}),
        ("# exported\n\n" + NUMBERED + "\n\n", "t.csv", {}),
        (NUMBERED.upper().replace("A", "a").replace("B", "b").replace("NaME", "NAME"), "t.csv", {}),
        ("what,u,v,w\na,1,2,3\nb,4,5,6\n", "t.csv", {"name_column": "What", "coordinate_columns": ["u", "v", "w"]}),
        ("file;a_X;a_Y;a_Z;b_X;b_Y;b_Z\nq;1;2;3;4;5;6", "t.csv", {}),
        ("a.x,a.y,a.z,b.x,b.y,b.z\n1,2,3,4,5,6\n", "t.csv", {}),
        ("a_x,a_y,a_z,b_x,b_y,b_z,grade_y\n1,2,3,4,5,6,9\n", "t.csv", {"ignore_columns": ["grade_y"]}),
        ("name,x,y,z,u\na,1,2,3,\nb,4,5,6,\n", "t.csv", {"layout": "long"}),
    ],
)
def test_spellings(tmp_path: Path, text: str, name: str, options: dict[str, Any]) -> None:
    marks = read_landmarks(saved(tmp_path, text, name), **options)
    assert marks.names == ("a", "b")
    np.testing.assert_array_equal(marks.points, [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize(
    ("letters", "options", "expected"),
    [
        ("x,y,z", {}, [1, 2, 3]),
        ("r,a,s", {}, [1, 2, 3]),
        ("l,p,s", {}, [-1, -2, 3]),
        ("x,y,z", {"space": "LPS"}, [-1, -2, 3]),
        ("x,y,z", {"space": "lps", "units": "cm"}, [-10, -20, 30]),
        ("i,j,k", {"affine": np.diag([2.0, 3, 4, 1])}, [2, 6, 12]),
        ("i,j,k", {"affine": np.diag([2.0, 3, 4, 1]), "origin": 1}, [0, 3, 8]),
        ("i,j,k", {"affine": np.diag([2.0, 3, 4, 1]), "order": "ij"}, [6, 6, 4]),
        ("i,j,k", {"space": "RAS"}, [1, 2, 3]),
        ("x,y,z", {"space": "voxel_mm", "affine": TURNED}, [12, 7, 9]),
    ],
)
def test_letters_and_arguments_say_what_the_numbers_are(
    tmp_path: Path, letters: str, options: dict[str, Any], expected: list[float]
) -> None:
    long = saved(tmp_path, f"name,{letters}\na,1,2,3\n")
    np.testing.assert_allclose(read_landmarks(long, **options).points, [expected])
    wide = saved(tmp_path, f"case,{','.join('a_' + axis for axis in letters.split(','))}\nq,1,2,3\n")
    np.testing.assert_allclose(read_landmarks(wide, **options).points, [expected])


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        (NUMBERED.replace("5", "five"), {}, "row 3, column 'y', holds 'five', which is not a number"),
        (
            NUMBERED.replace(",", ";").replace("5", "5,5"),
            {},
            "'5,5', which is not a number; decimals are written with a",
        ),
        (NUMBERED.replace("5", "inf"), {}, "a missing landmark is an empty cell or nan"),
        (NUMBERED.replace("5", "1_0"), {}, "'1_0', which is not a number"),
        (NUMBERED.replace("5", ""), {}, "'b' has some but not all coordinates missing"),
        (PAYER.replace("324", "3z4"), {"case": "3142"}, "row 1, column '4', holds '3z4'"),
        (WIDE, {}, r"holds 2 cases \('001', '002'\): say which with case="),
        (WIDE, {"case": "1"}, "no case '1' among the 2 cases; near it are '001'"),
        (WIDE, {"case": "001", "spatial_dims": 3}, "holds 2D points, 3D ones are asked for"),
        (WIDE.replace("002", "001"), {"case": "001"}, "case '001' stands in rows 2 and 3"),
        (WIDE.replace("nasion_y", "nasion_q"), {"case": "001"}, "'nasion' has columns for 'x' and none for 'y'"),
        (LONG_CASES, {"case": "003"}, "no case '003'.*near it are '00[12]', '00[12]'"),
        (LONG_CASES.replace("image", "whose"), {}, "'nasion' stands in rows 3 and 4.*case_column"),
        (LONG_CASES.replace("002,sella", "002,nasion"), {"case": "002"}, "rows 4 and 5 of case '002'"),
        (NUMBERED, {"case": "1"}, "the table has no case column"),
        (NUMBERED, {"case_column": "patient"}, "no column 'patient'; the headings are 'id', 'name'"),
        (NUMBERED.replace("2,b,4,5,6", "2,b,4,5"), {}, "row 3 has 4 cells, the first has 5"),
        ("a_x,a_y\n1,2\n3,4\n", {}, "2 rows and no column that names their cases"),
        ("name,x,x,y\na,1,2,3\n", {}, "two columns are called 'x'"),
        ("name,first,second\na,b,c\n", {}, "no landmarks found"),
        ("name,first,second\na,b,c\n", {"layout": "long"}, "a long table needs a column of names"),
        ("name,x,y\n", {}, "a heading and no rows"),
        ("case,a_x,a_y\n", {}, "a heading and no rows"),
        ("", {}, "table is empty"),
        ("829,991\n1465,1035\n", {}, "format='isbi'"),
        ("7,1,2,3,4,5\n", {}, "5 numbers: these are not 2D or 3D points"),
        (PAYER, {"case": "3142", "names": ["a", "b", "c"]}, "4 numbers: these are not 3 2D or 3D points"),
        ("name,i,j\na,1,2\n", {}, "give affine=image.affine|Give affine=image.affine"),
        ("name,l,p\na,1,2\n", {"pixel_size": 0.1}, "pixel_size=0.1 is for pixels"),
        ("name,l,p\na,1,2\n", {"origin": 1}, "origin=1 is for voxel indices"),
        ("name,i,j\na,1,2\n", {"affine": np.eye(3), "units": "cm"}, "units='cm' is for lengths"),
        ("name,i,j\na,1,2\n", {"affine": np.eye(3), "pixel_size": 1}, "not both"),
        ("name,i,j\na,1,2\n", {"pixel_size": -1}, "pixel_size must be positive"),
        (NUMBERED, {"layouts": "long"}, "no option 'layouts' .did you mean 'layout'"),
    ],
)
def test_faults_name_file_and_place(tmp_path: Path, text: str, options: dict[str, Any], expected: str) -> None:
    file = saved(tmp_path, text, "faulty.csv")
    with pytest.raises(LandmarkError, match=expected) as caught:
        read_landmarks(file, **options)
    assert "faulty.csv" in str(caught.value)


def test_table_of_cases_is_written_and_read(tmp_path: Path) -> None:
    cases = {
        "001": Landmarks([[1.0, 2.0], [NAN, NAN]], ["a", "b"]),
        "002": Landmarks([[5.0, 6.0], [7.0, 8.0]], ["a", "b"], confidence=[0.5, NAN]),
    }
    for layout in ("wide", "long"):
        write_landmark_table(cases, tmp_path / "all.csv", layout=layout)
        got = read_landmark_table(tmp_path / "all.csv", case_column="case")
        assert list(got) == ["001", "002"]
        assert got["002"] == cases["002"]
        np.testing.assert_array_equal(got["001"].points, cases["001"].points)
    first = read_landmarks(tmp_path / "all.csv", case="001", case_column="case")
    assert first.confidence is not None
    assert np.isnan(first.confidence).all()


def test_tables_of_cases_refuse_what_they_cannot_hold(tmp_path: Path) -> None:
    one, other = Landmarks([[1.0, 2.0]], ["a"]), Landmarks([[1.0, 2.0]], ["b"])
    with pytest.raises(LandmarkError, match="case 'q' has others"):
        write_landmark_table({"p": one, "q": other}, tmp_path / "all.csv")
    with pytest.raises(LandmarkError, match="no cases"):
        write_landmark_table({}, tmp_path / "all.csv")
    with pytest.raises(LandmarkError, match=r"written as \.csv or \.tsv"):
        write_landmark_table({"p": one}, tmp_path / "all.fcsv")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(LandmarkError, match=r"case '002'.*some but not all"):
        read_landmark_table(saved(tmp_path, WIDE.replace("30", "")))


def test_wide_table_names_its_case_after_the_file(tmp_path: Path) -> None:
    write_landmarks(Landmarks([[1.0, 2.0]], ["a"]), tmp_path / "patient_7.csv", layout="wide")
    assert (tmp_path / "patient_7.csv").read_text() == "case,a_x,a_y\npatient_7,1.0,2.0\n"


def test_latin_1_from_old_programs(tmp_path: Path) -> None:
    file = tmp_path / "old.csv"
    file.write_bytes("name,x,y\nsella médiane,1,2\n".encode("latin-1"))
    assert read_landmarks(file).names == ("sella médiane",)


def test_a_table_exported_by_slicer_keeps_what_the_description_says(tmp_path: Path) -> None:
    file = tmp_path / "slicer.csv"
    file.write_text(
        "label,l,p,s,defined,selected,visible,locked,description\n"
        "a,1,2,3,1,1,1,0,confidence=0.5 field_of_view=outside\nb,1,2,4,1,1,1,0,\nc,0,0,0,0,1,1,0,field_of_view=outside\n"
    )
    marks = read_landmarks(file)
    assert marks.status == ("outside", "defined", "undefined")
    assert marks.points[0].tolist() == [-1.0, -2.0, 3.0]
