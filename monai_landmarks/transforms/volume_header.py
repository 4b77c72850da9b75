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
"""What a volume's header may say: grid, direction and voxel size, checked against themselves and the file's name."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import optional_import

from ..geometry import LandmarkError, voxel_sizes

nib, _ = optional_import("nibabel")

__all__ = ["check_file_name", "check_grid", "check_nifti_header", "spacing_in_name", "why_unreadable"]

_NIFTI = (".nii", ".nii.gz")
_RELATIVE = 1e-3  # half a voxel over 500 voxels
_NAME_RELATIVE = 0.05  # names are rounded: 0.98 mm is called 1mm
_RIGHT_ANGLE_DEGREES = 0.5
_MEANING = {0: "none", 1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI"}

_NUMBER = r"(\d+(?:[.p]\d+)?)"
_TRIPLE = re.compile(rf"(?<![\d.a-z]){_NUMBER}x{_NUMBER}x{_NUMBER}(mm)?(?![\d.a-z])")
_ISOTROPIC = re.compile(rf"(?<![a-z])iso[_-]?{_NUMBER}(?:mm)?(?![\d.a-z])")
_SINGLE = re.compile(rf"(?<![\d.a-z]){_NUMBER}mm(?![a-z])")
_LARGEST_IN_NAME = 10.0


def check_nifti_header(file: Path, require_orientation: bool, form_tolerance: float, allow_shear: bool) -> None:
    """Refuse a NIfTI file whose header contradicts itself; files of other formats pass.

    Reads the header as it stands: nibabel and MONAI repair some of these faults while they load.

    Args:
        file: the file.
        require_orientation: refuse a file without direction matrix.
        form_tolerance: how far apart qform and sform may put a corner, in voxels.
        allow_shear: take a sform with axes that are not at right angles.

    Raises:
        LandmarkError: naming the fields and their values.
    """
    if not file.name.casefold().endswith(_NIFTI):
        return
    header, zooms = _header(file)
    if not (np.isfinite(zooms) & (zooms > 0)).all():
        raise LandmarkError(
            f"the header of {str(file)!r} gives the voxel sizes (pixdim) {zooms.tolist()}; they must be positive "
            "millimetres. Convert the scan anew from its DICOM series."
        )
    forms = {"sform": (int(header["sform_code"]), _sform), "qform": (int(header["qform_code"]), _qform)}
    known = {name: get(header, file) for name, (code, get) in forms.items() if code > 0}
    if not known and require_orientation:
        raise LandmarkError(
            f"{str(file)!r} has no direction matrix (qform_code and sform_code are 0), so nobody knows where left is. "
            "Convert the scan anew, write the right affine into it, or take nibabel's guess (the first axis runs to the "
            "left) with require_orientation=False."
        )
    for name, matrix in known.items():
        _check_lengths(matrix, zooms, name, file)
    if len(known) == 2 and _skew(known["sform"]) <= _RIGHT_ANGLE_DEGREES:
        _check_forms(known, {name: code for name, (code, _) in forms.items()}, header, form_tolerance, file)


def _header(file: Path) -> tuple[Any, np.ndarray]:
    """Return the header with nibabel's small repairs, and the voxel sizes as they stand in the file."""
    try:
        header = nib.load(file).header
        with nib.openers.ImageOpener(str(file)) as stream:
            raw = type(header).from_fileobj(stream, check=False)
        dims = min(max(int(raw["dim"][0]), 0), 3)
        return header, np.asarray(raw["pixdim"][1 : 1 + dims], dtype=np.float64)
    except Exception as error:  # nibabel, gzip and the operating system each have their own
        raise LandmarkError(f"cannot read the volume {str(file)!r}: {why_unreadable(file, error)}") from error


def _sform(header: Any, file: Path) -> np.ndarray:
    return _usable(np.asarray(header.get_sform(), dtype=np.float64), "sform", file)


def _qform(header: Any, file: Path) -> np.ndarray:
    try:
        matrix = np.asarray(header.get_qform(), dtype=np.float64)
    except Exception as error:  # nibabel's word for a quaternion longer than 1
        raise LandmarkError(
            f"the qform of {str(file)!r} is no rotation ({error}): its header is damaged. Convert the scan anew."
        ) from error
    return _usable(matrix, "qform", file)


