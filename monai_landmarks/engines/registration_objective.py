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
"""What EdgeTrans minimises over the steps of its cascade."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ..losses.edge_ssim import EdgeSSIMLoss
from ..losses.registration import (
    EdgeAwareSmoothnessLoss,
    GlobalL1Loss,
    InverseConsistency,
    InverseConsistencyLoss,
    SyntheticPairLoss,
    shown_by,
)
from ..networks.blocks.displacement import Registration, carry_points, warp
from .registration_pairs import RegistrationPairs

__all__ = ["RegistrationObjective"]


class RegistrationObjective:
    r"""What EdgeTrans minimises (Yin et al. 2022, eq. 11 and 12), over the steps of the cascade.

    .. math:: L = L_{global} + \lambda_1 \sum_i \left( L_{local}^i + \lambda_s L_{smooth}^i + \lambda_2 L_{inv}^i
        + \lambda_3 L_{syn}^i \right)

    Voxels count where both images of a pair show something; a pair in which none is left adds nothing to the terms that
    compare images, and is counted. The term of inverse consistency is over the pairs whose images are also registered the
    other way round in the same batch, the synthetic one over those with a known field.

    What differs from the public code, which takes the mean over the steps instead of the paper's sum: the known field is
    compared with the composed one rather than step by step; edges around pseudo-landmarks count in the synthetic pairs
    too, as eq. 13 has it.

    Args:
        spatial_dims: 2 or 3.
        smoothness_weight: ``lambda_s``; it is 1 in the paper.
        inverse_weight: ``lambda_2``; 0 leaves the term out.
        global_loss: called ``(warped, target, mask)``; by default :class:`GlobalL1Loss`.
        local_loss: called ``(warped, target, points, mask)``; by default :class:`EdgeSSIMLoss`.
        smoothness_loss: called ``(phi, warped, mask)``; by default :class:`EdgeAwareSmoothnessLoss`.
        inverse_loss: called ``(forward_field, backward_field)``, or as its form "negated" needs it; by default
            :class:`InverseConsistencyLoss` in halves of the grid's sides.
        synthetic_loss: called ``(field, true_field, mask)``; by default :class:`SyntheticPairLoss` in halves of the
            grid's sides, for which the weight is meant.
    """

    def __init__(
        self,
        spatial_dims: int,
        smoothness_weight: float = 1.0,
        inverse_weight: float = 0.25,
        global_loss: Callable | None = None,
        local_loss: Callable | None = None,
        smoothness_loss: Callable | None = None,
        inverse_loss: Callable | None = None,
        synthetic_loss: Callable | None = None,
    ) -> None:
        self.spatial_dims, self.smoothness_weight, self.inverse_weight = spatial_dims, smoothness_weight, inverse_weight
        self.global_loss = GlobalL1Loss(spatial_dims) if global_loss is None else global_loss
        self.local_loss = EdgeSSIMLoss(spatial_dims) if local_loss is None else local_loss
        self.smoothness_loss = EdgeAwareSmoothnessLoss(spatial_dims) if smoothness_loss is None else smoothness_loss
        self.inverse_loss = InverseConsistencyLoss(normalised=True) if inverse_loss is None else inverse_loss
        self.synthetic_loss = SyntheticPairLoss(normalised=True) if synthetic_loss is None else synthetic_loss

    def parts(
        self, found: Registration, pairs: RegistrationPairs, points: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Give the terms without their weights, those of the local steps summed over them.

        Args:
            found: registration of the pairs.
            pairs: ``2B`` of them.
            points: ``(2B, N, D)`` voxels of the sources around which edges count, NaN for unknown; None: nowhere.

        Returns:
            "global", "local", "smoothness", "inverse", "synthetic", and "empty_pairs", the number of pairs without overlap
            after the global step.
        """
        known = len(pairs.true_field)
        mask = self._overlap(pairs, found.fields[0])
        before, carried = warp(pairs.source, found.fields[0]), self._carry(found.fields[0], points)
        zero = found.fields[0].sum() * 0
        result = {
            "global": self.global_loss(before, pairs.target, mask),
            **dict.fromkeys(("local", "smoothness", "inverse", "synthetic"), zero),
            "empty_pairs": (~mask.flatten(1).any(dim=1)).sum(),
        }
        for phi, field in zip(found.steps, found.fields[1:], strict=True):
            result["inverse"] = result["inverse"] + self._inverse(phi, field, pairs, before, carried, zero)
            before, mask, carried = warp(pairs.source, field), self._overlap(pairs, field), self._carry(field, points)
            result["local"] = result["local"] + self.local_loss(before, pairs.target, carried, mask)
            result["smoothness"] = result["smoothness"] + self.smoothness_loss(phi, before.detach(), mask)
            synthetic = self.synthetic_loss(field[:known], pairs.true_field, pairs.target_mask[:known])
            result["synthetic"] = result["synthetic"] + synthetic
        return result

    def total(self, parts: Mapping[str, torch.Tensor], local_weight: float, synthetic_weight: float) -> torch.Tensor:
        """Weigh the terms: ``lambda_1`` and ``lambda_3``."""
        regular = self.smoothness_weight * parts["smoothness"] + self.inverse_weight * parts["inverse"]
        return parts["global"] + local_weight * (parts["local"] + regular + synthetic_weight * parts["synthetic"])

    def _inverse(
        self,
        phi: torch.Tensor,
        field: torch.Tensor,
        pairs: RegistrationPairs,
        before: torch.Tensor,
        points: torch.Tensor | None,
        zero: torch.Tensor,
    ) -> torch.Tensor:
        if not self.inverse_weight:
            return zero
        if getattr(self.inverse_loss, "form", None) == InverseConsistency.NEGATED:
            return self.inverse_loss(phi, source=before, target=pairs.target, points=points, mask=pairs.target_mask)
        back = pairs.backward.to(field.device)
        mutual = back >= 0
        return self.inverse_loss(field[mutual], field[back[mutual]]) if bool(mutual.any()) else zero

    @staticmethod
    def _carry(field: torch.Tensor, points: torch.Tensor | None) -> torch.Tensor | None:
        return None if points is None else carry_points(field.detach(), points)[0]

    @staticmethod
    def _overlap(pairs: RegistrationPairs, field: torch.Tensor) -> torch.Tensor:
        return shown_by(field, pairs.source_mask) & (pairs.target_mask > 0)
