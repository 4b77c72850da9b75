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
"""LoadFilm and LoadLandmarks: files, arrays, names, spaces, and landmarks that cannot belong to the image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose, LoadImaged, RandFlipd, Spacingd
from PIL import Image

from monai_landmarks.data import Landmarks, write_landmarks
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.transforms import LandmarksWorldToImaged, LoadFilm, LoadFilmd, LoadLandmarks, LoadLandmarksd

NAN = float("nan")
NAMES = ["tip", "base", "side"]
# A volume of 40 x 36 x 30 voxels with axes along the world's, all x and y of its world positive.
AFFINE = np.array([[1.0, 0, 0, 100], [0, 2.0, 0, 50], [0, 0, 3.0, -20], [0, 0, 0, 1]])
POINTS = np.array([[110.0, 70, 10], [NAN] * 3, [130.0, 60, 40]])


def volume(**meta: Any) -> MetaTensor:
    return MetaTensor(torch.zeros(1, 40, 36, 30), affine=torch.as_tensor(AFFINE), meta=meta or None)


def film_tensor(width: int = 64, height: int = 48, size: float = 0.5) -> MetaTensor:
    affine = torch.diag(torch.tensor([size, size, 1.0], dtype=torch.float64))
    return MetaTensor(torch.zeros(1, width, height), affine=affine)


# ---------------------------------------------------------------------------------------------------------------- films


def _films(folder: Path, sizes: list[Any]) -> list[dict[str, Any]]:
    items = []
    for index, size in enumerate(sizes):
        path = folder / f"{index}.png"
        Image.fromarray(np.full((6, 8), index, np.uint8)).save(path)
        items.append({"image": str(path), "pixel_size": size, "origin": (0.0, float(index))})
    return items


def test_each_film_has_its_own_pixel_size_also_in_a_batch(tmp_path):
    items = _films(tmp_path, [0.1, (0.2, 0.3)])
    loader = DataLoader(Dataset(items, LoadFilmd("image")), batch_size=2, collate_fn=lambda x: list_data_collate(
        [{"image": i["image"]} for i in x]
    ))  # fmt: skip
    images = decollate_batch(next(iter(loader))["image"])
    assert [i.shape for i in images] == [(1, 8, 6)] * 2
    assert [i.dtype for i in images] == [torch.float32] * 2
    assert images[0].affine.tolist() == [[0.1, 0, 0], [0, 0.1, 0], [0, 0, 1]]
    assert images[1].affine.tolist() == [[0.2, 0, 0], [0, 0.3, 1], [0, 0, 1]]


def test_where_the_pixel_size_comes_from(tmp_path):
    item = _films(tmp_path, [0.1])[0]
    assert LoadFilmd("image", pixel_size=9.0)(item)["image"].affine[0, 0] == 0.1, "the item's goes first"
    bare = {"image": item["image"]}
    assert LoadFilmd("image", pixel_size=9.0, origin=1.0)(bare)["image"].affine[0].tolist() == [9.0, 0.0, 1.0]
    assert LoadFilmd("image", pixel_size_key="mm")({**bare, "mm": 3.0})["image"].affine[0, 0] == 3.0
    with pytest.raises(LandmarkError, match="carries no pixel size"):
        LoadFilmd("image")(bare)
    with pytest.raises(LandmarkError, match="carries no pixel size"):
        LoadFilm()(item["image"])


def test_load_film_matches_load_image(tmp_path):
    path = _films(tmp_path, [0.1])[0]["image"]
    reader = "monai_landmarks.data.FilmReader"
    load = LoadImaged("image", reader=reader, pixel_size=0.1, ensure_channel_first=True)
    expected = load({"image": path})["image"]
    film = LoadFilm(pixel_size=0.1)(path)
    torch.testing.assert_close(film.as_tensor(), expected.as_tensor())
    torch.testing.assert_close(film.affine, expected.affine)
    assert film.meta["filename_or_obj"] == expected.meta["filename_or_obj"] == path
    assert LoadFilm(pixel_size=0.1, dtype=np.uint8)(path).dtype == torch.uint8


def test_film_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no.png"):
        LoadFilm(pixel_size=0.1)(tmp_path / "no.png")
    with pytest.raises(LandmarkError, match="one path, got ndarray: is it loaded already"):
        LoadFilm(pixel_size=0.1)(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="no option"):
        LoadFilmd("image", spacing=1)


# --------------------------------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize("make", [
    lambda p: p,
    lambda p: p.tolist(),
    torch.as_tensor,
    lambda p: MetaTensor(torch.as_tensor(p), affine=3 * torch.eye(4)),
    lambda p: Landmarks(p, NAMES),
])  # fmt: skip
def test_kinds_of_input_give_plain_float64(make):
    points = LoadLandmarks(names=NAMES)(make(POINTS), volume())
    assert type(points) is torch.Tensor
    assert points.dtype == torch.float64
    np.testing.assert_array_equal(points, POINTS)


def test_the_result_is_a_copy():
    source = POINTS.copy()
    LoadLandmarks()(source)[0, 0] = -1
    np.testing.assert_array_equal(source, POINTS)


@pytest.mark.parametrize(
    ("space", "points", "expected"),
    [
        ("RAS", [[1.0, 2, 3]], [[1.0, 2, 3]]),
        ("LPS", [[1.0, 2, 3]], [[-1.0, -2, 3]]),
        ("LPS", [[1.0, 2]], [[1.0, 2]]),
        ("RAS", [[1.0, 2]], [[-1.0, -2]]),
        (None, [[1.0, 2, 3]], [[1.0, 2, 3]]),
    ],
)
def test_spaces_of_arrays(space, points, expected):
    assert LoadLandmarks(space=space)(points).tolist() == expected


def test_voxel_arrays_use_the_grid_of_the_file_also_after_transforms():
    item = {"image": volume(original_affine=AFFINE), "landmarks": [[10.0, 10, 10]]}
    load = LoadLandmarksd("landmarks", space="voxel", image_key="image")
    assert load(item)["landmarks"].tolist() == [[110.0, 70, 10]]
    compose = Compose([RandFlipd("image", prob=1.0, spatial_axis=0), Spacingd("image", pixdim=2.0), load])
    assert compose(item)["landmarks"].tolist() == [[110.0, 70, 10]]
    with pytest.raises(LandmarkError, match="give image_key"):
        LoadLandmarksd("landmarks", space="voxel")(item)


def test_names_of_value_objects_are_reordered():
    marks = Landmarks(POINTS, NAMES)
    np.testing.assert_array_equal(LoadLandmarks(names=NAMES[::-1])(marks), POINTS[::-1])


# ---------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("suffix", [".mrk.json", ".fcsv", ".csv"])
def test_files_are_matched_by_name(tmp_path, suffix):
    path = tmp_path / f"case{suffix}"
    write_landmarks(Landmarks(POINTS, NAMES), path)
    order = ["side", "tip", "base"]
    for value in (path, str(path)):
        item = LoadLandmarksd("landmarks", names=order, image_key="image")({"image": volume(), "landmarks": value})
        np.testing.assert_allclose(item["landmarks"], POINTS[[2, 0, 1]], atol=1e-4)


def test_a_slicer_file_of_a_film_is_2d(tmp_path):
    path = tmp_path / "film.mrk.json"
    write_landmarks(Landmarks([[3.0, 4.0]], ["tip"]), path)
    item = LoadLandmarksd("landmarks", image_key="image")({"image": film_tensor(), "landmarks": path})
    assert item["landmarks"].tolist() == [[3.0, 4.0]]


def test_a_lps_file_lands_where_slicer_shows_it(tmp_path):
    """Written here by hand from the schema of 3D Slicer's markups."""
    points = [{"id": "1", "label": "tip", "position": [-110.0, -70.0, 10.0], "positionStatus": "defined"}]
    content = {
        "@schema": "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
        "markups-schema-v1.0.3.json#",
        "markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": points}],
    }
    (tmp_path / "p.mrk.json").write_text(json.dumps(content))
    load = LoadLandmarksd("landmarks", names=["tip"], image_key="image")
    item = load({"image": volume(), "landmarks": tmp_path / "p.mrk.json"})
    assert item["landmarks"].tolist() == [[110.0, 70, 10]]
    item = LandmarksWorldToImaged("landmarks", "image")(item)
    assert item["landmarks"].tolist() == [[10.0, 10, 10]]


