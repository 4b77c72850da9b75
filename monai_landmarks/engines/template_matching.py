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
"""From a trained patch matcher and a few annotated images to a network that finds their landmarks in other images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ..geometry import LandmarkError
from ..handlers import LandmarkCheckpointLoader
from ..handlers.checkpoint_files import AtomicSaver
from ..networks import RegisteredExemplarNet, TemplateMatchingNet

__all__ = ["load_matcher", "prepare_template_matching"]

Network = TypeVar("Network", bound=nn.Module)
Matching = TypeVar("Matching", TemplateMatchingNet, RegisteredExemplarNet)


def load_matcher(matcher: Network, path: str | os.PathLike[str], stage: str = "self-supervision") -> Network:
    """Load the weights that a stage of the ladder from one annotated image left.

    Args:
        matcher: a :class:`PatchMatchingNet`, an :class:`EdgeTransNet` or another network, changed in place.
        path: of the file that :class:`~monai_landmarks.handlers.FinalCheckpoint` or ``LowestErrorCheckpoint`` wrote.
        stage: that writes it, for the message.

    Returns:
        ``matcher``.

    Raises:
        FileNotFoundError: if the file is not there.
        LandmarkError: if it does not fit.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no trained network at {path}: run the {stage} first.")
    LandmarkCheckpointLoader(path, {"model": matcher})()
    return matcher


def prepare_template_matching(
    network: Matching,
    templates: Iterable[Mapping[str, Any]],
    landmark_names: Sequence[str],
    save_path: str | os.PathLike[str] | None = None,
    image_key: str = "image",
    points_key: str = "points",
) -> Matching:
    """Read the features of the templates' landmarks with a trained matcher, and save both in one file.

    Args:
        network: with the trained matcher inside, or for a single template with the trained registration; changed in place.
        templates: annotated images, prepared as those to be searched: a MONAI data set of dictionaries.
        landmark_names: of the points, in order; written into the file, so that an evaluation can check them.
        save_path: of the file, which :class:`~monai_landmarks.handlers.LandmarkCheckpointLoader` loads; None writes none.
        image_key: of the image ``(C, *S)`` in a template.
        points_key: of its points ``(N, D)`` in voxels, NaN for missing.

    Returns:
        ``network``.

    Raises:
        LandmarkError: for no template, one without image or points, or as :meth:`TemplateMatchingNet.set_templates`.

    Example:
        >>> from monai_landmarks.networks import PatchMatchingNet
        >>> network = TemplateMatchingNet(PatchMatchingNet(2, encoder="resnet18", width=0.125), num_landmarks=1)
        >>> film = {"image": torch.rand(1, 64, 64), "points": torch.tensor([[20.0, 30.0]])}
        >>> prepare_template_matching(network, [film], ["sella"])(torch.rand(1, 1, 64, 64)).shape
        torch.Size([1, 1, 64, 64])
    """
    films = list(templates)
    for number, film in enumerate(films):
        absent = [key for key in (image_key, points_key) if key not in film]
        if absent:
            raise LandmarkError(f"template {number} has no {absent}; it holds {sorted(map(str, film))}.")
    network.set_templates(
        [film[image_key] for film in films],
        [torch.as_tensor(film[points_key]) for film in films],
        [list(landmark_names)] * len(films),
    )
    if save_path is not None:
        path = Path(save_path)
        saver = AtomicSaver(path.parent, path.name, landmark_names, type(network).__name__)
        saver(network.state_dict(), path.name)
    return network.eval()
