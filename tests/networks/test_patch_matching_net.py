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

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.losses.patch_matching import PatchMatchingLoss
from monai_landmarks.networks.blocks.encoders import build_encoder
from monai_landmarks.networks.blocks.similarity import cell_of, cosine_similarity, sample_cells
from monai_landmarks.networks.nets.patch_matching_net import EmbeddingPyramid, PatchMatchingNet, ReceptiveBlock

NAN = float("nan")
SHAPES = [(75, 50), (41, 34, 33)]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(dims: int = 2, encoder: str | nn.Module = "resnet18", **options) -> PatchMatchingNet:
    torch.manual_seed(0)
    return PatchMatchingNet(dims, encoder=encoder, **{"width": 0.0625, "embedding": 8, **options})


@pytest.mark.parametrize("shape", [(5, 4), (3, 4, 5)])
def test_similarity_is_that_of_torch(shape) -> None:
    torch.manual_seed(0)
    features, anchors = torch.randn(2, 6, *shape), torch.randn(2, 3, 6)
    wide = anchors.reshape(2, 3, 6, *(1,) * len(shape))
    expected = F.cosine_similarity(features.unsqueeze(1), wide, dim=2)
    torch.testing.assert_close(cosine_similarity(features, anchors), expected)


def test_missing_anchor_has_a_map_of_zeros_and_finite_gradients() -> None:
    features = torch.randn(1, 6, 4, 4)
    features[..., 0] = 0
    features.requires_grad_()
    anchors = torch.stack([torch.full((6,), NAN), torch.ones(6), torch.zeros(6)])[None].requires_grad_()
    maps = cosine_similarity(features, anchors)
    assert not maps[0, [0, 2]].any()
    assert not maps[..., 0].any()
    maps.sum().backward()
    assert features.grad.isfinite().all()
    assert anchors.grad.isfinite().all()
    assert not anchors.grad[0, 0].any()


def test_similarity_is_exact_under_autocast_and_in_half_precision() -> None:
    torch.manual_seed(0)
    features, anchors = torch.randn(1, 64, 8, 8), torch.randn(1, 3, 64)
    expected = cosine_similarity(features, anchors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cosine_similarity(features, anchors), expected)
    half = cosine_similarity(300 * features.half(), 300 * anchors.half())  # whose squares float16 cannot hold
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, atol=1e-3, rtol=0)


def test_similarity_of_shapes_that_do_not_fit_is_refused() -> None:
    with pytest.raises(LandmarkError, match="batch and channels"):
        cosine_similarity(torch.zeros(1, 6, 4, 4), torch.zeros(1, 6, 3))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stride", [2, 32])
