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
"""Co-teaching against plain training where a third of the labels of phantom films were moved.

``python -m benchmarks.planted_noise [--output JSON]``. Films of a drawn head at 96 x 78 pixels of 2.5 mm; of the training
films' landmarks 30 % are moved in a random direction by 10 to 40 pixels of the grid that is published for EdgeTrans,
320 x 256 of the whole film, 0.75 mm each: by 7.5 to 30 mm, 3 to 12 pixels of the grid here. One film keeps its true
labels, the exemplar; nothing tells the others' moved labels from those that were not.

Each row is a training from the same weights, with the same films, views and number of steps of each network; "plain"
is the trainer without selection and consistency. Errors are those of held-out films against true landmarks, of the first
network; rejected shares are those after the ramp, of labels that were moved and of labels that were not.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Events
from monai.data import Dataset
from torch.utils.data import DataLoader

from benchmarks.__main__ import describe_hardware
from benchmarks.summary import write_record
from monai_landmarks.data.phantoms import cephalogram_phantom
from monai_landmarks.engines.co_teaching_trainer import CoTeachingTrainer
from monai_landmarks.engines.co_teaching_views import PrepareTwoViewsBatch
from monai_landmarks.heatmaps import decode_heatmaps
from monai_landmarks.losses import HeatmapMSELoss
from monai_landmarks.networks import LocalizationUNet
from monai_landmarks.networks.nets.twin_net import TwinNet
from monai_landmarks.transforms.spatial_augmentation import BatchedSpatialAugmentation
from monai_landmarks.transforms.spatial_augmentation.ranges import SpatialRanges

MOVED_MM = (10 * 0.75, 40 * 0.75)
LANDMARKS = 19
PLAIN: dict[str, Any] = {"forget_rate": 0.0, "self_weight": 0.0, "cross_weight": 0.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "co-teaching": {},
    "no self-consistency": {"self_weight": 0.0},
    "no cross-consistency": {"cross_weight": 0.0},
    "cross-consistency from the start": {"ramp_cross": False},
    "ranked as published": {"among": "batch"},
    "both as published": {"among": "batch", "ramp_cross": False},
    "no selection": {"forget_rate": 0.0},
}


class Films(NamedTuple):
    """Images ``(F, 1, H, W)``, and true points ``(F, N, 2)`` in voxels."""

    images: torch.Tensor
    points: torch.Tensor


def draw_films(seeds: Sequence[int], reduction: int) -> Films:
    """Draw phantoms."""
    drawn = [cephalogram_phantom(seed, reduction) for seed in seeds]
    images = torch.stack([torch.from_numpy(image).float()[None] / 127.5 - 1 for image, _ in drawn])
    points = np.stack([points[:, ::-1] for _, points in drawn])  # x, y -> rows, columns
    return Films(images, torch.from_numpy((points / 0.1 + 0.5) / reduction - 0.5).float())


def move_labels(points: torch.Tensor, pixel_mm: float, share: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Move a share of the labels of all films but the first; returns labels and ``(F, N)`` bool, which were moved."""
    rng = np.random.default_rng(seed)
    moved = rng.permuted(np.arange(points[1:, :, 0].numel()) < share * points[1:, :, 0].numel())
    moved = np.concatenate([np.zeros(LANDMARKS, bool), moved]).reshape(points.shape[:2])
    angle, far = rng.uniform(0, 2 * math.pi, moved.shape), rng.uniform(*MOVED_MM, moved.shape) / pixel_mm
    offset = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * (far * moved)[..., None]
    return points + torch.from_numpy(offset).to(points), torch.from_numpy(moved)


def build_twins(channels: int, seed: int) -> TwinNet:
    torch.manual_seed(seed)
    first, second = (
        LocalizationUNet(2, 1, LANDMARKS, channels=channels, levels=4, dropout=0.0, norm="batch", heatmap_std=0.01)
        for _ in range(2)
    )
    return TwinNet(first, second)


