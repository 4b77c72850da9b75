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
"""Reading film-like 2D images (PNG, JPEG, BMP, TIFF) with their physical pixel size."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data.image_reader import ImageReader
from monai.data.utils import is_supported_format
from monai.utils import MetaKeys, ensure_tuple, look_up_option, optional_import

from ..geometry import LandmarkError
from .film_pixels import grey_or_colour, open_film, resolution_tag, scale_to_white, turn_as_shown, white_is_zero

_, has_pil = optional_import("PIL.Image")

__all__ = ["FilmReader"]

_SUFFIXES = ("png", "jpg", "jpeg", "bmp", "tif", "tiff")
_COLOURS = ("refuse", "luminance", "keep")
_EXIF_ROTATION = ("refuse", "ignore", "apply")


@dataclass(frozen=True)
class _FilmFile:
    """What `FilmReader.read` hands to `FilmReader.get_data`: the file is opened only there."""

    path: Path
    pixel_size: tuple[float, float] | None
    origin: tuple[float, float]


class FilmReader(ImageReader):
    """Read a 2D film (PNG, JPEG, BMP, TIFF; 8 or 16 bit) as a ``(W, H)`` array with a 3x3 affine in millimetres.

    Array index ``(i, j)`` is ``(x, y) = (column, row)``, as with every 2D reader of MONAI. World is the film plane,
    x to the right and y down::

        world_mm = origin + pixel_size * (i, j)          affine = [[sx, 0, ox], [0, sy, oy], [0, 0, 1]]

    Grey comes with the values of the file: 8 and 16 bits in either byte order (a 16-bit TIFF whose zero means white is
    turned so that zero means black, as Pillow does for 8 bits), 32-bit integer and float, 1 bit (as 0 and 255),
    palettes, and colour images whose channels are all alike. The metadata has ``affine``, ``original_affine``,
    ``spatial_shape``, ``original_channel_dim`` (none), ``pixel_size_source`` (``"given"``, ``"file"`` or ``"none"``)
    and ``format``. It has no ``space``: a film plane is neither RAS nor LPS.

    Different from ``monai.data.PILReader``, which gives an identity affine, drops the low byte of 16-bit colour, reads
    TIFF only when named as the reader, and puts an EXIF rotation aside without a word. Every fault is raised by
    ``get_data``, not by ``read``: ``LoadImage`` catches what ``read`` raises and tries its other readers, so that a
    film without a pixel size would come back silently as one with 1 mm pixels.

    Args:
        pixel_size: millimetres per pixel, a number or ``(sx, sy)`` along the axes of the array. ``None`` takes the
            resolution tag of the file. A tag of exactly 72 or 96 dots per inch counts as absent: programs write it
            when they know nothing (give ``pixel_size=25.4 / 96`` if you mean it).
        origin: world position in millimetres of the centre of pixel (0, 0).
        require_pixel_size: with ``pixel_size=None``, whether a file without a resolution tag is an error; if not, its
            world is in pixels (affine of ones).
        colour: what to do with a colour image whose channels differ: ``"refuse"``, ``"luminance"`` (ITU-R 601:
            0.299 R + 0.587 G + 0.114 B), or ``"keep"`` (three channels, channel last).
        exif_rotation: what to do with a JPEG or TIFF that asks viewers to show it rotated or mirrored: ``"refuse"``,
            ``"ignore"`` (array as stored) or ``"apply"`` (array as shown). It must match what the annotator saw.
        frame: which page of a TIFF with several; ``None`` demands that there is only one.
        white: what white shall be in the array, whatever the depth of the file; ``None`` keeps the file's values. Before
            a step with fixed limits, such as ``ScaleIntensityRanged(a_max=255)``, give ``white=255``: a film of 16 bits
            would go 257 times beyond those limits. Films of 8 bits keep their values then; deeper ones become
            ``v * white / (2 ** bits - 1)``, float32, and nothing is clipped. The metadata has the ``bits``.
        bits: with ``white``, how many bits the pixels of films deeper than 8 bits use. ``None`` takes the fewest of 8, 10,
            12, 14 and 16 that hold the film's brightest pixel (detectors of 12 bits are usual, and files have no place to
            say so); a film so dark that it needs fewer bits than it has comes out brighter by the factor between.

    Raises:
        ValueError: for an option that is unknown or out of range.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name) / "film.png"
        >>> Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4)).save(path)
        >>> reader = FilmReader(pixel_size=0.1)
        >>> array, meta = reader.get_data(reader.read(path))
        >>> array.shape, array.dtype, int(array[3, 0])
        ((4, 3), dtype('uint16'), 3)
        >>> meta["affine"].tolist()
        [[0.1, 0.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 1.0]]
        >>> folder.cleanup()
    """

    def __init__(
        self,
        pixel_size: float | Sequence[float] | None = None,
        origin: float | Sequence[float] = 0.0,
        require_pixel_size: bool = True,
        colour: str = "refuse",
        exif_rotation: str = "refuse",
        frame: int | None = None,
        white: float | None = None,
        bits: int | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        if unknown:
            # LoadImage answers a TypeError by dropping all options with a warning; a ValueError reaches the user.
            raise ValueError(
                f"FilmReader has no option {sorted(unknown)}; it has pixel_size, origin, require_pixel_size, colour, "
                "exif_rotation, frame, white and bits."
            )
        check_white(white, bits)
        self.pixel_size = None if pixel_size is None else check_pixel_size(pixel_size)
        self.origin = check_origin(origin)
        self.require_pixel_size = bool(require_pixel_size)
        self.colour = look_up_option(colour, _COLOURS)
        self.exif_rotation = look_up_option(exif_rotation, _EXIF_ROTATION)
        self.frame = frame
        self.white = white
        self.bits = bits

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Return whether every file name ends like a film's: png, jpg, jpeg, bmp, tif or tiff.

        Args:
            filename: one name or several.
        """
        return bool(has_pil and is_supported_format(filename, _SUFFIXES))

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> list[_FilmFile]:
        """Note which films to load; ``get_data`` opens them (see the class for why).

        Args:
            data: one file name, or several films of one size to be stacked as channels.
            kwargs: ``pixel_size`` and ``origin`` replace those of the constructor for this call.
        """
        pixel_size = kwargs.pop("pixel_size", None)
        origin = kwargs.pop("origin", None)
        if kwargs:
            raise ValueError(f"FilmReader.read takes pixel_size and origin, not {sorted(kwargs)}.")
        size = self.pixel_size if pixel_size is None else check_pixel_size(pixel_size)
        start = self.origin if origin is None else check_origin(origin)
        return [_FilmFile(Path(os.fspath(name)), size, start) for name in ensure_tuple(data)]

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        """Open and decode the films.

        Args:
            img: what ``read`` returned.

        Returns:
            The array, ``(W, H)`` (``(W, H, 3)`` with ``colour="keep"`` and colour; ``(C, W, H)`` for C files), and the
            metadata.

        Raises:
            FileNotFoundError: there is no such file.
            LandmarkError: the file is damaged, no film, carries no pixel size, or needs a decision (see the class).
        """
        films = [self._load(film) for film in ensure_tuple(img)]
        array, meta = films[0]
        if len(films) == 1:
            return array, meta
        for (other, other_meta), film in zip(films[1:], img[1:], strict=True):
            if other.shape != array.shape or not np.allclose(other_meta[MetaKeys.AFFINE], meta[MetaKeys.AFFINE]):
                raise LandmarkError(
                    f"films stacked as channels must have one size and one pixel size: {img[0].path.name!r} has "
                    f"{array.shape}, {film.path.name!r} has {other.shape}."
                )
        if array.ndim != 2:
            raise LandmarkError(f"only grey films can be stacked as channels, {img[0].path.name!r} is in colour.")
        meta[MetaKeys.ORIGINAL_CHANNEL_DIM] = 0
        return np.stack([array for array, _ in films]), meta

    def _load(self, film: _FilmFile) -> tuple[np.ndarray, dict]:
        with open_film(film.path, self.frame) as (image, orientation):
            file_format = image.format
            pixel_size, source = self._pixel_size_of(image, film)
            turned, swaps = turn_as_shown(image, orientation, film.path, self.exif_rotation)
            array = grey_or_colour(turned, film.path, self.colour, white_is_zero(image))
        depth: dict[str, int] = {}
        if self.white is not None:
            array, depth["bits"] = scale_to_white(array, film.path, self.white, self.bits)
        if swaps and source == "file":
            pixel_size = pixel_size[1], pixel_size[0]
        # Pillow's rows come first; the index order of this package is (column, row).
        array = np.ascontiguousarray(np.swapaxes(array, 0, 1))
        affine = np.diag([*pixel_size, 1.0])
        affine[:2, 2] = film.origin
        meta = {
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(array.shape[:2]),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan") if array.ndim == 2 else -1,
            "pixel_size_source": source,
            "format": file_format,
            **depth,
        }
        return array, {str(key.value if isinstance(key, MetaKeys) else key): value for key, value in meta.items()}

    def _pixel_size_of(self, image: Any, film: _FilmFile) -> tuple[tuple[float, float], str]:
        if film.pixel_size is not None:
            return film.pixel_size, "given"
        tag, why = resolution_tag(image)
        if tag is not None:
            return tag, "file"
        if self.require_pixel_size:
            raise LandmarkError(
                f"{film.path.name!r} carries no pixel size ({why}), so distances on it would not be millimetres: give "
                "pixel_size=<mm per pixel>, or pixel_size=1.0 to work in pixels."
            )
        return (1.0, 1.0), "none"


