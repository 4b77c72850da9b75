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
"""Films of which few have landmarks: lists without labels, and lists whose labels were predicted."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import ensure_tuple, look_up_option

from ..geometry import LandmarkError
from .datasets.splits import seeded_order
from .formats import read_landmarks
from .landmarks import Landmarks, quoted

__all__ = ["choose_labelled", "films_to_label", "pseudo_labelled_datalist", "unlabelled_datalist"]

Entry = Mapping[str, Any]

IMAGE_KEYS = ("image", "case", "pixel_size", "origin", "original_size", "reduction")
"""Of a reader's entry, what says nothing about landmarks."""

HIGHEST_PREDICTED = 0.999
"""Score of a predicted landmark at most: 1 says that a person has seen it, and trainers may trust such a label for good."""


def unlabelled_datalist(entries: Iterable[Entry], keep: Collection[str] = IMAGE_KEYS) -> list[dict[str, Any]]:
    """Take everything but the image and its geometry out of a reader's entries, so that nothing can look at a label.

    Args:
        entries: of any reader of :mod:`monai_landmarks.data.datasets`.
        keep: keys that stay.

    Returns:
        one dictionary per entry.

    Example:
        >>> unlabelled_datalist([{"image": "001.png", "case": "001", "landmarks": [[1.0, 2.0]]}])
        [{'image': '001.png', 'case': '001'}]
    """
    return [{key: value for key, value in entry.items() if key in keep} for entry in entries]


def choose_labelled(entries: Sequence[Entry], count: int, first: str | Sequence[str] = (), seed: int = 0) -> list[str]:
    """Choose the cases whose labels may be used: those named first, then others at random, always in the same order.

    More cases with the same seed hold all of the fewer ones, so that a curve over ``count`` adds annotations.

    Args:
        entries: of a reader; only the names of the cases are looked at.
        count: number of cases; all that there are if there are fewer.
        first: cases that come first, such as that of ``suggest_template``; one name or several.
        seed: of the others' order.

    Returns:
        names of the cases.

    Raises:
        LandmarkError: for a name in ``first`` that no entry has, or ``count`` below 1 or below the number of them.

    Example:
        >>> films = [{"case": f"{number:03d}"} for number in range(1, 6)]
        >>> choose_labelled(films, 1, first=["004"]), len(choose_labelled(films, 9))
        (['004'], 5)
    """
    cases = [str(entry["case"]) for entry in entries]
    chosen = list(dict.fromkeys(map(str, ensure_tuple(first))))
    unknown = [case for case in chosen if case not in cases]
    if unknown:
        raise LandmarkError(
            f"cases {quoted(unknown)} are not among the {len(cases)} films, such as {quoted(cases[:3])}."
        )
    if count < max(len(chosen), 1):
        raise LandmarkError(
            f"`count` is {count}: at least one film needs labels, and those of {quoted(chosen)} were asked for."
            if chosen
            else f"`count` is {count}: at least one film needs labels."
        )
    rest = seeded_order([case for case in cases if case not in chosen], seed)
    return [*chosen, *rest][:count]


def films_to_label(
    entries: Iterable[Entry],
    directory: str | os.PathLike[str],
    names: Sequence[str],
    labelled: Collection[str] = (),
    spatial_dims: int = 2,
) -> list[dict[str, Any]]:
    """List the films whose landmarks are to be predicted: all but labelled ones and those that a person has corrected.

    So a repeated prediction replaces its own files and no correction. A file counts as corrected if a landmark in it is no
    longer "preview", lacks, or was set to missing though the file tells the confidence with which it had been found. To
    have such a film predicted anew delete its file.

    Args:
        entries: of a reader.
        directory: where pseudo-labels are, or will be: see :func:`pseudo_labelled_datalist`.
        names: of the landmarks.
        labelled: cases with true landmarks.
        spatial_dims: of the images, 2 or 3.

    Returns:
        their dictionaries, as :func:`unlabelled_datalist` gives them.

    Raises:
        LandmarkError: for a file that cannot be read.

    Example:
        >>> films_to_label([{"image": "001.png", "case": "001"}], "/no/such/folder", ["sella"])
        [{'image': '001.png', 'case': '001'}]
    """
    others = [entry for entry in unlabelled_datalist(entries) if str(entry["case"]) not in labelled]
    return [entry for entry in others if not _is_corrected(_file_of(directory, entry), names, spatial_dims)]


