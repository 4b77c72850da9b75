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
"""One frozen record of everything that is said about the identification of landmarks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

from monai_landmarks.geometry import LandmarkError

from .functional import finite_mean, image_level_errors
from .identification import Identification, identification_rate
from .label_shift import Confusion, confusions, detect_label_shifts

__all__ = [
    "IdentificationCounts",
    "IdentificationSummary",
    "ImageIdentification",
    "summarize_identification",
    "vertebra_regions",
]

REGIONS = {"cervical": r"C\d+", "thoracic": r"T\d+", "lumbar": r"L\d+", "sacral": r"S\d+|sacrum"}


class IdentificationCounts(NamedTuple):
    """Counts of a landmark or a region over all images.

    Attributes:
        rate: percentage of the evaluated ones that were identified, NaN without any.
        evaluated: true landmarks that count.
        identified: those that were identified.
        missed: those that were not predicted.
        false_positive: predictions of landmarks that the truth lacks.
    """

    rate: float
    evaluated: int
    identified: int
    missed: int
    false_positive: int


@dataclass(frozen=True)
class ImageIdentification:
    """One image: what was wrong in it, by name.

    Attributes:
        rate: percentage of its true landmarks that were identified, NaN without any.
        evaluated: its true landmarks that count.
        identified: how many were identified.
        misidentified: name to the true landmark on which the prediction lies, None where it lies on none.
        missed: names of those that were not predicted.
        false_positive: names of predictions that the truth lacks.
        shift: what :func:`detect_label_shifts` says, in words; None where nothing is shifted.
    """

    rate: float
    evaluated: int
    identified: int
    misidentified: dict[str, str | None]
    missed: tuple[str, ...]
    false_positive: tuple[str, ...]
    shift: str | None

    @property
    def all_correct(self) -> bool:
        """Whether there are true landmarks and all were identified."""
        return self.evaluated > 0 and self.identified == self.evaluated


@dataclass(frozen=True)
class IdentificationSummary:
    """What the tables of :func:`identify` say. Rates are percentages, distances have the unit of the points.

    Rates and distances are pooled over the data set by Glocker et al. and by the VerSe task page of 2019; averaged over
    images they are other numbers, so both are here. A distance needs a prediction: misses are in no distance and stand
    beside it, misidentified landmarks are in.

    Attributes:
        rule: name of the rule.
        max_distance: largest distance of an identified landmark.
        rate: identified landmarks of all evaluated ones (micro).
        image_rate: mean over images of each image's rate (macro).
        all_correct_rate: images whose evaluated landmarks were all identified, of all images that have some.
        flawless_rate: those of them without a false positive.
        precision: identified landmarks of all predicted ones.
        d_mean: mean distance of predictions to their own truth, over all landmarks that have both.
        image_d_mean: mean over images of each image's mean distance.
        num_images: number of images.
        num_evaluated: true landmarks that count.
        num_identified: those identified.
        num_misidentified: those predicted on another landmark or too far off.
        num_missed: those not predicted: false negatives.
        num_false_positive: predictions of landmarks that the truth lacks.
        landmarks: name to counts.
        regions: name of the region to counts.
        confusions: which landmark was taken for which, the most frequent first.
        images: one entry per image.
    """

    rule: str
    max_distance: float
    rate: float
    image_rate: float
    all_correct_rate: float
    flawless_rate: float
    precision: float
    d_mean: float
    image_d_mean: float
    num_images: int
    num_evaluated: int
    num_identified: int
    num_misidentified: int
    num_missed: int
    num_false_positive: int
    landmarks: dict[str, IdentificationCounts]
    regions: dict[str, IdentificationCounts]
    confusions: tuple[Confusion, ...]
    images: tuple[ImageIdentification, ...]

    @property
    def num_shifted(self) -> int:
        """Images whose labels are shifted."""
        return sum(image.shift is not None for image in self.images)

    def to_dict(self) -> dict[str, Any]:
        """Give plain numbers, texts, lists and dictionaries that every JSON reader takes: NaN becomes None.

        Example:
            >>> from monai_landmarks.metrics.identification import identify
            >>> found = identify([[[0.0, 0.0], [0.0, 30.0]]], [[[0.0, 0.0], [float("nan")] * 2]])
            >>> content = summarize_identification(found, ["L1", "L2"]).to_dict()
            >>> content["rate"], content["landmarks"]["L2"]["rate"], content["num_false_positive"]
            (100.0, None, 1)
        """
        return {**_json(self), "num_shifted": self.num_shifted}

    def __str__(self) -> str:
        text = f"{_number(self.rate)} % of {self.num_evaluated} landmarks identified, {self.num_misidentified} "
        text += f"misidentified, {self.num_missed} missed, {self.num_false_positive} false positives; all correct in "
        text += f"{_number(self.all_correct_rate)} % of the images"
        return text + (f"; labels shifted in {self.num_shifted} of them" if self.num_shifted else "")

    def table(self) -> str:
        """Give a text table: totals, regions, landmarks, and what was taken for what.

        Example:
            >>> from monai_landmarks.metrics.identification import identify
            >>> found = identify([[[0.0, 1.0], [0.0, 0.0]]], [[[0.0, 0.0], [0.0, 30.0]]])
            >>> print(summarize_identification(found, ["L1", "L2"]).table())
            identification  glocker, at most 20 mm: 50.00 % of 2 landmarks identified, 1 misidentified, 0 missed, 0 false
                positives; all correct in 0.00 % of the images
            rates           mean over images 50.00 %, flawless images 0.00 %, precision 50.00 %
            distance        15.500 in the mean over landmarks, 15.500 over images, misses not included
            identified   percent  evaluated  identified  missed  false positives
            lumbar         50.00          2           1       0                0
            L1            100.00          1           1       0                0
            L2              0.00          1           0       0                0
            confused  lies on  times
            L2             L1      1
        """
        images = f"mean over images {_number(self.image_rate)} %, flawless images {_number(self.flawless_rate)} %"
        lines = [
            f"identification  {self.rule}, at most {self.max_distance:g} mm: {self}",
            f"rates           {images}, precision {_number(self.precision)} %",
            f"distance        {_number(self.d_mean, 3)} in the mean over landmarks, {_number(self.image_d_mean, 3)} over "
            "images, misses not included",
        ]
        counts = {**self.regions, **self.landmarks}
        rows = [[name, _number(c.rate), *map(str, c[1:])] for name, c in counts.items()]
        lines += aligned([["identified", "percent", "evaluated", "identified", "missed", "false positives"], *rows])
        wrong = [[c.name, c.lies_on or "no landmark", str(c.times)] for c in self.confusions]
        return "\n".join(lines + (aligned([["confused", "lies on", "times"], *wrong]) if wrong else []))


def vertebra_regions(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Sort vertebrae into regions by their names: C1, T12, L5, S1 or sacrum. Other names belong to none.

    Example:
        >>> vertebra_regions(["C7", "T1", "T2", "S1", "nasion"])
        {'cervical': ('C7',), 'thoracic': ('T1', 'T2'), 'sacral': ('S1',)}
    """
    found = {region: tuple(n for n in names if re.fullmatch(pattern, n)) for region, pattern in REGIONS.items()}
    return {region: members for region, members in found.items() if members}


