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
"""Hand films in their published layouts: splits that cannot move, millimetres by the wrist, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_landmarks.data import FilmReader
from monai_landmarks.data.datasets import ISBI2015_LANDMARKS
from monai_landmarks.data.datasets.hand_xray import HAND_XRAY_LANDMARKS, hand_xray_datalist, hand_xray_points
from monai_landmarks.geometry import LandmarkError

INDEX = {name: index for index, name in enumerate(HAND_XRAY_LANDMARKS)}
NO_FOLD = [3149, 3292, 3303, 4382, 4391, 4392, 4498, 4499, 5148, 5748, 5917, 7068, 7069, 7070, 7200]
SIZE = (60, 90)


def row(number: int) -> list[float]:
    """Points on a 60 x 90 film: 0 and 4 are 40 pixels apart, 1 and 5 are 25."""
    points = np.random.default_rng(number).integers(0, SIZE, (37, 2))
    points[[0, 4, 1, 5]] = (10, 80), (50, 80), (15, 60), (40, 60)
    return points.ravel().tolist()


def write_table(path: Path, numbers: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(map(str, [number, *row(number)])) + "\n" for number in numbers))


def write_films(folder: Path, numbers: list[int], suffix: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.new("L", SIZE).save(folder / f"{number}{suffix}")


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Nine films in Payer's layout, three of each section of GU2Net's split."""
    numbers = [3143, 3144, 3145, 5395, 5396, 5397, 5577, 5578, 5579]
    write_table(tmp_path / "setup" / "all.csv", [3142, *numbers])
    write_films(tmp_path / "images", numbers)
    for fold in range(3):
        folder = tmp_path / "setup" / "cv" / f"set{fold + 1}"
        folder.mkdir(parents=True)
        test = numbers[fold::3]
        (folder / "test.txt").write_text("\n".join(map(str, test)))
        (folder / "train.txt").write_text("\n".join(str(number) for number in numbers if number not in test))
    return tmp_path


def cases(folder: Path, section: str | None, split: str, **options) -> list[str]:
    return [entry["case"] for entry in hand_xray_datalist(folder, section, split, **options)]


def test_names_are_37_and_clash_with_no_other_set() -> None:
    assert len(HAND_XRAY_LANDMARKS) == len(set(HAND_XRAY_LANDMARKS)) == 37
    assert not set(HAND_XRAY_LANDMARKS) & set(ISBI2015_LANDMARKS)


# --- layouts and sections ---------------------------------------------------------------------------------------------


def test_gu2nets_layout(tmp_path: Path) -> None:
    write_table(tmp_path / "all.csv", [3142, 3143])
    write_films(tmp_path / "jpg", [3142, 3143], ".jpg")
    (entry,) = hand_xray_datalist(tmp_path, allow_incomplete=True)
    assert entry["image"] == str(tmp_path / "jpg" / "3143.jpg")
    assert entry["case"] == "3143"


def test_folds_are_the_lists(few: Path) -> None:
    assert cases(few, "test", "cv2") == ["3144", "5396", "5578"]
    assert cases(few, "training", "cv2") == ["3143", "3145", "5395", "5397", "5577", "5579"]
    assert len(cases(few, None, "cv2")) == 9


def test_validation_films_of_a_fold_are_drawn_from_its_training_list(few: Path) -> None:
    train, validation = (cases(few, section, "cv1", num_validation=2) for section in ("train", "validation"))
    assert len(validation) == 2
    assert sorted(train + validation) == cases(few, "training", "cv1")
    other = [cases(few, "validation", "cv1", num_validation=2, seed=seed) for seed in range(5)]
    assert len({tuple(names) for names in other}) > 1


def test_all_films_that_have_a_row(few: Path) -> None:
    write_films(few / "images", [9999])
    assert cases(few, None, "all") == ["3143", "3144", "3145", "5395", "5396", "5397", "5577", "5578", "5579"]
    with pytest.raises(ValueError, match="has no sections, got section='test'"):
        hand_xray_datalist(few, "test", "all")


