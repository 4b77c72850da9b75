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
"""The phantom of a hand's MR: truth of its landmarks in the picture, the same in every orientation, and its folder."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import label, map_coordinates

from monai_landmarks.data.datasets.hand_mri import HAND_MRI_LANDMARKS, hand_mri_datalist
from monai_landmarks.data.datasets.phantom_marker import is_phantom
from monai_landmarks.data.phantoms.hand_mri import (
    CARTILAGE,
    MARROW,
    _draw_bone,
    hand_mri_phantom,
    write_hand_mri_phantom,
)
from monai_landmarks.data.phantoms.hand_skeleton import build_hand
from monai_landmarks.data.phantoms.volume_drawing import Canvas

COARSE = (4.0, 4.0, 5.0)
FINGERS = ("thumb", "index", "middle", "ring", "little")
CLEAN = {"noise": 0.0, "bias": 0.0}


def named(points: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(HAND_MRI_LANDMARKS, points, strict=True))


def to_index(world: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return np.linalg.solve(affine[:3, :3], (world - affine[:3, 3]).T).T


def seen_at(volume: np.ndarray, affine: np.ndarray, world: np.ndarray) -> np.ndarray:
    return map_coordinates(volume.astype(float), to_index(world, affine).T, order=1)


@pytest.fixture(scope="module")
def fine() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return hand_mri_phantom(3, (0.6, 0.6, 0.9), **CLEAN)


@pytest.fixture(scope="module")
def many() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return [hand_mri_phantom(seed, COARSE) for seed in range(25)]


@pytest.fixture(scope="module")
def phantom(tmp_path_factory) -> Path:
    return write_hand_mri_phantom(tmp_path_factory.mktemp("hands") / "set", 6, COARSE, seed=7)


def test_there_are_28_different_landmarks():
    assert len(set(HAND_MRI_LANDMARKS)) == 28


def test_types_shapes_and_seed():
    first, second, other = (hand_mri_phantom(seed, COARSE) for seed in (3, 3, 4))
    volume, affine, points = first
    assert (volume.dtype, points.dtype, points.shape, affine.shape) == (np.int16, np.float64, (28, 3), (4, 4))
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)
    assert np.linalg.norm(points - other[2], axis=-1).min() > 0.1


def test_switches_do_not_move_the_hand():
    points = hand_mri_phantom(2, COARSE)[2]
    for options in (CLEAN, {"orientation": "LAS"}, {"oblique_deg": 25.0}):
        np.testing.assert_array_equal(hand_mri_phantom(2, COARSE, **options)[2], points)
    np.testing.assert_array_equal(hand_mri_phantom(2, (3, 3, 3))[2], points)


@pytest.mark.parametrize(
    ("orientation", "sizes"), [("RSP", (1.5, 2, 3)), ("LAS", (1.5, 3, 2)), ("RPI", (1.5, 3, 2)), ("IAL", (2, 3, 1.5))]
)
def test_orientation_and_voxel_sizes_are_those_asked_for(orientation, sizes):
    volume, affine, points = hand_mri_phantom(0, (1.5, 2, 3), orientation)
    assert "".join(nib.aff2axcodes(affine)) == orientation
    np.testing.assert_allclose(nib.affines.voxel_sizes(affine), sizes)
    index = to_index(points, affine)
    assert (index > 0).all()
    assert (index < np.array(volume.shape) - 1).all()


def test_every_orientation_shows_the_same_hand():
    spacing = (1.0, 1.0, 1.2)
    volume, affine, points = hand_mri_phantom(3, spacing, **CLEAN)
    places = (points[:, None] + np.random.default_rng(0).normal(0, 6, (28, 20, 3))).reshape(-1, 3)
    wanted = seen_at(volume, affine, places)
    for orientation, oblique in (("LAS", 0.0), ("RPI", 0.0), ("RSP", 30.0)):
        volume, affine, _ = hand_mri_phantom(3, spacing, orientation, oblique, **CLEAN)
        found = seen_at(volume, affine, places)
        # Bones have edges of a voxel, which differ where grids differ.
        assert np.corrcoef(wanted, found)[0, 1] > 0.95
        assert np.median(np.abs(wanted - found)) < 0.05 * wanted.max()


@pytest.mark.parametrize(
    ("tip", "inside"),
    [(f"{finger}_tip", f"{finger}_{'IP' if finger == 'thumb' else 'DIP'}") for finger in FINGERS],
)
def test_a_tip_lies_on_the_outer_surface_of_its_bone(fine, tip, inside):
    volume, affine, points = fine
    marks = named(points)
    outward = (marks[tip] - marks[inside]) / np.linalg.norm(marks[tip] - marks[inside])
    along = np.arange(-2.5, 2.51, 0.1)
    profile = seen_at(volume, affine, marks[tip] + along[:, None] * outward)
    # Going outwards the dark cortex ends at the tip.
    steepest = along[np.argmax(np.convolve(np.gradient(profile), np.ones(5), "same")[15:]) + 15]
    assert abs(steepest) < 0.6


@pytest.mark.parametrize(
    ("joint", "before", "after"),
    [(f"{finger}_MCP", f"{finger}_CMC", f"{finger}_PIP") for finger in FINGERS[1:]]
    + [(f"{finger}_PIP", f"{finger}_MCP", f"{finger}_DIP") for finger in FINGERS[1:]]
    + [("thumb_MCP", "thumb_CMC", "thumb_IP")],
)
def test_a_joint_lies_midway_between_two_dark_cortices(fine, joint, before, after):
    volume, affine, points = fine
    marks = named(points)
    along = np.arange(0, 4.01, 0.1)[:, None]
    darkest = []
    for neighbour in (before, after):
        direction = (marks[neighbour] - marks[joint]) / np.linalg.norm(marks[neighbour] - marks[joint])
        profile = seen_at(volume, affine, marks[joint] + along * direction)
        darkest.append(along[np.argmin(profile), 0])
        assert profile[:3].mean() > profile.min() + 0.15 * volume.max()
    assert abs(darkest[0] - darkest[1]) < 0.6
    assert 0.8 < np.mean(darkest) < 2.5


@pytest.mark.parametrize("bone", ["capitate", "lunate"])
def test_a_carpal_landmark_is_the_centre_of_a_bright_bone(fine, bone):
    volume, affine, points = fine
    centre = named(points)[f"{bone}_centre"]
    middle = tuple(np.rint(to_index(centre[None], affine)[0]).astype(int))
    marrow, _ = label(volume > 0.6 * volume[middle])
    region = np.argwhere(marrow == marrow[middle])
    world = region.mean(axis=0) @ affine[:3, :3].T + affine[:3, 3]
    assert 200 < len(region) * abs(np.linalg.det(affine[:3, :3])) < 1500
    assert np.linalg.norm(world - centre) < 0.3


@pytest.mark.parametrize("bone", ["radius", "ulna"])
def test_a_forearm_landmark_is_where_the_bone_begins(fine, bone):
    volume, affine, points = fine
    marks = named(points)
    # Distal is nearly superior; bones may turn by a few degrees.
    along = np.arange(-4, 0.61, 0.1)[:, None] * (marks["middle_CMC"] - marks[f"{bone}_distal_end"])
    along /= np.linalg.norm(marks["middle_CMC"] - marks[f"{bone}_distal_end"])
    profile = seen_at(volume, affine, marks[f"{bone}_distal_end"] + along)
    assert np.argmin(profile) == pytest.approx(35, abs=8)
    assert profile[0] > 0.6 * volume.max()


def test_growth_plate_of_a_young_hand_is_darker_than_its_marrow():
    hands = [build_hand(np.random.default_rng(seed)) for seed in range(30)]
    young, grown = (
        next(hand for hand in hands if bool(hand.bones[0].plate_mm) == is_open) for is_open in (True, False)
    )
    assert young.size < grown.size
    for hand, wanted in ((young, CARTILAGE), (grown, MARROW)):
        bone = hand.bones[0]
        # A grid in the bone's own frame, its middle voxel on the plate.
        affine = bone.frame @ np.array([[0.3, 0, 0, -3], [0, 0.3, 0, bone.plate - 3], [0, 0, 0.3, -3], [0, 0, 0, 1]])
        canvas = Canvas((21, 21, 21), affine, 0.0)
        _draw_bone(canvas, bone)
        assert canvas.values[10, 10, 10] == pytest.approx(wanted, abs=1)


def test_it_is_a_left_hand(many):
    """Prone, palm to the table: the thumb of a left hand points right, and bent fingers sink to the front."""
    for _, _, points in many:
        marks = named(points)
        assert marks["thumb_tip"][0] > marks["little_tip"][0] + 30
        assert marks["middle_tip"][2] > marks["middle_MCP"][2] > marks["radius_distal_end"][2]
    knuckle = [named(points) for _, _, points in many]
    rise = [marks["middle_PIP"][1] - (marks["middle_MCP"][1] + marks["middle_tip"][1]) / 2 for marks in knuckle]
    assert np.mean(rise) < -2


def test_sizes_are_those_of_hands(many):
    lengths = {"middle": [], "index": [], "palm": [], "width": []}
    for _, _, points in many:
        marks = named(points)
        for finger in ("middle", "index"):
            lengths[finger].append(np.linalg.norm(marks[f"{finger}_tip"] - marks[f"{finger}_MCP"]))
        lengths["palm"].append(np.linalg.norm(marks["middle_MCP"] - marks["middle_CMC"]))
        lengths["width"].append(np.linalg.norm(marks["index_MCP"] - marks["little_MCP"]))
    for name, (low, high) in {"middle": (60, 105), "index": (50, 95), "palm": (45, 75), "width": (28, 62)}.items():
        assert low < min(lengths[name])
        assert max(lengths[name]) < high
    assert max(lengths["palm"]) > 1.15 * min(lengths["palm"])


def test_field_of_view_holds_all_landmarks_and_is_as_large_as_the_papers(many):
    extents = []
    for volume, affine, points in many:
        index = to_index(points, affine)
        assert (index > 0).all()
        assert (index < np.array(volume.shape) - 1).all()
        extents.append(np.array(volume.shape) * COARSE)
    # 294 x 512 x 72 voxels of 0.45 x 0.45 x 0.9 mm on average.
    np.testing.assert_allclose(np.mean(extents, axis=0), (132, 230, 65), rtol=0.2)


def test_air_is_dark_and_noise_and_bias_change_the_picture(many):
    clean = hand_mri_phantom(0, COARSE, **CLEAN)[0]
    assert (clean == 0).mean() > 0.3
    assert (many[0][0] == 0).mean() < 0.1
    uneven = hand_mri_phantom(0, COARSE, noise=0.0)[0]
    ratio = uneven[clean > 300] / clean[clean > 300]
    assert ratio.std() > 0.05


def test_the_reader_reads_it_back(phantom):
    entries = hand_mri_datalist(phantom)
    assert [entry["case"] for entry in entries] == ["001", "002", "003", "004", "005", "006"]
    for number, entry in enumerate(entries, start=1):
        orientation, oblique = (("LAS", 0.0), ("RPI", 0.0), ("RSP", 20.0))[number % 3]
        rng = np.random.default_rng([7, number])
        volume, affine, points = hand_mri_phantom(rng, COARSE, orientation, oblique)
        np.testing.assert_allclose(entry["landmarks"], points, atol=1e-3)
        image = nib.load(entry["image"])
        np.testing.assert_array_equal(np.asarray(image.dataobj), volume)
        np.testing.assert_allclose(image.affine, affine, atol=1e-4)
    assert is_phantom(phantom)


def test_complete_folder_is_used_again_and_an_interrupted_one_completed(phantom, tmp_path):
    def dates(root):
        return {path.relative_to(root): path.stat().st_mtime_ns for path in root.rglob("*.*")}

    root = write_hand_mri_phantom(tmp_path / "set", 2, COARSE, seed=7)
    before = dates(root)
    write_hand_mri_phantom(root, 2, COARSE, seed=7)
    assert dates(root) == before
    (root / "PHANTOM.json").unlink()
    (root / "landmarks" / "002.mrk.json").unlink()
    with pytest.raises(FileNotFoundError, match="incomplete: its writing was interrupted"):
        hand_mri_datalist(root)
    write_hand_mri_phantom(root, 2, COARSE, seed=7)
    for name in ("landmarks/002.mrk.json", "landmarks/001.mrk.json"):
        # Nor do files depend on how many there are.
        assert (root / name).read_bytes() == (phantom / name).read_bytes()
    assert dates(root)[Path("images/001.nii.gz")] == before[Path("images/001.nii.gz")]


def test_another_phantom_is_not_overwritten(phantom):
    with pytest.raises(ValueError, match="seed is 7, asked was 8"):
        write_hand_mri_phantom(phantom, 6, COARSE, seed=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_cases": 0}, "num_cases must be 1 to 999, got 0"),
        ({"num_cases": 1000}, "got 1000"),
        ({"spacing": (1, 1)}, "spacing must be three positive numbers"),
        ({"spacing": (1, 0, 1)}, "spacing must be three positive numbers"),
    ],
)
def test_options_out_of_range(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_hand_mri_phantom(tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("orientation", ["RRA", "RA", "XYZ"])
def test_orientation_must_name_three_axes(orientation):
    with pytest.raises(ValueError, match="orientation must have one letter each"):
        hand_mri_phantom(0, COARSE, orientation)
