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
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from monai_landmarks.geometry import (
    LandmarkError,
    affine_nd,
    apply_affine,
    check_points,
    explain_points,
    image_affine,
    inside,
    invert_affine,
    present,
    voxel_sizes,
)

NAN = float("nan")


def random_image(dims: int, seed: int) -> sitk.Image:
    """An image with oblique axes, unequal spacing and an odd origin, made by SimpleITK."""
    rng = np.random.default_rng(seed)
    image = sitk.Image([7, 9, 5][:dims], sitk.sitkFloat32)
    rotation, _ = np.linalg.qr(rng.normal(size=(dims, dims)))
    image.SetDirection(rotation.flatten().tolist())
    image.SetSpacing(rng.uniform(0.2, 4.0, dims).tolist())
    image.SetOrigin(rng.normal(size=dims, scale=80).tolist())
    return image


def sitk_affine(image: sitk.Image) -> torch.Tensor:
    """The image's affine, column by column from what SimpleITK says of single index steps."""
    dims = image.GetDimension()
    origin = np.array(image.TransformContinuousIndexToPhysicalPoint([0.0] * dims))
    affine = np.eye(dims + 1)
    affine[:dims, dims] = origin
    for axis in range(dims):
        step = np.array(image.TransformContinuousIndexToPhysicalPoint(np.eye(dims)[axis].tolist()))
        affine[:dims, axis] = step - origin
    return torch.as_tensor(affine)


@settings(max_examples=40, deadline=None)
@given(dims=st.sampled_from([2, 3]), seed=st.integers(0, 10**6))
def test_points_agree_with_simpleitk_and_come_back(dims: int, seed: int) -> None:
    image = random_image(dims, seed)
    affine = sitk_affine(image)
    index = np.random.default_rng(seed).uniform(-3, 12, (4, dims))
    expected = np.array([image.TransformContinuousIndexToPhysicalPoint(p.tolist()) for p in index])
    world = apply_affine(torch.as_tensor(index), affine)
    np.testing.assert_allclose(world, expected, atol=1e-9)
    np.testing.assert_allclose(apply_affine(world, invert_affine(affine)), index, atol=1e-9)
    np.testing.assert_allclose(voxel_sizes(affine), image.GetSpacing(), rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64])
def test_apply_affine_computes_in_float64(dtype: torch.dtype) -> None:
    points = torch.tensor([[1, 2, 3]], dtype=dtype)
    moved = apply_affine(points, torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0])))
    assert moved.dtype == torch.float64
    assert moved.tolist() == [[2.0, 6.0, 12.0]]


def test_arrays_are_taken_too() -> None:
    assert apply_affine(np.ones((1, 2)), np.eye(3)).tolist() == [[1.0, 1.0]]


def test_missing_landmark_stays_missing() -> None:
    moved = apply_affine(torch.tensor([[NAN, NAN], [1.0, 1.0]]), torch.eye(3))
    assert present(moved).tolist() == [False, True]


def test_batched_affines_apply_to_their_own_points() -> None:
    affines = torch.stack([torch.eye(3), 2 * torch.eye(3)])
    affines[:, 2, 2] = 1
    moved = apply_affine(torch.ones(2, 4, 2), affines)
    assert moved[0].unique().tolist() == [1.0]
    assert moved[1].unique().tolist() == [2.0]


def test_inherited_image_meta_on_points_is_ignored() -> None:
    points = MetaTensor(torch.ones(3, 2), affine=torch.diag(torch.tensor([5.0, 5.0, 1.0])))
    moved = apply_affine(points, torch.eye(3))
    assert type(moved) is torch.Tensor
    assert moved.unique().tolist() == [1.0]


