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
"""Detection of landmarks by registering an annotated image on others, as in EdgeTrans (Yin et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from monai_landmarks.geometry import LandmarkError, inside, plain_tensor, present
from monai_landmarks.heatmaps import gaussian_heatmaps

from ..blocks.displacement import Registration, carry_points, folds_at, sample_displacement
from .annotated_images import check_annotated_points

__all__ = ["CarriedLandmarks", "RegisteredExemplarNet"]

#: Voxels of the exemplar by which the best inverse may miss a landmark before it counts as lost.
LARGEST_RESIDUAL = 0.05
#: What is left of the confidence where the field folds: the landmark is shown three times.
FOLDED = 0.1
#: A landmark that was found has a map that can be decoded, however little it is believed.
LEAST_CONFIDENCE = 1e-3


class CarriedLandmarks(NamedTuple):
    """An exemplar's landmarks in other images.

    Attributes:
        points: ``(B, N, D)`` voxels of the image, NaN where missing in the exemplar.
        confidence: ``(B, N)`` from 0 to 1.
        registration: of the exemplar on the images.
        cycle_error: ``(B, N)`` voxels, NaN where missing; zeros without ``cycle``.
    """

    points: torch.Tensor
    confidence: torch.Tensor
    registration: Registration
    cycle_error: torch.Tensor


class RegisteredExemplarNet(nn.Module):
    r"""Predict one heatmap per landmark: where a registration carries the landmarks of one annotated image (EdgeTrans).

    The network registers the exemplar on an image, :math:`T` from the image's voxels to the exemplar's, and a landmark
    :math:`p` is where :math:`T(x) = p`: the exact inverse. The released code follows the field once at the point itself
    instead, and stops at the step of the cascade that the labels of the images like best; here it is always the last.

    The confidence is how well the registration the other way agrees, which needs images only:

    .. math:: c = \exp\left(-\lVert x - T'(p) \rVert / t\right)

    with :math:`T'` of the image on the exemplar. It is a tenth of this where the field folds, and 0 where the point has
    left the image or the field nowhere shows it. A heatmap is a Gaussian about ``x`` whose highest voxel is ``c``, so that
    any inferer, decoder and evaluator serves; where ``c`` is 0 the map is zeros, and decoders say that the landmark is
    missing. Nothing is trained here.

    Args:
        registration: a trained :class:`EdgeTransNet`, or any ``network(source, target)`` that returns a ``Registration``
            and has ``spatial_dims``.
        num_landmarks: ``N``.
        cycle: whether to register back. Without, every landmark that is found has confidence 1.
        cycle_tolerance: ``t`` in voxels.
        heatmap_sigma: of the Gaussians, in voxels.

    Shapes: image ``(B, C, *S)``, on the exemplar's grid -> heatmaps ``(B, N, *S)`` from 0 to 1.

    Raises:
        LandmarkError: for ``num_landmarks`` below 1, a tolerance or sigma that is not positive, a call before
            :meth:`set_exemplar`, or an image of another size than the exemplar.

    Example:
        >>> class Unmoved(nn.Module):
        ...     spatial_dims = 2
        ...     def forward(self, source, target):
        ...         field = torch.zeros(len(source), 2, *source.shape[2:])
        ...         return Registration(torch.eye(2, 3).expand(len(source), -1, -1), [], [field])
        >>> net = RegisteredExemplarNet(Unmoved(), num_landmarks=1)
        >>> net.set_exemplar(torch.rand(1, 32, 24), torch.tensor([[20.25, 9.5]]))
        >>> net.carry(torch.rand(3, 1, 32, 24)).points[2], net(torch.rand(3, 1, 32, 24)).shape
        (tensor([[20.2500,  9.5000]]), torch.Size([3, 1, 32, 24]))
    """

    exemplar: torch.Tensor
    exemplar_shape: torch.Tensor
    exemplar_points: torch.Tensor
    resized_on_load = ("exemplar",)

    def __init__(
        self,
        registration: nn.Module,
        num_landmarks: int,
        cycle: bool = True,
        cycle_tolerance: float = 3.0,
        heatmap_sigma: float = 3.0,
    ) -> None:
        super().__init__()
        if num_landmarks < 1:
            raise LandmarkError(f"`num_landmarks` must be at least 1, got {num_landmarks}.")
        for name, value in (("cycle_tolerance", cycle_tolerance), ("heatmap_sigma", heatmap_sigma)):
            if not value > 0:
                raise LandmarkError(f"`{name}` must be a positive number of voxels, got {value}.")
        dims = int(registration.spatial_dims)  # type: ignore[arg-type]
        self.registration, self.num_landmarks = registration, num_landmarks
        self.cycle, self.cycle_tolerance, self.heatmap_sigma = cycle, cycle_tolerance, heatmap_sigma
        self.register_buffer("exemplar", torch.empty(0))
        self.register_buffer("exemplar_shape", torch.zeros(dims + 1, dtype=torch.int64))
        self.register_buffer("exemplar_points", torch.full((num_landmarks, dims), float("nan")))

    @torch.no_grad()
    def set_exemplar(self, image: torch.Tensor, points: torch.Tensor, names: Sequence[str] | None = None) -> None:
        """Keep the annotated image with its landmarks, in place of an earlier one.

        Kept as buffers, so that a state dictionary saves and loads them, whatever the size of the image.

        Args:
            image: ``(C, *S)`` or ``(1, C, *S)``, prepared as those on which it is to be registered.
            points: ``(N, D)`` or ``(1, N, D)`` voxels of it, NaN for missing: those stay missing in all images.
            names: ``N`` names of the landmarks, for messages.

        Raises:
            LandmarkError: for other shapes, another number of landmarks, none at all, or a landmark outside the image.
                Nothing is changed then.
        """
        dims = len(self.exemplar_shape) - 1
        picture, where = plain_tensor(image), plain_tensor(torch.as_tensor(points))
        picture = picture[0] if picture.ndim == dims + 2 and len(picture) == 1 else picture
        where = where[0] if where.ndim == 3 and len(where) == 1 else where
        if picture.ndim != dims + 1:
            raise LandmarkError(
                f"there must be one exemplar (C, *S) with {dims} spatial axes, got shape {tuple(picture.shape)}."
            )
        self._check_points(where, picture.shape[1:], names)
        self.exemplar = picture.flatten().to(self.exemplar)
        self.exemplar_shape = torch.as_tensor(picture.shape).to(self.exemplar_shape)
        self.exemplar_points = where.to(self.exemplar_points)

    def set_templates(
        self,
        images: Sequence[torch.Tensor],
        points: Sequence[torch.Tensor],
        names: Sequence[Sequence[str]] | None = None,
    ) -> None:
        """Call :meth:`set_exemplar` with the only one of a list, as :class:`TemplateMatchingNet` takes it.

        Raises:
            LandmarkError: for none or several.
        """
        if not len(images) == len(points) == 1:
            raise LandmarkError(
                f"a registration has one exemplar, got {len(images)} images and {len(points)} sets of points: choose one, "
                "for example with suggest_template; several are for TemplateMatchingNet."
            )
        self.set_exemplar(images[0], points[0], None if names is None else names[0])

    def exemplar_image(self) -> torch.Tensor:
        """Give the exemplar, ``(1, C, *S)``."""
        if not self.exemplar.numel():
            raise LandmarkError("no exemplar: call `set_exemplar(image, points)` with the annotated image.")
        return self.exemplar.reshape(1, *self.exemplar_shape.tolist())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        points, confidence, _, _ = self.carry(image)
        shown = torch.where(confidence[..., None] > 0, points, torch.nan)
        maps = gaussian_heatmaps(shown, image.shape[2:], self.heatmap_sigma)
        highest = maps.flatten(2).amax(dim=-1)
        scale = confidence / torch.where(highest > 0, highest, 1)
        return (maps * scale.reshape(*scale.shape, *(1,) * (image.ndim - 2))).to(image.dtype)

    @torch.no_grad()
    def carry(self, image: torch.Tensor) -> CarriedLandmarks:
        """Register the exemplar on images and carry its landmarks.

        Args:
            image: ``(B, C, *S)``, on the exemplar's grid.

        Returns:
            points and confidence, with the registration and the cycle's errors.
        """
        exemplar = self.exemplar_image()
        if tuple(image.shape[1:]) != tuple(exemplar.shape[1:]):
            raise LandmarkError(
                f"the image is (C, *S) = {tuple(image.shape[1:])}, the exemplar {tuple(exemplar.shape[1:])}: a registration "
                "knows one grid, so bring both onto it in the loader, for example with FitToGridd."
            )
        plain = plain_tensor(image)
        source = exemplar.to(plain).expand(len(plain), *exemplar.shape[1:])
        forth: Registration = self.registration(source, plain)
        field = forth.fields[-1].float()
        wanted = self.exemplar_points.to(field).expand(len(plain), -1, -1)
        points, residual = carry_points(field, wanted)
        error = torch.zeros_like(residual)
        if self.cycle:
            back: Registration = self.registration(plain, source)
            error = (wanted + sample_displacement(back.fields[-1].float(), wanted) - points).norm(dim=-1)
        confidence = torch.exp(-error / self.cycle_tolerance)
        confidence = confidence.where(~folds_at(field, wanted), FOLDED * confidence).clamp(min=LEAST_CONFIDENCE)
        found = present(points) & inside(points, plain.shape[2:]) & (residual <= LARGEST_RESIDUAL)
        confidence = torch.where(found, confidence, 0)
        return CarriedLandmarks(points, confidence, forth, torch.where(present(points), error, torch.nan))

    def _check_points(self, points: torch.Tensor, shape: Sequence[int], names: Sequence[str] | None) -> None:
        if names is not None and len(names) != self.num_landmarks:
            raise LandmarkError(f"`names` must hold {self.num_landmarks} names, got {len(names)}.")
        check_annotated_points("the exemplar", points, shape, self.num_landmarks, names)
        if not bool(present(points).any()):
            raise LandmarkError("all landmarks of the exemplar are missing (NaN): there is nothing to carry.")

    def explain_mismatch(self, state_dict: Mapping[str, torch.Tensor]) -> str | None:
        """Say why a saved exemplar does not fit, or return None where it does."""
        saved = state_dict.get("exemplar_points")
        if saved is None or len(saved) == self.num_landmarks:
            return None
        return f"the checkpoint predicts {len(saved)} landmarks, this network {self.num_landmarks}."

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        # The exemplar is data: the size of the saved one replaces the size of the one here.
        saved = state_dict.get(f"{prefix}exemplar")
        if saved is not None:
            self.exemplar = self.exemplar.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
