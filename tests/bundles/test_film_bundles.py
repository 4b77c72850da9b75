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
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_runs import BUNDLES, configs, failure, missing_files, run_in_two_processes, valid_metadata
from film_bundle_runs import (
    EPOCHS,
    FOLDERS,
    GRIDS,
    NAMES,
    OVERLAYS,
    PHANTOMS,
    SMALL,
    TINY,
    UNITS,
    FilmRun,
    files,
    workflow,
)
from monai.bundle import ConfigParser, ckpt_export, verify_net_in_out

from monai_landmarks.data import read_landmark_table, read_landmarks
from monai_landmarks.data.datasets import hand_xray_datalist
from monai_landmarks.protocols import get_protocol

pytest_plugins = ["film_bundle_runs"]

Finished = Callable[[str], FilmRun]
THRESHOLDS = {"mm": [2, 4, 10], "px": [3, 6, 9], "thousandths": [5, 10, 20, 50]}
every_bundle = pytest.mark.parametrize("bundle", list(NAMES))
every_overlay = pytest.mark.parametrize(("bundle", "overlay"), [(b, o) for b, names in OVERLAYS.items() for o in names])


@every_bundle
def test_training_leaves_a_network_and_a_checkpoint_to_resume_from(finished_films: Finished, bundle: str) -> None:
    models = finished_films(bundle).models
    assert (models / "model.pt").is_file()
    assert [path.name for path in (models / "resume").glob("*.pt")] == [f"training_checkpoint_epoch={EPOCHS}.pt"]


@every_bundle
def test_numbers_carry_protocol_and_unit_and_everything_says_phantom(finished_films: Finished, bundle: str) -> None:
    run, unit = finished_films(bundle), UNITS[bundle]
    for folder in (run.out, run.out / "validation"):
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["phantom"] is True
        assert metrics["protocol"]["unit"] == unit
        assert metrics["protocol"]["name"] in (f"phantom/{bundle}", "phantom/mm")
        assert f"radial_error_{unit}" in metrics
    assert metrics["protocol"]["is_phantom"] is True
    evaluation = json.loads((run.out / "metrics.json").read_text())
    assert evaluation["protocol"]["name"] == f"phantom/{bundle}"
    assert evaluation["protocol"]["thresholds"] == THRESHOLDS[unit]
    if bundle == "hand_xray":
        assert evaluation["info"] == {"split": "cv1", "wrist": [1, 5]}
    for report in (run.out / "report.html", run.out / "inference" / "report.html"):
        assert "PHANTOM DATA" in report.read_text()
    text = (run.out / "report.html").read_text()
    assert f"<small>{unit}</small>" in text
    assert not [other for other in THRESHOLDS if other != unit and f"<small>{other}</small>" in text]
    assert sum("uses a PHANTOM" in line for line in run.log) == 3


