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
"""Overlays: every point and every voxel at its place, the right way round, nothing dropped without a word."""

from __future__ import annotations

import ast
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import EnsureChannelFirst, LoadImage

import monai_landmarks.report
from monai_landmarks.data import FilmReader
from monai_landmarks.data.datasets.hippocampus_mr import HIPPOCAMPUS_LANDMARKS, hippocampus_datalist
from monai_landmarks.data.datasets.isbi2015 import ISBI2015_LANDMARKS, isbi2015_datalist
from monai_landmarks.geometry import LandmarkError, apply_affine, image_affine, invert_affine
from monai_landmarks.networks.nets import SCNExplanation, SpatialConfigurationNet
from monai_landmarks.report import component_overlay, figure_array, figure_png, landmark_overlay, save_figure
from monai_landmarks.report.case_errors import case_errors, error_summary
from monai_landmarks.report.labels import place_labels
from monai_landmarks.report.views import voxel_axes, world_views

NAN = float("nan")
DPI = 100.0


def texts(figure):
    own = [t.get_text() for t in figure.texts]
    return own + [t.get_text() for ax in figure.axes for t in ax.texts]


def offsets(ax, gid):
    (found,) = [c for c in ax.collections if c.get_gid() == gid]
    return np.ma.filled(found.get_offsets(), np.nan)


def screen(figure, ax, point):
    """Row and column of the pixel that shows a data coordinate."""
    figure.set_dpi(DPI)
    figure.canvas.draw()
    x, y = ax.transData.transform(point)
    return round(figure.bbox.height - y), round(x)


def volume(shape, voxel, affine):
    image = torch.zeros(1, *shape)
    image[(0, *voxel)] = 1.0
    return MetaTensor(image, affine=affine)


def oblique(seed):
    """A rotation of any orientation, with anisotropic voxels."""
    rng = np.random.default_rng(seed)
    matrix, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = matrix @ np.diag([0.8, 1.1, 2.5])
    affine[:3, 3] = rng.normal(size=3) * 50
    return torch.from_numpy(affine)


def test_film_points_are_drawn_at_their_voxel_indices():
    truth = torch.tensor([[3.0, 5.0], [20.25, 11.5], [NAN, NAN]])
    prediction = torch.tensor([[4.0, 5.0], [NAN, NAN], [7.0, 7.0]])
    ax = landmark_overlay(torch.rand(1, 30, 40), prediction, truth).axes[0]
    np.testing.assert_allclose(offsets(ax, "truth"), truth.numpy())
    np.testing.assert_allclose(offsets(ax, "prediction"), prediction.numpy())
    (lines,) = [c for c in ax.collections if c.get_gid() == "errors"]
    np.testing.assert_allclose(lines.get_segments(), [[[3.0, 5.0], [4.0, 5.0]]])


@pytest.mark.parametrize("voxel", [(3, 7), (28, 1), (0, 39)])
def test_film_is_upright_and_its_pixels_lie_under_the_points(voxel):
    figure = landmark_overlay(volume((30, 40), voxel, torch.eye(3)))
    ax = figure.axes[0]
    row, column = screen(figure, ax, voxel)
    pixels = figure_array(figure, dpi=DPI).astype(int)
    other = screen(figure, ax, (15, 20))
    assert pixels[row, column].min() > 200
    assert pixels[other].max() < 50
    assert screen(figure, ax, (0, 39))[0] > screen(figure, ax, (0, 0))[0], "the second axis runs downwards"
    assert screen(figure, ax, (29, 0))[1] > screen(figure, ax, (0, 0))[1], "the first axis runs to the right"


@pytest.mark.parametrize("spacing", [(0.1, 0.1), (0.1, 0.3), (2.0, 0.5)])
def test_film_is_shown_in_true_proportions(spacing):
    image = MetaTensor(torch.rand(1, 30, 40), affine=torch.diag(torch.tensor([*spacing, 1.0])))
    figure = landmark_overlay(image)
    box = figure.axes[0].get_window_extent()
    assert box.width / box.height == pytest.approx(30 * spacing[0] / (40 * spacing[1]), rel=0.01)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("projection", ["slice", "max", "mean"])
