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
"""Error tables, rates and reductions against slow, obvious NumPy loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.metrics import (
    image_level_errors,
    outlier_rate,
    radial_errors,
    reduce_radial_errors,
    successful_detection_rate,
)
from monai_landmarks.metrics.functional import outside_truths

NAN, INF = float("nan"), float("inf")


def slow_errors(pred: np.ndarray, true: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Loop over everything; the definition in words."""
    table = np.empty(pred.shape[:2])
    for b in range(pred.shape[0]):
        for n in range(pred.shape[1]):
            if np.isnan(true[b, n]).any():
                table[b, n] = NAN
            elif not np.isfinite(pred[b, n]).all():
                table[b, n] = INF
            else:
                axes = zip(pred[b, n], true[b, n], spacing[b], strict=True)
                table[b, n] = math.sqrt(sum(((p - t) * s) ** 2 for p, t, s in axes))
    return table


def slow_rate(table: np.ndarray, threshold: float, comparator: str) -> float:
    compare = {"<=": float.__le__, "<": float.__lt__, ">": float.__gt__, ">=": float.__ge__}[comparator]
    evaluated = [float(e) for e in table.ravel() if not math.isnan(e)]
    return 100.0 * sum(compare(e, threshold) for e in evaluated) / len(evaluated) if evaluated else NAN


def random_case(seed: int, dims: int, batch: int = 5, landmarks: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = rng.uniform(0, 20, (batch, landmarks, dims))
    pred = true + rng.normal(0, 2, true.shape)
    true[rng.random((batch, landmarks)) < 0.2] = NAN
    pred[rng.random((batch, landmarks)) < 0.2] = NAN
    return pred, true


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("spacing", ["none", "number", "D", "BD"])
def test_radial_errors_equal_the_loop(dims: int, spacing: str) -> None:
    pred, true = random_case(3, dims)
    given_spacing = {
        "none": None,
        "number": 0.5,
        "D": np.linspace(0.3, 1.1, dims),
        "BD": np.random.default_rng(0).uniform(0.2, 2, (5, dims)),
    }[spacing]
    full = np.broadcast_to(1.0 if given_spacing is None else given_spacing, (5, dims))
    result = radial_errors(pred, true, given_spacing)
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result.numpy(), slow_errors(pred, true, full), rtol=1e-12)


def test_radial_errors_of_the_simplest_triangle() -> None:
    assert radial_errors([[[3.0, 4.0]]], [[[0.0, 0.0]]]).item() == 5.0


@pytest.mark.parametrize(
    ("pred", "true", "expected"),
    [
        ([1.0, 1.0], [NAN, NAN], NAN),  # truth missing: not evaluated
        ([NAN, NAN], [NAN, NAN], NAN),  # neither: not evaluated
        ([NAN, NAN], [1.0, 1.0], INF),  # not found: a miss
        ([NAN, 1.0], [1.0, 1.0], INF),  # half a position is no position
        ([INF, 1.0], [1.0, 1.0], INF),  # a decoder that ran away found nothing
        ([1.0, 1.0], [1.0, 1.0], 0.0),
    ],
)
def test_missing_and_missed(pred: list, true: list, expected: float) -> None:
    assert radial_errors([[pred]], [[true]]).item() == pytest.approx(expected, nan_ok=True)


def test_meta_tensors_lists_of_tensors_and_half_precision_give_the_same() -> None:
    pred, true = torch.tensor([[[3.0, 4.0]]]), torch.zeros(1, 1, 2)
    for p, t in [(MetaTensor(pred), MetaTensor(true)), ([pred[0]], [true[0]]), (pred.half(), true.half())]:
        result = radial_errors(p, t)
        assert type(result) is torch.Tensor
        assert result.item() == 5.0


def test_plain_lists_are_not_rounded_to_float32() -> None:
    assert radial_errors([[[0.1, 0.0]]], [[[0.3, 0.0]]]).item() == 0.3 - 0.1


def test_gradients_are_not_kept() -> None:
    assert not radial_errors(torch.zeros(1, 1, 2, requires_grad=True), torch.ones(1, 1, 2)).requires_grad


@pytest.mark.parametrize(
    ("pred", "true", "spacing", "words"),
    [
        ((2, 19, 2), (2, 37, 2), None, "19 landmarks are predicted and 37 are true"),
        ((19, 2), (1, 19, 2), None, "lacks the batch axis"),
        ((2, 19, 2), (3, 19, 2), None, "numbers of images differ"),
        ((1, 19, 2), (1, 2, 19), None, "exchanged"),
        ((1, 19, 2), (1, 19, 3), None, "dimension"),
        ((1, 2, 19), (1, 2, 19), None, "transpose"),  # both exchanged: the truth is checked by the coordinate law
        ((1, 4, 2), (1, 4, 2), [1.0, 1.0, 1.0], "spacing"),
        ((1, 4, 2), (1, 4, 2), 0.0, "positive"),
        ((1, 4, 2), (1, 4, 2), [1.0, -1.0], "positive"),
        ((3, 4, 2), (3, 4, 2), [[1.0, 1.0], [1.0, 1.0]], "spacing"),
    ],
)
def test_wrong_shapes_are_explained(pred: tuple, true: tuple, spacing: object, words: str) -> None:
    with pytest.raises(LandmarkError, match=words):
        radial_errors(np.zeros(pred), np.zeros(true), spacing)