def test_a_file_with_many_cases(tmp_path):
    (tmp_path / "all.csv").write_text("case,name,x,y\n7,tip,1,2\n8,tip,3,4\n")
    load = LoadLandmarksd("landmarks", names=["tip"], image_key="image", case_key="case")
    item = load({"image": film_tensor(), "landmarks": tmp_path / "all.csv", "case": 8})
    assert item["landmarks"].tolist() == [[3.0, 4.0]]
    with pytest.raises(LandmarkError, match="case_key names 'case'"):
        load({"image": film_tensor(), "landmarks": tmp_path / "all.csv"})


def test_pixel_files_use_the_images_affine_or_a_given_pixel_size(tmp_path):
    np.save(tmp_path / "p.npy", np.array([[10.0, 20.0]]))
    item = {"image": film_tensor(), "landmarks": tmp_path / "p.npy"}
    load = LoadLandmarksd("landmarks", names=["tip"], space="voxel", image_key="image")
    assert load(item)["landmarks"].tolist() == [[5.0, 10.0]]
    load = LoadLandmarksd("landmarks", names=["tip"], image_key="image", pixel_size=0.25)
    assert load(item)["landmarks"].tolist() == [[2.5, 5.0]]


# --------------------------------------------------------------------------------------------------------------- errors


