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
"""Saving the landmarks of each image into a file of its own."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection, PathLike
from monai.transforms import MapTransform, Transform
from monai.utils import ImageMetaKey, MetaKeys, TransformBackends, ensure_tuple_rep, look_up_option

from ..data import Landmarks, write_landmarks
from ..data.formats import find_format
from ..geometry import LandmarkError, check_not_deformed
from .field_of_view import state_in_file, status_words
from .io import file_affine, file_shape
from .spatial import as_points, look_up_reference, repeat_keys

__all__ = [
    "SaveLandmarks",
    "SaveLandmarksD",
    "SaveLandmarksDict",
    "SaveLandmarksd",
    "case_of",
]

_STATUSES = ("defined", "preview")
# fmt: off
_IMAGE_ENDINGS = (
    ".gz", ".bz2", ".nii", ".img", ".hdr", ".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".dcm",
    ".npy", ".npz", ".pt", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff",
)
# fmt: on


class SaveLandmarks(Transform):
    """Write the landmarks of one image into ``<output_dir>/<case><suffix><format>``.

    A file appears complete or not at all. Nothing is overwritten by accident: two images whose names give the same file
    are an error, and so is a file that was there before, unless ``overwrite`` allows it. An image that comes again (the
    next epoch) replaces its own file.

    Formats whose numbers are voxels (VerSe and LabelMe files, ``.lml``) are written in the frame of the image's file: give
    the image with the points. It may have been turned, resampled and cropped since, it knows the affine it was loaded with.

    Args:
        output_dir: folder, made when the first file is written.
        names: of the landmarks, in the order of the points.
        suffix: put behind the case's name, such as ``"_pred"``.
        format: the ending of the files, which decides their format: ``".mrk.json"`` (3D Slicer), ``".fcsv"``,
            ``".csv"``, ``".npy"``, ...
        file_format: name of the format where the ending leaves it open (``".json"``: ``"verse"``); None goes by the ending.
        space: coordinate system in the file; None is the format's usual one.
        status: of the landmarks in the image: ``"defined"``, or ``"preview"`` for predictions that wait for review. Those
            that are known to lie outside have the status ``"outside"`` in either case.
        overwrite: whether a file that another run left may be replaced.
        write_options: further options of :func:`monai_landmarks.data.write_landmarks`; ``affine`` or ``pixel_size`` go
            before the image's file.

    Raises:
        ValueError: for an unknown option.
        LandmarkError: where the ending and ``file_format`` say no format.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> save = SaveLandmarks(folder.name, names=["sella", "nasion"], suffix="_pred")
        >>> save([[82.9, 99.1], [float("nan"), float("nan")]], case="001").name
        '001_pred.mrk.json'
        >>> folder.cleanup()
    """

    backend = [TransformBackends.NUMPY]

    def __init__(
        self,
        output_dir: PathLike,
        names: Sequence[str],
        suffix: str = "",
        format: str = ".mrk.json",  # noqa: A002 - the name users look for
        file_format: str | None = None,
        space: str | None = None,
        status: str = "defined",
        overwrite: bool = False,
        **write_options: Any,
    ) -> None:
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"names must be a sequence of landmark names, got {names!r}.")
        if not format.startswith("."):
            raise ValueError(f"format must be an ending with its dot, as '.mrk.json', got {format!r}.")
        self.output_dir = Path(output_dir)
        self.names = tuple(names)
        self.suffix = suffix
        self.extension = format
        self.file_format = file_format
        self.space = space
        self.status = look_up_option(status, _STATUSES)
        self.overwrite = overwrite
        self.write_options = write_options
        self.in_voxels = _in_voxels(self.extension, file_format, space, write_options)
        self._written: dict[Path, str] = {}

    def __call__(  # type: ignore[override]
        self,
        points: Any,
        case: str,
        confidence: Any = None,
        source: str | None = None,
        state: Any = None,
        image: Any = None,
    ) -> Path:
        """Write one file.

        Args:
            points: ``(N, D)`` world millimetres, NaN for missing.
            case: name of the image; it becomes the name of the file.
            confidence: ``(N,)`` or None.
            source: what tells two images of one name apart, such as the path; None takes the name.
            state: ``(N,)`` of :class:`~monai_landmarks.geometry.field_of_view.FieldOfView`; None where nobody knows which
                landmarks lie outside the image.
            image: the channel-first MetaTensor the landmarks belong to, for formats whose numbers are voxels of its file.

        Returns:
            the path of the file.

        Raises:
            FileExistsError: another run left this file and ``overwrite`` is off.
            LandmarkError: another image of this run has this file, or points, names, confidence and state do not fit.
        """
        path = self.output_dir / f"{checked_case(case)}{self.suffix}{self.extension}"
        source = case if source is None else source
        known = self._written.get(path)
        if known is not None and known != source:
            raise LandmarkError(
                f"two images would be saved as {path.name!r}: {known!r} and {source!r}. Give each case a name "
                "of its own with case_key."
            )
        if known is None and path.exists() and not self.overwrite:
            raise FileExistsError(
                f"{str(path)!r} exists from before, perhaps with somebody's corrections: choose another output_dir or "
                "suffix, or give overwrite=True."
            )
        landmarks = self._landmarks(points, confidence, state)
        options = {**(_file_frame(image) if self.in_voxels else {}), **self.write_options}
        write_landmarks(landmarks, path, format=self.file_format, space=self.space, **options)
        self._written[path] = source
        return path

    def _landmarks(self, points: Any, confidence: Any, state: Any) -> Landmarks:
        plain = as_points(points).detach().cpu().to(torch.float64)
        scores = None if confidence is None else torch.as_tensor(confidence).detach().cpu().to(torch.float64).numpy()
        if plain.ndim == 2 and len(plain) != len(self.names):
            raise LandmarkError(
                f"{len(plain)} points for {len(self.names)} names: give the names of this model's points."
            )
        status = status_words(plain, state, self.status) if plain.ndim == 2 else None
        return Landmarks(plain.numpy(), self.names, status, scores)


def _in_voxels(extension: str, file_format: str | None, space: str | None, options: Mapping[str, Any]) -> bool:
    """Tell whether the numbers in the files are voxels, of a size that nobody has told yet."""
    item = find_format(Path(f"case{extension}"), file_format, writing=True)
    in_voxels = str(space or item.space).casefold() in ("voxel", "voxel_mm")
    return in_voxels and item.pixel_size is None and not {"affine", "pixel_size"} & set(options)


def _file_frame(image: Any) -> dict[str, Any]:
    """Return affine and size of the grid in the image's file, as ``write_landmarks`` takes them."""
    if image is None:
        raise LandmarkError(
            "files of this format hold voxels of the image's file: give image=, the image of these points."
        )
    check_not_deformed(image, "writing voxels of its file")
    if getattr(image, "applied_operations", None) and image.meta.get(MetaKeys.ORIGINAL_AFFINE) is None:
        raise LandmarkError(
            "the image was transformed and does not know the affine of its file: load it with LoadVolumed or LoadImaged, or "
            "give affine, that of the file."
        )
    affine = file_affine(image)
    if affine is None:
        raise LandmarkError(
            f"voxels of the image's file are asked for, and the image is a {type(image).__name__} without affine: load it "
            "with LoadVolumed or LoadImaged, and do not switch off MONAI's meta tracking."
        )
    return {"affine": affine, "spatial_shape": file_shape(image)}


