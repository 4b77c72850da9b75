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
"""Splines and maps against SimpleITK's own transforms, closed forms and dense search."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_landmarks.geometry import (
    LandmarkError,
    SpatialMap,
    apply_affine,
    bspline_at_points,
    bspline_on_grid,
    control_points,
    largest_safe_displacement,
    resample,
    smooth,
)

CASES = [((64, 50), (5, 6)), ((40, 30, 36), (5, 5, 4))]


def random_map(shape, nodes, strength, batch=1, seed=0, affine=True) -> SpatialMap:
    """Displacements up to ``strength`` of the safe bound, after a turn, shear, scale and shift."""
    generator = torch.Generator().manual_seed(seed)
    dims = len(shape)
    safe = torch.tensor(largest_safe_displacement(shape, nodes), dtype=torch.float64)
    displacement = (torch.rand(batch, *nodes, dims, generator=generator, dtype=torch.float64) * 2 - 1) * safe * strength
    matrix = torch.eye(dims + 1, dtype=torch.float64).repeat(batch, 1, 1)
    if affine:
        matrix[:, :dims, :dims] += 0.2 * (torch.rand(batch, dims, dims, generator=generator, dtype=torch.float64) - 0.5)
        matrix[:, :dims, dims] = 10 * (torch.rand(batch, dims, generator=generator, dtype=torch.float64) - 0.5)
    return SpatialMap(matrix, shape, displacement)


def simple_itk_transform(spatial_map: SpatialMap) -> sitk.CompositeTransform:
    """The same map, from output to input index, built of ITK's B-spline and affine transforms."""
    shape, dims = spatial_map.shape, len(spatial_map.shape)
    coefficients = spatial_map.displacement[0]
    spline = sitk.BSplineTransform(dims, 3)
    spline.SetTransformDomainOrigin([-0.5] * dims)
    spline.SetTransformDomainPhysicalDimensions([float(s) for s in shape])
    spline.SetTransformDomainMeshSize([n - 3 for n in coefficients.shape[:-1]])
    values = [coefficients[..., d].permute(*reversed(range(dims))).reshape(-1).numpy() for d in range(dims)]
    spline.SetParameters(np.concatenate(values).tolist())
    matrix = spatial_map.matrix[0]
    affine = sitk.AffineTransform(dims)
    affine.SetMatrix(matrix[:dims, :dims].reshape(-1).tolist())
    affine.SetTranslation(matrix[:dims, dims].tolist())
    return sitk.CompositeTransform([affine, spline])  # ITK applies the last one first


def points_in(shape, number=200, seed=1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, number, len(shape), generator=generator, dtype=torch.float64) * torch.tensor(shape) - 0.5


@pytest.mark.parametrize(("shape", "nodes"), CASES)
def test_points_go_where_simple_itk_sends_them(shape, nodes):
    spatial_map = random_map(shape, nodes, 0.9)
    transform, points = simple_itk_transform(spatial_map), points_in(shape)
    expected = np.array([transform.TransformPoint(p) for p in points[0].tolist()])
    np.testing.assert_allclose(spatial_map.to_input(points)[0].numpy(), expected, atol=1e-10)
    seen, residual = spatial_map.invert(torch.as_tensor(expected)[None])
    torch.testing.assert_close(seen, points, atol=1e-9, rtol=0)
    assert residual.max() < 1e-9


@pytest.mark.parametrize(("shape", "nodes"), CASES)
@pytest.mark.parametrize(("mode", "interpolator"), [("linear", sitk.sitkLinear), ("nearest", sitk.sitkNearestNeighbor)])
def test_images_are_read_as_simple_itk_reads_them(shape, nodes, mode, interpolator):
    spatial_map = random_map(shape, nodes, 0.9, affine=False)
    image = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(2))
    got = resample(image, spatial_map, mode)[0, 0].numpy()
    itk_image = sitk.GetImageFromArray(image[0, 0].numpy().transpose().copy())
    read = sitk.Resample(itk_image, itk_image, simple_itk_transform(spatial_map), interpolator, float("nan"))
    expected = sitk.GetArrayFromImage(read).transpose()
    known = ~np.isnan(expected)
    inner = spatial_map.sampling_grid()[0].numpy()
    inside = known & ((inner >= 0) & (inner <= np.array(shape) - 1)).all(axis=-1)
    assert inside.mean() > 0.6
    wrong = np.abs(got - expected)[inside] > 2e-4
    assert wrong.mean() <= (0.0 if mode == "linear" else 1e-4)  # nearest may differ where a position is a tie


