"""What starting costs: the definitions, which Dagster loads in every process that runs a step, and the commands."""

import resource
import subprocess
import sys
from collections.abc import Sequence

from pipelines.cli import COMMANDS
from tests.benchmarks.registry import REPOSITORY, Bench, Row, Times, at_most, benchmark, in_fresh_process

_N_ROUNDS = 5
_IMPORT = """
import importlib, json, sys, time
start = time.process_time()
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps({"cpu_s": time.process_time() - start}))
"""
_COMPILE = """
import json, time
from editorbot_core.analysis.features.extraction import warm_up
start = time.process_time()
warm_up()
print(json.dumps({"cpu_s": time.process_time() - start}))
"""


@benchmark("startup")
def startup(bench: Bench) -> Sequence[Row]:
    """Processor time of importing the definitions, against what they are written in, in turns."""
    parts = {"alone": ("dagster", "pandas"), "ours": ("pipelines.definitions",)}
    runs: dict[str, list[float]] = {name: [] for name in parts}
    for i in range(_N_ROUNDS):
        bench.say(f"round {i + 1} of {_N_ROUNDS}")
        for name, found in runs.items():
            found.append(float(in_fresh_process(_IMPORT, *parts[name])["cpu_s"]))
    alone, ours = (Times(tuple(runs[name])) for name in parts)
    over = ours.median / alone.median
    bench.say("compiling")
    compiling = float(in_fresh_process(_COMPILE, environment={"NUMBA_CACHE_DIR": str(bench.folder)})["cpu_s"])
    return [
        Row("compiling what analyses songs, once per installation", compiling, "CPU-s"),
        Row(
            f"import of the definitions, total / Dagster and pandas alone = {over:.2f}",
            ours.median,
            "CPU-s",
            "import dagster, pandas",
            alone.median,
            1 / over,
            **at_most(over, 1.25, "total / alone"),
            details={"ours": ours.details(), "alone": alone.details()},
        ),
    ]


# A wrong path for every command that takes one, and other refusals; every one exits with status 2.
_REFUSALS = {
    "run": ("--songs", "nowhere"),
    "ui": ("--rating_port", "0"),
    "rate": ("--port", "0"),
    "edit": ("--audio", "nowhere.wav", "--output", "edited.wav"),
    "grid": ("nowhere.wav",),
    "demo": ("README.md",),
    "train": ("--data_dir", "nowhere"),
    "evaluate": ("--checkpoint", "nowhere.pt", "--test_dir", "nowhere"),
    "study": ("--train", "nowhere", "--test", "nowhere"),
    "train-listening": ("nowhere",),
    "tune-tracker": ("nowhere",),
}
# What a command may cost above starting Python, CPU-s.
_MOST_CPU_S = 0.5


def _cpu_s(*arguments: str, status: int) -> float:
    """Processor time of a Python process and its children; the least of three."""
    runs = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if found.returncode != status:
            raise RuntimeError(f"{' '.join(arguments)}: status {found.returncode}: {found.stderr[-300:]!r}")
        runs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(runs)


@benchmark("commands")
def commands(bench: Bench) -> Sequence[Row]:
    """Processor time of `--help` and of a refusal of every command, above that of `python -c pass`."""
    python = _cpu_s("-c", "pass", status=0)
    rows = []
    for name in COMMANDS:
        bench.say(name)
        command = ("-m", "pipelines.cli", name)
        shown = _cpu_s(*command, "--help", status=0) - python
        refused = _cpu_s(*command, *_REFUSALS[name], status=2) - python
        over = max(shown, refused)
        rows.append(
            Row(
                f"{name}: --help or a wrong argument, above starting Python",
                over,
                "CPU-s",
                "python -c pass",
                python,
                details={"help": shown, "refusal": refused},
                **at_most(over, _MOST_CPU_S),
            )
        )
    return rows
