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
"""Cobb angles of a spine from the corners of its vertebrae, by the rules of the AASCE 2019 challenge."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from monai_landmarks.data.datasets.aasce import AASCE_LANDMARKS, CORNERS
from monai_landmarks.data.datasets.vertebrae import vertebra_name
from monai_landmarks.geometry import LandmarkError, check_points, plain_tensor

__all__ = ["COBB_ANGLES", "CobbCurves", "cobb_angle_between", "cobb_angles", "cobb_curves"]

COBB_ANGLES = ("main_thoracic", "proximal", "distal")
"""The three angles in the challenge's order, which is that of ``angles.csv``; the first is the largest, wherever it lies."""

TIE_DEG = 1e-4
"""Angles that differ by less are equal, and the uppermost curve is taken; the rounding of float32 is ten times smaller."""

_REGIONS = "CTLS"


@dataclass(frozen=True)
class CobbCurves:
    """Three Cobb angles and where they are measured, so that they can be drawn and checked.

    Args:
        angles: ``(..., 3)`` degrees, 0 to 180, in the order of ``COBB_ANGLES``; NaN where a corner is missing.
        ends: ``(..., 3, 2)`` int64, upper and lower end vertebra of each angle as places in ``vertebrae``; -1 where the
            angle is NaN. Twice the same vertebra: there is no curve, and the angle is 0.
        s_shaped: ``(...)`` bool: the spine crosses the line from its upper to its lower end.
        vertebrae: names from the head down.
    """

    angles: torch.Tensor
    ends: torch.Tensor
    s_shaped: torch.Tensor
    vertebrae: tuple[str, ...]


def cobb_angles(points: Any, names: Sequence[str] = AASCE_LANDMARKS, film_height: Any = None) -> torch.Tensor:
    """Measure the main, the proximal and the distal Cobb angle of spines; see :func:`cobb_curves` for all of it.

    Args:
        points: corners ``(..., N, 2)``, array or tensor.
        names: of the ``N`` landmarks.
        film_height: for the challenge's own choice among the smaller curves.

    Returns:
        degrees ``(..., 3)`` in the order of ``COBB_ANGLES``.

    Raises:
        LandmarkError: see :func:`cobb_curves`.

    Example:
        >>> names = [f"{v}_{c}" for v in ("L1", "L2", "L3") for c in CORNERS]
        >>> level, tilted = [(0, 0), (2, 0), (0, 1), (2, 1)], [(0, 2), (2, 4), (-1, 3), (1, 5)]
        >>> cobb_angles(torch.tensor([*level, *tilted, *[(x, y + 7) for x, y in level]]), names).tolist()
        [45.0, 0.0, 45.0]
    """
    return cobb_curves(points, names, film_height).angles


