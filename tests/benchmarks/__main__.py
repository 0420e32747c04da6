"""Run the benchmarks: `python -m tests.benchmarks [--only NAME ...] [--songs FOLDER] [--output bench.json]`."""

import argparse
import importlib
import importlib.metadata
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Chosen before numerical libraries start their threads.
for _library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
    os.environ[f"{_library}_NUM_THREADS"] = "1"

MODULES = ("features", "startup", "processes", "music", "learning")
_VERSIONS = (
    *("numpy", "scipy", "numba", "librosa", "soundfile", "soxr", "mir_eval", "pyarrow", "torch"),
    *("gymnasium", "stable_baselines3", "editorbot"),
)


def _machine() -> dict[str, Any]:
    processor = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].split(":", 1)[1].strip() if names else processor
    return {
        "processor": processor,
        "n_processors": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": list(os.getloadavg()),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for name in _VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if abs(value) < 1_000 else f"{value:,.0f}"


def _table(rows: list[dict[str, Any]]) -> str:
    heads = ("", "figure", "", "alternative", "its figure", "ratio", "target", "")
    lines = [heads]
    section = ""
    for row in rows:
        if row["benchmark"] != section:
            section = row["benchmark"]
            lines.append((section.upper(), *[""] * (len(heads) - 1)))
        lines.append(
            (
                f"  {row['what']}",
                _number(row["figure"]),
                row["unit"],
                row["alternative"],
                _number(row["alternative_figure"]),
                f"{row['ratio']:.3g}x" if row["ratio"] is not None else "",
                row["target"],
                {True: "met", False: "MISSED", None: ""}[row["met"]],
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    right = {1, 4, 5}
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks that were asked for; the status is 0 if they ran, whether or not targets were met."""
    from editorbot_core.base.files import write_json
    from tests.benchmarks.registry import BENCHMARKS, Bench

    for module in MODULES:
        importlib.import_module(f"tests.benchmarks.{module}")
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", metavar="NAME", action="append", choices=list(BENCHMARKS), help="run only this one")
    parser.add_argument("--songs", metavar="FOLDER", type=Path, help="annotated songs; without, demo songs")
    parser.add_argument("--output", metavar="FILE", type=Path, default=Path("bench.json"), help="default: bench.json")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for name in options.only or list(BENCHMARKS):
        start = time.perf_counter()

        def say(line: str, name: str = name) -> None:
            print(f"[{name}] {line}", file=sys.stderr, flush=True)

        say("started")
        with tempfile.TemporaryDirectory(prefix="editorbot-bench-") as folder:
            found = BENCHMARKS[name](Bench(Path(folder), options.songs, say))
        rows += [{"benchmark": name, **asdict(row)} for row in found]
        say(f"done in {time.perf_counter() - start:.0f} s")
    document = {"schema": "editorbot.bench/1", "machine": _machine(), "versions": _versions(), "rows": rows}
    write_json(options.output, document)
    print(_table(rows))
    print(f"all figures: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
