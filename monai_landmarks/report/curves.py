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
"""Figures of an error table: how many landmarks lie within which distance, and how each landmark's errors spread."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.metrics import successful_detection_rate

from .canvas import GREY, LINES, check_names, new_figure, plain_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["error_curve", "per_landmark_boxplot"]

STYLES = ("-", "--", "-.", ":")
INK = "#202124"


def error_curve(
    errors: Any,
    thresholds: Sequence[float] = (2.0, 2.5, 3.0, 4.0),
    unit: str = "mm",
    comparator: str = "<=",
    stamp: str = "",
    limit: float | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the percentage of landmarks found within each distance (cumulative error distribution).

    The curve steps up by ``100 / n`` at every error, with ``n`` the landmarks that the truth has; a landmark that was
    not predicted is never reached, so the curve then ends below 100. At the thresholds stands the successful detection
    rate.

    Args:
        errors: error table ``(B, N)`` (NaN: no truth, inf: not predicted), or a mapping from method to table.
        thresholds: radii to be marked.
        unit: of errors and thresholds.
        comparator: ``"<="`` or ``"<"``, for the rates at the thresholds.
        stamp: the protocol, written under the figure.
        limit: right end of the axis; by default 2.5 times the largest threshold, and what lies beyond is counted.
        title: first line.

    Returns:
        a matplotlib figure that pyplot does not know.

    Raises:
        LandmarkError: if there is no error to draw.

    Example:
        >>> figure = error_curve([[0.5, 1.5, float("inf"), float("nan")]], thresholds=(1.0, 2.0))
        >>> figure.axes[0].lines[0].get_ydata().round(1).tolist()
        [0.0, 33.3, 66.7, 66.7]
    """
    tables = errors if isinstance(errors, Mapping) else {"": errors}
    right = limit or 2.5 * max(thresholds)
    figure = new_figure(7.0, 4.9)
    ax = figure.add_axes((0.11, 0.19, 0.84, 0.7))
    beyond = []
    for index, (name, values) in enumerate(tables.items()):
        table = _table(values)
        line, text = _draw_curve(ax, index, name, table, right, unit)
        _mark_rates(ax, table, line, thresholds, comparator)
        beyond += [text] if text else []
    for threshold in thresholds:
        ax.axvline(threshold, color=GREY, linewidth=0.7, linestyle=(0, (2, 3)), zorder=1, gid="threshold")
    ax.set_xlim(0, right)
    ax.set_ylim(0, 101.5)
    ax.set_xlabel(f"radial error in {unit}")
    ax.set_ylabel("landmarks within, %")
    ax.grid(color="#e0e0e0", linewidth=0.6)
    _frame(ax)
    heading = f"{comparator.replace('=', '').replace('<', '≤' if '=' in comparator else '<')} "
    heading += " / ".join(f"{threshold:g}" for threshold in thresholds) + f" {unit}"
    ax.legend(loc="lower right", fontsize=8.5, title=heading, title_fontsize=8.5, framealpha=0.9, alignment="left")
    _texts(figure, title or "Cumulative error distribution", stamp, "; ".join(beyond))
    return figure


def _table(errors: Any) -> np.ndarray:
    table = plain_array(errors)
    table = table.reshape(-1, table.shape[-1]) if table.ndim else table.reshape(1, 1)
    if not (~np.isnan(table)).any():
        raise LandmarkError("there is no error to draw: no landmark of the table has a truth.")
    return table


