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
"""The bundle for several anatomies: trained, evaluated, used, extended and resumed on very small phantoms."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_runs import failure, run_in_two_processes, valid_metadata
from ignite.engine import Events
from monai.bundle import ConfigParser, verify_net_in_out
from universal_runs import (
    CONFIGS,
    METHOD,
    NAMES,
    Finished,
    files,
    folders,
    informed_lines,
    metrics_of,
    options,
    run,
    settings_of,
    workflow,
)

from monai_landmarks.data import read_landmark_table, read_landmarks
from monai_landmarks.data.datasets import CHEST_XRAY_LANDMARKS, HAND_XRAY_LANDMARKS, ISBI2015_LANDMARKS
from monai_landmarks.handlers import read_checkpoint
from monai_landmarks.networks import GU2Net, UniversalGlobalNet, UniversalUNet, datasets_of_state

pytest_plugins = ["universal_runs"]

LANDMARKS = {"head": ISBI2015_LANDMARKS, "hand": HAND_XRAY_LANDMARKS, "chest": CHEST_XRAY_LANDMARKS}
CASES = {
    "head": ["151", "152"],
    "hand": ["5577", "5578"],
    "chest": ["CHNCXR_0230_0", "CHNCXR_0231_0"],
}
PROTOCOLS = {
    "head": ("phantom/cephalogram", "mm"),
    "hand": ("phantom/hand_xray", "mm"),
    "chest": ("phantom/chest_xray", "px"),
}
METHODS = {
    "gu2net": (GU2Net, 4_381_052),
    "unet": (UniversalUNet, 17_306_878),
    "unet_per_dataset": (UniversalUNet, 51_911_806),
    "local_only": (UniversalUNet, 2_117_630),
    "global_only": (UniversalGlobalNet, 2_229_438),
}
every_dataset = pytest.mark.parametrize("name", NAMES)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(path, weights_only=True))


def test_training_leaves_a_network_and_a_checkpoint_to_resume_from(finished: Finished) -> None:
    checkpoint = read_checkpoint(finished.models / "model.pt")
    assert checkpoint.landmark_names == (*ISBI2015_LANDMARKS, *HAND_XRAY_LANDMARKS, *CHEST_XRAY_LANDMARKS)
    assert datasets_of_state(checkpoint.state("model")) == {"head": 19, "hand": 37, "chest": 6}
    resume = [path.name for path in (finished.models / "resume").glob("*.pt")]
    assert resume == ["training_checkpoint_epoch=2.pt"]


@every_dataset
def test_numbers_carry_the_protocol_and_unit_of_their_data_set(finished: Finished, name: str) -> None:
    for folder in (finished.out / name, finished.out / name / "validation"):
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["phantom"] is True
        assert (metrics["protocol"]["name"], metrics["protocol"]["unit"]) == PROTOCOLS[name]
        assert f"radial_error_{PROTOCOLS[name][1]}" in metrics
    assert "PHANTOM DATA" in (finished.out / name / "report.html").read_text()
    # Once in each of training and evaluation, and once more where the data set was used for prediction.
    told = [line for line in finished.log if "uses a PHANTOM" in line and line.endswith(f"phantom/{name}.")]
    assert len(told) == (3 if name == "chest" else 2)


@every_dataset
def test_each_case_has_its_files(finished: Finished, name: str) -> None:
    outs = [finished.out / name] + ([finished.out / name / "inference"] if name == "chest" else [])
    for out in outs:
        expected = {f"{case}.mrk.json" for case in CASES[name]} | {"landmarks.csv"}
        assert {path.name for path in (out / "predictions").iterdir()} == expected
        assert len(list((out / "figures").glob("*.png"))) == 1
        assert (out / "report.html").is_file()
        with (out / "predictions" / "landmarks.csv").open() as file:
            assert len(list(csv.DictReader(file))) == len(CASES[name]) * len(LANDMARKS[name])


@every_dataset
def test_predictions_are_in_the_world_of_the_film_and_agree_between_files(finished: Finished, name: str) -> None:
    rows = np.genfromtxt(
        finished.out / name / "radial_errors.csv", delimiter=",", names=True, dtype=None, encoding="utf-8"
    )
    table = read_landmark_table(finished.out / name / "predictions" / "landmarks.csv")
    for row, case in zip(rows, CASES[name], strict=True):
        found = read_landmarks(finished.out / name / "predictions" / f"{case}.mrk.json", spatial_dims=2)
        assert found.names == LANDMARKS[name]
        np.testing.assert_allclose(table[case].points[:, :2], found.points, atol=1e-3)
        error = np.linalg.norm(found.points - finished.truth[name][case], axis=1)
        np.testing.assert_allclose(error, list(row)[1:-1], rtol=1e-4, atol=1e-3)


def test_prediction_needs_no_truth_and_gives_the_same_points(finished: Finished) -> None:
    out = finished.out / "chest"
    one, two = (read_landmark_table(folder / "predictions" / "landmarks.csv") for folder in (out, out / "inference"))
    assert list(one) == list(two) == CASES["chest"]
    for case in one:
        np.testing.assert_allclose(one[case].points, two[case].points, atol=1e-6)


def test_joint_error_is_the_mean_of_the_normalised_errors(finished: Finished) -> None:
    scales = {"head": 308.3, "hand": 300.0, "chest": 724.1}
    errors = []
    for name, scale in scales.items():
        metrics = json.loads((finished.out / name / "metrics.json").read_text())
        errors.append(metrics[f"radial_error_{PROTOCOLS[name][1]}"]["mean"] / scale)
    assert finished.metrics["mean_normalised_error"] == pytest.approx(np.mean(errors), rel=1e-5)


def test_curves_of_each_data_set_reach_log_and_tensorboard(finished: Finished) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tags: set[str] = set()
    for path in finished.out.glob("events.out.tfevents.*"):
        tags |= set(accumulator.EventAccumulator(str(path)).Reload().Tags()["scalars"])
    wanted = {"mean_normalised_error", "train_loss"}
    wanted |= {f"{name}_{what}" for name in NAMES for what in ("loss", "radial_error")}
    assert wanted <= tags
    epochs = [line for line in finished.log if "Epoch[2] Metrics" in line]
    for word in wanted - {"train_loss"}:
        assert any(f"{word}: " in line for line in epochs), word


def test_only_data_sets_whose_folders_are_given_are_trained(two: Finished) -> None:
    checkpoint = read_checkpoint(two.models / "model.pt")
    assert checkpoint.landmark_names == (*ISBI2015_LANDMARKS, *CHEST_XRAY_LANDMARKS)
    assert list(datasets_of_state(checkpoint.state("model"))) == ["head", "chest"]
    assert sorted(path.name for path in two.out.iterdir() if path.is_dir()) == ["chest", "head"]
    assert not (two.root / "phantom").exists()
    assert not [line for line in two.log if "uses a PHANTOM" in line]


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_given_folder_that_does_not_exist_is_never_a_phantom(kind: str, tmp_path: Path) -> None:
    key = "dataset_dir" if kind == "inference" else "hand_dir"
    flow = workflow(kind, tmp_path, **{key: str(tmp_path / "nowhere")})
    assert "nowhere does not exist" in failure(flow.run)
    assert not (tmp_path / "phantom").exists()


def test_spine_films_have_a_phantom_when_they_are_asked_for(tmp_path: Path) -> None:
    tiny = {"phantom_parameters": {"num_patients": 6, "reduction": 16}, "grid": [32, 64], "num_validation": 1}
    run("train", tmp_path, datasets=["spine"], dataset_settings={"spine": tiny})
    metrics = json.loads((tmp_path / "eval" / METHOD / "spine" / "validation" / "metrics.json").read_text())
    assert metrics["protocol"]["name"] == "phantom/spine_xray"
    assert "radial_error_thousandths" in metrics


@pytest.mark.parametrize(
    ("anatomy", "expected"),
    [
        ("chset", ["no data set 'chset'", "did you mean 'chest'", "Known: chest, hand, head, spine"]),
        ("hand", ["knows no data set 'hand'", "it knows 'head', 'chest'"]),
    ],
)
def test_unknown_anatomy_lists_the_known_ones(
    finished: Finished, two: Finished, tmp_path: Path, anatomy: str, expected: list[str]
) -> None:
    films = str(finished.phantom("hand") / "jpg")
    settings = {"anatomy": anatomy, "ckpt_dir": str(two.models), "dataset_settings": {}, "dataset_dir": films}
    text = failure(lambda: run("inference", tmp_path, **settings))
    assert all(part in text for part in expected), text
    assert not list(tmp_path.rglob("*.mrk.json"))


def test_data_set_that_the_checkpoint_does_not_know_is_not_evaluated(finished: Finished, two: Finished) -> None:
    given = {"hand_dir": str(finished.phantom("hand")), "output_dir": str(two.root / "none")}
    text = failure(lambda: run("evaluate", two.root, **given))
    assert "knows no data set 'hand'" in text
    assert "it knows 'head', 'chest'" in text
    assert not list((two.root / "none").rglob("*.mrk.json"))


def test_checkpoint_of_other_data_sets_is_not_resumed(finished: Finished, two: Finished, tmp_path: Path) -> None:
    settings = {"ckpt_dir": str(two.models), "output_dir": str(tmp_path), "resume": True, **folders(finished, *NAMES)}
    text = failure(lambda: run("train", tmp_path, **settings))
    assert "the checkpoint predicts 25 landmarks, 62 are wanted" in text
    assert HAND_XRAY_LANDMARKS[0] in text


def test_landmark_names_of_two_data_sets_may_not_clash(finished: Finished, tmp_path: Path) -> None:
    names = ["sella", *CHEST_XRAY_LANDMARKS[1:]]
    settings = {"head": settings_of("head"), "chest": settings_of("chest", landmark_names=names)}
    given = folders(finished, "head", "chest")
    text = failure(lambda: run("train", tmp_path, dataset_settings=settings, **given))
    assert "data sets 'head' and 'chest' both have a landmark 'sella'" in text


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_required_properties_are_there_under_monais_ids(finished: Finished, kind: str) -> None:
    flow = workflow(kind, finished.root, **({} if kind == "inference" else {"output_dir": str(finished.root / "no")}))
    assert flow.check_properties() in ([], None)


def test_data_set_of_monais_property_is_the_one_that_is_trained_on(finished: Finished, tmp_path: Path) -> None:
    """Not a second one, which would be cached beside it."""
    flow = workflow("train", tmp_path, **folders(finished, *NAMES))
    flow.parser.get_parsed_content("validate#evaluator")  # what gives the network to the configurations
    shown, loader = (flow.parser.get_parsed_content(key) for key in ("train#dataset", "train#dataloader"))
    assert all(shown[name] is loader.loaders[name].dataset for name in NAMES)


@pytest.mark.parametrize("first", ["train", "inference"])
def test_an_entry_of_one_data_set_is_set_by_its_id(first: str) -> None:
    settings = {"config_dir": str(CONFIGS), "anatomy": "hand"} if first == "inference" else {"config_dir": str(CONFIGS)}
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / f"{first}.json"))
    parser.update({**settings, "dataset_settings#hand#grid": [184, 256]})
    assert parser.get_parsed_content("configs").get("grid")["hand"] == [184, 256]


def test_metadata_is_valid_offline(tmp_path: Path) -> None:
    valid_metadata("universal_xray", ISBI2015_LANDMARKS, tmp_path)


def test_network_of_an_anatomy_answers_as_the_metadata_say(tmp_path: Path) -> None:
    parser = ConfigParser()
    parser.read_config(files("inference"))
    parser.update({"network_datasets": {"head": 19, "chest": 6}, "universal#channels": [4, 8, 8]})
    config = tmp_path / "inference.json"
    ConfigParser.export_config_file(parser.config, str(config))
    verify_net_in_out("network_def", str(CONFIGS / "metadata.json"), str(config), device="cpu", p=3, n=2, any=40)


@pytest.mark.parametrize("first", ["train", "inference"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_methods_have_the_papers_sizes(method: str, first: str) -> None:
    """Of head, hand and chest: table 2 of the paper prints 4.44, 17.31, 51.92, 2.17 and 2.27 million."""
    parser = ConfigParser()
    overlay = [] if method == "gu2net" else [CONFIGS / "methods" / f"{method}.json"]
    parser.read_config([str(path) for path in (CONFIGS / f"{first}.json", *overlay)])
    parser["network_datasets"] = {name: len(LANDMARKS[name]) for name in NAMES}
    with torch.device("meta"):
        network = parser.get_parsed_content("universal")
    kind, count = METHODS[method]
    assert type(network) is kind
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    where = parser.get_parsed_content("ckpt_dir")
    assert where == "./models" + ("" if method == "gu2net" else f"/{method}")


def test_every_overlay_is_one_of_the_methods_or_its_small_form() -> None:
    found = {path.stem for path in (CONFIGS / "methods").glob("*.json")}
    assert found == {f"{method}_small" for method in METHODS} | (set(METHODS) - {"gu2net"})


@pytest.mark.parametrize("method", sorted(METHODS))
def test_small_overlays_build_the_same_network_smaller(method: str) -> None:
    for first in ("train", "inference"):
        parser = ConfigParser()
        parser.read_config([str(CONFIGS / f"{first}.json"), str(CONFIGS / "methods" / f"{method}_small.json")])
        parser["network_datasets"] = {"head": 19, "chest": 6}
        with torch.device("meta"):
            network = parser.get_parsed_content("universal")
        assert type(network) is METHODS[method][0]
        assert sum(parameter.numel() for parameter in network.parameters()) < METHODS[method][1] / 3
        assert (parser["method"], parser["decoder"]) == (f"{method}_small", "dark")
        assert parser["dataset_settings#head#grid"] == [208, 256]


def test_default_settings_are_the_published_ones() -> None:
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "train.json"))
    parser.update({"config_dir": str(CONFIGS), "datasets": ["head"], "network": torch.nn.Linear(1, 1)})
    optimizer, schedule = (parser.get_parsed_content(key) for key in ("optimizer", "lr_scheduler"))
    assert type(optimizer) is torch.optim.Adam
    assert type(schedule) is torch.optim.lr_scheduler.CyclicLR
    assert (schedule.base_lrs, schedule.max_lrs, schedule.mode) == ([1e-4], [1e-2], "triangular2")
    assert (parser["batch_size"], parser["max_epochs"]) == (4, 100)
    loss = parser.get_parsed_content("loss")["head"]
    assert (loss.sigma, loss.reduction) == (3.0, "sum")


def test_added_data_set_leaves_the_predictions_of_the_others_to_the_bit(
    finished: Finished, two: Finished, tmp_path: Path
) -> None:
    base, given = two.models / "model.pt", folders(finished, *NAMES)
    run("train", two.root, "add_dataset.json", new_dataset="hand", **given)
    new = two.root / "models" / f"{METHOD}_hand" / "model.pt"
    before, after = weights(base), weights(new)
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert all("hand" in key.split(".") for key in set(after) - set(before))
    checkpoint = read_checkpoint(new)
    assert checkpoint.landmark_names == (*ISBI2015_LANDMARKS, *CHEST_XRAY_LANDMARKS, *HAND_XRAY_LANDMARKS)
    resumed = read_checkpoint(next((new.parent / "resume").glob("*.pt"))).state("model")
    assert all(torch.equal(value, resumed[key]) for key, value in before.items())

    run("evaluate", two.root, ckpt_path=str(base), output_dir=str(tmp_path / "old"), head_dir=given["head_dir"])
    metrics = metrics_of(run("evaluate", two.root, ckpt_path=str(new), output_dir=str(tmp_path / "new"), **given))
    assert {f"{name}_radial_error" for name in NAMES} <= set(metrics)
    assert {path.name for path in (tmp_path / "new").iterdir()} >= set(NAMES)
    for case in CASES["head"]:
        old, now = ((tmp_path / part / f"head/predictions/{case}.mrk.json").read_text() for part in ("old", "new"))
        assert old == now


def test_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(finished: Finished, tmp_path: Path) -> None:
    given = folders(finished, *NAMES)
    flow = workflow("train", tmp_path, **given)
    trainer = flow.parser.get_parsed_content("train#trainer")

    @trainer.on(Events.EPOCH_STARTED(once=2))
    def interrupt() -> None:
        raise InterruptedError("power cut")

    assert "power cut" in failure(flow.run)
    resume = tmp_path / "models" / METHOD / "resume"
    assert [path.name for path in resume.glob("*.pt")] == ["training_checkpoint_epoch=1.pt"]
    with informed_lines() as log:
        run("train", tmp_path, resume=True, **given)
    assert any("training resumes after epoch 1" in line for line in log)
    assert not [line for line in log if "Epoch[1] Metrics" in line]
    name = "training_checkpoint_epoch=2.pt"
    straight, resumed = (read_checkpoint(folder / name) for folder in (finished.models / "resume", resume))
    for part in ("model", "optimizer"):
        torch.testing.assert_close(resumed.state(part), straight.state(part), rtol=0, atol=0)
    best, again = (weights(folder / "model.pt") for folder in (finished.models, resume.parent))
    assert all(torch.equal(value, again[key]) for key, value in best.items())


@pytest.mark.slow
def test_two_processes_train_together(tmp_path: Path) -> None:
    """They also write the phantoms together."""
    films = {
        "head": {"num_training": 15, "num_test1": 2, "reduction": 16},
        **{name: {"num_train": 4, "num_validation": 2, "num_test": 2, "reduction": 16} for name in ("hand", "chest")},
    }
    own = {name: settings_of(name, phantom_parameters=films[name]) for name in NAMES}
    settings = options("train", tmp_path, dataset_settings=own, max_epochs=1)
    run_in_two_processes(files("train", "multi_gpu_train.json"), settings)
    run("evaluate", tmp_path, dataset_settings=own)
    assert all((tmp_path / "eval" / METHOD / name / "metrics.json").is_file() for name in NAMES)
