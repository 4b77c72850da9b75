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
"""Cobb angles: closed forms, the challenge's own table, what they depend on, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from monai_landmarks.data.datasets import ISBI2015_LANDMARKS
from monai_landmarks.data.datasets.aasce import AASCE_LANDMARKS, aasce_datalist
from monai_landmarks.data.phantoms.spine_film import draw_spine_shape
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.measurements.cobb import CobbCurves, cobb_angle_between, cobb_angles, cobb_curves

DEPTHS = np.linspace(0, 400, 17)


def spine(tilts_deg: np.ndarray, x: np.ndarray | float = 0.0, width: float = 40.0) -> torch.Tensor:
    """Corners of bodies at given depths with given tilts."""
    tilt = np.deg2rad(np.broadcast_to(tilts_deg, (17,)))
    along = np.stack([np.cos(tilt), np.sin(tilt)], axis=-1)
    down = np.stack([-np.sin(tilt), np.cos(tilt)], axis=-1)
    centers = np.stack([np.broadcast_to(x, (17,)), DEPTHS], axis=-1)
    corners = [centers + s * width / 2 * along + t * 8 * down for t in (-1, 1) for s in (-1, 1)]
    return torch.tensor(np.stack(corners, axis=1).reshape(68, 2))


def arc(total_deg: float) -> torch.Tensor:
    """Bodies on a circle, each at right angles to it."""
    angle = np.deg2rad(np.linspace(-total_deg / 2, total_deg / 2, 17))
    radius = 400 / np.deg2rad(total_deg)
    normal = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    corners = [normal * (radius + s * 20) + t * 8 * normal[:, ::-1] * (-1, 1) for t in (-1, 1) for s in (-1, 1)]
    return torch.tensor(np.stack(corners, axis=1).reshape(68, 2))


def wave(amplitude: float) -> tuple[torch.Tensor, np.ndarray]:
    """A sine of one period, ``x = a sin(2 pi y / L)``, and the tilts at right angles to it."""
    phase = 2 * np.pi * DEPTHS / DEPTHS[-1]
    tilts = -np.rad2deg(np.arctan(amplitude * 2 * np.pi / DEPTHS[-1] * np.cos(phase)))
    return spine(tilts, amplitude * np.sin(phase)), tilts


def ends_of(curves: CobbCurves) -> list[tuple[str, str]]:
    return [(curves.vertebrae[a], curves.vertebrae[b]) for a, b in curves.ends.tolist()]


@pytest.mark.parametrize("total", [5.0, 30.0, 80.0])
def test_circle_gives_the_angle_of_its_arc(total):
    curves = cobb_curves(arc(total))
    torch.testing.assert_close(curves.angles, torch.tensor([total, 0.0, 0.0], dtype=torch.float64), atol=1e-9, rtol=0)
    assert ends_of(curves) == [("T1", "L5"), ("T1", "T1"), ("L5", "L5")]
    assert not curves.s_shaped


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("amplitude", [5.0, 20.0, 40.0])
def test_sine_gives_twice_the_steepest_slope(amplitude, dtype):
    """Steepest at both ends and, the other way, in the middle (T9): two equal curves, the upper one is the main one."""
    points, _ = wave(amplitude)
    steepest = 2 * np.rad2deg(np.arctan(amplitude * 2 * np.pi / 400))
    curves = cobb_curves(points.to(dtype))
    assert curves.s_shaped
    expected = torch.tensor([steepest, 0.0, steepest], dtype=dtype)
    torch.testing.assert_close(curves.angles, expected, atol=1e-4, rtol=0)
    assert ends_of(curves) == [("T1", "T9"), ("T1", "T1"), ("T9", "L5")]


def test_main_curve_in_the_lower_half_looks_upwards_twice():
    """Tilts rise to 10 at T4, fall to -15 at T9, rise to 20 at L3: T9 to L3, then T4 to T9, then T1 to T4."""
    tilts = np.interp(np.arange(17), (0, 3, 8, 14, 16), (2.0, 10.0, -15.0, 20.0, 12.0))
    x = -np.concatenate([[0], np.cumsum(np.tan(np.deg2rad((tilts[1:] + tilts[:-1]) / 2)))]) * 25
    curves = cobb_curves(spine(tilts, x), film_height=420.0)
    assert curves.s_shaped
    torch.testing.assert_close(curves.angles, torch.tensor([35.0, 25.0, 8.0], dtype=torch.float64), atol=1e-9, rtol=0)
    assert ends_of(curves) == [("T9", "L3"), ("T4", "T9"), ("T1", "T4")]
    # A film that is twice as high has the same curve in its upper half.
    other = cobb_curves(spine(tilts, x), film_height=840.0)
    torch.testing.assert_close(other.angles, torch.tensor([35.0, 25.0, 8.0], dtype=torch.float64), atol=1e-9, rtol=0)
    assert ends_of(other)[2] == ("L3", "L5")


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    turn=st.floats(-180, 180),
    scale=st.floats(0.01, 100),
    mirror=st.booleans(),
    shift=st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
)
def test_angles_do_not_change_with_pose(seed, turn, scale, mirror, shift):
    own = draw_spine_shape(*np.random.default_rng(seed).spawn(2))
    points = torch.tensor(own.corners[own.named].reshape(-1, 2))
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    matrix = scale * torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)
    moved = points @ matrix * (-1 if mirror else 1) ** torch.tensor([1, 0]) + torch.tensor(shift)
    curves, after = cobb_curves(points), cobb_curves(moved)
    torch.testing.assert_close(after.angles, curves.angles, atol=1e-5, rtol=0)
    assert torch.equal(after.ends[0], curves.ends[0])


def test_phantom_spines_have_the_angles_of_their_tilts():
    """The phantom's angles come from its tilts, in plain loops; these from its corners."""
    spines = [draw_spine_shape(*np.random.default_rng(seed).spawn(2)) for seed in range(60)]
    points = torch.tensor(np.stack([own.corners[own.named].reshape(-1, 2) for own in spines]))
    height = torch.tensor([own.size_mm[1] for own in spines])
    angles = cobb_angles(points, film_height=height)
    np.testing.assert_allclose(angles, np.stack([own.angles() for own in spines]), atol=1e-9)


