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
"""What Pillow knows about a film file: its pixels, its resolution tag, its pages and how it wants to be turned."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import ensure_tuple, optional_import

from ..geometry import LandmarkError

PILImage, _ = optional_import("PIL.Image")

__all__ = ["grey_or_colour", "open_film", "resolution_tag", "scale_to_white", "turn_as_shown", "white_is_zero"]

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr", ".dcm", ".npy", ".npz", ".mgz")
_SCREEN_DPI = (72, 96)
_USUAL_BITS = (8, 10, 12, 14, 16)
_EXIF_ORIENTATION_TAG = 0x0112
_TIFF_PHOTOMETRIC_TAG = 262
_TIFF_X_RESOLUTION_TAG = 282
_INVERSE_TURN = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


@contextmanager
def open_film(path: Path, frame: int | None) -> Iterator[tuple[Any, int]]:
    """Open and decode a PNG, JPEG, BMP or TIFF with Pillow, with errors that name the likely cause.

    Args:
        path: the file.
        frame: which page of a TIFF with several; None demands one.

    Yields:
        Pillow's image, decoded, and the EXIF orientation it had in the file (1 to 8).

    Raises:
        FileNotFoundError: there is no such file.
        LandmarkError: it is another kind of file, damaged, or has more than Pillow keeps.
    """
    if not path.is_file():
        what = "is a folder, not a film" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"the film {str(path)!r} {what}.")
    # By stream and not by name: by name Pillow maps an uncompressed TIFF with exchanged axes into memory the wrong way.
    with open(path, "rb") as stream:
        try:
            image = PILImage.open(stream, formats=_FORMATS)
        except (OSError, SyntaxError, ValueError) as error:
            raise LandmarkError(_why_no_film(path)) from error
        _check_content(image, path, frame)
        try:
            orientation = _orientation(image)
            image.load()
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise LandmarkError(
                f"{path.name!r} is damaged ({error}): the {image.format} header is in order but the pixels end early "
                "or cannot be decoded; copy or download the file again."
            ) from error
        yield image, orientation


def _check_content(image: Any, path: Path, frame: int | None) -> None:
    volume = _volume_suffix(path)
    if volume is not None:
        raise LandmarkError(
            f"{path.name!r} is a {image.format} picture under the name of a {volume} volume: rename it "
            "if it is the film."
        )
    _check_frames(image, path, frame)
    if ";16" in _rawmode(image) and image.mode in ("RGB", "RGBA", "LA"):
        raise LandmarkError(
            f"{path.name!r} has 16 bits in each colour or transparency channel, of which Pillow keeps 8: "
            "save it as 16-bit grey."
        )


def _volume_suffix(path: Path) -> str | None:
    return next((suffix for suffix in _VOLUME_SUFFIXES if path.name.lower().endswith(suffix)), None)


def _check_frames(image: Any, path: Path, frame: int | None) -> None:
    frames = int(getattr(image, "n_frames", 1))
    if frame is None and frames > 1:
        raise LandmarkError(
            f"{path.name!r} has {frames} pages and a film is one: choose with frame=0 ... {frames - 1}."
        )
    if frame is not None:
        if not 0 <= frame < frames:
            raise LandmarkError(
                f"{path.name!r} has {frames} page(s), so frame must be 0 ... {frames - 1}, got {frame}."
            )
        if frames > 1:
            image.seek(frame)


def _rawmode(image: Any) -> str:
    """Return Pillow's name of the layout on disk; it exists only before the pixels are decoded."""
    args = image.tile[0][3] if image.tile else ""
    first = args[0] if isinstance(args, Sequence) and not isinstance(args, str) and args else args
    return str(first)


