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
"""The lumbar MR phantom: geometry and contrast like the real volumes, and its folder."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy.ndimage import map_coordinates

from monai_landmarks.data.datasets.lumbar_mr import lumbar_mr_datalist
from monai_landmarks.data.datasets.phantom_marker import is_phantom
from monai_landmarks.data.phantoms.lumbar_mr import _SIZE, NAMES, _draw_pose, lumbar_mr_phantom, write_lumbar_mr_phantom
from monai_landmarks.data.phantoms.spine import build_spine

REAL_MEAN = np.array(
    [[38.8, 121.6, 38.0], [72.5, 111.9, 37.9], [108.2, 102.8, 37.9], [145.2, 98.7, 38.6], [181.2, 102.8, 40.1]]
)
"""Mean of the real centroids, mm."""


@pytest.fixture(scope="module")
def phantom(tmp_path_factory) -> Path:
    return write_lumbar_mr_phantom(tmp_path_factory.mktemp("lumbar") / "set", 2, seed=5, reduction=4)


def points_of(seed: int) -> np.ndarray:
    body, pose_rng = np.random.default_rng(seed).spawn(4)[:2]
    spine = build_spine(body, size=_SIZE)
    from_patient = np.linalg.inv(_draw_pose(spine, pose_rng))
    return np.stack([apply_affine(from_patient, spine.frame(name)[:3, 3]) for name in NAMES])


def read_centroids(root: Path) -> dict[str, np.ndarray]:
    with open(root / "centroids_mm.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["case", *(f"L{n}_{axis}" for n in range(1, 6) for axis in "ijk")]
    return {row.pop("case"): np.array(list(row.values()), float).reshape(5, 3) for row in rows}


def test_size_and_frame():
    volume, affine, points = lumbar_mr_phantom(1)
    assert volume.shape == (150, 150, 52)
    assert volume.dtype == np.uint8
    np.testing.assert_array_equal(affine, np.diag([1.5, 1.5, 1.5, 1]))
    assert points.shape == (5, 3)
    assert lumbar_mr_phantom(1, reduction=4)[0].shape == (38, 38, 13)


def test_geometry_is_that_of_the_real_volumes():
    points = np.stack([points_of(seed) for seed in range(60)])
    np.testing.assert_allclose(lumbar_mr_phantom(0, reduction=12)[2], points[0])
    np.testing.assert_allclose(points.mean(axis=0), REAL_MEAN, atol=6)
    distances = np.linalg.norm(np.diff(points, axis=1), axis=-1).mean(axis=0)
    np.testing.assert_allclose(distances, (35.2, 36.9, 37.5, 36.6), rtol=0.04)
    assert points.min() >= 12 - 1e-9
    assert (points <= np.array([149, 149, 51]) * 1.5 - 12 + 1e-9).all()
    guess = np.linalg.norm(points - points.mean(axis=0), axis=-1).mean()
    assert 10 < guess < 19, "a guess by the mean misses the real ones by 14.4 mm"


def test_same_person_at_every_size():
    fine, coarse = (lumbar_mr_phantom(3, reduction=k, noise=0) for k in (1, 3))
    np.testing.assert_array_equal(fine[2], coarse[2])
    values = [
        map_coordinates(volume.astype(float), (points / affine[0, 0]).T, order=1)
        for volume, affine, points in (fine, coarse)
    ]
    np.testing.assert_allclose(values[0], values[1], rtol=0.1)
    np.testing.assert_array_equal(lumbar_mr_phantom(3, reduction=3)[0], lumbar_mr_phantom(3, reduction=3)[0])


def test_contrast():
    """Fluid behind the bodies is the brightest, marrow grey, the fat under the skin and the air dark."""
    for seed in range(3):
        volume, _, points = lumbar_mr_phantom(seed, noise=0)
        at = points[2] / 1.5
        row = volume[round(at[0]), :, round(at[2])].astype(float)
        marrow, fluid = row[round(at[1])], row[round(at[1]) : round(at[1]) + 22].max()
        assert 35 < marrow < 160
        assert fluid > 1.4 * marrow
        assert row[:5].mean() < 0.5 * marrow


def test_folder(phantom):
    assert is_phantom(phantom)
    centroids = read_centroids(phantom)
    assert sorted(path.name for path in (phantom / "images").iterdir()) == ["01.nii.gz", "02.nii.gz"]
    for case, points in centroids.items():
        image = nib.load(phantom / "images" / f"{case}.nii.gz")
        volume, affine, truth = lumbar_mr_phantom(np.random.default_rng([5, int(case)]), reduction=4)
        np.testing.assert_array_equal(np.asarray(image.dataobj), volume)
        np.testing.assert_allclose(image.affine, affine)
        np.testing.assert_allclose(points, truth, atol=5.1e-4)


def test_the_data_sets_reader_reads_it(tmp_path):
    root = write_lumbar_mr_phantom(tmp_path / "set", 6, seed=5, reduction=12)
    entries = lumbar_mr_datalist(root, num_validation=1)
    centroids = read_centroids(root)
    assert len(entries) >= 3
    for entry in entries:
        np.testing.assert_allclose(np.asarray(entry["landmarks"]), centroids[entry["case"]])


def test_folder_is_used_again_or_refused(phantom):
    before = {path: path.stat().st_mtime_ns for path in phantom.rglob("*")}
    assert write_lumbar_mr_phantom(phantom, 2, seed=5, reduction=4) == phantom
    assert before == {path: path.stat().st_mtime_ns for path in phantom.rglob("*")}
    with pytest.raises(ValueError, match="seed is 5, asked was 6"):
        write_lumbar_mr_phantom(phantom, 2, seed=6, reduction=4)


@pytest.mark.parametrize(("options", "match"), [({"num_cases": 0}, "num_cases"), ({"reduction": 1.5}, "reduction")])
def test_numbers_out_of_range(tmp_path, options, match):
    with pytest.raises(ValueError, match=match):
        write_lumbar_mr_phantom(tmp_path / "set", **options)
