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
"""The phantom cephalogram: truth of its landmarks, variation, and its folder in the ISBI 2015 layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import map_coordinates

from monai_landmarks.data import FilmReader
from monai_landmarks.data.datasets import ISBI2015_LANDMARKS, isbi2015_datalist, isbi2015_points
from monai_landmarks.data.phantoms import cephalogram_phantom, is_phantom, write_cephalogram_phantom
from monai_landmarks.data.phantoms.cephalogram import _build
from monai_landmarks.data.phantoms.head import PIVOT, Pose, build_head, draw_pose

INDEX = {name: index for index, name in enumerate(ISBI2015_LANDMARKS)}


def truth_of(seed: int) -> np.ndarray:
    head, pose = _build(np.random.default_rng(seed))
    return pose(head.landmarks)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory) -> Path:
    return write_cephalogram_phantom(tmp_path_factory.mktemp("phantom") / "set", 4, 2, 1, reduction=8, seed=7)


@pytest.mark.parametrize(("k", "shape"), [(4, (600, 484)), (5, (480, 387)), (8, (300, 242)), (16, (150, 121))])
def test_size_of_the_film(k, shape):
    image, points = cephalogram_phantom(0, reduction=k)
    assert image.shape == shape
    assert image.dtype == np.uint8
    assert points.shape == (19, 2)
    assert points.dtype == np.float64


def test_full_and_half_size():
    assert cephalogram_phantom(0, reduction=1)[0].shape == (2400, 1935)
    assert cephalogram_phantom(0, reduction=2)[0].shape == (1200, 968)


def test_same_seed_same_film():
    first, second = (cephalogram_phantom(3, reduction=8) for _ in range(2))
    other = cephalogram_phantom(4, reduction=8)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert np.linalg.norm(first[1] - other[1], axis=-1).min() > 0.1


def test_same_head_at_every_size():
    fine, coarse = (cephalogram_phantom(5, reduction=k, noise=0) for k in (4, 8))
    np.testing.assert_array_equal(fine[1], coarse[1])
    reduced = fine[0].astype(float)[:600, :484].reshape(300, 2, 242, 2).mean(axis=(1, 3))
    # Below the frame, which is stamped on whole pixels, only the film's non-linear response differs.
    difference = np.abs(reduced - coarse[0])[20:-20, 8:]
    assert difference.mean() < 1.0


def test_switches_do_not_move_the_head():
    _, points = cephalogram_phantom(2, reduction=16)
    for options in ({"occlusion": False}, {"noise": 0.0}):
        np.testing.assert_array_equal(cephalogram_phantom(2, reduction=16, **options)[1], points)


def test_landmarks_lie_on_the_film_and_vary_like_real_ones():
    points = np.stack([truth_of(seed) for seed in range(150)])
    assert points.min() >= 6 - 1e-9
    assert (points.max(axis=(0, 1)) <= np.array([193.5, 240]) - 6 + 1e-9).all()
    # A guess by the mean shape misses real films by about 9.4 mm.
    error = np.linalg.norm(points - points.mean(axis=0), axis=-1).mean()
    assert 7.5 < error < 11.5


def test_shape_variation_is_correlated():
    shapes = np.stack([build_head(np.random.default_rng(seed)).landmarks.ravel() for seed in range(150)])
    variance = np.linalg.svd(shapes - shapes.mean(axis=0), compute_uv=False) ** 2
    assert variance[:6].sum() / variance.sum() > 0.8


def test_anatomical_order_in_the_heads_own_frame():
    for seed in range(40):
        p = dict(zip(ISBI2015_LANDMARKS, build_head(np.random.default_rng(seed)).landmarks, strict=True))
        assert p["porion"][0] < p["sella"][0] < p["orbitale"][0] < p["nasion"][0]
        assert p["posterior_nasal_spine"][0] < p["subspinale_A"][0] < p["anterior_nasal_spine"][0]
        assert p["menton"][1] > p["gnathion"][1] > p["pogonion"][1] > p["supramentale_B"][1]
        assert p["menton"][0] < p["gnathion"][0] < p["pogonion"][0] + 0.5
        assert p["soft_tissue_pogonion"][0] > p["pogonion"][0] + 4
        assert p["upper_lip"][1] < p["lower_lip"][1]
        assert p["articulare"][1] < p["gonion"][1] < p["menton"][1]


@pytest.mark.parametrize(
    ("name", "outward", "tolerance"),
    [
        ("soft_tissue_pogonion", (1, 0.3), 0.35),
        ("upper_lip", (1, 0), 0.35),
        ("lower_lip", (1, 0), 0.35),
        ("pogonion", (1, 0), 0.35),
        ("menton", (0, 1), 0.35),
        ("gonion", (-1, 1), 0.35),
        ("supramentale_B", (1, 0), 0.4),
        ("nasion", (1, 0), 0.5),
        ("anterior_nasal_spine", (1, 0.1), 0.5),
        ("posterior_nasal_spine", (-1, 0), 0.6),
        ("upper_incisal_incision", (0.4, 0.9), 0.5),
        ("lower_incisal_incision", (0.35, -0.93), 0.5),
    ],
)
def test_landmark_lies_on_the_edge_seen_in_the_film(films, name, outward, tolerance):
    """Going outwards through the landmark, the film darkens most steeply at the landmark itself."""
    along = np.arange(-1.5, 1.501, 0.05)
    direction = np.array(outward) / np.linalg.norm(outward)
    for image, points in films:
        world = points[INDEX[name]] + along[:, None] * direction
        index = (10 * world + 0.5) / 2 - 0.5
        profile = map_coordinates(image.astype(float), [index[:, 1], index[:, 0]], order=1)
        steepest = along[np.argmin(np.convolve(np.gradient(profile), np.ones(5), "same"))]
        assert abs(steepest) <= tolerance


@pytest.fixture(scope="module")
def films() -> list[tuple[np.ndarray, np.ndarray]]:
    still = {"rotation_deg": 0.0, "scale": 0.0, "translation_mm": 0.0}
    return [cephalogram_phantom(seed, 2, noise=0, occlusion=False, **still) for seed in range(3)]


def test_pose_is_a_similarity_about_the_pivot():
    pose = Pose(angle=0.1, scale=1.05, shift=(3.0, -2.0))
    points = PIVOT + np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 20.0]])
    moved = pose(points)
    np.testing.assert_allclose(moved[0], PIVOT + np.array([3.0, -2.0]))
    side = moved[1:] - moved[0]
    np.testing.assert_allclose(np.linalg.norm(side, axis=-1), [10.5, 21.0])
    assert side[0] @ side[1] == pytest.approx(0)
    np.testing.assert_allclose(np.arctan2(side[0, 1], side[0, 0]), 0.1)


def test_pose_stays_within_its_limits():
    poses = [draw_pose(np.random.default_rng(seed), 10.0, 0.08, 10.0) for seed in range(200)]
    angles = np.rad2deg([pose.angle for pose in poses])
    assert 9 < np.abs(angles).max() <= 10
    assert 0.92 <= min(pose.scale for pose in poses) < 0.93
    assert 9 < np.abs([pose.shift for pose in poses]).max() <= 10


@pytest.mark.parametrize("reduction", [0, -2, 2.5])
def test_reduction_must_be_a_positive_integer(tmp_path, reduction):
    for call in (
        lambda: cephalogram_phantom(0, reduction=reduction),
        lambda: write_cephalogram_phantom(tmp_path, reduction=reduction),
    ):
        with pytest.raises(ValueError, match=f"reduction must be a positive integer.* got {reduction}"):
            call()


def test_the_real_sets_reader_reads_it(phantom):
    sections = {"training": ["001", "002", "003", "004"], "test1": ["151", "152"], "test2": ["301"]}
    for section, cases in sections.items():
        entries = isbi2015_datalist(phantom, section)
        assert [entry["case"] for entry in entries] == cases
        for entry in entries:
            assert entry["pixel_size"] == (0.8, 0.8)
            assert entry["reduction"] == 8
            assert Image.open(entry["image"]).size == (242, 300)


def test_pixel_size_and_origin_fit_the_film_reader(phantom):
    entry = isbi2015_datalist(phantom)[0]
    reader = FilmReader(pixel_size=entry["pixel_size"], origin=entry["origin"])
    array, meta = reader.get_data(reader.read(entry["image"]))
    assert array.shape == (242, 300)
    affine = np.asarray(meta["affine"])
    index = (entry["landmarks"] - affine[:2, 2]) @ np.linalg.inv(affine[:2, :2]).T
    np.testing.assert_allclose(index, (10 * entry["landmarks"] + 0.5) / 8 - 0.5)


def test_read_points_are_the_true_ones_within_the_readers_error(tmp_path):
    exact = write_cephalogram_phantom(tmp_path / "exact", 3, 0, reduction=16, reader_sd_mm=0.0)
    truth = np.loadtxt(exact / "true_points_mm.csv", delimiter=",", skiprows=1)[:, 1:].reshape(-1, 19, 2)
    for annotator in ("junior", "senior", "mean"):
        # Rounded to whole original pixels of 0.1 mm; the truth is written to 0.0001 mm.
        assert np.abs(isbi2015_points(exact, annotator=annotator)[1] - truth).max() <= 0.05 + 1e-4


def test_readers_err_independently_by_half_a_millimetre(phantom):
    truth = np.loadtxt(phantom / "true_points_mm.csv", delimiter=",", skiprows=1)[:4, 1:].reshape(-1, 19, 2)
    errors = [isbi2015_points(phantom, annotator=annotator)[1] - truth for annotator in ("junior", "senior")]
    for error in errors:
        assert 0.4 < error.std() < 0.6
    assert abs(np.corrcoef(errors[0].ravel(), errors[1].ravel())[0, 1]) < 0.3


def test_true_points_are_those_of_the_drawing_function(phantom):
    row = np.loadtxt(phantom / "true_points_mm.csv", delimiter=",", skiprows=1)[4]
    image, points = cephalogram_phantom(np.random.default_rng([7, 151]), reduction=8)
    assert row[0] == 151
    np.testing.assert_allclose(row[1:].reshape(19, 2), points, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(Image.open(phantom / "RawImage/Test1Data/151.png")), image)


def test_films_do_not_depend_on_how_many_there_are(phantom, tmp_path):
    fewer = write_cephalogram_phantom(tmp_path / "fewer", 2, 0, reduction=8, seed=7)
    for name in ("RawImage/TrainingData/002.png", "400_junior/002.txt", "400_senior/002.txt"):
        assert (fewer / name).read_bytes() == (phantom / name).read_bytes()


def test_layout_is_the_challenges(phantom):
    files = sorted(str(path.relative_to(phantom)) for path in phantom.rglob("*") if path.is_file())
    cases = {"TrainingData": ("001", "002", "003", "004"), "Test1Data": ("151", "152"), "Test2Data": ("301",)}
    numbers = [number for section in cases.values() for number in section]
    expected = [f"RawImage/{folder}/{number}.png" for folder, section in cases.items() for number in section]
    expected += [f"400_{reader}/{number}.txt" for reader in ("junior", "senior") for number in numbers]
    assert files == sorted([*expected, "PHANTOM.txt", "PHANTOM.json", "true_points_mm.csv"])
    lines = (phantom / "400_junior" / "001.txt").read_text().splitlines()
    assert len(lines) == 19
    assert all(cell.isdigit() for line in lines for cell in line.split(","))


def test_it_says_that_it_is_a_phantom(phantom, tmp_path):
    assert (phantom / "PHANTOM.txt").read_text().startswith("This is a phantom.")
    assert is_phantom(phantom)
    assert not is_phantom(tmp_path)
    assert not is_phantom(tmp_path / "nowhere")


def test_absent_section_and_lost_film_are_errors(tmp_path):
    root = write_cephalogram_phantom(tmp_path / "set", 2, 0, reduction=16)
    with pytest.raises(FileNotFoundError, match="has no films: the phantom was written without this section"):
        isbi2015_datalist(root, "test1")
    (root / "RawImage/TrainingData/002.png").unlink()
    with pytest.raises(FileNotFoundError, match="lacks 1 of 2 films: 002"):
        isbi2015_datalist(root)


def test_complete_folder_is_used_again(tmp_path):
    root = write_cephalogram_phantom(tmp_path / "set", 2, 0, reduction=16)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    assert write_cephalogram_phantom(root, 2, 0, reduction=16) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before


def test_interrupted_folder_is_refused_by_the_reader_and_completed_by_the_writer(tmp_path):
    whole = write_cephalogram_phantom(tmp_path / "whole", 3, 0, reduction=16)
    cut = write_cephalogram_phantom(tmp_path / "cut", 3, 0, reduction=16)
    for name in ("PHANTOM.json", "RawImage/TrainingData/003.png", "400_senior/003.txt", "true_points_mm.csv"):
        (cut / name).unlink()
    with pytest.raises(FileNotFoundError, match="incomplete: its writing was interrupted"):
        isbi2015_datalist(cut)
    kept = (cut / "RawImage/TrainingData/001.png").stat().st_mtime_ns
    write_cephalogram_phantom(cut, 3, 0, reduction=16)
    assert (cut / "RawImage/TrainingData/001.png").stat().st_mtime_ns == kept
    for path in whole.rglob("*.*"):
        assert (cut / path.relative_to(whole)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed is 0, asked was 1"),
        ({"reduction": 8}, "reduction is 16, asked was 8"),
        ({"num_training": 3}, "cases is .*'training': 2.*asked was .*'training': 3"),
    ],
)
@pytest.mark.parametrize("complete", [True, False])
def test_another_phantom_is_not_overwritten(tmp_path, change, message, complete):
    options = {"num_training": 2, "num_test1": 0, "reduction": 16, "seed": 0}
    root = write_cephalogram_phantom(tmp_path / "set", **options)
    if not complete:
        (root / "PHANTOM.json").unlink()
    with pytest.raises(ValueError, match=message):
        write_cephalogram_phantom(root, **{**options, **change})


def test_foreign_folders_are_refused(tmp_path):
    (tmp_path / "RawImage").mkdir()
    with pytest.raises(ValueError, match=r"is not empty and holds no phantom; .* may be real data"):
        write_cephalogram_phantom(tmp_path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ValueError, match="is a file, expected a folder"):
        write_cephalogram_phantom(file)


def test_unreadable_marks_are_errors(tmp_path):
    root = write_cephalogram_phantom(tmp_path / "set", 1, 0, reduction=16)
    for text, message in (("{", "not readable JSON"), (json.dumps([1]), "should hold a JSON object, got list")):
        (root / "PHANTOM.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            isbi2015_datalist(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_training": 151}, "num_training must be 0 to 150.* got 151"),
        ({"num_test1": -1}, "num_test1 must be 0 to 150.* got -1"),
        ({"num_test2": 101}, "num_test2 must be 0 to 100.* got 101"),
        ({"num_training": 0, "num_test1": 0}, "nothing to write"),
        ({"reader_sd_mm": -0.1}, "reader_sd_mm must not be negative"),
    ],
)
def test_options_out_of_range(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_cephalogram_phantom(tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()
