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
"""Landmarks by registration: exact places, honest confidence, a map of zeros for what has left the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.handlers import FinalCheckpoint, LandmarkCheckpointLoader
from monai_landmarks.handlers.checkpoint_files import AtomicSaver
from monai_landmarks.heatmaps import decode_heatmaps
from monai_landmarks.networks.blocks.displacement import Registration, affine_displacement
from monai_landmarks.networks.nets.registered_exemplar_net import RegisteredExemplarNet

NAN = float("nan")
SHAPES = [(48, 37), (30, 33, 28)]


class GivenMap(nn.Module):
    """In the place of a trained network: x -> A x towards the exemplar (whose first voxel is 1), and back as told."""

    def __init__(self, forth: torch.Tensor, back: torch.Tensor | None = None, more: torch.Tensor | None = None) -> None:
        super().__init__()
        self.spatial_dims, self.forth, self.more = forth.shape[0], forth, more
        whole = torch.cat([forth, torch.zeros(1, forth.shape[1])])
        whole[-1, -1] = 1
        self.back = torch.linalg.inv(whole)[:-1] if back is None else back

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> Registration:
        first = source.flatten(1)[0, 0]
        affine = (self.forth if first == 1 else self.back).expand(len(source), -1, -1).to(source)
        field = affine_displacement(affine, source.shape[2:])
        return Registration(affine, [], [field if self.more is None else field + self.more])


def turned(dims: int, angle: float = 0.1, shift: float = 1.5) -> torch.Tensor:
    """A rotation in the first two axes that carries most of a grid into itself."""
    affine = torch.eye(dims, dims + 1)
    cos, sin = torch.cos(torch.tensor(angle)), torch.sin(torch.tensor(angle))
    affine[:2, :2] = torch.stack([torch.stack([cos, sin]), torch.stack([-sin, cos])])
    affine[:, -1] = shift
    return affine


def exemplar_of(shape: tuple[int, ...]) -> torch.Tensor:
    image = torch.rand(1, *shape) / 2
    image.view(-1)[0] = 1
    return image


def points_of(shape: tuple[int, ...], count: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    points = (0.3 + 0.4 * torch.rand(count, len(shape), generator=generator)) * torch.tensor(shape)
    points[2] = NAN
    return points


def registered(shape: tuple[int, ...], net: nn.Module | None = None, **options: Any) -> RegisteredExemplarNet:
    made = RegisteredExemplarNet(net or GivenMap(turned(len(shape))), 6, **options).eval()
    made.set_exemplar(exemplar_of(shape), points_of(shape))
    return made


def inverse(affine: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    return torch.linalg.solve(affine[:, :-1].double(), (points.double() - affine[:, -1]).T).T.float()


@pytest.mark.parametrize("shape", SHAPES)
def test_maps_decode_to_the_exact_inverse_with_the_confidence_as_maximum(shape: tuple[int, ...]) -> None:
    net = registered(shape)
    image = torch.rand(2, 1, *shape) / 2
    expected = inverse(turned(len(shape)), points_of(shape))
    there = [0, 1, 3, 4, 5]
    points, confidence, registration, cycle = net.carry(image)
    assert torch.allclose(points[:, there], expected[there].expand(2, -1, -1), atol=1e-3)
    assert points[:, 2].isnan().all()
    assert cycle[:, there].max() < 1e-3
    assert registration.fields[-1].shape == (2, len(shape), *shape)
    heatmaps = net(image)
    torch.testing.assert_close(heatmaps.flatten(2).amax(-1), confidence)
    for method in ("dark", "gaussian_fit"):
        decoded, score = decode_heatmaps(heatmaps, method=method, spatial_dims=len(shape))[:2]
        assert (decoded - expected)[:, there].norm(dim=-1).max() < 0.01
        assert decoded[:, 2].isnan().all()
        assert score[:, there].min() > 0.95
        assert score[:, 2].max() == 0


def test_confidence_falls_with_the_distance_that_the_way_back_misses() -> None:
    shape, forth = (48, 37), turned(2)
    whole = torch.cat([forth, torch.tensor([[0.0, 0.0, 1.0]])])
    back = torch.linalg.inv(whole)[:-1]
    back[:, -1] += torch.tensor([3.0, 4.0])
    net = registered(shape, GivenMap(forth, back), cycle_tolerance=2.5)
    _, confidence, _, cycle = net.carry(torch.rand(1, 1, *shape) / 2)
    there = [0, 1, 3, 4, 5]
    torch.testing.assert_close(cycle[0, there], torch.full((5,), 5.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(confidence[0, there], torch.full((5,), 0.1353), atol=1e-3, rtol=0)
    trusting = registered(shape, GivenMap(forth, back), cycle=False)
    assert trusting.carry(torch.rand(1, 1, *shape) / 2).confidence[0, there].tolist() == [1.0] * 5


def test_a_hopeless_cycle_still_has_a_map_that_can_be_decoded() -> None:
    shape = (48, 37)
    back = turned(2)
    back[:, -1] += 500
    net = registered(shape, GivenMap(turned(2), back))
    points, _ = decode_heatmaps(net(torch.rand(1, 1, *shape) / 2), method="dark")[:2]
    expected = inverse(turned(2), points_of(shape))
    assert (points[0] - expected)[[0, 1, 3, 4, 5]].norm(dim=-1).max() < 0.01


def test_a_landmark_carried_out_of_the_image_is_missing_not_wrong() -> None:
    shape = (48, 37)
    forth = torch.eye(2, 3)
    forth[0, 2] = -25.0
    net = registered(shape, GivenMap(forth))
    points, confidence, _, _ = net.carry(torch.rand(1, 1, *shape) / 2)
    out = points[0, :, 0] > shape[0] - 0.5
    assert 0 < out.sum() < 6
    assert (confidence[0, out] == 0).all()
    maps = net(torch.rand(1, 1, *shape) / 2)
    assert (maps[0, out] == 0).all()
    assert decode_heatmaps(maps, method="dark")[0][0, out].isnan().all()


def test_a_fold_lowers_the_confidence() -> None:
    shape = (48, 37)
    bump = torch.zeros(1, 2, *shape)
    bump[:, 0] = 12 * torch.exp(-((torch.arange(48.0) - 24) ** 2) / 18)[:, None]
    net = RegisteredExemplarNet(GivenMap(torch.eye(2, 3), more=bump), 2, cycle=False)
    net.set_exemplar(exemplar_of(shape), torch.tensor([[34.0, 10.0], [5.0, 20.0]]))
    assert net.carry(torch.rand(1, 1, *shape) / 2).confidence[0].tolist() == pytest.approx([0.1, 1.0])


def test_a_checkpoint_brings_the_exemplar_along(tmp_path: Path) -> None:
    class Trainable(GivenMap):
        def __init__(self) -> None:
            super().__init__(turned(2))
            self.weight = nn.Parameter(torch.ones(3))

    net = registered((48, 37), Trainable())
    names = [f"landmark {i}" for i in range(6)]
    AtomicSaver(tmp_path, "model.pt", names, "RegisteredExemplarNet")(net.state_dict(), "model.pt")
    assert FinalCheckpoint(tmp_path, {"model": net}, landmark_names=names)
    fresh = RegisteredExemplarNet(Trainable(), 6).eval()
    LandmarkCheckpointLoader(tmp_path / "model.pt", {"model": fresh}, landmark_names=names)()
    image = torch.rand(1, 1, 48, 37) / 2
    torch.testing.assert_close(fresh(image), net(image))
    torch.testing.assert_close(fresh.exemplar_image(), net.exemplar_image())
    with pytest.raises(LandmarkError, match=r"predicts 6 landmarks, this network 4"):
        LandmarkCheckpointLoader(tmp_path / "model.pt", {"model": RegisteredExemplarNet(Trainable(), 4)})()


def test_exemplars_and_images_that_do_not_fit_are_refused() -> None:
    net = RegisteredExemplarNet(GivenMap(turned(2)), 6)
    image, points = exemplar_of((48, 37)), points_of((48, 37))
    with pytest.raises(LandmarkError, match=r"no exemplar: call `set_exemplar"):
        net(image[None])
    with pytest.raises(LandmarkError, match=r"finds 6 landmarks.*NaN"):
        net.set_exemplar(image, points[:4])
    with pytest.raises(LandmarkError, match="all landmarks of the exemplar are missing"):
        net.set_exemplar(image, torch.full((6, 2), NAN))
    with pytest.raises(LandmarkError, match=r"outside: 'c' at \[60.0, 5.0\]"):
        net.set_exemplar(image, points.where(torch.arange(6)[:, None] != 2, torch.tensor([60.0, 5.0])), list("abcdef"))
    with pytest.raises(LandmarkError, match=r"one exemplar \(C, \*S\)"):
        net.set_exemplar(torch.rand(2, 1, 48, 37), points)
    with pytest.raises(LandmarkError, match="one exemplar, got 2 images"):
        net.set_templates([image, image], [points, points])
    net.set_templates([image], [points], [list("abcdef")])
    with pytest.raises(LandmarkError, match=r"knows one grid.*FitToGridd"):
        net(torch.rand(1, 1, 48, 36))
    with pytest.raises(LandmarkError, match="num_landmarks"):
        RegisteredExemplarNet(GivenMap(turned(2)), 0)
    with pytest.raises(LandmarkError, match="cycle_tolerance"):
        RegisteredExemplarNet(GivenMap(turned(2)), 1, cycle_tolerance=0)
