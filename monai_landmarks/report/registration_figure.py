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
"""Figure of a registration: how the annotated image was brought onto another one, and its landmarks with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.networks.blocks.displacement import carry_points, warp

from .canvas import PREDICTION, TRUTH, plain_array, plain_points
from .similarity_figures import _grid, _Picture, _single, _start
from .views import Projection, flat_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figure_registration"]

GRID = "#7fe0a8"
#: Lines of the grid along the longest side.
LINES_ACROSS = 16


def figure_registration(
    exemplar: Any,
    exemplar_points: Any,
    target: Any,
    registration: Any,
    truth: Any = None,
    grid_step: float | None = None,
    affine: Any = None,
    title: str | None = None,
) -> Figure:
    """Draw the exemplar with its landmarks, the same after the global and after all steps, and the target.

    Warped pictures lie in the target's voxels. Over them runs the exemplar's square grid, as the registration has turned
    and deformed it: the lines at which the exemplar's voxel index is a multiple of ``grid_step``. Landmarks of the exemplar
    are blue circles in it, and orange crosses where they were carried, found anew for each picture; known landmarks of the
    target are blue circles there. A volume is shown as the axial slice through the middle of the landmarks of each
    picture. Data coordinates of every picture are voxel indices.

    Args:
        exemplar: annotated image, channel-first ``(C, *S)`` or ``(1, C, *S)``.
        exemplar_points: ``(N, D)`` voxels of it, NaN for missing.
        target: of the same size.
        registration: a ``Registration`` of the exemplar on the target, of one image; its first and last field are drawn.
        truth: ``(N, D)`` voxels of the target, where they are known.
        grid_step: voxels between lines; by default a sixteenth of the longest side.
        affine: of both images, ``(D + 1, D + 1)``; by default their own.
        title: first line.

    Returns:
        a matplotlib figure that pyplot does not know, with four axes.

    Raises:
        LandmarkError: if shapes do not fit, or a ``grid_step`` is not positive.

    Example:
        >>> from monai_landmarks.networks.blocks.displacement import Registration
        >>> image, field = torch.rand(1, 40, 30), torch.zeros(1, 2, 40, 30)
        >>> found = Registration(torch.eye(2, 3)[None], [field], [field, field])
        >>> [ax.get_title() for ax in figure_registration(image, torch.ones(1, 2), image, found).axes]
        ['exemplar', 'after the global step', 'after all steps', 'target']
    """
    image, aim = (_single(a, b, name) for a, b, name in ((exemplar, target, "exemplar"), (target, exemplar, "target")))
    fields = [
        torch.from_numpy(plain_array(field)).float() for field in (registration.fields[0], registration.fields[-1])
    ]
    dims, shape = image.ndim - 1, tuple(image.shape[1:])
    if tuple(aim.shape[1:]) != shape or any(tuple(field.shape) != (1, dims, *shape) for field in fields):
        raise LandmarkError(
            f"exemplar, target and field must share one grid and be of one image: {shape}, {tuple(aim.shape[1:])} and "
            f"{tuple(fields[0].shape)}, which should be (1, {dims}, *S). Draw one image of the batch at a time."
        )
    step = max(shape) / LINES_ACROSS if grid_step is None else grid_step
    if not step > 0:
        raise LandmarkError(f"`grid_step` must be a positive number of voxels, got {grid_step}.")
    points = plain_points(exemplar_points, dims, "exemplar_points")
    source = torch.from_numpy(plain_array(image)).float()[None]
    carried = [carry_points(field, points[None].float())[0][0] for field in fields]
    warped = [warp(source, field)[0] for field in fields]
    start = _Picture(image, points, affine=affine)
    # A warped picture is shown like the target, whose voxels it has.
    affine = getattr(target, "affine", None) if affine is None else affine
    found = [
        _Picture(picture, own, affine=affine)
        for picture, own in zip((*warped, aim), (*carried, carried[-1]), strict=True)
    ]
    figure, axes = _grid(found[-1].view, start.view, 4, 1, title)
    _start(axes[0], start, "exemplar", TRUTH)
    for ax, picture, words in zip(axes[1:], found, ("after the global step", "after all steps", "target"), strict=True):
        _start(ax, picture, words, None)
    for ax, picture, field in zip(axes[1:], found, fields, strict=False):
        _draw_grid(ax, picture, field[0].numpy(), step)
    if truth is not None:
        _Picture(aim, plain_points(truth, dims, "truth"), affine=affine).mark(axes[3], TRUTH, "o", "truth", 30)
    for ax, picture in zip(axes[1:], found, strict=True):
        picture.mark(ax, PREDICTION, "+", "carried", 44)
    return figure


def _draw_grid(ax: Axes, picture: _Picture, field: np.ndarray, step: float) -> None:
    """Lines of the exemplar's grid in the target's voxels: level sets of the map from target to exemplar."""
    view = picture.view
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in field.shape[1:]), indexing="ij"))
    for axis in view.axes:
        flat = flat_picture((voxels + field)[axis], view, Projection.SLICE, picture.centre)
        levels = np.arange(0, field.shape[1 + axis], step)
        levels = levels[(levels > flat.min()) & (levels < flat.max())]
        if len(levels):
            lines = ax.contour(
                *(np.arange(n) for n in flat.shape), flat.T, levels, colors=GRID, linewidths=0.5, alpha=0.7
            )
            lines.set_gid(f"grid_{axis}")
