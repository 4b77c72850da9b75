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
"""What all networks for several data sets have in common: the list of data sets, whose weights are whose, adding one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from monai_landmarks.data.landmarks import did_you_mean, quoted
from monai_landmarks.geometry import LandmarkError

from ..blocks.separable_convolution import DatasetModules

__all__ = ["DatasetView", "UniversalNetwork", "datasets_of_state"]

_HEATMAP_BIAS = re.compile(r"(?:^|\.)(?:heads\.(\w+)|networks\.(\w+)\.head)\.bias$")


class UniversalNetwork(nn.Module):
    """Base of networks that predict the landmarks of several data sets, some weights shared, some each data set's own.

    A batch comes from one data set; the parameters of the others get no gradient from it (None, not zero), which
    ``DistributedDataParallel`` accepts with ``find_unused_parameters=True``.

    A frozen part (none of whose parameters requires a gradient) stays in evaluation mode when the network is put into
    training mode, so that running statistics of its normalisations do not move. After :meth:`add_dataset` this holds for
    everything that was there before. Freezing is no part of a state dictionary: to go on from a checkpoint written
    while the added data set was being trained, build and extend the network in the same order, then load.

    Args:
        datasets: name of each data set to its number of landmarks. Names are identifiers, such as ``head``.
        in_channels: of the images, one number for all or one for each data set.

    Raises:
        LandmarkError: for no data set, a name that is no identifier or is taken by PyTorch, fewer than one landmark or
            channel, or ``in_channels`` for other data sets.
    """

    def __init__(self, datasets: Mapping[str, int], in_channels: int | Mapping[str, int] = 1) -> None:
        super().__init__()
        if not isinstance(datasets, Mapping) or not datasets:
            raise LandmarkError(
                "`datasets` must name each data set with its number of landmarks, such as {'head': 19, 'hand': 37}, "
                f"got {datasets!r}."
            )
        channels = dict(in_channels) if isinstance(in_channels, Mapping) else dict.fromkeys(datasets, in_channels)
        if set(channels) != set(datasets):
            raise LandmarkError(
                f"`in_channels` is for {quoted(channels)}, the data sets are {quoted(datasets)}: give one number for "
                "all, or one for each."
            )
        self.num_landmarks: dict[str, int] = {}
        self.in_channels: dict[str, int] = {}
        for name, count in datasets.items():
            self._note_dataset(name, count, channels[name])

    @property
    def dataset_names(self) -> tuple[str, ...]:
        """Names of the data sets, in the order in which they came."""
        return tuple(self.num_landmarks)

    def add_dataset(self, name: str, num_landmarks: int, in_channels: int = 1, like: str | None = None) -> None:
        """Add a data set to a trained network: what is there is frozen, only the new weights will learn.

        The predictions for the data sets already known stay the same to the bit, also while the new one is trained.
        Give the optimizer ``network.dataset_parameters(name)``. ``requires_grad_(True)`` and then ``train()`` thaw all.

        Args:
            name: of the new data set.
            num_landmarks: of the new data set.
            in_channels: of its images.
            like: a known data set whose weights the new one starts from, wherever the shapes fit (a heatmap layer for
                another number of landmarks starts afresh); None starts afresh.

        Raises:
            LandmarkError: for a name that is there or cannot be one, an unknown ``like``, or counts below 1. Nothing is
                changed then.
        """
        if like is not None:
            self.check_dataset(like)
        self._note_dataset(name, num_landmarks, in_channels)
        self.requires_grad_(False)
        self._add_modules(name, like)
        self.train(self.training)

    def dataset_parameters(self, name: str) -> Iterator[nn.Parameter]:
        """Yield the parameters that only this data set has.

        Raises:
            LandmarkError: for an unknown name.
        """
        self.check_dataset(name)
        return (parameter for part in self._parts() for parameter in part[name].parameters())

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that all data sets share."""
        own = {id(parameter) for part in self._parts() for parameter in part.parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in own)

    def for_dataset(self, name: str) -> DatasetView:
        """Give the network for one data set: ``forward(image)``, the weights are this network's.

        Raises:
            LandmarkError: for an unknown name.
        """
        return DatasetView(self, name)

    def check_dataset(self, name: str) -> None:
        """Refuse a data set that the network does not know.

        Raises:
            LandmarkError: that lists the known ones.
        """
        if not isinstance(name, str) or name not in self.num_landmarks:
            hint = did_you_mean(name, self.num_landmarks) if isinstance(name, str) else ""
            raise LandmarkError(
                f"this network knows no data set {name!r}{hint}; it knows {quoted(self.num_landmarks)}. Name one of "
                "these, or add the data set with add_dataset() and train it."
            )

    def train(self, mode: bool = True) -> UniversalNetwork:
        """Set training or evaluation mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        if not mode:
            return self
        names = self.dataset_names
        trained = [name for name in names if not _all_frozen(self.dataset_parameters(name))]
        if _all_frozen(self.shared_parameters()):
            for child in self.children():
                child.eval()
        for part in self._parts():
            for name, module in part.items():
                module.train(name in trained)
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights, as in torch; weights of other data sets are refused with the two lists.

        Raises:
            LandmarkError: if the data sets or their numbers of landmarks differ; ``strict=False`` compares no lists.
        """
        fault = self.explain_mismatch(state_dict) if strict else None
        if fault is not None:
            raise LandmarkError(fault)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def explain_mismatch(self, state: Mapping[str, Any]) -> str | None:
        """Say how the data sets of a state dictionary differ from this network's, or return None where they do not.

        Args:
            state: weights by name.
        """
        saved = datasets_of_state(state)
        if not saved:
            return None  # weights of something else; torch says which are missing
        if set(saved) != set(self.num_landmarks):
            return _explain_lists(list(saved), self.dataset_names)
        other = [name for name, count in saved.items() if count != self.num_landmarks[name]]
        if not other:
            return None
        shown = "; ".join(f"{name}: {saved[name]} there, {self.num_landmarks[name]} here" for name in other)
        return f"the checkpoint predicts other numbers of landmarks ({shown}). Build the network with its numbers."

    def _add_modules(self, name: str, like: str | None = None) -> None:
        """Build everything that a data set has alone."""
        raise NotImplementedError

    def _parts(self) -> list[DatasetModules]:
        return [module for module in self.modules() if isinstance(module, DatasetModules)]

    def _note_dataset(self, name: str, num_landmarks: int, in_channels: int) -> None:
        """Check a data set and enter it in the lists."""
        if not isinstance(name, str) or not name.isidentifier() or hasattr(DatasetModules(), name):
            raise LandmarkError(
                f"a data set cannot be called {name!r}: names become parts of the names of weights, so take letters, "
                "digits and _ and no word of PyTorch's modules, such as 'head_xray'."
            )
        if name in self.num_landmarks:
            raise LandmarkError(f"there is a data set {name!r} already; the network has {quoted(self.num_landmarks)}.")
        if num_landmarks < 1 or in_channels < 1:
            raise LandmarkError(
                f"data set {name!r} must have at least 1 landmark and 1 image channel, got {num_landmarks} and "
                f"{in_channels}."
            )
        self.num_landmarks[name] = int(num_landmarks)
        self.in_channels[name] = int(in_channels)


