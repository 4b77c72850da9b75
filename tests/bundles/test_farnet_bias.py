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
"""No step between a film and a landmark's place on it moves the landmark: FARNet's bundles, from the file and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from film_bundle_runs import files
from monai.bundle import ConfigParser
from PIL import Image

from monai_landmarks.data.datasets import aasce_datalist, isbi2015_datalist
from monai_landmarks.data.phantoms import write_cephalogram_phantom, write_spine_xray_phantom
from monai_landmarks.geometry import voxel_sizes
from monai_landmarks.heatmaps import decode_heatmaps, gaussian_heatmaps
from monai_landmarks.networks import FARNet
from monai_landmarks.transforms import LandmarksWorldToImage, LoadFilm
from monai_landmarks.transforms.landmarks_follow import check_landmarks_follow

BUNDLES = ("cephalometric_xray", "spine_xray")
LIMIT = 0.02  # pixels
REDUCTION = 16
FILMS = {"cephalometric_xray": ((484, 600), 0.4, 0.15), "spine_xray": ((250, 560), 1000 / 560, 500 / 560)}
"""Width and height of a film in pixels, size of a pixel and place of the first one, in the bundle's units."""


def configuration(bundle: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(files(bundle, "train", "farnet_small"))
    return parser


def cephalogram(root: Path) -> tuple[dict[str, Any], np.ndarray]:
    """An item, and what its text files say: pixels of the original film, which has ten per millimetre."""
    write_cephalogram_phantom(root, num_training=1, num_test1=0, reduction=REDUCTION)
    item = isbi2015_datalist(root, "training", "mean")[0]
    readers = [np.loadtxt(root / f"400_{name}" / "001.txt", delimiter=",") for name in ("junior", "senior")]
    return item, np.mean(readers, axis=0)


def spine_film(root: Path) -> tuple[dict[str, Any], np.ndarray]:
    """An item, and what its table says: pixels of the film, the centre of whose first one lies half a pixel inside."""
    write_spine_xray_phantom(root, num_patients=1, reduction=REDUCTION)
    tables = root / "labels" / "training"
    names = (tables / "filenames.csv").read_text().split("\n")
    item = next(item for item in aasce_datalist(root) if Path(item["image"]).name == names[0])
    fractions = np.loadtxt(tables / "landmarks.csv", delimiter=",", ndmin=2)[0].reshape(2, 68).T
    with Image.open(item["image"]) as film:
        return item, fractions * film.size - 0.5


READERS: dict[str, Callable[[Path], tuple[dict[str, Any], np.ndarray]]] = {
    "cephalometric_xray": cephalogram,
    "spine_xray": spine_film,
}


class Way:
    """A bundle, one of its films, and what lies on the way of its landmarks to the loss and back."""

    def __init__(self, bundle: str, root: Path) -> None:
        self.bundle, self.parser = bundle, configuration(bundle)
        self.item, self.truth = READERS[bundle](root)
        self.loss = self.parser.get_parsed_content("loss_def")
        with torch.device("meta"):
            network = self.parser.get_parsed_content("network_def")
            self.shapes = [one.shape[1:] for one in network(torch.empty(2, 1, *self.parser["grid"]))]

    def film_pixels(self, world: np.ndarray) -> np.ndarray:
        """Lead points from the bundle's world to pixels of the film, as the publishers of the data count them."""
        if self.bundle == "cephalometric_xray":
            return 10 * world
        with Image.open(self.item["image"]) as film:
            return world * film.height / 1000 - 0.5

    def targets(self, points: torch.Tensor) -> list[torch.Tensor]:
        """The maps, coarse and fine, that the configured loss compares the configured network's maps with."""
        drawn: dict[torch.Size, torch.Tensor] = {}
        formula = self.loss.loss.formula

        def record(difference: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            drawn[target.shape[1:]] = target.clone()
            return formula(difference, target)

        with patch.object(self.loss.loss, "formula", record):
            self.loss([torch.zeros(1, *shape) for shape in self.shapes], points[None])
        return [drawn[shape] for shape in self.shapes]

    def decode(self, maps: torch.Tensor) -> torch.Tensor:
        return decode_heatmaps(maps, self.parser["decoder"]).points[0]


@pytest.fixture(scope="module", params=BUNDLES)
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Way:
    return Way(request.param, tmp_path_factory.mktemp(request.param))


def test_film_lies_under_its_points_as_published(way: Way) -> None:
    """A film reduced by k holds original pixel x at (x + 1/2) / k - 1/2; fractions are of the film's whole extent."""
    film = LoadFilm()(way.item["image"], way.item["pixel_size"], way.item["origin"])
    found = LandmarksWorldToImage()(torch.as_tensor(way.item["landmarks"]), film).numpy()
    reduction = REDUCTION if way.bundle == "cephalometric_xray" else 1
    assert np.abs(found - ((way.truth + 0.5) / reduction - 0.5)).max() < LIMIT


def test_target_of_the_loss_is_decoded_to_the_films_own_pixel(way: Way) -> None:
    """Film, file of points, preprocessing, target, decoder, world: in pixels of the film as its publishers count."""
    sent = way.parser.get_parsed_content("validate#preprocessing")(way.item)
    coarse, fine = way.targets(sent["points"])
    received = way.parser.get_parsed_content("validate#postprocessing")({**sent, "pred": fine[0]})["pred_points"]
    in_film = way.film_pixels(received.numpy()) - way.truth
    in_grid = (received - torch.as_tensor(way.item["landmarks"])) / voxel_sizes(sent["image"].affine)[:2]
    assert max(np.abs(in_film).max(), in_grid.abs().max()) < LIMIT
    assert (2 * way.decode(coarse) + 0.5 - sent["points"]).abs().max() < LIMIT


def test_both_targets_of_augmented_films_are_where_the_points_are(way: Way) -> None:
    augment = way.parser.get_parsed_content("train#preprocessing").set_random_state(0)
    for _ in range(3):
        points = augment(dict(way.item))["points"]
        # Of a map that is cut at its peak only one side is seen.
        inside = ((points > 1) & (points < torch.tensor(way.parser["grid"]) - 2)).all(dim=-1)
        assert inside.sum() > 9
        coarse, fine = way.targets(points)
        for found in (way.decode(fine), 2 * way.decode(coarse) + 0.5):
            assert (found - points)[inside].abs().max() < LIMIT


def write_film(array: np.ndarray, affine: np.ndarray, path: Path) -> Path:
    """Write a film with a bright edge, so that it is the edge and not the blob that the percentiles clip."""
    film = np.rint(array).astype(np.uint8).T.copy()
    film[:, : film.shape[1] // 25] = 255
    Image.fromarray(film).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("part", ["validate", "train"])
def test_points_follow_what_the_film_shows(bundle: str, part: str) -> None:
    """Blobs drawn in a film are found in what the network is given, with all augmentation, where the points are."""
    shape, pixel, first = FILMS[bundle]
    parser = configuration(bundle)
    parser["landmark_names"] = parser.get_parsed_content("landmark_names")[:10]
    report = check_landmarks_follow(
        parser.get_parsed_content(f"{part}#preprocessing"),
        spatial_shape=shape,
        affine=np.array([[pixel, 0, first], [0, pixel, first], [0, 0, 1]]),
        item={"pixel_size": (pixel, pixel), "origin": (first, first), "case": "drawn"},
        image_file=write_film,
        decode=parser["decoder"],
        tolerance=LIMIT,
        draws=1,
    )
    report.raise_if_failed()
    assert report.residuals.isfinite().all(dim=-1).sum() > 5
    assert all(stage.mean.nan_to_num().abs().max() < LIMIT / 4 for stage in report.stages)


@pytest.mark.parametrize(("dims", "shape"), [(2, (40, 31)), (3, (23, 20, 18))])
@pytest.mark.parametrize("sigma", [2.0, 4.0])
def test_coarse_maps_are_enlarged_without_a_shift(dims: int, shape: tuple[int, ...], sigma: float) -> None:
    """A peak at coarse place c is at 2 c + 0.5 of the image after the enlargement of the network itself."""
    aggregation = FARNet(dims, 1, 1, "resnet18", width=0.0625).aggregation
    generator = torch.Generator().manual_seed(0)
    places = 5 + torch.rand(1, 200, dims, generator=generator) * (torch.tensor(shape) - 11)
    enlarged = aggregation.enlarge(gaussian_heatmaps(places, shape, sigma))
    found = decode_heatmaps(enlarged, "gaussian_fit", spatial_dims=dims).points
    error = (found - (2 * places + 0.5))[0]
    assert error.mean(dim=0).abs().max() < LIMIT / 4
    assert error.abs().max() < LIMIT
