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
"""Elastic transforms of MONAI that leave points behind are found and named, and their repair passes."""

from __future__ import annotations

import pytest
from doctoring import SHAPES, TO_VOXELS, doctor, found
from monai.transforms import (
    Compose,
    Rand2DElasticd,
    Rand3DElasticd,
    RandGridDistortiond,
    RandSmoothDeformd,
    Resized,
    Spacingd,
    Transposed,
)

from monai_landmarks.transforms.landmarks_follow import check_landmarks_follow


@pytest.mark.parametrize(
    ("transform", "dims"),
    [
        (Rand3DElasticd("image", (5, 7), (200, 250), prob=1.0, padding_mode="zeros"), 3),
        (
            Rand3DElasticd(
                "image", (5, 7), (150, 200), prob=1.0, rotate_range=0.2, translate_range=(3, 3, 3), padding_mode="zeros"
            ),
            3,
        ),
        (Rand2DElasticd("image", (16, 16), (3, 4), prob=1.0, padding_mode="zeros"), 2),
        (Rand2DElasticd("image", (16, 16), (3, 4), prob=1.0, rotate_range=0.2, padding_mode="zeros"), 2),
        (RandGridDistortiond("image", 4, prob=1.0, distort_limit=0.3, padding_mode="zeros"), 2),
        (RandGridDistortiond("image", 5, prob=1.0, distort_limit=0.25, padding_mode="zeros"), 3),
        (
            RandSmoothDeformd(
                "image", (72, 60), (5, 5), prob=1.0, def_range=0.15, field_mode="bilinear", grid_mode="bilinear"
            ),
            2,
        ),
        (
            RandSmoothDeformd(
                "image", (40, 36, 34), (4, 4, 4), prob=1.0, def_range=0.2, field_mode="trilinear", grid_mode="bilinear"
            ),
            3,
        ),
    ],
    ids=lambda v: type(v).__name__ if not isinstance(v, int) else f"{v}d",
)
def test_elastic_transforms(transform, dims):
    name = type(transform).__name__
    report = doctor(transform, dims)
    assert "elastic_not_followed" in report.kinds
    text = " ".join(str(report).split())
    assert report.culprit == f"transforms[1] {name}"
    for piece in ("the image was deformed", "the points stayed where they were", f"WithLandmarksd({name}(...)"):
        assert piece in text
    assert report.stages[0].worst > 1


def test_elastic_transform_that_only_rotates_and_shifts():
    transform = Rand3DElasticd(
        "image", (5, 7), (0, 1e-4), prob=1.0, rotate_range=0.2, translate_range=(3, 3, 3), padding_mode="zeros"
    )
    found(
        doctor(transform),
        "not_followed",
        "the image was moved (rotation by",
        "The image's affine does not say what was done",
        "WithLandmarksd(Rand3DElasticd(...)",
        culprit="transforms[1] Rand3DElasticd",
    )


def test_the_right_repairs_pass():
    """What the sentences above advise is right."""
    from monai_landmarks.transforms.with_landmarks import WithLandmarksd

    for transform, dims in (
        (Rand2DElasticd("image", (16, 16), (3, 4), prob=1.0, rotate_range=0.2, padding_mode="zeros"), 2),
        (Transposed("image", indices=(0, 2, 1)), 2),
        (Rand3DElasticd("image", (5, 7), (150, 200), prob=1.0, padding_mode="zeros"), 3),
    ):
        report = doctor(WithLandmarksd(transform, "image", "landmarks"), dims)
        assert report.passed, str(report)
    assert doctor(Resized("image", (47, 51), mode="bilinear"), 2).passed
    compose = Compose([Spacingd("image", (1.3, 1.3, 1.3), mode="bilinear"), TO_VOXELS], lazy=True)
    assert check_landmarks_follow(compose, spatial_shape=SHAPES[3], draws=1).passed