def pseudo_labelled_datalist(
    entries: Iterable[Entry],
    directory: str | os.PathLike[str],
    names: Sequence[str],
    labelled: Collection[str] = (),
    spatial_dims: int = 2,
    min_score: float = 0.0,
    removed: str = "raise",
) -> list[dict[str, Any]]:
    """List films for the training on pseudo-labels: true landmarks for a few cases, predicted ones for all others.

    Pseudo-labels are ``<case>.mrk.json`` files, as :class:`~monai_landmarks.transforms.SaveLandmarksd` writes them with
    ``status="preview"`` and a confidence. A person may correct them in 3D Slicer: a landmark whose status is then
    "defined" counts like a true one. The true landmarks in the entries of other cases than ``labelled`` are not read.

    Args:
        entries: of a reader; ``landmarks`` (world mm) is used for the ``labelled`` cases only.
        directory: where the pseudo-labels are.
        names: of the landmarks, in the order of ``landmarks``.
        labelled: cases with true landmarks.
        spatial_dims: of the images, 2 or 3; the files have three coordinates for both.
        min_score: a predicted landmark with a lower confidence is missing (NaN): it takes no part in the training.
        removed: for a landmark that somebody took out of a file: ``"raise"``, or ``"missing"``.

    Returns:
        One dictionary per entry: that of :func:`unlabelled_datalist`, ``landmarks`` (float64 ``(N, D)``, world mm) and
        ``scores`` (float32 ``(N,)``): 1 for true and for confirmed landmarks, the confidence for predicted ones, 0 to 0.999
        (what nobody has looked at never counts as true), 0.999 where the file has none, and 0 for missing landmarks.

    Raises:
        FileNotFoundError: naming all cases without a file.
        LandmarkError: for a file that lacks a landmark, a labelled case that is not there or that has no landmarks.
    """
    look_up_option(removed, ("raise", "missing"))
    entries = list(entries)
    absent = sorted(set(labelled) - {str(entry["case"]) for entry in entries})
    if absent:
        raise LandmarkError(f"labelled cases {quoted(absent)} are not among the {len(entries)} films.")
    files = {str(entry["case"]): _file_of(directory, entry) for entry in entries}
    lost = [case for case, path in files.items() if case not in labelled and not path.is_file()]
    if lost:
        raise FileNotFoundError(
            f"{len(lost)} of {len(files)} films have neither labels nor pseudo-labels in {directory}: {quoted(lost)}. "
            "Run the stage that writes them first."
        )
    listed = []
    for entry, plain in zip(entries, unlabelled_datalist(entries), strict=True):
        case = str(entry["case"])
        if case in labelled:
            points, scores = _true_landmarks(entry, names), np.ones(len(names))
        else:
            points, scores = _predicted_landmarks(files[case], names, spatial_dims, min_score, removed)
        scores = np.where(np.isnan(points).any(axis=1), 0.0, scores)
        listed.append({**plain, "landmarks": points, "scores": scores.astype(np.float32)})
    return listed


def _file_of(directory: str | os.PathLike[str], entry: Entry) -> Path:
    return Path(directory) / f"{entry['case']}.mrk.json"


def _is_corrected(path: Path, names: Sequence[str], spatial_dims: int) -> bool:
    if not path.is_file():
        return False
    marks: Landmarks = read_landmarks(path, spatial_dims=spatial_dims)
    found = np.zeros(len(marks.names)) if marks.confidence is None else np.nan_to_num(marks.confidence)
    by_hand = [
        word in ("defined", "outside") or (word != "preview" and score > 0)
        for word, score in zip(marks.status, found, strict=True)
    ]
    return any(by_hand) or set(marks.names) != set(names)


def _true_landmarks(entry: Entry, names: Sequence[str]) -> np.ndarray:
    given = entry.get("landmarks")
    if given is None or np.shape(given)[:1] != (len(names),):
        found = "none" if given is None else f"an array of shape {np.shape(given)}"
        raise LandmarkError(f"labelled case {entry['case']!r} needs {len(names)} landmarks, it has {found}.")
    return np.asarray(given, dtype=np.float64)


def _predicted_landmarks(
    path: Path, names: Sequence[str], spatial_dims: int, min_score: float, removed: str
) -> tuple[np.ndarray, np.ndarray]:
    marks: Landmarks = read_landmarks(path, spatial_dims=spatial_dims)
    gone = [name for name in names if name not in marks.names]
    if gone and removed == "raise":
        raise LandmarkError(
            f"{path} has no landmark {quoted(gone)}: was it taken out by hand? To leave it out of the training set its "
            "status to missing and keep it in the list, or say removed='missing'."
        )
    marks = marks.reorder(names, missing="nan", extra="raise")
    confirmed = [word != "preview" for word in marks.status]
    scores = np.ones(len(names)) if marks.confidence is None else np.nan_to_num(marks.confidence, nan=1.0)
    scores = np.where(confirmed, 1.0, scores.clip(0, HIGHEST_PREDICTED))
    return np.where((scores < min_score)[:, None], np.nan, marks.points), scores
