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

import copy
import pickle

import numpy as np
import pytest
import torch

from monai_landmarks.data import Landmarks
from monai_landmarks.geometry import LandmarkError, apply_affine

NAN = float("nan")
NAMES = ["sella", "nasion", "menton"]


def three(**changes: object) -> Landmarks:
    values: dict[str, object] = {"points": [[1.0, 2.0], [NAN, NAN], [5.0, 6.0]], "names": NAMES}
    return Landmarks(**{**values, **changes})  # type: ignore[arg-type]


def test_defaults() -> None:
    marks = three()
    assert marks.names == ("sella", "nasion", "menton")
    assert marks.status == ("defined", "missing", "defined")
    assert marks.present.tolist() == [True, False, True]
    assert (marks.num_landmarks, len(marks), marks.spatial_dims) == (3, 3, 2)
    assert marks.confidence is None
    assert marks.points.dtype == np.float64


def test_arrays_are_read_only_copies() -> None:
    source = np.zeros((1, 3))
    scores = np.ones(1)
    marks = Landmarks(source, ["a"], confidence=scores)
    source += 7
    scores += 7
    assert marks.points.tolist() == [[0.0, 0.0, 0.0]]
    assert marks.confidence is not None
    assert marks.confidence.tolist() == [1.0]
    for array in (marks.points, marks.confidence):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 3
    with pytest.raises(AttributeError):
        marks.names = ("b",)  # type: ignore[misc]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_equal_and_read_only(duplicate) -> None:
    marks = three(confidence=[0.5, NAN, 0.7], status=["preview", "undefined", "defined"])
    other = duplicate(marks)
    assert other == marks
    assert not other.points.flags.writeable


@pytest.mark.parametrize(
    "points",
    [torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True), [[1, 2, 3]]],
)
def test_accepts_tensors_and_integers(points: object) -> None:
    assert Landmarks(points, ["a"]).points.tolist() == [[1.0, 2.0, 3.0]]  # type: ignore[arg-type]


def test_equality_treats_nan_as_equal_and_sees_every_field() -> None:
    marks = three(confidence=[0.5, NAN, 0.7])
    assert marks == three(confidence=[0.5, NAN, 0.7])
    assert hash(marks) == hash(three(confidence=[0.5, NAN, 0.7]))
    for other in (
        three(),
        three(confidence=[0.5, 0.1, 0.7]),
        three(confidence=[0.5, NAN, 0.7], names=["sella", "nasion", "gnathion"]),
        three(confidence=[0.5, NAN, 0.7], status=["preview", "missing", "defined"]),
        three(confidence=[0.5, NAN, 0.7], points=[[1.0, 2.5], [NAN, NAN], [5.0, 6.0]]),
        "something else",
    ):
        assert marks != other


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"names": ["a", "b"]}, r"3 points for 2 names: there are more points than names"),
        ({"names": ["a", "b", "c", "d"]}, r"3 points for 4 names: there are more names than points"),
        ({"names": ["a", "b", "a"]}, r"'a' at places 1, 3"),
        ({"names": "abc"}, "sequence of texts"),
        ({"names": ["a", "b", 3]}, "name 3 is 3 of type int"),
        ({"names": ["a", "b", ""]}, "non-empty text"),
        ({"names": ["a", "b\n", "c"]}, "without line breaks"),
        ({"names": ["a", " b", "c"]}, "surrounding space"),
        ({"points": [[1.0, 2.0], [NAN, 3.0], [5.0, 6.0]]}, "'nasion' has some but not all coordinates missing"),
        ({"points": [[1.0, 2.0], [np.inf, 3.0], [5.0, 6.0]]}, "'nasion' has an infinite coordinate"),
        ({"points": np.zeros((2, 3)).T[:, :2].T}, r"2 points for 3 names"),
        ({"points": np.zeros((3, 4))}, r"shape \(N, D\) with D = 2 or 3, got \(3, 4\)"),
        ({"points": np.zeros((2, 19))}, r"points\.T"),
        ({"points": np.zeros((1, 3, 2))}, r"points\[0\]"),
        ({"points": [["a", "b"]] * 3}, "must be numbers"),
        ({"points": np.zeros((0, 2)), "names": []}, "no landmarks"),
        ({"status": ["defined", "defined", "defined"]}, "'nasion' has status 'defined' and no position"),
        ({"status": ["missing", "missing", "defined"]}, "'sella' has status 'missing' and a position"),
        ({"status": ["defned", "missing", "defined"]}, "did you mean 'defined'"),
        ({"status": ["defined", "missing"]}, "one word per landmark, 3 in all"),
        ({"status": "defined"}, "one word per landmark"),
        ({"confidence": [1.0, 2.0]}, r"shape \(3,\)"),
        ({"confidence": [1.0, np.inf, 2.0]}, "'nasion' is infinite"),
    ],
)
def test_constructor_teaches(changes: dict[str, object], expected: str) -> None:
    with pytest.raises(LandmarkError, match=expected):
        three(**changes)


