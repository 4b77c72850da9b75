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
"""Uncertainty of Cobb angles: first order against drawing, closed form, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_landmarks.data.phantoms.spine_film import draw_spine_shape
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.measurements.cobb import cobb_angles, cobb_curves
from monai_landmarks.measurements.cobb_uncertainty import cobb_uncertainty, sample_cobb_angles

NAMES = [f"{v}_{c}" for v in ("L1", "L2", "L3") for c in ("top_left", "top_right", "bottom_left", "bottom_right")]


def three_bodies() -> torch.Tensor:
    """Level, tilted by 45 degrees, level but for one: end vertebrae far from any tie."""
    level = np.array([(0.0, 0.0), (40, 0), (0, 20), (40, 20)])
    turned = np.array([(0.0, 60.0), (28, 88), (-14, 74), (14, 102)])
    other = np.array([(0.0, 130.0), (40, 140), (0, 150), (40, 160)])
    return torch.tensor(np.concatenate([level, turned, other]))


def test_draws_have_the_spread_of_the_first_order():
    points = three_bodies()
    first = cobb_uncertainty(points, 0.3, NAMES)
    draws = sample_cobb_angles(points, 0.3, 20000, NAMES)
    assert torch.isnan(first[1])
    torch.testing.assert_close(draws.std(0)[[0, 2]], first[[0, 2]], rtol=0.02, atol=0)


def test_errors_along_the_edges_do_not_count_and_each_corner_has_its_own():
    points = three_bodies()
    per_axis = torch.zeros(12, 2, dtype=torch.float64)
    per_axis[:4, 0] = 5.0  # along a level body: no first-order effect
    per_axis[4:8] = 0.2
    first = cobb_uncertainty(points, per_axis, NAMES)
    width = np.hypot(28, 28)
    assert first[0].item() == pytest.approx(np.rad2deg(0.2 / width), rel=1e-9)
    per_corner = torch.tensor([0.1, 0.2, 0.3, 0.4] * 3)[:, None]
    draws = sample_cobb_angles(points, per_corner, 20000, NAMES)
    torch.testing.assert_close(
        draws.std(0)[[0, 2]], cobb_uncertainty(points, per_corner, NAMES)[[0, 2]], rtol=0.02, atol=0
    )


def test_same_as_the_gradient_propagated():
    """Oracle: autograd's Jacobian of the angles."""
    spines = [draw_spine_shape(*np.random.default_rng(seed).spawn(2)) for seed in range(4)]
    for own in spines:
        points = torch.tensor(own.corners[own.named].reshape(-1, 2))
        jacobian = torch.autograd.functional.jacobian(cobb_angles, points)
        sd = torch.rand(68, 2, dtype=torch.float64)
        ends = cobb_curves(points).ends
        wanted = (jacobian * sd).square().sum((1, 2)).sqrt()
        wanted[ends[:, 0] == ends[:, 1]] = torch.nan
        torch.testing.assert_close(cobb_uncertainty(points, sd), wanted, equal_nan=True)


def test_noise_enlarges_the_main_angle_of_a_nearly_straight_spine():
    own = draw_spine_shape(*np.random.default_rng(0).spawn(2), scoliosis=0.0)
    points = torch.tensor(own.corners[own.named].reshape(-1, 2))
    draws = sample_cobb_angles(points, 0.5, 200)
    assert draws[:, 0].mean() > cobb_angles(points)[0] + 2


def test_batches_missing_corners_and_seeds():
    points = three_bodies().expand(2, 12, 2).clone()
    points[0, 3] = torch.nan
    first = cobb_uncertainty(points, 0.1, NAMES)
    assert torch.isnan(first[0]).all()
    assert torch.equal(first[1, [0, 2]], cobb_uncertainty(points[1], 0.1, NAMES)[[0, 2]])
    draws = sample_cobb_angles(points, 0.1, 5, NAMES)
    assert draws.shape == (5, 2, 3)
    assert torch.isnan(draws[:, 0]).all()
    assert torch.equal(draws[:, 1], sample_cobb_angles(points, 0.1, 5, NAMES)[:, 1])
    assert not torch.equal(draws[:, 1], sample_cobb_angles(points, 0.1, 5, NAMES, seed=1)[:, 1])


@pytest.mark.parametrize(
    ("sd", "message"),
    [(-1.0, "some are negative"), (float("nan"), "NaN"), (torch.ones(12), r"last axis of size one, `sd\[..., None\]`")],
)
def test_spread_that_cannot_be(sd, message):
    with pytest.raises(LandmarkError, match=message):
        cobb_uncertainty(three_bodies(), sd, NAMES)


def test_no_draws():
    with pytest.raises(ValueError, match="draws must be at least 1"):
        sample_cobb_angles(three_bodies(), 0.1, 0, NAMES)
