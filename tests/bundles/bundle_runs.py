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
"""What the runs of all bundles share: where bundles lie, the log, how a run fails, metadata judged without a network."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from monai.bundle import verify_metadata

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"


def configs(bundle: str) -> Path:
    return BUNDLES / bundle / "configs"


class Lines(logging.Handler):
    """Keeps what was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def logged_lines() -> Iterator[list[str]]:
    """What is logged meanwhile."""
    kept = Lines()
    logging.getLogger().addHandler(kept)
    try:
        yield kept.lines
    finally:
        logging.getLogger().removeHandler(kept)


def failure(run: Callable[[], object]) -> str:
    """All messages of the error that a run ends with, down to its first cause."""
    try:
        run()
    except Exception as error:
        texts, cause = [], error
        while cause is not None:
            texts.append(str(cause))
            cause = cause.__cause__ or cause.__context__
        return "\n".join(texts)
    return pytest.fail("the run went through")


def command(files: Sequence[str | Path], settings: Mapping[str, Any]) -> list[str]:
    """What follows the interpreter's name to run a bundle."""
    options = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    return ["-m", "monai.bundle", "run", "--config_file", str([str(file) for file in files]), *options]


def environment() -> dict[str, str]:
    """For a process that runs a bundle."""
    path = os.pathsep.join([str(BUNDLES.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def run_in_two_processes(files: Sequence[str | Path], settings: Mapping[str, Any], timeout: float = 600) -> str:
    """Run a bundle as a user would on two GPUs; returns what it printed."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, *command(files, settings)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def valid_metadata(bundle: str, names: Sequence[str], tmp_path: Path) -> dict[str, Any]:
    """The metadata of a bundle, after MONAI has accepted them with the schema in its place."""
    schema = json.loads((Path(__file__).parent / "metadata_schema.json").read_text())
    path = configs(bundle) / "metadata.json"
    metadata: dict[str, Any] = json.loads(path.read_text())
    jsonschema.validate(metadata, schema)
    placed = tmp_path / "schema.json"
    placed.write_text(json.dumps(schema))
    verify_metadata(meta_file=str(path), filepath=str(placed))
    output = metadata["network_data_format"]["outputs"]["pred"]
    assert tuple(output["channel_def"].values()) == tuple(names)
    assert output["num_channels"] == len(names)
    assert metadata["version"] in metadata["changelog"]
    assert "research only" in metadata["intended_use"].lower()
    return metadata


def missing_files(bundle: str) -> list[str]:
    """Files that MONAI or our documentation asks of a bundle and that are not there."""
    names = ("train", "inference", "evaluate", "multi_gpu_train", "metadata")
    wanted = ["LICENSE", "docs/README.md", "configs/logging.conf", *(f"configs/{name}.json" for name in names)]
    return [name for name in wanted if not (BUNDLES / bundle / name).is_file()]
