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
"""Flips: rows lie on the blob their name means in the mirror image, and everything comes back."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor, decollate_batch, set_track_meta
from monai.transforms import (
    CenterSpatialCropd,
    Compose,
    Flip,
    Invertd,
    Orientationd,
    RandAffined,
    RandFlip,
    RandRotate90d,
    ResizeWithPadOrCropd,
    Spacingd,
    allow_missing_keys_mode,
)

from monai_landmarks.data import Landmarks
from monai_landmarks.data.datasets.isbi2015 import ISBI2015_LANDMARKS
from monai_landmarks.data.sides import propose_flip_pairs
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.geometry.deformation import deformed_with, mark_deformed
from monai_landmarks.transforms import LandmarksWorldToImaged
from monai_landmarks.transforms.flip import (
    FlipLandmarks,
    FlipLandmarksD,
    FlipLandmarksd,
    FlipLandmarksDict,
    RandFlipLandmarks,
    RandFlipLandmarksD,
    RandFlipLandmarksd,
    RandFlipLandmarksDict,
)
from monai_landmarks.transforms.flip_rule import exchange_rows, left_right_axis, mirror_points

NAMES = ["left eye", "right eye", "nose", "left ear", "right ear"]
PARTNER = [1, 0, 2, 4, 3]
SHAPES = {2: (40, 34), 3: (30, 26, 22)}
VOXELS = {
    2: [[10.0, 9.5], [28.25, 8.0], [19.0, 16.0], [6.0, 24.0], [33.0, 25.5]],
    3: [[9.0, 7, 6], [20.25, 8, 7], [15.0, 19.5, 9], [6.0, 17, 15], [24.0, 18, 14.5]],
}


def affine_of(dims: int, oblique: bool) -> torch.Tensor:
    """Spacing and origin; oblique by 0.3 and 0.2 radians, with a flipped axis."""
    matrix = torch.eye(dims + 1, dtype=torch.float64)
    matrix[:dims, :dims] = torch.diag(torch.tensor([0.8, 1.1, 2.0][:dims], dtype=torch.float64))
    matrix[:dims, -1] = torch.tensor([-31.0, 12.5, 70.0][:dims])
    if oblique:
        c, s = np.cos(0.3), np.sin(0.3)
        turn = torch.eye(dims + 1, dtype=torch.float64)
        turn[:2, :2] = torch.tensor([[c, -s], [s, -c]])
        matrix = turn @ matrix
    return matrix


def blobs(dims: int, voxels: Any = None) -> torch.Tensor:
    """One Gaussian blob per landmark, one channel each: (N, *S)."""
    points = torch.tensor(VOXELS[dims] if voxels is None else voxels, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(*[torch.arange(n).double() for n in SHAPES[dims]], indexing="ij"), dim=-1)
    squared = (grid[None] - points.reshape(len(points), *[1] * dims, dims)).square().sum(dim=-1)
    return torch.exp(-squared / (2 * 1.6**2)).float()


def item_of(dims: int, oblique: bool = False, space: str = "world") -> dict[str, Any]:
    affine = affine_of(dims, oblique)
    voxels = torch.tensor(VOXELS[dims], dtype=torch.float64)
    world = voxels @ affine[:dims, :dims].T + affine[:dims, -1]
    image = MetaTensor(blobs(dims), affine=affine)
    return {"image": image, "landmarks": world if space == "world" else voxels}


def bitwise(a: Any, b: Any) -> bool:
    a, b = (torch.as_tensor(v).as_subclass(torch.Tensor) for v in (a, b))
    return a.dtype == b.dtype and torch.equal(torch.nan_to_num(a, nan=-1e9), torch.nan_to_num(b, nan=-1e9))


# -------------------------------------------------------------------------------------------------- against the blobs


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("space", ["world", "voxel"])
@pytest.mark.parametrize("oblique", [False, True], ids=["upright", "oblique"])
@pytest.mark.parametrize(("dims", "axis"), [(2, 0), (2, 1), (2, -1), (3, 0), (3, 2)])
def test_each_name_lies_on_the_blob_that_was_its_partners(centroid, dims, axis, oblique, space, lazy):
    item = item_of(dims, oblique, space)
    flip = RandFlipLandmarksd("image", "landmarks", NAMES, "names", axis, prob=1.0, point_space=space)
    to_voxels = [LandmarksWorldToImaged("landmarks", "image", dtype=torch.float64)] if space == "world" else []
    out = Compose([flip, *to_voxels], lazy=lazy)(item)
    image = out["image"] if not lazy or space == "world" else Compose([flip], lazy=lazy)(item)["image"]
    where = centroid(image)  # channel c is the blob that the name c had before the flip
    error = torch.linalg.vector_norm(out["landmarks"] - where[PARTNER], dim=1)
    assert error.max() < 0.01
    # closed form
    expected = torch.tensor(VOXELS[dims], dtype=torch.float64)
    expected[:, axis] = SHAPES[dims][axis] - 1 - expected[:, axis]
    torch.testing.assert_close(out["landmarks"], expected[PARTNER], atol=1e-9, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_left_eye_is_on_the_left_after_the_flip(dims):
    """In the mirror image the left names still lie left of the right ones: what a network may rely on."""
    item = item_of(dims)
    item = FlipLandmarksd("image", "landmarks", NAMES, "names")(item)
    voxels = LandmarksWorldToImaged("landmarks", "image")(item)["landmarks"]
    assert voxels[0, 0] < voxels[1, 0]
    assert voxels[3, 0] < voxels[4, 0]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_image_is_what_monai_flips_affine_included(axis):
    item = item_of(3, oblique=True)
    out = FlipLandmarksd("image", "landmarks", NAMES, "names", axis)(item)
    expected = Flip(axis)(item["image"])
    assert bitwise(out["image"], expected)
    assert torch.equal(out["image"].affine, expected.affine)


def test_world_points_keep_their_numbers_and_change_rows():
    item = item_of(3, oblique=True)
    out = FlipLandmarksd("image", "landmarks", NAMES, "names")(item)
    assert bitwise(out["landmarks"], item["landmarks"][PARTNER])
    assert type(out["landmarks"]) is torch.Tensor


@pytest.mark.parametrize("space", ["world", "voxel"])
def test_missing_moves_with_its_name(space):
    item = item_of(2, space=space)
    item["landmarks"][0] = torch.nan
    out = FlipLandmarksd("image", "landmarks", NAMES, "names", point_space=space)(item)
    assert out["landmarks"].isnan().all(dim=1).tolist() == [False, True, False, False, False]


# ----------------------------------------------------------------------------------------------------- two flips, back


@pytest.mark.parametrize("space", ["world", "voxel"])
@pytest.mark.parametrize("dims", [2, 3])
def test_two_flips_give_everything_back_bit_by_bit(dims, space):
    item = item_of(dims, True, space)
    flip = FlipLandmarksd("image", "landmarks", NAMES, "names", 1, space, row_keys="confidence")
    item["confidence"] = torch.rand(5)
    twice = flip(flip(item))
    for key in item:
        assert bitwise(twice[key], item[key])
    torch.testing.assert_close(twice["image"].affine, item["image"].affine, atol=1e-12, rtol=0)


@settings(max_examples=50, deadline=None)
@given(data=st.data(), dims=st.sampled_from([2, 3]), space=st.sampled_from(["world", "voxel"]))
def test_involution_for_any_pairs_and_points(data, dims, space):
    number = data.draw(st.integers(1, 9))
    order = data.draw(st.permutations(range(number)))
    pairs = [(order[2 * k], order[2 * k + 1]) for k in range(data.draw(st.integers(0, number // 2)))]
    # a grid of 1/64 voxel: size - 1 - p is exact
    numbers = st.integers(-64 * 50, 64 * 50).map(lambda v: v / 64)
    points = torch.tensor(
        data.draw(st.lists(st.lists(numbers, min_size=dims, max_size=dims), min_size=number, max_size=number))
    )
    points[torch.tensor(data.draw(st.lists(st.booleans(), min_size=number, max_size=number)))] = torch.nan
    axis = data.draw(st.integers(-dims, dims - 1))
    flip = FlipLandmarks(None, pairs, axis, space)
    image = torch.rand(1, 5, 6, 7)[(slice(None), *[slice(None)] * dims) + (0,) * (3 - dims)]
    once = flip(image, points)
    back = flip(*once)
    assert bitwise(back[0], image)
    assert bitwise(back[1], points)


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("prob", [0.0, 1.0])
@pytest.mark.parametrize("space", ["world", "voxel"])
@pytest.mark.parametrize("axis", [1, "left-right"])
@pytest.mark.filterwarnings("ignore:'lazy' is set to True")
def test_inverse_gives_images_points_and_rows_back(space, prob, lazy, axis):
    item = item_of(3, True, space)
    item["heatmaps"] = MetaTensor(blobs(3), affine=item["image"].affine)
    item["confidence"] = np.arange(5.0)
    flip = RandFlipLandmarksd(
        ["image", "heatmaps"], "landmarks", NAMES, "names", axis, prob, space, row_keys=["heatmaps", "confidence"]
    )
    compose = Compose([flip], lazy=lazy)
    out = compose(item)
    if prob:
        assert bitwise(out["confidence"], np.arange(5.0)[PARTNER])
    back = compose.inverse(out)
    for key in item:
        assert bitwise(back[key], item[key])
    assert back["image"].applied_operations == []
    torch.testing.assert_close(back["image"].affine, item["image"].affine, atol=1e-12, rtol=0)


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.filterwarnings("ignore:'lazy' is set to True")
def test_inverse_between_other_transforms(lazy):
    compose = Compose(
        [
            Orientationd("image", axcodes="LPS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            RandFlipLandmarksd("image", "landmarks", NAMES, "names", "left-right", prob=1.0),
            RandRotate90d("image", prob=1.0),
        ],
        lazy=lazy,
    ).set_random_state(0)
    item = item_of(3, True)
    back = compose.inverse(compose(item))
    torch.testing.assert_close(back["image"].as_tensor(), item["image"].as_tensor(), atol=1e-5, rtol=0)
    torch.testing.assert_close(back["image"].affine, item["image"].affine, atol=1e-9, rtol=0)
    assert bitwise(back["landmarks"], item["landmarks"])


def test_a_prediction_is_inverted_under_the_points_key():
    """World points predicted on the flipped image get the names they have in the patient."""
    item = item_of(3, True)
    compose = Compose([RandFlipLandmarksd("image", "landmarks", NAMES, "names", prob=1.0)])
    out = compose(item)
    prediction = out["landmarks"] + 0.25
    back = compose.inverse({**out, "landmarks": prediction})
    assert bitwise(back["landmarks"], item["landmarks"] + 0.25)


def test_invertd_exchanges_channels_under_a_row_key(centroid):
    item = item_of(2)
    item["heatmaps"] = MetaTensor(blobs(2), affine=item["image"].affine)
    compose = Compose([FlipLandmarksd(["image", "heatmaps"], "landmarks", NAMES, "names", row_keys="heatmaps")])
    out = compose(item)
    out["pred"] = MetaTensor(out["heatmaps"].as_tensor().clone())
    back = Invertd("pred", compose, orig_keys="heatmaps", nearest_interp=False)(out)["pred"]
    torch.testing.assert_close(centroid(back), centroid(blobs(2)))


def test_inverse_needs_the_images_that_carry_the_trace():
    flip = FlipLandmarksd("image", "landmarks", NAMES, "names")
    out = flip(item_of(2))
    with allow_missing_keys_mode(flip):
        with pytest.raises(LandmarkError, match="none of the images"):
            flip.inverse({"landmarks": out["landmarks"]})
        back = flip.inverse({"image": out["image"]})
    assert bitwise(back["image"], item_of(2)["image"])


# ------------------------------------------------------------------------------------ heatmaps, rows, several of a kind


def test_heatmaps_named_as_image_and_rows_are_mirrored_and_exchanged(centroid):
    item = item_of(3)
    item["heatmaps"] = blobs(3)
    flip = FlipLandmarksd(["image", "heatmaps"], "landmarks", NAMES, "names", row_keys="heatmaps")
    out = flip(item)
    voxels = LandmarksWorldToImaged("landmarks", "image", dtype=torch.float64)(out)["landmarks"]
    torch.testing.assert_close(centroid(out["heatmaps"]), voxels, atol=0.01, rtol=0)
    torch.testing.assert_close(centroid(out["image"]), voxels[PARTNER], atol=0.01, rtol=0)


def test_heatmaps_that_would_not_be_mirrored_are_refused():
    flip = FlipLandmarksd("image", "landmarks", NAMES, "names", row_keys="heatmaps")
    with pytest.raises(LandmarkError, match="name 'heatmaps' in `keys` too"):
        flip({**item_of(2), "heatmaps": blobs(2)})


def test_rows_of_every_type_are_exchanged():
    item = {
        **item_of(2),
        "a": torch.arange(5),
        "b": np.arange(10).reshape(5, 2),
        "c": list("lrnLR"),
        "d": (1, 2, 3, 4, 5),
    }
    item["e"] = torch.tensor([True, False, True, True, False])
    out = FlipLandmarksd("image", "landmarks", NAMES, "names", row_keys=list("abcde"))(item)
    assert out["a"].tolist() == PARTNER
    assert out["b"].tolist() == np.arange(10).reshape(5, 2)[PARTNER].tolist()
    assert (out["c"], out["d"]) == (list("rlnRL"), (2, 1, 3, 5, 4))
    assert out["e"].tolist() == [False, True, True, False, True]
    assert isinstance(out["b"], np.ndarray)


def test_several_images_and_point_sets_share_one_decision():
    item = {**item_of(3), "mr": MetaTensor(blobs(3), affine=affine_of(3, True))}
    item["reader 2"] = item["landmarks"] + 0.5
    flip = RandFlipLandmarksd(["image", "mr"], ["landmarks", "reader 2"], NAMES, "names").set_random_state(0)
    seen = set()
    for _ in range(20):
        out = flip(item)
        flipped = [not bitwise(out[k], item[k]) for k in item]
        assert len(set(flipped)) == 1
        seen.add(flipped[0])
    assert seen == {True, False}


def test_items_and_inputs_are_not_changed():
    item = item_of(2, space="voxel")
    copy = {key: value.clone() for key, value in item.items()}
    FlipLandmarksd("image", "landmarks", NAMES, "names", point_space="voxel")(item)
    for key in item:
        assert bitwise(item[key], copy[key])
    assert torch.equal(item["image"].affine, copy["image"].affine)
    assert item["image"].applied_operations == []


def test_points_may_be_arrays_or_landmarks():
    item = item_of(3)
    flip = FlipLandmarksd("image", "landmarks", NAMES, "names")
    expected = item["landmarks"][PARTNER]
    for points in (item["landmarks"].numpy(), Landmarks(item["landmarks"].numpy(), NAMES), item["landmarks"].tolist()):
        torch.testing.assert_close(
            flip({**item, "landmarks": points})["landmarks"].double(), expected, atol=1e-5, rtol=0
        )
    assert flip({**item, "landmarks": item["landmarks"].float()})["landmarks"].dtype == torch.float32


def test_the_mark_of_a_deformation_stays():
    item = item_of(2)
    mark_deformed(item["image"], ["landmarks"])
    out = FlipLandmarksd("image", "landmarks", NAMES, "names")(item)
    assert deformed_with(out["image"]) == ("landmarks",)


# ---------------------------------------------------------------------------------------------------- left to right


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASR", "SLP", "PIR"])
def test_left_right_finds_the_axis_in_any_orientation(centroid, codes):
    labels = (("L", "R"), ("P", "A"), ("I", "S"))
    item = Orientationd("image", axcodes=codes, labels=labels)(item_of(3, True))
    expected = next(i for i, c in enumerate(codes) if c in "LR")
    assert left_right_axis(item["image"]) == expected
    out = FlipLandmarksd("image", "landmarks", NAMES, "names", "left-right")(item)
    assert bitwise(out["image"], item["image"].flip(expected + 1))
    voxels = LandmarksWorldToImaged("landmarks", "image", dtype=torch.float64)(out)["landmarks"]
    torch.testing.assert_close(voxels, centroid(out["image"])[PARTNER], atol=0.01, rtol=0)


def test_left_right_is_each_images_own():
    turned = MetaTensor(torch.zeros(1, 4, 5, 6), affine=torch.eye(4)[[1, 0, 2, 3]])
    upright = MetaTensor(torch.zeros(1, 4, 5, 6), affine=torch.eye(4))
    flip = FlipLandmarksd(["a", "b"], "p", None, (), "left-right")
    out = flip({"a": turned, "b": upright, "p": torch.zeros(2, 3)})
    assert out["a"].affine.diagonal().tolist() == [0, 0, 1, 1]
    assert out["a"].affine[0, 1] == -1
    assert out["b"].affine.diagonal().tolist() == [-1, 1, 1, 1]


@pytest.mark.parametrize(
    ("degrees", "clear"), [(0, True), (30, True), (38, True), (40, False), (45, False), (50, False), (60, True)]
)
def test_left_right_of_an_oblique_volume_is_the_nearest_axis_or_refused(degrees, clear):
    angle = np.deg2rad(degrees)
    affine = torch.eye(4, dtype=torch.float64)
    affine[:2, :2] = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    image = MetaTensor(torch.zeros(1, 4, 4, 4), affine=affine @ torch.diag(torch.tensor([1.0, 3, 2, 1]).double()))
    if clear:
        assert left_right_axis(image) == (0 if degrees < 45 else 1)
    else:
        with pytest.raises(LandmarkError, match=f"no axis .* clearly .*{degrees}"):
            left_right_axis(image)


def test_left_right_sees_what_waits_lazily():
    image = MetaTensor(torch.rand(1, 4, 5, 6), affine=torch.eye(4))
    turned = RandRotate90d("i", prob=1.0, max_k=1)({"i": image}, lazy=True)["i"]
    assert left_right_axis(image) == 0
    assert left_right_axis(turned) == 1


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(1, 4, 4, 4), "needs an image with its affine"),
        (MetaTensor(torch.zeros(1, 4, 4)), "is for volumes"),
    ],
)
def test_left_right_without_anatomical_directions_is_refused(image, message):
    with pytest.raises(LandmarkError, match=message):
        left_right_axis(image)


# ------------------------------------------------------------------------------- neighbours, caches, workers, randomness


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("dims", [2, 3])
def test_among_eager_and_lazy_neighbours(centroid, dims, lazy):
    mode = "bilinear"
    compose = Compose(
        [
            Spacingd("image", pixdim=(1.2,) * dims, mode=mode),
            RandFlipLandmarksd("image", "landmarks", NAMES, "names", prob=1.0),
            RandAffined("image", prob=1.0, rotate_range=(0.15,) * (2 * dims - 3), mode=mode, padding_mode="zeros"),
            ResizeWithPadOrCropd("image", spatial_size=(50,) * dims),
            LandmarksWorldToImaged("landmarks", "image", dtype=torch.float64),
        ],
        lazy=lazy,
    ).set_random_state(2)
    # zeros around, eagerly: no blob is cut at the rim, and nothing at the rim is repeated outwards
    out = compose(ResizeWithPadOrCropd("image", spatial_size=(56,) * dims)(item_of(dims, True)))
    error = torch.linalg.vector_norm(out["landmarks"] - centroid(out["image"])[PARTNER], dim=1)
    assert error.max() < 0.05


def test_lazy_waits_and_is_one_flip():
    item = item_of(3, True)
    flip = FlipLandmarksd("image", "landmarks", NAMES, "names", lazy=True)
    out = flip(item)
    assert len(out["image"].pending_operations) == 1
    assert bitwise(out["image"], item["image"])
    assert not flip(item, lazy=False)["image"].pending_operations


def test_voxel_points_count_in_the_grid_that_waits():
    """A lazy crop before the flip: the size is that of the crop."""
    item = item_of(2, space="voxel")
    cropped = CenterSpatialCropd("image", roi_size=(20, 34))(item, lazy=True)
    out = FlipLandmarksd("image", "landmarks", NAMES, "names", point_space="voxel")(cropped, lazy=True)
    assert out["landmarks"][:, 0].tolist() == (19 - item["landmarks"][PARTNER, 0]).tolist()


def test_in_cache_dataset_and_workers():
    data = [item_of(2) for _ in range(4)]
    random = RandFlipLandmarksd("image", "landmarks", NAMES, "names")
    dataset = CacheDataset(
        data, Compose([FlipLandmarksd("image", "landmarks", NAMES, "names"), random]), progress=False
    )
    rows = {tuple(dataset[k % 4]["landmarks"][:, 0].tolist()) for k in range(24)}
    assert len(rows) == 2  # decided anew each time, after the cached flip
    batch = next(iter(DataLoader(Dataset(data, random), batch_size=4, num_workers=1)))
    assert batch["landmarks"].shape == (4, 5, 2)
    for item in decollate_batch(batch):
        assert bitwise(random.inverse(item)["landmarks"], data[0]["landmarks"])


def test_the_same_seed_gives_the_same_and_one_draw_a_call():
    item = item_of(2)

    def decisions(seed):
        flip = RandFlipLandmarksd("image", "landmarks", NAMES, "names", prob=0.3).set_random_state(seed)
        return [not bitwise(flip(item)["landmarks"], item["landmarks"]) for _ in range(200)]

    assert decisions(1) == decisions(1)
    assert decisions(1) != decisions(2)
    assert 35 <= sum(decisions(1)) <= 85
    random = np.random.RandomState(1)
    assert decisions(1) == [bool(random.rand() < 0.3) for _ in range(200)]


def test_transforms_can_be_pickled():
    flip = pickle.loads(pickle.dumps(RandFlipLandmarksd("image", "landmarks", NAMES, "names", prob=1.0)))
    assert bitwise(flip(item_of(2))["landmarks"], item_of(2)["landmarks"][PARTNER])


def test_from_a_bundle_config():
    parser = ConfigParser(
        {
            "flip": {
                "_target_": "monai_landmarks.transforms.flip.RandFlipLandmarksd",
                "keys": "image",
                "point_keys": "landmarks",
                "names": NAMES,
                "pairs": [["left eye", "right eye"], ["left ear", "right ear"]],
                "prob": 1.0,
            }
        }
    )
    flip = parser.get_parsed_content("flip")
    assert bitwise(flip(item_of(2))["landmarks"], item_of(2)["landmarks"][PARTNER])


# ---------------------------------------------------------------------------------------------------------- array twins


def test_array_twin_does_the_same():
    item = item_of(3, True)
    array = FlipLandmarks(NAMES, "names", 1)
    image, points, confidence = array(item["image"], item["landmarks"], torch.arange(5))
    out = FlipLandmarksd("image", "landmarks", NAMES, "names", 1)(item)
    assert bitwise(image, out["image"])
    assert torch.equal(image.affine, out["image"].affine)
    assert bitwise(points, out["landmarks"])
    assert confidence.tolist() == PARTNER


def test_random_array_twin_flips_as_often_as_monais():
    item = item_of(2)
    flip = RandFlipLandmarks(NAMES, "names", prob=0.4).set_random_state(7)
    monai = RandFlip(prob=0.4, spatial_axis=0).set_random_state(7)
    for _ in range(30):
        image, points = flip(item["image"], item["landmarks"])
        assert bitwise(image, monai(item["image"]))
        assert bitwise(points, item["landmarks"][PARTNER] if flip._do_transform else item["landmarks"])
    assert bitwise(flip(item["image"], item["landmarks"], randomize=False)[1], points)


def test_array_twin_lazily():
    item = item_of(2)
    image, _ = FlipLandmarks(NAMES, "names")(item["image"], item["landmarks"], lazy=True)
    assert len(image.pending_operations) == 1


def test_aliases():
    assert FlipLandmarksD is FlipLandmarksDict is FlipLandmarksd
    assert RandFlipLandmarksD is RandFlipLandmarksDict is RandFlipLandmarksd


def test_functions():
    points = torch.tensor([[1.0, 2.0], [torch.nan, torch.nan]])
    mirrored = mirror_points(points, -1, 10)
    assert mirrored[0].tolist() == [1.0, 7.0]
    assert mirrored[1].isnan().all()
    assert points[0].tolist() == [1.0, 2.0]
    heat = MetaTensor(blobs(2), affine=affine_of(2, False))
    exchanged = exchange_rows(heat, torch.tensor(PARTNER))
    assert isinstance(exchanged, MetaTensor)
    assert torch.equal(exchanged.affine, heat.affine)
    assert bitwise(exchanged, heat.as_tensor()[PARTNER])


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("factory", [FlipLandmarksd, RandFlipLandmarksd])
def test_sides_without_pairs_are_refused_when_built(factory):
    with pytest.raises(LandmarkError) as refusal:
        factory("image", "landmarks", names=NAMES)
    assert '("left eye", "right eye"),' in str(refusal.value)
    assert '("left ear", "right ear"),' in str(refusal.value)
    for array in (FlipLandmarks, RandFlipLandmarks):
        with pytest.raises(LandmarkError, match="to read, correct and paste"):
            array(NAMES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "without names nobody knows"),
        ({"pairs": "names"}, "without names nobody knows"),
        ({"names": ["left eye", "nose"], "pairs": "names"}, "without partner: 'left eye'"),
        ({"names": NAMES, "pairs": [("left eye", "right eye")]}, r'Add \("left ear", "right ear"\)'),
        ({"names": NAMES, "pairs": [("left eye", "right ey")]}, "did you mean 'right eye'"),
        ({"names": ["a", "b"], "spatial_axis": (0, 1)}, "half turn"),
        ({"names": ["a", "b"], "spatial_axis": None}, "one axis"),
        ({"names": ["a", "b"], "spatial_axis": True}, "one axis"),
        ({"names": ["a", "b"], "spatial_axis": "leftright"}, "left-right"),
        ({"names": ["a", "b"], "point_space": "index"}, "voxel"),
        ({"names": ["a", "b"], "row_keys": "landmarks"}, "flipped twice"),
        ({"names": ["a", "b"], "point_keys": "image"}, "flipped twice"),
        ({"names": ["a", "b"], "prob": 1.5}, "prob"),
    ],
)
def test_wrong_arguments_are_refused_when_built(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandFlipLandmarksd("image", **{"point_keys": "landmarks", **arguments})


@pytest.mark.parametrize("prob", [0.0, 1.0])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"landmarks": torch.zeros(4, 2)}, "4 landmarks for 5 names"),
        ({"landmarks": torch.zeros(1, 5, 2)}, "flip items, not batches"),
        ({"landmarks": torch.zeros(5, 3)}, "3 coordinates and the image 2 axes"),
        ({"image": torch.zeros(40, 34)}, "has the image its channel"),
        ({"landmarks": "points.fcsv"}, "not yet points"),
        ({"confidence": torch.zeros(4)}, "`confidence` must have one row for each of 5"),
        ({"confidence": 0.5}, "`confidence` must have one row"),
        ({"image": torch.zeros(1, 40, 34, 3), "landmarks": torch.zeros(5, 2)}, "2 coordinates and the image 3 axes"),
    ],
)
def test_items_that_do_not_fit_are_refused_whether_flipped_or_not(changes, message, prob):
    flip = RandFlipLandmarksd("image", "landmarks", NAMES, "names", prob=prob, row_keys="confidence")
    with pytest.raises(LandmarkError, match=message):
        flip({**item_of(2), "confidence": torch.zeros(5), **changes})


def test_an_axis_that_the_image_does_not_have_is_refused():
    with pytest.raises(LandmarkError, match="spatial_axis=2 for a 2D image"):
        FlipLandmarksd("image", "landmarks", NAMES, "names", 2)(item_of(2))


def test_missing_keys():
    item = item_of(2)
    strict = FlipLandmarksd(["image", "mask"], ["landmarks", "reader 2"], NAMES, "names", row_keys="confidence")
    with pytest.raises(KeyError, match="mask"):
        strict(item)
    with pytest.raises(LandmarkError, match="point_keys names 'reader 2', which is not in the item"):
        strict({**item, "mask": item["image"]})
    lenient = FlipLandmarksd(
        ["mask", "image"], ["landmarks", "reader 2"], NAMES, "names", row_keys="confidence", allow_missing_keys=True
    )
    assert bitwise(lenient(item)["landmarks"], item["landmarks"][PARTNER])
    with pytest.raises(LandmarkError, match="none of the images"):
        lenient({"landmarks": item["landmarks"]})
    with pytest.raises(LandmarkError, match="`confidence` must have one row for each of 5"):
        lenient({**item, "confidence": torch.zeros(3)})


def test_world_points_without_tracked_affines_are_refused():
    item = {"image": torch.zeros(1, 8, 8), "landmarks": torch.zeros(5, 2)}
    try:
        set_track_meta(False)
        with pytest.raises(LandmarkError, match="keeps no affines"):
            FlipLandmarksd("image", "landmarks", NAMES, "names")(item)
        out = FlipLandmarksd("image", "landmarks", NAMES, "names", point_space="voxel")(item)
    finally:
        set_track_meta(True)
    assert out["landmarks"][:, 0].tolist() == [7.0] * 5


# --------------------------------------------------------------------------------------------------- sets without sides


@pytest.mark.parametrize(
    ("names", "pairs"), [(list(ISBI2015_LANDMARKS), None), (list(ISBI2015_LANDMARKS), "names"), (None, ())]
)
def test_sets_without_sides_flip_without_exchange(names, pairs):
    points = torch.rand(19, 2)
    flip = FlipLandmarksd("image", "landmarks", names, pairs, point_space="voxel")
    out = flip({"image": torch.zeros(1, 50, 40), "landmarks": points})
    assert bitwise(out["landmarks"], mirror_points(points, 0, 50))


def test_a_proposal_is_taken_as_pairs():
    """Names that are numbers, partners from training landmarks."""
    names = [f"lm{i}" for i in range(5)]
    points = item_of(3)["landmarks"]
    points[:, 0] = torch.tensor([-9.0, 9, 0, -12, 12])  # exactly symmetric
    points[[1, 4], 1:] = points[[0, 3], 1:]
    flip = FlipLandmarksd("image", "landmarks", names, propose_flip_pairs(names, points))
    assert flip.exchange.pairs == (("lm0", "lm1"), ("lm3", "lm4"))
    assert bitwise(flip(item_of(3))["landmarks"], item_of(3)["landmarks"][PARTNER])


def test_rows_for_pairs_without_names():
    item = item_of(2)
    out = FlipLandmarksd("image", "landmarks", pairs=[(0, 1), (3, 4)])(item)
    assert bitwise(out["landmarks"], item["landmarks"][PARTNER])


def test_the_accepted_pairs_are_shown_and_logged(caplog):
    with caplog.at_level(logging.INFO, logger="monai_landmarks"):
        flip = RandFlipLandmarksd("image", "landmarks", NAMES, "names")
    assert '("left eye", "right eye"),' in caplog.text
    assert '("left ear", "right ear"),' in str(flip)
    assert flip.exchange.flip_pairs.midline == ("nose",)
    assert flip.exchange.pairs == (("left eye", "right eye"), ("left ear", "right ear"))
