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
"""The second half of the way in ``check_landmarks_follow``: heatmaps that a pipeline draws, and points back to the world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...geometry import LandmarkError, apply_affine, inside, invert_affine, plain_tensor
from ..spatial import LandmarksImageToWorld
from .decoded import compare_decoded
from .heatmap_path import Decode
from .observation import Case, Observation
from .phantom import Phantom
from .report import Finding, FollowStage, Severity

__all__ = ["check_item_heatmaps", "check_world"]


def check_item_heatmaps(
    seen: Sequence[Observation], key: str, decode: Decode, tolerance: float
) -> tuple[FollowStage, list[Finding]]:
    """Decode the heatmaps that the pipeline itself drew, and compare with its points.

    Args:
        seen: its outputs.
        key: of the heatmaps ``(N, *S)`` in the output item.
        decode: see ``check_landmarks_follow``.
        tolerance: in voxels.
    """
    residuals, places, points = [], [], []
    for one in seen:
        out = one.outs[0]
        if key not in out:
            raise LandmarkError(f"encode={key!r} names no entry of the output; it has {sorted(map(str, out))}.")
        maps = plain_tensor(torch.as_tensor(out[key]))
        count, dims = one.points.shape
        if tuple(maps.shape) != (count, *one.shape):
            text = (
                f"the heatmaps under {key!r} have shape {tuple(maps.shape)} where landmarks and image give "
                f"{(count, *one.shape)}: they are not on the grid of the image as it is now. MONAI's GenerateHeatmapd "
                "takes the grid of the file; GenerateLandmarkHeatmapd takes that of the image."
            )
            nothing = torch.full((len(seen), count, dims), torch.nan, dtype=torch.float64)
            return FollowStage("decoded minus points", nothing, nothing[:, 0]), [
                Finding(Severity.FAULT, "heatmap_grid", text)
            ]
        found = decode(maps[None].float())
        found = plain_tensor(torch.as_tensor(found[0] if isinstance(found, tuple | list) else found))
        found = found.detach().double()[0]
        within = inside(one.points, one.shape)
        residuals.append((found - one.points).masked_fill(~within.unsqueeze(-1), torch.nan))
        places.append(one.points[within])
        points.append(found[within])
    sizes = [Case(one, one).voxel_size for one in seen]
    unknown = torch.full((seen[0].points.shape[-1],), torch.nan, dtype=torch.float64)
    stage = FollowStage(
        "decoded minus points", torch.stack(residuals), torch.stack([unknown if s is None else s for s in sizes])
    )
    size = seen[0].shape
    return stage, compare_decoded(torch.cat(places), torch.cat(points), size, tolerance)


def check_world(
    seen: Sequence[Observation],
    phantom: Phantom,
    image_key: str,
    to_world: Callable[[torch.Tensor, Any], Any] | None,
    tolerance: float,
) -> tuple[FollowStage, list[Finding]]:
    """Turn the pipeline's points into world millimetres and compare with what was sent.

    Args:
        seen: outputs of the pipeline.
        phantom: what was sent.
        image_key: of the image in the output items.
        to_world: see ``check_landmarks_follow``.
        tolerance: in voxels.
    """
    convert = LandmarksImageToWorld() if to_world is None else to_world
    residuals, sizes, findings = [], [], []
    nothing = torch.full_like(phantom.places, torch.nan)
    for one in seen:
        size = Case(one, one).voxel_size
        sizes.append(nothing[0] if size is None else size)
        if one.deformed or one.affine is None or one.problem:
            residuals.append(nothing)
            continue
        items = {id(out): out for out in one.outs}
        worlds = {
            name: plain_tensor(torch.as_tensor(convert(one.points, out[image_key]))).double()
            for name, out in items.items()
        }
        world = torch.stack([worlds[id(out)][row] for row, out in enumerate(one.outs)])
        inverse = invert_affine(one.affine)
        residuals.append(apply_affine(world, inverse) - apply_affine(phantom.world, inverse))
    stage = FollowStage("world minus truth", torch.stack(residuals), torch.stack(sizes))
    unit = "px" if phantom.spatial_dims == 2 else "voxel"
    if stage.worst > tolerance:
        text = (
            f"points that are led back to the world are up to {stage.worst:.3f} {unit} ({_worst_mm(stage):.3f} mm) from "
            "where they were sent. If the points fit the blobs, the way back is wrong: it must use the affine of the "
            "image as it left the pipeline (LandmarksImageToWorldd), not that of the file, nor spacing alone."
        )
        findings.append(Finding(Severity.FAULT, "world", text))
    if bool(torch.isnan(stage.residuals).all()):
        text = "the way back to the world was not checked: the image has no affine, or was deformed."
        findings.append(Finding(Severity.NOTE, "world_unchecked", text))
    return stage, findings


def _worst_mm(stage: FollowStage) -> float:
    lengths = stage.residuals_mm.norm(dim=-1)
    return float(lengths[torch.isfinite(lengths)].max())
