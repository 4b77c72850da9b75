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
"""One resampling for the whole spatial augmentation, through which landmarks go exactly; dictionary forms beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable, Transform
from monai.utils import TransformBackends, look_up_option

from ...data.row_exchange import exchange_order
from ...geometry import LandmarkError, mark_deformed
from ..spatial import POINT_SPACES
from .apply import Frame, carry_points, frame_of, read_image
from .batched import BatchedSpatialAugmentation
from .parameters import compose_map, number_of_rotations, output_grid
from .ranges import DrawnMaps, Range, SpatialRanges

__all__ = ["FitToGrid", "RandSpatialLandmarks", "SpatialLandmarks"]

Size = Sequence[int] | int | None
Pixdim = Sequence[float] | float | str | None


class _SpatialTransform(Transform):
    """An image and points through one map; what the map is, the subclasses say."""

    backend = [TransformBackends.TORCH]
    mode: str
    padding_mode: str
    fill: float
    antialias: bool
    point_space: str
    exchange: torch.Tensor | None = None

    def draw(self, frame: Frame) -> DrawnMaps:
        """Return the map for an image on the grid ``frame``."""
        raise NotImplementedError

    @property
    def elastic(self) -> bool:
        """Whether the map can deform."""
        raise NotImplementedError

    def read(self, image: Any, frame: Frame, drawn: DrawnMaps, point_keys: Sequence[str], **how: Any) -> torch.Tensor:
        """Read one image through ``drawn`` and mark it where it was, or could have been, deformed."""
        settings = {"mode": self.mode, "padding_mode": self.padding_mode, "fill": self.fill, **how}
        result = read_image(image, frame, drawn.maps, drawn.pixdim, antialias=self.antialias, **settings)
        if self.elastic and hasattr(result, "meta"):
            mark_deformed(result, point_keys, deformed=bool(drawn.deformed[0]))
        return result

    def carry(self, points: Any, frame: Frame, drawn: DrawnMaps, name: str) -> torch.Tensor:
        """Carry one set of points through ``drawn``."""
        exchange = self.exchange if bool(drawn.mirrored[0]) else None
        return carry_points(points, frame, drawn.maps, self.point_space == "world", exchange, name)

    def __call__(self, image: Any, points: Any = None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Transform an image ``(C, *S)`` and its points ``(N, D)`` together.

        Returns:
            the image on the output grid, and the points; None where none were given.

        Raises:
            LandmarkError: if image and points do not fit each other or the transform.
        """
        frame = frame_of(image, self.point_space == "world" and points is not None)
        drawn = self.draw(frame)
        moved = None if points is None else self.carry(points, frame, drawn, "points")
        return self.read(image, frame, drawn, ["points"] if points is not None else []), moved


class SpatialLandmarks(_SpatialTransform):
    """Turn, scale, shear, flip, shift, deform and resample an image in one interpolation, and carry its points exactly.

    The deterministic form of :class:`RandSpatialLandmarks`, with values in place of ranges; see there for the map, its
    directions and what becomes of the affine.

    Args:
        spatial_size: sizes of the output grid; None, or -1 for one axis: what the image's extent needs.
        pixdim: voxel sizes of the output in mm; None: the image's; "fit": the whole image just fits.
        rotate: radians; one angle in 2D (axis 0 towards axis 1), three in 3D.
        scale: factor of all axes, or one per axis; 2 shows the anatomy twice as large.
        shear: ``u_i += k u_j`` for i < j: one in 2D, three in 3D.
        translate_mm: one per axis, or one for all.
        flip_axes: axes to mirror.
        displacement: ``(*nodes, D)`` movements of the cubic B-spline's control points, in voxels of the output grid.
        mode: "nearest", "linear" or "cubic".
        padding_mode: beyond the image: "zeros" shows ``fill``, "border", "reflection".
        fill: value beyond the image.
        antialias: smooth an image that is read on a coarser grid.
        point_space: "world": points in mm; "voxel": indices of the image.

    Raises:
        LandmarkError: for a scale that is not positive, a displacement that folds, or numbers that do not fit the image.

    Example:
        >>> image = torch.zeros(1, 8, 8)
        >>> SpatialLandmarks(scale=2.0, point_space="voxel")(image, torch.tensor([[4.5, 3.5]]))[1]
        tensor([[5.5000, 3.5000]])
    """

    def __init__(
        self,
        spatial_size: Size = None,
        pixdim: Pixdim = None,
        rotate: float | Sequence[float] = 0.0,
        scale: float | Sequence[float] = 1.0,
        shear: float | Sequence[float] = 0.0,
        translate_mm: float | Sequence[float] = 0.0,
        flip_axes: Sequence[int] = (),
        displacement: Any = None,
        mode: str = "linear",
        padding_mode: str = "zeros",
        fill: float = 0.0,
        antialias: bool = True,
        point_space: str = "world",
    ) -> None:
        self.spatial_size, self.pixdim, self.flip_axes = spatial_size, pixdim, tuple(flip_axes)
        self.rotate, self.scale, self.shear, self.translate_mm = rotate, scale, shear, translate_mm
        self.displacement = None if displacement is None else torch.as_tensor(displacement, dtype=torch.float64)[None]
        self.mode, self.padding_mode, self.fill, self.antialias = mode, padding_mode, float(fill), antialias
        self.point_space = look_up_option(point_space, POINT_SPACES)

    @property
    def elastic(self) -> bool:
        return self.displacement is not None

    def draw(self, frame: Frame) -> DrawnMaps:
        dims = len(frame.shape)
        shape, pixdim = output_grid(frame.shape, frame.voxel_sizes, self.spatial_size, self.pixdim)

        def numbers(value: float | Sequence[float], count: int, name: str) -> torch.Tensor:
            values = np.atleast_1d(np.asarray(value, dtype=np.float64))
            if len(values) not in (1, count) or not np.isfinite(values).all():
                raise LandmarkError(f"`{name}` must be one number or {count} for a {dims}D image, got {value!r}.")
            return torch.as_tensor(np.broadcast_to(values, (1, count)).copy())

        flip = torch.tensor([[axis in self.flip_axes or axis - dims in self.flip_axes for axis in range(dims)]])
        maps = compose_map(
            frame.shape,
            frame.voxel_sizes,
            shape,
            pixdim,
            numbers(self.rotate, number_of_rotations(dims), "rotate"),
            numbers(self.scale, dims, "scale"),
            numbers(self.shear, number_of_rotations(dims), "shear"),
            numbers(self.translate_mm, dims, "translate_mm"),
            flip,
            self.displacement,
        )
        if bool(maps.folds().any()):
            raise LandmarkError("`displacement` folds the image: points would be seen more than once. Make it smaller.")
        deformed = torch.tensor([self.displacement is not None])
        return DrawnMaps(maps, flip.sum(dim=1) % 2 == 1, pixdim, deformed)


