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
"""Figures of one-shot detection: which image is worth annotating, and why a landmark was found where it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_landmarks.data.landmarks import quoted
from monai_landmarks.geometry import LandmarkError

from .canvas import GREY, PREDICTION, TRUTH, new_figure, plain_array, plain_points, plotting
from .overlays import INK, show_view
from .views import Projection, View, flat_picture, grey_image, grey_window, known_affine, world_views

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figure_similarity_pyramid", "figure_template_ranking"]

# Inches: a picture's longest side, its frame, the header, a bar chart's width, the margin.
SIDE, FRAME, HEADER, CHART, MARGIN = 2.6, 0.42, 0.75, 5.6, 0.35
MOST_NAMES = 40
BAR = "#9db7cc"


def figure_template_ranking(
    ranking: Sequence[Any],
    images: Mapping[str, Any] | None = None,
    keypoints: Mapping[str, Any] | None = None,
    title: str | None = "Which image to annotate",
) -> Figure:
    """Draw the scores of all images as bars, the best on the left, and the best and the worst image with their keypoints.

    Images without a score are counted below the bars. Data coordinates of the pictures are voxel indices; a volume is
    shown as the axial slice through the middle of its keypoints, with all of them projected onto it.

    Args:
        ranking: of :func:`~monai_landmarks.engines.suggest_template`: each with ``case``, ``score`` and ``keypoints``.
        images: case to channel-first image ``(C, *S)``; of these only the best and the worst with a score are drawn.
        keypoints: case to voxel indices ``(K, D)``, of ``find_keypoints``.
        title: first line.

    Returns:
        a matplotlib figure that pyplot does not know: the bars, then the pictures there are.

    Raises:
        LandmarkError: for a ranking in which nothing has a score, or keypoints that do not fit their image.

    Example:
        >>> from types import SimpleNamespace
        >>> ranking = [SimpleNamespace(case=c, score=s, keypoints=9) for c, s in (("b", 0.5), ("a", 0.25))]
        >>> figure = figure_template_ranking(ranking, {"b": np.zeros((1, 30, 40))})
        >>> [float(bar.get_height()) for bar in figure.axes[0].patches], len(figure.axes)
        ([0.5, 0.25], 2)
    """
    scored = [one for one in ranking if np.isfinite(one.score)]
    if not scored:
        raise LandmarkError(f"none of the {len(ranking)} images has a score: there is nothing to draw.")
    ends = {scored[0].case: ("best", TRUTH), **({scored[-1].case: ("worst", PREDICTION)} if len(scored) > 1 else {})}
    shown = [case for case in ends if case in (images or {})]
    pictures = [_Picture(images[case], (keypoints or {}).get(case), case) for case in shown] if images else []
    widths = [max(picture.view.size[0] * _scale(picture.view, 3.2), 1.3) for picture in pictures]
    tall = max([picture.view.size[1] * _scale(picture.view, 3.2) for picture in pictures], default=3.0)
    tall = max(tall, 2.6)
    width, height = MARGIN * 3 + CHART + sum(w + FRAME for w in widths), HEADER + tall + 1.0
    figure = new_figure(width, height)
    figure.text(MARGIN / width, 1 - 0.26 / height, title or "", fontsize=11, weight="bold", color=INK, va="center")
    chart = figure.add_axes(((MARGIN * 2) / width, 1.0 / height, CHART / width, tall / height))
    _draw_bars(chart, ranking, scored, ends)
    left = MARGIN * 2 + CHART + FRAME
    for picture, w in zip(pictures, widths, strict=True):
        ax = figure.add_axes((left / width, 1.0 / height, w / width, tall / height))
        word, colour = ends[picture.case]
        ax.set_title(f"{word}: {picture.case}", fontsize=9, color=INK, pad=14 if picture.view.normal is not None else 5)
        picture.show(ax)
        picture.mark(ax, colour)
        left += w + FRAME
    return figure


class _Picture:
    """One image as one flat picture, with the points that belong to it."""

    def __init__(self, image: Any, points: Any = None, case: str = "", affine: Any = None, centre: Any = None) -> None:
        self.case = case
        self.grey = grey_image(image)
        dims = self.grey.ndim
        self.view: View = world_views(self.grey.shape, known_affine(image, affine, dims))[0]
        self.points = np.zeros((0, dims)) if points is None else plain_points(points, dims, "points").numpy()
        there = self.points[np.isfinite(self.points).all(axis=1)] if centre is None else np.asarray(centre)[None]
        middle = there.mean(axis=0) if len(there) else (np.array(self.grey.shape) - 1) / 2
        self.centre = tuple(int(n) for n in np.round(middle).clip(0, np.array(self.grey.shape) - 1))

    def show(self, ax: Axes) -> None:
        window = grey_window([flat_picture(self.grey, self.view, Projection.SLICE, self.centre)])
        show_view(ax, self.grey, self.view, Projection.SLICE, self.centre, window=window)

    def mark(self, ax: Axes, colour: str, marker: str = "o", gid: str = "keypoints", size: float = 26) -> None:
        x, y = self.points[:, list(self.view.axes)].T
        outline = [plotting("patheffects", "withStroke")(linewidth=2.4, foreground="black", alpha=0.75)]
        face: dict[str, Any] = {"color": colour} if marker == "+" else {"facecolors": "none", "edgecolors": colour}
        ax.scatter(x, y, s=size, marker=marker, linewidths=1.4, gid=gid, path_effects=outline, **face)


def _scale(view: View, side: float = SIDE) -> float:
    """Inches to a millimetre (or voxel) of the picture."""
    return side / max(view.size)


def _draw_bars(ax: Axes, ranking: Sequence[Any], scored: Sequence[Any], ends: Mapping[str, tuple[str, str]]) -> None:
    heights = [one.score for one in scored]
    ranks = range(1, len(scored) + 1)
    ax.bar(ranks, heights, width=0.85, color=[ends.get(one.case, ("", BAR))[1] for one in scored])
    ax.set_xlim(0.4, len(scored) + 0.6)
    ax.set_ylim(0, max(max(heights), 1e-6) * 1.08)
    few = len(scored) <= MOST_NAMES
    if few:
        rotation = 90 if len(scored) * max(len(one.case) for one in scored) > 60 else 0
        ax.set_xticks(ranks, [one.case for one in scored], rotation=rotation, fontsize=7.5)
    ax.set_ylabel("mean product similarity in the others", fontsize=9)
    lacking = [one.case for one in ranking if not np.isfinite(one.score)]
    note = f"{len(scored)} images" if few else f"rank of {len(scored)} images"
    note += f"; best {scored[0].case} ({scored[0].keypoints} keypoints)"
    note += f"\nno keypoints, no score: {quoted(lacking, 6)}" if lacking else ""
    ax.set_xlabel(note, fontsize=9)
    ax.tick_params(labelsize=8)
    ax.grid(axis="y", color="#e0e0e0", linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


# --- similarity pyramid -------------------------------------------------------------------------------------------------


def figure_similarity_pyramid(
    image: Any,
    template: Any,
    template_point: Any,
    levels: Sequence[Any],
    product: Any,
    prediction: Any,
    strides: Sequence[int] = (32, 16, 8, 4, 2),
    truth: Any = None,
    affine: Any = None,
    template_affine: Any = None,
    title: str | None = None,
) -> Figure:
    """Draw how one landmark was found: the template with its point, each level's similarity, their product, the point.

    Maps lie over the image in the place of their cells, uninterpolated. Each map has a colour scale of its own, from its
    lowest (clear) to its highest value, which are written below it. A volume is shown as the axial slice through the found
    point, the template as the one through its own point. Data coordinates of every picture are voxel indices.

    Args:
        image: searched, channel-first ``(C, *S)`` or ``(1, C, *S)``.
        template: annotated image or patch, ``(C, *S')`` or ``(1, C, *S')``.
        template_point: of the landmark, ``(D,)`` or ``(1, D)`` voxels of the template.
        levels: of one landmark, coarsest first, each ``(*ceil(S / stride))`` with any leading axes of 1; such as
            ``[x[:, n] for x in net.similarities(image)]``.
        product: of one landmark over the image, ``(*S)`` with any leading axes of 1.
        prediction: ``(D,)`` or ``(1, D)`` voxels of the image.
        strides: of ``levels``.
        truth: ``(D,)`` or ``(1, D)`` voxels of the image, where it is known.
        affine: of the image, ``(D + 1, D + 1)``; by default its own.
        template_affine: of the template; by default its own.
        title: first line.

    Returns:
        a matplotlib figure that pyplot does not know: template, one axes for each level, product, image.

    Raises:
        LandmarkError: if shapes do not fit, or there is not one level for each stride.

    Example:
        >>> image, point = np.zeros((1, 64, 48)), [30.0, 20.0]
        >>> levels = [np.zeros((-(-64 // s), -(-48 // s))) for s in (32, 16, 8, 4, 2)]
        >>> len(figure_similarity_pyramid(image, image, point, levels, image[0], point).axes)
        8
    """
    found = _Picture(_single(image, template, "image"), _row(prediction), "", affine)
    sample = _Picture(_single(template, image, "template"), _row(template_point), "", template_affine)
    dims, shape = found.grey.ndim, found.grey.shape
    if len(levels) != len(strides):
        raise LandmarkError(f"there must be one level for each of the strides {tuple(strides)}, got {len(levels)}.")
    figure, grid = _grid(found.view, sample.view, -(-(len(levels) + 3) // 2), 2, title)
    axes = iter(grid)
    _start(next(axes), sample, "template", TRUTH)
    for level, stride in zip((*levels, product), (*strides, 1), strict=True):
        ax = next(axes)
        wanted = tuple(-(-n // stride) for n in shape)
        cells = _map(level, wanted, dims, f"level of stride {stride}" if stride > 1 else "product")
        _start(ax, found, f"1/{stride}" if stride > 1 else "product", None)
        _show_cells(ax, cells, found, stride)
        found.mark(ax, PREDICTION, "+", "prediction", 60)
    last = next(axes)
    _start(last, found, "found (+)" if truth is None else "found (+), truth (o)", None)
    if truth is not None:
        known = _Picture(_single(image, template, "image"), _row(truth), "", affine)
        known.mark(last, TRUTH, "o", "truth", 44)
    found.mark(last, PREDICTION, "+", "prediction", 60)
    for ax in axes:
        ax.set_axis_off()
    return figure


def _single(values: Any, other: Any, what: str) -> Any:
    """Take the only item off a batch of one; a 2D batch looks like a volume, so the other image may have to tell."""
    if values.ndim not in (3, 4, 5) or (values.ndim == 5 and values.shape[0] != 1):
        raise LandmarkError(f"the {what} must be channel-first (C, *S), or a batch of 1, got {tuple(values.shape)}.")
    film = values.ndim == 4 and values.shape[0] == 1 and (values.shape[1] == 1 or other.ndim == 3)
    return values[0] if film or values.ndim == 5 else values


def _row(point: Any) -> Any:
    values = plain_array(point)
    return values.reshape(-1, values.shape[-1]) if values.ndim else values


def _map(values: Any, shape: tuple[int, ...], dims: int, what: str) -> np.ndarray:
    array = plain_array(values)
    if array.ndim < dims or array.shape[-dims:] != shape or any(n != 1 for n in array.shape[:-dims]):
        raise LandmarkError(
            f"the {what} must be {shape} for this image, with leading axes of 1 only, got {array.shape}: give the maps of "
            "one landmark and one image."
        )
    return np.nan_to_num(array.reshape(shape))


def _start(ax: Axes, picture: _Picture, title: str, colour: str | None) -> None:
    picture.show(ax)
    ax.set_title(title, fontsize=9, color=INK, pad=14 if picture.view.normal is not None else 5)
    if colour:
        picture.mark(ax, colour, "o", "template_point", 60)


def _show_cells(ax: Axes, cells: np.ndarray, picture: _Picture, stride: int) -> None:
    """Lay a map over its image: cell c of a stride s covers the voxels from c * s to (c + 1) * s - 1."""
    view = picture.view
    flat = flat_picture(cells, view, Projection.SLICE, [n // stride for n in picture.centre])
    low, high = float(flat.min()), float(flat.max())
    strength = (flat - low) / (high - low) if high > low else np.zeros_like(flat)
    across, along = (n * stride - 0.5 for n in flat.shape)
    options: dict[str, Any] = {"origin": "lower", "interpolation": "nearest", "aspect": view.aspect, "gid": "cells"}
    alpha = 0.8 * np.sqrt(strength.T)
    ax.imshow(strength.T, cmap="inferno", vmin=0, vmax=1, alpha=alpha, extent=(-0.5, across, -0.5, along), **options)
    place: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 7, "color": GREY}
    where = 3 if view.normal is None else 12
    ax.annotate(f"{low:.3g} to {high:.3g}", (0.5, 0), (0, -where), "axes fraction", "offset points", **place)


def _grid(view: View, sample: View, columns: int, rows: int, title: str | None) -> tuple[Figure, list[Axes]]:
    frame = FRAME + (0.2 if view.normal is not None else 0.0)
    wide, tall = (max(view.size[i] * _scale(view), sample.size[i] * _scale(sample), 1.3) for i in range(2))
    width, height = MARGIN * 2 + columns * (wide + frame) - frame, HEADER + rows * (tall + frame)
    figure = new_figure(width, height)
    figure.text(MARGIN / width, 1 - 0.26 / height, title or "", fontsize=11, weight="bold", color=INK, va="center")
    places = [
        (MARGIN + column * (wide + frame), height - HEADER - (row + 1) * tall - row * frame)
        for row in range(rows)
        for column in range(columns)
    ]
    size = (wide / width, tall / height)
    return figure, [figure.add_axes((left / width, bottom / height, *size)) for left, bottom in places]
