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
"""The bias doctor: synthetic blobs are sent through a pipeline, and points that do not follow them are explained."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, LoadImage, LoadImaged
from monai.utils import look_up_option

from ...geometry import LandmarkError
from ..film import LoadFilmd
from ..io import LoadLandmarksd
from .heatmap_path import Decode, Encode, check_heatmap_path, default_decode, default_encode
from .phantom import WRITABLE, ImageWriter
from .report import Finding, FollowReport, FollowStage
from .run import Setup, check_pipeline
from .way_back import check_item_heatmaps, check_world

__all__ = ["check_landmarks_follow"]

_SIGMA = 2.5


def check_landmarks_follow(
    pipeline: Any = None,
    *,
    image_key: str = "image",
    landmarks_key: str = "landmarks",
    points_key: str = "points",
    landmarks_space: str = "world",
    points_space: str | None = None,
    spatial_dims: int | None = None,
    spatial_shape: Sequence[int] | None = None,
    affine: Any = None,
    num_landmarks: int = 12,
    names: Sequence[str] | None = None,
    pairs: Sequence[Sequence[int | str]] | None = None,
    sigma: float | None = None,
    intensity: tuple[float, float] = (25.0, 250.0),
    item: Mapping[str, Any] | Callable[[dict[str, Any]], Any] | None = None,
    image_file: str | ImageWriter | None = None,
    landmarks_file: str | None = None,
    encode: Encode | str | None = None,
    decode: Decode | str | None = None,
    to_world: Callable[[torch.Tensor, Any], Any] | None = None,
    tolerance: float = 0.05,
    draws: int = 4,
    seed: int = 0,
) -> FollowReport:
    """Find out whether landmarks follow the image through a pipeline, and if not, why and where.

    A synthetic image with Gaussian blobs at known places between the voxels goes through the pipeline together with the
    landmarks of those places. At the end the blobs are measured in the image (adaptive moments; good to about 0.02
    voxel, and where the image was bent, by coordinate ramps that travel along) and compared with the points. A residual
    is explained: half a pixel in a resize, a padding that was forgotten, a scale, exchanged or mirrored axes, exchanged
    landmarks, world millimetres taken for voxels, an elastic deformation that the points know nothing of. In a
    ``monai.transforms.Compose`` the first transform after which the points are off is named. One landmark is missing
    (NaN) and must stay so.

    Intensity transforms do no harm as long as blobs remain visible: a constant, a factor, inverted contrast, clipping
    and noise do not move the measured place. What does is a strong change of intensity within the few voxels of a blob.

    With ``decode``, the full path is checked too: encode -> identity instead of a network -> decode -> world, with
    points also close to the borders of the map.

    Args:
        pipeline: from item to item (or to several): ``Compose``, a dictionary transform, a function, or a dataset with
            ``transform`` (and ``data``, of which the first item serves as template). None for the heatmap path alone.
        image_key: of the image.
        landmarks_key: where the landmarks go in.
        points_key: where the voxel points are expected. If the output has none, what it has under ``landmarks_key`` is
            taken, world millimetres being led through the affine of the output image.
        landmarks_space: "world" or "voxel": what the pipeline takes.
        points_space: "world" or "voxel": what it gives; None finds out as above.
        spatial_dims: 2 or 3; None takes it from ``spatial_shape`` or ``affine``, else 3.
        spatial_shape: of the synthetic image. Give the real size where a pipeline crops to a fixed size.
        affine: of the synthetic image, voxel to world; None for an oblique anisotropic volume, or a film. For files
            without affine (PNG) it must be what the pipeline's reader gives them; a ``Compose`` is asked.
        num_landmarks: the pipeline may need a certain number.
        names: of the landmarks, for texts and for the landmark file; None takes those of a ``LoadLandmarksd`` in the
            pipeline.
        pairs: left and right partners that a flip exchanges on purpose, by name or number.
        sigma: of the blobs in voxels; None takes 2.5, or more where the pipeline shrinks the image.
        intensity: of the body and of the top of the blobs.
        item: other entries of the item, or a function that changes each item before it is sent.
        image_file: for pipelines that load files: a suffix (".nii.gz", ".png", ".mha", ...) or a function ``(array,
            affine, path without suffix) -> path`` that writes one. None asks the pipeline whether it loads.
        landmarks_file: suffix of a landmark file (".csv", ".mrk.json", ...), or None to send a tensor, which
            ``LoadLandmarksd`` takes as well.
        encode: ``(points (B, N, D), spatial_shape) -> heatmaps (B, N, *S)``; or the key of the output item that holds
            heatmaps ``(N, *S)``; None takes ``gaussian_heatmaps`` with sigma 2 if there is a ``decode``.
        decode: ``heatmaps (B, N, *S) -> points (B, N, D)`` or a tuple beginning with them; or a method of
            ``decode_heatmaps``, such as "dark".
        to_world: ``(points (N, D), image) -> world (N, D)``; None takes ``LandmarksImageToWorld`` if there is a
            ``decode``.
        tolerance: largest residual along an axis that passes, in voxels.
        draws: how often a random pipeline is run.
        seed: of the first draw and of the places. A copy of the pipeline is run, whose random state is set before every
            run; what cannot be copied is run itself.

    Returns:
        the report; ``print`` it, or call ``raise_if_failed()`` in a test.

    Raises:
        LandmarkError: if the pipeline cannot run on the synthetic item at all, with what to change.

    Example:
        >>> from monai.transforms import Compose, Resized
        >>> from monai_landmarks.transforms import LandmarksWorldToImaged
        >>> to_voxels = LandmarksWorldToImaged("landmarks", "image", output_keys="points")
        >>> check_landmarks_follow(Compose([Resized("image", (40, 60, 30), mode="trilinear"), to_voxels])).passed
        True
        >>> report = check_landmarks_follow(Compose([to_voxels, Resized("image", (40, 60, 30), mode="trilinear")]))
        >>> report.culprit
        'transforms[1] Resized'
    """
    run, template, suffix = _open(pipeline, image_key, landmarks_key)
    item = template if item is None else item
    dims = _dimension(spatial_dims, spatial_shape, affine)
    if isinstance(decode, str):
        decode = default_decode(decode, dims)
    if decode is None and encode is not None:
        decode = default_decode("dark", dims)
    if run is None and decode is None:
        raise LandmarkError("there is nothing to check: give a pipeline, or decode= for the way through heatmaps.")
    names = _loaded_names(run, landmarks_key) if names is None else names
    count = len(names) if names is not None else num_landmarks
    labels = tuple(names) if names is not None else tuple(f"landmark {n}" for n in range(count))
    setup = Setup(
        run=run,
        labels=labels,
        partners=_partners(pairs, labels),
        tolerance=float(tolerance),
        draws=draws,
        phantom={
            "spatial_dims": dims,
            "spatial_shape": spatial_shape,
            "affine": affine,
            "num_landmarks": count,
            "sigma": _SIGMA if sigma is None else float(sigma),
            "intensity": intensity,
            "seed": seed,
        },
        probe={
            "image_key": image_key,
            "landmarks_key": landmarks_key,
            "points_key": points_key,
            "landmarks_space": look_up_option(landmarks_space, ("world", "voxel")),
            "points_space": None if points_space is None else look_up_option(points_space, ("world", "voxel")),
            "item": item,
            "image_file": _file_suffix(run, image_key, dims, suffix) if image_file is None else image_file,
            "landmarks_file": landmarks_file,
            "names": names,
            "seed": seed,
        },
        fixed_sigma=sigma is not None,
    )
    stages: list[FollowStage] = []
    findings: list[Finding] = []
    summary, culprit = "", None
    size = spatial_shape or ((72, 60) if dims == 2 else (32, 28, 24))
    if run is not None:
        with tempfile.TemporaryDirectory() as folder:
            result = check_pipeline(setup, Path(folder))
            summary, culprit, stages, findings = result.summary, result.culprit, result.stages, result.findings
            if result.seen:
                size = result.seen[0].shape
                if decode is not None and isinstance(encode, str):
                    _add(stages, findings, check_item_heatmaps(result.seen, encode, decode, setup.tolerance))
                if decode is not None or to_world is not None:
                    _add(
                        stages, findings, check_world(result.seen, result.phantom, image_key, to_world, setup.tolerance)
                    )
    if decode is not None and not isinstance(encode, str):
        path = check_heatmap_path(encode or default_encode(), decode, size, count, setup.tolerance, seed)
        if stages:
            path[0].voxel_size[:] = stages[0].voxel_size[0]
        _add(stages, findings, path)
    return FollowReport(stages, findings, setup.tolerance, summary, culprit, dims)


def _add(stages: list[FollowStage], findings: list[Finding], result: tuple[FollowStage, list[Finding]]) -> None:
    stages.append(result[0])
    findings.extend(result[1])


# ---------------------------------------------------------------------------------------------------------- arguments


def _open(pipeline: Any, image_key: str, landmarks_key: str) -> tuple[Any, dict[str, Any] | None, str | None]:
    """Return what can be called, and of a dataset's first item the other entries and the suffix of its image file."""
    if pipeline is None or (callable(pipeline) and not hasattr(pipeline, "__getitem__")):
        return _copy(pipeline), None, None
    run = getattr(pipeline, "transform", None)
    if not callable(run):
        raise LandmarkError(
            f"a pipeline must be callable from item to item, or a dataset with `transform`; got {type(pipeline).__name__}."
        )
    data = getattr(pipeline, "data", None)
    first = data[0] if isinstance(data, Sequence) and len(data) and isinstance(data[0], Mapping) else {}
    image = first.get(image_key)
    suffix = None
    if isinstance(image, str | os.PathLike):
        suffix = next((s for s in WRITABLE if str(image).lower().endswith(s)), None)
    return _copy(run), {k: v for k, v in first.items() if k not in (image_key, landmarks_key)}, suffix


