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
"""The mirror plane of a set of landmarks, and who lies opposite to whom, from positions alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from monai.utils import optional_import

from monai_landmarks.geometry import LandmarkError

__all__ = ["MirrorFit", "fit_mirror", "mean_shape"]

#: In radii of the shape (root of the mean squared distance from its centre): beyond it a landmark is not explained.
_REACH = 0.25
#: Partners must lie nearer to each other's mirror image than this share of the distance between them.
_LARGEST_SHARE = 0.25
_STARTS = {2: 48, 3: 96}
_REFINED = 12
_ROUNDS = 20


class MirrorFit(NamedTuple):
    """The mirror plane (3D) or line (2D) that fits best, and the partners across it.

    Attributes:
        normal: ``(D,)``, of length 1, in the frame of ``shape``.
        centre: ``(D,)``, a point of the plane.
        partner: ``(N,)``, index of the landmark opposite; its own where it lies on the plane or has none.
        residual: ``(N,)``, distance of a landmark from the mirror image of its partner; NaN where it is never present.
        separation: ``(N,)``, distance between the partners.
        runner_up: ``(N,)``, distance from the mirror image of the next best landmark (perhaps itself).
        asymmetry: root of the mean squared residual, cut at a quarter of a radius, in radii of the shape.
        explained: share of the landmarks with a residual below a tenth of a radius.
        cases: number of cases the mean shape was made of.
    """

    normal: np.ndarray
    centre: np.ndarray
    partner: np.ndarray
    residual: np.ndarray
    separation: np.ndarray
    runner_up: np.ndarray
    asymmetry: float
    explained: float
    cases: int


def mean_shape(points: np.ndarray, rounds: int = 10) -> tuple[np.ndarray, int]:
    """Average landmarks after moving every case rigidly onto the mean (generalized Procrustes without scaling).

    Missing landmarks are left out case by case; a case with fewer than ``D`` landmarks in common with the mean has no
    pose and is left out.

    Args:
        points: ``(cases, N, D)``, NaN where missing.
        rounds: how often the mean is formed anew.

    Returns:
        the mean ``(N, D)``, NaN where a landmark is in no case, and the number of cases in it.
    """
    there = ~np.isnan(points).any(axis=-1)
    reference = points[int(there.sum(axis=1).argmax())]
    used = 0
    for _ in range(rounds):
        common = there & ~np.isnan(reference).any(axis=-1)
        posed = common.sum(axis=1) >= points.shape[-1]
        used = int(posed.sum())
        if not used:
            break
        moved = _moved(points[posed], reference, common[posed])
        count = there[posed].sum(axis=0)[:, None]
        total = np.where(there[posed][..., None], moved, 0.0).sum(axis=0)
        reference = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return reference, used


def _moved(points: np.ndarray, reference: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Move each case rigidly onto the reference (Kabsch) by the landmarks in common."""
    weight = common[..., None].astype(np.float64)
    x, y = np.where(common[..., None], points, 0.0), np.where(common[..., None], reference, 0.0)
    count = weight.sum(axis=1, keepdims=True)
    x_centre, y_centre = x.sum(axis=1, keepdims=True) / count, y.sum(axis=1, keepdims=True) / count
    covariance = np.einsum("cni,cnj->cij", (x - x_centre) * weight, (y - y_centre) * weight)
    u, _, vt = np.linalg.svd(covariance)
    sign = np.ones(u.shape[:1] + u.shape[-1:])
    sign[:, -1] = np.sign(np.linalg.det(u @ vt))
    return (points - x_centre) @ (u * sign[:, None, :] @ vt) + y_centre


