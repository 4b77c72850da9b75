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
"""What a transform really does to the voxels of an image, measured by sending coordinate ramps through it.

The probe is an image whose channels hold the coordinates of its own voxels: whatever resampling it goes through, its
values then say which input voxel each output voxel shows. A channel that is constant says where the output shows the
image at all, and the first channel of the image itself says that the same draw was repeated.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.data import MetaTensor
from monai.utils import look_up_option

from ...geometry import LandmarkError, plain_tensor
from .sampled_places import SampledPlaces

__all__ = ["Sampling", "coordinate_ramps", "measure_sampling", "read_ramps"]

#: Unlike any padding value, so that padding is not taken for image.
CONSTANT = 3.7
_KINDS = ("told", "affine", "steps", "deformed")


@dataclass(frozen=True)
class Sampling:
    """The map from output to input voxels of one image.

    Args:
        kind: ``"told"``: as the image's affine says. ``"affine"``: another affine. ``"steps"``: an affine followed in
            steps (nearest neighbour, block averages). ``"deformed"``: not affine.
        affine: float64 ``(D + 1, D + 1)``, output to input index: exact, or the nearest one (least squares).
        centre: ``(D,)`` middle of the input grid, in voxels.
        ramps: ``(D, *S)`` input voxel of every output voxel, counted from ``centre``.
        seen: bool ``(*S)``, where the output shows the input image.
        valid: bool ``(*S)``, where ``ramps`` is to be believed: no mirrored or smeared border.
        deviation: voxels of the input that structures of two voxels may lie off the affine, for ``"steps"``.
    """

    kind: str
    affine: torch.Tensor
    centre: torch.Tensor
    ramps: torch.Tensor
    seen: torch.Tensor
    valid: torch.Tensor
    deviation: float = 0.0

    def __post_init__(self) -> None:
        look_up_option(self.kind, _KINDS)


def coordinate_ramps(image: torch.Tensor) -> MetaTensor:
    """Give the probe that belongs to an image: its first channel, a ramp along each axis and a constant.

    Args:
        image: channel-first ``(C, *S)``.

    Returns:
        float32 MetaTensor ``(1 + D + 1, *S)`` with a copy of the image's meta information. The ramps are centred, which
        halves the rounding error of float32: 1e-4 voxel for 2000 voxels.
    """
    plain = plain_tensor(image)
    shape = plain.shape[1:]
    ramps = [
        (torch.arange(n, dtype=torch.float32, device=plain.device) - (n - 1) / 2)
        .reshape([-1 if a == axis else 1 for a in range(len(shape))])
        .expand(shape)
        for axis, n in enumerate(shape)
    ]
    constant = torch.full(shape, CONSTANT, dtype=torch.float32, device=plain.device)
    probe = torch.stack([plain[0].to(torch.float32), *ramps, constant])
    if not isinstance(image, MetaTensor):
        return MetaTensor(probe)
    return MetaTensor(probe, meta=copy.deepcopy(image.meta), applied_operations=copy.deepcopy(image.applied_operations))


def read_ramps(probe: Any, image: MetaTensor, source: torch.Tensor, name: str) -> torch.Tensor:
    """Check that the probe went the way of the image, and give its ramps and constant.

    Args:
        probe: what the transform made of the probe.
        image: what it made of the image.
        source: the image before.
        name: of the transform, for messages.

    Returns:
        float32 ``(D + 1, *S)``.

    Raises:
        LandmarkError: if the transform did something else to the probe than to the image, because it looks at the
            image's content or draws its random numbers in private.
    """
    dims = source.ndim - 1
    expected = (dims + 2, *image.shape[1:])
    if not isinstance(probe, MetaTensor) or tuple(probe.shape) != expected:
        raise LandmarkError(
            f"{name} gave an image of shape {tuple(image.shape)}, and {tuple(getattr(probe, 'shape', ()))} where "
            f"{expected} was due when it was repeated on coordinate ramps: it looks at the image's content (as "
            "CropForegroundd does) or changes the channels, so its sampling cannot be measured. Wrap only the part of "
            "it that moves voxels by a draw; crops and pads need no wrapper, or one of their own."
        )
    same_affine = torch.allclose(plain_tensor(probe.affine), plain_tensor(image.affine), rtol=1e-6, atol=1e-6)
    plain = plain_tensor(probe)
    if not same_affine or not _same_picture(plain[0], plain_tensor(image)[0], source.dtype):
        raise LandmarkError(
            f"{name} did not do the same to coordinate ramps as to the image, although it had the same random state: it "
            "looks at the image's content, or draws its random numbers from a private generator. Wrap only the spatial "
            "transform, and let it draw from MONAI's `self.R`."
        )
    return plain[1:].to(torch.float32)


def _same_picture(probe: torch.Tensor, image: torch.Tensor, dtype: torch.dtype) -> bool:
    image = image.to(probe.device, torch.float32)
    finite = image[torch.isfinite(image)]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    coarse = max(
        torch.finfo(dtype).eps if dtype.is_floating_point else 0.0, 1e-6
    )  # half precision images are sampled coarsely
    whole = 0.0 if dtype.is_floating_point else 1.0
    return torch.allclose(probe.float(), image, rtol=0.0, atol=100 * coarse * scale + whole, equal_nan=True)


def measure_sampling(
    ramps: torch.Tensor, input_shape: Sequence[int], told: torch.Tensor, name: str, deforms: bool | None = None
) -> Sampling:
    """Tell what map the ramps show, and whether the affine that the transform wrote is true.

    Args:
        ramps: ``(D + 1, *S)`` from :func:`read_ramps`.
        input_shape: of the image before.
        told: float64 ``(D + 1, D + 1)`` output to input index, by the affines of the image before and after.
        name: of the transform, for messages.
        deforms: whether the transform is known to deform images, or not to; None where nothing is known.

    Raises:
        LandmarkError: if the ramps are no coordinates any more.
    """
    half = torch.tensor([(n - 1) / 2 for n in input_shape], dtype=torch.float64)
    centred = told.clone().cpu()
    centred[:-1, -1] -= half
    seen = (ramps[-1] / CONSTANT - 1).abs() < 1e-3
    places = SampledPlaces(ramps[:-1], seen, half)
    if int(seen.sum()) < 4 ** len(half):
        raise LandmarkError(
            f"{name} gave an image that shows nothing of the one before, or changes intensities as well as places, so "
            "that coordinate ramps sent through it are no coordinates any more. Wrap only the spatial transform, and "
            "see that its ranges keep the image in the picture."
        )
    kind, affine, valid, deviation = places.classify(centred, deforms)
    affine = affine.clone()
    affine[:-1, -1] += half
    return Sampling(kind, affine, half, places.ramps, seen, seen if valid is None else valid, deviation)