def _copy(run: Any) -> Any:
    """Copy what has a random state, so that the check leaves that of the caller's pipeline alone."""
    if not hasattr(run, "set_random_state"):
        return run
    try:
        return copy.deepcopy(run)
    except Exception:  # some hold what cannot be copied, such as locks; they are run as they are
        return run


def _leaves(run: Any) -> Sequence[Any]:
    return run.flatten().transforms if type(run) is Compose else [run]


def _loaded_names(run: Any, landmarks_key: str) -> Sequence[str] | None:
    """Return the names that the pipeline's landmark loader asks for."""
    for transform in _leaves(run):
        if isinstance(transform, LoadLandmarksd) and landmarks_key in transform.keys:
            return transform.loader.names
    return None


def _dimension(spatial_dims: int | None, spatial_shape: Sequence[int] | None, affine: Any) -> int:
    if spatial_dims is None:
        spatial_dims = 3
        if spatial_shape is not None:
            spatial_dims = len(tuple(spatial_shape))
        elif affine is not None:
            spatial_dims = len(np.asarray(affine)) - 1
    if spatial_dims not in (2, 3):
        raise LandmarkError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
    return spatial_dims


def _partners(pairs: Sequence[Sequence[int | str]] | None, labels: Sequence[str]) -> dict[int, int]:
    """Return the partner of each row that has one."""
    partners: dict[int, int] = {}
    for pair in pairs or ():
        if len(pair) != 2:
            raise LandmarkError(f"pairs are two landmarks each, got {pair!r}.")
        rows = []
        for one in pair:
            if isinstance(one, str) and one not in labels:
                raise LandmarkError(f"pairs name {one!r}, which is none of the names {list(labels)}.")
            rows.append(labels.index(one) if isinstance(one, str) else int(one))
        if not all(0 <= row < len(labels) for row in rows) or rows[0] == rows[1]:
            raise LandmarkError(f"the pair {pair!r} is not two of {len(labels)} landmarks.")
        partners[rows[0]], partners[rows[1]] = rows[1], rows[0]
    return partners


def _file_suffix(run: Any, image_key: str, dims: int, suffix: str | None) -> str | None:
    """Return the kind of file to write where the pipeline begins by loading one."""
    for transform in _leaves(run):
        if isinstance(transform, LoadImaged | LoadFilmd) and image_key in transform.keys:
            return suffix or (".png" if isinstance(transform, LoadFilmd) or dims == 2 else ".nii.gz")
        if isinstance(transform, LoadImage):
            raise LandmarkError(
                "the pipeline takes paths, not items: use LoadImaged, or wrap it in a function of items."
            )
    return None
