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
"""NumPy arrays, ``.npy``: ``(N, D)`` numbers and nothing else: no names, no status, no coordinate system."""

from __future__ import annotations

import numpy as np

from monai_landmarks.geometry import LandmarkError

from .common import FileLandmarks, ReadRequest, WriteRequest


def read(request: ReadRequest) -> FileLandmarks:
    """Read an array ``(N, D)``; leading axes of length 1 are dropped. World millimetres unless ``space`` says else."""
    with request.path.open("rb") as stream:
        try:
            array = np.load(stream, allow_pickle=False)
        except Exception as error:  # numpy evaluates the header's text, so damage shows as an error of any kind
            raise LandmarkError(
                f"not a readable .npy file ({error}): was it cut off, or saved with pickled objects?"
            ) from error
    if not isinstance(array, np.ndarray):
        raise LandmarkError("the file is an archive of several arrays (.npz): save the one array of points as .npy.")
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise LandmarkError(f"an array of numbers of shape (N, D) is needed, got {array.dtype} of shape {array.shape}.")
    if array.shape[1] not in (2, 3):
        hint = " The axes look exchanged: save points.T." if array.shape[0] in (2, 3) else ""
        raise LandmarkError(f"the array has shape {array.shape}; (N, 2) or (N, 3) is needed.{hint}")
    return FileLandmarks(points=array.astype(np.float64), space="world")


def write(request: WriteRequest) -> None:
    """Write float64 ``(N, D)``, NaN where missing."""
    with request.path.open("wb") as stream:
        np.save(stream, request.points.astype(np.float64), allow_pickle=False)
