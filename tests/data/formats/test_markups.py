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
"""3D Slicer markups against files written down from Slicer's documentation and from Slicer itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_landmarks.data import Landmarks, read_landmarks, write_landmarks
from monai_landmarks.geometry import LandmarkError

NAN = float("nan")

# The example of Slicer's developer guide.
DOCUMENTED = """{"@schema": "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/\
Schema/markups-schema-v1.0.0.json#",
"markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": [
    { "label": "F-1", "position": [-53.388409961685827, -73.33572796934868, 0.0] },
    { "label": "F-2", "position": [49.8682950191571, -88.58955938697324, 0.0] },
    { "label": "F-3", "position": [-25.22749042145594, 59.255268199233729, 0.0] }
]}]}
"""
# What Slicer 5.4 saves for a point that was skipped, one that was placed and one that is still to be placed.
SAVED_BY_SLICER = """{"@schema": "x", "markups": [{"type": "Fiducial", "coordinateSystem": "LPS",
"coordinateUnits": "mm", "controlPoints": [
 {"id": "1", "label": "crossed", "description": "", "position": "", "positionStatus": "missing"},
 {"id": "2", "label": "locked", "description": "", "position": [-517.487, 0.0, 122.92], "positionStatus": "defined"},
 {"id": "3", "label": "editing", "description": "", "position": "", "positionStatus": "undefined"}]}]}"""


def markups(tmp_path: Path, *points: dict[str, Any], **node: Any) -> Path:
    file = tmp_path / "case.mrk.json"
    file.write_text(json.dumps({"markups": [{"type": "Fiducial", "controlPoints": list(points), **node}]}))
    return file


def test_documented_example(tmp_path: Path) -> None:
    file = tmp_path / "myexample.mrk.json"
    file.write_text(DOCUMENTED)
    marks = read_landmarks(file)
    assert marks.names == ("F-1", "F-2", "F-3")
    np.testing.assert_array_equal(marks.points[0], [53.388409961685827, 73.33572796934868, 0.0])
    np.testing.assert_array_equal(marks.points[2], [25.22749042145594, -59.255268199233729, 0.0])
    assert marks.status == ("defined",) * 3


def test_status_of_points_that_slicer_has_not_placed(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(SAVED_BY_SLICER)
    marks = read_landmarks(file)
    assert marks.status == ("missing", "defined", "undefined")
    np.testing.assert_array_equal(marks.points, [[NAN] * 3, [517.487, 0.0, 122.92], [NAN] * 3])


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"coordinateSystem": "LPS"}, [-1.0, -2.0, 3.0]),
        ({"coordinateSystem": "RAS"}, [1.0, 2.0, 3.0]),
        ({"coordinateSystem": "ras"}, [1.0, 2.0, 3.0]),
        ({"coordinateSystem": 0}, [1.0, 2.0, 3.0]),
        ({"coordinateSystem": "1"}, [-1.0, -2.0, 3.0]),
        ({}, [-1.0, -2.0, 3.0]),
        ({"coordinateSystem": "RAS", "coordinateUnits": "um"}, [0.001, 0.002, 0.003]),
        ({"coordinateSystem": "RAS", "coordinateUnits": ["mm", "UCUM", "millimeter"]}, [1.0, 2.0, 3.0]),
        ({"coordinateSystem": "RAS", "type": "ClosedCurve"}, [1.0, 2.0, 3.0]),
    ],
)
def test_coordinate_systems_units_and_types(tmp_path: Path, node: dict[str, Any], expected: list[float]) -> None:
    file = markups(tmp_path, {"label": "a", "position": [1, 2, 3]}, **node)
    np.testing.assert_allclose(read_landmarks(file).points, [expected], rtol=1e-15)


@pytest.mark.parametrize(
    ("point", "status"),
    [
        ({"position": [0, 0, 0], "positionStatus": "undefined"}, "undefined"),
        ({"position": [0, 0, 0], "positionStatus": "missing"}, "missing"),
        ({"position": "", "positionStatus": "preview"}, "undefined"),
        ({"position": None}, "undefined"),
        ({}, "undefined"),
    ],
)
def test_points_without_position_are_nan_never_zero(tmp_path: Path, point: dict[str, Any], status: str) -> None:
    marks = read_landmarks(markups(tmp_path, {"label": "a", **point}))
    assert np.isnan(marks.points).all()
    assert marks.status == (status,)


def test_preview_keeps_its_position_and_confidence(tmp_path: Path) -> None:
    point = {
        "label": "a",
        "position": [1, 2, 3],
        "positionStatus": "preview",
        "description": "by net, confidence=2.5e-1",
    }
    marks = read_landmarks(markups(tmp_path, point, {"label": "b", "position": [1, 2, 4]}))
    assert marks.status == ("preview", "defined")
    assert marks.confidence is not None
    np.testing.assert_array_equal(marks.confidence, [0.25, NAN])


def test_several_nodes_need_a_choice(tmp_path: Path) -> None:
    file = tmp_path / "two.mrk.json"
    nodes = [
        {"type": "Fiducial", "name": "left", "controlPoints": [{"label": "a", "position": [1, 2, 3]}]},
        {"type": "Curve", "controlPoints": [{"label": "b", "position": [4, 5, 6]}]},
    ]
    file.write_text(json.dumps({"markups": nodes}))
    with pytest.raises(LandmarkError, match=r"2 markups nodes \(0: Fiducial 'left'; 1: Curve ''\): choose one"):
        read_landmarks(file)
    assert read_landmarks(file, node="left").names == ("a",)
    assert read_landmarks(file, node=1).names == ("b",)
    assert read_landmarks(file, node="all", names=["b", "a"]).names == ("b", "a")
    with pytest.raises(LandmarkError, match="0 markups nodes are called 'right'"):
        read_landmarks(file, node="right")
    nodes[1]["coordinateSystem"] = "RAS"
    file.write_text(json.dumps({"markups": nodes}))
    with pytest.raises(LandmarkError, match="different coordinate systems"):
        read_landmarks(file, node="all")


def test_names_from_descriptions_are_offered(tmp_path: Path) -> None:
    file = markups(tmp_path, {"label": "1", "description": "AC", "position": [1, 2, 3]})
    with pytest.raises(LandmarkError, match="names_from='description'"):
        read_landmarks(file, names=["AC"])
    assert read_landmarks(file, names=["AC"], names_from="description").names == ("AC",)


def test_unlabelled_points(tmp_path: Path) -> None:
    file = markups(tmp_path, {"position": [1, 2, 3]}, {"label": "", "position": [4, 5, 6]})
    assert read_landmarks(file).names == ("point_1", "point_2")
    assert read_landmarks(file, names=["a", "b"]).names == ("a", "b")
    with pytest.raises(LandmarkError, match="2 points for 3 names"):
        read_landmarks(file, names=["a", "b", "c"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DOCUMENTED[:300], "ends in the middle: it was likely cut off"),
        ("", "file is empty"),
        ('{"markups": [}', "not valid JSON at line 1, column 14"),
        ('{"markups": []}', "no markups node"),
        ('{"markups": {}}', "'markups' must be a JSON array"),
        ('{"markups": [{"type": "Fiducial"}]}', "no control points"),
        ('{"markups": [{"coordinateSystem": "LAS", "controlPoints": []}]}', "coordinateSystem is 'LAS'"),
        ('{"markups": [{"coordinateUnits": "in", "controlPoints": []}]}', "coordinateUnits is 'in'"),
        ('{"markups": [{"controlPoints": [{"label": "a", "position": [1, 2]}]}]}', "three numbers are needed"),
        ('{"markups": [{"controlPoints": [{"label": "a", "position": [1, "x", 2]}]}]}', "'a'.* holds 'x'"),
        ('{"markups": [{"controlPoints": [{"label": "a", "positionStatus": "definde"}]}]}', "did you mean 'defined'"),
        (
            '{"markups": [{"controlPoints": [{"label": "a"}, {"label": "a", "position": [1, 2, 4]}]}]}',
            "'a' at places 1, 2",
        ),
    ],
)
def test_faults_are_named_with_the_file(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "faulty.mrk.json"
    file.write_text(text)
    with pytest.raises(LandmarkError, match=expected) as caught:
        read_landmarks(file)
    assert "faulty.mrk.json" in str(caught.value)


def test_binary_file_is_not_json(tmp_path: Path) -> None:
    file = tmp_path / "a.mrk.json"
    file.write_bytes(b"\x93NUMPY\xff\xfe")
    with pytest.raises(LandmarkError, match="not UTF-8 text"):
        read_landmarks(file)


def test_written_file_is_what_slicer_reads(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    file = tmp_path / "out.mrk.json"
    marks = Landmarks(
        [[1.0, 2.0, 3.0], [NAN] * 3, [4.0, 5.0, 6.0]],
        ["a", "b", "c"],
        ["defined", "missing", "preview"],
        confidence=[0.5, NAN, 0.25],
    )
    write_landmarks(marks, file)
    content = json.loads(file.read_text(encoding="utf-8"))
    point = {
        "type": "object",
        "required": ["id", "label", "orientation", "positionStatus"],
        "properties": {
            "id": {"type": "string"},
            "label": {"type": "string"},
            "position": {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3},
            "orientation": {"type": "array", "items": {"type": "number"}, "minItems": 9, "maxItems": 9},
            "positionStatus": {"enum": ["undefined", "preview", "defined", "missing"]},
        },
    }
    node = {
        "type": "object",
        "required": ["type", "coordinateSystem", "coordinateUnits", "controlPoints"],
        "properties": {"coordinateSystem": {"enum": ["LPS", "RAS"]}, "controlPoints": {"items": point}},
    }
    jsonschema.validate(content, {"required": ["@schema", "markups"], "properties": {"markups": {"items": node}}})
    assert content["@schema"].lower().endswith("markups-schema-v1.0.3.json#")
    assert content["markups"][0]["coordinateSystem"] == "LPS"
    first, second, third = content["markups"][0]["controlPoints"]
    assert first["position"] == [-1.0, -2.0, 3.0]
    assert first["description"] == "confidence=0.5"
    assert "position" not in second
    assert second["positionStatus"] == "missing"
    assert third["positionStatus"] == "preview"


def test_film_lies_in_the_plane_z_0_with_unchanged_numbers(tmp_path: Path) -> None:
    file = tmp_path / "film.mrk.json"
    marks = Landmarks([[82.9, 99.1], [NAN, NAN]], ["sella", "nasion"])
    write_landmarks(marks, file)
    assert json.loads(file.read_text())["markups"][0]["controlPoints"][0]["position"] == [82.9, 99.1, 0.0]
    assert read_landmarks(file, spatial_dims=2) == marks
    assert read_landmarks(file).spatial_dims == 3


def test_film_file_that_says_ras_is_negated(tmp_path: Path) -> None:
    file = markups(tmp_path, {"label": "sella", "position": [-82.9, -99.1, 0]}, coordinateSystem="RAS")
    np.testing.assert_array_equal(read_landmarks(file, spatial_dims=2).points, [[82.9, 99.1]])


def test_points_of_a_volume_are_no_film_points(tmp_path: Path) -> None:
    file = markups(tmp_path, {"label": "sella", "position": [1, 2, 30]})
    with pytest.raises(LandmarkError, match="third coordinate of 'sella' is not 0"):
        read_landmarks(file, spatial_dims=2)


def test_numbers_only_in_spaces_that_the_file_can_name(tmp_path: Path) -> None:
    with pytest.raises(LandmarkError, match="cannot say that its numbers are 'voxel'"):
        write_landmarks(Landmarks([[1.0, 2, 3]], ["a"]), tmp_path / "a.mrk.json", space="voxel", affine=np.eye(4))
    assert list(tmp_path.iterdir()) == []


def test_slicer_has_no_status_for_outside_so_the_description_says_it(tmp_path: Path) -> None:
    file = tmp_path / "out.mrk.json"
    marks = Landmarks([[1.0, 2, 3], [4.0, 5, 6]], ["a", "b"], ["outside", "defined"], [0.5, 0.25])
    write_landmarks(marks, file)
    first, second = json.loads(file.read_text())["markups"][0]["controlPoints"]
    assert (first["positionStatus"], first["position"]) == ("defined", [-1.0, -2.0, 3.0])
    assert first["description"] == "confidence=0.5 field_of_view=outside"
    assert second["description"] == "confidence=0.25"
    assert read_landmarks(file) == marks


def test_slicers_own_statuses_rule_over_the_description(tmp_path: Path) -> None:
    """A point that somebody took back in Slicer is missing whatever its description says; and outside is no status."""
    said = {"position": [1, 2, 3], "description": "field_of_view=outside"}
    points = [
        {"label": word, "positionStatus": word, **said} for word in ("missing", "undefined", "preview", "defined")
    ]
    marks = read_landmarks(markups(tmp_path, *points))
    assert marks.status == ("missing", "undefined", "preview", "outside")
    with pytest.raises(LandmarkError, match="positionStatus 'outside'"):
        read_landmarks(markups(tmp_path, {"label": "a", "positionStatus": "outside", "position": [1, 2, 3]}))
