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
"""Random transforms seeded by the case: alike for a case whatever else is transformed, different between cases."""

from __future__ import annotations

import pytest
import torch
from monai.data import CacheDataset, MetaTensor
from monai.transforms import Compose, RandGaussianNoised, ScaleIntensityd

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.transforms import LandmarksWorldToImaged, RandSpatialLandmarksd, SeededByCased


def item(case: str) -> dict:
    ramp = torch.arange(12.0 * 10 * 8).reshape(1, 12, 10, 8)
    return {
        "case": case,
        "image": MetaTensor(ramp, affine=torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0]))),
        "points": torch.tensor([[9.0, 8.0, 10.0]]),
    }


def posed(seed: int = 0) -> SeededByCased:
    return SeededByCased(
        RandSpatialLandmarksd("image", "points", spatial_size=(10, 10, 8), pixdim=2.0, rotate_range=0.4), seed
    )


def test_pose_belongs_to_the_case_not_to_the_order() -> None:
    one, two = posed(), posed()
    forward = {case: one(item(case))["image"] for case in "abc"}
    backward = {case: two(item(case))["image"] for case in "cba"}
    for case in "abc":
        assert torch.equal(forward[case].affine, backward[case].affine)
        assert torch.equal(forward[case].as_tensor(), backward[case].as_tensor())
    assert not torch.equal(forward["a"].affine, forward["b"].affine)
    assert not torch.equal(forward["a"].affine, posed(seed=1)(item("a"))["image"].affine)


def test_what_it_makes_is_cached_and_world_points_stay() -> None:
    pipeline = Compose([posed(), LandmarksWorldToImaged("points", "image", output_keys="voxels")])
    dataset = CacheDataset([item("a"), item("b")], pipeline, num_workers=1, progress=False)
    first, again = dataset[0], dataset[0]
    assert torch.equal(first["image"].as_tensor(), again["image"].as_tensor())
    world = first["image"].affine[:3, :3].float() @ first["voxels"][0].float() + first["image"].affine[:3, 3].float()
    torch.testing.assert_close(world, torch.tensor([9.0, 8.0, 10.0]))


def test_composed_random_transforms_are_seeded_together() -> None:
    noisy = SeededByCased(Compose([ScaleIntensityd("image"), RandGaussianNoised("image", prob=1.0)]))
    assert torch.equal(noisy(item("a"))["image"].as_tensor(), noisy(item("a"))["image"].as_tensor())


def test_refuses_what_has_nothing_to_seed() -> None:
    with pytest.raises(LandmarkError, match="ScaleIntensityd has no random state"):
        SeededByCased(ScaleIntensityd("image"))
    with pytest.raises(LandmarkError, match="no 'case' to seed by"):
        posed()({"image": item("a")["image"]})
