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

import pytest
import torch
from torch import nn

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.heatmaps import decode_heatmaps
from monai_landmarks.heatmaps.voting import vote_heatmaps
from monai_landmarks.losses.offset_voting import OffsetVotingLoss
from monai_landmarks.networks.blocks.encoders import VGGEncoder
from monai_landmarks.networks.nets.voting_unet import VotingUNet


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(dims: int = 2, encoder: str | nn.Module = "vgg19", **options) -> VotingUNet:
    return VotingUNet(dims, 1, 4, encoder, **{"width": 0.0625, "radius": 3.0, **options})


def test_parameters_by_hand() -> None:
    with torch.device("meta"):
        net = VotingUNet(2, 3, 19)
    decoder = 0
    for skip, inputs, outputs in [(512, 512, 256), (512, 256, 128), (256, 128, 64), (128, 64, 128), (64, 128, 64)]:
        decoder += 9 * (skip + inputs) * outputs + outputs + 9 * outputs**2 + outputs  # two 3-wide convolutions
        decoder += 2 * 2 * outputs  # scale and shift of two normalisations
    parts = {"encoder": 20_024_384, "decoder": decoder, "head": 64 * 57 + 57}
    assert {name: count(part) for name, part in net.named_children()} == parts
    for number in (*parts.values(), sum(parts.values())):
        assert f"{number:,}" in (VotingUNet.__doc__ or "")


@pytest.mark.parametrize(("dims", "size"), [(2, (75, 50)), (2, (33, 64)), (3, (18, 33, 20))])
@pytest.mark.parametrize("encoder", ["vgg19", "resnet18"])  # with and without a map at full size
def test_any_size_in_both_modes(dims, size, encoder) -> None:
    net, image = small(dims, encoder), torch.randn(2, 1, *size)
    assert net(image).shape == (2, 4 * (1 + dims), *size)
    with torch.no_grad():
        assert net.eval()(image).shape == (2, 4, *size)


def test_evaluation_counts_the_votes_of_the_same_maps() -> None:
    net = small(voting={"num_votes": 7, "smoothing": 1.0}).eval()
    image = torch.randn(1, 1, 40, 40)
    with torch.no_grad():
        maps = net.maps(image)
        assert torch.equal(net(image), vote_heatmaps(maps, 3.0, 7, smoothing=1.0))
        assert torch.equal(net.train()(image), maps)  # instance normalisation has no running statistics


def test_own_encoder_and_voxels_keep_their_place() -> None:
    """A wider image has the same maps where the border is far: nothing is shifted by padding at the end."""
    net = small(encoder=VGGEncoder(2, 1, (1, 1, 1, 1, 1), width=0.0625), norm="batch").eval()
    image = torch.randn(1, 1, 400, 32)
    with torch.no_grad():
        torch.testing.assert_close(net.maps(image)[:, :, :100], net.maps(image[:, :, :390])[:, :, :100])


def test_learns_bright_spots() -> None:
    torch.manual_seed(0)
    net = VotingUNet(2, 1, 1, width=0.0625, radius=5.0)
    loss, optimiser = OffsetVotingLoss(radius=5.0), torch.optim.Adam(net.parameters(), 5e-3)
    points = torch.tensor([[[4.0, 20.0]], [[25.0, 8.0]]])
    image = torch.zeros(2, 1, 32, 32)
    image[0, 0, 4, 20] = image[1, 0, 25, 8] = 10.0
    for _ in range(40):
        optimiser.zero_grad()
        loss(net(image), points).backward()
        optimiser.step()
    with torch.no_grad():
        found = decode_heatmaps(net.eval()(image)).points
    assert (found - points).norm(dim=-1).max() < 1.5


def test_state_is_restored() -> None:
    torch.manual_seed(0)
    one, other = small(), small()
    other.load_state_dict(one.state_dict())
    image = torch.randn(1, 1, 32, 32)
    assert torch.equal(one(image), other(image))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"spatial_dims": 1}, ValueError, "`spatial_dims`"),
        ({"num_landmarks": 0}, ValueError, "`num_landmarks`"),
        ({"in_channels": 0}, ValueError, "`in_channels`"),
        ({"radius": 0.05}, LandmarkError, "in voxels"),
        ({"encoder": "vgg20"}, ValueError, "unknown encoder 'vgg20'"),
        ({"voting": {"votes": 3}}, TypeError, "votes"),
        ({"voting": {"weighting": "score"}}, ValueError, "score"),
        ({"encoder": VGGEncoder(2, 1, width=0.0625), "pretrained": True}, ValueError, "encoder's name"),
    ],
)
def test_arguments_that_cannot_be(options, error, message) -> None:
    with pytest.raises(error, match=message):
        VotingUNet(**{"spatial_dims": 2, "in_channels": 1, "num_landmarks": 4, "width": 0.0625, **options})


def test_heatmaps_begin_with_their_bias_and_offsets_without() -> None:
    net = VotingUNet(2, 1, num_landmarks=3, encoder="resnet18", width=0.125, heatmap_bias=-4.0)
    assert net.head.bias is not None
    assert net.head.bias[:3].tolist() == [-4.0] * 3
    assert net.head.bias[3:].abs().max() < 1
