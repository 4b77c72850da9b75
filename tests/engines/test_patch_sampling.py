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
"""The task of patch matching: points carried exactly, where patches and points lie, what is done to the patch only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import ScaleIntensity, ScaleIntensityFixedMean
from scipy import ndimage, stats

from monai_landmarks.engines.patch_sampling import PreparePatchMatchingBatch, draw_points, jitter_colors, place_patches
from monai_landmarks.geometry import LandmarkError, SpatialMap, inside

PLAIN: dict[str, Any] = {"rotate_range": 0.0, "brightness": 0.0, "contrast": 0.0}


def prepared(images: torch.Tensor, seed: int = 0, **options: Any) -> tuple[torch.Tensor, ...]:
    """``image, points, patch, patch_points``."""
    prepare = PreparePatchMatchingBatch(**options)
    prepare.set_random_state(seed)
    image, points, (patch, patch_points), kwargs = prepare({"image": images})
    assert kwargs == {}
    return image, points, patch, patch_points


def blobs(points: torch.Tensor, shape: tuple[int, ...], sigma: float) -> torch.Tensor:
    """One Gaussian in each image, ``points`` ``(B, 1, D)``."""
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    squares = [sum((axis - c) ** 2 for axis, c in zip(axes, p[0].tolist(), strict=True)) for p in points.double()]
    return torch.from_numpy(np.exp(-np.stack(squares) / (2 * sigma**2)))[:, None]


def centroids(patch: torch.Tensor) -> torch.Tensor:
    return torch.tensor([[ndimage.center_of_mass(p[0].double().numpy())] for p in patch])


# --- the point ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "patch_size", "sizes"),
    [
        ((70, 61), (48, 40), (1.0, 1.0)),
        ((70, 81), (51, 38), (0.5, 0.7)),
        ((40, 33, 37), (29, 26, 28), (1.0, 1.0, 1.0)),
        ((31, 40, 36), (27, 30, 25), (2.0, 1.5, 1.8)),
    ],
)
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_the_patch_shows_at_its_point_what_the_image_shows_at_the_carried_one(
    shape: tuple[int, ...], patch_size: tuple[int, ...], sizes: tuple[float, ...], mode: str
) -> None:
    """What is drawn does not depend on intensities, so the point is known before the image is painted."""
    options: dict[str, Any] = {"patch_size": patch_size, "margin": 0.35, "scale_range": 0.1, "mode": mode}
    affine = torch.diag(torch.tensor([*sizes, 1.0])).repeat(3, 1, 1)

    def images(values: torch.Tensor) -> MetaTensor:
        image = MetaTensor(values, affine=affine)
        image.is_batch = True
        return image

    expected, points, _, _ = prepared(images(torch.rand(3, 1, *shape)), **options)
    painted = blobs(points, shape, sigma=2.4)
    _, again, patch, patch_points = prepared(images(painted), brightness=0, contrast=0, **options)
    assert expected.shape == painted.shape
    torch.testing.assert_close(again, points, rtol=0, atol=0)
    assert patch.shape == (3, 1, *patch_size)
    assert (centroids(patch) - patch_points).abs().max() < 0.02


def test_many_points_of_a_patch_go_through_one_rigid_motion_in_millimetres() -> None:
    sizes = torch.tensor([2.0, 0.5, 1.0])
    loader = DataLoader(
        Dataset(
            [{"image": MetaTensor(torch.rand(1, 12, 30, 16), affine=torch.diag(torch.tensor([2.0, 0.5, 1.0, 1.0])))}]
        ),
        batch_size=1,
    )
    prepare = PreparePatchMatchingBatch((8, 20, 10), points_per_patch=6, rotate_range=0.6)
    _, points, (_, patch_points), _ = prepare(next(iter(loader)))
    before, after = (torch.cdist(p * sizes, p * sizes) for p in (patch_points, points))
    torch.testing.assert_close(before, after, rtol=0, atol=1e-4)
    assert (points - patch_points).diff(dim=1).abs().max() > 0.1, "they turned"


def test_a_film_whose_affine_is_four_by_four_turns_in_its_own_millimetres() -> None:
    film = MetaTensor(torch.rand(1, 40, 20), affine=torch.diag(torch.tensor([1.0, 2.0, 1.0, 1.0])))
    batch = next(iter(DataLoader(Dataset([{"image": film}] * 2), batch_size=2)))
    _, points, (_, patch_points), _ = PreparePatchMatchingBatch(points_per_patch=4, rotate_range=0.5)(batch)
    sizes = torch.tensor([1.0, 2.0])
    before, after = (torch.cdist(p * sizes, p * sizes) for p in (patch_points, points))
    torch.testing.assert_close(before, after, rtol=0, atol=1e-4)


def test_turns_and_scales_are_those_asked_for() -> None:
    """Of the published code: 20 degrees to either side, no scale; half of each side."""
    images = torch.rand(600, 1, 24, 20)
    cases: list[tuple[dict[str, Any], float, float]] = [
        ({}, 20.0, 0.0),
        ({"rotate_range": 0.1, "scale_range": 0.3}, math.degrees(0.1), 0.3),
    ]
    for options, turn, scale in cases:
        _, points, patch, patch_points = prepared(images, points_per_patch=2, mode="linear", **options)
        assert patch.shape == (600, 1, 12, 10)
        (a, b), (c, d) = points.double().diff(dim=1)[:, 0].T, patch_points.double().diff(dim=1)[:, 0].T
        angle = torch.rad2deg(torch.atan2(a * d - b * c, a * c + b * d))
        assert angle.abs().max() <= turn + 1e-3
        assert stats.kstest(angle.numpy(), "uniform", (-turn, 2 * turn)).pvalue > 0.01
        factor = torch.hypot(c, d) / torch.hypot(a, b)
        if scale:
            assert stats.kstest(factor.numpy(), "uniform", (1 - scale, 2 * scale)).pvalue > 0.01
        else:
            torch.testing.assert_close(factor, torch.ones_like(factor), rtol=0, atol=1e-4)


# --- where patches and points lie ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("shape", [(17, 24), (9, 12, 7)])
def test_a_patch_of_the_images_size_that_is_not_turned_is_the_image(shape: tuple[int, ...], mode: str) -> None:
    image, points, patch, patch_points = prepared(torch.rand(2, 3, *shape), patch_size=shape, mode=mode, **PLAIN)
    torch.testing.assert_close(patch, image, rtol=0, atol=3e-6)
    torch.testing.assert_close(points, patch_points, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("shape", "size"), [((17, 24), (8, 5)), ((9, 12, 7), (4, 6, 7))])
def test_a_patch_that_is_not_turned_is_a_crop(shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    image, points, patch, patch_points = prepared(torch.rand(4, 2, *shape), patch_size=size, **PLAIN)
    origins = (points - patch_points)[:, 0]
    torch.testing.assert_close(origins, origins.round(), rtol=0, atol=2e-6)
    for read, shown, origin in zip(image, patch, origins.round().int().tolist(), strict=True):
        crop = read[(slice(None), *(slice(o, o + n) for o, n in zip(origin, size, strict=True)))]
        torch.testing.assert_close(shown, crop, rtol=0, atol=5e-6)


def test_a_turned_patch_is_what_scipy_reads() -> None:
    """At positions from three points of the patch, the only ones that say where it lies."""
    options: dict[str, Any] = {"patch_size": 15, "brightness": 0, "contrast": 0, "mode": "linear", "margin": 0.0}
    image, points, patch, patch_points = (
        x.double() for x in prepared(torch.rand(3, 1, 30, 26), points_per_patch=3, **options)
    )
    ones = torch.ones(3, 3, 1, dtype=torch.float64)
    matrix = torch.linalg.solve(torch.cat([patch_points, ones], -1), points)
    voxels = torch.cartesian_prod(*[torch.arange(15.0, dtype=torch.float64)] * 2)
    grid = torch.cat([voxels, torch.ones(225, 1)], -1) @ matrix
    for read, shown, where in zip(image, patch, grid, strict=True):
        low = read.min().item()
        expected = ndimage.map_coordinates((read[0] - low).numpy(), where.T.numpy(), order=1, mode="grid-constant")
        np.testing.assert_allclose(shown[0].flatten(), expected + low, atol=1e-4)


def test_places_and_points_are_uniform() -> None:
    """Of places also while the patch turns: its middle is where it was."""
    images = torch.zeros(3000, 1, 13, 10)
    size, margin = np.array([6, 4]), 0.2
    _, points, _, patch_points = prepared(images, patch_size=size.tolist(), margin=margin, mode="nearest", **PLAIN)
    for axis in range(2):
        origin = (points - patch_points)[:, 0, axis].round().int().numpy()
        room = images.shape[2 + axis] - size[axis]
        assert stats.chisquare(np.bincount(origin, minlength=room + 1)).pvalue > 0.01
        spread = size[axis] * (1 - 2 * margin)
        start = size[axis] * margin - 0.5
        assert stats.kstest(patch_points[:, 0, axis].numpy(), "uniform", (start, spread)).pvalue > 0.01
    turned = torch.eye(3, dtype=torch.float64).repeat(3000, 1, 1)
    turned[:, :2] = torch.tensor([[0.0, -1.0, 7.5], [1.0, 0.0, 2.0]])  # a quarter turn about (2.5, 1.5)
    middles = place_patches(np.random.RandomState(0), SpatialMap(turned, (6, 4)), (13, 10)).to_input(
        torch.tensor([[[2.5, 1.5]]]).double().expand(3000, 1, 2)
    )
    assert middles.amin((0, 1)).tolist() == [2.5, 1.5]
    assert middles.amax((0, 1)).tolist() == [9.5, 7.5]


@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.generate])
@example([12, 2, 3], 0.846928706323731, 1.8595493485862837e-258, 0.1248067246702725, 0.32713404134249136, 326)
@given(
    st.integers(2, 3).flatmap(lambda d: st.lists(st.integers(2, 12), min_size=d, max_size=d)),
    st.floats(0.2, 1),
    st.floats(0, 3.2),
    st.floats(0, 0.9),
    st.floats(0, 0.49),
    st.integers(0, 1000),
)
def test_points_lie_in_the_middle_of_the_patch_and_in_the_image(
    shape: list[int], part: float, turn: float, scale: float, margin: float, seed: int
) -> None:
    size = [max(1, int(n * part)) for n in shape]
    _, points, _, patch_points = prepared(
        torch.zeros(6, 1, *shape),
        seed,
        patch_size=size,
        points_per_patch=5,
        rotate_range=turn,
        scale_range=scale,
        margin=margin,
        mode="nearest",
    )
    last = torch.tensor(shape) - 1
    assert (points >= -1e-5).all()
    assert (points <= last + 1e-5).all()
    assert inside(points, shape).all()
    start = (torch.tensor(size) * margin - 0.5).clamp(min=0)
    assert (patch_points >= start - 1e-5).all()
    assert (patch_points <= torch.tensor(size) - 1 - start + 1e-5).all()


def test_a_point_beyond_the_image_is_drawn_towards_the_middle_to_the_outermost_voxel() -> None:
    """Against the same draws in a map that shows more of an image that has no end."""
    turn = math.pi / 4
    matrix = torch.eye(3, dtype=torch.float64)[None]
    matrix[0, :2, :2] = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    middle = torch.full((2,), 9.5, dtype=torch.float64)
    matrix[0, :2, 2] = middle - matrix[0, :2, :2] @ middle
    maps = SpatialMap(matrix, (20, 20))
    far = SpatialMap(matrix.clone(), (20, 20)).then(torch.tensor([[[1.0, 0, 100], [0, 1, 100], [0, 0, 1]]]).double())
    points = draw_points(np.random.RandomState(1), maps, (20, 20), 400, margin=0.0)
    free = draw_points(np.random.RandomState(1), far, (300, 300), 400, margin=0.0)
    seen, wanted = maps.to_input(points)[0], maps.to_input(free)[0]
    outside = ((wanted < 0) | (wanted > 19)).any(dim=-1)
    assert 20 < outside.sum() < 200
    torch.testing.assert_close(points[0, ~outside], free[0, ~outside])
    on_border = torch.minimum(seen, 19 - seen).amin(dim=-1)[outside]
    torch.testing.assert_close(on_border, torch.zeros_like(on_border), rtol=0, atol=1e-9)
    ray, shortened = wanted[outside] - middle, seen[outside] - middle
    torch.testing.assert_close(torch.cosine_similarity(ray, shortened), torch.ones(len(ray), dtype=torch.float64))


# --- intensities --------------------------------------------------------------------------------------------------------


def test_colours_change_as_monai_would_change_each_patch() -> None:
    patch = torch.rand(2, 1, 6, 7, dtype=torch.float64)
    b, c = torch.tensor([0.9, 1.12]), torch.tensor([1.2, 0.8])
    far = torch.full((1, 1, 1, 1), 9.0, dtype=torch.float64)
    result = jitter_colors(patch, b, c, 0 * far, far)
    for one, got, lit, contrast in zip(patch, result, b.tolist(), c.tolist(), strict=True):
        bright = ScaleIntensity(minv=None, maxv=None, factor=lit - 1, dtype=np.float64)(one)
        expected = ScaleIntensityFixedMean(factor=contrast - 1, fixed_mean=True, dtype=np.float64)(bright)
        torch.testing.assert_close(got, torch.as_tensor(expected).clamp(min=0), rtol=0, atol=1e-6)


def test_colours_of_each_patch_are_drawn_uniformly_and_the_image_stays() -> None:
    """Grey values in the middle of the range, so that nothing is clipped."""
    images = 0.45 + 0.1 * torch.rand(800, 1, 8, 8)
    before = images.clone()
    options: dict[str, Any] = {"patch_size": 8, "rotate_range": 0.0, "intensity_range": (0.0, 1.0), "mode": "linear"}
    image, _, patch, _ = prepared(images, contrast=0.0, **options)
    assert image.data_ptr() == images.data_ptr()
    torch.testing.assert_close(images, before, rtol=0, atol=0)
    factor = (patch / images).flatten(1)
    assert factor.std(dim=1).max() < 1e-4
    assert stats.kstest(factor.mean(dim=1).numpy(), "uniform", (0.85, 0.3)).pvalue > 0.01
    _, _, patch, _ = prepared(images, brightness=0.0, **options)
    torch.testing.assert_close(patch.mean((1, 2, 3)), images.mean((1, 2, 3)), rtol=0, atol=1e-5)
    factor = patch.std((1, 2, 3)) / images.std((1, 2, 3))
    assert stats.kstest(factor.numpy(), "uniform", (0.75, 0.5)).pvalue > 0.01


def test_patches_stay_within_each_images_own_range() -> None:
    images = torch.rand(6, 1, 20, 20) * torch.tensor([1.0, 5, 9, 2, 3, 4]).reshape(6, 1, 1, 1) - 2
    _, _, patch, _ = prepared(images, brightness=0.5, contrast=0.9)
    assert (patch.amin((1, 2, 3)) >= images.amin((1, 2, 3))).all()
    assert (patch.amax((1, 2, 3)) <= images.amax((1, 2, 3))).all()


def test_what_lies_beyond_the_image_is_black() -> None:
    options: dict[str, Any] = {"patch_size": 20, "rotate_range": [(0.5, 0.5)], "brightness": 0, "contrast": 0}
    images = torch.full((1, 1, 20, 20), 3.0)
    _, _, patch, _ = prepared(images, intensity_range=(-1.0, 3.0), **options)
    assert patch[0, 0, 0, 0] == -1
    assert patch[0, 0, 10, 10] == pytest.approx(3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_reads_at_exact_places(dtype: torch.dtype) -> None:
    images = blobs(torch.rand(4, 1, 2) * 200, (200, 200), 40.0).to(dtype)
    image, points, patch, patch_points = prepared(images, mode="linear")
    _, exact, expected, exact_in_patch = prepared(images.float(), mode="linear")
    assert image.dtype == patch.dtype == dtype
    assert points.dtype == patch_points.dtype == torch.float32
    torch.testing.assert_close((points, patch_points), (exact, exact_in_patch), rtol=0, atol=0)
    torch.testing.assert_close(patch.float(), expected, rtol=0, atol=1e-3 if dtype is torch.float16 else 1e-2)


def test_integers_and_other_types_asked_for() -> None:
    images = torch.randint(0, 255, (1, 1, 12, 12), dtype=torch.uint8)
    image, _, patch, _ = prepared(images)
    assert image.dtype == patch.dtype == torch.float32
    image, _, (patch, _), _ = PreparePatchMatchingBatch()({"image": images}, dtype=torch.float16)
    assert image.dtype == patch.dtype == torch.float16


# --- randomness ---------------------------------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_and_each_call_anew() -> None:
    images = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(prepared(images, 3), prepared(images, 3), rtol=0, atol=0)
    assert not torch.equal(prepared(images, 3)[1], prepared(images, 4)[1])
    prepare = PreparePatchMatchingBatch()
    first, second = (prepare({"image": images})[1] for _ in range(2))
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


# --- what is read, and refused ------------------------------------------------------------------------------------------


class ImagesOnly(Mapping):
    """A batch with landmarks that may not be looked at."""

    def __init__(self, image: torch.Tensor) -> None:
        self.image = image

    def __getitem__(self, key: str) -> torch.Tensor:
        assert key == "image", f"{key!r} was read"
        return self.image

    def __iter__(self) -> Iterator[str]:
        return iter(("image", "points", "dataset"))

    def __len__(self) -> int:
        return 3


def test_nothing_but_the_image_is_read() -> None:
    images = torch.rand(2, 1, 16, 16)
    prepare = PreparePatchMatchingBatch()
    prepare.set_random_state(0)
    got = prepare(ImagesOnly(images))
    torch.testing.assert_close((got[0], got[1], *got[2]), prepared(images), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "image", "words"),
    [
        ({"patch_size": 192}, torch.zeros(1, 1, 384, 160), r"patch of \(192, 192\) .* fit into images of \(384, 160\)"),
        ({"patch_size": (8, 8, 8)}, torch.zeros(1, 1, 16, 16), "`patch_size` must be .* each of the 2 axes"),
        ({}, torch.zeros(1, 16, 16), "must be a batch"),
        ({"intensity_range": (0, 1)}, torch.tensor([-1.0, 0, 1, 0]).reshape(1, 1, 2, 2), "from -1 to 1, beyond"),
        ({"rotate_range": (0.1, 0.2, 0.3)}, torch.zeros(1, 1, 8, 8), "`rotate_range`"),
    ],
)
def test_images_that_do_not_fit_are_refused(options: dict[str, Any], image: torch.Tensor, words: str) -> None:
    with pytest.raises(LandmarkError, match=words):
        prepared(image, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"points_per_patch": 0}, "`points_per_patch` must be 1 or more"),
        ({"margin": 0.5}, r"`margin` must be in \[0, 0.5\)"),
        ({"brightness": 1.0}, r"`brightness` must be in \[0, 1\)"),
        ({"contrast": -0.1}, r"`contrast` must be in"),
        ({"intensity_range": (1, 0)}, "black below white"),
        ({"scale_range": 1.0}, "`scale_range` = 1.0 is added to 1"),
        ({"mode": "spline"}, "spline"),
    ],
)
def test_options_without_meaning_are_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PreparePatchMatchingBatch(**options)


def test_a_batch_without_image_says_what_it_holds() -> None:
    with pytest.raises(LandmarkError, match=r"no image under 'image'; it holds \['img'\]"):
        PreparePatchMatchingBatch()({"img": torch.zeros(1, 1, 4, 4)})


def test_range_forgives_the_rounding_of_an_interpolation() -> None:
    images = torch.full((2, 1, 32, 32), 1.0 + 2e-7)
    images[..., 0] = -1.0 - 2e-7
    prepared(images, intensity_range=(-1.0, 1.0), patch_size=16)
