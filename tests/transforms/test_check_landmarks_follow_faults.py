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
"""Planted geometric faults, those of peers' code among them, are found and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.transforms import CenterSpatialCropd, Compose, Lambdad, Rand2DElasticd, RandFlipd, Resized
from torch.nn.functional import interpolate, pad

from monai_landmarks.geometry import LandmarkError, apply_affine, image_affine, inside, invert_affine
from monai_landmarks.transforms import LandmarksWorldToImaged
from monai_landmarks.transforms.landmarks_follow import FollowReport, check_landmarks_follow

TO_VOXELS = LandmarksWorldToImaged("landmarks", "image", output_keys="points")
FILM = (72, 60)

Points = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def planted(points: Points, image: Callable[[torch.Tensor], torch.Tensor] = lambda x: x) -> Callable[[Any], Any]:
    """A pipeline that moves the image's values by ``image`` and voxel points by ``points(p, old size, new size)``."""

    def pipeline(item: Any) -> Any:
        voxels = apply_affine(item["landmarks"], invert_affine(image_affine(item["image"])))
        before = item["image"].as_tensor()
        after = image(before)
        old, new = (torch.tensor(x.shape[1:], dtype=torch.float64) for x in (before, after))
        return {"image": after, "points": points(voxels, old, new)}

    return pipeline


def resized(*size: int, align_corners: bool = False) -> Callable[[torch.Tensor], torch.Tensor]:
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return lambda x: interpolate(x[None], size=size, mode=mode, align_corners=align_corners)[0]


def doctor(pipeline: Any, shape: tuple[int, ...] = FILM, **options: Any) -> FollowReport:
    return check_landmarks_follow(pipeline, spatial_shape=shape, draws=1, **options)


def sentences(report: FollowReport) -> str:
    assert not report.passed
    return " ".join(" ".join(finding.text for finding in report.faults).split())


# ---------------------------------------------------------------------------------------------------- peers' geometry


def test_peer_defect_15_resize_without_half_pixel_centres():
    report = doctor(planted(lambda p, old, new: p * new / old, resized(18, 15)))
    assert [f.kind for f in report.faults] == ["half_pixel"]
    text = sentences(report)
    assert "x is shifted by +0.375 px" in text
    assert "y by +0.375 px" in text
    assert "half-pixel in the resize by 0.25" in text
    assert "new = zoom * (old + 0.5) - 0.5" in text


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.5, 2.0])
def test_half_pixel_of_other_resizes_by_the_measured_zoom(factor):
    size = tuple(round(factor * s) for s in FILM)
    report = doctor(planted(lambda p, old, new: p * new / old, resized(*size)))
    assert [f.kind for f in report.faults] == ["half_pixel"]
    assert report.stages[0].mean[0].item() == pytest.approx((1 - factor) / 2, abs=0.01)
    assert f"x is shifted by {(1 - factor) / 2:+.1f}"[:-1] in sentences(report)
    assert f"half-pixel in the resize by {factor:g}" in sentences(report)


def test_half_pixel_on_the_images_side():
    report = doctor(planted(lambda p, old, new: (p + 0.5) / 2 - 0.5, lambda x: x[:, ::2, ::2]))
    assert [f.kind for f in report.faults] == ["half_pixel"]
    assert "the image was scaled from the middle of its first pixel (as by image[::2]" in sentences(report)


def test_peer_defect_14_resize_with_pad_in_3d_forgets_the_padding():
    def resize_with_pad(x: torch.Tensor) -> torch.Tensor:
        return pad(resized(36, 30, 30)(x), (3, 3, 0, 0, 0, 0))

    report = doctor(planted(lambda p, old, new: (p + 0.5) * 0.75 - 0.5, resize_with_pad), (48, 40, 40))
    assert [f.kind for f in report.faults] == ["padding_forgotten"]
    text = sentences(report)
    assert "z is shifted by -3.0" in text or "z is shifted by -2.99" in text
    assert "that is the padding, which moves the image by +3 voxel along z" in text
    assert "x is shifted" not in text


def test_padding_and_half_pixel_together():
    def resize_with_pad(x: torch.Tensor) -> torch.Tensor:
        return pad(resized(36, 30)(x), (5, 4, 0, 0))

    report = doctor(planted(lambda p, old, new: p * 0.5, resize_with_pad))
    assert [f.kind for f in report.faults] == ["half_pixel", "padding_forgotten"]
    assert "by +5 px along y" in sentences(report)
    assert "nor did the half pixel of its zoom by 0.5" in sentences(report)


