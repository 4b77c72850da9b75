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
"""The choice of the image to annotate: keypoints, scores against a slow loop, what the ranking does not depend on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from monai.data import Dataset
from torch.nn import functional as F

from monai_landmarks.engines.template_choice import _highest_products, choose_template, find_keypoints, suggest_template
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.networks.nets.patch_matching_net import PatchMatchingNet
from monai_landmarks.networks.nets.template_matching_net import TemplateMatchingNet

OPTIONS = {"keypoints_per_image": 5, "min_distance": 6.0, "border": 0.1}


def blobs(shape, centres, sigma=3.0, heights=None):
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    heights = heights or [1.0] * len(centres)
    image = sum(
        h * np.exp(-sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) / (2 * sigma**2))
        for h, centre in zip(heights, centres, strict=True)
    )
    return torch.from_numpy(image).float()[None]


def film(seed, shape=(72, 61), noise=0.02):
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0.15, 0.85, (8, len(shape))) * shape
    image = blobs(shape, centres, 3.0, rng.uniform(0.4, 1, 8).tolist())
    return image + noise * torch.from_numpy(rng.normal(size=image.shape)).float()


def matcher_of(dims=2, seed=0, **options):
    torch.manual_seed(seed)
    return PatchMatchingNet(dims, encoder="resnet18", width=0.125, embedding=16, **options).eval()


@pytest.fixture(scope="module")
def matcher():
    """E_p and E_r that differ, as after a training."""
    net = matcher_of()
    for parameter in net.patch_pyramid.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return net


def scores(ranking):
    return {one.case: one.score for one in ranking}


# --- keypoints ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(80, 61), (40, 33, 36)])
def test_keypoints_are_the_drawn_blobs_the_strongest_first(shape):
    centres = np.array([[0.3] * len(shape), [0.7] * len(shape)]) * shape
    image = blobs(shape, np.round(centres), 3.0, [0.6, 1.0])
    points = find_keypoints(image)[:2].numpy()
    np.testing.assert_allclose(points, np.round(centres)[::-1], atol=0.3)


def test_keypoints_between_pixels_are_found_without_a_shift():
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(12):
        centre = rng.uniform(35, 45, 2)
        errors.append(find_keypoints(blobs((80, 80), [centre], 4.0))[0].numpy() - centre)
    assert np.abs(np.mean(errors, axis=0)).max() < 0.1  # scikit-image's own positions are 0.25 too large


@pytest.mark.parametrize("centre", [(4, 40), (75, 40), (40, 4), (40, 55)])
def test_no_border_has_keypoints(centre):
    image = blobs((80, 60), [centre], 3.0)
    near = (find_keypoints(image, border=0.0) - torch.tensor(centre)).norm(dim=-1)
    assert near.min() < 2
    points = find_keypoints(image, border=0.2, contrast_threshold=0.01)
    assert ((points + 0.5 > torch.tensor([16, 12])) & (points + 0.5 < torch.tensor([64, 48]))).all()


def test_keypoints_keep_their_distance_and_the_strongest_stay():
    image = film(1, (120, 100))
    all_points = find_keypoints(image, 999, min_distance=0, border=0, contrast_threshold=0.01)
    points = find_keypoints(image, 999, min_distance=10, border=0, contrast_threshold=0.01)
    kept = []
    for point in all_points:
        if all((point - other).norm() >= 10 for other in kept):
            kept.append(point)
    assert len(all_points) > len(kept) > 3
    assert torch.equal(points, torch.stack(kept))
    assert torch.equal(find_keypoints(image, 3, 10, 0, 0.01), points[:3])


@pytest.mark.parametrize("shape", [(64, 64), (16, 5), (9, 8, 7)])
def test_an_image_of_one_grey_has_no_keypoints(shape):
    assert find_keypoints(torch.full((1, *shape), 7.0)).shape == (0, len(shape))


def test_keypoints_do_not_depend_on_the_range_of_intensities():
    image = film(2)
    torch.testing.assert_close(find_keypoints(image), find_keypoints(image * 700 - 100), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (torch.rand(40, 40), {}, "channel-first"),
        (torch.full((1, 40, 40), float("nan")), {}, "NaN"),
        (torch.rand(1, 40, 40), {"border": 0.5}, "border"),
        (torch.rand(1, 40, 40), {"count": 0}, "count"),
    ],
)
def test_bad_keypoint_input_is_refused(image, options, message):
    with pytest.raises(LandmarkError, match=message):
        find_keypoints(image, **options)


# --- scores -------------------------------------------------------------------------------------------------------------


def slow_scores(matcher, images, **options):
    """The definition, pair by pair and point by point, by the network's own forward pass."""
    found = {}
    for t, template in images.items():
        highest = []
        for x, image in images.items():
            for point in find_keypoints(template, options["keypoints_per_image"], *list(options.values())[1:]):
                if x == t:
                    continue
                maps = matcher(image[None], template[None], point[None, None])
                product = torch.ones_like(maps[-1])
                for level, stride in zip(maps, matcher.strides, strict=True):
                    mode = "bilinear" if image.ndim == 3 else "trilinear"
                    grown = F.interpolate(level.clamp(0, 1), scale_factor=stride / 2, mode=mode, align_corners=False)
                    product *= grown[(..., *(slice(n) for n in product.shape[2:]))]
                highest.append(product.max().item())
        found[t] = float(np.mean(highest))
    return found


