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
"""The outcome of an evaluation: numbers, their protocol, and the files and tables that show both."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_landmarks.data.files import write_text
from monai_landmarks.data.landmarks import quoted
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.metrics import (
    Interval,
    RadialErrorSummary,
    bootstrap_interval,
    image_level_errors,
    outlier_rate,
    successful_detection_rate,
    summarize_radial_errors,
)
from monai_landmarks.metrics.identification import Identification
from monai_landmarks.metrics.identification_summary import IdentificationSummary, aligned, summarize_identification
from monai_landmarks.metrics.summary import check_outside

from .files import cell, write_csv, write_json
from .identification import check_identification, write_identification
from .protocol import Protocol

__all__ = ["EvaluationResult", "compare", "write_radial_errors"]


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """Errors of a set of cases under a protocol, with everything a table of a paper shows.

    Attributes:
        protocol: the rules.
        cases: case names, one per row of ``errors``.
        names: landmark names, one per column.
        errors: error table ``(B, N)`` in the protocol's unit, read-only: NaN without truth or where ``outside``, inf for
            a landmark that was not predicted.
        outside: bool ``(B, N)``, read-only: landmarks that were not scored because they lie outside the image.
        summary: means, medians, standard deviations and counts.
        detection: threshold to the percentage detected, with ``protocol.comparator``.
        outliers: threshold to the percentage of outliers, with ``protocol.outlier_comparator``.
        landmark_detection: the percentage detected of each landmark, one row per threshold.
        interval: 95 % bootstrap interval of the mean, drawing cases.
        method: what was evaluated.
        info: further facts.
        identification: which landmarks were identified, where the protocol has a rule for it, else None.
    """

    protocol: Protocol
    cases: tuple[str, ...]
    names: tuple[str, ...]
    errors: np.ndarray
    outside: np.ndarray
    summary: RadialErrorSummary
    detection: dict[float, float]
    outliers: dict[float, float]
    landmark_detection: np.ndarray
    interval: Interval
    method: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    identification: IdentificationSummary | None = None

    @classmethod
    def from_errors(
        cls,
        errors: Any,
        cases: Sequence[str],
        protocol: Protocol,
        names: Sequence[str],
        method: str = "",
        info: Mapping[str, Any] | None = None,
        outside: Any = None,
        identification: Identification | None = None,
    ) -> EvaluationResult:
        """Evaluate an error table that is already there.

        Args:
            errors: error table ``(B, N)`` in the protocol's unit.
            cases: ``B`` different case names.
            protocol: the rules.
            names: ``N`` landmark names.
            method: what was evaluated.
            info: further JSON-like facts.
            outside: bool ``(B, N)``, landmarks without error because they lie outside the image; needed by a protocol
                that leaves these out, all False where there is none.
            identification: tables of :func:`~monai_landmarks.metrics.identify` for the same points, needed by a
                protocol with a rule of identification.

        Raises:
            LandmarkError: if the tables and the names do not fit, a case is there twice or does not belong to the
                protocol's section, landmarks were left out that the protocol scores, or the reverse, or the protocol
                asks for another identification than the one given.
        """
        table = np.array(errors, dtype=np.float64)
        table.setflags(write=False)
        titles, ids = tuple(str(n) for n in names), tuple(str(c) for c in cases)
        if table.ndim != 2 or table.shape != (len(ids), len(titles)):
            raise LandmarkError(
                f"the error table has shape {table.shape} for {len(ids)} cases and {len(titles)} landmarks."
            )
        _check_cases(ids, protocol)
        left_out = check_outside(outside, torch.from_numpy(np.array(table))).numpy()
        left_out.setflags(write=False)
        _check_rule(None if outside is None else left_out, protocol)
        check_identification(identification, table, protocol)
        rates = [successful_detection_rate(table, protocol.thresholds, protocol.comparator, p) for p in (False, True)]
        out = outlier_rate(table, protocol.thresholds, protocol.outlier_comparator)
        return cls(
            protocol=protocol,
            cases=ids,
            names=titles,
            errors=table,
            outside=left_out,
            summary=summarize_radial_errors(table, titles, left_out),
            detection=dict(zip(protocol.thresholds, rates[0].tolist(), strict=True)),
            outliers=dict(zip(protocol.thresholds, out.tolist(), strict=True)),
            landmark_detection=rates[1].numpy(),
            interval=bootstrap_interval(table),
            method=method,
            info=dict(info or {}),
            identification=None if identification is None else summarize_identification(identification, titles),
        )

    @property
    def complete(self) -> bool | None:
        """Whether all cases of the protocol's section were evaluated; None where the protocol does not list them."""
        return None if self.protocol.cases is None else set(self.cases) == set(self.protocol.cases)

    @property
    def coverage(self) -> str:
        """How many cases were evaluated, and how many landmarks were not because they lie outside, in words."""
        total = "" if self.protocol.cases is None else f" of {len(self.protocol.cases)}"
        plural = "case" if len(self.cases) == 1 and not total else "cases"
        text = f"{len(self.cases)}{total} {plural}" + (" (PARTIAL)" if self.complete is False else "")
        outside, known = self.summary.num_outside, self.summary.num_outside + self.summary.num_evaluated
        left_out = f", {outside} of {known} landmarks lie outside the field of view: not scored"
        return text + (left_out if outside else "")

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the error table as plain numbers, texts and lists; NaN becomes None.

        The errors stand under ``radial_error_<unit>`` of the protocol's unit: ``radial_error_mm``, ``radial_error_px``.

        Example:
            >>> from monai_landmarks.protocols import evaluate
            >>> result = evaluate({"1": np.zeros((1, 2))}, {"1": np.zeros((1, 2))}, "native/mm")
            >>> content = result.to_dict()
            >>> content["protocol"]["name"], content["radial_error_mm"]["mean"], content["detection"]["percent"]["2"]
            ('native/mm', 0.0, 100.0)
        """
        rates = {"detection": self.detection, "outliers": self.outliers}
        comparators = {"detection": self.protocol.comparator, "outliers": self.protocol.outlier_comparator}
        content: dict[str, Any] = {
            "protocol": self.protocol.to_dict(),
            "phantom": self.protocol.is_phantom,
            "method": self.method,
            "coverage": self.coverage,
            "complete": self.complete,
            "num_cases": len(self.cases),
            "num_evaluated": self.summary.num_evaluated,
            "num_missed": self.summary.num_missed,
            "num_outside": self.summary.num_outside,
            "num_missing": self.summary.num_missing,
            f"radial_error_{self.protocol.unit}": self.summary.to_dict(),
            "mean_interval_95": [_null(self.interval.low), _null(self.interval.high)],
        }
        for key, values in rates.items():
            percent = {f"{threshold:g}": _null(value) for threshold, value in values.items()}
            content[key] = {"comparator": comparators[key], "percent": percent}
        if self.identification is not None:
            content["identification"] = self.identification.to_dict()
            # One entry per image; identification.json has them by case.
            del content["identification"]["images"]
        return {**content, "outside": self._outside_names(), "info": self.info}

    def table(self) -> str:
        """Give a text table for a terminal: the protocol, the totals, one line per landmark.

        Example:
            >>> from monai_landmarks.protocols import evaluate
            >>> truth = {"1": np.zeros((2, 2))}
            >>> print(evaluate({"1": np.ones((2, 2))}, truth, "native/mm", method="one off").table())
            protocol native/mm (data as given, truth: as given), 1 case
            method   one off
            error    1.414 ± 0.000, median 1.414 (n = 2) mm, 95 % interval of the mean 1.414 to 1.414
            within   <= 1 mm: 0.00 %, <= 2 mm: 100.00 %, <= 3 mm: 100.00 %, <= 4 mm: 100.00 %
            landmark   mean     SD  median  <= 1 mm  evaluated  missed
            0         1.414  0.000   1.414     0.00          1       0
            1         1.414  0.000   1.414     0.00          1       0
        """
        p, s = self.protocol, self.summary
        low, high = _number(self.interval.low), _number(self.interval.high)
        lines = [f"protocol {p}, {self.coverage}"]
        lines += [f"method   {self.method}"] if self.method else []
        lines += [f"error    {s} {p.unit}, 95 % interval of the mean {low} to {high}", f"within   {self._rates()}"]
        first = f"{p.comparator} {p.thresholds[0]:g} {p.unit}"
        more = ["outside"] if s.num_outside else []
        rows = [["landmark", "mean", "SD", "median", first, "evaluated", "missed", *more]]
        for index, name in enumerate(s.names):
            numbers = (s.landmark_mean[index], s.landmark_std[index], s.landmark_median[index])
            counts = [s.landmark_evaluated[index], s.landmark_missed[index], s.landmark_outside[index]]
            rate = _number(self.landmark_detection[0, index], 2)
            rows.append([name, *map(_number, numbers), rate, *map(str, counts[: 2 + len(more)])])
        lines += aligned(rows) + ([] if self.identification is None else [self.identification.table()])
        return "\n".join(lines)

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write ``metrics.json``, ``radial_errors.csv``, ``per_landmark.csv`` and ``table.txt``, each whole or not.

        Where the protocol has a rule of identification, ``identification.json`` and ``identification.csv`` say of every
        case what was identified, confused, missed or predicted too much, and whether its labels are shifted.

        Args:
            folder: made if it is not there.

        Returns:
            the paths written.
        """
        root = Path(folder)
        paths = [root / name for name in ("metrics.json", "radial_errors.csv", "per_landmark.csv", "table.txt")]
        write_json(paths[0], self.to_dict())
        write_radial_errors(paths[1], self.cases, self.names, self.errors)
        self._write_per_landmark(paths[2])
        write_text(paths[3], self.table() + "\n")
        return paths + write_identification(root, self)

    def _outside_names(self) -> dict[str, list[str]]:
        """The landmarks left out, by case; cases without any are not listed."""
        rows = zip(self.cases, self.outside.tolist(), strict=True)
        named = {case: [name for name, out in zip(self.names, row, strict=True) if out] for case, row in rows}
        return {case: names for case, names in named.items() if names}

    def _rates(self) -> str:
        p = self.protocol
        return ", ".join(f"{p.comparator} {t:g} {p.unit}: {_number(v, 2)} %" for t, v in self.detection.items())

    def _write_per_landmark(self, path: Path) -> None:
        p, s = self.protocol, self.summary
        within = [f"within_{t:g}_{p.unit}_percent" for t in p.thresholds]
        header = ["protocol", "landmark", "mean", "std", "median", *within, "evaluated", "missed", "outside"]
        statistics = zip(s.landmark_mean, s.landmark_std, s.landmark_median, *self.landmark_detection, strict=True)
        counts = zip(s.landmark_evaluated, s.landmark_missed, s.landmark_outside, strict=True)
        rows = [
            [p.name, name, *map(cell, numbers), *count]
            for name, numbers, count in zip(s.names, statistics, counts, strict=True)
        ]
        write_csv(path, [header, *rows])


