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
"""From one annotated film to a detector, on four films of which each takes a core a second."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_runs import configs, failure
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from PIL import Image

from monai_landmarks.data import read_landmarks, write_landmarks
from monai_landmarks.data.datasets import ISBI2015_LANDMARKS, isbi2015_datalist
from monai_landmarks.data.phantoms import write_cephalogram_phantom

CONFIGS = configs("cephalometric_xray")
METHOD = "cc2dv2_small"
STAGES = ("self_supervision", "choose_template", "pseudo_labels", "student")
CASES = ("001", "002", "003", "004")
OTHER_SIZE = "003"
TINY: dict[str, Any] = {
    "grid": [64, 80],
    "pixel_mm": 3.1,
    "matching_epochs": 1,
    "matching_batch_size": 2,
    "points_per_patch": 4,
    "matching_def#width": 0.125,
    "network_def#channels": 4,
    "batch_size": 2,
    "max_epochs": 1,
    "amp": False,
}
FILMS = "$monai_landmarks.data.datasets.isbi2015_datalist(@data_dir, 'training', @annotator)"


def run(stage: str, root: Path, data: Path, *overlays: str, prepare: Any = None, **settings: Any) -> ConfigWorkflow:
    """Run one stage, or ``"evaluate"`` or ``"inference"``."""
    methods = ("cc2dv2", METHOD, *overlays)
    names = ["inference" if stage == "inference" else "train", *(f"methods/{name}" for name in methods)]
    names += ["evaluate"] if stage == "evaluate" else []
    own = overlays or "network_def" in settings
    tiny = {key: value for key, value in TINY.items() if not own or key != "network_def#channels"}
    if stage == "inference":
        settings["data"] = isbi2015_datalist(data, "test1")
    flow = ConfigWorkflow(
        config_file=[str(CONFIGS / f"{name}.json") for name in names],
        logging_file=False,
        run_id="run" if stage in ("evaluate", "inference") else stage,
        workflow_type="inference" if stage == "inference" else "train",
        **{"bundle_root": str(root), "dataset_dir": str(data), "max_figures": 1, **tiny, **settings},
    )
    flow.initialize()
    if prepare is not None:
        prepare(flow.parser)
    flow.run()
    flow.finalize()
    return flow


def labels_of(root: Path, method: str = METHOD) -> Path:
    return root / "eval" / method / "pseudo_labels"


def results(root: Path, method: str = METHOD) -> dict[str, Any]:
    """What the stages left: files as bytes, weights as tensors."""
    left: dict[str, Any] = {path.name: path.read_bytes() for path in labels_of(root, method).glob("*.mrk.json")}
    ranking = root / "eval" / method / "template.json"
    left |= {"ranking": ranking.read_bytes()} if ranking.exists() else {}
    for name in ("matching/matcher.pt", "matching/model.pt", "model.pt"):
        path = root / "models" / method / name
        if path.exists():
            weights = torch.load(path, weights_only=True)
            left |= {f"{name} {key}": value.numpy().tobytes() for key, value in weights.items()}
    return left


def poisoned(data: Path, target: Path, labelled: str) -> Path:
    """A copy in which only one film has landmarks, and of the test section neither landmarks nor films are left."""
    shutil.copytree(data, target)
    for path in target.glob("400_*/*.txt"):
        if path.stem != labelled:
            path.write_text("nan,nan\n" * len(ISBI2015_LANDMARKS))
    for path in (target / "RawImage" / "Test1Data").iterdir():
        path.unlink()
    return target


def template_of(root: Path) -> str:
    return json.loads((root / "eval" / METHOD / "template.json").read_text())["ranking"][0]["case"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four films to train on, one of them of half the others' size, and two to test on."""
    folder = tmp_path_factory.mktemp("films") / "phantom"
    write_cephalogram_phantom(folder, num_training=4, num_test1=2, reduction=16)
    (film,) = (folder / "RawImage" / "TrainingData").glob(f"{OTHER_SIZE}.*")
    with Image.open(film) as image:
        small = image.reduce(2)
    small.save(film)
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


