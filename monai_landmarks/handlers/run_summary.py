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
"""Says, when a run ends, where its results lie, and puts them into one report."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.distributed as dist
from ignite.engine import Events
from monai.config import PathLike
from monai.utils import optional_import

from ..data.datasets import is_phantom
from ..metrics import image_level_errors
from ..report import CaseFigure, error_curve, per_landmark_boxplot, write_report
from .case_figures import FACTS

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["RunSummary"]

PHANTOM = "PHANTOM DATA: the numbers say that the program works, nothing about patients."


@dataclass(frozen=True)
class _Table:
    """The error table of ``radial_errors.csv``."""

    cases: tuple[str, ...]
    names: tuple[str, ...]
    errors: np.ndarray


class RunSummary:
    """Write ``report.html`` when a run ends, and log where report, numbers, figures and predictions lie.

    It reads what others wrote in this run: ``metrics.json``, ``radial_errors.csv`` and ``per_landmark.csv`` of
    :class:`LandmarkMetricsSaver` and the figures of :class:`LandmarkFigureSaver`. A metrics file that this run did not
    write, and a figure whose error is not the one in the table, are of an earlier run: they are left out, and the log
    and the report say so. Without metrics (prediction of new images) the report shows figures only. In a distributed
    run the first process writes.

    Args:
        output_dir: folder of the metrics files; the report is written here.
        figures_dir: folder of the figures, relative to ``output_dir``.
        predictions_dir: folder of the predictions, relative to ``output_dir``, to be named in the log.
        title: heading of the report.
        phantom: whether the data are a phantom; metrics or a data folder that say so are believed too.
        dataset_dir: folder of the data, which may hold a phantom.
        max_cases: most cases shown, the worst ones.
        filename: of the report.
        notes: sentences for the end of the report.

    Raises:
        ValueError: for ``max_cases`` below 1.

    Example:
        >>> import tempfile
        >>> from ignite.engine import Engine
        >>> folder = tempfile.TemporaryDirectory()
        >>> engine = Engine(lambda engine, batch: None)
        >>> RunSummary(folder.name, phantom=True).attach(engine)
        >>> _ = engine.run([0])
        >>> "PHANTOM DATA" in (Path(folder.name) / "report.html").read_text()
        True
        >>> folder.cleanup()
    """

    def __init__(
        self,
        output_dir: PathLike,
        figures_dir: PathLike = "figures",
        predictions_dir: PathLike | None = None,
        title: str = "Landmark detection report",
        phantom: bool = False,
        dataset_dir: PathLike | None = None,
        max_cases: int = 20,
        filename: str = "report.html",
        notes: Sequence[str] = (),
    ) -> None:
        if max_cases < 1:
            raise ValueError(f"`max_cases` must be at least 1, got {max_cases}.")
        self.output_dir = Path(output_dir)
        self.figures_dir = self.output_dir / figures_dir
        self.predictions_dir = None if predictions_dir is None else self.output_dir / predictions_dir
        self.title, self.filename = title, filename
        self.phantom = phantom or (dataset_dir is not None and is_phantom(Path(dataset_dir)))
        self.max_cases = max_cases
        self.notes = (notes,) if isinstance(notes, str) else tuple(notes)
        self._before: tuple[int, ...] | None = None

    def attach(self, engine: Engine) -> None:
        """Follow the engine's runs.

        Args:
            engine: the evaluator whose results are summarised.
        """
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.COMPLETED, self)

    def start(self, engine: Engine | None = None) -> None:
        """Remember which metrics file was there before.

        Args:
            engine: not used.
        """
        self._before = _identity(self.output_dir / "metrics.json")

    def __call__(self, engine: Engine) -> None:
        """Write the report and log where everything lies.

        Args:
            engine: whose run ended; its logger is used.
        """
        if dist.is_available() and dist.is_initialized() and dist.get_rank() != 0:
            return
        notes = list(self.notes)
        summary, table = self._numbers(notes)
        cases = self._cases(table, notes)
        phantom = self.phantom or bool((summary or {}).get("phantom"))
        for kind, place in (("figures", self.figures_dir), ("predictions", self.predictions_dir)):
            if place is not None and place.is_dir():
                notes.append(f"{kind}: {os.path.relpath(place, self.output_dir)}")
        figures = {} if table is None or summary is None else _figures(table, summary)
        report = self.output_dir / self.filename
        write_report(report, summary, figures, cases, self.title, phantom, notes)
        if phantom:
            engine.logger.warning(PHANTOM)
        engine.logger.info("report: %s", report)
        if summary is not None:
            engine.logger.info("metrics: %s", self.output_dir / "metrics.json")
        for note in notes:
            engine.logger.info(note)

    def _numbers(self, notes: list[str]) -> tuple[dict[str, Any] | None, _Table | None]:
        """The metrics and the error table, where this run wrote them."""
        path = self.output_dir / "metrics.json"
        now = _identity(path)
        if now is None or now == self._before:
            reason = "there is no metrics.json" if now is None else "metrics.json is of an earlier run"
            notes.append(f"{reason}: no numbers are shown. LandmarkMetricsSaver writes them where there is a truth.")
            return None, None
        summary = json.loads(path.read_text(encoding="utf-8"))
        rates = _landmark_rates(self.output_dir / "per_landmark.csv")
        return ({**summary, "landmark_detection": rates} if rates else summary), _read_table(path.parent)

    def _cases(self, table: _Table | None, notes: list[str]) -> list[CaseFigure]:
        """The worst cases that have a figure of this run."""
        found = [facts for path in sorted(self.figures_dir.glob("*.png")) if (facts := _figure_facts(path))]
        current = [case for case in found if _is_current(case, table)]
        if len(current) < len(found):
            notes.append(
                f"{len(found) - len(current)} of {len(found)} figures show other cases or errors than the metrics and "
                "are left out: they are of an earlier run or of other points."
            )
        worst = sorted(current, key=lambda c: (-c.missed, -(c.error or 0.0)))[: self.max_cases]
        if len(worst) < len(current):
            chosen = "worst of " if table is not None else "first of "
            notes.append(f"{len(worst)} cases are shown, the {chosen}{len(current)} figures.")
        return worst


def _identity(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is written anew."""
    if not path.is_file():
        return None
    status = path.stat()
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def _read_table(folder: Path) -> _Table | None:
    path = folder / "radial_errors.csv"
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    errors = np.array([[float(cell) if cell else math.nan for cell in row[1:-1]] for row in rows]).reshape(
        len(rows), -1
    )
    return _Table(tuple(row[0] for row in rows), tuple(header[1:-1]), errors)