def test_crop_forgotten():
    report = doctor(planted(lambda p, old, new: p, lambda x: x[:, 6:, :]))
    assert [f.kind for f in report.faults] == ["crop_forgotten"]
    assert "x is shifted by +6.000 px" in sentences(report)
    assert "that is the crop, which moves the image by -6 px along x" in sentences(report)


def test_peer_defect_19_elastic_leaves_points_behind():
    elastic = Rand2DElasticd("image", (16, 16), (3, 4), prob=1.0, padding_mode="zeros")
    report = doctor(lambda item: TO_VOXELS(elastic(item)))
    assert "elastic_not_followed" in report.kinds
    text = sentences(report)
    for piece in ("the image was deformed", "the points stayed where they were", "RandSpatialLandmarksd"):
        assert piece in text


# ----------------------------------------------------------------------------------------------- each other diagnosis

SIZE_MINUS_ONE = torch.tensor([71.0, 59.0], dtype=torch.float64)
MIRROR_X = torch.tensor([-1.0, 1.0], dtype=torch.float64)
X = torch.tensor([1.0, 0.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("points", "image", "kind", "pieces"),
    [
        (lambda p, a, b: p + 0.37 * X, None, "shift", ["x is shifted by +0.370 px (+0.074 mm): a constant shift"]),
        (lambda p, a, b: p + 1, None, "one_voxel", ["x is shifted by +1.000 px", "exactly one voxel", "from 0"]),
        (
            lambda p, a, b: p - 0.5 * X,
            None,
            "half_voxel",
            ["x is shifted by -0.500 px", "half a voxel", "by their edges"],
        ),
        (lambda p, a, b: p, lambda x: x.roll(1, 1), "crop_forgotten|padding_forgotten", ["+1 px along x"]),
        (lambda p, a, b: 1.01 * p, None, "scale", ["the shift of x grows with position", "(+1 %)", "a scale error"]),
        (
            lambda p, a, b: p * (b / a) ** 2,
            resized(108, 90),
            "scaled_wrongly",
            ["grows with position", "the points were scaled twice"],
        ),
        (
            lambda p, a, b: (p + 0.5) * b / a - 0.5,
            resized(40, 33, align_corners=True),
            "align_corners",
            ["the shift of x grows with position", "align_corners=True", "Set align_corners=False"],
        ),
        (lambda p, a, b: p, resized(36, 30), "not_followed", ["zoom x 0.500, y 0.500", "stayed where they were"]),
        (lambda p, a, b: p, lambda x: x.flip(1), "mirrored_axis", ["x is mirrored: the image was flipped"]),
        (
            lambda p, a, b: p * MIRROR_X + X * 72,
            lambda x: x.flip(1),
            "one_voxel",
            ["a flip takes size - p instead of size - 1 - p"],
        ),
        (lambda p, a, b: p * MIRROR_X + X * 71, None, "mirrored_axis", ["x is mirrored between points and image"]),
        (
            lambda p, a, b: p * MIRROR_X + X * 72,
            None,
            "mirrored_axis",
            ["x is mirrored", "x is moved by +1.000 px as well (size - p instead of size - 1 - p)"],
        ),
        (lambda p, a, b: p.flip(-1), None, "exchanged_axes", ["x and y are exchanged between points and image"]),
        (lambda p, a, b: p, lambda x: x.transpose(1, 2), "exchanged_axes", ["the image was transposed and the points"]),
        (lambda p, a, b: p.flip(-1), lambda x: x.transpose(1, 2).flip(1), "mirrored_axis", ["x is mirrored"]),
        (lambda p, a, b: p.round(), None, "rounded", ["the points are whole numbers", "rounded to voxels"]),
        (lambda p, a, b: p / a, None, "normalised", ["fractions of the image size"]),
        (lambda p, a, b: 2 * p / (a - 1) - 1, None, "normalised", ["fractions of the image size"]),
        (
            lambda p, a, b: p + 2 * torch.sin(p.flip(-1) / 3),
            None,
            "irregular",
            ["differ irregularly", "no shift, scale, flip"],
        ),
        (lambda p, a, b: p + 0.3 * torch.sin(9 * p), None, "irregular", ["differ irregularly by less than a voxel"]),
    ],
)
def test_faults_of_points_and_image(points, image, kind, pieces):
    report = doctor(planted(points, image or (lambda x: x)))
    assert len(report.faults) == 1, str(report)
    assert report.faults[0].kind in kind.split("|"), str(report)
    for piece in pieces:
        assert piece in sentences(report), str(report)


@pytest.mark.parametrize(
    ("convert", "kind", "piece"),
    [
        (lambda w, to_voxel, size: w, "world_as_voxels", "the points are still world millimetres"),
        (lambda w, to_voxel, size: to_voxel(to_voxel(w)), "converted_twice", "converted from world to voxels twice"),
        (lambda w, to_voxel, size: to_voxel(w) * size, "unconverted_origin", "they were multiplied by the spacing"),
        (
            lambda w, to_voxel, size: to_voxel(w * torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)),
            "signs",
            "LPS millimetres were taken for RAS or the reverse",
        ),
    ],
)
def test_confusions_of_space(convert, kind, piece):
    resize = Resized("image", (44, 40, 30), mode="trilinear")

    def pipeline(item: Any) -> Any:
        out = resize(item)
        affine = image_affine(out["image"])
        size = affine[:3, :3].norm(dim=0)
        points = convert(item["landmarks"], lambda w: apply_affine(w, invert_affine(affine)), size)
        return {"image": out["image"], "points": points}

    report = doctor(pipeline, (44, 40, 36))
    assert [f.kind for f in report.faults] == [kind], str(report)
    assert piece in sentences(report)


