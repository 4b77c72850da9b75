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
"""Landmark files: one module per format, and the two functions that read and write them all.

| format | suffix | coordinates in the file | names | status | confidence |
|---|---|---|---|---|---|
| ``markups`` | ``.mrk.json`` | mm, LPS or RAS as the file says; written as LPS | yes | yes | yes |
| ``fcsv`` | ``.fcsv`` | mm, LPS or RAS as the file says; written as LPS | yes | yes | yes |
| ``csv``, ``tsv`` | ``.csv``, ``.tsv`` | by the headings' letters, see `formats.table` | yes | yes | yes |
| ``npy`` | ``.npy`` | world mm | no | NaN only | no |
| ``verse`` | ``.json`` | voxels of a stated orientation | vertebrae | yes | yes |
| ``lml`` | ``.lml`` | voxel index times voxel size | yes | NaN only | no |
| ``coco`` | ``.json`` | pixels (x, y) | yes | yes | yes |
| ``labelme`` | ``.json`` | pixels from the image's corner | yes | yes | yes |
| ``isbi`` | ``.txt`` | pixels of 0.1 mm | no | NaN only | no |

The status "outside" (a known place that is not in the image) is kept by every format with a status: in words, with
``v`` = 1 in COCO files, and in the description of the Slicer formats, which have no word for it. Formats with "NaN only"
keep the coordinates of such a landmark and not that it is outside: it is read as defined. The word says what was so when
the file was written; `Landmarks.seen_in` looks anew, after points were moved and for files without a status.

All are read and written. The conversion to the package's world (RAS+ millimetres in 3D, the film plane in 2D) happens
here, once, and nobody after it asks again.
"""

from __future__ import annotations

from .read_write import read_landmark_table, read_landmarks, write_landmark_table, write_landmarks
from .registry import FORMATS, Format, find_format

__all__ = [
    "FORMATS",
    "Format",
    "find_format",
    "read_landmark_table",
    "read_landmarks",
    "write_landmark_table",
    "write_landmarks",
]
