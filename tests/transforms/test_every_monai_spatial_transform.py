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
"""Every spatial transform that MONAI exports, wrapped: the landmark lies where the picture shows it, or is refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import monai.transforms as mt
import numpy as np
import pytest
from where_shown import (
    SHAPES,
    TOLERANCE,
    catch_grids,
    centroids,
    errors_of_blobs,
    errors_of_shrinking_blobs,
    errors_on_the_grid,
    item,
    voxels,
    wrapped,
)

from monai_landmarks.geometry import LandmarkError, deformed_with
from monai_landmarks.transforms.with_landmarks.same_draw import leaves

I = "image"  # noqa: E741
LABELS = (("L", "R"), ("P", "A"), ("I", "S"))


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    return catch_grids(monkeypatch)


# ----------------------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Row:
    """A transform, how it is measured, and whether its map is affine."""

    make: Callable[[int], Any]
    dims: tuple[int, ...] = (2, 3)
    measure: str = "blob"
    deformed: bool = False
    note: str = ""
    seeds: int = 1


def lin(dims: int) -> str:
    return "bilinear" if dims == 2 else "trilinear"


def of(dims: int, *values: Any) -> tuple[Any, ...]:
    return values[:dims]


def most(dims: int, less: int) -> tuple[int, ...]:
    return tuple(n - less for n in SHAPES[dims])


TRUE_AFFINE = [
    Row(lambda d: mt.SpatialResampled(I, dst_keys="wanted_affine")),
    Row(lambda d: mt.ResampleToMatchd(I, key_dst="target", padding_mode="zeros")),
    Row(lambda d: mt.Spacingd(I, pixdim=(0.25, 0.25) if d == 2 else (1.1, 1.2, 1.5))),
    Row(lambda d: mt.Spacingd(I, pixdim=(0.25, 0.25) if d == 2 else (1.1, 1.2, 1.5), mode=3), note="spline 3"),
    Row(lambda d: mt.Spacingd(I, pixdim=(0.25, 0.25) if d == 2 else (1.1, 1.2, 1.5), align_corners=True)),
    Row(lambda d: mt.Orientationd(I, axcodes="LA" if d == 2 else "SLA", labels=LABELS)),
    Row(lambda d: mt.Rotate90d(I, k=1)),
    Row(lambda d: mt.RandRotate90d(I, prob=1.0)),
    Row(lambda d: mt.Resized(I, of(d, 90, 65, 45), mode=lin(d))),
    Row(lambda d: mt.Resized(I, of(d, 40, 36, 30), mode=lin(d), anti_aliasing=True), note="anti-aliased"),
    Row(lambda d: mt.Resized(I, 60, size_mode="longest", mode=lin(d)), note="longest"),
    Row(lambda d: mt.Affined(I, rotate_params=0.3 if d == 2 else (0.3, 0.1, 0.2), padding_mode="zeros")),
    Row(lambda d: mt.RandAffined(I, prob=1.0, rotate_range=0.3, shear_range=0.1, scale_range=0.2), seeds=2),
    Row(lambda d: mt.RandAffined(I, prob=1.0, rotate_range=0.3, padding_mode="zeros", spatial_size=of(d, 70, 60, 50))),
    Row(
        lambda d: mt.RandAffined(I, prob=1.0, translate_range=5, padding_mode="border", mode="nearest"), note="nearest"
    ),
    Row(lambda d: mt.Flipd(I, 0)),
    Row(lambda d: mt.RandFlipd(I, prob=1.0, spatial_axis=1)),
    Row(lambda d: mt.RandAxisFlipd(I, prob=1.0)),
    Row(lambda d: mt.Rotated(I, angle=0.3 if d == 2 else (0.3, 0.2, 0.1), keep_size=False)),
    Row(lambda d: mt.RandRotated(I, range_x=0.4, prob=1.0, align_corners=True)),
    Row(lambda d: mt.Zoomd(I, 0.8, mode=lin(d))),
    Row(lambda d: mt.Zoomd(I, 1.2, mode=lin(d), keep_size=False)),
    Row(lambda d: mt.RandZoomd(I, prob=1.0, min_zoom=0.8, max_zoom=0.9, mode=lin(d))),
]
CROPS_AND_PADS = [
    Row(lambda d: mt.Padd(I, mt.SpatialPad(of(d, 90, 81, 60)))),
    Row(lambda d: mt.SpatialPadd(I, of(d, 90, 81, 60))),
    Row(lambda d: mt.BorderPadd(I, (3,))),
    Row(lambda d: mt.DivisiblePadd(I, 16)),
    Row(lambda d: mt.Cropd(I, mt.CenterSpatialCrop(most(d, 5)))),
    Row(lambda d: mt.RandCropd(I, mt.RandSpatialCrop(most(d, 4), random_size=False))),
    Row(lambda d: mt.SpatialCropd(I, roi_start=of(d, 4, 3, 2), roi_end=SHAPES[d])),
    Row(lambda d: mt.CenterSpatialCropd(I, most(d, 5))),
    Row(lambda d: mt.CenterScaleCropd(I, 0.9)),
    Row(lambda d: mt.RandSpatialCropd(I, most(d, 4), random_size=False)),
    Row(lambda d: mt.RandScaleCropd(I, 0.9, random_size=False)),
    Row(lambda d: mt.RandSpatialCropSamplesd(I, most(d, 4), 3, random_size=False), note="list"),
    Row(lambda d: mt.CropForegroundd(I, "mask", margin=9), note="by content"),
    Row(lambda d: mt.RandWeightedCropd(I, "mask", most(d, 8), num_samples=2), note="by content, list"),
    Row(lambda d: mt.RandCropByPosNegLabeld(I, "mask", most(d, 8), num_samples=2, image_threshold=-1)),
    Row(lambda d: mt.RandCropByLabelClassesd(I, "mask", most(d, 8), ratios=[0, 1], num_classes=2)),
    Row(lambda d: mt.ResizeWithPadOrCropd(I, of(d, 90, 60, 46))),
    Row(lambda d: mt.BoundingRectd(I), note="image untouched"),
]
FALSE_AFFINE = [
    Row(lambda d: mt.Transposed(I, (0, 2, 1) if d == 2 else (0, 3, 1, 2)), note="MONAI: 7.8 voxels off"),
    Row(lambda d: mt.Affined(I, scale_params=of(d, 1.3, 1.2, 1.2), padding_mode="zeros", align_corners=True)),
    Row(lambda d: mt.Resized(I, of(d, 90, 65, 45), mode=lin(d), align_corners=True)),
    Row(lambda d: mt.Resized(I, of(d, 90, 65), mode="bicubic"), dims=(2,), note="ripples"),
    Row(lambda d: mt.Resized(I, tuple(n // 2 for n in SHAPES[d])), note="area, default"),
    Row(lambda d: mt.Resized(I, tuple(2 * n for n in SHAPES[d])), note="area, default"),
    Row(lambda d: mt.Resized(I, tuple(n // 2 for n in SHAPES[d]), mode="nearest"), note="0.5 voxel off"),
    Row(lambda d: mt.Resized(I, tuple(2 * n for n in SHAPES[d]), mode="nearest"), note="0.5 voxel off"),
    Row(lambda d: mt.Resized(I, tuple(n // 2 for n in SHAPES[d]), mode="nearest-exact")),
    Row(lambda d: mt.Zoomd(I, 0.5), note="area, default"),
    Row(lambda d: mt.RandZoomd(I, prob=1.0, min_zoom=0.5, max_zoom=0.5), note="area, default"),
    Row(lambda d: mt.RandSimulateLowResolutiond(I, prob=1.0, zoom_range=(0.5, 0.5)), dims=(3,), note="default modes"),
    Row(lambda d: mt.RandSimulateLowResolutiond(I, prob=1.0, downsample_mode=lin(d), upsample_mode=lin(d)), seeds=2),
    Row(lambda d: mt.GridSplitd(I, (2, 2), size={I: (62, 62)}), dims=(2,), note="affine of the parts not shifted"),
    Row(
        lambda d: mt.Rand3DElasticd(I, (5, 7), (0, 0), prob=1.0, rotate_range=0.2, translate_range=(3, 3, 3)),
        dims=(3,),
        note="magnitude 0: rotation not written, 3.6 voxels off",
    ),
    Row(
        lambda d: mt.Compose(
            [
                mt.Zoomd(I, 0.8, mode=lin(d)),
                mt.Transposed(I, (0, 2, 1) if d == 2 else (0, 3, 1, 2)),
                mt.RandAffined(I, prob=1.0, rotate_range=0.2, padding_mode="border"),
            ]
        ),
        note="Compose",
    ),
]


def _elastic(dims: int, **options: Any) -> Any:
    if dims == 2:
        return mt.Rand2DElasticd(I, (20, 20), (0.5, 1), prob=1.0, **options)
    return mt.Rand3DElasticd(I, (5, 7), (60, 120), prob=1.0, **options)


def _with_affine_part(dims: int) -> Any:
    return _elastic(dims, rotate_range=0.2, scale_range=(0.1,) * dims, translate_range=(3,) * dims)


def _smooth_deform(dims: int) -> Any:
    modes = {"field_mode": lin(dims), "grid_mode": "bilinear"}
    return mt.RandSmoothDeformd(I, SHAPES[dims], (4,) * dims, prob=1.0, def_range=0.1, **modes)


def _spline(dims: int, **options: Any) -> Any:
    return _elastic(dims, mode=3, padding_mode="constant", **options)


NOT_AFFINE = [
    Row(_spline, measure="shrinking", deformed=True, note="spline 3", seeds=2),
    Row(
        lambda d: mt.Compose([mt.Flipd(I, 0), _spline(d), mt.Rotate90d(I)]),
        measure="shrinking",
        deformed=True,
        note="Compose",
    ),
    Row(_elastic, measure="grid", deformed=True, note="reflection padding, default", seeds=2),
    Row(lambda d: _elastic(d, padding_mode="zeros"), measure="grid", deformed=True, note="zeros"),
    Row(lambda d: _elastic(d, padding_mode="border"), measure="grid", deformed=True, note="border"),
    Row(_with_affine_part, measure="grid", deformed=True, note="with affine part", seeds=2),
    Row(lambda d: mt.RandGridDistortiond(I, prob=1.0, distort_limit=0.25), measure="grid", deformed=True, seeds=3),
    Row(
        lambda d: mt.GridDistortiond(I, num_cells=4, distort_steps=[[1.1, 0.9, 1.2, 1.0, 0.9]] * d),
        measure="grid",
        deformed=True,
    ),
    Row(_smooth_deform, measure="grid", deformed=True, seeds=2),
]
# (transform, dimensions, what the message says)
REFUSED = [
    (lambda d: mt.GridPatchd(I, (20,) * d), (2, 3), "stacks of patches"),
    (lambda d: mt.RandGridPatchd(I, (20,) * d), (2, 3), "stacks of patches"),
    (lambda d: mt.ConvertBoxToPointsd(I), (2, 3), "does not turn one image into another"),
    (lambda d: mt.ConvertPointsToBoxesd(I), (2, 3), "does not turn one image into another"),
    (
        lambda d: mt.RandSmoothFieldAdjustContrastd(I, SHAPES[d], (4,) * d, prob=1.0),
        (2, 3),
        "changes intensities",
    ),
    (
        lambda d: mt.RandSmoothFieldAdjustIntensityd(I, SHAPES[d], (4,) * d, prob=1.0),
        (2, 3),
        "changes intensities",
    ),
    (lambda d: mt.Resized(I, of(d, 90, 65, 45)), (2, 3), "in steps, .*bilinear"),
    (lambda d: mt.Resized(I, of(d, 90, 65, 45), mode="nearest"), (2, 3), "in steps, .*bilinear"),
    (lambda d: mt.Resized(I, of(d, 90, 65, 45), mode="nearest-exact"), (2, 3), "in steps, .*bilinear"),
    (lambda d: mt.RandZoomd(I, prob=1.0, min_zoom=0.91, max_zoom=0.92), (2, 3), "in steps, .*bilinear"),
    (lambda d: mt.RandSimulateLowResolutiond(I, prob=1.0, zoom_range=(0.9, 0.9)), (3,), "low resolution"),
    (lambda d: _elastic(d, mode="nearest"), (2, 3), "in steps, .*deformed as well.*bilinear"),
    (lambda d: mt.RandSmoothDeformd(I, SHAPES[d], (4,) * d, prob=1.0, def_range=0.1), (2, 3), "in steps"),
    (lambda d: mt.Rand2DElasticd(I, (12, 12), (15, 16), prob=1.0), (2,), "folded the image|folded it"),
    (
        lambda d: mt.Compose(
            [mt.CropForegroundd(I, "image", select_fn=lambda x: x > 1), mt.Zoomd(I, 0.8, mode=lin(d))]
        ),
        (2, 3),
        "looks at the image's content",
    ),
]
TABLE = TRUE_AFFINE + CROPS_AND_PADS + FALSE_AFFINE + NOT_AFFINE


def _cases() -> Iterator[Any]:
    for row in TABLE:
        for dims in row.dims:
            for seed in range(row.seeds):
                yield pytest.param(
                    row, dims, seed, id=f"{_name(row.make(dims))}-{dims}D-{row.note or seed}-{row.measure}"
                )


def _name(transform: Any) -> str:
    return "+".join(type(leaf).__name__ for leaf in leaves(transform))


def measure(row: Row, dims: int, seed: int, caught: list[np.ndarray]) -> tuple[list[float], list[Any]]:
    if row.measure == "grid":
        return errors_on_the_grid(row.make, dims, seed, caught)
    return (errors_of_shrinking_blobs if row.measure == "shrinking" else errors_of_blobs)(row.make, dims, seed)


@pytest.mark.parametrize(("row", "dims", "seed"), list(_cases()))
def test_the_landmark_lies_where_the_picture_shows_it(row: Row, dims: int, seed: int, caught: list[np.ndarray]) -> None:
    errors, samples = measure(row, dims, seed, caught)
    assert errors, "no blob is left whole"
    assert max(errors) <= TOLERANCE
    for sample in samples:
        assert deformed_with(sample["image"]) == (("points",) if row.deformed else None)


@pytest.mark.parametrize(
    ("make", "dims", "reason"),
    [pytest.param(m, d, r, id=f"{_name(m(d))}-{d}D-{i}") for i, (m, ds, r) in enumerate(REFUSED) for d in ds],
)
def test_what_cannot_be_followed_is_refused_with_the_reason(make: Callable[[int], Any], dims: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        wrapped(make(dims), 0)(item(dims))


def test_the_table_lists_every_spatial_transform_that_monai_exports() -> None:
    listed = {
        type(leaf).__name__
        for make, dims in [(row.make, row.dims) for row in TABLE] + [(m, d) for m, d, _ in REFUSED]
        for leaf in leaves(make(dims[0]))
    }
    exported = {
        each.__name__
        for each in vars(mt).values()
        if inspect.isclass(each)
        and each.__module__.startswith("monai.transforms.")
        and each.__module__.split(".")[2] in ("spatial", "croppad", "smooth_field")
        and each.__module__.endswith(".dictionary")
    }
    exported |= {mt.Transposed.__name__, mt.Rand3DElasticd.__name__}
    assert len(exported) > 40
    assert exported <= listed, f"not in the table: {sorted(exported - listed)}"


def test_accepted_steps_are_right_on_average() -> None:
    """Block averages at an odd ratio: with a wider tolerance the best affine is taken, and single blobs jitter."""
    errors = []
    for size in (61, 67, 90, 93):
        sample = wrapped(mt.Resized(I, (size, size)), 0, tolerance=0.6)(item(2))
        errors.append(centroids(sample["image"]) - voxels(sample, 2))
        assert deformed_with(sample["image"]) is None
    assert np.abs(np.concatenate(errors).mean(axis=0)).max() < TOLERANCE
    assert np.abs(np.concatenate(errors)).max() < 0.5


def test_refusals_are_landmark_errors() -> None:
    with pytest.raises(LandmarkError):
        wrapped(mt.Resized(I, (90, 65)), 0)(item(2))
