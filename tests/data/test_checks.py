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
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from monai_landmarks.data import Landmarks, check_landmarks, read_landmarks
from monai_landmarks.geometry import LandmarkError

FILM = (968, 1200)
VOLUME = (60, 90, 40)
OBLIQUE = np.array([[0.0, -1.5, 0.0, 140.0], [0.9, 0.0, 0.1, -20.0], [0.0, 0.1, 2.0, 300.0], [0.0, 0.0, 0.0, 1.0]])


def marks_at(points: np.ndarray) -> Landmarks:
    return Landmarks(points, [f"p{i}" for i in range(len(points))])


def spread(shape: tuple[int, ...], count: int = 40) -> np.ndarray:
    """Voxel indices all over an image, the far corner included."""
    corners = np.array([[0.0] * len(shape), [size - 1.0 for size in shape]])
    return np.concatenate([np.random.default_rng(3).uniform(0, np.array(shape) - 1, (count, len(shape))), corners])


def to_world(index: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return index @ affine[:-1, :-1].T + affine[:-1, -1]


def test_fitting_points_give_nothing() -> None:
    assert check_landmarks(marks_at(to_world(spread(VOLUME), OBLIQUE)), OBLIQUE, VOLUME) == []
    assert check_landmarks(marks_at(np.full((3, 3), np.nan)), OBLIQUE, VOLUME) == []


def test_lps_taken_for_ras() -> None:
    findings = check_landmarks(marks_at(to_world(spread(VOLUME), OBLIQUE) * [-1, -1, 1]), OBLIQUE, VOLUME)
    assert "42 of 42 landmarks lie outside the image of shape (60, 90, 40), none after negating" in findings[0]
    assert "space='LPS'" in findings[0]


def test_row_column_in_a_film() -> None:
    affine = np.diag([0.2, 0.2, 1.0])
    findings = check_landmarks(marks_at(to_world(spread(FILM)[:, ::-1], affine)), affine, FILM)
    assert "none after exchanging the coordinates: your points look like (row, column)" in findings[0]
    assert "order='ij'" in findings[0]
    assert len(findings) == 1


@pytest.mark.parametrize(("order", "expected"), [((2, 1, 0), "(z, y, x)"), ((1, 2, 0), "order (2, 0, 1)")])
def test_axis_orders_in_a_volume(order: tuple[int, ...], expected: str) -> None:
    points = to_world(spread(VOLUME)[:, list(order)], OBLIQUE)
    assert any(expected in finding for finding in check_landmarks(marks_at(points), OBLIQUE, VOLUME))


def test_voxels_taken_for_millimetres() -> None:
    assert "space='voxel'" in check_landmarks(marks_at(spread(VOLUME)), OBLIQUE, VOLUME)[0]


def test_millimetres_taken_for_voxels() -> None:
    world = to_world(spread(VOLUME), OBLIQUE)
    assert (
        "taking the numbers as millimetres" in check_landmarks(marks_at(to_world(world, OBLIQUE)), OBLIQUE, VOLUME)[0]
    )


def test_millimetres_from_the_corner_taken_for_world() -> None:
    sizes = np.linalg.norm(OBLIQUE[:3, :3], axis=0)
    findings = check_landmarks(marks_at(spread(VOLUME) * sizes), OBLIQUE, VOLUME)
    assert any("space='voxel_mm'" in finding for finding in findings)


@pytest.mark.parametrize("shape", [FILM, VOLUME])
def test_voxels_counted_from_one(shape: tuple[int, ...]) -> None:
    affine = np.eye(len(shape) + 1) if len(shape) == 2 else OBLIQUE
    points = to_world(np.round(spread(shape)) + 1, affine)
    assert "read it with origin=1" in check_landmarks(marks_at(points), affine, shape)[0]


def test_points_of_the_unreduced_film() -> None:
    findings = check_landmarks(marks_at(spread(FILM) * 2), np.eye(3), FILM)
    assert "multiplying the voxel indices by 0.5" in findings[0]


def test_film_plane_given_as_ras() -> None:
    assert "space='RAS'" in check_landmarks(marks_at(-spread(FILM)), np.eye(3), FILM)[0]


def test_unexplained_points_say_where_they_are() -> None:
    findings = check_landmarks(marks_at(np.array([[5000.0, -300.0], [-5000.0, 7000.0]])), np.eye(3), FILM)
    assert len(findings) == 1
    assert "no usual mistake explains it" in findings[0]
    assert "from [-5000.0, -300.0] to [5000.0, 7000.0]" in findings[0]


def test_same_spot_is_reported_though_inside() -> None:
    findings = check_landmarks(marks_at(np.array([[0.0, 0.0], [5.0, 6.0], [0.0, 0.0]])), np.eye(3), FILM)
    assert len(findings) == 1
    assert "2 landmarks stand on the same spot (0.0, 0.0): 'p0', 'p2'" in findings[0]
    assert "missing_value" in findings[0]


def test_dimension_mismatch() -> None:
    with pytest.raises(LandmarkError, match="2D landmarks and an image of shape"):
        check_landmarks(marks_at(spread(FILM)), np.eye(4), VOLUME)


@pytest.mark.real_data
def test_a_mouse_scan_read_with_the_wrong_signs(real_data: Callable[[str], Path]) -> None:
    nib = pytest.importorskip("nibabel")
    folder = real_data("mouse_skull_ct")
    for name in ("A_J_", "C57BL6_J_"):
        image = nib.load(folder / "scans" / f"{name}.nii.gz")
        file = folder / "scans_landmarks" / f"{name}.mrk.json"
        assert check_landmarks(read_landmarks(file), image.affine, image.shape) == []
        wrong = check_landmarks(read_landmarks(file, space="RAS"), image.affine, image.shape)
        assert "LPS points were taken for RAS" in wrong[0]
