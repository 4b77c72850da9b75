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
"""Inverted films: the coarse pattern, the decision, and the film turned back, on drawn and on real films."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor, list_data_collate
from monai.transforms import Compose
from PIL import Image

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.transforms import LoadFilm, LoadFilmd
from monai_landmarks.transforms.film_polarity import (
    MatchPolarity,
    MatchPolarityd,
    film_pattern,
    invert_film,
    polarity_score,
)

AFFINE = torch.diag(torch.tensor([0.2, 0.3, 1.0], dtype=torch.float64))


def drawn_film(size: tuple[int, ...] = (45, 61), top: float = 255, seed: int = 0) -> MetaTensor:
    """A bright blob, left of the middle and high, with noise: (1, *size), whole numbers from 0 to ``top``."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in size], indexing="ij")
    blob = np.exp(-2 * sum((axis + 0.3) ** 2 for axis in axes))
    noisy = blob + 0.05 * np.random.default_rng(seed).random(size)
    scaled = (noisy - noisy.min()) / np.ptp(noisy) * top
    affine = AFFINE if len(size) == 2 else torch.eye(4, dtype=torch.float64)
    return MetaTensor(torch.from_numpy(scaled.round())[None].float(), affine=affine)


REFERENCE = film_pattern([drawn_film(seed=1), drawn_film((80, 70), seed=2)])


# -------------------------------------------------------------------------------------------------------- the inversion


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.float32, torch.float64])
def test_black_and_white_change_places_exactly(dtype):
    values = torch.tensor([[[3, 17, 100], [250, 4, 3]]]).to(dtype)
    inverted = invert_film(values)
    assert inverted.dtype == dtype
    assert inverted.tolist() == [[[250, 236, 153], [3, 249, 250]]]
    assert torch.equal(invert_film(inverted), values)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 65535), min_size=2, max_size=20))
def test_16_bits_are_turned_back_without_loss(greys):
    film = torch.tensor(greys, dtype=torch.float32)[None]
    inverted = invert_film(film)
    assert inverted[0].tolist() == [min(greys) + max(greys) - grey for grey in greys]
    assert torch.equal(invert_film(inverted), film)


# ----------------------------------------------------------------------------------------------------------- the pattern


def test_the_pattern_is_that_of_numpys_block_means():
    films = [drawn_film((48, 64), seed=seed) for seed in (1, 2)]
    blocks = [film.numpy()[0].reshape(8, 6, 8, 8).mean(axis=(1, 3)) for film in films]
    mean = np.mean([(block - block.mean()) / block.std() for block in blocks], axis=0)
    np.testing.assert_allclose(film_pattern(films), mean / mean.std(), atol=0.006)


def test_the_score_is_numpys_correlation():
    film = drawn_film((48, 64))
    blocks = film.numpy()[0].reshape(8, 6, 8, 8).mean(axis=(1, 3))
    expected = np.corrcoef(blocks.ravel(), np.ravel(REFERENCE))[0, 1]
    assert polarity_score(film, REFERENCE) == pytest.approx(expected, abs=1e-6)


def test_the_pattern_goes_through_json_and_takes_a_generator():
    again = json.loads(json.dumps(REFERENCE))
    assert again == film_pattern(film for film in (drawn_film(seed=1), drawn_film((80, 70), seed=2)))
    assert np.shape(again) == (8, 8)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 300), st.floats(-1000, 1000))
def test_brightness_and_contrast_do_not_matter_and_inversion_turns_the_sign(scale, shift):
    film = drawn_film().double()
    score = polarity_score(film, REFERENCE)
    assert score > 0.9
    assert polarity_score(scale * film + shift, REFERENCE) == pytest.approx(score, abs=1e-6)
    assert polarity_score(shift - scale * film, REFERENCE) == pytest.approx(-score, abs=1e-6)
    assert polarity_score(invert_film(film), REFERENCE) == pytest.approx(-score, abs=1e-6)


def test_a_mirrored_film_has_the_same_score():
    film = drawn_film((48, 64))
    assert polarity_score(film.flip(1), REFERENCE) == pytest.approx(polarity_score(film, REFERENCE), abs=1e-9)


def test_a_pattern_needs_films_that_show_one():
    with pytest.raises(LandmarkError, match=r"got 0 film.*training part"):
        film_pattern([])
    with pytest.raises(LandmarkError, match=r"film 2 .*no contrast"):
        film_pattern([drawn_film(), torch.full((1, 9, 9), 0.1)])
    with pytest.raises(LandmarkError, match=r"cancel each other"):
        film_pattern([torch.eye(2)[None], 1 - torch.eye(2)[None]], grid=(2, 2))


