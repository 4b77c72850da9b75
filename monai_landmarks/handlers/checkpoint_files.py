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
"""Checkpoint files: written whole or not at all, read without executing code, refused with an explanation.

A file holds either the state dictionary of one network (MONAI's ``models/model.pt``) or a dictionary of several
objects. Landmark names and the network's class go with both: as entries of the dictionary, or, in a bare state
dictionary, as attributes beside PyTorch's own ``_metadata``, where no loader takes them for weights.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ignite.handlers import DiskSaver
from torch import nn

from monai_landmarks.data import atomic_write
from monai_landmarks.data.landmarks import did_you_mean, quoted
from monai_landmarks.geometry import LandmarkError

__all__ = ["AtomicSaver", "Checkpoint", "checkpoint_compat", "explain_state", "read_checkpoint", "unwrapped"]

NAMES, NETWORK = "landmark_names", "network_name"
# What people call the network in a checkpoint, tried where the asked key is not there.
NETWORK_KEYS = ("model", "network", "net", "state_dict", "model_state_dict")


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        path: the file.
        objects: name to state; a bare state dictionary is under ``""``.
        landmark_names: what the network predicts, None where the file does not say.
        network_name: class of the network, None where the file does not say.
    """

    path: Path
    objects: dict[str, Any]
    landmark_names: tuple[str, ...] | None
    network_name: str | None

    def state(self, key: str) -> Any:
        """Give the state of one object.

        Args:
            key: its name. For a bare state dictionary any name will do; for a network the usual names stand for each
                other.

        Raises:
            LandmarkError: if there is no such object.
        """
        if key in self.objects:
            return self.objects[key]
        if "" in self.objects:
            return self.objects[""]
        usual = [name for name in NETWORK_KEYS if name in self.objects]
        if key in NETWORK_KEYS and len(usual) == 1:
            return self.objects[usual[0]]
        hint = did_you_mean(key, self.objects)
        raise LandmarkError(f"{self.path} holds no {key!r}{hint}; it holds {quoted(self.objects)}.")


class AtomicSaver(DiskSaver):
    """Write checkpoints so that a killed process leaves the old file or the new one, never half of one, never none.

    MONAI's saver writes in place, and Ignite removes the old file before the new one is there. Here the new file is
    renamed into place first and old ones are removed after it. In a run of several processes the first one writes.

    Args:
        dirname: folder, made if it is not there.
        filename: fixed name; None takes the one that Ignite gives.
        landmark_names: what the network predicts, written into the file.
        network_name: class of the network, written into the file.
    """

    def __init__(
        self,
        dirname: str | os.PathLike[str],
        filename: str | None = None,
        landmark_names: Sequence[str] | None = None,
        network_name: str | None = None,
    ) -> None:
        super().__init__(dirname=os.fspath(dirname), require_empty=False, atomic=False)
        self.filename = filename
        facts = {NAMES: None if landmark_names is None else [str(n) for n in landmark_names], NETWORK: network_name}
        self.facts = {key: value for key, value in facts.items() if value is not None}
        self._outdated: list[str] = []

    def __call__(self, checkpoint: Mapping, filename: str, metadata: Mapping | None = None) -> None:
        name = self.filename or filename
        super().__call__(_with_facts(checkpoint, self.facts), name, metadata)
        for old in self._outdated:
            if old != name and self.filename is None:
                (self.dirname / old).unlink(missing_ok=True)
        self._outdated = []

    def remove(self, filename: str) -> None:
        if _rank() == self.save_on_rank:
            self._outdated.append(filename)

    def _save_func(self, checkpoint: Mapping, path: Path, func: Any) -> None:
        with atomic_write(path) as temporary:
            func(checkpoint, temporary, **self.kwargs)


