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
"""Which noisy labels two networks believe: the pure functions of consistency co-teaching (Yin et al. 2022, section 3.3)."""

from __future__ import annotations

import torch
from monai.utils import StrEnum, look_up_option

from ..geometry import LandmarkError
from ..losses import heatmap_squared_error
from .schedules import ramp

__all__ = [
    "RankedAmong",
    "consistency",
    "forget_rate",
    "gaussian_error",
    "label_weights",
    "mean_over_views",
    "select_small",
]


class RankedAmong(StrEnum):
    """With which others an entry of a batch is compared."""

    RELATIVE = "relative"
    BATCH = "batch"
    LANDMARK = "landmark"


def forget_rate(epoch: float, highest: float = 0.8, ramp_epochs: float = 30) -> float:
    """Give the share of noisy labels that are left out after so many epochs: a straight rise from 0, then constant.

    As published (section 4.2: "in the first 30 epochs, filter rate ramps from 0.0 to 0.8"). The public code has
    ``min(0.8, epoch / 30)``, which is there after 24 epochs. Algorithm 1 reads as if the rate were the share that is *kept*;
    the code leaves that share out, and so does this.

    Args:
        epoch: epochs that are over: 0 in the first.
        highest: share after the ramp, in [0, 1): 1 would leave nothing to learn from.
        ramp_epochs: length of the rise; 0 begins with ``highest``.

    Raises:
        LandmarkError: for a share outside [0, 1).
        ValueError: for a negative length.

    Example:
        >>> [round(forget_rate(epoch), 2) for epoch in (0, 15, 30, 90)]
        [0.0, 0.4, 0.8, 0.8]
    """
    if not 0 <= highest < 1:
        raise LandmarkError(
            f"the forget rate must lie in [0, 1), got {highest}: it is the share of noisy labels that are left out. 0 keeps "
            "all; 1 would leave none to learn from. About the share of wrong labels is a good choice."
        )
    return highest * ramp(epoch, ramp_epochs, "linear")


def gaussian_error(heatmaps: torch.Tensor, points: torch.Tensor, sigma: float = 3.0) -> torch.Tensor:
    r"""Mean squared difference of each map to a Gaussian of peak 1 at its label (eq. 17 for one landmark).

    Args:
        heatmaps: ``(B, N, *S)``; half precision is compared in float32.
        points: ``(B, N, D)`` voxels, NaN for missing.
        sigma: width of the Gaussian in voxels, the paper's 3.

    Returns:
        ``(B, N)``, 0 for a missing landmark.

    Example:
        >>> gaussian_error(torch.zeros(1, 2, 5, 5), torch.tensor([[[2.0, 2.0], [float("nan")] * 2]]), sigma=0.1)
        tensor([[0.0400, 0.0000]])
    """
    return heatmap_squared_error(heatmaps, points, sigma) / heatmaps.shape[2:].numel()


