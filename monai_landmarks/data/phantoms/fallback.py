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
"""Real data where they are given, a phantom where they are not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["dataset_or_phantom"]

logger = logging.getLogger(__name__)


def dataset_or_phantom(
    dataset_dir: str | Path | None, phantom_dir: str | Path, write: Callable[..., Any], **parameters: Any
) -> str:
    """Give the folder of a data set; without one, write its phantom and say so in the log.

    A folder that was given and does not exist is an error, never a phantom.

    Args:
        dataset_dir: of real data; None or "" asks for the phantom.
        phantom_dir: where the phantom goes, or lies already.
        write: writes it, called as ``write(phantom_dir, **parameters)``.
        parameters: of the phantom.

    Returns:
        the folder that holds the data.

    Raises:
        FileNotFoundError: if ``dataset_dir`` was given and does not exist.

    Example:
        >>> dataset_or_phantom("/no/such/folder", "phantom", print)
        Traceback (most recent call last):
        FileNotFoundError: dataset_dir /no/such/folder does not exist...
    """
    if dataset_dir:
        if not Path(dataset_dir).is_dir():
            raise FileNotFoundError(
                f"dataset_dir {dataset_dir} does not exist. Correct the path, or leave dataset_dir empty to run on a "
                "phantom."
            )
        return str(dataset_dir)
    logger.warning("no dataset_dir was given: this run uses a PHANTOM, written to %s.", phantom_dir)
    write(phantom_dir, **parameters)
    return str(phantom_dir)
