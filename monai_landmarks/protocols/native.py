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
"""The protocol for data without published rules."""

from __future__ import annotations

from .protocol import Protocol, register_protocol

__all__ = ["NATIVE_MM", "NATIVE_MM_INSIDE", "PHANTOM_MM"]

NATIVE_MM = register_protocol(
    Protocol(
        name="native/mm",
        dataset="data as given",
        thresholds=(1.0, 2.0, 3.0, 4.0),
        notes=("no published protocol: compare with numbers of the same cases and truth only",),
        phantom="phantom/mm",
    )
)

NATIVE_MM_INSIDE = register_protocol(
    NATIVE_MM.replace(
        "native/mm/inside",
        outside="leave_out",
        exclusions=("landmarks outside the field of view of their image",),
        phantom=None,
    )
)

PHANTOM_MM = register_protocol(
    NATIVE_MM.replace(
        "phantom/mm",
        dataset="phantom",
        annotator="the phantom's true positions",
        notes=("numbers on a phantom say that the program works, nothing about patients",),
        phantom=None,
        is_phantom=True,
    )
)
