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
"""Flat pictures of 2D and 3D images: which axes a picture shows, which way round, and what lies in it.

A film is one picture, shown as its annotator saw it: first axis to the right, second axis down. A volume is three
pictures, axial, coronal and sagittal, turned as radiologists hang them: the patient's right (and front) on the left.
Coordinates inside a picture stay voxel indices; only the directions of its axes change.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.utils import StrEnum, look_up_option

from monai_landmarks.geometry import LandmarkError, affine_nd, image_affine, present, voxel_sizes

from .canvas import plain_array

__all__ = [
    "Projection",
    "View",
    "choose_planes",
    "flat_picture",
    "grey_image",
    "grey_window",
    "known_affine",
    "slice_centre",
    "voxel_axes",
    "world_views",
]

# World axis of the normal: name of the plane, then the world axes to the right and up.
PLANES = {2: ("axial", 0, 1), 1: ("coronal", 0, 2), 0: ("sagittal", 1, 2)}
LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))


class Projection(StrEnum):
    """How a volume becomes a picture."""

    SLICE = "slice"
    MAX = "max"
    MEAN = "mean"


@dataclass(frozen=True)
class View:
    """One picture of an image.

    Attributes:
        axes: tensor axes shown to the right and upwards (2D: downwards).
        normal: tensor axis looked along, None in 2D.
        reverse: whether the index falls to the right, and whether it falls upwards.
        size: width and height in millimetres (in voxels where nothing is known of the affine).
        aspect: height of a voxel over its width, as drawn.
        title: what the picture is called.
        letters: directions at its left, right, bottom and top edge; empty where unknown.
    """

    axes: tuple[int, int]
    normal: int | None
    reverse: tuple[bool, bool]
    size: tuple[float, float]
    aspect: float
    title: str = ""
    letters: tuple[str, str, str, str] = ("", "", "", "")


def known_affine(image: Any, affine: Any, spatial_dims: int) -> torch.Tensor | None:
    """The affine given, else the image's own; None for a plain tensor, which says nothing about millimetres."""
    if affine is not None:
        return affine_nd(affine, spatial_dims)
    return image_affine(image, spatial_dims) if hasattr(image, "affine") else None


