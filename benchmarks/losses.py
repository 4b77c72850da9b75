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
"""Heatmap losses, forward and backward: targets built inside against dense targets and autograd."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod

import torch
from torch.nn import functional as F

from monai_landmarks.losses import (
    AdaptiveWingLoss,
    ExponentialWeightedCenterLoss,
    HeatmapBCELoss,
    HeatmapL1Loss,
    HeatmapL2Loss,
    HeatmapMSELoss,
    HeatmapSmoothL1Loss,
)

from .targets import FLOAT_BYTES, SIGMA, dense_gaussians, random_points, squared_distance
from .timing import Case, Run

__all__ = ["TITLE", "cases"]

TITLE = (
    "Heatmap losses, forward and backward (size: the given maps; their gradient is one size; error: largest difference "
    "of gradients to the formula, relative)"
)
#: One tensor of the maps' size; the rest is for 1D factors and the interpreter.
MEMORY_RATIO = 1.1
#: Two of them: what is not a squared error needs value and derivative of every voxel at once.
POINTWISE_RATIO = 2.1
Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Pointwise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def ours(learnable: bool, heatmaps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    loss = HeatmapL2Loss(points.shape[1], points.shape[2], SIGMA, gamma=None, alpha=0.0, learnable=learnable)
    loss(heatmaps, points).backward()
    return _take_gradient(heatmaps)


def dense(heatmaps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    target = dense_gaussians(points, tuple(heatmaps.shape[2:]))
    (F.mse_loss(heatmaps, target, reduction="sum") / len(heatmaps)).backward()
    return _take_gradient(heatmaps)


def dense_learnable(heatmaps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The same with a width for each landmark whose gradient autograd finds."""
    dims = points.shape[2]
    sigma = torch.full((points.shape[1], *[1] * dims), SIGMA, requires_grad=True)
    target = torch.exp(-squared_distance(points, tuple(heatmaps.shape[2:])) / (2 * sigma.square()))
    (F.mse_loss(heatmaps, target, reduction="sum") / len(heatmaps)).backward()
    return _take_gradient(heatmaps)


def ours_entropy(logits: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    HeatmapBCELoss(SIGMA)(logits, points).backward()
    return _take_gradient(logits)


def dense_entropy(logits: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    target = dense_gaussians(points, tuple(logits.shape[2:]))
    F.binary_cross_entropy_with_logits(logits, target, reduction="sum").backward()
    return _take_gradient(logits)


def ours_regression(loss: torch.nn.Module, heatmaps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    loss(heatmaps, points).backward()
    return _take_gradient(heatmaps)


def dense_regression(formula: Pointwise, heatmaps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    formula(heatmaps, dense_gaussians(points, tuple(heatmaps.shape[2:]))).mean().backward()
    return _take_gradient(heatmaps)


def weighted_center(heatmaps: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """FARNet eq. 3 as written, with its weight of 40."""
    return (heatmaps - target).square() * 40**target


def adaptive_wing(heatmaps: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Both cases of Wang et al. 2019 at every voxel, then a choice; its constants are 14, 0.5, 1 and 2.1."""
    size, power = (heatmaps - target).abs(), 2.1 - target
    a = 14 / (1 + 0.5**power) * power * 0.5 ** (power - 1)
    c = 0.5 * a - 14 * torch.log(1 + 0.5**power)
    return torch.where(size < 0.5, 14 * torch.log(1 + size**power), a * size - c)


def _take_gradient(heatmaps: torch.Tensor) -> torch.Tensor:
    """Take the gradient off the maps, so that the next step does not add to it."""
    gradient = heatmaps.grad
    assert gradient is not None
    heatmaps.grad = None
    return gradient


def make(step: Step, landmarks: int, shape: tuple[int, ...]) -> Run:
    generator = torch.Generator().manual_seed(0)
    heatmaps = torch.rand(1, landmarks, *shape, generator=generator).requires_grad_()
    return partial(step, heatmaps, random_points(1, landmarks, shape))


def error(step: Step, plain: Step, shape: tuple[int, ...]) -> Mapping[str, float]:
    """Compare the gradient with that of the plain formula in float64."""
    run = make(step, 3, shape)
    heatmaps, points = run.args[-2:]  # type: ignore[attr-defined]
    expected = plain(heatmaps.detach().double().requires_grad_(), points.double())
    difference = (step(heatmaps, points) - expected).abs().max() / expected.abs().max()
    return {"error": difference.item()}


def _rows() -> list[tuple[str, str, Step, str, float | None]]:
    """Kind, name, step and role of each row, and the memory it may take; the plain formula follows ours."""
    rows: list[tuple[str, str, Step, str, float | None]] = [
        ("fixed", "HeatmapL2Loss, fixed sigma", partial(ours, False), "ours", MEMORY_RATIO),
        ("fixed", "dense target, summed mse_loss", dense, "plain", None),
        ("learnt", "HeatmapL2Loss, learnt sigma", partial(ours, True), "ours", MEMORY_RATIO),
        ("learnt", "dense target, learnt by autograd", dense_learnable, "plain", None),
        ("entropy", "HeatmapBCELoss", ours_entropy, "ours", MEMORY_RATIO),
        ("entropy", "dense target + binary_cross_entropy_with_logits", dense_entropy, "plain", None),
    ]
    regression: list[tuple[str, torch.nn.Module, str, Pointwise, float | None]] = [
        ("EWC", ExponentialWeightedCenterLoss(40.0, SIGMA), "EWC as printed", weighted_center, POINTWISE_RATIO),
        ("adaptive wing", AdaptiveWingLoss(sigma=SIGMA), "adaptive wing as printed", adaptive_wing, None),
        ("smooth L1", HeatmapSmoothL1Loss(sigma=SIGMA), "smooth_l1_loss", F.smooth_l1_loss, POINTWISE_RATIO),
        ("L1", HeatmapL1Loss(SIGMA), "l1_loss", F.l1_loss, POINTWISE_RATIO),
        ("MSE", HeatmapMSELoss(SIGMA), "mse_loss", F.mse_loss, POINTWISE_RATIO),
    ]
    for kind, loss, name, formula, limit in regression:
        rows.append((kind, type(loss).__name__, partial(ours_regression, loss), "ours", limit))
        rows.append((kind, f"dense target + {name}", partial(dense_regression, formula), "plain", None))
    return rows


def _group(landmarks: int, shape: tuple[int, ...], limited: bool) -> list[Case]:
    label = f"{landmarks} at {'x'.join(map(str, shape))}"
    size = FLOAT_BYTES * landmarks * prod(shape)
    small = tuple(min(s, 40) for s in shape)
    rows = _rows()
    plain = {kind: step for kind, _, step, role, _ in rows if role == "plain"}
    return [
        Case(
            f"{label}, {name}",
            partial(make, step, landmarks, shape),
            group=f"{label}, {kind}",
            role=role,
            size_bytes=size,
            checks=partial(error, step, plain[kind], small),
            limits={"memory_ratio": limit} if limited and limit else {},
        )
        for kind, name, step, role, limit in rows
    ]


def cases(quick: bool = False, full: bool = False) -> list[Case]:
    """List the rows; ``full`` adds nothing here."""
    if quick:
        return [*_group(19, (64, 64), False), *_group(4, (24, 24, 32), False)]
    return [*_group(19, (512, 512), True), *_group(26, (96, 96, 192), True)]