def checked_case(case: Any) -> str:
    name = str(case)
    if not name.strip() or name != os.path.basename(name) or name in (".", "..") or "\\" in name:
        raise LandmarkError(f"the case name {name!r} cannot name a file: it must be a plain name without folders.")
    return name


def case_of(image: Any) -> tuple[str, str]:
    """Return the name of a loaded image's case, its file name without the ending, and the whole path.

    Args:
        image: a MetaTensor from one of MONAI's loaders.

    Raises:
        LandmarkError: the image does not know its file.

    Example:
        >>> from monai.data import MetaTensor
        >>> case_of(MetaTensor(torch.zeros(1, 2, 2), meta={"filename_or_obj": "/data/p7/ct.nii.gz"}))
        ('ct', '/data/p7/ct.nii.gz')
    """
    name = getattr(image, "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ)
    name = name[0] if isinstance(name, (list, tuple)) and len(name) == 1 else name
    if not isinstance(name, (str, os.PathLike)) or not str(name):
        raise LandmarkError(
            f"the image does not know its file name (it says {name!r}): give case_key, the key of a name per case."
        )
    path = Path(name)
    stem = path.name
    # Only endings of image files: the folder of a DICOM series may be called 1.2.840.113.
    for ending in _IMAGE_ENDINGS:
        stem = stem[: -len(ending)] if stem.lower().endswith(ending) and len(stem) > len(ending) else stem
    return stem, str(path)


class SaveLandmarksd(MapTransform):
    """Write the landmarks under ``keys`` into one file per image; the item passes through unchanged.

    Dictionary version of :class:`SaveLandmarks`. Put it last in the post-processing, after
    :class:`LandmarksImageToWorldd`; it works on decollated items, in the main process.

    A landmark outside the image keeps its coordinates and has the status ``"outside"``, in formats that can say so.
    Without ``state_keys`` the image under ``refer_keys`` tells which these are; what counts is the image's file and not
    what preprocessing left of it. Formats whose numbers are voxels (VerSe and LabelMe files, ``.lml``) are written in the
    frame of that file too, so predictions go back to where the input was.

    Args:
        keys: points ``(N, D)`` in world millimetres.
        output_dir: folder of the files.
        names: of the landmarks.
        refer_keys: the image whose file name names the case: one key, or one per key.
        case_key: where an item has the name of its case, instead of the file name.
        confidence_keys: confidences ``(N,)``, written where the format can hold them: one key per key.
        suffix: one, or one per key; keys saved side by side need different ones.
        format: the ending of the files, see :class:`SaveLandmarks`.
        file_format: name of the format where the ending leaves it open.
        space: coordinate system in the file; None is the format's usual one.
        status: of the landmarks in the image.
        overwrite: whether a file that another run left may be replaced.
        allow_missing_keys: whether an item may lack one of ``keys``.
        state_keys: where the items have the landmarks' state, as :class:`LandmarkFieldOfViewd` writes it: one key per key.
        write_options: further options of ``write_landmarks``.

    Raises:
        ValueError: without ``refer_keys`` and ``case_key``, without ``refer_keys`` for a format in voxels, or for several
            keys with one suffix.

    Example:
        >>> import tempfile
        >>> from monai.data import MetaTensor
        >>> folder = tempfile.TemporaryDirectory()
        >>> save = SaveLandmarksd("pred", folder.name, ["L1"], refer_keys="image", format=".json", file_format="verse")
        >>> ct = MetaTensor(torch.zeros(1, 9, 9, 9), affine=torch.diag(torch.tensor([-2.0, -2.0, 2.0, 1.0])))
        >>> ct.meta["filename_or_obj"] = "ct.nii.gz"
        >>> _ = save({"image": ct, "pred": torch.tensor([[-4.0, -6.0, 8.0]])})
        >>> "".join((Path(folder.name) / "ct.json").read_text().split())
        '[{"direction":["L","P","S"]},{"label":20,"X":2.0,"Y":3.0,"Z":4.0}]'
        >>> folder.cleanup()
    """

    backend = SaveLandmarks.backend

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: PathLike,
        names: Sequence[str],
        refer_keys: KeysCollection | None = None,
        case_key: str | None = None,
        confidence_keys: KeysCollection | None = None,
        suffix: str | Sequence[str] = "",
        format: str = ".mrk.json",  # noqa: A002 - the name users look for
        file_format: str | None = None,
        space: str | None = None,
        status: str = "defined",
        overwrite: bool = False,
        allow_missing_keys: bool = False,
        state_keys: KeysCollection | None = None,
        **write_options: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if refer_keys is None and case_key is None:
            raise ValueError("give refer_keys (the image whose file names the case) or case_key (a name in the item).")
        self.refer_keys = repeat_keys(refer_keys, self.keys, "refer_keys")
        self.case_key = case_key
        self.confidence_keys = repeat_keys(confidence_keys, self.keys, "confidence_keys")
        self.state_keys = repeat_keys(state_keys, self.keys, "state_keys")
        suffixes = ensure_tuple_rep(suffix, len(self.keys))
        if len(set(suffixes)) != len(self.keys):
            raise ValueError(f"the keys {list(self.keys)} would be saved into the same files: give each a suffix.")
        self.savers = tuple(
            SaveLandmarks(output_dir, names, each, format, file_format, space, status, overwrite, **write_options)
            for each in suffixes
        )
        if refer_keys is None and self.savers[0].in_voxels:
            raise ValueError(
                f"files of the format {file_format or format!r} hold voxels of the image's file: give refer_keys, the image."
            )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        rest = (self.refer_keys, self.confidence_keys, self.state_keys, self.savers)
        for key, refer_key, confidence_key, state_key, saver in self.key_iterator(d, *rest):
            case, source = self._case(d, refer_key)
            confidence = None
            if confidence_key is not None:
                confidence = look_up_reference(d, confidence_key, "confidence_keys")
            if state_key is not None:
                state = look_up_reference(d, state_key, "state_keys")
            else:
                state = None if refer_key is None else state_in_file(d[key], d[refer_key])
            saver(d[key], case, confidence, source, state, None if refer_key is None else d[refer_key])
        return d

    def _case(self, data: Mapping[Hashable, Any], refer_key: Hashable | None) -> tuple[str, str]:
        image = None if refer_key is None else look_up_reference(data, refer_key, "refer_keys")
        if self.case_key is None:
            return case_of(image)
        case = str(look_up_reference(data, self.case_key, "case_key"))
        known_file = getattr(image, "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ)
        return case, case_of(image)[1] if known_file else case


SaveLandmarksD = SaveLandmarksDict = SaveLandmarksd