def voxel_axes(affine: torch.Tensor) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Tell which tensor axis runs nearest along each world axis, and whether it runs against it.

    Args:
        affine: ``(4, 4)``.

    Returns:
        for the world axes R, A, S: tensor axes (a permutation of 0, 1, 2), and True where the index grows to L, P or I.

    Example:
        >>> import torch
        >>> voxel_axes(torch.tensor([[0.0, -1, 0, 0], [0, 0, 2, 0], [3, 0, 0, 0], [0, 0, 0, 1]]))
        ((1, 2, 0), (True, False, False))
    """
    matrix = affine.detach().cpu().numpy()[:3, :3]
    cosines = matrix / np.linalg.norm(matrix, axis=0)
    best = max(itertools.permutations(range(3)), key=lambda order: sum(abs(cosines[w, order[w]]) for w in range(3)))
    return best, tuple(bool(cosines[w, best[w]] < 0) for w in range(3))  # type: ignore[return-value]


def world_views(spatial_shape: Sequence[int], affine: torch.Tensor | None) -> list[View]:
    """List the pictures of an image: one in 2D, three in 3D.

    Args:
        spatial_shape: ``D`` sizes.
        affine: ``(D + 1, D + 1)``, None where it is unknown: voxels are then cubes and the edges carry index names.

    Example:
        >>> import torch
        >>> [(v.title, v.axes, v.letters) for v in world_views((9, 9, 9), torch.eye(4))]
        [('axial', (0, 1), ('R', 'L', 'P', 'A')), ('coronal', (0, 2), ('R', 'L', 'I', 'S')), ('sagittal', ...)]
    """
    dims = len(spatial_shape)
    voxel = np.ones(dims) if affine is None else voxel_sizes(affine).numpy()
    if dims == 2:
        return [_view((0, 1), None, (False, False), spatial_shape, voxel)]
    order, against = voxel_axes(torch.eye(4) if affine is None else affine)
    views = []
    for world, (title, right, up) in PLANES.items():
        axes = (order[right], order[up])
        if affine is None:
            names = ("", "ijk"[axes[0]], "", "ijk"[axes[1]])
            views.append(_view(axes, order[world], (False, False), spatial_shape, voxel, "", names))
            continue
        # The positive world direction, R or A, is on the left: the index falls to the right where it grows to R or A.
        letters = (LETTERS[right][1], LETTERS[right][0], *LETTERS[up])
        reverse = (not against[right], against[up])
        views.append(_view(axes, order[world], reverse, spatial_shape, voxel, title, letters))
    return views


def choose_planes(views: Sequence[View], planes: Sequence[str] | None) -> list[View]:
    """Keep the pictures of some planes of a volume, in the order asked for.

    Args:
        views: from :func:`world_views`.
        planes: some of "axial", "coronal", "sagittal"; None for all views.

    Raises:
        ValueError: for an unknown plane, or planes of an image that has none: a film, or a volume without an affine.
    """
    if planes is None:
        return list(views)
    named = {view.title: view for view in views if view.title}
    wanted = [planes] if isinstance(planes, str) else list(planes)
    if not named or not wanted:
        raise ValueError(
            f"`planes` {planes} were asked of an image whose planes nobody knows: it needs an affine in 3D."
        )
    return [named[look_up_option(plane, list(named))] for plane in wanted]


def _view(
    axes: tuple[int, int],
    normal: int | None,
    reverse: tuple[bool, bool],
    shape: Sequence[int],
    voxel: np.ndarray,
    title: str = "",
    letters: tuple[str, ...] = ("", "", "", ""),
) -> View:
    size = tuple(float(shape[a] * voxel[a]) for a in axes)
    return View(axes, normal, reverse, size, float(voxel[axes[1]] / voxel[axes[0]]), title, letters)  # type: ignore[arg-type]


def flat_picture(volume: np.ndarray, view: View, projection: str, centre: Sequence[int]) -> np.ndarray:
    """Flatten an image to a view.

    Args:
        volume: ``(*S)``.
        view: one of :func:`world_views`.
        projection: "slice" through ``centre``, or the "max" or "mean" along the view's normal; a film is flat.
        centre: voxel index, used for slices.

    Returns:
        array ``(size of axes[0], size of axes[1])``.

    Raises:
        ValueError: for an unknown projection.
    """
    option = look_up_option(projection, Projection)
    if view.normal is None:
        flat = volume
    elif option == Projection.SLICE:
        flat = volume.take(centre[view.normal], axis=view.normal)
    else:
        flat = volume.max(axis=view.normal) if option == Projection.MAX else volume.mean(axis=view.normal)
    return flat if view.axes[0] < view.axes[1] else flat.T


def grey_image(image: Any) -> np.ndarray:
    """Bring a channel-first image to one grey channel ``(*S)``; several channels become their mean."""
    values = plain_array(image)
    if values.ndim not in (3, 4):
        raise LandmarkError(
            f"the image must be channel-first, (C, W, H) or (C, X, Y, Z), got shape {values.shape}: "
            + ("add the channel with image[None]." if values.ndim == 2 else "draw one image of the batch at a time.")
        )
    grey = values[0] if values.shape[0] == 1 else values.mean(axis=0)
    return np.nan_to_num(grey, nan=float(np.nanmin(grey)) if np.isfinite(grey).any() else 0.0)


def grey_window(pictures: Sequence[np.ndarray]) -> tuple[float, float]:
    """Grey window from the 0.5th to the 99.5th percentile: a burned-in white number must not darken the rest."""
    values = np.concatenate([picture.reshape(-1) for picture in pictures])
    low, high = np.percentile(values, (0.5, 99.5))
    return (float(low), float(high)) if high > low else (float(values.min()), float(values.max()) + 1e-6)


def slice_centre(points: Sequence[torch.Tensor | None], spatial_shape: Sequence[int]) -> tuple[int, ...]:
    """The voxel that slices go through: the centroid of the first points that are there, else the middle."""
    for candidate in points:
        if candidate is not None and bool(present(candidate).any()):
            middle = candidate[present(candidate)].mean(dim=0).tolist()
            return tuple(min(max(round(m), 0), size - 1) for m, size in zip(middle, spatial_shape, strict=True))
    return tuple(size // 2 for size in spatial_shape)