def consistency(ours: torch.Tensor, theirs: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    r"""Mean squared difference of two predictions of each sample and landmark, where both views show the anatomy.

    Equations 18 and 20: ``ours`` is the prediction on the strong view, ``theirs`` that on the weak view, carried to the
    strong view by the map between them. The public code takes one mean over the whole batch for eq. 18; added to every
    entry alike it cannot change their order. The paper's norm is not averaged.

    Args:
        ours: ``(B, N, *S)``; half precision is compared in float32.
        theirs: the same shape.
        seen: ``(B, 1, *S)`` bool, false where a voxel comes from outside the weak view.

    Returns:
        ``(B, N)``, 0 where nothing is seen.

    Example:
        >>> seen = torch.tensor([1, 1, 0, 0]).bool().reshape(1, 1, 2, 2)
        >>> consistency(torch.tensor([[[[1.0, 2.0], [9.0, 9.0]]]]), torch.zeros(1, 1, 2, 2), seen)
        tensor([[2.5000]])
    """
    dtype = torch.promote_types(ours.dtype, torch.float32)
    difference = (ours.to(dtype) - theirs.to(dtype)).masked_fill(~seen, 0)
    voxels = seen.flatten(1).sum(dim=1, keepdim=True).clamp(min=1)
    return difference.square().flatten(2).sum(dim=-1) / voxels


def mean_over_views(errors: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Average the errors of the views in which a label lies in the image.

    Where a strong view has turned a label out of the image nothing can be said about it; its target there is almost
    empty, and a network that predicts nothing would seem to agree.

    Args:
        errors: ``(V * B, N)``, one view after the other.
        shown: ``(V, B, N)`` bool, whether a view shows the label.

    Returns:
        ``(B, N)``, 0 for a label that no view shows.

    Example:
        >>> mean_over_views(torch.tensor([[0.5], [0.1]]), torch.tensor([[[True]], [[False]]]))
        tensor([[0.5000]])
    """
    return (errors.reshape(shown.shape) * shown).sum(dim=0) / shown.sum(dim=0).clamp(min=1)


def select_small(
    values: torch.Tensor, ranked: torch.Tensor, rate: float, among: str = RankedAmong.RELATIVE
) -> torch.Tensor:
    """Choose the entries of smallest value: all but the share ``rate`` of those that are ranked, rounded up.

    Args:
        values: ``(B, N)``, one for each sample and landmark, none negative.
        ranked: ``(B, N)`` bool: which take part.
        rate: share to leave out, in [0, 1).
        among: "batch" ranks all entries of the batch together, as published: a landmark that is difficult on every image
            is left out on every image, and a network that does not know it yet never learns it
            (``benchmarks/planted_noise.py``). "relative" ranks them together as multiples of the mean of their landmark in
            the batch: left out is what stands out for its landmark; a batch of one image is ranked as it is. "landmark"
            ranks each landmark by itself: as many of it are kept as of any other, whichever has more wrong labels.

    Returns:
        ``(B, N)`` bool, false for entries that are not ranked. At least one of a group with ranked entries is chosen; of
        equal values those that come first.

    Raises:
        LandmarkError: for a rate outside [0, 1).
        ValueError: for an unknown ``among``.

    Example:
        >>> values = torch.tensor([[0.1, 0.9], [0.3, 0.7]])
        >>> select_small(values, torch.ones(2, 2, dtype=torch.bool), 0.5)
        tensor([[ True, False],
                [False,  True]])
        >>> select_small(values, torch.ones(2, 2, dtype=torch.bool), 0.5, among="batch")
        tensor([[ True, False],
                [ True, False]])
        >>> select_small(values, torch.ones(2, 2, dtype=torch.bool), 0.5, among="landmark")
        tensor([[ True, False],
                [False,  True]])
    """
    forget_rate(0, rate)  # refuses a rate that is none
    option = look_up_option(among, RankedAmong)
    if option == RankedAmong.RELATIVE and len(values) > 1:
        mean = (values * ranked).sum(dim=0) / ranked.sum(dim=0).clamp(min=1)
        values = values / torch.where(mean > 0, mean, 1)
    groups = values.masked_fill(~ranked, torch.inf)
    groups = groups if option == RankedAmong.LANDMARK else groups.reshape(-1, 1)
    places = groups.argsort(dim=0, stable=True).argsort(dim=0)
    # 0.3 * 10 is a little more than 3 in floating point.
    count = ranked.reshape(groups.shape).sum(dim=0, keepdim=True)
    wanted = ((1 - rate) * count.double() - 1e-9).ceil()
    return (places < wanted).reshape(values.shape) & ranked


def label_weights(kept: torch.Tensor, true: torch.Tensor, usable: torch.Tensor) -> torch.Tensor:
    """Give the weights with which a loss learns from the chosen entries and from all true labels, and from no other.

    They are equal and add up to the number of usable entries: a mean over all of them is then a mean over those kept, and
    the loss keeps its size beside the consistency while fewer are kept.

    Args:
        kept: ``(B, N)`` bool, noisy labels that were chosen.
        true: ``(B, N)`` bool, labels that were set by a person.
        usable: ``(B, N)`` bool, labels that are not missing.

    Returns:
        ``(B, N)`` float32.

    Example:
        >>> row = torch.tensor([[1, 0, 0, 0]]).bool()
        >>> label_weights(row, row.roll(1), torch.tensor([[1, 1, 1, 0]]).bool())
        tensor([[1.5000, 1.5000, 0.0000, 0.0000]])
    """
    learnt = (kept | true) & usable
    return learnt * (usable.sum() / learnt.sum().clamp(min=1))
