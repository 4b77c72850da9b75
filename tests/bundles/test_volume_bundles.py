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
from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_runs import BUNDLES, configs, failure, missing_files, valid_metadata
from monai.bundle import ConfigParser, ckpt_export, verify_net_in_out
from volume_bundle_runs import CALIBRATED, EPOCHS, NAMES, Run, files, workflow

from monai_landmarks.data import read_landmark_table, read_landmarks
from monai_landmarks.data.datasets import CSI2014_VERSE_LABELS
from monai_landmarks.postprocessing import SequenceModel, load_presence_thresholds

pytest_plugins = ["volume_bundle_runs"]

Finished = Callable[[str], Run]
every_bundle = pytest.mark.parametrize("bundle", list(NAMES))


@every_bundle
def test_training_and_calibration_leave_their_files(finished: Finished, bundle: str) -> None:
    models = finished(bundle).models
    assert (models / "model.pt").is_file()
    assert [path.name for path in (models / "resume").glob("*.pt")] == [f"training_checkpoint_epoch={EPOCHS}.pt"]
    assert (models / "presence.json").is_file() == (models / "sequence.json").is_file() == (bundle in CALIBRATED)
    if bundle in CALIBRATED:
        assert len(load_presence_thresholds(models / "presence.json", NAMES[bundle])) == len(NAMES[bundle])
        assert SequenceModel.load(models / "sequence.json").names == NAMES[bundle]


@every_bundle
def test_numbers_carry_their_protocol_and_everything_says_phantom(finished: Finished, bundle: str) -> None:
    run = finished(bundle)
    protocol = {"spine_ct": "phantom/spine_ct", "lumbar_mri": "phantom/identification"}.get(bundle, "phantom/mm")
    for folder in (run.out, run.out / "validation"):
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["phantom"] is True
        assert metrics["protocol"]["name"] == protocol
        assert ("identification" in metrics) == (bundle in CALIBRATED)
    for report in (run.out / "report.html", run.out / "inference" / "report.html"):
        assert "PHANTOM DATA" in report.read_text()
    assert sum("uses a PHANTOM" in line for line in run.log) == (4 if bundle in CALIBRATED else 3)


@every_bundle
def test_each_case_has_its_files(finished: Finished, bundle: str) -> None:
    run = finished(bundle)
    cases = sorted(run.truth)
    assert len(cases) >= 1
    for out in (run.out, run.out / "inference"):
        predictions = out / "predictions"
        expected = {f"{case}.mrk.json" for case in cases} | {"landmarks.csv"}
        expected |= {f"{case}_sequence.txt" for case in cases if bundle in CALIBRATED}
        expected |= {f"{case}_ctd.json" for case in cases if bundle in CALIBRATED}
        assert {path.name for path in predictions.iterdir()} == expected
        assert len(list((out / "figures").glob("*.png"))) == 1
        with (predictions / "landmarks.csv").open() as file:
            assert len(list(csv.DictReader(file))) == len(cases) * len(NAMES[bundle])
    if bundle in CALIBRATED:
        assert (run.out / "predictions" / f"{cases[0]}_sequence.txt").read_text().startswith("anatomy: ")


