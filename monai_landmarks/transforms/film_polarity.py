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
"""Finding films that come inverted (bones black on white) by a pattern of the training films, and turning them back."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor, get_track_meta
from monai.transforms import MapTransform, Transform
from monai.utils import ImageMetaKey, TransformBackends, convert_to_tensor, look_up_option

from ..geometry import LandmarkError, plain_tensor
from .intensity import like_image

__all__ = [
    "MatchPolarity",
    "MatchPolarityD",
    "MatchPolarityDict",
    "MatchPolarityd",
    "film_pattern",
    "invert_film",
    "polarity_score",
]

_ON_UNSURE = ("keep", "raise")


def film_pattern(films: Iterable[NdarrayOrTensor], grid: Sequence[int] = (8, 8)) -> list[Any]:
    """Sum up how films of one kind look, coarsely: the mean of their block means, as numbers that fit into a JSON file.

    Of each film the mean grey of every block of ``grid`` is taken, less the film's own mean and divided by its own
    deviation, so that exposure and bit depth drop out; of all films these are averaged, and scaled to deviation 1 again.

    Args:
        films: images ``(C, *S)`` of any sizes, of the wanted polarity, all the same way up. A generator will do.
        grid: blocks along each axis of the image: (x, y) for films of :class:`LoadFilm`.

    Returns:
        nested lists of the shape of ``grid``, rounded to two decimals: the ``reference`` of :class:`MatchPolarity`.

    Raises:
        LandmarkError: without a film, or with one that has no contrast or is not finite.

    Example:
        >>> dark, light = torch.zeros(1, 6, 4), torch.full((1, 4, 6), 7.0)
        >>> dark[:, :3], light[:, 2:] = 100.0, 5.0
        >>> film_pattern([dark, light], grid=(2, 2))
        [[1.0, 1.0], [-1.0, -1.0]]
    """
    total, number = torch.zeros(tuple(grid), dtype=torch.float64), 0
    for number, film in enumerate(films, start=1):
        pattern = _pattern(film, grid)
        if not pattern.any():
            raise LandmarkError(f"film {number} of them has no contrast (all blocks have one grey), so no pattern.")
        total += pattern
    if not total.any():
        raise LandmarkError(
            f"a pattern is the mean of films of one kind, got {number} film(s)"
            + (" that cancel each other: are half of them inverted?" if number else ": give some of the training part.")
        )
    return (total / total.square().mean().sqrt() * 100).round().div(100).tolist()


def polarity_score(image: NdarrayOrTensor, reference: NdarrayOrTensor | Sequence[Any]) -> float:
    """Tell how well the coarse pattern of a film fits a reference: 1 as it is, -1 inverted, near 0 unknown.

    The correlation (Pearson's) of the film's block means and the reference's, or that of the film mirrored along its
    first axis where its absolute value is larger: a head that looks the other way has its polarity too. Inverting the
    film turns the sign of the score and leaves its size; brightness and contrast change nothing.

    Args:
        image: ``(C, *S)``; channels are averaged.
        reference: numbers of :func:`film_pattern`, one axis for each of ``*S``.

    Returns:
        a number in [-1, 1]; 0 for an image without contrast.

    Raises:
        LandmarkError: for an image with NaN or infinite values, or with other axes than the reference's.

    Example:
        >>> film = torch.arange(12.0).reshape(1, 3, 4) ** 2
        >>> reference = film_pattern([film], grid=(3, 2))
        >>> [round(polarity_score(image, reference), 3) for image in (film, 200 - 2 * film, film.flip(1))]
        [1.0, -1.0, 1.0]
    """
    wanted = _as_reference(reference)
    found = _pattern(image, wanted.shape)
    scores = [float((pattern * wanted).mean().clamp(-1, 1)) for pattern in (found, found.flip(0))]
    return max(scores, key=abs)


def invert_film(image: torch.Tensor) -> torch.Tensor:
    """Exchange black and white within the film's own range of values: ``v -> lowest + highest - v``.

    Exact for integers of up to 32 bits, and doing it twice gives the film back.

    Args:
        image: any shape.

    Returns:
        the same shape and type, with the meta data of ``image``.

    Example:
        >>> invert_film(torch.tensor([[10, 60, 255]], dtype=torch.uint8))
        tensor([[255, 205,  10]], dtype=torch.uint8)
    """
    # float64 holds the sum of two integers, which their own type may not.
    values = plain_tensor(image).double()
    return like_image(values.amin() + values.amax() - values, image)


def _pattern(image: NdarrayOrTensor, grid: Sequence[int]) -> torch.Tensor:
    """Return the block means of an image with mean 0 and deviation 1, or zeros where all are equal."""
    plain = plain_tensor(convert_to_tensor(image))
    if plain.ndim != len(grid) + 1 or plain.numel() == 0:
        raise LandmarkError(
            f"the pattern has {len(grid)} axes, so an image must be channel first (C, {', '.join('WHD'[: len(grid)])}), "
            f"got shape {tuple(plain.shape)}: was the channel axis added (LoadFilmd and EnsureChannelFirstd do)?"
        )
    means = plain.double().mean(0)[None, None]
    blocks = torch.nn.functional.interpolate(means, size=tuple(grid), mode="area")[0, 0].cpu()
    if not blocks.isfinite().all():
        bad = int(plain.numel() - plain.isfinite().sum())
        raise LandmarkError(
            f"{bad} of {plain.numel()} values of the image are NaN or infinite, so it has no pattern: replace them "
            "before, for example by torch.nan_to_num in a Lambdad, and look where they come from."
        )
    centred = blocks - blocks.mean()
    deviation = centred.square().mean().sqrt()
    # What rounding leaves of a constant image is no contrast.
    return centred / deviation if deviation > 1e-9 * blocks.abs().max() else torch.zeros_like(centred)


def _as_reference(reference: NdarrayOrTensor | Sequence[Any]) -> torch.Tensor:
    try:
        numbers = torch.as_tensor(reference, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError) as error:
        raise LandmarkError(f"`reference` must be nested lists of numbers from film_pattern: {error}.") from error
    if numbers.ndim not in (2, 3) or not numbers.isfinite().all() or numbers.numel() < 2 or not numbers.std() > 0:
        raise LandmarkError(
            "`reference` must be the finite numbers of film_pattern, not all equal, one axis for each axis of the image "
            f"(a film's: 8 lists of 8), got shape {tuple(numbers.shape)}."
        )
    centred = numbers - numbers.mean()
    return centred / centred.square().mean().sqrt()


class MatchPolarity(Transform):
    """Turn a film that comes inverted (bones black on white) to the polarity of the training films.

    The film's coarse pattern is correlated with that of the training films (:func:`polarity_score`); below ``-margin``
    the film is inverted within its own range of values (:func:`invert_film`), above ``margin`` it is left alone. Between
    the two the evidence is too weak, and no film is inverted on that: ``on_unsure`` says what happens. Affine and points
    stay as they are. What a file declares itself, like a TIFF whose zeros are white, the readers have obeyed by then;
    this looks at the picture, and so undoes nothing of it.

    Half of the films gave the reference, the other half was judged, as it is and inverted (the score of an inverted
    film is minus that of the film), over five random halves and their exchange (spine by patient). Decisions that are
    wrong without a margin, and the same with the default margin with those that are unsure:

    ========================  =============  ============  =============
    films                     without        with margin   unsure
    ========================  =============  ============  =============
    300 cephalograms (ISBI)   0 of 1500      0             0
    10 hands                  0 of 50        0             0
    481 spines (AASCE)        10 of 2405     0             54 (2.2 %)
    ========================  =============  ============  =============

    Rules without a reference do not hold: the border darker than the middle is wrong on 148 of the 300 cephalograms and
    19 of the 481 spines, the sign of the skewness on 119 and 264, a mean grey below one half on 102 and 160. Neither
    does a reference histogram (47 of 150, 85 of 241 of the judged half): films of bodies that fill the picture have
    histograms that look the same inverted.

    The pattern knows one kind of film and which side is up, and cannot tell when it is given another: upright references
    invert 1184 of 1500 cephalograms that lie upside down, and the cephalograms' reference 260 of the 481 spines. An
    inverted film inside a wide black frame is mostly unsure: crop the frame off first.

    Args:
        reference: numbers of :func:`film_pattern` over films of the training part, one kind of film and one way up.
        margin: least absolute score to act on, in [0, 1).
        on_unsure: ``"keep"`` leaves the film as it is with a warning that names it, ``"raise"`` is an error.

    Shapes: ``(C, *S)`` -> the same, same type.

    A MetaTensor's ``meta`` gets ``inverted``, whether the values are turned against those the transform was first given,
    and ``polarity_score``, of the film as it came in.

    Raises:
        LandmarkError: for a reference or margin that is none, an image with NaN or other axes, or, with
            ``on_unsure="raise"``, a film whose polarity is unsure.
        ValueError: for another ``on_unsure``.

    Example:
        >>> film = torch.arange(12.0).reshape(1, 3, 4)
        >>> match = MatchPolarity(film_pattern([film], grid=(3, 2)))
        >>> turned = match(11 - film)
        >>> bool((turned == film).all()), turned.meta["inverted"]
        (True, True)
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self, reference: NdarrayOrTensor | Sequence[Any], margin: float = 0.4, on_unsure: str = "keep"
    ) -> None:
        if not 0 <= margin < 1:
            raise LandmarkError(f"`margin` is a correlation in [0, 1), got {margin}: at 1 no film would be sure.")
        self.reference = _as_reference(reference)
        self.margin = float(margin)
        self.on_unsure = look_up_option(on_unsure, _ON_UNSURE)

    def __call__(self, img: NdarrayOrTensor) -> torch.Tensor:
        """Turn one film where it is inverted.

        Args:
            img: ``(C, *S)``.
        """
        image = convert_to_tensor(img, track_meta=get_track_meta())
        score = polarity_score(image, self.reference)
        if abs(score) <= self.margin:
            self._unsure(image, score)
        inverted = score < -self.margin
        result = invert_film(image) if inverted else like_image(plain_tensor(image), image)
        if isinstance(result, MetaTensor):
            result.meta["inverted"] = inverted != bool(result.meta.get("inverted", False))
            result.meta["polarity_score"] = score
        return result

    def _unsure(self, image: torch.Tensor, score: float) -> None:
        name = image.meta.get(ImageMetaKey.FILENAME_OR_OBJ) if isinstance(image, MetaTensor) else None
        text = (
            f"whether {'the film' if name is None else repr(str(name))} is inverted is unsure: its pattern correlates by "
            f"{score:.2f} with the reference, and more than {self.margin:g} is wanted. Is it another kind of film, or "
            "turned on its side or upside down?"
        )
        if self.on_unsure == "raise":
            raise LandmarkError(f"{text} Look at it, and invert it or take it out; on_unsure='keep' takes it as it is.")
        warnings.warn(f"{text} It is kept as it is.", stacklevel=3)


class MatchPolarityd(MapTransform):
    """Turn the films under ``keys`` that come inverted to the polarity of the training films.

    Dictionary version of :class:`MatchPolarity`.

    Args:
        keys: images.
        reference: numbers of :func:`film_pattern`.
        margin: least absolute score to act on.
        on_unsure: ``"keep"`` with a warning, or ``"raise"``.
        allow_missing_keys: whether an item may lack one of ``keys``.
    """

    backend = MatchPolarity.backend

    def __init__(
        self,
        keys: KeysCollection,
        reference: NdarrayOrTensor | Sequence[Any],
        margin: float = 0.4,
        on_unsure: str = "keep",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.match = MatchPolarity(reference, margin, on_unsure)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.match(d[key])
        return d


MatchPolarityD = MatchPolarityDict = MatchPolarityd
