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
"""What a number means: the rules it was obtained by, as data, under a name."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from monai.utils import look_up_option

from monai_landmarks.data.datasets import is_phantom
from monai_landmarks.data.landmarks import did_you_mean, quoted
from monai_landmarks.metrics.functional import DETECTED, OUTLYING, check_thresholds
from monai_landmarks.metrics.identification import IDENTIFICATION_RULES

__all__ = ["Protocol", "get_protocol", "list_protocols", "register_protocol"]

OUTSIDE_RULES = ("score", "leave_out")


@dataclass(frozen=True)
class Protocol:
    """The rules of an evaluation. Two numbers may stand in one table when their protocols are equal, and only then.

    Args:
        name: what the numbers are labelled with.
        dataset: which data.
        section: which part of them, ``"any"`` where the protocol does not say.
        annotator: whose points are the truth.
        grid: on which grid predictions and truth are compared.
        distance: how a distance in millimetres comes about.
        unit: of errors and thresholds.
        thresholds: radii at which rates are given.
        comparator: ``"<="`` or ``"<"``: whether a distance equal to a threshold counts as detected.
        outlier_comparator: ``">"`` or ``">="``: the same for outliers.
        outside: what becomes of true landmarks that lie outside the image: ``"score"`` them like the others, as all
            published protocols do, or ``"leave_out"``, in which case their number stands beside every result.
        identification: rule by which a landmark is identified, see :func:`monai_landmarks.metrics.identify`; None where
            the protocol has none.
        identification_distance: largest distance of an identified landmark.
        pixel_size: millimetres per original pixel where it is fixed, else None.
        landmark_names: the landmarks in order, None where the protocol fits any.
        cases: all cases of the section, None where the protocol fits any.
        exclusions: cases or landmarks left out, in words; empty where nothing is.
        citation: where the protocol is described.
        notes: what a reader of the number should know.
        phantom: name of the protocol that takes over when the data are this data set's phantom.
        is_phantom: whether the data are a phantom, so that every table says so.

    Raises:
        ValueError: for unknown comparators or rules, thresholds that are not positive, or repeated landmark names.

    Example:
        >>> protocol = get_protocol("isbi2015/mean")
        >>> protocol.section, protocol.comparator, len(protocol.landmark_names)
        ('test1', '<=', 19)
    """

    name: str
    dataset: str
    section: str = "any"
    annotator: str = "as given"
    grid: str = "native: predictions are carried back to the original image, truth is not rounded"
    distance: str = "Euclidean, world millimetres"
    unit: str = "mm"
    thresholds: tuple[float, ...] = (2.0, 2.5, 3.0, 4.0)
    comparator: str = "<="
    outlier_comparator: str = ">"
    outside: str = "score"
    identification: str | None = None
    identification_distance: float = 20.0
    pixel_size: float | None = None
    landmark_names: tuple[str, ...] | None = None
    cases: tuple[str, ...] | None = None
    exclusions: tuple[str, ...] = ()
    citation: str = ""
    notes: tuple[str, ...] = ()
    phantom: str | None = None
    is_phantom: bool = False

    def __post_init__(self) -> None:
        look_up_option(self.comparator, DETECTED)
        look_up_option(self.outlier_comparator, OUTLYING)
        look_up_option(self.outside, OUTSIDE_RULES)
        if self.identification is not None:
            look_up_option(self.identification, tuple(IDENTIFICATION_RULES))
        check_thresholds(self.identification_distance)
        object.__setattr__(self, "thresholds", check_thresholds(self.thresholds))
        for field in ("landmark_names", "cases", "exclusions", "notes"):
            value = getattr(self, field)
            object.__setattr__(self, field, None if value is None else tuple(value))
        if self.landmark_names is not None and len(set(self.landmark_names)) != len(self.landmark_names):
            raise ValueError(f"the landmark names of protocol {self.name!r} are not all different.")

    def replace(self, name: str, **changes: Any) -> Protocol:
        """Give a changed protocol, which needs a name of its own: the old name would no longer tell the rules.

        Args:
            name: of the new protocol.
            changes: other fields.

        Returns:
            the new protocol, not registered.

        Raises:
            ValueError: if the name stays the same although a rule changes.
        """
        changed = replace(self, name=name, **changes)
        if name == self.name and changed != self:
            raise ValueError(f"a changed protocol needs another name than {name!r}, such as '{name}/mine'.")
        return changed

    def differences(self, other: Protocol) -> list[str]:
        """List in words what makes numbers of two protocols incomparable; empty where nothing does.

        Example:
            >>> get_protocol("isbi2015/mean").differences(get_protocol("isbi2015/senior"))
            ["annotator: 'mean of the junior and the senior reader' and 'senior reader'"]
        """
        texts = {"name", "citation", "notes", "phantom", "cases", "landmark_names"}
        pairs = [(f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.name not in texts]
        found = [f"{name}: {mine!r} and {theirs!r}" for name, mine, theirs in pairs if mine != theirs]
        same_cases = self.section != other.section or self.cases == other.cases
        found += [] if same_cases else ["cases: the two lists differ"]
        found += [] if self.landmark_names == other.landmark_names else ["landmark_names: the two lists differ"]
        return found

    def to_dict(self) -> dict[str, Any]:
        """Give the rules as plain numbers, texts and lists; the case list as its length."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        values["cases"] = None if self.cases is None else len(self.cases)
        return values

    def __str__(self) -> str:
        mark = "PHANTOM: " if self.is_phantom else ""
        section = "" if self.section == "any" else f", {self.section}"
        return f"{self.name} ({mark}{self.dataset}{section}, truth: {self.annotator})"


