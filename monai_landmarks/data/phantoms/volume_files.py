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
"""Files of phantoms: volumes as NIfTI, text, and the marks of a folder that holds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import optional_import

from monai_landmarks.data.datasets.phantom_marker import PHANTOM_PARAMETERS, PHANTOM_TEXT, read_phantom_parameters
from monai_landmarks.data.files import atomic_write, write_text

nib, _ = optional_import("nibabel")

__all__ = ["finish_phantom", "start_phantom", "write_volume"]


def write_volume(path: str | Path, values: np.ndarray, affine: np.ndarray) -> None:
    """Write a NIfTI file in mm whose qform and sform both say the affine is scanner space.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        values: the volume, in the type to be stored.
        affine: (4, 4) from voxel index to RAS mm.
    """
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    with atomic_write(path) as temporary:
        nib.save(image, temporary)


def start_phantom(root: Path, parameters: dict[str, Any], notice: str) -> bool:
    """Mark a folder as a phantom's before anything else is written to it.

    Args:
        root: a new or empty folder, or one with a phantom of these parameters, complete or not.
        parameters: kind, version and all arguments on which the files depend, as JSON has them.
        notice: what ``PHANTOM.txt`` tells people; the parameters are put at its end.

    Returns:
        True when the folder is complete already and there is nothing to do.

    Raises:
        ValueError: when the folder holds anything else.
    """
    if root.exists() and not root.is_dir():
        raise ValueError(f"{root} is a file, expected a folder to write the phantom to.")
    # Listed before the marks are read: another process may be writing its mark here in this very moment.
    beginning = f".{Path(PHANTOM_TEXT).stem}-"
    held = [path for path in root.iterdir() if not path.name.startswith(beginning)] if root.exists() else []
    if (present := _parameters_of(root)) is not None:
        if present != parameters:
            raise ValueError(_other_phantom(root, present, parameters))
        if (root / PHANTOM_PARAMETERS).is_file():
            return True
    elif held:
        raise ValueError(
            f"{root} is not empty and holds no phantom; it will not be written to, as it may be real data. Give a new"
            " or empty folder."
        )
    write_text(root / PHANTOM_TEXT, f"{notice.rstrip()}\n\nParameters: {json.dumps(parameters)}\n")
    return False


def finish_phantom(root: Path, parameters: dict[str, Any]) -> None:
    """Mark the folder as complete, after everything else was written."""
    write_text(root / PHANTOM_PARAMETERS, json.dumps(parameters, indent=2) + "\n")


def _parameters_of(root: Path) -> dict[str, Any] | None:
    """Parameters of a complete phantom or of one that was begun."""
    complete = read_phantom_parameters(root)
    notice = root / PHANTOM_TEXT
    if complete is not None or not notice.is_file():
        return complete
    return dict(json.loads(notice.read_text(encoding="utf-8").rpartition("Parameters: ")[2] or "{}"))


def _other_phantom(root: Path, present: dict[str, Any], wanted: dict[str, Any]) -> str:
    differing = sorted(key for key in {*present, *wanted} if present.get(key) != wanted.get(key))
    changes = [f"{key} is {_short(present.get(key))}, asked was {_short(wanted.get(key))}" for key in differing]
    return f"{root} holds another phantom: {'; '.join(changes)}. Delete it or give another folder."


def _short(value: Any) -> str:
    return str({key: len(cases) for key, cases in value.items()}) if isinstance(value, dict) else repr(value)