def test_batch_is_the_same_as_one_by_one():
    spines = [draw_spine_shape(*np.random.default_rng(seed).spawn(2)) for seed in range(6)]
    points = torch.tensor(np.stack([own.corners[own.named].reshape(-1, 2) for own in spines])).reshape(2, 3, 68, 2)
    heights = torch.tensor([own.size_mm[1] for own in spines]).reshape(2, 3)
    whole = cobb_curves(points, film_height=heights)
    assert whole.ends.shape == (2, 3, 3, 2)
    assert whole.s_shaped.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        one = cobb_curves(points[i, j].numpy(), film_height=float(heights[i, j]))
        assert torch.equal(one.angles, whole.angles[i, j])
        assert torch.equal(one.ends, whole.ends[i, j])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_types(dtype):
    points = wave(20.0)[0].round()
    angles = cobb_angles(points.to(dtype))
    assert angles.dtype == torch.float32
    assert abs(angles - cobb_angles(points.to(dtype).double())).max() < 1e-3


@pytest.mark.filterwarnings("error")
def test_read_only_array_is_measured_without_a_warning():
    """Such as the points of a file, which nobody shall change."""
    points = arc(30).numpy()
    points.setflags(write=False)
    assert torch.equal(cobb_angles(points), cobb_angles(arc(30)))
    assert torch.equal(cobb_angles(points.tolist()), cobb_angles(arc(30)))


def test_missing_corner_makes_every_angle_unknown_and_no_other_film():
    points = torch.stack([arc(40.0), arc(40.0)])
    points[0, 30] = torch.nan
    curves = cobb_curves(points)
    assert torch.isnan(curves.angles[0]).all()
    assert (curves.ends[0] == -1).all()
    assert curves.angles[1, 0].item() == pytest.approx(40.0)
    # T8 lacks a corner: what does not ask for it is known.
    known = cobb_angle_between(points, "T1", "L5")
    torch.testing.assert_close(known, torch.full((2,), 40.0, dtype=torch.float64))
    assert torch.isnan(cobb_angle_between(points, "T8", "L5")).tolist() == [True, False]
    assert cobb_angle_between(points[1], "th1", "T9").item() == pytest.approx(20.0)


