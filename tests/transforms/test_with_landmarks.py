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
"""`WithLandmarksd` as a citizen of MONAI: seeds, pipelines, several images, lists, and what it refuses."""

from __future__ import annotations

import random
from typing import Any

import monai.transforms as mt
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor, decollate_batch
from where_shown import AFFINES, CENTRES, centroids, item, voxels, wrapped

from monai_landmarks.data import Landmarks
from monai_landmarks.geometry import LandmarkError, deformed_with
from monai_landmarks.transforms import LandmarksWorldToImaged
from monai_landmarks.transforms.with_landmarks import WithLandmarks, WithLandmarksd

I = "image"  # noqa: E741


def elastic(keys: Any = I, **options: Any) -> Any:
    return mt.Rand2DElasticd(keys, (20, 20), (0.5, 1), prob=1.0, **options)


RANDOM = [
    pytest.param(lambda: mt.RandAffined(I, prob=1.0, rotate_range=0.3, scale_range=0.1), id="RandAffined"),
    pytest.param(elastic, id="Rand2DElasticd"),
    pytest.param(lambda: mt.RandGridDistortiond(I, prob=0.5), id="RandGridDistortiond"),
    pytest.param(
        lambda: mt.Compose([mt.RandFlipd(I, prob=0.5), elastic(), mt.RandRotate90d(I, prob=0.5)]), id="Compose"
    ),
    pytest.param(lambda: mt.OneOf([mt.RandFlipd(I, prob=1.0), elastic()]), id="OneOf"),
    pytest.param(lambda: mt.RandSpatialCropd(I, (60, 50), random_size=False), id="RandSpatialCropd"),
]


# -------------------------------------------------------------------------------------------------------------- seeds


@pytest.mark.parametrize("make", RANDOM)
def test_the_image_is_bitwise_that_of_the_transform_alone(make: Any) -> None:
    alone, follow = make(), WithLandmarksd(make(), I, "points")
    alone.set_random_state(7)
    follow.set_random_state(7)
    for _ in range(4):  # the states stay in step
        expected, found = alone(item(2)), follow(item(2))
        assert torch.equal(expected["image"].as_tensor(), found["image"].as_tensor())


def test_transforms_that_were_never_seeded_stay_in_step_too() -> None:
    """They share one random state, an attribute of MONAI's class, which a copy of the transform does not hold."""
    before = mt.Randomizable.R.get_state()
    try:
        mt.Randomizable.R.seed(3)
        alone = [elastic()(item(2))["image"] for _ in range(2)]
        mt.Randomizable.R.seed(3)
        follow = WithLandmarksd(elastic(), I, "points")
        assert "R" not in vars(follow.transform)
        for expected in alone:
            assert torch.equal(expected.as_tensor(), follow(item(2))["image"].as_tensor())
    finally:
        mt.Randomizable.R.set_state(before)


def test_global_random_states_move_on_as_with_the_transform_alone() -> None:
    class Draws(mt.MapTransform):
        """Turns by random sources that are not MONAI's."""

        def __call__(self, data: Any) -> Any:
            turns = random.randint(0, 3) + int(np.random.randint(4)) + int(torch.randint(4, (1,)))  # noqa: NPY002
            return mt.Rotate90d(self.keys, k=turns % 4)(data)

    def seeded() -> None:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)

    seeded()
    alone = [Draws(I)(item(2))["image"] for _ in range(4)]
    last = random.random(), np.random.rand(), float(torch.rand(1))  # noqa: NPY002
    seeded()
    follow = WithLandmarksd(Draws(I), I, "points")
    for expected in alone:
        sample = follow(item(2))
        assert torch.equal(expected.as_tensor(), sample["image"].as_tensor())
        np.testing.assert_allclose(voxels(sample, 2), centroids(sample["image"]), atol=0.01)
    assert (random.random(), np.random.rand(), float(torch.rand(1))) == last  # noqa: NPY002


def test_the_same_seed_gives_the_same_picture_and_points() -> None:
    first, second = (WithLandmarksd(elastic(), I, "points").set_random_state(5)(item(2)) for _ in range(2))
    other = WithLandmarksd(elastic(), I, "points").set_random_state(6)(item(2))
    assert torch.equal(first["image"].as_tensor(), second["image"].as_tensor())
    assert torch.equal(first["points"][:-1], second["points"][:-1])
    assert not torch.equal(first["points"][:-1], other["points"][:-1])


# ---------------------------------------------------------------------------------------------------------- pipelines


