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
"""Choosing one case out of a file that holds many."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import TypeVar

from monai_landmarks.geometry import LandmarkError

from ..landmarks import quoted

T = TypeVar("T")

_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")


def select_case(cases: Mapping[str, T], case: str | None, what: str = "case") -> T:
    """Return the case asked for, or the only one there is.

    A name matches as it stands; where none does, without folder and suffix if that leaves one candidate
    (``"films/001.bmp"`` is found as ``"001"``). Numbers are texts: 1 is not ``"001"``.

    Args:
        cases: by name.
        case: the name, or None for a file with one case.
        what: what the messages call a case.

    Raises:
        LandmarkError: several cases and none asked for, or the one asked for is not there; with the nearest names.

    Example:
        >>> select_case({"001": "a", "002": "b"}, "1")
        Traceback (most recent call last):
        ...
        monai_landmarks.geometry.points.LandmarkError: there is no case '1' among the 2 cases; near it are '001'.
    """
    if case is None:
        if len(cases) == 1:
            return next(iter(cases.values()))
        raise LandmarkError(
            f"the file holds {len(cases)} {what}s ({quoted(cases, 5)}): say which with case=<its name>."
        )
    if case in cases:
        return cases[case]
    same_stem = [name for name in cases if PurePath(name).stem == PurePath(case).stem]
    if len(same_stem) == 1:
        return cases[same_stem[0]]
    near = _near(case, list(cases))
    hint = f"near it are {quoted(near)}" if near else f"they are {quoted(cases, 5)}"
    raise LandmarkError(f"there is no {what} {case!r} among the {len(cases)} {what}s; {hint}.")


def _near(case: str, names: list[str]) -> list[str]:
    same_number = [name for name in names if _LEADING_ZEROS.sub("", name) == _LEADING_ZEROS.sub("", case)]
    inside = [name for name in names if case and (case in name or name in case)]
    close = difflib.get_close_matches(case, names, n=3, cutoff=0.6)
    return list(dict.fromkeys([*same_number, *close, *inside]))[:5]