def test_reorder_is_by_name_and_takes_everything_along() -> None:
    marks = three(confidence=[0.1, 0.2, 0.3], status=["preview", "undefined", "defined"])
    moved = marks.reorder(["menton", "sella", "nasion"])
    assert moved.points[:2].tolist() == [[5.0, 6.0], [1.0, 2.0]]
    assert moved.status == ("defined", "preview", "undefined")
    assert moved.confidence is not None
    assert moved.confidence.tolist() == [0.3, 0.1, 0.2]
    assert moved.reorder(NAMES) == marks


def test_reorder_reports_all_faults_at_once() -> None:
    with pytest.raises(LandmarkError) as caught:
        three().reorder(["Sela", "menton", "porion"])
    text = str(caught.value)
    assert "'Sela' (did you mean 'sella'?)" in text
    assert "'porion'" in text
    assert "Here and not asked for: 'sella', 'nasion'" in text


def test_reorder_options() -> None:
    marks = three(confidence=[0.1, 0.2, 0.3]).reorder(["porion", "menton"], missing="nan", extra="drop")
    assert marks.status == ("missing", "defined")
    assert marks.confidence is not None
    assert np.isnan(marks.confidence[0])
    with pytest.raises(LandmarkError, match="not asked for"):
        three().reorder(["porion", "menton"], missing="nan")
    with pytest.raises(LandmarkError, match="'menton' at places 1, 2"):
        three().reorder(["menton", "menton"])
    with pytest.raises(ValueError, match="nann"):
        three().reorder(NAMES, missing="nann")


def test_replace() -> None:
    marks = three(status=["preview", "undefined", "defined"])
    moved = marks.replace(points=[[NAN, NAN], [3.0, 4.0], [5.0, 7.0]])
    assert moved.status == ("missing", "defined", "defined")
    kept = marks.replace(points=[[9.0, 9.0], [NAN, NAN], [NAN, NAN]])
    assert kept.status == ("preview", "undefined", "missing")
    assert marks.replace(names=["a", "b", "c"]).names == ("a", "b", "c")
    assert marks.replace(points=np.zeros((1, 3)), names=["a"]).status == ("defined",)
    with pytest.raises(LandmarkError, match="did you mean 'points'"):
        marks.replace(point=1)


def test_to_tensor_is_a_writable_copy() -> None:
    marks = three()
    tensor = marks.to_tensor()
    assert tensor.dtype == torch.float64
    assert marks.to_tensor(torch.float32).dtype == torch.float32
    tensor[0] = 99
    assert marks.points[0].tolist() == [1.0, 2.0]


# --- outside the image ----------------------------------------------------------------------------------------------


def test_a_landmark_outside_has_a_position() -> None:
    marks = three(status=["outside", "missing", "defined"])
    assert marks.outside.tolist() == [True, False, False]
    assert marks.present.tolist() == [True, False, True]
    assert three().outside.tolist() == [False] * 3
    assert marks.reorder(["menton", "sella", "nasion"]).status == ("defined", "outside", "missing")
    assert pickle.loads(pickle.dumps(marks)) == marks
    with pytest.raises(LandmarkError, match=r"'nasion' has status 'outside' and no position"):
        three(status=["outside", "outside", "defined"])


@pytest.mark.parametrize("dims", [2, 3])
def test_seen_in_an_image(dims: int) -> None:
    """On either side of the outer edge of the border voxels, through a turned and scaled affine."""
    size = (4, 6, 5)[:dims]
    affine = torch.eye(dims + 1, dtype=torch.float64)
    affine[:dims, :dims] = torch.eye(dims).roll(1, 0) * 0.5
    affine[:dims, dims] = torch.tensor([10.0, -20.0, 30.0])[:dims]
    index = torch.ones(5, dims, dtype=torch.float64)
    index[0, 0], index[1, 0], index[2, -1], index[3, -1] = -0.49, -0.51, size[-1] - 0.51, size[-1] - 0.49
    index[4] = NAN
    marks = Landmarks(
        apply_affine(index, affine), list("abcde"), ["preview", "preview", "outside", "defined", "undefined"], [0.5] * 5
    )
    seen = marks.seen_in(affine, size)
    assert seen.status == ("preview", "outside", "defined", "outside", "undefined")
    np.testing.assert_array_equal(seen.points, marks.points)
    assert seen.confidence is not None
    assert seen.confidence.tolist() == [0.5] * 5
    assert seen.seen_in(affine, (100,) * dims).status[1] == "outside"  # index -0.51 is outside every image
    with pytest.raises(LandmarkError, match=r"[23]D points|[23] coordinates"):
        marks.seen_in(affine, (100,) * (5 - dims))


def test_a_landmark_that_moved_is_no_longer_known_to_be_outside() -> None:
    marks = Landmarks([[9.0, 1.0], [9.0, 2.0], [9.0, 3.0]], NAMES, ["outside"] * 3)
    changed = marks.replace(points=[[9.0, 1.0], [1.0, 2.0], [NAN, NAN]])
    assert changed.status == ("outside", "defined", "missing")
