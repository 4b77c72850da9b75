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
"""Films of phantoms: which numbers they have, and their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from monai.utils import optional_import

from monai_landmarks.data.files import atomic_write

PILImage, _ = optional_import("PIL.Image")

__all__ = ["check_reduction", "number_films", "write_film"]


def check_reduction(reduction: int, finest: str) -> None:
    """Refuse a reduction that is no positive integer.

    Args:
        reduction: by which films are smaller than the finest.
        finest: what 1 stands for, for the message.

    Raises:
        ValueError: as said.
    """
    if reduction < 1 or int(reduction) != reduction:
        raise ValueError(f"reduction must be a positive integer, 1 for {finest}, got {reduction}.")


def number_films(
    counts: Mapping[str, int], sections: Mapping[str, tuple[int, int]], name: Callable[[int], str] = str
) -> dict[str, list[str]]:
    """Name the films of each section as the real data set does.

    Args:
        counts: number of films by section.
        sections: number of the first film, and how many films the real section has.
        name: of a film by its number.

    Returns:
        names by section.

    Raises:
        ValueError: for more films than the real section has, or none at all.

    Example:
        >>> number_films({"training": 2, "test": 1}, {"training": (1, 150), "test": (151, 150)}, "{:03d}".format)
        {'training': ['001', '002'], 'test': ['151']}
    """
    cases = {}
    for section, count in counts.items():
        first, most = sections[section]
        if not 0 <= count <= most:
            raise ValueError(f"num_{section} must be 0 to {most}, as many as the real section has, got {count}.")
        cases[section] = [name(number) for number in range(first, first + count)]
    if not any(cases.values()):
        raise ValueError(f"{', '.join(f'num_{section}' for section in counts)} are all 0: there is nothing to write.")
    return cases


def write_film(path: Path, image: np.ndarray) -> None:
    """Write a film as PNG, whole or not at all.

    Args:
        path: of the file.
        image: uint8 ``(height, width)``.
    """
    with atomic_write(path) as temporary:
        PILImage.fromarray(image).save(temporary, compress_level=1)
