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
"""Windows of whole voxels around points, each against a loop over voxels."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialCrop, SpatialPad

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.geometry.windows import crop_origins, crops_around_points, windows

NAN = float("nan")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
CASES = [
    ((17, 12), (5, 4)),
    ((17, 12), (30, 3)),  # larger than the image on one axis
    ((9, 11, 7), (4, 3, 6)),
    ((9, 11, 7), (1, 20, 2)),
]


def ramp(*shape: int) -> torch.Tensor:
    return torch.arange(float(np.prod(shape))).reshape(shape) + 1


def numpy_window(image: np.ndarray, origin: Any, size: Any, mode: str, value: float) -> np.ndarray:
    """One voxel after the other."""
    out = np.full((image.shape[0], *size), value, dtype=image.dtype)
    for place in itertools.product(*[range(n) for n in size]):
        index = np.array(place) + np.asarray(origin)
        if mode == "edge":
            index = np.clip(index, 0, np.array(image.shape[1:]) - 1)
        if ((index >= 0) & (index < image.shape[1:])).all():
            out[(slice(None), *place)] = image[(slice(None), *index)]
    return out


@pytest.mark.parametrize("mode", ["constant", "edge"])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("shape", "size"), CASES)
def test_crops_are_the_voxels_around_the_points(shape: Any, size: Any, device: str, mode: str) -> None:
    """Inside, over every border, wholly outside and missing: each against a loop over voxels."""
    dims = len(shape)
    rng = np.random.default_rng(0)
    images = ramp(2, 3, *shape)
    points = torch.as_tensor(rng.uniform(-8, np.array(shape) + 8, (2, 6, dims)))
    points[0, 1], points[1, 4], points[0, 2] = NAN, NAN, torch.tensor([1000.0] * dims)
    crops, origins, present = crops_around_points(images.to(device), points.to(device), size, mode, value=-7.0)
    assert crops.shape == (2, 6, 3, *size)
    assert crops.device.type == device
    assert origins.dtype == torch.int64
    for b, n in itertools.product(range(2), range(6)):
        expected = numpy_window(images[b].numpy(), origins[b, n].tolist(), size, mode, -7.0)
        np.testing.assert_array_equal(crops[b, n].cpu().numpy(), expected)
        assert bool(present[b, n]) is not bool(points[b, n].isnan().any())
        centre = points[b, n] if present[b, n] else (torch.tensor(shape) - 1) / 2
        middle = origins[b, n].cpu() + (torch.tensor(size) - 1) / 2
        assert (middle - centre).abs().max() <= 0.5 + 2e-6


def test_a_point_in_the_crop_plus_the_origin_is_the_point_in_the_image() -> None:
    points = torch.as_tensor(np.random.default_rng(1).uniform(0, 30, (2, 5, 2)))
    x, y = torch.meshgrid(torch.arange(32.0), torch.arange(31.0), indexing="ij")
    coordinates = torch.stack([x, y]).expand(2, -1, -1, -1)  # an image whose intensities are its own indices
    crops, origins, _ = crops_around_points(coordinates, points, (7, 8), mode="edge")
    local = torch.tensor([3, 4])
    seen = crops[..., 3, 4].double()
    within = ((origins + local >= 0) & (origins + local < torch.tensor([32, 31]))).all(-1)
    assert within.sum() >= 8
    assert torch.equal(seen[within], (origins + local).double()[within])
    torch.testing.assert_close((points - origins) + origins, points, atol=1e-13, rtol=0)


@pytest.mark.parametrize(("shape", "size"), [((17, 12), (5, 4)), ((9, 11, 7), (4, 3, 6))])
def test_whole_points_give_monais_windows_after_enough_padding(shape: Any, size: Any) -> None:
    image = ramp(1, *shape)
    reach = 10
    padded = SpatialPad([n + 2 * reach for n in shape])(image)
    for point in ([0] * len(shape), [n - 1 for n in shape], [n // 2 for n in shape]):
        centre = torch.tensor(point) + reach
        expected = SpatialCrop(roi_center=centre, roi_size=size)(padded)
        got = crops_around_points(image[None], torch.tensor(point, dtype=torch.float32)[None, None], size).crops[0, 0]
        assert torch.equal(got, expected.as_tensor())


def test_a_rounding_error_of_a_whole_point_does_not_move_the_window() -> None:
    exact = crop_origins(torch.tensor([[5.0, 5.0]], dtype=torch.float64), (4, 5))
    for error in (-1e-9, 1e-9):
        assert torch.equal(crop_origins(torch.tensor([[5.0, 5.0]], dtype=torch.float64) + error, (4, 5)), exact)


def test_any_type_of_image_and_gradients() -> None:
    point = torch.tensor([[[0.0, 0.0]]])
    for dtype in (torch.uint8, torch.bool, torch.float16):
        crops = crops_around_points(torch.ones(1, 1, 4, 4).to(dtype), point, 3).crops
        assert crops.dtype == dtype
        assert crops.sum() == 4
    images = torch.rand(1, 1, 6, 6, requires_grad=True)
    crops_around_points(images, torch.tensor([[[2.0, 2.0], [2.0, 3.0]]]), 2).crops.sum().backward()
    assert images.grad is not None
    assert images.grad.sum() == 8
    assert type(crops_around_points(MetaTensor(torch.rand(1, 1, 6, 6)), point, 2).crops) is torch.Tensor


@pytest.mark.parametrize(
    ("images", "points", "size", "match"),
    [
        (torch.zeros(1, 8, 8), torch.zeros(1, 2, 2), 3, "batch axis"),
        (torch.zeros(2, 1, 8, 8), torch.zeros(3, 2, 2), 3, "same batch"),
        (torch.zeros(2, 1, 8, 8), torch.zeros(2, 4, 3), 3, "3D points for a 2D image"),
        (torch.zeros(2, 1, 8, 8), torch.zeros(2, 2, 2), (3, 3, 3), "2 axes"),
        (torch.zeros(2, 1, 8, 8), torch.zeros(2, 2, 2), 2.5, "whole number"),
        (torch.zeros(2, 1, 8, 8), torch.full((2, 2, 2), float("inf")), 3, "infinite"),
    ],
)
def test_shapes_that_do_not_fit(images: Any, points: Any, size: Any, match: str) -> None:
    with pytest.raises(LandmarkError, match=match):
        crops_around_points(images, points, size)
    with pytest.raises(ValueError, match="reflect"):
        crops_around_points(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 2), 3, mode="reflect")


def test_windows_of_a_batch_may_begin_anywhere() -> None:
    images = ramp(2, 1, 4, 5)
    got = windows(images, torch.tensor([[[0, 0]], [[2, -1]]]), (2, 2), value=0.0)
    assert torch.equal(got[0, 0, 0], images[0, 0, :2, :2])
    assert got[1, 0, 0].tolist() == [[0.0, images[1, 0, 2, 0]], [0.0, images[1, 0, 3, 0]]]
