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
"""Saving the best network, resuming a training that was cut off, and loading weights that may not fit."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ignite.engine import Events
from ignite.handlers import Checkpoint as IgniteCheckpoint
from monai.handlers import CheckpointSaver
from torch import nn

from monai_landmarks.data.landmarks import quoted
from monai_landmarks.geometry import LandmarkError

from .checkpoint_files import (
    AtomicSaver,
    Checkpoint,
    checkpoint_compat,
    explain_state,
    read_checkpoint,
    unwrapped,
    without_module,
)
from .scores import metric_value

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = [
    "FinalCheckpoint",
    "LandmarkCheckpointLoader",
    "LowestErrorCheckpoint",
    "TrainingCheckpoint",
    "load_latest_checkpoint",
]

_PREFIX = "training"
_PATTERN = re.compile(rf"{_PREFIX}_checkpoint_epoch=(\d+)\.pt")


class LowestErrorCheckpoint(CheckpointSaver):
    """Save the network with the lowest error so far, after each validation.

    MONAI's ``CheckpointSaver(save_key_metric=True, key_metric_negative_sign=True)``, with four differences. A metric
    that is NaN or infinite never counts as best (the first value of all would). The file appears whole or not at all,
    and the old one is there until the new one is. Landmark names travel in the file. The best value so far is part of
    ``state_dict``: put this handler into the objects of :class:`TrainingCheckpoint`, or the first validation after a
    resumed training overwrites a better network.

    Args:
        save_dir: folder, made if it is not there.
        save_dict: objects by name. One object alone is written as a bare state dictionary, which is what a MONAI bundle
            wants in ``models/model.pt``.
        metric_name: the error in ``engine.state.metrics`` of the evaluator; None takes its key metric.
        n_saved: how many of the best to keep.
        filename: of the file when ``n_saved`` is 1, by default ``model.pt``; more files are named after the metric.
        landmark_names: what the network predicts.

    Raises:
        ValueError: for a fixed file name with several files.
    """

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        save_dict: Mapping[str, Any],
        metric_name: str | None = "radial_error",
        n_saved: int = 1,
        filename: str | None = None,
        landmark_names: Sequence[str] | None = None,
    ) -> None:
        if filename is not None and n_saved > 1:
            raise ValueError(
                f"{n_saved} files cannot all be called {filename!r}: leave `filename` out, or keep one file."
            )
        super().__init__(
            str(save_dir),
            dict(save_dict),
            save_key_metric=True,
            key_metric_name=metric_name,
            key_metric_n_saved=n_saved,
            key_metric_negative_sign=True,
        )
        name = (filename or "model.pt") if n_saved == 1 else None
        self._best().save_handler = AtomicSaver(save_dir, name, landmark_names, _class_of(save_dict))
        self.metric_name = metric_name

    def metrics_completed(self, engine: Engine) -> None:
        """Save if the error is a number and lower than before."""
        value = metric_value(engine, self.metric_name)
        if not math.isfinite(value):
            self.logger.warning("%s is %s: no checkpoint is saved for it.", self.metric_name or "key metric", value)
            return
        super().metrics_completed(engine)

    def state_dict(self) -> dict[str, Any]:
        """Give the best values so far and their files."""
        return dict(self._best().state_dict())

    def _best(self) -> IgniteCheckpoint:
        assert self._key_metric_checkpoint is not None, "made by save_key_metric=True"
        return self._key_metric_checkpoint


class FinalCheckpoint:
    """Save networks when a training has come to its end, for trainings in which no metric may choose.

    Like :class:`LowestErrorCheckpoint`, the file appears whole or not at all and knows the landmark names. A training that
    is stopped before its last epoch leaves no file.

    Args:
        save_dir: folder, made if it is not there.
        save_dict: objects by name. One object alone is written as a bare state dictionary, which is what a MONAI bundle
            wants in ``models/model.pt``.
        filename: of the file.
        landmark_names: what the network predicts; None for a network that predicts none.
    """

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        save_dict: Mapping[str, Any],
        filename: str = "model.pt",
        landmark_names: Sequence[str] | None = None,
    ) -> None:
        self.save_dict = dict(save_dict)
        self.saver = AtomicSaver(save_dir, filename, landmark_names, _class_of(save_dict))

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save, if the engine has come to its last epoch."""
        if engine.state.epoch == engine.state.max_epochs:
            # A new one each time: Ignite's remembers its last file and does not write a second one of the same epoch.
            IgniteCheckpoint(self.save_dict, self.saver, filename_prefix="final")(engine)


