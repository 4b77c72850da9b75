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
"""Crops around landmarks: always of the wanted size, points and affine exact; world points through crop and orientation."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from blobs import RAS_LABELS, check_follows, with_missing
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.transforms import Compose, Flipd, Orientationd, Spacingd

from monai_landmarks.geometry import LandmarkError, mark_deformed
from monai_landmarks.geometry.windows import crops_around_points
from monai_landmarks.transforms import LandmarksImageToWorldd, LandmarksWorldToImaged
from monai_landmarks.transforms.crop import CropAroundLandmarks, CropAroundLandmarksd

NAN = float("nan")
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


# ------------------------------------------------------------------------------------------------ the blob, at a border


def tensor_of(image: sitk.Image) -> MetaTensor:
    """The image in memory, world as in the package: RAS in 3D, the film plane in 2D."""
    dims = image.GetDimension()
    affine = np.eye(dims + 1)
    affine[:dims, :dims] = np.array(image.GetDirection()).reshape(dims, dims) * np.array(image.GetSpacing())
    affine[:dims, -1] = image.GetOrigin()
    if dims == 3:
        affine = np.diag([-1, -1, 1, 1]) @ affine
    return MetaTensor(torch.as_tensor(sitk.GetArrayFromImage(image).T.copy())[None], affine=torch.as_tensor(affine))


@pytest.mark.parametrize("options", [{"spatial_size": 24}, {"size_mm": 22.0}, {"margin_mm": 9.0}])
def test_the_blob_of_an_oblique_volume_is_where_the_points_say(volume, centroid, options) -> None:
    image, point = volume
    world = point * [-1, -1, 1]
    compose = Compose([CropAroundLandmarksd("image", "points", **options), LandmarksWorldToImaged("points", "image")])
    item = compose({"image": tensor_of(image), "points": with_missing(world)})
    check_follows(item, centroid)
    if "spatial_size" in options:
        assert item["image"].shape == (1, 24, 24, 24)
        assert (item["points"][0] - 11.5).abs().max() <= 0.5 + 1e-5
    if "size_mm" in options:
        assert item["image"].shape == (1, *(round(22 / s) for s in image.GetSpacing()))


def test_the_blob_of_a_film_after_flip_spacing_and_crop_in_a_lazy_pipeline(film, centroid) -> None:
    image, point = film
    chain = [
        Flipd("image", spatial_axis=0),
        Spacingd("image", pixdim=(0.25, 0.25), mode="bilinear"),
        CropAroundLandmarksd("image", "points", spatial_size=(41, 36)),
        LandmarksWorldToImaged("points", "image"),
    ]
    for lazy in (False, True):
        item = Compose(chain, lazy=lazy)({"image": tensor_of(image), "points": with_missing(point)})
        assert item["image"].shape == (1, 41, 36)
        check_follows(item, centroid)


@pytest.mark.parametrize(("shape", "size"), CASES)
@pytest.mark.parametrize("mode", ["constant", "edge"])
def test_the_size_is_always_the_wanted_one_and_the_window_right(shape: Any, size: Any, mode: str) -> None:
    """At each corner and outside it; MONAI's SpatialCrop shifts the window there, or cuts it."""
    dims = len(shape)
    affine = torch.eye(dims + 1, dtype=torch.float64)
    affine[:dims, :dims] = torch.as_tensor(np.diag([0.5, -0.7, 2.0][:dims]))
    affine[:dims, dims] = torch.tensor([3.0, -50.0, 7.0][:dims])
    image = MetaTensor(ramp(2, *shape), affine=affine, meta={"filename_or_obj": "a.nii"})
    for corner in itertools.product(*[(-1.2, 0.3, n - 1.0, n + 0.2) for n in shape]):
        voxel = torch.tensor([corner], dtype=torch.float64)
        world = voxel @ affine[:dims, :dims].T + affine[:dims, dims]
        origin = [int(np.ceil(c - n / 2)) for c, n in zip(corner, size, strict=True)]
        crop_options = {"spatial_size": size, "mode": mode, "value": -1.0}
        if not all(o < n and o + w > 0 for o, n, w in zip(origin, shape, size, strict=True)):
            with pytest.raises(LandmarkError, match="show nothing of the image"):
                CropAroundLandmarks(**crop_options)(image, world)
            continue
        crop, points = CropAroundLandmarks(**crop_options)(image, world)
        assert points is world
        assert crop.shape == (2, *size)
        np.testing.assert_array_equal(crop.numpy(), numpy_window(image.numpy(), origin, size, mode, -1.0))
        at_origin = affine @ torch.tensor([*origin, 1], dtype=torch.float64)
        torch.testing.assert_close(crop.affine[:, -1], at_origin, atol=1e-12, rtol=0)
        assert crop.meta["filename_or_obj"] == "a.nii"
        assert torch.equal(image.affine, affine), "the input must not change"