def test_volume_shows_its_voxels_under_the_projected_points(seed, projection):
    voxel = (5, 11, 3)
    affine = oblique(seed)
    image = volume((12, 15, 9), voxel, affine)
    figure = landmark_overlay(image, truth=torch.tensor([voxel], dtype=torch.float64), projection=projection)
    views = world_views((12, 15, 9), affine)
    for ax, view in zip(figure.axes, views, strict=False):
        point = [voxel[axis] for axis in view.axes]
        np.testing.assert_allclose(offsets(ax, "truth"), [point])
        shown = ax.images[0].get_array()
        assert np.unravel_index(int(shown.argmax()), shown.shape) == (point[1], point[0])
        # Beside the marker's ring, still inside the bright voxel.
        row, column = screen(figure, ax, point)
        assert figure_array(figure, dpi=DPI)[row, column].min() > 200


@pytest.mark.parametrize("seed", range(12))
def test_directions_agree_with_nibabel_and_hang_as_radiologists_do(seed):
    affine = oblique(seed)
    codes = nib.aff2axcodes(affine.numpy())
    opposite = dict(zip("RLAPSI", "LRPAIS", strict=True))
    for view, wanted in zip(world_views((5, 6, 7), affine), ["RLPA", "RLIS", "APIS"], strict=True):
        assert view.letters == tuple(wanted)
        right, up = (codes[axis] for axis in view.axes)
        assert wanted[1] == (opposite[right] if view.reverse[0] else right)
        assert wanted[3] == (opposite[up] if view.reverse[1] else up)
    order, against = voxel_axes(affine)
    wanted_order = nib.io_orientation(affine.numpy())
    assert [int(wanted_order[order[w], 0]) for w in range(3)] == [0, 1, 2]
    assert [wanted_order[order[w], 1] < 0 for w in range(3)] == list(against)


def test_patients_right_is_on_the_left_of_the_screen():
    figure = landmark_overlay(MetaTensor(torch.rand(1, 8, 9, 10), affine=torch.eye(4)))
    axial, coronal, sagittal = figure.axes[:3]
    assert screen(figure, axial, (7, 0))[1] < screen(figure, axial, (0, 0))[1], "+x is R"
    assert screen(figure, axial, (0, 8))[0] < screen(figure, axial, (0, 0))[0], "+y is A"
    assert screen(figure, coronal, (0, 9))[0] < screen(figure, coronal, (0, 0))[0], "+z is S"
    assert screen(figure, sagittal, (8, 0))[1] < screen(figure, sagittal, (0, 0))[1], "A is left"


def test_volume_without_affine_names_index_axes_and_measures_in_voxels():
    truth = torch.tensor([[1.0, 1.0, 1.0]])
    shown = texts(landmark_overlay(torch.rand(1, 8, 9, 10), truth + 2, truth))
    assert not {"R", "L", "A", "P", "S", "I"} & set(shown)
    assert {"i", "j", "k"} <= set(shown)
    assert any("mean 3.46 voxels, worst landmark 0 3.46 voxels" in text for text in shown)


def test_errors_are_millimetres_of_the_affine():
    image = MetaTensor(torch.rand(1, 30, 40), affine=torch.diag(torch.tensor([0.1, 0.2, 1.0])))
    truth = torch.tensor([[10.0, 10.0], [20.0, 20.0]])
    prediction = truth + torch.tensor([[30.0, 20.0], [0.0, 5.0]])
    shown = texts(landmark_overlay(image, prediction, truth, ["sella", "gonion"]))
    assert "mean 3.00 mm, worst sella 5.00 mm" in shown
    assert {"5.00", "1.00", "sella", "gonion", "mm"} <= set(shown)


def test_missing_and_outlying_landmarks_are_listed():
    truth = torch.tensor([[3.0, 5.0], [NAN, NAN], [8.0, 8.0], [9.0, 9.0]])
    prediction = torch.tensor([[3.0, 5.0], [4.0, 4.0], [NAN, NAN], [99.0, 9.0]])
    names = ["sella", "nasion", "gonion", "menton"]
    shown = texts(landmark_overlay(torch.rand(1, 30, 40), prediction, truth, names))
    assert "without truth: nasion" in shown
    assert "not predicted: gonion" in shown
    assert "predicted position outside the image: menton" in shown
    assert {"no truth", "missed"} <= set(shown)
    assert any("2 of 3 landmarks found" in text for text in shown)


def test_heatmaps_lie_over_the_image_where_they_are_high():
    heatmaps = torch.zeros(2, 30, 40)
    heatmaps[0, 4, 6], heatmaps[1, 20, 30] = 2.0, 1.0
    ax = landmark_overlay(torch.rand(1, 30, 40), heatmaps=heatmaps).axes[0]
    shown, alpha = ax.images[1].get_array(), ax.images[1].get_alpha()
    assert shown.shape == (40, 30)
    assert (shown[6, 4], shown[30, 20], shown[0, 0]) == (1.0, 0.5, 0.0)
    assert alpha[6, 4] > alpha[30, 20] > alpha[0, 0] == 0
    assert ax.images[1].get_extent() == ax.images[0].get_extent()


