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
"""Classical baseline with one annotated film: affine, then B-spline registration of the exemplar to each film.

``python -m benchmarks.classical_registration --data DIR --exemplar 028``. Both steps are SimpleITK's, by the correlation of
the films over several resolutions, on the 0.8 mm grid on which ``bundles/cephalometric_xray`` learns from one film. The
exemplar is the fixed image: its transform takes points of the exemplar to the other film, so that its landmarks are carried
by the transform itself, without inverting it.

Nothing is learnt and nothing chosen by an error on films: optimiser and B-spline grid were compared on training films by
their similarity and the share of the film that folds, the rim on a phantom whose map is known. Films are those of the
training section unless ``--part test1`` is given.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, ScaleIntensityRanged
from monai.utils import optional_import

from benchmarks.__main__ import describe_hardware
from benchmarks.summary import summary, write_record
from monai_landmarks.data import Landmarks
from monai_landmarks.data.datasets import ISBI2015_LANDMARKS, isbi2015_datalist
from monai_landmarks.protocols import compare, evaluate
from monai_landmarks.transforms import FitToGridd, LoadFilmd, SmoothInMillimetersd

STEPS = ("no registration", "affine", "affine + B-spline")
GRID, PIXEL_MM = (256, 304), 0.8
#: Shrink factors and smoothing in mm of the levels, the coarsest first.
AFFINE_LEVELS = ((8, 4, 2), (6.4, 3.2, 1.6))
SPLINE_LEVELS = ((4, 2, 1), (3.2, 1.6, 0.8))
#: So much of the film's rim does not count: its frame and marks stand still whoever is on the film.
RIM_MM = 10.0
SAMPLES, SEED = (1.0, 0.5, 0.2), 1  # samples: share of the voxels of each level


class Settings(NamedTuple):
    """What may be set: cells of the finest B-spline grid on each axis (halved twice for the coarser levels)."""

    cells: tuple[int, int] = (8, 8)
    iterations: int = 50


class Registered(NamedTuple):
    """One film: the exemplar's landmarks on it after each step, in mm, and what was seen without its labels."""

    points: tuple[np.ndarray, ...]
    correlation: tuple[float, ...]
    folded: float
    seconds: float


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classical_registration", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the ISBI 2015 films")
    parser.add_argument("--exemplar", required=True, metavar="CASE", help="the annotated training film, such as 028")
    parser.add_argument("--part", default="training", choices=("training", "test1", "test2"))
    parser.add_argument("--films", type=int, help="take only the first so many films of the part")
    parser.add_argument("--cells", type=int, nargs=2, default=Settings().cells, help="of the finest B-spline grid")
    parser.add_argument("--processes", type=int, default=1, help="films registered at a time, each on one thread")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    parser.add_argument("--overlays", type=Path, help="folder for figures of the first film")
    return parser.parse_args(arguments)


def load(film: Mapping[str, Any]) -> tuple[MetaTensor, MetaTensor]:
    """Bring a film to the grid, and the mask of the voxels that come from the film to the same."""
    prepare = Compose(
        [
            LoadFilmd("image"),
            ScaleIntensityRanged("image", 0, 255, 0, 1),
            SmoothInMillimetersd("image", 0.3),
            lambda d: {**d, "mask": d["image"] * 0 + 1},
            FitToGridd("image", spatial_size=GRID, pixdim=PIXEL_MM, fill=0, antialias=False),
            FitToGridd("mask", spatial_size=GRID, pixdim=PIXEL_MM, fill=0, antialias=False),
        ]
    )
    data = prepare({key: film[key] for key in ("image", "pixel_size", "origin")})
    return data["image"], data["mask"]


