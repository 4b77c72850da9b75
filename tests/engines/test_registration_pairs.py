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
"""Pairs to register: the known field is true, nobody meets itself, and only the image is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import map_coordinates

from monai_landmarks.engines.registration_pairs import PrepareRegistrationBatch, RegistrationPairs, pair_up
from monai_landmarks.geometry import LandmarkError

SHAPES = [(45, 34), (20, 17, 23)]
NAN = float("nan")


def smooth_images(count: int, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Sums of slow waves, which linear interpolation shows within a few thousandths."""
    generator = torch.Generator().manual_seed(seed)
    voxels = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij"))
    slopes = 0.12 * torch.randn(count, 3, len(shape), generator=generator)
    phases = 6 * torch.rand(count, 3, generator=generator)
    waves = torch.sin(torch.einsum("bkd,d...->bk...", slopes, voxels) + phases.reshape(count, 3, *(1,) * len(shape)))
    return 0.5 + waves.mean(dim=1, keepdim=True) / 2


def prepared(images: torch.Tensor, seed: int = 0, **options: Any) -> RegistrationPairs:
    prepare = PrepareRegistrationBatch(**options).set_random_state(seed)
    source, pairs, (target,), _ = prepare({"image": images, "case": [str(i) for i in range(len(images))]})
    assert source is pairs.source
    assert target is pairs.target
    return pairs


@pytest.mark.parametrize("shape", SHAPES)
def test_the_known_field_leads_to_the_source_of_each_warp(shape: tuple[int, ...]) -> None:
    """Read independently with SciPy: target(x) = source(x + field(x)) where both show the image."""
    pairs = prepared(smooth_images(3, shape), rotate_prob=1.0)
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    for number in range(3):
        at = voxels + pairs.true_field[number].numpy()
        read = map_coordinates(pairs.source[number, 0].numpy(), at, order=1, cval=np.nan)
        whole = map_coordinates(pairs.source_mask[number, 0].numpy(), at, order=1, cval=0.0) > 0.999
        both = whole & (pairs.target_mask[number, 0].numpy() > 0)
        assert both.mean() > 0.3
        # Two interpolations on one side, one on the other.
        assert np.abs(read - pairs.target[number, 0].numpy())[both].max() < 0.02


@pytest.mark.parametrize("shape", SHAPES)
def test_the_known_field_is_a_homography_that_moves_straight_lines_to_straight_lines(shape: tuple[int, ...]) -> None:
    pairs = prepared(torch.rand(2, 1, *shape), warp_perspective_range=0.3)
    dims = len(shape)
    voxels = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij"))
    first = (slice(None), slice(None), *(0,) * (dims - 1))
    lines = (voxels + pairs.true_field).movedim(1, -1)[first].double()
    along = lines - lines[:, :1]
    direction = along[:, -1:] / along[:, -1:].norm(dim=-1, keepdim=True)
    aside = along - (along * direction).sum(-1, keepdim=True) * direction
    assert aside.abs().max() < 1e-4
    steps = along.diff(dim=1).norm(dim=-1)
    assert (steps.amax(1) / steps.amin(1)).max() > 1.05, "not affine: far voxels are nearer to each other"


