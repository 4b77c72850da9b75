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
"""World millimetres and voxel indices: values, kinds of input, batches, and every error."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor, list_data_collate, set_track_meta
from monai.transforms import Compose, Spacing, Spacingd
from monai.utils import SpaceKeys

import monai_landmarks.transforms as lt
from monai_landmarks.data import Landmarks
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.transforms import (
    LandmarksImageToWorld,
    LandmarksImageToWorldd,
    LandmarksWorldToImage,
    LandmarksWorldToImaged,
)

NAN = float("nan")
AFFINE_2D = torch.tensor([[0.0, 0.5, 3.0], [-0.25, 0.0, 10.0], [0, 0, 1]], dtype=torch.float64)
AFFINE_3D = torch.tensor(
    [[0.0, -2.0, 0.0, 5.0], [0.5, 0.0, 0.0, 6.0], [0.0, 0.0, 4.0, 7.0], [0, 0, 0, 1]], dtype=torch.float64
)


def image_of(affine: torch.Tensor, **meta: Any) -> MetaTensor:
    dims = affine.shape[-1] - 1
    return MetaTensor(torch.zeros(1, *(8, 9, 10)[:dims]), affine=affine, meta=meta or None)


# Solved by hand: x = 0.5 j + 3, y = -0.25 i + 10; and x = -2 j + 5, y = 0.5 i + 6, z = 4 k + 7.
BY_HAND = [
    (AFFINE_2D, [[2.0, 4.0]], [[5.0, 9.5]]),
    (AFFINE_3D, [[2.0, 1.0, 3.0]], [[3.0, 7.0, 19.0]]),
]


@pytest.mark.parametrize(("affine", "voxels", "world"), BY_HAND)
def test_values_by_hand(affine, voxels, world):
    image = image_of(affine)
    result = LandmarksImageToWorld()(voxels, image)
    assert (result.tolist(), result.dtype, type(result)) == (world, torch.float64, torch.Tensor)
    result = LandmarksWorldToImage()(world, image)
    assert (result.tolist(), result.dtype, type(result)) == (voxels, torch.float32, torch.Tensor)


@pytest.mark.parametrize("make", [
    list,
    np.array,
    lambda p: np.array(p, dtype=np.float32),
    torch.tensor,
    lambda p: torch.tensor(p, dtype=torch.float16),
    lambda p: torch.tensor(p).int(),
    lambda p: MetaTensor(torch.tensor(p), affine=100 * torch.eye(4)),
    lambda p: Landmarks(p, ["a"]),
])  # fmt: skip
@pytest.mark.parametrize(("affine", "voxels", "world"), BY_HAND)
def test_every_kind_of_points(make, affine, voxels, world):
    assert LandmarksImageToWorld()(make(voxels), image_of(affine)).tolist() == world


@pytest.mark.parametrize("make", [
    lambda a: a,
    lambda a: a.numpy(),
    lambda a: a.tolist(),
    lambda a: a.float(),
    image_of,
    lambda a: image_of(a).half(),
])  # fmt: skip
@pytest.mark.parametrize(("affine", "voxels", "world"), BY_HAND)
def test_every_kind_of_reference(make, affine, voxels, world):
    assert LandmarksWorldToImage()(world, make(affine)).tolist() == voxels


def test_2d_points_take_a_4x4_affine():
    affine = torch.eye(4, dtype=torch.float64)
    affine[:2, :2], affine[:2, 3] = AFFINE_2D[:2, :2], AFFINE_2D[:2, 2]
    assert LandmarksImageToWorld()([[2.0, 4.0]], affine).tolist() == [[5.0, 9.5]]
    assert LandmarksImageToWorld()([[2.0, 4.0]], MetaTensor(torch.zeros(1, 8, 9), affine=affine)).tolist() == [
        [5.0, 9.5]
    ]


def test_missing_stays_missing_and_the_input_is_untouched():
    points = torch.tensor([[NAN, NAN], [2.0, 4.0]], dtype=torch.float64)
    before = points.clone()
    world = LandmarksImageToWorld()(points, AFFINE_2D)
    assert world[0].isnan().all()
    back = LandmarksWorldToImage(torch.float64)(world, AFFINE_2D)
    torch.testing.assert_close(back, before, equal_nan=True)
    torch.testing.assert_close(points, before, equal_nan=True)


@settings(max_examples=60, deadline=None)
@given(
    dims=st.sampled_from([2, 3]),
    seed=st.integers(0, 2**31),
    scale=st.floats(0.01, 20),
    shift=st.floats(-2000, 2000),
)
def test_round_trip_is_exact_to_a_billionth_of_a_voxel(dims, seed, scale, shift):
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(dims, dims)))
    affine = np.eye(dims + 1)
    affine[:dims, :dims] = rotation * scale * rng.uniform(0.5, 2, size=dims)
    affine[:dims, -1] = shift
    voxels = rng.uniform(-10, 500, size=(7, dims))
    world = LandmarksImageToWorld()(voxels, affine)
    np.testing.assert_allclose(LandmarksWorldToImage(torch.float64)(world, affine), voxels, atol=1e-9, rtol=0)


def test_a_volume_that_says_lps_is_read_as_ras():
    lps = torch.diag(torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64)) @ AFFINE_3D
    for space in (SpaceKeys.LPS, "LPS"):
        assert LandmarksImageToWorld()([[2.0, 1, 3]], image_of(lps, space=space)).tolist() == [[3.0, 7.0, 19.0]]
    assert LandmarksImageToWorld()([[2.0, 1, 3]], image_of(AFFINE_3D, space="RAS")).tolist() == [[3.0, 7.0, 19.0]]


@pytest.mark.parametrize("space", ["LPS", "RAS", None])
def test_a_film_is_never_flipped(space):
    assert LandmarksImageToWorld()([[2.0, 4.0]], image_of(AFFINE_2D, space=space)).tolist() == [[5.0, 9.5]]


# ------------------------------------------------------------------------------------------------------------- batches


def test_collated_batches_use_each_images_own_affine():
    shifts = [0.0, 7.0, -3.0]
    items = []
    for shift in shifts:
        affine = AFFINE_3D.clone()
        affine[0, 3] += shift
        space = "LPS" if shift == 7.0 else "RAS"
        affine = (
            (torch.diag(torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64)) @ affine) if space == "LPS" else affine
        )
        items.append({"image": image_of(affine, space=space), "points": torch.tensor([[2.0, 1, 3]])})
    batch = list_data_collate(items)
    assert batch["image"].affine.shape == (3, 4, 4)
    world = LandmarksImageToWorldd("points", "image")(batch)["points"]
    assert world[:, 0, 0].tolist() == [3.0 + shift for shift in shifts]
    back = LandmarksWorldToImage()(world, batch["image"])
    torch.testing.assert_close(back, batch["points"])


def test_bare_batches_of_affines():
    affines = torch.stack([AFFINE_2D, torch.eye(3, dtype=torch.float64)])
    world = LandmarksImageToWorld()([[[2.0, 4.0]], [[2.0, 4.0]]], affines)
    assert world.tolist() == [[[5.0, 9.5]], [[2.0, 4.0]]]


def test_one_set_of_points_for_a_batch_of_images_is_refused():
    batch = list_data_collate([{"image": image_of(AFFINE_2D)} for _ in range(2)])["image"]
    with pytest.raises(LandmarkError, match=r"batch of 2 images and needs points \(2, N, D\), got \(1, 2\)"):
        LandmarksWorldToImage()([[1.0, 2.0]], batch)


# -------------------------------------------------------------------------------------------------------- dictionaries


def test_dictionary_keys():
    item = {
        "image": image_of(AFFINE_2D),
        "other": image_of(torch.eye(3, dtype=torch.float64)),
        "a": np.array([[5.0, 9.5]]),
        "b": np.array([[5.0, 9.5]]),
    }
    both = LandmarksWorldToImaged(["a", "b"], ["image", "other"], output_keys=["va", "vb"])(item)
    assert both["va"].tolist() == [[2.0, 4.0]]
    assert both["vb"].tolist() == [[5.0, 9.5]]
    assert both["a"] is item["a"]
    shared = LandmarksWorldToImaged(["a", "b"], "image")(item)
    assert shared["a"].tolist() == shared["b"].tolist() == [[2.0, 4.0]]
    assert "va" not in item, "the item given is not changed"
    skipped = LandmarksWorldToImaged(["a", "absent"], "image", allow_missing_keys=True)(item)
    assert skipped["a"].tolist() == [[2.0, 4.0]]


def test_a_matrix_under_the_refer_key():
    item = {"affine": AFFINE_2D.numpy(), "points": [[2.0, 4.0]]}
    assert LandmarksImageToWorldd("points", "affine", dtype=torch.float32)(item)["points"].dtype == torch.float32


def test_aliases_and_pickling():
    for name in [n for n in lt.__all__ if n.endswith("d") and n[:-1] in lt.__all__]:
        assert getattr(lt, f"{name[:-1]}D") is getattr(lt, name)
        assert getattr(lt, f"{name[:-1]}Dict") is getattr(lt, name)
        assert getattr(lt, name).backend
    copy = pickle.loads(pickle.dumps(LandmarksWorldToImaged("points", "image")))
    assert copy({"image": image_of(AFFINE_2D), "points": [[5.0, 9.5]]})["points"].tolist() == [[2.0, 4.0]]


# -------------------------------------------------------------------------------------------------------- lazy and meta


def test_waiting_lazy_operations_are_refused_outside_compose_and_applied_inside():
    image = MetaTensor(torch.zeros(1, 8, 8, 8), affine=torch.eye(4))
    waiting = Spacing(pixdim=2.0, lazy=True)(image)
    with pytest.raises(LandmarkError, match=r"pending lazy operations.*Compose"):
        LandmarksWorldToImage()([[4.0, 4, 4]], waiting)
    item = {"image": image, "points": [[4.0, 4, 4]]}
    compose = Compose([Spacingd("image", pixdim=2.0), LandmarksWorldToImaged("points", "image")], lazy=True)
    assert compose(item)["points"].tolist() == [[2.0, 2, 2]]


def test_images_without_meta_are_refused():
    set_track_meta(False)
    try:
        item = Compose([Spacingd("image", pixdim=2.0)])({"image": torch.zeros(1, 18, 20)})
        with pytest.raises(LandmarkError, match="meta tracking"):
            LandmarksWorldToImage()([[1.0, 2.0]], item["image"])
    finally:
        set_track_meta(True)


SINGULAR = torch.diag(torch.tensor([1.0, 0.0, 1.0]))
ERRORS = [
    ([[1.0, 2.0]], SINGULAR, "cannot be inverted.*spacing is zero"),
    ([[1.0, 2.0]], image_of(AFFINE_3D), "2D points for a 3D image.*right point file"),
    ([[1.0, 2.0, 3.0]], image_of(AFFINE_2D), "3D points for a 2D image"),
    ([[1.0, 2.0, 3.0]], AFFINE_2D, "3D points need a 4x4 affine"),
    ([[1.0, 2.0]], torch.zeros(1, 8, 9), "MetaTensor"),
    ([[1.0, 2.0]], "image.png", "MetaTensor"),
    ([[1.0, 2.0]], MetaTensor(torch.zeros(8, 9), affine=AFFINE_2D), "channel-first.*EnsureChannelFirstd"),
    ([1.0, 2.0], AFFINE_2D, "landmark axis"),
    ([[1.0, NAN]], AFFINE_2D, "some but not all"),
    ([[1.0, float("inf")]], AFFINE_2D, "infinite"),
    (torch.zeros(2, 19), AFFINE_2D, "exchanged"),
    ("points.csv", AFFINE_2D, "put LoadLandmarksd before"),
    ([[1.0, 2.0], [1.0]], AFFINE_2D, "must be numbers"),
    ([["a", "b"]], AFFINE_2D, "must be numbers"),
]


@pytest.mark.parametrize(("points", "reference", "message"), ERRORS)
@pytest.mark.parametrize("transform", [LandmarksWorldToImage(), LandmarksImageToWorld()], ids=["to_image", "to_world"])
def test_errors_name_the_cause(transform, points, reference, message):
    with pytest.raises(LandmarkError, match=message):
        transform(points, reference)


def test_errors_of_keys():
    item = {"image": image_of(AFFINE_2D), "points": [[1.0, 2.0]]}
    with pytest.raises(
        LandmarkError, match=r"refer_keys names 'img', which is not in the item; it has \['image', 'points'\]"
    ):
        LandmarksWorldToImaged("points", "img")(item)
    with pytest.raises(KeyError, match="pts"):
        LandmarksWorldToImaged("pts", "image")(item)
    with pytest.raises(ValueError, match="refer_keys must be one key or one for each"):
        LandmarksWorldToImaged(["a", "b", "c"], ["x", "y"])
