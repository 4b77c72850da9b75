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
"""The doctor passes pipelines that are right, whatever they begin with, and its report is readable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from blobs import pipeline_2d, pipeline_3d
from doctoring import SMALL, TO_VOXELS, faultless
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    EnsureTyped,
    Lambdad,
    NormalizeIntensityd,
    Rand2DElasticd,
    RandAdjustContrastd,
    RandAffined,
    RandBiasFieldd,
    RandFlipd,
    RandGaussianNoised,
    RandSpatialCropSamplesd,
    Resized,
    ScaleIntensityRanged,
    Spacingd,
)

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.transforms import LandmarksWorldToImaged
from monai_landmarks.transforms.landmarks_follow import Severity, check_landmarks_follow

# ------------------------------------------------------------------------------------------------------- good pipelines


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize(("dims", "pipeline"), [(3, pipeline_3d), (2, pipeline_2d)], ids=["3d", "2d"])
def test_good_pipelines_pass(dims, pipeline, lazy):
    report = check_landmarks_follow(Compose([*pipeline(), TO_VOXELS], lazy=lazy), spatial_dims=dims, draws=2)
    faultless(report)
    assert report.residuals.shape == (2, 12, dims)
    assert 0 < report.stages[0].worst < 0.05


def test_default_settings_of_an_ordinary_pipeline_take_few_seconds():
    import time

    start = time.process_time()
    faultless(check_landmarks_follow(Compose([*pipeline_3d(), TO_VOXELS])))
    assert time.process_time() - start < 10  # 1.5 s on one free core


def test_a_single_transform_and_world_points_without_conversion():
    report = check_landmarks_follow(
        RandAffined("image", prob=1.0, rotate_range=(0.2,) * 3, padding_mode="zeros"), draws=2, spatial_shape=SMALL
    )
    faultless(report)
    assert "'landmarks', world millimetres through the affine of the output image" in " ".join(report.summary.split())


def test_points_that_replace_the_world_points_are_told_from_them():
    compose = Compose([Resized("image", (40, 44, 30), mode="trilinear"), LandmarksWorldToImaged("landmarks", "image")])
    report = check_landmarks_follow(compose, draws=1, spatial_shape=SMALL)
    faultless(report)
    assert "'landmarks', in voxels" in report.summary


@pytest.mark.parametrize("lazy", [False, True])
def test_other_keys_and_other_entries_of_the_item(lazy):
    compose = Compose(
        [
            EnsureTyped("age"),
            RandFlipd(["ct", "mask"], prob=1.0, spatial_axis=1),
            LandmarksWorldToImaged("marks", "ct", output_keys="voxels"),
        ],
        lazy=lazy,
    )
    options: dict[str, Any] = {"image_key": "ct", "landmarks_key": "marks", "points_key": "voxels"}
    mask = MetaTensor(torch.zeros(1, *SMALL))
    faultless(check_landmarks_follow(compose, **options, item={"age": 5, "mask": mask}, spatial_shape=SMALL, draws=1))
    faultless(
        check_landmarks_follow(
            compose, **options, item=lambda d: {**d, "age": 5, "mask": mask}, spatial_shape=SMALL, draws=1
        )
    )


def test_intensity_transforms_do_no_harm():
    compose = Compose(
        [
            ScaleIntensityRanged("image", -175, 250, 0, 1, clip=True),
            Spacingd("image", (1.5, 1.5, 1.5), mode="bilinear"),
            NormalizeIntensityd("image", channel_wise=True),
            RandGaussianNoised("image", prob=1.0, std=0.05),
            RandAdjustContrastd("image", prob=1.0),
            RandBiasFieldd("image", prob=1.0),
            Lambdad("image", lambda x: 7 - 3 * x),
            TO_VOXELS,
        ]
    )
    faultless(check_landmarks_follow(compose, draws=3))


def test_a_pipeline_that_shrinks_the_image_gets_wider_blobs():
    report = check_landmarks_follow(
        Compose([Resized("image", (26, 22), mode="bilinear"), TO_VOXELS]), spatial_dims=2, draws=1
    )
    faultless(report)
    assert report.stages[0].worst < 0.03


def test_samples_of_one_item_are_all_looked_at():
    crop = RandSpatialCropSamplesd("image", (36, 34, 32), num_samples=2, random_size=False)
    report = check_landmarks_follow(Compose([crop, TO_VOXELS]), draws=2)
    faultless(report)
    assert report.residuals.shape[0] == 4


def test_channels_that_are_mixed_are_sent_one_by_one():
    compose = Compose(
        [Lambdad("image", lambda x: x.mean(dim=0, keepdim=True)), RandFlipd("image", prob=0.5), TO_VOXELS]
    )
    faultless(check_landmarks_follow(compose, spatial_dims=2, draws=2))


def test_voxel_points_go_in():
    flip = RandFlipd("image", prob=1.0, spatial_axis=0)
    report = check_landmarks_follow(
        lambda d: {**flip(d), "points": d["marks"] * torch.tensor([-1.0, 1.0]) + torch.tensor([103.0, 0.0])},
        landmarks_key="marks",
        landmarks_space="voxel",
        spatial_dims=2,
        draws=1,
    )
    faultless(report)


def test_the_pipeline_keeps_its_random_state_where_it_has_none_of_the_doctor():
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002 - what a pipeline without state of its own uses
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    check_landmarks_follow(lambda d: TO_VOXELS(d), spatial_dims=2, draws=2)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


# ---------------------------------------------------------------------------------------------------------- the report


def test_the_report_says_what_a_person_needs():
    compose = Compose([TO_VOXELS, Resized("image", (52, 44), mode="bilinear")])
    report = check_landmarks_follow(compose, spatial_dims=2, draws=1)
    text = str(report)
    assert not report.passed
    assert report.culprit == "transforms[1] Resized"
    assert report.kinds == [finding.kind for finding in report.findings]
    assert all(finding.severity == Severity.FAULT for finding in report.faults)
    for piece in ("FAILED", "tolerance 0.05 px", "x (axis 0)", "mean mm", "FAULT", "transforms[1] Resized", "Repair:"):
        assert piece in text
    assert max(map(len, text.splitlines())) <= 115
    with pytest.raises(LandmarkError, match="check_landmarks_follow FAILED"):
        report.raise_if_failed()
    torch.testing.assert_close(
        report.residuals_mm, report.residuals * torch.tensor([0.4, 0.5], dtype=torch.float64), equal_nan=True
    )


def test_a_compose_inside_a_compose_is_opened():
    compose = Compose([RandFlipd("image", prob=1.0), Compose([TO_VOXELS, Resized("image", (60, 50), mode="bilinear")])])
    assert check_landmarks_follow(compose, spatial_dims=2, draws=1).culprit == "transforms[1].transforms[1] Resized"


def test_elastic_with_probability_is_found_in_the_draws_in_which_it_happens():
    elastic = Rand2DElasticd("image", (20, 20), (2, 3), prob=0.5, padding_mode="zeros")
    report = check_landmarks_follow(Compose([elastic, TO_VOXELS]), spatial_dims=2, draws=4)
    assert "elastic_not_followed" in report.kinds
    assert "of 4 draws" in str(report)


# ----------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pipeline": None}, "nothing to check"),
        ({"pipeline": 5}, "must be callable from item to item, or a dataset"),
        ({"pipeline": EnsureTyped("label")}, "does not run on the synthetic item.*label.*Say what it needs"),
        ({"pipeline": lambda d: {"image": d["image"]}}, "no points, neither 'points' nor 'landmarks'"),
        ({"pipeline": lambda d: {"points": d["landmarks"]}}, "no image under 'image'"),
        ({"pipeline": lambda d: d, "spatial_shape": (17, 17)}, "too small for blobs of sigma 2.5 voxels"),
        ({"pipeline": lambda d: d, "spatial_shape": (20, 20, 20, 20)}, "spatial_dims must be 2 or 3"),
        ({"pipeline": lambda d: d, "spatial_dims": 2, "spatial_shape": (50, 50, 50)}, "not the shape of a 2D image"),
        ({"pipeline": lambda d: d, "pairs": [("a", "b")]}, "pairs name 'a', which is none"),
        ({"pipeline": lambda d: d, "pairs": [(0, 40)]}, "not two of 12 landmarks"),
        ({"pipeline": lambda d: d, "landmarks_space": "mm"}, "landmarks_space|mm"),
        ({"pipeline": Resized("image", (30, 30))}, "spatial_dims=2 for films"),
    ],
)
def test_arguments_that_cannot_be_right(options, message):
    with pytest.raises(ValueError, match=message):
        check_landmarks_follow(**options)


def test_the_pipelines_own_random_state_is_left_alone():
    image = MetaTensor(torch.rand(1, 9, 9))
    compose = Compose([RandAffined("image", prob=1.0, rotate_range=1.0), TO_VOXELS]).set_random_state(4)
    item = {"image": image, "landmarks": torch.rand(1, 2)}
    expected = [compose(item)["points"] for _ in range(2)]
    compose.set_random_state(4)
    assert torch.equal(compose(item)["points"], expected[0])
    check_landmarks_follow(compose, spatial_dims=2, draws=1)
    assert torch.equal(compose(item)["points"], expected[1])
