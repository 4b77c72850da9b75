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
"""From one annotated film to a detector by registration and co-teaching, on four films of which each takes a moment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_runs import configs, failure, run_in_two_processes
from film_bundle_runs import files
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from test_one_shot_ladder import poisoned
from test_one_shot_overlays import TINY, WRITERS, parsed

from monai_landmarks.data import read_landmarks
from monai_landmarks.data.datasets import isbi2015_datalist

METHOD = "edgetrans_small"
SMALL = ("cc2dv2", "cc2dv2_small", "edgetrans", METHOD)
BUNDLES = ("cephalometric_xray", "hand_xray", "chest_xray")
STAGES = ("self_supervision", "choose_template", "registration", "pseudo_labels", "student")
CASES = ("001", "002", "003", "004")
EDGETRANS: dict[str, Any] = {
    "registration_epochs": 2,
    "registration_batch_size": 2,
    "registration_def#width": 0.125,
    "registration_def#channels": 8,
    "detector_def#channels": 4,
}
OWN: dict[str, dict[str, Any]] = {
    bundle: {**{key: value for key, value in tiny.items() if key != "network_def#channels"}, **EDGETRANS}
    for bundle, tiny in TINY.items()
    if bundle in BUNDLES
}
every_bundle = pytest.mark.parametrize("bundle", BUNDLES)


def run(
    stage: str,
    root: Path,
    data: Path,
    *overlays: str,
    bundle: str = "cephalometric_xray",
    prepare: Any = None,
    **settings: Any,
) -> ConfigWorkflow:
    """Run one stage, all (``"run"``), ``"evaluate"`` or ``"inference"``."""
    after = stage in ("evaluate", "inference")
    if stage == "inference":
        settings["data"] = isbi2015_datalist(data, "test1")
    flow = ConfigWorkflow(
        config_file=files(bundle, stage if after else "train", *SMALL, *overlays),
        logging_file=False,
        run_id="run" if after else stage,
        workflow_type="inference" if stage == "inference" else "train",
        **{"bundle_root": str(root), "dataset_dir": str(data), **OWN[bundle], **settings},
    )
    flow.initialize()
    if prepare is not None:
        prepare(flow.parser)
    flow.run()
    flow.finalize()
    return flow


def left_in(root: Path) -> dict[str, bytes]:
    """Weights, ranking and pseudo-labels that the stages left."""
    left = {path.name: path.read_bytes() for path in root.rglob("pseudo_labels/*.mrk.json")}
    left |= {path.name: path.read_bytes() for path in root.rglob("template.json")}
    for path in (root / "models").rglob("*.pt"):
        if "resume" not in path.parts:
            state = torch.load(path, weights_only=True)
            left |= {f"{path.parent.name}/{path.name} {key}": x.numpy().tobytes() for key, x in state.items()}
    return left


def exemplar_of(root: Path) -> str:
    return str(json.loads(next(root.rglob("template.json")).read_text())["ranking"][0]["case"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films") / "phantom"
    WRITERS["cephalometric_xray"](folder)
    return folder


@pytest.fixture(scope="module")
def ladder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stages, one after the other, each in a run of its own."""
    root = tmp_path_factory.mktemp("ladder")
    for stage in STAGES:
        run(stage, root, data)
    return root


@pytest.fixture
def copied(ladder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ladder, tmp_path / "root"))


# --- configurations ----------------------------------------------------------------------------------------------------