def test_a_missing_film_is_an_error_or_absent_but_moves_nothing(few: Path) -> None:
    before = {section: cases(few, section, "gu2net", allow_incomplete=True) for section in ("train", "test")}
    (few / "images" / "3144.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"'training' of split 'cv1' .*lacks 1 of 6 films: 3144\."):
        hand_xray_datalist(few, "training", "cv1")
    assert cases(few, "train", "gu2net", allow_incomplete=True) == [c for c in before["train"] if c != "3144"]
    assert cases(few, "test", "gu2net", allow_incomplete=True) == before["test"]


def test_a_shortened_table_does_not_pass_for_gu2nets(few: Path) -> None:
    with pytest.raises(LandmarkError, match="has 3 rows from 5577 to 7293, GU2Net's test section has 300"):
        hand_xray_datalist(few, "test")


# --- millimetres ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "wrist", "pixel_size"),
    [
        ("cv1", None, 50 / 25),
        ("gu2net", None, 50 / 40),
        ("gu2net", (1, 5), 50 / 25),
        ("cv1", [0, 4], 50 / 40),
        ("cv1", ("ulna_ulnar_corner", "radius_radial_corner"), 50 / 40),
    ],
)
def test_wrist_rule(few: Path, split: str, wrist, pixel_size: float) -> None:
    entry = hand_xray_datalist(few, "test", split, wrist, allow_incomplete=True)[0]
    assert entry["pixel_size"] == (pixel_size, pixel_size)
    assert entry["origin"] == (0.0, 0.0)
    np.testing.assert_allclose(entry["landmarks"] / pixel_size, np.reshape(row(int(entry["case"])), (37, 2)))


@pytest.mark.parametrize("wrist", [(1, 1), (0, 37), (-1, 4), (0,), (0, "radial_styliod")])
def test_impossible_wrists(few: Path, wrist) -> None:
    with pytest.raises(ValueError, match="two different landmarks"):
        hand_xray_datalist(few, "test", "cv1", wrist)


def test_points_fit_the_film_reader(few: Path) -> None:
    entry = hand_xray_datalist(few, "test", "cv1")[0]
    reader = FilmReader(pixel_size=entry["pixel_size"], origin=entry["origin"])
    array, meta = reader.get_data(reader.read(entry["image"]))
    assert array.shape == SIZE
    index = entry["landmarks"] @ np.linalg.inv(meta["affine"][:2, :2]).T
    np.testing.assert_allclose(index, np.reshape(row(int(entry["case"])), (37, 2)))


def test_an_empty_cell_is_a_missing_landmark(few: Path) -> None:
    path = few / "setup" / "all.csv"
    rows = list(csv.reader(path.open()))
    rows[1][1 + 2 * 36] = ""
    path.write_text("\n".join(map(",".join, rows)))
    points = hand_xray_datalist(few, None, "all")[0]["landmarks"]
    assert np.isnan(points[36]).all()
    assert np.isfinite(points[:36]).all()


# --- refusals ---------------------------------------------------------------------------------------------------------


def change_row(folder: Path, changes: dict[int, str]) -> None:
    """Change cells of film 3143's row: cell 1 is x of point 0."""
    path = folder / "setup" / "all.csv"
    rows = list(csv.reader(path.open()))
    for cell, text in changes.items():
        rows[1][cell] = text
    path.write_text("\n".join(map(",".join, rows)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({1: "ten"}, r"line 2 \(film 3143\): could not convert"),
        ({0: "3142"}, "line 2: film 3142 has a second row"),
        ({0: "case"}, "begins with 'case', expected 75"),
        ({3: "40", 4: "60"}, "points 1 and 5 of the wrist are missing or equal"),
        ({3: "nan"}, "points 1 and 5 of the wrist are missing or equal"),
        ({57: "85", 58: "30"}, r"point 28 \(middle_distal_phalanx_tip\) at \(85, 30\) .* 60 x 90 pixels"),
    ],
    ids=["no number", "twice", "header", "no wrist", "missing wrist", "off the film"],
)
def test_defective_rows(few: Path, changes: dict[int, str], message: str) -> None:
    change_row(few, changes)
    with pytest.raises(LandmarkError, match=message):
        hand_xray_datalist(few, None, "all")


