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
"""Loading films with their pixel size."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import DtypeLike, KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import ImageMetaKey, MetaKeys, TransformBackends

from ..data import FilmReader
from ..geometry import LandmarkError

__all__ = ["LoadFilm", "LoadFilmD", "LoadFilmDict", "LoadFilmd"]


class LoadFilm(Transform):
    """Load a film (PNG, JPEG, BMP, TIFF) as a channel-first MetaTensor ``(1, W, H)`` with its true 3x3 affine in mm.

    The same as ``LoadImage(reader=FilmReader, ensure_channel_first=True)``, with a pixel size that may differ by film.

    Args:
        pixel_size: millimetres per pixel where the call names none; see :class:`monai_landmarks.data.FilmReader`.
        origin: world position of the centre of pixel (0, 0) where the call names none.
        dtype: of the result.
        reader_options: further options of ``FilmReader``.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name) / "film.png"
        >>> Image.fromarray(np.zeros((3, 4), dtype=np.uint8)).save(path)
        >>> film = LoadFilm()(path, pixel_size=0.1)
        >>> film.shape, film.affine.diagonal().tolist()
        (torch.Size([1, 4, 3]), [0.1, 0.1, 1.0])
        >>> folder.cleanup()
    """

    backend = [TransformBackends.NUMPY]

    def __init__(
        self,
        pixel_size: float | Sequence[float] | None = None,
        origin: float | Sequence[float] = 0.0,
        dtype: DtypeLike = np.float32,
        **reader_options: Any,
    ) -> None:
        self.reader = FilmReader(pixel_size=pixel_size, origin=origin, **reader_options)
        self.dtype = dtype

    def __call__(
        self,
        path: str | os.PathLike[str],
        pixel_size: float | Sequence[float] | None = None,
        origin: float | Sequence[float] | None = None,
    ) -> torch.Tensor:
        """Load one film.

        Args:
            path: the file.
            pixel_size: of this film; None takes the constructor's, or else the file's tag.
            origin: of this film; None takes the constructor's.

        Raises:
            FileNotFoundError: there is no such file.
            LandmarkError: as :class:`monai_landmarks.data.FilmReader`.
        """
        if not isinstance(path, (str, os.PathLike)):
            raise LandmarkError(f"a film is loaded from one path, got {type(path).__name__}: is it loaded already?")
        path = Path(path).expanduser()
        array, meta = self.reader.get_data(self.reader.read(path, pixel_size=pixel_size, origin=origin))
        meta[ImageMetaKey.FILENAME_OR_OBJ] = str(path)
        meta[MetaKeys.ORIGINAL_CHANNEL_DIM] = 0
        array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
        array = np.ascontiguousarray(array, dtype=self.dtype)
        return MetaTensor.ensure_torch_and_prune_meta(array, meta)


class LoadFilmd(MapTransform):
    """Load the films under ``keys`` with the pixel size that each item brings.

    Dictionary version of :class:`LoadFilm`.

    Args:
        keys: paths of films.
        pixel_size_key: where an item has its millimetres per pixel, a number or (sx, sy). An item without it falls back
            to ``pixel_size``, then to the resolution tag of the file; without that it is an error.
        origin_key: where an item has the position of the centre of pixel (0, 0); without it, ``origin``.
        pixel_size: for items that name none.
        origin: for items that name none.
        dtype: of the result.
        allow_missing_keys: whether an item may lack one of ``keys``.
        reader_options: further options of ``FilmReader``.
    """

    backend = LoadFilm.backend

    def __init__(
        self,
        keys: KeysCollection,
        pixel_size_key: str | None = "pixel_size",
        origin_key: str | None = "origin",
        pixel_size: float | Sequence[float] | None = None,
        origin: float | Sequence[float] = 0.0,
        dtype: DtypeLike = np.float32,
        allow_missing_keys: bool = False,
        **reader_options: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.pixel_size_key = pixel_size_key
        self.origin_key = origin_key
        self.loader = LoadFilm(pixel_size, origin, dtype, **reader_options)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.loader(d[key], d.get(self.pixel_size_key), d.get(self.origin_key))
        return d


LoadFilmD = LoadFilmDict = LoadFilmd
