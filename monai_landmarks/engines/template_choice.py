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
"""Which of many unlabelled images to annotate: the one whose points are found best in all others, as CC2D chooses it."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.networks.utils import eval_mode
from monai.utils import optional_import
from torch.nn import functional as F

from ..data.datasets.splits import seeded_order
from ..data.files import write_text
from ..data.landmarks import quoted
from ..geometry import LandmarkError, plain_tensor
from ..networks.blocks.similarity import sample_cells
from ..networks.nets.patch_matching_net import PatchMatchingNet
from ..networks.nets.spatial_configuration_net import LINEAR_MODES

__all__ = ["TemplateCandidate", "choose_template", "find_keypoints", "suggest_template"]

SCALE_STEP = 2 ** (1 / 3)
"""Between neighbouring Gaussians of the keypoints' scale space: three to the octave, as Lowe."""
FINEST_SIGMA = 0.8
NUM_SCALES_3D = 10
MAP_ELEMENTS = 2**20
"""Cells of similarity maps that are worked on at once: they stay in the cache, several times faster than from memory."""


class TemplateCandidate(NamedTuple):
    """An image that could be annotated, its score in [0, 1], and the number of keypoints that the score is a mean over.

    The score is NaN for an image in which no keypoint was found.
    """

    case: str
    score: float
    keypoints: int


# --- keypoints ----------------------------------------------------------------------------------------------------------


def find_keypoints(
    image: torch.Tensor,
    count: int = 48,
    min_distance: float = 10.0,
    border: float = 0.1,
    contrast_threshold: float = 0.04,
) -> torch.Tensor:
    """Find the strongest keypoints of an image, apart from each other and away from its border.

    In 2D they are SIFT's (Lowe 2004) by scikit-image, ``pip install scikit-image``, which has no SIFT in 3D: there they are
    the local maxima of the absolute difference of Gaussians in space and scale, which is SIFT's first step, at sigmas of 1.6
    to 6.4 voxels and without its test for edges. A keypoint is as strong as that difference at its own place and scale.

    As in the released script, whose test of the lower border lacks an operator and is always true; here all borders count.

    Args:
        image: ``(C, *S)``, whose channels are averaged and scaled to [0, 1] from the lowest to the highest value.
        count: at most so many, the strongest.
        min_distance: voxels between any two.
        border: part of each side, at each end, in which no keypoint lies.
        contrast_threshold: of SIFT, in OpenCV's convention: the difference of Gaussians must exceed a third of it.
            Published: 0.04 for heads, 0.02 for chests, 0.01 for hands and legs.

    Returns:
        ``(K, D)`` float32 voxels, the strongest first, ``K <= count``; ``(0, D)`` where there are none.

    Raises:
        LandmarkError: for an image that is not channel-first or not finite, or options out of range.
        OptionalImportError: in 2D where scikit-image is not installed.

    Example:
        >>> y, x = torch.meshgrid(torch.arange(80.0), torch.arange(60.0), indexing="ij")
        >>> find_keypoints(torch.exp(-((y - 40) ** 2 + (x - 24) ** 2) / 50)[None]).round()
        tensor([[40., 24.]])
    """
    if count < 1 or min_distance < 0 or not 0 <= border < 0.5 or contrast_threshold <= 0:
        raise LandmarkError(
            f"`count` must be at least 1, `min_distance` at least 0, `border` in [0, 0.5) and `contrast_threshold` above 0, "
            f"got {count}, {min_distance}, {border} and {contrast_threshold}."
        )
    grey = _grey(image)
    detect = _sift_points if grey.ndim == 2 else _extreme_points
    points, strength = detect(grey, contrast_threshold / 3)
    room = np.minimum(points + 0.5, np.array(grey.shape) - 0.5 - points) > border * np.array(grey.shape)
    points, strength = points[room.all(axis=1)], strength[room.all(axis=1)]
    # The strongest first, those as strong as each other by their place: nothing hangs on the detector's order.
    points = points[np.lexsort((*points.T, -strength))]
    return torch.from_numpy(_thinned(points, count, min_distance).astype(np.float32))


def _grey(image: torch.Tensor) -> np.ndarray:
    values = plain_tensor(torch.as_tensor(image)).detach().cpu().double().numpy()
    if values.ndim not in (3, 4):
        raise LandmarkError(f"an image must be channel-first, (C, W, H) or (C, X, Y, Z), got {values.shape}.")
    if not np.isfinite(values).all():
        raise LandmarkError("the image has NaN or infinite intensities: replace them, for example by torch.nan_to_num.")
    grey: np.ndarray = values.mean(axis=0)
    return (grey - grey.min()) / max(float(np.ptp(grey)), 1e-12)


