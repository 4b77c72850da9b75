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
"""Runs of the hand, chest and spine film bundles at sizes at which a CPU core needs seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_runs import configs, logged_lines
from monai.bundle import ConfigWorkflow

from monai_landmarks.data.datasets import AASCE_LANDMARKS, CHEST_XRAY_LANDMARKS, HAND_XRAY_LANDMARKS

NAMES = {"hand_xray": HAND_XRAY_LANDMARKS, "chest_xray": CHEST_XRAY_LANDMARKS, "spine_xray": AASCE_LANDMARKS}
UNITS = {"hand_xray": "mm", "chest_xray": "px", "spine_xray": "thousandths"}
FOLDERS = {"hand_xray": "/cv1", "chest_xray": "", "spine_xray": ""}
SMALL = {"hand_xray": "scn_small", "chest_xray": "scn_small", "spine_xray": "farnet_small"}
"""The method that is trained, evaluated and used."""
OVERLAYS = {
    "hand_xray": ["localization_unet", "gu2net", "farnet", "farnet_small"],
    "chest_xray": ["localization_unet", "gu2net"],
    "spine_xray": ["scn_small", "gu2net"],
}
"""The other ones."""
EPOCHS = 5  # as many as a network needs to answer at all
PHANTOM = {"num_train": 4, "num_validation": 1, "num_test": 2, "reduction": 16}
PHANTOMS = {"hand_xray": PHANTOM, "chest_xray": PHANTOM, "spine_xray": {"num_patients": 4, "reduction": 16}}
GRIDS = {"hand_xray": [48, 64], "chest_xray": [64, 64], "spine_xray": [32, 64]}
TINY: dict[str, dict[str, Any]] = {
    "farnet": {"network_def#width": 0.125},
    "farnet_small": {"network_def#width": 0.125},
    "gu2net": {"universal_def#channels": [4, 4, 4], "universal_def#global_channels": 4},
    "localization_unet": {"network_def#channels": 4, "learning_rate": 1e-4},
    "scn_small": {"network_def#channels": 4, "learning_rate": 0.01},
}


def files(bundle: str, kind: str, *overlays: str) -> list[str]:
    """Configuration files of a kind of run: train, evaluate or inference."""
    first = "inference.json" if kind == "inference" else "train.json"
    last = ["evaluate.json"] if kind == "evaluate" else []
    names = (first, *(f"methods/{overlay}.json" for overlay in overlays), *last)
    return [str(configs(bundle) / name) for name in names]


def workflow(bundle: str, kind: str, root: Path, overlay: str = "", **settings: Any) -> ConfigWorkflow:
    """A tiny run, initialised; of the bundle's small method unless another overlay is named."""
    overlay = overlay or SMALL[bundle]
    training: dict[str, Any] = {"max_epochs": EPOCHS, "val_interval": EPOCHS, "batch_size": 1, "amp": False}
    training |= {"num_validation": 1} if bundle != "chest_xray" else {}
    options = {
        "bundle_root": str(root),
        "phantom_parameters": PHANTOMS[bundle],
        "grid": GRIDS[bundle],
        "elastic_range": 0.0,
        "max_figures": 1,
        **({} if kind == "inference" else training),
        **TINY[overlay],
        **settings,
    }
    flow = ConfigWorkflow(
        config_file=files(bundle, kind, overlay),
        meta_file=str(configs(bundle) / "metadata.json"),
        logging_file=False,
        workflow_type="inference" if kind == "inference" else "train",
        **options,
    )
    flow.initialize()
    return flow


class FilmRun:
    """A bundle that was trained, evaluated and used for prediction, on a tiny phantom."""

    def __init__(self, bundle: str, root: Path) -> None:
        self.bundle, self.root = bundle, root
        self.models = root / f"models/{SMALL[bundle]}{FOLDERS[bundle]}"
        self.out = root / f"eval/{SMALL[bundle]}{FOLDERS[bundle]}"
        with logged_lines() as self.log:
            for kind in ("train", "evaluate", "inference"):
                flow = workflow(bundle, kind, root)
                flow.run()
                flow.finalize()
                if kind == "evaluate":
                    self.cases = {case["case"]: case for case in flow.parser.get_parsed_content("cases#test")}


@pytest.fixture(scope="session")
def finished_films(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], FilmRun]:
    """Give ``finished_films("hand_xray")``: the bundle after all its runs, each bundle once per session."""
    runs: dict[str, FilmRun] = {}

    def run(bundle: str) -> FilmRun:
        if bundle not in runs:
            runs[bundle] = FilmRun(bundle, tmp_path_factory.mktemp(bundle))
        return runs[bundle]

    return run
