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
"""Template of the phantom's head seen from the side: outlines in millimetres, and how they are drawn.

Drawn by hand with round numbers; no outline was traced from a patient's film. x runs right (anterior), y down.
A point given twice is a corner.
"""

from __future__ import annotations

import numpy as np

__all__ = ["CLOSED", "CURVES", "LAYERS", "TEETH", "VERTEBRAE", "WISPS", "tooth_outline", "vertebra_outline"]

_Points = tuple[tuple[float, float], ...]

# fmt: off
CURVES: dict[str, _Points] = {
    "skin": (
        (-45, 76), (-30, 48), (-3, 30), (24, 16.5), (57, 9.5), (90, 16.5), (116, 33), (133, 55.5), (141, 75),
        (144.6, 87), (143.6, 98),
        (148, 108.5), (155, 120), (161.5, 130.5), (165.5, 137), (164, 141.6), (158, 145), (150, 149.5), (150, 149.5),
        (150.2, 154), (152.2, 158.4), (155.2, 161.8), (156.0, 165), (154.4, 168.2), (151, 170), (151, 170),
        (154, 172.2),
        (155.2, 176), (154, 180.4), (150, 184.6), (146.2, 189), (146.4, 194), (147.8, 200), (145, 207),
        (137, 211.5), (122, 213),
        (107, 213.5), (98, 217), (93, 226), (90, 238), (88, 275), (-45, 275), (-12, 226), (5, 203), (7, 180),
        (-2, 155), (-30, 130),
    ),
    "vault_outer": (
        (-40, 92), (-24, 55), (0, 36), (25, 22.5), (57, 15.5), (87, 22), (111, 37.5), (128, 59), (135.5, 77),
        (138.8, 88), (139, 97),
    ),
    "vault_inner": (
        (133, 93), (129.8, 79), (122, 61.5), (106.5, 42.5), (84.5, 28), (57, 21.8), (27, 28.5), (4, 41), (-18, 62),
        (-33, 98),
    ),
    "skull_base": (
        (131, 97), (118, 98.5), (104, 99), (94, 98.8), (87.5, 99.2), (86.5, 105), (81.5, 109), (76.5, 105.5),
        (75, 98.5),
        (71, 108), (66, 120), (61, 133), (46, 140), (30, 147), (12, 141), (-8, 130), (-28, 114),
    ),
    "sella_bowl": ((87.8, 99.6), (86.9, 105), (81.5, 109), (76.6, 105.3), (75.4, 99.2)),
    "sella_line": (
        (104, 98.6), (95, 98.4), (88.5, 98), (87.8, 99.6), (86.9, 105), (81.5, 109), (76.6, 105.3), (75.4, 99.2),
        (73.6, 98),
        (71.2, 108), (66.5, 119), (61.5, 131.5),
    ),
    "frontal_base": ((132.5, 94.5), (125, 95.5), (115, 97.6), (104, 98.6), (95, 98.4)),
    "orbit_roof": ((134, 97), (128, 92.5), (119, 91), (108, 93.5), (98, 97.5)),
    "orbit_roof_far": ((134, 94), (127, 89.5), (118, 88), (107, 91), (97, 95.5)),
    "great_wing": ((104, 88), (101.5, 95), (100.5, 104), (97, 113), (89, 119)),
    "frontal_sinus": ((136, 94.5), (132.8, 88), (132.4, 80), (134.2, 77), (136, 83), (136.9, 90)),
    "nasal_bone": (
        (139, 97), (139, 97), (144.2, 104.5), (150.8, 113.8), (150.8, 113.8), (147.5, 112), (142, 106),
        (137.2, 101), (136, 97.6),
    ),
    "suture": ((139.2, 97), (136.8, 97.9), (133.8, 98.6)),
    "face": (
        (138.8, 97.5), (140.5, 106), (137.5, 116), (134.8, 127), (136, 137), (139, 144), (139, 149), (122, 150),
        (104, 149),
        (98, 142), (95, 128), (93, 116), (97, 104), (110, 100), (126, 99),
    ),
    "upper_face": ((86, 92), (110, 90), (134, 92), (135, 104), (128, 114), (110, 117), (96, 124), (82, 116)),
    "neck": ((-30, 152), (14, 158), (30, 172), (26, 205), (14, 245), (-40, 245)),
    "ethmoid": ((104, 101), (118, 101), (129, 102), (128, 113), (118, 118), (106, 116)),
    "sphenoid_sinus": ((90, 101.5), (100, 101), (102, 108), (98, 114.5), (88, 117), (80, 113.5), (86, 110)),
    "orbit": (
        (131.5, 99), (124, 101.5), (119.8, 107.5), (119.5, 114), (122, 119), (127, 121.4), (130.3, 119.6),
        (131.4, 116.5),
    ),
    "orbit_far": (
        (133, 94.5), (125.5, 97), (121.3, 103), (121, 109.5), (123.5, 114.5), (128, 116.6), (131.5, 115), (132.6, 112),
    ),
    "maxillary_sinus": ((101, 122), (112, 119.5), (123, 124), (125, 133), (121.5, 141), (109, 141.6), (101, 137)),
    "nasal_cavity": ((101, 118), (120, 116), (135, 117), (138, 130), (139.5, 142), (120, 141.5), (101, 141)),
    "nostril": ((150, 138), (155, 136), (159.5, 139), (156, 142), (150.5, 143.5)),
    "key_ridge": ((110, 117), (114.5, 127), (118.6, 136), (121, 137.5), (122.6, 132), (125, 122.5)),
    "key_ridge_far": ((112.5, 114), (117, 124), (121.6, 132.6), (124, 134), (125.6, 128), (127.5, 119)),
    "pterygoid": ((97.4, 142), (96, 130), (94.4, 121), (97, 116.5), (100.6, 119.5), (99.8, 129), (97.8, 142)),
    "palate": (
        (97, 144), (97, 144), (108, 142), (122, 142.4), (133.5, 143.6), (141, 146), (141, 146), (136.8, 148.4),
        (128, 147.6),
        (117, 147.8), (106, 146.3),
    ),
    "maxilla_front": ((141, 146), (141, 146), (137.9, 148.6), (137.1, 152), (138, 156), (140.8, 161), (142, 163.6)),
    "alveolus": (
        (136.9, 148.5), (137.1, 152), (138, 156), (140.8, 161), (142, 163.6), (136, 163.5), (125, 162.5),
        (112, 160.5), (103, 157.5),
        (103, 150), (110, 147),
    ),
    "petrous": ((74, 112), (60, 107), (44, 112), (33, 124), (36, 137), (50, 139), (64, 131)),
    "ear_canal": (
        (60.5, 121), (62.9, 122.2), (63.9, 125), (62.9, 127.8), (60.5, 129), (58.1, 127.8), (57.1, 125),
        (58.1, 122.2),
    ),
    "base_shadow": (
        (104, 99), (104, 112), (92, 122), (78, 133), (64, 141), (44, 146), (34, 138), (50, 126), (66, 112),
        (82, 110),
    ),
    "base_inferior": ((98, 113), (86, 120.5), (75, 128), (66.6, 133.2), (57, 137.6), (46, 141)),
    "base_inferior_far": ((98, 110), (88, 116), (78, 121.5), (68, 125.5)),
    "occipital": ((46, 141), (30, 148), (12, 142), (-8, 131), (-28, 115)),
    "mandible": (
        (69.5, 123.3), (66.2, 126.5), (66.3, 133), (67.2, 145), (68.2, 157), (70, 167), (74, 174), (80.5, 179.2),
        (90, 184.3), (104, 192), (117, 199.4), (124.5, 203.3), (129, 204.3), (133, 202.6), (135.8, 198), (135.4, 192),
        (134.2, 185.5), (136, 180), (138.4, 176.6), (128, 176.4), (115, 174.6), (103, 171), (96, 166), (91.5, 156),
        (88.5, 146),
        (88, 137), (86.6, 129), (82, 133.8), (78, 134), (75, 129.6), (73.2, 125),
    ),
    "ramus_front": (
        (103, 171), (96, 166), (91.5, 156), (88.5, 146), (88, 137), (86.6, 129), (82, 133.8), (78, 134),
        (75, 129.6),
    ),
    "mandible_body": (
        (76, 163), (80, 174), (92, 182), (106, 189.5), (119, 196.5), (128, 200), (132, 197), (131.5, 187), (134, 179),
        (116, 176), (102, 172), (92, 164), (84, 158),
    ),
    "mandible_far": (
        (68, 126), (66.5, 131), (67.2, 145), (68.2, 157), (70, 167), (74, 174), (80.5, 179.2), (90, 184.3),
        (104, 192),
    ),
    "symphysis": ((134.4, 179), (131.4, 186), (128, 194), (126.2, 199.6), (128.4, 202.8)),
    "oblique_ridge": ((89.5, 140), (91, 152), (95, 163), (104, 172.5), (114, 177)),
    "canal_near": ((82, 152), (86, 163), (95, 176), (108, 185.5), (120, 190)),
    "canal_far": ((85, 150.5), (89.4, 162), (98, 173.5), (110, 182.5), (121, 187)),
    "soft_palate": ((97, 145), (90, 152), (85, 161), (83, 168), (86, 168), (92, 157.5), (99, 149)),
    "airway": (
        (95, 130), (90, 146), (84.5, 155), (81, 170), (83, 186), (88, 199), (86, 212), (82, 226), (78, 244),
        (70, 244), (74, 226),
        (77, 210), (76, 194), (74.6, 178), (74, 160), (79, 143), (86, 132),
    ),
    "hyoid": ((90, 203), (97, 200.4), (102.5, 202), (103, 205.4), (96, 206)),
    "shoulder": ((-30, 216), (5, 217), (22, 220.5), (37, 228), (47, 245), (-30, 245)),
}
"""Control points of every outline of the head and neck."""

