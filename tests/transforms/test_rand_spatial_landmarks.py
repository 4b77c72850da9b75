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
"""One map for image and points: against the intensity centroid of tracked blobs, closed forms and ITK's conventions."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.transforms import Compose, Flipd, RandAxisFlipd, Spacingd, SpatialCropd

from monai_landmarks.geometry import LandmarkError, apply_affine, deformed_with, voxel_sizes
from monai_landmarks.transforms import (
    FitToGrid,
    FitToGridd,
    LandmarksImageToWorldd,
    LandmarksWorldToImaged,
    RandFlipLandmarksd,
    RandSpatialLandmarks,
    RandSpatialLandmarksd,
    SpatialLandmarks,
    SpatialLandmarksd,
)

AFFINE_RANGES = {
    "rotate_range": 0.3,
    "scale_range": 0.15,
    "axis_scale_range": 0.1,
    "shear_range": 0.05,
    "translate_range_mm": 4.0,
}
TO_VOXELS = LandmarksWorldToImaged("landmarks", "image", output_keys="points")


def oblique_affine(dims: int, seed: int = 0) -> torch.Tensor:
    """Turned, anisotropic, with a mirrored axis for odd seeds."""
    random = np.random.RandomState(seed)
    turn, _ = np.linalg.qr(random.randn(dims, dims))
    affine = np.eye(dims + 1)
    affine[:dims, :dims] = turn @ np.diag([0.8, 1.1, 1.7][:dims])
    affine[:dims, dims] = [5.0, -7.0, 30.0][:dims]
    return torch.as_tensor(affine)


def voxel_grid(shape) -> torch.Tensor:
    return torch.stack(torch.meshgrid(*[torch.arange(s, dtype=torch.float64) for s in shape], indexing="ij"), dim=-1)


def blob_item(dims: int, width_mm: float = 5.0, seed: int = 0) -> dict:
    """Two blobs, each in a channel, their world points, and a missing third landmark."""
    shape = (80, 64, 50)[:dims]
    affine = oblique_affine(dims, seed)
    voxel = torch.tensor([[34.3, 27.7, 22.2], [47.1, 38.4, 28.3]], dtype=torch.float64)[:, :dims]
    squared = ((voxel_grid(shape) - voxel.reshape(2, *(1,) * dims, dims)) * voxel_sizes(affine)).square().sum(-1)
    image = torch.exp(-squared / (2 * width_mm**2)).float()
    world = torch.cat([apply_affine(voxel, affine), torch.full((1, dims), float("nan"))])
    return {"image": MetaTensor(image, affine=affine), "landmarks": world}


def centroids(image: torch.Tensor, floor: float = 0.2) -> torch.Tensor:
    """Of what stands out of the background by a fifth of the top, so that a bent tail does not pull."""
    weight = image.as_tensor().double().unsqueeze(-1) - floor
    weight = weight.clamp(min=0) if floor else weight
    axes = tuple(range(1, weight.ndim - 1))
    return (weight * voxel_grid(image.shape[1:])).sum(axes) / weight.sum(axes)


def worst(item: dict, floor: float = 0.2) -> float:
    return (centroids(item["image"], floor) - item["points"][:2].double()).abs().max().item()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_points_lie_on_their_blobs_after_an_affine_map(dims, seed):
    augment = RandSpatialLandmarksd("image", "landmarks", mode="cubic", **AFFINE_RANGES).set_random_state(seed)
    item = blob_item(dims, 4.0, seed)
    result = TO_VOXELS(augment(item))
    assert worst(result, floor=0.0) <= 0.01
    assert result["points"][2].isnan().all()
    assert torch.equal(torch.nan_to_num(result["landmarks"]), torch.nan_to_num(item["landmarks"]))  # not touched


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_points_lie_on_their_blobs_after_an_elastic_map_and_what_follows(dims, seed):
    """At the strength of the papers: five control points, a tenth of a cell; then a flip and a crop of MONAI."""
    augment = RandSpatialLandmarksd(
        "image", "landmarks", elastic_range_mm=2.5, spatial_size=(90, 84, 70)[:dims], pixdim=1.2, **AFFINE_RANGES
    )
    chain = Compose([augment, Flipd("image", 0), SpatialCropd("image", roi_start=(3,) * dims, roi_end=(88,) * dims)])
    chain.set_random_state(seed)
    result = TO_VOXELS(chain(blob_item(dims, 4.0)))
    assert worst(result) <= 0.05
    assert deformed_with(result["image"]) == ("landmarks",)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("lazy", [False, True])
def test_neighbours_in_a_pipeline_eager_and_lazy(dims, lazy):
    chain = Compose(
        [
            Spacingd("image", pixdim=(1.0,) * dims, mode="bilinear"),
            RandSpatialLandmarksd("image", "landmarks", elastic_range_mm=1.5, **AFFINE_RANGES),
            RandAxisFlipd("image", prob=1.0),
            TO_VOXELS,
        ],
        lazy=lazy,
    ).set_random_state(1)
    assert worst(chain(blob_item(dims))) <= 0.05


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**31), three=st.booleans())
def test_world_round_trip(seed, three):
    """Voxels of the output, back to the world by the output's affine: the world point that went in."""
    dims = 3 if three else 2
    affine = oblique_affine(dims, seed % 1000)
    image = MetaTensor(torch.zeros(1, *(9, 8, 7)[:dims]), affine=affine)
    world = apply_affine(torch.rand(6, dims, generator=torch.Generator().manual_seed(seed)) * 6, affine)
    ranges = {**AFFINE_RANGES, "rotate_range": 3.0, "scale_range": 0.9, "shear_range": 0.5, "translate_range_mm": 50}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read, same = RandSpatialLandmarks(**ranges).set_random_state(seed)(image, world)
        voxel, moved = RandSpatialLandmarks(**ranges, point_space="voxel").set_random_state(seed)(
            image, apply_affine(world, torch.linalg.inv(affine))
        )
    torch.testing.assert_close(read.affine.double(), voxel.affine.double())
    assert (apply_affine(moved, read.affine.double()) - world).abs().max() <= 1e-6
    assert torch.equal(same, world)


