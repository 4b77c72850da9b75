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
"""What the doctor measures with is right, by closed forms, bisection and SimpleITK."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.transforms import Resized

from monai_landmarks.transforms import LandmarksWorldToImaged
from monai_landmarks.transforms.landmarks_follow import check_landmarks_follow
from monai_landmarks.transforms.landmarks_follow.measure import contrast_image, find_blob
from monai_landmarks.transforms.landmarks_follow.ramps import refine_by_ramps, roughness

TO_VOXELS = LandmarksWorldToImaged("landmarks", "image", output_keys="points")


@pytest.mark.parametrize("dims", [2, 3])
def test_blobs_are_found_where_they_were_drawn(dims):
    """Any sub-voxel place, any widths, on a background, upright or inverted, with a border on the far side."""
    generator = np.random.default_rng(dims)
    for _ in range(10):
        place = generator.uniform(11, 14, dims)
        width = generator.uniform(1.0, 2.4, dims)
        axes = np.meshgrid(*[np.arange(28.0)] * dims, indexing="ij")
        blob = np.exp(-0.5 * sum(((a - p) / w) ** 2 for a, p, w in zip(axes, place, width, strict=True)))
        sign = generator.choice([-1, 1])
        blank = np.full(blob.shape, 40.0)
        blank[:3] = 0.0
        contrast = contrast_image(torch.tensor(3 + sign * 2 * (blank + 100 * blob)), torch.tensor(blank))
        found = find_blob(contrast, 200.0)
        assert found.state == "seen"
        np.testing.assert_allclose(found.place.numpy(), place, atol=2e-3)
        np.testing.assert_allclose(found.width.numpy(), width, rtol=0.02)


@pytest.mark.parametrize(("place", "state"), [(1.5, "cut"), (13.0, "seen"), (200.0, "absent")])
def test_blobs_cut_by_the_border_and_absent_ones_are_told_apart(place, state):
    axes = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    blob = torch.exp(-((axes[0] - place) ** 2 + (axes[1] - 14.3) ** 2) / 8)
    assert find_blob(blob.double(), 1.0).state == state


def test_a_blob_cut_by_an_earlier_crop_and_padded_is_not_measured():
    axes = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    blob = torch.exp(-((axes[0] - 13) ** 2 + (axes[1] - 14.3) ** 2) / 8).double()
    blank = torch.full_like(blob, 20.0)
    blob[:10], blank[:10] = 0, 0
    assert find_blob(blob, 1.0, blank).state == "cut"


def test_the_middle_of_a_bent_blob_by_ramps():
    """x = q + a sin(q / l) is inverted by bisection; the mean of the bent blob is farther off than the tolerance."""
    size, bend, length = 64, 3.0, 6.0
    q = torch.arange(size, dtype=torch.float64)
    source = q + bend * torch.sin(q / length)
    sent = 12 + 40 * torch.rand(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ramps = torch.stack([source[:, None].expand(size, size), q[None].expand(size, size)])
    truth, blobs = [], []
    for x, y in sent.tolist():
        low, high = x - 4, x + 4
        while high - low > 1e-10:
            middle = (low + high) / 2
            low, high = (middle, high) if middle + bend * math.sin(middle / length) < x else (low, middle)
        truth.append([low, y])
        blob = torch.exp(-((ramps[0] - x) ** 2 + (ramps[1] - y) ** 2) / 8)
        blobs.append(find_blob(blob, 1.0))
    expected, mean = torch.tensor(truth, dtype=torch.float64), torch.stack([blob.place for blob in blobs])
    assert float((mean - expected).norm(dim=-1).max()) > 0.1
    refined = refine_by_ramps(ramps, sent, blobs, 2.0)
    assert refined is not None
    # The ramps are read linearly between voxels, as a pipeline does: second derivative / 8, over the least slope.
    torch.testing.assert_close(refined[0], expected, atol=bend / length**2 / 8 / 0.5, rtol=0)
    assert refined[1] == 0
    for factor, offset in ((0.01, -4.0), (1.03, 0.0), (-2.0, 100.0)):
        rescaled = refine_by_ramps(factor * ramps + offset, sent, blobs, 2.0)
        assert rescaled is not None
        torch.testing.assert_close(rescaled[0], expected, atol=0.03, rtol=0)
        assert 0 < rescaled[1] < 0.03
    assert refine_by_ramps(torch.rand(2, size, size), sent, blobs, 2.0) is None
    assert roughness(ramps, expected) < 0.1 < roughness((1.4 * ramps).floor(), expected)


@pytest.mark.parametrize("shift", [0.0, 0.12, -0.31, 2.7])
def test_a_planted_shift_is_measured(shift):
    def pipeline(item: Any) -> Any:
        out = TO_VOXELS(Resized("image", (88, 97), mode="bilinear")(item))
        return {**out, "points": out["points"] + torch.tensor([shift, 0.0])}

    report = check_landmarks_follow(pipeline, spatial_dims=2, draws=1)
    assert report.stages[0].mean[0].item() == pytest.approx(shift, abs=0.005)
    assert report.stages[0].mean[1].item() == pytest.approx(0.0, abs=0.005)
    assert report.stages[0].mean_mm[0].item() == pytest.approx(shift * 0.2 * 104 / 88, abs=0.005)
    assert report.passed == (shift == 0.0)


def test_simpleitk_agrees_that_the_points_follow():
    """Image and points through SimpleITK's own affine transform: the doctor finds nothing, and finds the wrong side."""
    transform = sitk.AffineTransform(2)
    transform.SetCenter((50.0, 40.0))
    transform.Rotate(0, 1, 0.3)
    transform.Scale((1.1, 0.9))
    transform.Translate((2.5, -1.25))

    def resample(item: Any, inverse: bool) -> Any:
        planes = [
            sitk.GetArrayFromImage(
                sitk.Resample(sitk.GetImageFromArray(plane.T.copy()), transform, sitk.sitkLinear, 0.0)
            ).T
            for plane in item["image"].numpy()
        ]
        move = transform.GetInverse() if inverse else transform
        points = [[np.nan] * 2 if p.isnan().any() else move.TransformPoint(p.tolist()) for p in item["landmarks"]]
        return {"image": MetaTensor(torch.tensor(np.stack(planes))), "points": torch.tensor(points)}

    options: dict[str, Any] = {"affine": np.eye(3), "draws": 1}
    check_landmarks_follow(lambda d: resample(d, True), **options).raise_if_failed()
    assert not check_landmarks_follow(lambda d: resample(d, False), **options).passed
