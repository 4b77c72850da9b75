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
"""What decode_heatmaps promises apart from precision: shapes, empty maps, flags, errors, symmetries, graphs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from monai_landmarks.geometry import LandmarkError
from monai_landmarks.heatmaps import Decoded, DecodeMethod, FlaggedDecoded, decode_heatmaps, gaussian_heatmaps

METHODS = [str(method) for method in DecodeMethod]
REFINED = METHODS[1:]


def blobs(dims: int = 2, sigma: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (15, 18) if dims == 2 else (13, 11, 12)
    points = torch.tensor([[5.25, 7.5, 6.75], [6.0, 4.4, 5.1], [7.9, 5.0, 4.2]])[:, :dims]
    return gaussian_heatmaps(points, shape, sigma), points


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("dims", "batch", "given_dims"),
    [(2, None, None), (2, 2, None), (2, None, 2), (2, 2, 2), (3, None, 3), (3, 2, None), (3, 2, 3), (2, 0, None)],
)
def test_shapes_with_and_without_batch(name, dims, batch, given_dims):
    maps, points = blobs(dims)
    maps = maps if batch is None else maps.expand(batch, *maps.shape)
    found = decode_heatmaps(maps, name, spatial_dims=given_dims, return_flags=True)
    lead = () if batch is None else (batch,)
    assert isinstance(found, FlaggedDecoded)
    assert found.points.shape == (*lead, 3, dims)
    assert found.confidence.shape == found.extrapolated.shape == (*lead, 3)
    assert found.extrapolated.dtype == torch.bool
    assert (found.points - points).abs().max() <= 0.5 if batch != 0 else True


def test_without_flags_a_pair_is_returned():
    points, confidence = decode_heatmaps(blobs()[0])
    assert isinstance(decode_heatmaps(blobs()[0]), Decoded)
    assert points.shape == (3, 2)
    assert confidence.shape == (3,)


@pytest.mark.parametrize("name", METHODS)
def test_confidence_is_the_peaks_value_and_the_amplitude_for_the_fit(name):
    maps = 0.7 * gaussian_heatmaps(torch.tensor([[7.5, 8.5]]), (15, 18), 2.0)
    confidence = decode_heatmaps(maps, name).confidence
    wanted = torch.tensor([0.7]) if name == "gaussian_fit" else maps.amax(dim=(1, 2))
    torch.testing.assert_close(confidence, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("empty", "confidence"),
    [
        (torch.zeros(15, 18), 0.0),
        (torch.full((15, 18), -3.0), -3.0),
        (-torch.rand(15, 18) - 0.5, None),
        (torch.full((15, 18), 0.25), 0.25),
        (torch.full((15, 18), float("-inf")), float("-inf")),
        (blobs()[0][0].index_fill(0, torch.tensor(3), float("nan")), float("nan")),
        (blobs()[0][0].index_fill(0, torch.tensor(3), float("inf")), float("inf")),
    ],
    ids=["zeros", "one negative value", "negative", "constant", "minus infinity", "NaN", "infinity"],
)
def test_empty_maps_give_nan_and_do_not_touch_their_neighbours(name, empty, confidence):
    maps, points = blobs()
    maps = maps.clone()
    maps[1] = empty
    found = decode_heatmaps(maps, name, return_flags=True)
    assert torch.isnan(found.points[1]).all()
    assert found.extrapolated.tolist() == [False, True, False]
    wanted = empty.max() if confidence is None else torch.tensor(confidence)
    torch.testing.assert_close(found.confidence[1], wanted, equal_nan=True)
    assert (found.points - points)[[0, 2]].abs().max() <= (0.5 if name == "argmax" else 1e-3)


@pytest.mark.parametrize("name", REFINED)
def test_gradients_reach_the_peak_and_stay_finite_beside_empty_maps(name):
    maps, _ = blobs()
    maps = maps.clone()
    maps[1] = 0
    maps[2] = float("nan")
    maps.requires_grad_()
    decode_heatmaps(maps, name).points[0].sum().backward()
    assert maps.grad is not None
    assert torch.isfinite(maps.grad).all()
    assert (maps.grad[0] != 0).sum() >= 4
    assert (maps.grad[1:] == 0).all()


@pytest.mark.parametrize("name", REFINED)
def test_gradient_moves_the_point_to_where_the_map_grows(name):
    """Adding a little of the map's own derivative shifts a Gaussian; the decoded point has to follow at unit rate."""
    point = torch.tensor([[7.2, 8.4]], dtype=torch.float64, requires_grad=True)
    maps = gaussian_heatmaps(point, (15, 18), 2.0)
    found = decode_heatmaps(maps, name).points
    rows = [torch.autograd.grad(found[0, axis], point, retain_graph=True)[0] for axis in range(2)]
    torch.testing.assert_close(torch.cat(rows), torch.eye(2, dtype=torch.float64), atol=0.01, rtol=0)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("point", "flag"), [((7.2, 8.1), False), ((0.2, 8.1), True), ((7.2, 17.0), True), ((-2.0, 8.1), True)]
)
def test_flag_marks_peaks_on_the_image_border(name, point, flag):
    maps = gaussian_heatmaps(torch.tensor([point]), (15, 18), 2.0)
    assert decode_heatmaps(maps, name, return_flags=True).extrapolated.item() is flag


