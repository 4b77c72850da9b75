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
"""The classical baseline carries points to where they are."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.classical_registration import Settings, carry

pytest.importorskip("SimpleITK")


def film(folder, name, at):
    """A film of 120 x 180 mm whose blobs are seen where ``at`` leads from its own millimetres (x, y)."""
    blobs = ndimage.gaussian_filter(np.random.default_rng(0).random((300, 220)), 9)  # in mm, (y, x), from -50
    y, x = np.mgrid[:180, :120].astype(float)
    grey = ndimage.map_coordinates((blobs - blobs.min()) / np.ptp(blobs), [one + 50 for one in at(x, y)[::-1]], order=1)
    path = folder / f"{name}.png"
    Image.fromarray((255 * grey).astype(np.uint8)).save(path)
    return {"case": name, "image": str(path), "pixel_size": (1.0, 1.0), "origin": (0.0, 0.0)}


def test_landmarks_are_carried_by_an_affine_that_is_known(tmp_path) -> None:
    truth = np.array([[40.0, 50.0], [80.0, 60.0], [60.0, 120.0]])
    exemplar = {**film(tmp_path, "1", lambda x, y: (x, y)), "landmarks": truth}
    moved = film(tmp_path, "2", lambda x, y: (1.02 * (x - 2), y / 1.03 + 1))  # its (x, y) shows this of the exemplar
    expected = np.stack([truth[:, 0] / 1.02 + 2, (truth[:, 1] - 1) * 1.03], axis=1)
    found = carry(exemplar, Settings((4, 4), 10), moved)
    assert np.array_equal(found.points[0], truth)
    for points in found.points[1:]:
        assert np.linalg.norm(points - expected, axis=1).max() < 0.4  # half a voxel of the grid
    assert found.folded == 0
    assert found.correlation[0] < 0.99 < 0.9995 < found.correlation[1]