def test_affine_transforms_after_a_deformation_put_the_points_exactly() -> None:
    spline = elastic(mode=3, padding_mode="constant")
    tail = [
        mt.Spacingd(I, pixdim=(0.17, 0.25), mode=3, padding_mode="constant"),
        mt.RandFlipd(I, prob=1.0),
        mt.SpatialPadd(I, (120, 120)),
        LandmarksWorldToImaged("points", I, output_keys="voxel"),
    ]
    pipeline = mt.Compose([WithLandmarksd(spline, I, "points"), *tail]).set_random_state(3)
    narrow, wide = pipeline(item(2, 0.9)), pipeline.set_random_state(3)(item(2, 1.5))
    first, second = centroids(narrow["image"]), centroids(wide["image"])
    to_zero = first - (second - first) * 0.9**2 / (1.5**2 - 0.9**2)
    assert np.linalg.norm(to_zero - narrow["voxel"].numpy()[:-1], axis=1).max() < 0.05
    assert deformed_with(narrow["image"]) == ("points",)


def test_in_a_lazy_compose_what_waits_is_applied_first() -> None:
    steps = [
        mt.Spacingd(I, pixdim=(0.25, 0.25)),
        mt.Rotated(I, angle=0.2, keep_size=False),
        WithLandmarksd(mt.Transposed(I, (0, 2, 1)), I, "points"),
        mt.Flipd(I, 0),
    ]
    sample = mt.Compose(steps, lazy=True)(item(2))
    np.testing.assert_allclose(voxels(sample, 2), centroids(sample["image"]), atol=0.05)


def test_a_lazy_transform_is_executed_eagerly() -> None:
    sample = WithLandmarksd(mt.Rotated(I, angle=0.2, lazy=True), I, "points")(item(2))
    assert not sample["image"].pending_operations
    np.testing.assert_allclose(voxels(sample, 2), centroids(sample["image"]), atol=0.05)


def test_pending_operations_are_refused() -> None:
    waiting = mt.Flipd(I, 0, lazy=True)(item(2))
    with pytest.raises(LandmarkError, match="pending lazy operations"):
        WithLandmarksd(mt.Transposed(I, (0, 2, 1)), I, "points")(waiting)


def test_cache_dataset_stops_before_it_and_workers_draw_differently() -> None:
    steps = [
        mt.DivisiblePadd(I, 8),
        WithLandmarksd(mt.RandGridDistortiond(I, prob=0.7), I, "points"),
        LandmarksWorldToImaged("points", I, output_keys="voxel"),
        mt.SelectItemsd([I, "points", "voxel"]),
    ]
    data = CacheDataset([item(2, 1.2)] * 4, mt.Compose(steps).set_random_state(0), progress=False, num_workers=1)
    assert deformed_with(data._cache[0]["image"]) is None
    torch.testing.assert_close(data._cache[0]["points"], item(2)["points"], equal_nan=True)
    batches = list(DataLoader(data, batch_size=2, num_workers=2))  # deformed and untouched images collate
    samples = [sample for batch in batches for sample in decollate_batch(batch)]
    assert len(samples) == 4
    assert len({float(s["voxel"][0, 0]) for s in samples}) > 2
    torch.testing.assert_close(data._cache[0]["points"], item(2)["points"], equal_nan=True)


def test_the_item_that_came_in_is_not_changed() -> None:
    before = item(2)
    kept = {k: v.clone() for k, v in before.items()}
    for transform in (elastic(), mt.RandSimulateLowResolutiond(I, prob=0.0), mt.Transposed(I, (0, 2, 1))):
        WithLandmarksd(transform, I, "points")(before)
        for key, value in kept.items():
            torch.testing.assert_close(before[key], value, equal_nan=True)
        assert "deformed_with" not in before["image"].meta


# ----------------------------------------------------------------------------------------------- several images, lists


def test_an_image_and_its_labels_stay_together() -> None:
    both = ["image", "mask"]
    transform = elastic(both, mode=("bilinear", "nearest"))
    sample = WithLandmarksd(transform, both, "points").set_random_state(0)(item(2))
    assert torch.equal(sample["image"].affine, sample["mask"].affine)
    assert deformed_with(sample["image"]) == deformed_with(sample["mask"]) == ("points",)


def test_labels_by_nearest_voxel_do_not_stop_an_affine_transform() -> None:
    both = ["image", "mask"]
    transform = mt.Resized(both, (90, 65), mode=("bilinear", "nearest"))
    sample = WithLandmarksd(transform, both, "points")(item(2))
    np.testing.assert_allclose(voxels(sample, 2), centroids(sample["image"]), atol=0.05)
    assert deformed_with(sample["image"]) is None


