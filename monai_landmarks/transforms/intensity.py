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
"""Intensity transforms: smoothing that knows millimetres, and the random shift and scale of the SpatialConfiguration-Net."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, get_track_meta
from monai.transforms import MapTransform, Randomizable, RandomizableTransform, Transform
from monai.utils import TransformBackends, convert_to_tensor, get_seed

from ..geometry import LandmarkError, image_affine, plain_tensor, smooth, voxel_sizes

__all__ = [
    "BatchedShiftScaleIntensity",
    "RandShiftScaleIntensity",
    "RandShiftScaleIntensityD",
    "RandShiftScaleIntensityDict",
    "RandShiftScaleIntensityd",
    "SmoothInMillimeters",
    "SmoothInMillimetersD",
    "SmoothInMillimetersDict",
    "SmoothInMillimetersd",
    "draw_shift_scale",
    "like_image",
    "shift_scale_intensity",
]

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def like_image(values: torch.Tensor, img: torch.Tensor) -> torch.Tensor:
    """Give new intensities the device, the type and the meta data of the image they belong to.

    Args:
        values: the new intensities, plain, on any device.
        img: the image. For an integer image the values are rounded to the nearest integer its type can hold.

    Returns:
        a MetaTensor with the affine, meta data and applied operations of ``img``, or a plain tensor where ``img`` is one.

    Example:
        >>> like_image(torch.tensor([[1.6, 300.0]]), torch.zeros(1, 2, dtype=torch.uint8))
        tensor([[  2, 255]], dtype=torch.uint8)
    """
    if img.dtype in _INTEGERS:
        limits = torch.iinfo(img.dtype)
        values = values.round().clamp(limits.min, limits.max)
    result = values.to(device=img.device, dtype=img.dtype)
    if not isinstance(img, MetaTensor):
        return result
    return MetaTensor(result, meta=dict(img.meta), applied_operations=list(img.applied_operations))


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
        sigma = (self.sigma_mm / sizes).tolist()
        return like_image(smooth(plain_tensor(img)[None].float(), sigma, self.truncated, approx="erf")[0], img)


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


def shift_scale_intensity(
    image: torch.Tensor,
    shift: float | torch.Tensor,
    scale: float | torch.Tensor,
    clip: tuple[float | None, float | None] | None = None,
) -> torch.Tensor:
    """Shift the intensities, then multiply them, then clip them: ``v' = clip((v + shift) * scale)``.

    Args:
        image: ``(C, *S)``, or a batch ``(B, C, *S)``, on any device. Integers are computed and given back as float32.
        shift: added first; a number, or a tensor ``(B,)`` with one for each entry of the first axis of ``image``.
        scale: multiplied next (1 changes nothing); a number or ``(B,)``.
        clip: lowest and highest value of the result, None for an open end; None does not clip.

    Returns:
        a plain tensor of the shape of ``image``.

    Raises:
        LandmarkError: if ``shift`` or ``scale`` is neither one number nor one for each entry of the first axis.

    Example:
        >>> batch = torch.tensor([-1.0, 0.0, 1.0]).expand(2, 1, 3)
        >>> shift_scale_intensity(batch, torch.tensor([0.25, 0.0]), torch.tensor([1.0, 0.5]), clip=(-1, 1))
        tensor([[[-0.7500,  0.2500,  1.0000]],
        <BLANKLINE>
                [[-0.5000,  0.0000,  0.5000]]])
    """
    plain = plain_tensor(image)
    plain = plain if plain.is_floating_point() else plain.to(torch.float32)
    factors = []
    for name, value in (("shift", shift), ("scale", scale)):
        factor = plain_tensor(torch.as_tensor(value)).to(device=plain.device, dtype=plain.dtype)
        if factor.ndim > 1 or (factor.ndim == 1 and factor.shape[0] not in (1, plain.shape[0])):
            raise LandmarkError(
                f"`{name}` must be one number, or one for each of the {plain.shape[0]} entries of the image's first axis "
                f"(the batch), got shape {tuple(factor.shape)} for an image of shape {tuple(plain.shape)}."
            )
        factors.append(factor.reshape(-1, *[1] * (plain.ndim - 1)))
    result = (plain + factors[0]) * factors[1]
    return result if clip is None or tuple(clip) == (None, None) else result.clamp(*clip)


def draw_shift_scale(
    R: np.random.RandomState,
    shift_range: float | Sequence[float],
    scale_range: float | Sequence[float],
    batch: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a uniform shift, and one plus a uniform scale, for one image or for each image of a batch.

    A batch of B takes from ``R`` what B single draws one after the other would take, so both forms of the augmentation
    have one distribution, and the same seed gives the same values.

    Args:
        R: source of randomness.
        shift_range: ``a`` for a shift in U(-a, a), or (low, high).
        scale_range: ``b`` for a factor in 1 + U(-b, b), or (low, high) of what is added to 1.
        batch: None for one image.

    Returns:
        shift and factor, float64: scalars, or ``(B,)``.

    Raises:
        LandmarkError: for a range that is not one, or that holds a factor of 0 or less.

    Example:
        >>> shift, scale = draw_shift_scale(np.random.RandomState(0), 0.25, 0.25, batch=2)
        >>> shift.shape, bool((shift.abs() <= 0.25).all()), bool(((scale - 1).abs() <= 0.25).all())
        (torch.Size([2]), True, True)
    """
    low, high = zip(_interval(shift_range, "shift_range"), _interval(scale_range, "scale_range"), strict=True)
    if low[1] <= -1:
        raise LandmarkError(
            f"`scale_range` {scale_range} lets the factor 1 + {low[1]:g} be 0 or negative, which erases the image or turns "
            "black to white: it is what is added to 1, SCN has 0.25."
        )
    drawn = torch.from_numpy(np.asarray(R.uniform(low, high, size=(batch or 1, 2))))
    shift, scale = drawn[:, 0], 1 + drawn[:, 1]
    return (shift[0], scale[0]) if batch is None else (shift, scale)


