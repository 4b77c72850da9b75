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
"""What all figures share: a canvas without pyplot's global state, two colours that nobody confuses, and PNG files."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.utils import optional_import

from monai_landmarks.data import atomic_write
from monai_landmarks.geometry import LandmarkError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GREY", "LINES", "PREDICTION", "TRUTH", "figure_array", "figure_png", "new_figure", "save_figure"]

# Okabe and Ito's colour set: told apart with every common kind of colour blindness, bright enough for a dark film.
TRUTH = "#56b4e9"
PREDICTION = "#e69f00"
GREY = "#5f6368"
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#000000")


def plotting(module: str, name: str) -> Any:
    """Import a class of matplotlib when it is first needed: importing this package must not import matplotlib."""
    return optional_import(f"matplotlib.{module}", name=name)[0]


def new_figure(width: float, height: float) -> Figure:
    """Make an empty white figure on an Agg canvas that pyplot does not know, so that nothing has to be closed.

    Args:
        width: inches.
        height: inches.

    Returns:
        the figure; it is freed with its last reference and works without a display, in any thread.

    Raises:
        OptionalImportError: where matplotlib is not installed.

    Example:
        >>> new_figure(4, 3).get_size_inches().tolist()
        [4.0, 3.0]
    """
    figure: Figure = plotting("figure", "Figure")(figsize=(width, height), facecolor="white")
    plotting("backends.backend_agg", "FigureCanvasAgg")(figure)
    return figure


def figure_png(figure: Figure, dpi: float = 110.0, metadata: Mapping[str, str] | None = None) -> bytes:
    """Draw a figure as PNG.

    Args:
        figure: to be drawn.
        dpi: pixels per inch.
        metadata: text chunks to write into the file, keyword to text.

    Returns:
        the file's bytes.

    Example:
        >>> figure_png(new_figure(1, 1))[1:4]
        b'PNG'
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata=dict(metadata or {}))
    return buffer.getvalue()


def figure_array(figure: Figure, dpi: float = 110.0) -> np.ndarray:
    """Draw a figure as pixels.

    Args:
        figure: to be drawn.
        dpi: pixels per inch.

    Returns:
        uint8 array ``(height, width, 3)``.

    Example:
        >>> figure_array(new_figure(2, 1), dpi=50).shape
        (50, 100, 3)
    """
    before = figure.get_dpi()
    figure.set_dpi(dpi)
    try:
        canvas = plotting("backends.backend_agg", "FigureCanvasAgg")(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
    finally:
        figure.set_dpi(before)


def save_figure(
    figure: Figure, path: str | os.PathLike[str], dpi: float = 110.0, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a figure as PNG; the file appears whole or not at all.

    Args:
        figure: to be drawn.
        path: the file; folders that lack are made.
        dpi: pixels per inch.
        metadata: text chunks to write into the file, keyword to text.

    Example:
        >>> import pathlib, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name) / "figures" / "one.png"
        >>> save_figure(new_figure(1, 1), path)
        >>> path.is_file()
        True
        >>> folder.cleanup()
    """
    content = figure_png(figure, dpi, metadata)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def plain_array(values: Any) -> np.ndarray:
    """Bring a tensor, MetaTensor or array to a NumPy array of floats on the CPU, without gradient and meta data."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.as_tensor() if hasattr(values, "as_tensor") else values
        values = values.to(torch.float64 if values.dtype == torch.float64 else torch.float32).numpy()
    array = np.asarray(values)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float32)


def plain_points(points: Any, spatial_dims: int, what: str) -> torch.Tensor:
    """Bring points of one image to a float64 tensor ``(N, D)``, or tell what is wrong with them."""
    if hasattr(points, "to_tensor"):
        raise LandmarkError(
            f"`{what}` is a Landmarks object, whose points are world millimetres, and a figure needs voxel indices: "
            "give apply_affine(landmarks.to_tensor(), invert_affine(image_affine(image)))."
        )
    tensor = torch.from_numpy(np.array(plain_array(points), dtype=np.float64))
    if tensor.ndim == 3 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != 2 or tensor.shape[1] != spatial_dims:
        cause = " Draw one case of the batch at a time." if tensor.ndim == 3 else ""
        raise LandmarkError(
            f"`{what}` must be the voxel indices (N, {spatial_dims}) of one {spatial_dims}D image, got shape "
            f"{tuple(tensor.shape)}.{cause}"
        )
    return tensor


def check_names(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Landmark names as texts; ``"0"``, ``"1"``, ... as in the metrics where none are given."""
    if names is None:
        return tuple(str(index) for index in range(count))
    if isinstance(names, str) or len(names) != count:
        raise LandmarkError(f"there are {count} landmarks and `names` is {names!r}: give one name per landmark.")
    return tuple(str(name) for name in names)
