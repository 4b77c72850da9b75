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
"""The HTML report: complete in itself, honest about its data, safe with any name."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from monai_landmarks.protocols import Protocol, evaluate
from monai_landmarks.report import CaseFigure, error_curve, figure_png, write_report
from monai_landmarks.report.canvas import new_figure
from monai_landmarks.report.html import PNG_SIGNATURE

VOID = {"meta", "img", "br", "input"}


class Page(HTMLParser):
    """Collects tags, attributes and text; checks that tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text, self.stamped = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture
def summary():
    truth = {f"{i}": np.zeros((2, 2)) for i in range(4)}
    found = {k: v + np.array([1.0, 0.0]) for k, v in truth.items()}
    found["3"] = np.array([[3.0, 0.0], [np.nan, np.nan]])
    return evaluate(found, truth, "native/mm", method="SCN").to_dict()


def read(path):
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_everything_is_inside_the_file(tmp_path, summary):
    cases = [CaseFigure("1", figure_png(new_figure(1, 1)), 1.0), CaseFigure("2", new_figure(1, 1), 2.0)]
    path = write_report(tmp_path / "r.html", summary, {"curve": error_curve([[1.0]])}, cases)
    text, page = read(path)
    sources = [value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href", "srcset")]
    assert len(sources) == 3
    for source in sources:
        kind, content = source.split(",", 1)
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content).startswith(PNG_SIGNATURE)
    assert not re.search(r"https?://|@import|url\(", text)
    assert {"script", "link", "iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)
    assert "default-src 'none'" in text
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")


def test_every_number_carries_its_protocol(tmp_path, summary):
    cases = [CaseFigure("1", new_figure(1, 1), 1.0)]
    text, _ = read(write_report(tmp_path / "r.html", summary, {"curve": new_figure(1, 1)}, cases))
    for block in re.findall(r"<div class='tile.*?</div>(?=<div class='tile|</div></section>)", text):
        assert "<span class='stamp'>native/mm</span>" in block
    for tag in ("caption", "figcaption"):
        blocks = re.findall(rf"<{tag}>.*?</{tag}>", text)
        assert blocks
        assert all("native/mm" in block for block in blocks)


def test_numbers_are_those_of_the_summary(tmp_path, summary):
    _, page = read(write_report(tmp_path / "r.html", summary))
    assert "1.286 ± 0.700 mm" in page.words  # mean of six ones and a three
    assert "within ≤ 2 mm 75.00 %" in page.words
    assert "landmarks evaluated 8 1 missed, not in the mean" in page.words
    assert "4 cases" in page.words


def test_another_unit_than_millimetres(tmp_path):
    truth = {f"{i}": np.zeros((2, 2)) for i in range(4)}
    found = {k: v + np.array([4.0, 0.0]) for k, v in truth.items()}
    protocol = Protocol("films/px", "films", unit="px", distance="Euclidean, in pixels", thresholds=(3.0, 6.0))
    _, page = read(write_report(tmp_path / "r.html", evaluate(found, truth, protocol).to_dict()))
    assert "4.000 ± 0.000 px" in page.words
    assert "within ≤ 6 px 100.00 %" in page.words
    assert "mean px SD px median px" in page.words
    assert not re.search(r"\bmm\b", page.words)


def test_landmarks_outside_the_field_of_view_are_counted(tmp_path, summary):
    summary["num_outside"] = 3
    _, page = read(write_report(tmp_path / "r.html", summary))
    assert "1 missed, not in the mean, 3 outside the field of view, not scored" in page.words


def test_landmark_rates_get_columns(tmp_path, summary):
    summary["landmark_detection"] = {"2": [12.5, None]}
    _, page = read(write_report(tmp_path / "r.html", summary))
    assert "≤ 2 mm, %" in page.words
    assert "12.5" in page.words
    assert "n/a" in page.words


@pytest.mark.parametrize("by", ["argument", "summary", "protocol"])
def test_a_phantom_cannot_be_overlooked(tmp_path, summary, by):
    if by == "summary":
        summary["phantom"] = True
    elif by == "protocol":
        summary["protocol"]["is_phantom"] = True
    text, page = read(write_report(tmp_path / "r.html", summary, phantom=by == "argument"))
    assert page.words.count("PHANTOM DATA") == 2
    assert "<title>PHANTOM: " in text
    assert "<span class='stamp'>phantom, native/mm</span>" in text


def test_real_data_have_no_banner(tmp_path, summary):
    text, _ = read(write_report(tmp_path / "r.html", summary))
    assert "PHANTOM" not in text


def test_names_are_escaped(tmp_path):
    evil = "<script>alert(1)</script>'\"&"
    truth = {evil: np.zeros((1, 2))}
    summary = evaluate(truth, truth, "native/mm", method=evil, info={evil: evil}).to_dict()
    summary["radial_error_mm"]["names"] = [evil]
    summary["protocol"]["name"] = summary["detection"]["comparator"] = evil
    summary["num_missed"] = evil
    cases = [CaseFigure(evil, new_figure(1, 1), 1.0)]
    path = write_report(tmp_path / "r.html", summary, {evil: new_figure(1, 1)}, cases, title=evil, notes=[evil])
    text, page = read(path)
    assert "<script" not in text
    assert page.words.count("<script>alert(1)</script>'\"&") >= 8
    assert {key for _, attrs in page.tags for key in attrs} <= {
        *("lang", "charset", "http-equiv", "content", "name", "class", "aria-label", "alt", "src", "style", "scope"),
        *("type", "role"),
    }


def test_worst_cases_come_first(tmp_path):
    figure = figure_png(new_figure(1, 1))
    cases = [
        CaseFigure("good", figure, 1.0),
        CaseFigure("unknown", figure),
        CaseFigure("bad", figure, 9.0),
        CaseFigure("incomplete", figure, 0.5, missed=1),
        CaseFigure("nan", figure, float("nan")),
    ]
    _, page = read(write_report(tmp_path / "r.html", None, cases=cases))
    order = re.findall(r"incomplete|bad|good|nan|unknown", page.words)
    assert order == ["incomplete", "bad", "good", "nan", "unknown"]


def test_broad_pictures_take_the_whole_width(tmp_path):
    cases = [CaseFigure("film", new_figure(1, 1)), CaseFigure("volume", new_figure(2, 1))]
    text, _ = read(write_report(tmp_path / "r.html", None, cases=cases))
    assert re.findall(r"<figure class='(.*?)'>", text) == ["case", "case broad"]


def test_a_number_without_protocol_says_so(tmp_path):
    _, page = read(write_report(tmp_path / "r.html", {"radial_error_mm": {"mean": 1.0, "std": None, "names": ["a"]}}))
    assert "1.000 ± n/a mm" in page.words
    assert page.words.count("protocol not stated") >= 2
    assert "No protocol is stated" in page.words


def test_partial_coverage_is_stamped(tmp_path, summary):
    summary["complete"] = False
    text, _ = read(write_report(tmp_path / "r.html", summary))
    assert "<span class='stamp'>native/mm (PARTIAL)</span>" in text


def test_a_failed_report_leaves_the_old_one(tmp_path, summary):
    path = write_report(tmp_path / "r.html", summary)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="no PNG"):
        write_report(path, summary, {"curve": b"GIF89a"})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
