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
"""`Landmarks`: named points in world millimetres, with their status, as one value."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.utils import look_up_option
from numpy.typing import ArrayLike

from monai_landmarks.geometry import LandmarkError, affine_nd, apply_affine, invert_affine
from monai_landmarks.geometry.field_of_view import FieldOfView, field_of_view

__all__ = ["STATUSES", "WITH_POSITION", "Landmarks", "did_you_mean", "quoted"]

STATUSES = ("defined", "missing", "preview", "undefined", "outside")
WITH_POSITION = ("defined", "preview", "outside")


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Landmarks:
    """The named landmarks of one image in world millimetres: RAS+ in 3D, the film plane (x right, y down) in 2D.

    A value: the arrays are read-only copies, two objects are equal when all they hold is equal (NaN equals NaN).

    Args:
        points: ``(N, D)``, D = 2 or 3; kept as float64. A missing landmark is NaN in all D coordinates.
        names: N different names. A name is printable text without line breaks or surrounding space, so that every file
            format can hold it.
        status: one word per landmark, as in 3D Slicer: ``"defined"`` (somebody or something placed it), ``"preview"``
            (placed and not yet confirmed: a prediction waiting for review), ``"missing"`` (looked for and not there),
            ``"undefined"`` (not placed yet), and ``"outside"`` (its place is known and not in its image, see
            :meth:`seen_in`). Missing and undefined ones are NaN, the others have a position. Default: defined where
            there is a position, else missing.
        confidence: None, or ``(N,)`` numbers, NaN where unknown; kept as float64.

    Raises:
        LandmarkError: with what is wrong, with which landmark, and the likely cause.

    Example:
        >>> case = Landmarks([[82.9, 99.1], [float("nan"), float("nan")]], ["sella", "nasion"])
        >>> case
        Landmarks(2 landmarks in 2D: 'sella', 'nasion'; 1 missing)
        >>> case.present.tolist(), case.status
        ([True, False], ('defined', 'missing'))
        >>> case.reorder(["nasion", "sella"]).points.tolist()
        [[nan, nan], [82.9, 99.1]]
        >>> case.reorder(["nasion", "sela"])
        Traceback (most recent call last):
        ...
        monai_landmarks.geometry.points.LandmarkError: the names do not fit. Asked for and not here: 'sela'
        (did you mean 'sella'?). Here and not asked for: 'sella'.
    """

    points: np.ndarray
    names: tuple[str, ...]
    status: tuple[str, ...]
    confidence: np.ndarray | None

    def __init__(
        self,
        points: ArrayLike | torch.Tensor,
        names: Iterable[str],
        status: Iterable[str] | None = None,
        confidence: ArrayLike | torch.Tensor | None = None,
    ) -> None:
        checked_names = _checked_names(names)
        checked_points = _checked_points(points, checked_names)
        object.__setattr__(self, "names", checked_names)
        object.__setattr__(self, "points", checked_points)
        object.__setattr__(self, "status", _checked_status(status, checked_points, checked_names))
        object.__setattr__(self, "confidence", _checked_confidence(confidence, checked_names))

    @property
    def num_landmarks(self) -> int:
        """N, the missing ones counted."""
        return len(self.names)

    @property
    def spatial_dims(self) -> int:
        """D, 2 or 3."""
        return int(self.points.shape[1])

    @property
    def present(self) -> np.ndarray:
        """Bool ``(N,)``: True where there is a position."""
        return ~np.isnan(self.points).any(axis=1)

    @property
    def outside(self) -> np.ndarray:
        """Bool ``(N,)``: True where the status says that the landmark lies outside its image."""
        return np.array([word == "outside" for word in self.status])

    def seen_in(self, affine: Any, spatial_shape: Sequence[int]) -> Landmarks:
        """Give the landmarks with the status ``"outside"`` where, and only where, they lie outside an image.

        One outside before and inside now becomes defined; all coordinates stay as they are.

        Args:
            affine: index-to-world matrix of the image, 3x3 or 4x4.
            spatial_shape: size of the image, D numbers.

        Raises:
            LandmarkError: if landmarks and image differ in dimension.

        Example:
            >>> marks = Landmarks([[3.0, 4.0], [30.0, 4.0]], ["sella", "nasion"])
            >>> marks.seen_in(np.eye(3), (10, 10)).status
            ('defined', 'outside')
        """
        index = apply_affine(self.to_tensor(), invert_affine(affine_nd(affine, self.spatial_dims)))
        state = field_of_view(index, spatial_shape).tolist()
        return self.replace(status=[_seen_status(word, s) for word, s in zip(self.status, state, strict=True)])

    def reorder(self, names: Sequence[str], *, missing: str = "raise", extra: str = "raise") -> Landmarks:
        """Give the landmarks in the order of ``names``; matched by name, never by place.

        Args:
            names: the order wanted, each name once.
            missing: what to do with a wanted name that is not here: ``"raise"``, or ``"nan"`` to add it as missing.
            extra: what to do with a landmark that is not wanted: ``"raise"``, or ``"drop"``.

        Returns:
            new Landmarks of ``len(names)`` landmarks.

        Raises:
            LandmarkError: listing all names that do not fit, each with the nearest name here, or a repeated name.
        """
        look_up_option(missing, ("raise", "nan"))
        look_up_option(extra, ("raise", "drop"))
        wanted = _checked_names(names)
        here = {name: index for index, name in enumerate(self.names)}
        absent = [name for name in wanted if name not in here]
        surplus = [name for name in self.names if name not in set(wanted)]
        faults = []
        if absent and missing == "raise":
            hints = [f"{name!r}{did_you_mean(name, surplus or self.names)}" for name in absent]
            faults.append(f"Asked for and not here: {shortened(hints)}.")
        if surplus and extra == "raise":
            faults.append(f"Here and not asked for: {quoted(surplus)}.")
        if faults:
            raise LandmarkError("the names do not fit. " + " ".join(faults))
        points = np.full((len(wanted), self.spatial_dims), np.nan)
        confidence = None if self.confidence is None else np.full(len(wanted), np.nan)
        status = ["missing"] * len(wanted)
        for row, name in enumerate(wanted):
            if name in here:
                points[row] = self.points[here[name]]
                status[row] = self.status[here[name]]
                if confidence is not None and self.confidence is not None:
                    confidence[row] = self.confidence[here[name]]
        return Landmarks(points, wanted, tuple(status), confidence)

    def replace(self, **changes: Any) -> Landmarks:
        """Give a copy with some fields changed.

        Where ``points`` is given without ``status``, a status that no longer fits follows the points: a landmark that
        got a position becomes defined, one that lost it becomes missing, ``"preview"`` and ``"undefined"`` stay where
        they still can, ``"outside"`` where the landmark did not move.

        Args:
            changes: any of ``points``, ``names``, ``status``, ``confidence``.

        Raises:
            LandmarkError: for another keyword, or values that do not fit together.
        """
        fields = ("points", "names", "status", "confidence")
        for key in changes:
            if key not in fields:
                raise LandmarkError(
                    f"Landmarks has no field {key!r}{did_you_mean(key, fields)}; it has {quoted(fields)}."
                )
        values: dict[str, Any] = {field: getattr(self, field) for field in fields}
        values.update(changes)
        if "points" in changes and "status" not in changes:
            points = np.asarray(changes["points"], dtype=np.float64)
            if points.ndim == 2 and len(points) == self.num_landmarks:
                values["status"] = [
                    _fitting_status(word, not np.isnan(point).any(), np.array_equal(point, before))
                    for word, point, before in zip(self.status, points, self.points, strict=True)
                ]
            else:
                values["status"] = None
        return Landmarks(**values)

    def to_tensor(self, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """Give the points as a new, writable tensor ``(N, D)`` in world millimetres."""
        return torch.tensor(self.points, dtype=dtype)

    def __len__(self) -> int:
        return self.num_landmarks

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Landmarks):
            return NotImplemented
        if (self.names, self.status) != (other.names, other.status):
            return False
        if not np.array_equal(self.points, other.points, equal_nan=True):
            return False
        if self.confidence is None or other.confidence is None:
            return self.confidence is other.confidence
        return np.array_equal(self.confidence, other.confidence, equal_nan=True)

    def __hash__(self) -> int:
        return hash((self.names, self.status))

    def __reduce__(self) -> tuple[Any, ...]:
        # numpy forgets the read-only flag when it is copied or sent to a worker; the constructor sets it again.
        return Landmarks, (self.points, self.names, self.status, self.confidence)

    def __repr__(self) -> str:
        absent = int((~self.present).sum())
        more = f"; {absent} missing" if absent else ""
        return f"Landmarks({self.num_landmarks} landmarks in {self.spatial_dims}D: {quoted(self.names, 4)}{more})"


def quoted(names: Iterable[str], limit: int = 12) -> str:
    """Join names for a message, the first ``limit`` of them."""
    return shortened([repr(name) for name in names], limit)


def shortened(items: Sequence[str], limit: int = 12) -> str:
    """Join texts for a message and say how many were left out."""
    more = f", ... ({len(items) - limit} more)" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the nearest option, or an empty text where none is near."""
    by_key: dict[str, str] = {}
    for option in options:
        by_key.setdefault(_key(option), option)
    near = difflib.get_close_matches(_key(word), list(by_key), n=1, cutoff=0.6)
    return f" (did you mean {by_key[near[0]]!r}?)" if near else ""