def _draw_curve(ax: Axes, index: int, name: str, table: np.ndarray, right: float, unit: str) -> tuple[Any, str]:
    values = np.sort(table[~np.isnan(table)])
    finite = values[np.isfinite(values)]
    # The last value is held to the end of the axis, so that misses show as a gap below 100 %.
    x = np.concatenate([[0.0], finite, [max(right, finite[-1] if len(finite) else 0.0)]])
    y = np.concatenate([np.arange(len(finite) + 1), [len(finite)]]) * 100.0 / len(values)
    style: dict[str, Any] = {"color": LINES[index % len(LINES)], "linestyle": STYLES[index // len(LINES) % len(STYLES)]}
    (line,) = ax.plot(x, y, drawstyle="steps-post", linewidth=1.8, label=name or "_", zorder=3, **style)
    far, missed = int((finite > right).sum()), len(values) - len(finite)
    parts = [f"{far} of {len(values)} errors beyond {right:g} {unit}"] if far else []
    parts += [f"{missed} of {len(values)} not predicted"] if missed else []
    return line, (f"{name}: " if name and parts else "") + ", ".join(parts)


def _mark_rates(ax: Axes, table: np.ndarray, line: Any, thresholds: Sequence[float], comparator: str) -> None:
    """Put a dot on the curve at each threshold and the rates into the line's legend text."""
    rates = successful_detection_rate(table, tuple(thresholds), comparator).tolist()
    ax.plot(thresholds, rates, "o", color=line.get_color(), markersize=4, zorder=4, gid="rates", label="_rates")
    text = " / ".join(f"{rate:.1f}" for rate in rates) + " %"
    line.set_label(f"{line.get_label()}: {text}" if line.get_label() != "_" else text)


def per_landmark_boxplot(
    errors: Any,
    names: Sequence[str] | None = None,
    thresholds: Sequence[float] = (),
    unit: str = "mm",
    stamp: str = "",
    sort: bool = True,
    limit: float | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the spread of each landmark's errors as boxes: quartiles, median, whiskers to 1.5 times the box, outliers.

    Args:
        errors: error table ``(B, N)`` (NaN: no truth, inf: not predicted). Boxes are over the landmarks found; misses
            are counted beside the name.
        names: ``N`` landmark names.
        thresholds: radii to be marked.
        unit: of the errors.
        stamp: the protocol, written under the figure.
        sort: worst median at the top; otherwise in the given order.
        limit: right end of the axis; by default all errors fit, unless a few would squeeze the boxes: what lies beyond
            is counted below.
        title: first line.

    Returns:
        a matplotlib figure that pyplot does not know.

    Raises:
        LandmarkError: if there is no error to draw or the names do not fit.

    Example:
        >>> figure = per_landmark_boxplot([[1.0, 4.0], [2.0, float("inf")]], ["sella", "nasion"])
        >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
        ['nasion (1 missed)', 'sella']
    """
    table = _table(errors)
    titles = check_names(names, table.shape[1])
    columns = [column[np.isfinite(column)] for column in table.T]
    medians = [float(np.median(c)) if len(c) else np.inf for c in columns]
    order = sorted(range(len(columns)), key=lambda i: -medians[i]) if sort else list(range(len(columns)))
    missed = np.isposinf(table).sum(axis=0)
    left = 0.35 + 0.078 * max(len(t) + 11 * bool(missed[i]) for i, t in enumerate(titles))
    width, height = left + 5.6, 1.5 + 0.24 * len(columns)
    figure = new_figure(width, height)
    ax = figure.add_axes((left / width, 0.85 / height, 5.3 / width, 0.24 * len(columns) / height))
    across = "orientation" in inspect.signature(ax.boxplot).parameters
    flier = {"marker": ".", "markersize": 3.5, "markerfacecolor": LINES[1], "markeredgecolor": "none"}
    style: dict[str, Any] = {
        "flierprops": flier,
        "patch_artist": True,
        "medianprops": {"color": "black", "linewidth": 1.6},
    }
    style["boxprops"] = {"facecolor": "#cfe3f1", "edgecolor": LINES[0], "linewidth": 0.9}
    style |= {key: {"color": LINES[0], "linewidth": 0.9} for key in ("whiskerprops", "capprops")}
    style |= {"orientation": "horizontal"} if across else {"vert": False}
    ax.boxplot([columns[i] for i in order], widths=0.62, manage_ticks=False, **style)
    ax.set_yticks(range(1, len(order) + 1))
    ax.set_yticklabels([titles[i] + (f" ({missed[i]} missed)" if missed[i] else "") for i in order], fontsize=8.5)
    ax.set_ylim(len(order) + 0.6, 0.4)
    right = limit or _box_limit(columns, thresholds)
    ax.set_xlim(0, right)
    far = sum(int((column > right).sum()) for column in columns)
    for threshold in thresholds:
        ax.axvline(threshold, color=GREY, linewidth=0.7, linestyle=(0, (2, 3)), zorder=1, gid="threshold")
    ax.set_xlabel(f"radial error in {unit}")
    ax.grid(axis="x", color="#e0e0e0", linewidth=0.6)
    _frame(ax)
    note = f"{far} of {sum(map(len, columns))} errors beyond {right:.3g} {unit}" if far else ""
    _texts(figure, title or "Errors of each landmark", stamp, note)
    return figure


def _box_limit(columns: Sequence[np.ndarray], thresholds: Sequence[float]) -> float:
    """Right end of the axis: all errors, unless a few far ones would squeeze the boxes to nothing."""
    quartiles = [np.percentile(column, (25, 75)) for column in columns if len(column)]
    whisker = max((float(high + 1.5 * (high - low)) for low, high in quartiles), default=1.0)
    largest = max((float(column.max()) for column in columns if len(column)), default=1.0)
    return 1.04 * max(min(largest, 1.6 * whisker), *thresholds, 1e-6)


def _frame(ax: Axes) -> None:
    ax.set_axisbelow(True)
    ax.tick_params(colors=INK, length=3)
    ax.xaxis.label.set_color(INK)
    ax.yaxis.label.set_color(INK)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)


def _texts(figure: Figure, title: str, stamp: str, note: str) -> None:
    """Title above; below it what lies beyond the axis, and at the foot the protocol that the numbers belong to."""
    width, height = figure.get_size_inches()
    figure.text(0.2 / width, 1 - 0.25 / height, title, fontsize=11, weight="bold", color=INK, va="center")
    foot = " | ".join(text for text in (f"protocol {stamp}" if stamp else "", note) if text)
    figure.text(0.2 / width, 0.18 / height, foot, fontsize=7.5, color=GREY, va="center", wrap=True)
