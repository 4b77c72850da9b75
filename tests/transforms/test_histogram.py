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
"""Histogram matching inside the outline of the anatomy, the outline itself, and CLAHE."""

from __future__ import annotations

import csv
import pickle
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from monai.utils import OptionalImportError
from PIL import Image
from scipy import ndimage

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.transforms.clahe import CLAHE, CLAHEd
from monai_landmarks.transforms.histogram import MatchHistogram, MatchHistogramd, match_histogram, otsu_outline

QUANTILES = np.linspace(0.05, 0.95, 91)
SHAPES = [(81, 63), (25, 30, 21)]


def disc(shape: tuple[int, ...], radius: float = 0.6) -> np.ndarray:
    """The voxels within an ellipsoid around the middle, an obvious outline."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    return sum(a**2 for a in axes) < radius**2


def film(shape: tuple[int, ...], seed: int = 0, power: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Anatomy of 140 to 250 on a background of 10 to 14, and its outline."""
    rng = np.random.default_rng(seed)
    inside = disc(shape)
    anatomy = 140 + 110 * rng.random(shape) ** power
    return np.where(inside, anatomy, rng.uniform(10, 14, shape)).astype(np.float32), inside


# --------------------------------------------------------------------------------------------------------------- outline


def best_split(values: np.ndarray) -> float:
    """Otsu's threshold by trying every one: the least sum of squares about the two means."""
    cuts = np.unique(values)[:-1]
    spread = [((part := values <= c).sum() * values[part].var() + (~part).sum() * values[~part].var()) for c in cuts]
    return float(cuts[int(np.argmin(spread))])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_plain_outline_is_otsus_largest_part_without_holes(shape: tuple[int, ...]) -> None:
    values, inside = film(shape)
    values[tuple(n // 2 for n in shape)] = 0.0  # a hole
    values[tuple(slice(0, 2) for _ in shape)] = 250.0  # a marker in the corner
    bright = values > best_split(np.round(values))
    parts, _ = ndimage.label(bright)
    largest = parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1
    expected = ndimage.binary_fill_holes(largest)
    outline = otsu_outline(values, flatten=False)
    assert outline.dtype == bool
    assert outline.shape == shape
    np.testing.assert_array_equal(outline, expected)
    np.testing.assert_array_equal(outline, inside)


@pytest.mark.parametrize("shape", SHAPES)
def test_flattening_finds_thin_tissue_on_a_sloping_background(shape: tuple[int, ...]) -> None:
    """Thin tissue 25 above a background that rises by 60 across the film: no single threshold parts the two."""
    rng = np.random.default_rng(1)
    background = 40 + 60 * np.linspace(0, 1, shape[0]).reshape(-1, *[1] * (len(shape) - 1)) + rng.normal(0, 1, shape)
    tissue, bone = disc(shape, 0.85), disc(shape, 0.7)
    values = np.where(bone, 220, background + 25 * tissue)
    found = otsu_outline(values)
    assert (found & tissue).sum() >= 0.99 * tissue.sum()
    assert (found & ~tissue).sum() <= 0.01 * (~tissue).sum()
    plain = otsu_outline(values, flatten=False)
    assert (plain & tissue).sum() < 0.8 * tissue.sum()
    np.testing.assert_array_equal(plain, bone)


@pytest.mark.parametrize("noise", [0.5, 3.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_flattening_does_not_take_noise_for_tissue(shape: tuple[int, ...], noise: float) -> None:
    values = np.where(disc(shape), 100.0, np.random.default_rng(0).normal(20, noise, shape))
    np.testing.assert_array_equal(otsu_outline(values), otsu_outline(values, flatten=False))


def test_flattening_of_an_ideal_film_changes_nothing_and_takes_tensors() -> None:
    values = np.where(disc((40, 30)), 100.0, 0.0)
    np.testing.assert_array_equal(otsu_outline(MetaTensor(torch.as_tensor(values))), disc((40, 30)))


@pytest.mark.parametrize(("fill", "match"), [(3.0, "needs an image with contrast"), (np.nan, "64 of 64 are NaN")])
def test_outline_of_an_image_without_contrast_is_refused(fill: float, match: str) -> None:
    with pytest.raises(LandmarkError, match=match):
        otsu_outline(np.full((8, 8), fill))


# -------------------------------------------------------------------------------------------------------------- matching


def piecewise_linear(values: np.ndarray, reference: np.ndarray, num_points: int) -> np.ndarray:
    """The map by its definition: quantile to quantile, straight lines between."""
    levels = np.linspace(0, 1, num_points + 2)
    return np.interp(values, np.quantile(values, levels), np.quantile(reference, levels))


@pytest.mark.parametrize("num_points", [1, 7, 31])
def test_matching_is_the_piecewise_linear_map_of_quantiles(num_points: int) -> None:
    rng = np.random.default_rng(2)
    values, reference = rng.normal(100, 20, (50, 60)), 30 + 200 * rng.random(9000) ** 2
    expected = piecewise_linear(values, reference, num_points)
    # The filter's quantiles come from histograms: they are good to a bin.
    bin_width = np.ptp(reference) / 1024 + np.ptp(values) / 1024
    result = match_histogram(values, reference, 1024, num_points)
    assert np.abs(result - expected).max() < 4 * bin_width
    assert result.shape == values.shape


@pytest.mark.parametrize("foreground", ["otsu", "otsu_flattened"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_anatomy_gets_the_references_quantiles_and_the_background_stays(
    shape: tuple[int, ...], foreground: str
) -> None:
    values, inside = film(shape, seed=3, power=1.7)
    reference, inside_reference = film((90, 70), seed=4, power=0.6) if len(shape) == 2 else film((20, 31, 24), 4, 0.6)
    affine = torch.diag(torch.tensor([0.3] * len(shape) + [1.0], dtype=torch.float64))
    img = MetaTensor(torch.as_tensor(values)[None], affine=affine, meta={"filename_or_obj": "a.png"})
    matcher = MatchHistogram(reference[None], foreground=foreground)
    result = pickle.loads(pickle.dumps(matcher))(img)  # workers get it pickled
    got, wanted = (np.quantile(v, QUANTILES) for v in (result[0].numpy()[inside], reference[inside_reference]))
    assert np.abs(got - wanted).max() < 2.0
    assert np.abs(np.quantile(values[inside], QUANTILES) - wanted).max() > 30
    np.testing.assert_array_equal(result[0].numpy()[~inside], values[~inside])
    assert torch.equal(result.affine, affine)
    assert result.meta["filename_or_obj"] == "a.png"
    assert torch.equal(img[0].as_tensor(), torch.as_tensor(values)), "the input must not change"


def test_background_can_be_set_or_sent_through_the_same_map() -> None:
    values, inside = film((81, 63), seed=3, power=1.7)
    values[0, 0], values[0, 1], values[0, 2] = 190.0, values[inside].min() - 7, values[inside].max() + 5
    reference = film((90, 70), seed=4, power=0.6)[0]
    img = torch.as_tensor(values)[None]
    outline = {"foreground": lambda x: disc(tuple(x.shape[1:]))[None]}
    number = MatchHistogram(reference, background=-1.0, **outline)(img)[0].numpy()
    assert (number[~inside] == -1).all()
    result = MatchHistogram(reference, background="map", **outline)(img)[0].numpy()
    np.testing.assert_array_equal(result[inside], number[inside])
    order = np.argsort(values, axis=None)
    assert (np.diff(result.ravel()[order]) >= -1e-3).all(), "one rising map for the whole film"
    near = inside & (np.abs(values - 190) < 0.5)
    assert abs(result[0, 0] - result[near].mean()) < 0.5
    assert result[0, 1] == pytest.approx(result[inside].min() - 7, abs=1e-3)
    assert result[0, 2] == pytest.approx(result[inside].max() + 5, abs=1e-3)


def test_without_foreground_the_whole_image_is_matched() -> None:
    rng = np.random.default_rng(0)
    values, reference = rng.random((1, 30, 30)).astype(np.float32), rng.random((1, 50, 40)).astype(np.float32) ** 2
    matched = MatchHistogram(reference, foreground=None)(torch.as_tensor(values))
    assert np.abs(np.quantile(matched, QUANTILES) - np.quantile(reference, QUANTILES)).max() < 0.02


def test_integer_films_stay_integer_and_channels_are_matched_each() -> None:
    values, inside = film((81, 63), 3, 1.7)
    reference = film((81, 63), 4, 0.6)[0]
    exact = MatchHistogram(reference)(torch.as_tensor(np.round(values))[None])
    grey = torch.as_tensor(np.round(values).astype(np.uint8))[None]
    matched = MatchHistogram(reference)(grey)
    assert matched.dtype == torch.uint8
    assert torch.equal(matched, exact.round().to(torch.uint8))
    two = MatchHistogram(np.stack([reference, 2 * reference]))(torch.as_tensor(values)[None].repeat(2, 1, 1))
    torch.testing.assert_close(two[1][inside], 2 * two[0][inside], rtol=1e-3, atol=0.5)
    with pytest.raises(LandmarkError, match="2 channels, the image 3"):
        MatchHistogram(np.stack([reference, reference]))(torch.as_tensor(values)[None].repeat(3, 1, 1))


@pytest.mark.parametrize("suffix", ["png", "nii.gz", "mha"])
def test_the_reference_may_be_a_file(tmp_path: Path, suffix: str) -> None:
    reference = np.round(film((81, 63), 4, 0.6)[0])
    path = tmp_path / f"reference.{suffix}"
    if suffix == "png":
        Image.fromarray(reference.T.astype(np.uint8)).save(path)
    elif suffix == "mha":
        sitk.WriteImage(sitk.GetImageFromArray(reference.T.astype(np.float32)), str(path))
    else:
        nib.save(nib.Nifti1Image(reference, np.eye(4)), path)
    values = torch.as_tensor(film((60, 60), 3, 1.7)[0])[None]
    assert torch.equal(MatchHistogram(path)(values), MatchHistogram(reference[None])(values))
    item = Compose([MatchHistogramd("image", str(path))])({"image": values})
    assert torch.equal(item["image"], MatchHistogram(reference[None])(values))


def test_a_missing_reference_is_told_in_the_constructor(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.png.*working directory"):
        MatchHistogramd("image", tmp_path / "nothing.png")


@pytest.mark.parametrize(
    ("reference", "options", "match"),
    [
        (np.full((1, 9, 9), 4.0), {}, "reference of MatchHistogram is not usable.*contrast"),
        (np.full((1, 9, 9), np.nan), {}, "reference of MatchHistogram is not usable.*NaN"),
        (film((30, 30))[0], {"foreground": lambda x: x < -1}, "foreground is empty"),
        (film((30, 30))[0], {"foreground": lambda x: x[0, :5] > 0}, "mask of shape"),
        (film((30, 30))[0][0], {}, "channel-first"),
        (film((30, 30))[0], {"num_points": 0}, "num_points"),
        (film((30, 30))[0], {"num_levels": 8, "num_points": 8}, "num_levels"),
        (film((30, 30))[0], {"foreground": "otzu"}, "otsu"),
        (film((30, 30))[0], {"background": "keep"}, "map"),
    ],
)
def test_unusable_references_and_options_are_refused_in_the_constructor(reference, options, match) -> None:
    with pytest.raises(ValueError, match=match):
        MatchHistogram(reference, **options)


def test_an_unusable_image_is_named(tmp_path: Path) -> None:
    matcher = MatchHistogram(film((30, 30))[0])
    for fill, match in ((0.0, "contrast"), (np.nan, "NaN")):
        empty = MetaTensor(torch.full((1, 9, 9), fill), meta={"filename_or_obj": "case7.png"})
        with pytest.raises(LandmarkError, match=rf"case7\.png.*{match}"):
            matcher(empty)
    with pytest.raises(LandmarkError, match="foreground is empty"):
        MatchHistogram(film((30, 30))[0], foreground=lambda x: x > 50)(torch.rand(1, 9, 9))


# ------------------------------------------------------------------------------------------------------ real hand films


@pytest.fixture(scope="module")
def hands(request: pytest.FixtureRequest) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every third pixel of the films, (W, H), and their 37 landmarks in those pixels."""
    folder = request.getfixturevalue("real_data")("hand_xrays")
    with (folder / "landmarks37_px.csv").open() as file:
        rows = list(csv.DictReader(file))
    films = {}
    for row in rows:
        points = np.array([[float(row[f"p{i}_{axis}"]) for axis in "xy"] for i in range(1, 38)])
        pixels = np.asarray(Image.open(folder / "images" / f"{row['case']}.png")).T[::3, ::3]
        films[row["case"]] = (pixels.astype(np.float32), points / 3)
    return films


@pytest.mark.real_data
def test_the_outline_of_real_hands_holds_their_landmarks(hands) -> None:
    found = {True: 0, False: 0}
    for case, (pixels, points) in hands.items():
        column, row = np.clip(np.round(points).astype(int), 0, np.array(pixels.shape) - 1).T
        for flatten in found:
            outline = otsu_outline(pixels, flatten)
            found[flatten] += int(outline[column, row].sum())
            if flatten:
                assert 0.35 < outline.mean() < 0.6, case
                assert outline[column, row].sum() >= 36, case
    assert len(hands) == 10
    assert found[True] >= 368, "of 370"
    assert 280 < found[False] < 320, "the plain threshold leaves fingers out"


@pytest.mark.real_data
def test_matching_makes_real_hands_alike(hands) -> None:
    reference, _ = hands["7236"]
    wanted = np.quantile(reference[otsu_outline(reference)], QUANTILES)
    matcher = MatchHistogram(reference)
    for case in ("3147", "3231", "5245"):
        pixels = 255 * (hands[case][0] / 255) ** 1.6  # as another scanner would show it
        outline = otsu_outline(pixels)
        before, after = (
            np.quantile(f[outline], QUANTILES) for f in (pixels, matcher(torch.as_tensor(pixels)[None])[0])
        )
        assert np.abs(before - wanted).mean() > 15
        assert np.abs(after - wanted).mean() < 1.0


# ----------------------------------------------------------------------------------------------------------------- CLAHE


@pytest.mark.parametrize("shape", [(1, 65, 49), (2, 40, 33), (1, 24, 20, 17), (1, 24, 20, 3), (1, 4, 3, 30)])
def test_clahe_is_that_of_scikit_image_in_the_range_of_the_image(shape: tuple[int, ...]) -> None:
    exposure = pytest.importorskip("skimage.exposure")
    values = torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 300 - 50
    affine = torch.diag(torch.tensor([0.3] * (len(shape) - 1) + [1.0], dtype=torch.float64))
    img = MetaTensor(values, affine=affine, meta={"filename_or_obj": "a.png"})
    result = CLAHE(clip_limit=0.03, tile_size=8)(img)
    for channel, got in zip(values.double().numpy(), result.numpy(), strict=True):
        low, high = channel.min(), channel.max()
        # A dummy first axis of one tile, so that scikit-image cannot take the last axis for colours.
        unit = ((channel - low) / (high - low))[None]
        kernel = (1, *np.minimum(8, channel.shape))
        expected = (
            exposure.equalize_adapthist(unit, kernel_size=kernel, clip_limit=0.03)[0]
            if channel.ndim == 3
            else (exposure.equalize_adapthist(unit[0], kernel_size=kernel[1:], clip_limit=0.03))
        )
        np.testing.assert_allclose(got, low + (high - low) * expected, atol=2e-2 * (high - low) / 255)
    assert result.dtype == torch.float32
    assert torch.equal(result.affine, affine)
    assert result.meta["filename_or_obj"] == "a.png"


def texture(strength: float) -> tuple[np.ndarray, tuple[slice, slice]]:
    """A flat area with faint texture beside a strong edge, and where the flat area is."""
    values = np.full((256, 256), 0.3)
    values[:, 160:] = 0.9
    return values + np.random.default_rng(0).normal(0, strength, values.shape), (slice(64, 192), slice(32, 96))


@pytest.mark.parametrize("clip_limit", [0.005, 0.01, 0.02, 0.05])
def test_clahes_contrast_is_limited(clip_limit: float) -> None:
    pytest.importorskip("skimage")
    values, flat = texture(0.002)
    result = CLAHE(clip_limit, tile_size=32)(torch.as_tensor(values)[None])[0].numpy()
    assert 0.8 < (result[flat].std() / values[flat].std()) / (clip_limit * 256) < 1.1


def test_the_filter_of_simpleitk_has_no_such_limit() -> None:
    """Why CLAHE is not done by what SimpleITK calls adaptive histogram equalisation."""
    gains = []
    for strength in (0.01, 0.002):
        values, flat = texture(strength)
        small = tuple(slice(s.start // 2, s.stop // 2) for s in flat)
        values = values[::2, ::2]
        equalise = sitk.AdaptiveHistogramEqualizationImageFilter()
        equalise.SetAlpha(0.3)
        equalise.SetBeta(0.3)
        equalise.SetRadius(8)
        result = sitk.GetArrayFromImage(equalise.Execute(sitk.GetImageFromArray(values.astype(np.float32))))
        gains.append(result[small].std() / values[small].std())
    assert gains[1] > 2 * gains[0] > 8


def test_clahe_of_a_constant_channel_and_of_integers() -> None:
    pytest.importorskip("skimage")
    values = torch.rand(1, 40, 30) * 255
    both = torch.cat([torch.full_like(values, 7.0), values])
    result = CLAHE()(both)
    assert (result[0] == 7).all()
    assert torch.equal(result[1], CLAHE()(values)[0])
    assert CLAHE()(values.to(torch.uint8)).dtype == torch.uint8


def test_tiles_in_millimetres_treat_films_of_any_pixel_size_alike() -> None:
    pytest.importorskip("skimage")
    values = torch.rand(1, 48, 60)
    img = MetaTensor(values, affine=torch.diag(torch.tensor([0.5, 0.25, 1.0], dtype=torch.float64)))
    assert torch.equal(CLAHE(tile_size_mm=4.0)(img).as_tensor(), CLAHE(tile_size=(8, 16))(values))
    assert torch.equal(CLAHE(tile_size_mm=1e6)(img).as_tensor(), CLAHE(tile_size=(48, 60))(values))
    item = {"image": img, "other": 1}
    result = CLAHEd(["image", "absent"], tile_size_mm=4.0, allow_missing_keys=True)(item)
    assert torch.equal(result["image"], CLAHE(tile_size=(8, 16))(img))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"clip_limit": 2.0}, "OpenCV"),
        ({"clip_limit": 0.0}, "clip_limit"),
        ({"tile_size": 8, "tile_size_mm": 3.0}, "not both"),
        ({"tile_size": 0}, "positive"),
        ({"num_bins": 1}, "num_bins"),
    ],
)
def test_clahe_options(options: dict[str, Any], match: str) -> None:
    with pytest.raises(LandmarkError, match=match):
        CLAHE(**options)


def test_clahe_refuses_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skimage")
    broken = MetaTensor(torch.full((1, 9, 9), float("nan")), meta={"filename_or_obj": "case7.png"})
    with pytest.raises(LandmarkError, match=r"81 of 81 in case7\.png are NaN"):
        CLAHE()(broken)
    with pytest.raises(LandmarkError, match="3 numbers, the image 2 axes"):
        CLAHE(tile_size=(8, 8, 8))(torch.rand(1, 9, 9))
    with pytest.raises(LandmarkError, match="as small as"):
        CLAHE()(torch.rand(1, 3, 4, 3))
    with pytest.raises(LandmarkError, match="MetaTensor"):
        CLAHE(tile_size_mm=4.0)(torch.rand(1, 9, 8))
    monkeypatch.setitem(sys.modules, "skimage.exposure", None)
    with pytest.raises(OptionalImportError, match="pip install scikit-image"):
        CLAHE()