def fit_mirror(points: np.ndarray, spatial_axis: int | None = None) -> MirrorFit | None:
    """Find the mirror plane of the mean shape and the partners across it.

    From many directions, the mean shape is reflected, partners are taken by the optimal assignment (a landmark may be
    its own partner), made an involution, and the plane is fitted anew to the partners in closed form: with centred
    ``x_i`` and partners ``x_j`` the normal is the eigenvector of ``sum_i (x_i x_j^T + x_j x_i^T)`` with the smallest
    eigenvalue. Distances are cut at a quarter of the shape's radius, so that single landmarks without partner do not
    turn the plane. The best fit of all directions is returned; whether the shape is symmetric at all is for the caller
    to judge by ``asymmetry`` and ``explained``.

    Args:
        points: ``(cases, N, D)`` or ``(N, D)``, NaN where missing; all cases in the same unit.
        spatial_axis: axis of the coordinates along which the sides lie, where all cases lie alike: only planes within
            45 degrees of it are tried.

    Returns:
        the fit, or None with fewer than 4 landmarks.

    Raises:
        LandmarkError: for another shape of ``points``, or an axis that there is not.
    """
    points = _checked(points, spatial_axis)
    shape, cases = mean_shape(points)
    placed = np.flatnonzero(~np.isnan(shape).any(axis=-1))
    if len(placed) < 4 or cases == 0:
        return None
    x = shape[placed]
    radius = float(np.sqrt(((x - x.mean(axis=0)) ** 2).sum(axis=-1).mean()))
    if radius == 0.0:
        return None
    fits = [_refined(x, start, radius * _REACH) for start in _best_starts(x, spatial_axis, radius * _REACH)]
    if spatial_axis is not None:
        fits = [fit for fit in fits if abs(fit[1][spatial_axis]) >= np.sqrt(0.5) - 1e-9] or fits
    _, normal, centre, partner = min(fits, key=lambda fit: fit[0])
    return _described(shape, placed, normal, centre, partner, radius, cases)


def _checked(points: np.ndarray, spatial_axis: int | None) -> np.ndarray:
    array = np.asarray(points, dtype=np.float64)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[-1] not in (2, 3):
        raise LandmarkError(f"`points` must be (cases, N, D) with D = 2 or 3, got shape {np.shape(points)}.")
    if spatial_axis is not None and not 0 <= spatial_axis < array.shape[-1]:
        raise LandmarkError(f"`spatial_axis` must be 0 to {array.shape[-1] - 1}, got {spatial_axis}.")
    return array


def _directions(dims: int) -> np.ndarray:
    """Directions spread evenly over half a circle, or over half a sphere on a Fibonacci spiral."""
    count = _STARTS[dims]
    if dims == 2:
        angle = np.pi * np.arange(count) / count
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    height = (np.arange(count) + 0.5) / count
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=1)


def _best_starts(x: np.ndarray, spatial_axis: int | None, reach: float) -> np.ndarray:
    dims = x.shape[1]
    principal = np.linalg.svd(x - x.mean(axis=0))[2]
    starts = np.concatenate([np.eye(dims), principal, _directions(dims)])
    if spatial_axis is not None:
        starts = starts[np.abs(starts[:, spatial_axis]) >= np.sqrt(0.5)]
    centre = x.mean(axis=0)
    scores = [float(_cost(x, n, centre, reach).min(axis=1).sum()) for n in starts]
    return starts[np.argsort(scores, kind="stable")[:_REFINED]]


