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
"""The random intensity shift and scale of the SpatialConfiguration-Net, and the examples of docs/preprocessing.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, ScaleIntensity, ShiftIntensity
from scipy import stats

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.transforms.intensity import (
    RandShiftScaleIntensity,
    RandShiftScaleIntensityd,
    draw_shift_scale,
    like_image,
    shift_scale_intensity,
)

SHAPES = [(1, 9, 7), (2, 5, 6, 4)]  # (C, *S), 2D and 3D
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def image(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


# -------------------------------------------------------------------------------------------------------- pure functions


@pytest.mark.parametrize("shape", SHAPES)
def test_shift_comes_first_then_scale_then_clip(shape: tuple[int, ...]) -> None:
    values = image(*shape)
    expected = np.clip((values.numpy().astype(np.float64) + 0.2) * 1.3, -1, 1)
    result = shift_scale_intensity(values, 0.2, 1.3, clip=(-1, 1))
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)
    assert result.min() >= -1
    assert result.max() == 1
    other_order = values * 1.3 + 0.2
    assert not torch.allclose(result, other_order.clamp(-1, 1), atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_what_monai_does_in_three_transforms(shape: tuple[int, ...]) -> None:
    values = image(*shape)
    monai = ScaleIntensity(minv=None, maxv=None, factor=-0.15)(ShiftIntensity(-0.1)(values)).clamp(-1, 1)
    torch.testing.assert_close(shift_scale_intensity(values, -0.1, 0.85, (-1, 1)), torch.as_tensor(monai).as_tensor())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_batch_is_its_images_one_by_one(shape: tuple[int, ...], device: str) -> None:
    batch = image(3, *shape).to(device)
    shift, scale = torch.tensor([0.2, -0.1, 0.0]), torch.tensor([1.1, 0.8, 1.0])
    result = shift_scale_intensity(batch, shift, scale, clip=(None, 0.9))
    for one, s, f, got in zip(batch, shift, scale, result, strict=True):
        assert torch.equal(got, shift_scale_intensity(one, float(s), float(f), clip=(None, 0.9)))
    assert result.device == batch.device


def test_no_clip_and_integers() -> None:
    values = torch.tensor([[0, 100, 255]], dtype=torch.uint8)
    result = shift_scale_intensity(values, 50, 2.0)
    assert result.dtype == torch.float32
    assert result.tolist() == [[100.0, 300.0, 610.0]]
    assert type(shift_scale_intensity(MetaTensor(image(1, 4, 4)), 0.1, 1.0)) is torch.Tensor


@pytest.mark.parametrize("wrong", [torch.zeros(2), torch.zeros(3, 1)])
def test_a_shift_for_another_number_of_images_is_refused(wrong: torch.Tensor) -> None:
    with pytest.raises(LandmarkError, match="one for each of the 3 entries"):
        shift_scale_intensity(image(3, 1, 4, 4), wrong, 1.0)


def test_a_batch_draws_what_single_images_would_draw() -> None:
    shift, scale = draw_shift_scale(np.random.RandomState(3), 0.25, (-0.1, 0.3), batch=5)
    source = np.random.RandomState(3)
    singles = [draw_shift_scale(source, 0.25, (-0.1, 0.3)) for _ in range(5)]
    assert torch.equal(shift, torch.stack([s for s, _ in singles]))
    assert torch.equal(scale, torch.stack([f for _, f in singles]))


def test_draws_are_uniform_and_independent() -> None:
    shift, scale = draw_shift_scale(np.random.RandomState(0), 0.25, (-0.1, 0.3), batch=20_000)
    assert stats.kstest(shift.numpy(), stats.uniform(-0.25, 0.5).cdf).pvalue > 0.01
    assert stats.kstest(scale.numpy(), stats.uniform(0.9, 0.4).cdf).pvalue > 0.01
    assert abs(np.corrcoef(shift.numpy(), scale.numpy())[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("shift_range", "scale_range", "match"),
    [
        (-0.1, 0.1, "shift_range"),
        ((0.2, 0.1), 0.1, "shift_range"),
        (0.1, float("nan"), "scale_range"),
        (0.1, 1.0, "added to 1"),
        (0.1, (-1.2, 0.0), "added to 1"),
    ],
)
def test_ranges_that_are_none_are_refused_in_the_constructor(shift_range: Any, scale_range: Any, match: str) -> None:
    with pytest.raises(LandmarkError, match=match):
        RandShiftScaleIntensity(shift_range, scale_range)
    with pytest.raises(LandmarkError, match="clip"):
        RandShiftScaleIntensityd("image", clip=(1.0, -1.0))


# ------------------------------------------------------------------------------------------------------------ transforms


@pytest.mark.parametrize("shape", SHAPES)
def test_the_transform_applies_what_it_drew_and_keeps_the_meta_data(shape: tuple[int, ...]) -> None:
    affine = torch.diag(torch.tensor([0.4] * (len(shape) - 1) + [1.0], dtype=torch.float64))
    values = MetaTensor(image(*shape), affine=affine, meta={"filename_or_obj": "a.png"})
    augment = RandShiftScaleIntensity(0.25, 0.25).set_random_state(4)
    for _ in range(3):
        result = augment(values)
        assert abs(augment.shift) <= 0.25
        assert abs(augment.scale - 1) <= 0.25
        expected = ((values.as_tensor() + augment.shift) * augment.scale).clamp(-1, 1)
        torch.testing.assert_close(result.as_tensor(), expected)
        assert torch.equal(result.affine, affine)
        assert result.meta["filename_or_obj"] == "a.png"
        assert result.meta is not values.meta
    assert torch.equal(augment(values, randomize=False), result)


def test_the_same_seed_gives_the_same_picture_and_every_call_another() -> None:
    first, second = (RandShiftScaleIntensityd("image").set_random_state(7) for _ in range(2))
    item = {"image": image(1, 8, 8)}
    ours, theirs = [[t(item)["image"] for _ in range(3)] for t in (first, second)]
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not torch.equal(ours[0], ours[1])
    composed = [Compose([RandShiftScaleIntensityd("image")]).set_random_state(5)(item)["image"] for _ in range(2)]
    assert torch.equal(*composed)


def test_all_keys_get_one_draw() -> None:
    item = {"a": image(1, 8, 8), "b": image(1, 8, 8), "other": 1}
    result = RandShiftScaleIntensityd(["a", "b", "c"], allow_missing_keys=True).set_random_state(2)(item)
    assert torch.equal(result["a"], result["b"])
    assert result["other"] == 1
    assert not torch.equal(result["a"], item["a"])


def test_probability() -> None:
    values = image(1, 8, 8) * 3
    never = RandShiftScaleIntensityd("image", prob=0.0).set_random_state(0)
    assert torch.equal(never({"image": values})["image"], values)
    half = RandShiftScaleIntensityd("image", prob=0.5).set_random_state(0)
    changed = sum(not torch.equal(half({"image": values})["image"], values) for _ in range(200))
    assert 70 < changed < 130


def test_integers_become_float() -> None:
    result = RandShiftScaleIntensity(0.25, 0.25).set_random_state(0)(torch.ones(1, 4, 4, dtype=torch.uint8))
    assert result.dtype == torch.float32


def test_like_image_rounds_and_keeps_within_the_type() -> None:
    img = MetaTensor(torch.zeros(1, 3, dtype=torch.int16), meta={"x": 1})
    result = like_image(torch.tensor([[-1e6, 2.5, 3.5]]), img)
    assert result.dtype == torch.int16
    assert result.tolist() == [[-32768, 2, 4]]
    assert result.meta["x"] == 1


# ------------------------------------------------------------------------------------------------------------------ docs


def test_the_examples_in_the_documentation_run() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "preprocessing.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 4
    names: dict[str, Any] = {}
    for block in blocks:
        if "CLAHEd(" in block:
            pytest.importorskip("skimage")
        exec(compile(block, str(page), "exec"), names)