def compare(results: Iterable[EvaluationResult]) -> str:
    """Put several methods into one text table, if their numbers may stand beside each other.

    Args:
        results: at least one; their ``method`` is the row title.

    Returns:
        the table, headed by the protocol.

    Raises:
        LandmarkError: if protocols or cases differ, saying in what; a table of such numbers would compare the rules,
            not the methods.

    Example:
        >>> from monai_landmarks.protocols import evaluate
        >>> truth = {"1": np.zeros((2, 2))}
        >>> found = {k: {"1": np.full((2, 2), k)} for k in (1.0, 2.0)}
        >>> print(compare([evaluate(found[k], truth, "native/mm", method=f"off by {k:g}") for k in found]))
        protocol native/mm (data as given, truth: as given), 1 case
        method     mean     SD  median  <= 1 mm  <= 2 mm  <= 3 mm  <= 4 mm  missed
        off by 1  1.414  0.000   1.414     0.00   100.00   100.00   100.00       0
        off by 2  2.828  0.000   2.828     0.00     0.00   100.00   100.00       0
    """
    rows = list(results)
    if not rows:
        raise LandmarkError("there is nothing to compare.")
    first = rows[0]
    for other in rows[1:]:
        reasons = first.protocol.differences(other.protocol)
        if set(first.cases) != set(other.cases):
            apart = sorted(set(first.cases) ^ set(other.cases))
            reasons.append(f"cases: {len(apart)} are in one of the two only: {quoted(apart, 6)}")
        if first.names != other.names:
            reasons.append("landmarks: names or order differ")
        if not reasons and first._outside_names() != other._outside_names():
            reasons.append("landmarks left out as outside the field of view: not the same ones")
        if reasons:
            titles = [r.method or r.protocol.name for r in (first, other)]
            raise LandmarkError(
                f"{titles[0]!r} ({first.protocol.name}) and {titles[1]!r} ({other.protocol.name}) cannot stand in one "
                f"table. They differ in {'; '.join(reasons)}. Evaluate both under one protocol."
            )
    p = first.protocol
    columns = [f"{p.comparator} {t:g} {p.unit}" for t in p.thresholds]
    columns += ["identified %", "all correct %"] if p.identification else []
    table = [["method", "mean", "SD", "median", *columns, "missed"]]
    for r in rows:
        numbers = [_number(v) for v in (r.summary.mean, r.summary.std, r.summary.median)]
        found = r.identification
        percent = [*r.detection.values(), *([] if found is None else [found.rate, found.all_correct_rate])]
        rates = [_number(v, 2) for v in percent]
        table.append([r.method or "-", *numbers, *rates, str(r.summary.num_missed)])
    return "\n".join([f"protocol {p}, {first.coverage}", *aligned(table)])


