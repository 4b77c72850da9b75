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
"""Texts about one case, such as what the sequence model changed and why, as files beside its landmarks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from monai.config import KeysCollection, PathLike
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends

from ..data.files import write_text
from .save import checked_case
from .spatial import look_up_reference

__all__ = ["SaveText", "SaveTextD", "SaveTextDict", "SaveTextd"]


class SaveText(Transform):
    """Write a text into ``<output_dir>/<case><suffix>``, whole or not at all; a file of that name is replaced.

    Args:
        output_dir: folder, made when the first file is written.
        suffix: put behind the case's name, with the ending of the file.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> SaveText(folder.name, "_sequence.txt")("anatomy: regular", case="001").name
        '001_sequence.txt'
        >>> folder.cleanup()
    """

    backend = [TransformBackends.NUMPY]

    def __init__(self, output_dir: PathLike, suffix: str = ".txt") -> None:
        self.output_dir, self.suffix = Path(output_dir), suffix

    def __call__(self, text: str, case: str) -> Path:  # type: ignore[override]
        """Write one file.

        Args:
            text: to be written; a line end is put behind it.
            case: name of the case.

        Returns:
            the path of the file.

        Raises:
            LandmarkError: for a name that cannot be that of a file.
        """
        path = self.output_dir / f"{checked_case(case)}{self.suffix}"
        write_text(path, f"{text}\n")
        return path


class SaveTextd(MapTransform):
    """Write the texts under ``keys`` into one file per case; the item passes through unchanged.

    Dictionary version of :class:`SaveText`.

    Args:
        keys: one, of a text such as ``report_keys`` of :class:`SelectSequenced`.
        output_dir: folder of the files.
        suffix: put behind the case's name, with the ending of the file.
        case_key: where an item has the name of its case.
        allow_missing_keys: whether an item may lack one of ``keys``.

    Raises:
        ValueError: for several keys.
        LandmarkError: at a call, for an item without the name of its case.
    """

    backend = SaveText.backend

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: PathLike,
        suffix: str = ".txt",
        case_key: str = "case",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(
                f"the texts {list(self.keys)} would be saved into one file: give each a SaveTextd and a suffix."
            )
        self.save, self.case_key = SaveText(output_dir, suffix), case_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            self.save(d[key], look_up_reference(d, self.case_key, "case_key"))
        return d


SaveTextD = SaveTextDict = SaveTextd
