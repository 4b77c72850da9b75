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
"""Figures of single cases and of whole runs, and one HTML file that shows them with the numbers and their protocol."""

from __future__ import annotations

from .canvas import figure_array, figure_png, save_figure
from .case_errors import case_errors, error_summary
from .components import component_overlay
from .curves import error_curve, per_landmark_boxplot
from .html import CaseFigure, write_report
from .overlays import landmark_overlay
from .registration_figure import figure_registration
from .similarity_figures import figure_similarity_pyramid, figure_template_ranking

__all__ = [
    "CaseFigure",
    "case_errors",
    "component_overlay",
    "error_curve",
    "error_summary",
    "figure_array",
    "figure_png",
    "figure_registration",
    "figure_similarity_pyramid",
    "figure_template_ranking",
    "landmark_overlay",
    "per_landmark_boxplot",
    "save_figure",
    "write_report",
]