CLOSED = frozenset({
    "skin", "skull", "vault", "frontal_sinus", "nasal_bone", "face", "ethmoid", "sphenoid_sinus", "maxillary_sinus",
    "nasal_cavity", "nostril", "pterygoid", "palate", "alveolus", "petrous", "ear_canal", "mandible",
    "mandible_body", "base_shadow", "upper_face", "neck", "soft_palate", "airway", "hyoid",
    "shoulder",
})

LAYERS: tuple[tuple[str, str, float, float], ...] = (
    # (how, outline, attenuation, line width in mm). "fill" and "line" are sharp, "shade" is blurred, "rim" is a line
    # on the inner side of a closed outline, "edge" one on the inner side of an open one; "haze" is blurred widely.
    ("haze", "petrous", 0.16, 0),
    ("shade", "petrous", 0.08, 0),
    ("haze", "base_shadow", 0.24, 0),
    ("haze", "upper_face", 0.24, 0),
    ("haze", "neck", -0.12, 0),
    ("line", "great_wing", 0.14, 1.0),
    ("line", "frontal_base", 0.24, 1.6),
    ("line", "orbit_roof", 0.20, 0.9),
    ("line", "orbit_roof_far", 0.15, 0.9),
    ("line", "sella_line", 0.30, 1.0),
    ("fill", "ear_canal", -0.30, 0),
    ("rim", "ear_canal", 0.60, 0.9),
    ("line", "base_inferior", 0.30, 2.0),
    ("line", "base_inferior_far", 0.18, 1.8),
    ("line", "occipital", 0.20, 2.4),
    ("shade", "face", 0.12, 0),
    ("haze", "face", 0.10, 0),
    ("shade", "ethmoid", -0.05, 0),
    ("fill", "sphenoid_sinus", -0.10, 0),
    ("rim", "sphenoid_sinus", 0.08, 0.6),
    ("fill", "frontal_sinus", -0.26, 0),
    ("rim", "frontal_sinus", 0.12, 0.6),
    ("fill", "nasal_bone", 0.26, 0),
    ("line", "suture", -0.22, 0.7),
    ("line", "orbit", 0.26, 1.0),
    ("line", "orbit_far", 0.14, 1.0),
    ("shade", "nasal_cavity", -0.12, 0),
    ("fill", "maxillary_sinus", -0.12, 0),
    ("rim", "maxillary_sinus", 0.12, 0.7),
    ("shade", "nostril", -0.10, 0),
    ("line", "key_ridge", 0.24, 0.9),
    ("line", "key_ridge_far", 0.14, 0.9),
    ("line", "pterygoid", 0.16, 0.7),
    ("fill", "palate", 0.30, 0),
    ("shade", "palate", 0.06, 0),
    ("fill", "alveolus", 0.08, 0),
    ("shade", "alveolus", 0.22, 0),
    ("line", "maxilla_front", 0.10, 0.8),
    ("fill", "mandible", 0.14, 0),
    ("haze", "mandible_body", 0.24, 0),
    ("edge", "jaw_border", 0.14, 1.2),
    ("edge", "jaw_border", 0.10, 2.8),
    ("edge", "jaw_border", 0.06, 5.5),
    ("line", "ramus_front", 0.10, 1.2),
    ("line", "mandible_far", 0.13, 1.6),
    ("line", "symphysis", 0.16, 1.2),
    ("line", "oblique_ridge", 0.14, 1.4),
    ("line", "canal_near", -0.05, 1.8),
    ("line", "canal_far", -0.04, 1.8),
    ("fill", "airway", -0.05, 0),
    ("shade", "airway", -0.07, 0),
    ("fill", "soft_palate", 0.05, 0),
    ("fill", "hyoid", 0.12, 0),
    ("shade", "hyoid", 0.10, 0),
    ("rim", "hyoid", 0.08, 1.0),
)