class RandSpatialLandmarks(_SpatialTransform, Randomizable):
    r"""Augment an image by one random spatial map in one interpolation, and carry its landmarks through it exactly.

    An output voxel ``q`` shows the input voxel ``x(q)``; positions are in millimetres along the image's axes, from the
    centres ``c`` of the two grids, so that a turn of anisotropic voxels is a turn:

    .. math::
        x(q) = c_{in} + P_{in}^{-1} (R S K F)^{-1} \left(P_{out} (q + d(q) - c_{out}) - t\right)

    with reflections ``F``, shear ``K``, scales ``S`` (isotropic times per axis), rotation ``R``, translation ``t`` and a
    cubic B-spline displacement ``d`` of few control points on the output grid (Payer et al. 2019, section 3, and the order
    of their public code for cephalograms). Image content moves by ``R S K F`` and ``t``; every quantity is drawn uniformly.

    Landmarks go through the inverse of ``x``, solved by Newton's method on the spline itself to 1e-3 voxel at worst (1e-9
    as a rule); more is an error. A displacement that folds is drawn again. While the map is affine, the image's affine
    stays true and world points stay as they are. Under a displacement no affine is true: the image keeps the affine part,
    world points move so that it leads to their voxels, and the image is marked
    (:func:`monai_landmarks.geometry.mark_deformed`): turning its voxels into the patient's millimetres, or converting
    points that did not go along, is an error from there on.

    Different from MONAI: RandAffine turns in voxels, so that turned anisotropic voxels shear; its scale is that of the
    sampling grid (above 1 shrinks); Rand2DElastic and Rand3DElastic leave points and affine behind. Different from the
    SCN's public code: scales are drawn for the content, there for the sampling; the displacement's inverse is exact, there
    a search over voxels.

    Args:
        spatial_size: sizes of the output grid; None, or -1 for one axis: what the image's extent needs at ``pixdim``.
        pixdim: voxel sizes of the output in mm; None: the image's; "fit": the whole image just fits ``spatial_size``.
        prob: of augmenting; an image that is not is still brought to the output grid, centred.
        rotate_range: radians. As in MONAI, ``x`` stands for (-x, x); a sequence has one ``x`` or ``(low, high)`` for each
            rotation: one in 2D (axis 0 towards axis 1), three in 3D, about each axis.
        scale_range: added to 1, the factor of all axes together; up to 0.95.
        axis_scale_range: added to 1, a further factor of each axis.
        shear_range: one in 2D, three in 3D.
        translate_range: voxels of the output grid, per axis; or
        translate_range_mm: millimetres.
        flip_prob: probability of mirroring, for all axes or each; needs ``flip_pairs``.
        elastic_range: movement of the control points, voxels of the output grid, per axis; or
        elastic_range_mm: millimetres.
        elastic_nodes: control points along each axis, at least 4; one lies beyond each border.
        random_crop: draw the window's place where the image is larger than the grid, for all axes or each; without it,
            the window is centred.
        mode: "nearest", "linear" or "cubic".
        padding_mode: beyond the image: "zeros" shows ``fill``, "border", "reflection" (which shows anatomy twice).
        fill: value beyond the image for "zeros".
        antialias: smooth an image whose voxels are finer than the output grid's, before every reading; smooth it once
            before a cache instead and say False, if time matters. The random scale is not counted in.
        point_space: "world": points in mm, as :class:`LoadLandmarksd` gives them; "voxel": indices of the image.
        landmark_names: in order, if sides may be exchanged.
        flip_pairs: as for :class:`RandFlipLandmarks`: pairs of names that exchange when an odd number of axes is mirrored.

    Raises:
        LandmarkError: for ranges that cannot be meant, among them an elastic range that folds (with the largest safe one);
            at the call, if image and points do not fit.

    Example:
        >>> augment = RandSpatialLandmarks(rotate_range=0.2, elastic_range=1.0, point_space="voxel")
        >>> image, points = augment.set_random_state(0)(torch.rand(1, 32, 32), torch.tensor([[10.0, 20.0]]))
        >>> image.shape, points.shape
        (torch.Size([1, 32, 32]), torch.Size([1, 2]))
    """

    def __init__(
        self,
        spatial_size: Size = None,
        pixdim: Pixdim = None,
        prob: float = 1.0,
        rotate_range: Range = 0.0,
        scale_range: Range = 0.0,
        axis_scale_range: Range = 0.0,
        shear_range: Range = 0.0,
        translate_range: Range = 0.0,
        translate_range_mm: Range = 0.0,
        flip_prob: float | Sequence[float] = 0.0,
        elastic_range: Range = 0.0,
        elastic_range_mm: Range = 0.0,
        elastic_nodes: int | Sequence[int] = 5,
        random_crop: bool | Sequence[bool] = False,
        mode: str = "linear",
        padding_mode: str = "zeros",
        fill: float = 0.0,
        antialias: bool = True,
        point_space: str = "world",
        landmark_names: Sequence[str] | None = None,
        flip_pairs: Any = None,
    ) -> None:
        self.ranges = SpatialRanges(
            spatial_size,
            pixdim,
            prob,
            rotate_range,
            scale_range,
            axis_scale_range,
            shear_range,
            translate_range,
            translate_range_mm,
            flip_prob,
            elastic_range,
            elastic_range_mm,
            elastic_nodes,
            random_crop,
        )
        self.mode, self.padding_mode, self.fill, self.antialias = mode, padding_mode, float(fill), antialias
        self.point_space = look_up_option(point_space, POINT_SPACES)
        if np.any(flip_prob):
            self.exchange = exchange_order(landmark_names, flip_pairs)

    @property
    def elastic(self) -> bool:
        return self.ranges.elastic

    def randomize(self, data: Any = None) -> None:
        """Nothing is kept between calls: each draws its own map."""

    def draw(self, frame: Frame) -> DrawnMaps:
        return self.ranges.draw(self.R, 1, frame.shape, frame.voxel_sizes)

    def batched(self) -> BatchedSpatialAugmentation:
        """Return the form for batches on a device, with the same ranges and its own random state."""
        return BatchedSpatialAugmentation(
            self.ranges, self.mode, self.padding_mode, self.fill, self.antialias, self.exchange
        )