def _key(word: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", word).casefold() if c.isalnum()) or word


def _fitting_status(status: str, there: bool | np.bool_, unmoved: bool) -> str:
    if there:
        return status if status == "preview" or (status == "outside" and unmoved) else "defined"
    return "missing" if status in WITH_POSITION else status


def _seen_status(status: str, state: int) -> str:
    if state == FieldOfView.OUTSIDE:
        return "outside"
    return "defined" if status == "outside" else status


def _checked_names(names: Any) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise LandmarkError(f"names must be a sequence of texts, one per landmark, got {names!r}.")
    checked = tuple(names)
    for place, name in enumerate(checked, start=1):
        if not isinstance(name, str):
            raise LandmarkError(f"name {place} is {name!r} of type {type(name).__name__}; a name must be a text.")
        if not name or name != name.strip() or not (name.isprintable() or _one_line(name)):
            raise LandmarkError(
                f"name {place} is {name!r}; a name must be non-empty text without line breaks, control characters or "
                "surrounding space, because some file formats cannot hold them."
            )
    if len(set(checked)) < len(checked):
        twice = sorted({name for name in checked if checked.count(name) > 1}, key=checked.index)
        where = "; ".join(
            f"{name!r} at places {', '.join(str(i + 1) for i, n in enumerate(checked) if n == name)}"
            for name in twice[:5]
        )
        raise LandmarkError(f"names must differ from each other, but {where}: no landmark could be found by its name.")
    return tuple(str(name) for name in checked)


def _one_line(name: str) -> bool:
    """Tell whether a text has no line break, control character or half a surrogate pair; joiners and such are fine."""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name)


