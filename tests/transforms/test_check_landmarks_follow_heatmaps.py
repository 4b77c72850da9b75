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
"""Encode -> identity -> decode: the package's own pairs pass, and peers' faults are found and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.transforms import Compose, GenerateHeatmapd, Rand2DElasticd, Resized
from torch.nn.functional import interpolate

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.heatmaps import GaussianHeatmaps, decode_heatmaps, gaussian_heatmaps
from monai_landmarks.transforms import GenerateLandmarkHeatmapd, LandmarksWorldToImaged
from monai_landmarks.transforms.landmarks_follow import FollowReport, check_landmarks_follow

TO_VOXELS = LandmarksWorldToImaged("landmarks", "image", output_keys="points")


def doctor(decode: Any, encode: Any = None, dims: int = 2, **options: Any) -> FollowReport:
    return check_landmarks_follow(spatial_dims=dims, encode=encode, decode=decode, **options)


def sentence(report: FollowReport, kind: str) -> str:
    assert not report.passed
    texts = {finding.kind: finding.text for finding in report.faults}
    assert kind in texts, str(report)
    return texts[kind]


# --------------------------------------------------------------------------- decoders written as peers have them


def mean_place(weights: torch.Tensor) -> torch.Tensor:
    """Sum of weights times index, per axis."""
    axes = range(2, weights.ndim)
    return torch.stack(
        [
            (weights.sum(dim=[a for a in axes if a != axis]) * torch.arange(weights.shape[axis])).sum(dim=-1)
            for axis in axes
        ],
        dim=-1,
    )


def soft_argmax(maps: torch.Tensor) -> torch.Tensor:
    return mean_place(maps.flatten(2).softmax(dim=-1).reshape(maps.shape))


def soft_argmax_without_shift(maps: torch.Tensor) -> torch.Tensor:
    weights = (10 * maps).exp()
    return mean_place(weights / weights.flatten(2).sum(dim=-1)[..., None, None])


def weighted_mean(maps: torch.Tensor) -> torch.Tensor:
    return mean_place(maps / maps.flatten(2).sum(dim=-1)[..., None, None])


def argmax(maps: torch.Tensor) -> torch.Tensor:
    flat = maps.flatten(2).argmax(dim=-1)
    return torch.stack(torch.unravel_index(flat, maps.shape[2:]), dim=-1).float()


def enlarged_argmax(factor: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda maps: argmax(interpolate(maps, scale_factor=factor, mode="bicubic", align_corners=False)) / factor


def local_mean(maps: torch.Tensor, reach: int = 3) -> torch.Tensor:
    peak = argmax(maps)[:, :, None, None]
    index = torch.stack(torch.meshgrid(*[torch.arange(s) for s in maps.shape[2:]], indexing="ij"), dim=-1)
    near = ((index - peak).abs() <= reach).all(dim=-1)
    return weighted_mean(maps * near)


def nms_without_last_rows(lost: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    def decode(maps: torch.Tensor) -> torch.Tensor:
        points = decode_heatmaps(maps).points.clone()
        limit = torch.tensor(maps.shape[2:]) - 3
        off = (argmax(maps) > limit).any(dim=-1)
        other = torch.full_like(points, torch.nan) if lost else argmax(maps[..., :-2, :-2])
        return torch.where(off[..., None], other, points)

    return decode


# ---------------------------------------------------------------------------------------------------- the good ones


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("method", ["dark", "quadratic", "local_soft_argmax", "center_of_mass", "gaussian_fit"])
def test_the_packages_decoders_pass_up_to_the_border(method, dims):
    report = doctor(method, dims=dims)
    report.raise_if_failed()
    assert report.stages[0].worst < 0.01
    assert not report.findings


def test_an_encoder_with_parameters_for_so_many_landmarks_passes():
    heatmaps = GaussianHeatmaps(num_landmarks=7, spatial_dims=2, sigma=2.5)
    report = doctor("dark", lambda points, shape: heatmaps(points, shape).detach(), num_landmarks=7)
    report.raise_if_failed()


@pytest.mark.parametrize("dims", [2, 3])
def test_the_full_path_from_image_to_world(dims):
    size = (60, 50) if dims == 2 else (40, 36, 34)
    compose = Compose([Resized("image", size, mode="bilinear" if dims == 2 else "trilinear"), TO_VOXELS])
    report = check_landmarks_follow(compose, spatial_dims=dims, decode="dark", draws=1)
    report.raise_if_failed()
    assert [s.name for s in report.stages] == ["points minus blobs", "world minus truth", "decoded minus encoded"]
    assert report.stages[1].worst < 1e-4
    assert report.stages[2].worst < 0.01
    assert bool(torch.isfinite(report.stages[2].residuals_mm).any())
    assert "decoded minus encoded" in str(report)


# ------------------------------------------------------------------------------------------------------------- faults


def test_peer_defect_5_soft_argmax_of_a_unit_gaussian_gives_the_centre():
    text = sentence(doctor(soft_argmax), "drawn_to_centre")
    assert "the decoded point is the map's centre (35.5, 29.5), whatever the map" in text
    assert "ruled by the background" in text


def test_soft_argmax_that_is_drawn_a_little():
    text = sentence(doctor(lambda maps: soft_argmax(10 * maps)), "drawn_to_centre")
    assert "is drawn to the map's centre (35.5, 29.5) by 6% of the way" in text


def test_peer_defect_6_softmax_overflows():
    assert "decoded as NaN: the decoder's exponential overflows" in sentence(
        doctor(soft_argmax_without_shift), "overflow"
    )


def test_peer_defect_7_empty_maps():
    """NaN is what an empty map shall give; a number made of it is a fault, and so is a NaN that spreads."""
    assert "missing_invented" not in doctor(weighted_mean).kinds
    text = sentence(doctor(lambda maps: weighted_mean(maps).nan_to_num()), "missing_invented")
    assert "decoded as (0.000, 0.000): a point appears from nothing" in text

    def spreading(maps: torch.Tensor) -> torch.Tensor:
        points = decode_heatmaps(maps).points
        return points + 0 * points.sum()

    assert "lose the other landmarks" in sentence(doctor(spreading), "missing_spreads")


@pytest.mark.parametrize("factor", [2, 4])
def test_peer_defect_8_half_pixel_of_an_enlarged_map(factor):
    text = sentence(doctor(enlarged_argmax(factor)), "half_pixel")
    assert "x is shifted by +0." in text
    assert (
        f"the half pixel of enlarging the map by {factor}, (1 - 1 / {factor}) / 2 = {(1 - 1 / factor) / 2:.3f}" in text
    )


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "moved"])
def test_peer_defect_9_peaks_in_the_last_rows(lost):
    report = doctor(nms_without_last_rows(lost))
    text = sentence(report, "border_lost")
    assert [f.kind for f in report.faults] == ["border_lost"]
    assert "of the high border of x" in text
    assert "of the high border of y" in text
    assert "low border" not in text
    assert "does not look at the outermost voxels" in text


def test_peer_defect_11_local_mean_at_the_border():
    report = doctor(local_mean, lambda points, shape: gaussian_heatmaps(points, shape, 1.0))
    text = sentence(report, "border_bias")
    assert "points are drawn inwards by up to 0." in text
    assert "elsewhere they are right" in text
    wide = doctor(local_mean)  # a window too small for the peak is inexact inside as well
    assert {"border_bias", "decoder_inexact"} <= set(wide.kinds)


def test_peer_defect_13_map_of_a_missing_landmark():
    def encode(points: torch.Tensor, shape: Any) -> torch.Tensor:
        maps = gaussian_heatmaps(points, shape, 2.0)
        maps[points.isnan().any(dim=-1)] = torch.nan
        return maps

    assert "the heatmap of a missing landmark is NaN" in sentence(doctor("dark", encode), "missing_map_is_nan")

    def background(points: torch.Tensor, shape: Any) -> torch.Tensor:
        maps = gaussian_heatmaps(points, shape, 2.0)
        return maps + 0 * encode(points, shape).sum(dim=1, keepdim=True)

    assert "makes the heatmaps of other landmarks NaN" in sentence(doctor("dark", background), "missing_spreads")

    def strict(points: torch.Tensor, shape: Any) -> torch.Tensor:
        if points.isnan().any():
            raise RuntimeError("cannot round NaN")
        return gaussian_heatmaps(points, shape, 2.0)

    assert "stops at a missing landmark (NaN): RuntimeError" in sentence(doctor("dark", strict), "missing_refused")


@pytest.mark.parametrize(
    ("decode", "encode", "kind", "piece"),
    [
        ("argmax", None, "rounded", "decoded points are whole voxels"),
        ("dark", lambda p, s: gaussian_heatmaps(p.round(), s, 2.0), "rounded", "the encoder rounds its centres"),
        (lambda m: decode_heatmaps(m).points + 0.5, None, "half_voxel", "counted by their edges"),
        (lambda m: decode_heatmaps(m).points + 0.2, None, "shift", "x is shifted by +0.200 px and y by +0.200 px"),
        (
            lambda m: decode_heatmaps(m).points.flip(-1),
            None,
            "exchanged_axes",
            "x and y are exchanged between encoder and",
        ),
        (
            lambda m: (decode_heatmaps(m).points + 0.5) / 4 - 0.5,
            None,
            "scale",
            "zoom x 0.250, y 0.250: coordinates of a smaller map were not multiplied back",
        ),
        (
            lambda m: decode_heatmaps(m).points.masked_fill((m.amax(dim=(2, 3)) < 0.97)[..., None], torch.nan),
            None,
            "lost_landmarks",
            "landmarks are decoded as NaN although their maps have a peak",
        ),
        (
            lambda m: decode_heatmaps(m).points + 0.3 * torch.sin(7 * decode_heatmaps(m).points),
            None,
            "decoder_inexact",
            "not",
        ),
    ],
)
def test_other_faults(decode, encode, kind, piece):
    assert piece in sentence(doctor(decode, encode), kind)


@pytest.mark.parametrize(
    ("decode", "encode", "message"),
    [
        (lambda m: decode_heatmaps(m).points[0], None, "decode takes .B, N, .S. and gives .B, N, D."),
        ("dark", lambda p, s: gaussian_heatmaps(p, s, 2.0)[:, :3], "encode made maps of shape"),
        ("no such method", None, "no such method"),
    ],
)
def test_functions_of_the_wrong_form(decode, encode, message):
    with pytest.raises(ValueError, match=message):
        doctor(decode, encode)


# ---------------------------------------------------------------------------------- maps drawn by the pipeline itself


def test_heatmaps_of_the_pipeline():
    draw = GenerateLandmarkHeatmapd("points", "heatmap", "image", sigma=2.0)
    compose = Compose([Resized("image", (60, 50), mode="bilinear"), TO_VOXELS, draw])
    report = check_landmarks_follow(compose, spatial_dims=2, encode="heatmap", decode="dark", draws=2)
    report.raise_if_failed()
    assert [s.name for s in report.stages] == ["points minus blobs", "decoded minus points", "world minus truth"]
    assert report.stages[1].worst < 0.01
    with pytest.raises(LandmarkError, match="names no entry of the output"):
        check_landmarks_follow(compose, spatial_dims=2, encode="maps", decode="dark", draws=1)


def test_heatmaps_of_monai_round_their_centres():
    def with_monai(item: Any) -> Any:
        points = item["points"].nan_to_num(nan=-100.0)
        drawn = GenerateHeatmapd("p", sigma=2.0, heatmap_keys="h", spatial_shape=item["image"].shape[1:])({"p": points})
        return {**item, "heatmap": drawn["h"]}

    report = check_landmarks_follow(
        Compose([TO_VOXELS, with_monai]), spatial_dims=2, encode="heatmap", decode="dark", draws=1
    )
    assert "rounds its centres" in sentence(report, "rounded")


def test_heatmaps_on_the_grid_of_the_file():
    draw = GenerateLandmarkHeatmapd("points", "heatmap", "image", sigma=2.0)
    compose = Compose([TO_VOXELS, draw, Resized("image", (60, 50), mode="bilinear"), TO_VOXELS])
    report = check_landmarks_follow(compose, spatial_dims=2, encode="heatmap", decode="dark", draws=1)
    assert "they are not on the grid of the image as it is now" in sentence(report, "heatmap_grid")


def test_the_way_to_the_world_is_not_checked_on_deformed_images():
    from monai_landmarks.transforms.with_landmarks import WithLandmarksd

    elastic = Rand2DElasticd("image", (24, 24), (1, 2), prob=1.0, padding_mode="zeros")
    compose = Compose([WithLandmarksd(elastic, "image", "landmarks"), TO_VOXELS])
    report = check_landmarks_follow(compose, spatial_dims=2, decode="dark", draws=1)
    report.raise_if_failed()
    assert set(report.kinds) == {"deformed", "world_unchecked"}