def train(
    options: argparse.Namespace, films: Films, labels: torch.Tensor, **variant: Any
) -> tuple[TwinNet, torch.Tensor]:
    """Train one variant; returns networks and ``(F, 2, N)`` how often labels were judged and rejected after the ramp."""
    scores = torch.zeros(labels.shape[:2])
    scores[0] = 1
    items = [
        {"image": image, "points": points, "scores": score, "case": str(case)}
        for case, (image, points, score) in enumerate(zip(films.images, labels, scores, strict=True))
    ]
    network = build_twins(options.channels, options.seed)
    ranges = SpatialRanges(rotate_range=math.radians(15), scale_range=0.1, translate_range=4)
    optimizer = torch.optim.Adam(network.parameters(), lr=options.lr)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [int(0.8 * options.epochs)], 0.1)
    trainer = CoTeachingTrainer(
        device="cpu",
        max_epochs=options.epochs,
        train_data_loader=DataLoader(Dataset(items), batch_size=options.batch, shuffle=True, drop_last=True),
        network=network,
        optimizer=optimizer,
        loss_function=HeatmapMSELoss(sigma=options.sigma),
        prepare_batch=PrepareTwoViewsBatch(strong=BatchedSpatialAugmentation(ranges, padding_mode="border")),
        seed=options.seed,
        **{"forget_rate": options.forget_rate, "ramp_epochs": options.ramp, **variant},
    )
    trainer.logger.setLevel(logging.WARNING)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: schedule.step())
    counts = torch.zeros(len(items), 2, LANDMARKS)

    def count(sign: int) -> None:
        for case, row in trainer.state.rejections.items():
            counts[int(case)] += sign * row

    trainer.add_event_handler(Events.EPOCH_COMPLETED(once=options.ramp), lambda _: count(-1))
    trainer.run()
    count(1)
    return network, counts


@torch.no_grad()
def radial_errors(network: torch.nn.Module, films: Films, pixel_mm: float) -> torch.Tensor:
    """Distances ``(F, N)`` in mm."""
    found = torch.cat([decode_heatmaps(network(images), "dark")[0] for images in films.images.split(8)])
    return torch.linalg.vector_norm(found - films.points, dim=-1) * pixel_mm


def measure(options: argparse.Namespace, name: str, films: Films, held_out: Films) -> dict[str, Any]:
    """Train and score one variant."""
    pixel_mm = 0.1 * options.reduction
    labels, moved = move_labels(films.points, pixel_mm, options.share, options.seed + 1)
    start = time.process_time()
    network, counts = train(options, films, labels, **VARIANTS[name])
    seconds = time.process_time() - start
    network.eval()
    errors = radial_errors(network.first, held_out, pixel_mm)
    network.predict = "mean"
    judged, rejected = counts.unbind(1)
    shares = {
        f"rejected_{kind}": (rejected[chosen].sum() / judged[chosen].sum().clamp(min=1)).item()
        for kind, chosen in (("moved", moved), ("clean", ~moved))
    }
    return {
        "variant": name,
        "mre_mm": errors.mean().item(),
        "median_mm": errors.median().item(),
        "mre_mm_of_mean": radial_errors(network, held_out, pixel_mm).mean().item(),
        "within_4mm": (errors < 4).float().mean().item(),
        "worst_landmark_mm": errors.mean(dim=0).max().item(),
        **shares,
        "cpu_seconds": seconds,
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planted_noise", description=__doc__)
    parser.add_argument("--output", type=Path, metavar="JSON", help="also write settings and rows here")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--reduction", type=int, default=25, help="of the films: pixels of 0.1 mm in one (default 25)")
    parser.add_argument("--films", type=int, default=40, help="for training, the first of them with true labels")
    parser.add_argument("--held_out", type=int, default=20)
    parser.add_argument("--share", type=float, default=0.3, help="of labels that are moved")
    parser.add_argument("--forget_rate", type=float, default=0.3)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--ramp", type=int, default=30, help="epochs until the forget rate is reached")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--sigma", type=float, default=3.0, help="of the targets, in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order, views and of which labels are moved")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each variant, and write them."""
    options, hardware = parse(arguments), describe_hardware()
    films = draw_films(range(options.films), options.reduction)
    held_out = draw_films(range(10_000, 10_000 + options.held_out), options.reduction)
    rows = []
    for name in options.variants:
        rows.append(measure(options, name, films, held_out))
        print(
            "  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{v:33s}" for k, v in rows[-1].items()), flush=True
        )
    if options.output:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
        write_record(options.output, {"hardware": hardware, "settings": settings, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