def _interval(value: float | Sequence[float], name: str) -> tuple[float, float]:
    low, high = (-value, value) if isinstance(value, (int, float)) else tuple(value)
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise LandmarkError(f"`{name}` must be one number >= 0 for (-value, value), or (low, high), got {value}.")
    return float(low), float(high)


class RandShiftScaleIntensity(RandomizableTransform):
    """Shift all intensities by one random number, then scale them by another, then clip, as SCN is trained.

    ``v' = clip((v + U(-a, a)) * (1 + U(-b, b)), low, high)``

    Payer et al., Medical Image Analysis 2019, section 3, name factors of [0.75, 1.25] and shifts of [-0.25, 0.25] for
    images in [-1, 1], in no order. The public code shifts first, scales second and clips to [-1, 1], and this class
    does the same; for its spine CT nets it has 0.15 and 0.15. The draw is one for all channels. MONAI's
    ``RandShiftIntensity``, ``RandScaleIntensity`` and a clip give the same values in three transforms.

    Args:
        shift_range: ``a``, or (low, high).
        scale_range: ``b``, or (low, high) of what is added to 1.
        clip: lowest and highest value of the result; None does not clip.
        prob: of doing anything; an image left alone is not clipped either.

    Shapes: ``(C, *S)`` -> the same; integers become float32.

    Raises:
        LandmarkError: for an empty range, or one with factors of 0 or less.

    Example:
        >>> augment = RandShiftScaleIntensity(0.25, 0.25).set_random_state(0)
        >>> augment(torch.full((1, 2, 2), 0.5)).unique().numel(), augment.shift, augment.scale
        (1, 0.107..., 1.051...)
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        shift_range: float | Sequence[float] = 0.25,
        scale_range: float | Sequence[float] = 0.25,
        clip: tuple[float | None, float | None] | None = (-1.0, 1.0),
        prob: float = 1.0,
    ) -> None:
        RandomizableTransform.__init__(self, prob)
        draw_shift_scale(np.random.RandomState(0), shift_range, scale_range)  # a wrong range is found here
        if clip is not None and None not in clip and not clip[0] < clip[1]:  # type: ignore[operator]
            raise LandmarkError(f"`clip` must be (low, high) with low below high, got {clip}.")
        self.shift_range = shift_range
        self.scale_range = scale_range
        self.clip = clip
        self.shift, self.scale = 0.0, 1.0

    def randomize(self, data: Any | None = None) -> None:
        """Draw the shift and the factor of the next image."""
        super().randomize(None)
        if self._do_transform:
            shift, scale = draw_shift_scale(self.R, self.shift_range, self.scale_range)
            self.shift, self.scale = shift.item(), scale.item()

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        """Shift, scale and clip one image.

        Args:
            img: ``(C, *S)``.
            randomize: draw first; False repeats the last draw.
        """
        if randomize:
            self.randomize()
        image = convert_to_tensor(img, track_meta=get_track_meta())
        if not self._do_transform:
            return image
        values = shift_scale_intensity(image, self.shift, self.scale, self.clip)
        return like_image(values, image if image.is_floating_point() else image.to(values.dtype))


class RandShiftScaleIntensityd(RandomizableTransform, MapTransform):
    """Shift, scale and clip the images under ``keys``, all of them with the same draw.

    Dictionary version of :class:`RandShiftScaleIntensity`.

    Args:
        keys: images.
        shift_range: ``a`` for U(-a, a), or (low, high).
        scale_range: ``b`` for 1 + U(-b, b), or (low, high) of what is added to 1.
        clip: lowest and highest value of the result; None does not clip.
        prob: of doing anything.
        allow_missing_keys: whether an item may lack one of ``keys``.

    Example:
        >>> augment = RandShiftScaleIntensityd("image", 0.25, 0.25).set_random_state(0)
        >>> augment({"image": torch.zeros(1, 4, 4)})["image"].shape
        torch.Size([1, 4, 4])
    """

    backend = RandShiftScaleIntensity.backend

    def __init__(
        self,
        keys: KeysCollection,
        shift_range: float | Sequence[float] = 0.25,
        scale_range: float | Sequence[float] = 0.25,
        clip: tuple[float | None, float | None] | None = (-1.0, 1.0),
        prob: float = 1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.shift_scale = RandShiftScaleIntensity(shift_range, scale_range, clip, prob=1.0)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandShiftScaleIntensityd:
        """Set the random state of this transform and of the one inside, as MONAI's pairs do."""
        super().set_random_state(seed, state)
        self.shift_scale.set_random_state(seed, state)
        return self

    def batched(self) -> BatchedShiftScaleIntensity:
        """Return the form for batches on a device, with the same ranges and its own random state."""
        inner = self.shift_scale
        return BatchedShiftScaleIntensity(inner.shift_range, inner.scale_range, inner.clip, self.prob)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        self.randomize(None)
        if self._do_transform:
            self.shift_scale.randomize()
        for key in self.key_iterator(d):
            image = convert_to_tensor(d[key], track_meta=get_track_meta())
            d[key] = self.shift_scale(image, randomize=False) if self._do_transform else image
        return d


