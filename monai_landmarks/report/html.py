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
"""One HTML file that shows an evaluation: the protocol, the numbers, the worst cases, every landmark.

The file needs nothing but itself: pictures are inside, there is no script, and its content policy forbids loading
anything, so that it can be mailed, archived and opened behind a hospital's firewall.
"""

from __future__ import annotations

import base64
import math
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_landmarks.data.files import write_text
from monai_landmarks.geometry import LandmarkError

from .canvas import figure_png
from .style import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CaseFigure", "write_report"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PHANTOM_BANNER = "PHANTOM DATA"
PHANTOM_SENTENCE = "Synthetic images. The numbers say that the program works, nothing about patients."
NO_PROTOCOL = "protocol not stated"
# Enlarging works by the style sheet alone: the report has no script.
ENLARGE = "<label class='enlarge'><input type='checkbox'> enlarge</label>"
RULES = {
    "dataset": "data",
    "section": "section",
    "annotator": "truth",
    "grid": "grid",
    "distance": "distance",
    "comparator": "detected when",
    "identification": "rule of identification",
    "exclusions": "left out",
    "citation": "described in",
    "notes": "notes",
}


@dataclass(frozen=True)
class CaseFigure:
    """One case's picture in the report.

    Attributes:
        case: name.
        figure: a matplotlib figure, the bytes of a PNG or the path of one.
        error: mean radial error by which cases are ranked; None where unknown.
        missed: landmarks of the truth that were not predicted; these cases come first.
    """

    case: str
    figure: Figure | bytes | str | os.PathLike[str]
    error: float | None = None
    missed: int = 0


def write_report(
    path: str | os.PathLike[str],
    summary: Mapping[str, Any] | None,
    figures: Mapping[str, Figure | bytes | str | os.PathLike[str]] | None = None,
    cases: Iterable[CaseFigure] = (),
    title: str = "Landmark detection report",
    phantom: bool = False,
    notes: Sequence[str] = (),
) -> Path:
    """Write a self-contained HTML report.

    Beside every number and table stands the name of the protocol under which it was obtained, or that none is stated.
    Cases are shown worst first: those with missed landmarks, then by falling error, those without an error last.

    Args:
        path: the file; it appears whole or not at all.
        summary: the content of ``metrics.json``, :meth:`monai_landmarks.protocols.EvaluationResult.to_dict`. All parts
            are optional. ``landmark_detection`` may add, per threshold, the percentage of each landmark. None where
            nothing was evaluated.
        figures: caption to figure, for the whole run.
        cases: pictures of single cases.
        title: heading.
        phantom: whether the data are a phantom; a summary that says so is believed too.
        notes: sentences for the end of the report.

    Returns:
        the path written.

    Raises:
        LandmarkError: for a figure that is no PNG.

    Example:
        >>> import tempfile
        >>> from monai_landmarks.protocols import evaluate
        >>> import numpy as np
        >>> result = evaluate({"1": np.ones((2, 2))}, {"1": np.zeros((2, 2))}, "native/mm", method="one off")
        >>> folder = tempfile.TemporaryDirectory()
        >>> text = write_report(Path(folder.name) / "report.html", result.to_dict(), phantom=True).read_text()
        >>> "PHANTOM DATA" in text, "native/mm" in text, "1.414" in text
        (True, True, True)
        >>> folder.cleanup()
    """
    facts = dict(summary or {})
    synthetic = phantom or bool(facts.get("phantom")) or bool(_protocol(facts).get("is_phantom"))
    stamp = _stamp(facts, synthetic)
    parts = [
        _banner() if synthetic else "",
        f"<header><h1>{escape(title)}</h1>{_subtitle(facts)}</header>",
        "<main>",
        _numbers(facts, stamp) if summary is not None else "<p class='warn'>No numbers: nothing was evaluated.</p>",
        _cases(cases, stamp, escape(_unit(facts))),
        _landmarks(facts, stamp),
        _identification(facts, stamp),
        _figures(figures or {}, stamp),
        _rules(facts),
        _notes(facts, notes),
        "</main>",
        _banner() if synthetic else "",
    ]
    head = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(('PHANTOM: ' if synthetic else '') + title)}</title><style>{STYLE}</style></head>"
    )
    content = "\n".join(part for part in parts if part)
    write_text(path, f"{head}\n<body>\n{content}\n</body></html>\n")
    return Path(path)


def _banner() -> str:
    return f"<div class='phantom' role='alert'><strong>{PHANTOM_BANNER}</strong> {PHANTOM_SENTENCE}</div>"