def test_directions():
    """What the docstring says of each quantity, on a 2D image of 2 mm x 1 mm voxels whose centre is (10, 10)."""
    image = MetaTensor(torch.zeros(1, 21, 21), affine=torch.diag(torch.tensor([2.0, 1.0, 1.0])))
    start = torch.tensor([[13.0, 10.0]], dtype=torch.float64)  # 6 mm along axis 0

    def seen(**values) -> list[float]:
        return SpatialLandmarks(point_space="voxel", **values)(image, start)[1][0].tolist()

    assert seen(rotate=np.pi / 2) == pytest.approx([10, 16])  # axis 0 towards axis 1; 6 mm are 6 voxels there
    assert seen(scale=2.0) == pytest.approx([16, 10])
    assert seen(scale=(2.0, 5.0)) == pytest.approx([16, 10])
    assert seen(translate_mm=(4.0, -3.0)) == pytest.approx([15, 7])
    assert seen(flip_axes=[0]) == pytest.approx([7, 10])
    assert seen(spatial_size=(41, 41), pixdim=1.0) == pytest.approx([26, 20])
    assert SpatialLandmarks(shear=0.5, point_space="voxel")(image, torch.tensor([[10.0, 14.0]]))[1][0].tolist() == (
        pytest.approx([11, 14])  # 4 mm along axis 1 shift axis 0 by 2 mm, one voxel
    )


