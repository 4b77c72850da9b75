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
"""What holds for every format: recognition, names and their order, arguments, files that cannot be read or written."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_landmarks.data import (
    Landmarks,
    formats,
    read_landmark_table,
    read_landmarks,
    write_landmark_table,
    write_landmarks,
)
from monai_landmarks.data.formats import FORMATS, find_format
from monai_landmarks.geometry import LandmarkError

NAN = float("nan")
LONG = "name,x,y,z\nsella,1,2,3\nnasion,4,5,6\nporion,,,\n"


def saved(tmp_path: Path, text: str = LONG, name: str = "points.csv") -> Path:
    file = tmp_path / name
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.mrk.json", "", "markups"),
        ("A.MRK.JSON", "", "markups"),
        ("a.fcsv", "", "fcsv"),
        ("a.csv", "", "csv"),
        ("a.tsv", "", "tsv"),
        ("a.npy", "", "npy"),
        ("a.lml", "", "lml"),
        ("001.txt", "", "isbi"),
        ("a.json", '{"markups": []}', "markups"),
        ("a.json", '{"shapes": []}', "labelme"),
        ("a.json", '{"images": [], "annotations": [], "categories": []}', "coco"),
        ("a.json", '[{"direction": ["L", "P", "S"]}]', "verse"),
        ("a.json", '[{"label": 1, "X": 1, "Y": 1, "Z": 1}]', "verse"),
    ],
)
def test_formats_are_recognised_by_suffix_and_content(tmp_path: Path, name: str, content: str, expected: str) -> None:
    assert find_format(saved(tmp_path, content, name), None).name == expected


@pytest.mark.parametrize("spelling", ["markups", "mrk.json", ".mrk.json", "Markups", "slicer"])
def test_format_spellings(spelling: str) -> None:
    assert find_format(Path("x"), spelling).name == "markups"


@pytest.mark.parametrize(
    ("name", "content", "format_name", "expected"),
    [
        ("a.dat", "", None, r"suffix of 'a\.dat' is of no landmark format; known are '\.csv'"),
        ("a.csv", "", "markup", "no landmark format 'markup' .did you mean 'markups'"),
        ("a.json", '{"points": []}', None, "this JSON is an object with 'points'"),
        ("a.json", "[1, 2]", None, "this JSON is a list"),
        ("a.json", "3", None, "this JSON is 3"),
        ("a.json", '{"markups": [', None, "cut off"),
    ],
)
def test_unknown_formats(tmp_path: Path, name: str, content: str, format_name: str | None, expected: str) -> None:
    with pytest.raises(LandmarkError, match=expected):
        read_landmarks(saved(tmp_path, content, name), format=format_name)


def test_plain_json_is_not_written_without_a_format(tmp_path: Path) -> None:
    with pytest.raises(LandmarkError, match=r"several JSON formats: name it \*\.mrk\.json"):
        write_landmarks(Landmarks([[1.0, 2]], ["a"]), tmp_path / "a.json")


def test_names_decide_the_order(tmp_path: Path) -> None:
    marks = read_landmarks(saved(tmp_path), names=["porion", "sella", "nasion"])
    np.testing.assert_array_equal(marks.points, [[NAN] * 3, [1, 2, 3], [4, 5, 6]])


def test_missing_and_extra_names_need_permission(tmp_path: Path) -> None:
    file = saved(tmp_path)
    with pytest.raises(LandmarkError, match=r"Asked for and not here: 'menton'.*Here and not asked for: 'porion'"):
        read_landmarks(file, names=["sella", "nasion", "menton"])
    with pytest.raises(LandmarkError, match="not asked for: 'porion'"):
        read_landmarks(file, names=["sella", "nasion", "menton"], allow_missing=True)
    marks = read_landmarks(file, names=["nasion", "menton"], allow_missing=True, allow_extra=True)
    assert marks.status == ("defined", "missing")
    with pytest.raises(LandmarkError, match="'sella' at places 1, 2"):
        read_landmarks(file, names=["sella", "sella"], allow_extra=True)
    with pytest.raises(LandmarkError, match="names must be a sequence of names, got the text 'sella'"):
        read_landmarks(file, names="sella")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"space": "RSA"}, "space='RSA' .did you mean 'RAS'"),
        ({"order": "yx"}, "order='yx'; possible are 'xy'"),
        ({"units": "inch"}, "units='inch'"),
        ({"spatial_dims": 4}, "spatial_dims must be 2 or 3, got 4"),
        ({"spatial_dims": 2}, "third coordinate of 'sella', 'nasion' is not 0"),
        ({"nmaes": ["a"]}, "no option 'nmaes' .did you mean 'names'"),
        ({"space": "voxel", "affine": np.zeros((4, 4))}, "cannot be inverted"),
    ],
)
def test_wrong_arguments(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(LandmarkError, match=expected):
        read_landmarks(saved(tmp_path), **options)


def test_case_is_for_files_of_many(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    np.save(file, np.zeros((2, 3)))
    with pytest.raises(LandmarkError, match="case='7' is for files with many cases"):
        read_landmarks(file, case="7")
    with pytest.raises(LandmarkError, match="holds one case: use read_landmarks"):
        read_landmark_table(file)


def test_missing_file_is_found_by_its_neighbour(tmp_path: Path) -> None:
    saved(tmp_path, name="case_07.mrk.json")
    for read in (read_landmarks, read_landmark_table):
        with pytest.raises(FileNotFoundError, match=r"nearest name in that folder is 'case_07\.mrk\.json'"):
            read(tmp_path / "case_7.mrk.json")


def test_sentinel_for_missing(tmp_path: Path) -> None:
    file = saved(tmp_path, "name,x,y\na,-1,-1\nb,-1,5\n")
    np.testing.assert_array_equal(read_landmarks(file, missing_value=-1).points, [[NAN, NAN], [-1, 5]])
    np.testing.assert_array_equal(read_landmarks(file).points, [[-1, -1], [-1, 5]])


@pytest.mark.parametrize(
    ("array", "options", "expected"),
    [
        (np.zeros((2, 4)), {}, r"shape \(2, 4\); \(N, 2\) or \(N, 3\) is needed"),
        (np.zeros((3, 19)), {}, r"save points\.T"),
        (np.zeros((2, 5, 3)), {}, r"got float64 of shape \(2, 5, 3\)"),
        (np.array([["a", "b"]]), {}, "array of numbers"),
        (np.array([[None, 1.0]], dtype=object), {}, "pickled objects"),
        (np.array([[NAN, 1.0]]), {}, "'point_1' has some but not all"),
        (np.zeros((2, 3)), {"names": ["a"]}, "2 points for 1 names: the file has no names of its own"),
    ],
)
def test_faulty_arrays(tmp_path: Path, array: np.ndarray, options: dict[str, Any], expected: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(LandmarkError, match=expected):
        read_landmarks(tmp_path / "a.npy", **options)


def test_arrays_of_one_case_and_cut_off_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((1, 2, 3), np.float32))
    assert read_landmarks(tmp_path / "a.npy").names == ("point_1", "point_2")
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-5])
    with pytest.raises(LandmarkError, match=r"not a readable \.npy file"):
        read_landmarks(tmp_path / "b.npy")
    with (tmp_path / "c.npy").open("wb") as stream:
        np.savez(stream, points=np.ones((2, 3)))
    with pytest.raises(LandmarkError, match="archive of several arrays"):
        read_landmarks(tmp_path / "c.npy")


LML = "# id\tname\tx\ty\tz\n1\tC7\t20.0\t30.0\t40.0\n8\tT1 left\tnan\tnan\tnan\n"


@pytest.mark.parametrize(
    "text",
    [LML, LML.replace("# ", ""), LML.replace("\t", " "), LML.replace("\n", "\r\n"), LML.replace("\t40.0", "\t40.0\t")],
)
def test_lml_is_voxel_times_spacing_whatever_the_direction(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.lml"
    file.write_bytes(text.encode())
    # Steps of 2, 3 and 4 mm: the file's millimetres are index (10, 10, 10).
    affine = np.array([[0, 0, 4.0, 100], [-2, 0, 0, 50], [0, 3, 0, -7], [0, 0, 0, 1]])
    marks = read_landmarks(file, affine=affine)
    assert marks.names == ("C7", "T1 left")
    np.testing.assert_allclose(marks.points, [[140.0, 30.0, 23.0], [NAN, NAN, NAN]])
    np.testing.assert_array_equal(read_landmarks(file, space="LPS").points[0], [-20, -30, 40])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LML, "no affine to turn them into"),
        (LML.replace("\t30.0", ""), "line 2 is .*separated by tabs are expected"),
        (LML.replace("30.0", "3o"), "line 2, y holds '3o'"),
        ("# nothing\n", "holds no points"),
    ],
)
def test_lml_faults(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(LandmarkError, match=expected):
        read_landmarks(saved(tmp_path, text, "a.lml"))


def test_film_rule_for_2d_numbers(tmp_path: Path) -> None:
    file = saved(tmp_path, "name,x,y\nsella,3,4\n")
    assert read_landmarks(file).points.tolist() == [[3, 4]]
    assert read_landmarks(file, space="LPS").points.tolist() == [[3, 4]]
    assert read_landmarks(file, space="RAS").points.tolist() == [[-3, -4]]
    assert read_landmarks(file, pixel_size=(0.5, 0.25)).points.tolist() == [[1.5, 1.0]]
    assert read_landmarks(file, pixel_size=(0.5, 0.25), order="ij").points.tolist() == [[2.0, 0.75]]
    four = np.diag([0.5, 0.25, 1.0, 1.0])
    assert read_landmarks(file, space="voxel", affine=four).points.tolist() == [[1.5, 1.0]]


def test_physical_points_agree_with_simpleitk(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.Image([6, 7, 8], sitk.sitkUInt8)
    image.SetSpacing([0.5, 1.5, 2.5])
    image.SetOrigin([10.0, -20.0, 30.0])
    angle = np.deg2rad(25)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, -1]])
    image.SetDirection(turn.ravel().tolist())
    index = np.array([[0.0, 0, 0], [5, 6, 7], [1.25, 3.5, 2.75]])
    lps = np.array([image.TransformContinuousIndexToPhysicalPoint(row) for row in index.tolist()])
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1, -1, 1]) @ turn @ np.diag(image.GetSpacing())
    affine[:3, 3] = np.array([-1, -1, 1]) * image.GetOrigin()
    names = ["a", "b", "c"]
    np.save(tmp_path / "index.npy", index)
    points = [{"label": n, "position": p} for n, p in zip(names, lps.tolist(), strict=True)]
    (tmp_path / "lps.mrk.json").write_text(json.dumps({"markups": [{"type": "Fiducial", "controlPoints": points}]}))
    by_voxel = read_landmarks(tmp_path / "index.npy", space="voxel", affine=affine, names=names)
    by_lps = read_landmarks(tmp_path / "lps.mrk.json")
    np.testing.assert_allclose(by_voxel.points, by_lps.points, atol=1e-9)
    np.testing.assert_allclose(by_lps.points * [-1, -1, 1], lps, atol=1e-9)


def marks_for(name: str) -> Landmarks:
    if name in ("isbi", "coco", "labelme"):
        return Landmarks([[1.0, 2.0], [3.0, 4.0]], ["C1", "C2"])
    return Landmarks([[1.0, 2.0, 0.0], [3.0, 4.0, 0.0]], ["C1", "C2"])


@pytest.mark.parametrize("name", list(FORMATS))
def test_failed_write_leaves_the_old_file_alone(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / f"case{FORMATS[name].suffixes[0]}"
    options: dict[str, Any] = {} if name in ("markups", "fcsv", "csv", "tsv", "npy", "isbi") else {"affine": np.eye(4)}
    write_landmarks(marks_for(name), target, format=name, **options)
    before = target.read_bytes()

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_landmarks(marks_for(name), target, format=name, **options)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_option_is_documented(name: str) -> None:
    for function in (FORMATS[name].read, FORMATS[name].write):
        own = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
        for parameter in own:
            assert f"        {parameter.name}: " in (function.__doc__ or ""), f"{function} says nothing of {parameter}"


@pytest.mark.parametrize(
    "function", [read_landmarks, write_landmarks, read_landmark_table, write_landmark_table, formats.find_format]
)
def test_public_functions_have_a_docstring(function: Callable[..., Any]) -> None:
    assert function.__doc__