@pytest.mark.parametrize("size", [3, 4])
def test_image_affine_of_2d_image_is_3x3_whatever_monai_made_of_it(size: int) -> None:
    affine = torch.eye(size, dtype=torch.float64)
    affine[0, 0], affine[1, 1], affine[0, -1] = 0.2, 0.3, 7.0
    result = image_affine(MetaTensor(torch.zeros(1, 4, 5), affine=affine))
    assert result.tolist() == [[0.2, 0, 7.0], [0, 0.3, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    "affine", [torch.zeros(4, 4), torch.diag(torch.tensor([1.0, 0.0, 1.0, 1.0])), torch.full((4, 4), NAN)]
)
def test_singular_affine_is_refused(affine: torch.Tensor) -> None:
    with pytest.raises(LandmarkError, match=r"determinant.*cannot be inverted"):
        affine_nd(affine, 3)


def test_very_small_voxels_are_not_singular() -> None:
    assert affine_nd(torch.diag(torch.tensor([1e-6, 1e-6, 1e-6, 1.0])), 3).shape == (4, 4)


def test_image_without_affine_is_refused() -> None:
    with pytest.raises(LandmarkError, match="MetaTensor"):
        image_affine(torch.zeros(1, 8, 9))
    with pytest.raises(LandmarkError, match="decollate"):
        affine_nd(torch.eye(4).repeat(2, 1, 1), 3)


def test_stale_affine_of_pending_image_is_refused() -> None:
    from monai.transforms import Spacing

    image = Spacing((2.0, 2.0, 2.0))(MetaTensor(torch.zeros(1, 8, 8, 8)), lazy=True)
    with pytest.raises(LandmarkError, match="pending lazy operations"):
        image_affine(image)


@pytest.mark.parametrize(
    ("points", "dims", "message"),
    [
        (torch.zeros(3), None, r"landmark axis, `points\[None\]`"),
        (torch.zeros(19, 2), 3, "2D points for a 3D image"),
        (torch.zeros(2, 19), 2, "transpose"),
        (torch.tensor([[NAN, 1.0]]), 2, "some but not all coordinates"),
        (torch.tensor([[float("inf"), 1.0]]), 2, "infinite"),
    ],
)
def test_wrong_points_are_explained(points: torch.Tensor, dims: int | None, message: str) -> None:
    with pytest.raises(LandmarkError, match=message):
        check_points(points, dims)


def test_inside_counts_the_outer_half_voxel() -> None:
    points = torch.tensor([[-0.5, 0.0], [9.5, 4.5], [-0.51, 0.0], [9.51, 0.0], [NAN, NAN]])
    assert inside(points, (10, 5)).tolist() == [True, True, False, False, False]


def test_exchanged_axes_are_explained_with_counts() -> None:
    rng = np.random.default_rng(0)
    rows_columns = torch.as_tensor(np.stack([rng.uniform(0, 2400, 400), rng.uniform(0, 1935, 400)], axis=1))
    text = explain_points(rows_columns, (1935, 2400))
    assert text is not None
    outside = int((rows_columns[:, 0] > 1934.5).sum())
    assert text.startswith(f"{outside} of 400 landmarks lie outside")
    assert "none after exchanging the axes to (1, 0)" in text


def test_3d_image_in_lps_is_turned_to_ras_and_a_film_never() -> None:
    volume = MetaTensor(torch.zeros(1, 4, 5, 6), affine=torch.eye(4), meta={"space": "LPS"})
    assert image_affine(volume).diagonal().tolist() == [-1, -1, 1, 1]
    for space in ("LPS", "RAS"):
        film = MetaTensor(torch.zeros(1, 4, 5), affine=torch.eye(3), meta={"space": space})
        assert image_affine(film).diagonal().tolist() == [1, 1, 1]


def test_origin_at_one_is_explained() -> None:
    corners = torch.tensor([[1.0, 1.0], [10.0, 8.0], [10.0, 1.0], [1.0, 8.0]])
    text = explain_points(corners, (10, 8))
    assert text is not None
    assert "counts voxels from 1" in text


def test_fitting_points_need_no_explanation() -> None:
    assert explain_points(torch.tensor([[1.0, 2.0], [NAN, NAN]]), (10, 10)) is None


def test_points_beyond_repair_name_their_range() -> None:
    text = explain_points(torch.tensor([[500.0, 700.0]]), (10, 10))
    assert text is not None
    assert "500.0, 700.0" in text
