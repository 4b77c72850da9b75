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
"""The ladder from one annotated film is the same in all bundles that have it: methods, stages, one process or several."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_runs import configs, failure, run_in_two_processes
from film_bundle_runs import files
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_landmarks.data import read_landmark_table, read_landmarks
from monai_landmarks.data.datasets.hand_xray import HAND_XRAY_LANDMARKS, hand_xray_points
from monai_landmarks.data.phantoms import (
    write_cephalogram_phantom,
    write_chest_xray_phantom,
    write_hand_xray_phantom,
    write_lower_limb_phantom,
)

PAPER: dict[str, tuple[str, ...]] = {
    "cephalometric_xray": ("cc2dv2",),
    "hand_xray": ("cc2dv2",),
    "chest_xray": ("cc2dv2",),
    "lower_limb_xray": (),
}
"""What follows train.json for the paper's values."""
GRIDS = {bundle: [384, 768 if bundle == "lower_limb_xray" else 384] for bundle in PAPER}
WEIGHTS = {bundle: 5.0 if bundle == "lower_limb_xray" else 2.0 for bundle in PAPER}
OVERLAYS = [
    *((bundle, (*paper, *more)) for bundle, paper in PAPER.items() for more in ((), ("cc2dv2_small",))),
    ("cephalometric_xray", ("cc2dv2", "cc2dv2_code")),
]
STAGES = ["@self_supervision", "@choose_template", "@pseudo_labels", "@student"]
LADDER: dict[str, Any] = {
    "matching_epochs": 1,
    "matching_batch_size": 2,
    "points_per_patch": 4,
    "matching_def#width": 0.125,
    "network_def#channels": 4,
    "batch_size": 2,
    "max_epochs": 1,
    "amp": False,
    "max_figures": 1,
}
TINY: dict[str, dict[str, Any]] = {
    "cephalometric_xray": {**LADDER, "grid": [64, 80], "pixel_mm": 3.1},
    "hand_xray": {**LADDER, "grid": [48, 64]},
    "chest_xray": {**LADDER, "grid": [64, 64]},
    "lower_limb_xray": {**LADDER, "grid": [48, 96], "pixel_mm": 11.6},
}
WRITERS: dict[str, Callable[[Path], object]] = {
    "cephalometric_xray": lambda folder: write_cephalogram_phantom(folder, num_training=4, num_test1=1, reduction=16),
    "hand_xray": lambda folder: write_hand_xray_phantom(
        folder, num_train=4, num_validation=1, num_test=2, reduction=16
    ),
    "chest_xray": lambda folder: write_chest_xray_phantom(
        folder, num_train=4, num_validation=1, num_test=2, reduction=16
    ),
    "lower_limb_xray": lambda folder: write_lower_limb_phantom(folder, num_training=4, num_test1=1, reduction=8),
}
every_bundle = pytest.mark.parametrize("bundle", list(PAPER))


def parsed(bundle: str, kind: str, overlays: tuple[str, ...], changes: Mapping[str, Any] | None = None) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(files(bundle, kind, *overlays))
    for key, value in (changes or {}).items():
        parser[key] = value
    return parser


def hand_run(kind: str, root: Path, data: Path, run_id: str = "run", **settings: Any) -> ConfigWorkflow:
    """A tiny run of the hand bundle's ladder, its evaluation or its prediction."""
    flow = ConfigWorkflow(
        config_file=files("hand_xray", kind, "cc2dv2", "cc2dv2_small"),
        logging_file=False,
        run_id=run_id,
        workflow_type="inference" if kind == "inference" else "train",
        **{"bundle_root": str(root), "dataset_dir": str(data), **TINY["hand_xray"], **settings},
    )
    flow.initialize()
    flow.run()
    flow.finalize()
    return flow


def left_in(root: Path) -> dict[str, bytes]:
    """Weights, ranking and pseudo-labels that the ladder left."""
    ranking = {"ranking": next(root.rglob("template.json")).read_bytes()}
    labels = {path.name: path.read_bytes() for path in root.rglob("pseudo_labels/*.mrk.json")}
    weights = {}
    for path in (root / "models").rglob("m*.pt"):
        state = torch.load(path, weights_only=True)
        weights |= {f"{path.parent.name}/{path.name} {key}": value.numpy().tobytes() for key, value in state.items()}
    return {**ranking, **labels, **weights}


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hands") / "films"
    WRITERS["hand_xray"](folder)
    return folder


