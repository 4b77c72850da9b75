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
"""The lower limb film bundle: from one annotated film to a detector, and the angles of both legs."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_runs import configs, failure, missing_files, valid_metadata
from film_bundle_runs import files
from monai.bundle import ConfigParser, ConfigWorkflow, verify_net_in_out

from monai_landmarks.data import read_landmark_table, read_landmarks
from monai_landmarks.data.datasets import BMPLE_LANDMARKS
from monai_landmarks.measurements import LOWER_LIMB_ANGLES

BUNDLE = "lower_limb_xray"
PHANTOM = {"num_training": 5, "num_test1": 2, "reduction": 8}
TINY: dict[str, Any] = {
    "grid": [48, 96],
    "pixel_mm": 11.6,
    "batch_size": 2,
    "max_epochs": 2,
    "amp": False,
    "elastic_range_mm": 0.0,
}
LADDER: dict[str, Any] = {
    **TINY,
    "matching_epochs": 1,
    "matching_batch_size": 2,
    "points_per_patch": 4,
    "matching_def#width": 0.125,
    "network_def#channels": 4,
}
SCN: dict[str, Any] = {**TINY, "network_def#channels": 4, "val_interval": 1, "num_validation": 2}
OVERLAYS = {"cc2dv2_small": LADDER, "scn_small": SCN}


def workflow(kind: str, root: Path, *overlays: str, run_id: str = "run", **settings: Any) -> ConfigWorkflow:
    """A tiny run, initialised."""
    overlays = overlays or ("cc2dv2_small",)
    options = OVERLAYS[overlays[0]]
    if kind == "inference":
        options = {
            key: value for key, value in options.items() if key in {"grid", "pixel_mm", "radius"} or "_def#" in key
        }
    if "cc2dv2_matching" in overlays:
        options = {key: value for key, value in options.items() if not key.startswith("network_def#")}
    flow = ConfigWorkflow(
        config_file=files(BUNDLE, kind, *overlays),
        meta_file=str(configs(BUNDLE) / "metadata.json"),
        logging_file=False,
        workflow_type="inference" if kind == "inference" else "train",
        run_id=run_id,
        **{"bundle_root": str(root), "phantom_parameters": PHANTOM, "max_figures": 1, **options, **settings},
    )
    flow.initialize()
    return flow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle after all stages, an evaluation and a prediction of the student."""
    root = tmp_path_factory.mktemp(BUNDLE)
    for kind in ("train", "evaluate", "inference"):
        flow = workflow(kind, root)
        flow.run()
        flow.finalize()
    return root


def angles_of(folder: Path) -> tuple[list[str], dict[tuple[str, str], dict[str, str]]]:
    with (folder / "predictions" / "angles.csv").open() as file:
        rows = csv.DictReader(file)
        return list(rows.fieldnames or ()), {(row["case"], row["leg"]): row for row in rows}


def numbers(row: dict[str, str], prefix: str = "") -> np.ndarray:
    return np.array([float(row[prefix + name] or "nan") for name in LOWER_LIMB_ANGLES])


def test_every_stage_leaves_what_the_next_one_reads(root: Path) -> None:
    models, out = root / "models/cc2dv2_small", root / "eval/cc2dv2_small"
    assert {path.name for path in (models / "matching").iterdir()} == {"matcher.pt", "model.pt", "resume"}
    ranking = [row["case"] for row in json.loads((out / "template.json").read_text())["ranking"]]
    assert sorted(ranking) == ["1", "2", "3", "4", "5"]
    labels = {path.name.split(".")[0]: path for path in (out / "pseudo_labels").iterdir()}
    assert sorted(labels) == sorted(ranking[1:])
    marks = read_landmarks(labels[ranking[1]], spatial_dims=2)
    assert marks.names == BMPLE_LANDMARKS
    assert set(marks.status) == {"preview"}
    assert ((marks.confidence >= 0) & (marks.confidence <= 1)).all()
    assert (models / "model.pt").is_file()
    assert (models / "resume/training_checkpoint_epoch=2.pt").is_file()


