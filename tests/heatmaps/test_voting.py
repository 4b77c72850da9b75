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
from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from monai.bundle import ConfigParser

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.heatmaps import decode_heatmaps
from monai_landmarks.heatmaps.voting import ball_volume, decode_offset_votes, split_voting_maps, vote_heatmaps

NAN = float("nan")
GRIDS = [(2, (20, 23)), (3, (13, 11, 12))]  # dims, shape


def perfect_maps(points: torch.Tensor, shape: tuple[int, ...], radius: float) -> torch.Tensor:
    """What a network that is always right puts out for points (N, D): logits, offsets of axis 0, of axis 1, ..."""
    grid = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij"))
    way = (points.reshape(*points.shape, *[1] * len(shape)) - grid) / radius
    disc = way.square().sum(dim=1) < 1
    offsets = torch.where(disc.unsqueeze(1), way, 0).transpose(0, 1)
    return torch.cat([torch.where(disc, 9.0, -9.0), offsets.flatten(0, 1)])[None]


def counted(maps: torch.Tensor, radius: float, votes: int, weigh: bool, sigma: float) -> torch.Tensor:
    """Vote by vote and voxel by voxel, in double precision."""
    dims, shape = maps.ndim - 2, maps.shape[2:]
    landmarks = maps.shape[1] // (1 + dims)
    result = torch.zeros(maps.shape[0], landmarks, *shape, dtype=torch.float64)
    reach = max(1, math.ceil(3 * sigma)) if sigma else 0
    for batch, landmark in itertools.product(range(maps.shape[0]), range(landmarks)):
        logits = maps[batch, landmark]
        voxels = sorted(itertools.product(*map(range, shape)), key=lambda voxel: -logits[voxel].item())
        for voxel in voxels[:votes]:
            place = [
                voxel[d] + radius * maps[batch, landmarks + d * landmarks + landmark][voxel].item() for d in range(dims)
            ]
            weight = 1 / (1 + math.exp(-logits[voxel].item())) if weigh else 1.0
            for corner in itertools.product((0, 1), repeat=dims):
                at = [math.floor(x) + c for x, c in zip(place, corner, strict=True)]
                part = math.prod(1 - abs(x - a) for x, a in zip(place, at, strict=True))
                for near in itertools.product(range(-reach, reach + 1), repeat=dims):
                    to = tuple(a + n for a, n in zip(at, near, strict=True))
                    if all(0 <= t < size for t, size in zip(to, shape, strict=True)):
                        bump = math.exp(-sum(n * n for n in near) / (2 * sigma**2)) if sigma else 1.0
                        result[(batch, landmark, *to)] += weight * part * bump / votes
    return result


