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
"""Histogram matching of an image to a reference inside the outline of the anatomy."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import LoadImage, MapTransform, Transform
from monai.utils import ImageMetaKey, TransformBackends, look_up_option, optional_import

from ..data import FilmReader
from ..geometry import LandmarkError, plain_tensor
from .film import LoadFilm
from .intensity import like_image

__all__ = [
    "MatchHistogram",
    "MatchHistogramD",
    "MatchHistogramDict",
    "MatchHistogramd",
    "match_histogram",
    "otsu_outline",
]

_OTSU = ("otsu_flattened", "otsu")
_MAP = "map"
_BINS = 256  # of Otsu's histogram
_SAMPLES = 100_000  # voxels that the background is fitted to

Foreground = Callable[[torch.Tensor], Any]


# ------------------------------------------------------------------------------------------------------------- outline


def otsu_outline(image: Any, flatten: bool = True) -> np.ndarray:
    """Find the outline of bright anatomy on a dark background by Otsu's threshold.

    The threshold splits the histogram in two with the least variance within each part; the largest connected part above
    it is the anatomy, with its holes filled (all by SimpleITK).

    On hand films the plain threshold falls between bone and soft tissue and cuts the fingers off: on ten films of the
    Digital Hand Atlas 21 to 37 of the 37 landmarks lie inside, 300 of 370. With ``flatten`` the background's own slope
    of brightness (a polynomial of second order, fitted to what Otsu's threshold calls dark) is taken off, and a second
    Otsu threshold among the dark voxels parts thin soft tissue from bare film: 370 of 370 inside. Most of what is dark
    must be bare film for that.

    Args:
        image: one channel ``(*S)``, 2D or 3D, array or tensor, finite and not constant.
        flatten: whether to take the second step.

    Returns:
        bool array ``(*S)``.

    Raises:
        LandmarkError: for an image with NaN or of one value only.

    Example:
        >>> film = np.zeros((8, 8))
        >>> film[2:7, 2:7] = 9.0
        >>> film[4, 4] = 0.0
        >>> int(otsu_outline(film).sum())
        25
    """
    values = np.ascontiguousarray(_numpy(image), dtype=np.float32)
    _check_values(values, "Otsu's threshold")
    bright = values > _otsu_threshold(values)
    if flatten:
        bright |= _bright_after_flattening(values, ~bright)
    sitk = _simpleitk()
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(sitk.GetImageFromArray(bright.astype(np.uint8))))
    return sitk.GetArrayFromImage(sitk.BinaryFillhole(parts == 1)).astype(bool)


def _otsu_threshold(values: np.ndarray) -> float:
    otsu = _simpleitk().OtsuThresholdImageFilter()
    otsu.SetNumberOfHistogramBins(_BINS)
    otsu.Execute(_as_row(values.ravel()))
    return float(otsu.GetThreshold())


def _bright_after_flattening(values: np.ndarray, dark: np.ndarray) -> np.ndarray:
    """Part the dark voxels again by Otsu's threshold, with the background's slope taken off."""
    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in values.shape]
    chosen = np.flatnonzero(dark)[:: max(1, int(dark.sum()) // _SAMPLES)]
    places = np.unravel_index(chosen, values.shape)
    design = np.stack(_second_order([axis[i] for axis, i in zip(axes, places, strict=True)]), axis=1)
    sampled = values.ravel()[chosen].astype(np.float64)
    kept = np.ones(len(chosen), dtype=bool)
    # Soft tissue and markers are no background and drop out. Both are brighter, so the noise is told from below. A plane
    # comes first: a curved surface would bend itself around the tissue as long as that is still in.
    for terms in (*[1 + values.ndim] * 10, *[design.shape[1]] * 10):
        weights = np.linalg.lstsq(design[kept, :terms], sampled[kept], rcond=None)[0]
        residual = sampled - design[:, :terms] @ weights
        middle = np.median(residual[kept])
        below = residual[kept & (residual <= middle)]
        noise = 1.4826 * np.median(middle - below)
        kept = np.abs(residual - middle) <= 2.5 * noise + 1e-6 * np.ptp(sampled) + 1e-12
    grid = _second_order(np.meshgrid(*axes, indexing="ij", sparse=True))
    flat = values.copy()
    for weight, term in zip(weights.astype(np.float32), grid, strict=True):
        flat -= weight * term
    # Black frames and labels, far below the film's own black, would be a class of their own.
    film = flat[dark & (flat >= middle - 4 * noise - 1e-3 * np.ptp(sampled))]
    if film.size < 2 or np.ptp(film) == 0:
        return np.zeros_like(dark)
    # Where there is no thin tissue Otsu's threshold parts the noise of the film, and must not.
    return dark & (flat > max(_otsu_threshold(film), middle + 4 * noise))


def _second_order(coordinates: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The terms of a polynomial of second order in the coordinates: 1, x, y, x^2, x y, y^2."""
    pairs = combinations_with_replacement(coordinates, 2)
    return [np.ones_like(coordinates[0]), *coordinates, *(a * b for a, b in pairs)]


# ------------------------------------------------------------------------------------------------------------ matching


def match_histogram(
    values: np.ndarray, reference: np.ndarray, num_levels: int = 1024, num_points: int = 31
) -> np.ndarray:
    """Map intensities so that their quantiles become those of a reference, piecewise linear in between (SimpleITK).

    Args:
        values: intensities of the anatomy, any shape.
        reference: intensities of the reference's anatomy, any shape.
        num_levels: bins of both histograms.
        num_points: quantiles that are made equal, besides the lowest and the highest value.

    Returns:
        float32 array of the shape of ``values``.

    Example:
        >>> values = np.linspace(0, 1, 5)
        >>> match_histogram(values, 10 + 2 * values).round(2).tolist()
        [10.0, 10.5, 11.0, 11.5, 12.0]
    """
    sitk = _simpleitk()
    # ThresholdAtMeanIntensity is SimpleITK's means to leave out a dark background; here it is left out already.
    matched = sitk.HistogramMatching(
        _as_row(values.ravel()), _as_row(reference.ravel()), num_levels, num_points, thresholdAtMeanIntensity=False
    )
    return sitk.GetArrayFromImage(matched).reshape(values.shape)


def _same_map(others: np.ndarray, values: np.ndarray, matched: np.ndarray) -> np.ndarray:
    """Send ``others`` through the map that took ``values`` to ``matched``; beyond its ends by the shift at the end."""
    known, first = np.unique(values, return_index=True)
    within = np.clip(others, known[0], known[-1])
    return np.interp(within, known, matched[first]) + (others - within)


def _as_row(values: np.ndarray) -> Any:
    """A SimpleITK image of one row: its filters need an image, not a mask."""
    return _simpleitk().GetImageFromArray(np.ascontiguousarray(values, dtype=np.float32)[None])


def _simpleitk() -> Any:
    """SimpleITK, imported when it is needed."""
    return optional_import("SimpleITK")[0]


def _numpy(image: Any) -> np.ndarray:
    return plain_tensor(image).detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)


