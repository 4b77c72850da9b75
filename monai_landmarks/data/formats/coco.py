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
"""COCO keypoints JSON: ``images``, ``annotations`` and ``categories`` with keypoint names.

``keypoints`` is the flat list ``[x1, y1, v1, x2, y2, v2, ...]`` in pixels of the image, (x, y) = (column, row), the
centre of the first pixel being 0. ``v`` = 0 means not labelled, whatever x and y are (usually 0, 0); 1 is labelled and
not visible, 2 labelled and visible: both are positions. A landmark outside the image is written with 1. As 1 is also a
keypoint hidden behind something, only the word in ``keypoint_status`` makes it outside when read; `Landmarks.seen_in`
tells it of files without these words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from monai_landmarks.geometry import LandmarkError

from .common import (
    FileLandmarks,
    ReadRequest,
    WriteRequest,
    dump_json,
    entry_of,
    load_json,
    mapping_of,
    number_of,
    objects_of,
    sequence_of,
    size_of,
)
from .select import select_case


def read(request: ReadRequest, *, category: str | int | None = None) -> FileLandmarks:
    """Read the keypoints of one image.

    Args:
        request: the file; ``case`` is the image's ``file_name``, that name without folder or suffix, or its ``id``.
        category: name or id of the category where the image has annotations of several.
    """
    cases, case_of_id = _cases(request, category)
    asked = request.case if request.case in cases else case_of_id.get(str(request.case), request.case)
    return select_case(cases, asked, "image")


def read_all(request: ReadRequest, *, category: str | int | None = None) -> dict[str, FileLandmarks]:
    """Read the keypoints of every annotated image, by ``file_name``."""
    return _cases(request, category)[0]


def _cases(request: ReadRequest, category: str | int | None) -> tuple[dict[str, FileLandmarks], dict[str, str]]:
    """Return the landmarks by file name, and the file names by image id."""
    content = mapping_of(load_json(request.path), "a COCO file")
    pictures, annotations, kinds = (
        objects_of(content.get(key), f"{key!r}") for key in ("images", "annotations", "categories")
    )
    names_of = {entry_of(item, "id", "a category"): _keypoint_names(item) for item in kinds}
    images = {entry_of(item, "id", "an image"): item for item in pictures}
    chosen = {item["id"] for item in kinds if category in (None, item["id"], item.get("name"))}
    if not chosen:
        known = [f"{item['id']} ({item.get('name')})" for item in kinds]
        raise LandmarkError(f"no category {category!r}; the file has {', '.join(known)}.")
    cases: dict[str, FileLandmarks] = {}
    case_of_id: dict[str, str] = {}
    for annotation in annotations:
        where = f"annotation {annotation.get('id')}"
        if "keypoints" not in annotation or entry_of(annotation, "category_id", where) not in chosen:
            continue
        image = images.get(entry_of(annotation, "image_id", where))
        if image is None:
            raise LandmarkError(f"{where} is of image {annotation['image_id']}, which 'images' does not list.")
        case = str(image.get("file_name", image["id"]))
        if case in cases:
            raise LandmarkError(
                f"image {case!r} has several keypoint annotations: one case needs exactly one. Choose by category=, or "
                "split the file."
            )
        case_of_id[str(image["id"])] = case
        cases[case] = _landmarks(annotation, names_of[annotation["category_id"]], image)
    if not cases:
        raise LandmarkError("no image has keypoints.")
    return cases, case_of_id


def write(request: WriteRequest, *, image_file: str = "", image_id: int = 1, category: str = "landmarks") -> None:
    """Write a file with one image and one annotation.

    A landmark outside the image has ``v`` = 1. The words for the status and the confidence go into the annotation's extra
    lists ``keypoint_status`` and ``keypoint_scores``.

    Args:
        request: 2D landmarks; ``spatial_shape`` (width, height), if given, goes into the image's entry.
        image_file: ``file_name`` of the image.
        image_id: ``id`` of the image.
        category: name of the category.
    """
    marks = request.landmarks
    if marks.spatial_dims != 2:
        raise LandmarkError("COCO keypoints are 2D; write 3D landmarks as .mrk.json.")
    flat: list[float] = []
    for point, status in zip(request.points, marks.status, strict=True):
        seen = 1 if status == "outside" else 2
        flat += [0.0, 0.0, 0] if np.isnan(point).any() else [float(point[0]), float(point[1]), seen]
    image: dict[str, Any] = {"id": image_id, "file_name": image_file}
    if request.spatial_shape is not None:
        image["width"], image["height"] = (int(size) for size in request.spatial_shape)
    annotation: dict[str, Any] = {
        "id": 1,
        "image_id": image_id,
        "category_id": 1,
        "num_keypoints": int(marks.present.sum()),
        "keypoints": flat,
        "keypoint_status": list(marks.status),
    }
    if marks.confidence is not None:
        annotation["keypoint_scores"] = [None if np.isnan(v) else float(v) for v in marks.confidence]
    categories = [{"id": 1, "name": category, "keypoints": list(marks.names), "skeleton": []}]
    dump_json({"images": [image], "annotations": [annotation], "categories": categories}, request.path)


def _keypoint_names(category: Mapping[str, Any]) -> list[str] | None:
    names = category.get("keypoints")
    return [str(name).strip() for name in sequence_of(names, "'keypoints' of a category")] if names else None


def _landmarks(annotation: Mapping[str, Any], names: list[str] | None, image: Mapping[str, Any]) -> FileLandmarks:
    where = f"annotation {annotation.get('id')}"
    flat = [number_of(value, f"keypoints of {where}") for value in sequence_of(annotation["keypoints"], "'keypoints'")]
    if len(flat) % 3 or (names is not None and len(flat) != 3 * len(names)):
        expected = f"3 x {len(names)} (the category's names)" if names else "a multiple of 3"
        raise LandmarkError(f"{where} has {len(flat)} numbers in 'keypoints'; {expected} are needed: x, y, v per name.")
    table = np.array(flat).reshape(-1, 3)
    points = np.where(table[:, 2:] > 0, table[:, :2], np.nan)
    scores = annotation.get("keypoint_scores")
    return FileLandmarks(
        points=points,
        space="voxel",
        names=names,
        status=_status(annotation, len(table)),
        confidence=None if scores is None else _scores(scores, where, len(table)),
        spatial_shape=size_of(image.get("width"), image.get("height")),
    )


def _status(annotation: Mapping[str, Any], count: int) -> list[str | None]:
    status = annotation.get("keypoint_status")
    return list(status) if isinstance(status, list) and len(status) == count else [None] * count


def _scores(scores: Any, where: str, count: int) -> list[float]:
    if len(sequence_of(scores, f"keypoint_scores of {where}")) != count:
        raise LandmarkError(f"keypoint_scores of {where} has {len(scores)} entries for {count} keypoints.")
    return [number_of(value, f"keypoint_scores of {where}") for value in scores]
