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
"""The bias doctor: does a pipeline keep landmarks on the anatomy, and if not, why and where does it lose them?

``check_landmarks_follow`` sends a phantom through (``phantom``, ``probe``, ``run``), measures where its blobs are
(``measure``, ``ramps``), explains residuals (``diagnosis``, ``axes``, ``decoded``) and collects the findings
(``findings``) into a ``FollowReport`` (``report``).
"""

from __future__ import annotations

from .check import check_landmarks_follow
from .report import Finding, FollowReport, FollowStage, Severity

__all__ = ["Finding", "FollowReport", "FollowStage", "Severity", "check_landmarks_follow"]