@pytest.fixture(scope="module")
def root(hands: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hand bundle after a run of all stages."""
    root = tmp_path_factory.mktemp("ladder")
    hand_run("train", root, hands)
    return root


# --- configurations ----------------------------------------------------------------------------------------------------


@every_bundle
def test_default_values_of_the_ladder_are_the_papers(bundle: str) -> None:
    """Yao et al. 2022, sections 2 and 3.1; that the largest similarity of all is less than 1 + limit is eq. 3."""
    parser = parsed(bundle, "train", PAPER[bundle])
    for key, value in {
        "method": "cc2dv2",
        "grid": GRIDS[bundle],
        "patch_size": [192, 192],
        "points_per_patch": 1,
        "matching_epochs": 5000,
        "matching_batch_size": 8,
        "matching_learning_rate": 0.001,
        "matching_optimizer#_target_": "torch.optim.Adam",
        "distance_slope": 0.1,
        "distance_limit": 0.7,
        "similarity_window": 19,
        "max_epochs": 900,
        "batch_size": 8,
        "learning_rate": 0.0003,
        "optimizer#_target_": "torch.optim.Adam",
        "loss_def#heatmap_weight": WEIGHTS[bundle],
        "weights_key": "scores",
        "validation_films": [],
    }.items():
        assert parser[key] == value, key
    assert parser["radius"] == pytest.approx(0.05 * max(GRIDS[bundle]))
    for key in ("matching_def", "network_def"):
        assert parser[key]["encoder"] == "vgg19"
        assert not {"width", "norm", "shared", "receptive_blocks"} & set(parser[key])
    loss = parser.get_parsed_content("matching#trainer#loss_function")
    assert (loss.temperature, loss.distance_slope, loss.distance_limit, loss.window) == (10.0, 0.1, 0.7, 19)
    assert step_epochs(parser, "matching_schedule", "matching#dataloader") == (500, 0.5)
    assert step_epochs(parser, "lr_scheduler", "train#dataloader") == (300, 0.1)


def step_epochs(parser: ConfigParser, schedule: str, loader: str) -> tuple[float, float]:
    """After how many epochs a schedule lowers the learning rate, and by which factor."""
    batches = [0] * 20
    parser[loader] = batches
    return parser.get_parsed_content(f"{schedule}#step_size") / len(batches), parser[f"{schedule}#gamma"]


def test_the_released_code_differs_from_the_paper() -> None:
    parser = parsed("cephalometric_xray", "train", ("cc2dv2", "cc2dv2_code"))
    for key, value in {
        "matching_def#shared": True,
        "matching_def#receptive_blocks": True,
        "distance_slope": 0.07,
        "distance_limit": 0.8,
        "similarity_window": 22,
        "matching_batch_size": 8,
        "batch_size": 4,
        "radius": 19.0,
        "grid": [384, 384],
    }.items():
        assert parser[key] == value, key
    copies = 11  # of the list of films in an epoch
    assert parser["matching_epochs"] == 300 * copies
    assert parser["max_epochs"] == 90 * copies
    assert step_epochs(parser, "matching_schedule", "matching#dataloader") == (50 * copies, 0.5)
    assert step_epochs(parser, "lr_scheduler", "train#dataloader") == (30 * copies, 0.1)


@pytest.mark.parametrize(("bundle", "overlays"), OVERLAYS)
def test_overlays_change_training_evaluation_and_prediction_alike(bundle: str, overlays: tuple[str, ...]) -> None:
    found = []
    for kind in ("train", "evaluate", "inference"):
        parser = parsed(bundle, kind, overlays)
        kept = ("network_def", "matching_def", "template_matching_def", "grid", "pixel_mm", "decoder", "smoothing_mm")
        found.append(
            [parser.get(key) for key in kept] + [parser.get_parsed_content(k) for k in ("ckpt_dir", "matching_dir")]
        )
        if kind == "train":
            assert (parser["run"], parser["stages"]) == ("@stages", STAGES)
        else:
            assert "evaluator" in str(parser["run"])
    assert found[0] == found[1] == found[2]
    tiny = parsed(bundle, "inference", (*overlays, "cc2dv2_matching"), {"matching_def#width": 0.125})
    image = torch.zeros(1, 1, 64, 64)
    count = tiny.get_parsed_content("num_landmarks")
    network = tiny.get_parsed_content("network_def").eval()
    network.set_templates(image, torch.full((1, count, 2), 30.0))
    assert network(image).shape == (1, count, 64, 64)
    size = {"network_def#channels": 4} if "cc2dv2_small" in overlays else {"network_def#width": 0.125}
    student = parsed(bundle, "inference", overlays, size).get_parsed_content("network_def")
    assert student.eval()(image).shape == (1, count, 64, 64)


def test_bundles_share_one_form() -> None:
    texts = {(configs(bundle) / "multi_gpu_train.json").read_text() for bundle in PAPER}
    assert len(texts) == 1
    for bundle, paper in PAPER.items():
        plain, ladder = parsed(bundle, "train", ()), parsed(bundle, "train", paper)
        assert plain["run"] == ladder["run"] == "@stages"
        assert plain["stages"] == (["@training"] if paper else STAGES)
        same = parsed("lower_limb_xray", "train", ())
        for key in (
            "self_supervision",
            "choose_template",
            "pseudo_labels",
            "student",
            "training",
            "ranking",
            "labelled",
        ):
            assert ladder[key] == same[key], key


# --- hands -------------------------------------------------------------------------------------------------------------


def test_no_label_of_a_hand_counts_but_the_templates(root: Path, hands: Path, tmp_path: Path) -> None:
    """Nor does the wrist's width, which gives the films' millimetres: all other points are wrong."""
    films = Path(shutil.copytree(hands, tmp_path / "films"))
    template = json.loads(next(root.rglob("template.json")).read_text())["ranking"][0]["case"]
    lines = (films / "all.csv").read_text().splitlines()
    turned = [line if line.split(",")[0] == template else backwards(line) for line in lines]
    (films / "all.csv").write_text("\n".join(turned) + "\n")
    before, after = hand_xray_points(hands), hand_xray_points(films)
    assert sum(np.array_equal(a, b) for a, b in zip(before[1], after[1], strict=True)) == 1
    hand_run("train", tmp_path / "root", films)
    clean = left_in(root)
    assert len(clean) > 20
    assert left_in(tmp_path / "root") == clean


def backwards(line: str) -> str:
    """A row of the table with its points in the reverse order."""
    case, *cells = line.split(",")
    pairs = [cells[i : i + 2] for i in range(0, len(cells), 2)]
    return ",".join([case, *(cell for pair in pairs[::-1] for cell in pair)])


def test_stages_of_a_hand_can_be_skipped_and_used(root: Path, hands: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(root, tmp_path / "root"))
    (copied / "models/cc2dv2_small/cv1/model.pt").unlink()
    kept = copied / "models/cc2dv2_small/cv1/matching/matcher.pt"
    written = kept.stat().st_mtime_ns
    hand_run("train", copied, hands, stages=["@student"])
    assert kept.stat().st_mtime_ns == written
    assert left_in(copied) == left_in(root)
    for kind in ("evaluate", "inference"):
        hand_run(kind, copied, hands if kind == "evaluate" else hands / "jpg")
    out = copied / "eval/cc2dv2_small/cv1"
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["phantom"], metrics["method"]) == (True, "cc2dv2_small")
    found, again = (read_landmark_table(folder / "predictions/landmarks.csv") for folder in (out, out / "inference"))
    assert set(found) < set(again)
    label = next(copied.rglob("pseudo_labels/*.mrk.json"))
    marks = read_landmarks(label, spatial_dims=2)
    assert marks.names == HAND_XRAY_LANDMARKS
    assert set(marks.status) == {"preview"}


def test_films_of_all_sizes_are_brought_onto_one_grid(hands: Path, tmp_path: Path) -> None:
    flow = hand_run("train", tmp_path, hands, run_id="imports")
    films = flow.parser.get_parsed_content("unlabelled")
    sizes = {
        torch.as_tensor(np.asarray(flow.parser.get_parsed_content("load_image")[0](film)["image"])).shape
        for film in films
    }
    assert len(sizes) > 1
    assert {film["pixel_size"] for film in films} == {(1.0, 1.0)}
    assert {tuple(item["image"].shape) for item in flow.parser.get_parsed_content("matching#images")} == {(1, 48, 64)}


# --- too few films -----------------------------------------------------------------------------------------------------


def test_one_unlabelled_film_alone_is_too_few_for_a_batch(hands: Path, tmp_path: Path) -> None:
    films = parsed("hand_xray", "train", ("cc2dv2",))["films"]
    message = failure(lambda: hand_run("train", tmp_path, hands, films=films + "[:1]"))
    assert "has 1 films for this process, fewer than one batch of 2" in message
    assert not list(tmp_path.rglob("*.pt"))


def test_a_student_without_a_single_step_is_refused(root: Path, hands: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(root, tmp_path / "root"))
    (copied / "models/cc2dv2_small/cv1/model.pt").unlink()
    message = failure(lambda: hand_run("train", copied, hands, run_id="student", batch_size=9))
    assert "data set 'training' has" in message
    assert "fewer than one batch of 9" in message
    assert not (copied / "models/cc2dv2_small/cv1/model.pt").exists()


# --- several processes -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@every_bundle
def test_two_processes_climb_the_ladder(bundle: str, tmp_path: Path) -> None:
    WRITERS[bundle](tmp_path / "films")
    given = [*files(bundle, "train", *PAPER[bundle], "cc2dv2_small"), configs(bundle) / "multi_gpu_train.json"]
    settings = {"bundle_root": tmp_path, "dataset_dir": tmp_path / "films", **TINY[bundle], "matching_batch_size": 1}
    settings |= {"grid": [64, 128]}  # one film in a batch: batch normalisation needs more than one cell
    printed = run_in_two_processes(given, settings)
    said = re.findall(r"\['[^]]*'\]", printed)  # lines of two processes may run into each other
    assert len(said) >= 2
    assert len(set(said)) == 1
    assert len(list((tmp_path / "models").rglob("m*.pt"))) == 3
    ranking = json.loads(next(tmp_path.rglob("template.json")).read_text())["ranking"]
    labels = {path.name for path in tmp_path.rglob("pseudo_labels/*.mrk.json")}
    assert labels == {f"{row['case']}.mrk.json" for row in ranking[1:]}