# ------------------------------------------------------------------------------------------------------- the transform


def test_an_inverted_film_comes_back_and_says_so():
    film = drawn_film()
    turned = MatchPolarity(REFERENCE)(invert_film(film))
    assert torch.equal(turned, film)
    assert turned.meta["inverted"] is True
    assert turned.meta["polarity_score"] < -0.9
    assert torch.equal(turned.affine, AFFINE)


def test_a_film_in_order_stays_as_it_is_and_the_input_is_not_written_to():
    film = drawn_film()
    kept = MatchPolarity(REFERENCE)(film)
    assert torch.equal(kept, film)
    assert kept.meta["inverted"] is False
    assert kept.meta["polarity_score"] > 0.9
    assert "inverted" not in film.meta


def test_a_second_call_does_nothing_and_keeps_the_record():
    match = MatchPolarity(REFERENCE)
    once = match(invert_film(drawn_film()))
    twice = match(once)
    assert torch.equal(once, twice)
    assert twice.meta["inverted"] is True


@pytest.mark.parametrize("size", [(33, 47, 21), (8, 9, 10)])
def test_volumes_are_turned_too(size):
    volume = drawn_film(size)
    match = MatchPolarity(film_pattern([volume], grid=(4, 4, 4)))
    assert torch.equal(match(invert_film(volume)), volume)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float16])
def test_the_type_stays(dtype):
    film = drawn_film().to(dtype)
    turned = MatchPolarity(REFERENCE)(invert_film(film))
    assert turned.dtype == dtype
    assert torch.equal(turned, film)


def test_arrays_and_several_channels_are_taken():
    film = np.repeat(drawn_film().numpy(), 3, axis=0)
    turned = MatchPolarity(REFERENCE)(film.max() - film)
    assert turned.meta["inverted"]
    np.testing.assert_array_equal(turned.numpy(), film)


def unsure_film() -> MetaTensor:
    """Noise without any pattern."""
    noise = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0))
    return MetaTensor(noise, meta={"filename_or_obj": "folder/odd.png"})


def test_an_unsure_film_is_kept_with_a_warning_that_names_it():
    film = unsure_film()
    with pytest.warns(UserWarning, match=r"'folder/odd.png' is inverted is unsure.*0\.\d\d.*more than 0.4.*kept"):
        kept = MatchPolarity(REFERENCE)(film)
    assert torch.equal(kept, film)
    assert kept.meta["inverted"] is False


def test_an_unsure_film_can_be_an_error():
    with pytest.raises(LandmarkError, match=r"'folder/odd.png'.*upside down.*invert it or take it out"):
        MatchPolarity(REFERENCE, on_unsure="raise")(unsure_film())


def test_a_film_without_contrast_is_unsure_even_without_a_margin():
    assert polarity_score(torch.full((1, 30, 31), 0.1), REFERENCE) == 0
    with pytest.warns(UserWarning, match="unsure"):
        MatchPolarity(REFERENCE, margin=0)(torch.full((1, 30, 31), 7, dtype=torch.uint8))


def test_the_margin_is_the_border_of_acting():
    film = drawn_film() + 150 * torch.rand(1, 45, 61, generator=torch.Generator().manual_seed(0))
    score = polarity_score(film, REFERENCE)
    inverted = invert_film(film)
    assert MatchPolarity(REFERENCE, margin=score - 1e-3)(inverted).meta["inverted"]
    with pytest.warns(UserWarning, match="unsure"):
        assert not MatchPolarity(REFERENCE, margin=score + 1e-4)(inverted).meta["inverted"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 1.0}, r"margin.*\[0, 1\)"),
        ({"margin": float("nan")}, r"margin"),
        ({"reference": [[1.0, 1.0], [1.0, 1.0]]}, r"not all equal"),
        ({"reference": [0.0, 1.0]}, r"one axis for each axis.*\(2,\)"),
        ({"reference": [[0.0, float("nan")]]}, r"finite"),
        ({"reference": [[0.0, 1.0], [2.0]]}, r"nested lists of numbers"),
        ({"reference": "film.png"}, r"nested lists of numbers"),
    ],
)
def test_bad_options_are_refused_when_built(options, message):
    with pytest.raises(LandmarkError, match=message):
        MatchPolarity(**{"reference": REFERENCE, **options})