@pytest.mark.parametrize("bad", [[NAN, 1.0], [INF, 1.0]])
def test_truth_must_be_wholly_there_or_wholly_missing(bad: list) -> None:
    with pytest.raises(LandmarkError, match="true"):
        radial_errors([[[1.0, 1.0]]], [[bad]])


@pytest.mark.parametrize("comparator", ["<=", "<"])
def test_detection_rate_equals_the_loop(comparator: str) -> None:
    table = radial_errors(*random_case(1, 3)).numpy()
    thresholds = (1.0, 2.0, 2.5, 4.0)
    result = successful_detection_rate(table, thresholds, comparator).tolist()
    assert result == pytest.approx([slow_rate(table, t, comparator) for t in thresholds])
    single = successful_detection_rate(table, 2.0, comparator)
    assert single.ndim == 0
    assert single.item() == pytest.approx(result[1])


@pytest.mark.parametrize("comparator", [">", ">="])
def test_outlier_rate_equals_the_loop(comparator: str) -> None:
    table = radial_errors(*random_case(2, 2)).numpy()
    result = outlier_rate(table, (1.0, 3.0), comparator).tolist()
    assert result == pytest.approx([slow_rate(table, t, comparator) for t in (1.0, 3.0)])


@pytest.mark.parametrize("function", [successful_detection_rate, outlier_rate])
def test_rates_per_landmark(function: object) -> None:
    table = radial_errors(*random_case(4, 2)).numpy()
    table[:, 3] = NAN
    result = function(table, (1.0, 3.0), per_landmark=True)  # type: ignore[operator]
    comparator = "<=" if function is successful_detection_rate else ">"
    assert result.shape == (2, 7)
    for row, threshold in zip(result, (1.0, 3.0), strict=True):
        expected = [slow_rate(table[:, n], threshold, comparator) for n in range(7)]
        assert row.tolist() == pytest.approx(expected, nan_ok=True)
    assert function(table, 1.0, per_landmark=True).shape == (7,)  # type: ignore[operator]


def test_sdr_of_a_missing_truth_counts_nowhere() -> None:
    """Regression for a peer's `sdr(nanmean=True)`: one found landmark and one without truth are 100 %, not 50 %."""
    assert successful_detection_rate([[0.5, NAN]], 2.0).item() == 100.0


def test_sdr_of_a_miss_is_a_failure_and_an_outlier() -> None:
    assert successful_detection_rate([[0.5, INF]], 2.0).item() == 50.0
    assert outlier_rate([[0.5, INF]], 2.0).item() == 50.0


@pytest.mark.parametrize("reduction", ["micro", "macro", "median", "std"])
def test_all_missing_is_nan_and_never_zero(reduction: str) -> None:
    """MONAI's do_metric_reduction gives 0.0 here, a perfect score."""
    assert math.isnan(reduce_radial_errors([[NAN, NAN]], reduction).item())
    assert math.isnan(successful_detection_rate([[NAN, NAN]], 2.0).item())
    assert math.isnan(outlier_rate([[NAN, NAN]], 2.0).item())
    assert math.isnan(image_level_errors([[NAN, NAN]]).item())


@pytest.mark.parametrize("reduction", ["micro", "macro", "median", "std"])
def test_no_images_at_all_is_nan(reduction: str) -> None:
    assert math.isnan(reduce_radial_errors(np.zeros((0, 4)), reduction).item())


# name, a distance of exactly 20 pixels of 0.1 mm, written in the ways a program may arrive at it
TIES = {
    "exact": 2.0,
    "product": math.hypot(12, 16) * 0.1,
    "sum": math.hypot(0.1 * 112 - 0.1 * 100, 0.1 * 116 - 0.1 * 100),
    "float32": float(np.linalg.norm(np.float32([241.2, 100.1]) - np.float32([240.0, 98.5]))),
}


@pytest.mark.parametrize("tie", TIES)
def test_ties_survive_rounding_on_both_sides(tie: str) -> None:
    table = [[TIES[tie], 1.0, 3.0, NAN]]
    assert successful_detection_rate(table, 2.0, "<=").item() == pytest.approx(200 / 3)
    assert successful_detection_rate(table, 2.0, "<").item() == pytest.approx(100 / 3)
    assert outlier_rate(table, 2.0, ">").item() == pytest.approx(100 / 3)
    assert outlier_rate(table, 2.0, ">=").item() == pytest.approx(200 / 3)


def test_the_nearest_distance_of_a_pixel_lattice_is_no_tie() -> None:
    """Half-pixel means: the distance next to 20 px is sqrt(400.25) px."""
    assert successful_detection_rate([[math.sqrt(400.25) * 0.1]], 2.0, "<=").item() == 0.0
    assert successful_detection_rate([[math.sqrt(399.75) * 0.1]], 2.0, "<").item() == 100.0