def _why_no_film(path: Path) -> str:
    volume = _volume_suffix(path)
    size = path.stat().st_size
    if size == 0:
        return f"{path.name!r} is empty (0 bytes): copy or download it again."
    if volume is not None:
        return (
            f"{path.name!r} is a volume, not a film: FilmReader reads PNG, JPEG, BMP and TIFF; load it with LoadImaged "
            "and no reader argument, or with reader='ITKReader'."
        )
    with open(path, "rb") as stream:
        head = stream.read(132)
    kind = "DICOM: load it with LoadImaged(reader='ITKReader')" if head[128:] == b"DICM" else None
    kind = "GIF, which keeps 256 colours and no pixel size: save it as PNG" if head.startswith(b"GIF8") else kind
    kind = "gzip (a compressed volume?): load it with LoadImaged" if head.startswith(b"\x1f\x8b") else kind
    if kind is not None:
        return f"{path.name!r} is no film but {kind}."
    return (
        f"{path.name!r} is not a PNG, JPEG, BMP or TIFF that Pillow can open ({size} bytes): its header is "
        "damaged, its layout is a rare one (save it as PNG), or it is another kind of file under this name."
    )


def resolution_tag(image: Any) -> tuple[tuple[float, float] | None, str]:
    """Return the pixel size in millimetres from the file's resolution tag, or None and the reason why not.

    Args:
        image: Pillow's image.
    """
    dpi = image.info.get("dpi")
    # Pillow answers 1 dot per inch for a TIFF without the tag.
    if dpi is None or (image.format == "TIFF" and _TIFF_X_RESOLUTION_TAG not in image.tag_v2):
        return None, "it has no resolution tag"
    x, y = (float(value) for value in ensure_tuple(dpi)[:2])
    if not (math.isfinite(x) and math.isfinite(y) and x > 0 and y > 0):
        return None, f"its resolution tag says {x:g} x {y:g} dots per inch"
    # PNG and BMP store dots per metre, so that 72 and 96 come back with a rounding of up to half a dot per metre.
    if any(abs(x - screen) < 0.02 and abs(y - screen) < 0.02 for screen in _SCREEN_DPI):
        return None, f"its tag of {x:.0f} dots per inch is what programs write when they do not know"
    return (25.4 / x, 25.4 / y), ""


def _orientation(image: Any) -> int:
    value = image.getexif().get(_EXIF_ORIENTATION_TAG, 1)
    return int(value) if value in _INVERSE_TURN else 1


def turn_as_shown(image: Any, orientation: int, path: Path, exif_rotation: str) -> tuple[Any, bool]:
    """Handle the EXIF request to show the picture turned.

    Args:
        image: the decoded picture.
        orientation: what EXIF said in the file, 1 to 8.
        path: for the message.
        exif_rotation: ``"refuse"``, ``"ignore"`` or ``"apply"``.

    Returns:
        the picture, and whether its axes are exchanged against the stored one.

    Raises:
        LandmarkError: for ``"refuse"`` and a picture to be turned.
    """
    if orientation == 1:
        return image, False
    if exif_rotation == "refuse":
        raise LandmarkError(
            f"{path.name!r} asks viewers to show it turned (EXIF orientation {orientation}), so landmarks clicked on "
            "the shown picture do not fit the stored one: give exif_rotation='apply' if they were clicked on the shown "
            "picture (most programs), 'ignore' if on the stored one."
        )
    # Pillow turns a TIFF while it decodes, and then forgets the tag; it leaves a JPEG or PNG as stored.
    already_turned = _orientation(image) == 1
    if exif_rotation == "apply":
        return (image if already_turned else _transposed(image, orientation)), orientation >= 5
    return (_transposed(image, _INVERSE_TURN[orientation]) if already_turned else image), False


def _transposed(image: Any, orientation: int) -> Any:
    """Turn a stored picture as EXIF says: 2 mirrored, 3 upside down, ..., 6 turned clockwise, 8 counterclockwise."""
    ways = PILImage.Transpose
    by_orientation = {
        2: ways.FLIP_LEFT_RIGHT,
        3: ways.ROTATE_180,
        4: ways.FLIP_TOP_BOTTOM,
        5: ways.TRANSPOSE,
        6: ways.ROTATE_270,
        7: ways.TRANSVERSE,
        8: ways.ROTATE_90,
    }
    return image.transpose(by_orientation[orientation])


