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

from functools import partial

import numpy as np
import pytest
import torch

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.losses.edge_ssim import EdgeSSIMLoss
from monai_landmarks.losses.registration import (
    EdgeAwareSmoothnessLoss,
    GlobalL1Loss,
    InverseConsistencyLoss,
    SyntheticPairLoss,
    shown_by,
)

NAN = float("nan")
SHAPES = [(9, 12), (7, 8, 5)]


def voxels(shape):
    return torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij"))


def affine_field(matrix, offset, shape, batch=2):
    """Displacement of x -> matrix (x - centre) + centre + offset."""
    x = voxels(shape)
    centre = (torch.tensor(shape, dtype=torch.float64) - 1).reshape(-1, *(1,) * len(shape)) / 2
    moved = torch.einsum("ij,j...->i...", matrix, x - centre) + centre
    moved = moved + torch.as_tensor(offset, dtype=torch.float64).reshape(centre.shape)
    return (moved - x).expand(batch, *x.shape).clone()


def small_affine(dims, size=0.08):
    generator = torch.Generator().manual_seed(dims)
    return torch.eye(dims, dtype=torch.float64) + size * torch.randn(dims, dims, generator=generator).double()


def random_field(shape, batch=2, seed=0):
    return torch.randn(batch, len(shape), *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_smoothness_of_a_linear_displacement_is_the_norm_of_its_matrix(shape) -> None:
    matrix = small_affine(len(shape))
    gradient = matrix - torch.eye(len(shape), dtype=torch.float64)
    phi = affine_field(matrix, [3.0] * len(shape), shape)
    image = torch.rand(2, 2, *shape)  # the gradient is the same everywhere, so weights change nothing
    for loss in (EdgeAwareSmoothnessLoss(len(shape)), EdgeAwareSmoothnessLoss(len(shape), temperature=None)):
        torch.testing.assert_close(loss(phi, image), gradient.square().sum())


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_smoothness_is_equation_16_of_a_slow_loop(shape, squared) -> None:
    from scipy import ndimage

    phi, image = random_field(shape, 1), torch.rand(1, 1, *shape, dtype=torch.float64)
    found = EdgeAwareSmoothnessLoss(len(shape), temperature=0.2, squared=squared)(phi, image)
    edges = [ndimage.sobel(image[0, 0].numpy(), axis, mode="nearest") for axis in range(len(shape))]
    square = np.square(edges).sum(0) / (2 * 4 ** (len(shape) - 1)) ** 2
    weight = np.exp(-(square if squared else np.sqrt(square)) / 0.2)
    expected = 0.0
    for axis in range(len(shape)):
        total = weights = 0.0
        for u in np.ndindex(*shape):
            if u[axis] + 1 < shape[axis]:
                v = tuple(i + (a == axis) for a, i in enumerate(u))
                both = (weight[u] + weight[v]) / 2
                difference = phi[(0, slice(None), *v)] - phi[(0, slice(None), *u)]
                total, weights = total + both * difference.square().sum().item(), weights + both
        expected += total / weights
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_smoothness_is_relaxed_on_an_edge_and_not_on_the_rim_of_the_mask() -> None:
    phi = torch.zeros(1, 2, 16, 10, dtype=torch.float64)
    phi[:, :, 8:] = 1.0  # a jump
    image = torch.zeros(1, 1, 16, 10, dtype=torch.float64)
    image[:, :, 8:] = 1.0
    flat, loss = torch.full_like(image, 0.3), EdgeAwareSmoothnessLoss(2)
    assert loss(phi, image) < 0.5 * loss(phi, flat)
    mask = (image == 1).double()  # the film begins where the jump is: no edge of anatomy
    torch.testing.assert_close(loss(phi, image, mask), loss(phi, flat))


def test_smoothness_sees_a_field_that_alternates_where_central_differences_do_not() -> None:
    phi = ((voxels((9, 12)).sum(0) % 2) * 2 - 1).expand(1, 2, 9, 12)
    assert (phi[:, :, 2:] == phi[:, :, :-2]).all()
    assert EdgeAwareSmoothnessLoss(2)(phi, torch.zeros(1, 1, 9, 12)).item() == pytest.approx(2 * 2 * 4)


def test_smoothness_has_no_gradient_to_the_image() -> None:
    image = torch.rand(2, 1, 9, 12, requires_grad=True)
    EdgeAwareSmoothnessLoss(2)(random_field((9, 12)).requires_grad_(), image).backward()
    assert image.grad is None


@pytest.mark.parametrize("shape", SHAPES)
def test_an_affine_and_its_inverse_are_consistent_and_others_by_as_much_as_they_miss(shape) -> None:
    dims = len(shape)
    matrix = small_affine(dims)
    there = affine_field(matrix, [0.0] * dims, shape)
    back = affine_field(torch.linalg.inv(matrix), [0.0] * dims, shape)
    loss = InverseConsistencyLoss()
    assert loss(there, back).item() < 1e-20
    missed = back + 0.3  # forward of what is 0.3 away: matrix @ 0.3, everywhere
    expected = (matrix @ torch.full((dims,), 0.3, dtype=torch.float64)).square().sum()
    torch.testing.assert_close(loss(there, missed), expected)


def test_voxels_that_leave_the_grid_say_nothing_of_the_inverse() -> None:
    there, back = torch.zeros(1, 2, 9, 12), torch.zeros(1, 2, 9, 12)
    back[:, 0, :2] = -50.0
    assert InverseConsistencyLoss()(there, back).item() == 0
    back[:, 1, 4, 4] = 1.0
    mask = torch.ones(1, 1, 9, 12)
    assert InverseConsistencyLoss()(there, back, mask=mask).item() == pytest.approx(1 / (7 * 12))
    mask[..., 4, 4] = 0
    assert InverseConsistencyLoss()(there, back, mask=mask).item() == 0


def test_released_form_warps_the_target_back_by_the_negated_flow() -> None:
    source = torch.rand(1, 1, 20, 24)
    phi = torch.zeros(1, 2, 20, 24)
    phi[:, 1] = 3.0
    target = torch.zeros_like(source)
    target[..., :-3] = source[..., 3:]  # target(x) = source(x + 3)
    loss = InverseConsistencyLoss("negated")
    points = torch.tensor([[[9.0, 11.0]]])
    assert loss(phi, source=source, target=target, points=points).item() == pytest.approx(0, abs=1e-5)
    assert loss(-phi, source=source, target=target).item() > 0.3
    mask = torch.ones_like(source)
    mask[:, :, :5] = 0
    shown = torch.ones_like(source)
    shown[..., :3] = 0
    expected = EdgeSSIMLoss(2)(torch.roll(target, 3, -1), source[:], points, shown * mask)
    torch.testing.assert_close(loss(phi, None, source, target, points, mask), expected, rtol=0, atol=1e-5)


def test_synthetic_pairs_are_compared_in_voxels_or_in_halves_of_the_grid() -> None:
    true, mask = torch.zeros(1, 2, 21, 11), torch.ones(1, 1, 21, 11)
    error = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1)
    mask[:, :, :9] = 0
    predicted = torch.where(mask == 1, true + error, 1e3)
    assert SyntheticPairLoss()(predicted, true, mask).item() == 25
    normalised = (3 / 10) ** 2 / 2 + (4 / 5) ** 2 / 2  # 1 is from the centre to the border
    assert SyntheticPairLoss(normalised=True)(predicted, true, mask).item() == pytest.approx(normalised)
    true[:, :, :9] = NAN  # where nothing is known
    loss = SyntheticPairLoss()(predicted.requires_grad_(), true, mask)
    loss.backward()
    assert loss.item() == 25
    assert predicted.grad[:, :, 9:].all()
    assert not predicted.grad[:, :, :9].any()
    assert SyntheticPairLoss()(predicted, true, mask * 0).item() == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_global_l1_is_the_mean_over_the_voxels_that_count(shape) -> None:
    warped, target, mask = torch.rand(3, 2, 1, *shape, dtype=torch.float64)
    mask = (mask > 0.5).double()
    expected = (warped - target).abs()[mask == 1].mean()
    warped = torch.where(mask == 1, warped, NAN).requires_grad_()
    found = GlobalL1Loss(len(shape))(warped, target, mask)
    found.backward()
    torch.testing.assert_close(found, expected)
    assert not warped.grad[mask == 0].any()
    loss = GlobalL1Loss(len(shape), intensity_range=(-1, 1))
    torch.testing.assert_close(loss(2 * warped - 1, 2 * target - 1, mask), expected)
    assert (
        loss(-torch.ones_like(target), torch.ones_like(target), mask=mask * 0).item() == 1
    )  # no overlap: compared whole