@every_bundle
def test_default_values_are_the_papers(bundle: str) -> None:
    """Yin et al. 2022, section 4.2; the network's size is that of the released code."""
    parser = parsed(bundle, "train", ("cc2dv2", "edgetrans"))
    grid = [256, 256] if bundle == "chest_xray" else [256, 320]
    for key, value in {
        "method": "edgetrans",
        "grid": grid,
        "stages": [f"@{stage}" for stage in STAGES],
        "registration_epochs": 750,
        "registration_batch_size": 10,
        "registration_learning_rate": 1e-4,
        "max_epochs": 100,
        "learning_rate": 1e-3,
        "forget_rate": 0.8,
        "ramp_epochs": 30,
        "cross_weight": 1.0,
        # ours, as networks here need not know ImageNet:
        "ramp_cross": True,
        "among": "relative",
    }.items():
        assert parser[key] == value, key
    assert parser["sigma"] == 3 * 4  # of heatmaps of a quarter of the image's size
    registration = parser.get_parsed_content("registration_def")
    if bundle != "chest_xray":
        assert sum(weights.numel() for weights in registration.parameters()) == 10_094_242
    assert registration.local_steps == 2
    objective = parser.get_parsed_content("registration_objective")
    assert (objective.smoothness_weight, objective.inverse_weight) == (1.0, 0.25)
    for loss in (objective.global_loss, objective.local_loss, objective.smoothness_loss):
        assert loss.width == 2.0, "films lie between -1 and 1"
    parser["registration_optimizer"] = torch.optim.Adam(registration.parameters(), lr=1.0)
    factor = parser.get_parsed_content("registration_schedule").lr_lambdas[0]
    assert [factor(epoch) for epoch in (0, 250, 500, 750)] == pytest.approx([1, 1, 0.75, 0.5])
    parser["train#dataloader"] = [0] * 30
    parser["optimizer"] = torch.optim.Adam(registration.parameters(), lr=1.0)
    schedule = parser.get_parsed_content("lr_scheduler")
    assert sorted(schedule.milestones) == [60 * 30, 80 * 30]
    assert schedule.gamma == 0.1


@every_bundle
@pytest.mark.parametrize("overlays", [("cc2dv2", "edgetrans"), SMALL])
def test_overlays_change_training_evaluation_and_prediction_alike(bundle: str, overlays: tuple[str, ...]) -> None:
    found = []
    kept = (
        "network_def",
        "detector_def",
        "registration_def",
        "exemplar_def",
        "grid",
        "pixel_mm",
        "decoder",
        "smoothing_mm",
    )
    for kind in ("train", "evaluate", "inference"):
        parser = parsed(bundle, kind, overlays)
        folders = [parser.get_parsed_content(key) for key in ("ckpt_dir", "registration_dir")]
        found.append([*(parser.get(key) for key in kept), *folders])
    assert found[0] == found[1] == found[2]
    image = torch.zeros(1, 1, 64, 64)
    student = parsed(bundle, "inference", overlays, {"detector_def#channels": 4})
    count = student.get_parsed_content("num_landmarks")
    assert student.get_parsed_content("network_def").eval()(image).shape == (1, count, 64, 64)
    size = {"registration_def#width": 0.125, "registration_def#channels": 8}
    exemplar = parsed(bundle, "inference", (*overlays, "edgetrans_registration"), size).get_parsed_content(
        "network_def"
    )
    exemplar.set_exemplar(image[0], torch.full((count, 2), 30.0))
    assert exemplar.eval()(image).shape == (1, count, 64, 64)


def test_chest_films_have_the_form_of_hand_films() -> None:
    for overlays in (("cc2dv2",), ("cc2dv2", "edgetrans"), SMALL):
        hand, chest = (parsed(bundle, "train", overlays).get() for bundle in ("hand_xray", "chest_xray"))
        for key in ("train", "matching", "training", "student", "labelled", "ranking", "run"):
            assert hand[key] == chest[key], key
        assert set(hand) - set(chest) <= {"fold", "split", "wrist", "num_validation", "split_seed", "reference_film"}


# --- what the stages leave ---------------------------------------------------------------------------------------------


def test_pseudo_labels_wait_for_review_and_tell_their_confidence(ladder: Path) -> None:
    found = {path.name.split(".")[0]: read_landmarks(path, spatial_dims=2) for path in ladder.rglob("*.mrk.json")}
    assert set(found) == set(CASES) - {exemplar_of(ladder)}
    for marks in found.values():
        assert set(marks.status) <= {"preview", "missing"}
        assert marks.confidence is not None
        assert ((marks.confidence >= 0) & (marks.confidence < 1)).all()


def test_one_run_of_all_is_the_stages_one_by_one_and_no_other_label_counts(
    ladder: Path, data: Path, tmp_path: Path
) -> None:
    bad = poisoned(data, tmp_path / "poisoned", exemplar_of(ladder))
    run("run", tmp_path / "root", bad)
    clean = left_in(ladder)
    names = ("matching/matcher.pt", "registration/registration.pt", "registration/model.pt", f"{METHOD}/model.pt first")
    for name in names:
        assert any(key.startswith(name) for key in clean), name
    assert left_in(tmp_path / "root") == clean


def test_resuming_a_finished_ladder_changes_nothing(copied: Path, ladder: Path, data: Path) -> None:
    run("run", copied, data, resume=True)
    assert left_in(copied) == left_in(ladder)


