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
"""Landmarks of one annotated volume carried to others in 3D: ``python -m benchmarks.registration_volumes --help``.

EdgeTrans's first stage on micro-CT of mouse heads: a network learns without labels to register training volumes on each
other, and carries the 51 landmarks of one of them to the test volumes, which are scored once. All volumes lie in a common
pose that was found with the specimen's surface; so that it tells nothing, each is turned and shifted by a draw that belongs
to its case, in training and in testing.

Beside it stand guesses that look at no image: the exemplar's points and the mean shape of all training labels, in the
voxels of the turned volumes; and, for knowing how alike the heads are, the mean shape where no volume is turned.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.networks.utils import eval_mode
from monai.transforms import Compose, ScaleIntensityRanged, SelectItemsd
from monai.utils import set_determinism

from monai_landmarks.data import Landmarks
from monai_landmarks.data.datasets import MOUSE_SKULL_LANDMARKS, mouse_skull_ct_datalist
from monai_landmarks.engines import (
    PrepareRegistrationBatch,
    RegistrationObjective,
    RegistrationTrainer,
    hold_then_cosine,
)
from monai_landmarks.geometry import apply_affine, image_affine
from monai_landmarks.losses import EdgeSSIMLoss
from monai_landmarks.networks import EdgeTransNet, RegisteredExemplarNet
from monai_landmarks.networks.blocks.displacement import carry_points
from monai_landmarks.protocols import compare, evaluate
from monai_landmarks.report import figure_registration, save_figure
from monai_landmarks.transforms import (
    LandmarksWorldToImaged,
    LoadLandmarksd,
    LoadVolumed,
    RandSpatialLandmarksd,
    SeededByCased,
)

from .__main__ import describe_hardware
from .summary import summary, write_record

NAMES = list(MOUSE_SKULL_LANDMARKS)
Items = list[dict[str, Any]]
Found = dict[str, Landmarks]


@dataclass(frozen=True)
class Settings:
    """Of data and training; poses as in ``bundles/mouse_skull_ct``."""

    seed: int = 0
    fold: int = 0
    grid: tuple[int, ...] = (32, 48, 32)
    pixel_mm: float = 0.75
    pose_rotate: float = 0.4
    pose_shift_mm: float = 1.0
    encoder: str = "resnet18"
    width: float = 0.25
    channels: int = 32
    epochs: int = 100
    batch_size: int = 8
    learning_rate: float = 0.001
    rotate_range: float = 0.3
    scale_range: float = 0.1
    window: int = 7


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, score once, print a table, and write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.registration_volumes", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder mouse_skull_ct")
    parser.add_argument("--output", type=Path, metavar="JSON", help="where to write the numbers")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep network and pictures here")
    parser.add_argument("--part", default="test", choices=("training", "test"), help="which volumes are scored")
    for name in ("epochs", "batch_size", "fold", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Settings, name))
    for name in ("pose_rotate", "learning_rate"):
        parser.add_argument(f"--{name}", type=float, default=getattr(Settings, name))
    options = vars(parser.parse_args(arguments))
    data, output, work = (options.pop(name) for name in ("data", "output", "work"))
    part = options.pop("part")
    with tempfile.TemporaryDirectory() as folder:
        record = run(data, work or Path(folder), part, Settings(**options))
    if output:
        write_record(output, record)
    return 0


def run(data: Path, work: Path, part: str, settings: Settings) -> dict[str, Any]:
    """Train on the training section and score one part; network and pictures go to ``work``."""
    work.mkdir(parents=True, exist_ok=True)
    set_determinism(seed=settings.seed)
    hardware = describe_hardware()
    training = load(mouse_skull_ct_datalist(data, "training", settings.fold), settings)
    exemplar = training[0]
    start = time.process_time()
    network, curve = train([without_points(item) for item in training], exemplar, settings)
    seconds = time.process_time() - start
    torch.save(network.state_dict(), work / "registration.pt")

    net = RegisteredExemplarNet(network, len(NAMES))
    net.set_exemplar(exemplar["image"], exemplar["points"], NAMES)
    truth = [e for e in mouse_skull_ct_datalist(data, part, settings.fold) if e["case"] != exemplar["case"]]
    scored = load(truth, settings)
    sought = [without_points(item) for item in scored]
    rows = {**carry(net, sought), **guess(exemplar, training, sought)}
    true = {entry["case"]: Landmarks(entry["landmarks"], NAMES) for entry in truth}
    results = [evaluate(found, true, "native/mm", method=method) for method, found in rows.items()]
    print(compare(results))
    draw(net, scored[0], work)
    return {
        "hardware": hardware,
        "settings": asdict(settings),
        "data": "mouse_skull_ct: 51 landmarks of mouse heads (not human)",
        "part": part,
        "exemplar": exemplar["case"],
        "num_training": len(training),
        "processor_s": round(seconds, 1),
        "curve": curve,
        "runs": {result.method: summary(result) for result in results},
    }


def load(entries: Sequence[Mapping[str, Any]], settings: Settings) -> Items:
    """Load volumes in their drawn poses, with points in voxels."""
    pose = RandSpatialLandmarksd(
        "image",
        spatial_size=settings.grid,
        pixdim=settings.pixel_mm,
        rotate_range=settings.pose_rotate,
        translate_range_mm=settings.pose_shift_mm,
        fill=0,
    )
    transform = Compose(
        [
            LoadVolumed("image"),
            ScaleIntensityRanged("image", 0, 160, 0, 1, clip=True),
            SeededByCased(pose),
            LoadLandmarksd("landmarks", names=NAMES, check_inside=False),
            LandmarksWorldToImaged("landmarks", refer_keys="image", output_keys="points"),
            SelectItemsd(["image", "case", "points"]),
        ]
    )
    return [transform(dict(entry)) for entry in entries]


def without_points(item: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage may see that must not know the landmarks."""
    return {key: value for key, value in item.items() if key != "points"}