def test_each_voxel_lies_in_the_cell_whose_centre_is_nearest(shape, stride) -> None:
    torch.manual_seed(0)
    points = torch.rand(1, 50, len(shape)) * torch.tensor(shape) - 0.5
    sizes = [-(-n // stride) for n in shape]
    cells, there = cell_of(points, stride, sizes)
    for axis, size in enumerate(sizes):
        centres = (torch.arange(size) + 0.5) * stride - 0.5
        assert torch.equal(cells[..., axis], (points[..., axis, None] - centres).abs().argmin(-1))
    assert there.all()


def test_sampled_cells_are_those_of_plain_indexing() -> None:
    features = torch.randn(2, 5, 4, 3, 6)
    points = torch.tensor([[7.5, 0.0, 11.5], [NAN] * 3, [-0.5, 5.4, 2.0], [2.0, 6.0, 2.0]]).expand(2, -1, -1)
    found = sample_cells(features, points, 2)
    for batch in range(2):
        torch.testing.assert_close(found[batch, 0], features[batch, :, 3, 0, 5])
        torch.testing.assert_close(found[batch, 2], features[batch, :, 0, 2, 1])
    assert found[:, [1, 3]].isnan().all()  # missing, and outside


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shared", [False, True])
def test_maps_have_the_documented_shapes(shape, shared) -> None:
    net = small(len(shape), shared=shared).eval()
    image, patch = torch.rand(2, 1, *shape), torch.rand(2, 1, *(33 for _ in shape))
    maps = net(image, patch, torch.full((2, 3, len(shape)), 12.5))
    assert [tuple(x.shape) for x in maps] == [(2, 3, *(-(-n // s) for n in shape)) for s in (32, 16, 8, 4, 2)]
    assert [tuple(x.shape[:2]) for x in net.embed(image)] == [(2, 8)] * 5
    assert all(bool((x.abs() <= 1 + 1e-6).all()) for x in maps)


def test_extractors_begin_equal_and_only_separate_ones_learn_apart() -> None:
    image, points = torch.rand(2, 1, 64, 64), torch.full((2, 1, 2), 40.0)
    for shared in (True, False):
        net = small(shared=shared).eval()
        maps = net(image, image, points)
        for x, stride in zip(maps, net.strides, strict=True):
            cell = 40 // stride
            torch.testing.assert_close(x[:, 0, cell, cell], torch.ones(2))
        PatchMatchingLoss()(maps, points).backward()
        with torch.no_grad():
            for p in net.parameters():
                p -= 0.1 * p.grad  # every parameter has one
        same = [torch.equal(a, b) for a, b in zip(net.embed(image), net.embed_patch(image), strict=True)]
        assert same == [shared] * 5
    assert count(small(shared=False)) == 2 * count(small(shared=True))


def test_published_network_has_the_layers_of_the_paper() -> None:
    """Counted by hand: kernel times channels in and out and a bias, and two numbers per normalised channel."""
    with torch.device("meta"):
        net = PatchMatchingNet(2, 3, shared=True)
    widths = [3, 64, 64, 128, 128, *[256] * 4, *[512] * 8]
    encoder = sum((9 * a + 1) * b for a, b in pairwise(widths))
    decoder = 0
    for below, skip, here in [(512, 512, 256), (256, 512, 128), (128, 256, 64), (64, 128, 128)]:
        decoder += (9 * (below + skip) + 1) * here + (9 * here + 1) * here + 4 * here
    heads = sum((channels + 1) * 64 for channels in (512, 256, 128, 64, 128))
    pyramid = net.image_pyramid
    counted = [encoder, decoder, heads, encoder + decoder + heads]
    assert [count(pyramid.encoder), count(pyramid.decoder), count(pyramid.heads), count(net)] == counted
    for number in counted:
        assert f"{number:,}" in PatchMatchingNet.__doc__


def test_receptive_blocks_are_those_of_the_released_code() -> None:
    with torch.device("meta"):
        plain, more = (PatchMatchingNet(2, 3, shared=True, receptive_blocks=blocks) for blocks in (False, True))
    expected = 0
    for channels in (512, 256, 128):
        square, norm = channels**2, 2 * channels
        branches = sum((1 + k + k + 9) * square + 4 * norm for k in (3, 5, 7))
        expected += square + norm + branches + 9 * 4 * square + norm + square + norm
    assert count(more) - count(plain) == expected
    assert f"{expected:,}" in PatchMatchingNet.__doc__
    # The released network is 58,345,794 parameters without VGG's classifier: VGG's pooled maps are narrower, another
    # step leads to stride 1, and a head that nothing uses has 33,282.
    narrower = sum(
        9 * (ours - theirs) * here for ours, theirs, here in [(512, 256, 128), (256, 128, 64), (128, 64, 128)]
    )
    last_step = 2 * (9 * 128 + 1) * 128 + 4 * 128 + 129 * 64
    assert count(more) - narrower + last_step == 58_345_794 - 33_282


@pytest.mark.parametrize("dims", [2, 3])
def test_receptive_block_keeps_the_size_and_reaches_equally_far_along_every_axis(dims) -> None:
    block = ReceptiveBlock(dims, 1, norm=None)
    x = torch.zeros(1, 1, *[25] * dims, requires_grad=True)
    y = block.fuse(torch.cat([branch(x) for branch in block.branches], dim=1))
    assert y.shape == block(x).shape == x.shape
    y[(0, 0, *[12] * dims)].backward()
    seen = x.grad[0, 0].nonzero()
    # the widest branch reaches 3 (7 wide) + 7 (dilated) + 1 (fused)
    assert seen.amin(0).tolist() == [1] * dims
    assert seen.amax(0).tolist() == [23] * dims


def test_receptive_blocks_act_on_the_three_coarsest_levels() -> None:
    net, image = small(receptive_blocks=True).eval(), torch.rand(1, 1, 64, 64)
    before = net.embed(image)
    with torch.no_grad():
        for p in net.image_pyramid.receptive.parameters():
            p.mul_(2)
    assert [torch.equal(a, b) for a, b in zip(before, net.embed(image), strict=True)] == [False] * 3 + [True] * 2


@pytest.mark.parametrize("encoder", ["vgg19", "densenet121"])
def test_any_encoder_by_name(encoder) -> None:
    maps = EmbeddingPyramid(2, 2, encoder, width=0.0625, embedding=5).eval()(torch.rand(1, 2, 40, 64))
    assert [tuple(x.shape) for x in maps][-1] == (1, 5, 20, 32)


def test_encoder_may_be_a_module_and_norm_another() -> None:
    encoder = build_encoder("resnet18", 2, 1, 0.0625, "group")
    net = small(encoder=encoder, norm="group")
    assert net.image_pyramid.encoder is encoder
    assert net.patch_pyramid.encoder is not encoder
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    with pytest.raises(ValueError, match="encoder's name"):
        small(encoder=encoder, pretrained=True)


def test_checkpoint_of_the_encoder_reaches_both_extractors(tmp_path) -> None:
    torch.manual_seed(5)
    encoder = build_encoder("resnet18", 2, 1, 0.0625)
    torch.save(encoder.state_dict(), tmp_path / "encoder.pt")
    net = small(pretrained=str(tmp_path / "encoder.pt"))
    assert net.pretrained_report.loaded
    for pyramid in (net.image_pyramid, net.patch_pyramid):
        for name, value in encoder.state_dict().items():
            assert torch.equal(pyramid.encoder.state_dict()[name], value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 4}, "spatial_dims"),
        ({"spatial_dims": 2, "embedding": 0}, "embedding"),
        ({"spatial_dims": 2, "in_channels": 0}, "in_channels"),
        ({"spatial_dims": 2, "encoder": "vgg9"}, "unknown encoder"),
    ],
)
def test_bad_options_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        PatchMatchingNet(**options)


def test_a_few_steps_lower_the_loss() -> None:
    net, loss = small(width=0.125, norm="instance"), PatchMatchingLoss()
    torch.manual_seed(0)
    image = F.interpolate(torch.rand(2, 1, 24, 24), size=(96, 96), mode="bilinear")
    patch, patch_points = image[..., 16:80, 24:88] * 1.2, torch.tensor([[[20.0, 31.0]], [[40.5, 12.0]]])
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    values = []
    for _ in range(8):
        value = loss(net(image, patch, patch_points), patch_points + torch.tensor([16.0, 24.0]))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0]
