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
"""An item's images and landmarks after a transform whose sampling was measured: true affines, moved points."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd

from ...data import Landmarks
from ...geometry import (
    LandmarkError,
    affine_nd,
    apply_affine,
    check_points,
    image_affine,
    invert_affine,
    mark_deformed,
    plain_tensor,
    present,
)
from ...geometry.sampled_map import invert_sampled_map, shown_in_folds
from ..spatial import as_points
from .sampling_probe import Sampling

__all__ = ["ItemBefore", "check_images", "follow", "told_affine"]

_AGREEMENT = 0.05  # voxels by which images of one deformation may be sampled differently
_ROUNDING = 0.55  # and one of them where it takes the nearest voxel


@dataclass(frozen=True)
class ItemBefore:
    """What has to be known of an item before a transform.

    Args:
        images: key to channel-first image ``(C, *S)``.
        points: key to landmarks as they are in the item.
        in_voxels: whether the landmarks are indices of the first image, and not world millimetres.
        name: of the transform, for messages.
        tolerance: in voxels.
    """

    images: dict[Hashable, torch.Tensor]
    points: dict[Hashable, Any]
    in_voxels: bool
    name: str
    tolerance: float

    def __post_init__(self) -> None:
        for key, image in self.images.items():
            _check_image(image, key)
        for key, points in self.points.items():
            check_points(as_points(points, str(key)), self.dims, name=str(key))

    @property
    def dims(self) -> int:
        return self.first.ndim - 1

    @property
    def first(self) -> torch.Tensor:
        return next(iter(self.images.values()))

    def indices(self, key: Hashable) -> torch.Tensor:
        """Landmarks as indices of the first image, float64 ``(N, D)``."""
        points = as_points(self.points[key], str(key)).detach().to(torch.float64)
        return points if self.in_voxels else apply_affine(points, invert_affine(_world(self.first)))


def _check_image(image: Any, key: Hashable) -> None:
    if not isinstance(image, (torch.Tensor, np.ndarray)):
        raise LandmarkError(
            f"{key!r} holds {type(image).__name__}, not an image: put LoadImaged before this transform."
        )
    if image.ndim not in (3, 4):
        raise LandmarkError(
            f"the image under {key!r} must be channel-first (C, *S) in 2D or 3D, got shape {tuple(image.shape)}: add the "
            "channel with EnsureChannelFirstd, and transform items, not batches."
        )
    if isinstance(image, MetaTensor):
        image_affine(image)


def _raw_affine(image: Any) -> torch.Tensor:
    """The image's own affine, in the space it names; the identity for an image without."""
    dims = image.ndim - 1
    return affine_nd(image.affine, dims) if isinstance(image, MetaTensor) else torch.eye(dims + 1, dtype=torch.float64)


def _world(image: Any) -> torch.Tensor:
    return image_affine(image) if isinstance(image, MetaTensor) else _raw_affine(image)


def told_affine(before: Any, after: MetaTensor) -> torch.Tensor:
    """Give the map from output to input index that the affines of an image before and after a transform tell."""
    return invert_affine(_raw_affine(before)) @ _raw_affine(after)


def check_images(sample: Mapping[Hashable, Any], before: ItemBefore) -> None:
    """Refuse what a transform gave if it is no image with an affine.

    Args:
        sample: the item it gave.
        before: the item it was given.

    Raises:
        LandmarkError: with the likely cause.
    """
    for key, image in before.images.items():
        after = sample.get(key)
        if not isinstance(after, MetaTensor):
            raise LandmarkError(
                f"{before.name} gave {type(after).__name__} under {key!r}, which has no affine to make true: keep "
                "monai.data.set_track_meta(True), and leave ToTensord and the like out of what is wrapped."
            )
        if after.ndim != image.ndim:
            raise LandmarkError(
                f"{before.name} turned the image under {key!r} of shape {tuple(image.shape)} into {tuple(after.shape)}: "
                "landmarks follow from one channel-first image to another of the same dimension."
            )
        image_affine(after)


def follow(
    sample: dict[Hashable, Any], before: ItemBefore, samplings: Mapping[Hashable, Sampling]
) -> dict[Hashable, Any]:
    """Make the affines of the images true and move the landmarks with them.

    Args:
        sample: the item that the transform gave; changed in place.
        before: the item it was given.
        samplings: of every image key, or empty where the affines are known to be true.

    Returns:
        ``sample``.

    Raises:
        LandmarkError: if images of the item went different ways, or a landmark cannot be followed.
    """
    deformed = [k for k, s in samplings.items() if s.kind == "deformed"]
    if deformed:
        _follow_deformed(sample, before, samplings, deformed[0])
        return sample
    _check_steps(before, samplings)
    for key, sampling in samplings.items():
        if sampling.kind != "told":
            _write_affine(sample[key], _raw_affine(before.images[key]) @ sampling.affine)
    for key in before.images:  # as those of other draws may be, with which it is collated
        mark_deformed(sample[key], _names(before), deformed=False)
    for key, points in before.points.items():
        if before.in_voxels:
            first = next(iter(before.images))
            back = invert_affine(told_affine(before.first, sample[first]))
            sample[key] = _like(points, apply_affine(before.indices(key), back))
        else:
            sample[key] = _like(points, as_points(points, str(key)))
    return sample