def test_errors_of_count_names_dimension_and_file(tmp_path):
    with pytest.raises(LandmarkError, match="2 points for 3 names"):
        LoadLandmarks(names=NAMES)(POINTS[:2])
    with pytest.raises(LandmarkError, match=r"names do not fit.*'sid'.*did you mean 'side'"):
        LoadLandmarks(names=["tip", "base", "sid"])(Landmarks(POINTS, NAMES))
    with pytest.raises(LandmarkError, match="2D points for a 3D image"):
        LoadLandmarksd("p", image_key="image")({"image": volume(), "p": [[1.0, 2.0]]})
    with pytest.raises(LandmarkError, match="3D points for a 2D image"):
        LoadLandmarksd("p", image_key="image")({"image": film_tensor(), "p": POINTS})
    with pytest.raises(FileNotFoundError, match=r"absent.mrk.json"):
        LoadLandmarks()(tmp_path / "absent.mrk.json")
    with pytest.raises(LandmarkError, match="image_key names 'img'"):
        LoadLandmarksd("p", image_key="img")({"image": volume(), "p": POINTS})
    with pytest.raises(KeyError, match="q"):
        LoadLandmarksd("q")({"p": POINTS})
    assert LoadLandmarksd("q", allow_missing_keys=True)({"p": 1}) == {"p": 1}
    with pytest.raises(ValueError, match="sequence of landmark names"):
        LoadLandmarks(names="tip")
    with pytest.raises(LandmarkError, match="must be numbers"):
        LoadLandmarks()(None)
    with pytest.raises(LandmarkError, match=r"one image must have shape \(N, D\)"):
        LoadLandmarks()(POINTS[None])
    with pytest.raises(ValueError, match="voxels"):
        LoadLandmarks(space="voxels")(POINTS)


def test_an_image_without_channel_is_named(tmp_path):
    image = MetaTensor(torch.zeros(40, 36, 30), affine=torch.as_tensor(AFFINE))
    image.meta.update({"spatial_shape": np.array([40, 36, 30]), "original_channel_dim": NAN})
    with pytest.raises(LandmarkError, match="ensure_channel_first=True"):
        LoadLandmarksd("p", image_key="image")({"image": image, "p": POINTS})


SMELLS = [
    (film_tensor(200, 40), [[5.0, 50.0], [9.0, 80.0]], "none after exchanging the axes"),
    (volume(), POINTS * [-1, -1, 1], "inside it after negating x and y: LPS millimetres"),
    (volume(), POINTS[:, ::-1], "landmarks lie outside"),
    (film_tensor(64, 48, 0.1), [[30.0, 20.0], [50.0, 40.0]], "they range from .*spacing"),
]


@pytest.mark.parametrize(("image", "points", "message"), SMELLS)
def test_landmarks_that_cannot_belong_to_the_image_are_refused(image, points, message):
    load = LoadLandmarksd("p", image_key="image")
    with pytest.raises(LandmarkError, match=f"`p` does not fit the image.*{message}"):
        load({"image": image, "p": np.array(points)})
    silent = LoadLandmarksd("p", image_key="image", check_inside=False)
    np.testing.assert_array_equal(silent({"image": image, "p": np.array(points)})["p"], points)


def test_a_few_landmarks_outside_and_all_missing_are_fine():
    load = LoadLandmarksd("p", image_key="image")
    points = np.array([[1.0, 1], [2, 2], [3, 3], [-0.9, 5]])
    np.testing.assert_array_equal(load({"image": film_tensor(), "p": points})["p"], points)
    assert load({"image": film_tensor(), "p": np.full((4, 2), NAN)})["p"].isnan().all()


@pytest.mark.real_data
def test_real_afids_lie_inside_their_template(real_data):
    folder = real_data("brain_mri_afids")
    item = {
        "image": str(next(folder.glob("*.nii.gz"))),
        "landmarks": str(folder / "groundtruth_afids.fcsv"),
    }
    compose = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            LoadLandmarksd("landmarks", image_key="image"),
            LandmarksWorldToImaged("landmarks", "image", output_keys="points"),
        ]
    )
    result = compose(item)
    assert result["points"].shape == (32, 3)
    brain = result["image"][0] > result["image"][0].mean()
    i, j, k = result["points"].round().long().T
    assert brain[i, j, k].float().mean() > 0.8