def test_order_of_names_and_other_landmarks_do_not_matter():
    points, order = arc(40.0), np.random.default_rng(0).permutation(68)
    names = [AASCE_LANDMARKS[place] for place in order] + ["iliac_crest_left"]
    shuffled = torch.cat([points[order], torch.full((1, 2), torch.nan)])
    curves = cobb_curves(shuffled, names)
    assert torch.equal(curves.angles, cobb_angles(points))
    assert (curves.vertebrae[0], curves.vertebrae[-1]) == ("T1", "L5")


def test_gradient_reaches_the_corners_of_the_end_vertebrae_only():
    points = arc(40.0).requires_grad_()
    cobb_angles(points)[0].backward()
    assert points.grad is not None
    moved = points.grad.abs().sum(-1).reshape(17, 4).sum(-1) > 0
    assert moved.nonzero().flatten().tolist() == [0, 16]
    straight = spine(np.zeros(17)).requires_grad_()
    cobb_angles(straight).sum().backward()
    assert straight.grad is not None
    assert torch.isfinite(straight.grad).all()


@pytest.mark.parametrize(
    ("shape", "names", "message"),
    [
        ((19, 2), ISBI2015_LANDMARKS, r"named such as 'T1_top_left', and these 19 names have 0: 'sella'.*another set"),
        ((68, 2), [f"{n}" for n in range(68)], "these 68 names have 0: '0', '1', '2'"),
        ((67, 2), AASCE_LANDMARKS, "67 points and 68 names"),
        ((67, 2), AASCE_LANDMARKS[:67], "no L5_bottom_right: the tilt of a vertebra needs its four corners"),
        ((8, 2), AASCE_LANDMARKS[:4] * 2, "T1_top_left twice"),
        ((68, 3), AASCE_LANDMARKS, "2 coordinates"),
    ],
)
def test_what_is_no_spine_film_is_refused(shape, names, message):
    with pytest.raises(LandmarkError, match=message):
        cobb_angles(torch.zeros(shape), names)


def test_unknown_vertebra_is_refused():
    with pytest.raises(LandmarkError, match="no vertebra 'C7' among the landmarks; there are T1, T2"):
        cobb_angle_between(arc(40.0), "C7", "L5")


@pytest.mark.real_data
def test_all_films_agree_with_the_table_of_the_challenge(real_data):
    entries = aasce_datalist(real_data("aasce_spine_xrays"))
    points = torch.tensor(np.stack([entry["landmarks"] for entry in entries]))
    table = torch.tensor(np.stack([entry["angles"] for entry in entries]))
    difference = (cobb_angles(points, film_height=1000.0) - table).abs()
    # The films here have half the size, rounded, so that their aspect is not quite that of the originals.
    assert difference.max() < 0.1
    assert difference.median() < 0.02
    assert ((cobb_angles(points) - table).abs() < 0.1).sum(0).tolist() == [481, 481, 472]


@pytest.mark.real_data
def test_the_rest_is_the_rounding_of_the_reduced_films(real_data):
    """Among the sizes that halve to a film's, one brings the angles to the table's within 0.011 degrees."""
    entries = aasce_datalist(real_data("aasce_spine_xrays"))[::8]
    for entry in entries:
        size = np.array(Image.open(entry["image"]).size)
        fractions = entry["landmarks"] / (1000 * size[0] / size[1], 1000)
        sizes = [2 * size + (w, h) for w in range(-2, 3) for h in range(-2, 3)]
        points = torch.tensor(np.stack([fractions * each for each in sizes]))
        angles = cobb_angles(points, film_height=torch.tensor([each[1] for each in sizes]))
        assert (angles - torch.tensor(entry["angles"])).abs().amax(-1).min() < 0.011
