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
"""Each way in which MONAI's own transforms leave points behind is found and named in one run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from doctoring import SHAPES, TO_VOXELS, doctor, found
from monai.data import MetaTensor
from monai.transforms import (
    Affined,
    ApplyTransformToPointsd,
    Compose,
    RandSimulateLowResolutiond,
    RandSpatialCropd,
    RandZoomd,
    Resized,
    Spacingd,
    SpatialPadd,
    TransformPointsWorldToImaged,
    Transposed,
)

from monai_landmarks.transforms.landmarks_follow import check_landmarks_follow


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("mode", [None, "nearest", "nearest-exact"])
def test_resize_with_a_mode_of_whole_voxels(mode, dims):
    size = (47, 51) if dims == 2 else (29, 31, 25)
    transform = Resized("image", size) if mode is None else Resized("image", size, mode=mode)
    report = doctor(transform, dims)
    found(
        report, "interpolation", f"its mode='{mode or 'area'}'", "Give mode='bilinear'", culprit="transforms[1] Resized"
    )
    assert 0.08 < report.stages[0].worst < 2


def test_zoom_with_its_default_mode():
    report = doctor(RandZoomd("image", prob=1.0, min_zoom=0.7, max_zoom=0.9), 2)
    found(report, "interpolation", "its mode='area'", "Give mode='bilinear'", culprit="transforms[1] RandZoomd")


def test_the_mode_of_the_array_transform_inside_is_not_taken_for_the_one_in_use():
    """Resized(mode="bilinear") holds a Resize whose own default is "area"."""
    compose = Compose([TO_VOXELS, Resized("image", (80, 70), mode="bilinear")])
    report = check_landmarks_follow(compose, spatial_shape=SHAPES[2], draws=1)
    assert "interpolation" not in report.kinds
    assert not report.passed


@pytest.mark.parametrize("dims", [2, 3])
def test_affine_with_align_corners(dims):
    transform = Affined(
        "image",
        rotate_params=0.2 if dims == 2 else (0.1, 0.2, 0.1),
        translate_params=(5, 4, 3)[:dims],
        padding_mode="zeros",
        align_corners=True,
    )
    report = doctor(transform, dims)
    assert not report.passed
    assert 0.05 < report.stages[0].worst < 0.3
    assert report.culprit == "transforms[1] Affined"
    assert "align_corners" in str(report)


@pytest.mark.parametrize(
    ("indices", "dims", "said"),
    [
        ((0, 2, 1), 2, "x and y are exchanged"),
        ((0, 3, 2, 1), 3, "x and z are exchanged"),
        ((0, 2, 3, 1), 3, "x and y and z are exchanged"),
    ],
)
def test_transposition(indices, dims, said):
    report = doctor(Transposed("image", indices=indices), dims)
    found(
        report, "exchanged_axes", said, "the image was transposed", "WithLandmarksd", culprit="transforms[1] Transposed"
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_simulated_low_resolution(dims):
    transform = RandSimulateLowResolutiond(
        "image", prob=1.0, zoom_range=(0.5, 0.8), upsample_mode="bilinear" if dims == 2 else "trilinear"
    )
    found(
        doctor(transform, dims),
        "interpolation",
        "its downsample_mode='nearest'",
        "Give downsample_mode='bilinear'",
        culprit="transforms[1] RandSimulateLowResolutiond",
    )
    harmless = RandSimulateLowResolutiond(
        "image", prob=1.0, zoom_range=(0.5, 0.8), downsample_mode="trilinear", upsample_mode="trilinear"
    )
    if dims == 3:
        assert doctor(harmless).passed


@pytest.mark.parametrize("convert", [TransformPointsWorldToImaged, None], ids=["monai", "own"])
def test_lazy_spacing_outside_a_compose(convert):
    """MONAI's conversion leaves the points in the old grid without a word; the package's own refuses."""
    spacing = Spacingd("image", (1.3, 1.3, 1.3), mode="bilinear", lazy=True)

    def pipeline(item: dict[str, Any]) -> dict[str, Any]:
        if convert is None:
            return TO_VOXELS(spacing(item))
        out = convert("landmarks", "image")({**spacing(item), "landmarks": item["landmarks"][None]})
        return {"image": out["image"], "points": out["landmarks"][0]}

    report = check_landmarks_follow(pipeline, spatial_shape=SHAPES[3], draws=1)
    if convert is None:
        found(report, "refused", "pending lazy operations")
    else:
        found(report, "pending", "leaves the pipeline with lazy operations that wait", "monai.transforms.Compose")
        assert report.stages[0].worst > 3


def test_points_that_inherited_the_images_affine():
    def inherit(item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "points": MetaTensor(item["landmarks"].clone(), affine=item["image"].affine)[None]}

    compose = Compose(
        [
            inherit,
            Resized("image", (36, 40, 30), mode="trilinear"),
            ApplyTransformToPointsd("points", refer_keys="image", dtype=torch.float64),
        ]
    )
    found(
        check_landmarks_follow(compose, spatial_shape=SHAPES[3], draws=1),
        "inherited_affine",
        "were taken for voxels of the input image, because they carry the image's affine",
        "points.as_tensor()",
        culprit="transforms[2] ApplyTransformToPointsd",
    )


def test_conversion_before_the_last_transform():
    crop = RandSpatialCropd("image", (30, 28, 26), random_size=False)
    report = check_landmarks_follow(Compose([TO_VOXELS, crop]), spatial_shape=SHAPES[3], draws=2)
    found(
        report,
        "crop_forgotten",
        "that is the crop",
        "the points were turned into voxels too early",
        culprit="transforms[1] RandSpatialCropd",
    )


def test_mirrored_anatomy_of_reflection_padding_is_warned_of():
    compose = Compose([SpatialPadd("image", (110, 60), mode="reflect"), TO_VOXELS])
    report = check_landmarks_follow(compose, spatial_shape=SHAPES[2], draws=1)
    assert report.passed
    assert report.kinds == ["mirrored_anatomy"]
    assert "are in the image twice" in str(report)
