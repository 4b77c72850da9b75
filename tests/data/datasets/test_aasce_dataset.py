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
"""Reader of the AASCE spine films: tables, fractions and world, the split by patient, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_landmarks.data import propose_flip_pairs
from monai_landmarks.data.datasets import ISBI2015_LANDMARKS
from monai_landmarks.data.datasets.aasce import (
    AASCE_LANDMARKS,
    aasce_datalist,
    aasce_disordered_films,
    aasce_disorders,
    aasce_patient,
)
from monai_landmarks.geometry import LandmarkError

LABELS = "labels/training"


def fractions_of(number: int) -> np.ndarray:
    """68 different corners ``(68, 2)`` of a film."""
    return np.random.default_rng(number).uniform(0.1, 0.9, (68, 2)).round(5)


def file_names(patients: int, films: int) -> list[str]:
    """Films in an order that is not that of their names."""
    letters = "ABCDEF"[:films]
    return [f"x-1th-0{n % 9}-Jan-2017-{n} {letter} AP.jpg" for letter in letters for n in range(patients, 0, -1)]


@pytest.fixture
def make_set(tmp_path) -> Callable[..., Path]:
    def make(patients: int = 3, films: int = 2, size: tuple[int, int] = (40, 100)) -> Path:
        names = file_names(patients, films)
        (tmp_path / "data/training").mkdir(parents=True)
        (tmp_path / LABELS).mkdir(parents=True)
        for name in names:
            Image.new("L", size).save(tmp_path / "data/training" / name)
        points = [fractions_of(n).T.ravel() for n in range(len(names))]
        angles = [(n, n + 0.5, 2.0 * n) for n in range(len(names))]
        texts = {"filenames": names, "landmarks": map(row_text, points), "angles": map(row_text, angles)}
        for table, lines in texts.items():
            (tmp_path / LABELS / f"{table}.csv").write_text("\n".join(lines) + "\n")
        return tmp_path

    return make


def row_text(values) -> str:
    return ",".join(f"{value:g}" for value in values)


def change_line(path: Path, number: int, text: str | None) -> None:
    lines = path.read_text().splitlines()
    lines[number - 1 : number] = [] if text is None else [text]
    path.write_text("\n".join(lines) + "\n")


def test_row_of_the_table_goes_to_the_film_of_the_same_line(make_set):
    root = make_set()
    entries = aasce_datalist(root)
    names = file_names(3, 2)
    assert [entry["case"] for entry in entries] == sorted(name[:-4] for name in names)
    for entry in entries:
        row = names.index(Path(entry["image"]).name)
        # 40 x 100 pixels: a thousandth of the height is a tenth of a pixel.
        np.testing.assert_allclose(entry["landmarks"], fractions_of(row) * (400, 1000), rtol=1e-12)
        np.testing.assert_allclose(entry["angles"], (row, row + 0.5, 2.0 * row))
        assert entry["landmarks"].dtype == np.float64


@pytest.mark.parametrize("size", [(40, 100), (41, 99), (7, 13)])
def test_world_is_the_place_on_the_whole_film(make_set, size):
    """Fraction 0 is the left border of the first pixel, 1 the right border of the last one: index -0.5 and W - 0.5."""
    for entry in aasce_datalist(make_set(size=size)):
        row = file_names(3, 2).index(Path(entry["image"]).name)
        index = (entry["landmarks"] - entry["origin"]) / entry["pixel_size"]
        np.testing.assert_allclose(index, fractions_of(row) * size - 0.5, rtol=1e-10)
        assert entry["pixel_size"] == (1000 / size[1],) * 2


def test_names_are_68_different_ones_with_their_sides():
    assert AASCE_LANDMARKS[:5] == ("T1_top_left", "T1_top_right", "T1_bottom_left", "T1_bottom_right", "T2_top_left")
    assert AASCE_LANDMARKS[-1] == "L5_bottom_right"
    assert len(set(AASCE_LANDMARKS)) == 68
    assert not set(AASCE_LANDMARKS) & set(ISBI2015_LANDMARKS)


def test_sides_are_found_in_the_names():
    lefts = [name for name in AASCE_LANDMARKS if name.endswith("left")]
    assert propose_flip_pairs(AASCE_LANDMARKS).pairs == tuple((name, name[:-4] + "right") for name in lefts)


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("sunhl-1th-02-Jan-2017-162 A AP", "sunhl-1th-02-Jan-2017-162"),
        ("sunhl-1th-22-Nov-2016-142 A AP (2)", "sunhl-1th-22-Nov-2016-142"),
        ("sunhl-1th-21-Nov-2016-138 D AP2", "sunhl-1th-21-Nov-2016-138"),
        ("sunhl-1th-20-Jul-2016-coronal7", "sunhl-1th-20-Jul-2016-coronal7"),
    ],
)
def test_patient(case, patient):
    assert aasce_patient(case) == patient


def test_parts_share_no_patient_and_leave_no_film_out(make_set):
    root = make_set(patients=20, films=3)

    def of(part, key="case", **options):
        return [entry[key] for entry in aasce_datalist(root, part, num_validation=7, **options)]

    parts = [of(part) for part in ("train", "validation", "test")]
    assert sorted(case for part in parts for case in part) == of(None)
    assert sorted(parts[0] + parts[1]) == of("training")
    patients = [set(of(part, "patient")) for part in ("train", "validation", "test")]
    assert sum(map(len, patients)) == 20
    assert [len(part) for part in parts] == [39, 9, 12]
    assert of("test", seed=1) != parts[2]
    assert len(of("test", test_fraction=0.5)) == 30


def test_one_number_on_two_days_stays_in_one_part(make_set):
    root = make_set(patients=12, films=2)
    lines = (root / LABELS / "filenames.csv").read_text().splitlines()
    for index, name in enumerate(lines):
        lines[index] = name.replace("Jan", "Feb") if " B " in name else name
        (root / "data/training" / name).rename(root / "data/training" / lines[index])
    (root / LABELS / "filenames.csv").write_text("\n".join(lines))
    for part in ("train", "validation", "test"):
        numbers = [case.split("-")[-1].split()[0] for case in (e["case"] for e in aasce_datalist(root, part, 4))]
        assert all(numbers.count(number) == 2 for number in numbers)


def test_missing_corner_is_nan(make_set):
    root = make_set()
    row = fractions_of(0).T.ravel()
    row[68 + 5] = np.nan
    change_line(root / LABELS / "landmarks.csv", 1, row_text(row))
    entry = next(e for e in aasce_datalist(root) if e["case"] == "x-1th-03-Jan-2017-3 A AP")
    assert np.flatnonzero(np.isnan(entry["landmarks"]).all(axis=1)).tolist() == [5]
    assert np.isnan(entry["landmarks"]).sum() == 2


@pytest.mark.parametrize(
    ("table", "text", "message"),
    [
        ("landmarks", "0.5,0.5", r"row 2 \(x-1th-02-Jan-2017-2 A AP.jpg\) has 2 columns, expected 136"),
        ("angles", "1,2,3,4", r"row 2 .* has 4 columns, expected 3"),
        ("landmarks", ",".join(["0.5"] * 135 + ["x"]), "row 2 .*could not convert string to float: 'x'"),
        ("landmarks", ",".join(["0.5"] * 135 + ["1.2"]), r"L5_bottom_right: \(0.5, 1.2\) is not on the film"),
        ("landmarks", ",".join(["300"] * 136), r"T1_top_left: \(300, 300\) is not on the film.*Are these pixels"),
        ("landmarks", None, r"landmarks.csv has 5 rows for 6 names in filenames.csv"),
        ("angles", None, r"angles.csv has 5 rows for 6 names"),
        ("filenames", None, r"landmarks.csv has 6 rows for 5 names"),
        ("filenames", "x-1th-03-Jan-2017-3 A AP.jpg", r"names films twice.*x-1th-03-Jan-2017-3 A AP.jpg"),
    ],
)
def test_tables_that_do_not_fit_are_refused(make_set, table, text, message):
    root = make_set()
    change_line(root / LABELS / f"{table}.csv", 2, text)
    with pytest.raises(LandmarkError, match=message):
        aasce_datalist(root)


def test_corner_just_off_the_film_is_kept(make_set):
    root = make_set()
    change_line(root / LABELS / "landmarks.csv", 1, ",".join(["0.5"] * 135 + ["1.0245"]))
    entry = next(e for e in aasce_datalist(root) if e["case"] == "x-1th-03-Jan-2017-3 A AP")
    assert entry["landmarks"][-1, 1] == pytest.approx(1024.5)


def test_missing_files_are_named(make_set, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; expected data/training"):
        aasce_datalist(tmp_path / "nowhere")
    root = make_set()
    (root / "data/training" / "x-1th-02-Jan-2017-2 B AP.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 6 films of filenames.csv .* x-1th-02-Jan-2017-2 B AP.jpg\."):
        aasce_datalist(root)
    (root / LABELS / "angles.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"angles\.csv missing; expected"):
        aasce_datalist(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "tset"}, "tset"),
        ({"test_fraction": 1.0}, "test_fraction must lie between 0 and 1"),
        ({"part": "test", "test_fraction": 0.99}, "leave both parts non-empty"),
        ({"part": "train", "num_validation": 6}, "num_validation must leave"),
    ],
)
def test_options_that_cannot_be(make_set, options, message):
    with pytest.raises(ValueError, match=message):
        aasce_datalist(make_set(), **options)


@pytest.mark.real_data
def test_real_films(real_data):
    root = real_data("aasce_spine_xrays")
    entries = aasce_datalist(root)
    assert len(entries) == 481
    assert len({entry["patient"] for entry in entries}) == 248
    parts = {part: aasce_datalist(root, part) for part in ("train", "validation", "test")}
    assert {part: len(films) for part, films in parts.items()} == {"train": 340, "validation": 42, "test": 99}
    # In a usual film the spine runs downwards and its left corners lie left of the right ones.
    corners = np.stack([entry["landmarks"] for entry in entries]).reshape(-1, 17, 4, 2)
    assert ((corners[:, :, 0::2, 0] < corners[:, :, 1::2, 0]).mean()) > 0.99
    assert (np.diff(corners.mean(axis=2)[..., 1], axis=1) > 0).mean() > 0.99


@pytest.mark.real_data
def test_real_corners_lie_between_the_discs_and_the_soft_tissue(real_data):
    """Inside the quadrilaterals of the lumbar bodies films are brighter than beside them."""
    differences = []
    for entry in aasce_datalist(real_data("aasce_spine_xrays"), "validation")[:12]:
        film = np.asarray(Image.open(entry["image"]).convert("L"), dtype=float)
        corners = ((entry["landmarks"] - entry["origin"]) / entry["pixel_size"]).reshape(17, 4, 2)[12:15]
        center, side = corners.mean(axis=1), corners[:, 1] - corners[:, 0]
        inside, beside = (np.rint(center + shift * side).astype(int) for shift in (0.0, -1.5))
        take = [film[p[:, 1].clip(0, film.shape[0] - 1), p[:, 0].clip(0, film.shape[1] - 1)] for p in (inside, beside)]
        differences.append((take[0] - take[1]).mean())
    assert np.median(differences) > 5


def upright_film(turn: float = 0.0) -> np.ndarray:
    """17 bodies of 30 x 20 below one another, each turned about its centre by so many degrees."""
    angle = np.deg2rad(turn)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    body = np.array([(-15, -10), (15, -10), (-15, 10), (15, 10)]) @ rotation
    return np.concatenate([np.add(body, (50.0, 40.0 * number)) for number in range(17)])


@pytest.mark.parametrize("turn", [-60.0, 0.0, 25.0, 80.0])
def test_tilted_vertebrae_are_in_order(turn):
    assert aasce_disorders(upright_film(turn)) == ()


def test_disorders_name_what_is_out_of_order():
    film = upright_film(20.0)
    film[4:12] = np.concatenate([film[8:12], film[4:8]])
    assert aasce_disorders(film) == ("T3: its centre lies above those of 1 of the 2 vertebrae before it.",)
    moved = np.roll(upright_film(), -4, axis=0)
    assert aasce_disorders(moved) == ("L5: its centre lies above those of 16 of the 16 vertebrae before it.",)
    sides = upright_film(20.0)
    sides[[66, 67]] = sides[[67, 66]]
    (finding,) = aasce_disorders(sides)
    assert finding.startswith("L5: its corners do not run round a body; see L5_")


def test_missing_corner_hides_its_own_vertebra_only():
    film = np.roll(upright_film(), -4, axis=0)
    film[3] = np.nan
    assert [finding[:3] for finding in aasce_disorders(film)] == ["L5:"]
    film[67] = np.nan
    assert aasce_disorders(film) == ()
    with pytest.raises(LandmarkError, match=r"shape \(68, 2\), got \(19, 2\)"):
        aasce_disorders(np.zeros((19, 2)))


@pytest.mark.real_data
def test_disordered_real_films(real_data):
    found = aasce_disordered_films(real_data("aasce_spine_xrays"))
    assert len(found) == 27
    assert sum("16 of the 16" in " ".join(findings) for findings in found.values()) == 18
    assert found["sunhl-1th-26-Jul-2016-76 C AP"] == (
        "T2: its centre lies above those of 1 of the 1 vertebrae before it.",
    )
