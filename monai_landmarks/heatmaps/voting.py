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
"""From a disc of votes per landmark to a heatmap, and to a point: regression voting without a loop over landmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import torch
from monai.utils import StrEnum, look_up_option

from ..geometry import LandmarkError, plain_tensor
from .dark import smoothing_radius
from .decode import DecodeMethod, decode_heatmaps
from .peaks import Decoded

__all__ = ["VoteWeighting", "ball_volume", "decode_offset_votes", "split_voting_maps", "vote_heatmaps"]


class VoteWeighting(StrEnum):
    """How much a vote counts: as much as the heatmap's probability at the voxel that casts it, or all alike."""

    PROBABILITY = "probability"
    UNIFORM = "uniform"


def ball_volume(radius: float, dims: int) -> float:
    r"""Give :math:`\pi^{D/2} R^D / \Gamma(D/2 + 1)`: the area of a disc, the volume of a ball.

    Example:
        >>> round(ball_volume(19.0, 2)), round(ball_volume(5.0, 3))
        (1134, 524)
    """
    return math.pi ** (dims / 2) * radius**dims / math.gamma(dims / 2 + 1)


def split_voting_maps(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tell heatmaps from offsets in what a :class:`~monai_landmarks.networks.VotingUNet` puts out in training.

    Args:
        maps: ``(B, (1 + D) * N, *S)``: N heatmap logits, then N offsets along the first axis, then the second, ...

    Returns:
        logits ``(B, N, *S)`` and offsets ``(B, D, N, *S)``, views.

    Raises:
        LandmarkError: if the channels are not a multiple of ``1 + D``.

    Example:
        >>> logits, offsets = split_voting_maps(torch.zeros(2, 15, 8, 9))
        >>> logits.shape, offsets.shape
        (torch.Size([2, 5, 8, 9]), torch.Size([2, 2, 5, 8, 9]))
    """
    maps = plain_tensor(maps)
    dims = maps.ndim - 2
    if dims not in (2, 3) or maps.shape[1] % (1 + dims):
        raise LandmarkError(
            f"voting maps must be (B, (1 + D) * N, *S): a heatmap and {max(dims, 2)} offsets for each landmark, got "
            f"{tuple(maps.shape)}. In evaluation mode VotingUNet returns the finished vote maps (B, N, *S), which "
            "decode_heatmaps reads; its method `maps` gives what is expected here in either mode."
        )
    landmarks = maps.shape[1] // (1 + dims)
    return maps[:, :landmarks], maps[:, landmarks:].unflatten(1, (dims, landmarks))


def vote_heatmaps(
    maps: torch.Tensor,
    radius: float = 19.2,
    num_votes: int | None = None,
    weighting: str = VoteWeighting.PROBABILITY,
    smoothing: float = 2.0,
) -> torch.Tensor:
    r"""Let the voxels of highest probability vote where their landmark is, and count the votes at every place.

    A voxel at :math:`x` whose offset map says :math:`o` votes for :math:`x + R\,o`. The map counts, as a share of all
    votes, those around each voxel,

    .. math:: v_i(y) = \frac{1}{k} \sum_{x \in \mathrm{top}_k} w(x)\, G_\sigma\left(y - x - R\,o_i(x)\right)

    with the heatmap's probability :math:`w`, or 1, and a Gaussian :math:`G` of peak 1 (applied to votes that were first
    shared linearly among the voxels around them). So a peak is near 1 where all votes agree, and is confidence as well as
    place: votes spread with a width :math:`s` on each of D axes leave :math:`(1 + s^2 / \sigma^2)^{-D/2}`. Of a landmark
    near the border only a part of the disc is in the image; that part still votes for the right place, right up to half a
    voxel outside, but is a part of the votes only. Votes for places beyond the image count as far as their Gaussian
    reaches into it.

    Differences from the public code (the paper gives no formula): there all votes count alike (``weighting="uniform"``),
    also those from outside the disc, whose offsets were never trained and of which there are many where the border cuts
    the disc; and a landmark that no heatmap shows has a full count. There each vote is truncated towards its voxel, ``x +
    int(R o)``, so that places are whole and an offset of less than a voxel is none; votes are not smoothed
    (``smoothing=0``).

    All landmarks of the batch vote at once; no loop but over the ``2 ** D`` voxels around a vote. Computed in float32 or
    better, also under autocast; gradients flow to the offsets that voted (and with "probability" to the logits).

    Args:
        maps: ``(B, (1 + D) * N, *S)``, see :func:`split_voting_maps`; offsets in units of ``radius``.
        radius: R in voxels, the one that the network was trained with (0.05 of the longest side in the paper, 19.2 of 384).
        num_votes: k; None takes the number of voxels of a whole disc or ball, as published.
        weighting: "probability": a vote counts as much as the heatmap at the voxel that casts it, so that the map tells a
            landmark that is not there; "uniform", as published: all count 1.
        smoothing: :math:`\sigma` in voxels; 0 for none. About what a peak needs to be decoded between voxels: the mode of
            votes that all say the same lies within 0.022 voxel of it for 2.

    Returns:
        ``(B, N, *S)``, in [0, 1]. Votes of NaN and infinite coordinates are dropped.

    Raises:
        LandmarkError: for a wrong shape, ``radius`` or ``num_votes`` that is not positive, or a negative ``smoothing``.
        ValueError: for an unknown ``weighting``.

    Example:
        >>> from monai_landmarks.heatmaps import decode_heatmaps
        >>> grid = torch.stack(torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij"))
        >>> offset = (torch.tensor([1.25, 20.5])[:, None, None] - grid) / 6.0  # near the upper border
        >>> logit = torch.where(offset.square().sum(dim=0) < 1, 9.0, -9.0)
        >>> votes = vote_heatmaps(torch.cat([logit[None], offset])[None], radius=6.0)
        >>> [round(x, 1) for x in decode_heatmaps(votes).points[0, 0].tolist()]
        [1.2, 20.5]
    """
    weighting = look_up_option(weighting, VoteWeighting)
    logits, offsets = split_voting_maps(maps)
    shape = tuple(logits.shape[2:])
    check_radius(radius)
    wanted = round(ball_volume(radius, len(shape))) if num_votes is None else num_votes
    if wanted < 1:
        raise LandmarkError(f"`num_votes` must be at least 1, got {wanted} (for `radius` {radius:g}).")
    reach = smoothing_radius(smoothing)
    top, index = logits.flatten(2).topk(min(wanted, math.prod(shape)), dim=-1, sorted=False)
    dtype = torch.promote_types(offsets.dtype, torch.float32)
    weight = top.to(dtype).sigmoid() if weighting == VoteWeighting.PROBABILITY else torch.ones_like(top, dtype=dtype)
    steps = offsets.flatten(3).gather(-1, index.unsqueeze(1).expand(-1, len(shape), -1, -1)).to(dtype)
    places: list[torch.Tensor] = []
    rest = index
    for axis in range(len(shape) - 1, -1, -1):
        places.insert(0, rest % shape[axis] + radius * steps[:, axis] + reach)
        rest = rest // shape[axis]
    votes = _share(places, weight / index.shape[-1], [size + 2 * reach for size in shape])
    return _smooth(votes, smoothing) if reach else votes


def check_radius(radius: float) -> None:
    """Refuse a disc that could hold no voxel at all."""
    if not 1 <= radius < math.inf:
        raise LandmarkError(
            f"`radius` must be at least 1 and finite, got {radius}: it is in voxels, not a share of the image's size."
        )


def _share(places: Sequence[torch.Tensor], weight: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Add weights ``(B, N, k)`` up at places (one such for each axis), shared linearly; ``(B, N, *shape)``."""
    below, above = [], []
    for place, size in zip(places, shape, strict=True):
        place = place.nan_to_num(-2.0).clamp(-2, size + 1)  # both neighbours of these ends are outside
        floor = place.detach().floor()
        part = place - floor
        below.append(_neighbour(floor.long(), 1 - part, size))
        above.append(_neighbour(floor.long() + 1, part, size))
    total = weight.new_zeros(*weight.shape[:2], math.prod(shape))
    for corner in product(*zip(below, above, strict=True)):
        index, share = torch.zeros_like(corner[0][0]), weight
        for (position, part), size in zip(corner, shape, strict=True):
            index, share = index * size + position, share * part
        total.scatter_add_(-1, index, share)
    return total.unflatten(-1, tuple(shape))


def _neighbour(position: torch.Tensor, part: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    outside = (position < 0) | (position >= size)
    return position.clamp(0, size - 1), part.masked_fill(outside, 0)


def _smooth(votes: torch.Tensor, sigma: float) -> torch.Tensor:
    """Convolve with a Gaussian of peak 1 and take its reach off every border."""
    reach = smoothing_radius(sigma)
    for axis in range(2, votes.ndim):  # sums of shifted maps: ten times faster on a CPU than torch's convolution
        size = votes.shape[axis] - 2 * reach
        total = votes.narrow(axis, reach, size).clone()
        for step in range(1, reach + 1):
            height = math.exp(-0.5 * (step / sigma) ** 2)
            total.add_(votes.narrow(axis, reach - step, size), alpha=height)
            total.add_(votes.narrow(axis, reach + step, size), alpha=height)
        votes = total
    return votes


def decode_offset_votes(
    maps: torch.Tensor,
    radius: float = 19.2,
    num_votes: int | None = None,
    weighting: str = VoteWeighting.PROBABILITY,
    smoothing: float = 2.0,
    method: DecodeMethod | str = DecodeMethod.DARK,
) -> Decoded:
    """Find the one place of each landmark for which most voxels vote: :func:`vote_heatmaps`, then its peak.

    Args:
        maps: ``(B, (1 + D) * N, *S)``, see :func:`split_voting_maps`.
        radius: in voxels, see :func:`vote_heatmaps` for this and the next three.
        num_votes: of each landmark.
        weighting: "probability" or "uniform".
        smoothing: in voxels.
        method: of :func:`~monai_landmarks.heatmaps.decode_heatmaps`, for the peak between voxels.

    Returns:
        :class:`Decoded`: points ``(B, N, D)`` in voxels, and as confidence ``(B, N)`` the share of votes that agree.

    Raises:
        LandmarkError: as :func:`vote_heatmaps`.
        ValueError: for an unknown ``weighting`` or ``method``.

    Example:
        >>> maps = torch.zeros(1, 4, 9, 9, 9)
        >>> maps[0, :, 4, 5, 6] = torch.tensor([3.0, 0.5, 0.0, -0.5])  # one voxel votes one up on the first axis, ...
        >>> points, confidence = decode_offset_votes(maps, radius=2.0, num_votes=1)
        >>> points
        tensor([[[5., 5., 5.]]])
    """
    return decode_heatmaps(vote_heatmaps(maps, radius, num_votes, weighting, smoothing), method)
