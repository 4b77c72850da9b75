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
"""Films of 8, 12 and 16 bits and in colour: the same film in every file gives a network the same input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import ScaleIntensityRanged, ScaleIntensityRangePercentilesd
from PIL import Image

from monai_landmarks.data.film_pixels import scale_to_white
from monai_landmarks.data.film_reader import FilmReader
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.transforms import LoadFilm, LoadFilmd

GREY = np.arange(256, dtype=np.uint8).reshape(8, 32)  # (rows, columns), every grey once


def load(path: Path, **options: Any) -> torch.Tensor:
    """The film through LoadFilmd, as (rows, columns)."""
    item = LoadFilmd("image", **{"pixel_size": 1.0, **options})({"image": path})
    return item["image"][0].T


def save(path: Path, picture: np.ndarray) -> Path:
    Image.fromarray(picture).save(path)
    return path


# ------------------------------------------------------------------------------------------------- values as in the file


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("factor", [1, 16, 257])
def test_16_bit_files_keep_their_values(tmp_path, suffix, factor):
    film = load(save(tmp_path / f"f.{suffix}", GREY.astype(np.uint16) * factor))
    assert film.dtype == torch.float32
    np.testing.assert_array_equal(film.numpy(), GREY.astype(np.float32) * factor)


def as_rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


COLOUR_FILES = [
    ("rgb.png", as_rgb, 0),
    ("rgb.tif", as_rgb, 0),
    ("rgb.bmp", as_rgb, 0),
    ("rgb.jpg", as_rgb, 3),  # JPEG itself loses that much of this picture, grey or not
    ("rgba.png", lambda image: image.convert("RGBA"), 0),
    ("rgba.tif", lambda image: image.convert("RGBA"), 0),
    ("la.png", lambda image: image.convert("LA"), 0),
    ("palette.png", lambda image: image.convert("P"), 0),
    ("palette.tif", lambda image: image.convert("P"), 0),
    ("palette.bmp", lambda image: image.convert("P"), 0),
]


@pytest.mark.parametrize(("name", "convert", "tolerance"), COLOUR_FILES)
def test_a_grey_film_in_a_colour_file_is_the_grey_film(tmp_path, name, convert, tolerance):
    convert(Image.fromarray(GREY)).save(tmp_path / name)
    film = load(tmp_path / name, white=255)
    assert np.abs(film.numpy() - GREY).max() <= tolerance


def test_a_coloured_film_is_refused_or_becomes_its_luminance(tmp_path):
    path = save(tmp_path / "f.png", np.stack([GREY, GREY // 2, GREY // 4], axis=-1))
    with pytest.raises(LandmarkError, match="colour='luminance'"):
        load(path)
    expected = 0.299 * GREY + 0.587 * (GREY // 2) + 0.114 * (GREY // 4)
    assert np.abs(load(path, colour="luminance", white=255).numpy() - expected).max() <= 0.51


# ------------------------------------------------------------------------------------------------------- scaled to white


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_with_white_a_film_of_16_bits_is_exactly_that_of_8(tmp_path, suffix):
    shallow = load(save(tmp_path / f"8.{suffix}", GREY), white=255)
    deep = load(save(tmp_path / f"16.{suffix}", GREY.astype(np.uint16) * 257), white=255)
    np.testing.assert_array_equal(shallow.numpy(), GREY)
    assert torch.equal(deep, shallow)


@pytest.mark.parametrize(
    ("top", "bits"), [(255, 8), (256, 10), (1023, 10), (4095, 12), (4096, 14), (16383, 14), (16384, 16), (65535, 16)]
)
def test_the_bits_are_the_fewest_usual_ones_that_hold_the_film_and_are_recorded(tmp_path, top, bits):
    path = save(tmp_path / "f.png", np.array([[0, top // 2, top]], dtype=np.uint16))
    film = LoadFilm(pixel_size=1, white=1.0)(path)
    assert film.meta["bits"] == bits
    np.testing.assert_allclose(film.ravel(), np.array([0, top // 2, top]) / (2**bits - 1), rtol=1e-6)


def test_the_bits_can_be_given(tmp_path):
    dark = save(tmp_path / "f.png", np.array([[0, 200, 3000]], dtype=np.uint16))
    np.testing.assert_allclose(load(dark, white=255, bits=16).ravel(), np.array([0, 200, 3000]) / 257, rtol=1e-6)
    with pytest.raises(LandmarkError, match=r"'f.png' has values from 0 to 3000, which 10 bits do not hold"):
        load(dark, white=255, bits=10)
    assert load(save(tmp_path / "8.png", GREY), white=255, bits=12).max() == 255  # a film of 8 bits is known to be one


def test_without_white_nothing_is_scaled_or_recorded(tmp_path):
    film = LoadFilm(pixel_size=1)(save(tmp_path / "f.png", GREY.astype(np.uint16) * 257))
    assert film.max() == 65535
    assert "bits" not in film.meta


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 65535), min_size=1, max_size=30), st.sampled_from([1.0, 255.0]))
def test_order_is_kept_and_nothing_is_clipped(greys, white):
    scaled, bits = scale_to_white(np.array(greys, dtype=np.uint16), Path("f.png"), white, None)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, np.array(greys, dtype=np.float64) / (2**bits - 1) * white, rtol=1e-6)
    assert scaled.min() >= 0
    assert scaled.max() <= white


def test_pixels_without_a_white_are_refused(tmp_path):
    with pytest.raises(LandmarkError, match=r"float32 pixels.*ScaleIntensityRangePercentilesd"):
        load(save(tmp_path / "f.tif", GREY.astype(np.float32)), white=255)
    with pytest.raises(LandmarkError, match=r"values from 0 to 2550000, which 16 bits do not hold"):
        load(save(tmp_path / "i.tif", GREY.astype(np.int32) * 10000), white=255)
    with pytest.raises(LandmarkError, match=r"values from -1 to 254"):
        load(save(tmp_path / "n.tif", GREY.astype(np.int32) - 1), white=255)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"white": 0}, "white must be a positive number"),
        ({"white": "255"}, "white must be"),
        ({"white": float("inf")}, "white must be"),
        ({"bits": 12}, "goes with white"),
        ({"white": 255, "bits": 7}, "bits must be a whole number from 8 to 31"),
        ({"white": 255, "bits": 12.0}, "bits must be"),
    ],
)
def test_bad_options_are_refused_when_built(options, message):
    with pytest.raises(ValueError, match=message):
        FilmReader(**options)


# ---------------------------------------------------------------------------------------------------- what a network sees


FIXED = ScaleIntensityRanged("image", a_min=0, a_max=255, b_min=-1, b_max=1)
PERCENTILES = ScaleIntensityRangePercentilesd("image", lower=1, upper=99, b_min=-1, b_max=1, clip=True)


def seen(path: Path, scale: Any, **options: Any) -> torch.Tensor:
    return scale(LoadFilmd("image", pixel_size=1.0, **options)({"image": path}))["image"]


def test_limits_of_8_bits_need_white(tmp_path):
    path = save(tmp_path / "f.png", GREY.astype(np.uint16) * 257)
    assert seen(path, FIXED).max() == pytest.approx(513)  # far outside what a network was trained on
    assert seen(path, FIXED, white=255).max() == 1


@pytest.mark.real_data
@pytest.mark.parametrize("factor", [16, 257])
@pytest.mark.parametrize(("scale", "options"), [(PERCENTILES, {}), (FIXED, {"white": 255, "bits": None})])
def test_a_real_film_of_more_bits_gives_the_same_input(tmp_path, real_data, factor, scale, options):
    folder = real_data("aasce_spine_xrays") / "data" / "training"
    film = np.asarray(Image.open(folder / "sunhl-1th-02-Jan-2017-162 A AP.jpg").convert("L"))[::3, ::3]
    shallow = seen(save(tmp_path / "8.png", film), scale, **options)
    deep = seen(save(tmp_path / "16.png", film.astype(np.uint16) * factor), scale, **options)
    # 12 bits end at 4095 and 16 * 255 is 4080: white comes out by 15 of 4095 darker.
    tolerance = 2 * 15 / 4095 + 1e-6 if factor == 16 and scale is FIXED else 1e-5
    assert (deep - shallow).abs().max() <= tolerance


@pytest.mark.real_data
def test_what_8_bits_leave_out_is_all_that_differs(tmp_path, real_data):
    folder = real_data("isbi2015_cephalograms") / "RawImage" / "TrainingData"
    film = np.asarray(Image.open(folder / "001.jpg").convert("L"), dtype=np.float64)
    fine = (
        film[: 4 * (film.shape[0] // 4), : 4 * (film.shape[1] // 4)].reshape(film.shape[0] // 4, 4, -1, 4).mean((1, 3))
    )
    deep = save(tmp_path / "16.png", (fine * 257).round().astype(np.uint16))
    shallow = save(tmp_path / "8.png", fine.round().astype(np.uint8))
    assert load(deep).unique().numel() > 1000  # more greys than 8 bits have
    low, high = np.percentile(fine, [1, 99])
    # Half a grey of the pixel and half of each limit, on a range that goes to 2.
    error = (seen(deep, PERCENTILES) - seen(shallow, PERCENTILES)).abs().max()
    assert error <= 2 * 1.5 / (high - low - 1)
    error = (seen(deep, FIXED, white=255) - seen(shallow, FIXED, white=255)).abs().max()
    assert error <= 2 * 0.51 / 255
