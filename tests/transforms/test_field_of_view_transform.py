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
"""LandmarkFieldOfViewd: the state follows the image, through transforms, collation and files."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor, list_data_collate
from monai.transforms import CenterSpatialCropd, Compose, Flipd, Rotate90d, SpatialPadd, Zoomd

from monai_landmarks.geometry import LandmarkError, mark_deformed
from monai_landmarks.geometry.field_of_view import FieldOfView
from monai_landmarks.transforms.field_of_view import (
    LandmarkFieldOfView,
    LandmarkFieldOfViewd,
    LandmarkFieldOfViewDict,
    state_in_file,
    status_words,
)

NAN = float("nan")
MISSING, OUTSIDE, INSIDE = FieldOfView


def test_world_points_against_simpleitk(volume) -> None:
    """SimpleITK says where a physical point is in an oblique, anisotropic volume; random points around it."""
    grid, _ = volume
    generator = np.random.default_rng(0)
    index = generator.uniform(-8, np.array(grid.GetSize()) + 8, (200, 3))
    lps = np.array([grid.TransformContinuousIndexToPhysicalPoint(each.tolist()) for each in index])
    found = [grid.TransformPhysicalPointToContinuousIndex(each.tolist()) for each in lps]
    expected = [
        2 if all(-0.5 <= v <= size - 0.5 for v, size in zip(each, grid.GetSize(), strict=True)) else 1 for each in found
    ]
    assert {1, 2} == set(expected)
    affine = np.eye(4)
    affine[:3, :3] = np.array(grid.GetDirection()).reshape(3, 3) @ np.diag(grid.GetSpacing())
    affine[:3, 3] = grid.GetOrigin()
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    image = MetaTensor(
        torch.from_numpy(sitk.GetArrayFromImage(grid).T.copy())[None], affine=torch.from_numpy(to_ras @ affine)
    )
    state = LandmarkFieldOfView()(lps * [-1, -1, 1], image)
    assert state.dtype == torch.uint8
    assert state.tolist() == expected


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (CenterSpatialCropd("image", (4, 6)), [OUTSIDE, INSIDE, OUTSIDE, MISSING]),  # keeps x 2..5, y 2..7
        (SpatialPadd("image", (14, 16)), [INSIDE, INSIDE, INSIDE, MISSING]),
        (Compose([Flipd("image", 0), CenterSpatialCropd("image", (8, 6))]), [INSIDE, INSIDE, OUTSIDE, MISSING]),
        (Compose([Rotate90d("image"), CenterSpatialCropd("image", (6, 4))]), [OUTSIDE, INSIDE, OUTSIDE, MISSING]),
        (Zoomd("image", 2.0, keep_size=True), [OUTSIDE, INSIDE, OUTSIDE, MISSING]),
    ],
)
def test_the_state_follows_the_image(transform, expected) -> None:
    """An image of 8 x 10 and the points (1, 4), (4, 5), (4, 11) and a missing one."""
    item = {
        "image": MetaTensor(torch.zeros(1, 8, 10), affine=torch.eye(3)),
        "landmarks": torch.tensor([[1.0, 4.0], [4.0, 5.0], [4.0, 11.0], [NAN, NAN]]),
    }
    assert LandmarkFieldOfViewd("landmarks", "image")(item)["landmarks_state"].tolist() == [2, 2, 1, 0]
    result = Compose([transform, LandmarkFieldOfViewd("landmarks", "image")])(item)
    assert result["landmarks_state"].tolist() == expected
    torch.testing.assert_close(result["landmarks"], item["landmarks"], equal_nan=True)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6)], ids=["2d", "3d"])
def test_voxel_points_need_no_affine(shape) -> None:
    points = torch.zeros(3, len(shape))
    points[1, -1], points[2] = shape[-1], NAN
    finder = LandmarkFieldOfView("voxel")
    assert finder(points, torch.zeros(2, *shape)).tolist() == [INSIDE, OUTSIDE, MISSING]
    assert finder(points.bfloat16(), torch.zeros(1, *shape)).tolist() == [INSIDE, OUTSIDE, MISSING]
    assert finder(torch.stack([points, points]), torch.zeros(2, 1, *shape)).tolist() == [[2, 1, 0]] * 2
    assert type(finder(MetaTensor(points), MetaTensor(torch.zeros(1, *shape)))) is torch.Tensor


def test_states_collate_and_can_be_told_for_the_whole_batch() -> None:
    items = [
        {"image": MetaTensor(torch.zeros(1, 4, 4), affine=torch.diag(torch.tensor([s, s, 1.0]))), "landmarks": points}
        for s, points in ((1.0, torch.tensor([[3.0, 3.0], [9.0, 0.0]])), (4.0, torch.tensor([[NAN, NAN], [9.0, 0.0]])))
    ]
    tell = LandmarkFieldOfViewd("landmarks", "image")
    (batch,) = DataLoader(Dataset(items, tell), batch_size=2)
    assert batch["landmarks_state"].dtype == torch.uint8
    assert batch["landmarks_state"].tolist() == [[INSIDE, OUTSIDE], [MISSING, INSIDE]]
    assert torch.equal(tell(list_data_collate(items))["landmarks_state"], batch["landmarks_state"])


def test_keys() -> None:
    image = MetaTensor(torch.zeros(1, 4, 4), affine=torch.eye(3))
    item = {"image": image, "a": [[1.0, 1.0]], "b": [[5.0, 1.0]]}
    both = LandmarkFieldOfViewDict(["a", "b", "c"], "image", allow_missing_keys=True)(item)
    assert [both[key].tolist() for key in ("a_state", "b_state")] == [[2], [1]]
    assert "c_state" not in both
    named = LandmarkFieldOfViewd(["a", "b"], "image", output_keys=["x", "y"], point_space="voxel")(item)
    assert [named[key].tolist() for key in ("x", "y")] == [[2], [1]]
    with pytest.raises(ValueError, match="a key of its own"):
        LandmarkFieldOfViewd(["a", "b"], "image", output_keys=["x", "x"])
    with pytest.raises(ValueError, match="world"):
        LandmarkFieldOfViewd("a", "image", point_space="wrld")
    with pytest.raises(LandmarkError, match="refer_keys names 'scan'"):
        LandmarkFieldOfViewd("a", "scan")(item)


def test_points_and_image_that_do_not_fit() -> None:
    volume = MetaTensor(torch.zeros(1, 4, 4, 4), affine=torch.eye(4))
    for space in ("world", "voxel"):
        with pytest.raises(LandmarkError, match="2D points have an image with 2 spatial axes"):
            LandmarkFieldOfView(space)(torch.zeros(3, 2), volume)
        with pytest.raises(LandmarkError, match="or a batch of both"):
            LandmarkFieldOfView(space)(torch.zeros(2, 3, 3), volume)
    with pytest.raises(LandmarkError, match="put LoadLandmarksd before"):
        LandmarkFieldOfView()("points.csv", volume)
    with pytest.raises(LandmarkError, match="affine"):
        LandmarkFieldOfView()(torch.zeros(3, 3), torch.zeros(1, 4, 4, 4))


def test_points_that_did_not_go_through_a_deformation_are_refused() -> None:
    image = MetaTensor(torch.zeros(1, 4, 4), affine=torch.eye(3))
    mark_deformed(image, ["moved"])
    item = {"image": image, "moved": [[1.0, 1.0]], "left": [[1.0, 1.0]]}
    assert LandmarkFieldOfViewd("moved", "image")(item)["moved_state"].tolist() == [INSIDE]
    assert LandmarkFieldOfViewd("left", "image", point_space="voxel")(item)["left_state"].tolist() == [INSIDE]
    with pytest.raises(LandmarkError, match="did not go along"):
        LandmarkFieldOfViewd("left", "image")(item)


def test_in_a_bundle_config() -> None:
    parser = ConfigParser(
        {
            "tell": {
                "_target_": "monai_landmarks.transforms.field_of_view.LandmarkFieldOfViewd",
                "keys": "landmarks",
                "refer_keys": "image",
            }
        }
    )
    assert isinstance(parser.get_parsed_content("tell"), LandmarkFieldOfViewd)


# --- what a file says -----------------------------------------------------------------------------------------------


def loaded(crop: int) -> MetaTensor:
    """A film of 10 x 10 pixels of 2 mm, as a loader gives it, cropped to the middle."""
    affine = torch.diag(torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64))
    meta = {"spatial_shape": np.array([10, 10]), "original_affine": affine.numpy(), "original_channel_dim": 0}
    image = MetaTensor(torch.zeros(1, 10, 10), affine=affine, meta=meta)
    resize = SpatialPadd if crop > 10 else CenterSpatialCropd
    return resize("image", (crop, crop))({"image": image})["image"]


@pytest.mark.parametrize("crop", [4, 10, 16])
def test_what_counts_for_a_file_is_the_file(crop: int) -> None:
    """Neither the network's crop nor its padding changes what is in the film: 19 mm is its edge."""
    points = torch.tensor([[18.9, 3.0], [19.1, 3.0], [NAN, NAN], [-1.0, 0.0]])
    state = state_in_file(points, loaded(crop))
    assert state is not None
    assert state.tolist() == [INSIDE, OUTSIDE, MISSING, INSIDE]


def test_an_image_that_does_not_know_its_file_is_taken_as_it_is_and_others_cannot_tell() -> None:
    points = torch.tensor([[3.0, 3.0], [5.0, 3.0]])
    state = state_in_file(points, MetaTensor(torch.zeros(1, 4, 4), affine=torch.eye(3)))
    assert state is not None
    assert state.tolist() == [INSIDE, OUTSIDE]
    assert state_in_file(points, torch.zeros(1, 4, 4)) is None
    assert state_in_file(points, None) is None
    assert state_in_file(points, MetaTensor(torch.zeros(1, 4, 4, 4))) is None


def test_words_of_a_file() -> None:
    points = torch.tensor([[3.0, 3.0], [5.0, 3.0], [NAN, NAN]])
    assert status_words(points, [2, 1, 0]) == ("defined", "outside", "missing")
    assert status_words(points, torch.tensor([2, 1, 0]), "preview") == ("preview", "outside", "missing")
    assert status_words(points, None, "preview") == ("preview", "preview", "missing")
    with pytest.raises(LandmarkError, match="disagree"):
        status_words(points, [0, 1, 2])