_PROTOCOLS: dict[str, Protocol] = {}
_ALIASES: dict[str, str] = {}


def register_protocol(protocol: Protocol, aliases: tuple[str, ...] = ()) -> Protocol:
    """Make a protocol available to :func:`get_protocol` under its name.

    Args:
        protocol: to be registered.
        aliases: further names of the same protocol.

    Returns:
        the protocol.

    Raises:
        ValueError: if a name is taken by a protocol with other rules.

    Example:
        >>> mine = register_protocol(Protocol(name="wrist/native", dataset="wrist films of our clinic"))
        >>> get_protocol("wrist/native") is mine
        True
    """
    for name in (protocol.name, *aliases):
        taken = _PROTOCOLS.get(_ALIASES.get(name, name))
        if taken is not None and taken != protocol:
            raise ValueError(f"the name {name!r} belongs to another protocol: {taken}. Choose a name of your own.")
    _PROTOCOLS[protocol.name] = protocol
    _ALIASES.update(dict.fromkeys(aliases, protocol.name))
    return protocol


def list_protocols() -> list[str]:
    """List the names of all registered protocols.

    Example:
        >>> [name for name in list_protocols() if name.startswith("isbi2015/senior")]
        ['isbi2015/senior', 'isbi2015/senior/scn', 'isbi2015/senior/test2', 'isbi2015/senior/training']
    """
    return sorted(_PROTOCOLS)


def get_protocol(
    name: str | Protocol, section: str | None = None, dataset_dir: str | os.PathLike[str] | None = None
) -> Protocol:
    """Look a protocol up by its name.

    Args:
        name: of the protocol; a :class:`Protocol` is handed through.
        section: another section than the name's default, ``get_protocol("isbi2015/mean", "training")`` is
            ``get_protocol("isbi2015/mean/training")``.
        dataset_dir: folder of the data. Where it holds a phantom, the data set's phantom protocol is given, so that no
            phantom number carries a real data set's name.

    Returns:
        the protocol.

    Raises:
        ValueError: for an unknown name, with the nearest known one; for another section than that of a ready
            :class:`Protocol`; or for a phantom of a data set that has no phantom protocol.

    Example:
        >>> get_protocol("isbi2015/maen")
        Traceback (most recent call last):
        ValueError: there is no protocol 'isbi2015/maen' (did you mean 'isbi2015/mean'?). Known: ...
    """
    if isinstance(name, Protocol):
        if section is not None and section != name.section:
            raise ValueError(f"protocol {name.name!r} is for section {name.section!r}, not {section!r}.")
        protocol = name
    else:
        wanted = name if section is None else f"{name}/{section}"
        key = _ALIASES.get(wanted, wanted)
        if key not in _PROTOCOLS:
            hint = did_you_mean(wanted, [*_PROTOCOLS, *_ALIASES])
            raise ValueError(f"there is no protocol {wanted!r}{hint}. Known: {quoted(list_protocols(), 99)}.")
        protocol = _PROTOCOLS[key]
    if dataset_dir is None or protocol.is_phantom or not is_phantom(Path(dataset_dir)):
        return protocol
    if protocol.phantom is None:
        raise ValueError(
            f"{os.fspath(dataset_dir)} holds a phantom and protocol {protocol.name!r} has no phantom counterpart: name "
            "a protocol with is_phantom=True, or give the folder of the real data."
        )
    return get_protocol(protocol.phantom)
