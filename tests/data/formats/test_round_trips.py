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
"""What is written is read back, for every format, whatever the names, statuses and gaps."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_landmarks.data import Landmarks, read_landmarks, write_landmarks
from monai_landmarks.data.formats.verse import VERTEBRA_NAMES
from monai_landmarks.data.landmarks import WITH_POSITION

OBLIQUE = np.array([[0.0, -1.5, 0.0, 140.0], [0.9, 0.0, 0.1, -20.0], [0.0, 0.1, 2.0, 300.0], [0.0, 0.0, 0.0, 1.0]])
FILM_AFFINE = np.array([[0.2, 0.0, 0.05], [0.0, 0.2, 0.05], [0.0, 0.0, 1.0]])
AFFINES = {2: FILM_AFFINE, 3: OBLIQUE}

quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

awkward = st.sampled_from(
    [
        "a,b",
        'the "tip"',
        "it's",
        "L1;L2",
        "nan",
        "1",
        "#3",
        "x",
        "status",
        "é",
        "第一",
        "a_x",
        "a b",
        "confidence=3",
        "field_of_view=outside",
        "A",
    ]
)
anything = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=8).filter(
    lambda text: text == text.strip() and text != ""
)


@st.composite
def landmarks(draw: st.DrawFn, dims: tuple[int, ...] = (2, 3), names: Any = None, full: bool = True) -> Landmarks:
    d = draw(st.sampled_from(dims))
    chosen = draw(
        st.lists(st.one_of(awkward, anything) if names is None else names, min_size=1, max_size=6, unique=True)
    )
    coordinate = st.floats(-1e4, 1e4, allow_nan=False)
    words = st.sampled_from(
        ["defined", "preview", "outside", "missing", "undefined"] if full else ["defined", "missing"]
    )
    status = [draw(words) for _ in chosen]
    points = [draw(st.tuples(*[coordinate] * d)) if word in WITH_POSITION else (np.nan,) * d for word in status]
    score = st.one_of(st.just(float("nan")), st.floats(-10, 10))
    confidence = [draw(score) for _ in chosen] if full and draw(st.booleans()) else None
    return Landmarks(points, chosen, status, confidence)


def there_and_back(marks: Landmarks, file_name: str, write: dict[str, Any], read: dict[str, Any]) -> Landmarks:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file_name
        write_landmarks(marks, path, **write)
        assert [entry.name for entry in Path(folder).iterdir()] == [file_name]
        return read_landmarks(path, spatial_dims=marks.spatial_dims, **read)


def assert_same(got: Landmarks, expected: Landmarks) -> None:
    """Equal in all but rounding: a matrix and its inverse were applied."""
    np.testing.assert_allclose(got.points, expected.points, rtol=0, atol=1e-6)
    assert got.replace(points=expected.points, status=got.status) == expected


@pytest.mark.parametrize("file_name", ["case.mrk.json", "case.fcsv", "case.csv", "case.tsv"])
@pytest.mark.parametrize("space", [None, "LPS", "RAS"])
@quick
@given(marks=landmarks())
def test_millimetre_formats_are_exact(file_name: str, space: str | None, marks: Landmarks) -> None:
    assert there_and_back(marks, file_name, {"space": space}, {}) == marks


@quick
@given(marks=landmarks(), case=st.one_of(st.none(), st.sampled_from(["001", "a,b"])), tab=st.booleans())
def test_wide_tables_are_exact(marks: Landmarks, case: str | None, tab: bool) -> None:
    name = "case.tsv" if tab else "case.csv"
    assert there_and_back(marks, name, {"layout": "wide", "case": case}, {"case": case}) == marks


@quick
@given(marks=landmarks())
def test_long_table_with_a_case_column(marks: Landmarks) -> None:
    assert there_and_back(marks, "all.csv", {"case": "p 7"}, {"case": "p 7", "case_column": "case"}) == marks


@pytest.mark.parametrize("layout", ["long", "wide"])
@quick
@given(marks=landmarks())
def test_tables_of_voxels(layout: str, marks: Landmarks) -> None:
    options = {"affine": AFFINES[marks.spatial_dims]}
    assert_same(there_and_back(marks, "case.csv", {"space": "voxel", "layout": layout, **options}, options), marks)


@quick
@given(marks=landmarks(full=False), order=st.sampled_from(["xy", "ij"]), origin=st.sampled_from([0, 1, 0.5]))
def test_arrays(marks: Landmarks, order: str, origin: float) -> None:
    assert there_and_back(marks, "case.npy", {}, {"names": marks.names}) == marks
    options = {"space": "voxel", "affine": AFFINES[marks.spatial_dims], "order": order, "origin": origin}
    assert_same(there_and_back(marks, "case.npy", options, {**options, "names": marks.names}), marks)


@quick
@given(marks=landmarks(dims=(3,), full=False))
def test_lml(marks: Landmarks) -> None:
    assert_same(there_and_back(marks, "case.lml", {"affine": OBLIQUE}, {"affine": OBLIQUE}), marks)


@quick
@given(marks=landmarks(dims=(3,), names=st.sampled_from(list(VERTEBRA_NAMES.values()))))
def test_verse(marks: Landmarks) -> None:
    assert_same(there_and_back(marks, "c.json", {"affine": OBLIQUE, "format": "verse"}, {"affine": OBLIQUE}), marks)


@pytest.mark.parametrize("kind", ["coco", "labelme"])
@pytest.mark.parametrize(
    "options", [{"affine": FILM_AFFINE}, {"pixel_size": (0.1, 0.3)}, {"pixel_size": 1, "order": "ij"}]
)
@quick
@given(marks=landmarks(dims=(2,)))
def test_film_annotation_formats(kind: str, options: dict[str, Any], marks: Landmarks) -> None:
    assert_same(there_and_back(marks, "film.json", {**options, "format": kind}, options), marks)


@quick
@given(marks=landmarks(dims=(2,), full=False))
def test_isbi(marks: Landmarks) -> None:
    assert_same(there_and_back(marks, "001.txt", {}, {"names": marks.names}), marks)


OUTSIDE_2D = Landmarks([[3.0, 4.0], [30.0, -4.0], [np.nan] * 2], ["a", "b", "c"], ["preview", "outside", "missing"])
OUTSIDE_3D = Landmarks(
    [[3.0, 4.0, 5.0], [30.0, -4.0, 5.0], [np.nan] * 3], ["C1", "C2", "C3"], ["preview", "outside", "missing"]
)


@pytest.mark.parametrize(
    ("file_name", "options"),
    [
        ("a.mrk.json", {}),
        ("a.fcsv", {}),
        ("a.csv", {}),
        ("a.tsv", {"layout": "wide"}),
        ("a.json", {"format": "verse", "affine": OBLIQUE}),
        ("a.json", {"format": "coco", "affine": FILM_AFFINE}),
        ("a.json", {"format": "labelme", "affine": FILM_AFFINE}),
    ],
)
@pytest.mark.parametrize("confidence", [None, [0.5, 0.25, np.nan]])
def test_a_landmark_outside_stays_outside(file_name, options, confidence) -> None:
    marks = (OUTSIDE_2D if options.get("format") in ("coco", "labelme") else OUTSIDE_3D).replace(confidence=confidence)
    read = {key: value for key, value in options.items() if key == "affine"}
    assert_same(there_and_back(marks, file_name, options, read), marks)


@pytest.mark.parametrize(
    ("file_name", "marks", "options"),
    [
        ("a.npy", OUTSIDE_2D, {}),
        ("a.npy", OUTSIDE_3D, {}),
        ("a.lml", OUTSIDE_3D, {"affine": OBLIQUE}),
        ("a.txt", OUTSIDE_2D, {}),
    ],
)
def test_formats_without_a_status_keep_the_place_of_a_landmark_outside(file_name, marks, options) -> None:
    """It is read as defined, and seen_in() tells it again."""
    got = there_and_back(marks, file_name, options, {**options, "names": marks.names})
    np.testing.assert_allclose(got.points, marks.points, atol=1e-9)
    assert got.status == ("defined", "defined", "missing")
    dims = marks.spatial_dims
    assert got.seen_in(np.eye(dims + 1), (20,) * dims).status == ("defined", "outside", "missing")