def test_an_array_transform_uses_one_draw_for_all_images() -> None:
    make = mt.Rand2DElastic((20, 20), (0.5, 1), prob=1.0)
    data = item(2)
    data["copy"] = data["image"].clone()
    sample = WithLandmarksd(make, ["image", "copy"], "points").set_random_state(1)(data)
    alone = mt.Rand2DElastic((20, 20), (0.5, 1), prob=1.0).set_random_state(1)(item(2)["image"])
    assert torch.equal(sample["image"].as_tensor(), sample["copy"].as_tensor())
    assert torch.equal(sample["image"].as_tensor(), alone.as_tensor())


def test_images_deformed_differently_are_refused() -> None:
    data = item(2)
    data["other"] = mt.Spacing(pixdim=(0.3, 0.3))(data["image"])
    with pytest.raises(LandmarkError, match="must lie on one grid"):
        WithLandmarksd(elastic(["image", "other"]), ["image", "other"], "points").set_random_state(0)(data)
    with pytest.raises(LandmarkError, match="differently"):
        WithLandmarksd(elastic("image"), ["image", "mask"], "points").set_random_state(0)(item(2))


def test_several_sets_of_points_in_their_own_containers() -> None:
    data = item(2)
    numbers = data["points"].numpy().astype(np.float32)
    data["array"], data["list"] = numbers, numbers.tolist()
    data["named"] = Landmarks(numbers, ["a", "b", "c", "d"])
    keys = ["points", "array", "list", "named"]
    for transform in (elastic(), mt.Flipd(I, 0)):
        sample = WithLandmarksd(transform, I, keys).set_random_state(0)(data)
        assert type(sample["points"]) is torch.Tensor
        assert sample["array"].dtype == np.float32
        assert sample["named"].names == ("a", "b", "c", "d")
        assert sample["named"].status[-1] == "missing"
        for key in keys[1:3]:
            np.testing.assert_allclose(np.asarray(sample[key]), sample["points"].numpy(), atol=1e-4)
        np.testing.assert_allclose(sample["named"].points, sample["points"].numpy(), atol=1e-4)


def test_lists_of_crops_give_every_crop_its_own_points() -> None:
    transform = mt.RandSpatialCropSamplesd(I, (70, 60), 3, random_size=False)
    samples = WithLandmarksd(transform, I, "points", point_space="voxel").set_random_state(0)(
        {**item(2), "points": torch.tensor(CENTRES[2])}
    )
    assert len(samples) == 3
    for sample in samples:
        np.testing.assert_allclose(sample["points"].numpy(), centroids(sample["image"]), atol=0.05)


def test_crops_are_not_run_twice() -> None:
    calls = []

    def counted(x: Any) -> Any:
        calls.append(x.shape)
        return x > 1

    WithLandmarksd(mt.CropForegroundd(I, I, select_fn=counted), I, "points")(item(2))
    assert len(calls) == 1


# ---------------------------------------------------------------------------------------------------- points and space


@pytest.mark.parametrize(
    "transform",
    [mt.Transpose((0, 2, 1)), mt.Flip(0), mt.Rotate(0.3, padding_mode="zeros"), mt.CenterSpatialCrop((70, 60))],
    ids=lambda t: type(t).__name__,
)
@pytest.mark.parametrize("tracked", [True, False])
def test_voxel_points_of_the_array_form(transform: Any, tracked: bool) -> None:
    image = item(2)["image"] if tracked else item(2)["image"].as_tensor()  # a plain tensor: its world is its voxels
    points = torch.tensor(np.vstack([CENTRES[2], np.full((1, 2), np.nan)]))
    for space in ("voxel",) if tracked else ("voxel", "world"):
        out, moved = WithLandmarks(transform, point_space=space)(image, points)
        found = moved.numpy() if space == "voxel" else voxels({"image": out, "points": moved}, 2)
        np.testing.assert_allclose(found[:3], centroids(out), atol=0.05)
        assert bool(moved[-1].isnan().all())


def test_the_array_form_gives_lists_for_several_samples() -> None:
    images, points = WithLandmarks(mt.GridSplit((2, 1)), point_space="voxel")(
        item(2)["image"], torch.tensor(CENTRES[2])
    )
    assert len(images) == len(points) == 2
    np.testing.assert_allclose((points[0] - points[1]).numpy(), [[40.0, 0.0]] * 3, atol=1e-3)


