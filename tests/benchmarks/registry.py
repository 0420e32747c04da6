"""The registry of benchmarks, what they return, and how they take time."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: What is measured.
        figure: Of EditorBot.
        unit: Of both figures.
        alternative: Name of what it is compared with, or "".
        alternative_figure: Of the alternative, or None.
        ratio: How many times better than the alternative, above 1 is better; None where no ratio makes sense.
        target: Condition in words, such as "ratio >= 50", or "".
        met: Whether the target is met; None without a target.
        details: Everything else worth keeping, for the JSON file.
    """

    what: str
    figure: float
    unit: str
    alternative: str = ""
    alternative_figure: float | None = None
    ratio: float | None = None
    target: str = ""
    met: bool | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """What a benchmark gets.

    Attributes:
        folder: For its files; removed afterwards.
        songs: Folder of annotated songs, or None.
        say: Shows a line of progress.
    """

    folder: Path
    songs: Path | None
    say: Callable[[str], None]


Benchmark = Callable[[Bench], Sequence[Row]]
BENCHMARKS: dict[str, Benchmark] = {}


def benchmark(name: str) -> Callable[[Benchmark], Benchmark]:
    """Register a benchmark under `name`."""

    def register(function: Benchmark) -> Benchmark:
        if name in BENCHMARKS:
            raise ValueError(f"two benchmarks are called {name!r}")
        BENCHMARKS[name] = function
        return function

    return register


def at_least(value: float, least: float, what: str = "ratio") -> dict[str, Any]:
    """Fields `target` and `met` of a row."""
    return {"target": f"{what} >= {least:g}", "met": bool(value >= least)}


def at_most(value: float, most: float, what: str = "figure") -> dict[str, Any]:
    """Fields `target` and `met` of a row."""
    return {"target": f"{what} <= {most:g}", "met": bool(value <= most)}


@dataclass(frozen=True)
class Times:
    """Wall-clock seconds of several runs."""

    runs: tuple[float, ...]

    @property
    def best(self) -> float:
        """The shortest."""
        return min(self.runs)

    @property
    def median(self) -> float:
        """The middle one."""
        return float(np.median(self.runs))

    def details(self) -> dict[str, Any]:
        """For the JSON file."""
        return {"best_s": self.best, "median_s": self.median, "runs_s": list(self.runs)}


def timed(function: Callable[[], object], n_runs: int) -> Times:
    """Times of `n_runs` runs; warm up first."""
    runs = []
    for _ in range(n_runs):
        start = time.perf_counter()
        function()
        runs.append(time.perf_counter() - start)
    return Times(tuple(runs))


def taking_turns(functions: Mapping[str, Callable[[], object]], turns: Sequence[str]) -> dict[str, Times]:
    """Times of functions that are run in the order of `turns`, by name."""
    runs: dict[str, list[float]] = {}
    for name in turns:
        runs.setdefault(name, []).append(timed(functions[name], 1).best)
    return {name: Times(tuple(found)) for name, found in runs.items()}


@contextmanager
def on_one_core() -> Iterator[None]:
    """Keep this process and its children on one processor."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    processes = [0, *map(int, children)]
    try:
        for process in processes:
            os.sched_setaffinity(process, {max(before)})
        yield
    finally:
        for process in processes:
            os.sched_setaffinity(process, before)


def peak_rss_mb() -> float:
    """Largest resident set of this process so far, MB."""
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike the maximum of getrusage, this one does not begin with that of the parent process.
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1_024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def in_fresh_process(script: str, *arguments: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What `script` prints as JSON, run by a Python process of its own, with additions to the environment."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"status {done.returncode}: {done.stderr.strip()[-1000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
