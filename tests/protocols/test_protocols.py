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
"""Protocols as data, scoring under them, and what may stand in one table."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_landmarks.data import Landmarks
from monai_landmarks.data.datasets import ISBI2015_LANDMARKS
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.protocols import (
    NATIVE_MM,
    EvaluationResult,
    Protocol,
    compare,
    evaluate,
    get_protocol,
    list_protocols,
    register_protocol,
    write_radial_errors,
)

NAN, INF = float("nan"), float("inf")
NAMES = ("tip", "base", "apex")


def cases(*rows: list) -> dict[str, np.ndarray]:
    return {f"{index:02d}": np.array(row, dtype=float) for index, row in enumerate(rows)}


def example(method: str = "mine") -> EvaluationResult:
    truth = cases([[0, 0], [0, 0], [NAN, NAN]], [[0, 0], [0, 0], [0, 0]])
    found = cases([[1, 0], [0, 3], [5, 5]], [[0, 2], [NAN, NAN], [0, 0]])
    return evaluate(found, truth, "native/mm", method=method, info={"seed": 7})


# --- protocols ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "section", "first", "last", "count"),
    [
        ("isbi2015/mean", "test1", "151", "300", 150),
        ("isbi2015/senior/training", "training", "001", "150", 150),
        ("isbi2015/junior/test2", "test2", "301", "400", 100),
        ("isbi2015/senior/scn", "test1+test2", "151", "400", 250),
    ],
)
def test_isbi_protocols_name_their_films(name: str, section: str, first: str, last: str, count: int) -> None:
    protocol = get_protocol(name)
    assert protocol.name == name
    assert protocol.section == section
    assert protocol.cases is not None
    assert (protocol.cases[0], protocol.cases[-1], len(protocol.cases)) == (first, last, count)
    assert protocol.landmark_names == ISBI2015_LANDMARKS
    assert protocol.thresholds == (2.0, 2.5, 3.0, 4.0)
    assert protocol.pixel_size == 0.1


def test_scn_counts_ties_as_outliers() -> None:
    scn, mean = get_protocol("isbi2015/senior/scn"), get_protocol("isbi2015/mean")
    assert (scn.comparator, scn.outlier_comparator) == ("<", ">=")
    assert (mean.comparator, mean.outlier_comparator) == ("<=", ">")


def test_section_argument_and_alias() -> None:
    assert get_protocol("isbi2015/mean", "training") is get_protocol("isbi2015/mean/training")
    assert get_protocol("isbi2015/mean", "test1") is get_protocol("isbi2015/mean")


def test_all_listed_protocols_are_found() -> None:
    assert {"isbi2015/mean", "isbi2015/senior", "isbi2015/junior", "native/mm"} <= set(list_protocols())
    for name in list_protocols():
        assert get_protocol(name).name == name
        json.dumps(get_protocol(name).to_dict(), allow_nan=False)


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'isbi2015/senior'.*Known: "):
        get_protocol("isbi2015/senoir")


def test_a_ready_protocol_is_handed_through_unless_the_section_differs() -> None:
    assert get_protocol(NATIVE_MM) is NATIVE_MM
    with pytest.raises(ValueError, match="section 'any', not 'test2'"):
        get_protocol(NATIVE_MM, "test2")


def test_a_phantom_folder_gives_the_phantom_protocol(tmp_path: Path) -> None:
    assert get_protocol("isbi2015/mean", dataset_dir=tmp_path).name == "isbi2015/mean"
    (tmp_path / "PHANTOM.txt").write_text("phantom")
    protocol = get_protocol("isbi2015/mean", "training", dataset_dir=tmp_path)
    assert protocol.is_phantom
    assert "PHANTOM" in str(protocol)
    assert get_protocol(protocol, dataset_dir=tmp_path) is protocol
    assert get_protocol("native/mm", dataset_dir=tmp_path).is_phantom
    with pytest.raises(ValueError, match="no phantom counterpart"):
        get_protocol("native/mm/inside", dataset_dir=tmp_path)


def test_protocols_are_frozen_and_a_changed_one_needs_a_name() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        NATIVE_MM.comparator = "<"  # type: ignore[misc]
    with pytest.raises(ValueError, match="another name"):
        NATIVE_MM.replace("native/mm", comparator="<")
    assert NATIVE_MM.replace("native/strict", comparator="<").comparator == "<"


def test_registering_twice_is_fine_and_stealing_a_name_is_not() -> None:
    assert register_protocol(NATIVE_MM) is NATIVE_MM
    with pytest.raises(ValueError, match="belongs to another protocol"):
        register_protocol(Protocol(name="native/mm", dataset="another"))


@pytest.mark.parametrize(
    "changes",
    [{"comparator": ">"}, {"outlier_comparator": "<"}, {"thresholds": (0.0,)}, {"landmark_names": ("a", "a")}],
)
def test_wrong_protocols_fail_in_the_constructor(changes: dict) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Protocol(name="x", dataset="x", **changes)


def test_differences_are_named() -> None:
    mean = get_protocol("isbi2015/mean")
    assert mean.differences(mean) == []
    found = " ".join(mean.differences(get_protocol("isbi2015/senior/scn")))
    assert all(word in found for word in ("annotator", "section", "comparator", "outlier_comparator"))
    assert mean.differences(mean.replace("other", notes=("a remark",))) == []
    assert mean.differences(mean.replace("other", cases=mean.cases[:5])) == ["cases: the two lists differ"]  # type: ignore[index]


# --- evaluate -------------------------------------------------------------------------------------------------------


def test_evaluate_on_a_case_that_fits_in_the_head() -> None:
    result = example()
    np.testing.assert_array_equal(result.errors, [[1, 3, NAN], [2, INF, 0]])
    assert result.cases == ("00", "01")
    assert result.names == ("0", "1", "2")
    assert result.summary.mean == 1.5
    assert (result.summary.num_evaluated, result.summary.num_missed, result.summary.num_missing) == (5, 1, 1)
    assert result.detection == pytest.approx({1.0: 40.0, 2.0: 60.0, 3.0: 80.0, 4.0: 80.0})
    assert result.outliers == pytest.approx({1.0: 60.0, 2.0: 40.0, 3.0: 20.0, 4.0: 20.0})
    assert result.landmark_detection[0].tolist() == [50.0, 0.0, 100.0]
    assert result.interval.low <= 1.5 <= result.interval.high
    assert not result.errors.flags.writeable


def test_landmarks_are_matched_by_name() -> None:
    truth = {"a": Landmarks([[0, 0], [10, 0], [20, 0]], NAMES)}
    found = {"a": Landmarks([[20, 1], [0, 2], [10, 3]], ("apex", "tip", "base"))}
    result = evaluate(found, truth, "native/mm")
    assert result.names == NAMES
    assert result.errors.tolist() == [[2, 3, 1]]
    mixed = evaluate({"a": torch.tensor([[0.0, 2], [10, 3], [20, 1]])}, truth, "native/mm")
    assert mixed.errors.tolist() == [[2, 3, 1]]


def test_the_order_of_the_dictionaries_does_not_matter() -> None:
    truth, found = cases([[0, 0]], [[9, 9]]), cases([[1, 0]], [[9, 9]])
    swapped = dict(reversed(found.items()))
    assert evaluate(swapped, truth, "native/mm").errors.tolist() == evaluate(found, truth, "native/mm").errors.tolist()


@pytest.mark.parametrize(
    ("found", "truth", "words"),
    [
        ({}, {"a": np.zeros((1, 2))}, "1 without prediction: 'a'"),
        ({"a": np.zeros((1, 2)), "b": np.zeros((1, 2))}, {"a": np.zeros((1, 2))}, "1 without truth: 'b'"),
        ({"1": np.zeros((1, 2))}, {"001": np.zeros((1, 2))}, "leading zeros"),
        ({}, {}, "no case"),
        ({"a": np.zeros((2, 2))}, {"a": np.zeros((3, 2))}, r"\(2, 2\), the truth \(3, 2\)"),
        ({"a": np.zeros((3, 3))}, {"a": np.zeros((3, 2))}, "case 'a'"),
        ({"a": np.zeros(4)}, {"a": np.zeros(4)}, r"\(N, D\)"),
        (
            {"a": Landmarks([[0, 0]], ["tpi"])},
            {"a": Landmarks([[0, 0]], ["tip"])},
            "case 'a', prediction.*did you mean 'tpi'",
        ),
        (
            {"a": np.zeros((1, 2)), "b": np.zeros((2, 2))},
            {"a": np.zeros((1, 2)), "b": np.zeros((2, 2))},
            "differ in their points",
        ),
    ],
)
def test_what_does_not_match_is_named(found: dict, truth: dict, words: str) -> None:
    with pytest.raises(LandmarkError, match=words):
        evaluate(found, truth, "native/mm")


def test_films_of_another_section_are_refused() -> None:
    points = {"301": np.zeros((19, 2))}
    with pytest.raises(LandmarkError, match=r"'301'.*'151' to '300'"):
        evaluate(points, points, "isbi2015/mean")


def test_part_of_a_section_is_allowed_and_said() -> None:
    points = {"151": np.zeros((19, 2)), "152": np.zeros((19, 2))}
    result = evaluate(points, points, "isbi2015/mean")
    assert result.complete is False
    assert result.coverage == "2 of 150 cases (PARTIAL)"
    assert "PARTIAL" in result.table()
    assert evaluate(points, points, "native/mm").complete is None


def test_wrong_number_of_landmarks_for_the_protocol() -> None:
    with pytest.raises(LandmarkError, match=r"must have shape \(19, D\), got \(18, 2\)"):
        evaluate({"151": np.zeros((18, 2))}, {"151": np.zeros((18, 2))}, "isbi2015/mean")


def test_a_repeated_case_is_refused() -> None:
    """As a distributed sampler that evens out the processes would give it."""
    with pytest.raises(LandmarkError, match="even_divisible=False"):
        EvaluationResult.from_errors([[1.0], [1.0]], ["a", "a"], NATIVE_MM, ["tip"])


def test_a_table_must_fit_its_names() -> None:
    with pytest.raises(LandmarkError, match="1 cases and 2 landmarks"):
        EvaluationResult.from_errors([[1.0], [1.0]], ["a"], NATIVE_MM, ["tip", "base"])


def test_nothing_evaluated_is_not_a_perfect_result() -> None:
    truth = {"a": np.full((2, 2), NAN)}
    result = evaluate({"a": np.zeros((2, 2))}, truth, "native/mm")
    assert math.isnan(result.summary.mean)
    assert math.isnan(result.detection[1.0])
    assert "n/a" in result.table()
    assert result.to_dict()["detection"]["percent"]["1"] is None
    json.dumps(result.to_dict(), allow_nan=False)


# --- result ---------------------------------------------------------------------------------------------------------


def test_everything_is_written_beside_the_protocol(tmp_path: Path) -> None:
    result = example()
    paths = result.save(tmp_path / "new")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(p.name for p in paths)
    content = json.loads(paths[0].read_text())
    assert content["protocol"]["name"] == "native/mm"
    assert content["radial_error_mm"]["mean"] == 1.5
    assert content["num_missed"] == 1
    assert content["num_missing"] == 1
    assert content["num_evaluated"] == 5
    assert content["detection"] == {"comparator": "<=", "percent": {"1": 40.0, "2": 60.0, "3": 80.0, "4": 80.0}}
    assert content["outliers"]["comparator"] == ">"
    assert content["info"] == {"seed": 7}
    assert content["phantom"] is False
    rows = list(csv.reader(paths[1].open()))
    assert rows == [["case", "0", "1", "2", "mean"], ["00", "1", "3", "", "2"], ["01", "2", "inf", "0", "1"]]
    table = list(csv.DictReader(paths[2].open()))
    assert [row["protocol"] for row in table] == ["native/mm"] * 3
    assert [row["missed"] for row in table] == ["0", "1", "0"]
    assert table[0]["within_1_mm_percent"] == "50"
    assert paths[3].read_text().startswith("protocol native/mm")


def test_the_phantom_says_so() -> None:
    points = {"1": np.zeros((19, 2))}
    result = evaluate(points, points, "phantom/cephalogram")
    assert "PHANTOM" in result.table().splitlines()[0]
    assert result.to_dict()["phantom"] is True


def test_error_table_file_keeps_the_names(tmp_path: Path) -> None:
    write_radial_errors(tmp_path / "e.csv", ["x, y"], ["a,b"], [[NAN]])
    assert list(csv.reader((tmp_path / "e.csv").open())) == [["case", "a,b", "mean"], ["x, y", "", ""]]


def test_compare_lists_methods_under_one_protocol() -> None:
    text = compare([example("first"), example("second")])
    assert text.splitlines()[0].startswith("protocol native/mm")
    assert [line.split()[0] for line in text.splitlines()[2:]] == ["first", "second"]


def test_compare_refuses_what_cannot_be_compared() -> None:
    points = {"151": np.zeros((19, 2))}
    mean, senior = (evaluate(points, points, f"isbi2015/{reader}", method=reader) for reader in ("mean", "senior"))
    with pytest.raises(LandmarkError, match=r"'mean' .* and 'senior' .*annotator"):
        compare([mean, senior])
    other = evaluate({"152": np.zeros((19, 2))}, {"152": np.zeros((19, 2))}, "isbi2015/mean")
    with pytest.raises(LandmarkError, match="cases: 2 are in one of the two only"):
        compare([mean, other])
    with pytest.raises(LandmarkError, match="nothing to compare"):
        compare([])


# --- landmarks outside the image ------------------------------------------------------------------------------------


def film(status: list[str], names: tuple[str, ...] = NAMES) -> Landmarks:
    return Landmarks([[0, 0], [10, 0], [20, 0]], names, status)


def outside_example(method: str = "") -> EvaluationResult:
    """Two cases: apex outside in the first; in the second base missing and tip, inside, not predicted."""
    second = Landmarks([[0, 0], [NAN, NAN], [20, 0]], NAMES, ["defined", "missing", "defined"])
    truth = {"a": film(["defined", "defined", "outside"]), "b": second}
    found = {"a": np.array([[0, 1], [10, 3], [0, 0]]), "b": np.array([[NAN, NAN], [1, 1], [20, 2]])}
    return evaluate(found, truth, "native/mm/inside", method=method)


def test_published_protocols_score_landmarks_outside() -> None:
    """Only the one that says so in its name leaves them out, and it differs from native/mm in nothing else."""
    assert [name for name in list_protocols() if get_protocol(name).outside != "score"] == ["native/mm/inside"]
    differences = NATIVE_MM.differences(get_protocol("native/mm/inside"))
    assert [text.split(":")[0] for text in differences] == ["outside", "exclusions"]
    truth = {"a": film(["defined", "defined", "outside"])}
    result = evaluate({"a": np.zeros((3, 2))}, truth, "native/mm")
    assert result.errors.tolist() == [[0, 10, 20]]
    assert result.summary.num_outside == 0
    with pytest.raises(ValueError, match="leave_out"):
        Protocol(name="x", dataset="x", outside="drop")


def test_landmarks_outside_are_left_out_and_counted() -> None:
    result = outside_example()
    np.testing.assert_array_equal(result.errors, [[1, 3, NAN], [INF, NAN, 2]])
    assert result.outside.tolist() == [[False, False, True], [False] * 3]
    s = result.summary
    assert (s.num_evaluated, s.num_missed, s.num_outside, s.num_missing) == (4, 1, 1, 1)
    assert s.mean == 2.0
    assert result.detection[2.0] == 50.0  # 1 and 2 of 1, 3, 2 and a miss
    assert not result.outside.flags.writeable


def test_what_was_left_out_is_reported_everywhere(tmp_path: Path) -> None:
    result = outside_example("mine")
    sentence = "1 of 5 landmarks lie outside the field of view: not scored"
    assert sentence in result.coverage
    assert sentence in compare([result])
    paths = result.save(tmp_path)
    content = json.loads(paths[0].read_text())
    assert content["num_outside"] == 1
    assert content["outside"] == {"a": ["apex"]}
    assert content["radial_error_mm"]["landmark_outside"] == [0, 0, 1]
    assert content["protocol"]["outside"] == "leave_out"
    assert [row[-1] for row in csv.reader(paths[1].open())] == ["mean", "2", "2"]
    assert [row["outside"] for row in csv.DictReader(paths[2].open())] == ["0", "0", "1"]
    text = paths[3].read_text()
    assert sentence in text
    assert text.splitlines()[-1].split()[-3:] == ["1", "0", "1"]  # apex: evaluated, missed, outside
    plain = example().table()
    assert "outside" not in plain


def test_landmarks_outside_are_matched_by_name() -> None:
    truth = {"a": film(["outside", "defined", "defined"]), "b": film(["defined", "defined", "outside"], NAMES[::-1])}
    result = evaluate({case: np.zeros((3, 2)) for case in truth}, truth, "native/mm/inside")
    assert result.names == NAMES
    assert result.outside.tolist() == [[True, False, False]] * 2


def test_the_whole_way_from_an_image() -> None:
    truth = {"a": film(["defined"] * 3).seen_in(np.eye(3), (15, 5))}
    result = evaluate({"a": np.zeros((3, 2))}, truth, "native/mm/inside")
    assert result.errors.tolist()[0][:2] == [0, 10]
    assert result.summary.num_outside == 1


def test_arrays_cannot_say_what_is_outside() -> None:
    points = {"a": np.zeros((3, 2))}
    with pytest.raises(LandmarkError, match=r"truth of 1 cases is an array.*seen_in"):
        evaluate(points, points, "native/mm/inside")


def test_numbers_and_protocol_must_agree_on_what_is_left_out() -> None:
    errors, names = [[1.0, NAN]], ["tip", "base"]
    left_out = [[False, True]]
    inside = get_protocol("native/mm/inside")
    assert EvaluationResult.from_errors(errors, ["a"], inside, names, outside=left_out).summary.num_outside == 1
    with pytest.raises(LandmarkError, match=r"1 landmarks outside the image were left out.*'native/mm' scores"):
        EvaluationResult.from_errors(errors, ["a"], NATIVE_MM, names, outside=left_out)
    with pytest.raises(LandmarkError, match="nobody says which"):
        EvaluationResult.from_errors(errors, ["a"], inside, names)
    with pytest.raises(LandmarkError, match="has an error in the table"):
        EvaluationResult.from_errors([[1.0, 2.0]], ["a"], inside, names, outside=left_out)
    assert EvaluationResult.from_errors(errors, ["a"], NATIVE_MM, names, outside=[[False] * 2]).summary.num_missing == 1


def test_methods_that_left_out_other_landmarks_cannot_be_compared() -> None:
    inside = get_protocol("native/mm/inside")
    two = [
        EvaluationResult.from_errors(
            [[NAN if out else 1.0 for out in row]], ["a"], inside, ["tip", "base"], outside=[row]
        )
        for row in ([False, True], [True, False])
    ]
    with pytest.raises(LandmarkError, match="left out as outside the field of view: not the same"):
        compare(two)
