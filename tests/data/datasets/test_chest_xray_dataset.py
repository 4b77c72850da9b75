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
"""Reader of GU2Net's chest films: the published split, the world of the resized film, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monai_landmarks.data import propose_flip_pairs
from monai_landmarks.data.datasets.chest_xray import CHEST_XRAY_EXCLUDED, CHEST_XRAY_LANDMARKS, chest_xray_datalist
from monai_landmarks.geometry import LandmarkError

# 288 films of normal lungs, of which the nine excluded leave 279.
NUMBERS = [*range(1, 286), 295, 303, 310]
FILMS = [f"CHNCXR_{number:04d}_0" for number in NUMBERS]
USABLE = [case for case in FILMS if case not in CHEST_XRAY_EXCLUDED]


def fractions_of(case: str) -> np.ndarray:
    return np.random.default_rng(int(case[7:11])).uniform(0, 1, (6, 2)).round(4)


def label_text(points) -> str:
    return "6\n" + "".join(f"{x} {y}\n" for x, y in points)


@pytest.fixture
def make_set(tmp_path) -> Callable[..., Path]:
    def make(cases: list[str] = FILMS, size: tuple[int, int] = (30, 20)) -> Path:
        for folder in ("pngs", "labels"):
            (tmp_path / folder).mkdir()
        first = tmp_path / "pngs" / "CHNCXR_0327_1.png"
        Image.new("L", size).save(first)
        for case in cases:
            (tmp_path / "pngs" / f"{case}.png").hardlink_to(first)
            (tmp_path / "labels" / f"{case}.txt").write_text(label_text(fractions_of(case)))
        return tmp_path

    return make


def cases_of(root: Path, section: str | None, **options) -> list[str]:
    return [entry["case"] for entry in chest_xray_datalist(root, section, **options)]


def test_sections_are_the_published_ones(make_set):
    root = make_set()
    assert cases_of(root, "train") == USABLE[:195]
    assert cases_of(root, "validation") == USABLE[195:229]
    assert cases_of(root, "test") == USABLE[229:]
    assert cases_of(root, None) == USABLE
    assert len(USABLE) == 279


def test_diseased_lungs_and_excluded_films_are_not_there(make_set):
    root = make_set()
    (root / "labels" / "CHNCXR_0327_1.txt").write_text(label_text(fractions_of("CHNCXR_0327_1")))
    assert cases_of(root, None) == USABLE


def test_published_exclusion():
    numbers = ["0059", "0178", "0228", "0267", "0295", "0310", "0285", "0276", "0303"]
    assert sorted(CHEST_XRAY_EXCLUDED) == sorted(f"CHNCXR_{number}_0" for number in numbers)


def test_a_missing_film_moves_no_other_film(make_set):
    root = make_set()
    for case in (USABLE[3], USABLE[200]):
        (root / "pngs" / f"{case}.png").unlink()
    with pytest.raises(FileNotFoundError, match=rf"lacks 1 of 195 films of section 'train': {USABLE[3]}\."):
        chest_xray_datalist(root, "train")
    with pytest.raises(FileNotFoundError, match=rf"lacks 2 of 279 films of all sections: {USABLE[3]}, {USABLE[200]}\."):
        chest_xray_datalist(root)
    assert cases_of(root, "train", allow_incomplete=True) == [*USABLE[:3], *USABLE[4:195]]
    assert cases_of(root, "validation", allow_incomplete=True) == [*USABLE[195:200], *USABLE[201:229]]
    assert cases_of(root, "test") == USABLE[229:]


@pytest.mark.parametrize("options", [{"exclude": ()}, {"exclude": CHEST_XRAY_EXCLUDED[:8]}])
def test_another_number_of_films_is_an_error(make_set, options):
    with pytest.raises(LandmarkError, match=r"288 files .*, 28[08] without the excluded ones, expected 279"):
        chest_xray_datalist(make_set(), **options)


def test_a_missing_label_file_is_an_error_unless_allowed(make_set):
    root = make_set()
    (root / "labels" / f"{USABLE[0]}.txt").unlink()
    with pytest.raises(LandmarkError, match=r"287 files .*, 278 without the excluded ones, expected 279"):
        chest_xray_datalist(root, "test")
    assert cases_of(root, None, allow_incomplete=True) == USABLE[1:]


@pytest.mark.parametrize("size", [(30, 20), (333, 401), (512, 512)])
def test_world_is_the_pixel_of_the_resized_film(make_set, size):
    """Oracle: PyTorch's resize of a ramp tells which place of the film each of the 512 pixels shows."""
    entry = chest_xray_datalist(make_set(FILMS, size), "test")[0]
    np.testing.assert_allclose(entry["landmarks"], 512 * fractions_of(entry["case"]) - 0.5, rtol=1e-12)
    for axis, side in enumerate(size):
        ramp = torch.arange(side, dtype=torch.float64)[None, None]
        place = torch.nn.functional.interpolate(ramp, size=512, mode="linear", align_corners=False)[0, 0].numpy()
        world = entry["origin"][axis] + entry["pixel_size"][axis] * place
        inside = (place > 0) & (place < side - 1)
        np.testing.assert_allclose(world[inside], np.arange(512)[inside], atol=1e-9)
    # Fraction 0 is the border of the film: half a pixel before the centre of the first one.
    index = (-0.5 - np.array(entry["origin"])) / entry["pixel_size"]
    np.testing.assert_allclose(index, -0.5)