def test_tolerance_zero_is_bare_comparison() -> None:
    above = np.nextafter(2.0, 3.0)
    assert successful_detection_rate([[above]], 2.0).item() == 100.0
    assert successful_detection_rate([[above]], 2.0, tolerance=0.0).item() == 0.0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.floats(0, 10), st.just(NAN), st.just(INF), st.just(2.0)), min_size=1, max_size=12),
    st.floats(0.1, 8),
)
def test_detected_and_outlying_add_up(errors: list, threshold: float) -> None:
    for inside, outside in (("<=", ">"), ("<", ">=")):
        total = successful_detection_rate([errors], threshold, inside) + outlier_rate([errors], threshold, outside)
        assert total.item() == pytest.approx(NAN if all(map(math.isnan, errors)) else 100.0, nan_ok=True)


@pytest.mark.parametrize("function", [successful_detection_rate, outlier_rate])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"thresholds": 0.0}, "positive"),
        ({"thresholds": (2.0, -1.0)}, "positive"),
        ({"thresholds": ()}, "none"),
        ({"thresholds": NAN}, "positive"),
        ({"thresholds": 2.0, "comparator": "=="}, "=="),
        ({"thresholds": 2.0, "tolerance": -1.0}, "tolerance"),
    ],
)
def test_wrong_rate_arguments(function: object, arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        function([[1.0]], **arguments)  # type: ignore[operator]


def test_negative_distances_are_refused() -> None:
    with pytest.raises(LandmarkError, match="negative distance -1"):
        successful_detection_rate([[1.0, -1.0]], 2.0)


def test_reductions_equal_numpy() -> None:
    table = radial_errors(*random_case(7, 3, batch=6)).numpy()
    finite = np.where(np.isfinite(table), table, NAN)
    assert reduce_radial_errors(table, "micro").item() == pytest.approx(np.nanmean(finite))
    assert reduce_radial_errors(table, "macro").item() == pytest.approx(np.nanmean(np.nanmean(finite, axis=1)))
    assert reduce_radial_errors(table, "median").item() == pytest.approx(np.nanmedian(finite))
    assert reduce_radial_errors(table, "std").item() == pytest.approx(np.nanstd(finite, ddof=0))
    np.testing.assert_allclose(reduce_radial_errors(table, "per_landmark"), np.nanmean(finite, axis=0))
    np.testing.assert_array_equal(reduce_radial_errors(table, "none"), table)
    np.testing.assert_allclose(image_level_errors(table), np.nanmean(finite, axis=1))


def test_micro_and_macro_differ_where_images_differ_in_size() -> None:
    table = [[1.0, 2.0, 3.0], [4.0, NAN, NAN]]
    assert reduce_radial_errors(table, "micro").item() == 2.5
    assert reduce_radial_errors(table, "macro").item() == 3.0


def test_image_level_error_divides_by_the_landmarks_present() -> None:
    """SCN's program divides by all N: it would give 2.0 here."""
    assert image_level_errors([[2.0, 4.0, NAN]]).item() == 3.0


def test_missed_error_stands_for_misses_only() -> None:
    assert reduce_radial_errors([[1.0, INF, NAN]], missed_error=9.0).item() == 5.0


def test_unknown_reduction_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="macro"):
        reduce_radial_errors([[1.0]], "macr")


# --- landmarks outside the image ------------------------------------------------------------------------------------

STATE = [[2, 1, 0, 1]]
TRUE_POINTS = [[[0.0, 0.0], [9.0, 0.0], [NAN, NAN], [9.0, 9.0]]]
FOUND_POINTS = [[[3.0, 4.0], [1.0, 1.0], [1.0, 1.0], [NAN, NAN]]]


def test_landmarks_outside_are_left_out_on_request_only() -> None:
    everything = radial_errors(FOUND_POINTS, TRUE_POINTS)
    torch.testing.assert_close(
        everything, torch.tensor([[5.0, math.sqrt(65), NAN, math.inf]], dtype=torch.float64), equal_nan=True
    )
    inside = radial_errors(FOUND_POINTS, TRUE_POINTS, state=STATE)
    torch.testing.assert_close(inside, torch.tensor([[5.0, NAN, NAN, NAN]], dtype=torch.float64), equal_nan=True)
    assert outside_truths(TRUE_POINTS, STATE).tolist() == [[False, True, False, True]]
    assert successful_detection_rate(inside, 6.0).item() == 100.0
    assert successful_detection_rate(everything, 6.0).item() == pytest.approx(100 / 3)


def test_a_miss_inside_stays_a_miss() -> None:
    table = radial_errors([[[NAN, NAN], [1.0, 0.0]]], [[[1.0, 1.0], [9.0, 0.0]]], state=[[2, 1]])
    assert table[0, 0].item() == math.inf
    assert math.isnan(table[0, 1].item())


@pytest.mark.parametrize("state", [[[2, 1, 1, 1]], [[2, 1, 0]], [[True, True, False, True]], [[2, 1, 0, 3]]])
def test_a_state_that_is_not_of_these_points_is_refused(state) -> None:
    with pytest.raises(LandmarkError, match="`state`"):
        radial_errors(FOUND_POINTS, TRUE_POINTS, state=state)
