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
"""Landmarks of images of any size, from a network that was trained on windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from monai.inferers import Inferer
from monai.utils import convert_to_dst_type, fall_back_tuple, look_up_option, optional_import

from ..geometry import LandmarkError, plain_tensor
from ..heatmaps import DecodeMethod
from ..heatmaps.candidates import CandidateSearch
from .max_merger import as_dtype, fill_uncovered, merge_maximum
from .streaming import RollingMaximum
from .tiling import overlap_voxels, window_starts

__all__ = ["LandmarkSlidingWindowInferer"]

MODES = ("streaming", "dense")
Start = tuple[int, ...]
Windows = list[tuple[int, Start]]


class LandmarkSlidingWindowInferer(Inferer):
    """Run a heatmap network on windows of the training size and merge them by maximum (Payer et al. 2019, 4.2).

    ``mode="dense"`` returns the merged heatmaps. ``mode="streaming"`` returns the landmarks and their candidates, the same
    ones that :func:`~monai_landmarks.heatmaps.decode_heatmaps` and
    :func:`~monai_landmarks.heatmaps.find_candidates` find in the dense heatmaps, but keeps only the part of them that a
    later window can still change: memory for one window length along the axis with the most windows, not for the volume.

    Windows lie ``roi_size - overlap`` apart, the last is flush with the image's end, and an image shorter than the window
    is centred in it and padded with ``pad_value``. There are no gradients.

    Args:
        roi_size: of the window, one number per axis; 0, -1 or None is the whole axis.
        overlap: of neighbouring windows: a share below 1 or a number of voxels, for all axes or each.
        sw_batch_size: windows that go through the network together.
        mode: "streaming" or "dense".
        method: decoder, one of :class:`~monai_landmarks.heatmaps.DecodeMethod`. Streaming only, as the next five.
        options: of the method.
        max_candidates: see :func:`~monai_landmarks.heatmaps.find_candidates`.
        min_distance: see there.
        min_confidence: see there; it does not touch ``points``.
        min_relative: see there.
        pad_value: intensity of air, outside a short image.
        skip_air: a window without a voxel above this intensity is not run; where no window was run the response is 0.
            None runs all.
        sw_device: where windows are run, that of the network; None is the image's.
        device: of the merged heatmaps or of the buffer; None is the image's for "dense" and ``sw_device`` for "streaming".
        amp: run the network under autocast in "bfloat16" or "float16"; None does not.
        buffer_dtype: of the merged heatmaps or of the buffer.
        progress: show a progress bar (needs tqdm).

    Shapes: image ``(B, C, *S)``, network ``(W, C, *roi_size)`` to ``(W, N, *roi_size)``. Dense: ``(B, N, *S)``, with the
    image's meta data if it has any. Streaming: a dictionary of plain tensors on the image's device, in voxels of the image:
    ``points (B, N, D)``, NaN where a map is empty, ``confidence (B, N)``, ``candidates (B, N, K, D)`` and
    ``candidate_confidence (B, N, K)``, NaN where there are fewer than K.

    Raises:
        ValueError: for an option that does not exist or is out of range; at a call, for a network whose output is not a
            tensor on the window's grid.
        LandmarkError: for an image with NaN or of another dimension, one that is air only, or a network that returns NaN.

    Example:
        >>> image = torch.zeros(1, 1, 20, 90)
        >>> image[0, 0, 12, 70] = 1.0
        >>> blur = torch.nn.AvgPool2d(3, stride=1, padding=1)
        >>> infer = LandmarkSlidingWindowInferer((16, 32), method="argmax", max_candidates=1)
        >>> infer(image, lambda window: image.new_tensor(9.0) * blur(blur(window)))["points"]
        tensor([[[12., 70.]]])
    """

    def __init__(
        self,
        roi_size: Sequence[int | None],
        overlap: float | Sequence[float] = 0.5,
        sw_batch_size: int = 1,
        mode: str = "streaming",
        method: DecodeMethod | str = "quadratic",
        options: Mapping[str, Any] | None = None,
        max_candidates: int = 5,
        min_distance: int | Sequence[int] = 4,
        min_confidence: float = 0.0,
        min_relative: float = 0.0,
        pad_value: float = 0.0,
        skip_air: float | None = None,
        sw_device: torch.device | str | None = None,
        device: torch.device | str | None = None,
        amp: str | torch.dtype | None = None,
        buffer_dtype: str | torch.dtype = torch.float32,
        progress: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(roi_size, (int, str)) or len(tuple(roi_size)) not in (2, 3):
            raise ValueError(f"`roi_size` must give one number for each of 2 or 3 axes, got {roi_size!r}.")
        self.roi_size = tuple(size if size and size > 0 else None for size in roi_size)
        self.overlap = overlap_voxels(overlap, [size or 2**31 for size in self.roi_size])
        if not isinstance(sw_batch_size, int) or sw_batch_size < 1:
            raise ValueError(f"`sw_batch_size` must be a whole number >= 1, got {sw_batch_size!r}.")
        self.sw_batch_size, self.mode = sw_batch_size, look_up_option(mode, MODES)
        self.search_options: dict[str, Any] = {
            "max_candidates": max_candidates,
            "min_distance": min_distance,
            "min_confidence": min_confidence,
            "min_relative": min_relative,
            "method": method,
            "options": dict(options or {}),
        }
        CandidateSearch((1,) * len(self.roi_size), **self.search_options)  # are they in range?
        self.pad_value, self.skip_air = pad_value, skip_air
        self.sw_device, self.device = sw_device, device
        self.amp = None if amp is None else as_dtype(amp)
        if self.amp not in (None, torch.bfloat16, torch.float16):
            raise ValueError(f"`amp` must be bfloat16, float16 or None, got {amp!r}.")
        self.buffer_dtype, self.progress = as_dtype(buffer_dtype), progress
        if progress and not optional_import("tqdm")[1]:
            raise ValueError("`progress=True` needs the package tqdm: install it, or leave the progress bar out.")

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        image, names = plain_tensor(inputs), _names(inputs)
        _check_image(image, len(self.roi_size), names)
        shape = tuple(image.shape[2:])
        roi = fall_back_tuple(self.roi_size, shape)
        starts = [window_starts(*each) for each in zip(shape, roi, self.overlap, strict=True)]
        axis = max(range(len(roi)), key=lambda a: len(starts[a]))
        windows = sorted(product(range(len(image)), product(*starts)), key=lambda w: (w[1][axis], w))
        run = self._responses(image, roi, windows, names, lambda crops: network(crops, *args, **kwargs))
        if self.mode == "streaming":
            return self._stream(image, run, axis, starts[axis], roi[axis])
        merged = self._dense(image, run)
        return convert_to_dst_type(merged, inputs, dtype=merged.dtype, device=merged.device)[0]

    def _dense(self, image: torch.Tensor, run: Iterator[tuple[int, Start, torch.Tensor]]) -> torch.Tensor:
        merged = None
        for item, start, values in run:
            if merged is None:
                lead, device = (len(image), values.shape[1]), self.device or image.device
                merged = torch.full((*lead, *image.shape[2:]), -math.inf, dtype=self.buffer_dtype, device=device)
            merge_maximum(merged[item : item + 1], values, start)
            del values  # or it would stay while the next window is run
        assert merged is not None
        if self.skip_air is not None:
            fill_uncovered(merged, -math.inf, 0.0)
        return merged

    def _stream(
        self,
        image: torch.Tensor,
        run: Iterator[tuple[int, Start, torch.Tensor]],
        axis: int,
        starts: Sequence[int],
        size: int,
    ) -> dict[str, torch.Tensor]:
        shape = tuple(image.shape[2:])
        search = CandidateSearch(shape, **self.search_options)
        rolling = None
        for item, start, values in run:
            if rolling is None:
                lead, device = (len(image), values.shape[1]), torch.device(self.device or values.device)
                sparse = self.skip_air is not None
                rolling = RollingMaximum(lead, shape, axis, starts, size, search, self.buffer_dtype, device, sparse)
            rolling.merge(values, item, start)
            del values
        assert rolling is not None
        rolling.close()
        best, candidates = search.highest(), search.result()
        found = {"points": best.points, "confidence": best.confidence}
        found |= {"candidates": candidates.points, "candidate_confidence": candidates.confidence}
        return {key: value.to(image.device) for key, value in found.items()}

    def _responses(
        self, image: torch.Tensor, roi: Start, windows: Windows, names: Sequence[str], network: Callable[..., Any]
    ) -> Iterator[tuple[int, Start, torch.Tensor]]:
        """Yield the item, the start and the response ``(1, N, *roi)`` of each window that is not air, in order."""
        device = torch.device(self.sw_device or image.device)
        batch: Windows = []
        crops: list[torch.Tensor] = []
        ran = False
        shown = optional_import("tqdm", name="tqdm")[0](windows, unit="window") if self.progress else windows
        for number, (item, start) in enumerate(shown, 1):
            crop = _crop(image[item], start, roi, self.pad_value)
            if self.skip_air is None or bool(crop.max() > self.skip_air):
                batch.append((item, start))
                crops.append(crop.to(device))
            if crops and (len(crops) == self.sw_batch_size or number == len(windows)):
                with torch.autocast(device.type, dtype=self.amp, enabled=self.amp is not None):
                    values = network(torch.stack(crops))
                values = _check_response(values, roi, batch, names)
                for (item, start), response in zip(batch, values.split(1), strict=True):
                    yield item, start, response
                ran, batch, crops = True, [], []
                del values, response
        if not ran:
            raise LandmarkError(
                f"no voxel of {', '.join(names)} is above `skip_air` = {self.skip_air}: it is air only, or its intensities "
                "were scaled differently from what `skip_air` was set for."
            )


def _names(inputs: torch.Tensor) -> list[str]:
    """What each image of a batch is called in messages."""
    known = getattr(inputs, "meta", {}).get("filename_or_obj")
    known = [known] * len(inputs) if isinstance(known, str) else known or []
    if len(known) == len(inputs):
        return [str(name) for name in known]
    return [f"image {number}" for number in range(len(inputs))]


def _check_image(image: torch.Tensor, dims: int, names: Sequence[str]) -> None:
    if image.ndim != dims + 2 or 0 in image.shape:
        raise LandmarkError(
            f"the image must have shape (B, C, *S) with the {dims} spatial axes of `roi_size`, got {tuple(image.shape)}: a "
            "single image needs a batch axis, and of a series over time one frame at a time is wanted."
        )
    # A maximum is NaN where anything is, and needs no memory.
    for part, name in zip(image, names, strict=True):
        if bool(part.max().isnan()):
            raise LandmarkError(
                f"{name} has {int(part.isnan().sum())} NaN voxels: a resampling that left the image, or a damaged file? "
                "Fill them with the intensity of air before."
            )


def _crop(image: torch.Tensor, start: Start, size: Start, pad_value: float) -> torch.Tensor:
    """The window of ``image (C, *S)`` from voxel ``start`` on, with ``pad_value`` outside."""
    pad: list[int] = []
    for axis, (first, width) in enumerate(zip(start, size, strict=True), 1):
        before, after = max(0, -first), max(0, first + width - image.shape[axis])
        image = image.narrow(axis, first + before, width - before - after)
        pad[:0] = [before, after]
    return F.pad(image, pad, value=pad_value) if any(pad) else image


def _check_response(values: Any, roi: Start, batch: Windows, names: Sequence[str]) -> torch.Tensor:
    if not isinstance(values, torch.Tensor):
        raise ValueError(
            f"the network must return one tensor of heatmaps, got {type(values).__name__}: put it in evaluation mode, or "
            "wrap it in a function that picks the heatmaps."
        )
    values = plain_tensor(values)
    if values.ndim != len(roi) + 2 or len(values) != len(batch) or tuple(values.shape[2:]) != roi:
        raise ValueError(
            f"the network must return heatmaps (W, N, *S) on the grid of its windows {(len(batch), '...', *roi)}, got "
            f"{tuple(values.shape)}: bring the output of a network with a stride to the input's size, or choose a "
            "`roi_size` that it divides."
        )
    for (item, start), broken in zip(batch, values.flatten(1).amax(dim=1).isnan().tolist(), strict=True):
        if broken:
            where = ", ".join(f"{first}:{first + width}" for first, width in zip(start, roi, strict=True))
            raise LandmarkError(
                f"the network returned NaN in the window [{where}] of {names[item]}: weights that diverged in training, or "
                "float16 that overflowed (use amp='bfloat16')."
            )
    return values
