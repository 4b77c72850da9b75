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

import numpy as np
import pytest
import torch
from monai.losses import SSIMLoss
from scipy import ndimage

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.losses.edge_ssim import EdgeSSIMLoss, sobel_gradients, structural_similarity

NAN = float("nan")
SHAPES = [(23, 30), (15, 12, 17)]


def images(shape, batch=2, channels=1, seed=0, dtype=torch.float64):
    """Smooth random pairs in 0 to 1."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.random((2, batch, channels, *shape)), (0, 0, 0, *(1.5,) * len(shape)))
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    return torch.as_tensor(noise, dtype=dtype).unbind(0)


@pytest.mark.parametrize("shape", SHAPES)
def test_sobel_is_scipys_for_every_image_of_a_batch(shape) -> None:
    image = images(shape, channels=2)[0]
    found = sobel_gradients(image)
    for b, c, axis in np.ndindex(2, 2, len(shape)):
        expected = ndimage.sobel(image[b, c].numpy(), axis, mode="nearest") / (2 * 4 ** (len(shape) - 1))
        torch.testing.assert_close(found[b, c, axis], torch.as_tensor(expected), rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_ssim_is_that_of_scikit_image_where_the_window_is_inside(shape) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    x, y = images(shape)
    found = structural_similarity(x, y, data_range=0.8)
    options = {"gaussian_weights": True, "use_sample_covariance": False, "data_range": 0.8, "full": True}
    inner = (slice(5, -5),) * len(shape)
    for b in range(2):
        _, expected = metrics.structural_similarity(x[b, 0].numpy(), y[b, 0].numpy(), **options)
        torch.testing.assert_close(found[b, 0][inner], torch.as_tensor(expected)[inner], rtol=0, atol=1e-12)


def test_loss_of_images_is_monais_where_its_window_is_inside() -> None:
    x, y = images((31, 28), dtype=torch.float32)
    mask = torch.zeros(2, 1, 31, 28)
    mask[..., 5:-5, 5:-5] = 1
    inner = structural_similarity(x, y)[..., 5:-5, 5:-5]
    torch.testing.assert_close(1 - inner.mean(), SSIMLoss(2)(x, y), rtol=0, atol=1e-5)
    assert EdgeSSIMLoss(2)(x, y).item() == pytest.approx(1 - structural_similarity(x, y).mean().item(), abs=1e-6)


def slow_ssim(x, y, mask, at, window=11, sigma=1.5):
    """From the definition: weights of the voxels in the mask, added up to 1."""
    grid = np.stack(np.indices(x.shape), axis=-1) - np.array(at)
    weight = np.exp(-0.5 * (grid**2).sum(-1) / sigma**2) * mask * (abs(grid) <= window // 2).all(-1)
    weight /= weight.sum()
    mx, my = (weight * x).sum(), (weight * y).sum()
    vx, vy, xy = ((weight * a).sum() for a in ((x - mx) ** 2, (y - my) ** 2, (x - mx) * (y - my)))
    return (2 * mx * my + 1e-4) * (2 * xy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))


@pytest.mark.parametrize("shape", SHAPES)
def test_ssim_of_a_mask_is_that_of_the_definition_also_at_borders(shape) -> None:
    x, y = images(shape, batch=1)
    mask = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0)) > 0.4
    found = structural_similarity(x, y, mask)[0, 0]
    for at in [tuple(one) for one in mask[0, 0].nonzero()[::97].tolist()]:
        expected = slow_ssim(x[0, 0].numpy(), y[0, 0].numpy(), mask[0, 0].numpy(), at)
        assert found[at].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("junk", [7.5, NAN])
def test_voxels_from_outside_the_source_count_nothing_in_value_and_gradient(shape, junk) -> None:
    warped, target = images(shape, dtype=torch.float32)
    points = torch.rand(2, 3, len(shape)) * torch.tensor(shape)
    mask = torch.ones(2, 1, *shape)
    mask[:, :, :4], mask[:, :, 4] = 0, 0.7  # the rim of an interpolated mask is mixed with the padding
    loss = EdgeSSIMLoss(len(shape))
    values = []
    for filling in (0.0, junk):
        filled = torch.where(mask == 1, warped, filling).requires_grad_()
        value = loss(filled, target, points, mask)
        value.backward()
        values.append(value.item())
        assert filled.grad.isfinite().all()
        assert not filled.grad[mask < 1].any()
        assert filled.grad.any()
    assert values[0] == pytest.approx(values[1], abs=1e-7)


def test_edges_are_weighted_by_equation_14() -> None:
    x, y = images((23, 30), batch=1)
    points = torch.tensor([[[6.3, 8.1], [NAN, NAN], [17.0, 30.4]]], dtype=torch.float64)
    loss = EdgeSSIMLoss(2, edge_weight=0.5, sigma=3.0)
    edges = []
    for image in (x, y):
        maps = [ndimage.sobel(image[0, 0].numpy(), axis, mode="nearest") for axis in (0, 1)]
        edges.append([(one - one.min()) / (one.max() - one.min()) for one in maps])
    everywhere = np.ones((23, 30))
    total = weights = 0.0
    for u in np.ndindex(23, 30):
        near = sum(np.exp(-((np.array(u) - p) ** 2).sum() / 18) for p in points[0, [0, 2]].numpy()) / 2
        similar = np.mean([slow_ssim(*pair, everywhere, u) for pair in zip(*edges, strict=True)])
        total, weights = total + near * (1 - similar), weights + near
    expected = loss(x, y).item() + 0.5 * total / weights
    assert loss(x, y, points).item() == pytest.approx(expected, abs=1e-10)


def test_edges_do_not_depend_on_contrast_and_points_are_constants() -> None:
    x, y = images((23, 30))
    points = torch.tensor([[[6.3, 8.1]], [[12.0, 20.0]]], dtype=torch.float64, requires_grad=True)

    def edge_term(a, b):
        return EdgeSSIMLoss(2)(a, b, points) - EdgeSSIMLoss(2)(a, b)

    torch.testing.assert_close(edge_term(0.3 * x + 0.2, y), edge_term(x, y), rtol=0, atol=1e-12)
    loss = EdgeSSIMLoss(2)(x.requires_grad_(), y, points)
    loss.backward()
    assert points.grad is None
    assert x.grad.any()


def test_constant_images_and_equal_ones_have_closed_forms() -> None:
    a, b = torch.full((1, 1, 14, 9), 0.2, dtype=torch.float64), torch.full((1, 1, 14, 9), 0.7, dtype=torch.float64)
    luminance = (2 * 0.2 * 0.7 + 1e-4) / (0.2**2 + 0.7**2 + 1e-4)
    assert EdgeSSIMLoss(2)(a, b).item() == pytest.approx(1 - luminance, abs=1e-12)
    points = torch.tensor([[[4.0, 4.0]]])
    assert EdgeSSIMLoss(2)(a, b, points).item() == pytest.approx(1 - luminance, abs=1e-12)  # no edges in either
    x = images((23, 30))[0]
    assert EdgeSSIMLoss(2)(x, x, points.expand(2, 1, 2)).item() == pytest.approx(0, abs=1e-12)


def test_intensity_range_is_brought_to_0_to_1() -> None:
    x, y = images((23, 30))
    points = torch.tensor([[[6.3, 8.1]], [[12.0, 20.0]]])
    expected = EdgeSSIMLoss(2)(x, y, points)
    torch.testing.assert_close(EdgeSSIMLoss(2, intensity_range=(-1, 1))(2 * x - 1, 2 * y - 1, points), expected)


@pytest.mark.parametrize("shape", [(9, 8), (6, 5, 7)])
def test_gradients_are_right(shape) -> None:
    x, y = images(shape)
    points = torch.rand(2, 2, len(shape), generator=torch.Generator().manual_seed(0)) * 5
    mask = torch.ones(2, 1, *shape)
    mask[:, :, 0] = 0
    loss = EdgeSSIMLoss(len(shape), window=5)
    inputs = (x.requires_grad_(), y.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, points, mask), inputs, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_compare_in_float32(dtype) -> None:
    x, y = (image.to(dtype) for image in images((23, 30), dtype=torch.float32))
    points = torch.tensor([[[6.3, 8.1]], [[12.0, 20.0]]])
    expected = EdgeSSIMLoss(2)(x.float(), y.float(), points)
    with torch.autocast("cpu", dtype=dtype):
        found = EdgeSSIMLoss(2)(x, y, points)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_pair_without_overlap_is_no_way_to_a_low_loss() -> None:
    _, target = images((23, 30))
    away = torch.zeros_like(target)
    nothing = EdgeSSIMLoss(2)(away, target, mask=torch.zeros(2, 1, 23, 30))
    assert nothing > 0.5
    assert nothing == EdgeSSIMLoss(2)(away, target)


def test_landmarks_that_are_missing_or_far_outside_leave_the_images_alone() -> None:
    x, y = images((23, 30))
    for point in ([NAN, NAN], [1e6, 4.0]):
        points = torch.tensor(point).expand(2, 4, 2)
        assert EdgeSSIMLoss(2)(x, y, points) == EdgeSSIMLoss(2)(x, y)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"window": 10}, "odd"),
        ({"sigma": 0}, "above 0"),
        ({"edge_weight": -1}, "negative"),
        ({"intensity_range": (1, 1)}, "least to the largest"),
    ],
)
def test_options_without_meaning_are_refused(options, hint) -> None:
    with pytest.raises(ValueError, match=hint):
        EdgeSSIMLoss(2, **options)


def test_shapes_that_do_not_fit_are_refused() -> None:
    x = torch.zeros(2, 1, 9, 8)
    for arguments, hint in [
        ((x, x[..., 1:]), "share one grid"),
        ((x[..., None], x[..., None]), "2 spatial axes"),
        ((x, x, None, x[:1]), "mask must be"),
        ((x, x, torch.zeros(1, 3, 2)), "with the batch"),
        ((x, x, torch.zeros(2, 3, 3)), "2"),
    ]:
        with pytest.raises(LandmarkError, match=hint):
            EdgeSSIMLoss(2)(*arguments)
