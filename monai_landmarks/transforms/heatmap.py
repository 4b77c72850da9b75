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
"""Heatmaps from landmarks and landmarks from heatmaps, both in the voxels of the same image."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, get_track_meta
from monai.transforms import MapTransform, Transform
from monai.utils import ImageMetaKey, MetaKeys, TransformBackends, look_up_option

from ..geometry import LandmarkError, image_affine, present, voxel_sizes
from ..heatmaps import DecodeMethod, FlaggedDecoded, decode_heatmaps, gaussian_heatmaps
from .spatial import as_points, look_up_reference, repeat_keys

__all__ = [
    "DecodeLandmarkHeatmap",
    "DecodeLandmarkHeatmapD",
    "DecodeLandmarkHeatmapDict",
    "DecodeLandmarkHeatmapd",
    "GenerateLandmarkHeatmap",
    "GenerateLandmarkHeatmapD",
    "GenerateLandmarkHeatmapDict",
    "GenerateLandmarkHeatmapd",
]

Sigma = float | Sequence[float] | torch.Tensor


class GenerateLandmarkHeatmap(Transform):
    """Draw one Gaussian per landmark at its exact sub-voxel position, on the grid of an image as it is now.

    Different from ``monai.transforms.GenerateHeatmap``, which rounds the centre to a voxel, takes the grid from
    ``meta["spatial_shape"]`` (the file's, not the resampled image's) and cannot tell a missing landmark from an empty
    map. Losses of this package draw their own targets on the device; this one serves other losses and the eye.

    Args:
        sigma: standard deviation in voxels: a number, ``(D,)`` per axis, ``(N, 1)`` per landmark or ``(N, D)``.
        sigma_mm: the same in millimetres, instead of ``sigma``: it is divided by the image's voxel sizes, so that the
            blob is round in the patient on anisotropic grids. Exact for grids without shear.
        gamma: the Gaussian's integral in voxels (SCN eq. 1); None for peak 1.
        truncated: leave zeros farther than this many sigma from the landmark; None is exact everywhere.
        dtype: of the maps.

    Raises:
        ValueError: unless exactly one of ``sigma`` and ``sigma_mm`` is given.

    Shapes: points ``(N, D)`` and an image ``(C, *S)`` give ``(N, *S)``.

    Example:
        >>> image = MetaTensor(torch.zeros(1, 3, 5), affine=torch.diag(torch.tensor([2.0, 1.0, 1.0])))
        >>> GenerateLandmarkHeatmap(sigma_mm=2.0)([[1.0, 2.0]], image)[0, 1].as_tensor()
        tensor([0.6065, 0.8825, 1.0000, 0.8825, 0.6065])
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        sigma: Sigma | None = None,
        sigma_mm: Sigma | None = None,
        gamma: float | None = None,
        truncated: float | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if (sigma is None) == (sigma_mm is None):
            raise ValueError(
                f"give either sigma (voxels) or sigma_mm (millimetres), got sigma={sigma} and sigma_mm={sigma_mm}."
            )
        width = torch.as_tensor(sigma if sigma_mm is None else sigma_mm, dtype=torch.float64)
        if not bool((width > 0).all()):
            raise ValueError(f"sigma must be positive, got {width.tolist()}.")
        self.width = width
        self.in_mm = sigma_mm is not None
        self.gamma = gamma
        self.truncated = truncated
        self.dtype = dtype

    def __call__(self, points: Any, image: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Draw the maps.

        Args:
            points: ``(N, D)`` voxel indices of ``image``, NaN for a missing landmark (a map of zeros).
            image: channel-first ``(C, *S)``; only its shape and affine are used. A MetaTensor without operations that
                wait; a plain tensor will do where sigma is in voxels.

        Returns:
            ``(N, *S)``, a MetaTensor with the affine of ``image`` if that is one.

        Raises:
            LandmarkError: if points and image do not fit, or the image has no true affine.
        """
        plain = as_points(points)
        dims = plain.shape[-1]
        if plain.ndim != 2 or image.ndim != dims + 1:
            raise LandmarkError(
                "points (N, D) and a channel-first image with D spatial axes are needed, got points "
                f"{tuple(plain.shape)} and image {tuple(image.shape)}: batches are drawn by "
                "monai_landmarks.heatmaps.gaussian_heatmaps."
            )
        tracked = isinstance(image, MetaTensor)
        if not tracked and self.in_mm:
            raise LandmarkError(
                "sigma_mm needs an image with an affine (a MetaTensor); with a plain tensor give sigma."
            )
        # The affine is asked for even where it is not needed: it is what refuses an image with operations that wait.
        affine = image_affine(image) if tracked else None
        sigma = self.width / voxel_sizes(affine) if self.in_mm and affine is not None else self.width
        plain = plain.to(self.dtype)
        shape = tuple(image.shape[1:])
        maps = gaussian_heatmaps(plain, shape, sigma.to(plain), self.gamma, truncated=self.truncated)
        return _like_image(maps, image) if isinstance(image, MetaTensor) and get_track_meta() else maps


def _like_image(maps: torch.Tensor, image: MetaTensor) -> MetaTensor:
    """Give the maps what makes them an image on the same grid, and nothing that describes the image's intensities."""
    kept = (MetaKeys.SPACE.value, ImageMetaKey.FILENAME_OR_OBJ)
    meta: dict[str, Any] = {key: image.meta[key] for key in kept if key in image.meta}
    meta[MetaKeys.ORIGINAL_CHANNEL_DIM.value] = 0
    return MetaTensor(maps, affine=image.affine.clone(), meta=meta)


class GenerateLandmarkHeatmapd(MapTransform):
    """Draw the landmarks under ``keys`` as heatmaps on the grid of the image under ``refer_keys``.

    Dictionary version of :class:`GenerateLandmarkHeatmap`. The points are voxel indices: put
    :class:`LandmarksWorldToImaged` before it.

    Args:
        keys: points ``(N, D)`` in voxel indices.
        heatmap_keys: where the maps ``(N, *S)`` go: one key per key.
        refer_keys: the image that gives grid and affine: one key, or one per key.
        sigma: in voxels, see :class:`GenerateLandmarkHeatmap`.
        sigma_mm: in millimetres, instead of ``sigma``.
        gamma: integral of each Gaussian; None for peak 1.
        truncated: zeros beyond this many sigma; None for none.
        present_keys: where a bool tensor ``(N,)`` goes, False for missing landmarks (their map is zero everywhere,
            which a loss must not take for "nothing there"); None for nowhere.
        dtype: of the maps.
        allow_missing_keys: whether an item may lack one of ``keys``.

    Example:
        >>> draw = GenerateLandmarkHeatmapd("points", "heatmap", "image", sigma=1.5, present_keys="present")
        >>> points = torch.tensor([[1.0, 2.0], [torch.nan, torch.nan]])
        >>> item = draw({"image": MetaTensor(torch.zeros(1, 8, 9)), "points": points})
        >>> item["heatmap"].shape, item["present"]
        (torch.Size([2, 8, 9]), tensor([ True, False]))
    """

    backend = GenerateLandmarkHeatmap.backend

    def __init__(
        self,
        keys: KeysCollection,
        heatmap_keys: KeysCollection,
        refer_keys: KeysCollection,
        sigma: Sigma | None = None,
        sigma_mm: Sigma | None = None,
        gamma: float | None = None,
        truncated: float | None = None,
        present_keys: KeysCollection | None = None,
        dtype: torch.dtype = torch.float32,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.heatmap_keys = output_keys_for(heatmap_keys, self.keys, "heatmap_keys")
        self.refer_keys = repeat_keys(refer_keys, self.keys, "refer_keys")
        self.present_keys = output_keys_for(present_keys, self.keys, "present_keys")
        self.generator = GenerateLandmarkHeatmap(sigma, sigma_mm, gamma, truncated, dtype)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        names = (self.heatmap_keys, self.refer_keys, self.present_keys)
        for key, heatmap_key, refer_key, present_key in self.key_iterator(d, *names):
            d[heatmap_key] = self.generator(d[key], look_up_reference(d, refer_key, "refer_keys"))
            if present_key is not None:
                d[present_key] = present(as_points(d[key]))
        return d


def output_keys_for(values: Any, keys: Sequence[Hashable], name: str) -> tuple[Any, ...]:
    """Return one output key per key, or None for each where there are none.

    Args:
        values: the keys given, or None.
        keys: the keys of the transform.
        name: of the argument, for the message.

    Raises:
        ValueError: for another number, or two results under one key.
    """
    several = repeat_keys(values, keys, name)
    if values is not None and len(set(several)) != len(keys):
        raise ValueError(f"{name} must give each of {list(keys)} a key of its own, got {values!r}.")
    return several


class DecodeLandmarkHeatmap(Transform):
    """Find the landmarks in heatmaps: voxel positions and a confidence for each.

    A thin shell around :func:`monai_landmarks.heatmaps.decode_heatmaps`.

    Args:
        method: how the position is found, see ``decode_heatmaps``.
        min_confidence: a landmark below it is missing: NaN in all coordinates. None keeps all.
        options: further options of the method.

    Raises:
        ValueError: for an unknown method, or an option that it does not have.

    Shapes: ``(N, *S)`` gives points ``(N, D)``, confidence ``(N,)`` and the flag ``(N,)``. As every transform
    it works on one item; decode a batch with ``decode_heatmaps``.

    Example:
        >>> from monai_landmarks.heatmaps import gaussian_heatmaps
        >>> maps = gaussian_heatmaps(torch.tensor([[3.25, 4.5]]), (9, 9), sigma=1.5)
        >>> found = DecodeLandmarkHeatmap(method="dark")(maps)
        >>> [round(v, 2) for v in found.points[0].tolist()]
        [3.25, 4.5]
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, method: str = "dark", min_confidence: float | None = None, **options: Any) -> None:
        self.method = look_up_option(method, DecodeMethod)
        self.min_confidence = min_confidence
        self.options = options
        _check_options(self.method, options)

    def __call__(self, heatmaps: torch.Tensor) -> FlaggedDecoded:
        """Decode the maps.

        Args:
            heatmaps: ``(N, *S)``; meta information is ignored.

        Returns:
            points ``(N, D)`` in voxel indices, confidence ``(N,)``, and ``extrapolated (N,)``: True where the map could
            not fix the position, as for a peak on the image's border. Plain tensors.

        Raises:
            LandmarkError: for a shape with other than 2 or 3 spatial axes.
        """
        plain = torch.as_tensor(heatmaps)
        plain = plain.as_tensor() if isinstance(plain, MetaTensor) else plain
        if plain.ndim not in (3, 4):
            raise LandmarkError(
                f"heatmaps of one item must have shape (N, *S), got {tuple(plain.shape)}: decollate the batch first, "
                "or decode it with monai_landmarks.heatmaps.decode_heatmaps."
            )
        found = decode_heatmaps(plain, self.method, spatial_dims=plain.ndim - 1, return_flags=True, **self.options)
        if self.min_confidence is not None:
            # Written as "not at least", so that a confidence of NaN is not enough.
            unsure = ~(found.confidence >= self.min_confidence)
            found = found._replace(points=found.points.masked_fill(unsure.unsqueeze(-1), torch.nan))
        return found


def _check_options(method: str, options: Mapping[str, Any]) -> None:
    """Show a misspelt option now and not after the first epoch: empty maps are decoded with the options."""
    faults = []
    for dims in (2, 3):  # an option may have one value per axis, so one of the two is enough
        try:
            decode_heatmaps(torch.zeros(1, *(16,) * dims), method, spatial_dims=dims, **options)
            return
        except LandmarkError as error:
            faults.append(error)
    raise faults[0]


class DecodeLandmarkHeatmapd(MapTransform):
    """Find the landmarks in the heatmaps under ``keys``.

    Dictionary version of :class:`DecodeLandmarkHeatmap`. The results are plain tensors: they do not inherit the image's
    affine, which on points would mean something else. Put :class:`LandmarksImageToWorldd` after it.

    Args:
        keys: heatmaps ``(N, *S)``.
        points_keys: where the voxel positions go: one key per key.
        confidence_keys: where the confidences go; None for nowhere.
        extrapolated_keys: where the flags go, True where the map could not fix the position; None for nowhere.
        method: see :class:`DecodeLandmarkHeatmap`.
        min_confidence: a landmark below it is missing.
        allow_missing_keys: whether an item may lack one of ``keys``.
        options: further options of the method.

    Example:
        >>> from monai_landmarks.heatmaps import gaussian_heatmaps
        >>> decode = DecodeLandmarkHeatmapd("pred", "points", "confidence", method="argmax")
        >>> decode({"pred": gaussian_heatmaps(torch.tensor([[3.0, 4.0]]), (9, 9), sigma=1.5)})["points"]
        tensor([[3., 4.]])
    """

    backend = DecodeLandmarkHeatmap.backend

    def __init__(
        self,
        keys: KeysCollection,
        points_keys: KeysCollection,
        confidence_keys: KeysCollection | None = None,
        extrapolated_keys: KeysCollection | None = None,
        method: str = "dark",
        min_confidence: float | None = None,
        allow_missing_keys: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.points_keys = output_keys_for(points_keys, self.keys, "points_keys")
        self.confidence_keys = output_keys_for(confidence_keys, self.keys, "confidence_keys")
        self.extrapolated_keys = output_keys_for(extrapolated_keys, self.keys, "extrapolated_keys")
        self.decoder = DecodeLandmarkHeatmap(method, min_confidence, **options)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        outputs = (self.points_keys, self.confidence_keys, self.extrapolated_keys)
        for key, *output_keys in self.key_iterator(d, *outputs):
            for output_key, value in zip(output_keys, self.decoder(d[key]), strict=True):
                if output_key is not None:
                    d[output_key] = value
        return d


GenerateLandmarkHeatmapD = GenerateLandmarkHeatmapDict = GenerateLandmarkHeatmapd
DecodeLandmarkHeatmapD = DecodeLandmarkHeatmapDict = DecodeLandmarkHeatmapd