def test_a_reduced_film_is_refused(few: Path) -> None:
    Image.new("L", (30, 45)).save(few / "images" / "3143.png")
    with pytest.raises(LandmarkError, match="is this a reduced or rotated copy"):
        hand_xray_datalist(few, None, "all")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("test.txt", "3143\n3144\n", "films 3144 are in train.txt and in test.txt"),
        ("test.txt", "3143\n3143\n", "names films 3143 twice"),
        ("train.txt", "3144\nimage5\n", "holds 'image5', expected one film number a line"),
        ("train.txt", "3144\n3999\n", "no row for films 3999"),
    ],
)
def test_defective_lists(few: Path, name: str, text: str, message: str) -> None:
    (few / "setup" / "cv" / "set1" / name).write_text(text)
    with pytest.raises(LandmarkError, match=message):
        hand_xray_datalist(few, "test", "cv1")


def test_absent_things_are_errors_that_tell_the_layout(few: Path, tmp_path: Path) -> None:
    for function in (hand_xray_datalist, hand_xray_points):
        with pytest.raises(FileNotFoundError, match=r"does not exist; expected a table all\.csv"):
            function(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds no table of points; expected a table all\.csv"):
        hand_xray_points(few / "images")
    with pytest.raises(FileNotFoundError, match=r"table nowhere\.csv does not exist"):
        hand_xray_points(few, "nowhere.csv")
    (few / "images").rename(few / "films")
    with pytest.raises(FileNotFoundError, match=r"holds none of the 3 films of section 'test'.* must be saved as PNG"):
        hand_xray_datalist(few, "test", "cv1", allow_incomplete=True)


def test_films_without_lists(few: Path) -> None:
    (few / "setup" / "cv").rename(few / "setup" / "lists")
    with pytest.raises(FileNotFoundError, match=r"has no lists of cv1 \(setup/cv/set1/train\.txt and test\.txt\)"):
        hand_xray_datalist(few, "test", "cv1")


def test_same_film_twice(few: Path) -> None:
    write_films(few / "images", [3143], ".bmp")
    with pytest.raises(LandmarkError, match=r"Film 3143 lies twice in .*: 3143\.bmp and 3143\.png"):
        hand_xray_datalist(few, None, "all")


@pytest.mark.parametrize("options", [{"section": "val"}, {"split": "cv4"}])
def test_unknown_options(few: Path, options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options.values()))):
        hand_xray_datalist(few, **options)


def test_a_phantom_declares_its_sections_and_an_interrupted_one_is_refused(few: Path) -> None:
    (few / "PHANTOM.txt").write_text("phantom")
    with pytest.raises(FileNotFoundError, match="its writing was interrupted"):
        hand_xray_datalist(few)
    declared = {"train": ["3143", "5577"], "validation": [], "test": ["5579"]}
    (few / "PHANTOM.json").write_text(json.dumps({"cases": declared}))
    assert cases(few, "train", "gu2net") == ["3143", "5577"]
    assert cases(few, None, "gu2net") == ["3143", "5577", "5579"]
    with pytest.raises(FileNotFoundError, match=r"'validation' of split 'gu2net' .* is empty"):
        hand_xray_datalist(few, "validation")


# --- the real table ---------------------------------------------------------------------------------------------------


@pytest.fixture
def whole(real_data: Callable[[str], Path], tmp_path: Path) -> Path:
    """The real table and lists, with a film of the right size for every row."""
    real = real_data("hand_xrays")
    numbers, points = hand_xray_points(real)
    (tmp_path / "jpg").mkdir()
    template = tmp_path / "film.png"
    Image.new("L", tuple(int(side) for side in points.max(axis=(0, 1)) + 1)).save(template, compress_level=1)
    for number in numbers:
        (tmp_path / "jpg" / f"{number}.png").hardlink_to(template)
    (tmp_path / "all.csv").symlink_to(real / "all_910_landmarks_px.csv")
    (tmp_path / "setup_cv").symlink_to(real / "setup_cv")
    return tmp_path


