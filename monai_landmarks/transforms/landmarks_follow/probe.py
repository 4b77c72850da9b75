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
"""Sending the phantom of ``check_landmarks_follow`` through a pipeline, and what is seen at its end."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from monai.transforms.lazy.functional import apply_pending

from ...data import Landmarks, write_landmarks
from ...geometry import LandmarkError, apply_affine, deformed_with, image_affine, invert_affine
from .measure import (
    ABSENT,
    CUT,
    FLOOR,
    SEEN,
    Blob,
    affine_fit,
    contrast_image,
    find_blob,
    level_ground,
)
from .observation import Observation
from .phantom import ImageWriter, Phantom, write_image
from .ramps import refine_by_ramps, roughness

__all__ = ["Probe", "Step", "steps_of"]

_STRAIGHT = 0.05  # voxels by which blobs lie off an affine map, root mean square: these are as good as straight
_ROUGH = 0.15  # jumps of the map from voxel to voxel, beyond which single voxels say less than a blob
_BENT_SHARE = 0.15  # of the bending by which the mean of a blob may be off its middle
Run = Callable[[Any], Any]


@dataclass
class Step:
    """A pipeline up to and including one transform."""

    label: str
    transform: Any
    run: Run


def steps_of(pipeline: Any) -> list[Step]:
    """Return the growing beginnings of a ``Compose``, with nested ones opened; nothing for other pipelines."""
    if type(pipeline) is not Compose:
        return []
    steps = []
    for i, transform in enumerate(pipeline.transforms):
        if type(transform) is Compose and len(transform.transforms):
            for j, inner in enumerate(transform.transforms):
                run = partial(_run_nested, pipeline, i, transform, j)
                steps.append(Step(f"transforms[{i}].transforms[{j}] {type(inner).__name__}", inner, run))
        else:
            name = getattr(transform, "__name__", type(transform).__name__)
            steps.append(Step(f"transforms[{i}] {name}", transform, partial(pipeline, end=i + 1)))
    return steps


def _run_nested(outer: Compose, i: int, inner: Compose, j: int, item: Any) -> Any:
    before = outer(item, end=i)
    if isinstance(before, list | tuple):
        return [inner(each, end=j + 1) for each in before]
    return inner(before, end=j + 1)


@contextmanager
def _global_random_state(seed: int) -> Iterator[None]:
    """Seed the global generators for what takes no random state of its own, and put them back afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - transforms use this one
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