def test_an_unknown_answer_to_unsure_is_refused():
    with pytest.raises(ValueError, match="ignore"):
        MatchPolarity(REFERENCE, on_unsure="ignore")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_films_with_holes_are_refused(bad):
    film = drawn_film()
    film[0, 3, 4] = bad
    with pytest.raises(LandmarkError, match=r"1 of 2745 values .*NaN or infinite"):
        MatchPolarity(REFERENCE)(film)


def test_a_film_without_channel_axis_is_refused():
    with pytest.raises(LandmarkError, match=r"channel first.*\(45, 61\)"):
        MatchPolarity(REFERENCE)(drawn_film()[0])


# ---------------------------------------------------------------------------------------------------------- in a pipeline


def test_files_of_both_polarities_become_one_batch_with_points_untouched(tmp_path):
    film = drawn_film().numpy()[0].T
    for name, picture in (("normal", film), ("inverted", film.max() - film)):
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / f"{name}.png")
    pipeline = Compose([LoadFilmd("image", pixel_size=0.2), MatchPolarityd("image", REFERENCE)])
    points = torch.tensor([[1.0, 2.0], [float("nan")] * 2])
    batch = list_data_collate(
        [pipeline({"image": tmp_path / f"{name}.png", "landmarks": points}) for name in ("normal", "inverted")]
    )
    assert torch.equal(batch["image"][0], batch["image"][1])
    assert torch.equal(batch["landmarks"][1].nan_to_num(-1), points.nan_to_num(-1))
    np.testing.assert_allclose(batch["image"].affine[1].diagonal(), [0.2, 0.2, 1.0])
    assert batch["image"].meta["inverted"].tolist() == [False, True]


def test_a_tiff_that_declares_zero_white_is_not_turned_twice(tmp_path):
    film = drawn_film().numpy()[0].T.astype(np.uint8)
    Image.fromarray(255 - film).save(tmp_path / "film.tif", tiffinfo={262: 0})
    stored = LoadFilm(pixel_size=1)(tmp_path / "film.tif")
    turned = MatchPolarity(REFERENCE)(stored)
    np.testing.assert_array_equal(turned.numpy()[0].T, film)


def test_a_missing_key_is_allowed_only_on_request():
    item = {"other": 1}
    assert MatchPolarityd("image", REFERENCE, allow_missing_keys=True)(item) == item
    with pytest.raises(KeyError):
        MatchPolarityd("image", REFERENCE)(item)


# -------------------------------------------------------------------------------------------------------------- real films


def decisions(folder: Path, training: list[str], judged: list[str]) -> list[bool]:
    """Whether each judged film, once as it is and once inverted, comes out as the film itself."""
    load = LoadFilm(pixel_size=1)
    match = MatchPolarity(film_pattern(load(folder / name) for name in training))
    films = [load(folder / name) for name in judged]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return [torch.equal(match(given), film) for film in films for given in (film, invert_film(film))]


@pytest.mark.real_data
def test_real_cephalograms(real_data):
    folder = real_data("isbi2015_cephalograms") / "RawImage"
    training = [f"TrainingData/{number:03}.jpg" for number in (1, 40, 80, 120)]
    assert all(decisions(folder, training, [f"Test1Data/{number}.jpg" for number in (151, 200, 276, 300)]))


@pytest.mark.real_data
def test_real_hands(real_data):
    folder = real_data("hand_xrays") / "images"
    names = sorted(path.name for path in folder.glob("*.png"))
    assert all(decisions(folder, names[::2], names[1::2]))


@pytest.mark.real_data
def test_a_real_spine_film_that_would_be_decided_wrongly_is_unsure(real_data):
    folder = real_data("aasce_spine_xrays") / "data" / "training"
    load = LoadFilm(pixel_size=1)
    names = sorted(path.name for path in folder.glob("*.jpg"))
    odd = "sunhl-1th-10-Jan-2017-244 B AP.jpg"  # dark below and bright above, unlike the rest
    reference = film_pattern(load(folder / name) for name in names[::20] if name != odd)
    film = load(folder / odd)
    assert polarity_score(film, reference) < 0
    with pytest.warns(UserWarning, match=r"244 B AP.jpg' is inverted is unsure"):
        assert torch.equal(MatchPolarity(reference)(film), film)