# Region (x and y from, x and y to, mm), how many, length and width (mm), attenuation of its fine random lines: walls
# of sinuses and orbits and the two petrous bones, projected over each other.
WISPS: tuple[tuple[float, float, float, float, int, float, float, float], ...] = (
    (98, 98, 134, 122, 26, 12, 1.0, 0.09), (100, 116, 132, 141, 14, 12, 1.1, 0.07),
    (36, 106, 78, 136, 26, 13, 1.6, 0.08),
    (76, 104, 100, 130, 12, 15, 1.4, 0.09), (104, 84, 134, 100, 10, 14, 1.0, 0.07),
    (100, 178, 128, 196, 14, 9, 0.9, 0.03),
    (10, 40, 105, 85, 10, 26, 1.8, 0.025),
)

# Tip, apex (mm), crown width (mm), kind. Incisors taper to their tip; the others have a flat crown. "far" teeth are
# the other side's, drawn fainter.
TEETH: tuple[tuple[str, tuple[float, float], tuple[float, float], float], ...] = (
    ("far", (139.6, 169), (128.5, 150), 6.0), ("far", (138.2, 170), (130.0, 190), 5.0),
    ("near", (131.2, 170.0), (124.8, 150), 6.8), ("near", (124.3, 169.3), (119.0, 150.5), 6.6),
    ("near", (116.0, 168.4), (112.2, 149.5), 10.0), ("near", (106.2, 166.4), (104.0, 149), 9.6),
    ("near", (132.4, 170.2), (126.6, 191), 6.0), ("near", (126.0, 170.4), (120.8, 189), 6.6),
    ("near", (118.4, 169.6), (114.2, 186.5), 10.6), ("near", (107.6, 167.8), (104.6, 183), 10.4),
    ("far", (133.0, 168.2), (127.0, 149), 6.8), ("far", (126.6, 167.6), (121.6, 149), 6.6),
    ("far", (118.6, 166.8), (115.0, 148), 10.0), ("far", (128.6, 169.0), (123.2, 187), 6.4),
    ("far", (120.8, 168.2), (116.8, 185), 10.4), ("far", (97.6, 162.6), (98.2, 147.4), 8.6),
)

