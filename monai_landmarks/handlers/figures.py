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
"""Pictures of predictions, to files and to TensorBoard, while an engine runs."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from ignite.engine import Events
from monai.config import PathLike
from monai.utils import look_up_option, optional_import

from ..report import figure_array, save_figure
from .case_figures import FACTS, CaseReader, draw_case, figure_path
from .checkpoint_files import unwrapped
from .metrics import as_it_is

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["LandmarkFigureSaver", "LandmarkTensorBoardHandler"]


class LandmarkFigureSaver:
    """Write one PNG per case, prediction and truth over the image, while an evaluator runs.

    Points are world millimetres (as :class:`monai_landmarks.transforms.LandmarksImageToWorldd` leaves them) and are
    brought to the image by the image's own affine. Prediction or truth may be absent. Files are ``<case>.png``, whole
    or not there at all. In a distributed run each process writes the cases it evaluates.

    Args:
        output_dir: folder of the figures.
        image_key: the image of an item, a MetaTensor.
        prediction_key: predicted world points ``(N, D)``; None draws none.
        truth_key: true world points ``(N, D)``; None draws none.
        names: ``N`` landmark names.
        case_key: where an item has the name of its case; items without it are named by their image's file.
        max_cases: number of figures to keep per process and epoch: the worst ones, those with missed landmarks first.
            Without truth these are the first ones. None keeps all.
        suffix: put behind the case's name.
        heatmap_key: heatmaps ``(N, *S)`` of the image's grid to lay over it; None for none.
        projection: of volumes, "slice", "max" or "mean".
        planes: of volumes, some of "axial", "coronal", "sagittal"; None for all.
        mark: what stands beside each landmark, "number" or "name".
        phantom: whether the data are a phantom, which the title then says.
        dpi: pixels per inch of the files.
        batch_transform: takes from ``engine.state.batch`` the dictionaries of the cases.
        output_transform: takes from ``engine.state.output`` the dictionaries of the cases.
        unit: of the world points, as the protocol has it.

    Raises:
        ValueError: for an unknown projection or ``max_cases`` below 1.
        LandmarkError: while running, if an item lacks what is to be drawn or points and names do not fit.

    Example:
        >>> import tempfile
        >>> from ignite.engine import Engine
        >>> from monai.data import MetaTensor
        >>> folder = tempfile.TemporaryDirectory()
        >>> engine = Engine(lambda engine, batch: [{"pred_points": torch.tensor([[3.0, 4.0]])}])
        >>> LandmarkFigureSaver(folder.name, names=["sella"]).attach(engine)
        >>> _ = engine.run([[{"case": "001", "image": MetaTensor(torch.rand(1, 9, 9), affine=torch.eye(3))}]])
        >>> [path.name for path in Path(folder.name).iterdir()]
        ['001.png']
        >>> folder.cleanup()
    """

    def __init__(
        self,
        output_dir: PathLike,
        image_key: str = "image",
        prediction_key: str | None = "pred_points",
        truth_key: str | None = "true_points",
        names: Sequence[str] | None = None,
        case_key: str = "case",
        max_cases: int | None = None,
        suffix: str = "",
        heatmap_key: str | None = None,
        projection: str = "slice",
        planes: Sequence[str] | None = None,
        mark: str = "number",
        phantom: bool = False,
        dpi: float = 110.0,
        batch_transform: Callable[[Any], Any] = as_it_is,
        output_transform: Callable[[Any], Any] = as_it_is,
        unit: str = "mm",
    ) -> None:
        if max_cases is not None and max_cases < 1:
            raise ValueError(f"`max_cases` must be at least 1, or None for all, got {max_cases}.")
        self.output_dir = Path(output_dir)
        self.names = None if names is None else tuple(names)
        self.max_cases = max_cases
        self.suffix = suffix
        projection = look_up_option(projection, ("slice", "max", "mean"))
        mark = look_up_option(mark, ("number", "name"))
        self.drawing = {"projection": projection, "planes": planes, "mark": mark, "unit": unit}
        self.phantom, self.dpi = phantom, dpi
        self._reader = CaseReader(
            image_key, prediction_key, truth_key, heatmap_key, case_key, batch_transform, output_transform
        )
        self._kept: list[tuple[tuple[float, float], int, Path]] = []
        self._seen = 0

    def attach(self, engine: Engine) -> None:
        """Follow the engine's iterations.

        Args:
            engine: an evaluator, or any engine with images in its batch and points in its output.
        """
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def start(self, engine: Engine | None = None) -> None:
        """Forget which cases of the epoch before were the worst.

        Args:
            engine: not used.
        """
        self._kept, self._seen = [], 0

    def __call__(self, engine: Engine) -> None:
        """Draw the cases of one iteration.

        Args:
            engine: with the batch and the output of the iteration.
        """
        for item in self._reader.items(engine):
            drawn = self._reader.read(item)
            # Later cases of equal rank lose: without truth the first cases stay.
            entry = (drawn.rank, -self._seen, figure_path(self.output_dir, drawn.case, self.suffix))
            self._seen += 1
            if not self._makes_room(entry):
                continue
            title = f"{'PHANTOM: ' if self.phantom else ''}{drawn.case}"
            figure = draw_case(drawn, self.names, title, **self.drawing)
            save_figure(figure, entry[2], self.dpi, metadata={"Title": title, FACTS: json.dumps(drawn.facts)})

    def _makes_room(self, entry: tuple[tuple[float, float], int, Path]) -> bool:
        """Enter a case among the kept ones and remove the figure that falls out; False if it is the case itself."""
        if self.max_cases is None:
            return True
        if len(self._kept) < self.max_cases:
            heapq.heappush(self._kept, entry)
            return True
        gone = heapq.heappushpop(self._kept, entry)
        if gone is entry:
            return False
        if all(gone[2] != kept[2] for kept in self._kept):
            gone[2].unlink(missing_ok=True)
        return True


class LandmarkTensorBoardHandler:
    """Show overlays of the first cases of an epoch, and a loss's learnt sigma, in TensorBoard.

    On an evaluator it draws overlays; with ``num_images=0`` and a ``loss`` it can be attached to a trainer, to follow
    sigma only. Steps are epochs: MONAI's evaluators know the epoch of their trainer. In a distributed run the first
    process writes.

    Args:
        summary_writer: TensorBoard's writer; None makes one for ``log_dir`` when something is written.
        log_dir: folder of the events.
        interval: number of epochs between two entries.
        num_images: cases to draw per epoch.
        loss: a module with ``sigma`` ``(N, 1)`` or ``(N, D)``, such as :class:`monai_landmarks.losses.HeatmapL2Loss`.
        image_key: as in :class:`LandmarkFigureSaver`.
        prediction_key: as in :class:`LandmarkFigureSaver`.
        truth_key: as in :class:`LandmarkFigureSaver`.
        names: ``N`` landmark names.
        case_key: as in :class:`LandmarkFigureSaver`.
        heatmap_key: as in :class:`LandmarkFigureSaver`.
        projection: of volumes, "slice", "max" or "mean".
        tag: first part of the tags of the overlays.
        dpi: of the overlays.
        global_epoch_transform: from the engine's epoch to the step.
        batch_transform: as in :class:`LandmarkFigureSaver`.
        output_transform: as in :class:`LandmarkFigureSaver`.
        unit: as in :class:`LandmarkFigureSaver`.

    Raises:
        ValueError: for a loss without sigma, an interval below 1, or nothing to write.
    """

    def __init__(
        self,
        summary_writer: Any = None,
        log_dir: PathLike = "./runs",
        interval: int = 1,
        num_images: int = 1,
        loss: Any = None,
        image_key: str = "image",
        prediction_key: str | None = "pred_points",
        truth_key: str | None = "true_points",
        names: Sequence[str] | None = None,
        case_key: str = "case",
        heatmap_key: str | None = None,
        projection: str = "slice",
        tag: str = "landmarks",
        dpi: float = 80.0,
        global_epoch_transform: Callable[[int], int] = as_it_is,
        batch_transform: Callable[[Any], Any] = as_it_is,
        output_transform: Callable[[Any], Any] = as_it_is,
        unit: str = "mm",
    ) -> None:
        if interval < 1 or num_images < 0 or (num_images == 0 and loss is None):
            raise ValueError(
                f"`interval` must be at least 1 and there must be images or a loss to show, got interval={interval}, "
                f"num_images={num_images}, loss={loss}."
            )
        loss = unwrapped(loss)
        if loss is not None and not hasattr(loss, "sigma"):
            raise ValueError(f"`loss` must have a learnt `sigma` to show, {type(loss).__name__} has none.")
        self._writer, self._log_dir = summary_writer, log_dir
        self.interval, self.num_images, self.loss = interval, num_images, loss
        self.names = None if names is None else tuple(names)
        self.drawing = {"projection": look_up_option(projection, ("slice", "max", "mean")), "unit": unit}
        self.tag, self.dpi = tag, dpi
        self.global_epoch_transform = global_epoch_transform
        self._reader = CaseReader(
            image_key, prediction_key, truth_key, heatmap_key, case_key, batch_transform, output_transform
        )
        self._drawn = 0

    def attach(self, engine: Engine) -> None:
        """Follow the engine's epochs; processes other than the first do nothing.

        Args:
            engine: an evaluator, or a trainer where only sigma is shown.
        """
        if dist.is_available() and dist.is_initialized() and dist.get_rank() != 0:
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        if self.num_images:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.write_images)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write_sigma)

    @property
    def writer(self) -> Any:
        """TensorBoard's writer."""
        if self._writer is None:
            # Imported here: TensorBoard takes seconds to import.
            make_writer, _ = optional_import("torch.utils.tensorboard", name="SummaryWriter")
            self._writer = make_writer(log_dir=str(self._log_dir))
        return self._writer

    def start(self, engine: Engine | None = None) -> None:
        """Begin a new epoch's images.

        Args:
            engine: not used.
        """
        self._drawn = 0

    def write_images(self, engine: Engine) -> None:
        """Draw the cases of one iteration until the epoch has enough.

        Args:
            engine: with the batch and the output of the iteration.
        """
        if self._drawn >= self.num_images or engine.state.epoch % self.interval:
            return
        step = self.global_epoch_transform(engine.state.epoch)
        for item in self._reader.items(engine)[: self.num_images - self._drawn]:
            drawn = self._reader.read(item)
            pixels = figure_array(draw_case(drawn, self.names, drawn.case, **self.drawing), dpi=self.dpi)
            self.writer.add_image(f"{self.tag}/{drawn.case}", pixels, step, dataformats="HWC")
            self._drawn += 1

    def write_sigma(self, engine: Engine) -> None:
        """Write the present sigma of each landmark (and axis), in voxels.

        Args:
            engine: whose epoch ended.
        """
        if engine.state.epoch % self.interval:
            return
        if self.loss is not None:
            sigma = torch.as_tensor(self.loss.sigma).detach().cpu()
            sigma = sigma[:, None] if sigma.ndim == 1 else sigma
            step = self.global_epoch_transform(engine.state.epoch)
            names = self.names or tuple(str(index) for index in range(sigma.shape[0]))
            for name, row in zip(names, sigma.tolist(), strict=True):
                for axis, value in enumerate(row):
                    part = f"/{'ijk'[axis]}" if len(row) > 1 else ""
                    self.writer.add_scalar(f"sigma/{name}{part}", value, step)
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Close the writer."""
        if self._writer is not None:
            self._writer.close()
