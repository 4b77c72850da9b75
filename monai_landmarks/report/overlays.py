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
"""Landmarks drawn over their image: prediction and truth, what is missing, how far they are apart."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.utils import look_up_option

from monai_landmarks.geometry import LandmarkError, inside, present

from .canvas import GREY, PREDICTION, TRUTH, check_names, new_figure, plain_array, plain_points, plotting
from .case_errors import case_errors, error_summary, worst_landmark
from .labels import place_labels
from .views import (
    Projection,
    View,
    choose_planes,
    flat_picture,
    grey_image,
    grey_window,
    known_affine,
    slice_centre,
    world_views,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["landmark_overlay"]

# Inches.
HEADER, MARGIN, GAP, ROW, CAPTION_LINE = 0.62, 0.3, 0.42, 0.185, 0.17
PICTURE_WIDTH, PICTURE_HEIGHT = {2: 8.0, 3: 11.0}, {2: 7.6, 3: 4.6}
INK = "#202124"


@dataclass(frozen=True)
class _Case:
    """One image with its points, ready to be drawn."""

    grey: np.ndarray
    prediction: torch.Tensor | None
    truth: torch.Tensor | None
    names: tuple[str, ...]
    numbers: tuple[str, ...]
    affine: torch.Tensor | None
    unit: str
    errors: torch.Tensor | None
    heat: np.ndarray | None = None


def landmark_overlay(
    image: Any,
    prediction: Any = None,
    truth: Any = None,
    names: Sequence[str] | None = None,
    affine: Any = None,
    unit: str = "mm",
    title: str | None = None,
    heatmaps: Any = None,
    projection: str = Projection.SLICE,
    planes: Sequence[str] | None = None,
    mark: str = "number",
) -> Figure:
    """Draw predicted and true landmarks over their image, with their names and distances beside it.

    A film is shown upright, first axis to the right and second downwards; a volume as axial, coronal and sagittal
    picture, the patient's right and front on the left, with all points projected onto each. True landmarks are blue
    circles, predicted ones orange crosses: two colours and two shapes, so that nobody confuses them. Data coordinates
    of every picture are voxel indices. Landmarks that are missing or lie outside the image are listed below.

    Args:
        image: channel-first ``(C, W, H)`` or ``(C, X, Y, Z)``, MetaTensor, tensor or array; several channels are shown
            as their mean.
        prediction: voxel indices ``(N, D)``, NaN for missing.
        truth: voxel indices ``(N, D)``, NaN for missing.
        names: ``N`` landmark names, numbered from 1; without names landmarks are called 0, 1, ... as in the metrics.
        affine: ``(D + 1, D + 1)`` from index to millimetres; by default the image's own. A plain tensor without it is
            drawn with square voxels and measured in voxels.
        unit: what the affine's world is measured in.
        title: first line.
        heatmaps: ``(N, *S)`` or ``(1, N, *S)``, whose maximum over the landmarks is laid over the image.
        projection: of volumes: "slice" through the centroid of the landmarks, "max" or "mean" along the third axis.
        planes: of volumes: some of "axial", "coronal", "sagittal"; None for all three.
        mark: what stands beside each landmark: its "number", which the key explains, or its "name", for short names.

    Returns:
        a matplotlib figure that pyplot does not know; write it with :func:`save_figure`.

    Raises:
        LandmarkError: if shapes or names do not fit.
        ValueError: for an unknown projection, plane or mark.

    Example:
        >>> import torch
        >>> figure = landmark_overlay(torch.rand(1, 30, 40), truth=torch.tensor([[3.0, 5.0]]), names=["sella"])
        >>> [float(v) for v in (*figure.axes[0].get_xlim(), *figure.axes[0].get_ylim())]
        [-0.5, 29.5, 39.5, -0.5]
    """
    case = _check_case(image, prediction, truth, names, affine, unit, heatmaps)
    dims = case.grey.ndim
    if look_up_option(mark, ("number", "name")) == "name":
        case = replace(case, numbers=case.names)
    views = choose_planes(world_views(case.grey.shape, case.affine), planes)
    centre = slice_centre((case.truth, case.prediction), case.grey.shape)
    caption = _caption(case, projection)
    figure, axes, key = _layout(views, dims, case, caption)
    window = grey_window([flat_picture(case.grey, view, projection, centre) for view in views])
    for ax, view in zip(axes, views, strict=True):
        show_view(ax, case.grey, view, projection, centre, window=window)
        if case.heat is not None:
            _show_heat(ax, case.heat, view, projection, centre)
        _draw_points(ax, view, case)
        if view.normal is not None:
            ax.set_title(_plane_name(view, projection, centre), fontsize=9, color=INK, pad=14)
    _draw_key(key, case)
    _draw_texts(figure, case, title, caption)
    return figure


def _check_case(
    image: Any, prediction: Any, truth: Any, names: Sequence[str] | None, affine: Any, unit: str, heatmaps: Any
) -> _Case:
    grey = grey_image(image)
    dims = grey.ndim
    pred = None if prediction is None else plain_points(prediction, dims, "prediction")
    true = None if truth is None else plain_points(truth, dims, "truth")
    if pred is not None and true is not None and pred.shape != true.shape:
        raise LandmarkError(
            f"`prediction` has {pred.shape[0]} landmarks and `truth` {true.shape[0]}: both must hold the same "
            "landmarks in the same order, a missing one as a row of NaN."
        )
    matrix = known_affine(image, affine, dims)
    count = next((p.shape[0] for p in (pred, true) if p is not None), len(names or ()))
    titles = check_names(names, count)
    numbers = titles if names is None else tuple(str(i + 1) for i in range(count))
    errors = case_errors(pred, true, matrix) if pred is not None and true is not None else None
    heat = None if heatmaps is None else _heat(heatmaps, grey.shape)
    return _Case(grey, pred, true, titles, numbers, matrix, unit if matrix is not None else "voxels", errors, heat)


def _heat(heatmaps: Any, shape: tuple[int, ...]) -> np.ndarray:
    maps = plain_array(heatmaps)
    maps = maps[0] if maps.ndim == len(shape) + 2 and maps.shape[0] == 1 else maps
    if maps.ndim != len(shape) + 1 or maps.shape[1:] != shape:
        raise LandmarkError(f"`heatmaps` must be (N, {', '.join(map(str, shape))}) as the image, got {maps.shape}.")
    return np.nan_to_num(maps).max(axis=0).clip(min=0)


def show_view(
    ax: Axes,
    volume: np.ndarray,
    view: View,
    projection: str,
    centre: Sequence[int],
    cmap: str = "gray",
    window: tuple[float, float] | None = None,
) -> None:
    """Show one view of an image; data coordinates are voxel indices, with the centre of a voxel at its integer."""
    flat = flat_picture(volume, view, projection, centre)
    low, high = window or (None, None)
    ax.imshow(flat.T, cmap=cmap, vmin=low, vmax=high, **_placement(ax, flat, view))
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    places = [(-0.012, 0.5, "right", "center"), (1.012, 0.5, "left", "center")]
    places += [(0.5, -0.015, "center", "top"), (0.5, 1.012, "center", "bottom")]
    for letter, (x, y, across, along) in zip(view.letters, places, strict=True):
        ax.text(x, y, letter, transform=ax.transAxes, ha=across, va=along, fontsize=8, color=GREY)


def _placement(ax: Axes, flat: np.ndarray, view: View) -> dict[str, Any]:
    """Extent and direction of a picture: films run downwards, volumes upwards, each reversed where the view says so."""
    width, height = flat.shape
    right, up = (-0.5, width - 0.5), (-0.5, height - 0.5)
    upwards = view.normal is not None and not view.reverse[1]
    ax.set_xlim(right[::-1] if view.reverse[0] else right)
    ax.set_ylim(up if upwards else up[::-1])
    ax.set_autoscale_on(False)
    return {"origin": "lower", "extent": (*right, *up), "aspect": view.aspect}


def _show_heat(ax: Axes, heat: np.ndarray, view: View, projection: str, centre: Sequence[int]) -> None:
    # A slice would miss peaks of landmarks in other planes, whose points are projected here: always the maximum.
    flat = flat_picture(heat, view, Projection.MAX, centre)
    strength = flat / flat.max() if flat.max() > 0 else flat
    options = _placement(ax, flat, view)
    ax.imshow(strength.T, cmap="inferno", vmin=0, vmax=1, alpha=0.75 * np.sqrt(strength.T), **options)


def _draw_points(ax: Axes, view: View, case: _Case) -> None:
    axes = list(view.axes)
    true = None if case.truth is None else case.truth[:, axes].numpy()
    pred = None if case.prediction is None else case.prediction[:, axes].numpy()
    outline = [plotting("patheffects", "withStroke")(linewidth=2.2, foreground="black", alpha=0.75)]
    if true is not None and pred is not None:
        both = np.isfinite(true).all(1) & np.isfinite(pred).all(1)
        segments = np.stack([true[both], pred[both]], axis=1)
        lines = plotting("collections", "LineCollection")(segments, colors="white", linewidths=0.9, gid="errors")
        lines.set_path_effects(outline)
        ax.add_collection(lines, autolim=False)
    if true is not None:
        style: dict[str, Any] = {"facecolors": "none", "edgecolors": TRUTH, "linewidths": 1.3}
        ax.scatter(true[:, 0], true[:, 1], s=36, marker="o", gid="truth", path_effects=outline, **style)
    if pred is not None:
        ax.scatter(
            pred[:, 0],
            pred[:, 1],
            s=44,
            marker="+",
            color=PREDICTION,
            linewidths=1.5,
            gid="prediction",
            path_effects=outline,
        )
    _draw_numbers(ax, [p for p in (true, pred) if p is not None], case.numbers)


def _draw_numbers(ax: Axes, points: list[np.ndarray], numbers: Sequence[str]) -> None:
    """Write each landmark's number beside its true point, or beside the predicted one where there is no truth."""
    if not points:
        return
    anchor = np.where(np.isfinite(points[0]), points[0], points[-1])
    across, along = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    drawn = np.all((anchor >= [across[0], along[0]]) & (anchor <= [across[1], along[1]]), axis=1)
    if not drawn.any():
        return
    figure: Any = ax.figure
    to_points = 72.0 / figure.get_dpi()
    everything = np.concatenate([p[np.isfinite(p).all(1)] for p in points])
    places = ax.transData.transform(anchor[drawn]) * to_points
    labels = [n for n, there in zip(numbers, drawn, strict=True) if there]
    offsets = place_labels(places, np.array([len(n) for n in labels]), ax.transData.transform(everything) * to_points)
    outline = [plotting("patheffects", "withStroke")(linewidth=1.8, foreground="black", alpha=0.8)]
    for xy, offset, text in zip(anchor[drawn], offsets, labels, strict=True):
        ax.annotate(
            text,
            xy,
            offset,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=7,
            color="white",
            path_effects=outline,
        )


