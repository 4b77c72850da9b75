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
"""Loading volumes with checks that refuse, with its reason, what would quietly spoil every millimetre after it."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import DtypeLike, KeysCollection
from monai.data import MetaTensor
from monai.transforms import LoadImage, MapTransform, Transform
from monai.utils import MetaKeys, TransformBackends

from ..data.files import require_file
from ..geometry import LandmarkError
from .volume_header import check_file_name, check_grid, check_nifti_header, why_unreadable

__all__ = ["LoadVolume", "LoadVolumeD", "LoadVolumeDict", "LoadVolumed"]


class LoadVolume(Transform):
    """Load a volume as ``LoadImage(ensure_channel_first=True)`` does, and refuse one that cannot be right.

    The result of a good file is the same, voxel by voxel and with the same affine. Refused, with the likely cause and the
    repair: a file that is missing or cut off; several channels or time points; fewer than ``min_size`` voxels along an axis;
    NaN or infinite voxels; one value throughout; an affine that is singular, not finite or sheared; voxel sizes that are
    implausible or contradict the file's name. NIfTI headers can contradict themselves, and MONAI then chooses or corrects
    without a word; here it is an error if voxel sizes and direction matrix disagree, if the two direction matrices (qform
    and sform) do, or if there is none, so that left and right are a guess.

    Args:
        min_size: fewest voxels along an axis. 1 lets single slices pass.
        require_orientation: refuse a NIfTI file without direction matrix; False takes nibabel's guess (x runs to the left).
        form_tolerance: how far apart qform and sform may put a corner of the volume, in voxels; ``inf`` trusts the sform.
            Not looked at where the sform is sheared, which a qform cannot be.
        allow_shear: take axes that are not at right angles, as of a CT with tilted gantry.
        spacing_range: smallest and largest plausible voxel size in millimetres.
        check_name: compare the voxel size with what the file's name says: ``ct_2mm``, ``iso1.5mm``, ``0.5x0.5x2``.
        fill_nonfinite: number to put in the place of NaN and infinite voxels; None refuses them.
        dtype: of the result.
        load_options: further options of MONAI's ``LoadImage``, such as ``reader``.

    Raises:
        ValueError: for an option out of its range.

    Example:
        >>> import tempfile
        >>> import nibabel as nib
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name) / "ct_2mm.nii.gz"
        >>> nib.save(nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([2.0, 2, 2, 1])), path)
        >>> LoadVolume()(path).shape
        torch.Size([1, 3, 4, 5])
        >>> folder.cleanup()
    """

    backend = [TransformBackends.NUMPY, TransformBackends.TORCH]

    def __init__(
        self,
        min_size: int = 2,
        require_orientation: bool = True,
        form_tolerance: float = 0.5,
        allow_shear: bool = False,
        spacing_range: Sequence[float] = (0.005, 20.0),
        check_name: bool = True,
        fill_nonfinite: float | None = None,
        dtype: DtypeLike = np.float32,
        **load_options: Any,
    ) -> None:
        low, high = spacing_range
        if min_size < 1 or not form_tolerance >= 0 or not 0 < low < high:
            raise ValueError(
                "min_size must be 1 or more, form_tolerance not negative and spacing_range two rising positive numbers, got "
                f"{min_size}, {form_tolerance} and {tuple(spacing_range)}."
            )
        if fill_nonfinite is not None and not np.isfinite(fill_nonfinite):
            raise ValueError(f"fill_nonfinite must be a finite number or None, got {fill_nonfinite}.")
        self.min_size = min_size
        self.require_orientation = require_orientation
        self.form_tolerance = form_tolerance
        self.allow_shear = allow_shear
        self.spacing_range = (float(low), float(high))
        self.check_name = check_name
        self.fill_nonfinite = fill_nonfinite
        self.loader = LoadImage(image_only=True, ensure_channel_first=True, dtype=dtype, **load_options)

    def __call__(self, path: str | os.PathLike[str]) -> torch.Tensor:
        """Load one volume.

        Args:
            path: a file, or the folder of a DICOM series.

        Returns:
            MetaTensor ``(1, *S)``.

        Raises:
            FileNotFoundError: there is no such file.
            LandmarkError: the file is damaged or contradicts itself (see the class).
        """
        if not isinstance(path, (str, os.PathLike)):
            raise LandmarkError(f"a volume is loaded from one path, got {type(path).__name__}: is it loaded already?")
        file = Path(path).expanduser()
        if not file.is_dir():
            require_file(file, "volume")
            check_nifti_header(file, self.require_orientation, self.form_tolerance, self.allow_shear)
        image = self._load(file)
        _check_shape(image, self.min_size, file)
        if isinstance(image, MetaTensor):
            spacing = check_grid(
                image.meta.get(MetaKeys.ORIGINAL_AFFINE, image.affine), self.allow_shear, self.spacing_range, file
            )
            if self.check_name:
                check_file_name(file, spacing)
        return self._checked_voxels(image, file)

    def _load(self, file: Path) -> torch.Tensor:
        try:
            image: torch.Tensor = self.loader(file)
        except Exception as error:  # every reader has errors of its own
            raise LandmarkError(f"cannot read the volume {str(file)!r}: {why_unreadable(file, error)}") from error
        return image

    def _checked_voxels(self, image: torch.Tensor, file: Path) -> torch.Tensor:
        low, high = _range(image)
        if not np.isfinite([low, high]).all():
            value = self.fill_nonfinite
            if value is None:
                raise LandmarkError(f"the volume {str(file)!r} {_describe_nonfinite(image)}")
            image = torch.nan_to_num(image, nan=value, posinf=value, neginf=value)
            low, high = _range(image)
        if low == high:
            raise LandmarkError(
                f"every voxel of {str(file)!r} is {low:g}: the volume is empty. Was it written before it was filled, or "
                "masked with a mask of another frame?"
            )
        return image


def _range(image: torch.Tensor) -> tuple[float, float]:
    """Smallest and largest voxel: two numbers instead of a mask of 10^9 voxels. NaN and infinity come through both."""
    low, high = torch.aminmax(image.as_tensor() if isinstance(image, MetaTensor) else image)
    return low.item(), high.item()


def _check_shape(image: torch.Tensor, min_size: int, file: Path) -> None:
    shape = tuple(image.shape)
    if len(shape) != 4:
        raise LandmarkError(
            f"{str(file)!r} has {len(shape) - 1} axes with sizes {shape[1:]}; a volume has 3. Films are loaded with "
            "LoadFilmd."
        )
    if shape[0] != 1:
        raise LandmarkError(
            f"{str(file)!r} is 4D: {shape[0]} channels or time points of {shape[1:]} voxels, and one is needed. Choose one "
            "and save it as a file of its own; a colour image is no scan."
        )
    if min(shape[1:]) < min_size:
        raise LandmarkError(
            f"{str(file)!r} has {shape[1:]} voxels, fewer than {min_size} along an axis: a single slice (a scout view, or a "
            f"series cut apart), not a volume. If it is meant, give min_size={min(shape[1:])}."
        )


def _describe_nonfinite(image: torch.Tensor) -> str:
    voxels = torch.as_tensor(image)[0]
    bad = ~torch.isfinite(voxels)
    index = torch.nonzero(bad)
    nan = int(torch.isnan(voxels).sum())
    box = ", ".join(f"{int(a)} to {int(b)}" for a, b in zip(index.amin(0), index.amax(0), strict=True))
    return (
        f"has {len(index)} voxels that are no numbers ({nan} NaN, {len(index) - nan} infinite; "
        f"{100 * len(index) / voxels.numel():.3g} % of all), the first at {tuple(index[0].tolist())}, all within the "
        f"indices {box}. Resampling often leaves NaN outside the scan; repair the file, or give fill_nonfinite=-1024 (air "
        "in a CT)."
    )


class LoadVolumed(MapTransform):
    """Load the volumes under ``keys``, refusing those that cannot be right.

    Dictionary version of :class:`LoadVolume`.

    Args:
        keys: paths of volumes.
        min_size: fewest voxels along an axis.
        require_orientation: refuse a NIfTI file without direction matrix.
        form_tolerance: how far apart qform and sform may put a corner of the volume, in voxels.
        allow_shear: take axes that are not at right angles.
        spacing_range: smallest and largest plausible voxel size in millimetres.
        check_name: compare the voxel size with what the file's name says.
        fill_nonfinite: number to put in the place of NaN and infinite voxels; None refuses them.
        dtype: of the result.
        allow_missing_keys: whether an item may lack one of ``keys``.
        load_options: further options of MONAI's ``LoadImage``.
    """

    backend = LoadVolume.backend

    def __init__(
        self,
        keys: KeysCollection,
        min_size: int = 2,
        require_orientation: bool = True,
        form_tolerance: float = 0.5,
        allow_shear: bool = False,
        spacing_range: Sequence[float] = (0.005, 20.0),
        check_name: bool = True,
        fill_nonfinite: float | None = None,
        dtype: DtypeLike = np.float32,
        allow_missing_keys: bool = False,
        **load_options: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        options = (
            min_size,
            require_orientation,
            form_tolerance,
            allow_shear,
            spacing_range,
            check_name,
            fill_nonfinite,
        )
        self.loader = LoadVolume(*options, dtype, **load_options)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.loader(d[key])
        return d


LoadVolumeD = LoadVolumeDict = LoadVolumed
