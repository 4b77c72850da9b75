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
"""EdgeTransNet: its parameters, its affine maps against the paper's formula, its cascade against single steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.networks.blocks.displacement import sample_displacement, warp
from monai_landmarks.networks.nets.edge_trans_net import EdgeTransNet, affine_matrix, voxel_affine

SMALL = {"width": 0.125, "channels": 8, "layers": 1, "encoder": "resnet18"}
SIZES = {2: (45, 70), 3: (33, 20, 41)}


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def small_net(dims: int = 2, strength: float | None = 0.3, **options: object) -> EdgeTransNet:
    """A net whose last layers are strong enough to move voxels; None leaves them as they begin."""
    torch.manual_seed(0)
    net = EdgeTransNet(dims, **{**SMALL, **options}).eval()  # type: ignore[arg-type]
    if strength is not None:
        for last in (net.affine_head[-1], net.local_head):
            nn.init.normal_(last.weight, std=strength * (1 if last is net.affine_head[-1] else 0.2))
    return net


def pair(dims: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    source, target = (torch.rand(batch, 1, *SIZES[dims], generator=generator) for _ in range(2))
    return source, target


def test_parameters_are_counted_as_published() -> None:
    with torch.device("meta"):
        net = EdgeTransNet(2)
    assert count(net.encoder) == 9_562_260
    assert count(net.affine_head) == 4_678
    assert count(net.local_head) == 520
    assert count(net.fuse, net.affine_head, net.local_head) == 531_982


@pytest.mark.parametrize("seed", range(4))
def test_the_matrix_is_the_papers_and_so_is_its_inverse(seed: int) -> None:
    outputs = 1.6 * torch.rand(1, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.8
    tx, ty, o3, o4, o5, o6 = outputs[0].tolist()
    sx, sy, a, k = 1 + 0.7 * o3, 1 + 0.7 * o4, o5 * math.pi / 2, math.tan(o6)
    cos, sin = math.cos(a), math.sin(a)
    paper = torch.tensor(
        [[sx * cos, sx * (k * cos + sin), tx], [-sy * sin, sy * (-k * sin + cos), ty]], dtype=torch.float64
    )
    matrix = affine_matrix(outputs, max_scale=0.7, max_shear=1.0)
    torch.testing.assert_close(matrix[0], paper)
    # shear^-1 times rotation^-1 times scale^-1
    inverse = torch.tensor([[(cos - k * sin) / sx, (-sin - k * cos) / sy], [sin / sx, cos / sy]], dtype=torch.float64)
    torch.testing.assert_close(inverse @ paper[:, :2], torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(torch.linalg.inv(matrix[0, :, :2]), inverse)


def test_the_matrix_in_3d() -> None:
    torch.testing.assert_close(affine_matrix(torch.zeros(2, 12)), torch.eye(3, 4).expand(2, 3, 4))
    outputs = 0.5 * torch.rand(5, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    linear = affine_matrix(outputs)[..., :3]
    torch.testing.assert_close(torch.linalg.det(linear), (1 + outputs[:, 3:6]).prod(dim=1))
    turned = outputs.clone()
    turned[:, 3:6] = turned[:, 9:] = 0
    rotation = affine_matrix(turned)[..., :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(5, 3, 3))


def test_a_rotation_of_an_oblong_image_is_a_rotation_about_its_middle() -> None:
    outputs = torch.zeros(1, 6, dtype=torch.float64)
    outputs[0, 4] = 0.4
    affine = voxel_affine(affine_matrix(outputs), (60, 200))[0]
    torch.testing.assert_close(affine[:, :2] @ affine[:, :2].T, torch.eye(2, dtype=torch.float64))
    middle = torch.tensor([29.5, 99.5], dtype=torch.float64)
    torch.testing.assert_close(affine[:, :2] @ middle + affine[:, 2], middle)


@pytest.mark.parametrize("seed", range(2))
def test_gradients_of_the_matrix(seed: int) -> None:
    outputs = torch.rand(1, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5
    assert torch.autograd.gradcheck(lambda o: voxel_affine(affine_matrix(o), (5, 9, 7)), outputs.requires_grad_())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("attention", [True, False])
def test_it_begins_at_the_identity_for_any_size(dims: int, attention: bool) -> None:
    net = small_net(dims, strength=None, attention=attention)
    source, target = pair(dims)
    registration = net(source, target)
    assert registration.affine.shape == (2, dims, dims + 1)
    assert [f.shape for f in registration.fields] == [(2, dims, *SIZES[dims])] * 3
    assert max(float(f.detach().abs().max()) for f in [*registration.fields, *registration.steps]) < 0.05
    assert not any(isinstance(m, nn.MultiheadAttention) for m in net.modules()) or attention


@pytest.mark.parametrize("dims", [2, 3])
def test_the_composed_field_is_the_steps_one_after_the_other(dims: int) -> None:
    net = small_net(dims, local_steps=3)
    registration = net(*pair(dims))
    start = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in SIZES[dims]], indexing="ij"))
    start = start.flatten(1).T.expand(2, -1, -1)
    at = start
    for step in reversed(registration.steps):  # T_k applies the newest step first
        at = at + sample_displacement(step, at)
    affine = registration.affine
    at = at @ affine[..., :-1].mT + affine[:, None, :, -1]
    composed = start + registration.fields[-1].flatten(2).mT
    assert float((composed - start).detach().abs().max()) > 3
    torch.testing.assert_close(composed, at, atol=1e-3, rtol=0)


class Recorder(nn.Module):
    """An encoder by average pooling that keeps the images it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[torch.Tensor] = []

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        self.shown.append(image)
        return [nn.functional.avg_pool2d(image, stride) for stride in (2, 4, 8, 16, 32)]


