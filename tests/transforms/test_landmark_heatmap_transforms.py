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
"""Heatmaps as transforms: grid, affine, units, missing landmarks; decoding items."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from monai.transforms import Compose, LoadImaged, RandAffined, Spacing, Spacingd, SpatialPadd

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.transforms import (
    DecodeLandmarkHeatmap,
    DecodeLandmarkHeatmapd,
    GenerateLandmarkHeatmap,
    GenerateLandmarkHeatmapd,
    LandmarksWorldToImaged,
)

NAN = float("nan")


def image(*shape: int, spacing: tuple[float, ...] | None = None) -> MetaTensor:
    spacing = spacing or (1.0,) * len(shape)
    return MetaTensor(torch.zeros(1, *shape), affine=torch.diag(torch.tensor([*spacing, 1.0])))


@pytest.mark.parametrize("shape", [(9, 11), (9, 7, 8)])
@pytest.mark.parametrize("gamma", [None, 50.0])
def test_values_are_the_formula_at_the_exact_position(shape, gamma):
    centre = torch.tensor([[3.3, 4.6, 2.2]])[:, : len(shape)]
    sigma = 1.3
    heatmap = GenerateLandmarkHeatmap(sigma=sigma, gamma=gamma)(centre, image(*shape))
    assert heatmap.shape == (1, *shape)
    peak = 1.0 if gamma is None else gamma / ((2 * math.pi) ** (len(shape) / 2) * sigma ** len(shape))
    for index in [(0,) * len(shape), (3, 5, 2)[: len(shape)]]:
        squared = sum((i - c) ** 2 for i, c in zip(index, centre[0].tolist(), strict=True))
        assert heatmap[(0, *index)].item() == pytest.approx(peak * math.exp(-squared / (2 * sigma**2)), rel=1e-4)


def test_sigma_mm_is_divided_by_the_voxel_size_of_each_axis():
    spacing = (0.5, 2.0, 1.0)
    heatmap = GenerateLandmarkHeatmap(sigma_mm=2.0)([[8.0, 8, 8]], image(17, 17, 17, spacing=spacing))[0]
    for axis in range(3):
        index = [8, 8, 8]
        index[axis] += 1
        assert heatmap[tuple(index)].item() == pytest.approx(math.exp(-(spacing[axis] ** 2) / 8), rel=1e-5)


def test_sigma_mm_with_axes_that_are_permuted_against_the_world():
    affine = torch.tensor([[0.0, 2.0, 0], [0.5, 0, 0], [0, 0, 1]])
    heatmap = GenerateLandmarkHeatmap(sigma_mm=2.0)([[8.0, 8]], MetaTensor(torch.zeros(1, 17, 17), affine=affine))[0]
    assert heatmap[9, 8].item() == pytest.approx(math.exp(-0.25 / 8), rel=1e-5)
    assert heatmap[8, 9].item() == pytest.approx(math.exp(-4 / 8), rel=1e-5)


def test_sigma_per_landmark_and_truncation():
    points = torch.tensor([[8.0, 8.0], [8.0, 8.0]])
    maps = GenerateLandmarkHeatmap(sigma=[[1.0], [3.0]])(points, image(17, 17))
    assert maps[0, 8, 9].item() == pytest.approx(math.exp(-0.5))
    assert maps[1, 8, 9].item() == pytest.approx(math.exp(-1 / 18))
    cut = GenerateLandmarkHeatmap(sigma=1.0, truncated=3.0)(points, image(17, 17))
    assert cut[0, 8, 12].item() == 0
    assert cut[0, 8, 11].item() > 0


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_grid_is_the_images_as_it_is_now_and_not_the_files(tmp_path, lazy):
    """MONAI's GenerateHeatmapd takes the grid from meta["spatial_shape"], which no transform updates."""
    import nibabel as nib

    nib.save(nib.Nifti1Image(np.zeros((20, 22, 24), np.float32), np.diag([1, 1, 2, 1])), tmp_path / "v.nii.gz")
    compose = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            Spacingd("image", pixdim=1.5, mode="bilinear"),
            SpatialPadd("image", spatial_size=(30, 8, 8)),
            LandmarksWorldToImaged("landmarks", "image", output_keys="points"),
            GenerateLandmarkHeatmapd("points", "heatmap", "image", sigma_mm=3.0),
        ],
        lazy=lazy,
    )
    item = compose({"image": str(tmp_path / "v.nii.gz"), "landmarks": [[5.0, 6.0, 7.0]]})
    assert tuple(item["image"].meta["spatial_shape"]) == (20, 22, 24)
    assert item["heatmap"].shape == item["image"].shape
    torch.testing.assert_close(item["heatmap"].affine, item["image"].affine)
    assert item["heatmap"].meta["filename_or_obj"] == str(tmp_path / "v.nii.gz")
    assert not item["heatmap"].applied_operations
    peak = np.unravel_index(int(item["heatmap"][0].argmax()), item["image"].shape[1:])
    np.testing.assert_array_equal(peak, item["points"][0].round())


