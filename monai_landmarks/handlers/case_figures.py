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
"""Cases of a running engine, ready to be drawn: found in its batch and output, with points in voxels of their image."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from monai.config import PathLike
from monai.data import decollate_batch

from ..geometry import LandmarkError, apply_affine, invert_affine
from ..metrics import image_level_errors
from ..report import case_errors, landmark_overlay
from ..transforms.save import case_of
from ..transforms.spatial import as_points, reference_affine

if TYPE_CHECKING:
    from ignite.engine import Engine
    from matplotlib.figure import Figure

__all__ = ["FACTS", "CaseReader", "DrawableCase", "draw_case", "figure_path"]

FACTS = "Description"
"""The PNG text chunk that says, as JSON, which case a figure shows and how large its error is."""


def figure_path(folder: PathLike, case: str, suffix: str = "") -> Path:
    """Name the file of a case's figure.

    Args:
        folder: of the figures.
        case: name of the case. One that is no file name (``a/b``) has its odd characters replaced and a short hash of
            the name added, so that two cases never share a file.
        suffix: put behind the name, after an underscore.

    Example:
        >>> figure_path("figures", "001").as_posix(), figure_path("figures", "ct/7", "val").as_posix()
        ('figures/001.png', 'figures/ct_7-4707e92e_val.png')
    """
    safe = re.sub(r"[^\w.+-]", "_", case).strip(".") or "_"
    if safe != case:
        safe = f"{safe}-{hashlib.sha256(case.encode()).hexdigest()[:8]}"
    return Path(folder) / f"{safe}{'_' + suffix if suffix else ''}.png"


@dataclass(frozen=True)
class DrawableCase:
    """One case, ready to be drawn."""

    case: str
    image: Any
    affine: torch.Tensor
    prediction: torch.Tensor | None
    truth: torch.Tensor | None
    heatmaps: Any
    error: float | None
    missed: int

    @property
    def rank(self) -> tuple[float, float]:
        """Worse cases are larger: first by misses, then by error."""
        return (float(self.missed), -1.0 if self.error is None else self.error)

    @property
    def facts(self) -> dict[str, Any]:
        return {"case": self.case, "error": self.error, "missed": self.missed}


class CaseReader:
    """Takes the cases of an iteration out of ``engine.state``, with their points in voxels of their image.

    Predictions are in the output; images, which no transform made, stay in the batch. Both are looked at together.
    """

    def __init__(
        self,
        image_key: str,
        prediction_key: str | None,
        truth_key: str | None,
        heatmap_key: str | None,
        case_key: str,
        batch_transform: Callable[[Any], Any],
        output_transform: Callable[[Any], Any],
    ) -> None:
        self.image_key, self.case_key = image_key, case_key
        self.prediction_key, self.truth_key, self.heatmap_key = prediction_key, truth_key, heatmap_key
        self.batch_transform, self.output_transform = batch_transform, output_transform

    def items(self, engine: Engine) -> list[dict[Any, Any]]:
        """One dictionary per case of the iteration."""
        batch = _dictionaries(self.batch_transform(engine.state.batch), "batch")
        output = _dictionaries(self.output_transform(engine.state.output), "output")
        if len(batch) != len(output):
            raise LandmarkError(
                f"the batch has {len(batch)} items and the output {len(output)}: they must be the same cases."
            )
        return [{**b, **o} for b, o in zip(batch, output, strict=True)]

    def read(self, item: Mapping[Any, Any]) -> DrawableCase:
        """One case with its errors."""
        image = item.get(self.image_key)
        if image is None or (self.prediction_key not in item and self.truth_key not in item):
            lacking = f"image {self.image_key!r}" if image is None else f"{self.prediction_key!r} or {self.truth_key!r}"
            raise LandmarkError(
                f"a figure needs {lacking}, the engine's batch and output have {sorted(map(str, item))}: give the keys "
                "of the image and of points in world millimetres, as LandmarksImageToWorldd makes them in the "
                "postprocessing."
            )
        if self.heatmap_key is not None and self.heatmap_key not in item:
            raise LandmarkError(f"there are no heatmaps {self.heatmap_key!r} among {sorted(map(str, item))}.")
        affine = reference_affine(image, image.ndim - 1)
        pred, true = (self._voxels(item, key, affine) for key in (self.prediction_key, self.truth_key))
        error, missed = None, 0
        if pred is not None and true is not None:
            errors = case_errors(pred, true, affine)
            mean = float(image_level_errors(errors[None])[0])
            error, missed = (mean if mean == mean else None), int(torch.isinf(errors).sum())
        return DrawableCase(
            self._case(item, image), image, affine, pred, true, item.get(self.heatmap_key), error, missed
        )

    def _voxels(self, item: Mapping[Any, Any], key: str | None, affine: torch.Tensor) -> torch.Tensor | None:
        if key is None or item.get(key) is None:
            return None
        points = as_points(item[key], name=key).detach().cpu()
        # MONAI's own point transforms carry a channel axis.
        points = points[0] if points.ndim == 3 and points.shape[0] == 1 else points
        return apply_affine(points, invert_affine(affine))

    def _case(self, item: Mapping[Any, Any], image: Any) -> str:
        if self.case_key in item:
            name = item[self.case_key]
            return str(name.item() if isinstance(name, torch.Tensor) else name)
        return case_of(image)[0]


def _dictionaries(value: Any, what: str) -> list[Mapping[Any, Any]]:
    items = decollate_batch(dict(value)) if isinstance(value, Mapping) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, Mapping) for item in items):
        raise LandmarkError(
            f"the engine's {what} must be dictionaries, one per case or collated, got {type(value).__name__}: give "
            f"`{what}_transform`."
        )
    return list(items)


def draw_case(drawn: DrawableCase, names: Sequence[str] | None, title: str, **options: Any) -> Figure:
    """Draw a case as :func:`monai_landmarks.report.landmark_overlay` does, with its ``options``."""
    return landmark_overlay(
        drawn.image,
        drawn.prediction,
        drawn.truth,
        names,
        affine=drawn.affine,
        title=title,
        heatmaps=drawn.heatmaps,
        **options,
    )
