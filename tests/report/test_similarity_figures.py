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
"""Figures of one-shot detection: every score, map and point at its place."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.report import figure_array
from monai_landmarks.report.canvas import PREDICTION, TRUTH
from monai_landmarks.report.similarity_figures import figure_similarity_pyramid, figure_template_ranking

NAN = float("nan")
STRIDES = (32, 16, 8, 4, 2)


def ranking(scores):
    found = [SimpleNamespace(case=c, score=s, keypoints=0 if np.isnan(s) else 7) for c, s in scores.items()]
    return sorted(found, key=lambda one: (np.isnan(one.score), -one.score))


def offsets(ax, gid):
    (found,) = [c for c in ax.collections if c.get_gid() == gid]
    return np.ma.filled(found.get_offsets(), np.nan)


def maps_of(shape, lead=(), seed=0):
    generator = torch.Generator().manual_seed(seed)
    levels = [torch.rand(*lead, *(-(-n // s) for n in shape), generator=generator) for s in STRIDES]
    return levels, torch.rand(*lead, *shape, generator=generator)


def cells_of(ax):
    (found,) = [picture for picture in ax.images if picture.get_gid() == "cells"]
    return found


# --- ranking ------------------------------------------------------------------------------------------------------------


def test_bars_are_the_scores_and_the_ends_are_coloured():
    figure = figure_template_ranking(ranking({"c": 0.2, "a": 0.5, "b": 0.4, "blank": NAN}))
    (chart,) = figure.axes
    assert [bar.get_height() for bar in chart.patches] == [0.5, 0.4, 0.2]
    assert [label.get_text() for label in chart.get_xticklabels()] == ["a", "b", "c"]
    colours = [bar.get_facecolor()[:3] for bar in chart.patches]
    assert [tuple(round(c * 255) for c in colour) for colour in (colours[0], colours[-1])] == [
        tuple(bytes.fromhex(colour[1:])) for colour in (TRUTH, PREDICTION)
    ]
    assert chart.get_ylim()[0] == 0
    assert "'blank'" in chart.get_xlabel()


def test_best_and_worst_are_shown_with_their_keypoints():
    images = {case: torch.rand(1, 30, 40) for case in "abc"}
    points = {case: torch.tensor([[3.0, 5.0], [20.25, 11.5]]) + i for i, case in enumerate("abc")}
    figure = figure_template_ranking(ranking({"c": 0.2, "a": 0.5, "b": 0.4}), images, points)
    _, best, worst = figure.axes
    assert (best.get_title(), worst.get_title()) == ("best: a", "worst: c")
    np.testing.assert_allclose(offsets(best, "keypoints"), points["a"])
    np.testing.assert_allclose(offsets(worst, "keypoints"), points["c"])


def test_many_images_and_volumes_are_drawn():
    affine = torch.diag(torch.tensor([1.0, 1.0, 3.0, 1.0]))
    volume = MetaTensor(torch.rand(1, 12, 15, 9), affine=affine)
    scores = {f"{i:03d}": 1 - i / 200 for i in range(150)}
    point = torch.tensor([[2.0, 3.0, 4.0]])
    figure = figure_template_ranking(ranking(scores), {"000": volume, "149": volume}, {"000": point})
    chart, best, worst = figure.axes
    assert "150" in chart.get_xlabel()
    np.testing.assert_allclose(offsets(best, "keypoints"), [[2.0, 3.0]])
    np.testing.assert_allclose(best.images[0].get_array(), volume[0, :, :, 4].T)
    np.testing.assert_allclose(worst.images[0].get_array(), volume[0, :, :, 4].T)
    assert figure_array(figure, 30).ndim == 3


def test_a_ranking_without_scores_is_refused():
    with pytest.raises(LandmarkError, match="none of the 1 images"):
        figure_template_ranking(ranking({"a": NAN}))


# --- similarity pyramid -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [(), (1, 1)])
@pytest.mark.parametrize("batch", [False, True])
def test_maps_lie_in_the_place_of_their_cells(lead, batch):
    image, template = torch.rand(1, 70, 61), torch.rand(1, 33, 47)
    levels, product = maps_of((70, 61), lead)
    figure = figure_similarity_pyramid(
        image[None] if batch else image,
        template[None] if batch else template,
        torch.tensor([[20.5, 7.0]]),
        levels,
        product,
        torch.tensor([40.0, 11.0]),
        truth=torch.tensor([[42.0, 12.5]]),
    )
    sample, *shown, last = figure.axes
    np.testing.assert_allclose(offsets(sample, "template_point"), [[20.5, 7.0]])
    assert (sample.get_xlim(), sample.get_ylim()) == ((-0.5, 32.5), (46.5, -0.5))
    for ax, level, stride in zip(shown, (*levels, product), (*STRIDES, 1), strict=True):
        picture, cells = cells_of(ax), level.reshape(level.shape[-2:]).numpy()
        np.testing.assert_allclose(picture.get_array(), ((cells - cells.min()) / np.ptp(cells)).T, atol=1e-6)
        across, along = (n * stride - 0.5 for n in cells.shape)
        assert picture.get_extent() == [-0.5, across, -0.5, along]
        assert (ax.get_xlim(), ax.get_ylim()) == ((-0.5, 69.5), (60.5, -0.5)), "cut to the image"
        np.testing.assert_allclose(offsets(ax, "prediction"), [[40.0, 11.0]])
        assert f"{cells.min():.3g} to {cells.max():.3g}" in [text.get_text() for text in ax.texts]
    np.testing.assert_allclose(offsets(last, "prediction"), [[40.0, 11.0]])
    np.testing.assert_allclose(offsets(last, "truth"), [[42.0, 12.5]])
    assert figure_array(figure, 30).ndim == 3


def test_a_volume_is_cut_through_the_found_point():
    image, template = torch.rand(1, 40, 35, 37), torch.rand(1, 20, 18, 16)
    levels, product = maps_of((40, 35, 37))
    found, point = torch.tensor([30.0, 20.0, 33.0]), torch.tensor([5.0, 6.0, 7.0])
    figure = figure_similarity_pyramid(image, template, point, levels, product, found)
    sample, *shown, last = figure.axes
    np.testing.assert_allclose(sample.images[0].get_array(), template[0, :, :, 7].T)
    np.testing.assert_allclose(last.images[0].get_array(), image[0, :, :, 33].T)
    for ax, level, stride in zip(shown, (*levels, product), (*STRIDES, 1), strict=True):
        cells = level[:, :, 33 // stride].numpy()
        expected = (cells - cells.min()) / max(np.ptp(cells), 1e-9)
        np.testing.assert_allclose(cells_of(ax).get_array(), expected.T, atol=1e-6)
    assert figure_array(figure, 30).ndim == 3


def test_maps_that_do_not_fit_are_refused():
    image = torch.rand(1, 70, 61)
    levels, product = maps_of((70, 61))
    point = torch.zeros(2)
    with pytest.raises(LandmarkError, match="one level for each"):
        figure_similarity_pyramid(image, image, point, levels[1:], product, point)
    with pytest.raises(LandmarkError, match="level of stride 32 must be"):
        figure_similarity_pyramid(image, image, point, levels[::-1], product, point)
    with pytest.raises(LandmarkError, match="one landmark and one image"):
        figure_similarity_pyramid(image, image, point, levels, product.expand(2, -1, -1), point)
    with pytest.raises(LandmarkError, match="channel-first"):
        figure_similarity_pyramid(image[0], image, point, levels, product, point)