@every_bundle
def test_predictions_are_world_millimetres_and_agree_between_files(finished: Finished, bundle: str) -> None:
    run = finished(bundle)
    table = read_landmark_table(run.out / "predictions" / "landmarks.csv")
    rows = np.genfromtxt(run.out / "radial_errors.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    errors = {str(row[0]).zfill(len(min(run.truth, key=len))): list(row)[1:-1] for row in np.atleast_1d(rows)}
    for case, truth in run.truth.items():
        found = read_landmarks(run.out / "predictions" / f"{case}.mrk.json")
        assert found.names == NAMES[bundle]
        np.testing.assert_allclose(table[case].points, found.points, atol=1e-3)
        distance = np.linalg.norm(found.points - truth, axis=1)
        missed = np.isnan(distance) & ~np.isnan(truth[:, 0])
        np.testing.assert_allclose(np.where(missed, np.inf, distance), errors[case], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("bundle", CALIBRATED)
def test_verse_files_are_in_the_frame_of_the_input(finished: Finished, bundle: str) -> None:
    """Read by hand: the file's numbers are voxels of the input, whose affine nibabel gives."""
    run = finished(bundle)
    number = {name: label for label, name in CSI2014_VERSE_LABELS.items()}
    seen = 0
    for case, path in run.images.items():
        image = nib.load(path)
        content = json.loads((run.out / "predictions" / f"{case}_ctd.json").read_text())
        assert content[0] == {"direction": list(nib.aff2axcodes(image.affine))}
        world = read_landmarks(run.out / "predictions" / f"{case}.mrk.json")
        entries = {entry["label"]: [float(entry[axis]) for axis in "XYZ"] for entry in content[1:]}
        assert set(entries) == {number[name] for name in world.names}
        for name, point in zip(world.names, world.points, strict=True):
            voxel = np.array(entries[number[name]])
            np.testing.assert_allclose(nib.affines.apply_affine(image.affine, voxel), point, atol=1e-3)
            seen += bool(np.isfinite(point).all())
    assert seen > 0


def test_prediction_needs_no_truth_and_gives_the_same_points(finished: Finished) -> None:
    out = finished("spine_ct").out
    one, two = (read_landmark_table(folder / "predictions" / "landmarks.csv") for folder in (out, out / "inference"))
    for case in one:
        np.testing.assert_allclose(one[case].points, two[case].points, atol=1e-6)


def test_thresholds_decide_where_the_sequence_model_does_not(finished: Finished, tmp_path: Path) -> None:
    run = finished("spine_ct")
    settings = {"ckpt_dir": str(run.models), "output_dir": str(tmp_path)}
    settings["sequence_path"] = str(tmp_path / "there is none.json")
    workflow("spine_ct", "evaluate", run.root, use_sequence=False, **settings).run()
    limits = load_presence_thresholds(run.models / "presence.json", NAMES["spine_ct"]).numpy()
    table = read_landmark_table(tmp_path / "predictions" / "landmarks.csv")
    assert sorted(table) == sorted(run.truth)
    for found in table.values():
        sure = found.confidence >= limits
        assert not (np.isfinite(found.points[:, 0]) & ~sure).any()
        # A map without a positive value has no place, however low its threshold is.
        assert np.isfinite(found.points[sure & (found.confidence > 0)]).all()
    assert not list(tmp_path.rglob("*_sequence.txt"))


@pytest.mark.parametrize("kind", ["train", "inference"])
@every_bundle
def test_required_properties_are_there_under_monais_ids(bundle: str, kind: str, finished: Finished) -> None:
    flow = workflow(bundle, kind, finished(bundle).root)
    assert flow.check_properties() in ([], None)


@every_bundle
def test_metadata_is_valid_offline(bundle: str, tmp_path: Path) -> None:
    metadata = valid_metadata(bundle, NAMES[bundle], tmp_path)
    assert ("mouse" in metadata["intended_use"].lower()) == (bundle == "mouse_skull_ct")


@every_bundle
def test_network_answers_as_the_metadata_say_and_exports(bundle: str, finished: Finished, tmp_path: Path) -> None:
    parser = ConfigParser()
    parser.read_config(files(bundle, "inference"))
    parser["network_def#channels"] = 4
    config = tmp_path / "inference.json"
    ConfigParser.export_config_file(parser.config, str(config))
    common = {"config_file": str(config), "meta_file": str(configs(bundle) / "metadata.json")}
    verify_net_in_out("network_def", **common, device="cpu", p=3, n=2, any=16)
    weights = finished(bundle).models / "model.pt"
    ckpt_export("network_def", **common, ckpt_file=str(weights), filepath=str(tmp_path / "model.ts"))
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    image = torch.randn(1, 1, 16, 15, 17)
    torch.testing.assert_close(torch.jit.load(str(tmp_path / "model.ts")).eval()(image), network(image))


@every_bundle
def test_default_method_is_the_papers(bundle: str) -> None:
    """The paper's 3D configuration: 64 channels, 7 x 7 x 7 kernels, windows of its sizes; sums counted by hand."""
    parser = ConfigParser()
    parser.read_config(str(configs(bundle) / "train.json"))
    parts = dict.fromkeys(("local", "spatial"), 0)
    for name, parameter in parser.get_parsed_content("network_def").named_parameters():
        parts["spatial" if name.startswith("spatial") else "local"] += parameter.numel()
    # Of each landmark: a 3 x 3 x 3 kernel from 64 channels and a bias; a 7 x 7 x 7 kernel to and one from 64 channels.
    extra = len(NAMES[bundle]) - 26
    local, spatial = 1_374_618 + extra * (27 * 64 + 1), 3_951_578 + extra * (2 * 343 * 64 + 1)
    assert sum(parts.values()) == local + spatial
    optimizer = parser["optimizer"]
    assert (optimizer["_target_"], optimizer["momentum"], optimizer["nesterov"]) == ("torch.optim.SGD", 0.99, True)
    assert parser["batch_size"] == 1
    if bundle == "spine_ct":
        assert (parser["grid"], parser["pixel_mm"], parser["overlap"]) == ([96, 96, 192], 2.0, [0, 0, 96])
        assert (parser["loss_def#missing"], parser["sigma"]) == ("zero", 4.0)
    if bundle == "hand_mri":
        assert parser["grid"] == [96, 128, 32]


@pytest.mark.parametrize("overlay", ["scn_small", "localization_unet", "localization_unet_small"])
@every_bundle
def test_overlays_change_the_method_for_training_and_prediction_alike(bundle: str, overlay: str) -> None:
    found = []
    for first in ("train", "inference"):
        parser = ConfigParser()
        parser.read_config(
            [str(configs(bundle) / f"{first}.json"), str(configs(bundle) / "methods" / f"{overlay}.json")]
        )
        kind = parser["network_def#_target_"].rpartition(".")[2]
        found.append([kind, parser["pixel_mm"], parser["grid"], parser.get_parsed_content("ckpt_dir")])
    assert found[0] == found[1]
    assert found[0][0] == ("SpatialConfigurationNet" if overlay == "scn_small" else "LocalizationUNet")
    assert f"models/{overlay}" in found[0][3]


def test_folds_of_the_challenge_have_folders_and_a_protocol_of_their_own(finished: Finished) -> None:
    flow = workflow("spine_ct", "evaluate", finished("spine_ct").root, section="set1", fold=1)
    parser = flow.parser
    test, train, validation = (
        {case["case"] for case in parser.get_parsed_content(f"cases#{part}")}
        for part in ("test", "train", "validation")
    )
    assert sorted(test | train | validation) == ["001", "002", "003", "004"]
    assert not (test & (train | validation))
    assert not (train & validation)
    assert parser.get_parsed_content("protocol") == "csi2014/set1"
    assert parser.get_parsed_content("ckpt_dir").endswith("models/scn_small/fold1")
    assert parser.get_parsed_content("output_dir").endswith("eval/scn_small/fold1")


@every_bundle
def test_given_folder_that_does_not_exist_is_never_a_phantom(bundle: str, tmp_path: Path) -> None:
    for kind in ("train", "inference"):
        flow = workflow(bundle, kind, tmp_path, dataset_dir=str(tmp_path / "nowhere"))
        assert "nowhere does not exist" in failure(flow.run)
    assert not (tmp_path / "phantom").exists()


@every_bundle
def test_bundle_is_complete_for_monai(bundle: str) -> None:
    assert not missing_files(bundle)
    assert not (BUNDLES / bundle / "scripts").exists()
    assert (configs(bundle) / "calibrate.json").is_file() == (bundle in CALIBRATED)
