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
"""What the landmark metrics share: the buffer is the error table, gathered from all processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from monai.metrics import CumulativeIterationMetric
from monai.utils import evenly_divisible_all_gather
from monai.utils.dist import get_dist_device

from monai_landmarks.geometry import LandmarkError

from .functional import outside_truths, plain, radial_errors

__all__ = ["LandmarkMetric"]


class LandmarkMetric(CumulativeIterationMetric):
    """Collect error tables batch by batch, and over processes; a subclass reduces the whole table in ``aggregate``.

    ``metric(y_pred, y)`` takes points as MONAI's engines deliver them: a list of ``(N, D)``, decollated, or one tensor
    ``(B, N, D)``, ``MetaTensor`` or not. A channel axis of size one before ``N``, which MONAI's own point transforms
    need, is removed. Optional ``spacing`` and ``state`` go to :func:`radial_errors`. The returned value and the buffer
    are that function's error table.

    With a ``state``, landmarks outside the image are left out of the score and counted in ``num_outside``. It comes with
    every batch or with none.

    Processes may have different numbers of images, and none. Let the sampler not repeat images to even the numbers out
    (``DistributedSampler(even_divisible=False)``): a repeated image counts twice in every mean.

    Attributes:
        higher_is_better: direction of the aggregated number.
        unit: of the aggregated number, given points in millimetres.
    """

    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = "mm"
    # How many tables (B, N) a batch gives: the errors, what lies outside, and those that a subclass appends.
    _num_tables: ClassVar[int] = 2

    @property
    def num_missed(self) -> int:
        """Landmarks so far that the truth has and the prediction lacks, over all processes."""
        table = self.get_buffer()
        return 0 if table is None else int(torch.isinf(table).sum())

    @property
    def num_outside(self) -> int:
        """Landmarks so far that were not scored because they lie outside the image, over all processes."""
        outside = self.outside()
        return 0 if outside is None else int(outside.sum())

    def outside(self) -> torch.Tensor | None:
        """Tell which landmarks were not scored because they lie outside the image, over all processes.

        Returns:
            bool tensor ``(B, N)`` beside :meth:`table`, or None where no batch came with a ``state``.
        """
        buffers = super().get_buffer()
        if buffers is None:
            return None
        unknown = torch.isnan(buffers[1])
        if bool(unknown.all()):
            return None
        if bool(unknown.any()):
            raise LandmarkError("some processes gave a `state` with their points and others did not.")
        return buffers[1].bool()

    def get_buffer(self) -> torch.Tensor | None:
        """Give the error table of all images so far, over all processes; None if nothing was added yet."""
        buffers = super().get_buffer()
        return None if buffers is None else buffers[0]

    def __call__(self, y_pred: Any, y: Any = None, **kwargs: Any) -> torch.Tensor:
        """Add a batch.

        Args:
            y_pred: predicted points, ``B`` times ``(N, D)``.
            y: true points of the same shape.
            kwargs: ``spacing`` and ``state``, see :func:`radial_errors`; ``state`` as a tensor ``(B, N)`` or a list of
                ``(N,)``.

        Returns:
            the error table of the batch, float64 ``(B, N)``.

        Raises:
            LandmarkError: for input that does not fit together, or to the batches before.
        """
        tables: Any = super().__call__(y_pred, y, **kwargs)
        return tables[0]

    def table(self) -> torch.Tensor:
        """Give the error table of all images so far, over all processes.

        Returns:
            float64 tensor ``(B, N)``.

        Raises:
            ValueError: if nothing was added yet.
        """
        table = self.get_buffer()
        if table is None:
            raise ValueError(
                f"{type(self).__name__} has no data to aggregate: call it with predicted and true points first. In an "
                "evaluator this means that the data set is empty."
            )
        return table

    def _compute_list(self, y_pred: Any, y: Any = None, **kwargs: Any) -> Any:
        if y is None or len(y_pred) != len(y):
            count = "none" if y is None else len(y)
            raise LandmarkError(f"each image needs predicted and true points, got {len(y_pred)} and {count}.")
        return self._compute_tensor(stack_items(y_pred, "y_pred"), stack_items(y, "y"), **kwargs)

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> list[torch.Tensor]:
        if y is None:
            raise LandmarkError("the true points `y` are needed beside the predicted ones.")
        pred, true = without_channel(plain(y_pred)), without_channel(plain(y))
        if pred.ndim != 3:
            raise LandmarkError(
                f"a batch of points must have shape (B, N, D), got {tuple(pred.shape)}: for one image pass `[points]`."
            )
        state = kwargs.get("state")
        table = radial_errors(pred, true, kwargs.get("spacing"), state)
        # Not a bool: NaN says that nobody asked, which is another thing than nobody being outside.
        unknown = torch.full_like(table, torch.nan)
        outside = unknown if state is None else outside_truths(true, state).to(table)
        self._check_alike(table.shape[1], state is not None)
        return [table, outside]

    def _check_alike(self, width: int, with_state: bool) -> None:
        if not self._buffers or not self._buffers[0]:
            return
        before, outside = self._buffers[0][0], self._buffers[1][0]
        if before.shape[0] != width:
            raise LandmarkError(
                f"this batch has {width} landmarks, the ones before had {before.shape[0]}. One metric "
                "holds one landmark list: keep missing landmarks as NaN, or use one metric for each data set."
            )
        if bool(torch.isnan(outside).any()) == with_state:
            raise LandmarkError(
                f"this batch comes {'with' if with_state else 'without'} a `state`, the ones before came "
                f"{'without' if with_state else 'with one'}: landmarks outside the image would be left out of some images "
                "and scored in others."
            )

    def _sync(self) -> None:
        """Gather the table. A process without images takes part too: staying away would stall all the others."""
        if self._synced:
            return
        rows = self._buffers if self._buffers and self._buffers[0] else None
        # One table side by side, so that the processes meet once.
        local = None if rows is None else torch.cat([torch.stack(each) for each in rows], dim=1)
        device = get_dist_device() or (local.device if local is not None else torch.device("cpu"))
        own = torch.tensor([0 if local is None else local.shape[1]], device=device)
        widths = sorted(set(evenly_divisible_all_gather(own, concat=True).tolist()) - {0})
        if len(widths) > 1:
            counts = [width // self._num_tables for width in widths]
            raise LandmarkError(f"the processes hold tables with different numbers of landmarks: {counts}.")
        if not widths:
            return
        share = torch.zeros(0, widths[0], dtype=torch.float64) if local is None else local
        gathered = evenly_divisible_all_gather(share.to(device), concat=True)
        self._synced_tensors = list(gathered.chunk(self._num_tables, dim=1))
        self._synced = True


def without_channel(points: torch.Tensor) -> torch.Tensor:
    """Remove the channel axis of size one that MONAI's own point transforms need."""
    return points.squeeze(1) if points.ndim == 4 and points.shape[1] == 1 else points


def stack_items(items: Sequence[Any], name: str) -> torch.Tensor:
    """Stack what belongs to the images of a batch, without meta data, in float64."""
    tensors = [plain(item) for item in items]
    if not tensors:
        raise LandmarkError(f"`{name}` is an empty list: there is no image in this batch.")
    shapes = {tuple(t.shape) for t in tensors}
    if len(shapes) > 1:
        raise LandmarkError(
            f"the images of a batch must have the same landmarks, `{name}` has the shapes {sorted(shapes)}: keep "
            "missing landmarks as NaN rows."
        )
    return torch.stack(tensors)