@pytest.mark.real_data
def test_real_gu2net_split_has_the_printed_borders(whole: Path) -> None:
    """The published rule: names sorted as strings, the first 550, the next 59, the last 300, without film 3142."""
    names = sorted(name for name in hand_xray_points(whole)[0] if name != "3142")
    expected = {"train": names[:550], "validation": names[550:609], "test": names[609:]}
    borders = {"train": ("3143", "5394", 550), "validation": ("5395", "5567", 59), "test": ("5577", "7293", 300)}
    for section, (first, last, count) in borders.items():
        found = cases(whole, section, "gu2net")
        assert found == expected[section]
        assert (found[0], found[-1], len(found)) == (first, last, count)
    assert cases(whole, "training", "gu2net") == names[:609]


@pytest.mark.real_data
def test_real_folds(whole: Path) -> None:
    tested: list[str] = []
    for split, counts in {"cv1": (597, 298), "cv2": (597, 298), "cv3": (596, 299)}.items():
        training, test = (cases(whole, section, split) for section in ("training", "test"))
        assert (len(training), len(test)) == counts
        assert len(cases(whole, "validation", split)) == 60
        tested += test
    assert sorted(map(int, set(hand_xray_points(whole)[0]) - set(tested))) == NO_FOLD
    assert len(tested) == len(set(tested)) == 895


@pytest.mark.real_data
def test_real_ratio_of_the_two_wrists(real_data: Callable[[str], Path]) -> None:
    _, points = hand_xray_points(real_data("hand_xrays"))
    ratio = np.linalg.norm(points[:, 0] - points[:, 4], axis=-1) / np.linalg.norm(points[:, 1] - points[:, 5], axis=-1)
    assert points.shape == (910, 37, 2)
    assert round(float(ratio.mean()), 3) == 1.082
    assert round(float(np.median(ratio)), 3) == 1.070
    assert [round(float(value), 3) for value in (ratio.min(), ratio.max())] == [0.955, 1.515]


@pytest.mark.real_data
def test_real_films_have_the_wrist_spacing_of_their_headers(real_data: Callable[[str], Path]) -> None:
    """The spacing stored with nine of the ten films is that of the points 1 and 5."""
    root = real_data("hand_xrays")
    stored = {cells[0]: cells[1] for cells in csv.reader((root / "landmarks37_px.csv").open())}
    entries = hand_xray_datalist(root, None, "all")
    assert len(entries) == 10
    for entry in entries:
        if stored[entry["case"]]:
            assert entry["pixel_size"][0] == pytest.approx(float(stored[entry["case"]]), abs=1e-6)


@pytest.mark.real_data
def test_real_names_are_where_they_say(real_data: Callable[[str], Path]) -> None:
    """Left hands seen from the back, fingers up: radial is right, distal is up, tips lie beyond their bones' bases."""
    _, points = hand_xray_points(real_data("hand_xrays"))
    # Median over films, relative to the base of the middle metacarpal.
    x, y = np.median(points - points[:, INDEX["metacarpal_3_base"], None], axis=0).T
    corner = [INDEX[name] for name in ("ulna_ulnar_corner", "ulna_radial_corner", "radius_ulnar_corner")]
    assert (np.diff(x[[*corner, INDEX["radius_radial_corner"]]]) > 0).all()
    assert y[INDEX["ulnar_styloid"]] < y[INDEX["ulna_ulnar_corner"]]
    assert y[INDEX["radial_styloid"]] < y[INDEX["radius_radial_corner"]]
    second = [INDEX[f"{name}_proximal"] for name in ("triquetrum", "lunate", "scaphoid")]
    first = [INDEX[f"{name}_proximal"] for name in ("hamate", "capitate", "trapezoid", "trapezium")]
    assert (np.diff(x[second]) > 0).all()
    assert (np.diff(x[first]) > 0).all()
    assert y[first].max() < y[second].min()
    assert (np.diff(x[[INDEX[f"metacarpal_{number}_base"] for number in (5, 4, 3, 2, 1)]]) > 0).all()
    for finger in ("index", "middle", "ring", "little"):
        parts = ("proximal_phalanx_base", "middle_phalanx_base", "distal_phalanx_base", "distal_phalanx_tip")
        assert (np.diff(y[[INDEX[f"{finger}_{part}"] for part in parts]]) < 0).all()