# Centre of the body (mm), width, height, tilt in degrees, length of the spinous process.
VERTEBRAE: tuple[tuple[float, float, float, float, float, float], ...] = (
    (58.5, 166, 12.5, 13.5, 12, 25), (55.5, 181, 13, 10.5, 12, 22), (52.5, 194.5, 13.2, 10.5, 11, 22),
    (49.5, 208, 13.4, 10.6, 10, 24), (46.5, 221.5, 13.8, 10.8, 9, 28), (43.8, 235, 14, 11, 8, 30),
)
# fmt: on


def tooth_outline(tip: np.ndarray, apex: np.ndarray, width: float, incisor: bool = False) -> np.ndarray:
    """Outline a tooth along its long axis; an incisor's outline has its sharp corner exactly at ``tip``.

    Example:
        >>> tooth_outline(np.array([0.0, 0.0]), np.array([0.0, 20.0]), 6.0, incisor=True)[0].tolist()
        [0.0, 0.0]
    """
    along = np.array([0.0, 0.1, 0.24, 0.38, 0.46, 0.62, 0.8, 0.94, 1.0])
    half = np.array([0.0, 0.24, 0.42, 0.50, 0.48, 0.40, 0.29, 0.15, 0.0] if incisor else
                    [0.38, 0.48, 0.50, 0.46, 0.40, 0.36, 0.28, 0.15, 0.0])  # fmt: skip
    axis = np.asarray(apex) - tip
    normal = np.array([-axis[1], axis[0]]) / np.linalg.norm(axis) * width
    middle = tip + along[:, None] * axis
    return np.concatenate(
        [middle + half[:, None] * normal, (middle - half[:, None] * normal)[-2 : 0 if incisor else None : -1]]
    )


def vertebra_outline(center: np.ndarray, width: float, height: float, tilt: float) -> np.ndarray:
    """Control points of a vertebral body: a box with hollow sides.

    Example:
        >>> vertebra_outline(np.zeros(2), 10.0, 8.0, 0.0).shape
        (12, 2)
    """
    x = np.array([-1, -0.92, 0, 0.92, 1, 0.9, 1, 0.92, 0, -0.92, -1, -0.9]) * (width / 2)
    y = np.array([-0.86, -1, -0.84, -1, -0.86, 0, 0.86, 1, 0.9, 1, 0.86, 0]) * (height / 2)
    angle = np.deg2rad(tilt)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(center) + np.stack([x, y], axis=-1) @ rotation.T