def test_window_ignores_a_burned_in_number():
    image = torch.rand(1, 100, 100)
    image[0, :3, :3] = 1000.0
    low, high = landmark_overlay(image).axes[0].images[0].get_clim()
    assert 0 <= low < high < 2


def test_pyplot_and_settings_are_left_alone():
    figures, settings, backend = plt.get_fignums(), dict(matplotlib.rcParams), matplotlib.get_backend()
    figure = landmark_overlay(torch.rand(1, 9, 9), truth=torch.tensor([[2.0, 3.0]]))
    figure_png(figure)
    figure_array(figure)
    assert plt.get_fignums() == figures
    assert dict(matplotlib.rcParams) == settings
    assert matplotlib.get_backend() == backend


def test_nothing_imports_matplotlib_at_import_time():
    for path in Path(monai_landmarks.report.__file__).parent.glob("*.py"):
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.If)):
                continue
            assert "matplotlib" not in ast.unparse(statement).split('"""')[0], path.name
            assert "optional_import(" not in ast.unparse(statement), path.name


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (torch.rand(9, 9), {}, "add the channel"),  # no channel
        (torch.rand(2, 1, 4, 4, 4), {}, "one image of the batch"),  # batch of volumes
        (torch.rand(1, 9, 9), {"truth": torch.zeros(2, 4, 2)}, "one case of the batch"),  # batch of points
        (torch.rand(1, 9, 9), {"truth": torch.zeros(4, 3)}, "got shape"),  # 3D points
        (torch.rand(1, 9, 9), {"truth": torch.zeros(4, 2), "prediction": torch.zeros(3, 2)}, "same landmarks"),
        (torch.rand(1, 9, 9), {"truth": torch.zeros(2, 2), "names": ["a"]}, "one name per landmark"),
        (torch.rand(1, 9, 9), {"heatmaps": torch.zeros(2, 8, 9)}, "heatmaps"),
        (torch.rand(1, 9, 9), {"projection": "minimum"}, "minimum"),
    ],
)
def test_errors_say_what_to_do(image, options, message):
    with pytest.raises(ValueError, match=message):
        landmark_overlay(image, **options)


def test_summary_of_a_case():
    errors = case_errors(torch.tensor([[0.0, 3.0], [NAN, NAN]]), torch.tensor([[4.0, 0.0], [1.0, 1.0]]))
    assert errors.tolist() == [5.0, float("inf")]
    assert error_summary(errors[1:], ["a"]) == "no landmark to compare (truth has 1, none of them predicted)"
    assert error_summary(torch.tensor([NAN]), ["a"]) == "no truth to compare"


def test_labels_keep_off_points_and_each_other():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 400, size=(40, 2))
    lengths = np.full(40, 2)
    middles = points + place_labels(points, lengths, points)
    covered = np.abs(middles[:, None] - points[None]) < [2 * 4.6 / 2, 4.0]
    assert covered.all(axis=-1).sum() == 0
    apart = np.abs(middles[:, None] - middles[None]) < [2 * 4.6, 8.0]
    assert apart.all(axis=-1).sum() == 40, "each label overlaps itself only"


@pytest.mark.parametrize("shape", [(24, 16), (12, 10, 8)])
@pytest.mark.parametrize("batched", [True, False])
def test_components_of_a_network(shape, batched):
    torch.manual_seed(0)
    net = SpatialConfigurationNet(
        len(shape), 1, 3, channels=4, levels=2, spatial_downsample=2, spatial_kernel_size=3, heatmap_std=0.3
    )
    image = torch.rand(1, 1, *shape)
    explanation = net.eval().explain(image)
    point = torch.ones(3, len(shape))
    shown = explanation if batched else SCNExplanation(*(maps[0] for maps in explanation))
    figure = component_overlay(shown, image if batched else image[0], ["b", 2], point, names=["a", "b", "c"])
    assert len(figure.axes) == 8
    assert [figure.axes[row].get_ylabel() for row in (0, 4)] == ["b", "c"]
    np.testing.assert_allclose(offsets(figure.axes[0], "prediction"), [[1.0, 1.0]])
    local, spatial, product = (figure.axes[4 + i].images[0] for i in (1, 2, 3))
    np.testing.assert_allclose(local.get_array() * spatial.get_array(), product.get_array(), rtol=1e-4, atol=1e-7)
    low, high = product.get_clim()
    assert low == -high
    if len(shape) == 2:
        np.testing.assert_allclose(product.get_array(), explanation.heatmaps[0, 2].detach().T)


