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
"""Errors and correlation of landmarks as fractions of their images, as an Ignite handler."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from ignite.metrics.metric import reinit__is_reduced
from monai.handlers import IgniteMetricHandler
from monai.utils import MetaKeys

from monai_landmarks.geometry import LandmarkError, voxel_sizes
from monai_landmarks.metrics.base import stack_items
from monai_landmarks.metrics.image_fractions import ImageFractionMetric

from .metrics import as_it_is

__all__ = ["ImageFractions"]


class ImageFractions(IgniteMetricHandler):
    """Compute the mean squared error or the correlation of an epoch's 2D landmarks, as fractions of the image files.

    See :func:`monai_landmarks.metrics.fraction_mse` and :func:`~monai_landmarks.metrics.fraction_pearson`. What is
    divided by is the extent of the file, before it was put on a grid: its pixels times their size, which its meta data say.

    Args:
        statistic: ``"mse"`` or ``"pearson"``; a handler records one number.
        output_transform: gives ``(predicted points, true points, images)`` from ``engine.state.output``, one of each per
            image, as ``monai.handlers.from_engine(["pred_points", "true_points", "image"])`` does; points in the world of
            the images.
        save_details: whether to keep the table ``(B, N)`` of radial errors, in fractions.

    Raises:
        ValueError: for another statistic.

    Example:
        >>> from ignite.engine import Engine
        >>> from monai.data import MetaTensor
        >>> film = MetaTensor(torch.zeros(1, 8, 8), torch.eye(3), {"spatial_shape": (100, 200)})
        >>> engine = Engine(lambda engine, batch: batch)
        >>> ImageFractions("mse").attach(engine, "fraction_mse")
        >>> _ = engine.run([([torch.full((1, 2), 10.0)], [torch.zeros(1, 2)], [film])])
        >>> round(engine.state.metrics["fraction_mse"], 6)
        0.00625
    """

    def __init__(
        self, statistic: str = "mse", output_transform: Callable = as_it_is, save_details: bool = False
    ) -> None:
        super().__init__(
            metric_fn=ImageFractionMetric(statistic),
            output_transform=partial(_with_extents, output_transform),
            save_details=save_details,
        )

    @reinit__is_reduced
    def update(self, output: Any) -> None:
        """Add a batch of predicted points, true points and extents."""
        pred, true, size = output
        self.metric_fn(pred, true, size=size)


def _with_extents(output_transform: Callable, output: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stack the parts: Ignite takes lists apart by image and refuses more than two."""
    pred, true, images = output_transform(output)
    return stack_items(pred, "y_pred"), stack_items(true, "y"), torch.stack([file_extent(image) for image in images])


def file_extent(image: Any) -> torch.Tensor:
    """Give the extent ``(D,)`` of the file that an image was loaded from, in the unit of its world.

    Args:
        image: channel-first MetaTensor, after whatever put it on another grid.

    Raises:
        LandmarkError: for an image without these meta data.
    """
    meta = getattr(image, "meta", {})
    if MetaKeys.SPATIAL_SHAPE not in meta:
        raise LandmarkError(
            "fractions of an image need the extent of its file, and this one has no meta data of it: hand the loaded image "
            'on, from_engine(["pred_points", "true_points", "image"]), with PrepareLandmarkBatch(keep_meta=True).'
        )
    affine = torch.as_tensor(meta.get(MetaKeys.ORIGINAL_AFFINE, image.affine), dtype=torch.float64)
    return torch.as_tensor(meta[MetaKeys.SPATIAL_SHAPE], dtype=torch.float64) * voxel_sizes(affine)
