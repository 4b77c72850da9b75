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
"""The harness measures what it says, and every subject runs."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import __main__ as command
from benchmarks import timing
from benchmarks.timing import Case, Settings, format_table, measure_cases, peak_memory, time_calls

MB = 1_000_000
NUMBER = {"type": "number", "minimum": 0}
MAYBE_NUMBER = {"type": ["number", "null"], "minimum": 0}
ROW_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["case", "seconds", "seconds_median", "memory_bytes", "ratio_monai", "ratio_plain", "passed"],
    "properties": {
        "case": {"type": "string"},
        "group": {"type": "string"},
        "role": {"enum": ["ours", "monai", "plain"]},
        "scale": NUMBER,
        "calls": {"type": "integer", "minimum": 1},
        "seconds": NUMBER,
        "seconds_median": NUMBER,
        "memory_bytes": {"type": ["integer", "null"], "minimum": 0},
        "memory_method": {"type": ["string", "null"]},
        "memory_ratio": MAYBE_NUMBER,
        "ratio_monai": MAYBE_NUMBER,
        "ratio_plain": MAYBE_NUMBER,
        "checks": {"type": "object", "additionalProperties": NUMBER},
        "limits": {"type": "object", "additionalProperties": NUMBER},
        "passed": {"type": "object", "additionalProperties": {"type": ["boolean", "null"]}},
    },
}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["schema", "created", "options", "hardware", "subjects"],
    "properties": {
        "schema": {"const": 1},
        "created": {"type": "string"},
        "options": {"type": "object", "required": ["only", "repeats", "quick", "full"]},
        "hardware": {
            "type": "object",
            "required": ["cpu", "logical_cores", "threads", "torch", "monai", "monai_landmarks", "commit"],
        },
        "subjects": {"type": "object", "additionalProperties": {"type": "array", "items": ROW_SCHEMA}},
    },
}


def sleeper(seconds: float) -> Callable[[], object]:
    return partial(time.sleep, seconds)


def allocate(megabytes: int) -> np.ndarray:
    return np.ones(megabytes * MB, dtype=np.uint8)


def allocate_and_free(megabytes: int, rest: int) -> np.ndarray:
    allocate(megabytes)
    return allocate(rest)


def make_allocation(inputs: int, megabytes: int, rest: int) -> Callable[[], object]:
    kept = allocate(inputs)
    del_later = allocate(megabytes)  # freed below: blocks that are free already must not hide what the call needs
    del del_later
    return lambda: (kept, allocate_and_free(megabytes, rest))


class TestTiming:
    def test_best_is_the_length_of_a_call(self):
        timing_of_sleep = time_calls(sleeper(0.02), repeats=3, least_seconds=0.0)
        assert timing_of_sleep.calls == 3
        assert 0.0199 <= timing_of_sleep.best <= timing_of_sleep.median

    @pytest.mark.parametrize(
        ("options", "calls"),
        [
            ({"repeats": 4, "least_seconds": 0.0}, 1 + 4),
            ({"repeats": 4, "heavy": True}, 2),
            ({"repeats": 1, "least_seconds": 1e9}, 1 + timing.MOST_CALLS),
        ],
    )
    def test_number_of_calls(self, options, calls):
        counted = []
        time_calls(lambda: counted.append(0), **options)
        assert len(counted) == calls

    def test_three_calls_are_enough_for_slow_ones(self, monkeypatch):
        monkeypatch.setattr(timing, "PATIENCE_SECONDS", 0.01)
        assert time_calls(sleeper(0.01), repeats=50).calls == 3

    def test_no_repeat_is_an_error(self):
        with pytest.raises(ValueError, match="at least 1"):
            time_calls(sleeper(0), repeats=0)


class TestMemory:
    @pytest.mark.parametrize(
        ("inputs", "temporary", "result"),
        [
            (0, 64, 0),  # freed before the end
            (0, 16, 64),
            (100, 32, 0),  # inputs do not count
        ],
    )
    def test_known_allocation(self, inputs, temporary, result):
        memory = peak_memory(partial(make_allocation, inputs, temporary, result))
        assert memory is not None
        if memory.method != "VmHWM":
            pytest.skip("the system does not reset the high-water mark: upper bound only")
        assert memory.extra_bytes == pytest.approx(max(temporary, result) * MB, abs=1.5 * MB)

    def test_a_process_that_dies_is_reported(self, capsys):
        assert peak_memory(partial(os._exit, 3)) is None
        assert "exit code 3" in capsys.readouterr().err


class TestTable:
    def test_relations_scale_and_limits(self):
        cases = [
            Case(
                "a", partial(sleeper, 0.01), "g", limits={"seconds": 5.0, "error": 0.1}, checks=lambda: {"error": 0.2}
            ),
            Case("m", partial(sleeper, 0.01), "g", role="monai", scale=0.25),
            Case("p", partial(sleeper, 0.02), "g", role="plain"),
            Case("b", partial(sleeper, 0.01), "other", size_bytes=8, limits={"memory_ratio": 1.1}),
        ]
        rows = measure_cases(cases, Settings(repeats=2, memory=False, least_seconds=0.0))
        ours, monai, plain, other = rows
        assert monai["seconds"] >= 0.04
        assert ours["ratio_monai"] == monai["seconds"] / ours["seconds"]
        assert ours["ratio_plain"] == plain["seconds"] / ours["seconds"]
        assert ours["passed"] == {"seconds": True, "error": False}
        assert monai["ratio_plain"] is None
        assert other["ratio_monai"] is None
        assert other["passed"] == {"memory_ratio": None}
        text = format_table("title", rows)
        assert "miss: error" in text
        assert "not measured: memory_ratio" in text

    def test_layout(self):
        empty: dict[str, Any] = {
            "memory_bytes": None,
            "memory_ratio": None,
            "ratio_monai": None,
            "checks": {},
            "limits": {},
        }
        rows = [
            {**empty, "case": "ours", "seconds": 0.00123, "seconds_median": 0.25, "calls": 5, "ratio_plain": 12.0}
            | {"memory_bytes": 21_000_000, "memory_ratio": 1.05}
            | {"limits": {"seconds": 0.006, "memory_ratio": 1.1}, "passed": {"seconds": True, "memory_ratio": True}},
            {**empty, "case": "plain formula", "seconds": 0.01476, "seconds_median": 12.5, "calls": 15}
            | {"ratio_plain": None, "passed": {}, "memory_bytes": 900},
        ]
        assert format_table("Subject", rows).split("\n") == [
            "Subject",
            "case            best s  median s  calls  peak MB  of size  x plain                target  verdict",
            "-------------  -------  --------  -----  -------  -------  -------  --------------------  -------",
            "ours           0.00123     0.250      5     21.0     1.05       12  0.006 s, 1.1 of size     pass",
            "plain formula  0.01476    12.500     15       <1",
        ]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"role": "theirs"}, "role"),
            ({"scale": 2.0}, "fraction"),
            ({"limits": {"memory_ratio": 1.1}}, "size_bytes"),
        ],
    )
    def test_wrong_cases(self, options, message):
        with pytest.raises(ValueError, match=message):
            Case("a", partial(sleeper, 0), "g", **options)


class TestSubjects:
    @pytest.mark.parametrize("subject", command.SUBJECTS)
    @pytest.mark.parametrize("size", [{}, {"quick": True}, {"full": True}])
    def test_cases_can_be_sent_to_a_process_and_told_apart(self, subject, size):
        cases = importlib.import_module(f"benchmarks.{subject}").cases(**size)
        assert len({case.name for case in cases}) == len(cases) > 0
        for case in cases:
            pickle.loads(pickle.dumps(case.make))

    @pytest.mark.parametrize(
        ("subject", "name", "limits"),
        [
            ("targets", "19 at 512x512, gaussian_heatmaps", {"seconds": 0.006}),
            ("targets", "26 at 96x96x192, gaussian_heatmaps", {"seconds": 0.06, "memory_ratio": 1.1}),
            ("decoding", "19 at 512x512, argmax", {"seconds": 0.0004}),
            ("decoding", "26 at 96x96x192, argmax", {"seconds": 0.004}),
            ("decoding", "19 at 512x512, dark", {"seconds": 0.001, "error": 0.01, "at border": 0.01}),
            ("decoding", "26 at 96x96x192, gaussian_fit", {"seconds": 0.005, "error": 0.01, "at border": 0.01}),
            ("losses", "26 at 96x96x192, HeatmapL2Loss, learnt sigma", {"memory_ratio": 1.1}),
            ("metrics", "1000 x 19, mean and SDR at 4 radii", {"seconds": 0.001}),
            ("metrics", "1000 x 19, mean and SDR, bootstrap of mean", {"seconds": 0.2}),
        ],
    )
    def test_targets_are_those_of_the_project(self, subject, name, limits):
        cases = {case.name: case for case in importlib.import_module(f"benchmarks.{subject}").cases()}
        assert limits.items() <= cases[name].limits.items()

    def test_references_are_the_formulas(self):
        torch = pytest.importorskip("torch")
        targets, decoding = (importlib.import_module(f"benchmarks.{name}") for name in ("targets", "decoding"))
        maps = targets.dense_gaussians(torch.tensor([[[3.25, 4.5, 1.0]]], dtype=torch.float64), (8, 9, 3))
        assert maps[0, 0, 2, 6, 0].item() == pytest.approx(np.exp(-(1.25**2 + 1.5**2 + 1) / (2 * targets.SIGMA**2)))
        noise = torch.rand(2, 3, 8, 9, 3)
        flat = noise.reshape(6, -1).numpy().argmax(axis=1)
        expected = np.stack(np.unravel_index(flat, (8, 9, 3)), axis=-1).reshape(2, 3, 3)
        assert (decoding.plain_argmax(noise).numpy() == expected).all()
        points = decoding.border_points(200, (20, 30))
        depth = torch.minimum(points, torch.tensor([19.0, 29.0]) - points).amin(dim=-1)
        assert (depth >= 0).all()
        assert (depth <= 1).all()


class TestCommand:
    def test_quick_run_of_everything_writes_what_the_schema_says(self, tmp_path, capsys):
        jsonschema = pytest.importorskip("jsonschema")
        path = tmp_path / "numbers.json"
        assert command.main(["--quick", "--repeats", "1", "--json", str(path)]) == 0
        record = json.loads(path.read_text())
        jsonschema.validate(record, SCHEMA)
        assert tuple(record["subjects"]) == command.SUBJECTS
        printed = capsys.readouterr().out
        assert all(f"\n{subject}: " in printed for subject in command.SUBJECTS)
        assert "nan" not in printed

    def test_one_subject_is_quick(self, capsys):
        # Processor time, because other programs may run beside the tests.
        start = time.process_time()
        command.main(["--quick", "--only", "metrics"])
        assert time.process_time() - start < 10
        printed = capsys.readouterr().out
        assert "metrics: " in printed
        assert "targets: " not in printed

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--only", "target"], "no subject 'target'; there are: targets, decoding"),
            (["--repeats", "0"], "at least 1"),
            (["--quick", "--full"], "not allowed with"),
        ],
    )
    def test_wrong_arguments(self, arguments, message, capsys):
        with pytest.raises(SystemExit):
            command.main(arguments)
        assert message in capsys.readouterr().err

    def test_package_that_does_not_import(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "monai_landmarks", None)
        with pytest.raises(SystemExit, match=r"monai_landmarks does not import.*repository's root"):
            command.main(["--quick", "--only", "metrics"])


def test_subject_may_stand_alone_or_behind_only() -> None:
    assert command.parse([]).only == command.parse(["--quick"]).only
    assert command.parse(["inference"]).only == command.parse(["--only", "inference"]).only == ("inference",)
    assert command.parse(["targets,losses", "--quick"]).only == ("targets", "losses")