def test_two_conversions_of_the_package_are_refused_by_itself():
    report = doctor(Compose([TO_VOXELS, LandmarksWorldToImaged("points", "image")]))
    assert report.kinds == ["refused"]
    assert "converted to voxels twice" in sentences(report)


# --------------------------------------------------------------------------------------------------- rows of landmarks


def test_landmarks_exchanged_in_pairs():
    report = doctor(
        planted(lambda p, a, b: p[[1, 0, 2, 3, 5, 4, 6, 7, 8, 9, 10, 11]]), names=[f"n{i}" for i in range(12)]
    )
    assert [f.kind for f in report.faults] == ["exchanged_landmarks"]
    assert "n0 and n1, n4 and n5 lie on each other's blobs" in sentences(report)
    assert "pairs=[(0, 1), (4, 5)]" in sentences(report)
    assert doctor(planted(lambda p, a, b: p[[1, 0, 2, 3, 5, 4, 6, 7, 8, 9, 10, 11]]), pairs=[(0, 1), (4, 5)]).passed


def test_landmarks_in_another_order():
    report = doctor(planted(lambda p, a, b: p.roll(1, 0)))
    assert [f.kind for f in report.faults] == ["exchanged_landmarks"]
    assert "their order has changed: landmark 2 lies on the blob of landmark 1" in sentences(report)


NAMES = ["left_eye", "right_eye", *(f"p{i}" for i in range(10))]


def test_flip_that_does_not_exchange_left_and_right():
    flip = Compose([RandFlipd("image", prob=0.5, spatial_axis=0), TO_VOXELS])
    pairs = [("left_eye", "right_eye")]
    report = check_landmarks_follow(flip, spatial_shape=FILM, draws=8, names=NAMES, pairs=pairs)
    assert report.kinds == ["sides_not_exchanged"]
    assert "left_eye and right_eye" in sentences(report)
    assert "RandFlipLandmarksd" in sentences(report)


def test_flip_that_exchanges_left_and_right():
    from monai_landmarks.transforms.flip import RandFlipLandmarksd

    pairs = [("left_eye", "right_eye")]
    flip = Compose([RandFlipLandmarksd("image", "landmarks", names=NAMES, pairs=pairs, prob=0.5), TO_VOXELS])
    assert check_landmarks_follow(flip, spatial_shape=FILM, draws=8, names=NAMES, pairs=pairs).passed
    report = check_landmarks_follow(flip, spatial_shape=FILM, draws=8, names=NAMES)
    assert [f.kind for f in report.faults] == ["exchanged_landmarks"]
    assert "left_eye and right_eye lie on each other's blobs" in sentences(report)


@pytest.mark.parametrize(
    ("change", "kind", "piece"),
    [
        (lambda p: p[~p.isnan().any(dim=-1)], "row_count", "12 landmarks went in and 11 came out"),
        (lambda p: torch.cat([p, 0 * p[:2]]), "row_count", "12 landmarks went in and 14 came out"),
        (
            lambda p: p.nan_to_num(),
            "missing_invented",
            "a missing landmark (landmark 11, NaN) comes out as (0.000, 0.000)",
        ),
        (
            lambda p: torch.where(torch.arange(12)[:, None] == 3, torch.nan, p),
            "lost_landmarks",
            "landmarks that are in the image come out as missing (NaN): landmark 3",
        ),
    ],
)
def test_rows_lost_and_invented(change, kind, piece):
    report = doctor(Compose([TO_VOXELS, Lambdad("points", change)]))
    assert [f.kind for f in report.faults] == [kind]
    assert piece in sentences(report)
    assert report.culprit == "transforms[1] Lambdad"
    assert "transforms[1] Lambdad" in sentences(report)


