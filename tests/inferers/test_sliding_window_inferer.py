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
"""What the sliding window inferer takes, keeps and refuses."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import FlattenSubKeysd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.heatmaps import decode_heatmaps
from monai_landmarks.heatmaps.candidates import find_candidates
from monai_landmarks.inferers.sliding_window import LandmarkSlidingWindowInferer


def head(channels: int = 3, dims: int = 3) -> torch.nn.Module:
    torch.manual_seed(0)
    return (torch.nn.Conv2d if dims == 2 else torch.nn.Conv3d)(1, channels, 3, padding=1)


def scan(length: int = 40, items: int = 1) -> torch.Tensor:
    return torch.rand(items, 1, 10, 9, length, generator=torch.Generator().manual_seed(1))


class LargestTensor(TorchDispatchMode):
    """Remember the number of voxels of the largest tensor that an operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.voxels = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.voxels = max([self.voxels, *(t.numel() for t in tree_leaves(made) if isinstance(t, torch.Tensor))])
        return made


def test_no_tensor_grows_with_the_scan():
    largest = []
    for length in (60, 480):
        infer, image, network = LandmarkSlidingWindowInferer((10, 9, 16), min_distance=2), scan(length), head(13)
        with LargestTensor() as mode:
            infer(image, network)
        largest.append(mode.voxels)
    assert largest[0] == largest[1] < 13 * 10 * 9 * 60


def test_dense_keeps_the_affine():
    affine = torch.tensor([[0.0, 2, 0, 5], [-2, 0, 0, 7], [0, 0, 3, -90], [0, 0, 0, 1]], dtype=torch.float64)
    image = MetaTensor(scan(), affine=affine, meta={"filename_or_obj": "a.nii.gz"})
    merged = LandmarkSlidingWindowInferer((10, 9, 16), mode="dense")(image, head())
    assert isinstance(merged, MetaTensor)
    assert merged.shape == (1, 3, 10, 9, 40)
    torch.testing.assert_close(merged.affine, affine)
    found = LandmarkSlidingWindowInferer((10, 9, 16))(image, head())
    assert all(type(value) is torch.Tensor for value in found.values())


def test_whole_axes_and_arguments_of_the_network():
    image, network = scan(), head()
    infer = LandmarkSlidingWindowInferer((0, None, -1), mode="dense")
    torch.testing.assert_close(infer(image, lambda x, a, b: network(x) * a + b, 2.0, b=1.0), network(image) * 2 + 1)


def test_mixed_precision():
    network, types = head(), []

    def spy(windows):
        types.append(network(windows).dtype)
        return network(windows)

    image = scan()
    plain = LandmarkSlidingWindowInferer((10, 9, 16), mode="dense")(image, network)
    merged = LandmarkSlidingWindowInferer((10, 9, 16), mode="dense", amp="bfloat16")(image, spy)
    assert (set(types), merged.dtype) == ({torch.bfloat16}, torch.float32)
    torch.testing.assert_close(merged, plain, atol=0.02, rtol=0)
    options = {"amp": "bfloat16", "buffer_dtype": "bfloat16"}
    half = LandmarkSlidingWindowInferer((10, 9, 16), mode="dense", **options)(image, network)
    assert half.dtype == torch.bfloat16
    found = LandmarkSlidingWindowInferer((10, 9, 16), **options)(image, network)
    torch.testing.assert_close(found["points"], decode_heatmaps(half, "quadratic").points, equal_nan=True)
    torch.testing.assert_close(found["candidates"], find_candidates(half).points, equal_nan=True)


class TestSparse:
    def test_air_is_not_run_and_responds_zero(self):
        image = torch.full((2, 1, 10, 9, 96), -1.0)
        image[0, 0, 4, 4, 40], image[1, 0, 4, 4, 70] = 1.0, 1.0
        count = []

        def network(windows):
            count.append(len(windows))
            return windows.repeat(1, 2, 1, 1, 1) - 0.5

        options = {"roi_size": (10, 9, 16), "overlap": 0, "skip_air": -1.0, "pad_value": -1.0}
        merged = LandmarkSlidingWindowInferer(mode="dense", **options)(image, network)
        assert sum(count) == 2
        expected = torch.zeros(2, 2, 10, 9, 96)
        expected[0, ..., 32:48], expected[1, ..., 64:80] = -1.5, -1.5
        expected[0, :, 4, 4, 40], expected[1, :, 4, 4, 70] = 0.5, 0.5
        torch.testing.assert_close(merged, expected)
        found = LandmarkSlidingWindowInferer(**options, min_distance=2)(image, network)
        assert found["points"][:, 0].tolist() == [[4, 4, 40], [4, 4, 70]]
        torch.testing.assert_close(found["candidates"], find_candidates(merged, 5, 2).points, equal_nan=True)

    def test_negative_network_in_a_sparse_scan_scores_zero(self):
        image = torch.zeros(1, 1, 10, 9, 96)
        image[..., 50] = 1.0
        options = {"roi_size": (10, 9, 16), "skip_air": 0.0}
        found = LandmarkSlidingWindowInferer(**options)(image, lambda windows: -1 - windows)
        assert found["points"].isnan().all()
        assert found["confidence"].tolist() == [[0.0]]

    def test_only_air_is_refused(self):
        with pytest.raises(LandmarkError, match="air only"):
            LandmarkSlidingWindowInferer((10, 9, 16), skip_air=5.0)(scan(), head())


