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
"""Exact coverage, splines and the film canvas, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_landmarks.data.phantoms.drawing import (
    Film,
    ellipse,
    enlarge_twice,
    spline,
    stroke_outline,
    text_bitmap,
)


def film(width: int = 24, height: int = 20) -> Film:
    # origin_pixel_mm = 0 puts world 0 at the corner of the film, so that millimetres are pixels.
    return Film((width, height), (width, height), 1.0, origin_pixel_mm=0.0)


@given(
    left=st.floats(-3, 20),
    top=st.floats(-3, 20),
    width=st.floats(0.1, 12),
    height=st.floats(0.1, 12),
    flip=st.booleans(),
)
def test_box_coverage_is_the_product_of_overlaps(left, top, width, height, flip):
    canvas = film()
    corners = np.array([(left, top), (left + width, top), (left + width, top + height), (left, top + height)])
    canvas.fill(corners[::-1] if flip else corners, 2.0)

    def overlap(count: int, low: float, high: float) -> np.ndarray:
        cell = np.arange(count)
        return np.clip(np.minimum(cell + 1, high) - np.maximum(cell, low), 0, None)

    expected = 2 * np.outer(overlap(20, top, top + height), overlap(24, left, left + width))
    np.testing.assert_allclose(canvas.attenuation(), expected, atol=1e-5)


def test_slanted_edge_covers_the_triangle():
    canvas = film(4, 4)
    canvas.fill(np.array([(0, 0), (4, 4), (0, 4)]), 1.0)
    np.testing.assert_allclose(canvas.attenuation(), np.tri(4) - 0.5 * np.eye(4), atol=1e-6)


def test_area_of_an_ellipse_partly_off_the_film():
    whole, half = film(), film()
    whole.fill(ellipse(np.array([12.0, 10.0]), (7.0, 5.0), 400), 1.0)
    half.fill(ellipse(np.array([0.0, 10.0]), (7.0, 5.0), 400), 1.0)
    assert whole.attenuation().sum() == pytest.approx(np.pi * 35, rel=1e-3)
    assert half.attenuation().sum() == pytest.approx(np.pi * 35 / 2, rel=1e-3)


def test_coarse_film_is_the_box_reduction_of_the_fine_one():
    outline = spline(np.array([(1.0, 2.0), (8.5, 1.2), (10.2, 7.7), (3.1, 8.9)]), closed=True)
    fine, coarse = (Film((12.0, 12.0), (12 * k, 12 * k), 1 / k, 0.0) for k in (8, 2))
    fine.fill(outline, 1.0)
    coarse.fill(outline, 1.0)
    reduced = fine.attenuation().reshape(24, 4, 24, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(coarse.attenuation(), reduced, atol=1e-5)


def test_outlines_add_up_and_order_does_not_matter():
    outlines = [ellipse(np.array([8.0 + n, 9.0]), (4.0, 3.0)) for n in range(3)]
    together, alone = film(), [film() for _ in outlines]
    for outline, single in zip(outlines, alone, strict=True):
        together.fill(outline, 0.5)
        single.fill(outline, 0.5)
    np.testing.assert_allclose(together.attenuation(), sum(f.attenuation() for f in alone), atol=1e-5)


def test_blurred_layers_keep_their_total():
    sharp, soft, cloud = (Film((60.0, 60.0), (150, 150), 0.4) for _ in range(3))
    outline = ellipse(np.array([30.0, 30.0]), (9.0, 7.0))
    sharp.fill(outline, 1.0)
    soft.shade(outline, 1.0)
    cloud.cloud(outline, 1.0)
    totals = [f.attenuation().sum() for f in (sharp, soft, cloud)]
    assert totals[1] == pytest.approx(totals[0], rel=0.01)
    assert totals[2] == pytest.approx(totals[0], rel=0.01)


@pytest.mark.parametrize("closed", [False, True])
def test_spline_passes_through_its_control_points(closed):
    points = np.array([(0.0, 0.0), (3.0, 1.0), (5.0, 5.0), (5.0, 5.0), (1.0, 6.0)])
    curve = spline(points, closed=closed, samples=6)
    np.testing.assert_allclose(curve[::6][:5], points, atol=1e-12)


def test_doubled_control_point_is_a_corner_without_a_loop():
    curve = spline(np.array([(0.0, 0.0), (10.0, 0.0), (10.0, 0.0), (10.0, 10.0)]), samples=16)
    assert curve[:, 0].max() <= 10 + 1e-9
    assert curve[:, 1].min() >= -1e-9


def test_line_has_its_width_and_an_inside_line_stays_inside():
    canvas = film()
    canvas.fill(stroke_outline(np.array([(2.0, 10.0), (22.0, 10.0)]), 3.0), 1.0)
    assert canvas.attenuation().sum() == pytest.approx(60, rel=1e-5)
    circle = ellipse(np.array([12.0, 10.0]), (8.0, 8.0), 200)
    ring = stroke_outline(circle, 1.0, closed=True, inside=True)
    radius = np.linalg.norm(ring - (12.0, 10.0), axis=-1)
    assert radius.max() <= 8 + 1e-6
    assert radius.min() == pytest.approx(7, abs=1e-3)


def test_doubling_keeps_a_ramp_at_its_place():
    ramp = np.add.outer(np.arange(6.0), 2 * np.arange(5.0))
    double = enlarge_twice(ramp, 12, 10)
    # Pixel centres of the doubled grid lie at (x + 0.5) / 2 - 0.5.
    y, x = ((np.arange(n) + 0.5) / 2 - 0.5 for n in (12, 10))
    np.testing.assert_allclose(double[1:-1, 1:-1], np.add.outer(y, 2 * x)[1:-1, 1:-1])


def test_digits_differ():
    bitmaps = [text_bitmap(letter).tobytes() for letter in "0123456789NS"]
    assert len(set(bitmaps)) == 12