@every_bundle
def test_each_case_has_its_files(finished_films: Finished, bundle: str) -> None:
    run = finished_films(bundle)
    assert len(run.cases) >= 2
    for out in (run.out, run.out / "inference"):
        predictions = out / "predictions"
        expected = {f"{case}.mrk.json" for case in run.cases} | {"landmarks.csv"}
        expected |= {"cobb_angles.csv"} if bundle == "spine_xray" else set()
        assert {path.name for path in predictions.iterdir()} == expected
        assert len(list((out / "figures").glob("*.png"))) == 1
        with (predictions / "landmarks.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(run.cases) * len(NAMES[bundle])
        assert {"case", "name", "x", "y", "confidence"} <= set(rows[0])


@every_bundle
def test_predictions_agree_between_files_and_with_the_errors(finished_films: Finished, bundle: str) -> None:
    run = finished_films(bundle)
    table = read_landmark_table(run.out / "predictions" / "landmarks.csv")
    with (run.out / "radial_errors.csv").open() as file:
        errors = {row["case"]: row for row in csv.DictReader(file)}
    finite = 0
    for case, entry in run.cases.items():
        found = read_landmarks(run.out / "predictions" / f"{case}.mrk.json", spatial_dims=2)
        assert found.names == NAMES[bundle]
        np.testing.assert_allclose(table[case].points, found.points, atol=1e-3)
        distance = np.linalg.norm(found.points - entry["landmarks"], axis=1)
        for name, value in zip(found.names, distance, strict=True):
            listed = float(errors[case][name])
            assert listed == pytest.approx(value, abs=2e-3) if np.isfinite(value) else not np.isfinite(listed)
        finite += int(np.isfinite(distance).sum())
    assert finite > len(NAMES[bundle]) // 2


@every_bundle
def test_prediction_needs_no_truth_and_gives_the_same_points(finished_films: Finished, bundle: str) -> None:
    out = finished_films(bundle).out
    one, two = (read_landmark_table(folder / "predictions" / "landmarks.csv") for folder in (out, out / "inference"))
    assert sorted(one) == sorted(two)
    for case in one:
        np.testing.assert_allclose(one[case].points, two[case].points, atol=1e-6)


@every_bundle
def test_films_of_unknown_pixel_size_look_the_same_to_the_network(
    finished_films: Finished, bundle: str, tmp_path: Path
) -> None:
    """A plain folder: points are pixels of the file, and the reader's pixel size takes them to the evaluation's."""
    run = finished_films(bundle)
    films = tmp_path / "films"
    films.mkdir()
    for entry in run.cases.values():
        shutil.copy(entry["image"], films)
    settings = {"ckpt_path": str(run.models / "model.pt"), "output_dir": str(tmp_path / "out")}
    with_pixels = workflow(bundle, "inference", tmp_path, dataset_dir=str(films), **settings)
    with_pixels.run()
    known = read_landmark_table(run.out / "predictions" / "landmarks.csv")
    table = read_landmark_table(tmp_path / "out" / "predictions" / "landmarks.csv")
    assert "PHANTOM DATA" not in (tmp_path / "out" / "report.html").read_text()
    for case, entry in run.cases.items():
        world = table[case].points * np.asarray(entry["pixel_size"]) + np.asarray(entry["origin"])
        np.testing.assert_allclose(world, known[case].points, atol=0.02)
        np.testing.assert_allclose(table[case].confidence, known[case].confidence, rtol=1e-2, atol=1e-4)


@every_overlay
def test_overlays_train_and_predict(finished_films: Finished, bundle: str, overlay: str, tmp_path: Path) -> None:
    settings = {"phantom_dir": str(finished_films(bundle).root / "phantom"), "max_epochs": 1, "val_interval": 1}
    workflow(bundle, "train", tmp_path, overlay, **settings).run()
    assert (tmp_path / f"models/{overlay}{FOLDERS[bundle]}/model.pt").is_file()
    flow = workflow(bundle, "inference", tmp_path, overlay, phantom_dir=settings["phantom_dir"], max_figures=1)
    flow.run()
    cases = finished_films(bundle).cases
    out = tmp_path / f"eval/{overlay}{FOLDERS[bundle]}/inference"
    assert sorted(read_landmark_table(out / "predictions" / "landmarks.csv")) == sorted(cases)
    if overlay == "gu2net":  # a probability, and an untrained network already answers
        found = read_landmark_table(out / "predictions" / "landmarks.csv")
        confidence = np.concatenate([table.confidence for table in found.values()])
        assert ((confidence > 0) & (confidence < 1)).all()


@every_overlay
def test_overlays_change_the_method_for_training_and_prediction_alike(bundle: str, overlay: str) -> None:
    found = []
    for kind in ("train", "inference"):
        parser = ConfigParser()
        parser.read_config(files(bundle, kind, overlay))
        kinds = [
            parser[f"{key}#_target_"] for key in ("network_def", "universal_def") if isinstance(parser.get(key), dict)
        ]
        chain = [
            parser[key] for key in ("grid", "decoder", "fill", "load_image", "intensity", "prepare", "fit", "decode")
        ]
        found.append([kinds, chain, parser.get_parsed_content("ckpt_dir")])
    assert found[0] == found[1]
    assert found[0][2] == f"./models/{overlay}{FOLDERS[bundle]}"


@pytest.mark.parametrize("bundle", ["hand_xray", "chest_xray"])
def test_default_method_is_the_papers(bundle: str) -> None:
    """Payer et al. 2019: 6,348,070 weights for 19 landmarks; each has a 3 x 3 kernel and two of 11 x 11, 128 channels."""
    parser = ConfigParser()
    parser.read_config(files(bundle, "train"))
    count = sum(parameter.numel() for parameter in parser.get_parsed_content("network_def").parameters())
    each = (9 * 128 + 1) + (121 * 128) + (121 * 128 + 1)
    assert count == 6_348_070 + (len(NAMES[bundle]) - 19) * each
    optimizer = parser["optimizer"]
    assert (optimizer["_target_"], optimizer["momentum"], optimizer["nesterov"]) == ("torch.optim.SGD", 0.99, True)
    assert (parser["learning_rate"], parser["batch_size"], parser["grid"]) == (1e-6, 1, [512, 512])
    assert (parser["elastic_nodes"], parser["elastic_range"], parser["translate_range"]) == (12, 5, 20)
    assert parser.get_parsed_content("loss_def").sigma.requires_grad


@every_bundle
def test_gu2net_is_trained_as_published(bundle: str) -> None:
    parser = ConfigParser()
    parser.read_config(files(bundle, "train", "gu2net"))
    assert parser["grid"] == {"hand_xray": [368, 512], "chest_xray": [512, 512], "spine_xray": [192, 512]}[bundle]
    assert (parser["batch_size"], parser["sigma"], parser["optimizer#_target_"]) == (4, 3.0, "torch.optim.Adam")
    schedule = parser["lr_scheduler"]
    assert (schedule["mode"], schedule["step_size_up"]) == ("triangular2", 2000)
    assert (parser["learning_rate"], parser["max_learning_rate"]) == (1e-4, 1e-2)
    assert parser["decode"][0] == {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}


@pytest.mark.parametrize("kind", ["train", "inference"])
@every_bundle
def test_required_properties_are_there_under_monais_ids(bundle: str, kind: str, finished_films: Finished) -> None:
    flow = workflow(bundle, kind, finished_films(bundle).root)
    assert flow.check_properties() in ([], None)


@every_bundle
def test_metadata_is_valid_offline(bundle: str, tmp_path: Path) -> None:
    valid_metadata(bundle, NAMES[bundle], tmp_path)


@pytest.mark.parametrize("method", ["small", "gu2net"])
@every_bundle
def test_network_answers_as_the_metadata_say_and_exports(
    bundle: str, method: str, finished_films: Finished, tmp_path: Path
) -> None:
    overlay = SMALL[bundle] if method == "small" else method
    parser = ConfigParser()
    parser.read_config(files(bundle, "inference", overlay))
    for key, value in TINY[overlay].items():
        parser[key] = value
    config = tmp_path / "inference.json"
    ConfigParser.export_config_file(parser.config, str(config))
    common = {"config_file": str(config), "meta_file": str(configs(bundle) / "metadata.json")}
    verify_net_in_out("network_def", **common, device="cpu", p=3, n=2, any=40)
    network = parser.get_parsed_content("network_def").eval()
    image = torch.randn(1, 1, 30, 41)
    weights = str(finished_films(bundle).models / "model.pt")
    if method == "small":
        network.load_state_dict(torch.load(weights, weights_only=True))
    if overlay == "scn_small":
        ckpt_export("network_def", **common, ckpt_file=weights, filepath=str(tmp_path / "model.ts"))
        exported = torch.jit.load(str(tmp_path / "model.ts")).eval()
    else:
        exported = torch.export.export(network, (image,)).module()
    torch.testing.assert_close(exported(image), network(image))


def test_each_split_has_its_folder_its_wrist_and_its_protocol(finished_films: Finished) -> None:
    root = finished_films("hand_xray").root
    test_films = []
    for settings, folder, protocol, wrist in (
        ({"fold": 2}, "cv2", "hand_xray/payer/cv2", (1, 5)),
        ({"fold": 3}, "cv3", "hand_xray/payer/cv3", (1, 5)),
        ({"split": "gu2net"}, "gu2net", "hand_xray/gu2net", (0, 4)),
        ({"fold": 3, "wrist": [0, 4]}, "cv3", "native/mm", (0, 4)),
    ):
        parser = workflow("hand_xray", "evaluate", root, **settings).parser
        parts = {part: parser.get_parsed_content(f"cases#{part}") for part in ("train", "validation", "test")}
        numbers = {part: {case["case"] for case in cases} for part, cases in parts.items()}
        assert all(not numbers["test"] & numbers[part] for part in ("train", "validation"))
        assert not numbers["train"] & numbers["validation"]
        test_films.append(numbers["test"])
        points = parts["test"][0]["landmarks"]
        assert np.linalg.norm(points[wrist[0]] - points[wrist[1]]) == pytest.approx(50.0)
        assert parser.get_parsed_content("protocol") == protocol
        assert (
            get_protocol(protocol).unit == get_protocol(parser.get_parsed_content("validation_protocol")).unit == "mm"
        )
        assert parser.get_parsed_content("ckpt_dir").endswith(f"models/scn_small/{folder}")
        assert parser.get_parsed_content("output_dir").endswith(f"eval/scn_small/{folder}")
    assert not test_films[0] & test_films[1]


def test_histograms_are_matched_to_the_reference_film(finished_films: Finished, tmp_path: Path) -> None:
    run = finished_films("hand_xray")
    film = next(iter(run.cases.values()))["image"]
    chains = []
    for reference in ("", film):
        parser = workflow("hand_xray", "inference", run.root, reference_film=reference).parser
        chains.append([type(step).__name__ for step in parser.get_parsed_content("intensity")])
    assert chains == [["ScaleIntensityRangePercentilesd"], ["MatchHistogramd", "ScaleIntensityRanged"]]
    settings = {"reference_film": film, "ckpt_path": str(run.models / "model.pt"), "output_dir": str(tmp_path)}
    workflow("hand_xray", "inference", run.root, **settings).run()
    assert (tmp_path / "predictions" / "landmarks.csv").is_file()
    nowhere = workflow("hand_xray", "inference", run.root, reference_film=str(tmp_path / "nowhere.png"))
    assert "nowhere.png" in failure(nowhere.run)


@every_bundle
def test_given_folder_that_does_not_exist_is_never_a_phantom(bundle: str, tmp_path: Path) -> None:
    for kind in ("train", "inference"):
        flow = workflow(bundle, kind, tmp_path, dataset_dir=str(tmp_path / "nowhere"))
        assert "nowhere does not exist" in failure(flow.run)
    assert not (tmp_path / "phantom").exists()


@every_bundle
def test_missing_film_stops_the_training_with_its_name(finished_films: Finished, bundle: str, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    shutil.copytree(finished_films(bundle).root / "phantom", folder)
    flow = workflow(bundle, "train", tmp_path, dataset_dir=str(folder))
    film = Path(flow.parser.get_parsed_content("cases#train")[0]["image"])
    film.unlink()
    message = failure(workflow(bundle, "train", tmp_path, dataset_dir=str(folder)).run)
    assert film.stem in message
    assert ("allow_incomplete" in message) == (bundle != "spine_xray")


@every_bundle
def test_bundle_is_complete_for_monai(bundle: str) -> None:
    assert not missing_files(bundle)
    assert not (BUNDLES / bundle / "scripts").exists()


@every_bundle
def test_batches_are_augmented_on_the_device(finished_films: Finished, bundle: str, tmp_path: Path) -> None:
    """Films of all sizes: they are on one grid before the cache."""
    phantom = str(finished_films(bundle).root / "phantom")
    settings = {"phantom_dir": phantom, "augment_on_device": True, "batch_size": 2, "elastic_range": 0.5}
    workflow(bundle, "train", tmp_path, max_epochs=1, **settings).run()
    assert (tmp_path / f"models/{SMALL[bundle]}{FOLDERS[bundle]}/resume/training_checkpoint_epoch=1.pt").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bundle", "overlay"), [("chest_xray", "scn_small"), ("chest_xray", "gu2net"), ("spine_xray", "farnet_small")]
)
def test_two_processes_train_together(bundle: str, overlay: str, tmp_path: Path) -> None:
    """With a loss that learns, with one that has no weights, with a network that returns two heatmaps."""
    given = [*files(bundle, "train", overlay), configs(bundle) / "multi_gpu_train.json"]
    settings = {"bundle_root": tmp_path, "phantom_parameters": PHANTOMS[bundle], "max_epochs": 1}
    if bundle == "chest_xray":
        settings["phantom_parameters"] = {**PHANTOMS[bundle], "num_validation": 2}
    else:
        settings["num_validation"] = 2
    settings |= {"grid": GRIDS[bundle], "val_interval": 1, "batch_size": 1, "elastic_range": 0.0, **TINY[overlay]}
    run_in_two_processes(given, settings)
    assert (tmp_path / f"models/{overlay}/model.pt").is_file()


@pytest.mark.real_data
def test_real_hand_films_are_evaluated(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """The ten films that are there, by an untrained network: the numbers mean nothing, the frame does."""
    folder = real_data("hand_xrays")
    listed = hand_xray_datalist(folder, None, "all")
    assert len(listed) == 10
    settings = {"dataset_dir": str(folder), "split": "all", "output_dir": str(tmp_path), "grid": [144, 192]}
    flow = workflow("hand_xray", "evaluate", tmp_path, "gu2net", ckpt_path=str(tmp_path / "model.pt"), **settings)
    torch.save(flow.parser.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
    flow.run()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["phantom"], metrics["protocol"]["name"]) == (False, "native/mm")
    assert metrics["info"] == {"split": "all", "wrist": [1, 5]}
    table = read_landmark_table(tmp_path / "predictions" / "landmarks.csv")
    assert sorted(table) == [entry["case"] for entry in listed]
    for entry in listed:
        # every point lies on the grid that holds the film: within its extent and the padding of its shorter side
        extent = np.abs(entry["landmarks"]).max() * 2
        assert np.isfinite(table[entry["case"]].points).all()
        assert (np.abs(table[entry["case"]].points) < extent).all()
    assert "PHANTOM" not in (tmp_path / "report.html").read_text()