def cobb_curves(points: Any, names: Sequence[str] = AASCE_LANDMARKS, film_height: Any = None) -> CobbCurves:
    r"""Measure three Cobb angles and find the vertebrae that end each curve.

    The tilt of a vertebra is that of the line from the middle of its left to the middle of its right edge, and an angle is
    that between two such lines,

    .. math:: v_i = \tfrac12 (p_{tr} + p_{br} - p_{tl} - p_{bl}), \qquad
              \alpha_{ij} = \operatorname{atan2}(|v_i \times v_j|, v_i \cdot v_j).

    The rules are those by which the challenge made its ``angles.csv`` (Wang et al., Evaluation and comparison of accurate
    automated spinal curvature estimation algorithms, Medical Image Analysis 2021):

    * the main angle is the largest of all, between end vertebrae ``a`` (upper) and ``b`` (lower);
    * where the spine does not cross the line from its upper to its lower end, the other two are those between the first
      vertebra and ``a``, and between ``b`` and the last;
    * where it does (S-shape) and the main curve lies in the upper half, they are the largest one that ends at ``a`` from
      above and the largest that begins at ``b``;
    * where it does and the main curve lies in the lower half, they are the largest one that ends at ``a`` from above, at
      ``c``, and the largest that ends at ``c`` from above. The last of the three is the uppermost then.

    All 481 training films agree with their ``angles.csv`` within 0.1 degrees in all three angles, given ``film_height``.
    The challenge's "half" is that of the film, so that cutting off a film's rim may change an angle. Without
    ``film_height`` it is half the way from the upper to the lower end of the spine: translation, rotation, reflection and
    scale change nothing, and 9 of the 481 films give another third angle.

    Args:
        points: corners ``(..., N, 2)``, array or tensor, x to the right and y downwards **in the same unit** (pixels,
            millimetres, thousandths of the height, but not fractions of width and height). NaN for missing.
        names: of the ``N`` landmarks, such as ``"T1_top_left"``: a vertebra and one of ``top_left``, ``top_right``,
            ``bottom_left``, ``bottom_right``. Other landmarks may stand among them. Vertebrae are taken from the head down.
        film_height: height of the film from y = 0, in the unit of the points, a number or ``(...)``; 1000 for the world of
            ``aasce_datalist``.

    Returns:
        angles, end vertebrae and shape. All three angles depend on every vertebra, since any could end a curve: one missing
        corner makes them NaN. :func:`cobb_angle_between` asks for two vertebrae only.

    Raises:
        LandmarkError: for names without vertebrae or that do not fit the points, an incomplete vertebra, points not in 2D.

    Example:
        >>> from monai_landmarks.data.phantoms.spine_xray import spine_xray_phantom
        >>> film, points, angles = spine_xray_phantom(seed=3, reduction=16)
        >>> curves = cobb_curves(points * film.shape[::-1], film_height=film.shape[0])
        >>> [curves.vertebrae[place] for place in curves.ends[0]], bool((abs(curves.angles.numpy() - angles) < 1e-6).all())
        (['T5', 'T11'], True)
    """
    vertebrae, index = corner_places(tuple(names))
    corners = _corners(points, names, index)
    known = ~torch.isnan(corners).any(dim=-1).any(dim=-1).any(dim=-1)
    corners = torch.where(known[..., None, None, None], corners, 0)
    between = _angles_between(edge_vectors(corners))
    upper, lower = _largest_pair(between)
    s_shaped = _is_s_shaped(corners)
    last = torch.full_like(upper, len(vertebrae) - 1)
    above, below = _largest_of_row(between, upper, -1), _largest_of_row(between, lower, 1)
    topmost = _largest_of_row(between, above, -1)
    in_lower_half = s_shaped & ~_in_upper_half(corners, upper, lower, film_height)
    # Where there is one curve only: from its ends to those of the spine.
    proximal = torch.stack([torch.where(s_shaped, above, 0), upper], dim=-1)
    distal = torch.stack([lower, torch.where(s_shaped, below, last)], dim=-1)
    distal = torch.where(in_lower_half[..., None], torch.stack([topmost, above], dim=-1), distal)
    ends = torch.stack([torch.stack([upper, lower], dim=-1), proximal, distal], dim=-2)
    flat = ends[..., 0] * len(vertebrae) + ends[..., 1]
    angles = between.flatten(-2).gather(-1, flat)
    return CobbCurves(
        angles=torch.where(known[..., None], angles, torch.nan),
        ends=torch.where(known[..., None, None], ends, -1),
        s_shaped=s_shaped & known,
        vertebrae=vertebrae,
    )


def cobb_angle_between(points: Any, upper: str, lower: str, names: Sequence[str] = AASCE_LANDMARKS) -> torch.Tensor:
    """Measure the Cobb angle between two vertebrae that the reader has chosen.

    Args:
        points: corners ``(..., N, 2)`` as for :func:`cobb_curves`.
        upper: name of the upper end vertebra, such as ``"T5"``.
        lower: name of the lower end vertebra.
        names: of the ``N`` landmarks.

    Returns:
        degrees ``(...)``, NaN where one of the eight corners is missing; the other vertebrae do not matter.

    Raises:
        LandmarkError: for a vertebra that the names do not have, and as :func:`cobb_curves`.

    Example:
        >>> names = [f"{v}_{c}" for v in ("L1", "L2") for c in CORNERS]
        >>> level, tilted = [(0, 0), (2, 0), (0, 1), (2, 1)], [(0, 2), (2, 4), (-1, 3), (1, 5)]
        >>> cobb_angle_between(torch.tensor(level + tilted), "L1", "L2", names).item()
        45.0
    """
    vertebrae, index = corner_places(tuple(names))
    unknown = [name for name in (upper, lower) if vertebra_name(name) not in vertebrae]
    if unknown:
        raise LandmarkError(f"no vertebra {unknown[0]!r} among the landmarks; there are {', '.join(vertebrae)}.")
    rows = index[[vertebrae.index(vertebra_name(name)) for name in (upper, lower)]]
    return _angles_between(edge_vectors(_corners(points, names, rows)))[..., 0, 1]