class FitToGrid(SpatialLandmarks):
    """Bring an image onto a fixed grid, centred and with its aspect ratio, in one interpolation.

    ``pixdim="fit"`` takes the smallest isotropic voxel at which the whole image fits: an image of 193.5 x 240 mm on
    512 x 512 gets 240 / 512 = 0.46875 mm (Payer et al. 2019, section 3: "rescaled with fixed aspect-ratio"). World points
    need nothing: the image's affine knows the grid, and predictions return by it.

    Args:
        spatial_size: sizes of the grid; -1 for an axis keeps the image's whole extent along it, as for scans of any length.
        pixdim: voxel sizes in mm, or "fit".
        mode: "nearest", "linear" or "cubic".
        padding_mode: beyond the image: "zeros" shows ``fill``, "border", "reflection".
        fill: value beyond the image.
        antialias: smooth an image that is read on a coarser grid, by half of the reduction's excess over 1, in voxels.

    Example:
        >>> image, _ = FitToGrid((64, 64))(torch.zeros(1, 100, 50))
        >>> image.shape
        torch.Size([1, 64, 64])
    """

    def __init__(
        self,
        spatial_size: Size,
        pixdim: Pixdim = "fit",
        mode: str = "linear",
        padding_mode: str = "zeros",
        fill: float = 0.0,
        antialias: bool = True,
    ) -> None:
        super().__init__(spatial_size, pixdim, mode=mode, padding_mode=padding_mode, fill=fill, antialias=antialias)
