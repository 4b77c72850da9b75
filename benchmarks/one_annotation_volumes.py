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
"""From one annotated volume to a detector in 3D: ``python -m benchmarks.one_annotation_volumes --help``.

CC2Dv2's ladder on the hippocampus crops of the Decathlon: a network learns without labels to find patches again, chooses
the volume worth annotating, finds its five points in all other training volumes, and a heatmap network learns from these.
Both are scored once on the 40 volumes of the test section, beside guesses that look at no image. Of the training labels
only the chosen volume's are read, but for the guess by the mean shape, which has all of them.
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

import nibabel
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler, StatsHandler
from monai.networks.utils import eval_mode
from monai.transforms import Compose, ScaleIntensityRangePercentilesd, SelectItemsd
from monai.utils import set_determinism

from monai_landmarks.data import Landmarks, pseudo_labelled_datalist, unlabelled_datalist, write_landmarks
from monai_landmarks.data.datasets import HIPPOCAMPUS_LANDMARKS, hippocampus_datalist
from monai_landmarks.engines import (
    PatchMatchingTrainer,
    PrepareLandmarkBatch,
    PreparePatchMatchingBatch,
    prepare_template_matching,
    suggest_template,
)
from monai_landmarks.geometry import apply_affine, image_affine, invert_affine
from monai_landmarks.heatmaps import decode_heatmaps
from monai_landmarks.losses import HeatmapL2Loss
from monai_landmarks.networks import PatchMatchingNet, SpatialConfigurationNet, TemplateMatchingNet
from monai_landmarks.protocols import EvaluationResult, compare, evaluate
from monai_landmarks.report import landmark_overlay, save_figure
from monai_landmarks.transforms import (
    FitToGridd,
    LandmarksWorldToImaged,
    LoadLandmarksd,
    LoadVolumed,
    RandShiftScaleIntensityd,
    RandSpatialLandmarksd,
    batched_augmentation,
)

from .__main__ import describe_hardware
from .summary import summary, write_record

NAMES = list(HIPPOCAMPUS_LANDMARKS)
Entries = Sequence[Mapping[str, Any]]
Items = list[dict[str, Any]]
Found = dict[str, Landmarks]


@dataclass(frozen=True)
class Settings:
    """Of both stages, whose grids show at least 43.2 x 57.6 x 43.2 mm around the middle of a volume."""

    seed: int = 0
    num_test: int = 40
    batch_size: int = 4
    encoder: str = "resnet18"
    width: float = 0.125
    embedding: int = 32
    # Finer than the scans' 1 mm, for the patch, half of each side, to fill a cell of the coarsest stride, 32.
    grid: tuple[int, ...] = (48, 64, 48)
    pixel_mm: float = 0.9
    epochs: int = 25
    points_per_patch: int = 32
    scale_range: float = 0.1
    keypoints: int = 16
    contrast_threshold: float = 0.04
    others: int = 6
    student_grid: tuple[int, ...] = (32, 48, 32)
    student_pixel_mm: float = 1.35
    student_epochs: int = 40
    channels: int = 16
    levels: int = 3
    alpha: float = 100.0
    sigma: float = 2.0
    learning_rate: float = 0.001
    student_learning_rate: float = 0.002


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all stages, print a table, and write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one_annotation_volumes", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder hippocampus_mr")
    parser.add_argument("--output", type=Path, metavar="JSON", help="where to write the numbers")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep networks, pseudo-labels and pictures here")
    parser.add_argument("--epochs", type=int, default=Settings.epochs, help="of the self-supervision")
    parser.add_argument("--student_epochs", type=int, default=Settings.student_epochs)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    options = parser.parse_args(arguments)
    settings = Settings(options.seed, epochs=options.epochs, student_epochs=options.student_epochs)
    with tempfile.TemporaryDirectory() as folder:
        record = run(options.data, options.work or Path(folder), settings)
    if options.output:
        write_record(options.output, record)
    return 0


def run(data: Path, work: Path, settings: Settings) -> dict[str, Any]:
    """Do all stages and score them; pictures, pseudo-labels and weights go to ``work``."""
    set_determinism(seed=settings.seed)
    hardware = describe_hardware()
    training = hippocampus_datalist(data, num_test=settings.num_test)
    unlabelled = unlabelled_datalist(training)
    held_out = unlabelled_datalist(hippocampus_datalist(data, "test", num_test=settings.num_test))
    volumes = load(unlabelled, settings.grid, settings.pixel_mm)
    sought = load(held_out, settings.grid, settings.pixel_mm)
    clock = Clock()

    matcher = PatchMatchingNet(3, 1, settings.encoder, settings.width, settings.embedding, shared=True)
    untrained = {key: value.clone() for key, value in matcher.state_dict().items()}
    losses = self_supervision(matcher, volumes, settings)
    clock.stop("self-supervision")
    ranking = suggest_template(
        matcher,
        volumes,
        keypoints_per_image=settings.keypoints,
        contrast_threshold=settings.contrast_threshold,
        max_pairs=settings.others * len(volumes),
        seed=settings.seed,
    )
    clock.stop("choice of the template")
    labelled = [entry for entry in training if entry["case"] == ranking[0].case]
    templates = load(labelled, settings.grid, settings.pixel_mm)
    matching = prepare_template_matching(TemplateMatchingNet(matcher, len(NAMES)), templates, NAMES, work / "model.pt")
    pseudo_labels = work / "pseudo_labels"
    write(detect(matching, volumes), pseudo_labels)
    clock.stop("pseudo-labels")
    listed = pseudo_labelled_datalist(training, pseudo_labels, NAMES, [ranking[0].case], spatial_dims=3)
    student = train_student(listed, settings)
    clock.stop("student")

    rows = {
        "template matching": detect(matching, sought),
        "student": detect(student, load(held_out, settings.student_grid, settings.student_pixel_mm)),
    }
    for method, found in rows.items():
        write(found, work / method)
    matcher.load_state_dict(untrained)
    rows["template matching, untrained"] = detect(prepare_template_matching(matching, templates, NAMES), sought)
    for place, part in (("first voxel", 0.0), ("middle", 0.5)):
        rows[f"template's points, from the {place}"] = guess(labelled, held_out, part)
        rows[f"mean shape of all training labels, from the {place}"] = guess(training, held_out, part)
    results = score(rows, data, settings)
    draw(rows, results, sought, data, work, settings)
    return {
        "hardware": hardware,
        "settings": asdict(settings),
        "data": "hippocampus_mr: five points derived from manual masks",
        "num_training": len(training),
        "num_labelled": len(labelled),
        "template": ranking[0]._asdict(),
        "processor_s": clock.seconds,
        "matching_loss": losses,
        "runs": {result.method: summary(result) for result in results},
    }


class Clock:
    """Seconds of the processor since the last stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.start = time.process_time()

    def stop(self, stage: str) -> None:
        now = time.process_time()
        self.seconds[stage] = round(now - self.start, 1)
        self.start = now
        print(f"{stage}: {self.seconds[stage]} s", file=sys.stderr, flush=True)


