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
"""MONAI's PatchInferer merges by maximum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.inferers import PatchInferer, SlidingWindowSplitter

from monai_landmarks.inferers.max_merger import MaxMerger

PATH = "monai_landmarks.inferers.max_merger.MaxMerger"


def sloped(patch: torch.Tensor) -> torch.Tensor:
    """Two channels that differ with the place in the patch, the second negative everywhere."""
    ramp = torch.linspace(0.2, 1.0, patch.shape[-1])
    return torch.cat((patch * ramp, -patch * ramp), dim=1)


def slow_maximum(image: torch.Tensor, size: int, step: int) -> np.ndarray:
    length = image.shape[-1]
    padded = np.pad(image.numpy(), [(0, 0)] * 3 + [(0, (size - length) % step if length > size else size - length)])
    merged = np.full((len(padded), 2, *padded.shape[2:]), -np.inf, np.float32)
    for start in range(0, padded.shape[-1] - size + 1, step):
        window = merged[..., start : start + size]
        np.maximum(window, sloped(torch.from_numpy(padded[..., start : start + size])).numpy(), out=window)
    return merged[..., :length]


@pytest.mark.parametrize(("length", "overlap"), [(23, 0.5), (24, 0.0), (25, 0.75), (5, 0.5)])
def test_is_the_slow_maximum(length, overlap):
    image = torch.rand(2, 1, 4, length, generator=torch.Generator().manual_seed(0)) + 0.1
    infer = PatchInferer(SlidingWindowSplitter((4, 8), overlap=(0.0, overlap)), PATH)
    np.testing.assert_array_equal(infer(image, sloped), slow_maximum(image, 8, round(8 * (1 - overlap))))


def test_sparse_patches_leave_zero():
    image = torch.ones(1, 1, 4, 24)
    splitter = SlidingWindowSplitter((4, 8), filter_fn=lambda patch, location: location[1] != 8)
    merged = PatchInferer(splitter, MaxMerger)(image, sloped)
    assert (merged[..., 8:16] == 0).all()
    assert (merged[:, 1, :, :8] < 0).all()


def test_from_a_configuration():
    config = {
        "_target_": "PatchInferer",
        "splitter": {"_target_": "SlidingWindowSplitter", "patch_size": [4, 8]},
        "merger_cls": PATH,
        "value_dtype": "float64",
        "uncovered": -5.0,
    }
    infer = ConfigParser({"inferer": config}).get_parsed_content("inferer")
    merged = infer(torch.ones(1, 1, 4, 16), sloped)
    assert merged.dtype == torch.float64
    assert float(merged.max()) == 1.0


def test_half_precision_values_into_a_buffer_of_another_dtype():
    merger = MaxMerger((1, 1, 4), (1, 1, 3), value_dtype=torch.bfloat16)
    merger.aggregate(torch.tensor([[[-0.5, 2.0]]]), [1])
    assert merger.finalize().tolist() == [[[0.0, -0.5, 2.0]]]
    assert merger.finalize().shape == (1, 1, 3)
    with pytest.raises(ValueError, match="finalized"):
        merger.aggregate(torch.zeros(1, 1, 1), [0])


def test_an_infinite_response_of_one_channel_is_kept():
    merger = MaxMerger((1, 2, 2))
    merger.aggregate(torch.tensor([[[-torch.inf], [0.5]]]), [0])
    assert merger.finalize().tolist() == [[[-torch.inf, 0.0], [0.5, 0.0]]]


@pytest.mark.parametrize("dtype", ["int64", "float31", torch.uint8])
def test_unknown_dtype_is_refused(dtype):
    with pytest.raises(ValueError, match="dtype"):
        MaxMerger((1, 1, 2), value_dtype=dtype)