@pytest.mark.parametrize("name", METHODS)
def test_a_truth_far_outside_is_placed_at_most_one_voxel_outside(name):
    maps = gaussian_heatmaps(torch.tensor([[-4.0, 8.1]]), (15, 18), 3.0)
    point = decode_heatmaps(maps, name).points[0]
    assert -1 <= point[0] <= 0


@pytest.mark.parametrize("name", ["argmax", "quadratic", "dark"])
def test_a_saturated_plateau_is_flagged_by_methods_that_look_at_the_top(name):
    maps = (30 * gaussian_heatmaps(torch.tensor([[7.2, 8.4]]), (15, 18), 2.0)).clamp(max=1)
    found = decode_heatmaps(maps, name, return_flags=True)
    assert found.extrapolated.item()
    assert torch.isfinite(found.points).all()
    assert (found.points - decode_heatmaps(maps, "argmax").points).abs().max() <= 1


@pytest.mark.parametrize("dims", [2, 3])
def test_a_peak_exactly_between_voxels_is_not_taken_for_a_plateau(dims):
    maps = gaussian_heatmaps(torch.full((1, dims), 5.5), (12, 13, 14)[:dims], 2.0)
    for name in REFINED:
        found = decode_heatmaps(maps, name, spatial_dims=dims, return_flags=True)
        assert not found.extrapolated.any()
        torch.testing.assert_close(found.points, torch.full((1, dims), 5.5), atol=1e-3, rtol=0)
    narrow = decode_heatmaps(maps, "gaussian_fit", window=3, spatial_dims=dims, return_flags=True)
    assert not narrow.extrapolated.any()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 9), (2, 2), (3, 3), (4, 5), (1, 1, 1), (2, 1, 7), (3, 4, 5)])
def test_images_of_few_voxels(name, shape):
    dims = len(shape)
    truth = torch.tensor([[min(0.2, size - 1) if size < 6 else 4.3 for size in shape]])
    maps = gaussian_heatmaps(truth, shape, 2.0)
    found = decode_heatmaps(maps, name, spatial_dims=dims, return_flags=True)
    assert torch.isfinite(found.points).all()
    assert (found.points - truth).abs().max() <= 0.5
    long = [axis for axis, size in enumerate(shape) if size >= 3]
    if name != "argmax":
        assert ((found.points - truth)[:, long].abs() <= 0.01).all()
    assert found.extrapolated.item() is True


def test_a_metatensor_gives_plain_tensors():
    maps = MetaTensor(blobs()[0], affine=torch.eye(4))
    for name in METHODS:
        assert all(type(part) is torch.Tensor for part in decode_heatmaps(maps, name, return_flags=True))


@pytest.mark.parametrize(
    ("shape", "dims", "message"),
    [
        ((5, 6), None, "landmark axis"),
        ((5,), None, r"\(B, N, \*S\) or \(N, \*S\)"),
        ((1, 1, 1, 1, 5, 6), None, r"got \(1, 1, 1, 1, 5, 6\)"),
        ((2, 5, 6), 3, "3D heatmaps"),
        ((1, 2, 5, 6, 7), 2, "2D heatmaps"),
        ((2, 5, 6), 4, "`spatial_dims` must be 2, 3 or None"),
        ((2, 0, 6), None, "no voxels"),
    ],
)
def test_wrong_shapes_are_explained(shape, dims, message):
    for name in METHODS:
        with pytest.raises(LandmarkError, match=message):
            decode_heatmaps(torch.zeros(shape), name, spatial_dims=dims)


