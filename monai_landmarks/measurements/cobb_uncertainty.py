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
"""How uncertain landmarks make Cobb angles uncertain: to first order, and by drawing landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from monai_landmarks.data.datasets.aasce import AASCE_LANDMARKS
from monai_landmarks.geometry import LandmarkError

from .cobb import cobb_angles, cobb_curves, corner_places, edge_vectors, floating_points

__all__ = ["cobb_uncertainty", "sample_cobb_angles"]


def cobb_uncertainty(
    points: Any, sd: Any, names: Sequence[str] = AASCE_LANDMARKS, film_height: Any = None
) -> torch.Tensor:
    r"""Give the standard deviation of the three Cobb angles that independent errors of the corners cause, to first order.

    A tilt is that of the vector ``v`` between the middles of two edges (:func:`cobb_curves`); with the unit normal ``n``
    of ``v`` and the standard deviations of the four corners along the axes,

    .. math:: \operatorname{var} \theta = \frac{1}{4 |v|^2} \sum_{c=1}^{4} \sum_d n_d^2 \, sd_{c,d}^2, \qquad
              \operatorname{var} \alpha_{ij} = \operatorname{var} \theta_i + \operatorname{var} \theta_j .

    For equal errors this is ``sd / |v|`` for a tilt: 1 mm at vertebrae 40 mm wide makes 1.4 degrees for a tilt and 2.0 for
    an angle. The end vertebrae are held fixed. Where neighbours are nearly as tilted as they are, other vertebrae may take
    their place: the main angle, a maximum, gets larger on average and its spread smaller than said here.
    :func:`sample_cobb_angles` includes that.

    Args:
        points: corners ``(..., N, 2)``.
        sd: standard deviation of the corners, in the unit of the points: a number or anything that broadcasts to
            ``points``, such as ``(N, 1)`` for one number per corner or ``(..., N, 2)`` for one per axis.
        names: of the ``N`` landmarks.
        film_height: see :func:`cobb_curves`.

    Returns:
        degrees ``(..., 3)``. NaN where the angle is, and where there is no curve (both ends are one vertebra): the angle is
        0 there, at a kink that has no first order.

    Raises:
        LandmarkError: for a standard deviation that is negative or does not fit, and as :func:`cobb_curves`.

    Example:
        >>> names = [f"{v}_{c}" for v in ("L1", "L2") for c in ("top_left", "top_right", "bottom_left", "bottom_right")]
        >>> level, tilted = [(0, 0), (2, 0), (0, 1), (2, 1)], [(0, 2), (2, 4), (-1, 3), (1, 5)]
        >>> cobb_uncertainty(torch.tensor(level + tilted), 0.01, names)[0].item()  # degrees
        0.3508...
    """
    tensor, spread = _points_and_spread(points, sd)
    curves = cobb_curves(tensor, names, film_height)
    _, index = corner_places(tuple(names))
    vectors = edge_vectors(tensor[..., index.to(tensor.device), :])
    # n / |v|, of which only squares matter: (v_y, v_x) / |v|^2.
    slope = vectors.flip(-1) / vectors.square().sum(-1, keepdim=True)
    variance = (slope.square() * spread[..., index.to(tensor.device), :].square().sum(-2)).sum(-1) / 4
    present = (curves.ends[..., 0] >= 0) & (curves.ends[..., 0] != curves.ends[..., 1])
    pairs = [variance.gather(-1, curves.ends[..., end].clamp_min(0)) for end in (0, 1)]
    return torch.where(present, torch.rad2deg((pairs[0] + pairs[1]).sqrt()), torch.nan)


def sample_cobb_angles(
    points: Any,
    sd: Any,
    draws: int = 1000,
    names: Sequence[str] = AASCE_LANDMARKS,
    film_height: Any = None,
    seed: int = 0,
) -> torch.Tensor:
    """Draw spines whose corners have independent normal errors, and measure each: the whole distribution of the angles.

    End vertebrae, shape and half are decided anew for every draw, as they would be by a reader who clicked there. The mean
    less the angle is the bias that noise brings, ``std`` the uncertainty, quantiles an interval.

    Args:
        points: corners ``(..., N, 2)``.
        sd: standard deviation of the corners, see :func:`cobb_uncertainty`.
        draws: how many.
        names: of the ``N`` landmarks.
        film_height: see :func:`cobb_curves`.
        seed: of the draws.

    Returns:
        degrees ``(draws, ..., 3)``.

    Raises:
        ValueError: for less than one draw.
        LandmarkError: as :func:`cobb_uncertainty`.

    Example:
        >>> from monai_landmarks.data.phantoms.spine_xray import spine_xray_phantom
        >>> film, points, angles = spine_xray_phantom(seed=3, reduction=16)
        >>> sample_cobb_angles(points * film.shape[::-1], 0.1, draws=5).shape
        torch.Size([5, 3])
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}.")
    tensor, spread = _points_and_spread(points, sd)
    # On the CPU, so that a seed gives the same draws on every device.
    noise = torch.randn(draws, *tensor.shape, dtype=tensor.dtype, generator=torch.Generator().manual_seed(seed))
    return cobb_angles(tensor + noise.to(tensor.device) * spread, names, film_height)


def _points_and_spread(points: Any, sd: Any) -> tuple[torch.Tensor, torch.Tensor]:
    tensor = floating_points(points)
    spread = floating_points(sd).to(tensor)
    if not bool((spread >= 0).all()):
        raise LandmarkError("`sd` must hold standard deviations, in the unit of the points; some are negative or NaN.")
    try:
        return tensor, spread.expand(tensor.shape)
    except RuntimeError:
        raise LandmarkError(
            f"`sd` must be a number or fit `points` {tuple(tensor.shape)}, got {tuple(spread.shape)}: one number per corner "
            "needs a last axis of size one, `sd[..., None]`."
        ) from None
