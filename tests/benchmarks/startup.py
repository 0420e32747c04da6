"""What starting costs: Dagster loads the definitions in every process that runs a step."""

from collections.abc import Sequence

from tests.benchmarks.registry import Bench, Row, Times, at_most, benchmark, in_fresh_process

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
