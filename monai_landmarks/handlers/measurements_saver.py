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
"""One table of what was measured on all cases, with its errors, at the end of an epoch."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import PathLike

from ..data.files import write_text
from ..geometry import LandmarkError, plain_tensor
from ..metrics.measurement_error import absolute_errors
from .case_table import CaseTableSaver

__all__ = ["MeasurementsSaver"]


class MeasurementsSaver(CaseTableSaver[torch.Tensor]):
    """Collect the named numbers of every case, such as angles, and write one CSV file when the epoch ends.

    Columns are ``case`` and the names; where the truth is known, the names with ``true_`` before, then those with
    ``error_``. With ``groups``, such as the two legs, a case has a row for each and a column says which. The cell of what
    could not be measured is empty. Rows are sorted by case. The cases of all processes are gathered and the first one
    writes. The file appears complete or not at all, and each epoch replaces that of the one before.

    Args:
        output_dir: folder of the file.
        names: of the ``K`` numbers.
        values_key: numbers ``(K,)``, or ``(G, K)`` with groups, in the engine's output, as
            :class:`~monai_landmarks.transforms.MeasureLandmarksd` leaves them.
        true_key: true numbers of the same shape, or None.
        groups: names of the ``G`` rows of a case, or None.
        group_column: title of their column.
        error: called with measured and true numbers ``(G, K)``, gives ``(G, E)``; by default the absolute difference. For
            angles take :func:`~monai_landmarks.measurements.angle_errors`.
        error_names: of the ``E`` errors; None takes the names with ``error_`` before.
        case_key: name of the case, in the engine's batch or output.
        filename: of the table.
        what: how a message calls the numbers.

    Raises:
        ValueError: for names or groups that are not different from each other.
        LandmarkError: when two different cases have one name, or what is under the keys has another shape.

    Example:
        >>> import tempfile
        >>> from ignite.engine import Engine
        >>> folder = tempfile.TemporaryDirectory()
        >>> film = {"case": "001", "pred": torch.tensor([[178.0], [171.5]]), "true": torch.tensor([[180.0], [171.0]])}
        >>> engine = Engine(lambda engine, batch: batch)
        >>> legs = {"groups": ["right", "left"], "group_column": "leg"}
        >>> MeasurementsSaver(folder.name, ["HKA"], "pred", "true", **legs).attach(engine)
        >>> _ = engine.run([[film]])
        >>> print((Path(folder.name) / "measurements.csv").read_text(), end="")
        case,leg,HKA,true_HKA,error_HKA
        001,right,178.0000,180.0000,2.0000
        001,left,171.5000,171.0000,0.5000
        >>> folder.cleanup()
    """

    def __init__(
        self,
        output_dir: PathLike,
        names: Sequence[str],
        values_key: str,
        true_key: str | None = None,
        groups: Sequence[str] | None = None,
        group_column: str = "group",
        error: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = absolute_errors,
        error_names: Sequence[str] | None = None,
        case_key: str = "case",
        filename: str = "measurements.csv",
        what: str = "measurements",
    ) -> None:
        super().__init__()
        for option, given in (("names", names), ("groups", groups)):
            if given is not None and (isinstance(given, str) or not given or len(set(given)) < len(tuple(given))):
                raise ValueError(f"`{option}` must be a sequence of different names, got {given!r}.")
        self.path = Path(output_dir) / filename
        self.names, self.groups = tuple(names), None if groups is None else tuple(groups)
        self.group_column, self.case_key, self.what = group_column, case_key, what
        self.error = error
        self.error_names = tuple(f"error_{name}" for name in names) if error_names is None else tuple(error_names)
        self.keys = [key for key in (values_key, true_key) if key is not None]

    def _case(self, item: Mapping[Any, Any]) -> tuple[str, torch.Tensor]:
        for key in (self.case_key, *self.keys):
            if key not in item:
                raise LandmarkError(f"{key!r} is not in the engine's batch or output: {sorted(map(str, item))}.")
        shape = (len(self.names),) if self.groups is None else (len(self.groups), len(self.names))
        values = [plain_tensor(torch.as_tensor(item[key])).detach().cpu().to(torch.float64) for key in self.keys]
        for key, found in zip(self.keys, values, strict=True):
            if found.shape != shape:
                raise LandmarkError(
                    f"a case has {' x '.join(map(str, shape))} {self.what}, got shape {tuple(found.shape)} under {key!r}: "
                    "measure its points first, as MeasureLandmarksd does."
                )
        return str(item[self.case_key]), torch.stack(values).reshape(len(values), -1, len(self.names))

    def _check_twins(self, name: str, one: torch.Tensor, other: torch.Tensor) -> None:
        # A case that a distributed sampler repeated has the same numbers.
        if not torch.equal(one.nan_to_num(-1), other.nan_to_num(-1)):
            raise LandmarkError(f"two films are called {name!r}: give each a name of its own under {self.case_key!r}.")

    def _write(self, cases: dict[str, torch.Tensor]) -> None:
        with_truth = len(self.keys) > 1
        header = ["case", *([self.group_column] if self.groups else []), *self.names]
        header += [*(f"true_{name}" for name in self.names), *self.error_names] if with_truth else []
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(header)
        for case, values in cases.items():
            parts = [*values, *([self.error(values[0], values[1])] if with_truth else [])]
            for row, numbers in enumerate(torch.cat(parts, dim=-1).tolist()):
                writer.writerow([case, *([self.groups[row]] if self.groups else []), *map(_cell, numbers)])
        write_text(self.path, table.getvalue())


def _cell(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else ""
