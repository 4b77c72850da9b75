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
"""A grid with a free axis: scans of any length keep their length, at the wanted voxel size and around their centre."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.transforms import FitToGrid, FitToGridd, LandmarksWorldToImaged, RandSpatialLandmarksd


def scan(*shape: int) -> MetaTensor:
    """A ramp along the last axis in world millimetres."""
    ramp = (torch.arange(shape[-1]) * 3.0).expand(1, *shape)
    return MetaTensor(ramp.clone(), affine=torch.diag(torch.tensor([1.0, 1.0, 3.0, 1.0])))


@pytest.mark.parametrize("length", [1, 2, 7, 50, 301])
def test_length_is_kept_in_millimetres(length: int) -> None:
    fitted, _ = FitToGrid((16, 16, -1), pixdim=2.0, padding_mode="border")(scan(20, 24, length))
    assert fitted.shape[1:3] == (16, 16)
    assert abs(fitted.shape[3] * 2.0 - length * 3.0) <= 1.0
    # Centre on centre, whatever the rounding of the length.
    middle = [(n - 1) / 2 for n in fitted.shape[1:]] + [1.0]
    world = fitted.affine @ torch.tensor(middle, dtype=fitted.affine.dtype)
    torch.testing.assert_close(world[2].item(), (length - 1) / 2 * 3.0)


def test_ramp_reads_as_world_position_along_the_free_axis() -> None:
    fitted, _ = FitToGrid((8, 8, -1), pixdim=2.0, antialias=False)(scan(10, 10, 40))
    z = fitted.affine[2, 3] + 2.0 * torch.arange(fitted.shape[3])
    torch.testing.assert_close(fitted[0, 4, 4, 1:-1].as_tensor(), z[1:-1].float(), atol=1e-3, rtol=0)


def test_all_axes_free_is_a_resampling_of_the_whole() -> None:
    every, _ = FitToGrid((-1, -1, -1), pixdim=2.0)(scan(10, 12, 8))
    assert every.shape == (1, 5, 6, 12)


def test_points_and_random_maps_go_along() -> None:
    item = {"image": scan(20, 20, 30), "points": torch.tensor([[9.0, 8.0, 60.0]])}
    transform = RandSpatialLandmarksd(
        "image", "points", spatial_size=(12, 12, -1), pixdim=2.0, rotate_range=0.1, elastic_range_mm=2, elastic_nodes=5
    ).set_random_state(0)
    out = LandmarksWorldToImaged("points", "image", output_keys="voxels")(transform(item))
    assert out["image"].shape == (1, 12, 12, 45)
    z = out["voxels"][0].round().long()
    assert abs(float(out["image"][0][tuple(z)]) - 60.0) < 3.0


def test_fit_looks_at_the_fixed_axes_only() -> None:
    fitted, _ = FitToGridd("image", (10, 10, -1), pixdim="fit")({"image": scan(20, 10, 30)})["image"], None
    assert fitted.shape == (1, 10, 10, 45)


@pytest.mark.parametrize(
    ("size", "pixdim", "message"),
    [
        ((8, 8, 0), 2.0, "positive, or -1 for a free axis"),
        ((8, 8, -2), 2.0, "positive, or -1 for a free axis"),
        ((-1, -1, -1), "fit", "needs a size for at least one axis"),
    ],
)
def test_size_that_cannot_be(size: tuple, pixdim: object, message: str) -> None:
    with pytest.raises(LandmarkError, match=message):
        FitToGrid(size, pixdim=pixdim)(scan(10, 10, 10))