def _distances(x: np.ndarray, normal: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Distances ``(N, N)`` of landmark i from the mirror image of landmark j; symmetric."""
    mirrored = x - 2 * ((x - centre) @ normal)[:, None] * normal
    return np.linalg.norm(x[:, None] - mirrored[None], axis=-1)


def _cost(x: np.ndarray, normal: np.ndarray, centre: np.ndarray, reach: float) -> np.ndarray:
    return np.minimum(_distances(x, normal, centre), reach) ** 2


def _refined(x: np.ndarray, normal: np.ndarray, reach: float) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Alternate between partners and plane until the partners stay."""
    centre = np.median(x, axis=0)
    partner = np.arange(len(x))
    best: tuple[float, np.ndarray, np.ndarray, np.ndarray] | None = None
    for _ in range(_ROUNDS):
        cost = _cost(x, normal, centre, reach)
        new = _involution(cost)
        score = float(cost[np.arange(len(x)), new].sum())
        if best is None or score < best[0]:
            best = (score, normal, centre, new)
        if np.array_equal(new, partner):
            break
        partner = new
        normal, centre = _plane(x, partner, _distances(x, normal, centre)[np.arange(len(x)), partner] < reach)
    assert best is not None
    return best


def _plane(x: np.ndarray, partner: np.ndarray, trusted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    trusted = trusted if int(trusted.sum()) >= x.shape[1] else np.ones_like(trusted)
    a, b = x[trusted], x[partner[trusted]]
    centre = (a.mean(axis=0) + b.mean(axis=0)) / 2
    product = (a - centre).T @ (b - centre)
    return np.linalg.eigh(product + product.T)[1][:, 0], centre


def _involution(cost: np.ndarray) -> np.ndarray:
    """Partners of least cost: the optimal assignment, whose cycles of three or more are cut into pairs and singles."""
    linear_sum_assignment, _ = optional_import("scipy.optimize", name="linear_sum_assignment")
    assigned = linear_sum_assignment(cost)[1]
    partner = np.arange(len(cost))
    seen = np.zeros(len(cost), dtype=bool)
    for start in range(len(cost)):
        cycle = []
        node = start
        while not seen[node]:
            seen[node] = True
            cycle.append(node)
            node = int(assigned[node])
        for i, j in _cut(cycle, cost):
            partner[i], partner[j] = j, i
    return partner


def _cut(cycle: list[int], cost: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of neighbours on a cycle that cost least together with the singles that remain."""
    if len(cycle) < 3:
        return [(cycle[0], cycle[1])] if len(cycle) == 2 else []
    open_cost, open_pairs = _cut_path(cycle, cost)
    inner_cost, inner_pairs = _cut_path(cycle[1:-1], cost)
    closing = (cycle[-1], cycle[0])
    return open_pairs if open_cost <= inner_cost + 2 * cost[closing] else [closing, *inner_pairs]


def _cut_path(path: list[int], cost: np.ndarray) -> tuple[float, list[tuple[int, int]]]:
    before: tuple[float, list[tuple[int, int]]] = (0.0, [])
    last = before
    for place, node in enumerate(path):
        single = (last[0] + float(cost[node, node]), last[1])
        if place:
            pair = (path[place - 1], node)
            paired = (before[0] + 2 * float(cost[pair]), [*before[1], pair])
            single = min(single, paired, key=lambda option: option[0])
        before, last = last, single
    return last


def _described(
    shape: np.ndarray,
    placed: np.ndarray,
    normal: np.ndarray,
    centre: np.ndarray,
    partner: np.ndarray,
    radius: float,
    cases: int,
) -> MirrorFit:
    """Bring a fit of the placed landmarks to all N, and drop partners that are no nearer than chance would have them."""
    x = shape[placed]
    rows = np.arange(len(x))
    distance = _distances(x, normal, centre)
    apart = np.linalg.norm(x - x[partner], axis=-1)
    near = (distance[rows, partner] <= _LARGEST_SHARE * apart) & (distance[rows, partner] < _REACH * radius)
    partner = np.where(near, partner, rows)
    residual = distance[rows, partner]
    others = distance.copy()
    others[rows, partner] = np.inf
    every = np.arange(len(shape))
    every[placed] = placed[partner]

    def spread(values: np.ndarray) -> np.ndarray:
        full = np.full(len(shape), np.nan)
        full[placed] = values
        return full

    return MirrorFit(
        normal=normal,
        centre=centre,
        partner=every,
        residual=spread(residual),
        separation=spread(np.linalg.norm(x - x[partner], axis=-1)),
        runner_up=spread(others.min(axis=1)),
        asymmetry=float(np.sqrt((np.minimum(residual / radius, _REACH) ** 2).mean())),
        explained=float((residual < 0.1 * radius).mean()),
        cases=cases,
    )
