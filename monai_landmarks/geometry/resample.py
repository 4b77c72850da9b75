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
"""Read images through a spatial map, and smooth them before a coarser grid reads them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers import gaussian_1d, separable_filtering
from monai.utils import GridSamplePadMode, look_up_option

from .points import LandmarkError
from .spatial_map import SpatialMap

__all__ = ["MODES", "resample", "smooth"]

#: Names of an interpolation, with those of torch.
MODES = {"nearest": "nearest", "linear": "bilinear", "bilinear": "bilinear", "cubic": "bicubic", "bicubic": "bicubic"}
#: Parameter of Keys' cubic convolution at which it reproduces parabolas. Torch's is -0.75, which does not reproduce a
#: straight line: a blob 1.8 voxels wide moves by up to 0.026 voxel in 3D, here by 0.0009.
KEYS = -0.5


def resample(
    images: torch.Tensor,
    spatial_map: SpatialMap,
    mode: str = "linear",
    padding_mode: str = "zeros",
    fill: float = 0.0,
) -> torch.Tensor:
    """Read images once, at the positions a map gives for the voxels of its output grid.

    Args:
        images: ``(B, C, *S)``; integers are read as float32.
        spatial_map: of ``B`` maps, or of one that serves all images.
        mode: "nearest", "linear" or "cubic" (cubic convolution, Keys 1981, a = -0.5; torch's bicubic, 2D only, has -0.75
            and moves structures by hundredths of a voxel), in 2D and 3D.
        padding_mode: beyond the image: "zeros" shows ``fill``, "border" the nearest voxel, "reflection" mirrors.
        fill: value beyond the image for "zeros".

    Returns:
        ``(B, C, *spatial_map.shape)``: floating point type of ``images``, or its own type for "nearest".

    Raises:
        LandmarkError: if dimensions do not fit.
        ValueError: for an unknown option.

    Example:
        >>> image = torch.arange(4.0).reshape(1, 1, 4, 1).expand(1, 1, 4, 4)
        >>> half = torch.diag(torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64))[None].clone()
        >>> half[0, 0, 2] = 0.5
        >>> resample(image, SpatialMap(half, (3, 1)))[0, 0, :, 0]
        tensor([0.5000, 1.5000, 2.5000])
    """
    torch_mode = look_up_option(mode, MODES)
    padding = str(look_up_option(padding_mode, GridSamplePadMode).value)
    dims = images.ndim - 2
    if dims != len(spatial_map.shape):
        raise LandmarkError(f"a {len(spatial_map.shape)}D map cannot read images of shape {tuple(images.shape)}.")
    work = images if images.is_floating_point() else images.float()
    work = work - fill if fill and padding == "zeros" else work
    if torch_mode == "bicubic":
        grid = spatial_map.sampling_grid(device=images.device)
        read = _cubic_convolution(work, grid.expand(len(work), *grid.shape[1:]), padding)
    else:
        grid = spatial_map.sampling_grid(images.shape[2:], device=images.device)
        grid = grid.expand(len(work), *grid.shape[1:]).to(work.dtype)
        read = torch.nn.functional.grid_sample(work, grid, torch_mode, padding, align_corners=False)
    read = read + fill if fill and padding == "zeros" else read
    return read.to(images.dtype) if torch_mode == "nearest" else read


def _cubic_convolution(images: torch.Tensor, grid: torch.Tensor, padding: str) -> torch.Tensor:
    """Cubic convolution in any dimension, at voxel indices ``grid`` ``(B, *S, D)``."""
    sizes = images.shape[2:]
    taps = [_taps(grid[..., d].flatten(1), size, padding) for d, size in enumerate(sizes)]
    values = images.flatten(2)
    result = values.new_zeros(*values.shape[:2], grid[0, ..., 0].numel())

    def add(axis: int, index: torch.Tensor, weight: torch.Tensor) -> None:
        if axis == len(sizes):
            taken = values.gather(2, index.unsqueeze(1).expand(-1, values.shape[1], -1))
            result.addcmul_(taken, weight.unsqueeze(1))
            return
        for its_index, its_weight in taps[axis]:
            add(axis + 1, index * sizes[axis] + its_index, weight * its_weight)

    add(0, torch.zeros_like(taps[0][0][0]), torch.ones_like(taps[0][0][1]))
    return result.reshape(*images.shape[:2], *grid.shape[1:-1])


def _taps(position: torch.Tensor, size: int, padding: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The four voxels of one axis about each position, with their weights."""
    base = position.floor()
    found = []
    for step in range(-1, 3):
        r = (position - base - step).abs()
        near = ((KEYS + 2) * r - (KEYS + 3)) * r * r + 1
        far = ((KEYS * r - 5 * KEYS) * r + 8 * KEYS) * r - 4 * KEYS
        weight = torch.where(r <= 1, near, far)
        index = base.long() + step
        if padding == "zeros":
            weight = weight * ((index >= 0) & (index < size))
        if padding == "reflection":
            index = index.remainder(2 * size)
            index = torch.minimum(index, 2 * size - 1 - index)
        found.append((index.clamp(0, size - 1), weight))
    return found


def smooth(
    images: torch.Tensor, sigma: Sequence[float], truncated: float = 4.0, approx: str = "sampled"
) -> torch.Tensor:
    """Smooth images with a Gaussian; borders are repeated, for zeros beyond the image would darken its rim.

    Args:
        images: ``(B, C, *S)`` floating point.
        sigma: standard deviation along each axis in voxels; 0 leaves an axis as it is.
        truncated: reach of the filter in standard deviations.
        approx: MONAI's kernel: "sampled" (then made to sum to 1) or "erf", integrated over each voxel.

    Returns:
        the same shape.

    Example:
        >>> smooth(torch.ones(1, 1, 5, 6), (1.0, 0.0)).std().item() < 1e-6
        True
    """
    kernels = [
        gaussian_1d(torch.tensor(width), truncated, approx, normalize=approx == "sampled")
        if width > 0
        else torch.ones(1)
        for width in sigma
    ]
    return separable_filtering(images, kernels, mode="replicate")
