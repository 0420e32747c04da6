"""Laws of shards and of the memory-mapped array: they give back what was stored, or refuse."""

import re
from pathlib import Path

import numpy as np
import pytest

from editorbot_core.beats import BeatGrid
from editorbot_core.errors import FormatError, ParameterError
from editorbot_core.feature_store import FeatureArray, ShardReader, compact, write_array
from editorbot_core.features import N_FEATURES, BeatFeatures, read_features, save_features


def _write_songs(folder: Path, n_songs: int) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for i in range(n_songs):
        n_beats = 5 + 3 * i
        grid = BeatGrid(np.arange(n_beats) * 0.5, np.arange(n_beats) % 4 + 1, duration=n_beats + 1.0, confidence=0.5)
        features = BeatFeatures(rng.standard_normal((n_beats, N_FEATURES)).astype(np.float32), grid)
        paths.append(folder / f"{(7 * i) % 16:016x}.parquet")
        save_features(paths[-1], features, metadata={"sha256": f"{i:064x}"})
    return paths


@pytest.fixture
def songs(tmp_path: Path) -> list[Path]:
    return _write_songs(tmp_path / "features", 5)


def test_shards_give_back_every_song(songs: list[Path], tmp_path: Path) -> None:
    shards = compact(songs, tmp_path / "shards", songs_per_shard=2)
    assert len(shards) == 3
    with ShardReader(shards) as reader:
        assert reader.track_ids == sorted(path.stem for path in songs)
        for path in reversed(songs):
            stored, expected = reader.load(path.stem), read_features(path)
            np.testing.assert_array_equal(stored.features.values, expected.features.values)
            np.testing.assert_array_equal(stored.features.grid.times, expected.features.grid.times)
            np.testing.assert_array_equal(stored.features.grid.positions, expected.features.grid.positions)
            assert stored.features.grid.duration == expected.features.grid.duration
            assert stored.features.grid.confidence == expected.features.grid.confidence
            assert stored.metadata == expected.metadata


def test_the_array_gives_back_every_song(songs: list[Path], tmp_path: Path) -> None:
    write_array(compact(songs, tmp_path / "shards", songs_per_shard=2), tmp_path / "array")
    array = FeatureArray(tmp_path / "array")
    for path in songs:
        np.testing.assert_array_equal(array.values(path.stem), read_features(path).features.values)
    assert array.rows.shape == (sum(5 + 3 * i for i in range(5)), N_FEATURES)
    with pytest.raises(ValueError, match="read-only"):
        array.rows[0] = 0.0


def test_compacting_again_writes_only_what_changed(songs: list[Path], tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in compact(songs, tmp_path / "shards", songs_per_shard=2)}
    songs[songs.index(max(songs))].unlink()
    left = [path for path in songs if path.exists()]
    after = compact(left, tmp_path / "shards", songs_per_shard=2)
    assert [path for path in after if before.get(path) == path.stat().st_mtime_ns] == after[:2]
    assert sorted((tmp_path / "shards").iterdir()) == sorted(after)


def test_no_songs_are_no_shards(tmp_path: Path) -> None:
    assert compact([], tmp_path / "shards") == []
    with ShardReader([]) as reader:
        assert reader.track_ids == []


def test_wrong_use_is_refused(songs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="two files of features have one track id"):
        compact([songs[0], songs[0]], tmp_path / "shards")
    with pytest.raises(ParameterError, match="at least 1; got 0"):
        compact(songs, tmp_path / "shards", songs_per_shard=0)
    shards = compact(songs, tmp_path / "shards")
    with ShardReader(shards) as reader, pytest.raises(ParameterError, match="no shard holds a song 'x'"):
        reader.load("x")
    write_array(shards, tmp_path / "array")
    with pytest.raises(ParameterError, match="holds no song 'x'"):
        FeatureArray(tmp_path / "array").values("x")


def test_damaged_shards_are_refused(songs: list[Path], tmp_path: Path) -> None:
    (shard,) = compact(songs[:3], tmp_path / "shards")
    content = shard.read_bytes()
    expected = {path.stem: read_features(path).features for path in songs[:3]}
    rng = np.random.default_rng(0)
    silent = 0
    for _ in range(60):
        damaged = bytearray(content)
        damaged[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        shard.write_bytes(bytes(damaged))
        try:
            with ShardReader([shard]) as reader:
                loaded = {track_id: reader.load(track_id).features for track_id in reader.track_ids}
        except FormatError:
            continue
        for track_id, features in loaded.items():
            silent += not np.array_equal(features.values, expected[track_id].values)
            silent += not np.array_equal(features.grid.times, expected[track_id].grid.times)
    assert silent == 0
    for length in (0, 4, len(content) // 2, len(content) - 1):
        shard.write_bytes(content[:length])
        with pytest.raises(FormatError, match="compact them again"):
            ShardReader([shard])


def test_files_of_another_layout_are_no_shards(songs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=re.escape("expected those of editorbot.feature-shard/1")):
        ShardReader([songs[0]])
    with pytest.raises(FormatError, match="No such file"):
        ShardReader([tmp_path / "none.parquet"])


@pytest.mark.parametrize("change", ["bit", "length", "index", "missing"])
def test_damaged_arrays_are_refused(songs: list[Path], tmp_path: Path, change: str) -> None:
    write_array(compact(songs, tmp_path / "shards"), tmp_path / "array")
    array, index = tmp_path / "array" / "features.f32", tmp_path / "array" / "features.json"
    content = bytearray(array.read_bytes())
    if change == "bit":
        content[1_000] ^= 4
        array.write_bytes(bytes(content))
    elif change == "length":
        array.write_bytes(bytes(content[:-484]))
    elif change == "index":
        index.write_text(index.read_text().replace("editorbot.feature-array/1", "editorbot.feature-array/0"))
    else:
        array.unlink()
    with pytest.raises(FormatError, match="write it again"):
        FeatureArray(tmp_path / "array")