@pytest.mark.parametrize(("stage", "epochs"), [("registration", "registration_epochs"), ("student", "max_epochs")])
def test_an_interrupted_stage_ends_as_one_that_was_not(
    stage: str, epochs: str, ladder: Path, data: Path, tmp_path: Path
) -> None:
    trainer = {"registration": "registering#trainer", "student": "co_teaching"}[stage]
    handlers = {"registration": "registering#trainer#train_handlers#0", "student": "train#handlers#1"}[stage]
    settings = {epochs: 3, "template": exemplar_of(ladder), f"{handlers}#save_interval": 1}

    def interrupt(parser: Any) -> None:
        def stop(_: Any) -> None:
            raise InterruptedError("switched off")

        parser.get_parsed_content(trainer).add_event_handler(Events.EPOCH_STARTED(once=3), stop)

    roots = [tmp_path / name for name in ("whole", "cut")]
    for root in roots:
        shutil.copytree(ladder / "eval", root / "eval")
    run(stage, roots[0], data, **settings)
    assert "switched off" in failure(lambda: run(stage, roots[1], data, prepare=interrupt, **settings))
    run(stage, roots[1], data, resume=True, **settings)
    whole = left_in(roots[0])
    assert any(".pt" in name for name in whole)
    assert left_in(roots[1]) == whole


def test_with_a_template_nothing_is_matched(data: Path, tmp_path: Path) -> None:
    flow = run("run", tmp_path, data, template="002")
    assert not list(tmp_path.rglob("matcher.pt"))
    assert not list(tmp_path.rglob("template.json"))
    assert {path.name.split(".")[0] for path in tmp_path.rglob("pseudo_labels/*")} == set(CASES) - {"002"}
    films = [film["case"] for film in flow.parser.get_parsed_content("training_films")]
    assert films.count("002") == 1 + 4 // (2 - 1)  # once in each batch of two, on average
    assert {films.count(case) for case in CASES if case != "002"} == {1}


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("pseudo_labels", "run the registration first"),
        ("student", "3 of 4 films have neither labels nor pseudo-labels"),
    ],
)
def test_a_stage_without_its_predecessor_says_so(stage: str, words: str, data: Path, tmp_path: Path) -> None:
    message = failure(lambda: run(stage, tmp_path, data, template="001"))
    assert words in message
    assert str(tmp_path) in message


# --- use ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlays", [(), ("edgetrans_registration",)], ids=["student", "registration"])
def test_evaluation_and_prediction_agree(overlays: tuple[str, ...], copied: Path, data: Path) -> None:
    outs = {stage: copied / stage for stage in ("evaluate", "inference")}
    for stage, out in outs.items():
        run(stage, copied, data, *overlays, output_dir=str(out))
    metrics = json.loads((outs["evaluate"] / "metrics.json").read_text())
    assert (metrics["phantom"], metrics["method"]) == (True, METHOD)
    one, two = (read_landmarks(out / "predictions" / "151.mrk.json", spatial_dims=2) for out in outs.values())
    np.testing.assert_allclose(one.points, two.points, atol=1e-4)
    np.testing.assert_allclose(one.confidence, two.confidence, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("bundle", ["hand_xray", "chest_xray"])
def test_other_films_climb_the_same_ladder(bundle: str, tmp_path: Path) -> None:
    data, root = tmp_path / "films", tmp_path / "root"
    WRITERS[bundle](data)
    run("run", root, data, bundle=bundle)
    names = {path.name for path in (root / "models").rglob("*.pt") if "resume" not in path.parts}
    assert names == {"matcher.pt", "registration.pt", "model.pt"}
    run("evaluate", root, data, bundle=bundle)
    assert len(list(root.rglob("metrics.json"))) == 1


# --- several processes -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_climb_the_ladder(data: Path, tmp_path: Path) -> None:
    given = [*files("cephalometric_xray", "train", *SMALL), configs("cephalometric_xray") / "multi_gpu_train.json"]
    settings = {"bundle_root": tmp_path, "dataset_dir": data, **OWN["cephalometric_xray"], "matching_batch_size": 1}
    run_in_two_processes(given, {**settings, "grid": [64, 128]})
    assert len([path for path in (tmp_path / "models").rglob("*.pt") if "resume" not in path.parts]) == 4
    assert {path.name.split(".")[0] for path in tmp_path.rglob("pseudo_labels/*")} == set(CASES) - {
        exemplar_of(tmp_path)
    }
