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

from monai.config import PathLike

from ..measurements import COBB_ANGLES
from ..metrics import film_smape
from .measurements_saver import MeasurementsSaver

__all__ = ["CobbAnglesSaver"]


class CobbAnglesSaver(MeasurementsSaver):
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
        >>> from pathlib import Path
        >>> import torch
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
        super().__init__(
            output_dir,
            COBB_ANGLES,
            angles_key,
            true_key,
            error=lambda pred, true: film_smape(pred, true)[:, None],
            error_names=["smape"],
            case_key=case_key,
            filename=filename,
            what="Cobb angles",
        )
