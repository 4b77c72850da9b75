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
"""Where a picture shows a landmark after any transform, measured without the package.

Three ways:

* ``blob``: intensity centroid of a Gaussian blob at the landmark, one channel each. Exact for affine maps.
* ``shrinking``: a deformation bends a blob, which moves its centroid by a bias that grows with the square of its width.
  Two widths are sent through the same draw and extrapolated to width zero. Cubic splines sample them, because linear
  interpolation widens a blob of one voxel by half of that again.
* ``grid``: for linear interpolation, and for maps with kinks, which tear any blob: the sampling grid is caught inside
  MONAI on its way to the interpolation, and searched with SciPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import monai.transforms as mt
import numpy as np
import pytest
import scipy.ndimage
import scipy.optimize
import torch
from blobs import rotation
from monai.data import MetaTensor
from monai.transforms.smooth_field import array as smooth_field

from monai_landmarks.transforms.with_landmarks import WithLandmarksd

TOLERANCE = 0.05  # voxels; the centroid of a linearly resampled blob is itself good to about 0.02


SHAPES = {2: (80, 72), 3: (48, 44, 40)}
CENTRES = {
    2: np.array([[41.3, 34.6], [32.2, 41.1], [46.7, 29.4]]),
    3: np.array([[23.3, 20.8, 19.4], [19.2, 24.1, 17.6], [27.4, 19.3, 22.2]]),
}
AFFINES = {2: np.diag([0.2, 0.3, 1.0]), 3: np.eye(4)}
AFFINES[2][:2, 2] = (0.05, -2.0)
AFFINES[3][:3, :3] = rotation(0.2, -0.15, 0.3) @ np.diag([0.9, -1.1, 2.0])
AFFINES[3][:3, 3] = (-31.0, 12.5, 70.0)


def item(dims: int, sigma: float = 2.2) -> dict[str, Any]:
    """One blob per channel on a film, or on an oblique anisotropic volume; the last landmark is missing."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPES[dims]], indexing="ij"), axis=-1)
    blobs = np.stack([100 * np.exp(-((index - c) ** 2).sum(-1) / (2 * sigma**2)) for c in CENTRES[dims]])
    affine = torch.tensor(AFFINES[dims])
    world = CENTRES[dims] @ AFFINES[dims][:-1, :-1].T + AFFINES[dims][:-1, -1]
    coarse = torch.tensor(AFFINES[dims] @ np.diag([1.3] * dims + [1.0]))
    target = MetaTensor(torch.zeros(1, *[int(n / 1.3) for n in SHAPES[dims]]), affine=coarse)
    mask = torch.tensor((blobs.sum(axis=0) > 90).astype(np.float32))[None]
    return {
        "image": MetaTensor(torch.tensor(blobs, dtype=torch.float32), affine=affine),
        "mask": MetaTensor(mask, affine=affine),
        "target": target,
        "wanted_affine": coarse,
        "points": torch.tensor(np.vstack([world, np.full((1, dims), np.nan)])),
    }


def voxels(sample: dict[str, Any], dims: int) -> np.ndarray:
    """Where the package puts the landmarks: by the affine of the image that came out."""
    affine = sample["image"].affine.numpy()
    keep = [*range(dims), -1]
    affine = affine[np.ix_(keep, keep)]
    points = sample["points"].numpy()
    assert np.isnan(points[-1]).all()
    return (points[:-1] - affine[:-1, -1]) @ np.linalg.inv(affine[:-1, :-1]).T


def centroids(image: torch.Tensor) -> np.ndarray:
    values = image.as_subclass(torch.Tensor).double().clamp_min(0)
    total = values.flatten(1).sum(dim=1)
    moments = [
        (values.movedim(a, -1) * torch.arange(values.shape[a])).flatten(1).sum(dim=1) for a in range(1, values.ndim)
    ]
    return (torch.stack(moments, dim=-1) / total[:, None]).numpy()


