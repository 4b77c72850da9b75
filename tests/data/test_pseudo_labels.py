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

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_landmarks.data import Landmarks, read_landmarks, write_landmarks
from monai_landmarks.data.pseudo_labels import (
    choose_labelled,
    films_to_label,
    pseudo_labelled_datalist,
    unlabelled_datalist,
)
from monai_landmarks.geometry import LandmarkError

NAMES = ("sella", "nasion", "menton")
POINTS = {2: np.array([[1.5, 2.0], [3.0, 4.25], [5.0, 6.0]]), 3: np.array([[1.5, 2, 3], [-3, 4.25, 5], [5, 6, 7.5]])}
SCORES = (0.9, 0.25, 0.5)


def films(count: int = 3, dims: int = 2) -> list[dict[str, Any]]:
    """As a reader gives them, with true landmarks that are recognised by their numbers."""
    return [
        {
            "image": f"{i:03d}.png",
            "case": f"{i:03d}",
            "pixel_size": (0.1, 0.1),
            "landmarks": np.full((len(NAMES), dims), 100.0 + i),
            "landmarks_junior": np.zeros((len(NAMES), dims)),
        }
        for i in range(1, count + 1)
    ]


def write(folder: Path, case: str, dims: int = 2, points: Any = None) -> Path:
    """A pseudo-label file as a prediction leaves it; missing where there is no point."""
    points = POINTS[dims] if points is None else np.asarray(points)
    status = ["missing" if np.isnan(point).any() else "preview" for point in points]
    path = folder / f"{case}.mrk.json"
    write_landmarks(Landmarks(points, NAMES, status, SCORES), path)
    return path


def by_hand(path: Path, index: int, **changes: Any) -> None:
    """What a person changes in a file with 3D Slicer; ``remove=True`` deletes the point."""
    content = json.loads(path.read_text())
    controls = content["markups"][0]["controlPoints"]
    if changes.pop("remove", False):
        del controls[index]
    else:
        controls[index] |= changes
    path.write_text(json.dumps(content))


# --- lists --------------------------------------------------------------------------------------------------------------


def test_nothing_but_image_and_geometry_is_left() -> None:
    assert unlabelled_datalist(films(1)) == [{"image": "001.png", "case": "001", "pixel_size": (0.1, 0.1)}]


@given(st.integers(1, 40), st.integers(0, 5), st.data())
def test_more_labelled_films_hold_the_fewer_ones(total: int, seed: int, data: st.DataObject) -> None:
    entries = films(total)
    cases = [entry["case"] for entry in entries]
    first = data.draw(st.lists(st.sampled_from(cases), max_size=3, unique=True))
    chosen = [choose_labelled(entries, count, first, seed) for count in range(max(len(first), 1), total + 3)]
    assert chosen[0][: len(first)] == first
    for fewer, more in itertools.pairwise(chosen):
        assert more[: len(fewer)] == fewer
    assert sorted(chosen[-1]) == cases
    assert choose_labelled(entries[::-1], total, first, seed) == choose_labelled(entries, total, first, seed)


def test_only_names_of_cases_are_looked_at_to_choose() -> None:
    assert choose_labelled([{"case": "a"}, {"case": "b"}], 2, "b") == ["b", "a"]


