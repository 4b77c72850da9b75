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
"""The harness: time calls, measure the memory they need, put both beside references and targets in one table."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = [
    "Case",
    "Memory",
    "Settings",
    "Timing",
    "format_table",
    "measure_cases",
    "peak_memory",
    "preload",
    "time_calls",
]

Run = Callable[[], object]
ROLES = ("ours", "monai", "plain")
#: Beyond this, a case is called no more than three times.
PATIENCE_SECONDS = 10.0
MOST_CALLS = 200
#: Below this, a measured memory cannot be told from what the interpreter and the allocator do.
RESOLUTION_BYTES = 1_000_000


class Timing(NamedTuple):
    """Wall-clock seconds of one call: the best and the median of ``calls`` calls."""

    best: float
    median: float
    calls: int


class Memory(NamedTuple):
    """Peak of the resident memory of a process during a call, minus what it had before; and how that was read."""

    extra_bytes: int
    method: str


@dataclass(frozen=True)
class Settings:
    """What the command line asks of every case.

    Attributes:
        repeats: calls of which the best and the median are given.
        threads: of torch, in this process and in those that measure memory; None keeps torch's own choice.
        memory: whether memory is measured.
        least_seconds: a case that took less than this in total is called more often.
    """

    repeats: int = 5
    threads: int | None = None
    memory: bool = True
    least_seconds: float = 0.25


@dataclass(frozen=True)
class Case:
    """One row of a table.

    Attributes:
        name: of the row.
        make: builds the inputs and returns the call to measure. It must be picklable (``functools.partial`` of a
            function of a module), because the memory is measured in another process.
        group: rows of one group do the same work and are put in relation.
        role: "ours", or the reference that ours is divided by: "monai" or "plain".
        size_bytes: the tensor that memory is given in multiples of.
        scale: the measured call does only this fraction of the work; time and memory are divided by it.
        memory: whether the case needs enough memory for a measurement to say anything.
        heavy: a single call takes many seconds: no warm-up, and only two calls.
        checks: further columns by name, such as errors against the formula, computed once and not timed.
        limits: targets by column: "seconds", "memory_bytes", "memory_ratio" or a name in what ``checks`` returns.
    """

    name: str
    make: Callable[[], Run]
    group: str
    role: str = "ours"
    size_bytes: int | None = None
    scale: float = 1.0
    memory: bool = True
    heavy: bool = False
    checks: Callable[[], Mapping[str, float]] | None = None
    limits: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"`role` must be one of {ROLES}, got {self.role!r}.")
        if not 0 < self.scale <= 1:
            raise ValueError(f"`scale` must be the fraction of the work that is done, in (0, 1], got {self.scale}.")
        if "memory_ratio" in self.limits and not self.size_bytes:
            raise ValueError(f"case {self.name!r} limits `memory_ratio` without `size_bytes`.")


def time_calls(run: Run, repeats: int = 5, heavy: bool = False, least_seconds: float = 0.25) -> Timing:
    """Time calls one by one, after one that is not counted.

    Freeing the result is not counted. Short calls are repeated until they took ``least_seconds`` together, so that the
    best of them is not a matter of luck; once they took ten seconds, three are enough.

    Args:
        run: the call.
        repeats: calls asked for.
        heavy: two calls, none before them.
        least_seconds: see above.

    Returns:
        a :class:`Timing`.

    Raises:
        ValueError: for fewer than one repeat.

    Example:
        >>> time_calls(lambda: time.sleep(0.001), repeats=2).best > 0.0009
        True
    """
    if repeats < 1:
        raise ValueError(f"`repeats` must be at least 1, got {repeats}.")
    if not heavy:
        run()
    seconds: list[float] = []
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()
    try:
        while _wants_more(seconds, 2 if heavy else repeats, 0.0 if heavy else least_seconds):
            start = time.perf_counter()
            result = run()
            seconds.append(time.perf_counter() - start)
            del result
    finally:
        if collecting:
            gc.enable()
    return Timing(min(seconds), statistics.median(seconds), len(seconds))


def processor_seconds(run: Run) -> float:
    """Time one call by the clock of all its threads, which, unlike the wall's, leaves out what other programs took."""
    start = time.process_time()
    run()
    return time.process_time() - start