def test_errors_of_angles_are_those_of_the_phantoms_legs(root: Path) -> None:
    """The phantom knows its angles before its points; the file has the errors of the mean in the metrics."""
    out = root / "eval/cc2dv2_small"
    header, rows = angles_of(out)
    names = list(LOWER_LIMB_ANGLES)
    assert header == ["case", "leg", *names, *(f"true_{n}" for n in names), *(f"error_{n}" for n in names)]
    assert list(rows) == [(case, leg) for case in ("121", "122") for leg in ("right", "left")]
    errors = []
    for (case, leg), row in rows.items():
        true = json.loads((root / f"phantom/test1/{case}_meta.json").read_text())["angles"][leg == "left"]
        np.testing.assert_allclose(numbers(row, "true_"), true, atol=0.02)
        turned = (numbers(row) - numbers(row, "true_") + 180) % 360 - 180
        np.testing.assert_allclose(numbers(row, "error_"), abs(turned), atol=2e-3)
        errors.append(abs(turned))
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["info"]["angle_error_missed"] == np.isnan(errors).sum()
    assert metrics["info"]["angle_error"] == pytest.approx(np.nanmean(errors), abs=1e-3)
    assert (metrics["phantom"], metrics["protocol"]["name"]) == (True, "phantom/lower_limb")
    assert metrics["protocol"]["thresholds"] == [2, 4, 6, 8, 12]


def test_prediction_gives_the_same_points_and_angles_without_truth(root: Path) -> None:
    out = root / "eval/cc2dv2_small"
    known, found = (read_landmark_table(f / "predictions/landmarks.csv") for f in (out, out / "inference"))
    assert list(known) == list(found) == ["121", "122"]
    (_, rows), (header, plain) = angles_of(out), angles_of(out / "inference")
    assert header == ["case", "leg", *LOWER_LIMB_ANGLES]
    for case in known:
        np.testing.assert_allclose(known[case].points, found[case].points, atol=1e-6)
    for key, row in plain.items():
        np.testing.assert_allclose(numbers(row), numbers(rows[key]), atol=1e-3)
    assert "PHANTOM DATA" in (out / "report.html").read_text()


