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
"""One table of all films' Cobb angles at the end of an epoch."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from ignite.engine import Events
from monai.config import PathLike

from ..data.files import write_text
from ..geometry import LandmarkError
from ..measurements import COBB_ANGLES
from ..metrics import film_smape
from .landmark_csv_saver import gathered, items_of

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["CobbAnglesSaver"]


class CobbAnglesSaver:
    """Collect the Cobb angles of every film and write one CSV file when the epoch ends.

    Columns ``case, main_thoracic, proximal, distal`` in degrees and, where the truth is known, the same with ``true_``
    before and the film's ``smape`` in per cent; an empty cell for an angle that could not be measured, and for the SMAPE
    then. Rows are sorted by case. The films of all processes are gathered and the first one writes. The file appears
    complete or not at all, and each epoch replaces that of the one before.

    Args:
        output_dir: folder of the file.
        angles_key: angles ``(3,)`` in the engine's output.
        true_key: true angles ``(3,)``, or None.
        case_key: name of the case, in the engine's batch or output.
        filename: of the table.

    Raises:
        LandmarkError: when two different films have one case name, or what is under the keys is no film's angles.

    Example:
        >>> import tempfile
        >>> from ignite.engine import Engine
        >>> folder = tempfile.TemporaryDirectory()
        >>> angles = {"pred_angles": torch.tensor([30.0, 10.0, 0.0]), "true_angles": torch.tensor([20.0, 20.0, 20.0])}
        >>> engine = Engine(lambda engine, batch: [angles])
        >>> CobbAnglesSaver(folder.name, true_key="true_angles").attach(engine)
        >>> _ = engine.run([[{"case": "001"}]])
        >>> print((Path(folder.name) / "cobb_angles.csv").read_text(), end="")
        case,main_thoracic,proximal,distal,true_main_thoracic,true_proximal,true_distal,smape
        001,30.0000,10.0000,0.0000,20.0000,20.0000,20.0000,40.0000
        >>> folder.cleanup()
    """

    def __init__(
        self,
        output_dir: PathLike,
        angles_key: str = "pred_angles",
        true_key: str | None = None,
        case_key: str = "case",
        filename: str = "cobb_angles.csv",
    ) -> None:
        self.path = Path(output_dir) / filename
        self.keys = [key for key in (angles_key, true_key) if key is not None]
        self.case_key = case_key
        self._films: list[tuple[str, torch.Tensor]] = []

    def attach(self, engine: Engine) -> None:
        """Follow the engine's epochs.

        Args:
            engine: an evaluator, or any engine whose output has the angles.
        """
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def start(self, engine: Engine | None = None) -> None:
        """Forget the films of the epoch before.

        Args:
            engine: not used.
        """
        self._films = []

    def __call__(self, engine: Engine) -> None:
        """Collect the films of one iteration.

        Args:
            engine: with the batch and the output of the iteration.
        """
        pairs = zip(items_of(engine.state.batch), items_of(engine.state.output), strict=True)
        self._films.extend(self._film({**batch, **output}) for batch, output in pairs)

    def _film(self, item: Mapping[Any, Any]) -> tuple[str, torch.Tensor]:
        for key in (self.case_key, *self.keys):
            if key not in item:
                raise LandmarkError(f"{key!r} is not in the engine's batch or output: {sorted(map(str, item))}.")
        angles = torch.stack([torch.as_tensor(item[key]).detach().cpu().to(torch.float64) for key in self.keys])
        if angles.shape[1:] != (len(COBB_ANGLES),):
            raise LandmarkError(
                f"a film has {len(COBB_ANGLES)} Cobb angles, got shape {tuple(angles.shape[1:])} under {self.keys}: measure "
                "them with CobbAnglesd."
            )
        return str(item[self.case_key]), angles

    def write(self, engine: Engine | None = None) -> None:
        """Gather the films of all processes and write the file.

        Args:
            engine: not used.
        """
        films: dict[str, torch.Tensor] = {}
        for case, angles in gathered(self._films):
            # A film that a distributed sampler repeated has the same angles.
            if not torch.equal(films.setdefault(case, angles).nan_to_num(-1), angles.nan_to_num(-1)):
                raise LandmarkError(
                    f"two films are called {case!r}: give each a name of its own under {self.case_key!r}."
                )
        if dist.is_available() and dist.is_initialized() and dist.get_rank() != 0:
            return
        prefixes = ("", "true_")[: len(self.keys)]
        header = ["case", *(f"{prefix}{name}" for prefix in prefixes for name in COBB_ANGLES)]
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow([*header, "smape"] if len(self.keys) > 1 else header)
        for case in sorted(films):
            angles = films[case]
            error = film_smape(angles[0], angles[1])[None] if len(angles) > 1 else angles.new_empty(0)
            writer.writerow([case, *map(_cell, torch.cat([angles.flatten(), error]).tolist())])
        write_text(self.path, table.getvalue())


def _cell(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else ""
