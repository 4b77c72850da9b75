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
"""The phantom hand film: truth of its landmarks, its likeness to real hands, and its folder for the real set's reader."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import map_coordinates

from monai_landmarks.data.datasets.hand_xray import HAND_XRAY_LANDMARKS, hand_xray_datalist, hand_xray_points
from monai_landmarks.data.phantoms import is_phantom
from monai_landmarks.data.phantoms.hand_xray import _make, hand_xray_phantom, write_hand_xray_phantom

INDEX = {name: index for index, name in enumerate(HAND_XRAY_LANDMARKS)}
STILL = {"posture": 0.0, "rotation_deg": 0.0, "noise": 0.0}


def truth_of(seed: int) -> np.ndarray:
    return _make(seed)[0].points


@pytest.fixture(scope="module")
def films() -> list[tuple[np.ndarray, np.ndarray]]:
    return [hand_xray_phantom(seed, 4, **STILL) for seed in range(7)]


@pytest.fixture(scope="session")
def phantom(tmp_path_factory) -> Path:
    return write_hand_xray_phantom(tmp_path_factory.mktemp("hands") / "set", 3, 2, 2, reduction=8, seed=7)


# --- truth ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "outward"),
    [
        ("thumb_distal_phalanx_tip", (0.47, -0.88)),
        ("index_distal_phalanx_tip", (0.16, -1)),
        ("middle_distal_phalanx_tip", (0, -1)),
        ("ring_distal_phalanx_tip", (-0.14, -1)),
        ("little_distal_phalanx_tip", (-0.36, -1)),
        ("index_distal_phalanx_base", (-0.16, 1)),
        ("middle_middle_phalanx_base", (0, 1)),
        ("middle_proximal_phalanx_base", (0, 1)),
        ("metacarpal_1_base", (-0.79, 0.3)),
        ("ulnar_styloid", (-0.2, -1)),
        ("radial_styloid", (0.2, -1)),
        ("ulna_ulnar_corner", (-1, 0)),
        ("ulna_radial_corner", (1, 0)),
        ("radius_ulnar_corner", (-1, 0)),
        ("radius_radial_corner", (1, 0)),
        ("triquetrum_proximal", (0, 1)),
        ("lunate_proximal", (0, 1)),
        ("scaphoid_proximal", (0, 1)),
        ("trapezium_proximal", (0, 1)),
    ],
)
def test_landmark_lies_on_the_border_of_its_bone(films, name: str, outward: tuple[float, float]) -> None:
    """Going out of the bone through the landmark, the film darkens most steeply at the landmark itself."""
    along = np.arange(-2, 2.001, 0.05)
    direction = np.array(outward) / np.linalg.norm(outward)
    found = []
    for image, points in films:
        x, y = (points[INDEX[name]] + along[:, None] * direction / 0.4).T
        profile = map_coordinates(image.astype(float), [y, x], order=1)
        found.append(along[np.argmin(np.convolve(np.gradient(profile), np.ones(5), "same"))])
    # The film's pixels are 0.4 mm. A neighbouring bone may lie over one film's border, not over those of most.
    assert abs(np.median(found)) <= 0.2
    assert np.sort(np.abs(found))[-2] <= 0.45


@pytest.mark.parametrize("finger", ["index", "middle", "ring", "little"])
def test_bones_are_bright_between_their_ends_and_joints_darker(films, finger: str) -> None:
    parts = ("proximal_phalanx_base", "middle_phalanx_base", "distal_phalanx_base", "distal_phalanx_tip")
    for image, points in films:
        ends = np.stack([points[INDEX[f"{finger}_{part}"]] for part in parts])
        lines = ends[:-1, None] + np.linspace(0.3, 0.7, 9)[:, None] * np.diff(ends, axis=0)[:, None]
        shafts = map_coordinates(image.astype(float), lines.reshape(-1, 2).T[::-1], order=1)
        # Half a millimetre below a bone's base lies the gap of the joint.
        gaps = ends[1:-1] - 0.6 / 0.4 * np.diff(ends, axis=0)[1:] / np.linalg.norm(
            np.diff(ends, axis=0)[1:], axis=-1, keepdims=True
        )
        assert shafts.min() > map_coordinates(image.astype(float), gaps.T[::-1], order=1).max()


def test_same_seed_same_film() -> None:
    first, second, other = (hand_xray_phantom(seed, 16) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert first[0].shape != other[0].shape or (first[0] != other[0]).any()


def test_same_hand_at_every_size() -> None:
    (fine, points), (coarse, small) = (hand_xray_phantom(5, k, noise=0) for k in (4, 8))
    np.testing.assert_allclose((points + 0.5) / 2, small + 0.5)
    assert coarse.shape == tuple(-(-side // 2) for side in fine.shape)
    height, width = fine.shape[0] // 2, fine.shape[1] // 2
    reduced = fine[: 2 * height, : 2 * width].astype(float).reshape(height, 2, width, 2).mean(axis=(1, 3))
    # Labels are stamped on whole pixels; elsewhere only the response of the film differs, which is not linear.
    assert np.median(np.abs(reduced - coarse[:height, :width])) < 1.5


def test_full_size() -> None:
    image, points = hand_xray_phantom(1, reduction=1)
    assert 900 < image.shape[1] < image.shape[0] < 2700
    np.testing.assert_allclose((points + 0.5) / 8 - 0.5, hand_xray_phantom(1, reduction=8)[1])


def test_noise_does_not_move_the_hand() -> None:
    np.testing.assert_array_equal(hand_xray_phantom(2, 16, noise=0)[1], hand_xray_phantom(2, 16)[1])


@pytest.mark.parametrize("seed", range(4))
def test_points_lie_on_the_film_and_labels_beside_the_hand(seed: int) -> None:
    image, points = hand_xray_phantom(seed, 8)
    assert (points > 1).all()
    assert (points < np.array(image.shape[::-1]) - 2).all()
    values = image[tuple(np.rint(points).astype(int).T[::-1])]
    assert values.min() > 20
    assert values.max() < 255


def test_a_film_is_cheap() -> None:
    start = time.process_time()
    for seed in range(3):
        hand_xray_phantom(seed, 4)
    assert (time.process_time() - start) / 3 < 0.3


# --- likeness ---------------------------------------------------------------------------------------------------------


def wrist_mm(points: np.ndarray) -> np.ndarray:
    return points * (50 / np.linalg.norm(points[:, 1] - points[:, 5], axis=-1))[:, None, None]


@pytest.mark.real_data
def test_phantom_hands_have_the_proportions_of_real_ones(real_data: Callable[[str], Path]) -> None:
    real = wrist_mm(hand_xray_points(real_data("hand_xrays"))[1])
    made = wrist_mm(np.stack([truth_of(seed) for seed in range(60)]))
    shapes = [points - points.mean(axis=1, keepdims=True) for points in (real, made)]
    distance = np.linalg.norm(shapes[0].mean(axis=0) - shapes[1].mean(axis=0), axis=-1)
    assert distance.mean() < 4
    assert distance.max() < 10
    # What a guess by the mean shape misses by: 8.3 mm on the real table.
    spread = [np.linalg.norm(shape - shape.mean(axis=0), axis=-1).mean() for shape in shapes]
    assert 0.7 < spread[1] / spread[0] < 1.3
    ratios = [np.linalg.norm(p[:, 0] - p[:, 4], axis=-1).mean() / 50 for p in (real, made)]
    assert ratios[1] == pytest.approx(ratios[0], abs=0.05)


def test_hands_differ_in_age_size_and_film() -> None:
    hands = [_make(seed) for seed in range(60)]
    sizes = np.array([hand.size for hand, _, _ in hands])
    pieces = np.array([len(hand.tubes) for hand, _, _ in hands])
    assert sizes.min() < 0.75
    assert sizes.max() > 0.95
    # Open growth plates part the nineteen long bones of the fingers; there are two of the forearm.
    assert pieces.min() == 19 + 2
    assert pieces.max() == 2 * 19 + 2
    assert np.corrcoef(sizes, pieces)[0, 1] < -0.7
    assert len({size for _, size, _ in hands}) == 60


# --- the folder -------------------------------------------------------------------------------------------------------


def test_the_real_sets_reader_reads_it(phantom: Path) -> None:
    sections = {"train": ["3143", "3144", "3145"], "validation": ["5395", "5396"], "test": ["5577", "5578"]}
    for section, cases in sections.items():
        assert [entry["case"] for entry in hand_xray_datalist(phantom, section)] == cases
    assert len(hand_xray_datalist(phantom, None, "all")) == 7
    tests = [entry["case"] for fold in ("cv1", "cv2", "cv3") for entry in hand_xray_datalist(phantom, "test", fold)]
    assert sorted(tests) == sorted(case for cases in sections.values() for case in cases)
    assert len(hand_xray_datalist(phantom, "train", "cv1", num_validation=1)) == 3


def test_read_points_are_the_true_ones(phantom: Path) -> None:
    (entry, *_) = hand_xray_datalist(phantom, "test")
    image, points = hand_xray_phantom(np.random.default_rng([7, 5577]), reduction=8)
    np.testing.assert_allclose(entry["landmarks"] / entry["pixel_size"][0], points, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(Image.open(entry["image"])), image)


def test_films_do_not_depend_on_how_many_there_are(phantom: Path, tmp_path: Path) -> None:
    fewer = write_hand_xray_phantom(tmp_path / "fewer", 2, 0, 0, reduction=8, seed=7)
    assert (fewer / "jpg/3144.png").read_bytes() == (phantom / "jpg/3144.png").read_bytes()
    assert (fewer / "all.csv").read_text().splitlines() == (phantom / "all.csv").read_text().splitlines()[:2]
    with pytest.raises(FileNotFoundError, match="was written without this section"):
        hand_xray_datalist(fewer, "test")


def test_it_says_that_it_is_a_phantom(phantom: Path) -> None:
    assert (phantom / "PHANTOM.txt").read_text().startswith("This is a phantom.")
    assert is_phantom(phantom)


def test_complete_folder_is_used_again(phantom: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in phantom.rglob("*.*")}
    assert write_hand_xray_phantom(phantom, 3, 2, 2, reduction=8, seed=7) == phantom
    assert {path: path.stat().st_mtime_ns for path in phantom.rglob("*.*")} == before


def test_interrupted_folder_is_refused_by_the_reader_and_completed_by_the_writer(tmp_path: Path) -> None:
    whole, cut = (write_hand_xray_phantom(tmp_path / name, 3, 0, 0, reduction=16) for name in ("whole", "cut"))
    for name in ("PHANTOM.json", "jpg/3145.png", "all.csv", "setup/cv/set2/test.txt"):
        (cut / name).unlink()
    with pytest.raises(FileNotFoundError, match="incomplete: its writing was interrupted"):
        hand_xray_datalist(cut)
    kept = (cut / "jpg/3143.png").stat().st_mtime_ns
    write_hand_xray_phantom(cut, 3, 0, 0, reduction=16)
    assert (cut / "jpg/3143.png").stat().st_mtime_ns == kept
    for path in whole.rglob("*.*"):
        assert (cut / path.relative_to(whole)).read_bytes() == path.read_bytes()


def test_another_phantom_and_foreign_folders_are_not_overwritten(phantom: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed is 7, asked was 8"):
        write_hand_xray_phantom(phantom, 3, 2, 2, reduction=8, seed=8)
    (tmp_path / "jpg").mkdir()
    with pytest.raises(ValueError, match="is not empty and holds no phantom"):
        write_hand_xray_phantom(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_train": 551}, "num_train must be 0 to 550.* got 551"),
        ({"num_validation": -1}, "num_validation must be 0 to 59.* got -1"),
        ({"num_train": 0, "num_validation": 0, "num_test": 0}, "nothing to write"),
        ({"reduction": 0}, "reduction must be a positive integer"),
        ({"reduction": 2.5}, "reduction must be a positive integer"),
    ],
)
def test_options_out_of_range(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_hand_xray_phantom(tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()
