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
"""Fractions of the image, in the metric and in an engine, against NumPy on all films at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.handlers.image_fractions import ImageFractions
from monai_landmarks.metrics.image_fractions import ImageFractionMetric
from monai_landmarks.transforms import FitToGrid

SHAPES = ((40, 100), (71, 95), (30, 61))
"""Pixels of three films."""


def films() -> list[dict[str, Any]]:
    """Points in thousandths of the height, as of the spine films; one is missing, one was not predicted."""
    random = np.random.default_rng(0)
    items = []
    for shape in SHAPES:
        fractions = random.uniform(size=(2, 4, 2))
        world = fractions * np.array(shape) * 1000 / shape[1]
        affine = torch.diag(torch.tensor([1000 / shape[1], 1000 / shape[1], 1.0], dtype=torch.float64))
        film = MetaTensor(torch.zeros(1, *shape), affine, {"spatial_shape": shape, "original_affine": affine})
        items.append({"fractions": fractions, "pred": world[0], "true": world[1], "image": film})
    items[0]["true"][1] = items[0]["fractions"][1, 1] = np.nan
    items[1]["pred"][2] = items[1]["fractions"][0, 2] = np.nan
    return items


def expected() -> tuple[float, float]:
    pred, true = np.concatenate([item["fractions"] for item in films()], axis=1).reshape(2, -1)
    both = np.isfinite(pred + true)
    return np.mean((pred - true)[both] ** 2), np.corrcoef(pred[both], true[both])[0, 1]


def run(statistic: str, key: str = "image") -> float:
    config = {
        "_target_": "monai_landmarks.handlers.image_fractions.ImageFractions",
        "statistic": statistic,
        "output_transform": f"$monai.handlers.from_engine(['pred', 'true', '{key}'])",
    }
    engine = Engine(lambda engine, batch: batch)
    ConfigParser({"handler": config}).get_parsed_content("handler").attach(engine, "found")
    engine.run([films()[:2], films()[2:]], max_epochs=2)
    return engine.state.metrics["found"]


def test_number_is_over_all_points_of_all_films() -> None:
    assert run("mse") == pytest.approx(expected()[0])
    assert run("pearson") == pytest.approx(expected()[1])


def test_extent_is_that_of_the_file_and_not_of_the_grid() -> None:
    items = films()
    for item in items:
        item["image"] = FitToGrid((32, 64), "fit", fill=-1)(item["image"])[0]
    engine = Engine(lambda engine, batch: batch)
    transform = lambda output: tuple([item[key] for item in output] for key in ("pred", "true", "image"))  # noqa: E731
    ImageFractions("mse", transform).attach(engine, "found")
    engine.run([items])
    assert engine.state.metrics["found"] == pytest.approx(expected()[0])


def test_metric_counts_what_was_not_predicted() -> None:
    metric = ImageFractionMetric("pearson")
    for item, shape in zip(films(), SHAPES, strict=True):
        metric([item["pred"]], [item["true"]], size=[[1000 * shape[0] / shape[1], 1000.0]])
    assert metric.aggregate().item() == pytest.approx(expected()[1])
    assert (metric.num_missed, metric.higher_is_better) == (1, True)


def test_wrong_input_is_refused() -> None:
    points = torch.zeros(1, 3, 2)
    with pytest.raises(LandmarkError, match="`size`"):
        ImageFractionMetric()(points, points)
    for size in ([[1.0, 0.0]], [1.0, 1.0], [[1.0, 1.0], [1.0, 1.0]]):
        with pytest.raises(LandmarkError, match="positive extents of 1 images"):
            ImageFractionMetric()(points, points, size=size)
    with pytest.raises(ValueError, match="rho"):
        ImageFractionMetric("rho")
    with pytest.raises(LandmarkError, match="meta data"):
        run("mse", key="true")
