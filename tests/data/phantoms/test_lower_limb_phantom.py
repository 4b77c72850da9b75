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
"""The phantom lower limb film: truth of its landmarks, variation, and its folder in the layout of the BMPLE films."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from monai_landmarks.data import FilmReader
from monai_landmarks.data.datasets.bmple import BMPLE_LANDMARKS, LIMB_LANDMARKS, bmple_datalist
from monai_landmarks.data.phantoms.lower_limb_film import draw_leg_shapes
from monai_landmarks.data.phantoms.lower_limb_xray import lower_limb_phantom, write_lower_limb_phantom
from monai_landmarks.measurements.lower_limb import LOWER_LIMB_ANGLES, lower_limb_angles

NAMES = list(LOWER_LIMB_ANGLES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_lower_limb_phantom(tmp_path_factory.mktemp("legs") / "set", 3, 2, 1, seed=7, reduction=8)


def shapes(count: int = 200, deformity: float = 1.0):
    return [draw_leg_shapes(np.random.default_rng(seed), deformity) for seed in range(count)]


def test_outlines_pass_through_the_landmarks():
    """Oracle: along the bone's axis a clean film is brighter on the bone's side of a landmark than in the joint's gap."""
    toward_bone = {
        "greater_trochanter_tip": 3,
        "medial_femoral_condyle": -3,
        "lateral_femoral_condyle": -3,
        "knee_center": -3,
    }
    toward_bone |= {"medial_tibial_plafond": -3, "lateral_tibial_plafond": -3, "ankle_center": -3}
    steps = []
    for seed in range(4):
        film, points, pixel_size, _ = lower_limb_phantom(seed, noise=0)
        legs = points.reshape(2, 10, 2)[:, [LIMB_LANDMARKS.index(name) for name in toward_bone]]
        shift = np.array([[0, mm] for mm in toward_bone.values()])
        on, off = (np.rint((legs + sign * shift) / pixel_size - 0.5).astype(int) for sign in (1, -1))
        steps.append(film[on[..., 1], on[..., 0]].astype(float) - film[off[..., 1], off[..., 0]])
    step = np.concatenate(steps)
    assert (step > 0).mean() > 0.9
    assert np.median(step, axis=0).min() > 2


def test_same_legs_at_every_reduction_and_seed():
    fine, coarse = lower_limb_phantom(5, 8), lower_limb_phantom(5, 16)
    np.testing.assert_allclose(coarse[1], fine[1], atol=1e-12)
    assert np.array_equal(coarse[3], fine[3])
    assert coarse[0].dtype == np.uint8
    assert (coarse[0].shape, fine[0].shape) == ((48, 24), (96, 48))
    assert np.array_equal(coarse[0], lower_limb_phantom(5, 16)[0])
    assert not np.array_equal(lower_limb_phantom(6, 16)[1], coarse[1])


def test_angles_vary_about_those_of_the_literature_or_not_at_all():
    angles = np.stack([leg.angles for _, legs in shapes() for leg in legs])
    mean = dict(zip(NAMES, angles.mean(axis=0), strict=True))
    usual = {"HKA": 178, "FTA": 176, "AMA": 6, "LDFA": 88.5, "MPTA": 88, "JLCA": 1.3, "LDTA": 89}
    assert mean == pytest.approx(usual, abs=1.2)
    assert (angles[:, 0] < 172).any()
    assert (angles[:, 0] > 184).any()
    straight = np.stack([leg.angles for _, legs in shapes(3, 0.0) for leg in legs])
    np.testing.assert_allclose(straight, [(180, 174, 6, 88, 89, 1, 89)] * 6)


def test_films_are_of_the_real_size_and_hold_their_landmarks():
    for size_mm, legs in shapes():
        points = np.concatenate([leg.landmarks() for leg in legs])
        assert (points > 30).all()
        assert (points < np.array(size_mm) - 30).all()
        assert 2 < size_mm[1] / size_mm[0] < 3.6
        right, left = np.split(points, 2)
        assert right[:, 0].max() < left[:, 0].min()


def test_reader_gives_the_phantoms_truth(folder):
    for section, cases in {"training": ["1", "2", "3"], "test1": ["121", "122"], "test2": ["141"]}.items():
        entries = bmple_datalist(folder, section)
        assert [entry["case"] for entry in entries] == cases
        for entry in entries:
            film, points, pixel_size, angles = lower_limb_phantom(np.random.default_rng([7, int(entry["case"])]), 8)
            spacing = np.divide(np.multiply(pixel_size, film.shape[::-1]), entry["original_size"])
            # The phantom counts from the film's corner, the reader from the centre of the original film's first pixel.
            np.testing.assert_allclose(entry["landmarks"], points - spacing / 2, atol=1e-3)
            np.testing.assert_allclose(entry["pixel_size"], pixel_size, rtol=1e-9)
            assert (spacing > 0.125).all()
            assert (spacing < 0.165).all()
            for row, side in enumerate(("right", "left")):
                found = lower_limb_angles(entry["landmarks"], BMPLE_LANDMARKS, side)
                np.testing.assert_allclose(found, angles[row], atol=0.01)


def test_reader_and_film_agree_on_the_place_of_a_point(folder):
    """Index of a landmark by the affine of the film as it is loaded."""
    (entry, *_) = bmple_datalist(folder, "test1")
    reader = FilmReader(pixel_size=entry["pixel_size"], origin=entry["origin"])
    array, meta = reader.get_data(reader.read(entry["image"]))
    index = (entry["landmarks"] - meta["affine"][:2, 2]) / np.diag(meta["affine"])[:2]
    _, points, pixel_size, _ = lower_limb_phantom(np.random.default_rng([7, 121]), 8)
    np.testing.assert_allclose(index, points / pixel_size - 0.5, atol=1e-3)
    assert array.shape == (48, 96)


def test_folder_is_used_again_completed_and_not_mixed(folder, tmp_path):
    film = folder / "train" / "1_384.png"
    before = film.stat().st_mtime_ns
    assert write_lower_limb_phantom(folder, 3, 2, 1, seed=7, reduction=8) == folder
    assert film.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="seed is 7, asked was 8"):
        write_lower_limb_phantom(folder, 3, 2, 1, seed=8, reduction=8)
    meta = json.loads((folder / "test1" / "121_meta.json").read_text())
    assert len(meta["gt"]) == 26
    root = write_lower_limb_phantom(tmp_path / "set", 1, 0, 0, reduction=16)
    (root / "PHANTOM.json").unlink()
    with pytest.raises(FileNotFoundError, match="incomplete"):
        bmple_datalist(root)
    write_lower_limb_phantom(root, 1, 0, 0, reduction=16)
    assert len(bmple_datalist(root)) == 1
    with pytest.raises(FileNotFoundError, match="without this section"):
        bmple_datalist(root, "test1")


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="num_test1 must be 0 to 20"):
        write_lower_limb_phantom(tmp_path / "x", 1, 21)
    with pytest.raises(ValueError, match="reduction must be a positive integer"):
        lower_limb_phantom(0, 0)