def _usable(matrix: np.ndarray, name: str, file: Path) -> np.ndarray:
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if (
        not np.isfinite(matrix).all()
        or abs(np.linalg.det(matrix[:3, :3])) <= 1e-6 * lengths.prod()
        or not lengths.all()
    ):
        raise LandmarkError(
            f"the {name} of {str(file)!r} is no direction matrix, it squashes space: {matrix[:3].tolist()}. The header is "
            "damaged; convert the scan anew."
        )
    return matrix


def _check_lengths(matrix: np.ndarray, zooms: np.ndarray, name: str, file: Path) -> None:
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)[: len(zooms)]
    if not np.allclose(lengths, zooms, rtol=_RELATIVE, atol=0):
        raise LandmarkError(
            f"the header of {str(file)!r} contradicts itself: the voxel sizes (pixdim) are {_text(zooms)} mm, those of its "
            f"{name} {_text(lengths)} mm. Some tool changed one and not the other; find out which is right (a vertebra is "
            "20 to 40 mm high) and write both."
        )


def _check_forms(
    forms: dict[str, np.ndarray], codes: dict[str, int], header: Any, tolerance: float, file: Path
) -> None:
    size = np.array([*header["dim"][1:4]], dtype=np.float64)
    corners = np.stack(np.meshgrid(*[(0.0, max(s - 1, 0.0)) for s in size], indexing="ij"), axis=-1).reshape(-1, 3)
    difference = forms["sform"] - forms["qform"]
    apart = np.linalg.norm(corners @ difference[:3, :3].T + difference[:3, 3], axis=1).max()
    smallest = np.linalg.norm(forms["sform"][:3, :3], axis=0).min()
    if apart > tolerance * smallest:
        words = ", ".join(f"{name} {_MEANING.get(codes[name], codes[name])}" for name in forms)
        raise LandmarkError(
            f"the two direction matrices of {str(file)!r} ({words}) put a corner of the volume {apart:.4g} mm apart, so "
            "programs disagree on where it is and perhaps on which side is left. Keep the right one in both, or give "
            "form_tolerance=inf to go by the sform."
        )


def check_grid(affine: Any, allow_shear: bool, spacing_range: Sequence[float], file: Path) -> np.ndarray:
    """Refuse an affine that is no scanner's; return the voxel sizes in millimetres.

    Args:
        affine: ``(4, 4)``, index to world.
        allow_shear: take axes that are not at right angles.
        spacing_range: smallest and largest plausible voxel size.
        file: for the message.

    Raises:
        LandmarkError: naming what is wrong.
    """
    matrix = _usable(torch.as_tensor(affine).to(torch.float64).numpy(), "affine", file)
    spacing: np.ndarray = voxel_sizes(torch.as_tensor(matrix)).numpy()
    low, high = spacing_range
    if spacing.min() < low or spacing.max() > high:
        raise LandmarkError(
            f"the voxels of {str(file)!r} are {_text(spacing)} mm; {low:g} to {high:g} is plausible. Is the unit metres or "
            "micrometres? If the size is right, give spacing_range."
        )
    skew = _skew(matrix)
    if skew > _RIGHT_ANGLE_DEGREES and not allow_shear:
        raise LandmarkError(
            f"the axes of {str(file)!r} are {skew:.3g} degrees away from right angles: a CT with tilted gantry, or a "
            "damaged header. Resample it to an upright grid, or give allow_shear=True."
        )
    return spacing


def _skew(matrix: np.ndarray) -> float:
    """Largest deviation of two axes from the right angle, in degrees."""
    unit = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    cosines = np.abs(unit.T @ unit - np.eye(3))
    return float(np.degrees(np.arcsin(np.clip(cosines.max(), 0, 1))))


