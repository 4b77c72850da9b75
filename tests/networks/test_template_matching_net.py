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

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import nn

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.networks.nets.patch_matching_net import PatchMatchingNet
from monai_landmarks.networks.nets.template_matching_net import TemplateMatchingNet

NAN = float("nan")
SHAPES = [(75, 50), (34, 41, 37)]
STRIDES = (32, 16, 8, 4, 2)


def matching(dims: int, num_landmarks: int, shared: bool = True, **options) -> TemplateMatchingNet:
    torch.manual_seed(0)
    matcher = PatchMatchingNet(dims, encoder="resnet18", width=0.0625, embedding=8, shared=shared, norm="instance")
    return TemplateMatchingNet(matcher, num_landmarks, **options).eval()


class GivenMaps(nn.Module):
    """In the place of a matcher: its embeddings are the given ones, whatever the image."""

    strides = STRIDES

    def __init__(self, maps) -> None:
        super().__init__()
        self.maps, self.spatial_dims, self.embedding = maps, maps[0].ndim - 2, maps[0].shape[1]

    def embed(self, image):
        return [x.expand(len(image), *x.shape[1:]) for x in self.maps]

    embed_patch = embed


def given(shape, channels: int = 4, **options) -> TemplateMatchingNet:
    torch.manual_seed(3)
    maps = [torch.randn(1, channels, *(-(-n // s) for n in shape)) for s in STRIDES]
    return TemplateMatchingNet(GivenMaps(maps), **options)


def enlarged(cells: np.ndarray, stride: int, shape, point=None) -> np.ndarray:
    """Read a map of cells at every voxel; the centre of cell c lies at (c + 0.5) * stride - 0.5.

    Given the point, the map is moved as the point lies from its cell's centre.
    """
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij"))
    for axis, where in enumerate(point or []):
        grid[axis] -= where - (((where + 0.5) // stride + 0.5) * stride - 0.5)
    return map_coordinates(cells.astype(float), (grid + 0.5) / stride - 0.5, order=1, mode="nearest")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("in_cell", [False, True])
def test_heatmap_is_the_product_of_the_clipped_maps_enlarged_half_pixel_aligned(shape, in_cell) -> None:
    net = given(shape, num_landmarks=2, in_cell=in_cell)
    points = torch.tensor([[30.0, 20.4, 11.0], [7.0, 40.0, 36.4]])[:, : len(shape)]
    image = torch.zeros(1, 1, *shape)
    net.set_templates(image, points[None])
    found = net(image)[0].numpy()
    for number, point in enumerate(points.tolist()):
        product = np.ones(shape)
        for x, stride in zip(net.matcher.maps, STRIDES, strict=True):
            anchor = x[(0, slice(None), *(int((p + 0.5) // stride) for p in point))]
            cosine = torch.nn.functional.cosine_similarity(x[0].flatten(1).T, anchor[None]).reshape(x.shape[2:])
            product *= enlarged(cosine.clamp(0, 1).numpy(), stride, shape, point if in_cell else None)
        np.testing.assert_allclose(found[number], product, atol=2e-5)


@pytest.mark.parametrize("window", [3, 4])
def test_cascade_looks_only_around_the_highest_voxel_of_the_coarser_product(window) -> None:
    shape = (75, 50)
    net = given(shape, num_landmarks=1, cascade=True, cascade_window=window, in_cell=False)
    image = torch.zeros(1, 1, *shape)
    net.set_templates(image, torch.tensor([[[30.0, 20.4]]]))
    product = np.ones(shape)
    for level, (x, stride) in enumerate(zip(net.similarities(image), STRIDES, strict=True)):
        x = x[0, 0].numpy().copy()
        if level:
            centre = [v // stride for v in np.unravel_index(product.argmax(), shape)]
            for cell in itertools.product(*(range(n) for n in x.shape)):
                if not all(0 <= c - t + window // 2 < window for c, t in zip(cell, centre, strict=True)):
                    x[cell] = 0
        product *= enlarged(x, stride, shape)
    np.testing.assert_allclose(net(image)[0, 0].numpy(), product, atol=2e-5)
    plain = given(shape, num_landmarks=1, in_cell=False)
    plain.anchors = net.anchors
    assert (net(image) > 0).sum() < (plain(image) > 0).sum()


@pytest.mark.parametrize("shape", SHAPES)
def test_landmark_of_a_template_is_found_at_itself(shape) -> None:
    net = matching(len(shape), 3)
    image = torch.rand(1, 1, *shape)
    points = torch.tensor([[[20.0, 30.4, 17.0], [3.6, 11.0, 36.0], [31.5, 33.0, 2.2]]])[..., : len(shape)]
    net.set_templates(image, points)
    with torch.no_grad():
        maps = net.similarities(image)
    for number, point in enumerate(points[0]):
        for x, stride in zip(maps, STRIDES, strict=True):
            cell = tuple(((point + 0.5) / stride).long())
            assert x[(0, number, *cell)].item() == pytest.approx(1, abs=1e-5)
            assert x[(0, number, *cell)] >= x[0, number].max() - 1e-5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("in_cell", [False, True])
def test_highest_voxel_lies_at_the_landmark_or_in_its_finest_cell(shape, cascade, in_cell) -> None:
    net = given(shape, channels=64, num_landmarks=3, cascade=cascade, in_cell=in_cell)
    points = torch.tensor([[[20.0, 30.4, 17.0], [3.6, 11.0, 36.0], [31.5, 31.5, 32.0]]])[..., : len(shape)]
    net.set_templates(torch.zeros(1, 1, *shape), points)
    heatmaps = net(torch.zeros(1, 1, *shape))
    assert heatmaps.shape == (1, 3, *shape)
    assert 0 <= heatmaps.min() < heatmaps.max() <= 1
    for number, point in enumerate(points[0]):
        voxel = torch.stack(torch.unravel_index(heatmaps[0, number].argmax(), shape))
        if in_cell:
            assert (voxel - point).abs().max() < 1
        else:
            assert torch.equal(voxel // 2, ((point + 0.5) / 2).long())


def test_missing_landmark_has_an_empty_map_and_another_template_finds_it() -> None:
    image, other = torch.rand(2, 1, 64, 48)
    points = torch.tensor([[[20.0, 30.0], [NAN, NAN], [NAN, NAN]], [[40.0, 9.0], [50.0, 20.0], [NAN, NAN]]])
    for combine in ("average", "best"):
        net = matching(2, 3, combine=combine)
        net.set_templates([image, other], points)
        maps = net(other[None])
        assert not maps[0, 2].any()
        net.set_templates(other[None], points[1:])
        torch.testing.assert_close(net(other[None])[0, 1], maps[0, 1])


def test_average_compares_with_the_mean_direction_and_best_with_the_best() -> None:
    images, points = torch.rand(2, 1, 64, 48), torch.tensor([[[20.0, 30.0]], [[40.5, 9.0]]])
    each = []
    for image, where in zip(images, points, strict=True):
        net = matching(2, 1)
        net.set_templates(image[None], where[None])
        each.append(net)
    net = matching(2, 1, combine="best")
    net.set_templates(images, points)
    query = torch.rand(2, 1, 50, 64)
    torch.testing.assert_close(net(query), torch.maximum(*(one(query) for one in each)))
    net.combine = "average"
    each[0].places = (each[0].places + each[1].places) / 2
    unit = [torch.nn.functional.normalize(one.anchors, dim=-1) for one in each]
    each[0].anchors = 5 * (unit[0] + unit[1])
    torch.testing.assert_close(net(query), each[0](query))


def test_templates_of_different_sizes_and_extractors() -> None:
    net, points = matching(2, 1, shared=False), torch.tensor([[[20.0, 30.0]], [[40.5, 9.0]]])
    images = [torch.rand(1, 64, 48), torch.rand(1, 45, 33)]
    with torch.no_grad():
        next(net.matcher.patch_pyramid.heads.parameters()).add_(1)
    net.set_templates(images, points)
    assert net.anchors.shape == (2, 5, 1, 8)
    by_patch = net.anchors
    net.template_extractor = "image"
    net.set_templates(images, points)
    assert not torch.equal(net.anchors[:, 0], by_patch[:, 0])
    assert torch.equal(net.anchors[:, 1:], by_patch[:, 1:])


def test_templates_are_part_of_the_state_dictionary(tmp_path) -> None:
    net = matching(2, 2, combine="best")
    points = torch.tensor([[20.0, 30.0], [NAN, NAN]]).expand(3, -1, -1)
    net.set_templates(torch.rand(3, 1, 64, 48), points)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    fresh, image = matching(2, 2, combine="best"), torch.rand(1, 1, 50, 64)
    fresh.load_state_dict(torch.load(tmp_path / "net.pt"))
    assert torch.equal(fresh(image), net(image))
    nn.Sequential(matching(2, 2)).load_state_dict(nn.Sequential(net).state_dict())
    with pytest.raises(RuntimeError, match="anchors"):
        matching(2, 3).load_state_dict(net.state_dict())


def test_setting_templates_neither_trains_nor_changes_the_mode() -> None:
    net = matching(2, 1).train()
    net.set_templates(torch.rand(1, 1, 64, 64), torch.tensor([[[20.0, 30.0]]]))
    assert net.training
    assert net.matcher.training
    assert not net.anchors.requires_grad


def refused(net, images, points, names=None) -> str:
    before = net.anchors
    with pytest.raises(LandmarkError) as error:
        net.set_templates(images, points, names)
    assert net.anchors is before
    return str(error.value)


def test_landmark_outside_its_template_is_refused_by_name() -> None:
    net, points = matching(2, 2), torch.tensor([[[20.0, 30.0], [10.0, 48.0]]])
    image = torch.rand(1, 1, 64, 48)
    message = refused(net, image, points, [["sella", "nasion"]])
    assert "template 0 of shape (64, 48) has landmarks outside: 'nasion' at [10.0, 48.0]." in message
    assert "outside: 1 at [10.0, 48.0]." in refused(net, image, points)


def test_templates_that_name_different_landmarks_are_refused() -> None:
    net, points = matching(2, 2), torch.tensor([[[20.0, 30.0], [10.0, 40.0]]]).expand(2, -1, -1)
    images = torch.rand(2, 1, 64, 48)
    message = refused(net, images, points, [["sella", "nasion"], ["sella", "menton"]])
    assert "templates 0 and 1 name different landmarks" in message
    assert "'menton', 'nasion'" in message
    assert "different landmarks" in refused(net, images, points, [["sella", "nasion"], ["nasion", "sella"]])
    assert "different landmarks" in refused(net, images, points, [["sella", "nasion"], ["sella"]])
    assert "2 names for each of 2 templates" in refused(net, images, points, [["sella", "nasion"]])


def test_what_does_not_fit_is_refused() -> None:
    net, points, image = matching(2, 2), torch.tensor([[[20.0, 30.0], [10.0, 40.0]]]), torch.rand(1, 1, 64, 48)
    with pytest.raises(LandmarkError, match="no template: call `set_templates"):
        net(image)
    assert "2 images, 1 sets" in refused(net, image.expand(2, -1, -1, -1), points)
    assert "this network finds 2 landmarks" in refused(net, image, points[:, :1])
    assert "some but not all" in refused(net, image, torch.tensor([[[20.0, NAN], [10.0, 40.0]]]))
    with pytest.raises(ValueError, match="median"):
        matching(2, 2, combine="median")
    with pytest.raises(LandmarkError, match="num_landmarks"):
        matching(2, 0)