# ----------------------------------------------------------------------------------------- world round trip <= 1e-6 mm


@st.composite
def oblique_cases(draw: Any) -> tuple[MetaTensor, torch.Tensor, list[Any]]:
    """An image with a rotated, anisotropic, perhaps mirrored affine, world points in and around it, and transforms."""
    dims = draw(st.sampled_from([2, 3]))
    shape = tuple(draw(st.integers(1, 12)) for _ in range(dims))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rotation, _ = np.linalg.qr(numbers.normal(size=(dims, dims)))
    affine = np.eye(dims + 1)
    affine[:dims, :dims] = rotation * 10 ** numbers.uniform(-1, 1, dims)
    affine[:dims, dims] = numbers.uniform(-500, 500, dims)
    voxels = numbers.uniform(-0.5, np.array(shape) - 0.5, (4, dims))
    world = torch.as_tensor(voxels @ affine[:dims, :dims].T + affine[:dims, dims])
    world[draw(st.integers(1, 3))] = NAN
    size = [draw(st.integers(1, 15)) for _ in range(dims)]
    crop = CropAroundLandmarksd(
        "image", "points", spatial_size=size, landmarks=0, mode=draw(st.sampled_from(["constant", "edge"]))
    )
    codes = "".join(draw(st.permutations("RAS" if dims == 3 else "RA")))
    codes = "".join(draw(st.sampled_from([c, dict(zip("RAS", "LPI", strict=True))[c]])) for c in codes)
    turn = Orientationd("image", axcodes=codes, labels=RAS_LABELS[:dims])
    chain = draw(st.permutations([crop, turn]))
    return MetaTensor(torch.zeros(1, *shape), affine=torch.as_tensor(affine)), world, list(chain)


@given(oblique_cases())
@settings(max_examples=150, deadline=None)
def test_world_points_survive_crop_and_orientation(case: tuple[MetaTensor, torch.Tensor, list[Any]]) -> None:
    image, world, chain = case
    to_voxels = LandmarksWorldToImaged("points", "image", output_keys="voxels", dtype=torch.float64)
    back = LandmarksImageToWorldd("voxels", "image", output_keys="back")
    item = Compose([*chain, to_voxels, back])({"image": image, "points": world})
    torch.testing.assert_close(item["back"], world, atol=1e-6, rtol=0, equal_nan=True)
    # And through the affines alone, by another library's inverse: the voxel moved, the millimetre did not.
    affine = item["image"].affine.numpy()
    dims = world.shape[-1]
    expected = np.linalg.solve(affine[:dims, :dims], (world.numpy() - affine[:dims, -1]).T).T
    np.testing.assert_allclose(item["voxels"].numpy(), expected, atol=1e-6, equal_nan=True)


@given(oblique_cases())
@settings(max_examples=60, deadline=None)
def test_batched_crops_agree_with_the_transform_and_lead_back_to_world(case: Any) -> None:
    image, world, _ = case
    dims = world.shape[-1]
    voxels = LandmarksWorldToImaged("points", "image", dtype=torch.float64)({"image": image, "points": world})["points"]
    crops, origins, present = crops_around_points(image[None], voxels[None], 5)
    assert present[0].tolist() == (~world.isnan().any(-1)).tolist()
    for n in present[0].nonzero().flatten().tolist():
        crop, _ = CropAroundLandmarks(5, landmarks=n)(image, world)
        assert torch.equal(crop.as_tensor(), crops[0, n])
        moved = crop.affine @ torch.cat([voxels[n] - origins[0, n], torch.ones(1)]).double()
        assert (moved[:dims] - world[n]).abs().max() <= 1e-6


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SRA"])
def test_world_points_follow_an_orientation_to_a_named_frame(volume, centroid, axcodes: str) -> None:
    image, point = volume
    turn = Orientationd("image", axcodes=axcodes, labels=RAS_LABELS)
    compose = Compose([turn, LandmarksWorldToImaged("points", "image")])
    check_follows(compose({"image": tensor_of(image), "points": with_missing(point * [-1, -1, 1])}), centroid)


# --------------------------------------------------------------------------------------------------------------- options

IMAGE = MetaTensor(ramp(1, 20, 30), affine=torch.diag(torch.tensor([0.5, 0.25, 1.0], dtype=torch.float64)))
POINTS = torch.tensor([[2.0, 2.0], [4.0, 2.0], [8.0, 5.0], [NAN, NAN]], dtype=torch.float64)  # mm