@pytest.mark.parametrize("sw_batch_size", [1, 3, 100])
def test_batches_of_windows_change_nothing(sw_batch_size):
    image, network = scan(items=2), head()
    one = LandmarkSlidingWindowInferer((6, 9, 16))(image, network)
    more = LandmarkSlidingWindowInferer((6, 9, 16), sw_batch_size=sw_batch_size)(image, network)
    for key, value in one.items():
        torch.testing.assert_close(more[key], value, equal_nan=True, rtol=0, atol=1e-4)


def test_limits_of_candidates_do_not_touch_the_points():
    image, network = scan(), head()
    found = LandmarkSlidingWindowInferer((10, 9, 16), min_confidence=1e6)(image, network)
    assert found["candidates"].isnan().all()
    assert not found["points"].isnan().any()


def test_from_a_configuration_and_pickled():
    config = {
        "_target_": "monai_landmarks.inferers.sliding_window.LandmarkSlidingWindowInferer",
        "roi_size": [-1, -1, 16],
        "overlap": [0, 0, 8],
        "method": "gaussian_fit",
        "options": {"window": 5},
        "amp": "bfloat16",
        "min_distance": [2, 2, 3],
    }
    infer = ConfigParser({"inferer": config}).get_parsed_content("inferer")
    image, network = scan(), head()
    found, again = infer(image, network), pickle.loads(pickle.dumps(infer))(image, network)
    assert torch.equal(found["points"].nan_to_num(-9), again["points"].nan_to_num(-9))
    flat = FlattenSubKeysd("pred", prefix="pred")({"pred": found})
    assert flat["pred_candidates"].shape == (1, 3, 5, 3)
    assert flat["pred_candidate_confidence"].shape == (1, 3, 5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mode", ["streaming", "dense"])
def test_volume_on_the_host_and_network_on_the_gpu(mode):
    image, network = scan(), head()
    here = LandmarkSlidingWindowInferer((10, 9, 16), mode=mode)(image, network)
    infer = LandmarkSlidingWindowInferer((10, 9, 16), mode=mode, sw_device="cuda")
    there = infer(image, network.cuda())
    torch.testing.assert_close(there, here, equal_nan=True, rtol=0, atol=1e-3)


class TestBadInput:
    infer = LandmarkSlidingWindowInferer((10, 9, 16))

    def test_nan_voxels_name_the_scan(self):
        image = torch.cat((scan(), scan()))
        image[1, 0, 3, 3, 3] = math.nan
        named = MetaTensor(image, meta={"filename_or_obj": ["one.nii", "two.nii"]})
        with pytest.raises(LandmarkError, match=r"two\.nii has 1 NaN"):
            self.infer(named, head())
        with pytest.raises(LandmarkError, match="image 1 has 1 NaN"):
            self.infer(image, head())

    def test_network_with_nan_names_the_window(self):
        def network(windows):
            values = head()(windows)
            values[windows[:, :1].expand_as(values) == 5] = math.nan
            return values

        image = scan(40)
        image[0, 0, 5, 5, 33] = 5.0
        with pytest.raises(LandmarkError, match=r"window \[0:10, 0:9, 24:40\] of image 0"):
            self.infer(image, network)

    @pytest.mark.parametrize("shape", [(1, 10, 9, 16), (1, 1, 10, 9), (1, 1, 10, 9, 16, 4), (1, 1, 10, 9, 0)])
    def test_wrong_dimensions(self, shape):
        with pytest.raises(LandmarkError, match=r"shape \(B, C, \*S\)"):
            self.infer(torch.zeros(shape), head())

    def test_network_on_another_grid(self):
        with pytest.raises(ValueError, match="grid of its windows"):
            self.infer(scan(), torch.nn.Conv3d(1, 2, 2, stride=2))

    def test_network_without_one_tensor(self):
        with pytest.raises(ValueError, match="one tensor of heatmaps, got tuple"):
            self.infer(scan(), lambda windows: (windows, windows))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"roi_size": 16}, "roi_size"),
            ({"roi_size": (16,)}, "roi_size"),
            ({"overlap": 16}, "overlap"),
            ({"overlap": -0.1}, "overlap"),
            ({"sw_batch_size": 0}, "sw_batch_size"),
            ({"mode": "sparse"}, "sparse"),
            ({"method": "median"}, "median"),
            ({"options": {"window": 5}}, "no option"),
            ({"min_distance": 0}, "min_distance"),
            ({"min_distance": (2, 2)}, "min_distance"),
            ({"amp": "float32"}, "amp"),
            ({"buffer_dtype": "int8"}, "dtype"),
        ],
    )
    def test_bad_options_are_refused_before_any_scan(self, options, message):
        with pytest.raises(ValueError, match=message):
            LandmarkSlidingWindowInferer(**{"roi_size": (10, 9, 16), **options})
