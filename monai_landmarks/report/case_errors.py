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
"""The errors of one case, as numbers and as one line of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from monai_landmarks.geometry import apply_affine
from monai_landmarks.metrics import radial_errors

__all__ = ["case_errors", "error_summary", "worst_landmark"]


def case_errors(prediction: Any, truth: Any, affine: torch.Tensor | None = None) -> torch.Tensor:
    """Measure the radial error of each landmark of one case.

    Args:
        prediction: voxel indices ``(N, D)``.
        truth: voxel indices ``(N, D)``.
        affine: ``(D + 1, D + 1)`` from index to millimetres; None measures in voxels.

    Returns:
        ``(N,)``: NaN where the truth has no landmark, inf where only the prediction has none.

    Example:
        >>> import torch
        >>> case_errors(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2), torch.diag(torch.tensor([0.1, 0.1, 1.0])))
        tensor([0.5000], dtype=torch.float64)
    """
    pair = [p if affine is None else apply_affine(p, affine) for p in (prediction, truth)]
    return radial_errors(pair[0][None], pair[1][None])[0]


def error_summary(errors: torch.Tensor, names: Sequence[str], unit: str = "mm") -> str:
    """Say in one line how good a case is.

    Args:
        errors: ``(N,)`` of :func:`case_errors`.
        names: ``N`` landmark names.
        unit: of the errors.

    Example:
        >>> import torch
        >>> error_summary(torch.tensor([1.0, 3.0, float("inf"), float("nan")]), ["sella", "gonion", "menton", "porion"])
        'mean 2.00 mm, worst gonion 3.00 mm, 2 of 3 landmarks found'
    """
    found = torch.isfinite(errors)
    wanted = int((~torch.isnan(errors)).sum())
    if not bool(found.any()):
        return (
            f"no landmark to compare (truth has {wanted}, none of them predicted)" if wanted else "no truth to compare"
        )
    worst = int(torch.where(found, errors, torch.full_like(errors, -1.0)).argmax())
    text = f"mean {errors[found].mean():.2f} {unit}, worst {names[worst]} {errors[worst]:.2f} {unit}"
    return text + (f", {int(found.sum())} of {wanted} landmarks found" if int(found.sum()) < wanted else "")


def worst_landmark(errors: torch.Tensor | None) -> int | None:
    """Index of the largest error among the landmarks found; None where none is."""
    if errors is None or not bool(torch.isfinite(errors).any()):
        return None
    return int(torch.where(torch.isfinite(errors), errors, torch.full_like(errors, -1.0)).argmax())