def datasets_of_state(state: Mapping[str, Any]) -> dict[str, int]:
    """Read the data sets and their numbers of landmarks from a universal network's weights, by its heatmap layers.

    Args:
        state: weights by name, of any :class:`UniversalNetwork`.

    Returns:
        what the network was built with as ``datasets``, empty for the weights of something else.

    Example:
        >>> from monai_landmarks.networks import GU2Net
        >>> datasets_of_state(GU2Net(2, {"head": 19, "chest": 6}, channels=(2, 2), global_channels=2).state_dict())
        {'head': 19, 'chest': 6}
    """
    found = ((_HEATMAP_BIAS.search(key), value) for key, value in state.items())
    return {match[1] or match[2]: len(value) for match, value in found if match}


class DatasetView(nn.Module):
    """A network for several data sets as the network of one: ``forward(image)`` instead of ``forward(image, dataset)``.

    Its weights are the whole network's, under the same names: optimizers, ``state_dict`` and checkpoint handlers may be
    given either. It can be traced, exported and handed to inferers.

    Args:
        network: of all data sets.
        dataset: name of the one.

    Raises:
        LandmarkError: for an unknown name.
    """

    def __init__(self, network: UniversalNetwork, dataset: str) -> None:
        super().__init__()
        network.check_dataset(dataset)
        # The very dictionary of the network's layers, so that weights have the names they have there.
        self._modules = network._modules
        self.__dict__["_network"] = network  # not registered, or its layers would be here twice
        self.dataset = dataset
        self.training = network.training

    @property
    def network(self) -> UniversalNetwork:
        """The network of all data sets."""
        return self.__dict__["_network"]

    @property
    def num_landmarks(self) -> int:
        """``N`` of this data set."""
        return self.network.num_landmarks[self.dataset]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image, self.dataset)

    def train(self, mode: bool = True) -> DatasetView:
        """Set the mode of the whole network; frozen parts stay in evaluation mode."""
        self.network.train(mode)
        self.training = mode
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load the weights of the whole network; see :meth:`UniversalNetwork.load_state_dict`."""
        return self.network.load_state_dict(state_dict, strict=strict, assign=assign)

    def explain_mismatch(self, state: Mapping[str, Any]) -> str | None:
        """See :meth:`UniversalNetwork.explain_mismatch`."""
        return self.network.explain_mismatch(state)


def _all_frozen(parameters: Iterable[nn.Parameter]) -> bool:
    needs = [parameter.requires_grad for parameter in parameters]
    return bool(needs) and not any(needs)


def _explain_lists(saved: list[str], own: tuple[str, ...]) -> str:
    lacking = [name for name in saved if name not in own]
    surplus = [name for name in own if name not in saved]
    repair = f"build the network with datasets={{{', '.join(f'{name!r}: ...' for name in saved)}}}"
    if lacking and not surplus:
        repair += f" or call {_calls(lacking)}"
    repair += " before loading" + (f", and {_calls(surplus)} after it" if surplus else "")
    return f"the checkpoint holds {', '.join(saved)}; this network has {', '.join(own)}: {repair}."


def _calls(names: list[str]) -> str:
    return ", ".join(f"add_dataset({name!r}, ...)" for name in names)
