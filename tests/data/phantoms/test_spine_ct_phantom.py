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
"""The spine CT phantom: true centres, distances, orientations, views and anatomies."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import center_of_mass, map_coordinates

from monai_landmarks.data.phantoms.spine import ANATOMIES, SPINE_LANDMARKS, build_spine
from monai_landmarks.data.phantoms.spine_bones import Tissue, draw_vertebra
from monai_landmarks.data.phantoms.spine_ct import _draw_pose, _draw_view, spine_ct_phantom
from monai_landmarks.data.phantoms.volume_drawing import Canvas, scan_grid

CSI2014_DISTANCES = (
    *(19.3, 18.0, 17.8, 17.0, 16.9, 17.3, 19.5, 20.8, 21.1, 21.2, 21.6, 21.6, 22.4, 23.2, 24.5, 26.1, 27.5, 29.6),
    *(32.1, 33.9, 35.2, 35.4, 35.5, 36.1, 29.7),
)
"""Mean distances of neighbours in the training scans of CSI 2014."""

PLAIN = {"noise": 0.0, "metal": 0.0}
COARSE = (4.0, 4.0, 4.0)
SOLID = Tissue(cortical=1.0, trabecular=1.0, arch=1.0, disc=1.0, canal=1.0, cord=1.0)


def spine_of(seed: int, **options):
    return build_spine(np.random.default_rng(seed), **options)


def canonical(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return np.asarray(nib.as_closest_canonical(nib.Nifti1Image(volume, affine)).dataobj)


def test_landmarks_are_those_of_csi_2014():
    assert SPINE_LANDMARKS[0] == "C1"
    assert SPINE_LANDMARKS[7:19] == tuple(f"T{n}" for n in range(1, 13))
    assert SPINE_LANDMARKS[-2:] == ("S1", "S2")
    assert len(SPINE_LANDMARKS) == 26


@pytest.mark.parametrize("name", ["C2", "C5", "T1", "T9", "L1", "L5", "S1"])
def test_truth_is_the_centre_of_the_drawn_body(name):
    spine = spine_of(4, fracture=False)
    index = spine.names.index(name)
    centre = spine.centres[index]
    canvas = Canvas(*scan_grid(centre - (0.3, -0.2, 0.4), (70, 60, 60), (1.0, 1.2, 1.5), "LPS", (5, 9, -7)), 0.0)
    draw_vertebra(canvas, spine, index, SOLID, arch=False)
    found = canvas.affine[:3, :3] @ center_of_mass(canvas.values) + canvas.affine[:3, 3]
    np.testing.assert_allclose(found, centre, atol=0.05)


def test_truth_is_the_centre_of_a_compressed_body():
    broken = [spine for spine in map(spine_of, range(60)) if spine.loss.any()]
    assert 3 <= len(broken) <= 20
    for spine in broken[:4]:
        index = int(np.argmax(spine.loss))
        canvas = Canvas(*scan_grid(spine.centres[index], (70, 60, 60), (1.0, 1.0, 1.0)), 0.0)
        draw_vertebra(canvas, spine, index, SOLID, arch=False)
        found = canvas.affine[:3, :3] @ center_of_mass(canvas.values) + canvas.affine[:3, 3]
        np.testing.assert_allclose(found, spine.centres[index], atol=0.35)
        local = np.linalg.inv(spine.frames[index]) @ canvas.affine
        x, y, z = np.tensordot(local[:3, :3], np.indices(canvas.values.shape), 1) + local[:3, 3, None, None, None]
        column = (canvas.values > 0.5) & (np.abs(x) < 2)
        front, back = (z[column & (np.abs(y - at) < 1)].max() for at in (8, -8))
        assert front < 0.95 * back, "a wedge is lower in front"


def test_mean_spine_has_the_printed_distances():
    distances = np.linalg.norm(np.diff(spine_of(0, variation=0).landmarks, axis=0), axis=1)
    np.testing.assert_allclose(distances, CSI2014_DISTANCES, atol=1e-9)


def test_spines_vary_about_the_printed_distances():
    points = np.stack([spine_of(seed).landmarks for seed in range(200)])
    distances = np.linalg.norm(np.diff(points, axis=1), axis=-1)
    np.testing.assert_allclose(distances.mean(axis=0), CSI2014_DISTANCES, rtol=0.04)
    assert (distances.std(axis=0) / distances.mean(axis=0) > 0.04).all()


def test_curves_of_the_spine():
    """Neck and loins bend forwards, the chest backwards; the sacrum goes back."""
    y = dict(zip(SPINE_LANDMARKS, np.stack([spine_of(s).landmarks for s in range(30)])[:, :, 1].mean(0), strict=True))
    assert y["T7"] < min(y["C4"], y["L3"]) - 10
    assert y["S2"] < y["S1"] < y["L4"]


def test_bodies_grow_from_neck_to_loins():
    spine = spine_of(0, variation=0)
    volume = dict(zip(spine.names, spine.sizes.prod(axis=1), strict=True))
    order = [volume[name] for name in ("C3", "C6", "T1", "T6", "T10", "L1", "L5")]
    assert order == sorted(order)


@pytest.mark.parametrize("anatomy", ANATOMIES)
def test_anatomies(anatomy):
    spine = spine_of(1, anatomy=anatomy)
    absent = [name for name, point in zip(SPINE_LANDMARKS, spine.landmarks, strict=True) if np.isnan(point).all()]
    assert absent == ([anatomy.removeprefix("no_")] if anatomy.startswith("no_") else [])
    assert [name for name in ("T13", "L6") if name in spine.names] == ([anatomy] if anatomy in ("T13", "L6") else [])
    steps = np.linalg.norm(np.diff(spine.centres, axis=0), axis=1)
    assert steps.max() < 48, "the neighbours close up"
    _, _, points = spine_ct_phantom(1, (8, 8, 8), full=True, anatomy=anatomy, **PLAIN)
    np.testing.assert_array_equal(np.isnan(points), np.isnan(spine.landmarks))


def test_unknown_anatomy():
    with pytest.raises(ValueError, match="L7"):
        spine_ct_phantom(1, COARSE, anatomy="L7")


def test_same_seed_same_scan():
    first, second, other = (spine_ct_phantom(seed, COARSE) for seed in (3, 3, 4))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert first[0].dtype == np.int16
    assert first[0].shape != other[0].shape or (first[0] != other[0]).any()


def test_switches_do_not_move_the_spine():
    _, affine, points = spine_ct_phantom(2, COARSE)
    for options in ({"noise": 0.0}, {"metal": 1.0}):
        _, other_affine, other = spine_ct_phantom(2, COARSE, **options)
        np.testing.assert_array_equal(other, points)
        np.testing.assert_array_equal(other_affine, affine)


@pytest.mark.parametrize("orientation", ["LAS", "RPI", "LPS", "SAR"])
def test_same_person_in_every_orientation(orientation):
    straight, affine, points = spine_ct_phantom(6, COARSE, **PLAIN)
    turned, other_affine, other_points = spine_ct_phantom(6, COARSE, orientation=orientation, **PLAIN)
    assert "".join(nib.aff2axcodes(other_affine)) == orientation
    np.testing.assert_array_equal(points, other_points)
    difference = np.abs(canonical(turned, other_affine).astype(int) - canonical(straight, affine))
    assert difference.max() <= 2, "only rounding differs"


def test_same_grey_values_at_the_same_place_of_an_oblique_scan():
    options = {"spacing": (2.5, 2.5, 2.5), "full": True, **PLAIN}
    values = []
    for oblique in ((0, 0, 0), (12, -5, 7)):
        volume, affine, points = spine_ct_phantom(8, oblique_deg=oblique, orientation="LPS", **options)
        inside = points[10:24, None] + np.array([[0, 0, 0], [2, 0, 1], [0, -2, 0]])
        index = (inside - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
        values.append(map_coordinates(volume.astype(float), index.reshape(-1, 3).T, order=1))
    assert np.median(values[0]) > 100
    np.testing.assert_allclose(values[0], values[1], atol=2)


@pytest.mark.parametrize("spacing", [(3.0, 4.0, 5.0), (5.0, 3.0, 7.0)])
def test_spacing_is_along_the_images_axes(spacing):
    _, affine, _ = spine_ct_phantom(0, spacing, orientation="SAR", **PLAIN)
    np.testing.assert_allclose(nib.affines.voxel_sizes(affine), spacing)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("oblique", [(0, 0, 0), (12, -5, 7)])
def test_missing_are_exactly_the_centres_outside_the_field_of_view(seed, oblique):
    everyone = spine_ct_phantom(seed, (9, 9, 9), full=True, **PLAIN)[2]
    volume, affine, points = spine_ct_phantom(seed, (5, 5, 5), oblique_deg=oblique, **PLAIN)
    index = nib.affines.apply_affine(np.linalg.inv(affine), everyone)
    inside = ((index >= -0.5) & (index <= np.array(volume.shape) - 0.5)).all(axis=1)
    np.testing.assert_array_equal(np.isfinite(points).all(axis=1), inside)
    np.testing.assert_array_equal(points[inside], everyone[inside])


@pytest.mark.parametrize("oblique", [(0, 0, 0), (12, -5, 7)])
def test_full_shows_all(oblique):
    for seed in range(3):
        assert np.isfinite(spine_ct_phantom(seed, (9, 9, 9), full=True, oblique_deg=oblique, **PLAIN)[2]).all()


def test_views_are_like_those_of_csi_2014():
    """There: 2 to 26 in a scan, 11.8 on average, the fewest around T5 between two humps."""
    seen = []
    for seed in range(400):
        body, pose_rng, view = np.random.default_rng(seed).spawn(6)[:3]
        spine, pose = build_spine(body), _draw_pose(pose_rng, 7.0)
        centres = spine.centres[:-3] @ pose[:3, :3].T + pose[:3, 3]
        centre, extent = _draw_view(centres, False, view)
        seen.append((np.abs(centres - centre) <= extent / 2).all(axis=1))
    counts = np.sum(seen, axis=1)
    assert counts.min() >= 2
    assert counts.max() == 26
    assert 10 < counts.mean() < 13
    assert 0.2 < np.mean(counts >= 15) < 0.4
    share = np.mean(seen, axis=0)
    assert 0.1 < share.min() < share.max() < 0.7


def test_tissues_have_their_grey_values():
    volume, affine, points = spine_ct_phantom(5, (2.0, 2.0, 2.0), full=True, **PLAIN)
    assert volume.min() >= -1024
    between = (points[19:22] + points[20:23]) / 2
    place = {"body": points[19:23], "disc": between}
    index = {key: (p - affine[:3, 3]) / 2 for key, p in place.items()}
    body, disc = (map_coordinates(volume.astype(float), index[key].T, order=1) for key in ("body", "disc"))
    assert body.min() > disc.max() + 20
    assert (disc > 40).all()
    rim = volume[tuple(np.rint(index["body"][0]).astype(int))[:2]].astype(int)
    assert rim.max() > 1.5 * body.max(), "end plates are denser than what is between them"
    assert (volume < -900).mean() > 0.05
    assert volume.max() < 1600


def test_metal_and_noise():
    plain = spine_ct_phantom(5, COARSE, full=True, **PLAIN)[0]
    metal = spine_ct_phantom(5, COARSE, full=True, noise=0.0, metal=1.0)[0]
    noisy = spine_ct_phantom(5, COARSE, full=True, metal=0.0)[0]
    assert plain.max() < 1600 < 2000 < metal.max() <= 3071
    assert 5 < (noisy.astype(int) - plain).std() < 60
