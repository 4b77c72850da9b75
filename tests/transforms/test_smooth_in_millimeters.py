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

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.transforms import SmoothInMillimeters, SmoothInMillimetersd


def film(*shape: int, spacing: tuple[float, ...]) -> MetaTensor:
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    return MetaTensor(torch.randn(1, *shape), affine=affine)


@pytest.mark.parametrize(("shape", "spacing"), [((40, 30), (0.2, 0.4)), ((16, 20, 12), (0.5, 0.7, 1.0))])
def test_width_is_in_millimetres_on_every_axis(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    image = film(*shape, spacing=spacing)
    sigma_mm = 1.5
    expected = gaussian_filter(image[0].numpy(), [sigma_mm / s for s in spacing], mode="nearest", truncate=6)
    result = SmoothInMillimeters(sigma_mm, truncated=6)(image)
    # MONAI's kernel integrates the Gaussian over a voxel, scipy's samples it.
    assert np.abs(result[0].numpy() - expected).max() < 0.05 * np.abs(expected).max() + 0.02
    assert torch.equal(result.affine, image.affine)


def test_a_constant_image_stays_constant_up_to_its_border() -> None:
    image = MetaTensor(torch.full((1, 9, 7), 3.0), affine=torch.eye(3))
    torch.testing.assert_close(SmoothInMillimeters(2.0)(image).as_tensor(), image.as_tensor(), rtol=1e-4, atol=0)


def test_zero_leaves_the_image_as_it_is_and_keys_are_optional() -> None:
    image = film(8, 8, spacing=(1.0, 1.0))
    smooth = SmoothInMillimetersd("image", 0.0, allow_missing_keys=True)
    assert smooth({"image": image})["image"] is image
    assert smooth({"other": 1}) == {"other": 1}


def test_negative_width_and_image_without_geometry_are_refused() -> None:
    with pytest.raises(LandmarkError, match="0 or positive"):
        SmoothInMillimeters(-1.0)
    with pytest.raises(LandmarkError, match="MetaTensor"):
        SmoothInMillimeters(1.0)(torch.zeros(1, 8, 9))
