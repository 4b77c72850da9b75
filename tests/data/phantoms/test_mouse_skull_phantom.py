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
"""The phantom of a mouse's head: truth of its landmarks in the picture, variation, and its folder."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_landmarks.data.datasets.mouse_skull_ct import mouse_skull_ct_datalist, mouse_strain
from monai_landmarks.data.datasets.phantom_marker import is_phantom
from monai_landmarks.data.phantoms.mouse_skull import LANDMARKS, Bending, BentCanvas
from monai_landmarks.data.phantoms.mouse_skull_ct import AFFINE, SHAPE, mouse_skull_phantom, write_mouse_skull_phantom


def to_index(world: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return np.linalg.solve(affine[:3, :3], (world - affine[:3, 3]).T).T


def bent(seed: int) -> np.ndarray:
    return Bending(np.random.default_rng(seed).standard_normal(9)).there(LANDMARKS)


@pytest.fixture(scope="module")
def full() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return mouse_skull_phantom(1, 1, noise=0.0)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory) -> Path:
    return write_mouse_skull_phantom(tmp_path_factory.mktemp("mice") / "set", 8, reduction=5, per_strain=2, seed=7)


@pytest.mark.parametrize(("k", "shape"), [(2, (59, 97, 53)), (3, (40, 65, 36)), (4, (30, 49, 27))])
def test_grid_of_reduced_volumes(k, shape):
    volume, affine, points = mouse_skull_phantom(0, k)
    assert (volume.shape, volume.dtype, points.shape) == (shape, np.uint8, (51, 3))
    # A coarse voxel stands for k fine ones along each axis: their corner is the same.
    corner = affine[:3, :3] @ np.full(3, -0.5) + affine[:3, 3]
    np.testing.assert_allclose(corner, AFFINE[:3, :3] @ np.full(3, -0.5) + AFFINE[:3, 3])


def test_same_seed_same_mouse():
    first, second, other = (mouse_skull_phantom(seed, 5) for seed in (3, 3, 4))
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)
    assert np.abs(first[2] - other[2]).max() > 0.1


def test_same_mouse_at_every_reduction(full):
    volume, _, points = mouse_skull_phantom(1, 2, noise=0.0)
    np.testing.assert_array_equal(points, full[2])
    blocks = full[0].astype(float).reshape(59, 2, 97, 2, 53, 2).mean(axis=(1, 3, 5))
    assert np.corrcoef(blocks.ravel(), volume.ravel())[0, 1] > 0.97


def test_bending_is_undone_exactly():
    for seed in range(20):
        bending = Bending(np.random.default_rng(seed).standard_normal(9))
        back = np.stack(bending.back(*bending.there(LANDMARKS).T), axis=-1)
        np.testing.assert_allclose(back, LANDMARKS, atol=1e-9)


def test_what_is_drawn_at_a_landmark_appears_where_the_points_say():
    bending = Bending(np.random.default_rng(5).standard_normal(9))
    affine = np.diag([0.15, 0.15, 0.15, 1.0])
    affine[0, 3] = -57.5 * 0.15
    for template, point in zip(LANDMARKS, bending.there(LANDMARKS), strict=True):
        canvas = BentCanvas(SHAPE, affine, 0.0, bending)
        canvas.ellipsoid(template, np.full(3, 0.6), 1.0)
        ball = np.argwhere(canvas.values > 0.0)
        weights = canvas.values[tuple(ball.T)]
        centre = (weights[:, None] * ball).sum(axis=0) / weights.sum() * 0.15 + affine[:3, 3]
        # The ball is bent too, which moves its centroid a little.
        assert np.linalg.norm(centre - point) < 0.04


def test_every_landmark_lies_in_bone(full):
    volume, affine, points = full
    index = np.rint(to_index(points, affine)).astype(int)
    assert (volume[tuple(index.T)] > 75).all()


@pytest.mark.parametrize("number", [47, 43, 10, 13])
def test_a_landmark_of_the_cheek_arch_is_the_middle_of_its_cross_section(full, number):
    volume, affine, points = full
    i, j, k = to_index(points[number - 1 : number], affine)[0]
    for row in (int(np.floor(j)), int(np.floor(j)) + 1):
        window = (slice(round(i) - 5, round(i) + 6), row, slice(round(k) - 5, round(k) + 6))
        weights = np.clip(volume[window].astype(float) - 20, 0, None)
        x, z = np.meshgrid(*(np.arange(-5, 6) + round(centre) for centre in (i, k)), indexing="ij")
        # The arch turns at the landmark, so its cross-sections move by up to a voxel from row to row.
        assert abs((weights * x).sum() / weights.sum() - i) < 1.3
        assert abs((weights * z).sum() / weights.sum() - k) < 1.3


@pytest.mark.parametrize("number", [14, 15, 16])
def test_a_landmark_of_the_braincase_lies_on_its_outside(full, number):
    volume, affine, points = full
    place = to_index(points[number - 1 : number], affine)[0]
    middle = to_index(points[[19, 24, 13, 49]], affine).mean(axis=0)
    outward = (place - middle) / np.linalg.norm(place - middle)
    along = np.arange(-12, 5)
    index = np.rint(place + along[:, None] * outward).astype(int)
    profile = volume[tuple(index.T)].astype(float)
    assert profile[:4].max() < 40
    assert profile[12] > 75
    assert profile[-2:].max() < 40


def test_template_is_mirror_symmetric():
    mirrored = LANDMARKS * (-1, 1, 1)
    distance = np.linalg.norm(LANDMARKS[:, None] - mirrored, axis=-1)
    assert distance.min(axis=1).max() < 1e-9
    assert (distance.diagonal() < 1e-9).sum() == 9


def test_mean_shape_misses_by_as_much_as_on_real_data():
    shapes = np.stack([bent(seed) for seed in range(120)])
    error = np.linalg.norm(shapes - shapes.mean(axis=0), axis=-1)
    assert error.mean() == pytest.approx(0.39, abs=0.05)
    variance = np.linalg.svd((shapes - shapes.mean(axis=0)).reshape(120, -1), compute_uv=False) ** 2
    # Printed by the real data: the first mode, size, has 54 % of the variance.
    assert 0.4 < variance[0] / variance.sum() < 0.8


def test_mice_of_a_strain_are_alike():
    shapes = np.stack([[mouse_skull_phantom(10 * s + m, 12, s)[2] for m in range(4)] for s in range(8)])
    within = np.linalg.norm(shapes - shapes.mean(axis=1, keepdims=True), axis=-1).mean()
    between = np.linalg.norm(shapes.mean(axis=1) - shapes.mean(axis=(0, 1)), axis=-1).mean()
    assert within < 0.8 * between


def test_shape_0_is_the_template():
    np.testing.assert_allclose(mouse_skull_phantom(5, 12, shape=0.0)[2], mouse_skull_phantom(6, 12, shape=0.0)[2])


def test_landmarks_lie_inside_the_grid():
    for seed in range(60):
        index = bent(seed) / 0.15 + (57.5, 0, 0)
        assert (index > 1).all()
        assert (index < np.array(SHAPE) - 2).all()


def test_the_reader_reads_it_back(phantom):
    entries = mouse_skull_ct_datalist(phantom, num_folds=4, num_validation=1)
    names = [f"PH{strain}_{mouse:02d}" for strain in "ABCD" for mouse in (1, 2)]
    assert [entry["case"] for entry in entries] == names
    for number, entry in enumerate(entries):
        strain, mouse = divmod(number, 2)
        sources = (np.random.default_rng([7, strain, mouse, 1]), np.random.default_rng([7, strain, 2]))
        volume, affine, points = mouse_skull_phantom(sources[0], 5, sources[1])
        np.testing.assert_allclose(entry["landmarks"], points, atol=1e-3)
        image = nib.load(entry["image"])
        np.testing.assert_array_equal(np.asarray(image.dataobj), volume)
        np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    assert is_phantom(phantom)


def test_strains_stay_in_one_fold(phantom):
    options = {"num_folds": 2, "num_validation": 1}
    test, training = (
        {mouse_strain(e["case"]) for e in mouse_skull_ct_datalist(phantom, p, **options)} for p in ("test", "training")
    )
    assert len(test) == len(training) == 2
    assert not test & training
    with (phantom / "cases.csv").open() as file:
        assert [row["strain_mesh"] for row in csv.DictReader(file)] == ["PHA"] * 2 + ["PHB"] * 2 + ["PHC"] * 2 + [
            "PHD"
        ] * 2


def test_complete_folder_is_used_again_and_an_interrupted_one_completed(phantom, tmp_path):
    root = write_mouse_skull_phantom(tmp_path / "set", 3, reduction=5, per_strain=2, seed=7)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.*")}
    write_mouse_skull_phantom(root, 3, reduction=5, per_strain=2, seed=7)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.*")} == before
    table = (root / "lm51_aligned_voxel.csv").read_text()
    # Nor do rows depend on how many there are.
    assert (phantom / "lm51_aligned_voxel.csv").read_text().startswith(table)
    for name in ("PHANTOM.json", "lm51_aligned_voxel.csv", "images_aligned/PHB_01.nii.gz"):
        (root / name).unlink()
    write_mouse_skull_phantom(root, 3, reduction=5, per_strain=2, seed=7)
    assert (root / "lm51_aligned_voxel.csv").read_text() == table
    kept = root / "images_aligned" / "PHA_01.nii.gz"
    assert kept.stat().st_mtime_ns == before[kept]
    assert len(mouse_skull_ct_datalist(root, num_folds=2, num_validation=1)) == 3


def test_another_phantom_is_not_overwritten(phantom):
    with pytest.raises(ValueError, match="reduction is 5, asked was 6"):
        write_mouse_skull_phantom(phantom, 8, reduction=6, per_strain=2, seed=7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_cases": 0}, "num_cases must be 1 to 26 strains of per_strain=3"),
        ({"num_cases": 79}, "got 79"),
        ({"per_strain": 0}, "per_strain=0"),
        ({"reduction": 0}, "reduction must be a positive integer"),
        ({"reduction": 1.5}, "reduction must be a positive integer"),
    ],
)
def test_options_out_of_range(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_mouse_skull_phantom(tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


@pytest.mark.real_data
def test_grid_and_template_are_like_the_real_ones(real_data):
    entries = mouse_skull_ct_datalist(real_data("mouse_skull_ct"))
    image = nib.load(entries[0]["image"])
    assert image.shape == SHAPE
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    mean = to_index(np.mean([entry["landmarks"] for entry in entries], axis=0), AFFINE)
    distance = 0.15 * np.linalg.norm(mean - (LANDMARKS / 0.15 + (57.5, 0, 0)), axis=-1)
    assert np.median(distance) < 0.25
    assert distance.max() < 1.0