def _check_values(values: np.ndarray, doing: str) -> None:
    bad = int(values.size - np.isfinite(values).sum())
    if bad:
        raise LandmarkError(
            f"{doing} needs finite intensities, {bad} of {values.size} are NaN or infinite: replace them before, for "
            "example by torch.nan_to_num in a Lambdad, and look where they come from."
        )
    if values.size == 0 or np.ptp(values) == 0:
        raise LandmarkError(
            f"{doing} needs an image with contrast, all {values.size} intensities are "
            f"{values.ravel()[0] if values.size else 'absent'}: is the file empty, or was it clipped or windowed before?"
        )


class MatchHistogram(Transform):
    """Match an image's histogram to that of a reference image, inside the outline of the anatomy only.

    Payer et al., Medical Image Analysis 2019, section 4.1, preprocess hand radiographs "by performing histogram matching
    to a reference image solely inside the outline of the hand as computed by Otsu thresholding"; their code for it is not
    public, and they name neither the reference nor the numbers. Put it before intensities are scaled: the result is in
    the reference's grey values. Films of one scanner need no matching.

    Args:
        reference: a channel-first image ``(C, *S)`` (or ``(W, H)``), or the path of one, read here once. Its size and
            dimension need not be the images'. One channel serves all channels of an image.
        num_levels: bins of the histograms. 256 are enough for 8-bit films.
        num_points: quantiles made equal. On hand films whose grey values were bent by a power of 1.6, the quantiles are
            8 to 13 grey values from the reference's with 1 point (SimpleITK's default), 1.2 to 1.7 with 7, 0.5 with 31.
        foreground: the anatomy: ``"otsu_flattened"``, ``"otsu"`` (see :func:`otsu_outline`; the plain threshold leaves
            fingers out, so that a seam crosses them), None for all voxels, or a function that takes the plain image
            ``(C, *S)`` and gives a mask ``(C, *S)`` or ``(1, *S)``.
        background: what becomes of the voxels outside the outline. None leaves them as they are, as in the nine matched
            films that SCN's repository shows; where the film is as bright as thin soft tissue, a dark rim then shows.
            ``"map"`` sends them through the map found inside, shifted on beyond its ends, so that no rim can appear. A
            number is set.

    Shapes: ``(C, *S)`` -> the same, in the type of the image, with its affine and meta data.

    Raises:
        FileNotFoundError: there is no such reference.
        LandmarkError: for NaN, an image of one value, or no foreground, in the reference (in the constructor) or the image.

    Example:
        >>> film = torch.zeros(1, 9, 9)
        >>> film[:, 2:7, 2:7] = torch.linspace(50, 60, 25).reshape(5, 5)
        >>> match = MatchHistogram(reference=3 * film)
        >>> match(film)[0, 2, 2:7].tolist(), match(film)[0, 0, 0].item()
        ([150.0, 151.25, 152.5, 153.75, 155.0], 0.0)
    """

    backend = [TransformBackends.NUMPY]

    def __init__(
        self,
        reference: Any,
        num_levels: int = 1024,
        num_points: int = 31,
        foreground: str | Foreground | None = "otsu_flattened",
        background: float | str | None = None,
    ) -> None:
        if not 1 <= num_points < num_levels:
            raise LandmarkError(
                f"`num_points` must be at least 1 and below `num_levels`, got {num_points} points and {num_levels} levels."
            )
        self.num_levels, self.num_points = int(num_levels), int(num_points)
        self.foreground = look_up_option(foreground, _OTSU) if isinstance(foreground, str) else foreground
        self.background = look_up_option(background, (_MAP,)) if isinstance(background, str) else background
        image = _load_reference(reference)
        try:
            mask = self._mask(image)
            self.reference = [
                self._values(c, m, "histogram matching") for c, m in zip(image.numpy(), mask, strict=True)
            ]
        except LandmarkError as error:
            raise LandmarkError(f"the reference of MatchHistogram is not usable: {error}") from error

    def _mask(self, image: torch.Tensor) -> np.ndarray:
        if self.foreground is None:
            return np.ones(image.shape, dtype=bool)
        if isinstance(self.foreground, str):
            return np.stack([otsu_outline(c, flatten=self.foreground == "otsu_flattened") for c in image])
        mask = _numpy(self.foreground(image)).astype(bool)
        if mask.shape not in (tuple(image.shape), (1, *image.shape[1:])):
            raise LandmarkError(
                f"`foreground` gave a mask of shape {mask.shape} for an image of shape {tuple(image.shape)}: it must be "
                "that shape, or have one channel."
            )
        return np.broadcast_to(mask, image.shape)

    @staticmethod
    def _values(channel: np.ndarray, mask: np.ndarray, doing: str) -> np.ndarray:
        if not mask.any():
            raise LandmarkError("the foreground is empty: look at what `foreground` gives for this image.")
        _check_values(channel[mask], doing)
        return channel[mask]

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Match one image.

        Args:
            img: ``(C, *S)``, a MetaTensor, tensor or array.

        Raises:
            LandmarkError: as the class, with the image's file named.
        """
        img = torch.as_tensor(img)
        image = plain_tensor(img).detach().cpu().to(torch.float32)
        if len(self.reference) not in (1, len(image)):
            raise LandmarkError(f"the reference has {len(self.reference)} channels, the image {len(image)}.")
        references = self.reference * (len(image) // len(self.reference))
        result = image.numpy().copy()
        try:
            mask = self._mask(image)
            for channel, inside, reference in zip(result, mask, references, strict=True):
                values = self._values(channel, inside, "histogram matching")
                matched = match_histogram(values, reference, self.num_levels, self.num_points)
                if self.background == _MAP:
                    channel[~inside] = _same_map(channel[~inside], values, matched)
                elif self.background is not None:
                    channel[~inside] = self.background
                channel[inside] = matched
        except LandmarkError as error:
            name = getattr(img, "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ)
            raise LandmarkError(f"{name}: {error}" if name else str(error)) from error
        return like_image(torch.from_numpy(result), img)


def _load_reference(reference: Any) -> torch.Tensor:
    if isinstance(reference, (str, os.PathLike)):
        path = Path(reference).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"the reference image of MatchHistogram is not at {str(path)!r} (working directory {str(Path.cwd())!r}): "
                "give the path of one image of the data set, the same for training and use."
            )
        film = FilmReader().verify_suffix(path)
        # Of the reference only grey values are used, so that a film may come without its pixel size.
        reference = (
            LoadFilm(pixel_size=1.0)(path) if film else LoadImage(image_only=True, ensure_channel_first=True)(path)
        )
    image = torch.from_numpy(_numpy(reference).astype(np.float32))
    image = image[None] if image.ndim == 2 else image
    if image.ndim not in (3, 4):
        raise LandmarkError(f"the reference must be a channel-first image (C, *S), got shape {tuple(image.shape)}.")
    return image


class MatchHistogramd(MapTransform):
    """Match the images under ``keys`` to a reference inside the outline of the anatomy.

    Dictionary version of :class:`MatchHistogram`.

    Args:
        keys: images.
        reference: an image, or the path of one, read here once.
        num_levels: bins of the histograms.
        num_points: quantiles made equal.
        foreground: ``"otsu_flattened"``, ``"otsu"``, None or a function, see :class:`MatchHistogram`.
        background: None leaves what is outside the outline, ``"map"`` maps it alike, a number is set.
        allow_missing_keys: whether an item may lack one of ``keys``.
    """

    backend = MatchHistogram.backend

    def __init__(
        self,
        keys: KeysCollection,
        reference: Any,
        num_levels: int = 1024,
        num_points: int = 31,
        foreground: str | Foreground | None = "otsu_flattened",
        background: float | str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.match = MatchHistogram(reference, num_levels, num_points, foreground, background)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.match(d[key])
        return d


MatchHistogramD = MatchHistogramDict = MatchHistogramd
