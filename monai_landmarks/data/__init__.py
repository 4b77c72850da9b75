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
"""Landmarks as a value object, the files that carry them, and film images."""

from __future__ import annotations

from . import datasets, phantoms
from .checks import check_landmarks
from .files import atomic_write
from .film_reader import FilmReader
from .formats import read_landmark_table, read_landmarks, write_landmark_table, write_landmarks
from .landmarks import Landmarks
from .pseudo_labels import choose_labelled, films_to_label, pseudo_labelled_datalist, unlabelled_datalist
from .row_exchange import RowExchange, exchange_order
from .sides import FlipPairs, PairEvidence, flip_permutation, has_sides, propose_flip_pairs

__all__ = [
    "FilmReader",
    "FlipPairs",
    "Landmarks",
    "PairEvidence",
    "RowExchange",
    "atomic_write",
    "check_landmarks",
    "choose_labelled",
    "datasets",
    "exchange_order",
    "films_to_label",
    "flip_permutation",
    "has_sides",
    "phantoms",
    "propose_flip_pairs",
    "pseudo_labelled_datalist",
    "read_landmark_table",
    "read_landmarks",
    "unlabelled_datalist",
    "write_landmark_table",
    "write_landmarks",
]