def _plane_name(view: View, projection: str, centre: Sequence[int]) -> str:
    axis = "ijk"[view.normal or 0]
    how = {Projection.SLICE: f"slice {axis} = {centre[view.normal or 0]}", Projection.MAX: f"maximum along {axis}"}
    return ", ".join(t for t in (view.title, how.get(Projection(projection), f"mean along {axis}")) if t)


def _caption(case: _Case, projection: str) -> list[str]:
    """Lines below the pictures: what is missing, what lies outside, how volumes are shown."""
    lines = []
    for points, text in ((case.truth, "without truth"), (case.prediction, "not predicted")):
        if points is None:
            continue
        lacking = [case.names[i] for i in torch.nonzero(~present(points)).flatten().tolist()]
        beyond = [case.names[i] for i in torch.nonzero(present(points) & ~inside(points, case.grey.shape)).flatten()]
        side = "true" if points is case.truth else "predicted"
        lines += [f"{text}: {', '.join(lacking)}"] if lacking else []
        lines += [f"{side} position outside the image: {', '.join(beyond)}"] if beyond else []
    if case.grey.ndim == 3 and (case.truth is not None or case.prediction is not None):
        lines.append("points of all planes are projected onto each picture")
    if case.affine is None and case.errors is not None:
        lines.append("no affine is known: distances are in voxels")
    return lines