def check_pixel_size(pixel_size: Any) -> tuple[float, float]:
    """Return ``pixel_size`` as ``(sx, sy)`` in millimetres.

    Args:
        pixel_size: one positive number, or two.

    Raises:
        ValueError: it is anything else.
    """
    values = _two_numbers(pixel_size, "pixel_size", "one number of millimetres per pixel or two (sx, sy)")
    if min(values) <= 0:
        raise ValueError(f"pixel_size must be positive millimetres per pixel, got {pixel_size!r}.")
    return values


def check_white(white: Any, bits: Any) -> None:
    """Check the options for the depth of films.

    Args:
        white: None, or a positive number.
        bits: None, or with ``white`` a whole number from 8 to 31.

    Raises:
        ValueError: they are anything else.
    """
    if white is not None and not (isinstance(white, (int, float)) and 0 < white < float("inf")):
        raise ValueError(
            f"white must be a positive number, the grey of white in the array, such as 255, got {white!r}."
        )
    if bits is not None and (
        white is None or isinstance(bits, bool) or not isinstance(bits, int) or not 8 <= bits < 32
    ):
        raise ValueError(f"bits must be a whole number from 8 to 31, and goes with white, got {bits!r} and {white!r}.")


def check_origin(origin: Any) -> tuple[float, float]:
    """Return ``origin`` as ``(ox, oy)`` in millimetres.

    Args:
        origin: one number for both axes, or two.

    Raises:
        ValueError: it is anything else.
    """
    return _two_numbers(origin, "origin", "one number of millimetres or two (ox, oy), the centre of pixel (0, 0)")


def _two_numbers(value: Any, name: str, meaning: str) -> tuple[float, float]:
    try:
        numbers = np.atleast_1d(np.asarray(value, dtype=np.float64)).ravel()
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.size not in (1, 2) or not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be {meaning}, got {value!r}.")
    return float(numbers[0]), float(numbers[-1])