@pytest.mark.parametrize(
    ("options", "middle"),
    [
        ({}, (5.0, 3.5)),  # box of all that are there
        ({"center": "mean"}, (14 / 3, 3.0)),
        ({"landmarks": 1}, (4.0, 2.0)),
        ({"landmarks": (0, 1, 3)}, (3.0, 2.0)),
        ({"landmarks": "c", "names": "abcd"}, (8.0, 5.0)),
        ({"landmarks": ["a", 2], "names": ["a", "b", "c", "d"]}, (5.0, 3.5)),
    ],
)
def test_which_landmarks_make_the_centre(options: dict[str, Any], middle: tuple[float, float]) -> None:
    crop, _ = CropAroundLandmarks(spatial_size=9, **options)(IMAGE, POINTS)
    found = crop.affine @ torch.tensor([4.0, 4.0, 1.0], dtype=torch.float64)
    assert ((found[:2] - torch.tensor(middle)) / torch.tensor([0.5, 0.25])).abs().max() <= 0.5 + 1e-6


def test_a_margin_around_the_box_of_the_landmarks() -> None:
    crop, _ = CropAroundLandmarks(margin_mm=0.5)(IMAGE, POINTS)
    low = crop.affine[:2, 2]
    high = (crop.affine @ torch.tensor([*(n - 1 for n in crop.shape[1:]), 1], dtype=torch.float64))[:2]
    assert low.tolist() == [1.5, 1.5]
    assert high.tolist() == [8.5, 5.5]


def test_no_landmark_to_crop_around() -> None:
    missing = torch.full((3, 2), NAN)
    named = MetaTensor(IMAGE.as_tensor(), affine=IMAGE.affine, meta={"filename_or_obj": "case7.png"})
    with pytest.raises(LandmarkError, match=r"case7\.png: none of the landmarks"):
        CropAroundLandmarks(8)(named, missing)
    with pytest.raises(LandmarkError, match="none of the landmarks"):
        CropAroundLandmarks(8, landmarks=3)(IMAGE, POINTS)
    for points in (missing, torch.tensor([[1e4, 1e4]])):
        crop, _ = CropAroundLandmarks((8, 10), missing="center")(IMAGE, points)
        assert torch.equal(crop.as_tensor(), IMAGE.as_tensor()[:, 6:14, 10:20])


def test_points_in_the_wrong_space_are_explained() -> None:
    with pytest.raises(LandmarkError, match="exchanging the axes"):
        CropAroundLandmarks(4, point_space="voxel")(ramp(1, 100, 20), torch.tensor([[3.0, 90.0], [12.0, 80.0]]))


def test_voxel_points_are_counted_in_the_crop_and_back_by_the_inverse() -> None:
    item = {"image": IMAGE, "points": POINTS.numpy() / [0.5, 0.25], "other": torch.tensor([[1.5, 2.5]]), "x": 1}
    crop = CropAroundLandmarksd("image", ["points", "other"], 12, landmarks=0, point_space="voxel")
    cropped = crop(item)
    assert cropped["points"][0].tolist() == [4 - (4 - 6), 8 - (8 - 6)]
    assert cropped["other"].tolist() == [[1.5 + 2, 2.5 - 2]]
    assert cropped["points"][3].isnan().all()
    inside = cropped["image"][0, 6, 6]
    assert inside == IMAGE[0, 4, 8]
    restored = crop.inverse(cropped)
    torch.testing.assert_close(restored["points"], torch.as_tensor(item["points"]), equal_nan=True)
    assert restored["image"].shape == IMAGE.shape
    torch.testing.assert_close(restored["image"].affine, IMAGE.affine)
    assert torch.equal(restored["image"].as_tensor()[:, :10, 2:14], IMAGE.as_tensor()[:, :10, 2:14])
    assert restored["image"].as_tensor().count_nonzero() == 10 * 12
    assert restored["image"].applied_operations == []
    plain, moved = CropAroundLandmarks(12, point_space="voxel")(IMAGE.as_tensor(), torch.tensor([[4.0, 8.0]]))
    assert type(plain) is torch.Tensor
    assert moved.tolist() == [[6.0, 6.0]]


