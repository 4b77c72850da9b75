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
"""Predictions in voxels of the input's own file: VerSe JSON and .lml after reorientation, resampling and collation."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import Compose, CropForegroundd, Orientationd, Spacingd

from monai_landmarks.data import read_landmarks
from monai_landmarks.data.datasets.csi2014 import CSI2014_LANDMARKS, CSI2014_VERSE_LABELS
from monai_landmarks.geometry import LandmarkError, mark_deformed
from monai_landmarks.transforms.save import SaveLandmarks, SaveLandmarksd
from monai_landmarks.transforms.spatial import LandmarksImageToWorldd, LandmarksWorldToImaged
from monai_landmarks.transforms.spatial_augmentation import FitToGridd
from monai_landmarks.transforms.volume import LoadVolumed

SHAPE = (19, 23, 31)
ANGLE = np.deg2rad(25)
AFFINES = {
    "LAS": np.array([[-1.5, 0, 0, 90], [0, 1.5, 0, -40], [0, 0, 3.0, -500], [0, 0, 0, 1]]),
    "RPI": np.array([[0.7, 0, 0, -9], [0, -0.7, 0, 30], [0, 0, -1.5, 77], [0, 0, 0, 1]]),
    "oblique": np.array([[0, 1.5 * np.cos(ANGLE), -2 * np.sin(ANGLE), 5], [-1.2, 0, 0, -6],
                         [0, 1.5 * np.sin(ANGLE), 2 * np.cos(ANGLE), 7], [0, 0, 0, 1]]),
}  # fmt: skip
DIRECTIONS = {"LAS": "LAS", "RPI": "RPI", "oblique": "PRS"}
NAMES = ("T12", "L1", "L2")
VOXELS = np.array([[4.25, 11.5, 25.0], [9.0, 10.125, 15.75], [np.nan] * 3])
PREPROCESSING = {
    "none": [],
    "reoriented": [Orientationd("image", "RAS")],
    "resampled": [Orientationd("image", "PIL"), Spacingd("image", (1.0, 1.0, 2.0))],
    "cropped": [CropForegroundd("image", "image", allow_smaller=True), Spacingd("image", (2.0, 2.0, 2.0))],
    "grid": [Orientationd("image", "RAS"), FitToGridd("image", (16, 16, 24), 2.0)],
}


def written(folder: Path, affine: np.ndarray, name: str = "case1") -> Path:
    array = np.zeros(SHAPE, np.int16)
    array[3:-3, 4:-4, 5:-2] = np.random.RandomState(0).randint(1, 100, (13, 15, 24))
    path = folder / f"{name}.nii.gz"
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def world_of(affine: np.ndarray) -> np.ndarray:
    return nib.affines.apply_affine(affine, VOXELS)


@pytest.mark.parametrize("steps", PREPROCESSING)
@pytest.mark.parametrize("frame", AFFINES)
def test_verse_files_are_in_the_frame_of_the_input(tmp_path, frame, steps):
    """Through a whole inference: preprocessing, points in voxels of the grid, collation, back to world, file."""
    path, world = written(tmp_path, AFFINES[frame]), world_of(AFFINES[frame])
    before = Compose([LoadVolumed("image"), *PREPROCESSING[steps], LandmarksWorldToImaged("pred", "image")])
    after = Compose([LandmarksImageToWorldd("pred", "image"), SaveLandmarksd(
        "pred", tmp_path / "out", NAMES, "image", confidence_keys="score", format=".json", file_format="verse")
    ])  # fmt: skip
    item = {"image": str(path), "pred": world, "score": torch.tensor([0.5, 0.25, float("nan")])}
    for batch in DataLoader(Dataset([item], before), batch_size=1):
        for one in decollate_batch(batch):
            after(one)
    out = tmp_path / "out" / "case1.json"
    image = nib.load(path)
    back = read_landmarks(out, names=NAMES, affine=image.affine)
    np.testing.assert_allclose(back.points, world, atol=1e-3)
    np.testing.assert_allclose(back.confidence, [0.5, 0.25, np.nan])
    direction, *entries = json.loads(out.read_text())
    assert "".join(direction["direction"]) == DIRECTIONS[frame]
    assert [entry["label"] for entry in entries] == [19, 20, 21]
    np.testing.assert_allclose([[entry[axis] for axis in "XYZ"] for entry in entries[:2]], VOXELS[:2], atol=1e-3)
    assert entries[2]["X"] == "nan"


@pytest.mark.parametrize("frame", AFFINES)
def test_lml_files_are_voxel_times_spacing_of_the_input(tmp_path, frame):
    item = Compose([LoadVolumed("image"), *PREPROCESSING["resampled"]])({"image": written(tmp_path, AFFINES[frame])})
    save = SaveLandmarksd("pred", tmp_path, NAMES, "image", format=".lml")
    save({**item, "pred": world_of(AFFINES[frame])})
    raw = read_landmarks(tmp_path / "case1.lml", space="RAS").points
    np.testing.assert_allclose(raw, VOXELS * np.linalg.norm(AFFINES[frame][:3, :3], axis=0), atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(3)), signs=st.tuples(*[st.sampled_from([-1, 1])] * 3), seed=st.integers(0, 99))
def test_any_orientation_gives_the_same_world(tmp_path_factory, order, signs, seed):
    random = np.random.RandomState(seed)
    linear = np.eye(3)[:, list(order)] * signs * random.uniform(0.5, 3, 3)
    affine = nib.affines.from_matvec(linear, random.uniform(-200, 200, 3))
    world = world_of(affine)
    image = MetaTensor(torch.zeros(1, *SHAPE), affine=torch.as_tensor(affine))
    image.meta["original_affine"] = affine
    moved = Orientationd("image", "LPI")({"image": image})["image"]
    folder = tmp_path_factory.mktemp("any")
    save = SaveLandmarks(folder, NAMES, format=".json", file_format="verse")
    path = save(world, "case", image=moved)
    for codes in ("RAS", "PIR"):  # and whoever reads it with the image turned
        turn = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(codes))
        )
        seen = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), affine).as_reoriented(turn)
        back = read_landmarks(path, names=NAMES, affine=seen.affine, spatial_shape=seen.shape)
        np.testing.assert_allclose(back.points, world, atol=1e-6)


def test_all_26_vertebrae_of_csi_2014_have_a_number(tmp_path):
    affine = AFFINES["LAS"]
    points = nib.affines.apply_affine(affine, np.random.RandomState(0).rand(26, 3) * 10)
    image = MetaTensor(torch.zeros(1, *SHAPE), affine=torch.as_tensor(affine))
    labels = {str(number): name for number, name in CSI2014_VERSE_LABELS.items()}  # as a JSON configuration has it
    save = SaveLandmarks(tmp_path, CSI2014_LANDMARKS, format=".json", file_format="verse", label_names=labels)
    path = save(points, "case", image=image)
    assert [entry["label"] for entry in json.loads(path.read_text())[1:]] == [*range(1, 25), 26, 29]
    back = read_landmarks(path, names=CSI2014_LANDMARKS, affine=affine, label_names=labels)
    np.testing.assert_allclose(back.points, points)
    with pytest.raises(LandmarkError, match="'S1', 'S2' is none"):
        SaveLandmarks(tmp_path, CSI2014_LANDMARKS, "_b", ".json", "verse")(points, "case", image=image)
    assert [file.name for file in tmp_path.iterdir()] == ["case.json"], "nothing half written"


def test_an_affine_or_pixel_size_that_is_given_goes_first(tmp_path):
    affine = AFFINES["RPI"]
    image = MetaTensor(torch.zeros(1, *SHAPE), affine=torch.eye(4))
    save = SaveLandmarks(tmp_path, NAMES, format=".json", file_format="verse", affine=affine)
    assert json.loads(save(world_of(affine), "a", image=image).read_text())[0]["direction"] == list("RPI")
    film = MetaTensor(torch.zeros(1, 9, 9), affine=torch.eye(3))
    films = SaveLandmarks(tmp_path, ["tip"], format=".csv", space="voxel", pixel_size=0.5)
    assert films([[2.0, 3.0]], "film", image=film).read_text().splitlines()[1].startswith("tip,4.0,6.0")


def test_films_in_pixels_of_their_file(tmp_path):
    film = MetaTensor(torch.zeros(1, 9, 9), affine=torch.eye(3))
    film.meta["original_affine"] = np.diag([0.1, 0.1, 1.0])
    save = SaveLandmarks(tmp_path, ["tip"], format=".json", file_format="labelme")
    back = read_landmarks(save([[2.0, 3.0]], "film", image=film), affine=np.diag([0.1, 0.1, 1.0]))
    np.testing.assert_allclose(back.points, [[2.0, 3.0]])


def test_images_that_cannot_tell_the_frame_of_their_file(tmp_path):
    options = {"format": ".json", "file_format": "verse"}
    save, world = SaveLandmarks(tmp_path, NAMES, **options), world_of(AFFINES["LAS"])
    with pytest.raises(LandmarkError, match=r"hold voxels of the image's file: give image="):
        save(world, "a")
    with pytest.raises(LandmarkError, match="is a Tensor without affine: load it with LoadVolumed"):
        save(world, "a", image=torch.zeros(1, *SHAPE))
    image = MetaTensor(torch.zeros(1, *SHAPE), affine=torch.as_tensor(AFFINES["LAS"]))
    moved = Orientationd("image", "RAS")({"image": image})["image"]
    with pytest.raises(LandmarkError, match="was transformed and does not know the affine of its file"):
        save(world, "a", image=moved)
    mark_deformed(image, ["p"])
    with pytest.raises(LandmarkError, match="deformed elastically"):
        save(world, "a", image=image)
    with pytest.raises(ValueError, match=r"'verse' hold voxels of the image's file: give refer_keys"):
        SaveLandmarksd("p", tmp_path, NAMES, case_key="case", **options)
    with pytest.raises(LandmarkError, match="may be of several JSON formats"):
        SaveLandmarks(tmp_path, NAMES, format=".json")
    assert not list(tmp_path.iterdir())
