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
"""What the components of a network saw: one row per landmark, one picture per component."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_landmarks.data.landmarks import did_you_mean, quoted
from monai_landmarks.geometry import LandmarkError

from .canvas import GREY, PREDICTION, TRUTH, check_names, new_figure, plain_array, plain_points
from .overlays import INK, show_view
from .views import Projection, View, flat_picture, grey_image, grey_window, known_affine, world_views

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["component_overlay"]

COMPONENTS = ("local_appearance", "spatial_configuration", "heatmaps")
TITLES = ("image", "local appearance", "spatial configuration", "product = heatmap")
# Inches: each picture's longest side, its frame, the row titles, the header.
SIDE, GAP, LEFT, HEADER = 2.5, 0.12, 0.4, 0.85


def component_overlay(
    explanation: Any,
    image: Any,
    landmarks: Sequence[int | str] | None = None,
    prediction: Any = None,
    truth: Any = None,
    names: Sequence[str] | None = None,
    affine: Any = None,
    title: str | None = None,
) -> Figure:
    """Draw, per landmark, the image, its local appearance, its spatial configuration and their product.

    Maps are signed: red is positive, blue negative and white zero, each map on a scale of its own whose end is written
    below it. A volume is shown as the axial slice through the landmark's highest heatmap value. Data coordinates of
    every picture are voxel indices.

    Args:
        explanation: of ``SpatialConfigurationNet.explain``: ``local_appearance``, ``spatial_configuration`` and
            ``heatmaps``, each ``(N, *S)`` or ``(1, N, *S)``.
        image: channel-first ``(C, *S)`` or ``(1, C, *S)``.
        landmarks: rows to draw, as indices or names; None draws all.
        prediction: voxel indices ``(N, D)``, NaN for missing.
        truth: voxel indices ``(N, D)``, NaN for missing.
        names: ``N`` landmark names.
        affine: ``(D + 1, D + 1)`` from index to millimetres; by default the image's own.
        title: first line.

    Returns:
        a matplotlib figure that pyplot does not know, with four axes per row.

    Raises:
        LandmarkError: if shapes do not fit or a landmark is unknown.

    Example:
        >>> import torch
        >>> from monai_landmarks.networks.nets import SCNExplanation
        >>> maps = torch.rand(1, 3, 20, 16)
        >>> len(component_overlay(SCNExplanation(maps, maps, maps), torch.rand(1, 20, 16), landmarks=[0, 2]).axes)
        8
    """
    grey, maps = _check(explanation, image)
    titles = check_names(names, maps[0].shape[0])
    rows = _rows(landmarks, titles)
    points = [
        None if p is None else plain_points(p, grey.ndim, w) for p, w in ((truth, "truth"), (prediction, "prediction"))
    ]
    view = world_views(grey.shape, known_affine(image, affine, grey.ndim))[0]
    figure, grid = _grid(view, len(rows), title)
    for row, (axes, index) in enumerate(zip(grid, rows, strict=True)):
        peak = np.unravel_index(int(maps[2][index].argmax()), grey.shape)
        centre = tuple(int(p) for p in peak)
        window = grey_window([flat_picture(grey, view, Projection.SLICE, centre)])
        show_view(axes[0], grey, view, Projection.SLICE, centre, window=window)
        axes[0].set_ylabel(titles[index], fontsize=9, color=INK, labelpad=14 if view.normal is not None else 4)
        _mark(axes[0], view, points, index)
        for ax, component in zip(axes[1:], maps, strict=True):
            _show_map(ax, component[index], view, centre)
        for ax, text in zip(axes, TITLES if row == 0 else (), strict=False):
            ax.set_title(text, fontsize=9, color=INK, pad=14 if view.normal is not None else 5)
    return figure


def _check(explanation: Any, image: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    lacking = [name for name in COMPONENTS if not hasattr(explanation, name)]
    if lacking:
        raise LandmarkError(
            f"an explanation with {quoted(COMPONENTS)} is needed, got {type(explanation).__name__} without "
            f"{quoted(lacking)}: call `network.explain(image)`."
        )
    maps = [plain_array(getattr(explanation, name)) for name in COMPONENTS]
    dims = _spatial_dims(maps[0].shape, tuple(image.shape))
    maps = [_first(m, dims + 1, "explanation") for m in maps]
    grey = grey_image(_first(image, dims + 1, "image"))
    if any(m.shape[1:] != grey.shape for m in maps):
        raise LandmarkError(
            f"the maps have the spatial shapes {[m.shape[1:] for m in maps]}, the image {grey.shape}: give the image "
            "that was explained."
        )
    return grey, maps


def _spatial_dims(maps: tuple[int, ...], image: tuple[int, ...]) -> int:
    """Four axes are a volume without batch axis where image and maps then agree in shape, else a batch of films."""
    if len(maps) != 4:
        return 2 if len(maps) < 4 else 3
    volume = len(image) == 5 or (len(image) == 4 and maps[1:] == image[1:] and maps[1] > 1)
    return 3 if volume else 2


def _first(values: Any, ndim: int, what: str) -> Any:
    """Take the only item off a batch of one."""
    if values.ndim == ndim + 1 and values.shape[0] == 1:
        return values[0]
    if values.ndim != ndim:
        raise LandmarkError(
            f"the {what} has shape {tuple(values.shape)}: draw one image at a time, with or without a batch axis of 1."
        )
    return values


def _rows(landmarks: Sequence[int | str] | None, names: Sequence[str]) -> list[int]:
    if landmarks is None:
        return list(range(len(names)))
    rows = []
    for wanted in landmarks:
        index = names.index(wanted) if isinstance(wanted, str) and wanted in names else wanted
        if isinstance(index, str) or not 0 <= int(index) < len(names):
            raise LandmarkError(
                f"there is no landmark {wanted!r}{did_you_mean(str(wanted), names)}: {quoted(names, 99)}."
            )
        rows.append(int(index))
    return rows


def _grid(view: View, rows: int, title: str | None) -> tuple[Figure, list[list[Axes]]]:
    scale = SIDE / max(view.size)
    wide, tall = max(view.size[0] * scale, 1.3), view.size[1] * scale
    frame = GAP + 0.2 + (0.24 if view.normal is not None else 0.0)
    width, height = LEFT + 4 * (wide + frame) + GAP, HEADER + rows * (tall + frame)
    figure = new_figure(width, height)
    figure.text(GAP / width, 1 - 0.24 / height, title or "", fontsize=11, weight="bold", color=INK, va="center")
    grid = []
    for row in range(rows):
        bottom = height - HEADER - (row + 1) * tall - row * frame
        places = [LEFT + column * (wide + frame) for column in range(4)]
        grid.append([figure.add_axes((x / width, bottom / height, wide / width, tall / height)) for x in places])
    return figure, grid


def _show_map(ax: Axes, component: np.ndarray, view: View, centre: Sequence[int]) -> None:
    flat = flat_picture(component, view, Projection.SLICE, centre)
    reach = float(np.abs(flat).max()) or 1.0
    show_view(ax, component, view, Projection.SLICE, centre, "RdBu_r", (-reach, reach))
    where = 3 if view.normal is None else 12
    text = f"{flat.min():.3g} to {flat.max():.3g}"
    ax.annotate(
        text, (0.5, 0), (0, -where), "axes fraction", "offset points", ha="center", va="top", fontsize=7, color=GREY
    )


def _mark(ax: Axes, view: View, points: Sequence[Any], index: int) -> None:
    styles: tuple[dict[str, Any], ...] = (
        {"marker": "o", "facecolors": "none", "edgecolors": TRUTH, "gid": "truth"},
        {"marker": "+", "color": PREDICTION, "gid": "prediction"},
    )
    for tensor, style in zip(points, styles, strict=True):
        if tensor is not None:
            x, y = tensor[index, list(view.axes)].tolist()
            ax.scatter([x], [y], s=44, linewidths=1.5, **style)