def test_rotations_in_three_dimensions_turn_about_their_axis():
    image = MetaTensor(torch.zeros(1, 11, 11, 11), affine=torch.eye(4))
    point = torch.tensor([[5.0, 8.0, 5.0]])
    for axis, expected in [(0, [5, 5, 8]), (1, [5, 8, 5]), (2, [2, 5, 5])]:
        angles = [np.pi / 2 if a == axis else 0.0 for a in range(3)]
        seen = SpatialLandmarks(rotate=angles, point_space="voxel")(image, point)[1]
        assert seen[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_the_same_seed_gives_the_same_picture_and_another_another():
    augment = RandSpatialLandmarksd("image", "landmarks", elastic_range=1.0, **AFFINE_RANGES)
    item = blob_item(2)
    first, second = (augment.set_random_state(7)(item) for _ in range(2))
    assert torch.equal(first["image"], second["image"])
    assert torch.equal(first["landmarks"][:2], second["landmarks"][:2])
    assert not torch.equal(first["image"], augment.set_random_state(8)(item)["image"])


@pytest.mark.parametrize("workers", [0, 2])
def test_in_a_cached_dataset_with_workers(workers):
    chain = Compose([RandSpatialLandmarksd("image", "landmarks", elastic_range=1.0, **AFFINE_RANGES), TO_VOXELS])
    items = [blob_item(2) for _ in range(4)]
    dataset = CacheDataset(items, chain, progress=False, num_workers=1)
    batches = list(DataLoader(dataset, batch_size=2, num_workers=workers))
    images = [image for batch in batches for image in batch["image"]]
    points = [p for batch in batches for p in batch["points"]]
    for image, p in zip(images, points, strict=True):
        assert worst({"image": MetaTensor(image), "points": p}) <= 0.05
    assert not torch.equal(points[0][:2], points[1][:2])
    assert torch.equal(items[0]["landmarks"][:2], blob_item(2)["landmarks"][:2])  # the data are not touched


def test_several_images_and_points_go_through_one_map():
    """A label map on another grid of the same world: a box about each blob stays about it, in its own integers."""
    item = blob_item(3)
    coarse = oblique_affine(3).clone()
    coarse[:3, :3] *= 2
    coarse[:3, 3] = apply_affine(torch.tensor([[0.5, 0.5, 0.5]]), oblique_affine(3))[0]
    labels = torch.nn.functional.avg_pool3d(item["image"].as_tensor()[:1], 2) > 0.5
    item["label"] = MetaTensor(labels.to(torch.uint8), affine=coarse)
    item["other"] = item["landmarks"].clone()
    augment = RandSpatialLandmarksd(
        ["image", "label"], ["landmarks", "other"], mode=["linear", "nearest"], elastic_range_mm=2.0, **AFFINE_RANGES
    )
    result = TO_VOXELS(augment.set_random_state(2)(item))
    assert result["image"].shape[1:] == result["label"].shape[1:]
    assert result["label"].dtype == torch.uint8
    assert set(result["label"].unique().tolist()) == {0, 1}
    assert torch.equal(result["landmarks"][:2], result["other"][:2])
    torch.testing.assert_close(result["image"].affine, result["label"].affine)
    overlap = (result["label"][0] == 1) & (result["image"][0] > 0.5)
    assert overlap.sum() > 0.8 * (result["label"][0] == 1).sum()


def test_without_probability_the_image_is_brought_to_the_grid_only():
    item = blob_item(2)
    never = RandSpatialLandmarksd(
        "image", "landmarks", prob=0.0, elastic_range=3.0, spatial_size=(70, 70), **AFFINE_RANGES
    )
    fitted = SpatialLandmarksd("image", "landmarks", spatial_size=(70, 70))(item)
    result = never(item)
    torch.testing.assert_close(result["image"].as_tensor(), fitted["image"].as_tensor())
    assert deformed_with(result["image"]) is None
    assert torch.equal(result["landmarks"][:2], item["landmarks"][:2])
    LandmarksImageToWorldd("landmarks", "image", output_keys="w")(result)  # its affine is true


def test_mixed_images_with_and_without_deformation_collate():
    augment = RandSpatialLandmarksd("image", "landmarks", prob=0.5, elastic_range=1.0).set_random_state(0)
    loader = DataLoader(
        CacheDataset([blob_item(2)] * 8, Compose([augment]), progress=False, num_workers=1), batch_size=8
    )
    batch = next(iter(loader))
    marks = batch["image"].meta["deformed_with"]
    assert set(marks) == {"", "landmarks"}
    with pytest.raises(LandmarkError, match="deformed elastically"):
        LandmarksImageToWorldd("landmarks", "image")(batch)


def test_nobody_reads_millimetres_from_a_deformed_image():
    item = {**blob_item(2), "truth": blob_item(2)["landmarks"]}
    result = RandSpatialLandmarksd("image", "landmarks", elastic_range=1.0)(item)
    with pytest.raises(LandmarkError, match="does not lead to the patient's millimetres"):
        LandmarksImageToWorldd("landmarks", "image")(result)
    with pytest.raises(LandmarkError, match="'truth' did not go along"):
        LandmarksWorldToImaged("truth", "image")(result)
    TO_VOXELS(result)
    again = RandSpatialLandmarksd("image", ["landmarks", "truth"], elastic_range=1.0)(result)
    with pytest.raises(LandmarkError, match="'truth' did not go along"):
        LandmarksWorldToImaged("truth", "image")(again)  # it went along the second time only
    TO_VOXELS(again)


def test_points_are_not_converted_twice():
    item = blob_item(2)
    to_voxels = LandmarksWorldToImaged("landmarks", "image")
    once = to_voxels(item)
    with pytest.raises(LandmarkError, match="converted to voxels twice"):
        to_voxels(once)
    assert torch.equal(to_voxels(item)["landmarks"][:2], once["landmarks"][:2])  # the item itself was not marked
    back = LandmarksImageToWorldd("landmarks", "image")(once)
    torch.testing.assert_close(back["landmarks"][:2], item["landmarks"][:2], atol=1e-4, rtol=0)
    with pytest.raises(LandmarkError, match="converted to millimetres twice"):
        LandmarksImageToWorldd("landmarks", "image")(back)
    to_voxels(back)


def test_it_is_not_inverted_silently():
    chain = Compose(
        [Spacingd("image", pixdim=(1.0, 1.0)), RandSpatialLandmarksd("image", "landmarks", rotate_range=0.1)]
    )
    result = chain(blob_item(2))
    with pytest.raises(RuntimeError) as caught:
        chain.inverse(result)
    assert "is not inverted" in str(caught.value.__cause__)


def test_fit_keeps_aspect_ratio_and_centre():
    """A film of 193.5 x 240 mm on 512 x 512: Payer's 0.46875 mm, the film's centre in the grid's centre."""
    film = MetaTensor(
        torch.rand(1, 968, 1200), affine=torch.diag(torch.tensor([193.5 / 968, 0.2, 1.0], dtype=torch.float64))
    )
    read = FitToGridd("image", (512, 512), fill=-1)({"image": film})["image"]
    assert read.shape == (1, 512, 512)
    assert voxel_sizes(read.affine).tolist() == pytest.approx([0.46875] * 2)
    middle = torch.tensor([[255.5, 255.5]])
    film_middle = torch.tensor([[483.5, 599.5]])
    torch.testing.assert_close(
        apply_affine(middle, read.affine), apply_affine(film_middle, film.affine), atol=1e-9, rtol=0
    )
    assert (read[0, :40] == -1).all()
    assert abs(read[0, 100:400, 100:400].mean().item() - 0.5) < 0.01


def test_shrinking_is_anti_aliased():
    """Stripes of one voxel become grey when they are read four times coarser, and false stripes without smoothing."""
    stripes = (torch.arange(256) % 5 < 2).float().reshape(1, 256, 1).expand(1, 256, 256)
    image = MetaTensor(stripes, affine=torch.eye(3))
    smooth_read, plain_read = (FitToGrid((64, 64), antialias=a)(image)[0][0, 8:-8, 8:-8] for a in (True, False))
    assert smooth_read.std() < 0.08
    assert plain_read.std() > 0.3


def test_random_crops_stay_in_the_image_and_reach_its_ends():
    image = MetaTensor(torch.ones(1, 60, 20), affine=torch.eye(3))
    ends = torch.tensor([[0.0, 10.0], [59.0, 10.0]])
    crop = RandSpatialLandmarks(spatial_size=(20, 20), random_crop=(True, False), point_space="voxel").set_random_state(
        0
    )
    first = []
    for _ in range(200):
        read, points = crop(image, ends)
        assert read.min() > 0.99
        first.append(points[0].tolist())
    moves = np.array(first)
    assert moves[:, 0].min() < -38
    assert moves[:, 0].max() > -2
    assert np.ptp(moves[:, 1]) < 1e-4


def test_flips_exchange_sides_as_the_flip_transform_does():
    item = blob_item(2)
    item["landmarks"] = item["landmarks"][:2]
    names = ["eye_left", "eye_right"]
    mine = RandSpatialLandmarksd("image", "landmarks", flip_prob=(1.0, 0.0), landmark_names=names, flip_pairs="names")(
        item
    )
    other = RandFlipLandmarksd("image", "landmarks", names=names, pairs="names", spatial_axis=0, prob=1.0)(item)
    torch.testing.assert_close(mine["image"].as_tensor(), other["image"].as_tensor(), atol=1e-5, rtol=0)
    assert torch.equal(mine["landmarks"], other["landmarks"])
    assert torch.equal(mine["landmarks"], item["landmarks"].flip(0))
    with pytest.raises(LandmarkError, match="left and right"):
        RandSpatialLandmarks(flip_prob=0.5, landmark_names=names)
    both = RandSpatialLandmarksd("image", "landmarks", flip_prob=1.0, landmark_names=names, flip_pairs="names")(item)
    assert torch.equal(both["landmarks"], item["landmarks"])  # two mirrors are a half turn: sides stay


def test_points_outside_are_warned_about_counted_and_kept():
    item = blob_item(2)
    item["landmarks"][0] += 500
    with pytest.warns(UserWarning, match="1 of 2 landmarks under 'landmarks' lie outside"):
        result = TO_VOXELS(RandSpatialLandmarksd("image", "landmarks", elastic_range=1.0)(item))
    assert torch.isfinite(result["points"][:2]).all()


def test_all_points_missing():
    item = blob_item(2)
    item["landmarks"][:] = float("nan")
    assert RandSpatialLandmarksd("image", "landmarks", elastic_range=1.0)(item)["landmarks"].isnan().all()


def test_the_largest_safe_value_is_named_and_works():
    with pytest.raises(LandmarkError, match="folds the image") as caught:
        RandSpatialLandmarks(spatial_size=(64, 64), elastic_range=40.0, elastic_nodes=8)
    safe = float(str(caught.value).split("never folds is ")[1].split(";")[0])
    augment = RandSpatialLandmarks(elastic_range=safe, elastic_nodes=8, point_space="voxel")
    for seed in range(20):
        augment.set_random_state(seed)(torch.zeros(1, 64, 64), torch.full((4, 2), 20.0))
    with pytest.raises(LandmarkError, match="folds the image"):  # found at the call where the grid is not known before
        RandSpatialLandmarks(elastic_range_mm=40.0, elastic_nodes=8, point_space="voxel")(torch.zeros(1, 64, 64))


def test_folding_draws_are_repeated():
    """Between the safe bound and what always folds, draws that fold are drawn again: every map can be inverted."""
    augment = RandSpatialLandmarks(elastic_range=9.0, elastic_nodes=7, point_space="voxel")
    points = torch.rand(30, 2, generator=torch.Generator().manual_seed(0)) * 63
    for seed in range(40):
        augment.set_random_state(seed)(torch.zeros(1, 64, 64), points)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale_range": 1.0}, "largest value is 0.95"),
        ({"axis_scale_range": [0.1, 1.5]}, "largest value is 0.95"),
        ({"scale_range": (0.3, -0.3)}, "low <= high"),
        ({"rotate_range": float("nan")}, "finite"),
        ({"prob": 1.5}, "must lie in"),
        ({"translate_range": 5, "translate_range_mm": 5}, "not both"),
        ({"elastic_range": 5, "elastic_range_mm": 5}, "not both"),
        ({"flip_prob": 0.5}, "names"),
    ],
)
def test_ranges_that_cannot_be_meant_are_refused_at_once(options, message):
    with pytest.raises(LandmarkError, match=message):
        RandSpatialLandmarks(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotate_range": [0.1, 0.1, 0.1, 0.1]}, "rotate_range"),
        ({"spatial_size": (8, 8, 8)}, "image's 2 axes"),
        ({"spatial_size": (8, 0)}, "positive"),
        ({"pixdim": "fit"}, "together with `spatial_size`"),
        ({"elastic_range": 1.0, "elastic_nodes": 3}, "at least 4 control points"),
    ],
)
def test_ranges_that_do_not_fit_the_image(options, message):
    with pytest.raises(LandmarkError, match=message):
        RandSpatialLandmarks(**options, point_space="voxel")(torch.zeros(1, 16, 16), torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("image", "points", "message"),
    [
        (MetaTensor(torch.zeros(1, 8, 8), affine=torch.eye(3)), torch.zeros(3, 3), "3D points"),
        (MetaTensor(torch.zeros(1, 8, 8, 8), affine=torch.eye(4)), torch.zeros(3, 2), "2D points"),
        (MetaTensor(torch.zeros(8, 8), affine=torch.eye(3)), torch.zeros(3, 2), "add the channel"),
        (MetaTensor(torch.zeros(1, 8, 8), affine=torch.zeros(3, 3)), torch.zeros(3, 2), "cannot be inverted"),
        (torch.zeros(1, 8, 8), torch.zeros(3, 2), "affine"),
        (
            MetaTensor(torch.zeros(1, 8, 8), affine=torch.eye(3)),
            torch.tensor([[1.0, float("nan")]]),
            "some but not all",
        ),
    ],
)
def test_image_and_points_that_do_not_fit(image, points, message):
    with pytest.raises(LandmarkError, match=message):
        RandSpatialLandmarks(rotate_range=0.1)(image, points)