def test_entries_hold_what_a_film_reader_needs(make_set):
    entry = chest_xray_datalist(make_set(), "validation")[0]
    assert entry["landmarks"].dtype == np.float64
    assert entry["landmarks"].shape == (6, 2)
    assert Path(entry["image"]).name == f"{entry['case']}.png"
    assert entry["pixel_size"] == (512 / 30, 512 / 20)


def test_names_say_their_sides():
    pairs = propose_flip_pairs(CHEST_XRAY_LANDMARKS).pairs
    assert pairs == tuple((name, name.replace("left", "right")) for name in CHEST_XRAY_LANDMARKS[3:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (label_text([(0.1, 0.2)] * 5), "begins with '6' and has 5 lines after it, expected the count 6"),
        (label_text([(0.1, 0.2)] * 7), "has 7 lines after it"),
        ("5\n" + "0.1 0.2\n" * 6, "begins with '5'"),
        ("0.1 0.2\n" * 6, "begins with '0.1 0.2'"),
        ("", "begins with ''"),
        ("6\n" + "0.1 0.2\n" * 5 + "0.1\n", r"line 7 \(left_lung_lateral\) is '0.1', expected two numbers"),
        ("6\n0.1 0.2 0.3\n" + "0.1 0.2\n" * 5, r"line 2 \(right_lung_top\) is '0.1 0.2 0.3', expected two"),
        ("6\n0.1 a\n" + "0.1 0.2\n" * 5, "line 2 .* is '0.1 a', expected two numbers"),
        (
            "6\n0.1 0.2\n0.1 1.01\n" + "0.1 0.2\n" * 4,
            r"line 3 \(right_lung_bottom\).* between 0 and 1. Are these pixels",
        ),
        ("6\n-0.1 0.2\n" + "0.1 0.2\n" * 5, "line 2 .* between 0 and 1"),
        ("6\ninf 0.2\n" + "0.1 0.2\n" * 5, "line 2 .* between 0 and 1"),
    ],
)
def test_defective_label_files(make_set, text, message):
    root = make_set()
    (root / "labels" / f"{USABLE[0]}.txt").write_text(text)
    with pytest.raises(LandmarkError, match=message):
        chest_xray_datalist(root, "train")


def test_nan_is_a_missing_landmark(make_set):
    root = make_set()
    (root / "labels" / f"{USABLE[0]}.txt").write_text(label_text([(0.1, 0.2)] * 5 + [("nan", 0.5)]))
    points = chest_xray_datalist(root, "train")[0]["landmarks"]
    assert np.isnan(points[5]).all()
    assert np.isfinite(points[:5]).all()


def test_absent_folders_tell_the_layout(tmp_path, make_set):
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; expected pngs/CHNCXR_XXXX_0\.png"):
        chest_xray_datalist(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no usable file labels/\*_0\.txt; expected"):
        chest_xray_datalist(tmp_path)
    root = make_set()
    for path in (root / "pngs").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 50 of 50 films of section 'test'.*one level too high"):
        chest_xray_datalist(root, "test", allow_incomplete=True)


def test_unknown_section(make_set):
    with pytest.raises(ValueError, match="test1"):
        chest_xray_datalist(make_set(), "test1")


def test_a_phantom_says_its_sections_itself(make_set):
    cases = ["CHNCXR_0059_0", "CHNCXR_0196_0", "CHNCXR_0230_0"]
    root = make_set(cases)
    sections = dict(zip(("train", "validation", "test"), ([case] for case in cases), strict=True))
    (root / "PHANTOM.json").write_text(json.dumps({"cases": {**sections, "validation": []}}))
    assert cases_of(root, "train") == ["CHNCXR_0059_0"]
    assert cases_of(root, "test") == ["CHNCXR_0230_0"]
    with pytest.raises(FileNotFoundError, match=r"section 'validation' of .* has no films"):
        chest_xray_datalist(root, "validation")