@pytest.mark.parametrize(("shape", "nodes"), CASES)
def test_every_voxel_of_the_grid_is_the_exact_point(shape, nodes):
    spatial_map = random_map(shape, nodes, 0.9)
    grid = spatial_map.sampling_grid(dtype=torch.float64)[0]
    index = torch.stack(torch.meshgrid(*[torch.arange(float(s)) for s in shape], indexing="ij"), dim=-1).double()
    exact = spatial_map.to_input(index.reshape(1, -1, len(shape))).reshape(grid.shape)
    torch.testing.assert_close(grid, exact, atol=1e-9, rtol=0)
    normalised = spatial_map.sampling_grid(shape, torch.float64)[0]
    torch.testing.assert_close(normalised, ((2 * grid + 1) / torch.tensor(shape) - 1).flip(-1), atol=1e-9, rtol=0)


@pytest.mark.parametrize(("shape", "nodes"), CASES)
@pytest.mark.parametrize("order", [1, 3])
def test_linear_fields_are_reproduced_with_their_slope(shape, nodes, order):
    node = control_points(shape, nodes, order)
    coefficients = (node @ torch.arange(1.0, len(shape) + 1, dtype=torch.float64) + 0.5)[None, ..., None]
    points = points_in(shape)
    value, slope = bspline_at_points(coefficients, points, shape, order)
    steps = torch.arange(1.0, len(shape) + 1, dtype=torch.float64)
    torch.testing.assert_close(value[..., 0], points @ steps + 0.5)
    torch.testing.assert_close(slope[:, :, 0], steps.expand(1, points.shape[1], -1))


def test_slopes_are_the_derivative():
    spatial_map = random_map((40, 30, 36), (5, 5, 4), 0.9)
    points = points_in((40, 30, 36), 20).requires_grad_()
    value, slope = bspline_at_points(spatial_map.displacement, points, (40, 30, 36))
    for axis in range(3):
        (gradient,) = torch.autograd.grad(value[..., axis].sum(), points, retain_graph=True)
        torch.testing.assert_close(slope[:, :, axis], gradient)


def test_slopes_on_a_lattice_are_those_at_its_points():
    spatial_map = random_map((12, 10), (5, 4), 0.9)
    for axis in range(2):
        lattice = bspline_on_grid(spatial_map.displacement, (12, 10), slope_axis=axis)
        _, slope = bspline_at_points(spatial_map.displacement, torch.tensor([[[3.0, 7.0]]]).double(), (12, 10))
        torch.testing.assert_close(lattice[0, 3, 7], slope[0, 0, :, axis])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), strength=st.floats(0.0, 1.0), three=st.booleans())
def test_ten_thousand_maps_are_inverted_exactly(seed, strength, three):
    """200 maps an example, up to the strongest that surely do not fold; points in, on and beyond the border."""
    shape, nodes = ((48, 40, 32), (5, 6, 4)) if three else ((64, 50), (7, 5))
    spatial_map = random_map(shape, nodes, 0.999 * strength, batch=200, seed=seed)
    assert not spatial_map.folds().any()
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.rand(200, 6, len(shape), generator=generator, dtype=torch.float64) * 1.6 - 0.3
    wanted = wanted * torch.tensor(shape)
    seen, residual = spatial_map.invert(wanted)
    assert residual.max() <= 1e-3
    # an independent measure: the map evaluated on the dense grid, interpolated linearly, leads back to the point
    assert torch.linalg.vector_norm(spatial_map.to_input(seen) - wanted, dim=-1).max() <= 1e-3


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), three=st.booleans())
def test_maps_below_the_safe_bound_do_not_fold(seed, three):
    """Local volumes on a lattice finer than any cell, computed by finite differences of the dense grid."""
    shape, nodes = ((36, 30, 24), (6, 5, 4)) if three else ((60, 44), (8, 6))
    generator = torch.Generator().manual_seed(seed)
    dims = len(shape)
    safe = torch.tensor(largest_safe_displacement(shape, nodes), dtype=torch.float64)
    corner = torch.randint(0, 2, (1, *nodes, dims), generator=generator) * 2.0 - 1
    grid = SpatialMap(torch.eye(dims + 1).double()[None], shape, corner * safe * 0.999).sampling_grid(
        dtype=torch.float64
    )
    inner = (slice(None),) + (slice(0, -1),) * dims
    steps = torch.stack(
        [
            grid.diff(dim=axis + 1)[
                (slice(None), *tuple(slice(None) if a == axis else slice(0, -1) for a in range(dims)))
            ]
            for axis in range(dims)
        ],
        dim=-1,
    )
    assert steps.shape[1:-2] == grid[inner].shape[1:-1]
    assert torch.linalg.det(steps).min() > 0


def test_a_fold_is_seen_and_a_point_in_it_refused():
    shape, nodes = (60, 60), (7, 7)
    displacement = torch.zeros(1, *nodes, 2, dtype=torch.float64)
    displacement[0, 3, 3, 0] = 60.0
    folded = SpatialMap(torch.eye(3).double()[None], shape, displacement)
    assert folded.folds().tolist() == [True]
    assert SpatialMap(folded.matrix, shape, displacement / 10).folds().tolist() == [False]