@pytest.mark.parametrize("kind", ["evaluate", "inference"])
def test_matching_alone_can_be_judged_and_used(kind: str, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    workflow(kind, root, "cc2dv2_small", "cc2dv2_matching", output_dir=str(out)).run()
    table = read_landmark_table(out / "predictions/landmarks.csv")
    assert list(table) == ["121", "122"]
    assert all(np.isfinite(marks.points).all() for marks in table.values())
    assert (out / "metrics.json").is_file() == (kind == "evaluate")


def test_no_stage_looks_at_labels_but_the_templates(root: Path, tmp_path: Path) -> None:
    """All other labels are wrong, and the networks are the same to the last bit; each stage run alone, from its files."""
    films = tmp_path / "films"
    shutil.copytree(root / "phantom", films)
    template = json.loads((root / "eval/cc2dv2_small/template.json").read_text())["ranking"][0]["case"]
    for path in films.rglob("*_meta.json"):
        if path != films / f"train/{template}_meta.json":
            meta = json.loads(path.read_text())
            height, width = meta["original_shape"]
            path.write_text(json.dumps({**meta, "gt": [[width / 2, height / 2]] * len(meta["gt"])}))
    for stage in ("self_supervision", "choose_template", "pseudo_labels", "student"):
        workflow("train", tmp_path, run_id=stage, dataset_dir=str(films)).run()
    for name in ("matching/model.pt", "model.pt"):
        ours, theirs = (
            torch.load(where / "models/cc2dv2_small" / name, weights_only=True) for where in (root, tmp_path)
        )
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    for path in (root / "eval/cc2dv2_small/pseudo_labels").iterdir():
        assert path.read_bytes() == (tmp_path / "eval/cc2dv2_small/pseudo_labels" / path.name).read_bytes()


def test_a_named_film_is_the_template_and_batches_are_augmented_on_the_device(root: Path, tmp_path: Path) -> None:
    settings = {
        "dataset_dir": str(root / "phantom"),
        "template": 2,
        "matching_dir": str(root / "models/cc2dv2_small/matching"),
    }
    flow = workflow("train", tmp_path, run_id="choose_template", **settings, augment_on_device=True)
    assert flow.parser.get_parsed_content("labelled") == ["2"]
    settings["pseudo_label_dir"] = str(tmp_path / "labels")
    shutil.copytree(root / "eval/cc2dv2_small/pseudo_labels", tmp_path / "labels")
    first = json.loads((root / "eval/cc2dv2_small/template.json").read_text())["ranking"][0]["case"]
    (tmp_path / "labels/2.mrk.json").unlink(missing_ok=True)
    message = failure(workflow("train", tmp_path, run_id="student", **settings).run) if first != "2" else first
    assert first in message


def test_supervised_overlay_trains_with_all_labels_and_validates(root: Path, tmp_path: Path) -> None:
    settings = {"phantom_dir": str(root / "phantom")}
    for kind in ("train", "evaluate"):
        workflow(kind, tmp_path, "scn_small", **settings).run()
    workflow("inference", tmp_path, "scn_small", **settings).run()
    out = tmp_path / "eval/scn_small"
    assert json.loads((out / "validation/metrics.json").read_text())["protocol"]["name"] == "phantom/lower_limb"
    assert (tmp_path / "models/scn_small/model.pt").is_file()
    assert len(angles_of(out)[1]) == len(angles_of(out / "inference")[1]) == 4
    assert not (out / "pseudo_labels").exists()


def test_default_method_is_the_papers() -> None:
    parser = ConfigParser()
    parser.read_config(files(BUNDLE, "train"))
    matching, student = parser["matching_def"], parser["network_def"]
    assert (matching["encoder"], matching.get("shared", False), matching.get("width", 1.0)) == ("vgg19", False, 1.0)
    assert (student["encoder"], student.get("width", 1.0), student.get("norm", "instance")) == (
        "vgg19",
        1.0,
        "instance",
    )
    assert (parser["grid"], parser["patch_size"], parser["points_per_patch"]) == ([384, 768], [192, 192], 1)
    assert (parser["matching_epochs"], parser["matching_batch_size"], parser["matching_learning_rate"]) == (
        5000,
        8,
        1e-3,
    )
    assert (parser["max_epochs"], parser["batch_size"], parser["learning_rate"]) == (900, 8, 3e-4)
    assert parser["radius"] == pytest.approx(0.05 * 768)
    assert (parser["matching_optimizer#_target_"], parser["optimizer#_target_"]) == ("torch.optim.Adam",) * 2


@pytest.mark.parametrize(
    "overlays", [["cc2dv2_small"], ["scn_small"], ["cc2dv2_matching"], ["cc2dv2_small", "cc2dv2_matching"]]
)
def test_overlays_change_training_evaluation_and_prediction_alike(overlays: list[str]) -> None:
    found = []
    for kind in ("train", "evaluate", "inference"):
        parser = ConfigParser()
        parser.read_config(files(BUNDLE, kind, *overlays))
        kept = [parser[key] for key in ("network_def", "matching_def", "grid", "pixel_mm", "decoder", "prepare", "fit")]
        found.append([*kept, parser.get_parsed_content("ckpt_dir")])
        assert ("evaluator" in str(parser["run"])) == (kind != "train")
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_required_properties_are_there(root: Path, kind: str) -> None:
    assert workflow(kind, root).check_properties() in ([], None)


def test_metadata_and_files_are_complete(tmp_path: Path) -> None:
    metadata = valid_metadata(BUNDLE, BMPLE_LANDMARKS, tmp_path)
    angles = metadata["network_data_format"]["post_processed_outputs"]["pred_angles"]["channel_def"]
    assert list(angles.values()) == [f"{name}_degrees" for name in LOWER_LIMB_ANGLES]
    assert not missing_files(BUNDLE)


def test_network_answers_as_the_metadata_say(tmp_path: Path) -> None:
    parser = ConfigParser()
    parser.read_config(files(BUNDLE, "inference", "cc2dv2_small"))
    parser["network_def#channels"] = 4
    config = tmp_path / "inference.json"
    ConfigParser.export_config_file(parser.config, str(config))
    verify_net_in_out(
        "network_def",
        config_file=str(config),
        meta_file=str(configs(BUNDLE) / "metadata.json"),
        device="cpu",
        p=3,
        n=2,
        any=40,
    )


def test_what_is_not_there_is_named(root: Path, tmp_path: Path) -> None:
    for kind in ("train", "inference"):
        flow = workflow(kind, tmp_path, dataset_dir=str(tmp_path / "nowhere"))
        assert "nowhere does not exist" in failure(flow.run)
    assert not (tmp_path / "phantom").exists()
    early = workflow("train", tmp_path, run_id="pseudo_labels", dataset_dir=str(root / "phantom"))
    assert "run the self-supervision first" in failure(early.run)
    films = tmp_path / "films"
    shutil.copytree(root / "phantom", films)
    (films / "train/3_384.png").unlink()
    assert "3_384.png" in failure(workflow("train", tmp_path, dataset_dir=str(films)).run)