# --- stages -------------------------------------------------------------------------------------------------------------


def load(entries: Entries, grid: Sequence[int], pixel_mm: float) -> Items:
    """Load volumes onto a grid around their middles, with voxel points where an entry has landmarks.

    What lies beyond a volume repeats its border: the crops were made around the masks, so their edges would tell.
    """
    steps: list[Any] = [
        LoadVolumed("image"),
        ScaleIntensityRangePercentilesd("image", 1, 99, -1, 1, clip=True),
        FitToGridd("image", tuple(grid), pixel_mm, padding_mode="border"),
    ]
    if "landmarks" in entries[0]:
        steps.append(LoadLandmarksd("landmarks", names=NAMES, check_inside=False))
        steps.append(LandmarksWorldToImaged("landmarks", refer_keys="image", output_keys="points"))
    steps.append(SelectItemsd(["image", "case", "points", "scores"], allow_missing_keys=True))
    transform = Compose(steps)
    return [transform(dict(entry)) for entry in entries]


def self_supervision(matcher: PatchMatchingNet, volumes: Items, settings: Settings) -> list[float]:
    """Train the matcher on volumes without labels; returns the mean loss of each epoch."""
    loader = DataLoader(Dataset(volumes), batch_size=settings.batch_size, shuffle=True, drop_last=True)
    optimizer = torch.optim.AdamW(matcher.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    trainer = PatchMatchingTrainer(
        device="cpu",
        max_epochs=settings.epochs,
        train_data_loader=loader,
        network=matcher,
        optimizer=optimizer,
        prepare_batch=PreparePatchMatchingBatch(
            points_per_patch=settings.points_per_patch,
            scale_range=settings.scale_range,
            mode="linear",
        ),
        seed=settings.seed,
        train_handlers=schedule(optimizer, settings.learning_rate, settings.epochs * len(loader)),
    )
    losses: list[float] = []
    trainer.add_event_handler(
        "EPOCH_COMPLETED", lambda engine: losses.append(round(engine.state.metrics["unlabelled_loss"], 4))
    )
    trainer.run()
    return losses


def train_student(listed: Entries, settings: Settings) -> SpatialConfigurationNet:
    """Train a heatmap network on pseudo-labels and the one true label, each weighed by its score."""
    volumes = load(listed, settings.student_grid, settings.student_pixel_mm)
    loader = DataLoader(Dataset(volumes), batch_size=settings.batch_size, shuffle=True, drop_last=True)
    network = SpatialConfigurationNet(
        3,
        1,
        len(NAMES),
        channels=settings.channels,
        levels=settings.levels,
        dropout=0.0,
        spatial_kernel_size=5,
        norm="batch",
    )
    loss = HeatmapL2Loss(len(NAMES), 3, settings.sigma, alpha=settings.alpha)
    weights = [
        {"params": network.parameters(), "weight_decay": 0.01},
        {"params": loss.parameters(), "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(weights, lr=settings.student_learning_rate)
    augment = batched_augmentation(
        [
            RandSpatialLandmarksd(
                "image",
                spatial_size=settings.student_grid,
                pixdim=settings.student_pixel_mm,
                rotate_range=0.2,
                scale_range=0.1,
                axis_scale_range=0.1,
                translate_range_mm=4,
                elastic_range_mm=2,
                elastic_nodes=5,
                padding_mode="border",
            ),
            RandShiftScaleIntensityd("image", shift_range=0.25, scale_range=0.25, clip=None),
        ]
    )
    prepare = PrepareLandmarkBatch(keep_meta=False, augment=augment, weights_key="scores")
    prepare.set_random_state(settings.seed)
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=settings.student_epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=loss,
        prepare_batch=prepare,
        train_handlers=schedule(optimizer, settings.student_learning_rate, settings.student_epochs * len(loader)),
        decollate=False,
    )
    trainer.run()
    return network


def schedule(optimizer: torch.optim.Optimizer, highest: float, steps: int) -> list[Any]:
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, highest, steps + 1, pct_start=0.1, cycle_momentum=False)
    return [
        LrScheduleHandler(rates, print_lr=False, epoch_level=False),  # type: ignore[arg-type]
        StatsHandler(iteration_log=False, output_transform=lambda _: None),
    ]


@torch.no_grad()
def detect(network: torch.nn.Module, volumes: Items) -> Found:
    """Find the landmarks of each volume, in world millimetres, as predictions that wait for a review."""
    found = {}
    with eval_mode(network):
        for item in volumes:
            image = item["image"]
            points, score = decode_heatmaps(network(image.as_tensor()[None])[0], "dark", spatial_dims=3)
            world = apply_affine(points.double(), image_affine(image))
            status = ["preview" if known else "missing" for known in world.isfinite().all(dim=-1)]
            found[item["case"]] = Landmarks(world.numpy(), NAMES, status, score.numpy())
    return found


def write(found: Found, folder: Path) -> None:
    for case, landmarks in found.items():
        write_landmarks(landmarks, folder / f"{case}.mrk.json")


# --- results ------------------------------------------------------------------------------------------------------------


def guess(labelled: Entries, sought: Entries, part: float) -> Found:
    """Expect the mean of some labels at the same voxel of every volume, counted from its ``part``: 0 begin, 0.5 middle."""
    frames = [frame(entry, part) for entry in labelled]
    voxels = [
        apply_affine(torch.as_tensor(e["landmarks"]), invert_affine(f)) for e, f in zip(labelled, frames, strict=True)
    ]
    mean = torch.stack(voxels).nanmean(dim=0)
    return {entry["case"]: Landmarks(apply_affine(mean, frame(entry, part)).numpy(), NAMES) for entry in sought}


def frame(entry: Mapping[str, Any], part: float) -> torch.Tensor:
    """The affine of a volume whose voxels are counted from a part of its sides."""
    volume: Any = nibabel.load(entry["image"])
    affine = torch.as_tensor(volume.affine, dtype=torch.float64)
    origin = part * (torch.tensor(volume.shape, dtype=torch.float64) - 1)
    return torch.cat([affine[:, :-1], affine @ torch.cat([origin, origin.new_ones(1)])[:, None]], dim=1)


def score(rows: Mapping[str, Found], data: Path, settings: Settings) -> list[EvaluationResult]:
    """Compare with the truth of the test section, which is read here for the first time."""
    truth = {
        entry["case"]: Landmarks(entry["landmarks"], NAMES)
        for entry in hippocampus_datalist(data, "test", num_test=settings.num_test)
    }
    results = [evaluate(found, truth, "native/mm", method=method) for method, found in rows.items()]
    print(compare(results))
    return results


def draw(
    rows: Mapping[str, Found],
    results: Sequence[EvaluationResult],
    sought: Items,
    data: Path,
    work: Path,
    settings: Settings,
) -> None:
    """Write the first held-out volume with what each stage has found in it."""
    item = sought[0]
    inverse = invert_affine(image_affine(item["image"]))
    entries = hippocampus_datalist(data, "test", num_test=settings.num_test)
    truth = next(torch.as_tensor(entry["landmarks"]) for entry in entries if entry["case"] == item["case"])
    for result in results[:2]:
        found = torch.as_tensor(rows[result.method][item["case"]].points.copy())
        figure = landmark_overlay(
            item["image"],
            apply_affine(found, inverse),
            apply_affine(truth, inverse),
            names=NAMES,
            title=f"{item['case']}: {result.method}",
        )
        save_figure(figure, work / f"{item['case']} {result.method}.png")


if __name__ == "__main__":
    sys.exit(main())
