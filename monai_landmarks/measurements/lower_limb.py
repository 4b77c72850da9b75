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
"""Axes and angles of the lower limb on a frontal film, computed by landmark names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.utils import look_up_option

from monai_landmarks.data.datasets.bmple import BMPLE_LANDMARKS
from monai_landmarks.data.landmarks import did_you_mean
from monai_landmarks.geometry import LandmarkError, check_points, plain_tensor

__all__ = ["LOWER_LIMB_ANGLES", "LOWER_LIMB_AXES", "angle_errors", "lower_limb_angles", "lower_limb_axes"]

LOWER_LIMB_AXES: dict[str, tuple[str, str]] = {
    "femoral_mechanical": ("femoral_head_center", "knee_center"),
    "femoral_anatomical": ("greater_trochanter_tip", "knee_center"),
    "tibial": ("knee_center", "ankle_center"),
    "femoral_joint_line": ("medial_femoral_condyle", "lateral_femoral_condyle"),
    "tibial_joint_line": ("medial_tibial_plateau", "lateral_tibial_plateau"),
    "ankle_joint_line": ("medial_tibial_plafond", "lateral_tibial_plafond"),
}
"""Six axes, each from one landmark to another: along the leg downwards, along a joint outwards."""

LOWER_LIMB_ANGLES: dict[str, tuple[str, str, float]] = {
    "HKA": ("femoral_mechanical", "tibial", 180.0),
    "FTA": ("tibial", "femoral_anatomical", 180.0),
    "AMA": ("femoral_anatomical", "femoral_mechanical", 0.0),
    "LDFA": ("femoral_joint_line", "femoral_mechanical", 180.0),
    "MPTA": ("tibial_joint_line", "tibial", 180.0),
    "JLCA": ("tibial_joint_line", "femoral_joint_line", 0.0),
    "LDTA": ("ankle_joint_line", "tibial", 180.0),
}
"""Seven angles: the turn from the first to the second axis, down to outwards counted positive, added to the third entry."""

SIDES = {"right": 1.0, "left": -1.0}
"""Sense of a turn from down to outwards, x to the right and y downwards."""


def lower_limb_axes(
    points: Any,
    names: Sequence[str] = BMPLE_LANDMARKS,
    side: str = "right",
    axes: Mapping[str, tuple[str, str]] | None = None,
) -> torch.Tensor:
    """Give the axes of one leg as vectors from their first to their second landmark.

    Args:
        points: ``(..., N, 2)``, array or tensor, in one unit along both axes. NaN for missing.
        names: of the ``N`` landmarks, ``"right_knee_center"`` and so on; other landmarks may stand among them.
        side: ``"right"`` or ``"left"``, the patient's.
        axes: name -> first and second landmark without side; None takes ``LOWER_LIMB_AXES``.

    Returns:
        vectors ``(..., A, 2)`` in the order of ``axes``, at least float32; NaN where one of the two landmarks is missing.

    Raises:
        LandmarkError: for points not in 2D or other than the names, or a landmark that the names do not have.
        ValueError: for an unknown side.

    Example:
        >>> names = ["left_knee_center", "left_ankle_center"]
        >>> lower_limb_axes([[3.0, 5.0], [4.0, 9.0]], names, "left", {"tibial": LOWER_LIMB_AXES["tibial"]})
        tensor([[1., 4.]])
    """
    side = look_up_option(side, tuple(SIDES))
    tensor = plain_tensor(torch.as_tensor(points))
    tensor = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    check_points(tensor, spatial_dims=2)
    if tensor.shape[-2] != len(names):
        raise LandmarkError(
            f"there are {tensor.shape[-2]} points and {len(names)} names: give the names of these points, in their order."
        )
    ends = [[f"{side}_{name}" for name in pair] for pair in (LOWER_LIMB_AXES if axes is None else axes).values()]
    for name in (name for pair in ends for name in pair):
        if names.count(name) != 1:
            raise LandmarkError(
                f"an axis needs the landmark {name!r}, which stands {names.count(name)} times among the names"
                f"{did_you_mean(name, list(names))}. Keep a missing landmark's name and give NaN for its point, or name "
                "other axes."
            )
    start, end = torch.tensor([[names.index(name) for name in pair] for pair in ends], device=tensor.device).unbind(-1)
    return tensor[..., end, :] - tensor[..., start, :]


def lower_limb_angles(
    points: Any,
    names: Sequence[str] = BMPLE_LANDMARKS,
    side: str = "right",
    axes: Mapping[str, tuple[str, str]] | None = None,
    angles: Mapping[str, tuple[str, str, float]] | None = None,
) -> torch.Tensor:
    r"""Measure the seven angles of one leg.

    With ``a`` and ``b`` the two axes of an angle and ``s = 1`` for the right, ``-1`` for the left leg,

    .. math:: \alpha = \alpha_0 + \operatorname{atan2}(s \, (a_x b_y - a_y b_x),\; a \cdot b).

    * ``HKA``, hip-knee-ankle: mechanical axes of femur and tibia, on the inner side; 180 is straight, **below is varus**.
    * ``FTA``, femorotibial: anatomical axis of the femur and tibia, on the outer side; 174 is usual, above is varus.
    * ``AMA``: between anatomical and mechanical axis of the femur, usually 6.
    * ``LDFA``, lateral distal femoral (mechanical), ``MPTA``, medial proximal tibial, and ``LDTA``, lateral distal tibial:
      between mechanical axis and joint line, usually 88, 87 and 89.
    * ``JLCA``, joint line convergence: positive where the knee gapes on the outer side, as in varus; usually 0 to 2.

    So ``HKA = 180 + MPTA - LDFA - JLCA`` and ``FTA = 360 - HKA - AMA``. Signs are the same for both legs: mirroring a film
    and exchanging left and right names changes nothing, nor do translation, rotation and scale.

    The definitions are those of Paley, Principles of Deformity Correction, 2002, but for the anatomical axis of the femur,
    which is taken from the tip of the greater trochanter since no landmark lies on the shaft. Six axes and seven angles per
    leg are the numbers of the BMPLE paper (Yao et al., 2022); which ones it means stands in a figure only, so this choice is
    ours. Other ones are a table away: see ``axes``, ``angles`` and the example.

    Args:
        points: ``(..., N, 2)``, array or tensor, **in one unit along both axes** (millimetres; not the pixels of a squeezed
            film), x to the right and y downwards **on a film shown with the patient's right at the left**. NaN for missing.
        names: of the ``N`` landmarks, ``"right_knee_center"`` and so on; other landmarks may stand among them.
        side: ``"right"`` or ``"left"``, the patient's.
        axes: name -> first and second landmark without side; None takes ``LOWER_LIMB_AXES``.
        angles: name -> first axis, second axis and the angle, 0 or 180, that stands for no turn; None takes
            ``LOWER_LIMB_ANGLES``.

    Returns:
        degrees ``(..., 7)`` in the order of ``angles``, at most 180 from ``alpha_0``; NaN where a landmark of the angle is
        missing or the two of an axis coincide. The other landmarks of the leg do not matter.

    Raises:
        LandmarkError: see :func:`lower_limb_axes`; also for an angle between axes that are not there.
        ValueError: for an unknown side.

    Example:
        The hip's angle by Paley, which needs a seventh axis:

        >>> axes = {**LOWER_LIMB_AXES, "hip_line": ("greater_trochanter_tip", "femoral_head_center")}
        >>> names = ["right_greater_trochanter_tip", "right_femoral_head_center", "right_knee_center"]
        >>> axes = {name: ends for name, ends in axes.items() if name in ("femoral_mechanical", "hip_line")}
        >>> film = [[10.0, 20.0], [60.0, 20.0], [60.0, 440.0]]
        >>> lower_limb_angles(film, names, axes=axes, angles={"LPFA": ("femoral_mechanical", "hip_line", 180.0)})
        tensor([90.])
    """
    axes = LOWER_LIMB_AXES if axes is None else axes
    wanted = list((LOWER_LIMB_ANGLES if angles is None else angles).values())
    vectors = lower_limb_axes(points, names, side, axes)
    order = list(axes)
    unknown = [name for first, second, _ in wanted for name in (first, second) if name not in axes]
    if unknown:
        raise LandmarkError(
            f"an angle needs the axis {unknown[0]!r}{did_you_mean(unknown[0], order)}: name its landmarks."
        )
    a = vectors[..., [order.index(first) for first, _, _ in wanted], :]
    b = vectors[..., [order.index(second) for _, second, _ in wanted], :]
    cross = SIDES[side] * (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])
    dot = (a * b).sum(-1)
    turn = torch.rad2deg(torch.atan2(cross, dot)).where((cross != 0) | (dot != 0), torch.nan)
    return turn + turn.new_tensor([straight for _, _, straight in wanted])


def angle_errors(pred: Any, true: Any) -> torch.Tensor:
    """Give the absolute differences of angles in degrees, on the circle.

    Args:
        pred: predicted angles, any shape.
        true: true angles of the same shape.

    Returns:
        degrees from 0 to 180 of the same shape, NaN where one of the two is.

    Raises:
        LandmarkError: for shapes that differ.

    Example:
        >>> angle_errors([178.0, 359.0], [180.5, 1.0])
        tensor([2.5000, 2.0000])
    """
    pred, true = (plain_tensor(torch.as_tensor(angles)) for angles in (pred, true))
    if pred.shape != true.shape:
        raise LandmarkError(
            f"angles of shapes {tuple(pred.shape)} and {tuple(true.shape)} cannot be compared one by one."
        )
    return ((pred - true.to(pred.device) + 180) % 360 - 180).abs()