def white_is_zero(image: Any) -> bool:
    """Tell whether a TIFF says that its zeros are white.

    Args:
        image: Pillow's image.
    """
    return bool(getattr(image, "tag_v2", {}).get(_TIFF_PHOTOMETRIC_TAG) == 0)


def grey_or_colour(image: Any, path: Path, colour: str, inverted: bool) -> np.ndarray:
    """Return the decoded picture as ``(H, W)`` grey, or ``(H, W, 3)`` where colour is kept.

    Args:
        image: Pillow's image.
        path: for the message.
        colour: ``"refuse"``, ``"luminance"`` or ``"keep"``, for pictures whose channels differ.
        inverted: whether zero means white.

    Raises:
        LandmarkError: for transparency, or for colour with ``"refuse"``.
    """
    mode = image.mode
    if mode == "1":
        return np.asarray(image.convert("L"))
    if mode in ("L", "I", "F") or mode.startswith("I;16"):
        array = np.asarray(image)
        array = array.astype(array.dtype.newbyteorder("="))
        # Pillow turns white-is-zero for 8 bits only.
        return 65535 - array if inverted and array.dtype == np.uint16 else array
    transparent = mode in ("LA", "RGBA", "PA", "La", "RGBa") or "transparency" in image.info
    if transparent:
        image = image.convert("RGBA")
        if np.asarray(image)[..., 3].min() < 255:
            raise LandmarkError(
                f"{path.name!r} has transparent pixels, whose grey is undefined: flatten it and save it again."
            )
    array = np.asarray(image.convert("RGB"))
    if (array == array[..., :1]).all():
        return array[..., 0]
    if colour == "keep":
        return array
    if colour == "luminance":
        return np.asarray(image.convert("RGB").convert("L"))
    worst = int(np.ptp(array.astype(np.int16), axis=-1).max())
    raise LandmarkError(
        f"{path.name!r} is in colour (channels differ by up to {worst} of 255): give colour='luminance' to make it "
        "grey, or colour='keep' for three channels."
    )


def scale_to_white(array: np.ndarray, path: Path, white: float, bits: int | None) -> tuple[np.ndarray, int]:
    """Scale the grey of a film so that 0 stays 0 and the brightest grey its pixels could hold becomes ``white``.

    Args:
        array: the pixels of the file, integers.
        path: for the message.
        white: the value of that grey in the result.
        bits: how many bits pixels of more than 8 bits use; None takes the fewest of 8, 10, 12, 14 and 16 that hold the
            brightest pixel.

    Returns:
        float32 ``array * white / (2 ** bits - 1)``, and the bits.

    Raises:
        LandmarkError: for pixels that have no brightest grey (floating point), are negative, or need more bits.
    """
    if array.dtype.kind not in "iu":
        raise LandmarkError(
            f"{path.name!r} has {array.dtype} pixels, for which no file says what white is, so they cannot be scaled to "
            f"white={white:g}: leave `white` out and scale by the film's own values (ScaleIntensityRangePercentilesd)."
        )
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if array.dtype == np.uint8:
        bits = 8
    elif bits is None:
        bits = next((depth for depth in _USUAL_BITS if high < 2**depth), _USUAL_BITS[-1])
    if low < 0 or high >= 2**bits:
        raise LandmarkError(
            f"{path.name!r} has values from {low} to {high}, which {bits} bits do not hold (0 to {2**bits - 1}): give "
            "the `bits` that its pixels use, or leave `white` out and scale by the film's own values."
        )
    # Multiplied before divided, so that a grey of 8 bits stored as v * 257 comes back as exactly v.
    return (array.astype(np.float64) * white / (2**bits - 1)).astype(np.float32), bits