def _wants_more(seconds: Sequence[float], repeats: int, least_seconds: float) -> bool:
    calls, total = len(seconds), sum(seconds)
    if calls < repeats:
        return calls < 3 or total < PATIENCE_SECONDS
    return total < least_seconds and calls < MOST_CALLS


def peak_memory(make: Callable[[], Run], threads: int | None = None, warm: bool = True) -> Memory | None:
    """Measure, in a fresh process, how much resident memory a call needs beyond its inputs, the result included.

    The process builds the inputs, calls once so that thread pools and lazily loaded code are there (``warm``), gives
    free memory back to the system, resets the kernel's high-water mark and calls again. Where the mark cannot be reset
    (anything but Linux), it also covers the building of the inputs and is an upper bound; ``Memory.method`` says so.

    Args:
        make: as in :class:`Case`.
        threads: of torch.
        warm: whether the call that counts is the second.

    Returns:
        a :class:`Memory`; None, with a line on stderr, if the process did not live to tell.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    # typeshed gives a base class without Process here
    process = context.Process(target=_measure_in_child, args=(sender, make, threads, warm))  # type: ignore[attr-defined]
    process.start()
    sender.close()
    try:
        memory: Memory | None = receiver.recv()
    except EOFError:
        memory = None
    process.join()
    if memory is None:
        print(f"memory was not measured: its process ended with exit code {process.exitcode}", file=sys.stderr)
    return memory


def preload(modules: Iterable[str]) -> None:
    """Have the processes of :func:`peak_memory` start with these modules imported, which saves seconds for each."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.get_context("forkserver").set_forkserver_preload(list(modules))


def _measure_in_child(sender: Any, make: Callable[[], Run], threads: int | None, warm: bool) -> None:
    _return_freed_memory()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    run = make()
    if warm:
        run()
    gc.collect()
    _trim()
    before = _resident_bytes()
    method = "VmHWM" if _reset_peak() else "ru_maxrss, upper bound"
    result = run()
    peak = _peak_bytes()
    del result
    sender.send(Memory(max(0, peak - before), method))
    sender.close()


def _return_freed_memory() -> None:
    """Make glibc map every block above 64 KiB on its own: else blocks freed before the call hide what it needs."""
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is not None:
        mallopt(-3, 65536)  # M_MMAP_THRESHOLD


