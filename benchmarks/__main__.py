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
"""Print one table for each subject: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .timing import Settings, format_table, measure_cases, preload

SUBJECTS = (
    "targets",
    "decoding",
    "voting",
    "similarity",
    "losses",
    "networks",
    "universal",
    "farnet",
    "metrics",
    "augmentation",
    "inference",
)
SCHEMA = 1


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("subjects", type=_subjects, nargs="?", metavar="A,B", help="the same as --only A,B")
    parser.add_argument("--only", type=_subjects, default=SUBJECTS, metavar="A,B", help=f"of {','.join(SUBJECTS)}")
    parser.add_argument("--threads", type=_positive, help="of torch; default: torch's own choice")
    parser.add_argument("--repeats", type=_positive, default=5, help="calls per case (default 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers and the hardware here")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="tiny sizes, no memory, no targets: does it still run?")
    size.add_argument("--full", action="store_true", help="also what takes minutes: backward of published networks")
    options = parser.parse_args(arguments)
    options.only = options.subjects or options.only
    return options


def _subjects(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in SUBJECTS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"no subject {(unknown or [text])[0]!r}; there are: {', '.join(SUBJECTS)}")
    return names


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def check_package() -> None:
    """Leave with a message that helps if the package that is to be measured, or torch or MONAI, does not import."""
    for name in ("torch", "monai", "monai_landmarks"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise SystemExit(
                f"benchmarks: {name} does not import ({error}). Run `python -m benchmarks` in the repository's root "
                "folder, in an environment in which `pip install -e .` was done."
            ) from error


def describe_hardware() -> dict[str, Any]:
    """Say what the numbers were measured on and with; what cannot be found out is None."""
    import torch

    return {
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "logical_cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "monai", "numpy", "monai_landmarks")},
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": _changed_files(),
    }


def _cpu_name() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    names = [line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("model name")]
    return names[0] if names else platform.machine() or None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return getattr(importlib.import_module(name), "__version__", None)


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _changed_files() -> int | None:
    status = _git("status", "--porcelain")
    return None if status is None else len(status.splitlines())


def print_hardware(hardware: dict[str, Any]) -> None:
    print(
        f"{hardware['cpu']} ({hardware['cpu_capability']}), {hardware['usable_cores']} cores, {hardware['threads']} "
        f"threads, torch {hardware['torch']}, monai {hardware['monai']}, monai_landmarks {hardware['monai_landmarks']}"
        f" {(hardware['commit'] or 'without commit')[:12]}{' with changes' if hardware['changed_files'] else ''}"
    )
    load = hardware["load_before"]
    if load is not None and load > 0.25 * hardware["usable_cores"]:
        print(f"WARNING: load average {load:.1f} before the start: other programs run, timings are disturbed.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; see ``--help``."""
    options = parse(arguments)
    check_package()
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    hardware = describe_hardware()
    print_hardware(hardware)
    least_seconds = 0.02 if options.quick else Settings.least_seconds
    settings = Settings(options.repeats, torch.get_num_threads(), not options.quick, least_seconds)
    preload(f"benchmarks.{name}" for name in options.only)
    subjects: dict[str, list[dict[str, Any]]] = {}
    for name in options.only:
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"measuring {name}", file=sys.stderr, flush=True)
        subjects[name] = measure_cases(module.cases(quick=options.quick, full=options.full), settings)
        print("\n" + format_table(f"{name}: {module.TITLE}", subjects[name]), flush=True)
    if options.json:
        _write(options.json, options, hardware, subjects)
    return 0


def _write(path: Path, options: argparse.Namespace, hardware: dict[str, Any], subjects: dict[str, Any]) -> None:
    from monai_landmarks.data import atomic_write

    asked = {"only": list(options.only), "repeats": options.repeats, "quick": options.quick, "full": options.full}
    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    record = {"schema": SCHEMA, "created": created, "options": asked, "hardware": hardware, "subjects": subjects}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
