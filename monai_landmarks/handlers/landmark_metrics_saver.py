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
"""Writes what an evaluation found: errors of every case and landmark, and the numbers of a paper's table."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from monai.data import decollate_batch
from monai.handlers import MetricsSaver
from monai.utils import string_list_all_gather
from torch import distributed as dist

from monai_landmarks.data.landmarks import quoted
from monai_landmarks.geometry import LandmarkError
from monai_landmarks.protocols import EvaluationResult, Protocol, get_protocol
from monai_landmarks.transforms.save import case_of

from .metrics import outside_name

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["LandmarkMetricsSaver"]


class LandmarkMetricsSaver(MetricsSaver):
    """Write ``metrics.json``, ``radial_errors.csv``, ``per_landmark.csv`` and ``table.txt`` after each epoch.

    MONAI's ``MetricsSaver`` knows neither landmark names nor what the numbers mean; this one writes, beside them, the
    protocol, comparators, thresholds, the counts of evaluated, missed and missing landmarks and whether the data are a
    phantom. Each file appears whole or not at all. The error table is that of a :class:`RadialError` handler of the
    same engine, attached under ``metric_name`` with ``save_details=True``. In training the files are those of the last
    validation.

    Under a protocol with a rule of identification, such as ``"csi2014/set1"``, ``identification.json`` and
    ``identification.csv`` are written too, from the tables of an :class:`IdentificationRate` handler of the same engine
    with that rule, attached under ``identification_name``.

    Where these handlers leave landmarks outside the image out, the protocol must do so too, as ``"native/mm/inside"`` does;
    ``metrics.json`` then lists them.

    Args:
        save_dir: folder to write into.
        metric_name: name of the :class:`RadialError` handler.
        protocol: under which the numbers were obtained: a name or a :class:`~monai_landmarks.protocols.Protocol`.
        section: another section than the protocol's default; ``"training"`` for films held out for validation.
        dataset_dir: folder of the data; where it holds a phantom, the numbers are those of the phantom protocol.
        landmark_names: column titles; the protocol's names by default.
        method: what is evaluated, for tables.
        info: further facts to write, such as the seed; JSON-like.
        batch_transform: gives the cases of ``engine.state.batch``: names, meta dictionaries or images. By default the
            key ``"case"``, or the file name of ``"image"``.
        save_rank: the process that writes.
        identification_name: name of the :class:`IdentificationRate` handler.
        more_metrics: names of further numbers in ``engine.state.metrics``, such as ``"cobb_smape"``, written as ``info``;
            null where it is not finite.

    Raises:
        ValueError: for an unknown protocol, or landmark names other than the protocol's.
    """

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        metric_name: str = "radial_error",
        protocol: str | Protocol = "native/mm",
        section: str | None = None,
        dataset_dir: str | os.PathLike[str] | None = None,
        landmark_names: Sequence[str] | None = None,
        method: str = "",
        info: Mapping[str, Any] | None = None,
        batch_transform: Callable[[Any], Any] | None = None,
        save_rank: int = 0,
        identification_name: str = "identification_rate",
        more_metrics: Sequence[str] = (),
    ) -> None:
        transform = _cases_of_batch if batch_transform is None else batch_transform
        super().__init__(str(save_dir), metric_details=metric_name, batch_transform=transform, save_rank=save_rank)
        self.metric_name, self.identification_name = metric_name, identification_name
        self.protocol = get_protocol(protocol, section, dataset_dir)
        names = tuple(landmark_names) if landmark_names is not None else self.protocol.landmark_names
        if self.protocol.landmark_names not in (None, names):
            raise LandmarkError(
                f"`landmark_names` differ from those of protocol {self.protocol.name!r}: its landmarks are, in order, "
                f"{quoted(self.protocol.landmark_names or (), 99)}."
            )
        self.landmark_names = names
        self.method = method
        self.info = dict(info or {})
        self.more_metrics = tuple(more_metrics)

    def _get_filenames(self, engine: Engine) -> None:
        self._filenames.extend(_case_name(item) for item in self.batch_transform(engine.state.batch))

    def __call__(self, engine: Engine) -> None:
        """Write the files of the epoch that ended.

        Raises:
            LandmarkError: if the error table is not there, or the cases do not fit to it or to the protocol.
        """
        parallel = dist.is_available() and dist.is_initialized()
        if self.save_rank >= (dist.get_world_size() if parallel else 1):
            raise ValueError(f"`save_rank` is {self.save_rank}, there is no such process.")
        # A process without cases sends an empty string.
        cases = [case for case in string_list_all_gather(self._filenames) if case]
        if parallel and dist.get_rank() != self.save_rank:
            return
        details = getattr(engine.state, "metric_details", {})
        if self.metric_name not in details:
            raise LandmarkError(
                f"there is no error table {self.metric_name!r} in this engine, it has {quoted(details) or 'none'}: "
                f"attach RadialError(save_details=True) under the name {self.metric_name!r}."
            )
        table = torch.as_tensor(details[self.metric_name]).cpu().numpy()
        names = self.landmark_names or tuple(str(index) for index in range(table.shape[1]))
        outside = details.get(outside_name(self.metric_name))
        found = details.get(self.identification_name) if self.protocol.identification is not None else None
        result = EvaluationResult.from_errors(
            table, cases, self.protocol, names, self.method, self._info(engine), outside, found
        )
        result.save(Path(self.save_dir))

    def _info(self, engine: Engine) -> dict[str, Any]:
        absent = [name for name in self.more_metrics if name not in engine.state.metrics]
        if absent:
            raise LandmarkError(
                f"`more_metrics` asks for {quoted(absent)}, and this engine has {quoted(engine.state.metrics) or 'none'}: "
                "attach a handler under that name."
            )
        found = {name: engine.state.metrics[name] for name in self.more_metrics}
        # JSON has no NaN; a number that could not be computed is null.
        return self.info | {name: value if math.isfinite(value) else None for name, value in found.items()}


def _cases_of_batch(batch: Any) -> Iterable[Any]:
    """The cases of a decollated batch (a list of dictionaries) or of a collated one."""
    if isinstance(batch, Mapping):
        if "case" in batch:
            return batch["case"] if not isinstance(batch["case"], str) else [batch["case"]]
        return [item["image"] for item in decollate_batch({"image": _value(batch, "image")})]
    return [item["case"] if "case" in item else _value(item, "image") for item in batch]


def _value(item: Mapping[str, Any], key: str) -> Any:
    if key not in item:
        raise LandmarkError(
            f"the batch has neither 'case' nor {key!r} but {quoted(item)}: put the case's name into the data list "
            "under 'case', or give `batch_transform`."
        )
    return item[key]


def _case_name(item: Any) -> str:
    """A name, or the file name without folder and suffix of a meta dictionary or an image."""
    if isinstance(item, str):
        return item
    try:
        return case_of(SimpleNamespace(meta=item) if isinstance(item, Mapping) else item)[0]
    except LandmarkError as error:
        raise LandmarkError(
            "the batch does not tell which cases it holds: put the case's name into the data list under 'case', or "
            "give `batch_transform`."
        ) from error