class Probe:
    """Sends a phantom through a pipeline.

    Args:
        phantom: what is sent.
        pipeline: whose random state is set before every pass.
        image_key: of the item.
        landmarks_key: where the landmarks go in.
        points_key: where the voxel points come out.
        landmarks_space: "world" or "voxel": what goes in.
        points_space: "world", "voxel" or None: what comes out.
        item: the other entries of the item, or a function that changes each item.
        image_file: suffix, or a function that writes the image; None sends a MetaTensor.
        landmarks_file: suffix of the landmark file; None sends a tensor.
        names: of the landmarks, for the file.
        folder: for the files.
        seed: of draw 0.
    """

    def __init__(
        self,
        phantom: Phantom,
        pipeline: Any,
        *,
        image_key: str,
        landmarks_key: str,
        points_key: str,
        landmarks_space: str,
        points_space: str | None,
        item: Mapping[str, Any] | Callable[[dict[str, Any]], Any] | None,
        image_file: str | ImageWriter | None,
        landmarks_file: str | None,
        names: Sequence[str] | None,
        folder: Path,
        seed: int,
    ) -> None:
        self.phantom = phantom
        self.pipeline = pipeline
        self.image_key, self.landmarks_key, self.points_key = image_key, landmarks_key, points_key
        self.points_space = points_space
        self.item = item
        self.image_file, self.landmarks_file = image_file, landmarks_file
        self.names = names
        self.folder = folder
        self.seed = seed
        self.channels = phantom.channels()
        self.sent = phantom.world if landmarks_space == "world" else phantom.places
        self.landmarks_space = landmarks_space
        #: Whether each channel travels by itself, because the pipeline does not keep channels.
        self.one_by_one = image_file is not None
        self._paths: dict[int, Path] = {}
        self._points_path: Path | None = None

    # ------------------------------------------------------------------------------------------------------- sending

    def _item(self, channel: int | None) -> Any:
        item: dict[str, Any] = {} if self.item is None or callable(self.item) else dict(self.item)
        if self.image_file is not None:
            item[self.image_key] = str(self._image_path(int(channel or 0)))
        else:
            values = self.channels if channel is None else self.channels[channel : channel + 1]
            item[self.image_key] = self.phantom.image(values)
        item[self.landmarks_key] = self.sent.clone() if self.landmarks_file is None else str(self._landmarks_path())
        return self.item(item) if callable(self.item) else item

    def _image_path(self, channel: int) -> Path:
        if channel not in self._paths:
            stem = self.folder / f"phantom{channel:02d}"
            values, affine = self.channels[channel], self.phantom.affine
            if callable(self.image_file):
                self._paths[channel] = Path(self.image_file(values.numpy(), affine.numpy(), stem))
            else:
                self._paths[channel] = write_image(values, affine, stem, str(self.image_file))
        return self._paths[channel]

    def _landmarks_path(self) -> Path:
        if self._points_path is None:
            self._points_path = self.folder / f"phantom{self.landmarks_file}"
            names = self.names or [f"L{n}" for n in range(len(self.sent))]
            write_landmarks(Landmarks(self.phantom.world.numpy(), names=tuple(names)), self._points_path)
        return self._points_path

    def send(self, run: Run, draw: int, channel: int | None) -> list[Any]:
        """Send one channel (None: all) and return the output items."""
        seed = self.seed + draw
        with _global_random_state(seed):
            if hasattr(self.pipeline, "set_random_state"):
                self.pipeline.set_random_state(seed=seed)
            out = run(self._item(channel))
        return list(out) if isinstance(out, list | tuple) else [out]

    def observe(self, run: Run, draw: int, within: bool = False) -> list[Observation]:
        """Send the phantom through ``run`` and measure what comes out.

        Args:
            run: from item to item, or to several items.
            draw: number of the random draw.
            within: whether ``run`` is only the beginning of a pipeline, where points may still be world points.

        Returns:
            one observation per output item.

        Raises:
            LandmarkError: for an output in which there is nothing to measure.
        """
        if not self.one_by_one:
            outputs = self.send(run, draw, None)
            images = [self._image(out) for out in outputs]
            if all(image.ndim - 1 == self.phantom.spatial_dims for image, *_ in images) and all(
                len(image) == len(self.channels) for image, *_ in images
            ):
                return [
                    self._measure([out] * len(self.channels), [image] * len(self.channels), None, draw, within)
                    for out, image in zip(outputs, images, strict=True)
                ]
            self.one_by_one = True
        passes = [self.send(run, draw, channel) for channel in range(len(self.channels))]
        if len({len(items) for items in passes}) != 1:
            raise LandmarkError("the pipeline gives another number of items for every blob; send one item at a time.")
        observations = []
        for items in zip(*passes, strict=True):
            seen = [self._image(out) for out in items]
            observations.append(self._measure(list(items), seen, 1, draw, within))
        return observations

    # ------------------------------------------------------------------------------------------------------ measuring

    def _image(self, out: Any) -> tuple[torch.Tensor, torch.Tensor | None, list[str], bool]:
        """Return the image's values, affine, names of waiting operations and whether it is marked as deformed."""
        if not isinstance(out, Mapping) or self.image_key not in out:
            keys = sorted(map(str, out)) if isinstance(out, Mapping) else type(out).__name__
            raise LandmarkError(f"the pipeline's output has no image under {self.image_key!r}; it has {keys}.")
        image = out[self.image_key]
        pending: list[str] = []
        if isinstance(image, MetaTensor) and image.pending_operations:
            for operation in image.pending_operations:
                name = operation.get("class") if isinstance(operation, Mapping) else None
                pending.append(str(getattr(name, "__name__", name or "operation")))
            image = apply_pending(image)[0]
        if not isinstance(image, torch.Tensor):
            try:
                image = torch.as_tensor(np.asarray(image))
            except (TypeError, ValueError) as error:
                raise LandmarkError(f"{self.image_key!r} is {type(image).__name__}, not an image.") from error
        affine = None
        if isinstance(image, MetaTensor) and image.ndim - 1 == self.phantom.spatial_dims:
            affine = image_affine(image)
        values = image.as_tensor() if isinstance(image, MetaTensor) else image
        return values.detach().cpu().double(), affine, pending, deformed_with(image) is not None

    def _measure(self, outs: list[Any], images: list[Any], single: int | None, draw: int, within: bool) -> Observation:
        """Compare points and blobs; ``outs`` and ``images`` have one entry per channel of the phantom."""
        dims, count = self.phantom.spatial_dims, len(self.sent)
        stacks = [image[0] for image in images]
        for stack in stacks:
            if stack.ndim != dims + 1:
                raise LandmarkError(f"the image came out with shape {tuple(stack.shape)}, expected (C, {dims} axes).")
        planes = [stack.mean(dim=0) if single else stack[c] for c, stack in enumerate(stacks)]
        blank = planes[count]
        contrasts = [
            contrast_image(p, blank if p.shape == blank.shape else torch.zeros_like(p)) for p in planes[:count]
        ]
        readings = [self._points(outs[n], images[n], within) for n in range(count)]
        there = torch.isfinite(self.phantom.places).all(dim=-1)
        tops = torch.tensor([float(c.max()) for c, sent in zip(contrasts, there, strict=True) if sent])
        usual = float(tops.median()) if len(tops) else 0.0
        blobs = []
        for n in range(count):
            hint = readings[n].candidates[0][1][n] if n < len(readings[n].candidates[0][1]) else None
            near = blank if blank.shape == contrasts[n].shape else None
            nothing = torch.full((dims,), torch.nan, dtype=torch.float64)
            blobs.append(find_blob(contrasts[n], usual, near, hint) if there[n] else Blob(ABSENT, nothing, nothing))
        low, top = self.phantom.intensity
        level_ground(blobs, (top - low) / max(low, 1e-6))
        places, unsure = self._sharpen(blobs, planes[count + 1 :])
        points, rows, source, problem = _choose(readings, places)
        _, affine, pending, deformed = images[0]
        return Observation(
            draw=draw,
            shape=tuple(stacks[0].shape[1:]),
            affine=affine,
            places=places,
            states=[blob.state for blob in blobs],
            unsure=unsure,
            width=torch.stack([blob.width for blob in blobs]),
            points=points,
            rows=rows,
            source=source,
            pending=pending,
            deformed=deformed,
            twins=sum(blob.twins > 0 for blob in blobs),
            problem=problem,
            outs=outs[:count],
        )

    def _sharpen(self, blobs: list[Blob], ramps: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the places and how well they are known: the mean of a blob that was bent is not its middle."""
        places = torch.stack([blob.place for blob in blobs])
        # What interpolation on the input grid does to a blob grows with the zoom.
        zooms = [max(1.0, float((blob.width / self.phantom.sigma).nan_to_num().max())) for blob in blobs]
        unsure = torch.tensor([FLOOR * z + b.jitter for b, z in zip(blobs, zooms, strict=True)], dtype=torch.float64)
        lopsided = torch.tensor([blob.lopsided for blob in blobs], dtype=torch.float64)
        fit = affine_fit(self.phantom.places, places)
        if fit is not None and (np.isnan(fit[2]) or fit[2] <= _STRAIGHT):
            return places, unsure
        if fit is None or len({ramp.shape for ramp in ramps}) != 1:
            return places, unsure + 2 * lopsided
        coordinates = self.phantom.ramp_to_coordinate(torch.stack(ramps))
        if roughness(coordinates, places) > _ROUGH:
            return places, unsure + _BENT_SHARE * fit[2]
        refined = refine_by_ramps(coordinates, self.phantom.places, blobs, self.phantom.sigma)
        if refined is None:
            return places, unsure + 3 * lopsided + _BENT_SHARE * fit[2]
        places, left = refined
        for blob, place in zip(blobs, places, strict=True):
            if blob.state == SEEN and bool(torch.isnan(place).any()):
                blob.state = CUT  # torn or folded: it has no one place
        return places, torch.full_like(unsure, FLOOR + left)

    def _points(self, out: Mapping[str, Any], image: Any, within: bool) -> _Reading:
        """Read the points of one output item, in every space that they may be in."""
        dims, count = self.phantom.spatial_dims, len(self.sent)
        key = self.points_key if self.points_key in out else self.landmarks_key
        if key not in out:
            keys = sorted(map(str, out))
            raise LandmarkError(
                f"the pipeline's output has no points, neither {self.points_key!r} nor {self.landmarks_key!r}; it has "
                f"{keys}: say points_key=."
            )
        value = out[key]
        if isinstance(value, str | Path):
            raise LandmarkError(f"{key!r} is still a path.")
        plain = torch.as_tensor(np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)).double()
        plain = plain[0] if plain.ndim == 3 and len(plain) == 1 else plain
        if plain.ndim != 2 or plain.shape[-1] != dims:
            nothing = torch.full((count, dims), torch.nan, dtype=torch.float64)
            return _Reading([(f"{key!r}", nothing)], f"the points came out with shape {tuple(plain.shape)}")
        unchanged = plain.shape == self.sent.shape and torch.allclose(
            plain, self.sent, atol=1e-9, rtol=0, equal_nan=True
        )
        if within:  # the conversion may be still to come
            spaces = [self.landmarks_space] if unchanged else ["voxel", "world"]
        elif self.points_space:
            spaces = [self.points_space]
        elif key == self.points_key:
            spaces = ["voxel"]
        else:
            spaces = [self.landmarks_space] if unchanged else [self.landmarks_space, "voxel"]
        found = []
        for space in dict.fromkeys(spaces):
            affine = image[1]
            if space == "voxel":
                found.append((f"{key!r}, in voxels", plain))
            elif affine is not None:
                text = f"{key!r}, world millimetres through the affine of the output image"
                found.append((text, apply_affine(plain, invert_affine(affine))))
        if found:
            return _Reading(found, "")
        nothing = torch.full((count, dims), torch.nan, dtype=torch.float64)
        return _Reading([(f"{key!r}", nothing)], "the points are world millimetres and the output image has no affine")


@dataclass
class _Reading:
    """Points of one item in the spaces they may be in, and why there are none."""

    candidates: list[tuple[str, torch.Tensor]]
    problem: str


def _choose(readings: list[_Reading], places: torch.Tensor) -> tuple[torch.Tensor, int, str, str]:
    """Put together the row of each landmark from its item, in the space that fits the blobs better."""
    best: tuple[torch.Tensor, int, str, str] | None = None
    least = float("inf")
    for choice in range(min(len(reading.candidates) for reading in readings)):
        points = torch.full_like(places, torch.nan)
        for n, reading in enumerate(readings):
            rows = reading.candidates[choice][1]
            if n < len(rows):
                points[n] = rows[n]
        off = (points - places).norm(dim=-1)
        off = off[torch.isfinite(off)]
        median = float(off.median()) if len(off) else float("inf")
        if best is None or median < least:
            text, rows = readings[0].candidates[choice]
            best, least = (points, len(rows), text, readings[0].problem), median
    assert best is not None  # every reading has a candidate
    return best