def test_components_refuse_what_does_not_fit():
    maps = torch.rand(1, 3, 8, 9)
    with pytest.raises(LandmarkError, match="explain"):
        component_overlay(maps, torch.rand(1, 8, 9))
    with pytest.raises(LandmarkError, match="did you mean 'sella'"):
        component_overlay(SCNExplanation(maps, maps, maps), torch.rand(1, 8, 9), ["sela"], names=["sella", "b", "c"])
    with pytest.raises(LandmarkError, match="was explained"):
        component_overlay(SCNExplanation(maps, maps, maps), torch.rand(1, 9, 9))


def test_figure_file_is_whole_and_tells_its_facts(tmp_path):
    from PIL import Image

    path = tmp_path / "new" / "one.png"
    save_figure(landmark_overlay(torch.rand(1, 9, 9)), path, dpi=50, metadata={"Description": "facts"})
    with Image.open(path) as image:
        assert image.info["Description"] == "facts"
        image.load()
    assert [p.name for p in path.parent.iterdir()] == ["one.png"]


@pytest.mark.real_data
def test_real_film(real_data):
    entry = isbi2015_datalist(real_data("isbi2015_cephalograms"), "training")[3]
    reader = FilmReader(pixel_size=entry["pixel_size"], origin=entry["origin"])
    image = EnsureChannelFirst()(LoadImage(reader=reader, image_only=True)(entry["image"]))
    voxels = apply_affine(torch.as_tensor(entry["landmarks"]), invert_affine(image_affine(image)))
    figure = landmark_overlay(image, voxels + torch.tensor([5.0, 0.0]), voxels, ISBI2015_LANDMARKS)
    assert "mean 1.00 mm" in " ".join(texts(figure))
    # The film's pixel grid covers 193.5 x 240 mm.
    box = figure.axes[0].get_window_extent()
    assert box.width / box.height == pytest.approx(968 / 1200, rel=0.01)
    # Radiograph of a head that looks to the right: the chin (7) lies below the nasion (2), the sella (1) left of it.
    rows = [screen(figure, figure.axes[0], voxels[i].tolist()) for i in range(19)]
    assert rows[7][0] > rows[1][0]
    assert rows[0][1] < rows[1][1]


@pytest.mark.real_data
def test_real_volume(real_data):
    entry = hippocampus_datalist(real_data("hippocampus_mr"))[0]
    image = EnsureChannelFirst()(LoadImage(image_only=True)(entry["image"]))
    voxels = apply_affine(torch.as_tensor(entry["landmarks"]), invert_affine(image_affine(image)))
    figure = landmark_overlay(image, truth=voxels, names=HIPPOCAMPUS_LANDMARKS)
    sagittal = figure.axes[2]
    first, last = (screen(figure, sagittal, (voxels[i, 1], voxels[i, 2])) for i in (0, 4))
    assert first[1] < last[1], "the anterior tip lies left of the posterior tip"


def test_chosen_planes_with_names_beside_the_points() -> None:
    volume = MetaTensor(torch.rand(1, 20, 16, 30), affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])))
    points = torch.tensor([[5.0, 6.0, 4.0], [5.0, 6.0, 20.0]])
    figure = landmark_overlay(
        volume, points, names=["T12", "L1"], projection="max", planes=("sagittal", "coronal"), mark="name"
    )
    pictures = figure.axes[:-1]
    assert [ax.get_title().split(",")[0] for ax in pictures] == ["sagittal", "coronal"]
    for ax in pictures:
        assert {"T12", "L1"} <= {text.get_text() for text in ax.texts}


@pytest.mark.parametrize(
    "options", [{"planes": ("lateral",)}, {"mark": "nothing"}, {"planes": ()}, {"affine": None, "planes": ("axial",)}]
)
def test_plane_or_mark_that_is_not_there(options: dict) -> None:
    image = torch.rand(1, 9, 9, 9)
    settings = {"affine": torch.eye(4), **options}
    with pytest.raises(ValueError, match=r"plane|mark|lateral|nothing|axial"):
        landmark_overlay(image, torch.ones(1, 3), **settings)
