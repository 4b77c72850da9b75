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
"""What post-processing has to learn, learnt on validation cases: thresholds of presence and the sequence model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ignite.engine import Events
from monai.config import PathLike

from ..geometry import LandmarkError, plain_tensor, present
from ..postprocessing import SequenceModel, presence_thresholds, save_presence_thresholds, usual_confidence

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["PostprocessingCalibration"]


class PostprocessingCalibration:
    """Choose thresholds of presence, and fit and tune a sequence model, on the cases an evaluator runs over.

    Run it on validation cases with the network that will be used: thresholds belong to a network, and what is chosen on
    test cases says nothing. When the epoch ends it writes ``presence.json``, for
    :class:`~monai_landmarks.transforms.PresenceThresholdd`, and, where ``training_points`` are given, ``sequence.json``, for
    :class:`~monai_landmarks.transforms.SelectSequenced`. One process only.

    Args:
        save_dir: folder of the files, best that of the network.
        names: of the landmarks.
        training_points: true world points of the training cases, ``(N, D)`` each, of which the sequence model learns the
            usual offsets; None writes no sequence model.
        tune: choose the weights of the sequence model on the cases seen; False keeps those of ``sequence_options``.
        sequence_options: arguments of :class:`~monai_landmarks.postprocessing.SequenceModel`. Without a ``reference`` among
            them the usual confidence of each channel is learnt on the cases seen.
        threshold_options: of :func:`~monai_landmarks.postprocessing.presence_thresholds`.
        confidence_key: confidences ``(N,)`` in the engine's output.
        truth_key: true world points ``(N, D)`` in the engine's output.
        candidates_key: candidates ``(N, K, D)`` in world millimetres.
        candidate_confidence_key: their confidences ``(N, K)``.

    Raises:
        LandmarkError: when the epoch ends, if there were no cases, or as the functions above.

    Example:
        >>> import tempfile
        >>> from ignite.engine import Engine
        >>> truth = torch.tensor([[1.0, 2.0], [float("nan")] * 2])
        >>> item = {"pred_confidence": torch.tensor([0.9, 0.2]), "true_points": truth}
        >>> engine = Engine(lambda engine, batch: [item])
        >>> folder = tempfile.TemporaryDirectory()
        >>> PostprocessingCalibration(folder.name, ["sella", "nasion"]).attach(engine)
        >>> _ = engine.run([0])
        >>> [path.name for path in Path(folder.name).iterdir()]
        ['presence.json']
        >>> folder.cleanup()
    """

    def __init__(
        self,
        save_dir: PathLike,
        names: Sequence[str],
        training_points: Sequence[Any] | None = None,
        tune: bool = True,
        sequence_options: Mapping[str, Any] | None = None,
        threshold_options: Mapping[str, Any] | None = None,
        confidence_key: str = "pred_confidence",
        truth_key: str = "true_points",
        candidates_key: str = "pred_candidates",
        candidate_confidence_key: str = "pred_candidate_confidence",
    ) -> None:
        self.save_dir, self.names, self.tune = Path(save_dir), tuple(names), tune
        self.threshold_options = dict(threshold_options or {})
        self.keys = [confidence_key, truth_key]
        self.learn_reference = "reference" not in (sequence_options or {})
        self.sequence: SequenceModel | None = None
        if training_points is not None:
            self.sequence = SequenceModel(self.names, **dict(sequence_options or {})).fit(training_points)
            self.keys += [candidates_key, candidate_confidence_key]
        self._seen: list[list[torch.Tensor]] = []

    def attach(self, engine: Engine) -> None:
        """Follow the engine's epochs.

        Args:
            engine: an evaluator whose output is decollated: a list with one dictionary per case.
        """
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._seen = []

    def _collect(self, engine: Engine) -> None:
        for item in engine.state.output:  # type: ignore[union-attr]
            lacking = [key for key in self.keys if key not in item]
            if lacking:
                raise LandmarkError(
                    f"{lacking[0]!r} is not in the engine's output, which has {sorted(map(str, item))}."
                )
            self._seen.append([plain_tensor(torch.as_tensor(item[key])).detach().cpu().double() for key in self.keys])

    def _write(self, engine: Engine) -> None:
        if not self._seen:
            raise LandmarkError("there were no validation cases to choose thresholds on.")
        columns = [list(column) for column in zip(*self._seen, strict=True)]
        confidence, truth = columns[:2]
        scores, there = torch.stack(confidence), present(torch.stack(truth))
        thresholds = presence_thresholds(scores, there, **self.threshold_options)
        save_presence_thresholds(self.save_dir / "presence.json", thresholds, self.names)
        if self.sequence is None:
            return
        if self.learn_reference:
            self.sequence.reference = usual_confidence(scores, there).tolist()
        if self.tune:
            share = self.sequence.tune(columns[2], columns[3], truth)
            engine.logger.info("sequence model: %.2f %% of the validation landmarks are right.", 100 * share)
        self.sequence.save(self.save_dir / "sequence.json")