class TrainingCheckpoint:
    """Save everything a training needs to go on, after each epoch, and go on from it when asked to.

    The trainer's own state (epoch, iteration) and its gradient scaler are added by themselves. Saving comes last in an
    epoch, wherever this handler stands in the list: the learning rate has been stepped and the validation has run. Each
    file appears whole before the older one goes, so a training killed at any moment resumes from the last whole epoch.
    Random numbers are not restored: augmentation after a resume draws anew.

    Args:
        save_dir: folder, made if it is not there.
        save_dict: objects by name: network, optimizer, learning rate scheduler, a loss with parameters, the
            :class:`LowestErrorCheckpoint`.
        resume: go on from the newest file in ``save_dir``; where there is none, start afresh and say so in the log.
        landmark_names: what the network predicts; a resume with another list is refused.
        save_interval: epochs between files; the last epoch is saved in any case.
        n_saved: how many files to keep.
        map_location: where the tensors of a file go first.
    """

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        save_dict: Mapping[str, Any],
        resume: bool = False,
        landmark_names: Sequence[str] | None = None,
        save_interval: int = 1,
        n_saved: int = 1,
        map_location: Any = "cpu",
    ) -> None:
        if not save_dict:
            raise ValueError('`save_dict` names no object, give such as {"network": network, "optimizer": optimizer}.')
        self.save_dir = Path(save_dir)
        self.save_dict = dict(save_dict)
        self.resume = resume
        self.landmark_names = landmark_names
        self.save_interval = save_interval
        self.n_saved = n_saved
        self.map_location = map_location
        self._checkpoint: IgniteCheckpoint | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.STARTED, self._started)

    def _started(self, engine: Engine) -> None:
        objects = {**self.save_dict, "trainer": engine}
        if getattr(engine, "scaler", None) is not None:
            objects["scaler"] = engine.scaler  # type: ignore[attr-defined]
        if self._checkpoint is None:
            # Attached only now, so that it runs after all handlers which change what is to be saved.
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)
        self._checkpoint = IgniteCheckpoint(
            objects,
            AtomicSaver(self.save_dir, None, self.landmark_names, _class_of(self.save_dict)),
            filename_prefix=_PREFIX,
            score_function=lambda engine: engine.state.epoch,
            score_name="epoch",
            n_saved=self.n_saved,
        )
        if not self.resume:
            return
        path = load_latest_checkpoint(self.save_dir, objects, self.landmark_names, self.map_location)
        if path is None:
            engine.logger.warning("there is no checkpoint to resume from in %s: training starts afresh.", self.save_dir)
            return
        engine.logger.info("training resumes after epoch %d from %s.", engine.state.epoch, path)
        kept = [p for p in _training_files(self.save_dir) if _epoch(p) <= engine.state.epoch]
        items = sorted(IgniteCheckpoint.Item(_epoch(p), p.name) for p in kept)
        self._checkpoint._saved = items[-self.n_saved :]

    def _epoch_completed(self, engine: Engine) -> None:
        last = engine.state.epoch == engine.state.max_epochs
        if self._checkpoint is not None and (last or engine.state.epoch % self.save_interval == 0):
            self._checkpoint(engine)