def check_file_name(file: Path, spacing: np.ndarray) -> None:
    """Refuse a volume whose voxels have another size than the file's name says.

    Args:
        file: its name is searched, its folders' names are not.
        spacing: voxel sizes in millimetres.

    Raises:
        LandmarkError: quoting the name and the sizes.
    """
    for text, said, kind in spacing_in_name(file.name):
        if kind == "isotropic":
            fits = np.allclose(spacing, said, rtol=_NAME_RELATIVE)
        elif kind == "axes":  # in whatever order the axes are stored
            fits = np.allclose(np.sort(spacing), np.sort(said), rtol=_NAME_RELATIVE)
        else:
            fits = np.isclose(spacing, said, rtol=_NAME_RELATIVE).any()
        if not fits:
            raise LandmarkError(
                f"{file.name!r} says {text!r} and its header voxels of {_text(spacing)} mm: the header was written wrongly, "
                "or the file was resampled and not renamed. Correct one of them; if the name means something else (slice "
                "thickness), give check_name=False."
            )


def spacing_in_name(name: str) -> list[tuple[str, list[float], str]]:
    """Find voxel sizes in a file's name.

    Three numbers joined by ``x`` count if they have a unit or a fraction or are all below 10: ``512x512x300`` is a number of
    voxels.

    Args:
        name: of the file.

    Returns:
        the text, its numbers in millimetres, and ``"axes"``, ``"isotropic"`` or ``"some axis"``.

    Example:
        >>> spacing_in_name("p1_0.5x0.5x2.nii.gz"), spacing_in_name("p1_iso1.5mm.nii"), spacing_in_name("p1_512x512x30.nii")
        ([('0.5x0.5x2', [0.5, 0.5, 2.0], 'axes')], [('iso1.5mm', [1.5], 'isotropic')], [])
    """
    text = re.sub(r"\.(nii|gz|mha|mhd|nrrd|img|hdr)\b", "", name.casefold())
    found = []
    for match in _TRIPLE.finditer(text):
        numbers = [_value(part) for part in match.groups()[:3]]
        if match[4] or max(numbers) < _LARGEST_IN_NAME or any(part.strip("0123456789") for part in match.groups()[:3]):
            found.append((match[0], numbers, "axes"))
    rest = _TRIPLE.sub(" ", text)
    found += [(match[0], [_value(match[1])], "isotropic") for match in _ISOTROPIC.finditer(rest)]
    rest = _ISOTROPIC.sub(" ", rest)
    found += [(match[0], [_value(match[1])], "some axis") for match in _SINGLE.finditer(rest)]
    return [item for item in found if 0 < max(item[1]) < _LARGEST_IN_NAME]


def _value(text: str) -> float:
    return float(text.replace("p", "."))


def why_unreadable(file: Path, error: Exception) -> str:
    """Say why a file could not be read: cut off, not what its ending says, or what the reader said.

    Args:
        file: the file.
        error: the reader's.
    """
    if file.is_file() and file.stat().st_size == 0:
        return "the file is empty: a truncated download or a full disk. Get it anew."
    if file.name.casefold().endswith(".gz"):
        try:
            with gzip.open(file) as stream:
                while stream.read(1 << 20):
                    pass
        except EOFError:
            size = file.stat().st_size
            return f"the compressed file ends in the middle (it has {size} bytes): a truncated download. Get it anew."
        except gzip.BadGzipFile:
            start = file.read_bytes()[:12]
            return f"it is not gzip, it begins with {start!r}: a plain file renamed, or the error page of a download."
        except zlib.error:
            return "the compressed data are damaged: get the file anew and compare its checksum."
    return (
        f"{_first_reason(error)}. The file may be truncated or damaged (get it anew), or its format needs a reader that is "
        "not installed."
    )


def _first_reason(error: Exception) -> str:
    """What the first reader said, on one line: MONAI lists the tracebacks of all readers it tried."""
    text = f"{type(error).__name__}: {error}"
    _, _, tried = text.partition("Traceback (most recent call last):\n")
    if tried:
        first = tried.partition("\nTraceback")[0].splitlines()
        text = " ".join(line for line in first if not line.startswith(" "))
    return " ".join(text.split())[:400].rstrip(".")


def _text(values: np.ndarray) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
