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
"""Error curves and boxes against closed forms."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from monai_landmarks.report import error_curve, figure_png, per_landmark_boxplot

NAN, INF = float("nan"), float("inf")


def drawn(ax, gid):
    return [line for line in ax.lines if line.get_gid() == gid]


def legend(figure):
    return [t.get_text() for t in figure.axes[0].get_legend().get_texts()]


def test_curve_is_the_empirical_distribution():
    table = np.array([[3.0, 1.0, NAN], [1.0, INF, 0.5]])
    line = error_curve(table, thresholds=(1.0, 2.0)).axes[0].lines[0]
    x, y = line.get_data()
    assert line.get_drawstyle() == "steps-post"
    np.testing.assert_allclose(x, [0, 0.5, 1, 1, 3, 5])
    np.testing.assert_allclose(y, [0, 20, 40, 60, 80, 80])


@pytest.mark.parametrize(("comparator", "rates"), [("<=", [50.0, 75.0]), ("<", [25.0, 75.0])])
def test_rates_at_the_thresholds_follow_the_comparator(comparator, rates):
    figure = error_curve([[0.5, 1.0, 1.5, INF]], (1.0, 2.0), comparator=comparator)
    (dots,) = drawn(figure.axes[0], "rates")
    assert list(dots.get_xdata()) == [1.0, 2.0]
    assert list(dots.get_ydata()) == rates
    assert [line.get_xdata()[0] for line in drawn(figure.axes[0], "threshold")] == [1.0, 2.0]
    assert legend(figure) == [f"{rates[0]:.1f} / {rates[1]:.1f} %"]


def test_curves_of_several_methods_are_told_apart():
    figure = error_curve({"SCN": [[1.0, 2.0]], "FARNet": [[3.0, 30.0]]}, (2.0,), stamp="isbi2015/mean")
    assert legend(figure) == ["SCN: 100.0 %", "FARNet: 0.0 %"]
    colours = [line.get_color() for line in figure.axes[0].lines if line.get_gid() is None]
    assert len(set(colours)) == 2
    foot = figure.texts[-1].get_text()
    assert "isbi2015/mean" in foot
    assert "FARNet: 1 of 2 errors beyond 5 mm" in foot


def test_misses_are_counted_below_the_curve():
    assert "1 of 3 not predicted" in error_curve([[1.0, 2.0, INF]]).texts[-1].get_text()


def test_boxes_are_the_quartiles_of_the_landmarks_found():
    rng = np.random.default_rng(0)
    table = rng.uniform(0, 5, size=(30, 3)) * [1, 3, 2]
    table[0, 1], table[1, 2] = INF, NAN
    figure = per_landmark_boxplot(table, ["a", "b", "c"], thresholds=(2.0,), stamp="p")
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["b (1 missed)", "c", "a"]
    for patch, column in zip(ax.patches, (1, 2, 0), strict=True):
        values = table[:, column][np.isfinite(table[:, column])]
        edges = patch.get_path().vertices[:, 0]
        np.testing.assert_allclose([edges.min(), edges.max()], np.percentile(values, [25, 75]))
    low, high = ax.get_ylim()
    assert low > high, "the first row is at the top"


def test_boxes_in_the_given_order_and_beyond_the_axis():
    table = np.r_[np.linspace(0.5, 1.5, 40), 500.0][:, None] * [1.0, 2.0]
    figure = per_landmark_boxplot(table, ["a", "b"], sort=False)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["a", "b"]
    assert figure.axes[0].get_xlim()[1] < 10
    assert "2 of 82 errors beyond" in figure.texts[-1].get_text()


@pytest.mark.parametrize("draw", [error_curve, per_landmark_boxplot])
def test_a_table_without_truth_is_refused(draw):
    with pytest.raises(ValueError, match="no error to draw"):
        draw([[NAN, NAN]])


def test_a_landmark_that_was_never_found_keeps_its_row():
    figure = per_landmark_boxplot([[1.0, INF], [2.0, INF]], ["a", "b"])
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["b (2 missed)", "a"]
    assert figure_png(figure)


def test_pyplot_is_left_alone():
    before = plt.get_fignums()
    figure_png(error_curve([[1.0]]))
    figure_png(per_landmark_boxplot([[1.0]]))
    assert plt.get_fignums() == before