@pytest.mark.parametrize("shape", SHAPES)
def test_drawn_maps_carry_points_of_the_images_into_the_sources(shape: tuple[int, ...]) -> None:
    image = torch.zeros(3, 1, *shape)
    middle = [n // 2 - 2 for n in shape]
    image[(slice(None), 0, *middle)] = 1
    pairs = prepared(image, rotate_prob=1.0)
    found = pairs.drawn.to_output(torch.tensor(middle, dtype=torch.float64).expand(3, 1, -1))[:, 0]
    mass = pairs.source[:3, 0].double()
    voxels = torch.stack(torch.meshgrid(*(torch.arange(n).double() for n in shape), indexing="ij"))
    centre = (mass[:, None] * voxels).flatten(2).sum(-1) / mass.flatten(1).sum(-1)[:, None]
    assert (centre - found).abs().max() < 0.5
    assert (found - torch.tensor(middle)).abs().max() > 0.1


@pytest.mark.parametrize("count", [2, 3, 4, 7, 10])
def test_nobody_is_registered_on_itself_and_the_way_back_is_named(count: int) -> None:
    images = torch.rand(count, 1, 8, 9)
    seen = set()
    for seed in range(20):
        pairs = prepared(images, seed, rotate_prob=0.0, scale_range=0.0)
        torch.testing.assert_close(pairs.source, images.repeat(2, 1, 1, 1))
        other = [int((images - one).abs().flatten(1).amax(1).argmin()) for one in pairs.target[count:]]
        assert sorted(other) == list(range(count))
        assert all(a != b for a, b in enumerate(other))
        assert pairs.backward[:count].tolist() == [-1] * count
        for number, back in enumerate(pairs.backward[count:].tolist()):
            assert (back >= 0) == (other[other[number]] == number)
            assert back in (-1, count + other[number])
        assert (pairs.backward < 0).sum() == count + (3 if count % 2 else 0)
        seen.add(tuple(other))
    assert len(seen) == {2: 1, 3: 2, 4: 3}.get(count, len(seen))
    assert count < 7 or len(seen) > 15
    assert sorted(pair_up(torch.arange(count)).tolist()) == list(range(count))


def test_masks_are_one_where_the_image_is_shown() -> None:
    """A white image shows itself: what is black, and what is grey at the rim, is beyond it."""
    pairs = prepared(torch.ones(6, 1, 31, 26), rotate_prob=1.0)
    for picture, mask in ((pairs.source, pairs.source_mask), (pairs.target, pairs.target_mask)):
        assert 0.2 < mask.mean() < 0.999
        assert (picture[mask > 0] > 0.999).all()
        assert (picture[mask == 0] < 0.9999).all()
    filled = prepared(torch.ones(6, 1, 31, 26), rotate_prob=1.0, fill=1.0)
    assert torch.allclose(filled.target, torch.ones(()))


def test_turns_are_turns_in_millimetres() -> None:
    """Voxels of 1 x 3 mm: distances between drawn voxels are those of the image, in mm."""
    images = MetaTensor(torch.rand(4, 1, 30, 12), affine=torch.diag(torch.tensor([1.0, 3.0, 1.0])))
    prepare = PrepareRegistrationBatch(rotate_prob=1.0, scale_range=0.0).set_random_state(0)
    drawn = prepare({"image": images})[1].drawn
    points = torch.tensor([[10.0, 3.0], [20.0, 3.0], [10.0, 8.0]], dtype=torch.float64).expand(4, -1, -1)
    size = torch.tensor([1.0, 3.0])
    before, after = (torch.cdist(p * size, p * size) for p in (points, drawn.to_output(points)))
    torch.testing.assert_close(before, after)


def test_ranges_are_kept() -> None:
    pairs = prepared(torch.rand(40, 1, 16, 16), rotate_prob=0.6)
    linear = pairs.drawn.matrix[:, :2, :2]
    angle = torch.atan2(linear[:, 1, 0], linear[:, 0, 0]).abs()
    scale = 1 / linear.det().abs().sqrt()
    assert angle.max() < torch.pi / 6 + 1e-9
    assert 4 < (angle < 1e-9).sum() < 30
    assert 0.75 - 1e-9 < scale.min() < 0.9
    assert 1.1 < scale.max() < 1.25 + 1e-9
    assert pairs.true_field.abs().max() > 1


def test_same_random_state_same_pairs_and_another_another() -> None:
    images = torch.rand(4, 1, 16, 12)
    one, same, other = prepared(images, 5), prepared(images, 5), prepared(images, 6)
    assert torch.equal(one.target, same.target)
    assert not torch.equal(one.target, other.target)


def test_only_image_and_case_are_read() -> None:
    class Untouchable:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"a label was read: {name}")

    images = torch.rand(2, 1, 16, 12)
    prepare = PrepareRegistrationBatch().set_random_state(0)
    with_label = prepare({"image": images, "case": ["a", "b"], "points": Untouchable()})[1]
    bare = prepare.set_random_state(0)({"image": images})[1]
    assert torch.equal(with_label.target, bare.target)
    assert with_label.cases == ("a", "b", "a", "b")
    assert bare.cases is None


def test_what_cannot_be_paired_is_refused() -> None:
    prepare = PrepareRegistrationBatch()
    with pytest.raises(LandmarkError, match=r"single image.*drop_last=True"):
        prepare({"image": torch.rand(1, 1, 8, 8)})
    with pytest.raises(LandmarkError, match=r"no image under 'image'.*'film'"):
        prepare({"film": torch.rand(2, 1, 8, 8)})
    with pytest.raises(LandmarkError, match=r"batch \(B, C, \*S\)"):
        prepare({"image": torch.rand(2, 8, 8)})
    for option, value in {"scale_range": 1.0, "warp_perspective_range": 0.4, "rotate_range": -0.1}.items():
        with pytest.raises(LandmarkError, match=option):
            PrepareRegistrationBatch(**{option: value})
    with pytest.raises(LandmarkError, match="rotate_prob"):
        PrepareRegistrationBatch(rotate_prob=NAN)