class BatchedShiftScaleIntensity(Randomizable):
    """Shift and scale the intensities of each image of a batch: :class:`RandShiftScaleIntensity`, many at a time.

    Args:
        shift_range: ``a`` for U(-a, a), or (low, high).
        scale_range: ``b`` for 1 + U(-b, b), or (low, high) of what is added to 1.
        clip: lowest and highest value of the result; None does not clip.
        prob: of changing an image.

    Example:
        >>> images, _ = BatchedShiftScaleIntensity(0.25, 0.25)(torch.zeros(4, 1, 8, 8))
        >>> images.shape
        torch.Size([4, 1, 8, 8])
    """

    def __init__(
        self,
        shift_range: float | Sequence[float] = 0.25,
        scale_range: float | Sequence[float] = 0.25,
        clip: tuple[float | None, float | None] | None = (-1.0, 1.0),
        prob: float = 1.0,
    ) -> None:
        self.shift_range, self.scale_range, self.clip, self.prob = shift_range, scale_range, clip, prob
        self.set_random_state(seed=get_seed())

    def randomize(self, data: Any = None) -> None:
        """Nothing is kept between calls: each draws anew."""

    def __call__(
        self, images: torch.Tensor, points: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the batch ``(B, C, *S)`` with new intensities, and ``points`` as they are."""
        plain = plain_tensor(images)
        chosen = torch.as_tensor(self.R.uniform(size=len(plain)) < self.prob)
        shift, scale = draw_shift_scale(self.R, self.shift_range, self.scale_range, len(plain))
        changed = shift_scale_intensity(plain, shift, scale, self.clip)
        if bool(chosen.all()):
            return changed, points
        chosen = chosen.to(plain.device).reshape(-1, *(1,) * (plain.ndim - 1))
        return torch.where(chosen, changed, plain.to(changed.dtype)), points


RandShiftScaleIntensityD = RandShiftScaleIntensityDict = RandShiftScaleIntensityd