@pytest.mark.parametrize(
    ("dims", "shapes", "shared"),
    [(2, [(72, 61), (64, 80), (75, 50)], False), (2, [(70, 66)] * 3, True), (3, [(32, 30, 31), (30, 32, 28)], False)],
)
def test_scores_are_those_of_a_slow_loop(matcher, dims, shapes, shared):
    net = matcher if dims == 2 and not shared else matcher_of(dims, shared=shared)
    images = {f"case {i}": film(i, shape) for i, shape in enumerate(shapes)}
    with torch.no_grad():
        expected = slow_scores(net, images, **OPTIONS)
    ranking = suggest_template(net, list(images.values()), list(images), **OPTIONS)
    for one in ranking:
        assert 0 < one.keypoints <= 5
        assert one.score == pytest.approx(expected[one.case], rel=2e-3)  # half precision
    assert [one.score for one in ranking] == sorted((one.score for one in ranking), reverse=True)


@pytest.mark.parametrize("shape", [(70, 61), (33, 20, 37)])
def test_products_of_dissimilar_levels_are_clipped(shape):
    generator = torch.Generator().manual_seed(0)
    strides, mode = (32, 16, 8, 4, 2), {2: "bilinear", 3: "trilinear"}[len(shape)]
    levels = [F.normalize(torch.randn(*(-(-n // s) for n in shape), 6, generator=generator), dim=-1) for s in strides]
    anchors = F.normalize(torch.randn(5, 9, 6, generator=generator), dim=-1)
    products = torch.ones(9, *levels[-1].shape[:-1])
    for cells, anchor, stride in zip(levels, anchors, strides, strict=True):
        maps = torch.stack([(cells * one).sum(dim=-1) for one in anchor])[None].clamp(0, 1)
        maps = F.interpolate(maps, scale_factor=stride / 2, mode=mode, align_corners=False)[0]
        products *= maps[(..., *(slice(n) for n in products.shape[1:]))]
    expected = products.flatten(1).amax(dim=-1)
    assert (expected > 0).any()
    torch.testing.assert_close(_highest_products(levels, anchors, strides), expected)


def test_many_points_are_worked_on_in_parts(matcher, monkeypatch):
    images = [film(i) for i in range(3)]
    whole = suggest_template(matcher, images, **OPTIONS)
    monkeypatch.setattr("monai_landmarks.engines.template_choice.MAP_ELEMENTS", 2 * 36 * 31)
    parts = suggest_template(matcher, images, **OPTIONS)
    assert scores(parts) == pytest.approx(scores(whole), rel=1e-5)


def test_the_score_is_what_template_matching_gives_its_landmarks(matcher):
    template, image = film(0), film(1)
    points = find_keypoints(template, *OPTIONS.values())
    net = TemplateMatchingNet(matcher, len(points)).eval()
    net.set_templates([template], [points])
    with torch.no_grad():
        # The finest cells instead of all pixels: the enlarged map is highest in a cell's centre or a little beside it.
        expected = net(image[None]).flatten(2).amax(dim=-1).mean().item()
    found = scores(suggest_template(matcher, [template, image], ["template", "image"], **OPTIONS))
    assert found["template"] == pytest.approx(expected, rel=0.02)


def test_the_clean_image_is_first_and_the_odd_one_last(matcher):
    clean = film(3, noise=0.0)
    noise = [0.15 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(i)) for i in range(5)]
    images = {"clean": clean, **{f"noisy {i}": clean + n for i, n in enumerate(noise)}}
    images["odd"] = torch.rand(clean.shape, generator=torch.Generator().manual_seed(9)).round()
    ranking = suggest_template(matcher, list(images.values()), list(images), **OPTIONS)
    assert ranking[0].case == "clean"
    assert ranking[-1].case == "odd"


# --- what the ranking depends on ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_pairs", [None, 8])
def test_neither_order_nor_repetition_changes_a_bit(matcher, max_pairs):
    images = {str(i): film(i) for i in range(4)}
    first = suggest_template(matcher, list(images.values()), list(images), max_pairs=max_pairs, **OPTIONS)
    turned = dict(reversed(images.items()))
    again = suggest_template(matcher, list(turned.values()), list(turned), max_pairs=max_pairs, **OPTIONS)
    assert first == again


def test_fewer_pairs_look_at_every_image_equally_often(matcher):
    images = {str(i): film(i) for i in range(5)}
    pairs = {
        (a, b): scores(suggest_template(matcher, [images[a], images[b]], [a, b], **OPTIONS))[a]
        for a in images
        for b in images
        if a != b
    }
    found = scores(suggest_template(matcher, list(images.values()), list(images), max_pairs=5, **OPTIONS))
    searched = [b for (a, b), score in pairs.items() if score == pytest.approx(found[a], rel=1e-5)]
    assert sorted(searched) == sorted(images)
    other = suggest_template(matcher, list(images.values()), list(images), max_pairs=5, seed=1, **OPTIONS)
    assert scores(other) != found


def test_a_dataset_gives_images_and_cases_and_nothing_else(matcher):
    images = [film(i) for i in range(3)]
    items = [{"image": x, "case": f"c{i}", "landmarks": None} for i, x in enumerate(images)]
    plain = suggest_template(matcher, images, ["c0", "c1", "c2"], **OPTIONS)
    assert suggest_template(matcher, Dataset(items), **OPTIONS) == plain
    assert suggest_template(matcher, items, **OPTIONS) == plain
    assert {one.case for one in suggest_template(matcher, torch.stack(images), **OPTIONS)} == {"0", "1", "2"}


def test_the_matcher_stays_in_its_mode_and_as_it_was():
    net = matcher_of().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    suggest_template(net, [film(0), film(1)], **OPTIONS)
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


# --- bad input ----------------------------------------------------------------------------------------------------------


def test_an_image_without_keypoints_is_last_and_named(matcher):
    images = {"a": film(0), "blank": torch.zeros(1, 72, 61), "c": film(2)}
    with pytest.warns(UserWarning, match="1 of 3 images have no keypoint.*'blank'"):
        ranking = suggest_template(matcher, list(images.values()), list(images), **OPTIONS)
    assert ranking[-1].case == "blank"
    assert np.isnan(ranking[-1].score)
    assert ranking[-1].keypoints == 0
    assert len(ranking) == 3


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ([film(0)], {}, "With a single one"),
        ([], {}, "there are 0"),
        ([film(0), film(1)], {"cases": ["a"]}, "2 images need as many names"),
        ([film(0), film(1)], {"cases": ["a", "a"]}, "'a' more than once"),
        ([film(0), film(1)[0]], {}, "'1' has shape"),
        ([film(0), film(1) * float("nan")], {"cases": ["a", "b"]}, "'b' has NaN"),
        ([torch.zeros(1, 64, 64)] * 2, {}, "none of the 2 images has a keypoint"),
        ([film(0), film(1)], {"max_pairs": 0}, "max_pairs"),
    ],
)
def test_bad_input_is_refused(matcher, images, options, message):
    with pytest.raises(LandmarkError, match=message):
        suggest_template(matcher, images, **options)


# --- the file -----------------------------------------------------------------------------------------------------------


def test_a_ranking_is_made_once_and_read_afterwards(matcher, tmp_path):
    path = tmp_path / "stage" / "template.json"
    items = [
        {"image": film(0), "case": "a"},
        {"image": torch.zeros(1, 72, 61), "case": "b"},
        {"image": film(2), "case": "c"},
    ]
    with pytest.warns(UserWarning, match="no keypoint"):
        first = choose_template(path, matcher, items, **OPTIONS)
    content = path.read_bytes()
    assert json.loads(content)["ranking"][0] == {"case": first[0].case, "score": first[0].score, "keypoints": 5}
    # No image and no matcher is needed any more, in whatever order the cases come.
    again = choose_template(path, None, [{"case": "c"}, {"case": "a"}, {"case": "b"}])
    assert again[:2] == first[:2]
    assert (again[2].case, again[2].keypoints) == ("b", 0)
    assert np.isnan(again[2].score)
    assert path.read_bytes() == content


def test_a_dataset_is_not_loaded_to_read_a_ranking(matcher, tmp_path):
    items = [{"image": film(i), "case": str(i)} for i in range(2)]
    choose_template(tmp_path / "t.json", matcher, items, **OPTIONS)

    def refuse(item):
        raise AssertionError(f"{item} was loaded")

    assert len(choose_template(tmp_path / "t.json", None, Dataset(items, refuse))) == 2


def test_a_file_of_other_cases_or_no_ranking_is_refused(matcher, tmp_path):
    path = tmp_path / "template.json"
    choose_template(path, matcher, [film(0), film(1)], ["a", "b"], **OPTIONS)
    with pytest.raises(LandmarkError, match=r"'b', 'c'\. Delete the file"):
        choose_template(path, matcher, [film(0), film(1)], ["a", "c"])
    for text in ("{", "{}", '{"ranking": [1]}'):
        path.write_text(text)
        with pytest.raises(LandmarkError, match="is no ranking"):
            choose_template(path, matcher, [film(0), film(1)], ["a", "b"])


def test_a_failure_leaves_no_file(matcher, tmp_path):
    with pytest.raises(LandmarkError):
        choose_template(tmp_path / "template.json", matcher, [torch.zeros(1, 64, 64)] * 2)
    assert not list(tmp_path.iterdir())