def test_every_image_is_one_interpolation_of_the_source() -> None:
    recorder = Recorder()
    net = small_net(encoder=recorder, attention=False)
    recorder.shown.clear()
    source, target = pair(2)
    registration = net(source, target)
    expected = [source, *(warp(source, field) for field in registration.fields[:-1])]
    assert len(recorder.shown) == len(expected) == 3
    for shown, warped in zip(recorder.shown, expected, strict=True):
        rows, columns = SIZES[2]
        both = torch.cat([warped, target, (warped + target) / 2], dim=1)
        torch.testing.assert_close(shown[..., :rows, :columns], both)
        assert shown.shape[2:] == (64, 96)


def test_the_number_of_local_steps_may_be_set_at_call_time() -> None:
    net = small_net()
    for steps in (0, 1, 4):
        net.local_steps = steps
        registration = net(*pair(2))
        assert (len(registration.steps), len(registration.fields)) == (steps, steps + 1)


def test_limits_hold_and_saturated_maps_can_be_inverted() -> None:
    net = small_net(max_displacement=0.1)
    nn.init.constant_(net.affine_head[-1].bias, -1e4)
    nn.init.constant_(net.local_head.bias, 1e4)
    registration = net(*pair(2))
    assert max(float(s.detach().abs().max()) for s in registration.steps) <= 0.1 * 70 / 2 + 1e-4
    assert bool(registration.inverse_affine.isfinite().all())
    assert float(torch.linalg.det(registration.affine[..., :2].detach().double()).min()) > 0


def test_coordinates_stay_float32_under_autocast() -> None:
    net = small_net()
    source, target = pair(2)
    exact = net(source, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = net(source, target)
    tensors = [rounded.affine, *rounded.steps, *rounded.fields]
    assert {t.dtype for t in tensors} == {torch.float32}
    values = rounded.steps[0]
    assert float((values - values.bfloat16().float()).abs().max()) > 0  # not rounded to bfloat16 on the way
    assert float((exact.affine - rounded.affine).abs().max()) < 2


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_gradients_reach_every_parameter_that_the_loss_needs(norm: str) -> None:
    net = small_net(norm=norm, dropout=0.0).train()
    source, target = pair(2, batch=2 if norm == "batch" else 1)
    warped = warp(source, net(source, target).fields[-1])
    (warped - target).square().mean().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None]
    assert without == []
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters() if p.grad is not None)


def test_it_learns_a_shift() -> None:
    net = small_net(strength=None, norm="instance", attention=False, local_steps=1).train()
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(32.0), indexing="ij")
    source, target = (
        torch.exp(-((rows - r) ** 2 + (columns - c) ** 2) / 50)[None, None] for r, c in ((17, 17), (22, 13))
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(25):
        registration = net(source, target)
        loss = sum((warp(source, f) - target).square().mean() for f in registration.fields)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
    before = float((source - target).square().mean())
    assert float((warp(source, registration.fields[-1]) - target).square().mean()) < 0.2 * before


def test_state_survives_another_image_size() -> None:
    net, same = small_net(image_size=(64, 64)), small_net(image_size=(64, 64), strength=None)
    same.load_state_dict(net.state_dict())
    source, target = pair(2)
    torch.testing.assert_close(same(source, target).fields[-1], net(source, target).fields[-1])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(LandmarkError, match="of one size"):
        small_net()(torch.zeros(1, 1, 40, 40), torch.zeros(1, 1, 40, 41))
    with pytest.raises(LandmarkError, match="2 spatial axes"):
        small_net()(*pair(3))
    with pytest.raises(ValueError, match="`spatial_dims` must be 2 or 3"):
        EdgeTransNet(1)
    with pytest.raises(ValueError, match="limits must be"):
        EdgeTransNet(2, max_scale=1.5)
    with pytest.raises(ValueError, match="`image_size` must be 2 sizes"):
        EdgeTransNet(2, image_size=(64, 64, 64), **SMALL)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown encoder"):
        EdgeTransNet(2, encoder="hrnet_w19")
    with pytest.raises(ValueError, match="6 numbers in 2D"):
        affine_matrix(torch.zeros(1, 8))