def _layout(views: Sequence[View], dims: int, case: _Case, caption: list[str]) -> tuple[Figure, list[Axes], Axes]:
    """Place the pictures at one scale, the key at their right and the texts above and below, all in inches."""
    gap = GAP if dims == 3 else 0.0
    free = PICTURE_WIDTH[dims] - gap * (len(views) - 1)
    scale = min(free / sum(v.size[0] for v in views), PICTURE_HEIGHT[dims] / max(v.size[1] for v in views))
    widths, heights = [v.size[0] * scale for v in views], [v.size[1] * scale for v in views]
    tall = max(*heights, 2.2)
    rows = max(int((tall - 0.2) / ROW) - 3, 1)
    columns = -(-len(case.names) // rows)
    column = 0.95 + 0.072 * min(max((len(n) for n in case.names), default=8), 28)
    key_width = max(columns * column, 1.9)
    pictures = sum(widths) + gap * (len(views) - 1)
    width = MARGIN * 2 + GAP + pictures + key_width
    caption[:] = [line for text in caption for line in textwrap.wrap(text, int((width - 2 * MARGIN) / 0.077))]
    bottom = MARGIN + (0.2 if dims == 3 else 0.0) + CAPTION_LINE * len(caption)
    top = HEADER + (0.35 if dims == 3 else 0.0)
    height = bottom + tall + top
    figure = new_figure(width, height)
    axes, left = [], MARGIN
    for w, h in zip(widths, heights, strict=True):
        place = (left / width, (bottom + (tall - h) / 2) / height, w / width, h / height)
        axes.append(figure.add_axes(place))
        left += w + gap
    key = figure.add_axes(((MARGIN + pictures + GAP) / width, bottom / height, key_width / width, tall / height))
    key.set_axis_off()
    key.set_xlim(0, key_width)
    key.set_ylim(tall, 0)
    return figure, axes, key


def _draw_key(key: Axes, case: _Case) -> None:
    """List number, name and distance of every landmark, and what the two markers mean."""
    y = 0.1
    for points, text, marker, colour in (
        (case.truth, "truth", "o", TRUTH),
        (case.prediction, "prediction", "+", PREDICTION),
    ):
        if points is None:
            continue
        key.plot(
            [0.1], [y], marker, color=colour, markersize=7, markerfacecolor="none", markeredgewidth=1.8, clip_on=False
        )
        key.text(0.28, y, text, fontsize=8.5, va="center", color=INK)
        y += ROW
    y += 0.1
    rows = max(int((key.get_ylim()[0] - y) / ROW) - 1, 1)
    columns = -(-len(case.names) // rows) or 1
    column = key.get_xlim()[1] / columns
    worst = worst_landmark(case.errors)
    for block in range(columns if case.errors is not None and case.names else 0):
        key.text(column * (block + 1) - 0.1, y, case.unit, ha="right", va="center", fontsize=8, color=GREY)
    for index, (number, name) in enumerate(zip(case.numbers, case.names, strict=True)):
        left, top = column * (index // rows), y + ROW * (index % rows + 1)
        weight = "bold" if index == worst else "normal"
        style: dict[str, Any] = {"fontsize": 8, "va": "center", "color": INK, "weight": weight}
        key.text(left + 0.25, top, number, ha="right", **{**style, "color": GREY})
        key.text(left + 0.34, top, name if name != number else "", **{**style, "fontsize": 8})
        key.text(left + column - 0.1, top, _state(case, index), ha="right", **style)


def _state(case: _Case, index: int) -> str:
    """A landmark's distance, or why it has none."""
    there = [points is not None and bool(present(points)[index]) for points in (case.truth, case.prediction)]
    if case.errors is not None and all(there):
        return f"{case.errors[index]:.2f}"
    if case.truth is not None and not there[0]:
        return "no truth"
    return "missed" if case.prediction is not None and not there[1] else ""


def _draw_texts(figure: Figure, case: _Case, title: str | None, caption: Sequence[str]) -> None:
    width, height = figure.get_size_inches()
    left = MARGIN / width
    names = [f"landmark {n}" for n in case.names] if case.names == case.numbers else case.names
    second = "" if case.errors is None else error_summary(case.errors, names, case.unit)
    figure.text(left, 1 - 0.24 / height, title or "", fontsize=11, weight="bold", color=INK, va="center")
    figure.text(left, 1 - 0.46 / height, second, fontsize=9, color=INK, va="center")
    for line, text in enumerate(reversed(caption)):
        figure.text(left, (0.16 + CAPTION_LINE * line) / height, text, fontsize=8, color=GREY, va="center")
