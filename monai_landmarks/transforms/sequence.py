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
"""The best anatomical sequence among the candidates of a network's channels, in world millimetres."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends

from ..geometry import LandmarkError
from ..postprocessing.result import SequenceResult
from ..postprocessing.sequence import SequenceModel
from .heatmap import output_keys_for
from .spatial import LandmarksImageToWorld, _note_conversion, as_points, look_up_reference, repeat_keys

__all__ = [
    "SelectSequence",
    "SelectSequenceD",
    "SelectSequenceDict",
    "SelectSequenced",
]


class SelectSequence(Transform):
    """Choose the candidates that form the best anatomical sequence, and turn them into world millimetres.

    A thin shell around :class:`monai_landmarks.postprocessing.SequenceModel`, which knows offsets in world millimetres:
    candidates in voxels are turned by their image's affine first.

    Args:
        model: a fitted model, or the path of one that was saved.
        names: of the channels; a model for others is refused. None takes the model's.

    Raises:
        LandmarkError: for a model that has learnt nothing or has other names.
        FileNotFoundError: for a file that is not there.

    Example:
        >>> import torch
        >>> model = SequenceModel(["L1", "L2"]).fit(torch.tensor([[[0.0, 0.0], [0.0, 20.0]], [[0.0, 1.0], [1.0, 22.0]]]))
        >>> candidates = torch.tensor([[[4.0, 0.0], [4.0, 30.0]], [[4.0, 42.0], [4.0, 10.0]]])
        >>> scores = torch.tensor([[0.9, 0.1], [0.6, 0.5]])
        >>> SelectSequence(model)(candidates, scores, torch.diag(torch.tensor([2.0, 2.0, 1.0]))).points
        tensor([[ 8.,  0.],
                [ 8., 20.]], dtype=torch.float64)
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, model: SequenceModel | str | os.PathLike[str], names: Sequence[str] | None = None) -> None:
        self.model = model if isinstance(model, SequenceModel) else SequenceModel.load(model, names)
        if self.model.statistics is None:
            raise LandmarkError("the sequence model has learnt nothing yet: call its fit(points) first.")
        if names is not None and tuple(names) != self.model.names:
            raise LandmarkError(f"the sequence model is for {list(self.model.names)}, wanted are {list(names)}.")
        self.to_world = LandmarksImageToWorld()

    def __call__(self, candidates: Any, confidence: Any, reference: Any = None) -> SequenceResult:  # type: ignore[override]
        """Choose the best sequence.

        Args:
            candidates: ``(N, K, D)``, NaN-padded.
            confidence: ``(N, K)``, falling along K.
            reference: the image whose voxels the candidates count, or its affine; None for world millimetres.

        Raises:
            LandmarkError: see :class:`~monai_landmarks.postprocessing.SequenceModel`.
        """
        plain = as_points(candidates, "candidates")
        if plain.ndim != 3:
            raise LandmarkError(
                f"the candidates of one item must have shape (N, K, D), got {tuple(plain.shape)}: decollate the batch first."
            )
        return self.model(plain if reference is None else self.to_world(plain, reference), confidence)


class SelectSequenced(MapTransform):
    """Choose the best anatomical sequence among the candidates under ``keys``.

    Dictionary version of :class:`SelectSequence`. The result is in world millimetres: no LandmarksImageToWorldd after it;
    it would refuse to convert twice.

    Args:
        keys: candidates ``(N, K, D)``.
        confidence_keys: their confidences ``(N, K)``: one key per key.
        model: see :class:`SelectSequence`.
        refer_keys: the image whose voxels the candidates count: one key, or one per key. None: the candidates are in
            world millimetres.
        output_keys: where the points ``(N, D)`` go: one key per key.
        output_confidence_keys: where their confidences ``(N,)`` go, NaN where a landmark is missing.
        report_keys: where the text goes that says what was changed and why, with members that have no channel (T13); None
            for nowhere.
        names: see :class:`SelectSequence`.
        allow_missing_keys: whether an item may lack one of ``keys``.

    Example:
        >>> import torch
        >>> model = SequenceModel(["L1", "L2"]).fit(torch.tensor([[[0.0, 0.0], [0.0, 20.0]], [[0.0, 1.0], [1.0, 22.0]]]))
        >>> select = SelectSequenced(model=model, refer_keys=None, report_keys="report")
        >>> item = {"pred_candidates": torch.tensor([[[8.0, 0.0]], [[8.0, 84.0]]])}
        >>> result = select({**item, "pred_candidate_confidence": torch.tensor([[0.9], [0.6]])})
        >>> result["pred_points"].tolist()
        [[8.0, 0.0], [nan, nan]]
        >>> print(result["report"])
        anatomy: regular; 1 of 2 landmarks, 1 changed
        L2: dropped. candidate 1 lies 84.0 mm from L1 where 20.5 +- 1.7 mm are usual.
    """

    backend = SelectSequence.backend

    def __init__(
        self,
        keys: KeysCollection = "pred_candidates",
        confidence_keys: KeysCollection = "pred_candidate_confidence",
        *,
        model: SequenceModel | str | os.PathLike[str],
        refer_keys: KeysCollection | None = "image",
        output_keys: KeysCollection = "pred_points",
        output_confidence_keys: KeysCollection = "pred_confidence",
        report_keys: KeysCollection | None = None,
        names: Sequence[str] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.confidence_keys = repeat_keys(confidence_keys, self.keys, "confidence_keys")
        self.refer_keys = repeat_keys(refer_keys, self.keys, "refer_keys")
        self.output_keys = output_keys_for(output_keys, self.keys, "output_keys")
        self.output_confidence_keys = output_keys_for(output_confidence_keys, self.keys, "output_confidence_keys")
        self.report_keys = output_keys_for(report_keys, self.keys, "report_keys")
        self.select = SelectSequence(model, names)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        others = (
            self.confidence_keys,
            self.refer_keys,
            self.output_keys,
            self.output_confidence_keys,
            self.report_keys,
        )
        for key, confidence_key, refer_key, output_key, output_confidence_key, report_key in self.key_iterator(
            d, *others
        ):
            reference = None if refer_key is None else look_up_reference(d, refer_key, "refer_keys")
            noted = _note_conversion(reference, key, output_key, "millimetres")
            result = self.select(d[key], look_up_reference(d, confidence_key, "confidence_keys"), reference)
            d[output_key], d[output_confidence_key] = result.points, result.confidence
            if report_key is not None:
                d[report_key] = result.table()
            if refer_key is not None:
                d[refer_key] = noted
        return d


SelectSequenceD = SelectSequenceDict = SelectSequenced
