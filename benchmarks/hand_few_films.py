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
"""Add the hand to a trained universal network with a few real films and phantoms, against training from scratch.

``python -m benchmarks.hand_few_films --help``. The real films are dealt into two halves; a network learns from one half and
phantoms and is scored on the other, both ways round, and the predictions of both are pooled. Everything is done by
``python -m monai.bundle run`` on a folder in the layout of the Digital Hand Atlas, as anybody with a few films would.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from monai_landmarks.data import Landmarks, read_landmark_table
from monai_landmarks.data.datasets import HAND_XRAY_LANDMARKS, hand_xray_datalist
from monai_landmarks.data.phantoms import write_hand_xray_phantom
from monai_landmarks.protocols import compare, evaluate

CONFIGS = Path(__file__).resolve().parents[1] / "bundles" / "universal_xray" / "configs"
HALVES = ("cv1", "cv2")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hand_few_films", description=__doc__)
    parser.add_argument("--hand_dir", type=Path, required=True, help="folder with the real films and their table")
    parser.add_argument("--base_ckpt", type=Path, required=True, help="universal network that does not know the hand")
    parser.add_argument("--out", type=Path, required=True, help="where data, networks, predictions and results go")
    parser.add_argument("--method", default="gu2net_small", help="overlay the base was trained with")
    parser.add_argument("--like", default="head", help="data set whose weights the hand starts from; '' for none")
    parser.add_argument("--phantoms", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batches", type=int, default=40, help="in an epoch")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="further settings of the bundle"
    )
    return parser.parse_args(arguments)


def prepare(hand_dir: Path, folder: Path, num_phantoms: int) -> Path:
    """Write real films and phantoms into one folder, with lists of two halves of the real ones; phantoms only train."""
    real = hand_xray_datalist(hand_dir, section=None, split="all")
    phantom = write_hand_xray_phantom(folder.parent / "phantom", num_train=num_phantoms, num_validation=1, num_test=1)
    drawn = hand_xray_datalist(phantom, "train")
    drawn = [{**entry, "case": f"9{entry['case']}"} for entry in drawn]  # phantoms bear the numbers of real films
    (folder / "jpg").mkdir(parents=True, exist_ok=True)
    with (folder / "all.csv").open("w", newline="") as file:
        for entry in real + drawn:
            film = Path(entry["image"])
            shutil.copy(film, folder / "jpg" / f"{entry['case']}{film.suffix}")
            csv.writer(file).writerow([entry["case"], *(entry["landmarks"] / entry["pixel_size"]).ravel()])
    for half, name in enumerate(HALVES):
        lists = folder / "setup" / "cv" / f"set{name[-1]}"
        lists.mkdir(parents=True, exist_ok=True)
        cases = {"train": real[half::2] + drawn, "test": real[1 - half :: 2]}
        for part, entries in cases.items():
            (lists / f"{part}.txt").write_text("".join(f"{entry['case']}\n" for entry in entries))
    return folder


def run_bundle(files: Sequence[str], settings: dict[str, object]) -> None:
    listed = "[" + ",".join(f"'{CONFIGS / file}'" for file in files) + "]"
    options = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    subprocess.run([sys.executable, "-m", "monai.bundle", "run", "--config_file", listed, *options], check=True)


def one_half(options: argparse.Namespace, data: Path, half: str, added: bool) -> tuple[dict, dict, float]:
    """Train and score on one half; returns predictions and truth by case, and the seconds of training."""
    out = options.out / ("added" if added else "scratch") / half
    files = ["train.json", f"methods/{options.method}.json"]
    common = {
        "bundle_root": CONFIGS.parent,
        "hand_dir": data,
        "ckpt_dir": out / "models",
        "output_dir": out / "eval",
        "dataset_settings#hand#split": half,
        "dataset_settings#hand#num_validation": 5,
        **dict(pair.split("=", 1) for pair in options.set),
    }
    training = {"max_epochs": options.epochs, "val_interval": options.epochs, "epoch_batches": options.batches}
    if added:
        extension = {"base_ckpt": options.base_ckpt, **({"like": options.like} if options.like else {})}
    start = time.perf_counter()
    if added:
        run_bundle([*files, "add_dataset.json"], {**common, **training, **extension})
    else:
        run_bundle(files, {**common, **training})
    seconds = time.perf_counter() - start
    run_bundle([*files, "evaluate.json"], common)
    truth = {
        entry["case"]: Landmarks(entry["landmarks"], HAND_XRAY_LANDMARKS)
        for entry in hand_xray_datalist(data, "test", half)
    }
    return dict(read_landmark_table(out / "eval" / "hand" / "predictions" / "landmarks.csv")), truth, seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Train both ways on both halves, print one table per way and one of both."""
    options = parse(arguments)
    data = prepare(options.hand_dir, options.out / "films", options.phantoms)
    results = []
    for method, added in (("added to the trained network", True), ("from scratch", False)):
        halves = [one_half(options, data, half, added) for half in HALVES]
        predictions, truth = ({k: v for half in halves for k, v in half[side].items()} for side in (0, 1))
        info = {
            "training_s": [round(half[2], 1) for half in halves],
            **{key: str(value) for key, value in vars(options).items()},
        }
        results.append(evaluate(predictions, truth, "native/mm", method=method, info=info))
        results[-1].save(options.out / ("added" if added else "scratch") / "pooled")
        print(results[-1].table(), f"training: {info['training_s']} s", sep="\n", end="\n\n")
    print(compare(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
