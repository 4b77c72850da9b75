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
"""Execute the notebooks of this folder, each in an empty working folder, and fail if one of them does.

Usage: ``python notebooks/execute.py [--in-place] [--timeout SECONDS] [NOTEBOOK ...]``

Without ``--in-place`` nothing is written: the run only shows that the notebooks still work. With it, the executed
notebooks replace the old ones, freed of everything that would differ from run to run: times, kernel names, versions.
A notebook that prints a warning or the path of this machine fails as one that raises.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}

ABSOLUTE_PATH = re.compile(r"(?<![\w/.:~*)\]])/(?!path/to/)\w[\w.+-]*/[\w.+-]|\b[A-Za-z]:\\\w")
"""An absolute path of some machine. ``/path/to/...`` is a reader's own, and what stands before hides web addresses."""


def execute(path: Path, timeout: float) -> Any:
    """Run all cells of a notebook in a new kernel, in a temporary folder that is gone afterwards.

    Args:
        path: the notebook.
        timeout: seconds that one cell may take.

    Returns:
        the executed notebook.

    Raises:
        CellExecutionError: if a cell raises; its text is the cell and the traceback.
        CellTimeoutError: if a cell takes longer than ``timeout``.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    # The checkout is found before an installed package, so that what is run is what is here.
    search = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=timeout,
            kernel_name=KERNEL["name"],
            resources={"metadata": {"path": folder}},
            record_timing=False,
            coalesce_streams=True,
        )
        client.execute(env={**os.environ, "PYTHONPATH": search})
    return notebook


def clean(notebook: Any) -> Any:
    """Take out of an executed notebook what differs from run to run although nothing changed.

    Args:
        notebook: as nbformat reads it; it is changed in place.

    Returns:
        the notebook.
    """
    notebook["metadata"] = {"kernelspec": dict(KERNEL), "language_info": {"name": "python"}}
    for cell in notebook["cells"]:
        cell["metadata"] = {}
        for output in cell.get("outputs", ()):
            if "metadata" in output:
                output["metadata"] = {}
            data = output.get("data", {})
            if "image/png" in data:
                # The text beside a picture is the object's address or its size.
                data.pop("text/plain", None)
    return notebook


def faults(notebook: Any) -> list[str]:
    """List what must not stand in the outputs of a committed notebook.

    Args:
        notebook: as nbformat reads it.

    Returns:
        one line per fault; empty if there is none.
    """
    found = []
    for number, cell in enumerate(notebook["cells"]):
        for output in cell.get("outputs", ()):
            kind = output["output_type"]
            if kind == "error":
                found.append(f"cell {number} raised {output['ename']}: {output['evalue']}")
            if kind == "stream" and output["name"] == "stderr":
                found.append(f"cell {number} printed to stderr: {as_text(output['text']).strip()[:300]}")
            texts = [output.get("text", ""), *(v for k, v in output.get("data", {}).items() if k.startswith("text/"))]
            found += [
                f"cell {number} shows an absolute path: {line.strip()[:200]}"
                for line in "\n".join(map(as_text, texts)).splitlines()
                if ABSOLUTE_PATH.search(line)
            ]
    return found


def as_text(value: str | Sequence[str]) -> str:
    """Join a notebook's text, which a file may hold as a list of lines."""
    return value if isinstance(value, str) else "".join(value)


def write(notebook: Any, path: Path) -> None:
    """Replace a notebook's file; it is there whole, old or new, at any moment."""
    import nbformat

    nbformat.validate(notebook)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        nbformat.write(notebook, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def run_one(path: Path, timeout: float, in_place: bool) -> bool:
    """Execute, check and, if wanted, write one notebook; say how it went.

    Returns:
        whether all is well.
    """
    start = time.monotonic()
    try:
        notebook = clean(execute(path, timeout))
        problems = faults(notebook)
    except Exception as error:  # every other notebook is to be tried, and whatever went wrong is shown
        problems = [f"{type(error).__name__}: {error}"]
    if not problems and in_place:
        write(notebook, path)
    print(f"{'FAILED' if problems else 'ok'}  {path.name}  {time.monotonic() - start:.0f} s", flush=True)
    for problem in problems:
        print(f"  {problem}", file=sys.stderr, flush=True)
    return not problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: instead of the command line's.

    Returns:
        the exit status: 0 if all notebooks are well, 1 if one is not.
    """
    parser = argparse.ArgumentParser(description="Execute the notebooks of this folder; fail if one of them does.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of this folder")
    parser.add_argument("--in-place", action="store_true", help="write the outputs into the notebooks")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds that one cell may take (default 900)")
    options = parser.parse_args(arguments)
    paths = options.notebooks or sorted(HERE.glob("*.ipynb"))
    absent = [str(path) for path in paths if not path.is_file()]
    if absent or not paths:
        print(f"there is no notebook {', '.join(absent) or 'in this folder'}", file=sys.stderr)
        return 1
    # Not all(): every notebook is run.
    return int(sum(not run_one(path, options.timeout, options.in_place) for path in paths) > 0)


if __name__ == "__main__":
    sys.exit(main())
