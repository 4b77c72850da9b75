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
"""Resizing inside a network: padding to a size that its levels divide, and cubic up-sampling in any dimension."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["CubicUpsample", "crop_to", "pad_to_multiple"]


def pad_to_multiple(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """Extend the end of every spatial axis by repeating the border until ``multiple`` divides it.

    Only the end grows, so voxel indices keep their meaning; undo it with :func:`crop_to`.

    Args:
        x: ``(B, C, *S)``.
        multiple: the number that must divide every size.

    Returns:
        ``(B, C, *S')`` with ``S' >= S``.

    Example:
        >>> import torch
        >>> pad_to_multiple(torch.zeros(1, 1, 5, 8), 4).shape
        torch.Size([1, 1, 8, 8])
    """
    padding: list[int] = []
    for axis in range(x.dim() - 1, 1, -1):
        padding.append(0)
        padding.append((multiple - x.shape[axis] % multiple) % multiple)
    if sum(padding) == 0:
        return x
    return F.pad(x, padding, mode="replicate")


def crop_to(x: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Cut the end of every spatial axis of ``x`` (B, C, *S') to the sizes of ``reference`` (B, C', *S)."""
    for axis in range(2, x.dim()):
        x = x.narrow(axis, 0, reference.shape[axis])
    return x


class CubicUpsample(nn.Module):
    """Enlarge every spatial axis by a whole factor with cubic convolution, in 2D (bicubic) and 3D (tricubic).

    Keys' kernel with ``a = -0.5`` (Catmull-Rom); voxel centres are half-voxel aligned, as for average pooling, and the
    border is extended by its edge. ``torch.nn.functional.interpolate`` has no cubic mode in 3D and uses ``a = -0.75``.

    Args:
        factor: whole enlargement, at least 1.
        a: the kernel's free parameter.

    Shapes: ``(B, C, *S)`` -> ``(B, C, *(factor * S))``.

    Example:
        >>> import torch
        >>> CubicUpsample(4)(torch.ones(1, 2, 3, 5, 4)).shape
        torch.Size([1, 2, 12, 20, 16])
    """

    def __init__(self, factor: int, a: float = -0.5) -> None:
        super().__init__()
        if factor < 1:
            raise ValueError(f"`factor` must be at least 1, got {factor}.")
        self.factor = int(factor)
        self.a = float(a)

    def _kernel(self, x: torch.Tensor) -> torch.Tensor:
        x = x.abs()
        near = ((self.a + 2.0) * x - (self.a + 3.0)) * x * x + 1.0
        far = ((self.a * x - 5.0 * self.a) * x + 8.0 * self.a) * x - 4.0 * self.a
        return torch.where(x <= 1.0, near, torch.where(x < 2.0, far, torch.zeros_like(x)))

    def _matrix(self, size: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """Weights ``(factor * size, size)`` that enlarge one axis."""
        target = torch.arange(size * self.factor, device=device, dtype=torch.float32)
        source = (target + 0.5) / self.factor - 0.5
        padded = torch.arange(-2, size + 2, device=device, dtype=torch.float32)
        weights = self._kernel(source[:, None] - padded[None])
        inner = weights[:, 2:-2].clone()
        inner[:, 0] += weights[:, 0] + weights[:, 1]
        inner[:, size - 1] += weights[:, size + 2] + weights[:, size + 3]
        return inner.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for axis in range(2, x.dim()):
            weights = self._matrix(x.shape[axis], x.device, x.dtype)
            x = torch.matmul(x.transpose(axis, -1), weights.t()).transpose(axis, -1)
        return x