def test_missing_points_stay_missing_and_types_are_kept():
    spatial_map = random_map((20, 20), (5, 5), 0.5)
    points = torch.tensor([[[float("nan")] * 2, [3.0, 4.0]]])
    seen = spatial_map.to_output(points)
    assert seen.dtype == torch.float32
    assert seen[0, 0].isnan().all()
    assert torch.isfinite(seen[0, 1]).all()
    assert spatial_map.to_output(points[:, :1]).isnan().all()
    assert spatial_map.to_output(points[:, :0]).shape == (1, 0, 2)


@pytest.mark.parametrize("shape", [(20, 24), (11, 12, 13)])
def test_cubic_reproduces_parabolas(shape):
    """Keys 1981: with a = -1/2 the interpolation is exact for polynomials of degree two."""
    index = torch.stack(torch.meshgrid(*[torch.arange(float(s)) for s in shape], indexing="ij"), dim=-1).double()

    def polynomial(x: torch.Tensor) -> torch.Tensor:
        return (0.3 * x**2 - x).sum(dim=-1) + 0.1 * x[..., 0] * x[..., 1] + 2

    spatial_map = random_map(shape, (5,) * len(shape), 0.3, seed=3)
    read = resample(polynomial(index)[None, None], spatial_map, "cubic", "border")[0, 0]
    grid = spatial_map.sampling_grid(dtype=torch.float64)[0]
    inside = ((grid > 1) & (grid < torch.tensor(shape) - 2)).all(dim=-1)
    assert inside.sum() > 50
    torch.testing.assert_close(read[inside], polynomial(grid)[inside], atol=2e-4, rtol=0)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_cubic_beyond_the_border_is_torchs(padding, monkeypatch):
    """With torch's parameter the two-dimensional case is torch's own bicubic, borders included."""
    from monai_landmarks.geometry import resample as module_function

    monkeypatch.setitem(module_function.__globals__, "KEYS", -0.75)
    image = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    matrix = torch.tensor([[[1.1, 0.2, -1], [-0.1, 0.9, 2], [0, 0, 1]]], dtype=torch.float64)
    spatial_map = SpatialMap(matrix, (18, 30))
    grid = spatial_map.sampling_grid((20, 24)).expand(2, -1, -1, -1)
    expected = torch.nn.functional.grid_sample(image, grid, "bicubic", padding, align_corners=False)
    torch.testing.assert_close(resample(image, spatial_map, "cubic", padding), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("shape", [(9, 1), (5, 1, 7)])
def test_one_voxel_thin_images_are_read(mode, shape):
    image = torch.rand(1, 1, *shape)
    identity = SpatialMap(torch.eye(len(shape) + 1).double()[None], shape)
    torch.testing.assert_close(resample(image, identity, mode), image, atol=1e-6, rtol=0)


def test_fill_is_shown_beyond_the_image_and_labels_keep_their_type():
    labels = torch.full((1, 1, 4, 4), 7, dtype=torch.uint8)
    shift = torch.eye(3, dtype=torch.float64)[None].clone()
    shift[0, 0, 2] = 2.0
    read = resample(labels, SpatialMap(shift, (4, 4)), "nearest", fill=3)
    assert read.dtype == torch.uint8
    assert read[0, 0, :, 0].tolist() == [7, 7, 3, 3]
    assert resample(labels.float() - 8, SpatialMap(shift, (4, 4)), fill=-1.0)[0, 0, 3, 3] == -1


def test_smoothing_is_scipys():
    from scipy.ndimage import gaussian_filter

    image = torch.rand(1, 1, 30, 25, 12, dtype=torch.float64)
    expected = gaussian_filter(image[0, 0].numpy(), (1.5, 0, 0.8), mode="nearest", truncate=4.0)
    np.testing.assert_allclose(smooth(image, (1.5, 0.0, 0.8))[0, 0].numpy(), expected, atol=2e-4)


def test_then_puts_an_affine_behind():
    spatial_map = random_map((20, 20), (5, 5), 0.5)
    half = torch.diag(torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64))[None]
    points = points_in((20, 20), 5)
    torch.testing.assert_close(
        spatial_map.then(half).to_input(points), apply_affine(spatial_map.to_input(points), half)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpatialMap(torch.zeros(1, 3, 3).double(), (8, 8)), "singular"),
        (lambda: SpatialMap(torch.full((1, 3, 3), float("nan")).double(), (8, 8)), "not finite"),
        (lambda: SpatialMap(torch.eye(4).double()[None], (8, 8)), "2D map needs"),
        (lambda: SpatialMap(torch.eye(3).double()[None], (8, 8), torch.zeros(1, 5, 5, 3)), "displacement must be"),
        (lambda: control_points((8, 8), (3, 5)), "at least 4 control points"),
        (lambda: control_points((8, 8), (5, 5), order=2), "order 1 or 3"),
        (
            lambda: resample(torch.zeros(1, 1, 8, 8, 8), SpatialMap(torch.eye(3).double()[None], (8, 8))),
            "2D map cannot",
        ),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(LandmarkError, match=message):
        make()