def _check_steps(before: ItemBefore, samplings: Mapping[Hashable, Sampling]) -> None:
    """The points follow the smooth images of the item; without any, steps that no affine describes are refused."""
    worst = max((s.deviation for s in samplings.values()), default=0.0)
    if any(s.kind != "steps" for s in samplings.values()) or worst <= before.tolerance:
        return
    how = f"up to {worst:.2f} voxels off any affine map, and tolerance is {before.tolerance:g}"
    accept = f" Or accept that with tolerance={max(worst + 0.1, 0.5):.1f}: the points are right on average."
    if not math.isfinite(worst):
        how, accept = "off any affine map, and the image is deformed as well, so that no smooth map is known either", ""
    raise LandmarkError(
        f"{before.name} samples the image in steps, not smoothly (as modes 'nearest' and 'area' do, and a low resolution "
        f"made with them): structures as small as landmarks lie {how}. Give it a linear mode ('bilinear', or 'trilinear' "
        "for Resize, Zoom and RandSimulateLowResolution in 3D; the argument is mode, downsample_mode or grid_mode), and "
        f"anti_aliasing=True where it shrinks.{accept}"
    )


def _follow_deformed(
    sample: dict[Hashable, Any], before: ItemBefore, samplings: Mapping[Hashable, Sampling], lead: Hashable
) -> None:
    sampling = samplings[lead]
    for key in samplings:
        if key != lead:
            _check_agreement(before, samplings, lead, key)
        _write_affine(sample[key], _raw_affine(before.images[key]) @ sampling.affine)
        mark_deformed(sample[key], _names(before))
    for key, points in before.points.items():
        indices = _deformed_indices(before.indices(key), sampling, before, key)
        moved = indices if before.in_voxels else apply_affine(indices, _world(sample[lead]))
        sample[key] = _like(points, moved)


def _deformed_indices(indices: torch.Tensor, sampling: Sampling, before: ItemBefore, key: Hashable) -> torch.Tensor:
    flat = indices.reshape(-1, indices.shape[-1])
    if not bool(present(flat).any()):
        return indices
    places = flat - sampling.centre.to(flat)
    found, residual = invert_sampled_map(sampling.ramps, places, sampling.valid)
    lost = (residual > before.tolerance).nonzero().flatten().tolist()
    if lost:
        raise LandmarkError(
            f"{before.name} tore or folded the image at landmarks {lost} of {key!r}: no place of the output shows them "
            f"(nearest {float(residual[lost].max()):.2f} voxels off). Make the deformation weaker or smoother."
        )
    folded = shown_in_folds(sampling.ramps, places, _away_from_border(sampling)).nonzero().flatten().tolist()
    if folded:
        raise LandmarkError(
            f"{before.name} folded the image over itself at landmarks {folded} of {key!r}, so that they are shown several "
            "times. Make the deformation weaker (magnitude, distort_limit) or smoother (sigma, spacing)."
        )
    return found.to(indices.device).reshape(indices.shape)


def _away_from_border(sampling: Sampling) -> torch.Tensor:
    """Where folds are folds: at the border of the input, padding that mirrors looks like one."""
    away = sampling.seen
    for d, half in enumerate(sampling.centre.tolist()):
        away = away & (sampling.ramps[d].abs() <= max(half - 2, half / 2))
    return away


def _check_agreement(before: ItemBefore, samplings: Mapping[Hashable, Sampling], lead: Hashable, key: Hashable) -> None:
    one, other = samplings[lead], samplings[key]
    first, second = before.images[lead], before.images[key]
    same_grid = (
        first.shape[1:] == second.shape[1:]
        and one.ramps.shape == other.ramps.shape
        and torch.allclose(_raw_affine(first), _raw_affine(second), rtol=1e-5, atol=1e-5)
    )
    if same_grid:
        both = one.valid & other.seen
        places = other.ramps[:, both] + other.centre.to(other.ramps)[:, None]
        apart = (one.ramps[:, both] - other.ramps[:, both]).abs()
        rounded = bool(((places - places.round()).abs() < 1e-3).all())
        same_grid = not apart.numel() or float(apart.max()) <= (_ROUNDING if rounded else _AGREEMENT)
    if not same_grid:
        raise LandmarkError(
            f"{before.name} deformed the images under {lead!r} and {key!r} differently, so that landmarks cannot follow "
            "both. Images that are deformed together must lie on one grid (resample them first, for instance with "
            "ResampleToMatchd) and be changed by the same draw; name in keys only those."
        )


def _write_affine(image: MetaTensor, affine: torch.Tensor) -> None:
    """In the size that the image's affine has, 3x3 or 4x4."""
    size = image.affine.shape[-1] - 1
    image.affine = torch.as_tensor(to_affine_nd(size, affine), dtype=torch.float64)


def _names(before: ItemBefore) -> Sequence[str]:
    return [str(key) for key in before.points]


def _like(original: Any, moved: torch.Tensor) -> Any:
    """Points in the container they came in: ``Landmarks``, array, or a plain tensor of their type."""
    if isinstance(original, Landmarks):
        return original.replace(points=moved.cpu().numpy())
    if isinstance(original, np.ndarray):
        kind = original.dtype if np.issubdtype(original.dtype, np.floating) else np.dtype(np.float64)
        return moved.cpu().numpy().astype(kind)
    if isinstance(original, torch.Tensor):
        plain = plain_tensor(original)
        return moved.to(plain.device, plain.dtype if plain.is_floating_point() else torch.float64)
    return moved
