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
"""Cross-validate methods of a bundle and pool the predictions of all folds: ``python -m benchmarks.cross_validate --help``.

Each fold is trained and evaluated by ``python -m monai.bundle run`` as anybody would; here they are only started one after
the other and their predictions, each made by a network that never saw the case, are scored together. A fold whose network
or predictions are already there is not made again, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cross_validate", description=__doc__)
    parser.add_argument("bundle", type=Path, help="folder of the bundle, such as bundles/lumbar_mri")
    parser.add_argument("--dataset_dir", required=True, help="the real data; a phantom would not need folds")
    parser.add_argument("--out", type=Path, required=True, help="where networks, predictions and results go")
    parser.add_argument(
        "--methods", default="scn_small", help="overlays of configs/methods, or scn for none, separated by commas"
    )
    parser.add_argument("--folds", default="0,1,2,3,4", help="numbers, separated by commas")
    parser.add_argument("--protocol", default="native/mm/identification")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="further settings of the bundle"
    )
    parser.add_argument("--tag", default="", help="evaluate under this name, for other settings of the same networks")
    return parser.parse_args(arguments)


def title(options: argparse.Namespace, method: str) -> str:
    return f"{method}_{options.tag}" if options.tag else method


def run_bundle(files: Sequence[Path], settings: dict[str, Any]) -> None:
    listed = "[" + ",".join(f"'{file}'" for file in files) + "]"
    options = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    subprocess.run([sys.executable, "-m", "monai.bundle", "run", "--config_file", listed, *options], check=True)


def one_fold(options: argparse.Namespace, method: str, fold: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train and evaluate one fold where that was not done before; returns its predictions and truth by case."""
    from monai.bundle import ConfigParser

    from monai_landmarks.data import Landmarks, read_landmark_table

    configs = options.bundle / "configs"
    overlay = [] if method == "scn" else [configs / "methods" / f"{method}.json"]
    training = [configs / "train.json", *overlay]
    settings = {"dataset_dir": options.dataset_dir, "bundle_root": options.out, "fold": fold}
    settings |= dict(pair.split("=", 1) for pair in options.set)
    settings["output_dir"] = options.out / "eval" / title(options, method) / f"fold{fold}"
    parser = ConfigParser()
    parser.read_config([str(file) for file in (*training, configs / "evaluate.json")])
    for key, value in settings.items():
        parser[key] = value if isinstance(value, int) else str(value)
    network = Path(parser.get_parsed_content("ckpt_path"))
    table = settings["output_dir"] / "predictions" / "landmarks.csv"
    if not network.is_file():
        run_bundle(training, settings)
    calibration = configs / "calibrate.json"
    if calibration.is_file() and not (network.parent / "presence.json").is_file():
        run_bundle([*training, calibration], settings)
    if not table.is_file():
        run_bundle([*training, configs / "evaluate.json"], settings)
    names = parser.get_parsed_content("landmark_names")
    cases = parser.get_parsed_content("validate#dataset#data")
    truth = {case["case"]: Landmarks(case["landmarks"], names) for case in cases}
    return dict(read_landmark_table(table)), truth


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the folds of each method, print one table per method and one of all."""
    from monai_landmarks.protocols import compare, evaluate, get_protocol

    options = parse(arguments)
    folds = [int(text) for text in options.folds.split(",")]
    results = []
    for method in options.methods.split(","):
        pooled: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        for fold in folds:
            for side, part in zip(pooled, one_fold(options, method, fold), strict=True):
                side.update(part)
        protocol = get_protocol(options.protocol, dataset_dir=options.dataset_dir)
        result = evaluate(*pooled, protocol, method=title(options, method), info={"folds": folds, "set": options.set})
        result.save(options.out / "eval" / title(options, method) / "pooled")
        print(result.table(), end="\n\n")
        results.append(result)
    print(compare(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