def _protocol(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    protocol = facts.get("protocol") or {}
    return protocol if isinstance(protocol, Mapping) else {"name": str(protocol)}


def _stamp(facts: Mapping[str, Any], synthetic: bool) -> str:
    """The mark that stands beside every number."""
    name = _protocol(facts).get("name")
    if not name:
        return f"<span class='stamp none'>{'phantom, ' if synthetic else ''}{NO_PROTOCOL}</span>"
    name = f"phantom, {name}" if synthetic and "phantom" not in str(name) else name
    partial = " (PARTIAL)" if facts.get("complete") is False else ""
    return f"<span class='stamp'>{escape(str(name))}{partial}</span>"


def _subtitle(facts: Mapping[str, Any]) -> str:
    texts = [str(facts[key]) for key in ("method", "coverage") if facts.get(key)]
    return f"<p>{escape(' · '.join(texts))}</p>" if texts else ""


def _unit(facts: Mapping[str, Any]) -> str:
    return str(_protocol(facts).get("unit", "mm"))


def _errors(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    return facts.get(f"radial_error_{_unit(facts)}") or {}


def _number(value: Any, digits: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "n/a"
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else escape(str(value))


def _numbers(facts: Mapping[str, Any], stamp: str) -> str:
    errors = _errors(facts)
    unit = escape(_unit(facts))
    tiles = []
    if errors:
        interval = [_number(bound, 2) for bound in facts.get("mean_interval_95") or ()]
        low_high = f"95 % interval {' to '.join(interval)}" if interval else ""
        value = f"{_number(errors.get('mean'), 3)} ± {_number(errors.get('std'), 3)}"
        tiles.append(_tile("mean radial error", value, unit, low_high, stamp))
        tiles.append(_tile("median", _number(errors.get("median"), 3), unit, "", stamp))
    detection = facts.get("detection") or {}
    comparator = escape(str(detection.get("comparator", "<=")).replace("<=", "≤"))
    for threshold, percent in (detection.get("percent") or {}).items():
        label = f"within {comparator} {escape(str(threshold))} {unit}"
        tiles.append(_tile(label, _number(percent, 2), "%", "", stamp))
    found = facts.get("identification") or {}
    if found:
        texts = {"all_correct_rate": "% of the images all correct", "num_false_positive": "false positives"}
        detail = [f"{_number(found.get(key), 0)} {text}" for key, text in texts.items()]
        detail += [f"labels shifted in {found['num_shifted']} images"] if found.get("num_shifted") else []
        warn = bool(found.get("num_shifted"))
        tiles.append(_tile("identified", _number(found.get("rate"), 2), "%", ", ".join(detail), stamp, warn))
    if facts.get("num_evaluated") is not None:
        missed, lacking = facts.get("num_missed") or 0, facts.get("num_missing") or 0
        outside = facts.get("num_outside") or 0
        detail = [f"{_number(missed, 0)} missed, not in the mean"] if missed else []
        detail += [f"{_number(outside, 0)} outside the field of view, not scored"] if outside else []
        detail += [f"{_number(lacking, 0)} without truth"] if lacking else []
        text = ", ".join(detail)
        tiles.append(_tile("landmarks evaluated", _number(facts["num_evaluated"], 0), "", text, stamp, bool(missed)))
    if not tiles:
        return "<p class='warn'>The summary holds no numbers.</p>"
    return f"<section aria-label='Numbers'><div class='tiles'>{''.join(tiles)}</div></section>"


def _tile(label: str, value: str, unit: str, detail: str, stamp: str, warn: bool = False) -> str:
    extra = f"<div class='detail{' warn' if warn else ''}'>{detail}</div>" if detail else ""
    shown = f"{value} <small>{unit}</small>"
    wide = " wide" if "±" in value else ""
    return (
        f"<div class='tile{wide}'><div class='label'>{label}</div><div class='value'>{shown}</div>{extra}{stamp}</div>"
    )


def _rank(case: CaseFigure) -> tuple[bool, float, float, str]:
    known = case.error is not None and not math.isnan(case.error)
    return (not known and not case.missed, -float(case.missed), -float(case.error or 0.0) if known else 0.0, case.case)


def _cases(cases: Iterable[CaseFigure], stamp: str, unit: str) -> str:
    cards = []
    for case in sorted(cases, key=_rank):
        texts = [f"mean {_number(float(case.error), 2)} {unit}"] if case.error is not None else []
        texts += [f"{case.missed} missed"] if case.missed else []
        numbers = f"{', '.join(texts)} {stamp}" if texts else ""
        content = _png(case.figure, f"case {case.case}")
        caption = f"<figcaption><b>{escape(case.case)}</b> {numbers}</figcaption>"
        picture = f"<img alt='landmarks of {escape(case.case)}' src='{_data(content)}'>"
        # The three views of a volume stand side by side and would be too small in half the width.
        wide, high = struct.unpack(">II", content[16:24])
        place = "case broad" if wide > 1.7 * high else "case"
        cards.append(f"<figure class='{place}'>{caption}{ENLARGE}{picture}</figure>")
    if not cards:
        return ""
    return f"<section><h2>Cases, worst first</h2><div class='cases'>{''.join(cards)}</div></section>"


def _landmarks(facts: Mapping[str, Any], stamp: str) -> str:
    errors = _errors(facts)
    names = errors.get("names")
    if not names:
        return ""
    unit, comparator = escape(_unit(facts)), escape(str((facts.get("detection") or {}).get("comparator", "<=")))
    columns: list[tuple[str, Sequence[Any], int]] = [
        (f"{text} {unit}", errors.get(f"landmark_{key}") or [None] * len(names), 3)
        for key, text in (("mean", "mean"), ("std", "SD"), ("median", "median"))
    ]
    for threshold, values in (facts.get("landmark_detection") or {}).items():
        columns.append((f"{comparator.replace('&lt;=', '≤')} {escape(str(threshold))} {unit}, %", values, 1))
    for key in ("evaluated", "missed"):
        columns.append((key, errors.get(f"landmark_{key}") or [None] * len(names), 0))
    largest = max((v for v in columns[0][1] if isinstance(v, (int, float)) and math.isfinite(v)), default=0) or 1
    head = "".join(f"<th scope='col'>{text}</th>" for text, _, _ in columns)
    rows = []
    for index, name in enumerate(names):
        cells = [f"<td>{_number(values[index], digits)}</td>" for _, values, digits in columns]
        mean = columns[0][1][index]
        width = 100 * mean / largest if isinstance(mean, (int, float)) and math.isfinite(mean) else 0
        bar = f"<td class='bar'><span style='width:{width:.1f}%'></span></td>"
        rows.append(f"<tr><td>{index + 1}</td><th scope='row'>{escape(str(name))}</th>{bar}{''.join(cells)}</tr>")
    table = (
        f"<table><caption>{stamp}</caption><thead><tr><th scope='col'>#</th><th scope='col'>landmark</th>"
        f"<th><span class='hidden'>bar of the mean</span></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    return f"<section><h2>Every landmark</h2><div class='scroll'>{table}</div></section>"


def _identification(facts: Mapping[str, Any], stamp: str) -> str:
    """Per region what was identified, and which landmark was taken for which."""
    found = facts.get("identification") or {}
    if not found:
        return ""
    columns = {
        "rate": "identified, %",
        "evaluated": "evaluated",
        "missed": "missed",
        "false_positive": "false positives",
    }
    regions = [
        [escape(str(name)), *(_number(counts.get(key), 1 if key == "rate" else 0) for key in columns)]
        for name, counts in (found.get("regions") or {}).items()
    ]
    wrong = [
        [escape(str(each["name"])), escape(str(each["lies_on"] or "no landmark")), _number(each["times"], 0)]
        for each in found.get("confusions") or ()
    ]
    tables = [
        _plain_table(head, rows, stamp)
        for head, rows in ((["region", *columns.values()], regions), (["landmark", "lies on", "times"], wrong))
        if rows
    ]
    rule = (
        f"rule {escape(str(found.get('rule')))}, at most {_number(found.get('max_distance'), 0)} {escape(_unit(facts))}"
    )
    return (
        f"<section><h2>Identification <small>{rule}</small></h2><div class='scroll'>{''.join(tables)}</div></section>"
    )


def _plain_table(head: Sequence[str], rows: Sequence[Sequence[str]], stamp: str) -> str:
    titles = "".join(f"<th scope='col'>{text}</th>" for text in head)
    lines = ["".join([f"<th scope='row'>{row[0]}</th>", *(f"<td>{text}</td>" for text in row[1:])]) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><caption>{stamp}</caption><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def _figures(figures: Mapping[str, Any], stamp: str) -> str:
    if not figures:
        return ""
    cards = []
    for text, figure in figures.items():
        picture = f"<img alt='{escape(text)}' src='{_data(_png(figure, text))}'>"
        cards.append(f"<figure><figcaption>{escape(text)} {stamp}</figcaption>{picture}</figure>")
    return f"<section><h2>Distributions</h2><div class='figures'>{''.join(cards)}</div></section>"


def _png(figure: Any, what: str) -> bytes:
    if hasattr(figure, "savefig"):
        return figure_png(figure)
    content = bytes(figure) if isinstance(figure, (bytes, bytearray)) else Path(figure).read_bytes()
    if not content.startswith(PNG_SIGNATURE) or len(content) < 24:
        raise LandmarkError(f"the figure of {what!r} is no PNG file: give a matplotlib figure or a PNG.")
    return content


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _rules(facts: Mapping[str, Any]) -> str:
    protocol = _protocol(facts)
    if not protocol.get("name"):
        return "<p class='warn'>No protocol is stated: these numbers cannot be compared with others.</p>"
    rows = []
    for key, text in RULES.items():
        value = protocol.get(key)
        if value in (None, "", [], ()):
            continue
        value = f"distance {value} threshold" if key == "comparator" else value
        shown = "<br>".join(escape(str(v)) for v in value) if isinstance(value, (list, tuple)) else escape(str(value))
        rows.append(f"<dt>{text}</dt><dd>{shown}</dd>")
    name = escape(str(protocol["name"]))
    return f"<section><h2>Protocol <span class='stamp'>{name}</span></h2><dl>{''.join(rows)}</dl></section>"


def _notes(facts: Mapping[str, Any], notes: Sequence[str]) -> str:
    info = facts.get("info") or {}
    items = [escape(str(note)) for note in ((notes,) if isinstance(notes, str) else notes)]
    items += [f"{escape(str(key))}: {escape(str(value))}" for key, value in info.items()]
    if not items:
        return ""
    return f"<section><h2>Notes</h2><ul>{''.join(f'<li>{item}</li>' for item in items)}</ul></section>"
