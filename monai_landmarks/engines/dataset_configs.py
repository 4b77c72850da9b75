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
"""One configuration, read once for each data set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from ..data.landmarks import did_you_mean

__all__ = ["DatasetConfigs"]


class DatasetConfigs:
    """Read a configuration once for each data set, with the data set's own file on top, and build parts of it.

    A bundle that trains on several data sets describes in one file how *a* data set is loaded, augmented, decoded and
    scored (``dataset.json``), and in ``datasets/<name>.json`` what is special about each: its folder, landmark names,
    cases, grid, protocol. Only the data sets that are asked for are read, and only the parts that are asked for are built.

    Args:
        config_dir: folder of the files.
        datasets: names; each has a file ``datasets/<name>.json``.
        files: what all data sets share, relative to ``config_dir``; later files replace entries of earlier ones.
        settings: further entries by data set, which replace those of the files; ids as on MONAI's command line
            (``"augment#0#prob"``) are understood. Those of known data sets that were not asked for are not used.
        shared: further entries for all data sets: values and objects such as a device. ``name`` is set to the data set's.

    Raises:
        FileNotFoundError: if a file is missing; for an unknown data set the known ones are listed.
        ValueError: without data sets, or for one named twice.

    Example:
        >>> import json, tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "datasets").mkdir()
        >>> _ = (folder / "dataset.json").write_text(json.dumps({"size": "$2 * @width", "title": "$@name + ' films'"}))
        >>> for name, width in {"head": 104, "hand": 92}.items():
        ...     _ = (folder / "datasets" / f"{name}.json").write_text(json.dumps({"width": width}))
        >>> configs = DatasetConfigs(folder, ["head", "hand"], settings={"hand": {"width": 10}})
        >>> configs.get("size"), configs.get("title")["hand"]
        ({'head': 208, 'hand': 20}, 'hand films')
    """

    def __init__(
        self,
        config_dir: str | os.PathLike[str],
        datasets: Sequence[str],
        files: Sequence[str] = ("dataset.json",),
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        **shared: Any,
    ) -> None:
        folder, names, settings = Path(config_dir), tuple(datasets), settings or {}
        if not names or len(set(names)) < len(names):
            raise ValueError(f"`datasets` must name each data set once, got {list(names)}.")
        for name in settings:
            _file(folder, name)
        self._parsers = {name: _read(folder, name, files) for name in names}
        for name, parser in self._parsers.items():
            parser.update({**shared, "name": name, **settings.get(name, {})})

    @property
    def names(self) -> tuple[str, ...]:
        """The data sets, in order."""
        return tuple(self._parsers)

    def get(self, key: str) -> dict[str, Any]:
        """Build one entry of the configuration for every data set.

        An entry is built once and kept, and so is everything it was built of. What needs an object that exists only later,
        such as the network, is built as a function of it: ``"_mode_": "callable"``.

        Args:
            key: its id, ``"train_loader"`` or ``"cases#test"``.

        Returns:
            by data set.

        Raises:
            KeyError: if the configuration of a data set has no such entry.
        """
        return {name: parser.get_parsed_content(key) for name, parser in self._parsers.items()}


def _file(folder: Path, name: str) -> Path:
    """The data set's own file."""
    own = folder / "datasets" / f"{name}.json"
    if not own.is_file():
        known = sorted(path.stem for path in own.parent.glob("*.json"))
        raise FileNotFoundError(
            f"there is no data set {name!r}{did_you_mean(name, known)}: {own} does not exist. Known: {', '.join(known)}."
        )
    return own


def _read(folder: Path, name: str, files: Sequence[str]) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([*(folder / file for file in files), _file(folder, name)])
    return parser