def to_sitk(image: MetaTensor, sitk: Any) -> Any:
    """Make it SimpleITK's, whose physical points are then the film plane's (x, y) in mm."""
    affine = image.affine.numpy()
    if np.count_nonzero(affine[:2, :2] - np.diag(np.diagonal(affine)[:2])):
        raise ValueError(f"the grid must not be turned against the film, its affine is {affine.tolist()}.")
    result = sitk.GetImageFromArray(image[0].numpy().T)
    result.SetSpacing(affine.diagonal()[:2].tolist())
    result.SetOrigin(affine[:2, 2].tolist())
    return result


class Film(NamedTuple):
    """A film and its mask, both SimpleITK's."""

    image: Any
    mask: Any

    @classmethod
    def load(cls, film: Mapping[str, Any], sitk: Any) -> Film:
        image, mask = (to_sitk(one, sitk) for one in load(film))
        return cls(image, sitk.BinaryErode(mask > 0.999, (round(RIM_MM / PIXEL_MM),) * 2))


def method(fixed: Film, moving: Film, levels: tuple[Sequence[int], Sequence[float]], sitk: Any) -> Any:
    """What both steps share. Where the masks are 0 nothing counts: the films' common border would hold them in place."""
    registration = sitk.ImageRegistrationMethod()
    registration.SetMetricAsCorrelation()
    registration.SetMetricSamplingStrategy(registration.RANDOM)
    registration.SetMetricSamplingPercentagePerLevel(SAMPLES, SEED)
    registration.SetMetricFixedMask(fixed.mask)
    registration.SetMetricMovingMask(moving.mask)
    registration.SetInterpolator(sitk.sitkLinear)
    registration.SetShrinkFactorsPerLevel(levels[0])
    registration.SetSmoothingSigmasPerLevel(levels[1])
    registration.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    return registration


def register(fixed: Film, moving: Film, settings: Settings, sitk: Any) -> tuple[Any, Any]:
    """Find the affine and the whole transform, both from points of ``fixed`` to points of ``moving``."""
    affine = sitk.AffineTransform(2)
    centre = (np.array(GRID) - 1) / 2
    affine.SetCenter(fixed.image.TransformContinuousIndexToPhysicalPoint(centre.tolist()))
    registration = method(fixed, moving, AFFINE_LEVELS, sitk)
    registration.SetOptimizerAsGradientDescentLineSearch(
        1.0, 2 * settings.iterations, 1e-6, 10, estimateLearningRate=registration.EachIteration
    )
    registration.SetOptimizerScalesFromPhysicalShift()
    registration.SetInitialTransform(affine, inPlace=True)
    registration.Execute(fixed.image, moving.image)

    coarsest = [cells // 4 for cells in settings.cells]
    spline = sitk.BSplineTransformInitializer(fixed.image, coarsest, order=3)
    registration = method(fixed, moving, SPLINE_LEVELS, sitk)
    registration.SetOptimizerAsLBFGS2(numberOfIterations=settings.iterations, deltaConvergenceTolerance=1e-5)
    registration.SetMovingInitialTransform(affine)
    registration.SetInitialTransformAsBSpline(spline, inPlace=True, scaleFactors=[1, 2, 4])
    registration.Execute(fixed.image, moving.image)
    return affine, sitk.CompositeTransform([affine, spline])  # the last is applied first


def correlation(fixed: Film, moving: Film, transform: Any, sitk: Any) -> float:
    """Pearson's r of the two films where both have data: a look that needs no label."""
    onto = [sitk.Resample(one, fixed.image, transform, order, 0.0) for one, order in zip(moving, (2, 1), strict=True)]
    there = (sitk.GetArrayFromImage(onto[1]) > 0) & (sitk.GetArrayFromImage(fixed.mask) > 0)
    return float(np.corrcoef(*(sitk.GetArrayFromImage(one)[there] for one in (fixed.image, onto[0])))[0, 1])


def folded(fixed: Film, transform: Any, sitk: Any) -> float:
    """Share of the film where the transform turns the plane over."""
    field = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, GRID, fixed.image.GetOrigin(), fixed.image.GetSpacing()
    )
    determinant = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(field))
    return float((determinant[sitk.GetArrayFromImage(fixed.mask) > 0] <= 0).mean())


