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
"""The transforms as a bundle's JSON writes them: from film files to landmark files, through MONAI's evaluator."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.bundle import ConfigParser

from monai_landmarks.data import read_landmark_table, read_landmarks

CONFIG = """
{
  "imports": ["$import torch"],
  "names": ["tip", "absent"],
  "output_dir": ".",
  "datalist": [],
  "deterministic_transforms": [
    {"_target_": "monai_landmarks.transforms.LoadFilmd", "keys": "image"},
    {"_target_": "monai_landmarks.transforms.LoadLandmarksd",
     "keys": "landmarks", "names": "@names", "image_key": "image"},
    {"_target_": "Spacingd", "keys": "image", "pixdim": [0.25, 0.25], "mode": "bilinear"},
    {"_target_": "ScaleIntensityd", "keys": "image"},
    {"_target_": "ResizeWithPadOrCropd", "keys": "image", "spatial_size": [64, 64]}
  ],
  "random_transforms": [
    {"_target_": "RandAffined", "keys": "image", "prob": 1.0, "rotate_range": 0.2, "padding_mode": "zeros"}
  ],
  "to_voxels": {"_target_": "monai_landmarks.transforms.LandmarksWorldToImaged",
    "keys": "landmarks", "refer_keys": "image", "output_keys": "points"},
  "train_preprocessing": {"_target_": "Compose", "lazy": true,
    "transforms": "$@deterministic_transforms + @random_transforms + [@to_voxels]"},
  "validate_preprocessing": {"_target_": "Compose", "transforms": "$@deterministic_transforms + [@to_voxels]"},
  "postprocessing": {"_target_": "Compose", "transforms": [
    {"_target_": "monai_landmarks.transforms.DecodeLandmarkHeatmapd",
     "keys": "pred", "points_keys": "pred_points", "confidence_keys": "confidence", "method": "argmax"},
    {"_target_": "monai_landmarks.transforms.LandmarksImageToWorldd",
     "keys": "pred_points", "refer_keys": "image", "output_keys": "pred_world"},
    {"_target_": "monai_landmarks.transforms.SaveLandmarksd",
     "keys": "pred_world", "output_dir": "@output_dir", "names": "@names", "refer_keys": "image",
     "case_key": "case", "confidence_keys": "confidence", "status": "preview", "overwrite": true}
  ]},
  "handlers": [
    {"_target_": "monai_landmarks.handlers.landmark_csv_saver.LandmarkCSVSaver",
     "output_dir": "@output_dir", "names": "@names", "points_key": "pred_world", "confidence_key": "confidence"}
  ],
  "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@validate_preprocessing"},
  "loader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 2, "num_workers": 0},
  "network": {"_target_": "torch.nn.Identity"},
  "evaluator": {"_target_": "SupervisedEvaluator",
    "device": "cpu", "val_data_loader": "@loader", "network": "@network", "postprocessing": "@postprocessing",
    "prepare_batch": "$lambda batch, device, non_blocking, **kwargs: \
(torch.cat([batch['image'], 0 * batch['image']], 1), batch['points'])",
    "val_handlers": "@handlers"}
}
"""


@pytest.fixture
def parser(tmp_path, film) -> ConfigParser:
    image, point = film
    pixels = sitk.GetArrayFromImage(image).round().astype(np.uint8)
    items = []
    for number in range(3):
        path = tmp_path / f"film{number}.png"
        sitk.WriteImage(sitk.GetImageFromArray(pixels), str(path))
        landmarks = [point.tolist(), [float("nan")] * 2]
        geometry = {"pixel_size": (0.2, 0.3), "origin": (0.05, -2.0)}
        items.append({"image": str(path), "landmarks": landmarks, "case": f"{number:03d}", **geometry})
    parser = ConfigParser(json.loads(CONFIG))
    parser["datalist"] = items
    parser["output_dir"] = str(tmp_path / "out")
    return parser


def test_the_training_chain(parser, centroid):
    compose = parser.get_parsed_content("train_preprocessing").set_random_state(0)
    item = compose(parser["datalist"][0])
    assert item["image"].shape == (1, 64, 64)
    assert item["points"][1].isnan().all()
    assert torch.linalg.vector_norm(item["points"][0] - centroid(item["image"])[0]) <= 0.05


def test_from_film_files_to_landmark_files(parser, film, tmp_path):
    """The network is the identity: the brightest pixel is the answer, so the blob is found within half a pixel."""
    parser.get_parsed_content("evaluator").run()
    table = read_landmark_table(tmp_path / "out" / "landmarks.csv", names=["tip", "absent"])
    assert list(table) == ["000", "001", "002"]
    for case, marks in table.items():
        assert np.abs(marks.points[0] - film[1]).max() <= 0.25 * 0.51
        assert marks.status == ("defined", "missing")
        file = read_landmarks(Path(tmp_path) / "out" / f"{case}.mrk.json", spatial_dims=2)
        np.testing.assert_allclose(file.points, marks.points)
        assert file.status == ("preview", "missing")
