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
"""The committed notebooks, as files: whole, executed, shown, free of the machine they ran on. Nothing is executed."""

from __future__ import annotations

import ast
import base64
import copy
import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST_FILE = 3_000_000
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the notebooks are not beside the tests")


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def text(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def syntax_trees(path: Path) -> list[ast.Module]:
    """The code without IPython's own lines."""
    return [ast.parse(re.sub(r"^[%!].*$", "", text(cell), flags=re.M)) for cell in code_cells(path)]


def load_execute() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebooks_execute", FOLDER / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_notebooks_and_the_readme_lists_each() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert NOTEBOOKS
    assert [path.name for path in NOTEBOOKS if path.name not in readme] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_is_valid_nbformat(self, path: Path) -> None:
        nbformat = pytest.importorskip("nbformat")
        nbformat.validate(nbformat.read(path, as_version=4))

    def test_kernel_is_python3_and_no_version_is_kept(self, path: Path) -> None:
        metadata = read(path)["metadata"]
        assert metadata["kernelspec"]["name"] == "python3"
        assert metadata["language_info"] == {"name": "python"}

    def test_first_cell_explains(self, path: Path) -> None:
        first = read(path)["cells"][0]
        assert first["cell_type"] == "markdown"
        assert text(first).startswith("# ")
        assert len(text(first).split()) > 50

    def test_says_phantom_before_the_first_code(self, path: Path) -> None:
        cells = read(path)["cells"]
        first_code = next(index for index, cell in enumerate(cells) if cell["cell_type"] == "code")
        assert any("phantom" in text(cell).lower() for cell in cells[:first_code])

    def test_links_inside_the_notebook_lead_to_headings(self, path: Path) -> None:
        prose = "\n".join(text(cell) for cell in read(path)["cells"] if cell["cell_type"] == "markdown")
        headings = {line.lstrip("# ").replace(" ", "-") for line in prose.splitlines() if line.startswith("#")}
        assert set(re.findall(r"\]\(#([^\s]+)\)", prose)) <= headings

    def test_was_executed_from_top_to_bottom(self, path: Path) -> None:
        counts = [cell["execution_count"] for cell in code_cells(path)]
        assert counts == list(range(1, len(counts) + 1))

    def test_shows_pictures(self, path: Path) -> None:
        data = [output.get("data", {}) for cell in code_cells(path) for output in cell["outputs"]]
        pictures = [base64.b64decode(d["image/png"]) for d in data if "image/png" in d]
        assert len(pictures) >= 3
        assert all(picture.startswith(PNG_SIGNATURE) for picture in pictures)

    def test_is_small_enough_for_a_repository(self, path: Path) -> None:
        assert path.stat().st_size < LARGEST_FILE

    def test_no_output_is_an_error_a_warning_or_a_path(self, path: Path) -> None:
        assert load_execute().faults(read(path)) == []

    def test_no_source_holds_a_path_of_a_machine(self, path: Path) -> None:
        pattern = load_execute().ABSOLUTE_PATH
        lines = [line for cell in read(path)["cells"] for line in text(cell).splitlines()]
        assert [line for line in lines if pattern.search(line)] == []

    def test_is_as_the_executing_script_would_write_it(self, path: Path) -> None:
        notebook = read(path)
        assert load_execute().clean(copy.deepcopy(notebook)) == notebook

    def test_every_name_it_imports_from_this_package_exists(self, path: Path) -> None:
        imported = [node for tree in syntax_trees(path) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        ours = [node for node in imported if (node.module or "").split(".")[0] == "monai_landmarks"]
        assert ours
        for node in ours:
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []

    def test_imports_nothing_that_it_does_not_use(self, path: Path) -> None:
        nodes = [node for tree in syntax_trees(path) for node in ast.walk(tree)]
        imports = [alias for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names]
        used = {node.id for node in nodes if isinstance(node, ast.Name)}
        assert {(alias.asname or alias.name).split(".")[0] for alias in imports} <= used


class TestExecutingScript:
    def notebook(self, *outputs: dict[str, Any]) -> dict[str, Any]:
        cell = {
            "cell_type": "code",
            "id": "a",
            "source": "1",
            "execution_count": 1,
            "metadata": {"t": 1},
            "outputs": list(outputs),
        }
        return {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {"language_info": {"version": "3.1"}},
            "cells": [copy.deepcopy(cell)],
        }

    def test_clean_drops_what_changes_from_run_to_run_and_keeps_the_picture(self) -> None:
        picture = {
            "output_type": "display_data",
            "metadata": {"w": 1},
            "data": {"image/png": "x", "text/plain": "<at>"},
        }
        cleaned = load_execute().clean(self.notebook(picture))
        assert cleaned["metadata"]["language_info"] == {"name": "python"}
        assert cleaned["cells"][0]["metadata"] == {}
        assert cleaned["cells"][0]["outputs"][0] == {**picture, "metadata": {}, "data": {"image/png": "x"}}

    @pytest.mark.parametrize(
        ("output", "word"),
        [
            ({"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}, "ValueError"),
            ({"output_type": "stream", "name": "stderr", "text": "UserWarning: old"}, "UserWarning"),
            ({"output_type": "stream", "name": "stdout", "text": ["a\n", "in /home/me/films"]}, "absolute path"),
            ({"output_type": "execute_result", "data": {"text/plain": "'/tmp/x/y.png'"}}, "absolute path"),
            ({"output_type": "stream", "name": "stdout", "text": "C:\\films"}, "absolute path"),
        ],
    )
    def test_faults_are_named(self, output: dict[str, Any], word: str) -> None:
        (fault,) = load_execute().faults(self.notebook(output))
        assert fault.startswith("cell 0 ")
        assert word in fault

    @pytest.mark.parametrize("harmless", ["phantom/RawImage/001.png", "https://host.org/opt/x", "1/2 and 3 / 4"])
    def test_other_slashes_are_no_fault(self, harmless: str) -> None:
        assert load_execute().faults(self.notebook({"output_type": "stream", "name": "stdout", "text": harmless})) == []

    def test_a_notebook_that_is_not_there_is_a_failure(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert load_execute().main(["no_such.ipynb"]) == 1
        assert "no_such.ipynb" in capsys.readouterr().err

    def test_a_failing_notebook_fails_the_run_and_keeps_the_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "one.ipynb"
        path.write_text("before", encoding="utf-8")
        script = load_execute()

        def fail(*_: Any) -> Any:
            raise RuntimeError("the cell and its traceback")

        monkeypatch.setattr(script, "execute", fail)
        assert script.main(["--in-place", str(path)]) == 1
        assert "the cell and its traceback" in capsys.readouterr().err
        assert path.read_text(encoding="utf-8") == "before"

    def test_in_place_writes_what_was_executed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        nbformat = pytest.importorskip("nbformat")
        path = tmp_path / "one.ipynb"
        path.write_text("before", encoding="utf-8")
        script = load_execute()
        result = nbformat.from_dict(self.notebook({"output_type": "stream", "name": "stdout", "text": "fine"}))
        monkeypatch.setattr(script, "execute", lambda *_: result)
        assert script.main([str(path)]) == 0
        assert path.read_text(encoding="utf-8") == "before"
        assert script.main(["--in-place", str(path)]) == 0
        assert read(path)["cells"][0]["outputs"][0]["text"] == ["fine"]
        assert [p.name for p in tmp_path.iterdir()] == ["one.ipynb"]

    def test_nothing_of_jupyter_is_needed_to_read_the_script(self) -> None:
        before = set(sys.modules)
        load_execute()
        assert not {"nbclient", "nbformat"} & (set(sys.modules) - before)
