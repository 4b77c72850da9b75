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
"""Runs of the four volume bundles at sizes at which a CPU core needs seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_runs import configs, logged_lines
from monai.bundle import ConfigWorkflow

from monai_landmarks.data.datasets import (
    CSI2014_LANDMARKS,
    HAND_MRI_LANDMARKS,
    LUMBAR_MR_LANDMARKS,
    MOUSE_SKULL_LANDMARKS,
)

NAMES = {
    "spine_ct": CSI2014_LANDMARKS,
    "lumbar_mri": LUMBAR_MR_LANDMARKS,
    "hand_mri": HAND_MRI_LANDMARKS,
    "mouse_skull_ct": MOUSE_SKULL_LANDMARKS,
}
EPOCHS = 6  # as many as a network needs to answer at all
CALIBRATED = ("spine_ct", "lumbar_mri")
PHANTOMS: dict[str, dict[str, Any]] = {
    "spine_ct": {"num_training": 4, "num_test": 2, "spacing": [6, 6, 6], "full": True},
    "lumbar_mri": {"num_cases": 6, "reduction": 4},
    "hand_mri": {"num_cases": 5, "spacing": [5, 5, 5]},
    "mouse_skull_ct": {"num_cases": 6, "per_strain": 1, "reduction": 6},
}
GRIDS: dict[str, dict[str, Any]] = {
    "spine_ct": {"pixel_mm": 8.0, "grid": [24, 24, 48], "overlap": [0, 0, 24]},
    "lumbar_mri": {"pixel_mm": 8.0, "grid": [28, 28, 12]},
    "hand_mri": {"pixel_mm": [6.0, 6.0, 6.0], "grid": [28, 40, 16]},
    "mouse_skull_ct": {"pixel_mm": 0.9, "grid": [24, 34, 24]},
}


def files(bundle: str, kind: str, *overlays: str) -> list[str]:
    """Configuration files of a kind of run: train, calibrate, evaluate or inference."""
    first = "inference.json" if kind == "inference" else "train.json"
    last = [f"{kind}.json"] if kind in ("calibrate", "evaluate") else []
    return [str(configs(bundle) / name) for name in (first, "methods/scn_small.json", *overlays, *last)]


def workflow(bundle: str, kind: str, root: Path, *overlays: str, **settings: Any) -> ConfigWorkflow:
    """A tiny run, initialised."""
    training = {"max_epochs": EPOCHS, "val_interval": EPOCHS, "num_validation": 1, "amp": False, "learning_rate": 0.01}
    options = {
        "bundle_root": str(root),
        "phantom_parameters": PHANTOMS[bundle],
        "network_def#channels": 4,
        "max_figures": 1,
        **GRIDS[bundle],
        **({} if kind == "inference" else training),
        **settings,
    }
    flow = ConfigWorkflow(
        config_file=files(bundle, kind, *overlays),
        meta_file=str(configs(bundle) / "metadata.json"),
        logging_file=False,
        workflow_type="inference" if kind == "inference" else "train",
        **options,
    )
    flow.initialize()
    return flow


class Run:
    """A bundle that was trained, calibrated where it can be, evaluated and used for prediction, on a tiny phantom."""

    def __init__(self, bundle: str, root: Path) -> None:
        self.bundle, self.root = bundle, root
        fold = "" if bundle == "spine_ct" else "/fold0"
        self.models, self.out = root / f"models/scn_small{fold}", root / f"eval/scn_small{fold}"
        with logged_lines() as self.log:
            for kind in ("train", *(("calibrate",) if bundle in CALIBRATED else ()), "evaluate", "inference"):
                flow = workflow(bundle, kind, root)
                flow.run()
                flow.finalize()
                if kind == "evaluate":
                    listed = flow.parser.get_parsed_content("cases#test")
                    self.truth = {entry["case"]: entry["landmarks"] for entry in listed}
                    self.images = {entry["case"]: entry["image"] for entry in listed}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """Give ``finished("spine_ct")``: the bundle after all its runs, each bundle once per session."""
    runs: dict[str, Run] = {}

    def run(bundle: str) -> Run:
        if bundle not in runs:
            runs[bundle] = Run(bundle, tmp_path_factory.mktemp(bundle))
        return runs[bundle]

    return run
