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
"""The phantom spine film: truth of its corners and angles, variation, and its folder in the layout of the AASCE films."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_landmarks.data.datasets.aasce import aasce_datalist, aasce_disordered_films
from monai_landmarks.data.phantoms.drawing import Film
from monai_landmarks.data.phantoms.spine_film import draw_spine_film, draw_spine_shape
from monai_landmarks.data.phantoms.spine_xray import spine_xray_phantom, write_spine_xray_phantom
from monai_landmarks.protocols import get_protocol


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_spine_xray_phantom(tmp_path_factory.mktemp("spine") / "set", 8, seed=7, reduction=16)


def test_bodies_are_drawn_through_their_corners():
    """Oracle: just inside a corner, on the body's diagonal, a clean film is brighter than just outside, on the whole."""
    steps = []
    for seed in range(4):
        film, points, _ = spine_xray_phantom(seed, 4, noise=0)
        corners = (points * film.shape[::-1] - 0.5).reshape(17, 4, 2)
        diagonal = corners.mean(axis=1, keepdims=True) - corners
        diagonal /= np.linalg.norm(diagonal, axis=-1, keepdims=True)
        inside, outside = (np.rint(corners + shift * diagonal).astype(int) for shift in (2.5, -2.5))
        values = [film[p[..., 1], p[..., 0]].astype(float) for p in (inside, outside)]
        steps.append(values[0] - values[1])
    step = np.concatenate(steps)
    assert (step > 0).mean() > 0.85
    assert np.median(step, axis=0).min() > 3


def test_same_spine_at_every_reduction():
    _, fine, angles = spine_xray_phantom(5, 8)
    film, coarse, same = spine_xray_phantom(5, 16)
    np.testing.assert_allclose(coarse, fine, atol=1e-12)
    assert np.array_equal(angles, same)
    assert film.dtype == np.uint8
    again = spine_xray_phantom(5, 16)
    assert np.array_equal(film, again[0])
    assert not np.array_equal(spine_xray_phantom(6, 16)[1], coarse)


def test_scoliosis_is_that_of_the_data_set_or_none():
    """Medians of the real table: 37, 19 and 16 degrees; 5 and 95 % of the main angle are 11 and 72."""
    angles = np.stack([draw_spine_shape(*np.random.default_rng(seed).spawn(2)).angles() for seed in range(300)])
    assert np.allclose(np.median(angles, axis=0), (36, 18, 14), atol=5)
    assert np.allclose(np.percentile(angles[:, 0], (5, 95)), (13, 74), atol=5)
    straight = draw_spine_shape(*np.random.default_rng(0).spawn(2), scoliosis=0.0)
    assert straight.angles().max() == 0


def test_corners_stay_on_the_film_and_aspects_are_like_the_real_ones():
    spines = [draw_spine_shape(*np.random.default_rng(seed).spawn(2)) for seed in range(300)]
    corners = np.stack([own.corners[own.named] / own.size_mm for own in spines])
    assert corners.min() > 0.01
    assert corners.max() < 0.99
    aspects = [own.size_mm[0] / own.size_mm[1] for own in spines]
    assert 0.22 < min(aspects) < 0.3 < np.median(aspects) < 0.45 < max(aspects) < 0.6
    assert all(
        own.size_mm[axis] / 3.2 == pytest.approx(round(own.size_mm[axis] / 3.2)) for own in spines for axis in (0, 1)
    )


def test_film_in_larger_pixels_is_the_reduced_film():
    own = draw_spine_shape(*np.random.default_rng(3).spawn(2))
    size = [round(side / 1.6) for side in own.size_mm]
    films = [
        draw_spine_film(Film(own.size_mm, (size[0] * k, size[1] * k), 1.6 / k, 0.0), own, np.random.default_rng(0))
        for k in (1, 2)
    ]
    reduced = films[1].reshape(size[1], 2, size[0], 2).mean(axis=(1, 3))
    assert np.abs(films[0] - reduced).mean() < 0.01


def test_reader_reads_what_was_written(folder):
    entries = aasce_datalist(folder)
    assert len({entry["patient"] for entry in entries}) == 8
    assert len(entries) > 8
    for entry in entries:
        width, height = Image.open(entry["image"]).size
        corners = ((entry["landmarks"] - entry["origin"]) / entry["pixel_size"]).reshape(17, 4, 2)
        assert (corners > 0).all()
        assert (corners < (width - 1, height - 1)).all()
        side = (corners[:, 1] + corners[:, 3] - corners[:, 0] - corners[:, 2]) / 2
        tilts = np.rad2deg(np.arctan2(side[:, 1], side[:, 0]))
        assert entry["angles"][0] == pytest.approx(np.ptp(tilts), abs=0.01)
    assert aasce_disordered_films(folder) == {}
    parts = [aasce_datalist(folder, part, num_validation=2) for part in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(entries)


def test_visits_of_a_patient_resemble_each_other(folder):
    entries = aasce_datalist(folder)
    patient = next(entry["patient"] for entry in entries if entry["case"].endswith(" B AP"))
    angles = [entry["angles"][0] for entry in entries if entry["patient"] == patient]
    assert 0 < np.ptp(angles) < 0.5 * np.mean(angles)


def test_film_depends_on_patient_and_letter_alone(folder, tmp_path):
    fewer = write_spine_xray_phantom(tmp_path / "fewer", 1, seed=7, reduction=16)
    for path in (fewer / "data/training").iterdir():
        assert path.read_bytes() == (folder / "data/training" / path.name).read_bytes()
    for table in ("filenames", "landmarks", "angles"):
        text = (fewer / f"labels/training/{table}.csv").read_text()
        assert (folder / f"labels/training/{table}.csv").read_text().startswith(text)


def test_interrupted_phantom_is_refused_and_completed(tmp_path):
    root = write_spine_xray_phantom(tmp_path / "set", 1, reduction=32)
    film = next((root / "data/training").iterdir())
    before = film.read_bytes()
    for lost in (film, root / "PHANTOM.json", root / "labels/training/angles.csv"):
        lost.unlink()
    with pytest.raises(FileNotFoundError, match="is incomplete"):
        aasce_datalist(root)
    write_spine_xray_phantom(root, 1, reduction=32)
    assert film.read_bytes() == before
    assert get_protocol("aasce/thousandths", dataset_dir=root).is_phantom


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="num_patients must be 1 to"):
        write_spine_xray_phantom(tmp_path / "a", 0)
    with pytest.raises(ValueError, match="reduction must be a positive integer"):
        spine_xray_phantom(reduction=0)
    (tmp_path / "real.csv").touch()
    with pytest.raises(ValueError, match="not empty and holds no phantom"):
        write_spine_xray_phantom(tmp_path, 1)