@pytest.mark.parametrize("shape", SHAPES)
def test_shown_by_is_the_voxels_whose_source_is_inside(shape) -> None:
    field = random_field(shape, 1) * 4
    at = voxels(shape) + field[0]
    last = torch.tensor(shape).reshape(-1, *(1,) * len(shape)) - 1
    torch.testing.assert_close(shown_by(field)[0, 0], ((at >= 0) & (at <= last)).all(dim=0))
    identity, mask = torch.zeros_like(field), torch.rand(1, 1, *shape) > 0.5
    torch.testing.assert_close(shown_by(identity, mask), mask)


@pytest.mark.parametrize("shape", [(5, 6), (4, 3, 4)])
def test_gradients_are_right(shape) -> None:
    phi, other = (0.3 * random_field(shape, seed=seed) for seed in (0, 1))
    mask = torch.ones(2, 1, *shape)
    mask[:, :, 0] = 0
    dims, image = len(shape), torch.rand(2, 1, *shape, dtype=torch.float64)
    phi.requires_grad_(), other.requires_grad_()
    check = partial(torch.autograd.gradcheck, fast_mode=True)
    assert check(lambda a: EdgeAwareSmoothnessLoss(dims)(a, image, mask), (phi,))
    assert check(lambda a, b: InverseConsistencyLoss()(a, b, mask=mask), (phi, other))
    assert check(lambda a, b: SyntheticPairLoss()(a, b, mask), (phi, other))
    assert check(lambda a, b: GlobalL1Loss(dims)(a, b, mask), (phi, other))
    negated = InverseConsistencyLoss("negated", EdgeSSIMLoss(dims, window=3))
    assert check(lambda a: negated(a, source=image, target=image.flip(-1)), (phi,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_compares_in_float32(dtype) -> None:
    a, b = (random_field((9, 12), seed=seed).to(dtype) for seed in (0, 1))
    image = torch.rand(2, 1, 9, 12)
    with torch.autocast("cpu", dtype=dtype):
        pairs = [
            (loss(a, second), loss(a.float(), second.float()))
            for loss, second in [
                (EdgeAwareSmoothnessLoss(2), image.to(dtype)),
                (InverseConsistencyLoss(), b),
                (SyntheticPairLoss(), b),
                (GlobalL1Loss(2), b),
            ]
        ]
    for found, expected in pairs:
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_bad_input_is_refused() -> None:
    field, image = torch.zeros(1, 2, 9, 8), torch.zeros(1, 1, 9, 8)
    for call, hint in [
        (lambda: EdgeAwareSmoothnessLoss(2)(field[:, :1], image), "displacement field"),
        (lambda: EdgeAwareSmoothnessLoss(3)(field, image), "D = 3"),
        (lambda: EdgeAwareSmoothnessLoss(2)(field, image[..., 1:]), "grid of the field"),
        (lambda: InverseConsistencyLoss()(field), "the other way round"),
        (lambda: InverseConsistencyLoss()(field, field[..., 1:]), "share one grid"),
        (lambda: InverseConsistencyLoss("negated")(field, field), "compares images"),
        (lambda: SyntheticPairLoss()(field, field[:, :1]), "share one grid"),
        (lambda: GlobalL1Loss(2)(image, image, image[..., 1:]), "mask must be"),
    ]:
        with pytest.raises(LandmarkError, match=hint):
            call()
    for build in (lambda: EdgeAwareSmoothnessLoss(2, temperature=0), lambda: InverseConsistencyLoss("negatd")):
        with pytest.raises(ValueError, match=r"temperature|negat"):
            build()


def test_inverse_consistency_is_the_same_on_every_grid_when_normalised() -> None:
    """A shift of a tenth of the side, undone by half: in halves of the sides it is 0.1 on any grid."""
    values = []
    for size in (11, 21):
        shift = torch.zeros(1, 2, size, size)
        shift[:, 0] = 0.1 * (size - 1)
        values.append(InverseConsistencyLoss(normalised=True)(shift, -shift / 2).item())
    assert values == pytest.approx([0.1**2 / 2] * 2)