def test_images_on_other_grids_show_the_same_place() -> None:
    fine = MetaTensor(torch.zeros(1, 40, 60), affine=torch.diag(torch.tensor([0.25, 0.125, 1.0], dtype=torch.float64)))
    item = {"image": IMAGE, "fine": fine, "points": POINTS}
    world = CropAroundLandmarksd(["image", "fine"], "points", size_mm=(4.0, 2.0), mode=["constant", "edge"])(item)
    assert world["image"].shape == (1, 8, 8)
    assert world["fine"].shape == (1, 16, 16)
    item["points"] = POINTS / torch.tensor([0.5, 0.25])
    voxel = CropAroundLandmarksd(["image", "fine"], "points", size_mm=(4.0, 2.0), point_space="voxel")(item)
    assert torch.equal(voxel["fine"].affine, world["fine"].affine)
    bare = {"image": torch.zeros(1, 8, 8), "fine": torch.zeros(1, 9, 9), "points": torch.zeros(1, 2)}
    with pytest.raises(LandmarkError, match="no affines"):
        CropAroundLandmarksd(["image", "fine"], "points", 4, point_space="voxel")(bare)


def test_one_value_per_key_and_keys_that_may_lack() -> None:
    item = {"image": IMAGE, "label": IMAGE.clone(), "points": torch.zeros(1, 2)}
    keys = ["image", "label", "absent"]
    crop = CropAroundLandmarksd(keys, "points", 4, value=[-1.0, 0.0, 5.0], allow_missing_keys=True)(item)
    assert crop["image"][0, 0, 0] == -1
    assert crop["label"][0, 0, 0] == 0
    only_points = {"points": torch.zeros(1, 2)}
    assert CropAroundLandmarksd("image", "points", 4, allow_missing_keys=True)(only_points).keys() == {"points"}


def test_cached_and_collated() -> None:
    items = [{"image": IMAGE, "points": POINTS + shift} for shift in (0.0, 1.0)]
    chain = [CropAroundLandmarksd("image", "points", 16), LandmarksWorldToImaged("points", "image")]
    batch = next(iter(DataLoader(CacheDataset(items, Compose(chain), progress=False), batch_size=2)))
    assert batch["image"].shape == (2, 1, 16, 16)
    world = LandmarksImageToWorldd("points", "image")(batch)["points"]
    torch.testing.assert_close(world, torch.stack([POINTS, POINTS + 1]), atol=1e-5, rtol=0, equal_nan=True)


def test_points_that_did_not_go_through_a_deformation_are_refused() -> None:
    image = IMAGE.clone()
    mark_deformed(image, ["landmarks"])
    item = {"image": image, "landmarks": POINTS, "coarse": POINTS}
    assert CropAroundLandmarksd("image", "landmarks", 8)(item)["image"].shape == (1, 8, 8)
    with pytest.raises(LandmarkError, match="'coarse' did not go along"):
        CropAroundLandmarksd("image", "coarse", 8)(item)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "exactly one"),
        ({"spatial_size": 4, "size_mm": 4.0}, "exactly one"),
        ({"spatial_size": 0}, "positive"),
        ({"size_mm": (4.0, -1.0)}, "positive"),
        ({"margin_mm": -1.0}, "0 or positive"),
        ({"margin_mm": 1.0, "missing": "center"}, "needs a size"),
        ({"spatial_size": 4, "mode": "reflect"}, "reflect"),
        ({"spatial_size": 4, "center": "median"}, "median"),
        ({"spatial_size": 4, "point_space": "LPS"}, "LPS"),
        ({"spatial_size": 4, "landmarks": "sella"}, "sella"),
        ({"spatial_size": 4, "landmarks": "sella", "names": ["nasion"]}, "nasion"),
        ({"spatial_size": 4, "landmarks": []}, "empty"),
        ({"spatial_size": 4, "landmarks": -1}, "count from 0"),
    ],
)
def test_options_that_cannot_be_are_refused_in_the_constructor(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        CropAroundLandmarks(**options)


@pytest.mark.parametrize(
    ("options", "image", "points", "match"),
    [
        ({"spatial_size": (4, 4, 4)}, IMAGE, POINTS, "2 axes"),
        ({"size_mm": (4.0, 4.0, 4.0)}, IMAGE, POINTS, "the image 2 axes"),
        ({"spatial_size": 4}, IMAGE.as_tensor(), POINTS, "MetaTensor"),
        ({"spatial_size": 4}, IMAGE, torch.zeros(1, 3), "3D points for a 2D image"),
        ({"spatial_size": 4}, IMAGE, POINTS[None], "crops_around_points"),
        ({"spatial_size": 4, "landmarks": 9}, IMAGE, POINTS, "there are 4 landmarks"),
    ],
)
def test_images_and_points_that_do_not_fit(options: dict[str, Any], image: Any, points: Any, match: str) -> None:
    with pytest.raises(LandmarkError, match=match):
        CropAroundLandmarks(**options)(image, points)
