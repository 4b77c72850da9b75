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
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from bundle_runs import command, environment, run_in_two_processes
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, verify_metadata, verify_net_in_out
from PIL import Image

from monai_landmarks.data import read_landmarks
from monai_landmarks.data.datasets import ISBI2015_LANDMARKS, isbi2015_datalist
from monai_landmarks.data.phantoms import write_cephalogram_phantom
from monai_landmarks.geometry import LandmarkError

REPOSITORY = Path(__file__).resolve().parents[2]
BUNDLE = REPOSITORY / "bundles" / "cephalometric_xray"
CONFIGS = BUNDLE / "configs"
SMALL = [CONFIGS / "methods" / "scn_small.json", CONFIGS / "methods" / "quickstart.json"]
PHANTOM = {"phantom_training": 10, "phantom_test1": 3, "phantom_reduction": 8}
TINY = {
    "network_def#channels": 4,
    "pixel_mm": 3.2,
    "grid": [64, 80],
    "max_epochs": 2,
    "val_interval": 1,
}


def workflow(kind: str, root: Path, *overlays: Path, **overrides) -> ConfigWorkflow:
    files = [CONFIGS / "inference.json"] if kind == "inference" else [CONFIGS / "train.json"]
    files += list(overlays) or SMALL
    if kind == "evaluate":
        files.append(CONFIGS / "evaluate.json")
    settings = {"bundle_root": str(root), **TINY, **PHANTOM, **overrides}
    flow = ConfigWorkflow(
        config_file=[str(f) for f in files],
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=False,
        workflow_type="inference" if kind == "inference" else "train",
        **settings,
    )
    flow.initialize()
    return flow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle root after training, evaluation and prediction on a very small phantom."""
    root = tmp_path_factory.mktemp("bundle")
    for kind in ("train", "evaluate", "inference"):
        flow = workflow(kind, root)
        flow.run()
        flow.finalize()
    return root


def test_training_leaves_a_network_and_a_checkpoint_to_resume_from(trained: Path) -> None:
    models = trained / "models" / "quickstart"
    assert (models / "model.pt").is_file()
    assert [p.name for p in (models / "resume").glob("*.pt")] == ["training_checkpoint_epoch=2.pt"]


def test_numbers_carry_their_protocol_and_say_phantom(trained: Path) -> None:
    metrics = json.loads((trained / "eval" / "quickstart" / "metrics.json").read_text())
    text = json.dumps(metrics).lower()
    assert "phantom/cephalogram" in text
    assert "isbi2015/mean" not in json.dumps(metrics.get("protocol", ""))
    assert "phantom" in (trained / "eval" / "quickstart" / "report.html").read_text().lower()


def test_each_case_has_a_prediction_a_figure_and_rows_in_the_table(trained: Path) -> None:
    out = trained / "eval" / "quickstart"
    cases = ["151", "152", "153"]
    assert sorted(p.name for p in (out / "predictions").glob("*.mrk.json")) == [f"{c}.mrk.json" for c in cases]
    assert sorted(p.stem for p in (out / "figures").glob("*.png")) == cases
    with (out / "predictions" / "landmarks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 19
    assert {"case", "name", "x", "y", "confidence"} <= set(rows[0])


def test_predictions_are_world_millimetres_and_agree_between_files(trained: Path) -> None:
    out = trained / "eval" / "quickstart"
    truth = {e["case"]: e["landmarks"] for e in isbi2015_datalist(trained / "phantom", "test1")}
    table = np.genfromtxt(out / "radial_errors.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    for row in np.atleast_1d(table):
        case = str(row[0]).zfill(3)
        found = read_landmarks(out / "predictions" / f"{case}.mrk.json", spatial_dims=2)
        assert found.names == ISBI2015_LANDMARKS
        error = np.linalg.norm(found.points - truth[case], axis=1)
        np.testing.assert_allclose(error, list(row)[1 : 1 + len(error)], atol=1e-3)


def test_prediction_needs_no_truth_and_gives_the_same_points(trained: Path) -> None:
    one = read_landmarks(trained / "eval/quickstart/predictions/151.mrk.json", spatial_dims=2)
    two = read_landmarks(trained / "eval/quickstart/inference/predictions/151.mrk.json", spatial_dims=2)
    np.testing.assert_allclose(one.points, two.points, atol=0.05)


@pytest.mark.parametrize("change", [lambda grey: grey.min() + grey.max() - grey, lambda grey: np.uint16(257) * grey])
def test_inverted_and_deep_films_are_predicted_like_the_film(trained: Path, change: Callable, tmp_path: Path) -> None:
    film = Path(isbi2015_datalist(trained / "phantom", "test1")[0]["image"])
    (tmp_path / "films").mkdir()
    with Image.open(film) as image:
        grey = np.asarray(image)
    for name, pixels in {"plain": grey, "changed": change(grey)}.items():
        Image.fromarray(pixels).save(tmp_path / "films" / f"{name}.png")
    workflow(
        "inference", trained, dataset_dir=str(tmp_path / "films"), output_dir=str(tmp_path / "out"), pixel_size=0.8
    ).run()
    plain, changed = (
        read_landmarks(tmp_path / "out" / "predictions" / f"{name}.mrk.json", spatial_dims=2)
        for name in ("plain", "changed")
    )
    np.testing.assert_allclose(changed.points, plain.points, atol=1e-3)


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_required_properties_are_there_under_monais_ids(kind: str, tmp_path: Path) -> None:
    flow = workflow(kind, tmp_path)
    assert flow.check_properties() in ([], None)


def test_metadata_is_valid_offline(tmp_path: Path) -> None:
    schema = json.loads((Path(__file__).parent / "metadata_schema.json").read_text())
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(metadata, schema)
    placed = tmp_path / "schema.json"
    placed.write_text(json.dumps(schema))
    verify_metadata(meta_file=str(CONFIGS / "metadata.json"), filepath=str(placed))
    names = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert tuple(names.values()) == ISBI2015_LANDMARKS
    assert metadata["version"] in metadata["changelog"]


def test_network_answers_as_the_metadata_say_and_exports(trained: Path, tmp_path: Path) -> None:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "inference.json"), *map(str, SMALL)])
    parser["network_def#channels"] = 4
    config = tmp_path / "inference.json"
    ConfigParser.export_config_file(parser.config, str(config))
    common = {"config_file": str(config), "meta_file": str(CONFIGS / "metadata.json")}
    verify_net_in_out("network_def", **common, device="cpu", p=3, n=2, any=40)
    ckpt_export(
        "network_def",
        **common,
        ckpt_file=str(trained / "models/quickstart/model.pt"),
        filepath=str(tmp_path / "model.ts"),
    )
    scripted = torch.jit.load(str(tmp_path / "model.ts"))
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(trained / "models/quickstart/model.pt", weights_only=True))
    image = torch.randn(1, 1, 30, 41)
    torch.testing.assert_close(scripted.eval()(image), network(image))


@pytest.mark.parametrize("overlay", [None, "localization_unet", "scn_small"])
def test_default_method_is_the_papers_and_overlays_change_it(overlay: str | None, tmp_path: Path) -> None:
    parser = ConfigParser()
    files = [CONFIGS / "train.json"] + ([CONFIGS / "methods" / f"{overlay}.json"] if overlay else [])
    parser.read_config([str(f) for f in files])
    network = parser.get_parsed_content("network_def")
    count = sum(p.numel() for p in network.parameters())
    expected = {None: 1_794_195 + 4_553_875, "localization_unet": 3_102_483}
    assert count == expected[overlay] if overlay in expected else count < 300_000
    if overlay is None:
        group = parser["optimizer"]
        assert (group["_target_"], group["momentum"], group["nesterov"]) == ("torch.optim.SGD", 0.99, True)
        assert parser["learning_rate"] == 1e-6
        assert parser["batch_size"] == 1
        assert parser["grid"] == [512, 512]


@pytest.mark.parametrize("method", ["farnet", "farnet_small"])
def test_farnet_trains_and_predicts(
    trained: Path, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(TINY, "network_def#channels")
    settings = {"network_def#width": 0.125, "phantom_dir": str(trained / "phantom"), "max_epochs": 1}
    flow = workflow("train", tmp_path, CONFIGS / "methods" / f"{method}.json", amp=False, **settings)
    assert len(flow.parser.get_parsed_content("augment")) == (0 if method == "farnet" else 2)
    flow.run()
    settings.pop("max_epochs")
    workflow("inference", tmp_path, CONFIGS / "methods" / f"{method}.json", **settings).run()
    predictions = tmp_path / "eval" / method / "inference" / "predictions"
    assert len(list(predictions.glob("*.mrk.json"))) == 3


def test_given_folder_that_does_not_exist_is_never_a_phantom(tmp_path: Path) -> None:
    for kind in ("train", "inference"):
        error = failure(lambda kind=kind: workflow(kind, tmp_path, dataset_dir=str(tmp_path / "nowhere")).run())
        assert "nowhere does not exist" in chain(error)
    assert not (tmp_path / "phantom").exists()


def failure(run: Callable[[], object]) -> BaseException:
    """The error that a run ends with; MONAI wraps the cause in errors of its own kinds."""
    try:
        run()
    except Exception as error:
        return error
    return pytest.fail("the run went through")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def chain(error: BaseException) -> str:
    """All messages from an error down to its first cause."""
    return "\n".join(str(e) for e in causes(error))


def copy_phantom(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    write_cephalogram_phantom(folder, num_training=10, num_test1=3, reduction=8)
    return folder


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "400_senior" / "003.txt").unlink(), "003"),
        (lambda d: (d / "RawImage/TrainingData/004.png").unlink(), "004"),
        (lambda d: (d / "400_senior/005.txt").write_text("1,2\n" * 18), "18 points"),
        (lambda d: (d / "400_junior/006.txt").write_text("1,2\nx,y\n" + "1,2\n" * 17), "line 2"),
        (lambda d: (d / "RawImage/TrainingData/002.png").write_bytes(b"\x89PNG\r\n\x1a\n broken"), "002.png"),
    ],
    ids=["no point file", "no film", "18 points", "no number", "broken film"],
)
def test_damaged_data_stop_the_run_with_the_files_name(damage, message: str, tmp_path: Path) -> None:
    folder = copy_phantom(tmp_path)
    damage(folder)
    error = failure(lambda: workflow("train", tmp_path, dataset_dir=str(folder)).run())
    assert message in chain(error)
    assert not list((tmp_path / "models").rglob("*.pt")) if (tmp_path / "models").exists() else True


def test_checkpoint_of_another_architecture_or_list_is_refused(trained: Path, tmp_path: Path) -> None:
    checkpoint = str(trained / "models/quickstart/model.pt")
    other = {
        "architecture": {"ckpt_path": checkpoint, "network_def#channels": 8},
        "point_0": {"ckpt_path": checkpoint, "landmark_names": [f"point_{i}" for i in range(19)]},
        "none.pt": {"ckpt_path": str(tmp_path / "none.pt")},
    }
    for expected, settings in other.items():
        error = failure(lambda settings=settings: workflow("inference", tmp_path, **settings).run())
        if expected == "architecture":
            assert any(isinstance(e, LandmarkError) for e in causes(error))
        else:
            assert expected in chain(error)
    assert not list(tmp_path.rglob("*.mrk.json"))


def settings_of(root: Path, **overrides: Any) -> dict[str, Any]:
    return {"bundle_root": root, **TINY, **PHANTOM, **overrides}


@pytest.mark.slow
def test_killed_run_resumes_from_its_last_epoch(tmp_path: Path) -> None:
    files = [CONFIGS / "train.json", *SMALL]
    resume = tmp_path / "models" / "quickstart" / "resume"
    log = (tmp_path / "log.txt").open("w")
    run = subprocess.Popen(
        [sys.executable, *command(files, settings_of(tmp_path, max_epochs=500))],
        env=environment(),
        stdout=log,
        stderr=log,
    )
    deadline = time.time() + 400
    while not list(resume.glob("training_checkpoint_epoch=*.pt")) and time.time() < deadline and run.poll() is None:
        time.sleep(0.2)
    run.send_signal(signal.SIGKILL)
    run.wait()
    saved = list(resume.glob("training_checkpoint_epoch=*.pt"))
    assert saved, (tmp_path / "log.txt").read_text()[-2000:]
    newest = max(int(p.stem.split("=")[1]) for p in saved)
    flow = workflow("train", tmp_path, resume=True, max_epochs=newest + 2)
    flow.run()
    trainer = flow.parser.get_parsed_content("train#trainer")
    assert trainer.state.epoch == newest + 2
    for path in (tmp_path / "models").rglob("*.pt"):
        if not path.name.startswith("."):
            torch.load(path, weights_only=True)


@pytest.mark.slow
def test_two_processes_train_together(tmp_path: Path) -> None:
    files = [CONFIGS / "train.json", *SMALL, CONFIGS / "multi_gpu_train.json"]
    write_cephalogram_phantom(tmp_path / "phantom", num_training=20, num_test1=3, reduction=8)
    run_in_two_processes(files, settings_of(tmp_path, phantom_training=20))
    assert (tmp_path / "models" / "quickstart" / "model.pt").is_file()
    flow = workflow("inference", tmp_path, phantom_training=20)
    flow.run()
    assert (tmp_path / "eval/quickstart/inference/predictions/151.mrk.json").is_file()


@pytest.mark.real_data
def test_shipped_weights_find_the_landmarks_of_real_films(real_data, tmp_path: Path) -> None:
    """Ten films of Test1; the documented mean over all 150 is 1.125 mm, senior against mean reader 1.182 mm."""
    root = real_data("isbi2015_cephalograms")
    flow = workflow(
        "evaluate",
        BUNDLE,
        CONFIGS / "methods" / "scn_small.json",
        dataset_dir=str(root),
        output_dir=str(tmp_path),
        max_figures=1,
        **{
            "validate#dataset#data": isbi2015_datalist(root, "test1")[::15],
            "network_def#channels": 32,
            "pixel_mm": 0.8,
            "grid": [256, 304],
        },
    )
    flow.run()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "isbi2015/mean" in json.dumps(metrics)
    error = flow.parser.get_parsed_content("validate#evaluator").state.metrics["radial_error"]
    assert 0.7 < error < 1.5


def test_settings_for_speed_and_reproduction_are_switches(tmp_path: Path) -> None:
    results = []
    for name in ("one", "two"):
        root = tmp_path / name
        workflow("train", root, phantom_dir=str(tmp_path / "phantom"), deterministic=True, amp=False).run()
        results.append(torch.load(root / "models/quickstart/model.pt", weights_only=True))
    assert all(torch.equal(results[0][k], results[1][k]) for k in results[0])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_compiled_training_leaves_a_plain_network(tmp_path: Path) -> None:
    workflow("train", tmp_path, compile=True, max_epochs=1).run()
    state = torch.load(tmp_path / "models/quickstart/model.pt", weights_only=True)
    assert not [key for key in state if "_orig_mod" in key]


def test_early_stop_ends_a_training_that_gains_nothing(tmp_path: Path) -> None:
    flow = workflow("train", tmp_path, max_epochs=9, learning_rate=1e-12, early_stop_patience=1)
    flow.run()
    assert flow.parser.get_parsed_content("train#trainer").state.epoch < 9


def test_bundle_is_complete_for_monai() -> None:
    for name in (
        "LICENSE",
        "docs/README.md",
        "configs/logging.conf",
        "configs/inference.json",
        "configs/evaluate.json",
    ):
        assert (BUNDLE / name).is_file(), name
    assert not list(BUNDLE.glob("scripts"))
    assert shutil.which("bash") is None or subprocess.run(["bash", "-n", str(BUNDLE / "quickstart.sh")]).returncode == 0
