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
"""One table of all predicted landmarks at the end of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.config import PathLike
from monai.utils import ImageMetaKey, look_up_option

from ..data import Landmarks, write_landmark_table
from ..geometry import LandmarkError
from ..transforms.field_of_view import state_in_file, status_words
from ..transforms.save import case_of
from ..transforms.spatial import as_points
from .case_table import CaseTableSaver

__all__ = ["LandmarkCSVSaver"]


class _Case(NamedTuple):
    source: str
    landmarks: Landmarks


class LandmarkCSVSaver(CaseTableSaver[_Case]):
    """Collect the landmarks of every case and write one CSV file when the epoch ends.

    Columns ``case, name, x, y[, z], status[, confidence]`` in world millimetres (RAS in 3D, the film plane in 2D), an
    empty cell for a missing landmark, the status ``outside`` for one that is not in its image's file, one row per case and
    landmark, sorted by case: as
    :func:`monai_landmarks.data.write_landmark_table` writes and ``read_landmark_table`` reads it. The cases of all
    processes are gathered and one process writes; a case that a distributed sampler repeated appears once. The file
    appears complete or not at all, and each epoch replaces that of the one before.

    Args:
        output_dir: folder of the file.
        names: of the landmarks, in the order of the points.
        points_key: world points ``(N, D)`` in the engine's output (or batch).
        confidence_key: confidences ``(N,)``, or None.
        case_key: where an item has the name of its case; items without it are named by the file of ``refer_key``.
        refer_key: the image.
        filename: of the table, ``.csv`` or ``.tsv``.
        layout: ``"long"``, a row per landmark, or ``"wide"``, a row per case.
        batch_transform: takes from ``engine.state.batch`` the dictionaries with ``case_key`` and ``refer_key``.
        output_transform: takes from ``engine.state.output`` the dictionaries with ``points_key``.
        save_rank: the process that writes.
        state_key: where an item has the landmarks' state, as ``LandmarkFieldOfViewd`` writes it; None asks the image under
            ``refer_key``, if the item has one.

    Raises:
        LandmarkError: when two different files have one case name, or points and names do not fit.

    Example:
        >>> import tempfile
        >>> from ignite.engine import Engine
        >>> folder = tempfile.TemporaryDirectory()
        >>> engine = Engine(lambda engine, batch: [{"pred": torch.tensor([[1.5, 2.0]])}])
        >>> LandmarkCSVSaver(folder.name, names=["sella"], points_key="pred").attach(engine)
        >>> _ = engine.run([[{"case": "001"}]])
        >>> print((Path(folder.name) / "landmarks.csv").read_text(), end="")
        case,name,x,y,status
        001,sella,1.5,2.0,defined
        >>> folder.cleanup()
    """

    def __init__(
        self,
        output_dir: PathLike,
        names: Sequence[str],
        points_key: str,
        confidence_key: str | None = None,
        case_key: str = "case",
        refer_key: str = "image",
        filename: str = "landmarks.csv",
        layout: str = "long",
        batch_transform: Callable[[Any], Any] = lambda x: x,
        output_transform: Callable[[Any], Any] = lambda x: x,
        save_rank: int = 0,
        state_key: str | None = None,
    ) -> None:
        super().__init__(batch_transform, output_transform, save_rank)
        if isinstance(names, str) or len(set(names)) != len(tuple(names)):
            raise ValueError(f"names must be a sequence of different landmark names, got {names!r}.")
        self.path = Path(output_dir) / filename
        if self.path.suffix.lower() not in (".csv", ".tsv"):
            raise ValueError(f"filename must end in .csv or .tsv, got {filename!r}.")
        self.layout = look_up_option(layout, ("long", "wide"))
        self.names = tuple(names)
        self.points_key = points_key
        self.confidence_key = confidence_key
        self.case_key = case_key
        self.refer_key = refer_key
        self.state_key = state_key

    def _case(self, item: Mapping[Any, Any]) -> tuple[str, _Case]:
        for key in (self.points_key, self.confidence_key, self.state_key):
            if key is not None and key not in item:
                raise LandmarkError(f"{key!r} is not in the engine's output, which has {sorted(map(str, item))}.")
        points = as_points(item[self.points_key]).detach().cpu().to(torch.float64)
        confidence = None if self.confidence_key is None else torch.as_tensor(item[self.confidence_key])
        scores = None if confidence is None else confidence.detach().cpu().to(torch.float64).numpy()
        name, source = self._name(item)
        state = state_in_file(points, item.get(self.refer_key)) if self.state_key is None else item[self.state_key]
        status = status_words(points, state) if points.ndim == 2 else None
        return name, _Case(source, Landmarks(points.numpy(), self.names, status, scores))

    def _name(self, item: Mapping[Any, Any]) -> tuple[str, str]:
        image = item.get(self.refer_key)
        knows_file = bool(getattr(image, "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ))
        if self.case_key in item:
            name = str(item[self.case_key])
            return name, case_of(image)[1] if knows_file else name
        if image is None:
            raise LandmarkError(
                f"the items have neither a case name ({self.case_key!r}) nor an image ({self.refer_key!r}) but "
                f"{sorted(map(str, item))}: name one of them."
            )
        return case_of(image)

    def _check_twins(self, name: str, one: _Case, other: _Case) -> None:
        if one.source != other.source:
            raise LandmarkError(
                f"two images are called {name!r}: {one.source!r} and {other.source!r}. Give each case a name of its "
                f"own under {self.case_key!r}."
            )

    def _write(self, cases: dict[str, _Case]) -> None:
        table = {name: case.landmarks for name, case in cases.items()}
        write_landmark_table(table, self.path, layout=self.layout)
