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
"""Axes and angles of the lower limb: closed forms, identities of deformity analysis, and what changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_landmarks.data.datasets.bmple import BMPLE_LANDMARKS, LIMB_LANDMARKS
from monai_landmarks.data.phantoms.lower_limb_film import draw_leg_shapes
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.measurements.lower_limb import (
    LOWER_LIMB_ANGLES,
    LOWER_LIMB_AXES,
    angle_errors,
    lower_limb_angles,
    lower_limb_axes,
)

NAMES = list(LOWER_LIMB_ANGLES)
STRAIGHT = {
    "femoral_head_center": (100, 0),
    "greater_trochanter_tip": (52, 0),
    "medial_femoral_condyle": (123, 410),
    "lateral_femoral_condyle": (77, 410),
    "knee_center": (100, 400),
    "medial_tibial_plateau": (136, 416),
    "lateral_tibial_plateau": (64, 416),
    "medial_tibial_plafond": (115, 800),
    "lateral_tibial_plafond": (85, 800),
    "ankle_center": (100, 800),
}
"""A straight right leg: it lies at the left of the picture, so that outwards is to the left."""


def right_leg(**moved: tuple[float, float]) -> torch.Tensor:
    return torch.tensor([{**STRAIGHT, **moved}[name] for name in LIMB_LANDMARKS], dtype=torch.float64)


def both_legs(seed: int) -> np.ndarray:
    _, legs = draw_leg_shapes(np.random.default_rng(seed))
    return np.concatenate([leg.landmarks() for leg in legs])


def measured(points, side: str = "right", names=None) -> dict[str, float]:
    names = [f"{side}_{name}" for name in LIMB_LANDMARKS] if names is None else names
    return dict(zip(NAMES, lower_limb_angles(points, names, side).tolist(), strict=True))


def test_straight_leg():
    shaft = np.rad2deg(np.arctan2(48, 400))
    expected = {"HKA": 180, "FTA": 180 - shaft, "AMA": shaft, "LDFA": 90, "MPTA": 90, "JLCA": 0, "LDTA": 90}
    assert measured(right_leg()) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("sideways", "change"), [(+40, -1), (-40, +1)])
def test_ankle_inwards_is_varus_and_outwards_valgus(sideways, change):
    """By hand: the tibia turns by atan(40 / 400) about the knee."""
    bend = change * np.rad2deg(np.arctan2(40, 400))
    angles = measured(right_leg(ankle_center=(100 + sideways, 800)))
    assert angles["HKA"] == pytest.approx(180 + bend)
    assert angles["FTA"] == pytest.approx(measured(right_leg())["FTA"] - bend)
    assert angles["MPTA"] == pytest.approx(90 + bend)
    assert angles["LDFA"] == pytest.approx(90)


@pytest.mark.parametrize(
    ("landmark", "place", "angle", "change"),
    [
        ("lateral_femoral_condyle", (77, 400), "LDFA", -np.rad2deg(np.arctan2(10, 46))),
        ("lateral_femoral_condyle", (77, 400), "JLCA", np.rad2deg(np.arctan2(10, 46))),
        ("medial_tibial_plateau", (136, 426), "MPTA", -np.rad2deg(np.arctan2(10, 72))),
        ("lateral_tibial_plafond", (85, 803), "LDTA", np.rad2deg(np.arctan2(3, 30))),
    ],
)
def test_joint_line_tilts(landmark, place, angle, change):
    """By hand: a higher outer condyle closes the outer angle above the knee and opens the joint on the outer side."""
    assert measured(right_leg(**{landmark: place}))[angle] - measured(right_leg())[angle] == pytest.approx(change)


@pytest.mark.parametrize("side", ["right", "left"])
def test_angles_are_those_the_legs_were_made_with(side):
    for seed in range(20):
        _, legs = draw_leg_shapes(np.random.default_rng(seed))
        leg = legs[side == "left"]
        found = lower_limb_angles(both_legs(seed), BMPLE_LANDMARKS, side)
        np.testing.assert_allclose(found, leg.angles, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(shifts=st.lists(st.floats(-15, 15), min_size=20, max_size=20))
def test_identities_of_deformity_analysis(shifts):
    points = right_leg() + torch.tensor(shifts, dtype=torch.float64).reshape(10, 2)
    a = measured(points)
    assert angle_errors([a["HKA"]], [180 + a["MPTA"] - a["LDFA"] - a["JLCA"]]).item() == pytest.approx(0, abs=1e-4)
    assert a["FTA"] == pytest.approx(360 - a["HKA"] - a["AMA"], abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    turn=st.floats(-np.pi, np.pi),
    scale=st.floats(0.01, 100),
    shift=st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)),
)
def test_rotation_translation_and_scale_change_nothing(seed, turn, scale, shift):
    points = both_legs(seed)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    for side in ("right", "left"):
        moved = lower_limb_angles(scale * points @ rotation.T + shift, side=side)
        np.testing.assert_allclose(moved, lower_limb_angles(points, side=side), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), width=st.floats(0, 500))
def test_mirroring_and_exchanging_the_names_changes_nothing(seed, width):
    points = both_legs(seed)
    mirrored = (width, 0) + points * (-1, 1)
    exchanged = [name.replace("right", "x").replace("left", "right").replace("x", "left") for name in BMPLE_LANDMARKS]
    for side, other in (("right", "left"), ("left", "right")):
        found = lower_limb_angles(mirrored, exchanged, other)
        np.testing.assert_allclose(found, lower_limb_angles(points, side=side), atol=1e-9)


def test_a_missing_landmark_costs_its_own_angles_only():
    gone = {"femoral_head_center": ["HKA", "AMA", "LDFA"], "greater_trochanter_tip": ["FTA", "AMA"]}
    gone |= {"lateral_tibial_plateau": ["MPTA", "JLCA"], "medial_tibial_plafond": ["LDTA"]}
    for name, lost in gone.items():
        angles = measured(right_leg(**{name: (np.nan, np.nan)}))
        assert sorted(key for key, value in angles.items() if np.isnan(value)) == sorted(lost)


def test_two_landmarks_at_one_place_have_no_direction():
    angles = measured(right_leg(ankle_center=STRAIGHT["knee_center"]))
    assert np.isnan([angles[name] for name in ("HKA", "FTA", "MPTA", "LDTA")]).all()
    assert angles["LDFA"] == pytest.approx(90)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_batches_types_and_order_of_names(dtype):
    points = torch.stack([torch.tensor(both_legs(seed)) for seed in range(6)]).reshape(2, 3, 20, 2).to(dtype)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    found = lower_limb_angles(points[:, :, order], [BMPLE_LANDMARKS[i] for i in order], "left")
    assert found.shape == (2, 3, 7)
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(found[i, j], lower_limb_angles(points[i, j].to(found.dtype), side="left"))


def test_axes_are_six_and_point_down_or_outwards():
    vectors = lower_limb_axes(right_leg(), [f"right_{name}" for name in LIMB_LANDMARKS])
    assert vectors.shape == (len(LOWER_LIMB_AXES), 2) == (6, 2)
    assert (vectors[:3, 1] > 0).all()
    assert (vectors[3:, 0] < 0).all()


def test_errors_are_taken_round_the_circle():
    errors = angle_errors(torch.tensor([359.0, 10.0, torch.nan]), torch.tensor([1.0, 350.0, 3.0]))
    torch.testing.assert_close(errors, torch.tensor([2.0, 20.0, torch.nan]), equal_nan=True)
    with pytest.raises(LandmarkError, match="cannot be compared"):
        angle_errors(torch.zeros(3), torch.zeros(2, 3))


def test_refusals():
    names = list(BMPLE_LANDMARKS)
    points = both_legs(0)
    with pytest.raises(LandmarkError, match="20 points and 19 names"):
        lower_limb_angles(points, names[1:])
    with pytest.raises(
        LandmarkError, match=r"'right_knee_center', which stands 0 times.*did you mean 'right_knee_centre'"
    ):
        lower_limb_angles(points, [name.replace("knee_center", "knee_centre") for name in names])
    with pytest.raises(LandmarkError, match="stands 2 times"):
        lower_limb_angles(points, [*names[:-1], "right_ankle_center"])
    with pytest.raises(LandmarkError, match="2 coordinates"):
        lower_limb_angles(np.zeros((20, 3)), names)
    with pytest.raises(LandmarkError, match=r"needs the axis 'tibal'.*did you mean 'tibial'"):
        lower_limb_angles(points, angles={"mine": ("tibal", "tibial", 0.0)})
    with pytest.raises(ValueError, match="both"):
        lower_limb_angles(points, side="both")