def _landmark_rates(path: Path) -> dict[str, list[float | None]]:
    """Threshold to the percentage of each landmark, from the columns ``within_2.5_mm_percent``."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = [re.fullmatch(r"within_([^_]+)_.*_percent", name) for name in (rows[0] if rows else ())]
    return {c[1]: [float(row[c[0]]) if row[c[0]] else None for row in rows] for c in columns if c is not None}


def _figure_facts(path: Path) -> CaseFigure | None:
    """The case that a figure shows; None for a picture of another origin."""
    pillow, _ = optional_import("PIL.Image")
    with pillow.open(path) as image:
        text = str(image.info.get(FACTS, ""))
    try:
        facts = json.loads(text)
    except ValueError:
        return None
    if not isinstance(facts, dict) or "case" not in facts:
        return None
    return CaseFigure(str(facts["case"]), path, facts.get("error"), int(facts.get("missed") or 0))


def _is_current(case: CaseFigure, table: _Table | None) -> bool:
    """Whether a figure's error is that of the table, which has six digits."""
    if table is None:
        return True
    if case.case not in table.cases:
        return False
    row = table.errors[table.cases.index(case.case)]
    if int(np.isposinf(row).sum()) != case.missed:
        return False
    mean = float(image_level_errors(row[None])[0])
    if case.error is None or math.isnan(mean):
        return case.error is None and math.isnan(mean)
    return math.isclose(mean, case.error, rel_tol=1e-3, abs_tol=1e-4)


def _figures(table: _Table, summary: Mapping[str, Any]) -> dict[str, Any]:
    protocol = summary.get("protocol") or {}
    if np.isnan(table.errors).all():
        return {}
    thresholds = tuple(protocol.get("thresholds") or (2.0, 2.5, 3.0, 4.0))
    mark = "PHANTOM: " if summary.get("phantom") else ""
    stamp = f"{mark}{protocol.get('name', 'not stated')}, {summary.get('coverage', '')}".rstrip(", ")
    unit, comparator = protocol.get("unit", "mm"), protocol.get("comparator", "<=")
    return {
        "Cumulative error distribution": error_curve(table.errors, thresholds, unit, comparator, stamp),
        "Errors of each landmark": per_landmark_boxplot(table.errors, table.names, thresholds[:1], unit, stamp),
    }
