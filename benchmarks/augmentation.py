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
"""Spatial augmentation: one map and one interpolation, against MONAI's chain of transforms for the same work.

MONAI's chain turns, scales and shifts (``RandAffined``), deforms (``Rand2DElasticd``, ``Rand3DElasticd``) and brings the
result onto the output grid (``Resized``): three interpolations. It carries no points; ours carries 26 through the inverse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Rand2DElasticd, Rand3DElasticd, RandAffined, Resized

from monai_landmarks.transforms import RandSpatialLandmarksd

from .timing import Case, Run, time_calls

__all__ = ["TITLE", "cases"]

TITLE = "Spatial augmentation (size: the output; detail: what is left of white noise above half the Nyquist frequency)"
LANDMARKS = 26
FLOAT_BYTES = 4
ROTATE, SCALE = 0.25, 0.2
Shape = tuple[int, ...]


def larger(shape: Shape) -> Shape:
    """An input grid somewhat larger than the output's."""
    return tuple(round(1.1 * size) for size in shape)


def item(shape: Shape) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, *shape, generator=generator)
    points = torch.rand(LANDMARKS, len(shape), generator=generator).double() * (torch.tensor(shape) - 1)
    return {"image": MetaTensor(image, affine=torch.eye(4)), "landmarks": points}


def our_transform(
    shape: Shape, rotate: Any = ROTATE, scale: float = SCALE, elastic: float = 5.0
) -> RandSpatialLandmarksd:
    return RandSpatialLandmarksd(
        "image",
        "landmarks",
        spatial_size=shape,
        pixdim="fit",
        rotate_range=ROTATE,
        scale_range=SCALE,
        translate_range=5,
        elastic_range=5.0,
        padding_mode="border",
        antialias=False,
    )


def monai_chain(shape: Shape) -> Compose:
    dims = len(shape)
    how = {"prob": 1.0, "padding_mode": "border", "mode": "bilinear"}
    deform: Any
    if dims == 2:
        spacing = larger(shape)[0] / 4
        deform = Rand2DElasticd("image", (spacing, spacing), (0.0, 5.0), **how)
    else:
        deform = Rand3DElasticd("image", (5.0, 7.0), (100.0, 200.0), **how)
    affine = RandAffined(
        "image",
        rotate_range=[ROTATE] * (1 if dims == 2 else 3),
        scale_range=[SCALE] * dims,
        translate_range=[5] * dims,
        **how,
    )
    mode = "bilinear" if dims == 2 else "trilinear"
    return Compose([affine, deform, Resized("image", shape, mode=mode)])


def make(build: Callable[[Shape], Any], shape: Shape) -> Run:
    data, transform = item(larger(shape)), build(shape)
    transform.set_random_state(0)
    return partial(transform, data)


def detail(build: Callable[[Shape], Any], shape: Shape) -> Mapping[str, float]:
    """Compare the energy above half the Nyquist frequency with that of the white noise the image was made of."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(1, *larger(shape), generator=generator)
    data = {"image": MetaTensor(noise, affine=torch.eye(4)), "landmarks": torch.ones(1, len(shape))}
    transform = build(shape)
    kept = []
    for seed in range(5):
        transform.set_random_state(seed)
        kept.append(_high_energy(transform(data)["image"].as_tensor()))
    return {"detail": sum(kept) / len(kept) / _high_energy(noise)}


def _high_energy(image: torch.Tensor) -> float:
    inner = tuple(slice(size // 4, size - size // 4) for size in image.shape[1:])
    part = image[0][inner]
    for axis, size in enumerate(part.shape):
        view = [1] * part.ndim
        view[axis] = size
        part = part * torch.hann_window(size, periodic=False).reshape(view)
    power = torch.fft.fftn(part).abs().square()
    frequency = torch.stack(torch.meshgrid(*[torch.fft.fftfreq(s).abs() for s in part.shape], indexing="ij"))
    return power[frequency.amax(dim=0) > 0.25].mean().item()


def make_batch(device: str, batch: int, shape: Shape) -> Run:
    augment = our_transform(shape).batched()
    grid = larger(shape)
    images = torch.rand(batch, 1, *grid, device=device)
    points = torch.rand(batch, LANDMARKS, len(shape), device=device) * torch.tensor(shape, device=device)

    def run() -> torch.Tensor:
        result = augment(images, points)[0]
        if device != "cpu":
            torch.cuda.synchronize()
        return result

    return run


def rate(device: str, batch: int, shape: Shape) -> Mapping[str, float]:
    return {"images per s": batch / time_calls(make_batch(device, batch, shape)).median}


def _group(shape: Shape, batch: int) -> list[Case]:
    label = f"{LANDMARKS} points, {'x'.join(map(str, shape))}"
    size = FLOAT_BYTES * torch.Size(shape).numel()
    small = tuple(min(s, 128 if len(shape) == 2 else 48) for s in shape)
    known: dict[str, Any] = {"group": label, "size_bytes": size}
    rows = [
        Case(
            f"{label}, RandSpatialLandmarksd",
            partial(make, our_transform, shape),
            checks=partial(detail, our_transform, small),
            **known,
        ),
        Case(
            f"{label}, MONAI chain",
            partial(make, monai_chain, shape),
            role="monai",
            checks=partial(detail, monai_chain, small),
            **known,
        ),
    ]
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        name = f"batch {batch} on {device}, {label}"
        rows.append(
            Case(
                name,
                partial(make_batch, device, batch, shape),
                group=name,
                size_bytes=size * batch,
                memory=device == "cpu",
                checks=partial(rate, device, batch, shape),
            )
        )
    return rows


def cases(quick: bool = False, full: bool = False) -> list[Case]:
    """List the rows: a film and a spine volume."""
    if quick:
        return [*_group((64, 64), 2), *_group((24, 24, 32), 2)]
    return [*_group((512, 512), 8), *_group((96, 96, 192), 8)]
