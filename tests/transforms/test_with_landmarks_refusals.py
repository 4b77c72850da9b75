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
"""What `WithLandmarksd` refuses, and that it says why."""

from __future__ import annotations

from typing import Any

import monai.transforms as mt
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, set_track_meta
from where_shown import item, wrapped

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.transforms.with_landmarks import WithLandmarks, WithLandmarksd

I = "image"  # noqa: E741


class PrivateDraw(mt.MapTransform):
    """Draws from a generator nobody else knows."""

    generator = np.random.default_rng(0)

    def __deepcopy__(self, memo: Any) -> PrivateDraw:
        return self

    def __call__(self, data: Any) -> Any:
        angle = float(self.generator.uniform(0.1, 0.5))
        return mt.Rotated(self.keys, angle=angle, padding_mode="zeros")(data)


class Noise(mt.MapTransform):
    def __call__(self, data: Any) -> Any:
        return {**data, **{k: mt.Zoom(0.8, mode="bilinear")(data[k]) * 1.1 for k in self.keys}}


CONSTRUCTOR = [
    (lambda: WithLandmarksd(mt.ScaleIntensityd(I), I, "points"), "ScaleIntensityd changes intensities"),
    (
        lambda: WithLandmarksd(mt.Compose([mt.Flipd(I), mt.GaussianSmoothd(I, sigma=1.0)]), I, "points"),
        "wrap only the spatial",
    ),
    (lambda: WithLandmarksd(mt.Compose([mt.Flipd(I), mt.Flip()]), I, "points"), "mixes array and dictionary"),
    (lambda: WithLandmarksd(lambda x: x, I, "points"), "no MONAI transform"),
    (lambda: WithLandmarksd(mt.Flipd([I, "mask"]), I, "points"), "also changes \\['mask'\\]"),
    (lambda: WithLandmarksd(mt.Flipd([I, "points"]), I, "points"), "which are landmarks"),
    (lambda: WithLandmarksd(mt.Flipd(I), I, I), "in common"),
    (lambda: WithLandmarksd(WithLandmarksd(mt.Flipd(I), I, "points"), I, "points"), "moves landmarks itself"),
    (lambda: WithLandmarksd(mt.Flipd(I), I, "points", point_space="mm"), "mm"),
    (lambda: WithLandmarksd(mt.Flipd(I), I, "points", tolerance=0), "positive number of voxels"),
    (lambda: WithLandmarks(mt.Flipd(I)), "use WithLandmarksd"),
    (lambda: WithLandmarksd(mt.GridPatchd(I, (8, 8)), I, "points"), "stacks of patches"),
]


@pytest.mark.parametrize(("make", "message"), CONSTRUCTOR)
def test_the_constructor_refuses(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# (transform, changes of the item, error, message)
CALLS: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (mt.Flipd(I), {"image": "scan.nii"}, LandmarkError, "put LoadImaged before"),
    (mt.Flipd(I), {"image": torch.zeros(8, 8)}, LandmarkError, "channel-first"),
    (mt.Flipd(I), {"image": torch.zeros(2, 1, 8, 8, 8)}, LandmarkError, "items, not batches"),
    (mt.Flipd(I), {"points": torch.zeros(2, 3)}, LandmarkError, "points"),
    (mt.Flipd(I), {"points": "points.json"}, LandmarkError, "LoadLandmarksd"),
    (mt.Flipd(I), {"points": None}, KeyError, "point_keys names 'points'"),
    (mt.Flipd(I), {"image": None}, KeyError, "image"),
    (PrivateDraw(I), {}, LandmarkError, "private generator"),
    (Noise(I), {}, LandmarkError, "did not do the same|changes intensities"),
    (
        mt.RandAffined(I, prob=1.0, translate_range=((500, 501),), padding_mode="zeros"),
        {},
        LandmarkError,
        "shows nothing",
    ),
    (mt.ToNumpyd(I), {}, LandmarkError, "no affine to make true"),
    (mt.AsDiscreted(I, argmax=True, dim=0, keepdim=False), {}, LandmarkError, "same dimension"),
    (mt.AsDiscreted(I, argmax=True), {}, LandmarkError, "changes the channels"),
]


@pytest.mark.parametrize(("transform", "changes", "error", "message"), CALLS)
def test_a_call_refuses(transform: Any, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    data = {k: v for k, v in {**item(2), **changes}.items() if v is not None}
    with pytest.raises(error, match=message):
        wrapped(transform, 0)(data)


def test_without_meta_tracking_there_is_no_affine_to_make_true() -> None:
    set_track_meta(False)
    try:
        with pytest.raises(LandmarkError, match="set_track_meta"):
            WithLandmarksd(mt.Flipd(I), I, "points")({**item(2), "image": torch.zeros(1, 8, 8)})
    finally:
        set_track_meta(True)


def test_a_singular_affine_is_refused() -> None:
    data = {**item(2), "image": MetaTensor(torch.zeros(1, 8, 8), affine=torch.diag(torch.tensor([0.0, 1.0, 1.0])))}
    with pytest.raises(LandmarkError, match="determinant"):
        WithLandmarksd(mt.Flipd(I), I, "points")(data)


def test_missing_keys_may_be_allowed() -> None:
    data = {k: v for k, v in item(2).items() if k != "points"}
    sample = WithLandmarksd(mt.Flipd(I), I, "points", allow_missing_keys=True)(data)
    assert "points" not in sample
    with pytest.raises(LandmarkError, match="none of the images"):
        WithLandmarksd(mt.Flipd(I, allow_missing_keys=True), I, "points", allow_missing_keys=True)(
            {"points": torch.zeros(2, 2)}
        )