def _sift_points(grey: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    sift_class, _ = optional_import("skimage.feature", name="SIFT")
    sift = sift_class(c_dog=threshold)
    try:
        sift.detect(grey)
    except (RuntimeError, IndexError):  # nothing found; nothing is left of a tiny image at SIFT's first scale
        return np.zeros((0, 2)), np.zeros(0)
    # A point with several orientations is listed several times. scikit-image finds them in the doubled image and forgets
    # that the centre of its first pixel lies at -1/4 of the original.
    points, first = np.unique(sift.positions - 0.25, axis=0, return_index=True)
    scale = np.round(np.log(sift.sigmas[first] / FINEST_SIGMA) / np.log(SCALE_STEP)).astype(int).clip(min=0)
    stack = _differences(grey, int(scale.max()) + 1)
    cells = np.round(points).astype(int).clip(0, np.array(grey.shape) - 1)
    return points, np.abs(stack[(scale, *cells.T)])


def _extreme_points(grey: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    maximum_filter, _ = optional_import("scipy.ndimage", name="maximum_filter")
    stack = np.abs(_differences(grey, NUM_SCALES_3D, first=3))
    peaks = (stack == maximum_filter(stack, size=3)) & (stack > threshold)
    peaks[[0, -1]] = False  # an extremum has a neighbour on both sides, in scale too
    return np.argwhere(peaks)[:, 1:].astype(float), stack[peaks]


def _differences(grey: np.ndarray, count: int, first: int = 0) -> np.ndarray:
    """Differences of Gaussians ``(count, *S)``, from sigma ``FINEST_SIGMA * SCALE_STEP**first`` upwards."""
    gaussian_filter, _ = optional_import("scipy.ndimage", name="gaussian_filter")
    sigmas = FINEST_SIGMA * SCALE_STEP ** np.arange(first, first + count + 1)
    return np.diff(np.stack([gaussian_filter(grey, sigma, truncate=3) for sigma in sigmas]), axis=0)


def _thinned(points: np.ndarray, count: int, min_distance: float) -> np.ndarray:
    """Keep each point that is far enough from all kept before it."""
    kept = points[:0]
    while len(points) and len(kept) < count:
        kept = np.concatenate([kept, points[:1]])
        points = points[1:][((points[1:] - points[0]) ** 2).sum(axis=1) >= min_distance**2]
    return kept


# --- ranking ------------------------------------------------------------------------------------------------------------


def suggest_template(
    matcher: PatchMatchingNet,
    images: Sequence[Any],
    cases: Sequence[str] | None = None,
    keypoints_per_image: int = 48,
    min_distance: float = 10.0,
    border: float = 0.1,
    contrast_threshold: float = 0.04,
    max_pairs: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    image_key: str = "image",
    case_key: str = "case",
) -> list[TemplateCandidate]:
    r"""Rank unlabelled images by how well their keypoints are found in all others; the first is worth annotating.

    .. math:: \mathrm{score}(T) = \operatorname*{mean}_{X \ne T, \; p \in T}
        \max_x \prod_{i=1}^{5} \mathrm{up}\left(\mathrm{clip}_{[0, 1]}(S^i_{T, p \to X})\right)(x)

    with the similarity S of the image X to the point p of T at the five levels of a trained matcher: what
    :class:`~monai_landmarks.networks.nets.TemplateMatchingNet` would score a landmark there. This is how CC2D's template is
    chosen: keypoints stand for landmarks that nobody has set yet.

    Different from the released script: it takes the largest of six numbers, the five levels' own maxima and that of the
    product, which is never the product; the published criterion, taken here, is the product. It is looked at in the cells
    of the finest level, every second voxel, to which the coarser ones are enlarged linearly.

    Every image is embedded once; its unit-length embeddings stay in half precision on the CPU, 3.3 MB for a film of
    256 x 304. In each image the points of all others are looked for at once. The result depends on the images and their
    names, not on their order.

    Args:
        matcher: trained; it is used in evaluation mode.
        images: ``(C, *S)`` of any sizes, prepared as in the matcher's training, or dictionaries with image and case, such
            as the items of a MONAI ``Dataset``. Nothing else of them is looked at.
        cases: names of the images; by default from the dictionaries, else "0", "1", ...
        keypoints_per_image: at most; see :func:`find_keypoints`, also for the next three.
        min_distance: voxels between keypoints. The published ones are for 384 x 384.
        border: part of each side in which no keypoint is taken.
        contrast_threshold: of the keypoints.
        max_pairs: look for each image's keypoints in ``max_pairs // n`` others only, at least one, which follow it in a
            seeded order: as many for each image, and each image is looked at as often. None: in all others.
        seed: of that order.
        device: where to compute; the matcher is moved there. None: where the matcher is.
        image_key: of dictionaries.
        case_key: of dictionaries.

    Returns:
        one :class:`TemplateCandidate` for each image, the highest score first, equal ones by name. An image without
        keypoints has the score NaN, stands last and is warned of.

    Raises:
        LandmarkError: for fewer than two images, names that are not one for each image and distinct, images of other
            dimensions than the matcher's, or when no image has a keypoint.

    Example:
        >>> matcher = PatchMatchingNet(2, encoder="resnet18", width=0.125)
        >>> films = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> ranking = suggest_template(matcher, films, ["a", "b", "c"])
        >>> sorted(candidate.case for candidate in ranking)
        ['a', 'b', 'c']
    """
    names = _case_names(images, cases, case_key)
    if max_pairs is not None and max_pairs < 1:
        raise LandmarkError(f"`max_pairs` must be at least 1, or None for all pairs, got {max_pairs}.")
    others = len(names) - 1 if max_pairs is None else min(max(max_pairs // len(names), 1), len(names) - 1)
    # One order whatever the caller's: floating-point sums depend on it.
    order = seeded_order(names, seed)
    where = {name: index for index, name in enumerate(names)}
    device = next(matcher.parameters()).device if device is None else torch.device(device)
    options = (keypoints_per_image, min_distance, border, contrast_threshold)
    maps, anchors = [], []
    with eval_mode(matcher.to(device)):
        for name in order:
            image = _image_of(images[where[name]], name, image_key, matcher.spatial_dims)
            points = find_keypoints(image, *options)
            levels, own = _embed(matcher, image.to(device), points.to(device))
            maps.append(levels)
            anchors.append(own)
        counts = [own.shape[1] for own in anchors]
        _report_empty([name for name, count in zip(order, counts, strict=True) if not count], len(names))
        scores = _scores(maps, torch.cat(anchors, dim=1), counts, others, matcher.strides)
    found = [TemplateCandidate(*row) for row in zip(order, scores, counts, strict=True)]
    return sorted(found, key=lambda one: (one.keypoints == 0, -np.nan_to_num(one.score), one.case))


def _case_names(images: Sequence[Any], cases: Sequence[str] | None, case_key: str) -> list[str]:
    """Names of the images, read from a dataset's list where it has one: its items may be slow to load."""
    if cases is None:
        entries = getattr(images, "data", None) if not isinstance(images, torch.Tensor) else None
        entries = images if entries is None else entries
        named = isinstance(entries[0], Mapping) if len(entries) else False
        cases = [str(entries[i][case_key]) if named else str(i) for i in range(len(entries))]
    names = [str(case) for case in cases]
    if len(names) != len(images) or len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise LandmarkError(
            f"{len(images)} images need as many names, each another one; got {len(names)}"
            + (f", with {quoted(twice)} more than once." if twice else ".")
        )
    if len(names) < 2:
        raise LandmarkError(
            f"a template is chosen by how well its points are found in other images, and there {'is' if names else 'are'} "
            f"{len(names)}: give all unlabelled images of the training. With a single one there is nothing to choose."
        )
    return names


def _image_of(item: Any, name: str, image_key: str, spatial_dims: int) -> torch.Tensor:
    image = plain_tensor(torch.as_tensor(item[image_key] if isinstance(item, Mapping) else item))
    if image.ndim != spatial_dims + 1:
        raise LandmarkError(
            f"image {name!r} has shape {tuple(image.shape)}, the matcher needs channel-first images (C, *S) in "
            f"{spatial_dims}D: EnsureChannelFirstd adds the channel."
        )
    if not bool(image.isfinite().all()):
        raise LandmarkError(f"image {name!r} has NaN or infinite intensities: is its file damaged?")
    return image.float()


def _embed(
    matcher: PatchMatchingNet, image: torch.Tensor, points: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The image's cells as unit vectors, ``(*S_i, C)`` in half precision, and those of its points, ``(L, K, C)``."""
    levels = matcher.embed(image[None])
    own = levels if matcher.shared else matcher.embed_patch(image[None])
    anchors = [sample_cells(x, points[None], stride)[0] for x, stride in zip(own, matcher.strides, strict=True)]
    cells = [F.normalize(x[0].movedim(0, -1).float(), dim=-1).half().cpu() for x in levels]
    return cells, F.normalize(torch.stack(anchors).float(), dim=-1)


def _report_empty(empty: Sequence[str], count: int) -> None:
    if len(empty) == count:
        raise LandmarkError(
            f"none of the {count} images has a keypoint: lower `contrast_threshold` (the published 0.01 for hands and legs) "
            "or `border`, and look whether the images show anything."
        )
    if empty:
        warnings.warn(
            f"{len(empty)} of {count} images have no keypoint and are ranked last without a score: {quoted(empty)}. Are "
            "they blank? Otherwise lower `contrast_threshold` or `border`.",
            stacklevel=3,
        )


def _scores(
    maps: Sequence[list[torch.Tensor]],
    anchors: torch.Tensor,
    counts: Sequence[int],
    others: int,
    strides: Sequence[int],
) -> list[float]:
    """Mean, over the ``others`` images that follow it in the ring, of the highest products of an image's anchors."""
    owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    totals = torch.zeros(len(owner), dtype=torch.float64)
    for position, levels in enumerate(maps):
        behind = (position - owner) % len(counts)
        sought = (behind > 0) & (behind <= others)
        mine = anchors[:, sought.to(anchors.device)]
        totals[sought] += _highest_products([x.to(mine) for x in levels], mine, strides).cpu().double()
    sums = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, owner, totals)
    return (sums / (torch.tensor(counts) * others)).tolist()


def _highest_products(levels: Sequence[torch.Tensor], anchors: torch.Tensor, strides: Sequence[int]) -> torch.Tensor:
    """The maximum over one image of the product of the clipped levels, for each of the anchors ``(L, A, C)``: ``(A,)``."""
    mode = LINEAR_MODES[levels[0].ndim - 1]
    shape = levels[-1].shape[:-1]
    highest = [anchors.new_empty(0)]
    for part in anchors.split(max(MAP_ELEMENTS // shape.numel(), 1), dim=1):
        product = part
        for cells, anchor, stride in zip(levels, part, strides, strict=True):
            # The anchors stay the last axis in memory, along which linear enlargement is several times faster.
            x = (cells @ anchor.T).clamp_(0, 1)[None].movedim(-1, 1)
            if stride > strides[-1]:
                x = F.interpolate(x, scale_factor=stride / strides[-1], mode=mode, align_corners=False)
            x = x[(..., *map(slice, shape))]
            product = x if stride == strides[0] else product.mul_(x)
        highest.append(product.flatten(2).amax(dim=-1)[0])
    return torch.cat(highest)


# --- as a stage of a workflow -------------------------------------------------------------------------------------------


def choose_template(
    path: str | os.PathLike[str],
    matcher: PatchMatchingNet,
    images: Sequence[Any],
    cases: Sequence[str] | None = None,
    **options: Any,
) -> list[TemplateCandidate]:
    """Rank unlabelled images once and keep the ranking in a file: as :func:`suggest_template`, or read from there.

    Where the file is already there and ranks the same cases, neither images nor matcher are touched, so that the choice
    stays the same after further training: somebody may have annotated the image meanwhile.

    Args:
        path: a JSON file: ``{"ranking": [{"case", "score", "keypoints"}, ...]}``, the best first; the score of an image
            without keypoints is null.
        matcher, images, cases, options: see :func:`suggest_template`.

    Returns:
        the ranking.

    Raises:
        LandmarkError: as :func:`suggest_template`; if the file is no ranking, or one of other cases.
    """
    if Path(path).exists():
        ranking = _read_ranking(Path(path))
        names = _case_names(images, cases, options.get("case_key", "case"))
        changed = sorted({one.case for one in ranking} ^ set(names))
        if changed:
            raise LandmarkError(
                f"{str(path)!r} ranks {len(ranking)} images and {len(names)} are given; only one of both has "
                f"{quoted(changed)}. Delete the file to choose anew, or give the images it was made for."
            )
        return ranking
    ranking = suggest_template(matcher, images, cases, **options)
    rows = [{**one._asdict(), "score": one.score if one.keypoints else None} for one in ranking]
    write_text(path, json.dumps({"ranking": rows}, indent=1, allow_nan=False) + "\n")
    return ranking


def _read_ranking(path: Path) -> list[TemplateCandidate]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["ranking"]
        return [
            TemplateCandidate(
                str(row["case"]), float("nan" if row["score"] is None else row["score"]), row["keypoints"]
            )
            for row in rows
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise LandmarkError(
            f"{str(path)!r} is no ranking of templates ({error!r}): delete the file to choose anew, or give another path."
        ) from error