@pytest.mark.parametrize(("shape", "votes"), [((6, 7), 9), ((4, 3, 5), 6)])
@pytest.mark.parametrize("weighting", ["uniform", "probability"])
@pytest.mark.parametrize("sigma", [0.0, 0.9])
def test_votes_are_counted_as_by_a_slow_loop(shape, votes, weighting, sigma) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 2 * (1 + len(shape)), *shape, generator=generator)  # offsets lead outside, too
    expected = counted(maps, 1.7, votes, weighting == "probability", sigma)
    found = vote_heatmaps(maps, 1.7, votes, weighting, sigma)
    torch.testing.assert_close(found, expected.float(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("dims", "shape"), GRIDS)
def test_perfect_maps_give_the_point_back_in_the_middle_at_borders_and_in_corners(dims, shape) -> None:
    generator = torch.Generator().manual_seed(dims)
    last = torch.tensor(shape) - 1.0
    middle = torch.rand(30, dims, generator=generator) * last
    edge = torch.rand(30, dims, generator=generator) * last
    edge[:, 0] = torch.rand(30, generator=generator) - 0.49
    corners = torch.tensor(list(itertools.product((-0.4, 0.3), repeat=dims)))
    points = torch.cat([middle, edge, corners, last - corners])
    decoded = decode_offset_votes(perfect_maps(points, shape, 4.3), 4.3)
    assert (decoded.points[0] - points).norm(dim=-1).max() < 0.03
    middle_share, corner_share = decoded.confidence[0, :30].max(), decoded.confidence[0, -len(corners) :].min()
    assert middle_share > 0.85
    assert 0.8 / 2**dims < corner_share < 0.5  # the rest of the disc is not in the image


def test_uniform_votes_give_the_point_back_where_the_disc_is_whole() -> None:
    points = 10 + torch.rand(30, 2, generator=torch.Generator().manual_seed(0))
    decoded = decode_offset_votes(perfect_maps(points, (21, 22), 8.3), 8.3, weighting="uniform")
    assert (decoded.points[0] - points).norm(dim=-1).max() < 0.03


def test_landmark_that_no_heatmap_shows_has_no_confidence() -> None:
    maps = perfect_maps(torch.tensor([[10.2, 9.7]]), (20, 23), 4.3)
    maps[:, 0] = -9.0  # the offsets still agree
    assert decode_offset_votes(maps, 4.3).confidence < 0.001
    assert decode_offset_votes(maps, 4.3, weighting="uniform").confidence > 0.01


def test_vote_map_is_what_every_heatmap_decoder_reads() -> None:
    points = torch.tensor([[7.3, 4.2], [12.0, 17.6]])
    votes = vote_heatmaps(perfect_maps(points, (20, 23), 4.3), 4.3)
    for method in ("dark", "quadratic", "local_soft_argmax", "center_of_mass", "gaussian_fit"):
        torch.testing.assert_close(decode_heatmaps(votes, method).points[0], points, atol=0.05, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
def test_disagreement_lowers_the_confidence_as_stated(dims) -> None:
    """Votes scattered with a width of 1.5 around one place, smoothed by 2: (1 + 1.5^2 / 2^2) ** (-D / 2) remains."""
    shape, radius = (25,) * dims, 6.0
    maps = perfect_maps(torch.full((40, dims), 12.0), shape, radius)
    generator = torch.Generator().manual_seed(0)
    maps[:, 40:] += 1.5 / radius * torch.randn(maps[:, 40:].shape, generator=generator)
    confidence = vote_heatmaps(maps, radius, num_votes=int((maps[0, 0] > 0).sum()))[
        (0, slice(None), *[12] * dims)
    ].mean()
    linear = 1 / 6  # variance that sharing between two voxels adds on average
    assert confidence.item() == pytest.approx((1 + (1.5**2 + linear) / 4) ** (-dims / 2), rel=0.03)


def test_votes_beyond_the_image_are_dropped() -> None:
    maps = torch.zeros(1, 3, 8, 8)
    maps[0, 1] = 50.0  # everything votes far below the image
    assert vote_heatmaps(maps, 2.0).max() == 0
    points, confidence = decode_offset_votes(maps, 2.0)
    assert points.isnan().all()
    assert confidence == 0


@pytest.mark.parametrize("bad", [NAN, float("inf"), -float("inf")])
def test_votes_without_a_place_are_dropped(bad) -> None:
    point = torch.tensor([[10.2, 9.7]])
    maps = perfect_maps(point, (20, 23), 4.3)
    maps[0, 1, 9, 9] = bad
    decoded = decode_offset_votes(maps, 4.3)
    torch.testing.assert_close(decoded.points[0], point, atol=0.03, rtol=0)


def test_small_image_lets_every_voxel_vote() -> None:
    maps = perfect_maps(torch.tensor([[1.0, 2.0]]), (3, 4), 19.2)
    torch.testing.assert_close(decode_offset_votes(maps, 19.2, method="argmax").points, torch.tensor([[[1.0, 2.0]]]))


def test_half_precision_is_counted_in_float32_also_under_autocast() -> None:
    point = torch.tensor([[10.25, 9.5]])
    maps = perfect_maps(point, (20, 23), 4.0).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        votes = vote_heatmaps(maps, 4.0)
    assert votes.dtype == torch.float32
    torch.testing.assert_close(decode_heatmaps(votes).points[0], point, atol=0.05, rtol=0)


def test_gradient_reaches_the_offsets_that_voted() -> None:
    maps = perfect_maps(torch.tensor([[10.2, 9.7]]), (20, 23), 3.0).double()
    offsets = (maps[:, 1:] + 0.01).requires_grad_()
    votes = vote_heatmaps(torch.cat([maps[:, :1], offsets], dim=1), 3.0, num_votes=25)
    (back,) = torch.autograd.grad(votes[0, 0, 11, 10], offsets)
    assert back[0, 0].count_nonzero() == 25


def test_volume_of_a_ball() -> None:
    assert ball_volume(19.0, 2) == pytest.approx(math.pi * 361)
    assert ball_volume(2.0, 3) == pytest.approx(4 / 3 * math.pi * 8)


def test_heatmaps_come_first_then_the_offsets_of_each_axis() -> None:
    maps = torch.arange(8.0).reshape(1, 8, 1, 1, 1).expand(1, 8, 2, 2, 2)
    logits, offsets = split_voting_maps(maps)
    assert logits[0, :, 0, 0, 0].tolist() == [0, 1]
    assert offsets[0, :, :, 0, 0, 0].tolist() == [[2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"radius": 0.05}, LandmarkError, "in voxels"),
        ({"num_votes": 0}, LandmarkError, "at least 1"),
        ({"smoothing": -1.0}, LandmarkError, "sigma in voxels"),
        ({"weighting": "score"}, ValueError, "score"),
    ],
)
def test_options_that_cannot_be(options, error, message) -> None:
    with pytest.raises(error, match=message):
        vote_heatmaps(torch.zeros(1, 3, 8, 8), **options)


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (1, 5, 8, 8, 8), (3, 8, 8)])
def test_finished_vote_maps_and_other_shapes_are_refused(shape) -> None:
    with pytest.raises(LandmarkError, match=r"\(1 \+ D\) \* N"):
        vote_heatmaps(torch.zeros(shape))


def test_as_a_configuration_file_writes_it() -> None:
    text = (
        '{"votes": {"_target_": "monai_landmarks.heatmaps.voting.vote_heatmaps", "_mode_": "callable", "radius": 4.3}}'
    )
    votes = ConfigParser(json.loads(text)).get_parsed_content("votes")
    maps = perfect_maps(torch.tensor([[7.3, 4.2]]), (20, 23), 4.3)
    assert torch.equal(votes(maps), vote_heatmaps(maps, 4.3))
