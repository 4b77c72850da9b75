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
"""Detection of landmarks from annotated templates with the features of CC2Dv2 (Yao et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.utils import eval_mode
from monai.utils import look_up_option
from torch import nn
from torch.nn import functional as F

from monai_landmarks.data.landmarks import quoted
from monai_landmarks.geometry import LandmarkError, plain_tensor

from ..blocks.similarity import cell_of, cosine_similarity, sample_cells
from .annotated_images import check_annotated_points
from .patch_matching_net import PatchMatchingNet

__all__ = ["TemplateMatchingNet"]


class TemplateMatchingNet(nn.Module):
    r"""Predict one heatmap per landmark: how similar each voxel is to the landmark of an annotated image (CC2Dv2).

    .. math:: h = \prod_i \mathrm{up}\left(\mathrm{clip}_{[0, 1]}(S^i)\right)

    over the five levels of a trained :class:`PatchMatchingNet`, whose maps S are enlarged linearly to the image. The
    maximum of h, at most 1, is the landmark's score; any inferer and decoder serves. Nothing is trained here.

    Anchor features are read from the whole template image, as in the released code. They belong to the weights they were
    read with: call :meth:`set_templates` again after further training. A state dictionary holds both.

    The paper multiplies and takes the highest voxel "in the coarse-to-fine fashion"; the released code only multiplies.
    Both are here: ``cascade=True`` sets a level to 0 outside a window around the highest voxel of the product of the
    coarser ones, which is where its training has looked. The released code enlarges with ``align_corners=True``, which
    moves each level by up to half a cell, most at the borders, and stretches the product from 0 to 1: no score is left.

    A cell that resembles the landmark's cell shows where the *middle* of that cell has gone, while the landmark lies up to
    half a cell beside it: 16 voxels on the coarsest level. With ``in_cell`` each level's map is moved by that distance
    before the product, so that in the template itself all levels have their maximum at the landmark and not at the middles
    of five different cells. Paper and released code do not have this.

    Args:
        matcher: a :class:`PatchMatchingNet`.
        num_landmarks: ``N``.
        combine: of several templates, ``"average"`` compares with the mean of their features, each scaled to length 1;
            ``"best"`` takes, voxel by voxel, the template with the highest heatmap. A landmark that is missing in some of
            them is found by the others.
        template_extractor: that embeds the templates: ``"patch"`` is the paper's E_p, ``"image"`` is E_r.
        cascade: whether finer levels look only where the coarser ones have their maximum.
        cascade_window: cells on each axis of that window, the paper's window in training.
        in_cell: whether the place of a landmark in its cell counts, as above; of averaged templates the mean place.

    Shapes: image ``(B, C, *S)``, for any ``S`` -> heatmaps ``(B, N, *S)`` from 0 to 1. A landmark that is missing in every
    template has a map of zeros.

    Raises:
        LandmarkError: for ``num_landmarks`` below 1, or a call before templates were set.
        ValueError: for an unknown option.

    Example:
        >>> matcher = PatchMatchingNet(2, encoder="resnet18", width=0.125)
        >>> net = TemplateMatchingNet(matcher, num_landmarks=2).eval()
        >>> template, points = torch.rand(1, 1, 64, 75), torch.tensor([[[20.0, 31.2], [50.5, 60.0]]])
        >>> net.set_templates(template, points)
        >>> net(torch.rand(3, 1, 50, 64)).shape
        torch.Size([3, 2, 50, 64])
    """

    anchors: torch.Tensor
    places: torch.Tensor
    resized_on_load = ("anchors", "places")

    def __init__(
        self,
        matcher: PatchMatchingNet,
        num_landmarks: int,
        combine: str = "average",
        template_extractor: str = "patch",
        cascade: bool = False,
        cascade_window: int = 19,
        in_cell: bool = True,
    ) -> None:
        super().__init__()
        if num_landmarks < 1:
            raise LandmarkError(f"`num_landmarks` must be at least 1, got {num_landmarks}.")
        if cascade_window < 1:
            raise ValueError(f"`cascade_window` must be at least 1 cell, got {cascade_window}.")
        self.matcher, self.num_landmarks = matcher, num_landmarks
        self.combine = look_up_option(combine, {"average", "best"})
        self.template_extractor = look_up_option(template_extractor, {"patch", "image"})
        self.cascade, self.cascade_window, self.in_cell = cascade, cascade_window, in_cell
        levels = len(matcher.strides)
        self.register_buffer("anchors", torch.empty(0, levels, num_landmarks, matcher.embedding))
        self.register_buffer("places", torch.empty(0, levels, num_landmarks, matcher.spatial_dims))

    @torch.no_grad()
    def set_templates(
        self,
        images: torch.Tensor | Sequence[torch.Tensor],
        points: torch.Tensor | Sequence[torch.Tensor],
        names: Sequence[Sequence[str]] | None = None,
    ) -> None:
        """Read the anchor features of all landmarks from annotated images; they replace those of earlier templates.

        Kept as the buffers ``anchors``, ``(T, levels, N, embedding)``, and ``places``, ``(T, levels, N, D)`` in cells from
        the middle of the landmark's cell, both NaN for missing landmarks, so that a state dictionary saves and loads them,
        whatever ``T`` the network had.

        Args:
            images: ``(T, C, *S)``, or ``T`` images ``(C, *S)`` of any sizes, prepared as those to be searched.
            points: ``(T, N, D)`` voxels, NaN for missing.
            names: of the landmarks of each template, ``T`` times the same ``N``; for messages and as a check.

        Raises:
            LandmarkError: for no template, not one set of points for each image, another number of landmarks,
                templates that name different landmarks, or a landmark outside its image. Nothing is changed then.
        """
        if not len(images) == len(points) > 0:
            raise LandmarkError(
                f"there must be one set of points for each template: {len(images)} images, {len(points)} sets."
            )
        labels = self._labels(len(images), names)
        anchors, places = [], []
        embed = self.matcher.embed_patch if self.template_extractor == "patch" else self.matcher.embed
        with eval_mode(self):
            for number, (image, where) in enumerate(zip(images, points, strict=True)):
                image = plain_tensor(image).to(self.anchors)
                where = plain_tensor(where).to(image.device)
                check_annotated_points(f"template {number}", where, image.shape[1:], self.num_landmarks, labels)
                levels = zip(embed(image[None]), self.matcher.strides, strict=True)
                anchors.append(torch.cat([sample_cells(x, where[None], stride) for x, stride in levels]))
                places.append(torch.stack([place_in_cell(where, stride) for stride in self.matcher.strides]))
        self.anchors = torch.stack(anchors).to(self.anchors)
        self.places = torch.stack(places).to(self.places)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        heatmaps = image.new_ones(())
        for level, (x, stride) in enumerate(zip(self._clipped(image), self.matcher.strides, strict=True)):
            if self.cascade and level:
                x = keep_window(x, highest_voxel(heatmaps), stride, self.cascade_window)
            heatmaps = heatmaps * self._enlarge(x, level, image.shape[2:])
        return self._best(heatmaps)

    def _enlarge(self, maps: torch.Tensor, level: int, shape: Sequence[int]) -> torch.Tensor:
        """Bring the maps of a level to the size of the image, moved by the landmarks' places in their cells."""
        shift = maps.new_zeros(maps.shape[1], len(shape))
        if self.in_cell:
            places = self.places[:, level]
            places = places.nanmean(dim=0) if self.combine == "average" else places.flatten(0, 1)
            shift = places.nan_to_num().to(maps)
        return enlarge_shifted(maps, self.matcher.strides[level], shape, shift)

    def similarities(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Give the factors of the heatmaps before they are enlarged, ``(B, N, *ceil(S / stride))``, for figures.

        No window of the cascade is cut; of several templates that are not averaged the highest is taken cell by cell.
        """
        return [self._best(x) for x in self._clipped(image)]

    def _clipped(self, image: torch.Tensor) -> list[torch.Tensor]:
        """The similarities to all anchors, clipped to [0, 1], ``(B, T * N, *ceil(S / stride))``."""
        if not len(self.anchors):
            raise LandmarkError("no template: call `set_templates(images, points)` with at least one annotated image.")
        anchors = self.anchors
        if self.combine == "average":
            anchors = F.normalize(anchors, dim=-1).nanmean(dim=0, keepdim=True)
        anchors = anchors.transpose(0, 1).flatten(1, 2)
        return [
            cosine_similarity(x, anchor.expand(len(x), -1, -1)).clamp(0, 1)
            for x, anchor in zip(self.matcher.embed(image), anchors, strict=True)
        ]

    def _best(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.unflatten(1, (-1, self.num_landmarks)).amax(dim=1)

    def _labels(self, count: int, names: Sequence[Sequence[str]] | None) -> Sequence[str] | None:
        if names is None:
            return None
        for number, own in enumerate(names):
            if list(own) != list(names[0]):
                differing = [name for pair in zip(own, names[0], strict=False) if pair[0] != pair[1] for name in pair]
                raise LandmarkError(
                    f"templates 0 and {number} name different landmarks: {len(names[0])} and {len(own)} names, not the "
                    f"same or not in the same order: {quoted(dict.fromkeys(differing))}. Use `Landmarks.reorder`."
                )
        if len(names) != count or len(names[0]) != self.num_landmarks:
            raise LandmarkError(
                f"`names` must hold {self.num_landmarks} names for each of {count} templates, got {len(names)} lists of "
                f"{len(names[0]) if names else 0}."
            )
        return names[0]

    def explain_mismatch(self, state_dict: Mapping[str, torch.Tensor]) -> str | None:
        """Say why saved templates do not fit, or return None where they do."""
        saved = state_dict.get("anchors")
        if saved is None or saved.shape[2] == self.num_landmarks:
            return None
        return f"the checkpoint predicts {saved.shape[2]} landmarks, this network {self.num_landmarks}."

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        # Templates are data: the number of those saved replaces the number of those here.
        for name in self.resized_on_load:
            saved, own = state_dict.get(f"{prefix}{name}"), getattr(self, name)
            if saved is not None and saved.shape[1:] == own.shape[1:]:
                setattr(self, name, own.new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


def highest_voxel(maps: torch.Tensor) -> torch.Tensor:
    """Find the first highest voxel of each map ``(B, N, *S)``: ``(B, N, D)`` int64."""
    return torch.stack(torch.unravel_index(maps.flatten(2).argmax(dim=-1), maps.shape[2:]), dim=-1)


def keep_window(maps: torch.Tensor, voxels: torch.Tensor, stride: int, window: int) -> torch.Tensor:
    """Set maps to 0 outside a window around the cell in which a voxel of the image lies.

    Args:
        maps: ``(B, N, *S)``.
        voxels: ``(B, N, D)`` of the image.
        stride: voxels of the image in one cell.
        window: cells on each axis, from ``cell - window // 2``.

    Returns:
        ``(B, N, *S)``.
    """
    cells, _ = cell_of(voxels, stride, maps.shape[2:])
    for axis, size in enumerate(maps.shape[2:]):
        offset = torch.arange(size, device=maps.device) - cells[..., axis, None] + window // 2
        grid = (*cells.shape[:2], *(-1 if other == axis else 1 for other in range(maps.ndim - 2)))
        maps = maps * ((offset >= 0) & (offset < window)).reshape(grid)
    return maps


def place_in_cell(points: torch.Tensor, stride: int) -> torch.Tensor:
    """Tell how far points ``(N, D)`` lie from the middle of their cell, in cells: from -0.5 to 0.5, NaN for missing."""
    place = (points + 0.5) / stride
    return place - place.floor() - 0.5


def enlarge_shifted(maps: torch.Tensor, stride: int, shape: Sequence[int], shift: torch.Tensor) -> torch.Tensor:
    """Enlarge each map linearly and move it by its own part of a cell; the border's values are continued.

    Args:
        maps: ``(B, N, *s)``, the middle of whose cell ``c`` lies at ``(c + 0.5) * stride - 0.5``.
        stride: voxels of the image in one cell.
        shape: ``D`` sizes of the image.
        shift: ``(N, D)`` cells.

    Returns:
        ``(B, N, *shape)``; at voxel x the map's value at x - shift.
    """
    for axis, (size, cells) in enumerate(zip(shape, maps.shape[2:], strict=True)):
        voxels = torch.arange(size, device=maps.device, dtype=maps.dtype)
        where = ((voxels + 0.5) / stride - 0.5 - shift[:, axis, None]).clamp(0, cells - 1)
        weights = 1 - (where.unsqueeze(-1) - torch.arange(cells, device=maps.device)).abs()
        along = maps.movedim(2 + axis, -1)
        moved = along.flatten(2, -2) @ weights.clamp(min=0).transpose(1, 2)
        maps = moved.reshape(*along.shape[:-1], size).movedim(-1, 2 + axis)
    return maps
