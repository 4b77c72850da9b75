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
"""Shapes rasterised in 3D: volume, place and edges against closed forms, on turned and anisotropic grids."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import center_of_mass

from monai_landmarks.data.phantoms.volume_drawing import Canvas, local_frame, rotation_matrix, scan_grid
from monai_landmarks.geometry import apply_affine

ORIENTATIONS = ("RAS", "LAS", "RPI", "LPS", "SAR", "PIL")


def volume_and_centre(canvas: Canvas) -> tuple[float, np.ndarray]:
    voxel = abs(np.linalg.det(canvas.affine[:3, :3]))
    centre = canvas.affine[:3, :3] @ center_of_mass(canvas.values) + canvas.affine[:3, 3]
    return float(canvas.values.sum() * voxel), centre


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_grid_has_the_asked_orientation_spacing_and_centre(orientation):
    shape, affine = scan_grid((3, -5, 7), (40, 60, 90), (1.0, 2.0, 3.0), orientation)
    assert "".join(nib.aff2axcodes(affine)) == orientation
    np.testing.assert_allclose(nib.affines.voxel_sizes(affine), (1, 2, 3))
    np.testing.assert_allclose(nib.affines.apply_affine(affine, (np.array(shape) - 1) / 2), (3, -5, 7))
    along = [{"R": 40, "A": 60, "S": 90, "L": 40, "P": 60, "I": 90}[letter] for letter in orientation]
    assert shape == tuple(round(extent / size) for extent, size in zip(along, (1, 2, 3), strict=True))


def test_oblique_grid_turns_about_its_centre():
    shape, affine = scan_grid((3, -5, 7), (40, 60, 90), (1.0, 2.0, 3.0), "LPS", (10, 20, 30))
    straight = scan_grid((3, -5, 7), (40, 60, 90), (1.0, 2.0, 3.0), "LPS")[1]
    np.testing.assert_allclose(affine[:3, :3], rotation_matrix((10, 20, 30)) @ straight[:3, :3])
    np.testing.assert_allclose(nib.affines.apply_affine(affine, (np.array(shape) - 1) / 2), (3, -5, 7))


@pytest.mark.parametrize("orientation", ["RAR", "XAS", "RA", "ras"])
def test_no_orientation(orientation):
    with pytest.raises(ValueError, match="one letter each"):
        scan_grid((0, 0, 0), (9, 9, 9), (1, 1, 1), orientation)


@pytest.mark.parametrize("spacing", [(1, 1), (1, 0, 1), (1, -1, 1)])
def test_no_spacing(spacing):
    with pytest.raises(ValueError, match="three positive voxel sizes"):
        scan_grid((0, 0, 0), (9, 9, 9), spacing)


def test_rotation_about_z_takes_x_to_y():
    np.testing.assert_allclose(rotation_matrix((0, 0, 90)) @ (1, 0, 0), (0, 1, 0), atol=1e-12)
    np.testing.assert_allclose(rotation_matrix((90, 0, 0)) @ (0, 1, 0), (0, 0, 1), atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(
    centre=st.tuples(*[st.floats(-4, 4)] * 3),
    radii=st.tuples(*[st.floats(6, 12)] * 3),
    angles=st.tuples(*[st.floats(-60, 60)] * 3),
    orientation=st.sampled_from(ORIENTATIONS),
)
def test_ellipsoid_has_its_volume_and_centre_on_any_grid(centre, radii, angles, orientation):
    canvas = Canvas(*scan_grid((1, 2, 3), (36, 36, 36), (1.0, 1.2, 1.5), orientation, (8, -5, 3)), 0.0)
    canvas.ellipsoid((0, 0, 0), radii, 1.0, local_frame(centre, rotation_matrix(angles)))
    volume, found = volume_and_centre(canvas)
    assert volume == pytest.approx(4 / 3 * np.pi * np.prod(radii), rel=0.02)
    np.testing.assert_allclose(found, centre, atol=0.03)


def test_rod_has_its_volume_and_centre():
    canvas = Canvas(*scan_grid((0, 0, 0), (50, 50, 50), (1.0, 1.0, 1.3), "LPS"), 0.0)
    start, end = np.array([-8.0, 3, -9]), np.array([6.0, -7, 12])
    canvas.tube([start, end], 5.0, 1.0)
    volume, centre = volume_and_centre(canvas)
    assert volume == pytest.approx(np.pi * 25 * np.linalg.norm(end - start) + 4 / 3 * np.pi * 125, rel=0.02)
    np.testing.assert_allclose(centre, (start + end) / 2, atol=0.02)


def test_cylinder_has_its_volume():
    canvas = Canvas(*scan_grid((0, 0, 0), (50, 50, 50), (1.0, 1.0, 1.0)), 0.0)
    patch = canvas.everywhere(local_frame((1, 2, 3), rotation_matrix((20, 10, 0))))
    patch.paint(patch.cylinder((15, 15), 10.0, rounding=0.001), 1.0)
    volume, centre = volume_and_centre(canvas)
    assert volume == pytest.approx(np.pi * 225 * 20, rel=0.01)
    np.testing.assert_allclose(centre, (1, 2, 3), atol=0.02)


def test_same_image_on_a_permuted_grid():
    drawn = {}
    for orientation in ORIENTATIONS:
        shape, affine = scan_grid((0, 0, 0), (30, 40, 50), (2.0, 2.0, 2.0), orientation)
        canvas = Canvas(shape, affine, -5.0)
        canvas.tube([(-9, 3, -9), (8, -7, 12), (2, 2, 22)], 3.0, 7.0)
        image = nib.as_closest_canonical(nib.Nifti1Image(canvas.values, affine))
        drawn[orientation] = np.asarray(image.dataobj)
    for orientation in ORIENTATIONS[1:]:
        np.testing.assert_allclose(drawn[orientation], drawn["RAS"], atol=1e-4)


def test_what_lies_outside_is_not_drawn():
    canvas = Canvas((5, 5, 5), np.eye(4), 1.0)
    assert canvas.patch((10, 10, 10), (20, 20, 20)) is None
    canvas.ellipsoid((30, 0, 0), (4, 4, 4), 9.0)
    canvas.tube([(30, 0, 0), (40, 0, 0)], 4, 9.0)
    assert (canvas.values == 1).all()


def test_bounding_box_holds_all_of_the_shape():
    """Drawing in the box gives what drawing everywhere gives."""
    grid = scan_grid((0, 0, 0), (40, 40, 40), (1.0, 1.0, 3.0), "RAS", (15, 0, 25))
    boxed, whole = Canvas(*grid, 0.0), Canvas(*grid, 0.0)
    boxed.tube([(-6, -4, 2), (7, 5, -3)], 4.0, 1.0)
    patch = whole.everywhere()
    patch.paint(patch.capsule((-6, -4, 2), (7, 5, -3), 4.0), 1.0)
    np.testing.assert_array_equal(boxed.values, whole.values)


def test_local_coordinates_are_those_of_the_frame():
    shape, affine = scan_grid((4, 5, 6), (20, 20, 20), (1.0, 2.0, 2.0), "PIL")
    frame = local_frame((1, 2, 3), rotation_matrix((10, 20, 30)))
    patch = Canvas(shape, affine, 0.0).everywhere(frame)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    local = apply_affine(index.astype(float), np.linalg.inv(frame) @ affine)
    np.testing.assert_allclose(np.stack([patch.x, patch.y, patch.z], axis=-1).reshape(-1, 3), local, atol=1e-4)