def test_missing_keys():
    augment = RandSpatialLandmarksd("image", "landmarks", rotate_range=0.1)
    with pytest.raises(LandmarkError, match="no points under"):
        augment({"image": blob_item(2)["image"]})
    lenient = RandSpatialLandmarksd("image", "landmarks", rotate_range=0.1, allow_missing_keys=True)
    assert set(lenient({"image": blob_item(2)["image"]})) == {"image"}
    assert lenient({"other": 1}) == {"other": 1}


def test_from_a_json_configuration():
    text = {
        "_target_": "monai_landmarks.transforms.RandSpatialLandmarksd",
        "keys": "image",
        "point_keys": "landmarks",
        "spatial_size": [40, 40],
        "pixdim": "fit",
        "rotate_range": 0.26,
        "elastic_range": 5,
        "elastic_nodes": 5,
    }
    parser = ConfigParser({"augment": json.loads(json.dumps(text))})
    result = parser.get_parsed_content("augment")(blob_item(2))
    assert result["image"].shape == (2, 40, 40)


@pytest.mark.real_data
def test_landmarks_of_a_real_film_lie_on_the_same_grey_values(real_data):
    """The film's grey value under each of its 19 landmarks is the same before and after the papers' augmentation."""
    from monai_landmarks.data.datasets import isbi2015_datalist
    from monai_landmarks.transforms import LoadFilmd, SmoothInMillimetersd

    folder = real_data("isbi2015_cephalograms")
    load = Compose([LoadFilmd("image"), SmoothInMillimetersd("image", 0.6)])
    item = load(isbi2015_datalist(folder, "training")[0])
    item["landmarks"] = torch.as_tensor(
        np.asarray(item["landmarks"].points if hasattr(item["landmarks"], "points") else item["landmarks"])
    )
    augment = RandSpatialLandmarksd(
        "image",
        "landmarks",
        rotate_range=0.2618,
        scale_range=0.4,
        translate_range_mm=9.375,
        elastic_range_mm=2.34,
        elastic_nodes=12,
    )

    def values(d) -> torch.Tensor:
        at = TO_VOXELS(d)["points"]
        grid = 2 * (at + 0.5) / torch.tensor(d["image"].shape[1:]) - 1
        return torch.nn.functional.grid_sample(
            d["image"].as_tensor()[None], grid.flip(-1)[None, None], align_corners=False, padding_mode="border"
        )[0, 0, 0]

    before = values(item)
    for seed in range(3):
        after_item = augment.set_random_state(seed)(item)
        after, points = values(after_item), TO_VOXELS(after_item)["points"]
        inside = ((points > 2) & (points < torch.tensor(after_item["image"].shape[1:]) - 3)).all(dim=-1)
        assert inside.sum() >= 10
        assert (after - before)[inside].abs().max() < 3.0  # of 255; linear interpolation of a smoothed film
