"""Memory of long songs, and how analysis scales over processes."""

import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from editorbot_core.songs.ingestion import AnalysisPool
from tests.benchmarks.material import write_song
from tests.benchmarks.registry import Bench, Row, at_least, at_most, benchmark, in_fresh_process, on_one_core

_LENGTHS = (("30 s", 30.0, None), ("3 min", 180.0, None), ("30 min", 1_800.0, 300.0), ("2 h", 7_200.0, 500.0))
_N_SONGS = 12
_MEMORY = """
import json, sys, time
from editorbot_core.analysis.features.extraction import analyse, warm_up
from tests.benchmarks.registry import peak_rss_mb
warm_up()
analyse(sys.argv[2])
before, start = peak_rss_mb(), time.perf_counter()
n_beats = analyse(sys.argv[1]).features.n_beats
print(json.dumps({"extra_mb": peak_rss_mb() - before, "seconds": time.perf_counter() - start, "n_beats": n_beats}))
"""


@benchmark("memory")
def memory(bench: Bench) -> Sequence[Row]:
    """What `analyse` needs above the process that imported it and has analysed five seconds."""
    warm = write_song(bench.folder / "warm.wav", 5.0)
    rows = []
    for name, duration_s, most in _LENGTHS:
        bench.say(name)
        path = write_song(bench.folder / "song.wav", duration_s)
        found = in_fresh_process(_MEMORY, str(path), str(warm))
        path.unlink()
        extra = float(found["extra_mb"])
        limit = at_most(extra, most) if most else {}
        rows.append(Row(f"extra memory, {name}", extra, "MB", **limit, details=found))
    return rows


def _songs_per_s(songs: list[Path], store: Path, n_processes: int) -> float:
    """Rate of a warm pool."""
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir()
    with AnalysisPool(n_processes, store) as pool, ThreadPoolExecutor(n_processes) as threads:
        warm = list(threads.map(pool.analyse, [songs[0]] * n_processes))
        start = time.perf_counter()
        answers = list(threads.map(pool.analyse, songs[1:]))
        elapsed = time.perf_counter() - start
    reasons = [answer.reason for answer in (*warm, *answers) if answer.reason]
    if reasons:
        raise RuntimeError(reasons[0])
    return len(answers) / elapsed


@benchmark("scaling")
def scaling(bench: Bench) -> Sequence[Row]:
    """Songs per second of one and of two processes, in turns; every song has other bytes.

    One process has a decoder beside it, so that it keeps more than one core busy; hence also one process on one core.
    """
    songs = [write_song(bench.folder / f"{i:02d}.wav", 180.0 - i) for i in range(_N_SONGS + 1)]
    store = bench.folder / "store"
    rates: dict[str, list[float]] = {"one on one core": [], "one": [], "two": []}
    for turn in range(3):
        bench.say(f"round {turn + 1} of 3")
        with on_one_core():
            rates["one on one core"].append(_songs_per_s(songs, store, 1))
        rates["one"].append(_songs_per_s(songs, store, 1))
        rates["two"].append(_songs_per_s(songs, store, 2))
    one_core, one, two = (float(np.median(found)) for found in rates.values())
    ratio = two / one
    details = {"rates": rates, "n_processors": os.cpu_count(), "load_average": list(os.getloadavg())}
    return [
        Row("two processes", two, "songs/s", "one process", one, ratio, **at_least(ratio, 1.7), details=details),
        Row("two processes", two, "songs/s", "one process, decoder on the same core", one_core, two / one_core),
    ]
