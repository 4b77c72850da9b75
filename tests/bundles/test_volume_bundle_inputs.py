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
"""Scans as users bring them: damaged ones, short ones, ones in any frame, through the whole of a prediction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_runs import configs, failure
from monai.bundle import ConfigParser
from volume_bundle_runs import Run, workflow

from monai_landmarks.data import read_landmarks, write_landmarks
from monai_landmarks.data.datasets import VERSE_LANDMARKS, csi2014_datalist
from monai_landmarks.data.landmarks import Landmarks
from monai_landmarks.postprocessing import SequenceModel, save_presence_thresholds

pytest_plugins = ["volume_bundle_runs"]

NAMES = ["L1", "L2"]
VOXEL = 4.0
PLACE = np.array([11.0, -7.0, 23.0])  # of the ball, world mm


def ball(shape: tuple[int, int, int], spacing: tuple[float, float, float], codes: str) -> nib.Nifti1Image:
    """A CT of air with one soft ball at ``PLACE``, its axes pointing where ``codes`` say."""
    axes = np.zeros((3, 3))
    for column, letter in enumerate(codes):
        row = next(i for i, pair in enumerate(("LR", "PA", "IS")) if letter in pair)
        axes[row, column] = (1.0 if letter in "RAS" else -1.0) * spacing[column]
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = PLACE - axes @ (np.array(shape) / 2 - [1.3, 0.4, 0.8])
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    distance = ((nib.affines.apply_affine(affine, index) - PLACE) ** 2).sum(axis=-1)
    image = nib.Nifti1Image((-1000 + 2000 * np.exp(-distance / (2 * 8.0**2))).astype(np.float32), affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    return image


def predict(folder: Path, root: Path) -> Path:
    """Run the spine bundle's prediction with a network that answers where the scan is bright."""
    root.mkdir(parents=True, exist_ok=True)
    torch.save({"weight": torch.ones(2, 1, 1, 1, 1), "bias": torch.zeros(2)}, root / "bright.pt")
    save_presence_thresholds(root / "presence.json", torch.zeros(2), NAMES)
    settings: dict[str, Any] = {
        "landmark_names": NAMES,
        "network_def": {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 1},
        "ckpt_path": str(root / "bright.pt"),
        "presence_path": str(root / "presence.json"),
        "use_sequence": False,
        "pixel_mm": VOXEL,
        "grid": [24, 24, 32],
        "overlap": [0, 0, 16],
    }
    # Only parts of a network definition can be set on top of one that is there.
    parser = ConfigParser()
    parser.read_config([str(configs("spine_ct") / name) for name in ("inference.json", "methods/scn_small.json")])
    parser.update({**settings, "dataset_dir": str(folder), "bundle_root": str(root), "max_figures": 1})
    parser.get_parsed_content("run")
    return root / "eval" / "scn_small" / "inference" / "predictions"


