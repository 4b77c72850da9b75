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
"""Figure handlers and the run summary on MONAI's own evaluator."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from PIL import Image

from monai_landmarks.geometry import LandmarkError, apply_affine
from monai_landmarks.handlers import LandmarkMetricsSaver, RadialError
from monai_landmarks.handlers.case_figures import FACTS, figure_path
from monai_landmarks.handlers.figures import LandmarkFigureSaver, LandmarkTensorBoardHandler
from monai_landmarks.handlers.run_summary import RunSummary
from monai_landmarks.losses import HeatmapL2Loss
from monai_landmarks.protocols import Protocol

NAN = float("nan")
NAMES = ("sella", "nasion", "gonion")
AFFINES = {2: torch.diag(torch.tensor([0.5, 0.5, 1.0])), 3: torch.diag(torch.tensor([-0.5, 0.5, 0.5, 1.0]))}


def data(dims, count=4):
    """Cases whose prediction will be 0, 0.5, 1, ... mm off."""
    torch.manual_seed(0)
    affine = AFFINES[dims].double()
    affine[:-1, -1] = 7.0
    items = []
    for index in range(count):
        points = 3 + 8 * torch.rand(len(NAMES), dims, dtype=torch.float64)
        image = MetaTensor(torch.rand(1, *(16, 18, 14)[:dims]), affine=affine)
        items.append({"image": image, "landmarks": apply_affine(points, affine), "case": f"c{index}", "off": index / 2})
    return items


def postprocess(item):
    """World points in the output, as LandmarksImageToWorldd and CopyItemsd leave them."""
    true = torch.as_tensor(item["landmarks"]).as_subclass(torch.Tensor).clone()
    offset = torch.zeros_like(true)
    offset[:, 0] = float(item["off"])
    return {**item, "pred_points": true + offset, "true_points": true}


class Identity(torch.nn.Module):
    def forward(self, x):
        return x


def evaluator(items, handlers=(), post=postprocess, metric=False):
    options = {}
    if metric:
        options["key_val_metric"] = {
            "radial_error": RadialError(output_transform=from_engine(["pred_points", "true_points"]))
        }
    engine = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=2),
        network=Identity(),
        prepare_batch=lambda batch, device, non_blocking, **kwargs: (batch["image"], None),
        postprocessing=post,
        val_handlers=list(handlers),
        **options,
    )
    engine.logger.setLevel(logging.INFO)
    return engine


def facts(path):
    with Image.open(path) as image:
        return json.loads(image.info[FACTS])


@pytest.mark.parametrize("dims", [2, 3])
def test_one_figure_per_case_with_its_true_error(tmp_path, dims):
    before = plt.get_fignums()
    evaluator(data(dims), [LandmarkFigureSaver(tmp_path, names=NAMES, dpi=40)]).run()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"c{i}.png" for i in range(4)]
    for index in range(4):
        content = facts(tmp_path / f"c{index}.png")
        assert content["case"] == f"c{index}"
        assert content["error"] == pytest.approx(index / 2, abs=1e-9)
        assert content["missed"] == 0
    assert plt.get_fignums() == before


def test_points_are_drawn_in_voxels_of_the_image(tmp_path, monkeypatch):
    seen = []
    import monai_landmarks.handlers.case_figures as module

    original = module.landmark_overlay
    monkeypatch.setattr(module, "landmark_overlay", lambda *a, **k: (seen.append((a, k)), original(*a, **k))[1])
    items = data(3, 1)
    evaluator(items, [LandmarkFigureSaver(tmp_path, names=NAMES, dpi=30)]).run()
    (_, prediction, truth, _), _ = seen[0]
    index = torch.linalg.inv(items[0]["image"].affine)
    world = torch.cat([items[0]["landmarks"], torch.ones(3, 1)], dim=1)
    torch.testing.assert_close(truth, (world @ index.T)[:, :3])
    torch.testing.assert_close(prediction, truth)


@pytest.mark.parametrize("missing", ["pred_points", "true_points"])
def test_one_side_may_be_absent(tmp_path, missing):
    def post(item):
        item = postprocess(item)
        del item[missing]
        return item

    evaluator(data(2, 2), [LandmarkFigureSaver(tmp_path, names=NAMES, dpi=40)], post).run()
    assert facts(tmp_path / "c1.png") == {"case": "c1", "error": None, "missed": 0}


def test_the_worst_cases_are_kept(tmp_path):
    saver = LandmarkFigureSaver(tmp_path, max_cases=2, suffix="val", dpi=40)
    engine = evaluator(data(2), [saver], lambda item: without_prediction(postprocess(item), "c0"))
    for _ in range(2):
        engine.run()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["c0_val.png", "c3_val.png"]


def test_cases_without_name_are_called_after_their_file(tmp_path):
    items = data(2, 1)
    del items[0]["case"]
    items[0]["image"].meta["filename_or_obj"] = "/films/ct.7.nii.gz"
    evaluator(items, [LandmarkFigureSaver(tmp_path, dpi=40)]).run()
    assert [p.name for p in tmp_path.iterdir()] == ["ct.7.png"]


def test_no_case_name_leaves_the_folder_or_takes_anothers_file():
    paths = [figure_path("d", case) for case in ("a/b", "a_b", "..", "../x", "a\\b", "ü 1")]
    assert len(set(paths)) == len(paths)
    assert all(path.parent == Path("d") for path in paths)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"image_key": "img"}, "image 'img'"), ({"prediction_key": "p", "truth_key": None}, "'p' or None")],
)
def test_a_wrong_key_is_explained(tmp_path, options, message):
    engine = evaluator(data(2, 1), [LandmarkFigureSaver(tmp_path, **options)])
    with pytest.raises(LandmarkError, match=message):
        engine.run()


@pytest.mark.parametrize("options", [{"max_cases": 0}, {"projection": "minimum"}])
def test_wrong_options_fail_at_once(tmp_path, options):
    with pytest.raises(ValueError, match=r"max_cases|minimum"):
        LandmarkFigureSaver(tmp_path, **options)


class Writer:
    def __init__(self):
        self.images, self.scalars, self.flushed = [], {}, 0

    def add_image(self, tag, pixels, step, dataformats):
        assert dataformats == "HWC"
        assert pixels.shape[2] == 3
        self.images.append((tag, step))

    def add_scalar(self, tag, value, step):
        self.scalars[tag, step] = value

    def flush(self):
        self.flushed += 1


def test_tensorboard_gets_overlays_and_sigma_at_the_interval():
    writer = Writer()
    loss = HeatmapL2Loss(num_landmarks=3, spatial_dims=2, sigma=1.5)
    handler = LandmarkTensorBoardHandler(writer, interval=2, num_images=3, loss=loss, names=NAMES, dpi=30)
    engine = evaluator(data(2), [handler])
    for epoch in (1, 2, 3, 4):
        engine.run(epoch)
    assert writer.images == [(f"landmarks/c{i}", epoch) for epoch in (2, 4) for i in range(3)]
    assert {key: round(value, 5) for key, value in writer.scalars.items()} == {
        (f"sigma/{name}", epoch): 1.5 for name in NAMES for epoch in (2, 4)
    }
    assert writer.flushed == 2


def test_tensorboard_names_the_axes_of_sigma():
    writer = Writer()
    loss = HeatmapL2Loss(num_landmarks=3, spatial_dims=2, sigma=(1.0, 2.0), per_axis=True)
    handler = LandmarkTensorBoardHandler(writer, num_images=0, loss=loss)
    evaluator(data(2, 1), [handler]).run()
    assert writer.scalars["sigma/2/j", 1] == pytest.approx(2.0)
    assert len(writer.scalars) == 6


def test_tensorboard_writes_real_events(tmp_path):
    handler = LandmarkTensorBoardHandler(log_dir=tmp_path, names=NAMES, dpi=30)
    evaluator(data(2, 2), [handler]).run()
    handler.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["images"] == ["landmarks/c0"]


@pytest.mark.parametrize("options", [{"num_images": 0}, {"interval": 0}, {"loss": torch.nn.MSELoss()}])
def test_tensorboard_refuses_what_it_cannot_show(options):
    with pytest.raises(ValueError, match=r"images or a loss|sigma"):
        LandmarkTensorBoardHandler(Writer(), **options)


def without_prediction(item, case):
    if item["case"] == case:
        item["pred_points"][:] = NAN
    return item


def summarised(folder, items, post=postprocess, **options):
    handlers = [
        LandmarkFigureSaver(folder / "figures", names=NAMES, dpi=40),
        LandmarkMetricsSaver(folder, landmark_names=NAMES, method="SCN"),
        RunSummary(folder, **options),
    ]
    engine = evaluator(items, handlers, post, metric=True)
    engine.run()
    return (folder / "report.html").read_text(encoding="utf-8")


def order(report):
    return [part.split("</b>")[0] for part in report.split("<figcaption><b>")[1:]]


def test_summary_shows_metrics_and_the_worst_cases_first(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    report = summarised(tmp_path, data(2), title="Heads", max_cases=3, notes="seed 1")
    assert order(report) == ["c3", "c2", "c1"]
    assert "0.750 ± 0.559" in report
    assert "<title>Heads</title>" in report
    assert "≤ 2 mm, %" in report
    assert report.count("<img") == 5
    assert "seed 1" in report
    assert "3 cases are shown, the worst of 4 figures" in report
    assert f"report: {tmp_path / 'report.html'}" in caplog.text
    assert f"metrics: {tmp_path / 'metrics.json'}" in caplog.text
    assert "PHANTOM" not in report + caplog.text


def test_everything_shows_the_protocols_unit(tmp_path, monkeypatch):
    import monai_landmarks.handlers.case_figures as module

    original, units = module.landmark_overlay, []
    monkeypatch.setattr(module, "landmark_overlay", lambda *a, **k: (units.append(k["unit"]), original(*a, **k))[1])
    protocol = Protocol("films/px", "films", unit="px", distance="Euclidean, in pixels", thresholds=(3.0, 6.0))
    handlers = [
        LandmarkFigureSaver(tmp_path / "figures", names=NAMES, dpi=40, unit=protocol.unit),
        LandmarkMetricsSaver(tmp_path, protocol=protocol, landmark_names=NAMES),
        RunSummary(tmp_path),
    ]
    evaluator(data(2), handlers, metric=True).run()
    assert units == ["px"] * 4
    assert json.loads((tmp_path / "metrics.json").read_text())["radial_error_px"]["mean"] == 0.75
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "0.750 ± 0.559 <small>px</small>" in report
    for text in ("within ≤ 3 px", "mean 1.50 px", "<th scope='col'>median px</th>", "≤ 3 px, %"):
        assert text in report
    assert not re.search(r"\d mm\b|>mm<| mm<", report)


def test_tensorboard_overlays_take_the_unit(monkeypatch):
    import monai_landmarks.handlers.case_figures as module

    original, units = module.landmark_overlay, []
    monkeypatch.setattr(module, "landmark_overlay", lambda *a, **k: (units.append(k["unit"]), original(*a, **k))[1])
    writer = Writer()
    evaluator(data(2, 1), [LandmarkTensorBoardHandler(writer, names=NAMES, unit="px")]).run()
    assert units == ["px"]


def test_summary_says_phantom(tmp_path, caplog):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PHANTOM.txt").write_text("")
    report = summarised(tmp_path, data(2, 2), dataset_dir=tmp_path / "data")
    assert "PHANTOM DATA" in report
    assert "PHANTOM DATA" in caplog.text


def test_summary_leaves_figures_of_earlier_runs_out(tmp_path):
    summarised(tmp_path, data(2))
    items = data(2, 2)
    items[1]["off"] = 2.5
    (tmp_path / "figures" / "c9.png").write_bytes((tmp_path / "figures" / "c3.png").read_bytes())
    report = summarised(tmp_path, items)
    assert order(report) == ["c1", "c0"]
    assert "3 of 5 figures show other cases or errors" in report


def test_summary_leaves_metrics_of_earlier_runs_out(tmp_path):
    summarised(tmp_path, data(2, 2))
    evaluator(data(2, 2), [RunSummary(tmp_path, predictions_dir="figures")]).run()
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "metrics.json is of an earlier run" in report
    assert "0.250" not in report.split("Cases, worst first")[0]
    assert "predictions: figures" in report


def test_summary_without_truth_shows_figures_only(tmp_path):
    def post(item):
        item = postprocess(item)
        del item["true_points"]
        return item

    handlers = [LandmarkFigureSaver(tmp_path / "figures", dpi=40), RunSummary(tmp_path)]
    evaluator(data(2, 2), handlers, post).run()
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert order(report) == ["c0", "c1"]
    assert "there is no metrics.json" in report


def test_summary_of_a_case_with_missing_landmarks(tmp_path):
    items = data(2)
    items[0]["landmarks"][1] = NAN
    report = summarised(tmp_path, items, post=lambda item: without_prediction(postprocess(item), "c2"))
    assert order(report)[0] == "c2"
    assert "3 missed" in report
    assert "1 without truth" in report


def test_only_the_first_process_writes_report_and_events(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    engine = Engine(lambda engine, batch: [])
    RunSummary(tmp_path / "report").attach(engine)
    LandmarkTensorBoardHandler(log_dir=tmp_path / "runs", num_images=1).attach(engine)
    engine.run([[]])
    assert list(tmp_path.iterdir()) == []


def test_handlers_come_from_a_bundles_json(tmp_path):
    from monai.bundle import ConfigParser

    handlers = [
        {
            "_target_": "monai_landmarks.handlers.figures.LandmarkFigureSaver",
            "output_dir": "$@output_dir + '/figures'",
            "names": "@landmark_names",
            "max_cases": 2,
            "dpi": 40,
        },
        {"_target_": "monai_landmarks.handlers.run_summary.RunSummary", "output_dir": "@output_dir", "phantom": True},
    ]
    parser = ConfigParser({"output_dir": str(tmp_path), "landmark_names": list(NAMES), "handlers": handlers})
    evaluator(data(2), parser.get_parsed_content("handlers")).run()
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["c2.png", "c3.png"]
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert order(report) == ["c3", "c2"]
    assert "PHANTOM DATA" in report
