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
"""Whatever the orientation of the file, the answer in world millimetres is the same: the pipeline of a volume bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import decollate_batch, list_data_collate
from monai.networks.layers import GaussianFilter
from monai.transforms import Compose
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from monai_landmarks.data import read_landmarks
from monai_landmarks.data.datasets import CSI2014_LANDMARKS, CSI2014_VERSE_LABELS
from monai_landmarks.data.phantoms import spine_ct_phantom
from monai_landmarks.handlers import LandmarkCheckpointLoader
from monai_landmarks.postprocessing import save_presence_thresholds

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "spine_ct"
CONFIGS = [BUNDLE / "configs" / "inference.json", BUNDLE / "configs" / "methods" / "scn_small.json"]
WEIGHTS = BUNDLE / "models" / "scn_small"
ORIENTATIONS = ("LAS", "RPI", "PIR", "ASL", "IPL")
VOXEL = 4.0  # of the overlay's grid, mm
BALLS = {"T9": 1100.0, "T12": 1500.0, "L2": 1900.0}  # vertebra to the Hounsfield units of the ball in it
RADIUS = 14.0  # mm
SHIFT = (2, 1, -3)  # voxels of the grid, which run to R, A and S


class BallDetector(torch.nn.Module):
    """A network without weights: answers in channel k where the scan has the Hounsfield units of ball k.

    Args:
        shift: voxels by which the answer lies off the ball along the axes of the network's grid. A network that has
            learnt what is left and what is above knows those axes, too.
    """

    def __init__(self, shift: tuple[int, int, int] = (0, 0, 0)) -> None:
        super().__init__()
        self.register_buffer("levels", torch.tensor(list(BALLS.values())).reshape(1, -1, 1, 1, 1))
        self.blur, self.shift = GaussianFilter(3, sigma=2.0), shift

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        response = self.blur((1 - (2048 * window - self.levels).abs() / 200).relu())
        return response.roll(self.shift, dims=(2, 3, 4))


def scan_with_balls(seed: int = 3, **options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A phantom without noise, with balls in three of its vertebrae; the affine, and the centres of the balls."""
    volume, affine, points = spine_ct_phantom(seed, spacing=(3.0, 3.5, 4.5), full=True, noise=0, metal=0, **options)
    centres = points[[CSI2014_LANDMARKS.index(name) for name in BALLS]]
    world = np.moveaxis(np.indices(volume.shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    for centre, level in zip(centres, BALLS.values(), strict=True):
        inside = np.clip(0.5 + (RADIUS - np.linalg.norm(world - centre, axis=-1)) / 4, 0, 1)
        volume = np.rint(volume + inside * (level - volume)).astype(np.int16)
    return volume, affine, centres


def write(path: Path, volume: np.ndarray, affine: np.ndarray, orientation: str = "RAS") -> Path:
    """The same voxels in another order, with the affine that says so."""
    image = nib.Nifti1Image(volume, affine)
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(orientation))
    path.parent.mkdir(exist_ok=True)
    nib.save(image.as_reoriented(turn), path)
    assert "".join(nib.aff2axcodes(nib.load(path).affine)) == orientation
    return path


def pipeline(folder: Path, reader: str | None = None, trained: bool = False) -> ConfigParser:
    """The bundle's configuration for prediction with the small overlay: of all vertebrae, or of the balls."""
    parser = ConfigParser()
    parser.read_config([str(path) for path in CONFIGS])
    parser.update(
        {"bundle_root": str(folder), "output_dir": str(folder), "ckpt_dir": str(WEIGHTS if trained else folder)}
    )
    if not trained:
        save_presence_thresholds(folder / "presence.json", 0.0, tuple(BALLS))
        parser.update({"landmark_names": list(BALLS), "use_sequence": False})
    if reader is not None:
        parser["load_image"][0]["reader"] = reader
    return parser


def predict(path: Path, parser: ConfigParser, network: Callable, save: bool = False) -> np.ndarray:
    """World millimetres ``(N, 3)`` of one scan, as the bundle's evaluator finds them, and perhaps their files."""
    item = parser.get_parsed_content("preprocessing")({"image": str(path), "case": path.parent.name})
    batch = list_data_collate([item])
    batch["pred"] = parser.get_parsed_content("inferer")(batch["image"], network)
    steps = parser.get_parsed_content("decide") + (parser.get_parsed_content("save") if save else [])
    (item,) = decollate_batch(batch)
    return Compose(steps)(item)["pred_points"].numpy()


@pytest.fixture(scope="module")
def balls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A folder of the same voxels in all orientations; the true centres, and the answer to RAS with its files."""
    folder = tmp_path_factory.mktemp("orientations")
    volume, affine, centres = scan_with_balls()
    for orientation in ("RAS", *ORIENTATIONS):
        write(folder / orientation / "ct.nii.gz", volume, affine, orientation)
    answer = predict(folder / "RAS" / "ct.nii.gz", pipeline(folder), BallDetector(SHIFT), save=True)
    return folder, centres, answer


def test_the_answer_is_where_the_detector_puts_it_in_the_patient(balls) -> None:
    _, centres, answer = balls
    expected = centres + VOXEL * np.array(SHIFT)
    assert np.linalg.norm(answer - expected, axis=1).max() < 0.25 * VOXEL


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_flipped_and_permuted_voxels_give_the_same_millimetres_and_files(balls, orientation: str) -> None:
    folder, _, answer = balls
    path = folder / orientation / "ct.nii.gz"
    got = predict(path, pipeline(folder), BallDetector(SHIFT), save=True)
    np.testing.assert_allclose(got, answer, rtol=0, atol=1e-3)
    predictions = folder / "predictions"
    for case in ("RAS", orientation):
        slicer = read_landmarks(predictions / f"{case}.mrk.json")
        image = nib.load(folder / case / "ct.nii.gz")
        verse = read_landmarks(
            predictions / f"{case}_ctd.json",
            format="verse",
            affine=image.affine,
            spatial_shape=image.shape,
            label_names=CSI2014_VERSE_LABELS,
        )
        for written in (slicer, verse):
            assert tuple(written.names) == tuple(BALLS)
            np.testing.assert_allclose(written.points, answer, rtol=0, atol=1e-3)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR"])
def test_an_oblique_scan_of_the_same_body_gives_the_same_millimetres(balls, tmp_path: Path, orientation: str) -> None:
    _, centres, _ = balls
    volume, affine, drawn = scan_with_balls(oblique_deg=(12.0, -5.0, 7.0))
    np.testing.assert_allclose(drawn, centres, atol=1e-9)
    path = write(tmp_path / orientation / "ct.nii.gz", volume, affine, orientation)
    got = predict(path, pipeline(tmp_path), BallDetector())
    assert np.linalg.norm(got - centres, axis=1).max() < 0.25 * VOXEL


@pytest.mark.parametrize("orientation", ["RAS", "PIR"])
def test_readers_of_monai_agree(balls, orientation: str) -> None:
    pytest.importorskip("itk")
    folder, _, answer = balls
    parser = pipeline(folder, reader="ITKReader")
    got = predict(folder / orientation / "ct.nii.gz", parser, BallDetector(SHIFT))
    np.testing.assert_allclose(got, answer, rtol=0, atol=1e-3)


@pytest.mark.skipif(not (WEIGHTS / "sequence.json").is_file(), reason="the bundle has no weights yet")
def test_the_shipped_network_and_its_sequence_model_give_the_same_vertebrae(tmp_path: Path) -> None:
    parser = pipeline(tmp_path, trained=True)
    network = parser.get_parsed_content("network_def").eval()
    LandmarkCheckpointLoader(WEIGHTS / "model.pt", {"model": network}, landmark_names=CSI2014_LANDMARKS)()
    options = {"seed": 3, "spacing": (3.0, 3.5, 4.5), "full": True, "metal": 0}
    straight, affine, _ = spine_ct_phantom(**options)
    oblique, oblique_affine, _ = spine_ct_phantom(**options, oblique_deg=(6.0, -4.0, 5.0))
    answer = predict(write(tmp_path / "RAS" / "ct.nii.gz", straight, affine), parser, network)
    turned = predict(write(tmp_path / "PIR" / "ct.nii.gz", straight, affine, "PIR"), parser, network)
    drawn_oblique = predict(write(tmp_path / "oblique" / "ct.nii.gz", oblique, oblique_affine), parser, network)
    assert np.isfinite(answer).all(axis=1).sum() > 10
    np.testing.assert_allclose(turned, answer, rtol=0, atol=1e-3)
    distance = np.linalg.norm(drawn_oblique - answer, axis=1)
    assert np.isfinite(distance).sum() > 10
    assert np.nanmedian(distance) < VOXEL
