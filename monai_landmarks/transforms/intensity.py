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
"""Intensity transforms that know millimetres."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.networks.layers import GaussianFilter
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends

from ..geometry import LandmarkError, image_affine, voxel_sizes

__all__ = [
    "SmoothInMillimeters",
    "SmoothInMillimetersD",
    "SmoothInMillimetersDict",
    "SmoothInMillimetersd",
]


class SmoothInMillimeters(Transform):
    """Smooth an image with a Gaussian whose width is given in millimetres, whatever the image's voxel size.

    Before a resampling to coarser voxels it keeps fine structure from folding into the coarse grid; half of the new
    voxel size is a usual width. MONAI's ``GaussianSmooth`` counts in voxels, which differ from file to file.

    Args:
        sigma_mm: standard deviation in millimetres; 0 leaves the image as it is.
        truncated: width of the filter in standard deviations.

    Shapes: ``(C, *S)`` with an affine -> the same.

    Raises:
        LandmarkError: for a negative ``sigma_mm``, or an image without a usable affine.

    Example:
        >>> image = MetaTensor(torch.ones(1, 8, 8), affine=torch.diag(torch.tensor([0.2, 0.2, 1.0])))
        >>> SmoothInMillimeters(0.3)(image).shape
        torch.Size([1, 8, 8])
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, sigma_mm: float, truncated: float = 4.0) -> None:
        if not sigma_mm >= 0:
            raise LandmarkError(f"`sigma_mm` must be 0 or positive, got {sigma_mm}.")
        self.sigma_mm = float(sigma_mm)
        self.truncated = truncated

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        sizes = voxel_sizes(image_affine(img))
        if self.sigma_mm == 0:
            return img
        plain = img.as_tensor() if isinstance(img, MetaTensor) else img
        sigma = (self.sigma_mm / sizes).tolist()
        # Borders are repeated: zeros beyond the film would darken its rim.
        reach = [int(self.truncated * s + 0.5) for s in sigma]
        padding = [r for size in reversed(reach) for r in (size, size)]
        padded = torch.nn.functional.pad(plain[None].float(), padding, mode="replicate")
        smooth = GaussianFilter(len(sigma), sigma, truncated=self.truncated)(padded)[0]
        inner = tuple(slice(r, r + n) for r, n in zip(reach, plain.shape[1:], strict=True))
        result = smooth[(slice(None), *inner)].to(plain.dtype)
        if not isinstance(img, MetaTensor):
            return result
        return MetaTensor(result, meta=img.meta, applied_operations=img.applied_operations)


class SmoothInMillimetersd(MapTransform):
    """Dictionary version of :class:`SmoothInMillimeters`.

    Args:
        keys: images.
        sigma_mm: standard deviation in millimetres.
        allow_missing_keys: whether an item may lack one of ``keys``.
    """

    backend = SmoothInMillimeters.backend

    def __init__(self, keys: KeysCollection, sigma_mm: float, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.smooth = SmoothInMillimeters(sigma_mm)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.smooth(d[key])
        return d


SmoothInMillimetersD = SmoothInMillimetersDict = SmoothInMillimetersd