@pytest.mark.parametrize(
    ("count", "first", "words"),
    [
        (1, ["151"], "'151' are not among the 3 films, such as '001'"),
        (0, [], "`count` is 0: at least one"),
        (1, ["001", "002"], "'001', '002' were asked for"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(count: int, first: list[str], words: str) -> None:
    with pytest.raises(LandmarkError, match=words):
        choose_labelled(films(), count, first)


# --- what is trained on -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [2, 3])
def test_labelled_films_have_true_landmarks_and_others_predicted_ones(dims: int, tmp_path: Path) -> None:
    for case in ("001", "003"):
        write(tmp_path, case, dims)
    one, two, three = pseudo_labelled_datalist(films(dims=dims), tmp_path, NAMES, ["002"], spatial_dims=dims)
    np.testing.assert_array_equal(two["landmarks"], np.full((3, dims), 102.0))
    np.testing.assert_array_equal(two["scores"], np.ones(3))
    for entry in (one, three):
        np.testing.assert_allclose(entry["landmarks"], POINTS[dims], atol=1e-12)
        np.testing.assert_allclose(entry["scores"], SCORES)
        assert entry["scores"].dtype == np.float32
        assert set(entry) == {"image", "case", "pixel_size", "landmarks", "scores"}


def test_labels_of_other_films_and_files_of_labelled_ones_are_not_read(tmp_path: Path) -> None:
    write(tmp_path, "001")
    (tmp_path / "002.mrk.json").write_text("no file")
    entries = films(2)
    listed = pseudo_labelled_datalist([{**entries[0], "landmarks": object()}, entries[1]], tmp_path, NAMES, ["002"])
    del entries[0]["landmarks"]
    again = pseudo_labelled_datalist(entries, tmp_path, NAMES, ["002"])
    for one, other in zip(listed, again, strict=True):
        np.testing.assert_array_equal(one["landmarks"], other["landmarks"])


def test_a_correction_counts_like_a_true_landmark(tmp_path: Path) -> None:
    path = write(tmp_path, "001")
    by_hand(path, 1, position=[30.0, 40.0, 0.0], positionStatus="defined")
    (entry,) = pseudo_labelled_datalist(films(1), tmp_path, NAMES)
    np.testing.assert_allclose(entry["landmarks"], [POINTS[2][0], [30.0, 40.0], POINTS[2][2]])
    np.testing.assert_allclose(entry["scores"], [0.9, 1.0, 0.5])


@pytest.mark.parametrize("status", ["missing", "undefined"])
def test_a_landmark_set_to_missing_takes_no_part(status: str, tmp_path: Path) -> None:
    by_hand(write(tmp_path, "001"), 0, positionStatus=status)
    (entry,) = pseudo_labelled_datalist(films(1), tmp_path, NAMES)
    assert np.isnan(entry["landmarks"]).tolist() == [[True, True], [False, False], [False, False]]
    np.testing.assert_allclose(entry["scores"], [0, 0.25, 0.5])


def test_a_true_landmark_that_is_missing_takes_no_part(tmp_path: Path) -> None:
    entries = films(1)
    entries[0]["landmarks"][2] = np.nan
    (entry,) = pseudo_labelled_datalist(entries, tmp_path, NAMES, ["001"])
    np.testing.assert_array_equal(entry["scores"], [1, 1, 0])


def test_a_low_score_leaves_a_landmark_out_but_no_correction(tmp_path: Path) -> None:
    path = write(tmp_path, "001")
    by_hand(path, 1, positionStatus="defined")
    (entry,) = pseudo_labelled_datalist(films(1), tmp_path, NAMES, min_score=0.6)
    np.testing.assert_allclose(entry["scores"], [0.9, 1.0, 0.0])
    assert np.isnan(entry["landmarks"]).any(axis=1).tolist() == [False, False, True]


def test_a_file_without_scores_counts_almost_fully(tmp_path: Path) -> None:
    write_landmarks(Landmarks(POINTS[2], NAMES, ["preview"] * 3), tmp_path / "001.mrk.json")
    (entry,) = pseudo_labelled_datalist(films(1), tmp_path, NAMES)
    np.testing.assert_allclose(entry["scores"], 0.999)


def test_names_in_another_order_are_sorted(tmp_path: Path) -> None:
    write(tmp_path, "001")
    (entry,) = pseudo_labelled_datalist(films(1), tmp_path, NAMES[::-1])
    np.testing.assert_allclose(entry["landmarks"], POINTS[2][::-1])
    np.testing.assert_allclose(entry["scores"], SCORES[::-1])


def test_a_landmark_removed_by_hand_is_named_with_its_file(tmp_path: Path) -> None:
    path = write(tmp_path, "001")
    by_hand(path, 1, remove=True)
    with pytest.raises(LandmarkError, match="taken out by hand") as caught:
        pseudo_labelled_datalist(films(1), tmp_path, NAMES)
    assert str(path) in str(caught.value)
    assert "'nasion'" in str(caught.value)
    (entry,) = pseudo_labelled_datalist(films(1), tmp_path, NAMES, removed="missing")
    np.testing.assert_allclose(entry["scores"], [0.9, 0, 0.5])


def test_films_without_labels_are_all_named(tmp_path: Path) -> None:
    write(tmp_path, "002")
    with pytest.raises(FileNotFoundError, match=r"2 of 3 films .*'001', '003'"):
        pseudo_labelled_datalist(films(), tmp_path, NAMES)


@pytest.mark.parametrize(
    ("labelled", "landmarks", "words"),
    [
        (["009"], None, "'009' are not among"),
        (["001"], None, "needs 3 landmarks, it has none"),
        (["001"], np.zeros((2, 2)), "an array of shape"),
    ],
)
def test_labelled_films_need_their_landmarks(labelled: list[str], landmarks: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(LandmarkError, match=words):
        pseudo_labelled_datalist([{"case": "001", "landmarks": landmarks}], tmp_path, NAMES, labelled)


# --- what is predicted anew ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "corrected"),
    [
        ({}, False),
        ({"positionStatus": "defined"}, True),
        ({"positionStatus": "missing"}, True),
        ({"positionStatus": "undefined"}, True),
        ({"remove": True}, True),
    ],
)
def test_a_file_that_a_person_corrected_is_not_predicted_anew(
    change: dict[str, Any], corrected: bool, tmp_path: Path
) -> None:
    by_hand(write(tmp_path, "001"), 2, **change)
    listed = films_to_label(films(), tmp_path, NAMES, ["003"])
    assert [entry["case"] for entry in listed] == (["002"] if corrected else ["001", "002"])
    assert "landmarks" not in listed[0]


def test_a_landmark_that_no_template_shows_is_no_correction(tmp_path: Path) -> None:
    points = POINTS[2].copy()
    points[0] = np.nan
    path = tmp_path / "001.mrk.json"
    for score in (0.0, np.nan):
        marks = Landmarks(points, NAMES, ["missing", "preview", "preview"], [score, 0.5, 0.5])
        write_landmarks(marks, path)
        assert read_landmarks(path, spatial_dims=2).status[0] == "missing"
        assert len(films_to_label(films(1), tmp_path, NAMES)) == 1
