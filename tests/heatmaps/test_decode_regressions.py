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
"""Faults measured in other toolboxes, row by row: our counterpart does the right thing."""

from __future__ import annotations

import time

import pytest
import torch

from monai_landmarks.heatmaps import DecodeMethod, decode_heatmaps, fit_gaussians, gaussian_heatmaps

METHODS = [str(method) for method in DecodeMethod]


@pytest.mark.parametrize("spot", [(60.3, 200.7), (255.5, 255.5), (20.25, 500.5)])
def test_row_5_soft_argmax_does_not_return_the_middle_of_the_image(spot):
    maps = gaussian_heatmaps(torch.tensor([spot]), (512, 512), sigma=1.0)
    point = decode_heatmaps(maps, "local_soft_argmax").points
    assert (point - torch.tensor([spot])).abs().max() <= 0.01


@pytest.mark.parametrize("height", [100.0, 1e4, 1e30, 1e-4, 1e-30])
@pytest.mark.parametrize("name", METHODS)
def test_row_6_no_overflow_at_large_values_and_no_loss_at_small_ones(name, height):
    truth = torch.tensor([[20.3, 30.6]])
    point = decode_heatmaps(height * gaussian_heatmaps(truth, (48, 48), sigma=3.0), name).points
    assert (point - truth).abs().max() <= (0.5 if name == "argmax" else 0.01)


@pytest.mark.parametrize("name", METHODS)
def test_row_7_an_all_zero_map_is_a_missing_landmark_on_purpose(name):
    found = decode_heatmaps(torch.zeros(1, 2, 16, 16), name)
    assert torch.isnan(found.points).all()
    assert (found.confidence == 0).all()


@pytest.mark.parametrize("sigma", [1.5, 3.0, 5.0])
@pytest.mark.parametrize("name", ["local_soft_argmax", "center_of_mass"])
def test_row_11_windowed_means_have_no_bias_at_the_border(name, sigma):
    truth = torch.tensor([[0.0, 0.0], [0.5, 20.2], [0.3, 39.0], [38.8, 0.49], [39.0, 39.0], [1.5, 2.5]])
    point = decode_heatmaps(gaussian_heatmaps(truth, (40, 40), sigma), name).points
    assert (point - truth).abs().max() <= 0.01


def test_fitting_19_gaussians_takes_far_less_than_a_second():
    maps = gaussian_heatmaps(20 + 400 * torch.rand(19, 2), (512, 512), sigma=3.0)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        fit_gaussians(maps)
        seconds.append(time.perf_counter() - start)
    print(f"fit of 19 Gaussians in 512 x 512: {1e3 * min(seconds):.2f} ms")
    assert min(seconds) < 1