def test_maps_go_through_later_transforms_with_the_image():
    compose = Compose(
        [
            GenerateLandmarkHeatmapd("points", "heatmap", "image", sigma=2.0),
            RandAffined(["image", "heatmap"], prob=1.0, rotate_range=0.5, mode="bilinear", padding_mode="zeros"),
        ]
    ).set_random_state(0)
    item = compose({"image": image(40, 40), "points": torch.tensor([[15.0, 22.0]])})
    torch.testing.assert_close(item["heatmap"].affine, item["image"].affine)
    batch = list_data_collate([item, item])
    assert batch["heatmap"].shape == (2, 1, 40, 40)


def test_peer_defect_13_a_missing_landmark_is_a_zero_map_and_marked():
    """A peer's map is NaN everywhere, or a false landmark at the origin."""
    draw = GenerateLandmarkHeatmapd(["p", "q"], ["hp", "hq"], "image", sigma=1.0, present_keys=["mp", "mq"])
    item = draw({"image": image(8, 8), "p": [[NAN, NAN], [3.0, 4.0]], "q": [[0.0, 0.0]]})
    assert not item["hp"][0].any()
    assert item["mp"].tolist() == [False, True]
    assert item["hq"][0, 0, 0].item() == 1
    assert item["mq"].tolist() == [True]


def test_a_point_in_the_outer_half_of_a_border_voxel_is_drawn():
    """MONAI's rounding and its test 0 <= p < size lose it."""
    assert GenerateLandmarkHeatmap(sigma=1.0)([[-0.4, 7.4]], image(8, 8))[0, 0, 7].item() == pytest.approx(
        math.exp(-(0.4**2 + 0.4**2) / 2)
    )


def test_a_plain_tensor_serves_as_grid():
    heatmap = GenerateLandmarkHeatmap(sigma=1.0)([[3.0, 4.0]], torch.zeros(3, 8, 9))
    assert type(heatmap) is torch.Tensor
    assert heatmap.shape == (1, 8, 9)


def test_float16_and_float64_maps():
    for dtype in (torch.float16, torch.float64):
        assert GenerateLandmarkHeatmap(sigma=1.0, dtype=dtype)([[3.0, 4.0]], image(8, 9)).dtype == dtype