def write_radial_errors(path: str | os.PathLike[str], cases: Sequence[str], names: Sequence[str], errors: Any) -> None:
    """Write an error table as CSV: a row per case, a column per landmark, and the case's mean.

    Args:
        path: the file; it appears whole or not at all.
        cases: ``B`` case names.
        names: ``N`` landmark names.
        errors: error table ``(B, N)``. A landmark that is not evaluated (missing, or outside the image and left out) is
            an empty cell, a miss is ``inf``.
    """
    table = np.asarray(errors, dtype=np.float64)
    means = image_level_errors(table).tolist()
    rows = [[case, *map(cell, row), cell(mean)] for case, row, mean in zip(cases, table, means, strict=True)]
    write_csv(Path(path), [["case", *names, "mean"], *rows])


def _check_cases(cases: tuple[str, ...], protocol: Protocol) -> None:
    twice = sorted(case for case, count in Counter(cases).items() if count > 1)
    if twice:
        raise LandmarkError(
            f"{len(twice)} cases are there more than once and would count more than once: {quoted(twice)}. Several "
            "processes must not share cases: use DistributedSampler(even_divisible=False) in evaluation."
        )
    if protocol.cases is None:
        return
    foreign = sorted(set(cases) - set(protocol.cases))
    if foreign:
        raise LandmarkError(
            f"{len(foreign)} of {len(cases)} cases do not belong to section {protocol.section!r} of protocol "
            f"{protocol.name!r}: {quoted(foreign)}. Its cases are {protocol.cases[0]!r} to {protocol.cases[-1]!r}. "
            "Choose the protocol of their section, such as get_protocol(name, 'training')."
        )


def _check_rule(outside: np.ndarray | None, protocol: Protocol) -> None:
    """Refuse numbers without some landmarks under the name of a protocol that has them, and the reverse."""
    if outside is not None and outside.any() and protocol.outside != "leave_out":
        raise LandmarkError(
            f"{int(outside.sum())} landmarks outside the image were left out, and protocol {protocol.name!r} scores "
            "them: name one that leaves them out, such as 'native/mm/inside' or "
            f"protocol.replace('{protocol.name}/inside', outside='leave_out'), or measure without `state`."
        )
    if outside is None and protocol.outside == "leave_out":
        raise LandmarkError(
            f"protocol {protocol.name!r} leaves landmarks outside the image out, and nobody says which these are: give "
            "`outside`, in an engine by feeding the metric with the landmarks' state."
        )


def _null(value: float) -> float | None:
    return None if math.isnan(value) else value


def _number(value: float, digits: int = 3) -> str:
    return "n/a" if math.isnan(value) else f"{value:.{digits}f}"