def test_a_numpy_image_is_taken() -> None:
    out, moved = WithLandmarks(mt.Flip(1), "voxel")(item(2)["image"].numpy(), torch.tensor(CENTRES[2]))
    np.testing.assert_allclose(moved.numpy(), centroids(out), atol=0.01)


@pytest.mark.parametrize(
    "make", [elastic, lambda: mt.RandZoomd(I, prob=1.0, min_zoom=2.0, max_zoom=2.0, mode="bilinear")]
)
def test_points_outside_keep_a_real_place_and_missing_ones_stay_missing(make: Any) -> None:
    far = AFFINES[2][:2, :2] @ np.array([-7.0, 40.0]) + AFFINES[2][:2, 2]
    data = {**item(2), "points": torch.tensor(np.vstack([far, np.full((1, 2), np.nan)]))}
    sample = wrapped(make(), 1)(data)
    assert torch.isfinite(sample["points"][0]).all()
    assert sample["points"][1].isnan().all()
    assert voxels(sample, 2)[0, 0] < 0


@pytest.mark.parametrize("make", [elastic, lambda: mt.Transposed(I, (0, 2, 1))])
def test_all_missing_stays_all_missing(make: Any) -> None:
    sample = wrapped(make(), 0)({**item(2), "points": torch.full((3, 2), float("nan"))})
    assert sample["points"].isnan().all()


def test_an_lps_image_keeps_its_space() -> None:
    data = item(3)
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    data["image"] = MetaTensor(data["image"].as_tensor(), affine=torch.tensor(flip @ AFFINES[3]), meta={"space": "LPS"})
    world = data["points"].clone()
    sample = wrapped(mt.RandGridDistortiond(I, prob=1.0, distort_limit=0.1), 0)(data)
    assert sample["image"].meta["space"] == "LPS"
    lps = sample["image"].affine.numpy()
    in_lps = sample["points"].numpy()[:-1] * [-1, -1, 1]
    found = (in_lps - lps[:3, 3]) @ np.linalg.inv(lps[:3, :3]).T
    assert np.abs(found - CENTRES[3]).max() < 6
    assert not torch.equal(world[:-1], sample["points"][:-1])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float64, torch.float16])
def test_images_of_any_type(dtype: torch.dtype) -> None:
    data = item(2)
    data["image"] = MetaTensor(data["image"].as_tensor().to(dtype), affine=data["image"].affine)
    sample = wrapped(mt.RandGridDistortiond(I, prob=1.0, distort_limit=0.1), 0)(data)
    assert deformed_with(sample["image"]) == ("points",)
    reference = wrapped(mt.RandGridDistortiond(I, prob=1.0, distort_limit=0.1), 0)(item(2))
    torch.testing.assert_close(sample["points"], reference["points"], equal_nan=True)


def test_a_thin_volume_of_few_slices() -> None:
    shape = (40, 36, 3)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    centre = np.array([19.3, 17.6, 1.0])
    blob = np.exp(-((index - centre)[..., :2] ** 2).sum(-1) / 8)[None]
    data = {"image": MetaTensor(torch.tensor(blob), affine=torch.eye(4)), "points": torch.tensor(centre)[None]}
    sample = WithLandmarksd(mt.Transposed(I, (0, 2, 1, 3)), I, "points", point_space="voxel")(data)
    np.testing.assert_allclose(sample["points"].numpy()[0], centre[[1, 0, 2]], atol=0.01)
    zoomed = WithLandmarksd(mt.Resized(I, (50, 50, 3), mode="trilinear", align_corners=True), I, "points", "voxel")(
        data
    )
    np.testing.assert_allclose(zoomed["points"].numpy()[0, :2], centroids(zoomed["image"])[0, :2], atol=0.05)


def test_large_films_stay_exact_in_float32() -> None:
    image = MetaTensor(torch.rand(1, 2400, 1935), affine=torch.diag(torch.tensor([0.1, 0.1, 1.0])))
    world = torch.tensor([[230.0, 190.0], [0.3, 0.2]], dtype=torch.float64)
    sample = WithLandmarksd(mt.Transposed(I, (0, 2, 1)), I, "points")({"image": image, "points": world})
    affine = sample["image"].affine.double()
    keep = [0, 1, -1]
    found = torch.linalg.solve(affine[keep][:, keep], torch.cat([world.T, torch.ones(1, 2)])).T[:, :2]
    torch.testing.assert_close(found, 10 * world.flip(1), atol=1e-3, rtol=0)