def train(volumes: Items, exemplar: Mapping[str, Any], settings: Settings) -> tuple[EdgeTransNet, list[dict]]:
    """Learn to register volumes; returns the network and what was seen of each tenth epoch, which knows no label."""
    network = EdgeTransNet(
        3,
        1,
        settings.encoder,
        width=settings.width,
        channels=settings.channels,
        attention=False,
        local_steps=2,
        norm="group",
    )
    loader = DataLoader(Dataset(volumes), batch_size=settings.batch_size, shuffle=True, drop_last=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda epoch: hold_then_cosine(epoch, settings.epochs / 3, settings.epochs, 0.05)
    )
    trainer = RegistrationTrainer(
        device="cpu",
        max_epochs=settings.epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        exemplar=exemplar,
        objective=RegistrationObjective(3, local_loss=EdgeSSIMLoss(3, window=settings.window)),
        scale_schedule=True,
        exemplar_interval=10,
        prepare_batch=PrepareRegistrationBatch(
            rotate_range=settings.rotate_range,
            scale_range=settings.scale_range,
            warp_rotate_range=settings.rotate_range,
        ),
        seed=settings.seed,
    )
    curve: list[dict[str, Any]] = []

    def note(engine: Engine) -> None:
        schedule.step()
        if engine.state.epoch % 10 == 0 or engine.state.epoch == settings.epochs:
            curve.append({"epoch": engine.state.epoch, **{k: round(v, 4) for k, v in engine.state.metrics.items()}})
            print(curve[-1], file=sys.stderr, flush=True)

    trainer.add_event_handler(Events.EPOCH_COMPLETED, note)
    trainer.run()
    return network, curve


@torch.no_grad()
def carry(net: RegisteredExemplarNet, volumes: Items) -> dict[str, Found]:
    """Carry the exemplar's landmarks to volumes: after the affine step alone, and after all."""
    affine, whole = {}, {}
    with eval_mode(net):
        for item in volumes:
            carried = net.carry(item["image"].as_tensor()[None])
            first, _ = carry_points(carried.registration.fields[0].float(), net.exemplar_points[None])
            affine[item["case"]] = in_world(first[0], item)
            whole[item["case"]] = in_world(carried.points[0], item)
    return {"affine step of the registration": affine, "registration": whole}


def in_world(points: torch.Tensor, item: Mapping[str, Any]) -> Landmarks:
    return Landmarks(apply_affine(points.double(), image_affine(item["image"])).numpy(), NAMES)


def guess(exemplar: Mapping[str, Any], labelled: Items, sought: Items) -> dict[str, Found]:
    """Expect landmarks without a look at the image: at the same voxels of the turned volumes, and where none is turned."""
    places = {
        "exemplar's points in the turned volumes": exemplar["points"],
        "mean shape in the turned volumes": torch.stack([item["points"] for item in labelled]).mean(dim=0),
    }
    guesses = {name: {item["case"]: in_world(points, item) for item in sought} for name, points in places.items()}
    mean = np.mean([in_world(item["points"], item).points for item in labelled], axis=0)
    return {**guesses, "mean shape, no volume turned": {item["case"]: Landmarks(mean, NAMES) for item in sought}}


@torch.no_grad()
def draw(net: RegisteredExemplarNet, item: Mapping[str, Any], work: Path) -> None:
    """Write a test volume with the exemplar, as it is warped, and what was carried."""
    with eval_mode(net):
        carried = net.carry(item["image"].as_tensor()[None])
    figure = figure_registration(
        net.exemplar_image(),
        net.exemplar_points,
        item["image"].as_tensor(),
        carried.registration,
        item["points"],
        title=item["case"],
    )
    save_figure(figure, work / f"{item['case']} registration.png")


if __name__ == "__main__":
    sys.exit(main())