class LandmarkCheckpointLoader:
    """Load weights when an engine starts, and say what is wrong where they do not fit.

    Like MONAI's ``CheckpointLoader``, which lets PyTorch's list of sizes speak for itself. Nothing is loaded unless all
    networks fit.

    Args:
        load_path: the file; a bare state dictionary or one of several objects, see :class:`LowestErrorCheckpoint`.
        load_dict: objects by name, networks as a rule.
        map_location: where the tensors of the file go first.
        landmark_names: what the network is to predict, in order. Checked against the file where the file says.
        strict: False loads the weights that fit in name and shape and logs the ones that keep their random values, for
            training on from another landmark list. No other object than networks is loaded then.

    Raises:
        ValueError: without objects.
    """

    def __init__(
        self,
        load_path: str | os.PathLike[str],
        load_dict: Mapping[str, Any],
        map_location: Any = "cpu",
        landmark_names: Sequence[str] | None = None,
        strict: bool = True,
    ) -> None:
        if not load_dict:
            raise ValueError('`load_dict` names no object, give such as {"model": network}.')
        self.load_path = load_path
        self.load_dict = dict(load_dict)
        self.map_location = map_location
        self.landmark_names = landmark_names
        self.strict = strict
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer or an evaluator."""
        self.logger = engine.logger
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine | None = None) -> None:
        """Load; also without an engine.

        Raises:
            FileNotFoundError: if the file is not there.
            LandmarkError: if it does not fit.
        """
        content = read_checkpoint(self.load_path, self.map_location)
        if self.strict:
            _load_objects(content, self.load_dict, self.landmark_names)
        else:
            for key, network in self.load_dict.items():
                if isinstance(network, nn.Module):
                    self._load_fitting(content.state(key), network)
        self.logger.info("loaded %s.", self.load_path)

    def _load_fitting(self, state: Mapping[str, Any], network: nn.Module) -> None:
        own, saved = unwrapped(network).state_dict(), without_module(state)
        fitting = {k: v for k, v in saved.items() if k in own and v.shape == own[k].shape}
        if not fitting:
            raise LandmarkError(f"{self.load_path} does not fit at all: {explain_state(state, network)}")
        unwrapped(network).load_state_dict(fitting, strict=False)
        random = [k for k in own if k not in fitting]
        if random:
            text = "%s: %d of %d weights loaded; these keep their own values: %s."
            self.logger.warning(text, self.load_path, len(fitting), len(own), ", ".join(random))


def load_latest_checkpoint(
    save_dir: str | os.PathLike[str],
    load_dict: Mapping[str, Any],
    landmark_names: Sequence[str] | None = None,
    map_location: Any = "cpu",
) -> Path | None:
    """Load the newest file of :class:`TrainingCheckpoint` into a training.

    The newest is the one written last, not the one of the highest epoch: a folder may hold files of an earlier, longer
    training. An engine among the objects keeps its own ``max_epochs`` and ``epoch_length``, so that a training can be
    prolonged and go on with more data.

    Args:
        save_dir: folder.
        load_dict: objects by name, as in the ``save_dict``; ``"trainer"`` is the engine.
        landmark_names: what the network is to predict.
        map_location: where the tensors go first.

    Returns:
        the file that was loaded, None if there is none.

    Raises:
        LandmarkError: if the file does not fit, saying how; nothing is loaded then.
        ValueError: if the file is of a later epoch than the trainer's last.
    """
    files = _training_files(Path(save_dir))
    if not files:
        return None
    newest = max(files, key=lambda path: (path.stat().st_mtime_ns, _epoch(path)))
    _load_objects(read_checkpoint(newest, map_location), load_dict, landmark_names)
    return newest


def _load_objects(content: Checkpoint, load_dict: Mapping[str, Any], names: Sequence[str] | None) -> None:
    """Load all objects; networks are checked before anything is changed."""
    if "" in content.objects and len(load_dict) > 1:
        raise LandmarkError(
            f"{content.path} holds the weights of one network, nothing to restore {quoted(load_dict)} from: load it "
            "into the network alone, or resume from a file of TrainingCheckpoint."
        )
    for key, target in load_dict.items():
        if isinstance(target, nn.Module):
            checkpoint_compat(content, target, names, key)
        else:
            content.state(key)
    for key, target in load_dict.items():
        state = content.state(key)
        if isinstance(target, nn.Module):
            unwrapped(target).load_state_dict(without_module(state))
        elif hasattr(target, "state") and hasattr(target, "run"):
            _load_engine(target, state, content.path)
        else:
            try:
                target.load_state_dict(state)
            except (ValueError, KeyError) as error:
                raise LandmarkError(
                    f"{content.path}: the state of {key!r} does not fit this {type(target).__name__}: {error}. Resume "
                    "with the settings the training was started with."
                ) from error


def _load_engine(engine: Any, state: Mapping[str, Any], path: Path) -> None:
    max_epochs, epoch_length = engine.state.max_epochs, engine.state.epoch_length
    engine.load_state_dict(state)
    engine.state.max_epochs = max_epochs
    if epoch_length is not None:
        engine.state.epoch_length = epoch_length
        engine.state.iteration = engine.state.epoch * epoch_length
    if max_epochs is not None and engine.state.epoch > max_epochs:
        raise ValueError(
            f"{path} was written after epoch {engine.state.epoch}, this trainer stops after epoch {max_epochs}: give a "
            "larger max_epochs to train on."
        )


def _training_files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.pt") if _PATTERN.fullmatch(path.name)]


def _epoch(path: Path) -> int:
    match = _PATTERN.fullmatch(path.name)
    return int(match[1]) if match else -1


def _class_of(objects: Mapping[str, Any]) -> str | None:
    networks = [o for o in objects.values() if isinstance(o, nn.Module) and not isinstance(o, nn.modules.loss._Loss)]
    return type(unwrapped(networks[0])).__name__ if networks else None