def read_checkpoint(path: str | os.PathLike[str], map_location: Any = "cpu") -> Checkpoint:
    """Read a checkpoint file; only tensors and plain values, no code that the file may contain.

    Args:
        path: of the file.
        map_location: where tensors go. The default suits several processes too: loading into a network moves them on.

    Returns:
        the content.

    Raises:
        FileNotFoundError: if the file is not there.
        LandmarkError: if it is no checkpoint, is damaged, or holds more than tensors and plain values.
    """
    file = Path(path)
    if not file.is_file():
        others = sorted(p.name for p in file.parent.glob("*.pt")) if file.parent.is_dir() else []
        where = f"the folder has {quoted(others)}" if others else "train first, or download the weights"
        raise FileNotFoundError(f"there is no checkpoint {os.fspath(path)}: {where}.")
    try:
        content = torch.load(file, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises half a dozen unrelated types for files that are not what they should be
        raise LandmarkError(
            f"{file} cannot be read as a checkpoint: {str(error).splitlines()[0]} It must be a file of torch.save that "
            "holds tensors and plain values: not a TorchScript archive (.ts), not a pickled network, not cut short."
        ) from error
    if not isinstance(content, Mapping) or not content:
        raise LandmarkError(f"{file} holds {type(content).__name__}, not a state dictionary.")
    bare = _is_bare(content)
    facts = vars(content) if bare and isinstance(content, OrderedDict) else content
    names = facts.get(NAMES)
    objects = {"": content} if bare else {k: v for k, v in content.items() if k not in (NAMES, NETWORK)}
    return Checkpoint(file, objects, None if names is None else tuple(names), facts.get(NETWORK))


def checkpoint_compat(
    checkpoint: str | os.PathLike[str] | Checkpoint,
    network: nn.Module,
    landmark_names: Sequence[str] | None = None,
    key: str = "model",
) -> None:
    """Check that a checkpoint belongs to a network and a landmark list, without loading it.

    Args:
        checkpoint: file, or its content.
        network: to be loaded into.
        landmark_names: what the network is to predict, in order; None checks the weights only.
        key: the network's name in the checkpoint.

    Raises:
        FileNotFoundError: if the file is not there.
        LandmarkError: saying how the two differ: in landmarks, in architecture, or in sizes.
    """
    content = checkpoint if isinstance(checkpoint, Checkpoint) else read_checkpoint(checkpoint)
    fault = _explain_names(content.landmark_names, landmark_names)
    if fault is None:
        saved_as = content.network_name if key in NETWORK_KEYS else None
        fault = explain_state(content.state(key), network, saved_as)
    if fault is not None:
        raise LandmarkError(f"{content.path} does not fit: {fault}")


def explain_state(state: Mapping[str, Any], network: nn.Module, saved_as: str | None = None) -> str | None:
    """Say why a state dictionary does not fit a network, or return None where it does.

    Args:
        state: weights by name.
        network: to be loaded into.
        saved_as: class of the network that was saved.

    Returns:
        a sentence for an error message, or None.

    Example:
        >>> print(explain_state(nn.Conv2d(8, 19, 1).state_dict(), nn.Conv2d(8, 37, 1)))
        the checkpoint predicts 19 landmarks, this network 37 (weight: (19, 8, 1, 1) and (37, 8, 1, 1); ...
    """
    own = {k: v for k, v in unwrapped(network).state_dict().items() if isinstance(v, torch.Tensor)}
    saved = without_module(state)
    saved = {k: v for k, v in saved.items() if isinstance(v, torch.Tensor)}
    # A network for several data sets tells data sets apart by the names of its weights; no other can.
    explain_mismatch = getattr(unwrapped(network), "explain_mismatch", None)
    if explain_mismatch is not None and (fault := explain_mismatch(saved)):
        return str(fault)
    missing, extra = [k for k in own if k not in saved], [k for k in saved if k not in own]
    if missing or extra:
        kinds = f"a {saved_as}" if saved_as else "another architecture"
        parts = [f"{len(missing)} weights are not in it: {quoted(missing, 3)}"] if missing else []
        parts += [f"{len(extra)} of its weights are unknown here: {quoted(extra, 3)}"] if extra else []
        return (
            f"the checkpoint is of {kinds}, this network is a {type(unwrapped(network)).__name__} of other layers; "
            f"{'; '.join(parts)}. Build the network with the settings it was trained with."
        )
    # Of a buffer that takes the number of its rows from the file only the other axes must agree.
    first = {k: int(k in getattr(unwrapped(network), "resized_on_load", ())) for k in own}
    shapes = {k: (tuple(saved[k].shape[i:]), tuple(own[k].shape[i:])) for k, i in first.items()}
    sizes = {k: (a, b) for k, (a, b) in shapes.items() if a != b}
    if not sizes:
        return None
    shown = "; ".join(f"{k}: {a} and {b}" for k, (a, b) in list(sizes.items())[:3])
    shown += f"; {len(sizes) - 3} more" if len(sizes) > 3 else ""
    landmarks = getattr(unwrapped(network), "num_landmarks", None)
    cause = _explain_sizes(list(sizes.values()), landmarks if isinstance(landmarks, int) else None)
    return f"{cause} ({shown}). Build the network with the sizes it was trained with."


def unwrapped(network: Any) -> Any:
    """Give the network inside ``DistributedDataParallel``, ``DataParallel`` or ``torch.compile``."""
    if isinstance(network, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        return unwrapped(network.module)
    return getattr(network, "_orig_mod", network)


def without_module(state: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the prefix that a wrapped network puts before the names of all its weights."""
    for prefix in ("module.", "_orig_mod."):
        if state and all(k.startswith(prefix) for k in state):
            return without_module({k.removeprefix(prefix): v for k, v in state.items()})
    return dict(state)


def _explain_names(saved: Sequence[str] | None, wanted: Sequence[str] | None) -> str | None:
    if saved is None or wanted is None or tuple(saved) == tuple(wanted):
        return None
    if set(saved) == set(wanted):
        place = next(i for i, pair in enumerate(zip(saved, wanted, strict=True)) if pair[0] != pair[1])
        return (
            f"it has the same landmarks in another order, the first difference is at {place}: {saved[place]!r} there, "
            f"{wanted[place]!r} here. Use the checkpoint's order and reorder the predictions by name."
        )
    lacking, surplus = [n for n in wanted if n not in saved], [n for n in saved if n not in wanted]
    parts = [f"it does not predict {quoted(lacking, 4)}{did_you_mean(lacking[0], surplus)}"] if lacking else []
    parts += [f"it predicts {quoted(surplus, 4)}, which is not wanted here"] if surplus else []
    counts = f"the checkpoint predicts {len(saved)} landmarks, {len(wanted)} are wanted: " if lacking else ""
    return counts + "; ".join(parts) + ". Use the landmark list it was trained with, or train anew."


def _explain_sizes(sizes: list[tuple[tuple[int, ...], tuple[int, ...]]], landmarks: int | None = None) -> str:
    """Tell the cause from which axes differ: outputs (axis 0), inputs (axis 1), or anything."""
    axes = [
        [(axis, a, b) for axis, (a, b) in enumerate(zip(saved, own, strict=True)) if a != b]
        if len(saved) == len(own)
        else []
        for saved, own in sizes
    ]
    pairs = {(a, b) for differences in axes for _, a, b in differences}
    places = [axis for differences in axes for axis, _, _ in differences]
    if any(len(differences) != 1 for differences in axes) or len(pairs) != 1:
        dims = {(len(saved), len(own)) for saved, own in sizes}
        if any(a != b for a, b in dims):
            return "the checkpoint is of another number of spatial dimensions"
        return "the checkpoint has the same layers in other sizes"
    saved_size, own_size = pairs.pop()
    if places == [1]:
        return f"the checkpoint takes {saved_size} input channels, this network {own_size}"
    if any(axis > 1 for axis in places):
        return f"the checkpoint has kernels of {saved_size}, this network of {own_size}"
    # A head with several outputs for each landmark, such as a heatmap and two offsets, has that multiple of channels.
    each = own_size // landmarks if landmarks and own_size % landmarks == 0 else 1
    # Another width also shows in one pair of sizes where a network is shallow; it is no multiple of the landmarks.
    if saved_size % each or (own_size % landmarks if landmarks else set(places) != {0}):
        return "the checkpoint has the same layers in other sizes"
    return f"the checkpoint predicts {saved_size // each} landmarks, this network {own_size // each}"


def _is_bare(content: Mapping[str, Any]) -> bool:
    """Whether these are the weights of one network rather than several objects."""
    values = list(content.values())
    return any(isinstance(v, torch.Tensor) for v in values) and not any(isinstance(v, Mapping) for v in values)


def _with_facts(checkpoint: Mapping, facts: Mapping[str, Any]) -> Mapping:
    if not facts:
        return checkpoint
    if not _is_bare(checkpoint):
        return {**checkpoint, **facts}
    state = OrderedDict(checkpoint)
    state.__dict__.update(getattr(checkpoint, "__dict__", {}), **facts)
    return state


def _rank() -> int:
    parallel = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_rank() if parallel else 0
