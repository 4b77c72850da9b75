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
"""Reader of the ISBI 2015 challenge: layouts, sizes, splits, teaching errors, and the printed reader statistics."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_landmarks.data.datasets import ISBI2015_LANDMARKS, isbi2015_datalist, isbi2015_points
from monai_landmarks.geometry import LandmarkError

OFFICIAL = {"TrainingData": (1, 150), "Test1Data": (151, 300), "Test2Data": (301, 400)}


def pixels_of(number: int, reader: int) -> np.ndarray:
    """Distinct integer points for every film and reader; the readers differ by (2, 4) pixels."""
    index = np.arange(19)
    return np.stack([100 + number + 10 * index + 2 * reader, 200 + 2 * number + 5 * index + 4 * reader], axis=-1)


def write_points(folder: Path, number: int, reader: int, tail: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{x},{y}\n" for x, y in pixels_of(number, reader))
    (folder / f"{number:03d}.txt").write_text(lines + tail)


@pytest.fixture(scope="session")
def blank_film(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.png"
    Image.new("1", (968, 1200)).save(path)
    return path


@pytest.fixture
def make_set(tmp_path, blank_film) -> Callable[..., Path]:
    """Write a set with the given film folders; points for every film that any folder holds."""

    def make(folders: dict[str, tuple[int, int]], annotations: str = ".", suffix: str = ".png") -> Path:
        for folder, (first, last) in folders.items():
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            for number in range(first, last + 1):
                shutil.copyfile(blank_film, tmp_path / folder / f"{number:03d}{suffix}")
                for reader, name in enumerate(("400_junior", "400_senior")):
                    write_points(tmp_path / annotations / name, number, reader)
        return tmp_path

    return make


def official(make_set) -> Path:
    return make_set({f"RawImage/{name}": numbers for name, numbers in OFFICIAL.items()})


def set_of_one(root: Path, size: tuple[int, int], suffix: str = ".png") -> Path:
    folder = root / "RawImage" / "TrainingData"
    folder.mkdir(parents=True)
    Image.new("1", size).save(folder / f"001{suffix}")
    for reader, name in enumerate(("400_junior", "400_senior")):
        write_points(root / name, 1, reader)
    return root


@pytest.mark.parametrize(
    ("section", "first", "count"), [("training", 1, 150), ("test1", 151, 150), ("test2", 301, 100)]
)
def test_official_layout(make_set, section, first, count):
    entries = isbi2015_datalist(official(make_set), section)
    assert [entry["case"] for entry in entries] == [f"{number:03d}" for number in range(first, first + count)]
    for number in (first, first + count - 1):
        entry = entries[number - first]
        assert Path(entry["image"]).stem == entry["case"]
        junior, senior = pixels_of(number, 0), pixels_of(number, 1)
        assert entry["landmarks"].dtype == np.float64
        np.testing.assert_allclose(entry["landmarks"], 0.1 * (junior + 1 * np.array([1, 2])), rtol=1e-12)
        np.testing.assert_allclose(entry["landmarks_junior"], 0.1 * junior, rtol=1e-12)
        np.testing.assert_allclose(entry["landmarks_senior"], 0.1 * senior, rtol=1e-12)


@pytest.mark.parametrize(
    "folders",
    [
        {"raw": (1, 400)},
        {"RawImage/TrainingData": (1, 150), "RawImage/Test1Data": (151, 400), "RawImage/Test2Data": (301, 400)},
        {"RawImage/TrainingData": (1, 150), "RawImage/Test1Data": (151, 300), "RawImage/TestData": (151, 400)},
        {"TrainingData": (1, 150), "Test1Data": (151, 300), "Test2Data": (301, 400)},
        {"RawImage": (1, 400)},
    ],
    ids=["one raw folder", "151-400 in Test1Data", "merged TestData", "no RawImage", "flat RawImage"],
)
def test_repacked_layouts_select_by_film_number(make_set, folders):
    root = make_set(folders, annotations="AnnotationsByMD")
    for section, first, last in (("training", 1, 150), ("test1", 151, 300), ("test2", 301, 400)):
        cases = [int(entry["case"]) for entry in isbi2015_datalist(root, section)]
        assert cases == list(range(first, last + 1))


def test_own_folder_of_the_section_wins(make_set):
    root = make_set({"RawImage/Test1Data": (151, 400), "RawImage/Test2Data": (301, 400)})
    assert {Path(entry["image"]).parent.name for entry in isbi2015_datalist(root, "test2")} == {"Test2Data"}


@pytest.mark.parametrize(
    ("size", "suffix", "k"),
    [
        ((1935, 2400), ".bmp", 1),
        ((1935, 2400), ".tif", 1),
        ((968, 1200), ".jpg", 2),
        ((645, 800), ".png", 3),
        ((484, 600), ".tiff", 4),
        ((242, 300), ".JPEG", 8),
    ],
)
def test_film_size_gives_pixel_size_and_origin(tmp_path, size, suffix, k):
    root = set_of_one(tmp_path, size, suffix)
    (entry,) = isbi2015_datalist(root, allow_incomplete=True)
    assert entry["reduction"] == k
    assert entry["original_size"] == (1935, 2400)
    # The law of an exact box reduction, x_here = (x + 0.5) / k - 0.5, must agree with origin + pixel_size * x_here.
    x = entry["landmarks"] * 10
    x_here = (x + 0.5) / k - 0.5
    np.testing.assert_allclose(
        np.array(entry["origin"]) + np.array(entry["pixel_size"]) * x_here, entry["landmarks"], rtol=1e-12
    )


@pytest.mark.parametrize("size", [(967, 1200), (968, 1199), (2400, 1935), (512, 512), (3870, 4800), (800, 640)])
def test_other_film_sizes_are_refused(tmp_path, size):
    root = set_of_one(tmp_path, size)
    with pytest.raises(LandmarkError, match=rf"is {size[0]} x {size[1]} pixels.*expected the original\s+1935 x 2400"):
        isbi2015_datalist(root, allow_incomplete=True)


def test_lying_film_is_diagnosed(tmp_path):
    with pytest.raises(LandmarkError, match="lies on its side"):
        isbi2015_datalist(set_of_one(tmp_path, (2400, 1935)), allow_incomplete=True)


def test_points_are_exact_original_pixels(make_set):
    root = make_set({"RawImage/TrainingData": (1, 150)})
    cases, points = isbi2015_points(root)
    assert points.shape == (150, 19, 2)
    expected = np.stack([(pixels_of(n, 0) + pixels_of(n, 1)) / 2 for n in range(1, 151)])
    assert (points * 10 == expected).all()
    assert cases == [f"{n:03d}" for n in range(1, 151)]


def test_points_agree_with_datalist(make_set):
    root = make_set({"raw": (1, 150)})
    for annotator in ("mean", "junior", "senior"):
        _, points = isbi2015_points(root, annotator=annotator)
        entries = isbi2015_datalist(root, annotator=annotator)
        np.testing.assert_array_equal(points, [entry["landmarks"] for entry in entries])


def test_lines_after_the_points_are_ignored(make_set):
    root = make_set({"raw": (1, 150)})
    before = isbi2015_datalist(root)[6]["landmarks"]
    for reader, name in enumerate(("400_junior", "400_senior")):
        write_points(root / name, 7, reader, tail="1\n2\n3\n1\n")
    np.testing.assert_array_equal(isbi2015_datalist(root)[6]["landmarks"], before)


def test_nan_point_is_a_missing_landmark(make_set):
    root = make_set({"raw": (1, 150)})
    path = root / "400_senior" / "003.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(["nan,12", *lines[1:]]))
    entry = isbi2015_datalist(root)[2]
    assert np.isnan(entry["landmarks"][0]).all()
    assert np.isfinite(entry["landmarks"][1:]).all()
    assert np.isfinite(entry["landmarks_junior"]).all()


def test_one_reader_is_enough_for_that_reader(make_set):
    root = make_set({"raw": (1, 150)})
    shutil.rmtree(root / "400_junior")
    entry = isbi2015_datalist(root, annotator="senior")[0]
    np.testing.assert_array_equal(entry["landmarks"], entry["landmarks_senior"])
    assert "landmarks_junior" not in entry
    with pytest.raises(FileNotFoundError, match=r"400_junior .* is missing .* annotator='mean' needs it"):
        isbi2015_datalist(root)


def test_validation_is_a_fixed_part_of_training(make_set):
    root = make_set({"raw": (1, 400)})

    def cases(**options):
        return [entry["case"] for entry in isbi2015_datalist(root, **options)]

    train, validation = cases(part="train"), cases(part="validation")
    assert len(train) == 120
    assert len(validation) == 30
    assert sorted(train + validation) == cases()
    # Printed once and pinned: the split must not move between versions of anything.
    assert validation[:5] == ["005", "011", "016", "023", "024"]
    assert cases(part="validation", seed=1) != validation
    assert len(cases(part="validation", num_validation=20)) == 20
    assert set(cases(part="validation", num_validation=20)) < set(validation)


@pytest.mark.parametrize("section", ["test1", "test2"])
@pytest.mark.parametrize("part", ["train", "validation"])
def test_test_sections_have_no_parts(make_set, section, part):
    with pytest.raises(ValueError, match="only the training section is split"):
        isbi2015_datalist(make_set({}), section, part=part)


@pytest.mark.parametrize("number", [0, 150, -1])
def test_empty_parts_are_refused(make_set, number):
    with pytest.raises(ValueError, match=f"expected 1 to 149 for 150 training cases, got {number}"):
        isbi2015_datalist(make_set({"raw": (1, 150)}), part="train", num_validation=number)


@pytest.mark.parametrize("options", [{"section": "test3"}, {"annotator": "average"}, {"part": "val"}])
def test_unknown_options(make_set, options):
    with pytest.raises(ValueError, match=next(iter(options.values()))):
        isbi2015_datalist(make_set({"raw": (1, 150)}), **options)


def test_absent_folder_is_an_error_and_tells_the_layout(tmp_path):
    for function in (isbi2015_datalist, isbi2015_points):
        with pytest.raises(FileNotFoundError, match=r"does not exist; expected RawImage/TrainingData/001"):
            function(tmp_path / "nowhere")


def test_missing_films_are_all_named(make_set):
    root = make_set({"RawImage/TrainingData": (1, 150)})
    for number in (3, 7, 8, 9, 150):
        (root / "RawImage/TrainingData" / f"{number:03d}.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 5 of 150 films: 003, 007-009, 150\..*allow_incomplete=True"):
        isbi2015_datalist(root)
    assert len(isbi2015_datalist(root, allow_incomplete=True)) == 145


def test_absent_section_is_an_error_even_when_incomplete_is_allowed(make_set):
    root = make_set({"RawImage/TrainingData": (1, 5)})
    with pytest.raises(FileNotFoundError, match=r"lacks 150 of 150 films; expected RawImage.*one level"):
        isbi2015_datalist(root, "test1", allow_incomplete=True)


def test_missing_point_tables_are_named(make_set):
    root = make_set({"raw": (1, 150)})
    for name in ("400_junior", "400_senior"):
        (root / name / "040.txt").unlink()
    with pytest.raises(FileNotFoundError, match="lacks 1 of 150 point files: 040"):
        isbi2015_points(root)
    assert len(isbi2015_points(root, allow_incomplete=True)[0]) == 149


def test_film_without_point_file(make_set):
    root = make_set({"raw": (1, 150)})
    for number in (12, 13):
        (root / "400_senior" / f"{number:03d}.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"2 films have no point file in .*400_senior: 012-013"):
        isbi2015_datalist(root, allow_incomplete=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10,20\n" * 18, "holds 18 points, expected 19"),
        ("", "holds 0 points, expected 19"),
        ("10,20\n" * 4 + "12,x7\n" + "10,20\n" * 14, r"line 5 \(subspinale_A\) is '12,x7', expected two numbers"),
        ("10,20\n" * 9 + "1,2,3\n" + "10,20\n" * 9, r"line 10 \(gonion\) is '1,2,3'"),
        ("10,20\n" * 18 + "10,2900\n", r"line 19 \(articulare\): \(10, 2900\) is not on the original film of"),
        ("2300,300\n" + "10,20\n" * 18, r"line 1 \(sella\): \(2300, 300\) is not on"),
    ],
    ids=["18 points", "empty", "not a number", "three numbers", "below the film", "swapped axes"],
)
def test_defective_point_files(make_set, text, message):
    root = make_set({"raw": (1, 150)})
    (root / "400_junior" / "002.txt").write_text(text)
    with pytest.raises(LandmarkError, match=message):
        isbi2015_datalist(root)


def test_same_film_twice_in_a_folder(make_set):
    root = make_set({"raw": (1, 150)})
    shutil.copyfile(root / "raw/004.png", root / "raw/004.bmp")
    with pytest.raises(LandmarkError, match=r"Film 004 lies twice in .*raw: 004\.bmp and 004\.png"):
        isbi2015_datalist(root)


@pytest.mark.real_data
def test_real_names_and_readers(real_data):
    root = real_data("isbi2015_cephalograms")
    assert (root / "landmarks.txt").read_text().split() == list(ISBI2015_LANDMARKS)
    entries = isbi2015_datalist(root)
    assert len(entries) == 150
    assert entries[0]["pixel_size"] == (0.2, 0.2)
    assert entries[0]["origin"] == (0.05, 0.05)
    np.testing.assert_allclose(entries[0]["landmarks_junior"][0], [82.9, 99.1])


@pytest.mark.real_data
@pytest.mark.parametrize(("section", "mean", "sd"), [("training", 2.353, 2.596), ("test1", 2.363, 2.163)])
def test_real_reader_distance_is_the_printed_one(real_data, section, mean, sd):
    root = real_data("isbi2015_cephalograms")
    junior, senior = (isbi2015_points(root, section, annotator)[1] for annotator in ("junior", "senior"))
    distance = np.linalg.norm(junior - senior, axis=-1)
    assert round(float(distance.mean()), 3) == mean
    assert round(float(distance.std()), 3) == sd


@pytest.mark.real_data
def test_real_senior_against_mean_is_the_printed_one(real_data):
    root = real_data("isbi2015_cephalograms")
    senior, mean = (10 * isbi2015_points(root, "test1", annotator)[1] for annotator in ("senior", "mean"))
    distance = np.linalg.norm(senior - mean, axis=-1)
    assert round(float(distance.mean()) / 10, 3) == 1.182
    within = [round(100 * float((distance <= limit).mean()), 2) for limit in (20, 25, 30, 40)]
    assert within == [81.51, 88.28, 93.09, 97.58]