@pytest.fixture
def matched(ladder: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder in which only the self-supervision has run."""
    (tmp_path / "models" / METHOD / "matching").mkdir(parents=True)
    shutil.copy(ladder / "models" / METHOD / "matching" / "matcher.pt", tmp_path / "models" / METHOD / "matching")
    return tmp_path


# --- what each stage leaves -------------------------------------------------------------------------------------------


def test_pseudo_labels_wait_for_review_and_tell_their_confidence(ladder: Path, data: Path) -> None:
    template = template_of(ladder)
    files = {path.name for path in labels_of(ladder).iterdir()}
    assert files == {f"{case}.mrk.json" for case in CASES if case != template}
    for name in files:
        marks = read_landmarks(labels_of(ladder) / name, spatial_dims=2)
        assert marks.names == ISBI2015_LANDMARKS
        assert set(marks.status) == {"preview"}
        assert marks.confidence is not None
        assert ((marks.confidence >= 0) & (marks.confidence <= 1)).all()


def test_one_run_of_all_is_the_stages_one_by_one_and_no_other_label_counts(
    ladder: Path, data: Path, tmp_path: Path
) -> None:
    bad = poisoned(data, tmp_path / "poisoned", template_of(ladder))
    entries = {entry["case"]: entry["landmarks"] for entry in isbi2015_datalist(bad)}
    assert sum(np.isfinite(points).any() for points in entries.values()) == 1
    run("run", tmp_path / "root", bad)
    clean = results(ladder)
    assert len(clean) > 20
    assert results(tmp_path / "root") == clean


def test_no_other_label_counts_with_a_template_that_was_asked_for(data: Path, matched: Path, tmp_path: Path) -> None:
    case = "002"
    roots = [Path(shutil.copytree(matched / "models", tmp_path / name / "models")).parent for name in ("a", "b")]
    bad = poisoned(data, tmp_path / "poisoned", case)
    for root, films in zip(roots, (data, bad), strict=True):
        for stage in ("pseudo_labels", "student"):
            run(stage, root, films, template=[case])
    clean = results(roots[0])
    assert clean == results(roots[1])
    assert "ranking" not in clean
    assert {name[:3] for name in clean if name.endswith(".mrk.json")} == set(CASES) - {case}


def test_resuming_a_finished_ladder_changes_nothing(copied: Path, ladder: Path, data: Path) -> None:
    run("run", copied, data, resume=True)
    assert results(copied) == results(ladder)


def test_an_interrupted_self_supervision_ends_as_one_that_was_not(data: Path, tmp_path: Path) -> None:
    settings = {"matching_epochs": 2, "matching#trainer#train_handlers#0#save_interval": 1}

    def interrupt(parser: Any) -> None:
        def stop(_: Any) -> None:
            raise InterruptedError("switched off")

        parser.get_parsed_content("matching#trainer").add_event_handler(Events.EPOCH_STARTED(once=2), stop)

    def supervise(root: Path, **more: Any) -> Path:
        run("self_supervision", root, data, **settings, **more)
        return root

    whole = supervise(tmp_path / "whole")
    assert "switched off" in failure(lambda: supervise(tmp_path / "cut", prepare=interrupt))
    assert not list((tmp_path / "cut").rglob("matcher.pt"))
    assert results(supervise(tmp_path / "cut", resume=True)) == results(whole)


@pytest.mark.parametrize(
    ("stage", "settings", "words"),
    [
        ("choose_template", {}, "run the self-supervision first"),
        ("pseudo_labels", {"template": ["001"]}, "run the self-supervision first"),
        ("student", {"template": ["001"]}, "3 of 4 films have neither labels nor pseudo-labels"),
    ],
)
def test_a_stage_without_its_predecessor_says_so(
    stage: str, settings: dict[str, Any], words: str, data: Path, tmp_path: Path
) -> None:
    message = failure(lambda: run(stage, tmp_path, data, **settings))
    assert words in message
    assert str(tmp_path) in message


# --- corrections and more labels --------------------------------------------------------------------------------------


def test_a_corrected_file_is_kept_and_trained_on(copied: Path, ladder: Path, data: Path) -> None:
    case = next(case for case in CASES if case != template_of(copied))
    path = labels_of(copied) / f"{case}.mrk.json"
    text = json.loads(path.read_text())
    point = text["markups"][0]["controlPoints"][0]
    point |= {"position": [100.0, 100.0, 0.0], "positionStatus": "defined"}
    path.write_text(json.dumps(text))
    before = path.read_bytes()
    run("pseudo_labels", copied, data)
    assert path.read_bytes() == before
    run("student", copied, data)
    own, other = results(copied), results(ladder)
    changed = {name for name in own if own[name] != other[name]}
    assert path.name in changed
    assert any(name.startswith("model.pt") for name in changed)
    assert not [name for name in changed if name != path.name and not name.startswith("model.pt")]


def test_a_landmark_removed_by_hand_is_named(copied: Path, data: Path) -> None:
    path = next(labels_of(copied).iterdir())
    marks = read_landmarks(path, spatial_dims=2)
    write_landmarks(marks.reorder([name for name in marks.names if name != "menton"], extra="drop"), path)
    message = failure(lambda: run("student", copied, data))
    assert str(path) in message
    assert "'menton'" in message


@pytest.mark.parametrize("count", [3, 4])
def test_more_labelled_films(count: int, data: Path, matched: Path) -> None:
    settings: dict[str, Any] = {"template": ["002"], "num_labelled": count}
    run("pseudo_labels", matched, data, **settings)
    assert len(list(labels_of(matched).glob("*"))) == 4 - count
    assert len(torch.load(matched / "models" / METHOD / "matching" / "model.pt")["anchors"]) == count
    flow = run("student", matched, data, validation_films=FILMS + "[:1]", val_interval=1, **settings)
    validated = json.loads((matched / "eval" / METHOD / "validation" / "metrics.json").read_text())
    assert validated["protocol"]["is_phantom"] is True
    films = {film["case"]: film for film in flow.parser.get_parsed_content("training_films")}
    labelled = flow.parser.get_parsed_content("labelled")
    assert labelled[0] == "002"
    assert len(labelled) == count
    truth = {entry["case"]: entry["landmarks"] for entry in isbi2015_datalist(data)}
    for case in CASES:
        assert np.array_equal(films[case]["landmarks"], truth[case]) == (case in labelled)


def test_another_student_learns_from_the_same_pseudo_labels(copied: Path, ladder: Path, data: Path) -> None:
    paper = json.loads((CONFIGS / "methods/cc2dv2.json").read_text())
    network = {**paper["network_def"], "encoder": "resnet18", "width": 0.125, "pretrained": False}
    settings = {"method": "voting", "ladder": METHOD, "network_def": network, "radius": 5.0, "val_interval": 1}
    settings |= {"loss_def": paper["loss_def"], "optimizer": paper["optimizer"]}
    run("student", copied, data, **settings)
    assert results(copied) == results(ladder)
    weights = torch.load(copied / "models" / "voting" / "model.pt", weights_only=True)
    assert any(key.startswith("decoder") for key in weights)
    assert not (copied / "eval" / "voting" / "validation").exists()
    run("evaluate", copied, data, **settings)
    metrics = json.loads((copied / "eval" / "voting" / "metrics.json").read_text())
    assert metrics["method"] == "voting"


# --- use ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlays", [(), ("cc2dv2_matching",)], ids=["student", "matching"])
def test_evaluation_and_prediction_agree(overlays: tuple[str, ...], copied: Path, data: Path) -> None:
    outs = {stage: copied / stage for stage in ("evaluate", "inference")}
    for stage, out in outs.items():
        run(stage, copied, data, *overlays, output_dir=str(out))
    metrics = json.loads((outs["evaluate"] / "metrics.json").read_text())
    assert metrics["phantom"] is True
    for case in ("151", "152"):
        one, two = (read_landmarks(out / "predictions" / f"{case}.mrk.json", spatial_dims=2) for out in outs.values())
        assert one.names == ISBI2015_LANDMARKS
        np.testing.assert_allclose(one.points, two.points, atol=1e-4)
        np.testing.assert_allclose(one.confidence, two.confidence, rtol=1e-3, atol=1e-5)


# --- bad input ---------------------------------------------------------------------------------------------------------


def test_a_template_whose_landmarks_lie_off_the_grid_is_refused(data: Path, matched: Path) -> None:
    message = failure(lambda: run("pseudo_labels", matched, data, template=["001"], pixel_mm=1.5))
    assert "template 0 of shape (64, 80) has landmarks outside" in message
    assert not (matched / "models" / METHOD / "matching" / "model.pt").exists()
    assert not labels_of(matched).exists()


def test_unknown_template_and_too_few_labelled_films_are_refused(data: Path, matched: Path) -> None:
    message = failure(lambda: run("pseudo_labels", matched, data, template="151"))
    assert "'151' are not among the 4 films" in message
    two = {"template": ["001", "002"], "num_labelled": 1}
    assert "`count` is 1" in failure(lambda: run("pseudo_labels", matched, data, **two))


def test_one_film_alone_can_be_learned_from_but_not_chosen(data: Path, tmp_path: Path) -> None:
    one = {"films": FILMS + "[:1]", "matching_batch_size": 1, "batch_size": 1}
    run("self_supervision", tmp_path, data, **one)
    assert "With a single one there is nothing to choose" in failure(
        lambda: run("choose_template", tmp_path, data, **one)
    )
    for stage in ("pseudo_labels", "student"):
        run(stage, tmp_path, data, template="001", **one)
    assert (tmp_path / "models" / METHOD / "model.pt").is_file()
    run("evaluate", tmp_path, data, **one)


def test_a_batch_larger_than_all_films_is_refused(data: Path, tmp_path: Path) -> None:
    message = failure(lambda: run("self_supervision", tmp_path, data, matching_batch_size=9))
    assert "has 4 films for this process, fewer than one batch of 9" in message
    assert not (tmp_path / "models" / METHOD / "matching" / "matcher.pt").exists()
