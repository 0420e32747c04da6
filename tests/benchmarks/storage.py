"""Reading stored features: everything, and one song."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from editorbot_core.beats import BeatGrid
from editorbot_core.feature_store import FeatureArray, ShardReader, compact, write_array
from editorbot_core.features import N_FEATURES, BeatFeatures, load_features, save_features
from tests.benchmarks.registry import Bench, Row, at_most, benchmark, timed

_N_SONGS, _N_BEATS = 300, 500


def _write_songs(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    grid = BeatGrid(np.arange(_N_BEATS) * 0.5, np.arange(_N_BEATS) % 4 + 1, duration=0.5 * _N_BEATS + 1)
    paths = []
    for i in range(_N_SONGS):
        sha256 = f"{i * 0x9E3779B97F4A7C15 % 2**64:016x}" * 4
        values = rng.standard_normal((_N_BEATS, N_FEATURES)).astype(np.float32)
        paths.append(folder / f"{sha256[:16]}.parquet")
        save_features(paths[-1], BeatFeatures(values, grid), metadata={"sha256": sha256})
    return paths


def _random_access_ms(read: Callable[[int], object]) -> float:
    """Median time to read a song, over a random order."""
    order = np.random.default_rng(1).permutation(_N_SONGS)[:200]
    times = [timed(lambda i=i: read(int(i)), 1).best for i in order]
    return 1e3 * float(np.median(times))


@benchmark("parquet")
def parquet(bench: Bench) -> Sequence[Row]:
    """Scan and random access: a file per song, shards, and the memory map."""
    bench.say(f"writing {_N_SONGS} songs of {_N_BEATS} beats")
    paths = _write_songs(bench.folder / "features")
    shards = compact(paths, bench.folder / "shards")
    write_array(shards, bench.folder / "array")
    raw_mb = _N_SONGS * _N_BEATS * N_FEATURES * 4 / 1e6
    ids = [path.stem for path in paths]

    def scan_files() -> None:
        for path in paths:
            load_features(path)

    def scan_shards() -> None:
        with ShardReader(shards) as reader:
            for track_id in reader.track_ids:
                reader.load(track_id)

    bench.say("scans")
    files, sharded = timed(scan_files, 3), timed(scan_shards, 3)
    bench.say("random access")
    with ShardReader(shards) as reader:
        one_file = _random_access_ms(lambda i: load_features(paths[i]))
        one_shard = _random_access_ms(lambda i: reader.load(ids[i]))
    mapped = FeatureArray(bench.folder / "array")
    one_mapped = _random_access_ms(lambda i: np.array(mapped.values(ids[i])))
    size = sum(path.stat().st_size for path in shards) / 1e6
    scan, scan_alone = raw_mb / sharded.best, raw_mb / files.best
    named = "a file per song, named columns"
    return [
        Row("scan of shards", scan, "MB/s", named, scan_alone, scan / scan_alone),
        Row(
            "song of 500 beats from a shard",
            one_shard,
            "ms",
            named,
            one_file,
            one_file / one_shard,
            **at_most(one_shard, 1.0),
        ),
        Row("song of 500 beats from the memory map", one_mapped, "ms", named, one_file, one_file / one_mapped),
        Row("size of shards over raw numbers", size / raw_mb, "", details={"raw_mb": raw_mb}),
    ]