def summarize_identification(
    found: Identification,
    names: Sequence[str] | None = None,
    regions: Mapping[str, Sequence[str]] | None = None,
) -> IdentificationSummary:
    """Summarise which landmarks were identified: in all, per image, per region and per landmark.

    Args:
        found: tables of :func:`identify`.
        names: ``N`` landmark names in anatomical order, ``"0"``, ``"1"``, ... by default.
        regions: region to names of its landmarks; by default :func:`vertebra_regions`.

    Returns:
        the summary.

    Raises:
        LandmarkError: for names that do not fit the tables, or regions of unknown landmarks.
    """
    count = found.distance.shape[1]
    titles = [str(i) for i in range(count)] if names is None else [str(name) for name in names]
    if len(titles) != count or len(set(titles)) != count:
        raise LandmarkError(f"the tables have {count} landmarks, which need as many different names, got {titles}.")
    groups = vertebra_regions(titles) if regions is None else {r: tuple(members) for r, members in regions.items()}
    unknown = sorted({name for members in groups.values() for name in members} - set(titles))
    if unknown:
        raise LandmarkError(f"the regions hold {unknown}, which are none of the landmarks {titles}.")
    hits = int(found.identified.sum())
    predictions = int((found.predicted & ~found.outside).sum())
    per_image = image_level_errors(found.distance)
    return IdentificationSummary(
        rule=found.rule,
        max_distance=found.max_distance,
        rate=float(identification_rate(found)),
        image_rate=float(identification_rate(found, "macro")),
        all_correct_rate=float(identification_rate(found, "all_correct")),
        flawless_rate=float(identification_rate(found, "flawless")),
        precision=100 * hits / predictions if predictions else math.nan,
        d_mean=float(finite_mean(found.distance.reshape(-1), 0)),
        image_d_mean=float(finite_mean(per_image, 0)),
        num_images=found.distance.shape[0],
        num_evaluated=int(found.evaluated.sum()),
        num_identified=hits,
        num_misidentified=int(found.misidentified.sum()),
        num_missed=int(found.missed.sum()),
        num_false_positive=int(found.false_positive.sum()),
        landmarks={title: _counts(found, [index]) for index, title in enumerate(titles)},
        regions={region: _counts(found, [titles.index(n) for n in members]) for region, members in groups.items()},
        confusions=confusions(found, titles),
        images=_images(found, titles),
    )


def _counts(found: Identification, columns: list[int]) -> IdentificationCounts:
    tables = (found.evaluated, found.identified, found.missed, found.false_positive)
    counts = [int(table[:, columns].sum()) for table in tables]
    return IdentificationCounts(100 * counts[1] / counts[0] if counts[0] else math.nan, *counts)


def _images(found: Identification, names: list[str]) -> tuple[ImageIdentification, ...]:
    """Name what was wrong in each image."""
    lies_on, shifts = found.lies_on.tolist(), detect_label_shifts(found)
    tables = (found.evaluated, found.identified, found.misidentified, found.missed, found.false_positive)
    images = []
    for row, (places, shift) in enumerate(zip(lies_on, shifts, strict=True)):
        truths, hits, misplaced, missed, surplus = (table[row].nonzero().flatten().tolist() for table in tables)
        images.append(
            ImageIdentification(
                rate=100 * len(hits) / len(truths) if truths else math.nan,
                evaluated=len(truths),
                identified=len(hits),
                misidentified={names[i]: None if places[i] in (-1, i) else names[places[i]] for i in misplaced},
                missed=tuple(names[i] for i in missed),
                false_positive=tuple(names[i] for i in surplus),
                shift=None if shift is None else shift.describe(names),
            )
        )
    return tuple(images)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pad columns to their widest cell, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def _json(value: Any) -> Any:
    """Turn records into dictionaries, tuples into lists and NaN into None."""
    if is_dataclass(value):
        return {field.name: _json(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: _json(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_json(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _number(value: float, digits: int = 2) -> str:
    return "n/a" if math.isnan(value) else f"{value:.{digits}f}"