def test_a_pipeline_that_stops_at_a_missing_landmark():
    def strict(points: torch.Tensor) -> torch.Tensor:
        if points.isnan().any():
            raise RuntimeError("NaN in points")
        return points

    report = doctor(Compose([Lambdad("landmarks", strict), TO_VOXELS]))
    assert report.kinds == ["missing_refused"]
    assert "stops at a missing landmark" in sentences(report)
    assert "NaN in points" in sentences(report)


def test_points_of_a_wrong_shape():
    report = doctor(Compose([TO_VOXELS, Lambdad("points", lambda p: p.T)]))
    assert "no_points" in report.kinds
    assert "the points came out with shape (2, 12)" in sentences(report)


# ------------------------------------------------------------------------------------------------------ field of view

CROP = CenterSpatialCropd("image", (50, 42))


def test_landmarks_outside_the_field_of_view_are_no_fault():
    report = check_landmarks_follow(Compose([CROP, TO_VOXELS]), spatial_shape=(84, 72), num_landmarks=20, draws=1)
    assert report.passed, str(report)
    assert not report.findings


def test_points_clipped_to_the_border():
    def clip(item: Any) -> Any:
        limit = torch.tensor(item["image"].shape[1:]) - 1.0
        return {**item, "points": item["points"].clamp(min=torch.zeros(2), max=limit)}

    compose = Compose([CROP, TO_VOXELS, clip])
    report = check_landmarks_follow(compose, spatial_shape=(84, 72), num_landmarks=20, draws=1)
    assert [f.kind for f in report.faults] == ["clipped_to_border"]
    assert "Do not clip points to the image" in sentences(report)


def test_points_outside_made_missing():
    def forget(item: Any) -> Any:
        within = inside(item["points"], item["image"].shape[1:])
        return {**item, "points": item["points"].masked_fill(~within[:, None], torch.nan)}

    compose = Compose([CROP, TO_VOXELS, forget])
    report = check_landmarks_follow(compose, spatial_shape=(84, 72), num_landmarks=20, draws=1)
    assert report.passed
    assert report.kinds == ["outside_made_missing"]
    assert "Outside is not missing" in str(report)


def test_an_image_in_which_nothing_can_be_measured():
    report = doctor(Compose([Lambdad("image", lambda x: x.clamp(0, 1)), TO_VOXELS]))
    assert "nothing_measured" in report.kinds
    assert "give intensity=" in sentences(report)
    assert doctor(Compose([Lambdad("image", lambda x: x.clamp(0, 1)), TO_VOXELS]), intensity=(0.1, 0.9)).passed


# ------------------------------------------------------------------------------------------------------ way to the world


def test_the_way_back_to_the_world():
    compose = Compose([Resized("image", (50, 44), mode="bilinear"), TO_VOXELS])
    report = doctor(compose, to_world=lambda points, image: apply_affine(points, image_affine(image)))
    assert report.passed
    assert [stage.name for stage in report.stages] == ["points minus blobs", "world minus truth"]
    assert report.stages[1].worst < 1e-4
    spacing = torch.tensor([0.2, 0.25], dtype=torch.float64)
    wrong = doctor(compose, to_world=lambda points, image: points * spacing)
    assert wrong.kinds == ["world"]
    assert "the way back is wrong" in sentences(wrong)


def test_a_refusal_in_a_later_draw_is_told():
    compose = Compose([RandFlipd("image", prob=0.5), TO_VOXELS])
    twice = LandmarksWorldToImaged("points", "image")
    drawn = []

    def pipeline(item: Any) -> Any:
        out = compose(item)
        drawn.append(out)
        return twice(out) if len(drawn) > 2 else out

    report = check_landmarks_follow(pipeline, spatial_shape=FILM, draws=6)
    assert report.kinds == ["refused"]
    assert "refuses the landmarks in draw 2" in sentences(report)
    assert report.residuals.shape[0] == 2


def test_errors_of_a_pipeline_are_told_with_what_to_change():
    def broken(item: Any) -> Any:
        raise RuntimeError("out of cheese")

    with pytest.raises(LandmarkError, match=r"RuntimeError: out of cheese\. Say what it needs"):
        doctor(broken)