def carry(exemplar: Mapping[str, Any], settings: Settings, film: Mapping[str, Any]) -> Registered:
    """Register the exemplar to one film and carry its landmarks there."""
    sitk, _ = optional_import("SimpleITK")
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    torch.set_num_threads(1)
    fixed, moving = (Film.load(one, sitk) for one in (exemplar, film))
    start = time.perf_counter()
    transforms = (sitk.Transform(2, sitk.sitkIdentity), *register(fixed, moving, settings, sitk))
    seconds = time.perf_counter() - start
    points = tuple(
        np.array([transform.TransformPoint(point) for point in exemplar["landmarks"].tolist()])
        for transform in transforms
    )
    similar = tuple(correlation(fixed, moving, transform, sitk) for transform in transforms)
    return Registered(points, similar, folded(fixed, transforms[-1], sitk), seconds)


def score(options: argparse.Namespace, films: Sequence[Mapping[str, Any]], found: Sequence[Registered]) -> list[Any]:
    """Score the landmarks after each step under the challenge's protocol."""
    protocol = "isbi2015/mean" + ("" if options.part == "test1" else f"/{options.part}")
    truth = {film["case"]: Landmarks(film["landmarks"], ISBI2015_LANDMARKS) for film in films}
    results = []
    for step, title in enumerate(STEPS):
        carried = {
            film["case"]: Landmarks(one.points[step], ISBI2015_LANDMARKS)
            for film, one in zip(films, found, strict=True)
        }
        info = {
            "exemplar": options.exemplar,
            "correlation": round(np.mean([one.correlation[step] for one in found]), 4),
        }
        results.append(evaluate(carried, truth, protocol, method=title, info=info))
    return results


def draw(film: Mapping[str, Any], found: Registered, folder: Path) -> None:
    """Draw the carried landmarks beside the true ones on the film."""
    from monai_landmarks.geometry import apply_affine, invert_affine
    from monai_landmarks.report import landmark_overlay, save_figure

    image = load(film)[0]
    to_voxels = invert_affine(image.affine)
    points, truth = (apply_affine(torch.as_tensor(one), to_voxels) for one in (found.points[-1], film["landmarks"]))
    figure = landmark_overlay(image, points, truth, ISBI2015_LANDMARKS, title=f"{film['case']}, {STEPS[-1]}")
    save_figure(figure, folder / f"{film['case']}.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry the exemplar's landmarks to every film, print one table of all steps and write the numbers."""
    options = parse(arguments)
    settings = Settings(tuple(options.cells))
    training = {film["case"]: film for film in isbi2015_datalist(options.data, "training")}
    if options.exemplar not in training:
        raise ValueError(
            f"--exemplar must be a training film, {min(training)} to {max(training)}: {options.exemplar!r}."
        )
    exemplar = training[options.exemplar]
    films = list(training.values()) if options.part == "training" else isbi2015_datalist(options.data, options.part)
    films = [film for film in films if film["case"] != options.exemplar][: options.films]
    one_film = partial(carry, exemplar, settings)
    if options.processes == 1:
        found = [one_film(film) for film in films]
    else:
        with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
            found = list(pool.map(one_film, films))
    results = score(options, films, found)
    costs = {
        "seconds_per_film": round(float(np.median([one.seconds for one in found])), 2),
        "folded": {"films": sum(one.folded > 0 for one in found), "mean_share": np.mean([one.folded for one in found])},
    }
    print(compare(results), json.dumps(costs), sep="\n")
    if options.overlays:
        draw(films[0], found[0], options.overlays)
    if options.output:
        content = {
            "hardware": describe_hardware(),
            "settings": f"exemplar {options.exemplar}, {PIXEL_MM} mm grid {GRID}, correlation, {settings}",
            "runs": {result.method: summary(result) for result in results},
            **costs,
        }
        write_record(options.output, content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