def test_generator_errors():
    with pytest.raises(ValueError, match=r"either sigma .* or sigma_mm"):
        GenerateLandmarkHeatmap()
    with pytest.raises(ValueError, match=r"either sigma .* or sigma_mm"):
        GenerateLandmarkHeatmap(sigma=1.0, sigma_mm=1.0)
    with pytest.raises(ValueError, match="positive"):
        GenerateLandmarkHeatmap(sigma=0)
    with pytest.raises(ValueError, match="key of its own"):
        GenerateLandmarkHeatmapd(["a", "b"], "heatmap", "image", sigma=1.0)
    draw = GenerateLandmarkHeatmap(sigma_mm=1.0)
    with pytest.raises(LandmarkError, match="sigma_mm needs an image with an affine"):
        draw([[1.0, 2.0]], torch.zeros(1, 8, 8))
    with pytest.raises(LandmarkError, match=r"got points \(1, 2\) and image \(1, 8, 8, 8\)"):
        draw([[1.0, 2.0]], image(8, 8, 8))
    with pytest.raises(LandmarkError, match=r"batches are drawn by"):
        draw(torch.zeros(2, 1, 2), image(8, 8))
    with pytest.raises(LandmarkError, match="pending lazy"):
        draw([[1.0, 2.0, 3.0]], Spacing(pixdim=2.0, lazy=True)(image(8, 8, 8)))
    with pytest.raises(LandmarkError, match="refer_keys names 'img'"):
        GenerateLandmarkHeatmapd("p", "h", "img", sigma=1.0)({"p": [[1.0, 2.0]], "image": image(8, 8)})


# ------------------------------------------------------------------------------------------------------------- decoding


@pytest.mark.parametrize("shape", [(24, 20), (16, 14, 12)])
@pytest.mark.parametrize("method", ["dark", "quadratic", "argmax"])
def test_decoding_an_item(shape, method):
    truth = torch.tensor([[8.3, 7.6, 5.9], [4.0, 9.0, 6.0]])[:, : len(shape)]
    maps = GenerateLandmarkHeatmap(sigma=2.0)(truth, image(*shape))
    points, confidence, extrapolated = DecodeLandmarkHeatmap(method=method)(maps)
    assert type(points) is torch.Tensor
    assert type(confidence) is torch.Tensor
    assert points.shape == truth.shape
    assert confidence.shape == (2,)
    assert extrapolated.tolist() == [False, False]
    torch.testing.assert_close(points, truth, atol=0.5 if method == "argmax" else 0.02, rtol=0)


def test_several_landmarks_in_3d_are_not_taken_for_a_batch_of_2d_maps():
    truth = torch.tensor([[3.0, 4.0, 5.0]] * 5)
    points, *_ = DecodeLandmarkHeatmap(method="argmax")(GenerateLandmarkHeatmap(sigma=1.0)(truth, image(8, 9, 10)))
    assert points.tolist() == truth.tolist()


def test_low_confidence_is_missing_and_results_carry_no_meta():
    maps = MetaTensor(torch.stack([0.2 * torch.eye(9), torch.eye(9)]), affine=5 * torch.eye(3))
    maps[0, 4, 4], maps[1, 4, 4] = 0.4, 2.0
    decode = DecodeLandmarkHeatmapd("pred", "points", "confidence", method="argmax", min_confidence=0.5)
    item = decode({"pred": maps})
    assert item["points"].isnan().all(dim=1).tolist() == [True, False]
    assert item["points"][1].tolist() == [4.0, 4.0]
    assert not hasattr(item["points"], "affine")
    assert not hasattr(item["confidence"], "affine")
    flagged = DecodeLandmarkHeatmapd("pred", "points", extrapolated_keys="flag", method="argmax")({"pred": maps})
    assert flagged["flag"].tolist() == [False, False]
    assert "confidence" not in DecodeLandmarkHeatmapd("pred", "points", method="argmax")({"pred": maps})


def test_decoder_errors():
    with pytest.raises(LandmarkError, match="decollate the batch first"):
        DecodeLandmarkHeatmap()(torch.zeros(2, 3, 8, 8, 8))
    with pytest.raises(ValueError, match="darkk"):
        DecodeLandmarkHeatmap(method="darkk")
    with pytest.raises(ValueError, match=r"'argmax' has no option 'windw'"):
        DecodeLandmarkHeatmapd("pred", "points", method="argmax", windw=3)
    DecodeLandmarkHeatmap(method="gaussian_fit", window=(7, 7, 5))
