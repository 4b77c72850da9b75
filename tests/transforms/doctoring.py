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
"""What the tests of ``check_landmarks_follow`` share: a pipeline about a trap, and what a report must say."""

from __future__ import annotations

from typing import Any

from monai.transforms import Compose, Resized

from monai_landmarks.transforms import FollowReport, LandmarksWorldToImaged, check_landmarks_follow

TO_VOXELS = LandmarksWorldToImaged("landmarks", "image", output_keys="points")
SHAPES = {2: (72, 60), 3: (40, 36, 34)}
SMALL = SHAPES[3]


def doctor(transform: Any, dims: int = 3, **options: Any) -> FollowReport:
    """Something harmless before the trap, the conversion after it."""
    compose = Compose(
        [Resized("image", SHAPES[dims], mode="bilinear" if dims == 2 else "trilinear"), transform, TO_VOXELS]
    )
    return check_landmarks_follow(compose, spatial_shape=SHAPES[dims], draws=1, **options)


def found(report: FollowReport, kind: str, *pieces: str, culprit: str | None = None) -> None:
    """The report fails for this reason, says so in these words, and names the transform."""
    text = " ".join(str(report).split())
    assert not report.passed, text
    assert [finding.kind for finding in report.faults] == [kind], text
    assert report.culprit == culprit, text
    for piece in pieces:
        assert piece in text, text


def faultless(report: FollowReport) -> None:
    report.raise_if_failed()
    assert report.passed, str(report)
    assert not report.faults
    assert report.culprit is None
    assert "PASSED" in str(report)