def _checked_points(points: Any, names: tuple[str, ...]) -> np.ndarray:
    if isinstance(points, torch.Tensor):
        points = points.detach().cpu().numpy()
    try:
        array = np.array(points, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise LandmarkError(f"points must be numbers of shape (N, D): {error}.") from error
    if array.ndim != 2 or array.shape[1] not in (2, 3):
        cause = ""
        if array.ndim == 2 and array.shape[0] in (2, 3):
            cause = " The axes look exchanged: try points.T."
        elif array.ndim == 3 and array.shape[0] == 1:
            cause = " This is a batch of one: give points[0]."
        raise LandmarkError(f"points must have shape (N, D) with D = 2 or 3, got {array.shape}.{cause}")
    if len(array) != len(names):
        more = "points than names" if len(array) > len(names) else "names than points"
        raise LandmarkError(
            f"{len(array)} points for {len(names)} names: there are more {more}; every name needs one row, a missing "
            f"landmark being a row of NaN. The names are {quoted(names)}."
        )
    if len(array) == 0:
        raise LandmarkError("there are no landmarks: points and names are empty.")
    nan = np.isnan(array)
    for index in np.flatnonzero(nan.any(axis=1) != nan.all(axis=1)):
        raise LandmarkError(
            f"landmark {names[index]!r} has some but not all coordinates missing, {array[index].tolist()}: a missing "
            "landmark is NaN in all coordinates; complete it or remove the rest."
        )
    for index in np.flatnonzero(np.isinf(array).any(axis=1)):
        raise LandmarkError(
            f"landmark {names[index]!r} has an infinite coordinate, {array[index].tolist()}; missing is written as NaN."
        )
    array.setflags(write=False)
    return array


def _checked_status(status: Iterable[str] | None, points: np.ndarray, names: tuple[str, ...]) -> tuple[str, ...]:
    there = ~np.isnan(points).any(axis=1)
    if status is None:
        return tuple("defined" if has else "missing" for has in there)
    checked = tuple(str(word) for word in status)
    if isinstance(status, str) or len(checked) != len(names):
        raise LandmarkError(f"status must be one word per landmark, {len(names)} in all, got {status!r}.")
    for word, has, name in zip(checked, there, names, strict=True):
        if word not in STATUSES:
            raise LandmarkError(
                f"landmark {name!r} has status {word!r}{did_you_mean(word, STATUSES)}; possible are {quoted(STATUSES)}."
            )
        if has and word not in WITH_POSITION:
            raise LandmarkError(
                f"landmark {name!r} has status {word!r} and a position; set the position to NaN, or the status to "
                "'defined', 'preview' or 'outside'."
            )
        if not has and word in WITH_POSITION:
            raise LandmarkError(
                f"landmark {name!r} has status {word!r} and no position (NaN); its status must be 'missing' or "
                "'undefined'."
            )
    return checked


def _checked_confidence(confidence: Any, names: tuple[str, ...]) -> np.ndarray | None:
    if confidence is None:
        return None
    if isinstance(confidence, torch.Tensor):
        confidence = confidence.detach().cpu().numpy()
    array = np.array(confidence, dtype=np.float64)
    if array.shape != (len(names),):
        raise LandmarkError(f"confidence must have shape ({len(names)},), one number per landmark, got {array.shape}.")
    if np.isinf(array).any():
        where = names[int(np.flatnonzero(np.isinf(array))[0])]
        raise LandmarkError(f"confidence of {where!r} is infinite; unknown is written as NaN.")
    array.setflags(write=False)
    return array
