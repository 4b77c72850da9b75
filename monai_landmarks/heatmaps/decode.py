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
"""From heatmaps to points, by name of the method."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, overload

import torch
from monai.utils import StrEnum, look_up_option

from ..geometry import LandmarkError
from .argmax import decode_argmax
from .center_of_mass import decode_center_of_mass
from .dark import decode_dark, smoothing_radius
from .gaussian_fit import DEFAULT_WINDOW, decode_gaussian_fit, window_sizes
from .peaks import Decoded, FlaggedDecoded, Peaks
from .quadratic import decode_quadratic
from .soft_argmax import decode_local_soft_argmax

__all__ = ["DecodeMethod", "decode_heatmaps"]


class DecodeMethod(StrEnum):
    """The methods of :func:`decode_heatmaps`."""

    ARGMAX = "argmax"
    QUADRATIC = "quadratic"
    DARK = "dark"
    LOCAL_SOFT_ARGMAX = "local_soft_argmax"
    CENTER_OF_MASS = "center_of_mass"
    GAUSSIAN_FIT = "gaussian_fit"


_DECODERS: dict[str, Callable[..., FlaggedDecoded]] = {
    "argmax": decode_argmax,
    "quadratic": decode_quadratic,
    "dark": decode_dark,
    "local_soft_argmax": decode_local_soft_argmax,
    "center_of_mass": decode_center_of_mass,
    "gaussian_fit": decode_gaussian_fit,
}
#: Widths of what the methods without a ``window`` look at.
_STENCILS = {"argmax": 1, "quadratic": 3, "dark": 3}
_OPTIONS = {
    name: tuple(key for key in inspect.signature(decoder).parameters if key not in ("heatmaps", "spatial_dims"))
    for name, decoder in _DECODERS.items()
}


@overload
def decode_heatmaps(
    heatmaps: torch.Tensor,
    method: DecodeMethod | str = ...,
    *,
    spatial_dims: int | None = ...,
    return_flags: Literal[False] = ...,
    **options: Any,
) -> Decoded: ...
@overload
def decode_heatmaps(
    heatmaps: torch.Tensor,
    method: DecodeMethod | str = ...,
    *,
    spatial_dims: int | None = ...,
    return_flags: Literal[True],
    **options: Any,
) -> FlaggedDecoded: ...
@overload
def decode_heatmaps(
    heatmaps: torch.Tensor,
    method: DecodeMethod | str = ...,
    *,
    spatial_dims: int | None = ...,
    return_flags: bool,
    **options: Any,
) -> Decoded | FlaggedDecoded: ...
def decode_heatmaps(
    heatmaps: torch.Tensor,
    method: DecodeMethod | str = "dark",
    *,
    spatial_dims: int | None = None,
    return_flags: bool = False,
    **options: Any,
) -> Decoded | FlaggedDecoded:
    """Find the one landmark of each heatmap at sub-voxel precision, all maps at once, in 2D and 3D.

    For Gaussian maps every method but "argmax" and "quadratic" with ``log=False`` is exact to less than 0.01 voxel at
    any position up to the outer half of the border voxels. They differ on what networks really put out:

    ==================== ===================================== =============================== ========================
    method               looks at                              good for                        options
    ==================== ===================================== =============================== ========================
    "argmax"             the highest voxel                     ties with published code        none
    "quadratic"          3 voxels along each axis              speed, sharp clean maps         ``log``
    "dark"               3 x 3 (x 3) voxels                    clean maps of any orientation   ``smoothing``
    "local_soft_argmax"  the top of the peak                   a background, close neighbours  ``window, temperature``
    "center_of_mass"     the whole peak                        noise, odd but symmetric peaks  ``window``
    "gaussian_fit"       the whole peak                        noise, the amplitude, the width ``window, iterations``
    ==================== ===================================== =============================== ========================

    What no method can do, and ``extrapolated`` marks: tell where a landmark is whose peak lies on the image border,
    for its far side is not in the image and the truth may be outside (the shape of the visible side is continued);
    find one that is more than a voxel outside; find the middle of a plateau larger than what the method looks at.

    A map with no positive value, a constant map (one whose maximum fills a whole row and is reached in every row) and
    a map whose maximum is NaN or infinite (one NaN voxel is enough) give NaN coordinates and their maximum as
    confidence. Maps that are logits have to go through their sigmoid first, or a landmark of less than even odds is
    missing. All arithmetic after the search for the maximum is done in float32 or better, also for half-precision
    maps. Gradients flow from the points to the voxels that were looked at.

    Args:
        heatmaps: ``(B, N, *S)`` or ``(N, *S)``; a MetaTensor is taken as its plain tensor.
        method: one of :class:`DecodeMethod`.
        spatial_dims: give 3 for ``(N, X, Y, Z)``; four axes are read as ``(B, N, H, W)`` otherwise.
        return_flags: also return ``extrapolated``.
        options: of the method, see its own function ``decode_<method>``.

    Returns:
        :class:`Decoded` ``(points, confidence)`` or, with ``return_flags``, :class:`FlaggedDecoded` ``(points,
        confidence, extrapolated)``: points ``(..., N, D)`` in voxel index order (integer = voxel centre), float32 or
        float64; confidence ``(..., N)``, the peak's value, for "gaussian_fit" the fitted amplitude; extrapolated
        ``(..., N)`` bool.

    Raises:
        LandmarkError: for a shape that is neither, or an option that the method does not have.
        ValueError: for a method that does not exist.

    Example:
        >>> import torch
        >>> from monai_landmarks.heatmaps import gaussian_heatmaps
        >>> maps = gaussian_heatmaps(torch.tensor([[7.3, 4.2], [float("nan")] * 2]), (16, 16), sigma=2.0)
        >>> points, confidence = decode_heatmaps(maps)
        >>> points
        tensor([[7.3000, 4.2000],
                [   nan,    nan]])
        >>> decode_heatmaps(maps, "gaussian_fit", window=7, return_flags=True).extrapolated
        tensor([False,  True])
    """
    decoded = _DECODERS[_check_method(method, options)](heatmaps, spatial_dims=spatial_dims, **options)
    return decoded if return_flags else Decoded(decoded.points, decoded.confidence)


def _check_method(method: DecodeMethod | str, options: Mapping[str, Any]) -> str:
    name = str(method) if method in _DECODERS else str(look_up_option(method, DecodeMethod))
    unknown = [key for key in options if key not in _OPTIONS[name]]
    if unknown:
        known = ", ".join(_OPTIONS[name]) or "none"
        raise LandmarkError(f"method {name!r} has no option {unknown[0]!r}; its options: {known}.")
    return name


def refine_peaks(peaks: Peaks, method: DecodeMethod | str, options: Mapping[str, Any]) -> FlaggedDecoded:
    """Refine voxels that are known to be peaks as :func:`decode_heatmaps` refines the highest one."""
    return _DECODERS[_check_method(method, options)](peaks, **options)


def decoder_window(method: DecodeMethod | str, options: Mapping[str, Any], dims: int) -> tuple[int, ...]:
    """The widths of the box of voxels that a method looks at around a peak, moved inwards at the image's border.

    Args:
        method: one of :class:`DecodeMethod`.
        options: of the method.
        dims: number of spatial axes.

    Returns:
        ``D`` odd numbers.

    Raises:
        LandmarkError: for an option that the method does not have, or that has a value it cannot have.
        ValueError: for a method that does not exist.

    Example:
        >>> decoder_window("quadratic", {}, 3)
        (3, 3, 3)
    """
    name = _check_method(method, options)
    if name in _STENCILS:
        width = 2 * smoothing_radius(options.get("smoothing", 0.0)) + 3 if name == "dark" else _STENCILS[name]
        return (width,) * dims
    return window_sizes(options.get("window", DEFAULT_WINDOW), dims)