@pytest.mark.parametrize(
    ("shape", "spacing", "codes"),
    [
        ((24, 22, 12), (4.0, 4.0, 4.0), "RAS"),  # 48 mm high, the window has 128
        ((2, 40, 36), (9.0, 2.5, 3.0), "SPL"),
        ((25, 21, 70), (4.0, 4.5, 4.0), "LAS"),  # longer than the window
    ],
    ids=["short", "two slices", "long"],
)
def test_scans_of_any_length_are_answered_in_world_millimetres(shape, spacing, codes, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    image = ball(shape, spacing, codes)
    nib.save(image, tmp_path / "scans" / "a.nii.gz")
    predictions = predict(tmp_path / "scans", tmp_path / "out")
    found = read_landmarks(predictions / "a.mrk.json")
    # Of two slices 9 mm apart, the scan knows the ball's height to half a slice.
    np.testing.assert_allclose(found.points, [PLACE, PLACE], atol=4.5 if shape[0] == 2 else 1.0)
    verse = read_landmarks(predictions / "a_ctd.json", format="verse", affine=image.affine, spatial_shape=image.shape)
    np.testing.assert_allclose(verse.points, found.points, atol=1e-3)


def cut_in_half(path: Path) -> None:
    nib.save(ball((24, 22, 30), (4.0, 4.0, 4.0), "RAS"), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_nan(path: Path) -> None:
    image = ball((24, 22, 30), (4.0, 4.0, 4.0), "RAS")
    values = image.get_fdata()
    values[3, 4, 5] = np.nan
    nib.save(nib.Nifti1Image(values, image.affine), path)


def in_time(path: Path) -> None:
    image = ball((24, 22, 30), (4.0, 4.0, 4.0), "RAS")
    nib.save(nib.Nifti1Image(np.stack([image.get_fdata()] * 3, axis=-1), image.affine), path)


def one_slice(path: Path) -> None:
    nib.save(ball((24, 22, 1), (4.0, 4.0, 4.0), "RAS"), path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [(cut_in_half, "cannot read"), (with_nan, "1 NaN"), (in_time, "is 4D"), (one_slice, "single slice")],
)
@pytest.mark.parametrize("bundle", ["spine_ct", "hand_mri"])
def test_damaged_scan_stops_the_prediction_and_nothing_is_written_for_it(
    bundle: str, damage: Callable[[Path], None], message: str, finished: Callable[[str], Run], tmp_path: Path
) -> None:
    (tmp_path / "scans").mkdir()
    damage(tmp_path / "scans" / "bad.nii.gz")
    settings = {"dataset_dir": str(tmp_path / "scans"), "output_dir": str(tmp_path / "out")}
    settings["ckpt_dir"] = str(finished(bundle).models)
    text = failure(workflow(bundle, "inference", tmp_path, **settings).run)
    assert message in text
    assert "bad.nii.gz" in text
    assert not list(tmp_path.rglob("bad*.json")) + list(tmp_path.rglob("*.csv")) + list(tmp_path.rglob("*.png"))


def test_no_random_pose_is_drawn_for_a_users_mouse(finished: Callable[[str], Run], tmp_path: Path) -> None:
    """The same scan under two names, from which poses are seeded in testing, gives the same points."""
    run = finished("mouse_skull_ct")
    (tmp_path / "scans").mkdir()
    image = nib.load(next(iter(run.images.values())))
    for name in ("one", "two"):
        nib.save(image, tmp_path / "scans" / f"{name}.nii.gz")
    settings = {"dataset_dir": str(tmp_path / "scans"), "output_dir": str(tmp_path / "out")}
    workflow("mouse_skull_ct", "inference", tmp_path, ckpt_dir=str(run.models), **settings).run()
    one, two = (read_landmarks(tmp_path / "out" / "predictions" / f"{name}.mrk.json") for name in ("one", "two"))
    np.testing.assert_array_equal(one.points, two.points)
    assert "PHANTOM" not in (tmp_path / "out" / "report.html").read_text()


def test_verse_takes_the_place_of_the_challenge(finished: Callable[[str], Run], tmp_path: Path) -> None:
    """The phantom's scans in VerSe's layout, with C1 to L5 in its files."""
    run = finished("spine_ct")
    listed = csi2014_datalist(run.root / "phantom", "set2_train", allow_incomplete=True)
    for number, entry in enumerate(listed):
        section = "test" if number == 0 else "training"
        path = tmp_path / f"dataset-verse19{section}/rawdata/sub-verse{number:03d}/sub-verse{number:03d}_ct.nii.gz"
        path.parent.mkdir(parents=True)
        image = nib.load(entry["image"])
        nib.save(image, path)
        ctd = Path(str(path.parent).replace("rawdata", "derivatives")) / f"sub-verse{number:03d}_seg-subreg_ctd.json"
        ctd.parent.mkdir(parents=True)
        marks = Landmarks(entry["landmarks"][:24], VERSE_LANDMARKS[:24])
        write_landmarks(marks, ctd, format="verse", affine=image.affine)
    overlay = str(configs("spine_ct") / "data" / "verse.json")
    settings = {"dataset_dir": str(tmp_path), "bundle_root": str(tmp_path / "out"), "num_validation": 1}
    for kind in ("train", "evaluate", "inference"):
        names = ["inference.json"] if kind == "inference" else ["train.json"]
        names += ["methods/scn_small.json", *(["evaluate.json"] if kind == "evaluate" else [])]
        parser = ConfigParser()
        parser.read_config([*(str(configs("spine_ct") / name) for name in names), overlay])
        parser.update(settings)
        assert parser.get_parsed_content("ckpt_dir") == str(tmp_path / "out" / "models/verse/scn_small")
        assert parser.get_parsed_content("landmark_names") == list(VERSE_LANDMARKS)
        model = SequenceModel(VERSE_LANDMARKS, **parser.get_parsed_content("sequence_options"))
        assert [(a.name, len(a.labels)) for a in model.anatomies] == [
            ("regular", 25),
            ("T13 present", 26),
            ("T12 absent", 24),
        ]
        if kind == "inference":
            continue
        assert parser.get_parsed_content("protocol") == "verse"
        assert parser.get_parsed_content("validate#additional_metrics#identification_rate").metric.rule == "verse"
        assert [len(parser.get_parsed_content(f"cases#{part}")) for part in ("train", "validation", "test")] == [
            2,
            1,
            1,
        ]
        entry = parser.get_parsed_content("cases#test")[0]
        np.testing.assert_allclose(entry["landmarks"][:24], listed[0]["landmarks"][:24], atol=1e-3)