def errors_of_blobs(make: Callable[[int], Any], dims: int, seed: int) -> tuple[list[float], list[Any]]:
    samples = wrapped(make(dims), seed)(item(dims))
    samples = samples if isinstance(samples, list) else [samples]
    errors: list[float] = []
    for sample in samples:
        found, size = voxels(sample, dims), np.array(sample["image"].shape[1:])
        measured = centroids(sample["image"])
        whole = ((found > 8) & (found < size - 9)).all(axis=1)  # the others are cut by the border of a crop
        errors.extend(np.linalg.norm(measured - found, axis=1)[whole])
    return errors, samples


def errors_of_shrinking_blobs(make: Callable[[int], Any], dims: int, seed: int) -> tuple[list[float], list[Any]]:
    narrow, wide = (wrapped(make(dims), seed)(item(dims, sigma)) for sigma in (0.9, 1.5))
    first, second = centroids(narrow["image"]), centroids(wide["image"])
    to_zero = first - (second - first) * 0.9**2 / (1.5**2 - 0.9**2)
    return list(np.linalg.norm(to_zero - voxels(narrow, dims), axis=1)), [narrow]


def errors_on_the_grid(
    make: Callable[[int], Any], dims: int, seed: int, caught: list[np.ndarray]
) -> tuple[list[float], list[Any]]:
    caught.clear()
    sample = wrapped(make(dims), seed)(item(dims))
    found = voxels(sample, dims)
    return [
        float(np.linalg.norm(searched(caught[0], centre) - place))
        for centre, place in zip(CENTRES[dims], found, strict=True)
    ], [sample]


def searched(sampling: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Output voxel whose sampled place is ``point``, by SciPy, from several starts around the nearest node."""
    dims = len(point)
    distance = ((sampling - point.reshape((-1,) + (1,) * dims)) ** 2).sum(axis=0)
    node = np.array(np.unravel_index(distance.argmin(), distance.shape), dtype=float)

    def off(at: np.ndarray) -> np.ndarray:
        return (
            np.array([scipy.ndimage.map_coordinates(c, at[:, None], order=1, mode="nearest")[0] for c in sampling])
            - point
        )

    starts = node + np.stack(np.meshgrid(*[(-0.5, 0.5)] * dims), axis=-1).reshape(-1, dims)
    best = min((scipy.optimize.least_squares(off, s, diff_step=1e-3, xtol=1e-12) for s in starts), key=lambda r: r.cost)
    assert np.sqrt(2 * best.cost) < 1e-4
    return best.x


def catch_grids(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The sampling maps (D, *S) that MONAI hands to its interpolation, in input voxels."""
    maps: list[np.ndarray] = []
    resample, sample = mt.Resample.__call__, smooth_field.grid_sample

    def middle(shape: Any) -> np.ndarray:
        return (np.array(shape, dtype=float).reshape((-1,) + (1,) * len(shape)) - 1) / 2

    def catch_resample(self: Any, img: Any, grid: Any = None, *args: Any, **options: Any) -> Any:
        maps.append(np.asarray(grid, dtype=float)[: img.ndim - 1] + middle(img.shape[1:]))
        return resample(self, img, grid, *args, **options)

    def catch_grid_sample(input: Any, grid: Any, **options: Any) -> Any:  # noqa: A002
        normed = np.moveaxis(grid[0].double().numpy()[..., ::-1], -1, 0)
        size = np.array(input.shape[2:], dtype=float).reshape((-1,) + (1,) * len(normed))
        maps.append(((normed + 1) * size - 1) / 2)
        return sample(input=input, grid=grid, **options)

    monkeypatch.setattr(mt.Resample, "__call__", catch_resample)
    monkeypatch.setattr(smooth_field, "grid_sample", catch_grid_sample)
    return maps


def wrapped(transform: Any, seed: int, tolerance: float = TOLERANCE) -> WithLandmarksd:
    return WithLandmarksd(transform, "image", "points", tolerance=tolerance).set_random_state(seed)
