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
"""The phantom chest film: truth of its landmarks, variation, and its folder in the layout of GU2Net's chest films."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter1d, map_coordinates

from monai_landmarks.data.datasets.chest_xray import CHEST_XRAY_LANDMARKS, chest_xray_datalist
from monai_landmarks.data.phantoms import is_phantom
from monai_landmarks.data.phantoms.chest_scene import lung_outline
from monai_landmarks.data.phantoms.chest_xray import _build, _landmarks, chest_xray_phantom, write_chest_xray_phantom
from monai_landmarks.data.phantoms.drawing import Film

OUTWARD = {"top": (0, -1), "bottom": (0, 1), "lateral": (1, 0)}


@pytest.fixture(scope="session")
def chest_phantom(tmp_path_factory) -> Path:
    return write_chest_xray_phantom(tmp_path_factory.mktemp("chest") / "set", 3, 1, 2, seed=7, reduction=16)


@pytest.fixture(scope="module")
def still_films() -> list[tuple[np.ndarray, np.ndarray]]:
    return [chest_xray_phantom(seed, 4, noise=0) for seed in range(6)]


@pytest.mark.parametrize("seed", range(5))
def test_landmark_is_the_extreme_point_of_the_lung_field_as_it_is_drawn(seed):
    """Oracle: the first and last row and column of pixels that the drawn outline covers."""
    size_mm, place = _build(np.random.default_rng(seed).spawn(1)[0])
    _, points = chest_xray_phantom(seed, reduction=8)
    points = dict(zip(CHEST_XRAY_LANDMARKS, points * size_mm, strict=True))
    film = Film(size_mm, (int(size_mm[0]), int(size_mm[1])), 1.0, origin_pixel_mm=0.0)
    for side in ("right", "left"):
        covered = film.coverage(lung_outline(side, place)) > 1e-4
        rows, columns = (np.flatnonzero(covered.any(axis=axis)) for axis in (1, 0))
        outermost = columns[0] if side == "right" else columns[-1] + 1
        # A pixel of 1 mm may be touched at its far border.
        assert abs(points[f"{side}_lung_top"][1] - rows[0] - 0.5) <= 0.6
        assert abs(points[f"{side}_lung_bottom"][1] - rows[-1] - 0.5) <= 0.6
        assert abs(points[f"{side}_lung_lateral"][0] - outermost) <= 1.0
        for name in ("top", "bottom", "lateral"):
            x, y = np.floor(points[f"{side}_lung_{name}"]).astype(int)
            assert covered[y - 1 : y + 2, x - 1 : x + 2].any()


@pytest.mark.parametrize("name", [name for name in CHEST_XRAY_LANDMARKS if not name.endswith("bottom")])
def test_landmark_lies_on_the_edge_seen_in_the_film(still_films, name):
    """Going outwards through the landmark, the film brightens most steeply at the landmark itself."""
    along = np.arange(-4, 4.01, 0.1)
    direction = np.array(OUTWARD[name.split("_")[-1]]) * ((-1, 1) if name.startswith("right") else (1, 1))
    found = []
    for image, points in still_films:
        index = points[CHEST_XRAY_LANDMARKS.index(name)] * image.shape[::-1] - 0.5 + along[:, None] * direction
        profile = map_coordinates(image.astype(float), [index[:, 1], index[:, 0]], order=1)
        found.append(along[np.argmax(gaussian_filter1d(np.gradient(profile), 3))])
    # Ribs, breasts and shoulder blades cross the border, so single films may be a pixel (0.5 mm) or two off.
    assert abs(np.median(found)) <= 0.6
    assert np.abs(found).max() <= 2.0


@pytest.mark.parametrize("side", ["right", "left"])
def test_lowest_point_is_the_tip_of_the_dark_angle(still_films, side):
    """Above the point the film is darker than on both sides of it, below it is not."""
    for image, points in still_films:
        x, y = points[CHEST_XRAY_LANDMARKS.index(f"{side}_lung_bottom")] * image.shape[::-1] - 0.5
        inward = 1 if side == "right" else -1
        contrast = []
        for rise in (20, -10):
            row = image[round(y - rise)].astype(float)
            near = row[round(x) - 5 : round(x) + 6].min()
            contrast.append(row[round(x + 30 * inward)] - near)
        assert contrast[0] > 12
        assert contrast[0] > 2 * contrast[1]


def test_right_lung_lies_at_the_left_of_the_picture(still_films):
    for image, points in still_films:
        right, left = points[:3], points[3:]
        assert right[:, 0].max() < left[:, 0].min()
        for top, bottom, lateral in (right, left):
            assert top[1] < lateral[1] < bottom[1] + 1e-9
        assert right[2, 0] == right[:, 0].min()
        assert left[2, 0] == left[:, 0].max()
        # The heart is brighter than the lungs beside it.
        center = (right[2] + left[2]) / 2 * image.shape[::-1]
        width = image.shape[1]
        row = image[round(center[1]) - 5 : round(center[1]) + 5].mean(axis=0)
        assert row[round(center[0])] > row[round(center[0] - 0.22 * width)]


def test_films_and_chests_differ():
    bodies = [_build(np.random.default_rng(seed)) for seed in range(60)]
    points = np.stack([_landmarks(place) / size_mm for size_mm, place in bodies])
    assert len({size_mm for size_mm, _ in bodies}) > 30
    assert points.min() > 0.01
    assert points.max() < 0.99
    # A guess by the mean is some 35 pixels of 512 off.
    spread = 512 * np.linalg.norm(points - points.mean(axis=0), axis=-1).mean(axis=0)
    assert ((spread > 15) & (spread < 60)).all()


def test_without_variation_the_chest_is_nearly_symmetric():
    _, points = chest_xray_phantom(3, reduction=32, shape=0, rotation_deg=0, scale=0)
    assert points[0, 1] == pytest.approx(points[3, 1])
    assert points[1, 1] < points[4, 1]  # the liver lifts the right dome and its angle


def test_same_seed_same_chest_at_every_size():
    fine, coarse = (chest_xray_phantom(5, reduction=k, noise=0) for k in (4, 8))
    again = chest_xray_phantom(5, reduction=4, noise=0)
    np.testing.assert_array_equal(fine[0], again[0])
    np.testing.assert_allclose(fine[1], coarse[1])
    assert np.abs(fine[1] - chest_xray_phantom(6, reduction=4)[1]).min() > 1e-4
    height, width = coarse[0].shape
    reduced = fine[0].astype(float).reshape(height, 2, width, 2).mean(axis=(1, 3))
    # Around the number and the borders, which are stamped on whole pixels.
    assert np.abs(reduced - coarse[0])[30:-15, 15:-15].mean() < 1.0


def test_odd_reductions_keep_the_points_on_the_picture():
    """A film whose size is no multiple of the pixel is cut or filled up at its right and lower border."""
    image, points = chest_xray_phantom(5, reduction=7)
    exact, reference = chest_xray_phantom(5, reduction=8)
    mm = points * image.shape[::-1] * 7 * 0.125
    np.testing.assert_allclose(mm, reference * exact.shape[::-1] * 8 * 0.125)


@pytest.mark.parametrize("reduction", [0, -2, 2.5])
def test_chest_reduction_must_be_a_positive_integer(tmp_path, reduction):
    for call in (
        lambda: chest_xray_phantom(0, reduction=reduction),
        lambda: write_chest_xray_phantom(tmp_path, reduction=reduction),
    ):
        with pytest.raises(ValueError, match=f"reduction must be a positive integer.* got {reduction}"):
            call()


def test_the_real_chest_sets_reader_reads_it(chest_phantom):
    numbers = {"train": (1, 2, 3), "validation": (196,), "test": (230, 231)}
    for section, expected in numbers.items():
        entries = chest_xray_datalist(chest_phantom, section)
        assert [entry["case"] for entry in entries] == [f"CHNCXR_{number:04d}_0" for number in expected]
        for entry in entries:
            size = Image.open(entry["image"]).size
            assert entry["pixel_size"] == (512 / size[0], 512 / size[1])
            image, points = chest_xray_phantom(np.random.default_rng([7, int(entry["case"][7:11])]), reduction=16)
            np.testing.assert_array_equal(np.asarray(Image.open(entry["image"])), image)
            np.testing.assert_allclose(entry["landmarks"], 512 * points - 0.5, atol=512e-6)
    assert len(chest_xray_datalist(chest_phantom)) == 6


def test_chest_layout_is_the_published_one(chest_phantom):
    files = {str(path.relative_to(chest_phantom)) for path in chest_phantom.rglob("*") if path.is_file()}
    cases = [f"CHNCXR_{number:04d}_0" for number in (1, 2, 3, 196, 230, 231)]
    assert files == {
        "PHANTOM.txt",
        "PHANTOM.json",
        *(f"pngs/{case}.png" for case in cases),
        *(f"labels/{case}.txt" for case in cases),
    }
    first, *rows = (chest_phantom / "labels" / "CHNCXR_0001_0.txt").read_text().splitlines()
    assert first == "6"
    assert all(0 <= float(cell) <= 1 for row in rows for cell in row.split(" "))


def test_chest_phantom_says_that_it_is_one(chest_phantom):
    assert (chest_phantom / "PHANTOM.txt").read_text().startswith("This is a phantom.")
    assert is_phantom(chest_phantom)


def test_chest_films_do_not_depend_on_how_many_there_are(chest_phantom, tmp_path):
    fewer = write_chest_xray_phantom(tmp_path / "fewer", 1, 0, 1, seed=7, reduction=16)
    for name in ("pngs/CHNCXR_0001_0.png", "labels/CHNCXR_0230_0.txt", "pngs/CHNCXR_0230_0.png"):
        assert (fewer / name).read_bytes() == (chest_phantom / name).read_bytes()


def test_complete_chest_folder_is_used_again_and_an_interrupted_one_completed(tmp_path):
    options = {"num_train": 2, "num_validation": 0, "num_test": 1, "reduction": 32}
    whole = write_chest_xray_phantom(tmp_path / "whole", **options)
    cut = write_chest_xray_phantom(tmp_path / "cut", **options)
    before = {path: path.stat().st_mtime_ns for path in cut.rglob("*.*")}
    write_chest_xray_phantom(cut, **options)
    assert {path: path.stat().st_mtime_ns for path in cut.rglob("*.*")} == before
    for name in ("PHANTOM.json", "labels/CHNCXR_0002_0.txt", "pngs/CHNCXR_0230_0.png", "labels/CHNCXR_0230_0.txt"):
        (cut / name).unlink()
    with pytest.raises(FileNotFoundError, match="incomplete: its writing was interrupted"):
        chest_xray_datalist(cut)
    write_chest_xray_phantom(cut, **options)
    assert (cut / "pngs/CHNCXR_0001_0.png").stat().st_mtime_ns == before[cut / "pngs/CHNCXR_0001_0.png"]
    for path in whole.rglob("*.*"):
        assert (cut / path.relative_to(whole)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_train": 196}, "num_train must be 0 to 195.* got 196"),
        ({"num_validation": 35}, "num_validation must be 0 to 34.* got 35"),
        ({"num_test": -1}, "num_test must be 0 to 50.* got -1"),
        ({"num_train": 0, "num_validation": 0, "num_test": 0}, "nothing to write"),
    ],
)
def test_chest_options_out_of_range(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_chest_xray_phantom(tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


def test_another_chest_phantom_and_foreign_folders_are_not_overwritten(tmp_path):
    root = write_chest_xray_phantom(tmp_path / "set", 1, 0, 0, reduction=32)
    with pytest.raises(ValueError, match="seed is 0, asked was 1"):
        write_chest_xray_phantom(root, 1, 0, 0, seed=1, reduction=32)
    (tmp_path / "pngs").mkdir()
    with pytest.raises(ValueError, match="may be real data"):
        write_chest_xray_phantom(tmp_path, 1, 0, 0, reduction=32)
