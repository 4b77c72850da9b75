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
"""Similarity to templates and its loss, all landmarks at once, against the loops over landmarks and levels they replace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from monai_landmarks.losses import PatchMatchingLoss
from monai_landmarks.networks import PatchMatchingNet, TemplateMatchingNet
from monai_landmarks.networks.blocks import crop_to
from monai_landmarks.networks.blocks.similarity import cosine_similarity
from monai_landmarks.networks.nets.spatial_configuration_net import LINEAR_MODES

from .targets import FLOAT_BYTES, random_points
from .timing import Case, Run, processor_seconds, time_calls

__all__ = ["TITLE", "cases"]

TITLE = (
    "Similarity of 64 channels at strides 32 to 2, from given features (size: the result; error: largest difference between "
    "both ways, relative; images per s and, on a CPU, processor s of one call)"
)
CHANNELS = 64
STRIDES = PatchMatchingNet.strides
Maps = list[torch.Tensor]
Result = torch.Tensor | Maps
Work = Callable[..., Result]


class Setup(NamedTuple):
    """``landmarks``, or points of one patch, in each of ``batch`` images."""

    shape: tuple[int, ...]
    landmarks: int
    batch: int = 1

    def label(self) -> str:
        return f"{self.landmarks} in {'x'.join(map(str, self.shape))}" + (
            f", batch {self.batch}" if self.batch > 1 else ""
        )

    def cells(self) -> list[tuple[int, ...]]:
        return [tuple(-(-size // stride) for size in self.shape) for stride in STRIDES]


# --- similarity maps: (features, anchors) of each level -> maps of each level ----------------------------------------------


def features_and_anchors(setup: Setup, device: str) -> tuple[Maps, Maps]:
    """Draw features that are rather alike, as trained ones are: most similarities are above 0, and not all."""
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.rand, generator=generator)
    features = [draw(setup.batch, CHANNELS, *cells).sub(0.3).to(device) for cells in setup.cells()]
    anchors = [draw(setup.batch, setup.landmarks, CHANNELS).sub(0.3).to(device) for _ in STRIDES]
    return features, anchors


def our_similarity(features: Maps, anchors: Maps) -> Maps:
    return [cosine_similarity(x, anchor) for x, anchor in zip(features, anchors, strict=True)]


def plain_similarity(features: Maps, anchors: Maps) -> Maps:
    """Compare one level, one image and one landmark after the other."""
    levels = []
    for x, anchor in zip(features, anchors, strict=True):
        images = []
        for cells, own in zip(x, anchor, strict=True):
            wide = [a.reshape(-1, *[1] * (cells.ndim - 1)) for a in own]
            images.append(torch.stack([F.cosine_similarity(cells, a, dim=0) for a in wide]))
        levels.append(torch.stack(images))
    return levels


# --- template matching: features -> heatmaps ------------------------------------------------------------------------------


class GivenFeatures(nn.Module):
    """In place of a trained matcher: its time is not what is measured."""

    strides, embedding = STRIDES, CHANNELS

    def __init__(self, features: Maps) -> None:
        super().__init__()
        self.features, self.spatial_dims = features, features[0].ndim - 2

    def embed(self, image: torch.Tensor) -> Maps:
        return self.features


def our_matching(network: TemplateMatchingNet, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        heatmaps: torch.Tensor = network(image)
    return heatmaps


def plain_matching(network: TemplateMatchingNet, image: torch.Tensor) -> torch.Tensor:
    """Compare, clip, enlarge and multiply one landmark and one level after the other."""
    shape = image.shape[2:]
    features: Maps = network.matcher.embed(image)
    heatmaps = []
    for landmark in range(network.num_landmarks):
        product = image.new_ones(len(image), 1, *shape)
        for level, (x, stride) in enumerate(zip(features, STRIDES, strict=True)):
            anchor = network.anchors[0, level, landmark].reshape(1, -1, *[1] * len(shape))
            similarity = F.cosine_similarity(x, anchor, dim=1).clamp(0, 1)[:, None]
            mode = LINEAR_MODES[len(shape)]
            enlarged = F.interpolate(similarity, scale_factor=float(stride), mode=mode, align_corners=False)
            product = product * crop_to(enlarged, image)
        heatmaps.append(product)
    return torch.cat(heatmaps, dim=1)


# --- loss: similarity maps -> value and gradients -------------------------------------------------------------------------


def our_loss(loss: PatchMatchingLoss, maps: Maps, points: torch.Tensor) -> Maps:
    return _gradients(loss(maps, points), maps)


def plain_loss(loss: PatchMatchingLoss, maps: Maps, points: torch.Tensor) -> Maps:
    """Cut, bias and compare one window after the other."""
    total = points.new_zeros(())
    for level, (x, stride) in enumerate(zip(maps, STRIDES, strict=True)):
        for image, own in zip(x, points, strict=True):
            for similarity, point in zip(image, own, strict=True):
                cell = ((point + 0.5) / stride).floor().long().tolist()
                total = total + _window_loss(loss, similarity, cell, loss.window if level else None)
    return _gradients(total / points.shape[:2].numel(), maps)


def _window_loss(
    loss: PatchMatchingLoss, similarity: torch.Tensor, cell: Sequence[int], window: int | None
) -> torch.Tensor:
    starts = [0 if window is None else max(c - window // 2, 0) for c in cell]
    ends = [
        n if window is None else min(c - window // 2 + window, n) for c, n in zip(cell, similarity.shape, strict=True)
    ]
    axes = [torch.arange(a, b, device=similarity.device) - c for a, b, c in zip(starts, ends, cell, strict=True)]
    distance = torch.stack(torch.meshgrid(*axes, indexing="ij")).float().norm(dim=0)
    bias = (loss.distance_slope * distance).clamp(0, loss.distance_limit)
    logits = loss.temperature * (similarity[tuple(map(slice, starts, ends))] + bias)
    return F.cross_entropy(logits.reshape(1, -1), distance.argmin().reshape(1))


def _gradients(value: torch.Tensor, maps: Maps) -> Maps:
    return [value.detach(), *torch.autograd.grad(value, maps)]


# --- rows ---------------------------------------------------------------------------------------------------------------


def prepare(task: str, setup: Setup, device: str) -> tuple[object, ...]:
    """The inputs of a task, the same at every call."""
    features, anchors = features_and_anchors(setup, device)
    if task == "similarity":
        return features, anchors
    if task == "template matching":
        network = TemplateMatchingNet(GivenFeatures(features), setup.landmarks).to(device).eval()  # type: ignore[arg-type]
        network.anchors = torch.stack([anchor[0] for anchor in anchors])[None]
        return network, torch.zeros(setup.batch, 1, *setup.shape, device=device)
    maps = [x.requires_grad_() for x in our_similarity(features, anchors)]
    return PatchMatchingLoss(), maps, random_points(setup.batch, setup.landmarks, setup.shape).to(device)


WAYS: dict[str, tuple[Work, Work]] = {
    "similarity": (our_similarity, plain_similarity),
    "template matching": (our_matching, plain_matching),
    "loss": (our_loss, plain_loss),
}


def make(plain: bool, task: str, setup: Setup, device: str) -> Run:
    work, inputs = WAYS[task][plain], prepare(task, setup, device)

    def run() -> Result:
        result = work(*inputs)
        if device != "cpu":
            torch.cuda.synchronize()
        return result

    return run


def checks(plain: bool, task: str, setup: Setup, device: str) -> Mapping[str, float]:
    run = make(plain, task, setup, device)
    found = {"images per s": setup.batch / time_calls(run).best}
    if device == "cpu":
        found["processor s"] = min(processor_seconds(run) for _ in range(3))
    if not plain:
        pairs = zip(_listed(run()), _listed(make(True, task, setup, device)()), strict=True)
        found["error"] = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
    return found


def _listed(result: object) -> Maps:
    return result if isinstance(result, list) else [result]  # type: ignore[list-item]


def _group(task: str, setup: Setup, device: str, limited: bool) -> list[Case]:
    group = f"{task}, {setup.label()} on {device}"
    sizes = [setup.shape] if task == "template matching" else setup.cells()
    size = FLOAT_BYTES * setup.batch * setup.landmarks * sum(map(prod, sizes))
    return [
        Case(
            f"{group}, {'loop' if plain else 'all at once'}",
            partial(make, plain, task, setup, device),
            group,
            role="plain" if plain else "ours",
            size_bytes=size,
            memory=device == "cpu",
            checks=partial(checks, plain, task, setup, device),
            limits={"error": 1e-4} if limited and not plain else {},
        )
        for plain in (False, True)
    ]


def cases(quick: bool = False, full: bool = False) -> list[Case]:
    """List the rows: a film, a volume, and a batch of the training; ``full`` adds nothing here."""
    film, volume = (
        (Setup((70, 50), 3), Setup((36, 40, 33), 2)) if quick else (Setup((384, 384), 19), Setup((96,) * 3, 10))
    )
    batches = [Setup((64, 50), 2, 2)] if quick else [Setup((384, 384), 1, 8), Setup((96,) * 3, 4, 4)]
    tasks = [*((task, setup) for task in ("similarity", "template matching") for setup in (film, volume))]
    tasks += [("loss", setup) for setup in batches]
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return [row for task, setup in tasks for device in devices for row in _group(task, setup, device, not quick)]