def test_wrong_names_and_options_are_explained():
    maps = blobs()[0]
    with pytest.raises(ValueError, match="dark"):
        decode_heatmaps(maps, "drak")
    with pytest.raises(LandmarkError, match="method 'argmax' has no option 'window'; its options: none"):
        decode_heatmaps(maps, "argmax", window=3)
    with pytest.raises(LandmarkError, match="its options: window, iterations"):
        decode_heatmaps(maps, "gaussian_fit", smoothing=3)
    with pytest.raises(LandmarkError, match="odd number of voxels"):
        decode_heatmaps(maps, "gaussian_fit", window=4)
    with pytest.raises(LandmarkError, match="odd number of voxels"):
        decode_heatmaps(maps, "center_of_mass", window=(5, 5, 5))
    with pytest.raises(LandmarkError, match="iterations"):
        decode_heatmaps(maps, "gaussian_fit", iterations=-1)
    with pytest.raises(LandmarkError, match="smoothing"):
        decode_heatmaps(maps, "dark", smoothing=-1.0)
    with pytest.raises(LandmarkError, match="argmax"):
        decode_heatmaps(maps, "local_soft_argmax", temperature=0.0)


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.tuples(st.integers(-6, 6), st.integers(-6, 6)))
def test_a_shift_by_whole_voxels_shifts_the_point_by_as_much(name, seed, shift):
    blob = torch.rand(5, 5, generator=torch.Generator().manual_seed(seed))
    maps = torch.zeros(2, 40, 40)
    maps[0, 18:23, 18:23] = blob
    maps[1, 18 + shift[0] : 23 + shift[0], 18 + shift[1] : 23 + shift[1]] = blob
    found = decode_heatmaps(maps, name).points
    torch.testing.assert_close(found[1] - found[0], torch.tensor(shift, dtype=torch.float32), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-4, 1e4))
def test_flips_exchanged_axes_and_scales_commute_with_decoding(name, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    point = 4 + 8 * torch.rand(1, 2, generator=generator)
    maps = gaussian_heatmaps(point, (18, 18), 2.0) + 0.05 * torch.rand(1, 18, 18, generator=generator)
    point = decode_heatmaps(maps, name).points
    close = {"atol": 2e-3, "rtol": 0}
    torch.testing.assert_close(decode_heatmaps(scale * maps, name).points, point, **close)
    torch.testing.assert_close(decode_heatmaps(maps.mT, name).points, point.flip(-1), **close)
    torch.testing.assert_close(decode_heatmaps(maps.flip(-1, -2), name).points, 17 - point, **close)


@pytest.mark.parametrize("name", ["dark", "center_of_mass"])
def test_decoding_can_be_exported_for_any_batch_and_image_size(name):
    class Decoder(torch.nn.Module):
        def forward(self, maps):
            return tuple(decode_heatmaps(maps, name, return_flags=True))

    maps = blobs()[0].expand(2, 3, 15, 18).clone()
    auto = torch.export.Dim.AUTO
    program = torch.export.export(Decoder(), (maps,), dynamic_shapes={"maps": {0: auto, 2: auto, 3: auto}})
    other = gaussian_heatmaps(torch.tensor([[3.2, 20.1], [9.0, 4.4], [0.1, 0.2]]), (12, 25), 2.0).expand(4, 3, 12, 25)
    for part, wanted in zip(
        program.module()(other.clone()), decode_heatmaps(other, name, return_flags=True), strict=True
    ):
        torch.testing.assert_close(part, wanted)


@pytest.mark.parametrize("shape", [(3, 7, 9), (2, 3, 6, 5), (2, 3, 5, 4, 6)])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8]
)
def test_argmax_is_numpys_first_highest_voxel(shape, dtype):
    """Few different values, so that ties are everywhere."""
    for seed in range(10):
        maps = torch.randint(0, 6, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
        spatial = shape[2:] if len(shape) > 3 else shape[1:]
        flat = maps.double().numpy().reshape(*maps.shape[: -len(spatial)], -1).argmax(axis=-1)
        wanted = np.stack(np.unravel_index(flat, spatial), axis=-1)
        np.testing.assert_array_equal(decode_heatmaps(maps, "argmax").points.numpy(), wanted)


@pytest.mark.parametrize("name", METHODS)
def test_memory_layout_does_not_matter(name):
    maps = torch.stack((blobs()[0], blobs()[0].flip(-1)))
    wanted = decode_heatmaps(maps, name).points
    wide = torch.zeros(2, 3, 15, 36)
    wide[..., ::2] = maps
    for same in (maps.to(memory_format=torch.channels_last), maps.mT.contiguous().mT, wide[..., ::2]):
        assert not same.is_contiguous()
        torch.testing.assert_close(decode_heatmaps(same, name).points, wanted)
    volume = blobs(3)[0].expand(2, 3, 13, 11, 12)
    permuted = volume.permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2)
    torch.testing.assert_close(decode_heatmaps(permuted, name).points, decode_heatmaps(volume, name).points)
