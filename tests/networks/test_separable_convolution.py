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
"""Separable convolution: which weights there are, whose they are, and what they compute."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_landmarks.networks.blocks.separable_convolution import (
    OwnConvolution,
    SeparableConvolution,
    SharedConvolution,
)

KINDS = [SeparableConvolution, OwnConvolution, SharedConvolution]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("dims", "kernel"), [(2, 9), (3, 27)])
@pytest.mark.parametrize(("n", "m", "t"), [(4, 8, 1), (6, 5, 3)])
def test_parameters_are_the_papers_formula(dims: int, kernel: int, n: int, m: int, t: int) -> None:
    block = SeparableConvolution(dims, n, m, [f"set{i}" for i in range(t)])
    weights = [p for p in block.parameters() if p.dim() == dims + 2]
    assert sum(p.numel() for p in weights) == kernel * n * t + n * m
    assert count(block) == kernel * n * t + n * m + (n * t + m) + 2 * m * t  # with biases and normalisations


@pytest.mark.parametrize("dims", [2, 3])
def test_it_is_depthwise_then_pointwise_then_norm_then_leaky_relu(dims: int) -> None:
    """The separable pair equals one standard convolution whose kernels are the products, with nothing between."""
    torch.manual_seed(0)
    block = SeparableConvolution(dims, 3, 4, ["head", "hand"]).double()
    block.normalization["hand"].weight.data = torch.rand(4).double()
    x = torch.randn(2, 3, *(7, 6, 5)[:dims], dtype=torch.float64)
    depth, point = block.depthwise["hand"], block.pointwise
    weight = point.weight * depth.weight.transpose(0, 1)  # (M, N, 1..) times (1, N, 3..)
    bias = point.bias + point.weight.flatten(1) @ depth.bias
    y = (F.conv2d if dims == 2 else F.conv3d)(x, weight, bias, padding=1)
    axes = [0, *range(2, dims + 2)]
    y = (y - y.mean(axes, keepdim=True)) / (y.var(axes, unbiased=False, keepdim=True) + 1e-5).sqrt()
    y = y * block.normalization["hand"].weight.reshape(-1, *[1] * dims)
    torch.testing.assert_close(block(x, "hand"), torch.where(y > 0, y, 0.01 * y))


def test_only_the_point_wise_convolution_learns_from_every_data_set() -> None:
    block = SeparableConvolution(2, 3, 4, ["head", "hand"])
    block(torch.randn(2, 3, 8, 8), "head").square().sum().backward()
    reached = {name for name, p in block.named_parameters() if p.grad is not None}
    assert reached == {name for name, _ in block.named_parameters() if "hand" not in name}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{"norm": "instance"}, {"norm": ("group", {"num_groups": 2})}, {"act": "prelu"}])
def test_any_monai_norm_and_activation(kind, options: dict) -> None:
    block = kind(2, 3, 4, ["head"], **options)
    assert block(torch.randn(2, 3, 9, 7), "head").shape == (2, 4, 9, 7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{"norm": None}, {"act": None}, {"kernel_size": 5}])
def test_norm_and_activation_may_be_left_out_and_sizes_are_kept(kind, options: dict) -> None:
    assert kind(3, 2, 4, ["head"], **options)(torch.randn(1, 2, 5, 6, 7), "head").shape == (1, 4, 5, 6, 7)


def test_an_added_data_set_takes_dtype_mode_and_weights_of_another() -> None:
    block = SeparableConvolution(2, 3, 4, ["head"]).double().eval()
    block.normalization["head"].running_mean.fill_(2.0)
    block.add_dataset("fresh")
    block.add_dataset("hand", like="head")
    x = torch.randn(1, 3, 6, 6, dtype=torch.float64)
    assert torch.equal(block(x, "hand"), block(x, "head"))
    assert not torch.equal(block(x, "fresh"), block(x, "head"))
    assert block.depthwise["hand"].weight.data_ptr() != block.depthwise["head"].weight.data_ptr()
    assert not block.normalization["hand"].training


def test_even_kernels_fail_in_the_constructor() -> None:
    with pytest.raises(ValueError, match="must be odd"):
        SeparableConvolution(2, 3, 4, ["head"], kernel_size=4)
