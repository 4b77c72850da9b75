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

"""The mark by which a phantom folder, written in a real data set's layout, is told from the real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from monai_landmarks.geometry import LandmarkError

__all__ = ["PHANTOM_PARAMETERS", "PHANTOM_TEXT", "is_phantom", "read_phantom_parameters", "whole_phantom_parameters"]

PHANTOM_TEXT = "PHANTOM.txt"
"""Written first, for people: says that the folder is a phantom."""

PHANTOM_PARAMETERS = "PHANTOM.json"
"""Written last, for programs: kind, parameters and case numbers of a complete phantom."""


def is_phantom(dataset_dir: str | Path) -> bool:
    """Tell whether a data set folder holds a phantom, complete or not, so that logs and reports can say so.

    Args:
        dataset_dir: folder of a data set.

    Returns:
        True when the folder carries the phantom mark.

    Example:
        >>> is_phantom("/no/such/folder")
        False
    """
    return any((Path(dataset_dir) / name).is_file() for name in (PHANTOM_TEXT, PHANTOM_PARAMETERS))


def read_phantom_parameters(dataset_dir: str | Path) -> dict[str, Any] | None:
    """Read what a complete phantom was written with.

    Args:
        dataset_dir: folder of a data set.

    Returns:
        The parameters, or None where the folder is no phantom or its writing was interrupted.

    Raises:
        LandmarkError: when the parameter file is not a JSON object.

    Example:
        >>> read_phantom_parameters("/no/such/folder") is None
        True
    """
    path = Path(dataset_dir) / PHANTOM_PARAMETERS
    if not path.is_file():
        return None
    try:
        parameters = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LandmarkError(
            f"{path} is not readable JSON ({error}); delete the folder and write the phantom anew."
        ) from error
    if not isinstance(parameters, dict):
        raise LandmarkError(
            f"{path} should hold a JSON object, got {type(parameters).__name__}; write the phantom anew."
        )
    return parameters


def whole_phantom_parameters(dataset_dir: str | Path) -> dict[str, Any] | None:
    """Read what a phantom was written with, refusing one whose writing was interrupted.

    Args:
        dataset_dir: folder of a data set.

    Returns:
        The parameters, or None where the folder is no phantom.

    Raises:
        FileNotFoundError: when the phantom is incomplete.
        LandmarkError: when the parameter file is not a JSON object.

    Example:
        >>> whole_phantom_parameters("/no/such/folder") is None
        True
    """
    parameters = read_phantom_parameters(dataset_dir)
    if parameters is None and is_phantom(dataset_dir):
        raise FileNotFoundError(
            f"The phantom in {dataset_dir} is incomplete: its writing was interrupted. Write it again."
        )
    return parameters
