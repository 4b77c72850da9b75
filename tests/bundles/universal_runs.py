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
"""Runs of the bundle for several anatomies at a size at which a CPU core needs seconds."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bundle_runs import Lines, configs
from monai.bundle import ConfigWorkflow

CONFIGS = configs("universal_xray")
METHOD = "gu2net_small"
NAMES = ("head", "hand", "chest")
FILMS: dict[str, dict[str, int]] = {
    "head": {"num_training": 6, "num_test1": 2, "reduction": 12},
    "hand": {"num_train": 4, "num_validation": 1, "num_test": 2, "reduction": 12},
    "chest": {"num_train": 4, "num_validation": 1, "num_test": 2, "reduction": 12},
}
GRIDS = {"head": [48, 56], "hand": [40, 56], "chest": [48, 48]}
SMALL = {"universal#channels": [4, 8, 8], "universal#global_channels": 8}
TRAINING = {"max_epochs": 2, "val_interval": 1, "batch_size": 2, "amp": False, "learning_rate": 0.01}


def settings_of(name: str, **others: Any) -> dict[str, Any]:
    """What makes a data set tiny."""
    return {"phantom_parameters": FILMS[name], "grid": GRIDS[name], **others}


def files(kind: str, *overlays: str, method: str = METHOD) -> list[str]:
    """Configuration files of a kind of run: train, evaluate or inference."""
    first = "inference.json" if kind == "inference" else "train.json"
    last = ["evaluate.json"] if kind == "evaluate" else []
    return [str(CONFIGS / name) for name in (first, f"methods/{method}.json", *overlays, *last)]


def options(kind: str, root: Path, **settings: Any) -> dict[str, Any]:
    """Entries that make a run tiny."""
    return {
        "bundle_root": str(root),
        "config_dir": str(CONFIGS),
        "dataset_settings": {name: settings_of(name) for name in NAMES},
        "max_figures": 1,
        **SMALL,
        **({} if kind == "inference" else TRAINING),
        **settings,
    }


def workflow(kind: str, root: Path, *overlays: str, **settings: Any) -> ConfigWorkflow:
    """A tiny run, initialised."""
    flow = ConfigWorkflow(
        config_file=files(kind, *overlays),
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=False,
        workflow_type="inference" if kind == "inference" else "train",
        **options(kind, root, **settings),
    )
    flow.initialize()
    return flow


def run(kind: str, root: Path, *overlays: str, **settings: Any) -> ConfigWorkflow:
    """A tiny run from beginning to end."""
    flow = workflow(kind, root, *overlays, **settings)
    flow.run()
    flow.finalize()
    return flow


def metrics_of(flow: ConfigWorkflow, part: str = "validate#evaluator") -> Mapping[str, float]:
    """The metrics of an engine after a run."""
    return flow.parser.get_parsed_content(part).state.metrics


@contextmanager
def informed_lines() -> Iterator[list[str]]:
    """What is logged meanwhile at the level of the bundle's logging.conf."""
    kept, root = Lines(), logging.getLogger()
    loggers, level = (root, logging.getLogger("monai.handlers.StatsHandler")), root.level  # MONAI's does not propagate
    root.setLevel(logging.INFO)
    for logger in loggers:
        logger.addHandler(kept)
    try:
        yield kept.lines
    finally:
        root.setLevel(level)
        for logger in loggers:
            logger.removeHandler(kept)


class Finished:
    """The bundle after its runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.models, self.out = root / "models" / METHOD, root / "eval" / METHOD
        self.log: list[str] = []
        self.metrics: Mapping[str, float] = {}
        self.truth: dict[str, dict[str, Any]] = {}

    def phantom(self, name: str) -> Path:
        return self.root / "phantom" / name


def folders(finished: Finished, *names: str) -> dict[str, str]:
    """Folders of data to be given to a run: the phantoms of another one."""
    return {f"{name}_dir": str(finished.phantom(name)) for name in names}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Training and evaluation on three phantoms, and prediction of the chest films."""
    done = Finished(tmp_path_factory.mktemp("universal"))
    with informed_lines() as done.log:
        run("train", done.root)
        flow = run("evaluate", done.root)
        run("inference", done.root, anatomy="chest")
    done.metrics = metrics_of(flow)
    for name, listed in flow.parser.get_parsed_content("configs").get("cases#test").items():
        done.truth[name] = {entry["case"]: entry["landmarks"] for entry in listed}
    return done


@pytest.fixture(scope="session")
def two(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Training on the folders of two data sets."""
    done = Finished(tmp_path_factory.mktemp("two"))
    with informed_lines() as done.log:
        run("train", done.root, **folders(finished, "head", "chest"))
    return done