def _trim() -> None:
    malloc_trim = getattr(_libc(), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def _libc() -> Any:
    return ctypes.CDLL(None) if os.name == "posix" else None


def _reset_peak() -> bool:
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def _status_bytes(key: str) -> int | None:
    try:
        with open("/proc/self/status") as file:
            lines = [line for line in file if line.startswith(key)]
    except OSError:
        return None
    return int(lines[0].split()[1]) * 1024 if lines else None


def _resident_bytes() -> int:
    resident = _status_bytes("VmRSS:")
    if resident is not None:
        return resident
    import psutil  # type: ignore[import-untyped, unused-ignore]

    return int(psutil.Process().memory_info().rss)


def _peak_bytes() -> int:
    peak = _status_bytes("VmHWM:")
    if peak is not None:
        return peak
    if os.name != "posix":
        import psutil  # type: ignore[import-untyped, unused-ignore]

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    # macOS counts in bytes, all others in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure_cases(cases: Sequence[Case], settings: Settings) -> list[dict[str, Any]]:
    """Measure all cases, then put those of one group in relation and those with limits beside them.

    Args:
        cases: of one subject.
        settings: see :class:`Settings`.

    Returns:
        one dictionary of plain values for each case, in order: ``case, group, role, calls, seconds, seconds_median,
        memory_bytes, memory_method, memory_ratio, checks, ratio_monai, ratio_plain, limits, passed``. Ratios are the
        reference's best time over that of the row: 3 is three times as fast. What was not measured is None.
    """
    rows = [_measure(case, settings) for case in cases]
    for row in rows:
        for reference in ("monai", "plain"):
            times = [r["seconds"] for r in rows if r["group"] == row["group"] and r["role"] == reference]
            row[f"ratio_{reference}"] = times[0] / row["seconds"] if times and row["role"] == "ours" else None
    return rows


def _measure(case: Case, settings: Settings) -> dict[str, Any]:
    print(f"  {case.name} ...", file=sys.stderr, flush=True)
    timing = time_calls(case.make(), settings.repeats, case.heavy, settings.least_seconds)
    wanted = settings.memory and case.memory
    memory = peak_memory(case.make, settings.threads, warm=not case.heavy) if wanted else None
    extra = None if memory is None else round(memory.extra_bytes / case.scale)
    row: dict[str, Any] = {
        "case": case.name,
        "group": case.group,
        "role": case.role,
        "scale": case.scale,
        "calls": timing.calls,
        "seconds": timing.best / case.scale,
        "seconds_median": timing.median / case.scale,
        "memory_bytes": extra,
        "memory_method": None if memory is None else memory.method,
        "memory_ratio": extra / case.size_bytes if extra is not None and case.size_bytes else None,
        "checks": {key: float(value) for key, value in case.checks().items()} if case.checks else {},
        "limits": dict(case.limits),
    }
    row["passed"] = {key: _passes(row, key, limit) for key, limit in case.limits.items()}
    return row


def _passes(row: Mapping[str, Any], key: str, limit: float) -> bool | None:
    value = row[key] if key in row else row["checks"].get(key)
    return None if value is None else bool(value <= limit)


def format_table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as an aligned table for the terminal; columns that no row fills are left out.

    Args:
        title: line above the table.
        rows: from :func:`measure_cases`.

    Returns:
        lines joined with newlines.
    """
    checks = list(dict.fromkeys(key for row in rows for key in row["checks"]))
    header = ["case", "best s", "median s", "calls", "peak MB", "of size", *checks]
    header += ["x MONAI", "x plain", "target", "verdict"]
    lines = [_cells(row, checks) for row in rows]
    kept = [i for i in range(len(header)) if any(line[i] for line in lines)]
    cells = [[line[i] for i in kept] for line in ([header, *lines])]
    widths = [max(len(line[i]) for line in cells) for i in range(len(kept))]
    text = [
        "  ".join(_pad(cell, width, i == 0) for i, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    ]
    text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([title, *(line.rstrip() for line in text)])


def _pad(cell: str, width: int, left: bool) -> str:
    return cell.ljust(width) if left else cell.rjust(width)


def _cells(row: Mapping[str, Any], checks: Sequence[str]) -> list[str]:
    memory, ratio = row["memory_bytes"], row["memory_ratio"]
    small = memory is not None and memory < RESOLUTION_BYTES
    return [
        row["case"],
        _seconds(row["seconds"]),
        _seconds(row["seconds_median"]),
        str(row["calls"]),
        "" if memory is None else "<1" if small else f"{memory / 1e6:.1f}",
        "" if ratio is None or small else f"{ratio:.2f}",
        *(_check(row["checks"][key]) if key in row["checks"] else "" for key in checks),
        *("" if row[key] is None else f"{row[key]:.3g}" for key in ("ratio_monai", "ratio_plain")),
        ", ".join(dict.fromkeys(_limit(key, value) for key, value in row["limits"].items())),
        _verdict(row["passed"]),
    ]


def _seconds(value: float) -> str:
    return f"{value:.5f}" if value < 0.1 else f"{value:.3f}"


def _check(value: float) -> str:
    """Errors by their magnitude, counts and amounts in full."""
    return f"{value:.1e}" if 0 < value < 0.01 else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _limit(key: str, value: float) -> str:
    return {
        "seconds": f"{value:g} s",
        "memory_bytes": f"{value / 1e9:g} GB",
        "memory_ratio": f"{value:g} of size",
    }.get(key, f"{value:g} error")


def _verdict(passed: Mapping[str, bool | None]) -> str:
    missed = [key for key, value in passed.items() if value is False]
    unknown = [key for key, value in passed.items() if value is None]
    if missed:
        return "miss: " + ", ".join(missed)
    return "" if not passed else "pass" if not unknown else "pass; not measured: " + ", ".join(unknown)