@lru_cache(maxsize=32)
def corner_places(names: tuple[str, ...]) -> tuple[tuple[str, ...], torch.Tensor]:
    """Find the vertebrae among names, from the head down, and the places ``(V, 4)`` of their corners."""
    found: dict[str, dict[str, int]] = {}
    for place, name in enumerate(names):
        match = re.fullmatch(rf"(.+?)[ _-]({'|'.join(CORNERS)})", name)
        vertebra = vertebra_name(match[1]) if match else ""
        if match is None or not re.fullmatch(rf"[{_REGIONS}]\d+", vertebra):
            continue
        if match[2] in found.setdefault(vertebra, {}):
            raise LandmarkError(f"the names hold {vertebra}_{match[2]} twice; each corner may stand once.")
        found[vertebra][match[2]] = place
    if len(found) < 2:
        raise LandmarkError(
            f"Cobb angles need the corners of at least two vertebrae, named such as 'T1_top_left', and these {len(names)} "
            f"names have {len(found)}: {', '.join(map(repr, names[:3]))} ... Is this another set of landmarks?"
        )
    for vertebra, corners in found.items():
        absent = [corner for corner in CORNERS if corner not in corners]
        if absent:
            raise LandmarkError(
                f"the names have no {', '.join(f'{vertebra}_{corner}' for corner in absent)}: the tilt of a vertebra needs "
                "its four corners. Keep a missing corner's name and give NaN for its point."
            )
    ordered = sorted(found, key=lambda name: (_REGIONS.index(name[0]), int(name[1:])))
    return tuple(ordered), torch.tensor([[found[vertebra][corner] for corner in CORNERS] for vertebra in ordered])


def floating_points(points: Any) -> torch.Tensor:
    """Turn an array or tensor into a plain tensor of at least float32."""
    if not isinstance(points, torch.Tensor):
        points = np.require(points, requirements="W")  # what read_landmarks gives is read-only, and torch warns of it
    tensor = plain_tensor(torch.as_tensor(points))
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _corners(points: Any, names: Sequence[str], index: torch.Tensor) -> torch.Tensor:
    """Corners ``(..., V, 4, 2)``, at least float32."""
    tensor = floating_points(points)
    check_points(tensor, spatial_dims=2)
    if tensor.shape[-2] != len(names):
        raise LandmarkError(
            f"there are {tensor.shape[-2]} points and {len(names)} names: give the names of these points, in their order."
        )
    return tensor[..., index.to(tensor.device), :]


def edge_vectors(corners: torch.Tensor) -> torch.Tensor:
    """From the middle of the left to the middle of the right edge, ``(..., V, 2)``."""
    return (corners[..., 1, :] + corners[..., 3, :] - corners[..., 0, :] - corners[..., 2, :]) / 2


def _cross(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _angles_between(vectors: torch.Tensor) -> torch.Tensor:
    """Degrees ``(..., V, V)``, exact near 0, where an inverse cosine is not."""
    a, b = vectors.unsqueeze(-2), vectors.unsqueeze(-3)
    return torch.rad2deg(torch.atan2(_cross(a, b).abs(), (a * b).sum(-1)))


def _first_largest(values: torch.Tensor) -> torch.Tensor:
    """Place of the first of the largest values on the last axis, equal ones up to rounding."""
    places = torch.arange(values.shape[-1], device=values.device)
    return torch.where(values >= values.amax(-1, keepdim=True) - TIE_DEG, places, values.shape[-1]).amin(-1)


def _largest_pair(between: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    flat = _first_largest(between.flatten(-2))
    count = between.shape[-1]
    return torch.div(flat, count, rounding_mode="floor"), flat % count


def _largest_of_row(between: torch.Tensor, row: torch.Tensor, direction: int) -> torch.Tensor:
    """The vertebra at or above (-1), at or below (1) vertebra ``row`` that makes the largest angle with it."""
    count = between.shape[-1]
    values = between.gather(-2, row[..., None, None].expand(*row.shape, 1, count)).squeeze(-2)
    places = torch.arange(count, device=row.device)
    return _first_largest(torch.where(direction * (places - row[..., None]) >= 0, values, -1))


def _is_s_shaped(corners: torch.Tensor) -> torch.Tensor:
    """Tell whether the middles of the end plates lie on both sides of the line from the first to the last of them."""
    plates = corners.unflatten(-2, (2, 2)).mean(dim=-2).flatten(-3, -2)
    # The challenge leaves out the upper plate of the last vertebra.
    side = _cross(plates[..., -1:, :] - plates[..., :1, :], plates[..., 1:-2, :] - plates[..., :1, :])
    return (side > 0).any(dim=-1) & (side < 0).any(dim=-1)


def _in_upper_half(corners: torch.Tensor, upper: torch.Tensor, lower: torch.Tensor, film_height: Any) -> torch.Tensor:
    """Tell whether the middle between two end vertebrae lies in the upper half of the film, or of the spine."""
    if film_height is not None:
        # The challenge takes the lower end plates.
        depth, whole = corners[..., 2:, 1].mean(-1), torch.as_tensor(film_height).to(corners)
    else:
        first, last = corners[..., 0, :2, :].mean(-2), corners[..., -1, 2:, :].mean(-2)
        axis = last - first
        depth = ((corners.mean(-2) - first[..., None, :]) * axis[..., None, :]).sum(-1)
        whole = axis.square().sum(-1)
    middle = sum(depth.gather(-1, place[..., None]).squeeze(-1) for place in (upper, lower))
    return torch.as_tensor(middle < whole)
