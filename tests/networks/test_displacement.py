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
"""Displacement fields: transport, composition, warping, inversion and folds, against SimpleITK and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.networks.blocks.displacement import (
    Registration,
    affine_displacement,
    carry_points,
    compose_displacements,
    folding,
    folds_at,
    sample_displacement,
    warp,
)

sitk = pytest.importorskip("SimpleITK")

SHAPES = {2: (37, 30), 3: (17, 14, 19)}
MISSING = float("nan")


def voxels(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.stack(torch.meshgrid(*[torch.arange(n, dtype=dtype) for n in shape], indexing="ij"))[None]


def random_affine(dims: int, seed: int, strength: float = 0.5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    linear = torch.eye(dims) + strength * (torch.rand(2, dims, dims, generator=generator) - 0.5)
    return torch.cat([linear, 8 * torch.rand(2, dims, 1, generator=generator) - 4], dim=-1)


def smooth_field(dims: int, seed: int, strength: float = 1.2) -> torch.Tensor:
    """(2, D, *S) sums of a few long waves; no map of them folds."""
    generator = torch.Generator().manual_seed(seed)
    at = voxels(SHAPES[dims]).movedim(1, -1)
    field = torch.zeros(2, *SHAPES[dims], dims)
    for _ in range(3):
        phase, direction = (6 * torch.rand(2, *(1,) * dims, dims, generator=generator) for _ in range(2))
        waves = torch.sin(2 * math.pi * (at * direction / 6).sum(-1, keepdim=True) / 24 + phase)
        field += strength * (torch.rand(dims, generator=generator) - 0.5) * waves
    return field.movedim(-1, 1)


def random_points(dims: int, seed: int, margin: float) -> torch.Tensor:
    size = torch.tensor(SHAPES[dims]) - 1.0 - 2 * margin
    return margin + torch.rand(2, 15, dims, generator=torch.Generator().manual_seed(seed)) * size


def itk_affine(affine: torch.Tensor) -> sitk.Transform:
    """Of one map (D, D + 1): ITK counts axes from the last."""
    exact = affine.double().numpy()
    return sitk.AffineTransform(exact[:, :-1][::-1, ::-1].flatten().tolist(), exact[::-1, -1].tolist())


def itk_field(field: torch.Tensor) -> sitk.Transform:
    vectors = np.ascontiguousarray(field.double().movedim(0, -1).numpy()[..., ::-1])
    return sitk.DisplacementFieldTransform(sitk.GetImageFromArray(vectors, isVector=True))


def through_itk(transform: sitk.Transform, points: torch.Tensor) -> torch.Tensor:
    moved = [transform.TransformPoint(p[::-1])[::-1] for p in points.double().tolist()]
    return torch.tensor(moved, dtype=torch.float64)


def carried_forward(field: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    return (points + sample_displacement(field, points)).double()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_affine_transport_is_that_of_simpleitk_also_off_the_grid(dims: int, seed: int) -> None:
    affine = random_affine(dims, seed)
    field = affine_displacement(affine, SHAPES[dims])
    points = random_points(dims, seed, margin=-5.0)
    expected = torch.stack([through_itk(itk_affine(a), p) for a, p in zip(affine, points, strict=True)])
    assert float((carried_forward(field, points) - expected).abs().max()) < 1e-3
    back, residual = carry_points(field, expected.float())
    inverse = [through_itk(itk_affine(a).GetInverse(), p) for a, p in zip(affine, expected, strict=True)]
    assert float((back - torch.stack(inverse)).abs().max()) < 1e-3
    assert float(residual.max()) < 1e-4


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_field_transport_is_that_of_simpleitk(dims: int, seed: int) -> None:
    field, points = smooth_field(dims, seed), random_points(dims, seed, margin=0.1)
    expected = torch.stack([through_itk(itk_field(f), p) for f, p in zip(field, points, strict=True)])
    assert float((carried_forward(field, points) - expected).abs().max()) < 1e-3


@pytest.mark.parametrize("dims", [2, 3])
def test_an_affine_map_after_a_field_is_simpleitks_composite(dims: int) -> None:
    affine, field, points = random_affine(dims, 5), smooth_field(dims, 6), random_points(dims, 7, margin=3.0)
    whole = affine_displacement(affine, SHAPES[dims], first=field)
    for item in range(2):
        composite = sitk.CompositeTransform([itk_affine(affine[item]), itk_field(field[item])])
        expected = through_itk(composite, points[item])
        assert float((carried_forward(whole, points)[item] - expected).abs().max()) < 1e-3


@pytest.mark.parametrize("dims", [2, 3])
def test_a_warped_image_is_simpleitks_resampled_one(dims: int) -> None:
    shape = SHAPES[dims]
    image = torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(1))
    field = smooth_field(dims, 2)
    at = voxels(shape) + field
    last = torch.tensor(shape).reshape(-1, *(1,) * dims) - 1
    inside = ((at >= 0) & (at <= last)).all(dim=1)
    warped = warp(image, field)[:, 0]
    for item in range(2):
        reference = sitk.GetImageFromArray(image[item, 0].numpy())
        expected = sitk.Resample(reference, itk_field(field[item]), sitk.sitkLinear)
        difference = warped[item] - torch.from_numpy(sitk.GetArrayFromImage(expected))
        assert float(difference[inside[item]].abs().max()) < 1e-4


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_inverse_undoes_the_map(dims: int, seed: int) -> None:
    turned = random_affine(dims, seed, strength=0.2)
    angle = math.radians(80)
    turned[:, :2, :2] = turned[:, :2, :2] @ torch.tensor(
        [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    )
    for field in (smooth_field(dims, seed), affine_displacement(turned, SHAPES[dims], first=smooth_field(dims, seed))):
        assert float(folding(field).max()) == 0
        points = random_points(dims, seed, margin=0.0)
        back, residual = carry_points(field, carried_forward(field, points).float())
        assert float((back - points).norm(dim=-1).max()) < 1e-3
        assert float(residual.max()) < 1e-4


def test_the_released_first_order_inverse_errs_as_said() -> None:
    stretched = affine_displacement(torch.tensor([[[1.2, 0.0, 0.0], [0.0, 1.0, 0.0]]]), (80, 9))
    point = torch.tensor([[[60.0, 4.0]]])
    carried, _ = carry_points(stretched, point)
    torch.testing.assert_close(carried, torch.tensor([[[50.0, 4.0]]]), atol=1e-4, rtol=0)
    assert float((point - sample_displacement(stretched, point) - carried)[0, 0, 0]) == pytest.approx(-2, abs=1e-3)


def test_missing_points_stay_missing_and_do_not_disturb_the_others() -> None:
    field, points = smooth_field(2, 1), random_points(2, 1, margin=2.0)
    holed = points.clone()
    holed[0, 3] = holed[1, :] = MISSING
    (carried, residual), (whole, _) = carry_points(field, holed), carry_points(field, points)
    missing = holed.isnan().any(dim=-1)
    assert carried[missing].isnan().all()
    assert residual[missing].isnan().all()
    assert sample_displacement(field, holed)[missing].isnan().all()
    torch.testing.assert_close(carried[~missing], whole[~missing], atol=1e-5, rtol=0)
    assert not folds_at(field, holed).any()


def test_a_point_that_no_voxel_shows_has_a_large_residual() -> None:
    onto_a_line = affine_displacement(torch.tensor([[[0.0, 0.0, 5.0], [0.0, 1.0, 0.0]]]), (20, 20))
    _, residual = carry_points(onto_a_line, torch.tensor([[[5.0, 3.0], [12.0, 3.0]]]))
    torch.testing.assert_close(residual, torch.tensor([[0.0, 7.0]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_composition_is_one_map_after_the_other(dims: int) -> None:
    first, second = smooth_field(dims, 1), smooth_field(dims, 2)
    start = voxels(SHAPES[dims]).flatten(2).movedim(1, -1).expand(2, -1, -1)
    at = start + sample_displacement(first, start)
    at = at + sample_displacement(second, at)
    composed = compose_displacements(second, first).flatten(2).movedim(1, -1)
    torch.testing.assert_close(start + composed, at, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
def test_affine_fields_compose_like_matrices_up_to_the_border(dims: int) -> None:
    outer, inner = random_affine(dims, 1), random_affine(dims, 2)
    square = [torch.cat([a, torch.eye(dims + 1)[-1:].expand(2, 1, -1)], dim=1) for a in (outer, inner)]
    expected = affine_displacement((square[0] @ square[1])[:, :-1], SHAPES[dims])
    fields = [affine_displacement(a, SHAPES[dims]) for a in (outer, inner)]
    torch.testing.assert_close(compose_displacements(*fields), expected, atol=1e-3, rtol=0)


def test_the_inverse_of_the_affine_map_is_in_the_registration() -> None:
    affine = random_affine(3, 4)
    undone = Registration(affine, [], []).inverse_affine
    for item in range(2):
        inverse = itk_affine(affine[item]).GetInverse()
        points = random_points(3, 1, margin=0.0)[item]
        moved = points @ undone[item, :, :-1].T + undone[item, :, -1]
        torch.testing.assert_close(moved.double(), through_itk(inverse, points), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_a_shift_by_whole_voxels_is_exact(dims: int, mode: str) -> None:
    image = torch.rand(1, 2, *SHAPES[dims])
    shift = torch.zeros(1, dims, *SHAPES[dims])
    shift[:, 0], shift[:, 1] = 2, -3
    expected = torch.zeros_like(image)
    expected[:, :, :-2, 3:] = image[:, :, 2:, :-3]
    torch.testing.assert_close(warp(image, shift, mode), expected, atol=1e-4, rtol=0)


def test_border_and_zeros_beyond_the_image() -> None:
    image, shift = torch.ones(1, 1, 6, 5), torch.full((1, 2, 6, 5), -20.0)
    assert float(warp(image, shift).max()) == 0
    assert float(warp(image, shift, padding="border").min()) == 1


def test_a_grid_of_another_size_and_a_single_slice() -> None:
    assert warp(torch.rand(1, 1, 9, 8), torch.zeros(1, 2, 4, 5)).shape == (1, 1, 4, 5)
    slab = torch.rand(1, 1, 9, 8, 1)
    torch.testing.assert_close(warp(slab, torch.zeros(1, 3, 9, 8, 1)), slab, atol=1e-5, rtol=0)


def test_types_are_kept_and_coordinates_are_not_rounded() -> None:
    labels = torch.randint(0, 9, (1, 1, 30, 30))
    assert torch.equal(warp(labels, torch.zeros(1, 2, 30, 30), "nearest"), labels)
    half = torch.rand(1, 1, 30, 30, dtype=torch.bfloat16)
    torch.testing.assert_close(warp(half, torch.zeros(1, 2, 30, 30)), half, atol=0, rtol=2**-8)
    affine = torch.tensor([[[1.0, 0.001, 0.0], [0.0, 1.0, 0.0]]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        field = affine_displacement(affine, (700, 3))
        twice = compose_displacements(field, field)
        points = torch.tensor([[[601.0, 1.5]]])
        carried, _ = carry_points(twice, points)
    assert field.dtype == twice.dtype == carried.dtype == torch.float32
    torch.testing.assert_close(carried, torch.tensor([[[600.997, 1.5]]]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
def test_gradients(dims: int) -> None:
    generator = torch.Generator().manual_seed(3)
    shape = (4, 5, 3)[:dims]

    def leaf(*size: int, scale: float = 1.0) -> torch.Tensor:
        return (scale * torch.rand(size, generator=generator, dtype=torch.float64)).requires_grad_()

    field, other, image = leaf(1, dims, *shape), leaf(1, dims, *shape, scale=2), leaf(1, 2, *shape)
    affine, points = leaf(1, dims, dims + 1), leaf(1, 3, dims, scale=1.7)
    assert torch.autograd.gradcheck(compose_displacements, (field, other))
    assert torch.autograd.gradcheck(warp, (image, field))
    assert torch.autograd.gradcheck(sample_displacement, (field, points))
    assert torch.autograd.gradcheck(lambda a, f: affine_displacement(a, shape, first=f), (affine, field))


def test_a_missing_point_leaves_no_trace_in_the_gradient() -> None:
    field = torch.zeros(1, 2, 6, 6, requires_grad=True)
    read = sample_displacement(field, torch.tensor([[[2.2, 3.0], [MISSING] * 2]]))
    read.nansum().backward()
    assert field.grad is not None
    assert bool(field.grad.isfinite().all())
    assert float(field.grad.abs().sum()) > 0


@pytest.mark.parametrize("dims", [2, 3])
def test_folds_are_counted_and_located(dims: int) -> None:
    shape = (200, 6, 4)[:dims]
    x = torch.arange(200.0)
    field = torch.zeros(2, dims, *shape)
    # x + a sin(2 pi x / 50) folds where cos(2 pi x / 50) < -50 / (2 pi a)
    strength = 12.0
    field[1, 0] = (strength * torch.sin(2 * math.pi * x / 50)).reshape(-1, *(1,) * (dims - 1))
    share = math.acos(50 / (2 * math.pi * strength)) / math.pi
    counted = folding(field)
    assert float(counted[0]) == 0
    assert float(counted[1]) == pytest.approx(share, abs=2 * 4 / 199)
    first_fold = 25.0  # the middle of the first fold is a fixed point of the map
    points = torch.tensor([[0.5] + [1.0] * (dims - 1), [first_fold] + [1.0] * (dims - 1)]).expand(2, 2, dims)
    assert folds_at(field, points).tolist() == [[False, False], [False, True]]
    _, residual = carry_points(field, points)
    assert float(residual.max()) < 1e-3


def test_a_reflection_folds_everywhere() -> None:
    mirrored = affine_displacement(torch.tensor([[[-1.0, 0.0, 8.0], [0.0, 1.0, 0.0]]]), (9, 9))
    assert float(folding(mirrored)) == 1


def test_meta_tensors_are_taken_as_they_are() -> None:
    image = MetaTensor(torch.rand(1, 1, 6, 6), affine=torch.eye(4))
    assert type(warp(image, torch.zeros(1, 2, 6, 6))) is torch.Tensor


def test_what_does_not_fit_is_refused() -> None:
    field, points = torch.zeros(2, 2, 6, 6), torch.zeros(2, 3, 2)
    with pytest.raises(LandmarkError, match="one channel per axis"):
        folding(torch.zeros(2, 3, 6, 6))
    with pytest.raises(LandmarkError, match="batch of the field"):
        carry_points(field, points[:1])
    with pytest.raises(LandmarkError, match="3D points for a 2D image"):
        carry_points(field, torch.zeros(2, 3, 3))
    with pytest.raises(LandmarkError, match="infinite"):
        carry_points(field, points + math.inf)
    with pytest.raises(LandmarkError, match="batch and dimensions"):
        warp(torch.zeros(1, 1, 6, 6), field)
    with pytest.raises(LandmarkError, match="the last column the shift"):
        affine_displacement(torch.eye(3)[None], (6, 6))
    with pytest.raises(ValueError, match="bilinear"):
        warp(torch.zeros(2, 1, 6, 6), field, mode="linaer")
